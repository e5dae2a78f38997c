/* SPDX-License-Identifier: BSD-3-Clause */
/* Why a request was refused, told from the report.  The server knows better
 * but its message gets lost on the way: libnbd keeps it to its debug log,
 * and nbdkit sends none and makes EINVAL of EOVERFLOW.  The order in which
 * causes are looked at is that of the zone model's errors.
 *
 * This explains; it decides nothing.  What is refused is the server's
 * business alone.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib-internal.h"
#include "table.h"

struct answer {
  char *text;
  size_t size;
};

/* Writes the text and returns the refusal. */
static int __attribute__ ((format (printf, 3, 4)))
answer (struct answer *a, enum znbd_refusal refusal, const char *fs, ...)
{
  va_list args;

  va_start (args, fs);
  vsnprintf (a->text, a->size, fs, args);
  va_end (args);
  return refusal;
}

/* Counts the disk's zones that take an open and an active resource. */
static int
count_resources (struct znbd_disk *disk, uint32_t *open, uint32_t *explicitly,
                 uint32_t *active)
{
  const uint32_t max = 4096;
  struct znbd_zone *zones = malloc (max * sizeof *zones);
  uint32_t first = 0, implicitly = 0, closed = 0;
  int64_t n, i;

  if (zones == NULL) {
    lib_error (ENOMEM, "znbd_explain: out of memory");
    return -1;
  }
  *explicitly = 0;
  while ((n = znbd_report (disk, first, max, zones)) > 0) {
    for (i = 0; i < n; ++i) {
      implicitly += zones[i].cond == ZNBD_COND_IMPLICIT_OPEN;
      *explicitly += zones[i].cond == ZNBD_COND_EXPLICIT_OPEN;
      closed += zones[i].cond == ZNBD_COND_CLOSED;
    }
    first += n;
  }
  free (zones);
  *open = implicitly + *explicitly;
  *active = *open + closed;
  return n == -1 ? -1 : 0;
}

/* Whether a limit keeps a zone from being opened.  Returns the refusal, 0
 * for no, -1 on error. */
static int
explain_limits (struct znbd_disk *disk, uint32_t number,
                const struct znbd_zone *zone, int error, struct answer *a)
{
  const struct znbd_geometry *g = &disk->geometry;
  uint32_t open, explicitly, active;

  /* EINVAL is what nbdkit makes of EOVERFLOW. */
  if (error != 0 && error != EOVERFLOW && error != EINVAL)
    return 0;
  if (zone->cond == ZNBD_COND_EXPLICIT_OPEN ||
      zone->cond == ZNBD_COND_IMPLICIT_OPEN ||
      (g->max_open == 0 && g->max_active == 0))
    return 0;
  if (count_resources (disk, &open, &explicitly, &active) == -1)
    return -1;

  if (g->max_active != 0 && active >= g->max_active &&
      zone->cond == ZNBD_COND_EMPTY)
    return answer (a, ZNBD_REFUSAL_ACTIVE_LIMIT,
                   "the active limit is reached: %" PRIu32 " of %" PRIu32
                   " zones are open or closed, so zone %" PRIu32 " cannot be "
                   "opened; finish or reset one of them",
                   active, g->max_active, number);
  if (g->max_open != 0 && open >= g->max_open)
    return answer (a, ZNBD_REFUSAL_OPEN_LIMIT,
                   "the open limit is reached: %" PRIu32 " of %" PRIu32
                   " zones are open, %" PRIu32 " of them explicitly, so zone "
                   "%" PRIu32 " cannot be opened; close, finish or reset one "
                   "of them", open, g->max_open, explicitly, number);
  return 0;
}

/* What forbids any change of a zone; 0 where nothing does. */
static int
explain_zone (uint32_t number, const struct znbd_zone *zone, struct answer *a)
{
  if (zone->cond == ZNBD_COND_OFFLINE)
    return answer (a, ZNBD_REFUSAL_OFFLINE, "zone %" PRIu32 " is offline: it "
                   "can be neither read nor changed", number);
  if (zone->cond == ZNBD_COND_READ_ONLY)
    return answer (a, ZNBD_REFUSAL_ZONE_READ_ONLY, "zone %" PRIu32 " is "
                   "read-only: it can be read but not changed", number);
  return 0;
}

static int
explain_unknown (uint32_t number, const struct znbd_zone *zone, int error,
                 struct answer *a)
{
  char pointer[64] = "";

  if (zone->cond == ZNBD_COND_EMPTY ||
      zone->cond == ZNBD_COND_IMPLICIT_OPEN ||
      zone->cond == ZNBD_COND_EXPLICIT_OPEN ||
      zone->cond == ZNBD_COND_CLOSED)
    snprintf (pointer, sizeof pointer, ", write pointer at %" PRIu64,
              zone->wp);
  return answer (a, ZNBD_REFUSAL_UNKNOWN, "zone %" PRIu32 " (now %s%s) "
                 "refused: %s", number, znbd_cond_name (zone->cond), pointer,
                 error ? strerror (error) : "the cause is unknown");
}

int
znbd_explain (struct znbd_disk *disk, enum znbd_zone_op op, uint32_t number,
              int error, char *text, size_t size)
{
  struct answer a = { text, size };
  struct znbd_zone zone;
  int r;

  if (disk->readonly)
    return answer (&a, ZNBD_REFUSAL_EXPORT_READ_ONLY,
                   "the export is read-only");
  if (number >= disk->geometry.zones)
    return answer (&a, ZNBD_REFUSAL_BOUNDS, "there is no zone %" PRIu32 ": "
                   "the disk has %" PRIu32 " zones, from 0", number,
                   disk->geometry.zones);
  if (znbd_report (disk, number, 1, &zone) == -1)
    return -1;

  r = explain_zone (number, &zone, &a);
  if (r != 0)
    return r;
  if (zone.type == ZNBD_ZONE_CONVENTIONAL)
    return answer (&a, ZNBD_REFUSAL_CONVENTIONAL, "zone %" PRIu32 " is "
                   "conventional: it has no write pointer to %s it by",
                   number, znbd_op_name (op));

  if (op == ZNBD_ZONE_OPEN && zone.cond == ZNBD_COND_FULL)
    return answer (&a, ZNBD_REFUSAL_FULL, "zone %" PRIu32 " is full: it "
                   "cannot be opened before it is reset", number);
  if (op == ZNBD_ZONE_OPEN) {
    r = explain_limits (disk, number, &zone, error, &a);
    if (r != 0)
      return r;
  }
  if (op == ZNBD_ZONE_CLOSE && zone.cond == ZNBD_COND_FULL)
    return answer (&a, ZNBD_REFUSAL_FULL, "zone %" PRIu32 " is full: only "
                   "open zones can be closed", number);
  if (op == ZNBD_ZONE_CLOSE && zone.cond == ZNBD_COND_EMPTY)
    return answer (&a, ZNBD_REFUSAL_EMPTY, "zone %" PRIu32 " is empty: only "
                   "open zones can be closed", number);

  return explain_unknown (number, &zone, error, &a);
}

int
znbd_explain_write (struct znbd_disk *disk, uint64_t offset, uint64_t length,
                    int error, char *text, size_t size)
{
  const struct znbd_geometry *g = &disk->geometry;
  struct answer a = { text, size };
  struct znbd_zone zone;
  uint64_t at = offset, end, piece;
  uint32_t number;
  int r;

  if (disk->readonly)
    return answer (&a, ZNBD_REFUSAL_EXPORT_READ_ONLY,
                   "the export is read-only");
  if (offset > g->size || length > g->size - offset)
    return answer (&a, ZNBD_REFUSAL_BOUNDS, "%" PRIu64 " bytes at %" PRIu64
                   " reach past the disk's end at %" PRIu64, length, offset,
                   g->size);
  if (offset % g->granularity != 0 || length % g->granularity != 0)
    return answer (&a, ZNBD_REFUSAL_ALIGNMENT, "%" PRIu64 " bytes at %" PRIu64
                   " are no multiple of the disk's %" PRIu32 "-byte blocks",
                   length, offset, g->granularity);
  if (length == 0)
    return answer (&a, ZNBD_REFUSAL_UNKNOWN, "a write of no bytes: %s",
                   error ? strerror (error) : "the cause is unknown");

  /* The server takes a write zone by zone, and so does this.  What the
   * server did before the zone that refused is behind that zone's pointer
   * now, so zones that are full up to where the write would fill them are
   * passed over unless nothing else is found. */
  end = offset + length;
  do {
    number = at / g->zone_size;
    if (znbd_report (disk, number, 1, &zone) == -1)
      return -1;
    piece = zone.start + zone.length < end ? zone.start + zone.length - at
                                           : end - at;

    r = explain_zone (number, &zone, &a);
    if (r != 0)
      return r;
    if (zone.type == ZNBD_ZONE_CONVENTIONAL ||
        (zone.cond == ZNBD_COND_FULL && at + piece < end)) {
      at += piece;
      continue;
    }
    if (zone.type == ZNBD_ZONE_SEQ_REQUIRED) {
      if (zone.cond == ZNBD_COND_FULL)
        return answer (&a, ZNBD_REFUSAL_FULL, "zone %" PRIu32 " is full: it "
                       "cannot be written before it is reset", number);
      if (at + piece > zone.start + zone.capacity)
        return answer (&a, ZNBD_REFUSAL_CAPACITY, "%" PRIu64 " bytes at "
                       "%" PRIu64 " reach past the capacity of zone %" PRIu32
                       ", which ends at %" PRIu64, piece, at, number,
                       zone.start + zone.capacity);
      if (at != zone.wp)
        return answer (&a, ZNBD_REFUSAL_POINTER, "the write pointer of zone "
                       "%" PRIu32 " stands at %" PRIu64 ", not at %" PRIu64,
                       number, zone.wp, at);
    }
    r = explain_limits (disk, number, &zone, error, &a);
    if (r != 0)
      return r;
    at += piece;
  } while (at < end);

  return explain_unknown (number, &zone, error, &a);
}

int
znbd_explain_append (struct znbd_disk *disk, uint32_t number,
                     uint64_t length, int error, char *text, size_t size)
{
  const struct znbd_geometry *g = &disk->geometry;
  struct answer a = { text, size };
  struct znbd_zone zone;
  uint64_t left;
  int r;

  if (disk->readonly)
    return answer (&a, ZNBD_REFUSAL_EXPORT_READ_ONLY,
                   "the export is read-only");
  if (number >= g->zones)
    return answer (&a, ZNBD_REFUSAL_BOUNDS, "there is no zone %" PRIu32 ": "
                   "the disk has %" PRIu32 " zones, from 0", number,
                   g->zones);
  if (length == 0 || length % g->granularity != 0)
    return answer (&a, ZNBD_REFUSAL_ALIGNMENT, "%" PRIu64 " bytes are no "
                   "multiple of the disk's %" PRIu32 "-byte blocks", length,
                   g->granularity);
  if (g->max_append != 0 && length > g->max_append)
    return answer (&a, ZNBD_REFUSAL_APPEND_SIZE, "an append of %" PRIu64
                   " bytes: the disk takes %" PRIu32 " at most", length,
                   g->max_append);
  if (znbd_report (disk, number, 1, &zone) == -1)
    return -1;
  r = explain_zone (number, &zone, &a);
  if (r != 0)
    return r;
  if (zone.type == ZNBD_ZONE_CONVENTIONAL)
    return answer (&a, ZNBD_REFUSAL_CONVENTIONAL, "zone %" PRIu32 " is "
                   "conventional: it has no write pointer to append at",
                   number);
  if (zone.cond == ZNBD_COND_FULL)
    return answer (&a, ZNBD_REFUSAL_FULL, "zone %" PRIu32 " is full: nothing "
                   "can be appended before it is reset", number);
  left = zone.start + zone.capacity - zone.wp;
  if (length > left)
    return answer (&a, ZNBD_REFUSAL_CAPACITY, "zone %" PRIu32 " has %" PRIu64
                   " bytes left, which is less than the %" PRIu64
                   " to append", number, left, length);
  r = explain_limits (disk, number, &zone, error, &a);
  if (r != 0)
    return r;
  return explain_unknown (number, &zone, error, &a);
}
