/* SPDX-License-Identifier: BSD-3-Clause */
/* See log.h. */

#include <config.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"

bool log_is_verbose;

static enum log_where log_where;
static bool log_is_journal;     /* standard error is systemd's */

/* systemd says which file its journal is: DEVICE:INODE. */
static bool
is_journal (void)
{
  const char *stream = getenv ("JOURNAL_STREAM");
  struct stat st;
  char mine[64];

  if (stream == NULL || fstat (STDERR_FILENO, &st) == -1)
    return false;
  snprintf (mine, sizeof mine, "%ju:%ju", (uintmax_t) st.st_dev,
            (uintmax_t) st.st_ino);
  return strcmp (mine, stream) == 0;
}

void
log_to (enum log_where where)
{
  log_where = where == LOG_DEFAULT ? LOG_TO_STDERR : where;
  log_is_journal = is_journal ();
  if (log_where == LOG_TO_SYSLOG)
    openlog ("znbd-server", LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

bool
log_is_on_stderr (void)
{
  return log_where == LOG_DEFAULT || log_where == LOG_TO_STDERR;
}

static void
say_line (int priority, const char *line)
{
  if (log_where == LOG_TO_SYSLOG)
    syslog (priority, "%s", line);
  /* In one piece, whoever else is writing. */
  else if (log_is_on_stderr () && log_is_journal)
    fprintf (stderr, "<%d>%s\n", priority, line);
  else if (log_is_on_stderr ())
    fprintf (stderr, "znbd-server: %s\n", line);
}

static void say (int priority, const char *fs, va_list args)
  __attribute__ ((format (printf, 2, 0)));

static void
say (int priority, const char *fs, va_list args)
{
  char line[1024];

  vsnprintf (line, sizeof line, fs, args);
  say_line (priority, line);
}

void
log_error (const char *fs, ...)
{
  va_list args;

  va_start (args, fs);
  say (LOG_ERR, fs, args);
  va_end (args);
}

void
log_line (const char *line)
{
  log_error ("%s", line);
}

void
log_verbose (const char *fs, ...)
{
  va_list args;

  if (!log_is_verbose)
    return;
  va_start (args, fs);
  say (LOG_INFO, fs, args);
  va_end (args);
}

void
log_debug (const char *line)
{
  say_line (LOG_DEBUG, line);
}
