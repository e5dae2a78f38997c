/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes as nbdkit's users type them, and as people read them. */

#ifndef ZONE_SIZE_H
#define ZONE_SIZE_H

#include <stddef.h>
#include <stdint.h>

/* Parses a size in bytes: a decimal number with an optional suffix of
 * nbdkit's (b, k/K, M, G, T, P, E: powers of 1024; s: 512-byte sectors).
 * Returns 0, or -1 with *why set to a static text ("is negative",
 * "is past 2^63 - 1", "is not a size like 512, 4k, 64M or 10G").
 */
int size_parse (const char *str, uint64_t *bytes, const char **why);

/* Writes bytes exactly, with the largest suffix that divides it ("64M",
 * "1536k", "1000").  buf holds at least SIZE_TEXT_MAX; returned for use
 * inside printf's arguments.
 */
#define SIZE_TEXT_MAX 24
const char *size_text (char *buf, uint64_t bytes);

/* Parses a list of zone numbers, N[-M][,...], and calls fn for each range
 * (first <= last < zones) in the order given.  Returns 0, what fn returned
 * where that is not 0 (the walk ends there), or -1 with *why set to a
 * static text.  A list that is wrong anywhere calls fn for nothing.  fn may
 * be NULL: the list is only checked.
 */
int size_parse_zone_list (const char *str, uint32_t zones,
                          int (*fn) (void *opaque, uint32_t first,
                                     uint32_t last),
                          void *opaque, const char **why);

#endif /* ZONE_SIZE_H */
