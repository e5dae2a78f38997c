/* SPDX-License-Identifier: BSD-3-Clause */
/* The data path of the host store: O_DIRECT on the caller's ring, or on
 * the calling thread where there is none.  What lies in memory that the ring
 * has fixed is transferred so.
 *
 * A transfer may come back short, or want to be tried again; it goes on
 * with what is left, so that what done is told as written really is.
 * Buffers that the device cannot reach as they are (nbdkit's) go through
 * aligned ones, which are kept.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "host-internal.h"
#include "iov.h"
#include "zones.h"

/* Zeros are written in pieces of this size. */
#define ZEROS (1u << 20)
static const uint8_t zeros[ZEROS] __attribute__ ((aligned (4096)));

/* What a transfer carries in store_io.priv. */
struct transfer {
  struct ring_op op;
  struct host *h;
  void *bounce;                 /* of io->length, or NULL */
  uint64_t done;                /* bytes */
  struct iovec iov;             /* of bounce, or of zeros */
};
_Static_assert (sizeof (struct transfer) <=
                sizeof (((struct store_io *) 0)->priv), "");

static struct transfer *
transfer_of (struct store_io *io)
{
  return (struct transfer *) &io->priv;
}

/* A copy of the caller's bytes, or what is to become of them. */
static void
copy (struct store_io *io, bool to_caller)
{
  char *p = transfer_of (io)->bounce;
  unsigned i;

  for (i = 0; i < io->niov; p += io->iov[i++].iov_len)
    if (to_caller)
      memcpy (io->iov[i].iov_base, p, io->iov[i].iov_len);
    else
      memcpy (p, io->iov[i].iov_base, io->iov[i].iov_len);
}

static void
finish (struct store_io *io, int error)
{
  struct transfer *t = transfer_of (io);
  struct host *h = t->h;

  if (t->bounce) {
    if (io->op == STORE_READ && !error)
      copy (io, true);
    pthread_mutex_lock (&h->lock);
    buffer_put (&h->bounce, t->bounce, io->length);
    pthread_mutex_unlock (&h->lock);
  }
  io->done (io, host_error (h, error), t->done);
}

static bool
is_aligned (const struct host *h, const struct store_io *io)
{
  uintptr_t bits = 0;
  unsigned i;

  for (i = 0; i < io->niov; i++)
    bits |= (uintptr_t) io->iov[i].iov_base | io->iov[i].iov_len;
  return bits % h->memory_alignment == 0;
}

/* What is to be transferred next: no more than one command of the device
 * takes, so that a sequential zone's are never under way together. */
static const struct iovec *
next_iov (struct store_io *io, unsigned *n)
{
  struct transfer *t = transfer_of (io);
  uint64_t left = io->length - t->done;

  *n = 1;
  if (io->op == STORE_ZERO)
    t->iov = (struct iovec) {
      (void *) zeros, left < ZEROS ? left : ZEROS
    };
  else if (t->bounce)
    t->iov = (struct iovec) { (char *) t->bounce + t->done, left };
  else if (io->op == STORE_WRITE &&
           io->iov->iov_len > t->h->max_transfer)
    t->iov = *io->iov;
  else {
    *n = io->niov;
    return io->iov;
  }
  if (io->op != STORE_READ && t->iov.iov_len > t->h->max_transfer)
    t->iov.iov_len = t->h->max_transfer;
  return &t->iov;
}

/* Takes a result; true where the io goes on. */
static bool
take (struct store_io *io, int res)
{
  struct transfer *t = transfer_of (io);

  if (res == -EINTR || res == -EAGAIN)
    return true;
  if (res <= 0) {
    /* Nothing at all: past the end of a device that has shrunk. */
    finish (io, res < 0 ? -res : EIO);
    return false;
  }
  t->done += res;
  if (t->done >= io->length) {
    finish (io, 0);
    return false;
  }
  /* The caller's vector is the disk's to set up and ours to use up. */
  if (io->op != STORE_ZERO && !t->bounce)
    io->niov = iov_advance (&io->iov, io->niov, res);
  return true;
}

static void submit (struct store_io *io);

static void
ring_done (struct ring_op *op, int res)
{
  struct store_io *io = (struct store_io *)
    ((char *) op - offsetof (struct store_io, priv));

  if (take (io, res))
    submit (io);
}

static void
submit (struct store_io *io)
{
  struct transfer *t = transfer_of (io);
  struct io_uring_sqe *sqe = ring_sqe (io->ring);
  const struct iovec *iov;
  unsigned n;
  bool fixed;

  iov = next_iov (io, &n);
  fixed = n == 1 && ring_is_fixed (io->ring, iov->iov_base, iov->iov_len);
  if (fixed && io->op == STORE_READ)
    io_uring_prep_read_fixed (sqe, t->h->fd, iov->iov_base, iov->iov_len,
                              io->offset + t->done, 0);
  else if (fixed)
    io_uring_prep_write_fixed (sqe, t->h->fd, iov->iov_base, iov->iov_len,
                               io->offset + t->done, 0);
  else if (io->op == STORE_READ)
    io_uring_prep_readv (sqe, t->h->fd, iov, n, io->offset + t->done);
  else
    io_uring_prep_writev (sqe, t->h->fd, iov, n, io->offset + t->done);
  t->op.done = ring_done;
  ring_set_op (io->ring, sqe, &t->op);
}

static void
transfer_now (struct store_io *io)
{
  struct transfer *t = transfer_of (io);
  const struct iovec *iov;
  unsigned n;
  ssize_t r;

  do {
    iov = next_iov (io, &n);
    r = io->op == STORE_READ
      ? preadv (t->h->fd, iov, n, io->offset + t->done)
      : pwritev (t->h->fd, iov, n, io->offset + t->done);
  } while (take (io, r == -1 ? -errno : r));
}

/* Reads, writes, and zeros that are to be written. */
static void
start_transfer (struct host *h, struct store_io *io)
{
  struct transfer *t = transfer_of (io);

  t->h = h;
  t->bounce = NULL;
  t->done = 0;
  if (io->op != STORE_ZERO && !is_aligned (h, io)) {
    pthread_mutex_lock (&h->lock);
    t->bounce = buffer_get (&h->bounce, io->length);
    pthread_mutex_unlock (&h->lock);
    if (t->bounce == NULL) {
      finish (io, ENOMEM);
      return;
    }
    if (io->op == STORE_WRITE)
      copy (io, false);
  }
  if (io->ring)
    submit (io);
  else
    transfer_now (io);
}

/* ---- what has no buffer ---- */

static int
fallocate_mode (const struct store_io *io)
{
  return FALLOC_FL_KEEP_SIZE |
    (io->op == STORE_DISCARD || (io->flags & STORE_MAY_TRIM)
     ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

/* The device's own zeroing came back. */
static void
zeroed (struct store_io *io, int error)
{
  struct transfer *t = transfer_of (io);

  if (io->op == STORE_DISCARD)
    error = 0;                  /* a hint */
  if (error != EOPNOTSUPP && error != EINVAL) {
    t->done = error ? 0 : io->length;
    finish (io, error);
  }
  else if (io->flags & STORE_FAST_ZERO)
    finish (io, ENOTSUP);
  else
    start_transfer (t->h, io);
}

static void
fallocate_done (struct ring_op *op, int res)
{
  zeroed ((struct store_io *) ((char *) op - offsetof (struct store_io,
                                                       priv)),
          res < 0 ? -res : 0);
}

static void
start_fallocate (struct host *h, struct store_io *io)
{
  struct transfer *t = transfer_of (io);
  struct io_uring_sqe *sqe;

  t->h = h;
  t->bounce = NULL;
  t->done = 0;
  /* The kernel would write zeros where the device cannot. */
  if ((io->flags & STORE_FAST_ZERO) && !h->store.fast_zero)
    finish (io, ENOTSUP);
  else if (io->ring) {
    sqe = ring_sqe (io->ring);
    io_uring_prep_fallocate (sqe, h->fd, fallocate_mode (io), io->offset,
                             io->length);
    t->op.done = fallocate_done;
    ring_set_op (io->ring, sqe, &t->op);
  }
  else
    zeroed (io, fallocate (h->fd, fallocate_mode (io), io->offset,
                           io->length) == -1 ? errno : 0);
}

/* A device says once that it could not keep what it had taken, but all
 * clients have to know. */
static void
flushed (struct store_io *io, int error)
{
  if (error)
    atomic_fetch_add (&transfer_of (io)->h->store.lost, 1);
  finish (io, error);
}

static void
flush_done (struct ring_op *op, int res)
{
  flushed ((struct store_io *) ((char *) op - offsetof (struct store_io,
                                                        priv)),
           res < 0 ? -res : 0);
}

static void
start_flush (struct host *h, struct store_io *io)
{
  struct transfer *t = transfer_of (io);
  struct io_uring_sqe *sqe;

  t->h = h;
  t->bounce = NULL;
  t->done = 0;
  if (h->store.readonly)
    finish (io, 0);
  else if (io->ring) {
    sqe = ring_sqe (io->ring);
    io_uring_prep_fsync (sqe, h->fd, IORING_FSYNC_DATASYNC);
    t->op.done = flush_done;
    ring_set_op (io->ring, sqe, &t->op);
  }
  else
    flushed (io, fdatasync (h->fd) == -1 ? errno : 0);
}

static bool
is_sequential (const struct host *h, const struct store_io *io)
{
  return h->zones->zone[io->zone].type != ZNBD_ZONE_CONVENTIONAL;
}

void
host_data (struct host *h, struct store_io *io)
{
  switch (io->op) {
  case STORE_READ:
  case STORE_WRITE:
    start_transfer (h, io);
    break;
  case STORE_ZERO:
    /* A sequential zone takes zeros as any other write. */
    if (is_sequential (h, io) && !(io->flags & STORE_FAST_ZERO))
      start_transfer (h, io);
    else
      start_fallocate (h, io);
    break;
  case STORE_DISCARD:
    start_fallocate (h, io);
    break;
  case STORE_FLUSH:
    start_flush (h, io);
    break;
  default:
    io->done (io, 0, io->length);
  }
}
