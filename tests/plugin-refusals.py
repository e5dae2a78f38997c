#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every refusal of the zone model through nbdkit, with the error number
that survives it, the line that nbdkit prints, and the zones as they were.
"""

import nbd

from harness import TAP, served_by
from zone_table import (CLOSE, CLOSED, EMPTY, EXPLICIT, FINISH, FULL,
                        IMPLICIT, OPEN, RESET, Served)

B = 4096
ZONE = 16 * B
CAP = 12 * B

tap = TAP()


def at(zone, block=0):
    return zone * ZONE + block * B


class Judge:
    """Looks at refusals of one server."""

    def __init__(self, server):
        self.server = server
        self.table = server.table()
        self.seen = 0

    def said(self):
        """What nbdkit said since the last time."""
        log = self.server.log()
        new, self.seen = log[self.seen:], len(log)
        return new

    def refused(self, call, want, message, text):
        """call fails with the errno want, for a reason that the server prints,
        and changes nothing."""
        before = self.table.report()
        self.said()
        try:
            call()
            got = "no error"
        except nbd.Error as e:
            got = e.errno
        said = self.said()
        tap.equal(got, want, text)
        tap.ok(message in said, "%s: says why" % text,
               "wanted: %r" % message, "in: %r" % said)
        tap.equal(self.table.report(), before, "%s: changes nothing" % text)


def data(blocks, byte=0x5a):
    return bytes([byte]) * (blocks * B)


def disk():
    with Served("size=640k", "zone-size=64k", "zone-capacity=48k",
                "conventional=1", "max-open=2", "max-active=3",
                "read-only-zones=8", "offline-zones=9",
                "reorder-timeout=0") as server:
        h = server.connect(strict=False)
        judge = Judge(server)
        table = judge.table
        op = table.request

        # Zone 1 holds four blocks and stays as it is.
        h.pwrite(data(4), at(1))

        for name, write in (
                ("write", lambda n, o: h.pwrite(data(n), o)),
                ("write zeroes", lambda n, o: h.zero(n * B, o)),
                ("write with FUA",
                 lambda n, o: h.pwrite(data(n), o, nbd.CMD_FLAG_FUA))):
            judge.refused(lambda: write(1, at(1, 3)), "EINVAL",
                    "zone 1", name + " below the pointer")
            judge.refused(lambda: write(2, at(1, 3)), "EINVAL",
                    "zone 1", name + " across the pointer")
            judge.refused(lambda: write(1, at(1, 6)), "EINVAL",
                    "zone 1", name + " ahead of the pointer")
            judge.refused(lambda: write(9, at(1, 4)), "ENOSPC",
                    "zone 1", name + " across the capacity")
            judge.refused(lambda: write(1, at(1, 13)), "ENOSPC",
                    "zone 1", name + " past the capacity")
            judge.refused(lambda: write(1, at(8)), "EPERM",
                    "zone 8 is read-only", name + " in a read-only zone")
            judge.refused(lambda: write(1, at(9)), "EIO",
                    "zone 9 is offline", name + " in an offline zone")

        # The line of a write that came alone names what to look at.
        judge.said()
        try:
            h.pwrite(data(1), at(1, 6))
        except nbd.Error:
            pass
        said = judge.said()
        if served_by == "nbdkit":
            tap.ok("-t" in said and "--requests" in said,
                   "ahead of the pointer: names -t and --requests", said)
        tap.ok(str(at(1, 4)) in said,
             "ahead of the pointer: says where the pointer is", said)

        # Full, and full by finishing.
        h.pwrite(data(12), at(2))
        op(FINISH, 3)
        for zone in 2, 3:
            judge.refused(lambda: h.pwrite(data(1), at(zone)), "ENOSPC",
                    "zone %d is full" % zone, "write to full zone %d" % zone)
            judge.refused(lambda: h.zero(B, at(zone, 4)), "ENOSPC",
                    "zone %d is full" % zone, "zero in full zone %d" % zone)

        # Reads of an offline zone, alone and on the way; of a read-only one
        judge.refused(lambda: h.pread(B, at(9)), "EIO",
                "zone 9 is offline", "read of an offline zone")
        judge.refused(lambda: h.pread(2 * B, at(8, 15)), "EIO",
                "zone 9 is offline", "read into an offline zone")
        tap.equal(h.pread(B, at(8)), bytes(B), "a read-only zone is read")

        # Off the block size.
        for what, call in (
                ("write of half a block",
                 lambda: h.pwrite(data(1)[:512], at(1, 4))),
                ("write at half a block",
                 lambda: h.pwrite(data(1), at(1, 4) + 512)),
                ("zero of half a block", lambda: h.zero(512, at(1, 4))),
                ("write of half a block, conventional",
                 lambda: h.pwrite(data(1)[:512], 0)),
                ("trim of half a zone more",
                 lambda: h.trim(ZONE + 512, at(1)))):
            judge.refused(call, "EINVAL", "block size 4096", what)

        # Past the end: nbdkit's own refusal.
        judge.refused(lambda: h.pread(2 * B, at(10) - B), "EINVAL", "",
                "read past the end")
        judge.refused(lambda: h.pwrite(data(2), at(10) - B), "ENOSPC", "",
                "write past the end")

        # Limits.  Eviction makes room until all are explicitly open.
        op(OPEN, 1)
        op(OPEN, 4)
        tap.equal([table.cond(z) for z in (1, 4)], [EXPLICIT, EXPLICIT],
                "two zones are explicitly open")
        too_many = "EINVAL" if served_by == "nbdkit" else "EOVERFLOW"
        judge.refused(lambda: h.pwrite(data(1), at(5)), too_many,
                "limit of 2 open zones", "write beyond the open limit")
        judge.refused(lambda: op(OPEN, 5), too_many,
                "limit of 2 open zones", "open beyond the open limit")
        op(CLOSE, 1)
        h.pwrite(data(1), at(5))
        h.pwrite(data(1), at(4))
        tap.equal([table.cond(z) for z in (1, 4, 5)],
                [CLOSED, EXPLICIT, IMPLICIT], "three zones are active")
        judge.refused(lambda: h.pwrite(data(1), at(6)), too_many,
                "limit of 3 active zones", "write beyond the active limit")
        judge.refused(lambda: op(OPEN, 6), too_many,
                "limit of 3 active zones", "open beyond the active limit")

        # Management.
        for name, code, zone, want, message in (
                ("open a full zone", OPEN, 2, "EINVAL", "zone 2 (full"),
                ("close a full zone", CLOSE, 2, "EINVAL", "zone 2 (full"),
                ("close an empty zone", CLOSE, 6, "EINVAL", "zone 6 (empty"),
                ("open a conventional zone", OPEN, 0, "EINVAL",
                 "zone 0 is conventional"),
                ("close a conventional zone", CLOSE, 0, "EINVAL",
                 "zone 0 is conventional"),
                ("finish a conventional zone", FINISH, 0, "EINVAL",
                 "zone 0 is conventional"),
                ("reset a conventional zone", RESET, 0, "EINVAL",
                 "zone 0 is conventional"),
                ("open a read-only zone", OPEN, 8, "EPERM",
                 "zone 8 is read-only"),
                ("close a read-only zone", CLOSE, 8, "EPERM",
                 "zone 8 is read-only"),
                ("finish a read-only zone", FINISH, 8, "EPERM",
                 "zone 8 is read-only"),
                ("reset a read-only zone", RESET, 8, "EPERM",
                 "zone 8 is read-only"),
                ("open an offline zone", OPEN, 9, "EIO",
                 "zone 9 is offline"),
                ("close an offline zone", CLOSE, 9, "EIO",
                 "zone 9 is offline"),
                ("finish an offline zone", FINISH, 9, "EIO",
                 "zone 9 is offline"),
                ("reset an offline zone", RESET, 9, "EIO",
                 "zone 9 is offline"),
                ("request 5", 5, 4, "EINVAL", "5"),
                ("request 255", 255, 4, "EINVAL", "255")):
            judge.refused(lambda: op(code, zone), want, message, name)
        judge.refused(lambda: op(5), "EINVAL", "5", "request 5 for all")

        # The table's own block size, 64.
        z = server.table(strict=False).h
        record = bytearray(64)
        record[28] = RESET
        judge.refused(lambda: z.pwrite(record[:32], 4096 + 64), "EINVAL",
                "64", "table write of half a record")
        judge.refused(lambda: z.pwrite(record, 4096 + 96), "EINVAL",
                "64", "table write across records")
        judge.refused(lambda: z.pread(100, 4096), "EINVAL", "64",
                "table read of a record and a half")

        # What was refused has not got in the way of what is allowed.
        h.pwrite(data(1, 0x77), at(1, 4))
        tap.equal(h.pread(6 * B, at(1)),
                data(4) + data(1, 0x77) + bytes(B),
                "the zone goes on where its pointer stood")
        tap.equal(table.cond(2), FULL, "the full zone is full")
        tap.equal(table.cond(6), EMPTY, "the empty zone is empty")


def parts():
    """A write over several zones: the first error answers, and the parts
    before it stay."""
    with Served("size=320k", "zone-size=64k", "read-only-zones=2",
                "reorder-timeout=0") as server:
        h = server.connect(strict=False)
        table = server.table()
        try:
            h.pwrite(data(48), 0)
            got = "no error"
        except nbd.Error as e:
            got = e.errno
        tap.equal(got, "EPERM", "a write that ends in a read-only zone fails")
        tap.equal(h.pread(2 * ZONE, 0), data(32), "and its first zones stay")
        tap.equal([table.cond(z) for z in (0, 1)], [FULL, FULL],
                "and are full")


def readonly():
    """nbdkit -r: the same disk, and nothing of it changes."""
    with Served("size=320k", "zone-size=64k", options=("-r",)) as server:
        h = server.connect(strict=False)
        z = server.table(strict=False).h
        judge = Judge(server)
        tap.ok(h.is_read_only() and z.is_read_only(),
             "-r: both exports are read-only")
        record = bytearray(64)
        record[28] = FINISH
        for what, call in (
                ("write", lambda: h.pwrite(data(1), 0)),
                ("zero", lambda: h.zero(B, 0)),
                ("trim", lambda: h.trim(ZONE, 0)),
                ("table write", lambda: z.pwrite(record, 4096))):
            judge.refused(call, "EPERM", "", "-r: " + what)
        tap.equal(h.pread(B, 0), bytes(B), "-r: the disk is read")
        tap.equal(bytes(z.pread(64, 0)[:8]), b"ZBDTABLE",
                  "-r: the table is read")


def exports():
    """Export names come from anyone."""
    with Served("size=320k", "zone-size=64k") as server:
        judge = Judge(server)
        for name in ("zone", "zones/", "/zones", "Zones", "x" * 300,
                     "a\x1b[31mb"):
            judge.said()
            try:
                h = nbd.NBD()
                h.set_export_name(name)
                h.connect_unix(server.socket)
                got = "connected"
            except nbd.Error:
                got = "refused"
            said = judge.said()
            tap.equal(got, "refused", "export %r" % name[:20])
            tap.ok("no export" in said and "zones" in said,
                 "export %r: says which there are" % name[:20], said)
            tap.ok("\x1b" not in said and "x" * 100 not in said,
                 "export %r: repeats nothing harmful" % name[:20], said)


disk()
parts()
readonly()
exports()
tap.done_testing()
