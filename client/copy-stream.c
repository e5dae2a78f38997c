/* SPDX-License-Identifier: BSD-3-Clause */
/* A job's data, from the source to the destination.
 *
 * Pieces are buffers that are read into and then written from.  Reads of a
 * stream are answered in any order; its pieces are written in the order of
 * the disk, so that each write is sent when those before it have been.
 *
 * Zeros are not written but held back until data follows, and then zeroed
 * in one request.  Those at the end of a zone that is to be full are left
 * to finishing it.
 *
 * To compare, both sides are read into the two halves of a buffer.
 */

#include <config.h>

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "copy-stream.h"

/* Of zeroing: so much is one step of the progress bar at most. */
#define ZERO_MAX (UINT64_C (256) << 20)

/* Ranges that are shorter are read without asking whether they are zeros:
 * that costs as much. */
#define STATUS_MIN (UINT64_C (1) << 20)

/* A request to zero, which needs no buffer. */
struct zeroing {
  struct copy_io io;
  struct stream *stream;
  uint64_t offset, length;
};

/* ---- errors ---- */

static void
fail_read (struct copy_worker *w, const struct copy_side *side,
           const struct copy_io *io, uint64_t offset)
{
  copy_fail (w->c, "%s: cannot be read at offset %" PRIu64 " (zone %" PRIu64
             "): %s", side->operand, offset, offset / side->g->zone_size,
             io->z.reason[0] ? io->z.reason : strerror (io->error));
}

/* ---- the end of streams ---- */

static void
free_piece (struct piece *p)
{
  struct copy_worker *w = p->stream->worker;

  p->next = w->free_pieces;
  w->free_pieces = p;
}

void
stream_end_if_done (struct stream *s)
{
  struct copy *c = s->worker->c;
  struct copy_job *job = s->job;

  if (s->in_flight > 0 || s->first ||
      (s->next < job->to && !atomic_load (&c->stop)))
    return;
  s->job = NULL;
  /* A zone to be full whose last bytes were not written is finished. */
  if (job->full && (s->zero_from < s->zero_to ||
                    job->to < c->dst.zones[job->zone].start +
                              c->dst.zones[job->zone].capacity))
    job->action = COPY_FINISH;
  atomic_fetch_add (&c->done, s->zero_to - s->zero_from);
  copy_end_job (c, job);
}

/* ---- writing ---- */

static void write_ready (struct stream *s);

static void
written (struct copy_io *io)
{
  struct piece *p = (struct piece *) ((char *) io -
                                      offsetof (struct piece, io));
  struct stream *s = p->stream;
  struct copy *c = s->worker->c;

  s->in_flight--;
  if (io->error)
    copy_fail_write (c, io->error, p->offset, p->length, io->z.reason);
  else
    atomic_fetch_add (&c->done, p->length);
  free_piece (p);
  stream_end_if_done (s);
}

static void
zeroed (struct copy_io *io)
{
  struct zeroing *z = (struct zeroing *) io;
  struct stream *s = z->stream;
  struct copy *c = s->worker->c;

  s->in_flight--;
  if (io->error)
    copy_fail_write (c, io->error, z->offset, z->length, io->z.reason);
  else
    atomic_fetch_add (&c->done, z->length);
  free (z);
  write_ready (s);
}

/* Sends the requests for what was held back. */
static void
zero_held_back (struct stream *s)
{
  struct copy *c = s->worker->c;
  bool needed = s->job->sequential || !c->created;

  while (s->zero_from < s->zero_to) {
    uint64_t n = s->zero_to - s->zero_from;
    struct zeroing *z;

    if (n > ZERO_MAX)
      n = ZERO_MAX;
    if (!needed) {
      atomic_fetch_add (&c->done, n);
      s->zero_from += n;
      continue;
    }
    z = calloc (1, sizeof *z);
    if (z == NULL) {
      copy_fail (c, "out of memory");
      return;
    }
    z->io.done = zeroed;
    z->stream = s;
    z->offset = s->zero_from;
    z->length = n;
    s->zero_from += n;
    s->in_flight++;
    copy_conn_zero (s->worker->dst, &z->io, n, z->offset);
  }
}

static void
hold_back (struct stream *s, uint64_t offset, uint64_t length)
{
  if (s->zero_from == s->zero_to)
    s->zero_from = offset;
  s->zero_to = offset + length;
}

/* Writes the pieces that have been read, as far as there is no gap. */
static void
write_ready (struct stream *s)
{
  struct copy *c = s->worker->c;
  struct piece *p;

  while ((p = s->first) != NULL && p->ready) {
    s->first = p->next;
    if (s->first == NULL)
      s->tail = &s->first;
    s->in_flight--;
    if (atomic_load (&c->stop))
      free_piece (p);
    else if (p->zero) {
      hold_back (s, p->offset, p->length);
      free_piece (p);
    }
    else {
      zero_held_back (s);
      s->in_flight++;
      p->io.done = written;
      copy_conn_write (s->worker->dst, &p->io, p->buf, p->length, p->offset);
    }
  }
  if (!s->first && s->next == s->job->to && !s->job->full &&
      !atomic_load (&c->stop))
    zero_held_back (s);
  stream_end_if_done (s);
}

/* ---- reading ---- */

static bool
is_zero (const uint8_t *buf, size_t length)
{
  return buf[0] == 0 && memcmp (buf, buf + 1, length - 1) == 0;
}

/* The place of the first difference. */
static uint64_t
difference (const struct piece *p, uint64_t half)
{
  uint32_t i;

  for (i = 0; p->buf[i] == p->buf[half + i]; ++i)
    ;
  return p->offset + i;
}

static void
compare (struct piece *p)
{
  struct copy *c = p->stream->worker->c;

  if (memcmp (p->buf, p->buf + c->piece, p->length) != 0) {
    uint64_t at = difference (p, c->piece);

    copy_fail (c, "the disks differ at offset %" PRIu64 " (zone %" PRIu64
               ")", at, at / c->src.g->zone_size);
  }
  else
    atomic_fetch_add (&c->done, p->length);
}

static void
read_done (struct piece *p, const struct copy_side *side,
           const struct copy_io *io)
{
  struct stream *s = p->stream;
  struct copy *c = s->worker->c;

  if (io->error)
    fail_read (s->worker, side, io, p->offset);
  if (--p->reads > 0)
    return;
  if (c->mode == COPY_COMPARE) {
    if (!atomic_load (&c->stop))
      compare (p);
    s->in_flight--;
    free_piece (p);
    stream_end_if_done (s);
    return;
  }
  p->zero = c->o.sparse && c->dst.can_zero && is_zero (p->buf, p->length);
  p->ready = true;
  write_ready (s);
}

static void
src_read (struct copy_io *io)
{
  struct piece *p = (struct piece *) ((char *) io -
                                      offsetof (struct piece, io));

  read_done (p, &p->stream->worker->c->src, io);
}

static void
dst_read (struct copy_io *io)
{
  struct piece *p = (struct piece *) ((char *) io -
                                      offsetof (struct piece, io2));

  read_done (p, &p->stream->worker->c->dst, io);
}

/* Reads the next piece. */
static void
read_piece (struct stream *s, uint64_t to)
{
  struct copy_worker *w = s->worker;
  struct copy *c = w->c;
  struct piece *p = w->free_pieces;
  uint64_t n = c->piece - s->next % c->piece;

  if (n > to - s->next)
    n = to - s->next;
  w->free_pieces = p->next;
  p->next = NULL;
  p->stream = s;
  p->offset = s->next;
  p->length = n;
  p->ready = false;
  s->next += n;
  s->in_flight++;
  if (c->mode == COPY_COMPARE) {
    p->reads = 2;
    p->io.done = src_read;
    p->io2.done = dst_read;
    /* Whole blocks are read, where what is to be compared ends in one. */
    n += (c->common - n % c->common) % c->common;
    copy_conn_read (w->src, &p->io, p->buf, n, p->offset);
    copy_conn_read (w->dst, &p->io2, p->buf + c->piece, n, p->offset);
    return;
  }
  *s->tail = p;
  s->tail = &p->next;
  p->reads = 1;
  p->io.done = src_read;
  copy_conn_read (w->src, &p->io, p->buf, n, p->offset);
}

/* ---- what the source says of zeros ---- */

/* One extent more: of zeros, or of data, that begins where the last one
 * ended.  Only those right behind next are kept; later ones are asked for
 * again. */
static void
extent (struct copy_extents *e, uint64_t length, bool zero)
{
  struct stream *s = (struct stream *)
    ((char *) e - offsetof (struct stream, extents));
  uint64_t *to = zero ? &s->zeros_to : &s->data_to;
  uint64_t *other = zero ? &s->data_to : &s->zeros_to;

  /* Data behind zeros is taken as well, nothing behind data but data. */
  if (s->known_to == UINT64_MAX || (zero && *other > s->next)) {
    s->known_to = UINT64_MAX;
    return;
  }
  s->known_to += length;
  *to = s->known_to;
}

static void
status_done (struct copy_io *io)
{
  struct stream *s = (struct stream *)
    ((char *) io - offsetof (struct stream, status));

  s->asking = false;
  s->in_flight--;
  /* Not to know is no error: then it is read. */
  if (io->error || (s->zeros_to <= s->next && s->data_to <= s->next)) {
    s->ask = false;
    s->data_to = s->job->to;
  }
  stream_end_if_done (s);
}

static void
ask (struct stream *s)
{
  s->asking = true;
  s->in_flight++;
  s->known_to = s->next;
  s->zeros_to = s->data_to = s->next;
  s->extents.extent = extent;
  s->status.done = status_done;
  copy_conn_status (s->worker->src, &s->status, &s->extents,
                    s->job->to - s->next, s->next);
}

/* Zeros that the source told of: a piece without a buffer would do, but
 * those before it have to be written first. */
static bool
skip_zeros (struct stream *s)
{
  uint64_t to = s->zeros_to < s->job->to ? s->zeros_to : s->job->to;

  if (s->first || to - s->next < s->worker->c->piece)
    return false;
  to -= to % s->worker->c->common;
  hold_back (s, s->next, to - s->next);
  s->next = to;
  write_ready (s);
  return true;
}

/* ---- what to do next ---- */

bool
stream_feed (struct stream *s)
{
  const struct copy_job *job = s->job;
  uint64_t to;

  if (job == NULL || s->next == job->to || s->asking)
    return false;
  to = job->to;
  if (s->ask) {
    if (s->next >= s->zeros_to && s->next >= s->data_to) {
      ask (s);
      return true;
    }
    if (s->next < s->zeros_to && s->zeros_to - s->next >=
        s->worker->c->piece) {
      if (s->first)
        return false;           /* until what is before it is written */
      if (skip_zeros (s))
        return true;
    }
    if (s->data_to > s->next && s->data_to < to)
      to = s->data_to;
    to += (s->worker->c->common - to % s->worker->c->common) %
      s->worker->c->common;
    if (to > job->to)
      to = job->to;
  }
  if (s->worker->free_pieces == NULL)
    return false;
  read_piece (s, to);
  return true;
}

void
stream_begin (struct copy_worker *w, struct stream *s, struct copy_job *job)
{
  memset (s, 0, sizeof *s);
  s->worker = w;
  s->job = job;
  s->next = job->from;
  s->tail = &s->first;
  s->ask = w->c->mode == COPY_DATA && w->c->src.can_status &&
    w->c->o.sparse && w->c->dst.can_zero && job->to - job->from >= STATUS_MIN;
  stream_end_if_done (s);
}
