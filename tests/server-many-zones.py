#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A disk of 20 TB in 75,000 zones through nbdinfo, empty and with every
zone part-written: what it lists, and its map line by line.  In memory, and
in an image where some file system takes a file of that size.
"""

import json
import os
import shutil
import struct
import tempfile
import time

import nbd_raw as n
from harness import TAP, ZnbdServer, connect, run
from zone_table import Table

B = 4096
ZONE = 256 << 20
ZONES = 75000
SIZE = ZONES * ZONE
OPEN = 128              # max-open
EMPTY, IMPLICIT, CLOSED, SEQ = 1, 2, 4, 2

tap = TAP()


def flags(cond, region):
    return cond | SEQ << 4 | region << 8


def nbdinfo(*args):
    begin = time.monotonic()
    status, out, err = run("nbdinfo", *args)
    tap.diag("nbdinfo %s: %.2f s" % (" ".join(args[:-1]),
                                     time.monotonic() - begin))
    tap.equal((status, err), (0, ""), "nbdinfo " + " ".join(args[:-1]))
    return out


def same_lines(got, wanted, text):
    """Says where they part, not all of it."""
    for i, (g, w) in enumerate(zip(got, wanted)):
        if g != w:
            tap.fail(text, "line %d: %r" % (i, g), "wanted:  %r" % (w,))
            return
    tap.equal(len(got), len(wanted), text)


def map_of(uri, context):
    return [tuple(int(x) for x in line.split()[:3])
            for line in nbdinfo("--map=" + context, uri).splitlines()]


def listing(uri):
    out = nbdinfo(uri)
    tap.like(out, r"export-size: %d \(" % SIZE, "the size")
    tap.like(out, r"x-zbd:geometry:version=1,model=host-managed,zones=75000,"
             r"zone-size=268435456,.*max-open=128,.*granularity=4096,",
             "the geometry is listed")
    export, = json.loads(nbdinfo("--json", uri))["exports"]
    tap.equal(export["export-size"], SIZE, "the size in JSON")
    tap.ok([x for x in export["contexts"]
            if x.startswith("x-zbd:geometry:") and "zones=75000" in x],
           "the geometry in JSON", export["contexts"])
    exports = json.loads(nbdinfo("--list", "--json", uri))["exports"]
    tap.equal([(e["export-name"], e["export-size"]) for e in exports],
              [("", SIZE), ("zones", 4096 + 64 * ZONES)],
              "the disk and its table")
    tap.like(exports[0]["description"], "75000 zones of 256M",
             "the description")


def write_all(server):
    """A block into every zone, 500 writes at a time."""
    r = n.Raw(server.socket).begin(structured=False)
    begin = time.monotonic()
    for first in range(0, ZONES, 500):
        zones = range(first, min(first + 500, ZONES))
        r.raw(b"".join(
            struct.pack(">IHHQQI", 0x25609513, 0, n.CMD_WRITE, z, z * ZONE, B)
            + struct.pack("<Q", z) * (B // 8) for z in zones))
        replies = r.recv(16 * len(zones))
        assert not any(error for magic, error, cookie in
                       struct.iter_unpack(">IIQ", replies))
    tap.diag("written in %.2f s" % (time.monotonic() - begin))
    r.close()


def look(server):
    listing(server.uri)
    tap.equal(map_of(server.uri, "x-zbd:zones"),
              [(0, SIZE, flags(EMPTY, 2))], "empty: one line is the map")
    tap.equal(map_of(server.uri, "base:allocation"), [(0, SIZE, 3)],
              "empty: nothing is allocated")
    write_all(server)
    conds = [CLOSED] * (ZONES - OPEN) + [IMPLICIT] * OPEN
    wanted = []
    for z, cond in enumerate(conds):
        wanted.append((z * ZONE, B, flags(cond, 1)))
        wanted.append((z * ZONE + B, ZONE - B, flags(cond, 2)))
    same_lines(map_of(server.uri, "x-zbd:zones"), wanted,
               "part-written: each of 150,000 lines")
    same_lines(map_of(server.uri, "base:allocation"),
               [(at, length, 0 if length == B else 3)
                for at, length, _ in wanted], "part-written: what is data")
    listing(server.uri)
    table = Table(connect(server.zones_uri))
    same_lines([(z.start, z.wp - z.start, z.cond) for z in table.report()],
               [(z * ZONE, B, cond) for z, cond in enumerate(conds)],
               "part-written: the zone table")
    table.h.shutdown()
    h = connect(server.uri)
    tap.ok(all(bytes(h.pread(B, z * ZONE)) == struct.pack("<Q", z) * (B // 8)
               for z in (0, 1, 37499, ZONES - 2, ZONES - 1)),
           "each has its data")
    h.shutdown()
    with open("/proc/%d/status" % server.pid) as status:
        tap.diag(*[line for line in status if line.startswith("VmHWM")])


def room_for_image():
    """A folder that takes a file of this size, or None."""
    for folder in tempfile.gettempdir(), "/dev/shm":
        try:
            with tempfile.TemporaryFile(dir=folder) as f:
                os.truncate(f.fileno(), SIZE + (1 << 30))
            return folder
        except OSError:
            pass
    return None


with ZnbdServer("memory:%d,zone-size=256M,max-open=%d" % (SIZE, OPEN)) as s:
    look(s)

folder = room_for_image()
if folder is None:
    tap.skip("an image", "no file system here takes a file of 20 TB")
else:
    with tempfile.TemporaryDirectory(dir=folder, prefix="znbd-test.") as tmp:
        image = os.path.join(tmp, "disk.zbd")
        status, out, err = run("znbd", "create", "--size", SIZE, "--zone-size",
                               "256M", "--max-open", OPEN, image)
        tap.equal(status, 0, "znbd create: 20 TB")
        with ZnbdServer(image) as s:
            look(s)
        begin = time.monotonic()
        with ZnbdServer(image) as s:
            tap.diag("opened again in %.2f s" % (time.monotonic() - begin))
            tap.equal(map_of(s.uri, "x-zbd:zones")[:3],
                      [(0, B, flags(CLOSED, 1)),
                       (B, ZONE - B, flags(CLOSED, 2)),
                       (ZONE, B, flags(CLOSED, 1))],
                      "the image has its zones when it is served again")
        status, out, err = run("nbdinfo", "[", shutil.which("znbd-server"),
                               image, "]")
        tap.like(out, "75000 zones of 256M", "nbdinfo [ znbd-server IMAGE ]")
tap.done_testing()
