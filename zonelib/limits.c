/* SPDX-License-Identifier: BSD-3-Clause */
/* Open and active resources: who holds them, who has to give way.
 *
 * Counters and the order of eviction are shared by all zones and have one
 * lock.  Only a change of condition comes here; a write to a zone that is
 * open already does not.  The order is a heap of stamps taken when a zone
 * was put in; a zone written since has a newer stamp and is put back when
 * it comes to the top, which makes the order exact without a lock in the
 * way of each write.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "debug.h"
#include "zones.h"

static inline void
set_cond (struct zone *z, uint8_t cond)
{
  atomic_store_explicit (&z->cond, cond, memory_order_relaxed);
}

static inline uint64_t
stamp_of (const struct zone *z)
{
  return atomic_load_explicit (&z->written, memory_order_relaxed);
}

int
limits_init (struct zones *zs)
{
  uint32_t n = zs->geometry.zones;

  pthread_mutex_init (&zs->limits, NULL);
  if (zs->geometry.max_open == 0)
    return 0;
  zs->lru.queued = calloc ((n + 7) / 8, 1);
  /* At most max_open zones are implicitly open, and heap_compact drops the
   * others once there are as many of those again. */
  zs->lru.size = 2 * (uint64_t) zs->geometry.max_open + 64 < n
    ? 2 * zs->geometry.max_open + 64 : n + 1;
  zs->lru.heap = malloc (zs->lru.size * sizeof zs->lru.heap[0]);
  return zs->lru.queued && zs->lru.heap ? 0 : -1;
}

void
limits_free (struct zones *zs)
{
  free (zs->lru.heap);
  free (zs->lru.queued);
  pthread_mutex_destroy (&zs->limits);
}

static void
heap_set (struct zones_lru *lru, uint32_t at, uint64_t stamp, uint32_t zone)
{
  lru->heap[at].stamp = stamp;
  lru->heap[at].zone = zone;
}

static void
heap_up (struct zones_lru *lru, uint32_t at, uint64_t stamp, uint32_t zone)
{
  while (at > 0 && lru->heap[(at - 1) / 2].stamp > stamp) {
    lru->heap[at] = lru->heap[(at - 1) / 2];
    at = (at - 1) / 2;
  }
  heap_set (lru, at, stamp, zone);
}

static void
heap_down (struct zones_lru *lru, uint32_t at, uint64_t stamp, uint32_t zone)
{
  for (;;) {
    uint32_t child = 2 * at + 1;

    if (child >= lru->used)
      break;
    if (child + 1 < lru->used &&
        lru->heap[child + 1].stamp < lru->heap[child].stamp)
      child++;
    if (lru->heap[child].stamp >= stamp)
      break;
    lru->heap[at] = lru->heap[child];
    at = child;
  }
  heap_set (lru, at, stamp, zone);
}

static void
heap_pop (struct zones_lru *lru)
{
  uint32_t zone = lru->heap[0].zone;

  lru->queued[zone / 8] &= ~(1u << zone % 8);
  if (--lru->used > 0)
    heap_down (lru, 0, lru->heap[lru->used].stamp, lru->heap[lru->used].zone);
}

/* Drops zones that are no longer implicitly open. */
static void
heap_compact (struct zones *zs)
{
  struct zones_lru *lru = &zs->lru;
  uint32_t i, n = lru->used;

  lru->used = 0;
  for (i = 0; i < n; i++) {
    uint32_t zone = lru->heap[i].zone;

    if (zones_cond (&zs->zone[zone]) == ZNBD_COND_IMPLICIT_OPEN) {
      uint64_t stamp = lru->heap[i].stamp;
      heap_up (lru, lru->used++, stamp, zone);
    }
    else
      lru->queued[zone / 8] &= ~(1u << zone % 8);
  }
}

static void
heap_push (struct zones *zs, uint32_t zone)
{
  struct zones_lru *lru = &zs->lru;

  if (zs->geometry.max_open == 0 || (lru->queued[zone / 8] >> zone % 8 & 1))
    return;
  if (lru->used == lru->size)
    heap_compact (zs);
  lru->queued[zone / 8] |= 1u << zone % 8;
  heap_up (lru, lru->used++, stamp_of (&zs->zone[zone]), zone);
}

static uint32_t
open_count (const struct zones *zs)
{
  return zs->nopen_implicit + zs->nopen_explicit;
}

static uint32_t
active_count (const struct zones *zs)
{
  return open_count (zs) + zs->nclosed;
}

static uint32_t *
counter (struct zones *zs, uint8_t cond)
{
  switch (cond) {
  case ZNBD_COND_IMPLICIT_OPEN: return &zs->nopen_implicit;
  case ZNBD_COND_EXPLICIT_OPEN: return &zs->nopen_explicit;
  case ZNBD_COND_CLOSED: return &zs->nclosed;
  default: return NULL;
  }
}

static void
say_transition (struct zones *zs, uint32_t i, uint8_t to)
{
  struct zone *z = &zs->zone[i];

  debug ("zone %" PRIu32 ": %s to %s, pointer %" PRIu64 " (%" PRIu64
         " admitted), %" PRIu32 " open, %" PRIu32 " active", i,
         znbd_cond_name (zones_cond (z)), znbd_cond_name (to),
         atomic_load_explicit (&z->wp, memory_order_relaxed),
         atomic_load_explicit (&z->reserved, memory_order_relaxed),
         open_count (zs), active_count (zs));
}

/* Moves a zone from one condition to another with its resources. */
static void
change (struct zones *zs, uint32_t i, uint8_t to)
{
  struct zone *z = &zs->zone[i];
  uint32_t *from_count = counter (zs, zones_cond (z));
  uint32_t *to_count = counter (zs, to);

  if (from_count)
    --*from_count;
  if (to_count)
    ++*to_count;
  if (debug_is_on (zones_transition))
    say_transition (zs, i, to);
  set_cond (z, to);
  if (to == ZNBD_COND_IMPLICIT_OPEN)
    heap_push (zs, i);
}

/* Closed, or empty where nothing was written nor is about to be. */
static uint8_t
closed_cond (const struct zone *z)
{
  return atomic_load_explicit (&z->reserved, memory_order_relaxed) > 0
    ? ZNBD_COND_CLOSED : ZNBD_COND_EMPTY;
}

/* Closes the least recently written implicitly open zone. */
static bool
evict (struct zones *zs)
{
  struct zones_lru *lru = &zs->lru;

  while (lru->used > 0) {
    uint32_t zone = lru->heap[0].zone;
    struct zone *z = &zs->zone[zone];
    uint64_t stamp = stamp_of (z);

    if (zones_cond (z) != ZNBD_COND_IMPLICIT_OPEN)
      heap_pop (lru);
    else if (stamp != lru->heap[0].stamp)
      heap_down (lru, 0, stamp, zone);
    else {
      heap_pop (lru);
      change (zs, zone, closed_cond (z));
      return true;
    }
  }
  return false;
}

/* Makes room for zone i to be open.  The active limit is looked at first:
 * both reached reports active. */
static enum zone_refusal
make_room (struct zones *zs, uint32_t i)
{
  const struct znbd_geometry *g = &zs->geometry;
  bool active = zones_cond (&zs->zone[i]) == ZNBD_COND_CLOSED;

  if (!active && g->max_active && active_count (zs) >= g->max_active)
    return ZONE_REFUSED_ACTIVE;
  while (g->max_open && open_count (zs) >= g->max_open)
    if (!evict (zs))
      return ZONE_REFUSED_OPEN;
  return ZONE_OK;
}

enum zone_refusal
limits_open_implicit (struct zones *zs, uint32_t i)
{
  enum zone_refusal why = ZONE_OK;
  uint8_t cond;

  pthread_mutex_lock (&zs->limits);
  cond = zones_cond (&zs->zone[i]);
  if (cond == ZNBD_COND_EMPTY || cond == ZNBD_COND_CLOSED) {
    why = make_room (zs, i);
    if (why == ZONE_OK)
      change (zs, i, ZNBD_COND_IMPLICIT_OPEN);
  }
  pthread_mutex_unlock (&zs->limits);
  return why;
}

enum zone_refusal
limits_open_explicit (struct zones *zs, uint32_t i)
{
  enum zone_refusal why = ZONE_OK;

  pthread_mutex_lock (&zs->limits);
  if (zones_cond (&zs->zone[i]) != ZNBD_COND_IMPLICIT_OPEN)
    why = make_room (zs, i);
  if (why == ZONE_OK)
    change (zs, i, ZNBD_COND_EXPLICIT_OPEN);
  pthread_mutex_unlock (&zs->limits);
  return why;
}

void
limits_close (struct zones *zs, uint32_t i)
{
  pthread_mutex_lock (&zs->limits);
  change (zs, i, closed_cond (&zs->zone[i]));
  pthread_mutex_unlock (&zs->limits);
}

void
limits_move (struct zones *zs, uint32_t i, uint8_t cond)
{
  pthread_mutex_lock (&zs->limits);
  change (zs, i, cond);
  pthread_mutex_unlock (&zs->limits);
}

void
limits_rollback (struct zones *zs, uint32_t i)
{
  struct zone *z = &zs->zone[i];

  pthread_mutex_lock (&zs->limits);
  if (zones_cond (z) == ZNBD_COND_CLOSED ||
      (zones_cond (z) == ZNBD_COND_FULL &&
       z->reserved < zones_capacity (zs, z)))
    change (zs, i, closed_cond (z));
  pthread_mutex_unlock (&zs->limits);
}

void
limits_count_loaded (struct zones *zs)
{
  uint32_t i;

  zs->nclosed = 0;
  for (i = 0; i < zs->geometry.zones; i++)
    zs->nclosed += zones_cond (&zs->zone[i]) == ZNBD_COND_CLOSED;
}
