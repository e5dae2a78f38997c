/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk's zones summed up into the cells of a map, for the terminal's
 * (map-text.c) and the SVG's (map-svg.c) drawing.
 *
 * A cell stands for the same number of neighbouring zones everywhere but at
 * the end.  Memory goes with the cells, not with the zones.
 */

#ifndef MAP_CELLS_H
#define MAP_CELLS_H

#include <stdbool.h>
#include <stdint.h>

#include "target.h"
#include "znbd-types.h"

/* The conditions of zones, in the order of legends. */
enum map_kind {
  MAP_EMPTY,
  MAP_IMPLICIT,
  MAP_EXPLICIT,
  MAP_CLOSED,
  MAP_FULL,
  MAP_READ_ONLY,
  MAP_OFFLINE,
  MAP_CONVENTIONAL,             /* not-wp */
};
#define MAP_KINDS 8

/* How the kind is called: the condition's name, but "conventional". */
const char *map_kind_name (enum map_kind kind);

/* What stands for it where colours do not: a capital where all zones of a
 * cell are of the kind, the small letter where some are not. */
char map_kind_letter (enum map_kind kind, bool all);

/* Zones with a write pointer that says something, and how much of their
 * capacity is below it. */
struct map_fill {
  uint64_t written, capacity;   /* bytes */
};

/* The fill in steps: 0 only where nothing is written, steps only where
 * everything is.  -1: there is no fill to tell. */
int map_fill_steps (const struct map_fill *fill, int steps);

struct map_cell {
  uint32_t first;               /* zone */
  uint32_t zones;
  uint32_t kinds[MAP_KINDS];    /* how many are of each */
  struct map_fill fill;
};

/* The kind that a cell is drawn as: what is rare and matters wins over what
 * there is most of (offline, read-only, explicitly open, implicitly open,
 * closed), or it could not be seen among many zones.  Of the others the
 * most frequent.  *all tells whether all zones are of it. */
enum map_kind map_cell_kind (const struct map_cell *cell, bool *all);

struct map {
  const struct znbd_geometry *geometry;
  uint32_t zones_per_cell;
  uint32_t nr_cells;
  uint32_t kinds[MAP_KINDS];
  struct map_fill fill;
  struct map_cell cells[];
};

/* A round number of zones per cell, so that zones fit in max_cells (1 or
 * more) cells. */
uint32_t map_zones_per_cell (uint32_t zones, uint32_t max_cells);

/* Reads the report.  NULL after a message; free with free. */
struct map *map_read (struct target *t, uint32_t zones_per_cell);

uint32_t map_open_zones (const struct map *m);
uint32_t map_active_zones (const struct map *m);

/* "host-managed, 10G in 40 zones of 256M".  Returns buf. */
#define MAP_TEXT_MAX 128
const char *map_title (char buf[MAP_TEXT_MAX], const struct znbd_geometry *g);

/* Bytes for people: "1.3 GiB". */
#define MAP_BYTES_MAX 24
const char *map_bytes (char buf[MAP_BYTES_MAX], uint64_t bytes);

/* The fill in percent, as steps of 100. */
#define map_percent(fill) map_fill_steps (fill, 100)

#endif /* MAP_CELLS_H */
