/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk over a store that keeps its own zones (mirror-device.h): that
 * evictions, limits, management and the ALL forms are the device's, and one
 * write at a time.
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

#include "mirror-device.h"

static void
test_loaded_as_it_is (void **state)
{
  (void) state;
  assert_same ();
  refresh (0);
}

static void
test_evictions_are_the_devices (void **state)
{
  (void) state;
  manage (0, ZDISK_CLOSE, 5);
  let_all_go ();
  assert_done (0, 0);
  write_at (0, 0, K4);
  write_at (1, ZONE, K4);
  let_all_go ();
  /* Zone 0 was written last, and yet it is the device's next victim. */
  write_at (2, K4, K4);
  manage (3, ZDISK_OPEN, 5);
  let_all_go ();
  assert_done (2, 0);
  assert_done (3, 0);
  assert_int_equal (dev->zone[0].cond, ZNBD_COND_CLOSED);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 2 * K4);
  refresh (4);
  assert_int_equal (nlogged, 0);
}

static void
test_limits_are_the_devices (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  write_at (1, ZONE, K4);
  let_all_go ();
  /* zones 0, 1 and 5 are active */
  write_at (2, 2 * ZONE, K4);
  write_at (3, 2 * ZONE + K4, K4);
  let_go (STORE_WRITE);
  let_go (STORE_WRITE);
  assert_false (done[2]);
  let_go (STORE_REPORT);
  assert_done (2, EOVERFLOW);
  assert_non_null (strstr (reqs[2].reason, "active (3)"));
  assert_done (3, EIO);
  assert_wp (2, ZNBD_COND_EMPTY, 0);
  manage (2, ZDISK_OPEN, 2);
  let_all_go ();
  assert_done (2, EOVERFLOW);
  /* all explicitly open, at the open limit */
  manage (3, ZDISK_OPEN, 1);
  let_all_go ();
  assert_done (3, 0);
  manage (4, ZDISK_OPEN, 0);
  let_all_go ();
  assert_done (4, EOVERFLOW);
  assert_non_null (strstr (reqs[4].reason, "open zones"));
  refresh (5);
}

static void
test_read_only_and_offline (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  write_at (1, ZONE, K4);
  let_all_go ();
  dev->zone[0].cond = ZNBD_COND_READ_ONLY;
  dev->zone[1].cond = ZNBD_COND_OFFLINE;
  dev->zone[1].wp = 2 * ZONE;
  dev->zone[3].cond = ZNBD_COND_READ_ONLY;
  write_at (0, K4, K4);
  submit (1, ZDISK_READ, ZONE, K4, 0);
  write_at (2, 3 * ZONE, K4);
  write_at (3, 4 * ZONE, K4);
  let_all_go ();
  assert_done (0, EPERM);
  assert_done (1, EIO);
  assert_non_null (strstr (reqs[1].reason, "zone 1 is offline"));
  assert_done (2, EPERM);
  assert_done (3, 0);
  assert_same ();
  submit (4, ZDISK_READ, 0, K4, 0);
  let_all_go ();
  assert_done (4, 0);
  /* And back again. */
  dev->zone[1].cond = ZNBD_COND_EMPTY;
  dev->zone[1].wp = ZONE;
  refresh (5);
  write_at (6, ZONE, K4);
  let_all_go ();
  assert_done (6, 0);
}

static void
test_management (void **state)
{
  (void) state;
  manage (0, ZDISK_CLOSE, 0);           /* empty */
  let_all_go ();
  assert_done (0, EINVAL);
  manage (1, ZDISK_RESET, 3);
  assert_done (1, EINVAL);
  assert_int_equal (dev->n, 0);
  manage (2, ZDISK_FINISH, 0);
  write_at (3, 0, K4);
  let_go (STORE_ZONE_OP);
  assert_done (2, 0);
  assert_done (3, ENOSPC);
  manage (2, ZDISK_RESET, 0);
  let_go_with (0, EIO);
  let_go (STORE_REPORT);
  assert_done (2, EIO);
  assert_wp (0, ZNBD_COND_FULL, ZONE);
  /* Somebody else closed it: the disk does not refuse what it should not. */
  manage (4, ZDISK_RESET, 0);
  let_go (STORE_ZONE_OP);
  dev->zone[0].cond = ZNBD_COND_CLOSED;
  dev->zone[0].wp = K4;
  manage (5, ZDISK_OPEN, 0);
  manage (6, ZDISK_CLOSE, 0);
  let_all_go ();
  assert_done (5, 0);
  assert_done (6, 0);
  refresh (7);
}

static void
test_trim_skips (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  write_at (1, ZONE, K4);
  let_all_go ();
  dev->zone[0].cond = ZNBD_COND_READ_ONLY;
  submit (2, ZDISK_TRIM, 0, 2 * ZONE, 0);
  let_all_go ();
  assert_done (2, 0);
  assert_same ();
  assert_wp (1, ZNBD_COND_EMPTY, 0);
}

static void
test_all_forms (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  submit (1, ZDISK_RESET, 0, 0, ZDISK_ALL);
  write_at (2, ZONE, K4);               /* not held yet: after zone 0 */
  write_at (3, 0, 2 * K4);              /* behind the form */
  assert_int_equal (dev->n, 2);
  let_go (STORE_WRITE);
  assert_done (0, 0);
  assert_int_equal (dev->n, 1);
  let_go (STORE_WRITE);
  assert_done (2, 0);
  write_at (4, 4 * ZONE, K4);           /* held */
  submit (5, ZDISK_FINISH, 0, 0, ZDISK_ALL);
  assert_int_equal (dev->n, 1);
  let_go (STORE_ZONE_OP);
  assert_false (done[3]);
  let_go (STORE_REPORT);
  assert_done (1, 0);
  assert_int_equal (reqs[1].result, ZONES * ZONE);
  assert_wp (1, ZNBD_COND_EMPTY, 0);
  let_all_go ();
  assert_done (3, 0);
  assert_done (4, 0);
  assert_done (5, 0);
  assert_same ();
  assert_wp (0, ZNBD_COND_FULL, ZONE);
  assert_wp (1, ZNBD_COND_EMPTY, 0);
}

static void
test_all_forms_fail (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  let_all_go ();
  submit (1, ZDISK_CLOSE, 0, 0, ZDISK_ALL);
  let_go_with (0, EIO);
  assert_false (done[1]);
  let_go (STORE_REPORT);
  assert_done (1, EIO);
  assert_same ();
  /* Done, but not reported: predicted. */
  submit (2, ZDISK_CLOSE, 0, 0, ZDISK_ALL);
  let_go (STORE_ZONE_OP);
  let_go_with (0, EIO);
  assert_done (2, 0);
  assert_same ();
  /* The limit is the device's: zone 0 is opened, 5 not. */
  manage (3, ZDISK_OPEN, 1);
  let_all_go ();
  submit (4, ZDISK_OPEN, 0, 0, ZDISK_ALL);
  let_all_go ();
  assert_done (4, EOVERFLOW);
  assert_same ();
  write_at (5, K4, K4);
  let_all_go ();
  assert_done (5, 0);
}

static void
test_one_write_at_a_time (void **state)
{
  unsigned i;

  (void) state;
  dev->max_open = dev->max_active = 0;
  dev->store.one_write_per_zone = true;
  dev->store.max_write = 3 * K4;
  for (i = 0; i < 6; i++)
    write_at (i, i * K4, K4);
  write_at (6, ZONE, K4);
  assert_int_equal (dev->n, 2);         /* one of each zone */
  assert_int_equal (dev->io[0]->length, K4);
  let_go (STORE_WRITE);
  assert_done (0, 0);
  assert_int_equal (dev->n, 2);
  let_go (STORE_WRITE);                 /* the other zone's */
  assert_done (6, 0);
  assert_int_equal (dev->io[0]->length, 3 * K4);
  manage (7, ZDISK_CLOSE, 0);
  write_at (8, 6 * K4, K4);
  let_go (STORE_WRITE);
  assert_int_equal (dev->n, 1);
  assert_int_equal (dev->io[0]->length, 2 * K4);
  let_go (STORE_WRITE);
  assert_done (5, 0);
  let_go (STORE_ZONE_OP);
  let_go (STORE_WRITE);
  assert_done (8, 0);
  assert_same ();
  /* What was ready when one failed is judged again. */
  write_at (9, 7 * K4, K4);
  write_at (10, 8 * K4, K4);
  submit (11, ZDISK_APPEND, 0, K4, 0);
  let_go_with (0, EIO);
  let_go (STORE_REPORT);
  assert_done (9, EIO);
  assert_false (done[10]);              /* behind the append now */
  let_go (STORE_WRITE);
  assert_done (11, 0);
  assert_int_equal (reqs[11].result, 7 * K4);
  assert_done (10, 0);
  assert_same ();
  assert_int_equal (dev->n, 0);
}

int
main (void)
{
#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (test_loaded_as_it_is),
    T (test_evictions_are_the_devices),
    T (test_limits_are_the_devices),
    T (test_read_only_and_offline),
    T (test_management),
    T (test_trim_skips),
    T (test_all_forms),
    T (test_all_forms_fail),
    T (test_one_write_at_a_time),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
