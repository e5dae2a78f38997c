/* SPDX-License-Identifier: BSD-3-Clause */
/* libFuzzer's mutations keep little of a protocol with lengths whole, so
 * every other one is of messages: copied, dropped, swapped, a field of one
 * set to an edge, another client's turn put between two.  What an option
 * carries gets libFuzzer's mutations and then its right length.
 *
 * Where a message begins is told by its magic alone: what is none passes as
 * it is.
 */

#include <config.h>

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "protocol.h"
#include "target.h"

/* libFuzzer's own. */
size_t LLVMFuzzerMutate (uint8_t *data, size_t size, size_t max_size);

#define MARK_SIZE (sizeof MARK - 1 + 1)
#define MESSAGES_MAX 256

struct message {
  uint8_t *p;
  size_t size;
};

static uint32_t state;

static unsigned
choose (unsigned n)
{
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state % n;
}

/* The size of the message at p that its header claims, or 0: none. */
static uint64_t
message_size (const uint8_t *p, size_t n)
{
  struct proto_option option;
  struct proto_request request;
  struct proto_request_ext ext;

  if (n >= MARK_SIZE && memcmp (p, MARK, MARK_SIZE - 1) == 0)
    return MARK_SIZE;
  if (n >= sizeof option) {
    memcpy (&option, p, sizeof option);
    if (option.magic == htobe64 (NBD_OPTION_MAGIC))
      return sizeof option + (uint64_t) be32toh (option.length);
  }
  if (n >= sizeof ext) {
    memcpy (&ext, p, sizeof ext);
    if (ext.magic == htobe32 (NBD_REQUEST_EXT_MAGIC))
      return sizeof ext + (be16toh (ext.flags) & NBD_CMD_FLAG_PAYLOAD_LEN
                           ? be64toh (ext.length) : 0);
  }
  if (n >= sizeof request) {
    memcpy (&request, p, sizeof request);
    if (request.magic == htobe32 (NBD_REQUEST_MAGIC))
      return sizeof request + (be16toh (request.type) == NBD_CMD_WRITE
                               ? be32toh (request.length) : 0);
  }
  return 0;
}

/* Cuts an input into messages; what is none is one up to the next. */
static unsigned
cut (uint8_t *p, size_t n, struct message m[MESSAGES_MAX])
{
  unsigned count = 0;
  uint64_t size;
  size_t at;

  while (n > 0 && count < MESSAGES_MAX) {
    size = message_size (p, n);
    if (size == 0)
      for (at = 1; at < n && message_size (p + at, n - at) == 0; at++)
        ;
    else
      at = size < n ? size : n;
    m[count++] = (struct message) { .p = p, .size = at };
    p += at;
    n -= at;
  }
  return count;
}

static uint64_t
edge (void)
{
  static const uint64_t edges[] = {
    0, 1, 8, 64, 511, 512, 4096, 32768, 65536, 131072, 1 << 20,
    32 << 20, (32 << 20) + 4096, UINT32_MAX, UINT64_C (1) << 32,
    UINT64_C (1) << 40, INT64_MAX, UINT64_C (1) << 63, UINT64_MAX,
  };
  uint64_t v = edges[choose (sizeof edges / sizeof edges[0])];

  switch (choose (4)) {
  case 0:
    return v - 4096;
  case 1:
    return v + 512 * choose (300);
  default:
    return v;
  }
}

/* A field of a request. */
static void
change_request (uint8_t *p, bool extended)
{
  struct proto_request_ext r;

  /* Both begin alike. */
  memcpy (&r, p, sizeof (struct proto_request));
  switch (choose (4)) {
  case 0:
    r.flags ^= htobe16 (1u << choose (7));
    break;
  case 1:
    r.type = htobe16 (choose (10));
    break;
  case 2:
    r.offset = htobe64 (choose (2) ? edge () : choose (600) * 4096u);
    break;
  default:
    if (extended) {
      r.length = htobe64 (edge ());
      memcpy (p + offsetof (struct proto_request_ext, length), &r.length,
              sizeof r.length);
    }
    else {
      uint32_t length = htobe32 (edge ());

      memcpy (p + offsetof (struct proto_request, length), &length,
              sizeof length);
    }
  }
  memcpy (p, &r, offsetof (struct proto_request, length));
}

/* Makes room for, or takes away, bytes in the middle; the new size. */
static size_t
splice (uint8_t *data, size_t size, uint8_t *at, size_t before, size_t after)
{
  memmove (at + after, at + before, data + size - at - before);
  return size - before + after;
}

/* The data of an option, with the header's length set right. */
static size_t
change_option (uint8_t *data, size_t size, size_t room,
               const struct message *m)
{
  struct proto_option head;
  uint8_t body[4096];
  size_t n = m->size - sizeof head, most = sizeof body;

  memcpy (&head, m->p, sizeof head);
  if (choose (3) == 0) {
    head.option = htobe32 (choose (13));
    memcpy (m->p, &head, sizeof head);
    return size;
  }
  if (n > sizeof body)
    return size;
  if (most > n + room)
    most = n + room;
  if (most == 0)
    return size;
  memcpy (body, m->p + sizeof head, n);
  most = LLVMFuzzerMutate (body, n, most);
  size = splice (data, size, m->p + sizeof head, n, most);
  memcpy (m->p + sizeof head, body, most);
  head.length = htobe32 (most);
  memcpy (m->p, &head, sizeof head);
  return size;
}

size_t
LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t max_size,
                         unsigned seed)
{
  struct message m[MESSAGES_MAX];
  static uint8_t copy[1 << 16];
  const struct message *one, *other;
  size_t room = max_size - size;
  uint32_t magic = 0;
  unsigned count;

  state = seed | 1;
  choose (2);
  count = choose (2) && size > 1 ? cut (data + 1, size - 1, m) : 0;
  if (count == 0)
    return LLVMFuzzerMutate (data, size, max_size);
  one = &m[choose (count)];
  other = &m[choose (count)];
  switch (choose (6)) {
  case 0:
    if (one->size > room || one->size > sizeof copy)
      break;
    memcpy (copy, one->p, one->size);
    size = splice (data, size, other->p, 0, one->size);
    memcpy (other->p, copy, one->size);
    return size;
  case 1:
    return count > 1 ? splice (data, size, one->p, one->size, 0) : size;
  case 2:
    if (room < MARK_SIZE)
      break;
    size = splice (data, size, one->p, 0, MARK_SIZE);
    memcpy (one->p, MARK, MARK_SIZE - 1);
    one->p[MARK_SIZE - 1] = choose (64);
    return size;
  default:
    memcpy (&magic, one->p, one->size < 4 ? one->size : 4);
    magic = be32toh (magic);
    if (one->size >= sizeof (struct proto_option) &&
        magic == NBD_OPTION_MAGIC >> 32)
      return change_option (data, size, room, one);
    if (one->size >= sizeof (struct proto_request_ext) &&
        magic == NBD_REQUEST_EXT_MAGIC)
      change_request (one->p, true);
    else if (one->size >= sizeof (struct proto_request) &&
             magic == NBD_REQUEST_MAGIC)
      change_request (one->p, false);
    else
      break;
    return size;
  }
  return LLVMFuzzerMutate (data, size, max_size);
}
