/* SPDX-License-Identifier: BSD-3-Clause */
/* What the virtual machine's kernel starts, from its initramfs: loads the
 * modules beside it, makes of the host's file tree (9p, read-only) and of
 * memory the guest's root, and hands over to bash with the script that
 * tests/vm/run wrote for this run; its folder is in the kernel's parameter
 * znbd_run, which the kernel puts into our environment.
 *
 * It is linked statically, so that the initramfs holds nothing but it and
 * the modules.  If anything fails it says so on the console and restarts
 * the machine, upon which the emulator ends.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void
restart (void)
{
  sleep (1);                    /* the console is slow */
  reboot (RB_AUTOBOOT);
  _exit (1);
}

static void
die (const char *what)
{
  fprintf (stderr, "init: %s: %s\n", what, strerror (errno));
  restart ();
}

static void
mount_at (const char *source, const char *target, const char *type,
          unsigned long flags, const char *options)
{
  mkdir (target, 0755);
  if (mount (source, target, type, flags, options) == -1)
    die (target);
}

/* They are numbered in the order in which they depend on each other. */
static void
load_modules (void)
{
  struct dirent **entries;
  int n = scandir ("/m", &entries, NULL, alphasort);
  char path[300];

  for (int i = 0; i < n; i++) {
    int fd;

    if (entries[i]->d_name[0] == '.')
      continue;
    snprintf (path, sizeof path, "/m/%s", entries[i]->d_name);
    fd = open (path, O_RDONLY | O_CLOEXEC);
    if (fd == -1 ||
        (syscall (SYS_finit_module, fd, "", 0) == -1 && errno != EEXIST))
      die (path);
    close (fd);
  }
}

static void
make_root (void)
{
  mount_at ("tmpfs", "/ov", "tmpfs", 0, "mode=755,size=90%,nr_inodes=0");
  mkdir ("/ov/up", 0755);
  mkdir ("/ov/work", 0755);
  mount_at ("root", "/ov/lower", "9p", MS_RDONLY,
            "trans=virtio,version=9p2000.L,cache=loose,msize=512000");
  mount_at ("overlay", "/ov/root", "overlay", 0,
            "lowerdir=/ov/lower,upperdir=/ov/up,workdir=/ov/work");
  mount_at ("/dev", "/ov/root/dev", NULL, MS_MOVE, NULL);
  mount_at ("/proc", "/ov/root/proc", NULL, MS_MOVE, NULL);
  mount_at ("/sys", "/ov/root/sys", NULL, MS_MOVE, NULL);
  if (chdir ("/ov/root") == -1 || mount (".", "/", NULL, MS_MOVE, NULL) == -1
      || chroot (".") == -1 || chdir ("/") == -1)
    die ("the new root");
}

static void
loopback_up (void)
{
  struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
  int fd = socket (AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

  if (fd == -1 || ioctl (fd, SIOCSIFFLAGS, &r) == -1)
    die ("lo");
  close (fd);
}

int
main (void)
{
  const char *run = getenv ("znbd_run");
  char script[4200];
  int fd;

  mount_at ("dev", "/dev", "devtmpfs", 0, NULL);
  mount_at ("proc", "/proc", "proc", 0, NULL);
  mount_at ("sys", "/sys", "sysfs", 0, NULL);
  fd = open ("/dev/console", O_RDWR);
  if (fd >= 0) {
    dup2 (fd, 0);
    dup2 (fd, 1);
    dup2 (fd, 2);
    if (fd > 2)
      close (fd);
  }

  /* Without a run it is only tried whether the machine starts. */
  if (!run) {
    puts ("init: started");
    restart ();
  }

  load_modules ();
  make_root ();
  loopback_up ();
  snprintf (script, sizeof script, "%s/start", run);
  execl ("/bin/bash", "bash", script, (char *) NULL);
  die (script);
}
