/* SPDX-License-Identifier: BSD-3-Clause */
/* Connecting: to the disk's export and its contexts, or to the zone table
 * beside it, and checking that what is there makes sense.  The server is
 * not trusted: sizes that pass here are used as they are by everything
 * else.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "geometry.h"
#include "lib-internal.h"
#include "table.h"

/* ---- names ---- */

/* Whether an export's name is that of a zone table: no disk is called so. */
static bool
is_table_name (const char *export)
{
  size_t n = strlen (export), suffix = strlen (TABLE_EXPORT_SUFFIX);

  return strcmp (export, TABLE_EXPORT_NAME) == 0 ||
    (n >= suffix && strcmp (export + n - suffix, TABLE_EXPORT_SUFFIX) == 0);
}

/* Sets the names of both exports from that of one. */
static int
set_names (struct znbd_disk *disk, const char *export)
{
  size_t n = strlen (export);

  if (strcmp (export, TABLE_EXPORT_NAME) == 0)
    n = 0;
  else if (is_table_name (export))
    n -= strlen (TABLE_EXPORT_SUFFIX);
  disk->export = strndup (export, n);
  if (n == 0)
    disk->table_export = strdup (TABLE_EXPORT_NAME);
  else if (asprintf (&disk->table_export, "%.*s%s", (int) n, export,
                     TABLE_EXPORT_SUFFIX) == -1)
    disk->table_export = NULL;
  if (disk->export == NULL || disk->table_export == NULL)
    return lib_error (ENOMEM, "connecting: out of memory");
  return 0;
}

/* What may be the matter when a server does not let us at an export. */
static const char *
hint (int error)
{
  switch (error) {
  case ENOENT:
    return " (is it a zoned disk of znbd?)";
  case ENOTSUP:                 /* libnbd's for "TLS required" */
    return " (does the server want TLS, an nbds URI?)";
  default:
    return "";
  }
}

/* ---- the zone table ---- */

/* The largest request that a server takes; libnbd says 0 or fails where it
 * did not tell. */
static uint32_t
request_max (struct nbd_handle *nbd, uint32_t wanted)
{
  int64_t max = nbd_get_block_size (nbd, LIBNBD_SIZE_MAXIMUM);

  if (max <= 0 || max > wanted)
    max = wanted;
  max -= max % TABLE_RECORD_SIZE;
  return max < TABLE_RECORD_SIZE ? TABLE_RECORD_SIZE : max;
}

/* Reads and checks the header behind a ready connection. */
static int
read_table (struct znbd_disk *disk, struct nbd_handle *nbd,
            struct znbd_geometry *geometry)
{
  uint8_t header[TABLE_HEADER_SIZE];
  const char *why;
  int64_t bytes, minimum;

  bytes = nbd_get_size (nbd);
  if (bytes == -1)
    return lib_error_nbd ("zone table");
  if (bytes < TABLE_HEADER_SIZE)
    return lib_error (EPROTO, "the export is no zone table, but has only "
                      "%lld bytes (is it a zoned disk of znbd?); connect to "
                      "the export \"%s\" or \"NAME%s\"", (long long) bytes,
                      TABLE_EXPORT_NAME, TABLE_EXPORT_SUFFIX);
  minimum = nbd_get_block_size (nbd, LIBNBD_SIZE_MINIMUM);
  if (minimum > TABLE_MIN_BLOCK)
    return lib_error (EPROTO, "the zone table's server takes no requests of "
                      "less than %lld bytes, records have %u",
                      (long long) minimum, TABLE_MIN_BLOCK);

  if (nbd_pread (nbd, header, sizeof header, 0, 0) == -1)
    return lib_error_nbd ("reading the zone table");
  if (table_decode_header (header, bytes, geometry, &why) == -1)
    return lib_error (EPROTO, "the export \"%s\" is no zone table that this "
                      "version knows: %s (is it a zoned disk of znbd?)",
                      disk->table_export, why);
  disk->read_max = request_max (nbd, LIB_READ_MAX);
  disk->write_max = request_max (nbd, LIB_MANAGE_MAX * TABLE_RECORD_SIZE);
  return 0;
}

/* ---- making connections ---- */

/* A handle that negotiates; NULL with an error. */
static struct nbd_handle *
dial (const struct znbd_disk *disk)
{
  struct nbd_handle *nbd = nbd_create ();

  /* The option mode allows to look at the export's name, which libnbd
   * takes out of the URI, and to list what there is before choosing. */
  if (nbd == NULL || nbd_set_opt_mode (nbd, true) == -1 ||
      nbd_set_uri_allow_local_file (nbd, disk->local_files) == -1 ||
      (disk->tls > LIBNBD_TLS_DISABLE &&
       nbd_set_tls (nbd, disk->tls) == -1) ||
      nbd_connect_uri (nbd, disk->uri) == -1)
    lib_error_nbd ("%s", disk->uri);
  else if (nbd_aio_is_negotiating (nbd) != 1)
    lib_error (ENOTSUP, "%s: the server speaks NBD's old style, which has no "
               "exports to choose from", disk->uri);
  else
    return nbd;
  nbd_close (nbd);
  return NULL;
}

/* Whether a kind of connection selects the context of another one's, too. */
static bool
selects (const struct znbd_disk *disk, enum lib_conn_kind kind,
         enum lib_conn_kind other)
{
  return (disk->offered & LIB_BIT (other)) &&
    (other == kind ||
     (disk->filters && kind == LIB_MANAGE && other > LIB_MANAGE));
}

/* Asks for its contexts. */
static int
select_contexts (const struct znbd_disk *disk, struct nbd_handle *nbd,
                 enum lib_conn_kind kind)
{
  char name[LIB_CONTEXT_MAX];
  unsigned i;

  if (nbd_clear_meta_contexts (nbd) == -1)
    return -1;
  for (i = 0; i < LIB_CONNS; ++i)
    if (selects (disk, kind, i) &&
        nbd_add_meta_context (nbd, lib_context_name (i, name)) == -1)
      return -1;
  return 0;
}

/* Chooses an export with the contexts of a kind of connection, where kind
 * has any. */
static int
choose_export (struct znbd_disk *disk, struct nbd_handle *nbd,
               enum lib_conn_kind kind)
{
  const char *export = kind == LIB_TABLE ? disk->table_export : disk->export;
  char name[LIB_CONTEXT_MAX];
  int64_t size;
  unsigned i;

  if (select_contexts (disk, nbd, kind) == -1 ||
      nbd_set_export_name (nbd, export) == -1 ||
      nbd_opt_go (nbd) == -1) {
    const char *text = hint (nbd_get_errno ());

    if (kind == LIB_TABLE)
      return lib_error_nbd ("no zone table export \"%s\"%s", export, text);
    return lib_error_nbd ("export \"%s\"%s", export, text);
  }
  for (i = 0; i < LIB_CONNS; ++i)
    if (selects (disk, kind, i) &&
        nbd_can_meta_context (nbd, lib_context_name (i, name)) != 1)
      return lib_error (EPROTO, "the server lists the context %s but does not "
                        "let us select it", name);
  if (kind == LIB_TABLE)
    return 0;
  size = nbd_get_size (nbd);
  if (size == -1)
    return lib_error_nbd ("export \"%s\"", export);
  if (disk->geometry.size != 0 && (uint64_t) size != disk->geometry.size)
    return lib_error (EPROTO, "the disk has another size than before: "
                      "%" PRId64 " bytes, not %" PRIu64, size,
                      disk->geometry.size);
  return 0;
}

/* The geometry that an export's contexts list names; NULL: it has none. */
static int
take_geometry (struct znbd_disk *disk, const char *name, uint64_t size)
{
  const char *why;

  if (geometry_decode_name (name, size, &disk->geometry, &why) == -1) {
    disk->geometry.size = 0;
    return lib_error (EPROTO, "the server's geometry makes no sense: %s",
                      why);
  }
  return 0;
}

static int
take_flags (struct znbd_disk *disk, struct nbd_handle *nbd)
{
  int r = nbd_is_read_only (nbd);

  if (r == -1)
    return lib_error_nbd ("connecting");
  disk->readonly = r;
#ifdef HAVE_NBD_BLOCK_STATUS_64
  disk->extended = nbd_get_extended_headers_negotiated (nbd) == 1;
#endif
#ifdef HAVE_NBD_BLOCK_STATUS_FILTER
  disk->filters = nbd_can_block_status_payload (nbd) == 1;
#endif
  return 0;
}

/* Makes a negotiating handle the disk's first connection: by contexts where
 * they are offered, else the zone table. */
static int
begin_disk (struct znbd_disk *disk, struct nbd_handle *nbd, bool owned)
{
  enum lib_conn_kind kind = LIB_TABLE;
  char *geometry = NULL, *export;
  int r;

  export = nbd_get_export_name (nbd);
  if (export == NULL)
    return lib_error_nbd ("connecting");
  r = set_names (disk, export);
  disk->table_way = is_table_name (export)
    ? "the zone table: it is what was connected to"
    : "the zone table: the server offers no x-zbd contexts";
  if (r == 0 && !is_table_name (export))
    r = lib_list_contexts (nbd, &disk->offered, &geometry);
  free (export);
  if (r == -1)
    return -1;
  if ((disk->offered & LIB_BIT (LIB_DISK)) && geometry)
    kind = LIB_DISK;
  else
    disk->offered = 0;

  if (choose_export (disk, nbd, kind) == -1)
    r = -1;
  else if (kind == LIB_DISK)
    r = take_geometry (disk, geometry, nbd_get_size (nbd));
  else
    r = read_table (disk, nbd, &disk->geometry);
  free (geometry);
  if (r == -1 || take_flags (disk, nbd) == -1)
    return -1;
  disk->conns[kind].nbd = nbd;
  disk->conns[kind].owned = owned;
  return 0;
}

struct nbd_handle *
lib_conn_get (struct znbd_disk *disk, enum lib_conn_kind kind)
{
  struct znbd_geometry g;
  struct nbd_handle *nbd;
  char name[LIB_CONTEXT_MAX];

  if (disk->filters && kind > LIB_MANAGE)
    kind = LIB_MANAGE;
  pthread_mutex_lock (&disk->open_lock);
  nbd = disk->conns[kind].nbd;
  if (nbd != NULL)
    goto out;
  if (disk->uri == NULL) {
    lib_error (ENOTSUP, "%s needs another connection to the server, and the "
               "handle's cannot be made again: connect by URI",
               kind == LIB_DISK ? "data" : kind == LIB_TABLE
               ? "the zone table" : lib_context_name (kind, name));
    goto out;
  }
  nbd = dial (disk);
  disk->cut_off = nbd == NULL;
  if (nbd == NULL)
    goto out;
  if (choose_export (disk, nbd, kind) == -1 ||
      (kind == LIB_TABLE && read_table (disk, nbd, &g) == -1))
    goto failed;
  if (kind == LIB_TABLE &&
      (g.size != disk->geometry.size || g.zones != disk->geometry.zones ||
       g.zone_size != disk->geometry.zone_size ||
       g.granularity != disk->geometry.granularity ||
       memcmp (g.uuid, disk->geometry.uuid, sizeof g.uuid) != 0)) {
    lib_error (EPROTO, "the zone table \"%s\" is another disk's",
               disk->table_export);
    goto failed;
  }
  pthread_mutex_lock (&disk->lock);
  disk->conns[kind].nbd = nbd;
  disk->conns[kind].owned = true;
  pthread_mutex_unlock (&disk->lock);
 out:
  pthread_mutex_unlock (&disk->open_lock);
  return nbd;

 failed:
  disk->cut_off = !lib_was_refused (nbd);
  nbd_close (nbd);
  nbd = NULL;
  goto out;
}

bool
lib_table_usable (struct znbd_disk *disk)
{
  bool failed;

  pthread_mutex_lock (&disk->open_lock);
  failed = disk->table_failed;
  pthread_mutex_unlock (&disk->open_lock);
  if (failed)
    return false;
  if (lib_conn_get (disk, LIB_TABLE) != NULL)
    return true;
  pthread_mutex_lock (&disk->open_lock);
  disk->table_failed = true;
  pthread_mutex_unlock (&disk->open_lock);
  return false;
}

bool
lib_was_refused (struct nbd_handle *nbd)
{
  return nbd_aio_is_dead (nbd) != 1 && nbd_aio_is_closed (nbd) != 1;
}

/* ---- connecting, for callers ---- */

static struct znbd_disk *
new_disk (const char *what)
{
  struct znbd_disk *disk = calloc (1, sizeof *disk);

  if (disk == NULL) {
    lib_error (ENOMEM, "%s: out of memory", what);
    return NULL;
  }
  if (lib_aio_init (disk) == -1) {
    znbd_close (disk);
    return NULL;
  }
  return disk;
}

/* Puts what was connected to before the error's text. */
static void
name_culprit (const char *uri)
{
  const char *text = znbd_get_error ();
  char copy[1024];

  snprintf (copy, sizeof copy, "%s", text ? text : "");
  if (strncmp (copy, uri, strlen (uri)) != 0)
    lib_error (znbd_get_errno (), "%s: %s", uri, copy);
}

struct znbd_disk *
znbd_connect_uri (const char *uri, unsigned flags)
{
  struct znbd_disk *disk;
  struct nbd_handle *nbd;

  if (uri == NULL || (flags & ~ZNBD_ALLOW_LOCAL_FILES) != 0) {
    lib_error (EINVAL, "znbd_connect_uri: wrong argument");
    return NULL;
  }
  disk = new_disk (uri);
  if (disk == NULL)
    return NULL;
  disk->local_files = flags & ZNBD_ALLOW_LOCAL_FILES;
  disk->uri = strdup (uri);
  if (disk->uri == NULL) {
    lib_error (ENOMEM, "%s: out of memory", uri);
    goto failed;
  }
  nbd = dial (disk);
  if (nbd == NULL)
    goto failed;
  if (begin_disk (disk, nbd, true) == -1) {
    name_culprit (uri);
    nbd_close (nbd);
    goto failed;
  }
  return disk;

 failed:
  znbd_close (disk);
  return NULL;
}

/* A handle past its options, which no longer can list them: a second
 * connection does, where its export has x-zbd:zones. */
static int
begin_ready (struct znbd_disk *disk, struct nbd_handle *nbd)
{
  struct nbd_handle *lister;
  char *export, *geometry = NULL;
  enum lib_conn_kind kind = LIB_TABLE;
  char name[LIB_CONTEXT_MAX];
  int r;

  export = nbd_get_export_name (nbd);
  if (export == NULL)
    return lib_error_nbd ("znbd_connect_handle");
  r = set_names (disk, export);
  disk->table_way = "the zone table: it is what was connected to";
  free (export);
  if (r == -1)
    return -1;
  if (nbd_can_meta_context (nbd, lib_context_name (LIB_DISK, name)) == 1) {
    kind = LIB_DISK;
    if (disk->uri == NULL)
      return lib_error (ENOTSUP, "the geometry must be listed before the "
                        "export is chosen, and the handle's connection "
                        "cannot be made again: give it in option mode "
                        "(nbd_set_opt_mode)");
    lister = dial (disk);
    if (lister == NULL)
      return -1;
    r = nbd_set_export_name (lister, disk->export) == -1
      ? lib_error_nbd ("znbd_connect_handle")
      : lib_list_contexts (lister, &disk->offered, &geometry);
    if (r == 0)
      (void) nbd_opt_abort (lister);
    nbd_close (lister);
    if (r == 0 && geometry == NULL)
      r = lib_error (EPROTO, "the server offers x-zbd:zones without a "
                     "geometry");
    if (r == 0)
      r = take_geometry (disk, geometry, nbd_get_size (nbd));
    free (geometry);
    disk->offered |= LIB_BIT (LIB_DISK);
  }
  else
    r = read_table (disk, nbd, &disk->geometry);
  if (r == -1 || take_flags (disk, nbd) == -1)
    return -1;
  disk->conns[kind].nbd = nbd;
  return 0;
}

struct znbd_disk *
znbd_connect_handle (struct nbd_handle *nbd, unsigned flags)
{
  struct znbd_disk *disk;
  int r;

  if (nbd == NULL || flags != 0) {
    lib_error (EINVAL, "znbd_connect_handle: wrong argument");
    return NULL;
  }
  disk = new_disk ("znbd_connect_handle");
  if (disk == NULL)
    return NULL;

  /* To connect again with; it is no error if that cannot be done. */
  disk->uri = nbd_get_uri (nbd);
  disk->tls = nbd_get_tls_negotiated (nbd) == 1 ? LIBNBD_TLS_REQUIRE
                                                : LIBNBD_TLS_DISABLE;
  if (nbd_aio_is_negotiating (nbd) == 1)
    r = begin_disk (disk, nbd, false);
  else
    r = begin_ready (disk, nbd);
  if (r == -1) {
    znbd_close (disk);
    return NULL;
  }
  return disk;
}

void
znbd_close (struct znbd_disk *disk)
{
  unsigned i;

  if (disk == NULL)
    return;
  /* A handle of the caller's outlives what is in flight on it. */
  if ((disk->conns[LIB_DISK].nbd && !disk->conns[LIB_DISK].owned) ||
      (disk->conns[LIB_TABLE].nbd && !disk->conns[LIB_TABLE].owned))
    lib_aio_drain (disk);
  for (i = 0; i < LIB_CONNS; ++i) {
    struct lib_conn *c = &disk->conns[i];

    if (c->nbd == NULL || !c->owned)
      continue;
    /* Ending politely keeps an error out of the server's log.  It fails
     * where there is no connection, which does not matter here. */
    if (nbd_aio_is_ready (c->nbd) == 1)
      (void) nbd_shutdown (c->nbd, 0);
    nbd_close (c->nbd);
  }
  lib_aio_close (disk);
  free (disk->export);
  free (disk->table_export);
  free (disk->uri);
  free (disk);
}

/* ---- the disk, for callers ---- */

int
znbd_get_geometry (struct znbd_disk *disk, struct znbd_geometry *geometry)
{
  *geometry = disk->geometry;
  return 0;
}

int
znbd_is_read_only (struct znbd_disk *disk)
{
  return disk->readonly;
}

int
znbd_is_broken (struct znbd_disk *disk)
{
  int broken;
  unsigned i;

  pthread_mutex_lock (&disk->open_lock);
  broken = disk->cut_off;
  for (i = 0; i < LIB_CONNS; ++i)
    if (disk->conns[i].nbd && !lib_was_refused (disk->conns[i].nbd))
      broken = 1;
  pthread_mutex_unlock (&disk->open_lock);
  return broken;
}

struct nbd_handle *
znbd_get_nbd_handle (struct znbd_disk *disk)
{
  return lib_conn_get (disk, LIB_DISK);
}

void
lib_set_way (struct znbd_disk *disk, enum znbd_way what, const char *text)
{
  pthread_mutex_lock (&disk->lock);
  disk->ways[what] = text;
  pthread_mutex_unlock (&disk->lock);
}

const char *
znbd_get_way (struct znbd_disk *disk, enum znbd_way what)
{
  const char *text;

  if (what > ZNBD_WAY_APPEND)
    return NULL;
  pthread_mutex_lock (&disk->lock);
  text = disk->ways[what];
  pthread_mutex_unlock (&disk->lock);
  return text;
}
