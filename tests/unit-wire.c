/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection of znbd attach on its ring, against a server at the other end
 * of a socket pair: messages that the socket takes only a part of, answers
 * that come too early or not at all, and connections that break and are given
 * up while the kernel has their memory.
 */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "attach.h"
#include "protocol.h"

#define DEPTH 640u
#define LENGTH 65536u

static struct attach a;
static struct wire *w;
static int server;              /* the other end */
static struct conn conn;
static unsigned answers;
static char said[200];

/* ---- in place of the rest of attach ---- */

void
io_answered (struct command *c)
{
  struct request *r = c->request;

  assert_ptr_equal (c->conn, &conn);
  assert_int_equal (r->outstanding, 1);
  r->outstanding = 0;
  r->error = c->reply.error;
  if (c->reply.type == NBD_CMD_READ && r->error == 0)
    memcpy (r->buf, c->reply.data, c->length);
  answers++;
}

void
attach_log (struct attach *attach, const char *fs, ...)
{
  va_list args;

  (void) attach;
  va_start (args, fs);
  vsnprintf (said, sizeof said, fs, args);
  va_end (args);
}

/* ---- the set-up ---- */

static int
setup (void **state)
{
  struct zone_error err;
  const int small = 4096;
  int fds[2];
  unsigned i;

  (void) state;
  memset (&a, 0, sizeof a);
  assert_int_equal (ring_init (&a.ring, 64, &err), 0);
  a.options.uri = "nbd://somewhere";
  a.queues = 1;
  a.depth = DEPTH;
  a.io_max = LENGTH;
  a.requests = calloc (DEPTH, sizeof *a.requests);
  assert_non_null (a.requests);
  for (i = 0; i < DEPTH; i++) {
    a.requests[i].a = &a;
    a.requests[i].command[0].request = &a.requests[i];
    a.requests[i].buf = malloc (LENGTH);
    assert_non_null (a.requests[i].buf);
    memset (a.requests[i].buf, i + 1, LENGTH);
  }
  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, fds), 0);
  assert_int_equal (setsockopt (fds[0], SOL_SOCKET, SO_SNDBUF, &small,
                                sizeof small), 0);
  server = fds[1];
  conn = (struct conn) { .a = &a };
  w = wire_new (&a, fds[0], false);
  assert_non_null (w);
  answers = 0;
  said[0] = '\0';
  return 0;
}

/* So often a turn may bring nothing that is expected, if it takes a ms. */
#define PATIENCE 10000u

/* As the loop does it, and without waiting long. */
static void
turn (void)
{
  wire_free_old (&a);
  if (w)
    wire_turn (w);
  assert_true (ring_run_for (&a.ring, 1) >= 0);
}

static int
teardown (void **state)
{
  unsigned i;

  (void) state;
  if (w)
    wire_drop (w);
  w = NULL;
  for (i = 0; i < PATIENCE && a.old_wires; i++)
    turn ();
  assert_null (a.old_wires);
  ring_free (&a.ring);
  for (i = 0; i < DEPTH; i++)
    free (a.requests[i].buf);
  free (a.requests);
  if (server != -1)
    close (server);
  return 0;
}

static void
command (unsigned i, uint16_t type, uint32_t length)
{
  struct command *c = &a.requests[i].command[0];

  c->conn = &conn;
  c->reply = (struct reply_command) { .type = type, .length = length };
  c->flags = 0;
  c->offset = i * UINT64_C (65536);
  c->length = length;
  c->buf = a.requests[i].buf;
  a.requests[i].outstanding = 1;
  assert_true (wire_send (w, c));
}

/* What the server has of the client, with turns of the client in between. */
static void
receive (void *p, size_t n)
{
  size_t got = 0;
  unsigned in_vain = 0;

  while (got < n) {
    ssize_t r = recv (server, (uint8_t *) p + got, n - got, MSG_DONTWAIT);

    assert_true (r > 0 || (r == -1 && errno == EAGAIN && in_vain < PATIENCE));
    in_vain = r > 0 ? 0 : in_vain + 1;
    got += r > 0 ? r : 0;
    if (r <= 0)
      turn ();
  }
}

static struct proto_request
request (uint16_t type)
{
  struct proto_request request;

  receive (&request, sizeof request);
  assert_int_equal (be32toh (request.magic), NBD_REQUEST_MAGIC);
  assert_int_equal (be16toh (request.type), type);
  return request;
}

static void
reply (uint64_t cookie, uint32_t error)
{
  const struct proto_simple_reply reply = {
    .magic = htobe32 (NBD_SIMPLE_REPLY_MAGIC), .error = htobe32 (error),
    .cookie = cookie,
  };

  assert_int_equal (write (server, &reply, sizeof reply), sizeof reply);
}

static void
until_answers (unsigned n)
{
  unsigned i;

  for (i = 0; i < PATIENCE && answers < n && !wire_ended (w); i++)
    turn ();
  assert_int_equal (answers, n);
}

/* ---- tests ---- */

/* More than goes in one message, and each more than the socket takes. */
static void
many (void **state)
{
  static uint8_t data[LENGTH];
  const unsigned sizes[] = { 512, LENGTH, 4096 };
  static uint64_t cookies[DEPTH];
  unsigned i, j;

  (void) state;
  for (i = 0; i < DEPTH; i++)
    command (i, NBD_CMD_WRITE, sizes[i % 3]);
  for (i = 0; i < DEPTH; i++) {
    const struct proto_request r = request (NBD_CMD_WRITE);

    assert_true (be64toh (r.offset) == i * UINT64_C (65536));
    assert_int_equal (be32toh (r.length), sizes[i % 3]);
    receive (data, sizes[i % 3]);
    for (j = 0; j < sizes[i % 3] && data[j] == (uint8_t) (i + 1); j++)
      ;
    assert_int_equal (j, sizes[i % 3]);
    cookies[i] = r.cookie;
    if (i % 64 != 63)
      continue;
    for (j = i + 1; j-- > i - 63;)
      reply (cookies[j], j % 5 == 0 ? EIO : 0);
    until_answers (i + 1);
  }
  for (i = 0; i < DEPTH; i++)
    assert_int_equal (a.requests[i].error, i % 5 == 0 ? EIO : 0);
  assert_string_equal (said, "");
}

static void
reads (void **state)
{
  static uint8_t data[LENGTH];
  struct proto_request r[3];
  unsigned i;

  (void) state;
  for (i = 0; i < 3; i++)
    command (i, NBD_CMD_READ, LENGTH);
  for (i = 0; i < 3; i++)
    r[i] = request (NBD_CMD_READ);
  for (i = 3; i-- > 0;) {
    size_t done;

    reply (r[i].cookie, 0);
    memset (data, 100 + i, sizeof data);
    for (done = 0; done < LENGTH; done += 4096) {
      assert_int_equal (write (server, data, 4096), 4096);
      turn ();
    }
    until_answers (3 - i);
    assert_memory_equal (a.requests[i].buf, data, LENGTH);
  }
}

/* An answer to a command that the server cannot have seen all of, while its
 * data is on the way: it is taken, and what is sent stays in order. */
static void
early (void **state)
{
  static uint8_t data[LENGTH];
  struct proto_request r;

  (void) state;
  command (0, NBD_CMD_WRITE, LENGTH);
  r = request (NBD_CMD_WRITE);
  reply (r.cookie, EINVAL);
  until_answers (1);
  assert_int_equal (a.requests[0].error, EINVAL);
  command (0, NBD_CMD_FLUSH, 0);
  command (1, NBD_CMD_WRITE, LENGTH);
  receive (data, LENGTH);
  r = request (NBD_CMD_FLUSH);
  reply (r.cookie, 0);
  until_answers (2);
  r = request (NBD_CMD_WRITE);
  receive (data, LENGTH);
  assert_int_equal (data[LENGTH - 1], 2);
  assert_false (wire_ended (w));
}

static void
refused (const char *text)
{
  unsigned i;

  for (i = 0; i < PATIENCE && !wire_ended (w); i++)
    turn ();
  assert_true (wire_ended (w));
  assert_int_equal (answers, 0);
  assert_non_null (strstr (said, text));
  assert_false (wire_send (w, &a.requests[9].command[0]));
}

/* A cookie of a command that waits to be sent, and of none. */
static void
unknown (void **state)
{
  (void) state;
  command (0, NBD_CMD_FLUSH, 0);
  turn ();
  reply (htobe64 (UINT64_C (2) << 32 | 2), 0);
  refused ("not in flight");
}

static void
far (void **state)
{
  (void) state;
  command (0, NBD_CMD_FLUSH, 0);
  turn ();
  reply (htobe64 (UINT64_C (1) << 32 | UINT32_MAX), 0);
  refused ("not in flight");
}

static void
nonsense (void **state)
{
  (void) state;
  command (0, NBD_CMD_FLUSH, 0);
  turn ();
  assert_int_equal (write (server, "HTTP", 4), 4);
  refused ("no reply");
}

/* It goes away: idle, or in the middle of what is sent. */
static void
gone (void **state)
{
  unsigned i;

  (void) state;
  command (0, NBD_CMD_WRITE, LENGTH);
  turn ();
  close (server);
  server = -1;
  for (i = 0; i < PATIENCE && !wire_ended (w); i++)
    turn ();
  assert_true (wire_ended (w));
  assert_int_equal (answers, 0);
}

static void
gone_idle (void **state)
{
  unsigned i;

  (void) state;
  turn ();
  assert_false (wire_ended (w));
  close (server);
  server = -1;
  for (i = 0; i < PATIENCE && !wire_ended (w); i++)
    turn ();
  assert_true (wire_ended (w));
}

/* Given up with a message and a receive under way: what comes afterwards is
 * nobody's. */
static void
dropped (void **state)
{
  struct proto_request r;
  unsigned i;

  (void) state;
  command (0, NBD_CMD_WRITE, LENGTH);
  r = request (NBD_CMD_WRITE);
  reply (r.cookie, 0);
  wire_drop (w);
  w = NULL;
  for (i = 0; i < PATIENCE && a.old_wires; i++)
    turn ();
  assert_null (a.old_wires);
  assert_int_equal (answers, 0);
}

/* Before anything of it was in the ring. */
static void
dropped_at_once (void **state)
{
  (void) state;
  command (0, NBD_CMD_WRITE, LENGTH);
  wire_drop (w);
  w = NULL;
  turn ();
  assert_null (a.old_wires);
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, setup, teardown)

int
main (void)
{
  const struct CMUnitTest tests[] = {
    TEST (many),
    TEST (reads),
    TEST (early),
    TEST (unknown),
    TEST (far),
    TEST (nonsense),
    TEST (gone),
    TEST (gone_idle),
    TEST (dropped),
    TEST (dropped_at_once),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
