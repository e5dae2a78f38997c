#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The zone table export through nbdkit: every field against what was asked
for, every request, and what must not be a request.
"""

import nbd

from harness import TAP
from zone_table import (CLOSE, CLOSED, EMPTY, EXPLICIT, FINISH, FULL, HEADER,
                        IMPLICIT, NOT_WP, OFFLINE, OPEN, READ_ONLY, RECORD,
                        RESET, Served, decode_header, decode_record)

B = 4096
K = 1024

tap = TAP()


def fields():
    # 600k of zones that are no power of two, and a smaller last one.
    with Served("size=600k", "zone-size=96k", "zone-capacity=80k",
                "conventional=2", "max-open=3", "max-active=4",
                "model=host-managed", "block-size=512",
                "read-only-zones=3", "offline-zones=4") as server:
        table = server.table()
        raw = table.raw()
        tap.equal(len(raw), HEADER + 7 * RECORD, "size of the table")
        tap.equal(table.h.get_block_size(nbd.SIZE_MINIMUM), 64,
                  "smallest block of the table")
        tap.equal(table.h.get_block_size(nbd.SIZE_PREFERRED), 4096,
                  "preferred block of the table")
        tap.equal(table.h.get_block_size(nbd.SIZE_MAXIMUM), 32 << 20,
                  "largest block of the table")
        tap.ok(not table.h.is_read_only() and table.h.can_flush()
               and table.h.can_fua() and table.h.can_multi_conn(),
               "the table is written, flushed, and shared by connections")

        header = decode_header(raw)
        for name, want in (
                ("magic", b"ZBDTABLE"), ("version", 1),
                ("header_bytes", 4096), ("model", 2), ("zones", 7),
                ("zone_size", 96 * K), ("size", 600 * K), ("max_open", 3),
                ("max_active", 4), ("granularity", 512),
                ("conventional", 2), ("request", 0)):
            tap.equal(getattr(header, name), want, "header: " + name)
        tap.ok(header.uuid != bytes(16), "header: uuid")
        tap.equal(raw[88:HEADER], bytes(HEADER - 88),
                  "header: zeros fill it up")

        zones = table.report()
        tap.equal([z.start for z in zones], [i * 96 * K for i in range(7)],
                  "records: start")
        tap.equal([z.length for z in zones], [96 * K] * 6 + [24 * K],
                  "records: len, the last zone's smaller")
        tap.equal([z.capacity for z in zones],
                  [96 * K] * 2 + [80 * K] * 4 + [24 * K],
                  "records: capacity")
        tap.equal([z.type for z in zones], [1, 1, 2, 2, 2, 2, 2],
                  "records: type")
        tap.equal([z.cond for z in zones],
                  [NOT_WP, NOT_WP, EMPTY, READ_ONLY, OFFLINE, EMPTY, EMPTY],
                  "records: cond")
        tap.equal([z.wp for z in zones if z.cond == EMPTY],
                  [z.start for z in zones if z.cond == EMPTY],
                  "records: wp of empty zones")
        tap.equal([(z.reset, z.non_seq) for z in zones], [(0, 0)] * 7,
                  "records: reset, non_seq")
        for i in range(7):
            record = raw[HEADER + RECORD * i:][:RECORD]
            tap.equal(record[28:32] + record[40:], bytes(28),
                      "record %d: reserved bytes are zero" % i)

    with Served("size=512k", "zone-size=64k", "model=host-aware") as server:
        table = server.table()
        header = table.header()
        tap.equal((header.model, header.max_open, header.max_active,
                   header.granularity), (1, 0, 0, 4096),
                  "host-aware: header")
        tap.equal({z.type for z in table.report()}, {3}, "host-aware: type")
        server.connect().pwrite(bytes(B), 64 * K + 3 * B)
        zone = table.zone(1)
        tap.equal((zone.wp - zone.start, zone.non_seq), (4 * B, 1),
                  "host-aware: a write ahead moves the pointer, sets non_seq")


def requests():
    with Served("size=640k", "zone-size=64k", "conventional=1",
                "read-only-zones=8", "offline-zones=9") as server:
        h = server.connect()
        table = server.table()
        op = table.request

        # Each transition; the zone model test has them all without nbdkit.
        op(OPEN, 1)
        tap.equal(table.cond(1), EXPLICIT, "open: an empty zone")
        op(OPEN, 1)
        tap.equal(table.cond(1), EXPLICIT, "open: again")
        op(CLOSE, 1)
        tap.equal(table.cond(1), EMPTY, "close: at the start it is empty")
        h.pwrite(b"1" * B, 64 * K)
        tap.equal(table.cond(1), IMPLICIT, "a write opens")
        tap.equal(table.written(1), B, "and moves the pointer")
        op(CLOSE, 1)
        tap.equal(table.cond(1), CLOSED, "close: a written zone")
        op(CLOSE, 1)
        tap.equal(table.cond(1), CLOSED, "close: again")
        op(OPEN, 1)
        tap.equal(table.cond(1), EXPLICIT, "open: a closed zone")
        op(FINISH, 1)
        zone = table.zone(1)
        tap.equal((zone.cond, zone.wp), (FULL, zone.start + zone.length),
                  "finish: full, the pointer at the end")
        op(FINISH, 1)
        tap.equal(table.cond(1), FULL, "finish: again")
        op(FINISH, 2)
        tap.equal(table.cond(2), FULL, "finish: an empty zone")
        op(RESET, 1)
        tap.equal((table.cond(1), table.written(1)), (EMPTY, 0),
                  "reset: empty, the pointer at the start")
        tap.equal(bytes(h.pread(B, 64 * K)), bytes(B),
                  "reset: what was there is gone")
        op(RESET, 1, nbd.CMD_FLAG_FUA)
        tap.equal(table.cond(1), EMPTY, "reset: again, with FUA")
        table.h.flush()
        tap.passed("the table is flushed")

        # All.  Zones: 3 implicitly open, 4 explicitly, 5 closed, 6 empty.
        def mixed():
            op(RESET)
            h.pwrite(b"3" * B, 192 * K)
            op(OPEN, 4)
            h.pwrite(b"4" * B, 256 * K)
            h.pwrite(b"5" * B, 320 * K)
            op(CLOSE, 5)
            op(FINISH, 7)
            return table.conds(3, 4, 5, 6, 7)

        tap.equal(mixed(), [IMPLICIT, EXPLICIT, CLOSED, EMPTY, FULL],
                  "zones in every condition")
        op(OPEN)
        tap.equal(table.conds(3, 4, 5, 6, 7),
                  [IMPLICIT, EXPLICIT, EXPLICIT, EMPTY, FULL],
                  "open all: the closed ones")
        mixed()
        op(CLOSE)
        tap.equal(table.conds(3, 4, 5, 6, 7),
                  [CLOSED, CLOSED, CLOSED, EMPTY, FULL],
                  "close all: the open ones")
        mixed()
        op(FINISH)
        tap.equal(table.conds(3, 4, 5, 6, 7),
                  [FULL, FULL, FULL, EMPTY, FULL],
                  "finish all: open and closed, not the empty ones")
        op(RESET)
        tap.equal(table.conds(*range(10)),
                  [NOT_WP] + [EMPTY] * 7 + [READ_ONLY, OFFLINE],
                  "reset all: all but conventional, read-only, offline")

        # Several records in one write, zone after zone; the first that
        # refuses ends it.
        several = bytearray(RECORD * 4)
        for i in 0, 1, 3:
            several[RECORD * i + 28] = OPEN
        table.h.pwrite(several, HEADER + RECORD * 2)
        tap.equal(table.conds(2, 3, 4, 5),
                  [EXPLICIT, EXPLICIT, EMPTY, EXPLICIT],
                  "several in one write")
        several[28] = CLOSE             # zone 2: open, so it is done
        several[RECORD + 28] = RESET    # zone 3: is done
        several[RECORD * 2 + 28] = CLOSE    # zone 4: empty, so refused
        several[RECORD * 3 + 28] = CLOSE    # zone 5: not come to
        tap.raises(nbd.Error,
                   lambda: table.h.pwrite(several, HEADER + RECORD * 2),
                   "several in one write, one refused", errno="EINVAL")
        tap.equal(table.conds(2, 3, 4, 5), [EMPTY, EMPTY, EMPTY, EXPLICIT],
                  "those before it are done, those after it are not")


def not_requests():
    """Everything but the request's byte is ignored."""
    with Served("size=640k", "zone-size=64k") as server:
        h = server.connect()
        h.pwrite(b"1" * B, 64 * K)
        table = server.table()
        before = table.raw()
        table.h.pwrite(before, 0)
        tap.equal(table.raw(), before, "the table written back as it is")
        junk = bytearray(b"\xff" * len(before))
        junk[60] = 0
        for i in range(10):
            junk[HEADER + RECORD * i + 28] = 0
        table.h.pwrite(junk, 0)
        tap.equal(table.raw(), before, "all other bytes set")
        if table.h.can_zero():
            table.h.zero(len(before), 0)
        else:
            table.h.pwrite(bytes(len(before)), 0)
        tap.equal(table.raw(), before, "zeroed")
        tap.ok(not table.h.can_trim(), "the table is not trimmed")

        # Read, changed and written back, in a larger block.
        block = bytearray(table.h.pread(4096, 0)) \
            + bytearray(table.h.pread(RECORD * 10, HEADER))
        block[HEADER + RECORD * 5 + 28] = FINISH
        table.h.pwrite(block, 0)
        tap.equal(table.conds(*range(10)),
                  [EMPTY, IMPLICIT] + [EMPTY] * 3 + [FULL] + [EMPTY] * 4,
                  "one request in a block of everything")
        tap.equal(decode_record(table.h.pread(RECORD, HEADER + RECORD * 5)),
                  table.zone(5), "a record read alone is the same")


fields()
requests()
not_requests()
tap.done_testing()
