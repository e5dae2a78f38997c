/* SPDX-License-Identifier: BSD-3-Clause */
/* NBD_CMD_BLOCK_STATUS: what the contexts that it addresses answer, and the
 * zone management that some of them are.
 */

#ifndef SERVER_STATUS_H
#define SERVER_STATUS_H

#include "conn.h"

void status_start (struct request *req);

/* What the reply's buffer will take at most. */
size_t status_memory (const struct request *req);

/* One descriptor for the only context that the request addresses. */
void status_reply_one (struct request *req, uint64_t length, uint64_t flags);

#endif /* SERVER_STATUS_H */
