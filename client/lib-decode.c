/* SPDX-License-Identifier: BSD-3-Clause */
/* See lib-decode.h.  A zone is up to three descriptors, one for each region;
 * neighbours with the same flags share one, also across zones, and so each
 * is cut at zones' ends here.  Nothing that a server sends is trusted: what
 * passes is as sound as a decoded record of the zone table.
 */

#include <config.h>

#include <string.h>

#include "geometry.h"
#include "lib-decode.h"
#include "report-flags.h"

static uint64_t
zone_start (const struct lib_decoder *d)
{
  return (uint64_t) (d->first + d->complete) * d->geometry->zone_size;
}

static uint64_t
zone_end (const struct lib_decoder *d)
{
  uint64_t start = zone_start (d);
  uint64_t left = d->geometry->size - start;

  return start + (left < d->geometry->zone_size ? left
                  : d->geometry->zone_size);
}

void
lib_decoder_rewind (struct lib_decoder *d)
{
  d->at = zone_start (d);
  d->flags = 0;
  d->region = 0;
  memset (d->lengths, 0, sizeof d->lengths);
}

void
lib_decoder_init (struct lib_decoder *d, const struct znbd_geometry *geometry,
                  uint32_t first, uint32_t count, struct znbd_zone *zones)
{
  d->geometry = geometry;
  d->zones = zones;
  d->first = first;
  d->count = count;
  d->complete = 0;
  lib_decoder_rewind (d);
}

bool
lib_decoder_inside (const struct lib_decoder *d)
{
  return d->complete < d->count && d->at != zone_start (d);
}

static int
refuse (const char **why, const char *text)
{
  *why = text;
  return -1;
}

/* Makes a zone of what was collected. */
static int
finish_zone (struct lib_decoder *d, const char **why)
{
  const struct znbd_geometry *g = d->geometry;
  struct znbd_zone *z = &d->zones[d->complete];
  const uint64_t *n = d->lengths;
  uint64_t start = zone_start (d), end = zone_end (d);
  unsigned type = d->flags >> REPORT_TYPE_SHIFT & REPORT_TYPE_MASK;
  unsigned cond = d->flags & REPORT_COND_MASK;
  uint64_t capacity, wp = end;

  if (type == ZNBD_ZONE_CONVENTIONAL)
    capacity = end - start;
  else if (cond == ZNBD_COND_OFFLINE)
    /* Its descriptor does not tell. */
    capacity = g->zone_capacity && g->zone_capacity < end - start
      ? g->zone_capacity : end - start;
  else
    capacity = n[REPORT_REGION_DATA] + n[REPORT_REGION_FREE];
  if (capacity == 0)
    return refuse (why, "it has no capacity");

  switch (cond) {
  case ZNBD_COND_EMPTY:
    if (n[REPORT_REGION_DATA] != 0)
      return refuse (why, "it is empty, but its pointer is not at its start");
    wp = start;
    break;
  case ZNBD_COND_IMPLICIT_OPEN:
  case ZNBD_COND_EXPLICIT_OPEN:
  case ZNBD_COND_CLOSED:
    wp = start + n[REPORT_REGION_DATA];
    break;
  case ZNBD_COND_FULL:
    if (n[REPORT_REGION_FREE] != 0)
      return refuse (why, "it is full, but has something left");
    break;
  case ZNBD_COND_READ_ONLY:
    if (n[REPORT_REGION_FREE] != 0)
      wp = start + n[REPORT_REGION_DATA];
  }

  memset (z, 0, sizeof *z);
  z->start = start;
  z->length = end - start;
  z->capacity = capacity;
  z->wp = wp;
  z->type = type;
  z->cond = cond;
  z->reset = !!(d->flags & REPORT_RESET);
  z->non_seq = !!(d->flags & REPORT_NON_SEQ);
  d->complete++;
  lib_decoder_rewind (d);
  return 0;
}

int
lib_decoder_add (struct lib_decoder *d, uint64_t length, uint64_t flags64,
                 const char **why)
{
  unsigned region = flags64 >> REPORT_REGION_SHIFT & REPORT_REGION_MASK;
  unsigned type = flags64 >> REPORT_TYPE_SHIFT & REPORT_TYPE_MASK;
  unsigned cond = flags64 & REPORT_COND_MASK;
  uint32_t flags = flags64 & (REPORT_COND_MASK | REPORT_RESET |
                              REPORT_NON_SEQ |
                              REPORT_TYPE_MASK << REPORT_TYPE_SHIFT);
  bool pointer = type != ZNBD_ZONE_CONVENTIONAL && cond != ZNBD_COND_OFFLINE;

  if (d->complete == d->count)
    return 0;
  if (length == 0)
    return refuse (why, "a descriptor describes no bytes");
  if (length % d->geometry->granularity != 0)
    return refuse (why, "a descriptor ends inside a block");
  if (type == 0 || !geometry_zone_possible (type, cond))
    return refuse (why, "its condition is unknown, or impossible for its "
                   "type");
  if (pointer != (region != REPORT_REGION_NONE))
    return refuse (why, "a region does not go with its type and condition");

  while (length > 0 && d->complete < d->count) {
    uint64_t left = zone_end (d) - d->at;
    uint64_t n = length < left ? length : left;

    if (lib_decoder_inside (d)) {
      if (flags != d->flags)
        return refuse (why, "its descriptors contradict each other");
      if (region < d->region)
        return refuse (why, "its regions are not in order");
    }
    d->flags = flags;
    d->region = region;
    d->lengths[region] += n;
    d->at += n;
    length -= n;
    if (n == left && finish_zone (d, why) == -1)
      return -1;
  }
  return 0;
}
