/* SPDX-License-Identifier: BSD-3-Clause */
/* The image store: a zoned disk in one sparse file or on a block device
 * that keeps its state.  See docs/image-format.md for the promises and how
 * the format keeps them.
 *
 * Data goes through the page cache.  Without a ring the calling thread does
 * it; with one, everything that may have to wait is submitted there.  What is
 * in memory may be copied there and not moved by the kernel (image-copy.c).
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image-internal.h"

/* The largest write that is done without the ring. */
#define QUICK_MAX (256u << 10)

/* What a read or write on a ring carries in store_io.priv. */
struct ring_io {
  struct ring_op op;
  struct image *img;
};
_Static_assert (sizeof (struct ring_io) <=
                sizeof (((struct store_io *) 0)->priv), "");

static uint64_t
file_offset (const struct image *img, const struct store_io *io)
{
  return img->sb.data_offset + io->offset;
}

/* One buffer takes the kernel less than a vector of one. */
static ssize_t
transfer_once (struct image *img, const struct store_io *io)
{
  uint64_t at = file_offset (img, io);

  if (io->niov > 1)
    return io->op == STORE_READ ? preadv (img->fd, io->iov, io->niov, at)
      : pwritev (img->fd, io->iov, io->niov, at);
  return io->op == STORE_READ
    ? pread (img->fd, io->iov->iov_base, io->iov->iov_len, at)
    : pwrite (img->fd, io->iov->iov_base, io->iov->iov_len, at);
}

/* Reads or writes what is left after the first done bytes; returns 0 or an
 * errno with *done moved on. */
static int
transfer (struct image *img, struct store_io *io, uint64_t *done)
{
  uint64_t skip = *done;
  unsigned i;
  ssize_t r;

  if (skip == 0) {
    r = transfer_once (img, io);
    if (r > 0)
      *done = skip = r;
    else if (r == -1 && errno != EINTR)
      return errno;
  }
  /* Rare: the rest, piece by piece. */
  for (i = 0; i < io->niov; i++) {
    char *p = io->iov[i].iov_base;
    size_t left = io->iov[i].iov_len;

    if (skip >= left) {
      skip -= left;
      continue;
    }
    p += skip;
    left -= skip;
    skip = 0;
    while (left > 0) {
      r = io->op == STORE_READ
        ? pread (img->fd, p, left, file_offset (img, io) + *done)
        : pwrite (img->fd, p, left, file_offset (img, io) + *done);
      if (r == -1 && errno == EINTR)
        continue;
      if (r == -1)
        return errno;
      if (r == 0)
        return EIO;             /* the file ends here: truncated */
      p += r;
      left -= r;
      *done += r;
    }
  }
  return 0;
}

static void
patch_read (struct image *img, const struct store_io *io)
{
  uint64_t offset = io->offset;
  unsigned i;

  for (i = 0; i < io->niov; i++) {
    replay_patch (img, io->iov[i].iov_base, offset, io->iov[i].iov_len);
    offset += io->iov[i].iov_len;
  }
}

void
image_done (struct image *img, struct store_io *io, int error, uint64_t bytes)
{
  switch (io->op) {
  case STORE_WRITE:
    copy_exists (img, io->offset, bytes);
    /* fallthrough */
  case STORE_ZERO:
  case STORE_DISCARD:
    if (io->zone < img->sb.conventional)
      log_note (img, io->zone, io->offset - zones_start (img->zones, io->zone),
                io->length);
    break;
  case STORE_READ:
    if (img->replay.nitems > 0)
      patch_read (img, io);
    break;
  default:
    break;
  }
  io->done (io, error, bytes);
}

bool
image_finds_room (struct image *img, int error)
{
  return (error == ENOSPC || error == EDQUOT) && kept_give_back (img);
}

static void
ring_done (struct ring_op *op, int res)
{
  struct ring_io *rio = (struct ring_io *) op;
  struct store_io *io = (struct store_io *)
    ((char *) rio - offsetof (struct store_io, priv));
  uint64_t done = res > 0 ? res : 0;
  int r = 0;

  if (res < 0 && res != -EINTR && res != -EAGAIN)
    r = -res;
  if (done < io->length && (r == 0 || image_finds_room (rio->img, r)))
    r = transfer (rio->img, io, &done);
  image_done (rio->img, io, r, done);
}

static void
submit_to_ring (struct image *img, struct store_io *io)
{
  struct ring_io *rio = (struct ring_io *) &io->priv;
  struct io_uring_sqe *sqe = ring_sqe (io->ring);

  rio->op.done = ring_done;
  rio->img = img;
  if (io->op == STORE_READ && io->niov == 1 && io->length <= UINT32_MAX)
    io_uring_prep_read (sqe, img->fd, io->iov->iov_base, io->length,
                        file_offset (img, io));
  else if (io->op == STORE_WRITE && io->niov == 1 && io->length <= UINT32_MAX)
    io_uring_prep_write (sqe, img->fd, io->iov->iov_base, io->length,
                         file_offset (img, io));
  else if (io->op == STORE_READ)
    io_uring_prep_readv (sqe, img->fd, io->iov, io->niov,
                         file_offset (img, io));
  else
    io_uring_prep_writev (sqe, img->fd, io->iov, io->niov,
                          file_offset (img, io));
  ring_set_op (io->ring, sqe, &rio->op);
}

/* Whether a write is quicker done than handed over: a ring gives buffered
 * writes to a worker thread, unless the file system can do them without
 * waiting (ext4 and tmpfs say that they cannot).  That costs more than to
 * copy whole pages into the cache, which waits for nothing but a kernel that
 * has too much to write back, and then for all writers.  A part of a page
 * may have to be read first.  (Where the thread has more to do, it is said.) */
static bool
is_quick (const struct image *img, const struct store_io *io)
{
  return io->op == STORE_WRITE && io->length <= QUICK_MAX &&
    !(io->flags & STORE_ASIDE) &&
    (file_offset (img, io) | io->length) % IMAGE_BLOCK == 0;
}

/* The same as image_space_submit, and waits. */
static int
perform_space (struct image *img, struct store_io *io)
{
  uint64_t at = file_offset (img, io);

  switch (io->op) {
  case STORE_ZERO:
    return image_zero (img->fd, at, io->length, io->flags & STORE_MAY_TRIM);
  case STORE_FINISH:
    return image_zero (img->fd, at, io->length, true);
  case STORE_DISCARD:
    /* A hint, like the other one: that it fails is nobody's concern. */
    image_punch (img->fd, at, io->length);
    return 0;
  default:
    posix_fadvise (img->fd, at, io->length, POSIX_FADV_WILLNEED);
    return 0;
  }
}

/* Carries an operation out, whatever may have been in its way. */
void
image_perform (struct image *img, struct store_io *io)
{
  uint64_t done = 0;
  int r = 0;

  if (io->op == STORE_WRITE || io->op == STORE_ZERO ||
      io->op == STORE_DISCARD || io->op == STORE_FINISH)
    kept_claim (img, io->zone, io->offset + io->length -
                zones_start (img->zones, io->zone));
  switch (io->op) {
  case STORE_WRITE:
    if ((io->ring == NULL || io->length <= QUICK_MAX) &&
        copy_write (img, io)) {
      done = io->length;
      break;
    }
    /* fallthrough */
  case STORE_READ:
    if (io->ring && !is_quick (img, io)) {
      submit_to_ring (img, io);
      return;
    }
    r = transfer (img, io, &done);
    if (image_finds_room (img, r))
      r = transfer (img, io, &done);
    break;
  case STORE_ZERO:
  case STORE_FINISH:
  case STORE_DISCARD:
  case STORE_CACHE:
    if (io->ring) {
      image_space_submit (img, io);
      return;
    }
    r = perform_space (img, io);
    if (image_finds_room (img, r))
      r = perform_space (img, io);
    map_forget (img, io->offset, io->length);
    break;
  case STORE_RESET:
    /* Where nothing was written nothing has to wait. */
    if (img->zones->zone[io->zone].wp > 0)
      atomic_fetch_or (&img->zflags[io->zone], ZFLAG_RESET);
    break;
  case STORE_FLUSH:
  case STORE_ZONE_OP:           /* not of this store */
  case STORE_REPORT:
    break;
  }
  image_done (img, io, r, done);
}

#define IMAGE_BLOCK_RECORDS (IMAGE_BLOCK / sizeof (struct image_record))

/* Gives both records of a zone their space before anything of it changes:
 * a full file system is to fail this, and not a commit, after which no
 * reset could make room.  Returns 0 or an errno. */
static int
reserve_records (struct image *img, uint32_t zone)
{
  uint32_t i;
  unsigned t;

  if (zone < img->sb.conventional || img->block_device ||
      (img->zflags[zone] & ZFLAG_SPACE))
    return 0;
  for (t = 0; t < 2; t++) {
    uint64_t at = img->sb.table_offset[t] +
      (uint64_t) zone * sizeof (struct image_record);

    int r = image_allocate (img->fd, at - at % IMAGE_BLOCK, IMAGE_BLOCK);

    if (image_finds_room (img, r))
      r = image_allocate (img->fd, at - at % IMAGE_BLOCK, IMAGE_BLOCK);
    if (r && r != EOPNOTSUPP && r != ENOSYS)
      return r;
  }
  /* That was a block of each table, and so for all zones in it. */
  for (i = zone - zone % IMAGE_BLOCK_RECORDS;
       i < img->sb.zones && i / IMAGE_BLOCK_RECORDS ==
         zone / IMAGE_BLOCK_RECORDS; i++)
    atomic_fetch_or (&img->zflags[i], ZFLAG_SPACE);
  return 0;
}

static void
image_submit (struct store *store, struct store_io *io)
{
  struct image *img = image_of (store);
  int r;

  switch (io->op) {
  case STORE_READ:
  case STORE_CACHE:
    image_perform (img, io);
    return;
  case STORE_FLUSH:
    if (img->store.readonly)
      io->done (io, 0, 0);
    else
      commit_join (img, io);
    return;
  case STORE_WRITE:
  case STORE_ZERO:
  case STORE_DISCARD:
  case STORE_FINISH:
  case STORE_RESET:
  case STORE_ZONE_OP:
  case STORE_REPORT:
    break;
  }
  r = img->store.failed ? EIO : reserve_records (img, io->zone);
  if (r)
    io->done (io, r, 0);
  else if (io->op != STORE_RESET && (img->zflags[io->zone] & ZFLAG_RESET))
    commit_join (img, io);
  else
    image_perform (img, io);
}

static int
image_read (struct store *store, void *buf, uint64_t length, uint64_t offset)
{
  struct image *img = image_of (store);
  int r;

  if (copy_read (img, buf, length, offset))
    return 0;
  r = image_pread (img->fd, buf, length, img->sb.data_offset + offset);
  if (img->replay.nitems > 0)
    replay_patch (img, buf, offset, length);
  return r;
}

/* Under the zone's lock. */
static void
image_zone_changed (struct store *store, uint32_t zone, uint64_t wp,
                    uint8_t cond, uint8_t flags)
{
  struct image *img = image_of (store);

  (void) cond;
  volatile_set (img, zone, wp, flags);
  commit_mark_dirty (img, zone);
}

static int
image_load (struct store *store, struct zones *zs, struct zone_error *err)
{
  struct image *img = image_of (store);
  bool lost, closed;
  int r;

  if (image_read_zones (img, zs, !store->readonly, NULL, NULL, err) == -1)
    return -1;
  lost = image_past (img) == IMAGE_LOST_POWER;
  if (store->readonly) {
    if (lost)
      store->geometry.epoch++;
    return 0;
  }
  r = replay_write (img);
  if (r)
    return zone_error (err, r, "%s: what its log has cannot be written: %s",
                       img->path, strerror (r));
  closed = image_past (img) == IMAGE_WAS_CLOSED;
  r = commit_start_session (img, lost, err);
  if (r == 0 && !closed)
    kept_find (img);
  return r;
}

void
image_free (struct image *img)
{
  map_stop (img);
  replay_free (img);
  log_free (img);
  volatile_stop (img);
  commit_free (img);
  kept_free (img);
  image_file_close (img->fd, img->loop_file);
  free (img->zflags);
  free (img->path);
  free (img);
}

static int
image_close (struct store *store, bool flush, struct zone_error *err)
{
  struct image *img = image_of (store);
  int r = 0;

  if (flush && img->slots)
    r = commit_end_session (img, err);
  image_free (img);
  return r;
}

static int
image_start (struct store *store, struct zone_error *err)
{
  (void) err;
  map_start (image_of (store));
  kept_start (image_of (store));
  return 0;
}

static const struct store_ops image_ops = {
  .name = "image",
  .submit = image_submit,
  .read = image_read,
  .zone_changed = image_zone_changed,
  .load = image_load,
  .start = image_start,
  .mapped = image_mapped,
  .close = image_close,
};

static void
fill_geometry (const struct image *img, struct znbd_geometry *g)
{
  const struct image_superblock *sb = &img->sb;

  memset (g, 0, sizeof *g);
  g->size = sb->size;
  g->zone_size = sb->zone_size;
  g->zone_capacity = sb->zone_capacity;
  g->epoch = img->commit.epoch;
  g->zones = sb->zones;
  g->conventional = sb->conventional;
  g->max_open = sb->max_open;
  g->max_active = sb->max_active;
  g->max_append = sb->max_append;
  g->granularity = sb->granularity;
  g->model = sb->model;
  memcpy (g->uuid, sb->uuid, 16);
}

/* Opens an image as far as its superblock and commit. */
struct image *
image_open_head (const char *path, bool readonly, FILE *out,
                 unsigned *faults, struct zone_error *err)
{
  struct image *img = calloc (1, sizeof *img);

  if (img == NULL || (img->path = strdup (path)) == NULL) {
    zone_error (err, ENOMEM, "%s: no memory", path);
    free (img);
    return NULL;
  }
  img->store.ops = &image_ops;
  img->store.readonly = readonly;
  img->fd = image_file_open (path, readonly, &img->block_device,
                             &img->found_size, &img->loop_file, err);
  if (img->fd == -1) {
    free (img->path);
    free (img);
    return NULL;
  }
  /* Block devices may have to write their zeros. */
  img->store.fast_zero = !img->block_device;
  img->store.max_write = QUICK_MAX;
  if (image_read_head (img, out, faults, err) == -1) {
    image_file_close (img->fd, img->loop_file);
    free (img->path);
    free (img);
    return NULL;
  }
  map_init (img);
  log_init (img);
  img->zflags = calloc (img->sb.zones, 1);
  if (commit_init (img) == -1 || kept_init (img) == -1 ||
      img->zflags == NULL) {
    zone_error (err, ENOMEM, "%s: no memory for %" PRIu32 " zones", path,
                img->sb.zones);
    image_free (img);
    return NULL;
  }
  fill_geometry (img, &img->store.geometry);
  return img;
}

struct store *
image_open (const char *path, bool readonly, struct zone_error *err)
{
  struct image *img = image_open_head (path, readonly, NULL, NULL, err);

  return img ? &img->store : NULL;
}
