/* SPDX-License-Identifier: BSD-3-Clause */
/* The nbd store's two connections: how they are made, carried on and ended.
 *
 * All of it is done by asynchronous calls, for the thread has to look after
 * its I/O meanwhile, whose time may be up.
 */

#include <config.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd-internal.h"

/* What libnbd said last. */
int
link_error (const struct upstream *up, struct zone_error *err)
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
  return r == -1 ? link_error (up, err) : 0;
}

/* Carries a handle on as long as busy says. */
int
link_drive (struct upstream *up, struct nbd_handle *h, uint64_t deadline,
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
                         upstream_name (up), LINK_ATTEMPT_MS / 1000);
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

/* A machine that is gone says nothing: half a minute of that breaks a TCP
 * connection, whether something is to be sent or not.  What is no TCP takes
 * none of this. */
static void
keep_alive (struct nbd_handle *h)
{
  static const struct { int level, name, value; } options[] = {
    { SOL_SOCKET, SO_KEEPALIVE, 1 },
    { IPPROTO_TCP, TCP_KEEPIDLE, 10 },
    { IPPROTO_TCP, TCP_KEEPINTVL, 5 },
    { IPPROTO_TCP, TCP_KEEPCNT, 4 },
    { IPPROTO_TCP, TCP_USER_TIMEOUT, 30000 },
  };
  int fd = nbd_aio_get_fd (h);
  size_t i;

  for (i = 0; fd != -1 && i < sizeof options / sizeof options[0]; i++)
    (void) setsockopt (fd, options[i].level, options[i].name,
                       &options[i].value, sizeof options[i].value);
}

static struct nbd_handle *
make_handle (const struct upstream *up, struct zone_error *err)
{
  struct nbd_handle *h = nbd_create ();

  if (h == NULL) {
    link_error (up, err);
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

int
link_connect_data (struct upstream *up, uint64_t deadline,
                       struct zone_error *err)
{
  int r;

  up->data = make_handle (up, err);
  if (up->data == NULL)
    return -1;
  nbd_add_meta_context (up->data, LINK_ZONES_CONTEXT);
  if (up->uri)
    r = nbd_aio_connect_uri (up->data, up->uri);
  else if (up->started)
    r = start_command (up);
  else
    r = nbd_aio_connect_systemd_socket_activation (up->data, up->command);
  if (r == -1)
    return link_error (up, err);
  r = link_drive (up, up->data, deadline, is_connecting, NULL, err);
  keep_alive (up->data);
  return r;
}

int
link_connect_table (struct upstream *up, uint64_t deadline,
                        struct zone_error *err)
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
    return link_error (up, err);
  r = link_drive (up, up->table, deadline, is_connecting, NULL, err);
  keep_alive (up->table);
  return r;
}

/* A handle's own end; what was issued on it comes to up->finished. */
void
link_end (struct upstream *up, struct nbd_handle *h, bool kill_it)
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
  link_end (up, up->table, false);
  up->table = NULL;
  link_end (up, up->data, kill_it && up->command != NULL);
  up->data = NULL;
}
