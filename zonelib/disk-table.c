/* SPDX-License-Identifier: BSD-3-Clause */
/* The zone table export over a disk: reads encode a report, writes are
 * requests.  The bytes themselves are table.c's.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "disk.h"
#include "table.h"

static int
check (struct zdisk *disk, uint32_t length, uint64_t offset, char *reason,
       size_t reason_max)
{
  uint64_t size = table_size (zdisk_geometry (disk)->zones);

  if ((offset | length) % TABLE_MIN_BLOCK != 0) {
    snprintf (reason, reason_max, "zone table: %" PRIu32 " bytes at %" PRIu64
              ": not a multiple of %u", length, offset, TABLE_MIN_BLOCK);
    return EINVAL;
  }
  if (offset > size || length > size - offset) {
    snprintf (reason, reason_max, "zone table: %" PRIu32 " bytes at %" PRIu64
              ": past the end at %" PRIu64, length, offset, size);
    return EINVAL;
  }
  return 0;
}

bool
zdisk_table_refresh (struct zdisk *disk, uint32_t length, uint64_t offset,
                     struct zdisk_request *req)
{
  const struct znbd_geometry *g = zdisk_geometry (disk);
  uint64_t size = table_size (g->zones), first, end;

  if (!zdisk_mirrors (disk) || offset > size || length > size - offset ||
      offset + length <= TABLE_HEADER_SIZE)
    return false;
  first = offset < TABLE_HEADER_SIZE ? 0
    : (offset - TABLE_HEADER_SIZE) / TABLE_RECORD_SIZE;
  end = (offset + length - TABLE_HEADER_SIZE + TABLE_RECORD_SIZE - 1) /
    TABLE_RECORD_SIZE;
  memset (req, 0, offsetof (struct zdisk_request, work));
  req->op = ZDISK_REFRESH;
  req->offset = first * g->zone_size;
  req->length = (end == g->zones ? g->size : end * g->zone_size) -
    req->offset;
  return true;
}

int
zdisk_table_read (struct zdisk *disk, void *buf, uint32_t length,
                  uint64_t offset, char *reason, size_t reason_max)
{
  const struct znbd_geometry *g = zdisk_geometry (disk);
  uint8_t header[TABLE_HEADER_SIZE], *p = buf;
  struct znbd_zone zone;
  uint32_t n;
  int r;

  r = check (disk, length, offset, reason, reason_max);
  if (r)
    return r;
  if (length > 0 && offset < TABLE_HEADER_SIZE) {
    n = TABLE_HEADER_SIZE - offset < length
      ? TABLE_HEADER_SIZE - offset : length;
    table_encode_header (header, g);
    memcpy (p, header + offset, n);
    p += n;
    offset += n;
    length -= n;
  }
  for (; length > 0; length -= TABLE_RECORD_SIZE) {
    zdisk_report (disk, (offset - TABLE_HEADER_SIZE) / TABLE_RECORD_SIZE, 1,
                  &zone);
    table_encode_record (p, &zone);
    p += TABLE_RECORD_SIZE;
    offset += TABLE_RECORD_SIZE;
  }
  return 0;
}

/* The disk's operation of a table's request, or -1. */
static int
disk_op (uint8_t op)
{
  switch (op) {
  case ZNBD_ZONE_OPEN: return ZDISK_OPEN;
  case ZNBD_ZONE_CLOSE: return ZDISK_CLOSE;
  case ZNBD_ZONE_FINISH: return ZDISK_FINISH;
  case ZNBD_ZONE_RESET: return ZDISK_RESET;
  default: return -1;
  }
}

int
zdisk_table_next (struct zdisk_client *client, const void *buf,
                  uint32_t length, uint64_t offset, size_t *pos,
                  struct zdisk_request *req, char *reason, size_t reason_max)
{
  struct zdisk *disk = zdisk_client_disk (client);
  const struct znbd_geometry *g = zdisk_geometry (disk);
  uint32_t zone;
  uint8_t op;
  int r, all;

  if (zdisk_client_is_readonly (client)) {
    snprintf (reason, reason_max, "zone table: the export is read-only");
    return -EPERM;
  }
  r = check (disk, length, offset, reason, reason_max);
  if (r)
    return -r;
  if (!table_next_request (buf, length, offset, pos, &op, &zone, &all))
    return 0;
  if (disk_op (op) == -1) {
    snprintf (reason, reason_max, "zone table: unknown request %u", op);
    return -EINVAL;
  }
  memset (req, 0, offsetof (struct zdisk_request, work));
  req->op = disk_op (op);
  if (all)
    req->flags = ZDISK_ALL;
  else {
    req->offset = zone * g->zone_size;
    req->length = g->size - req->offset < g->zone_size
      ? g->size - req->offset : g->zone_size;
  }
  return 1;
}

int
zdisk_table_write (struct zdisk_client *client, const void *buf,
                   uint32_t length, uint64_t offset, bool fua, char *reason,
                   size_t reason_max)
{
  struct zdisk_request req;
  size_t pos = 0;
  int r;

  while ((r = zdisk_table_next (client, buf, length, offset, &pos, &req,
                                reason, reason_max)) > 0) {
    r = zdisk_run (client, &req);
    if (r) {
      snprintf (reason, reason_max, "%s", req.reason);
      return r;
    }
  }
  if (r == 0 && fua) {
    memset (&req, 0, offsetof (struct zdisk_request, work));
    req.op = ZDISK_FLUSH;
    r = zdisk_run (client, &req);
    if (r)
      snprintf (reason, reason_max, "%s", req.reason);
    return r;
  }
  return -r;
}
