/* SPDX-License-Identifier: BSD-3-Clause */
/* See request.h.  Everything that a header can say is checked here, but
 * what the disk checks anyway: bounds, alignment, whether the export may be
 * written.  A write that is refused has its payload read all the same, for
 * the next command begins behind it.
 */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "append.h"
#include "budget.h"
#include "buffers.h"
#include "debug.h"
#include "loop.h"
#include "reply.h"
#include "report.h"
#include "request.h"
#include "status.h"
#include "trace.h"

/* A payload that is larger than any that is served is read and forgotten;
 * one beyond this ends the connection. */
#define SKIP_MAX (2 * NBD_MAX_DATA)

/* What a payload may be that selects contexts. */
#define FILTER_MAX (sizeof (uint64_t) + 64 * sizeof (uint32_t))

void
request_complete (struct request *req)
{
  if (req->z.error)
    reply_error (req, req->z.error, req->z.reason);
  else
    reply_ok (req);
}

void
request_charge (struct request *req, size_t bytes)
{
  req->charge += bytes;
  budget_charge (req->conn, bytes);
}

void
request_submit (struct request *req, enum zdisk_op op, unsigned flags,
                uint64_t offset, uint64_t length,
                void (*complete) (struct request *req))
{
  req->complete = complete;
  req->z.op = op;
  req->z.flags = flags | (req->flags & NBD_CMD_FLAG_FUA ? ZDISK_FUA : 0) |
    (req->aside ? ZDISK_ASIDE : 0);
  req->z.offset = offset;
  req->z.length = length;
  req->z.buf = req->buf;
  req->z.done = loop_request_done;
  req->z.opaque = req;
  zdisk_submit (req->conn->client, &req->z, &req->conn->loop->ring);
}

static bool
collect_piece (void *opaque, uint64_t length, uint32_t flags)
{
  struct request *req = opaque;
  unsigned n = req->u.read.npieces;
  struct read_piece *piece = &req->u.read.piece[n];
  uint64_t offset = n ? piece[-1].offset + piece[-1].length : req->offset;

  /* The last one takes all the rest. */
  piece->hole = flags & REPORT_ZERO;
  piece->offset = offset;
  piece->length = length;
  req->u.read.npieces = ++n;
  if (n == READ_PIECES) {
    piece->hole = false;
    piece->length = req->offset + req->length - offset;
    return false;
  }
  return true;
}

static void
read_complete (struct request *req)
{
  if (req->z.error)
    reply_error (req, req->z.error, req->z.reason);
  else
    reply_read (req);
}

/* The reply with data that is in nobody's buffer; it counts all the same as
 * if it were, for it may have to be read yet. */
static void
reply_mapped (struct request *req)
{
  size_t bytes = buffer_size (req->length);

  req->mapped = true;
  req->charge += bytes;
  budget_charge (req->conn, bytes);
  reply_read (req);
}

void
request_read (struct request *req)
{
  size_t bytes = buffer_size (req->length);

  req->mapped = false;
  req->charge -= bytes;
  budget_release (req->conn, bytes);
  if (!request_buffer (req, req->length))
    reply_error (req, ENOMEM, "no memory for the read");
  else
    request_submit (req, ZDISK_READ, 0, req->offset, req->length,
                    read_complete);
}

bool
request_find (struct request *req)
{
  const void *data = zdisk_mapped (req->conn->export->disk, req->offset,
                                   req->length, req->conn->tls != NULL);

  if (data == NULL) {
    request_read (req);
    return false;
  }
  req->out[req->nout - 1].iov_base = (void *) data;
  return true;
}

/* What is above a pointer is sent as a hole, where the client takes that.
 * A pointer may move before the read: the pieces are those of one moment
 * of the request, data among them is read, and zeros if it went. */
static void
read_start (struct request *req)
{
  const struct conn *c = req->conn;
  const struct export *e = c->export;
  uint64_t offset = req->offset, end = req->offset + req->length;
  struct read_piece *pieces = req->u.read.piece;
  unsigned n = 0;

  req->u.read.npieces = 0;
  if (c->structured && !(req->flags & NBD_CMD_FLAG_DF) && req->length > 0 &&
      req->offset < e->size && req->length <= e->size - req->offset &&
      (req->offset | req->length) % e->min_block == 0 &&
      zdisk_data_ahead (e->disk, req->offset) < req->length) {
    report_allocation (e->disk, req->offset, req->length, collect_piece,
                       req);
    n = req->u.read.npieces;
    if (pieces[0].hole)
      offset = n > 1 ? pieces[1].offset : end;
    if (pieces[n - 1].hole && end > offset)
      end = pieces[n - 1].offset;
  }
  if (n == 0) {
    pieces[0] = (struct read_piece) {
      .offset = offset, .length = req->length
    };
    req->u.read.npieces = 1;
    if (zdisk_may_map (e->disk, offset, req->length)) {
      reply_mapped (req);
      return;
    }
  }
  if (offset == end && n > 0) {
    reply_read (req);
    return;
  }
  if (end > offset && !request_buffer (req, end - offset)) {
    reply_error (req, ENOMEM, "no memory for the read");
    return;
  }
  request_submit (req, ZDISK_READ, 0, offset, end - offset, read_complete);
}

static void
disk_start (struct request *req)
{
  unsigned flags = 0;
  enum zdisk_op op;

  switch (req->type) {
  case NBD_CMD_READ:
    read_start (req);
    return;
  case NBD_CMD_WRITE:
    if (append_wanted (req)) {
      append_start (req);
      return;
    }
    op = ZDISK_WRITE;
    break;
  case NBD_CMD_FLUSH:
    op = ZDISK_FLUSH;
    break;
  case NBD_CMD_TRIM:
    op = ZDISK_TRIM;
    break;
  case NBD_CMD_CACHE:
    op = ZDISK_CACHE;
    break;
  default:                      /* NBD_CMD_WRITE_ZEROES */
    op = ZDISK_ZERO;
    if (!(req->flags & NBD_CMD_FLAG_NO_HOLE))
      flags |= ZDISK_MAY_TRIM;
    if (req->flags & NBD_CMD_FLAG_FAST_ZERO)
      flags |= ZDISK_FAST_ZERO;
  }
  if (op == ZDISK_FLUSH)
    request_submit (req, op, flags, 0, 0, request_complete);
  else
    request_submit (req, op, flags, req->offset, req->length,
                    request_complete);
}

void
request_start (struct request *req)
{
  if (req->refused)
    reply_error (req, req->refused, req->why);
  else if (req->type == NBD_CMD_BLOCK_STATUS)
    status_start (req);
  else if (req->conn->export->table)
    table_export_start (req);
  else
    disk_start (req);
}

/* The flags that a command may carry. */
static unsigned
allowed_flags (const struct conn *c, unsigned type)
{
  unsigned flags = NBD_CMD_FLAG_FUA;

  switch (type) {
  case NBD_CMD_READ:
    if (c->structured)
      flags |= NBD_CMD_FLAG_DF;
    break;
  case NBD_CMD_WRITE:
    if (c->extended)
      flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    break;
  case NBD_CMD_WRITE_ZEROES:
    flags |= NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    break;
  case NBD_CMD_BLOCK_STATUS:
    flags |= NBD_CMD_FLAG_REQ_ONE;
    if (c->extended && c->contexts)
      flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    break;
  }
  return flags;
}

static void
refuse (struct request *req, const char *why)
{
  req->refused = EINVAL;
  req->why = why;
}

static void
check (struct request *req)
{
  const struct conn *c = req->conn;

  if (req->type > NBD_CMD_BLOCK_STATUS)
    refuse (req, "unknown command");
  else if (req->flags & ~allowed_flags (c, req->type))
    refuse (req, "the command does not have these flags");
  else if ((req->type == NBD_CMD_READ || req->type == NBD_CMD_WRITE) &&
           req->length > c->export->max_block)
    refuse (req, "longer than the maximum block size");
  else if (req->type == NBD_CMD_BLOCK_STATUS &&
           (req->flags & NBD_CMD_FLAG_PAYLOAD_LEN) &&
           (req->length > FILTER_MAX || req->length < sizeof (uint64_t) ||
            req->length % sizeof (uint32_t) != 0))
    refuse (req, "wrong length of a payload that selects contexts");
}

/* The payload that follows.  A write's needs no flag: QEMU, up to 10 at least,
 * sends none with extended headers. */
static uint64_t
payload_of (const struct request *req)
{
  return req->type == NBD_CMD_WRITE ||
    (req->conn->extended && (req->flags & NBD_CMD_FLAG_PAYLOAD_LEN))
    ? req->length : 0;
}

/* What its buffer will hold, and what a report takes that it waits for. */
static uint64_t
memory_of (const struct request *req, uint64_t payload)
{
  const struct export *e = req->conn->export;

  if (req->refused)
    return 0;
  if (req->type == NBD_CMD_READ)
    return req->length + (e->table && zdisk_mirrors (e->disk)
                          ? ZDISK_REFRESH_MEMORY : 0);
  if (req->type == NBD_CMD_BLOCK_STATUS)
    return status_memory (req);
  return payload;
}

/* Returns the header's size, or 0 where it is no request's. */
static size_t
decode (struct request *req, const uint8_t *p)
{
  struct proto_request_ext ext;
  struct proto_request r;

  if (req->conn->extended) {
    memcpy (&ext, p, sizeof ext);
    req->flags = be16toh (ext.flags);
    req->type = be16toh (ext.type);
    req->cookie = ext.cookie;
    req->offset = be64toh (ext.offset);
    req->length = be64toh (ext.length);
    return be32toh (ext.magic) == NBD_REQUEST_EXT_MAGIC ? sizeof ext : 0;
  }
  memcpy (&r, p, sizeof r);
  req->flags = be16toh (r.flags);
  req->type = be16toh (r.type);
  req->cookie = r.cookie;
  req->offset = be64toh (r.offset);
  req->length = be32toh (r.length);
  return be32toh (r.magic) == NBD_REQUEST_MAGIC ? sizeof r : 0;
}

ssize_t
request_parse (struct conn *c, const uint8_t *p, size_t n)
{
  struct request *req;
  uint64_t payload;
  size_t size;

  if (n < (c->extended ? sizeof (struct proto_request_ext)
           : sizeof (struct proto_request)))
    return 0;
  req = request_new (c);
  if (req == NULL) {
    conn_kill (c, "no memory for its request");
    return 0;
  }
  size = decode (req, p);
  if (size == 0) {
    request_free (req);
    conn_kill (c, "wrong request magic");
    return 0;
  }
  if (req->type == NBD_CMD_DISC) {
    request_free (req);
    conn_drain (c);
    return size;
  }
  check (req);
  payload = payload_of (req);
  if (payload > SKIP_MAX) {
    request_free (req);
    conn_kill (c, "a payload is far too large");
    return 0;
  }
  if (!budget_allows (c, memory_of (req, payload))) {
    request_free (req);
    return REQUEST_WAITS;
  }
  if (debug_is_on (server_requests))
    trace_request (req);
  if (debug_is_on (server_replies) || debug_is_on (server_slow))
    req->came_at = debug_now ();
  if (payload > 0) {
    if (!req->refused && !request_buffer (req, payload)) {
      req->refused = ENOMEM;
      req->why = "no memory for the payload";
    }
    c->filling = req;
    c->payload_left = payload;
    pace_begin (&c->fill_pace, c->loop->now);
  }
  else
    request_start (req);
  return size;
}
