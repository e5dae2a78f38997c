/* SPDX-License-Identifier: BSD-3-Clause */
/* What libznbd makes of the x-zbd contexts' bytes: names of geometries and
 * descriptors of zones, right ones as the server writes them and each that
 * is wrong.
 */

#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "geometry.h"
#include "lib-decode.h"

#define ZONE 65536
#define CAP 49152

/* 3 zones and a half. */
static const struct znbd_geometry geometry = {
  .size = 3 * ZONE + ZONE / 2, .zone_size = ZONE, .zone_capacity = CAP,
  .zones = 4, .conventional = 1, .max_open = 3, .max_active = 5,
  .max_append = 32768, .granularity = 4096,
  .model = ZNBD_MODEL_HOST_MANAGED, .epoch = 18446744073709551615u,
  .uuid = { 0, 1, 2, 0xff, 0xab },
};

static void
names (void **state)
{
  char name[GEOMETRY_NAME_MAX], cut[GEOMETRY_NAME_MAX];
  struct znbd_geometry g;
  const char *why;
  size_t n, i;

  (void) state;
  geometry_encode_name (&geometry, name);
  assert_int_equal (geometry_decode_name (name, geometry.size, &g, &why), 0);
  assert_memory_equal (&g, &geometry, sizeof g);

  /* Cut anywhere, and with any byte another one: taken or not, but sound.
   * (The sanitizers look on.) */
  n = strlen (name);
  for (i = 0; i < n; ++i) {
    unsigned c;

    memcpy (cut, name, i);
    cut[i] = '\0';
    if (geometry_decode_name (cut, geometry.size, &g, &why) == 0)
      assert_int_equal (geometry_check (&g, &why), 0);
    for (c = 1; c < 256; ++c) {
      strcpy (cut, name);
      cut[i] = c;
      if (geometry_decode_name (cut, geometry.size, &g, &why) == 0)
        assert_int_equal (geometry_check (&g, &why), 0);
    }
  }
  assert_int_equal (geometry_decode_name (name, geometry.size + 65536, &g,
                                          &why), -1);
  assert_int_equal (geometry_decode_name ("", 4096, &g, &why), -1);
  assert_int_equal (geometry_decode_name (GEOMETRY_PREFIX, 4096, &g, &why),
                    -1);
}

/* A descriptor: condition, type, region. */
#define F(cond, type, region) ((cond) | (type) << 4 | (region) << 8)
#define CONVENTIONAL F (0, 1, 0)

static void
zones (void **state)
{
  static const struct { uint64_t length; uint32_t flags; } good[] = {
    { ZONE, CONVENTIONAL },
    { 8192, F (2, 2, 1) | 1 << 10 }, { CAP - 8192, F (2, 2, 2) | 1 << 10 },
    { ZONE - CAP, F (2, 2, 3) | 1 << 10 },
    { CAP, F (14, 2, 1) }, { ZONE - CAP, F (14, 2, 3) },
    { ZONE / 2, F (15, 2, 0) },
  };
  struct znbd_zone z[4];
  struct lib_decoder d;
  const char *why = NULL;
  unsigned i;

  (void) state;
  lib_decoder_init (&d, &geometry, 0, 4, z);
  for (i = 0; i < 7; ++i)
    assert_int_equal (lib_decoder_add (&d, good[i].length, good[i].flags,
                                       &why), 0);
  assert_int_equal (d.complete, 4);
  assert_true (z[0].capacity == ZONE && z[0].wp == ZONE);
  assert_true (z[1].start == ZONE && z[1].wp == ZONE + 8192);
  assert_true (z[1].capacity == CAP && z[1].length == ZONE);
  assert_int_equal (z[1].cond, ZNBD_COND_IMPLICIT_OPEN);
  assert_int_equal (z[1].reset, 1);
  assert_int_equal (z[1].non_seq, 0);
  assert_true (z[2].cond == ZNBD_COND_FULL && z[2].wp == 3 * ZONE);
  assert_true (z[3].length == ZONE / 2 && z[3].capacity == ZONE / 2);

  /* One descriptor for many zones, and more than there are. */
  lib_decoder_init (&d, &geometry, 1, 3, z);
  assert_int_equal (lib_decoder_add (&d, UINT64_MAX - 4095, F (1, 2, 2),
                                     &why), 0);
  assert_int_equal (d.complete, 3);
  assert_true (z[0].start == ZONE && z[2].start == 3 * ZONE);
  assert_true (z[2].length == ZONE / 2 && z[2].cond == ZNBD_COND_EMPTY);
  assert_int_equal (lib_decoder_add (&d, 0, 0, &why), 0);
}

/* Every value of the flags, alone and behind every other one: what passes
 * is a zone that can be. */
static void
flags (void **state)
{
  static const uint64_t lengths[] = { 0, 1, 4095, 4096, CAP, ZONE - 4096,
                                      ZONE, UINT64_MAX };
  struct znbd_zone z;
  struct lib_decoder d;
  const char *why;
  unsigned first, second, i, taken = 0;

  (void) state;
  for (first = 0; first < 4096; ++first)
    for (second = 0; second < 1024; second += 1 + 17 * (first % 64 != 33))
      for (i = 0; i < sizeof lengths / sizeof lengths[0]; ++i) {
        lib_decoder_init (&d, &geometry, 1, 1, &z);
        why = NULL;
        if (lib_decoder_add (&d, lengths[i], first, &why) == -1 ||
            lib_decoder_add (&d, ZONE, second, &why) == -1) {
          assert_non_null (why);
          continue;
        }
        taken++;
        assert_int_equal (d.complete, 1);
        assert_true (geometry_zone_possible (z.type, z.cond));
        assert_true (z.capacity > 0 && z.capacity <= z.length);
        assert_true (z.wp >= z.start && z.wp <= z.start + z.length);
        if (z.cond == ZNBD_COND_EMPTY)
          assert_true (z.wp == z.start);
      }
  assert_true (taken > 0);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (names),
    cmocka_unit_test (zones),
    cmocka_unit_test (flags),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
