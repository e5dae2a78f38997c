/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd: makes, checks, shows and manages zoned disks, in image files or
 * behind NBD URIs.  This file finds the subcommand; each has a file of its
 * own.
 */

#include <config.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static const struct command {
  const char *name;
  int (*run) (int argc, char **argv);
  const char *summary;
} commands[] = {
  { "create", cmd_create, "make an image of a zoned disk" },
  { "check",  cmd_check,  "verify an image" },
  { "info",   cmd_info,   "show a disk's geometry and limits" },
  { "report", cmd_report, "show a disk's zones" },
  { "map",    cmd_map,    "draw a disk's zones" },
  { "io",     cmd_io,     "qemu-io's commands, on a remote disk" },
  { "append", cmd_append, "append standard input to a zone" },
  { "copy",   cmd_copy,   "copy a disk to another one" },
  { "open",   cmd_manage, "open zones explicitly" },
  { "close",  cmd_manage, "close open zones" },
  { "finish", cmd_manage, "make zones full" },
  { "reset",  cmd_manage, "make zones empty; their data is gone" },
  { "attach", cmd_attach, "make a remote disk a block device, /dev/ublkbN" },
  { "detach", cmd_detach, "end such a device" },
  { "list",   cmd_list,   "show such devices" },
};

#define NR_COMMANDS (sizeof commands / sizeof commands[0])

static void
help (void)
{
  size_t i;

  printf ("znbd SUBCOMMAND [OPTION]... IMAGE|URI\n"
          "\n"
          "Makes, checks, shows and manages zoned disks: image files, block "
          "devices\n"
          "that hold an image, and disks served over NBD.\n"
          "\n");
  for (i = 0; i < NR_COMMANDS; ++i)
    printf ("  %-8s  %s\n", commands[i].name, commands[i].summary);
  printf ("\n"
          "  znbd SUBCOMMAND --help  tells a subcommand's options\n"
          "  znbd --version          tells the version\n"
          "\n"
          "Sizes: 512, 4k, 64M, 10G.  More in the man page, znbd(1).\n");
}

static int
run (const struct command *command, int argc, char **argv)
{
  static char name[32];

  snprintf (name, sizeof name, "znbd %s", command->name);
  cli_name = name;
  return command->run (argc, argv);
}

/* Takes the places of standard files that the caller closed (>&-): an image
 * or a connection must not get one of them, and messages with it. */
static void
fill_standard_files (void)
{
  int fd;

  do {
    fd = open ("/dev/null", O_RDWR);
    if (fd == STDIN_FILENO || fd == STDOUT_FILENO) {
      /* Input that is not there, and output that is lost, are to be
       * errors. */
      int flags = fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;

      close (fd);
      fd = open ("/dev/null", flags);
    }
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd > STDERR_FILENO)
    close (fd);
}

int
main (int argc, char **argv)
{
  size_t i;

  fill_standard_files ();

  /* A reader that goes away, of the output or of the connection, is to be
   * an error like others. */
  signal (SIGPIPE, SIG_IGN);
  /* So is a limit of file sizes. */
  signal (SIGXFSZ, SIG_IGN);

  if (argc < 2) {
    cli_error ("no subcommand (znbd --help lists them)");
    return EXIT_FAILURE;
  }
  if (strcmp (argv[1], "--help") == 0) {
    help ();
    return cli_finish (EXIT_SUCCESS);
  }
  if (strcmp (argv[1], "--version") == 0 || strcmp (argv[1], "-V") == 0) {
    printf ("znbd %s\n", PACKAGE_VERSION);
    return cli_finish (EXIT_SUCCESS);
  }
  for (i = 0; i < NR_COMMANDS; ++i)
    if (strcmp (argv[1], commands[i].name) == 0)
      return cli_finish (run (&commands[i], argc - 1, argv + 1));

  cli_error ("unknown %s %s (znbd --help lists %s)",
             argv[1][0] == '-' ? "option" : "subcommand",
             argv[1][0] ? argv[1] : "''",
             argv[1][0] == '-' ? "what there is" : "them");
  return EXIT_FAILURE;
}
