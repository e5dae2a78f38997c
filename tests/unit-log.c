/* SPDX-License-Identifier: BSD-3-Clause */
/* Entries of an image's log when things go wrong beside them: a page that the
 * kernel could not write and gave up, a file system without space, a timer
 * that comes late.  System calls are wrapped by the linker (see Makefile.am)
 * and fail as those of a kernel do.
 *
 * A power loss is a copy of the file with another boot id: everything that
 * was written has reached the disk.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk.h"
#include "image-disk.h"
#include "image-internal.h"
#include "image.h"

#define WRAPPED(type, name, ...)        \
  type __real_##name (__VA_ARGS__);     \
  type __wrap_##name (__VA_ARGS__)

WRAPPED (int, fdatasync, int);
WRAPPED (bool, image_forgets, int);
WRAPPED (int, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *,
         const struct timespec *);
WRAPPED (ssize_t, pwrite, int, const void *, size_t, off_t);
WRAPPED (ssize_t, pwritev2, int, const struct iovec *, int, off_t, int);
WRAPPED (int, sync_file_range, int, off_t, off_t, unsigned);

/* Where /tmp is a tmpfs, too. */
bool
__wrap_image_forgets (int fd)
{
  (void) fd;
  return false;
}

/* The kernel could not write something, and has not yet told so: it tells
 * once. */
static int untold;

static int
told (void)
{
  if (untold == 0)
    return 0;
  errno = untold;
  untold = 0;
  return -1;
}

int
__wrap_fdatasync (int fd)
{
  return told () ? -1 : __real_fdatasync (fd);
}

int
__wrap_sync_file_range (int fd, off_t offset, off_t length, unsigned flags)
{
  return told () ? -1 : __real_sync_file_range (fd, offset, length, flags);
}

/* What is to be durable is written before it fails. */
ssize_t
__wrap_pwritev2 (int fd, const struct iovec *iov, int n, off_t offset,
                 int flags)
{
  ssize_t r = __real_pwritev2 (fd, iov, n, offset, flags & ~RWF_DSYNC);

  if (r == -1 || !(flags & RWF_DSYNC))
    return r;
  return __wrap_fdatasync (fd) == -1 ? -1 : r;
}

/* No space from no_space_at on, for so many bytes. */
static off_t no_space_at, no_space_length;
static unsigned refused;

ssize_t
__wrap_pwrite (int fd, const void *buf, size_t length, off_t offset)
{
  if (offset >= no_space_at && offset < no_space_at + no_space_length) {
    refused++;
    errno = ENOSPC;
    return -1;
  }
  return __real_pwrite (fd, buf, length, offset);
}

/* Called in place of waiting, which is over then. */
static void (*instead) (void);

int
__wrap_pthread_cond_timedwait (pthread_cond_t *cond, pthread_mutex_t *mutex,
                               const struct timespec *until)
{
  if (instead == NULL)
    return __real_pthread_cond_timedwait (cond, mutex, until);
  pthread_mutex_unlock (mutex);
  instead ();
  pthread_mutex_lock (mutex);
  return ETIMEDOUT;
}

static struct image *image;
static struct zdisk *disk;

/* A disk with two blocks in zone 2, the last of them an entry of the log. */
static void
open_with_log (void)
{
  struct store *store;

  create ();
  store = image_open (path, false, &err);
  disk = store ? zdisk_new (store, NULL, &err) : NULL;
  if (disk == NULL)
    fail_msg ("%s", err.text);
  image = image_of (store);
  fill (disk, 2, 0, 1, 2);
  commit (disk);
  fill (disk, 2, 1, 1, 2);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  assert_int_equal (image->log.number, 1);
}

static struct zdisk *
after_power_loss (void)
{
  copy_file (path, copy_path);
  reboot (copy_path);
  return open_disk (copy_path);
}

/* Data that waits for its flush could not be written, and its page is gone:
 * what is read of it now is what the disk had before.  The flush fails, and
 * nothing has come into the log that an opening would take for data. */
static void
page_that_is_gone (void **state)
{
  static const int errors[] = { EIO, ENOSPC, EDQUOT };
  const uint8_t before[K4] = { 0 };
  struct zdisk *again;
  unsigned i;
  int fd;

  (void) state;
  for (i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    open_with_log ();
    fill (disk, 2, 2, 1, 2);
    fd = open (path, O_RDWR);
    assert_int_equal (pwrite (fd, before, K4, image->sb.data_offset +
                              2 * ZONE + 2 * K4), K4);
    close (fd);
    untold = errors[i];
    assert_int_not_equal (run (disk, ZDISK_FLUSH, 0, 0, NULL, 0), 0);
    again = after_power_loss ();
    assert_zone (again, 2, ZNBD_COND_CLOSED, 2, 2);
    close_disk (again);
    assert_int_equal (zdisk_close (disk, &err), -1);
  }
}

static _Atomic unsigned left;

static void
on_done (struct zdisk_request *req)
{
  (void) req;
  left--;
}

/* A write with FUA, as an event loop makes it. */
static void
write_on_ring (struct ring *ring, unsigned block)
{
  struct zdisk_client *client = zdisk_client_new (disk, false);
  uint8_t buf[K4];
  struct zdisk_request req = {
    .op = ZDISK_WRITE, .offset = 2 * ZONE + block * K4, .length = K4,
    .buf = buf, .flags = ZDISK_FUA, .done = on_done,
  };

  memset (buf, 2, sizeof buf);
  left = 1;
  zdisk_submit (client, &req, ring);
  while (left > 0)
    assert_true (ring_run (ring, ring->in_flight > 0) >= 0);
  assert_int_equal (req.error, 0);
  zdisk_client_close (client);
}

/* A file system that copies what is written over has no space for the log:
 * it becomes a commit, and nobody's request fails. */
static void
log_without_space (void **state)
{
  struct ring ring;
  struct zdisk *again;
  uint64_t commits;

  (void) state;
  if (ring_init (&ring, 8, &err) == -1)
    skip ();
  open_with_log ();
  write_on_ring (&ring, 2);
  assert_int_equal (image->log.number, 2);
  commits = image->commit.number;
  no_space_at = image->sb.log_offset;
  no_space_length = image->sb.log_size;
  write_on_ring (&ring, 3);
  assert_int_equal (refused, 1);
  assert_int_equal (image->commit.number, commits + 1);
  again = after_power_loss ();
  assert_zone (again, 2, ZNBD_COND_CLOSED, 4, 2);
  close_disk (again);
  /* Nor does anybody's after it, and the log is not tried again. */
  write_on_ring (&ring, 4);
  assert_int_equal (refused, 1);
  again = after_power_loss ();
  assert_zone (again, 2, ZNBD_COND_CLOSED, 5, 2);
  close_disk (again);
  no_space_length = 0;
  close_disk (disk);
  ring_free (&ring);
}

#define FLUSHES 8
static struct flush {
  struct store_io io;
  unsigned answers;
} flushes[FLUSHES];
static struct ring early, other;

static void
on_flushed (struct store_io *io, int error, uint64_t bytes)
{
  (void) bytes;
  assert_int_equal (error, 0);
  ((struct flush *) io)->answers++;
}

static void
join (unsigned i, struct ring *ring)
{
  flushes[i].io = (struct store_io) {
    .op = STORE_FLUSH, .ring = ring, .done = on_flushed,
  };
  flushes[i].answers = 0;
  commit_join (image, &flushes[i].io);
}

static void
run_ring (struct ring *ring)
{
  while (ring->in_flight > 0)
    assert_true (ring_run (ring, true) >= 0);
}

static void
assert_answers (unsigned first, unsigned n)
{
  unsigned i;

  for (i = first; i < first + n; i++)
    assert_int_equal (flushes[i].answers, 1);
}

static unsigned gathered;       /* by a thread */

/* The early timer ends, while a thread gathers. */
static void
early_timer (void)
{
  gathered++;
  assert_int_equal (early.in_flight, 1);
  while (ring_run (&early, true) == 0)
    ;
}

/* A loop sets a timer to gather writers; another one brings the last of them,
 * and its round ends long before the timer.  When that comes, a thread gathers
 * for the next round: it is not the timer's to begin, or two would lead it,
 * and answer twice. */
static void
timer_that_is_late (void **state)
{
  unsigned i;

  (void) state;
  if (ring_init (&early, 8, &err) == -1)
    skip ();
  assert_int_equal (ring_init (&other, 8, &err), 0);
  open_with_log ();

  /* So the next round waits for four. */
  fill (disk, 2, 2, 1, 2);
  for (i = 0; i < FLUSHES; i++)
    join (i, &early);
  run_ring (&early);
  assert_answers (0, FLUSHES);
  assert_int_equal (image->nexpected, FLUSHES / 2);

  fill (disk, 2, 3, 1, 2);
  for (i = 0; i < 3; i++)
    join (i, &early);
  assert_non_null (image->gathering);
  join (3, &other);
  assert_null (image->gathering);
  run_ring (&other);
  assert_answers (0, 4);

  fill (disk, 2, 4, 1, 2);
  instead = early_timer;
  join (4, NULL);
  instead = NULL;
  assert_int_equal (gathered, 1);
  run_ring (&early);
  assert_answers (0, 5);

  close_disk (disk);
  ring_free (&early);
  ring_free (&other);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (page_that_is_gone),
    cmocka_unit_test (log_without_space),
    cmocka_unit_test (timer_that_is_late),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
