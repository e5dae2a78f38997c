/* SPDX-License-Identifier: BSD-3-Clause */
/* Parked writes: those ahead of their zone's pointer, kept until the gap
 * before them is filled.
 *
 * A zone's are linked by offset and never overlap.  All of a disk's are
 * linked by age as well, for time, budgets and clients that go; that list
 * is under park_lock.  Nobody holds park_lock and then takes a zone's
 * lock: who looks for victims notes their zones, lets go, and looks again
 * zone by zone.
 */

#include <config.h>

#include <inttypes.h>
#include <stddef.h>

#include "debug.h"
#include "disk-internal.h"
#include "ring.h"

/* Zones noted at a time. */
#define BATCH 64

#define PARK_COST_MIN 4096

/* Writes that can be looked at in what a ring takes for a step. */
#define PARK_STEP 16

void
park_init (struct zdisk *disk)
{
  pthread_mutex_init (&disk->park_lock, NULL);
}

void
park_free (struct zdisk *disk)
{
  pthread_mutex_destroy (&disk->park_lock);
}

/* What a write counts of a budget: small ones hold memory for more than
 * their data, in whoever sent them. */
static uint64_t
cost (const struct zdisk_work *w)
{
  return w->length < PARK_COST_MIN ? PARK_COST_MIN : w->length;
}

/* Into, and out of, the list of all. */
static bool
account (struct zdisk_request *req)
{
  struct zdisk *disk = disk_of (req);
  struct zdisk_work *w = &req->work;

  pthread_mutex_lock (&disk->park_lock);
  if (w->client->gone) {
    pthread_mutex_unlock (&disk->park_lock);
    return false;
  }
  w->park_seq = ++disk->park_seq;
  w->park_next = NULL;
  w->park_prev = disk->parked_last;
  if (w->park_prev)
    w->park_prev->work.park_next = req;
  else
    disk->parked_first = req;
  disk->parked_last = req;
  disk->parked_bytes += cost (w);
  w->client->parked_bytes += cost (w);
  pthread_mutex_unlock (&disk->park_lock);
  return true;
}

static void
discount (struct zdisk_request *req)
{
  struct zdisk *disk = disk_of (req);
  struct zdisk_work *w = &req->work;

  pthread_mutex_lock (&disk->park_lock);
  if (w->park_prev)
    w->park_prev->work.park_next = w->park_next;
  else
    disk->parked_first = w->park_next;
  if (w->park_next)
    w->park_next->work.park_prev = w->park_prev;
  else
    disk->parked_last = w->park_prev;
  disk->parked_bytes -= cost (w);
  w->client->parked_bytes -= cost (w);
  pthread_mutex_unlock (&disk->park_lock);
}

static void
say_park (const struct zdisk_request *req, const char *what, uint64_t ms)
{
  const struct zdisk_work *w = &req->work;
  struct zdisk *disk = disk_of (req);
  uint64_t all, own;

  pthread_mutex_lock (&disk->park_lock);
  all = disk->parked_bytes;
  own = w->client->parked_bytes;
  pthread_mutex_unlock (&disk->park_lock);
  debug ("zone %" PRIu32 ": write of %" PRIu64 " at %" PRIu64 " %s %" PRIu64
         " ms; %" PRIu64 " bytes wait, %" PRIu64 " of this client",
         w->zone, w->length, zones_start (&disk->zones, w->zone) + w->offset,
         what, ms, all, own);
}

/* Unlinks the one that *link points to. */
static struct zdisk_request *
unlink_at (struct zone *z, struct zdisk_request **link)
{
  struct zdisk_request *req = *link;

  if (debug_is_on (disk_park))
    say_park (req, "has waited", disk_now () - req->work.parked_at);
  *link = req->work.next;
  if (link == &z->parked && z->parked)
    z->parked->work.moved_at = req->work.moved_at;
  discount (req);
  return req;
}

struct zdisk_request *
park_pop (struct zdisk *disk, uint32_t zone)
{
  struct zone *z = &disk->zones.zone[zone];

  return unlink_at (z, &z->parked);
}

void
park_moved (struct zone *z)
{
  if (z->parked)
    z->parked->work.moved_at = disk_now ();
}

/* Whether one more write of this length is over a budget; sets *client to
 * the client whose writes are to give way, or NULL for anyone's. */
static bool
over_budget (struct zdisk_request *req, struct zdisk_client **client)
{
  struct zdisk *disk = disk_of (req);
  const struct zdisk_options *o = &disk->options;
  uint64_t all, own;

  pthread_mutex_lock (&disk->park_lock);
  all = disk->parked_bytes + cost (&req->work);
  own = req->work.client->parked_bytes + cost (&req->work);
  pthread_mutex_unlock (&disk->park_lock);
  *client = own > o->park_client_max ? req->work.client : NULL;
  return own > o->park_client_max || all > o->park_total_max;
}

/* The one of a zone's parked writes that is farthest ahead and may give
 * way. */
static struct zdisk_request **
farthest (struct zone *z, struct zdisk_client *client)
{
  struct zdisk_request **link, **found = NULL;

  for (link = &z->parked; *link; link = &(*link)->work.next)
    if (client == NULL || (*link)->work.client == client)
      found = link;
  return found;
}

static void
refuse (struct zdisk_request *req, enum zone_refusal why, struct effects *fx)
{
  req->work.refusal = why;
  effects_done (fx, req);
}

void
park_add (struct zdisk_request *req, struct ring *ring, struct effects *fx)
{
  struct zdisk_work *w = &req->work;
  struct zdisk *disk = disk_of (req);
  struct zone *z = zone_of (req);
  struct zdisk_request **link, **victim;
  struct zdisk_client *client;
  unsigned seen = 0;

  if (disk->options.reorder_timeout == 0 && !disk->options.gap_zero) {
    refuse (req, ZONE_REFUSED_AHEAD, fx);
    return;
  }
  for (link = &z->parked; *link; link = &(*link)->work.next) {
    const struct zdisk_work *p = &(*link)->work;

    /* That many wait takes a client who means it. */
    if (++seen % PARK_STEP == 0 && ring)
      ring->work++;
    if (p->offset >= w->offset + w->length)
      break;
    if (p->offset + p->length > w->offset) {
      refuse (req, ZONE_REFUSED_OVERLAP, fx);
      return;
    }
  }
  /* At the bound the write farthest ahead fails, so that those next to the
   * pointer, which free all the others, stay. */
  if (w->length > disk->options.park_client_max ||
      w->length > disk->options.park_total_max) {
    refuse (req, ZONE_REFUSED_BUDGET, fx);
    return;
  }
  while (over_budget (req, &client)) {
    victim = farthest (z, client);
    if (victim == NULL || (*victim)->work.offset < w->offset) {
      refuse (req, ZONE_REFUSED_BUDGET, fx);
      return;
    }
    refuse (unlink_at (z, victim), ZONE_REFUSED_BUDGET, fx);
  }

  w->parked_at = disk_now ();
  if (!account (req)) {
    refuse (req, ZONE_REFUSED_GONE, fx);
    return;
  }
  w->moved_at = link == &z->parked && z->parked
    ? z->parked->work.moved_at : w->parked_at;
  w->next = *link;
  *link = req;
  if (debug_is_on (disk_park))
    say_park (req, "waits up to", disk->options.reorder_timeout);
}

/* Fails or lets jump those of a zone whose time has come. */
static void
expire_zone (struct zdisk *disk, uint32_t zone, uint64_t now,
             struct effects *fx)
{
  struct zone *z = &disk->zones.zone[zone];
  struct zdisk_request **link;
  uint64_t timeout = disk->options.reorder_timeout;

  zone_lock (&z->lock);
  if (z->busy == NULL && z->parked && !(zone_flags (z) & ZONE_HELD) &&
      z->parked->work.moved_at + timeout <= now) {
    if (disk->options.gap_zero) {
      if (z->parked->work.parked_at + timeout <= now)
        queue_jump (disk, zone, fx);
    }
    else
      for (link = &z->parked; *link; )
        if ((*link)->work.parked_at + timeout <= now)
          refuse (unlink_at (z, link), ZONE_REFUSED_AHEAD, fx);
        else
          link = &(*link)->work.next;
  }
  zone_unlock (&z->lock);
}

void
zdisk_expire (struct zdisk *disk, struct ring *ring)
{
  uint64_t now = disk_now ();
  struct zdisk_request *req;
  uint32_t zones[BATCH];
  uint64_t seen = 0;
  unsigned n, i;
  struct effects fx;

  effects_init (&fx);
  do {
    n = 0;
    pthread_mutex_lock (&disk->park_lock);
    for (req = disk->parked_first; req && n < BATCH;
         req = req->work.park_next) {
      if (req->work.park_seq <= seen)
        continue;
      if (req->work.parked_at + disk->options.reorder_timeout > now)
        break;
      seen = req->work.park_seq;
      for (i = 0; i < n && zones[i] != req->work.zone; )
        i++;
      if (i == n)
        zones[n++] = req->work.zone;
    }
    pthread_mutex_unlock (&disk->park_lock);
    for (i = 0; i < n; i++)
      expire_zone (disk, zones[i], now, &fx);
  } while (n == BATCH);
  effects_run (disk, &fx, ring);
}

int
zdisk_next_expiry (struct zdisk *disk)
{
  uint64_t now = disk_now (), due;
  unsigned timeout = disk->options.reorder_timeout;
  /* A zone whose pointer moves gets more time: look again, not at once. */
  unsigned again = timeout / 4 + 1;
  int r = -1;

  pthread_mutex_lock (&disk->park_lock);
  if (disk->parked_first) {
    due = disk->parked_first->work.parked_at + timeout;
    r = due > now + again ? (int) (due - now) : (int) again;
  }
  pthread_mutex_unlock (&disk->park_lock);
  return r;
}

void
park_client_gone (struct zdisk_client *client)
{
  struct zdisk *disk = client->disk;
  struct zdisk_request *req, **link;
  struct effects fx;
  uint32_t zone;
  struct zone *z;

  effects_init (&fx);
  for (;;) {
    pthread_mutex_lock (&disk->park_lock);
    client->gone = true;
    for (req = disk->parked_first; req && req->work.client != client; )
      req = req->work.park_next;
    zone = req ? req->work.zone : 0;
    pthread_mutex_unlock (&disk->park_lock);
    if (req == NULL)
      break;
    z = &disk->zones.zone[zone];
    zone_lock (&z->lock);
    for (link = &z->parked; *link; )
      if ((*link)->work.client == client)
        refuse (unlink_at (z, link), ZONE_REFUSED_GONE, &fx);
      else
        link = &(*link)->work.next;
    zone_unlock (&z->lock);
  }
  effects_run (disk, &fx, NULL);
}
