/* SPDX-License-Identifier: BSD-3-Clause */
/* See geometry.h. */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>

#include "geometry.h"

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
