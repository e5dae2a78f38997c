/* SPDX-License-Identifier: BSD-3-Clause */
/* The space of zones that were reset: kept for the writes that follow, and
 * given back when none come, when somebody needs it, when the disk is closed,
 * and after a kill.  Nothing that was written since goes with it.
 */

#include <config.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include "image-disk.h"

/* Of zones, in what stat counts. */
#define WORTH(blocks) ((blocks) * K4 / 512)

/* What records, and the log, take is no more than this. */
#define SMALL WORTH (8)

static long
space (void)
{
  struct stat st;

  assert_int_equal (stat (path, &st), 0);
  return st.st_blocks;
}

/* Waits until the file has no more than that. */
static void
assert_shrinks (long wanted)
{
  unsigned i;

  for (i = 0; i < 1500 && space () > wanted; i++)
    nanosleep (&(struct timespec) { .tv_nsec = 10000000 }, NULL);
  if (space () > wanted)
    fail_msg ("%ld left, not %ld", space (), wanted);
}

static void
reset (struct zdisk *disk, uint32_t zone)
{
  ok (disk, ZDISK_RESET, zone * ZONE, ZONE, NULL, 0);
}

/* Three full zones, two of which are then reset; what is used before. */
static struct zdisk *
begin (long *before)
{
  struct zdisk *disk;
  uint32_t i;

  create ();
  disk = open_disk (path);
  for (i = 3; i < 6; i++)
    fill (disk, i, 0, 60, i);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  *before = space ();
  reset (disk, 3);
  reset (disk, 4);
  ok (disk, ZDISK_FLUSH, 0, 0, NULL, 0);
  return disk;
}

static void
kept_and_given_back (void **state)
{
  struct zdisk *disk;
  long before;

  (void) state;
  disk = begin (&before);
  assert_true (space () >= before);
  fill (disk, 4, 0, 3, 14);
  assert_true (space () >= before);
  assert_shrinks (before - WORTH (60) - WORTH (40) + SMALL);
  assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
  assert_zone (disk, 4, ZNBD_COND_IMPLICIT_OPEN, 3, 14);
  assert_zone (disk, 5, ZNBD_COND_FULL, 60, 5);
  fill (disk, 4, 3, 57, 14);
  fill (disk, 3, 0, 60, 13);
  assert_zone (disk, 3, ZNBD_COND_FULL, 60, 13);
  assert_zone (disk, 4, ZNBD_COND_FULL, 60, 14);
  close_disk (disk);
}

/* Writes go on while it is given back. */
static void
written_meanwhile (void **state)
{
  struct zdisk *disk;
  unsigned i, j;
  long before;

  (void) state;
  disk = begin (&before);
  for (i = 0; i < 60; i++) {
    fill (disk, 4, i, 1, 14);
    if (i % 10 == 0)
      for (j = 0; j < 10; j++) {
        reset (disk, 3);
        fill (disk, 3, 0, 10, 13);
        nanosleep (&(struct timespec) { .tv_nsec = 50000000 }, NULL);
        assert_zone (disk, 3, ZNBD_COND_IMPLICIT_OPEN, 10, 13);
      }
  }
  assert_zone (disk, 4, ZNBD_COND_FULL, 60, 14);
  close_disk (disk);
}

static void
given_back_at_the_end (void **state)
{
  struct zdisk *disk;
  long before;

  (void) state;
  disk = begin (&before);
  fill (disk, 4, 0, 3, 14);
  reset (disk, 5);              /* which no flush has seen */
  close_disk (disk);
  assert_true (space () <= before - WORTH (3 * 60 - 3) + SMALL);
  disk = open_disk (path);
  assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
  assert_zone (disk, 4, ZNBD_COND_CLOSED, 3, 14);
  assert_zone (disk, 5, ZNBD_COND_EMPTY, 0, 0);
  close_disk (disk);
}

static void
given_back_after_a_kill (void **state)
{
  struct zdisk *disk;
  long before;
  int status;
  pid_t pid;

  (void) state;
  pid = fork ();
  if (pid == 0) {
    disk = begin (&before);
    fill (disk, 4, 0, 3, 14);
    _exit (0);
  }
  assert_int_equal (waitpid (pid, &status, 0), pid);
  assert_int_equal (status, 0);
  before = space ();
  assert_true (before >= WORTH (3 * 60));
  disk = open_disk (path);
  assert_int_equal (zdisk_start (disk, &err), 0);
  assert_shrinks (before - WORTH (2 * 60 - 3) + SMALL);
  assert_zone (disk, 3, ZNBD_COND_EMPTY, 0, 0);
  assert_zone (disk, 4, ZNBD_COND_CLOSED, 3, 14);
  assert_zone (disk, 5, ZNBD_COND_FULL, 60, 5);
  close_disk (disk);
}

int
main (void)
{
  const struct CMUnitTest tests[] = {
    cmocka_unit_test (kept_and_given_back),
    cmocka_unit_test (written_meanwhile),
    cmocka_unit_test (given_back_at_the_end),
    cmocka_unit_test (given_back_after_a_kill),
  };

  return cmocka_run_group_tests (tests, setup, teardown);
}
