/* SPDX-License-Identifier: BSD-3-Clause */
/* See worker.h. */

#include <config.h>

#include <signal.h>
#include <stddef.h>

#include "worker.h"

void
worker_init (struct worker *w, struct store *store,
             void (*perform) (struct store *, struct store_io *))
{
  pthread_mutex_init (&w->lock, NULL);
  pthread_cond_init (&w->wake, NULL);
  w->started = w->stop = false;
  w->perform = perform;
  w->store = store;
  w->first = NULL;
  w->tail = &w->first;
}

static void *
run (void *arg)
{
  struct worker *w = arg;
  struct store_io *io;

  pthread_mutex_lock (&w->lock);
  for (;;) {
    while (w->first == NULL && !w->stop)
      pthread_cond_wait (&w->wake, &w->lock);
    io = w->first;
    if (io == NULL)
      break;
    w->first = io->next;
    if (w->first == NULL)
      w->tail = &w->first;
    pthread_mutex_unlock (&w->lock);
    w->perform (w->store, io);
    pthread_mutex_lock (&w->lock);
  }
  pthread_mutex_unlock (&w->lock);
  return NULL;
}

/* Signals are for the program's own threads. */
static bool
start (struct worker *w)
{
  sigset_t all, old;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  w->started = pthread_create (&w->thread, NULL, run, w) == 0;
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  return w->started;
}

void
worker_submit (struct worker *w, struct store_io *io)
{
  bool ready;

  pthread_mutex_lock (&w->lock);
  ready = w->started || start (w);
  if (ready) {
    io->next = NULL;
    *w->tail = io;
    w->tail = &io->next;
    pthread_cond_signal (&w->wake);
  }
  pthread_mutex_unlock (&w->lock);
  if (!ready)
    w->perform (w->store, io);
}

void
worker_free (struct worker *w)
{
  pthread_mutex_lock (&w->lock);
  w->stop = true;
  pthread_cond_signal (&w->wake);
  pthread_mutex_unlock (&w->lock);
  if (w->started)
    pthread_join (w->thread, NULL);
  pthread_cond_destroy (&w->wake);
  pthread_mutex_destroy (&w->lock);
}
