/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk over a store that holds every I/O until the test lets it go
 * (held-disk.h): the order of writes and management within a zone, and writes
 * that fail, without any chance in it.
 */

#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "held-disk.h"

static void
answered_in_order (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  write_at (1, K4, K4);
  assert_int_equal (hold->n, 2);        /* in flight at once */
  let_go (1);
  assert_false (done[1]);               /* not before the first */
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 0);
  let_go (0);
  assert_done (0, 0);
  assert_done (1, 0);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 2 * K4);
}

/* What comes at once is written at once, each zone's in its order; refusals
 * among it wait for nothing else, and reads for nobody. */
static void
held_is_merged (void **state)
{
  unsigned i;

  (void) state;
  zdisk_hold (disk, NULL);
  write_at (0, 0, K4);
  write_at (1, K4, 2 * K4);
  write_at (2, 0, K4);                  /* refused */
  write_at (3, ZONE, K4);
  write_at (4, 3 * K4, K4);
  submit (5, ZDISK_READ, ZONE, K4, 0);
  assert_done (5, 0);
  assert_int_equal (hold->n, 0);
  submit (6, ZDISK_FINISH, ZONE, ZONE, 0);
  zdisk_release ();
  assert_done (2, EINVAL);
  assert_int_equal (hold->n, 3);
  assert_int_equal (hold->io[0]->niov, 2);
  assert_int_equal (hold->io[0]->length, 3 * K4);
  assert_int_equal (hold->io[1]->offset, ZONE);
  assert_int_equal (hold->io[2]->offset, 3 * K4);
  write_at (7, 4 * K4, K4);             /* not held any more */
  assert_int_equal (hold->n, 4);
  while (hold->n)
    let_go (0);
  for (i = 0; i < 8; i++)
    if (i != 2)
      assert_done (i, 0);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 5 * K4);
  assert_wp (1, ZNBD_COND_FULL, ZONE);
  assert_memory_equal (hold->bytes, buf, 5 * K4);
}

static void
failed_write (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  write_at (1, K4, K4);
  write_at (2, 2 * K4, K4);
  let_go (0);
  let_go_part (0, EIO, 0);              /* the second */
  assert_done (0, 0);
  assert_done (1, EIO);
  assert_false (done[2]);
  write_at (3, K4, K4);                 /* waits until that is over */
  assert_int_equal (hold->n, 1);
  let_go (0);
  assert_done (2, EIO);                 /* behind it */
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, K4);
  assert_int_equal (hold->n, 1);
  let_go (0);
  assert_done (3, 0);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 2 * K4);
}

static void
failed_merge (void **state)
{
  (void) state;
  write_at (1, K4, K4);
  write_at (2, 2 * K4, K4);
  write_at (0, 0, K4);
  let_go_part (0, ENOSPC, K4 + 100);
  assert_done (0, 0);
  assert_done (1, ENOSPC);
  assert_done (2, ENOSPC);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, K4);
}

/* While a failure drains, what waits is not judged by what is reserved. */
static void
queued_behind_a_failure (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  write_at (1, K4, K4);
  write_at (2, 2 * K4, K4);
  let_go_part (0, EIO, 0);
  write_at (3, 3 * K4, K4);             /* waits */
  let_go (1);                           /* the third, still behind */
  assert_int_equal (hold->n, 1);
  let_go (0);
  assert_done (1, EIO);
  assert_done (2, EIO);
  assert_false (done[3]);               /* parked: the client tries again */
  write_at (4, 0, 3 * K4);
  while (hold->n)
    let_go (0);
  assert_done (4, 0);
  assert_done (3, 0);
}

/* A zone that was closed to make room while its first write, which fails,
 * was under way holds nothing. */
static void
eviction_and_failure (void **state)
{
  stop (state);
  max_open = 1;
  start (ZNBD_MODEL_HOST_MANAGED, 2, NULL);
  max_open = 0;
  write_at (0, 0, K4);
  write_at (1, ZONE, K4);               /* closes zone 0 */
  let_go_part (0, EIO, 0);
  assert_done (0, EIO);
  assert_wp (0, ZNBD_COND_EMPTY, 0);
  let_go (0);
  assert_done (1, 0);
  write_at (2, 2 * ZONE, K4);           /* the resource is free */
  assert_int_equal (hold->n, 1);
  let_go (0);
  assert_done (2, 0);
}

/* Nobody sends one, but it must not be taken for anything else. */
static void
flush_with_a_length (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  let_go (0);
  submit (1, ZDISK_FLUSH, 0, ZONE, 0);
  assert_int_equal (hold->n, 1);
  assert_int_equal (hold->io[0]->op, STORE_FLUSH);
  let_go (0);
  assert_done (1, 0);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, K4);
}

/* What a failed store cannot keep is not answered as done. */
static void
store_fails_meanwhile (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  hold->store.failed = true;
  let_go (0);
  assert_done (0, EIO);
  submit (1, ZDISK_RESET, 0, ZONE, 0);
  let_go (0);
  assert_done (1, EIO);
}

static void
failed_last_write (void **state)
{
  (void) state;
  write_at (0, 0, CAPACITY);
  let_go_part (0, EIO, 0);
  assert_done (0, EIO);
  assert_wp (0, ZNBD_COND_EMPTY, 0);
  write_at (0, 0, CAPACITY);
  let_go (0);
  assert_done (0, 0);
  assert_wp (0, ZNBD_COND_FULL, ZONE);
}

static void
reset_waits (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  submit (1, ZDISK_RESET, 0, ZONE, 0);
  write_at (2, 0, K4);                  /* after the reset */
  submit (3, ZDISK_FINISH, 0, ZONE, 0);
  assert_int_equal (hold->n, 1);
  let_go (0);
  assert_done (0, 0);
  assert_false (done[1]);
  assert_int_equal (hold->n, 1);
  assert_int_equal (hold->io[0]->op, STORE_RESET);
  let_go (0);
  assert_done (1, 0);
  assert_int_equal (reqs[1].result, ZONE);
  assert_int_equal (hold->n, 1);
  assert_int_equal (hold->io[0]->op, STORE_WRITE);
  let_go (0);
  assert_done (2, 0);
  assert_int_equal (hold->io[0]->op, STORE_FINISH);
  assert_int_equal (hold->io[0]->offset, K4);
  assert_int_equal (hold->io[0]->length, CAPACITY - K4);
  let_go (0);
  assert_done (3, 0);
  assert_wp (0, ZNBD_COND_FULL, ZONE);
}

static void
reset_that_fails (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  let_go (0);
  submit (1, ZDISK_RESET, 0, ZONE, 0);
  let_go_part (0, EIO, 0);
  assert_done (1, EIO);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, K4);
}

/* Nobody waits for a client's answers any more: a request over several zones
 * ends with the one that it is at. */
static void
client_abandoned (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  write_at (1, ZONE, K4);
  while (hold->n)
    let_go (0);
  submit (2, ZDISK_RESET, 0, 2 * ZONE, 0);
  assert_int_equal (hold->n, 1);
  zdisk_client_abandon (client);
  while (hold->n)
    let_go (0);
  assert_done (2, ESHUTDOWN);
  assert_wp (0, ZNBD_COND_EMPTY, 0);
  assert_wp (1, ZNBD_COND_IMPLICIT_OPEN, K4);
}

static void
data_ahead (void **state)
{
  (void) state;
  write_at (0, ZONE, 2 * K4);
  let_go (0);
  assert_int_equal (zdisk_data_ahead (disk, 0), 0);
  assert_int_equal (zdisk_data_ahead (disk, ZONE), 2 * K4);
  assert_int_equal (zdisk_data_ahead (disk, ZONE + K4), K4);
  assert_int_equal (zdisk_data_ahead (disk, ZONE + 2 * K4), 0);
  assert_int_equal (zdisk_data_ahead (disk, ZONE + 3 * K4), 0);
}

static void
across_zones (void **state)
{
  (void) state;
  /* Capacity is below size: the first zone's part is refused. */
  write_at (0, 0, ZONE + K4);
  assert_done (0, ENOSPC);
  assert_wp (0, ZNBD_COND_EMPTY, 0);

  submit (1, ZDISK_RESET, 0, 2 * ZONE, 0);
  assert_done (1, 0);
  assert_int_equal (reqs[1].result, 2 * ZONE);
  submit (2, ZDISK_READ, ZONE - K4, 2 * K4, 0);
  assert_done (2, 0);
  assert_int_equal (buf[ZONE - K4], 0);
  assert_int_equal (buf[ZONE], 0);
}

static void
resources_of_a_pipeline (void **state)
{
  stop (state);
  start (ZNBD_MODEL_HOST_MANAGED, 1, NULL);
  write_at (0, 0, CAPACITY);            /* in flight */
  write_at (1, ZONE, K4);               /* the next zone already */
  assert_int_equal (hold->n, 2);
  write_at (2, 2 * ZONE, K4);
  assert_done (2, EOVERFLOW);
  let_go (1);
  assert_done (1, 0);
  let_go (0);
  assert_done (0, 0);
  assert_wp (0, ZNBD_COND_FULL, ZONE);
}

static void
appends (void **state)
{
  (void) state;
  submit (0, ZDISK_APPEND, 5 * K4, K4, 0);
  submit (1, ZDISK_APPEND, 0, 2 * K4, 0);
  submit (2, ZDISK_APPEND, 5 * K4, K4, 0);
  while (hold->n)
    let_go (hold->n - 1);
  assert_done (0, 0);
  assert_done (1, 0);
  assert_done (2, 0);
  assert_int_equal (reqs[0].result, 0);
  assert_int_equal (reqs[1].result, K4);
  assert_int_equal (reqs[2].result, 3 * K4);
  submit (3, ZDISK_APPEND, 0, 9 * K4, 0);
  assert_done (3, EINVAL);              /* larger than what is left */
  submit (4, ZDISK_APPEND, 15 * K4, 2 * K4, 0);
  assert_done (4, EINVAL);              /* across the zone's end */
}

static void
fua_flushes (void **state)
{
  (void) state;
  submit (0, ZDISK_WRITE, 0, K4, ZDISK_FUA);
  let_go (0);
  assert_false (done[0]);
  assert_int_equal (hold->io[0]->op, STORE_FLUSH);
  let_go (0);
  assert_done (0, 0);
  submit (1, ZDISK_FLUSH, 0, 0, 0);
  let_go_part (0, EIO, 0);
  assert_done (1, EIO);
}

static void
read_to_the_pointer (void **state)
{
  (void) state;
  write_at (0, 0, 2 * K4);
  let_go (0);
  memset (hold->bytes + 2 * K4, 0xee, K4);      /* left by something */
  memset (buf, 0x77, 4 * K4);
  submit (1, ZDISK_READ, 0, 4 * K4, 0);
  assert_int_equal (hold->n, 1);
  assert_int_equal (hold->io[0]->length, 2 * K4);
  let_go (0);
  assert_done (1, 0);
  assert_int_equal (buf[0], 1);
  assert_int_equal (buf[2 * K4 - 1], 2);
  assert_int_equal (buf[2 * K4], 0);
  assert_int_equal (buf[4 * K4 - 1], 0);
}

static void
overwrite_waits (void **state)
{
  (void) state;
  write_at (0, 0, 2 * K4);
  write_at (1, 0, K4);                  /* over what is in flight */
  write_at (2, 2 * K4, K4);             /* came later, waits too */
  assert_int_equal (hold->n, 1);
  let_go (0);
  assert_done (0, 0);
  while (hold->n)
    let_go (0);
  assert_done (1, 0);
  assert_done (2, 0);
  assert_int_equal (zone (0).non_seq, 1);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 3 * K4);
}

static void
jump_zeroes (void **state)
{
  (void) state;
  memset (hold->bytes, 0xee, sizeof hold->bytes);
  write_at (0, 0, K4);
  write_at (1, 4 * K4, K4);
  let_go (0);
  assert_int_equal (hold->io[0]->op, STORE_ZERO);
  assert_int_equal (hold->io[0]->offset, K4);
  assert_int_equal (hold->io[0]->length, 3 * K4);
  let_go (0);
  let_go (0);
  assert_done (1, 0);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 5 * K4);
  assert_int_equal (hold->bytes[K4], 0);
  assert_int_equal (hold->bytes[4 * K4 - 1], 0);
  assert_int_equal (hold->bytes[4 * K4], 5);
  submit (2, ZDISK_RESET, 0, ZONE, 0);
  let_go (0);
  assert_int_equal (zone (0).non_seq, 0);
}

static void
refusals (void **state)
{
  struct zdisk_client *reader = zdisk_client_new (disk, true);
  struct zdisk_client *writer = client;

  (void) state;
  write_at (0, 0, K4 + 512);
  assert_done (0, EINVAL);
  write_at (0, ZONES * ZONE, K4);
  assert_done (0, ENOSPC);
  write_at (0, UINT64_MAX - K4 + 1, K4);
  assert_done (0, ENOSPC);
  submit (0, ZDISK_READ, UINT64_MAX - K4 + 1, 2 * K4, 0);
  assert_done (0, EINVAL);
  submit (0, ZDISK_RESET, K4, ZONE, 0);
  assert_done (0, EINVAL);
  submit (0, ZDISK_RESET, 0, K4, 0);
  assert_done (0, EINVAL);
  submit (0, ZDISK_RESET, 0, 0, 0);
  assert_done (0, EINVAL);
  submit (0, ZDISK_RESET, UINT64_MAX / ZONE * ZONE, ZONE, 0);
  assert_done (0, EINVAL);
  client = reader;
  write_at (0, 0, K4);
  assert_done (0, EPERM);
  submit (0, ZDISK_RESET, 0, 0, ZDISK_ALL);
  assert_done (0, EPERM);
  submit (0, ZDISK_TRIM, 0, ZONE, 0);
  assert_done (0, EPERM);
  client = writer;
  zdisk_client_close (reader);
  assert_wp (0, ZNBD_COND_EMPTY, 0);
}

int
main (void)
{
#define TEST(f, setup) cmocka_unit_test_setup_teardown (f, setup, stop)
  const struct CMUnitTest tests[] = {
    TEST (answered_in_order, managed),
    TEST (held_is_merged, managed),
    TEST (failed_write, managed),
    TEST (failed_merge, managed),
    TEST (queued_behind_a_failure, managed),
    TEST (eviction_and_failure, managed),
    TEST (flush_with_a_length, managed),
    TEST (store_fails_meanwhile, managed),
    TEST (failed_last_write, managed),
    TEST (reset_waits, managed),
    TEST (reset_that_fails, managed),
    TEST (client_abandoned, managed),
    TEST (data_ahead, managed),
    TEST (across_zones, managed),
    TEST (resources_of_a_pipeline, managed),
    TEST (appends, managed),
    TEST (fua_flushes, managed),
    TEST (read_to_the_pointer, managed),
    TEST (overwrite_waits, aware),
    TEST (jump_zeroes, aware),
    TEST (refusals, managed),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
