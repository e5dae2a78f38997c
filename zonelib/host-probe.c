/* SPDX-License-Identifier: BSD-3-Clause */
/* What a block device is: its zoned model, geometry and limits, from
 * libzbd and from the block layer's attributes in sysfs.
 *
 * libzbd knows a device only where the kernel shows it as zoned; the
 * others are opened here.  Partitions have no attributes of their own but
 * those of their disk.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <libzbd/zbd.h>

#include "host-internal.h"
#include "host.h"

/* Transfers of a device that does not say how large they may be, and of one
 * that says too much. */
#define DEFAULT_MAX_TRANSFER (128u << 10)
#define LARGEST_TRANSFER (16u << 20)

/* Reads an attribute of the disk into buf, without the newline.  Returns
 * its length, or -1 where there is no such attribute. */
static int
read_attribute (dev_t dev, const char *name, char *buf, size_t size)
{
  static const char *const of[] = { "", "../" };
  char path[128];
  unsigned i;
  ssize_t n;
  int fd;

  for (i = 0; i < 2; i++) {
    snprintf (path, sizeof path, "/sys/dev/block/%u:%u/%s%s", major (dev),
              minor (dev), of[i], name);
    fd = open (path, O_RDONLY | O_CLOEXEC);
    if (fd == -1)
      continue;
    n = read (fd, buf, size - 1);
    close (fd);
    if (n > 0 && buf[n - 1] == '\n')
      n--;
    if (n > 0) {
      buf[n] = '\0';
      return n;
    }
  }
  return -1;
}

static uint64_t
read_number (dev_t dev, const char *name, uint64_t otherwise)
{
  char text[32], *end;
  unsigned long long number;

  if (read_attribute (dev, name, text, sizeof text) == -1)
    return otherwise;
  errno = 0;
  number = strtoull (text, &end, 10);
  return errno || *end || end == text ? otherwise : number;
}

bool
host_is_zoned (dev_t dev)
{
  char model[32];

  return read_attribute (dev, "queue/zoned", model, sizeof model) > 0 &&
    strcmp (model, "none") != 0;
}

/* FNV-1a over 128 bits: a name for a disk, not a secret. */
static void
hash (unsigned __int128 *h, const char *text)
{
  const unsigned __int128 prime =
    (unsigned __int128) 1 << 88 | 0x13b;

  for (; *text; text++)
    *h = (*h ^ (unsigned char) *text) * prime;
}

/* The same disk has the same uuid wherever it is plugged in, if it says
 * who it is; otherwise as long as it has the same name on this machine. */
static void
name_disk (struct host *h, dev_t dev)
{
  static const char *const identity[] = {
    "wwid", "device/wwid", "serial", "device/serial", "dm/uuid",
  };
  unsigned __int128 id =
    (unsigned __int128) 0x6c62272e07bb0142 << 64 | 0x62b821756295c58d;
  uint8_t *uuid = h->store.geometry.uuid;
  char text[512], numbers[32];
  unsigned i;

  for (i = 0; i < sizeof identity / sizeof identity[0]; i++)
    if (read_attribute (dev, identity[i], text, sizeof text) > 0)
      break;
  if (i < sizeof identity / sizeof identity[0])
    hash (&id, text);
  else {
    FILE *f = fopen ("/etc/machine-id", "re");
    char *name;

    if (f && fgets (text, sizeof text, f))
      hash (&id, text);
    if (f)
      fclose (f);
    name = realpath (h->path, NULL);
    hash (&id, name ? name : h->path);
    free (name);
  }
  /* Partitions are disks of their own. */
  snprintf (numbers, sizeof numbers, ".%" PRIu64,
            read_number (dev, "partition", 0));
  hash (&id, numbers);
  for (i = 0; i < 16; i++)
    uuid[i] = id >> (120 - 8 * i);
  uuid[6] = (uuid[6] & 0x0f) | 0x80;    /* version 8: our own way */
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

/* A disk's cache may be lost whenever the machine stops. */
static uint64_t
boot_epoch (void)
{
  uint64_t epoch = 0;
  char text[64] = "", *p;
  FILE *f = fopen ("/proc/sys/kernel/random/boot_id", "re");

  if (f && fgets (text, sizeof text, f))
    for (p = text; *p; p++)
      epoch = epoch * 1099511628211u + (unsigned char) *p;
  if (f)
    fclose (f);
  return epoch >> 1 ? epoch >> 1 : 1;
}

static int
check_path (const char *path, dev_t *dev, struct zone_error *err)
{
  struct stat st;

  if (stat (path, &st) == -1)
    return zone_error (err, errno, "%s: %s", path, strerror (errno));
  if (!S_ISBLK (st.st_mode))
    return zone_error (err, ENOTBLK, "%s: is not a block device", path);
  *dev = st.st_rdev;
  return 0;
}

static int
cannot_open (const char *path, int num, struct zone_error *err)
{
  if (num == EBUSY)
    return zone_error (err, num, "%s: is in use: mounted, part of another "
                       "device, or served already", path);
  return zone_error (err, num, "%s: %s", path, strerror (num));
}

/* Opens a zoned device and fills the geometry but for what every zone's
 * own report tells. */
static int
open_zoned (struct host *h, int flags, struct zone_error *err)
{
  struct znbd_geometry *g = &h->store.geometry;
  struct zbd_info info = { 0 };
  int fd = zbd_open (h->path, flags, &info);

  if (fd < 0)
    return cannot_open (h->path, fd == -1 ? errno : -fd, err);
  h->fd = fd;
  h->zoned = true;
  g->model = info.model == ZBD_DM_HOST_AWARE
    ? ZNBD_MODEL_HOST_AWARE : ZNBD_MODEL_HOST_MANAGED;
  g->size = (uint64_t) info.nr_sectors * 512;
  g->zone_size = info.zone_size;
  h->logical_block = info.lblock_size;
  /* -1 is libzbd's for "the device does not say". */
  if (info.max_nr_open_zones != UINT32_MAX)
    g->max_open = info.max_nr_open_zones;
  if (info.max_nr_active_zones != UINT32_MAX)
    g->max_active = info.max_nr_active_zones;
  return 0;
}

static int
open_ordinary (struct host *h, int flags, struct zone_error *err)
{
  struct znbd_geometry *g = &h->store.geometry;
  int size;

  h->fd = open (h->path, flags);
  if (h->fd == -1)
    return cannot_open (h->path, errno, err);
  g->model = ZNBD_MODEL_NONE;
  if (ioctl (h->fd, BLKGETSIZE64, &g->size) == -1 ||
      ioctl (h->fd, BLKSSZGET, &size) == -1)
    return zone_error (err, errno, "%s: %s", h->path, strerror (errno));
  h->logical_block = size;
  return 0;
}

/* Bytes of one command, a multiple of what is written at once. */
static uint32_t
largest_transfer (dev_t dev, uint32_t granularity)
{
  uint64_t max = read_number (dev, "queue/max_sectors_kb", 0) << 10;

  if (max == 0)
    max = DEFAULT_MAX_TRANSFER;
  if (max > LARGEST_TRANSFER)
    max = LARGEST_TRANSFER;
  return max - max % granularity;
}

/* The largest append: what one write of the device can be, so that an
 * append is never split. */
static uint32_t
largest_append (const struct host *h, dev_t dev)
{
  uint64_t native = read_number (dev, "queue/zone_append_max_bytes", 0);
  uint64_t max = native > 0 && native < h->max_transfer
    ? native : h->max_transfer;

  return max - max % h->store.geometry.granularity;
}

int
host_probe (struct host *h, struct zone_error *err)
{
  int flags = (h->store.readonly ? O_RDONLY : O_RDWR) | O_DIRECT | O_EXCL |
    O_CLOEXEC | O_NONBLOCK;
  struct znbd_geometry *g = &h->store.geometry;
  uint64_t alignment;
  int read_only = 0;
  dev_t dev = 0;

  if (check_path (h->path, &dev, err) == -1)
    return -1;
  if ((host_is_zoned (dev) ? open_zoned : open_ordinary) (h, flags,
                                                          err) == -1)
    return -1;
  if (!h->store.readonly && ioctl (h->fd, BLKROGET, &read_only) == 0 &&
      read_only)
    return zone_error (err, EROFS, "%s: %s", h->path, strerror (EROFS));
  if (g->size == 0)
    return zone_error (err, ENOMEDIUM, "%s: has no medium, or no size",
                       h->path);
  if (h->zoned && (g->zone_size == 0 || g->size / g->zone_size >= INT32_MAX))
    return zone_error (err, EINVAL, "%s: %" PRIu64 " bytes in zones of %"
                       PRIu64 " are more zones than %d", h->path, g->size,
                       g->zone_size, INT32_MAX);

  g->granularity = h->logical_block;
  if (h->zoned) {
    alignment = read_number (dev, "queue/zone_write_granularity", 0);
    if (alignment > g->granularity)
      g->granularity = alignment;
  }
  h->max_transfer = largest_transfer (dev, g->granularity);
  if (g->granularity % 512 != 0 || h->max_transfer == 0)
    return zone_error (err, EINVAL, "%s: blocks of %" PRIu32 " bytes cannot "
                       "be served", h->path, g->granularity);
  alignment = read_number (dev, "queue/dma_alignment",
                           h->logical_block - 1) + 1;
  h->memory_alignment = alignment < h->logical_block
    ? h->logical_block : alignment;
  if (g->model == ZNBD_MODEL_HOST_MANAGED)
    g->max_append = largest_append (h, dev);
  /* Sequential zones take zeros as any other write. */
  h->store.fast_zero = !h->zoned &&
    read_number (dev, "queue/write_zeroes_max_bytes", 0) > 0;
  name_disk (h, dev);
  g->epoch = boot_epoch ();
  return 0;
}
