/* SPDX-License-Identifier: BSD-3-Clause */
/* See copy-conn.h. */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <libnbd.h>

#include "copy.h"
#include "copy-conn.h"

/* Of zeroing and of status: less than what 32 bits hold, by far. */
#define RANGE_MAX (UINT64_C (1) << 30)

#define RING_ENTRIES 128

struct copy_conn {
  struct copy_mail *mail;
  struct nbd_handle *nbd;       /* one of these two */
  struct zdisk_client *disk;
};

/* ---- the mailbox ---- */

int
copy_mail_init (struct copy_mail *mail)
{
  mail->event = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (mail->event == -1)
    return -1;
  pthread_mutex_init (&mail->lock, NULL);
  mail->tail = &mail->first;
  return 0;
}

void
copy_mail_free (struct copy_mail *mail)
{
  if (mail->have_ring)
    ring_free (&mail->ring);
  pthread_mutex_destroy (&mail->lock);
  close (mail->event);
}

void
copy_mail_wake (struct copy_mail *mail)
{
  eventfd_write (mail->event, 1);
}

bool
copy_mail_is_busy (const struct copy_mail *mail)
{
  return mail->have_ring && mail->ring.in_flight > 0;
}

static void
post (struct copy_io *io)
{
  struct copy_mail *mail = io->mail;

  pthread_mutex_lock (&mail->lock);
  io->next = NULL;
  *mail->tail = io;
  mail->tail = &io->next;
  pthread_mutex_unlock (&mail->lock);
  if (!pthread_equal (pthread_self (), mail->owner))
    copy_mail_wake (mail);
}

bool
copy_mail_deliver (struct copy_mail *mail)
{
  struct copy_io *io, *next;
  eventfd_t value;
  bool any = eventfd_read (mail->event, &value) == 0;

  if (mail->have_ring)
    ring_run (&mail->ring, false);
  pthread_mutex_lock (&mail->lock);
  io = mail->first;
  mail->first = NULL;
  mail->tail = &mail->first;
  pthread_mutex_unlock (&mail->lock);
  for (; io; io = next) {
    next = io->next;
    io->done (io);
    any = true;
  }
  return any;
}

/* ---- connecting ---- */

static struct nbd_handle *
dial (const struct copy_side *side)
{
  struct nbd_handle *nbd = nbd_create ();

  if (nbd == NULL)
    return NULL;
  /* The operand may name the zone table: the disk's export is chosen. */
  if (nbd_set_opt_mode (nbd, true) == -1 ||
      nbd_set_uri_allow_local_file (nbd, true) == -1 ||
      nbd_add_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == -1 ||
      nbd_connect_uri (nbd, side->operand) == -1 ||
      nbd_set_export_name (nbd, side->export) == -1 ||
      nbd_opt_go (nbd) == -1) {
    nbd_close (nbd);
    return NULL;
  }
  return nbd;
}

/* A disk's I/O goes through a ring, whose completions wake the owner;
 * where there can be none the thread does it itself. */
static void
make_ring (struct copy_mail *mail)
{
  struct zone_error err;

  if (mail->have_ring || ring_init (&mail->ring, RING_ENTRIES, &err) == -1)
    return;
  if (io_uring_register_eventfd (&mail->ring.uring, mail->event) != 0)
    ring_free (&mail->ring);
  else
    mail->have_ring = true;
}

struct copy_conn *
copy_conn_new (struct copy_side *side, struct copy_mail *mail, char *error,
               size_t size)
{
  struct copy_conn *conn = calloc (1, sizeof *conn);

  if (conn == NULL) {
    snprintf (error, size, "out of memory");
    return NULL;
  }
  conn->mail = mail;
  if (side->export) {
    conn->nbd = dial (side);
    if (conn->nbd == NULL) {
      snprintf (error, size, "%s: %s", side->operand, nbd_get_error ());
      free (conn);
      return NULL;
    }
  }
  else {
    conn->disk = target_client (side->target);
    make_ring (mail);
  }
  return conn;
}

void
copy_conn_free (struct copy_conn *conn)
{
  if (conn && conn->nbd) {
    if (nbd_aio_is_ready (conn->nbd) == 1)
      (void) nbd_shutdown (conn->nbd, 0);
    nbd_close (conn->nbd);
  }
  free (conn);
}

void
copy_conn_describe (struct copy_conn *conn, struct copy_side *side)
{
  int64_t max;

  side->multi_conn = side->can_zero = true;
  side->request_max = COPY_REQUEST_SIZE_MAX;
  if (conn->disk)
    return;
  side->multi_conn = nbd_can_multi_conn (conn->nbd) == 1;
  side->can_zero = nbd_can_zero (conn->nbd) == 1;
  side->can_status =
    nbd_can_meta_context (conn->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
  max = nbd_get_block_size (conn->nbd, LIBNBD_SIZE_MAXIMUM);
  if (max > 0 && (uint64_t) max < side->request_max)
    side->request_max = max;
}

/* ---- waiting ---- */

void
copy_conn_poll (struct copy_conn *conn, struct pollfd *fd)
{
  unsigned direction;

  fd->fd = -1;
  fd->events = fd->revents = 0;
  if (conn->nbd == NULL)
    return;
  direction = nbd_aio_get_direction (conn->nbd);
  if (direction == 0)
    return;
  fd->fd = nbd_aio_get_fd (conn->nbd);
  if (direction & LIBNBD_AIO_DIRECTION_READ)
    fd->events |= POLLIN;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE)
    fd->events |= POLLOUT;
}

void
copy_conn_work (struct copy_conn *conn, const struct pollfd *fd)
{
  unsigned direction;

  if (conn->nbd == NULL || fd->revents == 0)
    return;
  /* What fails here ends the connection, and with it its requests. */
  direction = nbd_aio_get_direction (conn->nbd);
  if ((fd->revents & (POLLIN | POLLHUP | POLLERR)) &&
      (direction & LIBNBD_AIO_DIRECTION_READ))
    (void) nbd_aio_notify_read (conn->nbd);
  else if ((fd->revents & (POLLOUT | POLLHUP | POLLERR)) &&
           (direction & LIBNBD_AIO_DIRECTION_WRITE))
    (void) nbd_aio_notify_write (conn->nbd);
}

/* ---- requests ---- */

static int
nbd_done (void *opaque, int *error)
{
  struct copy_io *io = opaque;

  io->error = *error;
  post (io);
  return 1;                     /* retires the command */
}

static void
disk_done (struct zdisk_request *req)
{
  struct copy_io *io = req->opaque;

  io->error = req->error;
  post (io);
}

static nbd_completion_callback
begin (struct copy_conn *conn, struct copy_io *io)
{
  io->mail = conn->mail;
  io->error = 0;
  io->z.reason[0] = '\0';
  return (nbd_completion_callback) { .callback = nbd_done, .user_data = io };
}

/* A request of libnbd's that could not be started is done as well. */
static void
started (struct copy_conn *conn, struct copy_io *io, int64_t cookie)
{
  if (cookie != -1)
    return;
  io->error = nbd_get_errno () ? nbd_get_errno () : EIO;
  if (nbd_aio_is_dead (conn->nbd) == 1 || nbd_aio_is_closed (conn->nbd) == 1)
    io->error = ENOTCONN;
  post (io);
}

static void
submit (struct copy_conn *conn, struct copy_io *io, enum zdisk_op op,
        unsigned flags, void *buf, uint64_t length, uint64_t offset)
{
  io->z = (struct zdisk_request) {
    .op = op, .flags = flags, .buf = buf, .length = length,
    .offset = offset, .done = disk_done, .opaque = io,
  };
  zdisk_submit (conn->disk, &io->z,
                conn->mail->have_ring ? &conn->mail->ring : NULL);
}

void
copy_conn_read (struct copy_conn *conn, struct copy_io *io, void *buf,
                uint32_t length, uint64_t offset)
{
  nbd_completion_callback done = begin (conn, io);

  if (conn->disk)
    submit (conn, io, ZDISK_READ, 0, buf, length, offset);
  else
    started (conn, io,
             nbd_aio_pread (conn->nbd, buf, length, offset, done, 0));
}

void
copy_conn_write (struct copy_conn *conn, struct copy_io *io,
                 const void *buf, uint32_t length, uint64_t offset)
{
  nbd_completion_callback done = begin (conn, io);

  if (conn->disk)
    submit (conn, io, ZDISK_WRITE, 0, (void *) buf, length, offset);
  else
    started (conn, io,
             nbd_aio_pwrite (conn->nbd, buf, length, offset, done, 0));
}

void
copy_conn_zero (struct copy_conn *conn, struct copy_io *io, uint64_t length,
                uint64_t offset)
{
  nbd_completion_callback done = begin (conn, io);

  if (conn->disk)
    submit (conn, io, ZDISK_ZERO, ZDISK_MAY_TRIM, NULL, length, offset);
  else
    started (conn, io, nbd_aio_zero (conn->nbd, length, offset, done, 0));
}

void
copy_conn_flush (struct copy_conn *conn, struct copy_io *io)
{
  nbd_completion_callback done = begin (conn, io);

  if (conn->disk || nbd_can_flush (conn->nbd) != 1)
    post (io);                  /* closing the disk flushes */
  else
    started (conn, io, nbd_aio_flush (conn->nbd, done, 0));
}

static int
extent (void *opaque, const char *context, uint64_t offset,
        uint32_t *entries, size_t n, int *error)
{
  struct copy_extents *e = opaque;
  size_t i;

  (void) offset;
  (void) error;
  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0)
    for (i = 0; i + 1 < n; i += 2)
      e->extent (e, entries[i], entries[i + 1] & LIBNBD_STATE_ZERO);
  return 0;
}

void
copy_conn_status (struct copy_conn *conn, struct copy_io *io,
                  struct copy_extents *extents, uint64_t length,
                  uint64_t offset)
{
  nbd_completion_callback done = begin (conn, io);

  if (length > RANGE_MAX)
    length = RANGE_MAX;
  started (conn, io, nbd_aio_block_status (
             conn->nbd, length, offset,
             (nbd_extent_callback) { .callback = extent,
                                     .user_data = extents },
             done, 0));
}
