/* SPDX-License-Identifier: BSD-3-Clause */
/* See judge.h. */

#include <config.h>

#include "judge.h"

int
judge_write (const struct znbd_zone *zone, uint64_t offset, uint64_t length,
             uint64_t *written)
{
  if (zone->cond == ZNBD_COND_OFFLINE || zone->cond == ZNBD_COND_READ_ONLY)
    return -1;
  /* A full zone has no pointer to judge by, and may be finished by others:
   * only its last write is what made it so. */
  if (zone->cond == ZNBD_COND_FULL) {
    *written = length;
    return offset + length == zone->start + zone->capacity ? 0 : -1;
  }
  if (zone->wp >= offset + length)
    *written = length;
  else if (zone->wp < offset)
    return -1;
  else
    *written = zone->wp - offset;
  return 0;
}

bool
judge_reached (const struct znbd_zone *zone, enum znbd_zone_op op)
{
  switch (op) {
  case ZNBD_ZONE_OPEN:
    return zone->cond == ZNBD_COND_EXPLICIT_OPEN;
  case ZNBD_ZONE_CLOSE:
    return zone->cond == ZNBD_COND_CLOSED || zone->cond == ZNBD_COND_EMPTY;
  case ZNBD_ZONE_FINISH:
    return zone->cond == ZNBD_COND_FULL;
  case ZNBD_ZONE_RESET:
    return zone->cond == ZNBD_COND_EMPTY;
  }
  return false;
}
