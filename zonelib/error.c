/* SPDX-License-Identifier: BSD-3-Clause */
/* See error.h. */

#include <config.h>

#include <stdarg.h>
#include <stdio.h>

#include "error.h"

int
zone_error (struct zone_error *err, int num, const char *fs, ...)
{
  va_list args;

  err->num = num;
  va_start (args, fs);
  vsnprintf (err->text, sizeof err->text, fs, args);
  va_end (args);
  return -1;
}
