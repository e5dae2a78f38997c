/* SPDX-License-Identifier: BSD-3-Clause */
/* See worker.h.  Each job has an eventfd, which its ring reads, so that the
 * ring knows of something in flight and its thread wakes when it is done.
 */

#include <config.h>

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ring.h"
#include "worker.h"

/* What a job keeps in store_io.priv. */
struct job {
  struct ring_op op;
  struct worker *w;
  uint64_t value;               /* that is read */
  int fd;
  int error;
};
_Static_assert (sizeof (struct job) <=
                sizeof (((struct store_io *) 0)->priv), "");

static struct job *
job_of (struct store_io *io)
{
  return (struct job *) &io->priv;
}

void
worker_init (struct worker *w, struct store *store,
             int (*perform) (struct store *, struct store_io *))
{
  pthread_mutex_init (&w->lock, NULL);
  pthread_cond_init (&w->wake, NULL);
  w->started = w->stop = false;
  w->perform = perform;
  w->store = store;
  w->first = NULL;
  w->tail = &w->first;
  w->nspare = 0;
}

static void
end (struct store_io *io, int error)
{
  io->done (io, error, error ? 0 : io->length);
}

static void *
run (void *arg)
{
  struct worker *w = arg;
  const uint64_t one = 1;
  struct store_io *io;
  int fd;

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
    job_of (io)->error = w->perform (w->store, io);
    /* From here on io is its ring's. */
    fd = job_of (io)->fd;
    while (write (fd, &one, sizeof one) == -1 && errno == EINTR)
      ;
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

/* The job's eventfd was read, on the ring's thread. */
static void
job_done (struct ring_op *op, int res)
{
  struct store_io *io = (struct store_io *)
    ((char *) op - offsetof (struct store_io, priv));
  struct job *job = job_of (io);
  struct worker *w = job->w;

  (void) res;
  pthread_mutex_lock (&w->lock);
  if (w->nspare < WORKER_SPARE)
    w->spare[w->nspare++] = job->fd;
  else
    close (job->fd);
  pthread_mutex_unlock (&w->lock);
  end (io, job->error);
}

void
worker_submit (struct worker *w, struct store_io *io)
{
  struct job *job = job_of (io);
  struct io_uring_sqe *sqe;

  job->w = w;
  pthread_mutex_lock (&w->lock);
  job->fd = w->nspare > 0 ? w->spare[--w->nspare] : eventfd (0, EFD_CLOEXEC);
  if (job->fd == -1 || (!w->started && !start (w))) {
    pthread_mutex_unlock (&w->lock);
    if (job->fd != -1)
      close (job->fd);
    end (io, w->perform (w->store, io));
    return;
  }
  sqe = ring_sqe (io->ring);
  io_uring_prep_read (sqe, job->fd, &job->value, sizeof job->value, 0);
  job->op.done = job_done;
  ring_set_op (io->ring, sqe, &job->op);
  io->next = NULL;
  *w->tail = io;
  w->tail = &io->next;
  pthread_cond_signal (&w->wake);
  pthread_mutex_unlock (&w->lock);
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
  while (w->nspare > 0)
    close (w->spare[--w->nspare]);
  pthread_cond_destroy (&w->wake);
  pthread_mutex_destroy (&w->lock);
}
