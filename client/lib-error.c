/* SPDX-License-Identifier: BSD-3-Clause */
/* The thread's last error, as libnbd keeps its own: a text and an errno.
 * Texts are cut rather than allocated, so that reporting cannot fail.
 */

#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib-internal.h"

static __thread char error_text[1024];
static __thread int error_num;

const char *
znbd_get_error (void)
{
  return error_text[0] ? error_text : NULL;
}

int
znbd_get_errno (void)
{
  return error_num;
}

int
lib_error (int num, const char *fs, ...)
{
  va_list args;

  va_start (args, fs);
  vsnprintf (error_text, sizeof error_text, fs, args);
  va_end (args);
  error_num = num;
  return -1;
}

int
lib_error_nbd (const char *fs, ...)
{
  const char *said = nbd_get_error ();
  va_list args;
  size_t n;

  error_num = nbd_get_errno ();
  if (error_num == 0)
    error_num = EIO;

  va_start (args, fs);
  vsnprintf (error_text, sizeof error_text, fs, args);
  va_end (args);
  n = strlen (error_text);
  snprintf (error_text + n, sizeof error_text - n, ": %s",
            said ? said : strerror (error_num));
  return -1;
}
