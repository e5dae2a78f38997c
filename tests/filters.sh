#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# nbdkit's filters on top of the plugin: what passes through them is the
# same disk.
. ./functions.sh
requires nbdkit nbdcopy nbdsh nbdinfo dd cmp

cd "$tmp" || exit 1
dd if=/dev/urandom of=data bs=1M count=8 status=none

has_filter ()
{
  nbdkit --filter="$1" null --dump-plugin >/dev/null 2>&1
}

# filtered FILTER... -- PARAMETER...: a file goes in through them and out
# again, zones are reported and reset
filtered ()
{
  local options=() names=$1
  while [ "$1" != -- ]; do
    if ! has_filter "$1"; then
      skip "$names" "nbdkit has no filter $1"
      return
    fi
    options+=("--filter=$1")
    names="$names $1"
    shift
  done
  shift
  names=${options[*]#--filter=}
  start_nbdkit_zoned "${options[@]}" size=16M zone-size=1M \
                     reorder-timeout=5s "$@"
  ok "$names: in" nbdcopy --destination-is-zero --sparse=0 data "$uri"
  rm -f back
  ok "$names: out" nbdcopy "$uri" back
  is "$(cmp -n $((8 << 20)) data back 2>&1)" "" "$names: the same"
  is "$(nbdinfo --list "$uri" | grep -c ^export=)" 2 "$names: two exports"
  is "$(nbdsh -u "$zones_uri" -c '
print(*(h.pread(64, 4096 + 64 * i)[25] for i in range(16)))')" \
     "14 14 14 14 14 14 14 14 1 1 1 1 1 1 1 1" "$names: the zone table"
  ok "$names: trim" nbdsh -u "$uri" -c 'h.trim(1 << 20, 2 << 20)'
  is "$(nbdsh -u "$zones_uri" -c 'print(h.pread(64, 4096 + 128)[25])')" 1 \
     "$names: the trim was a reset"
  is "$(nbdinfo --map "$uri" | tr -s ' ' | sed 's/^ //')" \
"0 2097152 0 data
2097152 1048576 3 hole,zero
3145728 5242880 0 data
8388608 8388608 3 hole,zero" "$names: the map"
  nbdsh -u "$uri" -c 'h.set_strict_mode(0)
try:
    h.pwrite(b"x" * 4096, 0)
    print("no error")
except nbd.Error as e:
    print(e.errno)' >refusal
  is "$(cat refusal)" ENOSPC "$names: a full zone refuses"
  stop_nbdkit
}

filtered log -- logfile="$tmp/log"
if [ -e log ]; then
  like "$(cat log)" ' Write id=[0-9]+ offset=0x0 ' "log: has the writes"
  like "$(cat log)" ' Trim id=[0-9]+ offset=0x200000 count=0x100000 ' \
       "log: has the trim"
  like "$(cat log)" 'Write .*return=-1 error=ENOSPC' "log: has the refusal"
fi

filtered stats -- statsfile="$tmp/stats"
if [ -e stats ]; then
  like "$(cat stats)" 'write: [0-9]+ ops, .* 8\.0' "stats: counts the writes"
  like "$(cat stats)" 'trim: 1 ops' "stats: counts the trim"
fi

filtered delay -- delay-write=20ms delay-read=5ms
filtered rate -- rate=400M
filtered log stats delay rate -- logfile="$tmp/log4" statsfile="$tmp/stats4" \
         delay-read=1ms rate=1G
filtered multi-conn -- multi-conn-mode=auto
filtered nozero -- zeromode=emulate
filtered fua -- fuamode=emulate
filtered pause -- pause-control="$tmp/pause.sock"
filtered retry -- retries=0
