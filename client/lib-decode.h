/* SPDX-License-Identifier: BSD-3-Clause */
/* From the descriptors of x-zbd:zones to zones.  No I/O. */

#ifndef LIB_DECODE_H
#define LIB_DECODE_H

#include <stdbool.h>
#include <stdint.h>

#include "znbd-types.h"

/* Decodes a row of zones; what it knows of the zone under way is in here. */
struct lib_decoder {
  const struct znbd_geometry *geometry;
  struct znbd_zone *zones;      /* the caller's: [0] is number first */
  uint32_t first, count;
  uint32_t complete;            /* zones that are */
  uint64_t at;                  /* the next byte to be described, absolute */

  /* the zone under way */
  uint32_t flags;               /* without the region */
  unsigned region;              /* of the last piece */
  uint64_t lengths[4];          /* bytes in each region */
};

void lib_decoder_init (struct lib_decoder *d,
                       const struct znbd_geometry *geometry, uint32_t first,
                       uint32_t count, struct znbd_zone *zones);

/* Takes the next descriptor, which begins where the last one ended.  What
 * lies behind the last zone is left alone.  0, or -1 with *why set to a
 * static text. */
int lib_decoder_add (struct lib_decoder *d, uint64_t length, uint64_t flags,
                     const char **why);

/* Forgets the zone under way: its start is asked for again. */
void lib_decoder_rewind (struct lib_decoder *d);

/* Whether a zone is under way. */
bool lib_decoder_inside (const struct lib_decoder *d);

#endif /* LIB_DECODE_H */
