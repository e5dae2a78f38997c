/* SPDX-License-Identifier: BSD-3-Clause */
/* The image store's control path: making, opening and checking emulated
 * zoned disks that keep their state in one file or on a block device.
 * docs/image-format.md has every field.
 */

#ifndef ZONE_IMAGE_H
#define ZONE_IMAGE_H

#include <stdbool.h>
#include <stdio.h>

#include "error.h"
#include "store.h"

/* Makes an image at path.  An existing file that is not empty, or a block
 * device that is not blank, is refused with EEXIST unless force is set;
 * one that is in use (locked) is refused in any case.  Everything is
 * checked before anything is created or changed.
 */
int image_create (const char *path, const struct store_geometry *geometry,
                  bool force, struct zone_error *err);

/* Opens an image as a store, locked: for one writer, or for any number of
 * readers.  NULL on error. */
struct store *image_open (const char *path, bool readonly,
                          struct zone_error *err);

/* Reads everything of an image and prints a line for each thing found
 * wrong, and for each thing that the next opening will mend.  Changes
 * nothing, unless repair is set: then what is damaged and also there in
 * another way is written anew.  What cannot be explained is left as it is.
 * Returns the number of faults (0: the image opens and has exactly the
 * right state, and no copy of anything is damaged, or any more), or -1
 * where it cannot be opened, because it is damaged or in use for example.
 */
int image_check (const char *path, bool repair, FILE *out,
                 struct zone_error *err);

/* Whether path holds an image's magic; for telling images from other
 * files in messages. */
bool image_probe (const char *path);

#endif /* ZONE_IMAGE_H */
