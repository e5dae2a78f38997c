/* SPDX-License-Identifier: BSD-3-Clause */
/* The image store: what it keeps over closing, killing and power loss, and
 * that anything wrong with an image is refused, or opened with exactly the
 * right state, and never changed.
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
#include "image-internal.h"
#include "image.h"
#include "size.h"

#define K4 4096u
#define ZONE (64 * K4)
#define ZONES 12
#define SIZE (ZONES * (uint64_t) ZONE)

static char dir[] = "/tmp/znbd-image-XXXXXX";
static char path[64], copy_path[64];
static struct zone_error err;

static struct store_geometry
geometry (void)
{
  struct store_geometry g = STORE_GEOMETRY_DEFAULT;

  g.size = SIZE;
  g.zone_size = ZONE;
  g.zone_capacity = 60 * K4;
  g.conventional = 2;
  return g;
}

static void
create (void)
{
  struct store_geometry g = geometry ();

  unlink (path);
  if (image_create (path, &g, false, &err) == -1)
    fail_msg ("%s", err.text);
}

static struct zdisk *
try_open (const char *file, bool readonly)
{
  struct store *store = image_open (file, readonly, &err);

  return store ? zdisk_new (store, NULL, &err) : NULL;
}

static struct zdisk *
open_disk (const char *file)
{
  struct zdisk *disk = try_open (file, false);

  if (disk == NULL)
    fail_msg ("%s", err.text);
  return disk;
}

static void
close_disk (struct zdisk *disk)
{
  if (zdisk_close (disk, &err) == -1)
    fail_msg ("%s", err.text);
}

static int
run (struct zdisk *disk, enum zdisk_op op, uint64_t offset, uint64_t length,
     void *buf, unsigned flags)
{
  struct zdisk_client *client = zdisk_client_new (disk, false);
  struct zdisk_request req = {
    .op = op, .offset = offset, .length = length, .buf = buf, .flags = flags,
  };
  int r = zdisk_run (client, &req);

  zdisk_client_close (client);
  return r;
}

static void
ok (struct zdisk *disk, enum zdisk_op op, uint64_t offset, uint64_t length,
    void *buf, unsigned flags)
{
  assert_int_equal (run (disk, op, offset, length, buf, flags), 0);
}

static void
fill (struct zdisk *disk, uint32_t zone, unsigned first, unsigned blocks,
      int byte)
{
  uint8_t *buf = malloc (blocks * K4);

  memset (buf, byte, blocks * K4);
  ok (disk, ZDISK_WRITE, zone * ZONE + first * K4, blocks * K4, buf, 0);
  free (buf);
}

static void
assert_zone (struct zdisk *disk, uint32_t i, uint8_t cond, unsigned blocks,
             int byte)
{
  struct znbd_zone z;
  uint8_t *buf = malloc (ZONE);
  unsigned j;

  assert_int_equal (zdisk_report (disk, i, 1, &z), 1);
  if (z.cond != cond ||
      (cond != ZNBD_COND_FULL && z.wp - z.start != blocks * K4))
    fail_msg ("zone %u: condition %s, pointer at %" PRIu64, i,
              znbd_cond_name (z.cond), z.wp - z.start);
  ok (disk, ZDISK_READ, i * ZONE, ZONE, buf, 0);
  for (j = 0; j < ZONE; j++)
    if (buf[j] != (j < blocks * K4 ? byte : 0))
      fail_msg ("zone %u: byte %u is %u", i, j, buf[j]);
  free (buf);
}

/* The file as it is now, sparse. */
static void
copy_file (const char *from, const char *to)
{
  char command[256];

  snprintf (command, sizeof command, "cp --sparse=always %s %s", from, to);
  assert_int_equal (system (command), 0);
}

/* Puts another boot into the commits of an image, as after a reboot. */
static void
reboot (const char *file)
{
  struct image_superblock sb;
  struct image_commit c;
  uint8_t block[IMAGE_BLOCK];
  int fd = open (file, O_RDWR);
  unsigned i, j;

  assert_int_equal (pread (fd, block, sizeof block, 0), sizeof block);
  assert_true (image_decode_superblock (block, &sb));
  for (i = 0; i < IMAGE_COMMIT_SLOTS; i++) {
    off_t at = IMAGE_COMMIT_OFFSET + i * IMAGE_BLOCK;

    assert_int_equal (pread (fd, block, sizeof block, at), sizeof block);
    for (j = 0; j < IMAGE_COMMIT_COPIES; j++) {
      assert_true (image_decode_commit (block + j * IMAGE_SECTOR,
                                        image_seed (sb.uuid), &c));
      c.boot_id[0] ^= 1;
      image_encode_commit (&c, image_seed (sb.uuid),
                           block + j * IMAGE_SECTOR);
    }
    assert_int_equal (pwrite (fd, block, sizeof block, at), sizeof block);
  }
  close (fd);
}

static int
setup (void **state)
{
  (void) state;
  if (mkdtemp (dir) == NULL)
    return -1;
  snprintf (path, sizeof path, "%s/a.zbd", dir);
  snprintf (copy_path, sizeof copy_path, "%s/b.zbd", dir);
  return 0;
}

static int
teardown (void **state)
{
  (void) state;
  unlink (path);
  unlink (copy_path);
  return rmdir (dir);
}

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
  assert_int_equal (image_check (path, stderr, &err), 0);
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
  assert_int_equal (image_check (copy_path, stderr, &err), 0);
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
space_is_freed (void **state)
{
  struct zdisk *disk;
  struct stat before, after;

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 3, 0, 60, 3);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  assert_int_equal (stat (path, &before), 0);
  ok (disk, ZDISK_RESET, 3 * ZONE, ZONE, NULL, 0);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  assert_int_equal (stat (path, &after), 0);
  close_disk (disk);
  /* Less what a record or two takes. */
  assert_true (after.st_blocks + 50 * 8 <= before.st_blocks);
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
  assert_int_equal (image_check (path, stderr, &err), -1);
  close_disk (disk);
  disk = try_open (path, true);
  other = try_open (path, true);
  assert_non_null (disk);
  assert_non_null (other);
  assert_null (try_open (path, false));
  close_disk (disk);
  close_disk (other);
}

static void
overwrite_byte (const char *file, uint64_t at, uint8_t xor)
{
  int fd = open (file, O_RDWR);
  uint8_t b;

  assert_int_equal (pread (fd, &b, 1, at), 1);
  b ^= xor;
  assert_int_equal (pwrite (fd, &b, 1, at), 1);
  close (fd);
}

/* The state that damaged () makes, and that is right or refused. */
static void
assert_state_or_refused (uint64_t at, unsigned *refused)
{
  struct zdisk *disk = try_open (copy_path, true);
  struct znbd_zone z;
  static const struct { uint32_t zone; uint8_t cond; unsigned blocks; }
  expected[] = {
    { 2, ZNBD_COND_CLOSED, 7 }, { 3, ZNBD_COND_FULL, 64 },
    { 4, ZNBD_COND_CLOSED, 3 }, { 5, ZNBD_COND_EMPTY, 0 },
  };
  unsigned i;

  if (disk == NULL) {
    ++*refused;
    assert_true (err.text[0] != '\0');
    return;
  }
  for (i = 0; i < 4; i++) {
    zdisk_report (disk, expected[i].zone, 1, &z);
    if (z.cond != expected[i].cond ||
        z.wp - z.start != expected[i].blocks * K4)
      fail_msg ("byte %" PRIu64 ": zone %u: %s, %" PRIu64, at,
                expected[i].zone, znbd_cond_name (z.cond), z.wp - z.start);
  }
  close_disk (disk);
}

/* Each byte of the metadata in turn; every bit in the long form. */
static void
flip_all (bool killed)
{
  struct zdisk *disk;
  uint64_t at, end;
  unsigned refused = 0, flips = 0;
  bool longer = getenv ("ZNBD_LONG") != NULL;

  create ();
  disk = open_disk (path);
  fill (disk, 2, 0, 6, 2);
  fill (disk, 3, 0, 60, 3);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 2, 6, 1, 2);
  fill (disk, 4, 0, 3, 4);
  fill (disk, 5, 0, 3, 5);
  ok (disk, ZDISK_RESET, 5 * ZONE, ZONE, NULL, 0);
  if (!killed)
    close_disk (disk);
  copy_file (path, copy_path);
  if (killed)
    close_disk (disk);

  end = IMAGE_VOLATILE_OFFSET + 3 * IMAGE_BLOCK;
  for (at = 0; at < end; at++) {
    unsigned bit = longer ? 0 : at % 8, last = longer ? 7 : bit;

    /* The long empty stretches, a sample. */
    if (!longer && at % IMAGE_BLOCK > 512 && at % 61 != 0)
      continue;
    for (; bit <= last; bit++) {
      overwrite_byte (copy_path, at, 1u << bit);
      assert_state_or_refused (at, &refused);
      overwrite_byte (copy_path, at, 1u << bit);
      flips++;
    }
  }
  print_message ("# %u flips, %u refused\n", flips, refused);
  assert_true (refused < flips);
  refused = 0;
  assert_state_or_refused (0, &refused);        /* as it was */
  assert_int_equal (refused, 0);
}

static void
flips_of_a_closed_image (void **state)
{
  (void) state;
  flip_all (false);
}

static void
flips_of_a_killed_image (void **state)
{
  (void) state;
  flip_all (true);
}

/* One damaged record in force is made again from the parity. */
static void
reconstructs (void **state)
{
  struct image_superblock sb;
  struct zdisk *disk;
  uint8_t block[IMAGE_BLOCK];
  unsigned table;
  int fd;

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 2, 0, 6, 2);
  fill (disk, 3, 0, 9, 3);
  close_disk (disk);
  fd = open (path, O_RDONLY);
  assert_int_equal (pread (fd, block, sizeof block, 0), sizeof block);
  close (fd);
  assert_true (image_decode_superblock (block, &sb));
  for (table = 0; table < 2; table++)   /* one of them is in force */
    overwrite_byte (path, sb.table_offset[table] + 3 * 32 + 20, 0x10);
  assert_true (image_check (path, stderr, &err) > 0);
  disk = open_disk (path);
  assert_zone (disk, 3, ZNBD_COND_CLOSED, 9, 3);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 6, 2);
  close_disk (disk);
  assert_int_equal (image_check (path, stderr, &err), 0);
  /* Two are too many. */
  for (table = 0; table < 2; table++) {
    overwrite_byte (path, sb.table_offset[table] + 2 * 32 + 20, 0x10);
    overwrite_byte (path, sb.table_offset[table] + 3 * 32 + 20, 0x10);
  }
  assert_null (try_open (path, false));
}

static void
foreign_and_newer (void **state)
{
  uint8_t block[IMAGE_BLOCK] = { 0 };
  struct stat st;
  int fd, i;

  (void) state;
  create ();
  assert_int_equal (stat (path, &st), 0);
  assert_int_equal (truncate (path, st.st_size - 1), 0);
  assert_null (try_open (path, false));
  assert_non_null (strstr (err.text, "truncated"));
  assert_int_equal (truncate (path, 100), 0);
  assert_null (try_open (path, false));
  assert_int_equal (truncate (path, 0), 0);
  assert_null (try_open (path, false));
  assert_non_null (strstr (err.text, "not a znbd image"));

  create ();
  fd = open (path, O_RDWR);
  for (i = 0; i < IMAGE_SUPERBLOCKS; i++) {
    assert_int_equal (pread (fd, block, sizeof block, i * IMAGE_BLOCK),
                      sizeof block);
    block[8] = 2;
    assert_int_equal (pwrite (fd, block, sizeof block, i * IMAGE_BLOCK),
                      sizeof block);
  }
  close (fd);
  assert_null (try_open (path, false));
  assert_int_equal (err.num, ENOTSUP);
  assert_non_null (strstr (err.text, "version 2"));
}

/* Any half of one image in the place of another's. */
static void
mixed_halves (void **state)
{
  struct zdisk *disk;
  uint64_t cut, end = IMAGE_VOLATILE_OFFSET + 3 * IMAGE_BLOCK;
  uint8_t a[IMAGE_VOLATILE_OFFSET + 3 * IMAGE_BLOCK], b[sizeof a];
  int fd;

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 2, 0, 7, 2);
  close_disk (disk);
  copy_file (path, copy_path);
  create ();
  disk = open_disk (path);
  fill (disk, 3, 0, 7, 2);
  close_disk (disk);
  fd = open (path, O_RDONLY);
  assert_int_equal (pread (fd, a, end, 0), (ssize_t) end);
  close (fd);
  fd = open (copy_path, O_RDWR);
  assert_int_equal (pread (fd, b, end, 0), (ssize_t) end);
  for (cut = IMAGE_BLOCK; cut < end; cut += IMAGE_BLOCK) {
    assert_int_equal (pwrite (fd, a, cut, 0), (ssize_t) cut);
    if (memcmp (a + cut, b + cut, end - cut) != 0)
      assert_null (try_open (copy_path, false));
    assert_int_equal (pwrite (fd, b, end, 0), (ssize_t) end);
  }
  close (fd);
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
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
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
  assert_int_equal (image_check (copy_path, stderr, &err), 0);
  disk = open_disk (copy_path);
  assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
  assert_zone (disk, 4, ZNBD_COND_CLOSED, 2, 4);
  close_disk (disk);
}

/* One superblock is enough, and opening for writing mends the other. */
static void
superblock_copy (void **state)
{
  struct zdisk *disk;
  unsigned i;

  (void) state;
  for (i = 0; i < IMAGE_SUPERBLOCKS; i++) {
    create ();
    overwrite_byte (path, i * IMAGE_BLOCK + 40, 1);
    assert_int_equal (image_check (path, stderr, &err), 1);
    disk = open_disk (path);
    close_disk (disk);
    assert_int_equal (image_check (path, stderr, &err), 0);
  }
}

/* Refusing changes nothing. */
static void
refused_is_untouched (void **state)
{
  uint8_t commits[2 * IMAGE_BLOCK];
  struct zdisk *disk;
  char command[256];
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
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 2, 9, 2, 2);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  close_disk (disk);
  /* Commits of an older moment: their records are gone, newer are there. */
  assert_int_equal (pwrite (fd, commits, sizeof commits,
                            IMAGE_COMMIT_OFFSET), sizeof commits);
  close (fd);
  copy_file (path, copy_path);
  assert_null (try_open (path, false));
  snprintf (command, sizeof command, "cmp %s %s", path, copy_path);
  assert_int_equal (system (command), 0);
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
  assert_int_equal (image_check (path, stderr, &err), 0);

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
    cmocka_unit_test (space_is_freed),
    cmocka_unit_test (locks),
    cmocka_unit_test (flips_of_a_closed_image),
    cmocka_unit_test (flips_of_a_killed_image),
    cmocka_unit_test (reconstructs),
    cmocka_unit_test (foreign_and_newer),
    cmocka_unit_test (mixed_halves),
    cmocka_unit_test (unfinished_commit),
    cmocka_unit_test (superblock_copy),
    cmocka_unit_test (refused_is_untouched),
    cmocka_unit_test (failed_sync),
    cmocka_unit_test (truncated_while_open),
    cmocka_unit_test (creation),
    cmocka_unit_test (on_ring),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
