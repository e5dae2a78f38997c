/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS of one connection of nbd-load.  Ciphertext is received in large pieces
 * and sent in large pieces: what GnuTLS would do by itself is a system call
 * or two for each record of 16 KiB, and the server is what is measured.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <gnutls/gnutls.h>

#include "load.h"

#define CIPHER_SIZE (256u << 10)

/* The plain text of a record, at most. */
#define RECORD 16384u

/* And what encrypting adds to it, with some to spare. */
#define OVERHEAD 512u

struct load_tls {
  int fd;
  gnutls_session_t session;
  size_t in_start, in_end, out_start, out_end;
  uint8_t in[CIPHER_SIZE], out[CIPHER_SIZE], record[RECORD];
};

static gnutls_certificate_credentials_t credentials;

static void
check (int r, const char *what)
{
  if (r < 0)
    load_die ("TLS: %s: %s", what, gnutls_strerror (r));
}

bool
lt_flush (struct load_tls *tls)
{
  ssize_t r;

  while (tls->out_start < tls->out_end) {
    r = send (tls->fd, tls->out + tls->out_start,
              tls->out_end - tls->out_start, MSG_NOSIGNAL);
    if (r == -1 && errno == EINTR)
      continue;
    if (r == -1 && errno == EAGAIN)
      return false;
    if (r == -1)
      load_die ("send: %s", strerror (errno));
    tls->out_start += r;
  }
  tls->out_start = tls->out_end = 0;
  return true;
}

static ssize_t
pull (gnutls_transport_ptr_t opaque, void *buf, size_t size)
{
  struct load_tls *tls = opaque;
  size_t n = tls->in_end - tls->in_start;
  ssize_t r;

  if (n == 0) {
    /* Who waits for an answer has to have asked. */
    lt_flush (tls);
    r = recv (tls->fd, tls->in, sizeof tls->in, 0);
    if (r <= 0) {
      if (r == -1)
        gnutls_transport_set_errno (tls->session, errno);
      return r;
    }
    tls->in_start = 0;
    tls->in_end = n = r;
  }
  if (n > size)
    n = size;
  memcpy (buf, tls->in + tls->in_start, n);
  tls->in_start += n;
  return n;
}

/* There is always room: lt_send sees to it, and a handshake is short. */
static ssize_t
push (gnutls_transport_ptr_t opaque, const void *data, size_t size)
{
  struct load_tls *tls = opaque;

  if (size > sizeof tls->out - tls->out_end) {
    gnutls_transport_set_errno (tls->session, EMSGSIZE);
    return -1;
  }
  memcpy (tls->out + tls->out_end, data, size);
  tls->out_end += size;
  return size;
}

static void
load_certificate (const char *folder)
{
  char cert[4096], key[4096];

  snprintf (cert, sizeof cert, "%s/client-cert.pem", folder);
  snprintf (key, sizeof key, "%s/client-key.pem", folder);
  check (gnutls_certificate_set_x509_key_file (credentials, cert, key,
                                               GNUTLS_X509_FMT_PEM), cert);
}

struct load_tls *
lt_begin (const struct load *load, int fd)
{
  struct load_tls *tls = calloc (1, sizeof *tls);
  int r;

  if (tls == NULL)
    load_die ("no memory");
  if (credentials == NULL) {
    check (gnutls_certificate_allocate_credentials (&credentials),
           "credentials");
    if (load->certificates)
      load_certificate (load->certificates);
  }
  tls->fd = fd;
  check (gnutls_init (&tls->session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL),
         "a session");
  check (gnutls_set_default_priority (tls->session), "its ciphers");
  check (gnutls_credentials_set (tls->session, GNUTLS_CRD_CERTIFICATE,
                                 credentials), "its credentials");
  gnutls_transport_set_ptr (tls->session, tls);
  gnutls_transport_set_pull_function (tls->session, pull);
  gnutls_transport_set_push_function (tls->session, push);
  do
    r = gnutls_handshake (tls->session);
  while (r < 0 && !gnutls_error_is_fatal (r));
  check (r, "handshake");
  lt_flush (tls);
  return tls;
}

/* Takes up to a record out of a message from its byte at on. */
static size_t
gather (struct load_tls *tls, const struct msghdr *msg, size_t at)
{
  size_t i, n = 0, part;

  for (i = 0; i < msg->msg_iovlen && n < RECORD; i++) {
    part = msg->msg_iov[i].iov_len;
    if (at >= part) {
      at -= part;
      continue;
    }
    part -= at;
    if (part > RECORD - n)
      part = RECORD - n;
    memcpy (tls->record + n, (char *) msg->msg_iov[i].iov_base + at, part);
    n += part;
    at = 0;
  }
  return n;
}

ssize_t
lt_send (struct load_tls *tls, const struct msghdr *msg)
{
  size_t done = 0, n;
  ssize_t r;

  if (!lt_flush (tls)) {
    errno = EAGAIN;
    return -1;
  }
  while (tls->out_end + RECORD + OVERHEAD <= sizeof tls->out &&
         (n = gather (tls, msg, done)) > 0) {
    r = gnutls_record_send (tls->session, tls->record, n);
    check (r, "sending");
    done += r;
  }
  lt_flush (tls);
  return done;
}

bool
lt_has_more (const struct load_tls *tls)
{
  return tls->in_start < tls->in_end ||
    gnutls_record_check_pending (tls->session) > 0;
}

ssize_t
lt_receive (struct load_tls *tls, void *buf, size_t size)
{
  size_t done = 0;
  ssize_t r;

  do {
    r = gnutls_record_recv (tls->session, (char *) buf + done, size - done);
    if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED) {
      errno = EAGAIN;
      break;
    }
    check (r, "receiving");
    if (r == 0)
      return done;
    done += r;
  } while (done < size && lt_has_more (tls));
  return done > 0 ? (ssize_t) done : -1;
}

char *
lt_describe (struct load_tls *tls)
{
  char *gnutls = gnutls_session_get_desc (tls->session), *text;

  text = strdup (gnutls ? gnutls : "");
  gnutls_free (gnutls);
  if (text == NULL)
    load_die ("no memory");
  return text;
}

void
lt_free (struct load_tls *tls)
{
  gnutls_deinit (tls->session);
  free (tls);
}
