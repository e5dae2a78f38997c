/* SPDX-License-Identifier: BSD-3-Clause */
/* See listen.h. */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Wants what is above. */
#include <linux/vm_sockets.h>

#include "listen.h"
#include "log.h"
#include "tls.h"

#define BACKLOG SOMAXCONN
#define DEFAULT_PORT "10809"
#define FIRST_ACTIVATED 3

/* systemd's protocol: LISTEN_FDS sockets from 3 on, if LISTEN_PID is us.
 * Returns their number, or -1. */
static int
activated (struct listener *l, struct zone_error *err)
{
  const char *pid = getenv ("LISTEN_PID"), *fds = getenv ("LISTEN_FDS");
  int i, on;
  socklen_t size = sizeof on;
  long n;
  char *end;
  bool bad;

  if (pid == NULL || fds == NULL || strtol (pid, NULL, 10) != getpid ())
    return 0;
  n = strtol (fds, &end, 10);
  bad = !isdigit ((unsigned char) *fds) || *end || n < 1 || n > LISTEN_MAX;
  if (bad)
    zone_error (err, EINVAL, "LISTEN_FDS is \"%s\": from 1 to %d sockets can "
                "be taken over", fds, LISTEN_MAX);
  unsetenv ("LISTEN_PID");
  unsetenv ("LISTEN_FDS");
  unsetenv ("LISTEN_FDNAMES");
  if (bad)
    return -1;
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

/* Where clients have to use TLS: what they can do so with, which is no
 * secret but a file's name. */
static void
put_tls (FILE *f, char before)
{
  if (!tls_is_required ())
    return;
  fputc (before, f);
  fputs (tls_psk_file () ? "tls-psk-file=" : "tls-certificates=", f);
  put_escaped (f, tls_psk_file () ? tls_psk_file () : tls_certificates ());
}

static void
put_scheme (FILE *f, const char *transport)
{
  fprintf (f, "nbd%s%s://", tls_is_required () ? "s" : "", transport);
  if (tls_is_required () && tls_psk_user ()) {
    put_escaped (f, tls_psk_user ());
    fputc ('@', f);
  }
}

static int
make_uri (struct listener *l, const struct options *o, const char *host)
{
  size_t size;
  FILE *f = open_memstream (&l->uri, &size);

  if (f == NULL)
    return -1;
  if (l->unix_path) {
    put_scheme (f, "+unix");
    fputc ('/', f);
    put_escaped (f, o->name);
    fputs ("?socket=", f);
    put_escaped (f, l->unix_path);
    put_tls (f, '&');
  }
  else {
    put_scheme (f, l->vsock ? "+vsock" : "");
    fprintf (f, strchr (host, ':') ? "[%s]:%s" : "%s:%s", host, l->port);
    if (*o->name) {
      fputc ('/', f);
      put_escaped (f, o->name);
    }
    put_tls (f, '?');
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

/* A socket that nobody listens to any more is in the way only.  One whose
 * server takes no connections just now would have us wait. */
static void
remove_stale (const struct sockaddr_un *addr)
{
  struct stat st;
  int fd;

  if (lstat (addr->sun_path, &st) == -1 || !S_ISSOCK (st.st_mode))
    return;
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd == -1)
    return;
  if (connect (fd, (const struct sockaddr *) addr, sizeof *addr) == -1 &&
      errno == ECONNREFUSED)
    unlink (addr->sun_path);
  close (fd);
}

/* Several servers that find the same stale socket take turns: else one would
 * remove what another has just made in its place.  A folder that cannot be
 * locked, or that somebody else has locked for longer, is used all the same.
 * Returns a descriptor that holds the lock, or -1. */
#define FOLDER_TRIES 100
#define FOLDER_TRY_US 10000

static int
lock_folder (const char *path)
{
  char *copy = strdup (path), *slash = copy ? strrchr (copy, '/') : NULL;
  int fd = -1, i;

  if (slash) {
    slash[1] = '\0';
    fd = open (copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  free (copy);
  for (i = 0; fd != -1 && flock (fd, LOCK_EX | LOCK_NB) == -1; i++) {
    if (errno != EWOULDBLOCK || i == FOLDER_TRIES) {
      close (fd);
      return -1;
    }
    usleep (FOLDER_TRY_US);
  }
  return fd;
}

/* Binds and listens; returns the socket, or -1 with the error. */
static int
bind_unix (struct listener *l, const struct sockaddr_un *addr,
           struct zone_error *err)
{
  const char *path = addr->sun_path;
  struct stat st;
  int fd;

  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd != -1 &&
      bind (fd, (const struct sockaddr *) addr, sizeof *addr) == 0 &&
      listen (fd, BACKLOG) == 0 && lstat (path, &st) == 0) {
    l->unix_dev = st.st_dev;
    l->unix_ino = st.st_ino;
    return fd;
  }
  if (errno == EADDRINUSE && lstat (path, &st) == 0 && !S_ISSOCK (st.st_mode))
    zone_error (err, EADDRINUSE, "%s: there is a file that is no socket, and "
                "it is not replaced", path);
  else
    zone_error (err, errno, "%s: %s", path, strerror (errno));
  if (fd != -1)
    close (fd);
  return -1;
}

static int
listen_unix (struct listener *l, const struct options *o,
             struct zone_error *err)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  char folder[] = "/tmp/znbd-XXXXXX", *path = NULL;
  int fd, locked;

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
  locked = lock_folder (path);
  remove_stale (&addr);
  fd = bind_unix (l, &addr, err);
  if (locked != -1)
    close (locked);
  if (fd == -1) {
    free (path);
    return -1;
  }
  l->unix_path = path;
  l->fds[l->n++] = fd;
  return make_uri (l, o, NULL);
}

/* getaddrinfo takes a number that is too large, or has a space in front, for
 * another one.  A service's name has a letter in it. */
static int
check_port (const char *port, unsigned long max, struct zone_error *err)
{
  const char *p = port;

  while (*p && !isalpha ((unsigned char) *p))
    p++;
  if (*p == '\0' && (port[strspn (port, "0123456789")] ||
                     strlen (port) > 10 || strtoul (port, NULL, 10) > max))
    return zone_error (err, EINVAL, "--port %s is not a number from 0 to %lu",
                       port, max);
  return 0;
}

/* An address as a message has it, like "[::1] port 10809". */
static void
describe (const struct addrinfo *a, char *text, size_t size)
{
  char host[NI_MAXHOST], port[NI_MAXSERV];
  bool six = a->ai_family == AF_INET6;

  if (getnameinfo (a->ai_addr, a->ai_addrlen, host, sizeof host, port,
                   sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    strcpy (host, "?"), strcpy (port, "?");
  snprintf (text, size, "%s%s%s port %s", six ? "[" : "", host,
            six ? "]" : "", port);
}

/* Both IPv4 and IPv6 have the port at the same place. */
static void
set_port (struct addrinfo *a, in_port_t port)
{
  ((struct sockaddr_in *) (void *) a->ai_addr)->sin_port = port;
}

/* Listens on one address; returns 0 or an errno.  Where any port will do,
 * addresses that follow get the same one. */
static int
listen_address (struct listener *l, struct addrinfo *a)
{
  struct sockaddr_storage bound;
  socklen_t size = sizeof bound;
  const int on = 1;
  int fd, e;

  fd = socket (a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
               a->ai_protocol);
  if (fd == -1)
    return errno;
  setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (a->ai_family == AF_INET6)
    setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind (fd, a->ai_addr, a->ai_addrlen) == -1 ||
      listen (fd, BACKLOG) == -1 ||
      getsockname (fd, (struct sockaddr *) &bound, &size) == -1) {
    e = errno;
    close (fd);
    return e;
  }
  l->fds[l->n++] = fd;
  for (; a; a = a->ai_next)
    set_port (a, ((struct sockaddr_in *) (void *) &bound)->sin_port);
  return 0;
}

/* All addresses of the list, but those of a family that the machine does
 * not have.  Returns 0 or an errno, and which address in text. */
static int
listen_all (struct listener *l, struct addrinfo *list, char *text,
            size_t size)
{
  struct addrinfo *a;
  int e = EADDRNOTAVAIL;

  for (a = list; a && l->n < LISTEN_MAX; a = a->ai_next) {
    int r = listen_address (l, a);

    if (r == 0)
      continue;
    e = r;
    describe (a, text, size);
    if (e != EAFNOSUPPORT && e != EADDRNOTAVAIL)
      break;
    log_verbose ("%s: %s", text, strerror (e));
  }
  return l->n == 0 || a ? e : 0;
}

/* A port that is free for one address may be taken for the next. */
#define ANY_PORT_TRIES 20

static int
listen_tcp (struct listener *l, const struct options *o,
            struct zone_error *err)
{
  struct addrinfo hints = {
    .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM,
  };
  const char *port = o->port ? o->port : DEFAULT_PORT;
  char name[NI_MAXSERV], host[NI_MAXHOST], text[NI_MAXHOST + NI_MAXSERV + 16];
  bool any = port[strspn (port, "0")] == '\0';
  struct sockaddr_storage bound;
  socklen_t size = sizeof bound;
  struct addrinfo *list;
  int r, e, tries = 0;

  if (check_port (port, 65535, err) == -1)
    return -1;
  r = getaddrinfo (o->address, port, &hints, &list);
  if (r == EAI_SERVICE)
    return zone_error (err, EINVAL, "--port %s: there is no service of that "
                       "name", port);
  if (r)
    return zone_error (err, EINVAL, "%s port %s: %s",
                       o->address ? o->address : "*", port,
                       r == EAI_SYSTEM ? strerror (errno) : gai_strerror (r));
  while ((e = listen_all (l, list, text, sizeof text)) == EADDRINUSE && any &&
         ++tries < ANY_PORT_TRIES) {
    struct addrinfo *a;

    while (l->n > 0)
      close (l->fds[--l->n]);
    for (a = list; a; a = a->ai_next)
      set_port (a, 0);
  }
  freeaddrinfo (list);
  if (e)
    return zone_error (err, e, "%s: %s", text, strerror (e));
  if (getsockname (l->fds[0], (struct sockaddr *) &bound, &size) == -1 ||
      getnameinfo ((struct sockaddr *) &bound, size, host, sizeof host, name,
                   sizeof name, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return zone_error (err, EINVAL, "the socket has no address");
  l->port = strdup (name);
  return l->port ? make_uri (l, o, o->address ? host : "localhost") : -1;
}

/* Binds to a port, or to any for 0.  The kernel would take any of 32 bits,
 * and those with the highest one set are no ports in a URI to libxml2, by
 * which libnbd parses it.  Returns 0, or -1 with errno. */
static int
bind_vsock (int fd, struct sockaddr_vm *addr, uint32_t port)
{
  unsigned i;

  for (i = 0; i < 100; i++) {
    addr->svm_port = port;
    if (port == 0) {
      if (getrandom (&addr->svm_port, sizeof addr->svm_port, 0) == -1)
        return -1;
      addr->svm_port = IPPORT_USERRESERVED +
        addr->svm_port % (INT32_MAX - IPPORT_USERRESERVED);
    }
    if (bind (fd, (struct sockaddr *) addr, sizeof *addr) == 0)
      return 0;
    if (port != 0 || errno != EADDRINUSE)
      return -1;
  }
  return -1;
}

static int
listen_vsock (struct listener *l, const struct options *o,
              struct zone_error *err)
{
  const char *port = o->port ? o->port : DEFAULT_PORT;
  struct sockaddr_vm addr = {
    .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY,
  };
  int fd;

  if (port[strspn (port, "0123456789")])
    return zone_error (err, EINVAL, "--port %s: ports of --vsock have no "
                       "names", port);
  if (check_port (port, VMADDR_PORT_ANY - 1, err) == -1)
    return -1;
  fd = socket (AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd == -1 || bind_vsock (fd, &addr, strtoul (port, NULL, 10)) == -1 ||
      listen (fd, BACKLOG) == -1) {
    zone_error (err, errno, "--vsock port %s: %s%s", port, strerror (errno),
                fd == -1 ? ": load the kernel module vsock" : "");
    if (fd != -1)
      close (fd);
    return -1;
  }
  l->fds[l->n++] = fd;
  if (asprintf (&l->port, "%u", addr.svm_port) == -1)
    l->port = NULL;
  l->vsock = true;
  return l->port ? make_uri (l, o, "1") : -1;   /* VMADDR_CID_LOCAL */
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
    if (o->unix_path || o->port || o->address || o->vsock || o->run)
      return zone_error (err, EINVAL, "with socket activation there is no "
                         "--unix, --port, --ipaddr, --vsock or --run");
    return 0;
  }
  if (o->vsock)
    return listen_vsock (l, o, err);
  return o->unix_path ? listen_unix (l, o, err) : listen_tcp (l, o, err);
}

/* Not by its name alone, which may be somebody else's by now. */
static int
give (const char *path, mode_t type, const struct identity *id,
      struct zone_error *err)
{
  int fd = open (path, O_PATH | O_NOFOLLOW | O_CLOEXEC), e;
  struct stat st;

  if (fd == -1 || fstat (fd, &st) == -1)
    e = errno;
  else if ((st.st_mode & S_IFMT) != type)
    e = EEXIST;
  else
    e = fchownat (fd, "", id->uid, id->gid, AT_EMPTY_PATH) == -1 ? errno : 0;
  if (fd != -1)
    close (fd);
  return e == 0 ? 0
    : zone_error (err, e, "%s cannot be given to --%s %s: %s%s", path,
                  id->user ? "user" : "group",
                  id->user ? id->user : id->group, strerror (e),
                  e == EPERM ? ": start the server as root" : "");
}

int
listener_give (const struct listener *l, const struct identity *id,
               struct zone_error *err)
{
  if (!identity_changes (id) || l->unix_path == NULL)
    return 0;
  if (l->folder && give (l->folder, S_IFDIR, id, err) == -1)
    return -1;
  return give (l->unix_path, S_IFSOCK, id, err);
}

int
listener_accept (int fd)
{
  const int on = 1, unix_buffer = 256 << 10;
  int r = accept4 (fd, NULL, NULL, SOCK_CLOEXEC);

  if (r == -1) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
        errno == ENOMEM) {
      log_error ("cannot accept a connection: %s", strerror (errno));
      usleep (100000);          /* it stays ready: not a busy loop */
    }
    return -1;
  }
  /* TCP finds out by itself how much to have on its way; of a Unix socket a
   * large reply is to go in one piece, but not far ahead of its reader: what
   * is still in the processor's cache is taken sooner. */
  if (setsockopt (r, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == -1)
    setsockopt (r, SOL_SOCKET, SO_SNDBUF, &unix_buffer, sizeof unix_buffer);
  setsockopt (r, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  return r;
}

/* Somebody may have removed the socket, and another server made its own. */
static void
remove_socket (const struct listener *l)
{
  struct stat st;

  if (lstat (l->unix_path, &st) == 0 &&
      (st.st_dev != l->unix_dev || st.st_ino != l->unix_ino))
    log_verbose ("%s: is another server's by now", l->unix_path);
  /* After --user that may be refused, and the next server does it. */
  else if (unlink (l->unix_path) == -1)
    log_verbose ("%s: %s", l->unix_path, strerror (errno));
}

void
listener_close (struct listener *l)
{
  unsigned i;

  if (l->unix_path)
    remove_socket (l);
  for (i = 0; i < l->n; i++)
    close (l->fds[i]);
  if (l->folder)
    rmdir (l->folder);
  free (l->unix_path);
  free (l->folder);
  free (l->port);
  free (l->uri);
  memset (l, 0, sizeof *l);
}
