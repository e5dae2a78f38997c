/* SPDX-License-Identifier: BSD-3-Clause */
/* The metadata contexts that an export offers, listed before it is
 * chosen: their names say what can be done, and one of them carries the
 * geometry.
 */

#include <config.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "geometry.h"
#include "lib-internal.h"

/* Names that a server may list.  One that goes on and on is left. */
#define LISTED_MAX 1000

const char *
lib_context_name (enum lib_conn_kind kind, char name[LIB_CONTEXT_MAX])
{
  if (kind < LIB_MANAGE)
    snprintf (name, LIB_CONTEXT_MAX, "x-zbd:%s",
              kind == LIB_DISK ? "zones" : "append");
  else
    snprintf (name, LIB_CONTEXT_MAX, "x-zbd:%s%s",
              znbd_op_name (ZNBD_ZONE_OPEN + (kind - LIB_MANAGE) % 4),
              kind >= LIB_MANAGE_ALL ? "-all" : "");
  return name;
}

/* On the heap, for libnbd may know of it longer than we wait. */
struct listing {
  unsigned users;               /* ours and libnbd's */
  uint32_t offered;
  unsigned count;
  char *geometry;
  bool done, no_memory, twice;
};

static void
put_listing (void *opaque)
{
  struct listing *l = opaque;

  if (--l->users == 0) {
    free (l->geometry);
    free (l);
  }
}

static int
listed (void *opaque, const char *name)
{
  struct listing *l = opaque;
  char buf[LIB_CONTEXT_MAX];
  unsigned kind;

  if (l->count++ >= LISTED_MAX)
    return 0;
  for (kind = 0; kind < LIB_CONNS; ++kind)
    if (kind != LIB_TABLE &&
        strcmp (name, lib_context_name (kind, buf)) == 0)
      l->offered |= LIB_BIT (kind);
  if (strncmp (name, GEOMETRY_PREFIX, strlen (GEOMETRY_PREFIX)) == 0) {
    if (l->geometry)
      l->twice = true;
    else
      l->no_memory = (l->geometry = strdup (name)) == NULL;
  }
  return 0;
}

static int
answered (void *opaque, int *error)
{
  struct listing *l = opaque;

  (void) error;
  l->done = true;
  return 1;
}

int
lib_list_contexts (struct nbd_handle *nbd, uint32_t *offered,
                   char **geometry_name)
{
  struct listing *l;
  int r = 0;

  *offered = 0;
  *geometry_name = NULL;
  if (nbd_clear_meta_contexts (nbd) == -1 ||
      nbd_add_meta_context (nbd, "x-zbd:") == -1)
    return lib_error_nbd ("contexts");
  l = calloc (1, sizeof *l);
  if (l == NULL)
    return lib_error (ENOMEM, "contexts: out of memory");

  /* Failing means that there are none; a connection that it breaks shows
   * with the next option. */
  l->users = 3;
  if (nbd_aio_opt_list_meta_context (
        nbd,
        (nbd_context_callback) { .callback = listed, .user_data = l,
                                 .free = put_listing },
        (nbd_completion_callback) { .callback = answered, .user_data = l,
                                    .free = put_listing }) != -1)
    while (!l->done && l->count <= LISTED_MAX && nbd_poll (nbd, -1) != -1)
      ;
  (void) nbd_clear_meta_contexts (nbd);

  if (l->no_memory)
    r = lib_error (ENOMEM, "contexts: out of memory");
  else if (l->twice)
    r = lib_error (EPROTO, "the server lists two geometries");
  else if (l->count > LISTED_MAX)
    r = lib_error (EPROTO, "the server lists metadata contexts without end");
  else {
    *offered = l->offered;
    *geometry_name = l->geometry;
    l->geometry = NULL;
  }
  put_listing (l);
  return r;
}
