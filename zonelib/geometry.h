/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk's geometry in words: the name of the x-zbd:geometry context, which
 * carries it to clients that list contexts, and a line for people.  Decoding
 * trusts nothing: names come over the network.  No state and no I/O.
 */

#ifndef ZONE_GEOMETRY_H
#define ZONE_GEOMETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "znbd-types.h"

#define GEOMETRY_PREFIX "x-zbd:geometry:"
#define GEOMETRY_NAME_MAX 512

/* Writes the name, with its prefix. */
void geometry_encode_name (const struct znbd_geometry *g,
                           char name[GEOMETRY_NAME_MAX]);

/* Decodes a name that a peer sent, for a disk of size bytes (the export's
 * size, which the name does not have).  version, model, zones, zone-size and
 * granularity must be there; what else is missing is 0, and keys that are
 * not known are skipped.  Returns 0, or -1 with *why set to a static text. */
int geometry_decode_name (const char *name, uint64_t size,
                          struct znbd_geometry *g, const char **why);

/* Whether a decoded geometry's numbers are possible and fit together, as
 * everybody else takes for granted.  0, or -1 with *why set. */
int geometry_check (const struct znbd_geometry *g, const char **why);

/* Whether there is a zone of this type that is in this condition. */
bool geometry_zone_possible (unsigned type, unsigned cond);

/* Writes a description for export lists: "host-managed zoned disk, 40 zones
 * of 256M, 4 of them conventional, at most 14 open, ...". */
#define GEOMETRY_TEXT_MAX 256
void geometry_describe (const struct znbd_geometry *g,
                        char text[GEOMETRY_TEXT_MAX]);

/* That of the zone table export beside it. */
#define GEOMETRY_TABLE_TEXT \
  "zone table: read it for the report, write it to manage zones"

#endif /* ZONE_GEOMETRY_H */
