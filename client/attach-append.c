/* SPDX-License-Identifier: BSD-3-Clause */
/* Appends.  The server puts the data at the zone's pointer and says where,
 * so others may append to the same zone.  One is in flight in each zone, the
 * others wait behind it: where a connection breaks, or this process is
 * killed, it is then the only one of which is not known whether it was done,
 * and the pointer tells.
 *
 * For that, state.zone has the pointer as this process last knew it; others
 * may have moved it on.  It keeps what is under way until the driver was told
 * of its end, and before that the next append of the zone is not sent: else
 * there could be two of which a process that comes after this one does not
 * know.
 *
 * Where the server takes no appends, they are writes at the pointer; then
 * nobody else may write the zone.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "attach.h"
#include "protocol.h"

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

static void
issue (struct attach *a, struct append_zone *z, struct request *r)
{
  z->busy = true;
  io_issue (a, r);
}

void
append_begin (struct attach *a, struct request *r)
{
  struct append_zone *z;

  if (a->appends == NULL || zone_of (a, r->offset) >= a->geometry.zones) {
    r->error = EIO;
    loop_commit (a, r);
    return;
  }
  z = &a->appends[zone_of (a, r->offset)];
  if (!z->busy) {
    issue (a, z, r);
    return;
  }
  if (z->waiting.first == NULL)
    list_init (&z->waiting);
  r->state = REQUEST_WAITING;
  list_add (&z->waiting, r);
}

void
append_ended (struct attach *a, struct request *r)
{
  a->ended[a->nended++] = zone_of (a, r->offset);
}

void
append_told (struct attach *a)
{
  const unsigned n = a->nended;
  unsigned i;

  a->nended = 0;
  for (i = 0; i < n; i++) {
    struct append_zone *z = &a->appends[a->ended[i]];
    struct state_zone *s = &a->state->zone[a->ended[i]];
    struct request *r;

    if (s->appending && s->place != WP_UNKNOWN)
      s->wp = s->place + s->appending;
    s->appending = 0;
    z->busy = false;
    if (z->waiting.first && (r = list_take (&z->waiting)) != NULL)
      issue (a, z, r);
  }
}

/* ---- one append ---- */

/* The only append in flight in its zone: any place does for a tag. */
static void
send_append (struct attach *a, struct request *r)
{
  struct conn *conn = &a->conns[ATTACH_CONNECTIONS_MAX];
  struct command *write = &r->command[0], *status = &r->command[1];

  r->state = REQUEST_SENT;
  r->error = 0;
  write->reply.type = NBD_CMD_WRITE;
  write->flags = r->nbd_flags;
  write->offset = a->link->append ? zone_start (a, r) : r->expected;
  write->length = r->length;
  write->buf = r->buf;
  if (a->link->append == NULL) {
    r->outstanding = 1;
    conn_send (&a->conns[0], write);
    return;
  }
  status->reply.type = NBD_CMD_BLOCK_STATUS;
  status->flags = NBD_CMD_FLAG_REQ_ONE;
  status->offset = write->offset;
  status->length = a->geometry.granularity;
  r->outstanding = 2;
  conn_send (conn, write);
  conn_send (conn, status);
}

void
append_issue (struct attach *a, struct request *r)
{
  struct state_zone *s = state_zone (a, r);

  if (orphan_seek (a, r))
    return;
  if (s->wp == WP_UNKNOWN) {
    helper_post (a, r, JOB_LEARN);
    return;
  }
  r->expected = s->wp;
  s->place = WP_UNKNOWN;
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
  const uint64_t start = zone_start (a, r), size = a->geometry.zone_size;
  uint64_t place;

  if (r->error) {
    if (io_look_into (a, r))
      return;
    append_failed (a, r);
    /* Another writer was quicker. */
    if (a->link && a->link->append == NULL && r->error == EINVAL &&
        r->judged++ < JUDGED_MAX)
      io_issue (a, r);
    else
      io_end (a, r, r->error);
    return;
  }
  place = a->link && a->link->append
    ? start + ((uint64_t) r->command[1].reply.told - 1) * 512 : r->expected;
  if (place % a->geometry.granularity != 0 || place < start ||
      place > start + size || r->length > start + size - place) {
    attach_log (a, "zone %" PRIu64 ": it was appended, but the server does "
                "not say where", zone_of (a, r->offset));
    io_end (a, r, EIO);
    return;
  }
  r->place = place;
  append_done (a, r);
  io_end (a, r, 0);
}

void
append_done (struct attach *a, struct request *r)
{
  struct state_zone *s = state_zone (a, r);

  s->place = r->place;
  s->appending = r->length;
}

void
append_judged (struct attach *a, struct request *r)
{
  if (r->error)
    attach_log (a, "zone %" PRIu64 ": whether an append was done cannot be "
                "told: the write pointer is not where it left it",
                zone_of (a, r->offset));
  if (r->error == 0 && r->result == 1) {
    r->place = r->expected;
    append_done (a, r);
    io_end_judged (a, r);
    return;
  }
  append_failed (a, r);
  if (r->error) {
    io_end (a, r, r->error);
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

  if (s->wp != WP_UNKNOWN && s->wp < end && s->appending == 0)
    s->wp = end;
}

void
append_reset (struct attach *a, uint64_t zone)
{
  struct state_zone *s = &a->state->zone[zone];

  s->wp = zone * a->geometry.zone_size;
  orphans_drop (a, zone);
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

  for (i = 0; i < a->state->zones; i++)
    append_forget (a, i);
}
