/* SPDX-License-Identifier: BSD-3-Clause */
/* Many threads on one disk, as nbdkit's workers are: writes of one zone
 * handed out to threads in any order, zones that fight for few resources,
 * flushes and FUA that share commits, management and reports in between.
 * For the thread sanitizer as much as for what is asserted.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk.h"
#include "image.h"
#include "memory.h"
#include "report.h"

#define K4 4096u
#define BLOCKS 128u             /* of a zone */
#define ZONE (BLOCKS * K4)
#define ZONES 12u
#define THREADS 8u
#define ROUNDS 6u

static struct zdisk *disk;
static _Atomic unsigned next_block, failures;
static _Atomic int stopping;
static pthread_barrier_t barrier;

static int
run (struct zdisk_client *client, enum zdisk_op op, uint64_t offset,
     uint64_t length, void *buf, unsigned flags)
{
  struct zdisk_request req = {
    .op = op, .offset = offset, .length = length, .buf = buf, .flags = flags,
  };
  int r = zdisk_run (client, &req);

  if (r && r != EOVERFLOW) {
    fprintf (stderr, "# %s: %s\n", strerror (r), req.reason);
    failures++;
  }
  return r;
}

/* Blocks of a zone are handed out one by one; who has one writes it when it
 * gets to it. */
static void *
writer (void *arg)
{
  struct zdisk_client *client = zdisk_client_new (disk, false);
  unsigned seed = (unsigned) (uintptr_t) arg, round, b;
  uint8_t block[K4];

  for (round = 0; round < ROUNDS; round++) {
    uint64_t zone = 1 + round % 2;

    while ((b = next_block++) < BLOCKS) {
      if (rand_r (&seed) % 4 == 0)
        usleep (rand_r (&seed) % 200);
      memset (block, round * BLOCKS + b, sizeof block);
      run (client, ZDISK_WRITE, zone * ZONE + b * K4, K4, block,
           b % 16 == 0 ? ZDISK_FUA : 0);
    }
    if (pthread_barrier_wait (&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
      for (b = 0; b < BLOCKS; b++) {
        run (client, ZDISK_READ, zone * ZONE + b * K4, K4, block, 0);
        if (block[0] != (uint8_t) (round * BLOCKS + b) ||
            block[K4 - 1] != block[0])
          failures++;
      }
      run (client, ZDISK_RESET, zone * ZONE, ZONE, NULL, 0);
      next_block = 0;
    }
    pthread_barrier_wait (&barrier);
  }
  zdisk_client_close (client);
  return NULL;
}

/* Zones of its own, more than may be open. */
static void *
churner (void *arg)
{
  struct zdisk_client *client = zdisk_client_new (disk, false);
  unsigned seed = (unsigned) (uintptr_t) arg;
  unsigned first = 3 + (seed & 1) * 4, fill[4] = { 0 };
  uint8_t block[K4] = { 1 };

  while (!stopping) {
    unsigned i = rand_r (&seed) % 4;
    uint64_t zone = first + i;

    switch (rand_r (&seed) % 8) {
    case 0:
      run (client, ZDISK_RESET, zone * ZONE, ZONE, NULL, 0);
      fill[i] = 0;
      break;
    case 1:
      run (client, ZDISK_FLUSH, 0, 0, NULL, 0);
      break;
    case 2:
      if (fill[i] > 0 && fill[i] < BLOCKS) {
        run (client, ZDISK_FINISH, zone * ZONE, ZONE, NULL, 0);
        fill[i] = BLOCKS;
      }
      break;
    default:
      if (fill[i] < BLOCKS &&
          run (client, ZDISK_WRITE, zone * ZONE + fill[i] * K4, K4, block,
               0) == 0)
        fill[i]++;
    }
  }
  zdisk_client_close (client);
  return NULL;
}

static bool
count (void *opaque, uint64_t length, uint32_t flags)
{
  (void) flags;
  *(uint64_t *) opaque += length;
  return true;
}

static void *
reporter (void *arg)
{
  struct znbd_zone zones[ZONES];
  unsigned i;

  (void) arg;
  while (!stopping) {
    uint64_t bytes = 0;

    zdisk_report (disk, 0, ZONES, zones);
    for (i = 0; i < ZONES; i++)
      if (zones[i].wp > zones[i].start + zones[i].length)
        failures++;
    report_zones (disk, 0, ZONES * (uint64_t) ZONE, count, &bytes);
    if (bytes != ZONES * (uint64_t) ZONE)
      failures++;
    usleep (500);
  }
  return NULL;
}

static void
storm (struct store *store)
{
  pthread_t writers[THREADS], churners[2], watch;
  struct zone_error err;
  unsigned i;

  assert_non_null (store);
  disk = zdisk_new (store, NULL, &err);
  if (disk == NULL)
    fail_msg ("%s", err.text);
  next_block = failures = 0;
  stopping = 0;
  pthread_barrier_init (&barrier, NULL, THREADS);
  pthread_create (&watch, NULL, reporter, NULL);
  for (i = 0; i < 2; i++)
    pthread_create (&churners[i], NULL, churner,
                    (void *) (uintptr_t) (100 + i));
  for (i = 0; i < THREADS; i++)
    pthread_create (&writers[i], NULL, writer, (void *) (uintptr_t) (i + 1));
  for (i = 0; i < THREADS; i++)
    pthread_join (writers[i], NULL);
  stopping = 1;
  for (i = 0; i < 2; i++)
    pthread_join (churners[i], NULL);
  pthread_join (watch, NULL);
  pthread_barrier_destroy (&barrier);
  if (zdisk_close (disk, &err) == -1)
    fail_msg ("%s", err.text);
  assert_int_equal (failures, 0);
}

static struct store_geometry
geometry (void)
{
  struct store_geometry g = STORE_GEOMETRY_DEFAULT;

  g.size = ZONES * (uint64_t) ZONE;
  g.zone_size = ZONE;
  g.conventional = 1;
  g.max_open = 3;
  return g;
}

static void
memory (void **state)
{
  struct store_geometry g = geometry ();
  struct zone_error err;

  (void) state;
  storm (memory_new (&g, &err));
}

static void
image (void **state)
{
  char path[] = "/tmp/znbd-threads-XXXXXX";
  struct store_geometry g = geometry ();
  struct zone_error err;
  int fd = mkstemp (path);

  (void) state;
  assert_true (fd >= 0);
  close (fd);
  if (image_create (path, &g, false, &err) == -1)
    fail_msg ("%s", err.text);
  storm (image_open (path, false, &err));
  assert_int_equal (image_check (path, false, stderr, &err), 0);
  unlink (path);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (memory),
    cmocka_unit_test (image),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
