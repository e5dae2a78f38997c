/* SPDX-License-Identifier: BSD-3-Clause */
/* What -D server.FLAG says of the messages of the protocol. */

#ifndef SERVER_TRACE_H
#define SERVER_TRACE_H

#include <stdint.h>

struct request;

void trace_request (const struct request *req);
/* Where server.replies or server.slow is set. */
void trace_reply (const struct request *req);
/* An option's name. */
const char *trace_option (uint32_t option);

#endif /* SERVER_TRACE_H */
