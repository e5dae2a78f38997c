/* SPDX-License-Identifier: BSD-3-Clause */
/* The order of things within one zone.
 *
 * Each zone has a list of requests, in this order: writes in flight, in
 * the order of their places; then perhaps one that must be alone (zone
 * management, or a host-aware overwrite of what is in flight); then
 * whatever came after that one and waits for it.  Writes of a zone run in
 * parallel but are answered in order, so that what was answered always
 * lies below the pointer.  Writes ahead of the pointer stand in a second
 * list, see disk-park.c.
 *
 * After every change pump () lets go what can go.  What is to be done
 * outside of the lock is collected in struct effects, see disk-issue.c.
 */

#include <config.h>

#include <errno.h>

#include "disk-internal.h"

static void
busy_append (struct zone *z, struct zdisk_request *req, enum busy_state state)
{
  req->work.state = state;
  if (z->busy) {
    req->work.next = z->busy->work.next;
    z->busy->work.next = req;
  }
  else
    req->work.next = req;
  z->busy = req;
}

/* Whether something waits that later requests have to wait behind. */
static bool
is_barred (const struct zone *z)
{
  return (zone_flags (z) & (ZONE_FAILING | ZONE_HELD)) ||
    (z->busy && z->busy->work.state >= BUSY_QUEUED);
}

static enum zone_verdict
judge (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  struct zones *zs = &disk_of (req)->zones;
  const struct zdisk_request *parked = zone_of (req)->parked;
  enum zone_refusal why;
  enum zone_verdict verdict;

  /* One at the pointer may not take a parked one's place. */
  if (w->kind == PART_WRITE && parked &&
      w->offset == zone_of (req)->reserved &&
      parked->work.offset < w->offset + w->length) {
    w->refusal = ZONE_REFUSED_OVERLAP;
    return ZONE_ADMIT_REFUSED;
  }
  if (w->kind == PART_APPEND) {
    verdict = zones_admit_append (zs, w->zone, w->length, &w->offset, &why);
    w->gap = w->offset;
    req->result = zones_start (zs, w->zone) + w->offset;
  }
  else
    verdict = zones_admit_write (zs, w->zone, w->offset, w->length, &w->gap,
                                 &why);
  w->refusal = verdict == ZONE_ADMIT_REFUSED ? why : ZONE_OK;
  return verdict;
}

/* What was admitted goes, at once or in its turn; it is in the list. */
static void
go (struct zdisk *disk, struct zdisk_request *req, struct effects *fx)
{
  if (disk->store->one_write_per_zone)
    req->work.state = BUSY_READY;
  else {
    req->work.state = BUSY_FLIGHT;
    effects_issue (fx, req);
  }
}

/* Lets the first of those that are ready go, and what issue_next will write
 * together with it. */
static void
issue_ready (struct zdisk *disk, struct zone *z, struct effects *fx)
{
  struct zdisk_request *req = busy_first (z), *last;
  uint64_t bytes = 0;
  unsigned n = 0;

  if (req == NULL || req->work.state != BUSY_READY ||
      (zone_flags (z) & ZONE_FAILING))
    return;
  do {
    req->work.state = BUSY_FLIGHT;
    effects_issue (fx, req);
    bytes += req->work.length;
    n++;
    last = req;
    req = req->work.next;
  }
  while (last != z->busy && req->work.state == BUSY_READY &&
         queue_continues (disk, last, req, n, bytes));
}

void
queue_judge_parked (struct zdisk *disk, uint32_t zone, struct effects *fx)
{
  struct zone *z = &disk->zones.zone[zone];
  bool moved = false;

  if (z->parked == NULL || is_barred (z))
    return;
  while (z->parked && z->parked->work.offset <= z->reserved) {
    struct zdisk_request *req = park_pop (disk, zone);

    switch (judge (req)) {
    case ZONE_ADMIT_GO:
      busy_append (z, req, BUSY_FLIGHT);
      go (disk, req, fx);
      moved = true;
      break;
    default:
      effects_done (fx, req);
    }
  }
  issue_ready (disk, z, fx);
  if (moved)
    park_moved (z);
}

void
queue_jump (struct zdisk *disk, uint32_t zone, struct effects *fx)
{
  struct zdisk_request *req = park_pop (disk, zone);
  struct zdisk_work *w = &req->work;
  enum zone_refusal why;

  if (zones_admit_jump (&disk->zones, zone, w->offset, w->length, &w->gap,
                        &why) == ZONE_ADMIT_GO) {
    busy_append (&disk->zones.zone[zone], req, BUSY_FLIGHT);
    go (disk, req, fx);
    issue_ready (disk, &disk->zones.zone[zone], fx);
    queue_judge_parked (disk, zone, fx);
  }
  else {
    w->refusal = why;
    effects_done (fx, req);
  }
}

/* Management of a zone where nothing is in flight.  Returns true where it
 * is done, false where the store has to do its part first. */
static bool
manage (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  struct zone *z = zone_of (req);
  enum znbd_zone_op op = manage_op (req);
  bool nothing;

  if (disk_of (req)->zones.mirrors) {
    /* What else there is to say the store says. */
    if (z->type == ZNBD_ZONE_CONVENTIONAL)
      w->refusal = zones_manage_check (z, op, &nothing);
    return z->type == ZNBD_ZONE_CONVENTIONAL ||
      (req->op == ZDISK_TRIM && zones_check_access (z, true) != ZONE_OK);
  }
  if ((req->flags & ZDISK_ALL) && !zones_all_takes (z, op))
    return true;
  w->refusal = zones_manage_check (z, op, &nothing);
  if (req->op == ZDISK_TRIM && zones_check_access (z, true) != ZONE_OK)
    w->refusal = ZONE_OK;       /* skips these */
  else if (w->refusal == ZONE_OK && !nothing) {
    if (op == ZNBD_ZONE_FINISH || op == ZNBD_ZONE_RESET)
      return false;
    w->refusal = zones_manage (&disk_of (req)->zones, w->zone, op);
  }
  return true;
}

/* Admits what can be, in order. */
static void
pump_list (struct zdisk *disk, uint32_t zone, struct effects *fx)
{
  struct zone *z = &disk->zones.zone[zone];
  struct zdisk_request *prev = z->busy, *req;
  bool in_flight = false, last = prev == NULL;

  /* What is reserved is about to be free, or nothing is admitted. */
  if (zone_flags (z) & (ZONE_FAILING | ZONE_HELD))
    return;
  while (!last) {
    req = prev->work.next;
    last = req == z->busy;
    switch ((enum busy_state) req->work.state) {
    case BUSY_FLIGHT:
    case BUSY_WRITTEN:
    case BUSY_FAILED:
    case BUSY_RESYNC:
    case BUSY_READY:
      in_flight = true;
      prev = req;
      continue;
    case BUSY_ALONE_RUN:
      return;
    case BUSY_ALONE_WAIT:
      if (in_flight)
        return;
      if (req->work.kind == PART_HOLD) {
        zone_flags_add (z, ZONE_HELD);
        busy_unlink (z, prev);
        effects_done (fx, req);
        return;
      }
      if (req->work.kind == PART_MANAGE) {
        if (!manage (req)) {
          req->work.state = BUSY_ALONE_RUN;
          effects_issue (fx, req);
          return;
        }
        busy_unlink (z, prev);
        effects_done (fx, req);
        continue;
      }
      break;
    case BUSY_QUEUED:
      break;
    }
    switch (judge (req)) {
    case ZONE_ADMIT_GO:
      go (disk, req, fx);
      in_flight = true;
      prev = req;
      break;
    case ZONE_ADMIT_DRAIN:
      req->work.state = BUSY_ALONE_WAIT;
      return;
    case ZONE_ADMIT_PARK:
      busy_unlink (z, prev);
      park_add (req, NULL, fx);
      break;
    case ZONE_ADMIT_REFUSED:
      busy_unlink (z, prev);
      effects_done (fx, req);
      break;
    }
  }
  queue_judge_parked (disk, zone, fx);
}

/* Lets go what can go. */
static void
pump (struct zdisk *disk, uint32_t zone, struct effects *fx)
{
  pump_list (disk, zone, fx);
  issue_ready (disk, &disk->zones.zone[zone], fx);
}

void
queue_look_again (struct zdisk *disk, uint32_t zone, struct effects *fx)
{
  park_moved (&disk->zones.zone[zone]);
  pump (disk, zone, fx);
}

/* Moves the pointer.  A store that cannot keep it has failed by now. */
static void
settle_one (struct zdisk *disk, struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;

  zones_settle (&disk->zones, w->zone, w->offset + w->length);
  if (disk->zones.mirrors)
    zones_touch (&disk->zones, w->zone);
  if (disk->store->failed)
    w->error = EIO;
}

/* Answers the writes that are done, as far as all before them are. */
static void
settle (struct zdisk *disk, uint32_t zone, struct effects *fx)
{
  struct zone *z = &disk->zones.zone[zone];
  struct zdisk_request *req;

  while ((req = busy_first (z)) && (req->work.state == BUSY_WRITTEN ||
                                    req->work.state == BUSY_FAILED)) {
    if (req->work.state == BUSY_FAILED && disk->zones.mirrors) {
      queue_resync (z, fx);
      return;
    }
    if (req->work.state == BUSY_FAILED)
      zone_flags_add (z, ZONE_FAILING);
    else if (zone_flags (z) & ZONE_FAILING)
      req->work.refusal = ZONE_REFUSED_BEHIND;
    else
      settle_one (disk, req);
    busy_unlink (z, z->busy);
    effects_done (fx, req);
  }
  if ((zone_flags (z) & ZONE_FAILING) &&
      (req == NULL || req->work.state != BUSY_FLIGHT)) {
    zones_rollback (&disk->zones, zone);
    zone_flags_drop (z, ZONE_FAILING);
  }
  park_moved (z);
  pump (disk, zone, fx);
}

void
queue_enter (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  struct zdisk *disk = disk_of (req);
  struct zone *z = zone_of (req);
  struct ring *ring = w->ring;  /* once unlocked, req is anybody's */
  struct effects fx;

  w->retried = 0;
  effects_init (&fx);
  zone_lock (&z->lock);
  if (w->kind == PART_MANAGE || w->kind == PART_HOLD) {
    busy_append (z, req, BUSY_ALONE_WAIT);
    pump (disk, w->zone, &fx);
  }
  else if (is_barred (z))
    busy_append (z, req, BUSY_QUEUED);
  else
    switch (judge (req)) {
    case ZONE_ADMIT_GO:
      busy_append (z, req, BUSY_FLIGHT);
      go (disk, req, &fx);
      issue_ready (disk, z, &fx);
      if (z->parked) {
        park_moved (z);
        queue_judge_parked (disk, w->zone, &fx);
      }
      break;
    case ZONE_ADMIT_DRAIN:
      busy_append (z, req, BUSY_ALONE_WAIT);
      break;
    case ZONE_ADMIT_PARK:
      park_add (req, ring, &fx);
      break;
    case ZONE_ADMIT_REFUSED:
      effects_done (&fx, req);
      break;
    }
  zone_unlock (&z->lock);
  effects_run (disk, &fx, ring);
}

/* A write, alone or merged, came back from the store. */
void
queue_write_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = io_request (io);
  struct zdisk *disk = disk_of (req);
  uint32_t zone = req->work.zone;
  struct zone *z = zone_of (req);
  struct ring *ring = io->ring;
  struct effects fx;
  uint64_t end = 0;

  if (!error && bytes < io->length)
    error = EIO;
  effects_init (&fx);
  zone_lock (&z->lock);
  do {
    struct zdisk_work *w = &req->work;

    end += w->length;
    if (error && bytes < end) {
      w->state = BUSY_FAILED;
      w->error = error;
    }
    else
      w->state = BUSY_WRITTEN;
    req = w->merged;
  } while (req);
  settle (disk, zone, &fx);
  zone_unlock (&z->lock);
  effects_run (disk, &fx, ring);
}

void
queue_zero_done (struct store_io *io, int error, uint64_t bytes)
{
  (void) bytes;
  queue_write_done (io, error, error ? 0 : io->length);
}

/* Whether the store did what the zone, as it is known here, does not take:
 * others have changed it, or the store takes more than zones do. */
static bool
is_surprise (const struct zdisk_request *req)
{
  bool nothing;

  return zones_manage_check (zone_of (req), manage_op (req),
                             &nothing) != ZONE_OK;
}

/* The store did its part of a reset or finish. */
void
queue_manage_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = io_request (io);
  struct zdisk *disk = disk_of (req);
  uint32_t zone = req->work.zone;
  struct zone *z = zone_of (req);
  struct ring *ring = io->ring;
  struct effects fx;

  (void) bytes;
  effects_init (&fx);
  zone_lock (&z->lock);
  req->work.error = error;
  if (disk->zones.mirrors && (error || is_surprise (req))) {
    queue_resync (z, &fx);
    zone_unlock (&z->lock);
    effects_run (disk, &fx, ring);
    return;
  }
  if (disk->zones.mirrors)
    zones_touch (&disk->zones, zone);
  if (!error)
    req->work.refusal = zones_manage (&disk->zones, zone, manage_op (req));
  if (!error && disk->store->failed)
    req->work.error = EIO;
  busy_unlink (z, z->busy);
  effects_done (&fx, req);
  park_moved (z);
  pump (disk, zone, &fx);
  zone_unlock (&z->lock);
  effects_run (disk, &fx, ring);
}
