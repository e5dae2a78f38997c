#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the NBD specification demands of what commands do: to the data, to
what other connections see, and to what is left after the power failed; one
check for each demand, see docs/nbd-conformance.md.

A power failure is a copy of the image in which the commits are another
boot's: then only what was made durable counts.
"""

import os
import shutil
import struct
import subprocess
import zlib

import nbd_raw as n
from nbd_raw import Raw
from harness import TAP, ZnbdServer, connect, run
from zone_table import Table

B = 4096
K = 1024
ZONE = 64 * K
SIZE = 16 * ZONE
DISK = "memory:1M,zone-size=64k,conventional=2"

tap = TAP()


def readonly():
    with ZnbdServer(DISK, "-r") as server:
        passed = []
        for kind in "simple", "structured", "extended":
            for name in "", "zones":
                r = Raw(server.socket).begin(
                    name, structured=kind != "simple",
                    extended=kind == "extended")
                low = 64 if name else B
                for command, flags in (
                        (n.CMD_WRITE, 0), (n.CMD_WRITE, n.FLAG_FUA),
                        (n.CMD_TRIM, 0), (n.CMD_WRITE_ZEROES, 0),
                        (n.CMD_WRITE_ZEROES, n.FLAG_NO_HOLE)):
                    payload = bytes(low) if command == n.CMD_WRITE else b""
                    if not r.ask(command, 0, low, flags, payload).error:
                        passed.append((kind, name, command, flags))
                r.close()
        tap.equal(passed, [], "a read-only export refuses every write")
        r = Raw(server.socket)
        r.option(n.OPT_STRUCTURED_REPLY)
        ids = r.meta(n.OPT_SET_META_CONTEXT,
                     ["x-zbd:append", "x-zbd:reset", "x-zbd:reset-all",
                      "x-zbd:open", "x-zbd:finish"])
        tap.equal(ids, {}, "a read-only export has no contexts that change it")
        r.close()


def effects(server):
    for kind in "simple", "structured", "extended":
        a = Raw(server.socket).begin(
            structured=kind != "simple", extended=kind == "extended",
            contexts=["base:allocation"] if kind != "simple" else ())
        b = Raw(server.socket).begin()
        a.ask(n.CMD_TRIM, 0, SIZE)
        data = os.urandom(8 * B)
        wrong = []
        for offset in 0, ZONE + B, 2 * ZONE:
            a.write(offset, data)
            if b.read(offset, 8 * B).data != data:
                wrong.append(offset)
        tap.equal(wrong, [], kind + ": what was answered is written")
        a.ask(n.CMD_WRITE_ZEROES, B, 2 * B)
        a.ask(n.CMD_WRITE_ZEROES, 4 * B, B, n.FLAG_NO_HOLE)
        a.ask(n.CMD_WRITE_ZEROES, 2 * ZONE + 8 * B, B)
        tap.equal((b.read(0, 8 * B).data, b.read(2 * ZONE, 9 * B).data),
                  (data[:B] + bytes(2 * B) + data[3 * B:4 * B] + bytes(B)
                   + data[5 * B:], data + bytes(B)),
                  kind + ": zeroes read back as zeros, and nothing else")
        before = b.read(0, SIZE).data
        a.ask(n.CMD_CACHE, 0, SIZE)
        a.ask(n.CMD_CACHE, 2 * ZONE, 16 * B)
        tap.ok(b.read(0, SIZE).data == before and
               a.write(2 * ZONE + 9 * B, data).error == 0 and
               b.read(2 * ZONE + 9 * B, 8 * B).data == data,
               kind + ": CACHE changes nothing")
        failed = [c for c, offset, length in (
            (n.CMD_READ, 0, B), (n.CMD_WRITE, 0, B), (n.CMD_FLUSH, 0, 0),
            (n.CMD_TRIM, 0, B), (n.CMD_CACHE, 0, B),
            (n.CMD_WRITE_ZEROES, 0, B), (n.CMD_BLOCK_STATUS, 0, B))
            if (c != n.CMD_BLOCK_STATUS or kind != "simple") and
            a.ask(c, offset, length, n.FLAG_FUA,
                  bytes(B) if c == n.CMD_WRITE else b"").error]
        tap.equal(failed, [], kind + ": FUA is taken on every command")
        notsup = [r for r in (
            a.ask(n.CMD_WRITE_ZEROES, offset, length, flags).error
            for offset in (0, 2 * ZONE, 3 * ZONE, SIZE)
            for length in (B, ZONE, SIZE)
            for flags in (0, n.FLAG_NO_HOLE, n.FLAG_FUA)) if r == n.ENOTSUP]
        tap.equal(notsup, [], kind + ": no ENOTSUP without FAST_ZERO")

        # More than a socket holds, so that most wait for their turn.
        a.ask(n.CMD_TRIM, 0, SIZE)
        cookies = [a.send(n.CMD_WRITE, 4 * ZONE + i * B, B, 0,
                          bytes([i + 1]) * B) for i in range(16)]
        cookies += [a.send(n.CMD_READ, 0, 8 * ZONE) for _ in range(20)]
        a.send(n.CMD_DISC)
        tap.ok(all(a.reply(c).error == 0 for c in cookies) and
               a.is_closed(),
               kind + ": DISC: all that was asked is answered, then it closes")
        tap.equal(b.read(4 * ZONE, ZONE).data,
                  b"".join(bytes([i + 1]) * B for i in range(16)),
                  kind + ": DISC: and done")
        b.close()


def after_power_failure(image):
    """The written bytes of each zone of a copy, and a reader of it."""
    copy = image + ".copy"
    shutil.copyfile(image, copy)
    with open(copy, "r+b") as f:
        seed = zlib.crc32(f.read(32)[16:32])
        for at in range(8192, 16384, 512):
            f.seek(at)
            commit = bytearray(f.read(512))
            commit[64] ^= 1                     # the boot's id
            commit[8:12] = bytes(4)
            commit[8:12] = struct.pack("<I", zlib.crc32(commit, seed))
            f.seek(at)
            f.write(commit)
    with ZnbdServer(copy, "-r") as server:
        table = Table(connect(server.zones_uri))
        written = [z.wp - z.start for z in table.report()]
        table.h.shutdown()
    return written


def durable():
    """The pointer moves with the data: what a power failure leaves of one
    it leaves of the other, tests of the image show that."""
    image = tap.path("disk.zbd")
    run("znbd", "create", "--size", SIZE, "--zone-size", ZONE, image)
    with ZnbdServer(image, "-t", 2) as server:
        a = Raw(server.socket).begin()
        b = Raw(server.socket).begin(contexts=["x-zbd:append"])
        a.write(2 * ZONE, bytes(B))
        tap.equal(after_power_failure(image)[2], 0,
                  "what was not flushed is lost (so the next checks can see)")
        a.ask(n.CMD_FLUSH)
        tap.equal(after_power_failure(image)[2], B,
                  "FLUSH: what was answered before is durable")
        b.write(3 * ZONE, bytes(B))
        a.write(2 * ZONE + B, bytes(B))
        b.ask(n.CMD_FLUSH)
        tap.equal(after_power_failure(image)[2:4], [2 * B, B],
                  "FLUSH: that of other connections too")
        for i, (what, flush) in enumerate((
                ("WRITE", lambda at: a.write(at, bytes(B), n.FLAG_FUA)),
                ("an append", lambda at: b.write(at, bytes(B), n.FLAG_FUA)),
                ("WRITE_ZEROES", lambda at: a.ask(
                    n.CMD_WRITE_ZEROES, at, B, n.FLAG_FUA)))):
            tap.equal((flush((4 + i) * ZONE).error,
                       after_power_failure(image)[4 + i]), (0, B),
                      "FUA: %s is durable when it is answered" % what)
        a.ask(n.CMD_TRIM, 4 * ZONE, ZONE, n.FLAG_FUA)
        tap.equal(after_power_failure(image)[4], 0,
                  "FUA: TRIM is durable when it is answered")
        t = Raw(server.socket).begin("zones")
        record = bytearray(64)
        record[28] = 4
        t.write(4096 + 5 * 64, record, n.FLAG_FUA)
        tap.equal(after_power_failure(image)[5], 0,
                  "FUA: a reset by the zone table is durable")
        t.write(4096 + 6 * 64, record)
        t.ask(n.CMD_FLUSH)
        tap.equal(after_power_failure(image)[6], 0,
                  "FLUSH of the zone table: a reset is durable")
        for r in a, b, t:
            r.close()


def holes():
    """WRITE_ZEROES with NO_HOLE, on an image in a file."""
    image = tap.path("holes.zbd")
    run("znbd", "create", "--size", SIZE, "--zone-size", ZONE,
        "--conventional", 4, image)
    with ZnbdServer(image) as server:
        r = Raw(server.socket).begin()
        before = os.stat(image).st_blocks
        r.ask(n.CMD_WRITE_ZEROES, ZONE, ZONE)
        without = os.stat(image).st_blocks - before
        r.ask(n.CMD_WRITE_ZEROES, ZONE, ZONE, n.FLAG_NO_HOLE)
        tap.ok(without < ZONE // 512 <= os.stat(image).st_blocks - before,
               "NO_HOLE: the zeroes have their space", without,
               os.stat(image).st_blocks - before)
        r.close()


def fast_zero():
    """A disk that is no faster at zeroes: an image on a block device."""
    backing = tap.path("backing")
    with open(backing, "wb") as f:
        f.truncate(8 << 20)
    status, device, err = run("losetup", "-f", "--show", backing) \
        if os.geteuid() == 0 and shutil.which("losetup") \
        else (1, "", "needs root and losetup")
    text = "FAST_ZERO: ENOTSUP where zeroes are not fast, and not offered"
    if status != 0:
        tap.skip(text, err.strip().replace("\n", " ") or "no loop devices")
        return
    device = device.strip()
    try:
        run("znbd", "create", "--size", "4M", "--zone-size", "1M",
            "--conventional", 1, device)
        with ZnbdServer(device) as server:
            r = Raw(server.socket).begin()
            r.write(0, b"x" * B)
            tap.equal((r.flags & n.SEND_FAST_ZERO,
                       r.ask(n.CMD_WRITE_ZEROES, 0, B,
                             n.FLAG_FAST_ZERO).error,
                       r.read(0, B).data,
                       r.ask(n.CMD_WRITE_ZEROES, 0, B).error),
                      (0, n.ENOTSUP, b"x" * B, 0), text)
            r.close()
    finally:
        subprocess.run(["losetup", "-d", device], check=False)


readonly()
with ZnbdServer(DISK) as server:
    effects(server)
durable()
holes()
fast_zero()
tap.done_testing()
