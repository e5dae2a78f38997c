/* SPDX-License-Identifier: BSD-3-Clause */
/* What a request carries for the disk while it is under way; part of
 * struct zdisk_request so that the data path allocates nothing.  See
 * disk-internal.h for who uses which field.
 */

#ifndef ZONE_DISK_WORK_H
#define ZONE_DISK_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "ring-wait.h"
#include "store.h"
#include "znbd-types.h"

struct zdisk_client;
struct zdisk_request;

/* Contiguous writes of one zone that become one vectored write. */
#define ZDISK_MERGE_MAX 16

struct zdisk_work {
  struct zdisk_client *client;
  bool counted;                 /* in client.refs */
  struct ring *ring;            /* of the thread that carries it on */
  struct ring_wait wait;        /* for that thread's next turn */

  /* The walk over the request's parts. */
  uint64_t done_bytes;          /* parts before this one */
  _Atomic uint8_t phase;        /* PHASE_*, disk.c */
  _Atomic uint8_t flushing;     /* all parts done, durability under way */
  uint32_t lost;                /* the store's, when it was submitted */
  uint8_t stage;                /* disk-mirror.c: of an ALL form */
  int all_error;                /* and how the store did it */

  /* The part under way; offsets relative to the zone's start. */
  uint8_t kind;                 /* enum part_kind, disk.c */
  uint8_t state;                /* enum busy_state, disk-queue.c */
  uint8_t refusal;              /* enum zone_refusal */
  uint32_t zone;
  uint64_t offset, length;
  uint64_t gap;                 /* zero from here to offset first */
  int error;                    /* the store's */
  uint8_t retried;              /* an append that found the pointer moved */

  struct zdisk_request *next;   /* busy or parked list of the zone */
  struct zdisk_request *fx_next;/* effects: what to do after unlocking */
  struct zdisk_request *merged; /* written together with this one */
  struct zdisk_request *park_prev, *park_next; /* all that is parked */
  uint64_t park_seq;            /* its number among all ever parked */
  uint64_t parked_at, moved_at; /* ms; moved_at of a zone's first one is
                                 * when the pointer last moved */
  struct store_io io;
  struct znbd_zone *report;     /* disk-mirror.c: NULL, or to be freed */
  uint64_t asked;               /* the stamp when it was asked for */
  union {
    struct iovec iov[ZDISK_MERGE_MAX];
    struct znbd_zone one;       /* a report of one zone */
  };
};

#endif /* ZONE_DISK_WORK_H */
