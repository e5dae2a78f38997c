/* SPDX-License-Identifier: BSD-3-Clause */
/* Connecting: from a disk's URI to its zone table export, and checking
 * that what is there is a zone table.  The server is not trusted: sizes
 * that pass here are used as they are by everything else.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib-internal.h"
#include "table.h"

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
attach (struct znbd_disk *disk)
{
  uint8_t header[TABLE_HEADER_SIZE];
  const char *why;
  int64_t bytes, minimum;
  int r;

  bytes = nbd_get_size (disk->nbd);
  if (bytes == -1)
    return lib_error_nbd ("zone table");
  if (bytes < TABLE_HEADER_SIZE)
    return lib_error (EPROTO, "the export is no zone table: it has only "
                      "%lld bytes; connect to the export \"%s\" or "
                      "\"NAME%s\"", (long long) bytes, TABLE_EXPORT_NAME,
                      TABLE_EXPORT_SUFFIX);
  minimum = nbd_get_block_size (disk->nbd, LIBNBD_SIZE_MINIMUM);
  if (minimum > TABLE_MIN_BLOCK)
    return lib_error (EPROTO, "the zone table's server takes no requests of "
                      "less than %lld bytes, records have %u",
                      (long long) minimum, TABLE_MIN_BLOCK);

  if (nbd_pread (disk->nbd, header, sizeof header, 0, 0) == -1)
    return lib_error_nbd ("reading the zone table");
  if (table_decode_header (header, bytes, &disk->geometry, &why) == -1)
    return lib_error (EPROTO, "the export is no zone table that this version "
                      "knows: %s", why);

  r = nbd_is_read_only (disk->nbd);
  if (r == -1)
    return lib_error_nbd ("zone table");
  disk->readonly = r;
  disk->read_max = request_max (disk->nbd, LIB_READ_MAX);
  disk->write_max = request_max (disk->nbd,
                                 LIB_MANAGE_MAX * TABLE_RECORD_SIZE);
  return 0;
}

/* The name of the zone table export beside a disk's export.  NULL: out of
 * memory. */
static char *
table_name (const char *export)
{
  size_t n = strlen (export), suffix = strlen (TABLE_EXPORT_SUFFIX);
  char *name;

  if (n == 0)
    return strdup (TABLE_EXPORT_NAME);

  /* No disk is called so: it is the table that was named. */
  if (strcmp (export, TABLE_EXPORT_NAME) == 0 ||
      (n >= suffix &&
       strcmp (export + n - suffix, TABLE_EXPORT_SUFFIX) == 0))
    return strdup (export);

  if (asprintf (&name, "%s%s", export, TABLE_EXPORT_SUFFIX) == -1)
    return NULL;
  return name;
}

/* What may be the matter when a server does not let us at the export. */
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

static int
connect_uri (struct znbd_disk *disk, const char *uri, unsigned flags)
{
  char *export, *name;
  int r;

  /* The option mode allows to look at the export's name, which libnbd
   * takes out of the URI, before asking for another one. */
  if (nbd_set_opt_mode (disk->nbd, true) == -1 ||
      nbd_set_uri_allow_local_file (disk->nbd,
                                    flags & ZNBD_ALLOW_LOCAL_FILES) == -1)
    return lib_error_nbd ("%s", uri);
  if (nbd_connect_uri (disk->nbd, uri) == -1)
    return lib_error_nbd ("%s", uri);
  if (nbd_aio_is_negotiating (disk->nbd) != 1)
    return lib_error (ENOTSUP, "%s: the server speaks NBD's old style, "
                      "which has no exports to choose from", uri);

  export = nbd_get_export_name (disk->nbd);
  if (export == NULL)
    return lib_error_nbd ("%s", uri);
  name = table_name (export);
  free (export);
  if (name == NULL)
    return lib_error (ENOMEM, "%s: out of memory", uri);

  if (nbd_set_export_name (disk->nbd, name) == -1 ||
      nbd_opt_go (disk->nbd) == -1)
    r = lib_error_nbd ("%s: no zone table export \"%s\"%s", uri, name,
                       hint (nbd_get_errno ()));
  else
    r = 0;
  free (name);
  return r;
}

struct znbd_disk *
znbd_connect_uri (const char *uri, unsigned flags)
{
  struct znbd_disk *disk;

  if (uri == NULL || (flags & ~ZNBD_ALLOW_LOCAL_FILES) != 0) {
    lib_error (EINVAL, "znbd_connect_uri: wrong argument");
    return NULL;
  }
  disk = calloc (1, sizeof *disk);
  if (disk == NULL) {
    lib_error (ENOMEM, "%s: out of memory", uri);
    return NULL;
  }
  disk->nbd = nbd_create ();
  if (disk->nbd == NULL) {
    lib_error_nbd ("%s", uri);
    free (disk);
    return NULL;
  }
  disk->owned = true;

  if (connect_uri (disk, uri, flags) == -1 || attach (disk) == -1) {
    znbd_close (disk);
    return NULL;
  }
  return disk;
}

struct znbd_disk *
znbd_connect_handle (struct nbd_handle *nbd, unsigned flags)
{
  struct znbd_disk *disk;

  if (nbd == NULL || flags != 0) {
    lib_error (EINVAL, "znbd_connect_handle: wrong argument");
    return NULL;
  }
  disk = calloc (1, sizeof *disk);
  if (disk == NULL) {
    lib_error (ENOMEM, "znbd_connect_handle: out of memory");
    return NULL;
  }
  disk->nbd = nbd;
  if (attach (disk) == -1) {
    znbd_close (disk);
    return NULL;
  }
  return disk;
}

void
znbd_close (struct znbd_disk *disk)
{
  if (disk == NULL)
    return;
  if (disk->owned) {
    /* Ending politely keeps an error out of the server's log.  It fails
     * where there is no connection, which does not matter here. */
    if (nbd_aio_is_ready (disk->nbd) == 1)
      (void) nbd_shutdown (disk->nbd, 0);
    nbd_close (disk->nbd);
  }
  free (disk);
}

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
