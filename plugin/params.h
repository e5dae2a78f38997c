/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin's parameters: everything that a user types after "nbdkit
 * zoned", checked here, once.
 */

#ifndef ZONED_PARAMS_H
#define ZONED_PARAMS_H

#include <stdbool.h>

#include "disk.h"
#include "store.h"

struct params {
  const char *file;                 /* as typed; NULL: a disk in memory */
  bool readonly;                    /* the image is only read */
  struct store_geometry geometry;   /* of the disk in memory */
  struct zdisk_options options;
};

extern const char params_help[];

/* Takes one key=value.  Returns 0, or -1 with the error printed.  The
 * strings must outlive *p; nbdkit's do. */
int params_set (struct params *p, const char *key, const char *value);

/* Looks at all of them together, once the last one is set.  Returns 0, or
 * -1 with the error printed. */
int params_complete (struct params *p);

#endif /* ZONED_PARAMS_H */
