/* SPDX-License-Identifier: BSD-3-Clause */
/* What a fuzzer calls: an input is what up to three clients send to
 * znbd-server, handshake and all.  It goes through socket pairs to real
 * connections of a real event loop, which this thread turns itself, so that
 * it knows when everything that came of an input is done.
 *
 *   byte 0: which disk is served, see setups
 *   then bytes for the first client, up to MARK; the byte behind it says
 *   whose what follows is, and what happens before: see enum
 *
 * A mark rather than lengths: what a fuzzer cuts or adds shifts nothing.
 * Marks do not stand in what clients usually send.
 *
 * After an input all connections must end, with all of their requests, and
 * the loop have nothing under way; else it aborts.  Zones are reset, so that
 * an input does the same each time.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exports.h"
#include "loop.h"
#include "memory.h"
#include "target.h"

#define CLIENTS 3

/* Behind a mark. */
enum {
  WHOSE = 3,                    /* modulo CLIENTS */
  SETTLE = 4,                   /* the server does all it can first */
  HALF_CLOSE = 8,               /* who was sending will send no more */
  CLOSE = 16,                   /* and is gone, answers unread */
  DEAF = 32,                    /* who sends now reads nothing */
};

/* Time for connections to end. */
#define END_MS 5000

/* More turns of a loop than any input gives work for. */
#define TURNS_MAX 100000

static struct setup {
  struct store_geometry geometry;
  const char *name;
  bool readonly, gap_zero;
  struct loop loop;
  struct zdisk *zdisk;
} setups[] = {
  { .geometry = { 1 << 20, 64 << 10, 48 << 10, 2, 3, 4, 4096,
                  ZNBD_MODEL_HOST_MANAGED, "14", "15" },
    .name = "" },
  { .geometry = { 1 << 20, 64 << 10, 48 << 10, 2, 3, 4, 4096,
                  ZNBD_MODEL_HOST_MANAGED, "14", "15" },
    .name = "disk", .readonly = true },
  { .geometry = { 256 << 10, 32 << 10, 0, 0, 0, 0, 512,
                  ZNBD_MODEL_HOST_AWARE, NULL, NULL },
    .name = "disk", .gap_zero = true },
  { .geometry = { UINT64_C (1) << 40, UINT64_C (1) << 34, 0, 0, 0, 0, 512,
                  ZNBD_MODEL_HOST_MANAGED, NULL, NULL },
    .name = "" },
  /* More zones than are looked at without a pause. */
  { .geometry = { 2 << 20, 4 << 10, 0, 1, 0, 0, 512,
                  ZNBD_MODEL_HOST_MANAGED, NULL, NULL },
    .name = "" },
};
#define NR_SETUPS (sizeof setups / sizeof setups[0])

static struct client {
  int fd;                       /* -1: not connected */
  bool deaf;
} clients[CLIENTS];

static void
fail (const char *what)
{
  fprintf (stderr, "fuzzing the server: %s\n", what);
  abort ();
}

static void
set_up (struct setup *s)
{
  struct zdisk_options options = ZDISK_OPTIONS_DEFAULT;
  struct store *store;
  struct zone_error err;

  options.gap_zero = s->gap_zero;
  /* No clock has a say in what an input does. */
  options.reorder_timeout = 3600 * 1000;
  if (store_geometry_check (&s->geometry, &err) == -1 ||
      (store = memory_new (&s->geometry, &err)) == NULL ||
      (s->zdisk = zdisk_new (store, &options, &err)) == NULL ||
      loop_open (&s->loop, s->zdisk, &err) == -1)
    fail (err.text);
}

static void
connect_client (struct loop *loop, struct client *c)
{
  int fds[2];

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == -1)
    fail (strerror (errno));
  c->fd = fds[0];
  c->deaf = false;
  conn_new (loop, fds[1]);
}

static void
close_client (struct client *c)
{
  if (c->fd != -1)
    close (c->fd);
  c->fd = -1;
}

/* Takes the answers; true where there were any. */
static bool
drain (struct client *c)
{
  static char buf[1 << 20];
  bool any = false;

  while (c->fd != -1 && !c->deaf &&
         recv (c->fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
    any = true;
  return any;
}

/* Until nothing more happens. */
static void
settle (struct loop *loop)
{
  unsigned turns, idle = 0;
  bool busy;
  int i, r;

  for (turns = 0; idle < 2; turns++) {
    if (turns > TURNS_MAX)
      fail ("the loop never rests");
    r = loop_turn (loop, false);
    if (r < 0)
      fail (strerror (-r));
    busy = r > 0 || loop->dirty || loop->done || loop->put_off;
    for (i = 0; i < CLIENTS; i++)
      busy = drain (&clients[i]) || busy;
    idle = busy ? 0 : idle + 1;
  }
}

static void
send_all (struct loop *loop, struct client *c, const uint8_t *p, size_t n)
{
  bool stuck = false;
  ssize_t r;

  while (n > 0 && c->fd != -1) {
    r = send (c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (r > 0) {
      p += r;
      n -= r;
      stuck = false;
    }
    else if (r == -1 && errno == EAGAIN && !stuck) {
      stuck = true;             /* unless it takes more now */
      settle (loop);
    }
    else
      return;
  }
}

/* What the byte behind a mark says; returns who sends now. */
static struct client *
turn_to (struct loop *loop, struct client *before, uint8_t byte)
{
  struct client *c = &clients[(byte & WHOSE) % CLIENTS];

  if (byte & SETTLE)
    settle (loop);
  if ((byte & HALF_CLOSE) && before->fd != -1)
    shutdown (before->fd, SHUT_WR);
  if (byte & CLOSE)
    close_client (before);
  if (c->fd == -1)
    connect_client (loop, c);
  c->deaf = byte & DEAF;
  return c;
}

static void
converse (struct loop *loop, const uint8_t *p, size_t n)
{
  static const uint8_t mark[] = MARK;
  struct client *c = &clients[0];
  const uint8_t *m;

  connect_client (loop, c);
  while ((m = memmem (p, n, mark, sizeof mark - 1)) != NULL &&
         (size_t) (m - p) + sizeof mark <= n) {
    send_all (loop, c, p, m - p);
    c = turn_to (loop, c, m[sizeof mark - 1]);
    n -= m - p + sizeof mark;
    p = m + sizeof mark;
  }
  send_all (loop, c, p, n);
}

/* What keeps it. */
static void
describe (const struct conn *c)
{
  fprintf (stderr, "phase %d, %u requests, %s%s%s%sdirty %d\n", c->phase,
           c->nrequests, c->receiving ? "receiving, " : "",
           c->sending ? "sending, " : "", c->filling ? "filling, " : "",
           c->replies ? "replies, " : "", c->dirty);
}

static void
end_all (struct loop *loop)
{
  uint64_t end = loop_now () + END_MS;
  unsigned turns;
  int i;

  for (i = 0; i < CLIENTS; i++)
    if (clients[i].fd != -1)
      shutdown (clients[i].fd, SHUT_WR);
  settle (loop);
  for (i = 0; i < CLIENTS; i++)
    close_client (&clients[i]);
  for (turns = 0; loop->conns; turns++) {
    /* The kernel may have given I/O to a thread of its own. */
    if (turns > 1000)
      usleep (1000);
    if (loop_now () > end) {
      describe (loop->conns);
      fail ("a connection never ends");
    }
    if (loop_turn (loop, false) < 0)
      fail ("a loop's turn fails");
  }
  settle (loop);
  if (loop->nwatched != 0)
    fail ("deadlines of connections that are gone");
  if (loop->ring.in_flight > 1)
    fail ("I/O of connections that are gone");
}

static void
reset_zones (struct setup *s)
{
  struct zdisk_request z = { .op = ZDISK_RESET, .flags = ZDISK_ALL };
  struct zdisk_client *client = zdisk_client_new (s->zdisk, false);

  if (client == NULL || zdisk_run (client, &z) != 0)
    fail ("the zones cannot be reset");
  zdisk_client_close (client);
}

int
LLVMFuzzerInitialize (int *argc, char ***argv)
{
  unsigned i;

  (void) argc;
  (void) argv;
  for (i = 0; i < NR_SETUPS; i++)
    set_up (&setups[i]);
  for (i = 0; i < CLIENTS; i++)
    clients[i].fd = -1;
  return 0;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct setup *s;

  if (size == 0)
    return 0;
  s = &setups[data[0] % NR_SETUPS];
  if (exports_init (s->zdisk, s->name, s->readonly) == -1)
    fail ("no memory");
  converse (&s->loop, data + 1, size - 1);
  end_all (&s->loop);
  if (!s->readonly)
    reset_zones (s);
  exports_free ();
  return 0;
}
