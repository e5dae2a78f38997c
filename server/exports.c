/* SPDX-License-Identifier: BSD-3-Clause */
/* See exports.h. */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exports.h"
#include "protocol.h"
#include "size.h"
#include "table.h"

struct export exports[NR_EXPORTS];

/* "host-managed zoned disk, 40 zones of 256M, 4 of them conventional, ..."
 * for people who look at export lists. */
static char *
describe (const struct znbd_geometry *g)
{
  char size[SIZE_TEXT_MAX], cap[SIZE_TEXT_MAX + 16] = "";
  char conv[48] = "", open[48] = "", active[48] = "", *text;

  if (g->zone_capacity != 0 && g->zone_capacity != g->zone_size)
    snprintf (cap, sizeof cap, ", capacity %s",
              size_text (size, g->zone_capacity));
  if (g->conventional)
    snprintf (conv, sizeof conv, ", %" PRIu32 " of them conventional",
              g->conventional);
  if (g->max_open)
    snprintf (open, sizeof open, ", at most %" PRIu32 " open", g->max_open);
  if (g->max_active)
    snprintf (active, sizeof active, ", at most %" PRIu32 " active",
              g->max_active);
  if (asprintf (&text, "%s zoned disk, %" PRIu32 " zone%s of %s%s%s%s%s, %"
                PRIu32 "-byte blocks", znbd_model_name (g->model), g->zones,
                g->zones == 1 ? "" : "s", size_text (size, g->zone_size),
                cap, conv, open, active, g->granularity) == -1)
    return NULL;
  return text;
}

int
exports_init (struct zdisk *disk, const char *name, bool readonly)
{
  const struct znbd_geometry *g = zdisk_geometry (disk);
  struct export *e = &exports[0], *table = &exports[1];

  e->disk = table->disk = disk;
  e->readonly = table->readonly = readonly || zdisk_is_readonly (disk);
  e->name = strdup (name);
  e->description = describe (g);
  e->size = g->size;
  e->min_block = g->granularity;
  e->preferred_block = g->granularity < 4096 ? 4096 : g->granularity;
  e->max_block = NBD_MAX_DATA;

  table->table = true;
  if (asprintf (&table->name, "%s%s", name,
                *name ? TABLE_EXPORT_SUFFIX : TABLE_EXPORT_NAME) == -1)
    table->name = NULL;
  table->description = strdup ("zone table: read it for the report, write it "
                               "to manage zones");
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

  for (i = 0; i < NR_EXPORTS; i++) {
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
  for (i = 0; i < NR_EXPORTS; i++)
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
