/* SPDX-License-Identifier: BSD-3-Clause */
/* See reply.h. */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "reply.h"

/* The errors that the protocol knows. */
static uint32_t
wire_error (int error)
{
  switch (error) {
  case EPERM:
  case EROFS:
    return 1;
  case EIO:
    return 5;
  case ENOMEM:
    return 12;
  case ENOSPC:
  case EDQUOT:
  case EFBIG:
    return 28;
  case EOVERFLOW:
    return 75;
  case ENOTSUP:
    return 95;
  case ESHUTDOWN:
    return 108;
  default:
    return 22;                  /* EINVAL */
  }
}

size_t
reply_chunk (const struct request *req, uint8_t *p, uint16_t flags,
             uint16_t type, uint64_t length)
{
  if (req->conn->extended) {
    struct proto_chunk_ext chunk = {
      .magic = htobe32 (NBD_REPLY_EXT_MAGIC),
      .flags = htobe16 (flags),
      .type = htobe16 (type),
      .cookie = req->cookie,
      .offset = htobe64 (req->offset),
      .length = htobe64 (length),
    };

    memcpy (p, &chunk, sizeof chunk);
    return sizeof chunk;
  }
  else {
    struct proto_chunk chunk = {
      .magic = htobe32 (NBD_CHUNK_MAGIC),
      .flags = htobe16 (flags),
      .type = htobe16 (type),
      .cookie = req->cookie,
      .length = htobe32 (length),
    };

    memcpy (p, &chunk, sizeof chunk);
    return sizeof chunk;
  }
}

static size_t
simple_reply (const struct request *req, uint8_t *p, uint32_t error)
{
  struct proto_simple_reply reply = {
    .magic = htobe32 (NBD_SIMPLE_REPLY_MAGIC),
    .error = htobe32 (error),
    .cookie = req->cookie,
  };

  memcpy (p, &reply, sizeof reply);
  return sizeof reply;
}

static void
add_out (struct request *req, const void *p, size_t length)
{
  req->out[req->nout].iov_base = (void *) p;
  req->out[req->nout++].iov_len = length;
}

void
reply_error (struct request *req, int error, const char *message)
{
  size_t n = message ? strlen (message) : 0, size;
  struct proto_error e = {
    .error = htobe32 (wire_error (error)), .length = htobe16 (n),
  };

  req->nout = 0;
  req->error = error;
  req->why = message;
  if (!req->conn->structured)
    size = simple_reply (req, req->head, wire_error (error));
  else {
    size = reply_chunk (req, req->head, NBD_REPLY_FLAG_DONE,
                        NBD_REPLY_TYPE_ERROR, sizeof e + n);
    memcpy (req->head + size, &e, sizeof e);
    size += sizeof e;
  }
  add_out (req, req->head, size);
  if (n > 0 && req->conn->structured)
    add_out (req, message, n);
  conn_reply (req);
}

void
reply_ok (struct request *req)
{
  req->nout = 0;
  add_out (req, req->head, req->conn->extended
           ? reply_chunk (req, req->head, NBD_REPLY_FLAG_DONE,
                          NBD_REPLY_TYPE_NONE, 0)
           : simple_reply (req, req->head, 0));
  conn_reply (req);
}

void
reply_read (struct request *req)
{
  unsigned n = req->u.read.npieces, i;
  const uint8_t *data = req->buf;
  uint8_t *head = req->head;
  bool begun = false;
  uint64_t offset;
  size_t size;

  req->nout = 0;
  if (!req->conn->structured) {
    add_out (req, head, simple_reply (req, head, 0));
    if (req->length > 0)
      add_out (req, data, req->length);
    conn_reply (req);
    return;
  }
  if (req->length == 0) {
    add_out (req, head, reply_chunk (req, head, NBD_REPLY_FLAG_DONE,
                                     NBD_REPLY_TYPE_NONE, 0));
    conn_reply (req);
    return;
  }
  for (i = 0; i < n; i++) {
    const struct read_piece *piece = &req->u.read.piece[i];
    uint16_t flags = i == n - 1 ? NBD_REPLY_FLAG_DONE : 0;

    if (piece->hole) {
      struct proto_hole hole = {
        .offset = htobe64 (piece->offset), .length = htobe32 (piece->length),
      };

      size = reply_chunk (req, head, flags, NBD_REPLY_TYPE_OFFSET_HOLE,
                          sizeof hole);
      memcpy (head + size, &hole, sizeof hole);
      add_out (req, head, size + sizeof hole);
      head += size + sizeof hole;
      /* A hole between data was read with it. */
      if (begun)
        data += piece->length;
      continue;
    }
    begun = true;
    offset = htobe64 (piece->offset);
    size = reply_chunk (req, head, flags, NBD_REPLY_TYPE_OFFSET_DATA,
                        sizeof offset + piece->length);
    memcpy (head + size, &offset, sizeof offset);
    add_out (req, head, size + sizeof offset);
    head += size + sizeof offset;
    add_out (req, data, piece->length);
    data += piece->length;
  }
  conn_reply (req);
}
