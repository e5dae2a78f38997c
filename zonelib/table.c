/* SPDX-License-Identifier: BSD-3-Clause */
/* The zone table export's bytes.  Decoding trusts nothing: the table comes
 * over the network, and what passes here is used as array sizes and offsets
 * by the client without another look.  Built into zonelib and into libznbd.
 */

#include <config.h>

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "geometry.h"
#include "table.h"

/* The kernel counts zones in units of 512 bytes, whatever the device's
 * logical block is. */
#define SECTOR 512

struct wire_header {
  uint8_t magic[8];
  uint32_t version;
  uint32_t header_bytes;
  uint32_t model;
  uint32_t zones;
  uint64_t zone_size;
  uint64_t size;
  uint32_t max_open;
  uint32_t max_active;
  uint32_t max_append;
  uint32_t granularity;
  uint32_t conventional;
  uint8_t request;
  uint8_t zero1[3];
  uint8_t uuid[16];
  uint64_t epoch;
  uint8_t zero2[TABLE_HEADER_SIZE - 88];
};

_Static_assert (sizeof (struct wire_header) == TABLE_HEADER_SIZE, "size");
_Static_assert (offsetof (struct wire_header, version) == 8, "version");
_Static_assert (offsetof (struct wire_header, header_bytes) == 12,
                "header_bytes");
_Static_assert (offsetof (struct wire_header, model) == 16, "model");
_Static_assert (offsetof (struct wire_header, zones) == 20, "zones");
_Static_assert (offsetof (struct wire_header, zone_size) == 24, "zone_size");
_Static_assert (offsetof (struct wire_header, size) == 32, "size");
_Static_assert (offsetof (struct wire_header, max_open) == 40, "max_open");
_Static_assert (offsetof (struct wire_header, max_active) == 44,
                "max_active");
_Static_assert (offsetof (struct wire_header, max_append) == 48,
                "max_append");
_Static_assert (offsetof (struct wire_header, granularity) == 52,
                "granularity");
_Static_assert (offsetof (struct wire_header, conventional) == 56,
                "conventional");
_Static_assert (offsetof (struct wire_header, request)
                == TABLE_HEADER_REQUEST, "request");
_Static_assert (offsetof (struct wire_header, uuid) == 64, "uuid");
_Static_assert (offsetof (struct wire_header, epoch) == 80, "epoch");

/* struct blk_zone of <linux/blkzoned.h>, in units of SECTOR */
struct wire_record {
  uint64_t start;
  uint64_t len;
  uint64_t wp;
  uint8_t type;
  uint8_t cond;
  uint8_t non_seq;
  uint8_t reset;
  uint8_t request;
  uint8_t zero1[3];
  uint64_t capacity;
  uint8_t zero2[24];
};

_Static_assert (sizeof (struct wire_record) == TABLE_RECORD_SIZE, "size");
_Static_assert (offsetof (struct wire_record, len) == 8, "len");
_Static_assert (offsetof (struct wire_record, wp) == 16, "wp");
_Static_assert (offsetof (struct wire_record, type) == 24, "type");
_Static_assert (offsetof (struct wire_record, cond) == 25, "cond");
_Static_assert (offsetof (struct wire_record, non_seq) == 26, "non_seq");
_Static_assert (offsetof (struct wire_record, reset) == 27, "reset");
_Static_assert (offsetof (struct wire_record, request)
                == TABLE_RECORD_REQUEST, "request");
_Static_assert (offsetof (struct wire_record, capacity) == 32, "capacity");

uint64_t
table_size (uint32_t zones)
{
  return table_record_offset (zones);
}

uint64_t
table_record_offset (uint32_t zone)
{
  return TABLE_HEADER_SIZE + (uint64_t) TABLE_RECORD_SIZE * zone;
}

void
table_encode_header (uint8_t header[TABLE_HEADER_SIZE],
                     const struct znbd_geometry *g)
{
  struct wire_header w;

  memset (&w, 0, sizeof w);
  memcpy (w.magic, TABLE_MAGIC, sizeof w.magic);
  w.version = htole32 (TABLE_VERSION);
  w.header_bytes = htole32 (TABLE_HEADER_SIZE);
  w.model = htole32 (g->model);
  w.zones = htole32 (g->zones);
  w.zone_size = htole64 (g->zone_size);
  w.size = htole64 (g->size);
  w.max_open = htole32 (g->max_open);
  w.max_active = htole32 (g->max_active);
  w.max_append = htole32 (g->max_append);
  w.granularity = htole32 (g->granularity);
  w.conventional = htole32 (g->conventional);
  memcpy (w.uuid, g->uuid, sizeof w.uuid);
  w.epoch = htole64 (g->epoch);
  memcpy (header, &w, sizeof w);
}

void
table_encode_record (uint8_t record[TABLE_RECORD_SIZE],
                     const struct znbd_zone *z)
{
  struct wire_record w;

  memset (&w, 0, sizeof w);
  w.start = htole64 (z->start / SECTOR);
  w.len = htole64 (z->length / SECTOR);
  w.wp = htole64 (z->wp / SECTOR);
  w.type = z->type;
  w.cond = z->cond;
  w.non_seq = z->non_seq;
  w.reset = z->reset;
  w.capacity = htole64 (z->capacity / SECTOR);
  memcpy (record, &w, sizeof w);
}

static int
refuse (const char **why, const char *text)
{
  *why = text;
  return -1;
}

int
table_decode_header (const uint8_t header[TABLE_HEADER_SIZE],
                     uint64_t table_bytes, struct znbd_geometry *g,
                     const char **why)
{
  struct wire_header w;

  memcpy (&w, header, sizeof w);
  if (memcmp (w.magic, TABLE_MAGIC, sizeof w.magic) != 0)
    return refuse (why, "it does not begin with a zone table's magic");
  if (le32toh (w.version) != TABLE_VERSION)
    return refuse (why, "its version is not 1");
  if (le32toh (w.header_bytes) != TABLE_HEADER_SIZE)
    return refuse (why, "its header is not 4096 bytes");

  memset (g, 0, sizeof *g);
  g->model = le32toh (w.model);
  g->zones = le32toh (w.zones);
  g->zone_size = le64toh (w.zone_size);
  g->size = le64toh (w.size);
  g->max_open = le32toh (w.max_open);
  g->max_active = le32toh (w.max_active);
  g->max_append = le32toh (w.max_append);
  g->granularity = le32toh (w.granularity);
  g->conventional = le32toh (w.conventional);
  memcpy (g->uuid, w.uuid, sizeof g->uuid);
  g->epoch = le64toh (w.epoch);

  if (geometry_check (g, why) == -1)
    return -1;
  if (table_bytes != table_size (g->zones))
    return refuse (why, "the export's size is not what the number of zones "
                   "gives");
  return 0;
}

int
table_decode_record (const uint8_t record[TABLE_RECORD_SIZE],
                     const struct znbd_geometry *g, uint32_t zone,
                     struct znbd_zone *z, const char **why)
{
  struct wire_record w;
  uint64_t start, length, capacity, wp;
  bool wp_fits;

  memcpy (&w, record, sizeof w);

  /* Compared in sectors: what a peer sent may overflow as bytes. */
  start = (uint64_t) zone * g->zone_size;
  length = g->size - start;
  if (length > g->zone_size)
    length = g->zone_size;
  if (le64toh (w.start) != start / SECTOR)
    return refuse (why, "its start is not where the zone size puts it");
  if (le64toh (w.len) != length / SECTOR)
    return refuse (why, "its length is not what the zone size gives");
  capacity = le64toh (w.capacity);
  if (capacity == 0 || capacity > length / SECTOR)
    return refuse (why, "its capacity does not lie in its length");
  capacity *= SECTOR;
  if (capacity % g->granularity != 0)
    return refuse (why, "its capacity is no multiple of the granularity");
  if (w.type != ZNBD_ZONE_CONVENTIONAL &&
      w.type != ZNBD_ZONE_SEQ_REQUIRED &&
      w.type != ZNBD_ZONE_SEQ_PREFERRED)
    return refuse (why, "its type is unknown");
  if (!geometry_zone_possible (w.type, w.cond))
    return refuse (why, "its condition is unknown, or impossible for its "
                   "type");

  wp = le64toh (w.wp);
  wp_fits = wp >= start / SECTOR && wp <= (start + capacity) / SECTOR &&
            (wp * SECTOR) % g->granularity == 0;
  wp *= SECTOR;
  switch (w.cond) {
  case ZNBD_COND_EMPTY:
    if (!wp_fits || wp != start)
      return refuse (why, "it is empty, but its pointer is not at its start");
    break;
  case ZNBD_COND_IMPLICIT_OPEN:
  case ZNBD_COND_EXPLICIT_OPEN:
  case ZNBD_COND_CLOSED:
    if (!wp_fits)
      return refuse (why, "its pointer does not lie in its capacity");
    break;
  case ZNBD_COND_READ_ONLY:
    if (!wp_fits || w.type == ZNBD_ZONE_CONVENTIONAL)
      wp = start + length;
    break;
  default:
    /* Devices differ in what they say here and it means nothing. */
    wp = start + length;
  }

  memset (z, 0, sizeof *z);
  z->start = start;
  z->length = length;
  z->capacity = capacity;
  z->wp = wp;
  z->type = w.type;
  z->cond = w.cond;
  z->reset = w.reset != 0;
  z->non_seq = w.non_seq != 0;
  return 0;
}

_Static_assert (sizeof (struct znbd_zone) == TABLE_RECORD_SIZE,
                "records are decoded where they were read to");

uint32_t
table_decode_records (struct znbd_zone *zones, const struct znbd_geometry *g,
                      uint32_t first, uint32_t count, const char **why)
{
  uint8_t record[TABLE_RECORD_SIZE];
  uint32_t i;

  for (i = 0; i < count; i++) {
    memcpy (record, &zones[i], sizeof record);
    if (table_decode_record (record, g, first + i, &zones[i], why) == -1)
      break;
  }
  return i;
}

int
table_next_request (const uint8_t *buf, size_t length, uint64_t offset,
                    size_t *pos, uint8_t *op, uint32_t *zone, int *all)
{
  while (*pos < length) {
    const uint8_t *block = &buf[*pos];
    uint64_t at = offset + *pos;

    *pos += TABLE_RECORD_SIZE;
    if (at == 0) {
      if (block[TABLE_HEADER_REQUEST] == 0)
        continue;
      *op = block[TABLE_HEADER_REQUEST];
      *zone = 0;
      *all = 1;
      return 1;
    }
    if (at >= TABLE_HEADER_SIZE && block[TABLE_RECORD_REQUEST] != 0) {
      *op = block[TABLE_RECORD_REQUEST];
      *zone = (at - TABLE_HEADER_SIZE) / TABLE_RECORD_SIZE;
      *all = 0;
      return 1;
    }
  }
  return 0;
}
