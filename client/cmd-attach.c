/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd attach: a disk behind a URI as a block device of this machine.  The
 * process that serves it goes into the background when the device is there;
 * it is made before anything else, for threads do not survive a fork.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "attach.h"
#include "cli.h"
#include "target.h"

#define QUEUES 1
#define DEPTH 64
#define CONNECTIONS 2

static const char help[] =
  "znbd attach [OPTION]... URI\n"
  "\n"
  "Makes the disk that is served at URI a block device of this machine, with "
  "its\n"
  "zones, and prints the device's name.  Started again after it was killed, "
  "it\n"
  "takes its device over.\n"
  "\n"
  "  --id N           number of the device, /dev/ublkbN (any that is free)\n"
  "  --read-only\n"
  "  --queues N       of the kernel's block layer (1)\n"
  "  --depth N        requests of a queue in flight (64)\n"
  "  --connections N  for data, where the server allows several (2)\n"
  "  --timeout SECONDS\n"
  "                   requests fail that wait longer for a server that is "
  "gone\n"
  "                   (0: they wait for ever)\n"
  "  --foreground     stay, with messages on standard error\n"
  "  --help\n";

enum { OPT_ID = 256, OPT_READ_ONLY, OPT_QUEUES, OPT_DEPTH, OPT_CONNECTIONS,
       OPT_TIMEOUT, OPT_FOREGROUND };

static const struct option options[] = {
  { "id", required_argument, NULL, OPT_ID },
  { "read-only", no_argument, NULL, OPT_READ_ONLY },
  { "queues", required_argument, NULL, OPT_QUEUES },
  { "depth", required_argument, NULL, OPT_DEPTH },
  { "connections", required_argument, NULL, OPT_CONNECTIONS },
  { "timeout", required_argument, NULL, OPT_TIMEOUT },
  { "foreground", no_argument, NULL, OPT_FOREGROUND },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

static int ready_fd = -1;       /* to the parent */

static void
log_line (const char *line)
{
  cli_error ("%s", line);
}

static void
log_syslog (const char *line)
{
  syslog (LOG_ERR, "%s", line);
}

static void (*log_to) (const char *line) = log_line;

static void
log_anywhere (const char *line)
{
  log_to (line);
}

static void
ready_foreground (const char *name)
{
  printf ("%s\n", name);
  fflush (stdout);
}

static void
ready_background (const char *name)
{
  const int fd = open ("/dev/null", O_RDWR | O_CLOEXEC);

  openlog ("znbd attach", LOG_PID | LOG_NDELAY, LOG_DAEMON);
  log_to = log_syslog;
  if (fd != -1) {
    dup2 (fd, STDIN_FILENO);
    dup2 (fd, STDOUT_FILENO);
    dup2 (fd, STDERR_FILENO);
    close (fd);
  }
  if (dprintf (ready_fd, "%s\n", name) < 0)
    log_to ("nobody waits for the device");
  close (ready_fd);
}

/* The child goes on; the parent returns the exit status. */
static int
in_background (const struct attach_options *o)
{
  char name[64];
  size_t n = 0;
  ssize_t r;
  int pipes[2];
  pid_t pid;

  if (pipe2 (pipes, O_CLOEXEC) == -1 || (pid = fork ()) == -1) {
    cli_error ("cannot go into the background: %s", strerror (errno));
    return EXIT_FAILURE;
  }
  if (pid == 0) {
    close (pipes[0]);
    ready_fd = pipes[1];
    setsid ();
    return attach_run (o, log_anywhere, ready_background);
  }
  close (pipes[1]);
  while (n < sizeof name &&
         ((r = read (pipes[0], name + n, sizeof name - n)) > 0 ||
          (r == -1 && errno == EINTR)))
    n += r > 0 ? r : 0;
  if (n == 0)
    return EXIT_FAILURE;        /* it has said why */
  return cli_write (name, n) == -1 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* A number between bounds. */
static int
bounded (const char *option, const char *arg, unsigned min, unsigned max,
         unsigned *n)
{
  uint64_t number;

  if (cli_number (option, arg, &number) == -1)
    return -1;
  if (number < min || number > max) {
    cli_error ("%s %s: it must be %u to %u", option, arg, min, max);
    return -1;
  }
  *n = number;
  return 0;
}

int
cmd_attach (int argc, char **argv)
{
  struct attach_options o = {
    .id = -1, .queues = QUEUES, .depth = DEPTH, .connections = CONNECTIONS,
  };
  bool foreground = false;
  unsigned id;
  int c, r = 0;

  while (r == 0 && (c = cli_option (argc, argv, options, help)) != -1)
    switch (c) {
    case OPT_ID:
      r = bounded ("--id", optarg, 0, (1u << 20) - 1, &id);
      o.id = id;
      break;
    case OPT_READ_ONLY:
      o.readonly = true;
      break;
    case OPT_QUEUES:
      r = bounded ("--queues", optarg, 1, 64, &o.queues);
      break;
    case OPT_DEPTH:
      r = bounded ("--depth", optarg, 1, 1024, &o.depth);
      break;
    case OPT_CONNECTIONS:
      r = bounded ("--connections", optarg, 1, ATTACH_CONNECTIONS_MAX,
                   &o.connections);
      break;
    case OPT_TIMEOUT:
      r = bounded ("--timeout", optarg, 0, 1000000, &o.limit);
      break;
    case OPT_FOREGROUND:
      foreground = true;
      break;
    case CLI_HELP:
      return EXIT_SUCCESS;
    default:
      return EXIT_FAILURE;
    }
  if (r == -1)
    return EXIT_FAILURE;
  o.uri = cli_operand (argc, argv, "URI");
  if (o.uri == NULL)
    return EXIT_FAILURE;
  if (!target_is_uri (o.uri)) {
    cli_error ("%s is no NBD URI: serve an image or a drive with znbd-server "
               "or nbdkit, and give its URI", o.uri);
    return EXIT_FAILURE;
  }
  return foreground ? attach_run (&o, log_anywhere, ready_foreground)
    : in_background (&o);
}
