/* SPDX-License-Identifier: BSD-3-Clause */
/* See trace.h. */

#include <config.h>

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "conn.h"
#include "debug.h"
#include "protocol.h"
#include "trace.h"

static const char *const commands[] = {
  [NBD_CMD_READ] = "READ", [NBD_CMD_WRITE] = "WRITE",
  [NBD_CMD_DISC] = "DISC", [NBD_CMD_FLUSH] = "FLUSH",
  [NBD_CMD_TRIM] = "TRIM", [NBD_CMD_CACHE] = "CACHE",
  [NBD_CMD_WRITE_ZEROES] = "WRITE_ZEROES",
  [NBD_CMD_BLOCK_STATUS] = "BLOCK_STATUS",
};

static const char *const flags[] = {
  "FUA", "NO_HOLE", "DF", "REQ_ONE", "FAST_ZERO", "PAYLOAD_LEN",
};

static const char *const options[] = {
  [NBD_OPT_EXPORT_NAME] = "NBD_OPT_EXPORT_NAME",
  [NBD_OPT_ABORT] = "NBD_OPT_ABORT",
  [NBD_OPT_LIST] = "NBD_OPT_LIST",
  [NBD_OPT_STARTTLS] = "NBD_OPT_STARTTLS",
  [NBD_OPT_INFO] = "NBD_OPT_INFO",
  [NBD_OPT_GO] = "NBD_OPT_GO",
  [NBD_OPT_STRUCTURED_REPLY] = "NBD_OPT_STRUCTURED_REPLY",
  [NBD_OPT_LIST_META_CONTEXT] = "NBD_OPT_LIST_META_CONTEXT",
  [NBD_OPT_SET_META_CONTEXT] = "NBD_OPT_SET_META_CONTEXT",
  [NBD_OPT_EXTENDED_HEADERS] = "NBD_OPT_EXTENDED_HEADERS",
};

#define LENGTH(a) (sizeof (a) / sizeof (a)[0])

const char *
trace_option (uint32_t option)
{
  return option < LENGTH (options) && options[option] ? options[option]
    : "unknown option";
}

/* Like "cookie 7 WRITE 8192 at 65536 FUA"; cookies as they stand on the
 * wire. */
static void
describe (const struct request *req, char *text, size_t size)
{
  uint64_t cookie = be64toh (req->cookie);
  const char *name = req->type < LENGTH (commands) ? commands[req->type]
    : NULL;
  unsigned i, left = req->flags;
  size_t n;

  n = snprintf (text, size, "cookie %" PRIu64 " %s", cookie,
                name ? name : "unknown command");
  if (name == NULL)
    n += snprintf (text + n, size - n, " %u", req->type);
  n += snprintf (text + n, size - n, " %" PRIu64 " at %" PRIu64, req->length,
                 req->offset);
  for (i = 0; i < LENGTH (flags); i++)
    if (left & 1u << i) {
      n += snprintf (text + n, size - n, " %s", flags[i]);
      left &= ~(1u << i);
    }
  if (left)
    snprintf (text + n, size - n, " unknown flags 0x%x", left);
}

void
trace_request (const struct request *req)
{
  char text[200];

  describe (req, text, sizeof text);
  debug ("connection %d: request %s", req->conn->fd, text);
}

void
trace_reply (const struct request *req)
{
  uint64_t us = debug_now () - req->came_at;
  const char *name = req->error ? strerrorname_np (req->error) : "ok";
  char text[200];

  if (!(debug_flags.server_replies > 1 ||
        (debug_flags.server_replies == 1 && req->error) ||
        (debug_flags.server_slow > 0 &&
         us >= debug_flags.server_slow * UINT64_C (1000))))
    return;
  describe (req, text, sizeof text);
  debug ("connection %d: reply %s: %s%s%s after %" PRIu64 " us",
         req->conn->fd, text, name ? name : "unknown error",
         req->error && req->why ? ", " : "",
         req->error && req->why ? req->why : "", us);
}
