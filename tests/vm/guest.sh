# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The guest's first process, after init.c: what a login on a machine finds
# set up, then the command.  tests/vm/run's script of the run sources this,
# with $here (the caller's folder), $job (the command, quoted for bash) and
# $modules (the folder with the kernel's modules) set.  Standard output is
# the console until the command's own begins.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM=dumb LANG=C.UTF-8 ZNBD_VM_GUEST=1

# mount_at ...: mount's arguments; the folder is made
mount_at ()
{
  mkdir -p "${@: -1}"
  mount "$@"
}

mount_at -t tmpfs -o mode=755 run /run
mount_at -t tmpfs -o mode=1777 shm /dev/shm
mount_at -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount_at -t cgroup2 none /sys/fs/cgroup
mount -t debugfs none /sys/kernel/debug
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mkdir -p /run/lock /run/vm "/lib/modules/${modules##*/}"
mount --bind "$modules" "/lib/modules/${modules##*/}"
modprobe configfs
mount -t configfs none /sys/kernel/config

# A /tmp of its own, in which paths to what the host's held lead on.
mount --bind /tmp /run/vm
mount -t tmpfs -o mode=1777 tmp /tmp
shopt -s nullglob dotglob
entries=(/run/vm/*)
shopt -u nullglob dotglob
if [ ${#entries[@]} -gt 0 ]; then
  printf '%s\0' "${entries[@]}" | xargs -0 ln -s -t /tmp --
fi
unset entries

echo znbd-vm >/proc/sys/kernel/hostname
echo 1 >/proc/sys/kernel/sysrq
for port in /sys/class/virtio-ports/*; do
  case $(<"$port/name") in
    out) out=/dev/${port##*/} ;;
    status) status_port=/dev/${port##*/} ;;
  esac
done

# The pipe is there so that the port is closed, and with it all that was
# written on its way, before the status is sent; a daemon that the command
# left behind may hold the pipe, so there is an end to waiting.
mkfifo /run/vm.out
echo begun >"$status_port"
cat /run/vm.out >"$out" &
copier=$!
cd "$here" 2>/dev/null || cd /
status=0
(
  exec >/run/vm.out 2>&1 </dev/null
  unset here modules port out status_port copier
  eval "exec $job"
) || status=$?
for ((i = 0; i < 30; i++)); do
  kill -0 "$copier" 2>/dev/null || break
  sleep 0.1
done
echo "$status" >"$status_port"
echo b >/proc/sysrq-trigger
sleep 60
