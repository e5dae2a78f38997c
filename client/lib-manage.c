/* SPDX-License-Identifier: BSD-3-Clause */
/* Zone management, over the zone table export: a request is a byte in a
 * zone's record (or in the header, for all), and a write of many records
 * asks for many zones at once.  The server ends such a write at the first
 * zone that refuses, and NBD has no way to say which one it was: the
 * report tells.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib-internal.h"
#include "table.h"

/* Whether a zone is where op takes it. */
static bool
reached (enum znbd_zone_op op, const struct znbd_zone *zone)
{
  switch (op) {
  case ZNBD_ZONE_OPEN:
    return zone->cond == ZNBD_COND_EXPLICIT_OPEN;
  case ZNBD_ZONE_CLOSE:
    return zone->cond == ZNBD_COND_CLOSED || zone->cond == ZNBD_COND_EMPTY;
  case ZNBD_ZONE_FINISH:
    return zone->cond == ZNBD_COND_FULL;
  case ZNBD_ZONE_RESET:
    return zone->cond == ZNBD_COND_EMPTY;
  }
  return false;
}

/* The error that the zone model has for a refusal: nbdkit's is often
 * another one. */
static int
refusal_errno (int refusal, int error)
{
  switch (refusal) {
  case ZNBD_REFUSAL_EXPORT_READ_ONLY:
  case ZNBD_REFUSAL_ZONE_READ_ONLY:
    return EPERM;
  case ZNBD_REFUSAL_OFFLINE:
    return EIO;
  case ZNBD_REFUSAL_ACTIVE_LIMIT:
  case ZNBD_REFUSAL_OPEN_LIMIT:
    return EOVERFLOW;
  default:
    return error;
  }
}

/* Records the error of a zone that refused op with error; returns -1. */
static int
refused (struct znbd_disk *disk, enum znbd_zone_op op, uint32_t zone,
         int error)
{
  char text[LIB_TEXT_MAX];
  int refusal;

  refusal = znbd_explain (disk, op, zone, error, text, sizeof text);
  if (refusal == -1)
    return lib_error (error, "zone %u refused to %s: %s", zone,
                      znbd_op_name (op), strerror (error));
  return lib_error (refusal_errno (refusal, error), "%s", text);
}

static int
check (struct znbd_disk *disk, enum znbd_zone_op op, unsigned flags,
       const char *function)
{
  if (op < ZNBD_ZONE_OPEN || op > ZNBD_ZONE_RESET ||
      (flags & ~ZNBD_FUA) != 0)
    return lib_error (EINVAL, "%s: wrong argument", function);

  /* libnbd would refuse the write, with a text about something that the
   * user did not ask for. */
  if (disk->readonly)
    return lib_error (EPERM, "the export is read-only");
  return 0;
}

/* Writes to the table.  FUA becomes a flush where the server lacks it. */
static int
write_table (struct znbd_disk *disk, const void *buf, size_t length,
             uint64_t offset, unsigned flags)
{
  bool fua = (flags & ZNBD_FUA) && nbd_can_fua (disk->nbd) == 1;

  if (nbd_pwrite (disk->nbd, buf, length, offset,
                  fua ? LIBNBD_CMD_FLAG_FUA : 0) == -1)
    return -1;
  if ((flags & ZNBD_FUA) && !fua && nbd_can_flush (disk->nbd) == 1)
    return nbd_flush (disk->nbd, 0);
  return 0;
}

/* Whether the connection still stands after a failed request, so that it
 * was the request that the server refused. */
static bool
was_refused (struct znbd_disk *disk)
{
  return nbd_aio_is_ready (disk->nbd) == 1;
}

/* Does op to the n zones from first on, in one write. */
static int
manage_block (struct znbd_disk *disk, enum znbd_zone_op op, uint32_t first,
              uint32_t n, unsigned flags, uint8_t *records,
              struct znbd_zone *zones, uint32_t *done)
{
  uint32_t empty = n, i;        /* the first zone that was empty before */
  int error;

  *done = 0;

  /* An empty zone refuses to be closed; but one that closing made empty
   * cannot be told from it afterwards. */
  if (op == ZNBD_ZONE_CLOSE && n > 1) {
    if (znbd_report (disk, first, n, zones) == -1)
      return -1;
    for (i = 0; i < n && empty == n; ++i)
      if (zones[i].cond == ZNBD_COND_EMPTY)
        empty = i;
  }

  memset (records, 0, (size_t) n * TABLE_RECORD_SIZE);
  for (i = 0; i < n; ++i)
    records[i * TABLE_RECORD_SIZE + TABLE_RECORD_REQUEST] = op;
  if (write_table (disk, records, (size_t) n * TABLE_RECORD_SIZE,
                   table_record_offset (first), flags) == 0) {
    *done = n;
    return 0;
  }

  error = nbd_get_errno ();
  if (error == 0)
    error = EIO;
  if (!was_refused (disk))
    return lib_error_nbd ("zone %u to %u: %s", first, first + n - 1,
                          znbd_op_name (op));
  if (n == 1)
    return refused (disk, op, first, error);

  if (znbd_report (disk, first, n, zones) == -1)
    return -1;
  for (i = 0; i < n; ++i)
    if (i == empty || !reached (op, &zones[i])) {
      *done = i;
      return refused (disk, op, first + i, error);
    }

  /* All are where they should be: it was the flush that failed. */
  *done = n;
  return lib_error (error, "zones %u to %u: done, but perhaps not durable: "
                    "%s", first, first + n - 1, strerror (error));
}

int
znbd_manage (struct znbd_disk *disk, enum znbd_zone_op op, uint32_t first,
             uint32_t count, unsigned flags, uint32_t *done_r)
{
  const uint32_t max = disk->write_max / TABLE_RECORD_SIZE;
  const uint32_t block = count < max ? count : max;
  uint8_t *records = NULL;
  struct znbd_zone *zones = NULL;
  uint32_t done = 0, n;
  int r = -1;

  if (done_r)
    *done_r = 0;
  if (check (disk, op, flags, "znbd_manage") == -1)
    return -1;
  if (count == 0)
    return lib_error (EINVAL, "znbd_manage: no zones");
  if (first >= disk->geometry.zones || count > disk->geometry.zones - first)
    return lib_error (EINVAL, "there is no zone %llu: the disk has %u zones, "
                      "from 0", (unsigned long long) first + count - 1,
                      disk->geometry.zones);

  records = malloc ((size_t) block * TABLE_RECORD_SIZE);
  zones = malloc ((size_t) block * sizeof *zones);
  if (records == NULL || zones == NULL)
    lib_error (ENOMEM, "znbd_manage: out of memory");
  else
    for (r = 0; r == 0 && done < count; done += n)
      r = manage_block (disk, op, first + done,
                        count - done < block ? count - done : block, flags,
                        records, zones, &n);
  free (records);
  free (zones);
  if (done_r)
    *done_r = done;
  return r;
}

int
znbd_manage_all (struct znbd_disk *disk, enum znbd_zone_op op,
                 unsigned flags)
{
  uint8_t header[TABLE_RECORD_SIZE] = { 0 };
  uint32_t first = 0;
  struct znbd_zone *zones;
  int64_t n, i;
  int error;

  if (check (disk, op, flags, "znbd_manage_all") == -1)
    return -1;

  /* The header's first 64 bytes hold the request. */
  header[TABLE_HEADER_REQUEST] = op;
  if (write_table (disk, header, sizeof header, 0, flags) == 0)
    return 0;
  error = nbd_get_errno ();
  if (error == 0)
    error = EIO;
  if (op != ZNBD_ZONE_OPEN || !was_refused (disk))
    return lib_error_nbd ("%s all zones", znbd_op_name (op));

  /* Only opening can be refused: by the limit, at some closed zone. */
  zones = malloc (LIB_MANAGE_MAX * sizeof *zones);
  if (zones == NULL)
    return lib_error (ENOMEM, "znbd_manage_all: out of memory");
  while ((n = znbd_report (disk, first, LIB_MANAGE_MAX, zones)) > 0) {
    for (i = 0; i < n; ++i)
      if (zones[i].cond == ZNBD_COND_CLOSED) {
        free (zones);
        return refused (disk, op, first + i, error);
      }
    first += n;
  }
  free (zones);
  return lib_error (error, "open all zones: %s", strerror (error));
}

int
znbd_flush (struct znbd_disk *disk)
{
  if (nbd_can_flush (disk->nbd) != 1)
    return 0;
  if (nbd_flush (disk->nbd, 0) == -1)
    return lib_error_nbd ("flush");
  return 0;
}
