/* SPDX-License-Identifier: BSD-3-Clause */
/* Making an image.  All checks come before anything is created or changed;
 * the superblocks come last, so that an image made half is none.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image-internal.h"
#include "size.h"

/* How much of a block device is looked at to find it blank. */
#define BLANK_BYTES (1u << 20)   /* btrfs, for one, begins at 64k */

struct maker {
  const char *path;
  int fd, loop_file;            /* see image_file_open */
  bool block_device, created;
  bool enlarged;                /* of a file that had no size */
  uint64_t size;                /* of what is there */
  struct image_superblock sb;
  struct image_commit commit;
  uint32_t seed;
  struct zones zones;           /* to know what the records are to say */
  struct zone_error *err;
};

static int
failed (struct maker *m, int e)
{
  return zone_error (m->err, e, "%s: %s", m->path, strerror (e));
}

static int
fill (struct maker *m, const struct store_geometry *geometry)
{
  struct image_superblock *sb = &m->sb;
  char text[SIZE_TEXT_MAX];
  struct znbd_geometry g;

  if (store_geometry_check (geometry, m->err) == -1)
    return -1;
  store_geometry_fill (geometry, &g);
  if (g.zone_size > IMAGE_ZONE_MAX)
    return zone_error (m->err, EINVAL, "zone-size %s is larger than an "
                       "image's zones can be, 4P",
                       size_text (text, g.zone_size));
  sb->version = IMAGE_VERSION;
  sb->size = g.size;
  sb->zone_size = g.zone_size;
  sb->zone_capacity = g.zone_capacity;
  sb->zones = g.zones;
  sb->conventional = g.conventional;
  sb->max_open = g.max_open;
  sb->max_active = g.max_active;
  sb->max_append = g.max_append;
  sb->granularity = g.granularity;
  sb->model = g.model;
  if (getentropy (sb->uuid, sizeof sb->uuid) == -1)
    return failed (m, errno);
  sb->uuid[6] = (sb->uuid[6] & 0x0f) | 0x40;    /* RFC 4122, version 4 */
  sb->uuid[8] = (sb->uuid[8] & 0x3f) | 0x80;
  m->seed = image_seed (sb->uuid);
  if (sb->size > INT64_MAX - 2 * IMAGE_ALIGN - IMAGE_LOG_MAX -
      (uint64_t) sb->zones * 128)
    return zone_error (m->err, EFBIG, "size %s: the image would be larger "
                       "than 2^63 - 1 bytes", size_text (text, sb->size));
  image_layout (sb);
  return zones_init (&m->zones, &g, m->err);
}

/* Opens what is there, or makes it.  O_EXCL says which. */
static int
open_file (struct maker *m, bool force)
{
  bool created = false;
  uint8_t *blank;
  size_t n;
  int fd, r;

  fd = open (m->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0666);
  if (fd != -1) {
    close (fd);
    created = true;
  }
  else if (errno != EEXIST)
    return failed (m, errno);
  m->fd = image_file_open (m->path, false, &m->block_device, &m->size,
                           &m->loop_file, m->err);
  if (m->fd == -1)
    return -1;                  /* somebody else's by now, perhaps: stays */
  m->created = created;
  if (m->block_device && m->size < m->sb.file_size)
    return zone_error (m->err, ENOSPC, "%s: has %" PRIu64 " bytes, the image "
                       "needs %" PRIu64, m->path, m->size, m->sb.file_size);
  if (m->created || force || m->size == 0)
    return 0;
  if (!m->block_device)
    return zone_error (m->err, EEXIST, "%s: exists already; --force "
                       "overwrites it", m->path);
  blank = malloc (BLANK_BYTES);
  if (blank == NULL)
    return failed (m, ENOMEM);
  n = m->size < BLANK_BYTES ? m->size : BLANK_BYTES;
  r = image_pread (m->fd, blank, n, 0);
  if (r == 0 && !image_is_zero (blank, n))
    r = EEXIST;
  free (blank);
  if (r == EEXIST)
    return zone_error (m->err, r, "%s: is not blank; --force overwrites "
                       "it", m->path);
  return r ? failed (m, r) : 0;
}

/* Makes all the metadata read as zeros. */
static int
clear (struct maker *m)
{
  int r;

  if (m->block_device) {
    uint64_t conventional = m->sb.conventional * m->sb.zone_size;

    if (conventional > m->sb.size)
      conventional = m->sb.size;
    /* The superblocks first: what is there is no image from now on. */
    r = image_zero (m->fd, 0, IMAGE_VOLATILE_OFFSET, false);
    if (r == 0)
      r = image_zero (m->fd, IMAGE_VOLATILE_OFFSET, m->sb.data_offset -
                      IMAGE_VOLATILE_OFFSET, false);
    /* What is read without a pointer. */
    if (r == 0)
      r = image_zero (m->fd, m->sb.data_offset, conventional, true);
    return r ? failed (m, r) : 0;
  }
  /* Whether the size can be had is found out before anything is lost. */
  if (m->size < m->sb.file_size &&
      ftruncate (m->fd, m->sb.file_size) == -1) {
    char text[SIZE_TEXT_MAX];
    int e = errno;

    return zone_error (m->err, e, "%s: cannot be made %s large: %s", m->path,
                       size_text (text, m->sb.file_size), strerror (e));
  }
  m->enlarged = m->size == 0;
  if (ftruncate (m->fd, 0) == -1 ||
      ftruncate (m->fd, m->sb.file_size) == -1)
    return failed (m, errno);
  return 0;
}

/* Records for zones that are to be read-only or offline. */
static int
write_records (void *opaque, uint32_t first, uint32_t last)
{
  struct maker *m = opaque;
  struct image_payload p = { .commit = 1 };
  struct image_record r;
  uint32_t i;
  int e = 0;

  for (i = first; i <= last && e == 0; i++) {
    const struct zone *z = &m->zones.zone[i];

    p.cond = z->cond;
    p.wp = z->wp;
    if (p.cond != ZNBD_COND_READ_ONLY && p.cond != ZNBD_COND_OFFLINE)
      continue;
    if (m->block_device && p.cond == ZNBD_COND_READ_ONLY &&
        (e = image_zero (m->fd, m->sb.data_offset + zones_start (&m->zones, i),
                         zones_length (&m->zones, i), true)) != 0)
      break;
    m->commit.sum += image_mix (i, &p);
    image_xor (&m->commit.parity, &p);
    image_encode_record (i, &p, m->seed, &r);
    e = image_pwrite (m->fd, &r, sizeof r, m->sb.table_offset[0] +
                      (uint64_t) i * sizeof r);
  }
  return e;
}

static int
set_conditions (struct maker *m, const struct store_geometry *g)
{
  struct zones_load_list l = { .zones = &m->zones };
  const char *why;

  l.cond = ZNBD_COND_READ_ONLY;
  if (g->readonly_zones &&
      size_parse_zone_list (g->readonly_zones, m->sb.zones, zones_load_list,
                            &l, &why) == -1)
    return zone_error (m->err, EINVAL, "read-only-zones: %s", why);
  l.cond = ZNBD_COND_OFFLINE;
  if (g->offline_zones &&
      size_parse_zone_list (g->offline_zones, m->sb.zones, zones_load_list,
                            &l, &why) == -1)
    return zone_error (m->err, EINVAL, "offline-zones: %s", why);
  return 0;
}

/* Makes the new file's name durable.  Some file systems can't; then it is
 * as durable as any new file of theirs. */
static void
sync_folder (const char *path)
{
  char *copy = strdup (path);
  int fd = copy ? open (dirname (copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    : -1;

  if (fd != -1) {
    fsync (fd);
    close (fd);
  }
  free (copy);
}

static int
write_all (struct maker *m)
{
  uint8_t block[IMAGE_BLOCK];
  unsigned i, j;
  int r;

  r = write_records (m, 0, m->sb.zones - 1);
  m->commit.epoch = 1;
  m->commit.flags = IMAGE_CLEAN;
  for (i = 1; i <= IMAGE_COMMIT_SLOTS && r == 0; i++) {
    m->commit.number = i;
    for (j = 0; j < IMAGE_COMMIT_COPIES; j++)
      image_encode_commit (&m->commit, m->seed, block + j * IMAGE_SECTOR);
    r = image_pwrite (m->fd, block, sizeof block, IMAGE_COMMIT_OFFSET +
                      i % IMAGE_COMMIT_SLOTS * IMAGE_BLOCK);
  }
  if (r == 0 && fsync (m->fd) == -1)
    r = errno;
  image_encode_superblock (&m->sb, block);
  for (i = 0; i < IMAGE_SUPERBLOCKS && r == 0; i++)
    r = image_pwrite (m->fd, block, sizeof block, i * IMAGE_BLOCK);
  if (r == 0 && fsync (m->fd) == -1)
    r = errno;
  if (r == 0 && m->created)
    sync_folder (m->path);
  return r ? failed (m, r) : 0;
}

int
image_create (const char *path, const struct store_geometry *geometry,
              bool force, struct zone_error *err)
{
  struct maker *m = calloc (1, sizeof *m);
  int r = -1;

  if (m == NULL)
    return zone_error (err, ENOMEM, "%s: no memory", path);
  m->path = path;
  m->err = err;
  m->fd = m->loop_file = -1;
  if (fill (m, geometry) == 0 && set_conditions (m, geometry) == 0 &&
      open_file (m, force) == 0 && clear (m) == 0)
    r = write_all (m);
  if (r == -1 && m->created)
    unlink (path);
  else if (r == -1 && m->enlarged && ftruncate (m->fd, m->size) == -1)
    failed (m, errno);
  image_file_close (m->fd, m->loop_file);
  zones_free (&m->zones);
  free (m);
  return r;
}

bool
image_probe (const char *path)
{
  uint8_t block[IMAGE_BLOCK];
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  bool found;

  if (fd == -1)
    return false;
  found = image_pread (fd, block, sizeof block, 0) == 0 &&
    image_peek_version (block) != 0;
  close (fd);
  return found;
}
