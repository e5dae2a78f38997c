/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of nbd-load:
 *
 *   nbd-load.c      the command line, the run, what it prints
 *   load-connect.c  sockets and handshakes
 *   load-conn.c     requests and replies of one connection
 *
 * nbd-load is to cost so little that the server is what it measures: one
 * thread, no library, no formatting and no copying in the loop, as many
 * requests in a send as there are free places, as many replies in a receive
 * as there are.  What fails ends the program: figures of a run in which
 * something went wrong are worth nothing.
 */

#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "protocol.h"

struct load {
  /* As asked for. */
  const char *unix_path, *host, *port, *export;
  bool write, random, structured, fua;
  uint64_t block_size, offset, length;
  uint64_t zone_size;           /* 0: each connection has one run of blocks */
  unsigned depth, connections;
  double seconds;               /* 0: until count or the end */
  uint64_t count;               /* requests in all; 0: until seconds */

  /* Of the run. */
  uint64_t started, stop_at;    /* ns, monotonic; 0: no end */
  uint64_t issued, done;
  uint8_t *data;                /* what writes write: block_size bytes */
};

/* A request's place: its number is its cookie. */
struct place {
  struct proto_request head;
  uint64_t since;               /* ns */
};

struct load_conn {
  struct load *load;
  unsigned number;
  int fd;
  uint32_t poll;                /* EPOLL* bits that it is watched for */

  struct place *places;
  uint32_t *free;               /* a stack of numbers */
  unsigned nfree;

  /* To be sent. */
  struct iovec *iov;
  unsigned iov_at, niov;
  struct proto_request *heads;  /* of reads, side by side */

  /* Received. */
  uint8_t *in;
  size_t in_length;
  uint64_t skip;                /* bytes of data that are still to come, */
  uint64_t answering;           /* of the reply to this cookie */

  /* Where the next request goes. */
  uint64_t seed;                /* random */
  uint64_t unit;                /* sequential: number of a run of blocks, */
  uint64_t place;               /* and bytes of it already asked for */
  bool ended;                   /* nothing is left to ask for */

  uint64_t done;
};

/* ns, monotonic */
uint64_t load_now (void);

void load_die (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2), noreturn));

/* load-connect.c: returns a socket in the transmission phase, and the size
 * of what is served. */
int load_connect (const struct load *load, uint64_t *size);

/* load-conn.c.  lc_run sends and receives until it would have to wait, and
 * returns the EPOLL* bits to wait for, 0 at the end. */
void lc_init (struct load_conn *c, struct load *load, unsigned number);
void lc_free (struct load_conn *c);
uint32_t lc_run (struct load_conn *c);

/* nbd-load.c: a request took so many ns. */
void load_count (uint64_t ns);

#endif /* BENCH_LOAD_H */
