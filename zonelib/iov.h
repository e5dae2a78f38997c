/* SPDX-License-Identifier: BSD-3-Clause */
/* Vectors of memory. */

#ifndef ZONE_IOV_H
#define ZONE_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* Moves *iov, of n pieces, over bytes that are done, no more than there are:
 * returns how many pieces are left. */
static inline size_t
iov_advance (struct iovec **iov, size_t n, size_t done)
{
  while (n > 0 && done >= (*iov)->iov_len) {
    done -= (*iov)->iov_len;
    (*iov)++;
    n--;
  }
  if (n > 0) {
    (*iov)->iov_base = (char *) (*iov)->iov_base + done;
    (*iov)->iov_len -= done;
  }
  return n;
}

#endif /* ZONE_IOV_H */
