/* SPDX-License-Identifier: BSD-3-Clause */
/* See open.h. */

#include <config.h>

#include <errno.h>
#include <sys/stat.h>

#include "host.h"
#include "image.h"
#include "open.h"

static struct store *
open_as (const char *path, bool readonly, struct zone_error *err)
{
  struct stat st;

  if (stat (path, &st) == 0 && S_ISBLK (st.st_mode) &&
      (host_is_zoned (st.st_rdev) || !image_probe (path)))
    return host_open (path, readonly, err);
  return image_open (path, readonly, err);
}

struct store *
store_open (const char *path, enum store_access access,
            struct zone_error *err)
{
  struct store *store;

  if (access != STORE_READ_ONLY) {
    store = open_as (path, false, err);
    if (store || access == STORE_WRITABLE ||
        (err->num != EACCES && err->num != EPERM && err->num != EROFS))
      return store;
  }
  return open_as (path, true, err);
}
