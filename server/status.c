/* SPDX-License-Identifier: BSD-3-Clause */
/* See status.h.  The reply is one chunk for each context, built in one
 * buffer.
 */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "append.h"
#include "buffers.h"
#include "loop.h"
#include "reply.h"
#include "report.h"
#include "request.h"
#include "status.h"

/* Descriptors of one chunk.  The client asks on for what is behind. */
#define DESCRIPTORS_MAX 32768u

/* Zones that a reply tells of: more than any disk on the market has, so that
 * an empty one is one descriptor.  The client asks on here,
 * too. */
#define ZONES_MAX (2 * LOOP_ZONES)

/* To look at so many zones takes no longer than other requests do. */
#define ZONES_FEW 64

/* Builds the reply in the request's buffer. */
struct builder {
  struct request *req;
  uint8_t *p;                   /* where the next byte goes */
  uint8_t *chunk;               /* the chunk being built */
  unsigned count, max;          /* its descriptors */
};

/* A chunk's bytes before its descriptors: header, id, and count. */
static size_t
chunk_overhead (const struct conn *c)
{
  return c->extended
    ? sizeof (struct proto_chunk_ext) + 2 * sizeof (uint32_t)
    : sizeof (struct proto_chunk) + sizeof (uint32_t);
}

static size_t
descriptor_size (const struct conn *c)
{
  return c->extended ? sizeof (struct proto_extent_ext)
    : sizeof (struct proto_extent);
}

static bool
add (void *opaque, uint64_t length, uint32_t flags)
{
  struct builder *b = opaque;

  if (b->req->conn->extended) {
    struct proto_extent_ext e = {
      .length = htobe64 (length), .flags = htobe64 (flags),
    };

    memcpy (b->p, &e, sizeof e);
    b->p += sizeof e;
  }
  else {
    struct proto_extent e = {
      .length = htobe32 (length), .flags = htobe32 (flags),
    };

    memcpy (b->p, &e, sizeof e);
    b->p += sizeof e;
  }
  return ++b->count < b->max;
}

static void
begin_chunk (struct builder *b, unsigned max)
{
  b->chunk = b->p;
  b->p += chunk_overhead (b->req->conn);
  b->count = 0;
  b->max = max;
}

static void
end_chunk (struct builder *b, enum context k, bool last)
{
  bool extended = b->req->conn->extended;
  uint32_t id = htobe32 (k + 1), count = htobe32 (b->count);
  size_t n = b->count * descriptor_size (b->req->conn) + sizeof id +
    (extended ? sizeof count : 0);
  uint8_t *p = b->chunk;

  p += reply_chunk (b->req, p, last ? NBD_REPLY_FLAG_DONE : 0,
                    extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT
                    : NBD_REPLY_TYPE_BLOCK_STATUS, n);
  memcpy (p, &id, sizeof id);
  if (extended)
    memcpy (p + sizeof id, &count, sizeof count);
}

static void
send_built (struct builder *b)
{
  b->req->out[0].iov_base = b->req->buf;
  b->req->out[0].iov_len = b->p - b->req->buf;
  b->req->nout = 1;
  conn_reply (b->req);
}

/* A buffer for the reply; that of a filter's payload is done with. */
static bool
reply_buffer (struct request *req, size_t size)
{
  request_drop_buffer (req);
  return request_buffer (req, size);
}

static enum context
only_context (uint32_t contexts)
{
  return (enum context) __builtin_ctz (contexts);
}

void
status_reply_one (struct request *req, uint64_t length, uint64_t flags)
{
  struct builder b = { .req = req };

  if (!reply_buffer (req, BUFFER_MIN)) {
    reply_error (req, ENOMEM, "no memory for the status");
    return;
  }
  b.p = req->buf;
  begin_chunk (&b, 1);
  add (&b, length, flags);
  end_chunk (&b, only_context (req->u.status.contexts), true);
  send_built (&b);
}

static void
manage_complete (struct request *req)
{
  uint64_t done = req->u.status.answered;

  /* Of a range, what was done before a zone refused. */
  if (done == 0 && req->z.result > 0)
    done = req->z.result;
  else if (req->z.error) {
    reply_error (req, req->z.error, req->z.reason);
    return;
  }
  status_reply_one (req, done, 1);
}

/* An armed request of zone management. */
static void
manage_start (struct request *req)
{
  const struct export *e = req->conn->export;
  const struct znbd_geometry *g = zdisk_geometry (e->disk);
  unsigned k = only_context (req->u.status.contexts) - CONTEXT_OPEN;
  enum zdisk_op op = ZDISK_OPEN + k % 4;
  uint64_t length = req->length;

  req->u.status.answered = 0;
  if (req->length == g->granularity)
    req->u.status.answered = g->granularity;
  if (k >= CONTEXT_OPEN_ALL - CONTEXT_OPEN) {
    if (req->offset != 0 || req->length != g->granularity)
      reply_error (req, EINVAL, "all zones: the offset is 0 and the length "
                   "one block");
    else
      request_submit (req, op, ZDISK_ALL, 0, 0, manage_complete);
    return;
  }
  if (req->offset % g->zone_size != 0) {
    reply_error (req, EINVAL, "the offset is no zone's start");
    return;
  }
  if (length == g->granularity && length < g->zone_size)
    length = g->size - req->offset < g->zone_size
      ? g->size - req->offset : g->zone_size;
  request_submit (req, op, 0, req->offset, length, manage_complete);
}

/* The contexts that a payload selects; false: it is wrong. */
static bool
take_filter (struct request *req)
{
  size_t n = req->length, at;
  uint32_t id, contexts = 0;
  uint64_t length;

  memcpy (&length, req->buf, sizeof length);
  for (at = sizeof length; at < n; at += sizeof id) {
    memcpy (&id, req->buf + at, sizeof id);
    id = be32toh (id);
    if (id == 0 || id > NR_CONTEXTS ||
        !(req->conn->contexts & CONTEXT_BIT (id - 1)) ||
        (contexts & CONTEXT_BIT (id - 1)))
      return false;
    contexts |= CONTEXT_BIT (id - 1);
  }
  req->length = be64toh (length);
  req->u.status.contexts = contexts;
  return contexts != 0;
}

/* Descriptors that a context may need at most. */
static unsigned
most_descriptors (const struct request *req, enum context k)
{
  const struct export *e = req->conn->export;
  uint64_t n;

  if ((k != CONTEXT_ZONES && k != CONTEXT_ALLOCATION) || e->table ||
      (req->flags & NBD_CMD_FLAG_REQ_ONE))
    return 1;
  n = 3 * (req->length / zdisk_geometry (e->disk)->zone_size + 2);
  return n < DESCRIPTORS_MAX ? n : DESCRIPTORS_MAX;
}

/* What the reply takes at most. */
static size_t
reply_size (const struct request *req, uint32_t contexts)
{
  size_t size = 0;

  for (; contexts; contexts &= contexts - 1)
    size += chunk_overhead (req->conn) + descriptor_size (req->conn) *
      most_descriptors (req, only_context (contexts));
  return size;
}

/* Whether the disk is asked for a report first: it does not keep the zones. */
static bool
needs_report (const struct request *req, uint32_t contexts)
{
  return (contexts & CONTEXT_BIT (CONTEXT_ZONES)) &&
    zdisk_mirrors (req->conn->export->disk);
}

size_t
status_memory (const struct request *req)
{
  size_t report = needs_report (req, req->conn->contexts)
    ? ZDISK_REFRESH_MEMORY : 0;

  /* With a payload the length in the header is the payload's; what it says
   * itself is not known yet. */
  if (req->flags & NBD_CMD_FLAG_PAYLOAD_LEN)
    return DESCRIPTORS_MAX * descriptor_size (req->conn) + report;
  return reply_size (req, req->conn->contexts) + report;
}

/* How many zones have to be looked at. */
static uint64_t
zones_of (const struct request *req)
{
  const struct export *e = req->conn->export;
  uint64_t zone_size = zdisk_geometry (e->disk)->zone_size;

  if (e->table ||
      !(req->u.status.contexts & (CONTEXT_BIT (CONTEXT_ZONES) |
                                  CONTEXT_BIT (CONTEXT_ALLOCATION))))
    return 0;
  return (req->offset + req->length - 1) / zone_size -
    req->offset / zone_size + 1;
}

/* In the buffer that describe_start took. */
static void
describe_now (struct request *req)
{
  const struct export *e = req->conn->export;
  uint32_t contexts = req->u.status.contexts, left;
  struct builder b = { .req = req };
  enum context k;

  if (req->conn->phase == CONN_DEAD) {
    reply_error (req, ESHUTDOWN, NULL);
    return;
  }
  b.p = req->buf;
  for (left = contexts; left; left &= left - 1) {
    k = only_context (left);
    begin_chunk (&b, most_descriptors (req, k));
    if (k == CONTEXT_ZONES)
      report_zones (e->disk, req->offset, req->length, add, &b);
    else if (k == CONTEXT_ALLOCATION && !e->table)
      report_allocation (e->disk, req->offset, req->length, add, &b);
    else
      add (&b, req->length, 0);
    end_chunk (&b, k, (left & (left - 1)) == 0);
  }
  send_built (&b);
}

static void
describe (struct request *req)
{
  uint64_t zones = zones_of (req);

  if (zones > ZONES_FEW)
    loop_put_off (req, zones, describe_now);
  else
    describe_now (req);
}

static void
refreshed (struct request *req)
{
  if (req->z.error)
    reply_error (req, req->z.error, req->z.reason);
  else
    describe (req);
}

/* A report is preceded by asking who keeps the zones, if that is not us.  All
 * memory is taken at once, or others would be read meanwhile whose replies
 * nobody has counted. */
static void
describe_start (struct request *req)
{
  uint32_t contexts = req->u.status.contexts;
  uint64_t zone_size = zdisk_geometry (req->conn->export->disk)->zone_size;

  if (zones_of (req) > ZONES_MAX)
    req->length = ZONES_MAX * zone_size - req->offset % zone_size;
  if (!reply_buffer (req, reply_size (req, contexts)))
    reply_error (req, ENOMEM, "no memory for the status");
  else if (needs_report (req, contexts)) {
    request_charge (req, ZDISK_REFRESH_MEMORY);
    request_submit (req, ZDISK_REFRESH, 0, req->offset, req->length,
                    refreshed);
  }
  else
    describe (req);
}

void
status_start (struct request *req)
{
  const struct conn *c = req->conn;
  const struct export *e = c->export;
  uint32_t contexts;

  req->u.status.contexts = c->contexts;
  if (c->contexts == 0) {
    reply_error (req, EINVAL, "no metadata context was selected");
    return;
  }
  if ((req->flags & NBD_CMD_FLAG_PAYLOAD_LEN) && !take_filter (req)) {
    reply_error (req, EINVAL, "the payload names a context twice, none, or "
                 "one that was not selected");
    return;
  }
  if (req->length == 0 || req->offset >= e->size ||
      req->length > e->size - req->offset ||
      (req->offset | req->length) % e->min_block != 0) {
    reply_error (req, EINVAL, "the range is empty, past the end, or off the "
                 "minimum block size");
    return;
  }
  contexts = req->u.status.contexts;
  if (c->contexts == CONTEXT_BIT (CONTEXT_APPEND))
    append_status (req);
  else if ((contexts & (contexts - 1)) == 0 &&
           contexts >= CONTEXT_BIT (CONTEXT_OPEN) &&
           (req->flags & NBD_CMD_FLAG_REQ_ONE))
    manage_start (req);
  else
    describe_start (req);
}
