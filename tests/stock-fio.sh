#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# fio's nbd engine: zones written in sequence at depth 32 and verified.
. ./functions.sh
requires nbdkit fio nbdsh znbd
fio --enghelp | grep -qw nbd || skip_all "fio has no nbd engine"

cd "$tmp" || exit 1

# job DESCRIPTION OPTION...: one that writes and verifies
job ()
{
  local desc=$1
  shift
  run fio --name=zones --ioengine=nbd --uri="$uri" --thread --rw=write \
      --iodepth=32 --verify=crc32c --verify_fatal=1 --do_verify=1 \
      --verify_dump=0 --output-format=normal "$@"
  is "$status" 0 "$desc"
  unlike "$out" 'verify: bad|err=([1-9]| [1-9])' "$desc: verified"
  if [ "$status" -ne 0 ]; then
    diag "$out"
  fi
}

# written: bytes below the pointers of sequential zones
written ()
{
  nbdsh -u "$zones_uri" -c - <<'END'
import struct
total = 0
for at in range(4096, h.get_size(), 64):
    start, length, wp, kind, cond = struct.unpack_from("<QQQBB",
                                                       h.pread(64, at))
    total += 0 if kind == 1 else 512 * (wp - start)
print(total)
END
}

start_zoned size=64M zone-size=4M reorder-timeout=5s
job "4 KiB" --bs=4k --size=16M
is "$(written)" $((16 << 20)) "4 KiB: all of it is below pointers"
job "64 KiB" --bs=64k --offset=16M --size=32M
is "$(written)" $((48 << 20)) "64 KiB: all of it is below pointers"
job "12 KiB, across zone ends" --bs=12k --offset=48M --size=15M
stop_nbdkit

# Two jobs, two connections, each its zones.
start_zoned size=64M zone-size=4M reorder-timeout=5s
job "two jobs" --bs=16k --numjobs=2 --size=32M --offset_increment=32M
is "$(written)" $((64 << 20)) "two jobs: all zones are full"
stop_nbdkit

# Capacity below the zone size, as fio's strided mode takes it.
start_zoned size=64M zone-size=4M zone-capacity=3M reorder-timeout=5s
job "capacity below size" --bs=32k --size=48M --io_size=48M \
    --zonemode=strided --zonesize=3M --zonerange=3M --zoneskip=1M
stop_nbdkit

# In an image, with a flush after each 16 writes.
znbd create --size 64M --zone-size 4M image.zbd >/dev/null
start_zoned image.zbd reorder-timeout=5s
job "image with flushes" --bs=16k --size=32M --fsync=16
is "$(written)" $((32 << 20)) "image with flushes: all of it is there"
stop_nbdkit

# Read at random, checked by the headers that fio wrote.
start_zoned size=64M zone-size=4M reorder-timeout=5s
job "for reading" --bs=4k --size=16M --do_verify=0
run fio --name=zones --ioengine=nbd --uri="$uri" --thread --rw=randread \
    --iodepth=32 --bs=4k --size=16M --verify=crc32c --verify_fatal=1
is "$status" 0 "random reads are verified"
stop_nbdkit

# fio would see it.
start_zoned size=64M zone-size=4M conventional=16
job "for damage" --bs=4k --size=4M --do_verify=0
nbdsh -u "$uri" -c 'h.pwrite(b"x" * 4096, 8192)'
run fio --name=zones --ioengine=nbd --uri="$uri" --thread --rw=read \
    --iodepth=32 --bs=4k --size=4M --verify=crc32c --verify_fatal=1
isnt "$status" 0 "fio finds damage where there is some"
