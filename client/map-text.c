/* SPDX-License-Identifier: BSD-3-Clause */
/* See map-text.h.
 *
 * A cell is a letter, which tells the condition without colours, and its
 * fill: a bar where the cell is wide, else one character that grows (eighths
 * of a block; digits in ASCII).  With colours a cell is a tile of a dark
 * shade on which letter and fill are bright, so that it reads the same on
 * dark and light terminals.
 */

#include <config.h>

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "map-text.h"

/* Of the 256 colours.  Chosen after Okabe and Ito's palette, whose colours
 * people of every colour vision tell apart. */
#define SOLID MAP_KINDS         /* a cell that is full */
static const struct shade {
  uint8_t bright, dark;         /* foreground, background */
} shades[MAP_KINDS + 1] = {
  [MAP_EMPTY] = { 243, 235 },           /* grey */
  [MAP_IMPLICIT] = { 36, 22 },          /* bluish green */
  [MAP_EXPLICIT] = { 227, 58 },         /* yellow */
  [MAP_CLOSED] = { 214, 94 },           /* orange */
  [MAP_FULL] = { 39, 18 },              /* blue */
  [MAP_READ_ONLY] = { 183, 54 },        /* purple */
  [MAP_OFFLINE] = { 231, 160 },         /* white on red */
  [MAP_CONVENTIONAL] = { 250, 239 },    /* light grey */
  [SOLID] = { 17, 39 },
};

/* ---- output ---------------------------------------------------------- */

struct out {
  const struct map_screen *screen;
  bool failed;
  int shade;                    /* whose colours are on, -1: none */
  unsigned column;
  unsigned blanks;              /* not written: the line may end here */
};

static void
write_out (struct out *o, const char *str)
{
  if (!o->failed && cli_write (str, strlen (str)) == -1)
    o->failed = true;
}

static void
put (struct out *o, const char *str, unsigned columns)
{
  o->column += columns;
  if (o->shade == -1 && strcmp (str, " ") == 0) {
    o->blanks++;
    return;
  }
  for (; o->blanks > 0; --o->blanks)
    write_out (o, " ");
  write_out (o, str);
}

static void
put_ascii (struct out *o, const char *str)
{
  put (o, str, strlen (str));
}

/* These colours from here on; -1: the terminal's own. */
static void
set_shade (struct out *o, int shade)
{
  char buf[40];

  if (!o->screen->color || o->shade == shade)
    return;
  if (shade == -1)
    write_out (o, "\033[0m");
  else {
    snprintf (buf, sizeof buf, "\033[38;5;%u;48;5;%um", shades[shade].bright,
              shades[shade].dark);
    put (o, buf, 0);
  }
  o->shade = shade;
}

static void
newline (struct out *o)
{
  set_shade (o, -1);
  write_out (o, "\n");
  o->column = o->blanks = 0;
}

/* ---- cells ----------------------------------------------------------- */

/* Fill of one column, of 0 to 8 eighths, that grows upwards or to the
 * right. */
static const char *
eighths (int n, bool upwards)
{
  static const char *const up[] = {
    " ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"
  };
  static const char *const right[] = {
    " ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"
  };

  return upwards ? up[n] : right[n];
}

/* The fill in one column: nothing, growing, all. */
static void
put_level (struct out *o, const struct map_fill *fill)
{
  const int tenths = map_fill_steps (fill, 10);
  char digit[2] = "";

  if (o->screen->utf8)
    put (o, eighths (map_fill_steps (fill, 8), true), 1);
  else if (tenths == 0)
    put (o, " ", 1);
  else if (tenths == 10)
    put (o, "#", 1);
  else {
    digit[0] = '0' + tenths;
    put (o, digit, 1);
  }
}

/* The fill in a bar of several columns. */
static void
put_bar (struct out *o, const struct map_fill *fill, unsigned width)
{
  const int parts = o->screen->utf8 ? 8 : 1;
  const int n = map_fill_steps (fill, width * parts);
  unsigned i;

  for (i = 0; i < width; ++i) {
    int part = n - (int) i * parts;

    if (part < 0)
      part = 0;
    if (o->screen->utf8)
      /* Without a tile's shade the bar's end would not be seen. */
      put (o, part == 0 && !o->screen->color ? "░" :
           eighths (part < 8 ? part : 8, false), 1);
    else
      put (o, part ? "#" : ".", 1);
  }
}

/* What has no fill. */
static void
put_pattern (struct out *o, enum map_kind kind, unsigned width)
{
  unsigned i;

  for (i = 0; i < width; ++i)
    if (kind == MAP_OFFLINE)
      put (o, o->screen->utf8 ? "╳" : "x", 1);
    else
      put (o, o->screen->utf8 ? "▒" : ":", 1);
}

static void
put_letter (struct out *o, enum map_kind kind, bool all)
{
  const char letter[2] = { map_kind_letter (kind, all), '\0' };

  /* Empty zones are many and what others are to stand out from. */
  if (kind == MAP_EMPTY && all)
    put (o, o->screen->utf8 ? "·" : ".", 1);
  else
    put (o, letter, 1);
}

static void
put_cell (struct out *o, const struct map_cell *cell, unsigned width)
{
  bool all;
  const enum map_kind kind = map_cell_kind (cell, &all);
  const bool solid = o->screen->color && kind == MAP_FULL && all;

  set_shade (o, solid ? SOLID : kind);
  put_letter (o, kind, all);
  if (width > 2)
    width--;                    /* a gap behind it */
  if (solid)
    for (; width > 1; --width)
      put (o, " ", 1);
  else if (cell->fill.capacity == 0)
    put_pattern (o, kind, width - 1);
  else if (width == 2)
    put_level (o, &cell->fill);
  else
    put_bar (o, &cell->fill, width - 1);
}

static void
put_cells (struct out *o, const struct map *m, const struct map_layout *l)
{
  char label[16];
  uint32_t i;

  for (i = 0; i < m->nr_cells; ++i) {
    if (i % l->per_row == 0 && l->label) {
      snprintf (label, sizeof label, "%*" PRIu32 "  ", (int) l->label - 2,
                m->cells[i].first);
      put_ascii (o, label);
    }
    put_cell (o, &m->cells[i], l->cell);
    if (i + 1 == m->nr_cells || (i + 1) % l->per_row == 0)
      newline (o);
    else if (l->cell > 2) {
      set_shade (o, -1);
      put_ascii (o, " ");
    }
  }
}

/* ---- words below and above ------------------------------------------- */

/* Writes words, ASCII with blanks between, and begins a new line where one
 * would not fit. */
static void
put_words (struct out *o, const char *words)
{
  size_t n;
  char word[MAP_TEXT_MAX];

  while (*words) {
    n = strcspn (words, " ");
    snprintf (word, sizeof word, "%.*s", (int) n, words);
    if (o->column > 0) {
      if (o->column + 1 + n > o->screen->width)
        newline (o);
      else
        put_ascii (o, " ");
    }
    put_ascii (o, word);
    words += n + strspn (words + n, " ");
  }
}

/* Begins an item of so many columns: on this line if it fits, behind a
 * gap. */
static void
begin_item (struct out *o, size_t columns)
{
  if (o->column == 0)
    return;
  if (o->column + 3 + columns > o->screen->width)
    newline (o);
  else
    put_ascii (o, "  ");        /* and the blank before the next word */
}

static void
put_item (struct out *o, const char *fs, ...)
  __attribute__ ((format (printf, 2, 3)));

static void
put_item (struct out *o, const char *fs, ...)
{
  char text[MAP_TEXT_MAX];
  va_list args;

  va_start (args, fs);
  vsnprintf (text, sizeof text, fs, args);
  va_end (args);
  begin_item (o, strlen (text));
  put_words (o, text);
}

static void
put_legend (struct out *o, const struct map *m)
{
  char text[64];
  unsigned kind;

  for (kind = 0; kind < MAP_KINDS; ++kind) {
    if (m->kinds[kind] == 0)
      continue;
    snprintf (text, sizeof text, "%s %" PRIu32, map_kind_name (kind),
              m->kinds[kind]);
    begin_item (o, 2 + strlen (text));
    if (o->column > 0)
      put_ascii (o, " ");
    set_shade (o, kind == MAP_FULL ? SOLID : (int) kind);
    put_letter (o, kind, true);
    set_shade (o, -1);
    put_words (o, text);
  }
  newline (o);
}

static void
put_limit (struct out *o, const char *what, uint32_t now, uint32_t limit)
{
  if (limit == 0)
    put_item (o, "%" PRIu32 " %s, no limit", now, what);
  else
    put_item (o, "%" PRIu32 " %s of %" PRIu32, now, what, limit);
}

static void
put_counts (struct out *o, const struct map *m)
{
  char written[MAP_BYTES_MAX], capacity[MAP_BYTES_MAX];

  if (m->fill.capacity > 0) {
    put_item (o, "written %s of %s (%d%%)",
              map_bytes (written, m->fill.written),
              map_bytes (capacity, m->fill.capacity),
              map_percent (&m->fill));
    put_limit (o, "open", map_open_zones (m), m->geometry->max_open);
    put_limit (o, "active", map_active_zones (m), m->geometry->max_active);
    newline (o);
  }
  if (m->zones_per_cell > 1) {
    put_words (o, "small letters: not all zones of the cell; fill: their "
               "average");
    newline (o);
  }
}

int
map_text (const struct map *m, const struct map_screen *screen,
          const struct map_layout *layout)
{
  struct out o = { .screen = screen, .shade = -1 };
  char title[MAP_TEXT_MAX], each[64];

  map_title (title, m->geometry);
  put_words (&o, title);
  if (m->zones_per_cell > 1) {
    snprintf (each, sizeof each, "; %" PRIu32 " zones a cell",
              m->zones_per_cell);
    put (&o, ";", 1);
    put_words (&o, each + 2);
  }
  newline (&o);
  newline (&o);
  put_cells (&o, m, layout);
  newline (&o);
  put_legend (&o, m);
  put_counts (&o, m);
  return o.failed ? -1 : 0;
}

/* ---- layout ---------------------------------------------------------- */

static unsigned
count_digits (uint32_t number)
{
  unsigned n = 1;

  while ((number /= 10) != 0)
    n++;
  return n;
}

struct map_layout
map_text_layout (const struct map_screen *screen, uint32_t zones)
{
  static const uint8_t widths[] = { 12, 10, 8, 6, 5, 4, 3, 2 };
  struct map_layout l = { .zones_per_cell = 1 };
  unsigned columns, rows, i;
  int one_row;

  /* A narrow terminal's columns are for the cells. */
  if (screen->width >= 40)
    l.label = count_digits (zones - 1) + 2;
  columns = screen->width - l.label;

  /* Wide cells as long as they leave the picture small: best one row. */
  for (one_row = 1; one_row >= 0; --one_row)
    for (i = 0; i < sizeof widths; ++i) {
      l.cell = widths[i];
      l.per_row = (columns + (l.cell > 2)) / l.cell;
      if (l.per_row > 10)
        l.per_row -= l.per_row % 5;
      rows = l.per_row ? (zones - 1) / l.per_row + 1 : UINT_MAX;
      if (one_row ? rows == 1 && l.cell >= 6 :
          rows <= (l.cell > 2 ? (screen->rows + 1) / 2 : screen->rows))
        return l;
    }
  l.zones_per_cell = map_zones_per_cell (zones, l.per_row * screen->rows);
  return l;
}
