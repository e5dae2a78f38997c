/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of znbd copy share:
 *
 *   cmd-copy.c       options, and the order of things
 *   copy-side.c      source and destination as wholes: opening, creating
 *   copy-fit.c       whether the one's data fits into the other's zones
 *   copy-plan.c      what is to be done to which zone, in which order
 *   copy-run.c       threads, conditions of zones that are copied
 *   copy-work.c      one thread
 *   copy-stream.c    a job's pieces of data in flight
 *   copy-conn.c      one thread's way to one side
 *   copy-progress.c  the bar
 *
 * The unit of work is a job: a range of one zone.  A job belongs to one
 * thread, which writes its pieces in order over one connection: so writes
 * reach a zone in order whatever the server is.  The main thread makes the
 * zones that are written full or closed.
 */

#ifndef COPY_H
#define COPY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "libznbd.h"
#include "target.h"

struct copy_options {
  bool resume, force, verify, open, skip_offline, sparse;
  bool progress, quiet, verbose;
  unsigned connections;         /* at most; 0: as many as there are CPUs */
  unsigned requests;            /* in flight on each connection */
  uint64_t request_size;        /* 0: the default, or what servers take */
};

#define COPY_CONNECTIONS_MAX 64u
#define COPY_REQUESTS_MAX 1024u
#define COPY_REQUEST_SIZE (256u << 10)
#define COPY_REQUEST_SIZE_MAX (32u << 20)
/* Of all threads' buffers: with large requests there are fewer of them. */
#define COPY_MEMORY_MAX (UINT64_C (512) << 20)

/* The source, or the destination. */
struct copy_side {
  const char *operand;
  struct target *target;
  const struct znbd_geometry *g;
  struct znbd_zone *zones;      /* g->zones, as last reported */

  /* The data connections: */
  char *export;                 /* its name, where it is a URI */
  bool multi_conn;              /* may be several */
  bool can_zero;
  bool can_status;              /* base:allocation */
  uint64_t request_max;         /* bytes */
};

enum copy_mode { COPY_DATA, COPY_COMPARE };

/* What is to become of a zone once its data is there. */
enum copy_action { COPY_NOTHING, COPY_CLOSE, COPY_FINISH, COPY_OPEN };

struct copy_job {
  uint32_t zone;
  uint8_t order;                /* jobs are done in this order */
  uint8_t action;               /* enum copy_action */
  bool sequential;
  bool full;                    /* the zone is to be full */
  bool needs_active;            /* takes one of the destination's */
  bool reset;                   /* its zone is to be reset first */
  uint64_t from, to;            /* on the disk; may be the same */
  struct copy_job *next;        /* of the done */
};

struct copy_worker;

struct copy {
  struct copy_options o;
  struct copy_side src, dst;
  bool created;                 /* the destination: all of it is zeros */
  uint64_t common;              /* what pieces are multiples of */
  uint64_t piece;               /* bytes of a piece */
  unsigned npieces;             /* of each thread: requests, or fewer */

  struct copy_job *jobs;
  uint32_t njobs;
  enum copy_mode mode;
  uint64_t total;               /* bytes of all jobs */
  _Atomic uint64_t done;        /* so far */
  _Atomic bool stop;            /* something failed, or differs */

  pthread_mutex_t lock;         /* protects all below */
  pthread_cond_t changed;
  uint32_t next_job;
  uint32_t running;             /* sequential jobs */
  uint32_t open_max;            /* of those, at once */
  uint64_t active_left;         /* zones that may yet become active */
  struct copy_job *ended;       /* not looked at by the main thread */
  uint32_t nended;              /* jobs that it has not settled */
  unsigned nalive;              /* threads */
  char error[512];              /* of the first that failed */
  bool explain;                 /* it was a write: */
  int errnum;
  uint64_t offset, length;
};

/* ---- copy-side.c: these return 0, or -1 after a message ---- */

int copy_open (struct copy *c, const char *src, const char *dst);
int copy_report (struct copy_side *side);
/* Finds out what the data connections can do. */
int copy_probe (struct copy_side *side);
/* Ends both sides; good: nothing has failed, and all is to be durable. */
int copy_close (struct copy *c, bool good);

/* ---- copy-fit.c, copy-plan.c: likewise ---- */

int copy_fit (struct copy *c);
/* Whether the source still has what was copied. */
int copy_unchanged (struct copy *c);
/* Sets the jobs of a copy, and what it says of limits. */
int copy_plan (struct copy *c);
/* For copies by force: plans as if all zones were reset already. */
void copy_pretend_reset (struct copy *c);
/* Sets jobs that compare: what is there already, a little of each zone; or
 * everything. */
int copy_plan_compare (struct copy *c, bool everything);
/* After everything: whether the zones are as the source's. */
int copy_same_zones (const struct copy *c);

/* Bytes of a piece's buffer: to compare, both sides are read. */
static inline uint64_t
copy_piece_memory (const struct copy *c)
{
  return c->mode == COPY_COMPARE ? 2 * c->piece : c->piece;
}

/* Where the data of a source's zone ends. */
uint64_t copy_data_end (const struct znbd_zone *z);
/* Whether the copy of a zone is to be full. */
bool copy_is_full (const struct znbd_zone *z);
/* Whether the job's zone, which was or becomes active, is so no more when it
 * is settled. */
bool copy_frees_active (const struct copy *c, const struct copy_job *job);

/* ---- copy-run.c ---- */

/* Does the jobs.  0, or -1 after a message. */
int copy_run (struct copy *c, enum copy_mode mode, const char *verb);

/* For copy-work.c; any thread. */
struct copy_job *copy_take_job (struct copy *c, bool *more);
void copy_end_job (struct copy *c, struct copy_job *job);
void copy_fail (struct copy *c, const char *fs, ...)
  __attribute__ ((format (printf, 2, 3)));
void copy_fail_write (struct copy *c, int error, uint64_t offset,
                      uint64_t length, const char *reason);

/* ---- copy-work.c ---- */

/* NULL after copy_fail. */
struct copy_worker *copy_worker_new (struct copy *c);
void copy_worker_run (struct copy_worker *w);
void copy_worker_wake (struct copy_worker *w);
void copy_worker_free (struct copy_worker *w);

/* ---- copy-progress.c ---- */

void copy_progress_begin (struct copy *c, const char *verb);
void copy_progress_draw (struct copy *c);
void copy_progress_clear (struct copy *c);
void copy_progress_end (struct copy *c, bool good);

#endif /* COPY_H */
