/* SPDX-License-Identifier: BSD-3-Clause */
/* What the linker's --wrap puts in the place of a function, and what was
 * there; the same list is in Makefile.am.
 */

#ifndef WRAPS_H
#define WRAPS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "ring.h"

#define WRAPPED(type, name, ...)        \
  type __real_##name (__VA_ARGS__);     \
  type __wrap_##name (__VA_ARGS__)

WRAPPED (uint64_t, debug_now, void);
WRAPPED (int, fallocate, int, int, off_t, off_t);
WRAPPED (int, fdatasync, int);
WRAPPED (int, fsync, int);
WRAPPED (int, getentropy, void *, size_t);
WRAPPED (bool, image_boot_id, uint8_t[16]);
WRAPPED (bool, image_forgets, int);
WRAPPED (int, posix_fadvise, int, off_t, off_t, int);
WRAPPED (ssize_t, pread, int, void *, size_t, off_t);
WRAPPED (ssize_t, preadv, int, const struct iovec *, int, off_t);
WRAPPED (int, pthread_cond_signal, pthread_cond_t *);
WRAPPED (int, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *,
         const struct timespec *);
WRAPPED (int, pthread_cond_wait, pthread_cond_t *, pthread_mutex_t *);
WRAPPED (int, pthread_create, pthread_t *, const pthread_attr_t *,
         void *(*) (void *), void *);
WRAPPED (int, pthread_join, pthread_t, void **);
WRAPPED (ssize_t, pwrite, int, const void *, size_t, off_t);
WRAPPED (ssize_t, pwritev, int, const struct iovec *, int, off_t);
WRAPPED (ssize_t, pwritev2, int, const struct iovec *, int, off_t, int);
WRAPPED (int, ring_run, struct ring *, bool);
WRAPPED (void, ring_set_op, struct ring *, struct io_uring_sqe *,
         struct ring_op *);
WRAPPED (struct io_uring_sqe *, ring_sqe, struct ring *);

#undef WRAPPED

#endif /* WRAPS_H */
