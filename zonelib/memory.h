/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory store: an emulated zoned disk that lives as long as its
 * process.  Sparse: only what was written takes memory. */

#ifndef ZONE_MEMORY_H
#define ZONE_MEMORY_H

#include "error.h"
#include "store.h"

struct store *memory_new (const struct store_geometry *geometry,
                          struct zone_error *err);

#endif /* ZONE_MEMORY_H */
