/* SPDX-License-Identifier: BSD-3-Clause */
/* See show.h. */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>

#include "show.h"
#include "utf8.h"

const char *
show_uuid (char buf[SHOW_UUID_SIZE], const uint8_t u[16])
{
  snprintf (buf, SHOW_UUID_SIZE,
            "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
            "%02x%02x%02x%02x%02x%02x",
            u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9],
            u[10], u[11], u[12], u[13], u[14], u[15]);
  return buf;
}

void
show_json_string (const char *str)
{
  const unsigned char *p = (const unsigned char *) str;
  unsigned n;

  /* JSON is UTF-8, file names need not be. */
  putchar ('"');
  for (; *p; p += n ? n : 1) {
    n = utf8_length (p);
    if (n == 0)
      fputs ("\\ufffd", stdout);
    else if (*p == '"' || *p == '\\')
      printf ("\\%c", *p);
    else if (*p < ' ' || *p == 0x7f)
      printf ("\\u%04x", *p);
    else
      fwrite (p, n, 1, stdout);
  }
  putchar ('"');
}

void
show_json_geometry (const char *indent, const struct znbd_geometry *g)
{
  char uuid[SHOW_UUID_SIZE];

  printf ("%s\"model\": \"%s\",\n", indent, znbd_model_name (g->model));
  printf ("%s\"size\": %" PRIu64 ",\n", indent, g->size);
  printf ("%s\"zone_count\": %" PRIu32 ",\n", indent, g->zones);
  printf ("%s\"zone_size\": %" PRIu64 ",\n", indent, g->zone_size);
  printf ("%s\"conventional\": %" PRIu32 ",\n", indent, g->conventional);
  printf ("%s\"max_open\": %" PRIu32 ",\n", indent, g->max_open);
  printf ("%s\"max_active\": %" PRIu32 ",\n", indent, g->max_active);
  printf ("%s\"max_append\": %" PRIu32 ",\n", indent, g->max_append);
  printf ("%s\"block_size\": %" PRIu32 ",\n", indent, g->granularity);
  printf ("%s\"uuid\": \"%s\",\n", indent, show_uuid (uuid, g->uuid));
  printf ("%s\"epoch\": %" PRIu64, indent, g->epoch);
}
