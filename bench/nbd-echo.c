/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd-echo: the ceiling.  It answers NBD's reads and writes at once and has
 * no disk: a read gets the same bytes each time, from one buffer, and what a
 * write brings is dropped.  So it does what no server can do without, which
 * is to move the messages, by the same means as znbd-server: an io_uring, a
 * receive of many requests, a send of all their replies, both submitted in
 * the system call that waits.  What a server takes longer is its own.
 *
 * One thread.  Handshakes are done with plain blocking calls; there is no TLS
 * and there are no structured replies.
 */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <liburing.h>

#include "load.h"

#define IN_SIZE (256u << 10)

/* No more is received at a time: so the client has its first answers, and
 * sends more, while the rest is worked off. */
#define IN_STEP (34u << 10)
#define SEND_BUFFER (256 << 10)

/* The longest read, and the requests that are answered in one send. */
#define READ_MAX (1u << 20)
#define BATCH 512

/* What is served. */
static uint64_t size = UINT64_C (1) << 40;

static const uint8_t data[READ_MAX];

struct conn {
  int fd;
  bool receiving, sending, was_short;
  uint8_t in[IN_SIZE];
  size_t start, end;
  struct proto_request request; /* whose payload is still to come, */
  uint64_t skip;                /* so much of it; */
  bool waiting;                 /* then it is answered */
  struct proto_simple_reply heads[BATCH];
  struct iovec iov[2 * BATCH];
  struct msghdr msg;
};

/* In the low bit of a completion's user data; NULL is the listening
 * socket's. */
enum { RECEIVED, SENT };

static struct io_uring ring;
static int listening;

static int
listen_unix (const char *path)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (strlen (path) >= sizeof addr.sun_path)
    load_die ("%s is too long for a socket's name", path);
  strcpy (addr.sun_path, path);
  if (fd == -1 || bind (fd, (struct sockaddr *) &addr, sizeof addr) == -1)
    load_die ("%s: %s", path, strerror (errno));
  return fd;
}

static int
listen_tcp (const char *port)
{
  struct sockaddr_in addr = { .sin_family = AF_INET };
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  char *end;
  unsigned long n = strtoul (port, &end, 10);

  if (*port < '0' || *port > '9' || *end || n < 1 || n > 65535)
    load_die ("%s is no port", port);
  addr.sin_port = htons (n);
  addr.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  if (fd == -1 ||
      setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == -1 ||
      bind (fd, (struct sockaddr *) &addr, sizeof addr) == -1)
    load_die ("port %s: %s", port, strerror (errno));
  return fd;
}

/* ---- the handshake: false where the client is gone --------------------- */

static bool
get (int fd, void *buf, size_t length)
{
  return recv (fd, buf, length, MSG_WAITALL) == (ssize_t) length;
}

static bool
put (int fd, const void *buf, size_t length)
{
  return send (fd, buf, length, MSG_NOSIGNAL) == (ssize_t) length;
}

static bool
skip (int fd, uint32_t length)
{
  char rest[512];
  uint32_t n;

  for (; length > 0; length -= n) {
    n = length < sizeof rest ? length : sizeof rest;
    if (!get (fd, rest, n))
      return false;
  }
  return true;
}

static bool
answer_option (int fd, uint32_t option, uint32_t type, const void *answer,
               uint32_t length)
{
  struct proto_option_reply reply = {
    .magic = htobe64 (NBD_OPTION_REPLY_MAGIC), .option = option,
    .type = htobe32 (type), .length = htobe32 (length),
  };

  return put (fd, &reply, sizeof reply) && put (fd, answer, length);
}

static bool
shake_hands (int fd)
{
  const struct proto_greeting greeting = {
    .magic = htobe64 (NBD_MAGIC), .option_magic = htobe64 (NBD_OPTION_MAGIC),
    .flags = htobe16 (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
  };
  const struct {
    uint16_t type;
    uint64_t size;
    uint16_t flags;
  } __attribute__ ((packed)) info = {
    htobe16 (NBD_INFO_EXPORT), htobe64 (size),
    htobe16 (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
             NBD_FLAG_CAN_MULTI_CONN),
  };
  struct proto_option option;
  uint32_t flags;

  if (!put (fd, &greeting, sizeof greeting) || !get (fd, &flags, sizeof flags))
    return false;
  for (;;) {
    if (!get (fd, &option, sizeof option) ||
        be64toh (option.magic) != NBD_OPTION_MAGIC ||
        !skip (fd, be32toh (option.length)))
      return false;
    if (be32toh (option.option) == NBD_OPT_GO)
      return answer_option (fd, option.option, NBD_REP_INFO, &info,
                            sizeof info) &&
        answer_option (fd, option.option, NBD_REP_ACK, NULL, 0);
    if (!answer_option (fd, option.option, NBD_REP_ERR_UNSUP, NULL, 0))
      return false;
  }
}

/* ---- transmission ------------------------------------------------------ */

static struct io_uring_sqe *
new_sqe (void)
{
  struct io_uring_sqe *sqe;

  while ((sqe = io_uring_get_sqe (&ring)) == NULL)
    io_uring_submit (&ring);
  return sqe;
}

static void
submit_accept (void)
{
  struct io_uring_sqe *sqe = new_sqe ();

  io_uring_prep_accept (sqe, listening, NULL, NULL, SOCK_CLOEXEC);
  io_uring_sqe_set_data (sqe, NULL);
}

static size_t
room_of (const struct conn *c)
{
  size_t room = sizeof c->in - c->end;

  return room < IN_STEP ? room : IN_STEP;
}

static void
submit_receive (struct conn *c)
{
  struct io_uring_sqe *sqe = new_sqe ();

  io_uring_prep_recv (sqe, c->fd, c->in + c->end, room_of (c), 0);
  if (c->was_short)
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  io_uring_sqe_set_data (sqe, (char *) c + RECEIVED);
  c->receiving = true;
}

static void
submit_send (struct conn *c)
{
  struct io_uring_sqe *sqe = new_sqe ();

  io_uring_prep_sendmsg (sqe, c->fd, &c->msg, MSG_NOSIGNAL | MSG_WAITALL);
  io_uring_sqe_set_data (sqe, (char *) c + SENT);
  c->sending = true;
}

static void
hang_up (struct conn *c)
{
  if (c->fd != -1)
    shutdown (c->fd, SHUT_RDWR);
  if (c->receiving || c->sending)
    return;
  close (c->fd);
  free (c);
}

/* Takes a request with its payload; false: it is not all there. */
static bool
take_request (struct conn *c)
{
  struct proto_request *r = &c->request;
  size_t part;

  if (!c->waiting) {
    if (c->end - c->start < sizeof *r)
      return false;
    memcpy (r, c->in + c->start, sizeof *r);
    c->start += sizeof *r;
    c->skip = r->type == htobe16 (NBD_CMD_WRITE) ? be32toh (r->length) : 0;
  }
  part = c->end - c->start < c->skip ? c->end - c->start : c->skip;
  c->start += part;
  c->skip -= part;
  c->waiting = c->skip > 0;
  return !c->waiting;
}

/* Answers what has come, and receives more; false: it is at its end. */
static bool
look (struct conn *c)
{
  const struct proto_request *r = &c->request;
  unsigned n = 0, niov = 0;

  if (c->sending || c->receiving)
    return true;
  while (n < BATCH && take_request (c)) {
    if (be32toh (r->magic) != NBD_REQUEST_MAGIC ||
        r->type == htobe16 (NBD_CMD_DISC) ||
        (r->type == htobe16 (NBD_CMD_READ) && be32toh (r->length) > READ_MAX))
      return false;
    c->heads[n] = (struct proto_simple_reply) {
      .magic = htobe32 (NBD_SIMPLE_REPLY_MAGIC), .cookie = r->cookie,
    };
    c->iov[niov++] = (struct iovec) { &c->heads[n], sizeof c->heads[n] };
    if (r->type == htobe16 (NBD_CMD_READ))
      c->iov[niov++] = (struct iovec) { (void *) data, be32toh (r->length) };
    n++;
  }
  c->end -= c->start;
  memmove (c->in, c->in + c->start, c->end);
  c->start = 0;
  if (n > 0) {
    c->msg = (struct msghdr) { .msg_iov = c->iov, .msg_iovlen = niov };
    submit_send (c);
  }
  if (n < BATCH)
    submit_receive (c);
  return true;
}

static void
accepted (int fd)
{
  int on = 1, buffer = SEND_BUFFER;     /* as znbd-server has it */
  struct conn *c;

  submit_accept ();
  if (fd < 0)
    return;
  if (setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1)
    setsockopt (fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
  c = calloc (1, sizeof *c);
  if (c == NULL)
    load_die ("no memory");
  c->fd = fd;
  if (!shake_hands (fd) || !look (c))
    hang_up (c);
}

static void
completed (uintptr_t user, int res)
{
  struct conn *c = (struct conn *) (user & ~(uintptr_t) SENT);

  if (c == NULL) {
    accepted (res);
    return;
  }
  if (user & SENT)
    c->sending = false;
  else {
    c->receiving = false;
    c->was_short = res > 0 && (size_t) res < room_of (c);
    if (res > 0)
      c->end += res;
  }
  if ((res <= 0 && res != -EINTR && res != -EAGAIN) || !look (c))
    hang_up (c);
}

int
main (int argc, char *argv[])
{
  struct io_uring_cqe *cqe;
  uintptr_t user;
  int r, res;

  if (argc == 3 && strcmp (argv[1], "--unix") == 0)
    listening = listen_unix (argv[2]);
  else if (argc == 3 && strcmp (argv[1], "--tcp") == 0)
    listening = listen_tcp (argv[2]);
  else
    load_die ("usage: nbd-echo --unix PATH | --tcp PORT");
  if (listen (listening, 512) == -1)
    load_die ("listen: %s", strerror (errno));
  r = io_uring_queue_init (1024, &ring, IORING_SETUP_SINGLE_ISSUER |
                           IORING_SETUP_DEFER_TASKRUN);
  if (r == -EINVAL)
    r = io_uring_queue_init (1024, &ring, 0);
  if (r < 0)
    load_die ("io_uring_setup: %s", strerror (-r));
  submit_accept ();
  for (;;) {
    r = io_uring_submit_and_wait (&ring, 1);
    if (r < 0 && r != -EINTR)
      load_die ("io_uring_enter: %s", strerror (-r));
    while (io_uring_peek_cqe (&ring, &cqe) == 0) {
      user = (uintptr_t) io_uring_cqe_get_data (cqe);
      res = cqe->res;
      io_uring_cqe_seen (&ring, cqe);
      completed (user, res);
    }
  }
}
