/* SPDX-License-Identifier: BSD-3-Clause */
/* What the report tells of a request that was under way when a connection
 * was lost: whether it was done.  For who has one write in flight in a zone
 * and is the zone's only writer.  No state and no I/O.
 */

#ifndef ZONE_JUDGE_H
#define ZONE_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "znbd-types.h"

/* A write of length bytes at offset, within a sequential-write-required
 * zone.  0: *written bytes of it are below the pointer, the rest can be
 * written now.  -1: it cannot be done now, and whether it was cannot be told:
 * what was before it is lost, or the zone takes no writes any more. */
int judge_write (const struct znbd_zone *zone, uint64_t offset,
                 uint64_t length, uint64_t *written);

/* Whether a zone is where op takes it. */
bool judge_reached (const struct znbd_zone *zone, enum znbd_zone_op op);

#endif /* ZONE_JUDGE_H */
