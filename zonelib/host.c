/* SPDX-License-Identifier: BSD-3-Clause */
/* The host store: opening and closing, reports and zone management.
 *
 * The device keeps the conditions, decides limits and what it closes to
 * make room; the disk mirrors it (disk-mirror.c).  Nobody else may change
 * the zones meanwhile, so the device is claimed.  It gets one write at a
 * time in each zone, as kernels before 6.10 want it.
 *
 * Reports and management are ioctls, which block: the worker's thread does
 * them for who has a ring.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <libzbd/zbd.h>

#include "host-internal.h"
#include "host.h"
#include "zones.h"

/* Zones of one ioctl's report. */
#define CHUNK 4096u

static enum zbd_zone_op
device_op (enum znbd_zone_op op)
{
  switch (op) {
  case ZNBD_ZONE_OPEN: return ZBD_OP_OPEN;
  case ZNBD_ZONE_CLOSE: return ZBD_OP_CLOSE;
  case ZNBD_ZONE_FINISH: return ZBD_OP_FINISH;
  case ZNBD_ZONE_RESET: break;
  }
  return ZBD_OP_RESET;
}

/* libzbd returns -1 with errno, or a negative errno. */
static int
error_of (int r)
{
  return r == 0 ? 0 : r == -1 && errno ? errno : -r;
}

/* A zone as the device reports it.  Pointers where there is none, or none
 * to be told, are whatever a device pleases. */
static void
translate (const struct zbd_zone *from, struct znbd_zone *to)
{
  memset (to, 0, sizeof *to);
  to->start = from->start;
  to->length = from->len;
  to->capacity = from->type == ZBD_ZONE_TYPE_CNV ? from->len : from->capacity;
  to->type = from->type;
  to->cond = from->cond;
  to->reset = (from->flags & ZBD_ZONE_RWP_RECOMMENDED) != 0;
  to->non_seq = (from->flags & ZBD_ZONE_NON_SEQ_RESOURCES) != 0;
  switch (from->cond) {
  case ZBD_ZONE_COND_EMPTY:
  case ZBD_ZONE_COND_IMP_OPEN:
  case ZBD_ZONE_COND_EXP_OPEN:
  case ZBD_ZONE_COND_CLOSED:
    to->wp = from->wp;
    break;
  default:
    to->wp = from->start + from->len;
  }
}

static bool
is_known (uint8_t cond)
{
  return cond <= ZNBD_COND_CLOSED ||
    (cond >= ZNBD_COND_READ_ONLY && cond <= ZNBD_COND_OFFLINE);
}

/* Whether the device says of a zone what fits its geometry. */
static bool
is_sane (const struct znbd_geometry *g, uint32_t number,
         const struct znbd_zone *z)
{
  uint64_t start = (uint64_t) number * g->zone_size;
  uint64_t length = g->size - start < g->zone_size
    ? g->size - start : g->zone_size;

  return z->start == start && z->length == length &&
    z->capacity > 0 && z->capacity <= length &&
    z->type >= ZNBD_ZONE_CONVENTIONAL && z->type <= ZNBD_ZONE_SEQ_PREFERRED &&
    (z->type == ZNBD_ZONE_CONVENTIONAL || z->cond != ZNBD_COND_NOT_WP) &&
    is_known (z->cond) &&
    z->wp >= start && z->wp <= start + length;
}

/* Reports count zones from first on; returns 0 or an errno. */
static int
report (struct host *h, uint32_t first, uint32_t count,
        struct znbd_zone *zones)
{
  const struct znbd_geometry *g = &h->store.geometry;
  struct zbd_zone one, *from = &one;
  uint32_t done = 0, i;
  int r = 0;

  errno = 0;
  if (count > 1 &&
      (from = malloc ((count < CHUNK ? count : CHUNK) * sizeof *from)) == NULL)
    return ENOMEM;
  while (done < count && r == 0) {
    unsigned n = count - done < CHUNK ? count - done : CHUNK;

    r = error_of (zbd_report_zones (h->fd,
                                    (uint64_t) (first + done) * g->zone_size,
                                    (uint64_t) n * g->zone_size, ZBD_RO_ALL,
                                    from, &n));
    if (r == 0 && n == 0)
      r = EIO;                  /* the device has shrunk, or is gone */
    for (i = 0; i < n && r == 0; i++, done++) {
      translate (&from[i], &zones[done]);
      if (!is_sane (g, first + done, &zones[done]))
        r = EIO;
    }
  }
  if (from != &one)
    free (from);
  return r;
}

static int
zone_op (struct host *h, uint32_t zone, enum znbd_zone_op op)
{
  const struct znbd_geometry *g = &h->store.geometry;
  uint64_t start = (uint64_t) zone * g->zone_size;
  uint64_t length = g->size - start < g->zone_size
    ? g->size - start : g->zone_size;

  errno = 0;
  return error_of (zbd_zones_operation (h->fd, device_op (op), start,
                                        length));
}

/* The ALL form: the kernel has it for resets, as one command where the
 * device has that; for the others it is done to the zones that the device
 * says it is for. */
static int
zone_op_all (struct host *h, enum znbd_zone_op op)
{
  const struct znbd_geometry *g = &h->store.geometry;
  struct znbd_zone *zones;
  uint32_t i;
  int r;

  if (op == ZNBD_ZONE_RESET &&
      zbd_zones_operation (h->fd, ZBD_OP_RESET, 0, g->size) == 0)
    return 0;
  zones = malloc ((size_t) g->zones * sizeof *zones);
  if (zones == NULL)
    return ENOMEM;
  r = report (h, 0, g->zones, zones);
  for (i = 0; i < g->zones && r == 0; i++)
    if (zones_all_takes_cond (zones[i].type, zones[i].cond, op) &&
        !(op == ZNBD_ZONE_RESET && zones[i].cond == ZNBD_COND_EMPTY))
      r = zone_op (h, i, op);
  free (zones);
  return r;
}

int
host_error (struct host *h, int error)
{
  uint64_t size;

  return error && (ioctl (h->fd, BLKGETSIZE64, &size) == -1 ||
                   size < h->store.geometry.size) ? ENODEV : error;
}

/* What blocks. */
static int
perform (struct store *store, struct store_io *io)
{
  struct host *h = host_of (store);
  int r;

  if (io->op == STORE_REPORT)
    r = report (h, io->zone, io->count, io->report);
  else if (io->flags & STORE_ALL)
    r = zone_op_all (h, io->zone_op);
  else
    r = zone_op (h, io->zone, io->zone_op);
  return host_error (h, r);
}

static void
host_submit (struct store *store, struct store_io *io)
{
  struct host *h = host_of (store);
  int r;

  switch (io->op) {
  case STORE_ZONE_OP:
  case STORE_REPORT:
    if (io->ring)
      worker_submit (&h->worker, io);
    else {
      r = perform (store, io);
      io->done (io, r, r == 0 ? io->length : 0);
    }
    break;
  default:
    host_data (h, io);
  }
}

/* How zones that differ from each other make up the geometry. */
static void
sum_up (struct znbd_geometry *g, const struct znbd_zone *zones)
{
  uint64_t capacity = 0;
  bool same = true;
  uint32_t i;

  g->conventional = 0;
  for (i = 0; i < g->zones; i++) {
    if (zones[i].type == ZNBD_ZONE_CONVENTIONAL)
      g->conventional++;
    else if (zones[i].length == g->zone_size) {
      if (capacity == 0)
        capacity = zones[i].capacity;
      else if (zones[i].capacity != capacity)
        same = false;
    }
  }
  g->zone_capacity = same && capacity ? capacity : 0;
}

static int
read_zones (struct host *h, struct zone_error *err)
{
  struct znbd_geometry *g = &h->store.geometry;
  int r;

  h->loaded = malloc ((size_t) g->zones * sizeof *h->loaded);
  if (h->loaded == NULL)
    return zone_error (err, ENOMEM, "%s: no memory for %" PRIu32 " zones",
                       h->path, g->zones);
  r = report (h, 0, g->zones, h->loaded);
  if (r)
    return zone_error (err, r, "%s: its zones cannot be reported: %s",
                       h->path, strerror (r));
  sum_up (g, h->loaded);
  return 0;
}

static int
host_load (struct store *store, struct zones *zs, struct zone_error *err)
{
  struct host *h = host_of (store);
  uint32_t i;

  h->zones = zs;
  if (!h->zoned)
    return 0;
  for (i = 0; i < zs->geometry.zones; i++)
    if (zones_load_mirrored (zs, i, &h->loaded[i], err) == -1)
      return -1;
  free (h->loaded);
  h->loaded = NULL;
  return 0;
}

static int
host_close (struct store *store, bool flush, struct zone_error *err)
{
  struct host *h = host_of (store);
  int r = 0;

  worker_free (&h->worker);
  if (h->fd != -1) {
    if (flush && fdatasync (h->fd) == -1)
      r = zone_error (err, errno, "%s: cannot be flushed: %s", h->path,
                      strerror (errno));
    if (h->zoned)
      zbd_close (h->fd);
    else
      close (h->fd);
  }
  pthread_mutex_destroy (&h->lock);
  buffers_free (&h->bounce);
  free (h->loaded);
  free (h->path);
  free (h);
  return r;
}

static const struct store_ops host_ops = {
  .name = "device",
  .submit = host_submit,
  .load = host_load,
  .close = host_close,
};

struct store *
host_open (const char *path, bool readonly, struct zone_error *err)
{
  struct host *h = calloc (1, sizeof *h);
  struct znbd_geometry *g;
  struct zone_error ignored;

  if (h == NULL || (h->path = strdup (path)) == NULL) {
    free (h);
    zone_error (err, ENOMEM, "%s: no memory", path);
    return NULL;
  }
  h->fd = -1;
  h->store.ops = &host_ops;
  h->store.readonly = readonly;
  h->store.fixed = true;
  pthread_mutex_init (&h->lock, NULL);
  worker_init (&h->worker, &h->store, perform);
  if (host_probe (h, err) == -1)
    goto fail;
  g = &h->store.geometry;
  if (h->zoned) {
    h->store.mirrors = true;
    h->store.one_write_per_zone = true;
    h->store.max_write = h->max_transfer;
    g->zones = g->size / g->zone_size + (g->size % g->zone_size != 0);
    if (read_zones (h, err) == -1)
      goto fail;
  }
  else {
    g->zone_size = g->zone_capacity = g->size;
    g->zones = g->conventional = 1;
  }
  return &h->store;

 fail:
  host_close (&h->store, false, &ignored);
  return NULL;
}
