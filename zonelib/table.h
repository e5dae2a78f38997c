/* SPDX-License-Identifier: BSD-3-Clause */
/* The zone table export: its bytes, encoded and decoded in one place for
 * the plugin, the server and the client.  docs/zone-table says what each
 * field means.  No I/O and no state here.
 *
 * The table is a 4096-byte header, then a 64-byte record for each zone in
 * the layout of the kernel's struct blk_zone; all little-endian.
 */

#ifndef ZONE_TABLE_H
#define ZONE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "znbd-types.h"

#define TABLE_MAGIC "ZBDTABLE"
#define TABLE_VERSION 1
#define TABLE_HEADER_SIZE 4096
#define TABLE_RECORD_SIZE 64
#define TABLE_EXPORT_NAME "zones"       /* beside the default export */
#define TABLE_EXPORT_SUFFIX "/zones"    /* behind a disk export's name */
#define TABLE_MIN_BLOCK 64u
#define TABLE_PREFERRED_BLOCK 4096u
#define TABLE_MAX_BLOCK (32u << 20)

/* Where requests stand: byte 60 of the header (all zones), byte 28 of a
 * zone's record. */
#define TABLE_HEADER_REQUEST 60
#define TABLE_RECORD_REQUEST 28

/* Bytes of the whole table. */
uint64_t table_size (uint32_t zones);

/* Offset of a zone's record. */
uint64_t table_record_offset (uint32_t zone);

void table_encode_header (uint8_t header[TABLE_HEADER_SIZE],
                          const struct znbd_geometry *g);
void table_encode_record (uint8_t record[TABLE_RECORD_SIZE],
                          const struct znbd_zone *z);

/* Decodes a header.  Checks magic, version, header size and that the
 * numbers fit together, and that table_bytes (the export's size) is what
 * the number of zones says.  zone_capacity is left 0.  Returns 0, or -1
 * with *why set to a static text. */
int table_decode_header (const uint8_t header[TABLE_HEADER_SIZE],
                         uint64_t table_bytes, struct znbd_geometry *g,
                         const char **why);

/* Decodes a record; start, length, capacity and wp become bytes.  Checks
 * type, condition and that the numbers fit the geometry and the zone's
 * number.  Returns 0, or -1 with *why set to a static text. */
int table_decode_record (const uint8_t record[TABLE_RECORD_SIZE],
                         const struct znbd_geometry *g, uint32_t zone,
                         struct znbd_zone *z, const char **why);

/* Decodes count records where they were read to: zones have their size.
 * Returns how many, fewer than count with *why. */
uint32_t table_decode_records (struct znbd_zone *zones,
                               const struct znbd_geometry *g, uint32_t first,
                               uint32_t count, const char **why);

/* Reads the next request out of bytes written at offset of the table:
 * starts with *pos == 0 and moves it on.  Returns 1 with *op (any value
 * but 0, checked by the caller through znbd_zone_op) and *zone, or *all
 * set for the header's; 0 at the end.  offset and length must be multiples
 * of TABLE_MIN_BLOCK. */
int table_next_request (const uint8_t *buf, size_t length, uint64_t offset,
                        size_t *pos, uint8_t *op, uint32_t *zone, int *all);

#endif /* ZONE_TABLE_H */
