/* SPDX-License-Identifier: BSD-3-Clause */
/* After a power loss: what the log has that became durable since the last
 * commit.
 *
 * The entries of the commit in force are read in order, until one is not
 * there or not whole: that one was not durable yet, and nobody had an answer
 * of it or of a later one.  If one that was written later says that it was
 * durable, it is damaged, and the image is refused.
 *
 * A disk opened for writing has the data written to its place and commits
 * it.  One that is only read keeps the data in memory.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "image-internal.h"

struct replay_item {
  uint32_t zone;
  uint64_t offset, length;      /* of the disk's data */
  const uint8_t *data;
};

/* Whether an item can follow what is known of its zone. */
static bool
is_possible (const struct image *img, const struct zones *zs,
             const struct image_log_item *item)
{
  struct image_payload p = { .wp = item->wp, .flags = item->flags };
  const struct zone *z;
  uint64_t length;

  if (item->zone >= img->sb.zones ||
      !image_is_zero (item->zero, sizeof item->zero) ||
      (item->offset | item->length) % img->sb.granularity != 0)
    return false;
  z = &zs->zone[item->zone];
  if (z->type == ZNBD_ZONE_CONVENTIONAL) {
    length = zones_length (zs, item->zone);
    return item->wp == 0 && item->flags == 0 && item->offset <= length &&
      item->length <= length - item->offset;
  }
  p.cond = image_cond (zs, item->zone, z->cond, p.wp);
  return item->offset == z->wp && item->wp - item->offset == item->length &&
    p.cond != ZNBD_COND_READ_ONLY && p.cond != ZNBD_COND_OFFLINE &&
    image_is_possible (zs, item->zone, &p);
}

static int
take_item (struct image *img, struct zones *zs,
           const struct image_log_item *item, const uint8_t *data)
{
  struct image_replay *rp = &img->replay;
  struct replay_item *more;

  if (rp->nitems == rp->space) {
    rp->space = rp->space ? 2 * rp->space : 256;
    more = realloc (rp->item, rp->space * sizeof *more);
    if (more == NULL)
      return ENOMEM;
    rp->item = more;
  }
  rp->item[rp->nitems++] = (struct replay_item) {
    .zone = item->zone,
    .offset = zones_start (zs, item->zone) + item->offset,
    .length = item->length, .data = data,
  };
  if (zs->zone[item->zone].type == ZNBD_ZONE_CONVENTIONAL)
    return 0;
  zones_load (zs, item->zone, image_cond (zs, item->zone,
                                          zs->zone[item->zone].cond,
                                          item->wp), item->wp, item->flags);
  return 0;
}

static int
take_entry (struct image *img, struct zones *zs,
            const struct image_log_entry *e, const uint8_t *data,
            struct zone_error *err)
{
  uint64_t at = 0;
  uint32_t i;
  int r;

  for (i = 0; i < e->items; i++) {
    const struct image_log_item *item = &e->item[i];

    if (item->length > e->length - at || !is_possible (img, zs, item))
      return zone_error (err, EINVAL, "%s: entry %" PRIu64 " of its log is "
                         "no possible state", img->path, e->number);
    r = take_item (img, zs, item, data + at);
    if (r)
      return zone_error (err, r, "no memory for the log of %s", img->path);
    at += item->length;
  }
  return 0;
}

/* Whether there is an entry of the commit in force at a place of the log. */
static bool
find_entry (const struct image *img, uint64_t at, struct image_log_entry *e)
{
  return img->sb.log_size - at >= sizeof *e &&
    image_decode_log (img->replay.buf + at, img->sb.log_size - at, img->seed,
                      e) &&
    e->commit == img->commit.number && e->session == img->commit.session;
}

int
replay_read (struct image *img, struct zones *zs, FILE *out,
             struct zone_error *err)
{
  struct image_replay *rp = &img->replay;
  struct image_log_entry e;
  uint64_t at = 0, number = 0;
  int r;

  replay_free (img);
  if (img->sb.log_size == 0)
    return 0;
  rp->buf = malloc (img->sb.log_size);
  if (rp->buf == NULL)
    return zone_error (err, ENOMEM, "no memory for the log of %s", img->path);
  r = image_pread (img->fd, rp->buf, img->sb.log_size, img->sb.log_offset);
  if (r)
    return zone_error (err, r, "%s: its log: %s", img->path, strerror (r));
  while (find_entry (img, at, &e) && e.number == number + 1) {
    if (take_entry (img, zs, &e, rp->buf + at + sizeof e, err) == -1)
      return -1;
    number++;
    at += sizeof e + (e.length + IMAGE_BLOCK - 1) / IMAGE_BLOCK * IMAGE_BLOCK;
  }
  for (; at < img->sb.log_size; at += IMAGE_BLOCK)
    if (find_entry (img, at, &e) && e.durable > number)
      return zone_error (err, EINVAL, "%s: its log is damaged: entry %" PRIu64
                         " is not there, which %" PRIu64 " has seen",
                         img->path, number + 1, e.number);
  if (number == 0)
    replay_free (img);
  else if (out)
    fprintf (out, "%s: its log has %" PRIu64 " entries, which the next "
             "opening takes up\n", img->path, number);
  return 0;
}

int
replay_write (struct image *img)
{
  struct image_replay *rp = &img->replay;
  uint32_t i;
  int r;

  for (i = 0; i < rp->nitems; i++) {
    r = image_pwrite (img->fd, rp->item[i].data, rp->item[i].length,
                      img->sb.data_offset + rp->item[i].offset);
    if (r)
      return r;
    if (rp->item[i].zone >= img->sb.conventional)
      commit_mark_dirty (img, rp->item[i].zone);
  }
  replay_free (img);
  return 0;
}

void
replay_free (struct image *img)
{
  free (img->replay.buf);
  free (img->replay.item);
  memset (&img->replay, 0, sizeof img->replay);
}

void
replay_patch (const struct image *img, void *buf, uint64_t offset,
              uint64_t length)
{
  uint32_t i;

  for (i = 0; i < img->replay.nitems; i++) {
    const struct replay_item *item = &img->replay.item[i];
    uint64_t from = item->offset > offset ? item->offset : offset;
    uint64_t end = item->offset + item->length;

    if (end > offset + length)
      end = offset + length;
    if (from < end)
      memcpy ((uint8_t *) buf + (from - offset),
              item->data + (from - item->offset), end - from);
  }
}
