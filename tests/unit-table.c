/* SPDX-License-Identifier: BSD-3-Clause */
/* The zone table's bytes: every offset as the protocol has it, against
 * bytes put together here by hand; round trips; and tables of hostile
 * servers.
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

#include "table.h"

static void
put_le (uint8_t *p, unsigned bytes, uint64_t value)
{
  for (; bytes > 0; --bytes, value >>= 8)
    *p++ = value;
}

static const struct znbd_geometry geometry = {
  .size = UINT64_C (0x1122334455660000),
  .zone_size = UINT64_C (0x10000000),
  .epoch = UINT64_C (0xf1e2d3c4b5a69788),
  .zones = 0,                   /* see the_geometry */
  .conventional = 0x01020304,
  .max_open = 0x11121314,
  .max_active = 0x21222324,
  .max_append = 0x31323334,
  .granularity = 4096,
  .model = ZNBD_MODEL_HOST_MANAGED,
  .uuid = { 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
            0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf },
};

/* A disk of 10 zones of 1 MiB, the last of 64 KiB. */
static const struct znbd_geometry small = {
  .size = (9 << 20) + 65536,
  .zone_size = 1 << 20,
  .epoch = 7,
  .zones = 10,
  .conventional = 2,
  .max_open = 3,
  .max_active = 4,
  .max_append = 1 << 20,
  .granularity = 4096,
  .model = ZNBD_MODEL_HOST_MANAGED,
};

static void
header_offsets (void **state)
{
  uint8_t header[TABLE_HEADER_SIZE], wanted[TABLE_HEADER_SIZE] = { 0 };
  struct znbd_geometry g = geometry;
  size_t i;

  (void) state;
  g.zones = 0x41424344;
  memcpy (&wanted[0], "ZBDTABLE", 8);
  put_le (&wanted[8], 4, 1);
  put_le (&wanted[12], 4, 4096);
  put_le (&wanted[16], 4, 2);
  put_le (&wanted[20], 4, g.zones);
  put_le (&wanted[24], 8, g.zone_size);
  put_le (&wanted[32], 8, g.size);
  put_le (&wanted[40], 4, g.max_open);
  put_le (&wanted[44], 4, g.max_active);
  put_le (&wanted[48], 4, g.max_append);
  put_le (&wanted[52], 4, g.granularity);
  put_le (&wanted[56], 4, g.conventional);
  for (i = 0; i < 16; ++i)
    wanted[64 + i] = 0xa0 + i;
  put_le (&wanted[80], 8, g.epoch);

  memset (header, 0xee, sizeof header);
  table_encode_header (header, &g);
  for (i = 0; i < sizeof header; ++i)
    if (header[i] != wanted[i])
      fail_msg ("byte %zu is %02x, not %02x", i, header[i], wanted[i]);
}

static void
record_offsets (void **state)
{
  const struct znbd_zone z = {
    .start = UINT64_C (0x1234567890) * 512,
    .length = UINT64_C (0xabcdef01) * 512,
    .capacity = UINT64_C (0x98765432) * 512,
    .wp = UINT64_C (0x1234599999) * 512,
    .type = 2, .cond = 3, .reset = 1, .non_seq = 0,
  };
  uint8_t record[TABLE_RECORD_SIZE], wanted[TABLE_RECORD_SIZE] = { 0 };
  size_t i;

  (void) state;
  put_le (&wanted[0], 8, UINT64_C (0x1234567890));
  put_le (&wanted[8], 8, UINT64_C (0xabcdef01));
  put_le (&wanted[16], 8, UINT64_C (0x1234599999));
  wanted[24] = 2;
  wanted[25] = 3;
  wanted[26] = 0;               /* non_seq */
  wanted[27] = 1;               /* reset */
  put_le (&wanted[32], 8, UINT64_C (0x98765432));

  memset (record, 0xee, sizeof record);
  table_encode_record (record, &z);
  for (i = 0; i < sizeof record; ++i)
    if (record[i] != wanted[i])
      fail_msg ("byte %zu is %02x, not %02x", i, record[i], wanted[i]);
}

static void
sizes (void **state)
{
  (void) state;
  assert_true (table_record_offset (0) == 4096);
  assert_true (table_record_offset (1) == 4160);
  assert_true (table_record_offset (UINT32_MAX) ==
               4096 + UINT64_C (64) * UINT32_MAX);
  assert_true (table_size (0) == 4096);
  assert_true (table_size (40) == 4096 + 40 * 64);
  assert_true (table_size (UINT32_MAX) ==
               4096 + UINT64_C (64) * UINT32_MAX);
}

static int
decode_header (const struct znbd_geometry *g, struct znbd_geometry *out)
{
  uint8_t header[TABLE_HEADER_SIZE];
  const char *why = NULL;
  int r;

  table_encode_header (header, g);
  r = table_decode_header (header, table_size (g->zones), out, &why);
  if (r == -1)
    assert_non_null (why);
  return r;
}

static void
header_round_trip (void **state)
{
  struct znbd_geometry g = small, out;

  (void) state;
  g.zone_capacity = 65536;      /* is not carried */
  memset (g.uuid, 0x5a, 16);
  assert_int_equal (decode_header (&g, &out), 0);
  g.zone_capacity = 0;
  assert_memory_equal (&out, &g, sizeof g);

  g.model = ZNBD_MODEL_HOST_AWARE;
  g.max_open = g.max_active = g.max_append = g.conventional = 0;
  assert_int_equal (decode_header (&g, &out), 0);
  assert_memory_equal (&out, &g, sizeof g);

  g.max_open = 5;               /* with no active limit */
  assert_int_equal (decode_header (&g, &out), 0);
  g.max_active = 5;
  assert_int_equal (decode_header (&g, &out), 0);
  g.conventional = g.zones;
  assert_int_equal (decode_header (&g, &out), 0);
}

static void
headers_at_the_limits (void **state)
{
  struct znbd_geometry g = small, out;

  (void) state;

  /* the most zones that there can be */
  g.granularity = g.zone_size = 512;
  g.zones = UINT32_MAX;
  g.size = UINT64_C (512) * UINT32_MAX;
  assert_int_equal (decode_header (&g, &out), 0);

  /* one more: their number overflows */
  g.size += 512;
  g.zones = 0;
  assert_int_equal (decode_header (&g, &out), -1);
  g.size += 512;
  g.zones = 1;
  assert_int_equal (decode_header (&g, &out), -1);

  /* the largest disk, in one zone */
  g = small;
  g.conventional = 0;
  g.zones = 1;
  g.size = g.zone_size = INT64_MAX - 4095;
  assert_int_equal (decode_header (&g, &out), 0);

  /* a zone larger than its disk */
  g.size = 4096;
  assert_int_equal (decode_header (&g, &out), 0);

  g.size = UINT64_C (1) << 63;
  g.zone_size = UINT64_C (1) << 62;
  g.zones = 2;
  assert_int_equal (decode_header (&g, &out), -1);
  g.size = UINT64_MAX - 4095;
  g.zones = 4;
  assert_int_equal (decode_header (&g, &out), -1);
  g.size = 4096;
  g.zone_size = UINT64_C (1) << 63;
  g.zones = 1;
  assert_int_equal (decode_header (&g, &out), -1);
}

/* Changes one field of a right header: value in bytes bytes at offset. */
static void
refuses (size_t offset, unsigned bytes, uint64_t value)
{
  uint8_t header[TABLE_HEADER_SIZE];
  struct znbd_geometry out;
  const char *why = NULL;

  table_encode_header (header, &small);
  put_le (&header[offset], bytes, value);
  if (table_decode_header (header, table_size (small.zones), &out, &why)
      != -1)
    fail_msg ("%llx at %zu was taken", (unsigned long long) value, offset);
  assert_non_null (why);
  assert_null (strchr (why, '\n'));
}

static void
hostile_headers (void **state)
{
  static const uint64_t numbers[] = {
    0, 1, 511, 513, 1 << 19, 1 << 21, INT64_MAX, UINT64_C (1) << 63,
    UINT64_MAX, UINT64_MAX - 511, UINT64_MAX - 4095,
  };
  struct znbd_geometry out;
  uint8_t header[TABLE_HEADER_SIZE];
  const char *why;
  size_t i;

  (void) state;
  for (i = 0; i < 8; ++i)
    refuses (i, 1, 0);          /* magic */
  refuses (8, 4, 0);
  refuses (8, 4, 2);            /* a newer version */
  refuses (8, 4, 0x01000000);   /* the other byte order */
  refuses (12, 4, 0);
  refuses (12, 4, 8192);
  refuses (16, 4, 0);           /* no zoned model */
  refuses (16, 4, 3);
  refuses (16, 4, 0x102);
  refuses (20, 4, 0);
  refuses (20, 4, 9);
  refuses (20, 4, 11);
  refuses (20, 4, UINT32_MAX);
  for (i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
    refuses (24, 8, numbers[i]);
    refuses (32, 8, numbers[i]);
  }
  refuses (40, 4, 5);           /* open limit above active limit */
  refuses (40, 4, UINT32_MAX);
  refuses (44, 4, 2);
  refuses (48, 4, 1);           /* no append has this length */
  refuses (48, 4, 4095);
  refuses (52, 4, 0);
  refuses (52, 4, 1);
  refuses (52, 4, 256);
  refuses (52, 4, 520);
  refuses (52, 4, 4097);
  refuses (52, 4, 6144);
  refuses (52, 4, 1u << 31);
  refuses (56, 4, 11);
  refuses (56, 4, UINT32_MAX);

  /* the export's size */
  table_encode_header (header, &small);
  for (i = 0; i < 20; ++i)
    assert_int_equal (table_decode_header (header, table_size (i), &out,
                                           &why), i == 10 ? 0 : -1);
  assert_int_equal (table_decode_header (header, table_size (10) + 1, &out,
                                         &why), -1);
  assert_int_equal (table_decode_header (header, 0, &out, &why), -1);
  assert_int_equal (table_decode_header (header, UINT64_MAX, &out, &why),
                    -1);
}

/* Headers that are right but for some random bytes: whatever is taken must
 * fit together. */
static void
random_headers (void **state)
{
  uint8_t header[TABLE_HEADER_SIZE];
  struct znbd_geometry g;
  const char *why;
  int n, i;

  (void) state;
  srand (1);
  for (n = 0; n < 200000; ++n) {
    table_encode_header (header, &small);
    for (i = rand () % 4; i >= 0; --i)
      header[16 + rand () % 44] = rand () % 3 ? rand () : 0;
    if (table_decode_header (header, table_size (small.zones), &g, &why))
      continue;
    assert_int_equal (g.zones, small.zones);
    assert_true (g.size > 0 && g.size <= INT64_MAX);
    assert_true ((uint64_t) (g.zones - 1) * g.zone_size < g.size);
    assert_true ((uint64_t) g.zones * g.zone_size >= g.size);
    assert_true (g.conventional <= g.zones);
  }
}

/* Whatever may stand beside it in a zone 5 of the small disk. */
static struct znbd_zone
zone5 (unsigned type, unsigned cond, uint64_t wp)
{
  struct znbd_zone z = {
    .start = 5 << 20, .length = 1 << 20, .capacity = 3 << 18,
    .wp = (5 << 20) + wp, .type = type, .cond = cond,
  };

  return z;
}

static int
decode (const struct znbd_zone *z, uint32_t number, struct znbd_zone *out)
{
  uint8_t record[TABLE_RECORD_SIZE];
  const char *why = NULL;
  int r;

  table_encode_record (record, z);
  r = table_decode_record (record, &small, number, out, &why);
  if (r == -1) {
    assert_non_null (why);
    assert_null (strchr (why, '\n'));
  }
  return r;
}

static void
round_trip (const struct znbd_zone *z, uint32_t number)
{
  struct znbd_zone out;

  memset (&out, 0xee, sizeof out);
  assert_int_equal (decode (z, number, &out), 0);
  assert_memory_equal (&out, z, sizeof out);
}

static void
record_round_trip (void **state)
{
  const uint64_t end = 1 << 20, capacity = 3 << 18;
  struct znbd_zone z;
  unsigned type;

  (void) state;
  z = zone5 (ZNBD_ZONE_CONVENTIONAL, ZNBD_COND_NOT_WP, end);
  round_trip (&z, 5);
  z.cond = ZNBD_COND_READ_ONLY;
  round_trip (&z, 5);
  z.cond = ZNBD_COND_OFFLINE;
  round_trip (&z, 5);

  for (type = 2; type <= 3; ++type) {
    z = zone5 (type, ZNBD_COND_EMPTY, 0);
    round_trip (&z, 5);
    z = zone5 (type, ZNBD_COND_IMPLICIT_OPEN, 4096);
    z.non_seq = 1;
    round_trip (&z, 5);
    z = zone5 (type, ZNBD_COND_EXPLICIT_OPEN, 0);
    round_trip (&z, 5);
    z = zone5 (type, ZNBD_COND_CLOSED, capacity - 4096);
    z.reset = 1;
    round_trip (&z, 5);
    z = zone5 (type, ZNBD_COND_FULL, end);
    round_trip (&z, 5);
    z = zone5 (type, ZNBD_COND_READ_ONLY, 8192);
    round_trip (&z, 5);
    z = zone5 (type, ZNBD_COND_READ_ONLY, end);
    round_trip (&z, 5);
    z = zone5 (type, ZNBD_COND_OFFLINE, end);
    round_trip (&z, 5);
  }

  /* the first zone, and the smaller last one */
  z = zone5 (ZNBD_ZONE_SEQ_REQUIRED, ZNBD_COND_EMPTY, 0);
  z.start = z.wp = 0;
  round_trip (&z, 0);
  z.start = 9 << 20;
  z.length = z.capacity = 65536;
  z.wp = z.start + 61440;
  z.cond = ZNBD_COND_CLOSED;
  round_trip (&z, 9);
}

static void
types_and_conditions (void **state)
{
  struct znbd_zone z, out;
  unsigned type, cond;
  bool right;

  (void) state;
  for (type = 0; type < 256; ++type)
    for (cond = 0; cond < 256; ++cond) {
      switch (cond) {
      case 0:
        right = type == 1;
        break;
      case 1: case 2: case 3: case 4: case 14:
        right = type == 2 || type == 3;
        break;
      case 13: case 15:
        right = type >= 1 && type <= 3;
        break;
      default:
        right = false;
      }
      z = zone5 (type, cond, 0);
      if (decode (&z, 5, &out) != (right ? 0 : -1))
        fail_msg ("type %u, condition %u", type, cond);
    }
}

/* Devices say all kinds of things where the pointer means nothing. */
static void
pointers_that_do_not_matter (void **state)
{
  static const uint64_t wps[] = {
    0, 1, 5 << 11, (5 << 11) + 1536, 6 << 11, UINT64_MAX,
    UINT64_MAX / 512, UINT64_MAX / 512 + 1, UINT64_C (1) << 55,
  };
  static const uint8_t conds[] = { ZNBD_COND_FULL, ZNBD_COND_OFFLINE };
  struct znbd_zone z, out;
  uint8_t record[TABLE_RECORD_SIZE];
  const char *why;
  size_t i, j;

  (void) state;
  for (i = 0; i < sizeof wps / sizeof wps[0]; ++i) {
    for (j = 0; j < 2; ++j) {
      z = zone5 (ZNBD_ZONE_SEQ_REQUIRED, conds[j], 0);
      table_encode_record (record, &z);
      put_le (&record[16], 8, wps[i]);
      assert_int_equal (table_decode_record (record, &small, 5, &out, &why),
                        0);
      assert_true (out.wp == 6 << 20);
    }
    z = zone5 (ZNBD_ZONE_CONVENTIONAL, ZNBD_COND_NOT_WP, 0);
    table_encode_record (record, &z);
    put_le (&record[16], 8, wps[i]);
    assert_int_equal (table_decode_record (record, &small, 5, &out, &why),
                      0);
    assert_true (out.wp == 6 << 20);

    /* of a read-only zone it is taken where it can be right */
    z = zone5 (ZNBD_ZONE_SEQ_REQUIRED, ZNBD_COND_READ_ONLY, 0);
    table_encode_record (record, &z);
    put_le (&record[16], 8, wps[i]);
    assert_int_equal (table_decode_record (record, &small, 5, &out, &why),
                      0);
    assert_true (out.wp == (wps[i] == 5 << 11 ||
                            wps[i] == (5 << 11) + 1536 ? wps[i] * 512
                                                       : 6 << 20));
  }
}

static void
refuses_record (const struct znbd_zone *z, uint32_t number, size_t offset,
                uint64_t value)
{
  uint8_t record[TABLE_RECORD_SIZE];
  struct znbd_zone out;
  const char *why = NULL;

  table_encode_record (record, z);
  put_le (&record[offset], 8, value);
  if (table_decode_record (record, &small, number, &out, &why) != -1)
    fail_msg ("%llx at %zu was taken", (unsigned long long) value, offset);
  assert_non_null (why);
}

static void
hostile_records (void **state)
{
  /* In sectors; the last ones are right again once they overflow. */
  static const uint64_t starts[] = {
    0, (5 << 11) - 1, (5 << 11) + 1, 6 << 11, UINT64_MAX,
    (UINT64_C (1) << 55) + (5 << 11), (UINT64_C (1) << 63) + (5 << 11),
  };
  static const uint64_t lengths[] = {
    0, 1, 2047, 2049, UINT64_MAX, (UINT64_C (1) << 55) + 2048,
  };
  static const uint64_t capacities[] = {
    0, 1, 1535, 2049, UINT64_MAX, (UINT64_C (1) << 55) + 1536,
    UINT64_C (1) << 55,
  };
  static const uint64_t wps[] = {
    0, (5 << 11) - 8, (5 << 11) + 1, (5 << 11) + 1544, 6 << 11, UINT64_MAX,
    (UINT64_C (1) << 55) + (5 << 11), (UINT64_C (1) << 55) + (5 << 11) + 8,
  };
  static const uint8_t conds[] = { 2, 3, 4 };
  struct znbd_zone z = zone5 (ZNBD_ZONE_SEQ_REQUIRED, ZNBD_COND_EMPTY, 0);
  struct znbd_zone out;
  size_t i, j;

  (void) state;
  assert_int_equal (decode (&z, 5, &out), 0);
  assert_int_equal (decode (&z, 4, &out), -1);
  assert_int_equal (decode (&z, 6, &out), -1);
  for (i = 0; i < sizeof starts / sizeof starts[0]; ++i)
    refuses_record (&z, 5, 0, starts[i]);
  for (i = 0; i < sizeof lengths / sizeof lengths[0]; ++i)
    refuses_record (&z, 5, 8, lengths[i]);
  for (i = 0; i < sizeof capacities / sizeof capacities[0]; ++i)
    refuses_record (&z, 5, 32, capacities[i]);
  for (i = 0; i < sizeof wps / sizeof wps[0]; ++i)
    refuses_record (&z, 5, 16, wps[i]);
  refuses_record (&z, 5, 16, (5 << 11) + 8);    /* empty, yet written */
  for (j = 0; j < sizeof conds; ++j) {
    z.cond = conds[j];
    for (i = 0; i < sizeof wps / sizeof wps[0]; ++i)
      refuses_record (&z, 5, 16, wps[i]);
  }

  /* the last zone has no more than is left */
  z = zone5 (ZNBD_ZONE_SEQ_REQUIRED, ZNBD_COND_EMPTY, 0);
  z.start = z.wp = 9 << 20;
  z.capacity = 65536;
  assert_int_equal (decode (&z, 9, &out), -1);
  z.length = 65536;
  assert_int_equal (decode (&z, 9, &out), 0);
  z.capacity = 65536 + 4096;
  assert_int_equal (decode (&z, 9, &out), -1);
}

/* Random records: whatever is taken keeps what callers are promised. */
static void
random_records (void **state)
{
  uint8_t record[TABLE_RECORD_SIZE];
  struct znbd_zone z = zone5 (ZNBD_ZONE_SEQ_REQUIRED, ZNBD_COND_CLOSED,
                              4096);
  struct znbd_zone out;
  const char *why;
  int n, i;

  (void) state;
  srand (2);
  for (n = 0; n < 200000; ++n) {
    table_encode_record (record, &z);
    for (i = rand () % 4; i >= 0; --i)
      record[rand () % TABLE_RECORD_SIZE] = rand () % 2 ? rand () : 0;
    if (table_decode_record (record, &small, 5, &out, &why))
      continue;
    assert_true (out.start == 5 << 20 && out.length == 1 << 20);
    assert_true (out.capacity > 0 && out.capacity <= out.length);
    assert_true (out.wp >= out.start && out.wp <= out.start + out.length);
    assert_true (out.reset <= 1 && out.non_seq <= 1);
  }
}

/* One request out of what is written. */
static void
next (const uint8_t *buf, size_t length, uint64_t offset, size_t *pos,
      uint8_t wanted_op, int wanted_zone)
{
  uint8_t op = 0;
  uint32_t zone = 99;
  int all = -1;

  assert_int_equal (table_next_request (buf, length, offset, pos, &op, &zone,
                                        &all), 1);
  assert_int_equal (op, wanted_op);
  assert_int_equal (all, wanted_zone == -1);
  if (wanted_zone != -1)
    assert_int_equal (zone, wanted_zone);
}

static void
end (const uint8_t *buf, size_t length, uint64_t offset, size_t *pos)
{
  uint8_t op;
  uint32_t zone;
  int all;

  assert_int_equal (table_next_request (buf, length, offset, pos, &op, &zone,
                                        &all), 0);
  assert_int_equal (table_next_request (buf, length, offset, pos, &op, &zone,
                                        &all), 0);
}

static void
requests (void **state)
{
  const size_t length = 4096 + 10 * 64;
  uint8_t buf[4096 + 10 * 64];
  size_t pos, i;

  (void) state;

  /* Everything but requests is ignored. */
  memset (buf, 0xff, sizeof buf);
  buf[60] = 0;
  for (i = 0; i < 10; ++i)
    buf[4096 + 64 * i + 28] = 0;
  pos = 0;
  end (buf, length, 0, &pos);

  /* The whole table at once. */
  buf[60] = 4;
  buf[4096 + 28] = 1;
  buf[4096 + 64 * 3 + 28] = 200;
  buf[4096 + 64 * 9 + 28] = 3;
  pos = 0;
  next (buf, length, 0, &pos, 4, -1);
  next (buf, length, 0, &pos, 1, 0);
  next (buf, length, 0, &pos, 200, 3);
  next (buf, length, 0, &pos, 3, 9);
  end (buf, length, 0, &pos);

  /* Without the header's first block. */
  pos = 0;
  next (buf + 64, length - 64, 64, &pos, 1, 0);
  next (buf + 64, length - 64, 64, &pos, 200, 3);
  next (buf + 64, length - 64, 64, &pos, 3, 9);
  end (buf + 64, length - 64, 64, &pos);

  /* Only that one, only the header, and no more than the header's end. */
  pos = 0;
  next (buf, 64, 0, &pos, 4, -1);
  end (buf, 64, 0, &pos);
  pos = 0;
  next (buf, 4096, 0, &pos, 4, -1);
  end (buf, 4096, 0, &pos);
  pos = 0;
  end (buf + 64, 4096 - 64, 64, &pos);

  /* Single records, and some in the middle. */
  for (i = 0; i < 10; ++i) {
    const uint8_t *record = &buf[4096 + 64 * i];

    pos = 0;
    if (record[28])
      next (record, 64, 4096 + 64 * i, &pos, record[28], i);
    end (record, 64, 4096 + 64 * i, &pos);
  }
  pos = 0;
  next (buf + 4096 + 64, 64 * 8, 4096 + 64, &pos, 200, 3);
  end (buf + 4096 + 64, 64 * 8, 4096 + 64, &pos);

  /* The last zone that there can be. */
  memset (buf, 0, 64);
  buf[28] = 2;
  pos = 0;
  next (buf, 64, 4096 + UINT64_C (64) * 0x7fffffff, &pos, 2, 0x7fffffff);
  end (buf, 64, 4096 + UINT64_C (64) * 0x7fffffff, &pos);

  /* Nothing. */
  pos = 0;
  end (buf, 0, 4096, &pos);
}

/* Every way to cut the table in two sees the same requests. */
static void
partial_coverage (void **state)
{
  const size_t length = 4096 + 10 * 64;
  uint8_t buf[4096 + 10 * 64];
  size_t i, cut;

  (void) state;
  memset (buf, 0xff, sizeof buf);
  for (cut = 0; cut <= length; cut += 64) {
    uint32_t next_zone = 0;
    size_t pos = 0;
    uint8_t op;
    uint32_t zone;
    int all, alls = 0;

    for (i = 0; i < 2; ++i) {
      const uint8_t *part = i ? buf + cut : buf;
      const size_t n = i ? length - cut : cut;

      for (pos = 0; table_next_request (part, n, i ? cut : 0, &pos, &op,
                                        &zone, &all); ) {
        assert_int_equal (op, 255);
        if (all) {
          alls++;
          assert_int_equal (next_zone, 0);
        }
        else
          assert_int_equal (zone, next_zone++);
      }
      assert_true (pos == n);
    }
    assert_int_equal (alls, 1);
    assert_int_equal (next_zone, 10);
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (header_offsets),
    cmocka_unit_test (record_offsets),
    cmocka_unit_test (sizes),
    cmocka_unit_test (header_round_trip),
    cmocka_unit_test (headers_at_the_limits),
    cmocka_unit_test (hostile_headers),
    cmocka_unit_test (random_headers),
    cmocka_unit_test (record_round_trip),
    cmocka_unit_test (types_and_conditions),
    cmocka_unit_test (pointers_that_do_not_matter),
    cmocka_unit_test (hostile_records),
    cmocka_unit_test (random_records),
    cmocka_unit_test (requests),
    cmocka_unit_test (partial_coverage),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
