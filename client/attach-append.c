/* SPDX-License-Identifier: BSD-3-Clause */
/* Appends.  The server puts the data at the zone's pointer and says where,
 * so others may append to the same zone.  One is in flight in each zone, the
 * others wait behind it: where a connection breaks, or this process is
 * killed, it is then the only one of which is not known whether it was done,
 * and the pointer tells.
 *
 * For that, state.zone has the pointer as this process last knew it; others
 * may have moved it on.  And where the server takes no appends, they are
 * writes at the pointer; then nobody else may write the zone.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "attach.h"

/* How often an append is judged, or its pointer sought, before it fails. */
#define JUDGED_MAX 3

static struct state_zone *
state_zone (struct attach *a, const struct request *r)
{
  return &a->state->zone[zone_of (a, r->offset)];
}

static uint64_t
zone_start (const struct attach *a, const struct request *r)
{
  return zone_of (a, r->offset) * a->geometry.zone_size;
}

void
append_begin (struct attach *a, struct request *r)
{
  struct request **place;

  if (a->appending == NULL || zone_of (a, r->offset) >= a->geometry.zones) {
    r->error = EIO;
    loop_commit (a, r);
    return;
  }
  place = &a->appending[zone_of (a, r->offset)];
  if (*place == NULL) {
    *place = r;
    io_issue (a, r);
    return;
  }
  r->state = REQUEST_WAITING;
  while (*place)
    place = &(*place)->behind;
  *place = r;
}

void
append_next (struct attach *a, struct request *r)
{
  struct request **place;

  if (a->appending == NULL)
    return;
  place = &a->appending[zone_of (a, r->offset)];
  if (*place != r)
    return;
  *place = r->behind;
  if (*place)
    io_issue (a, *place);
}

/* ---- one append ---- */

/* One descriptor is expected. */
static int
place_told (void *opaque, const char *context, uint64_t offset,
            uint32_t *entries, size_t n, int *error)
{
  struct request *r = opaque;

  (void) context;
  (void) offset;
  (void) error;
  if (n >= 2)
    r->told = entries[1];
  return 0;
}

static void
send_append (struct attach *a, struct request *r)
{
  struct link *l = a->link;
  const uint64_t start = zone_start (a, r);

  r->state = REQUEST_SENT;
  r->error = 0;
  r->told = 0;
  r->outstanding = 0;
  if (l->append == NULL) {
    r->outstanding = 1;
    if (nbd_aio_pwrite (l->data[0], r->buf, r->length, r->expected,
                        io_completion (r), r->nbd_flags) == -1)
      r->outstanding = 0;
  }
  else {
    /* The only append in flight in its zone: any place does for a tag. */
    r->outstanding = 2;
    if (nbd_aio_pwrite (l->append, r->buf, r->length, start,
                        io_completion (r), r->nbd_flags) == -1)
      r->outstanding = 0;
    else if (nbd_aio_block_status (
               l->append, a->geometry.granularity, start,
               (nbd_extent_callback) { .callback = place_told,
                                       .user_data = r },
               io_completion (r), LIBNBD_CMD_FLAG_REQ_ONE) == -1) {
      /* The write's answer is still to come. */
      r->error = ENOTCONN;
      if (--r->outstanding == 0)
        list_add (&a->answered, r);
    }
    if (r->outstanding > 0 || r->error)
      return;
  }
  if (r->outstanding == 0) {
    r->error = ENOTCONN;
    list_add (&a->answered, r);
  }
}

void
append_issue (struct attach *a, struct request *r)
{
  struct state_zone *s = state_zone (a, r);

  if (s->orphan_length == r->length && !r->orphan) {
    /* It is perhaps the one that was done. */
    r->orphan = true;
    r->expected = s->orphan;
    helper_post (a, r, JOB_JUDGE);
    return;
  }
  if (s->wp == WP_UNKNOWN) {
    helper_post (a, r, JOB_LEARN);
    return;
  }
  r->expected = s->wp;
  s->appending = r->length;
  send_append (a, r);
}

void
append_learned (struct attach *a, struct request *r,
                const struct znbd_zone *zone)
{
  struct state_zone *s = state_zone (a, r);

  switch (zone->cond) {
  case ZNBD_COND_EMPTY:
  case ZNBD_COND_IMPLICIT_OPEN:
  case ZNBD_COND_EXPLICIT_OPEN:
  case ZNBD_COND_CLOSED:
    if (r->length > zone->start + zone->capacity - zone->wp)
      break;
    s->wp = zone->wp;
    io_issue (a, r);
    return;
  }
  io_end (a, r, EIO);
}

void
append_answered (struct attach *a, struct request *r)
{
  struct state_zone *s = state_zone (a, r);
  const uint64_t start = zone_start (a, r), size = a->geometry.zone_size;
  uint64_t place;

  if (r->error) {
    s->wp = WP_UNKNOWN;
    if (io_look_into (a, r))
      return;
    s->appending = 0;
    /* Another writer was quicker. */
    if (a->link && a->link->append == NULL && r->error == EINVAL &&
        r->judged++ < JUDGED_MAX)
      io_issue (a, r);
    else
      io_end (a, r, r->error);
    return;
  }
  place = a->link && a->link->append
    ? start + ((uint64_t) r->told - 1) * 512 : r->expected;
  if (place % a->geometry.granularity != 0 || place < start ||
      place > start + size || r->length > start + size - place) {
    attach_log (a, "zone %" PRIu64 ": it was appended, but the server does "
                "not say where", zone_of (a, r->offset));
    s->wp = WP_UNKNOWN;
    s->appending = 0;
    io_end (a, r, EIO);
    return;
  }
  r->place = place;
  s->wp = place + r->length;
  s->appending = 0;
  io_end (a, r, 0);
}

void
append_judged (struct attach *a, struct request *r)
{
  struct state_zone *s = state_zone (a, r);

  s->appending = 0;
  s->wp = WP_UNKNOWN;
  if (r->orphan && r->expected == s->orphan && s->orphan_length) {
    if (r->error == 0 && r->result == 1) {
      s->orphan_length = 0;
      r->place = r->expected;
      io_end_judged (a, r);
      return;
    }
    io_issue (a, r);            /* it is another one's */
    return;
  }
  if (r->error)
    attach_log (a, "zone %" PRIu64 ": whether an append was done cannot be "
                "told: the write pointer is not where it left it",
                zone_of (a, r->offset));
  r->place = r->expected;
  if (r->error) {
    io_end (a, r, r->error);
    return;
  }
  if (r->result == 1) {
    io_end_judged (a, r);
    return;
  }
  r->doubtful = true;
  io_issue (a, r);
}

void
append_lost (struct attach *a, struct request *r)
{
  helper_post (a, r, JOB_JUDGE);
}

/* ---- what is known of zones ---- */

void
append_moved (struct attach *a, uint64_t end)
{
  struct state_zone *s = &a->state->zone[zone_of (a, end - 1)];

  if (s->wp != WP_UNKNOWN && s->wp < end)
    s->wp = end;
}

void
append_reset (struct attach *a, uint64_t zone)
{
  struct state_zone *s = &a->state->zone[zone];

  s->wp = zone * a->geometry.zone_size;
  s->orphan_length = 0;
}

void
append_forget (struct attach *a, uint64_t zone)
{
  struct state_zone *s = &a->state->zone[zone];

  if (s->appending == 0)
    s->wp = WP_UNKNOWN;
}

void
append_failed (struct attach *a, struct request *r)
{
  struct state_zone *s = state_zone (a, r);

  s->appending = 0;
  s->wp = WP_UNKNOWN;
}

void
append_forget_all (struct attach *a)
{
  uint32_t i;

  for (i = 0; i < a->state->zones; i++) {
    append_forget (a, i);
    a->state->zone[i].orphan_length = 0;
  }
}

/* ---- after this process was killed ---- */

int
append_recover (struct attach *a, struct znbd_disk *disk,
                struct zone_error *err)
{
  struct znbd_zone zone;
  uint32_t i;

  for (i = 0; i < a->state->zones; i++) {
    struct state_zone *s = &a->state->zone[i];

    if (s->appending) {
      if (znbd_report (disk, i, 1, &zone) != 1)
        return zone_error (err, znbd_get_errno (), "%s", znbd_get_error ());
      if (zone.wp == s->wp + s->appending ||
          (zone.cond == ZNBD_COND_FULL &&
           s->wp + s->appending == zone.start + zone.capacity)) {
        s->orphan = s->wp;
        s->orphan_length = s->appending;
      }
    }
    s->appending = 0;
    s->wp = WP_UNKNOWN;
  }
  return 0;
}
