/* SPDX-License-Identifier: BSD-3-Clause */
/* The zoned disk: opening and closing, and the way of a request from its
 * checks over its parts to its end.  See disk-internal.h.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "disk-internal.h"
#include "ring.h"

/* Who carries a request on when a part is done: the thread that started
 * the part, if it is still at it, else the one that finished it. */
enum { PHASE_STARTING, PHASE_LEFT, PHASE_DONE };

uint64_t
disk_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * UINT64_C (1000) + ts.tv_nsec / 1000000;
}

struct zdisk *
zdisk_new (struct store *store, const struct zdisk_options *options,
           struct zone_error *err)
{
  static const struct zdisk_options defaults = ZDISK_OPTIONS_DEFAULT;
  struct znbd_geometry g = store->geometry;
  struct zone_error ignored;
  struct zdisk *disk = calloc (1, sizeof *disk);

  if (disk == NULL) {
    zone_error (err, ENOMEM, "no memory for a disk");
    store->ops->close (store, false, &ignored);
    return NULL;
  }
  disk->store = store;
  disk->options = options ? *options : defaults;
  if (store->mirrors)
    g.max_open = g.max_active = 0;      /* the store's business */
  if (zones_init (&disk->zones, &g, err) == -1) {
    store->ops->close (store, false, &ignored);
    free (disk);
    return NULL;
  }
  park_init (disk);
  if (store->ops->load (store, &disk->zones, err) == -1) {
    store->ops->close (store, false, &ignored);
    zones_free (&disk->zones);
    park_free (disk);
    free (disk);
    return NULL;
  }
  limits_count_loaded (&disk->zones);
  disk->zones.store = store;
  disk->zones.mirrors = store->mirrors;
  store->news = mirror_news;
  store->news_opaque = disk;
  return disk;
}

int
zdisk_start (struct zdisk *disk, struct zone_error *err)
{
  struct store *store = disk->store;

  return store->ops->start ? store->ops->start (store, err) : 0;
}

void
zdisk_hurry (struct zdisk *disk)
{
  if (disk->store->ops->hurry)
    disk->store->ops->hurry (disk->store);
}

int
zdisk_close (struct zdisk *disk, struct zone_error *err)
{
  struct store *store = disk->store;
  int r = store->ops->close (store, !store->readonly, err);

  zones_free (&disk->zones);
  park_free (disk);
  free (disk);
  return r;
}

const struct znbd_geometry *
zdisk_geometry (const struct zdisk *disk)
{
  const struct znbd_geometry *g =
    atomic_load_explicit (&disk->store->current, memory_order_acquire);

  return g ? g : &disk->store->geometry;
}

bool
zdisk_is_readonly (const struct zdisk *disk)
{
  return disk->store->readonly;
}

bool
zdisk_can_fast_zero (const struct zdisk *disk)
{
  return disk->store->fast_zero;
}

bool
zdisk_wants_fixed (const struct zdisk *disk)
{
  return disk->store->fixed;
}

bool
zdisk_mirrors (const struct zdisk *disk)
{
  return disk->store->mirrors;
}

uint32_t
zdisk_report (struct zdisk *disk, uint32_t first, uint32_t count,
              struct znbd_zone *zones)
{
  uint32_t n = disk->zones.geometry.zones, i;

  if (first >= n)
    return 0;
  if (count > n - first)
    count = n - first;
  for (i = 0; i < count; i++)
    zones_get (&disk->zones, first + i, &zones[i]);
  return count;
}

uint32_t
zdisk_empty_run (const struct zdisk *disk, uint32_t first, uint32_t most)
{
  return zones_empty_run (&disk->zones, first, most);
}

uint64_t
zdisk_data_ahead (const struct zdisk *disk, uint64_t offset)
{
  const struct zones *zs = &disk->zones;
  uint32_t i = zones_index (zs, offset);
  uint64_t readable = zones_readable (zs, i, &zs->zone[i]);
  uint64_t at = offset - zones_start (zs, i);

  return at < readable ? readable - at : 0;
}

/* Whether a read would read data of one zone, and nothing else. */
static bool
is_data (const struct zdisk *disk, uint64_t offset, uint64_t length)
{
  const struct zones *zs = &disk->zones;
  const struct znbd_geometry *g = &zs->geometry;
  const struct zone *z;

  /* Granularities are powers of two. */
  if (length == 0 || offset >= g->size ||
      ((offset | length) & (g->granularity - 1)) != 0)
    return false;
  z = &zs->zone[zones_index (zs, offset)];
  return zones_check_access (z, false) == ZONE_OK &&
    zdisk_data_ahead (disk, offset) >= length;
}

bool
zdisk_may_map (const struct zdisk *disk, uint64_t offset, uint64_t length)
{
  return disk->store->ops->mapped && is_data (disk, offset, length);
}

bool
disk_read (struct zdisk *disk, const struct zdisk_request *req)
{
  struct store *store = disk->store;

  /* What fails is tried again, for what there is to say of it. */
  return store->ops->read &&
    is_data (disk, req->offset, req->length) &&
    store->ops->read (store, req->buf, req->length, req->offset) == 0;
}

const void *
zdisk_mapped (struct zdisk *disk, uint64_t offset, uint64_t length, bool own)
{
  struct store *store = disk->store;

  return zdisk_may_map (disk, offset, length)
    ? store->ops->mapped (store, offset, length, own) : NULL;
}

bool
zdisk_map_failed (const struct zdisk *disk)
{
  return disk->store->map_failed;
}

struct zdisk_client *
zdisk_client_new (struct zdisk *disk, bool readonly)
{
  struct zdisk_client *client = calloc (1, sizeof *client);

  if (client) {
    client->disk = disk;
    client->refs = 1;
    client->lost = disk->store->lost;
    client->readonly = readonly || disk->store->readonly;
  }
  return client;
}

static void
client_put (struct zdisk_client *client)
{
  if (atomic_fetch_sub (&client->refs, 1) == 1)
    free (client);
}

void
zdisk_client_leave (struct zdisk_client *client)
{
  if (client)
    park_client_gone (client);
}

void
zdisk_client_abandon (struct zdisk_client *client)
{
  if (client)
    atomic_store (&client->abandoned, true);
}

void
zdisk_client_close (struct zdisk_client *client)
{
  if (client) {
    park_client_gone (client);
    client_put (client);
  }
}

struct zdisk *
zdisk_client_disk (const struct zdisk_client *client)
{
  return client->disk;
}

bool
zdisk_client_is_readonly (const struct zdisk_client *client)
{
  return client->readonly;
}

/* What was asked, for messages. */
static void
describe (const struct zdisk_request *req, char *buf, size_t size)
{
  static const char *const names[] = {
    [ZDISK_READ] = "read", [ZDISK_WRITE] = "write", [ZDISK_ZERO] =
    "write zeroes", [ZDISK_TRIM] = "trim", [ZDISK_CACHE] = "cache",
    [ZDISK_FLUSH] = "flush", [ZDISK_APPEND] = "append",
    [ZDISK_OPEN] = "zone open", [ZDISK_CLOSE] = "zone close",
    [ZDISK_FINISH] = "zone finish", [ZDISK_RESET] = "zone reset",
    [ZDISK_REFRESH] = "zone report",
  };

  if (req->op == ZDISK_FLUSH)
    snprintf (buf, size, "flush");
  else
    snprintf (buf, size, "%s of %" PRIu64 " bytes at %" PRIu64,
              names[req->op], req->length, req->offset);
}

static bool
is_write (const struct zdisk_request *req)
{
  return req->op == ZDISK_WRITE || req->op == ZDISK_ZERO ||
    req->op == ZDISK_APPEND;
}

#define LOG_AGAIN_MS 60000u     /* of the same error */

/* Says that the store failed, not of every request.  Stores that mirror
 * tell of it themselves. */
static void
log_failure (struct zdisk *disk, int error, const char *reason)
{
  uint64_t now = disk_now (), at = atomic_load (&disk->failed_at);
  char line[300];

  if (disk->options.log == NULL || disk->store->mirrors ||
      error == ENOTSUP ||
      (atomic_load (&disk->failed_error) == error &&
       now < at + LOG_AGAIN_MS) ||
      !atomic_compare_exchange_strong (&disk->failed_at, &at, now))
    return;
  if (atomic_exchange (&disk->failed_error, error) == error)
    snprintf (line, sizeof line, "%s (still, or again)", reason);
  else
    snprintf (line, sizeof line, "%s", reason);
  disk->options.log (line);
}

/* The request's end. */
static void
finish (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  struct zdisk_client *client = w->counted ? w->client : NULL;
  char what[80];

  req->error = 0;
  if (w->refusal != ZONE_OK || w->error) {
    describe (req, what, sizeof what);
    if (w->refusal != ZONE_OK) {
      req->error = zones_refusal_errno (w->refusal, is_write (req));
      zones_refusal_text (&disk_of (req)->zones, w->refusal, w->zone, what,
                          req->reason, sizeof req->reason);
    }
    else {
      /* NBD has no number for a device that is gone. */
      req->error = w->error == ENODEV ? EIO : w->error;
      snprintf (req->reason, sizeof req->reason, "%s: %s: %s%s", what,
                disk_of (req)->store->ops->name, strerror (w->error),
                disk_of (req)->store->failed
                ? " (it failed before: nothing can be changed until it is "
                "opened again)" : "");
      log_failure (disk_of (req), w->error, req->reason);
    }
  }
  if (is_manage (req))
    req->result = w->done_bytes;
  if (w->report)
    free (w->report);
  req->done (req);
  if (client)
    client_put (client);
}

/* Refusals that need no zone. */
static enum zone_refusal
check (const struct zdisk_request *req)
{
  const struct zones *zs = &disk_of (req)->zones;
  const struct znbd_geometry *g = &zs->geometry;
  uint64_t end = req->offset + req->length;

  if (req->op != ZDISK_READ && req->op != ZDISK_CACHE &&
      req->op != ZDISK_FLUSH && req->op != ZDISK_REFRESH &&
      req->work.client->readonly)
    return ZONE_REFUSED_READONLY;
  if (req->op == ZDISK_FLUSH)
    return ZONE_OK;
  if (is_manage (req)) {
    if (req->flags & ZDISK_ALL)
      return req->offset == 0 && req->length == 0
        ? ZONE_OK : ZONE_REFUSED_RANGE;
    if (req->offset >= g->size || req->length > g->size - req->offset ||
        req->length == 0 || req->offset % g->zone_size != 0 ||
        (end % g->zone_size != 0 && end != g->size))
      return ZONE_REFUSED_RANGE;
    return ZONE_OK;
  }
  if (req->offset > g->size || req->length > g->size - req->offset)
    return ZONE_REFUSED_END;
  if (req->op == ZDISK_REFRESH)
    return ZONE_OK;
  if ((req->offset | req->length) % g->granularity != 0)
    return ZONE_REFUSED_ALIGN;
  return ZONE_OK;
}

/* Cuts off the next part of a read: as far as the store has data without a
 * gap, or as far as there are zeros. */
static enum zone_refusal
next_read (struct zdisk_request *req, uint64_t at, uint64_t left)
{
  struct zdisk_work *w = &req->work;
  struct zones *zs = &disk_of (req)->zones;
  uint64_t length = 0;

  for (;;) {
    uint32_t i = zones_index (zs, at + length);
    const struct zone *z = &zs->zone[i];
    uint64_t offset = at + length - zones_start (zs, i);
    uint64_t readable = zones_readable (zs, i, z);
    uint64_t end = zones_length (zs, i);
    enum part_kind kind = offset < readable ? PART_READ : PART_READ_ZERO;
    enum zone_refusal why = zones_check_access (z, false);

    if (why != ZONE_OK) {
      w->zone = i;
      return why;
    }
    if (length == 0) {
      w->zone = i;
      w->kind = kind;
    }
    else if (kind != w->kind)
      break;
    if (kind == PART_READ)
      end = readable;
    length += end - offset;
    if (length >= left) {
      length = left;
      break;
    }
    if (kind == PART_READ && end < zones_length (zs, i))
      break;
  }
  w->offset = at - zones_start (zs, w->zone);
  w->length = length;
  return ZONE_OK;
}

/* The next part of a trim: whole sequential zones are reset. */
static void
next_trim (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  const struct zone *z = zone_of (req);

  if (zones_check_access (z, true) != ZONE_OK)
    w->kind = PART_NOTHING;
  else if (z->type == ZNBD_ZONE_CONVENTIONAL)
    w->kind = PART_DIRECT;
  else if (w->offset == 0 &&
           w->length == zones_length (&disk_of (req)->zones, w->zone))
    w->kind = PART_MANAGE;
  else
    w->kind = PART_NOTHING;
}

/* Sets up the request's next part; false where there is none. */
static bool
next_part (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;
  struct zones *zs = &disk_of (req)->zones;
  uint64_t at = req->offset + w->done_bytes;
  uint64_t left = req->length - w->done_bytes;
  const struct zone *z;

  if (req->op == ZDISK_FLUSH || (req->op == ZDISK_REFRESH && !zs->mirrors))
    return false;
  if (zs->mirrors && (req->op == ZDISK_REFRESH || (req->flags & ZDISK_ALL)))
    return mirror_next (req);
  if (req->flags & ZDISK_ALL)
    left = zs->geometry.size - at;
  if (left == 0)
    return false;
  if (req->op == ZDISK_READ) {
    w->refusal = next_read (req, at, left);
    return w->refusal == ZONE_OK;
  }

  w->zone = zones_index (zs, at);
  w->offset = at - zones_start (zs, w->zone);
  w->length = zones_length (zs, w->zone) - w->offset;
  if (w->length > left)
    w->length = left;
  w->gap = w->offset;
  z = zone_of (req);
  switch (req->op) {
  case ZDISK_TRIM:
    next_trim (req);
    break;
  case ZDISK_CACHE:
    w->kind = PART_DIRECT;
    w->refusal = zones_check_access (z, false);
    break;
  case ZDISK_WRITE:
  case ZDISK_ZERO:
    w->kind = PART_WRITE;
    if (z->type == ZNBD_ZONE_CONVENTIONAL) {
      w->kind = PART_DIRECT;
      w->refusal = zones_check_access (z, true);
    }
    break;
  case ZDISK_APPEND:
    w->kind = PART_APPEND;
    if (w->length < left) {
      w->refusal = zones_check_access (z, true);
      if (w->refusal == ZONE_OK)
        w->refusal = ZONE_REFUSED_APPEND_END;
    }
    break;
  default:
    w->kind = PART_MANAGE;
    if ((req->flags & ZDISK_ALL) && !zones_all_takes (z, manage_op (req)))
      w->kind = PART_NOTHING;
  }
  return w->refusal == ZONE_OK;
}

static void
direct_done (struct store_io *io, int error, uint64_t bytes)
{
  struct zdisk_request *req = (struct zdisk_request *)
    ((char *) io - offsetof (struct zdisk_request, work.io));

  (void) bytes;
  req->work.error = error;
  /* Whose flush fails knows of what was lost until now. */
  if (error && req->op == ZDISK_FLUSH)
    atomic_store_explicit (&req->work.client->lost,
                           disk_of (req)->store->lost, memory_order_relaxed);
  if (error && error != ENOTSUP && io->op != STORE_FLUSH &&
      disk_of (req)->store->mirrors)
    mirror_check_again (req, io->ring);
  else
    disk_part_done (req, io->ring);
}

/* I/O for one part that needs no order. */
static void
start_direct (struct zdisk_request *req, enum store_op op)
{
  struct zdisk_work *w = &req->work;
  struct store *store = disk_of (req)->store;

  w->io.op = op;
  w->io.flags = store_flags (req);
  w->io.zone = w->zone;
  w->io.offset = req->offset + w->done_bytes;
  w->io.length = w->length;
  w->io.iov = w->iov;
  w->io.niov = 1;
  w->iov[0].iov_base = req->buf ? (char *) req->buf + w->done_bytes : NULL;
  w->iov[0].iov_len = w->length;
  w->io.ring = w->ring;
  w->io.done = direct_done;
  store->ops->submit (store, &w->io);
}

static void
start_part (struct zdisk_request *req)
{
  struct zdisk_work *w = &req->work;

  switch ((enum part_kind) w->kind) {
  case PART_NOTHING:
    disk_part_done (req, w->ring);
    break;
  case PART_READ_ZERO:
    memset ((char *) req->buf + w->done_bytes, 0, w->length);
    disk_part_done (req, w->ring);
    break;
  case PART_READ:
    start_direct (req, STORE_READ);
    break;
  case PART_DIRECT:
    start_direct (req, req->op == ZDISK_WRITE ? STORE_WRITE
                  : req->op == ZDISK_ZERO ? STORE_ZERO
                  : req->op == ZDISK_CACHE ? STORE_CACHE : STORE_DISCARD);
    break;
  case PART_WRITE:
  case PART_APPEND:
  case PART_MANAGE:
  case PART_HOLD:
    queue_enter (req);
    break;
  case PART_ALL:
  case PART_REPORT:
    mirror_start (req);
    break;
  }
}

/* Whether the request ends with making durable what it did. */
static bool
needs_flush (const struct zdisk_request *req)
{
  return req->op == ZDISK_FLUSH
    || ((req->flags & ZDISK_FUA) && req->op != ZDISK_READ &&
        req->op != ZDISK_CACHE && req->op != ZDISK_REFRESH);
}

/* Whether a flush's client is still to learn that writes may have been lost,
 * or what a request with FUA itself did may be. */
static bool
has_lost (struct zdisk_request *req)
{
  struct zdisk_client *client = req->work.client;
  uint32_t lost = client->disk->store->lost;

  if (req->op != ZDISK_FLUSH)
    return req->work.lost != lost;
  return atomic_exchange_explicit (&client->lost, lost,
                                   memory_order_relaxed) != lost;
}

/* Whether a request ends before its next part because nobody waits for it.
 * An ALL form of a store's own zones lets go first what it holds. */
static bool
is_abandoned (const struct zdisk_request *req)
{
  return
    atomic_load_explicit (&req->work.client->abandoned,
                          memory_order_relaxed) &&
    !((req->flags & ZDISK_ALL) && disk_of (req)->store->mirrors);
}

static void carry_on (struct zdisk_request *req, struct ring *ring,
                      bool rested);

static void
go_on (struct ring_wait *wait)
{
  struct zdisk_request *req = (struct zdisk_request *)
    ((char *) wait - offsetof (struct zdisk_request, work.wait));

  carry_on (req, req->work.ring, true);
}

/* Whether a request of many parts lets others have the thread before its
 * next one.  A disk may have a million zones. */
static bool
must_rest (const struct zdisk_request *req, const struct ring *ring)
{
  const struct zdisk_work *w = &req->work;

  return ring && ring->work > RING_TURN && !w->flushing &&
    w->done_bytes > 0 &&
    ((req->flags & ZDISK_ALL) || w->done_bytes < req->length);
}

/* Carries a request on until a part of it has to wait.  The request may be
 * gone when this returns.  rested: it does a part first. */
static void
carry_on (struct zdisk_request *req, struct ring *ring, bool rested)
{
  struct zdisk_work *w = &req->work;

  for (;; rested = false) {
    uint8_t starting = PHASE_STARTING;

    /* Ours, also where another thread finished the last part. */
    w->ring = ring;

    if (w->refusal == ZONE_OK && !w->error && !w->flushing &&
        is_abandoned (req))
      w->error = ESHUTDOWN;
    if (w->refusal != ZONE_OK || w->error || w->flushing) {
      finish (req);
      return;
    }
    if (!rested && must_rest (req, ring)) {
      w->wait.go = go_on;
      ring_later (ring, &w->wait);
      return;
    }
    if (ring)
      ring->work++;
    atomic_store_explicit (&w->phase, PHASE_STARTING, memory_order_relaxed);
    if (next_part (req))
      start_part (req);
    else if (w->refusal == ZONE_OK && !w->error && needs_flush (req)) {
      atomic_store_explicit (&w->flushing, 1, memory_order_relaxed);
      w->length = 0;
      if (has_lost (req)) {
        w->refusal = ZONE_REFUSED_LOST;
        disk_part_done (req, ring);
      }
      else
        start_direct (req, STORE_FLUSH);
    }
    else {
      finish (req);
      return;
    }
    if (atomic_compare_exchange_strong (&w->phase, &starting, PHASE_LEFT))
      return;
  }
}

/* The part under way is done: refusal or error say how.  ring is that of
 * the thread that calls. */
void
disk_part_done (struct zdisk_request *req, struct ring *ring)
{
  struct zdisk_work *w = &req->work;

  if (w->refusal == ZONE_OK && !w->error)
    w->done_bytes += w->length;
  if (atomic_exchange (&w->phase, PHASE_DONE) == PHASE_LEFT)
    carry_on (req, ring, false);
}

void
zdisk_submit (struct zdisk_client *client, struct zdisk_request *req,
              struct ring *ring)
{
  atomic_fetch_add (&client->refs, 1);
  disk_submit (client, req, ring, true);
}

void
disk_submit (struct zdisk_client *client, struct zdisk_request *req,
             struct ring *ring, bool counted)
{
  struct zdisk_work *w = &req->work;

  w->client = client;
  w->counted = counted;
  w->done_bytes = 0;
  atomic_store_explicit (&w->flushing, 0, memory_order_relaxed);
  w->stage = 0;
  w->lost = client->disk->store->lost;
  w->error = 0;
  w->report = NULL;
  w->zone = UINT32_MAX;
  req->reason[0] = '\0';
  req->result = 0;
  w->refusal = check (req);
  if (w->refusal == ZONE_OK && (req->flags & ZDISK_FAST_ZERO) &&
      !client->disk->store->fast_zero)
    w->error = ENOTSUP;
  carry_on (req, ring, true);
}
