/* SPDX-License-Identifier: BSD-3-Clause */
/* libznbd against real servers: the plugin under nbdkit, and nbdkit's file
 * plugin with zone tables that a hostile server might send.
 *
 * tests/run names the plugin in PLUGIN.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <libnbd.h>

#include "libznbd.h"
#include "table.h"
#include "serve.h"

#define MiB (UINT64_C (1) << 20)

#define START(s, ...) START_SERVER (s, "nbdkit", __VA_ARGS__)

static const char *
plugin (void)
{
  const char *p = getenv ("PLUGIN");

  return p ? p : "zoned";
}

/* The disk of most tests: zones 0-1 conventional, 14 read-only, 15 offline,
 * 17 half a zone.  Each sequential zone takes 3 of its 4 MiB. */
#define DISK "size=70M", "zone-size=4M", "zone-capacity=3M", \
             "conventional=2", "max-open=3", "max-active=4", \
             "read-only-zones=14", "offline-zones=15"

static struct znbd_disk *
connect_to (const struct server *s)
{
  struct znbd_disk *disk = znbd_connect_uri (s->uri, 0);

  if (disk == NULL)
    fail_msg ("%s", znbd_get_error ());
  return disk;
}

static struct nbd_handle *
connect_nbd (const char *uri)
{
  struct nbd_handle *nbd = nbd_create ();

  assert_non_null (nbd);
  if (nbd_connect_uri (nbd, uri) == -1)
    fail_msg ("%s", nbd_get_error ());
  return nbd;
}

static unsigned
cond (struct znbd_disk *disk, uint32_t zone)
{
  struct znbd_zone z;

  if (znbd_report (disk, zone, 1, &z) != 1)
    fail_msg ("%s", znbd_get_error ());
  return z.cond;
}

/* Writes length bytes at offset of the data. */
static int
put (struct nbd_handle *nbd, uint64_t offset, size_t length)
{
  char *buf = calloc (1, length);
  int r;

  assert_non_null (buf);
  r = nbd_pwrite (nbd, buf, length, offset, 0);
  free (buf);
  return r;
}

/* ---- connecting ---- */

static void
no_connection (void **state)
{
  struct server s;

  (void) state;
  assert_null (znbd_connect_uri (NULL, 0));
  assert_int_equal (znbd_get_errno (), EINVAL);
  assert_null (znbd_connect_uri ("nbd+unix:///?socket=/nonexistent", 2));
  assert_int_equal (znbd_get_errno (), EINVAL);
  assert_null (znbd_connect_handle (NULL, 0));
  assert_int_equal (znbd_get_errno (), EINVAL);
  assert_null (znbd_connect_uri ("nbd+unix:///?socket=/nonexistent", 0));
  assert_int_equal (znbd_get_errno (), ENOENT);
  assert_non_null (strstr (znbd_get_error (), "/nonexistent"));
  assert_null (znbd_connect_uri ("nonsense", 0));
  assert_non_null (znbd_get_error ());
  assert_null (znbd_connect_uri ("http://localhost/", 0));
  assert_non_null (znbd_get_error ());
  znbd_close (NULL);

  /* a disk that is not zoned */
  START (&s, "memory", "1M");
  assert_null (znbd_connect_uri (s.uri, 0));
  assert_int_equal (znbd_get_errno (), EPROTO);
  stop (&s);
  START (&s, "null", "100");
  assert_null (znbd_connect_uri (s.uri, 0));
  assert_int_equal (znbd_get_errno (), EPROTO);
  stop (&s);

  /* a zoned one, but an export that it does not have; old NBD */
  START (&s, plugin (), DISK);
  {
    char uri[200];

    snprintf (uri, sizeof uri, "nbd+unix:///other?socket=%s/sock", s.dir);
    assert_null (znbd_connect_uri (uri, 0));
    assert_non_null (strstr (znbd_get_error (), "\"other/zones\""));
  }
  stop (&s);
  START (&s, "-o", plugin (), DISK);
  assert_null (znbd_connect_uri (s.uri, 0));
  assert_int_equal (znbd_get_errno (), ENOTSUP);
  stop (&s);
}

static void
connections (void **state)
{
  struct server s;
  struct znbd_geometry g, g2;
  struct znbd_disk *disk, *disk2;
  struct nbd_handle *nbd;

  (void) state;
  START (&s, plugin (), DISK);
  disk = connect_to (&s);
  assert_int_equal (znbd_get_geometry (disk, &g), 0);
  assert_true (g.size == 70 * MiB && g.zone_size == 4 * MiB);
  assert_int_equal (g.zones, 18);
  assert_int_equal (g.conventional, 2);
  assert_int_equal (g.max_open, 3);
  assert_int_equal (g.max_active, 4);
  assert_int_equal (g.granularity, 4096);
  assert_int_equal (g.model, ZNBD_MODEL_HOST_MANAGED);
  assert_int_equal (znbd_is_read_only (disk), 0);

  /* the table's own URI, and a handle of ours */
  disk2 = znbd_connect_uri (s.table_uri, 0);
  assert_non_null (disk2);
  assert_int_equal (znbd_get_geometry (disk2, &g2), 0);
  assert_memory_equal (&g, &g2, sizeof g);
  znbd_close (disk2);

  nbd = connect_nbd (s.table_uri);
  disk2 = znbd_connect_handle (nbd, 0);
  assert_non_null (disk2);
  assert_int_equal (znbd_get_geometry (disk2, &g2), 0);
  assert_memory_equal (&g, &g2, sizeof g);
  assert_int_equal (cond (disk2, 3), ZNBD_COND_EMPTY);
  assert_int_equal (znbd_manage (disk2, ZNBD_ZONE_OPEN, 3, 1, 0, NULL), 0);
  assert_int_equal (cond (disk, 3), ZNBD_COND_EXPLICIT_OPEN);
  assert_null (znbd_connect_handle (nbd, 1));
  znbd_close (disk2);
  assert_int_equal (nbd_aio_is_ready (nbd), 1);         /* still ours */
  nbd_close (nbd);

  /* the data's */
  nbd = connect_nbd (s.uri);
  assert_null (znbd_connect_handle (nbd, 0));
  assert_int_equal (znbd_get_errno (), EPROTO);
  nbd_close (nbd);

  /* a handle that is not connected */
  nbd = nbd_create ();
  assert_null (znbd_connect_handle (nbd, 0));
  nbd_close (nbd);
  znbd_close (disk);
  stop (&s);
}

/* ---- tables of hostile servers ---- */

static const struct znbd_geometry small = {
  .size = 10 * MiB, .zone_size = MiB, .zones = 10, .granularity = 4096,
  .model = ZNBD_MODEL_HOST_MANAGED,
};

/* Serves a table of the small disk with one byte changed, cut to bytes. */
static void
start_hostile (struct server *s, size_t offset, uint8_t value, size_t bytes)
{
  static uint8_t table[TABLE_HEADER_SIZE + 10 * TABLE_RECORD_SIZE + 64];
  char path[96], file[112];
  uint32_t i;
  int fd;

  memset (table, 0, sizeof table);
  table_encode_header (table, &small);
  for (i = 0; i < 10; ++i) {
    const struct znbd_zone z = {
      .start = i * MiB, .length = MiB, .capacity = MiB, .wp = i * MiB,
      .type = ZNBD_ZONE_SEQ_REQUIRED, .cond = ZNBD_COND_EMPTY,
    };

    table_encode_record (&table[table_record_offset (i)], &z);
  }
  table[offset] = value;

  make_dir (s);
  snprintf (path, sizeof path, "%s/table", s->dir);
  fd = open (path, O_CREAT | O_WRONLY | O_EXCL, 0600);
  assert_true (fd >= 0);
  assert_int_equal (write (fd, table, bytes), bytes);
  close (fd);
  snprintf (file, sizeof file, "file=%s", path);
  start_server (s, (const char *const[]) { "nbdkit", "file", file, NULL });
}

static void
hostile_tables (void **state)
{
  static const struct { size_t offset; uint8_t value; size_t bytes; } bad[] = {
    { 0, 'X', 4736 }, { 8, 2, 4736 }, { 15, 1, 4736 }, { 16, 9, 4736 },
    { 20, 11, 4736 }, { 23, 255, 4736 }, { 31, 255, 4736 },
    { 31, 128, 4736 }, { 39, 255, 4736 }, { 39, 127, 4736 },
    { 55, 255, 4736 }, { 59, 255, 4736 },
    { 0, 'Z', 4735 }, { 0, 'Z', 4800 }, { 0, 'Z', 4096 }, { 0, 'Z', 4095 },
    { 0, 'Z', 1 }, { 0, 'Z', 64 },
  };
  struct server s;
  struct znbd_disk *disk;
  struct znbd_zone zones[10];
  size_t i;

  (void) state;
  start_hostile (&s, 0, 'Z', 4736);
  disk = connect_to (&s);
  assert_int_equal (znbd_report (disk, 0, 10, zones), 10);
  znbd_close (disk);
  stop (&s);

  for (i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    start_hostile (&s, bad[i].offset, bad[i].value, bad[i].bytes);
    if (znbd_connect_uri (s.uri, 0) != NULL)
      fail_msg ("case %zu was taken", i);
    assert_int_equal (znbd_get_errno (), EPROTO);
    stop (&s);
  }

  /* One bad record: the others can still be had. */
  start_hostile (&s, 4096 + 5 * 64 + 8, 1, 4736);
  disk = connect_to (&s);
  assert_int_equal (znbd_report (disk, 0, 5, zones), 5);
  assert_int_equal (znbd_report (disk, 0, 10, zones), -1);
  assert_int_equal (znbd_get_errno (), EPROTO);
  assert_non_null (strstr (znbd_get_error (), "zone 5"));
  assert_int_equal (znbd_report (disk, 5, 1, zones), -1);
  assert_int_equal (znbd_report (disk, 6, 99, zones), 4);
  znbd_close (disk);
  stop (&s);
}

/* ---- the report ---- */

static void
reports (void **state)
{
  struct server s;
  struct znbd_disk *disk;
  struct znbd_zone z[20];
  uint32_t i;

  (void) state;
  START (&s, plugin (), DISK);
  disk = connect_to (&s);
  assert_int_equal (znbd_report (disk, 0, 20, z), 18);
  for (i = 0; i < 18; ++i) {
    assert_true (z[i].start == i * 4 * MiB);
    assert_true (z[i].length == (i == 17 ? 2 * MiB : 4 * MiB));
    assert_int_equal (z[i].type, i < 2 ? ZNBD_ZONE_CONVENTIONAL
                                       : ZNBD_ZONE_SEQ_REQUIRED);
    assert_int_equal (z[i].cond, i < 2 ? ZNBD_COND_NOT_WP
                      : i == 14 ? ZNBD_COND_READ_ONLY
                      : i == 15 ? ZNBD_COND_OFFLINE : ZNBD_COND_EMPTY);
    assert_true (z[i].capacity == (i < 2 ? 4 * MiB
                                   : i == 17 ? 2 * MiB : 3 * MiB));
    if (i >= 2 && i < 14)
      assert_true (z[i].wp == z[i].start);
  }
  assert_int_equal (znbd_report (disk, 17, 1, z), 1);
  assert_int_equal (znbd_report (disk, 17, UINT32_MAX, z), 1);
  assert_int_equal (znbd_report (disk, 18, 1, z), 0);
  assert_int_equal (znbd_report (disk, UINT32_MAX, UINT32_MAX, z), 0);
  assert_int_equal (znbd_report (disk, 3, 0, z), 0);
  znbd_close (disk);
  stop (&s);
}

/* More zones than one request carries, and than one write manages. */
static void
many_zones (void **state)
{
  const uint32_t zones = 200000;
  struct server s;
  struct znbd_disk *disk;
  struct znbd_zone *z = malloc (zones * sizeof *z);
  uint32_t done, i;

  (void) state;
  assert_non_null (z);
  START (&s, plugin (), "size=819200000", "zone-size=4096",
         "conventional=150000", "offline-zones=199000");
  disk = connect_to (&s);
  assert_int_equal (znbd_report (disk, 0, zones, z), zones);
  for (i = 0; i < zones; ++i)
    if (z[i].start != i * UINT64_C (4096) ||
        z[i].cond != (i < 150000 ? ZNBD_COND_NOT_WP
                      : i == 199000 ? ZNBD_COND_OFFLINE : ZNBD_COND_EMPTY))
      fail_msg ("zone %u", i);

  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_FINISH, 160000, 39000, 0,
                                 &done), 0);
  assert_int_equal (done, 39000);
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_FINISH, 160000, 40000, 0,
                                 &done), -1);
  assert_int_equal (done, 39000);
  assert_int_equal (znbd_get_errno (), EIO);
  assert_non_null (strstr (znbd_get_error (), "199000"));
  assert_int_equal (cond (disk, 159999), ZNBD_COND_EMPTY);
  assert_int_equal (cond (disk, 160000), ZNBD_COND_FULL);
  assert_int_equal (cond (disk, 198999), ZNBD_COND_FULL);
  assert_int_equal (cond (disk, 199001), ZNBD_COND_EMPTY);

  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_RESET, 149990, 50000, 0,
                                 &done), -1);
  assert_int_equal (done, 0);
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_OPEN, 150000, 20000, 0,
                                 &done), -1);
  assert_int_equal (done, 10000);
  assert_int_equal (cond (disk, 159999), ZNBD_COND_EXPLICIT_OPEN);
  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_RESET, 0), 0);
  assert_int_equal (znbd_report (disk, 0, zones, z), zones);
  for (i = 150000; i < zones; ++i)
    if (z[i].cond != (i == 199000 ? ZNBD_COND_OFFLINE : ZNBD_COND_EMPTY))
      fail_msg ("zone %u", i);
  free (z);
  znbd_close (disk);
  stop (&s);
}

/* ---- management ---- */

/* op on zones first to first + count - 1 fails, after done of them. */
static void
refused (struct znbd_disk *disk, enum znbd_zone_op op, uint32_t first,
         uint32_t count, uint32_t done, int error, const char *text)
{
  uint32_t n = 99;

  if (znbd_manage (disk, op, first, count, 0, &n) != -1)
    fail_msg ("%s of zone %u was taken", znbd_op_name (op), first);
  if (n != done || znbd_get_errno () != error ||
      strstr (znbd_get_error (), text) == NULL)
    fail_msg ("%s of zone %u: %u done, errno %d, %s", znbd_op_name (op),
              first, n, znbd_get_errno (), znbd_get_error ());
}

static void
done (struct znbd_disk *disk, enum znbd_zone_op op, uint32_t first,
      uint32_t count, unsigned wanted)
{
  uint32_t n = 99, i;

  if (znbd_manage (disk, op, first, count, 0, &n) == -1)
    fail_msg ("%s", znbd_get_error ());
  assert_int_equal (n, count);
  for (i = 0; i < count; ++i)
    assert_int_equal (cond (disk, first + i), wanted);
}

static void
management (void **state)
{
  struct server s;
  struct znbd_disk *disk;
  struct nbd_handle *nbd;

  (void) state;
  START (&s, plugin (), DISK);
  disk = connect_to (&s);
  nbd = connect_nbd (s.uri);

  done (disk, ZNBD_ZONE_OPEN, 2, 3, ZNBD_COND_EXPLICIT_OPEN);
  done (disk, ZNBD_ZONE_OPEN, 2, 3, ZNBD_COND_EXPLICIT_OPEN);
  refused (disk, ZNBD_ZONE_OPEN, 5, 1, 0, EOVERFLOW, "open limit");
  refused (disk, ZNBD_ZONE_OPEN, 3, 9, 2, EOVERFLOW, "zone 5 ");
  done (disk, ZNBD_ZONE_CLOSE, 2, 1, ZNBD_COND_EMPTY);

  /* closing made zone 3 empty; zone 5 was */
  refused (disk, ZNBD_ZONE_CLOSE, 3, 4, 2, EINVAL, "zone 5 is empty");
  refused (disk, ZNBD_ZONE_CLOSE, 3, 1, 0, EINVAL, "zone 3 is empty");
  done (disk, ZNBD_ZONE_FINISH, 2, 2, ZNBD_COND_FULL);
  done (disk, ZNBD_ZONE_FINISH, 2, 2, ZNBD_COND_FULL);
  refused (disk, ZNBD_ZONE_OPEN, 3, 2, 0, EINVAL, "zone 3 is full");
  refused (disk, ZNBD_ZONE_CLOSE, 3, 2, 0, EINVAL, "zone 3 is full");
  done (disk, ZNBD_ZONE_RESET, 2, 12, ZNBD_COND_EMPTY);
  done (disk, ZNBD_ZONE_RESET, 16, 2, ZNBD_COND_EMPTY);

  /* zones that nothing can be done with */
  for (unsigned op = ZNBD_ZONE_OPEN; op <= ZNBD_ZONE_RESET; ++op) {
    refused (disk, op, 0, 1, 0, EINVAL, "zone 0 is conventional");
    refused (disk, op, 1, 2, 0, EINVAL, "zone 1 is conventional");
    refused (disk, op, 14, 1, 0, EPERM, "zone 14 is read-only");
    refused (disk, op, 14, 2, 0, EPERM, "zone 14 is read-only");
    refused (disk, op, 15, 1, 0, EIO, "zone 15 is offline");
    refused (disk, op, 18, 1, 0, EINVAL, "no zone 18");
    refused (disk, op, 17, 2, 0, EINVAL, "no zone 18");
    refused (disk, op, 1, UINT32_MAX, 0, EINVAL, "no zone 4294967295");
    refused (disk, op, UINT32_MAX, UINT32_MAX, 0, EINVAL, "no zone ");
    refused (disk, op, 3, 0, 0, EINVAL, "");
  }
  refused (disk, 0, 3, 1, 0, EINVAL, "");
  refused (disk, 5, 3, 1, 0, EINVAL, "");
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_OPEN, 3, 1, 2, NULL), -1);

  /* the active limit: four zones written and closed */
  for (uint32_t i = 4; i < 8; ++i)
    assert_int_equal (put (nbd, i * 4 * MiB, 4096), 0);
  done (disk, ZNBD_ZONE_CLOSE, 5, 3, ZNBD_COND_CLOSED);
  refused (disk, ZNBD_ZONE_OPEN, 8, 1, 0, EOVERFLOW, "active limit");
  done (disk, ZNBD_ZONE_OPEN, 5, 1, ZNBD_COND_EXPLICIT_OPEN);
  done (disk, ZNBD_ZONE_FINISH, 5, 1, ZNBD_COND_FULL);
  done (disk, ZNBD_ZONE_OPEN, 8, 1, ZNBD_COND_EXPLICIT_OPEN);

  /* durable, and without anyone asking for the number */
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_RESET, 5, 1, ZNBD_FUA,
                                 NULL), 0);
  assert_int_equal (znbd_flush (disk), 0);
  nbd_close (nbd);
  znbd_close (disk);
  stop (&s);
}

static void
all_forms (void **state)
{
  struct server s;
  struct znbd_disk *disk;
  struct nbd_handle *nbd;
  uint32_t i;

  (void) state;
  START (&s, plugin (), DISK);
  disk = connect_to (&s);
  nbd = connect_nbd (s.uri);
  for (i = 4; i < 8; ++i)
    assert_int_equal (put (nbd, i * 4 * MiB, 4096), 0);

  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_CLOSE, 0), 0);
  for (i = 4; i < 8; ++i)
    assert_int_equal (cond (disk, i), ZNBD_COND_CLOSED);

  /* three of the four fit */
  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_OPEN, 0), -1);
  assert_int_equal (znbd_get_errno (), EOVERFLOW);
  assert_non_null (strstr (znbd_get_error (), "open limit"));
  assert_non_null (strstr (znbd_get_error (), "zone 7 "));
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_RESET, 7, 1, 0, NULL), 0);
  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_OPEN, ZNBD_FUA), 0);
  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_FINISH, 0), 0);
  for (i = 2; i < 14; ++i)
    assert_int_equal (cond (disk, i), i >= 4 && i < 7 ? ZNBD_COND_FULL
                                                      : ZNBD_COND_EMPTY);
  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_RESET, 0), 0);
  for (i = 2; i < 14; ++i)
    assert_int_equal (cond (disk, i), ZNBD_COND_EMPTY);
  assert_int_equal (cond (disk, 14), ZNBD_COND_READ_ONLY);
  assert_int_equal (cond (disk, 15), ZNBD_COND_OFFLINE);
  assert_int_equal (znbd_manage_all (disk, 0, 0), -1);
  assert_int_equal (znbd_get_errno (), EINVAL);
  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_OPEN, 8), -1);
  nbd_close (nbd);
  znbd_close (disk);
  stop (&s);
}

static void
read_only (void **state)
{
  struct server s;
  struct znbd_disk *disk;
  char text[200];

  (void) state;
  START (&s, "-r", plugin (), DISK);
  disk = connect_to (&s);
  assert_int_equal (znbd_is_read_only (disk), 1);
  refused (disk, ZNBD_ZONE_OPEN, 3, 1, 0, EPERM, "read-only");
  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_RESET, 0), -1);
  assert_int_equal (znbd_get_errno (), EPERM);
  assert_int_equal (znbd_explain (disk, ZNBD_ZONE_OPEN, 3, EPERM, text,
                                  sizeof text),
                    ZNBD_REFUSAL_EXPORT_READ_ONLY);
  assert_int_equal (znbd_explain_write (disk, 0, 1, EPERM, text,
                                        sizeof text),
                    ZNBD_REFUSAL_EXPORT_READ_ONLY);
  assert_int_equal (znbd_flush (disk), 0);
  znbd_close (disk);
  stop (&s);
}

/* ---- explaining ---- */

static void
explanations (void **state)
{
  struct server s;
  struct znbd_disk *disk;
  struct nbd_handle *nbd;
  char text[200];

#define EXPLAIN(offset, length, error, refusal, part) do {             \
    const int got = znbd_explain_write (disk, offset, length, error,   \
                                        text, sizeof text);            \
    if (got != (refusal) || strstr (text, part) == NULL)               \
      fail_msg ("%d: %s", got, text);                                  \
  } while (0)

  (void) state;
  START (&s, plugin (), DISK, "reorder-timeout=0");
  disk = connect_to (&s);
  nbd = connect_nbd (s.uri);
  nbd_set_strict_mode (nbd, 0);
  assert_int_equal (put (nbd, 8 * MiB, 65536), 0);

  /* Each is refused by the server too. */
  assert_int_equal (put (nbd, 8 * MiB, 4096), -1);
  EXPLAIN (8 * MiB, 4096, EINVAL, ZNBD_REFUSAL_POINTER,
           "write pointer of zone 2 stands at 8454144, not at 8388608");
  assert_int_equal (put (nbd, 8 * MiB + 131072, 4096), -1);
  EXPLAIN (8 * MiB + 131072, 4096, EINVAL, ZNBD_REFUSAL_POINTER, "zone 2");
  assert_int_equal (put (nbd, 11 * MiB, 4096), -1);
  EXPLAIN (11 * MiB, 4096, ENOSPC, ZNBD_REFUSAL_CAPACITY,
           "capacity of zone 2, which ends at 11534336");
  assert_int_equal (put (nbd, 70 * MiB - 4096, 8192), -1);
  EXPLAIN (70 * MiB - 4096, 8192, ENOSPC, ZNBD_REFUSAL_BOUNDS, "73400320");
  EXPLAIN (UINT64_MAX, 4096, ENOSPC, ZNBD_REFUSAL_BOUNDS, "73400320");
  EXPLAIN (4096, UINT64_MAX, ENOSPC, ZNBD_REFUSAL_BOUNDS, "73400320");
  assert_int_equal (put (nbd, 8 * MiB + 65536, 100), -1);
  EXPLAIN (8 * MiB + 65536, 100, EINVAL, ZNBD_REFUSAL_ALIGNMENT, "4096");
  EXPLAIN (8 * MiB + 1, 4096, EINVAL, ZNBD_REFUSAL_ALIGNMENT, "4096");
  assert_int_equal (put (nbd, 56 * MiB, 4096), -1);
  EXPLAIN (56 * MiB, 4096, EPERM, ZNBD_REFUSAL_ZONE_READ_ONLY, "zone 14");
  assert_int_equal (put (nbd, 60 * MiB, 4096), -1);
  EXPLAIN (60 * MiB, 4096, EIO, ZNBD_REFUSAL_OFFLINE, "zone 15");

  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_FINISH, 3, 1, 0, NULL), 0);
  assert_int_equal (put (nbd, 12 * MiB, 4096), -1);
  EXPLAIN (12 * MiB, 4096, ENOSPC, ZNBD_REFUSAL_FULL, "zone 3 is full");

  /* over the end of conventional zones into a sequential one */
  assert_int_equal (put (nbd, 8 * MiB - 8192, 16384), -1);
  EXPLAIN (8 * MiB - 8192, 16384, EINVAL, ZNBD_REFUSAL_POINTER, "zone 2");

  /* limits: three explicitly open zones, then four active ones */
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_OPEN, 4, 3, 0, NULL), 0);
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_FINISH, 2, 1, 0, NULL), 0);
  assert_int_equal (put (nbd, 32 * MiB, 4096), -1);
  EXPLAIN (32 * MiB, 4096, EINVAL, ZNBD_REFUSAL_OPEN_LIMIT,
           "3 of 3 zones are open");
  assert_int_equal (put (nbd, 24 * MiB, 4096), 0);
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_CLOSE, 6, 1, 0, NULL), 0);
  assert_int_equal (put (nbd, 36 * MiB, 4096), 0);
  assert_int_equal (put (nbd, 32 * MiB, 4096), -1);
  EXPLAIN (32 * MiB, 4096, EOVERFLOW, ZNBD_REFUSAL_ACTIVE_LIMIT,
           "4 of 4 zones are open or closed");

  /* An error that no limit gives is not laid to one; a write that would be
   * taken now; and nothing at all. */
  EXPLAIN (32 * MiB, 4096, EIO, ZNBD_REFUSAL_UNKNOWN, "zone 8");
  EXPLAIN (0, 4096, EIO, ZNBD_REFUSAL_UNKNOWN, "zone 0");
  EXPLAIN (36 * MiB + 4096, 4096, 0, ZNBD_REFUSAL_UNKNOWN, "37752832");
  EXPLAIN (0, 0, 0, ZNBD_REFUSAL_UNKNOWN, "");
#undef EXPLAIN

  assert_int_equal (znbd_explain (disk, ZNBD_ZONE_OPEN, 8, EINVAL, text,
                                  sizeof text), ZNBD_REFUSAL_ACTIVE_LIMIT);
  assert_int_equal (znbd_explain (disk, ZNBD_ZONE_OPEN, 99, EINVAL, text,
                                  sizeof text), ZNBD_REFUSAL_BOUNDS);
  assert_int_equal (znbd_explain (disk, ZNBD_ZONE_RESET, 1, EINVAL, text,
                                  sizeof text), ZNBD_REFUSAL_CONVENTIONAL);
  assert_int_equal (znbd_explain (disk, ZNBD_ZONE_CLOSE, 10, EINVAL, text,
                                  sizeof text), ZNBD_REFUSAL_EMPTY);
  assert_int_equal (znbd_explain (disk, ZNBD_ZONE_RESET, 10, EINVAL, text,
                                  sizeof text), ZNBD_REFUSAL_UNKNOWN);

  /* a short buffer is not overrun */
  memset (text, 'x', sizeof text);
  assert_int_equal (znbd_explain (disk, ZNBD_ZONE_RESET, 1, EINVAL, text, 7),
                    ZNBD_REFUSAL_CONVENTIONAL);
  assert_string_equal (text, "zone 1");
  assert_int_equal (text[7], 'x');
  nbd_close (nbd);
  znbd_close (disk);
  stop (&s);
}

/* ---- the server goes away; threads ---- */

static void
lost_server (void **state)
{
  struct server s;
  struct znbd_disk *disk;
  struct znbd_zone z;
  char text[200];

  (void) state;
  START (&s, plugin (), DISK);
  disk = connect_to (&s);
  kill (s.pid, SIGKILL);
  waitpid (s.pid, NULL, 0);
  assert_int_equal (znbd_report (disk, 3, 1, &z), -1);
  assert_true (znbd_get_errno () != 0);
  assert_int_equal (znbd_manage (disk, ZNBD_ZONE_RESET, 3, 2, 0, NULL), -1);
  assert_int_equal (znbd_manage_all (disk, ZNBD_ZONE_OPEN, 0), -1);
  assert_int_equal (znbd_explain (disk, ZNBD_ZONE_OPEN, 3, 0, text,
                                  sizeof text), -1);
  znbd_close (disk);
  remove_dir (&s);
}

struct worker {
  struct znbd_disk *disk;
  uint32_t zone;                /* its own */
  bool good;
};

static void *
work (void *arg)
{
  struct worker *w = arg;
  struct znbd_zone z;
  int i;

  w->good = znbd_get_error () == NULL && znbd_get_errno () == 0;
  for (i = 0; i < 200 && w->good; ++i)
    w->good =
      znbd_manage (w->disk, ZNBD_ZONE_FINISH, w->zone, 1, 0, NULL) == 0 &&
      znbd_report (w->disk, w->zone, 1, &z) == 1 &&
      z.cond == ZNBD_COND_FULL &&
      znbd_manage (w->disk, ZNBD_ZONE_CLOSE, w->zone, 1, 0, NULL) == -1 &&
      strstr (znbd_get_error (), "is full") != NULL &&
      znbd_manage (w->disk, ZNBD_ZONE_RESET, w->zone, 1, 0, NULL) == 0;
  return NULL;
}

static void
threads (void **state)
{
  struct server s;
  struct znbd_disk *disk;
  pthread_t thread[4];
  struct worker worker[4];
  uint32_t i;

  (void) state;
  START (&s, plugin (), DISK);
  disk = connect_to (&s);
  assert_null (znbd_connect_uri (NULL, 0));     /* this thread's error */
  for (i = 0; i < 4; ++i) {
    worker[i] = (struct worker) { .disk = disk, .zone = 4 + i };
    assert_int_equal (pthread_create (&thread[i], NULL, work, &worker[i]),
                      0);
  }
  for (i = 0; i < 4; ++i) {
    assert_int_equal (pthread_join (thread[i], NULL), 0);
    assert_true (worker[i].good);
  }
  assert_int_equal (znbd_get_errno (), EINVAL);
  assert_non_null (strstr (znbd_get_error (), "znbd_connect_uri"));
  znbd_close (disk);
  stop (&s);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (no_connection),
    cmocka_unit_test (connections),
    cmocka_unit_test (hostile_tables),
    cmocka_unit_test (reports),
    cmocka_unit_test (many_zones),
    cmocka_unit_test (management),
    cmocka_unit_test (all_forms),
    cmocka_unit_test (read_only),
    cmocka_unit_test (explanations),
    cmocka_unit_test (lost_server),
    cmocka_unit_test (threads),
  };

  signal (SIGPIPE, SIG_IGN);
  return cmocka_run_group_tests (tests, NULL, NULL);
}
