/* SPDX-License-Identifier: BSD-3-Clause */
/* The space of zones that were reset.
 *
 * It is kept for the writes that come next, for a second or two: to give it
 * back and to take it again costs a file system as much as the writing
 * itself.  What a zone keeps reaches from where it is claimed to its end; a
 * write claims what it is going to need, and some more, and the rest is given back once
 * nothing was claimed for that long, piece by piece by a thread of our own.
 * Who finds no space has all of it given back at once, as has the end of the
 * session.
 *
 * Nothing of it is ever seen, for it is above the pointers.  A zone keeps
 * something only once its reset is durable.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "image-internal.h"
#include "lock.h"

/* What nothing was claimed of for one to two of these is given back. */
#define TICK_S 1

/* So much is given back at a time, for which a write to it has to wait. */
#define PIECE (UINT64_C (4) << 20)

/* So much more than it needs a write claims, but no more than an eighth of its
 * zone. */
#define AHEAD (UINT64_C (1) << 20)

#define BOTH (ZFLAG_KEPT | ZFLAG_OLD)

int
kept_init (struct image *img)
{
  struct image_kept *k = &img->kept;

  pthread_mutex_init (&k->lock, NULL);
  pthread_cond_init (&k->done, NULL);
  cond_init_monotonic (&k->work);
  /* Of which the kernel gives nothing before a zone is reset. */
  k->claimed = calloc (img->sb.zones, sizeof *k->claimed);
  return k->claimed ? 0 : -1;
}

void
kept_free (struct image *img)
{
  struct image_kept *k = &img->kept;

  kept_stop (img);
  free (k->claimed);
  pthread_cond_destroy (&k->work);
  pthread_cond_destroy (&k->done);
  pthread_mutex_destroy (&k->lock);
}

static uint64_t
claimed (const struct image *img, uint32_t zone)
{
  return (uint64_t) img->kept.claimed[zone] * IMAGE_BLOCK;
}

/* With the lock: a zone keeps nothing any more. */
static void
drop (struct image *img, uint32_t zone)
{
  atomic_fetch_and (&img->zflags[zone], (uint8_t) ~BOTH);
  img->kept.nzones--;
}

/* With the lock: what a zone keeps begins there, at the earliest. */
static void
claim (struct image *img, uint32_t zone, uint64_t end)
{
  uint64_t length = zones_length (img->zones, zone);
  uint64_t block = (end + IMAGE_BLOCK - 1) / IMAGE_BLOCK;

  if (end >= length || block > UINT32_MAX)
    drop (img, zone);
  else {
    img->kept.claimed[zone] = block;
    atomic_fetch_and (&img->zflags[zone], (uint8_t) ~ZFLAG_OLD);
  }
}

/* Signals go to one who waits, who passes them on. */
static void
wait_done (struct image_kept *k)
{
  pthread_cond_wait (&k->done, &k->lock);
  pthread_cond_signal (&k->done);
}

/* Whether a write that ends there has nothing to claim. */
static bool
is_claimed (const struct image *img, uint32_t zone, uint64_t end)
{
  return !(img->zflags[zone] & ZFLAG_KEPT) || end <= claimed (img, zone);
}

/* Only what is not being given back just now can be claimed: another write,
 * which finds it claimed, does not wait. */
void
kept_claim (struct image *img, uint32_t zone, uint64_t end)
{
  struct image_kept *k = &img->kept;
  uint64_t ahead, to;

  if (is_claimed (img, zone, end))
    return;
  ahead = zones_length (img->zones, zone) / 8;
  to = end + (ahead < AHEAD ? ahead : AHEAD);
  pthread_mutex_lock (&k->lock);
  k->nclaiming++;
  while (k->busy && k->zone == zone && k->from < to &&
         !is_claimed (img, zone, end))
    wait_done (k);
  k->nclaiming--;
  if (!is_claimed (img, zone, end))
    claim (img, zone, to);
  pthread_cond_signal (&k->done);
  pthread_mutex_unlock (&k->lock);
}

/* With the lock: gives back what a zone keeps, or ends where all is that was
 * for so long. */
static void
give_back (struct image *img, uint32_t zone, uint8_t flags)
{
  struct image_kept *k = &img->kept;
  uint64_t length = zones_length (img->zones, zone);
  uint64_t at = 0, last = 0, from, start, n;

  for (;;) {
    while (k->busy || k->nclaiming > 0)
      wait_done (k);
    if ((img->zflags[zone] & flags) != flags)
      return;
    /* More was claimed, or it was reset again. */
    from = claimed (img, zone);
    if (from > at || from < last)
      at = from;
    last = from;
    if (at >= length)
      break;
    /* At the end of the session nobody waits. */
    n = length - at < PIECE || k->stop ? length - at : PIECE;
    k->busy = true;
    k->zone = zone;
    k->from = at;
    pthread_mutex_unlock (&k->lock);
    start = zones_start (img->zones, zone);
    copy_forget (img, start + at, n);
    /* Space only: it does not matter whether it can be had. */
    image_punch (img->fd, img->sb.data_offset + start + at, n);
    pthread_mutex_lock (&k->lock);
    k->busy = false;
    pthread_cond_signal (&k->done);
    at += n;
  }
  drop (img, zone);
}

bool
kept_give_back (struct image *img)
{
  struct image_kept *k = &img->kept;
  bool any;
  uint32_t i;

  pthread_mutex_lock (&k->lock);
  any = k->nzones > 0;
  for (i = img->sb.conventional; k->nzones > 0 && i < img->sb.zones; i++)
    if (img->zflags[i] & ZFLAG_KEPT)
      give_back (img, i, ZFLAG_KEPT);
  pthread_mutex_unlock (&k->lock);
  return any;
}

/* With the lock. */
static void
tick (struct image *img)
{
  struct image_kept *k = &img->kept;
  uint32_t i;

  pthread_mutex_unlock (&k->lock);
  for (i = img->sb.conventional; i < img->sb.zones && !k->stop; i++) {
    if (!(img->zflags[i] & ZFLAG_KEPT))
      continue;
    pthread_mutex_lock (&k->lock);
    if ((img->zflags[i] & BOTH) == BOTH)
      give_back (img, i, BOTH);
    else if (img->zflags[i] & ZFLAG_KEPT)
      atomic_fetch_or (&img->zflags[i], ZFLAG_OLD);
    pthread_mutex_unlock (&k->lock);
  }
  pthread_mutex_lock (&k->lock);
}

static void *
kept_thread (void *arg)
{
  struct image *img = arg;
  struct image_kept *k = &img->kept;
  struct timespec until;

  pthread_mutex_lock (&k->lock);
  while (!k->stop) {
    if (k->nzones == 0) {
      pthread_cond_wait (&k->work, &k->lock);
      continue;
    }
    clock_gettime (CLOCK_MONOTONIC, &until);
    until.tv_sec += TICK_S;
    while (!k->stop && pthread_cond_timedwait (&k->work, &k->lock,
                                               &until) != ETIMEDOUT)
      ;
    tick (img);
  }
  pthread_mutex_unlock (&k->lock);
  return NULL;
}

/* With the lock.  Without a thread all is kept until the session ends. */
static void
wake_thread (struct image *img)
{
  struct image_kept *k = &img->kept;

  if (!k->running && !k->stop)
    k->running = pthread_create (&k->thread, NULL, kept_thread, img) == 0;
  pthread_cond_signal (&k->work);
}

void
kept_start (struct image *img)
{
  struct image_kept *k = &img->kept;

  pthread_mutex_lock (&k->lock);
  if (k->nzones > 0)
    wake_thread (img);
  pthread_mutex_unlock (&k->lock);
}

void
kept_stop (struct image *img)
{
  struct image_kept *k = &img->kept;
  bool running;

  pthread_mutex_lock (&k->lock);
  k->stop = true;
  running = k->running;
  k->running = false;
  pthread_cond_signal (&k->work);
  pthread_mutex_unlock (&k->lock);
  if (running)
    pthread_join (k->thread, NULL);
}

/* With the lock. */
static void
keep (struct image *img, uint32_t zone, uint64_t from)
{
  uint8_t flags = img->zflags[zone];

  if (!(flags & ZFLAG_KEPT))
    img->kept.nzones++;
  img->kept.claimed[zone] = (from + IMAGE_BLOCK - 1) / IMAGE_BLOCK;
  /* At one stroke: no write is to find it neither reset nor kept. */
  while (!atomic_compare_exchange_weak (
           &img->zflags[zone], &flags,
           (flags & ~(ZFLAG_RESET | ZFLAG_OLD)) | ZFLAG_KEPT))
    ;
}

void
kept_reset (struct image *img, uint32_t zone)
{
  struct image_kept *k = &img->kept;

  pthread_mutex_lock (&k->lock);
  keep (img, zone, 0);
  if (k->nzones == 1 || !k->running)
    wake_thread (img);
  pthread_mutex_unlock (&k->lock);
}

/* What the first zone from there on has above its pointer, if that is so. */
static void
find_in_zone (struct image *img, uint32_t zone, uint64_t at)
{
  const struct zone *z = &img->zones->zone[zone];
  off_t found;

  if (zone < img->sb.conventional || z->cond == ZNBD_COND_OFFLINE ||
      z->cond == ZNBD_COND_READ_ONLY || z->cond == ZNBD_COND_FULL)
    return;
  found = at > z->wp ? (off_t) at
    : lseek (img->fd, img->sb.data_offset + zones_start (img->zones, zone) +
             z->wp, SEEK_DATA) - (off_t) (img->sb.data_offset +
                                          zones_start (img->zones, zone));
  if (found >= 0 && (uint64_t) found < zones_length (img->zones, zone) &&
      z->wp / IMAGE_BLOCK < UINT32_MAX)
    keep (img, zone, z->wp);
}

void
kept_find (struct image *img)
{
  uint64_t at = 0, start;
  uint32_t zone;
  off_t data;

  while (!img->block_device && at < img->sb.size) {
    data = lseek (img->fd, img->sb.data_offset + at, SEEK_DATA);
    if (data == -1)
      return;
    at = data - img->sb.data_offset;
    if (at >= img->sb.size)
      return;
    zone = at / img->sb.zone_size;
    start = zones_start (img->zones, zone);
    find_in_zone (img, zone, at - start);
    at = start + zones_length (img->zones, zone);
  }
}
