/* SPDX-License-Identifier: BSD-3-Clause */
/* The blocking wrapper: submit without a ring and wait.  A waiting thread
 * also does what an event loop would do for parked writes.
 */

#include <config.h>

#include <time.h>

#include "disk-internal.h"

/* Each thread's own, for as long as it lives: who wakes it may still be
 * leaving the mutex when the answer is out. */
static __thread struct waiter {
  pthread_mutex_t lock;
  pthread_cond_t cond;
  bool done;
} waiter = {
  .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER,
};

static void
wake (struct zdisk_request *req)
{
  struct waiter *w = req->opaque;

  pthread_mutex_lock (&w->lock);
  w->done = true;
  pthread_cond_signal (&w->cond);
  pthread_mutex_unlock (&w->lock);
}

/* Waits for up to ms; true where done. */
static bool
wait_done (struct waiter *w, unsigned ms)
{
  struct timespec until;
  bool done;

  pthread_mutex_lock (&w->lock);
  if (!w->done) {
    clock_gettime (CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
      until.tv_nsec -= 1000000000L;
      until.tv_sec++;
    }
  }
  while (!w->done && pthread_cond_clockwait (&w->cond, &w->lock,
                                             CLOCK_MONOTONIC, &until) == 0)
    ;
  done = w->done;
  pthread_mutex_unlock (&w->lock);
  return done;
}

int
zdisk_run (struct zdisk_client *client, struct zdisk_request *req)
{
  struct waiter *w = &waiter;

  w->done = false;
  req->done = wake;
  req->opaque = w;
  zdisk_submit (client, req, NULL);
  /* Every part of a request may be parked anew, so the request's thread
   * looks after time as long as it waits. */
  while (!wait_done (w, client->disk->options.reorder_timeout / 4 + 1))
    zdisk_expire (client->disk, NULL);
  return req->error;
}
