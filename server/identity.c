/* SPDX-License-Identifier: BSD-3-Clause */
/* See identity.h. */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "identity.h"

/* As chown has it: what is no name may be a number.  All ones mean "none"
 * to the kernel. */
static bool
parse_number (const char *s, unsigned *id)
{
  unsigned long n;
  char *end;

  errno = 0;
  n = strtoul (s, &end, 10);
  *id = n;
  return isdigit ((unsigned char) *s) && *end == '\0' && errno == 0 &&
    n < 0xffffffff;
}

static int
find_user (struct identity *id, struct zone_error *err)
{
  const struct passwd *pw = getpwnam (id->user);

  if (pw == NULL && parse_number (id->user, &id->uid))
    pw = getpwuid (id->uid);
  else if (pw == NULL)
    return zone_error (err, EINVAL, "--user %s: there is no such user",
                       id->user);
  if (pw) {
    id->uid = pw->pw_uid;
    id->gid = pw->pw_gid;
  }
  else if (id->group == NULL)
    return zone_error (err, EINVAL, "--user %s has no name and so no group: "
                       "give a --group as well", id->user);
  return 0;
}

int
identity_find (struct identity *id, struct zone_error *err)
{
  const struct group *gr;

  id->uid = getuid ();
  id->gid = getgid ();
  if (id->user && find_user (id, err) == -1)
    return -1;
  if (id->group == NULL)
    return 0;
  gr = getgrnam (id->group);
  if (gr)
    id->gid = gr->gr_gid;
  else if (!parse_number (id->group, &id->gid))
    return zone_error (err, EINVAL, "--group %s: there is no such group",
                       id->group);
  return 0;
}

static int
refused (const struct identity *id, struct zone_error *err)
{
  int e = errno;

  return zone_error (err, e, "--%s %s: %s%s", id->user ? "user" : "group",
                     id->user ? id->user : id->group, strerror (e),
                     e == EPERM ? ": start the server as root" : "");
}

int
identity_take (const struct identity *id, struct zone_error *err)
{
  if (!identity_changes (id))
    return 0;
  /* The user last: it takes the right to do the rest away. */
  if (setgroups (1, &id->gid) == -1 ||
      setresgid (id->gid, id->gid, id->gid) == -1 ||
      setresuid (id->uid, id->uid, id->uid) == -1)
    return refused (id, err);
  return 0;
}
