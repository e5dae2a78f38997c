/* SPDX-License-Identifier: BSD-3-Clause */
/* The server's replies, from the bytes of a connection.  No I/O.
 *
 * Nothing that a server sends is trusted: what is no reply to a command that
 * waits for one, or not of its form, is refused, and then the connection is
 * of no use any more, for nobody knows where the next reply begins.
 */

#ifndef ATTACH_REPLY_H
#define ATTACH_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What of a command in flight counts for its reply, and what came of it. */
struct reply_command {
  uint64_t cookie;
  uint16_t type;                /* NBD_CMD_... */
  uint32_t length;              /* READ: bytes of data */

  int error;                    /* errno; 0 before, and where it was done */
  const uint8_t *data;          /* READ: in the reader's memory until the next
                                 * reply_room */
  uint32_t told;                /* BLOCK_STATUS: flags of the first extent;
                                 * 0 before */
};

struct reply_reader {
  /* Who waits for a reply with that cookie; NULL: nobody. */
  struct reply_command *(*find) (void *opaque, uint64_t cookie);
  void *opaque;
  bool structured;              /* the connection has structured replies */
  uint8_t *memory;
  size_t size;
  size_t at, end;               /* bytes that are not read yet */
};

/* Bytes of memory that a reader needs where reads have length at most; with
 * more it takes more replies at once. */
#define REPLY_MEMORY(length) ((size_t) (length) + 8192)

/* Where bytes are to be received, and how many at most: never 0. */
uint8_t *reply_room (struct reply_reader *r, size_t *size);
/* n bytes are there now. */
void reply_received (struct reply_reader *r, size_t n);
/* Reads on: 1, *command has its reply; 0, more bytes have to be received
 * first; -1, *why is a static text. */
int reply_next (struct reply_reader *r, struct reply_command **command,
                const char **why);

#endif /* ATTACH_REPLY_H */
