/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd copy: a zoned disk to another one, zone by zone.  What is shared with
 * the files that do it is in copy.h.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "copy.h"
#include "size.h"

static const char help[] =
  "znbd copy [OPTION]... SRC DST\n"
  "\n"
  "Copies a zoned disk to another one, zone by zone: the data up to each\n"
  "write pointer, and where it stands.  SRC and DST are images, devices or\n"
  "URIs; where DST is a path that does not exist, an image is made.\n"
  "\n"
  "  --resume          go on with a copy that was interrupted\n"
  "  --force           reset all zones of DST first\n"
  "  --verify          read both and compare them afterwards\n"
  "  --open            leave zones open that are open in SRC\n"
  "  --skip-offline    leave out zones that are offline in SRC\n"
  "  --no-sparse       write zeros as data\n"
  "  --connections N   to each side, at most (CPUs, at most 4)\n"
  "  --requests N      in flight on each connection (64)\n"
  "  --request-size S  bytes of a request (256k)\n"
  "  --progress        show a bar (only where there is a terminal)\n"
  "  --quiet           no bar, and no notes\n"
  "  --verbose         say how it is done\n"
  "  --help\n";

enum {
  OPT_RESUME = 256, OPT_FORCE, OPT_VERIFY, OPT_OPEN, OPT_SKIP_OFFLINE,
  OPT_NO_SPARSE, OPT_CONNECTIONS, OPT_REQUESTS, OPT_REQUEST_SIZE,
  OPT_PROGRESS, OPT_QUIET, OPT_VERBOSE,
};

static const struct option options[] = {
  { "resume", no_argument, NULL, OPT_RESUME },
  { "force", no_argument, NULL, OPT_FORCE },
  { "verify", no_argument, NULL, OPT_VERIFY },
  { "open", no_argument, NULL, OPT_OPEN },
  { "skip-offline", no_argument, NULL, OPT_SKIP_OFFLINE },
  { "no-sparse", no_argument, NULL, OPT_NO_SPARSE },
  { "connections", required_argument, NULL, OPT_CONNECTIONS },
  { "requests", required_argument, NULL, OPT_REQUESTS },
  { "request-size", required_argument, NULL, OPT_REQUEST_SIZE },
  { "progress", no_argument, NULL, OPT_PROGRESS },
  { "quiet", no_argument, NULL, OPT_QUIET },
  { "verbose", no_argument, NULL, OPT_VERBOSE },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

static int
parse_count (const char *option, unsigned max, unsigned *count)
{
  uint64_t n;

  if (cli_number (option, optarg, &n) == -1)
    return -1;
  if (n == 0 || n > max) {
    cli_error ("%s %s is not between 1 and %u", option, optarg, max);
    return -1;
  }
  *count = n;
  return 0;
}

static int
parse_request_size (uint64_t *bytes)
{
  if (cli_size ("--request-size", optarg, bytes) == -1)
    return -1;
  if (*bytes < 512 || *bytes > COPY_REQUEST_SIZE_MAX) {
    cli_error ("--request-size %s is not between 512 and 32M", optarg);
    return -1;
  }
  return 0;
}

static int
parse_option (int opt, struct copy_options *o)
{
  switch (opt) {
  case OPT_RESUME: o->resume = true; return 0;
  case OPT_FORCE: o->force = true; return 0;
  case OPT_VERIFY: o->verify = true; return 0;
  case OPT_OPEN: o->open = true; return 0;
  case OPT_SKIP_OFFLINE: o->skip_offline = true; return 0;
  case OPT_NO_SPARSE: o->sparse = false; return 0;
  case OPT_PROGRESS: o->progress = true; return 0;
  case OPT_QUIET: o->quiet = true; return 0;
  case OPT_VERBOSE: o->verbose = true; return 0;
  case OPT_CONNECTIONS:
    return parse_count ("--connections", COPY_CONNECTIONS_MAX,
                        &o->connections);
  case OPT_REQUESTS:
    return parse_count ("--requests", COPY_REQUESTS_MAX, &o->requests);
  case OPT_REQUEST_SIZE:
    return parse_request_size (&o->request_size);
  }
  return -1;
}

static int
check_options (struct copy_options *o)
{
  if (o->resume && o->force)
    cli_error ("--resume and --force exclude each other");
  else if (o->progress && o->quiet)
    cli_error ("--progress and --quiet exclude each other");
  else {
    if (!o->quiet && isatty (STDERR_FILENO))
      o->progress = true;
    return 0;
  }
  return -1;
}

/* Pieces are multiples of both sides' blocks, and no larger than servers
 * take them. */
static int
choose_piece (struct copy *c)
{
  const uint32_t s = c->src.g->granularity, d = c->dst.g->granularity;
  uint64_t max = c->src.request_max < c->dst.request_max
    ? c->src.request_max : c->dst.request_max;

  c->common = s > d ? s : d;
  c->piece = c->o.request_size ? c->o.request_size : COPY_REQUEST_SIZE;
  if (c->o.request_size && c->o.request_size % c->common != 0) {
    cli_error ("--request-size %" PRIu64 " is no multiple of the disks' "
               "blocks of %" PRIu64 " bytes", c->o.request_size, c->common);
    return -1;
  }
  if (c->o.request_size > max) {
    cli_error ("--request-size %" PRIu64 " is more than the servers take, "
               "%" PRIu64, c->o.request_size, max);
    return -1;
  }
  if (c->piece > max)
    c->piece = max;
  c->piece -= c->piece % c->common;
  if (c->piece == 0)
    c->piece = c->common;
  return 0;
}

/* Says how much there is to do. */
static void
tell_plan (const struct copy *c)
{
  char text[SIZE_TEXT_MAX];
  uint64_t bytes = 0;
  uint32_t i;

  if (!c->o.verbose)
    return;
  for (i = 0; i < c->njobs; ++i)
    bytes += c->jobs[i].to - c->jobs[i].from;
  cli_error ("%" PRIu32 " of %" PRIu32 " zones are to be copied, %s in "
             "requests of %" PRIu64 " bytes", c->njobs, c->src.g->zones,
             size_text (text, bytes), c->piece);
}

/* Everything before the first change that cannot be taken back. */
static int
prepare (struct copy *c)
{
  if (copy_fit (c) == -1 || copy_probe (&c->src) == -1 ||
      copy_probe (&c->dst) == -1 || choose_piece (c) == -1)
    return -1;
  if (c->o.force)
    copy_pretend_reset (c);
  return copy_plan (c);
}

/* Resets what is to be: all zones, or those of which nothing can be kept. */
static int
reset_zones (struct copy *c)
{
  uint32_t i, done;

  if (c->o.force && !c->created)
    return target_manage_all (c->dst.target, ZNBD_ZONE_RESET);
  for (i = 0; i < c->njobs; ++i)
    if (c->jobs[i].reset &&
        target_manage (c->dst.target, ZNBD_ZONE_RESET, c->jobs[i].zone, 1,
                       &done) == -1)
      return -1;
  return 0;
}

/* Whether what is to be continued looks like a part of the copy. */
static int
check_sample (struct copy *c)
{
  if (!c->o.resume || c->created)
    return 0;
  if (copy_plan_compare (c, false) == -1 ||
      copy_run (c, COPY_COMPARE, "checking") == -1) {
    cli_error ("what is in %s is no part of a copy of %s",
               c->dst.operand, c->src.operand);
    return -1;
  }
  return copy_plan (c);
}

static int
verify (struct copy *c)
{
  if (copy_report (&c->dst) == -1 || copy_same_zones (c) == -1 ||
      copy_plan_compare (c, true) == -1)
    return -1;
  return copy_run (c, COPY_COMPARE, "comparing");
}

static int
copy (struct copy *c)
{
  tell_plan (c);
  if (reset_zones (c) == -1)
    return -1;
  if (copy_run (c, COPY_DATA, "copying") == -1) {
    cli_error ("%" PRIu64 " of %" PRIu64 " bytes were copied; --resume goes "
               "on from there", (uint64_t) atomic_load (&c->done), c->total);
    return -1;
  }
  if (copy_unchanged (c) == -1)
    return -1;
  return c->o.verify ? verify (c) : 0;
}

/* The two operands, which options may stand between. */
static int
operands (int argc, char **argv, const char **src, const char **dst)
{
  if (argc - optind < 2) {
    cli_error ("%s is missing", argc == optind ? "SRC" : "DST");
    return -1;
  }
  if (argc - optind > 2) {
    cli_error ("extra operand '%s' behind '%s'", argv[optind + 2],
               argv[optind + 1]);
    return -1;
  }
  *src = argv[optind];
  *dst = argv[optind + 1];
  if (**src == '\0' || **dst == '\0') {
    cli_error ("%s is empty", **src ? "DST" : "SRC");
    return -1;
  }
  return 0;
}

int
cmd_copy (int argc, char **argv)
{
  struct copy c = {
    .o = { .sparse = true, .requests = 64 },
    .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
  };
  const char *src, *dst;
  bool begun = false;
  int opt, r = -1;

  while ((opt = cli_option (argc, argv, options, help)) != -1) {
    if (opt == CLI_HELP)
      return EXIT_SUCCESS;
    if (opt == CLI_BAD || parse_option (opt, &c.o) == -1)
      return EXIT_FAILURE;
  }
  if (check_options (&c.o) == -1 || operands (argc, argv, &src, &dst) == -1)
    return EXIT_FAILURE;

  if (copy_open (&c, src, dst) == 0 && prepare (&c) == 0 &&
      check_sample (&c) == 0) {
    begun = true;
    r = copy (&c);
  }
  if (copy_close (&c, r == 0) == -1)
    r = -1;
  if (c.created && !begun)
    unlink (dst);
  free (c.jobs);
  return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
