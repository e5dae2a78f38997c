/* SPDX-License-Identifier: BSD-3-Clause */
/* The file or block device that holds an image: opening and locking,
 * reads and writes that are whole or fail.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "image-internal.h"

/* A length of 0 is all that follows. */
static int
lock (int fd, bool readonly, uint64_t start, uint64_t length)
{
  struct flock fl = {
    .l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET,
    .l_start = start, .l_len = length,
  };

  return fcntl (fd, F_OFD_SETLK, &fl);
}

static bool
is_locked (int e)
{
  return e == EAGAIN || e == EACCES;
}

/* What a killed server's ring has under way holds its lock for a little longer
 * than the process lives. */
#define LOCK_TRIES 100
#define LOCK_TRY_US 10000

static int
lock_soon (int fd, bool readonly, uint64_t start, uint64_t length)
{
  int i;

  for (i = 0; lock (fd, readonly, start, length) == -1; i++) {
    if (!is_locked (errno) || i == LOCK_TRIES)
      return -1;
    usleep (LOCK_TRY_US);
  }
  return 0;
}

/* The file of a loop device, opened, and what the kernel says of it; -1 where
 * it is none, or one that this process does not see. */
static int
open_loop_file (int fd, dev_t dev, bool readonly, struct loop_info64 *info)
{
  char name[64], path[4096] = "";
  struct stat st;
  FILE *f;
  int r;

  if (major (dev) != LOOP_MAJOR ||
      ioctl (fd, LOOP_GET_STATUS64, info) == -1)
    return -1;
  snprintf (name, sizeof name, "/sys/dev/block/%u:%u/loop/backing_file",
            major (dev), minor (dev));
  f = fopen (name, "re");
  if (f == NULL)
    return -1;
  if (fgets (path, sizeof path, f))
    path[strcspn (path, "\n")] = '\0';
  fclose (f);
  r = open (path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY |
            O_NONBLOCK);
  if (r != -1 && (fstat (r, &st) == -1 || st.st_dev != info->lo_device ||
                  st.st_ino != info->lo_inode)) {
    close (r);
    r = -1;
  }
  return r;
}

/* An image in a file is locked there, also by who has it as a loop device.
 * Returns -1 where somebody else has locked it.  *file is to be closed when
 * the lock may go, or is -1. */
static int
lock_loop_file (int fd, dev_t dev, bool readonly, int *file)
{
  struct loop_info64 info;

  *file = open_loop_file (fd, dev, readonly, &info);
  if (*file == -1 || lock_soon (*file, readonly, info.lo_offset,
                                info.lo_sizelimit) == 0)
    return 0;
  if (is_locked (errno))
    return -1;
  close (*file);
  *file = -1;
  return 0;
}

void
image_file_close (int fd, int loop_file)
{
  if (fd != -1)
    close (fd);
  if (loop_file != -1)
    close (loop_file);
}

/* Opens and locks; returns the descriptor or -1.  Of a loop device *loop_file
 * is to be closed with it, by image_file_close; else it is -1. */
int
image_file_open (const char *path, bool readonly, bool *block_device,
                 uint64_t *size, int *loop_file, struct zone_error *err)
{
  int fd = open (path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY |
                 O_NONBLOCK);
  struct stat st;

  *loop_file = -1;
  if (fd == -1)
    return zone_error (err, errno, "%s: %s", path, strerror (errno));
  if (fstat (fd, &st) == -1) {
    zone_error (err, errno, "%s: %s", path, strerror (errno));
    goto fail;
  }
  if (S_ISDIR (st.st_mode)) {
    zone_error (err, EISDIR, "%s: is a directory, not an image", path);
    goto fail;
  }
  if (!S_ISREG (st.st_mode) && !S_ISBLK (st.st_mode)) {
    zone_error (err, EINVAL, "%s: is neither a file nor a block device",
                path);
    goto fail;
  }
  if (S_ISBLK (st.st_mode) && !readonly) {
    /* Claimed: neither mounted, nor swap, nor part of an array. */
    close (fd);
    fd = open (path, O_RDWR | O_EXCL | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd == -1)
      return zone_error (err, errno, errno == EBUSY ? "%s: is in use"
                         : "%s: %s", path, strerror (errno));
  }
  if (lock_soon (fd, readonly, 0, 0) == -1) {
    if (is_locked (errno))
      zone_error (err, EBUSY, "%s: is in use by another process", path);
    else
      zone_error (err, errno, "%s: cannot be locked: %s", path,
                  strerror (errno));
    goto fail;
  }
  *block_device = S_ISBLK (st.st_mode);
  if (*block_device &&
      lock_loop_file (fd, st.st_rdev, readonly, loop_file) == -1) {
    zone_error (err, EBUSY, "%s: its file is in use by another process",
                path);
    goto fail;
  }
  *size = st.st_size;
  if (*block_device && ioctl (fd, BLKGETSIZE64, size) == -1) {
    zone_error (err, errno, "%s: %s", path, strerror (errno));
    goto fail;
  }
  /* Its owner may have it: when it was last read is of no interest, and ext4
   * without a journal writes that with each sync. */
  fcntl (fd, F_SETFL, fcntl (fd, F_GETFL) | O_NOATIME);
  return fd;

 fail:
  image_file_close (fd, *loop_file);
  *loop_file = -1;
  return -1;
}

int
image_sync (int fd)
{
  while (fdatasync (fd) == -1)
    if (errno != EINTR)
      return errno;
  return 0;
}

/* Both return 0 or an errno; a file that ends too early is EIO. */
int
image_pread (int fd, void *buf, size_t length, uint64_t offset)
{
  while (length > 0) {
    ssize_t r = pread (fd, buf, length, offset);

    if (r == -1 && errno == EINTR)
      continue;
    if (r == -1)
      return errno;
    if (r == 0)
      return EIO;
    buf = (char *) buf + r;
    length -= r;
    offset += r;
  }
  return 0;
}

int
image_pwrite (int fd, const void *buf, size_t length, uint64_t offset)
{
  while (length > 0) {
    ssize_t r = pwrite (fd, buf, length, offset);

    if (r == -1 && errno == EINTR)
      continue;
    if (r == -1)
      return errno;
    buf = (const char *) buf + r;
    length -= r;
    offset += r;
  }
  return 0;
}

bool
image_forgets (int fd)
{
  struct statfs fs;

  return fstatfs (fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

bool
image_boot_id (uint8_t boot_id[16])
{
  FILE *f = fopen ("/proc/sys/kernel/random/boot_id", "re");
  char text[64] = "", *p = text;
  unsigned n = 0, byte;

  if (f) {
    if (fgets (text, sizeof text, f) == NULL)
      text[0] = '\0';
    fclose (f);
  }
  while (n < 16 && sscanf (p, "%2x", &byte) == 1) {
    boot_id[n++] = byte;
    p += 2;
    if (*p == '-')
      p++;
  }
  return n == 16;
}
