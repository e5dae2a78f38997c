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
 * outside of the lock is collected in struct effects; effects_run () works
 * it off in a loop, also for what its own callbacks add, so that a long
 * row of waiting writes takes no stack.
 */

#include <config.h>

#include <errno.h>
#include <stddef.h>

#include "disk-internal.h"

enum busy_state {
  BUSY_FLIGHT,                  /* being written */
  BUSY_WRITTEN,                 /* written; answered after those before */
  BUSY_FAILED,
  BUSY_RESYNC,                  /* failed, and nothing is in flight: the
                                 * zone's report is being fetched */
  BUSY_READY,                   /* admitted; goes when nothing is in flight,
                                 * where the store wants one at a time */
  BUSY_QUEUED,                  /* a write behind one that must be alone */
  BUSY_ALONE_WAIT,              /* must be alone: waits for those before */
  BUSY_ALONE_RUN,
};

/* One vectored write is no larger than this. */
#define MERGE_BYTES_MAX (16u << 20)

static __thread struct effects *running;

void
effects_init (struct effects *fx)
{
  fx->issue = fx->done = NULL;
  fx->issue_tail = &fx->issue;
  fx->done_tail = &fx->done;
}

static void
effects_issue (struct effects *fx, struct zdisk_request *req)
{
  req->work.fx_next = NULL;
  *fx->issue_tail = req;
  fx->issue_tail = &req->work.fx_next;
}

void
effects_done (struct effects *fx, struct zdisk_request *req)
{
  req->work.fx_next = NULL;
  *fx->done_tail = req;
  fx->done_tail = &req->work.fx_next;
}

static struct zdisk_request *
busy_first (const struct zone *z)
{
  return z->busy ? z->busy->work.next : NULL;
}

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

/* Unlinks the one behind prev. */
static void
busy_unlink (struct zone *z, struct zdisk_request *prev)
{
  struct zdisk_request *req = prev->work.next;

  if (req == prev)
    z->busy = NULL;
  else {
    prev->work.next = req->work.next;
    if (z->busy == req)
      z->busy = prev;
  }
}

/* Whether something waits that later requests have to wait behind. */
static bool
is_barred (const struct zone *z)
{
  return (z->flags & (ZONE_FAILING | ZONE_HELD)) ||
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

static bool
is_plain_write (const struct zdisk_request *req)
{
  return (req->op == ZDISK_WRITE || req->op == ZDISK_APPEND) &&
    req->work.gap == req->work.offset;
}

/* Whether next is written together with n requests of so many bytes that
 * end with last. */
static bool
continues (const struct zdisk *disk, const struct zdisk_request *last,
           const struct zdisk_request *next, unsigned n, uint64_t bytes)
{
  uint64_t most = disk->store->max_write;

  if (most == 0 || most > MERGE_BYTES_MAX)
    most = MERGE_BYTES_MAX;
  return is_plain_write (last) && is_plain_write (next) &&
    n < ZDISK_MERGE_MAX &&
    next->work.offset == last->work.offset + last->work.length &&
    bytes + next->work.length <= most;
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
      (z->flags & ZONE_FAILING))
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
         continues (disk, last, req, n, bytes));
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
  if (z->flags & (ZONE_FAILING | ZONE_HELD))
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
        z->flags |= ZONE_HELD;
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
      park_add (req, fx);
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

/* Has the zone reported anew, for its first request, which failed, when
 * nothing of it is in flight any more. */
static void
resync (struct zone *z, struct effects *fx)
{
  struct zdisk_request *first = busy_first (z), *req = first;

  z->flags |= ZONE_FAILING;
  do {
    if (req->work.state == BUSY_FLIGHT)
      return;
    req = req->work.next;
  }
  while (req != first);
  first->work.state = BUSY_RESYNC;
  effects_issue (fx, first);
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
      resync (z, fx);
      return;
    }
    if (req->work.state == BUSY_FAILED)
      z->flags |= ZONE_FAILING;
    else if (z->flags & ZONE_FAILING)
      req->work.refusal = ZONE_REFUSED_BEHIND;
    else
      settle_one (disk, req);
    busy_unlink (z, z->busy);
    effects_done (fx, req);
  }
  if ((z->flags & ZONE_FAILING) &&
      (req == NULL || req->work.state != BUSY_FLIGHT)) {
    zones_rollback (&disk->zones, zone);
    z->flags &= ~ZONE_FAILING;
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
      park_add (req, &fx);
      break;
    case ZONE_ADMIT_REFUSED:
      effects_done (&fx, req);
      break;
    }
  zone_unlock (&z->lock);
  effects_run (disk, &fx, ring);
}

static struct zdisk_request *
request_of (struct store_io *io)
{
  return (struct zdisk_request *)
    ((char *) io - offsetof (struct zdisk_request, work.io));
}

/* An append that failed because the pointer was elsewhere goes there. */
static bool
goes_again (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;

  if (w->kind != PART_APPEND || !w->error || w->retried ||
      zone_of (req)->wp == w->offset ||
      zones_limit_refusal (w->error) != ZONE_OK)
    return false;
  w->retried = 1;
  w->error = 0;
  w->state = BUSY_QUEUED;
  return true;
}

/* How a request ends whose zone was reported anew; first: the one that
 * failed before the others, reserved: where those others ended. */
static void
explain (struct zdisk_request *req, bool first, uint64_t reserved)
{
  struct zdisk_work *w = &req->work;
  struct zones *zs = &disk_of (req)->zones;
  enum zone_refusal why = ZONE_OK;

  if (w->kind == PART_MANAGE) {
    why = zones_explain_manage (zs, w->zone, manage_op (req), w->error);
    if (req->op == ZDISK_TRIM &&
        zones_check_access (zone_of (req), true) != ZONE_OK) {
      why = ZONE_OK;            /* skips these */
      w->error = 0;
    }
  }
  else if (first)
    why = zones_explain_write (zs, w->zone, w->offset, reserved, w->error);
  /* One that is only ready now has no report to be judged by. */
  else if (w->error || w->state == BUSY_READY ||
           w->offset + w->length > zone_of (req)->wp)
    why = ZONE_REFUSED_BEHIND;
  if (why != ZONE_OK)
    w->refusal = why;
}

/* A zone that something failed in is reported: what is done of it ends, and
 * what waits is judged by what is true now. */
static void
resync_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = request_of (io), *prev;
  struct zdisk *disk = disk_of (req);
  uint32_t zone = req->work.zone;
  struct zone *z = zone_of (req);
  struct ring *ring = io->ring;
  char line[MIRROR_LINE_MAX];
  bool first = true, last = false;
  struct effects fx;
  uint64_t reserved;

  (void) bytes;
  effects_init (&fx);
  zone_lock (&z->lock);
  reserved = z->reserved;
  if (error)
    zones_rollback (&disk->zones, zone);
  else
    zones_mirror (&disk->zones, zone, &req->work.one);
  zones_touch (&disk->zones, zone);
  mirror_describe (disk, zone,
                   req->work.kind == PART_MANAGE
                   ? znbd_op_name (manage_op (req)) : "write",
                   req->work.error, error, line);
  for (prev = z->busy; !last; ) {
    req = prev->work.next;
    last = req == z->busy;
    if (req->work.state == BUSY_READY && !error)
      req->work.state = BUSY_QUEUED;
    if (req->work.state >= BUSY_QUEUED || (!error && goes_again (req))) {
      prev = req;
      continue;
    }
    explain (req, first, reserved);
    first = false;
    busy_unlink (z, prev);
    effects_done (&fx, req);
  }
  z->flags &= ~ZONE_FAILING;
  queue_look_again (disk, zone, &fx);
  zone_unlock (&z->lock);
  mirror_log (disk, line);
  effects_run (disk, &fx, ring);
}

/* A write, alone or merged, came back from the store. */
static void
write_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = request_of (io);
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

static void
zero_done (struct store_io *io, int error, uint64_t bytes)
{
  (void) bytes;
  write_done (io, error, error ? 0 : io->length);
}

/* The store did its part of a reset or finish. */
static void
manage_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = request_of (io);
  struct zdisk *disk = disk_of (req);
  uint32_t zone = req->work.zone;
  struct zone *z = zone_of (req);
  struct ring *ring = io->ring;
  struct effects fx;

  (void) bytes;
  effects_init (&fx);
  zone_lock (&z->lock);
  req->work.error = error;
  if (error && disk->zones.mirrors) {
    resync (z, &fx);
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

static void
set_iov (struct iovec *iov, const struct zdisk_request *req)
{
  iov->iov_base = (char *) req->buf + req->work.done_bytes;
  iov->iov_len = req->work.length;
}

static void
issue_write (struct zdisk *disk, struct zdisk_request *req)
{
  struct store_io *io = &req->work.io;

  io->op = STORE_WRITE;
  io->offset = zones_start (&disk->zones, req->work.zone) + req->work.offset;
  io->done = write_done;
  disk->store->ops->submit (disk->store, io);
}

/* The gap before a write is zeroed: now the write. */
static void
gap_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = request_of (io);

  (void) bytes;
  io->length = req->work.length;
  if (error)
    write_done (io, error, 0);
  else
    issue_write (disk_of (req), req);
}

/* Starts the I/O of the first request to be issued, and takes along those
 * behind it that continue it. */
static void
issue_next (struct zdisk *disk, struct effects *fx, struct ring *ring)
{
  struct zdisk_request *req = fx->issue, *last = req;
  struct zdisk_work *w = &req->work;
  struct store_io *io = &w->io;
  uint64_t start = zones_start (&disk->zones, w->zone);

  fx->issue = w->fx_next;
  if (w->state == BUSY_RESYNC) {
    if (fx->issue == NULL)
      fx->issue_tail = &fx->issue;
    mirror_ask (req, w->zone, ring, resync_done);
    return;
  }
  w->merged = NULL;
  io->ring = ring;
  io->zone = w->zone;
  io->flags = (req->flags & ZDISK_MAY_TRIM ? STORE_MAY_TRIM : 0) |
    (req->flags & ZDISK_FAST_ZERO ? STORE_FAST_ZERO : 0);
  io->offset = start + w->gap;
  io->iov = w->iov;
  io->niov = 1;
  io->length = w->offset + w->length - w->gap;
  if (is_plain_write (req)) {
    set_iov (&w->iov[0], req);
    while (fx->issue && fx->issue->work.zone == w->zone &&
           fx->issue->work.state == BUSY_FLIGHT &&
           continues (disk, last, fx->issue, io->niov, io->length)) {
      last->work.merged = fx->issue;
      last = fx->issue;
      fx->issue = last->work.fx_next;
      last->work.merged = NULL;
      set_iov (&w->iov[io->niov++], last);
      io->length += last->work.length;
    }
  }
  if (fx->issue == NULL)
    fx->issue_tail = &fx->issue;

  if (w->kind == PART_MANAGE) {
    uint64_t wp = zone_of (req)->wp;

    io->zone_op = manage_op (req);
    io->op = disk->store->mirrors ? STORE_ZONE_OP
      : io->zone_op == ZNBD_ZONE_FINISH ? STORE_FINISH : STORE_RESET;
    if (io->op == STORE_FINISH) {
      io->offset = start + wp;
      io->length = zones_capacity (&disk->zones, zone_of (req)) - wp;
    }
    else {
      io->offset = start;
      io->length = zones_length (&disk->zones, w->zone);
    }
    io->done = manage_done;
    disk->store->ops->submit (disk->store, io);
  }
  else if (req->op == ZDISK_ZERO) {
    io->op = STORE_ZERO;
    io->done = zero_done;
    disk->store->ops->submit (disk->store, io);
  }
  else if (w->gap < w->offset) {
    set_iov (&w->iov[0], req);
    io->op = STORE_ZERO;
    io->flags |= STORE_MAY_TRIM;
    io->length = w->offset - w->gap;
    io->done = gap_done;
    disk->store->ops->submit (disk->store, io);
  }
  else
    issue_write (disk, req);
}

static void
effects_splice (struct effects *to, struct effects *from)
{
  if (from->issue) {
    *to->issue_tail = from->issue;
    to->issue_tail = from->issue_tail;
  }
  if (from->done) {
    *to->done_tail = from->done;
    to->done_tail = from->done_tail;
  }
}

void
effects_run (struct zdisk *disk, struct effects *fx, struct ring *ring)
{
  if (running) {
    effects_splice (running, fx);
    return;
  }
  running = fx;
  while (fx->issue || fx->done) {
    if (fx->issue)
      issue_next (disk, fx, ring);
    else {
      struct zdisk_request *req = fx->done;

      fx->done = req->work.fx_next;
      if (fx->done == NULL)
        fx->done_tail = &fx->done;
      disk_part_done (req, ring);
    }
  }
  running = NULL;
}
