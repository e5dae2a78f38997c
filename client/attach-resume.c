/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection was lost.  All are made anew, and requests wait for that.
 * Then what was under way is sent again, but for writes and appends of
 * sequential zones: of those the helper finds out first how much was done.
 *
 * A server that started anew after it may have lost writes (another epoch)
 * makes the next flush fail where there was something to flush, as a disk
 * would that lost its cache.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "attach.h"

void
resume_break (struct attach *a)
{
  struct request_list old = a->waiting;
  struct link *l = a->link;
  struct request *r;
  unsigned i;

  if (l == NULL)
    return;
  a->link = NULL;
  loop_drop_link (a);
  link_free (l, false);
  /* What was in flight comes before what waits. */
  list_init (&a->waiting);
  for (i = 0; i < a->queues * a->depth; i++) {
    r = &a->requests[i];
    if (r->state != REQUEST_SENT || r->outstanding == 0)
      continue;
    r->outstanding = 0;
    r->error = 0;
    r->lost = true;
    r->state = REQUEST_WAITING;
    list_add (&a->waiting, r);
  }
  while (old.first && (r = list_take (&old)) != NULL)
    list_add (&a->waiting, r);
  atomic_store (&a->state->connected, 0);
  if (a->options.limit)
    a->give_up_at = attach_now () + a->options.limit * UINT64_C (1000);
  attach_log (a, "%s: the connection broke; requests wait for another one",
              a->options.uri);
  helper_connect (a);
}

/* What was in flight. */
static void
resume (struct attach *a, struct request *r)
{
  r->lost = r->sync = false;
  r->doubtful = true;
  if (r->op == UBLK_OP_ZONE_APPEND)
    append_lost (a, r);
  else if (io_is_sequential (a, r))
    helper_post (a, r, JOB_JUDGE);
  else
    io_issue (a, r);
}

static void
look_at_epoch (struct attach *a)
{
  /* An ordinary disk has none. */
  const bool changed = !a->zoned ||
    a->link->geometry.epoch != a->state->epoch;

  if (!changed)
    return;
  a->state->epoch = a->link->geometry.epoch;
  if (a->zoned)
    append_forget_all (a);      /* pointers may have gone back */
  if (!atomic_load (&a->state->dirty))
    return;
  a->lost = true;
  a->flushed = a->changes;
  atomic_store (&a->state->dirty, 0);
  attach_log (a, "%s: it started anew: what was written and not flushed may "
              "be lost, and the next flush will say so", a->options.uri);
}

void
resume_link (struct attach *a)
{
  struct request_list waiting = a->waiting;
  struct request *r;

  a->give_up_at = 0;
  loop_take_link (a);
  look_at_epoch (a);
  atomic_store (&a->state->connected, 1);
  atomic_fetch_add (&a->state->reconnects, 1);
  attach_log (a, "%s: connected again", a->options.uri);
  list_init (&a->waiting);
  /* The copy of an empty list ends in the original. */
  while (waiting.first && (r = list_take (&waiting)) != NULL) {
    if (r->lost)
      resume (a, r);
    else
      io_issue (a, r);
  }
}

void
resume_give_up (struct attach *a)
{
  struct request *r;

  if (a->link || (!atomic_load (&a->hurry) &&
                  (a->give_up_at == 0 || attach_now () < a->give_up_at)))
    return;
  /* Appends behind one that fails come to wait here. */
  while ((r = list_take (&a->waiting)) != NULL)
    io_end (a, r, EIO);
}
