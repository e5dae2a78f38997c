/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk over a store that holds every I/O until the test lets it go.  For
 * after cmocka.h.
 */

#ifndef HELD_DISK_H
#define HELD_DISK_H

#define ZONE (16 * K4)
#define CAPACITY (12 * K4)
#define ZONES 4

#include "disk-requests.h"
#include "zones.h"

struct hold {
  struct store store;
  uint8_t bytes[ZONES * ZONE];
  struct store_io *io[64];
  unsigned n;
};

static struct hold *hold;
static uint32_t max_open;       /* of the next start, 0: as active */
static uint32_t granularity = K4;       /* of what start makes */

static inline void
hold_submit (struct store *store, struct store_io *io)
{
  struct hold *h = (struct hold *) store;

  assert_true (h->n < 64);
  h->io[h->n++] = io;
}

static inline int
hold_load (struct store *store, struct zones *zs, struct zone_error *err)
{
  (void) store;
  (void) zs;
  (void) err;
  return 0;
}

static inline int
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

/* Lets one I/O go: carries out its first bytes bytes. */
static inline void
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

static inline void
let_go (unsigned i)
{
  let_go_part (i, 0, hold->io[i]->length);
}

static inline struct znbd_zone
zone (uint32_t i)
{
  struct znbd_zone z;

  assert_int_equal (zdisk_report (disk, i, 1, &z), 1);
  return z;
}

static inline void
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

static inline int
managed (void **state)
{
  (void) state;
  start (ZNBD_MODEL_HOST_MANAGED, 0, NULL);
  return 0;
}

static inline int
aware (void **state)
{
  (void) state;
  start (ZNBD_MODEL_HOST_AWARE, 0, NULL);
  return 0;
}

static inline int
stop (void **state)
{
  struct zone_error err;

  (void) state;
  zdisk_client_close (client);
  client = NULL;
  return zdisk_close (disk, &err);
}

#endif /* HELD_DISK_H */
