/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes, zone lists and names. */

#include <config.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "size.h"
#include "znbd-types.h"

#define NO_SIZE "is not a size like 512, 4k, 64M or 10G"
#define NO_LIST "is not a list of zones like 3 or 0-7,12"
#define TOO_LARGE "is past 2^63 - 1"

static void
sizes_that_are_right (void **state)
{
  static const struct { const char *str; uint64_t bytes; } cases[] = {
    { "0", 0 }, { "1", 1 }, { "512", 512 }, { "007", 7 },
    { "100b", 100 }, { "100B", 100 },
    { "1s", 512 }, { "3S", 1536 },
    { "4k", 4096 }, { "4K", 4096 },
    { "64M", UINT64_C (64) << 20 }, { "64m", UINT64_C (64) << 20 },
    { "10G", UINT64_C (10) << 30 }, { "10g", UINT64_C (10) << 30 },
    { "20T", UINT64_C (20) << 40 }, { "20t", UINT64_C (20) << 40 },
    { "3P", UINT64_C (3) << 50 }, { "3p", UINT64_C (3) << 50 },
    { "7E", UINT64_C (7) << 60 }, { "7e", UINT64_C (7) << 60 },
    { "0E", 0 },
    { "9223372036854775807", INT64_MAX },
    { "9007199254740991k", (UINT64_C (1) << 63) - 1024 },
    { "00000000000000000000000000000000001", 1 },
  };
  const char *why;
  uint64_t bytes;
  size_t i;

  (void) state;
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    bytes = 12345;
    why = cases[i].str;
    assert_int_equal (size_parse (cases[i].str, &bytes, &why), 0);
    assert_true (bytes == cases[i].bytes);
  }
}

static void
sizes_that_are_wrong (void **state)
{
  static const struct { const char *str, *why; } cases[] = {
    { "", NO_SIZE }, { " ", NO_SIZE }, { "k", NO_SIZE }, { "-", NO_SIZE },
    { "-k", NO_SIZE }, { "+1", NO_SIZE }, { " 1", NO_SIZE },
    { "1 ", NO_SIZE }, { "1 k", NO_SIZE }, { "1kb", NO_SIZE },
    { "1kk", NO_SIZE }, { "1x", NO_SIZE }, { "1.5G", NO_SIZE },
    { "0x10", NO_SIZE }, { "1e3", NO_SIZE }, { "ten", NO_SIZE },
    { "1\n", NO_SIZE }, { "1k\n", NO_SIZE }, { "\xff", NO_SIZE },
    { "99999999999999999999999x", NO_SIZE },
    { "-1", "is negative" }, { "-0", "is negative" },
    { "-10G", "is negative" },
    { "9223372036854775808", TOO_LARGE },
    { "18446744073709551615", TOO_LARGE },
    { "18446744073709551616", TOO_LARGE },
    { "18446744073709551617", TOO_LARGE },
    { "184467440737095516160", TOO_LARGE },
    { "99999999999999999999999999999999999999", TOO_LARGE },
    { "8E", TOO_LARGE }, { "16E", TOO_LARGE }, { "17E", TOO_LARGE },
    { "9007199254740992k", TOO_LARGE },
    { "18014398509481984k", TOO_LARGE },
    { "18014398509481984s", TOO_LARGE },
  };
  const char *why;
  uint64_t bytes;
  size_t i;

  (void) state;
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    bytes = 12345;
    why = NULL;
    assert_int_equal (size_parse (cases[i].str, &bytes, &why), -1);
    assert_non_null (why);
    assert_string_equal (why, cases[i].why);
    assert_true (bytes == 12345);
  }
}

static void
texts_of_sizes (void **state)
{
  static const struct { uint64_t bytes; const char *text; } cases[] = {
    { 0, "0" }, { 1, "1" }, { 512, "512" }, { 1000, "1000" },
    { 1023, "1023" }, { 1024, "1k" }, { 1025, "1025" }, { 1536, "1536" },
    { 1572864, "1536k" }, { 1 << 20, "1M" }, { 64 << 20, "64M" },
    { UINT64_C (10) << 30, "10G" }, { UINT64_C (20) << 40, "20T" },
    { UINT64_C (1) << 50, "1P" }, { UINT64_C (7) << 60, "7E" },
    { (UINT64_C (1) << 60) + 1024, "1125899906842625k" },
    { INT64_MAX, "9223372036854775807" },
    { UINT64_MAX, "18446744073709551615" },
    { UINT64_C (1) << 63, "8E" },
  };
  char buf[SIZE_TEXT_MAX];
  const char *why;
  uint64_t bytes;
  size_t i;

  (void) state;
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    assert_ptr_equal (size_text (buf, cases[i].bytes), buf);
    assert_string_equal (buf, cases[i].text);
    if (cases[i].bytes <= INT64_MAX) {
      assert_int_equal (size_parse (buf, &bytes, &why), 0);
      assert_true (bytes == cases[i].bytes);
    }
  }
}

/* Notes the ranges as a text; stops at a zone that opaque's owner names. */
struct walk {
  char text[256];
  uint32_t stop;
};

static int
note_range (void *opaque, uint32_t first, uint32_t last)
{
  struct walk *w = opaque;
  size_t n = strlen (w->text);

  snprintf (w->text + n, sizeof w->text - n, "[%u,%u]", first, last);
  return first == w->stop ? 42 : 0;
}

static void
lists_that_are_right (void **state)
{
  static const struct { const char *str; uint32_t zones;
                        const char *text; } cases[] = {
    { "0", 1, "[0,0]" }, { "7", 8, "[7,7]" }, { "0-7", 8, "[0,7]" },
    { "3-3", 8, "[3,3]" }, { "0-7,12", 13, "[0,7][12,12]" },
    { "5,1,5,0-5", 6, "[5,5][1,1][5,5][0,5]" },
    { "4294967294", UINT32_MAX, "[4294967294,4294967294]" },
    { "0-4294967294", UINT32_MAX, "[0,4294967294]" },
    { "007", 8, "[7,7]" },
  };
  size_t i;

  (void) state;
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct walk w = { "", UINT32_MAX };
    const char *why;

    assert_int_equal (size_parse_zone_list (cases[i].str, cases[i].zones,
                                            note_range, &w, &why), 0);
    assert_string_equal (w.text, cases[i].text);
    assert_int_equal (size_parse_zone_list (cases[i].str, cases[i].zones,
                                            NULL, NULL, &why), 0);
  }
}

static void
lists_that_are_wrong (void **state)
{
  static const char backwards[] = "has a range that runs backwards";
  static const char no_zone[] = "names a zone that the disk does not have";
  static const struct { const char *str, *why; } cases[] = {
    { "", NO_LIST }, { ",", NO_LIST }, { "1,", NO_LIST }, { ",1", NO_LIST },
    { "1,,2", NO_LIST }, { "-", NO_LIST }, { "-1", NO_LIST },
    { "1-", NO_LIST }, { "1-2-3", NO_LIST }, { "1 ", NO_LIST },
    { " 1", NO_LIST }, { "1, 2", NO_LIST }, { "a", NO_LIST },
    { "0x1", NO_LIST }, { "1;2", NO_LIST }, { "1-,2", NO_LIST },
    { "3-2", backwards }, { "0,3-2", backwards },
    { "8", no_zone }, { "0-8", no_zone }, { "0,8", no_zone },
    { "4294967295", no_zone }, { "4294967296", no_zone },
    { "4294967304", no_zone }, { "18446744073709551616", no_zone },
    { "99999999999999999999999999", no_zone },
  };
  size_t i;

  (void) state;
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct walk w = { "", UINT32_MAX };
    const char *why = NULL;

    assert_int_equal (size_parse_zone_list (cases[i].str, 8, note_range, &w,
                                            &why), -1);
    assert_non_null (why);
    assert_string_equal (why, cases[i].why);
    assert_string_equal (w.text, "");
    assert_int_equal (size_parse_zone_list (cases[i].str, 8, NULL, NULL,
                                            &why), -1);
  }
}

static void
a_walk_ends_where_it_is_told (void **state)
{
  struct walk w = { "", 2 };
  const char *why;

  (void) state;
  assert_int_equal (size_parse_zone_list ("0,2-3,1", 4, note_range, &w,
                                          &why), 42);
  assert_string_equal (w.text, "[0,0][2,3]");
}

static void
names (void **state)
{
  static const char *const conds[16] = {
    "not-wp", "empty", "implicit-open", "explicit-open", "closed", NULL,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, "read-only", "full", "offline",
  };
  static const char *const types[] = {
    NULL, "conventional", "seq-write-required", "seq-write-preferred", NULL,
  };
  static const char *const models[] = {
    "none", "host-aware", "host-managed", NULL,
  };
  static const char *const ops[] = {
    NULL, "open", "close", "finish", "reset", NULL,
  };
  unsigned i;

  (void) state;
  for (i = 0; i < 16; ++i)
    assert_string_equal (znbd_cond_name (i), conds[i] ?: "unknown");
  for (i = 0; i < 5; ++i)
    assert_string_equal (znbd_type_name (i), types[i] ?: "unknown");
  for (i = 0; i < 4; ++i)
    assert_string_equal (znbd_model_name (i), models[i] ?: "unknown");
  for (i = 0; i < 6; ++i)
    assert_string_equal (znbd_op_name (i), ops[i] ?: "unknown");
  for (i = 16; i != 0; i <<= 1) {
    assert_string_equal (znbd_cond_name (i), "unknown");
    assert_string_equal (znbd_type_name (i), "unknown");
    assert_string_equal (znbd_model_name (i), "unknown");
    assert_string_equal (znbd_op_name (i), "unknown");
  }
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (sizes_that_are_right),
    cmocka_unit_test (sizes_that_are_wrong),
    cmocka_unit_test (texts_of_sizes),
    cmocka_unit_test (lists_that_are_right),
    cmocka_unit_test (lists_that_are_wrong),
    cmocka_unit_test (a_walk_ends_where_it_is_told),
    cmocka_unit_test (names),
  };

  return cmocka_run_group_tests (tests, NULL, NULL);
}
