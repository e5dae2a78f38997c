#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Zoned devices that fail under their server: zones that become read-only
or offline, bad blocks, a reset that the server does not know of, a disk that
is removed under load.  The right errors arrive, other zones go on, the state
is the device's afterwards, and the server lives and says what happened.
"""

import errno
import os
import subprocess
import time

import nbd

from harness import TAP, Nbdkit, ZnbdServer, connect
from host_device import HAS_POINTER, made
from nbd_raw import CMD_WRITE, Raw
from zone_model import EMPTY, FULL, OFFLINE, READ_ONLY

BLOCK = 4096
ZONE = 2 << 20


class Server:
    """One of both kinds, with a device."""

    def __init__(self, kind, device):
        self.kind, self.device = kind, device
        self.server = ZnbdServer(device.path, "--reorder-timeout", "300ms") \
            if kind == "znbd-server" else Nbdkit("reorder-timeout=300ms",
                                                 "file=" + device.path)

    def __enter__(self):
        self.server.start()
        self.h = connect(self.server.uri)
        self.table = connect(self.server.zones_uri)
        return self

    def __exit__(self, *exception):
        self.shut()
        self.server.stop()

    def shut(self):
        for h in (self.h, self.table):
            try:
                h.shutdown()
            except nbd.Error:
                pass

    def end(self):
        """When the last flush must fail."""
        self.shut()
        self.server.process.terminate()
        self.equal(self.server.process.wait(30),
                   1 if self.kind == "znbd-server" else 0,
                   "removed: it ends when it is told to")
        if self.kind == "znbd-server":
            self.said("cannot be flushed: ", "why not well")
        self.server._forget()

    def write(self, zone, at, n=1):
        """Blocks; answers what happened."""
        try:
            self.h.pwrite(bytes([65 + zone]) * (n * BLOCK),
                          zone * ZONE + at * BLOCK)
        except nbd.Error as e:
            return e.errno
        return "done"

    def read(self, zone, at, n=1):
        try:
            data = bytes(self.h.pread(n * BLOCK, zone * ZONE + at * BLOCK))
        except nbd.Error as e:
            return e.errno
        return "right" if data == bytes([65 + zone]) * len(data) \
            else "zeros" if data == bytes(len(data)) else "wrong"

    def manage(self, zone, request):
        raw = bytearray(64)
        raw[28] = request
        try:
            self.table.pwrite(raw, 4096 + 64 * zone)
        except nbd.Error as e:
            return e.errno
        return "done"

    def zones(self):
        """As the client sees them: [(condition, pointer)...]."""
        raw = bytes(self.table.pread(64 * self.device.count, 4096))
        zones = []
        for at in range(0, len(raw), 64):
            start = int.from_bytes(raw[at:at + 8], "little") * 512
            wp = int.from_bytes(raw[at + 16:at + 24], "little") * 512
            cond = raw[at + 25]
            zones.append((cond, wp - start if cond in HAS_POINTER else None))
        return zones

    def agrees(self, text):
        tap.equal(self.zones(), [(z.cond, z.wp) for z in
                                 self.device.blkzone()],
                  "%s: the report %s is the device's" % (self.kind, text))

    def said(self, regex, text):
        tap.like(self.server.log(), regex, "%s: it says %s" % (self.kind,
                                                               text))

    def equal(self, got, wanted, text):
        tap.equal(got, wanted, "%s: %s" % (self.kind, text))


def sector(zone, at=0):
    return (zone * ZONE + at * BLOCK) // 512


def from_the_start(s):
    """Zones 11 and 12 were as they are before the server came."""
    s.equal([z[0] for z in s.zones()[11:13]], [READ_ONLY, OFFLINE],
            "zones that were read-only and offline before are so")
    s.agrees("at the start")
    s.equal((s.write(11, 0), s.read(11, 0), s.manage(11, 4)),
            ("EPERM", "zeros", "EPERM"), "the read-only one is read")
    s.equal((s.write(12, 0), s.read(12, 0), s.manage(12, 4)),
            ("EIO", "EIO", "EIO"), "the offline one is not")


def conditions(s):
    device = s.device
    for zone in (2, 3, 4):
        s.equal(s.write(zone, 0, 8), "done", "zone %d is written" % zone)
    device.set("zone_readonly", sector(2))
    device.set("zone_offline", sector(3))
    # Nothing has told the server yet.
    s.equal(s.read(3, 0), "EIO", "a read of a zone that went offline")
    s.equal(s.write(2, 8), "EPERM", "a write of one that became read-only")
    s.said(r"zone 2: write failed .*read-only", "so")
    s.equal(s.read(2, 0, 8), "right", "what it holds is read")
    s.equal(s.write(3, 8), "EIO", "a write of the offline one")
    s.equal(s.manage(2, 4), "EPERM", "a reset of the read-only one")
    s.equal(s.manage(3, 4), "EIO", "and of the offline one")
    s.equal(s.write(4, 8, 8), "done", "other zones are written")
    s.equal(s.read(4, 0, 16), "right", "and read")
    s.equal([z[0] for z in s.zones()[2:4]], [READ_ONLY, OFFLINE],
            "both are reported so")
    s.agrees("with these")
    # Writing the same again brings them back, empty.
    device.set("zone_readonly", sector(2))
    device.set("zone_offline", sector(3))
    s.agrees("when they are back")
    s.equal(s.zones()[2], (EMPTY, 0), "they are empty")
    s.equal(s.write(2, 0, 4), "done", "and written again")
    s.equal(s.read(2, 0, 4), "right", "and read")
    # The kernel has an idea of its own of the pointer, until a reset.
    s.equal(s.manage(3, 4), "done", "zone 3 is reset")
    s.equal(s.write(3, 0), "done", "and written")
    s.agrees("after that")


def bad_blocks(s):
    device = s.device
    s.equal(s.write(5, 0, 4), "done", "zone 5 is written")
    # Block 10 of zone 5, and one of the conventional zone.
    bad = ["%d-%d" % (sector(zone, 10), sector(zone, 11) - 1)
           for zone in (0, 5)]
    for i in bad:
        device.set("badblocks", "+" + i)
    s.equal(s.write(5, 4, 6), "done", "up to a bad block it is written")
    s.equal(s.write(5, 10), "EIO", "the bad block is not")
    s.said("zone 5: write failed .*Input/output error", "so")
    s.equal(s.write(6, 0, 2), "done", "another zone is")
    s.equal(s.write(0, 10), "EIO", "a bad block of a conventional zone")
    s.equal(s.read(0, 10), "EIO", "is not read")
    s.equal(s.write(0, 11), "done", "the next one is written")
    s.agrees("with bad blocks")

    # Many writes in flight, one of which meets it.
    answers = {}
    cookies = {}
    for at in list(range(2, 40)):
        for zone in (6, 7):
            if zone == 7:
                at -= 2
            buf = nbd.Buffer.from_bytearray(
                bytearray(bytes([65 + zone]) * BLOCK))
            cookies[s.h.aio_pwrite(buf, zone * ZONE + at * BLOCK)] = \
                zone, at
    for i in (6, 20), (7, 21):
        device.set("badblocks", "+%d-%d" % (sector(*i),
                                            sector(i[0], i[1] + 1) - 1))
    again = [nbd.Buffer.from_bytearray(bytearray(bytes([65 + 8]) * BLOCK))
             for _ in range(40)]
    device.set("badblocks", "+%d-%d" % (sector(8, 15), sector(8, 16) - 1))
    for at, buf in enumerate(again):
        cookies[s.h.aio_pwrite(buf, 8 * ZONE + at * BLOCK)] = 8, at
    while len(answers) < len(cookies):
        for cookie, where in cookies.items():
            if where in answers:
                continue
            try:
                if s.h.aio_command_completed(cookie):
                    answers[where] = "done"
            except nbd.Error as e:
                answers[where] = e.errno
        if len(answers) < len(cookies):
            s.h.poll(-1)
    pointers = [wp for cond, wp in s.zones()]
    for zone, first in (6, 2), (7, 0), (8, 0):
        got = [answer for where, answer in sorted(answers.items())
               if where[0] == zone]
        n = got.count("done")
        # Those ahead of the pointer that does not move are refused.
        good = got == ["done"] * n + [a for a in got[n:]
                                      if a in ("EIO", "EINVAL")]
        s.equal((good, first * BLOCK + n * BLOCK), (True, pointers[zone]),
                "zone %d: the pointer is where %d writes in flight got to"
                % (zone, n))
    s.equal([a for w, a in answers.items() if w[0] == 8].count("done") <= 15,
            True, "no write went over the bad block")
    s.agrees("after many writes")
    for i in bad + ["%d-%d" % (sector(*i), sector(i[0], i[1] + 1) - 1)
                    for i in ((6, 20), (7, 21), (8, 15))]:
        device.set("badblocks", "-" + i)
    for zone in 6, 7, 8:
        n = pointers[zone] // BLOCK
        if n:
            s.equal(s.read(zone, 0, n), "right",
                    "zone %d: all below its pointer is there" % zone)
    s.equal(s.write(5, 10, 2), "done", "a block that is good again")
    s.equal(s.read(5, 0, 12), "right", "all is there")
    s.agrees("when all blocks are good")


def behind_the_back(s):
    device = s.device
    s.equal(s.write(9, 0, 8), "done", "zone 9 is written")
    subprocess.run(["blkzone", "reset", "--force", "-o", str(sector(9)),
                    "-c", "1", device.path], check=True)
    s.equal(s.write(9, 8), "EINVAL", "after a reset behind its back")
    s.said("zone 9: write failed .*empty", "so")
    s.agrees("after the reset")
    s.equal(s.read(9, 0), "zeros", "what was there is gone")
    s.equal(s.write(9, 0, 3), "done", "the zone is written again")
    device.reset(9)
    if s.kind == "znbd-server":
        h = nbd.NBD()
        h.add_meta_context("x-zbd:append")
        h.connect_uri(s.server.uri)
        h.pwrite(b"a" * BLOCK, 9 * ZONE)
        got = []
        h.block_status(BLOCK, 9 * ZONE,
                       lambda name, offset, entries, error:
                       got.extend(entries))
        h.shutdown()
        s.equal(got, [BLOCK, 1], "an append goes to the new pointer")
    s.agrees("after all that")
    s.equal(s.write(10, 0, ZONE // BLOCK), "done", "a zone is filled")
    s.equal(s.zones()[10][0], FULL, "it is full")
    device.reset(10)
    s.equal(s.zones()[10], (EMPTY, 0), "reset behind the server: empty")
    s.equal(s.write(10, 0), "done", "and written")
    s.agrees("in the end")


def removed(kind):
    """A disk that goes while many zones are written."""
    with made("smr_disk dev_size_mb=64 zone_size_mb=2 zone_nr_conv=2") \
            as device, Server(kind, device) as s:
        s.equal(s.write(4, 0, 8), "done", "zone 4 is written")
        raw = Raw(s.server.socket).begin()
        data = b"x" * BLOCK
        cookies = [raw.send(CMD_WRITE, zone * ZONE + at * BLOCK, BLOCK,
                            payload=data)
                   for at in range(24) for zone in range(5, 13)]
        with open("/sys/block/%s/device/delete"
                  % os.path.basename(device.path), "w") as f:
            f.write("1")
        cookies += [raw.send(CMD_WRITE, zone * ZONE + at * BLOCK, BLOCK,
                             payload=data)
                    for at in range(24, 32) for zone in range(5, 13)]
        errors = [raw.reply(cookie).error for cookie in cookies]
        raw.close()
        tap.diag("%d of %d writes done" % (errors.count(0), len(errors)))
        s.equal(len(errors), 256, "removed: every write is answered")
        # EINVAL: behind one that failed, so ahead of the pointer.
        s.equal(set(errors) - {0} - {errno.EINVAL}, {errno.EIO},
                "removed: with EIO, or done")
        s.equal(s.write(4, 8), "EIO", "removed: writes fail")
        s.equal(s.read(4, 0), "EIO", "removed: reads fail")
        s.equal(s.manage(4, 4), "EIO", "removed: operations fail")
        begin = time.monotonic()
        h = connect(s.server.uri)
        s.equal(h.get_size(), 64 << 20, "removed: the server lives")
        h.shutdown()
        s.equal(time.monotonic() - begin < 20, True, "and answers")
        s.said("zone .*: .* failed .No such device.*and so did its report",
               "so")
        s.equal(s.server.log().count("so did its report"), 1,
                "removed: once, whatever is still asked of it")
        s.end()


tap = TAP()
for kind in "znbd-server", "nbdkit":
    with made("null_blk size=32 zone_size=2 zone_nr_conv=1 blocksize=4096") \
            as device:
        device.set("zone_readonly", sector(11))
        device.set("zone_offline", sector(12))
        with Server(kind, device) as s:
            from_the_start(s)
            conditions(s)
            bad_blocks(s)
            behind_the_back(s)
    removed(kind)
tap.done_testing()
