/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory store: one anonymous mapping of the disk's size, of which the
 * kernel makes pages as they are written.  It is read only below a pointer
 * or in conventional zones, where a page never written is the shared page
 * of zeros.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "memory.h"
#include "size.h"
#include "zones.h"

struct memory {
  struct store store;
  uint8_t *bytes;
  char *readonly_zones, *offline_zones;
};

static struct memory *
memory_of (struct store *store)
{
  return (struct memory *) store;
}

/* Zeros by giving pages back. */
static void
drop (struct memory *m, uint64_t offset, uint64_t length)
{
  uint64_t page = sysconf (_SC_PAGESIZE);
  uint64_t end = offset + length;
  uint64_t first = (offset + page - 1) / page * page;
  uint64_t last = end / page * page;

  if (first >= last ||
      madvise (m->bytes + first, last - first, MADV_DONTNEED) == -1)
    memset (m->bytes + offset, 0, length);
  else {
    memset (m->bytes + offset, 0, first - offset);
    memset (m->bytes + last, 0, end - last);
  }
}

static void
memory_submit (struct store *store, struct store_io *io)
{
  struct memory *m = memory_of (store);
  uint8_t *p = m->bytes + io->offset;
  unsigned i;

  switch (io->op) {
  case STORE_READ:
    for (i = 0; i < io->niov; p += io->iov[i++].iov_len)
      memcpy (io->iov[i].iov_base, p, io->iov[i].iov_len);
    break;
  case STORE_WRITE:
    for (i = 0; i < io->niov; p += io->iov[i++].iov_len)
      memcpy (p, io->iov[i].iov_base, io->iov[i].iov_len);
    break;
  case STORE_ZERO:
  case STORE_DISCARD:
  case STORE_FINISH:
  case STORE_RESET:
    drop (m, io->offset, io->length);
    break;
  case STORE_CACHE:
  case STORE_FLUSH:
  case STORE_ZONE_OP:           /* not of this store */
  case STORE_REPORT:
    break;
  }
  io->done (io, 0, io->length);
}

static int
load_list (struct zones *zs, const char *list, uint8_t cond,
           struct zone_error *err)
{
  struct zones_load_list l = { .zones = zs, .cond = cond };
  const char *why;

  if (list && size_parse_zone_list (list, zs->geometry.zones,
                                    zones_load_list, &l, &why) == -1)
    return zone_error (err, EINVAL, "\"%s\": %s", list, why);
  return 0;
}

static int
memory_load (struct store *store, struct zones *zs, struct zone_error *err)
{
  struct memory *m = memory_of (store);

  if (load_list (zs, m->readonly_zones, ZNBD_COND_READ_ONLY, err) == -1 ||
      load_list (zs, m->offline_zones, ZNBD_COND_OFFLINE, err) == -1)
    return -1;
  return 0;
}

static int
memory_close (struct store *store, bool flush, struct zone_error *err)
{
  struct memory *m = memory_of (store);

  (void) flush;
  (void) err;
  if (m->bytes)
    munmap (m->bytes, m->store.geometry.size);
  free (m->readonly_zones);
  free (m->offline_zones);
  free (m);
  return 0;
}

static const struct store_ops memory_ops = {
  .name = "memory",
  .submit = memory_submit,
  .load = memory_load,
  .close = memory_close,
};

static int
copy_list (char **to, const char *from)
{
  if (from == NULL)
    return 0;
  *to = strdup (from);
  return *to ? 0 : -1;
}

struct store *
memory_new (const struct store_geometry *geometry, struct zone_error *err)
{
  struct zone_error ignored;
  char text[SIZE_TEXT_MAX];
  struct memory *m;
  void *p;

  if (store_geometry_check (geometry, err) == -1)
    return NULL;
  m = calloc (1, sizeof *m);
  if (m == NULL ||
      copy_list (&m->readonly_zones, geometry->readonly_zones) == -1 ||
      copy_list (&m->offline_zones, geometry->offline_zones) == -1) {
    zone_error (err, ENOMEM, "no memory for a disk in memory");
    goto fail;
  }
  m->store.ops = &memory_ops;
  m->store.fast_zero = true;
  store_geometry_fill (geometry, &m->store.geometry);
  /* A new disk each time: nothing of another one's is in it. */
  if (getentropy (m->store.geometry.uuid, 16) == -1 ||
      getentropy (&m->store.geometry.epoch, 8) == -1) {
    zone_error (err, errno, "no random numbers for a uuid: %s",
                strerror (errno));
    goto fail;
  }
  m->store.geometry.uuid[6] = (m->store.geometry.uuid[6] & 0x0f) | 0x40;
  m->store.geometry.uuid[8] = (m->store.geometry.uuid[8] & 0x3f) | 0x80;
  m->store.geometry.epoch >>= 1;

  p = MAP_FAILED;
  if (geometry->size <= SIZE_MAX)
    p = mmap (NULL, geometry->size, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    zone_error (err, ENOMEM, "size %s is too large for a disk in memory: %s",
                size_text (text, geometry->size), strerror (ENOMEM));
    goto fail;
  }
  m->bytes = p;
  return &m->store;

 fail:
  if (m)
    memory_close (&m->store, false, &ignored);
  return NULL;
}
