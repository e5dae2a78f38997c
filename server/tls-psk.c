/* SPDX-License-Identifier: BSD-3-Clause */
/* Pre-shared keys: a file as psktool makes it, a line "USER:KEY" for each
 * user, the key in hexadecimal digits.  GnuTLS can read such files, but
 * would do so in every handshake, which a loop must not wait for.
 */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls.h"

/* psktool makes keys of 32 bytes, and none above 64. */
#define KEY_MAX 64

struct user {
  char *name;
  uint8_t key[KEY_MAX];
  unsigned size;
};

/* Set by tls_psk_load, before there are threads. */
static struct user *users;
static size_t nusers;

void
tls_psk_unload (void)
{
  size_t i;

  for (i = 0; i < nusers; i++)
    free (users[i].name);
  if (users)
    gnutls_memset (users, 0, nusers * sizeof *users);
  free (users);
  users = NULL;
  nusers = 0;
}

const char *
tls_psk_user (void)
{
  return nusers > 0 ? users[0].name : NULL;
}

static const struct user *
find (const char *name)
{
  size_t i;

  for (i = 0; i < nusers; i++)
    if (strcmp (users[i].name, name) == 0)
      return &users[i];
  return NULL;
}

/* GnuTLS asks for a user's key.  For a user that there is not, 1 has it take
 * a random one, so that a client cannot find out which users there are. */
static int
key_of (gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
  const struct user *user = find (name);

  (void) session;
  if (user == NULL)
    return 1;
  key->data = gnutls_malloc (user->size);
  if (key->data == NULL)
    return -1;
  memcpy (key->data, user->key, user->size);
  key->size = user->size;
  return 0;
}

static int
digit (char ch)
{
  if (ch >= '0' && ch <= '9')
    return ch - '0';
  if (ch >= 'a' && ch <= 'f')
    return ch - 'a' + 10;
  return ch >= 'A' && ch <= 'F' ? ch - 'A' + 10 : -1;
}

/* Takes "USER:KEY" apart; what is wrong with it, or NULL. */
static const char *
parse (struct user *user, char *line)
{
  char *p = strchr (line, ':');
  int high, low;

  if (p == NULL || p == line)
    return "is not USER:KEY, as psktool makes it";
  *p++ = '\0';
  for (user->size = 0; *p; p += 2) {
    high = digit (p[0]);
    low = high == -1 ? -1 : digit (p[1]);
    if (low == -1)
      return "has a key that is not an even number of hexadecimal digits";
    if (user->size == KEY_MAX)
      return "has a key of more than 64 bytes";
    user->key[user->size++] = high << 4 | low;
  }
  return user->size > 0 ? NULL : "has an empty key";
}

static int
add (char *line, const char *path, unsigned number, struct zone_error *err)
{
  struct user user, *more;
  const char *wrong = parse (&user, line);

  if (wrong == NULL && find (line))
    wrong = "has a user who had a line before";
  if (wrong)
    return zone_error (err, EINVAL, "%s: line %u %s", path, number, wrong);
  more = reallocarray (users, nusers + 1, sizeof user);
  if (more)
    users = more;
  user.name = more ? strdup (line) : NULL;
  if (user.name == NULL)
    return zone_error (err, ENOMEM, "no memory for the keys of %s", path);
  users[nusers++] = user;
  gnutls_memset (&user, 0, sizeof user);
  return 0;
}

/* Who can read the keys can be any of the users. */
static FILE *
open_file (const char *path, struct zone_error *err)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat st;
  FILE *f;

  if (fd == -1 || fstat (fd, &st) == -1) {
    zone_error (err, errno, "%s: %s", path, strerror (errno));
    if (fd != -1)
      close (fd);
    return NULL;
  }
  if (S_ISDIR (st.st_mode))
    zone_error (err, EISDIR, "%s: %s", path, strerror (EISDIR));
  else if (!S_ISREG (st.st_mode))
    zone_error (err, EINVAL, "%s: is no regular file", path);
  else if ((st.st_mode & (S_IRWXO | S_IWGRP)) != 0)
    zone_error (err, EACCES, "%s: its mode %04o lets others read or change "
                "the keys; use chmod 0600 or 0640", path,
                st.st_mode & 07777u);
  else if ((f = fdopen (fd, "r")) != NULL)
    return f;
  else
    zone_error (err, ENOMEM, "%s: %s", path, strerror (errno));
  close (fd);
  return NULL;
}

static int
read_file (const char *path, struct zone_error *err)
{
  FILE *f = open_file (path, err);
  char *line = NULL;
  size_t size = 0;
  unsigned number = 0;
  ssize_t n;
  int r = 0;

  if (f == NULL)
    return -1;
  while (r == 0 && (n = getline (&line, &size, f)) != -1) {
    number++;
    while (n > 0 && isspace ((unsigned char) line[n - 1]))
      line[--n] = '\0';
    if (strlen (line) < (size_t) n)
      r = zone_error (err, EINVAL, "%s: line %u has a byte of zero", path,
                      number);
    else if (n > 0)
      r = add (line, path, number, err);
  }
  if (r == 0 && ferror (f))
    r = zone_error (err, EIO, "%s: %s", path, strerror (errno));
  if (r == 0 && nusers == 0)
    r = zone_error (err, EINVAL, "%s: there is no key; make one with "
                    "psktool -u USER -p %s", path, path);
  if (line)
    gnutls_memset (line, 0, size);
  free (line);
  fclose (f);
  return r;
}

int
tls_psk_load (const char *path, gnutls_psk_server_credentials_t *credentials,
              struct zone_error *err)
{
  if (read_file (path, err) == -1)
    return -1;
  if (gnutls_psk_allocate_server_credentials (credentials) < 0)
    return zone_error (err, ENOMEM, "no memory for the keys of %s", path);
  gnutls_psk_set_server_credentials_function (*credentials, key_of);
  return 0;
}
