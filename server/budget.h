/* SPDX-License-Identifier: BSD-3-Clause */
/* How much memory requests may hold: those of one connection, and those of
 * all; what is every connection's own is not counted there.  A connection at
 * a bound is not read from; nothing fails. */

#ifndef SERVER_BUDGET_H
#define SERVER_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct loop;

/* All requests together, unless the user says otherwise, and the least that
 * may be said: parked writes, which may take five eighths of it (see
 * budget_set), leave room for the largest request. */
#define BUDGET_DEFAULT (UINT64_C (1) << 30)
#define BUDGET_MIN (UINT64_C (256) << 20)

/* Bytes that writes ahead of their pointer may hold, all together: what
 * they are charged with is up to two and a half times that, buffers rounded
 * up and request objects counted. */
#define BUDGET_PARKED(budget) ((budget) / 4)

/* Before there are loops. */
void budget_set (uint64_t bytes);

/* A request's memory comes and goes. */
void budget_charge (struct conn *c, size_t bytes);
void budget_release (struct conn *c, size_t bytes);
/* Whether some of what the connection holds counts against others. */
bool budget_counts (const struct conn *c);

/* Whether the connection may take in another request that will hold so many
 * bytes.  If not it is looked at again when others have released theirs. */
bool budget_allows (struct conn *c, uint64_t bytes);

/* By a loop's turn: looks at who waits again, if there is room now.  Returns
 * whether somebody still waits. */
bool budget_retry (struct loop *loop);

/* The connection goes. */
void budget_forget (struct conn *c);

/* How fast a peer takes a reply or sends a payload; until it has moved PACE
 * bytes what it holds of memory may be held up. */
struct pace {
  uint64_t since;               /* ms: when bytes was last 0 */
  size_t bytes;
};
void pace_begin (struct pace *p, uint64_t now);
void pace_moved (struct pace *p, size_t bytes, uint64_t now);

/* Whether the connection has to go, so that others may have its memory. */
bool budget_is_hoarder (const struct conn *c, uint64_t now);

#endif /* SERVER_BUDGET_H */
