/* SPDX-License-Identifier: BSD-3-Clause */
/* What the subcommands of znbd share: messages, options, operands, output.
 *
 * A subcommand is int cmd_NAME (int argc, char **argv), with its own name
 * in argv[0], and returns the program's exit status.
 */

#ifndef CLI_H
#define CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int cmd_create (int argc, char **argv);
int cmd_check (int argc, char **argv);
int cmd_info (int argc, char **argv);
int cmd_report (int argc, char **argv);
int cmd_map (int argc, char **argv);
int cmd_io (int argc, char **argv);
int cmd_append (int argc, char **argv);
int cmd_attach (int argc, char **argv);
int cmd_detach (int argc, char **argv);
int cmd_list (int argc, char **argv);
int cmd_copy (int argc, char **argv);
int cmd_manage (int argc, char **argv);  /* open, close, finish, reset */

/* "znbd" or "znbd SUBCOMMAND", before every message.  Set by main. */
extern const char *cli_name;

/* One line on standard error.  Control characters in it, which can only
 * have come from what the user or a server gave, become '?'. */
void cli_error (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2)));

/* getopt_long with messages of our own.  Values of long options begin at
 * 256.  Returns an option's value, -1 at the end, CLI_BAD after a message;
 * --help prints help and gives CLI_HELP. */
#define CLI_BAD  (-2)
#define CLI_HELP (-3)
int cli_option (int argc, char **argv, const struct option *options,
                const char *help);

/* The same where there are short options, which letters has behind a
 * colon. */
int cli_option_or_letter (int argc, char **argv, const char *letters,
                          const struct option *options, const char *help);

/* The long option every subcommand has, for its table. */
#define CLI_HELP_VALUE 255
#define CLI_HELP_OPTION { "help", no_argument, NULL, CLI_HELP_VALUE }

/* The one operand behind the options, called what in messages ("IMAGE").
 * NULL after a message. */
const char *cli_operand (int argc, char **argv, const char *what);

/* Values of options.  0, or -1 after a message. */
int cli_size (const char *option, const char *arg, uint64_t *bytes);
int cli_number (const char *option, const char *arg, uint64_t *number);

/* Writes to standard output where there is much of it.  -1 where that fails,
 * for ending early: cli_finish will say why. */
int cli_write (const char *buf, size_t length);

/* Writes out what there is of it so far.  -1 as cli_write. */
int cli_flush (void);

/* Ends the output: status, or EXIT_FAILURE after a message where standard
 * output could not be written. */
int cli_finish (int status);

#endif /* CLI_H */
