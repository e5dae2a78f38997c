#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# nbdsh, as a person would use it: trims that reset, and the zone table.
. ./functions.sh
requires nbdkit nbdsh

start_zoned size=1M zone-size=128k conventional=1 read-only-zones=6 \
                   offline-zones=7

# conds: of all zones, by the table
conds ()
{
  nbdsh -u "$zones_uri" -c - <<'END'
print(*(h.pread(64, 4096 + 64 * i)[25] for i in range(8)))
END
}

is "$(conds)" "0 1 1 1 1 1 13 15" "zones of a new disk"

# fill: zones 0 to 5 get two blocks each
fill ()
{
  nbdsh -u "$zones_uri" -c 'h.pwrite(bytes([0] * 60 + [4] + [0] * 3), 0)'
  nbdsh -u "$uri" -c '
for zone in range(6):
    h.pwrite(bytes([0x30 + zone]) * 8192, zone << 17)'
}

# trimmed DESCRIPTION TRIM WANTED-CONDS WANTED-FIRST-BYTES
trimmed ()
{
  fill
  run nbdsh -u "$uri" -c "$2"
  is "$status" 0 "$1"
  is "$(conds)" "$3" "$1: conditions"
  is "$(nbdsh -u "$uri" -c '
print(*(h.pread(4096, zone << 17)[0] for zone in range(6)))')" "$4" \
     "$1: data"
}

trimmed "trim of a zone" 'h.trim(1 << 17, 2 << 17)' \
        "0 2 1 2 2 2 13 15" "48 49 0 51 52 53"
trimmed "trim of a zone with FUA" \
        'h.trim(1 << 17, 2 << 17, nbd.CMD_FLAG_FUA)' \
        "0 2 1 2 2 2 13 15" "48 49 0 51 52 53"
trimmed "trim of three zones" 'h.trim(3 << 17, 1 << 17)' \
        "0 1 1 1 2 2 13 15" "48 0 0 0 52 53"
trimmed "trim of parts around a zone" \
        'h.trim((1 << 17) + 8192, (2 << 17) - 4096)' \
        "0 2 1 2 2 2 13 15" "48 49 0 51 52 53"
trimmed "trim of a zone but a block" 'h.trim((1 << 17) - 4096, 2 << 17)' \
        "0 2 2 2 2 2 13 15" "48 49 50 51 52 53"
trimmed "trim of what is written of a zone" 'h.trim(8192, 2 << 17)' \
        "0 2 2 2 2 2 13 15" "48 49 50 51 52 53"
trimmed "trim of the conventional zone" 'h.trim(1 << 17, 0)' \
        "0 2 2 2 2 2 13 15" "0 49 50 51 52 53"
trimmed "trim of the whole disk, with read-only and offline zones" \
        'h.trim(1 << 20, 0)' "0 1 1 1 1 1 13 15" "0 0 0 0 0 0"

# As in the man page: a zone is finished through the table.
is "$(nbdsh -u "$zones_uri" -c - <<'END'
record = 4096 + 64 * 2
zone = bytearray(h.pread(64, record))
zone[28] = 3
h.pwrite(zone, record)
print(h.pread(64, record)[25])
END
)" 14 "finish through the table"
is "$(conds)" "0 1 14 1 1 1 13 15" "only that zone is full"

# A refusal is an exception, with its errno.
run nbdsh -u "$zones_uri" -c 'h.pwrite(bytes([0] * 28 + [1] + [0] * 35),
                                       4096 + 64 * 2)'
isnt "$status" 0 "opening a full zone fails"
like "$out" 'Invalid argument' "opening a full zone: EINVAL"
