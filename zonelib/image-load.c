/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading an image's metadata and judging it: the same code opens images
 * and checks them.
 *
 * The rule: an opened image has exactly the state that it is to have, or
 * it is refused.  The commit in force holds a sum and a parity over all
 * records in force; records that were not part of a finished commit are
 * passed over; a single damaged record is made again from the parity, and
 * the sum proves it.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "image-internal.h"

#define CHUNK_ZONES (32u << 10)
#define BROKEN_MAX 64

static void __attribute__ ((format (printf, 3, 4)))
say (FILE *out, unsigned *faults, const char *fs, ...)
{
  va_list args;

  if (faults)
    ++*faults;
  if (out) {
    va_start (args, fs);
    vfprintf (out, fs, args);
    va_end (args);
  }
}

/* Geometry that the rest of the code can rely on. */
static int
check_geometry (const char *path, const struct image_superblock *sb,
                struct zone_error *err)
{
  struct store_geometry g = {
    .size = sb->size, .zone_size = sb->zone_size,
    .zone_capacity = sb->zone_capacity, .conventional = sb->conventional,
    .max_open = sb->max_open, .max_active = sb->max_active,
    .granularity = sb->granularity, .model = sb->model,
  };
  struct image_superblock expected = *sb;
  struct zone_error why;

  image_layout (&expected);
  if (store_geometry_check (&g, &why) == -1)
    return zone_error (err, EINVAL, "%s: geometry is impossible: %s", path,
                       why.text);
  if (sb->zone_capacity == 0 || sb->zone_size > IMAGE_ZONE_MAX ||
      sb->max_append % sb->granularity != 0 ||
      sb->zones != (sb->size - 1) / sb->zone_size + 1 ||
      memcmp (&expected, sb, sizeof expected) != 0)
    return zone_error (err, EINVAL, "%s: superblock's numbers do not fit "
                       "together", path);
  return 0;
}

static int
read_superblock (struct image *img, FILE *out, unsigned *faults,
                 struct zone_error *err)
{
  struct image_superblock copy;
  uint8_t block[IMAGE_BLOCK];
  uint32_t version, newest = 0, oldest = UINT32_MAX;
  bool seen = false, found = false, damaged[IMAGE_SUPERBLOCKS] = { false };
  unsigned i;
  int r;

  for (i = 0; i < IMAGE_SUPERBLOCKS; i++) {
    if (img->found_size < (i + 1) * IMAGE_BLOCK)
      break;
    r = image_pread (img->fd, block, sizeof block, i * IMAGE_BLOCK);
    if (r)
      return zone_error (err, r, "%s: %s", img->path, strerror (r));
    version = image_peek_version (block);
    seen |= memcmp (block, IMAGE_MAGIC, 8) == 0;
    if (version > newest)
      newest = version;
    if (version < oldest)
      oldest = version;
    if (!image_decode_superblock (block, &copy))
      damaged[i] = true;
    else if (!found) {
      img->sb = copy;
      found = true;
    }
    else if (memcmp (&img->sb, &copy, sizeof copy) != 0)
      return zone_error (err, EINVAL, "%s: its two superblocks are of "
                         "different images", img->path);
  }
  if (!seen)
    return zone_error (err, EINVAL, "%s: is not a znbd image", img->path);
  if (!found && newest > IMAGE_VERSION && newest == oldest)
    return zone_error (err, ENOTSUP, "%s: has image format version %" PRIu32
                       ", this znbd knows versions up to %d: a newer znbd is "
                       "needed", img->path, newest, IMAGE_VERSION);
  img->sb_damaged = false;
  for (i = 0; i < IMAGE_SUPERBLOCKS; i++)
    if (damaged[i]) {
      img->sb_damaged = true;
      say (out, faults, "%s: superblock copy %u is damaged\n", img->path,
           i + 1);
    }
  if (found)
    return check_geometry (img->path, &img->sb, err);
  return zone_error (err, EINVAL, "%s: superblocks are damaged", img->path);
}

/* Finds the commit in force: the newest of all sectors of both slots. */
static int
read_commit (struct image *img, FILE *out, unsigned *faults,
             struct zone_error *err)
{
  struct image_commit c;
  uint8_t slot[IMAGE_BLOCK];
  bool found = false;
  unsigned i, j, bad, good;
  int r;

  for (i = 0; i < IMAGE_COMMIT_SLOTS; i++) {
    r = image_pread (img->fd, slot, sizeof slot,
                     IMAGE_COMMIT_OFFSET + i * IMAGE_BLOCK);
    if (r)
      return zone_error (err, r, "%s: %s", img->path, strerror (r));
    bad = good = 0;
    for (j = 0; j < IMAGE_COMMIT_COPIES; j++) {
      if (!image_decode_commit (slot + j * IMAGE_SECTOR, img->seed, &c)) {
        bad++;
        continue;
      }
      good++;
      if (!found || c.number > img->commit.number)
        img->commit = c;
      found = true;
    }
    if (bad)
      say (out, faults, "%s: commit slot %u: %u of %u copies are damaged\n",
           img->path, i, bad, IMAGE_COMMIT_COPIES);
    /* Tearing leaves sectors of two commits, never none: what it held may
     * have been the newest. */
    if (good == 0)
      return zone_error (err, EINVAL, "%s: commit slot %u is damaged, which "
                         "may have held the newest state", img->path, i);
  }
  return 0;
}

static bool
is_of_this_boot (const struct image *img)
{
  uint8_t boot_id[16];

  return image_boot_id (boot_id) &&
    memcmp (boot_id, img->commit.boot_id, 16) == 0;
}

/* Whether a sync failed in the last session, or in an opening after it. */
static int
read_mark (struct image *img, struct zone_error *err)
{
  uint64_t mark;
  int r;

  r = image_pread (img->fd, &mark, sizeof mark, img->sb.volatile_offset +
                   (uint64_t) img->sb.zones * sizeof mark);
  if (r)
    return zone_error (err, r, "%s: %s", img->path, strerror (r));
  img->distrusted = le64toh (mark) == IMAGE_MARK;
  if (mark != 0 && !img->distrusted && !(img->commit.flags & IMAGE_CLEAN) &&
      is_of_this_boot (img))
    return zone_error (err, EINVAL, "%s: the mark of its volatile pointers "
                       "is damaged", img->path);
  return 0;
}

/* But the mark, which may be in the same danger. */
static void
drop_cache (const struct image *img)
{
  posix_fadvise (img->fd, 0, img->sb.volatile_offset, POSIX_FADV_DONTNEED);
  posix_fadvise (img->fd, img->sb.table_offset[0], 0, POSIX_FADV_DONTNEED);
}

int
image_read_head (struct image *img, FILE *out, unsigned *faults,
                 struct zone_error *err)
{
  if (read_superblock (img, out, faults, err) == -1)
    return -1;
  if (img->found_size < img->sb.file_size)
    return zone_error (err, EINVAL, "%s: is truncated: has %" PRIu64
                       " bytes, needs %" PRIu64, img->path, img->found_size,
                       img->sb.file_size);
  img->seed = image_seed (img->sb.uuid);
  if (read_commit (img, NULL, NULL, err) == -1 ||
      read_mark (img, err) == -1)
    return -1;
  /* What could not be written may still be in the page cache, where it
   * counts as written: no later sync would write it.  From now on it is
   * what the disk has. */
  if (img->distrusted)
    drop_cache (img);
  memset (&img->commit, 0, sizeof img->commit);
  return read_commit (img, out, faults, err);
}

enum image_past
image_past (const struct image *img)
{
  if (img->commit.flags & IMAGE_CLEAN)
    return IMAGE_WAS_CLOSED;
  return !img->distrusted && is_of_this_boot (img)
    ? IMAGE_WAS_KILLED : IMAGE_LOST_POWER;
}

/* The walk over the tables. */
struct walk {
  struct image *img;
  struct zones *zs;
  bool mend;
  FILE *out;
  unsigned *faults;
  struct zone_error *err;
  uint64_t sum;
  struct image_payload parity;

  /* Zones of which a copy cannot be read, with what was chosen. */
  struct { uint32_t zone; struct image_payload chosen; } broken[BROKEN_MAX];
  unsigned nbroken;
  uint32_t nnewer;              /* copies of commits that never were */
  const struct image_payload *made;     /* for zone made_zone, or NULL */
  uint32_t made_zone;
};

bool
image_is_possible (const struct zones *zs, uint32_t i,
                   const struct image_payload *p)
{
  const struct zone *z = &zs->zone[i];
  uint64_t capacity = zones_capacity (zs, z);

  if (p->wp > capacity || p->wp % zs->geometry.granularity != 0 ||
      !image_is_zero (p->zero, sizeof p->zero) ||
      (p->flags & ~(IMAGE_NON_SEQ | IMAGE_RESET_REC)))
    return false;
  switch (p->cond) {
  case ZNBD_COND_READ_ONLY:
  case ZNBD_COND_OFFLINE:
    return true;
  case ZNBD_COND_EMPTY:
  case ZNBD_COND_CLOSED:
  case ZNBD_COND_FULL:
    return z->type != ZNBD_ZONE_CONVENTIONAL &&
      p->cond == image_cond (zs, i, p->cond, p->wp);
  default:
    return false;
  }
}

static int
take (struct walk *w, uint32_t zone, const struct image_payload *p)
{
  if (p->commit == 0)
    return 0;
  if (!image_is_possible (w->zs, zone, p))
    return zone_error (w->err, EINVAL, "%s: zone %" PRIu32 ": its record is "
                       "no possible state", w->img->path, zone);
  zones_load (w->zs, zone, p->cond, p->wp, p->flags);
  return 0;
}

/* Clears a copy that no finished commit wrote, so that no later commit can
 * take it for its own. */
static int
clear_copy (struct walk *w, uint32_t zone, unsigned table)
{
  static const struct image_record zeros;
  int r;

  if (!w->mend)
    return 0;
  r = image_pwrite (w->img->fd, &zeros, sizeof zeros,
                    w->img->sb.table_offset[table] +
                    (uint64_t) zone * sizeof zeros);
  if (r)
    return zone_error (w->err, r, "%s: %s", w->img->path, strerror (r));
  return 0;
}

/* One zone: its two copies. */
static int
walk_zone (struct walk *w, uint32_t zone, const struct image_record *copy[2])
{
  struct image *img = w->img;
  struct image_payload p[2];
  bool valid[2], newer[2];
  unsigned i, chosen;

  for (i = 0; i < 2; i++) {
    valid[i] = image_decode_record (copy[i], zone, img->seed, &p[i]);
    newer[i] = valid[i] && p[i].commit > img->commit.number;
    if (!valid[i] || newer[i])
      p[i].commit = 0;
  }
  chosen = p[1].commit > p[0].commit;
  if (p[chosen].commit == 0)
    memset (&p[chosen], 0, sizeof p[chosen]);
  w->sum += image_mix (zone, &p[chosen]);
  image_xor (&w->parity, &p[chosen]);
  if (chosen)
    img->zflags[zone] |= ZFLAG_IN_B;
  if (!valid[0] || !valid[1]) {
    if (w->nbroken < BROKEN_MAX) {
      w->broken[w->nbroken].zone = zone;
      w->broken[w->nbroken].chosen = p[chosen];
    }
    w->nbroken++;
  }
  w->nnewer += newer[0] + newer[1];
  return take (w, zone, &p[chosen]);
}

static int
clear_newer (struct walk *w, uint32_t zone, const struct image_record *copy[2])
{
  struct image_payload p;
  unsigned i;

  for (i = 0; i < 2; i++)
    if (image_decode_record (copy[i], zone, w->img->seed, &p) &&
        p.commit > w->img->commit.number && clear_copy (w, zone, i) == -1)
      return -1;
  return 0;
}

static int
walk_tables (struct walk *w,
             int (*one) (struct walk *w, uint32_t zone,
                         const struct image_record *copy[2]))
{
  struct image *img = w->img;
  size_t record = sizeof (struct image_record);
  uint32_t n = img->sb.zones, first, count, i;
  struct image_record *buf = malloc (2 * CHUNK_ZONES * record);
  int r = 0;

  if (buf == NULL)
    return zone_error (w->err, ENOMEM, "no memory for a zone table");
  for (first = 0; first < n && r == 0; first += count) {
    const struct image_record *copy[2];

    count = n - first < CHUNK_ZONES ? n - first : CHUNK_ZONES;
    for (i = 0; i < 2 && r == 0; i++)
      r = image_pread (img->fd, buf + i * count, count * record,
                       img->sb.table_offset[i] + first * record);
    if (r) {
      zone_error (w->err, r, "%s: zone table: %s", img->path, strerror (r));
      break;
    }
    if (image_is_zero (buf, 2 * count * record))
      continue;
    for (i = 0; i < count && r == 0; i++) {
      copy[0] = buf + i;
      copy[1] = buf + count + i;
      r = one (w, first + i, copy);
    }
  }
  free (buf);
  return r ? -1 : 0;
}

static bool
adds_up (const struct walk *w)
{
  return w->sum == w->img->commit.sum &&
    memcmp (&w->parity, &w->img->commit.parity, sizeof w->parity) == 0;
}

/* Makes the one record that is missing from the parity of all others. */
static int
reconstruct (struct walk *w)
{
  struct image *img = w->img;
  unsigned i, n = w->nbroken < BROKEN_MAX ? w->nbroken : BROKEN_MAX;

  for (i = 0; i < n; i++) {
    uint32_t zone = w->broken[i].zone;
    struct image_payload made = img->commit.parity;
    uint64_t sum = w->sum - image_mix (zone, &w->broken[i].chosen);

    image_xor (&made, &w->parity);
    image_xor (&made, &w->broken[i].chosen);
    if (sum + image_mix (zone, &made) != img->commit.sum ||
        made.commit > img->commit.number ||
        !image_is_possible (w->zs, zone, &made))
      continue;
    say (w->out, NULL, "%s: zone %" PRIu32 ": its record is made again from "
         "the parity\n", img->path, zone);
    w->broken[i].chosen = made;
    zones_load (w->zs, zone, made.cond, made.wp, made.flags);
    w->made = &w->broken[i].chosen;
    w->made_zone = zone;
    img->zflags[zone] &= ~ZFLAG_IN_B;
    return 0;
  }
  if (w->nbroken > 0)
    return zone_error (w->err, EINVAL, "%s: zone table is damaged: %u zones, "
                       "the first is %" PRIu32, img->path, w->nbroken,
                       w->broken[0].zone);
  return zone_error (w->err, EINVAL, "%s: zone table does not match its "
                     "commit: parts of it are missing or older", img->path);
}

/* Writes what was made again, in the place of the damaged copy, whichever
 * it is: both. */
static int
write_made (struct walk *w)
{
  struct image *img = w->img;
  struct image_record r;
  unsigned t;
  int e;

  if (w->made == NULL || !w->mend)
    return 0;
  image_encode_record (w->made_zone, w->made, img->seed, &r);
  for (t = 0; t < 2; t++) {
    e = image_pwrite (img->fd, &r, sizeof r, img->sb.table_offset[t] +
                      (uint64_t) w->made_zone * sizeof r);
    if (e)
      return zone_error (w->err, e, "%s: %s", img->path, strerror (e));
  }
  return 0;
}

/* Writes both superblocks again where one is damaged. */
static int
mend_superblocks (struct walk *w)
{
  uint8_t block[IMAGE_BLOCK];
  unsigned i;
  int e;

  image_encode_superblock (&w->img->sb, block);
  for (i = 0; i < IMAGE_SUPERBLOCKS; i++) {
    e = image_pwrite (w->img->fd, block, sizeof block, i * IMAGE_BLOCK);
    if (e)
      return zone_error (w->err, e, "%s: %s", w->img->path, strerror (e));
  }
  return 0;
}

/* Clears copies that can't be read and are not needed. */
static int
clear_broken (struct walk *w)
{
  struct image_record r;
  struct image_payload p;
  unsigned i, t, n = w->nbroken < BROKEN_MAX ? w->nbroken : BROKEN_MAX;

  for (i = 0; i < n && w->mend; i++)
    for (t = 0; t < 2; t++) {
      uint32_t zone = w->broken[i].zone;
      uint64_t at = w->img->sb.table_offset[t] + (uint64_t) zone * sizeof r;

      if (image_pread (w->img->fd, &r, sizeof r, at) == 0 &&
          !image_decode_record (&r, zone, w->img->seed, &p) &&
          clear_copy (w, zone, t) == -1)
        return -1;
    }
  return 0;
}

/* After a process died and the machine did not: pointers that were not
 * yet durable. */
static int
read_volatile (struct walk *w)
{
  struct image *img = w->img;
  uint64_t *slots, wp;
  uint32_t n = img->sb.zones, first, count, i;
  uint8_t flags;
  int r = 0;

  slots = malloc (CHUNK_ZONES * 8);
  if (slots == NULL)
    return zone_error (w->err, ENOMEM, "no memory for volatile pointers");
  for (first = 0; first < n && r == 0; first += count) {
    count = n - first < CHUNK_ZONES ? n - first : CHUNK_ZONES;
    r = image_pread (img->fd, slots, count * 8,
                     img->sb.volatile_offset + (uint64_t) first * 8);
    if (r) {
      zone_error (w->err, r, "%s: %s", img->path, strerror (r));
      break;
    }
    if (image_is_zero (slots, count * 8))
      continue;
    for (i = 0; i < count; i++) {
      uint32_t zone = first + i;
      struct image_payload p = { .cond = ZNBD_COND_EMPTY };

      if (slots[i] == 0)
        continue;
      if (!image_decode_slot (le64toh (slots[i]), zone, img->commit.session,
                              &wp, &flags)) {
        r = zone_error (w->err, EINVAL, "%s: zone %" PRIu32 ": its volatile "
                        "pointer is damaged", img->path, zone);
        break;
      }
      p.wp = wp;
      p.flags = flags;
      p.cond = image_cond (w->zs, zone, w->zs->zone[zone].cond, wp);
      if (w->zs->zone[zone].type == ZNBD_ZONE_CONVENTIONAL ||
          w->zs->zone[zone].cond == ZNBD_COND_READ_ONLY ||
          w->zs->zone[zone].cond == ZNBD_COND_OFFLINE ||
          !image_is_possible (w->zs, zone, &p)) {
        r = zone_error (w->err, EINVAL, "%s: zone %" PRIu32 ": its volatile "
                        "pointer is no possible state", img->path, zone);
        break;
      }
      zones_load (w->zs, zone, p.cond, wp, flags);
      if (w->mend)
        commit_mark_dirty (img, zone);
    }
  }
  free (slots);
  return r ? -1 : 0;
}

int
image_read_zones (struct image *img, struct zones *zs, bool mend, FILE *out,
                  unsigned *faults, struct zone_error *err)
{
  struct walk *w = calloc (1, sizeof *w);
  unsigned i;
  int r = -1;

  if (w == NULL)
    return zone_error (err, ENOMEM, "no memory to read %s", img->path);
  w->img = img;
  w->zs = zs;
  w->mend = mend;
  w->out = out;
  w->faults = faults;
  w->err = err;
  img->zones = zs;
  if (walk_tables (w, walk_zone) == -1)
    goto out;
  for (i = 0; i < w->nbroken && i < BROKEN_MAX; i++)
    /* An update that was cut off leaves such a copy, and no fault. */
    say (out, image_past (img) == IMAGE_LOST_POWER ? NULL : faults,
         "%s: zone %" PRIu32 ": a copy of its record is damaged\n",
         img->path, w->broken[i].zone);
  if (!adds_up (w) && reconstruct (w) == -1)
    goto out;
  if (image_past (img) == IMAGE_WAS_KILLED && read_volatile (w) == -1)
    goto out;
  if (image_past (img) == IMAGE_LOST_POWER &&
      replay_read (img, zs, out, err) == -1)
    goto out;
  /* Only now is it known that the image is not refused.  What was found may
   * be in the page cache alone, where its server died before it was synced:
   * it has to be durable before anything that an older commit would need is
   * written over. */
  if (mend && (i = image_sync (img->fd)) != 0) {
    zone_error (err, i, "%s: what it holds cannot be made durable: %s",
                img->path, strerror (i));
    volatile_mark (img, true);
    goto out;
  }
  if (write_made (w) == -1 || clear_broken (w) == -1 ||
      (mend && w->nnewer > 0 && walk_tables (w, clear_newer) == -1) ||
      (mend && img->sb_damaged && mend_superblocks (w) == -1))
    goto out;
  r = 0;
 out:
  free (w);
  return r;
}
