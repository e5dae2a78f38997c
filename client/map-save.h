/* SPDX-License-Identifier: BSD-3-Clause */
/* Files that are either written whole or left as they were. */

#ifndef MAP_SAVE_H
#define MAP_SAVE_H

#include <stddef.h>

/* Puts length bytes into the file at path: makes it or replaces it.  On
 * error, after a message, what was there is still there. */
int map_save (const char *path, const char *buf, size_t length);

#endif /* MAP_SAVE_H */
