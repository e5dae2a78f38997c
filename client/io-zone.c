/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd io's commands for zones.  Their units are sectors of 512 bytes in
 * what is printed, bytes in what is typed.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "io.h"
#include "size.h"

#define SECTOR 512

/* Zones fetched at once. */
#define BLOCK 4096u

/* What zone_append writes. */
#define APPEND_PATTERN 0xcd

/* On standard output in qemu-io's words, on standard error in ours. */
static enum io_result
failed (const char *what, int error, const char *why)
{
  printf ("zone %s failed: %s\n", what, strerror (error ? error : EIO));
  if (why)
    cli_error ("%s", why);
  return IO_FAILED;
}

static enum io_result
failed_here (const char *what)
{
  return failed (what, znbd_get_errno (), znbd_get_error ());
}

static void
print_zone (const struct znbd_zone *z)
{
  printf ("start: 0x%" PRIx64 ", len 0x%" PRIx64 ", cap 0x%" PRIx64
          ", wptr 0x%" PRIx64 ", zcond:%u, [type: %u]\n",
          z->start / SECTOR, z->length / SECTOR, z->capacity / SECTOR,
          z->wp / SECTOR, z->cond, z->type);
}

enum io_result
io_zone_report (struct io *io, int argc, char **argv)
{
  struct znbd_zone *zones;
  int64_t offset, count, n = 0, i;
  uint32_t first;

  (void) argc;
  offset = io_number (argv[1]);
  if (offset == -1)
    return IO_FAILED;
  count = io_number (argv[2]);
  if (count == -1)
    return IO_FAILED;
  if (count == 0)
    return failed ("report", EINVAL, "no zones were asked for");
  if ((uint64_t) offset >= io->geometry.size)
    return IO_OK;

  zones = malloc (BLOCK * sizeof *zones);
  if (zones == NULL)
    return failed ("report", ENOMEM, NULL);
  first = offset / io->geometry.zone_size;
  for (; count > 0 && first < io->geometry.zones; count -= n, first += n) {
    n = znbd_report (io->disk, first, count < BLOCK ? count : BLOCK, zones);
    if (n <= 0)
      break;
    for (i = 0; i < n; ++i)
      print_zone (&zones[i]);
  }
  free (zones);
  return n == -1 ? failed_here ("report") : IO_OK;
}

/* Whether this is a zone's start; says so where it is not. */
static bool
is_start (const struct io *io, const char *what, int64_t offset)
{
  char text[160], size[SIZE_TEXT_MAX];

  if ((uint64_t) offset >= io->geometry.size)
    snprintf (text, sizeof text, "offset %" PRIi64 " is not below the disk's "
              "size %" PRIu64, offset, io->geometry.size);
  else if (offset % io->geometry.zone_size != 0)
    snprintf (text, sizeof text, "offset %" PRIi64 " is no zone's start: no "
              "multiple of the zone size %s", offset,
              size_text (size, io->geometry.zone_size));
  else
    return true;
  failed (what, EINVAL, text);
  return false;
}

static enum io_result
manage_range (struct io *io, enum znbd_zone_op op, int64_t offset,
              int64_t length)
{
  const struct znbd_geometry *g = &io->geometry;
  const char *what = znbd_op_name (op);
  char text[160], size[SIZE_TEXT_MAX];
  uint64_t end;
  uint32_t first;

  if (!is_start (io, what, offset))
    return IO_FAILED;
  end = (uint64_t) offset + length;     /* both are below 2^63 */
  if (length == 0 || end > g->size ||
      (end % g->zone_size != 0 && end != g->size)) {
    snprintf (text, sizeof text, "length %" PRIi64 " is not made of whole "
              "zones of %s up to the disk's end", length,
              size_text (size, g->zone_size));
    return failed (what, EINVAL, text);
  }
  io->changed = true;

  /* The whole disk: conventional zones do not stand in the way. */
  if (op == ZNBD_ZONE_RESET && offset == 0 && end == g->size)
    return znbd_manage_all (io->disk, op, 0) == -1 ? failed_here (what)
           : IO_OK;
  first = offset / g->zone_size;
  if (znbd_manage (io->disk, op, first, (end - 1) / g->zone_size - first + 1,
                   0, NULL) == -1)
    return failed_here (what);
  return IO_OK;
}

enum io_result
io_zone_manage (struct io *io, int argc, char **argv)
{
  static const struct {
    const char *name, *alias;
    enum znbd_zone_op op;
  } ops[] = {
    { "zone_open", "zo", ZNBD_ZONE_OPEN },
    { "zone_close", "zc", ZNBD_ZONE_CLOSE },
    { "zone_finish", "zf", ZNBD_ZONE_FINISH },
    { "zone_reset", "zrs", ZNBD_ZONE_RESET },
  };
  int64_t offset, length;
  size_t i = 0;

  (void) argc;
  while (strcmp (ops[i].name, argv[0]) != 0 &&
         strcmp (ops[i].alias, argv[0]) != 0)
    i++;
  offset = io_number (argv[1]);
  if (offset == -1)
    return IO_FAILED;
  length = io_number (argv[2]);
  if (length == -1)
    return IO_FAILED;
  if (!io_may_change (io))
    return IO_FAILED;
  return manage_range (io, ops[i].op, offset, length);
}

/* The sum of lengths; -1 after a message. */
static int64_t
add_lengths (char **argv)
{
  int64_t length, total = 0;

  for (; *argv; ++argv) {
    length = io_number (*argv);
    if (length == -1)
      return -1;
    if (length > IO_MAX_BYTES) {
      printf ("Argument '%s' exceeds maximum size %" PRIi64 "\n", *argv,
              IO_MAX_BYTES);
      return -1;
    }
    total += length;
    if (total > IO_MAX_BYTES) {
      printf ("The total number of bytes exceed the maximum size %" PRIi64
              "\n", IO_MAX_BYTES);
      return -1;
    }
  }
  return total;
}

enum io_result
io_zone_append (struct io *io, int argc, char **argv)
{
  bool tell = false;
  int64_t offset, length;
  uint64_t where;
  void *buf;
  int c, r;

  while ((c = getopt (argc, argv, "p")) != -1) {
    if (c != 'p')
      return io_usage (argv[0]);
    tell = true;
  }
  if (argc - optind < 2)
    return io_usage (argv[0]);
  offset = io_number (argv[optind]);
  if (offset == -1)
    return IO_FAILED;
  length = add_lengths (&argv[optind + 1]);
  if (length == -1 || !io_may_change (io) || !is_start (io, "append", offset))
    return IO_FAILED;

  buf = malloc (length > 0 ? length : 1);
  if (buf == NULL)
    return failed ("append", ENOMEM, NULL);
  memset (buf, APPEND_PATTERN, length);
  io->changed = true;
  r = znbd_append (io->disk, offset / io->geometry.zone_size, buf, length, 0,
                   &where);
  free (buf);
  if (r == -1)
    return failed_here ("append");
  if (tell)
    printf ("After zap done, the append sector is 0x%" PRIx64 "\n",
            where / SECTOR);
  return IO_OK;
}
