/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk over a store that keeps its own zones: a device made here, with the
 * limits and the choice of whom to close that null_blk has, which does each
 * I/O when the test lets it go.  For after cmocka.h.
 */

#ifndef MIRROR_DEVICE_H
#define MIRROR_DEVICE_H

#define ZONE (16 * K4)
#define ZONES 6

#include "disk-requests.h"
#include "zones.h"

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
static char logged[512];
static unsigned nlogged;

static inline void
device_submit (struct store *store, struct store_io *io)
{
  (void) store;
  assert_true (dev->n < 64);
  dev->io[dev->n++] = io;
}

static inline int
device_load (struct store *store, struct zones *zs, struct zone_error *err)
{
  uint32_t i;

  (void) store;
  for (i = 0; i < ZONES; i++)
    if (zones_load_mirrored (zs, i, &dev->zone[i], err) == -1)
      return -1;
  return 0;
}

static inline int
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

static inline bool
is_open (const struct znbd_zone *z)
{
  return z->cond == ZNBD_COND_IMPLICIT_OPEN ||
    z->cond == ZNBD_COND_EXPLICIT_OPEN;
}

static inline void
set_full (struct znbd_zone *z)
{
  z->cond = ZNBD_COND_FULL;
  z->wp = z->start + z->length;
}

static inline void
close_zone (struct znbd_zone *z)
{
  z->cond = z->wp > z->start ? ZNBD_COND_CLOSED : ZNBD_COND_EMPTY;
}

/* Takes resources for a zone that is to be open; round-robin eviction. */
static inline int
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

static inline int
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

static inline int
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

static inline void
take_out (unsigned i)
{
  memmove (&dev->io[i], &dev->io[i + 1], (--dev->n - i) * sizeof dev->io[0]);
}

/* The device does the I/O; the disk does not hear of it yet. */
static inline int
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
static inline void
let_go_with (unsigned i, int error)
{
  struct store_io *io = dev->io[i];

  take_out (i);
  if (!error)
    error = carry_out (io);
  io->done (io, error, error ? 0 : io->length);
}

static inline void
let_go (enum store_op op)
{
  assert_true (dev->n > 0);
  assert_int_equal (dev->io[0]->op, op);
  let_go_with (0, 0);
}

static inline void
let_all_go (void)
{
  while (dev->n > 0)
    let_go_with (0, 0);
}

static inline void
manage (unsigned i, enum zdisk_op op, uint32_t zone)
{
  submit (i, op, zone * ZONE, ZONE, 0);
}

/* What the disk believes is what the device is. */
static inline void
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

static inline void
refresh (unsigned i)
{
  submit (i, ZDISK_REFRESH, 0, ZONES * ZONE, 0);
  let_go (STORE_REPORT);
  assert_done (i, 0);
  assert_same ();
}

static inline void
log_line (const char *line)
{
  snprintf (logged, sizeof logged, "%s", line);
  nlogged++;
}

/* Zone 3 is conventional; the capacities differ. */
static inline int
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

static inline int
teardown (void **state)
{
  struct zone_error err;

  (void) state;
  assert_int_equal (dev->n, 0);
  zdisk_client_close (client);
  assert_int_equal (zdisk_close (disk, &err), 0);
  return 0;
}

#endif /* MIRROR_DEVICE_H */
