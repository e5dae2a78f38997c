/* SPDX-License-Identifier: BSD-3-Clause */
/* Mappings of an image's file that this program touches itself.  Where the
 * file is cut off below one, or the disk fails, that is a SIGBUS.  The handler
 * says so, and then puts memory of zeros in the mapping's place: what has been
 * read, or is written, there from then on counts for nothing.
 */

#include <config.h>

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "image-internal.h"

/* The mappings that the handler knows.  A place is taken by its length,
 * last, and freed the same way; under register_lock but for the handler. */
static struct mapping {
  void *_Atomic start;
  _Atomic size_t length;
  _Atomic int prot;
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
    /* Before there are zeros for anybody to see. */
    *mappings[i].failed = true;
    if (mmap (start, length, mappings[i].prot, MAP_PRIVATE | MAP_ANONYMOUS |
              MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
      break;
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

int
sigbus_enter (void *start, size_t length, int prot, _Atomic bool *failed)
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
      mappings[i].prot = prot;
      mappings[i].failed = failed;
      mappings[i].length = length;
      r = 0;
      break;
    }
  pthread_mutex_unlock (&register_lock);
  return r;
}

void
sigbus_leave (void *start)
{
  unsigned i;

  pthread_mutex_lock (&register_lock);
  for (i = 0; i < MAPPINGS_MAX; i++)
    if (mappings[i].length > 0 && mappings[i].start == start)
      mappings[i].length = 0;
  pthread_mutex_unlock (&register_lock);
}
