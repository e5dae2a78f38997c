/* SPDX-License-Identifier: BSD-3-Clause */
/* A zoned disk driven by lines of text, for tests written in Python.
 *
 * It makes (or opens) a disk as its arguments say, prints one line about
 * it, then reads one operation per line and prints one line per operation.
 * A line with a single "." flushes the answers, so that a test can send
 * operations in batches and pays one round trip for each batch.
 *
 * Operations (sizes in bytes; a leading "-" sends one through a client
 * that may only read):
 *
 *   read OFF LEN           0, then what each granule holds
 *   write OFF LEN N [F]    granules get the numbers N, N+1, ...; F: flags
 *   append OFF LEN N [F]   0 and where the data went
 *   zero|trim OFF LEN [F]  cache OFF LEN          flush
 *   open|close|finish|reset OFF LEN     0 or an error, and the bytes done
 *   open-all|close-all|finish-all|reset-all
 *   report FIRST COUNT     condition:pointer:non-seq of each zone
 *   shape FIRST COUNT      type:start:length:capacity:reset of each zone
 *   table-write FIRST R... request bytes R to the records of zones
 *   table-all R            request byte R to the header
 *   table-read FIRST COUNT, table-shape FIRST COUNT     as report and
 *                          shape, decoded from the zone table
 *   table-header           the header's fields, decoded
 *   reopen                 closes the disk and opens the image again
 *
 * An answer is "0 ..." or an errno's name.  A refusal without a reason
 * gets " (no reason)" behind it, so that no test can overlook it.  With
 * --reasons the reason follows on a line of its own that begins with "#".
 *
 * The zone table is decoded here by offsets, not by zonelib's decoder.
 */

#include <config.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk.h"
#include "error.h"
#include "image.h"
#include "memory.h"
#include "size.h"
#include "store.h"
#include "table.h"
#include "znbd-types.h"

static struct store_geometry geometry = STORE_GEOMETRY_DEFAULT;
static struct zdisk_options options = ZDISK_OPTIONS_DEFAULT;
static const char *image;       /* its path; NULL: a disk in memory */
static bool print_reasons;

static struct zdisk *disk;
static struct zdisk_client *clients[2]; /* [1] may only read */
static uint32_t granularity, zones;

static void *buf;               /* grows to the largest request's size */
static size_t buf_size;
static void *table;             /* the same for the zone table */
static size_t table_alloc;

static void __attribute__ ((noreturn, format (printf, 1, 2)))
die (const char *fs, ...)
{
  va_list args;

  fflush (stdout);
  fprintf (stderr, "zones-driver: ");
  va_start (args, fs);
  vfprintf (stderr, fs, args);
  va_end (args);
  fprintf (stderr, "\n");
  exit (1);
}

static void *
grow (void *p, size_t *have, size_t want)
{
  if (want > *have) {
    p = realloc (p, want);
    if (p == NULL)
      die ("out of memory for %zu bytes", want);
    *have = want;
  }
  return p;
}

static const char *
errno_name (int error)
{
  static char other[32];

  switch (error) {
  case 0: return "0";
  case EPERM: return "EPERM";
  case EIO: return "EIO";
  case EINVAL: return "EINVAL";
  case ENOSPC: return "ENOSPC";
  case EOVERFLOW: return "EOVERFLOW";
  case ENOMEM: return "ENOMEM";
  case ENOTSUP: return "ENOTSUP";
  }
  snprintf (other, sizeof other, "errno-%d", error);
  return other;
}

/* A granule that holds the number n: its 64-bit words are n << 16 | place
 * of the word, or all zero for n = 0.
 */
static void
fill (uint64_t *p, uint64_t length, uint64_t n)
{
  const unsigned words = granularity / 8;
  uint64_t i;

  for (i = 0; i < length / 8; ++i)
    p[i] = (n + i / words) << 16 | i % words;
}

static void
print_granules (const uint64_t *p, uint64_t length)
{
  const unsigned words = granularity / 8;
  uint64_t g, n;
  unsigned i;

  for (g = 0; g < length / granularity; ++g, p += words) {
    n = p[0] >> 16;
    for (i = 0; i < words; ++i) {
      if (p[i] != (n ? n << 16 | i : 0)) {
        printf (" bad-word-%u-%016" PRIx64, i, p[i]);
        break;
      }
    }
    if (i == words)
      printf (" %" PRIu64, n);
  }
}

static void
print_error (int error, const char *reason)
{
  printf ("%s", errno_name (error));
  if (error && reason[0] == '\0')
    printf (" (no reason)");
  if (error && strchr (reason, '\n'))
    printf (" (reason of several lines)");
}

static void
end_answer (int error, const char *reason)
{
  printf ("\n");
  if (print_reasons && error)
    printf ("# %s\n", reason);
}

static void
print_report (const struct znbd_zone *z)
{
  printf (" %u:%" PRIu64 ":%u", z->cond, z->wp, z->non_seq);
}

static void
print_shape (const struct znbd_zone *z)
{
  printf (" %u:%" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%u",
          z->type, z->start, z->length, z->capacity, z->reset);
}

static void
report (uint32_t first, uint32_t count,
        void (*print) (const struct znbd_zone *))
{
  struct znbd_zone z[64];
  uint32_t i, n;

  printf ("0");
  while (count > 0) {
    n = zdisk_report (disk, first, count < 64 ? count : 64, z);
    if (n == 0)
      break;
    for (i = 0; i < n; ++i)
      print (&z[i]);
    first += n;
    count -= n;
  }
  printf ("\n");
}

static uint64_t
get_le (const uint8_t *p, unsigned bytes)
{
  uint64_t v = 0;

  while (bytes-- > 0)
    v = v << 8 | p[bytes];
  return v;
}

static void
table_zones (uint32_t first, uint32_t count,
             void (*print) (const struct znbd_zone *))
{
  char reason[200] = "";
  struct znbd_zone z = { 0 };
  const uint8_t *p;
  int error;

  if (first >= zones || count > zones - first)
    count = first < zones ? zones - first : 0;
  table = grow (table, &table_alloc, count * 64 + 64);
  error = count == 0 ? 0 :
    zdisk_table_read (disk, table, count * 64, 4096 + UINT64_C (64) * first,
                      reason, sizeof reason);
  print_error (error, reason);
  for (p = table; error == 0 && count > 0; --count, p += 64) {
    z.start = get_le (p, 8) * 512;
    z.length = get_le (p + 8, 8) * 512;
    z.wp = get_le (p + 16, 8) * 512;
    z.type = p[24];
    z.cond = p[25];
    z.non_seq = p[26];
    z.reset = p[27];
    z.capacity = get_le (p + 32, 8) * 512;
    print (&z);
    if (get_le (p + 28, 4) != 0 || get_le (p + 40, 8) != 0 ||
        get_le (p + 48, 8) != 0 || get_le (p + 56, 8) != 0)
      printf (" (reserved bytes not zero)");
  }
  end_answer (error, reason);
}

static void
table_header (void)
{
  char reason[200] = "";
  uint8_t h[4096];
  unsigned i;
  int error;

  error = zdisk_table_read (disk, h, sizeof h, 0, reason, sizeof reason);
  print_error (error, reason);
  if (error == 0) {
    printf (" %.8s", (char *) h);
    for (i = 8; i < 24; i += 4)
      printf (" %" PRIu64, get_le (h + i, 4));
    printf (" %" PRIu64 " %" PRIu64, get_le (h + 24, 8), get_le (h + 32, 8));
    for (i = 40; i < 60; i += 4)
      printf (" %" PRIu64, get_le (h + i, 4));
    printf (" %" PRIu64, get_le (h + 60, 4));
    for (i = 88; i < sizeof h && h[i] == 0; ++i)
      ;
    if (i < sizeof h)
      printf (" (byte %u is not zero)", i);
  }
  end_answer (error, reason);
}

/* requests: numbers in decimal, one for each record (or the header). */
static void
table_write (unsigned client, bool all, uint32_t first, char *requests)
{
  char reason[200] = "", *word, *save = NULL;
  uint32_t count = 0;
  int error;

  for (word = strtok_r (requests, " ", &save); word;
       word = strtok_r (NULL, " ", &save)) {
    table = grow (table, &table_alloc, (count + 1) * 64);
    /* All but the request byte is to be ignored. */
    memset ((uint8_t *) table + count * 64, 0xa5, 64);
    ((uint8_t *) table)[count * 64 + (all ? 60 : 28)] = atoi (word);
    count++;
  }
  error = zdisk_table_write (clients[client], table, count * 64,
                             all ? 0 : 4096 + UINT64_C (64) * first, false,
                             reason, sizeof reason);
  print_error (error, reason);
  end_answer (error, reason);
}

static void
run (unsigned client, const char *name, enum zdisk_op op, uint64_t offset,
     uint64_t length, uint64_t number, unsigned flags)
{
  struct zdisk_request req = {
    .op = op, .flags = flags, .offset = offset, .length = length,
  };
  int error;

  if (op == ZDISK_READ || op == ZDISK_WRITE || op == ZDISK_APPEND) {
    /* A length that no front-end lets through needs no buffer either. */
    if (length > (256u << 20))
      die ("%s of %" PRIu64 " bytes: more than this program takes",
           name, length);
    req.buf = buf = grow (buf, &buf_size, length + 4096);
    if (op == ZDISK_READ)
      memset (buf, 0xaa, length);
    else
      fill (buf, length, number);
  }

  error = zdisk_run (clients[client], &req);
  if (error != req.error)
    die ("%s: zdisk_run returned %d but the request's error is %d",
         name, error, req.error);
  print_error (error, req.reason);
  if (op == ZDISK_READ && error == 0)
    print_granules (buf, length);
  else if (op == ZDISK_APPEND && error == 0)
    printf (" %" PRIu64, req.result);
  else if (op >= ZDISK_OPEN && !(flags & ZDISK_ALL))
    printf (" %" PRIu64, req.result);
  end_answer (error, req.reason);
}

static void
open_disk (bool create)
{
  struct zone_error err;
  struct store *store;

  if (create && store_geometry_check (&geometry, &err) == -1)
    die ("%s", err.text);
  if (image) {
    if (create && image_create (image, &geometry, true, &err) == -1)
      die ("%s", err.text);
    store = image_open (image, false, &err);
  }
  else
    store = memory_new (&geometry, &err);
  if (store == NULL)
    die ("%s", err.text);
  disk = zdisk_new (store, &options, &err);
  if (disk == NULL)
    die ("%s", err.text);
  clients[0] = zdisk_client_new (disk, false);
  clients[1] = zdisk_client_new (disk, true);
  if (clients[0] == NULL || clients[1] == NULL)
    die ("out of memory for a client");
  granularity = zdisk_geometry (disk)->granularity;
  zones = zdisk_geometry (disk)->zones;
}

static void
close_disk (void)
{
  struct zone_error err;

  zdisk_client_close (clients[0]);
  zdisk_client_close (clients[1]);
  if (zdisk_close (disk, &err) == -1)
    die ("%s", err.text);
}

static const struct command {
  const char *name;
  enum zdisk_op op;
  bool number;                  /* has a number behind offset and length */
} commands[] = {
  { "read", ZDISK_READ, false },
  { "write", ZDISK_WRITE, true },
  { "zero", ZDISK_ZERO, false },
  { "trim", ZDISK_TRIM, false },
  { "cache", ZDISK_CACHE, false },
  { "flush", ZDISK_FLUSH, false },
  { "append", ZDISK_APPEND, true },
  { "open", ZDISK_OPEN, false },
  { "close", ZDISK_CLOSE, false },
  { "finish", ZDISK_FINISH, false },
  { "reset", ZDISK_RESET, false },
};
#define NR_COMMANDS (sizeof commands / sizeof commands[0])

/* Reads up to n numbers; those that are missing are 0. */
static void
numbers (const char *args, uint64_t *v, unsigned n)
{
  char *end;
  unsigned i;

  for (i = 0; i < n; ++i, args = end)
    v[i] = strtoull (args, &end, 0);
}

static void
command (char *line)
{
  const unsigned client = line[0] == '-';
  char *name = line + client;
  char *args = name + strcspn (name, " ");
  const struct command *c;
  size_t len;
  uint64_t v[4];

  if (*args)
    *args++ = '\0';
  numbers (args, v, 4);

  for (c = commands; c < commands + NR_COMMANDS; ++c) {
    len = strlen (c->name);
    if (strncmp (name, c->name, len) != 0)
      continue;
    if (name[len] == '\0') {
      if (c->number)
        run (client, name, c->op, v[0], v[1], v[2], v[3]);
      else
        run (client, name, c->op, v[0], v[1], 0, v[2]);
      return;
    }
    if (strcmp (name + len, "-all") == 0 && c->op >= ZDISK_OPEN) {
      run (client, name, c->op, 0, 0, 0, ZDISK_ALL);
      return;
    }
  }

  if (strcmp (name, "report") == 0)
    report (v[0], v[1], print_report);
  else if (strcmp (name, "shape") == 0)
    report (v[0], v[1], print_shape);
  else if (strcmp (name, "table-read") == 0)
    table_zones (v[0], v[1], print_report);
  else if (strcmp (name, "table-shape") == 0)
    table_zones (v[0], v[1], print_shape);
  else if (strcmp (name, "table-header") == 0)
    table_header ();
  else if (strcmp (name, "table-write") == 0)
    table_write (client, false, v[0], args + strcspn (args, " "));
  else if (strcmp (name, "table-all") == 0)
    table_write (client, true, 0, args);
  else if (strcmp (name, "reopen") == 0 && image) {
    close_disk ();
    open_disk (false);
    printf ("0\n");
  }
  else
    die ("unknown operation \"%s\"", name);
}

static uint64_t
size_option (const char *name, const char *value)
{
  const char *why;
  uint64_t bytes;

  if (size_parse (value, &bytes, &why) == -1)
    die ("--%s %s %s", name, value, why);
  return bytes;
}

int
main (int argc, char *argv[])
{
  enum {
    SIZE = 256, ZONE_SIZE, ZONE_CAPACITY, CONVENTIONAL, MAX_OPEN, MAX_ACTIVE,
    GRANULARITY, MODEL, READONLY_ZONES, OFFLINE_ZONES, IMAGE, KEEP,
    REORDER_TIMEOUT, REASONS,
  };
  static const struct option long_options[] = {
    { "size", required_argument, NULL, SIZE },
    { "zone-size", required_argument, NULL, ZONE_SIZE },
    { "zone-capacity", required_argument, NULL, ZONE_CAPACITY },
    { "conventional", required_argument, NULL, CONVENTIONAL },
    { "max-open", required_argument, NULL, MAX_OPEN },
    { "max-active", required_argument, NULL, MAX_ACTIVE },
    { "granularity", required_argument, NULL, GRANULARITY },
    { "model", required_argument, NULL, MODEL },
    { "readonly-zones", required_argument, NULL, READONLY_ZONES },
    { "offline-zones", required_argument, NULL, OFFLINE_ZONES },
    { "image", required_argument, NULL, IMAGE },        /* made anew */
    { "keep", no_argument, NULL, KEEP },                /* opened as it is */
    { "reorder-timeout", required_argument, NULL, REORDER_TIMEOUT }, /* ms */
    { "reasons", no_argument, NULL, REASONS },
    { NULL, 0, NULL, 0 },
  };
  const struct znbd_geometry *g;
  bool keep = false;
  char *line = NULL;
  size_t line_size = 0;
  ssize_t len;
  int c, i;

  while ((c = getopt_long (argc, argv, "", long_options, &i)) != -1) {
    if (c == '?')
      exit (1);
    const char *name = long_options[i].name;

    switch (c) {
    case SIZE: geometry.size = size_option (name, optarg); break;
    case ZONE_SIZE: geometry.zone_size = size_option (name, optarg); break;
    case ZONE_CAPACITY:
      geometry.zone_capacity = size_option (name, optarg);
      break;
    case CONVENTIONAL:
      geometry.conventional = size_option (name, optarg);
      break;
    case MAX_OPEN: geometry.max_open = size_option (name, optarg); break;
    case MAX_ACTIVE: geometry.max_active = size_option (name, optarg); break;
    case GRANULARITY: geometry.granularity = size_option (name, optarg); break;
    case MODEL:
      if (strcmp (optarg, "host-managed") == 0)
        geometry.model = ZNBD_MODEL_HOST_MANAGED;
      else if (strcmp (optarg, "host-aware") == 0)
        geometry.model = ZNBD_MODEL_HOST_AWARE;
      else
        die ("--model %s: use host-managed or host-aware", optarg);
      break;
    case READONLY_ZONES: geometry.readonly_zones = optarg; break;
    case OFFLINE_ZONES: geometry.offline_zones = optarg; break;
    case IMAGE: image = optarg; break;
    case KEEP: keep = true; break;
    case REORDER_TIMEOUT:
      options.reorder_timeout = size_option (name, optarg);
      break;
    case REASONS: print_reasons = true; break;
    }
  }
  if (optind != argc)
    die ("unexpected argument \"%s\"", argv[optind]);
  if (keep && !image)
    die ("--keep needs --image");

  setvbuf (stdin, NULL, _IOFBF, 64 << 10);
  setvbuf (stdout, NULL, _IOFBF, 64 << 10);

  open_disk (!keep);
  g = zdisk_geometry (disk);
  printf ("size=%" PRIu64 " zone-size=%" PRIu64 " zone-capacity=%" PRIu64
          " zones=%u conventional=%u max-open=%u max-active=%u"
          " max-append=%u granularity=%u model=%u\n",
          g->size, g->zone_size, g->zone_capacity, g->zones,
          g->conventional, g->max_open, g->max_active, g->max_append,
          g->granularity, g->model);
  fflush (stdout);

  while ((len = getline (&line, &line_size, stdin)) != -1) {
    if (len > 0 && line[len - 1] == '\n')
      line[len - 1] = '\0';
    if (strcmp (line, ".") == 0)
      fflush (stdout);
    else
      command (line);
  }
  close_disk ();
  free (line);
  free (buf);
  free (table);
  exit (EXIT_SUCCESS);
}
