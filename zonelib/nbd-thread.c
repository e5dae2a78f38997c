/* SPDX-License-Identifier: BSD-3-Clause */
/* The nbd store's thread: it takes what was posted, sends it, and gives back
 * what is answered; and when the connection breaks, it connects again and
 * finds out what became of the I/O that was under way.
 *
 * Of that, reads and what does the same twice are simply sent again.  A write
 * of a sequential zone is judged by the zone's pointer: it is the only one of
 * its zone.  Zone management is judged by the zone's condition.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "judge.h"
#include "nbd-internal.h"

/* ms between attempts to connect again, doubled from the one to the other. */
#define BACK_OFF_MIN 50
#define BACK_OFF_MAX 2000

/* ms for a flush when the disk is closed, and for the next answer when it is
 * about to be. */
#define CLOSE_MS 10000

/* A connection that broke sooner than that (ms) gives no more time to what
 * may be what breaks it. */
#define LASTING_MS 2000

__thread struct upstream *upstream_self;

uint64_t
upstream_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * UINT64_C (1000) + ts.tv_nsec / 1000000;
}

/* What came by way of others, oldest first. */
static void
take_posted (struct upstream *up)
{
  struct store_io *io, *next, *list = NULL;

  io = atomic_exchange_explicit (&up->posted, NULL, memory_order_acquire);
  for (; io; io = next) {
    next = io->next;
    io->next = list;
    list = io;
  }
  for (; list; list = next) {
    next = list->next;
    list_add (&up->waiting, list);
  }
}

static void
fail_all (struct upstream *up, struct io_list *list)
{
  struct io_list taken = *list;
  struct store_io *io;

  /* What comes of it is added behind. */
  if (taken.first == NULL)
    return;
  list_init (list);
  while ((io = taken.first) != NULL) {
    taken.first = io->next;
    upstream_complete (up, io, EIO);
  }
}

void
upstream_gather (struct upstream *up)
{
  take_posted (up);
  if (!up->gone && (up->give_up_at == 0 ||
                    (upstream_now () < up->give_up_at &&
                     !atomic_load (&up->hurry))))
    return;
  while (up->redo.first || up->waiting.first) {
    fail_all (up, &up->redo);
    fail_all (up, &up->waiting);
    take_posted (up);
  }
}

/* Gives back what is answered; what was lost is kept. */
static void
work_off_finished (struct upstream *up)
{
  struct store_io *io;

  if (up->finished.first && up->answered_at)
    up->answered_at = upstream_now ();
  while ((io = list_take (&up->finished)) != NULL)
    if (upstream_io (io)->lost)
      list_add (&up->redo, io);
    else if (limits_suspected (up, io))
      limits_suspect (up, io);
    else {
      /* That server says so once, but all of our clients have to know. */
      if (io->op == STORE_FLUSH && upstream_io (io)->error)
        atomic_fetch_add (&up->store.lost, 1);
      upstream_complete (up, io, upstream_io (io)->error);
    }
  limits_work_off (up);
}

bool
upstream_is_written (const struct znbd_zone *z, const struct store_io *io)
{
  uint64_t written;

  return
    (z->cond == ZNBD_COND_FULL || z->type == ZNBD_ZONE_SEQ_REQUIRED) &&
    judge_write (z, io->offset, io->length, &written) == 0 &&
    written == io->length;
}

/* A write of a sequential-write-required zone that was under way: error for
 * the disk, -1: it is to be sent again, from skip on. */
static int
resume_write (struct upstream *up, struct store_io *io)
{
  uint64_t written;

  if (judge_write (&up->report[io->zone], io->offset, io->length,
                   &written) == -1)
    return EIO;                 /* what was before it is lost */
  if (written == io->length)
    return 0;
  upstream_io (io)->skip = written;
  return -1;
}

static int
judge (struct upstream *up, struct store_io *io, bool lost)
{
  switch (io->op) {
  case STORE_WRITE:
  case STORE_ZERO:
    return up->report && up->report[io->zone].type == ZNBD_ZONE_SEQ_REQUIRED
      ? resume_write (up, io) : -1;
  case STORE_ZONE_OP:
    return up->report && !(io->flags & STORE_ALL) &&
      judge_reached (&up->report[io->zone], io->zone_op) ? 0 : -1;
  case STORE_FLUSH:
    return lost ? EIO : -1;
  default:
    return -1;
  }
}

/* Connected again: what was under way ends, or goes to be sent before what
 * waits. */
static void
resume (struct upstream *up, bool epoch_changed)
{
  bool lost = epoch_changed && up->changes != up->flushed;
  struct io_list redo = up->redo, again, waiting = up->waiting, ended;
  struct store_io *io;
  int error;

  up->give_up_at = 0;
  up->linked_at = upstream_now ();
  list_init (&up->redo);
  list_init (&up->waiting);
  list_init (&again);
  list_init (&ended);
  if (lost) {
    up->flushed = up->changes;
    atomic_fetch_add (&up->store.lost, 1);
    upstream_log (up, "%s: it started anew: what was written and not flushed "
                  "may be lost, and the next flush will say so",
                  upstream_name (up));
  }
  if (redo.first)
    while ((io = list_take (&redo)) != NULL) {
      error = judge (up, io, lost);
      upstream_io (io)->error = error;
      upstream_io (io)->again = true;
      list_add (error == -1 ? &again : &ended, io);
    }
  if (waiting.first)
    while ((io = list_take (&waiting)) != NULL) {
      bool fails = lost && io->op == STORE_FLUSH;

      upstream_io (io)->error = EIO;
      list_add (fails ? &ended : &again, io);
    }
  if (again.first)
    while ((io = list_take (&again)) != NULL)
      list_add (&up->waiting, io);
  if (up->report)
    up->store.news (up->store.news_opaque, 0, up->store.geometry.zones,
                    up->report);
  free (up->report);
  up->report = NULL;
  if (ended.first)
    while ((io = list_take (&ended)) != NULL)
      upstream_complete (up, io, upstream_io (io)->error);
}

/* Sleeps, but for what is posted. */
static void
pause_for (struct upstream *up, unsigned ms)
{
  uint64_t until = upstream_now () + ms, now, woken;
  struct pollfd fd = { .fd = up->wake_fd, .events = POLLIN };

  while ((now = upstream_now ()) < until && !atomic_load (&up->stop)) {
    uint64_t left = until - now;

    if (up->give_up_at > now && up->give_up_at - now < left)
      left = up->give_up_at - now;
    if (poll (&fd, 1, left) > 0 &&
        read (up->wake_fd, &woken, sizeof woken) == -1)
      return;
    upstream_gather (up);
  }
}

static void
connect_again (struct upstream *up)
{
  unsigned back_off = BACK_OFF_MIN;
  bool epoch_changed, told = false;
  struct zone_error err;

  if (upstream_now () >= up->linked_at + LASTING_MS)
    up->broken_at = upstream_now ();
  else
    pause_for (up, BACK_OFF_MIN);
  up->give_up_at = up->broken_at + up->reconnect;
  link_down (up, true);
  work_off_finished (up);
  if (up->reconnect == 0) {
    upstream_log (up, "%s: the connection broke, and --reconnect is 0: every "
                  "request fails from now on", upstream_name (up));
    up->gone = true;
  }
  else if (!atomic_load (&up->hurry))
    upstream_log (up, "%s: the connection broke; requests wait up to %u ms "
                  "for another one", upstream_name (up), up->reconnect);
  while (!up->gone && !atomic_load (&up->stop)) {
    upstream_gather (up);
    if (link_up (up, false, &epoch_changed, &err) == 0) {
      upstream_log (up, "%s: connected again", upstream_name (up));
      resume (up, epoch_changed);
      return;
    }
    if (up->gone)
      upstream_log (up, "%s: every request fails from now on", err.text);
    else if (!told && upstream_now () >= up->give_up_at) {
      upstream_log (up, "%s; requests fail until it is there again",
                    err.text);
      told = true;
    }
    pause_for (up, up->gone ? 0 : back_off);
    if (back_off < BACK_OFF_MAX)
      back_off *= 2;
  }
  upstream_gather (up);
}

/* Sleeps until something happens, or for ms. */
static void
wait_for_events (struct upstream *up, int ms)
{
  struct nbd_handle *const handles[] = { up->data, up->table };
  struct pollfd fds[3] = { { .fd = up->wake_fd, .events = POLLIN } };
  unsigned dir[2] = { 0 }, i;
  uint64_t woken;

  for (i = 0; i < 2; i++) {
    fds[i + 1].fd = -1;
    if (handles[i] == NULL)
      continue;
    dir[i] = nbd_aio_get_direction (handles[i]);
    fds[i + 1].fd = nbd_aio_get_fd (handles[i]);
    if (dir[i] & LIBNBD_AIO_DIRECTION_READ)
      fds[i + 1].events |= POLLIN;
    if (dir[i] & LIBNBD_AIO_DIRECTION_WRITE)
      fds[i + 1].events |= POLLOUT;
  }
  if (poll (fds, 3, ms) <= 0)
    return;
  if (fds[0].revents && read (up->wake_fd, &woken, sizeof woken) == -1)
    woken = 0;                  /* nothing was there: as well */
  /* What breaks is seen afterwards. */
  for (i = 0; i < 2; i++) {
    if ((dir[i] & LIBNBD_AIO_DIRECTION_READ) &&
        (fds[i + 1].revents & (POLLIN | POLLHUP | POLLERR)))
      nbd_aio_notify_read (handles[i]);
    else if ((dir[i] & LIBNBD_AIO_DIRECTION_WRITE) && fds[i + 1].revents)
      nbd_aio_notify_write (handles[i]);
  }
}

/* Sleeps until something happens.  A server that says nothing is waited for
 * without end, but not where the disk is about to be closed. */
static void
wait_for_answers (struct upstream *up)
{
  bool hurry = atomic_load (&up->hurry) && up->nout > 0;
  uint64_t now = upstream_now ();

  if (hurry && up->answered_at == 0)
    up->answered_at = now;
  if (hurry && now >= up->answered_at + CLOSE_MS) {
    upstream_log (up, "%s: no answer in %d seconds, and the disk is to be "
                  "closed", upstream_name (up), CLOSE_MS / 1000);
    link_down (up, true);
  }
  else
    wait_for_events (up, hurry ? 100 : -1);
}

/* What is durable when the disk is closed; no request is under way. */
static void
flush_last (struct upstream *up)
{
  uint64_t deadline = upstream_now () + CLOSE_MS;
  struct store_io io = { .op = STORE_FLUSH };

  if (up->gone || link_is_broken (up) || up->changes == up->flushed)
    return;
  upstream_issue (up, &io);
  while (up->finished.first == NULL && upstream_now () < deadline &&
         !link_is_broken (up))
    wait_for_events (up, 100);
  if (list_take (&up->finished) == &io && !upstream_io (&io)->lost &&
      !upstream_io (&io)->error)
    up->flushed = upstream_io (&io)->skip;
  link_down (up, false);        /* no callback finds io gone */
}

void *
upstream_thread (void *arg)
{
  struct upstream *up = arg;
  struct store_io *io;

  upstream_self = up;
  for (;;) {
    if (up->gone)
      upstream_gather (up);
    take_posted (up);
    while (!link_is_broken (up) && (io = list_take (&up->waiting)) != NULL)
      upstream_issue (up, io);
    work_off_finished (up);
    if (!up->gone && (link_is_broken (up) || up->redo.first)) {
      if (atomic_load (&up->stop))
        break;
      connect_again (up);
      continue;
    }
    if (atomic_load_explicit (&up->posted, memory_order_relaxed) ||
        up->waiting.first)
      continue;
    if (atomic_load (&up->stop))
      break;
    wait_for_answers (up);
  }
  flush_last (up);
  return NULL;
}
