/* SPDX-License-Identifier: BSD-3-Clause */
/* The blocking wrapper: submit without a ring and wait.  A waiting thread
 * also does what an event loop would do for parked writes.
 */

#include <config.h>

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "disk-internal.h"

/* A write that came before the one that precedes it has nearly always to
 * wait for no longer than that one takes: so often the processor is given
 * up before the thread goes to sleep, which costs both sides more. */
#define YIELDS 8

/* Each thread's own, for as long as it lives: who wakes it may still be
 * leaving the mutex when the answer is out. */
enum { WAITER_RUNS, WAITER_SLEEPS, WAITER_DONE };
static __thread struct waiter {
  _Atomic int state;
  bool woken;                   /* under lock; set where it slept */
  pthread_mutex_t lock;
  pthread_cond_t cond;
} waiter = {
  .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER,
};

static void
wake (struct zdisk_request *req)
{
  struct waiter *w = req->opaque;

  if (atomic_exchange_explicit (&w->state, WAITER_DONE,
                                memory_order_acq_rel) != WAITER_SLEEPS)
    return;
  pthread_mutex_lock (&w->lock);
  w->woken = true;
  pthread_cond_signal (&w->cond);
  pthread_mutex_unlock (&w->lock);
}

/* Sleeps for up to ms; true where woken. */
static bool
sleep_until_woken (struct waiter *w, unsigned ms)
{
  struct timespec until;
  bool woken;

  clock_gettime (CLOCK_MONOTONIC, &until);
  until.tv_sec += ms / 1000;
  until.tv_nsec += ms % 1000 * 1000000L;
  if (until.tv_nsec >= 1000000000L) {
    until.tv_nsec -= 1000000000L;
    until.tv_sec++;
  }
  pthread_mutex_lock (&w->lock);
  while (!w->woken && pthread_cond_clockwait (&w->cond, &w->lock,
                                              CLOCK_MONOTONIC, &until) == 0)
    ;
  woken = w->woken;
  pthread_mutex_unlock (&w->lock);
  return woken;
}

static bool
is_done (struct waiter *w)
{
  return atomic_load_explicit (&w->state, memory_order_acquire) ==
    WAITER_DONE;
}

int
zdisk_run (struct zdisk_client *client, struct zdisk_request *req)
{
  struct waiter *w = &waiter;
  int runs = WAITER_RUNS;
  unsigned i;

  if (req->op == ZDISK_READ && disk_read (client->disk, req)) {
    req->error = 0;
    return 0;
  }
  atomic_store_explicit (&w->state, WAITER_RUNS, memory_order_relaxed);
  w->woken = false;
  req->done = wake;
  req->opaque = w;
  disk_submit (client, req, NULL, false);
  for (i = 0; i < YIELDS && !is_done (w); i++)
    sched_yield ();
  if (is_done (w) ||
      !atomic_compare_exchange_strong (&w->state, &runs, WAITER_SLEEPS))
    return req->error;
  /* Every part of a request may be parked anew, so the request's thread
   * looks after time as long as it waits. */
  while (!sleep_until_woken (w, client->disk->options.reorder_timeout / 4 +
                             1))
    zdisk_expire (client->disk, NULL);
  return req->error;
}
