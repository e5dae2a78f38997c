/* SPDX-License-Identifier: BSD-3-Clause */
/* Stores: where the bytes of a zoned disk live, behind one vtable.
 *
 * A store knows offsets, not zone conditions.  The disk calls it only with
 * what the state machine has admitted: within bounds, aligned, reads only
 * below a pointer, one management operation of a zone at a time and with
 * no write of that zone in flight.
 *
 * A store that is a device with zones of its own, or stands before one, says
 * so (mirrors).  Then conditions, pointers and limits are the device's; the
 * state machine mirrors them: it predicts what its own writes and operations
 * do, asks for a report after any that failed, and before reports for
 * others, and takes the store's word.
 */

#ifndef ZONE_STORE_H
#define ZONE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "error.h"
#include "znbd-types.h"

struct ring;
struct store;
struct zones;

/* What an emulated disk is to look like.  Sizes in bytes. */
struct store_geometry {
  uint64_t size;
  uint64_t zone_size;
  uint64_t zone_capacity;       /* 0: the zone size */
  uint64_t conventional;        /* zones at the front */
  uint64_t max_open;            /* 0: no limit */
  uint64_t max_active;          /* 0: no limit */
  uint32_t granularity;         /* 512 or 4096 */
  uint32_t model;               /* enum znbd_model, not NONE */

  /* Zones that are to be read-only or offline, as lists for
   * size_parse_zone_list, or NULL. */
  const char *readonly_zones;
  const char *offline_zones;
};
#define STORE_GEOMETRY_DEFAULT \
  { .granularity = 4096, .model = ZNBD_MODEL_HOST_MANAGED }

/* Checks it all: returns 0, or -1 with a text that names the parameter as
 * users type it ("zone-capacity 300M is larger than the zone size 256M"). */
int store_geometry_check (const struct store_geometry *geometry,
                          struct zone_error *err);

/* Fills *g (uuid and epoch left zero) from a checked geometry. */
void store_geometry_fill (const struct store_geometry *geometry,
                          struct znbd_geometry *g);

/* The largest append of an emulated disk: 0 where there are none. */
uint32_t store_max_append (const struct znbd_geometry *g);

enum store_op {
  STORE_READ,
  STORE_WRITE,
  STORE_ZERO,           /* reads as zeros afterwards */
  STORE_DISCARD,        /* may be dropped: a hint, but then reads zeros */
  STORE_CACHE,          /* will be read soon: a hint */
  STORE_FLUSH,          /* all that was answered is durable when done:
                         * data, pointers, conditions */
  STORE_FINISH,         /* before a zone's finish: zero offset, length */
  STORE_RESET,          /* before a zone's reset: its bytes may go */

  /* Where the store mirrors, in place of FINISH and RESET: */
  STORE_ZONE_OP,        /* zone_op of zone (its offset and length are there
                         * too), or, with STORE_ALL, the ALL form */
  STORE_REPORT,         /* fills report with count zones from zone on */
};

#define STORE_MAY_TRIM  1u      /* ZERO: holes are welcome */
#define STORE_FAST_ZERO 2u      /* ZERO: ENOTSUP rather than writing zeros */
#define STORE_ALL       4u      /* ZONE_OP: all zones that the form takes */
#define STORE_ASIDE     8u      /* WRITE: as ZDISK_ASIDE */

struct store_io {
  enum store_op op;
  unsigned flags;
  uint32_t zone;                /* of offset; not for READ, FLUSH */
  uint64_t offset;              /* bytes */
  uint64_t length;
  struct iovec *iov;            /* READ, WRITE: of length bytes in all */
  unsigned niov;
  enum znbd_zone_op zone_op;
  uint32_t count;               /* REPORT: zones */
  struct znbd_zone *report;
  struct ring *ring;            /* the calling thread's, or NULL: the I/O is
                                 * done before submit returns, unless it has
                                 * to wait for another thread's */
  void (*done) (struct store_io *io, int error, uint64_t bytes);
                                /* bytes: WRITE: those really written.  A
                                 * store that mirrors says EOVERFLOW or
                                 * ETOOMANYREFS where the device has too
                                 * many active or open zones, and EINVAL of
                                 * a write only where nothing of it is
                                 * written: an append then goes again */

  /* the store's own */
  struct store_io *next;
  union {
    uint64_t u64[6];
    void *ptr[6];
  } priv;
};

struct store_ops {
  const char *name;
  void (*submit) (struct store *store, struct store_io *io);

  /* The same as a READ of one buffer on the calling thread.  Returns 0 or an
   * errno.  May be NULL. */
  int (*read) (struct store *store, void *buf, uint64_t length,
               uint64_t offset);

  /* Under the zone's lock, after each change of its pointer (relative to
   * the zone's start), condition or flags; never blocks; may be NULL. */
  void (*zone_changed) (struct store *store, uint32_t zone, uint64_t wp,
                        uint8_t cond, uint8_t flags);

  /* Sets the state of every zone that differs from empty (sequential) or
   * not-wp (conventional), by zones_load; of every zone, by
   * zones_load_mirrored, where the store mirrors. */
  int (*load) (struct store *store, struct zones *zones,
               struct zone_error *err);

  /* After the process has forked for the last time: threads may be started.
   * May be NULL.  What is submitted before waits for it. */
  int (*start) (struct store *store, struct zone_error *err);

  /* The disk is about to be closed: what waits for something that may not
   * come, such as another connection, is to fail.  May be NULL. */
  void (*hurry) (struct store *store);

  /* Where a part of the data is in memory, for the kernel to send it from
   * there: nobody else may touch it.  Or, with own, for the caller, who looks
   * at map_failed behind it.  NULL: it is not, or cannot be had so.  Lives as
   * long as the store, whatever becomes of what is in it.  May be NULL. */
  const void *(*mapped) (struct store *store, uint64_t offset,
                         uint64_t length, bool own);

  /* Flushes where flush is set, frees everything. */
  int (*close) (struct store *store, bool flush, struct zone_error *err);
};

struct store {
  const struct store_ops *ops;
  struct znbd_geometry geometry;
  bool readonly;
  bool fast_zero;               /* ZERO never writes zeros out */
  bool fixed;                   /* memory that a ring has fixed is of use */
  bool mirrors;                 /* the zones are a device's own */
  bool one_write_per_zone;      /* at a time; those that wait and continue
                                 * each other become one */
  _Atomic bool map_failed;      /* what was had by mapped, own, is not to be
                                 * relied on */
  uint32_t max_write;           /* bytes of what is merged so, 0: the disk's
                                 * own bound; a larger single write is the
                                 * store's to cut */
  _Atomic uint32_t lost;        /* how often writes that were answered, but
                                 * not flushed, may have been lost: the next
                                 * flush of each client then fails */

  /* geometry, or what is true now of a store that mirrors: its epoch may
   * change.  What it points to lives as long as the store. */
  _Atomic (const struct znbd_geometry *) current;

  /* Set by the disk over a store that mirrors: takes a report that nobody
   * asked for. */
  void (*news) (void *opaque, uint32_t first, uint32_t count,
                const struct znbd_zone *zones);
  void *news_opaque;
  _Atomic bool failed;          /* a sync or a mapping failed: what is
                                 * durable is unknown, no more changes */
};

#endif /* ZONE_STORE_H */
