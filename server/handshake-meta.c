/* SPDX-License-Identifier: BSD-3-Clause */
/* The options about metadata contexts: which there are, and which the
 * client selects.
 */

#include <config.h>

#include <endian.h>
#include <string.h>

#include "geometry.h"
#include "handshake.h"

/* Queries of one option. */
#define QUERIES_MAX 1000

/* By enum context; the geometry's listed name carries more. */
static const char *const names[NR_CONTEXTS] = {
  [CONTEXT_ALLOCATION] = "base:allocation",
  [CONTEXT_ZONES] = "x-zbd:zones",
  [CONTEXT_GEOMETRY] = "x-zbd:geometry",
  [CONTEXT_APPEND] = "x-zbd:append",
  [CONTEXT_OPEN] = "x-zbd:open",
  [CONTEXT_CLOSE] = "x-zbd:close",
  [CONTEXT_FINISH] = "x-zbd:finish",
  [CONTEXT_RESET] = "x-zbd:reset",
  [CONTEXT_OPEN_ALL] = "x-zbd:open-all",
  [CONTEXT_CLOSE_ALL] = "x-zbd:close-all",
  [CONTEXT_FINISH_ALL] = "x-zbd:finish-all",
  [CONTEXT_RESET_ALL] = "x-zbd:reset-all",
};

/* The contexts that an export has. */
static uint32_t
offered (const struct export *e)
{
  const struct znbd_geometry *g = zdisk_geometry (e->disk);
  uint32_t contexts = CONTEXT_BIT (CONTEXT_ALLOCATION);

  if (e->table || g->model == ZNBD_MODEL_NONE)
    return contexts;
  contexts |= CONTEXT_BIT (CONTEXT_ZONES) | CONTEXT_BIT (CONTEXT_GEOMETRY);
  if (e->readonly)
    return contexts;
  contexts |= CONTEXT_BIT (NR_CONTEXTS) - CONTEXT_BIT (CONTEXT_OPEN);
  if (g->model == ZNBD_MODEL_HOST_MANAGED && g->max_append > 0)
    contexts |= CONTEXT_BIT (CONTEXT_APPEND);
  return contexts;
}

/* A context's name as it is listed and selected; geometry: that one's. */
static const char *
listed_name (enum context i, const char *geometry)
{
  return i == CONTEXT_GEOMETRY ? geometry : names[i];
}

static bool
equals (const char *query, size_t length, const char *name)
{
  return strlen (name) == length && memcmp (query, name, length) == 0;
}

/* Whether a query asks for a context.  A list may be asked for a whole
 * namespace, and for the geometry by its short name. */
static bool
matches (uint32_t option, const char *query, size_t length, enum context i,
         const char *listed)
{
  const char *colon;

  if (equals (query, length, listed))
    return true;
  if (option != NBD_OPT_LIST_META_CONTEXT)
    return false;
  if (equals (query, length, names[i]))
    return true;
  colon = memchr (query, ':', length);
  return colon && colon + 1 == query + length &&
    strncmp (query, names[i], length) == 0;
}

static void
reply_context (struct conn *c, uint32_t option, enum context i,
               const char *name)
{
  uint8_t buf[sizeof (uint32_t) + GEOMETRY_NAME_MAX];
  uint32_t id = htobe32 (option == NBD_OPT_SET_META_CONTEXT ? i + 1 : 0);
  size_t n = strlen (name);

  memcpy (buf, &id, sizeof id);
  memcpy (buf + sizeof id, name, n);
  option_reply (c, option, NBD_REP_META_CONTEXT, buf, sizeof id + n);
}

void
option_meta_context (struct conn *c, uint32_t option, struct option_data d)
{
  char geometry[GEOMETRY_NAME_MAX];
  const struct export *e;
  const char *name, *query;
  uint32_t n, i, wanted = 0, offers;
  size_t length;
  enum context k;
  bool whole;

  /* Whatever comes of it, an earlier selection is void. */
  if (option == NBD_OPT_SET_META_CONTEXT) {
    c->contexts = 0;
    c->contexts_export = NULL;
  }
  if (!c->structured) {
    option_error (c, option, NBD_REP_ERR_INVALID,
                  "metadata contexts need structured replies");
    return;
  }
  whole = option_string (&d, &name, &length) && option_u32 (&d, &n);
  if (whole && n > QUERIES_MAX) {
    option_error (c, option, NBD_REP_ERR_TOO_BIG, "more than %u queries",
                  QUERIES_MAX);
    return;
  }
  e = whole ? export_find (name, length) : NULL;
  offers = e ? offered (e) : 0;
  if (offers & CONTEXT_BIT (CONTEXT_GEOMETRY))
    geometry_encode_name (zdisk_geometry (e->disk), geometry);
  if (whole && n == 0 && option == NBD_OPT_LIST_META_CONTEXT)
    wanted = offers;
  for (i = 0; whole && i < n; i++) {
    whole = option_string (&d, &query, &length);
    for (k = 0; whole && k < NR_CONTEXTS; k++)
      if ((offers & CONTEXT_BIT (k)) &&
          matches (option, query, length, k, listed_name (k, geometry)))
        wanted |= CONTEXT_BIT (k);
  }
  if (!whole || d.left > 0) {
    option_error (c, option, NBD_REP_ERR_INVALID,
                  "a query's lengths do not fit together");
    return;
  }
  if (e == NULL) {
    option_error (c, option, NBD_REP_ERR_UNKNOWN, "there is no such export");
    return;
  }
  for (k = 0; k < NR_CONTEXTS; k++)
    if (wanted & CONTEXT_BIT (k))
      reply_context (c, option, k, listed_name (k, geometry));
  if (option == NBD_OPT_SET_META_CONTEXT) {
    c->contexts = wanted;
    c->contexts_export = e;
  }
  option_reply (c, option, NBD_REP_ACK, NULL, 0);
}
