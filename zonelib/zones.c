/* SPDX-License-Identifier: BSD-3-Clause */
/* See zones.h.  Resources are counted in limits.c. */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"
#include "zones.h"

static inline uint64_t
reserved_of (const struct zone *z)
{
  return atomic_load_explicit (&z->reserved, memory_order_relaxed);
}

static inline void
set_reserved (struct zone *z, uint64_t to)
{
  atomic_store_explicit (&z->reserved, to, memory_order_relaxed);
}

static inline uint64_t
wp_of (const struct zone *z)
{
  return atomic_load_explicit (&z->wp, memory_order_relaxed);
}

static inline bool
is_open (uint8_t cond)
{
  return cond == ZNBD_COND_IMPLICIT_OPEN || cond == ZNBD_COND_EXPLICIT_OPEN;
}

/* Moves the pointer and tells the store. */
static void
set_wp (struct zones *zs, uint32_t i, uint64_t to)
{
  struct zone *z = &zs->zone[i];

  atomic_store_explicit (&z->wp, to, memory_order_release);
  if (zs->store && zs->store->ops->zone_changed)
    zs->store->ops->zone_changed (zs->store, i, to, zones_cond (z),
                                  zone_flags (z) & (ZONE_NON_SEQ |
                                                    ZONE_RESET_REC));
}

/* A class for zones of this capacity, or -1 where there are too many. */
static int
capacity_class (struct zones *zs, uint64_t capacity)
{
  unsigned i;

  for (i = 0; i < zs->ncapacities; i++)
    if (zs->capacities[i] == capacity)
      return i;
  if (i == sizeof zs->capacities / sizeof zs->capacities[0])
    return -1;
  zs->capacities[i] = capacity;
  return zs->ncapacities++;
}

int
zones_init (struct zones *zs, const struct znbd_geometry *g,
            struct zone_error *err)
{
  uint64_t capacity = g->zone_capacity ? g->zone_capacity : g->zone_size;
  uint64_t last;
  uint32_t i;

  memset (zs, 0, sizeof *zs);
  zs->geometry = *g;
  zs->zone = calloc (g->zones, sizeof zs->zone[0]);
  if (zs->zone == NULL || limits_init (zs) == -1) {
    zones_free (zs);
    return zone_error (err, ENOMEM, "no memory for %" PRIu32 " zones",
                       g->zones);
  }
  if ((g->zone_size & (g->zone_size - 1)) == 0)
    zs->shift = __builtin_ctzll (g->zone_size);

  for (i = 0; i < g->zones; i++) {
    struct zone *z = &zs->zone[i];

    z->type = i < g->conventional ? ZNBD_ZONE_CONVENTIONAL
      : g->model == ZNBD_MODEL_HOST_AWARE ? ZNBD_ZONE_SEQ_PREFERRED
      : ZNBD_ZONE_SEQ_REQUIRED;
    z->cond = i < g->conventional ? ZNBD_COND_NOT_WP : ZNBD_COND_EMPTY;
    z->capacity_class = 0;
  }
  zs->capacities[0] = capacity;
  zs->ncapacities = 1;
  last = zones_length (zs, g->zones - 1);
  if (last < capacity)
    zs->zone[g->zones - 1].capacity_class = capacity_class (zs, last);
  return 0;
}

void
zones_free (struct zones *zs)
{
  if (zs->zone == NULL)
    return;
  limits_free (zs);
  free (zs->zone);
  zs->zone = NULL;
}

void
zones_load_type (struct zones *zs, uint32_t i, uint8_t type)
{
  struct zone *z = &zs->zone[i];

  z->type = type;
  z->cond = type == ZNBD_ZONE_CONVENTIONAL ? ZNBD_COND_NOT_WP
    : ZNBD_COND_EMPTY;
}

int
zones_load_capacity (struct zones *zs, uint32_t i, uint64_t capacity,
                     struct zone_error *err)
{
  int class = capacity_class (zs, capacity);

  if (class == -1)
    return zone_error (err, ENOTSUP, "zone %" PRIu32 ": more than 256 "
                       "different zone capacities on one disk", i);
  zs->zone[i].capacity_class = class;
  return 0;
}

void
zones_load (struct zones *zs, uint32_t i, uint8_t cond, uint64_t wp,
            uint8_t flags)
{
  struct zone *z = &zs->zone[i];

  if (is_open (cond) || cond == ZNBD_COND_CLOSED)
    cond = wp > 0 ? ZNBD_COND_CLOSED : ZNBD_COND_EMPTY;
  z->cond = cond;
  z->wp = wp;
  z->reserved = wp;
  atomic_store_explicit (&z->flags, flags, memory_order_relaxed);
}

int
zones_load_list (void *opaque, uint32_t first, uint32_t last)
{
  struct zones_load_list *l = opaque;

  for (; first <= last; first++)
    zones_load (l->zones, first, l->cond,
                zones_capacity (l->zones, &l->zones->zone[first]), 0);
  return 0;
}

/* A report's pointer, relative; zones without one are readable up to their
 * capacity. */
static uint64_t
mirrored_wp (const struct zones *zs, const struct zone *z,
             const struct znbd_zone *info)
{
  uint64_t capacity = zones_capacity (zs, z);
  uint64_t wp = info->wp - info->start;

  if (z->type == ZNBD_ZONE_CONVENTIONAL)
    return 0;
  return info->cond == ZNBD_COND_EMPTY ? 0 : wp < capacity ? wp : capacity;
}

static uint8_t
mirrored_flags (const struct znbd_zone *info)
{
  return (info->non_seq ? ZONE_NON_SEQ : 0) |
    (info->reset ? ZONE_RESET_REC : 0);
}

int
zones_load_mirrored (struct zones *zs, uint32_t i,
                     const struct znbd_zone *info, struct zone_error *err)
{
  struct zone *z = &zs->zone[i];

  if (zones_load_capacity (zs, i, info->capacity, err) == -1)
    return -1;
  zones_load_type (zs, i, info->type);
  z->cond = info->cond;
  z->wp = z->reserved = mirrored_wp (zs, z, info);
  atomic_store_explicit (&z->flags, mirrored_flags (info),
                         memory_order_relaxed);
  return 0;
}

uint64_t
zones_stamp (struct zones *zs)
{
  return atomic_fetch_add_explicit (&zs->clock, 1, memory_order_relaxed) + 1;
}

void
zones_touch (struct zones *zs, uint32_t i)
{
  atomic_store_explicit (&zs->zone[i].written, zones_stamp (zs),
                         memory_order_relaxed);
}

void
zones_mirror (struct zones *zs, uint32_t i, const struct znbd_zone *info)
{
  struct zone *z = &zs->zone[i];
  uint64_t wp = mirrored_wp (zs, z, info);

  limits_move (zs, i, info->cond);
  zone_flags_drop (z, ZONE_NON_SEQ | ZONE_RESET_REC);
  zone_flags_add (z, mirrored_flags (info));
  set_reserved (z, wp);
  set_wp (zs, i, wp);
}

void
zones_get (struct zones *zs, uint32_t i, struct znbd_zone *info)
{
  struct zone *z = &zs->zone[i];
  uint64_t wp;

  memset (info, 0, sizeof *info);
  info->start = zones_start (zs, i);
  info->length = zones_length (zs, i);
  info->type = z->type;
  zone_lock (&z->lock);
  wp = wp_of (z);
  info->cond = zones_cond (z);
  info->non_seq = !!(zone_flags (z) & ZONE_NON_SEQ);
  info->reset = !!(zone_flags (z) & ZONE_RESET_REC);
  zone_unlock (&z->lock);
  switch (info->cond) {
  case ZNBD_COND_EMPTY:
  case ZNBD_COND_IMPLICIT_OPEN:
  case ZNBD_COND_EXPLICIT_OPEN:
  case ZNBD_COND_CLOSED:
    info->capacity = zones_capacity (zs, z);
    info->wp = info->start + wp;
    break;
  default:
    info->capacity = z->type == ZNBD_ZONE_CONVENTIONAL
      ? info->length : zones_capacity (zs, z);
    info->wp = info->start + info->length;
  }
}

uint32_t
zones_empty_run (const struct zones *zs, uint32_t first, uint32_t most)
{
  const struct zone *z = &zs->zone[first];
  uint64_t size = zs->geometry.zone_size;
  uint32_t whole = zs->geometry.size / size, n;

  if (first >= whole)
    return 0;
  if (most > whole - first)
    most = whole - first;
  for (n = 0; n < most; n++)
    if (zones_cond (&z[n]) != ZNBD_COND_EMPTY ||
        (zone_flags (&z[n]) & (ZONE_NON_SEQ | ZONE_RESET_REC)) ||
        z[n].type != z->type || zones_capacity (zs, &z[n]) != size)
      break;
  return n;
}

enum zone_refusal
zones_check_access (const struct zone *z, bool write)
{
  switch (zones_cond (z)) {
  case ZNBD_COND_OFFLINE:
    return ZONE_REFUSED_OFFLINE;
  case ZNBD_COND_READ_ONLY:
    return write ? ZONE_REFUSED_ZONE_READONLY : ZONE_OK;
  default:
    return ZONE_OK;
  }
}

/* Reserves a place up to end for a write that is otherwise in order.  What
 * is reserved is set before the resources are asked for: an eviction then
 * sees a zone that is not at its start. */
static enum zone_verdict
reserve (struct zones *zs, uint32_t i, uint64_t end, enum zone_refusal *why)
{
  struct zone *z = &zs->zone[i];
  uint64_t before = reserved_of (z);
  uint8_t cond = zones_cond (z);

  if (end > before)
    set_reserved (z, end);
  if (zs->geometry.max_open || zs->mirrors)
    zones_touch (zs, i);
  if (cond != ZNBD_COND_FULL && (!is_open (cond) || before == 0)) {
    *why = limits_open_implicit (zs, i);
    if (*why != ZONE_OK) {
      set_reserved (z, before);
      return ZONE_ADMIT_REFUSED;
    }
  }
  /* Full from now on, so that the next zone's first write, which may
   * already be on its way, finds the resources free. */
  if (cond != ZNBD_COND_FULL && reserved_of (z) == zones_capacity (zs, z))
    limits_move (zs, i, ZNBD_COND_FULL);
  return ZONE_ADMIT_GO;
}

/* What all writes of a sequential zone are refused for, in the zone
 * model's order, but for its pointer. */
static enum zone_refusal
check_write (const struct zones *zs, const struct zone *z, uint64_t end)
{
  enum zone_refusal why = zones_check_access (z, true);

  if (why != ZONE_OK)
    return why;
  if (z->type == ZNBD_ZONE_SEQ_REQUIRED && zones_cond (z) == ZNBD_COND_FULL)
    return ZONE_REFUSED_FULL;
  return end > zones_capacity (zs, z) ? ZONE_REFUSED_CAPACITY : ZONE_OK;
}

/* Host-aware: a write anywhere is taken. */
static enum zone_verdict
admit_preferred (struct zones *zs, uint32_t i, uint64_t offset,
                 uint64_t length, uint64_t *gap, enum zone_refusal *why)
{
  struct zone *z = &zs->zone[i];
  uint64_t reserved = reserved_of (z);
  enum zone_verdict verdict;
  bool non_seq;

  if (offset < reserved && reserved != wp_of (z))
    return ZONE_ADMIT_DRAIN;    /* may touch what is in flight */
  non_seq = offset != reserved;
  /* A device zeros what a jump of its pointer uncovers by itself. */
  *gap = offset > reserved && !zs->mirrors ? reserved : offset;
  verdict = reserve (zs, i, offset + length, why);
  if (verdict == ZONE_ADMIT_GO && non_seq)
    zone_flags_add (z, ZONE_NON_SEQ);
  return verdict;
}

enum zone_verdict
zones_admit_write (struct zones *zs, uint32_t i, uint64_t offset,
                   uint64_t length, uint64_t *gap, enum zone_refusal *why)
{
  struct zone *z = &zs->zone[i];
  uint64_t reserved = reserved_of (z);

  *gap = offset;
  *why = check_write (zs, z, offset + length);
  if (*why != ZONE_OK)
    return ZONE_ADMIT_REFUSED;
  if (z->type == ZNBD_ZONE_SEQ_PREFERRED)
    return admit_preferred (zs, i, offset, length, gap, why);
  if (offset < reserved) {
    *why = ZONE_REFUSED_BELOW;
    return ZONE_ADMIT_REFUSED;
  }
  if (offset > reserved)
    return ZONE_ADMIT_PARK;
  return reserve (zs, i, offset + length, why);
}

enum zone_verdict
zones_admit_jump (struct zones *zs, uint32_t i, uint64_t offset,
                  uint64_t length, uint64_t *gap, enum zone_refusal *why)
{
  struct zone *z = &zs->zone[i];

  *gap = reserved_of (z);
  *why = check_write (zs, z, offset + length);
  if (*why != ZONE_OK)
    return ZONE_ADMIT_REFUSED;
  return reserve (zs, i, offset + length, why);
}

enum zone_verdict
zones_admit_append (struct zones *zs, uint32_t i, uint64_t length,
                    uint64_t *offset, enum zone_refusal *why)
{
  struct zone *z = &zs->zone[i];
  uint64_t reserved = reserved_of (z);

  *why = zones_check_access (z, true);
  if (*why == ZONE_OK && z->type != ZNBD_ZONE_SEQ_REQUIRED)
    *why = ZONE_REFUSED_APPEND_TYPE;
  if (*why == ZONE_OK && length > zs->geometry.max_append)
    *why = ZONE_REFUSED_APPEND_SIZE;
  if (*why == ZONE_OK && zones_cond (z) == ZNBD_COND_FULL)
    *why = ZONE_REFUSED_FULL;
  if (*why == ZONE_OK && length > zones_capacity (zs, z) - reserved)
    *why = ZONE_REFUSED_APPEND_FIT;
  if (*why != ZONE_OK)
    return ZONE_ADMIT_REFUSED;
  *offset = reserved;
  return reserve (zs, i, reserved + length, why);
}

void
zones_settle (struct zones *zs, uint32_t i, uint64_t end)
{
  struct zone *z = &zs->zone[i];
  uint64_t wp = wp_of (z);

  /* A host-aware overwrite moves no pointer, but may have set a flag. */
  if (end > wp || z->type == ZNBD_ZONE_SEQ_PREFERRED)
    set_wp (zs, i, end > wp ? end : wp);
}

void
zones_rollback (struct zones *zs, uint32_t i)
{
  struct zone *z = &zs->zone[i];
  uint64_t wp = wp_of (z);

  set_reserved (z, wp);
  limits_rollback (zs, i);
}

enum zone_refusal
zones_manage_check (const struct zone *z, enum znbd_zone_op op, bool *nothing)
{
  uint8_t cond = zones_cond (z);
  enum zone_refusal why = zones_check_access (z, true);

  *nothing = false;
  if (why != ZONE_OK)
    return why;
  if (z->type == ZNBD_ZONE_CONVENTIONAL)
    return ZONE_REFUSED_CONVENTIONAL;
  switch (op) {
  case ZNBD_ZONE_OPEN:
    *nothing = cond == ZNBD_COND_EXPLICIT_OPEN;
    return cond == ZNBD_COND_FULL ? ZONE_REFUSED_TRANSITION : ZONE_OK;
  case ZNBD_ZONE_CLOSE:
    *nothing = cond == ZNBD_COND_CLOSED;
    return cond == ZNBD_COND_FULL || cond == ZNBD_COND_EMPTY
      ? ZONE_REFUSED_TRANSITION : ZONE_OK;
  case ZNBD_ZONE_FINISH:
    *nothing = cond == ZNBD_COND_FULL;
    return ZONE_OK;
  case ZNBD_ZONE_RESET:
    *nothing = cond == ZNBD_COND_EMPTY && !zone_flags (z);
    return ZONE_OK;
  }
  return ZONE_REFUSED_TRANSITION;
}

enum zone_refusal
zones_manage (struct zones *zs, uint32_t i, enum znbd_zone_op op)
{
  struct zone *z = &zs->zone[i];

  switch (op) {
  case ZNBD_ZONE_OPEN:
    return limits_open_explicit (zs, i);
  case ZNBD_ZONE_CLOSE:
    limits_close (zs, i);
    return ZONE_OK;
  case ZNBD_ZONE_FINISH:
    set_reserved (z, zones_capacity (zs, z));
    limits_move (zs, i, ZNBD_COND_FULL);
    set_wp (zs, i, zones_capacity (zs, z));
    return ZONE_OK;
  case ZNBD_ZONE_RESET:
    zone_flags_drop (z, ZONE_NON_SEQ | ZONE_RESET_REC);
    set_reserved (z, 0);
    limits_move (zs, i, ZNBD_COND_EMPTY);
    set_wp (zs, i, 0);
    return ZONE_OK;
  }
  return ZONE_REFUSED_TRANSITION;
}

bool
zones_all_takes_cond (uint8_t type, uint8_t cond, enum znbd_zone_op op)
{
  if (type == ZNBD_ZONE_CONVENTIONAL || cond == ZNBD_COND_READ_ONLY ||
      cond == ZNBD_COND_OFFLINE)
    return false;
  switch (op) {
  case ZNBD_ZONE_OPEN:
    return cond == ZNBD_COND_CLOSED;
  case ZNBD_ZONE_CLOSE:
    return is_open (cond);
  case ZNBD_ZONE_FINISH:
    return is_open (cond) || cond == ZNBD_COND_CLOSED;
  case ZNBD_ZONE_RESET:
    return true;
  }
  return false;
}

bool
zones_all_takes (const struct zone *z, enum znbd_zone_op op)
{
  return zones_all_takes_cond (z->type, zones_cond (z), op);
}

/* The one place where the errno of a device becomes a refusal. */
enum zone_refusal
zones_limit_refusal (int error)
{
  switch (error) {
  case EOVERFLOW:
    return ZONE_REFUSED_ACTIVE;
  case ETOOMANYREFS:
    return ZONE_REFUSED_OPEN;
  default:
    return ZONE_OK;
  }
}

enum zone_refusal
zones_explain_write (struct zones *zs, uint32_t i, uint64_t offset,
                     uint64_t end, int error)
{
  const struct zone *z = &zs->zone[i];
  enum zone_refusal why = zones_limit_refusal (error);

  if (why == ZONE_OK)
    why = zones_check_access (z, true);
  if (why == ZONE_OK && z->type == ZNBD_ZONE_SEQ_REQUIRED &&
      (wp_of (z) < offset || wp_of (z) > end))
    why = zones_cond (z) == ZNBD_COND_FULL
      ? ZONE_REFUSED_FULL : ZONE_REFUSED_MOVED;
  return why;
}

enum zone_refusal
zones_explain_manage (struct zones *zs, uint32_t i, enum znbd_zone_op op,
                      int error)
{
  enum zone_refusal why = zones_limit_refusal (error);
  bool nothing;

  return why != ZONE_OK ? why
    : zones_manage_check (&zs->zone[i], op, &nothing);
}

/* The one place where an errno is chosen; the zone model's table. */
int
zones_refusal_errno (enum zone_refusal why, bool write)
{
  switch (why) {
  case ZONE_OK:
    return 0;
  case ZONE_REFUSED_READONLY:
  case ZONE_REFUSED_ZONE_READONLY:
    return EPERM;
  case ZONE_REFUSED_END:
    return write ? ENOSPC : EINVAL;
  case ZONE_REFUSED_OFFLINE:
  case ZONE_REFUSED_BEHIND:
  case ZONE_REFUSED_LOST:
    return EIO;
  case ZONE_REFUSED_FULL:
  case ZONE_REFUSED_CAPACITY:
    return ENOSPC;
  case ZONE_REFUSED_ACTIVE:
  case ZONE_REFUSED_OPEN:
    return EOVERFLOW;
  case ZONE_REFUSED_GONE:
    return ESHUTDOWN;
  case ZONE_REFUSED_ALIGN:
  case ZONE_REFUSED_APPEND_TYPE:
  case ZONE_REFUSED_APPEND_SIZE:
  case ZONE_REFUSED_APPEND_END:
  case ZONE_REFUSED_APPEND_FIT:
  case ZONE_REFUSED_BELOW:
  case ZONE_REFUSED_AHEAD:
  case ZONE_REFUSED_OVERLAP:
  case ZONE_REFUSED_BUDGET:
  case ZONE_REFUSED_CONVENTIONAL:
  case ZONE_REFUSED_TRANSITION:
  case ZONE_REFUSED_RANGE:
  case ZONE_REFUSED_MOVED:
    break;
  }
  return EINVAL;
}

void
zones_refusal_text (struct zones *zs, enum zone_refusal why, uint32_t zone,
                    const char *what, char *buf, size_t size)
{
  /* Limits of mirrored zones are known to the store alone. */
  const struct znbd_geometry *g = zs->mirrors
    ? &zs->store->geometry : &zs->geometry;
  struct znbd_zone info = { 0 };
  char at[128] = "";

  if (zone < g->zones) {
    zones_get (zs, zone, &info);
    snprintf (at, sizeof at, "zone %" PRIu32 " (%s, start %" PRIu64
              ", write pointer %" PRIu64 ")", zone,
              znbd_cond_name (info.cond), info.start, info.wp);
  }

#define TEXT(fs, ...) \
  snprintf (buf, size, "%s: " fs, what, ##__VA_ARGS__); return
  switch (why) {
  case ZONE_OK:
    break;
  case ZONE_REFUSED_READONLY:
    TEXT ("the export is read-only");
  case ZONE_REFUSED_END:
    TEXT ("past the end of the disk at %" PRIu64, g->size);
  case ZONE_REFUSED_ALIGN:
    TEXT ("not a multiple of the block size %" PRIu32, g->granularity);
  case ZONE_REFUSED_OFFLINE:
    TEXT ("zone %" PRIu32 " is offline", zone);
  case ZONE_REFUSED_ZONE_READONLY:
    TEXT ("zone %" PRIu32 " is read-only", zone);
  case ZONE_REFUSED_APPEND_TYPE:
    TEXT ("zone %" PRIu32 " is %s: only sequential-write-required zones "
          "take appends", zone, znbd_type_name (info.type));
  case ZONE_REFUSED_APPEND_SIZE:
    TEXT ("larger than the largest append, %" PRIu32, g->max_append);
  case ZONE_REFUSED_APPEND_END:
    TEXT ("across the end of zone %" PRIu32, zone);
  case ZONE_REFUSED_APPEND_FIT:
    TEXT ("more than is left in %s of capacity %" PRIu64, at, info.capacity);
  case ZONE_REFUSED_FULL:
    TEXT ("zone %" PRIu32 " is full", zone);
  case ZONE_REFUSED_CAPACITY:
    TEXT ("past the capacity %" PRIu64 " of %s", info.capacity, at);
  case ZONE_REFUSED_BELOW:
    TEXT ("below the write pointer of %s", at);
  case ZONE_REFUSED_AHEAD:
    TEXT ("ahead of the write pointer of %s, which did not move in time",
          at);
  case ZONE_REFUSED_OVERLAP:
    TEXT ("overlaps a write that waits for the pointer of %s", at);
  case ZONE_REFUSED_BUDGET:
    TEXT ("too far ahead of the write pointer of %s: too much waits", at);
  case ZONE_REFUSED_GONE:
    TEXT ("ahead of the write pointer of %s when its client went", at);
  case ZONE_REFUSED_ACTIVE:
    if (zs->mirrors && g->max_open) {
      TEXT ("zone %" PRIu32 ": as many zones as may be are active (%" PRIu32
            ") or open (%" PRIu32 ")", zone, g->max_active, g->max_open);
    }
    TEXT ("zone %" PRIu32 ": the limit of %" PRIu32 " active zones is "
          "reached", zone, g->max_active);
  case ZONE_REFUSED_OPEN:
    TEXT ("zone %" PRIu32 ": the limit of %" PRIu32 " open zones is reached"
          "%s", zone, g->max_open,
          zs->mirrors ? "" : " and all are explicitly open");
  case ZONE_REFUSED_CONVENTIONAL:
    TEXT ("zone %" PRIu32 " is conventional", zone);
  case ZONE_REFUSED_TRANSITION:
    TEXT ("not possible for %s", at);
  case ZONE_REFUSED_RANGE:
    TEXT ("not whole zones from a zone's start");
  case ZONE_REFUSED_BEHIND:
    TEXT ("an earlier write of %s failed", at);
  case ZONE_REFUSED_MOVED:
    TEXT ("somebody else moved the write pointer of %s", at);
  case ZONE_REFUSED_LOST:
    TEXT ("the disk started anew: what was written before, and not flushed, "
          "may be lost");
  }
#undef TEXT
  snprintf (buf, size, "%s", what);
}
