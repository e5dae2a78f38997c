#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A read-only export changes nothing by any road: every command with every
flag, every context, armed and not, and the zone table, through znbd-server
-r and of an image that may only be read.  Not a byte of the image is
another one afterwards, and what other servers of it show neither.
"""

import hashlib
import itertools
import os
import shutil
import struct

import nbd

import nbd_raw as n
from harness import TAP, ZnbdServer, connect, run
from zone_table import Table

B = 4096
ZONE = 1 << 20
ZONES = 16
SIZE = ZONES * ZONE
OPS = ["open", "close", "finish", "reset"]

tap = TAP()
image = tap.path("disk.zbd")


def make():
    """An image with zones in every condition and data in them."""
    status, out, err = run("znbd", "create", "--size", SIZE, "--zone-size",
                           ZONE, "--conventional", 2, "--max-open", 4,
                           "--max-active", 8, image)
    if status:
        raise Exception(out + err)
    with ZnbdServer(image) as server:
        h = connect(server.uri)
        for zone, length in (0, B), (2, B), (3, ZONE), (4, 3 * B), (5, B):
            h.pwrite(os.urandom(length), zone * ZONE)
        table = Table(connect(server.zones_uri))
        table.request(3, 6)             # finish
        table.request(2, 4)             # close
        h.flush()
        h.shutdown()
        table.h.shutdown()


def fingerprint():
    with open(image, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    stat = os.stat(image)
    return digest, stat.st_size, stat.st_blocks, stat.st_mtime_ns


def commands(server, extended):
    """Each command with each combination of flags, at a few places."""
    r = n.Raw(server.socket).begin(contexts=["base:allocation"],
                                   extended=extended)
    changed, refused, total = [], 0, 0
    places = [(0, B), (2 * ZONE, B), (2 * ZONE + B, B), (7 * ZONE, ZONE),
              (0, SIZE), (SIZE - B, B), (SIZE, B), (2 * ZONE + 512, 512),
              (7 * ZONE, 0)]
    for kind, flags, (offset, length) in itertools.product(
            (n.CMD_WRITE, n.CMD_TRIM, n.CMD_WRITE_ZEROES, n.CMD_CACHE,
             n.CMD_FLUSH, 8, 65535), range(64), places):
        if kind == n.CMD_FLUSH:
            offset, length = 0, 0
        data = b""
        if kind == n.CMD_WRITE:
            if length > ZONE:
                continue
            data = b"!" * length
        elif extended and flags & n.FLAG_PAYLOAD_LEN:
            length = min(length, 512)   # then this is its payload
            data = b"!" * length
        a = r.ask(kind, offset, length, flags, data)
        total += 1
        refused += a.error != 0
        if a.error == 0 and kind in (n.CMD_WRITE, n.CMD_TRIM,
                                     n.CMD_WRITE_ZEROES):
            changed.append((kind, flags, offset, length))
    tap.equal(changed, [], "%s headers: of %d commands none that changes "
              "something succeeds" % ("extended" if extended else "compact",
                                      total))
    tap.equal(r.write(7 * ZONE, bytes(B)).error, n.EPERM,
              "a write at a pointer: EPERM")
    r.close()


def contexts(server):
    """The contexts of management are not there; nor by a payload."""
    names = ["x-zbd:" + op + all_ for op in OPS for all_ in ("", "-all")]
    names.append("x-zbd:append")
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_uri(server.uri)
    listed = []
    h.opt_list_meta_context(listed.append)
    h.opt_abort()
    tap.ok(listed and not [x for x in names if x in listed],
           "contexts that change something are not listed", listed)
    for name in names:
        h = nbd.NBD()
        h.set_strict_mode(0)
        h.add_meta_context(name)
        h.connect_uri(server.uri)
        tap.ok(not h.can_meta_context(name), name + ": not there")
        for offset, length in ((2 * ZONE, B), (2 * ZONE, ZONE), (0, B),
                               (0, SIZE)):
            try:
                h.block_status(length, offset, lambda *a: 0,
                               nbd.CMD_FLAG_REQ_ONE)
            except nbd.Error:
                pass
        try:
            h.pwrite(bytes(B), 2 * ZONE)
            tap.fail(name + ": no write goes through")
        except nbd.Error:
            pass
        h.shutdown()
    # All that is there, and payloads that name every id, armed.
    r = n.Raw(server.socket).begin(contexts=["base:allocation"] + names
                                   + ["x-zbd:zones"], extended=True)
    tap.equal(sorted(r.ids), ["base:allocation", "x-zbd:zones"],
              "contexts that are selected together")
    for number in range(1, 40):
        for zone in range(2, 8):
            payload = struct.pack(">QI", ZONE, number)
            r.ask(n.CMD_BLOCK_STATUS, zone * ZONE, len(payload),
                  n.FLAG_REQ_ONE | n.FLAG_PAYLOAD_LEN, payload)
    r.close()


def table(server):
    """Requests to the zone table, and everything else sent there."""
    r = n.Raw(server.socket).begin("zones")
    went = []
    for request in range(256):
        for offset in (0, *(4096 + 64 * z for z in range(ZONES))):
            record = bytearray(64)
            record[60 if offset == 0 else 28] = request
            for flags in 0, n.FLAG_FUA:
                if r.write(offset, bytes(record), flags).error == 0:
                    went.append((request, offset))
    for kind in n.CMD_TRIM, n.CMD_WRITE_ZEROES:
        if r.ask(kind, 4096, 64).error == 0:
            went.append(kind)
    tap.equal(went, [], "the table takes no request")
    r.close()


def tools(server):
    """What people would use."""
    for what in (["reset", "--all"], ["finish", "--zone", "2"],
                 ["open", "--zone", "7"], ["close", "--zone", "2"]):
        status, out, err = run("znbd", what[0], server.uri, *what[1:])
        tap.ok(status != 0, "znbd %s fails" % " ".join(what), out, err)


def look(server):
    h = connect(server.uri)
    data = hashlib.sha256()
    for offset in range(0, SIZE, ZONE):
        data.update(h.pread(ZONE, offset))
    t = Table(connect(server.zones_uri))
    zones = t.report()
    h.shutdown()
    t.h.shutdown()
    return data.hexdigest(), zones


def roads(server, text):
    before = fingerprint()
    seen = look(server)
    tap.diag(text)
    h = connect(server.uri)
    tap.ok(h.is_read_only(), text + ": the disk is read-only")
    h.shutdown()
    commands(server, False)
    commands(server, True)
    contexts(server)
    table(server)
    tools(server)
    tap.equal(look(server), seen, text + ": nothing looks different")
    server.stop()
    tap.equal(fingerprint(), before,
              text + ": not a byte of the image is different, nor its times")


make()
first = fingerprint()
with ZnbdServer(image, "-r") as server:
    # Another one beside it, of the same image.
    with ZnbdServer(image, "-r") as other:
        tap.equal(look(other), look(server), "two of them serve one image")
    roads(server, "-r")

# An image that its user may not write is served so by itself.  (Root may.)
os.chmod(image, 0o444)
kept = tap.path("kept.zbd")
shutil.copy2(image, kept)
before = fingerprint()
if os.geteuid() == 0 and shutil.which("setpriv"):
    os.chmod(tap.tmp, 0o777)
    server = ZnbdServer(image)
    server.argv = ["setpriv", "--reuid", "65534", "--clear-groups",
                   *server.argv]
    with server:
        roads(server, "an image that may not be written")
elif os.geteuid() != 0:
    with ZnbdServer(image) as server:
        roads(server, "an image that may not be written")
else:
    tap.skip("an image that may not be written", "setpriv is not installed")
tap.equal(fingerprint(), first[:2] + before[2:], "the image is the first one")

# In memory there is no image to look at.
with ZnbdServer("memory:16M,zone-size=1M,conventional=2", "-r") as server:
    seen = look(server)
    commands(server, True)
    contexts(server)
    table(server)
    tap.equal(look(server), seen, "in memory: nothing looks different")

# The same roads lead somewhere where they may.
os.chmod(image, 0o644)
with ZnbdServer(image) as server:
    r = n.Raw(server.socket).begin(contexts=["x-zbd:reset"])
    r.status(4 * ZONE, B, n.FLAG_REQ_ONE)
    tap.equal(r.write(7 * ZONE, bytes(B)).error, 0, "not so without -r")
    r.close()
    t = Table(connect(server.zones_uri))
    tap.equal((t.cond(4), t.written(7)), (1, B), "... it is changed")
    t.h.shutdown()
tap.ok(fingerprint()[0] != first[0], "... and so is the image")
tap.done_testing()
