/* SPDX-License-Identifier: BSD-3-Clause */
/* See budget.h.
 *
 * Nobody who waits for memory waits for ever.  Requests under way end by
 * themselves, but for writes ahead of their zone's pointer, which may hold
 * five eighths of the budget at most; and FLOOR is every connection's own,
 * of which nothing counts.  A write is held until its client has sent its
 * payload, and what has ended until its client takes the reply: who does
 * so too slowly gets no more, and is dropped while memory is short.  The
 * last quarter of the budget is for connections that hold no more than
 * FLOOR: a few that ask for much do not take it all.
 *
 * A loop counts what its requests hold by itself, and adds it to the common
 * sum a STEP at a time, so that loops do not fight for a cache line.
 */

#include <config.h>

#include "budget.h"
#include "buffers.h"
#include "conn.h"
#include "loop.h"

/* A connection's. */
#define CONN_MAX (INT64_C (128) << 20)
#define FLOOR (INT64_C (256) << 10)

#define STEP (INT64_C (1) << 20)

/* A connection that needs longer than this for so many bytes of a reply gets
 * no more memory, and one that needs as long as that for a reply or a
 * payload goes where others need what it holds. */
#define PACE (64u << 10)
#define STUCK_MS 1000
#define HOARDING_MS 10000

/* Set before there are loops. */
static int64_t budget = BUDGET_DEFAULT;

/* What all loops hold above FLOOR, within a STEP for each of them. */
static _Atomic int64_t total;

void
budget_set (uint64_t bytes)
{
  budget = bytes;
}

static void
publish (struct loop *loop)
{
  int64_t n = loop->charged - loop->published;

  if (n >= STEP || n <= -STEP || loop->charged == 0) {
    atomic_fetch_add_explicit (&total, n, memory_order_relaxed);
    loop->published = loop->charged;
  }
}

/* What of it is not the connection's own. */
static int64_t
above_floor (int64_t bytes)
{
  return bytes > FLOOR ? bytes - FLOOR : 0;
}

static void
add (struct conn *c, int64_t bytes)
{
  int64_t before = above_floor (c->charged);

  c->charged += bytes;
  c->loop->charged += above_floor (c->charged) - before;
  publish (c->loop);
}

void
budget_charge (struct conn *c, size_t bytes)
{
  add (c, bytes);
}

void
budget_release (struct conn *c, size_t bytes)
{
  add (c, -(int64_t) bytes);
}

bool
budget_counts (const struct conn *c)
{
  return above_floor (c->charged) > 0;
}

void
pace_begin (struct pace *p, uint64_t now)
{
  p->since = now;
  p->bytes = 0;
}

void
pace_moved (struct pace *p, size_t bytes, uint64_t now)
{
  p->bytes += bytes;
  if (p->bytes >= PACE)
    pace_begin (p, now);
}

static bool
has_room (int64_t bytes)
{
  return atomic_load_explicit (&total, memory_order_relaxed) + bytes <=
    budget;
}

static bool
takes_longer (const struct pace *p, uint64_t now, uint64_t ms)
{
  return now >= p->since + ms;
}

bool
budget_allows (struct conn *c, uint64_t bytes)
{
  int64_t n = bytes ? buffer_size (bytes) : 0;

  if (c->charged >= CONN_MAX)
    return false;
  if (c->charged + n <= FLOOR)
    return true;
  if (c->sending && takes_longer (&c->send_pace, c->loop->now, STUCK_MS))
    return false;
  if (has_room (c->charged <= FLOOR ? n : n + budget / 4))
    return true;
  if (!c->waits_for_memory) {
    c->waits_for_memory = true;
    c->waiting_next = c->loop->waiting;
    c->loop->waiting = c;
  }
  return false;
}

bool
budget_retry (struct loop *loop)
{
  struct conn *c;

  if (!has_room (STEP))
    return loop->waiting != NULL;
  while ((c = loop->waiting) != NULL) {
    loop->waiting = c->waiting_next;
    c->waits_for_memory = false;
    conn_touch (c);
  }
  return false;
}

void
budget_forget (struct conn *c)
{
  struct conn **link = &c->loop->waiting;

  if (!c->waits_for_memory)
    return;
  while (*link != c)
    link = &(*link)->waiting_next;
  *link = c->waiting_next;
}

bool
budget_is_hoarder (const struct conn *c, uint64_t now)
{
  return c->charged > FLOOR && !has_room (NBD_MAX_DATA) &&
    ((c->sending && takes_longer (&c->send_pace, now, HOARDING_MS)) ||
     (c->filling && takes_longer (&c->fill_pace, now, HOARDING_MS)));
}
