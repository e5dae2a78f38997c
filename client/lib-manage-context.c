/* SPDX-License-Identifier: BSD-3-Clause */
/* Zone management by contexts: a block status request with REQ_ONE does it,
 * on a connection that selected the operation's context alone, or for which
 * the request names it alone.  The answer is one descriptor with flags 1, as
 * long as what was done.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "lib-internal.h"

struct answer {
  unsigned count;               /* descriptors */
  uint64_t length, flags;
};

#ifdef HAVE_NBD_BLOCK_STATUS_64
static int
extents (void *opaque, const char *context, uint64_t offset,
         nbd_extent *entries, size_t n, int *error)
{
  struct answer *a = opaque;

  (void) context;
  (void) offset;
  (void) error;
  a->count += n;
  if (n > 0) {
    a->length = entries[0].length;
    a->flags = entries[0].flags;
  }
  return 0;
}
#else
static int
extents (void *opaque, const char *context, uint64_t offset,
         uint32_t *entries, size_t n, int *error)
{
  struct answer *a = opaque;

  (void) context;
  (void) offset;
  (void) error;
  a->count += n / 2;
  if (n >= 2) {
    a->length = entries[0];
    a->flags = entries[1];
  }
  return 0;
}
#endif

static int
request (const struct znbd_disk *disk, struct nbd_handle *nbd,
         enum lib_conn_kind kind, uint64_t offset, uint64_t length,
         struct answer *a)
{
#ifdef HAVE_NBD_BLOCK_STATUS_64
  const nbd_extent64_callback callback = {
    .callback = extents, .user_data = a,
  };
#else
  const nbd_extent_callback callback = {
    .callback = extents, .user_data = a,
  };
#endif

#ifdef HAVE_NBD_BLOCK_STATUS_FILTER
  if (disk->filters) {
    char name[LIB_CONTEXT_MAX];
    char *names[] = { name, NULL };

    lib_context_name (kind, name);
    return nbd_block_status_filter (nbd, length, offset, names, callback,
                                    LIBNBD_CMD_FLAG_REQ_ONE);
  }
#endif
  (void) disk;
  (void) kind;
#ifdef HAVE_NBD_BLOCK_STATUS_64
  return nbd_block_status_64 (nbd, length, offset, callback,
                              LIBNBD_CMD_FLAG_REQ_ONE);
#else
  return nbd_block_status (nbd, length, offset, callback,
                           LIBNBD_CMD_FLAG_REQ_ONE);
#endif
}

/* Sends a request and waits.  *done: bytes.  An answer that does not say
 * that it was done is an error. */
static int
ask (const struct znbd_disk *disk, struct nbd_handle *nbd,
     enum lib_conn_kind kind, enum znbd_zone_op op, uint64_t offset,
     uint64_t length, uint64_t *done)
{
  struct answer a = { 0 };

  if (request (disk, nbd, kind, offset, length, &a) == -1)
    return lib_error_nbd ("%s", znbd_op_name (op));
  if (a.count != 1 || a.flags != 1 || a.length == 0 || a.length > length)
    return lib_error (EPROTO, "%s: the server's answer makes no sense, and "
                      "may mean that nothing was done", znbd_op_name (op));
  *done = a.length;
  return 0;
}

/* Zones of one request; 0: one at a time, by the single form. */
static uint32_t
zones_per_request (const struct znbd_disk *disk)
{
  const uint64_t max = disk->extended ? INT64_MAX : LIB_COMPACT_MAX;
  uint64_t n = max / disk->geometry.zone_size;

  return n < UINT32_MAX ? n : UINT32_MAX;
}

uint64_t
lib_manage_context_requests (const struct znbd_disk *disk, uint32_t count)
{
  uint64_t n = zones_per_request (disk);

  return n == 0 ? count : (count + n - 1) / n;
}

int
lib_manage_context (struct znbd_disk *disk, struct nbd_handle *nbd,
                    enum znbd_zone_op op, uint32_t first, uint32_t count,
                    uint32_t *done)
{
  const struct znbd_geometry *g = &disk->geometry;
  const uint32_t max = zones_per_request (disk);
  uint64_t offset, length, bytes = 0;
  uint32_t n;

  for (*done = 0; *done < count; *done += n) {
    n = count - *done;
    if (n > max)
      n = max > 0 ? max : 1;
    offset = (first + *done) * g->zone_size;
    length = n * g->zone_size;
    if (length > g->size - offset)
      length = g->size - offset;
    if (n == 1)
      length = g->granularity;
    if (ask (disk, nbd, LIB_MANAGE + (op - ZNBD_ZONE_OPEN), op, offset,
             length, &bytes) == -1)
      return -1;
    if (bytes == length)
      continue;
    /* A zone refused: asking on tells why. */
    if (bytes % g->zone_size != 0)
      return lib_error (EPROTO, "%s: the server says that a part of a zone "
                        "was done", znbd_op_name (op));
    n = bytes / g->zone_size;
  }
  return 0;
}

int
lib_manage_context_all (struct znbd_disk *disk, struct nbd_handle *nbd,
                        enum znbd_zone_op op)
{
  uint64_t bytes;

  return ask (disk, nbd, LIB_MANAGE_ALL + (op - ZNBD_ZONE_OPEN), op, 0,
              disk->geometry.granularity, &bytes);
}
