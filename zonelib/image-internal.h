/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of the image store:
 *
 *   image.c           opening, data, closing: the store's operations
 *   image-codec.c     checksums, encoding and decoding of every struct
 *   image-file.c      the file itself: opening, locks, whole reads
 *   image-space.c     zeroing, giving space and taking it back
 *   image-create.c    making
 *   image-load.c      reading all metadata and judging it (load and check)
 *   image-check.c     checking and repairing
 *   image-commit.c    making things durable
 *   image-map.c       data that is sent from the page cache
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

/* A mapping of the data, see image-map.c. */
#define SPANS_MAX 32            /* spans of it in use */
struct image_map {
  uint8_t *data;                /* NULL: there is none */
  size_t page;
  _Atomic bool *used;           /* by span */
  _Atomic uint64_t *seen;       /* what was in memory, see image-map.c */
  pthread_mutex_t lock;         /* protects: */
  uint32_t span[SPANS_MAX];     /* in use: a ring, of which */
  uint64_t next;                /* counts what was ever put in */
  uint64_t given_up;            /* ms: when one last was */
};

struct image {
  struct store store;
  char *path;
  int fd;
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
  pthread_cond_t commit_work;
  struct store_io *waiting, **waiting_tail;
  bool committing;              /* somebody leads; owns image.commit */
  bool thread_started, thread_stop, thread_wake;
  pthread_t thread;

  struct image_commit commit;   /* in force, host byte order */
  struct image_map map;
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
                     uint64_t *size, struct zone_error *err);
int image_pread (int fd, void *buf, size_t length, uint64_t offset);
int image_pwrite (int fd, const void *buf, size_t length, uint64_t offset);
int image_sync (int fd);        /* 0 or an errno */
bool image_boot_id (uint8_t boot_id[16]);

/* image-space.c; the file's size never changes.  Return 0 or an errno. */
int image_allocate (int fd, uint64_t offset, uint64_t length);
/* Gives space back; never writes. */
int image_punch (int fd, uint64_t offset, uint64_t length);
/* Zeros a range, sparsely where holes is set. */
int image_zero (int fd, uint64_t offset, uint64_t length, bool holes);
/* ZERO, FINISH, DISCARD or CACHE on the io's ring. */
void image_space_submit (struct image *img, struct store_io *io);

/* image-load.c.  Reads superblock and commit; then all zones. */
int image_read_head (struct image *img, FILE *out, unsigned *faults,
                     struct zone_error *err);
int image_read_zones (struct image *img, struct zones *zs, bool mend,
                      FILE *out, unsigned *faults, struct zone_error *err);
/* Whether the volatile pointers count, and whether unflushed writes may be
 * lost. */
enum image_past { IMAGE_WAS_CLOSED, IMAGE_WAS_KILLED, IMAGE_LOST_POWER };
enum image_past image_past (const struct image *img);

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
                          uint64_t length);

/* image.c.  Opens an image as far as its superblock and commit. */
struct image *image_open_head (const char *path, bool readonly, FILE *out,
                               unsigned *faults, struct zone_error *err);
void image_perform (struct image *img, struct store_io *io);
void image_free (struct image *img);

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
