/* SPDX-License-Identifier: BSD-3-Clause */
/* A mutex of four bytes, so that each of a million zones has its own:
 * pthread_mutex_t is ten times as large.  Three states as in Drepper's
 * "Futexes are tricky": 0 free, 1 taken, 2 taken and waited for.  Sections
 * under it are short and do no I/O.
 */

#ifndef ZONE_LOCK_H
#define ZONE_LOCK_H

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

typedef _Atomic uint32_t zone_lock_t;

/* A condition with times by CLOCK_MONOTONIC, for pthread_cond_timedwait. */
static inline void
cond_init_monotonic (pthread_cond_t *cond)
{
  pthread_condattr_t attr;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (cond, &attr);
  pthread_condattr_destroy (&attr);
}

/* Between two looks at what another processor is about to change. */
static inline void
spin_relax (void)
{
#if defined __x86_64__ || defined __i386__
  __builtin_ia32_pause ();
#elif defined __aarch64__
  __asm__ volatile ("yield");
#endif
}

static inline void
zone_lock_slow (zone_lock_t *lock)
{
  int i;
  uint32_t seen;

  /* The owner is nearly always about to leave. */
  for (i = 0; i < 64; i++) {
    seen = 0;
    if (atomic_load_explicit (lock, memory_order_relaxed) == 0 &&
        atomic_compare_exchange_weak_explicit (lock, &seen, 1,
                                               memory_order_acquire,
                                               memory_order_relaxed))
      return;
    spin_relax ();
  }
  while (atomic_exchange_explicit (lock, 2, memory_order_acquire) != 0)
    syscall (SYS_futex, lock, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
}

static inline void
zone_lock (zone_lock_t *lock)
{
  uint32_t expected = 0;

  if (!atomic_compare_exchange_strong_explicit (lock, &expected, 1,
                                                memory_order_acquire,
                                                memory_order_relaxed))
    zone_lock_slow (lock);
}

static inline void
zone_unlock (zone_lock_t *lock)
{
  if (atomic_exchange_explicit (lock, 0, memory_order_release) == 2)
    syscall (SYS_futex, lock, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

#endif /* ZONE_LOCK_H */
