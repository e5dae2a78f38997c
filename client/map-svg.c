/* SPDX-License-Identifier: BSD-3-Clause */
/* See map-svg.h.
 *
 * The picture stands alone: no fonts, scripts or links.  Its colours follow
 * the reader's light or dark theme, are told apart by people of every colour
 * vision (after Okabe and Ito's palette), and letters and hatching say the
 * same without them.  What is in it are numbers and names of ours, so
 * nothing has to be escaped.  Coordinates are whole or tenths, and computed
 * in integers: the same zones give the same file everywhere.
 */

#include <config.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "map-svg.h"

#define WIDTH 960
#define MARGIN 24
#define TOP 92                  /* above the cells: the title */
#define MAP_HEIGHT 480          /* at most, of the cells */
#define LEGEND_ITEM 170         /* of one entry of the legend, in width */
#define LEGEND_ROW 26

struct layout {
  unsigned left;                /* of the first cell */
  unsigned pitch;               /* from one cell to the next */
  unsigned tile;                /* pixels of a cell that are drawn */
  unsigned columns, rows;
};

static const char style[] =
  "<style>\n"
  "svg{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:13px}\n"
  "text{fill:#1f2328}\n"
  ".h{font-size:20px;font-weight:600}\n"
  ".s,.l{fill:#59636e}\n"
  ".l{font-size:11px;text-anchor:end}\n"
  ".k{text-anchor:middle}\n"
  "#bg{fill:#ffffff}\n"
  ".e rect{fill:#e4e8ec}\n"
  ".i rect{fill:#d2ece3}.i .w{fill:#5cbf9f}\n"
  ".o rect{fill:#f6f1c4}.o .w{fill:#eadb3c}\n"
  ".c rect{fill:#fae6c3}.c .w{fill:#f0b040}\n"
  ".f rect{fill:#d3e6f5}.f .w{fill:#6aaede}\n"
  ".r rect{fill:#f1dfe9}.r .w{fill:#d996bb}\n"
  ".x rect{fill:#ee7d55}\n"
  ".e .w{fill:#9aa4ae}.n .w{fill:#8c959f}\n"
  ".n rect{fill:url(#hatch)}\n"
  ".ha{fill:#d5dae0}.hb{fill:#b4bcc5}\n"
  "@media (prefers-color-scheme:dark){\n"
  "text{fill:#f0f3f6}\n"
  ".s,.l{fill:#9198a1}\n"
  "#bg{fill:#0d1117}\n"
  ".e rect{fill:#21262d}\n"
  ".i rect{fill:#0e362b}.i .w{fill:#0a8864}\n"
  ".o rect{fill:#37330a}.o .w{fill:#877b00}\n"
  ".c rect{fill:#402a06}.c .w{fill:#a96a00}\n"
  ".f rect{fill:#10263c}.f .w{fill:#1f66a8}\n"
  ".r rect{fill:#3c2433}.r .w{fill:#99527a}\n"
  ".x rect{fill:#b8431a}\n"
  ".e .w{fill:#59636e}.n .w{fill:#59636e}\n"
  ".ha{fill:#2d333b}.hb{fill:#454c56}\n"
  "}\n"
  "</style>\n"
  "<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" "
  "patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">"
  "<rect class=\"ha\" width=\"6\" height=\"6\"/>"
  "<rect class=\"hb\" width=\"2\" height=\"6\"/></pattern></defs>\n";

/* ---- layout ---------------------------------------------------------- */

/* The largest cells with which zones find room, else the smallest. */
static struct layout
find_layout (uint32_t zones)
{
  static const uint8_t pitches[] = { 112, 88, 64, 52, 44, 36, 30, 25, 20 };
  struct layout l = { 0 };
  uint32_t number;
  uint64_t rows;
  size_t i;

  l.left = MARGIN + 6;
  for (number = zones - 1; number > 0; number /= 10)
    l.left += 8;
  for (i = 0; i < sizeof pitches; ++i) {
    l.pitch = pitches[i];
    l.columns = (WIDTH - MARGIN - l.left) / l.pitch;
    if (l.columns > 10)
      l.columns -= l.columns % 5;
    rows = ((uint64_t) zones + l.columns - 1) / l.columns;
    if (rows * l.pitch <= MAP_HEIGHT)
      break;
  }
  l.rows = MAP_HEIGHT / l.pitch;
  l.pitch = (WIDTH - MARGIN - l.left) / l.columns;
  l.tile = l.pitch - (l.pitch > 40 ? 4 : 2);
  return l;
}

uint32_t
map_svg_zones_per_cell (uint32_t zones)
{
  const struct layout l = find_layout (zones);

  return map_zones_per_cell (zones, l.columns * l.rows);
}

/* ---- cells ----------------------------------------------------------- */

/* A kind's class is its small letter. */
static char
class_of (enum map_kind kind)
{
  return map_kind_letter (kind, false);
}

/* What a reader is told who points at the cell. */
static void
put_tooltip (FILE *f, const struct map_cell *cell)
{
  char written[MAP_BYTES_MAX], capacity[MAP_BYTES_MAX];
  const char *comma = "";
  unsigned kind;

  if (cell->zones == 1)
    fprintf (f, "<title>zone %" PRIu32 ": ", cell->first);
  else
    fprintf (f, "<title>zones %" PRIu32 " to %" PRIu32 ": ", cell->first,
             cell->first + cell->zones - 1);
  for (kind = 0; kind < MAP_KINDS; ++kind)
    if (cell->kinds[kind]) {
      fputs (comma, f);
      if (cell->zones > 1)
        fprintf (f, "%" PRIu32 " ", cell->kinds[kind]);
      fputs (map_kind_name (kind), f);
      comma = ", ";
    }
  if (cell->fill.capacity)
    fprintf (f, "; %s of %s written",
             map_bytes (written, cell->fill.written),
             map_bytes (capacity, cell->fill.capacity));
  fputs ("</title>", f);
}

static void
put_tile (FILE *f, unsigned x, unsigned y, unsigned size,
          const struct map_fill *fill)
{
  /* In tenths of a pixel, from below. */
  const int height = map_fill_steps (fill, size * 10);
  const int top = y * 10 + size * 10 - height;

  fprintf (f, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\"/>", x, y,
           size, size);
  if (height > 0)
    fprintf (f, "<rect class=\"w\" x=\"%u\" y=\"%d.%d\" width=\"%u\" "
             "height=\"%d.%d\"/>", x, top / 10, top % 10, size, height / 10,
             height % 10);
}

static void
put_letter (FILE *f, unsigned x, unsigned y, unsigned size, char letter)
{
  const unsigned font = size > 56 ? 28 : size / 2 + 1;

  fprintf (f, "<text class=\"k\" x=\"%u\" y=\"%u\" font-size=\"%u\">%c"
           "</text>", x + size / 2, y + size / 2 + font * 36 / 100, font,
           letter);
}

static void
put_cells (FILE *f, const struct map *m, const struct layout *l)
{
  uint32_t i;

  for (i = 0; i < m->nr_cells; ++i) {
    const struct map_cell *cell = &m->cells[i];
    const unsigned x = l->left + i % l->columns * l->pitch;
    const unsigned y = TOP + i / l->columns * l->pitch;
    bool all;
    const enum map_kind kind = map_cell_kind (cell, &all);

    if (i % l->columns == 0)
      fprintf (f, "<text class=\"l\" x=\"%u\" y=\"%u\">%" PRIu32
               "</text>\n", l->left - 8, y + l->tile / 2 + 4, cell->first);
    fprintf (f, "<g class=\"%c\">", class_of (kind));
    put_tooltip (f, cell);
    put_tile (f, x, y, l->tile, &cell->fill);
    /* Empty zones are many and what others are to stand out from. */
    if (kind != MAP_EMPTY || !all)
      put_letter (f, x, y, l->tile, map_kind_letter (kind, all));
    fputs ("</g>\n", f);
  }
}

/* ---- words below and above ------------------------------------------- */

static void
put_limit (FILE *f, const char *what, uint32_t now, uint32_t limit)
{
  fprintf (f, " · %" PRIu32 " %s", now, what);
  if (limit == 0)
    fputs (", no limit", f);
  else
    fprintf (f, " of %" PRIu32, limit);
}

static void
put_title (FILE *f, const struct map *m)
{
  char text[MAP_TEXT_MAX], written[MAP_BYTES_MAX], capacity[MAP_BYTES_MAX];

  fprintf (f, "<text class=\"h\" x=\"%u\" y=\"44\">%s</text>\n", MARGIN,
           map_title (text, m->geometry));
  fprintf (f, "<text class=\"s\" x=\"%u\" y=\"68\">", MARGIN);
  if (m->fill.capacity > 0) {
    fprintf (f, "written %s of %s (%d%%)",
             map_bytes (written, m->fill.written),
             map_bytes (capacity, m->fill.capacity), map_percent (&m->fill));
    put_limit (f, "open", map_open_zones (m), m->geometry->max_open);
    put_limit (f, "active", map_active_zones (m), m->geometry->max_active);
  }
  else
    fputs ("nothing that has a write pointer", f);
  fputs ("</text>\n", f);
}

#define LEGEND_PER_ROW ((WIDTH - 2 * MARGIN) / LEGEND_ITEM)

static unsigned
legend_rows (const struct map *m)
{
  unsigned kind, entries = 0;

  for (kind = 0; kind < MAP_KINDS; ++kind)
    entries += m->kinds[kind] > 0;
  return (entries + LEGEND_PER_ROW - 1) / LEGEND_PER_ROW +
         (m->zones_per_cell > 1);
}

/* Entries of the kinds that there are. */
static void
put_legend (FILE *f, const struct map *m, unsigned top)
{
  static const struct map_fill fills[MAP_KINDS] = {
    [MAP_IMPLICIT] = { 1, 2 }, [MAP_EXPLICIT] = { 1, 2 },
    [MAP_CLOSED] = { 1, 2 }, [MAP_FULL] = { 1, 1 },
    [MAP_READ_ONLY] = { 1, 2 },
  };
  unsigned kind, n = 0, x, y;

  for (kind = 0; kind < MAP_KINDS; ++kind) {
    if (m->kinds[kind] == 0)
      continue;
    x = MARGIN + n % LEGEND_PER_ROW * LEGEND_ITEM;
    y = top + n / LEGEND_PER_ROW * LEGEND_ROW;
    fprintf (f, "<g class=\"%c\">", class_of (kind));
    put_tile (f, x, y, 18, &fills[kind]);
    if (kind != MAP_EMPTY)
      put_letter (f, x, y, 18, map_kind_letter (kind, true));
    fprintf (f, "<text x=\"%u\" y=\"%u\">%s %" PRIu32 "</text></g>\n", x + 26,
             y + 14, map_kind_name (kind), m->kinds[kind]);
    n++;
  }
  if (m->zones_per_cell > 1)
    fprintf (f, "<text class=\"s\" x=\"%u\" y=\"%u\">%" PRIu32 " zones a "
             "cell, filled to their average; small letters: not all of "
             "them</text>\n", MARGIN,
             top + (legend_rows (m) - 1) * LEGEND_ROW + 14,
             m->zones_per_cell);
}

char *
map_svg (const struct map *m, size_t *length)
{
  const struct layout l = find_layout (m->geometry->zones);
  const unsigned rows = (m->nr_cells - 1) / l.columns + 1;
  const unsigned legend = TOP + rows * l.pitch + 20;
  const unsigned height = legend + legend_rows (m) * LEGEND_ROW + 8;
  char title[MAP_TEXT_MAX];
  char *buf = NULL;
  bool failed;
  FILE *f;

  f = open_memstream (&buf, length);
  if (f == NULL) {
    cli_error ("out of memory");
    return NULL;
  }
  fprintf (f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
           "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" "
           "height=\"%u\" viewBox=\"0 0 %u %u\" role=\"img\">\n"
           "<title>%s</title>\n",
           WIDTH, height, WIDTH, height, map_title (title, m->geometry));
  fputs (style, f);
  fprintf (f, "<rect id=\"bg\" width=\"%u\" height=\"%u\" rx=\"8\"/>\n",
           WIDTH, height);
  put_title (f, m);
  put_cells (f, m, &l);
  put_legend (f, m, legend);
  fputs ("</svg>\n", f);

  failed = ferror (f);
  if (fclose (f) == EOF || failed) {
    cli_error ("out of memory");
    free (buf);
    return NULL;
  }
  return buf;
}
