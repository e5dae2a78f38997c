/* SPDX-License-Identifier: BSD-3-Clause */
/* I/O as commands to the server.  An I/O is as many commands as its size and
 * the server's largest block make; it is finished when all are answered.
 *
 * Callbacks run inside of libnbd, which must not be called from there: they
 * only count.  libnbd allocates for each command; nothing here does.
 */

#include <config.h>

#include <errno.h>

#include "nbd-internal.h"

/* Commands without data are of so many bytes at most. */
#define NO_DATA_MAX (UINT64_C (1) << 30)

/* Zone management: bytes of the zone table that request something, and
 * nothing else; by enum znbd_zone_op. */
#define REQUEST(place) { \
    [ZNBD_ZONE_OPEN] = { [place] = ZNBD_ZONE_OPEN }, \
    [ZNBD_ZONE_CLOSE] = { [place] = ZNBD_ZONE_CLOSE }, \
    [ZNBD_ZONE_FINISH] = { [place] = ZNBD_ZONE_FINISH }, \
    [ZNBD_ZONE_RESET] = { [place] = ZNBD_ZONE_RESET }, \
  }
static const uint8_t zone_requests[5][TABLE_RECORD_SIZE] =
  REQUEST (TABLE_RECORD_REQUEST);
static const uint8_t all_requests[5][TABLE_MIN_BLOCK] =
  REQUEST (TABLE_HEADER_REQUEST);

static void
put (struct store_io *io)
{
  struct upstream_io *u = upstream_io (io);

  if (--u->outstanding == 0) {
    u->up->nout--;
    list_add (&u->up->finished, io);
  }
}

static int
answered (void *opaque, int *error)
{
  struct store_io *io = opaque;
  struct upstream_io *u = upstream_io (io);

  /* What libnbd says of commands that died with their connection. */
  if (*error == ENOTCONN || *error == ESHUTDOWN)
    u->lost = true;
  else if (*error == 0)
    u->some = true;
  else if (!u->error)
    u->error = *error;
  put (io);
  return 1;
}

static nbd_completion_callback
begin (struct store_io *io)
{
  upstream_io (io)->outstanding++;
  return (nbd_completion_callback) {
    .callback = answered, .user_data = io
  };
}

/* r is what libnbd made of the command. */
static bool
sent (struct store_io *io, struct nbd_handle *h, int64_t r)
{
  struct upstream_io *u = upstream_io (io);

  if (r != -1)
    return true;
  if (nbd_aio_is_ready (h) > 0 || nbd_aio_is_processing (h) > 0)
    u->error = nbd_get_errno () ? nbd_get_errno () : EIO;
  else
    u->lost = true;
  u->outstanding--;
  return false;
}

static void
issue_data (struct upstream *up, struct store_io *io)
{
  uint64_t at = io->offset, skip = upstream_io (io)->skip;
  unsigned i;

  for (i = 0; i < io->niov; i++) {
    char *p = io->iov[i].iov_base;
    uint64_t left = io->iov[i].iov_len, n;

    n = skip < left ? skip : left;
    for (skip -= n; ; skip = 0) {
      p += n;
      at += n;
      left -= n;
      if (left == 0)
        break;
      n = left < up->max_block ? left : up->max_block;
      if (!sent (io, up->data, io->op == STORE_READ
                 ? nbd_aio_pread (up->data, p, n, at, begin (io), 0)
                 : nbd_aio_pwrite (up->data, p, n, at, begin (io), 0)))
        return;
    }
  }
}

static int64_t
send_no_data (struct upstream *up, struct store_io *io, uint64_t n,
              uint64_t at)
{
  uint32_t flags = 0;

  if (io->op == STORE_DISCARD)
    return nbd_aio_trim (up->data, n, at, begin (io), 0);
  if (io->op == STORE_CACHE)
    return nbd_aio_cache (up->data, n, at, begin (io), 0);
  if (!up->can_zero)
    return nbd_aio_pwrite (up->data, up->zeros, n, at, begin (io), 0);
  if (!(io->flags & STORE_MAY_TRIM))
    flags |= LIBNBD_CMD_FLAG_NO_HOLE;
  if (io->flags & STORE_FAST_ZERO)
    flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
  return nbd_aio_zero (up->data, n, at, begin (io), flags);
}

static void
issue_no_data (struct upstream *up, struct store_io *io)
{
  uint64_t most = io->op == STORE_ZERO && !up->can_zero ? ZEROS : NO_DATA_MAX;
  uint64_t done = upstream_io (io)->skip, n;

  for (; done < io->length; done += n) {
    n = io->length - done < most ? io->length - done : most;
    if (!sent (io, up->data, send_no_data (up, io, n, io->offset + done)))
      return;
  }
}

void
upstream_issue (struct upstream *up, struct store_io *io)
{
  struct upstream_io *u = upstream_io (io);

  u->up = up;
  u->outstanding = 1;
  u->error = 0;
  u->lost = false;
  up->nout++;
  switch (io->op) {
  case STORE_READ:
  case STORE_WRITE:
    issue_data (up, io);
    break;
  case STORE_ZERO:
    issue_no_data (up, io);
    break;
  case STORE_DISCARD:
    if (up->can_trim)
      issue_no_data (up, io);
    break;
  case STORE_CACHE:
    if (up->can_cache)
      issue_no_data (up, io);
    break;
  case STORE_FLUSH:
    u->skip = up->changes;      /* those that it makes durable */
    if (up->can_flush)
      sent (io, up->data, nbd_aio_flush (up->data, begin (io), 0));
    break;
  case STORE_ZONE_OP:
    if (io->flags & STORE_ALL)
      sent (io, up->table,
            nbd_aio_pwrite (up->table, all_requests[io->zone_op],
                            TABLE_MIN_BLOCK, 0, begin (io), 0));
    else
      sent (io, up->table,
            nbd_aio_pwrite (up->table, zone_requests[io->zone_op],
                            TABLE_RECORD_SIZE, table_record_offset (io->zone),
                            begin (io), 0));
    break;
  case STORE_REPORT:
    sent (io, up->table,
          nbd_aio_pread (up->table, io->report,
                         io->count * (size_t) TABLE_RECORD_SIZE,
                         table_record_offset (io->zone), begin (io), 0));
    break;
  case STORE_FINISH:            /* of stores that do not mirror */
  case STORE_RESET:
    u->error = ENOTSUP;
    break;
  }
  put (io);
}

void
upstream_complete (struct upstream *up, struct store_io *io, int error)
{
  const char *why;

  if (!error && io->op == STORE_REPORT &&
      table_decode_records (io->report, &up->store.geometry, io->zone,
                            io->count, &why) < io->count) {
    upstream_log (up, "%s: the zone table is wrong: %s", upstream_name (up),
                  why);
    error = EIO;
  }
  /* See store.h: EINVAL is for what surely was not written. */
  if (error == EINVAL && io->op == STORE_WRITE &&
      (upstream_io (io)->some || upstream_io (io)->again))
    error = EIO;
  switch (io->op) {
  case STORE_WRITE:
  case STORE_ZERO:
  case STORE_DISCARD:
  case STORE_ZONE_OP:
    up->changes++;
    break;
  case STORE_FLUSH:
    if (!error && upstream_io (io)->skip > up->flushed)
      up->flushed = upstream_io (io)->skip;
    break;
  default:
    break;
  }
  io->ring = NULL;              /* this is not its thread */
  io->done (io, error, error ? 0 : io->length);
}
