/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes and zone lists as users type them.  nbdkit's own parser is not
 * used because the command line tool has no nbdkit around it; what it
 * accepts, this accepts, except leading blanks and signs.
 */

#include <config.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "size.h"

static bool
is_digit (char c)
{
  return c >= '0' && c <= '9';
}

/* Reads a decimal number of at least one digit and moves *p behind it.
 * Larger than max gives max + 1, so max < UINT64_MAX. */
static uint64_t
parse_digits (const char **p, uint64_t max)
{
  uint64_t n = 0;

  for (; is_digit (**p); ++*p) {
    uint64_t digit = **p - '0';

    n = n > max || n > (max - digit) / 10 ? max + 1 : n * 10 + digit;
  }
  return n;
}

int
size_parse (const char *str, uint64_t *bytes, const char **why)
{
  const char *p = str;
  uint64_t n, scale;

  if (p[0] == '-' && is_digit (p[1])) {
    *why = "is negative";
    return -1;
  }
  if (!is_digit (*p))
    goto no_size;
  n = parse_digits (&p, INT64_MAX);

  switch (*p) {
  case '\0': scale = 1; break;
  case 'b': case 'B': scale = 1; break;
  case 's': case 'S': scale = 512; break;
  case 'k': case 'K': scale = UINT64_C (1) << 10; break;
  case 'm': case 'M': scale = UINT64_C (1) << 20; break;
  case 'g': case 'G': scale = UINT64_C (1) << 30; break;
  case 't': case 'T': scale = UINT64_C (1) << 40; break;
  case 'p': case 'P': scale = UINT64_C (1) << 50; break;
  case 'e': case 'E': scale = UINT64_C (1) << 60; break;
  default: goto no_size;
  }
  if (*p != '\0' && p[1] != '\0')
    goto no_size;

  if (n > INT64_MAX / scale) {
    *why = "is past 2^63 - 1";
    return -1;
  }
  *bytes = n * scale;
  return 0;

 no_size:
  *why = "is not a size like 512, 4k, 64M or 10G";
  return -1;
}

const char *
size_text (char *buf, uint64_t bytes)
{
  static const char suffixes[] = "kMGTPE";
  const char *suffix = suffixes;

  if (bytes == 0 || bytes % 1024 != 0) {
    snprintf (buf, SIZE_TEXT_MAX, "%" PRIu64, bytes);
    return buf;
  }
  bytes /= 1024;
  while (bytes % 1024 == 0) {
    bytes /= 1024;
    suffix++;
  }
  snprintf (buf, SIZE_TEXT_MAX, "%" PRIu64 "%c", bytes, *suffix);
  return buf;
}

/* Takes the next N[-M] off *p, and the comma behind it.  Returns 1, 0 at
 * the end, -1 on error. */
static int
next_range (const char **p, uint32_t zones, uint64_t *first, uint64_t *last,
            const char **why)
{
  if (**p == '\0')
    return 0;

  if (!is_digit (**p))
    goto no_list;
  *first = *last = parse_digits (p, UINT32_MAX);
  if (**p == '-') {
    ++*p;
    if (!is_digit (**p))
      goto no_list;
    *last = parse_digits (p, UINT32_MAX);
  }
  if (**p == ',') {
    ++*p;
    if (**p == '\0')
      goto no_list;
  }
  else if (**p != '\0')
    goto no_list;

  if (*first > *last) {
    *why = "has a range that runs backwards";
    return -1;
  }
  if (*last >= zones) {
    *why = "names a zone that the disk does not have";
    return -1;
  }
  return 1;

 no_list:
  *why = "is not a list of zones like 3 or 0-7,12";
  return -1;
}

int
size_parse_zone_list (const char *str, uint32_t zones,
                      int (*fn) (void *opaque, uint32_t first,
                                 uint32_t last),
                      void *opaque, const char **why)
{
  const char *p;
  uint64_t first, last;
  int r;

  if (*str == '\0') {
    *why = "is not a list of zones like 3 or 0-7,12";
    return -1;
  }

  /* All of it is read before anything is done. */
  p = str;
  while ((r = next_range (&p, zones, &first, &last, why)) == 1)
    ;
  if (r == -1)
    return -1;
  if (fn == NULL)               /* only checked */
    return 0;

  p = str;
  while (next_range (&p, zones, &first, &last, why) == 1) {
    r = fn (opaque, first, last);
    if (r != 0)
      return r;
  }
  return 0;
}
