/* SPDX-License-Identifier: BSD-3-Clause */
/* See geometry.h. */

#include <config.h>

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

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

/* ---- decoding ---- */

static int
refuse (const char **why, const char *text)
{
  *why = text;
  return -1;
}

/* Where a name's numbers go. */
static const struct key {
  const char *name;
  uint8_t bytes;                /* of the field: 4 or 8 */
  bool required;
  size_t offset;
} keys[] = {
#define KEY(text, field, needed)                                        \
  { text, sizeof ((struct znbd_geometry *) 0)->field, needed,           \
    offsetof (struct znbd_geometry, field) }
  KEY ("zones", zones, true),
  KEY ("zone-size", zone_size, true),
  KEY ("granularity", granularity, true),
  KEY ("zone-capacity", zone_capacity, false),
  KEY ("conventional", conventional, false),
  KEY ("max-open", max_open, false),
  KEY ("max-active", max_active, false),
  KEY ("max-append", max_append, false),
  KEY ("epoch", epoch, false),
#undef KEY
};

#define NR_KEYS (sizeof keys / sizeof keys[0])

/* Bits of what was seen, behind those of keys[]. */
#define SEEN_VERSION    (1u << NR_KEYS)
#define SEEN_MODEL      (2u << NR_KEYS)
#define SEEN_UUID       (4u << NR_KEYS)

static bool
is (const char *str, size_t n, const char *word)
{
  return strlen (word) == n && memcmp (str, word, n) == 0;
}

/* Digits only, and no more than the field holds. */
static bool
decode_number (const char *p, size_t n, uint64_t max, uint64_t *number)
{
  uint64_t v = 0;

  if (n == 0)
    return false;
  for (; n > 0; ++p, --n) {
    if (*p < '0' || *p > '9' ||
        __builtin_mul_overflow (v, UINT64_C (10), &v) ||
        __builtin_add_overflow (v, (uint64_t) (*p - '0'), &v))
      return false;
  }
  *number = v;
  return v <= max;
}

static int
hex_digit (char c)
{
  return c >= '0' && c <= '9' ? c - '0' :
    c >= 'a' && c <= 'f' ? c - 'a' + 10 :
    c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool
decode_uuid (const char *p, size_t n, uint8_t uuid[16])
{
  unsigned i = 0;

  if (n != 36)
    return false;
  while (i < 32) {
    int digit;

    /* 8-4-4-4-12 */
    if ((i == 8 || i == 12 || i == 16 || i == 20) && *p++ != '-')
      return false;
    digit = hex_digit (*p++);
    if (digit < 0)
      return false;
    uuid[i / 2] = uuid[i / 2] << 4 | digit;
    i++;
  }
  return true;
}

/* Takes one "key=value" of the name. */
static int
decode_pair (const char *key, size_t key_n, const char *value, size_t n,
             struct znbd_geometry *g, unsigned *seen, const char **why)
{
  unsigned bit = 0;
  uint64_t number;
  size_t i;

  for (i = 0; i < NR_KEYS && !is (key, key_n, keys[i].name); ++i)
    ;
  if (i < NR_KEYS) {
    char *field = (char *) g + keys[i].offset;

    bit = 1u << i;
    if (!decode_number (value, n,
                        keys[i].bytes == 4 ? UINT32_MAX : UINT64_MAX,
                        &number))
      return refuse (why, "one of its numbers is none, or too large");
    if (keys[i].bytes == 4)
      memcpy (field, &(uint32_t) { number }, sizeof (uint32_t));
    else
      memcpy (field, &number, sizeof number);
  }
  else if (is (key, key_n, "version")) {
    bit = SEEN_VERSION;
    if (!is (value, n, "1"))
      return refuse (why, "its version is not 1");
  }
  else if (is (key, key_n, "model")) {
    bit = SEEN_MODEL;
    for (g->model = ZNBD_MODEL_HOST_MANAGED;
         g->model > 0 && !is (value, n, znbd_model_name (g->model));
         g->model--)
      ;
  }
  else if (is (key, key_n, "uuid")) {
    bit = SEEN_UUID;
    if (!decode_uuid (value, n, g->uuid))
      return refuse (why, "its uuid is none");
  }
  if (*seen & bit)
    return refuse (why, "it says the same thing twice");
  *seen |= bit;
  return 0;
}

int
geometry_decode_name (const char *name, uint64_t size,
                      struct znbd_geometry *g, const char **why)
{
  const char *p = name + strlen (GEOMETRY_PREFIX);
  unsigned seen = 0, needed = SEEN_VERSION | SEEN_MODEL;
  size_t n, key_n, i;

  memset (g, 0, sizeof *g);
  g->size = size;
  if (strncmp (name, GEOMETRY_PREFIX, strlen (GEOMETRY_PREFIX)) != 0)
    return refuse (why, "it is no geometry");
  for (;;) {
    n = strcspn (p, ",");
    key_n = strcspn (p, "=");
    if (key_n < n &&
        decode_pair (p, key_n, p + key_n + 1, n - key_n - 1, g, &seen,
                     why) == -1)
      return -1;
    if (p[n] == '\0')
      break;
    p += n + 1;
  }
  for (i = 0; i < NR_KEYS; ++i)
    if (keys[i].required)
      needed |= 1u << i;
  if ((seen & needed) != needed)
    return refuse (why, "it lacks its version, model, zones, zone-size or "
                   "granularity");
  return geometry_check (g, why);
}

int
geometry_check (const struct znbd_geometry *g, const char **why)
{
  if (g->model != ZNBD_MODEL_HOST_AWARE &&
      g->model != ZNBD_MODEL_HOST_MANAGED)
    return refuse (why, "its zoned model is unknown");
  if (g->granularity < 512 ||
      (g->granularity & (g->granularity - 1)) != 0)
    return refuse (why, "its granularity is no power of two from 512 on");
  if (g->size == 0 || g->size > INT64_MAX || g->size % g->granularity != 0)
    return refuse (why, "its disk size is impossible");
  if (g->zone_size == 0 || g->zone_size > INT64_MAX ||
      g->zone_size % g->granularity != 0)
    return refuse (why, "its zone size is impossible");
  if (g->zone_capacity > g->zone_size ||
      g->zone_capacity % g->granularity != 0)
    return refuse (why, "its zone capacity is impossible");
  if (g->zones != g->size / g->zone_size + (g->size % g->zone_size != 0))
    return refuse (why, "its number of zones is not what the disk size and "
                   "the zone size give");
  if (g->conventional > g->zones)
    return refuse (why, "it counts more conventional zones than zones");
  if (g->max_active != 0 && g->max_open > g->max_active)
    return refuse (why, "its open limit is above its active limit");
  if (g->max_append % g->granularity != 0)
    return refuse (why, "its largest append is no multiple of its "
                   "granularity");
  return 0;
}

bool
geometry_zone_possible (unsigned type, unsigned cond)
{
  switch (cond) {
  case ZNBD_COND_NOT_WP:
    return type == ZNBD_ZONE_CONVENTIONAL;
  case ZNBD_COND_EMPTY:
  case ZNBD_COND_IMPLICIT_OPEN:
  case ZNBD_COND_EXPLICIT_OPEN:
  case ZNBD_COND_CLOSED:
  case ZNBD_COND_FULL:
    return type != ZNBD_ZONE_CONVENTIONAL;
  case ZNBD_COND_READ_ONLY:
  case ZNBD_COND_OFFLINE:
    return true;
  default:
    return false;
  }
}
