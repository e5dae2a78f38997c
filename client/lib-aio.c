/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands in flight, and one file descriptor to wait for all of them.
 *
 * libnbd tells of an answer by a callback on whatever thread uses the
 * handle, with the handle's lock held.  So that callback only files the
 * wire among the answered (and makes the eventfd readable); commands are
 * advanced, and the callers' own callbacks called, by threads that are in
 * here.
 *
 * One thread at a time waits in epoll; others that wait are woken by it.
 */

#include <config.h>

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "lib-internal.h"

/* What epoll says of the eventfd; connections are told by their kind. */
#define EVENT LIB_CONNS

/* Answers read at once of one connection, before the others'. */
#define NOTIFY_MAX 64

int
lib_aio_init (struct znbd_disk *disk)
{
  struct epoll_event ev = { .events = EPOLLIN, .data.u32 = EVENT };
  pthread_condattr_t attr;
  unsigned i;

  pthread_mutex_init (&disk->open_lock, NULL);
  pthread_mutex_init (&disk->lock, NULL);
  pthread_mutex_init (&disk->answered_lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&disk->changed, &attr);
  pthread_condattr_destroy (&attr);
  disk->answered_end = &disk->answered;
  disk->ready_end = &disk->ready;
  disk->queue_end = &disk->queue;
  for (i = 0; i < LIB_CONNS; ++i)
    disk->conns[i].fd = -1;

  disk->event = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  disk->epoll = epoll_create1 (EPOLL_CLOEXEC);
  if (disk->event == -1 || disk->epoll == -1 ||
      epoll_ctl (disk->epoll, EPOLL_CTL_ADD, disk->event, &ev) == -1)
    return lib_error (errno, "connecting: %s", strerror (errno));
  return 0;
}

/* After the connections were closed. */
void
lib_aio_close (struct znbd_disk *disk)
{
  struct lib_command *cmd;
  unsigned i;

  for (i = 0; i < LIB_BUCKETS; ++i)
    while ((cmd = disk->bucket[i]) != NULL) {
      disk->bucket[i] = cmd->next;
      if (cmd->completion.free)
        cmd->completion.free (cmd->completion.user_data);
      free (cmd);
    }
  if (disk->event != -1)
    close (disk->event);
  if (disk->epoll != -1)
    close (disk->epoll);
  pthread_cond_destroy (&disk->changed);
  pthread_mutex_destroy (&disk->answered_lock);
  pthread_mutex_destroy (&disk->lock);
  pthread_mutex_destroy (&disk->open_lock);
}

/* Makes the eventfd readable.  It can only fail where it is already. */
static void
wake (struct znbd_disk *disk)
{
  const uint64_t one = 1;

  if (write (disk->event, &one, sizeof one) == -1)
    return;
}

/* ---- wires ---- */

static int
wire_answered (void *opaque, int *error)
{
  struct lib_wire *wire = opaque;
  struct znbd_disk *disk = wire->cmd->disk;
  bool first;

  wire->error = *error;
  wire->next = NULL;
  pthread_mutex_lock (&disk->answered_lock);
  first = disk->answered == NULL && !disk->collecting;
  *disk->answered_end = wire;
  disk->answered_end = &wire->next;
  pthread_mutex_unlock (&disk->answered_lock);
  if (first)
    wake (disk);
  return 1;
}

nbd_completion_callback
lib_wire_completion (struct lib_wire *wire)
{
  return (nbd_completion_callback) {
    .callback = wire_answered, .user_data = wire,
  };
}

void
lib_update_fds (struct znbd_disk *disk)
{
  unsigned i, j;

  for (i = LIB_DISK; i <= LIB_APPEND; ++i) {
    struct lib_conn *c = &disk->conns[i];
    struct epoll_event ev = { .data.u32 = i };
    unsigned dir;
    int fd;

    if (c->nbd == NULL)
      continue;
    fd = nbd_aio_get_fd (c->nbd);
    if (fd == -1) {
      /* The connection has ended; epoll forgot the fd with that. */
      c->fd = -1;
      continue;
    }
    dir = nbd_aio_get_direction (c->nbd);
    if (dir & LIBNBD_AIO_DIRECTION_READ)
      ev.events |= EPOLLIN;
    if (dir & LIBNBD_AIO_DIRECTION_WRITE)
      ev.events |= EPOLLOUT;
    if (c->fd == fd && c->events == ev.events)
      continue;

    /* A number may be another connection's that has ended. */
    for (j = LIB_DISK; j <= LIB_APPEND; ++j)
      if (j != i && disk->conns[j].fd == fd)
        disk->conns[j].fd = -1;
    if (epoll_ctl (disk->epoll, c->fd == fd ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
                   fd, &ev) == -1 && errno == EEXIST)
      (void) epoll_ctl (disk->epoll, EPOLL_CTL_MOD, fd, &ev);
    c->fd = fd;
    c->events = ev.events;
  }
}

/* Advances the commands of what has been answered, and those of what is
 * answered meanwhile.  Under lock. */
static void
advance (struct znbd_disk *disk)
{
  struct lib_wire *wire, *next;

  for (;;) {
    pthread_mutex_lock (&disk->answered_lock);
    wire = disk->answered;
    disk->answered = NULL;
    disk->answered_end = &disk->answered;
    disk->collecting = wire != NULL;
    pthread_mutex_unlock (&disk->answered_lock);
    if (wire == NULL)
      break;
    for (; wire; wire = next) {
      next = wire->next;
      wire->cmd->advance (wire->cmd, wire);
    }
  }
  lib_update_fds (disk);
}

/* Lets libnbd work on what epoll found.  Under lock. */
static void
notify (struct znbd_disk *disk, const struct epoll_event *events, int n)
{
  uint64_t value;
  int i;

  pthread_mutex_lock (&disk->answered_lock);
  disk->collecting = true;
  pthread_mutex_unlock (&disk->answered_lock);
  for (i = 0; i < n; ++i) {
    struct nbd_handle *nbd;
    unsigned n_read;

    if (events[i].data.u32 == EVENT) {
      if (read (disk->event, &value, sizeof value) == -1)
        continue;
      continue;
    }
    /* Not nbd_aio_notify_read: between epoll and here another thread may
     * have read what there was, and libnbd, told to read nothing, would
     * wait for an answer before it sends anything else.  nbd_poll looks
     * and reads under the handle's lock.  It takes one answer at a time. */
    nbd = disk->conns[events[i].data.u32].nbd;
    for (n_read = 0; n_read < NOTIFY_MAX && nbd_poll (nbd, 0) == 1;
         ++n_read)
      ;
  }
  advance (disk);
}

static struct timespec
deadline (int timeout)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  t.tv_sec += timeout / 1000;
  t.tv_nsec += timeout % 1000 * 1000000L;
  if (t.tv_nsec >= 1000000000L) {
    t.tv_sec++;
    t.tv_nsec -= 1000000000L;
  }
  return t;
}

/* Milliseconds left, rounded up. */
static int
left (const struct timespec *until)
{
  struct timespec now;
  int64_t ms;

  clock_gettime (CLOCK_MONOTONIC, &now);
  ms = (until->tv_sec - now.tv_sec) * INT64_C (1000) +
    (until->tv_nsec - now.tv_nsec + 999999) / 1000000;
  return ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : ms;
}

/* Waits once: in epoll, or for the thread that does.  until NULL: as long
 * as it takes.  Under lock.  0, 1 after something happened, -1. */
static int
wait_once (struct znbd_disk *disk, const struct timespec *until)
{
  struct epoll_event events[LIB_CONNS + 1];
  int n, error;

  if (disk->polling) {
    if (until == NULL)
      pthread_cond_wait (&disk->changed, &disk->lock);
    else if (pthread_cond_timedwait (&disk->changed, &disk->lock, until) ==
             ETIMEDOUT)
      return 0;
    return 1;
  }
  lib_update_fds (disk);
  disk->polling = true;
  pthread_mutex_unlock (&disk->lock);
  n = epoll_wait (disk->epoll, events, LIB_CONNS + 1,
                  until ? left (until) : -1);
  error = errno;
  pthread_mutex_lock (&disk->lock);
  disk->polling = false;
  if (n > 0)
    notify (disk, events, n);
  pthread_cond_broadcast (&disk->changed);
  if (n == -1 && error != EINTR)
    return lib_error (error, "waiting: %s", strerror (error));
  return n != 0;
}

/* ---- commands ---- */

void
lib_command_begin (struct lib_command *cmd, bool async)
{
  struct znbd_disk *disk = cmd->disk;
  struct lib_command **bucket;

  disk->in_flight++;
  if (!async)
    return;
  cmd->cookie = ++disk->cookie;
  bucket = &disk->bucket[cmd->cookie % LIB_BUCKETS];
  cmd->next = *bucket;
  *bucket = cmd;
}

void
lib_command_error (struct lib_command *cmd, int error, const char *fs, ...)
{
  va_list args;

  if (cmd->error)
    return;                     /* the first one tells most */
  cmd->error = error;
  va_start (args, fs);
  vsnprintf (cmd->text, sizeof cmd->text, fs, args);
  va_end (args);
}

void
lib_command_done (struct lib_command *cmd, int64_t result)
{
  struct znbd_disk *disk = cmd->disk;

  disk->in_flight--;
  cmd->result = cmd->error ? -1 : result;
  cmd->done = true;
  if (cmd->cookie && cmd->completion.callback) {
    if (disk->ready == NULL)
      wake (disk);              /* for who waits for the fd */
    cmd->next_ready = NULL;
    *disk->ready_end = cmd;
    disk->ready_end = &cmd->next_ready;
  }
}

int64_t
lib_command_wait (struct lib_command *cmd)
{
  struct znbd_disk *disk = cmd->disk;

  while (!cmd->done)
    (void) wait_once (disk, NULL);
  /* Others were done meanwhile, and what told of them was read here. */
  if (disk->ready)
    wake (disk);
  if (cmd->error)
    return lib_error (cmd->error, "%s", cmd->text);
  return cmd->result;
}

void
lib_aio_drain (struct znbd_disk *disk)
{
  pthread_mutex_lock (&disk->lock);
  advance (disk);
  while (disk->in_flight > 0)
    (void) wait_once (disk, NULL);
  pthread_mutex_unlock (&disk->lock);
}

/* Takes a command out of its bucket. */
static void
retire (struct lib_command *cmd)
{
  struct lib_command **link;

  for (link = &cmd->disk->bucket[cmd->cookie % LIB_BUCKETS]; *link != cmd;
       link = &(*link)->next)
    ;
  *link = cmd->next;
}

static void
free_command (struct lib_command *cmd)
{
  if (cmd->completion.free)
    cmd->completion.free (cmd->completion.user_data);
  free (cmd);
}

/* Calls back those that are done.  Under lock, given up meanwhile.  Returns
 * how many. */
static int
call_back (struct znbd_disk *disk)
{
  struct lib_command *cmd;
  int n = 0;

  while ((cmd = disk->ready) != NULL) {
    disk->ready = cmd->next_ready;
    if (disk->ready == NULL)
      disk->ready_end = &disk->ready;
    retire (cmd);
    pthread_mutex_unlock (&disk->lock);
    if (cmd->error)
      lib_error (cmd->error, "%s", cmd->text);
    cmd->completion.callback (cmd->completion.user_data, cmd->result);
    free_command (cmd);
    pthread_mutex_lock (&disk->lock);
    n++;
  }
  return n;
}

int
znbd_aio_get_fd (struct znbd_disk *disk)
{
  return disk->epoll;
}

int
znbd_aio_poll (struct znbd_disk *disk, int timeout)
{
  struct timespec until = { 0 };
  int r = 1;

  if (timeout > 0)
    until = deadline (timeout);
  pthread_mutex_lock (&disk->lock);
  /* What another thread's use of a handle has brought. */
  advance (disk);
  if (disk->ready == NULL)
    r = wait_once (disk, timeout >= 0 ? &until : NULL);
  if (r != -1 && call_back (disk) > 0)
    r = 1;
  pthread_mutex_unlock (&disk->lock);
  return r;
}

int
znbd_aio_in_flight (struct znbd_disk *disk)
{
  unsigned n;

  pthread_mutex_lock (&disk->lock);
  n = disk->in_flight;
  pthread_mutex_unlock (&disk->lock);
  return n > INT_MAX ? INT_MAX : n;
}

int
znbd_aio_command_completed (struct znbd_disk *disk, int64_t cookie,
                            int64_t *result)
{
  struct lib_command *cmd;
  int r;

  pthread_mutex_lock (&disk->lock);
  cmd = cookie > 0 ? disk->bucket[cookie % LIB_BUCKETS] : NULL;
  while (cmd && cmd->cookie != cookie)
    cmd = cmd->next;
  if (cmd == NULL || (cmd->done && cmd->completion.callback)) {
    r = cmd ? 0 : lib_error (EINVAL, "there is no command %lld (any more)",
                             (long long) cookie);
    cmd = NULL;
  }
  else if (!cmd->done) {
    r = 0;
    cmd = NULL;
  }
  else {
    retire (cmd);
    r = 1;
  }
  pthread_mutex_unlock (&disk->lock);

  if (cmd) {
    if (cmd->error)
      r = lib_error (cmd->error, "%s", cmd->text);
    else if (result)
      *result = cmd->result;
    free_command (cmd);
  }
  return r;
}
