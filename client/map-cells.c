/* SPDX-License-Identifier: BSD-3-Clause */
/* See map-cells.h. */

#include <config.h>

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "map-cells.h"
#include "size.h"

/* Zones fetched at once. */
#define BLOCK 16384u

static const struct kind {
  enum znbd_zone_cond cond;
  char letter;
} kinds[MAP_KINDS] = {
  [MAP_EMPTY] = { ZNBD_COND_EMPTY, 'E' },
  [MAP_IMPLICIT] = { ZNBD_COND_IMPLICIT_OPEN, 'I' },
  [MAP_EXPLICIT] = { ZNBD_COND_EXPLICIT_OPEN, 'O' },
  [MAP_CLOSED] = { ZNBD_COND_CLOSED, 'C' },
  [MAP_FULL] = { ZNBD_COND_FULL, 'F' },
  [MAP_READ_ONLY] = { ZNBD_COND_READ_ONLY, 'R' },
  [MAP_OFFLINE] = { ZNBD_COND_OFFLINE, 'X' },
  [MAP_CONVENTIONAL] = { ZNBD_COND_NOT_WP, 'N' },
};

const char *
map_kind_name (enum map_kind kind)
{
  return kind == MAP_CONVENTIONAL
         ? znbd_type_name (ZNBD_ZONE_CONVENTIONAL)
         : znbd_cond_name (kinds[kind].cond);
}

char
map_kind_letter (enum map_kind kind, bool all)
{
  return all ? kinds[kind].letter : tolower (kinds[kind].letter);
}

/* The report has been checked: every condition is one of these. */
static enum map_kind
kind_of (const struct znbd_zone *z)
{
  unsigned kind;

  for (kind = 0; kind < MAP_KINDS; ++kind)
    if (kinds[kind].cond == z->cond)
      return kind;
  abort ();
}

int
map_fill_steps (const struct map_fill *fill, int steps)
{
  int n;

  if (fill->capacity == 0)
    return -1;
  if (fill->written == 0)
    return 0;
  if (fill->written >= fill->capacity)
    return steps;
  n = (double) fill->written / fill->capacity * steps + 0.5;
  return n < 1 ? 1 : n > steps - 1 ? steps - 1 : n;
}

enum map_kind
map_cell_kind (const struct map_cell *cell, bool *all)
{
  static const enum map_kind order[] = {
    MAP_OFFLINE, MAP_READ_ONLY, MAP_EXPLICIT, MAP_IMPLICIT, MAP_CLOSED,
  };
  static const enum map_kind frequent[] = { MAP_EMPTY, MAP_CONVENTIONAL };
  enum map_kind kind = MAP_FULL;
  size_t i;

  for (i = 0; i < sizeof frequent / sizeof frequent[0]; ++i)
    if (cell->kinds[frequent[i]] > cell->kinds[kind])
      kind = frequent[i];
  for (i = 0; i < sizeof order / sizeof order[0]; ++i)
    if (cell->kinds[order[i]] > 0) {
      kind = order[i];
      break;
    }
  *all = cell->kinds[kind] == cell->zones;
  return kind;
}

uint32_t
map_zones_per_cell (uint32_t zones, uint32_t max_cells)
{
  static const uint8_t round[] = { 10, 12, 15, 20, 25, 30, 40, 50, 60, 80 };
  const uint64_t least = ((uint64_t) zones + max_cells - 1) / max_cells;
  uint64_t scale;
  size_t i;

  if (least <= 10)
    return least;
  for (scale = 1; ; scale *= 10)
    for (i = 0; i < sizeof round; ++i)
      if (round[i] * scale >= least)
        return round[i] * scale < zones ? round[i] * scale : zones;
}

static void
add_zone (struct map *m, uint32_t number, const struct znbd_zone *z)
{
  struct map_cell *cell = &m->cells[number / m->zones_per_cell];
  const enum map_kind kind = kind_of (z);
  uint64_t written;

  if (cell->zones++ == 0)
    cell->first = number;
  cell->kinds[kind]++;
  m->kinds[kind]++;

  /* A read-only zone whose pointer is unknown reports one past its
   * capacity: full, as far as a reader can tell. */
  if (z->type == ZNBD_ZONE_CONVENTIONAL || kind == MAP_OFFLINE)
    return;
  written = z->wp - z->start;
  if (kind == MAP_FULL || written > z->capacity)
    written = z->capacity;
  cell->fill.written += written;
  cell->fill.capacity += z->capacity;
  m->fill.written += written;
  m->fill.capacity += z->capacity;
}

struct map *
map_read (struct target *t, uint32_t zones_per_cell)
{
  const struct znbd_geometry *g = target_geometry (t);
  const uint32_t nr_cells = (g->zones - 1) / zones_per_cell + 1;
  struct znbd_zone *zones = malloc (BLOCK * sizeof *zones);
  struct map *m = calloc (1, sizeof *m + nr_cells * sizeof m->cells[0]);
  uint32_t number = 0;
  int64_t n, i;

  if (zones == NULL || m == NULL) {
    cli_error ("out of memory");
    goto failed;
  }
  m->geometry = g;
  m->zones_per_cell = zones_per_cell;
  m->nr_cells = nr_cells;
  while (number < g->zones) {
    n = target_report (t, number,
                       g->zones - number < BLOCK ? g->zones - number : BLOCK,
                       zones);
    if (n <= 0)
      goto failed;
    for (i = 0; i < n; ++i)
      add_zone (m, number++, &zones[i]);
  }
  free (zones);
  return m;

 failed:
  free (zones);
  free (m);
  return NULL;
}

uint32_t
map_open_zones (const struct map *m)
{
  return m->kinds[MAP_IMPLICIT] + m->kinds[MAP_EXPLICIT];
}

uint32_t
map_active_zones (const struct map *m)
{
  return map_open_zones (m) + m->kinds[MAP_CLOSED];
}

const char *
map_title (char buf[MAP_TEXT_MAX], const struct znbd_geometry *g)
{
  char size[SIZE_TEXT_MAX], zone_size[SIZE_TEXT_MAX];

  snprintf (buf, MAP_TEXT_MAX, "%s, %s in %" PRIu32 " zone%s of %s",
            znbd_model_name (g->model), size_text (size, g->size), g->zones,
            g->zones == 1 ? "" : "s", size_text (zone_size, g->zone_size));
  return buf;
}

const char *
map_bytes (char buf[MAP_BYTES_MAX], uint64_t bytes)
{
  static const char suffixes[] = "KMGTPE";
  const char *suffix = suffixes;
  double value = bytes / 1024.0;

  if (bytes < 1024) {
    snprintf (buf, MAP_BYTES_MAX, "%u bytes", (unsigned) bytes);
    return buf;
  }
  /* 1023.95 would be written as 1024.0. */
  for (; value >= 1023.95; value /= 1024)
    suffix++;
  snprintf (buf, MAP_BYTES_MAX, "%.1f %ciB", value, *suffix);
  return buf;
}
