/* SPDX-License-Identifier: BSD-3-Clause */
/* Debug flags: -D NAME.FLAG=N of the server, 0 where not set.  One that is
 * off costs a look at a variable that nobody changes.  Lines may be said
 * under locks: who sets a flag wants to see, not to be quick.
 *
 * A new flag is one line of DEBUG_FLAGS, and says there what it does, for
 * -D help and znbd-server(1).
 */

#ifndef ZONE_DEBUG_H
#define ZONE_DEBUG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"

/* F (NAME, FLAG, what it says) */
#define DEBUG_FLAGS(F) \
  F (server, options, "1: each option of a handshake") \
  F (server, requests, "1: each request's header as it comes") \
  F (server, replies, "1: replies that are errors, and why; 2: all, with times") \
  F (server, slow, "N: replies that took N ms or more") \
  F (zones, transition, "1: each change of a zone's condition") \
  F (disk, park, "1: writes ahead of a pointer: when they wait, and go on") \
  F (image, commit, "1: each commit of an image, its zones and its time")

/* Set before there are threads. */
extern struct debug_flags {
#define F(name, flag, about) unsigned name##_##flag;
  DEBUG_FLAGS (F)
#undef F
} debug_flags;

#define debug_is_on(flag) __builtin_expect (debug_flags.flag != 0, 0)

/* Takes NAME.FLAG=N.  Returns 0, or -1 with the error. */
int debug_set (const char *arg, struct zone_error *err);

/* The list of flags, for people. */
void debug_help (FILE *f);

/* Where lines go; standard error if nobody says. */
extern void (*debug_output) (const char *line);

void debug (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2)));

/* Microseconds, monotonic. */
uint64_t debug_now (void);

#endif /* ZONE_DEBUG_H */
