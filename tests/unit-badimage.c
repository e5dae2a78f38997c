/* SPDX-License-Identifier: BSD-3-Clause */
/* The image store and images that are not as it left them: damaged, cut off,
 * mixed.  Each is refused, or opened with exactly the right state, and never
 * changed by being refused; and repairs change no state.
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

#include "image-disk.h"
#include "version-1.h"

/* Superblocks to tables, of which each is one block. */
#define HEAD (IMAGE_VOLATILE_OFFSET + 3 * IMAGE_BLOCK)

static FILE *nowhere;

static void
read_head (const char *file, uint8_t *buf, size_t length)
{
  int fd = open (file, O_RDONLY);

  assert_int_equal (pread (fd, buf, length, 0), (ssize_t) length);
  close (fd);
}

static void
write_head (const char *file, const uint8_t *buf, size_t length)
{
  int fd = open (file, O_WRONLY);

  assert_int_equal (pwrite (fd, buf, length, 0), (ssize_t) length);
  close (fd);
}

/* What is refused to a reader is to a writer and to a repair, and neither
 * changes it. */
static void
assert_untouched (void)
{
  uint8_t before[HEAD], after[HEAD];

  read_head (copy_path, before, HEAD);
  assert_null (try_open (copy_path, false));
  assert_int_equal (image_check (copy_path, true, nowhere, &err), -1);
  read_head (copy_path, after, HEAD);
  assert_memory_equal (before, after, HEAD);
}

/* The state that flip_all makes, and that is right or refused. */
static bool
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
    assert_untouched ();
    return false;
  }
  for (i = 0; i < 4; i++) {
    zdisk_report (disk, expected[i].zone, 1, &z);
    if (z.cond != expected[i].cond ||
        z.wp - z.start != expected[i].blocks * K4)
      fail_msg ("byte %" PRIu64 ": zone %u: %s, %" PRIu64, at,
                expected[i].zone, znbd_cond_name (z.cond), z.wp - z.start);
  }
  close_disk (disk);
  return true;
}

static void
assert_repaired (void)
{
  unsigned refused = 0;

  assert_int_equal (image_check (copy_path, true, nowhere, &err), 0);
  assert_int_equal (image_check (copy_path, false, nowhere, &err), 0);
  assert_state_or_refused (0, &refused);
  assert_int_equal (refused, 0);
}

/* Each byte of the metadata in turn; every bit in the long form.  Some are
 * repaired, too. */
static void
flip_all (bool killed)
{
  struct zdisk *disk;
  uint8_t head[HEAD];
  uint64_t at;
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

  read_head (copy_path, head, sizeof head);
  for (at = 0; at < HEAD; at++) {
    unsigned bit = longer ? 0 : at % 8, last = longer ? 7 : bit;

    /* The long empty stretches, a sample. */
    if (!longer && at % IMAGE_BLOCK > 512 && at % 61 != 0)
      continue;
    for (; bit <= last; bit++) {
      overwrite_byte (copy_path, at, 1u << bit);
      if (assert_state_or_refused (at, &refused) && at % 17 == 0)
        assert_repaired ();
      overwrite_byte (copy_path, at, 1u << bit);
      if (at % 17 == 0)
        write_head (copy_path, head, sizeof head);
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
  assert_true (image_check (path, false, nowhere, &err) > 0);
  disk = open_disk (path);
  assert_zone (disk, 3, ZNBD_COND_CLOSED, 9, 3);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 6, 2);
  close_disk (disk);
  assert_int_equal (image_check (path, false, nowhere, &err), 0);
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
  size_t said_size;
  struct stat st;
  char *said;
  FILE *out;
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
    block[8] = IMAGE_VERSION + 1;
    assert_int_equal (pwrite (fd, block, sizeof block, i * IMAGE_BLOCK),
                      sizeof block);
  }
  assert_null (try_open (path, false));
  assert_int_equal (err.num, ENOTSUP);
  assert_non_null (strstr (err.text, "version 3"));
  assert_non_null (strstr (err.text, "newer"));
  out = open_memstream (&said, &said_size);
  assert_int_equal (image_check (path, false, out, &err), -1);
  fclose (out);
  assert_string_equal (said, "");       /* not that it is damaged */
  free (said);
  /* Damage, and no older version. */
  for (i = 0; i < IMAGE_SUPERBLOCKS; i++)
    overwrite_byte (path, i * IMAGE_BLOCK + 8, (IMAGE_VERSION + 1) ^ 1);
  assert_null (try_open (path, false));
  assert_non_null (strstr (err.text, "superblocks are damaged"));
  close (fd);
}

/* One of an earlier znbd is served as it was by that, and stays one. */
static void
version_1 (void **state)
{
  struct image_superblock before, after;
  uint8_t head[2 * IMAGE_BLOCK];
  struct zdisk *disk;

  (void) state;
  create ();
  assert_true (make_version_1 (path));
  read_head (path, head, sizeof head);
  assert_true (image_decode_superblock (head, &before));
  assert_int_equal (before.version, 1);
  assert_int_equal (before.data_offset, 1 << 20);
  disk = open_disk (path);
  fill (disk, 1, 3, 2, 7);      /* conventional */
  fill (disk, 2, 0, 2, 2);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 2, 2, 1, 2);
  copy_file (path, copy_path);
  close_disk (disk);

  disk = open_disk (copy_path); /* killed */
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 3, 2);
  close_disk (disk);
  copy_file (path, copy_path);
  disk = open_disk (copy_path);
  fill (disk, 3, 0, 1, 3);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 3, 1, 1, 3);
  copy_file (copy_path, path);
  close_disk (disk);
  reboot (path);                /* and the power lost */
  disk = open_disk (path);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 3, 2);
  assert_zone (disk, 3, ZNBD_COND_CLOSED, 1, 3);
  close_disk (disk);

  overwrite_byte (path, 40, 1);
  assert_int_equal (image_check (path, true, nowhere, &err), 0);
  read_head (path, head, sizeof head);
  assert_true (image_decode_superblock (head, &after));
  assert_memory_equal (&before, &after, sizeof after);
}

/* Shorter and shorter, by a record each time where there are records. */
static void
truncations (void **state)
{
  uint8_t before[HEAD], after[HEAD];
  struct zdisk *disk;
  struct stat st;
  uint64_t at;
  int fd;

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 2, 0, 7, 2);
  close_disk (disk);
  copy_file (path, copy_path);
  read_head (path, before, HEAD);
  assert_int_equal (stat (path, &st), 0);
  fd = open (copy_path, O_RDWR);
  for (at = st.st_size; at > 0; ) {
    at -= at > HEAD + ZONE ? ZONE : at > HEAD ? at - HEAD
      : at > IMAGE_VOLATILE_OFFSET + IMAGE_BLOCK ? 32 : IMAGE_SECTOR;
    assert_int_equal (ftruncate (fd, at), 0);
    assert_null (try_open (copy_path, true));
    assert_non_null (strstr (err.text, at == 0 ? "not a znbd image"
                             : at < IMAGE_BLOCK ? "not a znbd image"
                             : "truncated"));
    assert_null (try_open (copy_path, false));
    assert_int_equal (image_check (copy_path, true, nowhere, &err), -1);
    assert_int_equal (fstat (fd, &st), 0);
    assert_int_equal (st.st_size, at);
    if (at <= HEAD) {
      assert_int_equal (pread (fd, after, HEAD, 0), at);
      assert_memory_equal (before, after, at);
    }
  }
  close (fd);
}

/* Any half of one image in the place of another's, sector by sector. */
static void
mixed_halves (void **state)
{
  struct zdisk *disk;
  uint8_t a[HEAD], b[HEAD];
  uint64_t cut;

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
  read_head (path, a, sizeof a);
  read_head (copy_path, b, sizeof b);
  for (cut = IMAGE_SECTOR; cut < HEAD; cut += IMAGE_SECTOR) {
    write_head (copy_path, a, cut);
    if (memcmp (a + cut, b + cut, HEAD - cut) != 0) {
      assert_null (try_open (copy_path, true));
      assert_untouched ();
    }
    write_head (copy_path, b, sizeof b);
  }
}

static void
take_zones (struct zdisk *disk, struct znbd_zone *zones)
{
  memset (zones, 0, ZONES * sizeof *zones);
  assert_int_equal (zdisk_report (disk, 0, ZONES, zones), ZONES);
}

/* The same image at two times: a copy that was made while it changed, or a
 * backup put back in part.  It is the one, or the other, or refused. */
static void
mixed_times (void **state)
{
  struct znbd_zone older[ZONES], newer[ZONES], found[ZONES];
  uint8_t a[HEAD], b[HEAD], *head, *tail;
  unsigned turn, opened = 0;
  struct zdisk *disk;
  uint64_t cut;

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 2, 0, 7, 2);
  fill (disk, 3, 0, 60, 3);
  close_disk (disk);
  read_head (path, a, HEAD);
  disk = open_disk (path);
  take_zones (disk, older);
  fill (disk, 2, 7, 1, 2);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  ok (disk, ZDISK_RESET, 3 * ZONE, ZONE, NULL, 0);
  fill (disk, 4, 0, 1, 2);
  close_disk (disk);
  read_head (path, b, HEAD);
  disk = open_disk (path);
  take_zones (disk, newer);
  close_disk (disk);
  copy_file (path, copy_path);
  for (turn = 0; turn < 2; turn++)
    for (cut = 0; cut <= HEAD; cut += IMAGE_SECTOR) {
      head = turn ? a : b;
      tail = turn ? b : a;
      write_head (copy_path, tail, HEAD);
      write_head (copy_path, head, cut);
      disk = try_open (copy_path, true);
      if (disk == NULL) {
        assert_untouched ();
        continue;
      }
      take_zones (disk, found);
      if (memcmp (found, older, sizeof found) != 0)
        assert_memory_equal (found, newer, sizeof found);
      close_disk (disk);
      opened++;
    }
  assert_true (opened >= 4);
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
    assert_int_equal (image_check (path, false, nowhere, &err), 1);
    disk = open_disk (path);
    close_disk (disk);
    assert_int_equal (image_check (path, false, nowhere, &err), 0);
  }
}

/* Of an append there are whole blocks, or none. */
static void
odd_append (void **state)
{
  static const uint32_t bad[] = { 1, 4095, 4097, UINT32_MAX };
  struct image_superblock sb;
  uint8_t block[IMAGE_BLOCK];
  unsigned i, k;
  int fd;

  (void) state;
  create ();
  fd = open (path, O_RDWR);
  assert_int_equal (pread (fd, block, sizeof block, 0), sizeof block);
  assert_true (image_decode_superblock (block, &sb));
  for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    sb.max_append = bad[i];
    image_encode_superblock (&sb, block);
    for (k = 0; k < IMAGE_SUPERBLOCKS; k++)
      assert_int_equal (pwrite (fd, block, sizeof block, k * IMAGE_BLOCK),
                        sizeof block);
    assert_null (try_open (path, false));
    assert_non_null (strstr (err.text, "do not fit together"));
  }
  close (fd);
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
  commit (disk);
  fill (disk, 2, 9, 2, 2);
  commit (disk);
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

/* A repair of what nobody closed: its server died, and the next opening
 * still takes up what it answered. */
static void
repair_of_a_killed_image (void **state)
{
  struct zdisk *disk;

  (void) state;
  create ();
  disk = open_disk (path);
  fill (disk, 2, 0, 6, 2);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 2, 6, 1, 2);
  copy_file (path, copy_path);
  assert_int_equal (image_check (path, true, nowhere, &err), -1);
  assert_int_equal (err.num, EBUSY);
  close_disk (disk);
  overwrite_byte (copy_path, 40, 1);
  overwrite_byte (copy_path, IMAGE_COMMIT_OFFSET + 3 * IMAGE_SECTOR, 1);
  overwrite_byte (copy_path, IMAGE_COMMIT_OFFSET + IMAGE_BLOCK, 1);
  assert_int_equal (image_check (copy_path, false, nowhere, &err), 3);
  assert_int_equal (image_check (copy_path, true, nowhere, &err), 0);
  assert_int_equal (image_check (copy_path, false, nowhere, &err), 0);
  disk = open_disk (copy_path);
  assert_zone (disk, 2, ZNBD_COND_CLOSED, 7, 2);
  close_disk (disk);
}

/* Three flushes that are entries of the log, and then the power is lost with
 * none of their data in its place.  False: there is no log here. */
static bool
lose_power_with_log (struct image_superblock *sb)
{
  static const uint8_t nothing[3 * K4];
  uint8_t block[IMAGE_BLOCK];
  struct zdisk *disk;
  bool forgets;
  int fd;

  create ();
  fd = open (path, O_RDONLY);
  forgets = image_forgets (fd);
  assert_int_equal (pread (fd, block, sizeof block, 0), sizeof block);
  close (fd);
  if (forgets)
    return false;
  assert_true (image_decode_superblock (block, sb));
  disk = open_disk (path);
  commit (disk);
  fill (disk, 2, 0, 1, 2);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 2, 1, 1, 2);
  fill (disk, 1, 0, 2, 7);      /* conventional */
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 3, 0, 2, 3);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  fill (disk, 3, 2, 1, 3);      /* not flushed */
  copy_file (path, copy_path);
  close_disk (disk);
  reboot (copy_path);
  fd = open (copy_path, O_WRONLY);
  assert_int_equal (pwrite (fd, nothing, sizeof nothing,
                            sb->data_offset + ZONE), sizeof nothing);
  assert_int_equal (pwrite (fd, nothing, sizeof nothing,
                            sb->data_offset + 2 * ZONE), sizeof nothing);
  assert_int_equal (pwrite (fd, nothing, sizeof nothing,
                            sb->data_offset + 3 * ZONE), sizeof nothing);
  close (fd);
  return true;
}

/* What is in the log alone is there, for who only reads and who writes; a
 * repair leaves it where it is. */
static void
log_after_a_power_loss (void **state)
{
  struct image_superblock sb;
  struct zdisk *disk;
  uint8_t b[2 * K4];
  unsigned turn;

  (void) state;
  if (!lose_power_with_log (&sb))
    skip ();
  assert_int_equal (image_check (copy_path, false, nowhere, &err), 0);
  overwrite_byte (copy_path, 40, 1);
  assert_int_equal (image_check (copy_path, true, nowhere, &err), 0);
  for (turn = 0; turn < 3; turn++) {
    disk = turn == 1 ? open_disk (copy_path) : try_open (copy_path, true);
    assert_non_null (disk);
    assert_zone (disk, 2, ZNBD_COND_CLOSED, 2, 2);
    assert_zone (disk, 3, ZNBD_COND_CLOSED, 2, 3);
    ok (disk, ZDISK_READ, ZONE, sizeof b, b, 0);
    assert_int_equal (b[0], 7);
    assert_int_equal (b[sizeof b - 1], 7);
    close_disk (disk);
  }
  assert_int_equal (image_check (copy_path, false, nowhere, &err), 0);
}

/* An entry that is torn was not durable if it is the last one; any other was,
 * and what is behind it cannot be told without it. */
static void
damaged_log (void **state)
{
  static const unsigned size[] = { 2, 4, 3 };   /* blocks of the entries */
  struct image_superblock sb;
  struct zdisk *disk;
  uint64_t at;
  unsigned i;

  (void) state;
  if (!lose_power_with_log (&sb))
    skip ();
  for (i = 0, at = sb.log_offset; i < 3; at += size[i++] * K4) {
    overwrite_byte (copy_path, at + K4 + 100, 1);
    disk = try_open (copy_path, true);
    if (i < 2) {
      assert_null (disk);
      assert_non_null (strstr (err.text, "log is damaged"));
      assert_untouched ();
    }
    else {
      assert_non_null (disk);
      assert_zone (disk, 2, ZNBD_COND_CLOSED, 2, 2);
      assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
      close_disk (disk);
    }
    overwrite_byte (copy_path, at + K4 + 100, 1);
  }
  disk = open_disk (copy_path);
  assert_zone (disk, 3, ZNBD_COND_CLOSED, 2, 3);
  close_disk (disk);
}

/* Each bit of the log: the state is the right one, or the image is refused, or
 * what is damaged is the last entry. */
static void
flips_of_the_log (void **state)
{
  struct image_superblock sb;
  uint64_t at;
  bool longer = getenv ("ZNBD_LONG") != NULL;
  unsigned refused = 0, without = 0, flips = 0;

  (void) state;
  if (!lose_power_with_log (&sb))
    skip ();
  for (at = 0; at < 10 * K4; at++) {
    unsigned bit = longer ? 0 : at % 8, last = longer ? 7 : bit;

    if (!longer && at % K4 > 256 && at % 61 != 0)
      continue;
    for (; bit <= last; bit++, flips++) {
      struct zdisk *disk;
      struct znbd_zone z[2];
      uint8_t b[K4];

      overwrite_byte (copy_path, sb.log_offset + at, 1u << bit);
      disk = try_open (copy_path, true);
      if (disk == NULL) {
        refused++;
        assert_true (at < 6 * K4);
        assert_untouched ();
      }
      else {
        assert_int_equal (zdisk_report (disk, 2, 2, z), 2);
        assert_int_equal (z[0].wp - z[0].start, 2 * K4);
        ok (disk, ZDISK_READ, ZONE, sizeof b, b, 0);
        assert_int_equal (b[0], 7);
        ok (disk, ZDISK_READ, 2 * ZONE + K4, sizeof b, b, 0);
        assert_int_equal (b[0], 2);
        if (z[1].wp == z[1].start) {
          without++;
          assert_true (at >= 6 * K4 && at < 9 * K4);
        }
        else {
          assert_int_equal (z[1].wp - z[1].start, 2 * K4);
          ok (disk, ZDISK_READ, 3 * ZONE + K4, sizeof b, b, 0);
          assert_int_equal (b[0], 3);
        }
        close_disk (disk);
      }
      overwrite_byte (copy_path, sb.log_offset + at, 1u << bit);
    }
  }
  print_message ("# %u flips, %u refused, %u without the last entry\n", flips,
                 refused, without);
  assert_true (refused > 0 && without > 0 && refused + without < flips);
}

static int
setup_nowhere (void **state)
{
  nowhere = fopen ("/dev/null", "w");
  return nowhere ? setup (state) : -1;
}

static int
teardown_nowhere (void **state)
{
  fclose (nowhere);
  return teardown (state);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (flips_of_a_closed_image),
    cmocka_unit_test (flips_of_a_killed_image),
    cmocka_unit_test (reconstructs),
    cmocka_unit_test (foreign_and_newer),
    cmocka_unit_test (version_1),
    cmocka_unit_test (truncations),
    cmocka_unit_test (mixed_halves),
    cmocka_unit_test (mixed_times),
    cmocka_unit_test (superblock_copy),
    cmocka_unit_test (odd_append),
    cmocka_unit_test (refused_is_untouched),
    cmocka_unit_test (repair_of_a_killed_image),
    cmocka_unit_test (log_after_a_power_loss),
    cmocka_unit_test (damaged_log),
    cmocka_unit_test (flips_of_the_log),
  };

  return cmocka_run_group_tests (tests, setup_nowhere, teardown_nowhere);
}
