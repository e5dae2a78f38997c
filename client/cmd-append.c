/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd append: standard input to the end of a zone, in pieces.  Over NBD
 * some of them are in flight at once; where each went is told in the order
 * of the input, as soon as it and those before it are known.
 *
 * A piece is whole blocks.  What the input has behind the last one is
 * refused rather than padded: nothing gets into a zone that was not given.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "libznbd.h"
#include "target.h"

static const char help[] =
  "znbd append --zone N [--block-size S] [--depth N] [--json] [--verbose]\n"
  "            IMAGE|URI\n"
  "\n"
  "Appends standard input to a zone, and prints where each piece went:\n"
  "offset and length in bytes.\n"
  "\n"
  "  --zone N         the zone\n"
  "  --block-size S   bytes of a piece (128k, or the largest append)\n"
  "  --depth N        pieces in flight at once (1)\n"
  "  --json           one JSON object a line\n"
  "  --verbose        say which way it goes\n"
  "  --help\n";

enum { OPT_ZONE = 256, OPT_BLOCK_SIZE, OPT_DEPTH, OPT_JSON, OPT_VERBOSE };

static const struct option options[] = {
  { "zone", required_argument, NULL, OPT_ZONE },
  { "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
  { "depth", required_argument, NULL, OPT_DEPTH },
  { "json", no_argument, NULL, OPT_JSON },
  { "verbose", no_argument, NULL, OPT_VERBOSE },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

#define BLOCK_SIZE (128u << 10)
#define BLOCK_SIZE_MAX (32u << 20)
#define DEPTH_MAX 1024u

enum piece_state { FREE, IN_FLIGHT, DONE, FAILED };

struct piece {
  enum piece_state state;
  uint8_t *buf;
  size_t length;
  int64_t offset;               /* where it went */
  int error;                    /* of one that failed */
};

struct append {
  struct target *target;
  const char *operand;
  uint64_t zone;
  uint64_t block_size;
  uint64_t depth;
  bool json;

  struct piece *pieces;         /* a ring of depth */
  uint64_t first, next;         /* pieces not told yet: first to next - 1 */
  uint64_t told_bytes, told_pieces;
  bool end;                     /* of the input, or no more is wanted */
  int r;                        /* -1 after a message */
};

static struct piece *
piece_of (struct append *a, uint64_t number)
{
  return &a->pieces[number % a->depth];
}

static void
appended (void *opaque, int64_t offset)
{
  struct piece *p = opaque;

  p->offset = offset;
  p->state = offset == -1 ? FAILED : DONE;
  p->error = offset == -1 ? znbd_get_errno () : 0;
}

/* Starts to append a piece that was read. */
static int
start (struct append *a, struct piece *p)
{
  struct znbd_disk *remote = target_remote (a->target);
  uint64_t offset;

  if (remote == NULL || a->depth == 1) {
    if (target_append (a->target, a->zone, p->buf, p->length, &offset) == -1)
      return -1;
    p->offset = offset;
    p->state = DONE;
    return 0;
  }
  p->state = IN_FLIGHT;
  if (znbd_aio_append (remote, a->zone, p->buf, p->length, 0,
                       (znbd_completion) { appended, p, NULL }) == -1) {
    p->state = FREE;
    cli_error ("%s", znbd_get_error ());
    return -1;
  }
  target_changed (a->target, ZNBD_WAY_APPEND);
  return 0;
}

/* Says why a piece was refused. */
static void
explain (struct append *a, const struct piece *p)
{
  char text[400];

  if (znbd_explain_append (target_remote (a->target), a->zone, p->length,
                           p->error, text, sizeof text) == -1)
    cli_error ("%s: append to zone %" PRIu64 " failed, and the zone's report "
               "cannot be had: is the server gone? More may have been "
               "appended than is told", a->operand, a->zone);
  else
    cli_error ("%s", text);
}

/* Prints what is known, in order; later pieces are still told after one
 * that failed, for they may be on the disk. */
static void
tell (struct append *a)
{
  bool told = false;

  for (; a->first < a->next; a->first++) {
    struct piece *p = piece_of (a, a->first);

    if (p->state == IN_FLIGHT)
      break;
    if (p->state == FAILED) {
      if (a->r == 0)
        explain (a, p);
      a->r = -1;
      a->end = true;
    }
    else {
      printf (a->json ? "{ \"offset\": %" PRId64 ", \"length\": %zu }\n"
              : "%" PRId64 " %zu\n", p->offset, p->length);
      a->told_bytes += p->length;
      a->told_pieces++;
      told = true;
    }
    p->state = FREE;
    p->length = 0;
  }
  /* Who watches wants to see it now. */
  if (told && cli_flush () == -1) {
    a->r = -1;
    a->end = true;
  }
}

/* Starts the piece that the input has filled, or ended in. */
static void
end_piece (struct append *a)
{
  const uint32_t unit = target_geometry (a->target)->granularity;
  struct piece *p = piece_of (a, a->next);
  size_t rest = p->length % unit;

  if (rest != 0) {
    cli_error ("the input ends with %zu byte%s that %s no whole block of "
               "%" PRIu32 " bytes: %s not appended (pad the input, as "
               "\"dd conv=sync\" does)", rest, rest == 1 ? "" : "s",
               rest == 1 ? "is" : "are", unit, rest == 1 ? "it is"
               : "they are");
    a->r = -1;
    p->length -= rest;
  }
  if (p->length == 0)
    return;
  if (start (a, p) == -1) {
    a->r = -1;
    a->end = true;
    return;
  }
  a->next++;
}

/* Reads what there is of the next piece. */
static void
read_on (struct append *a)
{
  struct piece *p = piece_of (a, a->next);
  ssize_t n;

  n = read (STDIN_FILENO, p->buf + p->length, a->block_size - p->length);
  if (n == -1 && (errno == EINTR || errno == EAGAIN))
    return;
  if (n == -1) {
    cli_error ("standard input: %s", strerror (errno));
    a->r = -1;
    a->end = true;
    return;
  }
  p->length += n;
  if (n == 0)
    a->end = true;
  if (n == 0 || p->length == a->block_size)
    end_piece (a);
}

/* Waits for the input, if there is room for it, and for answers.  Returns
 * whether the input has something, -1 after a message. */
static int
wait_for_any (struct append *a)
{
  struct znbd_disk *remote = target_remote (a->target);
  const bool room = !a->end && a->next - a->first < a->depth;
  struct pollfd fds[2] = {
    { .fd = room ? STDIN_FILENO : -1, .events = POLLIN },
    { .fd = -1, .events = POLLIN },
  };
  int r;

  if (a->first < a->next)
    fds[1].fd = znbd_aio_get_fd (remote);
  if (poll (fds, 2, -1) == -1)
    return errno == EINTR ? 0 : (cli_error ("poll: %s", strerror (errno)),
                                 -1);
  if (fds[1].revents) {
    while ((r = znbd_aio_poll (remote, 0)) == 1)
      ;
    if (r == -1) {
      cli_error ("%s", znbd_get_error ());
      return -1;
    }
  }
  return fds[0].revents != 0;
}

static int
append (struct append *a)
{
  int r;

  while (!a->end || a->first < a->next) {
    r = wait_for_any (a);
    if (r == -1)
      return -1;
    tell (a);
    if (r == 1 && !a->end) {
      read_on (a);
      tell (a);
    }
  }
  if (a->r == -1)
    cli_error ("%" PRIu64 " bytes in %" PRIu64 " piece%s were appended",
               a->told_bytes, a->told_pieces, a->told_pieces == 1 ? "" : "s");
  return a->r;
}

/* Settles what depends on the disk. */
static int
check (struct append *a)
{
  const struct znbd_geometry *g = target_geometry (a->target);
  uint64_t max = g->max_append ? g->max_append : BLOCK_SIZE_MAX;

  if (max > BLOCK_SIZE_MAX)
    max = BLOCK_SIZE_MAX;
  if (a->zone >= g->zones) {
    cli_error ("there is no zone %" PRIu64 ": the disk has %" PRIu32
               " zones, from 0", a->zone, g->zones);
    return -1;
  }
  if (a->block_size == 0)
    a->block_size = max < BLOCK_SIZE ? max - max % g->granularity
      : BLOCK_SIZE > g->granularity ? BLOCK_SIZE : g->granularity;
  if (a->block_size % g->granularity != 0) {
    cli_error ("--block-size %" PRIu64 " is no multiple of the disk's "
               "%" PRIu32 "-byte blocks", a->block_size, g->granularity);
    return -1;
  }
  if (a->block_size > max) {
    cli_error ("--block-size %" PRIu64 " is larger than the largest append, "
               "%" PRIu64, a->block_size, max);
    return -1;
  }
  return 0;
}

static int
append_input (struct append *a)
{
  uint64_t i;

  if (check (a) == -1)
    return -1;
  a->pieces = calloc (a->depth, sizeof *a->pieces);
  if (a->pieces == NULL)
    goto no_memory;
  for (i = 0; i < a->depth; ++i)
    if ((a->pieces[i].buf = malloc (a->block_size)) == NULL)
      goto no_memory;
  return append (a);

 no_memory:
  cli_error ("out of memory for %" PRIu64 " pieces of %" PRIu64 " bytes",
             a->depth, a->block_size);
  return -1;
}

/* After the disk was closed, and with it what was in flight. */
static void
free_pieces (struct append *a)
{
  uint64_t i;

  for (i = 0; a->pieces && i < a->depth; ++i)
    free (a->pieces[i].buf);
  free (a->pieces);
}

int
cmd_append (int argc, char **argv)
{
  struct append a = { .zone = UINT64_MAX, .depth = 1 };
  const char *operand;
  bool verbose = false;
  int c, r;

  while ((c = cli_option (argc, argv, options, help)) != -1) {
    if (c == CLI_HELP)
      return EXIT_SUCCESS;
    if (c == OPT_ZONE && a.zone != UINT64_MAX) {
      cli_error ("--zone is given twice: data goes to one zone");
      return EXIT_FAILURE;
    }
    if (c == CLI_BAD ||
        (c == OPT_ZONE && cli_number ("--zone", optarg, &a.zone) == -1) ||
        (c == OPT_DEPTH && cli_number ("--depth", optarg, &a.depth) == -1) ||
        (c == OPT_BLOCK_SIZE &&
         cli_size ("--block-size", optarg, &a.block_size) == -1))
      return EXIT_FAILURE;
    if (c == OPT_BLOCK_SIZE && a.block_size == 0) {
      cli_error ("--block-size must not be 0");
      return EXIT_FAILURE;
    }
    if (c == OPT_JSON)
      a.json = true;
    if (c == OPT_VERBOSE)
      verbose = true;
  }
  if (a.zone == UINT64_MAX) {
    cli_error ("--zone is missing");
    return EXIT_FAILURE;
  }
  if (a.depth == 0 || a.depth > DEPTH_MAX) {
    cli_error ("--depth %" PRIu64 " is not between 1 and %u", a.depth,
               DEPTH_MAX);
    return EXIT_FAILURE;
  }
  operand = cli_operand (argc, argv, "IMAGE or URI");
  if (operand == NULL)
    return EXIT_FAILURE;
  a.operand = operand;
  a.target = target_open (operand, false);
  if (a.target == NULL)
    return EXIT_FAILURE;
  if (verbose)
    target_set_verbose (a.target);

  r = append_input (&a);
  if (target_close (a.target) == -1)
    r = -1;
  free_pieces (&a);
  return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
