/* SPDX-License-Identifier: BSD-3-Clause */
/* See map-save.h.  The bytes go into a file of another name beside it, which
 * then takes its place: a full disk or a kill costs nobody the old picture.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "map-save.h"

static int
fail (const char *path)
{
  cli_error ("%s: %s", path, strerror (errno));
  return -1;
}

/* The mode of the file that is replaced, or what open would give. */
static mode_t
find_mode (const char *path)
{
  struct stat st;
  mode_t mask;

  if (stat (path, &st) == 0)
    return st.st_mode & 0777;
  mask = umask (0);
  umask (mask);
  return 0666 & ~mask;
}

/* Whether a picture may take the place of what is at path: nothing, or
 * another one, rather than the disk.  What cannot be read is neither. */
static bool
may_replace (const char *path)
{
  static const char mark[] = "<svg";
  char text[4096];
  ssize_t n;
  int fd = open (path, O_RDONLY | O_CLOEXEC);

  if (fd == -1) {
    fail (path);
    return false;
  }
  n = read (fd, text, sizeof text);
  close (fd);
  if (n == 0 || (n > 0 && memmem (text, n, mark, strlen (mark))))
    return true;
  cli_error ("--svg %s: there is a file that is no SVG picture, and it is not "
             "overwritten", path);
  return false;
}

static int
write_all (int fd, const char *buf, size_t length)
{
  ssize_t n;

  while (length > 0) {
    n = write (fd, buf, length);
    if (n == -1 && errno == EINTR)
      continue;
    if (n == -1)
      return -1;
    buf += n;
    length -= n;
  }
  return 0;
}

/* Replaces what is at path, which names no symbolic link. */
static int
replace (const char *path, const char *buf, size_t length)
{
  char *name;
  int fd, r, error;

  if (asprintf (&name, "%s.XXXXXX", path) == -1) {
    cli_error ("out of memory");
    return -1;
  }
  fd = mkstemp (name);
  if (fd == -1) {
    fail (path);
    free (name);
    return -1;
  }
  r = write_all (fd, buf, length);
  if (r == 0)
    r = fchmod (fd, find_mode (path));
  /* Or a crash of the machine might leave an empty file. */
  if (r == 0)
    r = fsync (fd);
  error = errno;
  if (close (fd) == -1 && r == 0) {
    error = errno;
    r = -1;
  }
  if (r == 0) {
    r = rename (name, path);
    error = errno;
  }
  if (r == -1) {
    (void) unlink (name);
    errno = error;
    fail (path);
  }
  free (name);
  return r;
}

int
map_save (const char *path, const char *buf, size_t length)
{
  struct stat st;
  char *target;
  int r;

  if (lstat (path, &st) == -1)
    return errno == ENOENT ? replace (path, buf, length) : fail (path);

  /* A link stays one, to the new file. */
  target = realpath (path, NULL);
  if (target == NULL || stat (target, &st) == -1)
    r = fail (path);
  else if (S_ISDIR (st.st_mode)) {
    errno = EISDIR;
    r = fail (path);
  }
  else if (!S_ISREG (st.st_mode)) {
    cli_error ("%s is not a regular file; write to standard output with -",
               path);
    r = -1;
  }
  else
    r = may_replace (target) ? replace (target, buf, length) : -1;
  free (target);
  return r;
}
