/* SPDX-License-Identifier: BSD-3-Clause */
/* Zone management: by a context for each operation (lib-manage-context.c),
 * or over the zone table export.  There a request is a byte in a zone's
 * record (or in the header, for all), and a write of many records asks for
 * many zones at once.  The server ends such a write at the first zone that
 * refuses, and NBD has no way to say which one it was: the report tells.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "judge.h"
#include "lib-internal.h"
#include "table.h"

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
write_table (struct nbd_handle *nbd, const void *buf, size_t length,
             uint64_t offset, unsigned flags)
{
  bool fua = (flags & ZNBD_FUA) && nbd_can_fua (nbd) == 1;

  if (nbd_pwrite (nbd, buf, length, offset,
                  fua ? LIBNBD_CMD_FLAG_FUA : 0) == -1)
    return -1;
  if ((flags & ZNBD_FUA) && !fua && nbd_can_flush (nbd) == 1)
    return nbd_flush (nbd, 0);
  return 0;
}

/* Does op to the n zones from first on, in one write. */
static int
manage_block (struct znbd_disk *disk, struct nbd_handle *nbd,
              enum znbd_zone_op op, uint32_t first, uint32_t n,
              unsigned flags, uint8_t *records, struct znbd_zone *zones,
              uint32_t *done)
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
  if (write_table (nbd, records, (size_t) n * TABLE_RECORD_SIZE,
                   table_record_offset (first), flags) == 0) {
    *done = n;
    return 0;
  }

  error = nbd_get_errno ();
  if (error == 0)
    error = EIO;
  if (!lib_was_refused (nbd))
    return lib_error_nbd ("zone %u to %u: %s", first, first + n - 1,
                          znbd_op_name (op));
  if (n == 1)
    return refused (disk, op, first, error);

  if (znbd_report (disk, first, n, zones) == -1)
    return -1;
  for (i = 0; i < n; ++i)
    if (i == empty || !judge_reached (&zones[i], op)) {
      *done = i;
      return refused (disk, op, first + i, error);
    }

  /* All are where they should be: it was the flush that failed. */
  *done = n;
  return lib_error (error, "zones %u to %u: done, but perhaps not durable: "
                    "%s", first, first + n - 1, strerror (error));
}

static int
manage_table (struct znbd_disk *disk, struct nbd_handle *nbd,
              enum znbd_zone_op op, uint32_t first, uint32_t count,
              unsigned flags, uint32_t *done)
{
  const uint32_t max = disk->write_max / TABLE_RECORD_SIZE;
  const uint32_t block = count < max ? count : max;
  uint8_t *records = malloc ((size_t) block * TABLE_RECORD_SIZE);
  struct znbd_zone *zones = malloc ((size_t) block * sizeof *zones);
  uint32_t n;
  int r = -1;

  if (records == NULL || zones == NULL)
    lib_error (ENOMEM, "znbd_manage: out of memory");
  else
    for (r = 0; r == 0 && *done < count; *done += n)
      r = manage_block (disk, nbd, op, first + *done,
                        count - *done < block ? count - *done : block, flags,
                        records, zones, &n);
  free (records);
  free (zones);
  return r;
}

/* By contexts; what they cannot make durable is flushed. */
static int
manage_contexts (struct znbd_disk *disk, enum znbd_zone_op op,
                 uint32_t first, uint32_t count, unsigned flags,
                 uint32_t *done)
{
  struct nbd_handle *nbd = lib_conn_get (disk, LIB_MANAGE +
                                         (op - ZNBD_ZONE_OPEN));
  int error;

  if (nbd == NULL)
    return -1;
  if (lib_manage_context (disk, nbd, op, first, count, done) == -1) {
    error = znbd_get_errno ();
    if (error == EPROTO || !lib_was_refused (nbd))
      return -1;
    /* The zones before it are to be durable all the same. */
    if ((flags & ZNBD_FUA) && *done > 0 && znbd_flush (disk) == -1)
      return -1;
    return refused (disk, op, first + *done, error);
  }
  return flags & ZNBD_FUA ? znbd_flush (disk) : 0;
}

/* Whether the contexts are the way for n requests by them; if not, *nbd is
 * the zone table's connection, NULL with an error. */
static bool
by_contexts (struct znbd_disk *disk, enum lib_conn_kind kind, uint64_t n,
             struct nbd_handle **nbd)
{
  *nbd = NULL;
  if (!(disk->offered & LIB_BIT (kind)))
    lib_set_way (disk, ZNBD_WAY_MANAGE, disk->table_way);
  else if (n > LIB_MANAGE_REQUESTS && lib_table_usable (disk))
    lib_set_way (disk, ZNBD_WAY_MANAGE, "the zone table: so many zones take "
                 "fewer round trips so than by a context");
  else {
    lib_set_way (disk, ZNBD_WAY_MANAGE, disk->filters
                 ? "a context that each request names"
                 : "a context of the operation's own");
    return true;
  }
  *nbd = lib_conn_get (disk, LIB_TABLE);
  return false;
}

int
znbd_manage (struct znbd_disk *disk, enum znbd_zone_op op, uint32_t first,
             uint32_t count, unsigned flags, uint32_t *done_r)
{
  struct nbd_handle *nbd;
  uint32_t done = 0;
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

  if (by_contexts (disk, LIB_MANAGE + (op - ZNBD_ZONE_OPEN),
                   lib_manage_context_requests (disk, count), &nbd))
    r = manage_contexts (disk, op, first, count, flags, &done);
  else if (nbd)
    r = manage_table (disk, nbd, op, first, count, flags, &done);
  if (done_r)
    *done_r = done;
  return r;
}

/* Of opening all closed zones: the limit refused it at some one. */
static int
open_all_refused (struct znbd_disk *disk, int error)
{
  struct znbd_zone *zones = malloc (LIB_MANAGE_MAX * sizeof *zones);
  uint32_t first = 0;
  int64_t n, i;

  if (zones == NULL)
    return lib_error (ENOMEM, "znbd_manage_all: out of memory");
  while ((n = znbd_report (disk, first, LIB_MANAGE_MAX, zones)) > 0) {
    for (i = 0; i < n; ++i)
      if (zones[i].cond == ZNBD_COND_CLOSED) {
        free (zones);
        return refused (disk, ZNBD_ZONE_OPEN, first + i, error);
      }
    first += n;
  }
  free (zones);
  return lib_error (error, "open all zones: %s", strerror (error));
}

int
znbd_manage_all (struct znbd_disk *disk, enum znbd_zone_op op,
                 unsigned flags)
{
  uint8_t header[TABLE_RECORD_SIZE] = { 0 };
  const enum lib_conn_kind kind = LIB_MANAGE_ALL + (op - ZNBD_ZONE_OPEN);
  struct nbd_handle *nbd;
  int error, r;

  if (check (disk, op, flags, "znbd_manage_all") == -1)
    return -1;
  if (by_contexts (disk, kind, 1, &nbd)) {
    nbd = lib_conn_get (disk, kind);
    if (nbd == NULL)
      return -1;
    r = lib_manage_context_all (disk, nbd, op);
    error = znbd_get_errno ();
    if (r == 0)
      return flags & ZNBD_FUA ? znbd_flush (disk) : 0;
  }
  else {
    if (nbd == NULL)
      return -1;
    /* The header's first 64 bytes hold the request. */
    header[TABLE_HEADER_REQUEST] = op;
    if (write_table (nbd, header, sizeof header, 0, flags) == 0)
      return 0;
    lib_error_nbd ("%s all zones", znbd_op_name (op));
    error = znbd_get_errno ();
  }
  /* Only opening can be refused. */
  if (op != ZNBD_ZONE_OPEN || error == EPROTO || !lib_was_refused (nbd))
    return -1;
  return open_all_refused (disk, error);
}

int
znbd_flush (struct znbd_disk *disk)
{
  enum lib_conn_kind kind = disk->offered & LIB_BIT (LIB_DISK)
    ? LIB_DISK : LIB_TABLE;
  struct nbd_handle *nbd = lib_conn_get (disk, kind);

  if (nbd == NULL)
    return -1;
  if (nbd_can_flush (nbd) != 1)
    return 0;
  if (nbd_flush (nbd, 0) == -1)
    return lib_error_nbd ("flush");
  return 0;
}
