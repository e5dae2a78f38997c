/* SPDX-License-Identifier: BSD-3-Clause */
/* See listen.h. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "listen.h"
#include "log.h"

#define BACKLOG SOMAXCONN
#define FIRST_ACTIVATED 3

/* systemd's protocol: LISTEN_FDS sockets from 3 on, if LISTEN_PID is us.
 * Returns their number, or -1. */
static int
activated (struct listener *l, struct zone_error *err)
{
  const char *pid = getenv ("LISTEN_PID"), *fds = getenv ("LISTEN_FDS");
  int n, i, on;
  socklen_t size = sizeof on;

  if (pid == NULL || fds == NULL || strtol (pid, NULL, 10) != getpid ())
    return 0;
  n = strtol (fds, NULL, 10);
  unsetenv ("LISTEN_PID");
  unsetenv ("LISTEN_FDS");
  unsetenv ("LISTEN_FDNAMES");
  if (n < 1 || n > LISTEN_MAX)
    return zone_error (err, EINVAL, "LISTEN_FDS is %d: from 1 to %d sockets "
                       "can be taken over", n, LISTEN_MAX);
  for (i = 0; i < n; i++) {
    int fd = FIRST_ACTIVATED + i;

    if (getsockopt (fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size) == -1 || !on)
      return zone_error (err, EINVAL, "descriptor %d of LISTEN_FDS is no "
                         "listening socket", fd);
    fcntl (fd, F_SETFD, FD_CLOEXEC);
    fcntl (fd, F_SETFL, fcntl (fd, F_GETFL) | O_NONBLOCK);
    l->fds[l->n++] = fd;
  }
  l->activated = true;
  return n;
}

/* What a URI takes as it is. */
static bool
is_plain (char ch)
{
  return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
    (ch >= '0' && ch <= '9') || strchr ("-._~/", ch) != NULL;
}

static void
put_escaped (FILE *f, const char *s)
{
  for (; *s; s++)
    if (is_plain (*s))
      fputc (*s, f);
    else
      fprintf (f, "%%%02X", (unsigned char) *s);
}

static int
make_uri (struct listener *l, const struct options *o, const char *host)
{
  size_t size;
  FILE *f = open_memstream (&l->uri, &size);

  if (f == NULL)
    return -1;
  if (l->unix_path) {
    fprintf (f, "nbd+unix:///");
    put_escaped (f, o->name);
    fprintf (f, "?socket=");
    put_escaped (f, l->unix_path);
  }
  else {
    fprintf (f, strchr (host, ':') ? "nbd://[%s]:%s" : "nbd://%s:%s", host,
             l->port);
    if (*o->name) {
      fputc ('/', f);
      put_escaped (f, o->name);
    }
  }
  return fclose (f);
}

/* An absolute path: the server may change its folder. */
static char *
absolute (const char *path)
{
  char *cwd, *r = NULL;

  if (*path == '/')
    return strdup (path);
  cwd = getcwd (NULL, 0);
  if (cwd && asprintf (&r, "%s/%s", cwd, path) == -1)
    r = NULL;
  free (cwd);
  return r;
}

/* A socket that nobody listens to any more is in the way only. */
static void
remove_stale (const struct sockaddr_un *addr)
{
  struct stat st;
  int fd;

  if (lstat (addr->sun_path, &st) == -1 || !S_ISSOCK (st.st_mode))
    return;
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd == -1)
    return;
  if (connect (fd, (const struct sockaddr *) addr, sizeof *addr) == -1 &&
      errno == ECONNREFUSED)
    unlink (addr->sun_path);
  close (fd);
}

static int
listen_unix (struct listener *l, const struct options *o,
             struct zone_error *err)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  char folder[] = "/tmp/znbd-XXXXXX", *path = NULL;
  int fd;

  if (strcmp (o->unix_path, "-") == 0) {
    if (mkdtemp (folder) == NULL)
      return zone_error (err, errno, "%s: %s", folder, strerror (errno));
    l->folder = strdup (folder);
    if (asprintf (&path, "%s/socket", folder) == -1)
      path = NULL;
  }
  else
    path = absolute (o->unix_path);
  if (path == NULL)
    return zone_error (err, ENOMEM, "no memory");
  if (strlen (path) >= sizeof addr.sun_path) {
    zone_error (err, ENAMETOOLONG, "%s: a socket's path is shorter than %zu "
                "bytes", path, sizeof addr.sun_path);
    free (path);
    return -1;
  }
  strcpy (addr.sun_path, path);
  remove_stale (&addr);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd == -1 ||
      bind (fd, (struct sockaddr *) &addr, sizeof addr) == -1 ||
      listen (fd, BACKLOG) == -1) {
    zone_error (err, errno, "%s: %s", path, strerror (errno));
    if (fd != -1)
      close (fd);
    free (path);
    return -1;
  }
  l->unix_path = path;
  l->fds[l->n++] = fd;
  return make_uri (l, o, NULL);
}

static int
listen_tcp (struct listener *l, const struct options *o,
            struct zone_error *err)
{
  struct addrinfo hints = {
    .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM,
  };
  const char *port = o->port ? o->port : "10809";
  struct addrinfo *list, *a;
  int r, fd, e = 0;
  const int on = 1;
  char name[NI_MAXSERV], host[NI_MAXHOST];
  struct sockaddr_storage bound;
  socklen_t size = sizeof bound;

  r = getaddrinfo (o->address, port, &hints, &list);
  if (r)
    return zone_error (err, EINVAL, "%s port %s: %s",
                       o->address ? o->address : "*", port,
                       r == EAI_SYSTEM ? strerror (errno) : gai_strerror (r));
  for (a = list; a && l->n < LISTEN_MAX; a = a->ai_next) {
    fd = socket (a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                 a->ai_protocol);
    if (fd == -1) {
      e = errno;
      continue;
    }
    setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6)
      setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind (fd, a->ai_addr, a->ai_addrlen) == -1 ||
        listen (fd, BACKLOG) == -1) {
      e = errno;
      close (fd);
      if (e == EADDRINUSE)
        break;
      continue;
    }
    l->fds[l->n++] = fd;
  }
  freeaddrinfo (list);
  if (l->n == 0 || e == EADDRINUSE)
    return zone_error (err, e, "%s port %s: %s",
                       o->address ? o->address : "*", port, strerror (e));
  if (getsockname (l->fds[0], (struct sockaddr *) &bound, &size) == -1 ||
      getnameinfo ((struct sockaddr *) &bound, size, host, sizeof host, name,
                   sizeof name, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return zone_error (err, EINVAL, "the socket has no address");
  l->port = strdup (name);
  return l->port ? make_uri (l, o, o->address ? host : "localhost") : -1;
}

int
listener_open (struct listener *l, const struct options *o,
               struct zone_error *err)
{
  int r;

  memset (l, 0, sizeof *l);
  zone_error (err, ENOMEM, "no memory");
  r = activated (l, err);
  if (r < 0)
    return -1;
  if (r > 0) {
    if (o->unix_path || o->port || o->address || o->run)
      return zone_error (err, EINVAL, "with socket activation there is no "
                         "--unix, --port, --ipaddr or --run");
    return 0;
  }
  return o->unix_path ? listen_unix (l, o, err) : listen_tcp (l, o, err);
}

int
listener_accept (int fd)
{
  const int on = 1;
  int r = accept4 (fd, NULL, NULL, SOCK_CLOEXEC);

  if (r == -1) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
        errno == ENOMEM) {
      log_error ("cannot accept a connection: %s", strerror (errno));
      usleep (100000);          /* it stays ready: not a busy loop */
    }
    return -1;
  }
  /* Not TCP: nobody minds. */
  setsockopt (r, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt (r, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  return r;
}

void
listener_close (struct listener *l)
{
  unsigned i;

  for (i = 0; i < l->n; i++)
    close (l->fds[i]);
  if (l->unix_path)
    unlink (l->unix_path);
  if (l->folder)
    rmdir (l->folder);
  free (l->unix_path);
  free (l->folder);
  free (l->port);
  free (l->uri);
  memset (l, 0, sizeof *l);
}
