/* SPDX-License-Identifier: BSD-3-Clause */
/* znbd detach: ends a device of znbd attach.  The process that serves it does
 * it; where that was killed, there is only the device to remove.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attach.h"
#include "cli.h"

static const char help[] =
  "znbd detach DEVICE...\n"
  "znbd detach --all\n"
  "\n"
  "Makes what was written durable and ends devices of znbd attach, as in\n"
  "/dev/ublkb0.  Refused while a device is mounted or otherwise in use.\n"
  "\n"
  "  --all   all that znbd list shows\n"
  "  --help\n";

enum { OPT_ALL = 256 };

static const struct option options[] = {
  { "all", no_argument, NULL, OPT_ALL },
  CLI_HELP_OPTION,
  { NULL, 0, NULL, 0 }
};

static bool
is_in_use (const char *path)
{
  const int fd = open (path, O_RDONLY | O_EXCL | O_CLOEXEC);

  if (fd == -1)
    return errno == EBUSY;
  close (fd);
  return false;
}

/* Of a device whose process was killed. */
static int
remove_dead (int id)
{
  struct ublk_dev_info info;
  struct zone_error err;
  struct control c;
  int r = 0;

  if (control_open (&c, &err) == -1) {
    cli_error ("%s", err.text);
    return -1;
  }
  if (control_info (&c, id, &info) == 0) {
    r = control_stop (&c, id);
    if (r >= 0)
      r = control_delete (&c, id);
  }
  control_close (&c);
  if (r < 0) {
    cli_error ("/dev/ublkb%d: %s", id, strerror (-r));
    return -1;
  }
  state_forget (id);
  return 0;
}

static bool
is_alive (int id)
{
  bool alive;
  struct state *s = state_look (id, &alive);

  if (s == NULL)
    return false;
  state_unlook (s);
  return alive;
}

/* Asks the process and waits. */
static int
ask (int id, struct state *s)
{
  atomic_store (&s->detaching, DETACH_NONE);
  if (kill (s->pid, SIGTERM) == -1 && errno != ESRCH) {
    cli_error ("/dev/ublkb%d: process %u: %s", id, s->pid, strerror (errno));
    return -1;
  }
  while (is_alive (id)) {
    if (atomic_load (&s->detaching) == DETACH_BUSY) {
      cli_error ("/dev/ublkb%d is in use (mounted?)", id);
      return -1;
    }
    usleep (20000);
  }
  if (atomic_load (&s->detaching) == DETACH_LOST) {
    cli_error ("/dev/ublkb%d is detached, but what was written last could "
               "not be made durable", id);
    return -1;
  }
  return 0;
}

static int
detach (int id)
{
  char path[32];
  struct state *s;
  bool alive;
  int r;

  snprintf (path, sizeof path, "/dev/ublkb%d", id);
  s = state_look (id, &alive);
  if (s == NULL) {
    cli_error ("%s is no device of znbd attach (znbd list shows them)",
               path);
    return -1;
  }
  if (is_in_use (path)) {
    cli_error ("%s is in use (mounted?)", path);
    r = -1;
  }
  else if (alive)
    r = ask (id, s);
  else
    r = remove_dead (id);
  state_unlook (s);
  return r;
}

static int
detach_all (void)
{
  struct zone_error err;
  int *ids, n = state_list (&ids, &err), i, r = 0;

  if (n == -1) {
    cli_error ("%s", err.text);
    return -1;
  }
  for (i = 0; i < n; i++)
    if (detach (ids[i]) == -1)
      r = -1;
  free (ids);
  return r;
}

int
cmd_detach (int argc, char **argv)
{
  bool all = false;
  int c, id, r = 0;
  char end;

  while ((c = cli_option (argc, argv, options, help)) != -1) {
    if (c == CLI_HELP)
      return EXIT_SUCCESS;
    if (c == CLI_BAD)
      return EXIT_FAILURE;
    all = true;
  }
  if (all && optind < argc) {
    cli_error ("--all and a device");
    return EXIT_FAILURE;
  }
  if (all)
    return detach_all () == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  if (optind >= argc) {
    cli_error ("DEVICE is missing");
    return EXIT_FAILURE;
  }
  for (; optind < argc; optind++)
    if (sscanf (argv[optind], "/dev/ublkb%d%c", &id, &end) != 1 || id < 0) {
      cli_error ("%s is no device of znbd attach: give /dev/ublkbN",
                 argv[optind][0] ? argv[optind] : "''");
      r = -1;
    }
    else if (detach (id) == -1)
      r = -1;
  return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
