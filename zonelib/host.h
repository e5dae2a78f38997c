/* SPDX-License-Identifier: BSD-3-Clause */
/* The host store: a block device of this machine.  A zoned one (SMR, ZNS,
 * null_blk...) keeps its own zones, which the disk mirrors; an ordinary one
 * is an ordinary disk.
 */

#ifndef ZONE_HOST_H
#define ZONE_HOST_H

#include <stdbool.h>
#include <sys/types.h>

#include "error.h"

struct store;

/* Whether the kernel shows a block device as zoned. */
bool host_is_zoned (dev_t dev);

/* Opens a block device, exclusively, and reads what it is. */
struct store *host_open (const char *path, bool readonly,
                         struct zone_error *err);

#endif /* ZONE_HOST_H */
