/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection for commands, which the loop drives: by a wire, or where TLS
 * is in between, by libnbd, which reads and writes the socket when the ring
 * says that it is ready.
 */

#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "attach.h"
#include "protocol.h"

/* Answers that libnbd reads of one connection, before the others'. */
#define ANSWERS 64

/* The ring's wait for a socket of libnbd's, once.  It may outlive the
 * connection. */
struct watch {
  struct ring_op op;
  struct conn *conn;            /* NULL: nobody's any more */
  unsigned events;
};

/* ---- commands by libnbd ---- */

/* Libnbd calls back with the handle locked, so answers are only
 * collected. */
static int
answered (void *opaque, int *error)
{
  struct command *c = opaque;

  c->reply.error = *error;
  io_answered (c);
  return 1;
}

static int
extent (void *opaque, const char *context, uint64_t offset,
        uint32_t *entries, size_t n, int *error)
{
  struct command *c = opaque;

  (void) context;
  (void) offset;
  (void) error;
  if (n >= 2)
    c->reply.told = entries[1];
  return 0;
}

static bool
send_by_libnbd (struct nbd_handle *h, struct command *c)
{
  const nbd_completion_callback done = {
    .callback = answered, .user_data = c,
  };
  int64_t cookie = -1;

  switch (c->reply.type) {
  case NBD_CMD_READ:
    c->reply.data = c->buf;
    cookie = nbd_aio_pread (h, c->buf, c->length, c->offset, done, c->flags);
    break;
  case NBD_CMD_WRITE:
    cookie = nbd_aio_pwrite (h, c->buf, c->length, c->offset, done,
                             c->flags);
    break;
  case NBD_CMD_FLUSH:
    cookie = nbd_aio_flush (h, done, c->flags);
    break;
  case NBD_CMD_TRIM:
    cookie = nbd_aio_trim (h, c->length, c->offset, done, c->flags);
    break;
  case NBD_CMD_WRITE_ZEROES:
    cookie = nbd_aio_zero (h, c->length, c->offset, done, c->flags);
    break;
  case NBD_CMD_BLOCK_STATUS:
    cookie = nbd_aio_block_status (h, c->length, c->offset,
                                   (nbd_extent_callback) {
                                     .callback = extent, .user_data = c,
                                   }, done, c->flags);
    break;
  }
  return cookie != -1;
}

void
conn_send (struct conn *conn, struct command *c)
{
  c->conn = conn;
  c->reply.length = c->length;
  c->reply.error = 0;
  c->reply.data = NULL;
  c->reply.told = 0;
  conn->in_flight++;
  if (conn->wire ? wire_send (conn->wire, c)
      : send_by_libnbd (conn->nbd, c))
    return;
  /* Of a connection that has ended, or libnbd's own opinion. */
  c->reply.error = conn_ended (conn) ? ENOTCONN : EIO;
  io_answered (c);
}

/* ---- its socket ---- */

static int
notify (struct nbd_handle *h, unsigned events)
{
  const unsigned dir = nbd_aio_get_direction (h);
  const unsigned broken = POLLHUP | POLLERR;

  if ((dir & LIBNBD_AIO_DIRECTION_READ) && (events & (POLLIN | broken)))
    return nbd_aio_notify_read (h);
  if ((dir & LIBNBD_AIO_DIRECTION_WRITE) && (events & (POLLOUT | broken)))
    return nbd_aio_notify_write (h);
  return 0;
}

static void
socket_ready (struct ring_op *op, int res)
{
  struct watch *w = (struct watch *) op;
  struct conn *c = w->conn;
  unsigned n;

  free (w);
  if (c == NULL)
    return;
  c->watch = NULL;
  /* What the ring has seen libnbd need not ask for again; only whether there
   * is more. */
  if (res < 0 || notify (c->nbd, res) == -1)
    return;
  for (n = 0; n < ANSWERS && nbd_aio_in_flight (c->nbd) > 0 &&
         nbd_poll (c->nbd, 0) == 1; n++)
    ;
}

/* The ring lets go of the socket. */
static void
forget_watch (struct conn *c)
{
  if (c->watch == NULL)
    return;
  c->watch->conn = NULL;
  ring_cancel (&c->a->ring, &c->watch->op);
  c->watch = NULL;
}

static void
watch (struct conn *c)
{
  const unsigned dir = nbd_aio_get_direction (c->nbd);
  const int fd = nbd_aio_get_fd (c->nbd);
  struct io_uring_sqe *sqe;
  unsigned events = 0;

  if (dir & LIBNBD_AIO_DIRECTION_READ)
    events |= POLLIN;
  if (dir & LIBNBD_AIO_DIRECTION_WRITE)
    events |= POLLOUT;
  if (c->watch && (c->watch->events & events) == events)
    return;
  forget_watch (c);
  if (fd == -1 || events == 0)
    return;
  c->watch = calloc (1, sizeof *c->watch);
  if (c->watch == NULL)
    return;                     /* the next turn tries again */
  c->watch->op.done = socket_ready;
  c->watch->conn = c;
  c->watch->events = events;
  sqe = ring_sqe (&c->a->ring);
  io_uring_prep_poll_add (sqe, fd, events);
  ring_set_op (&c->a->ring, sqe, &c->watch->op);
}

/* ---- its life ---- */

void
conn_begin (struct conn *c, struct attach *a, struct nbd_handle *nbd)
{
  *c = (struct conn) { .a = a, .nbd = nbd };
  if (nbd_get_tls_negotiated (nbd) == 0)
    /* Without memory for it libnbd does it all. */
    c->wire = wire_new (a, nbd_aio_get_fd (nbd),
                        nbd_get_structured_replies_negotiated (nbd) == 1);
}

void
conn_turn (struct conn *c)
{
  if (c->wire)
    wire_turn (c->wire);
  else if (c->nbd)
    watch (c);
}

bool
conn_ended (const struct conn *c)
{
  if (c->wire)
    return wire_ended (c->wire);
  return nbd_aio_is_dead (c->nbd) == 1 || nbd_aio_is_closed (c->nbd) == 1;
}

void
conn_drop (struct conn *c)
{
  if (c->wire)
    wire_drop (c->wire);
  else if (c->nbd)
    forget_watch (c);
  *c = (struct conn) { 0 };
}
