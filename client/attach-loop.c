/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop: one thread and one io_uring, which serves all queues of the
 * device.  The driver's commands wait in the ring for requests, and beside
 * them the connections' sockets, which libnbd reads and writes when they are
 * ready.  A turn works off what has come and ends in one system call.
 */

#include <config.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attach.h"

/* Answers read of one connection, before the others'. */
#define ANSWERS 64

/* The ring's wait for a socket, once.  It may outlive the connection. */
struct watch {
  struct ring_op op;
  struct attach *a;
  struct conn *conn;            /* NULL: nobody's any more */
  unsigned events;
};

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

static void
ignore (struct ring_op *op, int res)
{
  (void) op;
  (void) res;
}

static struct ring_op ignored = { ignore };

static int
notify (struct nbd_handle *h, unsigned events)
{
  const unsigned dir = nbd_aio_get_direction (h);
  const unsigned broken = POLLHUP | POLLERR;

  if ((dir & LIBNBD_AIO_DIRECTION_READ) && (events & (POLLIN | broken)))
    return nbd_aio_notify_read (h);
  if ((dir & LIBNBD_AIO_DIRECTION_WRITE) && (events & (POLLOUT | broken)))
    return nbd_aio_notify_write (h);
  return 0;
}

static void
socket_ready (struct ring_op *op, int res)
{
  struct watch *w = (struct watch *) op;
  struct conn *c = w->conn;
  unsigned n;

  free (w);
  if (c == NULL)
    return;
  c->watch = NULL;
  /* What the ring has seen libnbd need not ask for again; only whether there
   * is more. */
  if (res < 0 || notify (c->nbd, res) == -1)
    return;
  for (n = 0; n < ANSWERS && nbd_aio_in_flight (c->nbd) > 0 &&
         nbd_poll (c->nbd, 0) == 1; n++)
    ;
}

/* The ring lets go of the socket. */
static void
forget_watch (struct attach *a, struct conn *c)
{
  struct io_uring_sqe *sqe;

  if (c->watch == NULL)
    return;
  c->watch->conn = NULL;
  sqe = ring_sqe (&a->ring);
  io_uring_prep_poll_remove (sqe, (uintptr_t) &c->watch->op);
  ring_set_op (&a->ring, sqe, &ignored);
  c->watch = NULL;
}

static void
watch (struct attach *a, struct conn *c)
{
  const unsigned dir = nbd_aio_get_direction (c->nbd);
  const int fd = nbd_aio_get_fd (c->nbd);
  struct io_uring_sqe *sqe;
  unsigned events = 0;

  if (dir & LIBNBD_AIO_DIRECTION_READ)
    events |= POLLIN;
  if (dir & LIBNBD_AIO_DIRECTION_WRITE)
    events |= POLLOUT;
  if (c->watch && (c->watch->events & events) == events)
    return;
  forget_watch (a, c);
  if (fd == -1 || events == 0)
    return;
  c->watch = calloc (1, sizeof *c->watch);
  if (c->watch == NULL)
    return;                     /* the next turn tries again */
  c->watch->op.done = socket_ready;
  c->watch->a = a;
  c->watch->conn = c;
  c->watch->events = events;
  sqe = ring_sqe (&a->ring);
  io_uring_prep_poll_add (sqe, fd, events);
  ring_set_op (&a->ring, sqe, &c->watch->op);
}

void
loop_take_link (struct attach *a)
{
  unsigned i;

  for (i = 0; i < a->link->n; i++)
    a->conns[i].nbd = a->link->data[i];
  a->conns[i].nbd = a->link->append;
}

void
loop_drop_link (struct attach *a)
{
  unsigned i;

  for (i = 0; i <= ATTACH_CONNECTIONS_MAX; i++) {
    forget_watch (a, &a->conns[i]);
    a->conns[i].nbd = NULL;
  }
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
  unsigned q, tag, n = a->queues * a->depth;
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
    for (i = 0; i <= ATTACH_CONNECTIONS_MAX; i++)
      if (a->conns[i].nbd)
        watch (a, &a->conns[i]);
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
