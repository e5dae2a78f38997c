# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The kernel's NBD client on znbd-server.  It knows nothing of zones, so it
# gets what an ordinary file system can use: a host-aware disk as a whole,
# and conventional zones in front of sequential ones.

. "$srcdir/vm/functions.sh"

# ---- what the kernel sees ------------------------------------------------

start_znbd_server size=128M zone-size=4M conventional=24
nbd_attach -b 4096
is "$(blockdev --getsize64 "$dev")" 134217728 "the size"
is "$(blockdev --getss "$dev")" 4096 "the logical block size"
is "$(blockdev --getro "$dev")" 0 "it may be written"
is "$(sysfs "$dev" queue/zoned)" none "to this client it has no zones"
isnt "$(sysfs "$dev" queue/discard_max_bytes)" 0 "it takes discards"
is "$(sysfs "$dev" queue/write_cache)" "write back" "it takes flushes"

# ---- ext4 in conventional zones -------------------------------------------

# The first 96 MiB are conventional.
ok "mkfs.ext4 in the conventional zones" \
   mkfs.ext4 -q -F -b 4096 "$dev" 96M
mount_at "it is mounted" "$dev" "$tmp/fs"
ok "files are made" make_files "$tmp/fs" 10
ok "fstrim" fstrim "$tmp/fs"
ok "it is unmounted" umount "$tmp/fs"
ok "e2fsck finds no fault" e2fsck -f -n "$dev"

# The sequential zones behind: in order, and only so.
ok "a sequential zone is written in order" \
   dd if=/dev/urandom of="$dev" bs=64k count=16 seek=96M \
   oflag=direct,seek_bytes conv=notrunc status=none
like "$(znbd report "$uri" --offset 96M --count 1)" 'wp +101711872' \
     "its pointer moved by as much"
not_ok "but not below its pointer" \
   dd if=/dev/urandom of="$dev" bs=64k count=1 seek=96M \
   oflag=direct,seek_bytes conv=notrunc status=none
ok "a discard of the zone" blkdiscard -o 96M -l 4M "$dev"
like "$(znbd report "$uri" --offset 96M --count 1)" 'empty' "resets it"
nbd_detach

# Another client, another device: the file system is on the server.
nbd_attach -b 4096
mount_at "after a new connection it is mounted" "$dev" "$tmp/fs" -o ro
ok "and every file is whole" files_are_whole "$tmp/fs"
unmount "$tmp/fs"
nbd_detach
stop_nbdkit

# ---- ext4 on a host-aware disk, several connections, a restart ------------

ok "a host-aware image" \
   znbd create --size 96M --zone-size 4M --model host-aware \
   --conventional 2 --block-size 512 "$tmp/aware.zbd"
start_znbd_server "$tmp/aware.zbd"
nbd_attach -C 4
is "$(blockdev --getss "$dev")" 512 "blocks of 512 bytes"
ok "mkfs.ext4 on all of it" mkfs.ext4 -q -F "$dev"
mount_at "it is mounted" "$dev" "$tmp/fs"
# The kernel spreads what its processors send over its connections.
(
  for i in 1 2 3 4; do
    make_files "$tmp/fs/$i" 4 &
  done
  wait
)
sync -f "$tmp/fs"
is "$(ss -xH | grep -c -F "$sock" || :)" 4 "over four connections"
ok "it is unmounted" umount "$tmp/fs"
ok "e2fsck discards what no file uses" \
   e2fsck -f -y -E discard "$dev"
nbd_detach
stop_nbdkit
ok "the image is in order" znbd check "$tmp/aware.zbd"

start_znbd_server "$tmp/aware.zbd"
nbd_attach -C 4
ok "e2fsck finds no fault after a restart of the server" e2fsck -f -n "$dev"
mount_at "it is mounted" "$dev" "$tmp/fs"
for i in 1 2 3 4; do
  ok "the files of writer $i are whole" files_are_whole "$tmp/fs/$i"
done
unmount "$tmp/fs"

# ---- a server that goes away -----------------------------------------------

# What is on its way fails, nothing hangs, and the device may be used again.
kill_nbdkit
run timeout 60 dd if="$dev" of=/dev/null bs=64k count=1 iflag=direct
isnt "$status" 0 "without a server reads fail"
isnt "$status" 124 "and do not hang"
nbd_detach
start_znbd_server "$tmp/aware.zbd"
nbd_attach
ok "a new server's disk is read" \
   dd if="$dev" of=/dev/null bs=1M iflag=direct status=none
nbd_detach
stop_nbdkit

# ---- TCP, read-only, all of it discarded ------------------------------------

znbd-server -f -i 127.0.0.1 -p 10810 -e 'a disk' -P "$tmp/tcp.pid" \
            memory:64M,zone-size=4M,conventional=16 2>"$tmp/tcp.log" &
tcp=$!
cleanup_fn kill "$tcp"
wait_for [ -s "$tmp/tcp.pid" ]
nbd_attach_tcp 10810 -N 'a disk' -b 4096
is "$(blockdev --getsize64 "$dev")" 67108864 "over TCP, by the export's name"
ok "random data" dd if=/dev/urandom of="$dev" bs=1M count=4 oflag=direct \
   status=none
ok "blkdiscard of all" blkdiscard "$dev"
ok "reads as zeros" cmp -n 67108864 "$dev" /dev/zero
nbd_detach
nbd_attach_tcp 10810 -N 'a disk' -b 4096 -R
is "$(blockdev --getro "$dev")" 1 "attached to be read only it is"
nbd_detach
run try_nbd_attach 127.0.0.1 10810 -N nonsense
isnt "$status" 0 "a name that is not there is refused"
