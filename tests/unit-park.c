/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes ahead of the pointer, over a store that holds every I/O until the
 * test lets it go (held-disk.h): what frees them, what does not, and how many
 * there may be.
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
#include <unistd.h>

#include <cmocka.h>

#include "held-disk.h"

static void
parked_is_merged (void **state)
{
  (void) state;
  write_at (2, 2 * K4, K4);
  write_at (1, K4, K4);
  assert_int_equal (hold->n, 0);
  assert_wp (0, ZNBD_COND_EMPTY, 0);    /* takes no resource */
  write_at (0, 0, K4);
  assert_int_equal (hold->n, 1);
  assert_int_equal (hold->io[0]->length, 3 * K4);
  assert_int_equal (hold->io[0]->niov, 3);
  let_go (0);
  assert_done (0, 0);
  assert_done (1, 0);
  assert_done (2, 0);
  assert_memory_equal (hold->bytes, buf, 3 * K4);
}

/* More than one vectored write takes, in the worst order. */
static void
parked_backwards (void **state)
{
  int i;

  (void) state;
  for (i = 11; i >= 0; i--)
    write_at (i, i * K4, K4);
  while (hold->n)
    let_go (0);
  for (i = 0; i < 12; i++)
    assert_done (i, 0);
  assert_wp (0, ZNBD_COND_FULL, ZONE);
  assert_memory_equal (hold->bytes, buf, CAPACITY);
}

static void
reset_while_parked (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  let_go (0);
  write_at (1, 2 * K4, K4);             /* parked */
  submit (2, ZDISK_RESET, 0, ZONE, 0);
  let_go (0);
  assert_done (2, 0);
  assert_false (done[1]);               /* still ahead */
  write_at (3, 0, 2 * K4);
  assert_int_equal (hold->io[0]->length, 3 * K4);
  let_go (0);
  assert_done (1, 0);
  assert_done (3, 0);
}

static void
finish_while_parked (void **state)
{
  (void) state;
  write_at (1, 2 * K4, K4);
  submit (2, ZDISK_FINISH, 0, ZONE, 0);
  let_go (0);
  assert_done (2, 0);
  assert_done (1, ENOSPC);
}

static void
overlaps (void **state)
{
  (void) state;
  write_at (0, 4 * K4, 2 * K4);         /* parked */
  write_at (1, 3 * K4, 2 * K4);
  assert_done (1, EINVAL);
  write_at (2, 5 * K4, K4);
  assert_done (2, EINVAL);
  write_at (3, 4 * K4, 2 * K4);
  assert_done (3, EINVAL);
  write_at (4, 6 * K4, K4);             /* next to it: parked */
  assert_false (done[4]);
  write_at (5, 0, K4);                  /* in flight */
  write_at (6, 0, K4);
  assert_done (6, EINVAL);
  write_at (7, K4, 4 * K4);             /* at the pointer is no excuse */
  assert_done (7, EINVAL);
  write_at (8, K4, 3 * K4);
  while (hold->n)
    let_go (0);
  assert_done (0, 0);
  assert_done (4, 0);
  assert_done (8, 0);
}

static void
timeout (void **state)
{
  struct zdisk_options o = ZDISK_OPTIONS_DEFAULT;

  o.reorder_timeout = 40;
  stop (state);
  start (ZNBD_MODEL_HOST_MANAGED, 0, &o);
  assert_int_equal (zdisk_next_expiry (disk), -1);
  write_at (0, K4, K4);
  assert_in_range (zdisk_next_expiry (disk), 1, 41);
  zdisk_expire (disk, NULL);
  assert_false (done[0]);
  usleep (60000);
  /* While something is being written it is not the client's fault. */
  write_at (1, 0, K4);
  while (hold->n)
    let_go (0);
  assert_done (0, 0);

  write_at (2, 3 * K4, K4);
  usleep (60000);
  zdisk_expire (disk, NULL);
  assert_done (2, EINVAL);
  assert_int_equal (zdisk_next_expiry (disk), -1);
}

static void
gap_zero (void **state)
{
  struct zdisk_options o = ZDISK_OPTIONS_DEFAULT;

  o.reorder_timeout = 20;
  o.gap_zero = true;
  stop (state);
  start (ZNBD_MODEL_HOST_MANAGED, 0, &o);
  memset (hold->bytes, 0xee, sizeof hold->bytes);
  write_at (0, 2 * K4, K4);
  usleep (40000);
  zdisk_expire (disk, NULL);
  assert_int_equal (hold->io[0]->op, STORE_ZERO);
  assert_int_equal (hold->io[0]->length, 2 * K4);
  let_go (0);
  assert_int_equal (hold->io[0]->op, STORE_WRITE);
  let_go (0);
  assert_done (0, 0);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 3 * K4);
  assert_int_equal (hold->bytes[0], 0);
  assert_int_equal (hold->bytes[2 * K4], 3);
}

static void
budget (void **state)
{
  struct zdisk_options o = ZDISK_OPTIONS_DEFAULT;

  o.park_client_max = 2 * K4;
  stop (state);
  start (ZNBD_MODEL_HOST_MANAGED, 0, &o);
  write_at (0, 2 * K4, K4);
  write_at (1, 3 * K4, K4);
  write_at (2, K4, K4);                 /* nearer: the farthest goes */
  assert_done (1, EINVAL);
  assert_false (done[0]);
  write_at (3, 5 * K4, K4);             /* farther than all: goes itself */
  assert_done (3, EINVAL);
  write_at (4, 0, K4);                  /* fills the gap */
  while (hold->n)
    let_go (0);
  assert_done (0, 0);
  assert_done (2, 0);
  assert_done (4, 0);
}

static void
too_large_to_park (void **state)
{
  struct zdisk_options o = ZDISK_OPTIONS_DEFAULT;

  o.park_client_max = 2 * K4;
  stop (state);
  start (ZNBD_MODEL_HOST_MANAGED, 0, &o);
  write_at (0, 6 * K4, K4);
  write_at (1, K4, 3 * K4);
  assert_done (1, EINVAL);
  assert_false (done[0]);               /* gave nothing up for it */
  write_at (2, 0, 6 * K4);
  while (hold->n)
    let_go (0);
  assert_done (0, 0);
}

/* A connection that ends with a write under way. */
static void
client_gone_in_flight (void **state)
{
  struct zdisk_client *other = zdisk_client_new (disk, false);

  (void) state;
  write_at (0, 0, K4);
  submit (1, ZDISK_RESET, 0, ZONE, 0);
  write_at (2, K4, K4);                 /* queued, then it would park */
  zdisk_client_close (client);
  client = other;
  while (hold->n)
    let_go (0);
  assert_done (0, 0);
  assert_done (1, 0);
  assert_done (2, ESHUTDOWN);
}

static void
client_gone (void **state)
{
  struct zdisk_client *other = zdisk_client_new (disk, false);

  (void) state;
  write_at (0, K4, K4);
  zdisk_client_close (client);
  assert_done (0, ESHUTDOWN);
  client = other;
  write_at (1, 0, K4);
  assert_int_equal (hold->io[0]->length, K4);
  let_go (0);
  assert_done (1, 0);
}

/* What is smaller than 4096 counts as that much. */
static void
budget_of_small_writes (void **state)
{
  struct zdisk_options o = ZDISK_OPTIONS_DEFAULT;

  o.park_client_max = 2 * K4;
  stop (state);
  granularity = 512;
  start (ZNBD_MODEL_HOST_MANAGED, 0, &o);
  granularity = K4;
  write_at (0, K4, 512);
  assert_false (done[0]);
  write_at (1, 2 * K4, 512);
  assert_false (done[1]);
  write_at (2, 3 * K4, 512);
  assert_done (2, EINVAL);
}

int
main (void)
{
#define TEST(f, setup) cmocka_unit_test_setup_teardown (f, setup, stop)
  const struct CMUnitTest tests[] = {
    TEST (parked_is_merged, managed),
    TEST (parked_backwards, managed),
    TEST (reset_while_parked, managed),
    TEST (finish_while_parked, managed),
    TEST (overlaps, managed),
    TEST (timeout, managed),
    TEST (gap_zero, managed),
    TEST (budget, managed),
    TEST (too_large_to_park, managed),
    TEST (client_gone, managed),
    TEST (client_gone_in_flight, managed),
    TEST (budget_of_small_writes, managed),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
