/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd report: one zone a line, for people, or JSON.
 *
 * Disks have up to millions of zones and this is what monitoring runs:
 * zones are fetched, written and forgotten in blocks, and lines are put
 * together by hand because printf is most of the time otherwise.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "show.h"
#include "size.h"
#include "target.h"

static const char help[] =
  "znbd report [--offset S] [--count N] [--json] [--verbose] IMAGE|URI\n"
  "\n"
  "Shows a disk's zones, one a line: number, type, condition, start, length,\n"
  "capacity and write pointer, in bytes.\n"
  "\n"
  "  --offset S   begin with the zone that holds this byte (0)\n"
  "  --count N    show at most so many zones\n"
  "  --json       as JSON\n"
  "  --verbose   say which way they were asked for\n"
  "  --help\n";

enum { OPT_OFFSET = 256, OPT_COUNT, OPT_JSON, OPT_VERBOSE };

static const struct option options[] = {
  { "offset", required_argument, NULL, OPT_OFFSET },
  { "count", required_argument, NULL, OPT_COUNT },
  { "json", no_argument, NULL, OPT_JSON },
  { "verbose", no_argument, NULL, OPT_VERBOSE },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

/* Zones fetched at once. */
#define BLOCK 16384u

/* A line that is being put together.  No line comes near its end: names
 * are short and a number has at most 20 digits. */
struct line {
  char *p;
  char buf[512];
};

static inline void
put (struct line *l, const char *str)
{
  size_t n = strlen (str);

  memcpy (l->p, str, n);
  l->p += n;
}

/* A string, padded to the right. */
static inline void
put_padded (struct line *l, const char *str, size_t width)
{
  size_t n = strlen (str);

  put (l, str);
  for (; n < width; ++n)
    *l->p++ = ' ';
}

/* A number, padded to the left. */
static inline void
put_number (struct line *l, uint64_t number, size_t width)
{
  char digits[20];
  size_t n = 0;

  do
    digits[n++] = '0' + number % 10;
  while ((number /= 10) != 0);
  for (; width > n; --width)
    *l->p++ = ' ';
  while (n > 0)
    *l->p++ = digits[--n];
}

static size_t
count_digits (uint64_t number)
{
  size_t n = 1;

  while ((number /= 10) != 0)
    n++;
  return n;
}

static void
text_begin (const struct znbd_geometry *g)
{
  char size[SIZE_TEXT_MAX], zone_size[SIZE_TEXT_MAX];

  printf ("# %s, %s in %" PRIu32 " zones of %s; start, len, cap and wp are "
          "in bytes\n", znbd_model_name (g->model), size_text (size, g->size),
          g->zones, size_text (zone_size, g->zone_size));
}

static void
text_zone (struct line *l, const struct znbd_geometry *g, uint32_t number,
           const struct znbd_zone *z)
{
  const size_t offset_width = count_digits (g->size);
  const size_t length_width = count_digits (g->zone_size);

  put (l, "zone ");
  put_number (l, number, count_digits (g->zones - 1));
  put (l, "  ");
  put_padded (l, znbd_type_name (z->type),
              z->type == ZNBD_ZONE_CONVENTIONAL && g->conventional == g->zones
              ? 0 : strlen ("seq-write-required"));
  put (l, "  ");
  put_padded (l, znbd_cond_name (z->cond), strlen ("implicit-open"));
  put (l, "  start ");
  put_number (l, z->start, offset_width);
  put (l, "  len ");
  put_number (l, z->length, length_width);
  put (l, "  cap ");
  put_number (l, z->capacity, length_width);
  put (l, "  wp ");
  if (z->type == ZNBD_ZONE_CONVENTIONAL || z->cond == ZNBD_COND_OFFLINE) {
    for (size_t i = 1; i < offset_width; ++i)
      put (l, " ");
    put (l, "-");
  }
  else
    put_number (l, z->wp, offset_width);
  if (z->reset)
    put (l, "  reset-recommended");
  if (z->non_seq)
    put (l, "  non-seq");
}

static void
json_zone (struct line *l, uint32_t number, const struct znbd_zone *z)
{
  put (l, "    { \"index\": ");
  put_number (l, number, 0);
  put (l, ", \"start\": ");
  put_number (l, z->start, 0);
  put (l, ", \"length\": ");
  put_number (l, z->length, 0);
  put (l, ", \"capacity\": ");
  put_number (l, z->capacity, 0);
  put (l, ", \"wp\": ");
  put_number (l, z->wp, 0);
  put (l, ", \"type\": \"");
  put (l, znbd_type_name (z->type));
  put (l, "\", \"cond\": \"");
  put (l, znbd_cond_name (z->cond));
  put (l, "\", \"reset\": ");
  put (l, z->reset ? "true" : "false");
  put (l, ", \"non_seq\": ");
  put (l, z->non_seq ? "true" : "false");
  put (l, " }");
}

/* Shows zones first to end - 1.  Ends early, with -1, where the output
 * cannot be written any more; cli_finish says so. */
static int
show (struct target *t, uint32_t first, uint32_t end, bool json)
{
  const struct znbd_geometry *g = target_geometry (t);
  struct znbd_zone *zones = malloc (BLOCK * sizeof *zones);
  uint32_t number = first;
  struct line l;
  int64_t n, i;

  if (zones == NULL) {
    cli_error ("out of memory");
    return -1;
  }
  if (json) {
    printf ("{\n  \"geometry\": {\n");
    show_json_geometry ("    ", g);
    printf ("\n  },\n  \"zones\": [\n");
  }
  else
    text_begin (g);

  while (number < end) {
    n = target_report (t, number, end - number < BLOCK ? end - number : BLOCK,
                       zones);
    if (n <= 0)
      goto failed;
    for (i = 0; i < n; ++i, ++number) {
      l.p = l.buf;
      if (json) {
        json_zone (&l, number, &zones[i]);
        if (number + 1 < end)
          *l.p++ = ',';
      }
      else
        text_zone (&l, g, number, &zones[i]);
      *l.p++ = '\n';
      if (cli_write (l.buf, l.p - l.buf) == -1)
        goto failed;
    }
  }
  free (zones);
  if (json)
    printf ("  ]\n}\n");
  return 0;

 failed:
  free (zones);
  return -1;
}

int
cmd_report (int argc, char **argv)
{
  uint64_t offset = 0, count = UINT32_MAX;
  const struct znbd_geometry *g;
  uint32_t first, end;
  struct target *t;
  const char *operand;
  bool json = false, verbose = false;
  int c, r;

  while ((c = cli_option (argc, argv, options, help)) != -1) {
    if (c == CLI_HELP)
      return EXIT_SUCCESS;
    if (c == CLI_BAD ||
        (c == OPT_OFFSET && cli_size ("--offset", optarg, &offset) == -1) ||
        (c == OPT_COUNT && cli_number ("--count", optarg, &count) == -1))
      return EXIT_FAILURE;
    if (c == OPT_JSON)
      json = true;
    if (c == OPT_VERBOSE)
      verbose = true;
  }
  if (count == 0) {
    cli_error ("--count must not be 0");
    return EXIT_FAILURE;
  }
  operand = cli_operand (argc, argv, "IMAGE or URI");
  if (operand == NULL)
    return EXIT_FAILURE;
  t = target_open (operand, true);
  if (t == NULL)
    return EXIT_FAILURE;
  if (verbose)
    target_set_verbose (t);

  g = target_geometry (t);
  if (offset >= g->size) {
    cli_error ("--offset %" PRIu64 " is not below the disk's size %" PRIu64,
               offset, g->size);
    r = -1;
  }
  else {
    first = offset / g->zone_size;
    end = count < g->zones - first ? first + count : g->zones;
    r = show (t, first, end, json);
  }
  if (target_close (t) == -1)
    r = -1;
  return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
