/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors for NBD's BLOCK_STATUS: the x-zbd:zones context and
 * base:allocation, encoded in one place.
 */

#ifndef ZONE_REPORT_H
#define ZONE_REPORT_H

#include <stdint.h>

#include "disk.h"
#include "report-flags.h"

/* Gets one descriptor after the other, neighbours with equal flags
 * merged; returns false to end the report. */
typedef bool report_fn (void *opaque, uint64_t length, uint32_t flags);

/* Walks [offset, offset + length), which lies inside the disk. */
void report_zones (struct zdisk *disk, uint64_t offset, uint64_t length,
                   report_fn *fn, void *opaque);
void report_allocation (struct zdisk *disk, uint64_t offset, uint64_t length,
                        report_fn *fn, void *opaque);

#endif /* ZONE_REPORT_H */
