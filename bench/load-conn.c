/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests and replies of one connection of nbd-load. */

#include <config.h>

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "load.h"

#define IN_SIZE (1u << 20)

/* The kernel takes no more at once. */
#define IOV_SEND 1024

/* No request's cookie. */
#define NOBODY UINT64_MAX

static void *
allocate (size_t n, size_t size)
{
  void *p = calloc (n, size);

  if (p == NULL)
    load_die ("no memory");
  return p;
}

void
lc_init (struct load_conn *c, struct load *load, unsigned number)
{
  unsigned i;

  c->load = load;
  c->number = number;
  c->places = allocate (load->depth, sizeof *c->places);
  c->free = allocate (load->depth, sizeof *c->free);
  c->iov = allocate (2 * load->depth, sizeof *c->iov);
  c->heads = allocate (load->depth, sizeof *c->heads);
  c->in = allocate (IN_SIZE, 1);
  for (i = 0; i < load->depth; i++) {
    c->free[i] = load->depth - 1 - i;
    c->places[i].head = (struct proto_request) {
      .magic = htobe32 (NBD_REQUEST_MAGIC),
      .type = htobe16 (load->write ? NBD_CMD_WRITE : NBD_CMD_READ),
      .flags = htobe16 (load->fua ? NBD_CMD_FLAG_FUA : 0),
      .cookie = i, .length = htobe32 (load->block_size),
    };
  }
  c->nfree = load->depth;
  c->answering = NOBODY;
  c->seed = UINT64_C (0x9e3779b97f4a7c15) * (number + 1);
  c->unit = number;
}

void
lc_free (struct load_conn *c)
{
  free (c->places);
  free (c->free);
  free (c->iov);
  free (c->heads);
  free (c->in);
}

static uint64_t
random_number (struct load_conn *c)
{
  c->seed ^= c->seed << 13;
  c->seed ^= c->seed >> 7;
  c->seed ^= c->seed << 17;
  return c->seed;
}

/* Where the next request goes; false: there is none. */
static bool
next_offset (struct load_conn *c, uint64_t *offset)
{
  const struct load *load = c->load;
  uint64_t unit, start, length;

  if (load->random) {
    *offset = load->offset + random_number (c) %
      (load->length / load->block_size) * load->block_size;
    return true;
  }
  unit = load->zone_size;
  if (unit == 0) {
    unit = load->length / load->connections;
    unit -= unit % load->block_size;
  }
  for (;;) {
    start = c->unit * unit;
    length = start < load->length ? load->length - start : 0;
    if (length > unit)
      length = unit;
    if (c->place + load->block_size <= length)
      break;
    c->place = 0;
    c->unit += load->connections;
    /* Reads begin again, writes do not: a zone takes no second one. */
    if (c->unit * unit < load->length && load->zone_size > 0)
      continue;
    if (load->write)
      return false;
    c->unit = c->number;
  }
  *offset = load->offset + start + c->place;
  c->place += load->block_size;
  return true;
}

/* Makes requests of all free places; they are not sent yet. */
static void
fill (struct load_conn *c, uint64_t now)
{
  struct load *load = c->load;
  struct place *p;
  uint64_t offset;
  unsigned n = 0;

  if (c->niov > c->iov_at)
    return;
  c->iov_at = c->niov = 0;
  if (load->stop_at && now >= load->stop_at)
    c->ended = true;
  while (!c->ended && c->nfree > 0) {
    if ((load->count && load->issued >= load->count) ||
        !next_offset (c, &offset)) {
      c->ended = true;
      break;
    }
    p = &c->places[c->free[--c->nfree]];
    p->since = now;
    p->head.offset = htobe64 (offset);
    load->issued++;
    if (load->write) {
      c->iov[c->niov++] = (struct iovec) { &p->head, sizeof p->head };
      c->iov[c->niov++] = (struct iovec) { load->data, load->block_size };
    }
    else
      c->heads[n++] = p->head;
  }
  if (n > 0)
    c->iov[c->niov++] = (struct iovec) { c->heads, n * sizeof *c->heads };
}

/* Sends what is to be sent; false: it would have to wait. */
static bool
flush (struct load_conn *c)
{
  while (c->niov > c->iov_at) {
    struct msghdr msg = {
      .msg_iov = c->iov + c->iov_at,
      .msg_iovlen = c->niov - c->iov_at < IOV_SEND
      ? c->niov - c->iov_at : IOV_SEND,
    };
    ssize_t r = sendmsg (c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (r == -1 && errno == EINTR)
      continue;
    if (r == -1 && errno == EAGAIN)
      return false;
    if (r == -1)
      load_die ("send: %s", strerror (errno));
    while (c->iov_at < c->niov && (size_t) r >= c->iov[c->iov_at].iov_len)
      r -= c->iov[c->iov_at++].iov_len;
    if (r > 0) {
      c->iov[c->iov_at].iov_base = (char *) c->iov[c->iov_at].iov_base + r;
      c->iov[c->iov_at].iov_len -= r;
    }
  }
  return true;
}

static void
answered (struct load_conn *c, uint64_t cookie, uint32_t error, uint64_t now)
{
  struct place *p;

  if (cookie >= c->load->depth)
    load_die ("a reply has a cookie that no request had");
  p = &c->places[cookie];
  if (p->since == 0)
    load_die ("a request was answered twice");
  if (error)
    load_die ("%s of %llu bytes at %llu: the server says error %u",
              c->load->write ? "write" : "read",
              (unsigned long long) c->load->block_size,
              (unsigned long long) be64toh (p->head.offset), error);
  load_count (now - p->since);
  p->since = 0;
  c->free[c->nfree++] = cookie;
  c->done++;
  c->load->done++;
}

/* A reply's header: returns its size, or 0 where it is not all there. */
static size_t
parse_simple (struct load_conn *c, const uint8_t *p, size_t n, uint64_t now)
{
  struct proto_simple_reply r;

  if (n < sizeof r)
    return 0;
  memcpy (&r, p, sizeof r);
  if (be32toh (r.magic) != NBD_SIMPLE_REPLY_MAGIC)
    load_die ("a reply has a wrong magic number");
  if (r.error)
    answered (c, r.cookie, be32toh (r.error), now);
  c->answering = r.cookie;
  c->skip = c->load->write ? 0 : c->load->block_size;
  return sizeof r;
}

static size_t
parse_chunk (struct load_conn *c, const uint8_t *p, size_t n, uint64_t now)
{
  struct proto_chunk r;
  struct proto_error e = { .error = 0 };
  uint32_t magic;

  if (n < sizeof magic)
    return 0;
  memcpy (&magic, p, sizeof magic);
  if (be32toh (magic) == NBD_SIMPLE_REPLY_MAGIC && c->load->write)
    return parse_simple (c, p, n, now);
  if (n < sizeof r)
    return 0;
  memcpy (&r, p, sizeof r);
  if (be32toh (r.magic) != NBD_CHUNK_MAGIC)
    load_die ("a reply has a wrong magic number");
  if (be16toh (r.type) & (1u << 15)) {
    if (n < sizeof r + sizeof e)
      return 0;
    memcpy (&e, p + sizeof r, sizeof e);
    answered (c, r.cookie, be32toh (e.error), now);
  }
  if (be16toh (r.flags) & NBD_REPLY_FLAG_DONE)
    c->answering = r.cookie;
  c->skip = be32toh (r.length);
  return sizeof r;
}

/* Receives once and takes what came; false: nothing was there. */
static bool
receive (struct load_conn *c, uint64_t *now)
{
  const uint8_t *p = c->in;
  size_t n, size;
  ssize_t r;

  do
    r = recv (c->fd, c->in + c->in_length, IN_SIZE - c->in_length,
              MSG_DONTWAIT);
  while (r == -1 && errno == EINTR);
  if (r == -1 && errno == EAGAIN)
    return false;
  if (r <= 0)
    load_die ("receive: %s", r == 0 ? "the server closed the connection"
              : strerror (errno));
  *now = load_now ();
  n = c->in_length + r;
  for (;;) {
    size = c->skip < n ? c->skip : n;
    p += size;
    n -= size;
    c->skip -= size;
    if (c->skip > 0)
      break;
    if (c->answering != NOBODY) {
      answered (c, c->answering, 0, *now);
      c->answering = NOBODY;
    }
    size = c->load->structured ? parse_chunk (c, p, n, *now)
      : parse_simple (c, p, n, *now);
    if (size == 0)
      break;
    p += size;
    n -= size;
  }
  memmove (c->in, p, n);
  c->in_length = n;
  return true;
}

uint32_t
lc_run (struct load_conn *c)
{
  uint64_t now = load_now ();
  bool sent;

  /* Replies first: what is asked for then goes out in one piece. */
  if (c->nfree < c->load->depth)
    receive (c, &now);
  fill (c, now);
  sent = flush (c);
  if (c->ended && sent && c->nfree == c->load->depth)
    return 0;
  return EPOLLIN | (sent ? 0 : EPOLLOUT);
}
