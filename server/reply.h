/* SPDX-License-Identifier: BSD-3-Clause */
/* Replies: simple, structured, or with extended headers, as the connection
 * has negotiated.
 */

#ifndef SERVER_REPLY_H
#define SERVER_REPLY_H

#include "conn.h"

/* message: up to 4096 bytes; it must live until the reply is sent. */
void reply_error (struct request *req, int error, const char *message);
void reply_ok (struct request *req);

/* The pieces of u.read, their data in buf from the first data on. */
void reply_read (struct request *req);

/* Writes a chunk's header for length bytes at p; returns its size. */
size_t reply_chunk (const struct request *req, uint8_t *p, uint16_t flags,
                    uint16_t type, uint64_t length);

#endif /* SERVER_REPLY_H */
