/* SPDX-License-Identifier: BSD-3-Clause */
/* A device's life: it is made, or taken over from a process that was killed,
 * served by the loop, and goes when somebody wants it detached or its loop
 * cannot go on.
 *
 * A device whose process ends without a word stays, and what its users do
 * waits for another process.  So once it was started, this one removes it
 * only where it was asked to.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "attach.h"

/* Sectors of one discard or zeroing: 1 GiB. */
#define LONG_SECTORS (1u << 21)

/* Seconds that the helper may take to end. */
#define HELPER_SECONDS 2

uint64_t
attach_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * UINT64_C (1000) + ts.tv_nsec / 1000000;
}

void
attach_log (struct attach *a, const char *fs, ...)
{
  char line[1024];
  va_list args;

  va_start (args, fs);
  vsnprintf (line, sizeof line, fs, args);
  va_end (args);
  a->log (line);
}

/* ---- what the kernel is told ---- */

static unsigned
shift_of (uint64_t n)
{
  return n ? 63 - __builtin_clzll (n) : 0;
}

static void
fill_params (const struct attach *a, struct ublk_parameters *p)
{
  const struct link *l = a->link;
  const struct znbd_geometry *g = &a->geometry;
  uint64_t physical = l->min_block;
  uint32_t append = g->max_append && g->max_append < a->io_max
    ? g->max_append : a->io_max;

  if (l->preferred > physical && l->preferred <= 4096)
    physical = 4096;
  memset (p, 0, sizeof *p);
  p->types = UBLK_PARAM_BASIC;
  p->basic.logical_shift = shift_of (l->min_block);
  p->basic.physical_shift = p->basic.io_min_shift = shift_of (physical);
  p->basic.max_sectors = a->io_max / 512;
  p->basic.dev_sectors = g->size / 512;
  if (a->readonly)
    p->basic.attrs |= UBLK_ATTR_READ_ONLY;
  if (l->can_flush)
    p->basic.attrs |= UBLK_ATTR_VOLATILE_CACHE |
      (l->can_fua ? UBLK_ATTR_FUA : 0);
  if (!a->readonly && (l->can_trim || l->can_zero)) {
    p->types |= UBLK_PARAM_DISCARD;
    p->discard.granularity = physical;
    if (l->can_trim && (!a->zoned || g->conventional > 0)) {
      p->discard.max_sectors = LONG_SECTORS;
      p->discard.max_segments = 1;
    }
    if (l->can_zero)
      p->discard.max_zeroes_sectors = LONG_SECTORS;
  }
  if (!a->zoned)
    return;
  p->types |= UBLK_PARAM_ZONED;
  p->basic.chunk_sectors = g->zone_size / 512;
  p->zoned.max_append_sectors = append / 512;
  /* A limit above the number of zones is none. */
  p->zoned.max_open = g->max_open <= g->zones ? g->max_open : 0;
  p->zoned.max_active = g->max_active <= g->zones ? g->max_active : 0;
}

/* ---- making a device ---- */

/* Queues, buffers and what is kept of each zone. */
static int
allocate (struct attach *a, struct zone_error *err)
{
  const size_t n = (size_t) a->queues * a->depth;
  uint8_t *buf;
  size_t i;

  a->desc = calloc (a->queues, sizeof *a->desc);
  a->requests = calloc (n, sizeof *a->requests);
  /* Memory is the system's until a request of that size comes. */
  buf = mmap (NULL, n * a->io_max, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (a->zoned)
    a->appends = calloc (a->geometry.zones, sizeof *a->appends);
  if (a->zoned)
    a->ended = calloc (n, sizeof *a->ended);
  if (a->zoned && a->recovered)
    a->touched = calloc (a->geometry.zones, 1);
  if (a->desc == NULL || a->requests == NULL || buf == MAP_FAILED ||
      (a->zoned && (a->appends == NULL || a->ended == NULL)) ||
      (a->zoned && a->recovered && a->touched == NULL))
    return zone_error (err, ENOMEM, "no memory for %u queues of %u requests",
                       a->queues, a->depth);
  for (i = 0; i < n; i++)
    a->requests[i].buf = buf + i * a->io_max;
  return 0;
}

/* Opens /dev/ublkcN, which udev may be looking at, and starts the threads
 * that serve it. */
static int
serve (struct attach *a, struct zone_error *err)
{
  char path[32];
  unsigned i;
  int r;

  snprintf (path, sizeof path, "/dev/ublkc%d", a->id);
  for (i = 0; i < 40; i++) {
    a->ublkc = open (path, O_RDWR | O_CLOEXEC);
    if (a->ublkc != -1 || (errno != ENOENT && errno != EBUSY))
      break;
    usleep (50000);
  }
  if (a->ublkc == -1)
    return zone_error (err, errno, "%s: %s", path, strerror (errno));
  a->wake_fd = eventfd (0, EFD_CLOEXEC);
  if (a->wake_fd == -1)
    return zone_error (err, errno, "eventfd: %s", strerror (errno));
  if (allocate (a, err) == -1)
    return -1;
  r = pthread_create (&a->helper, NULL, helper_thread, a);
  if (r == 0) {
    a->helper_there = true;
    r = pthread_create (&a->loop, NULL, loop_thread, a);
  }
  if (r)
    return zone_error (err, r, "cannot start a thread: %s", strerror (r));
  a->loop_there = true;
  return 0;
}

static int
make_device (struct attach *a, struct control *c, struct zone_error *err)
{
  struct ublk_dev_info info = {
    .queues = a->options.queues, .depth = a->options.depth,
    .max_io_bytes = a->io_max,
    .flags = UBLK_F_USER_COPY | UBLK_F_CMD_IOCTL_ENCODE |
      UBLK_F_USER_RECOVERY | UBLK_F_USER_RECOVERY_REISSUE |
      (a->zoned ? UBLK_F_ZONED : 0),
  };
  struct ublk_parameters params;

  if (control_add (c, &info, a->options.id, err) == -1)
    return -1;
  a->id = info.dev_id;
  a->queues = info.queues;
  a->depth = info.depth;
  a->io_max = info.max_io_bytes;
  fill_params (a, &params);
  a->state = state_create (a->id, a->options.uri, &a->geometry, a->zoned,
                           err);
  if (a->state == NULL)
    return -1;
  a->state->readonly = a->readonly;
  atomic_store (&a->state->connected, 1);
  return control_params (c, a->id, &params, err) == -1 ||
    serve (a, err) == -1 || control_start (c, a->id, err) == -1 ? -1 : 0;
}

/* ---- taking one over ---- */

/* A device whose process was killed, and which is this URI's; -1: there is
 * none. */
static int
find_dead (const struct attach *a)
{
  struct zone_error ignored;
  int *ids, n = state_list (&ids, &ignored), i, id = -1;

  for (i = 0; i < n && id == -1; i++) {
    bool alive;
    struct state *s = state_look (ids[i], &alive);

    if (s == NULL)
      continue;
    if (!alive && strcmp (s->uri, a->options.uri) == 0 &&
        s->size == a->geometry.size &&
        (a->options.id == -1 || a->options.id == ids[i]))
      id = ids[i];
    state_unlook (s);
  }
  free (ids);
  return id;
}

static int
take_over (struct attach *a, struct control *c,
           const struct ublk_dev_info *info, struct zone_error *err)
{
  struct state *s;

  a->state = s = state_recover (a->id, err);
  if (s == NULL)
    return -1;
  if (s->size != a->geometry.size ||
      s->zones != (a->zoned ? a->geometry.zones : 0) ||
      memcmp (s->uuid, a->geometry.uuid, sizeof s->uuid) != 0)
    return zone_error (err, ENODEV, "/dev/ublkb%d, whose process was "
                       "killed, is of another disk; znbd detach "
                       "/dev/ublkb%d gives it up", a->id, a->id);
  a->recovered = true;
  a->queues = info->queues;
  a->depth = info->depth;
  a->io_max = info->max_io_bytes;
  a->readonly = s->readonly;
  if (a->link->max_block < a->io_max ||
      (a->link->readonly && !a->readonly))
    return zone_error (err, ENODEV, "the server takes less than before of "
                       "/dev/ublkb%d", a->id);
  if (a->zoned && orphans_find (a, a->disk, err) == -1)
    return -1;
  /* What the process before it answered. */
  a->changes = atomic_load (&s->dirty);
  if (a->changes &&
      (!a->zoned || s->epoch != a->geometry.epoch)) {
    attach_log (a, "%s: it started anew: what was written and not flushed "
                "may be lost, and the next flush will say so",
                a->options.uri);
    a->lost = true;
    a->flushed = a->changes;
  }
  s->epoch = a->geometry.epoch;
  atomic_store (&s->connected, 1);
  if (control_start_recovery (c, a->id, err) == -1 ||
      serve (a, err) == -1 ||
      control_end_recovery (c, a->id, err) == -1)
    return -1;
  atomic_store (&a->taken_over, true);
  loop_wake (a);
  return 0;
}

/* ---- the end ---- */

/* The loop ends with the device, which is gone then. */
static void
stop (struct attach *a, struct control *c)
{
  struct timespec until;

  if (a->id != -1)
    (void) control_stop (c, a->id);
  if (a->loop_there)
    pthread_join (a->loop, NULL);
  if (a->helper_there) {
    pthread_mutex_lock (&a->lock);
    a->stop = true;
    pthread_cond_signal (&a->posted);
    pthread_mutex_unlock (&a->lock);
    clock_gettime (CLOCK_REALTIME, &until);
    until.tv_sec += HELPER_SECONDS;
    /* One that waits for a server that says nothing goes with the
     * process. */
    (void) pthread_timedjoin_np (a->helper, NULL, &until);
  }
  if (a->ublkc != -1)
    close (a->ublkc);
  if (a->id != -1)
    (void) control_delete (c, a->id);
}

/* Makes all durable that is in the kernel, for the device's end will not.
 * False: it is in use. */
static bool
leave (struct attach *a)
{
  char path[32];
  int fd;

  snprintf (path, sizeof path, "/dev/ublkb%d", a->id);
  fd = open (path, (a->readonly ? O_RDONLY : O_RDWR) | O_EXCL | O_CLOEXEC);
  if (fd == -1 && errno == EBUSY) {
    attach_log (a, "%s is in use (mounted?), so it is not detached", path);
    atomic_store (&a->state->detaching, DETACH_BUSY);
    return false;
  }
  /* Without a connection it must not wait. */
  if (!atomic_load (&a->state->connected)) {
    atomic_store (&a->hurry, true);
    loop_wake (a);
  }
  if (fd != -1 && !a->readonly &&
      (fsync (fd) == -1 || atomic_load (&a->hurry))) {
    attach_log (a, "%s: what was written last could not be made durable",
                path);
    atomic_store (&a->state->detaching, DETACH_LOST);
  }
  if (fd != -1)
    close (fd);
  return true;
}

static void
wait_for_end (struct attach *a, const sigset_t *signals)
{
  for (;;) {
    const int sig = sigwaitinfo (signals, NULL);

    if (sig == SIGUSR1)
      return;
    if (sig > 0 && leave (a))
      return;
  }
}

int
attach_run (const struct attach_options *o, void (*log) (const char *line),
            void (*ready) (const char *name))
{
  static struct attach a;
  struct ublk_dev_info info;
  struct control c;
  struct zone_error err;
  sigset_t signals;
  char name[32];
  bool taken = false;
  int r;

  a.options = *o;
  a.log = log;
  a.id = a.ublkc = a.wake_fd = -1;
  a.main_thread = pthread_self ();
  pthread_mutex_init (&a.lock, NULL);
  pthread_cond_init (&a.posted, NULL);
  list_init (&a.waiting);
  list_init (&a.answered);
  list_init (&a.jobs);
  list_init (&a.done);

  if (control_open (&c, &err) == -1 ||
      control_features (&c, false, &err) == -1) {
    attach_log (&a, "%s", err.text);
    return EXIT_FAILURE;
  }
  a.link = link_open (o, NULL, false, &err);
  if (a.link == NULL) {
    attach_log (&a, "%s: %s", o->uri, err.text);
    return EXIT_FAILURE;
  }
  a.geometry = a.link->geometry;
  a.zoned = a.link->zoned;
  a.readonly = a.link->readonly;
  a.io_max = a.link->max_block;
  a.disk = a.link->disk;
  a.link->disk = NULL;
  if (a.link->unzoned)
    attach_log (&a, "%s: attached without zones: %s", o->uri,
                a.link->unzoned);

  sigemptyset (&signals);
  sigaddset (&signals, SIGTERM);
  sigaddset (&signals, SIGINT);
  sigaddset (&signals, SIGHUP);
  sigaddset (&signals, SIGUSR1);
  pthread_sigmask (SIG_BLOCK, &signals, NULL);

  if (control_features (&c, a.zoned, &err) == -1)
    r = -1;
  else if ((a.id = find_dead (&a)) != -1 &&
           control_info (&c, a.id, &info) == 0) {
    taken = true;
    r = take_over (&a, &c, &info, &err);
  }
  else {
    a.id = -1;
    r = make_device (&a, &c, &err);
  }
  if (r == -1) {
    attach_log (&a, "%s", err.text);
    if (taken)                  /* its users may find another process */
      _exit (EXIT_FAILURE);
  }
  else {
    snprintf (name, sizeof name, "/dev/ublkb%d", a.id);
    ready (name);
    wait_for_end (&a, &signals);
  }
  stop (&a, &c);
  if (a.state)
    state_remove (a.state);
  control_close (&c);
  return r == 0 && !atomic_load (&a.loop_failed) ? EXIT_SUCCESS
    : EXIT_FAILURE;
}
