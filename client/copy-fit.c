/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether what the source holds fits into the destination, zone by zone;
 * why not, in one line.  Nothing has been changed yet where it does not.
 */

#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "copy.h"
#include "size.h"

/* Of a destination that begins with a conventional zone, so much has to be
 * blank: file systems begin there. */
#define BLANK_BYTES (1u << 20)

uint64_t
copy_data_end (const struct znbd_zone *z)
{
  const uint64_t end = z->start + z->capacity;

  if (z->type == ZNBD_ZONE_CONVENTIONAL && z->cond == ZNBD_COND_NOT_WP)
    return z->start + z->length;
  switch (z->cond) {
  case ZNBD_COND_EMPTY:
  case ZNBD_COND_OFFLINE:
    return z->start;
  default:                      /* full: its pointer may be its end */
    return z->wp < end ? z->wp : end;
  }
}

static bool
is_dead (const struct znbd_zone *z)
{
  return z->cond == ZNBD_COND_READ_ONLY || z->cond == ZNBD_COND_OFFLINE;
}

static int
fit_geometry (const struct copy *c)
{
  const struct znbd_geometry *s = c->src.g, *d = c->dst.g;
  char a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX];

  if (s->model == ZNBD_MODEL_NONE || d->model == ZNBD_MODEL_NONE)
    cli_error ("%s has no zones; nbdcopy copies such disks",
               s->model == ZNBD_MODEL_NONE ? c->src.operand : c->dst.operand);
  else if (s->zone_size != d->zone_size)
    cli_error ("%s has zones of %s, %s of %s: they cannot be copied one to "
               "one; nbdcopy copies bytes", c->src.operand,
               size_text (a, s->zone_size), c->dst.operand,
               size_text (b, d->zone_size));
  else if (d->size < s->size)
    cli_error ("%s is smaller than %s: %s, not %s", c->dst.operand,
               c->src.operand, size_text (a, d->size),
               size_text (b, s->size));
  else if (s->granularity % d->granularity != 0 &&
           d->granularity % s->granularity != 0)
    cli_error ("blocks of %" PRIu32 " bytes cannot be copied to blocks of "
               "%" PRIu32, s->granularity, d->granularity);
  else
    return 0;
  return -1;
}

static int
fit_zone (const struct copy *c, uint32_t i)
{
  const struct znbd_zone *s = &c->src.zones[i], *d = &c->dst.zones[i];
  const uint64_t data = copy_data_end (s) - s->start;
  const char *src = c->src.operand, *dst = c->dst.operand;
  char a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX];

  if ((s->type == ZNBD_ZONE_CONVENTIONAL) !=
      (d->type == ZNBD_ZONE_CONVENTIONAL))
    cli_error ("zone %" PRIu32 " is %s in %s, %s in %s", i,
               znbd_type_name (s->type), src, znbd_type_name (d->type), dst);
  else if (s->cond == ZNBD_COND_OFFLINE && d->cond != ZNBD_COND_OFFLINE &&
           !c->o.skip_offline)
    cli_error ("zone %" PRIu32 " of %s is offline, what it held cannot be "
               "read: --skip-offline leaves such zones out", i, src);
  else if (data == 0)
    return 0;
  else if (is_dead (d))
    cli_error ("zone %" PRIu32 " of %s is %s, and %s has data for it", i, dst,
               znbd_cond_name (d->cond), src);
  else if (data > d->capacity)
    cli_error ("zone %" PRIu32 " of %s holds %s, the capacity of %s's is %s",
               i, src, size_text (a, data), dst, size_text (b, d->capacity));
  else if (data % c->dst.g->granularity != 0)
    cli_error ("zone %" PRIu32 " of %s holds %" PRIu64 " bytes, no multiple "
               "of %s's blocks of %" PRIu32 " bytes", i, src, data, dst,
               c->dst.g->granularity);
  else
    return 0;
  return -1;
}

static bool
has_data (const struct znbd_zone *z)
{
  return z->type != ZNBD_ZONE_CONVENTIONAL && !is_dead (z) &&
    copy_data_end (z) > z->start;
}

static int
check_blank (const struct copy *c)
{
  const struct znbd_zone *z = &c->dst.zones[0];
  uint64_t n = z->length < BLANK_BYTES ? z->length : BLANK_BYTES, i = 0;
  uint8_t *buf;
  int r = -1;

  if (z->type != ZNBD_ZONE_CONVENTIONAL || z->cond == ZNBD_COND_OFFLINE)
    return 0;
  if (posix_memalign ((void **) &buf, 4096, n) != 0) {
    cli_error ("out of memory");
    return -1;
  }
  if (target_read (c->dst.target, buf, n, 0) == 0) {
    while (i < n && buf[i] == 0)
      i++;
    r = i < n ? -1 : 0;
    if (r == -1)
      cli_error ("%s is not empty: its first zone, a conventional one, holds "
                 "something; --force overwrites it", c->dst.operand);
  }
  free (buf);
  return r;
}

/* A destination that nobody said may be changed has to be empty. */
static int
check_empty (const struct copy *c)
{
  uint32_t i;

  for (i = 0; i < c->dst.g->zones; ++i)
    if (has_data (&c->dst.zones[i])) {
      cli_error ("%s is not empty, zone %" PRIu32 " is %s: --resume goes on "
                 "with a copy, --force resets all zones first",
                 c->dst.operand, i, znbd_cond_name (c->dst.zones[i].cond));
      return -1;
    }
  return check_blank (c);
}

int
copy_unchanged (struct copy *c)
{
  struct znbd_zone *before = c->src.zones;
  uint32_t i, n = 0, first = 0;
  int r;

  c->src.zones = NULL;
  r = copy_report (&c->src);
  for (i = 0; r == 0 && i < c->src.g->zones; ++i) {
    const struct znbd_zone *was = &before[i], *is = &c->src.zones[i];

    if (was->type != ZNBD_ZONE_CONVENTIONAL && !is_dead (is) &&
        (copy_data_end (is) < copy_data_end (was) ||
         (copy_is_full (was) && !copy_is_full (is))) && n++ == 0)
      first = i;
  }
  free (c->src.zones);
  c->src.zones = before;
  if (n > 0)
    cli_error ("%" PRIu32 " zone%s of %s, the first is %" PRIu32 ", %s reset "
               "while %s copied: %s has neither what was there nor what is; "
               "copy again with --force", n, n == 1 ? "" : "s",
               c->src.operand, first, n == 1 ? "was" : "were",
               n == 1 ? "it was" : "they were", c->dst.operand);
  return r == 0 && n == 0 ? 0 : -1;
}

int
copy_fit (struct copy *c)
{
  uint32_t i;

  if (fit_geometry (c) == -1)
    return -1;
  for (i = 0; i < c->src.g->zones; ++i)
    if (fit_zone (c, i) == -1)
      return -1;
  if (!c->created && !c->o.force && !c->o.resume && check_empty (c) == -1)
    return -1;
  return 0;
}
