/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of znbd io share.
 *
 * Its users know qemu-io, and scripts read what that prints: formats,
 * standard output or standard error, and exit status are qemu-io's.  Where
 * a server refuses, why is said on standard error besides.
 */

#ifndef IO_H
#define IO_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <libnbd.h>

#include "libznbd.h"

/* The most bytes of one read or write: 2 GiB less a sector. */
#define IO_MAX_BYTES INT64_C (2147483136)

struct io {
  struct znbd_disk *disk;
  struct nbd_handle *nbd;       /* of the disk's data; libznbd's */
  struct znbd_geometry geometry;
  bool readonly;                /* asked for, or what the server says */
  bool changed;                 /* there may be something to flush */
};

enum io_result { IO_OK, IO_FAILED, IO_QUIT };

/* Runs a command with its arguments, which are cut out of line. */
enum io_result io_command (struct io *io, char *line);

/* The commands.  argv[0] is the name as it was typed. */
enum io_result io_read (struct io *io, int argc, char **argv);
enum io_result io_write (struct io *io, int argc, char **argv);
enum io_result io_flush (struct io *io, int argc, char **argv);
enum io_result io_length (struct io *io, int argc, char **argv);
enum io_result io_zone_report (struct io *io, int argc, char **argv);
enum io_result io_zone_manage (struct io *io, int argc, char **argv);
enum io_result io_zone_append (struct io *io, int argc, char **argv);

/* Says how a command is used. */
enum io_result io_usage (const char *name);

/* Whether the disk may be changed; says so where it may not. */
bool io_may_change (struct io *io);

/* ---- numbers, in io-number.c ---- */

/* A number of bytes: decimal, with a fraction and one of b, k, M, G, T, P, E
 * behind it, or hexadecimal.  -1 after a message. */
int64_t io_number (const char *arg);

/* A byte, decimal, octal or hexadecimal.  -1 after a message. */
int io_pattern (const char *arg);

/* "1.500 MiB".  Returns buf. */
#define IO_BYTES_MAX 48
const char *io_bytes (char buf[IO_BYTES_MAX], double bytes);

double io_seconds_since (const struct timespec *start);

/* How a read or write of count bytes went: two lines, or one for
 * programs. */
void io_statistics (const char *did, double seconds, int64_t offset,
                    int64_t count, bool terse);

#endif /* IO_H */
