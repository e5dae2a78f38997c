/* SPDX-License-Identifier: BSD-3-Clause */
/* See debug.h. */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "debug.h"

struct debug_flags debug_flags;

static const struct {
  const char *name, *about;
  unsigned *value;
} flags[] = {
#define F(name, flag, about) \
  { #name "." #flag, about, &debug_flags.name##_##flag },
  DEBUG_FLAGS (F)
#undef F
};
#define NR_FLAGS (sizeof flags / sizeof flags[0])

static void
to_stderr (const char *line)
{
  fprintf (stderr, "%s\n", line);
}

void (*debug_output) (const char *line) = to_stderr;

static int
unknown_flag (const char *arg, struct zone_error *err)
{
  char list[256] = "";
  size_t i, n = 0;

  for (i = 0; i < NR_FLAGS && n < sizeof list; i++)
    n += snprintf (list + n, sizeof list - n, "%s%s", i ? ", " : "",
                   flags[i].name);
  return zone_error (err, EINVAL, "-D %s: there is no such flag, but %s", arg,
                     list);
}

int
debug_set (const char *arg, struct zone_error *err)
{
  const char *value = strchr (arg, '=');
  unsigned long n;
  char *end;
  size_t i;

  for (i = 0; i < NR_FLAGS; i++)
    if (strlen (flags[i].name) == (value ? (size_t) (value - arg)
                                   : strlen (arg)) &&
        strncmp (flags[i].name, arg, strlen (flags[i].name)) == 0)
      break;
  if (i == NR_FLAGS)
    return unknown_flag (arg, err);
  errno = 0;
  n = value ? strtoul (value + 1, &end, 10) : 0;
  if (value == NULL || !isdigit ((unsigned char) value[1]) || *end || errno ||
      n > INT_MAX)
    return zone_error (err, EINVAL, "-D %s: a number has to follow, like "
                       "%s=1", arg, flags[i].name);
  *flags[i].value = n;
  return 0;
}

void
debug_help (FILE *f)
{
  size_t i;

  for (i = 0; i < NR_FLAGS; i++)
    fprintf (f, "-D %-20s %s\n", flags[i].name, flags[i].about);
}

void
debug (const char *fs, ...)
{
  char line[512];
  va_list args;

  va_start (args, fs);
  vsnprintf (line, sizeof line, fs, args);
  va_end (args);
  debug_output (line);
}

uint64_t
debug_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * UINT64_C (1000000) + ts.tv_nsec / 1000;
}
