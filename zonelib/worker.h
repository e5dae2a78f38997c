/* SPDX-License-Identifier: BSD-3-Clause */
/* A thread of a store's for calls that block and that no ring can do:
 * zone management and reports of a device.  Jobs are done in the order in
 * which they came.
 *
 * A job ends on the ring that it came from, so on the thread of that ring:
 * what it lets go, perhaps a long row of writes, is that thread's to go on
 * with and keeps nobody else's job waiting.
 *
 * The thread is started with the first job, so after all forks.
 */

#ifndef ZONE_WORKER_H
#define ZONE_WORKER_H

#include <pthread.h>
#include <stdbool.h>

#include "store.h"

/* Eventfds that are kept. */
#define WORKER_SPARE 16

struct worker {
  pthread_mutex_t lock;         /* protects all of it */
  pthread_cond_t wake;
  pthread_t thread;
  bool started, stop;
  int (*perform) (struct store *store, struct store_io *io);
  struct store *store;
  struct store_io *first, **tail;
  int spare[WORKER_SPARE];
  unsigned nspare;
};

/* perform carries an io out, on any thread, and returns 0 or an errno. */
void worker_init (struct worker *w, struct store *store,
                  int (*perform) (struct store *, struct store_io *));

/* io has a ring.  Its done is called by who runs that, or at once, where no
 * thread can be had and it is performed here; io->priv is the worker's. */
void worker_submit (struct worker *w, struct store_io *io);

/* Ends the thread; nothing may be under way or be submitted any more. */
void worker_free (struct worker *w);

#endif /* ZONE_WORKER_H */
