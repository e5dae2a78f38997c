# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# An image on a file system that gets full: the write that finds no space
# fails, what was written stays, a flush works, and a reset makes room.

. ./functions.sh
requires nbdkit nbdsh mount
requires_root

mkdir "$tmp/small"
mount -t tmpfs -o size=2M none "$tmp/small" 2>/dev/null ||
  skip_all "mount -t tmpfs is not allowed here"
cleanup_fn umount "$tmp/small"
disk=$tmp/small/disk.zbd

ok "a sparse image is made" znbd create --size 250M --zone-size 256k "$disk"
start_nbdkit_zoned "$disk"
cat >"$tmp/fill.py" <<'EOT'
import nbd
n = 0
try:
    while True:
        h.pwrite (bytes ([n % 251 + 1]) * 4096, n * 4096)
        n += 1
except nbd.Error as e:
    print (n, e.errno)
h.flush ()
EOT
result=$(nbdsh -u "$uri" -c - <"$tmp/fill.py")
written=${result% *}
is "${result#* }" ENOSPC "a write finds no space"
ok "after a good many ($written)" test "$written" -gt 200
# There is what fill.py wrote, but for the first zone.
all_there ()
{
  nbdsh -u "$uri" -c "
print (all (h.pread (4096, n * 4096) == bytes ([n % 251 + 1]) * 4096
            for n in range (64, $written)))"
}
is "$(all_there)" True "all that was answered is there"
ok "a reset works" znbd reset "$uri" --zone 0
is "$(nbdsh -u "$uri" -c 'h.flush()' -c "
h.pwrite (b'x' * 4096, $written * 4096)
h.pwrite (b'y' * 8192, 0)
h.flush ()
print ('written')")" written "and makes room"
wp=$(znbd report --json "$uri" | jq '[.zones[] | select(.type != "conventional") | .wp - .start] | add')
kill_nbdkit
start_nbdkit_zoned "$disk"
is "$(all_there)" True "after a kill it is there too"
stop_nbdkit
ok "the image is in order" znbd check "$disk"
is "$(znbd report --json "$disk" |
      jq '[.zones[] | .wp - .start] | add')" "$wp" "with the same pointers"

# znbd copy has many writes to a zone under way when one finds no space.
rm "$disk"
znbd create --size 8M --zone-size 4M "$tmp/source.zbd" >/dev/null
for zone in 0 1; do
  head -c 4M /dev/urandom |
    znbd append --zone $zone "$tmp/source.zbd" >/dev/null
done
run timeout 60 znbd copy "$tmp/source.zbd" "$disk"
is "$status" 1 "znbd copy: no space is a failure"
like "$out" "cannot be written at .* No space left on device" "... that says so"
like "$out" "resume goes on from there" "... and how to go on"
mount -o remount,size=20M "$tmp/small"
ok "... as it does, to the same data" \
   timeout 60 znbd copy --resume --verify "$tmp/source.zbd" "$disk"
rm "$disk"
mount -o remount,size=2M "$tmp/small"

# znbd-server has the file system's answers by its ring.  The zone that was
# reset keeps its space but for what is written to it; the rest makes room.
rm "$disk"
znbd create --size 250M --zone-size 256k "$disk" >/dev/null
start_znbd_server "$disk"
result=$(nbdsh -u "$uri" -c - <"$tmp/fill.py")
written=${result% *}
is "${result#* }" ENOSPC "znbd-server: a write finds no space"
is "$(nbdsh -u "$uri" -c "
h.trim (256 << 10, 0)
h.flush ()
h.pwrite (b'y' * 8192, 0)
h.pwrite (b'x' * 4096, $written * 4096)
print ('written', h.pread (8192, 0) == b'y' * 8192)")" "written True" \
   "znbd-server: a reset makes room for other zones"
is "$(all_there)" True "znbd-server: all that was answered is there"
nbdsh -u "$uri" -c - <"$tmp/fill.py" >/dev/null
stop_nbdkit
is "$(grep -c 'write of .* No space left on device' "$nbdkit_log")" 1 \
   "znbd-server: its log says so, and once"

# What was written before is copied to where it was (tmpfs alone).  Somebody
# else punches that away, and then there is no space to have it back.
for server in nbdkit_zoned znbd_server; do
  rm -f "$disk"
  znbd create --size 1M --zone-size 256k "$disk" >/dev/null
  "start_$server" "$disk"
  is "$(nbdsh -u "$uri" -c "
import os
Z = 256 << 10
for i in range (3):
    h.trim (Z, 0)
    h.pwrite (bytes ([i]) * Z, 0)
h.trim (Z, 0)
h.flush ()
h.pwrite (b'a' * 4096, 0)
os.system ('fallocate -p -o $(($(stat -c %s "$disk") - (1 << 20))) -l 256k $disk')
os.system ('dd if=/dev/zero of=$tmp/small/ballast bs=4k 2>/dev/null')
try:
    h.pwrite (b'b' * (Z - 4096), 4096)
    print ('written')
except nbd.Error as e:
    print (e.errno)
os.remove ('$tmp/small/ballast')
h.trim (Z, 0)
h.pwrite (b'c' * Z, 0)
h.flush ()
print (h.pread (Z, 0) == b'c' * Z)")" "ENOSPC
True" "$server: what was punched, and has no space, is an error"
  stop_nbdkit
  ok "and the image is in order" znbd check "$disk"
done

# Where there is no space for an image's log it does without: each flush is a
# commit.  (None is used on tmpfs.)
truncate -s 20M "$tmp/backing"
mkdir "$tmp/ext4"
if mkfs.ext4 -q -m 0 "$tmp/backing" 2>/dev/null &&
   mount -o loop "$tmp/backing" "$tmp/ext4" 2>/dev/null; then
  cleanup_fn umount "$tmp/ext4"
  disk=$tmp/ext4/disk.zbd
  znbd create --size 300M --zone-size 1M "$disk" >/dev/null
  room=$(df --output=avail -k "$tmp/ext4" | tail -n 1)
  fallocate -l "$((room - 2048))k" "$tmp/ext4/ballast"
  start_nbdkit_zoned "$disk"
  is "$(nbdsh -u "$uri" -c "
for i in range (20):
    h.pwrite (b'a' * 4096, i * 4096, nbd.CMD_FLAG_FUA)
print ('written')")" written "no space for the log: writes are durable"
  ok "and it is given back" \
     test "$(du -k "$disk" | cut -f 1)" -lt 1024
  kill_nbdkit
  start_nbdkit_zoned "$disk"
  is "$(nbdsh -u "$uri" -c "
print (h.pread (81920, 0) == b'a' * 81920)")" True \
     "and are there after a kill"
  stop_nbdkit
  rm "$tmp/ext4/ballast"
  start_nbdkit_zoned "$disk"
  nbdsh -u "$uri" -c "
for i in range (20, 40):
    h.pwrite (b'a' * 4096, i * 4096, nbd.CMD_FLAG_FUA)"
  stop_nbdkit
  ok "with space again there is one" \
     test "$(du -k "$disk" | cut -f 1)" -gt 4096
  ok "the image is in order" znbd check "$disk"
else
  skip "no space for the log" "no ext4 may be made and mounted here"
fi
