/* SPDX-License-Identifier: BSD-3-Clause */
/* The map as an SVG picture. */

#ifndef MAP_SVG_H
#define MAP_SVG_H

#include <stddef.h>
#include <stdint.h>

#include "map-cells.h"

/* Zones per cell of a disk's picture: 1 where each has room. */
uint32_t map_svg_zones_per_cell (uint32_t zones);

/* Draws the picture into memory: *length bytes at what is returned, to be
 * freed; NULL after a message.  The same zones give the same bytes. */
char *map_svg (const struct map *m, size_t *length);

#endif /* MAP_SVG_H */
