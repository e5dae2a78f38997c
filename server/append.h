/* SPDX-License-Identifier: BSD-3-Clause */
/* x-zbd:append: writes that go to their zone's pointer, and the answers to
 * where they went.
 */

#ifndef SERVER_APPEND_H
#define SERVER_APPEND_H

#include "conn.h"

/* Whether a WRITE is an append. */
bool append_wanted (const struct request *req);

void append_start (struct request *req);

/* BLOCK_STATUS on a connection that appends. */
void append_status (struct request *req);

void appends_free (struct appends *a);

#endif /* SERVER_APPEND_H */
