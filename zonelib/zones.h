/* SPDX-License-Identifier: BSD-3-Clause */
/* The state machine: conditions, write pointers and resources of every
 * zone of a disk.  No I/O, no clock, no allocation after zones_init.
 * Nothing else ever changes a zone's condition, and nothing else chooses
 * an errno for a refusal.
 *
 * Locks.  Each zone has its own, taken by the caller (disk).  Changes of a
 * condition are also made under the lock of the limits, which is inside:
 * zone's lock first.  The only change without the zone's own lock is an
 * eviction, implicitly open to closed (or to empty while nothing of the
 * zone is written or reserved); it touches cond alone.
 *
 * Pointers here are relative to the zone's start.  There are two: wp, over
 * what is really written, and reserved, behind what has been admitted.
 */

#ifndef ZONE_ZONES_H
#define ZONE_ZONES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "lock.h"
#include "znbd-types.h"

struct store;
struct zdisk_request;

struct zone {
  zone_lock_t lock;
  _Atomic uint8_t cond;         /* enum znbd_zone_cond */
  uint8_t type;                 /* enum znbd_zone_type; never changes */
  _Atomic uint8_t flags;        /* ZONE_*, changed under lock */
  uint8_t capacity_class;       /* index of zones.capacities */
  _Atomic uint64_t wp;          /* changed under lock */
  _Atomic uint64_t reserved;    /* changed under lock; reserved >= wp */
  _Atomic uint64_t written;     /* stamp of the last admitted write; where
                                 * zones are mirrored, of the last change or
                                 * of the report that was taken last */
  struct zdisk_request *busy;   /* disk-queue.c: the last of the circular
                                 * list of admitted and waiting requests */
  struct zdisk_request *parked; /* disk-queue.c: by offset */
};
_Static_assert (sizeof (struct zone) == 48, "memory a zone is promised");

#define ZONE_NON_SEQ    1u
#define ZONE_RESET_REC  2u      /* reset recommended */
#define ZONE_FAILING    4u      /* a write failed; those behind it drain, and
                                 * where it is mirrored it is reported anew */
#define ZONE_HELD       8u      /* an ALL form has it: nothing is admitted */

/* The implicitly open zones in the order of their last write. */
struct zones_lru {
  struct { uint64_t stamp; uint32_t zone; } *heap;
  uint32_t used, size;
  uint8_t *queued;              /* a bit for each zone: in heap */
};

struct zones {
  struct znbd_geometry geometry;
  struct zone *zone;
  struct store *store;          /* told of changes; may be NULL */
  bool mirrors;                 /* the zones are the store's own: no limit is
                                 * looked at here, see store.h */
  unsigned shift;               /* log2 of the zone size, or 0 */
  uint64_t capacities[256];
  unsigned ncapacities;

  pthread_mutex_t limits;       /* protects what follows */
  uint32_t nopen_implicit, nopen_explicit, nclosed;
  struct zones_lru lru;         /* used where max_open is set */
  _Atomic uint64_t clock;       /* stamps of writes */
};

/* Why something is refused; see zones_refusal_errno, _text. */
enum zone_refusal {
  ZONE_OK = 0,
  ZONE_REFUSED_READONLY,        /* the export */
  ZONE_REFUSED_END,             /* past the end of the disk */
  ZONE_REFUSED_ALIGN,
  ZONE_REFUSED_OFFLINE,
  ZONE_REFUSED_ZONE_READONLY,
  ZONE_REFUSED_APPEND_TYPE,     /* not a sequential-write-required zone */
  ZONE_REFUSED_APPEND_SIZE,     /* above the largest append */
  ZONE_REFUSED_APPEND_END,      /* across the zone's end */
  ZONE_REFUSED_APPEND_FIT,      /* larger than what is left */
  ZONE_REFUSED_FULL,
  ZONE_REFUSED_CAPACITY,
  ZONE_REFUSED_BELOW,           /* a write below the pointer */
  ZONE_REFUSED_AHEAD,           /* ... ahead of it, for too long */
  ZONE_REFUSED_OVERLAP,         /* ... over a parked one */
  ZONE_REFUSED_BUDGET,          /* ... and no room to park it */
  ZONE_REFUSED_GONE,            /* ... and its client went */
  ZONE_REFUSED_ACTIVE,
  ZONE_REFUSED_OPEN,
  ZONE_REFUSED_CONVENTIONAL,    /* management of a conventional zone */
  ZONE_REFUSED_TRANSITION,
  ZONE_REFUSED_RANGE,           /* management of something not whole zones */
  ZONE_REFUSED_BEHIND,          /* an earlier write of the zone failed */
  ZONE_REFUSED_MOVED,           /* somebody else moved the pointer */
  ZONE_REFUSED_LOST,            /* a flush: earlier writes may be lost */
};

/* Makes all zones: g->conventional ones first, the others empty; the last
 * may be smaller.  zone_capacity 0 stands for the zone size. */
int zones_init (struct zones *zs, const struct znbd_geometry *g,
                struct zone_error *err);
void zones_free (struct zones *zs);

/* While the disk is opened, before any other thread: sets one zone's
 * state.  Open conditions load as closed or, at the start, empty. */
void zones_load (struct zones *zs, uint32_t i, uint8_t cond, uint64_t wp,
                 uint8_t flags);
void zones_load_type (struct zones *zs, uint32_t i, uint8_t type);
int zones_load_capacity (struct zones *zs, uint32_t i, uint64_t capacity,
                         struct zone_error *err);

/* The same for each zone of a list; a callback for size_parse_zone_list,
 * opaque is a struct zones_load_list.  Read-only and offline zones keep no
 * pointer: what read-only ones hold is read up to the capacity. */
struct zones_load_list {
  struct zones *zones;
  uint8_t cond;
};
int zones_load_list (void *opaque, uint32_t first, uint32_t last);

/* All of a zone, as a store reports it that keeps its own; open ones stay
 * open.  info fits the geometry but for what may vary: type, capacity. */
int zones_load_mirrored (struct zones *zs, uint32_t i,
                         const struct znbd_zone *info,
                         struct zone_error *err);

/* Where a zone stands; i < geometry.zones. */
static inline uint32_t
zones_index (const struct zones *zs, uint64_t offset)
{
  return zs->shift ? offset >> zs->shift : offset / zs->geometry.zone_size;
}

static inline uint64_t
zones_start (const struct zones *zs, uint32_t i)
{
  return (uint64_t) i * zs->geometry.zone_size;
}

static inline uint64_t
zones_length (const struct zones *zs, uint32_t i)
{
  uint64_t left = zs->geometry.size - zones_start (zs, i);
  return left < zs->geometry.zone_size ? left : zs->geometry.zone_size;
}

static inline uint64_t
zones_capacity (const struct zones *zs, const struct zone *z)
{
  return zs->capacities[z->capacity_class];
}

static inline uint8_t
zones_cond (const struct zone *z)
{
  return atomic_load_explicit (&z->cond, memory_order_relaxed);
}

static inline unsigned
zone_flags (const struct zone *z)
{
  return atomic_load_explicit (&z->flags, memory_order_relaxed);
}

/* Both with the zone's lock held. */
static inline void
zone_flags_add (struct zone *z, unsigned flags)
{
  atomic_store_explicit (&z->flags, zone_flags (z) | flags,
                         memory_order_relaxed);
}

static inline void
zone_flags_drop (struct zone *z, unsigned flags)
{
  atomic_store_explicit (&z->flags, zone_flags (z) & ~flags,
                         memory_order_relaxed);
}

/* How far a zone's bytes are read from the store: a snapshot, no lock
 * needed.  Conventional zones: their length. */
static inline uint64_t
zones_readable (const struct zones *zs, uint32_t i, const struct zone *z)
{
  return z->type == ZNBD_ZONE_CONVENTIONAL
    ? zones_length (zs, i)
    : atomic_load_explicit (&z->wp, memory_order_acquire);
}

/* One zone of a report; takes its lock. */
void zones_get (struct zones *zs, uint32_t i, struct znbd_zone *info);

/* How many zones from number first on, of at most so many, are empty ones of
 * the same type that have nothing else to tell: no flags, and the capacity
 * and size of a whole zone.  Takes no lock. */
uint32_t zones_empty_run (const struct zones *zs, uint32_t first,
                          uint32_t most);

/* Everything from here on is called with the zone's lock held. */

/* Judges a write of length bytes at offset (both within the zone).
 * ZONE_ADMIT_GO: it is admitted, its place reserved; *gap is where it is
 * to zero from first (host-aware pointer jumps), else equal to offset. */
enum zone_verdict {
  ZONE_ADMIT_GO,
  ZONE_ADMIT_PARK,              /* ahead of the pointer: try again */
  ZONE_ADMIT_DRAIN,             /* when no write is in flight: try again */
  ZONE_ADMIT_REFUSED,
};
enum zone_verdict zones_admit_write (struct zones *zs, uint32_t i,
                                     uint64_t offset, uint64_t length,
                                     uint64_t *gap, enum zone_refusal *why);

/* The same for a write ahead of the pointer whose gap is to be zeroed. */
enum zone_verdict zones_admit_jump (struct zones *zs, uint32_t i,
                                    uint64_t offset, uint64_t length,
                                    uint64_t *gap, enum zone_refusal *why);

/* The same for an append; *offset is where it goes. */
enum zone_verdict zones_admit_append (struct zones *zs, uint32_t i,
                                      uint64_t length, uint64_t *offset,
                                      enum zone_refusal *why);

/* Conventional zones: whether they can be written at all. */
enum zone_refusal zones_check_access (const struct zone *z, bool write);

/* An admitted write that ended at end is written, and all before it. */
void zones_settle (struct zones *zs, uint32_t i, uint64_t end);

/* Admitted writes were not written and none is in flight any more:
 * what they reserved is free again. */
void zones_rollback (struct zones *zs, uint32_t i);

/* Mirrored zones.  A stamp is newer than all that came before; a zone is
 * stamped (touched) with each of its changes, so that a report asked for
 * earlier is known to be old.  zones_mirror takes the store's word for a
 * zone with nothing in flight: condition, pointer, flags. */
uint64_t zones_stamp (struct zones *zs);
void zones_touch (struct zones *zs, uint32_t i);
void zones_mirror (struct zones *zs, uint32_t i,
                   const struct znbd_zone *info);

/* What the store refused with error, or ZONE_OK where it is an error like
 * any other's: of a write at offset of the zone, which others up to end
 * followed, or of zone management, after the zone was mirrored again. */
enum zone_refusal zones_explain_write (struct zones *zs, uint32_t i,
                                       uint64_t offset, uint64_t end,
                                       int error);
enum zone_refusal zones_explain_manage (struct zones *zs, uint32_t i,
                                        enum znbd_zone_op op, int error);

/* Whether a store's error says that a limit is reached. */
enum zone_refusal zones_limit_refusal (int error);

/* Management, with no write of the zone in flight.  zones_manage_check
 * says whether there is something to do (*nothing) or why not;
 * zones_manage does it, after the store did its part.  zones_all_takes:
 * whether the ALL form of op takes the zone. */
enum zone_refusal zones_manage_check (const struct zone *z,
                                      enum znbd_zone_op op, bool *nothing);
enum zone_refusal zones_manage (struct zones *zs, uint32_t i,
                                enum znbd_zone_op op);
bool zones_all_takes (const struct zone *z, enum znbd_zone_op op);
bool zones_all_takes_cond (uint8_t type, uint8_t cond, enum znbd_zone_op op);

/* The errno of a refusal, and its text: what was asked is described by
 * the caller ("write of 4096 bytes at 8192"). */
int zones_refusal_errno (enum zone_refusal why, bool write);
void zones_refusal_text (struct zones *zs, enum zone_refusal why,
                         uint32_t zone, const char *what,
                         char *buf, size_t size);

/* limits.c: changes of condition that take or give resources back. */
enum zone_refusal limits_open_implicit (struct zones *zs, uint32_t i);
enum zone_refusal limits_open_explicit (struct zones *zs, uint32_t i);
void limits_close (struct zones *zs, uint32_t i);
/* Leaves for a condition that holds no resource, or, from full, back to
 * closed; limits are not looked at. */
void limits_move (struct zones *zs, uint32_t i, uint8_t cond);
/* What a zone reserved is free again: full no more, where its end was not
 * written; empty, where it was closed meanwhile and nothing is. */
void limits_rollback (struct zones *zs, uint32_t i);
void limits_count_loaded (struct zones *zs);
int limits_init (struct zones *zs);
void limits_free (struct zones *zs);

#endif /* ZONE_ZONES_H */
