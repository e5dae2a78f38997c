/* SPDX-License-Identifier: BSD-3-Clause */
/* See cli.h.  Wrong use is answered with one line that names the culprit,
 * not with a page of help.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "size.h"

const char *cli_name = "znbd";

static int output_errno;        /* of the first failure */

void
cli_error (const char *fs, ...)
{
  char *text, *p;
  va_list args;

  va_start (args, fs);
  if (vasprintf (&text, fs, args) == -1)
    text = NULL;
  va_end (args);

  /* Bytes above 127 may be letters of the user's. */
  for (p = text; p && *p; ++p)
    if ((unsigned char) *p < ' ' || *p == 0x7f)
      *p = '?';
  fprintf (stderr, "%s: %s\n", cli_name, text ? text : "out of memory");
  free (text);
}

/* Whether str is "--" and a beginning that several options share. */
static bool
is_ambiguous (const char *str, const struct option *options)
{
  size_t n;
  int matches = 0;

  if (strncmp (str, "--", 2) != 0)
    return false;
  str += 2;
  n = strcspn (str, "=");
  for (; options->name; ++options)
    if (strncmp (options->name, str, n) == 0)
      matches++;
  return matches > 1;
}

int
cli_option (int argc, char **argv, const struct option *options,
            const char *help)
{
  return cli_option_or_letter (argc, argv, ":", options, help);
}

int
cli_option_or_letter (int argc, char **argv, const char *letters,
                      const struct option *options, const char *help)
{
  const char *given;
  int c;

  opterr = 0;
  c = getopt_long (argc, argv, letters, options, NULL);
  given = optind > 0 && optind <= argc ? argv[optind - 1] : "";
  switch (c) {
  case ':':
    cli_error ("option %s needs an argument", given);
    return CLI_BAD;
  case '?':
    if (optopt >= CLI_HELP_VALUE)
      cli_error ("option %.*s takes no argument",
                 (int) strcspn (given, "="), given);
    else if (optopt)
      cli_error ("unknown option -%c (--help lists them)", optopt);
    else if (is_ambiguous (given, options))
      cli_error ("option %s is the beginning of several (--help lists them)",
                 given);
    else
      cli_error ("unknown option %s (--help lists them)", given);
    return CLI_BAD;
  case CLI_HELP_VALUE:
    fputs (help, stdout);
    return CLI_HELP;
  default:
    return c;
  }
}

const char *
cli_operand (int argc, char **argv, const char *what)
{
  if (optind >= argc) {
    cli_error ("%s is missing", what);
    return NULL;
  }
  if (optind + 1 < argc) {
    cli_error ("extra operand '%s' behind '%s'", argv[optind + 1],
               argv[optind]);
    return NULL;
  }
  if (argv[optind][0] == '\0') {
    cli_error ("%s is empty", what);
    return NULL;
  }
  return argv[optind];
}

int
cli_size (const char *option, const char *arg, uint64_t *bytes)
{
  const char *why;

  if (size_parse (arg, bytes, &why) == -1) {
    cli_error ("%s %s %s", option, *arg ? arg : "''", why);
    return -1;
  }
  return 0;
}

int
cli_number (const char *option, const char *arg, uint64_t *number)
{
  char *end;

  errno = 0;
  *number = strtoull (arg, &end, 10);
  if (arg[0] == '-' && isdigit ((unsigned char) arg[1]))
    cli_error ("%s %s is negative", option, arg);
  else if (!isdigit ((unsigned char) arg[0]) || *end != '\0')
    cli_error ("%s %s is not a whole number", option, *arg ? arg : "''");
  else if (errno != 0 || *number > INT64_MAX)
    cli_error ("%s %s is past 2^63 - 1", option, arg);
  else
    return 0;
  return -1;
}

int
cli_write (const char *buf, size_t length)
{
  if (fwrite_unlocked (buf, length, 1, stdout) == 1)
    return 0;
  if (output_errno == 0)
    output_errno = errno;
  return -1;
}

int
cli_flush (void)
{
  if (fflush (stdout) == 0)
    return 0;
  if (output_errno == 0)
    output_errno = errno;
  return -1;
}

int
cli_finish (int status)
{
  /* An earlier write of stdio's own may have failed and its errno be lost. */
  errno = output_errno;
  if (fflush (stdout) == EOF || ferror (stdout)) {
    cli_error ("standard output: %s",
               errno ? strerror (errno) : "a write failed");
    return EXIT_FAILURE;
  }
  return status;
}
