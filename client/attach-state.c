/* SPDX-License-Identifier: BSD-3-Clause */
/* Devices as files in /run/znbd: for znbd list and detach, and for a znbd
 * attach that takes over the device of one that was killed.  Who has a
 * device holds its file's lock.  Files are root's alone, so they are
 * trusted, but for one that another version or half a write left.
 */

#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attach.h"

static int held_fd = -1;        /* this process's, locked */
static size_t held_size;

static void
path_of (int id, char path[64])
{
  snprintf (path, 64, STATE_DIR "/ublkb%d", id);
}

static bool
makes_sense (const struct state *s, size_t size, int id)
{
  return size >= sizeof *s &&
    memcmp (s->magic, STATE_MAGIC, sizeof s->magic) == 0 &&
    s->id == (uint32_t) id &&
    (size - sizeof *s) / sizeof s->zone[0] >= s->zones &&
    memchr (s->uri, '\0', sizeof s->uri) != NULL;
}

/* Opens and locks a device's file. */
static int
hold (int id, int flags, struct zone_error *err)
{
  char path[64];

  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  path_of (id, path);
  held_fd = open (path, O_RDWR | O_CLOEXEC | flags, 0600);
  if (held_fd == -1)
    return zone_error (err, errno, "%s: %s", path, strerror (errno));
  if (fcntl (held_fd, F_OFD_SETLK, &lock) == -1) {
    zone_error (err, EBUSY, "/dev/ublkb%d is attached by another process",
                id);
    close (held_fd);
    held_fd = -1;
    return -1;
  }
  return 0;
}

static struct state *
map (int id, size_t size, struct zone_error *err)
{
  void *p = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, held_fd,
                  0);

  if (p == MAP_FAILED) {
    zone_error (err, errno, STATE_DIR "/ublkb%d: %s", id, strerror (errno));
    close (held_fd);
    held_fd = -1;
    return NULL;
  }
  held_size = size;
  return p;
}

struct state *
state_create (int id, const char *uri, const struct znbd_geometry *g,
              bool zoned, struct zone_error *err)
{
  const uint32_t zones = zoned ? g->zones : 0;
  const size_t size = sizeof (struct state) +
    (size_t) zones * sizeof (struct state_zone);
  struct state *s;
  uint32_t i;

  if (strlen (uri) >= sizeof s->uri) {
    zone_error (err, ENAMETOOLONG, "a URI of more than %zu characters",
                sizeof s->uri - 1);
    return NULL;
  }
  if (mkdir (STATE_DIR, 0700) == -1 && errno != EEXIST) {
    zone_error (err, errno, STATE_DIR ": %s", strerror (errno));
    return NULL;
  }
  if (hold (id, O_CREAT, err) == -1)
    return NULL;
  /* All of its memory now: later would be too late to say that there is
   * none. */
  if (ftruncate (held_fd, 0) == -1 ||
      (errno = posix_fallocate (held_fd, 0, size)) != 0) {
    zone_error (err, errno, STATE_DIR "/ublkb%d: %s", id, strerror (errno));
    close (held_fd);
    held_fd = -1;
    return NULL;
  }
  s = map (id, size, err);
  if (s == NULL)
    return NULL;
  s->id = id;
  s->pid = getpid ();
  s->zones = zones;
  s->size = g->size;
  s->epoch = g->epoch;
  memcpy (s->uuid, g->uuid, sizeof s->uuid);
  strcpy (s->uri, uri);
  for (i = 0; i < zones; i++)
    s->zone[i].wp = WP_UNKNOWN;
  memcpy (s->magic, STATE_MAGIC, sizeof s->magic);
  return s;
}

struct state *
state_recover (int id, struct zone_error *err)
{
  struct state *s;
  struct stat st;

  if (hold (id, 0, err) == -1)
    return NULL;
  if (fstat (held_fd, &st) == -1)
    st.st_size = 0;
  if ((size_t) st.st_size >= sizeof *s) {
    s = map (id, st.st_size, err);
    if (s == NULL)
      return NULL;
    if (makes_sense (s, st.st_size, id)) {
      s->pid = getpid ();
      return s;
    }
    munmap (s, st.st_size);
  }
  zone_error (err, EINVAL, STATE_DIR "/ublkb%d makes no sense: znbd detach "
              "/dev/ublkb%d, and attach anew", id, id);
  close (held_fd);
  held_fd = -1;
  return NULL;
}

void
state_close (struct state *s)
{
  munmap (s, held_size);
  close (held_fd);
  held_fd = -1;
}

void
state_remove (struct state *s)
{
  state_forget (s->id);
  state_close (s);
}

void
state_forget (int id)
{
  char path[64];

  path_of (id, path);
  unlink (path);
}

struct state *
state_look (int id, bool *alive)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  struct state *s = MAP_FAILED;
  char path[64];
  struct stat st;
  int fd;

  path_of (id, path);
  fd = open (path, O_RDWR | O_CLOEXEC);
  if (fd == -1)
    return NULL;
  *alive = fcntl (fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  if (fstat (fd, &st) == 0 && (size_t) st.st_size >= sizeof *s)
    s = mmap (NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close (fd);
  if (s == MAP_FAILED)
    return NULL;
  if (makes_sense (s, st.st_size, id))
    return s;
  state_unlook (s);
  return NULL;
}

void
state_unlook (struct state *s)
{
  munmap (s, sizeof *s);
}

static int
compare (const void *a, const void *b)
{
  const int *x = a, *y = b;

  return (*x > *y) - (*x < *y);
}

int
state_list (int **ids, struct zone_error *err)
{
  DIR *dir = opendir (STATE_DIR);
  struct dirent *entry;
  int n = 0, id, *more;
  char end;

  *ids = NULL;
  if (dir == NULL && errno == ENOENT)
    return 0;
  if (dir == NULL)
    return zone_error (err, errno, STATE_DIR ": %s", strerror (errno));
  while ((entry = readdir (dir)) != NULL) {
    if (sscanf (entry->d_name, "ublkb%d%c", &id, &end) != 1 || id < 0)
      continue;
    more = realloc (*ids, (n + 1) * sizeof **ids);
    if (more == NULL) {
      free (*ids);
      closedir (dir);
      return zone_error (err, ENOMEM, "out of memory");
    }
    *ids = more;
    more[n++] = id;
  }
  closedir (dir);
  if (n > 0)
    qsort (*ids, n, sizeof **ids, compare);
  return n;
}
