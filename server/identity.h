/* SPDX-License-Identifier: BSD-3-Clause */
/* Whom the server runs as: -u and -g.  Names are looked up before anything
 * is opened; the change comes after what root is wanted for (the image, the
 * sockets, the pid file) and before any thread.
 */

#ifndef SERVER_IDENTITY_H
#define SERVER_IDENTITY_H

#include <stdbool.h>
#include <sys/types.h>

#include "error.h"

struct identity {
  const char *user, *group;     /* as typed, or NULL */
  uid_t uid;
  gid_t gid;
};

/* Looks up id->user and id->group, names or numbers.  A user without a
 * group has that of the user's entry.  Returns 0, or -1 with the error. */
int identity_find (struct identity *id, struct zone_error *err);

/* Becomes it, for good, and leaves all supplementary groups. */
int identity_take (const struct identity *id, struct zone_error *err);

static inline bool
identity_changes (const struct identity *id)
{
  return id->user || id->group;
}

#endif /* SERVER_IDENTITY_H */
