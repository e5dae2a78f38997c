/* SPDX-License-Identifier: BSD-3-Clause */
/* The image store: what it keeps over closing, killing and power loss.
 *
 * A kill is the file as it is in the page cache while the disk is open: a
 * copy of it.  A power loss is the same with another boot id in its commit,
 * which makes the volatile pointers count for nothing.
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
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk.h"
#include "image-disk.h"
#include "image-internal.h"
#include "image.h"

static void
keeps_over_closing (void **state)
{
  struct zdisk *disk;
  uint64_t epoch;

  (void) state;
  create ();
  disk = open_disk (path);
  epoch = zdisk_geometry (disk)->epoch;
  fill (disk, 0, 3, 1, 9);              /* conventional */
  fill (disk, 2, 0, 7, 2);
  fill (disk, 3, 0, 60, 3);
  fill (disk, 4, 0, 5, 4);
  ok (disk, ZDISK_FINISH, 4 * ZONE, ZONE, NULL, 0);
  ok (disk, ZDISK_OPEN, 5 * ZONE, ZONE, NULL, 0);
  fill (disk, 6, 0, 5, 6);
  ok (disk, ZDISK_RESET, 6 * ZONE, ZONE, NULL, 0);
  fill (disk, 7, 0, 5, 7);
  ok (disk, ZDISK_RESET, 7 * ZONE, ZONE, NULL, 0);
  fill (disk, 7, 0, 2, 8);
  close_disk (disk);

  disk = open_disk (path);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 7, 2);
  assert_zone (disk, 3, ZNBD_COND_FULL, 60, 3);
  assert_zone (disk, 4, ZNBD_COND_FULL, 5, 4);
  assert_zone (disk, 5, ZNBD_COND_EMPTY, 0, 0);
  assert_zone (disk, 6, ZNBD_COND_EMPTY, 0, 0);
  assert_zone (disk, 7, ZNBD_COND_CLOSED, 2, 8);
  assert_int_equal (zdisk_geometry (disk)->epoch, epoch);
  close_disk (disk);
  assert_int_equal (image_check (path, false, stderr, &err), 0);
}

/* What was answered but never flushed. */
static void
keeps_over_a_kill (void **state)
{
  struct zdisk *disk;
  unsigned again;
  uint64_t epoch;

  (void) state;
  create ();
  disk = open_disk (path);
  epoch = zdisk_geometry (disk)->epoch;
  fill (disk, 2, 0, 7, 2);
  fill (disk, 3, 0, 60, 3);
  fill (disk, 4, 0, 4, 4);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 2, 7, 1, 2);
  ok (disk, ZDISK_RESET, 3 * ZONE, ZONE, NULL, 0);
  ok (disk, ZDISK_FINISH, 4 * ZONE, ZONE, NULL, 0);
  copy_file (path, copy_path);
  close_disk (disk);

  /* Read-only first, which mends nothing; then killed once more. */
  disk = try_open (copy_path, true);
  assert_non_null (disk);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 8, 2);
  assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
  close_disk (disk);
  for (again = 0; again < 2; again++) {
    disk = open_disk (copy_path);
    assert_zone (disk, 2, ZNBD_COND_CLOSED, 8, 2);
    assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
    assert_zone (disk, 4, ZNBD_COND_FULL, 4, 4);
    assert_int_equal (zdisk_geometry (disk)->epoch, epoch);
    copy_file (copy_path, path);
    close_disk (disk);
    copy_file (path, copy_path);
  }
}

static void
power_loss (void **state)
{
  struct zdisk *disk;
  uint64_t epoch;

  (void) state;
  create ();
  disk = open_disk (path);
  epoch = zdisk_geometry (disk)->epoch;
  fill (disk, 2, 0, 7, 2);
  fill (disk, 3, 0, 60, 3);
  fill (disk, 4, 0, 4, 4);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 2, 7, 1, 2);              /* not flushed: lost */
  fill (disk, 5, 0, 1, 5);
  ok (disk, ZDISK_RESET, 3 * ZONE, ZONE, NULL, 0);
  copy_file (path, copy_path);
  reboot (copy_path);

  /* A write with FUA, and a reset that is flushed, are not. */
  {
    uint8_t b[K4] = { 1 };

    ok (disk, ZDISK_WRITE, 6 * ZONE, K4, b, ZDISK_FUA);
    ok (disk, ZDISK_RESET, 4 * ZONE, ZONE, NULL, ZDISK_FUA);
  }
  close_disk (disk);

  disk = open_disk (copy_path);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 7, 2);
  assert_zone (disk, 3, ZNBD_COND_FULL, 60, 3);
  assert_zone (disk, 4, ZNBD_COND_CLOSED, 4, 4);
  assert_zone (disk, 5, ZNBD_COND_EMPTY, 0, 0);
  assert_int_equal (zdisk_geometry (disk)->epoch, epoch + 1);
  /* It goes on from there. */
  fill (disk, 2, 7, 1, 2);
  close_disk (disk);
  assert_int_equal (image_check (copy_path, false, stderr, &err), 0);
}

static void
fua_is_durable (void **state)
{
  struct zdisk *disk;
  uint8_t b[K4];

  (void) state;
  create ();
  memset (b, 6, sizeof b);
  disk = open_disk (path);
  fill (disk, 4, 0, 4, 4);
  ok (disk, ZDISK_WRITE, 6 * ZONE, K4, b, ZDISK_FUA);
  ok (disk, ZDISK_RESET, 4 * ZONE, ZONE, NULL, ZDISK_FUA);
  copy_file (path, copy_path);
  reboot (copy_path);
  close_disk (disk);
  disk = open_disk (copy_path);
  assert_zone (disk, 6, ZNBD_COND_CLOSED, 1, 6);
  assert_zone (disk, 4, ZNBD_COND_EMPTY, 0, 0);
  close_disk (disk);
}

/* A zone that was reset and written again without a flush between: the
 * reset's commit has to come first, or the old pointer would cover new
 * data. */
static void
rewritten_zone (void **state)
{
  struct zdisk *disk;

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 3, 0, 20, 3);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  ok (disk, ZDISK_RESET, 3 * ZONE, ZONE, NULL, 0);
  fill (disk, 3, 0, 5, 4);
  copy_file (path, copy_path);
  reboot (copy_path);
  close_disk (disk);
  disk = open_disk (copy_path);
  assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
  close_disk (disk);
}

static void
locks (void **state)
{
  struct zdisk *disk, *other;

  (void) state;
  create ();
  disk = open_disk (path);
  assert_null (try_open (path, false));
  assert_int_equal (err.num, EBUSY);
  assert_null (try_open (path, true));
  assert_int_equal (image_check (path, false, stderr, &err), -1);
  close_disk (disk);
  disk = try_open (path, true);
  other = try_open (path, true);
  assert_non_null (disk);
  assert_non_null (other);
  assert_null (try_open (path, false));
  close_disk (disk);
  close_disk (other);
}

/* A round that never became a commit leaves newer records: they must not
 * be taken for a later commit's. */
static void
unfinished_commit (void **state)
{
  uint8_t commits[2 * IMAGE_BLOCK];
  struct zdisk *disk;
  int fd;

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 2, 0, 7, 2);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fd = open (path, O_RDWR);
  assert_int_equal (pread (fd, commits, sizeof commits,
                           IMAGE_COMMIT_OFFSET), sizeof commits);
  fill (disk, 2, 7, 2, 2);
  fill (disk, 3, 0, 2, 3);
  commit (disk);
  copy_file (path, copy_path);
  close (fd);
  close_disk (disk);

  fd = open (copy_path, O_RDWR);
  assert_int_equal (pwrite (fd, commits, sizeof commits,
                            IMAGE_COMMIT_OFFSET), sizeof commits);
  close (fd);
  reboot (copy_path);
  disk = open_disk (copy_path);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 7, 2);
  assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
  fill (disk, 4, 0, 1, 4);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 4, 1, 1, 4);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  close_disk (disk);
  assert_int_equal (image_check (copy_path, false, stderr, &err), 0);
  disk = open_disk (copy_path);
  assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
  assert_zone (disk, 4, ZNBD_COND_CLOSED, 2, 4);
  close_disk (disk);
}

/* After a sync that failed the next opening trusts only what is durable. */
static void
failed_sync (void **state)
{
  struct zdisk *disk;
  uint64_t epoch;
  uint8_t b[K4] = { 1 };
  struct stat st;
  int fd;

  (void) state;
  create ();
  disk = open_disk (path);
  epoch = zdisk_geometry (disk)->epoch;
  fill (disk, 2, 0, 1, 2);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 2, 1, 1, 2);
  /* What makes it fail here is mended before the next opening. */
  assert_int_equal (stat (path, &st), 0);
  fd = open (path, O_RDWR);
  assert_int_equal (ftruncate (fd, st.st_size - 1), 0);
  assert_int_equal (run (disk, ZDISK_FLUSH, 0, 0, NULL, 0), EIO);
  assert_int_equal (ftruncate (fd, st.st_size), 0);
  close (fd);
  assert_int_equal (run (disk, ZDISK_WRITE, 3 * ZONE, K4, b, 0), EIO);
  assert_int_equal (zdisk_close (disk, &err), -1);
  disk = open_disk (path);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 1, 2);
  assert_int_equal (zdisk_geometry (disk)->epoch, epoch + 1);
  close_disk (disk);
}

/* The file is cut off below an open disk: an error, not a dead server. */
static void
truncated_while_open (void **state)
{
  struct zdisk *disk;
  uint8_t b[K4] = { 1 };

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 2, 0, 1, 2);
  assert_int_equal (truncate (path, 0), 0);
  run (disk, ZDISK_WRITE, 2 * ZONE + K4, K4, b, 0);
  assert_int_equal (run (disk, ZDISK_FLUSH, 0, 0, NULL, 0), EIO);
  assert_int_equal (run (disk, ZDISK_WRITE, 3 * ZONE, K4, b, 0), EIO);
  assert_int_equal (zdisk_close (disk, &err), -1);
}

static void
creation (void **state)
{
  struct store_geometry g = geometry ();
  struct zdisk *disk;
  struct znbd_zone z;

  (void) state;
  create ();
  assert_int_equal (image_create (path, &g, false, &err), -1);
  assert_int_equal (err.num, EEXIST);
  disk = open_disk (path);
  assert_int_equal (image_create (path, &g, true, &err), -1);
  assert_int_equal (err.num, EBUSY);
  close_disk (disk);
  g.readonly_zones = "3,0";
  g.offline_zones = "4-5";
  assert_int_equal (image_create (path, &g, true, &err), 0);
  disk = open_disk (path);
  zdisk_report (disk, 3, 1, &z);
  assert_int_equal (z.cond, ZNBD_COND_READ_ONLY);
  zdisk_report (disk, 5, 1, &z);
  assert_int_equal (z.cond, ZNBD_COND_OFFLINE);
  close_disk (disk);
  assert_int_equal (image_check (path, false, stderr, &err), 0);

  unlink (path);
  g.zone_capacity = 2 * ZONE;
  assert_int_equal (image_create (path, &g, false, &err), -1);
  assert_int_equal (access (path, F_OK), -1);
  g = geometry ();
  g.size = INT64_MAX / K4 * K4;
  g.zone_size = UINT64_C (1) << 50;
  assert_int_equal (image_create (path, &g, false, &err), -1);
  assert_int_equal (access (path, F_OK), -1);
}

static _Atomic unsigned ring_left;

static void
on_ring_done (struct zdisk_request *req)
{
  (void) req;
  ring_left--;
}

/* Reads and writes through an io_uring that the test owns. */
static void
on_ring (void **state)
{
  static struct zdisk_request reqs[16];
  static uint8_t data[16][K4], back[16][K4];
  struct zdisk_client *client;
  struct zdisk *disk;
  struct ring ring;
  unsigned i, phase;

  (void) state;
  if (ring_init (&ring, 8, &err) == -1)
    skip ();
  create ();
  disk = open_disk (path);
  client = zdisk_client_new (disk, false);
  for (phase = 0; phase < 2; phase++) {
    for (i = 0; i < 16; i++) {
      memset (data[i], i + 1, K4);
      memset (&reqs[i], 0, sizeof reqs[i]);
      reqs[i].op = phase == 0 ? ZDISK_WRITE : ZDISK_READ;
      /* Out of order, the last with FUA. */
      reqs[i].offset = 2 * ZONE + (i ^ 3) * K4;
      reqs[i].length = K4;
      reqs[i].buf = phase == 0 ? data[i ^ 3] : back[i ^ 3];
      reqs[i].flags = i == 15 ? ZDISK_FUA : 0;
      reqs[i].done = on_ring_done;
    }
    ring_left = 16;
    for (i = 0; i < 16; i++)
      zdisk_submit (client, &reqs[i], &ring);
    while (ring_left > 0)
      assert_true (ring_run (&ring, ring.in_flight > 0) >= 0);
    for (i = 0; i < 16; i++)
      assert_int_equal (reqs[i].error, 0);
  }
  assert_memory_equal (data, back, sizeof data);
  zdisk_client_close (client);
  close_disk (disk);
  ring_free (&ring);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (keeps_over_closing),
    cmocka_unit_test (keeps_over_a_kill),
    cmocka_unit_test (power_loss),
    cmocka_unit_test (fua_is_durable),
    cmocka_unit_test (rewritten_zone),
    cmocka_unit_test (locks),
    cmocka_unit_test (unfinished_commit),
    cmocka_unit_test (failed_sync),
    cmocka_unit_test (truncated_while_open),
    cmocka_unit_test (creation),
    cmocka_unit_test (on_ring),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
