/* SPDX-License-Identifier: BSD-3-Clause */
/* The name of the x-zbd:geometry context, which carries a disk's geometry
 * to clients that list contexts.  No state and no I/O.
 */

#ifndef ZONE_GEOMETRY_H
#define ZONE_GEOMETRY_H

#include "znbd-types.h"

#define GEOMETRY_PREFIX "x-zbd:geometry:"
#define GEOMETRY_NAME_MAX 512

/* Writes the name, with its prefix. */
void geometry_encode_name (const struct znbd_geometry *g,
                           char name[GEOMETRY_NAME_MAX]);

#endif /* ZONE_GEOMETRY_H */
