/* SPDX-License-Identifier: BSD-3-Clause */
/* The image file, byte by byte.  docs/image-format.md explains why it is
 * as it is; this is the contract.  All numbers are little-endian.
 *
 *     0      superblock, twice (4096 bytes each)
 *     8192   commit slots 0 and 1 (4096 bytes each: eight equal sectors)
 *     16384  volatile pointers, 8 bytes a zone, and a mark of 8 bytes
 *     ...    table A, then table B, 32 bytes a zone
 *     ...    log of what became durable since the last commit; none in
 *            version 1
 *     ...    data, from a multiple of 1 MiB
 */

#ifndef ZONE_IMAGE_FORMAT_H
#define ZONE_IMAGE_FORMAT_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_MAGIC     "znbdIMG\n"
#define IMAGE_VERSION   2
#define IMAGE_VERSION_NO_LOG 1       /* read and written, but not made */
#define IMAGE_BLOCK     4096u
#define IMAGE_SECTOR    512u
#define IMAGE_ALIGN     (1u << 20)      /* of data */
#define IMAGE_ZONE_MAX  (UINT64_C (1) << 52)    /* bytes of a zone */

#define IMAGE_SUPERBLOCKS       2
#define IMAGE_COMMIT_OFFSET     8192
#define IMAGE_COMMIT_SLOTS      2
#define IMAGE_COMMIT_COPIES     (IMAGE_BLOCK / IMAGE_SECTOR)
#define IMAGE_VOLATILE_OFFSET   16384

/* Never changes once made.  crc: CRC-32 of the block with crc 0. */
struct image_superblock {
  uint8_t magic[8];
  uint32_t version;
  uint32_t crc;
  uint8_t uuid[16];
  uint64_t size;
  uint64_t zone_size;
  uint64_t zone_capacity;
  uint32_t zones;
  uint32_t conventional;
  uint32_t max_open;
  uint32_t max_active;
  uint32_t max_append;
  uint32_t granularity;
  uint32_t model;
  uint32_t zero;
  uint64_t volatile_offset;
  uint64_t table_offset[2];
  uint64_t data_offset;
  uint64_t file_size;           /* at least */
  uint64_t log_offset;          /* these two are 0 in version 1 */
  uint64_t log_size;
  uint8_t zeros[IMAGE_BLOCK - 144];
};
_Static_assert (sizeof (struct image_superblock) == IMAGE_BLOCK, "");
_Static_assert (offsetof (struct image_superblock, size) == 32, "");
_Static_assert (offsetof (struct image_superblock, model) == 80, "");
_Static_assert (offsetof (struct image_superblock, file_size) == 120, "");
_Static_assert (offsetof (struct image_superblock, log_size) == 136, "");

/* What of a zone's record is covered by a commit's sum and parity. */
struct image_payload {
  uint64_t commit;              /* the commit that the record belongs to */
  uint64_t wp;                  /* bytes from the zone's start */
  uint8_t cond;                 /* empty, closed, full, read-only, offline */
  uint8_t flags;                /* IMAGE_NON_SEQ, IMAGE_RESET_REC */
  uint8_t zero[6];
};
_Static_assert (sizeof (struct image_payload) == 24, "");

#define IMAGE_NON_SEQ   1u
#define IMAGE_RESET_REC 2u

/* One sector, written eight times.  The one with the highest number is in
 * force.  crc: CRC-32 of the uuid, then of the sector with crc 0. */
#define IMAGE_COMMIT_MAGIC "znbdCMT\n"
struct image_commit {
  uint8_t magic[8];
  uint32_t crc;
  uint32_t flags;               /* IMAGE_CLEAN */
  uint64_t number;
  uint64_t epoch;
  uint64_t sum;                 /* of image_mix of all records in force */
  struct image_payload parity;  /* exclusive or of their payloads */
  uint8_t boot_id[16];          /* of the session: see IMAGE_CLEAN */
  uint64_t session;             /* random; seeds the volatile pointers */
  uint8_t zeros[IMAGE_SECTOR - 88];
};
_Static_assert (sizeof (struct image_commit) == IMAGE_SECTOR, "");
_Static_assert (offsetof (struct image_commit, parity) == 40, "");
_Static_assert (offsetof (struct image_commit, session) == 80, "");

#define IMAGE_CLEAN     1u      /* closed: the tables are the whole truth */

/* A zone's record; all zeros where the zone was never changed.  Two copies,
 * in table A and table B: in force is the valid one with the highest
 * commit that is not above the commit in force.  crc: CRC-32 of the uuid,
 * then of the record with crc 0. */
struct image_record {
  uint32_t zone;
  uint32_t crc;
  struct image_payload p;
};
_Static_assert (sizeof (struct image_record) == 32, "");

/* The log: entries one behind the other from its start, each a block of this
 * and the data of its items, rounded up to a block.  They hold for the commit
 * in force and the session that they name, as far as their numbers go on from
 * 1.  crc: CRC-32 of the uuid, then of the block up to its last item with crc
 * 0, then of the data. */
#define IMAGE_LOG_MAGIC "znbdLOG\n"
#define IMAGE_LOG_ITEMS 126u
#define IMAGE_LOG_MIN   (64u << 10)     /* bytes of the log */
#define IMAGE_LOG_MAX   (8u << 20)
#define IMAGE_LOG_SHARE 64u             /* of the disk */

/* Of a sequential zone: its data from offset on, as far as its pointer, and
 * the pointer.  Of a conventional one: data. */
struct image_log_item {
  uint32_t zone;
  uint32_t length;              /* of the data, bytes */
  uint64_t offset;              /* bytes from the zone's start */
  uint64_t wp;                  /* the same; conventional: 0 */
  uint8_t flags;                /* as a record's */
  uint8_t zero[7];
};
_Static_assert (sizeof (struct image_log_item) == 32, "");

struct image_log_entry {
  uint8_t magic[8];
  uint32_t crc;
  uint32_t items;
  uint64_t commit;              /* in force */
  uint64_t session;             /* its session */
  uint64_t number;              /* 1, 2, ... */
  uint64_t length;              /* of the data */
  uint64_t durable;             /* entries up to that number were, before */
  uint8_t zeros[8];
  struct image_log_item item[IMAGE_LOG_ITEMS];
};
_Static_assert (sizeof (struct image_log_entry) == IMAGE_BLOCK, "");
_Static_assert (offsetof (struct image_log_entry, number) == 32, "");
_Static_assert (offsetof (struct image_log_entry, item) == 64, "");

/* A volatile pointer: one 64-bit word, so that it is never seen half
 * written.  0: as the record says.  Behind the last zone's is the mark: 0, or
 * IMAGE_MARK where a sync failed, and then none of the pointers counts. */
#define IMAGE_MARK              UINT64_C (0x746c7561662d6e79)   /* "yn-fault" */
#define IMAGE_SLOT_WP_BITS      44      /* in 512-byte sectors */
#define IMAGE_SLOT_VALID        (UINT64_C (1) << 44)
#define IMAGE_SLOT_FLAGS_SHIFT  45      /* IMAGE_NON_SEQ, IMAGE_RESET_REC */
#define IMAGE_SLOT_CHECK_SHIFT  48      /* 16 bits, slot_check () */

#endif /* ZONE_IMAGE_FORMAT_H */
