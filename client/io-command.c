/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd io's commands: a line's words, the command, its help. */

#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "io.h"

static enum io_result io_help (struct io *io, int argc, char **argv);
static enum io_result io_quit (struct io *io, int argc, char **argv);

static const struct command {
  const char *name, *alias;
  enum io_result (*run) (struct io *io, int argc, char **argv);
  int least, most;              /* arguments; -1: any number */
  const char *arguments, *summary;
  const char *more;             /* or NULL */
} commands[] = {
  { "flush", "f", io_flush, 0, 0, "", "make durable what was written", NULL },
  { "help", "?", io_help, 0, 1, "[command]", "explain one or all commands",
    NULL },
  { "length", "l", io_length, 0, 0, "", "show the disk's size", NULL },
  { "quit", "q", io_quit, 0, -1, "", "leave", NULL },
  { "read", "r", io_read, 2, -1, "[-Cqv] [-P pattern [-s off] [-l len]] "
    "off len", "read bytes, and compare them with a pattern",
    " -C  statistics for programs: bytes,ops,time,bytes/sec,ops/sec\n"
    " -P  compare with this byte; fail where another is found\n"
    " -s  where to begin to compare, from off (only with -P)\n"
    " -l  how many bytes to compare (only with -P)\n"
    " -q  no statistics and no dump\n"
    " -v  dump what was read\n" },
  { "write", "w", io_write, 2, -1, "[-Cfnquz] [-P pattern] off len",
    "write a pattern, or zeroes",
    " -C  statistics for programs: bytes,ops,time,bytes/sec,ops/sec\n"
    " -f  make it durable before going on (FUA)\n"
    " -P  write this byte (0xcd)\n"
    " -q  no statistics\n"
    " -z  have the server write zeroes\n"
    " -n  only where that is fast (only with -z)\n"
    " -u  it may leave holes (only with -z)\n" },
  { "zone_append", "zap", io_zone_append, 2, -1, "[-p] off len [len..]",
    "append bytes to the zone that starts at off",
    " -p  tell the sector where they are\n" },
  { "zone_close", "zc", io_zone_manage, 2, 2, "off len", "close zones",
    NULL },
  { "zone_finish", "zf", io_zone_manage, 2, 2, "off len", "make zones full",
    NULL },
  { "zone_open", "zo", io_zone_manage, 2, 2, "off len",
    "open zones explicitly", NULL },
  { "zone_report", "zrp", io_zone_report, 2, 2, "off number",
    "report zones from that of byte off on", NULL },
  { "zone_reset", "zrs", io_zone_manage, 2, 2, "off len",
    "make zones empty", NULL },
};

#define NR_COMMANDS (sizeof commands / sizeof commands[0])

static const struct command *
find (const char *name)
{
  size_t i;

  for (i = 0; i < NR_COMMANDS; ++i)
    if (strcmp (commands[i].name, name) == 0 ||
        strcmp (commands[i].alias, name) == 0)
      return &commands[i];
  return NULL;
}

enum io_result
io_usage (const char *name)
{
  const struct command *command = find (name);

  printf ("%s%s%s -- %s\n", command->name, *command->arguments ? " " : "",
          command->arguments, command->summary);
  return IO_FAILED;
}

static enum io_result
io_help (struct io *io, int argc, char **argv)
{
  const struct command *command;
  size_t i;

  (void) io;
  if (argc == 1) {
    for (i = 0; i < NR_COMMANDS; ++i)
      (void) io_usage (commands[i].name);
    printf ("\nUse 'help commandname' for extended help.\n");
    return IO_OK;
  }
  command = find (argv[1]);
  if (command == NULL) {
    printf ("command %s not found\n", argv[1]);
    return IO_FAILED;
  }
  (void) io_usage (command->name);
  if (command->more)
    printf ("\n%s\n", command->more);
  return IO_OK;
}

static enum io_result
io_quit (struct io *io, int argc, char **argv)
{
  (void) io;
  (void) argc;
  (void) argv;
  return IO_QUIT;
}

bool
io_may_change (struct io *io)
{
  if (!io->readonly)
    return true;
  cli_error ("the disk is read-only%s",
             znbd_is_read_only (io->disk) ? "" : ": opened with -r");
  return false;
}

/* Whether there are as many arguments as the command takes. */
static bool
count_fits (const struct command *command, const char *name, int count)
{
  if (count >= command->least &&
      (command->most == -1 || count <= command->most))
    return true;
  fprintf (stderr, "bad argument count %d to %s, expected ", count, name);
  if (command->most == -1)
    fprintf (stderr, "at least %d", command->least);
  else if (command->least == command->most)
    fprintf (stderr, "%d", command->least);
  else
    fprintf (stderr, "between %d and %d", command->least, command->most);
  fprintf (stderr, " arguments\n");
  return false;
}

enum io_result
io_command (struct io *io, char *line)
{
  const struct command *command;
  enum io_result result = IO_FAILED;
  char **argv, *word, *save;
  int argc = 0;

  /* At most every other character begins a word. */
  argv = calloc (strlen (line) / 2 + 2, sizeof *argv);
  if (argv == NULL) {
    cli_error ("out of memory");
    return IO_FAILED;
  }
  for (word = strtok_r (line, " ", &save); word;
       word = strtok_r (NULL, " ", &save))
    argv[argc++] = word;

  if (argc == 0)
    result = IO_OK;
  else if ((command = find (argv[0])) == NULL)
    fprintf (stderr, "command \"%s\" not found\n", argv[0]);
  else if (count_fits (command, argv[0], argc - 1)) {
    /* Begins anew, and says itself what it does not know. */
    optind = 0;
    opterr = 1;
    result = command->run (io, argc, argv);
  }
  free (argv);
  return result;
}
