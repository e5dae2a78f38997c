/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk over a store that keeps its own zones: a device made here, with
 * the limits and the choice of whom to close that null_blk has, which does
 * each I/O when the test lets it go.  What the disk believes is compared
 * with what the device is after failures at every step, changes that nobody
 * told it of, and reports that come late.
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

#include "disk.h"
#include "zones.h"

#define K4 4096u
#define ZONE (16 * K4)
#define ZONES 6

struct device {
  struct store store;
  uint8_t bytes[ZONES * ZONE];
  struct znbd_zone zone[ZONES];
  uint32_t max_open, max_active, next_victim;
  int elsewhere;                /* what a write that is not at the pointer
                                 * fails with */
  struct store_io *io[64];
  unsigned n;
};

static struct device *dev;
static struct zdisk *disk;
static struct zdisk_client *client;
static struct zdisk_request reqs[32];
static bool done[32];
static uint8_t buf[ZONES * ZONE];
static char logged[512];
static unsigned nlogged;

static void
device_submit (struct store *store, struct store_io *io)
{
  (void) store;
  assert_true (dev->n < 64);
  dev->io[dev->n++] = io;
}

static int
device_load (struct store *store, struct zones *zs, struct zone_error *err)
{
  uint32_t i;

  (void) store;
  for (i = 0; i < ZONES; i++)
    if (zones_load_mirrored (zs, i, &dev->zone[i], err) == -1)
      return -1;
  return 0;
}

static int
device_close (struct store *store, bool flush, struct zone_error *err)
{
  (void) store;
  (void) flush;
  (void) err;
  free (dev);
  return 0;
}

static const struct store_ops device_ops = {
  .name = "device", .submit = device_submit, .load = device_load,
  .close = device_close,
};

static bool
is_open (const struct znbd_zone *z)
{
  return z->cond == ZNBD_COND_IMPLICIT_OPEN ||
    z->cond == ZNBD_COND_EXPLICIT_OPEN;
}

static void
set_full (struct znbd_zone *z)
{
  z->cond = ZNBD_COND_FULL;
  z->wp = z->start + z->length;
}

static void
close_zone (struct znbd_zone *z)
{
  z->cond = z->wp > z->start ? ZNBD_COND_CLOSED : ZNBD_COND_EMPTY;
}

/* Takes resources for a zone that is to be open; round-robin eviction. */
static int
make_room (struct znbd_zone *z)
{
  uint32_t open = 0, active = 0, i;

  for (i = 0; i < ZONES; i++) {
    open += is_open (&dev->zone[i]);
    active += is_open (&dev->zone[i]) ||
      dev->zone[i].cond == ZNBD_COND_CLOSED;
  }
  if (is_open (z))
    return 0;
  if (dev->max_active && active >= dev->max_active &&
      z->cond != ZNBD_COND_CLOSED)
    return EOVERFLOW;
  if (dev->max_open == 0 || open < dev->max_open)
    return 0;
  for (i = 0; i < ZONES; i++) {
    struct znbd_zone *victim = &dev->zone[dev->next_victim++ % ZONES];

    if (victim->cond == ZNBD_COND_IMPLICIT_OPEN) {
      close_zone (victim);
      return 0;
    }
  }
  return ETOOMANYREFS;
}

static int
device_write (struct store_io *io)
{
  struct znbd_zone *z = &dev->zone[io->zone];
  uint8_t *p = dev->bytes + io->offset;
  int r;
  unsigned i;

  if (z->cond == ZNBD_COND_OFFLINE || z->cond == ZNBD_COND_READ_ONLY)
    return EIO;
  if (z->type != ZNBD_ZONE_CONVENTIONAL) {
    if (z->cond == ZNBD_COND_FULL || z->wp != io->offset)
      return dev->elsewhere;
    r = make_room (z);
    if (r)
      return r;
    if (z->cond != ZNBD_COND_EXPLICIT_OPEN)
      z->cond = ZNBD_COND_IMPLICIT_OPEN;
    z->wp += io->length;
    if (z->wp == z->start + z->capacity)
      set_full (z);
  }
  for (i = 0; i < io->niov && io->op == STORE_WRITE;
       p += io->iov[i++].iov_len)
    memcpy (p, io->iov[i].iov_base, io->iov[i].iov_len);
  if (io->op == STORE_ZERO)
    memset (p, 0, io->length);
  return 0;
}

static int
device_zone_op (struct znbd_zone *z, enum znbd_zone_op op, bool all)
{
  int r;

  if (z->type == ZNBD_ZONE_CONVENTIONAL || z->cond == ZNBD_COND_OFFLINE ||
      z->cond == ZNBD_COND_READ_ONLY)
    return all ? 0 : EIO;
  if (all && op != ZNBD_ZONE_RESET &&
      !(op == ZNBD_ZONE_OPEN ? z->cond == ZNBD_COND_CLOSED
        : op == ZNBD_ZONE_CLOSE ? is_open (z)
        : is_open (z) || z->cond == ZNBD_COND_CLOSED))
    return 0;
  switch (op) {
  case ZNBD_ZONE_OPEN:
    if (z->cond == ZNBD_COND_FULL)
      return EIO;
    r = make_room (z);
    if (r)
      return r;
    z->cond = ZNBD_COND_EXPLICIT_OPEN;
    return 0;
  case ZNBD_ZONE_CLOSE:
    if (z->cond == ZNBD_COND_FULL || z->cond == ZNBD_COND_EMPTY)
      return EIO;
    close_zone (z);
    return 0;
  case ZNBD_ZONE_FINISH:
    set_full (z);
    return 0;
  case ZNBD_ZONE_RESET:
    z->cond = ZNBD_COND_EMPTY;
    z->wp = z->start;
    return 0;
  }
  return EIO;
}

static void
take_out (unsigned i)
{
  memmove (&dev->io[i], &dev->io[i + 1], (--dev->n - i) * sizeof dev->io[0]);
}

/* The device does the I/O; the disk does not hear of it yet. */
static int
carry_out (struct store_io *io)
{
  uint32_t i;
  int r = 0, one;

  switch (io->op) {
  case STORE_READ:
    if (dev->zone[io->zone].cond == ZNBD_COND_OFFLINE)
      return EIO;
    memcpy (io->iov[0].iov_base, dev->bytes + io->offset, io->length);
    return 0;
  case STORE_WRITE:
  case STORE_ZERO:
    return device_write (io);
  case STORE_ZONE_OP:
    if (!(io->flags & STORE_ALL))
      return device_zone_op (&dev->zone[io->zone], io->zone_op, false);
    for (i = 0; i < ZONES; i++) {
      one = device_zone_op (&dev->zone[i], io->zone_op, true);
      r = r ? r : one;
    }
    return r;
  case STORE_REPORT:
    assert_true (io->zone + io->count <= ZONES);
    memcpy (io->report, &dev->zone[io->zone],
            io->count * sizeof dev->zone[0]);
    return 0;
  default:
    return 0;
  }
}

/* Lets the one that was submitted i-th go; error: it is not done. */
static void
let_go_with (unsigned i, int error)
{
  struct store_io *io = dev->io[i];

  take_out (i);
  if (!error)
    error = carry_out (io);
  io->done (io, error, error ? 0 : io->length);
}

static void
let_go (enum store_op op)
{
  assert_true (dev->n > 0);
  assert_int_equal (dev->io[0]->op, op);
  let_go_with (0, 0);
}

static void
let_all_go (void)
{
  while (dev->n > 0)
    let_go_with (0, 0);
}

static void
on_done (struct zdisk_request *req)
{
  done[req - reqs] = true;
}

static void
submit (unsigned i, enum zdisk_op op, uint64_t offset, uint64_t length,
        unsigned flags)
{
  memset (&reqs[i], 0xaa, sizeof reqs[i]);
  reqs[i].op = op;
  reqs[i].flags = flags;
  reqs[i].offset = offset;
  reqs[i].length = length;
  reqs[i].buf = buf + offset % sizeof buf;
  reqs[i].done = on_done;
  done[i] = false;
  zdisk_submit (client, &reqs[i], NULL);
}

static void
write_at (unsigned i, uint64_t offset, uint64_t length)
{
  submit (i, ZDISK_WRITE, offset, length, 0);
}

static void
manage (unsigned i, enum zdisk_op op, uint32_t zone)
{
  submit (i, op, zone * ZONE, ZONE, 0);
}

static void
assert_done (unsigned i, int error)
{
  assert_true (done[i]);
  if (reqs[i].error != error)
    fail_msg ("request %u: %s instead of %s: %s", i,
              strerror (reqs[i].error), strerror (error), reqs[i].reason);
  assert_true (error == 0 || reqs[i].reason[0] != '\0');
}

static void
assert_wp (uint32_t i, uint8_t cond, uint64_t wp)
{
  struct znbd_zone z;

  assert_int_equal (zdisk_report (disk, i, 1, &z), 1);
  assert_int_equal (z.cond, cond);
  assert_int_equal (z.wp - z.start, wp);
}

/* What the disk believes is what the device is. */
static void
assert_same (void)
{
  struct znbd_zone z[ZONES];
  unsigned i;

  assert_int_equal (zdisk_report (disk, 0, ZONES, z), ZONES);
  for (i = 0; i < ZONES; i++) {
    if (z[i].cond != dev->zone[i].cond)
      fail_msg ("zone %u: %s, not %s", i, znbd_cond_name (z[i].cond),
                znbd_cond_name (dev->zone[i].cond));
    if (z[i].cond != ZNBD_COND_READ_ONLY)
      assert_int_equal (z[i].wp, dev->zone[i].wp);
    assert_int_equal (z[i].capacity, dev->zone[i].capacity);
    assert_int_equal (z[i].type, dev->zone[i].type);
  }
}

static void
refresh (unsigned i)
{
  submit (i, ZDISK_REFRESH, 0, ZONES * ZONE, 0);
  let_go (STORE_REPORT);
  assert_done (i, 0);
  assert_same ();
}

static void
log_line (const char *line)
{
  snprintf (logged, sizeof logged, "%s", line);
  nlogged++;
}

/* Zone 3 is conventional; the capacities differ. */
static int
setup (void **state)
{
  struct zdisk_options o = ZDISK_OPTIONS_DEFAULT;
  struct zone_error err;
  unsigned i;

  (void) state;
  o.log = log_line;
  nlogged = 0;
  dev = calloc (1, sizeof *dev);
  for (i = 0; i < ZONES; i++) {
    struct znbd_zone *z = &dev->zone[i];

    z->start = i * ZONE;
    z->length = ZONE;
    z->capacity = ZONE - i * K4;
    z->wp = z->start;
    z->type = ZNBD_ZONE_SEQ_REQUIRED;
    z->cond = ZNBD_COND_EMPTY;
  }
  dev->zone[3].type = ZNBD_ZONE_CONVENTIONAL;
  dev->zone[3].cond = ZNBD_COND_NOT_WP;
  dev->zone[3].wp = 4 * ZONE;
  dev->zone[3].capacity = ZONE;
  dev->zone[5].cond = ZNBD_COND_EXPLICIT_OPEN;
  dev->zone[5].wp += 2 * K4;
  dev->max_open = 2;
  dev->max_active = 3;
  dev->elsewhere = EIO;
  dev->store.ops = &device_ops;
  dev->store.mirrors = true;
  dev->store.geometry = (struct znbd_geometry) {
    .size = ZONES * ZONE, .zone_size = ZONE, .zones = ZONES,
    .conventional = 1, .max_open = 2, .max_active = 3, .max_append = ZONE,
    .granularity = K4, .model = ZNBD_MODEL_HOST_MANAGED,
  };
  disk = zdisk_new (&dev->store, &o, &err);
  assert_non_null (disk);
  client = zdisk_client_new (disk, false);
  for (i = 0; i < sizeof buf; i++)
    buf[i] = 1 + i / K4;
  return 0;
}

static int
teardown (void **state)
{
  struct zone_error err;

  (void) state;
  assert_int_equal (dev->n, 0);
  zdisk_client_close (client);
  assert_int_equal (zdisk_close (disk, &err), 0);
  return 0;
}

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
    T (test_failed_write),
    T (test_done_but_failed),
    T (test_failed_report),
    T (test_read_only_and_offline),
    T (test_reset_behind_the_back),
    T (test_append_is_retried_once),
    T (test_append_is_not_written_twice),
    T (test_loss_is_told_by_flush),
    T (test_management),
    T (test_management_surprises),
    T (test_trim_skips),
    T (test_all_forms),
    T (test_all_forms_fail),
    T (test_late_reports),
    T (test_report_frees_what_is_parked),
    T (test_one_write_at_a_time),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
