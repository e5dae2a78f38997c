/* SPDX-License-Identifier: BSD-3-Clause */
/* What libznbd's files share.  Callers see libznbd.h only. */

#ifndef LIB_INTERNAL_H
#define LIB_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <libnbd.h>

#include "libznbd.h"

/* Bytes of one read of the zone table.  Servers take up to 32 MiB; smaller
 * ones keep the caller's memory in the cache. */
#define LIB_READ_MAX (4u << 20)

/* Zones of one write of management requests: the most that has to be
 * looked at to find the one that refused. */
#define LIB_MANAGE_MAX 4096u

/* Large enough for any text that lib-explain.c writes. */
#define LIB_TEXT_MAX 400

struct znbd_disk {
  struct nbd_handle *nbd;       /* connected to the zone table export */
  bool owned;                   /* nbd was made here */
  bool readonly;
  uint32_t read_max;            /* bytes of one read, of one record or more */
  uint32_t write_max;           /* bytes of one write, likewise */
  struct znbd_geometry geometry;
};

/* Records the thread's error; returns -1. */
int lib_error (int num, const char *fs, ...)
  __attribute__ ((format (printf, 2, 3)));

/* The same with what libnbd said last behind it. */
int lib_error_nbd (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2)));

#endif /* LIB_INTERNAL_H */
