/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of the nbd store:
 *
 *   nbd-store.c   opening, closing; what other threads submit
 *   nbd-io.c      I/O as commands to the server, and their ends
 *   nbd-limits.c  what refusals are for
 *   nbd-connect.c the connections
 *   nbd-link.c    what the server says of the disk, first and again
 *   nbd-thread.c  the thread; what becomes of I/O that a connection took
 *                 with it
 *
 * There are two connections: one to the disk and one to its zone table, which
 * serves reports and zone management.  Both belong to the store's one thread
 * (before its start, to who opens the store); other threads only post I/O to
 * it.
 */

#ifndef ZONE_NBD_INTERNAL_H
#define ZONE_NBD_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <libnbd.h>

#include "nbd-store.h"
#include "store.h"
#include "table.h"

/* Linked by store_io.next. */
struct io_list {
  struct store_io *first, **tail;
};

/* What an I/O carries in store_io.priv. */
struct upstream_io {
  struct upstream *up;
  uint32_t outstanding;         /* commands, and one while it is issued */
  int error;
  uint64_t skip;                /* bytes of it that are done already */
  bool lost;                    /* the connection went: it is not known
                                 * whether it was done */
  bool again;                   /* so it was before, and was sent anew */
  bool some;                    /* of its commands succeeded */
};
_Static_assert (sizeof (struct upstream_io) <=
                sizeof (((struct store_io *) 0)->priv), "");

struct upstream {
  struct store store;
  char *uri, *table_uri;        /* or NULL: */
  char **command;
  unsigned reconnect;           /* ms */
  void (*log) (const char *line);

  pthread_t thread;
  bool started;
  int wake_fd;                  /* an eventfd */
  _Atomic bool hurry;           /* nothing waits for another connection */
  _Atomic bool stop;
  _Atomic (struct store_io *) posted;   /* by other threads, newest first */

  /* Of the thread alone. */
  struct nbd_handle *data, *table;      /* NULL: not connected */
  uint64_t max_block;           /* bytes of one read or write */
  bool can_zero, can_fast_zero, can_trim, can_cache, can_flush;
  uint8_t *zeros;               /* ZEROS bytes, where it cannot zero */
  struct znbd_zone *report;     /* of all zones, after connecting */
  struct io_list waiting;       /* to be issued */
  struct io_list finished;      /* all commands came back */
  struct io_list redo;          /* lost */
  unsigned nout;                /* I/O issued, and not finished */

  /* nbd-limits.c: refusals that may be for a limit. */
  struct io_list suspects, counted;
  struct znbd_zone *census;     /* of all zones, NULL until needed */
  enum { CENSUS_NONE, CENSUS_ASKED, CENSUS_THERE, CENSUS_FAILED }
    census_state;

  uint64_t changes, flushed;    /* changes so far; those known to be durable */
  uint64_t linked_at;           /* ms: when it was connected last */
  uint64_t answered_at;         /* ms: when something was last answered, or
                                 * hurry was seen; 0: not in a hurry */
  uint64_t broken_at;           /* ms: when it broke, after lasting a while */
  uint64_t give_up_at;          /* ms; 0: connected */
  bool gone;                    /* it is not the same disk any more, or is not
                                 * sought again: all fails */
  struct old_geometry {         /* see store.current; freed in the end */
    struct old_geometry *next;
    struct znbd_geometry geometry;
  } *geometries;
};

#define ZEROS (256u << 10)

static inline struct upstream_io *
upstream_io (struct store_io *io)
{
  return (struct upstream_io *) &io->priv;
}

static inline void
list_init (struct io_list *list)
{
  list->first = NULL;
  list->tail = &list->first;
}

static inline void
list_add (struct io_list *list, struct store_io *io)
{
  io->next = NULL;
  *list->tail = io;
  list->tail = &io->next;
}

static inline struct store_io *
list_take (struct io_list *list)
{
  struct store_io *io = list->first;

  if (io && (list->first = io->next) == NULL)
    list->tail = &list->first;
  return io;
}

/* nbd-store.c */
void upstream_log (struct upstream *up, const char *fs, ...)
  __attribute__ ((format (printf, 2, 3)));
const char *upstream_name (const struct upstream *up);

/* nbd-io.c */
/* Sends its commands; it comes to up->finished when all are answered. */
void upstream_issue (struct upstream *up, struct store_io *io);
/* Its end, for the disk. */
void upstream_complete (struct upstream *up, struct store_io *io, int error);

/* nbd-limits.c.  Whether the refusal of an I/O may be for a limit, or for
 * what it did itself before; it is given to limits_suspect then, and
 * limits_work_off completes it. */
bool limits_suspected (const struct upstream *up, const struct store_io *io);
void limits_suspect (struct upstream *up, struct store_io *io);
void limits_work_off (struct upstream *up);

/* nbd-link.c */
/* Connects and fetches geometry and report.  -1: not now, with a text;
 * up->gone set: never.  *epoch_changed: not the first time, and what was not
 * flushed may be lost. */
int link_up (struct upstream *up, bool first, bool *epoch_changed,
             struct zone_error *err);

/* nbd-connect.c */
/* ms that connecting, and finding out what there is, may take. */
#define LINK_ATTEMPT_MS 10000

/* Which tells a zoned disk. */
#define LINK_ZONES_CONTEXT "x-zbd:zones"

/* Make up->data, up->table. */
int link_connect_data (struct upstream *up, uint64_t deadline,
                       struct zone_error *err);
int link_connect_table (struct upstream *up, uint64_t deadline,
                        struct zone_error *err);
/* Carries a handle on as long as busy says. */
int link_drive (struct upstream *up, struct nbd_handle *h, uint64_t deadline,
                bool (*busy) (struct nbd_handle *, void *), void *opaque,
                struct zone_error *err);
/* Ends one connection, or both: what was issued comes to up->finished. */
void link_end (struct upstream *up, struct nbd_handle *h, bool kill);
void link_down (struct upstream *up, bool kill);
bool link_is_broken (const struct upstream *up);
/* Fills *err with what libnbd said last; returns -1. */
int link_error (const struct upstream *up, struct zone_error *err);

/* nbd-thread.c */
/* Whether a zone's report says that this write of it is done. */
bool upstream_is_written (const struct znbd_zone *z,
                          const struct store_io *io);
extern __thread struct upstream *upstream_self; /* whose thread this is */
uint64_t upstream_now (void);   /* ms, monotonic */
void *upstream_thread (void *up);
/* Takes what was posted, for waiting.  Fails all that waits where the time
 * for that is up. */
void upstream_gather (struct upstream *up);

#endif /* ZONE_NBD_INTERNAL_H */
