/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk's geometry in words: the name of the x-zbd:geometry context, which
 * carries it to clients that list contexts, and a line for people.  No state
 * and no I/O.
 */

#ifndef ZONE_GEOMETRY_H
#define ZONE_GEOMETRY_H

#include "znbd-types.h"

#define GEOMETRY_PREFIX "x-zbd:geometry:"
#define GEOMETRY_NAME_MAX 512

/* Writes the name, with its prefix. */
void geometry_encode_name (const struct znbd_geometry *g,
                           char name[GEOMETRY_NAME_MAX]);

/* Writes a description for export lists: "host-managed zoned disk, 40 zones
 * of 256M, 4 of them conventional, at most 14 open, ...". */
#define GEOMETRY_TEXT_MAX 256
void geometry_describe (const struct znbd_geometry *g,
                        char text[GEOMETRY_TEXT_MAX]);

/* That of the zone table export beside it. */
#define GEOMETRY_TABLE_TEXT \
  "zone table: read it for the report, write it to manage zones"

#endif /* ZONE_GEOMETRY_H */
