/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether to look out for the next completion for a moment before sleeping.
 *
 * To be woken costs both sides: who wakes another processor from its sleep
 * pays for it, and what it brings comes late, in a virtual machine by more
 * than a small request takes.  So where the last completions came soon after
 * the ring had nothing to do, it is looked for the next one as long; where
 * that was in vain, or somebody else wants the processor, less and less.
 */

#include <config.h>

#include <sched.h>
#include <time.h>

#include "lock.h"
#include "ring.h"

/* Looked for no longer than that. */
#define POLL_NS UINT64_C (50000)

/* Of one that slept: what else waking took is in it. */
#define SOON_NS (2 * POLL_NS)

/* So many that came soon, in a row, are needed first. */
#define SOON_RUN 4u

/* So often at most it is not looked for after it was in vain. */
#define REST_MAX 64u

/* The processor is offered to others after so many looks; one that is away
 * for longer was taken by them. */
#define YIELD_LOOKS 16u
#define TAKEN_NS UINT64_C (8000)

static uint64_t
now_ns (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * UINT64_C (1000000000) + ts.tv_nsec;
}

void
ring_poll_init (struct ring *ring)
{
  cpu_set_t cpus;

  /* Where there is one processor the other side needs it. */
  ring->polls = sched_getaffinity (0, sizeof cpus, &cpus) == 0 &&
    CPU_COUNT (&cpus) > 1;
  ring->soon = ring->rest = ring->in_vain = 0;
}

static bool
is_there (struct ring *ring)
{
  return (IO_URING_READ_ONCE (*ring->uring.sq.kflags) & IORING_SQ_TASKRUN) ||
    io_uring_cq_ready (&ring->uring) > 0;
}

static bool
look (struct ring *ring, uint64_t began)
{
  uint64_t now, last = began;
  unsigned n;

  for (n = 1;; n++) {
    if (is_there (ring))
      return true;
    if (n % YIELD_LOOKS == 0)
      sched_yield ();
    else
      spin_relax ();
    now = now_ns ();
    if (now - began >= POLL_NS || now - last >= TAKEN_NS)
      return is_there (ring);
    last = now;
  }
}

bool
ring_poll_begin (struct ring *ring)
{
  if (!ring->polls)
    return false;
  ring->idle_since = now_ns ();
  if (ring->soon < SOON_RUN)
    return false;
  if (ring->rest == 0)
    return true;
  ring->rest--;
  return false;
}

bool
ring_poll (struct ring *ring)
{
  bool found;

  /* From when all was submitted: a send that is done then is no waiting. */
  ring->idle_since = now_ns ();
  found = look (ring, ring->idle_since);
  if (found)
    ring->in_vain = 0;
  else if (ring->in_vain < REST_MAX)
    ring->in_vain = ring->in_vain ? 2 * ring->in_vain : 1;
  ring->rest = ring->in_vain;
  return found;
}

void
ring_poll_end (struct ring *ring)
{
  if (!ring->polls)
    return;
  if (now_ns () - ring->idle_since >= SOON_NS)
    ring->soon = 0;
  else if (ring->soon < SOON_RUN)
    ring->soon++;
}
