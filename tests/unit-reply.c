/* SPDX-License-Identifier: BSD-3-Clause */
/* What znbd attach makes of a server's replies: right ones, cut anywhere,
 * each that is wrong, and any bytes changed.
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

#include <cmocka.h>

#include "attach-reply.h"
#include "protocol.h"

#define LONGEST 12288u

/* ---- commands in flight, by cookie 1... ---- */

#define COMMANDS 4u

static struct reply_command commands[COMMANDS];
static bool in_flight[COMMANDS];

static struct reply_command *
find (void *opaque, uint64_t cookie)
{
  assert_ptr_equal (opaque, commands);
  return cookie >= 1 && cookie <= COMMANDS && in_flight[cookie - 1]
    ? &commands[cookie - 1] : NULL;
}

static void
fly (unsigned cookie, uint16_t type, uint32_t length)
{
  commands[cookie - 1] = (struct reply_command) {
    .cookie = cookie, .type = type, .length = length,
  };
  in_flight[cookie - 1] = true;
}

/* ---- what a server sends ---- */

static uint8_t wire[3 * LONGEST];
static size_t wire_size;

static void
put (const void *p, size_t n)
{
  assert_true (n <= sizeof wire - wire_size);
  memcpy (wire + wire_size, p, n);
  wire_size += n;
}

static void
put_simple (uint64_t cookie, uint32_t error, uint32_t data)
{
  const struct proto_simple_reply reply = {
    .magic = htobe32 (NBD_SIMPLE_REPLY_MAGIC), .error = htobe32 (error),
    .cookie = htobe64 (cookie),
  };
  uint32_t i;

  put (&reply, sizeof reply);
  for (i = 0; i < data; i++) {
    const uint8_t byte = i + cookie + i / 251;

    put (&byte, 1);
  }
}

static void
check_data (const struct reply_command *c)
{
  uint32_t i;

  for (i = 0; i < c->length; i++)
    assert_int_equal (c->data[i], (uint8_t) (i + c->cookie + i / 251));
}

static void
put_chunk (uint64_t cookie, uint16_t flags, uint16_t type, const void *p,
           uint32_t length)
{
  const struct proto_chunk chunk = {
    .magic = htobe32 (NBD_CHUNK_MAGIC), .flags = htobe16 (flags),
    .type = htobe16 (type), .cookie = htobe64 (cookie),
    .length = htobe32 (length),
  };

  put (&chunk, sizeof chunk);
  if (p)
    put (p, length);
}

/* An error's chunk whose message has said bytes, of which some come. */
static void
put_error (uint64_t cookie, uint16_t flags, uint16_t type, uint32_t error,
           uint16_t said, uint32_t come)
{
  uint8_t p[sizeof (struct proto_error) + 8192];
  const struct proto_error e = {
    .error = htobe32 (error), .length = htobe16 (said),
  };

  memset (p, 'x', sizeof p);
  memcpy (p, &e, sizeof e);
  put_chunk (cookie, flags, type, p, sizeof e + come);
}

static void
put_status (uint64_t cookie, uint16_t flags, uint32_t told, uint32_t length)
{
  const uint32_t p[7] = {
    htobe32 (7), htobe32 (4096), htobe32 (told), htobe32 (4096),
    htobe32 (told + 1), 0, 0,
  };

  put_chunk (cookie, flags, NBD_REPLY_TYPE_BLOCK_STATUS, p, length);
}

/* ---- reading it ---- */

struct result {
  unsigned answered;
  uint64_t order[16];
  const char *why;              /* NULL: all was taken */
};

/* Gives a reader all of it, at most piece bytes at once; 0: as many as it
 * has room for.  sound: what is read is what was put. */
static struct result
give (bool structured, size_t piece, bool sound)
{
  struct result result = { 0 };
  struct reply_reader r = {
    .find = find, .opaque = commands, .structured = structured,
    .size = REPLY_MEMORY (LONGEST),
  };
  struct reply_command *c;
  size_t given = 0, n;
  uint8_t *room;
  int next;

  r.memory = malloc (r.size);   /* a sanitizer watches its ends */
  assert_non_null (r.memory);
  while (given < wire_size && result.why == NULL) {
    room = reply_room (&r, &n);
    assert_true (n > 0);
    assert_true (room >= r.memory && n <= r.size -
                 (size_t) (room - r.memory));
    if (piece > 0 && n > piece)
      n = piece;
    if (n > wire_size - given)
      n = wire_size - given;
    memcpy (room, wire + given, n);
    given += n;
    reply_received (&r, n);
    while ((next = reply_next (&r, &c, &result.why)) == 1) {
      assert_true (c >= commands && c < commands + COMMANDS);
      assert_true (in_flight[c->cookie - 1]);
      in_flight[c->cookie - 1] = false;
      if (c->type == NBD_CMD_READ && c->error == 0) {
        assert_true (c->data >= r.memory && c->length <= r.size -
                     (size_t) (c->data - r.memory));
        if (sound)
          check_data (c);
      }
      if (result.answered < 16)
        result.order[result.answered] = c->cookie;
      result.answered++;
    }
    assert_int_equal (next == -1, result.why != NULL);
  }
  free (r.memory);
  return result;
}

static void
start (void)
{
  wire_size = 0;
  memset (in_flight, 0, sizeof in_flight);
}

/* ---- right ones ---- */

static void
simple (void **state)
{
  size_t piece;

  (void) state;
  for (piece = 0; piece < 40; piece++) {
    struct result result;

    start ();
    fly (1, NBD_CMD_WRITE, 4096);
    fly (2, NBD_CMD_READ, LONGEST);
    fly (3, NBD_CMD_READ, 4096);
    fly (4, NBD_CMD_READ, 512);
    put_simple (4, 0, 512);
    put_simple (2, 0, LONGEST);
    put_simple (3, 28, 0);
    put_simple (1, 0, 0);
    result = give (false, piece, true);
    assert_null (result.why);
    assert_int_equal (result.answered, 4);
    assert_true (result.order[0] == 4 && result.order[1] == 2 &&
                 result.order[2] == 3 && result.order[3] == 1);
    assert_int_equal (commands[0].error, 0);
    assert_int_equal (commands[1].error, 0);
    assert_int_equal (commands[2].error, ENOSPC);
    assert_int_equal (commands[3].error, 0);
  }
}

static void
structured (void **state)
{
  size_t piece;

  (void) state;
  for (piece = 0; piece < 40; piece++) {
    struct result result;

    start ();
    fly (1, NBD_CMD_WRITE, 4096);
    fly (2, NBD_CMD_BLOCK_STATUS, 4096);
    fly (3, NBD_CMD_WRITE, 4096);
    fly (4, NBD_CMD_BLOCK_STATUS, 4096);
    put_chunk (1, 1, NBD_REPLY_TYPE_NONE, NULL, 0);
    put_status (2, 1, 77, 12);
    put_error (3, 0, NBD_REPLY_TYPE_ERROR, 75, 4096, 4096);
    put_status (4, 0, 5, 20);
    put_error (3, 1, 1 << 15 | 2, 5, 3, 11);    /* with a place */
    put_error (4, 1, 1 << 15 | 99, 1234, 0, 0); /* of a later day */
    result = give (true, piece, true);
    assert_null (result.why);
    assert_int_equal (result.answered, 4);
    assert_int_equal (commands[0].error, 0);
    assert_int_equal (commands[1].error, 0);
    assert_int_equal (commands[1].told, 77);
    assert_int_equal (commands[2].error, EOVERFLOW);    /* the first one */
    assert_int_equal (commands[3].error, EINVAL);
  }
}

/* A simple one does for what has no data, also where structured ones were
 * agreed on. */
static void
mixed (void **state)
{
  struct result result;

  (void) state;
  start ();
  fly (1, NBD_CMD_WRITE, 4096);
  fly (2, NBD_CMD_BLOCK_STATUS, 4096);
  put_simple (2, 22, 0);
  put_simple (1, 0, 0);
  result = give (true, 0, true);
  assert_null (result.why);
  assert_int_equal (result.answered, 2);
  assert_int_equal (commands[1].error, EINVAL);
}

static void
errors (void **state)
{
  static const struct { uint32_t wire; int error; } known[] = {
    { 1, EPERM }, { 5, EIO }, { 12, ENOMEM }, { 22, EINVAL },
    { 28, ENOSPC }, { 75, EOVERFLOW }, { 95, ENOTSUP }, { 108, ESHUTDOWN },
    { 107, EINVAL }, { 110, EINVAL }, { 32, EINVAL }, { 104, EINVAL },
    { UINT32_MAX, EINVAL }, { 1u << 31, EINVAL },
  };
  unsigned i;

  (void) state;
  for (i = 0; i < sizeof known / sizeof known[0]; i++) {
    start ();
    fly (1, NBD_CMD_READ, 4096);
    put_simple (1, known[i].wire, 0);
    assert_int_equal (give (false, 0, true).answered, 1);
    assert_int_equal (commands[0].error, known[i].error);
  }
}

/* ---- wrong ones ---- */

static void
refused (bool structured, unsigned answered, const char *text)
{
  struct result result = give (structured, 0, true);

  assert_non_null (result.why);
  assert_non_null (strstr (result.why, text));
  assert_int_equal (result.answered, answered);
}

static void
begin (void)
{
  start ();
  fly (1, NBD_CMD_READ, 4096);
  fly (2, NBD_CMD_WRITE, 4096);
  fly (3, NBD_CMD_BLOCK_STATUS, 4096);
}

static void
wrong (void **state)
{
  (void) state;
  begin ();
  put_simple (4, 0, 0);
  refused (false, 0, "not in flight");
  begin ();
  put_simple (UINT64_MAX, 0, 0);
  refused (false, 0, "not in flight");
  begin ();
  put_simple (2, 0, 0);
  put_simple (2, 0, 0);
  refused (false, 1, "not in flight");
  begin ();
  put_simple (1, 0, 4096 + 1);
  put_simple (2, 0, 0);
  refused (false, 1, "no reply");
  begin ();
  put_simple (1, 5, 4);
  refused (false, 1, "no reply");
  begin ();
  put_chunk (2, 1, NBD_REPLY_TYPE_NONE, NULL, 0);
  refused (false, 0, "not agreed on");
  begin ();
  put_simple (1, 0, 4096);
  refused (true, 0, "has to be a structured one");
  begin ();
  put_simple (3, 0, 0);
  refused (true, 0, "has to be a structured one");
  begin ();
  put ("GET / HTTP/1.1\r\n", 16);
  refused (false, 0, "no reply");
}

static void
chunk_refused (uint64_t cookie, uint16_t flags, uint16_t type, const void *p,
               uint32_t length, const char *text)
{
  begin ();
  put_chunk (cookie, flags, type, p, length);
  refused (true, 0, text);
}

static void
status_refused (uint64_t cookie, uint16_t flags, uint32_t told,
                uint32_t length, const char *text)
{
  begin ();
  put_status (cookie, flags, told, length);
  refused (true, 0, text);
}

static void
error_refused (uint64_t cookie, uint16_t flags, uint16_t type,
               uint32_t error, uint16_t said, uint32_t come,
               const char *text)
{
  begin ();
  put_error (cookie, flags, type, error, said, come);
  refused (true, 0, text);
}

static void
wrong_chunks (void **state)
{
  static const uint8_t nothing[64];

  (void) state;
  chunk_refused (9, 1, NBD_REPLY_TYPE_NONE, NULL, 0, "not in flight");
  chunk_refused (2, 0, NBD_REPLY_TYPE_NONE, NULL, 0, "not the last one");
  chunk_refused (2, 1, NBD_REPLY_TYPE_NONE, nothing, 1, "not empty");
  chunk_refused (2, 1, NBD_REPLY_TYPE_OFFSET_DATA, nothing, 16,
                 "nobody asked for");
  chunk_refused (1, 1, NBD_REPLY_TYPE_OFFSET_HOLE, nothing, 12,
                 "nobody asked for");
  chunk_refused (1, 1, 1234, nothing, 12, "nobody asked for");
  status_refused (2, 1, 1, 12, "block status that nobody asked for");
  begin ();
  put_status (3, 0, 1, 12);
  put_status (3, 1, 1, 12);
  refused (true, 0, "block status twice");
  status_refused (3, 1, 1, 4, "impossible length");
  status_refused (3, 1, 1, 0, "impossible length");
  status_refused (3, 1, 1, 19, "impossible length");
  chunk_refused (3, 1, NBD_REPLY_TYPE_BLOCK_STATUS, NULL, UINT32_MAX,
                 "too long");
  chunk_refused (2, 1, NBD_REPLY_TYPE_ERROR, NULL, UINT32_MAX, "too long");
  chunk_refused (2, 1, NBD_REPLY_TYPE_ERROR, nothing, 5, "without a number");
  chunk_refused (2, 1, NBD_REPLY_TYPE_ERROR, NULL, 0, "without a number");
  chunk_refused (2, 1, NBD_REPLY_TYPE_ERROR, nothing, 6, "that is none");
  error_refused (2, 1, NBD_REPLY_TYPE_ERROR, 5, 4, 3, "is cut");
  error_refused (2, 1, NBD_REPLY_TYPE_ERROR, 5, UINT16_MAX, 4096, "is cut");
  error_refused (2, 1, NBD_REPLY_TYPE_ERROR, 5, 8000, 8000, "too long");
}

/* ---- any bytes ---- */

/* A reply never comes twice, and nothing is touched that is not the
 * reader's. */
static void
changed (void **state)
{
  unsigned n, i;

  (void) state;
  srand (5);
  for (n = 0; n < 20000; n++) {
    const bool is_structured = n % 2;

    start ();
    fly (1, NBD_CMD_READ, 512);
    fly (2, NBD_CMD_WRITE, 4096);
    fly (3, NBD_CMD_BLOCK_STATUS, 4096);
    fly (4, NBD_CMD_WRITE, 4096);
    if (is_structured) {
      put_chunk (2, 1, NBD_REPLY_TYPE_NONE, NULL, 0);
      put_status (3, 1, 77, 12);
      put_error (4, 0, NBD_REPLY_TYPE_ERROR, 75, 9, 9);
      put_chunk (4, 1, NBD_REPLY_TYPE_NONE, NULL, 0);
      put_error (1, 1, NBD_REPLY_TYPE_ERROR, 5, 2, 2);
    }
    else {
      put_simple (2, 0, 0);
      put_simple (1, 0, 512);
      put_simple (3, 22, 0);
      put_simple (4, 5, 0);
    }
    for (i = rand () % 4; i > 0; i--)
      wire[rand () % wire_size] = rand ();
    if (n % 5 == 0)
      wire_size = rand () % wire_size + 1;
    assert_true (give (is_structured, rand () % 60 + 1, false).answered <= 4);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (simple),
    cmocka_unit_test (structured),
    cmocka_unit_test (mixed),
    cmocka_unit_test (errors),
    cmocka_unit_test (wrong),
    cmocka_unit_test (wrong_chunks),
    cmocka_unit_test (changed),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
