/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of the image store:
 *
 *   image.c           opening, data, closing: the store's operations
 *   image-codec.c     checksums, encoding and decoding of every struct
 *   image-file.c      the file itself: opening, locks, whole reads
 *   image-space.c     zeroing, giving space and taking it back
 *   image-kept.c      the space of zones that were reset, for a while
 *   image-create.c    making
 *   image-load.c      reading all metadata and judging it (load and check)
 *   image-check.c     checking and repairing
 *   image-commit.c    making things durable: who leads, and for whom
 *   image-round.c     one round of it
 *   image-log.c       little that changed, durable in one write
 *   image-replay.c    what the log has, after a power loss
 *   image-map.c       data that is sent from the page cache
 *   image-sigbus.c    mappings of a file that may be cut off
 *   image-volatile.c  pointers that outlive the process but not the machine
 */

#ifndef ZONE_IMAGE_INTERNAL_H
#define ZONE_IMAGE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include "image-format.h"
#include "image.h"
#include "ring.h"
#include "store.h"
#include "zones.h"

/* Flags of a zone, image.zflags. */
#define ZFLAG_DIRTY     1u      /* in image.dirty; under the zone's lock */
#define ZFLAG_IN_B      2u      /* its record in force is in table B */
#define ZFLAG_RESET     4u      /* reset, but not yet durably so: its bytes
                                 * must stay as they are until it is */

#define ZFLAG_SPACE     8u      /* its records have their space */
#define ZFLAG_KEPT      16u     /* it keeps space, see image-kept.c */
#define ZFLAG_OLD       32u     /* and did so a while ago; under kept.lock */

/* A mapping of the data, see image-map.c. */
#define SPANS_MAX 32            /* spans of it in use */
struct image_map {
  uint8_t *data;                /* for the kernel; NULL: there is none */
  uint8_t *own;                 /* for this program, or NULL */
  int own_prot;
  size_t page;
  struct copy_pages *pages;     /* see image-copy.c; or NULL */
  _Atomic bool cannot_populate;
  _Atomic bool *used;           /* by span */
  _Atomic uint64_t *seen;       /* what was in memory, see image-map.c, */
  unsigned unit_ms;             /* and for how long that counts */
  pthread_mutex_t lock;         /* protects: */
  uint32_t span[SPANS_MAX];     /* in use: a ring, of which */
  uint64_t next;                /* counts what was ever put in */
  uint64_t given_up;            /* ms: when one last was */
};

/* Data of conventional zones that changed. */
struct log_range {
  uint32_t zone;
  uint64_t offset;              /* bytes from the zone's start */
  uint64_t length;
};
#define LOG_DIRECT_MAX 64u

/* See image-log.c.  Who leads rounds owns it, but for what dirty_lock
 * protects. */
struct image_log {
  bool off;                     /* there is none to be had */
  bool ready;                   /* its blocks are written ones */
  uint64_t prepared;            /* bytes that are, until then */
  uint64_t used;                /* bytes */
  uint64_t number;              /* of the last entry, 0: none */
  _Atomic uint64_t durable;     /* the number up to which all are */
  struct log_zone *table;       /* zones that the log has something of */
  uint32_t nzones;

  bool untracked;               /* not all changes are known */
  /* Under dirty_lock: since the last round. */
  struct log_range direct[LOG_DIRECT_MAX];
  uint32_t ndirect;
  bool overflow;                /* more than that: a commit is due */
};

/* What a log has for the disk that was not closed, see image-replay.c. */
struct image_replay {
  uint8_t *buf;
  struct replay_item *item;
  uint32_t nitems, space;
};

/* Space of zones that were reset, see image-kept.c. */
struct image_kept {
  pthread_mutex_t lock;         /* protects: */
  _Atomic uint32_t *claimed;    /* by zone, where ZFLAG_KEPT is set: what is
                                 * kept begins there, IMAGE_BLOCKs */
  uint32_t nzones;              /* that keep something */
  bool busy;                    /* something is being given back: of */
  uint32_t zone;                /* this zone, */
  uint64_t from;                /* from there on, bytes from its start */
  uint32_t nclaiming;           /* who wait to claim something: they go first */
  pthread_cond_t done;          /* one of the two has changed */
  pthread_cond_t work;          /* for the thread */
  pthread_t thread;
  bool running;
  _Atomic bool stop;
};

/* For a round that waits for others to join. */
#define GATHER_TIMERS 8u
struct gather_timer {
  struct ring_op op;
  struct image *img;
  struct __kernel_timespec time;
  bool armed;                   /* under commit_lock */
};

/* A round of commits, see image-commit.c.  Its leader owns it. */
struct round {
  enum {
    ROUND_BEGIN, ROUND_LOGGED,
    ROUND_ALONE, ROUND_RECORDS, ROUND_SYNCED, ROUND_COMMITTED, ROUND_RESETS,
  } stage;
  enum {                        /* what is to be done before the next step */
    WANT_NOTHING,               /* but a turn of the others */
    WANT_ALONE,                 /* no entry of the log is on its way */
    WANT_SYNC,
    WANT_WRITE,                 /* of buf, durably */
    WANT_END,
  } want;
  const void *buf;
  uint64_t offset, length;
  int error;
  bool session;                 /* begins or ends one: always a commit */
  bool always;                  /* a commit, though no record changed */
  struct flight *flight;        /* free, for an entry of the log */
  struct image_commit next;     /* the commit to be */
  uint32_t *list, n;            /* zones, of which the first ones changed */
  uint32_t at, nchanged;
  struct store_io *batch;       /* whom it is for */
  uint64_t began;               /* us */
  struct ring *ring;            /* led on it; NULL: by a thread */
  struct ring_op op;
  uint32_t nbatch;              /* how many */
  uint8_t slot[IMAGE_BLOCK] __attribute__ ((aligned (8)));
};

/* An entry of the log on its way to the disk, on a ring or by a thread. */
#define FLIGHTS_MAX 2u
#define COMMIT_THREADS (FLIGHTS_MAX + 1)        /* one answers, or waits */
struct flight {
  struct ring_op op;
  struct image *img;
  struct ring *ring;
  int fd;                       /* of its own */
  struct image_log_entry *entry;        /* and its data */
  uint64_t number;
  uint64_t offset, length;      /* in the file */
  struct store_io *batch;       /* whom it is for */
  uint32_t nbatch;
  uint64_t began;               /* us */
  bool landed;
};

struct image {
  struct store store;
  char *path;
  int fd, loop_file;            /* see image_file_open */
  bool block_device;
  uint64_t found_size;          /* of the file, when it was opened */
  struct image_superblock sb;   /* in host byte order */
  uint32_t seed;                /* CRC-32 of the uuid */
  struct zones *zones;          /* set by load */
  _Atomic uint8_t *zflags;

  _Atomic uint64_t *slots;      /* mapping of the volatile pointers */
  size_t slots_size;
  uint64_t session;             /* commit.session, constant once started */
  bool sb_damaged;              /* one copy of the superblock */
  bool distrusted;              /* the volatile pointers, by their mark */

  pthread_mutex_t dirty_lock;   /* inside a zone's lock; protects: */
  uint32_t *dirty, *spare;      /* zones changed since the last commit */
  uint32_t ndirty;

  pthread_mutex_t commit_lock;  /* protects: */
  pthread_cond_t commit_work;   /* for our own threads */
  pthread_cond_t complete;      /* all have joined that a thread waits for */
  pthread_cond_t alone;         /* for a leader that is a thread */
  struct store_io *waiting, **waiting_tail;
  uint32_t nwaiting, nexpected; /* the latter: of the round to come */
  struct gather_timer *gathering;       /* it waits for them with that */
  struct gather_timer timer[GATHER_TIMERS];
  struct gather_timer by_thread;        /* never armed: a thread gathers, */
  uint64_t gatherings;          /* the one with this number */
  uint32_t misses;              /* in a row, doubled with each */
  uint32_t rest;                /* so many rounds do not wait */
  uint64_t round_us;            /* what rounds take, recent ones most */
  bool committing;              /* somebody leads; owns commit and round */
  uint32_t first_flight, nflights;      /* of the ring that they are */
  bool wants_alone;             /* the leader waits until there are none */
  pthread_t thread[COMMIT_THREADS];     /* so many, of which some wait for */
  uint32_t nthreads, nidle;     /* work */
  bool thread_stop, thread_wake;        /* the latter: one is to lead */

  struct flight flight[FLIGHTS_MAX];
  uint32_t next_flight;         /* the leader's, a free one */
  struct image_commit commit;   /* in force, host byte order */
  struct round round;
  struct image_log log;         /* the leader's */
  struct image_replay replay;
  struct image_map map;
  struct image_kept kept;
};

static inline struct image *
image_of (struct store *store)
{
  return (struct image *) store;
}

/* image-codec.c.  decode functions return false where the checksum or
 * magic is wrong. */
uint32_t image_seed (const uint8_t uuid[16]);
void image_encode_superblock (const struct image_superblock *sb, void *block);
bool image_decode_superblock (const void *block, struct image_superblock *sb);
/* Magic and version alone; returns the version, 0 where the magic is not
 * there. */
uint32_t image_peek_version (const void *block);
void image_encode_commit (const struct image_commit *c, uint32_t seed,
                          void *sector);
bool image_decode_commit (const void *sector, uint32_t seed,
                          struct image_commit *c);
void image_encode_record (uint32_t zone, const struct image_payload *p,
                          uint32_t seed, struct image_record *r);
bool image_decode_record (const struct image_record *r, uint32_t zone,
                          uint32_t seed, struct image_payload *p);
/* Of an entry with its items, in host byte order; data is behind it. */
void image_encode_log (struct image_log_entry *e, const void *data,
                       uint32_t seed);
/* From what there are size bytes of. */
bool image_decode_log (const void *from, uint64_t size, uint32_t seed,
                       struct image_log_entry *e);
bool image_is_zero (const void *p, size_t length);
/* A zone's share of a commit's sum; 0 for a record never written. */
uint64_t image_mix (uint32_t zone, const struct image_payload *p);
void image_xor (struct image_payload *to, const struct image_payload *p);
uint64_t image_encode_slot (uint32_t zone, uint64_t wp, uint8_t flags,
                            uint64_t session);
bool image_decode_slot (uint64_t slot, uint32_t zone, uint64_t session,
                        uint64_t *wp, uint8_t *flags);
/* Fills in the offsets of a superblock from its geometry. */
void image_layout (struct image_superblock *sb);
/* The state that a record stores for a zone that is no longer open. */
uint8_t image_cond (const struct zones *zs, uint32_t zone, uint8_t cond,
                    uint64_t wp);

/* image-file.c */
int image_file_open (const char *path, bool readonly, bool *block_device,
                     uint64_t *size, int *loop_file, struct zone_error *err);
void image_file_close (int fd, int loop_file);
int image_pread (int fd, void *buf, size_t length, uint64_t offset);
int image_pwrite (int fd, const void *buf, size_t length, uint64_t offset);
int image_sync (int fd);        /* 0 or an errno */
bool image_boot_id (uint8_t boot_id[16]);
/* Whether nothing there outlives the machine: tmpfs. */
bool image_forgets (int fd);

/* image-space.c; the file's size never changes.  Return 0 or an errno. */
int image_allocate (int fd, uint64_t offset, uint64_t length);
/* Gives space back; never writes. */
int image_punch (int fd, uint64_t offset, uint64_t length);
/* Zeros a range, sparsely where holes is set. */
int image_zero (int fd, uint64_t offset, uint64_t length, bool holes);
/* ZERO, FINISH, DISCARD or CACHE on the io's ring. */
void image_space_submit (struct image *img, struct store_io *io);

/* image-kept.c */
int kept_init (struct image *img);      /* -1: no memory */
void kept_free (struct image *img);
/* The thread may be started, and is to end: what is kept then stays so until
 * kept_give_back. */
void kept_start (struct image *img);
void kept_stop (struct image *img);
/* A zone's reset is durable: its flag goes, and its space is kept. */
void kept_reset (struct image *img, uint32_t zone);
/* Before something is written to a zone, which ends so many bytes from its
 * start.  May wait while some of its space is given back. */
void kept_claim (struct image *img, uint32_t zone, uint64_t end);
/* All that is kept.  Returns false where nothing was. */
bool kept_give_back (struct image *img);
/* After a session that was not ended: what it left above the pointers. */
void kept_find (struct image *img);

/* image-load.c.  Reads superblock and commit; then all zones. */
int image_read_head (struct image *img, FILE *out, unsigned *faults,
                     struct zone_error *err);
int image_read_zones (struct image *img, struct zones *zs, bool mend,
                      FILE *out, unsigned *faults, struct zone_error *err);
/* Whether the volatile pointers count, and whether unflushed writes may be
 * lost. */
enum image_past { IMAGE_WAS_CLOSED, IMAGE_WAS_KILLED, IMAGE_LOST_POWER };
enum image_past image_past (const struct image *img);

/* Whether a record can be a state of its zone. */
bool image_is_possible (const struct zones *zs, uint32_t zone,
                        const struct image_payload *p);

/* image-log.c */
void log_init (struct image *img);
void log_free (struct image *img);
/* Data of a conventional zone changed. */
void log_note (struct image *img, uint32_t zone, uint64_t offset,
               uint64_t length);
/* Whether nothing changed since the last round. */
bool log_is_idle (struct image *img);
/* Forgets what log_note said; under dirty_lock. */
void log_forget_direct (struct image *img);
/* The zones that the log has something of change with the next commit. */
void log_retire (struct image *img);
/* That commit is in force. */
void log_restart (struct image *img);
/* Writes a part of it for the first time.  Returns 0 or an errno. */
int log_prepare (struct image *img, bool *more);
/* Makes an entry of all that changed. */
enum log_verdict { LOG_NOTHING, LOG_ENTRY, LOG_COMMIT, LOG_FAILED };
enum log_verdict log_try (struct image *img, struct flight *f, int *error);

/* image-replay.c.  After a power loss: the zones as the log's entries leave
 * them; then, their data in its place. */
int replay_read (struct image *img, struct zones *zs, FILE *out,
                 struct zone_error *err);
int replay_write (struct image *img);
void replay_free (struct image *img);
/* A disk that is only read: what the log has of what was read. */
void replay_patch (const struct image *img, void *buf, uint64_t offset,
                   uint64_t length);

/* image-round.c.  A round begins; round.next may then be changed, and
 * round.session set. */
void round_begin (struct image *img);
/* Goes on with one whose want is fulfilled, with what errno. */
void round_step (struct image *img, int e);
/* From an entry of the log that was not written to a commit, and to those
 * alone from then on. */
void round_without_log (struct image *img);
/* Waits for what it wants, and goes on; all of it, where there is nobody else.
 * round_whole returns 0 or an errno, after which the image is failed. */
void round_do (struct image *img);
int round_whole (struct image *img);
/* Returns 0 or an errno. */
int round_write_durably (int fd, const void *buf, size_t length, uint64_t at);
/* From now on nobody knows what is durable. */
void round_give_up (struct image *img);
/* What a zone's record is to say from now on; true where it was reset. */
bool round_snapshot (struct image *img, uint32_t zone,
                     struct image_payload *p);
/* Its record in force.  Returns 0 or an errno. */
int round_read_record (struct image *img, uint32_t zone,
                       struct image_payload *p);

/* image-commit.c */
int commit_init (struct image *img);        /* -1: no memory */
void commit_free (struct image *img);
/* Starts a session: what load found, and a new session, become durable. */
int commit_start_session (struct image *img, bool lost,
                          struct zone_error *err);
/* Ends it: all is durable and marked clean. */
int commit_end_session (struct image *img, struct zone_error *err);
/* The io is done (a flush) or carried out by image_perform (any other)
 * once everything answered before this call is durable. */
void commit_join (struct image *img, struct store_io *io);
void commit_mark_dirty (struct image *img, uint32_t zone);

/* image-map.c; where the data cannot be mapped it is not, and read. */
void map_init (struct image *img);
void map_start (struct image *img);
void map_stop (struct image *img);
/* A range was made a hole, perhaps. */
void map_forget (struct image *img, uint64_t offset, uint64_t length);
const void *image_mapped (struct store *store, uint64_t offset,
                          uint64_t length, bool own);

/* Before a part of the data is had from a mapping; false where not all of it
 * may be now. */
bool map_use (struct image *img, uint64_t offset, uint64_t length);

/* image-copy.c.  Whether data may be written by the mapping, which is then
 * to be made so. */
bool copy_may_write (const struct image *img);
void copy_start (struct image *img);
void copy_stop (struct image *img);
/* Something was written there; the mapping was made anew; it is a hole,
 * perhaps. */
void copy_exists (struct image *img, uint64_t offset, uint64_t length);
void copy_unmapped (struct image *img, uint64_t offset, uint64_t length);
void copy_forget (struct image *img, uint64_t offset, uint64_t length);
/* Return false where the kernel is to do it. */
bool copy_write (struct image *img, const struct store_io *io);
bool copy_read (struct image *img, void *buf, uint64_t length,
                uint64_t offset);

/* image.c.  Opens an image as far as its superblock and commit. */
struct image *image_open_head (const char *path, bool readonly, FILE *out,
                               unsigned *faults, struct zone_error *err);
void image_perform (struct image *img, struct store_io *io);
/* Whether what failed so may succeed now: there was no space, and some was
 * given back. */
bool image_finds_room (struct image *img, int error);
/* Its end: everything that may change data in place comes by. */
void image_done (struct image *img, struct store_io *io, int error,
                 uint64_t bytes);
void image_free (struct image *img);

/* image-sigbus.c.  A mapping that this program touches: *failed is set when
 * what was read of it may be wrong.  Returns -1 where there are too many. */
#define MAPPINGS_MAX 128
int sigbus_enter (void *start, size_t length, int prot,
                  _Atomic bool *failed);
void sigbus_leave (void *start);

/* image-volatile.c */
int volatile_start (struct image *img, struct zone_error *err);
void volatile_stop (struct image *img);

/* The word behind the last zone's: set where a sync failed, after which
 * nobody knows what was written. */
void volatile_mark (struct image *img, bool distrust);

static inline void
volatile_set (struct image *img, uint32_t zone, uint64_t wp, uint8_t flags)
{
  atomic_store_explicit (&img->slots[zone],
                         htole64 (image_encode_slot (zone, wp, flags,
                                                     img->session)),
                         memory_order_release);
}

#endif /* ZONE_IMAGE_INTERNAL_H */
