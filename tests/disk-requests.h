/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests to a disk whose store does each I/O when the test lets it go.  For
 * after cmocka.h, and after ZONE and ZONES were defined.
 */

#ifndef DISK_REQUESTS_H
#define DISK_REQUESTS_H

#include "disk.h"

#define K4 4096u

static struct zdisk *disk;
static struct zdisk_client *client;
static struct zdisk_request reqs[32];
static bool done[32];
static uint8_t buf[ZONES * ZONE];

static inline void
on_done (struct zdisk_request *req)
{
  done[req - reqs] = true;
}

static inline void
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

static inline void
write_at (unsigned i, uint64_t offset, uint64_t length)
{
  submit (i, ZDISK_WRITE, offset, length, 0);
}

static inline void
assert_done (unsigned i, int error)
{
  assert_true (done[i]);
  if (reqs[i].error != error)
    fail_msg ("request %u: %s instead of %s: %s", i,
              strerror (reqs[i].error), strerror (error), reqs[i].reason);
  assert_true (error == 0 || reqs[i].reason[0] != '\0');
}

static inline void
assert_wp (uint32_t i, uint8_t cond, uint64_t wp)
{
  struct znbd_zone z;

  assert_int_equal (zdisk_report (disk, i, 1, &z), 1);
  assert_int_equal (z.cond, cond);
  assert_int_equal (z.wp - z.start, wp);
}

#endif /* DISK_REQUESTS_H */
