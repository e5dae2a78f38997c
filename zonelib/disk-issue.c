/* SPDX-License-Identifier: BSD-3-Clause */
/* What is done without a zone's lock: I/O is started, and parts of requests
 * end.  It is collected in struct effects under the lock; effects_run ()
 * works it off in a loop, also for what its own callbacks add, so that a
 * long row of waiting writes takes no stack.
 */

#include <config.h>

#include "disk-internal.h"

/* One vectored write is no larger than this. */
#define MERGE_BYTES_MAX (16u << 20)

/* As much is held back at most: what waits longer leaves the cache. */
#define HELD_MAX (256u << 10)

/* What the thread works off just now, or holds back. */
static __thread struct effects *running;

/* What it holds back, see zdisk_hold. */
static __thread struct {
  struct effects fx;
  struct zdisk *disk;
  struct ring *ring;
  uint64_t bytes;
} held;

void
effects_init (struct effects *fx)
{
  fx->issue = fx->done = NULL;
  fx->issue_tail = &fx->issue;
  fx->done_tail = &fx->done;
}

void
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

static bool
is_plain_write (const struct zdisk_request *req)
{
  return (req->op == ZDISK_WRITE || req->op == ZDISK_APPEND) &&
    req->work.gap == req->work.offset;
}

bool
queue_continues (const struct zdisk *disk, const struct zdisk_request *last,
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
  io->done = queue_write_done;
  disk->store->ops->submit (disk->store, io);
}

/* The gap before a write is zeroed: now the write. */
static void
gap_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = io_request (io);

  (void) bytes;
  io->length = req->work.length;
  if (error)
    queue_write_done (io, error, 0);
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
    mirror_ask (req, w->zone, ring, queue_resync_done);
    return;
  }
  w->merged = NULL;
  io->ring = ring;
  io->zone = w->zone;
  io->flags = store_flags (req);
  io->offset = start + w->gap;
  io->iov = w->iov;
  io->niov = 1;
  io->length = w->offset + w->length - w->gap;
  if (is_plain_write (req)) {
    set_iov (&w->iov[0], req);
    while (fx->issue && fx->issue->work.zone == w->zone &&
           fx->issue->work.state == BUSY_FLIGHT &&
           queue_continues (disk, last, fx->issue, io->niov, io->length)) {
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
    io->done = queue_manage_done;
    disk->store->ops->submit (disk->store, io);
  }
  else if (req->op == ZDISK_ZERO) {
    io->op = STORE_ZERO;
    io->done = queue_zero_done;
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

static void
work_off (struct zdisk *disk, struct effects *fx, struct ring *ring)
{
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

void
effects_run (struct zdisk *disk, struct effects *fx, struct ring *ring)
{
  const struct zdisk_request *req;

  if (running == NULL) {
    work_off (disk, fx, ring);
    return;
  }
  if (running == &held.fx)
    for (req = fx->issue; req; req = req->work.fx_next)
      held.bytes += req->work.length;
  effects_splice (running, fx);
  if (running == &held.fx && held.bytes >= HELD_MAX) {
    zdisk_release ();
    zdisk_hold (held.disk, held.ring);
  }
}

void
zdisk_hold (struct zdisk *disk, struct ring *ring)
{
  effects_init (&held.fx);
  held.disk = disk;
  held.ring = ring;
  held.bytes = 0;
  running = &held.fx;
}

void
zdisk_release (void)
{
  struct effects fx = held.fx;

  if (fx.issue == NULL)
    fx.issue_tail = &fx.issue;
  if (fx.done == NULL)
    fx.done_tail = &fx.done;
  work_off (held.disk, &fx, held.ring);
}
