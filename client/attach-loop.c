/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop: one thread and one io_uring, which serves all queues of the
 * device.  The driver's commands wait in the ring for requests, and beside
 * them the connections for replies.  A turn works off what has come and ends in
 * one system call, which also sends what that brought.
 */

#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attach.h"

void
loop_wake (struct attach *a)
{
  const uint64_t one = 1;

  if (write (a->wake_fd, &one, sizeof one) == -1)
    return;                     /* an overflow: it is awake */
}

/* ---- the driver's commands ---- */

static void
request_came (struct ring_op *op, int res)
{
  struct request *r = (struct request *) op;

  if (res == UBLK_IO_OK) {
    r->a->busy++;
    io_begin (r->a, r);
  }
  else
    r->a->fetching--;           /* no more of this tag */
}

static void
give (struct attach *a, struct request *r, uint32_t cmd_op, int result)
{
  struct io_uring_sqe *sqe = ring_sqe (&a->ring);
  struct ublk_io_cmd cmd = {
    .queue = r->queue, .tag = r->tag, .result = result,
  };

  if (cmd_op == UBLK_COMMIT_AND_FETCH && r->op == UBLK_OP_ZONE_APPEND &&
      result >= 0)
    cmd.append_sector = r->place / 512;
  io_uring_prep_rw (IORING_OP_URING_CMD, sqe, a->ublkc, NULL, 0, 0);
  sqe->cmd_op = cmd_op;
  memcpy (sqe->cmd, &cmd, sizeof cmd);
  r->op_done.done = request_came;
  r->state = REQUEST_KERNEL;
  ring_set_op (&a->ring, sqe, &r->op_done);
}

void
loop_commit (struct attach *a, struct request *r)
{
  int result = r->length;

  if (r->error)
    result = -r->error;
  else if (r->op == UBLK_OP_REPORT_ZONES)
    result = a->io_max;         /* the driver knows its buffer's size, which
                                 * all counts as filled */
  a->busy--;
  give (a, r, UBLK_COMMIT_AND_FETCH, result);
}

/* ---- connections ---- */

void
loop_take_link (struct attach *a)
{
  struct link *l = a->link;
  unsigned i;

  for (i = 0; i < l->n; i++)
    conn_begin (&a->conns[i], a, l->data[i]);
  if (l->append)
    conn_begin (&a->conns[ATTACH_CONNECTIONS_MAX], a, l->append);
}

void
loop_drop_link (struct attach *a)
{
  unsigned i;

  for (i = 0; i <= ATTACH_CONNECTIONS_MAX; i++)
    conn_drop (&a->conns[i]);
  a->sending = NULL;
}

/* ---- turns ---- */

static void
arm_wake (struct attach *a)
{
  struct io_uring_sqe *sqe = ring_sqe (&a->ring);

  io_uring_prep_read (sqe, a->wake_fd, &a->wake_value, sizeof a->wake_value,
                      0);
  ring_set_op (&a->ring, sqe, &a->woken);
}

static void
woken (struct ring_op *op, int res)
{
  struct attach *a = (struct attach *)
    ((char *) op - offsetof (struct attach, woken));

  (void) res;
  arm_wake (a);
}

/* What the helper has done. */
static void
take_from_helper (struct attach *a)
{
  struct request_list done;
  struct request *r, *next;
  struct link *l;

  pthread_mutex_lock (&a->lock);
  done = a->done;
  list_init (&a->done);
  l = a->connected;
  a->connected = NULL;
  pthread_mutex_unlock (&a->lock);
  for (r = done.first; r; r = next) {
    next = r->next;
    io_job_done (a, r);
  }
  if (l) {
    a->link = l;
    resume_link (a);
  }
}

static int
begin (struct attach *a)
{
  const size_t mapped = a->depth * sizeof **a->desc;
  unsigned q, tag, i, n = a->queues * a->depth;
  struct zone_error err;

  if (ring_init (&a->ring, n < 64 ? 64 : n > 4096 ? 4096 : n, &err) == -1) {
    attach_log (a, "%s", err.text);
    return -1;
  }
  a->ring_there = true;
  for (q = 0; q < a->queues; q++) {
    a->desc[q] = mmap (NULL, mapped, PROT_READ, MAP_SHARED, a->ublkc,
                       ublk_descriptors (q));
    if (a->desc[q] == MAP_FAILED) {
      attach_log (a, "/dev/ublkc%d: %s", a->id, strerror (errno));
      a->desc[q] = NULL;
      return -1;
    }
    for (tag = 0; tag < a->depth; tag++) {
      struct request *r = &a->requests[q * a->depth + tag];

      r->a = a;
      r->queue = q;
      r->tag = tag;
      for (i = 0; i < REQUEST_COMMANDS; i++)
        r->command[i].request = r;
      give (a, r, UBLK_FETCH_REQ, 0);
      a->fetching++;
    }
  }
  a->woken.done = woken;
  arm_wake (a);
  loop_take_link (a);
  return 0;
}

static void
finish (struct attach *a)
{
  const size_t mapped = a->depth * sizeof **a->desc;
  unsigned q;

  for (q = 0; q < a->queues; q++)
    if (a->desc[q])
      munmap (a->desc[q], mapped);
  if (!a->ring_there)
    return;
  if (a->link) {
    loop_drop_link (a);
    ring_run (&a->ring, false);
    link_free (a->link, true);
    a->link = NULL;
  }
  wire_free_old (a);
  ring_free (&a->ring);
}

/* How long a turn may wait. */
static int
until_next (struct attach *a)
{
  const int orphans = orphans_expire (a);
  uint64_t now;
  int ms;

  if (a->nended > 0)
    return 0;
  if (a->give_up_at == 0)
    return orphans;
  now = attach_now ();
  ms = a->give_up_at > now ? a->give_up_at - now : 1;
  return orphans != -1 && orphans < ms ? orphans : ms;
}

void *
loop_thread (void *arg)
{
  struct attach *a = arg;
  unsigned i;
  int r = begin (a);

  while (r >= 0 && a->fetching > 0) {
    wire_free_old (a);
    a->sending = NULL;
    for (i = 0; i <= ATTACH_CONNECTIONS_MAX; i++)
      conn_turn (&a->conns[i]);
    r = ring_run_for (&a->ring, until_next (a));
    append_told (a);
    take_from_helper (a);
    io_work_off (a);
    resume_give_up (a);
  }
  if (r < 0) {
    if (a->fetching > 0)
      attach_log (a, "io_uring: %s", strerror (-r));
    atomic_store (&a->loop_failed, true);
  }
  finish (a);
  pthread_kill (a->main_thread, SIGUSR1);
  return NULL;
}
