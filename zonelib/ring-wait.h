/* SPDX-License-Identifier: BSD-3-Clause */
/* Something to go on with in a later turn of a ring, see ring_later: embedded
 * in whatever waits.  For headers that do not want all of liburing. */

#ifndef ZONE_RING_WAIT_H
#define ZONE_RING_WAIT_H

struct ring_wait {
  struct ring_wait *next;
  void (*go) (struct ring_wait *wait);
};

#endif /* ZONE_RING_WAIT_H */
