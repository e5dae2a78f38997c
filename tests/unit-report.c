/* SPDX-License-Identifier: BSD-3-Clause */
/* The descriptors of x-zbd:zones and base:allocation: regions, flags,
 * merging, and ranges that begin and end anywhere.
 */

#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "disk.h"
#include "geometry.h"
#include "memory.h"
#include "report.h"

#define K4 4096u
#define ZONE (16 * K4)

struct list {
  struct { uint64_t length; uint32_t flags; } d[64];
  unsigned n, stop_after;
};

static struct zdisk *disk;
static struct zdisk_client *client;

static bool
add (void *opaque, uint64_t length, uint32_t flags)
{
  struct list *l = opaque;

  l->d[l->n].length = length;
  l->d[l->n++].flags = flags;
  return l->n != l->stop_after;
}

static void
run_by (struct zdisk_client *c, enum zdisk_op op, uint64_t offset,
        uint64_t length)
{
  static uint8_t buf[4 * ZONE];
  struct zdisk_request req = {
    .op = op, .offset = offset, .length = length, .buf = buf,
  };

  assert_int_equal (zdisk_run (c, &req), 0);
}

static void
run (enum zdisk_op op, uint64_t offset, uint64_t length)
{
  run_by (client, op, offset, length);
}

/* Zones: 0 conventional, 1 empty, 2 open with 3 blocks, 3 full (finished),
 * 4 empty, 5 empty, 6 read-only, 7 offline, 8 smaller and empty. */
static int
setup (void **state)
{
  struct store_geometry g = STORE_GEOMETRY_DEFAULT;
  struct zone_error err;

  (void) state;
  g.size = 8 * ZONE + 4 * K4;
  g.zone_size = ZONE;
  g.zone_capacity = 12 * K4;
  g.conventional = 1;
  g.readonly_zones = "6";
  g.offline_zones = "7";
  disk = zdisk_new (memory_new (&g, &err), NULL, &err);
  assert_non_null (disk);
  client = zdisk_client_new (disk, false);
  run (ZDISK_WRITE, 2 * ZONE, 3 * K4);
  run (ZDISK_FINISH, 3 * ZONE, ZONE);
  return 0;
}

static int
teardown (void **state)
{
  struct zone_error err;

  (void) state;
  zdisk_client_close (client);
  return zdisk_close (disk, &err);
}

static void
check (const struct list *got, const uint64_t (*expected)[2], unsigned n)
{
  unsigned i;

  for (i = 0; i < n && i < got->n; i++)
    if (got->d[i].length != expected[i][0] * K4 ||
        got->d[i].flags != expected[i][1])
      fail_msg ("descriptor %u: %u blocks, flags 0x%x", i,
                (unsigned) (got->d[i].length / K4), got->d[i].flags);
  assert_int_equal (got->n, n);
}

#define CHECK(got, expected) \
  check (got, expected, sizeof (expected) / sizeof (expected)[0])

static void
zones (void **state)
{
  /* condition | type << 4 | region << 8 */
  static const uint64_t expected[][2] = {
    { 16, 0x010 },
    { 12, 0x221 }, { 4, 0x321 },
    { 3, 0x122 }, { 9, 0x222 }, { 4, 0x322 },
    { 12, 0x12e }, { 4, 0x32e },
    { 12, 0x221 }, { 4, 0x321 }, { 12, 0x221 }, { 4, 0x321 },
    { 12, 0x12d }, { 4, 0x32d },
    { 16, 0x02f },
    { 4, 0x221 },
  };
  struct list l = { .n = 0 };

  (void) state;
  report_zones (disk, 0, 8 * ZONE + 4 * K4, add, &l);
  CHECK (&l, expected);
}

static void
parts (void **state)
{
  static const uint64_t expected[][2] = {
    { 1, 0x122 }, { 9, 0x222 }, { 4, 0x322 }, { 5, 0x12e },
  };
  static const uint64_t first[][2] = { { 1, 0x122 } };
  struct list l = { .n = 0 }, one = { .stop_after = 1 };

  (void) state;
  report_zones (disk, 2 * ZONE + 2 * K4, 19 * K4, add, &l);
  CHECK (&l, expected);
  report_zones (disk, 2 * ZONE + 2 * K4, 19 * K4, add, &one);
  CHECK (&one, first);
}

/* An empty disk whose capacity is its size is one descriptor. */
static void
merges (void **state)
{
  struct store_geometry g = STORE_GEOMETRY_DEFAULT;
  static const uint64_t expected[][2] = { { 1000 * 16, 0x221 } };
  static const uint64_t hole[][2] = { { 1000 * 16, 3 } };
  struct list l = { .n = 0 }, a = { .n = 0 };
  struct zone_error err;
  struct zdisk *d;

  (void) state;
  g.size = 1000 * ZONE;
  g.zone_size = ZONE;
  d = zdisk_new (memory_new (&g, &err), NULL, &err);
  report_zones (d, 0, 1000 * ZONE, add, &l);
  report_allocation (d, 0, 1000 * ZONE, add, &a);
  zdisk_close (d, &err);
  CHECK (&l, expected);
  CHECK (&a, hole);
}

/* Rows of empty zones between others, from anywhere to anywhere: 0 to 2 are
 * empty, 3 is full, 4 and 5 empty, 6 has one block, 7 is offline, 8 and 9 are
 * empty, and so is 10, which is smaller. */
static void
rows (void **state)
{
  struct store_geometry g = STORE_GEOMETRY_DEFAULT;
  static const uint64_t whole[][2] = {
    { 48, 0x221 }, { 16, 0x12e }, { 32, 0x221 }, { 1, 0x122 },
    { 15, 0x222 }, { 16, 0x02f }, { 32 + 4, 0x221 },
  };
  static const uint64_t inside[][2] = { { 25, 0x221 } };
  static const uint64_t across[][2] = { { 3, 0x221 }, { 16, 0x12e },
                                        { 17, 0x221 } };
  static const uint64_t end[][2] = { { 3 + 16 + 3, 0x221 } };
  static const uint64_t holes[][2] = {
    { 48, 3 }, { 16, 0 }, { 32, 3 }, { 1, 0 }, { 15, 3 }, { 16, 0 },
    { 32 + 4, 3 },
  };
  struct list l[5] = { { .n = 0 } };
  struct zdisk_client *c;
  struct zone_error err;
  struct zdisk *d;

  (void) state;
  g.size = 10 * ZONE + 4 * K4;
  g.zone_size = ZONE;
  g.offline_zones = "7";
  d = zdisk_new (memory_new (&g, &err), NULL, &err);
  c = zdisk_client_new (d, false);
  run_by (c, ZDISK_FINISH, 3 * ZONE, ZONE);
  run_by (c, ZDISK_WRITE, 6 * ZONE, K4);
  report_zones (d, 0, g.size, add, &l[0]);
  report_zones (d, 2 * K4, 25 * K4, add, &l[1]);
  report_zones (d, 2 * ZONE + 13 * K4, 36 * K4, add, &l[2]);
  report_zones (d, 8 * ZONE + 13 * K4, 22 * K4, add, &l[3]);
  report_allocation (d, 0, g.size, add, &l[4]);
  zdisk_client_close (c);
  zdisk_close (d, &err);
  CHECK (&l[0], whole);
  CHECK (&l[1], inside);
  CHECK (&l[2], across);
  CHECK (&l[3], end);
  CHECK (&l[4], holes);
}

static void
allocation (void **state)
{
  static const uint64_t expected[][2] = {
    { 16, 0 }, { 16, 3 }, { 3, 0 }, { 13, 3 }, { 12, 0 }, { 4 + 32, 3 },
    { 12, 0 }, { 4, 3 }, { 16, 0 }, { 4, 3 },
  };
  struct list l = { .n = 0 };

  (void) state;
  report_allocation (disk, 0, 8 * ZONE + 4 * K4, add, &l);
  CHECK (&l, expected);
}

static void
geometry_name (void **state)
{
  struct znbd_geometry g = {
    .size = 1 << 30, .zone_size = 1 << 26, .zone_capacity = 1 << 25,
    .epoch = 7, .zones = 16, .conventional = 2, .max_open = 3,
    .max_active = 4, .max_append = 1 << 20, .granularity = 512,
    .model = ZNBD_MODEL_HOST_MANAGED, .uuid = { 0x01, 0x23, [15] = 0xef },
  };
  char name[GEOMETRY_NAME_MAX];

  (void) state;
  geometry_encode_name (&g, name);
  assert_string_equal (name, "x-zbd:geometry:version=1,model=host-managed,"
                       "zones=16,zone-size=67108864,zone-capacity=33554432,"
                       "conventional=2,max-open=3,max-active=4,"
                       "max-append=1048576,granularity=512,"
                       "uuid=01230000-0000-0000-0000-0000000000ef,epoch=7");
  g.zone_capacity = 0;
  geometry_encode_name (&g, name);
  assert_null (strstr (name, "zone-capacity"));
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (zones),
    cmocka_unit_test (parts),
    cmocka_unit_test (merges),
    cmocka_unit_test (rows),
    cmocka_unit_test (allocation),
    cmocka_unit_test (geometry_name),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
