/* SPDX-License-Identifier: BSD-3-Clause */
/* Making things durable, for many at once: who leads rounds (image-round.c),
 * and whom they are for.
 *
 * Whoever wants something durable joins.  The first one leads a round for
 * all that joined before it began.
 *
 * Who has a ring leads on it, round after round as long as somebody waits:
 * what has to be waited for goes to the ring.  Its first step comes with the
 * ring's next turn, when all have joined that the same turn brings.
 *
 * Who has no ring waits for the round itself.  When more have joined
 * meanwhile, a thread of our own leads on, so that no client's answer waits
 * for rounds that are not its own.
 *
 * Up to two entries of the log may be on their way to the disk at a time
 * (flights), on rings or by threads; they are answered in their order.
 *
 * Who was answered by the last round often has the next thing to be made
 * durable at once: a client that waits for each of its writes has.  So a round
 * waits for them, but no longer than a round takes: else it would be for one
 * or two of them, and the others would wait for it.  Where they do not come
 * that is not tried for a while.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "debug.h"
#include "image-internal.h"
#include "lock.h"

/* No round waits longer for others. */
#define PATIENCE_MAX_US 1000u

/* So many rounds at most do not wait after one that did so in vain. */
#define REST_MAX 32u

int
commit_init (struct image *img)
{
  pthread_mutex_init (&img->dirty_lock, NULL);
  pthread_mutex_init (&img->commit_lock, NULL);
  pthread_cond_init (&img->commit_work, NULL);
  pthread_cond_init (&img->alone, NULL);
  cond_init_monotonic (&img->complete);
  img->waiting_tail = &img->waiting;
  img->dirty = malloc (img->sb.zones * sizeof *img->dirty);
  img->spare = malloc (img->sb.zones * sizeof *img->spare);
  return img->dirty && img->spare ? 0 : -1;
}

void
commit_free (struct image *img)
{
  unsigned i;

  pthread_mutex_lock (&img->commit_lock);
  img->thread_stop = true;
  for (i = 0; i < img->nthreads; i++)
    pthread_cond_signal (&img->commit_work);
  pthread_mutex_unlock (&img->commit_lock);
  for (i = 0; i < img->nthreads; i++)
    pthread_join (img->thread[i], NULL);
  free (img->dirty);
  free (img->spare);
  pthread_cond_destroy (&img->complete);
  pthread_cond_destroy (&img->alone);
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

/* Answers those of a round, or lets them go. */
static void
deliver (struct image *img, struct store_io *io, int error, struct ring *ring)
{
  struct store_io *next;

  for (; io; io = next) {
    next = io->next;
    io->ring = ring;            /* it goes on here, wherever it came from */
    if (io->op == STORE_FLUSH || error)
      io->done (io, error, 0);
    else
      image_perform (img, io);
  }
}

/* ---- under commit_lock ------------------------------------------------ */

static void
take_batch (struct image *img)
{
  img->round.batch = img->waiting;
  img->round.nbatch = img->nwaiting;
  img->nwaiting = 0;
  img->waiting = NULL;
  img->waiting_tail = &img->waiting;
}

/* A round is over.  Those whom it was for will come again, perhaps, as will
 * those of the others that are on their way; of all of them each round that
 * there may be at a time is to have its share. */
static void
count_round (struct image *img, uint64_t began, uint32_t nbatch)
{
  uint32_t n = nbatch + img->nwaiting, i;
  uint64_t us = debug_now () - began;

  /* A commit now and then is none to go by. */
  if (img->round_us > 0 && us > 2 * img->round_us)
    us = 2 * img->round_us;
  img->round_us = img->round_us ? (7 * img->round_us + us) / 8 : us;
  for (i = 0; i < img->nflights; i++)
    n += img->flight[(img->first_flight + i) % FLIGHTS_MAX].nbatch;
  img->nexpected = (n + FLIGHTS_MAX - 1) / FLIGHTS_MAX;
}

static bool
is_complete (const struct image *img)
{
  return img->nwaiting >= img->nexpected;
}

/* How many us the next round is to wait for others; 0: not at all. */
static uint64_t
patience (struct image *img)
{
  if (is_complete (img))
    return 0;
  if (img->rest > 0) {
    img->rest--;
    return 0;
  }
  return img->round_us < PATIENCE_MAX_US ? img->round_us : PATIENCE_MAX_US;
}

static void
gathered (struct image *img, bool in_vain)
{
  img->gathering = NULL;
  if (!in_vain)
    img->misses = 0;
  else if (img->misses < REST_MAX)
    img->misses = img->misses ? 2 * img->misses : 1;
  img->rest = img->misses;
}

static struct gather_timer *
free_timer (struct image *img)
{
  unsigned i;

  for (i = 0; i < GATHER_TIMERS; i++)
    if (!img->timer[i].armed)
      return &img->timer[i];
  return NULL;
}

/* ---- led on a ring ---------------------------------------------------- */

static void submit_want (struct image *img);

static void
start_now (struct image *img)
{
  round_begin (img);
  submit_want (img);
}

static void
timer_done (struct ring_op *op, int res)
{
  struct gather_timer *t = (struct gather_timer *) op;
  struct image *img = t->img;
  bool start;

  (void) res;
  pthread_mutex_lock (&img->commit_lock);
  t->armed = false;
  start = img->gathering == t;
  if (start)
    gathered (img, true);
  pthread_mutex_unlock (&img->commit_lock);
  if (start)
    start_now (img);
}

/* Once the timer is set and the lock free another thread may take the round
 * over. */
static void
start_on_ring (struct image *img)
{
  struct ring *ring = img->round.ring;
  struct gather_timer *t = NULL;
  struct io_uring_sqe *sqe;
  uint64_t us;

  pthread_mutex_lock (&img->commit_lock);
  us = patience (img);
  if (us > 0)
    t = free_timer (img);
  if (t) {
    t->op.done = timer_done;
    t->img = img;
    t->time = (struct __kernel_timespec) { .tv_nsec = us * 1000 };
    t->armed = true;
  }
  img->gathering = t;
  pthread_mutex_unlock (&img->commit_lock);
  if (t == NULL) {
    start_now (img);
    return;
  }
  sqe = ring_sqe (ring);
  io_uring_prep_timeout (sqe, &t->time, 0, 0);
  ring_set_op (ring, sqe, &t->op);
}

/* With commit_lock: whether a round begins, that nobody leads yet.  A thread
 * leaves it to the flight before to land, and those who join until then, as
 * long as it would be for few. */
static bool
may_lead (const struct image *img, const struct ring *ring)
{
  return img->nflights < FLIGHTS_MAX &&
    (ring || img->nflights == 0 || is_complete (img));
}

/* With commit_lock: the lead goes on, here, with those that wait, or ends. */
static bool
lead_on (struct image *img, struct ring *ring)
{
  img->committing = img->waiting && may_lead (img, ring);
  if (img->committing)
    img->round.ring = ring;
  return img->committing;
}

/* With commit_lock, at the end of a round: if nothing changed since the last
 * flight took off, that one has what the round is for.  It may be down by
 * now. */
static void
board_late (struct image *img)
{
  const struct round *r = &img->round;
  struct flight *f = &img->flight[(img->next_flight + FLIGHTS_MAX - 1) %
                                  FLIGHTS_MAX];
  struct store_io **tail = &f->batch;

  if (r->stage != ROUND_BEGIN || r->error)
    return;
  if (img->nflights == 0) {
    img->round.error = img->store.failed ? EIO : 0;
    return;
  }
  while (*tail)
    tail = &(*tail)->next;
  *tail = img->round.batch;
  f->nbatch += img->round.nbatch;
  img->round.batch = NULL;
}

/* Behind the last answer the image may be about to be closed, which takes the
 * round for itself. */
static void
end_on_ring (struct image *img)
{
  struct round *r = &img->round;
  struct store_io *batch;
  uint64_t began = r->began;
  uint32_t nbatch = r->nbatch;
  bool more;

  pthread_mutex_lock (&img->commit_lock);
  board_late (img);
  pthread_mutex_unlock (&img->commit_lock);
  batch = r->batch;
  deliver (img, batch, r->error, r->ring);
  pthread_mutex_lock (&img->commit_lock);
  if (batch)
    count_round (img, began, nbatch);
  more = lead_on (img, r->ring);
  pthread_mutex_unlock (&img->commit_lock);
  if (more)
    start_on_ring (img);
}

/* With commit_lock: takes the flights off that are down, with all before
 * them, and returns whom they are for. */
static struct store_io *
disembark (struct image *img)
{
  struct store_io *batch = NULL, **tail = &batch;
  uint64_t began = 0;
  uint32_t n = 0;

  while (img->nflights > 0 && img->flight[img->first_flight].landed) {
    struct flight *f = &img->flight[img->first_flight];

    if (!img->store.failed)
      img->log.durable = f->number;
    *tail = f->batch;
    while (*tail)
      tail = &(*tail)->next;
    began = f->began;
    n += f->nbatch;
    img->first_flight = (img->first_flight + 1) % FLIGHTS_MAX;
    img->nflights--;
  }
  if (batch)
    count_round (img, began, n);
  return batch;
}

/* An entry is durable, or failed with e.  Returns whom to answer; sets *next
 * to what the caller is to do behind that, on ring or as a thread without
 * one. */
enum next { NEXT_NOTHING, NEXT_GO_ON, NEXT_LEAD };
static struct store_io *
land (struct flight *f, int e, struct ring *ring, enum next *next)
{
  struct image *img = f->img;
  struct store_io *batch;

  if (e)
    round_give_up (img);
  if (debug_is_on (image_commit))
    debug ("%s: log entry %" PRIu64 ": %" PRIu64 " bytes, %" PRIu64 " us",
           img->path, f->number, f->length, debug_now () - f->began);
  *next = NEXT_NOTHING;
  pthread_mutex_lock (&img->commit_lock);
  f->landed = true;
  batch = disembark (img);
  if (img->wants_alone && img->nflights == 0) {
    img->wants_alone = false;
    if (img->round.ring == NULL)
      pthread_cond_signal (&img->alone);
    else {
      img->round.ring = ring;
      *next = NEXT_GO_ON;
    }
  }
  else if (!img->committing && batch && lead_on (img, ring))
    *next = NEXT_LEAD;
  pthread_mutex_unlock (&img->commit_lock);
  return batch;
}

static void submit_flight (struct flight *f);

static void
landed (struct ring_op *op, int res)
{
  struct flight *f = (struct flight *) op;
  struct image *img = f->img;
  struct ring *ring = f->ring;
  struct store_io *batch;
  enum next next;

  if (res == -EINTR || res == -EAGAIN) {
    submit_flight (f);
    return;
  }
  batch = land (f, res < 0 ? -res : 0, ring, &next);
  deliver (img, batch, img->store.failed ? EIO : 0, ring);
  if (next == NEXT_GO_ON) {
    round_step (img, 0);
    submit_want (img);
  }
  else if (next == NEXT_LEAD)
    start_on_ring (img);
}

static void
submit_flight (struct flight *f)
{
  struct io_uring_sqe *sqe = ring_sqe (f->ring);

  io_uring_prep_fsync (sqe, f->fd, IORING_FSYNC_DATASYNC);
  sqe->off = f->offset;
  sqe->len = f->length - 1;     /* the last byte's */
  f->op.done = landed;
  ring_set_op (f->ring, sqe, &f->op);
}

/* With commit_lock: the round's entry of the log is on its way, and the lead
 * free for the next round.  Returns whether that is to begin. */
static bool
take_off (struct image *img)
{
  struct round *r = &img->round;
  struct flight *f = r->flight;

  f->img = img;
  f->ring = r->ring;
  f->number = img->log.number;
  f->batch = r->batch;
  f->nbatch = r->nbatch;
  f->began = r->began;
  f->landed = false;
  img->nflights++;
  img->next_flight = (img->next_flight + 1) % FLIGHTS_MAX;
  return lead_on (img, r->ring);
}

/* What the page cache has of it goes to the disk. */
static void
take_off_on_ring (struct image *img)
{
  struct flight *f = img->round.flight;
  bool more;

  pthread_mutex_lock (&img->commit_lock);
  more = take_off (img);
  pthread_mutex_unlock (&img->commit_lock);
  submit_flight (f);
  if (more)
    start_on_ring (img);
}

static void
want_done (struct ring_op *op, int res)
{
  struct image *img = (struct image *)
    ((char *) op - offsetof (struct image, round.op));
  struct round *r = &img->round;

  if (res == -EINTR || res == -EAGAIN) {
    submit_want (img);
    return;
  }
  if (r->stage == ROUND_BEGIN) {
    pthread_mutex_lock (&img->commit_lock);
    take_batch (img);
    pthread_mutex_unlock (&img->commit_lock);
  }
  round_step (img, res < 0 ? -res : 0);
  submit_want (img);
}

/* Whether the leader waits until it is alone; landed () goes on then. */
static bool
waits_alone (struct image *img)
{
  bool waits;

  pthread_mutex_lock (&img->commit_lock);
  waits = img->wants_alone = img->nflights > 0;
  pthread_mutex_unlock (&img->commit_lock);
  return waits;
}

static void
submit_want (struct image *img)
{
  struct round *r = &img->round;
  struct io_uring_sqe *sqe;
  int e;

  if (r->want == WANT_WRITE) {
    e = image_pwrite (img->fd, r->buf, r->length, r->offset);
    if (r->stage == ROUND_LOGGED && (e == ENOSPC || e == EDQUOT))
      round_without_log (img);
    else if (e)
      round_step (img, e);
    else if (r->stage == ROUND_LOGGED) {
      take_off_on_ring (img);
      return;
    }
  }
  if (r->want == WANT_ALONE) {
    if (waits_alone (img))
      return;
    round_step (img, 0);
  }
  if (r->want == WANT_END) {
    end_on_ring (img);
    return;
  }
  sqe = ring_sqe (r->ring);
  switch (r->want) {
  case WANT_SYNC:
  case WANT_WRITE:
    io_uring_prep_fsync (sqe, img->fd, IORING_FSYNC_DATASYNC);
    if (r->want == WANT_WRITE) {
      sqe->off = r->offset;
      sqe->len = r->length - 1;
    }
    break;
  default:
    io_uring_prep_nop (sqe);
  }
  r->op.done = want_done;
  ring_set_op (r->ring, sqe, &r->op);
}

/* ---- led by a thread that waits --------------------------------------- */

static bool
is_gathering (const struct image *img, uint64_t number)
{
  return img->gathering == &img->by_thread && img->gatherings == number;
}

/* With commit_lock.  Returns false where another one went on with the round,
 * for which there was one missing. */
static bool
gather (struct image *img)
{
  uint64_t us = patience (img), number = ++img->gatherings;
  struct timespec until;
  int r = 0;

  if (us == 0)
    return true;
  clock_gettime (CLOCK_MONOTONIC, &until);
  until.tv_nsec += us * 1000;
  until.tv_sec += until.tv_nsec / 1000000000;
  until.tv_nsec %= 1000000000;
  img->gathering = &img->by_thread;
  while (is_gathering (img, number) && !is_complete (img) && r == 0)
    r = pthread_cond_timedwait (&img->complete, &img->commit_lock, &until);
  if (!is_gathering (img, number))
    return false;
  gathered (img, !is_complete (img));
  return true;
}

static void *commit_thread (void *arg);

/* With commit_lock, and the lead: one of the threads of our own takes it, so
 * that no client's answer waits for rounds that are not its own; and where it
 * is such a thread that has it, so that the round does not wait for the
 * answers of the one before.  They are started here, when somebody has to wait
 * for another's round: never before a server has forked.  Returns false where
 * the caller has to lead. */
static bool
hand_over (struct image *img, bool is_thread)
{
  bool some = is_thread ? img->nidle > 0 : img->nthreads > 0;

  if (img->nidle == 0 && img->nthreads < COMMIT_THREADS &&
      pthread_create (&img->thread[img->nthreads], NULL, commit_thread,
                      img) == 0) {
    img->nthreads++;
    some = true;
  }
  if (some) {
    img->thread_wake = true;
    pthread_cond_signal (&img->commit_work);
  }
  return some;
}

static bool do_round (struct image *img, bool is_thread);

/* The round's entry of the log, to the disk.  Returns whether the caller is
 * to lead on. */
static bool
fly (struct image *img, bool is_thread)
{
  struct flight *f = img->round.flight;
  struct store_io *batch;
  enum next next;
  int e;

  pthread_mutex_lock (&img->commit_lock);
  if (take_off (img))
    img->committing = hand_over (img, is_thread);
  pthread_mutex_unlock (&img->commit_lock);
  e = round_write_durably (f->fd, f->entry, f->length, f->offset);
  batch = land (f, e, NULL, &next);
  if (next == NEXT_LEAD) {
    pthread_mutex_lock (&img->commit_lock);
    if (hand_over (img, is_thread))
      next = NEXT_NOTHING;
    pthread_mutex_unlock (&img->commit_lock);
  }
  deliver (img, batch, img->store.failed ? EIO : 0, NULL);
  if (next == NEXT_GO_ON)
    return do_round (img, is_thread);
  return next == NEXT_LEAD;
}

static void
wait_alone (struct image *img)
{
  pthread_mutex_lock (&img->commit_lock);
  while (img->nflights > 0) {
    img->wants_alone = true;
    pthread_cond_wait (&img->alone, &img->commit_lock);
  }
  pthread_mutex_unlock (&img->commit_lock);
}

/* A round that has begun; the same. */
static bool
do_round (struct image *img, bool is_thread)
{
  struct round *r = &img->round;
  struct store_io *batch;
  int error;
  bool more;

  while (r->want != WANT_END) {
    if (r->want == WANT_WRITE && r->stage == ROUND_LOGGED)
      return fly (img, is_thread);
    if (r->want == WANT_ALONE)
      wait_alone (img);
    round_do (img);
  }
  pthread_mutex_lock (&img->commit_lock);
  board_late (img);
  batch = r->batch;
  error = r->error;
  if (batch)
    count_round (img, r->began, r->nbatch);
  more = lead_on (img, NULL) && !hand_over (img, is_thread);
  pthread_mutex_unlock (&img->commit_lock);
  deliver (img, batch, error, NULL);
  return more;
}

/* Called and left with commit_lock held, with the lead. */
static void
lead (struct image *img, bool is_thread)
{
  bool more;

  do {
    if (!gather (img))
      return;
    take_batch (img);
    pthread_mutex_unlock (&img->commit_lock);
    round_begin (img);
    more = do_round (img, is_thread);
    pthread_mutex_lock (&img->commit_lock);
  } while (more);
}

static void *
commit_thread (void *arg)
{
  struct image *img = arg;

  pthread_mutex_lock (&img->commit_lock);
  for (;;) {
    img->nidle++;
    while (!img->thread_wake && !img->thread_stop)
      pthread_cond_wait (&img->commit_work, &img->commit_lock);
    img->nidle--;
    if (!img->thread_wake)
      break;
    img->thread_wake = false;
    lead (img, true);
  }
  pthread_mutex_unlock (&img->commit_lock);
  return NULL;
}

/* ---- joining ---------------------------------------------------------- */

/* With commit_lock: who joins leads rounds from now on, where nobody does; on
 * its ring, if this returns true.  Or it is the last one that a round waited
 * for, which goes on with that one here: the timer ends for nothing, or the
 * thread that waited is told. */
static bool
take_lead (struct image *img, struct ring *ring)
{
  if (img->gathering && is_complete (img)) {
    if (img->round.ring == NULL)
      pthread_cond_signal (&img->complete);
    gathered (img, false);
  }
  else if (img->committing || !may_lead (img, ring))
    return false;
  img->committing = true;
  img->round.ring = ring;
  if (ring == NULL)
    lead (img, false);
  return ring != NULL;
}

void
commit_join (struct image *img, struct store_io *io)
{
  bool on_ring;

  pthread_mutex_lock (&img->commit_lock);
  if (io->op == STORE_FLUSH && !img->committing && img->nflights == 0 &&
      !img->store.failed && log_is_idle (img)) {
    pthread_mutex_unlock (&img->commit_lock);
    io->done (io, 0, 0);
    return;
  }
  io->next = NULL;
  *img->waiting_tail = io;
  img->waiting_tail = &io->next;
  img->nwaiting++;
  on_ring = take_lead (img, io->ring);
  pthread_mutex_unlock (&img->commit_lock);
  if (on_ring)
    start_on_ring (img);
}

/* A commit, whatever changed. */
static int
session_round (struct image *img)
{
  img->round.session = true;
  return round_whole (img);
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
  struct image_commit *next = &img->round.next;
  int r;

  /* What an earlier session left in the volatile pointers or in the log
   * first, while it still counts. */
  if (img->ndirty > 0) {
    round_begin (img);
    r = session_round (img);
    if (r)
      return session_error (img, r, err);
  }
  if (volatile_start (img, err) == -1)
    return -1;
  round_begin (img);
  next->flags &= ~IMAGE_CLEAN;
  if (lost)
    next->epoch++;
  if (!image_boot_id (next->boot_id) &&
      getentropy (next->boot_id, sizeof next->boot_id) == -1)
    return session_error (img, errno, err);
  if (getentropy (&next->session, sizeof next->session) == -1)
    return session_error (img, errno, err);
  r = session_round (img);
  if (r)
    return session_error (img, r, err);
  if (img->distrusted)
    volatile_mark (img, false);
  img->distrusted = false;
  img->session = img->commit.session;
  img->store.geometry.epoch = img->commit.epoch;
  return 0;
}

/* Whether a zone was reset since, or keeps space. */
static bool
has_resets (const struct image *img)
{
  uint32_t i;

  for (i = img->sb.conventional; i < img->sb.zones; i++)
    if (img->zflags[i] & (ZFLAG_RESET | ZFLAG_KEPT))
      return true;
  return false;
}

int
commit_end_session (struct image *img, struct zone_error *err)
{
  int r;

  kept_stop (img);
  if (has_resets (img)) {
    round_begin (img);
    r = session_round (img);
    if (r)
      return session_error (img, r, err);
    kept_give_back (img);
  }
  round_begin (img);
  img->round.next.flags |= IMAGE_CLEAN;
  r = session_round (img);
  if (r)
    return session_error (img, r, err);
  return 0;
}
