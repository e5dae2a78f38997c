# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# The zoned devices that the virtual machine has, each as it was asked for:
# null_blk, NVMe ZNS, SMR by scsi_debug.  Tests of the host store build on
# this; where it fails, the fault is not theirs.

. "$srcdir/vm/functions.sh"

# zones DEVICE TYPE: how many of a type blkzone tells of
zones ()
{
  blkzone report "$1" | grep -c "($2)\]\$"
}

# fields DEVICE NUMBER: a zone's length, capacity, pointer, condition, in
# sectors
fields ()
{
  local text
  text=$(blkzone report -c 1 -o "$2" "$1")
  [[ $text =~ len\ (.*),\ cap\ (.*),\ wptr\ ([^ ]*)\ .*zcond:\ *([0-9]+) ]]
  echo "${BASH_REMATCH[*]:1}"
}

# looks_right NAME BLOCK-SIZE ZONES CONVENTIONAL ZONE-SECTORS CAPACITY: $dev
# is that, by the kernel, blkzone and zbd
looks_right ()
{
  local name=$1 start
  is "$(sysfs "$dev" queue/zoned)" host-managed "$name: host-managed"
  is "$(sysfs "$dev" queue/logical_block_size)" "$2" "$name: blocks of $2"
  is "$(($(zones "$dev" CONVENTIONAL) + $(zones "$dev" SEQ_WRITE_REQUIRED)))" \
     "$3" "$name: $3 zones by blkzone"
  is "$(zones "$dev" CONVENTIONAL)" "$4" "$name: $4 of them conventional"
  is "$(zbd report "$dev" | grep -c '^Zone ')" "$3" "$name: $3 zones by zbd"
  start=$(($3 / 2 * $5))
  is "$(fields "$dev" $start)" \
     "$(printf '0x%06x 0x%06x 0x%06x 1' "$5" "$6" 0)" \
     "$name: a zone in the middle: length, capacity, empty"
  ok "$name: 64 KiB are written to it" \
     dd if=/dev/urandom of="$dev" bs=64k count=1 seek=$((start * 512)) \
     oflag=direct,seek_bytes conv=notrunc status=none
  is "$(fields "$dev" $start)" \
     "$(printf '0x%06x 0x%06x 0x%06x 2' "$5" "$6" 128)" \
     "$name: its pointer moved, it is implicitly open"
  not_ok "$name: and not where the pointer is not" \
         dd if=/dev/urandom of="$dev" bs=64k count=1 \
         seek=$((start * 512 + 1048576)) \
         oflag=direct,seek_bytes conv=notrunc status=none
  ok "$name: blkzone finishes it" blkzone finish -o "$start" -c 1 "$dev"
  like "$(fields "$dev" $start)" ' 14$' "$name: it is full"
  ok "$name: blkzone resets it" blkzone reset -o "$start" -c 1 "$dev"
  like "$(fields "$dev" $start)" ' 0x000000 1$' "$name: it is empty"
}

null_blk size=128 zone_size=8 zone_capacity=6 zone_nr_conv=2 \
         zone_max_open=3 zone_max_active=5 blocksize=4096
looks_right "null_blk 4096" 4096 16 2 16384 12288
is "$(sysfs "$dev" queue/max_open_zones)" 3 "null_blk: open zones"
is "$(sysfs "$dev" queue/max_active_zones)" 5 "null_blk: active zones"
null_blk size=64 zone_size=4 blocksize=512
looks_right "null_blk 512" 512 16 0 8192 8192

zns_disk 4096
looks_right "ZNS 4096" 4096 32 0 32768 24576
is "$(sysfs "$dev" queue/max_open_zones)" 4 "ZNS 4096: open zones"
is "$(sysfs "$dev" queue/max_active_zones)" 6 "ZNS 4096: active zones"
zns_disk 512
looks_right "ZNS 512" 512 16 0 32768 32768

smr_disk dev_size_mb=128 zone_size_mb=8 zone_nr_conv=2 zone_max_open=4
looks_right "scsi_debug 512" 512 16 2 16384 16384
is "$(sysfs "$dev" queue/max_open_zones)" 4 "scsi_debug: open zones"
