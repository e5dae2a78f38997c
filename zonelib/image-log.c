/* SPDX-License-Identifier: BSD-3-Clause */
/* The log: what became durable since the last commit, in one write a round.
 *
 * A commit needs two syncs, one behind the other, of blocks all over the
 * file, new ones among them.  Many small writes that are each to be durable
 * are put into the log instead: the data itself, once more, and the pointers
 * behind it, with a checksum over all, in blocks that were written before
 * and lie in a row.  After a power loss it is written to its place again
 * (image-replay.c).  A commit, which makes durable what lies in place, puts
 * an end to all entries before it.
 *
 * What is too much for an entry, resets, and what comes when the log is full
 * take a commit.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image-internal.h"

/* More data than that is not written twice. */
#define DATA_MAX (UINT64_C (1) << 20)

/* The zones that the log has something of: open addressing, with room for
 * twice as many as there may be. */
#define TABLE_SIZE 4096u
struct log_zone {
  uint32_t zone;                /* + 1; 0: free */
  uint8_t flags;
  uint64_t wp;
};

/* Each flight has a description of the file of its own: the kernel tells of a
 * write that failed, whichever it was, the first sync that ends of each, and
 * no other.  They are opened while the image is, as by a user who may. */
static bool
open_flights (struct image *img)
{
  char name[32];
  unsigned i;

  snprintf (name, sizeof name, "/proc/self/fd/%d", img->fd);
  for (i = 0; i < FLIGHTS_MAX; i++) {
    img->flight[i].fd = open (name, O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (img->flight[i].fd == -1)
      return false;
  }
  return true;
}

void
log_init (struct image *img)
{
  struct image_log *l = &img->log;
  unsigned i;

  for (i = 0; i < FLIGHTS_MAX; i++)
    img->flight[i].fd = -1;
  /* A write below a pointer is one that nobody tells of. */
  l->untracked = img->sb.model == ZNBD_MODEL_HOST_AWARE;
  l->overflow = l->untracked;
  l->off = l->untracked || img->store.readonly || img->sb.log_size == 0 ||
    image_forgets (img->fd) || !open_flights (img);
}

void
log_free (struct image *img)
{
  unsigned i;

  for (i = 0; i < FLIGHTS_MAX; i++) {
    free (img->flight[i].entry);
    if (img->flight[i].fd != -1)
      close (img->flight[i].fd);
  }
  free (img->log.table);
}

static uint64_t
data_max (const struct image *img)
{
  uint64_t share = img->sb.log_size / 4;

  return share < DATA_MAX ? share : DATA_MAX;
}

void
log_note (struct image *img, uint32_t zone, uint64_t offset, uint64_t length)
{
  struct image_log *l = &img->log;
  struct log_range *last;

  pthread_mutex_lock (&img->dirty_lock);
  last = &l->direct[l->ndirect ? l->ndirect - 1 : 0];
  if (l->ndirect > 0 && last->zone == zone && last->offset == offset &&
      last->length == length)
    ;
  else if (l->overflow || l->ndirect == LOG_DIRECT_MAX ||
           length > data_max (img))
    l->overflow = true;
  else
    l->direct[l->ndirect++] = (struct log_range) { zone, offset, length };
  pthread_mutex_unlock (&img->dirty_lock);
}

bool
log_is_idle (struct image *img)
{
  bool idle;

  pthread_mutex_lock (&img->dirty_lock);
  idle = img->ndirty == 0 && img->log.ndirect == 0 && !img->log.overflow;
  pthread_mutex_unlock (&img->dirty_lock);
  return idle;
}

void
log_forget_direct (struct image *img)
{
  img->log.ndirect = 0;
  img->log.overflow = img->log.untracked;
}

static struct log_zone *
find (const struct image_log *l, uint32_t zone)
{
  uint32_t i = zone * UINT32_C (2654435761) % TABLE_SIZE;

  while (l->table[i].zone && l->table[i].zone != zone + 1)
    i = (i + 1) % TABLE_SIZE;
  return &l->table[i];
}

/* What a zone's pointer and flags are by what is durable. */
static int
durable (struct image *img, uint32_t zone, struct image_payload *p)
{
  const struct log_zone *z = find (&img->log, zone);

  if (z->zone == 0)
    return round_read_record (img, zone, p);
  p->wp = z->wp;
  p->flags = z->flags;
  return 0;
}

static void
remember (struct image_log *l, const struct image_log_item *item)
{
  struct log_zone *z = find (l, item->zone);

  if (z->zone == 0)
    l->nzones++;
  *z = (struct log_zone) {
    .zone = item->zone + 1, .flags = item->flags, .wp = item->wp,
  };
}

void
log_retire (struct image *img)
{
  struct image_log *l = &img->log;
  uint32_t i;

  for (i = 0; i < TABLE_SIZE && l->nzones > 0; i++)
    if (l->table[i].zone) {
      struct zone *z = &img->zones->zone[l->table[i].zone - 1];

      zone_lock (&z->lock);
      commit_mark_dirty (img, l->table[i].zone - 1);
      zone_unlock (&z->lock);
    }
}

void
log_restart (struct image *img)
{
  struct image_log *l = &img->log;

  if (l->nzones > 0)
    memset (l->table, 0, TABLE_SIZE * sizeof *l->table);
  l->nzones = 0;
  l->used = l->number = 0;
  l->durable = 0;
}

static int
allocate (struct image *img)
{
  unsigned i;

  for (i = 0; i < FLIGHTS_MAX; i++) {
    img->flight[i].entry = malloc (IMAGE_BLOCK + data_max (img));
    if (img->flight[i].entry == NULL)
      return -1;
  }
  img->log.table = calloc (TABLE_SIZE, sizeof *img->log.table);
  return img->log.table ? 0 : -1;
}

/* Blocks of holes, or that were never written, would make each entry wait
 * for the file system's own journal. */
int
log_prepare (struct image *img, bool *more)
{
  struct image_log *l = &img->log;
  uint64_t at = img->sb.log_offset + l->prepared;
  uint64_t end = img->sb.log_offset + img->sb.log_size;
  int r;

  *more = false;
  if (l->off || l->ready)
    return 0;
  if (l->table == NULL && allocate (img) == -1) {
    l->off = true;
    return 0;
  }
  if (at < end && !img->block_device &&
      (l->prepared > 0 || lseek (img->fd, at, SEEK_HOLE) < (off_t) end)) {
    uint64_t n = end - at < data_max (img) ? end - at : data_max (img);

    memset (img->flight[0].entry, 0, n);
    r = image_pwrite (img->fd, img->flight[0].entry, n, at);
    l->prepared += n;
    /* It does without where there is no space for it. */
    l->off = r == ENOSPC || r == EDQUOT;
    if (l->off)
      image_punch (img->fd, img->sb.log_offset, img->sb.log_size);
    *more = !l->off;
    return l->off ? 0 : r;
  }
  l->ready = true;
  return 0;
}

/* The zones that log_try took, for the commit that is due. */
static void
put_back (struct image *img, const uint32_t *list, uint32_t n)
{
  uint32_t i;

  for (i = 0; i < n; i++) {
    struct zone *z = &img->zones->zone[list[i]];

    zone_lock (&z->lock);
    commit_mark_dirty (img, list[i]);
    zone_unlock (&z->lock);
  }
}

/* Adds an item with its data; false where it does not fit, or cannot be read
 * again: a commit does without. */
static bool
add (struct image *img, struct image_log_entry *e,
     const struct image_log_item *item)
{
  uint64_t start = img->sb.data_offset +
    zones_start (img->zones, item->zone);

  if (e->items == IMAGE_LOG_ITEMS ||
      item->length > data_max (img) - e->length ||
      image_pread (img->fd, (uint8_t *) (e + 1) + e->length, item->length,
                   start + item->offset))
    return false;
  e->item[e->items++] = *item;
  e->length += item->length;
  return true;
}

/* It does not fit; no errno. */
#define NO_ROOM (-1)

static int
add_zones (struct image *img, struct image_log_entry *e,
           const struct image_payload *now, const uint32_t *list, uint32_t n)
{
  struct image_payload was;
  uint32_t i;
  int r = 0;

  for (i = 0; i < n && r == 0; i++) {
    struct image_log_item item = {
      .zone = list[i], .wp = now[i].wp, .flags = now[i].flags,
    };

    r = durable (img, list[i], &was);
    if (r)
      break;
    if (now[i].wp < was.wp || now[i].wp - was.wp > data_max (img))
      return NO_ROOM;
    if (now[i].wp == was.wp && now[i].flags == was.flags)
      continue;
    item.offset = was.wp;
    item.length = now[i].wp - was.wp;
    if (!add (img, e, &item))
      return NO_ROOM;
  }
  return r;
}

/* Whether anything of the file could not be written since it was last asked.
 * Then what was read for an entry may be what the disk had before, for such a
 * page is not kept.  Nothing is waited for: the first page is a superblock. */
static bool
has_failed (const struct image *img)
{
  return sync_file_range (img->fd, 0, 1, SYNC_FILE_RANGE_WAIT_BEFORE) == -1 &&
    (errno == EIO || errno == ENOSPC || errno == EDQUOT);
}

enum log_verdict
log_try (struct image *img, struct flight *f, int *error)
{
  struct image_log *l = &img->log;
  struct image_log_entry *e = f->entry;
  struct image_payload now[IMAGE_LOG_ITEMS];
  struct log_range direct[LOG_DIRECT_MAX];
  uint32_t *list, n, ndirect, i;
  uint64_t size;
  int r = 0;

  pthread_mutex_lock (&img->dirty_lock);
  n = img->ndirty;
  ndirect = l->ndirect;
  if (!l->ready || l->overflow || n + ndirect > IMAGE_LOG_ITEMS ||
      l->nzones + n > TABLE_SIZE / 2) {
    pthread_mutex_unlock (&img->dirty_lock);
    return n + ndirect > 0 || l->overflow ? LOG_COMMIT : LOG_NOTHING;
  }
  list = img->dirty;
  img->dirty = img->spare;
  img->spare = list;
  img->ndirty = l->ndirect = 0;
  memcpy (direct, l->direct, ndirect * sizeof *direct);
  pthread_mutex_unlock (&img->dirty_lock);

  memset (e, 0, sizeof *e);
  for (i = 0; i < n; i++)
    if (round_snapshot (img, list[i], &now[i]))
      r = NO_ROOM;              /* a reset */
  if (r == 0)
    r = add_zones (img, e, now, list, n);
  for (i = 0; i < ndirect && r == 0; i++) {
    struct image_log_item item = {
      .zone = direct[i].zone, .length = direct[i].length,
      .offset = direct[i].offset,
    };

    r = add (img, e, &item) ? 0 : NO_ROOM;
  }
  if (r <= 0 && has_failed (img))
    r = EIO;
  size = (sizeof *e + e->length + IMAGE_BLOCK - 1) / IMAGE_BLOCK *
    IMAGE_BLOCK;
  if (r > 0) {
    *error = r;
    return LOG_FAILED;
  }
  if (r || size > img->sb.log_size - l->used) {
    put_back (img, list, n);
    return LOG_COMMIT;
  }
  if (e->items == 0)
    return LOG_NOTHING;
  for (i = 0; i < e->items; i++)
    if (e->item[i].zone >= img->sb.conventional)
      remember (l, &e->item[i]);
  e->commit = img->commit.number;
  e->session = img->commit.session;
  e->number = ++l->number;
  e->durable = l->durable;
  memset ((uint8_t *) (e + 1) + e->length, 0, size - sizeof *e - e->length);
  image_encode_log (e, e + 1, img->seed);
  f->length = size;
  f->offset = img->sb.log_offset + l->used;
  l->used += size;
  return LOG_ENTRY;
}
