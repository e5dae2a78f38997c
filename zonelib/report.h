/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors for NBD's BLOCK_STATUS: the x-zbd:zones context and
 * base:allocation, encoded in one place.
 */

#ifndef ZONE_REPORT_H
#define ZONE_REPORT_H

#include <stdint.h>

#include "disk.h"

/* Flags of x-zbd:zones: condition in bits 0-3, type in 4-5. */
#define REPORT_TYPE_SHIFT       4
#define REPORT_REGION_SHIFT     8
#define REPORT_REGION_NONE      0       /* a zone without pointer */
#define REPORT_REGION_DATA      1       /* below the pointer */
#define REPORT_REGION_FREE      2       /* from the pointer to capacity */
#define REPORT_REGION_GAP       3       /* from capacity to the zone's end */
#define REPORT_RESET            (1u << 10)
#define REPORT_NON_SEQ          (1u << 11)

/* Flags of base:allocation. */
#define REPORT_HOLE             1u
#define REPORT_ZERO             2u

/* Gets one descriptor after the other, neighbours with equal flags
 * merged; returns false to end the report. */
typedef bool report_fn (void *opaque, uint64_t length, uint32_t flags);

/* Walks [offset, offset + length), which lies inside the disk. */
void report_zones (struct zdisk *disk, uint64_t offset, uint64_t length,
                   report_fn *fn, void *opaque);
void report_allocation (struct zdisk *disk, uint64_t offset, uint64_t length,
                        report_fn *fn, void *opaque);

#endif /* ZONE_REPORT_H */
