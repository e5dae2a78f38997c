/* SPDX-License-Identifier: BSD-3-Clause */
/* An io_uring that one thread owns, and how completions find their way.
 *
 * Every submission's user data is a struct ring_op, whose done is called
 * from ring_run on the owning thread.  Not thread-safe, by design.
 */

#ifndef ZONE_RING_H
#define ZONE_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "ring-wait.h"

struct ring_op {
  void (*done) (struct ring_op *op, int res);   /* res as in a CQE */
};

struct ring {
  struct io_uring uring;
  unsigned in_flight;           /* those that wait for a later turn, too */
  unsigned work;                /* steps done in this turn, see RING_TURN */
  struct ring_prompt *prompt;   /* prepared, and not known to have ended */
  struct ring_wait *waiting, **waiting_tail;
  void *fixed;                  /* memory that the kernel knows, buffer 0 */
  size_t fixed_size;

  /* ring-poll.c */
  bool polls;
  uint64_t idle_since;          /* ns */
  unsigned soon;                /* completions that came soon, in a row */
  unsigned in_vain, rest;       /* not to look so often; left of them */
};

/* Called on the thread that will own the ring. */
int ring_init (struct ring *ring, unsigned entries, struct zone_error *err);
void ring_free (struct ring *ring);

/* Has the kernel keep memory mapped and pinned for transfers, so that it need
 * not look it up for each.  False where it may not (RLIMIT_MEMLOCK). */
bool ring_fix (struct ring *ring, void *memory, size_t size);

/* Whether a buffer lies in that. */
static inline bool
ring_is_fixed (const struct ring *ring, const void *buf, size_t size)
{
  size_t at = (uintptr_t) buf - (uintptr_t) ring->fixed;

  return at < ring->fixed_size && size <= ring->fixed_size - at;
}

/* A submission entry with op as its user data, to be prepared by the
 * caller (io_uring_prep_* first, then ring_set_op).  Never NULL: a full
 * queue is submitted first. */
struct io_uring_sqe *ring_sqe (struct ring *ring);
void ring_set_op (struct ring *ring, struct io_uring_sqe *sqe,
                  struct ring_op *op);

/* The same for what the kernel does as it is submitted, or not at all, as a
 * send with MSG_DONTWAIT: it ends no wait.  done is called in the run that
 * submits it, with res if it succeeded. */
struct ring_prompt {
  struct ring_op op;
  struct ring_prompt *next;
  int res;
};

void ring_set_prompt (struct ring *ring, struct io_uring_sqe *sqe,
                      struct ring_prompt *prompt, int res);

/* Has the kernel end what is in flight with op, which still is called
 * back. */
void ring_cancel (struct ring *ring, struct ring_op *op);

/* Submits what was prepared and calls back what is complete; with wait,
 * waits for at least one completion where any is in flight.  Returns the
 * number of completions, or -errno. */
int ring_run (struct ring *ring, bool wait);

/* The same, waiting for at most ms (0: not at all, -1: without end).  Then a
 * turn begins, with what waits for one. */
int ring_run_for (struct ring *ring, int ms);

/* Steps that a turn may have, so that what has many of them does not hold up
 * what else the thread has to do; a step takes about a microsecond.  Who has
 * more to do when ring->work exceeds this, and has done something, leaves
 * the rest for a later turn. */
#define RING_TURN 1024

/* ring-poll.c.  From now on the ring looks for a completion for some us before
 * it sleeps, where it expects one; for threads that do nothing else. */
void ring_poll_init (struct ring *ring);
/* For ring.c: before it waits, true where it is worth to look; that, true
 * where it need not sleep; and when it did. */
bool ring_poll_begin (struct ring *ring);
bool ring_poll (struct ring *ring);
void ring_poll_end (struct ring *ring);

/* Has wait->go called in a later turn; those that wait take turns. */
void ring_later (struct ring *ring, struct ring_wait *wait);

#endif /* ZONE_RING_H */
