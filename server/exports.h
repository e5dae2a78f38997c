/* SPDX-License-Identifier: BSD-3-Clause */
/* What is served: the disk, and beside it its zone table, if it has zones.
 * Set up before any connection and not changed until the end.
 */

#ifndef SERVER_EXPORTS_H
#define SERVER_EXPORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk.h"

struct export {
  char *name;
  char *description;
  struct zdisk *disk;
  bool table;                   /* the zone table, not the disk */
  bool readonly;
  uint64_t size;
  uint32_t min_block, preferred_block, max_block;
};

#define EXPORTS_MAX 2
extern struct export exports[EXPORTS_MAX];
extern unsigned nexports;

/* Returns 0, or -1 where there is no memory. */
int exports_init (struct zdisk *disk, const char *name, bool readonly);
void exports_free (void);

/* The export of a name that a client sent ("" is the disk), or NULL. */
const struct export *export_find (const char *name, size_t length);

/* Transmission flags, but those that depend on what was negotiated. */
uint16_t export_flags (const struct export *e);

#endif /* SERVER_EXPORTS_H */
