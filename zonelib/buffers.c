/* SPDX-License-Identifier: BSD-3-Clause */
/* See buffers.h.  Free buffers of a size are chained through their first
 * bytes.
 */

#include <config.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "buffers.h"

/* A pool keeps no more than this. */
#define KEEP_MAX (64u << 20)

/* Larger ones would take an arena for themselves. */
#define ARENA_BUFFER_MAX (1u << 20)

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
buffers_make_arena (struct buffers *pool, size_t size)
{
  void *arena = mmap (NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (arena == MAP_FAILED)
    return NULL;
  pool->arena = arena;
  pool->arena_size = size;
  pool->arena_used = 0;
  return arena;
}

void
buffers_drop_arena (struct buffers *pool)
{
  if (pool->arena)
    munmap (pool->arena, pool->arena_size);
  pool->arena = NULL;
  pool->arena_size = 0;
}

static bool
is_of_arena (const struct buffers *pool, const void *buf)
{
  return (uintptr_t) buf - (uintptr_t) pool->arena < pool->arena_size;
}

void *
buffer_get (struct buffers *pool, size_t size)
{
  unsigned class = class_of (size);
  void *buf = pool->free[class];

  if (buf) {
    pool->free[class] = *(void **) buf;
    if (!is_of_arena (pool, buf))
      pool->kept -= buffer_size (size);
    return buf;
  }
  if (pool->arena && buffer_size (size) <= ARENA_BUFFER_MAX &&
      buffer_size (size) <= pool->arena_size - pool->arena_used) {
    buf = pool->arena + pool->arena_used;
    pool->arena_used += buffer_size (size);
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
  if (!is_of_arena (pool, buf)) {
    if (pool->kept + buffer_size (size) > KEEP_MAX) {
      free (buf);
      return;
    }
    pool->kept += buffer_size (size);
  }
  *(void **) buf = pool->free[class];
  pool->free[class] = buf;
}

void
buffers_free (struct buffers *pool)
{
  unsigned class;
  void *buf;

  for (class = 0; class < BUFFER_CLASSES; class++)
    while ((buf = pool->free[class]) != NULL) {
      pool->free[class] = *(void **) buf;
      if (!is_of_arena (pool, buf))
        free (buf);
    }
  buffers_drop_arena (pool);
}
