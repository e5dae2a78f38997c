/* SPDX-License-Identifier: BSD-3-Clause */
/* Buffers for data, aligned to their smallest size and kept for the next
 * request.  A pool is for one thread, or under its owner's lock.
 */

#ifndef ZONE_BUFFERS_H
#define ZONE_BUFFERS_H

#include <stddef.h>

/* Powers of two from 4 KiB to 64 MiB. */
#define BUFFER_CLASSES 15
#define BUFFER_MIN 4096u

struct buffers {
  void *free[BUFFER_CLASSES];
  size_t kept;                  /* bytes in free, but of the arena */
  char *arena;                  /* where buffers are made first, or NULL */
  size_t arena_size, arena_used;
};

/* Has buffers made in one piece of memory as long as it has room, so that a
 * ring can be told of it.  Returns it, or NULL where there is none. */
void *buffers_make_arena (struct buffers *pool, size_t size);
void buffers_drop_arena (struct buffers *pool);

/* The bytes that a buffer for size takes. */
size_t buffer_size (size_t size);

/* A buffer of at least size bytes, NULL where there is no memory.  What is
 * put back is given with the size it was asked for with. */
void *buffer_get (struct buffers *pool, size_t size);
void buffer_put (struct buffers *pool, void *buf, size_t size);
void buffers_free (struct buffers *pool);

#endif /* ZONE_BUFFERS_H */
