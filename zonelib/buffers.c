/* SPDX-License-Identifier: BSD-3-Clause */
/* See buffers.h.  Free buffers of a size are chained through their first
 * bytes.
 */

#include <config.h>

#include <stdlib.h>

#include "buffers.h"

/* A pool keeps no more than this. */
#define KEEP_MAX (64u << 20)

static unsigned
class_of (size_t size)
{
  unsigned class = 0;

  while (((size_t) BUFFER_MIN << class) < size)
    class++;
  return class;
}

size_t
buffer_size (size_t size)
{
  return (size_t) BUFFER_MIN << class_of (size);
}

void *
buffer_get (struct buffers *pool, size_t size)
{
  unsigned class = class_of (size);
  void *buf = pool->free[class];

  if (buf) {
    pool->free[class] = *(void **) buf;
    pool->kept -= buffer_size (size);
    return buf;
  }
  if (posix_memalign (&buf, BUFFER_MIN, buffer_size (size)) != 0)
    return NULL;
  return buf;
}

void
buffer_put (struct buffers *pool, void *buf, size_t size)
{
  unsigned class = class_of (size);

  if (buf == NULL)
    return;
  if (pool->kept + buffer_size (size) > KEEP_MAX) {
    free (buf);
    return;
  }
  *(void **) buf = pool->free[class];
  pool->free[class] = buf;
  pool->kept += buffer_size (size);
}

void
buffers_free (struct buffers *pool)
{
  unsigned class;
  void *buf;

  for (class = 0; class < BUFFER_CLASSES; class++)
    while ((buf = pool->free[class]) != NULL) {
      pool->free[class] = *(void **) buf;
      free (buf);
    }
}
