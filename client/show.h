/* SPDX-License-Identifier: BSD-3-Clause */
/* How info and report write what they have in common. */

#ifndef SHOW_H
#define SHOW_H

#include "znbd-types.h"

#define SHOW_UUID_SIZE 37
const char *show_uuid (char buf[SHOW_UUID_SIZE], const uint8_t uuid[16]);

/* Writes str as a JSON string, quotes and all, whatever its bytes are. */
void show_json_string (const char *str);

/* Writes the geometry's members, without braces, each line with this
 * indent, and a comma only between them. */
void show_json_geometry (const char *indent, const struct znbd_geometry *g);

#endif /* SHOW_H */
