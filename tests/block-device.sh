# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# An image on a block device: made, served, killed and opened again, and
# one that is too small or not blank is refused.

. ./functions.sh
requires losetup nbdkit nbdsh
requires_root

truncate -s 80M "$tmp/backing"
device=$(losetup -f --show "$tmp/backing" 2>/dev/null) ||
  skip_all "this machine has no loop devices"
cleanup_fn losetup -d "$device"

run znbd create --size 100M --zone-size 1M "$device"
is "$status" 1 "a device that is too small is refused"
like "$out" "$device: has 83886080 bytes, the image needs [0-9]+" "with why"
ok "nothing was written to it" \
   cmp -n 83886080 "$device" /dev/zero

ok "an image is made on it" \
   znbd create --size 64M --zone-size 1M --conventional 2 "$device"
run znbd create --size 64M --zone-size 1M "$device"
is "$status" 1 "a device that is not blank is refused"
like "$out" "not blank" "with why"
ok "and is as it was" znbd check "$device"

start_nbdkit_zoned "$device"
nbdsh -u "$uri" -c '
h.pwrite (b"a" * 4096 * 5, 3 << 20)
h.flush ()
h.pwrite (b"b" * 4096, (3 << 20) + 4096 * 5)
h.pwrite (b"c" * 4096, 4 << 20)
h.trim (1 << 20, 4 << 20)
h.zero (8192, 5 << 20)
h.pwrite (b"d" * 4096, 1 << 20)
'
znbd finish "$uri" --zone 6
run znbd report "$device"
is "$status" 1 "it is locked while it is served"
like "$out" "in use" "with why"
run znbd check "$tmp/backing"
is "$status" 1 "so is the file of the loop device"
like "$out" "in use" "with why"
kill_nbdkit

start_nbdkit_zoned "$device"
is "$(nbdsh -u "$uri" -c '
a = h.pread (1 << 20, 3 << 20)
print (a == b"a" * 20480 + b"b" * 4096 + bytes ((1 << 20) - 24576),
       h.pread (1 << 20, 4 << 20) == bytes (1 << 20),
       h.pread (4096, 1 << 20) == b"d" * 4096)
')" "True True True" "after a kill all data is there"
is "$(znbd report --json "$uri" | jq -c \
        '[.zones[3:7][] | [.cond, .wp - .start]]')" \
   '[["closed",24576],["empty",0],["closed",8192],["full",1048576]]' \
   "and so are the zones"
stop_nbdkit
ok "the image is in order" znbd check "$device"

is "$(znbd report --json "$device" | jq -c '.zones[3].wp')" \
   $((3 * 1048576 + 24576)) "directly too"
# The other way around: two servers would write two states.
start_nbdkit_zoned "$tmp/backing"
for command in "znbd reset --all" "znbd info" "znbd check" \
               "znbd create --force --size 32M --zone-size 2M"; do
  run $command "$device"
  is "$status" 1 "the file is served: $command of the device"
  like "$out" "$device: its file is in use" "with why"
done
stop_nbdkit
start_nbdkit_zoned "$tmp/backing" readonly=true
ok "... but for reading, any number" znbd info "$device"
stop_nbdkit
# Other bytes of the same file are another image.
truncate -s 160M "$tmp/backing"
first=$(losetup -f --show --sizelimit 80M "$tmp/backing")
cleanup_fn losetup -d "$first"
second=$(losetup -f --show -o 80M "$tmp/backing")
cleanup_fn losetup -d "$second"
start_nbdkit_zoned "$first"
ok "an image behind one that is served" \
   znbd create --size 64M --zone-size 1M "$second"
run znbd check "$device"
is "$status" 1 "a device that has the bytes of another one"
like "$out" "$device: its file is in use" "with why"
stop_nbdkit
ok "a device is overwritten by force" \
   znbd create --force --size 32M --zone-size 2M "$device"
is "$(znbd info --json "$device" | jq .conditions.empty)" 16 \
   "and is a new disk"
