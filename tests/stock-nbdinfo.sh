#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# What nbdinfo shows of a served disk: exports, sizes, what they can do, and
# the map of what is written.
. ./functions.sh
requires nbdkit nbdinfo nbdsh

start_zoned size=1M zone-size=128k zone-capacity=96k conventional=1 \
                   max-open=3 max-active=5

# The export NAME out of nbdinfo --list.
export_of ()
{
  awk -v want="export=\"$1\":" '/^export=/ { on = $0 == want } on' <<<"$out"
}

run nbdinfo --list "$uri"
is "$status" 0 "nbdinfo --list"
is "$(grep -c ^export= <<<"$out")" 2 "two exports"
disk=$(export_of "")
zones=$(export_of zones)
like "$disk" 'description: host-managed zoned disk, 8 zones of 128k' \
     "the disk's description"
for text in 'capacity 96k' '1 of them conventional' 'at most 3 open' \
            'at most 5 active' '4096-byte blocks'; do
  like "$disk" "$text" "the disk's description: $text"
done
like "$zones" 'description: zone table' "the table's description"

for line in 'export-size: 1048576 ' 'is_read_only: false' 'can_cache: true' \
            'can_fast_zero: true' 'can_flush: true' 'can_fua: true' \
            'can_multi_conn: true' 'can_trim: true' 'can_zero: true' \
            'block_size_minimum: 4096' 'block_size_preferred: 4096' \
            'block_size_maximum: 33554432' 'base:allocation'; do
  like "$disk" "$line" "the disk: $line"
done
for line in 'export-size: 4608' 'is_read_only: false' 'can_flush: true' \
            'can_fua: true' 'can_multi_conn: true' 'can_trim: false' \
            'block_size_minimum: 64' 'block_size_preferred: 4096' \
            'block_size_maximum: 33554432'; do
  like "$zones" "$line" "the table: $line"
done

is "$(nbdinfo --size "$uri")" 1048576 "nbdinfo --size of the disk"
is "$(nbdinfo --size "$zones_uri")" 4608 "nbdinfo --size of the table"
for what in flush fua multi-conn trim zero cache df; do
  ok "nbdinfo --can $what" nbdinfo --can "$what" "$uri"
done
not_ok "nbdinfo --is read-only" nbdinfo --is read-only "$uri"
not_ok "nbdinfo --can trim of the table" nbdinfo --can trim "$zones_uri"
not_ok "nbdinfo of an export that is not there" \
       nbdinfo "nbd+unix:///other?socket=$sock"

# map: the lines of --map without its columns' spaces
map ()
{
  nbdinfo --map "$@" | tr -s ' ' | sed 's/^ //'
}

# Conventional zones may be written anywhere: data.
is "$(map "$uri")" \
"0 131072 0 data
131072 917504 3 hole,zero" "the map of an empty disk"

nbdsh -u "$uri" -c - <<'END'
k = 1024
h.pwrite(b"1" * (12 * k), 128 * k)      # zone 1: some blocks
h.pwrite(b"2" * (96 * k), 256 * k)      # zone 2: all of its capacity
h.pwrite(b"4" * (4 * k), 512 * k)       # zone 4: one block
END
is "$(map "$uri")" \
"0 143360 0 data
143360 118784 3 hole,zero
262144 98304 0 data
360448 163840 3 hole,zero
524288 4096 0 data
528384 520192 3 hole,zero" "data below the pointers, holes above"
is "$(map --totals "$uri")" \
"245760 23.4% 0 data
802816 76.6% 3 hole,zero" "nbdinfo --map --totals"

nbdsh -u "$uri" -c 'h.trim(128 * 1024, 256 * 1024)'
is "$(map "$uri")" \
"0 143360 0 data
143360 380928 3 hole,zero
524288 4096 0 data
528384 520192 3 hole,zero" "a zone that is reset is a hole"
is "$(map "$zones_uri")" "0 4608 0 data" "the map of the table"
stop_nbdkit

# A disk of many zones, more than a reply holds, and of a terabyte.
start_zoned size=1T zone-size=256M
is "$(map "$uri")" "0 1099511627776 3 hole,zero" "the map of a terabyte"
nbdsh -u "$uri" -c - <<'END'
for zone in range(0, 4096, 2):
    h.pwrite(b"x" * 4096, zone << 28)
END
is "$(map "$uri" | awk '{ n[$4]++ } END { print n["data"], n["hole,zero"] }')" \
   "2048 2048" "the map of every second of 4096 zones"
stop_nbdkit

# nbdkit -r
start_zoned -r size=1M zone-size=128k
ok "nbdinfo --is read-only, with -r" nbdinfo --is read-only "$uri"
ok "nbdinfo --is read-only of the table, with -r" \
   nbdinfo --is read-only "$zones_uri"
not_ok "nbdinfo --can trim, with -r" nbdinfo --can trim "$uri"
