/* SPDX-License-Identifier: BSD-3-Clause */
/* See exports.h. */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exports.h"
#include "geometry.h"
#include "protocol.h"
#include "table.h"

struct export exports[EXPORTS_MAX];
unsigned nexports;

int
exports_init (struct zdisk *disk, const char *name, bool readonly)
{
  const struct znbd_geometry *g = zdisk_geometry (disk);
  struct export *e = &exports[0], *table = &exports[1];
  char text[GEOMETRY_TEXT_MAX];

  e->disk = table->disk = disk;
  e->readonly = table->readonly = readonly || zdisk_is_readonly (disk);
  e->name = strdup (name);
  geometry_describe (g, text);
  e->description = strdup (text);
  e->size = g->size;
  e->min_block = g->granularity;
  e->preferred_block = g->granularity < 4096 ? 4096 : g->granularity;
  e->max_block = NBD_MAX_DATA;

  nexports = 1;
  if (g->model == ZNBD_MODEL_NONE)
    return e->name && e->description ? 0 : -1;

  nexports = 2;
  table->table = true;
  if (asprintf (&table->name, "%s%s", name,
                *name ? TABLE_EXPORT_SUFFIX : TABLE_EXPORT_NAME) == -1)
    table->name = NULL;
  table->description = strdup (GEOMETRY_TABLE_TEXT);
  table->size = table_size (g->zones);
  table->min_block = TABLE_MIN_BLOCK;
  table->preferred_block = TABLE_PREFERRED_BLOCK;
  table->max_block = TABLE_MAX_BLOCK;
  return e->name && e->description && table->name && table->description
    ? 0 : -1;
}

void
exports_free (void)
{
  unsigned i;

  for (i = 0; i < nexports; i++) {
    free (exports[i].name);
    free (exports[i].description);
  }
}

const struct export *
export_find (const char *name, size_t length)
{
  unsigned i;

  if (length == 0)
    return &exports[0];
  for (i = 0; i < nexports; i++)
    if (strlen (exports[i].name) == length &&
        memcmp (exports[i].name, name, length) == 0)
      return &exports[i];
  return NULL;
}

uint16_t
export_flags (const struct export *e)
{
  uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH |
    NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN;

  if (e->readonly)
    flags |= NBD_FLAG_READ_ONLY;
  if (!e->table) {
    flags |= NBD_FLAG_SEND_CACHE;
    if (!e->readonly) {
      flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES;
      if (zdisk_can_fast_zero (e->disk))
        flags |= NBD_FLAG_SEND_FAST_ZERO;
    }
  }
  return flags;
}
