/* SPDX-License-Identifier: BSD-3-Clause */
/* A zone that the store keeps, in which a write or an operation failed: when
 * nothing of it is in flight it is reported anew, and what was done of it
 * ends by what is true now.  The first request, which failed, carries the
 * report's I/O.
 */

#include <config.h>

#include <errno.h>

#include "disk-internal.h"

void
queue_resync (struct zone *z, struct effects *fx)
{
  struct zdisk_request *first = busy_first (z), *req = first;

  zone_flags_add (z, ZONE_FAILING);
  do {
    if (req->work.state == BUSY_FLIGHT)
      return;
    req = req->work.next;
  }
  while (req != first);
  first->work.state = BUSY_RESYNC;
  effects_issue (fx, first);
}

/* An append that failed because the pointer was elsewhere goes there.  It is
 * not there because the append itself moved it: the store says that nothing
 * was written, or it is back before the append's place. */
static bool
goes_again (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  uint64_t wp = zone_of (req)->wp;

  if (w->kind != PART_APPEND || !w->error || w->retried ||
      wp == w->offset || (wp > w->offset && w->error != EINVAL) ||
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

/* Operations that a zone does not take in its condition are their client's
 * mistake, who is told. */
static bool
is_worth_a_line (const struct zdisk_request *req, int report_error)
{
  const struct zdisk_work *w = &req->work;
  bool nothing;

  return report_error || w->kind != PART_MANAGE ||
    (w->error && zones_manage_check (zone_of (req), manage_op (req),
                                     &nothing) != ZONE_REFUSED_TRANSITION);
}

/* A zone that something failed in is reported: what is done of it ends, and
 * what waits is judged by what is true now. */
void
queue_resync_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = io_request (io), *prev;
  struct zdisk *disk = disk_of (req);
  uint32_t zone = req->work.zone;
  struct zone *z = zone_of (req);
  struct ring *ring = io->ring;
  char line[MIRROR_LINE_MAX] = "";
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
  if (is_worth_a_line (req, error))
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
  zone_flags_drop (z, ZONE_FAILING);
  queue_look_again (disk, zone, &fx);
  zone_unlock (&z->lock);
  mirror_log (disk, line);
  effects_run (disk, &fx, ring);
}
