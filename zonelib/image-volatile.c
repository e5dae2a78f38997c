/* SPDX-License-Identifier: BSD-3-Clause */
/* Pointers that outlive the process but not the machine: a shared mapping
 * of the image's file, written with one store after each move of a
 * pointer.  The kernel keeps it when the process is killed.  A commit's
 * boot id says whether what is found there is of this boot; if not it is
 * never looked at.
 *
 * A file that is truncated below us makes such a store a SIGBUS.  The
 * handler puts anonymous memory in the mapping's place and marks the image
 * failed.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image-internal.h"

/* The mappings that the handler knows.  A place is taken by its length,
 * last, and freed the same way; under register_lock but for the handler. */
#define MAPPINGS_MAX 64
static struct mapping {
  void *_Atomic start;
  _Atomic size_t length;
  _Atomic bool *_Atomic failed;
} mappings[MAPPINGS_MAX];
static pthread_mutex_t register_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;         /* who handled SIGBUS before us */
static bool installed;

static void
on_sigbus (int sig, siginfo_t *info, void *context)
{
  uint8_t *at = info->si_addr;
  unsigned i;

  for (i = 0; i < MAPPINGS_MAX && info->si_code > 0; i++) {
    size_t length = mappings[i].length;
    uint8_t *start = mappings[i].start;

    if (length == 0 || at < start || at >= start + length)
      continue;
    if (mmap (start, length, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
      break;
    *mappings[i].failed = true;
    return;
  }
  if (before.sa_flags & SA_SIGINFO && before.sa_sigaction) {
    before.sa_sigaction (sig, info, context);
    return;
  }
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler (sig);
    return;
  }
  /* Not ours: it happens again, with its default action. */
  signal (SIGBUS, SIG_DFL);
  if (info->si_code <= 0)       /* sent by somebody: it would not */
    raise (SIGBUS);
}

static int
enter (void *start, size_t length, _Atomic bool *failed)
{
  struct sigaction sa = { .sa_sigaction = on_sigbus,
                          .sa_flags = SA_SIGINFO | SA_NODEFER };
  unsigned i;
  int r = -1;

  pthread_mutex_lock (&register_lock);
  if (!installed && sigaction (SIGBUS, &sa, &before) == 0)
    installed = true;
  for (i = 0; i < MAPPINGS_MAX; i++)
    if (mappings[i].length == 0) {
      mappings[i].start = start;
      mappings[i].failed = failed;
      mappings[i].length = length;
      r = 0;
      break;
    }
  pthread_mutex_unlock (&register_lock);
  return r;
}

static void
leave (void *start)
{
  unsigned i;

  pthread_mutex_lock (&register_lock);
  for (i = 0; i < MAPPINGS_MAX; i++)
    if (mappings[i].length > 0 && mappings[i].start == start)
      mappings[i].length = 0;
  pthread_mutex_unlock (&register_lock);
}

/* Clears the area, gives it space, and maps it.  A mark that counts stays:
 * until the next commit it is all that tells of a loss. */
int
volatile_start (struct image *img, struct zone_error *err)
{
  size_t length = img->sb.table_offset[0] - img->sb.volatile_offset;
  void *p;
  int r;

  r = image_zero (img->fd, img->sb.volatile_offset, img->distrusted
                  ? (uint64_t) img->sb.zones * 8 : length, false);
  if (r)
    return zone_error (err, r, "%s: no space for volatile pointers: %s",
                       img->path, strerror (r));
  p = mmap (NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, img->fd,
            img->sb.volatile_offset);
  if (p == MAP_FAILED)
    return zone_error (err, errno, "%s: cannot be mapped: %s", img->path,
                       strerror (errno));
  if (enter (p, length, &img->store.failed) == -1) {
    munmap (p, length);
    return zone_error (err, EMFILE, "%s: more than %d images open at once",
                       img->path, MAPPINGS_MAX);
  }
  img->slots = p;
  img->slots_size = length;
  return 0;
}

void
volatile_mark (struct image *img, bool distrust)
{
  uint64_t mark = distrust ? htole64 (IMAGE_MARK) : 0;

  /* Not mapped yet: what is made durable is a former session's. */
  if (img->slots == NULL)
    image_pwrite (img->fd, &mark, sizeof mark, img->sb.volatile_offset +
                  (uint64_t) img->sb.zones * sizeof mark);
  else
    atomic_store (&img->slots[img->sb.zones], mark);
}

void
volatile_stop (struct image *img)
{
  if (img->slots) {
    leave ((void *) img->slots);
    munmap ((void *) img->slots, img->slots_size);
    img->slots = NULL;
  }
}
