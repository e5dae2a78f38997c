/* SPDX-License-Identifier: BSD-3-Clause */
/* The geometry of emulated disks: checked here for every front-end. */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "size.h"
#include "store.h"

/* Appends of this size at most, unless the zones are smaller. */
#define MAX_APPEND (1u << 20)

static uint64_t
zone_count (const struct store_geometry *g)
{
  return g->size / g->zone_size + (g->size % g->zone_size != 0);
}

/* A size that has to be there, to be a multiple of the block size, and
 * to be an offset that off_t can hold. */
static int
check_size (const char *name, uint64_t value, uint32_t granularity,
            struct zone_error *err)
{
  char text[SIZE_TEXT_MAX];

  if (value == 0)
    return zone_error (err, EINVAL, "%s must not be 0", name);
  if (value > INT64_MAX)
    return zone_error (err, EINVAL, "%s is past 2^63 - 1", name);
  if (value % granularity != 0)
    return zone_error (err, EINVAL, "%s %s is not a multiple of the block "
                       "size %" PRIu32, name, size_text (text, value),
                       granularity);
  return 0;
}

static int
check_list (const char *name, const char *list, uint64_t zones,
            struct zone_error *err)
{
  const char *why;

  if (list && size_parse_zone_list (list, zones, NULL, NULL, &why) == -1)
    return zone_error (err, EINVAL, "%s \"%s\": %s", name, list, why);
  return 0;
}

int
store_geometry_check (const struct store_geometry *g, struct zone_error *err)
{
  char a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX];
  uint64_t zones;

  if (g->granularity != 512 && g->granularity != 4096)
    return zone_error (err, EINVAL, "block-size %" PRIu32
                       " is neither 512 nor 4096", g->granularity);
  if (g->model != ZNBD_MODEL_HOST_MANAGED &&
      g->model != ZNBD_MODEL_HOST_AWARE)
    return zone_error (err, EINVAL,
                       "model is neither host-managed nor host-aware");
  if (check_size ("size", g->size, g->granularity, err) == -1 ||
      check_size ("zone-size", g->zone_size, g->granularity, err) == -1)
    return -1;
  if (g->zone_size > g->size)
    return zone_error (err, EINVAL, "zone-size %s is larger than size %s",
                       size_text (a, g->zone_size), size_text (b, g->size));
  zones = zone_count (g);
  if (zones > INT32_MAX)
    return zone_error (err, EINVAL, "zone-size %s makes %" PRIu64 " zones of "
                       "size %s: more than %d", size_text (a, g->zone_size),
                       zones, size_text (b, g->size), INT32_MAX);
  if (g->zone_capacity) {
    if (check_size ("zone-capacity", g->zone_capacity, g->granularity,
                    err) == -1)
      return -1;
    if (g->zone_capacity > g->zone_size)
      return zone_error (err, EINVAL, "zone-capacity %s is larger than "
                         "zone-size %s", size_text (a, g->zone_capacity),
                         size_text (b, g->zone_size));
  }
  if (g->conventional > zones)
    return zone_error (err, EINVAL, "conventional %" PRIu64 " is more than "
                       "the %" PRIu64 " zones of the disk", g->conventional,
                       zones);
  if (g->max_open > UINT32_MAX)
    return zone_error (err, EINVAL, "max-open %" PRIu64 " is too large",
                       g->max_open);
  if (g->max_active > UINT32_MAX)
    return zone_error (err, EINVAL, "max-active %" PRIu64 " is too large",
                       g->max_active);
  if (g->max_active && g->max_open > g->max_active)
    return zone_error (err, EINVAL, "max-open %" PRIu64 " is larger than "
                       "max-active %" PRIu64, g->max_open, g->max_active);
  if (check_list ("read-only-zones", g->readonly_zones, zones, err) == -1 ||
      check_list ("offline-zones", g->offline_zones, zones, err) == -1)
    return -1;
  return 0;
}

void
store_geometry_fill (const struct store_geometry *from,
                     struct znbd_geometry *g)
{
  memset (g, 0, sizeof *g);
  g->size = from->size;
  g->zone_size = from->zone_size;
  g->zone_capacity = from->zone_capacity
    ? from->zone_capacity : from->zone_size;
  g->zones = zone_count (from);
  g->conventional = from->conventional;
  g->max_open = from->max_open;
  g->max_active = from->max_active;
  g->granularity = from->granularity;
  g->model = from->model;
  g->max_append = store_max_append (g);
}

uint32_t
store_max_append (const struct znbd_geometry *g)
{
  if (g->model != ZNBD_MODEL_HOST_MANAGED)
    return 0;
  return g->zone_capacity < MAX_APPEND ? g->zone_capacity : MAX_APPEND;
}
