/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk over a store that keeps its own zones (mirror-device.h): what the
 * disk believes is compared with what the device is after failures at every
 * step, changes that nobody told it of, and reports that come late.
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
test_failed_write (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  write_at (1, K4, K4);
  write_at (2, 2 * K4, K4);
  write_at (3, 6 * K4, K4);             /* parked */
  let_go (STORE_WRITE);
  let_go_with (0, EIO);
  write_at (4, 3 * K4, K4);             /* waits for what comes out */
  let_go (STORE_WRITE);                 /* at the wrong place: fails */
  assert_false (done[1]);
  assert_false (done[2]);
  /* The report is under way: another zone goes on. */
  write_at (5, ZONE, K4);
  assert_int_equal (dev->n, 2);
  let_go_with (1, 0);
  assert_done (5, 0);
  let_go (STORE_REPORT);
  assert_done (1, EIO);
  assert_done (2, EIO);
  assert_false (done[3]);
  assert_false (done[4]);
  assert_int_equal (nlogged, 1);
  assert_non_null (strstr (logged, "zone 0: write failed"));
  assert_same ();
  assert_wp (0, ZNBD_COND_CLOSED, K4);  /* for zone 1's sake */
  /* What waited is judged again: it goes when the gap is filled. */
  write_at (6, K4, 2 * K4);
  let_all_go ();
  assert_done (6, 0);
  assert_done (4, 0);
  write_at (7, 4 * K4, 2 * K4);
  let_all_go ();
  assert_done (7, 0);
  assert_done (3, 0);
  refresh (8);
  assert_memory_equal (dev->bytes, buf, 7 * K4);
}

/* The device did it, but said that it failed. */
static void
test_done_but_failed (void **state)
{
  struct store_io *io;

  (void) state;
  write_at (0, 0, 2 * K4);
  write_at (1, 2 * K4, K4);
  io = dev->io[0];
  take_out (0);
  assert_int_equal (carry_out (io), 0);
  io->done (io, EIO, 0);
  let_go (STORE_WRITE);
  let_go (STORE_REPORT);
  assert_done (0, EIO);
  /* This one lies below the pointer. */
  assert_done (1, 0);
  assert_same ();
}

static void
test_failed_report (void **state)
{
  unsigned i;

  (void) state;
  write_at (0, 0, K4);
  write_at (1, K4, K4);
  let_go (STORE_WRITE);
  let_go_with (0, EIO);
  let_go_with (0, ENODEV);
  assert_done (0, 0);
  assert_done (1, EIO);
  assert_non_null (strstr (logged, "so did its report"));
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, K4);
  write_at (2, K4, K4);
  let_all_go ();
  assert_done (2, 0);
  assert_same ();
  submit (3, ZDISK_REFRESH, 0, ZONE, 0);
  let_go_with (0, ENODEV);
  assert_done (3, EIO);                 /* that there is a number for */
  /* Said once, until there is a report again. */
  assert_int_equal (nlogged, 1);
  for (i = 4; i < 6; i++) {
    write_at (i, 2 * K4, K4);
    let_go_with (0, ENODEV);
    let_go_with (0, ENODEV);
    assert_done (i, EIO);
    assert_int_equal (nlogged, 1);
  }
  submit (6, ZDISK_REFRESH, 0, ZONE, 0);
  let_go (STORE_REPORT);
  assert_done (6, 0);
  write_at (7, 2 * K4, K4);
  let_go_with (0, EIO);
  let_go_with (0, EIO);
  assert_int_equal (nlogged, 2);
}

static void
test_reset_behind_the_back (void **state)
{
  (void) state;
  write_at (0, 0, 4 * K4);
  let_all_go ();
  device_zone_op (&dev->zone[0], ZNBD_ZONE_RESET, false);
  write_at (1, 4 * K4, K4);
  let_all_go ();
  assert_done (1, EINVAL);
  assert_non_null (strstr (reqs[1].reason, "somebody else"));
  assert_same ();
  write_at (2, 0, K4);
  let_all_go ();
  assert_done (2, 0);
  /* An append goes where the pointer is. */
  device_zone_op (&dev->zone[0], ZNBD_ZONE_RESET, false);
  submit (3, ZDISK_APPEND, 0, K4, 0);
  submit (4, ZDISK_APPEND, 0, K4, 0);
  let_all_go ();
  assert_done (3, 0);
  assert_done (4, 0);
  assert_int_equal (reqs[3].result, 0);
  assert_int_equal (reqs[4].result, K4);
  assert_same ();
}

static void
test_append_is_retried_once (void **state)
{
  (void) state;
  dev->elsewhere = EINVAL;
  submit (0, ZDISK_APPEND, 0, K4, 0);
  dev->zone[0].wp = 2 * K4;
  dev->zone[0].cond = ZNBD_COND_CLOSED;
  let_go (STORE_WRITE);
  let_go (STORE_REPORT);
  assert_false (done[0]);
  dev->zone[0].wp = 4 * K4;
  let_go (STORE_WRITE);
  let_go (STORE_REPORT);
  assert_done (0, EINVAL);
  assert_int_equal (dev->n, 0);
  /* A medium that fails is no reason to try again. */
  submit (1, ZDISK_APPEND, 0, K4, 0);
  let_go_with (0, EIO);
  let_go (STORE_REPORT);
  assert_done (1, EIO);
  assert_same ();
}

/* The pointer is elsewhere because the append itself moved it. */
static void
test_append_is_not_written_twice (void **state)
{
  struct store_io *io;

  (void) state;
  dev->store.one_write_per_zone = true;
  submit (0, ZDISK_APPEND, 0, K4, 0);
  submit (1, ZDISK_APPEND, 0, K4, 0);
  submit (2, ZDISK_APPEND, 0, K4, 0);
  let_go (STORE_WRITE);
  assert_done (0, 0);
  /* Of two that go together the first is written. */
  io = dev->io[0];
  assert_int_equal (io->length, 2 * K4);
  take_out (0);
  dev->zone[0].wp += K4;
  io->done (io, EIO, 0);
  let_go (STORE_REPORT);
  assert_int_equal (dev->n, 0);
  assert_done (1, EIO);
  assert_done (2, EIO);
  assert_wp (0, ZNBD_COND_IMPLICIT_OPEN, 2 * K4);
  /* And all of one whose answer says otherwise. */
  submit (3, ZDISK_APPEND, 0, K4, 0);
  io = dev->io[0];
  take_out (0);
  assert_int_equal (carry_out (io), 0);
  io->done (io, EIO, 0);
  let_go (STORE_REPORT);
  assert_int_equal (dev->n, 0);
  assert_done (3, EIO);
  assert_same ();
}

/* A flush that fails because writes may be lost is what tells a client of
 * it: a write with FUA does not take it away. */
static void
test_loss_is_told_by_flush (void **state)
{
  (void) state;
  write_at (0, 0, K4);
  let_go (STORE_WRITE);
  atomic_fetch_add (&dev->store.lost, 1);
  submit (1, ZDISK_WRITE, ZONE, K4, ZDISK_FUA);
  let_go (STORE_WRITE);
  let_go (STORE_FLUSH);
  assert_done (1, 0);
  submit (2, ZDISK_FLUSH, 0, 0, 0);
  assert_done (2, EIO);
  submit (2, ZDISK_FLUSH, 0, 0, 0);
  let_go (STORE_FLUSH);
  assert_done (2, 0);
  /* Its own data may be what is lost. */
  submit (3, ZDISK_WRITE, ZONE + K4, K4, ZDISK_FUA);
  let_go (STORE_WRITE);
  submit (4, ZDISK_WRITE, K4, K4, ZDISK_FUA);
  atomic_fetch_add (&dev->store.lost, 1);
  let_go (STORE_FLUSH);
  assert_done (3, 0);                   /* the store's to fail */
  let_go (STORE_WRITE);
  assert_done (4, EIO);
  assert_int_equal (dev->n, 0);
  submit (2, ZDISK_FLUSH, 0, 0, 0);
  assert_done (2, EIO);
}

/* What is done although the zone does not take it, as far as is known. */
static void
test_management_surprises (void **state)
{
  (void) state;
  write_at (0, 0, ZONE);
  let_all_go ();
  device_zone_op (&dev->zone[0], ZNBD_ZONE_RESET, false);
  manage (1, ZDISK_OPEN, 0);            /* full, as it was */
  let_go (STORE_ZONE_OP);
  assert_false (done[1]);
  let_go (STORE_REPORT);
  assert_done (1, 0);
  assert_same ();
  nlogged = 0;
  manage (2, ZDISK_CLOSE, 1);           /* empty, and some devices do */
  let_go_with (0, 0);
  let_go (STORE_REPORT);
  assert_done (2, EINVAL);
  assert_same ();
  manage (3, ZDISK_CLOSE, 1);           /* and some do not */
  let_all_go ();
  assert_done (3, EINVAL);
  assert_int_equal (nlogged, 0);        /* nothing for a log */
}

static void
test_late_reports (void **state)
{
  (void) state;
  /* Asked for, and made, before a write: no news. */
  submit (0, ZDISK_REFRESH, 0, ZONES * ZONE, 0);
  assert_int_equal (carry_out (dev->io[0]), 0);
  write_at (1, 0, K4);
  let_go_with (1, 0);
  assert_done (1, 0);
  dev->io[0]->done (dev->io[0], 0, 0);
  take_out (0);
  assert_done (0, 0);
  assert_same ();
  /* Of two, the one that was asked for later holds. */
  submit (2, ZDISK_REFRESH, 0, ZONE, 0);
  assert_int_equal (carry_out (dev->io[0]), 0);
  device_zone_op (&dev->zone[0], ZNBD_ZONE_FINISH, false);
  submit (3, ZDISK_REFRESH, 0, ZONE, 0);
  let_go_with (1, 0);
  assert_wp (0, ZNBD_COND_FULL, ZONE);
  dev->io[0]->done (dev->io[0], 0, 0);
  take_out (0);
  assert_wp (0, ZNBD_COND_FULL, ZONE);
  /* What is in flight keeps its place. */
  write_at (4, ZONE, K4);
  submit (5, ZDISK_REFRESH, 0, ZONES * ZONE, 0);
  let_go_with (1, 0);
  write_at (6, ZONE + K4, K4);
  let_all_go ();
  assert_done (4, 0);
  assert_done (6, 0);
  assert_same ();
}

/* A write that is ahead of the pointer goes when a report moves that. */
static void
test_report_frees_what_is_parked (void **state)
{
  (void) state;
  write_at (0, 2 * K4, K4);
  assert_int_equal (dev->n, 0);
  dev->zone[0].wp = 2 * K4;
  dev->zone[0].cond = ZNBD_COND_CLOSED;
  submit (1, ZDISK_REFRESH, 0, ZONE, 0);
  let_all_go ();
  assert_done (0, 0);
  assert_done (1, 0);
  refresh (2);
}

int
main (void)
{
#define T(f) cmocka_unit_test_setup_teardown (f, setup, teardown)
  const struct CMUnitTest tests[] = {
    T (test_failed_write),
    T (test_done_but_failed),
    T (test_failed_report),
    T (test_reset_behind_the_back),
    T (test_append_is_retried_once),
    T (test_append_is_not_written_twice),
    T (test_loss_is_told_by_flush),
    T (test_management_surprises),
    T (test_late_reports),
    T (test_report_frees_what_is_parked),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
