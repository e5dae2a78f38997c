/* SPDX-License-Identifier: BSD-3-Clause */
/* Connecting to the server, the first time and again: the disk, the zone
 * table beside it, and what they say of the disk.
 *
 * All of it is done by asynchronous calls, for the thread has to look after
 * its I/O meanwhile, whose time may be up.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd-internal.h"

/* ms that one attempt may take. */
#define ATTEMPT_MS 10000

/* Bytes of one read or write, whatever the server says, and of one read of
 * the zone table. */
#define BLOCK_MAX (32u << 20)
#define REPORT_READ (4u << 20)

/* Which tells a zoned disk. */
#define ZONES_CONTEXT "x-zbd:zones"

/* What libnbd said last. */
static int
libnbd_error (const struct upstream *up, struct zone_error *err)
{
  const char *text = nbd_get_error ();
  int num = nbd_get_errno ();

  return zone_error (err, num ? num : EIO, "%s: %s", upstream_name (up),
                     text ? text : "the connection failed");
}

static bool
is_down (struct nbd_handle *h)
{
  return nbd_aio_is_dead (h) > 0 || nbd_aio_is_closed (h) > 0;
}

bool
link_is_broken (const struct upstream *up)
{
  return up->data == NULL || is_down (up->data) ||
    (up->table && is_down (up->table));
}

/* Waits for one event of a handle, or for ms, and carries the handle on. */
static int
drive_once (struct upstream *up, struct nbd_handle *h, int ms,
            struct zone_error *err)
{
  unsigned dir = nbd_aio_get_direction (h);
  struct pollfd fds[2] = {
    { .fd = nbd_aio_get_fd (h) }, { .fd = up->wake_fd, .events = POLLIN },
  };
  uint64_t woken;
  int r = 0;

  if (dir & LIBNBD_AIO_DIRECTION_READ)
    fds[0].events |= POLLIN;
  if (dir & LIBNBD_AIO_DIRECTION_WRITE)
    fds[0].events |= POLLOUT;
  if (poll (fds, 2, ms) == -1 && errno != EINTR)
    return zone_error (err, errno, "poll: %s", strerror (errno));
  if (fds[1].revents && read (up->wake_fd, &woken, sizeof woken) > 0)
    upstream_gather (up);
  if ((dir & LIBNBD_AIO_DIRECTION_READ) &&
      (fds[0].revents & (POLLIN | POLLHUP | POLLERR)))
    r = nbd_aio_notify_read (h);
  else if ((dir & LIBNBD_AIO_DIRECTION_WRITE) && fds[0].revents)
    r = nbd_aio_notify_write (h);
  return r == -1 ? libnbd_error (up, err) : 0;
}

/* Carries a handle on as long as busy says. */
static int
drive (struct upstream *up, struct nbd_handle *h, uint64_t deadline,
       bool (*busy) (struct nbd_handle *, void *), void *opaque,
       struct zone_error *err)
{
  uint64_t now;

  while (busy (h, opaque)) {
    now = upstream_now ();
    if (is_down (h))
      return zone_error (err, ECONNRESET, "%s: the connection was closed",
                         upstream_name (up));
    if (now >= deadline)
      return zone_error (err, ETIMEDOUT, "%s: no answer in %d seconds",
                         upstream_name (up), ATTEMPT_MS / 1000);
    if (atomic_load (&up->stop))
      return zone_error (err, ESHUTDOWN, "the disk is closed");
    if (up->give_up_at)
      upstream_gather (up);
    if (drive_once (up, h, deadline - now < 100 ? (int) (deadline - now)
                    : 100, err) == -1)
      return -1;
  }
  return 0;
}

static bool
is_connecting (struct nbd_handle *h, void *opaque)
{
  (void) opaque;
  return nbd_aio_is_connecting (h) > 0;
}

static struct nbd_handle *
make_handle (const struct upstream *up, struct zone_error *err)
{
  struct nbd_handle *h = nbd_create ();

  if (h == NULL) {
    libnbd_error (up, err);
    return NULL;
  }
  /* The server says what is wrong, not libnbd; a file of keys that the
   * user's URI names may be read. */
  nbd_set_strict_mode (h, 0);
  nbd_set_uri_allow_local_file (h, true);
  return h;
}

/* A child of a thread that has signals blocked begins with the same mask and
 * could not be ended: they are let in while it is made, and what comes then
 * is sent again. */
static volatile sig_atomic_t caught;

static void
catch (int sig)
{
  caught = sig;
}

static int
start_command (struct upstream *up)
{
  static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
  struct sigaction action = { .sa_handler = catch }, old[3];
  sigset_t mask, all;
  unsigned i;
  int r;

  caught = 0;
  sigemptyset (&all);
  for (i = 0; i < 3; i++) {
    sigaction (signals[i], &action, &old[i]);
    sigaddset (&all, signals[i]);
  }
  pthread_sigmask (SIG_UNBLOCK, &all, &mask);
  r = nbd_aio_connect_systemd_socket_activation (up->data, up->command);
  pthread_sigmask (SIG_SETMASK, &mask, NULL);
  for (i = 0; i < 3; i++)
    sigaction (signals[i], &old[i], NULL);
  if (caught)
    kill (getpid (), caught);
  return r;
}

static int
connect_data (struct upstream *up, uint64_t deadline, struct zone_error *err)
{
  int r;

  up->data = make_handle (up, err);
  if (up->data == NULL)
    return -1;
  nbd_add_meta_context (up->data, ZONES_CONTEXT);
  if (up->uri)
    r = nbd_aio_connect_uri (up->data, up->uri);
  else if (up->started)
    r = start_command (up);
  else
    r = nbd_aio_connect_systemd_socket_activation (up->data, up->command);
  if (r == -1)
    return libnbd_error (up, err);
  return drive (up, up->data, deadline, is_connecting, NULL, err);
}

static int
connect_table (struct upstream *up, uint64_t deadline, struct zone_error *err)
{
  struct sockaddr_un peer = { .sun_family = AF_UNIX };
  socklen_t length = sizeof peer;
  int r;

  up->table = make_handle (up, err);
  if (up->table == NULL)
    return -1;
  if (up->uri)
    r = nbd_aio_connect_uri (up->table, up->table_uri);
  else {
    /* The socket that libnbd made for the command is where it listens. */
    if (getpeername (nbd_aio_get_fd (up->data), (struct sockaddr *) &peer,
                     &length) == -1)
      return zone_error (err, errno, "%s: its socket has no name: %s",
                         upstream_name (up), strerror (errno));
    nbd_set_export_name (up->table, TABLE_EXPORT_NAME);
    r = nbd_aio_connect_unix (up->table, peer.sun_path);
  }
  if (r == -1)
    return libnbd_error (up, err);
  return drive (up, up->table, deadline, is_connecting, NULL, err);
}

/* A handle's own end; what was issued on it comes to up->finished. */
static void
end_handle (struct upstream *up, struct nbd_handle *h, bool kill_it)
{
  struct zone_error ignored;
  int fd;

  if (h == NULL)
    return;
  /* libnbd ends the commands of a connection that it sees break. */
  fd = nbd_aio_get_fd (h);
  if (fd != -1 && up->nout > 0)
    shutdown (fd, SHUT_RDWR);
  while (up->nout > 0 && fd != -1 && !is_down (h))
    drive_once (up, h, 0, &ignored);
  /* Of a command that nobody can talk to any more there is no use. */
  if (kill_it)
    nbd_kill_subprocess (h, SIGKILL);
  nbd_close (h);
}

void
link_down (struct upstream *up, bool kill_it)
{
  end_handle (up, up->table, false);
  up->table = NULL;
  end_handle (up, up->data, kill_it && up->command != NULL);
  up->data = NULL;
}

struct answer {
  bool there;
  int error;
};

static int
take_answer (void *opaque, int *error)
{
  struct answer *a = opaque;

  a->there = true;
  a->error = *error;
  return 1;
}

static bool
is_awaited (struct nbd_handle *h, void *opaque)
{
  (void) h;
  return !((struct answer *) opaque)->there;
}

/* Reads from the zone table's connection and waits. */
static int
read_table (struct upstream *up, void *buf, size_t n, uint64_t offset,
            uint64_t deadline, struct zone_error *err)
{
  struct answer a = { .there = false };
  int r;

  if (nbd_aio_pread (up->table, buf, n, offset,
                     (nbd_completion_callback) {
                       .callback = take_answer, .user_data = &a }, 0) == -1)
    return libnbd_error (up, err);
  r = drive (up, up->table, deadline, is_awaited, &a, err);
  if (r == -1 && !a.there) {
    /* It must not be answered later. */
    up->nout++;
    end_handle (up, up->table, false);
    up->table = NULL;
    up->nout--;
    return -1;
  }
  if (a.error)
    return zone_error (err, a.error, "%s: its zone table cannot be read: %s",
                       upstream_name (up), strerror (a.error));
  return 0;
}

static uint64_t
block_size (struct nbd_handle *h, int which)
{
  int64_t n = nbd_get_block_size (h, which);

  return n > 0 ? n : 0;
}

/* What the data connection is and can do. */
static int
look_at_data (struct upstream *up, bool first, struct zone_error *err)
{
  struct znbd_geometry *g = &up->store.geometry;
  uint64_t min = block_size (up->data, LIBNBD_SIZE_MINIMUM);
  int64_t size = nbd_get_size (up->data);

  if (size <= 0)
    return zone_error (err, EINVAL, "%s: its disk has no size",
                       upstream_name (up));
  if (min == 0)
    min = size % 512 == 0 ? 512 : 1;
  up->can_zero = nbd_can_zero (up->data) > 0;
  up->can_fast_zero = nbd_can_fast_zero (up->data) > 0;
  up->can_trim = nbd_can_trim (up->data) > 0;
  up->can_cache = nbd_can_cache (up->data) > 0;
  up->can_flush = nbd_can_flush (up->data) > 0;
  up->max_block = block_size (up->data, LIBNBD_SIZE_MAXIMUM);
  if (up->max_block == 0 || up->max_block > BLOCK_MAX)
    up->max_block = BLOCK_MAX;
  up->max_block -= up->max_block % min;
  if (!up->can_zero && up->zeros == NULL &&
      (up->zeros = calloc (1, ZEROS)) == NULL)
    return zone_error (err, ENOMEM, "no memory for zeros");
  if (!first) {
    if ((uint64_t) size == g->size)
      return 0;
    up->gone = true;
    return zone_error (err, ENODEV, "%s: its size is another one now",
                       upstream_name (up));
  }
  up->store.readonly |= nbd_is_read_only (up->data) > 0;
  up->store.fast_zero = up->can_zero && up->can_fast_zero;
  *g = (struct znbd_geometry) {
    .size = size, .zone_size = size, .zones = 1, .conventional = 1,
    .granularity = min, .model = ZNBD_MODEL_NONE,
  };
  if (size % min != 0)
    return zone_error (err, EINVAL, "%s: its size is no multiple of its "
                       "minimum block size %" PRIu64, upstream_name (up),
                       min);
  return 0;
}

/* Whether a server that refused the zone table has none. */
static bool
has_no_table (int error)
{
  return error == ENOENT || error == EINVAL || error == EPERM ||
    error == ENOTSUP;
}

/* The zone table's header.  Returns 1 where there is none. */
static int
read_header (struct upstream *up, uint64_t deadline, struct znbd_geometry *g,
             struct zone_error *err)
{
  uint64_t min = block_size (up->data, LIBNBD_SIZE_MINIMUM);
  uint8_t header[TABLE_HEADER_SIZE];
  const char *why;
  int64_t size;

  if (connect_table (up, deadline, err) == -1)
    return has_no_table (err->num) ? 1 : -1;
  size = nbd_get_size (up->table);
  /* There are servers with one disk by any name. */
  if (size < TABLE_HEADER_SIZE)
    return 1;
  if (read_table (up, header, sizeof header, 0, deadline, err) == -1)
    return -1;
  if (memcmp (header, TABLE_MAGIC, strlen (TABLE_MAGIC)) != 0)
    return 1;
  if (table_decode_header (header, size, g, &why) == -1)
    return zone_error (err, EINVAL, "%s: its zone table: %s",
                       upstream_name (up), why);
  if (g->size != up->store.geometry.size)
    return zone_error (err, EINVAL, "%s: its zone table is that of a disk of "
                       "another size", upstream_name (up));
  if (min > g->granularity)
    return zone_error (err, EINVAL, "%s: its minimum block size %" PRIu64
                       " is above its zones' granularity %" PRIu32,
                       upstream_name (up), min, g->granularity);
  /* Filters say so of all exports, and few mean it. */
  if (block_size (up->table, LIBNBD_SIZE_MINIMUM) > TABLE_MIN_BLOCK &&
      read_table (up, header, TABLE_RECORD_SIZE, TABLE_HEADER_SIZE, deadline,
                  err) == -1)
    return zone_error (err, EINVAL, "%s: its zone table's minimum block size "
                       "is above %u", upstream_name (up), TABLE_MIN_BLOCK);
  return 0;
}

static int
read_report (struct upstream *up, uint64_t deadline, struct zone_error *err)
{
  const uint32_t zones = up->store.geometry.zones,
    most = REPORT_READ / TABLE_RECORD_SIZE;
  const char *why;
  uint32_t i, n;

  free (up->report);
  up->report = malloc ((size_t) zones * sizeof *up->report);
  if (up->report == NULL)
    return zone_error (err, ENOMEM, "no memory for the report of %" PRIu32
                       " zones", zones);
  for (i = 0; i < zones; i += n) {
    n = zones - i < most ? zones - i : most;
    if (read_table (up, &up->report[i], (size_t) n * TABLE_RECORD_SIZE,
                    table_record_offset (i), deadline, err) == -1)
      return -1;
  }
  if (upstream_decode (up, 0, zones, up->report, &why) == -1)
    return zone_error (err, EINVAL, "%s: its zone table: %s",
                       upstream_name (up), why);
  return 0;
}

/* The epoch that clients are told from now on. */
static int
set_epoch (struct upstream *up, uint64_t epoch, struct zone_error *err)
{
  struct old_geometry *now = malloc (sizeof *now);

  if (now == NULL)
    return zone_error (err, ENOMEM, "no memory for a geometry");
  now->geometry = up->store.geometry;
  now->geometry.epoch = epoch;
  now->next = up->geometries;
  up->geometries = now;
  atomic_store_explicit (&up->store.current, &now->geometry,
                         memory_order_release);
  return 0;
}

/* Compares what the zone table says with what it said at first. */
static int
look_at_header (struct upstream *up, const struct znbd_geometry *g,
                bool *epoch_changed, struct zone_error *err)
{
  const struct znbd_geometry *old = atomic_load (&up->store.current);
  struct znbd_geometry same = *g;

  if (old == NULL)
    old = &up->store.geometry;
  same.epoch = old->epoch;
  same.zone_capacity = old->zone_capacity;
  if (memcmp (&same, old, sizeof same) != 0) {
    up->gone = true;
    return zone_error (err, ENODEV, "%s: it is another disk now%s",
                       upstream_name (up),
                       memcmp (g->uuid, old->uuid, sizeof g->uuid) != 0
                       ? " (its uuid differs)" : " (its geometry differs)");
  }
  *epoch_changed = g->epoch != old->epoch;
  return *epoch_changed ? set_epoch (up, g->epoch, err) : 0;
}

static int
look (struct upstream *up, bool first, bool *epoch_changed,
      struct zone_error *err)
{
  uint64_t deadline = upstream_now () + ATTEMPT_MS;
  struct znbd_geometry g;
  int r;

  *epoch_changed = false;
  if (connect_data (up, deadline, err) == -1 ||
      look_at_data (up, first, err) == -1)
    return -1;
  if (!first && !up->store.mirrors) {
    /* An ordinary disk has no epoch. */
    *epoch_changed = true;
    return 0;
  }
  r = read_header (up, deadline, &g, err);
  if (r == 1 && first) {
    end_handle (up, up->table, false);
    up->table = NULL;
    if (nbd_can_meta_context (up->data, ZONES_CONTEXT) > 0)
      return zone_error (err, ENOTSUP, "%s: its disk has zones, but there is "
                         "no zone table beside it", upstream_name (up));
    return 0;
  }
  if (r == 1)
    return zone_error (err, ENOENT, "%s: its zone table is not there",
                       upstream_name (up));
  if (r == -1)
    return -1;
  if (first) {
    up->store.geometry = g;
    up->store.mirrors = true;
  }
  if (read_report (up, deadline, err) == -1)
    return -1;
  return first ? 0 : look_at_header (up, &g, epoch_changed, err);
}

int
link_up (struct upstream *up, bool first, bool *epoch_changed,
         struct zone_error *err)
{
  if (look (up, first, epoch_changed, err) == 0)
    return 0;
  link_down (up, true);
  return -1;
}
