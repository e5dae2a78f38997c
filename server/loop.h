/* SPDX-License-Identifier: BSD-3-Clause */
/* An event loop: one thread, one io_uring, its connections. */

#ifndef SERVER_LOOP_H
#define SERVER_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "buffers.h"
#include "conn.h"
#include "ring.h"

struct loop {
  struct ring ring;
  pthread_t thread;
  bool begun;                   /* it has its ring; otherwise why not */
  struct zone_error begin_error;
  unsigned number;
  struct zdisk *disk;

  /* Of the loop's thread alone. */
  struct buffers buffers;
  struct request *free_requests;
  unsigned nfree;
  struct conn *conns;
  unsigned nwatched;            /* connections with a deadline */
  struct conn *dirty;
  unsigned tls_large;           /* connections, see conn-tls.c */
  struct conn *waiting;         /* for memory, see budget.h */
  int64_t charged, published;   /* what requests hold, likewise */
  uint64_t now;                 /* ms: this turn's */
  struct request *done, **done_tail;    /* came back on this thread */
  struct conn *put_off, **put_off_tail; /* who has some */
  uint64_t expire_at;           /* ms; 0: nothing is parked */
  uint64_t tick_at;             /* ms: next look at deadlines */
  uint64_t stop_at;             /* ms: when stopping gives up waiting */
  struct ring_op wake_op;
  uint64_t wake_value;
  bool wake_armed;

  /* From other threads. */
  _Atomic (struct request *) posted;
  int wake_fd;                  /* an eventfd */
  _Atomic bool stop;
  pthread_mutex_t lock;         /* protects newcomers */
  struct newcomer { struct newcomer *next; int fd; } *newcomers;
};

/* Starts n loops for a disk.  Returns 0, or -1 with the error. */
int loops_start (struct zdisk *disk, unsigned n, struct zone_error *err);

/* Hands a connected socket to the next loop in turn, or closes it where
 * there are as many connections as may be. */
void loops_hand_out (int fd);

/* Drains all connections and ends the loops. */
void loops_stop (void);

/* Frees what loops_stop has ended; after the disk is closed, whose threads
 * may still be waking a loop.  Nothing where they were not stopped. */
void loops_free (void);

/* A loop without a thread: for a test, which runs it turn by turn on the
 * thread that opened it.  The turn waits for something to happen, or not;
 * returns how much did, or -errno. */
int loop_open (struct loop *loop, struct zdisk *disk, struct zone_error *err);
int loop_turn (struct loop *loop, bool wait);

/* The done of every zdisk_request: brings it back to its loop. */
void loop_request_done (struct zdisk_request *z);

/* Has complete called for a request that has to look at many zones, when
 * nobody is held up by that: for connections in turn, one request at a time,
 * up to a number of zones in a turn of the loop. */
#define LOOP_ZONES 65536u
void loop_put_off (struct request *req, uint32_t zones,
                   void (*complete) (struct request *req));

/* ms, monotonic */
uint64_t loop_now (void);

/* Connections there may be. */
#define MAX_CONNECTIONS 4096u

/* A connection has ended. */
void loop_forget_conn (void);

#endif /* SERVER_LOOP_H */
