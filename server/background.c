/* SPDX-License-Identifier: BSD-3-Clause */
/* See background.h. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "background.h"
#include "log.h"

/* The parent reads the other end; -1 in the foreground. */
static int ready_fd = -1;

/* NOTIFY_SOCKET's, and its length; 0: there is none. */
static struct sockaddr_un notify_addr = { .sun_family = AF_UNIX };
static socklen_t notify_size;

int
background_enter (struct zone_error *err)
{
  int pipes[2];
  char byte;
  pid_t pid;

  if (pipe2 (pipes, O_CLOEXEC) == -1 || (pid = fork ()) == -1)
    return zone_error (err, errno, "cannot go into the background: %s",
                       strerror (errno));
  if (pid > 0) {
    close (pipes[1]);
    _exit (read (pipes[0], &byte, 1) == 1 ? 0 : 1);
  }
  close (pipes[0]);
  ready_fd = pipes[1];
  setsid ();
  if (chdir ("/") == -1)
    return zone_error (err, errno, "/: %s", strerror (errno));
  return 0;
}

void
background_ready (void)
{
  int fd;

  if (ready_fd == -1)
    return;
  fd = open ("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd != -1) {
    dup2 (fd, STDIN_FILENO);
    dup2 (fd, STDOUT_FILENO);
    if (!log_is_on_stderr ())
      dup2 (fd, STDERR_FILENO);
    close (fd);
  }
  /* A parent that is gone waits for nothing. */
  if (write (ready_fd, "", 1) == -1)
    log_verbose ("nobody waits for the server to be ready");
  close (ready_fd);
  ready_fd = -1;
}

/* Whether a file holds what a pid file does, or nothing. */
static bool
is_pidfile (int fd)
{
  struct stat st;
  char text[32];
  ssize_t n, i;

  if (fstat (fd, &st) == -1)
    return false;
  if (!S_ISREG (st.st_mode))
    return S_ISCHR (st.st_mode) || S_ISFIFO (st.st_mode);
  if (st.st_size > (off_t) sizeof text)
    return false;
  n = pread (fd, text, sizeof text, 0);
  for (i = 0; i < n && strchr ("0123456789\n", text[i]) && text[i]; i++)
    ;
  return i == n;
}

int
pidfile_open (const char *path, struct zone_error *err)
{
  int fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);

  if (fd == -1)
    return zone_error (err, errno, "--pidfile %s: %s", path,
                       strerror (errno));
  if (!is_pidfile (fd)) {
    close (fd);
    return zone_error (err, EEXIST, "--pidfile %s: there is a file that is "
                       "no pid file, and it is not overwritten", path);
  }
  return fd;
}

int
pidfile_write (int fd, const char *path, struct zone_error *err)
{
  int r = 0;

  if (ftruncate (fd, 0) == -1 && errno != EINVAL)
    r = errno;
  if (r == 0 && dprintf (fd, "%d\n", getpid ()) < 0)
    r = errno;
  if (close (fd) == -1 && r == 0)
    r = errno;
  return r == 0 ? 0
    : zone_error (err, r, "--pidfile %s: %s", path, strerror (r));
}

bool
notify_begin (void)
{
  const char *path = getenv ("NOTIFY_SOCKET");
  size_t n = path ? strlen (path) : 0;

  if (n == 0)
    return false;
  if ((*path != '/' && *path != '@') || n >= sizeof notify_addr.sun_path) {
    log_error ("NOTIFY_SOCKET %s is no socket that can be told", path);
    return false;
  }
  memcpy (notify_addr.sun_path, path, n);
  if (*path == '@')             /* of the abstract name space */
    notify_addr.sun_path[0] = '\0';
  notify_size = offsetof (struct sockaddr_un, sun_path) + n;
  unsetenv ("NOTIFY_SOCKET");
  return true;
}

void
notify (const char *state)
{
  int fd;

  if (notify_size == 0)
    return;
  fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd == -1 ||
      sendto (fd, state, strlen (state), MSG_NOSIGNAL,
              (struct sockaddr *) &notify_addr, notify_size) == -1)
    log_error ("cannot tell the service manager %s: %s", state,
               strerror (errno));
  if (fd != -1)
    close (fd);
}
