# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The course of a file system on a disk of znbd attach, for attach-btrfs.sh and
# so on: it is made, filled, detached and attached again; and while it is
# filled once more, the server is killed, and then attach.  After all that its
# files are what was written.
#
#     disk --size 1G --zone-size 16M            # znbd create's
#     make_fs () { mkfs.btrfs -q "$dev"; }
#     check_fs () { btrfs check "$dev"; }
#     course btrfs

. "$srcdir/vm/functions.sh"

uri="nbd+unix:///?socket=$tmp/sock"
server=''

# disk OPTION...: an image, served
disk ()
{
  load_module ublk_drv
  ok "an image" znbd create "$@" "$tmp/disk.zbd"
  serve
  cleanup_fn end_server
}

# serve: again where it was
serve ()
{
  rm -f "$tmp/pid"
  znbd-server -f -U "$tmp/sock" -P "$tmp/pid" "$tmp/disk.zbd" \
              >>"$tmp/server.log" 2>&1 &
  server=$!
  wait_for test -s "$tmp/pid" ||
    give_up "znbd-server serves the image" "$(cat "$tmp/server.log")"
}

end_server ()
{
  kill "$server" 2>/dev/null
  wait "$server" 2>/dev/null
}

kill_server ()
{
  kill -KILL "$server"
  wait "$server" 2>/dev/null
}

# fill FOLDER: files under load, for some seconds
fill ()
{
  make_files "$1" 2 &&
    for i in 1 2 3 4 5 6 7 8; do
      head -c 1M /dev/urandom >"$1/a/large.$i" &&
        sync "$1/a/large.$i" || return 1
      sleep 0.2
    done &&
    (cd "$1" && find a -type f -print0 | sort -z | xargs -0 md5sum >sums)
}

# amid_kills COMMAND...: runs it in the background, kills the server and
# starts it again, then attach, while it goes on
amid_kills ()
{
  local pid status=0
  "$@" >"$tmp/amid.log" 2>&1 &
  pid=$!
  sleep 0.6
  kill_server
  sleep 0.4
  serve
  sleep 0.6
  kill -KILL "$(attach_pid)"
  is "$(znbd list | grep -c dead)" 1 "server and attach were killed"
  ok "it was under way" kill -0 "$pid"
  ok "attached under its feet" znbd attach "$uri"
  wait "$pid" || status=$?
  is "$status" 0 "$* has noticed nothing"
  [ "$status" -eq 0 ] || diag "$(cat "$tmp/amid.log")" "$(dmesg | tail -n 5)"
}

course ()
{
  local fs=$1 mnt=$tmp/mnt
  attach
  run make_fs
  is "$status" 0 "$fs: made"
  [ "$status" -eq 0 ] || { diag "$out"; exit 1; }
  mount_at "$fs: mounted" "$dev" "$mnt"
  mkdir "$mnt/first" "$mnt/second"
  ok "$fs: files" make_files "$mnt/first" 3
  ok "$fs: unmounted" umount "$mnt"
  zones_are_the_same "$fs: the kernel's zones are the server's"
  detach

  attach
  mount_at "$fs: attached and mounted again" "$dev" "$mnt"
  ok "$fs: the files are whole" files_are_whole "$mnt/first"

  amid_kills fill "$mnt/second"
  ok "$fs: synced" sync -f "$mnt"
  ok "$fs: unmounted again" umount "$mnt"
  zones_are_the_same "$fs: the zones are the server's after that"
  run check_fs
  is "$status" 0 "$fs: it is sound"
  [ "$status" -eq 0 ] || diag "$out"
  detach
  end_server
  serve
  attach
  mount_at "$fs: mounted from a server that was started again" "$dev" "$mnt"
  ok "$fs: the first files" files_are_whole "$mnt/first"
  ok "$fs: those that were written meanwhile" files_are_whole "$mnt/second"
  ok "$fs: unmounted at last" umount "$mnt"
  detach
}
