# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# znbd attach, detach and list: a remote disk as this machine's block device,
# and what the kernel sees of it is what the server's disk is.

. "$srcdir/vm/functions.sh"

load_module ublk_drv

# ---- what the kernel sees --------------------------------------------------

start_znbd_server size=256M zone-size=8M conventional=2 zone-capacity=6M \
                  max-open=4 max-active=6 read-only-zones=30 offline-zones=31
attach
is "$dev" /dev/ublkb0 "the device's name is printed"
is "$(blockdev --getsize64 "$dev")" 268435456 "the size"
is "$(blockdev --getss "$dev")" 4096 "the logical block size"
is "$(sysfs "$dev" queue/zoned)" host-managed "it is a zoned device"
is "$(sysfs "$dev" queue/chunk_sectors)" 16384 "the zones' size"
is "$(sysfs "$dev" queue/nr_zones)" 32 "their number"
is "$(sysfs "$dev" queue/max_open_zones)" 4 "the open limit"
is "$(sysfs "$dev" queue/max_active_zones)" 6 "the active limit"
is "$(sysfs "$dev" queue/zone_append_max_bytes)" 1048576 "the largest append"
is "$(sysfs "$dev" queue/write_cache)" "write back" "it has a cache"
is "$(sysfs "$dev" queue/fua)" 1 "and FUA"
zones_are_the_same "the report is the server's"

# write OFFSET BYTES: random data
write ()
{
  dd if=/dev/urandom of="$dev" bs="$2" count=1 seek="$1" \
     oflag=direct,seek_bytes conv=notrunc status=none
}
sectors () { echo $(($1 * 2048)); }     # of MiB

ok "a write at a pointer" write 16M 1M
ok "the next one" write 17M 64k
not_ok "one that is not there" write 18M 64k
ok "a conventional zone, anywhere" write 3M 64k
ok "a zone is opened" blkzone open -o "$(sectors 24)" -c 1 "$dev"
ok "one is finished" blkzone finish -o "$(sectors 32)" -c 1 "$dev"
ok "one is written" write 40M 64k
ok "and closed" blkzone close -o "$(sectors 40)" -c 1 "$dev"
zones_are_the_same "all of that was done by the server"
ok "zones are reset" blkzone reset -o "$(sectors 16)" -c 3 "$dev"
zones_are_the_same "there too"
ok "all zones are reset" blkzone reset "$dev"
zones_are_the_same "all of them"

# ---- limits -----------------------------------------------------------------

for i in 2 3 4 5; do
  blkzone open -o "$(sectors $((i * 8)))" -c 1 "$dev"
done
run blkzone open -o "$(sectors 48)" -c 1 "$dev"
like "$out" 'Too many references' "the open limit is told as such"
for i in 2 3 4 5; do
  write $((i * 8))M 4k
  blkzone close -o "$(sectors $((i * 8)))" -c 1 "$dev"
done
write 48M 4k
write 56M 4k
run blkzone open -o "$(sectors 64)" -c 1 "$dev"
like "$out" 'Value too large' "the active limit is, too"
run write 64M 4k
isnt "$status" 0 "a write fails for it"
like "$out" 'Value too large' "and says so"

# ---- in use, by others, twice -------------------------------------------------

exec 5<"$dev"
ok "a program may have it open" flock -n 5
is "$(znbd list --json | grep -c '"state": "connected"')" 1 \
   "znbd list shows it"
like "$(znbd list)" "^/dev/ublkb0 +connected +256M in 32 zones" "in a line"
exec 5<&-
run znbd attach --id 0 "$uri"
isnt "$status" 0 "a number that is taken is refused"
like "$out" 'there is a ublk device 0 already' "with a message"
first=$dev
attach --id 7 --queues 2 --depth 16 --connections 4
is "$dev" /dev/ublkb7 "a second one of the same disk, numbered"
ok "it writes a zone" write $((16 * 1048576 + 4096)) 4k
dev=$first
zones_are_the_same "which the first one sees"
run znbd detach --all
is "$status" 0 "all are detached" 
is "$(znbd list)" "" "and gone"
not_ok "with their nodes" [ -e /dev/ublkb0 ]
not_ok "of both" [ -e /dev/ublkc7 ]
run znbd detach /dev/ublkb0
like "$out" 'no device of znbd attach' "what is not there is not detached"

# ---- read-only --------------------------------------------------------------

attach --read-only
is "$(blockdev --getro "$dev")" 1 "read-only it is"
zones_are_the_same "its zones are shown"
not_ok "and not reset" blkzone reset "$dev"
detach
stop_nbdkit

# ---- TLS ----------------------------------------------------------------------

echo "alice:$(printf '%064d' 7)" >"$tmp/keys.psk"
chmod 600 "$tmp/keys.psk"
start_znbd_server --tls=require --tls-psk="$tmp/keys.psk" size=64M zone-size=4M
run znbd attach "$uri"
isnt "$status" 0 "without TLS it is refused"
uri="nbds+unix://alice@/?socket=$sock&tls-psk-file=$tmp/keys.psk"
attach
ok "through TLS it writes" write 8M 1M
ok "and closes a zone" blkzone close -o "$(sectors 8)" -c 1 "$dev"
zones_are_the_same "all of it was done"
kill_nbdkit
run timeout 60 znbd detach "$dev"
like "$out" 'could not be made durable' "and is told when the server is gone"

# ---- ordinary disks, and what cannot be one ----------------------------------

start_znbd_server size=64M zone-size=4M model=host-aware
run znbd attach "$uri"
is "$status" 0 "a host-aware disk"
like "$out" 'attached without zones: the disk is host-aware' "says what it is"
dev=/dev/ublkb0
is "$(sysfs "$dev" queue/zoned)" none "it is an ordinary disk here"
ok "with a file system" mkfs.ext4 -q -F "$dev"
mount_at "that is mounted" "$dev" "$tmp/fs"
run znbd detach "$dev"
like "$out" 'is in use' "a mounted device is not detached"
make_files "$tmp/fs" 2
ok "and works on" files_are_whole "$tmp/fs"
unmount "$tmp/fs"
detach
stop_nbdkit

start_znbd_server size=48M zone-size=3M
run znbd attach "$uri"
isnt "$status" 0 "zones that Linux cannot have are refused"
like "$out" 'powers of two' "with the reason"
stop_nbdkit
run znbd attach "$uri"
isnt "$status" 0 "so is a server that is not there"
like "$out" "$sock" "by its name"
is "$(ls /sys/class/ublk-char 2>/dev/null)" "" "and no device is left"
