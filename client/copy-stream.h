/* SPDX-License-Identifier: BSD-3-Clause */
/* A thread's jobs under way, and their pieces of data in flight. */

#ifndef COPY_STREAM_H
#define COPY_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "copy.h"
#include "copy-conn.h"

/* Zones that a thread has under way at most: with small ones, enough to
 * keep many requests in flight. */
#define STREAMS_MAX 16u

struct stream;

struct piece {
  struct copy_io io, io2;       /* io2: the destination's read */
  struct stream *stream;
  struct piece *next;           /* of the stream's, or of the free ones */
  uint8_t *buf;
  uint64_t offset;
  uint32_t length;
  unsigned reads;               /* in flight */
  bool ready, zero;
};

struct stream {
  struct copy_worker *worker;
  struct copy_job *job;         /* NULL: free */
  uint64_t next;                /* to be read from here on */
  uint64_t zero_from, zero_to;  /* held back, where not the same */
  unsigned in_flight;           /* requests, and pieces that wait */
  struct piece *first, **tail;  /* read but not written, in order */

  /* What the source says of zeros. */
  struct copy_extents extents;
  struct copy_io status;
  uint64_t known_to;            /* behind what was told last */
  uint64_t zeros_to;            /* from next on there are zeros up to here */
  uint64_t data_to;             /* or data */
  bool ask, asking;
};

struct copy_worker {
  struct copy *c;
  struct copy_mail mail;
  struct copy_conn *src, *dst;
  struct piece *pieces, *free_pieces;
  uint8_t *bufs;
  struct stream streams[STREAMS_MAX];
  bool more;                    /* jobs may be left */
  struct copy_io flush;
  bool flushed;
};

void stream_begin (struct copy_worker *w, struct stream *s,
                   struct copy_job *job);

/* Goes on with a stream.  Returns whether there was anything to do. */
bool stream_feed (struct stream *s);

/* Ends a stream that has nothing more to do, and nothing in flight. */
void stream_end_if_done (struct stream *s);

#endif /* COPY_STREAM_H */
