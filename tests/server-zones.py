#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd-server's x-zbd contexts, through libnbd's module and, for extended
headers and payload filters, the tests' own client: the report, management
and when it is armed, appends and their held answers.
"""

import struct
import threading
import time

import nbd

import nbd_raw as n
from nbd_raw import Raw
from harness import TAP, ZnbdServer, connect
from zone_table import Table

K = 1024
B = 4096
ZONE = 64 * K
ZONES = 16
SIZE = ZONES * ZONE
DISK = "memory:1M,zone-size=64k,zone-capacity=48k,conventional=2,max-open=3," \
       "max-active=4,read-only-zones=14,offline-zones=15"
EMPTY, IMPLICIT, EXPLICIT, CLOSED, FULL = 1, 2, 3, 4, 14

tap = TAP()
server = ZnbdServer(DISK)


def context(*names):
    h = nbd.NBD()
    for name in names:
        h.add_meta_context(name)
    h.connect_uri(server.uri)
    return h


def status(h, length, offset, flags=0):
    """{context: [(length, flags)...]}"""
    found = {}

    def extent(name, at, entries, error):
        found[name] = list(zip(entries[0::2], entries[1::2]))

    h.block_status(length, offset, extent, flags)
    return found


def one(h, offset, length=B, flags=nbd.CMD_FLAG_REQ_ONE):
    """The only descriptor of the only context."""
    (found,) = status(h, length, offset, flags).values()
    return found[0]


def cond(zone):
    """From the report, by a connection of its own."""
    h = context("x-zbd:zones")
    flags = one(h, zone * ZONE)[1]
    h.shutdown()
    return flags & 15


def conds(*zones):
    return [cond(z) for z in zones]


def report():
    h = context("x-zbd:zones", "base:allocation")
    tap.ok(h.can_meta_context("x-zbd:zones"), "libnbd selects x-zbd:zones")
    got = status(h, SIZE, 0)
    region = [0, 1 << 8, 2 << 8, 3 << 8]
    seq = 2 << 4
    empty = [(48 * K, seq | EMPTY | region[2]), (16 * K,
                                                 seq | EMPTY | region[3])]
    tap.equal(got["x-zbd:zones"],
              [(2 * ZONE, 1 << 4)] + empty * 12
              + [(48 * K, seq | 13 | region[1]), (16 * K, seq | 13
                                                  | region[3]),
                 (ZONE, seq | 15)], "the report")
    h.pwrite(bytes(3 * B), 2 * ZONE)
    got = status(h, ZONE, 2 * ZONE)
    seq |= IMPLICIT
    tap.equal(got["x-zbd:zones"],
              [(3 * B, seq | region[1]), (48 * K - 3 * B, seq | region[2]),
               (16 * K, seq | region[3])], "a zone in three descriptors")
    tap.equal(got["base:allocation"], [(3 * B, 0), (ZONE - 3 * B, 3)],
              "its data, and a hole")
    got = status(h, 2 * B, 2 * ZONE + 2 * B)
    tap.equal(got["x-zbd:zones"], [(B, seq | region[1]),
                                   (B, seq | region[2])],
              "a part: it begins at the offset")
    got = status(h, SIZE, 0, nbd.CMD_FLAG_REQ_ONE)
    tap.equal([len(x) for x in got.values()], [1, 1],
              "REQ_ONE: one descriptor")
    h.shutdown()
    h = context("x-zbd:geometry")
    tap.ok(not h.can_meta_context("x-zbd:geometry"),
           "the geometry's short name is not for selecting")
    h.shutdown()
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_uri(server.uri)
    names = []
    h.opt_list_meta_context(names.append)
    h.opt_abort()
    (name,) = [x for x in names if x.startswith("x-zbd:geometry:")]
    h = context(name)
    tap.ok(h.can_meta_context(name), "the geometry's whole name is")
    tap.equal(one(h, 0, SIZE), (SIZE, 0), "its status is 0")
    h.shutdown()


def manage():
    hs = {x: context("x-zbd:" + x) for x in
          ("open", "close", "finish", "reset", "open-all", "close-all",
           "finish-all", "reset-all")}
    writer = connect(server.uri)
    one(hs["reset-all"], 0)
    z3 = 3 * ZONE

    # Not armed.
    tap.equal(one(hs["open"], z3, flags=0), (B, 0),
              "without REQ_ONE: 0, and nothing happens")
    both = context("x-zbd:open", "x-zbd:zones")
    status(both, B, z3, nbd.CMD_FLAG_REQ_ONE)
    tap.equal(cond(3), EMPTY, "nor beside another context")
    both.shutdown()
    tap.equal(one(hs["open"], 0, SIZE, 0), (SIZE, 0),
              "a map over the whole disk is harmless")

    tap.equal(one(hs["open"], z3), (B, 1), "open: one granularity, 1")
    tap.equal(cond(3), EXPLICIT, "the zone is open")
    writer.pwrite(bytes(B), z3)
    one(hs["close"], z3)
    tap.equal(cond(3), CLOSED, "close")
    one(hs["finish"], z3)
    tap.equal(cond(3), FULL, "finish")
    one(hs["reset"], z3)
    tap.equal(cond(3), EMPTY, "reset")

    # Ranges.
    tap.equal(one(hs["finish"], z3, 3 * ZONE), (3 * ZONE, 1),
              "a range: the length done")
    tap.equal(conds(3, 4, 5, 6), [FULL, FULL, FULL, EMPTY], "all of it")
    tap.equal(one(hs["reset"], 12 * ZONE, 4 * ZONE), (2 * ZONE, 1),
              "a range that a zone ends: the length up to it")
    tap.raises(nbd.Error, lambda: one(hs["reset"], 14 * ZONE, 2 * ZONE),
               "asking on: the error", "EPERM")
    tap.raises(nbd.Error, lambda: one(hs["reset"], 15 * ZONE),
               "an offline zone", "EIO")
    tap.raises(nbd.Error, lambda: one(hs["open"], 0),
               "a conventional zone", "EINVAL")
    for text, offset, length in (
            ("inside a zone", z3 + B, B), ("half a zone", z3, ZONE // 2),
            ("a zone and a half", z3, ZONE + B),
            ("inside, whole zones", z3 + B, ZONE)):
        tap.raises(nbd.Error, lambda: one(hs["reset"], offset, length),
                   text + ": EINVAL", "EINVAL")
    for x in 3, 4, 5, 6:
        one(hs["reset"], x * ZONE)

    # Limits: 3 open, 4 active.
    for x in 2, 3, 4:
        one(hs["open"], x * ZONE)
    tap.raises(nbd.Error, lambda: one(hs["open"], 5 * ZONE),
               "too many open", "EOVERFLOW")
    raw = Raw(server.socket).begin(contexts=["x-zbd:open"])
    a = raw.status(5 * ZONE, B, n.FLAG_REQ_ONE)
    tap.ok(a.error == n.EOVERFLOW and "open" in a.message,
           "with words", repr(a))
    raw.close()

    # All.
    writer.pwrite(bytes(B), 3 * ZONE)
    tap.equal(one(hs["close-all"], 0), (B, 1), "close-all")
    tap.equal(conds(2, 3, 4), [EMPTY, CLOSED, EMPTY], "the open ones")
    one(hs["open-all"], 0)
    tap.equal(conds(2, 3), [EMPTY, EXPLICIT], "open-all: the closed ones")
    one(hs["finish-all"], 0)
    tap.equal(conds(2, 3), [EMPTY, FULL], "finish-all: those not empty")
    for offset, length in (0, 2 * B), (B, B), (0, SIZE):
        tap.raises(nbd.Error, lambda: one(hs["reset-all"], offset, length),
                   "reset-all at %d, %d: EINVAL" % (offset, length),
                   "EINVAL")
    tap.equal(one(hs["reset-all"], 0, flags=0), (B, 0), "reset-all unarmed")
    tap.equal(cond(3), FULL, "does nothing")
    one(hs["reset-all"], 0)
    tap.equal(cond(3), EMPTY, "reset-all")

    # What is selected by a payload is armed too.
    raw = Raw(server.socket).begin(
        contexts=["x-zbd:zones", "x-zbd:open", "x-zbd:reset",
                  "base:allocation"], extended=True)
    open_id, reset_id = raw.ids["x-zbd:open"], raw.ids["x-zbd:reset"]
    a = raw.status(z3, B, n.FLAG_REQ_ONE)
    tap.equal((len(a.extents), cond(3)), (4, EMPTY),
              "extended: four contexts, none armed")
    a = raw.status(z3, B, n.FLAG_REQ_ONE, only=[open_id, reset_id])
    tap.equal((a.extents, cond(3)),
              ({open_id: [(B, 0)], reset_id: [(B, 0)]}, EMPTY),
              "a payload of two arms neither")
    a = raw.status(z3, B, 0, only=[open_id])
    tap.equal((a.extents, cond(3)), ({open_id: [(B, 0)]}, EMPTY),
              "nor a payload without REQ_ONE")
    a = raw.status(z3, B, n.FLAG_REQ_ONE, only=[open_id])
    tap.equal((a.extents, cond(3)), ({open_id: [(B, 1)]}, EXPLICIT),
              "a payload of one context arms it")
    a = raw.status(z3, B, n.FLAG_REQ_ONE | n.FLAG_FUA, only=[reset_id])
    tap.equal((a.extents, cond(3)), ({reset_id: [(B, 1)]}, EMPTY),
              "and another one of the same connection")
    raw.close()
    for h in list(hs.values()) + [writer]:
        h.shutdown()


def append_write(r, zone, tag, data, flags=0):
    """Write and status at once; returns their cookies."""
    at = zone * ZONE + tag * B
    return (r.send(n.CMD_WRITE, at, len(data), flags, data),
            r.send(n.CMD_BLOCK_STATUS, at, B, n.FLAG_REQ_ONE))


def where(answer):
    """The place inside the zone, or None."""
    ((length, flags),) = list(answer.extents.values())[0:1][0]
    assert length == B
    return (flags - 1) * 512 if flags else None


def append(extended):
    kind = "extended: " if extended else "compact: "
    r = Raw(server.socket).begin(contexts=["x-zbd:append"],
                                 extended=extended)
    r.ask(n.CMD_TRIM, 0, SIZE)
    cookies = [append_write(r, 3, tag, bytes([tag + 1]) * B)
               for tag in (5, 0, 3, 7)]
    answers = [(r.reply(w), r.reply(s)) for w, s in cookies]
    tap.equal([w.error for w, s in answers], [0] * 4, kind + "appends")
    tap.equal([where(s) for w, s in answers], [0, B, 2 * B, 3 * B],
              kind + "in their order, whatever the tags")
    tap.equal(r.read(3 * ZONE, 4 * B).data,
              b"\6" * B + b"\1" * B + b"\4" * B + b"\x08" * B,
              kind + "the data is there")
    tap.equal(where(r.status(3 * ZONE + 5 * B, B)), None,
              kind + "a tag that was asked for is forgotten")
    tap.equal(where(r.status(9 * ZONE, B)), None, kind + "an unknown tag")

    # Asked later, and not at all.
    w = r.reply(r.send(n.CMD_WRITE, 3 * ZONE, 2 * B, 0, bytes(2 * B)))
    tap.equal(w.error, 0, kind + "an append of two blocks")
    tap.equal(where(r.status(3 * ZONE, B)), 4 * B, kind + "asked for later")
    r.write(3 * ZONE, bytes(B))
    tap.equal(r.write(3 * ZONE, bytes(B)).error, 0,
              kind + "a tag that nobody asked for is used again")
    tap.equal(where(r.status(3 * ZONE, B)), 7 * B,
              kind + "it is the later one's")

    # Refusals: the status has the write's error.
    for text, zone, tag, length, error in (
            ("across the zone's end", 3, 15, 2 * B, n.EINVAL),
            ("larger than what is left", 3, 0, 5 * B, n.EINVAL),
            ("a read-only zone", 14, 0, B, n.EPERM),
            ("an offline zone", 15, 0, B, n.EIO)):
        w, s = append_write(r, zone, tag, bytes(length))
        w, s = r.reply(w), r.reply(s)
        tap.equal((w.error, s.error, w.message == s.message),
                  (error, error, True), kind + text)
    w = r.ask(n.CMD_WRITE, 3 * ZONE + 512, B, 0, bytes(B))
    tap.equal(w.error, n.EINVAL, kind + "off the granularity")
    for _ in range(4):
        r.write(3 * ZONE, bytes(B))
    w, s = append_write(r, 3, 0, bytes(B))
    tap.ok(r.reply(w).error == r.reply(s).error != 0, kind + "a full zone")

    # Conventional zones are written as ever.
    r.write(B, b"c" * B)
    tap.equal(r.read(B, B).data, b"c" * B, kind + "a conventional zone")
    tap.equal(where(r.status(B, B)), None, kind + "has no answer")
    w, s = append_write(r, 4, 0, bytes(B), n.FLAG_FUA)
    tap.equal((r.reply(w).error, where(r.reply(s))), (0, 0),
              kind + "with FUA")
    tap.equal(r.ask(n.CMD_FLUSH).error, 0, kind + "flush")
    r.close()

    r = Raw(server.socket).begin(contexts=["x-zbd:append", "x-zbd:zones"],
                                 extended=extended)
    tap.equal(r.write(5 * ZONE, bytes(B)).error, 0,
              kind + "beside another context writes are writes")
    a = r.status(5 * ZONE, B)
    tap.equal(a.extents[r.ids["x-zbd:append"]], [(B, 0)],
              kind + "and the status is 0")
    r.ask(n.CMD_TRIM, 0, SIZE)
    r.close()


def appenders():
    """Several writers of one zone, each with many in flight."""
    writers, each = 4, 300
    zone = 1 << 23
    told = []
    lock = threading.Lock()
    failed = []

    with ZnbdServer("memory:32M,zone-size=8M", "-t", 3) as big:
        def writer(number):
            try:
                r = Raw(big.socket).begin(contexts=["x-zbd:append"])
                for begin in range(0, each, 50):
                    cookies = []
                    for i in range(begin, begin + 50):
                        data = struct.pack("<II", number, i) * (B // 8)
                        at = zone + (i % 64) * B
                        cookies.append((
                            i, r.send(n.CMD_WRITE, at, B, 0, data),
                            r.send(n.CMD_BLOCK_STATUS, at, B)))
                    for i, w, s in cookies:
                        assert r.reply(w).error == 0
                        with lock:
                            told.append((where(r.reply(s)), number, i))
                r.close()
            except Exception as e:      # for the main thread to tell
                failed.append(e)

        threads = [threading.Thread(target=writer, args=(i,))
                   for i in range(writers)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        tap.equal(failed, [], "%d writers append to one zone" % writers)
        told.sort()
        tap.equal([x[0] for x in told],
                  [i * B for i in range(writers * each)],
                  "each block has its place, without gaps")
        h = connect(big.uri)
        data = bytes(h.pread(writers * each * B, zone))
        wrong = [x for x in told if data[x[0]:x[0] + B] !=
                 struct.pack("<II", x[1], x[2]) * (B // 8)]
        tap.equal(wrong, [], "and is where its writer was told")
        h.shutdown()

    # libnbd's module alone.
    h = context("x-zbd:append")
    h.trim(SIZE, 0)
    bufs = [nbd.Buffer.from_bytearray(bytearray(bytes([i + 1]) * B))
            for i in range(8)]
    places = {}
    cookies = []
    for i, buf in enumerate(bufs):
        at = 6 * ZONE + i * B

        def extent(name, offset, entries, error, i=i):
            places[i] = (entries[1] - 1) * 512

        cookies.append(h.aio_pwrite(buf, at))
        cookies.append(h.aio_block_status(B, at, extent))
    for cookie in cookies:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
    tap.equal(places, {i: i * B for i in range(8)},
              "libnbd: appends, asynchronous")
    h.shutdown()


def order():
    """What waits, and for what."""
    a = Raw(server.socket).begin()
    b = Raw(server.socket).begin()
    at = 7 * ZONE
    late = [a.send(n.CMD_WRITE, at + i * B, B, 0, bytes([i]) * B)
            for i in (3, 1, 2)]
    tap.equal(a.ask(n.CMD_FLUSH).error, 0, "flush waits for no parked write")
    tap.equal(b.write(at, bytes(B)).error, 0, "another one fills the gap")
    tap.equal([a.reply(c).error for c in late], [0] * 3,
              "then they are written")
    tap.equal(b.read(at, 4 * B).data, b"".join(bytes([i]) * B
                                               for i in range(4)),
              "in their places")
    alone = a.send(n.CMD_WRITE, at + 6 * B, B, 0, bytes(B))
    answer = a.reply(alone)
    tap.ok(answer.error == n.EINVAL and "pointer" in answer.message,
           "a write that stays alone fails in the end", repr(answer))
    parked = a.send(n.CMD_WRITE, at + 5 * B, B, 0, bytes(B))
    assert parked
    time.sleep(0.2)             # it is there
    a.close()
    time.sleep(0.2)             # it is gone
    tap.equal(b.ask(n.CMD_WRITE_ZEROES, at + 4 * B, B).error, 0,
              "a parked write goes with its connection")
    table = Table(connect(server.zones_uri))
    tap.equal(table.written(7), 5 * B, "it was not written")
    table.h.shutdown()
    b.ask(n.CMD_TRIM, 0, SIZE)
    b.close()


with server:
    report()
    manage()
    append(False)
    append(True)
    appenders()
    order()
tap.done_testing()
