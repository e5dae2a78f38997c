/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of the host store:
 *
 *   host.c         opening, closing, what is done where
 *   host-probe.c   what device it is
 *   host-data.c    reads and writes
 */

#ifndef ZONE_HOST_INTERNAL_H
#define ZONE_HOST_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buffers.h"
#include "error.h"
#include "ring.h"
#include "store.h"
#include "worker.h"

struct host {
  struct store store;
  char *path;
  int fd;                       /* libzbd's where zoned */
  bool zoned;
  uint32_t logical_block;       /* bytes */
  uint32_t memory_alignment;    /* of buffers, bytes */
  uint32_t max_transfer;        /* bytes of one command of the device */
  struct zones *zones;          /* of the disk; once it is loaded */
  struct znbd_zone *loaded;     /* the first report, until then */
  struct worker worker;         /* what blocks */
  pthread_mutex_t lock;         /* protects what follows */
  struct buffers bounce;        /* for callers' buffers that the device
                                 * cannot take as they are */
};

static inline struct host *
host_of (struct store *store)
{
  return (struct host *) store;
}

/* host-probe.c */
/* Opens h->path as h->store.readonly says and fills h. */
int host_probe (struct host *h, struct zone_error *err);

/* What an error of the device means: ENODEV where it is not there any more,
 * of which the kernel tells in many ways. */
int host_error (struct host *h, int error);

/* host-data.c: READ, WRITE, ZERO, DISCARD, FLUSH. */
void host_data (struct host *h, struct store_io *io);

#endif /* ZONE_HOST_INTERNAL_H */
