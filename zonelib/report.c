/* SPDX-License-Identifier: BSD-3-Clause */
/* See report.h. */

#include <config.h>

#include "report.h"

/* Merges neighbours before they go to the caller. */
struct merge {
  report_fn *fn;
  void *opaque;
  uint64_t length;
  uint32_t flags;
  uint64_t skip, left;          /* of the range asked for */
  bool more;
};

static void
merge_flush (struct merge *m)
{
  if (m->length > 0 && m->more)
    m->more = m->fn (m->opaque, m->length, m->flags);
  m->length = 0;
}

static void
merge_add (struct merge *m, uint64_t length, uint32_t flags)
{
  uint64_t skip = length < m->skip ? length : m->skip;

  m->skip -= skip;
  length -= skip;
  if (length > m->left)
    length = m->left;
  m->left -= length;
  if (length == 0)
    return;
  if (flags != m->flags)
    merge_flush (m);
  m->flags = flags;
  m->length += length;
}

/* Calls one for each zone that the range touches, or for a row of empty ones
 * at once. */
static void
walk (struct zdisk *disk, uint64_t offset, uint64_t length, report_fn *fn,
      void *opaque,
      void (*one) (struct merge *m, const struct znbd_zone *z))
{
  uint64_t zone_size = zdisk_geometry (disk)->zone_size;
  uint32_t i = offset / zone_size;
  struct merge m = {
    .fn = fn, .opaque = opaque, .skip = offset % zone_size, .left = length,
    .more = true,
  };
  struct znbd_zone z;
  uint32_t n;

  for (; m.left > 0 && m.more && zdisk_report (disk, i, 1, &z) == 1; i++) {
    n = z.cond == ZNBD_COND_EMPTY
      ? zdisk_empty_run (disk, i, (m.skip + m.left - 1) / zone_size + 1) : 0;
    if (n > 1) {
      i += n - 1;
      z.length = z.capacity = n * zone_size;
      z.reset = z.non_seq = 0;
    }
    one (&m, &z);
  }
  merge_flush (&m);
}

static void
one_zone (struct merge *m, const struct znbd_zone *z)
{
  uint32_t flags = z->cond | (uint32_t) z->type << REPORT_TYPE_SHIFT |
    (z->reset ? REPORT_RESET : 0) | (z->non_seq ? REPORT_NON_SEQ : 0);
  uint64_t data;

  if (z->type == ZNBD_ZONE_CONVENTIONAL || z->cond == ZNBD_COND_OFFLINE) {
    merge_add (m, z->length, flags | REPORT_REGION_NONE << REPORT_REGION_SHIFT);
    return;
  }
  data = z->wp - z->start;
  if (data > z->capacity)
    data = z->capacity;
  merge_add (m, data, flags | REPORT_REGION_DATA << REPORT_REGION_SHIFT);
  merge_add (m, z->capacity - data,
             flags | REPORT_REGION_FREE << REPORT_REGION_SHIFT);
  merge_add (m, z->length - z->capacity,
             flags | REPORT_REGION_GAP << REPORT_REGION_SHIFT);
}

static void
one_allocation (struct merge *m, const struct znbd_zone *z)
{
  uint64_t data = z->length;

  if (z->type != ZNBD_ZONE_CONVENTIONAL && z->cond != ZNBD_COND_OFFLINE) {
    data = z->wp - z->start;
    if (data > z->capacity)
      data = z->capacity;
  }
  merge_add (m, data, 0);
  merge_add (m, z->length - data, REPORT_HOLE | REPORT_ZERO);
}

void
report_zones (struct zdisk *disk, uint64_t offset, uint64_t length,
              report_fn *fn, void *opaque)
{
  walk (disk, offset, length, fn, opaque, one_zone);
}

void
report_allocation (struct zdisk *disk, uint64_t offset, uint64_t length,
                   report_fn *fn, void *opaque)
{
  walk (disk, offset, length, fn, opaque, one_allocation);
}
