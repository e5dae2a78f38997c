/* SPDX-License-Identifier: BSD-3-Clause */
/* What EINVAL is for.  Stock nbdkit has no number for EOVERFLOW and says so of
 * a limit; and a write that was sent again over another connection is refused
 * where what had been sent over the first one came there meanwhile.  That is
 * asked of the zone table: how many zones are active, how many explicitly
 * open, and where the pointer is.  One read of the table at a time; who comes
 * meanwhile waits for the next one.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>

#include "nbd-internal.h"

/* Zones of the largest table that is read for this. */
#define ZONES_MAX (TABLE_MAX_BLOCK / TABLE_RECORD_SIZE)

bool
limits_suspected (const struct upstream *up, const struct store_io *io)
{
  const struct znbd_geometry *g = &up->store.geometry;
  const struct upstream_io *u = upstream_io ((struct store_io *) io);
  bool write = io->op == STORE_WRITE || io->op == STORE_ZERO;

  return u->error == EINVAL && up->store.mirrors && g->zones <= ZONES_MAX &&
    ((write && u->again) ||
     ((g->max_open || g->max_active) &&
      (write || (io->op == STORE_ZONE_OP && io->zone_op == ZNBD_ZONE_OPEN))));
}

static int
census_answered (void *opaque, int *error)
{
  struct upstream *up = opaque;

  up->census_state = *error ? CENSUS_FAILED : CENSUS_THERE;
  up->nout--;
  return 1;
}

static void
take_census (struct upstream *up)
{
  uint32_t zones = up->store.geometry.zones;

  up->counted = up->suspects;
  if (up->suspects.first == NULL)
    return;
  list_init (&up->suspects);
  if (up->census == NULL)
    up->census = malloc ((size_t) zones * sizeof *up->census);
  up->census_state = CENSUS_ASKED;
  up->nout++;
  if (up->census == NULL || up->table == NULL ||
      nbd_aio_pread (up->table, up->census,
                     (size_t) zones * TABLE_RECORD_SIZE,
                     table_record_offset (0), (nbd_completion_callback) {
                       .callback = census_answered, .user_data = up
                     }, 0) == -1) {
    up->nout--;
    up->census_state = CENSUS_FAILED;
  }
}

void
limits_suspect (struct upstream *up, struct store_io *io)
{
  list_add (&up->suspects, io);
  if (up->census_state == CENSUS_NONE)
    take_census (up);
}

struct counts {
  uint32_t active, open_explicit;
};

static void
count (const struct upstream *up, struct counts *n)
{
  uint32_t i;

  for (i = 0; i < up->store.geometry.zones; i++)
    switch (up->census[i].cond) {
    case ZNBD_COND_EXPLICIT_OPEN:
      n->open_explicit++;
      n->active++;
      break;
    case ZNBD_COND_IMPLICIT_OPEN:
    case ZNBD_COND_CLOSED:
      n->active++;
      break;
    }
}

static int
explain (const struct upstream *up, const struct store_io *io,
         const struct counts *n)
{
  const struct znbd_geometry *g = &up->store.geometry;
  const struct znbd_zone *z = &up->census[io->zone];
  bool active = g->max_active && n->active >= g->max_active;
  bool open = g->max_open && n->open_explicit >= g->max_open;

  if (io->flags & STORE_ALL)
    return open ? ETOOMANYREFS : EINVAL;
  if (upstream_io ((struct store_io *) io)->again &&
      upstream_is_written (z, io))
    return 0;
  if (io->op != STORE_ZONE_OP && z->type == ZNBD_ZONE_SEQ_REQUIRED &&
      z->wp != io->offset)
    return EINVAL;
  if (z->cond == ZNBD_COND_EMPTY && active)
    return EOVERFLOW;
  return (z->cond == ZNBD_COND_EMPTY || z->cond == ZNBD_COND_CLOSED) && open
    ? ETOOMANYREFS : EINVAL;
}

void
limits_work_off (struct upstream *up)
{
  const struct znbd_geometry *g = &up->store.geometry;
  bool there = up->census_state == CENSUS_THERE;
  struct io_list list = up->counted;
  struct counts n = { 0 };
  struct store_io *io;
  const char *why;

  if (!there && up->census_state != CENSUS_FAILED)
    return;
  if (there && table_decode_records (up->census, g, 0, g->zones,
                                     &why) < g->zones)
    there = false;
  if (there)
    count (up, &n);
  up->census_state = CENSUS_NONE;
  while ((io = list.first) != NULL) {
    int error = there ? explain (up, io, &n) : EINVAL;

    list.first = io->next;
    upstream_complete (up, io, error);
  }
  take_census (up);
}
