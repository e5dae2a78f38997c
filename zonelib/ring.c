/* SPDX-License-Identifier: BSD-3-Clause */
/* See ring.h. */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "ring.h"

/* Completions are worked off where the owner waits for them, and nowhere
 * else, and the ring says when there are some; kernels before 6.1 cannot. */
#define RING_FLAGS \
  (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | \
   IORING_SETUP_TASKRUN_FLAG)

int
ring_init (struct ring *ring, unsigned entries, struct zone_error *err)
{
  int r = io_uring_queue_init (entries, &ring->uring, RING_FLAGS);

  if (r == -EINVAL)
    r = io_uring_queue_init (entries, &ring->uring, 0);
  ring->in_flight = ring->work = 0;
  ring->prompt = NULL;
  ring->waiting = NULL;
  ring->waiting_tail = &ring->waiting;
  ring->fixed = NULL;
  ring->fixed_size = 0;
  ring->polls = false;
  if (r < 0)
    return zone_error (err, -r, "io_uring_setup: %s%s", strerror (-r),
                       r == -EPERM || r == -ENOSYS
                       ? " (is io_uring switched off, see "
                         "kernel.io_uring_disabled?)" : "");
  return 0;
}

void
ring_free (struct ring *ring)
{
  io_uring_queue_exit (&ring->uring);
}

bool
ring_fix (struct ring *ring, void *memory, size_t size)
{
  const struct iovec iov = { memory, size };

  if (io_uring_register_buffers (&ring->uring, &iov, 1) < 0)
    return false;
  ring->fixed = memory;
  ring->fixed_size = size;
  return true;
}

struct io_uring_sqe *
ring_sqe (struct ring *ring)
{
  struct io_uring_sqe *sqe;

  while ((sqe = io_uring_get_sqe (&ring->uring)) == NULL)
    io_uring_submit (&ring->uring);
  return sqe;
}

void
ring_set_op (struct ring *ring, struct io_uring_sqe *sqe, struct ring_op *op)
{
  io_uring_sqe_set_data (sqe, op);
  ring->in_flight++;
}

/* In the user data: it is a struct ring_prompt's, which has failed. */
#define PROMPT ((uintptr_t) 1)

void
ring_set_prompt (struct ring *ring, struct io_uring_sqe *sqe,
                 struct ring_prompt *prompt, int res)
{
  if (!(ring->uring.features & IORING_FEAT_CQE_SKIP)) {
    ring_set_op (ring, sqe, &prompt->op);
    return;
  }
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  io_uring_sqe_set_data (sqe, (void *) ((uintptr_t) prompt | PROMPT));
  prompt->res = res;
  prompt->next = ring->prompt;
  ring->prompt = prompt;
}

static int
end_prompt (struct ring_prompt *prompt)
{
  struct ring_prompt *next;
  int n = 0;

  for (; prompt; prompt = next, n++) {
    next = prompt->next;
    prompt->op.done (&prompt->op, prompt->res);
  }
  return n;
}

static void
ignore (struct ring_op *op, int res)
{
  (void) op;
  (void) res;
}

void
ring_cancel (struct ring *ring, struct ring_op *op)
{
  static struct ring_op cancelled = { ignore };
  struct io_uring_sqe *sqe = ring_sqe (ring);

  io_uring_prep_cancel (sqe, op, 0);
  ring_set_op (ring, sqe, &cancelled);
}

void
ring_later (struct ring *ring, struct ring_wait *wait)
{
  wait->next = NULL;
  *ring->waiting_tail = wait;
  ring->waiting_tail = &wait->next;
  ring->in_flight++;
}

/* Those that wait go on, one step each at least, as far as their part of a
 * turn allows; what comes next has a whole one. */
static int
take_turns (struct ring *ring)
{
  struct ring_wait *wait;
  int n = 0;

  ring->work = 0;
  while ((wait = ring->waiting) != NULL && ring->work <= RING_TURN) {
    ring->waiting = wait->next;
    if (ring->waiting == NULL)
      ring->waiting_tail = &ring->waiting;
    ring->in_flight--;
    wait->go (wait);
    n++;
  }
  ring->work = 0;
  return n;
}

int
ring_run (struct ring *ring, bool wait)
{
  return ring_run_for (ring, wait ? -1 : 0);
}

/* Submits, and waits for at most ms. */
static int
submit_and_wait (struct ring *ring, int ms)
{
  struct __kernel_timespec ts = {
    .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L,
  };
  struct io_uring_cqe *cqe;
  int r;

  if (ms == 0 || ring->in_flight == 0 || ring->waiting)
    return io_uring_submit_and_get_events (&ring->uring);
  if (ring_poll_begin (ring)) {
    r = io_uring_submit_and_get_events (&ring->uring);
    if (r < 0 || io_uring_cq_ready (&ring->uring) > 0)
      return r;
    if (ring_poll (ring))
      return io_uring_get_events (&ring->uring);
  }
  r = io_uring_submit_and_wait_timeout (&ring->uring, &cqe, 1,
                                        ms > 0 ? &ts : NULL, NULL);
  ring_poll_end (ring);
  return r;
}

int
ring_run_for (struct ring *ring, int ms)
{
  struct ring_prompt *prompt = NULL;
  struct io_uring_cqe *cqe;
  int r = submit_and_wait (ring, ms), n = 0;

  if (r < 0 && r != -EINTR && r != -EBUSY && r != -EAGAIN && r != -ETIME)
    return r;
  /* Where all was submitted these have ended; callbacks may prepare others. */
  if (io_uring_sq_ready (&ring->uring) == 0) {
    prompt = ring->prompt;
    ring->prompt = NULL;
  }
  while (io_uring_peek_cqe (&ring->uring, &cqe) == 0) {
    const uintptr_t data = cqe->user_data;
    const int res = cqe->res;
    struct ring_op *op = (struct ring_op *) data;

    io_uring_cqe_seen (&ring->uring, cqe);
    if (data & PROMPT) {
      ((struct ring_prompt *) (data & ~PROMPT))->res = res;
      continue;
    }
    ring->in_flight--;
    op->done (op, res);
    n++;
  }
  n += end_prompt (prompt);
  return n + take_turns (ring);
}
