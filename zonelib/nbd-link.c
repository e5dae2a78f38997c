/* SPDX-License-Identifier: BSD-3-Clause */
/* What the server says of the disk, the first time and after connecting
 * again: size, abilities, the zone table's header and the report.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "nbd-internal.h"

/* Bytes of one read or write, whatever the server says, and of one read of
 * the zone table. */
#define BLOCK_MAX (32u << 20)
#define REPORT_READ (4u << 20)

struct answer {
  bool there;
  int error;
};

static int
take_answer (void *opaque, int *error)
{
  struct answer *a = opaque;

  a->there = true;
  a->error = *error;
  return 1;
}

static bool
is_awaited (struct nbd_handle *h, void *opaque)
{
  (void) h;
  return !((struct answer *) opaque)->there;
}

/* Reads from the zone table's connection and waits. */
static int
read_table (struct upstream *up, void *buf, size_t n, uint64_t offset,
            uint64_t deadline, struct zone_error *err)
{
  struct answer a = { .there = false };
  int r;

  if (nbd_aio_pread (up->table, buf, n, offset,
                     (nbd_completion_callback) {
                       .callback = take_answer, .user_data = &a }, 0) == -1)
    return link_error (up, err);
  r = link_drive (up, up->table, deadline, is_awaited, &a, err);
  if (r == -1 && !a.there) {
    /* It must not be answered later. */
    up->nout++;
    link_end (up, up->table, false);
    up->table = NULL;
    up->nout--;
    return -1;
  }
  if (a.error)
    return zone_error (err, a.error, "%s: its zone table cannot be read: %s",
                       upstream_name (up), strerror (a.error));
  return 0;
}

static uint64_t
block_size (struct nbd_handle *h, int which)
{
  int64_t n = nbd_get_block_size (h, which);

  return n > 0 ? n : 0;
}

/* What the data connection is and can do. */
static int
look_at_data (struct upstream *up, bool first, struct zone_error *err)
{
  struct znbd_geometry *g = &up->store.geometry;
  uint64_t min = block_size (up->data, LIBNBD_SIZE_MINIMUM);
  int64_t size = nbd_get_size (up->data);

  if (size <= 0)
    return zone_error (err, EINVAL, "%s: its disk has no size",
                       upstream_name (up));
  if (min == 0)
    min = size % 512 == 0 ? 512 : 1;
  up->can_zero = nbd_can_zero (up->data) > 0;
  up->can_fast_zero = nbd_can_fast_zero (up->data) > 0;
  up->can_trim = nbd_can_trim (up->data) > 0;
  up->can_cache = nbd_can_cache (up->data) > 0;
  up->can_flush = nbd_can_flush (up->data) > 0;
  up->max_block = block_size (up->data, LIBNBD_SIZE_MAXIMUM);
  if (up->max_block == 0 || up->max_block > BLOCK_MAX)
    up->max_block = BLOCK_MAX;
  up->max_block -= up->max_block % min;
  if (!up->can_zero && up->zeros == NULL &&
      (up->zeros = calloc (1, ZEROS)) == NULL)
    return zone_error (err, ENOMEM, "no memory for zeros");
  if (!first) {
    if ((uint64_t) size == g->size)
      return 0;
    up->gone = true;
    return zone_error (err, ENODEV, "%s: its size is another one now",
                       upstream_name (up));
  }
  up->store.readonly |= nbd_is_read_only (up->data) > 0;
  up->store.fast_zero = up->can_zero && up->can_fast_zero;
  *g = (struct znbd_geometry) {
    .size = size, .zone_size = size, .zones = 1, .conventional = 1,
    .granularity = min, .model = ZNBD_MODEL_NONE,
  };
  if (size % min != 0)
    return zone_error (err, EINVAL, "%s: its size is no multiple of its "
                       "minimum block size %" PRIu64, upstream_name (up),
                       min);
  return 0;
}

/* Whether a server that refused the zone table has none. */
static bool
has_no_table (int error)
{
  return error == ENOENT || error == EINVAL || error == EPERM ||
    error == ENOTSUP;
}

/* The zone table's header.  Returns 1 where there is none. */
static int
read_header (struct upstream *up, uint64_t deadline, struct znbd_geometry *g,
             struct zone_error *err)
{
  uint64_t min = block_size (up->data, LIBNBD_SIZE_MINIMUM);
  uint8_t header[TABLE_HEADER_SIZE];
  const char *why;
  int64_t size;

  if (link_connect_table (up, deadline, err) == -1)
    return has_no_table (err->num) ? 1 : -1;
  size = nbd_get_size (up->table);
  /* There are servers with one disk by any name. */
  if (size < TABLE_HEADER_SIZE)
    return 1;
  if (read_table (up, header, sizeof header, 0, deadline, err) == -1)
    return -1;
  if (memcmp (header, TABLE_MAGIC, strlen (TABLE_MAGIC)) != 0)
    return 1;
  if (table_decode_header (header, size, g, &why) == -1)
    return zone_error (err, EINVAL, "%s: its zone table: %s",
                       upstream_name (up), why);
  if (g->size != up->store.geometry.size)
    return zone_error (err, EINVAL, "%s: its zone table is that of a disk of "
                       "another size", upstream_name (up));
  if (min > g->granularity)
    return zone_error (err, EINVAL, "%s: its minimum block size %" PRIu64
                       " is above its zones' granularity %" PRIu32,
                       upstream_name (up), min, g->granularity);
  /* Filters say so of all exports, and few mean it. */
  if (block_size (up->table, LIBNBD_SIZE_MINIMUM) > TABLE_MIN_BLOCK &&
      read_table (up, header, TABLE_RECORD_SIZE, TABLE_HEADER_SIZE, deadline,
                  err) == -1)
    return zone_error (err, EINVAL, "%s: its zone table's minimum block size "
                       "is above %u", upstream_name (up), TABLE_MIN_BLOCK);
  return 0;
}

static int
read_report (struct upstream *up, uint64_t deadline, struct zone_error *err)
{
  const uint32_t zones = up->store.geometry.zones,
    most = REPORT_READ / TABLE_RECORD_SIZE;
  const char *why;
  uint32_t i, n;

  free (up->report);
  up->report = malloc ((size_t) zones * sizeof *up->report);
  if (up->report == NULL)
    return zone_error (err, ENOMEM, "no memory for the report of %" PRIu32
                       " zones", zones);
  for (i = 0; i < zones; i += n) {
    n = zones - i < most ? zones - i : most;
    if (read_table (up, &up->report[i], (size_t) n * TABLE_RECORD_SIZE,
                    table_record_offset (i), deadline, err) == -1)
      return -1;
  }
  if (table_decode_records (up->report, &up->store.geometry, 0, zones,
                            &why) < zones)
    return zone_error (err, EINVAL, "%s: its zone table: %s",
                       upstream_name (up), why);
  return 0;
}

/* The epoch that clients are told from now on. */
static int
set_epoch (struct upstream *up, uint64_t epoch, struct zone_error *err)
{
  struct old_geometry *now = malloc (sizeof *now);

  if (now == NULL)
    return zone_error (err, ENOMEM, "no memory for a geometry");
  now->geometry = up->store.geometry;
  now->geometry.epoch = epoch;
  now->next = up->geometries;
  up->geometries = now;
  atomic_store_explicit (&up->store.current, &now->geometry,
                         memory_order_release);
  return 0;
}

/* Compares what the zone table says with what it said at first. */
static int
look_at_header (struct upstream *up, const struct znbd_geometry *g,
                bool *epoch_changed, struct zone_error *err)
{
  const struct znbd_geometry *old = atomic_load (&up->store.current);
  struct znbd_geometry same = *g;

  if (old == NULL)
    old = &up->store.geometry;
  same.epoch = old->epoch;
  same.zone_capacity = old->zone_capacity;
  if (memcmp (&same, old, sizeof same) != 0) {
    up->gone = true;
    return zone_error (err, ENODEV, "%s: it is another disk now%s",
                       upstream_name (up),
                       memcmp (g->uuid, old->uuid, sizeof g->uuid) != 0
                       ? " (its uuid differs)" : " (its geometry differs)");
  }
  *epoch_changed = g->epoch != old->epoch;
  return *epoch_changed ? set_epoch (up, g->epoch, err) : 0;
}

static int
look (struct upstream *up, bool first, bool *epoch_changed,
      struct zone_error *err)
{
  uint64_t deadline = upstream_now () + LINK_ATTEMPT_MS;
  struct znbd_geometry g;
  int r;

  *epoch_changed = false;
  if (link_connect_data (up, deadline, err) == -1 ||
      look_at_data (up, first, err) == -1)
    return -1;
  if (!first && !up->store.mirrors) {
    /* An ordinary disk has no epoch. */
    *epoch_changed = true;
    return 0;
  }
  r = read_header (up, deadline, &g, err);
  if (r == 1 && first) {
    link_end (up, up->table, false);
    up->table = NULL;
    if (nbd_can_meta_context (up->data, LINK_ZONES_CONTEXT) > 0)
      return zone_error (err, ENOTSUP, "%s: its disk has zones, but there is "
                         "no zone table beside it", upstream_name (up));
    return 0;
  }
  if (r == 1)
    return zone_error (err, ENOENT, "%s: its zone table is not there",
                       upstream_name (up));
  if (r == -1)
    return -1;
  if (first) {
    up->store.geometry = g;
    up->store.mirrors = true;
  }
  if (read_report (up, deadline, err) == -1)
    return -1;
  return first ? 0 : look_at_header (up, &g, epoch_changed, err);
}

int
link_up (struct upstream *up, bool first, bool *epoch_changed,
         struct zone_error *err)
{
  if (look (up, first, epoch_changed, err) == 0)
    return 0;
  link_down (up, true);
  return -1;
}
