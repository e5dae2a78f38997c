/* SPDX-License-Identifier: BSD-3-Clause */
/* Making things durable, for many at once.
 *
 * A round: take the zones that changed since the last one; write each one's
 * new record over the older of its two copies; sync, which makes durable
 * the data below the pointers as well as the records; then write, durably,
 * the next commit, which puts all these records in force at one stroke.
 * Power lost before that leaves the last commit's records untouched.
 *
 * Whoever wants something durable joins.  The first one leads a round for
 * all that joined before it began; when more have joined meanwhile, a
 * thread of our own leads on, so that no client's answer waits for rounds
 * that are not its own.
 *
 * A reset is the one thing that must be durable before its zone is written
 * again: until then the old record's data must stay as it is.  Such a write
 * joins too (see image.c), and the round that makes the reset durable
 * punches its hole.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "debug.h"
#include "image-internal.h"

/* In the list of a round: the zone was gathered as reset. */
#define WAS_RESET (UINT32_C (1) << 31)

int
commit_init (struct image *img)
{
  pthread_mutex_init (&img->dirty_lock, NULL);
  pthread_mutex_init (&img->commit_lock, NULL);
  pthread_cond_init (&img->commit_work, NULL);
  img->waiting_tail = &img->waiting;
  img->dirty = malloc (img->sb.zones * sizeof *img->dirty);
  img->spare = malloc (img->sb.zones * sizeof *img->spare);
  return img->dirty && img->spare ? 0 : -1;
}

void
commit_free (struct image *img)
{
  if (img->thread_started) {
    pthread_mutex_lock (&img->commit_lock);
    img->thread_stop = true;
    pthread_cond_signal (&img->commit_work);
    pthread_mutex_unlock (&img->commit_lock);
    pthread_join (img->thread, NULL);
  }
  free (img->dirty);
  free (img->spare);
  pthread_cond_destroy (&img->commit_work);
  pthread_mutex_destroy (&img->commit_lock);
  pthread_mutex_destroy (&img->dirty_lock);
}

/* Under the zone's lock, or while the image is opened. */
void
commit_mark_dirty (struct image *img, uint32_t zone)
{
  if (img->zflags[zone] & ZFLAG_DIRTY)
    return;
  img->zflags[zone] |= ZFLAG_DIRTY;
  pthread_mutex_lock (&img->dirty_lock);
  img->dirty[img->ndirty++] = zone;
  pthread_mutex_unlock (&img->dirty_lock);
}

/* A file that somebody cut off: what was in it is gone, and writes to it
 * would make holes where data was. */
static bool
is_truncated (const struct image *img)
{
  struct stat st;

  return !img->block_device &&
    (fstat (img->fd, &st) == -1 || (uint64_t) st.st_size < img->sb.file_size);
}

/* What a zone's record is to say; true where it was gathered as reset. */
static bool
snapshot (struct image *img, uint32_t zone, struct image_payload *p)
{
  struct zone *z = &img->zones->zone[zone];
  bool reset;

  memset (p, 0, sizeof *p);
  zone_lock (&z->lock);
  /* With the pointer: between the two a reset could pass by, and its flag
   * would stay. */
  reset = img->zflags[zone] & ZFLAG_RESET;
  img->zflags[zone] &= ~ZFLAG_DIRTY;
  p->wp = z->wp;
  p->flags = z->flags & (ZONE_NON_SEQ | ZONE_RESET_REC);
  p->cond = image_cond (img->zones, zone, z->cond, p->wp);
  zone_unlock (&z->lock);
  return reset && p->wp == 0;
}

static uint64_t
record_offset (const struct image *img, uint32_t zone, bool in_b)
{
  return img->sb.table_offset[in_b] +
    (uint64_t) zone * sizeof (struct image_record);
}

/* Writes one zone's record for commit c.  Returns 0 or an errno. */
static int
write_record (struct image *img, uint32_t *entry, struct image_commit *c,
              bool *changed)
{
  uint32_t zone = *entry;
  bool in_b = img->zflags[zone] & ZFLAG_IN_B;
  struct image_payload old, new;
  struct image_record r;
  int e;

  e = image_pread (img->fd, &r, sizeof r, record_offset (img, zone, in_b));
  if (e)
    return e;
  if (!image_decode_record (&r, zone, img->seed, &old))
    return EIO;                 /* somebody wrote over it */
  if (snapshot (img, zone, &new))
    *entry |= WAS_RESET;
  *changed = old.commit == 0
    ? new.cond != ZNBD_COND_EMPTY || new.flags
    : old.wp != new.wp || old.cond != new.cond || old.flags != new.flags;
  if (!*changed)
    return 0;
  new.commit = c->number;
  c->sum += image_mix (zone, &new) - image_mix (zone, &old);
  image_xor (&c->parity, &old);
  image_xor (&c->parity, &new);
  image_encode_record (zone, &new, img->seed, &r);
  return image_pwrite (img->fd, &r, sizeof r,
                       record_offset (img, zone, !in_b));
}

/* Writes a commit and puts it in force. */
static int
write_commit (struct image *img, const struct image_commit *c)
{
  uint8_t slot[IMAGE_BLOCK] __attribute__ ((aligned (512)));
  struct iovec iov = { slot, sizeof slot };
  uint64_t at = IMAGE_COMMIT_OFFSET + c->number % 2 * IMAGE_BLOCK;
  ssize_t r;
  unsigned i;
  int e;

  for (i = 0; i < IMAGE_COMMIT_COPIES; i++)
    image_encode_commit (c, img->seed, slot + i * IMAGE_SECTOR);
  r = pwritev2 (img->fd, &iov, 1, at, RWF_DSYNC);
  /* Whatever fails to be written in the whole file is reported once, and
   * here it may be: no other error may be tried again. */
  if (r == -1 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL &&
      errno != EINTR)
    return errno;
  if (r != sizeof slot) {
    /* No RWF_DSYNC there, or interrupted. */
    e = image_pwrite (img->fd, slot, sizeof slot, at);
    if (e == 0)
      e = image_sync (img->fd);
    if (e)
      return e;
  }
  img->commit = *c;
  return 0;
}

/* After a commit: the older copies of these zones are the others now, and
 * what was reset may go. */
static void
after_commit (struct image *img, uint32_t *list, uint32_t n)
{
  uint32_t i;

  for (i = 0; i < n; i++)
    if (list[i] & WAS_RESET) {
      uint32_t zone = list[i] & ~WAS_RESET;

      /* Space only: that nothing of it is seen is the pointer's doing. */
      image_punch (img->fd, img->sb.data_offset + zones_start (img->zones,
                                                               zone),
                   zones_length (img->zones, zone));
      atomic_fetch_and (&img->zflags[zone], ~ZFLAG_RESET);
    }
}

/* From now on nobody knows what is durable. */
static int
give_up (struct image *img, int r)
{
  img->store.failed = true;
  volatile_mark (img, true);
  return r;
}

/* One round; next is the commit to be, of which sum and parity follow from
 * the last one and number is set here.  always: write it even where no zone
 * changed.  Returns 0 or an errno, after which the image is failed. */
static int
round_of_commit (struct image *img, struct image_commit *next, bool always)
{
  uint32_t *list, entry, n, i, nchanged = 0;
  uint64_t began = debug_is_on (image_commit) ? debug_now () : 0;
  bool changed;
  int r = 0;

  if (img->store.failed || is_truncated (img))
    return give_up (img, EIO);
  pthread_mutex_lock (&img->dirty_lock);
  list = img->dirty;
  n = img->ndirty;
  img->dirty = img->spare;
  img->spare = list;
  img->ndirty = 0;
  pthread_mutex_unlock (&img->dirty_lock);

  next->number = img->commit.number + 1;
  next->sum = img->commit.sum;
  next->parity = img->commit.parity;
  for (i = 0; i < n && r == 0; i++) {
    r = write_record (img, &list[i], next, &changed);
    if (r == 0 && changed) {
      entry = list[i];
      list[i] = list[nchanged];
      list[nchanged++] = entry;
    }
  }
  if (r == 0)
    r = image_sync (img->fd);
  if (r == 0 && (nchanged > 0 || always))
    r = write_commit (img, next);
  if (r == 0 && img->store.failed)
    r = EIO;
  if (r)
    return give_up (img, r);
  for (i = 0; i < nchanged; i++)
    atomic_fetch_xor (&img->zflags[list[i] & ~WAS_RESET], ZFLAG_IN_B);
  after_commit (img, list, n);
  if (debug_is_on (image_commit))
    debug ("%s: commit %" PRIu64 ": %" PRIu32 " zones, %" PRIu64 " us",
           img->path, next->number, nchanged, debug_now () - began);
  return 0;
}

/* Answers the joined, or lets them go. */
static void
deliver (struct image *img, struct store_io *io, int error)
{
  struct store_io *next;

  for (; io; io = next) {
    next = io->next;
    io->ring = NULL;            /* its owner is another thread, perhaps */
    if (io->op == STORE_FLUSH || error)
      io->done (io, error, 0);
    else
      image_perform (img, io);
  }
}

/* Leads rounds; called and left with commit_lock held, img->committing set
 * by the caller. */
static void
lead (struct image *img, bool is_thread)
{
  struct image_commit next;
  struct store_io *batch;
  int r;

  while ((batch = img->waiting) != NULL) {
    img->waiting = NULL;
    img->waiting_tail = &img->waiting;
    pthread_mutex_unlock (&img->commit_lock);
    next = img->commit;
    r = round_of_commit (img, &next, false);
    deliver (img, batch, r);
    pthread_mutex_lock (&img->commit_lock);
    if (!is_thread && img->waiting && img->thread_started) {
      img->thread_wake = true;
      pthread_cond_signal (&img->commit_work);
      return;
    }
  }
  img->committing = false;
}

static void *
commit_thread (void *arg)
{
  struct image *img = arg;

  pthread_mutex_lock (&img->commit_lock);
  for (;;) {
    while (!img->thread_wake && !img->thread_stop)
      pthread_cond_wait (&img->commit_work, &img->commit_lock);
    if (!img->thread_wake)
      break;
    img->thread_wake = false;
    lead (img, true);
  }
  pthread_mutex_unlock (&img->commit_lock);
  return NULL;
}

void
commit_join (struct image *img, struct store_io *io)
{
  pthread_mutex_lock (&img->commit_lock);
  io->next = NULL;
  *img->waiting_tail = io;
  img->waiting_tail = &io->next;
  /* Started when somebody has to wait for another's round, or must not
   * block: never before a server has forked. */
  if ((img->committing || io->ring) && !img->thread_started)
    img->thread_started =
      pthread_create (&img->thread, NULL, commit_thread, img) == 0;
  if (!img->committing) {
    img->committing = true;
    if (io->ring && img->thread_started) {
      img->thread_wake = true;
      pthread_cond_signal (&img->commit_work);
    }
    else
      lead (img, false);
  }
  pthread_mutex_unlock (&img->commit_lock);
}

static int
session_error (struct image *img, int e, struct zone_error *err)
{
  return zone_error (err, e, "%s: its state cannot be made durable: %s",
                     img->path, strerror (e));
}

int
commit_start_session (struct image *img, bool lost, struct zone_error *err)
{
  struct image_commit next = img->commit;
  int r;

  /* What an earlier session left in the volatile pointers first, while it
   * still counts. */
  if (img->ndirty > 0) {
    r = round_of_commit (img, &next, true);
    if (r)
      return session_error (img, r, err);
  }
  if (volatile_start (img, err) == -1)
    return -1;
  next = img->commit;
  next.flags &= ~IMAGE_CLEAN;
  if (lost)
    next.epoch++;
  if (!image_boot_id (next.boot_id) &&
      getentropy (next.boot_id, sizeof next.boot_id) == -1)
    return session_error (img, errno, err);
  if (getentropy (&next.session, sizeof next.session) == -1)
    return session_error (img, errno, err);
  r = round_of_commit (img, &next, true);
  if (r)
    return session_error (img, r, err);
  if (img->distrusted)
    volatile_mark (img, false);
  img->distrusted = false;
  img->session = img->commit.session;
  img->store.geometry.epoch = img->commit.epoch;
  return 0;
}

int
commit_end_session (struct image *img, struct zone_error *err)
{
  struct image_commit next = img->commit;
  int r;

  next.flags |= IMAGE_CLEAN;
  r = round_of_commit (img, &next, true);
  if (r)
    return session_error (img, r, err);
  return 0;
}
