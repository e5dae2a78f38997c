/* SPDX-License-Identifier: BSD-3-Clause */
/* The NBD protocol's numbers and messages, as the specification (doc/proto.md
 * of NetworkBlockDevice/nbd, with its extension of extended headers) names
 * them.  Everything on the wire is big-endian.
 */

#ifndef SERVER_PROTOCOL_H
#define SERVER_PROTOCOL_H

#include <stdint.h>

#define NBD_MAGIC               UINT64_C (0x4e42444d41474943)
#define NBD_OPTION_MAGIC        UINT64_C (0x49484156454f5054)
#define NBD_OPTION_REPLY_MAGIC  UINT64_C (0x0003e889045565a9)
#define NBD_REQUEST_MAGIC       UINT32_C (0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC  UINT32_C (0x67446698)
#define NBD_CHUNK_MAGIC         UINT32_C (0x668e33ef)
#define NBD_REQUEST_EXT_MAGIC   UINT32_C (0x21e41c71)
#define NBD_REPLY_EXT_MAGIC     UINT32_C (0x6e8a278c)

/* Handshake flags of both sides. */
#define NBD_FLAG_FIXED_NEWSTYLE 1u
#define NBD_FLAG_NO_ZEROES      2u

enum {
  NBD_OPT_EXPORT_NAME = 1,
  NBD_OPT_ABORT = 2,
  NBD_OPT_LIST = 3,
  NBD_OPT_STARTTLS = 5,
  NBD_OPT_INFO = 6,
  NBD_OPT_GO = 7,
  NBD_OPT_STRUCTURED_REPLY = 8,
  NBD_OPT_LIST_META_CONTEXT = 9,
  NBD_OPT_SET_META_CONTEXT = 10,
  NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ACK             1u
#define NBD_REP_SERVER          2u
#define NBD_REP_INFO            3u
#define NBD_REP_META_CONTEXT    4u
#define NBD_REP_ERR(n)          (UINT32_C (1) << 31 | (n))
#define NBD_REP_ERR_UNSUP       NBD_REP_ERR (1)
#define NBD_REP_ERR_POLICY      NBD_REP_ERR (2)
#define NBD_REP_ERR_INVALID     NBD_REP_ERR (3)
#define NBD_REP_ERR_TLS_REQD    NBD_REP_ERR (5)
#define NBD_REP_ERR_UNKNOWN     NBD_REP_ERR (6)
#define NBD_REP_ERR_TOO_BIG     NBD_REP_ERR (9)

enum {
  NBD_INFO_EXPORT = 0,
  NBD_INFO_NAME = 1,
  NBD_INFO_DESCRIPTION = 2,
  NBD_INFO_BLOCK_SIZE = 3,
};

/* Transmission flags. */
#define NBD_FLAG_HAS_FLAGS              (1u << 0)
#define NBD_FLAG_READ_ONLY              (1u << 1)
#define NBD_FLAG_SEND_FLUSH             (1u << 2)
#define NBD_FLAG_SEND_FUA               (1u << 3)
#define NBD_FLAG_SEND_TRIM              (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES      (1u << 6)
#define NBD_FLAG_SEND_DF                (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN         (1u << 8)
#define NBD_FLAG_SEND_CACHE             (1u << 10)
#define NBD_FLAG_SEND_FAST_ZERO         (1u << 11)
#define NBD_FLAG_BLOCK_STATUS_PAYLOAD   (1u << 12)

enum {
  NBD_CMD_READ = 0,
  NBD_CMD_WRITE = 1,
  NBD_CMD_DISC = 2,
  NBD_CMD_FLUSH = 3,
  NBD_CMD_TRIM = 4,
  NBD_CMD_CACHE = 5,
  NBD_CMD_WRITE_ZEROES = 6,
  NBD_CMD_BLOCK_STATUS = 7,
};

#define NBD_CMD_FLAG_FUA         (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE     (1u << 1)
#define NBD_CMD_FLAG_DF          (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE     (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO   (1u << 4)
#define NBD_CMD_FLAG_PAYLOAD_LEN (1u << 5)

/* Reply chunks. */
#define NBD_REPLY_FLAG_DONE             1u
#define NBD_REPLY_TYPE_NONE             0u
#define NBD_REPLY_TYPE_OFFSET_DATA      1u
#define NBD_REPLY_TYPE_OFFSET_HOLE      2u
#define NBD_REPLY_TYPE_BLOCK_STATUS     5u
#define NBD_REPLY_TYPE_BLOCK_STATUS_EXT 6u
#define NBD_REPLY_TYPE_ERROR            (1u << 15 | 1)

/* Strings (export and context names, messages) are no longer than this. */
#define NBD_MAX_STRING 4096u

/* The limits of one request: data read or written. */
#define NBD_MAX_DATA (32u << 20)

struct proto_greeting {
  uint64_t magic;
  uint64_t option_magic;
  uint16_t flags;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_greeting) == 18, "");

struct proto_option {
  uint64_t magic;
  uint32_t option;
  uint32_t length;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_option) == 16, "");

struct proto_option_reply {
  uint64_t magic;
  uint32_t option;
  uint32_t type;
  uint32_t length;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_option_reply) == 20, "");

struct proto_request {
  uint32_t magic;
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;
  uint64_t offset;
  uint32_t length;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_request) == 28, "");

struct proto_request_ext {
  uint32_t magic;
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;
  uint64_t offset;
  uint64_t length;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_request_ext) == 32, "");

struct proto_simple_reply {
  uint32_t magic;
  uint32_t error;
  uint64_t cookie;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_simple_reply) == 16, "");

struct proto_chunk {
  uint32_t magic;
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;
  uint32_t length;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_chunk) == 20, "");

struct proto_chunk_ext {
  uint32_t magic;
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;
  uint64_t offset;
  uint64_t length;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_chunk_ext) == 32, "");

struct proto_hole {
  uint64_t offset;
  uint32_t length;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_hole) == 12, "");

struct proto_error {
  uint32_t error;
  uint16_t length;              /* of the message that follows */
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_error) == 6, "");

struct proto_extent {
  uint32_t length;
  uint32_t flags;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_extent) == 8, "");

struct proto_extent_ext {
  uint64_t length;
  uint64_t flags;
} __attribute__ ((packed));
_Static_assert (sizeof (struct proto_extent_ext) == 16, "");

#endif /* SERVER_PROTOCOL_H */
