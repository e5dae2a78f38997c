/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands: parsing their headers, checking them, and having the disk do
 * them.
 */

#ifndef SERVER_REQUEST_H
#define SERVER_REQUEST_H

#include <sys/types.h>

#include "conn.h"

/* Takes one command's header of what was received; returns its length, or
 * 0 where it is not all there, or REQUEST_WAITS where there is no memory for
 * it now.  May end the connection. */
#define REQUEST_WAITS (-1)
ssize_t request_parse (struct conn *c, const uint8_t *p, size_t n);

/* Begins with a request whose payload, if it has one, is there. */
void request_start (struct request *req);

/* For status.c, append.c and table-export.c: gives z to the disk, with
 * what is to follow; op, flags, offset and length are set from the
 * arguments, FUA from the request. */
void request_submit (struct request *req, enum zdisk_op op, unsigned flags,
                     uint64_t offset, uint64_t length,
                     void (*complete) (struct request *req));

/* A read's data, which was to be sent from where it is: sets where that is
 * in its reply; false where it has to be read first, which has begun.
 * request_read begins with that at once. */
bool request_find (struct request *req);
void request_read (struct request *req);

/* Replies with what the disk said. */
void request_complete (struct request *req);

/* table-export.c: a command for the zone table. */
void table_export_start (struct request *req);

/* Memory that is not in its buffer. */
void request_charge (struct request *req, size_t bytes);

#endif /* SERVER_REQUEST_H */
