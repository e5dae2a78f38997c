/* SPDX-License-Identifier: BSD-3-Clause */
/* Sockets and handshakes of nbd-load, with plain blocking calls; the socket
 * is made non-blocking at the end. */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "load.h"

static int
connect_unix (const char *path)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (strlen (path) >= sizeof addr.sun_path)
    load_die ("%s is too long for a socket's name", path);
  strcpy (addr.sun_path, path);
  if (fd == -1 || connect (fd, (struct sockaddr *) &addr, sizeof addr) == -1)
    load_die ("%s: %s", path, strerror (errno));
  return fd;
}

static int
connect_tcp (const char *host, const char *port)
{
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *a;
  int fd = -1, on = 1, r;

  r = getaddrinfo (host, port, &hints, &list);
  if (r != 0)
    load_die ("%s: %s", host, gai_strerror (r));
  for (a = list; a && fd == -1; a = a->ai_next) {
    fd = socket (a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd != -1 && connect (fd, a->ai_addr, a->ai_addrlen) == -1) {
      r = errno;
      close (fd);
      errno = r;
      fd = -1;
    }
  }
  freeaddrinfo (list);
  if (fd == -1)
    load_die ("%s port %s: %s", host, port, strerror (errno));
  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

static void
get (struct load_conn *c, void *buf, size_t length)
{
  ssize_t r;

  while (length > 0) {
    r = c->tls ? lt_receive (c->tls, buf, length) : read (c->fd, buf, length);
    if (r == -1 && (errno == EINTR || errno == EAGAIN))
      continue;
    if (r <= 0)
      load_die ("the server ended the handshake: %s",
                r == 0 ? "end of file" : strerror (errno));
    buf = (char *) buf + r;
    length -= r;
  }
}

static void
put (struct load_conn *c, const void *buf, size_t length)
{
  ssize_t r;

  while (length > 0) {
    struct iovec iov = { (void *) buf, length };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    r = c->tls ? lt_send (c->tls, &msg) : write (c->fd, buf, length);
    if (r == -1 && (errno == EINTR || errno == EAGAIN))
      continue;
    if (r == -1)
      load_die ("handshake: %s", strerror (errno));
    buf = (const char *) buf + r;
    length -= r;
  }
}

static void
send_option (struct load_conn *c, uint32_t number, const void *data, uint32_t length)
{
  struct proto_option option = {
    .magic = htobe64 (NBD_OPTION_MAGIC), .option = htobe32 (number),
    .length = htobe32 (length),
  };

  put (c, &option, sizeof option);
  put (c, data, length);
}

/* Reads one reply to an option, whose data is cut off at max; returns its
 * type, or ends the program at an error. */
static uint32_t
option_reply (struct load_conn *c, const char *what, void *data,
              size_t max, uint32_t *length)
{
  struct proto_option_reply reply;
  uint32_t type, left;
  char rest[512];

  get (c, &reply, sizeof reply);
  if (be64toh (reply.magic) != NBD_OPTION_REPLY_MAGIC)
    load_die ("%s: the server's answer has a wrong magic number", what);
  type = be32toh (reply.type);
  left = be32toh (reply.length);
  *length = left < max ? left : max;
  get (c, data, *length);
  for (left -= *length; left > 0; left -= max) {
    max = left < sizeof rest ? left : sizeof rest;
    get (c, rest, max);
  }
  if (type >= NBD_REP_ERR (0))
    load_die ("%s: the server refuses: error %u%s%.*s", what,
              type - NBD_REP_ERR (0), *length ? ": " : "", (int) *length,
              (char *) data);
  return type;
}

/* An option without data, which the server has to accept. */
static void
ask_for (struct load_conn *c, uint32_t number, const char *what)
{
  char answer[256];
  uint32_t length;

  send_option (c, number, NULL, 0);
  option_reply (c, what, answer, sizeof answer, &length);
}

static void
select_context (struct load_conn *c, const char *export, const char *name)
{
  uint32_t n = strlen (export), length;
  uint8_t data[3 * sizeof n + 2 * NBD_MAX_STRING], *p = data;
  const uint32_t numbers[] = { htobe32 (n), htobe32 (1),
                               htobe32 (strlen (name)) };
  char answer[256];
  bool selected = false;

  p = mempcpy (p, &numbers[0], sizeof n);
  p = mempcpy (p, export, n);
  p = mempcpy (p, &numbers[1], sizeof n);
  p = mempcpy (p, &numbers[2], sizeof n);
  p = mempcpy (p, name, strlen (name));
  send_option (c, NBD_OPT_SET_META_CONTEXT, data, p - data);
  while (option_reply (c, name, answer, sizeof answer, &length) ==
         NBD_REP_META_CONTEXT)
    selected = true;
  if (!selected)
    load_die ("the server does not offer %s for this export", name);
}

static uint64_t
go (struct load_conn *c, const char *export)
{
  uint32_t n = strlen (export), be = htobe32 (n), length, type;
  uint8_t data[sizeof be + NBD_MAX_STRING + 2] = { 0 }, answer[512];
  uint64_t size = 0;
  uint16_t info;

  memcpy (data, &be, sizeof be);
  memcpy (data + sizeof be, export, n);
  send_option (c, NBD_OPT_GO, data, sizeof be + n + 2);
  for (;;) {
    type = option_reply (c, "NBD_OPT_GO", answer, sizeof answer, &length);
    if (type == NBD_REP_ACK)
      return size;
    memcpy (&info, answer, sizeof info);
    if (type == NBD_REP_INFO && length >= 12 &&
        be16toh (info) == NBD_INFO_EXPORT) {
      memcpy (&size, answer + sizeof info, sizeof size);
      size = be64toh (size);
    }
  }
}

uint64_t
load_connect (const struct load *load, struct load_conn *c)
{
  uint32_t flags = htobe32 (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  struct proto_greeting greeting;
  uint64_t size;

  if (strlen (load->export) > NBD_MAX_STRING)
    load_die ("the export's name is longer than %u bytes", NBD_MAX_STRING);
  c->fd = load->unix_path ? connect_unix (load->unix_path)
    : connect_tcp (load->host, load->port);
  get (c, &greeting, sizeof greeting);
  if (be64toh (greeting.magic) != NBD_MAGIC ||
      be64toh (greeting.option_magic) != NBD_OPTION_MAGIC)
    load_die ("the server does not speak NBD's newstyle");
  put (c, &flags, sizeof flags);
  if (load->tls) {
    ask_for (c, NBD_OPT_STARTTLS, "NBD_OPT_STARTTLS");
    c->tls = lt_begin (load, c->fd);
  }
  if (load->structured)
    ask_for (c, NBD_OPT_STRUCTURED_REPLY, "NBD_OPT_STRUCTURED_REPLY");
  if (load->extended)
    ask_for (c, NBD_OPT_EXTENDED_HEADERS, "NBD_OPT_EXTENDED_HEADERS");
  if (load->context)
    select_context (c, load->export, load->context);
  size = go (c, load->export);
  if (fcntl (c->fd, F_SETFL, fcntl (c->fd, F_GETFL) | O_NONBLOCK) == -1)
    load_die ("fcntl: %s", strerror (errno));
  return size;
}
