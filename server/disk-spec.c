/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk in memory as it is typed: SIZE,zone-size=SIZE,key=value,... */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "size.h"

/* What set knows, each of them once. */
#define NR_KEYS 10

static int
set_size (const char *key, const char *value, uint64_t *bytes,
          struct zone_error *err)
{
  const char *why;

  if (size_parse (value, bytes, &why) == -1)
    return zone_error (err, EINVAL, "memory: %s=%s %s", key, value, why);
  if (*bytes == 0)
    return zone_error (err, EINVAL, "memory: %s=%s must be more than 0", key,
                       value);
  return 0;
}

static int
set_count (const char *key, const char *value, uint64_t *n,
           struct zone_error *err)
{
  char *end;

  errno = 0;
  *n = strtoull (value, &end, 10);
  if (!isdigit ((unsigned char) *value) || *end || errno)
    return zone_error (err, EINVAL, "memory: %s=%s is not a number of zones",
                       key, value);
  return 0;
}

static int
set_model (const char *value, uint32_t *model, struct zone_error *err)
{
  if (strcmp (value, "host-managed") == 0)
    *model = ZNBD_MODEL_HOST_MANAGED;
  else if (strcmp (value, "host-aware") == 0)
    *model = ZNBD_MODEL_HOST_AWARE;
  else
    return zone_error (err, EINVAL, "memory: model=%s is neither "
                       "host-managed nor host-aware", value);
  return 0;
}

/* A list of zones has plus signs here, for commas are taken. */
static void
set_list (char *value, const char **list)
{
  char *p;

  for (p = value; (p = strchr (p, '+')) != NULL; )
    *p = ',';
  *list = value;
}

static int
set (struct store_geometry *g, char *key, char *value,
     struct zone_error *err)
{
  uint64_t bytes;

  if (strcmp (key, "size") == 0)
    return set_size (key, value, &g->size, err);
  if (strcmp (key, "zone-size") == 0)
    return set_size (key, value, &g->zone_size, err);
  if (strcmp (key, "zone-capacity") == 0)
    return set_size (key, value, &g->zone_capacity, err);
  if (strcmp (key, "conventional") == 0)
    return set_count (key, value, &g->conventional, err);
  if (strcmp (key, "max-open") == 0)
    return set_count (key, value, &g->max_open, err);
  if (strcmp (key, "max-active") == 0)
    return set_count (key, value, &g->max_active, err);
  if (strcmp (key, "model") == 0)
    return set_model (value, &g->model, err);
  if (strcmp (key, "block-size") == 0) {
    if (set_size (key, value, &bytes, err) == -1)
      return -1;
    if (bytes != 512 && bytes != 4096)
      return zone_error (err, EINVAL, "memory: block-size=%s is neither 512 "
                         "nor 4096", value);
    g->granularity = bytes;
    return 0;
  }
  if (strcmp (key, "read-only-zones") == 0) {
    set_list (value, &g->readonly_zones);
    return 0;
  }
  if (strcmp (key, "offline-zones") == 0) {
    set_list (value, &g->offline_zones);
    return 0;
  }
  return zone_error (err, EINVAL, "memory: unknown parameter %s=, see "
                     "--help", key);
}

int
disk_spec_parse (const char *spec, struct store_geometry *g,
                 struct zone_error *err)
{
  static const struct store_geometry defaults = STORE_GEOMETRY_DEFAULT;
  static char size[] = "size";
  /* What is set points into it, as long as the program runs. */
  static char *copy;
  const char *seen[NR_KEYS];
  unsigned nseen = 0, i;
  char *item, *value, *rest;

  *g = defaults;
  rest = copy = strdup (spec);
  if (copy == NULL)
    return zone_error (err, ENOMEM, "no memory");
  while ((item = strsep (&rest, ",")) != NULL) {
    value = strchr (item, '=');
    if (value)
      *value++ = '\0';
    else if (item == copy) {
      value = item;
      item = size;
    }
    else
      return zone_error (err, EINVAL, "memory: \"%s\" is no key=value", item);
    for (i = 0; i < nseen; ++i)
      if (strcmp (item, seen[i]) == 0)
        return zone_error (err, EINVAL, "memory: %s= is given twice", item);
    if (set (g, item, value, err) == -1)
      return -1;
    seen[nseen++] = item;
  }
  if (g->size == 0 || g->zone_size == 0)
    return zone_error (err, EINVAL, "memory: a disk in memory needs a size "
                       "and a zone size: memory:SIZE,zone-size=SIZE");
  return store_geometry_check (g, err);
}
