/* SPDX-License-Identifier: BSD-3-Clause */
/* Servers for cmocka programs: nbdkit or znbd-server as a child, on a Unix
 * socket in a folder of its own.  The program is the first argument:
 *
 *     START_SERVER (&s, "znbd-server", "memory:1M,zone-size=64k");
 *     nbd_connect_uri (nbd, s.uri);
 *     stop (&s);
 *
 * To be included once, behind <cmocka.h>.
 */

#ifndef TESTS_SERVE_H
#define TESTS_SERVE_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct server {
  pid_t pid;
  char dir[64];
  char uri[160], table_uri[160];
};

static void
make_dir (struct server *s)
{
  strcpy (s->dir, "/tmp/znbd-unit.XXXXXX");
  assert_non_null (mkdtemp (s->dir));
}

static void
start_server (struct server *s, const char *const args[])
{
  char sock[96], pidfile[96];
  const char *argv[32] = { args[0], "-f", "--exit-with-parent", "-t", "8",
                           "-U", sock, "-P", pidfile };
  size_t n = 9;
  int i;

  for (i = 1; args[i]; ++i)
    argv[n++] = args[i];
  argv[n] = NULL;

  snprintf (sock, sizeof sock, "%s/sock", s->dir);
  snprintf (pidfile, sizeof pidfile, "%s/pid", s->dir);
  snprintf (s->uri, sizeof s->uri, "nbd+unix:///?socket=%s", sock);
  snprintf (s->table_uri, sizeof s->table_uri,
            "nbd+unix:///zones?socket=%s", sock);

  s->pid = fork ();
  assert_true (s->pid >= 0);
  if (s->pid == 0) {
    /* nbdkit forgets the memory of a connection whose client went just
     * before it was told to end.  Leaks are other tests' business. */
    setenv ("LSAN_OPTIONS", "detect_leaks=0", 1);

    /* Refusals are what is tested: the server need not shout about them. */
    if (!freopen ("/dev/null", "w", stderr) ||
        !freopen ("/dev/null", "w", stdout))
      _exit (126);
    execvp (argv[0], (char **) argv);
    _exit (127);
  }
  for (i = 0; i < 2000 && access (pidfile, F_OK) == -1; ++i) {
    assert_int_equal (waitpid (s->pid, NULL, WNOHANG), 0);
    usleep (5000);
  }
  assert_int_equal (access (pidfile, F_OK), 0);
}

static void
remove_dir (struct server *s)
{
  char path[96];

  snprintf (path, sizeof path, "%s/pid", s->dir);
  unlink (path);
  snprintf (path, sizeof path, "%s/sock", s->dir);
  unlink (path);
  snprintf (path, sizeof path, "%s/table", s->dir);
  unlink (path);
  rmdir (s->dir);
}

static void
stop (struct server *s)
{
  int status;

  kill (s->pid, SIGTERM);
  waitpid (s->pid, &status, 0);
  remove_dir (s);
  assert_int_equal (status, 0);
}

#define START_SERVER(s, ...) do {                                       \
    make_dir (s);                                                       \
    start_server (s, (const char *const[]) { __VA_ARGS__, NULL });      \
  } while (0)

#endif /* TESTS_SERVE_H */
