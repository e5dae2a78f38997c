/* SPDX-License-Identifier: BSD-3-Clause */
/* See conn-tls.h.
 *
 * Replies are gathered into records of the largest size: small pieces by way
 * of a buffer, large ones from where they are.  A request is freed as soon
 * as all of its reply is encrypted.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffers.h"
#include "conn-tls.h"
#include "log.h"
#include "loop.h"
#include "request.h"
#include "tls.h"

/* Plain text of a record, and what a record may take on the wire: TLS 1.2
 * adds up to 2048 bytes. */
#define RECORD (16u << 10)
#define RECORD_ROOM (RECORD + 2048 + 64)

#define IN_SIZE (64u << 10)
#define OUT_SIZE (128u << 10)

/* While a large payload comes; so many connections of a loop at once, whose
 * clients may take their time. */
#define IN_LARGE (256u << 10)
#define LARGE_MAX 16u

/* Two records: no more is received at a time, but for a payload that is
 * larger, so that the client has its first answers while the rest is
 * deciphered. */
#define IN_STEP (36u << 10)

/* With so much of small replies what is there is sent: the client deciphers it
 * while the next ones are enciphered. */
#define OUT_STEP (64u << 10)

/* TLS 1.2: a client's attempts to negotiate again. */
#define RENEGOTIATIONS_MAX 8

enum state {
  PLAIN,                        /* what was there before is still sent */
  HANDSHAKE,
  UP,
  OVER,                         /* nothing is encrypted any more */
};

struct tls {
  gnutls_session_t session;
  enum state state;
  bool starved;                 /* GnuTLS wanted more than had come */
  unsigned renegotiations;

  uint8_t *in;                  /* own_in, or a buffer of the loop's */
  size_t in_start, in_end;      /* ciphertext not yet decrypted */
  size_t out_len;               /* ciphertext to be sent */
  size_t out_sending;           /* of it, in the send under way */

  /* What is to be encrypted: what was gathered, then the rest of c->out,
   * then the rest of c->replies. */
  size_t gathered_start, gathered_end;
  size_t plain_taken;           /* of c->out */
  bool looked;                  /* some of it was read from a mapping */
  unsigned iov;                 /* of the first reply: taken whole */
  size_t iov_taken;             /* and of the next iovec */

  uint8_t own_in[IN_SIZE];
  uint8_t out[OUT_SIZE];
  uint8_t gathered[RECORD];
};

static ssize_t
pull (gnutls_transport_ptr_t opaque, void *buf, size_t size)
{
  struct tls *tls = opaque;
  size_t n = tls->in_end - tls->in_start;

  if (n == 0) {
    tls->starved = true;
    gnutls_transport_set_errno (tls->session, EAGAIN);
    return -1;
  }
  if (n > size)
    n = size;
  memcpy (buf, tls->in + tls->in_start, n);
  tls->in_start += n;
  return n;
}

static ssize_t
push (gnutls_transport_ptr_t opaque, const giovec_t *iov, int niov)
{
  struct tls *tls = opaque;
  size_t room = OUT_SIZE - tls->out_len, n, total = 0;
  int i;

  for (i = 0; i < niov && room > 0; i++) {
    n = iov[i].iov_len < room ? iov[i].iov_len : room;
    memcpy (tls->out + tls->out_len, iov[i].iov_base, n);
    tls->out_len += n;
    room -= n;
    total += n;
  }
  if (total == 0 && room == 0) {
    gnutls_transport_set_errno (tls->session, EAGAIN);
    return -1;
  }
  return total;
}

void
conn_tls_begin (struct conn *c)
{
  struct tls *tls = malloc (sizeof *tls);
  int r;

  if (tls == NULL) {
    conn_kill (c, "no memory for TLS");
    return;
  }
  memset (tls, 0, offsetof (struct tls, own_in));
  tls->in = tls->own_in;
  r = tls_session_new (&tls->session);
  if (r < 0) {
    free (tls);
    conn_kill (c, gnutls_strerror (r));
    return;
  }
  gnutls_transport_set_ptr (tls->session, tls);
  gnutls_transport_set_pull_function (tls->session, pull);
  gnutls_transport_set_vec_push_function (tls->session, push);
  c->tls = tls;
  c->phase = CONN_TLS;
}

static void
give_large_back (struct conn *c)
{
  struct tls *tls = c->tls;

  if (tls->in == tls->own_in)
    return;
  buffer_put (&c->loop->buffers, tls->in, IN_LARGE);
  c->loop->tls_large--;
  tls->in = tls->own_in;
}

/* The fewer times the client is told that there is room again, the less of
 * both sides' time is waking up.  Nothing is in the one that is changed. */
static void
choose_in (struct conn *c)
{
  struct tls *tls = c->tls;
  uint8_t *buf;

  if (!c->filling)
    give_large_back (c);
  if (!c->filling || c->payload_left <= IN_STEP || tls->in != tls->own_in ||
      c->loop->tls_large == LARGE_MAX)
    return;
  buf = buffer_get (&c->loop->buffers, IN_LARGE);
  if (buf == NULL)
    return;
  c->loop->tls_large++;
  tls->in = buf;
}

void
conn_tls_free (struct conn *c)
{
  if (c->tls == NULL)
    return;
  give_large_back (c);
  gnutls_deinit (c->tls->session);
  /* Data was in it. */
  gnutls_memset (c->tls->gathered, 0, c->tls->gathered_end);
  free (c->tls);
}

/* Tells the peer, and ends the connection. */
static void
fail (struct conn *c, int error)
{
  gnutls_session_t session = c->tls->session;
  gnutls_datum_t status = { .data = NULL };
  char why[512];

  if (error == GNUTLS_E_FATAL_ALERT_RECEIVED)
    snprintf (why, sizeof why, "TLS: the client says: %s",
              gnutls_alert_get_name (gnutls_alert_get (session)));
  else if (error == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
           gnutls_certificate_verification_status_print
           (gnutls_session_get_verify_cert_status (session),
            gnutls_certificate_type_get (session), &status, 0) == 0)
    snprintf (why, sizeof why, "TLS: %s", (const char *) status.data);
  else
    snprintf (why, sizeof why, "TLS: %s", gnutls_strerror (error));
  gnutls_free (status.data);
  c->tls->state = OVER;
  gnutls_alert_send_appropriate (session, error);
  conn_kill (c, why);
}

static void
log_session (const struct conn *c)
{
  char *text;

  if (!log_is_verbose)
    return;
  text = gnutls_session_get_desc (c->tls->session);
  log_verbose ("connection %d: TLS: %s", c->fd, text ? text : "");
  gnutls_free (text);
}

bool
conn_tls_handshake (struct conn *c)
{
  struct tls *tls = c->tls;
  int r;

  if (tls->state == PLAIN) {
    if (c->out_len > 0 || c->sending)
      return false;
    tls->state = HANDSHAKE;
  }
  /* Each turn takes something of what was received. */
  do
    r = gnutls_handshake (tls->session);
  while (r == GNUTLS_E_INTERRUPTED || r == GNUTLS_E_WARNING_ALERT_RECEIVED);
  if (r == GNUTLS_E_AGAIN)
    return gnutls_record_get_direction (tls->session) == 0;
  if (r < 0) {
    fail (c, r);
    return false;
  }
  tls->state = UP;
  c->phase = CONN_OPTIONS;
  log_session (c);
  return true;
}

/* What GnuTLS reports in place of data, but is none of its errors. */
static bool
handle_event (struct conn *c, ssize_t event)
{
  struct tls *tls = c->tls;

  switch (event) {
  case GNUTLS_E_INTERRUPTED:
  case GNUTLS_E_WARNING_ALERT_RECEIVED:
    return true;
  case GNUTLS_E_REHANDSHAKE:
    if (++tls->renegotiations > RENEGOTIATIONS_MAX)
      return false;
    gnutls_alert_send (tls->session, GNUTLS_AL_WARNING,
                       GNUTLS_A_NO_RENEGOTIATION);
    return true;
  default:
    return false;
  }
}

ssize_t
conn_tls_decrypt (struct conn *c)
{
  struct tls *tls = c->tls;
  ssize_t r = GNUTLS_E_AGAIN;
  size_t before, room;

  /* It returns GNUTLS_E_AGAIN for a key update too, with more behind it. */
  if (tls->state == UP)
    do {
      before = tls->in_start;
      tls->starved = false;
      r = gnutls_record_recv (tls->session, c->recv_iov[0].iov_base,
                              c->recv_iov[0].iov_len);
    } while (handle_event (c, r) ||
             (r == GNUTLS_E_AGAIN && !tls->starved &&
              tls->in_start != before));
  if (r > 0)
    return r;
  if (r == 0) {
    conn_drain (c);
    return -1;
  }
  if (r != GNUTLS_E_AGAIN) {
    fail (c, r);
    return -1;
  }
  tls->in_end -= tls->in_start;
  memmove (tls->in, tls->in + tls->in_start, tls->in_end);
  tls->in_start = 0;
  if (tls->in_end == 0)
    choose_in (c);
  room = (tls->in == tls->own_in ? IN_SIZE : IN_LARGE) - tls->in_end;
  if (room > IN_STEP && !(c->filling && c->payload_left > IN_STEP))
    room = IN_STEP;
  c->recv_iov[0].iov_base = tls->in + tls->in_end;
  c->recv_iov[0].iov_len = room;
  c->recv_msg.msg_iovlen = 1;
  return 0;
}

void
conn_tls_received (struct conn *c, size_t n)
{
  c->tls->in_end += n;
}

bool
conn_tls_is_begun (const struct conn *c)
{
  return c->tls && c->tls->state != PLAIN;
}

bool
conn_tls_has_begun_reply (const struct conn *c)
{
  return c->tls && (c->tls->iov > 0 || c->tls->iov_taken > 0);
}

/* So much of the first reply is encrypted or gathered. */
static void
take (struct conn *c, size_t n)
{
  struct tls *tls = c->tls;
  struct request *req = c->replies;

  tls->iov_taken += n;
  while (tls->iov < req->nout &&
         tls->iov_taken == req->out[tls->iov].iov_len) {
    tls->iov++;
    tls->iov_taken = 0;
  }
  if (tls->iov < req->nout)
    return;
  tls->iov = 0;
  c->replies = req->next;
  if (c->replies == NULL)
    c->replies_tail = &c->replies;
  request_free (req);
}

/* The first reply that can be sent now, or NULL.  What has to be read before
 * is not among them any more. */
static struct request *
first_reply (struct conn *c)
{
  struct request *req;

  while ((req = c->replies) != NULL && req->mapped) {
    if (conn_tls_has_begun_reply (c) || request_find (req)) {
      c->tls->looked = true;
      break;
    }
    c->replies = req->next;
    if (c->replies == NULL)
      c->replies_tail = &c->replies;
  }
  return req;
}

/* What the first reply has at one place. */
static const uint8_t *
piece (const struct conn *c, size_t *n)
{
  const struct tls *tls = c->tls;
  const struct iovec *iov = &c->replies->out[tls->iov];

  *n = iov->iov_len - tls->iov_taken;
  return (const uint8_t *) iov->iov_base + tls->iov_taken;
}

static size_t
put (struct tls *tls, const void *p, size_t n)
{
  if (n > RECORD - tls->gathered_end)
    n = RECORD - tls->gathered_end;
  memcpy (tls->gathered + tls->gathered_end, p, n);
  tls->gathered_end += n;
  return n;
}

/* A record's worth, where it does not lie at one place. */
static void
gather (struct conn *c)
{
  struct tls *tls = c->tls;
  const uint8_t *p;
  size_t n;

  tls->gathered_start = tls->gathered_end = 0;
  if (c->out_len > 0) {
    tls->plain_taken += put (tls, c->out + tls->plain_taken,
                             c->out_len - tls->plain_taken);
    if (tls->plain_taken < c->out_len)
      return;
    c->out_len = tls->plain_taken = 0;
  }
  while (first_reply (c) && tls->gathered_end < RECORD) {
    p = piece (c, &n);
    if (n >= RECORD && tls->gathered_end == 0)
      return;
    take (c, put (tls, p, n));
  }
}

static void
encrypt (struct conn *c)
{
  struct tls *tls = c->tls;
  const uint8_t *p;
  bool gathered;
  size_t n;
  ssize_t r;

  while (tls->out_len + RECORD_ROOM <= OUT_SIZE) {
    if (tls->gathered_start == tls->gathered_end)
      gather (c);
    n = tls->gathered_end - tls->gathered_start;
    gathered = n > 0;
    if (gathered)
      p = tls->gathered + tls->gathered_start;
    else if (first_reply (c))
      p = piece (c, &n);
    else
      return;
    r = gnutls_record_send (tls->session, p, n < RECORD ? n : RECORD);
    if (r < 0) {
      fail (c, r);
      return;
    }
    if (!gathered)
      take (c, r);
    else {
      tls->gathered_start += r;
      if (tls->out_len >= OUT_STEP)
        return;
    }
  }
}

/* Nothing is left to be said. */
static bool
is_done (const struct conn *c)
{
  return c->phase == CONN_DRAINING && c->nrequests == 0 &&
    c->out_len == 0 && c->tls->gathered_start == c->tls->gathered_end;
}

static void
say_goodbye (struct tls *tls)
{
  if (tls->state == UP)
    gnutls_bye (tls->session, GNUTLS_SHUT_WR);
  tls->state = OVER;
}

bool
conn_tls_encrypt (struct conn *c)
{
  struct tls *tls = c->tls;

  tls->looked = false;
  if (tls->state == UP)
    encrypt (c);
  if (tls->looked && zdisk_map_failed (c->export->disk)) {
    /* Nobody is to take that for data. */
    tls->state = OVER;
    tls->out_len = 0;
    conn_kill (c, "what it was to be sent is gone from the disk");
    return false;
  }
  if (is_done (c))
    say_goodbye (tls);
  if (tls->out_len == 0 || c->phase == CONN_DEAD)
    return false;
  c->send_iov[0].iov_base = tls->out;
  c->send_iov[0].iov_len = tls->out_len;
  c->send_msg.msg_iovlen = 1;
  tls->out_sending = tls->out_len;
  return true;
}

void
conn_tls_sent (struct conn *c)
{
  struct tls *tls = c->tls;

  /* An alert may have come behind it. */
  tls->out_len -= tls->out_sending;
  memmove (tls->out, tls->out + tls->out_sending, tls->out_len);
  tls->out_sending = 0;
}

void
conn_tls_last_words (struct conn *c)
{
  struct tls *tls = c->tls;

  say_goodbye (tls);
  if (tls->out_len > 0 &&
      send (c->fd, tls->out, tls->out_len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
    log_verbose ("connection %d: TLS: no alert: %s", c->fd,
                 strerror (errno));
  tls->out_len = 0;
  /* Closing with bytes unread would have the system throw the alert away. */
  recv (c->fd, tls->in, IN_SIZE, MSG_DONTWAIT);
}
