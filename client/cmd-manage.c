/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd open, close, finish and reset: which zones, and to work. */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "size.h"
#include "target.h"

static const char help[] =
  "znbd open|close|finish|reset WHICH [--verbose] IMAGE|URI\n"
  "\n"
  "Manages zones.  The first zone that refuses ends it; zones before it "
  "stay\n"
  "done.  A reset discards a zone's data.\n"
  "\n"
  "  --zone LIST            zones by number, like 3 or 0-7,12\n"
  "  --offset S --length S  whole zones by their bytes\n"
  "  --all                  open: all closed zones; close: all open ones;\n"
  "                         finish: all open and closed ones; reset: all\n"
  "                         sequential zones\n"
  "  --verbose              say which way it goes\n"
  "  --help\n";

enum { OPT_ZONE = 256, OPT_OFFSET, OPT_LENGTH, OPT_ALL, OPT_VERBOSE };

static const struct option options[] = {
  { "zone", required_argument, NULL, OPT_ZONE },
  { "offset", required_argument, NULL, OPT_OFFSET },
  { "length", required_argument, NULL, OPT_LENGTH },
  { "all", no_argument, NULL, OPT_ALL },
  { "verbose", no_argument, NULL, OPT_VERBOSE },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

/* What the user asked for. */
struct request {
  enum znbd_zone_op op;
  const char *list;             /* --zone */
  bool have_offset, have_length, all;
  uint64_t offset, length;

  struct target *target;
  uint64_t done;                /* zones so far */
};

static enum znbd_zone_op
find_op (const char *name)
{
  unsigned op;

  for (op = ZNBD_ZONE_OPEN; op <= ZNBD_ZONE_RESET; ++op)
    if (strcmp (znbd_op_name (op), name) == 0)
      return op;
  abort ();
}

static int
check_request (const struct request *rq)
{
  const bool bytes = rq->have_offset || rq->have_length;

  if (!rq->list && !bytes && !rq->all)
    cli_error ("no zones: give --zone, --offset and --length, or --all");
  else if ((rq->list && bytes) || (rq->list && rq->all) ||
           (bytes && rq->all))
    cli_error ("%s and %s exclude each other", rq->list ? "--zone" : "--all",
               bytes ? (rq->have_offset ? "--offset" : "--length") : "--all");
  else if (rq->have_offset != rq->have_length)
    cli_error ("%s is missing: --offset and --length go together",
               rq->have_offset ? "--length" : "--offset");
  else
    return 0;
  return -1;
}

/* Manages one range; called for each of the list. */
static int
manage_range (void *opaque, uint32_t first, uint32_t last)
{
  struct request *rq = opaque;
  uint32_t done;
  int r;

  r = target_manage (rq->target, rq->op, first, last - first + 1, &done);
  rq->done += done;
  return r == 0 ? 0 : 1;
}

static int
manage_list (struct request *rq)
{
  const char *why;
  int r;

  r = size_parse_zone_list (rq->list, target_geometry (rq->target)->zones,
                            manage_range, rq, &why);
  if (r == -1)
    cli_error ("--zone %s %s (zones are 0 to %" PRIu32 ")",
               *rq->list ? rq->list : "''", why,
               target_geometry (rq->target)->zones - 1);
  return r == 0 ? 0 : -1;
}

static int
manage_bytes (struct request *rq)
{
  const struct znbd_geometry *g = target_geometry (rq->target);
  char size[SIZE_TEXT_MAX];
  uint64_t end;

  if (rq->offset >= g->size) {
    cli_error ("--offset %" PRIu64 " is not below the disk's size %" PRIu64,
               rq->offset, g->size);
    return -1;
  }
  if (rq->offset % g->zone_size != 0) {
    cli_error ("--offset %" PRIu64 " is no zone's start: no multiple of the "
               "zone size %s", rq->offset, size_text (size, g->zone_size));
    return -1;
  }
  if (rq->length == 0) {
    cli_error ("--length must not be 0");
    return -1;
  }
  if (rq->length > g->size - rq->offset) {
    cli_error ("--length %" PRIu64 " reaches past the disk's end: it has "
               "%" PRIu64 " bytes from the offset on", rq->length,
               g->size - rq->offset);
    return -1;
  }
  end = rq->offset + rq->length;
  if (end % g->zone_size != 0 && end != g->size) {
    cli_error ("--length %" PRIu64 " ends inside a zone: it is no multiple of "
               "the zone size %s", rq->length,
               size_text (size, g->zone_size));
    return -1;
  }
  return manage_range (rq, rq->offset / g->zone_size,
                       (end - 1) / g->zone_size) == 0 ? 0 : -1;
}

static int
manage (struct request *rq)
{
  int r;

  if (rq->all)
    return target_manage_all (rq->target, rq->op);
  r = rq->list ? manage_list (rq) : manage_bytes (rq);
  if (r == -1 && rq->done > 0)
    cli_error ("the %" PRIu64 " zone%s before it %s done", rq->done,
               rq->done == 1 ? "" : "s", rq->done == 1 ? "is" : "are");
  return r;
}

int
cmd_manage (int argc, char **argv)
{
  struct request rq = { .op = find_op (argv[0]) };
  const char *operand;
  bool verbose = false;
  int c, r;

  while ((c = cli_option (argc, argv, options, help)) != -1)
    switch (c) {
    case OPT_ZONE:
      if (rq.list) {
        cli_error ("--zone is given twice: %s and %s; a list is one, as in "
                   "0,4-7", rq.list, optarg);
        return EXIT_FAILURE;
      }
      rq.list = optarg;
      break;
    case OPT_OFFSET:
      rq.have_offset = true;
      if (cli_size ("--offset", optarg, &rq.offset) == -1)
        return EXIT_FAILURE;
      break;
    case OPT_LENGTH:
      rq.have_length = true;
      if (cli_size ("--length", optarg, &rq.length) == -1)
        return EXIT_FAILURE;
      break;
    case OPT_VERBOSE:
      verbose = true;
      break;
    case OPT_ALL:
      rq.all = true;
      break;
    default:
      return c == CLI_HELP ? EXIT_SUCCESS : EXIT_FAILURE;
    }
  if (check_request (&rq) == -1)
    return EXIT_FAILURE;
  operand = cli_operand (argc, argv, "IMAGE or URI");
  if (operand == NULL)
    return EXIT_FAILURE;
  rq.target = target_open (operand, false);
  if (rq.target == NULL)
    return EXIT_FAILURE;
  if (verbose)
    target_set_verbose (rq.target);

  r = manage (&rq);
  if (target_close (rq.target) == -1)
    r = -1;
  return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
