/* SPDX-License-Identifier: BSD-3-Clause */
/* The handshake: fixed newstyle, in handshake.c, and its options about
 * metadata contexts, in handshake-meta.c.
 */

#ifndef SERVER_HANDSHAKE_H
#define SERVER_HANDSHAKE_H

#include <sys/types.h>

#include "conn.h"

/* Sends the server's first words. */
void handshake_greet (struct conn *c);

/* Takes one message of those received; returns its length, or 0 where it
 * is not all there.  May end the connection. */
ssize_t handshake_parse (struct conn *c, const uint8_t *p, size_t n);

/* For handshake-meta.c: a reply to an option. */
void option_reply (struct conn *c, uint32_t option, uint32_t type,
                   const void *data, size_t length);
void option_error (struct conn *c, uint32_t option, uint32_t type,
                   const char *fs, ...)
  __attribute__ ((format (printf, 4, 5)));

/* A reader of an option's data: each takes something from the front, false
 * where it is not there. */
struct option_data {
  const uint8_t *p;
  size_t left;
  size_t behind;                /* bytes that came after the option */
};
bool option_u16 (struct option_data *d, uint16_t *v);
bool option_u32 (struct option_data *d, uint32_t *v);
bool option_string (struct option_data *d, const char **s, size_t *length);

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
void option_meta_context (struct conn *c, uint32_t option,
                          struct option_data d);

#endif /* SERVER_HANDSHAKE_H */
