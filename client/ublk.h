/* SPDX-License-Identifier: BSD-3-Clause */
/* The interface of Linux's ublk driver, as far as attach uses it.  The
 * kernel's own header, <linux/ublk_cmd.h>, is older than zones in Debian 12,
 * so what is needed stands here, under its own names but for the structs.
 * It is the kernel's: numbers and layouts never change.
 */

#ifndef UBLK_H
#define UBLK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* ---- control commands, to /dev/ublk-control ---- */

struct ublk_control_cmd {
  uint32_t dev_id;
  uint16_t queue_id;            /* UINT16_MAX: none */
  uint16_t len;                 /* of what addr points to */
  uint64_t addr;
  uint64_t data;
  uint16_t path_len;
  uint16_t pad;
  uint32_t reserved;
};
_Static_assert (sizeof (struct ublk_control_cmd) == 32, "");

#define UBLK_GET_DEV_INFO _IOR ('u', 0x02, struct ublk_control_cmd)
#define UBLK_ADD_DEV _IOWR ('u', 0x04, struct ublk_control_cmd)
#define UBLK_DEL_DEV _IOWR ('u', 0x05, struct ublk_control_cmd)
#define UBLK_START_DEV _IOWR ('u', 0x06, struct ublk_control_cmd)
#define UBLK_STOP_DEV _IOWR ('u', 0x07, struct ublk_control_cmd)
#define UBLK_SET_PARAMS _IOWR ('u', 0x08, struct ublk_control_cmd)
#define UBLK_START_RECOVERY _IOWR ('u', 0x10, struct ublk_control_cmd)
#define UBLK_END_RECOVERY _IOWR ('u', 0x11, struct ublk_control_cmd)
#define UBLK_GET_FEATURES _IOR ('u', 0x13, struct ublk_control_cmd)

/* Features, and flags of a device. */
#define UBLK_F_USER_RECOVERY (UINT64_C (1) << 3)
#define UBLK_F_USER_RECOVERY_REISSUE (UINT64_C (1) << 4)
#define UBLK_F_CMD_IOCTL_ENCODE (UINT64_C (1) << 6)
#define UBLK_F_USER_COPY (UINT64_C (1) << 7)
#define UBLK_F_ZONED (UINT64_C (1) << 8)

enum ublk_state {
  UBLK_DEAD = 0,
  UBLK_LIVE = 1,
  UBLK_QUIESCED = 2,            /* its process died; another may come */
};

struct ublk_dev_info {
  uint16_t queues, depth, state, pad0;
  uint32_t max_io_bytes;
  uint32_t dev_id;
  int32_t pid;
  uint32_t pad1;
  uint64_t flags;
  uint64_t server_flags;
  uint32_t uid, gid;
  uint64_t reserved[2];
};
_Static_assert (sizeof (struct ublk_dev_info) == 64, "");

/* ---- parameters ---- */

#define UBLK_ATTR_READ_ONLY (1u << 0)
#define UBLK_ATTR_VOLATILE_CACHE (1u << 2)
#define UBLK_ATTR_FUA (1u << 3)

#define UBLK_PARAM_BASIC (1u << 0)
#define UBLK_PARAM_DISCARD (1u << 1)
#define UBLK_PARAM_ZONED (1u << 3)

/* A sector is 512 bytes everywhere. */
struct ublk_parameters {
  uint32_t len;                 /* of the struct */
  uint32_t types;               /* UBLK_PARAM_... that are set */
  struct {
    uint32_t attrs;
    uint8_t logical_shift, physical_shift, io_opt_shift, io_min_shift;
    uint32_t max_sectors;
    uint32_t chunk_sectors;     /* of a zone */
    uint64_t dev_sectors;
    uint64_t virt_boundary_mask;
  } basic;
  struct {
    uint32_t alignment, granularity;    /* bytes */
    uint32_t max_sectors;
    uint32_t max_zeroes_sectors;
    uint16_t max_segments, reserved;
  } discard;
  uint32_t devt[4];
  struct {
    uint32_t max_open, max_active;
    uint32_t max_append_sectors;
    uint8_t reserved[20];
  } zoned;
};
_Static_assert (offsetof (struct ublk_parameters, discard) == 40, "");
_Static_assert (offsetof (struct ublk_parameters, zoned) == 76, "");
_Static_assert (sizeof (struct ublk_parameters) == 112, "");

/* ---- requests, by /dev/ublkcN ---- */

struct ublk_io_cmd {
  uint16_t queue, tag;
  int32_t result;
  uint64_t append_sector;       /* where an append went, else 0 */
};
_Static_assert (sizeof (struct ublk_io_cmd) == 16, "");

#define UBLK_FETCH_REQ _IOWR ('u', 0x20, struct ublk_io_cmd)
#define UBLK_COMMIT_AND_FETCH _IOWR ('u', 0x21, struct ublk_io_cmd)

/* What the command ends with where there is a request; -ENODEV: no more
 * will come. */
#define UBLK_IO_OK 0

/* A request, in the mapping of its queue by tag. */
struct ublk_io_desc {
  uint32_t op_flags;
  uint32_t sectors;             /* of UBLK_OP_REPORT_ZONES: zones */
  uint64_t start_sector;
  uint64_t addr;
};
_Static_assert (sizeof (struct ublk_io_desc) == 24, "");

#define UBLK_OP_MASK 0xffu
#define UBLK_IO_FUA (1u << 13)
#define UBLK_IO_NOUNMAP (1u << 15)

enum ublk_op {
  UBLK_OP_READ = 0,
  UBLK_OP_WRITE = 1,
  UBLK_OP_FLUSH = 2,
  UBLK_OP_DISCARD = 3,
  UBLK_OP_WRITE_ZEROES = 5,
  UBLK_OP_ZONE_OPEN = 10,
  UBLK_OP_ZONE_CLOSE = 11,
  UBLK_OP_ZONE_FINISH = 12,
  UBLK_OP_ZONE_APPEND = 13,
  UBLK_OP_ZONE_RESET_ALL = 14,
  UBLK_OP_ZONE_RESET = 15,
  UBLK_OP_REPORT_ZONES = 18,
};

#define UBLK_MAX_DEPTH 4096u
#define UBLK_MAX_QUEUES 4096u

/* Where queue q's descriptors are in /dev/ublkcN, for mmap. */
static inline uint64_t
ublk_descriptors (unsigned q)
{
  return q * (uint64_t) UBLK_MAX_DEPTH * sizeof (struct ublk_io_desc);
}

/* Where a request's data is in /dev/ublkcN, for pread and pwrite. */
static inline uint64_t
ublk_data (unsigned q, unsigned tag)
{
  return UINT64_C (0x80000000) + ((uint64_t) q << 41) +
    ((uint64_t) tag << 25);
}

#endif /* UBLK_H */
