/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd io: qemu-io's commands on a remote disk, those for zones as well,
 * which qemu-io has for the machine's own zoned devices only.
 */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "io.h"
#include "target.h"

static const char help[] =
  "znbd io [-r] [-c COMMAND]... URI\n"
  "\n"
  "Runs qemu-io's commands on a remote disk: those given, else those that\n"
  "standard input has, one a line.\n"
  "\n"
  "  -c, --cmd COMMAND  run this; as often as needed (-c help lists them)\n"
  "  -r, --read-only    change nothing\n"
  "  --help\n";

static const struct option options[] = {
  { "cmd", required_argument, NULL, 'c' },
  { "read-only", no_argument, NULL, 'r' },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

/* Runs one line; notes whether it failed.  Whether to go on. */
static bool
run (struct io *io, char *line, bool *failed)
{
  const enum io_result result = io_command (io, line);

  if (result == IO_FAILED)
    *failed = true;
  /* In the order of what is said on standard error. */
  return cli_flush () == 0 && result != IO_QUIT;
}

static void
run_input (struct io *io, bool *failed)
{
  const bool prompt = isatty (STDIN_FILENO) && isatty (STDOUT_FILENO);
  char *line = NULL;
  size_t size = 0;
  ssize_t n = 0;

  for (;;) {
    if (prompt) {
      fputs ("znbd> ", stdout);
      if (cli_flush () == -1)
        break;
    }
    n = getline (&line, &size, stdin);
    if (n == -1)
      break;
    if (n > 0 && line[n - 1] == '\n')
      line[--n] = '\0';
    if (strlen (line) != (size_t) n) {
      cli_error ("standard input: a line has a zero byte in it");
      *failed = true;
      break;
    }
    if (!run (io, line, failed))
      break;
  }
  if (n == -1 && !feof (stdin)) {
    cli_error ("standard input: %m");
    *failed = true;
  }
  if (n == -1 && prompt)
    putchar ('\n');
  free (line);
}

/* Connects.  0, or -1 after a message. */
static int
begin (struct io *io, const char *uri)
{
  if (!target_is_uri (uri)) {
    cli_error ("%s is no NBD URI: serve the disk, for example by "
               "znbd-server --run 'znbd io \"$uri\"' DISK", uri);
    return -1;
  }
  io->disk = znbd_connect_uri (uri, ZNBD_ALLOW_LOCAL_FILES);
  if (io->disk == NULL) {
    cli_error ("%s", znbd_get_error ());
    return -1;
  }
  io->nbd = znbd_get_nbd_handle (io->disk);
  if (io->nbd == NULL) {
    cli_error ("%s", znbd_get_error ());
    znbd_close (io->disk);
    return -1;
  }
  (void) znbd_get_geometry (io->disk, &io->geometry);
  io->readonly = io->readonly || znbd_is_read_only (io->disk);
  return 0;
}

/* Makes durable what was changed, as a disk that is closed. */
static void
end (struct io *io, bool *failed)
{
  if (io->changed && znbd_flush (io->disk) == -1) {
    cli_error ("%s", znbd_get_error ());
    *failed = true;
  }
  znbd_close (io->disk);
}

int
cmd_io (int argc, char **argv)
{
  /* No more commands than arguments. */
  char **commands = calloc (argc + 1, sizeof *commands);
  int nr_commands = 0, c, i, status = EXIT_FAILURE;
  struct io io = { 0 };
  const char *uri;
  bool failed = false;

  if (commands == NULL) {
    cli_error ("out of memory");
    return EXIT_FAILURE;
  }
  while ((c = cli_option_or_letter (argc, argv, ":c:r", options, help)) != -1)
    switch (c) {
    case 'c':
      commands[nr_commands++] = optarg;
      break;
    case 'r':
      io.readonly = true;
      break;
    default:
      if (c == CLI_HELP)
        status = EXIT_SUCCESS;
      goto out;
    }
  uri = cli_operand (argc, argv, "URI");
  if (uri == NULL || begin (&io, uri) == -1)
    goto out;

  if (nr_commands == 0)
    run_input (&io, &failed);
  for (i = 0; i < nr_commands; ++i)
    if (!run (&io, commands[i], &failed))
      break;
  end (&io, &failed);
  if (!failed)
    status = EXIT_SUCCESS;
 out:
  free (commands);
  return status;
}
