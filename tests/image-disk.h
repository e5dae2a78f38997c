/* SPDX-License-Identifier: BSD-3-Clause */
/* What the image store's unit tests share: an image in a folder of the
 * test's own, a disk over it, requests, and a look at a zone.  For after
 * cmocka.h.
 */

#ifndef IMAGE_DISK_H
#define IMAGE_DISK_H

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk.h"
#include "image-internal.h"
#include "image.h"

#define K4 4096u
#define ZONE (64 * K4)
#define ZONES 12
#define SIZE (ZONES * (uint64_t) ZONE)

#ifndef IMAGE_DIR               /* where the folder is made */
#define IMAGE_DIR "/tmp"
#endif
static char dir[] = IMAGE_DIR "/znbd-image-XXXXXX";
static char path[64], copy_path[64];
static struct zone_error err;

static inline struct store_geometry
geometry (void)
{
  struct store_geometry g = STORE_GEOMETRY_DEFAULT;

  g.size = SIZE;
  g.zone_size = ZONE;
  g.zone_capacity = 60 * K4;
  g.conventional = 2;
  return g;
}

static inline void
create (void)
{
  struct store_geometry g = geometry ();

  unlink (path);
  if (image_create (path, &g, false, &err) == -1)
    fail_msg ("%s", err.text);
}

static inline struct zdisk *
try_open (const char *file, bool readonly)
{
  struct store *store = image_open (file, readonly, &err);

  return store ? zdisk_new (store, NULL, &err) : NULL;
}

static inline struct zdisk *
open_disk (const char *file)
{
  struct zdisk *disk = try_open (file, false);

  if (disk == NULL)
    fail_msg ("%s", err.text);
  return disk;
}

static inline void
close_disk (struct zdisk *disk)
{
  if (zdisk_close (disk, &err) == -1)
    fail_msg ("%s", err.text);
}

static inline int
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

static inline void
ok (struct zdisk *disk, enum zdisk_op op, uint64_t offset, uint64_t length,
    void *buf, unsigned flags)
{
  assert_int_equal (run (disk, op, offset, length, buf, flags), 0);
}

static inline void
fill (struct zdisk *disk, uint32_t zone, unsigned first, unsigned blocks,
      int byte)
{
  uint8_t *buf = malloc (blocks * K4);

  memset (buf, byte, blocks * K4);
  ok (disk, ZDISK_WRITE, zone * ZONE + first * K4, blocks * K4, buf, 0);
  free (buf);
}

/* A flush that takes a commit, not an entry of the log. */
static inline void
commit (struct zdisk *disk)
{
  fill (disk, ZONES - 1, 0, 1, 1);
  ok (disk, ZDISK_RESET, (ZONES - 1) * ZONE, ZONE, NULL, 0);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
}

static inline void
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
static inline void
copy_file (const char *from, const char *to)
{
  char command[256];

  snprintf (command, sizeof command, "cp --sparse=always %s %s", from, to);
  assert_int_equal (system (command), 0);
}

/* Puts another boot into the commits of an image, as after a reboot. */
static inline void
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

static inline int
setup (void **state)
{
  (void) state;
  if (mkdtemp (dir) == NULL)
    return -1;
  snprintf (path, sizeof path, "%s/a.zbd", dir);
  snprintf (copy_path, sizeof copy_path, "%s/b.zbd", dir);
  return 0;
}

static inline int
teardown (void **state)
{
  (void) state;
  unlink (path);
  unlink (copy_path);
  return rmdir (dir);
}

static inline void
overwrite_byte (const char *file, uint64_t at, uint8_t xor)
{
  int fd = open (file, O_RDWR);
  uint8_t b;

  assert_int_equal (pread (fd, &b, 1, at), 1);
  b ^= xor;
  assert_int_equal (pwrite (fd, &b, 1, at), 1);
  close (fd);
}

#endif /* IMAGE_DISK_H */
