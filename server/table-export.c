/* SPDX-License-Identifier: BSD-3-Clause */
/* The zone table export: reads are answered at once, or as soon as the disk
 * has asked for zones that it does not keep itself; a write is one request
 * of zone management after the other, each of which may have to wait for
 * writes of its zone.
 */

#include <config.h>

#include <errno.h>

#include "loop.h"
#include "reply.h"
#include "request.h"
#include "table.h"

static void
table_step (struct request *req)
{
  struct zdisk_request next;
  int r;

  if (req->z.error) {
    reply_error (req, req->z.error, req->z.reason);
    return;
  }
  if (req->conn->stopping) {
    reply_error (req, ESHUTDOWN, "the connection ends");
    return;
  }
  r = req->u.table.flushing ? 0
    : zdisk_table_next (req->conn->client, req->buf, req->length,
                        req->offset, &req->u.table.pos, &next,
                        req->z.reason, sizeof req->z.reason);
  if (r < 0)
    reply_error (req, -r, req->z.reason);
  else if (r > 0) {
    /* FUA is for the last one. */
    unsigned fua = req->flags & NBD_CMD_FLAG_FUA;

    req->flags &= ~NBD_CMD_FLAG_FUA;
    request_submit (req, next.op, next.flags, next.offset, next.length,
                    table_step);
    req->flags |= fua;
  }
  else if ((req->flags & NBD_CMD_FLAG_FUA) && !req->u.table.flushing) {
    req->u.table.flushing = true;
    request_submit (req, ZDISK_FLUSH, 0, 0, 0, table_step);
  }
  else
    reply_ok (req);
}

static void
table_read_now (struct request *req)
{
  int r;

  if (req->conn->phase == CONN_DEAD) {
    reply_error (req, ESHUTDOWN, NULL);
    return;
  }
  r = zdisk_table_read (req->conn->export->disk, req->buf, req->length,
                        req->offset, req->z.reason, sizeof req->z.reason);
  if (r) {
    reply_error (req, r, req->z.reason);
    return;
  }
  req->u.read.npieces = 1;
  req->u.read.piece[0] = (struct read_piece) {
    .offset = req->offset, .length = req->length,
  };
  reply_read (req);
}

static void
table_read (struct request *req)
{
  if (req->z.error)
    reply_error (req, req->z.error, req->z.reason);
  else
    loop_put_off (req, req->length / TABLE_RECORD_SIZE, table_read_now);
}

void
table_export_start (struct request *req)
{
  struct zdisk_request refresh;

  switch (req->type) {
  case NBD_CMD_READ:
    req->z.error = 0;
    /* At once, or others would be read whose buffers nobody has counted. */
    if (req->length > 0 && !request_buffer (req, req->length))
      reply_error (req, ENOMEM, "no memory for the read");
    else if (zdisk_table_refresh (req->conn->export->disk, req->length,
                                  req->offset, &refresh)) {
      request_charge (req, ZDISK_REFRESH_MEMORY);
      request_submit (req, refresh.op, refresh.flags, refresh.offset,
                      refresh.length, table_read);
    }
    else
      table_read (req);
    break;
  case NBD_CMD_WRITE:
    req->u.table.pos = 0;
    req->u.table.flushing = false;
    req->z.error = 0;
    table_step (req);
    break;
  case NBD_CMD_FLUSH:
    request_submit (req, ZDISK_FLUSH, 0, 0, 0, request_complete);
    break;
  default:
    reply_error (req, EINVAL, "the zone table is only read and written");
  }
}
