# shellcheck shell=bash
# SPDX-License-Identifier: BSD-3-Clause
# Real zoned devices, served and attached: what the kernel says of the remote
# one is what it says of the local one, before and after fio has written it.
# An image is a device, too.

. "$srcdir/vm/functions.sh"

load_module ublk_drv

# limits DEVICE: that a remote one has to have as well
limits ()
{
  local i
  for i in zoned nr_zones chunk_sectors max_open_zones max_active_zones \
           logical_block_size; do
    echo "$i $(sysfs "$1" queue/$i)"
  done
  echo "size $(blockdev --getsize64 "$1")"
}

same_zones ()
{
  blkzone report "$local" | kernel_zones >"$tmp/local_zones"
  blkzone report "$dev" | kernel_zones >"$tmp/remote_zones"
  ok "$1: blkzone reports the same of both" \
     diff "$tmp/local_zones" "$tmp/remote_zones"
}

# data_of DEVICE OFFSET SECTORS
data_of ()
{
  dd if="$1" iflag=direct,skip_bytes,count_bytes skip="$2" \
     count=$(($3 * 512)) bs=64k status=none
}

# fio_on DEVICE OPTION...: writes zones and verifies
fio_on ()
{
  fio --name=zones --filename="$1" --direct=1 --zonemode=zbd \
      --ioengine=io_uring --verify=crc32c --verify_fatal=1 --verify_dump=0 \
      --randseed=1 --output-format=terse --terse-version=3 "${@:2}"
}

# fio_zbd DESCRIPTION OPTION...: on the remote one
fio_zbd ()
{
  local desc=$1
  shift
  run fio_on "$dev" "$@"
  is "$status" 0 "$desc"
  [ "$status" -eq 0 ] || diag "$out" "$(dmesg | tail -n 5)"
}

# course NAME MAX-OPEN: $local is served and attached, and written
course ()
{
  local name=$1 open=$2 size
  attach --connections 2
  is "$(limits "$dev")" "$(limits "$local")" "$name: the same queue limits"
  same_zones "$name, empty"
  size=$(($(sysfs "$dev" queue/chunk_sectors) * 512))
  fio_zbd "$name: written in sequence and verified" --rw=write --bs=64k \
          --iodepth=8 --zonerange=$((4 * size)) --offset=$((4 * size)) \
          --size=$((4 * size)) --io_size=12M
  same_zones "$name, written"
  ok "$name: the kernel resets zones" blkzone reset -o $((size / 128)) \
     -c 4 "$dev"
  fio_zbd "$name: zones at random, verified" --rw=randwrite --bs=4k \
          --iodepth=16 --max_open_zones="$open" --io_size=2M \
          --offset=$((8 * size)) --size=$((4 * size))
  fio_zbd "$name: read at random" --rw=randread --bs=4k --iodepth=16 \
          --verify=null --io_size=2M --offset=$((8 * size)) \
          --size=$((4 * size))
  same_zones "$name, at last"
  # Below the pointer; above it null_blk has what was there before a reset.
  read -r _ _ _ _ _ pointer < <(sed -n 9p "$tmp/local_zones")
  isnt "$pointer" 0 "$name: a zone in the middle is written"
  [ "$pointer" -ge 0 ] || pointer=$((4 << 11))
  ok "$name: the local device has the data" \
     cmp <(data_of "$local" $((8 * size)) "$pointer") \
         <(data_of "$dev" $((8 * size)) "$pointer")
  detach
  stop_nbdkit
}

null_blk size=128 zone_size=8 zone_capacity=6 zone_nr_conv=2 \
         zone_max_open=4 zone_max_active=6 blocksize=4096
local=$dev
start_znbd_server "$local"
course null_blk 4

zns_disk 4096
local=$dev
start_znbd_server "$local"
course ZNS 3

# The tools of users: zbd, and one of them on two machines' devices at once.
start_znbd_server size=64M zone-size=4M conventional=1
attach
first=$dev
attach
is "$(zbd report "$dev" | grep -c '^Zone ')" 16 "zbd reports all zones"
fio_on "$dev" --rw=write --bs=32k --iodepth=4 --offset=4M --size=16M \
       >"$tmp/fio" 2>&1 &
other=$!
run fio_on "$first" --rw=write --bs=32k --iodepth=4 --offset=32M --size=16M
is "$status" 0 "fio writes zones of one device"
wait "$other"
is $? 0 "and others of the other one meanwhile"
zones_are_the_same "both see what both wrote"
local=$first
same_zones "of both"
detach "$first"
detach
stop_nbdkit
