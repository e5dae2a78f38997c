/* SPDX-License-Identifier: BSD-3-Clause */
/* Zones that the store keeps: the machine mirrors them and takes its word.
 *
 * Between reports the machine predicts: a write makes its zone implicitly
 * open, the last one makes it full, and so on.  What it cannot know (whom the
 * device closed to make room, what others do to it) it learns from reports:
 * of a zone in which something failed (disk-queue.c), and of those that
 * somebody is about to be told of.
 *
 * A report is old news for a zone that changed since it was asked for.  Each
 * change of a zone stamps it, and so does the asking; a zone takes a report
 * where nothing of it is under way and its stamp is older.
 *
 * The ALL forms are the store's to do.  Every sequential zone is held first,
 * in order, when nothing of it is in flight; then the store does it all, and
 * each zone is let go with what the store reports of it.
 */

#include <config.h>

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk-internal.h"

/* Zones of one report. */
#define CHUNK (ZDISK_REFRESH_MEMORY / (uint32_t) sizeof (struct znbd_zone))

enum { ALL_HOLD, ALL_DO, ALL_LET_GO };

void
mirror_log (struct zdisk *disk, const char *line)
{
  if (disk->options.log && line[0] != '\0')
    disk->options.log (line);
}

void
mirror_describe (struct zdisk *disk, uint32_t zone, const char *what,
                 int error, int report_error, char line[MIRROR_LINE_MAX])
{
  const struct zone *z = &disk->zones.zone[zone];

  line[0] = '\0';
  if (!report_error)
    disk->unreported = false;
  if (disk->options.log == NULL ||
      (!report_error && zones_limit_refusal (error) != ZONE_OK))
    return;
  if (report_error) {
    /* A device that is gone is gone for all that is still asked of it. */
    if (atomic_exchange (&disk->unreported, true))
      return;
    snprintf (line, MIRROR_LINE_MAX, "zone %" PRIu32 ": %s failed (%s), and "
              "so did its report (%s)", zone, what, strerror (error),
              strerror (report_error));
  }
  else
    snprintf (line, MIRROR_LINE_MAX, "zone %" PRIu32 ": %s failed (%s); "
              "reported anew it is %s, write pointer %" PRIu64, zone, what,
              strerror (error), znbd_cond_name (zones_cond (z)),
              zones_start (&disk->zones, zone) + z->wp);
}

void
mirror_ask (struct zdisk_request *req, uint32_t zone, struct ring *ring,
            void (*done) (struct store_io *, int, uint64_t))
{
  struct zdisk_work *w = &req->work;
  struct store *store = disk_of (req)->store;

  w->io.op = STORE_REPORT;
  w->io.flags = 0;
  w->io.zone = zone;
  w->io.count = 1;
  w->io.report = &w->one;
  w->io.ring = ring;
  w->io.done = done;
  store->ops->submit (store, &w->io);
}

/* Takes a report of a zone, where it is newer than what is known. */
static void
take (struct zdisk *disk, uint32_t zone, const struct znbd_zone *info,
      uint64_t asked, struct effects *fx)
{
  struct zone *z = &disk->zones.zone[zone];

  zone_lock (&z->lock);
  if (z->busy == NULL && !(zone_flags (z) & (ZONE_FAILING | ZONE_HELD)) &&
      z->written < asked) {
    uint64_t wp = z->wp;

    zones_mirror (&disk->zones, zone, info);
    z->written = asked;
    if (z->wp != wp)
      queue_look_again (disk, zone, fx);
  }
  zone_unlock (&z->lock);
}

void
mirror_news (void *opaque, uint32_t first, uint32_t count,
             const struct znbd_zone *zones)
{
  struct zdisk *disk = opaque;
  struct effects fx;
  uint32_t i;

  effects_init (&fx);
  for (i = 0; i < count; i++)
    take (disk, first + i, &zones[i], zones_stamp (&disk->zones), &fx);
  effects_run (disk, &fx, NULL);
}

/* Lets go a zone that an ALL form held; info: what the store says, or
 * NULL. */
static void
let_go (struct zdisk_request *req, uint32_t zone,
        const struct znbd_zone *info, struct effects *fx)
{
  struct zones *zs = &disk_of (req)->zones;
  struct zone *z = &zs->zone[zone];
  enum znbd_zone_op op = manage_op (req);

  if (z->type == ZNBD_ZONE_CONVENTIONAL)
    return;
  zone_lock (&z->lock);
  if (info)
    zones_mirror (zs, zone, info);
  else if (!req->work.all_error && zones_all_takes (z, op))
    zones_manage (zs, zone, op);
  zones_touch (zs, zone);
  zone_flags_drop (z, ZONE_HELD);
  queue_look_again (disk_of (req), zone, fx);
  zone_unlock (&z->lock);
}

static void
report_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = io_request (io);
  struct zdisk *disk = disk_of (req);
  struct ring *ring = io->ring;
  struct znbd_zone *report = io->report;
  uint32_t first = io->zone, n = io->count, i;
  struct effects fx;

  (void) bytes;
  effects_init (&fx);
  for (i = 0; i < n; i++)
    if (req->work.stage == ALL_LET_GO)
      let_go (req, first + i, error ? NULL : &report[i], &fx);
    else if (!error)
      take (disk, first + i, &report[i], req->work.asked, &fx);
  if (req->work.stage != ALL_LET_GO)
    req->work.error = error;
  if (!error)
    disk->unreported = false;
  effects_run (disk, &fx, ring);
  disk_part_done (req, ring);
}

static void
all_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = io_request (io);

  (void) bytes;
  req->work.all_error = error;
  req->work.stage = ALL_LET_GO;
  disk_part_done (req, io->ring);
}

/* As many zones as one report takes.  Without memory it is one. */
static bool
next_report (struct zdisk_request *req, uint64_t at, uint64_t end)
{
  struct zdisk_work *w = &req->work;
  struct zones *zs = &disk_of (req)->zones;
  uint64_t n;

  if (at >= end)
    return false;
  w->kind = PART_REPORT;
  w->zone = zones_index (zs, at);
  n = zones_index (zs, end - 1) - w->zone + 1;
  if (n > CHUNK)
    n = CHUNK;
  if (n > 1 && w->report == NULL &&
      (w->report = malloc (n * sizeof *w->report)) == NULL)
    n = 1;
  w->io.count = n;
  w->offset = at - zones_start (zs, w->zone);
  w->length = zones_start (zs, w->zone) + n * zs->geometry.zone_size - at;
  if (w->length > end - at)
    w->length = end - at;
  return true;
}

static bool
next_all (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  struct zones *zs = &disk_of (req)->zones;

  if (w->stage == ALL_HOLD && w->done_bytes < zs->geometry.size) {
    w->zone = zones_index (zs, w->done_bytes);
    w->offset = 0;
    w->length = zones_length (zs, w->zone);
    w->kind = zone_of (req)->type == ZNBD_ZONE_CONVENTIONAL
      ? PART_NOTHING : PART_HOLD;
    return true;
  }
  if (w->stage == ALL_HOLD) {
    w->stage = ALL_DO;
    w->kind = PART_ALL;
    w->done_bytes = 0;
    w->length = 0;
    return true;
  }
  if (next_report (req, w->done_bytes, zs->geometry.size))
    return true;
  w->zone = 0;
  w->error = w->all_error;
  w->refusal = zones_limit_refusal (w->error);
  return false;
}

bool
mirror_next (struct zdisk_request *req)
{
  return req->op == ZDISK_REFRESH
    ? next_report (req, req->offset + req->work.done_bytes,
                   req->offset + req->length)
    : next_all (req);
}

void
mirror_start (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  struct zdisk *disk = disk_of (req);
  struct store_io *io = &w->io;

  io->ring = w->ring;
  io->zone = w->zone;
  io->flags = 0;
  if (w->kind == PART_ALL) {
    io->op = STORE_ZONE_OP;
    io->flags = STORE_ALL;
    io->zone_op = manage_op (req);
    io->zone = 0;
    io->offset = 0;
    io->length = disk->zones.geometry.size;
    io->done = all_done;
  }
  else {
    io->op = STORE_REPORT;
    io->report = w->report ? w->report : &w->one;
    io->done = report_done;
    w->asked = zones_stamp (&disk->zones);
  }
  disk->store->ops->submit (disk->store, io);
}

/* The zone of a read, or of a change in a conventional zone. */
static void
check_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = io_request (io);
  struct zdisk_work *w = &req->work;
  struct zdisk *disk = disk_of (req);
  struct ring *ring = io->ring;
  char line[MIRROR_LINE_MAX];
  struct effects fx;

  (void) bytes;
  if (!error) {
    effects_init (&fx);
    take (disk, w->zone, &w->one, w->asked, &fx);
    w->refusal = zones_check_access (zone_of (req), req->op != ZDISK_READ &&
                                     req->op != ZDISK_CACHE);
    effects_run (disk, &fx, ring);
  }
  mirror_describe (disk, w->zone, req->op == ZDISK_READ ? "read" : "write",
                   w->error, error, line);
  mirror_log (disk, line);
  disk_part_done (req, ring);
}

void
mirror_check_again (struct zdisk_request *req, struct ring *ring)
{
  req->work.asked = zones_stamp (&disk_of (req)->zones);
  mirror_ask (req, req->work.zone, ring, check_done);
}
