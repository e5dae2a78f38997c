/* SPDX-License-Identifier: BSD-3-Clause */
/* The event loops.  Each turn of a loop works off what the disk has given
 * back, looks at the connections to which something happened (parsing,
 * sending), and then submits everything that came of it in one system call
 * that also waits for what comes next.
 *
 * Other threads reach a loop by two lists, of requests that the disk
 * finished elsewhere (lock-free: who adds to an empty one wakes the loop)
 * and of new sockets, and by an eventfd that the loop always reads.
 */

#include <config.h>

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "budget.h"
#include "loop.h"
#include "log.h"

#define RING_ENTRIES 512

/* Of buffers that the ring has fixed, where the disk has a use for them; that
 * much memory is pinned. */
#define ARENA_SIZE (16u << 20)

/* How long stopping waits for answers that clients do not take. */
#define STOP_MS 5000

/* Deadlines are looked at so often. */
#define TICK_MS 500

/* So often whoever waits for memory, which other loops release too. */
#define RETRY_MS 5

/* Set by loops_start, before there are others. */
static struct loop *loops;
static unsigned nloops;
static sem_t begun;             /* posted by each loop that has its ring, or
                                 * cannot have one */
static bool stopped;            /* by loops_stop */
static unsigned next_loop;      /* of the thread that accepts */
static _Atomic unsigned nconns; /* of all loops */

/* The loop that the thread runs. */
static __thread struct loop *self;

uint64_t
loop_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * UINT64_C (1000) + ts.tv_nsec / 1000000;
}

static void
wake (struct loop *loop)
{
  uint64_t one = 1;

  /* It cannot fail but by overflow, and then the loop is awake. */
  if (write (loop->wake_fd, &one, sizeof one) == -1)
    return;
}

static void
add_done (struct loop *loop, struct request *req)
{
  req->next = NULL;
  *loop->done_tail = req;
  loop->done_tail = &req->next;
}

void
loop_request_done (struct zdisk_request *z)
{
  struct request *req = z->opaque, *first;
  struct loop *loop = req->conn->loop;

  if (loop == self) {
    add_done (loop, req);
    return;
  }
  first = atomic_load_explicit (&loop->posted, memory_order_relaxed);
  do
    req->next = first;
  while (!atomic_compare_exchange_weak_explicit (&loop->posted, &first, req,
                                                 memory_order_release,
                                                 memory_order_relaxed));
  if (first == NULL)
    wake (loop);
}

/* Takes what others posted, oldest first. */
static void
take_posted (struct loop *loop)
{
  struct request *req, *next, *list = NULL;

  req = atomic_exchange_explicit (&loop->posted, NULL, memory_order_acquire);
  for (; req; req = next) {
    next = req->next;
    req->next = list;
    list = req;
  }
  for (; list; list = next) {
    next = list->next;
    add_done (loop, list);
  }
}

static void
take_newcomers (struct loop *loop)
{
  struct newcomer *n, *next;

  pthread_mutex_lock (&loop->lock);
  n = loop->newcomers;
  loop->newcomers = NULL;
  pthread_mutex_unlock (&loop->lock);
  for (; n; n = next) {
    next = n->next;
    conn_new (loop, n->fd);
    free (n);
  }
}

static void
woken (struct ring_op *op, int res)
{
  struct loop *loop = (struct loop *)
    ((char *) op - offsetof (struct loop, wake_op));

  (void) res;
  loop->wake_armed = false;
  take_newcomers (loop);
}

static void
arm_wake (struct loop *loop)
{
  struct io_uring_sqe *sqe = ring_sqe (&loop->ring);

  loop->wake_op.done = woken;
  io_uring_prep_read (sqe, loop->wake_fd, &loop->wake_value,
                      sizeof loop->wake_value, 0);
  ring_set_op (&loop->ring, sqe, &loop->wake_op);
  loop->wake_armed = true;
}

/* Those that came so far: what they lead to has its turn after the others. */
static void
work_off_done (struct loop *loop)
{
  struct request *req = loop->done, *next;

  loop->done = NULL;
  loop->done_tail = &loop->done;
  for (; req; req = next) {
    next = req->next;
    req->complete (req);
  }
}

static void
queue_put_off (struct conn *c)
{
  c->put_off_next = NULL;
  *c->loop->put_off_tail = c;
  c->loop->put_off_tail = &c->put_off_next;
}

void
loop_put_off (struct request *req, uint32_t zones,
              void (*complete) (struct request *req))
{
  struct conn *c = req->conn;

  req->complete = complete;
  req->zones = zones;
  if (c->put_off == NULL)
    queue_put_off (c);
  req->next = NULL;
  *c->put_off_tail = req;
  c->put_off_tail = &req->next;
}

static void
work_off_put_off (struct loop *loop)
{
  uint64_t zones = 0;
  struct conn *c;

  while ((c = loop->put_off) != NULL && zones < LOOP_ZONES) {
    struct request *req = c->put_off;

    loop->put_off = c->put_off_next;
    if (loop->put_off == NULL)
      loop->put_off_tail = &loop->put_off;
    c->put_off = req->next;
    if (c->put_off == NULL)
      c->put_off_tail = &c->put_off;
    else
      queue_put_off (c);
    /* Nobody gets the answer of one that is dead. */
    if (c->phase != CONN_DEAD)
      zones += req->zones;
    req->complete (req);
  }
}

static void
look_at_dirty (struct loop *loop)
{
  struct conn *c = loop->dirty, *next;

  loop->dirty = NULL;
  zdisk_hold (loop->disk, &loop->ring);
  for (; c; c = next) {
    next = c->dirty_next;
    c->dirty = false;
    conn_look (c);
  }
  zdisk_release ();
}

/* Whether the deadlines of connections have to be looked at: those not in
 * transmission have one, and so has who holds more than its own memory. */
static bool
is_watching (const struct loop *loop)
{
  return loop->nwatched > 0 || loop->stop_at || loop->charged > 0;
}

/* Parked writes, and connections that take too long. */
static void
look_at_time (struct loop *loop)
{
  uint64_t now = loop->now;
  struct conn *c, *next;
  int ms;

  if (loop->expire_at && now >= loop->expire_at) {
    zdisk_expire (loop->disk, &loop->ring);
    loop->expire_at = 0;
  }
  if (loop->expire_at == 0) {
    ms = zdisk_next_expiry (loop->disk);
    if (ms >= 0)
      loop->expire_at = now + (ms > 0 ? ms : 1);
  }
  if (now < loop->tick_at)
    return;
  loop->tick_at = now + TICK_MS;
  if (is_watching (loop))
    for (c = loop->conns; c; c = next) {
      next = c->next;
      if (loop->stop_at && now >= loop->stop_at)
        conn_kill (c, "the server stops");
      else if (c->phase != CONN_TRANSMISSION && now >= c->deadline)
        conn_kill (c, c->phase < CONN_TRANSMISSION
                   ? "handshake takes too long"
                   : "does not take its last answers");
      else if (budget_is_hoarder (c, now))
        conn_kill (c, "is too slow while memory is short");
    }
}

/* How long the loop may sleep: -1 without end. */
static int
patience (struct loop *loop)
{
  uint64_t now, until = 0;

  if (loop->done || loop->dirty || loop->put_off)
    return 0;
  if (is_watching (loop))
    until = loop->tick_at;
  if (loop->waiting)
    until = loop->now + RETRY_MS;
  if (loop->expire_at && (until == 0 || loop->expire_at < until))
    until = loop->expire_at;
  if (until == 0)
    return -1;
  now = loop_now ();
  return until > now ? (int) (until - now) : 0;
}

static void
stop (struct loop *loop)
{
  struct conn *c, *next;

  loop->stop_at = loop_now () + STOP_MS;
  for (c = loop->conns; c; c = next) {
    next = c->next;
    conn_drain (c);
  }
}

/* Where that may not be, the buffers are ordinary ones. */
static void
fix_buffers (struct loop *loop)
{
  void *arena = buffers_make_arena (&loop->buffers, ARENA_SIZE);

  if (arena && !ring_fix (&loop->ring, arena, ARENA_SIZE))
    buffers_drop_arena (&loop->buffers);
}

static int
begin (struct loop *loop, struct zone_error *err)
{
  self = loop;
  if (ring_init (&loop->ring, RING_ENTRIES, err) == -1)
    return -1;
  if (zdisk_wants_fixed (loop->disk))
    fix_buffers (loop);
  return 0;
}

int
loop_turn (struct loop *loop, bool wait)
{
  loop->now = loop_now ();
  take_posted (loop);
  work_off_done (loop);
  if (loop->waiting)
    budget_retry (loop);
  work_off_put_off (loop);
  look_at_dirty (loop);
  look_at_time (loop);
  if (!loop->stop_at && atomic_load (&loop->stop)) {
    take_newcomers (loop);
    stop (loop);
    return 0;
  }
  if (!loop->wake_armed)
    arm_wake (loop);
  return ring_run_for (&loop->ring, wait ? patience (loop) : 0);
}

static void *
loop_run (void *arg)
{
  struct loop *loop = arg;
  int r = begin (loop, &loop->begin_error);

  loop->begun = r == 0;
  if (r == 0)
    ring_poll_init (&loop->ring);
  sem_post (&begun);
  if (r == -1)
    return NULL;
  /* What another loop's request does on this ring has to end as well. */
  while (!loop->stop_at || loop->conns ||
         loop->ring.in_flight > (loop->wake_armed ? 1 : 0)) {
    r = loop_turn (loop, true);
    if (r < 0) {
      log_error ("io_uring_enter: %s", strerror (-r));
      _exit (1);
    }
  }
  ring_free (&loop->ring);
  return NULL;
}

static int
prepare (struct loop *loop, struct zdisk *disk, struct zone_error *err)
{
  loop->disk = disk;
  loop->done_tail = &loop->done;
  loop->put_off_tail = &loop->put_off;
  pthread_mutex_init (&loop->lock, NULL);
  loop->wake_fd = eventfd (0, EFD_CLOEXEC);
  return loop->wake_fd != -1 ? 0
    : zone_error (err, errno, "eventfd: %s", strerror (errno));
}

int
loop_open (struct loop *loop, struct zdisk *disk, struct zone_error *err)
{
  memset (loop, 0, sizeof *loop);
  return prepare (loop, disk, err) == -1 || begin (loop, err) == -1 ? -1 : 0;
}

static void
loop_free (struct loop *loop)
{
  struct request *req;

  while ((req = loop->free_requests) != NULL) {
    loop->free_requests = req->next;
    free (req);
  }
  buffers_free (&loop->buffers);
  close (loop->wake_fd);
  pthread_mutex_destroy (&loop->lock);
}

static int
try_start (struct zdisk *disk, unsigned n, struct zone_error *err)
{
  unsigned i;
  int r;

  loops = calloc (n, sizeof *loops);
  if (loops == NULL)
    return zone_error (err, ENOMEM, "no memory for %u threads", n);
  sem_init (&begun, 0, 0);
  for (i = 0; i < n; i++) {
    struct loop *loop = &loops[i];

    loop->number = i;
    if (prepare (loop, disk, err) == -1)
      return -1;
    r = pthread_create (&loop->thread, NULL, loop_run, loop);
    if (r)
      return zone_error (err, r, "cannot start thread %u of %u: %s", i + 1,
                         n, strerror (r));
    nloops = i + 1;
  }
  /* Each makes its ring on its own thread: only then can it be told that
   * connections are served. */
  for (i = 0; i < n; i++)
    while (sem_wait (&begun) == -1)
      ;
  for (i = 0; i < n; i++)
    if (!loops[i].begun) {
      *err = loops[i].begin_error;
      return -1;
    }
  return 0;
}

void
loops_hand_out (int fd)
{
  struct newcomer *n;
  struct loop *loop = &loops[next_loop++ % nloops];

  if (atomic_fetch_add (&nconns, 1) >= MAX_CONNECTIONS) {
    log_error ("there are %u connections already: another one is refused",
               MAX_CONNECTIONS);
    atomic_fetch_sub (&nconns, 1);
    close (fd);
    return;
  }
  n = malloc (sizeof *n);
  if (n == NULL) {
    log_error ("no memory for another connection");
    atomic_fetch_sub (&nconns, 1);
    close (fd);
    return;
  }
  n->fd = fd;
  pthread_mutex_lock (&loop->lock);
  n->next = loop->newcomers;
  loop->newcomers = n;
  pthread_mutex_unlock (&loop->lock);
  wake (loop);
}

void
loop_forget_conn (void)
{
  atomic_fetch_sub (&nconns, 1);
}

void
loops_stop (void)
{
  unsigned i;

  for (i = 0; i < nloops; i++) {
    atomic_store (&loops[i].stop, true);
    wake (&loops[i]);
  }
  for (i = 0; i < nloops; i++)
    pthread_join (loops[i].thread, NULL);
  stopped = true;
}

int
loops_start (struct zdisk *disk, unsigned n, struct zone_error *err)
{
  if (try_start (disk, n, err) == 0)
    return 0;
  /* Those that run look at the disk, which is closed next. */
  loops_stop ();
  return -1;
}

void
loops_free (void)
{
  unsigned i;

  if (!stopped)
    return;
  for (i = 0; i < nloops; i++)
    loop_free (&loops[i]);
  free (loops);
  loops = NULL;
}
