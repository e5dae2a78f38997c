/* SPDX-License-Identifier: BSD-3-Clause */
/* Checking and repairing images.  Both read what opening reads and judge it
 * by the same code (image-load.c).  A repair is what opening for writing
 * mends, and the damaged copies of commits, which the commits to come would
 * write over; but no session is begun, so a disk whose server was killed
 * stays one.
 *
 * Nothing is written over that is all there is of something: a repair that
 * is cut off anywhere leaves an image with the same state.
 */

#include <config.h>

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "image-internal.h"

/* Reads the zones, for what it says; none is left. */
static int
read_zones (struct image *img, bool mend, FILE *out, unsigned *faults,
            struct zone_error *err)
{
  struct zones zs;
  int r;

  if (zones_init (&zs, &img->store.geometry, err) == -1)
    return -1;
  memset ((void *) img->zflags, 0, img->sb.zones);
  img->ndirty = 0;
  r = image_read_zones (img, &zs, mend, out, faults, err);
  zones_free (&zs);
  img->zones = NULL;
  return r;
}

/* Each slot with damaged copies: the newest commit in it, eight times. */
static int
mend_slots (struct image *img)
{
  uint8_t slot[IMAGE_BLOCK];
  struct image_commit c, newest;
  unsigned i, j, good;
  int r;

  for (i = 0; i < IMAGE_COMMIT_SLOTS; i++) {
    uint64_t at = IMAGE_COMMIT_OFFSET + i * IMAGE_BLOCK;

    r = image_pread (img->fd, slot, sizeof slot, at);
    if (r)
      return r;
    for (j = good = 0; j < IMAGE_COMMIT_COPIES; j++)
      if (image_decode_commit (slot + j * IMAGE_SECTOR, img->seed, &c) &&
          (good++ == 0 || c.number > newest.number))
        newest = c;
    if (good == 0 || good == IMAGE_COMMIT_COPIES)
      continue;
    for (j = 0; j < IMAGE_COMMIT_COPIES; j++)
      image_encode_commit (&newest, img->seed, slot + j * IMAGE_SECTOR);
    r = image_pwrite (img->fd, slot, sizeof slot, at);
    if (r)
      return r;
  }
  return 0;
}

/* Returns the number of faults that are left, or -1. */
static int
repair_all (struct image *img, struct zone_error *err)
{
  unsigned left = UINT_MAX, before;
  int r;

  /* A round mends so many records at most. */
  do {
    before = left;
    left = 0;
    if (read_zones (img, true, NULL, NULL, err) == -1)
      return -1;
    r = mend_slots (img);
    if (r == 0)
      r = image_sync (img->fd);
    if (r)
      return zone_error (err, r, "%s: cannot be repaired: %s", img->path,
                         strerror (r));
    if (image_read_head (img, NULL, &left, err) == -1 ||
        read_zones (img, false, NULL, &left, err) == -1)
      return -1;
  } while (left > 0 && left < before);
  return left;
}

int
image_check (const char *path, bool repair, FILE *out,
             struct zone_error *err)
{
  unsigned faults = 0;
  struct image *img = image_open_head (path, !repair, out, &faults, err);
  int r;

  if (img == NULL)
    return -1;
  if (image_past (img) == IMAGE_WAS_KILLED)
    fprintf (out, "%s: was not closed: its server died; the next opening "
             "takes up what it answered\n", path);
  r = read_zones (img, false, out, &faults, err);
  if (image_past (img) == IMAGE_LOST_POWER)
    fprintf (out, "%s: was not closed before the machine stopped, or could "
             "not be written: what was not flushed may be lost\n", path);
  if (r == 0)
    r = faults;
  if (r > 0 && repair) {
    r = repair_all (img, err);
    if (r == 0)
      fprintf (out, "%s: repaired\n", path);
  }
  image_free (img);
  return r;
}
