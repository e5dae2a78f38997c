/* SPDX-License-Identifier: BSD-3-Clause */
/* Images of version 1, as earlier versions of znbd made them: no log, so the
 * data lies further to the front.
 */

#ifndef VERSION_1_H
#define VERSION_1_H

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "image-internal.h"

/* Of a new image without read-only zones. */
static inline bool
make_version_1 (const char *file)
{
  struct image_superblock sb;
  uint8_t block[IMAGE_BLOCK];
  int fd = open (file, O_RDWR);
  bool good;

  good = pread (fd, block, sizeof block, 0) == sizeof block &&
    image_decode_superblock (block, &sb);
  sb.version = IMAGE_VERSION_NO_LOG;
  image_layout (&sb);
  image_encode_superblock (&sb, block);
  good = good && pwrite (fd, block, sizeof block, 0) == sizeof block &&
    pwrite (fd, block, sizeof block, sizeof block) == sizeof block &&
    ftruncate (fd, sb.file_size) == 0;
  close (fd);
  return good;
}

#endif /* VERSION_1_H */
