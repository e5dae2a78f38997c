/* SPDX-License-Identifier: BSD-3-Clause */
/* The transmission phase of a connection without TLS, on the loop's ring:
 * what libnbd takes several system calls for goes with the ring's own.  The
 * commands of a turn are one message, and one receive takes all replies that
 * have come.
 *
 * A message that the socket takes at once is sent as the ring submits it, and
 * does not end the turn's wait, which is for what comes from elsewhere.  Of
 * another the rest is sent as the socket takes it.  Either way, the next
 * message is not sent before.
 *
 * A wire's memory is the kernel's as long as something of it is in the ring,
 * which may be longer than the connection.
 */

#include <config.h>

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "attach.h"
#include "iov.h"
#include "protocol.h"

/* Commands of a message. */
#define BATCH 256u

/* Bytes of replies that can be received at once; memory is the system's until
 * so much comes. */
#define RECEIVE_MAX (2u << 20)

struct wire {
  struct attach *a;
  struct wire *next;            /* of the old ones */
  int fd;
  unsigned ops;                 /* in the ring */
  bool dropped;
  bool ended;
  uint32_t cookies;             /* given */

  struct ring_op receive;
  bool receiving;
  struct reply_reader reader;

  struct ring_prompt send;
  enum { SEND_NOTHING, SEND_REST, SENDING } state;
  struct command *first, **tail;        /* not sent yet */
  struct msghdr message;
  size_t size;                  /* of it */
  struct iovec iov[2 * BATCH];
  struct proto_request head[BATCH];
};

/* ---- commands ---- */

/* A cookie has a command's number, and how many were before. */
static struct reply_command *
find (void *opaque, uint64_t cookie)
{
  struct wire *w = opaque;
  struct attach *a = w->a;
  const uint32_t i = cookie;
  struct command *c;

  if (i / REQUEST_COMMANDS >= a->queues * a->depth)
    return NULL;
  c = &a->requests[i / REQUEST_COMMANDS].command[i % REQUEST_COMMANDS];
  return c->wire == w && c->reply.cookie == cookie ? &c->reply : NULL;
}

static void
give_cookie (struct wire *w, struct command *c)
{
  const struct request *r = c->request;
  const uint32_t number = r - w->a->requests;

  /* Never 0, which is a command's that waits to be sent. */
  if (++w->cookies == 0)
    w->cookies = 1;
  c->reply.cookie = (uint64_t) w->cookies << 32 |
    (number * REQUEST_COMMANDS + (c - r->command));
}

bool
wire_send (struct wire *w, struct command *c)
{
  if (w->ended)
    return false;
  c->wire = w;
  c->reply.cookie = 0;
  c->next = NULL;
  *w->tail = c;
  w->tail = &c->next;
  return true;
}

bool
wire_ended (const struct wire *w)
{
  return w->ended;
}

/* ---- sending ---- */

static void
add (struct wire *w, void *p, size_t n)
{
  struct msghdr *m = &w->message;
  struct iovec *last = m->msg_iov + m->msg_iovlen;

  w->size += n;
  if (m->msg_iovlen > 0 && (uint8_t *) last[-1].iov_base + last[-1].iov_len ==
      (uint8_t *) p)
    last[-1].iov_len += n;
  else {
    *last = (struct iovec) { p, n };
    m->msg_iovlen++;
  }
}

static void
compose (struct wire *w)
{
  struct command *c;
  unsigned n;

  w->message = (struct msghdr) { .msg_iov = w->iov };
  w->size = 0;
  for (n = 0; n < BATCH && (c = w->first) != NULL; n++) {
    w->first = c->next;
    give_cookie (w, c);
    w->head[n] = (struct proto_request) {
      .magic = htobe32 (NBD_REQUEST_MAGIC),
      .flags = htobe16 (c->flags),
      .type = htobe16 (c->reply.type),
      .cookie = htobe64 (c->reply.cookie),
      .offset = htobe64 (c->offset),
      .length = htobe32 (c->length),
    };
    add (w, &w->head[n], sizeof w->head[n]);
    if (c->reply.type == NBD_CMD_WRITE)
      add (w, c->buf, c->length);
  }
  if (w->first == NULL)
    w->tail = &w->first;
}

static void
sent (struct ring_op *op, int res)
{
  struct wire *w = (struct wire *)
    ((char *) op - offsetof (struct wire, send.op));
  struct msghdr *m = &w->message;

  w->ops--;
  w->state = SEND_REST;
  if (res < 0 && res != -EAGAIN && res != -EINTR)
    w->ended = true;
  if (res > 0)
    m->msg_iovlen = iov_advance (&m->msg_iov, m->msg_iovlen, res);
  if (m->msg_iovlen == 0)
    w->state = SEND_NOTHING;
}

static void
send_turn (struct wire *w)
{
  struct ring *ring = &w->a->ring;
  struct io_uring_sqe *sqe;
  bool at_once = false;

  if (w->state == SEND_NOTHING && w->first) {
    compose (w);
    w->state = SEND_REST;
    at_once = w->first == NULL; /* else the end is waited for, to go on */
  }
  if (w->state != SEND_REST)
    return;
  sqe = ring_sqe (ring);
  io_uring_prep_sendmsg (sqe, w->fd, &w->message, MSG_NOSIGNAL | MSG_WAITALL |
                         (at_once ? MSG_DONTWAIT : 0));
  if (at_once)
    ring_set_prompt (ring, sqe, &w->send, w->size);
  else
    ring_set_op (ring, sqe, &w->send.op);
  w->state = SENDING;
  w->ops++;
}

/* ---- receiving ---- */

static void
read_replies (struct wire *w)
{
  struct reply_command *reply;
  const char *why;
  int n;

  while ((n = reply_next (&w->reader, &reply, &why)) == 1) {
    struct command *c = (struct command *)
      ((char *) reply - offsetof (struct command, reply));

    c->wire = NULL;
    io_answered (c);
  }
  if (n == -1) {
    attach_log (w->a, "%s: the server sent %s", w->a->options.uri, why);
    w->ended = true;
  }
}

static void
received (struct ring_op *op, int res)
{
  struct wire *w = (struct wire *)
    ((char *) op - offsetof (struct wire, receive));

  w->ops--;
  w->receiving = false;
  if (w->dropped)
    return;
  if (res == -EINTR || res == -EAGAIN)
    return;
  if (res <= 0) {
    w->ended = true;
    return;
  }
  reply_received (&w->reader, res);
  read_replies (w);
}

static void
receive_turn (struct wire *w)
{
  struct io_uring_sqe *sqe;
  uint8_t *room;
  size_t size;

  if (w->receiving)
    return;
  room = reply_room (&w->reader, &size);
  sqe = ring_sqe (&w->a->ring);
  io_uring_prep_recv (sqe, w->fd, room, size, 0);
  sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  ring_set_op (&w->a->ring, sqe, &w->receive);
  w->receiving = true;
  w->ops++;
}

/* ---- its life ---- */

void
wire_turn (struct wire *w)
{
  if (w->ended)
    return;
  send_turn (w);
  receive_turn (w);
}

struct wire *
wire_new (struct attach *a, int fd, bool structured)
{
  struct wire *w = calloc (1, sizeof *w);

  if (w == NULL)
    return NULL;
  w->reader = (struct reply_reader) {
    .find = find, .opaque = w, .structured = structured,
    .size = REPLY_MEMORY (a->io_max > RECEIVE_MAX ? a->io_max : RECEIVE_MAX),
  };
  w->reader.memory = malloc (w->reader.size);
  if (w->reader.memory == NULL) {
    free (w);
    return NULL;
  }
  w->a = a;
  w->fd = fd;
  w->receive.done = received;
  w->send.op.done = sent;
  w->tail = &w->first;
  return w;
}

void
wire_drop (struct wire *w)
{
  w->ended = w->dropped = true;
  if (w->receiving)
    ring_cancel (&w->a->ring, &w->receive);
  if (w->state == SENDING)
    ring_cancel (&w->a->ring, &w->send.op);
  w->next = w->a->old_wires;
  w->a->old_wires = w;
}

void
wire_free_old (struct attach *a)
{
  struct wire **at = &a->old_wires, *w;

  while ((w = *at) != NULL)
    if (w->ops > 0)
      at = &w->next;
    else {
      *at = w->next;
      free (w->reader.memory);
      free (w);
    }
}
