/* SPDX-License-Identifier: BSD-3-Clause */
/* One thread of a copy: its connections, its jobs, and waiting. */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "copy-stream.h"

/* Gives all free pieces something to do. */
static void
feed_all (struct copy_worker *w)
{
  struct copy_job *job;
  bool any = true;
  unsigned i;

  while (any && !atomic_load (&w->c->stop)) {
    any = false;
    for (i = 0; i < STREAMS_MAX; ++i)
      while (stream_feed (&w->streams[i]))
        any = true;
    if (w->free_pieces == NULL)
      return;
    for (i = 0; i < STREAMS_MAX && w->streams[i].job; ++i)
      ;
    if (i == STREAMS_MAX || !w->more)
      return;
    job = copy_take_job (w->c, &w->more);
    if (job == NULL)
      return;
    stream_begin (w, &w->streams[i], job);
    any = true;
  }
}

static bool
idle (const struct copy_worker *w)
{
  unsigned i;

  for (i = 0; i < STREAMS_MAX; ++i)
    if (w->streams[i].job)
      return false;
  return true;
}

static void
flush_done (struct copy_io *io)
{
  struct copy_worker *w = (struct copy_worker *)
    ((char *) io - offsetof (struct copy_worker, flush));

  if (io->error)
    copy_fail (w->c, "%s: flush: %s", w->c->dst.operand,
               strerror (io->error));
  w->flushed = true;
}

/* Waits for anything, and works on it. */
static void
turn (struct copy_worker *w)
{
  struct pollfd fds[3] = { { .fd = w->mail.event, .events = POLLIN } };

  if (copy_mail_deliver (&w->mail))
    return;
  copy_conn_poll (w->src, &fds[1]);
  copy_conn_poll (w->dst, &fds[2]);
  if (poll (fds, 3, -1) == -1 && errno != EINTR) {
    copy_fail (w->c, "poll: %s", strerror (errno));
    return;
  }
  copy_conn_work (w->src, &fds[1]);
  copy_conn_work (w->dst, &fds[2]);
}

/* What other threads' requests wait for may be on this one's ring: an image
 * makes things durable on the ring of one for all. */
static void
finish_others (struct copy_worker *w)
{
  while (copy_mail_is_busy (&w->mail))
    turn (w);
}

/* Streams that have nothing in flight are not to be gone on with. */
static void
end_streams (struct copy_worker *w)
{
  unsigned i;

  for (i = 0; i < STREAMS_MAX; ++i)
    if (w->streams[i].job)
      stream_end_if_done (&w->streams[i]);
}

static void
flush (struct copy_worker *w)
{
  if (w->c->mode == COPY_COMPARE || atomic_load (&w->c->stop))
    return;
  /* A server without multi-conn flushes only this connection's. */
  w->flushed = false;
  w->flush.done = flush_done;
  copy_conn_flush (w->dst, &w->flush);
  while (!w->flushed)
    turn (w);
}

void
copy_worker_run (struct copy_worker *w)
{
  w->mail.owner = pthread_self ();
  w->more = true;
  for (;;) {
    feed_all (w);
    if (atomic_load (&w->c->stop)) {
      end_streams (w);
      w->more = false;
    }
    if (!w->more && idle (w))
      break;
    turn (w);
  }
  flush (w);
  finish_others (w);
}

void
copy_worker_wake (struct copy_worker *w)
{
  copy_mail_wake (&w->mail);
}

/* ---- the thread's things ---- */

void
copy_worker_free (struct copy_worker *w)
{
  if (w == NULL)
    return;
  copy_conn_free (w->src);
  copy_conn_free (w->dst);
  copy_mail_free (&w->mail);
  free (w->bufs);
  free (w->pieces);
  free (w);
}

struct copy_worker *
copy_worker_new (struct copy *c)
{
  const unsigned n = c->npieces;
  const size_t size = copy_piece_memory (c);
  struct copy_worker *w = calloc (1, sizeof *w);
  char error[400];
  unsigned i;

  if (w == NULL || copy_mail_init (&w->mail) == -1) {
    copy_fail (c, "a thread: %s", strerror (w ? errno : ENOMEM));
    free (w);
    return NULL;
  }
  w->c = c;
  w->pieces = calloc (n, sizeof *w->pieces);
  if (w->pieces == NULL ||
      posix_memalign ((void **) &w->bufs, 4096, n * size) != 0) {
    copy_fail (c, "out of memory for %u requests of %" PRIu64 " bytes", n,
               c->piece);
    goto failed;
  }
  for (i = 0; i < n; ++i) {
    w->pieces[i].buf = w->bufs + i * size;
    w->pieces[i].next = w->free_pieces;
    w->free_pieces = &w->pieces[i];
  }
  w->src = copy_conn_new (&c->src, &w->mail, error, sizeof error);
  if (w->src)
    w->dst = copy_conn_new (&c->dst, &w->mail, error, sizeof error);
  if (w->dst)
    return w;
  copy_fail (c, "%s", error);
 failed:
  copy_worker_free (w);
  return NULL;
}
