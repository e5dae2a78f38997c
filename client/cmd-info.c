/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd info: a disk's geometry and limits, and how many of its zones are
 * in which condition: what to look at first when a limit is met.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "show.h"
#include "size.h"
#include "target.h"

static const char help[] =
  "znbd info [--json] [--verbose] IMAGE|URI\n"
  "\n"
  "Shows a disk's geometry and limits.\n"
  "\n"
  "  --json    as a JSON object; sizes in bytes\n"
  "  --verbose say which way the zones were asked for\n"
  "  --help\n";

enum { OPT_JSON = 256, OPT_VERBOSE };

static const struct option options[] = {
  { "json", no_argument, NULL, OPT_JSON },
  { "verbose", no_argument, NULL, OPT_VERBOSE },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

/* In the order in which they are shown. */
static const uint8_t conds[] = {
  ZNBD_COND_NOT_WP, ZNBD_COND_EMPTY, ZNBD_COND_IMPLICIT_OPEN,
  ZNBD_COND_EXPLICIT_OPEN, ZNBD_COND_CLOSED, ZNBD_COND_FULL,
  ZNBD_COND_READ_ONLY, ZNBD_COND_OFFLINE,
};

#define NR_CONDS (sizeof conds)

struct summary {
  uint32_t cond[16];            /* zones in each condition */
  uint32_t sequential;
  uint64_t capacity;            /* of all sequential zones of full length,
                                 * 0: they differ, or there are none */
};

/* Sums up the whole report. */
static int
summarize (struct target *t, struct summary *s)
{
  const struct znbd_geometry *g = target_geometry (t);
  const uint32_t max = 4096;
  struct znbd_zone *zones = malloc (max * sizeof *zones);
  bool differ = false;
  uint32_t first = 0;
  int64_t n, i;

  if (zones == NULL) {
    cli_error ("out of memory");
    return -1;
  }
  memset (s, 0, sizeof *s);
  while ((n = target_report (t, first, max, zones)) > 0) {
    for (i = 0; i < n; ++i) {
      const struct znbd_zone *z = &zones[i];

      s->cond[z->cond & 15]++;
      if (z->type == ZNBD_ZONE_CONVENTIONAL)
        continue;
      s->sequential++;
      if (z->length != g->zone_size)
        continue;
      if (s->capacity == 0)
        s->capacity = z->capacity;
      else if (s->capacity != z->capacity)
        differ = true;
    }
    first += n;
  }
  free (zones);
  if (differ)
    s->capacity = 0;
  return n == -1 ? -1 : 0;
}

static uint32_t
count_open (const struct summary *s)
{
  return s->cond[ZNBD_COND_IMPLICIT_OPEN] + s->cond[ZNBD_COND_EXPLICIT_OPEN];
}

static void
print_bytes (const char *what, uint64_t bytes, const char *zero)
{
  char text[SIZE_TEXT_MAX];

  printf ("%-16s", what);
  if (bytes == 0)
    printf ("%s\n", zero);
  else if (bytes % 1024 != 0)
    printf ("%" PRIu64 "\n", bytes);
  else
    printf ("%" PRIu64 " (%s)\n", bytes, size_text (text, bytes));
}

static void
print_limit (const char *what, uint32_t limit, uint32_t now)
{
  printf ("%-16s", what);
  if (limit == 0)
    printf ("no limit, %" PRIu32 " now\n", now);
  else
    printf ("%" PRIu32 ", %" PRIu32 " now\n", limit, now);
}

static void
print_text (const char *operand, const struct target *t,
            const struct summary *s)
{
  const struct znbd_geometry *g = target_geometry (t);
  const char *comma = "";
  char uuid[SHOW_UUID_SIZE];
  size_t i;

  printf ("disk:           %s\n", operand);
  printf ("model:          %s\n", znbd_model_name (g->model));
  print_bytes ("size:", g->size, "0");
  printf ("zones:          %" PRIu32 "\n", g->zones);
  print_bytes ("zone size:", g->zone_size, "0");
  print_bytes ("zone capacity:", s->capacity,
               s->sequential ? "differs" : "no sequential zones");
  printf ("conventional:   %" PRIu32 "\n", g->conventional);
  print_limit ("max open:", g->max_open, count_open (s));
  print_limit ("max active:", g->max_active,
               count_open (s) + s->cond[ZNBD_COND_CLOSED]);
  print_bytes ("max append:", g->max_append, "no appends");
  print_bytes ("block size:", g->granularity, "0");
  printf ("uuid:           %s\n", show_uuid (uuid, g->uuid));
  printf ("epoch:          %" PRIu64 "\n", g->epoch);
  printf ("read-only:      %s\n", target_is_read_only (t) ? "yes" : "no");
  printf ("conditions:     ");
  for (i = 0; i < NR_CONDS; ++i)
    if (s->cond[conds[i]]) {
      printf ("%s%" PRIu32 " %s", comma, s->cond[conds[i]],
              znbd_cond_name (conds[i]));
      comma = ", ";
    }
  putchar ('\n');
}

static void
print_json (const char *operand, const struct target *t,
            const struct summary *s)
{
  const char *comma = "";
  size_t i;

  printf ("{\n  \"disk\": ");
  show_json_string (operand);
  printf (",\n");
  show_json_geometry ("  ", target_geometry (t));
  printf (",\n  \"zone_capacity\": %" PRIu64, s->capacity);
  printf (",\n  \"read_only\": %s",
          target_is_read_only (t) ? "true" : "false");
  printf (",\n  \"open\": %" PRIu32, count_open (s));
  printf (",\n  \"active\": %" PRIu32,
          count_open (s) + s->cond[ZNBD_COND_CLOSED]);
  printf (",\n  \"conditions\": {");
  for (i = 0; i < NR_CONDS; ++i) {
    printf ("%s\n    \"%s\": %" PRIu32, comma, znbd_cond_name (conds[i]),
            s->cond[conds[i]]);
    comma = ",";
  }
  printf ("\n  }\n}\n");
}

int
cmd_info (int argc, char **argv)
{
  struct summary summary;
  struct target *t;
  const char *operand;
  bool json = false, verbose = false;
  int c, r;

  while ((c = cli_option (argc, argv, options, help)) != -1) {
    if (c == CLI_HELP)
      return EXIT_SUCCESS;
    if (c == CLI_BAD)
      return EXIT_FAILURE;
    if (c == OPT_JSON)
      json = true;
    if (c == OPT_VERBOSE)
      verbose = true;
  }
  operand = cli_operand (argc, argv, "IMAGE or URI");
  if (operand == NULL)
    return EXIT_FAILURE;
  t = target_open (operand, true);
  if (t == NULL)
    return EXIT_FAILURE;
  if (verbose)
    target_set_verbose (t);

  r = summarize (t, &summary);
  if (r == 0 && json)
    print_json (operand, t, &summary);
  else if (r == 0)
    print_text (operand, t, &summary);
  if (target_close (t) == -1)
    r = -1;
  return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
