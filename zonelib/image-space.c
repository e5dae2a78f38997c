/* SPDX-License-Identifier: BSD-3-Clause */
/* Zeroing parts of an image, giving space and taking it back.
 *
 * File systems differ in what they can: zeroing tries one way after the
 * other.  zero_next says which, for the caller that waits (image_zero) and
 * for the one that must not (image_space_submit), whose steps are carried
 * out by the ring's workers: a file system may take seconds to give space.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "image-internal.h"

enum step {
  STEP_ZERO_RANGE,
  STEP_PUNCH,
  STEP_ALLOCATE,
  STEP_WRITE,                   /* zeros, piece by piece */
  STEP_CACHE,                   /* these two are hints: nobody is */
  STEP_DISCARD,                 /* concerned that they fail */
  STEP_END,
};

/* What an operation on a ring carries in store_io.priv. */
struct space_io {
  struct ring_op op;
  struct image *img;
  enum step step;
  uint64_t done;                /* bytes: STEP_WRITE, STEP_CACHE */
};
_Static_assert (sizeof (struct space_io) <=
                sizeof (((struct store_io *) 0)->priv), "");

static const uint8_t zeros[1 << 20] __attribute__ ((aligned (4096)));

/* fadvise on a ring takes 32 bits. */
#define CACHE_MAX (UINT64_C (1) << 30)

static bool
is_unsupported (int e)
{
  return e == EOPNOTSUPP || e == ENOSYS || e == ENODEV || e == ENOTTY ||
    e == EINVAL;
}

/* The step that follows one that ended with *error, which becomes what all
 * of it ends with. */
static enum step
zero_next (enum step step, bool holes, int *error)
{
  switch (step) {
  case STEP_ZERO_RANGE:
    return *error ? STEP_PUNCH : STEP_END;
  case STEP_PUNCH:
    if (is_unsupported (*error))
      return STEP_WRITE;
    /* tmpfs has holes but no zero range: then a hole, and space for it. */
    return *error || holes ? STEP_END : STEP_ALLOCATE;
  case STEP_ALLOCATE:
    if (is_unsupported (*error))
      *error = 0;
    return STEP_END;
  default:
    return STEP_END;
  }
}

static int
mode_of (enum step step)
{
  return FALLOC_FL_KEEP_SIZE |
    (step == STEP_ZERO_RANGE ? FALLOC_FL_ZERO_RANGE
     : step == STEP_ALLOCATE ? 0 : FALLOC_FL_PUNCH_HOLE);
}

static int
write_zeros (int fd, uint64_t offset, uint64_t length)
{
  int r = 0;

  while (length > 0 && r == 0) {
    size_t n = length < sizeof zeros ? length : sizeof zeros;

    r = image_pwrite (fd, zeros, n, offset);
    offset += n;
    length -= n;
  }
  return r;
}

static int
allocate (int fd, int mode, uint64_t offset, uint64_t length)
{
  while (fallocate (fd, mode, offset, length) == -1)
    if (errno != EINTR)
      return errno;
  return 0;
}

int
image_allocate (int fd, uint64_t offset, uint64_t length)
{
  return allocate (fd, mode_of (STEP_ALLOCATE), offset, length);
}

int
image_punch (int fd, uint64_t offset, uint64_t length)
{
  return allocate (fd, mode_of (STEP_PUNCH), offset, length);
}

int
image_zero (int fd, uint64_t offset, uint64_t length, bool holes)
{
  enum step step = holes ? STEP_PUNCH : STEP_ZERO_RANGE;
  int r = 0;

  if (length == 0)
    return 0;
  while (step != STEP_END) {
    r = step == STEP_WRITE ? write_zeros (fd, offset, length)
      : allocate (fd, mode_of (step), offset, length);
    step = zero_next (step, holes, &r);
  }
  return r;
}

static void submit_step (struct store_io *io);

static void
step_done (struct ring_op *op, int res)
{
  struct space_io *sio = (struct space_io *) op;
  struct store_io *io = (struct store_io *)
    ((char *) sio - offsetof (struct store_io, priv));
  int error = res < 0 ? -res : 0;

  if (res == -EINTR || res == -EAGAIN || image_finds_room (sio->img, error)) {
    submit_step (io);
    return;
  }
  switch (sio->step) {
  case STEP_DISCARD:
    error = 0;
    sio->step = STEP_END;
    break;
  case STEP_WRITE:
    sio->done += error ? 0 : res;
    if (!error && res == 0)
      error = EIO;              /* the file ends here */
    if (error || sio->done == io->length)
      sio->step = STEP_END;
    break;
  case STEP_CACHE:
    sio->done += CACHE_MAX;
    if (error || sio->done >= io->length)
      sio->step = STEP_END;
    error = 0;
    break;
  default:
    sio->step = zero_next (sio->step, io->op == STORE_FINISH ||
                           (io->flags & STORE_MAY_TRIM), &error);
  }
  if (sio->step == STEP_END) {
    map_forget (sio->img, io->offset, io->length);
    image_done (sio->img, io, error, 0);
  }
  else
    submit_step (io);
}

static void
submit_step (struct store_io *io)
{
  struct space_io *sio = (struct space_io *) &io->priv;
  struct io_uring_sqe *sqe = ring_sqe (io->ring);
  uint64_t offset = sio->img->sb.data_offset + io->offset + sio->done;
  uint64_t left = io->length - sio->done;
  int fd = sio->img->fd;

  if (sio->step == STEP_WRITE)
    io_uring_prep_write (sqe, fd, zeros,
                         left < sizeof zeros ? left : sizeof zeros, offset);
  else if (sio->step == STEP_CACHE)
    io_uring_prep_fadvise (sqe, fd, offset,
                           left < CACHE_MAX ? left : CACHE_MAX,
                           POSIX_FADV_WILLNEED);
  else
    io_uring_prep_fallocate (sqe, fd, mode_of (sio->step), offset, left);
  /* Readahead may wait for the disk, and not all kernels know. */
  if (sio->step == STEP_CACHE)
    io_uring_sqe_set_flags (sqe, IOSQE_ASYNC);
  ring_set_op (io->ring, sqe, &sio->op);
}

void
image_space_submit (struct image *img, struct store_io *io)
{
  struct space_io *sio = (struct space_io *) &io->priv;

  if (io->length == 0) {
    image_done (img, io, 0, 0);
    return;
  }
  sio->op.done = step_done;
  sio->img = img;
  sio->done = 0;
  sio->step = io->op == STORE_CACHE ? STEP_CACHE
    : io->op == STORE_DISCARD ? STEP_DISCARD
    : io->op == STORE_FINISH || (io->flags & STORE_MAY_TRIM) ? STEP_PUNCH
    : STEP_ZERO_RANGE;
  submit_step (io);
}
