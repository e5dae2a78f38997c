/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk over a store that holds every I/O until the test lets it go:
 * the order of writes and management within a zone, parked writes, and
 * writes that fail, without any chance in it.
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

#include "disk.h"
#include "zones.h"

#define K4 4096u
#define ZONE (16 * K4)
#define CAPACITY (12 * K4)
#define ZONES 4

struct hold {
  struct store store;
  uint8_t bytes[ZONES * ZONE];
  struct store_io *io[64];
  unsigned n;
};

static void
hold_submit (struct store *store, struct store_io *io)
{
  struct hold *h = (struct hold *) store;

  assert_true (h->n < 64);
  h->io[h->n++] = io;
}

static int
hold_load (struct store *store, struct zones *zs, struct zone_error *err)
{
  (void) store;
  (void) zs;
  (void) err;
  return 0;
}

static int
hold_close (struct store *store, bool flush, struct zone_error *err)
{
  (void) flush;
  (void) err;
  free (store);
  return 0;
}

static const struct store_ops hold_ops = {
  .name = "hold", .submit = hold_submit, .load = hold_load,
  .close = hold_close,
};

static struct hold *hold;
static struct zdisk *disk;
static struct zdisk_client *client;
static struct zdisk_request reqs[32];
static bool done[32];
static uint8_t buf[ZONES * ZONE];
static uint32_t max_open;       /* of the next start, 0: as active */
static uint32_t granularity = K4;       /* of what start makes */

/* Lets one I/O go: carries out its first bytes bytes. */
static void
let_go_part (unsigned i, int error, uint64_t bytes)
{
  struct store_io *io = hold->io[i];
  uint8_t *p = hold->bytes + io->offset;
  uint64_t left = bytes;
  unsigned j;

  memmove (&hold->io[i], &hold->io[i + 1],
           (--hold->n - i) * sizeof hold->io[0]);
  for (j = 0; j < io->niov && left > 0; j++) {
    uint64_t n = io->iov[j].iov_len < left ? io->iov[j].iov_len : left;

    if (io->op == STORE_WRITE)
      memcpy (p, io->iov[j].iov_base, n);
    else if (io->op == STORE_READ)
      memcpy (io->iov[j].iov_base, p, n);
    p += n;
    left -= n;
  }
  if (io->op == STORE_ZERO || io->op == STORE_FINISH)
    memset (hold->bytes + io->offset, 0, io->length);
  io->done (io, error, bytes);
}

static void
let_go (unsigned i)
{
  let_go_part (i, 0, hold->io[i]->length);
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
assert_done (unsigned i, int error)
{
  assert_true (done[i]);
  if (reqs[i].error != error)
    fail_msg ("request %u: %s instead of %s: %s", i,
              strerror (reqs[i].error), strerror (error), reqs[i].reason);
  assert_true (error == 0 || reqs[i].reason[0] != '\0');
}

static struct znbd_zone
zone (uint32_t i)
{
  struct znbd_zone z;

  assert_int_equal (zdisk_report (disk, i, 1, &z), 1);
  return z;
}

static void
assert_wp (uint32_t i, uint8_t cond, uint64_t wp)
{
  struct znbd_zone z = zone (i);

  assert_int_equal (z.cond, cond);
  assert_int_equal (z.wp - z.start, wp);
}

static void
start (uint32_t model, uint32_t max_active, const struct zdisk_options *o)
{
  struct zone_error err;
  unsigned i;

  hold = calloc (1, sizeof *hold);
  hold->store.ops = &hold_ops;
  hold->store.fast_zero = true;
  hold->store.geometry = (struct znbd_geometry) {
    .size = ZONES * ZONE, .zone_size = ZONE, .zone_capacity = CAPACITY,
    .zones = ZONES, .max_open = max_open ? max_open : max_active,
    .max_active = max_active,
    .max_append = CAPACITY, .granularity = granularity, .model = model,
  };
  disk = zdisk_new (&hold->store, o, &err);
  assert_non_null (disk);
  client = zdisk_client_new (disk, false);
  for (i = 0; i < sizeof buf; i++)
    buf[i] = 1 + i / K4;
}

static int
managed (void **state)
{
  (void) state;
  start (ZNBD_MODEL_HOST_MANAGED, 0, NULL);
  return 0;
}

static int
aware (void **state)
{
  (void) state;
  start (ZNBD_MODEL_HOST_AWARE, 0, NULL);
  return 0;
}

static int
stop (void **state)
{
  struct zone_error err;

  (void) state;
  zdisk_client_close (client);
  client = NULL;
  return zdisk_close (disk, &err);
}

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
    TEST (parked_is_merged, managed),
    TEST (held_is_merged, managed),
    TEST (parked_backwards, managed),
    TEST (failed_write, managed),
    TEST (failed_merge, managed),
    TEST (queued_behind_a_failure, managed),
    TEST (eviction_and_failure, managed),
    TEST (flush_with_a_length, managed),
    TEST (store_fails_meanwhile, managed),
    TEST (failed_last_write, managed),
    TEST (reset_waits, managed),
    TEST (reset_that_fails, managed),
    TEST (reset_while_parked, managed),
    TEST (finish_while_parked, managed),
    TEST (overlaps, managed),
    TEST (timeout, managed),
    TEST (gap_zero, managed),
    TEST (budget, managed),
    TEST (too_large_to_park, managed),
    TEST (client_abandoned, managed),
    TEST (client_gone, managed),
    TEST (client_gone_in_flight, managed),
    TEST (budget_of_small_writes, managed),
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
