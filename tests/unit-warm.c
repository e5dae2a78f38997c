/* SPDX-License-Identifier: BSD-3-Clause */
/* Once warm, znbd-server allocates nothing for a request: what two clients
 * ask of a real event loop, in memory and in an image, while malloc is
 * counted on all threads.  Warm it is when it has had as many requests under
 * way at once as there will be, which is up to how slow the kernel is: so it
 * has been given more than that before.
 */

#include <config.h>

#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "exports.h"
#include "image-disk.h"
#include "loop.h"
#include "memory.h"

#define WARM 20u                /* rounds before, */
#define ROUNDS 100u             /* and that are looked at */
#define AT_ONCE 256u            /* requests: more than in a round */
#define LARGE (256u << 10)

/* Zones: 0 is conventional, 2 is written, 3 appended to; all of 256 KiB. */
#define AT (2 * (uint64_t) ZONE)
#define APPENDED (3 * (uint64_t) ZONE)

/* What was allocated while counting; and how much. */
static _Atomic bool counting;
static _Atomic unsigned allocations;
static _Atomic size_t last;

void *__real_malloc (size_t size);
void *__real_calloc (size_t n, size_t size);
void *__real_realloc (void *p, size_t size);
int __real_posix_memalign (void **p, size_t alignment, size_t size);
void *__wrap_malloc (size_t size);
void *__wrap_calloc (size_t n, size_t size);
void *__wrap_realloc (void *p, size_t size);
int __wrap_posix_memalign (void **p, size_t alignment, size_t size);

static void
count (size_t size)
{
  if (!counting)
    return;
  allocations++;
  last = size;
}

void *
__wrap_malloc (size_t size)
{
  count (size);
  return __real_malloc (size);
}

void *
__wrap_calloc (size_t n, size_t size)
{
  count (n * size);
  return __real_calloc (n, size);
}

void *
__wrap_realloc (void *p, size_t size)
{
  count (size);
  return __real_realloc (p, size);
}

int
__wrap_posix_memalign (void **p, size_t alignment, size_t size)
{
  count (size);
  return __real_posix_memalign (p, alignment, size);
}

/* A loop is never freed: one for each test. */
static struct loop loops[2], *loop;
static struct client {
  int fd;
  uint8_t out[4u << 20];        /* to be sent */
  size_t out_len, out_sent;
  unsigned waiting;             /* answers to come */
  uint8_t in[4u << 20];         /* what has come and is not taken apart */
  size_t in_len;
  unsigned errors;
} writer, appender;

static void
put (struct client *c, const void *data, size_t n)
{
  assert_true (n <= sizeof c->out - c->out_len);
  memcpy (c->out + c->out_len, data, n);
  c->out_len += n;
}

static void
put_option (struct client *c, uint32_t option, const void *data, size_t n)
{
  struct proto_option head = {
    .magic = htobe64 (NBD_OPTION_MAGIC), .option = htobe32 (option),
    .length = htobe32 (n),
  };

  put (c, &head, sizeof head);
  put (c, data, n);
}

static void
ask (struct client *c, unsigned type, unsigned flags, uint64_t offset,
     uint32_t length)
{
  static const uint8_t data[LARGE];
  struct proto_request head = {
    .magic = htobe32 (NBD_REQUEST_MAGIC), .flags = htobe16 (flags),
    .type = htobe16 (type), .offset = htobe64 (offset),
    .length = htobe32 (length),
  };

  put (c, &head, sizeof head);
  if (type == NBD_CMD_WRITE)
    put (c, data, length);
  c->waiting++;
}

/* One message, if all of it is there: its length.  What is simple has no
 * payload here, for structured replies are negotiated. */
static size_t
take_message (struct client *c, const uint8_t *p, size_t n)
{
  struct proto_chunk chunk;
  struct proto_simple_reply simple;
  size_t size;

  if (n < sizeof simple)
    return 0;
  memcpy (&simple, p, sizeof simple);
  if (be32toh (simple.magic) == NBD_SIMPLE_REPLY_MAGIC) {
    assert_int_equal (simple.error, 0);
    c->waiting--;
    return sizeof simple;
  }
  if (n < sizeof chunk)
    return 0;
  memcpy (&chunk, p, sizeof chunk);
  assert_int_equal (be32toh (chunk.magic), NBD_CHUNK_MAGIC);
  size = sizeof chunk + be32toh (chunk.length);
  if (n < size)
    return 0;
  if (be16toh (chunk.type) == NBD_REPLY_TYPE_ERROR)
    c->errors++;
  if (be16toh (chunk.flags) & NBD_REPLY_FLAG_DONE)
    c->waiting--;
  return size;
}

/* Whether all was sent, and all is answered. */
static bool
is_done (struct client *c)
{
  size_t at = 0, n;
  ssize_t r;

  r = send (c->fd, c->out + c->out_sent, c->out_len - c->out_sent,
            MSG_DONTWAIT | MSG_NOSIGNAL);
  if (r > 0)
    c->out_sent += r;
  r = recv (c->fd, c->in + c->in_len, sizeof c->in - c->in_len, MSG_DONTWAIT);
  if (r > 0)
    c->in_len += r;
  while ((n = take_message (c, c->in + at, c->in_len - at)) > 0)
    at += n;
  c->in_len -= at;
  memmove (c->in, c->in + at, c->in_len);
  return c->out_sent == c->out_len && c->waiting == 0;
}

static void
converse (void)
{
  uint64_t end = loop_now () + 60000;
  bool done;

  do {
    assert_true (loop_turn (loop, false) >= 0);
    done = is_done (&writer);
    done = is_done (&appender) && done;
    assert_true (loop_now () < end);
  } while (!done);
  writer.out_len = writer.out_sent = 0;
  appender.out_len = appender.out_sent = 0;
}

/* Handshakes are not counted: their replies are thrown away. */
static void
connect_client (struct client *c, const char *const contexts[], unsigned n)
{
  uint32_t flags = htobe32 (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  uint8_t query[256] = { 0 };
  size_t at = 2 * sizeof (uint32_t);
  int fds[2];
  unsigned i;

  memset (c, 0, sizeof *c);
  assert_int_equal (socketpair (AF_UNIX, SOCK_STREAM, 0, fds), 0);
  c->fd = fds[0];
  conn_new (loop, fds[1]);
  put (c, &flags, sizeof flags);
  put_option (c, NBD_OPT_STRUCTURED_REPLY, "", 0);
  query[7] = n;
  for (i = 0; i < n; i++) {
    query[at + 3] = strlen (contexts[i]);
    memcpy (query + at + 4, contexts[i], strlen (contexts[i]));
    at += 4 + strlen (contexts[i]);
  }
  put_option (c, NBD_OPT_SET_META_CONTEXT, query, at);
  put_option (c, NBD_OPT_GO, "\0\0\0\0\0", 6);
  assert_int_equal (send (c->fd, c->out, c->out_len, 0), c->out_len);
  c->out_len = 0;
  for (i = 0; i < 100; i++)
    assert_true (loop_turn (loop, false) >= 0);
  assert_true (recv (c->fd, c->in, sizeof c->in, MSG_DONTWAIT) > 18);
  assert_int_equal (loop->conns->phase, CONN_TRANSMISSION);
}

/* Of all that clients do: the same each time, for the zones are empty at its
 * end.  No zone is reset before what is read of it has come. */
static void
round_of_requests (void)
{
  unsigned i;

  for (i = 0; i < 16; i++) {
    ask (&writer, NBD_CMD_WRITE, 0, i * K4, K4);
    ask (&writer, NBD_CMD_WRITE, i == 7 ? NBD_CMD_FLAG_FUA : 0, AT + i * K4,
         K4);
    ask (&appender, NBD_CMD_WRITE, 0, APPENDED + i * K4, K4);
    ask (&appender, NBD_CMD_BLOCK_STATUS, 0, APPENDED + i * K4, K4);
  }
  ask (&writer, NBD_CMD_WRITE, 0, AT + 18 * K4, 8 * K4);    /* waits */
  ask (&writer, NBD_CMD_WRITE, 0, AT + 16 * K4, 2 * K4);
  converse ();
  for (i = 0; i < 16; i++) {
    ask (&writer, NBD_CMD_READ, 0, i * K4, K4);
    ask (&writer, NBD_CMD_READ, 0, AT + i * K4, K4);
    ask (&writer, NBD_CMD_READ, 0, AT + (20 + i) * K4, K4);
  }
  ask (&writer, NBD_CMD_READ, 0, AT, LARGE);
  ask (&writer, NBD_CMD_READ, NBD_CMD_FLAG_DF, AT, LARGE);
  ask (&writer, NBD_CMD_WRITE, 0, AT, K4);                  /* refused */
  ask (&writer, NBD_CMD_BLOCK_STATUS, 0, 0, SIZE);
  ask (&writer, NBD_CMD_WRITE_ZEROES, 0, 8 * K4, 4 * K4);
  ask (&writer, NBD_CMD_CACHE, 0, AT, 4 * K4);
  ask (&writer, NBD_CMD_FLUSH, 0, 0, 0);
  converse ();
  ask (&writer, NBD_CMD_TRIM, 0, AT, 2 * ZONE);
  converse ();
}

/* As if all requests of a round, and more, were under way at once.  Of the
 * larger ones there are not so many. */
static void
fill_pools (void)
{
  static const struct { size_t size; unsigned n; } buffers[] = {
    { K4, AT_ONCE }, { 2 * K4, 8 }, { 8 * K4, 8 }, { LARGE, 8 },
  };
  struct request *requests[AT_ONCE];
  unsigned i, class;

  for (class = 0; class < sizeof buffers / sizeof buffers[0]; class++) {
    for (i = 0; i < buffers[class].n; i++) {
      requests[i] = request_new (loop->conns);
      assert_non_null (requests[i]);
      assert_true (request_buffer (requests[i], buffers[class].size));
    }
    while (i > 0)
      request_free (requests[--i]);
  }
}

static void
serve (struct zdisk *disk)
{
  static const char *const contexts[] = { "base:allocation", "x-zbd:zones" };
  static const char *const append[] = { "x-zbd:append" };
  unsigned i;

  if (disk == NULL)
    fail_msg ("%s", err.text);
  assert_int_equal (exports_init (disk, "", false), 0);
  assert_int_equal (zdisk_start (disk, &err), 0);
  assert_int_equal (loop_open (loop, disk, &err), 0);
  connect_client (&writer, contexts, 2);
  connect_client (&appender, append, 1);
  fill_pools ();
  for (i = 0; i < WARM; i++)
    round_of_requests ();
  writer.errors = appender.errors = 0;
  allocations = 0;
  counting = true;
  for (i = 0; i < ROUNDS; i++)
    round_of_requests ();
  counting = false;
  /* What is refused has its reason; nothing else is. */
  assert_int_equal (writer.errors, ROUNDS);
  assert_int_equal (appender.errors, 0);
  if (allocations > 0)
    print_message ("# %u allocations, the last of %zu bytes\n", allocations,
                   last);
  assert_int_equal (allocations, 0);
  close (writer.fd);
  close (appender.fd);
  for (i = 0; i < 1000 && loop->conns; i++)
    assert_true (loop_turn (loop, false) >= 0);
  assert_null (loop->conns);
  exports_free ();
  close_disk (disk);
}

static void
in_memory (void **state)
{
  struct store_geometry g = geometry ();
  struct store *store;

  (void) state;
  assert_int_equal (store_geometry_check (&g, &err), 0);
  store = memory_new (&g, &err);
  assert_non_null (store);
  loop = &loops[0];
  serve (zdisk_new (store, NULL, &err));
}

static void
in_an_image (void **state)
{
  (void) state;
  create ();
  loop = &loops[1];
  serve (try_open (path, false));
}

/* The others see nothing where nothing is seen. */
static void
counts (void **state)
{
  void *volatile p;

  (void) state;
  allocations = 0;
  counting = true;
  p = malloc (1);
  counting = false;
  free (p);
  assert_int_equal (allocations, 1);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (counts),
    cmocka_unit_test (in_memory),
    cmocka_unit_test (in_an_image),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
