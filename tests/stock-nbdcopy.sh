#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# nbdcopy onto a zoned disk and off it, byte by byte: from sources that
# answer in order and out of it, over one connection and several.
# (server-nbdcopy.sh does the same with the project's own server.)
. ./functions.sh
requires nbdkit nbdcopy nbdsh znbd dd cmp

mib=24
# Zones that neither the file nor nbdcopy's requests are multiples of: many
# requests end in the next zone.
disk=(size=32M zone-size=1088k)

cd "$tmp" || exit 1
dd if=/dev/urandom of=data bs=1M count=$mib status=none
bytes=$((mib << 20))

# The nbdkit of sources needs no sanitizer, and its scripts do without.
stock=(env -u ZNBD_PRELOAD nbdkit)

# Source that answers each read some time, at random, later.
cat >read.sh <<'END'
sleep 0.0$(od -An -N1 -tu1 /dev/urandom | tr -d ' ')
exec dd if="$data" bs=256k iflag=skip_bytes,count_bytes skip="$4" count="$3" \
     status=none
END
late=("${stock[@]}" -t 64 eval get_size="echo $bytes"
      thread_model="echo parallel" can_multi_conn="exit 0"
      pread=". $tmp/read.sh")
export data="$tmp/data"

reset_all ()
{
  nbdsh -u "$zones_uri" -c 'h.pwrite(bytes([0] * 60 + [4] + [0] * 3), 0)'
}

# pointers: of all zones, relative to their starts, in bytes
pointers ()
{
  nbdsh -u "$1" -c - <<'END'
import struct
size = h.get_size()
for at in range(4096, size, 64):
    start, length, wp = struct.unpack("<QQQ", h.pread(64, at)[:24])
    print(512 * (wp - start), end=" ")
END
}

# Expected after the file is written once, zone after zone.
wanted_pointers ()
{
  local at left=$bytes
  for ((at = 0; at < 32 << 20; at += 1088 << 10)); do
    local end=$((1088 << 10))
    [ $((at + end)) -le $((32 << 20)) ] || end=$(((32 << 20) - at))
    echo -n "$((left < end ? left : end)) "
    left=$((left < end ? 0 : left - end))
  done
}
wanted=$(wanted_pointers)

# copy DESCRIPTION NBDCOPY-ARGUMENT...: in with these, $uri being added, and
# out again
copy ()
{
  local desc=$1
  shift
  run reset_all
  ok "in, $desc" nbdcopy --destination-is-zero --sparse=0 "$@" "$uri"
  rm -f back
  ok "out, $desc" nbdcopy "$uri" back
  if cmp -s -n "$bytes" data back; then
    pass "the same, $desc"
  else
    fail "the same, $desc" "$(cmp -n "$bytes" data back 2>&1)"
  fi
  is "$(pointers "$zones_uri")" "$wanted" "pointers, $desc"
}

start_zoned "${disk[@]}" reorder-timeout=5s

copy "a file" data
copy "a file, one connection" -C 1 data
copy "a file, eight connections" -C 8 data
copy "a file, one request" -C 1 -R 1 data
copy "a file, synchronously" --synchronous data
copy "a file, small requests" --request-size=4096 data
copy "a file, large requests" --request-size=4194304 data
copy "nbdkit file" -- [ "${stock[@]}" file data ]
copy "nbdkit file, eight connections" -C 8 -- [ "${stock[@]}" -t 64 file data ]
copy "out of order, one connection" -C 1 -- [ "${late[@]}" ]
copy "out of order, four connections" -C 4 -- [ "${late[@]}" ]
ok "from standard input" sh -c \
   'nbdsh -u "$zones_uri" -c "h.pwrite(bytes([0] * 60 + [4] + [0] * 3), 0)" &&
    nbdcopy --destination-is-zero --sparse=0 - "$uri" <data'
nbdcopy "$uri" back
is "$(cmp -n $bytes data back 2>&1)" "" "the same, from standard input"

# 20 times, from a source with several connections and threads.  (Sanitizers
# look at the same code again, and more slowly.)
rounds=20
[ -z "${ZNBD_SANITIZER:-}" ] || rounds=5
run "${stock[@]}" -U "$tmp/file.sock" -P "$tmp/file.pid" -t 64 file data
cleanup_fn sh -c "kill \$(cat '$tmp/file.pid')"
again_and_again ()
{
  local i failed=0
  : >errors
  for ((i = 1; i <= rounds; i++)); do
    reset_all
    if nbdcopy -C 4 --destination-is-zero --sparse=0 \
         "nbd+unix:///?socket=$tmp/file.sock" "$uri" 2>>errors &&
       nbdcopy "$uri" back && cmp -n "$bytes" data back 2>>errors &&
       [ "$(pointers "$zones_uri")" = "$wanted" ]; then
      continue
    fi
    failed=$((failed + 1))
  done
  if [ "$failed" -eq 0 ]; then
    pass "$rounds copies over 4 connections are the same, $1"
  else
    fail "$rounds copies over 4 connections are the same, $1" \
         "$failed are not" "$(cat errors)"
  fi
}
again_and_again "in memory"
stop_nbdkit

znbd create --size 32M --zone-size 1088k image.zbd >/dev/null
start_zoned image.zbd reorder-timeout=5s
again_and_again "in an image"
stop_nbdkit

# A sparse file, with what nbdcopy does by itself: zeros are written, and
# every zone ends full.
truncate -s $bytes holes
for at in 0 3 4 5 11 17 23; do
  dd if=data of=holes bs=1M count=1 skip=$at seek=$at conv=notrunc status=none
done
truncate -s $((32 << 20)) holes
start_zoned "${disk[@]}" reorder-timeout=5s
ok "in, a sparse file, zeros written" nbdcopy holes "$uri"
ok "out, a sparse file" nbdcopy "$uri" back
same holes back "the same, a sparse file"
stop_nbdkit

# With holes left out the gaps are gap=zero's to fill.  (Zones that requests
# fit into: one that goes on into the next zone may find that it has been
# filled on beyond it.)
start_zoned size=32M zone-size=1M reorder-timeout=200ms gap=zero
ok "in, a sparse file, gap=zero" nbdcopy --destination-is-zero holes "$uri"
rm back
ok "out, a sparse file, gap=zero" nbdcopy "$uri" back
same holes back "the same, a sparse file, gap=zero"
stop_nbdkit

# Between zoned disks, pointers too; capacity below size.  nbdcopy rounds
# what it copies up to whole requests.
disk=(size=16M zone-size=1M zone-capacity=768k conventional=2)
start_zoned "${disk[@]}"
from=$uri from_zones=$zones_uri
nbdsh -u "$from" -c - <<'END'
import os
k = 1024
h.pwrite(os.urandom(100 * k), 500 * k)
for zone, length in (2, 768), (3, 4), (5, 512), (9, 764), (15, 256):
    h.pwrite(os.urandom(length * k), zone * 1024 * k)
END
start_zoned "${disk[@]}" reorder-timeout=5s
ok "from zoned to zoned" \
   nbdcopy --destination-is-zero --sparse=0 --request-size=4096 \
           "$from" "$uri"
nbdcopy "$from" from
nbdcopy "$uri" to
same from to "zoned to zoned: the same"
is "$(pointers "$zones_uri")" "$(pointers "$from_zones")" \
   "zoned to zoned: pointers"
isnt "$(pointers "$zones_uri" | tr ' ' '\n' | sort -u | wc -l)" 1 \
     "zoned to zoned: there were some"
