#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# qemu-img and qemu-io as NBD clients.
. ./functions.sh
requires nbdkit qemu-img qemu-io dd cmp

cd "$tmp" || exit 1

# qio COMMAND...: each is a qemu-io command on $uri
qio ()
{
  local args=() c
  for c; do
    args+=(-c "$c")
  done
  run qemu-io -f raw -t writeback "${args[@]}" "$uri"
}

start_zoned size=32M zone-size=4M conventional=1

run qemu-img info --output=json "$uri"
is "$status" 0 "qemu-img info"
like "$out" '"virtual-size": 33554432' "qemu-img info: the size"
like "$out" '"format": "raw"' "qemu-img info: the format"

# Zones in order, whole and in parts, with each way to write.
qio 'write -P 0x11 4M 4M' 'write -P 0x22 8M 64k' 'write -P 0x23 8256k 64k' \
    'write -f -P 0x33 12M 1M' 'write -z 13M 1M' 'write -P 0x34 14M 4k' \
    'write -P 0x44 1M 12k' flush
is "$status" 0 "qemu-io writes in order" "$out"
unlike "$out" 'failed|error' "qemu-io: without complaint"
qio 'read -P 0x11 4M 4M' 'read -P 0x22 8M 64k' 'read -P 0x23 8256k 64k' \
    'read -P 0 8320k 3776k' 'read -P 0x33 12M 1M' 'read -P 0 13M 1M' \
    'read -P 0x34 14M 4k' 'read -P 0 14340k 2044k' 'read -P 0x44 1M 12k' \
    'read -P 0 16M 16M'
unlike "$out" 'verification failed|failed|error' "qemu-io reads it back"
qio 'read -P 0x12 4M 4k'
like "$out" 'verification failed' "qemu-io would see a difference"

# Several in flight: qemu sends them as they come.
qio 'aio_write -P 0x51 20M 1M' 'aio_write -P 0x52 21M 1M' \
    'aio_write -P 0x53 22M 1M' 'aio_write -P 0x54 23M 1M' 'aio_flush'
unlike "$out" 'failed|error' "qemu-io writes asynchronously"
qio 'read -P 0x51 20M 1M' 'read -P 0x52 21M 1M' 'read -P 0x53 22M 1M' \
    'read -P 0x54 23M 1M'
unlike "$out" 'failed|error' "qemu-io reads that back"

# Refusals come out as the errors that they are.
qio 'write 4M 4k'
like "$out" 'No space left on device' "qemu-io: a full zone"
qio 'write 8M 4k'
like "$out" 'Invalid argument' "qemu-io: below the pointer"

# The map.
run qemu-img map --output=json "$uri"
is "$status" 0 "qemu-img map"
is "$(grep -c '"data": true' <<<"$out")" 3 "qemu-img map: pieces of data"
like "$out" '"start": 14684160, "length": 6287360.*"data": false' \
     "qemu-img map: the hole behind a pointer"

# Out, and compared.
ok "qemu-img convert, out" qemu-img convert -f raw -O raw "$uri" out.raw
dd if=/dev/zero bs=1M count=32 of=wanted status=none
put () { # BYTE OFFSET-k LENGTH-k
  dd if=/dev/zero bs=1k count="$3" status=none | tr '\0' "\\$1" |
    dd of=wanted bs=1k seek="$2" conv=notrunc status=none
}
put 021 4096 4096
put 042 8192 64
put 043 8256 64
put 063 12288 1024
put 064 14336 4
put 104 1024 12
put 121 20480 1024
put 122 21504 1024
put 123 22528 1024
put 124 23552 1024
same wanted out.raw "qemu-img convert: byte by byte"
ok "qemu-img compare" qemu-img compare -f raw -F raw out.raw "$uri"
printf x | dd of=out.raw bs=1 seek=8400000 conv=notrunc status=none
not_ok "qemu-img compare would see a difference" \
       qemu-img compare -f raw -F raw out.raw "$uri"
ok "qemu-img convert to qcow2" qemu-img convert -O qcow2 "$uri" out.qcow2
ok "and it compares" qemu-img compare -F raw out.qcow2 "$uri"

# discard is a trim: whole zones are reset, parts of them are not
qio 'discard 4M 4M' 'discard 8M 2M' flush
unlike "$out" 'failed|error' "qemu-io discards"
qio 'read -P 0 4M 4M' 'read -P 0x22 8M 64k' 'write -P 0x66 4M 64k' \
    'read -P 0x66 4M 64k'
unlike "$out" 'failed|error' "a discarded zone is empty, others are not"
stop_nbdkit

# Straight in.  qemu keeps several writes in flight.
dd if=/dev/urandom of=in.raw bs=1M count=32 status=none
start_zoned size=32M zone-size=4M
ok "qemu-img convert, in" qemu-img convert -n -S 0 -f raw -O raw in.raw "$uri"
ok "qemu-img convert, in: compared" \
   qemu-img compare -f raw -F raw in.raw "$uri"
stop_nbdkit
start_zoned size=32M zone-size=4M
ok "qemu-img convert, in, out of order" \
   qemu-img convert -n -S 0 -W -m 16 -f raw -O raw in.raw "$uri"
ok "qemu-img convert, in, out of order: compared" \
   qemu-img compare -f raw -F raw in.raw "$uri"

# The table is a file to qemu as well.
ok "qemu-img convert of the zone table" \
   qemu-img convert -f raw -O raw "$zones_uri" table.raw
is "$(head -c 8 table.raw)" ZBDTABLE "the zone table's magic"
