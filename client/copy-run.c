/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads that do jobs, and the main thread, which gives what they have
 * written its condition and draws the bar.
 *
 * The destination's limits: a job whose zone becomes active waits until
 * active_left tells that one may.  Zones that become full give theirs back,
 * and jobs are in such an order that those come first (copy-plan.c).
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "copy.h"

/* The bar is drawn so often. */
#define TICK_MS 200

struct thread {
  struct copy *c;
  struct copy_worker *worker;   /* c->lock; NULL: not there yet, or ended */
  pthread_t id;
  bool started;
};

struct threads {
  struct thread thread[COPY_CONNECTIONS_MAX];
  unsigned n;
};

static struct threads threads;  /* of the one copy that a process makes;
                                 * c->lock */

/* Under lock. */
static void
wake_all (void)
{
  unsigned i;

  for (i = 0; i < threads.n; ++i)
    if (threads.thread[i].worker)
      copy_worker_wake (threads.thread[i].worker);
}

/* ---- failing ---- */

/* Under lock.  Returns whether it is the first failure. */
static bool
stop (struct copy *c)
{
  bool first = !atomic_exchange (&c->stop, true);

  wake_all ();
  pthread_cond_signal (&c->changed);
  return first;
}

void
copy_fail (struct copy *c, const char *fs, ...)
{
  va_list args;

  pthread_mutex_lock (&c->lock);
  if (stop (c)) {
    va_start (args, fs);
    vsnprintf (c->error, sizeof c->error, fs, args);
    va_end (args);
  }
  pthread_mutex_unlock (&c->lock);
}

void
copy_fail_write (struct copy *c, int error, uint64_t offset, uint64_t length,
                 const char *reason)
{
  pthread_mutex_lock (&c->lock);
  if (stop (c)) {
    snprintf (c->error, sizeof c->error, "%s: cannot be written at offset "
              "%" PRIu64 " (zone %" PRIu64 "): %s", c->dst.operand, offset,
              offset / c->dst.g->zone_size,
              reason[0] ? reason : strerror (error));
    c->explain = reason[0] == '\0';
    c->errnum = error;
    c->offset = offset;
    c->length = length;
  }
  pthread_mutex_unlock (&c->lock);
}

/* Says what failed.  Of a write that a server refused, its report tells
 * more than the errno, unless it is the connection that is lost. */
static void
explain (struct copy *c)
{
  struct znbd_disk *remote = target_remote (c->dst.target);
  char text[400];

  if (c->explain && remote && c->errnum != ENOTCONN &&
      c->errnum != ESHUTDOWN && c->errnum != EPIPE &&
      c->errnum != ECONNRESET && c->errnum != EIO &&
      znbd_explain_write (remote, c->offset, c->length, c->errnum, text,
                          sizeof text) != -1)
    cli_error ("%s: %s", c->dst.operand, text);
  else
    cli_error ("%s", c->error);
}

/* ---- jobs ---- */

struct copy_job *
copy_take_job (struct copy *c, bool *more)
{
  struct copy_job *job = NULL;

  pthread_mutex_lock (&c->lock);
  *more = c->next_job < c->njobs;
  if (*more) {
    job = &c->jobs[c->next_job];
    if (job->sequential && c->running >= c->open_max)
      job = NULL;
    else if (job->needs_active && c->active_left == 0) {
      if (c->nended == 0 && c->running == 0 && stop (c))
        snprintf (c->error, sizeof c->error, "%s: zone %" PRIu32 " cannot "
                  "be written: there are as many active zones as there may "
                  "be, %" PRIu32, c->dst.operand, job->zone,
                  c->dst.g->max_active);
      job = NULL;
    }
  }
  if (job) {
    c->next_job++;
    if (job->sequential)
      c->running++;
    if (job->needs_active)
      c->active_left--;
  }
  pthread_mutex_unlock (&c->lock);
  return job;
}

void
copy_end_job (struct copy *c, struct copy_job *job)
{
  pthread_mutex_lock (&c->lock);
  if (job->sequential)
    c->running--;
  job->next = c->ended;
  c->ended = job;
  c->nended++;
  pthread_cond_signal (&c->changed);
  wake_all ();
  pthread_mutex_unlock (&c->lock);
}

/* ---- the main thread ---- */

static int
compare_jobs (const void *a, const void *b)
{
  const struct copy_job *const *x = a, *const *y = b;

  return (*x)->zone < (*y)->zone ? -1 : (*x)->zone > (*y)->zone;
}

static const enum znbd_zone_op ops[] = {
  [COPY_CLOSE] = ZNBD_ZONE_CLOSE,
  [COPY_FINISH] = ZNBD_ZONE_FINISH,
  [COPY_OPEN] = ZNBD_ZONE_OPEN,
};

/* Gives zones their conditions, those that follow each other together. */
static int
settle_zones (struct copy *c, struct copy_job **jobs, uint32_t n)
{
  uint32_t i, j, done;

  for (i = 0; i < n; i = j) {
    for (j = i + 1; j < n && jobs[j]->action == jobs[i]->action &&
           jobs[j]->zone == jobs[j - 1]->zone + 1; ++j)
      ;
    if (jobs[i]->action == COPY_NOTHING)
      continue;
    copy_progress_clear (c);
    if (target_manage (c->dst.target, ops[jobs[i]->action], jobs[i]->zone,
                       j - i, &done) == -1)
      return -1;
  }
  return 0;
}

/* What a batch of jobs has changed of what limits leave. */
struct balance {
  uint32_t inactive;            /* zones that are active no more */
  uint32_t opened;              /* that stay open */
};

/* Looks at jobs that have ended, without the lock. */
static int
settle (struct copy *c, struct copy_job *list, uint32_t n, struct balance *b)
{
  struct copy_job **jobs = malloc (n * sizeof *jobs);
  uint32_t i;
  int r;

  if (jobs == NULL) {
    cli_error ("out of memory");
    return -1;
  }
  for (i = 0; i < n; ++i, list = list->next) {
    jobs[i] = list;
    b->inactive += copy_frees_active (c, list);
    b->opened += list->action == COPY_OPEN;
  }
  qsort (jobs, n, sizeof *jobs, compare_jobs);
  r = settle_zones (c, jobs, n);
  free (jobs);
  return r;
}

/* Waits for news, or for the bar's next moment.  Under lock. */
static void
wait_for_news (struct copy *c)
{
  struct timespec t;

  clock_gettime (CLOCK_REALTIME, &t);
  t.tv_nsec += TICK_MS * 1000000L;
  if (t.tv_nsec >= 1000000000L) {
    t.tv_nsec -= 1000000000L;
    t.tv_sec++;
  }
  pthread_cond_timedwait (&c->changed, &c->lock, &t);
}

/* Until all threads have ended and all they did is settled. */
static int
supervise (struct copy *c)
{
  struct copy_job *list;
  struct balance b;
  uint32_t n;
  int r = 0;

  pthread_mutex_lock (&c->lock);
  while (c->nalive > 0 || c->ended) {
    if (c->ended == NULL)
      wait_for_news (c);
    list = c->ended;
    n = c->nended;
    c->ended = NULL;
    pthread_mutex_unlock (&c->lock);

    b = (struct balance) { 0 };
    if (list && c->mode == COPY_DATA && !atomic_load (&c->stop))
      r = settle (c, list, n, &b);
    copy_progress_draw (c);

    pthread_mutex_lock (&c->lock);
    if (r == -1)
      stop (c);
    c->active_left += b.inactive;
    if (c->open_max != UINT32_MAX)
      c->open_max -= b.opened < c->open_max ? b.opened : c->open_max;
    if (list) {
      c->nended -= n;
      wake_all ();
    }
  }
  pthread_mutex_unlock (&c->lock);
  return r;
}

/* ---- threads ---- */

static void *
thread_main (void *opaque)
{
  struct thread *t = opaque;
  struct copy *c = t->c;
  struct copy_worker *w = copy_worker_new (c);

  if (w) {
    pthread_mutex_lock (&c->lock);
    t->worker = w;
    pthread_mutex_unlock (&c->lock);
    copy_worker_run (w);
  }
  pthread_mutex_lock (&c->lock);
  t->worker = NULL;
  c->nalive--;
  pthread_cond_signal (&c->changed);
  pthread_mutex_unlock (&c->lock);
  copy_worker_free (w);
  return NULL;
}

/* How many there are to be. */
static unsigned
count_threads (const struct copy *c)
{
  long cpus = sysconf (_SC_NPROCESSORS_ONLN);
  unsigned n = c->o.connections;

  if (n == 0)
    n = cpus < 1 ? 1 : cpus > 4 ? 4 : cpus;
  if (!c->src.multi_conn || !c->dst.multi_conn)
    n = 1;
  if (n > c->njobs)
    n = c->njobs;
  return n;
}

/* How many pieces each of them may have in flight. */
static unsigned
count_pieces (const struct copy *c, unsigned nthreads)
{
  uint64_t n = COPY_MEMORY_MAX / (copy_piece_memory (c) * nthreads);

  return n < 1 ? 1 : n < c->o.requests ? n : c->o.requests;
}

static void
start (struct copy *c)
{
  const unsigned n = count_threads (c);
  unsigned i;
  int r = 0;

  c->npieces = count_pieces (c, n);
  memset (&threads, 0, sizeof threads);
  pthread_mutex_lock (&c->lock);
  for (i = 0; i < n; ++i) {
    struct thread *t = &threads.thread[i];

    t->c = c;
    r = pthread_create (&t->id, NULL, thread_main, t);
    if (r != 0)
      break;
    t->started = true;
    c->nalive++;
    threads.n++;
  }
  pthread_mutex_unlock (&c->lock);
  if (threads.n == 0)
    copy_fail (c, "cannot start a thread: %s", strerror (r));
}

int
copy_run (struct copy *c, enum copy_mode mode, const char *verb)
{
  uint32_t i;
  int r;

  c->mode = mode;
  c->next_job = 0;
  c->total = 0;
  atomic_store (&c->done, 0);
  for (i = 0; i < c->njobs; ++i)
    c->total += c->jobs[i].to - c->jobs[i].from;
  if (c->njobs == 0)
    return 0;

  copy_progress_begin (c, verb);
  start (c);
  r = supervise (c);
  for (i = 0; i < threads.n; ++i)
    pthread_join (threads.thread[i].id, NULL);
  copy_progress_end (c, r == 0 && !atomic_load (&c->stop));
  if (atomic_load (&c->stop)) {
    if (r == 0)
      explain (c);
    r = -1;
  }
  return r;
}
