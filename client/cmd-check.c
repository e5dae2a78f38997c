/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd check: verifies an image that nobody has open. */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "image.h"

static const char help[] =
  "znbd check IMAGE\n"
  "\n"
  "Reads all of an image's records and says what is wrong with them.  "
  "Changes\n"
  "nothing.  Exits with 0 where the image opens and has exactly the right\n"
  "state, else with 1.\n"
  "\n"
  "  --help\n";

static const struct option options[] = {
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

int
cmd_check (int argc, char **argv)
{
  struct zone_error err;
  const char *path;
  int c, faults;

  while ((c = cli_option (argc, argv, options, help)) != -1)
    return c == CLI_HELP ? EXIT_SUCCESS : EXIT_FAILURE;
  path = cli_operand (argc, argv, "IMAGE");
  if (path == NULL)
    return EXIT_FAILURE;

  faults = image_check (path, stdout, &err);
  if (faults == -1)
    cli_error ("%s", err.text);
  return faults == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
