/* SPDX-License-Identifier: BSD-3-Clause */
/* See geometry.h. */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>

#include "geometry.h"
#include "size.h"

void
geometry_encode_name (const struct znbd_geometry *g,
                      char name[GEOMETRY_NAME_MAX])
{
  char capacity[48] = "", uuid[37];
  const uint8_t *u = g->uuid;

  if (g->zone_capacity)
    snprintf (capacity, sizeof capacity, "zone-capacity=%" PRIu64 ",",
              g->zone_capacity);
  snprintf (uuid, sizeof uuid, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
            "%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4], u[5],
            u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
            u[15]);
  snprintf (name, GEOMETRY_NAME_MAX, GEOMETRY_PREFIX "version=1,model=%s,"
            "zones=%" PRIu32 ",zone-size=%" PRIu64 ",%sconventional=%" PRIu32
            ",max-open=%" PRIu32 ",max-active=%" PRIu32 ",max-append=%" PRIu32
            ",granularity=%" PRIu32 ",uuid=%s,epoch=%" PRIu64,
            znbd_model_name (g->model), g->zones, g->zone_size, capacity,
            g->conventional, g->max_open, g->max_active, g->max_append,
            g->granularity, uuid, g->epoch);
}

void
geometry_describe (const struct znbd_geometry *g,
                   char text[GEOMETRY_TEXT_MAX])
{
  char size[SIZE_TEXT_MAX], cap[SIZE_TEXT_MAX + 16] = "";
  char conv[48] = "", open[48] = "", active[48] = "";

  if (g->model == ZNBD_MODEL_NONE) {
    snprintf (text, GEOMETRY_TEXT_MAX, "disk of %s without zones",
              size_text (size, g->size));
    return;
  }
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
  snprintf (text, GEOMETRY_TEXT_MAX, "%s zoned disk, %" PRIu32 " zone%s of "
            "%s%s%s%s%s, %" PRIu32 "-byte blocks", znbd_model_name (g->model),
            g->zones, g->zones == 1 ? "" : "s",
            size_text (size, g->zone_size), cap, conv, open, active,
            g->granularity);
}
