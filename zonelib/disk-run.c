/* SPDX-License-Identifier: BSD-3-Clause */
/* The blocking wrapper: submit without a ring and wait.  A waiting thread
 * also does what an event loop would do for parked writes.
 */

#include <config.h>

#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "disk-internal.h"

/* A write that came before the one that precedes it has nearly always to
 * wait for no longer than that one takes: so often the processor is given
 * up before the thread goes to sleep, which costs both sides more, and so
 * often it is looked before each time.  (Not for what is made durable: that
 * takes longer.) */
#define YIELDS 8
#define LOOKS 40

/* Each thread's own.  Who wakes it may do so when it is on its way again, or
 * gone: then nobody, or somebody who looks after all and sleeps on, is
 * woken. */
enum { WAITER_RUNS, WAITER_SLEEPS, WAITER_DONE };
static __thread _Atomic uint32_t waiter;

/* These futexes are not marked as private: the kernel keeps such ones in a
 * table of few buckets a process (from Linux 6.16 on), where nbdkit's idle
 * threads, 64 of each connection, are in the way of each wake. */
static void
wake (struct zdisk_request *req)
{
  _Atomic uint32_t *w = req->opaque;

  if (atomic_exchange_explicit (w, WAITER_DONE, memory_order_acq_rel) ==
      WAITER_SLEEPS)
    syscall (SYS_futex, w, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static bool
is_done (_Atomic uint32_t *w)
{
  return atomic_load_explicit (w, memory_order_acquire) == WAITER_DONE;
}

/* Sleeps for up to ms, perhaps less; true where it is done. */
static bool
sleep_until_woken (_Atomic uint32_t *w, unsigned ms)
{
  struct timespec most = { ms / 1000, ms % 1000 * 1000000L };

  syscall (SYS_futex, w, FUTEX_WAIT, WAITER_SLEEPS, &most, NULL, 0);
  return is_done (w);
}

static bool
spin_until_done (_Atomic uint32_t *w)
{
  unsigned i;

  for (i = 0; i < LOOKS && !is_done (w); i++)
    spin_relax ();
  return is_done (w);
}

int
zdisk_run (struct zdisk_client *client, struct zdisk_request *req)
{
  _Atomic uint32_t *w = &waiter;
  uint32_t runs = WAITER_RUNS;
  unsigned i;

  if (req->op == ZDISK_READ && disk_read (client->disk, req)) {
    req->error = 0;
    return 0;
  }
  atomic_store_explicit (w, WAITER_RUNS, memory_order_relaxed);
  req->done = wake;
  req->opaque = w;
  disk_submit (client, req, NULL, false);
  for (i = 0; i < YIELDS && !is_done (w) &&
         !atomic_load_explicit (&req->work.flushing, memory_order_relaxed);
       i++)
    if (!spin_until_done (w))
      sched_yield ();
  if (is_done (w) ||
      !atomic_compare_exchange_strong (w, &runs, WAITER_SLEEPS))
    return req->error;
  /* Every part of a request may be parked anew, so the request's thread
   * looks after time as long as it waits. */
  while (!sleep_until_woken (w, client->disk->options.reorder_timeout / 4 +
                             1))
    zdisk_expire (client->disk, NULL);
  return req->error;
}
