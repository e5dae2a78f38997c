/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests to the server's own code, for cost.py to count the instructions
 * of: a client of this process sends them through a socket pair to a real
 * connection of a real event loop, which this thread turns itself.
 *
 *     cost-server IMAGE [again]
 *     NAME REQUESTS           (a line for each case)
 *
 * With again the cases are those of zones that were written to before, which
 * in memory is another matter.
 *
 * What is counted is measured_turn, and what it calls: valgrind's
 * --toggle-collect.  It writes its counts before measured_end:
 * --dump-before.  A thread could be counted as well, but valgrind stops all
 * others while one waits in io_uring_enter; here none waits there.
 */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exports.h"
#include "loop.h"
#include "open.h"
#include "protocol.h"

#define ZONE (4u << 20)         /* of the image, whose zones are all empty */
#define DEPTH_MAX 32

static const struct test_case {
  const char *name;
  uint16_t type;
  uint32_t length;
  unsigned depth, batches, zone;
  bool append, again;
} cases[] = {
  /* The first two write what the others read.  Large writes one by one: of
   * several a worker does some, whose ends come when they come. */
  { "write-4k", NBD_CMD_WRITE, 4096, 32, 30, 0, false, false },
  { "write-256k-depth-1", NBD_CMD_WRITE, 256 << 10, 1, 15, 1, false, false },
  { "read-4k", NBD_CMD_READ, 4096, 32, 30, 0, false, false },
  { "read-4k-depth-1", NBD_CMD_READ, 4096, 1, 500, 0, false, false },
  { "read-256k", NBD_CMD_READ, 256 << 10, 4, 3, 1, false, false },
  { "append-4k", NBD_CMD_WRITE, 4096, 32, 30, 2, true, false },
  { "write-4k-again", NBD_CMD_WRITE, 4096, 32, 30, 0, false, true },
};

static struct loop loop;
static uint8_t out[DEPTH_MAX * (2 * sizeof (struct proto_request)) +
                   (4u << 20)];

void measured_turn (void);
void measured_end (const char *name, unsigned requests);

static void
fail (const char *what)
{
  fprintf (stderr, "cost-server: %s\n", what);
  exit (1);
}

__attribute__ ((noinline)) void
measured_turn (void)
{
  int r = loop_turn (&loop, false);

  if (r < 0)
    fail (strerror (-r));
}

__attribute__ ((noinline)) void
measured_end (const char *name, unsigned requests)
{
  printf ("%s %u\n", name, requests);
}

/* Sends all, and takes n bytes of answers, while the server has its turns. */
static void
exchange (int fd, const uint8_t *data, size_t length, void *answer, size_t n)
{
  static uint8_t buf[1 << 20];
  unsigned idle = 0;
  ssize_t r;

  while (length > 0 || n > 0) {
    r = length ? send (fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (r > 0) {
      data += r;
      length -= r;
      idle = 0;
    }
    measured_turn ();
    r = recv (fd, buf, n < sizeof buf ? n : sizeof buf, MSG_DONTWAIT);
    if (r > 0) {
      if (answer)
        answer = mempcpy (answer, buf, r);
      n -= r;
      idle = 0;
    }
    else if (r == 0 && n > 0)
      fail ("the server ended the connection");
    /* The kernel may have given something to a thread of its own. */
    if (++idle > 100)
      usleep (1000);
    if (idle > 10000)
      fail ("the server does not answer");
  }
}

static size_t
put_option (uint8_t *p, uint32_t number, const void *data, uint32_t length)
{
  const struct proto_option o = {
    .magic = htobe64 (NBD_OPTION_MAGIC), .option = htobe32 (number),
    .length = htobe32 (length),
  };

  memcpy (p, &o, sizeof o);
  memcpy (p + sizeof o, data, length);
  return sizeof o + length;
}

/* To the transmission phase.  All is sent at once, and the answers have to
 * have the length of yeses. */
static int
connect_client (bool append)
{
  static const uint8_t go[6], context[] =
    "\0\0\0\0" "\0\0\0\1" "\0\0\0\14" "x-zbd:append";
  const uint32_t flags = htobe32 (NBD_FLAG_FIXED_NEWSTYLE |
                                  NBD_FLAG_NO_ZEROES);
  const size_t reply = sizeof (struct proto_option_reply);
  size_t n = sizeof flags, answers = sizeof (struct proto_greeting);
  uint8_t hello[512], answer[512];
  int fds[2], size = 256 << 10; /* as the server gives its sockets */

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == -1)
    fail (strerror (errno));
  setsockopt (fds[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  conn_new (&loop, fds[1]);
  memcpy (hello, &flags, sizeof flags);
  if (append) {
    n += put_option (hello + n, NBD_OPT_STRUCTURED_REPLY, "", 0);
    n += put_option (hello + n, NBD_OPT_SET_META_CONTEXT, context,
                     sizeof context - 1);
    answers += 3 * reply + sizeof (uint32_t) + strlen ("x-zbd:append");
  }
  n += put_option (hello + n, NBD_OPT_GO, go, sizeof go);
  /* The export's size and flags, which are asked for by nothing. */
  answers += 2 * reply + 12;
  exchange (fds[0], hello, n, answer, answers);
  return fds[0];
}

static size_t
put_request (uint8_t *p, uint16_t type, uint64_t cookie, uint64_t offset,
             uint32_t length)
{
  const struct proto_request r = {
    .magic = htobe32 (NBD_REQUEST_MAGIC), .type = htobe16 (type),
    .flags = htobe16 (type == NBD_CMD_BLOCK_STATUS ? NBD_CMD_FLAG_REQ_ONE
                      : 0),
    .cookie = cookie, .offset = htobe64 (offset), .length = htobe32 (length),
  };

  memcpy (p, &r, sizeof r);
  return sizeof r;
}

/* All of a test's zone, and a reset, which is durable before what is counted
 * begins. */
static void
write_before (int fd, const struct test_case *t)
{
  uint32_t length = 128 << 10;
  uint64_t start = (uint64_t) t->zone * ZONE, at;
  size_t n;

  for (at = start; at < start + ZONE; at += length) {
    n = put_request (out, NBD_CMD_WRITE, 0, at, length);
    memset (out + n, 'y', length);
    exchange (fd, out, n + length, NULL, sizeof (struct proto_simple_reply));
  }
  n = put_request (out, NBD_CMD_TRIM, 0, start, ZONE);
  exchange (fd, out, n, NULL, sizeof (struct proto_simple_reply));
  n = put_request (out, NBD_CMD_FLUSH, 0, 0, 0);
  exchange (fd, out, n, NULL, sizeof (struct proto_simple_reply));
}

/* What a batch sends; returns the bytes that answer it. */
static size_t
put_batch (const struct test_case *t, unsigned batch, size_t *length)
{
  size_t answers = 0;
  uint64_t offset;
  uint8_t *p = out;
  unsigned i, k;

  for (i = 0; i < t->depth; i++) {
    k = t->append ? i : batch * t->depth + i;
    offset = (uint64_t) t->zone * ZONE + (uint64_t) k * t->length;
    p += put_request (p, t->type, i, offset, t->length);
    answers += sizeof (struct proto_simple_reply);
    if (t->type == NBD_CMD_READ) {
      answers += t->length;
      continue;
    }
    memset (p, 'x', t->length);
    p += t->length;
    if (t->append) {
      p += put_request (p, NBD_CMD_BLOCK_STATUS, DEPTH_MAX + i, offset,
                        t->length);
      answers += sizeof (struct proto_chunk) + sizeof (uint32_t) +
        sizeof (struct proto_extent);
    }
  }
  *length = p - out;
  return answers;
}

static void
run (const struct test_case *t)
{
  int fd = connect_client (t->append);
  size_t length, answers;
  unsigned i;

  if (t->again)
    write_before (fd, t);
  /* Once to warm up: what is kept is allocated then. */
  answers = put_batch (t, 0, &length);
  exchange (fd, out, length, NULL, answers);
  measured_end ("warm", 0);
  for (i = 1; i <= t->batches; i++) {
    answers = put_batch (t, i, &length);
    exchange (fd, out, length, NULL, answers);
  }
  measured_end (t->name, t->batches * t->depth);
  close (fd);
  while (loop.conns)
    measured_turn ();
  measured_end ("closed", 0);
}

int
main (int argc, char *argv[])
{
  struct zdisk_options options = ZDISK_OPTIONS_DEFAULT;
  struct zone_error err;
  struct store *store;
  struct zdisk *disk = NULL;
  bool again = argc == 3 && strcmp (argv[2], "again") == 0;
  unsigned i;

  if (argc != 2 && !again)
    fail ("usage: cost-server IMAGE [again]");
  store = store_open (argv[1], STORE_WRITABLE, &err);
  if (store == NULL || (disk = zdisk_new (store, &options, &err)) == NULL ||
      loop_open (&loop, disk, &err) == -1)
    fail (err.text);
  if (exports_init (disk, "", false) == -1)
    fail ("no memory");
  for (i = 0; i < sizeof cases / sizeof cases[0]; i++)
    if (cases[i].again == again)
      run (&cases[i]);
  return 0;
}
