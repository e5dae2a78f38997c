/* SPDX-License-Identifier: BSD-3-Clause */
/* The nbd store: opening and closing, and the way in for other threads.  See
 * nbd-internal.h.
 *
 * One write is in flight in each zone; those that wait for it and continue
 * each other follow together, as so many commands.  So all writes of a zone
 * reach the server in order, whatever our own threads do: a server that
 * parks writes could be full of parked ones before the one that they wait
 * for is sent (nbdkit has so many threads and no more).  And a connection
 * that dies leaves one write of each zone to be judged by its pointer.
 */

#include <config.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "nbd-internal.h"
#include "zones.h"

static struct upstream *
upstream_of (struct store *store)
{
  return (struct upstream *) store;
}

const char *
upstream_name (const struct upstream *up)
{
  return up->uri ? up->uri : up->command[0];
}

void
upstream_log (struct upstream *up, const char *fs, ...)
{
  char line[ZONE_ERROR_MAX];
  va_list args;

  if (up->log == NULL)
    return;
  va_start (args, fs);
  vsnprintf (line, sizeof line, fs, args);
  va_end (args);
  up->log (line);
}

static void
upstream_submit (struct store *store, struct store_io *io)
{
  struct upstream *up = upstream_of (store);
  struct store_io *first;
  uint64_t one = 1;

  upstream_io (io)->skip = 0;
  upstream_io (io)->again = upstream_io (io)->some = false;
  first = atomic_load_explicit (&up->posted, memory_order_relaxed);
  do
    io->next = first;
  while (!atomic_compare_exchange_weak_explicit (&up->posted, &first, io,
                                                 memory_order_release,
                                                 memory_order_relaxed));
  /* The thread looks before it sleeps. */
  if (first == NULL && upstream_self != up &&
      write (up->wake_fd, &one, sizeof one) == -1)
    return;                     /* an overflow: it is awake */
}

/* The capacity that all sequential zones have, but a smaller last one. */
static uint64_t
common_capacity (const struct upstream *up)
{
  const struct znbd_geometry *g = &up->store.geometry;
  uint64_t common = 0;
  uint32_t i;

  for (i = 0; i < g->zones; i++) {
    const struct znbd_zone *z = &up->report[i];

    if (z->type == ZNBD_ZONE_CONVENTIONAL)
      continue;
    if (common == 0)
      common = z->capacity;
    else if (z->capacity != common &&
             (i < g->zones - 1 || z->capacity > common))
      return 0;
  }
  return common;
}

static int
upstream_load (struct store *store, struct zones *zs, struct zone_error *err)
{
  struct upstream *up = upstream_of (store);
  uint32_t i;

  if (!store->mirrors)
    return 0;
  for (i = 0; i < store->geometry.zones; i++)
    if (zones_load_mirrored (zs, i, &up->report[i], err) == -1)
      return -1;
  store->geometry.zone_capacity = common_capacity (up);
  free (up->report);
  up->report = NULL;
  return 0;
}

static int
upstream_start (struct store *store, struct zone_error *err)
{
  struct upstream *up = upstream_of (store);
  int r;

  up->started = true;
  r = pthread_create (&up->thread, NULL, upstream_thread, up);
  if (r) {
    up->started = false;
    return zone_error (err, r, "cannot start a thread for %s: %s",
                       upstream_name (up), strerror (r));
  }
  return 0;
}

static void
upstream_free (struct upstream *up)
{
  struct old_geometry *old;
  size_t i;

  link_down (up, false);
  while ((old = up->geometries) != NULL) {
    up->geometries = old->next;
    free (old);
  }
  for (i = 0; up->command && up->command[i]; i++)
    free (up->command[i]);
  free (up->command);
  free (up->uri);
  free (up->table_uri);
  free (up->zeros);
  free (up->census);
  free (up->report);
  if (up->wake_fd != -1)
    close (up->wake_fd);
  free (up);
}

static void
upstream_hurry (struct store *store)
{
  struct upstream *up = upstream_of (store);
  uint64_t one = 1;

  atomic_store (&up->hurry, true);
  if (write (up->wake_fd, &one, sizeof one) == -1)
    return;                     /* an overflow: it is awake */
}

static int
upstream_close (struct store *store, bool flush, struct zone_error *err)
{
  struct upstream *up = upstream_of (store);
  uint64_t one = 1;
  int r = 0;

  if (up->started) {
    atomic_store (&up->stop, true);
    if (write (up->wake_fd, &one, sizeof one) == -1)
      r = 0;                    /* an overflow: it is awake */
    pthread_join (up->thread, NULL);
  }
  if (flush && up->changes != up->flushed)
    r = zone_error (err, EIO, "%s: what was written last could not be "
                    "flushed", upstream_name (up));
  upstream_free (up);
  return r;
}

static const struct store_ops upstream_ops = {
  .name = "nbd",
  .submit = upstream_submit,
  .load = upstream_load,
  .start = upstream_start,
  .hurry = upstream_hurry,
  .close = upstream_close,
};

bool
nbd_store_is_uri (const char *s)
{
  static const char *const schemes[] = {
    "nbd:", "nbds:", "nbd+unix:", "nbds+unix:", "nbd+vsock:", "nbds+vsock:",
  };
  size_t i;

  for (i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
    if (strncmp (s, schemes[i], strlen (schemes[i])) == 0)
      return true;
  return false;
}

/* The URI of the zone table beside a disk's: the same with another export
 * name, which is the path without its first slash. */
static char *
make_table_uri (const char *uri)
{
  const char *authority = strstr (uri, "://"), *path, *end;
  char *table;

  if (authority == NULL)
    return strdup (uri);        /* libnbd will say what is wrong with it */
  path = authority + 3 + strcspn (authority + 3, "/?#");
  end = path + strcspn (path, "?#");
  if (end - path <= 1) {
    if (asprintf (&table, "%.*s/" TABLE_EXPORT_NAME "%s",
                  (int) (path - uri), uri, end) == -1)
      return NULL;
  }
  else if (asprintf (&table, "%.*s" TABLE_EXPORT_SUFFIX "%s",
                     (int) (end - uri), uri, end) == -1)
    return NULL;
  return table;
}

static int
copy_command (struct upstream *up, char *const *command)
{
  size_t n = 0, i;

  while (command[n])
    n++;
  up->command = calloc (n + 1, sizeof *up->command);
  for (i = 0; up->command && i < n; i++)
    if ((up->command[i] = strdup (command[i])) == NULL)
      return -1;
  return up->command ? 0 : -1;
}

struct store *
nbd_store_open (const struct nbd_store_options *o, bool readonly,
                struct zone_error *err)
{
  struct upstream *up = calloc (1, sizeof *up);
  bool ignored;

  if (up == NULL) {
    zone_error (err, ENOMEM, "no memory for a disk");
    return NULL;
  }
  up->store.ops = &upstream_ops;
  up->store.readonly = readonly;
  up->store.one_write_per_zone = true;
  up->reconnect = o->reconnect;
  up->log = o->log;
  list_init (&up->waiting);
  list_init (&up->finished);
  list_init (&up->redo);
  list_init (&up->suspects);
  list_init (&up->counted);
  up->wake_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (up->wake_fd == -1) {
    zone_error (err, errno, "eventfd: %s", strerror (errno));
    goto fail;
  }
  if (o->uri) {
    up->uri = strdup (o->uri);
    up->table_uri = make_table_uri (o->uri);
  }
  if (o->uri ? up->uri == NULL || up->table_uri == NULL
      : copy_command (up, o->command) == -1) {
    zone_error (err, ENOMEM, "no memory for a disk");
    goto fail;
  }
  if (link_up (up, true, &ignored, err) == 0)
    return &up->store;

 fail:
  upstream_free (up);
  return NULL;
}
