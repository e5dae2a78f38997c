/* SPDX-License-Identifier: BSD-3-Clause */
/* A simulated machine for the image store, at the boundary of its system
 * calls: the linker puts __wrap_ functions in the place of what zonelib
 * calls (see Makefile.am).
 *
 *   disk.c      pwrite, fallocate, fdatasync, ...: a page cache, which is a
 *               real file, and below it a disk that has only what was
 *               synced, and of the rest whatever a power loss leaves
 *   threads.c   threads that run one at a time, in an order that a seed
 *               says, switched where they do I/O; and a ring that does what
 *               was submitted in any order
 *   model.c     what was asked of the disk, and what may be found of it
 *
 * A life of the disk (opened, used, ended by anything) is a process of its
 * own, so that its mappings and threads die as they do; struct sim is memory
 * that all lives share.  Nothing is wrapped before sim_live () was called.
 */

#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk.h"
#include "image-format.h"
#include "store.h"

#define FILE_MAX        (2u << 20)      /* bytes of an image */
#define SECTORS_MAX     (FILE_MAX / IMAGE_SECTOR)
#define OPS_MAX         8192u
#define ARENA_MAX       (48u << 20)

/* What a write or a hole made of some sectors. */
struct sim_op {
  uint64_t seq;
  uint32_t first, count;        /* sectors */
  uint32_t data;                /* their content, offset in the arena */
  uint64_t lossy;               /* a sync failed over it, which; or 0 */
};

#define ZONES           8u
#define MODEL_OPS       400u
#define ZONE_MAX        (64u << 10)
#define ZONE_SECTORS    (ZONE_MAX / IMAGE_SECTOR)

enum model_kind { MODEL_WRITE, MODEL_ZERO, MODEL_FINISH, MODEL_RESET };

struct model_op {
  enum model_kind kind;
  uint32_t at, end;             /* bytes from the zone's start */
  uint32_t stamp;               /* generation, or version if conventional */
  bool failed;                  /* it is there, or not */
};

/* What is known of a zone: a base, and what was asked since, in order.
 * What is found must be the base after some of it: at least the first
 * durable (power loss) or acked (kill) ones. */
struct model_zone {
  uint64_t base[ZONE_SECTORS];  /* content by sector, 0 for zeros */
  uint32_t base_wp;
  uint32_t stamp;               /* last one given out */
  struct model_op op[MODEL_OPS];
  uint32_t nops, acked, durable;
  bool busy;                    /* conventional: one at a time */

  uint64_t found[ZONE_SECTORS]; /* by the last judgment */
  uint32_t found_wp;
};

struct sim {
  /* The seed's course. */
  uint64_t rng;
  uint64_t events, crash_at;    /* 0: never */
  unsigned crash_write;         /* or behind the how manieth write; 0 */
  unsigned crash_answer;        /* or the answer of something durable; 0 */
  unsigned switching;           /* percent */

  /* The machine. */
  uint8_t boot_id[16];
  unsigned sync_fails;          /* the how manieth, 0: none */
  unsigned io_fails;            /* the same, of any other call */
  bool sync_failed;             /* or anything of a commit */
  bool erred;                   /* a request did */
  bool version_1;               /* the image has no log */
  bool no_zero_range, no_dsync; /* what the file system lacks */
  unsigned syncs;               /* fdatasync and RWF_DSYNC so far */

  /* disk.c */
  uint32_t size;
  uint64_t seq;
  uint64_t durable_seq[SECTORS_MAX];
  uint8_t durable[FILE_MAX];
  struct sim_op op[OPS_MAX];
  uint32_t nops, arena_used;

  /* model.c */
  struct store_geometry geometry;
  uint64_t zone_size, capacity;
  struct model_zone zone[ZONES];
  uint64_t epoch;               /* last seen by a client */
  bool opened, closing, closed; /* this life, or the last */
  bool attempted;               /* an opening was cut off since */
  bool lost;                    /* something may be, since it was opened */
  bool flawed;                  /* the disk under it fails */
  char text[1024];              /* what is wrong */

  uint8_t arena[ARENA_MAX];
};

extern struct sim *sim;

/* What any life may do at any moment is one event; it ends at crash_at. */
#define SIM_CRASHED 42
#define SIM_WRONG 43

uint64_t sim_random (void);
uint64_t sim_mix (uint64_t x);
unsigned sim_below (unsigned n);        /* 0 to n - 1 */
bool sim_chance (unsigned percent);
void sim_wrong (const char *fs, ...)    /* ends the life */
  __attribute__ ((format (printf, 1, 2), noreturn));

/* disk.c: a machine with an image in it. */
extern char sim_path[64];
void sim_init (void);
void sim_new_image (uint64_t seed);
/* What is in the page cache becomes what a power loss leaves, or a kill. */
void sim_lose_power (void);
void sim_kill (void);
/* A copy of what a power loss now might leave, until it is called again with
 * false: nothing else changes. */
const char *sim_peek (bool begin);
/* A copy of the page cache, for a look. */
const char *sim_copy (void);
void sim_sync_all (void);
/* Of a part of the file; of all where length is 0. */
int sim_sync_range (uint64_t offset, uint64_t length);

/* threads.c */
void sim_live (void);
void sim_spawn (void *(*fn) (void *), void *arg);
void sim_join_all (void);
void sim_event (void);          /* perhaps the last; others may run */
void sim_sleep (void);          /* until sim_wake of this thread */
void sim_wake (unsigned thread);
unsigned sim_self (void);
bool sim_is_live (void);
void sim_idle (void);           /* the test's: all sleep; time may help */

/* model.c */
struct model_flush { uint32_t acked[ZONES]; };
void model_new (void);
bool model_is_conventional (uint32_t zone);
uint32_t model_wp (uint32_t zone);      /* after all that was asked */
struct model_op *model_ask (uint32_t zone, enum model_kind kind,
                            uint32_t at, uint32_t end);
void model_fill (uint32_t zone, const struct model_op *op, uint8_t *buf);
void model_acked (uint32_t zone, uint32_t index, bool durable);
void model_failed (uint32_t zone, uint32_t index);
void model_flush_begin (struct model_flush *flush);
void model_flushed (const struct model_flush *flush);
void model_opened (struct zdisk *disk);
void model_closed (void);
/* Looks at what a power loss might leave of a life. */
const char *model_peek (void);
/* Looks at a copy of the image after a life.  NULL, or what is wrong. */
const char *model_judge (bool power_lost);
/* How many bytes below pointers were looked at so far. */
uint64_t model_judged (void);

#endif /* SIM_H */
