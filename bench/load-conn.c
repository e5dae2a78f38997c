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
  c->seconds = allocate (load->depth, sizeof *c->seconds);
  c->iov = allocate (3 * load->depth, sizeof *c->iov);
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
    c->places[i].second = (struct proto_request) {
      .magic = htobe32 (NBD_REQUEST_MAGIC), .cookie = i + load->depth,
    };
    if (load->append) {
      c->places[i].second.type = htobe16 (NBD_CMD_BLOCK_STATUS);
      c->places[i].second.flags = htobe16 (NBD_CMD_FLAG_REQ_ONE);
      c->places[i].second.length = c->places[i].head.length;
    }
    else
      c->places[i].second.type = htobe16 (NBD_CMD_FLUSH);
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
  free (c->seconds);
  if (c->tls)
    lt_free (c->tls);
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

/* All connections append to the same zone, until it is full.  A place's
 * number is its tag. */
static bool
next_append (const struct load_conn *c, uint32_t place, uint64_t *offset)
{
  const struct load *load = c->load;
  uint64_t zone = load->issued / (load->zone_part / load->block_size);

  *offset = load->offset + zone * load->zone_size + place * load->block_size;
  return (zone + 1) * load->zone_size <= load->length;
}

static uint64_t
random_offset (struct load_conn *c)
{
  const struct load *load = c->load;
  uint64_t zone = 0, length = load->length;

  if (load->zone_size > 0 && load->zone_part < load->zone_size) {
    zone = random_number (c) % (length / load->zone_size);
    length = load->zone_part;
  }
  return load->offset + zone * load->zone_size +
    random_number (c) % (length / load->block_size) * load->block_size;
}

/* Where the next request goes; false: there is none. */
static bool
next_offset (struct load_conn *c, uint32_t place, uint64_t *offset)
{
  const struct load *load = c->load;
  uint64_t unit, start, length;

  if (load->append)
    return next_append (c, place, offset);
  if (load->random) {
    *offset = random_offset (c);
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
    if (load->zone_size > 0 && length > load->zone_part)
      length = load->zone_part;
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
  while (c->nseconds > 0) {
    p = &c->places[c->seconds[--c->nseconds]];
    c->iov[c->niov++] = (struct iovec) { &p->second, sizeof p->second };
  }
  while (!c->ended && c->nfree > 0) {
    if ((load->count && load->issued >= load->count) ||
        !next_offset (c, c->free[c->nfree - 1], &offset)) {
      c->ended = true;
      break;
    }
    p = &c->places[c->free[--c->nfree]];
    p->since = now;
    p->left = load->append || load->flush ? 2 : 1;
    p->head.offset = htobe64 (offset);
    load->issued++;
    if (load->write) {
      c->iov[c->niov++] = (struct iovec) { &p->head, sizeof p->head };
      c->iov[c->niov++] = (struct iovec) { load->data, load->block_size };
      if (load->append) {
        p->placed = false;
        p->second.offset = p->head.offset;
        c->iov[c->niov++] = (struct iovec) { &p->second, sizeof p->second };
      }
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
    ssize_t r = c->tls ? lt_send (c->tls, &msg)
      : sendmsg (c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

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
  return c->tls == NULL || lt_flush (c->tls);
}

/* The place of a request that is under way. */
static struct place *
find_place (struct load_conn *c, uint64_t cookie)
{
  const struct load *load = c->load;
  unsigned both = load->append || load->flush ? 2 : 1;
  struct place *p;

  if (cookie >= (uint64_t) both * load->depth)
    load_die ("a reply has a cookie that no request had");
  p = &c->places[cookie % load->depth];
  if (p->since == 0 || (load->flush && p->left == both) !=
      (load->flush && cookie < load->depth))
    load_die ("a request was answered twice");
  return p;
}

static void
answered (struct load_conn *c, uint64_t cookie, uint32_t error, uint64_t now)
{
  const struct load *load = c->load;
  struct place *p = find_place (c, cookie);
  bool first = cookie < load->depth;

  if (error)
    load_die ("%s of %llu bytes at %llu: the server says error %u",
              !load->write ? "read" : first ? "write"
              : load->append ? "status of the append" : "flush behind the "
              "write", (unsigned long long) load->block_size,
              (unsigned long long) be64toh (p->head.offset), error);
  if (first && load->flush)
    c->seconds[c->nseconds++] = cookie;
  if (--p->left > 0)
    return;
  cookie %= load->depth;
  if (load->append && !p->placed)
    load_die ("an append was answered without its place");
  load_count (now - p->since);
  p->since = 0;
  c->free[c->nfree++] = cookie;
  c->done++;
  c->load->done++;
}

/* Where an append went: to blocks of its zone that no other one got. */
static void
take_place (struct load_conn *c, uint64_t cookie, uint32_t status)
{
  struct load *load = c->load;
  struct place *p = find_place (c, cookie);
  uint64_t at = (status - 1) * UINT64_C (512), block;

  if (cookie < load->depth || p->placed)
    load_die ("a status that was not asked for");
  if (status == 0)
    load_die ("the server does not know where an append went");
  block = be64toh (p->head.offset) - load->offset;
  block = (block - block % load->zone_size + at) / load->block_size;
  if (at % load->block_size || at >= load->zone_size)
    load_die ("an append went outside of its zone: status %u", status);
  if (load->taken[block / 8] & 1 << block % 8)
    load_die ("two appends went to the same place, block %llu",
              (unsigned long long) block);
  load->taken[block / 8] |= 1 << block % 8;
  p->placed = true;
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
  struct proto_extent extent;
  size_t size = sizeof r;
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
  c->skip = be32toh (r.length);
  if (be16toh (r.type) == NBD_REPLY_TYPE_BLOCK_STATUS) {
    size += sizeof (uint32_t) + sizeof extent;
    if (n < size)
      return 0;
    if (c->load->append && c->skip == size - sizeof r) {
      memcpy (&extent, p + size - sizeof extent, sizeof extent);
      take_place (c, r.cookie, be32toh (extent.flags));
    }
    c->skip -= size - sizeof r;
  }
  if (be16toh (r.flags) & NBD_REPLY_FLAG_DONE)
    c->answering = r.cookie;
  return size;
}

/* Receives once and takes what came; false: nothing was there. */
static bool
receive (struct load_conn *c, uint64_t *now)
{
  const uint8_t *p = c->in;
  size_t n, size;
  ssize_t r;

  do
    r = c->tls
      ? lt_receive (c->tls, c->in + c->in_length, IN_SIZE - c->in_length)
      : recv (c->fd, c->in + c->in_length, IN_SIZE - c->in_length,
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
    while (receive (c, &now) && c->tls && lt_has_more (c->tls))
      ;
  fill (c, now);
  sent = flush (c);
  if (c->ended && sent && c->nfree == c->load->depth)
    return 0;
  return EPOLLIN | (sent ? 0 : EPOLLOUT);
}
