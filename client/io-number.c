/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers as qemu-io takes and prints them. */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "io.h"

/* The bytes of a suffix, 0 where it is none. */
static uint64_t
scale_of (const char *suffix)
{
  static const char suffixes[] = "bkmgtpe";
  const char *p;

  if (*suffix == '\0')
    return 1;
  p = strchr (suffixes, tolower ((unsigned char) *suffix));
  if (p == NULL || suffix[1] != '\0')
    return 0;
  return UINT64_C (1) << 10 * (p - suffixes);
}

/* Digits and their suffix: 0, EINVAL or ERANGE. */
static int
parse (const char *str, int64_t *number)
{
  const bool hex = strncasecmp (str, "0x", 2) == 0;
  uint64_t n, scale, part;
  double fraction = 0, weight = 1;
  char *end;

  if (hex ? !isxdigit ((unsigned char) str[2])
      : !isdigit ((unsigned char) *str))
    return EINVAL;
  errno = 0;
  n = strtoull (str, &end, hex ? 16 : 10);
  if (errno != 0)
    return ERANGE;
  if (hex) {
    if (*end != '\0')
      return EINVAL;
    scale = 1;
  }
  else {
    if (*end == '.')
      for (end++; isdigit ((unsigned char) *end); ++end) {
        weight /= 10;
        fraction += (*end - '0') * weight;
      }
    scale = scale_of (end);
    /* There are no parts of bytes. */
    if (scale == 0 || (scale == 1 && fraction > 0))
      return EINVAL;
  }
  part = fraction * scale + 0.5;
  if (n > INT64_MAX / scale || n * scale > INT64_MAX - part)
    return ERANGE;
  *number = n * scale + part;
  return 0;
}

int64_t
io_number (const char *arg)
{
  int64_t number;

  switch (parse (*arg == '+' ? arg + 1 : arg, &number)) {
  case 0:
    return number;
  case ERANGE:
    printf ("Parsing error: argument too large -- %s\n", arg);
    return -1;
  default:
    printf ("Parsing error: non-numeric argument, or "
            "extraneous/unrecognized suffix -- %s\n", arg);
    return -1;
  }
}

int
io_pattern (const char *arg)
{
  char *end;
  long n;

  n = strtol (arg, &end, 0);
  if (end == arg || *end != '\0' || n < 0 || n > UCHAR_MAX) {
    printf ("%s is not a valid pattern byte\n", arg);
    return -1;
  }
  return n;
}

const char *
io_bytes (char buf[IO_BYTES_MAX], double bytes)
{
  static const char *const units[] = {
    "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"
  };
  char digits[IO_BYTES_MAX - 8], *point;
  unsigned unit = 0;

  while (bytes >= 1024 && unit < 6) {
    bytes /= 1024;
    unit++;
  }
  snprintf (digits, sizeof digits, "%.*f", unit == 0 ? 6 : 3, bytes);
  /* Whole numbers, as far as three digits tell. */
  point = strstr (digits, ".000");
  if (point)
    *point = '\0';
  snprintf (buf, IO_BYTES_MAX, "%s %s", digits, units[unit]);
  return buf;
}

double
io_seconds_since (const struct timespec *start)
{
  struct timespec now;
  double seconds;

  clock_gettime (CLOCK_MONOTONIC, &now);
  seconds = now.tv_sec - start->tv_sec +
            (now.tv_nsec - start->tv_nsec) / 1e9;
  return seconds < 1e-9 ? 1e-9 : seconds;       /* rates are told */
}

void
io_statistics (const char *did, double seconds, int64_t offset,
               int64_t count, bool terse)
{
  char bytes[IO_BYTES_MAX], rate[IO_BYTES_MAX], when[40];
  const unsigned whole = seconds;

  if (terse || whole > 0)
    snprintf (when, sizeof when, "%u:%02u:%05.2f", whole / 3600,
              whole / 60 % 60, seconds - whole + whole % 60);
  else
    snprintf (when, sizeof when, "%05.2f sec", seconds);

  if (terse)
    printf ("%" PRIi64 ",1,%s,%.3f,%.3f\n", count, when, count / seconds,
            1 / seconds);
  else
    printf ("%s %" PRIi64 "/%" PRIi64 " bytes at offset %" PRIi64 "\n"
            "%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n",
            did, count, count, offset, io_bytes (bytes, count), when,
            io_bytes (rate, count / seconds), 1 / seconds);
}
