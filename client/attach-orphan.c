/* SPDX-License-Identifier: BSD-3-Clause */
/* Appends that were under way when the process before this one was killed.
 * The kernel sends all of them again, but does not know what became of them;
 * those that had been done are orphans: places with an append's data that
 * nobody was told of.  An append that comes now, of the same zone and length,
 * is compared with them, and where the data is there it had been done.
 *
 * They stand in the state file, for this process may be killed as well.  One
 * whose end the kernel knew, only this was not noted any more, would find a
 * wrong owner some day, so they are dropped once the kernel has sent all that
 * it had: when nothing is under way for a moment.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "attach.h"

/* The kernel sends what was under way at once; so long it has time. */
#define IDLE_MS 2000

/* The state's, for this process. */
static void
add (struct attach *a, const struct state_orphan *new)
{
  struct state_orphan *o = a->state->orphan, *end = o + STATE_ORPHANS;

  /* A process that was killed right here has it already. */
  for (; o < end; o++)
    if (memcmp (o, new, sizeof *o) == 0)
      return;
  for (o = a->state->orphan; o < end; o++)
    if (o->length == 0) {
      *o = *new;
      return;
    }
  attach_log (a, "too many appends were under way when attach was killed: "
              "one of zone %u may be done twice", new->zone);
}

int
orphans_find (struct attach *a, struct znbd_disk *disk,
              struct zone_error *err)
{
  struct znbd_zone zone;
  uint32_t i;

  for (i = 0; i < a->state->zones; i++) {
    struct state_zone *s = &a->state->zone[i];
    struct state_orphan o = {
      .zone = i, .length = s->appending, .from = s->place,
      .to = s->place + s->appending,
    };

    if (s->appending && s->place == WP_UNKNOWN) {
      if (znbd_report (disk, i, 1, &zone) != 1)
        return zone_error (err, znbd_get_errno (), "%s", znbd_get_error ());
      o.from = s->wp;
      o.to = zone.cond == ZNBD_COND_FULL ? zone.start + zone.capacity
        : zone.wp;
    }
    if (s->appending && o.from < o.to && o.to - o.from >= o.length)
      add (a, &o);
    s->appending = 0;
    s->wp = WP_UNKNOWN;
  }
  for (i = 0; i < STATE_ORPHANS; i++)
    a->norphans += a->state->orphan[i].length > 0;
  return 0;
}

bool
orphan_seek (struct attach *a, struct request *r)
{
  const struct state_orphan *o;

  if (a->norphans == 0)
    return false;
  for (; r->orphan < STATE_ORPHANS; r->orphan++) {
    o = &a->state->orphan[r->orphan];
    if (o->length == r->length && o->zone == zone_of (a, r->offset)) {
      r->sought = *o;
      helper_post (a, r, JOB_SEEK);
      return true;
    }
  }
  return false;
}

void
orphan_sought (struct attach *a, struct request *r)
{
  if (r->error) {
    io_end (a, r, r->error);
    return;
  }
  if (r->result == 0 || memcmp (&a->state->orphan[r->orphan], &r->sought,
                                sizeof r->sought) != 0) {
    r->orphan++;
    io_issue (a, r);
    return;
  }
  r->expected = r->place;
  append_done (a, r);
  a->state->orphan[r->orphan].length = 0;
  a->norphans--;
  io_end_judged (a, r);
}

void
orphans_drop (struct attach *a, uint64_t zone)
{
  struct state_orphan *o = a->state->orphan;
  uint32_t i;

  for (i = 0; a->norphans > 0 && i < STATE_ORPHANS; i++, o++)
    if (o->length > 0 && (o->zone == zone || zone == UINT64_MAX)) {
      o->length = 0;
      a->norphans--;
    }
}

int
orphans_expire (struct attach *a)
{
  const uint64_t now = a->norphans > 0 ? attach_now () : 0;

  if (a->norphans == 0 || a->busy > 0 || !atomic_load (&a->taken_over)) {
    a->idle_since = 0;
    return -1;
  }
  if (a->idle_since == 0)
    a->idle_since = now;
  if (now < a->idle_since + IDLE_MS)
    return a->idle_since + IDLE_MS - now;
  orphans_drop (a, UINT64_MAX);
  return -1;
}
