/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection's life, and the bytes that come and go.
 *
 * Bytes are received in pieces, of which as many messages as they hold are
 * parsed at once; the payload of a write that is not all there is
 * received straight into the request's buffer.  Replies are gathered into
 * one send; there is one at a time.
 *
 * Memory is bounded: a connection whose requests hold much, or one that
 * would take more than is left of what all may hold, is not read from until
 * there is room, see budget.c.  Parked writes are bounded to less, and what
 * is not parked ends by itself, so the write that fills a gap is always
 * read.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "append.h"
#include "budget.h"
#include "conn-tls.h"
#include "debug.h"
#include "handshake.h"
#include "iov.h"
#include "log.h"
#include "loop.h"
#include "request.h"
#include "trace.h"

#define RECV_SIZE (256u << 10)

/* No more is received at a time but straight into requests: the client has its
 * first answers, and sends more, while the rest of what it sent is worked
 * off; and what was received is still in the processor's cache. */
#define RECV_STEP (34u << 10)

/* Behind a payload as large as this most probably comes another one, with no
 * more than one message between them, which asks where it was appended to:
 * only a few headers are received there, so that it goes straight to its
 * request too instead of by way of conn.in. */
#define LARGE (64u << 10)
#define LARGE_AHEAD 2u
#define HEADERS 512u

/* A write of as much is done by another thread if there is more of its
 * connection under way: this one can receive that meanwhile.  To hand it over
 * costs as much as to copy some 30 KiB. */
#define ASIDE (128u << 10)

/* A loop keeps so many request objects. */
#define KEEP_REQUESTS 4096

/* The replies to options: with so many no other option is looked at, and one
 * option's are no more than this. */
#define OUT_ENOUGH (32u << 10)
#define OUT_MAX (1u << 20)

/* No reply is added to a send that has as much: so the memory of what is
 * sent is used again soon, while it is in the processor's cache. */
#define SEND_MAX (1u << 20)

/* Replies of no more are sent at once, if they can be, and kept until the next
 * event: that may be long. */
#define AT_ONCE_MAX (16u << 10)

/* Time for the handshake, and for taking the last answers. */
#define HANDSHAKE_MS 30000
#define DRAIN_MS 30000

void
conn_new (struct loop *loop, int fd)
{
  struct conn *c = calloc (1, sizeof *c);

  if (c)
    c->in = malloc (RECV_SIZE);
  if (c == NULL || c->in == NULL) {
    log_error ("no memory for another connection");
    free (c);
    close (fd);
    loop_forget_conn ();
    return;
  }
  c->loop = loop;
  c->fd = fd;
  c->replies_tail = &c->replies;
  c->put_off_tail = &c->put_off;
  c->deadline = loop_now () + HANDSHAKE_MS;
  c->next = loop->conns;
  if (c->next)
    c->next->prev = c;
  loop->conns = c;
  loop->nwatched++;
  loop->tick_at = 0;
  handshake_greet (c);
  conn_touch (c);
}

void
conn_touch (struct conn *c)
{
  if (c->dirty)
    return;
  c->dirty = true;
  c->dirty_next = c->loop->dirty;
  c->loop->dirty = c;
}

/* From here on it has to end in time. */
static void
end_with (struct conn *c, enum conn_phase phase)
{
  if (c->phase == CONN_TRANSMISSION)
    c->loop->nwatched++;
  c->phase = phase;
  c->deadline = loop_now () + DRAIN_MS;
}

static void
queue_reply (struct conn *c, struct request *req)
{
  req->next = NULL;
  *c->replies_tail = req;
  c->replies_tail = &req->next;
}

/* What is to be sent from where it is, and may not be there any more when
 * its turn comes, is read while it can be. */
static void
read_mapped (struct conn *c)
{
  struct request *req = c->replies, *next;
  bool begun = conn_tls_has_begun_reply (c);

  c->replies = NULL;
  c->replies_tail = &c->replies;
  for (; req; req = next, begun = false) {
    next = req->next;
    if (req->mapped && !begun)
      request_read (req);
    else
      queue_reply (c, req);
  }
}

/* Nothing is submitted any more, and requests that wait for others to come
 * will wait in vain. */
static void
give_up_waiting (struct conn *c)
{
  if (c->stopping)
    return;
  c->stopping = true;
  if (c->phase != CONN_DEAD)
    read_mapped (c);
  zdisk_client_leave (c->client);
}

/* Wakes the receive under way. */
static void
stop_receiving (struct conn *c)
{
  if (c->receiving)
    shutdown (c->fd, SHUT_RD);
}

/* A request whose payload will not come. */
static void
drop_filling (struct conn *c)
{
  if (c->filling && !c->receiving) {
    request_free (c->filling);
    c->filling = NULL;
  }
}

void
conn_drain (struct conn *c)
{
  if (c->phase >= CONN_DRAINING)
    return;
  end_with (c, CONN_DRAINING);
  stop_receiving (c);
  give_up_waiting (c);
  conn_touch (c);
}

void
conn_kill (struct conn *c, const char *why)
{
  if (c->phase == CONN_DEAD)
    return;
  if (why)
    log_verbose ("connection %d dropped: %s", c->fd, why);
  if (c->tls && !c->sending)
    conn_tls_last_words (c);
  end_with (c, CONN_DEAD);
  shutdown (c->fd, SHUT_RDWR);
  zdisk_client_abandon (c->client);
  give_up_waiting (c);
  conn_touch (c);
}

static void
conn_free (struct conn *c)
{
  struct loop *loop = c->loop;

  log_verbose ("connection %d closed", c->fd);
  if (c->next)
    c->next->prev = c->prev;
  if (c->prev)
    c->prev->next = c->next;
  else
    loop->conns = c->next;
  loop->nwatched--;
  zdisk_client_close (c->client);
  appends_free (c->appends);
  budget_forget (c);
  conn_tls_free (c);
  close (c->fd);
  free (c->in);
  free (c->out);
  free (c);
  loop_forget_conn ();
}

struct request *
request_new (struct conn *c)
{
  struct loop *loop = c->loop;
  struct request *req = loop->free_requests;

  if (req) {
    loop->free_requests = req->next;
    loop->nfree--;
  }
  else {
    req = malloc (sizeof *req);
    if (req == NULL)
      return NULL;
  }
  req->conn = c;
  req->buf = NULL;
  req->mapped = req->aside = false;
  req->charge = sizeof *req;
  req->refused = 0;
  req->why = NULL;
  req->error = 0;
  req->nout = 0;
  c->nrequests++;
  budget_charge (c, req->charge);
  return req;
}

bool
request_buffer (struct request *req, size_t size)
{
  struct conn *c = req->conn;

  req->buf = buffer_get (&c->loop->buffers, size);
  if (req->buf == NULL)
    return false;
  req->buf_size = size;
  req->charge += buffer_size (size);
  budget_charge (c, buffer_size (size));
  return true;
}

void
request_drop_buffer (struct request *req)
{
  struct conn *c = req->conn;

  if (req->buf == NULL)
    return;
  buffer_put (&c->loop->buffers, req->buf, req->buf_size);
  req->buf = NULL;
  req->charge -= buffer_size (req->buf_size);
  budget_release (c, buffer_size (req->buf_size));
}

void
request_free (struct request *req)
{
  struct conn *c = req->conn;
  struct loop *loop = c->loop;

  request_drop_buffer (req);
  budget_release (c, req->charge);
  c->nrequests--;
  if (loop->nfree >= KEEP_REQUESTS) {
    free (req);
    return;
  }
  req->next = loop->free_requests;
  loop->free_requests = req;
  loop->nfree++;
}

void
conn_out (struct conn *c, const void *data, size_t length)
{
  size_t size = c->out_size ? c->out_size : 1024;
  uint8_t *out;

  while (size < c->out_len + length)
    size *= 2;
  if (size > OUT_MAX) {
    conn_kill (c, "asks for too much at once");
    return;
  }
  /* Nothing is parsed, and nothing added, while a send reads from it. */
  if (size > c->out_size) {
    out = realloc (c->out, size);
    if (out == NULL) {
      conn_kill (c, "no memory for its handshake");
      return;
    }
    c->out = out;
    c->out_size = size;
  }
  memcpy (c->out + c->out_len, data, length);
  c->out_len += length;
  conn_touch (c);
}

void
conn_reply (struct request *req)
{
  struct conn *c = req->conn;

  if (debug_is_on (server_replies) || debug_is_on (server_slow))
    trace_reply (req);
  if (c->phase == CONN_DEAD) {
    request_free (req);
    conn_touch (c);
    return;
  }
  queue_reply (c, req);
  conn_touch (c);
}

static void
free_requests (struct request *req)
{
  struct request *next;

  for (; req; req = next) {
    next = req->next;
    request_free (req);
  }
}

static void send_done (struct ring_op *op, int res);

/* Bytes of a message, or the room that a receive had. */
static size_t
room_of (const struct msghdr *msg)
{
  size_t i, n = 0;

  for (i = 0; i < msg->msg_iovlen; i++)
    n += msg->msg_iov[i].iov_len;
  return n;
}

/* At once: what the socket takes of it, so that the send's end does not end
 * the wait for the next request. */
static void
submit_send (struct conn *c, bool at_once)
{
  struct io_uring_sqe *sqe = ring_sqe (&c->loop->ring);

  io_uring_prep_sendmsg (sqe, c->fd, &c->send_msg, MSG_NOSIGNAL |
                         MSG_WAITALL | (at_once ? MSG_DONTWAIT : 0));
  c->send_op.op.done = send_done;
  if (at_once)
    ring_set_prompt (&c->loop->ring, sqe, &c->send_op,
                     room_of (&c->send_msg));
  else
    ring_set_op (&c->loop->ring, sqe, &c->send_op.op);
  c->sending = true;
}

/* Gathers what is to be sent. */
static void
conn_send (struct conn *c)
{
  struct request *req, **tail = &c->sent;
  unsigned n = 0, i;
  size_t length = 0;

  pace_begin (&c->send_pace, c->loop->now);
  c->send_msg.msg_iov = c->send_iov;
  if (c->tls && conn_tls_is_begun (c)) {
    if (conn_tls_encrypt (c))
      submit_send (c, false);
    return;
  }
  if (c->out_len > 0) {
    c->send_iov[0].iov_base = c->out;
    c->send_iov[0].iov_len = c->out_len;
    c->out_sending = c->out_len;
    c->send_msg.msg_iovlen = 1;
    submit_send (c, false);
    return;
  }
  while ((req = c->replies) && n + req->nout <= SEND_IOV &&
         length < SEND_MAX) {
    c->replies = req->next;
    if (c->replies == NULL)
      c->replies_tail = &c->replies;
    if (req->mapped && !request_find (req))
      continue;                 /* it is being read */
    for (i = 0; i < req->nout; i++) {
      length += req->out[i].iov_len;
      c->send_iov[n++] = req->out[i];
    }
    *tail = req;
    tail = &req->next;
  }
  *tail = NULL;
  if (n == 0)
    return;
  c->send_msg.msg_iovlen = n;
  /* What follows a send at once follows only after the wait: nothing may wait
   * for that, and nobody for the memory of the requests. */
  submit_send (c, length <= AT_ONCE_MAX && c->replies == NULL &&
               c->phase == CONN_TRANSMISSION && !budget_counts (c));
}

/* What a short send left; false where nothing. */
static bool
advance (struct msghdr *msg, size_t sent)
{
  msg->msg_iovlen = iov_advance (&msg->msg_iov, msg->msg_iovlen, sent);
  return msg->msg_iovlen > 0;
}

/* Data that was to be sent from where it is was not there, which is rare:
 * has it read, and sends what was to follow later.  false: of its reply
 * something is sent. */
static bool
read_unsent (struct conn *c)
{
  const struct iovec *at = c->send_iov;
  struct request **link = &c->sent, *req, *next;

  for (; *link && at < c->send_msg.msg_iov; link = &(*link)->next)
    at += (*link)->nout;
  req = *link;
  if (req == NULL || c->stopping || at != c->send_msg.msg_iov ||
      at->iov_base != req->out[0].iov_base)
    return false;
  *link = NULL;
  for (; req; req = next) {
    next = req->next;
    if (req->mapped)
      request_read (req);
    else
      queue_reply (c, req);
  }
  return true;
}

static void
send_done (struct ring_op *op, int res)
{
  struct conn *c = (struct conn *)
    ((char *) op - offsetof (struct conn, send_op.op));
  bool failed = res < 0 && res != -EINTR && res != -EAGAIN;

  c->sending = false;
  if (!failed && c->phase != CONN_DEAD &&
      advance (&c->send_msg, res > 0 ? res : 0)) {
    if (res > 0)
      pace_moved (&c->send_pace, res, loop_now ());
    submit_send (c, false);
    return;
  }
  if (c->out_sending > 0) {
    c->out_len -= c->out_sending;
    memmove (c->out, c->out + c->out_sending, c->out_len);
    c->out_sending = 0;
  }
  if (c->tls)
    conn_tls_sent (c);
  if (c->out && c->out_len == 0) {      /* replies to options */
    free (c->out);
    c->out = NULL;
    c->out_size = 0;
  }
  if (failed && !(res == -EFAULT && read_unsent (c)))
    conn_kill (c, strerror (-res));
  free_requests (c->sent);
  c->sent = NULL;
  conn_touch (c);
}

/* n bytes have come to where recv_iov says. */
static void
received (struct conn *c, size_t n)
{
  size_t direct;

  if (c->filling && c->filling->buf) {
    direct = c->recv_msg.msg_iovlen > 1 ? c->recv_iov[0].iov_len : 0;
    if (direct > n)
      direct = n;
    c->payload_left -= direct;
    n -= direct;
    pace_moved (&c->fill_pace, direct, c->loop->now);
  }
  c->in_end += n;
}

static void
recv_done (struct ring_op *op, int res)
{
  struct conn *c = (struct conn *)
    ((char *) op - offsetof (struct conn, recv_op));

  c->receiving = false;
  conn_touch (c);
  if (res == -EINTR || res == -EAGAIN)
    return;
  if (res <= 0) {
    if (res < 0 && c->phase < CONN_DRAINING)
      conn_kill (c, strerror (-res));
    else
      conn_drain (c);
    return;
  }
  if (c->phase >= CONN_DRAINING)
    return;
  c->was_short = (size_t) res < room_of (&c->recv_msg);
  if (c->tls)
    conn_tls_received (c, res);
  else
    received (c, res);
}

/* How much is to be received to conn.in. */
static size_t
room_in (const struct conn *c)
{
  size_t room = RECV_SIZE - c->in_end;

  if (c->large_ahead && !c->tls && c->in_end < HEADERS)
    return HEADERS - c->in_end;
  return room < RECV_STEP ? room : RECV_STEP;
}

/* Receives, or takes what TLS has received already. */
static void
conn_receive (struct conn *c)
{
  struct io_uring_sqe *sqe;
  unsigned n = 0;
  ssize_t r;

  if (c->in_start > 0) {
    c->in_end -= c->in_start;
    memmove (c->in, c->in + c->in_start, c->in_end);
    c->in_start = 0;
  }
  if (c->filling && c->filling->buf && c->payload_left > 0) {
    c->recv_iov[n].iov_base = c->filling->buf + c->filling->length -
      c->payload_left;
    c->recv_iov[n++].iov_len = c->payload_left;
  }
  c->recv_iov[n].iov_base = c->in + c->in_end;
  c->recv_iov[n++].iov_len = room_in (c);
  c->recv_msg.msg_iov = c->recv_iov;
  c->recv_msg.msg_iovlen = n;
  if (c->tls && (r = conn_tls_decrypt (c)) != 0) {
    if (r > 0)
      received (c, r);
    return;
  }
  sqe = ring_sqe (&c->loop->ring);
  io_uring_prep_recvmsg (sqe, c->fd, &c->recv_msg, 0);
  /* Who sent less than was asked for has most probably sent no more yet:
   * then it is not tried in vain first. */
  if (c->was_short)
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  c->recv_op.done = recv_done;
  ring_set_op (&c->loop->ring, sqe, &c->recv_op);
  c->receiving = true;
}

/* Takes what has come of a payload, or of what is skipped. */
static void
take_payload (struct conn *c)
{
  size_t n = c->in_end - c->in_start;
  struct request *req = c->filling;

  if (c->skip > 0) {
    if (n > c->skip)
      n = c->skip;
    c->skip -= n;
    c->in_start += n;
    return;
  }
  if (n > c->payload_left)
    n = c->payload_left;
  if (req->buf)
    memcpy (req->buf + req->length - c->payload_left, c->in + c->in_start, n);
  c->in_start += n;
  c->payload_left -= n;
  pace_moved (&c->fill_pace, n, c->loop->now);
}

/* Whether the others of the loop are to have their turn before another of
 * this connection's requests. */
static bool
must_rest (struct conn *c, bool *begun)
{
  struct ring *ring = &c->loop->ring;

  if (*begun && ring->work > RING_TURN) {
    conn_touch (c);
    return true;
  }
  *begun = true;
  ring->work++;
  return false;
}

/* Parses what has come as far as may be.  Returns true where more is to be
 * received. */
static bool
conn_parse (struct conn *c, bool *begun)
{
  ssize_t n;

  while (c->phase < CONN_DRAINING) {
    if (c->skip > 0 || (c->filling && c->payload_left > 0)) {
      if (c->in_start == c->in_end)
        return true;
      take_payload (c);
      continue;
    }
    if (c->filling) {
      struct request *req = c->filling;

      c->filling = NULL;
      c->large_ahead = req->length >= LARGE ? LARGE_AHEAD : 0;
      req->aside = req->length >= ASIDE &&
        (c->in_end > c->in_start || c->nrequests > 1);
      request_start (req);
      continue;
    }
    if (c->phase == CONN_TLS) {
      if (!conn_tls_handshake (c))
        return false;
      if (c->phase == CONN_TLS)
        return true;
    }
    if (c->phase == CONN_TRANSMISSION) {
      if (must_rest (c, begun))
        return false;
      n = request_parse (c, c->in + c->in_start, c->in_end - c->in_start);
      if (n > 0 && !c->filling && c->large_ahead > 0)
        c->large_ahead--;
    }
    else {
      if (c->sending || c->out_len >= OUT_ENOUGH)
        return false;
      n = handshake_parse (c, c->in + c->in_start, c->in_end - c->in_start);
    }
    if (n == 0)
      return true;
    if (n == REQUEST_WAITS)
      return false;
    c->in_start += n;
  }
  return false;
}

void
conn_look (struct conn *c)
{
  bool begun = false;

  while (c->phase < CONN_DRAINING && !c->receiving && conn_parse (c, &begun))
    conn_receive (c);
  if (c->phase >= CONN_DRAINING)
    drop_filling (c);
  if (c->phase == CONN_DEAD) {
    free_requests (c->replies);
    c->replies = NULL;
    c->replies_tail = &c->replies;
    c->out_len = c->sending ? c->out_len : 0;
  }
  else if (!c->sending)
    conn_send (c);
  if (c->phase >= CONN_DRAINING && !c->receiving && !c->sending &&
      c->nrequests == 0 && !c->dirty)
    conn_free (c);
}
