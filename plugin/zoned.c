/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit plugin: serves one zoned disk, an image's or one in memory, as
 * the default export, and its zone table as the export "zones".
 *
 * Each callback is a call of zonelib.  What a request may do to a zone,
 * which errno refuses it and the words that say why are all decided there.
 * nbdkit calls from as many threads as it has (-t), and a write that waits
 * for an earlier one sleeps inside its callback.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "disk.h"
#include "geometry.h"
#include "image-format.h"
#include "image.h"
#include "open.h"
#include "memory.h"
#include "params.h"
#include "report.h"
#include "size.h"
#include "store.h"
#include "table.h"
#include "zones.h"

/* The callbacks' shapes are nbdkit's; few need all that they are given. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* What data requests are advised to stay below, as for the zone table. */
#define DISK_MAX_BLOCK (32u << 20)

static const char table_description[] = GEOMETRY_TABLE_TEXT;
static void
log_line (const char *line)
{
  nbdkit_error ("%s", line);
}

/* All set before the first connection, by .config and .get_ready, and not
 * changed until .unload. */
static struct params params = {
  .geometry = STORE_GEOMETRY_DEFAULT,
  .options = ZDISK_OPTIONS_DEFAULT,
};
static struct zdisk *disk;
static char description[GEOMETRY_TEXT_MAX];     /* of the disk */

/* A connection. */
struct handle {
  struct zdisk_client *client;
  bool readonly;
  bool table;                     /* it has the zone table, not the disk */
};

/* A write past a limit of file sizes is to be an error of that write, not
 * the end of the server. */
static void
zoned_load (void)
{
  struct sigaction before;

  if (sigaction (SIGXFSZ, NULL, &before) == 0 &&
      before.sa_handler == SIG_DFL)
    signal (SIGXFSZ, SIG_IGN);
}

static void
zoned_unload (void)
{
  struct zone_error err;

  if (disk && zdisk_close (disk, &err) == -1)
    nbdkit_error ("%s", err.text);
}

static int
zoned_config (const char *key, const char *value)
{
  return params_set (&params, key, value);
}

static int
zoned_config_complete (void)
{
  return params_complete (&params);
}

static void
zoned_dump_plugin (void)
{
  printf ("zoned_stores=image,memory,device\n");
  printf ("zoned_image_version=%d\n", IMAGE_VERSION);
  printf ("zoned_models=host-managed,host-aware\n");
  printf ("zoned_table_export=%s\n", TABLE_EXPORT_NAME);
  printf ("zoned_table_version=%d\n", TABLE_VERSION);
  printf ("zoned_gap=error,zero\n");
  printf ("zoned_reorder_timeout=%ums\n", params.options.reorder_timeout);
}

/* What may not be written is served read-only, as nbdkit's file
 * plugin does: nbdkit does not tell plugins about -r before the first
 * connection, and users of -r expect no more than that. */
static struct store *
open_image (struct zone_error *err)
{
  struct store *store = store_open (params.file, params.readonly
                                    ? STORE_READ_ONLY : STORE_WRITABLE_OR_NOT,
                                    err);

  if (store && store->readonly && !params.readonly)
    nbdkit_debug ("%s; opened read-only", err->text);
  return store;
}

/* Opens the disk while nbdkit is in the foreground still, so that an error
 * is seen and becomes its exit status.  Locks and mappings survive its
 * fork. */
static int
zoned_get_ready (void)
{
  struct zone_error err;
  struct store *store;

  params.options.log = log_line;
  if (params.file)
    store = open_image (&err);
  else
    store = memory_new (&params.geometry, &err);
  if (store)
    disk = zdisk_new (store, &params.options, &err);
  if (!disk) {
    nbdkit_error ("%s", err.text);
    return -1;
  }
  geometry_describe (zdisk_geometry (disk), description);
  return 0;
}

/* nbdkit is where it will run. */
static int
zoned_after_fork (void)
{
  struct zone_error err;

  if (zdisk_start (disk, &err) == -1) {
    nbdkit_error ("%s", err.text);
    return -1;
  }
  return 0;
}

static int
zoned_list_exports (int readonly, int is_tls, struct nbdkit_exports *exports)
{
  if (nbdkit_add_export (exports, "", description) == -1)
    return -1;
  if (zdisk_geometry (disk)->model == ZNBD_MODEL_NONE)
    return 0;
  return nbdkit_add_export (exports, TABLE_EXPORT_NAME, table_description);
}

static const char *
zoned_default_export (int readonly, int is_tls)
{
  return "";
}

/* The name comes from the client: only a little of it, and nothing that a
 * terminal or a log could trip over, is repeated. */
static void
refuse_export (const char *name)
{
  char shown[65];
  size_t i;

  for (i = 0; i < sizeof shown - 1 && name[i] != '\0'; ++i)
    shown[i] = isprint ((unsigned char) name[i]) ? name[i] : '?';
  shown[i] = '\0';
  nbdkit_error ("no export \"%s\"%s: there are \"\", the disk, and \"%s\", "
                "its zone table", shown, name[i] ? "..." : "",
                TABLE_EXPORT_NAME);
  nbdkit_set_error (ENOENT);
}

static void *
zoned_open (int readonly)
{
  const char *name = nbdkit_export_name ();
  struct handle *h;
  bool table;

  if (name == NULL)
    return NULL;
  table = strcmp (name, TABLE_EXPORT_NAME) == 0 &&
    zdisk_geometry (disk)->model != ZNBD_MODEL_NONE;
  if (!table && name[0] != '\0') {
    refuse_export (name);
    return NULL;
  }

  h = malloc (sizeof *h);
  if (h == NULL) {
    nbdkit_error ("malloc: %m");
    return NULL;
  }
  h->table = table;
  h->readonly = readonly || zdisk_is_readonly (disk);
  h->client = zdisk_client_new (disk, h->readonly);
  if (h->client == NULL) {
    nbdkit_error ("out of memory for another connection");
    free (h);
    return NULL;
  }
  return h;
}

static void
zoned_close (void *handle)
{
  struct handle *h = handle;

  zdisk_client_close (h->client);
  free (h);
}

static const char *
zoned_export_description (void *handle)
{
  const struct handle *h = handle;

  return h->table ? table_description : description;
}

static int64_t
zoned_get_size (void *handle)
{
  const struct handle *h = handle;
  const struct znbd_geometry *g = zdisk_geometry (disk);

  return h->table ? table_size (g->zones) : g->size;
}

static int
zoned_block_size (void *handle,
                  uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
  const struct handle *h = handle;
  uint32_t granularity = zdisk_geometry (disk)->granularity;

  if (h->table) {
    *minimum = TABLE_MIN_BLOCK;
    *preferred = TABLE_PREFERRED_BLOCK;
    *maximum = TABLE_MAX_BLOCK;
  }
  else {
    *minimum = granularity;
    *preferred = granularity < 4096 ? 4096 : granularity;
    *maximum = DISK_MAX_BLOCK;
  }
  return 0;
}

static int
zoned_can_write (void *handle)
{
  const struct handle *h = handle;

  return !h->readonly;
}

/* Both exports flush: a connection to the table makes resets durable. */
static int
zoned_can_flush (void *handle)
{
  return 1;
}

static int
zoned_can_fua (void *handle)
{
  return NBDKIT_FUA_NATIVE;
}

/* What one connection has written and flushed every other one sees. */
static int
zoned_can_multi_conn (void *handle)
{
  return 1;
}

static int
zoned_is_disk (void *handle)
{
  const struct handle *h = handle;

  return !h->table;
}

/* Where the table cannot, nbdkit writes zeros, which request nothing. */
#define zoned_can_zero zoned_is_disk
#define zoned_can_trim zoned_is_disk
#define zoned_can_extents zoned_is_disk

static int
zoned_can_fast_zero (void *handle)
{
  const struct handle *h = handle;

  return !h->table && zdisk_can_fast_zero (disk);
}

static int
zoned_can_cache (void *handle)
{
  const struct handle *h = handle;

  return h->table ? NBDKIT_CACHE_NONE : NBDKIT_CACHE_NATIVE;
}

/* The most likely reason why a write that others should have preceded was
 * alone. */
static const char threads_hint[] =
  " (nbdkit -t must be at least what clients have in flight, such as "
  "nbdcopy's --requests; clients that skip holes or zeros need gap=zero)";

/* Has the disk do a request of the client's. */
static int
run (struct handle *h, enum zdisk_op op, void *buf, uint64_t count,
     uint64_t offset, uint32_t flags)
{
  struct zdisk_request req;     /* the rest of it is the disk's to set */
  int error;

  req.op = op;
  req.flags = 0;
  req.buf = buf;
  req.length = count;
  req.offset = offset;
  if (flags & NBDKIT_FLAG_FUA)
    req.flags |= ZDISK_FUA;
  if (flags & NBDKIT_FLAG_MAY_TRIM)
    req.flags |= ZDISK_MAY_TRIM;
  if (flags & NBDKIT_FLAG_FAST_ZERO)
    req.flags |= ZDISK_FAST_ZERO;

  error = zdisk_run (h->client, &req);
  if (error) {
    /* Whoever asks for zeros fast writes them, told that they are slow:
     * nothing that anyone should read about. */
    if (error != ENOTSUP || !(flags & NBDKIT_FLAG_FAST_ZERO))
      nbdkit_error ("%s%s", req.reason,
                    req.work.refusal == ZONE_REFUSED_AHEAD ? threads_hint
                    : "");
    nbdkit_set_error (error);
    return -1;
  }
  return 0;
}

/* The same for the zone table, whose functions answer error and reason. */
static int
table_answer (int error, const char *reason)
{
  if (error) {
    nbdkit_error ("%s", reason);
    nbdkit_set_error (error);
    return -1;
  }
  return 0;
}

static int
zoned_pread (void *handle, void *buf, uint32_t count, uint64_t offset,
             uint32_t flags)
{
  struct handle *h = handle;
  struct zdisk_request refresh;
  char reason[200];

  if (h->table) {
    if (zdisk_table_refresh (disk, count, offset, &refresh) &&
        zdisk_run (h->client, &refresh))
      return table_answer (refresh.error, refresh.reason);
    return table_answer (zdisk_table_read (disk, buf, count, offset,
                                           reason, sizeof reason), reason);
  }
  return run (h, ZDISK_READ, buf, count, offset, flags);
}

static int
zoned_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset,
              uint32_t flags)
{
  struct handle *h = handle;
  char reason[200];

  if (h->table)
    return table_answer (zdisk_table_write (h->client, buf, count, offset,
                                            flags & NBDKIT_FLAG_FUA,
                                            reason, sizeof reason), reason);
  /* A request has one pointer for both directions. */
  return run (h, ZDISK_WRITE, (void *) buf, count, offset, flags);
}

static int
zoned_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  return run (handle, ZDISK_ZERO, NULL, count, offset, flags);
}

static int
zoned_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  return run (handle, ZDISK_TRIM, NULL, count, offset, flags);
}

static int
zoned_cache (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  return run (handle, ZDISK_CACHE, NULL, count, offset, flags);
}

static int
zoned_flush (void *handle, uint32_t flags)
{
  return run (handle, ZDISK_FLUSH, NULL, 0, 0, 0);
}

struct extents_state {
  struct nbdkit_extents *extents;
  uint64_t offset;              /* of the next extent */
  bool one;                     /* the client wants no other */
  int r;
};

static bool
add_extent (void *opaque, uint64_t length, uint32_t flags)
{
  struct extents_state *s = opaque;
  uint32_t type = 0;

  if (flags & REPORT_HOLE)
    type |= NBDKIT_EXTENT_HOLE;
  if (flags & REPORT_ZERO)
    type |= NBDKIT_EXTENT_ZERO;
  s->r = nbdkit_add_extent (s->extents, s->offset, length, type);
  s->offset += length;
  return s->r == 0 && !s->one;
}

static int
zoned_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
               struct nbdkit_extents *extents)
{
  struct extents_state s = {
    .extents = extents, .offset = offset,
    .one = flags & NBDKIT_FLAG_REQ_ONE,
  };

  report_allocation (disk, offset, count, add_extent, &s);
  return s.r;
}

static struct nbdkit_plugin plugin = {
  .name               = "zoned",
  .longname           = "znbd zoned disk plugin",
  .version            = PACKAGE_VERSION,
  .description        = "Serves zoned disks: images that keep their state, "
                        "or in memory.",
  .magic_config_key   = "file",
  .load               = zoned_load,
  .config_help        = params_help,

  .unload             = zoned_unload,
  .config             = zoned_config,
  .config_complete    = zoned_config_complete,
  .dump_plugin        = zoned_dump_plugin,
  .get_ready          = zoned_get_ready,
  .after_fork         = zoned_after_fork,

  .list_exports       = zoned_list_exports,
  .default_export     = zoned_default_export,
  .open               = zoned_open,
  .close              = zoned_close,

  .export_description = zoned_export_description,
  .get_size           = zoned_get_size,
  .block_size         = zoned_block_size,
  .can_write          = zoned_can_write,
  .can_flush          = zoned_can_flush,
  .can_fua            = zoned_can_fua,
  .can_multi_conn     = zoned_can_multi_conn,
  .can_zero           = zoned_can_zero,
  .can_fast_zero      = zoned_can_fast_zero,
  .can_trim           = zoned_can_trim,
  .can_extents        = zoned_can_extents,
  .can_cache          = zoned_can_cache,

  .pread              = zoned_pread,
  .pwrite             = zoned_pwrite,
  .zero               = zoned_zero,
  .trim               = zoned_trim,
  .cache              = zoned_cache,
  .flush              = zoned_flush,
  .extents            = zoned_extents,

  .errno_is_preserved = 1,
};

/* nbdkit's macro has no prototype for what it defines. */
struct nbdkit_plugin *plugin_init (void);

NBDKIT_REGISTER_PLUGIN (plugin)
