/* SPDX-License-Identifier: BSD-3-Clause */
/* Appends, over a connection that selected x-zbd:append alone.  There a
 * write is an append to the zone of its offset, and its place inside the
 * zone is a tag, by which a block status then asks where the data went.
 * Both are sent at once.
 *
 * Writes to conventional zones are ordinary ones there: what a zone is must
 * be known before the first append to it.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib-internal.h"

/* Appends in flight on the wire; more of them wait here.  Servers keep the
 * places of 1024. */
#define SENT_MAX 1024u

struct lib_append {
  struct lib_command cmd;
  struct lib_wire write, status;
  struct lib_append *next, *prev;       /* of those sent; of the queue: next */
  struct znbd_zone zone;        /* its start, length and capacity count */
  uint32_t number;
  uint64_t tag;                 /* offset that it was sent with */
  const void *buf;
  uint32_t length;
  uint32_t cmd_flags;
  unsigned pending;             /* wires not answered */
  unsigned heard;               /* descriptors that came */
  uint64_t told;                /* flags of the last one */
};

/* One descriptor is expected; the rest is counted. */
static int
extents (void *opaque, const char *context, uint64_t offset,
         uint32_t *entries, size_t n, int *error)
{
  struct lib_append *a = opaque;

  (void) context;
  (void) error;
  if (offset == a->tag && n >= 2)
    a->told = entries[1];
  a->heard += n / 2;
  return 0;
}

/* A tag which no other append to the zone has; false: none is free. */
static bool
find_tag (struct znbd_disk *disk, struct lib_append *a)
{
  const uint32_t unit = disk->geometry.granularity;
  uint64_t taken[SENT_MAX / 64] = { 0 };
  uint64_t slots = (a->zone.length - a->length) / unit + 1, slot;
  const struct lib_append *b;

  if (disk->nsent >= SENT_MAX)
    return false;
  for (b = disk->sent; b; b = b->next)
    if (b->number == a->number) {
      slot = (b->tag - b->zone.start) / unit;
      taken[slot / 64] |= UINT64_C (1) << slot % 64;
    }
  for (slot = 0; slot < slots && slot < SENT_MAX; ++slot)
    if (!(taken[slot / 64] & UINT64_C (1) << slot % 64)) {
      a->tag = a->zone.start + slot * unit;
      return true;
    }
  return false;
}

static void
ended (struct lib_append *a)
{
  struct znbd_disk *disk = a->cmd.disk;
  uint64_t place = (a->told - 1) * 512;

  if (a->next)
    a->next->prev = a->prev;
  if (a->prev)
    a->prev->next = a->next;
  else
    disk->sent = a->next;
  disk->nsent--;

  if (!a->cmd.error) {
    if (a->heard != 1 || a->told == 0)
      lib_command_error (&a->cmd, EPROTO, "zone %" PRIu32 ": the data was "
                         "appended, but the server does not say where",
                         a->number);
    else if (a->told > UINT32_MAX ||
             place % disk->geometry.granularity != 0 ||
             place > a->zone.capacity ||
             a->length > a->zone.capacity - place)
      lib_command_error (&a->cmd, EPROTO, "zone %" PRIu32 ": the data was "
                         "appended, but the server says at a place where it "
                         "cannot be", a->number);
  }
  lib_command_done (&a->cmd, a->zone.start + place);
}

/* Sends an append that has a tag.  It may end at once. */
static void
send_append (struct znbd_disk *disk, struct lib_append *a)
{
  struct nbd_handle *nbd = disk->conns[LIB_APPEND].nbd;

  a->prev = NULL;
  a->next = disk->sent;
  if (a->next)
    a->next->prev = a;
  disk->sent = a;
  disk->nsent++;

  a->write.cmd = a->status.cmd = &a->cmd;
  if (nbd_aio_pwrite (nbd, a->buf, a->length, a->tag,
                      lib_wire_completion (&a->write), a->cmd_flags) != -1)
    a->pending++;
  if (a->pending &&
      nbd_aio_block_status (
        nbd, disk->geometry.granularity, a->tag,
        (nbd_extent_callback) { .callback = extents, .user_data = a },
        lib_wire_completion (&a->status), LIBNBD_CMD_FLAG_REQ_ONE) != -1)
    a->pending++;
  if (a->pending < 2)
    lib_command_error (&a->cmd, nbd_get_errno () ? nbd_get_errno () : EIO,
                       "append to zone %" PRIu32 ": %s", a->number,
                       nbd_get_error () ? nbd_get_error () : "failed");
  if (a->pending == 0)
    ended (a);
}

/* Sends what waits, in order, as far as there are tags. */
static void
send_queue (struct znbd_disk *disk)
{
  struct lib_append *a;

  while ((a = disk->queue) != NULL && find_tag (disk, a)) {
    disk->queue = a->next;
    if (disk->queue == NULL)
      disk->queue_end = &disk->queue;
    send_append (disk, a);
  }
}

static void
advance (struct lib_command *cmd, struct lib_wire *wire)
{
  struct lib_append *a = (struct lib_append *) cmd;
  struct znbd_disk *disk = cmd->disk;

  if (wire->error)
    lib_command_error (cmd, wire->error, "append to zone %" PRIu32 ": %s",
                       a->number, strerror (wire->error));
  if (--a->pending == 0) {
    ended (a);
    send_queue (disk);
  }
}

/* Learns what kind of zone it is.  0, or -1 with an error. */
static int
learn_zone (struct znbd_disk *disk, uint32_t number, struct znbd_zone *zone)
{
  struct znbd_zone *known = &disk->sequential[number % LIB_SEQUENTIAL];
  const uint64_t start = number * disk->geometry.zone_size;
  int64_t n;

  pthread_mutex_lock (&disk->lock);
  *zone = *known;
  pthread_mutex_unlock (&disk->lock);
  if (zone->length != 0 && zone->start == start)
    return 0;
  n = znbd_report (disk, number, 1, zone);
  if (n == -1)
    return -1;
  if (zone->type == ZNBD_ZONE_CONVENTIONAL)
    return lib_error (EINVAL, "zone %" PRIu32 " is conventional: it has no "
                      "write pointer to append at", number);
  pthread_mutex_lock (&disk->lock);
  *known = *zone;
  pthread_mutex_unlock (&disk->lock);
  return 0;
}

static int
check (struct znbd_disk *disk, uint32_t number, const void *buf,
       size_t length, unsigned flags, struct znbd_zone *zone)
{
  const struct znbd_geometry *g = &disk->geometry;

  if ((flags & ~ZNBD_FUA) != 0 || buf == NULL)
    return lib_error (EINVAL, "append: wrong argument");
  if (disk->readonly)
    return lib_error (EPERM, "the export is read-only");
  if (number >= g->zones)
    return lib_error (EINVAL, "there is no zone %" PRIu32 ": the disk has "
                      "%" PRIu32 " zones, from 0", number, g->zones);
  if (!(disk->offered & LIB_BIT (LIB_APPEND)))
    return lib_error (ENOTSUP, "the server takes no appends: it does not "
                      "offer the context x-zbd:append (znbd-server does, of "
                      "host-managed disks)");
  if (length == 0 || length % g->granularity != 0)
    return lib_error (EINVAL, "an append of %zu bytes: it must be a multiple "
                      "of the disk's %" PRIu32 "-byte blocks", length,
                      g->granularity);
  if (g->max_append != 0 && length > g->max_append)
    return lib_error (EINVAL, "an append of %zu bytes: the disk takes "
                      "%" PRIu32 " at most", length, g->max_append);
  if (learn_zone (disk, number, zone) == -1)
    return -1;
  if (length > zone->length || length > UINT32_MAX)
    return lib_error (EINVAL, "an append of %zu bytes is larger than zone "
                      "%" PRIu32, length, number);
  return 0;
}

/* Checks and makes an append; NULL with an error. */
static struct lib_append *
new_append (struct znbd_disk *disk, uint32_t number, const void *buf,
            size_t length, unsigned flags)
{
  struct nbd_handle *nbd;
  struct znbd_zone zone;
  struct lib_append *a;

  if (check (disk, number, buf, length, flags, &zone) == -1)
    return NULL;
  nbd = lib_conn_get (disk, LIB_APPEND);
  if (nbd == NULL)
    return NULL;
  if ((flags & ZNBD_FUA) && nbd_can_fua (nbd) != 1) {
    lib_error (ENOTSUP, "append: the server knows no FUA; flush after it");
    return NULL;
  }
  a = calloc (1, sizeof *a);
  if (a == NULL) {
    lib_error (ENOMEM, "append: out of memory");
    return NULL;
  }
  lib_set_way (disk, ZNBD_WAY_APPEND, "the context x-zbd:append");
  a->cmd.disk = disk;
  a->cmd.advance = advance;
  a->zone = zone;
  a->number = number;
  a->buf = buf;
  a->length = length;
  a->cmd_flags = flags & ZNBD_FUA ? LIBNBD_CMD_FLAG_FUA : 0;
  return a;
}

/* Under lock. */
static void
begin (struct lib_append *a, bool async)
{
  struct znbd_disk *disk = a->cmd.disk;

  lib_command_begin (&a->cmd, async);
  a->next = NULL;
  *disk->queue_end = a;
  disk->queue_end = &a->next;
  send_queue (disk);
  lib_update_fds (disk);
}

int
znbd_append (struct znbd_disk *disk, uint32_t zone, const void *buf,
             size_t length, unsigned flags, uint64_t *offset)
{
  struct lib_append *a = new_append (disk, zone, buf, length, flags);
  char text[LIB_TEXT_MAX];
  int64_t where;
  int refusal;

  if (a == NULL)
    return -1;
  pthread_mutex_lock (&disk->lock);
  begin (a, false);
  where = lib_command_wait (&a->cmd);
  pthread_mutex_unlock (&disk->lock);
  free (a);
  if (where != -1) {
    if (offset)
      *offset = where;
    return 0;
  }
  if (znbd_get_errno () != EPROTO &&
      lib_was_refused (disk->conns[LIB_APPEND].nbd)) {
    int error = znbd_get_errno ();

    refusal = znbd_explain_append (disk, zone, length, error, text,
                                   sizeof text);
    if (refusal > ZNBD_REFUSAL_UNKNOWN)
      return lib_error (error, "%s", text);
    if (refusal == -1)
      return lib_error (error, "append to zone %" PRIu32 ": %s", zone,
                        strerror (error));
  }
  return -1;
}

int64_t
znbd_aio_append (struct znbd_disk *disk, uint32_t zone, const void *buf,
                 size_t length, unsigned flags, znbd_completion completion)
{
  struct lib_append *a = new_append (disk, zone, buf, length, flags);
  int64_t cookie;

  if (a == NULL) {
    if (completion.free)
      completion.free (completion.user_data);
    return -1;
  }
  a->cmd.completion = completion;
  pthread_mutex_lock (&disk->lock);
  begin (a, true);
  cookie = a->cmd.cookie;
  pthread_mutex_unlock (&disk->lock);
  return cookie;
}
