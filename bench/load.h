/* SPDX-License-Identifier: BSD-3-Clause */
/* Shared by the files of nbd-load, some of which the other programs have as
 * well:
 *
 *   load-common.c   errors and time
 *   nbd-load.c      the command line, the run, what it prints
 *   load-connect.c  sockets and handshakes
 *   load-conn.c     requests and replies of one connection
 *   load-tls.c      TLS beneath that
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
  const char *context;          /* to be selected, or NULL */
  const char *certificates;     /* the folder with the client's, or NULL */
  bool write, random, structured, extended, fua, tls;
  bool append;                  /* each write is followed by a status */
  bool flush;                   /* and here by a flush, once it is answered */
  uint64_t block_size, offset, length;
  uint64_t zone_size;           /* 0: each connection has one run of blocks */
  uint64_t zone_part;           /* of a zone, from its start */
  unsigned depth, connections;
  double seconds;               /* 0: until count or the end */
  uint64_t count;               /* requests in all; 0: until seconds */

  /* Of the run. */
  uint64_t started, stop_at;    /* ns, monotonic; 0: no end */
  uint64_t issued, done;
  uint8_t *data;                /* what writes write: block_size bytes */
  uint8_t *taken;               /* append: a bit for each block that one got */
};

/* A request's place: its number is its cookie.  Where a second message
 * belongs to a request, that one's cookie is number + depth. */
struct place {
  struct proto_request head, second;
  uint64_t since;               /* ns; 0: it is free */
  unsigned left;                /* answers that are to come */
  bool placed;                  /* append: it was told where it went */
};

struct load_tls;

struct load_conn {
  struct load *load;
  unsigned number;
  int fd;
  struct load_tls *tls;         /* NULL: plain */
  uint32_t poll;                /* EPOLL* bits that it is watched for */

  struct place *places;
  uint32_t *free;               /* a stack of numbers */
  unsigned nfree;
  uint32_t *seconds;            /* those whose flush is to be sent */
  unsigned nseconds;

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

/* With the program's name. */
void load_die (const char *fs, ...)
  __attribute__ ((format (printf, 1, 2), noreturn));

/* load-connect.c: gives a connection a socket in the transmission phase, and
 * returns the size of what is served. */
uint64_t load_connect (const struct load *load, struct load_conn *c);

/* load-conn.c.  lc_run sends and receives until it would have to wait, and
 * returns the EPOLL* bits to wait for, 0 at the end. */
void lc_init (struct load_conn *c, struct load *load, unsigned number);
void lc_free (struct load_conn *c);
uint32_t lc_run (struct load_conn *c);

/* load-tls.c: a session over a connected socket; the server's certificate is
 * not looked at.
 * lt_send and lt_receive are like sendmsg and recv, and wait where the socket
 * does; what lt_has_more, no socket tells.  lt_flush sends what was encrypted; false: it would have to wait. */
struct load_tls *lt_begin (const struct load *load, int fd);
ssize_t lt_send (struct load_tls *tls, const struct msghdr *msg);
ssize_t lt_receive (struct load_tls *tls, void *buf, size_t size);
bool lt_has_more (const struct load_tls *tls);
bool lt_flush (struct load_tls *tls);
char *lt_describe (struct load_tls *tls);       /* to be freed */
void lt_free (struct load_tls *tls);

/* nbd-load.c: a request took so many ns. */
void load_count (uint64_t ns);

#endif /* BENCH_LOAD_H */
