/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd-server: opens a disk, listens, and hands connections to the loops,
 * until a signal or the end of --run's command.
 *
 * The order matters: everything that may fail for a reason that a user can
 * mend comes before going into the background; threads come after all
 * forks.
 */

#include <config.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "background.h"
#include "debug.h"
#include "budget.h"
#include "exports.h"
#include "listen.h"
#include "log.h"
#include "loop.h"
#include "memory.h"
#include "nbd-store.h"
#include "open.h"
#include "options.h"
#include "tls.h"

/* What may not be written is served read-only. */
static struct store *
open_image (const struct options *o, struct zone_error *err)
{
  struct store *store = store_open (o->image, o->readonly ? STORE_READ_ONLY
                                    : STORE_WRITABLE_OR_NOT, err);

  if (store && store->readonly && !o->readonly)
    log_verbose ("%s; opened read-only", err->text);
  return store;
}

static struct store *
open_upstream (const struct options *o, struct zone_error *err)
{
  const struct nbd_store_options options = {
    .uri = o->uri, .command = o->command, .reconnect = o->reconnect,
    .log = log_line,
  };

  return nbd_store_open (&options, o->readonly, err);
}

static struct zdisk *
open_disk (const struct options *o, struct zone_error *err)
{
  struct store *store = o->image ? open_image (o, err)
    : o->uri || o->command ? open_upstream (o, err)
    : memory_new (&o->geometry, err);

  return store ? zdisk_new (store, &o->disk, err) : NULL;
}

/* As many descriptors as there may be connections. */
static void
raise_limits (void)
{
  struct rlimit limit;

  if (getrlimit (RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit (RLIMIT_NOFILE, &limit);
  }
}

static pid_t
start_command (const struct options *o, const struct listener *l,
               const sigset_t *mask, struct zone_error *err)
{
  pid_t pid = fork ();

  if (pid == -1)
    return zone_error (err, errno, "fork: %s", strerror (errno));
  if (pid > 0)
    return pid;
  sigprocmask (SIG_SETMASK, mask, NULL);
  signal (SIGPIPE, SIG_DFL);    /* ours is ignored, and that is inherited */
  setenv ("uri", l->uri, 1);
  setenv ("unixsocket", l->unix_path ? l->unix_path : "", 1);
  if (o->tls != TLS_OFF)
    setenv ("tls", o->tls == TLS_REQUIRE ? "2" : "1", 1);
  else
    unsetenv ("tls");
  setenv ("port", l->port ? l->port : "", 1);
  execl ("/bin/sh", "sh", "-c", o->run, (char *) NULL);
  log_error ("/bin/sh: %s", strerror (errno));
  _exit (127);
}

/* The status of the command, as a shell has it; -1 while it runs. */
static int
command_status (pid_t pid)
{
  int status;

  if (pid <= 0 || waitpid (pid, &status, WNOHANG) != pid)
    return -1;
  return WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
}

/* Accepts until it is to end; returns the exit status. */
static int
serve (const struct listener *l, int signals, pid_t command)
{
  struct pollfd fds[LISTEN_MAX + 1];
  struct signalfd_siginfo info;
  unsigned i;
  int fd, status;

  for (i = 0; i < l->n; i++)
    fds[i] = (struct pollfd) { .fd = l->fds[i], .events = POLLIN };
  fds[l->n] = (struct pollfd) { .fd = signals, .events = POLLIN };
  for (;;) {
    if (poll (fds, l->n + 1, -1) == -1) {
      if (errno == EINTR)
        continue;
      log_error ("poll: %s", strerror (errno));
      return 1;
    }
    for (i = 0; i < l->n; i++)
      if (fds[i].revents) {
        fd = listener_accept (l->fds[i]);
        if (fd != -1)
          loops_hand_out (fd);
      }
    if (fds[l->n].revents && read (signals, &info, sizeof info) > 0) {
      if (info.ssi_signo != SIGCHLD) {
        log_verbose ("%s: the server stops", strsignal (info.ssi_signo));
        notify ("STOPPING=1");
        if (command > 0)
          kill (command, SIGTERM);
        return 0;
      }
      status = command_status (command);
      if (status != -1)
        return status;
    }
  }
}

/* Ends with the parent, whoever that was.  A change of user undoes it, so
 * it comes after. */
static int
follow_parent (pid_t parent, struct zone_error *err)
{
  prctl (PR_SET_PDEATHSIG, SIGTERM);
  if (getppid () != parent)
    return zone_error (err, ESRCH, "--exit-with-parent: the parent ended");
  return 0;
}

/* From here on nobody waits, and nothing needs root any more. */
static int
say_ready (const struct options *o, int pidfile, bool background,
           struct zone_error *err)
{
  if (pidfile != -1 && pidfile_write (pidfile, o->pidfile, err) == -1)
    return -1;
  if (background)
    log_to (o->log == LOG_DEFAULT ? LOG_TO_SYSLOG : o->log);
  background_ready ();
  notify ("READY=1");
  return 0;
}

static int
start (const struct options *o, struct listener *l, struct zdisk *disk,
       pid_t parent, struct zone_error *err)
{
  int signals, pidfile = -1, status;
  pid_t command = 0;
  bool managed = notify_begin (), background;
  sigset_t mask, old;

  if (tls_load (o, err) == -1)
    return -1;
  if (exports_init (disk, o->name, o->readonly) == -1)
    return zone_error (err, ENOMEM, "no memory for the exports");
  if (listener_open (l, o, err) == -1)
    return -1;
  if (o->pidfile && (pidfile = pidfile_open (o->pidfile, err)) == -1)
    return -1;

  sigemptyset (&mask);
  sigaddset (&mask, SIGTERM);
  sigaddset (&mask, SIGINT);
  sigaddset (&mask, SIGHUP);
  sigaddset (&mask, SIGCHLD);
  sigprocmask (SIG_BLOCK, &mask, &old);
  signal (SIGPIPE, SIG_IGN);
  signal (SIGXFSZ, SIG_IGN);    /* a file too large is an error of its write */
  background = !o->foreground && !o->run && !l->activated &&
    !o->exit_with_parent && !managed;
  if (background && background_enter (err) == -1)
    return -1;
  if (listener_give (l, &o->identity, err) == -1 ||
      identity_take (&o->identity, err) == -1)
    return -1;
  if (o->exit_with_parent && follow_parent (parent, err) == -1)
    return -1;
  signals = signalfd (-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals == -1)
    return zone_error (err, errno, "signalfd: %s", strerror (errno));
  if (o->run && (command = start_command (o, l, &old, err)) == -1)
    return -1;
  budget_set (o->request_memory);
  if (zdisk_start (disk, err) == -1 ||
      loops_start (disk, o->threads, err) == -1)
    return -1;
  status = say_ready (o, pidfile, background, err);
  if (status == 0)
    status = serve (l, signals, command);
  else if (command > 0)
    kill (command, SIGTERM);
  close (signals);
  listener_close (l);
  zdisk_hurry (disk);
  loops_stop ();
  return status;
}

int
main (int argc, char *argv[])
{
  struct zone_error err, closing;
  struct options options;
  struct listener listener = { .n = 0 };
  pid_t parent = getppid ();    /* before what may take long */
  struct zdisk *disk;
  int status;

  options_parse (argc, argv, &options);
  log_to (options.log);
  debug_output = log_debug;
  options.disk.log = log_line;
  raise_limits ();
  disk = open_disk (&options, &err);
  free (options.command);
  if (disk == NULL) {
    log_error ("%s", err.text);
    return 1;
  }
  status = start (&options, &listener, disk, parent, &err);
  if (status == -1) {
    log_error ("%s", err.text);
    listener_close (&listener);
    status = 1;
  }
  /* Threads of the disk's may still be about to wake a loop that has taken
   * what they posted: they end first. */
  if (zdisk_close (disk, &closing) == -1) {
    log_error ("%s", closing.text);
    status = 1;
  }
  loops_free ();
  exports_free ();
  tls_unload ();
  return status;
}
