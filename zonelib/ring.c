/* SPDX-License-Identifier: BSD-3-Clause */
/* See ring.h. */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "ring.h"

int
ring_init (struct ring *ring, unsigned entries, struct zone_error *err)
{
  int r = io_uring_queue_init (entries, &ring->uring, 0);

  ring->in_flight = 0;
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

int
ring_run (struct ring *ring, bool wait)
{
  struct io_uring_cqe *cqe;
  int r, n = 0;

  r = io_uring_submit_and_wait (&ring->uring,
                                wait && ring->in_flight > 0 ? 1 : 0);
  if (r < 0 && r != -EINTR && r != -EBUSY && r != -EAGAIN)
    return r;
  while (io_uring_peek_cqe (&ring->uring, &cqe) == 0) {
    struct ring_op *op = io_uring_cqe_get_data (cqe);
    int res = cqe->res;

    io_uring_cqe_seen (&ring->uring, cqe);
    ring->in_flight--;
    op->done (op, res);
    n++;
  }
  return n;
}
