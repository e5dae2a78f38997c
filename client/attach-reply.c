/* SPDX-License-Identifier: BSD-3-Clause */
/* See attach-reply.h.  Bytes lie in a row, and a reply's data is used where
 * it was received.  What is incomplete moves to the front where the room
 * behind it gets short.
 */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "attach-reply.h"
#include "protocol.h"

/* Bytes of a chunk's payload: an error with its message, and a place. */
#define CHUNK_MAX (sizeof (struct proto_error) + NBD_MAX_STRING + 8)

/* Chunks of errors have this bit. */
#define TYPE_ERROR (1u << 15)

_Static_assert (REPLY_MEMORY (0) >= sizeof (struct proto_chunk) + CHUNK_MAX,
                "a chunk fits");

/* The protocol's numbers are Linux's, as far as it knows them. */
static int
error_of (uint32_t error)
{
  switch (error) {
  case EPERM:
  case EIO:
  case ENOMEM:
  case ENOSPC:
  case EOVERFLOW:
  case ENOTSUP:
  case ESHUTDOWN:
    return error;
  default:
    return EINVAL;
  }
}

static int
refuse (const char **why, const char *text)
{
  *why = text;
  return -1;
}

uint8_t *
reply_room (struct reply_reader *r, size_t *size)
{
  if (r->at == r->end)
    r->at = r->end = 0;
  else if (r->size - r->end < r->size / 2) {
    memmove (r->memory, r->memory + r->at, r->end - r->at);
    r->end -= r->at;
    r->at = 0;
  }
  *size = r->size - r->end;
  return r->memory + r->end;
}

void
reply_received (struct reply_reader *r, size_t n)
{
  r->end += n;
}

static int
simple_reply (struct reply_reader *r, struct reply_command **command,
              const char **why)
{
  struct proto_simple_reply reply;
  struct reply_command *c;
  uint32_t data;

  if (r->end - r->at < sizeof reply)
    return 0;
  memcpy (&reply, r->memory + r->at, sizeof reply);
  c = r->find (r->opaque, be64toh (reply.cookie));
  if (c == NULL)
    return refuse (why, "a reply to a command that is not in flight");
  /* A structured one may have begun. */
  if (r->structured && reply.error == 0 &&
      (c->type == NBD_CMD_READ || c->type == NBD_CMD_BLOCK_STATUS))
    return refuse (why, "a simple reply where it has to be a structured one");
  data = reply.error == 0 && c->type == NBD_CMD_READ ? c->length : 0;
  if (data > r->size - sizeof reply)
    return refuse (why, "a reply longer than anything that was asked for");
  if (r->end - r->at - sizeof reply < data)
    return 0;
  if (reply.error)
    c->error = error_of (be32toh (reply.error));
  c->data = r->memory + r->at + sizeof reply;
  r->at += sizeof reply + data;
  *command = c;
  return 1;
}

/* A chunk's payload, for its command. */
static int
take_chunk (struct reply_command *c, uint16_t type, const uint8_t *p,
            uint32_t length, const char **why)
{
  struct proto_extent extent;
  struct proto_error error;

  if (type & TYPE_ERROR) {
    if (length < sizeof error)
      return refuse (why, "an error without a number");
    memcpy (&error, p, sizeof error);
    if (be16toh (error.length) > length - sizeof error)
      return refuse (why, "an error whose message is cut");
    if (error.error == 0)
      return refuse (why, "an error that is none");
    if (c->error == 0)
      c->error = error_of (be32toh (error.error));
    return 0;
  }
  switch (type) {
  case NBD_REPLY_TYPE_NONE:
    return length == 0 ? 0 : refuse (why, "an empty chunk that is not empty");
  case NBD_REPLY_TYPE_BLOCK_STATUS:
    if (c->type != NBD_CMD_BLOCK_STATUS)
      return refuse (why, "block status that nobody asked for");
    /* Behind the context's number, which is the only one there is. */
    if (length < 4 + sizeof extent || (length - 4) % sizeof extent != 0)
      return refuse (why, "block status of an impossible length");
    if (c->told != 0)
      return refuse (why, "block status twice");
    memcpy (&extent, p + 4, sizeof extent);
    c->told = be32toh (extent.flags);
    return 0;
  }
  return refuse (why, "a chunk of a kind that nobody asked for");
}

static int
chunk (struct reply_reader *r, struct reply_command **command,
       const char **why)
{
  struct proto_chunk chunk;
  struct reply_command *c;
  uint32_t length;
  uint16_t flags, type;

  if (r->end - r->at < sizeof chunk)
    return 0;
  memcpy (&chunk, r->memory + r->at, sizeof chunk);
  flags = be16toh (chunk.flags);
  type = be16toh (chunk.type);
  length = be32toh (chunk.length);
  c = r->find (r->opaque, be64toh (chunk.cookie));
  if (c == NULL)
    return refuse (why, "a chunk for a command that is not in flight");
  if (length > CHUNK_MAX)
    return refuse (why, "a chunk that is too long");
  if (type == NBD_REPLY_TYPE_NONE && !(flags & NBD_REPLY_FLAG_DONE))
    return refuse (why, "an empty chunk that is not the last one");
  if (r->end - r->at - sizeof chunk < length)
    return 0;
  if (take_chunk (c, type, r->memory + r->at + sizeof chunk, length,
                  why) == -1)
    return -1;
  r->at += sizeof chunk + length;
  if (!(flags & NBD_REPLY_FLAG_DONE))
    return 2;
  *command = c;
  return 1;
}

int
reply_next (struct reply_reader *r, struct reply_command **command,
            const char **why)
{
  uint32_t magic;
  int n = 2;

  while (n == 2) {              /* chunks that are not the last ones */
    if (r->end - r->at < sizeof magic)
      return 0;
    memcpy (&magic, r->memory + r->at, sizeof magic);
    magic = be32toh (magic);
    if (magic == NBD_SIMPLE_REPLY_MAGIC)
      n = simple_reply (r, command, why);
    else if (magic == NBD_CHUNK_MAGIC && r->structured)
      n = chunk (r, command, why);
    else if (magic == NBD_CHUNK_MAGIC)
      return refuse (why, "a structured reply, which was not agreed on");
    else
      return refuse (why, "something that is no reply");
  }
  return n;
}
