/* SPDX-License-Identifier: BSD-3-Clause */
/* How zonelib's control path says what went wrong: the text is written
 * once, where the cause is known, and carries the values a user needs.
 */

#ifndef ZONE_ERROR_H
#define ZONE_ERROR_H

#define ZONE_ERROR_MAX 512

struct zone_error {
  int num;                      /* errno */
  char text[ZONE_ERROR_MAX];    /* one line, no newline, no prefix */
};

/* Fills *err and returns -1 for the caller to return. */
int zone_error (struct zone_error *err, int num, const char *fs, ...)
  __attribute__ ((format (printf, 3, 4)));

#endif /* ZONE_ERROR_H */
