/* SPDX-License-Identifier: BSD-3-Clause */
/* See sim.h: threads, one of which runs at a time.  Who runs next is the
 * seed's choice, made where a thread does I/O or sleeps; zonelib does no I/O
 * under a lock, so locks are always free, and only waiting for conditions is
 * wrapped.
 *
 * And rings: what is submitted is done when the owner runs its ring, in any
 * order, sometimes in part, sometimes to be tried again.
 */

#define _GNU_SOURCE
#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ring.h"
#include "sim.h"
#include "wraps.h"

#define THREADS_MAX 32u

static struct thread {
  sem_t go;
  pthread_t id;
  bool runnable, ended;
  bool spawned;                 /* by the test */
  void *on;                     /* the condition that it waits for */
  void *(*fn) (void *);
  void *arg;
} threads[THREADS_MAX];
static unsigned nthreads;       /* 0: not live */
static __thread unsigned self;

struct sim *sim;

/* splitmix64 */
uint64_t
sim_mix (uint64_t x)
{
  x = (x ^ x >> 30) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C (0x94d049bb133111eb);
  return x ^ x >> 31;
}

uint64_t
sim_random (void)
{
  return sim_mix (sim->rng += UINT64_C (0x9e3779b97f4a7c15));
}

unsigned
sim_below (unsigned n)
{
  return sim_random () % n;
}

bool
sim_chance (unsigned percent)
{
  return sim_below (100) < percent;
}

void
sim_wrong (const char *fs, ...)
{
  va_list args;

  va_start (args, fs);
  vsnprintf (sim->text, sizeof sim->text, fs, args);
  va_end (args);
  _exit (SIM_WRONG);
}

bool
sim_is_live (void)
{
  return nthreads > 0;
}

unsigned
sim_self (void)
{
  return self;
}

/* The calling thread is the first one. */
void
sim_live (void)
{
  sem_init (&threads[0].go, 0, 0);
  threads[0].runnable = true;
  nthreads = 1;
}

static void
wait_for_turn (void)
{
  while (sem_wait (&threads[self].go) == -1)
    ;
}

static unsigned
next_thread (void)
{
  unsigned i, n = 0, chosen = 0, idle = 0;

  for (;;) {
    for (i = 0; i < nthreads; i++)
      if (threads[i].runnable && sim_below (++n) == 0)
        chosen = i;
    if (n > 0)
      return chosen;
    if (idle++ == 10)
      sim_wrong ("deadlock: all threads sleep");
    sim_idle ();
  }
}

static void
switch_thread (void)
{
  unsigned next = next_thread ();

  if (next == self)
    return;
  sem_post (&threads[next].go);
  wait_for_turn ();
}

void
sim_event (void)
{
  if (++sim->events == sim->crash_at)
    _exit (SIM_CRASHED);
  if (sim_chance (sim->switching))
    switch_thread ();
}

void
sim_sleep (void)
{
  threads[self].runnable = false;
  switch_thread ();
}

void
sim_wake (unsigned thread)
{
  threads[thread].runnable = true;
}

static void *
run_thread (void *arg)
{
  struct thread *t = arg;

  self = t - threads;
  wait_for_turn ();
  t->fn (t->arg);
  t->ended = true;
  t->runnable = false;
  threads[0].runnable = true;   /* it joins, perhaps */
  sem_post (&threads[next_thread ()].go);
  return NULL;
}

int
__wrap_pthread_create (pthread_t *id, const pthread_attr_t *attr,
                       void *(*fn) (void *), void *arg)
{
  struct thread *t = &threads[nthreads];

  if (!sim_is_live ())
    return __real_pthread_create (id, attr, fn, arg);
  if (nthreads == THREADS_MAX)
    return EAGAIN;
  sem_init (&t->go, 0, 0);
  t->fn = fn;
  t->arg = arg;
  t->runnable = true;
  nthreads++;
  if (__real_pthread_create (&t->id, NULL, run_thread, t) != 0)
    sim_wrong ("no thread can be started");
  *id = t->id;
  return 0;
}

void
sim_spawn (void *(*fn) (void *), void *arg)
{
  pthread_t id;

  __wrap_pthread_create (&id, NULL, fn, arg);
  threads[nthreads - 1].spawned = true;
}

static void
join (struct thread *t)
{
  while (!t->ended)
    sim_sleep ();
  if (t->fn)
    __real_pthread_join (t->id, NULL);
  t->fn = NULL;
}

int
__wrap_pthread_join (pthread_t id, void **result)
{
  unsigned i;

  if (!sim_is_live ())
    return __real_pthread_join (id, result);
  for (i = 1; !pthread_equal (threads[i].id, id); i++)
    ;
  join (&threads[i]);
  return 0;
}

void
sim_join_all (void)
{
  unsigned i;

  for (i = 1; i < nthreads; i++)
    if (threads[i].spawned)
      join (&threads[i]);
}

int
__wrap_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex)
{
  if (!sim_is_live ())
    return __real_pthread_cond_wait (cond, mutex);
  threads[self].on = cond;
  pthread_mutex_unlock (mutex);
  while (threads[self].on)
    sim_sleep ();
  pthread_mutex_lock (mutex);
  return 0;
}

/* For a few turns of the others. */
int
__wrap_pthread_cond_timedwait (pthread_cond_t *cond, pthread_mutex_t *mutex,
                               const struct timespec *until)
{
  unsigned i;
  int r;

  if (!sim_is_live ())
    return __real_pthread_cond_timedwait (cond, mutex, until);
  threads[self].on = cond;
  pthread_mutex_unlock (mutex);
  for (i = sim_below (20); i > 0 && threads[self].on; i--)
    switch_thread ();
  r = threads[self].on ? ETIMEDOUT : 0;
  threads[self].on = NULL;
  pthread_mutex_lock (mutex);
  return r;
}

/* Microseconds, whatever the machine does. */
uint64_t
__wrap_debug_now (void)
{
  return sim_is_live () ? sim->events : __real_debug_now ();
}

int
__wrap_pthread_cond_signal (pthread_cond_t *cond)
{
  unsigned i;

  if (!sim_is_live ())
    return __real_pthread_cond_signal (cond);
  for (i = 0; i < nthreads; i++)
    if (threads[i].on == cond) {
      threads[i].on = NULL;
      threads[i].runnable = true;
      break;
    }
  return 0;
}

/* ---- rings ------------------------------------------------------------ */

#define RING_MAX 256u

static __thread struct {
  struct io_uring_sqe sqe;
  struct ring_op *op;
} queue[RING_MAX];
static __thread unsigned nqueued;

struct io_uring_sqe *
__wrap_ring_sqe (struct ring *ring)
{
  if (!sim_is_live ())
    return __real_ring_sqe (ring);
  if (nqueued == RING_MAX)
    sim_wrong ("the simulation's ring is too small");
  memset (&queue[nqueued].sqe, 0, sizeof queue[nqueued].sqe);
  return &queue[nqueued].sqe;
}

void
__wrap_ring_set_op (struct ring *ring, struct io_uring_sqe *sqe,
                    struct ring_op *op)
{
  if (!sim_is_live ()) {
    __real_ring_set_op (ring, sqe, op);
    return;
  }
  queue[nqueued++].op = op;
  ring->in_flight++;
}

/* What the kernel would do. */
static int
perform (const struct io_uring_sqe *sqe)
{
  struct iovec one = { (void *) (uintptr_t) sqe->addr, sqe->len };
  const struct iovec *iov = (void *) (uintptr_t) sqe->addr;
  int fd = sqe->fd, n = sqe->len;
  off_t at = sqe->off;
  ssize_t r;

  if (sim_chance (5))
    return sim_chance (50) ? -EINTR : -EAGAIN;
  switch (sqe->opcode) {
  case IORING_OP_READ: r = preadv (fd, &one, 1, at); break;
  case IORING_OP_WRITE: r = pwritev (fd, &one, 1, at); break;
  case IORING_OP_READV: r = preadv (fd, iov, n, at); break;
  case IORING_OP_WRITEV: r = pwritev (fd, iov, n, at); break;
  case IORING_OP_FALLOCATE:
    r = fallocate (fd, sqe->len, at, sqe->addr);
    break;
  case IORING_OP_FADVISE: r = 0; break;
  case IORING_OP_NOP: r = 0; break;
  case IORING_OP_TIMEOUT: return -ETIME;
  case IORING_OP_FSYNC:
    /* As far as the byte at off + len. */
    r = sim_sync_range (at, at + sqe->len > 0 ? sqe->len + 1 : 0);
    break;
  default:
    sim_wrong ("the simulation's ring does not know operation %u",
               sqe->opcode);
  }
  return r == -1 ? -errno : r;
}

int
__wrap_ring_run (struct ring *ring, bool wait)
{
  int n = 0;

  (void) wait;
  while (nqueued > 0) {
    unsigned i = sim_below (nqueued);
    struct io_uring_sqe sqe = queue[i].sqe;
    struct ring_op *op = queue[i].op;

    queue[i] = queue[--nqueued];
    ring->in_flight--;
    op->done (op, perform (&sqe));
    n++;
  }
  return n;
}
