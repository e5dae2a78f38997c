/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd io's commands for data.  A command is one request for its user, and
 * as many as the server's limits ask for on the wire, one after the other,
 * which is what a zone wants.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "io.h"

/* What write writes. */
#define WRITE_PATTERN 0xcd

/* Bytes of one request, unless the server takes less. */
#define REQUEST_MAX (32u << 20)

/* What stands behind a read or write. */
struct transfer {
  bool quiet, terse, dump;
  bool fua, zero, unmap, fast;
  int pattern;                  /* -1: none was given */
  int64_t pattern_start, pattern_length;        /* -1: not given */
  int64_t offset, length;
};

/* The disk's block size, or its largest request. */
static uint64_t
limit_of (const struct io *io, int which, uint64_t otherwise)
{
  const int64_t n = nbd_get_block_size (io->nbd, which);

  return n > 0 ? (uint64_t) n : otherwise;
}

static uint64_t
request_max (const struct io *io)
{
  const uint64_t max = limit_of (io, LIBNBD_SIZE_MAXIMUM, REQUEST_MAX);

  return max < REQUEST_MAX ? max : REQUEST_MAX;
}

/* 0, or -1 after a message. */
static int
read_options (struct transfer *t, int argc, char **argv)
{
  int c;

  while ((c = getopt (argc, argv, "abCl:pP:qs:v")) != -1)
    switch (c) {
    case 'C': t->terse = true; break;
    case 'q': t->quiet = true; break;
    case 'v': t->dump = true; break;
    case 'p': break;            /* ignored by qemu-io as well */
    case 'P':
      t->pattern = io_pattern (optarg);
      if (t->pattern == -1)
        return -1;
      break;
    case 'l':
    case 's':
      *(c == 'l' ? &t->pattern_length : &t->pattern_start) =
        io_number (optarg);
      if ((c == 'l' ? t->pattern_length : t->pattern_start) == -1)
        return -1;
      break;
    case 'a':
    case 'b':
      printf ("-%c of qemu-io's %s is not there: an NBD disk has neither "
              "metadata nor a VM state to read\n", c, argv[0]);
      return -1;
    default:
      io_usage (argv[0]);
      return -1;
    }
  return 0;
}

static int
write_options (struct transfer *t, int argc, char **argv)
{
  int c;

  while ((c = getopt (argc, argv, "bcCfnpP:qs:uz")) != -1)
    switch (c) {
    case 'C': t->terse = true; break;
    case 'f': t->fua = true; break;
    case 'n': t->fast = true; break;
    case 'p': break;            /* ignored by qemu-io as well */
    case 'P':
      t->pattern = io_pattern (optarg);
      if (t->pattern == -1)
        return -1;
      break;
    case 'q': t->quiet = true; break;
    case 'u': t->unmap = true; break;
    case 'z': t->zero = true; break;
    case 'b':
    case 'c':
    case 's':
      printf ("-%c of qemu-io's %s is not there: only bytes of a pattern, or "
              "zeroes, can be written\n", c, argv[0]);
      return -1;
    default:
      io_usage (argv[0]);
      return -1;
    }
  return 0;
}

/* The offset and length behind the options.  What is written as fast zeroes
 * (-n) has to fit into no memory. */
static int
read_range (struct transfer *t, bool write, int argc, char **argv)
{
  if (argc - optind != 2) {
    io_usage (argv[0]);
    return -1;
  }
  t->offset = io_number (argv[optind]);
  if (t->offset == -1)
    return -1;
  t->length = io_number (argv[optind + 1]);
  if (t->length == -1)
    return -1;
  if (t->length > IO_MAX_BYTES && !t->fast) {
    printf ("length cannot exceed %" PRIi64 "%s, given %s\n", IO_MAX_BYTES,
            write ? " without -n" : "", argv[optind + 1]);
    return -1;
  }
  return 0;
}

static bool
in_bounds (const struct io *io, const struct transfer *t)
{
  return (uint64_t) t->offset <= io->geometry.size &&
         (uint64_t) t->length <= io->geometry.size - t->offset;
}

/* ---- read ------------------------------------------------------------- */

/* 16 bytes a line: offset, hexadecimal, characters. */
static void
dump (const uint8_t *buf, int64_t offset, int64_t length)
{
  int64_t i, j, n;

  for (i = 0; i < length; i += 16) {
    n = length - i < 16 ? length - i : 16;
    printf ("%08" PRIx64 ":  ", (uint64_t) (offset + i));
    for (j = 0; j < n; ++j)
      printf ("%02x ", buf[i + j]);
    putchar (' ');
    for (j = 0; j < n; ++j)
      putchar (isalnum (buf[i + j]) ? buf[i + j] : '.');
    putchar ('\n');
  }
}

/* Reads length bytes, whole blocks.  0 or an errno. */
static int
read_blocks (struct io *io, uint8_t *buf, uint64_t offset, uint64_t length)
{
  const uint64_t max = request_max (io);
  uint64_t n;

  for (; length > 0; length -= n, offset += n, buf += n) {
    n = length < max ? length : max;
    if (nbd_pread (io->nbd, buf, n, offset, 0) == -1)
      return nbd_get_errno () ? nbd_get_errno () : EIO;
  }
  return 0;
}

/* Whether the bytes to be verified are of the pattern; says where not. */
static bool
verify (const struct transfer *t, const uint8_t *data)
{
  const int64_t start = t->pattern_start == -1 ? 0 : t->pattern_start;
  const int64_t length = t->pattern_length == -1 ? t->length - start
                         : t->pattern_length;
  int64_t i;

  for (i = start; i < start + length; ++i)
    if (data[i] != t->pattern) {
      printf ("Pattern verification failed at offset %" PRIi64 ", %" PRIi64
              " bytes\n", t->offset + start, length);
      return false;
    }
  return true;
}

enum io_result
io_read (struct io *io, int argc, char **argv)
{
  struct transfer t = {
    .pattern = -1, .pattern_start = -1, .pattern_length = -1
  };
  const uint64_t block = limit_of (io, LIBNBD_SIZE_MINIMUM, 1);
  struct timespec start;
  uint64_t first, end;
  uint8_t *buf, *data;
  bool good = true;
  int error;

  if (read_options (&t, argc, argv) == -1 ||
      read_range (&t, false, argc, argv) == -1)
    return IO_FAILED;
  if (t.pattern == -1 && (t.pattern_start != -1 || t.pattern_length != -1))
    return io_usage (argv[0]);
  if (t.pattern_start > t.length || t.pattern_length > t.length -
      (t.pattern_start == -1 ? 0 : t.pattern_start)) {
    printf ("pattern verification range exceeds end of read data\n");
    return IO_FAILED;
  }
  if (!in_bounds (io, &t)) {
    printf ("read failed: %s\n", strerror (EIO));
    return IO_FAILED;
  }

  /* Blocks are read whole. */
  first = t.offset / block * block;
  end = ((uint64_t) t.offset + t.length + block - 1) / block * block;
  buf = malloc (end > first ? end - first : 1);
  if (buf == NULL) {
    printf ("read failed: %s\n", strerror (ENOMEM));
    return IO_FAILED;
  }
  data = buf + (t.offset - first);
  clock_gettime (CLOCK_MONOTONIC, &start);
  error = t.length > 0 ? read_blocks (io, buf, first, end - first) : 0;
  if (error) {
    printf ("read failed: %s\n", strerror (error));
    good = false;
  }
  else {
    const double seconds = io_seconds_since (&start);

    if (t.pattern != -1)
      good = verify (&t, data);
    if (t.dump && !t.quiet)
      dump (data, t.offset, t.length);
    if (!t.quiet)
      io_statistics ("read", seconds, t.offset, t.length, t.terse);
  }
  free (buf);
  return good ? IO_OK : IO_FAILED;
}

/* ---- write ------------------------------------------------------------ */

/* The flags of a write; with a server that has no FUA, a flush follows. */
static uint32_t
write_flags (const struct io *io, const struct transfer *t)
{
  return t->fua && nbd_can_fua (io->nbd) == 1 ? LIBNBD_CMD_FLAG_FUA : 0;
}

/* Writes the pattern.  0 or an errno. */
static int
write_bytes (struct io *io, const struct transfer *t)
{
  const uint64_t max = request_max (io);
  const uint32_t flags = write_flags (io, t);
  uint64_t offset = t->offset, left = t->length, n;
  uint8_t *buf = malloc (left < max ? left + 1 : max);

  if (buf == NULL)
    return ENOMEM;
  memset (buf, t->zero ? 0 : t->pattern == -1 ? WRITE_PATTERN : t->pattern,
          left < max ? left : max);
  for (; left > 0; left -= n, offset += n) {
    n = left < max ? left : max;
    if (nbd_pwrite (io->nbd, buf, n, offset, flags) == -1) {
      const int error = nbd_get_errno ();

      free (buf);
      return error ? error : EIO;
    }
  }
  free (buf);
  return 0;
}

/* Has the server write zeroes.  0 or an errno. */
static int
write_zeroes (struct io *io, const struct transfer *t)
{
  const uint64_t max = UINT64_C (1) << 30;
  uint32_t flags = write_flags (io, t);
  uint64_t offset = t->offset, left = t->length, n;

  if (nbd_can_zero (io->nbd) != 1)
    return t->fast ? ENOTSUP : write_bytes (io, t);
  if (t->fast) {
    if (nbd_can_fast_zero (io->nbd) != 1)
      return ENOTSUP;
    flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
  }
  if (!t->unmap)
    flags |= LIBNBD_CMD_FLAG_NO_HOLE;
  for (; left > 0; left -= n, offset += n) {
    n = left < max ? left : max;
    if (nbd_zero (io->nbd, n, offset, flags) == -1)
      return nbd_get_errno () ? nbd_get_errno () : EIO;
  }
  return 0;
}

enum io_result
io_write (struct io *io, int argc, char **argv)
{
  struct transfer t = { .pattern = -1 };
  struct timespec start;
  char why[256];
  int error;

  if (write_options (&t, argc, argv) == -1)
    return IO_FAILED;
  if (argc - optind != 2)
    return io_usage (argv[0]);
  if ((t.fast || t.unmap) && !t.zero) {
    printf ("-%c requires -z to be specified\n", t.fast ? 'n' : 'u');
    return IO_FAILED;
  }
  if (t.zero && t.pattern != -1) {
    printf ("Only one of -z, -P, and -s can be specified at the same time\n");
    return IO_FAILED;
  }
  if (read_range (&t, true, argc, argv) == -1 || !io_may_change (io))
    return IO_FAILED;
  if (!in_bounds (io, &t)) {
    printf ("write failed: %s\n", strerror (EIO));
    return IO_FAILED;
  }

  io->changed = true;
  clock_gettime (CLOCK_MONOTONIC, &start);
  error = t.zero ? write_zeroes (io, &t) : write_bytes (io, &t);
  if (error) {
    printf ("write failed: %s\n", strerror (error));
    if (t.length > 0 &&
        znbd_explain_write (io->disk, t.offset, t.length, error, why,
                            sizeof why) > ZNBD_REFUSAL_UNKNOWN)
      cli_error ("%s", why);
    return IO_FAILED;
  }
  if (t.fua && nbd_can_fua (io->nbd) != 1 &&
      io_flush (io, 0, NULL) != IO_OK)
    return IO_FAILED;
  if (!t.quiet)
    io_statistics ("wrote", io_seconds_since (&start), t.offset, t.length,
                   t.terse);
  return IO_OK;
}

/* ---- the rest --------------------------------------------------------- */

enum io_result
io_flush (struct io *io, int argc, char **argv)
{
  (void) argc;
  (void) argv;
  if (znbd_flush (io->disk) == -1) {
    printf ("flush failed: %s\n",
            strerror (znbd_get_errno () ? znbd_get_errno () : EIO));
    cli_error ("%s", znbd_get_error ());
    return IO_FAILED;
  }
  io->changed = false;
  return IO_OK;
}

enum io_result
io_length (struct io *io, int argc, char **argv)
{
  char buf[IO_BYTES_MAX];

  (void) argc;
  (void) argv;
  printf ("%s\n", io_bytes (buf, io->geometry.size));
  return IO_OK;
}
