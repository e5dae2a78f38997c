/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes that are copied to a mapping of the image, in memory: which are, and
 * that they end where others' writes do, whatever becomes of the file
 * meanwhile.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/statfs.h>
#include <time.h>

#include <cmocka.h>

#define IMAGE_DIR "/dev/shm"
#include "image-disk.h"

/* From linux/magic.h. */
#define TMPFS 0x01021994

#define DATA_ZONE (60 * K4)     /* a zone's capacity */
#define THREADS 3
#define ROUNDS 300

static struct zdisk *
begin (void)
{
  struct zdisk *disk;

  create ();
  disk = open_disk (path);
  assert_int_equal (zdisk_start (disk, &err), 0);
  return disk;
}

/* Where the file has the data. */
static uint64_t
data_offset (void)
{
  struct image_superblock sb;
  uint8_t block[IMAGE_BLOCK];
  int fd = open (path, O_RDONLY);

  assert_int_equal (pread (fd, block, sizeof block, 0), sizeof block);
  assert_true (image_decode_superblock (block, &sb));
  close (fd);
  return sb.data_offset;
}

/* Pages of the mapping that is written to. */
static unsigned
mapped (void)
{
  FILE *f = fopen ("/proc/self/smaps", "re");
  unsigned long start, end, kib;
  bool ours = false;
  unsigned n = 0;
  char line[512], prot[8];

  assert_non_null (f);
  while (fgets (line, sizeof line, f)) {
    if (sscanf (line, "%lx-%lx %7s", &start, &end, prot) == 3)
      ours = strcmp (prot, "rw-s") == 0 && strstr (line, path) &&
        end - start == SIZE;
    else if (ours && sscanf (line, "Rss: %lu", &kib) == 1)
      n += kib / 4;
  }
  fclose (f);
  return n;
}

static void
again (struct zdisk *disk, uint32_t zone, int byte)
{
  ok (disk, ZDISK_RESET, zone * ZONE, ZONE, NULL, 0);
  fill (disk, zone, 0, 60, byte);
}

static void
written_again (void **state)
{
  struct zdisk *disk = begin ();
  int i;

  (void) state;
  fill (disk, 3, 0, 60, 1);
  assert_int_equal (mapped (), 0);
  for (i = 2; i < 5; i++) {
    again (disk, 3, i);
    assert_zone (disk, 3, ZNBD_COND_FULL, 60, i);
    assert_in_range (mapped (), 60, 64);
  }
  /* In part, and what is not there yet with what is. */
  ok (disk, ZDISK_RESET, 3 * ZONE, ZONE, NULL, 0);
  fill (disk, 3, 0, 7, 5);
  fill (disk, 3, 7, 1, 5);
  assert_zone (disk, 3, ZNBD_COND_IMPLICIT_OPEN, 8, 5);
  close_disk (disk);
  disk = open_disk (path);
  assert_zone (disk, 3, ZNBD_COND_CLOSED, 8, 5);
  close_disk (disk);
}

/* Anywhere, and what has come and gone meanwhile. */
static void
conventional (void **state)
{
  struct zdisk *disk = begin ();
  uint8_t buf[4 * K4];
  unsigned i, j;

  (void) state;
  for (i = 1; i < 6; i++) {
    fill (disk, 0, 8, 4, 10 * i);
    fill (disk, 0, 9, 2, 10 * i + 1);
    ok (disk, ZDISK_READ, 8 * K4, sizeof buf, buf, 0);
    for (j = 0; j < sizeof buf; j++)
      assert_int_equal (buf[j], 10 * i + (j / K4 == 1 || j / K4 == 2));
    assert_in_range (mapped (), i == 1 ? 2 : 4, 64);
    if (i == 3) {
      ok (disk, ZDISK_TRIM, 8 * K4, 2 * K4, NULL, 0);
      ok (disk, ZDISK_ZERO, 10 * K4, K4, NULL, 0);
      ok (disk, ZDISK_READ, 8 * K4, sizeof buf, buf, 0);
      for (j = 0; j < sizeof buf; j++)
        assert_int_equal (buf[j], j / K4 < 3 ? 0 : 10 * i);
    }
  }
  close_disk (disk);
}

/* Nothing of what is given back is taken to be there. */
static void
given_back (void **state)
{
  struct zdisk *disk = begin ();
  unsigned i;

  (void) state;
  fill (disk, 4, 0, 60, 1);
  again (disk, 4, 2);
  ok (disk, ZDISK_RESET, 4 * ZONE, ZONE, NULL, 0);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  for (i = 0; i < 1000 && mapped () > 0; i++)
    nanosleep (&(struct timespec) { .tv_nsec = 10000000 }, NULL);
  assert_int_equal (mapped (), 0);
  fill (disk, 4, 0, 60, 3);
  assert_int_equal (mapped (), 0);
  assert_zone (disk, 4, ZNBD_COND_FULL, 60, 3);
  again (disk, 4, 4);
  assert_int_equal (mapped (), 60);
  assert_zone (disk, 4, ZNBD_COND_FULL, 60, 4);
  close_disk (disk);
}

/* Somebody else takes what is mapped away. */
static void
punched_by_others (void **state)
{
  struct zdisk *disk = begin ();
  int fd, i;

  (void) state;
  fill (disk, 3, 0, 60, 1);
  fill (disk, 4, 0, 60, 1);
  for (i = 2; i < 4; i++) {
    again (disk, 3, i);
    fd = open (path, O_RDWR);
    assert_int_equal (image_punch (fd, data_offset () + 3 * ZONE, ZONE), 0);
    close (fd);
  }
  again (disk, 3, 4);
  assert_zone (disk, 3, ZNBD_COND_FULL, 60, 4);
  assert_zone (disk, 4, ZNBD_COND_FULL, 60, 1);
  close_disk (disk);
}

static void
cut_off_below_reads (void)
{
  struct zdisk *disk = begin ();
  uint8_t *buf = malloc (ZONE);
  int i;

  fill (disk, 3, 0, 60, 1);
  fill (disk, 4, 0, 60, 1);
  ok (disk, ZDISK_READ, 4 * ZONE, DATA_ZONE, buf, 0);
  assert_in_range (mapped (), 60, 60 + 2 * 16);        /* the kernel rounds */
  assert_int_equal (truncate (path, data_offset () + 4 * ZONE + 12 * K4), 0);
  for (i = 0; i < 2; i++)
    assert_int_equal (run (disk, ZDISK_READ, 4 * ZONE, DATA_ZONE, buf, 0),
                      EIO);
  ok (disk, ZDISK_READ, 4 * ZONE, 12 * K4, buf, 0);
  for (i = 0; i < (int) (12 * K4); i++)
    assert_int_equal (buf[i], 1);
  assert_zone (disk, 3, ZNBD_COND_FULL, 60, 1);
  /* No commit is made of such a file. */
  assert_int_equal (zdisk_close (disk, &err), -1);
  free (buf);
}

static void
cut_off_below_writes (void)
{
  struct zdisk *disk = begin ();
  uint32_t i;

  for (i = 3; i < 6; i++) {
    fill (disk, i, 0, 60, 1);
    again (disk, i, 2);
  }
  ok (disk, ZDISK_RESET, 4 * ZONE, ZONE, NULL, 0);
  fill (disk, 4, 0, 10, 3);
  assert_int_equal (truncate (path, data_offset () + 4 * ZONE + 12 * K4), 0);
  fill (disk, 4, 10, 50, 3);
  assert_zone (disk, 4, ZNBD_COND_FULL, 60, 3);
  assert_zone (disk, 3, ZNBD_COND_FULL, 60, 2);
  assert_int_equal (mapped (), 0);      /* what was no longer stands */
  fill (disk, 6, 0, 60, 4);
  assert_zone (disk, 6, ZNBD_COND_FULL, 60, 4);
  assert_zone (disk, 3, ZNBD_COND_FULL, 60, 2);
  assert_int_equal (zdisk_close (disk, &err), -1);
}

/* Before each test cmocka handles SIGBUS; we, from the first image on: this
 * is the first test. */
static void
cut_off (void **state)
{
  (void) state;
  cut_off_below_reads ();
  cut_off_below_writes ();
}

struct work {
  struct zdisk *disk;
  uint32_t zone;
  unsigned wrong;
};

static void *
work (void *arg)
{
  struct work *w = arg;
  struct zdisk_client *client = zdisk_client_new (w->disk, false);
  uint8_t *buf = malloc (DATA_ZONE);
  unsigned i, j;

  for (i = 0; i < ROUNDS && w->wrong == 0; i++) {
    struct zdisk_request reset = {
      .op = ZDISK_RESET, .offset = w->zone * ZONE, .length = ZONE,
    };

    w->wrong += zdisk_run (client, &reset) != 0;
    for (j = 0; j < 60; j += 4) {
      struct zdisk_request write = {
        .op = ZDISK_WRITE, .offset = w->zone * ZONE + j * K4,
        .length = 4 * K4, .buf = buf,
      };

      memset (buf, i + j, 4 * K4);
      w->wrong += zdisk_run (client, &write) != 0;
    }
    if (i == ROUNDS / 2)        /* something is given back */
      nanosleep (&(struct timespec) { .tv_sec = 2 }, NULL);
    if (i % 8 == 0) {
      struct zdisk_request read = {
        .op = ZDISK_READ, .offset = w->zone * ZONE, .length = DATA_ZONE,
        .buf = buf,
      };

      w->wrong += zdisk_run (client, &read) != 0;
      for (j = 0; j < DATA_ZONE; j++)
        w->wrong += buf[j] != (uint8_t) (i + j / (4 * K4) * 4);
    }
  }
  free (buf);
  zdisk_client_close (client);
  return NULL;
}

static void
by_many_threads (void **state)
{
  struct work w[THREADS];
  pthread_t thread[THREADS];
  struct zdisk *disk = begin ();
  unsigned i;

  (void) state;
  for (i = 0; i < THREADS; i++) {
    w[i] = (struct work) { .disk = disk, .zone = 3 + i };
    assert_int_equal (pthread_create (&thread[i], NULL, work, &w[i]), 0);
  }
  for (i = 0; i < THREADS; i++) {
    pthread_join (thread[i], NULL);
    assert_int_equal (w[i].wrong, 0);
  }
  assert_in_range (mapped (), 60, 64 * THREADS);
  close_disk (disk);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (cut_off),
    cmocka_unit_test (written_again),
    cmocka_unit_test (conventional),
    cmocka_unit_test (given_back),
    cmocka_unit_test (punched_by_others),
    cmocka_unit_test (by_many_threads),
  };
  struct statfs fs;

  if (statfs (IMAGE_DIR, &fs) == -1 || fs.f_type != TMPFS ||
      access (IMAGE_DIR, W_OK) == -1) {
    printf ("1..0 # SKIP no tmpfs in " IMAGE_DIR "\n");
    return 0;
  }
  return cmocka_run_group_tests (tests, setup, teardown);
}
