/* SPDX-License-Identifier: BSD-3-Clause */
/* A thread of a store's for calls that block and that no ring can do:
 * zone management and reports of a device.  Jobs are done in the order in
 * which they came.
 *
 * The thread is started with the first job, so after all forks.
 */

#ifndef ZONE_WORKER_H
#define ZONE_WORKER_H

#include <pthread.h>
#include <stdbool.h>

#include "store.h"

struct worker {
  pthread_mutex_t lock;         /* protects all of it */
  pthread_cond_t wake;
  pthread_t thread;
  bool started, stop;
  void (*perform) (struct store *store, struct store_io *io);
  struct store *store;
  struct store_io *first, **tail;
};

/* perform carries an io out and calls its done, on the worker's thread. */
void worker_init (struct worker *w, struct store *store,
                  void (*perform) (struct store *, struct store_io *));

/* Where no thread can be started the caller's does it. */
void worker_submit (struct worker *w, struct store_io *io);

/* Ends the thread after what it has; nothing may be submitted any more. */
void worker_free (struct worker *w);

#endif /* ZONE_WORKER_H */
