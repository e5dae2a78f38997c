#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Images under the plugin: state is kept; what is damaged, foreign, newer or
# in use is refused with a reason and left alone.
. ./functions.sh
requires nbdkit nbdsh nbdcopy nbdinfo znbd cmp dd

cd "$tmp" || exit 1
chmod 755 "$tmp"

create ()
{
  rm -f "${!#}"
  znbd create --size 16M --zone-size 1M --conventional 1 --max-open 4 \
       --max-active 6 "$@" >/dev/null
}

# refused REGEX PARAMETER...: in one line, with status 1, and the file, the
# first parameter, is as it was
refused ()
{
  local regex=$1 file=$2
  shift
  cp --sparse=always "$file" before
  run timeout 20 nbdkit -U - "$PLUGIN" "$@" --run 'echo it runs'
  is "$status" 1 "refused: $file"
  if [[ $out =~ $regex ]] && [ "$(wc -l <<<"$out")" -eq 1 ]; then
    pass "$file: says why in a line"
  else
    fail "$file: says why in a line" "got: $out" "not like: $regex"
  fi
  same "$file" before "$file: is left alone"
}

# conds, pointers: of all zones, by the table; identity: uuid and epoch
table ()
{
  nbdsh -u "$zones_uri" -c '
import struct
zones = [struct.unpack_from("<QQQBB", h.pread(64, at))
         for at in range(4096, h.get_size(), 64)]
header = h.pread(4096, 0)' -c "$1"
}
conds ()
{
  table 'print(*(z[4] for z in zones))'
}
pointers ()
{
  table 'print(*((z[2] - z[0]) * 512 for z in zones if z[3] != 1))'
}
identity ()
{
  table 'print(header[64:80].hex(), struct.unpack_from("<Q", header, 80)[0])'
}

# ---- state is kept ---------------------------------------------------

create disk.zbd
start_nbdkit_zoned disk.zbd
is "$(nbdinfo --size "$uri")" 16777216 "an image is served"
is "$(conds)" "0 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1" "a new image is empty"
id=$(identity)
nbdsh -u "$uri" -c '
import os
h.pwrite(os.urandom(8192), 100 << 10)           # conventional
h.pwrite(os.urandom(1 << 20), 1 << 20)          # full
h.pwrite(os.urandom(12 << 10), 2 << 20)         # open when it ends
h.pwrite(os.urandom(40 << 10), 3 << 20)
h.pwrite(os.urandom(4 << 10), 4 << 20)
h.trim(1 << 20, 4 << 20)                        # reset
h.pwrite(os.urandom(4 << 10), 5 << 20)'
nbdsh -u "$zones_uri" -c '
def op(zone, code):
    h.pwrite(bytes([0] * 28 + [code] + [0] * 35), 4096 + 64 * zone)
op(3, 2)        # close
op(5, 3)        # finish
op(6, 1)        # open, at the start
op(7, 3)        # finish an empty one'
is "$(conds)" "0 14 2 4 1 14 3 14 1 1 1 1 1 1 1 1" "zones before the end"
nbdcopy "$uri" before.raw
stop_nbdkit

start_nbdkit_zoned file=disk.zbd
is "$(conds)" "0 14 4 4 1 14 1 14 1 1 1 1 1 1 1 1" \
   "after a restart open zones are closed, or empty"
is "$(pointers)" \
   "1048576 12288 40960 0 1048576 0 1048576 0 0 0 0 0 0 0 0" \
   "after a restart pointers are where they were"
is "$(identity)" "$id" "after a restart it is the same disk and epoch"
nbdcopy "$uri" after.raw
same before.raw after.raw "after a restart the data is the same"
nbdsh -u "$uri" -c 'h.pwrite(b"x" * 4096, (2 << 20) + 12288)'
is "$(pointers | cut -d' ' -f2)" 16384 "after a restart a zone goes on"
stop_nbdkit

# Killed: what was answered is there, flushed or not.
start_nbdkit_zoned disk.zbd
nbdsh -u "$uri" -c '
h.pwrite(b"k" * 65536, 8 << 20)
h.pwrite(b"l" * 4096, 3 << 20 | 40 << 10)
h.trim(1 << 20, 1 << 20)'
nbdcopy "$uri" before.raw
kill_nbdkit
start_nbdkit_zoned disk.zbd
is "$(conds)" "0 1 4 4 1 14 1 14 4 1 1 1 1 1 1 1" "killed: conditions"
is "$(pointers)" \
   "0 16384 45056 0 1048576 0 1048576 65536 0 0 0 0 0 0 0" \
   "killed: pointers"
nbdcopy "$uri" after.raw
same before.raw after.raw "killed: the data is the same"
stop_nbdkit
ok "znbd check finds nothing wrong" znbd check disk.zbd

# In the background, as a service: nbdkit leaves its folder and forks.
nbdkit -U "$tmp/bg.sock" -P "$tmp/bg.pid" "$PLUGIN" disk.zbd
for ((i = 0; i < 100; i++)); do
  [ -s bg.pid ] && break
  sleep 0.05
done
cleanup_fn sh -c "kill \$(cat '$tmp/bg.pid') 2>/dev/null"
ok "in the background, by a relative path" \
   nbdsh -u "nbd+unix:///?socket=$tmp/bg.sock" \
   -c 'h.pwrite(b"b" * 4096, 9 << 20)' -c 'h.flush()'
cp --sparse=always disk.zbd before
run nbdkit -U - "$PLUGIN" disk.zbd --run 'echo it runs'
is "$status" 1 "its lock survives the fork"
pid=$(cat bg.pid)
kill "$pid"
for ((i = 0; i < 200; i++)); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.05
done
start_nbdkit_zoned disk.zbd
is "$(pointers | cut -d' ' -f9)" 4096 "what it wrote is there"

# ---- in use ----------------------------------------------------------

is "$(conds)" "0 1 4 4 1 14 1 14 4 4 1 1 1 1 1 1" "one server has it"
refused 'disk.zbd.*in use' disk.zbd
refused 'disk.zbd.*in use' disk.zbd readonly=true
not_ok "znbd create --force leaves it alone" \
       znbd create --force --size 16M --zone-size 1M disk.zbd
is "$(conds)" "0 1 4 4 1 14 1 14 4 4 1 1 1 1 1 1" "the one goes on"
stop_nbdkit

# Readers share it, and nothing changes.
cp --sparse=always disk.zbd before.zbd
start_nbdkit_zoned disk.zbd readonly=true
first=$nbdkit_pid
start_nbdkit_zoned disk.zbd readonly=true
ok "readonly=true: is read-only" nbdinfo --is read-only "$uri"
ok "readonly=true: the table is read-only" \
   nbdinfo --is read-only "$zones_uri"
is "$(conds)" "0 1 4 4 1 14 1 14 4 4 1 1 1 1 1 1" "readonly=true: zones"
rm after.raw
nbdcopy "$uri" after.raw
is "$(nbdsh -u "$uri" -c 'h.set_strict_mode(0)
try:
    h.pwrite(b"x" * 4096, 0)
except nbd.Error as e:
    print(e.errno)')" EPERM "readonly=true: a write is refused"
refused 'disk.zbd.*in use' disk.zbd
stop_nbdkit
stop_nbdkit "$first"
same disk.zbd before.zbd "readonly=true: not a byte has changed"

# nbdkit -r
start_nbdkit_zoned -r disk.zbd
ok "-r: is read-only" nbdinfo --is read-only "$uri"
is "$(conds)" "0 1 4 4 1 14 1 14 4 4 1 1 1 1 1 1" "-r: zones"
stop_nbdkit

# ---- images that are none --------------------------------------------

size=$(stat -c %s disk.zbd)
for length in 1 100 512 4095 4096 4097 8192 12288 16384 20480 65536 \
              $((size / 2)) $((size - 4096)) $((size - 1)); do
  cp --sparse=always disk.zbd cut
  truncate -s "$length" cut
  refused 'cut.*(truncated|not a znbd image|superblock|commit)' cut
done
cp --sparse=always disk.zbd cut
truncate -s 0 cut
refused 'cut' cut

# A newer version: both superblocks say so, as a newer program's would.
cp --sparse=always disk.zbd newer
for at in 8 4104; do
  printf '\003\000\000\000' |
    dd of=newer bs=1 seek=$at conv=notrunc status=none
done
refused 'newer.*version 3.*newer znbd' newer

# One superblock is damaged: the other one has it all.
for at in 32 4128; do
  cp --sparse=always disk.zbd mended
  printf '\377' | dd of=mended bs=1 seek=$at conv=notrunc status=none
  like "$(znbd check mended 2>&1)" superblock "znbd check tells of it"
  start_nbdkit_zoned mended
  is "$(conds)" "0 1 4 4 1 14 1 14 4 4 1 1 1 1 1 1" \
     "one superblock of two is enough"
  stop_nbdkit
  ok "and serving it mended the other" znbd check mended
done
cp --sparse=always disk.zbd broken
for at in 32 4128; do
  printf '\377' | dd of=broken bs=1 seek=$at conv=notrunc status=none
done
refused 'broken.*superblocks? .*damaged' broken

# Foreign: things that people have lying around.
dd if=/dev/urandom of=noise bs=1M count=16 status=none
refused 'noise.*not a znbd image' noise
truncate -s 32M zeros
refused 'zeros.*not a znbd image' zeros
seq 100000 >text
refused 'text.*not a znbd image' text
if command -v qemu-img >/dev/null; then
  qemu-img create -q -f qcow2 foreign.qcow2 16M
  refused 'foreign.qcow2.*not a znbd image' foreign.qcow2
fi
if command -v mkfs.ext4 >/dev/null; then
  truncate -s 16M fs
  mkfs.ext4 -q fs
  refused 'fs.*not a znbd image' fs
fi

# ---- permissions -----------------------------------------------------

# As somebody who may read it, or may not.
if [ "$(id -u)" -eq 0 ] &&
   setpriv --reuid=65534 --regid=65534 --clear-groups true 2>/dev/null; then
  as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
else
  as=()
fi
# The build folder may be nobody else's business.
cp "$PLUGIN" plugin.so
cp "$(command -v nbdkit)" nbdkit
chmod 755 plugin.so nbdkit
chmod 444 disk.zbd
try=("${as[@]}" "$tmp/nbdkit" -U - "$tmp/plugin.so" disk.zbd --run)
if [ -n "${ZNBD_PRELOAD:-}" ]; then
  skip "an image that may only be read" "the sanitizer's nbdkit is private"
elif [ ${#as[@]} -eq 0 ] && [ "$(id -u)" -eq 0 ]; then
  skip "an image that may only be read" "root cannot become another user"
else
  cp --sparse=always disk.zbd before.zbd
  ok "an image that may only be read is served read-only" \
     "${try[@]}" 'nbdinfo --is read-only "$uri"'
  same disk.zbd before.zbd "and is as it was"
  chmod 0 disk.zbd
  run "${try[@]}" 'echo it runs'
  is "$status" 1 "an image that may not be read is refused"
  like "$out" 'disk.zbd.*Permission denied' "and the reason named"
fi
chmod 644 disk.zbd

# ---- a block device --------------------------------------------------

truncate -s 24M backing
if [ "$(id -u)" -eq 0 ] && loop=$(losetup -f --show backing 2>/dev/null); then
  cleanup_fn losetup -d "$loop"
  znbd create --size 16M --zone-size 1M "$loop" >/dev/null
  start_nbdkit_zoned "$loop"
  nbdsh -u "$uri" -c 'h.pwrite(b"d" * 8192, 3 << 20)'
  stop_nbdkit
  start_nbdkit_zoned "$loop"
  is "$(pointers)" "0 0 0 8192 0 0 0 0 0 0 0 0 0 0 0 0" \
     "an image on a block device keeps its state"
  is "$(nbdsh -u "$uri" -c 'print(bytes(h.pread(8192, 3 << 20)) ==
                                 b"d" * 8192)')" True "and its data"
  run nbdkit -U - "$PLUGIN" "$loop" --run 'echo it runs'
  is "$status" 1 "a block device in use is refused"
  stop_nbdkit
else
  skip "an image on a block device" "no loop device can be had"
fi
