/* SPDX-License-Identifier: BSD-3-Clause */
/* The map in characters. */

#ifndef MAP_TEXT_H
#define MAP_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "map-cells.h"

/* Where it is drawn. */
struct map_screen {
  unsigned width;               /* columns */
  unsigned rows;                /* at most so many rows of cells */
  bool color;                   /* escape codes of 256 colours */
  bool utf8;
};

/* How cells are laid out in it. */
struct map_layout {
  unsigned label;               /* columns before the cells, 0: none */
  unsigned cell;                /* columns of a cell */
  unsigned per_row;             /* cells in a row */
  uint32_t zones_per_cell;
};
struct map_layout map_text_layout (const struct map_screen *screen,
                                   uint32_t zones);

/* Draws it to standard output.  -1 where that fails; cli_finish says so. */
int map_text (const struct map *m, const struct map_screen *screen,
              const struct map_layout *layout);

#endif /* MAP_TEXT_H */
