/* SPDX-License-Identifier: BSD-3-Clause */
/* Pointers that outlive the process but not the machine: a shared mapping
 * of the image's file, written with one store after each move of a
 * pointer.  The kernel keeps it when the process is killed.  A commit's
 * boot id says whether what is found there is of this boot; if not it is
 * never looked at.
 *
 * A file that is truncated below us makes such a store a SIGBUS, after which
 * the image is failed (image-sigbus.c).
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image-internal.h"

/* Clears the area, gives it space, and maps it.  A mark that counts stays:
 * until the next commit it is all that tells of a loss. */
int
volatile_start (struct image *img, struct zone_error *err)
{
  size_t length = img->sb.table_offset[0] - img->sb.volatile_offset;
  void *p;
  int r;

  r = image_zero (img->fd, img->sb.volatile_offset, img->distrusted
                  ? (uint64_t) img->sb.zones * 8 : length, false);
  if (r)
    return zone_error (err, r, "%s: no space for volatile pointers: %s",
                       img->path, strerror (r));
  p = mmap (NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, img->fd,
            img->sb.volatile_offset);
  if (p == MAP_FAILED)
    return zone_error (err, errno, "%s: cannot be mapped: %s", img->path,
                       strerror (errno));
  if (sigbus_enter (p, length, PROT_READ | PROT_WRITE,
                    &img->store.failed) == -1) {
    munmap (p, length);
    return zone_error (err, EMFILE, "%s: more than %d images open at once",
                       img->path, MAPPINGS_MAX / 2);
  }
  img->slots = p;
  img->slots_size = length;
  return 0;
}

void
volatile_mark (struct image *img, bool distrust)
{
  uint64_t mark = distrust ? htole64 (IMAGE_MARK) : 0;

  /* Not mapped yet: what is made durable is a former session's. */
  if (img->slots == NULL)
    image_pwrite (img->fd, &mark, sizeof mark, img->sb.volatile_offset +
                  (uint64_t) img->sb.zones * sizeof mark);
  else
    atomic_store (&img->slots[img->sb.zones], mark);
}

void
volatile_stop (struct image *img)
{
  if (img->slots) {
    sigbus_leave ((void *) img->slots);
    munmap ((void *) img->slots, img->slots_size);
    img->slots = NULL;
  }
}
