/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of the disk:
 *
 *   disk.c        opening and closing; a request's way: checks, parts, end
 *   disk-queue.c  the order of writes and management within one zone
 *   disk-issue.c  starting its I/O and ending its requests, without a lock
 *   disk-resync.c a zone that the store keeps, after something failed in it
 *   disk-park.c   writes ahead of the pointer: budgets, time, clients
 *   disk-mirror.c zones that the store keeps: reports and the ALL forms
 *   disk-run.c    the blocking wrapper
 *   disk-table.c  the zone table export
 *
 * A request is cut into parts, at zone ends for changes and at pointers for
 * reads; one part is under way at a time.  Locks, outermost first: a zone's,
 * then park_lock.  Nothing is called back, and no I/O is done, under either:
 * what is to be done afterwards is collected in struct effects.
 */

#ifndef ZONE_DISK_INTERNAL_H
#define ZONE_DISK_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "disk.h"
#include "zones.h"

struct zdisk {
  struct store *store;
  struct zones zones;
  struct zdisk_options options;
  _Atomic bool unreported;      /* a zone's report failed, as was logged */
  _Atomic int failed_error;     /* of the store, as was logged last, */
  _Atomic uint64_t failed_at;   /* and when, in ms */

  pthread_mutex_t park_lock;    /* protects what follows */
  struct zdisk_request *parked_first, *parked_last;  /* by parked_at */
  uint64_t parked_bytes;
  uint64_t park_seq;            /* counts what was ever parked */
};

struct zdisk_client {
  struct zdisk *disk;
  bool readonly;
  _Atomic uint32_t lost;        /* the store's, when a flush last told */
  _Atomic uint32_t refs;        /* its owner, and its requests under way
                                 * for which nobody waits */
  _Atomic bool abandoned;       /* nobody wants its answers */
  bool gone;                    /* these two under park_lock */
  uint64_t parked_bytes;
};

/* What a part does. */
enum part_kind {
  PART_NOTHING,                 /* done at once */
  PART_READ,                    /* from the store */
  PART_READ_ZERO,               /* above a pointer */
  PART_DIRECT,                  /* straight to the store, unordered */
  PART_WRITE,                   /* ordered within the zone: write, zero, */
  PART_APPEND,                  /* append */
  PART_MANAGE,                  /* alone within the zone */
  PART_HOLD,                    /* the same: keeps others out from then on */
  PART_ALL,                     /* the store does an ALL form */
  PART_REPORT,                  /* the store reports zones */
};

/* Requests to start I/O for and requests whose part is done, in order. */
struct effects {
  struct zdisk_request *issue, **issue_tail;
  struct zdisk_request *done, **done_tail;
};

static inline struct zdisk *
disk_of (const struct zdisk_request *req)
{
  return req->work.client->disk;
}

/* Flags for the store. */
static inline unsigned
store_flags (const struct zdisk_request *req)
{
  return (req->flags & ZDISK_MAY_TRIM ? STORE_MAY_TRIM : 0) |
    (req->flags & ZDISK_FAST_ZERO ? STORE_FAST_ZERO : 0) |
    (req->flags & ZDISK_ASIDE ? STORE_ASIDE : 0);
}

static inline struct zone *
zone_of (const struct zdisk_request *req)
{
  return &disk_of (req)->zones.zone[req->work.zone];
}

/* The zone management that a request asks for. */
static inline enum znbd_zone_op
manage_op (const struct zdisk_request *req)
{
  switch (req->op) {
  case ZDISK_OPEN: return ZNBD_ZONE_OPEN;
  case ZDISK_CLOSE: return ZNBD_ZONE_CLOSE;
  case ZDISK_FINISH: return ZNBD_ZONE_FINISH;
  default: return ZNBD_ZONE_RESET;      /* and TRIM */
  }
}

static inline bool
is_manage (const struct zdisk_request *req)
{
  return req->op >= ZDISK_OPEN && req->op <= ZDISK_RESET;
}

/* A zone's list of requests, see disk-queue.c. */
enum busy_state {
  BUSY_FLIGHT,                  /* being written */
  BUSY_WRITTEN,                 /* written; answered after those before */
  BUSY_FAILED,
  BUSY_RESYNC,                  /* failed, and nothing is in flight: the
                                 * zone's report is being fetched */
  BUSY_READY,                   /* admitted; goes when nothing is in flight,
                                 * where the store wants one at a time */
  BUSY_QUEUED,                  /* a write behind one that must be alone */
  BUSY_ALONE_WAIT,              /* must be alone: waits for those before */
  BUSY_ALONE_RUN,
};

static inline struct zdisk_request *
busy_first (const struct zone *z)
{
  return z->busy ? z->busy->work.next : NULL;
}

/* Unlinks the one behind prev. */
static inline void
busy_unlink (struct zone *z, struct zdisk_request *prev)
{
  struct zdisk_request *req = prev->work.next;

  if (req == prev)
    z->busy = NULL;
  else {
    prev->work.next = req->work.next;
    if (z->busy == req)
      z->busy = prev;
  }
}

static inline struct zdisk_request *
io_request (struct store_io *io)
{
  return (struct zdisk_request *)
    ((char *) io - offsetof (struct zdisk_request, work.io));
}

/* disk.c.  disk_submit: zdisk_submit, of which counted is true, for who
 * keeps the client until the request is done; disk_read: a read that needs
 * no request, as most do, true where it is done. */
void disk_submit (struct zdisk_client *client, struct zdisk_request *req,
                  struct ring *ring, bool counted);
bool disk_read (struct zdisk *disk, const struct zdisk_request *req);
uint64_t disk_now (void);       /* ms, monotonic */
void disk_part_done (struct zdisk_request *req, struct ring *ring);

/* disk-mirror.c.  The next part of an ALL form or a refresh, where zones are
 * mirrored; false where there is none.  mirror_start starts one of kind ALL
 * or REPORT; mirror_check_again asks for the zone of a part that needs no
 * order and failed, and ends the part. */
bool mirror_next (struct zdisk_request *req);
void mirror_start (struct zdisk_request *req);
void mirror_check_again (struct zdisk_request *req, struct ring *ring);
/* A store's news. */
void mirror_news (void *opaque, uint32_t first, uint32_t count,
                  const struct znbd_zone *zones);
/* Fills the request's io to report one zone to work.one. */
void mirror_ask (struct zdisk_request *req, uint32_t zone,
                 struct ring *ring,
                 void (*done) (struct store_io *, int, uint64_t));
/* The line for the log about a zone that was asked for because something
 * failed; made under the zone's lock, said without. */
#define MIRROR_LINE_MAX 256
void mirror_describe (struct zdisk *disk, uint32_t zone, const char *what,
                      int error, int report_error,
                      char line[MIRROR_LINE_MAX]);
void mirror_log (struct zdisk *disk, const char *line);

/* disk-queue.c.  queue_enter starts a part of kind WRITE, APPEND or MANAGE;
 * disk_part_done follows, now or later. */
void queue_enter (struct zdisk_request *req);
void effects_init (struct effects *fx);
void effects_issue (struct effects *fx, struct zdisk_request *req);
void effects_done (struct effects *fx, struct zdisk_request *req);
void effects_run (struct zdisk *disk, struct effects *fx, struct ring *ring);

/* Ends of I/O, for disk-issue.c to name. */
void queue_write_done (struct store_io *io, int error, uint64_t bytes);
void queue_zero_done (struct store_io *io, int error, uint64_t bytes);
void queue_manage_done (struct store_io *io, int error, uint64_t bytes);

/* disk-issue.c.  Whether next is written together with n requests of so many
 * bytes that end with last. */
bool queue_continues (const struct zdisk *disk,
                      const struct zdisk_request *last,
                      const struct zdisk_request *next, unsigned n,
                      uint64_t bytes);

/* disk-resync.c.  Has the zone reported anew, for its first request, which
 * failed, when nothing of it is in flight any more. */
void queue_resync (struct zone *z, struct effects *fx);
void queue_resync_done (struct store_io *io, int error, uint64_t bytes);

/* disk-park.c; all but the first two are called with the zone's lock. */
void park_init (struct zdisk *disk);
void park_free (struct zdisk *disk);
/* Takes the request in, or refuses it; fails others where it must.  ring:
 * the calling thread's, which pays for the search, or NULL. */
void park_add (struct zdisk_request *req, struct ring *ring,
               struct effects *fx);
/* Unlinks the zone's first parked request and returns it. */
struct zdisk_request *park_pop (struct zdisk *disk, uint32_t zone);
/* The zone's pointer moved. */
void park_moved (struct zone *z);
void park_client_gone (struct zdisk_client *client);

/* With the zone's lock, for a zone whose pointer or condition the store has
 * told: what waits is judged again. */
void queue_look_again (struct zdisk *disk, uint32_t zone,
                       struct effects *fx);

/* The zone's parked requests are judged again from the outside: time. */
void queue_jump (struct zdisk *disk, uint32_t zone, struct effects *fx);
void queue_judge_parked (struct zdisk *disk, uint32_t zone,
                         struct effects *fx);

#endif /* ZONE_DISK_INTERNAL_H */
