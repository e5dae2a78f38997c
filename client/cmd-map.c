/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd map: a disk's zones as a picture, in the terminal or as SVG.
 *
 * map-cells.c sums zones up, map-text.c and map-svg.c draw.
 */

#include <config.h>

#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli.h"
#include "map-cells.h"
#include "map-save.h"
#include "map-svg.h"
#include "map-text.h"
#include "target.h"

static const char help[] =
  "znbd map [--color auto|always|never] [--width N] [--svg FILE] IMAGE|URI\n"
  "\n"
  "Draws a disk's zones: each one's condition and how full it is.  Where\n"
  "there are more zones than room, a cell stands for several.\n"
  "\n"
  "  --color WHEN  colours: on terminals (auto, the default; not where\n"
  "                NO_COLOR is set), always or never\n"
  "  --width N     columns (those of the terminal, else 80)\n"
  "  --svg FILE    write an SVG picture instead; -: to standard output\n"
  "  --help\n";

enum { OPT_COLOR = 256, OPT_WIDTH, OPT_SVG };

static const struct option options[] = {
  { "color", required_argument, NULL, OPT_COLOR },
  { "width", required_argument, NULL, OPT_WIDTH },
  { "svg", required_argument, NULL, OPT_SVG },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

#define WIDTH_MIN 20
#define WIDTH_MAX 1000
#define WIDTH_DEFAULT 80

/* Rows of cells where the height is unknown; what else stands on the screen;
 * and the rows that are taken in any case. */
#define ROWS_DEFAULT 16
#define ROWS_OTHER 8
#define ROWS_MIN 4

enum when { AUTO, ALWAYS, NEVER };

static int
parse_when (const char *arg, enum when *when)
{
  if (strcmp (arg, "auto") == 0)
    *when = AUTO;
  else if (strcmp (arg, "always") == 0)
    *when = ALWAYS;
  else if (strcmp (arg, "never") == 0)
    *when = NEVER;
  else {
    cli_error ("--color %s is neither auto, always nor never",
               *arg ? arg : "''");
    return -1;
  }
  return 0;
}

static int
parse_width (const char *arg, unsigned *width)
{
  uint64_t number;

  if (cli_number ("--width", arg, &number) == -1)
    return -1;
  if (number < WIDTH_MIN || number > WIDTH_MAX) {
    cli_error ("--width %s is not between %d and %d", arg, WIDTH_MIN,
               WIDTH_MAX);
    return -1;
  }
  *width = number;
  return 0;
}

/* What standard output is, with width unless that is 0. */
static struct map_screen
find_screen (enum when color, unsigned width)
{
  const char *no_color = getenv ("NO_COLOR"), *term = getenv ("TERM");
  struct map_screen s = { .width = WIDTH_DEFAULT, .rows = ROWS_DEFAULT };
  struct winsize size;

  if (isatty (STDOUT_FILENO)) {
    s.color = (no_color == NULL || *no_color == '\0') && term != NULL &&
              strcmp (term, "dumb") != 0;
    if (ioctl (STDOUT_FILENO, TIOCGWINSZ, &size) == 0) {
      if (size.ws_col > 0)
        s.width = size.ws_col < WIDTH_MAX ? size.ws_col : WIDTH_MAX;
      if (size.ws_row > 0)
        s.rows = size.ws_row > ROWS_OTHER + ROWS_MIN
                 ? size.ws_row - ROWS_OTHER : ROWS_MIN;
    }
  }
  if (color != AUTO)
    s.color = color == ALWAYS;
  if (width != 0)
    s.width = width;
  if (s.width < 2)
    s.width = 2;
  s.utf8 = setlocale (LC_CTYPE, "") != NULL &&
           strcmp (nl_langinfo (CODESET), "UTF-8") == 0;
  return s;
}

static int
draw_text (struct target *t, const struct map_screen *screen)
{
  const struct map_layout layout =
    map_text_layout (screen, target_geometry (t)->zones);
  struct map *m = map_read (t, layout.zones_per_cell);
  int r;

  if (m == NULL)
    return -1;
  r = map_text (m, screen, &layout);
  free (m);
  return r;
}

static int
draw_svg (struct target *t, const char *file)
{
  struct map *m;
  size_t length;
  char *buf;
  int r;

  m = map_read (t, map_svg_zones_per_cell (target_geometry (t)->zones));
  if (m == NULL)
    return -1;
  buf = map_svg (m, &length);
  free (m);
  if (buf == NULL)
    return -1;
  r = strcmp (file, "-") == 0 ? cli_write (buf, length)
      : map_save (file, buf, length);
  free (buf);
  return r;
}

int
cmd_map (int argc, char **argv)
{
  enum when color = AUTO;
  unsigned width = 0;
  const char *svg = NULL, *text_option = NULL, *operand;
  struct map_screen screen;
  struct target *t;
  int c, r;

  while ((c = cli_option (argc, argv, options, help)) != -1)
    switch (c) {
    case OPT_COLOR:
      text_option = "--color";
      if (parse_when (optarg, &color) == -1)
        return EXIT_FAILURE;
      break;
    case OPT_WIDTH:
      text_option = "--width";
      if (parse_width (optarg, &width) == -1)
        return EXIT_FAILURE;
      break;
    case OPT_SVG:
      svg = optarg;
      if (*svg == '\0') {
        cli_error ("--svg '' is no file");
        return EXIT_FAILURE;
      }
      break;
    default:
      return c == CLI_HELP ? EXIT_SUCCESS : EXIT_FAILURE;
    }
  if (svg && text_option) {
    cli_error ("%s says nothing about a picture: leave it or --svg out",
               text_option);
    return EXIT_FAILURE;
  }
  operand = cli_operand (argc, argv, "IMAGE or URI");
  if (operand == NULL)
    return EXIT_FAILURE;
  t = target_open (operand, true);
  if (t == NULL)
    return EXIT_FAILURE;

  if (svg)
    r = draw_svg (t, svg);
  else {
    screen = find_screen (color, width);
    r = draw_text (t, &screen);
  }
  if (target_close (t) == -1)
    r = -1;
  return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
