# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# A newer QEMU finds in a disk of znbd attach what it finds in a local zoned
# device: qemu-io's zone commands, beside a null_blk of the same shape.  In
# the long form a guest of this guest has it as a virtio disk with zones.

. "$srcdir/vm/functions.sh"

qemu=${ZNBD_VM_NEWER_QEMU:-}
[ -x "$qemu/usr/bin/qemu-io" ] || give_up "there is a newer QEMU" "$qemu"
diag "$("$qemu/usr/bin/qemu-io" --version | head -n 1)"
load_module ublk_drv

# io DEVICE COMMAND...: by the host_device driver; without times and names
io ()
{
  local disk=$1 command options=()
  shift
  for command; do
    options+=(-c "$command")
  done
  QEMU_MODULE_DIR=$qemu/usr/lib/x86_64-linux-gnu/qemu \
    "$qemu/usr/bin/qemu-io" --image-opts -n \
    driver=host_device,filename="$disk" "${options[@]}" 2>&1 |
    sed -E "s|$disk|DISK|g; s/[0-9.]+ [KMG]?i?B\/sec.*//; s/; [0-9.]+ sec//;
            s/[0-9:.]+ sec.*//"
}

# What QEMU's own test of zoned devices does, and more of each.
course ()
{
  io "$1" "zrp 0 1"
  io "$1" "zrp 0 10"
  io "$1" "zrp 0x3c00000 2"
  io "$1" "zrp 0 4" "zo 0x400000 0x400000" "zrp 0x400000 1" \
     "zc 0x400000 0x400000" "zrp 0x400000 1" \
     "zf 0x400000 0x400000" "zrp 0x400000 1" \
     "zrs 0x400000 0x400000" "zrp 0x400000 1"
  io "$1" "zap -p 0x400000 0x1000 0x2000" "zap -p 0x400000 0x1000 0x2000"
  io "$1" "zrp 0x400000 2"
  io "$1" "write -P 0x55 0x800000 64k" "read -P 0x55 0x800000 64k" \
     "zrp 0x800000 1"
  io "$1" "write -P 0x56 0x810000 64k" "read -P 0x56 0x810000 64k" "flush"
  io "$1" "write 0x900000 4k"
  io "$1" "zrs 0 0x4000000" "zrp 0 16"
  io "$1" "zo 0x400001 0x400000"
  io "$1" "zc 0x400000 0x1000"
  io "$1" "zf 0x4000000 0x400000"
}

null_blk size=64 zone_size=4 zone_capacity=3 blocksize=4096
local_disk=$dev
start_znbd_server size=64M zone-size=4M zone-capacity=3M
attach
course "$local_disk" >"$tmp/local"
course "$dev" >"$tmp/remote"
like "$(cat "$tmp/local")" 'start: 0x2000, len 0x2000, cap 0x1800, wptr' \
     "qemu-io works on a local null_blk"
ok "and on the remote disk the same comes out" \
   diff "$tmp/local" "$tmp/remote"
diag "$(cat "$tmp/remote")"
like "$(cat "$tmp/remote")" 'After zap done, the append sector is 0x2000' \
     "where data was appended"
zones_are_the_same "the zones are the server's"

# Over NBD it has extended headers, which Debian 12's has not.
over_nbd ()
{
  QEMU_MODULE_DIR=$qemu/usr/lib/x86_64-linux-gnu/qemu \
    "$qemu/usr/bin/qemu-io" -f raw "$uri" -c "write -P 9 0xc00000 64k" \
    -c "write -P 8 0xc10000 64k" -c "flush" -c "read -P 9 0xc00000 64k" \
    -c "read -P 8 0xc10000 64k" -c "discard 0xc00000 4M"
}
run over_nbd
is "$status" 0 "qemu-io over NBD writes, reads and resets"
unlike "$out" 'failed' "without complaint"
detach
start_znbd_server -v size=64M zone-size=4M zone-capacity=3M
run over_nbd
is "$status" 0 "of another disk"
like "$(cat "$nbdkit_log")" 'extended headers' "by extended headers"

if [ -n "${ZNBD_LONG:-}" ]; then
  attach
  cat >"$tmp/in-nested.sh" <<'END'
modprobe virtio_blk
for i in 1 2 3 4 5 6 7 8 9 10; do
  [ -b /dev/vda ] && break
  sleep 1
done
cat /sys/block/vda/queue/zoned /sys/block/vda/queue/chunk_sectors \
    /sys/block/vda/queue/nr_zones
dd if=/dev/urandom of=/dev/vda bs=4k count=4 oflag=direct status=none
dd if=/dev/zero of=/dev/vda bs=4k count=1 seek=1024 oflag=direct status=none
blkzone finish -o 16384 -c 1 /dev/vda
blkzone report -c 4 /dev/vda
END
  run env ZNBD_VM_QEMU="$qemu/usr/bin/qemu-system-x86_64" ZNBD_VM_ACCEL=tcg \
      XDG_CACHE_HOME="${qemu%/znbd-vm/q}" \
      "$srcdir/vm/run" -m 640M -c 1 -t 1500 \
      -q "-L $qemu/usr/share/qemu -L $qemu/usr/share/seabios \
          -blockdev driver=host_device,filename=$dev,node-name=z,cache.direct=on
          -device virtio-blk-pci,drive=z" bash "$tmp/in-nested.sh"
  is "$status" 0 "a guest of this guest runs"
  diag "$out"
  like "$out" '^host-managed
8192
16
' "it has a host-managed virtio disk"
  zones_are_the_same "what it did, the server has done"
  like "$(znbd report --count 3 "$uri")" \
       'implicit-open.* wp +16384.*wp +4198400.* full ' "all of it"
  detach
fi
