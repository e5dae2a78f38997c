/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd check: verifies an image that nobody has open, and repairs it. */

#include <config.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "image.h"

static const char help[] =
  "znbd check [--repair] IMAGE\n"
  "\n"
  "Reads all of an image's records and says what is wrong with them.  Exits\n"
  "with 0 where the image opens and has exactly the right state, else with\n"
  "1.  Changes nothing without --repair.\n"
  "\n"
  "  --repair   write damaged copies anew where another one, or the parity,\n"
  "             says what they held\n"
  "  --help\n";

static const struct option options[] = {
  { "repair", no_argument, NULL, 'r' },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

int
cmd_check (int argc, char **argv)
{
  struct zone_error err;
  const char *path;
  bool repair = false;
  int c, faults;

  while ((c = cli_option (argc, argv, options, help)) != -1)
    switch (c) {
    case 'r':
      repair = true;
      break;
    default:
      return c == CLI_HELP ? EXIT_SUCCESS : EXIT_FAILURE;
    }
  path = cli_operand (argc, argv, "IMAGE");
  if (path == NULL)
    return EXIT_FAILURE;

  faults = image_check (path, repair, stdout, &err);
  if (faults == -1)
    cli_error ("%s", err.text);
  return faults == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
