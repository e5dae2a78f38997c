/* SPDX-License-Identifier: BSD-3-Clause */
/* The report: by x-zbd:zones, or over the zone table.
 *
 * The zones asked for are cut into spans, some of which are in flight at
 * once.  A span over the table is one read: records on the wire and zones in
 * memory both have 64 bytes, so they are read into the caller's array and
 * decoded in place.  A span by the context asks on where an answer stops
 * short, as NBD allows; a zone that was cut so may have changed meanwhile
 * and is then asked for again.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib-decode.h"
#include "lib-internal.h"
#include "table.h"

/* In flight at once. */
#define SPANS 16u

/* Zones of a span: with three descriptors each, an answer that servers give
 * in one piece. */
#define SPAN_ZONES 8192u

/* Answers in a row which complete no zone, besides those that the zone's
 * size makes necessary. */
#define BARREN_MAX 16u

/* Times that a zone may change between the answers that describe it. */
#define CHANGES_MAX 8u

struct report;

struct span {
  struct lib_wire wire;         /* first: a span is found by it */
  struct report *report;
  struct lib_decoder decoder;   /* also of the table: first, count, zones */
  uint64_t asked;               /* the request's end, absolute */
  uint32_t complete;            /* zones before the request */
  bool cut;                     /* the zone under way is of several answers */
  uint64_t barren;
  unsigned changes;
  bool heard;                   /* descriptors came */
  const char *why;              /* they are wrong */
  bool busy;
};

struct report {
  struct lib_command cmd;
  struct nbd_handle *nbd;
  bool table;
  uint32_t first, count, next;  /* next: zones given to spans */
  uint32_t span_zones;
  struct znbd_zone *zones;
  unsigned busy;
  struct span span[SPANS];
};

/* Bytes of the longest status request. */
static uint64_t
request_max (const struct znbd_disk *disk)
{
  uint64_t max = disk->extended ? INT64_MAX : LIB_COMPACT_MAX;

  return max - max % disk->geometry.granularity;
}

/* ---- descriptors ---- */

static int
take (struct span *s, uint64_t length, uint64_t flags)
{
  if (s->why == NULL)
    (void) lib_decoder_add (&s->decoder, length, flags, &s->why);
  return 0;
}

/* Whether an answer is about what was asked. */
static bool
begin_answer (struct span *s, const char *context, uint64_t offset)
{
  char name[LIB_CONTEXT_MAX];

  if (strcmp (context, lib_context_name (LIB_DISK, name)) != 0)
    return false;               /* the caller's handle may have others */
  if (s->heard || offset != s->decoder.at) {
    s->why = "it is told twice";
    return false;
  }
  s->heard = true;
  return true;
}

#ifdef HAVE_NBD_BLOCK_STATUS_64
static int
extents64 (void *opaque, const char *context, uint64_t offset,
           nbd_extent *entries, size_t n, int *error)
{
  struct span *s = opaque;
  size_t i;

  (void) error;
  if (begin_answer (s, context, offset))
    for (i = 0; i < n; ++i)
      take (s, entries[i].length, entries[i].flags);
  return 0;
}
#else
static int
extents32 (void *opaque, const char *context, uint64_t offset,
           uint32_t *entries, size_t n, int *error)
{
  struct span *s = opaque;
  size_t i;

  (void) error;
  if (begin_answer (s, context, offset))
    for (i = 0; i + 1 < n; i += 2)
      take (s, entries[i], entries[i + 1]);
  return 0;
}
#endif

/* ---- spans ---- */

/* Sends a span's next request. */
static void
send_span (struct span *s)
{
  struct report *r = s->report;
  struct znbd_disk *disk = r->cmd.disk;
  struct lib_decoder *d = &s->decoder;
  const struct znbd_geometry *g = &disk->geometry;
  nbd_completion_callback done = lib_wire_completion (&s->wire);
  uint64_t end;
  int64_t cookie;

  s->wire.cmd = &r->cmd;
  s->heard = false;
  s->why = NULL;
  s->complete = d->complete;
  if (r->table)
    cookie = nbd_aio_pread (r->nbd, d->zones,
                            (size_t) d->count * TABLE_RECORD_SIZE,
                            table_record_offset (d->first), done, 0);
  else {
    end = (uint64_t) (d->first + d->count - 1) * g->zone_size;
    end = g->size - end < g->zone_size ? g->size : end + g->zone_size;
    if (end - d->at > request_max (disk))
      end = d->at + request_max (disk);
    s->asked = end;
#ifdef HAVE_NBD_BLOCK_STATUS_64
    cookie = nbd_aio_block_status_64 (
      r->nbd, end - d->at, d->at,
      (nbd_extent64_callback) { .callback = extents64, .user_data = s },
      done, 0);
#else
    cookie = nbd_aio_block_status (
      r->nbd, end - d->at, d->at,
      (nbd_extent_callback) { .callback = extents32, .user_data = s },
      done, 0);
#endif
  }
  if (cookie == -1) {
    lib_command_error (&r->cmd, nbd_get_errno () ? nbd_get_errno () : EIO,
                       "report at zone %" PRIu32 ": %s", d->first,
                       nbd_get_error () ? nbd_get_error () : "failed");
    return;
  }
  s->busy = true;
  r->busy++;
}

/* Gives free spans what is left to ask for, and ends the command. */
static void
go_on (struct report *r)
{
  struct lib_command *cmd = &r->cmd;
  unsigned i;

  for (i = 0; i < SPANS && r->next < r->count && !cmd->error; ++i) {
    struct span *s = &r->span[i];
    uint32_t n = r->count - r->next;

    if (s->busy)
      continue;
    if (n > r->span_zones)
      n = r->span_zones;
    lib_decoder_init (&s->decoder, &cmd->disk->geometry, r->first + r->next,
                      n, &r->zones[r->next]);
    s->report = r;
    s->cut = false;
    s->barren = s->changes = 0;
    r->next += n;
    send_span (s);
  }
  if (r->busy == 0)
    lib_command_done (cmd, r->count);
}

static void
decode_records (struct span *s)
{
  struct lib_decoder *d = &s->decoder;
  const char *why;
  uint32_t n = table_decode_records (d->zones, d->geometry, d->first,
                                     d->count, &why);

  if (n < d->count)
    lib_command_error (&s->report->cmd, EPROTO, "the server's record of zone "
                       "%" PRIu32 " makes no sense: %s", d->first + n, why);
}

/* Looks at the answer to a status request.  Returns true to ask on. */
static bool
judge_answer (struct span *s)
{
  struct lib_command *cmd = &s->report->cmd;
  struct lib_decoder *d = &s->decoder;
  bool progress = d->complete > s->complete;
  uint32_t zone = d->first + d->complete;

  if (s->why == NULL && !s->heard)
    s->why = "the server does not tell";
  if (s->why) {
    /* The zone may have changed between the answers it is made of. */
    if (s->cut && !progress && s->heard && s->changes++ < CHANGES_MAX) {
      lib_decoder_rewind (d);
      s->cut = false;
      return true;
    }
    lib_command_error (cmd, EPROTO, "the server's report of zone %" PRIu32
                       " makes no sense: %s", zone, s->why);
    return false;
  }
  if (d->complete == d->count)
    return false;

  /* The zone that was cut in an answer that has others before it is asked
   * for from its start; else this answer is a part of it. */
  if (progress) {
    s->barren = s->changes = 0;
    s->cut = false;
    lib_decoder_rewind (d);
    return true;
  }
  s->cut = true;
  if (s->barren++ > BARREN_MAX +
      d->geometry->zone_size / request_max (cmd->disk)) {
    lib_command_error (cmd, EPROTO, "the server describes zone %" PRIu32
                       " in pieces without end", zone);
    return false;
  }
  return true;
}

static void
advance (struct lib_command *cmd, struct lib_wire *wire)
{
  struct report *r = (struct report *) cmd;
  struct span *s = (struct span *) wire;
  bool more = false;

  s->busy = false;
  r->busy--;
  if (wire->error)
    lib_command_error (cmd, wire->error, "report at zone %" PRIu32 ": %s",
                       s->decoder.first, strerror (wire->error));
  else if (r->table)
    decode_records (s);
  else
    more = judge_answer (s);
  if (more && !cmd->error)
    send_span (s);
  go_on (r);
}

/* ---- choosing the way ---- */

/* Zones that one status request describes; 0: not even one. */
static uint32_t
zones_per_request (const struct znbd_disk *disk)
{
  uint64_t n = request_max (disk) / disk->geometry.zone_size;

  return n < SPAN_ZONES ? n : SPAN_ZONES;
}

/* Status requests for a report, if nothing stops short. */
static uint64_t
requests_for (const struct znbd_disk *disk, uint32_t count)
{
  uint32_t n = zones_per_request (disk);

  if (n == 0)
    return count * (disk->geometry.zone_size / request_max (disk) + 1);
  return (count + n - 1) / n;
}

/* The connection to ask, and how; NULL with an error. */
static struct nbd_handle *
choose (struct znbd_disk *disk, uint32_t count, bool *table)
{
  uint64_t n = requests_for (disk, count);

  *table = true;
  if (!(disk->offered & LIB_BIT (LIB_DISK)))
    lib_set_way (disk, ZNBD_WAY_REPORT, disk->table_way);
  else if (n > LIB_REPORT_REQUESTS && lib_table_usable (disk))
    lib_set_way (disk, ZNBD_WAY_REPORT, "the zone table: so many zones take "
                 "fewer round trips so than by the context x-zbd:zones");
  else {
    *table = false;
    lib_set_way (disk, ZNBD_WAY_REPORT, disk->extended
                 ? "the context x-zbd:zones, extended headers"
                 : "the context x-zbd:zones, compact headers");
  }
  return lib_conn_get (disk, *table ? LIB_TABLE : LIB_DISK);
}

/* Fills a report and sends what it can.  Under lock. */
static void
begin (struct report *r, bool async)
{
  struct znbd_disk *disk = r->cmd.disk;

  if (r->table)
    r->span_zones = disk->read_max / TABLE_RECORD_SIZE;
  else
    r->span_zones = zones_per_request (disk);
  if (r->span_zones == 0)
    r->span_zones = 1;
  lib_command_begin (&r->cmd, async);
  go_on (r);
  lib_update_fds (disk);
}

/* NULL with an error.  *count is cut to the disk's end; 0: nothing to do. */
static struct report *
new_report (struct znbd_disk *disk, uint32_t first, uint32_t *count,
            struct znbd_zone *zones)
{
  struct nbd_handle *nbd = NULL;
  struct report *r;
  bool table = false;

  if (first >= disk->geometry.zones)
    *count = 0;
  else if (*count > disk->geometry.zones - first)
    *count = disk->geometry.zones - first;
  if (*count > 0) {
    nbd = choose (disk, *count, &table);
    if (nbd == NULL)
      return NULL;
  }
  r = calloc (1, sizeof *r);
  if (r == NULL) {
    lib_error (ENOMEM, "report: out of memory");
    return NULL;
  }
  r->cmd.disk = disk;
  r->cmd.advance = advance;
  r->nbd = nbd;
  r->table = table;
  r->first = first;
  r->count = *count;
  r->zones = zones;
  return r;
}

int64_t
znbd_report (struct znbd_disk *disk, uint32_t first, uint32_t count,
             struct znbd_zone *zones)
{
  struct report *r = new_report (disk, first, &count, zones);
  int64_t n = 0;

  if (r == NULL)
    return -1;
  if (count > 0) {
    pthread_mutex_lock (&disk->lock);
    begin (r, false);
    n = lib_command_wait (&r->cmd);
    pthread_mutex_unlock (&disk->lock);
  }
  free (r);
  return n;
}

int64_t
znbd_aio_report (struct znbd_disk *disk, uint32_t first, uint32_t count,
                 struct znbd_zone *zones, znbd_completion completion)
{
  struct report *r = new_report (disk, first, &count, zones);
  int64_t cookie;

  if (r == NULL) {
    if (completion.free)
      completion.free (completion.user_data);
    return -1;
  }
  r->cmd.completion = completion;
  pthread_mutex_lock (&disk->lock);
  begin (r, true);
  cookie = r->cmd.cookie;
  pthread_mutex_unlock (&disk->lock);
  return cookie;
}
