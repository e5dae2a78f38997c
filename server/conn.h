/* SPDX-License-Identifier: BSD-3-Clause */
/* A connection, and a request on it.
 *
 * A connection belongs to one loop and is touched by that loop's thread
 * alone.  So are its requests, except while the disk has one; the disk may
 * give it back on any thread, which posts it to the loop.
 *
 * A request lives from its header's arrival until its reply is sent.  The
 * connection lives until it has no request and no I/O under way.
 */

#ifndef SERVER_CONN_H
#define SERVER_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "budget.h"
#include "disk.h"
#include "exports.h"
#include "protocol.h"
#include "ring.h"

struct appends;
struct conn;
struct loop;
struct tls;

/* A read is sent as at most this many pieces of data and holes. */
#define READ_PIECES 8

/* Reply headers: one for each piece of a read. */
#define REPLY_HEAD (READ_PIECES * (sizeof (struct proto_chunk_ext) + \
                                   sizeof (struct proto_hole)))
#define REPLY_IOV (2 * READ_PIECES)

struct read_piece {
  uint64_t offset;
  uint32_t length;
  bool hole;
};

struct request {
  struct request *next;         /* free, completed, to be sent, or one of
                                 * its connection's that are put off */
  struct conn *conn;
  void (*complete) (struct request *req);       /* the disk is done */

  /* As received. */
  uint64_t cookie, offset, length;
  uint16_t type, flags;
  bool aside;                   /* a write that others are to do, see conn.c */

  uint8_t *buf;                 /* from the loop's pool, of buf_size */
  bool mapped;                  /* a read whose data is to be sent from where
                                 * it is, if it is there then */
  size_t buf_size;
  size_t charge;                /* what it counts of the connection's bound */
  uint64_t came_at;             /* us, where -D asks for times */
  int refused;                  /* an errno known before the payload came */
  const char *why;
  int error;                    /* that was answered */
  uint32_t zones;               /* that it looks at, where it was put off */

  union {
    struct {                    /* READ */
      struct read_piece piece[READ_PIECES];
      unsigned npieces;
    } read;
    struct {                    /* BLOCK_STATUS */
      uint32_t contexts;        /* CONTEXT_* bits that it addresses */
      uint64_t answered;        /* armed management: length to answer */
    } status;
    struct append *append;      /* WRITE that is an append */
    struct {
      size_t pos;               /* zone table: the next request in buf */
      bool flushing;
    } table;
  } u;

  struct iovec out[REPLY_IOV];
  unsigned nout;
  uint8_t head[REPLY_HEAD];

  struct zdisk_request z;
};

/* Metadata contexts; the ids on the wire are number + 1. */
enum context {
  CONTEXT_ALLOCATION,
  CONTEXT_ZONES,
  CONTEXT_GEOMETRY,
  CONTEXT_APPEND,
  CONTEXT_OPEN, CONTEXT_CLOSE, CONTEXT_FINISH, CONTEXT_RESET,
  CONTEXT_OPEN_ALL, CONTEXT_CLOSE_ALL, CONTEXT_FINISH_ALL,
  CONTEXT_RESET_ALL,
  NR_CONTEXTS
};
#define CONTEXT_BIT(c) (1u << (c))

enum conn_phase {
  CONN_FLAGS,                   /* the client's handshake flags come next */
  CONN_OPTIONS,
  CONN_TLS,                     /* STARTTLS was accepted: TLS's handshake */
  CONN_TRANSMISSION,
  CONN_DRAINING,                /* nothing is read any more; answers go out */
  CONN_DEAD,                    /* nothing goes out either */
};

/* Iovecs of one send. */
#define SEND_IOV 512

struct conn {
  struct loop *loop;
  struct conn *prev, *next;     /* all of the loop's */
  struct conn *dirty_next;
  bool dirty;                   /* to be looked at before the loop waits */
  int fd;
  struct tls *tls;              /* NULL: plain; see conn-tls.h */
  enum conn_phase phase;
  bool stopping;                /* the drain has begun: parked writes gone */

  /* Receiving. */
  struct ring_op recv_op;
  struct msghdr recv_msg;
  struct iovec recv_iov[2];
  bool receiving;
  bool was_short;               /* the last receive: less than had room */
  uint8_t *in;                  /* RECV_SIZE bytes */
  size_t in_start, in_end;
  struct request *filling;      /* its payload is being received */
  uint64_t payload_left;
  struct pace fill_pace;
  unsigned large_ahead;         /* messages, one of which has a large payload */
  uint64_t skip;                /* bytes of an option that is too large */

  /* Sending. */
  struct ring_prompt send_op;
  struct msghdr send_msg;
  struct iovec send_iov[SEND_IOV];
  bool sending;
  struct pace send_pace;        /* of the send under way */
  struct request *replies, **replies_tail;      /* to be sent */
  struct request *sent;         /* in the send under way */
  uint8_t *out;                 /* handshake: replies to options */
  size_t out_len, out_size;
  size_t out_sending;           /* of them, in the send under way */

  /* Requests that exist, and the memory they hold. */
  unsigned nrequests;
  int64_t charged;              /* see budget.c */
  struct request *put_off, **put_off_tail;      /* see loop_put_off */
  struct conn *put_off_next;
  bool waits_for_memory;        /* and is in its loop's list */
  struct conn *waiting_next;

  uint64_t deadline;            /* ms: of the handshake, and of the end */

  /* Handshake. */
  unsigned noptions;
  bool fixed, no_zeroes;
  bool structured, extended;
  const struct export *contexts_export;
  uint32_t contexts;            /* selected: CONTEXT_* bits */

  /* Transmission. */
  const struct export *export;
  struct zdisk_client *client;
  struct appends *appends;
};

/* Takes over a socket; closes it where that fails. */
void conn_new (struct loop *loop, int fd);

/* Something may be done for the connection before the loop waits. */
void conn_touch (struct conn *c);

/* The same, by the loop: receives, carries on what was held back, sends,
 * and frees the connection where it has ended. */
void conn_look (struct conn *c);

/* Ends it after what is under way (drain), or at once. */
void conn_drain (struct conn *c);
void conn_kill (struct conn *c, const char *why);

/* Appends to what is sent in the handshake. */
void conn_out (struct conn *c, const void *data, size_t length);

/* Queues a request's reply. */
void conn_reply (struct request *req);

/* A request object; NULL: no memory.  request_free takes its buffer too. */
struct request *request_new (struct conn *c);
void request_free (struct request *req);
/* Gives it a buffer, which it must not have; false: no memory. */
bool request_buffer (struct request *req, size_t size);
void request_drop_buffer (struct request *req);

#endif /* SERVER_CONN_H */
