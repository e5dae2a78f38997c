/* SPDX-License-Identifier: BSD-3-Clause */
/* From a path to a store: an image, in a file or on a block device, or a
 * device of this machine.
 */

#ifndef ZONE_OPEN_H
#define ZONE_OPEN_H

#include "error.h"
#include "store.h"

enum store_access {
  STORE_READ_ONLY,
  STORE_WRITABLE,
  STORE_WRITABLE_OR_NOT,        /* as it may be: see store->readonly, and
                                 * err->text for why not */
};

/* A zoned block device is itself what is opened; any other block device is
 * an image if it begins like one, else an ordinary disk; everything else
 * has to be an image.  NULL on error. */
struct store *store_open (const char *path, enum store_access access,
                          struct zone_error *err);

#endif /* ZONE_OPEN_H */
