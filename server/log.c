/* SPDX-License-Identifier: BSD-3-Clause */
/* See log.h. */

#include <config.h>

#include <stdarg.h>
#include <stdio.h>

#include "log.h"

bool log_is_verbose;

static void say (const char *fs, va_list args)
  __attribute__ ((format (printf, 1, 0)));

static void
say (const char *fs, va_list args)
{
  char line[1024];

  vsnprintf (line, sizeof line, fs, args);
  /* In one piece, whoever else is writing. */
  fprintf (stderr, "znbd-server: %s\n", line);
}

void
log_error (const char *fs, ...)
{
  va_list args;

  va_start (args, fs);
  say (fs, args);
  va_end (args);
}

void
log_verbose (const char *fs, ...)
{
  va_list args;

  if (!log_is_verbose)
    return;
  va_start (args, fs);
  say (fs, args);
  va_end (args);
}
