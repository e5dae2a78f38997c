/* SPDX-License-Identifier: BSD-3-Clause */
/* One round of making things durable, in steps.  Between two of them
 * something is wanted of the disk, or of others; image-commit.c sees to it,
 * and to who leads rounds and whom they are for.
 *
 * A round takes what changed since the last one.  If it is little it goes
 * into the log (image-log.c), and that is all.  Else a commit: each zone's
 * new record is written over the older of its two copies; a sync makes
 * durable the data below the pointers as well as the records; then the next
 * commit is written, durably, which puts all these records in force at one
 * stroke.  Power lost before that leaves the last commit's records untouched,
 * and what the log has behind them.
 *
 * A reset is the one thing that must be durable before its zone is written
 * again: until then the old record's data must stay as it is.  Such a write
 * waits for a commit (see image.c), and the round that makes the reset
 * durable lets its space go (image-kept.c).
 */

#include <config.h>

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "debug.h"
#include "image-internal.h"

/* In the list of a round: the zone was gathered as reset. */
#define WAS_RESET (UINT32_C (1) << 31)

/* A file that somebody cut off: what was in it is gone, and writes to it
 * would make holes where data was.  (Who asks by fstat asks for times as well:
 * then the next write has to have another one, in Linux from 6.13 on, and the
 * next sync has to write that too in ext4 without a journal.) */
static bool
is_truncated (const struct image *img)
{
  off_t end = img->block_device ? 0 : lseek (img->fd, 0, SEEK_END);

  return !img->block_device &&
    (end == -1 || (uint64_t) end < img->sb.file_size);
}

/* What a zone's record is to say; true where it was gathered as reset. */
bool
round_snapshot (struct image *img, uint32_t zone, struct image_payload *p)
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
  p->flags = zone_flags (z) & (ZONE_NON_SEQ | ZONE_RESET_REC);
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

int
round_read_record (struct image *img, uint32_t zone, struct image_payload *p)
{
  bool in_b = img->zflags[zone] & ZFLAG_IN_B;
  struct image_record r;
  int e = image_pread (img->fd, &r, sizeof r, record_offset (img, zone, in_b));

  if (e == 0 && !image_decode_record (&r, zone, img->seed, p))
    e = EIO;                    /* somebody wrote over it */
  return e;
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

  e = round_read_record (img, zone, &old);
  if (e)
    return e;
  if (round_snapshot (img, zone, &new))
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

/* Writes and makes it durable. */
int
round_write_durably (int fd, const void *buf, size_t length, uint64_t at)
{
  struct iovec iov = { (void *) buf, length };
  ssize_t r;
  int e;

  r = pwritev2 (fd, &iov, 1, at, RWF_DSYNC);
  if (r == (ssize_t) length)
    return 0;
  /* Whatever fails to be written in the whole file is reported once, and
   * here it may be: no other error may be tried again. */
  if (r == -1 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL &&
      errno != EINTR)
    return errno;
  /* No RWF_DSYNC there, or interrupted. */
  e = image_pwrite (fd, buf, length, at);
  return e ? e : image_sync (fd);
}

void
round_give_up (struct image *img)
{
  img->store.failed = true;
  volatile_mark (img, true);
}

static void
give_up (struct image *img, struct round *r, int e)
{
  round_give_up (img);
  r->error = e;
  r->want = WANT_END;
}

/* From the log's entry to a commit. */
static void
begin_commit (struct image *img, struct round *r)
{
  r->always = r->session || img->log.number > 0;
  log_retire (img);
  pthread_mutex_lock (&img->dirty_lock);
  r->list = img->dirty;
  r->n = img->ndirty;
  img->dirty = img->spare;
  img->spare = r->list;
  img->ndirty = 0;
  log_forget_direct (img);
  pthread_mutex_unlock (&img->dirty_lock);
  r->next.number = img->commit.number + 1;
  r->next.sum = img->commit.sum;
  r->next.parity = img->commit.parity;
  r->at = r->nchanged = 0;
}

/* So many records a step: others have their turn. */
#define STEP_RECORDS 256u

static int
write_some_records (struct image *img, struct round *r)
{
  uint32_t entry, n;
  bool changed;
  int e = 0;

  for (n = 0; n < STEP_RECORDS && r->at < r->n && e == 0; n++, r->at++) {
    e = write_record (img, &r->list[r->at], &r->next, &changed);
    if (e == 0 && changed) {
      entry = r->list[r->at];
      r->list[r->at] = r->list[r->nchanged];
      r->list[r->nchanged++] = entry;
    }
  }
  return e;
}

static void
want_commit (struct image *img, struct round *r)
{
  unsigned i;

  for (i = 0; i < IMAGE_COMMIT_COPIES; i++)
    image_encode_commit (&r->next, img->seed, r->slot + i * IMAGE_SECTOR);
  r->buf = r->slot;
  r->length = sizeof r->slot;
  r->offset = IMAGE_COMMIT_OFFSET + r->next.number % 2 * IMAGE_BLOCK;
  r->want = WANT_WRITE;
}

/* The commit is in force: the older copies of its zones are the others now,
 * and the log begins anew. */
static void
put_in_force (struct image *img, struct round *r)
{
  uint32_t i;

  img->commit = r->next;
  for (i = 0; i < r->nchanged; i++)
    atomic_fetch_xor (&img->zflags[r->list[i] & ~WAS_RESET], ZFLAG_IN_B);
  log_restart (img);
}

/* What was reset may go, as far as others have had their turn. */
static void
let_go (struct image *img, struct round *r)
{
  uint32_t n;

  for (n = 0; n < STEP_RECORDS && r->at < r->n; n++, r->at++)
    if (r->list[r->at] & WAS_RESET)
      kept_reset (img, r->list[r->at] & ~WAS_RESET);
}

static void
say_round (const struct image *img, const struct round *r)
{
  debug ("%s: commit %" PRIu64 ": %" PRIu32 " zones, %" PRIu64 " us",
         img->path, r->next.number, r->nchanged, debug_now () - r->began);
}

/* An entry has no space, as where a file system copies what is written over.
 * What it would have had is in the log's table, which a commit retires. */
void
round_without_log (struct image *img)
{
  img->log.off = true;
  img->log.ready = false;
  img->round.stage = ROUND_ALONE;
  img->round.want = WANT_ALONE;
}

/* Goes on with a round whose want is fulfilled, with what errno. */
void
round_step (struct image *img, int e)
{
  struct round *r = &img->round;
  bool more;

  r->want = WANT_NOTHING;
  if (e == 0 && (img->store.failed ||
                 (r->stage == ROUND_BEGIN && is_truncated (img))))
    e = EIO;
  if (e) {
    give_up (img, r, e);
    return;
  }
  switch (r->stage) {
  case ROUND_BEGIN:
    r->began = debug_now ();
    switch (r->session ? LOG_COMMIT : log_try (img, r->flight, &e)) {
    case LOG_NOTHING:
      r->want = WANT_END;
      return;
    case LOG_ENTRY:
      r->stage = ROUND_LOGGED;
      r->want = WANT_WRITE;
      r->buf = r->flight->entry;
      r->length = r->flight->length;
      r->offset = r->flight->offset;
      return;
    case LOG_FAILED:
      give_up (img, r, e);
      return;
    case LOG_COMMIT:
      break;
    }
    r->stage = ROUND_ALONE;
    r->want = WANT_ALONE;
    return;
  case ROUND_ALONE:
    begin_commit (img, r);
    r->stage = ROUND_RECORDS;
    /* fall through */
  case ROUND_RECORDS:
    if (!r->session) {
      e = log_prepare (img, &more);
      if (e == 0 && more)
        return;
    }
    if (e == 0)
      e = write_some_records (img, r);
    if (e)
      give_up (img, r, e);
    else if (r->at == r->n) {
      r->stage = ROUND_SYNCED;
      r->want = WANT_SYNC;
    }
    return;
  case ROUND_SYNCED:
    r->stage = ROUND_COMMITTED;
    if (r->nchanged > 0 || r->always) {
      want_commit (img, r);
      return;
    }
    /* fall through */
  case ROUND_COMMITTED:
    if (r->nchanged > 0 || r->always)
      put_in_force (img, r);
    r->stage = ROUND_RESETS;
    r->at = 0;
    /* fall through */
  case ROUND_RESETS:
    let_go (img, r);
    if (r->at < r->n)
      return;
    break;
  case ROUND_LOGGED:            /* its entry is a flight's by now */
    break;
  }
  if (r->want == WANT_NOTHING) {
    r->want = WANT_END;
    if (debug_is_on (image_commit))
      say_round (img, r);
  }
}

void
round_begin (struct image *img)
{
  struct round *r = &img->round;

  r->stage = ROUND_BEGIN;
  r->want = WANT_NOTHING;
  r->flight = &img->flight[img->next_flight];
  r->error = 0;
  r->session = false;
  r->next = img->commit;
}

/* Waits for what it wants, and goes on. */
void
round_do (struct image *img)
{
  struct round *r = &img->round;
  int e = 0;

  switch (r->want) {
  case WANT_SYNC:
    e = image_sync (img->fd);
    break;
  case WANT_WRITE:
    e = round_write_durably (img->fd, r->buf, r->length, r->offset);
    break;
  case WANT_NOTHING:
  case WANT_ALONE:              /* it is: see image-commit.c */
  case WANT_END:
    break;
  }
  round_step (img, e);
}

/* All of it, where there is nobody else.  Returns 0 or an errno, after which
 * the image is failed. */
int
round_whole (struct image *img)
{
  while (img->round.want != WANT_END)
    round_do (img);
  return img->round.error;
}
