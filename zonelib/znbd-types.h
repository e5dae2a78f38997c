/* SPDX-License-Identifier: BSD-3-Clause */
/* Zones as every part of znbd names them: the core, the NBD front-ends,
 * the client library and its users.  Installed; no other header of
 * zonelib is.
 *
 * Offsets and lengths are in bytes everywhere in znbd.  Numbers of types,
 * conditions and models are those of Linux <linux/blkzoned.h> and of the
 * ZBC and ZNS standards, so that they can be compared with what the
 * kernel says.
 */

#ifndef ZNBD_TYPES_H
#define ZNBD_TYPES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Zoned model of a disk (kernel: queue/zoned; numbers of the zone table). */
enum znbd_model {
  ZNBD_MODEL_NONE = 0,
  ZNBD_MODEL_HOST_AWARE = 1,
  ZNBD_MODEL_HOST_MANAGED = 2,
};

/* enum blk_zone_type */
enum znbd_zone_type {
  ZNBD_ZONE_CONVENTIONAL = 1,
  ZNBD_ZONE_SEQ_REQUIRED = 2,   /* sequential-write-required */
  ZNBD_ZONE_SEQ_PREFERRED = 3,  /* sequential-write-preferred */
};

/* enum blk_zone_cond */
enum znbd_zone_cond {
  ZNBD_COND_NOT_WP = 0,
  ZNBD_COND_EMPTY = 1,
  ZNBD_COND_IMPLICIT_OPEN = 2,
  ZNBD_COND_EXPLICIT_OPEN = 3,
  ZNBD_COND_CLOSED = 4,
  ZNBD_COND_READ_ONLY = 13,
  ZNBD_COND_FULL = 14,
  ZNBD_COND_OFFLINE = 15,
};

/* Zone management; the numbers are those of the zone table's requests. */
enum znbd_zone_op {
  ZNBD_ZONE_OPEN = 1,
  ZNBD_ZONE_CLOSE = 2,
  ZNBD_ZONE_FINISH = 3,
  ZNBD_ZONE_RESET = 4,
};

/* One zone of a report. */
struct znbd_zone {
  uint64_t start;       /* first byte on the disk */
  uint64_t length;      /* bytes to the next zone's start */
  uint64_t capacity;    /* writable bytes from start, <= length */
  uint64_t wp;          /* write pointer, absolute; start + length where
                         * the zone is full, conventional, read-only
                         * with no known pointer, or offline */
  uint8_t type;         /* enum znbd_zone_type */
  uint8_t cond;         /* enum znbd_zone_cond */
  uint8_t reset;        /* 1: a reset is recommended */
  uint8_t non_seq;      /* 1: non-sequential write resources in use */
  uint8_t reserved[28]; /* zero */
};

/* A disk's geometry and limits.  An ordinary disk (ZNBD_MODEL_NONE) is one
 * conventional zone of its whole size. */
struct znbd_geometry {
  uint64_t size;         /* bytes of the disk */
  uint64_t zone_size;    /* bytes from one zone's start to the next */
  uint64_t zone_capacity;/* of all sequential zones but a smaller last one;
                          * 0: it differs from zone to zone, or unknown */
  uint64_t epoch;        /* changes whenever writes that were answered but
                          * not flushed may have been lost */
  uint32_t zones;        /* number of zones, the smaller last one too */
  uint32_t conventional; /* how many of them are conventional */
  uint32_t max_open;     /* zones open at once, 0: no limit */
  uint32_t max_active;   /* zones open or closed at once, 0: no limit */
  uint32_t max_append;   /* largest append in bytes, 0: no appends */
  uint32_t granularity;  /* writes are multiples of it: the logical block */
  uint32_t model;        /* enum znbd_model */
  uint8_t uuid[16];      /* names the disk; RFC 4122 byte order */
  uint8_t reserved[12];  /* zero */
};

/* The names that reports use: "not-wp", "empty", "implicit-open",
 * "explicit-open", "closed", "read-only", "full", "offline"; "conventional",
 * "seq-write-required", "seq-write-preferred"; "none", "host-aware",
 * "host-managed"; "open", "close", "finish", "reset".  "unknown" for any
 * other number; never NULL.  Static strings; callable from any thread.
 */
const char *znbd_cond_name (unsigned cond);
const char *znbd_type_name (unsigned type);
const char *znbd_model_name (unsigned model);
const char *znbd_op_name (unsigned op);

#ifdef __cplusplus
}
#endif

#endif /* ZNBD_TYPES_H */
