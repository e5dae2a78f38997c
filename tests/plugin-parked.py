#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes that arrive ahead of their zone's pointer, through nbdkit: what
becomes of them when the gap is filled, when it is not, when the zone or
the connection goes away beneath them.  In memory and in an image.
"""

import os
import random
import socket
import subprocess
import time

import nbd

from harness import TAP, run, served_by
from zone_table import EMPTY, FINISH, FULL, RESET, Served

B = 4096
ZONE = 64 * B

tap = TAP()


def at(zone, block=0):
    return zone * ZONE + block * B


def pattern(offset, blocks=1):
    """Blocks that say where they belong."""
    return b"".join(b"%016x" % (offset + i * B) * (B // 16)
                    for i in range(blocks))


class Write:
    """A write on its way."""

    def __init__(self, h, offset, blocks=1):
        self.h = h
        self.offset = offset
        self.blocks = blocks
        self.sent = time.monotonic()
        self.buffer = nbd.Buffer.from_bytearray(
            bytearray(pattern(offset, blocks)))
        self.cookie = h.aio_pwrite(self.buffer, offset)

    def answer(self, within=20):
        """"ok", the name of an errno, or None where none came in time."""
        end = time.monotonic() + within
        while True:
            try:
                if self.h.aio_command_completed(self.cookie):
                    return "ok"
            except nbd.Error as e:
                return e.errno
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.h.poll(max(1, int(left * 1000)))

    def waits(self):
        """Whether it got to the server and is not answered."""
        return self.answer(within=0.15) is None

    def age(self):
        return time.monotonic() - self.sent


def serve(*params, size="2M", zone_size="256k", **more):
    """A server over the store whose turn it is."""
    if store == "memory":
        return Served("size=" + size, "zone-size=" + zone_size, *params,
                      **more)
    image = tap.path("disk.zbd")
    status, out, err = run("znbd", "create", "--force", "--size", size,
                           "--zone-size", zone_size, image)
    if status != 0:
        raise Exception("znbd create: " + out + err)
    return Served("file=" + image, *params, **more)


def gap_never_filled():
    with serve("reorder-timeout=1500ms") as server:
        h = server.connect()
        w = Write(h, at(1, 3))
        tap.ok(w.waits(), "never filled: a write ahead of the pointer waits")
        tap.equal(bytes(h.pread(B, at(1, 3))), bytes(B),
                  "never filled: it cannot be read")
        tap.equal(server.table().cond(1), EMPTY,
                  "never filled: it opens no zone")
        h.flush()
        tap.ok(w.answer(within=0) is None,
               "never filled: a flush does not wait for it")
        tap.equal(w.answer(), "EINVAL", "never filled: it is refused")
        tap.ok(1.4 < w.age() < 15, "never filled: after the reorder timeout",
               w.age())
        tap.like(server.log(), "zone 1 .*pointer 262144" +
                 (".*-t" if served_by == "nbdkit" else ""),
                 "never filled: the server says why")
        tap.equal(server.table().written(1), 0,
                  "never filled: the pointer is where it was")
        h.pwrite(pattern(at(1), 4), at(1))
        tap.equal(bytes(h.pread(4 * B, at(1))), pattern(at(1), 4),
                  "never filled: the zone is written as ever")


def gap_filled():
    with serve("reorder-timeout=10s") as server:
        h, other = server.connect(), server.connect()
        w = Write(h, at(1, 2), 3)
        tap.ok(w.waits(), "filled: a write waits")
        other.pwrite(pattern(at(1), 2), at(1))
        tap.equal(w.answer(), "ok", "filled: by another connection, it goes")
        tap.ok(w.age() < 5, "filled: at once", w.age())
        tap.equal(bytes(other.pread(6 * B, at(1))),
                  pattern(at(1), 5) + bytes(B), "filled: the data is right")
        tap.equal(server.table().written(1), 5 * B,
                  "filled: the pointer is behind both")

    # In steps, each shorter than the timeout, in all longer.
    with serve("reorder-timeout=1500ms") as server:
        h, other = server.connect(), server.connect()
        w = Write(h, at(0, 5))
        for block in range(5):
            time.sleep(0.4)
            other.pwrite(pattern(at(0, block)), at(0, block))
        tap.equal(w.answer(), "ok",
                  "filled slowly: a pointer that moves keeps it waiting")
        tap.ok(w.age() > 1.9, "filled slowly: for longer than the timeout")
        tap.equal(bytes(h.pread(6 * B, 0)), pattern(0, 6),
                  "filled slowly: the data is right")


def gap_zeroed():
    with serve("reorder-timeout=300ms", "gap=zero") as server:
        h = server.connect()
        h.pwrite(pattern(at(2)), at(2))
        w = Write(h, at(2, 5))
        tap.ok(w.waits(), "gap=zero: a write waits")
        tap.equal(w.answer(), "ok", "gap=zero: and goes, alone")
        tap.ok(0.25 < w.age() < 15, "gap=zero: after the reorder timeout",
               w.age())
        tap.equal(bytes(h.pread(7 * B, at(2))),
                  pattern(at(2)) + bytes(4 * B) + pattern(at(2, 5))
                  + bytes(B), "gap=zero: zeros fill the gap")
        tap.equal(server.table().written(2), 6 * B,
                  "gap=zero: the pointer is behind it")


def overlap():
    with serve("reorder-timeout=10s") as server:
        h, other = server.connect(), server.connect()
        w = Write(h, at(1, 4), 4)
        tap.ok(w.waits(), "overlap: a write waits")
        for block, blocks, text in (
                (4, 4, "the same"), (3, 2, "across its start"),
                (7, 2, "across its end"), (5, 1, "inside"),
                (3, 6, "around it")):
            for who, name in ((h, "same"), (other, "another")):
                second = Write(who, at(1, block), blocks)
                tap.equal(second.answer(), "EINVAL",
                          "overlap: %s, %s connection" % (text, name))
                tap.ok(second.age() < 3, "overlap: at once", second.age())
        tap.equal(server.table().written(1), 0, "overlap: nothing is written")
        # It is unharmed itself.
        other.pwrite(pattern(at(1), 4), at(1))
        tap.equal(w.answer(), "ok", "overlap: the first one goes")
        tap.equal(bytes(h.pread(9 * B, at(1))),
                  pattern(at(1), 8) + bytes(B), "overlap: the data is right")

        # Being at the pointer is no excuse.
        w = Write(h, at(2, 4), 4)
        tap.ok(w.waits(), "overlap: a write waits, another zone")
        second = Write(other, at(2), 5)
        tap.equal(second.answer(), "EINVAL",
                  "overlap: from the pointer into it")
        tap.ok(w.waits(), "overlap: the first one waits on")
        tap.equal(server.table().written(2), 0,
                  "overlap: the pointer is where it was")


def reset_while_parked():
    with serve("reorder-timeout=10s") as server:
        h, other = server.connect(), server.connect()
        table = server.table()
        other.pwrite(b"\xee" * (4 * B), at(1))
        w = Write(h, at(1, 6), 2)
        tap.ok(w.waits(), "reset: a write waits")
        other.trim(ZONE, at(1))
        tap.equal(table.cond(1), EMPTY, "reset: goes ahead of it")
        tap.ok(w.waits(), "reset: it waits still")
        other.pwrite(pattern(at(1), 6), at(1))
        tap.equal(w.answer(), "ok", "reset: it goes when the gap is filled")
        tap.equal(bytes(h.pread(9 * B, at(1))),
                  pattern(at(1), 8) + bytes(B), "reset: the data is right")

        # Where the pointer comes to stand right before it, it goes.
        other.pwrite(b"\xee" * (4 * B), at(2))
        w = Write(h, at(2, 5))
        tap.ok(w.waits(), "reset by the table: a write waits")
        table.request(RESET, 2)
        tap.equal(table.written(2), 0, "reset by the table: is done")
        other.pwrite(pattern(at(2), 5), at(2))
        tap.equal(w.answer(), "ok", "reset by the table: it goes")
        tap.equal(bytes(h.pread(7 * B, at(2))),
                  pattern(at(2), 6) + bytes(B),
                  "reset by the table: the data is right")


def finish_while_parked():
    with serve("reorder-timeout=10s") as server:
        h = server.connect()
        table = server.table()
        h.pwrite(pattern(at(1)), at(1))
        w = Write(h, at(1, 6))
        tap.ok(w.waits(), "finish: a write waits")
        table.request(FINISH, 1)
        tap.equal(w.answer(), "ENOSPC", "finish: the zone is full for it")
        tap.ok(w.age() < 5, "finish: at once", w.age())
        tap.equal(table.cond(1), FULL, "finish: the zone is full")
        tap.equal(bytes(h.pread(ZONE, at(1))),
                  pattern(at(1)) + bytes(ZONE - B),
                  "finish: nothing of it is written")


def dropped():
    with serve("reorder-timeout=1s") as server:
        # The connection goes; the write must not keep others from it.
        h = server.connect()
        w = Write(h, at(1, 2))
        tap.ok(w.waits(), "dropped: a write waits")
        server.forget(h)
        del w, h
        h = server.connect()
        table = server.table()
        tap.equal(h.get_size(), 2 << 20, "dropped: the server lives")
        time.sleep(1.5)
        h.pwrite(pattern(at(1), 2), at(1))
        time.sleep(0.1)
        tap.equal(table.written(1), 2 * B, "dropped: it was not written")
        h.pwrite(pattern(at(1, 2)), at(1, 2))
        tap.equal(bytes(h.pread(4 * B, at(1))),
                  pattern(at(1), 3) + bytes(B), "dropped: the zone goes on")

        # The gap is filled right after: it was written whole or not at all.
        for zone in range(2, 8):
            gone = server.connect()
            w = Write(gone, at(zone, 2), 8)
            tap.ok(w.waits(), "dropped, zone %d: a write waits" % zone)
            server.forget(gone)
            del w, gone
            h.pwrite(pattern(at(zone), 2), at(zone))
            end = None
            while end != table.written(zone):
                end = table.written(zone)
                got = bytes(h.pread(12 * B, at(zone)))
            tap.ok(end in (2 * B, 10 * B),
                   "dropped, zone %d: whole or not at all" % zone, end)
            tap.equal(got,
                      pattern(at(zone), end // B) + bytes(12 * B - end),
                      "dropped, zone %d: the data is right" % zone)


def zone_is_right(server, text):
    """Whatever a connection that went had sent: below the pointer is what
    belongs there, and the zone is used as ever."""
    h = server.connect()
    table = server.table()
    end = None
    while end != table.written(0):
        end = table.written(0)
        got = bytes(h.pread(ZONE, 0))
    tap.equal(got, pattern(0, end // B) + bytes(ZONE - end),
              text + ": what is below the pointer is right")
    h.trim(ZONE, 0)
    h.pwrite(pattern(0, 64), 0)
    tap.equal(bytes(h.pread(ZONE, 0)), pattern(0, 64),
              text + ": the zone is written as ever")


def some_writes(h, rng):
    return [Write(h, at(0, rng.randrange(64))) for _ in range(32)]


def many_dropped():
    """Connections that go with many writes on their way."""
    rng = random.Random(1)

    # They say nothing more, but their answers find them.
    with serve("reorder-timeout=300ms") as server:
        kept = []
        for _ in range(10):
            h = server.connect()
            kept.append((h, some_writes(h, rng)))
            h.poll(rng.randrange(20))
            with socket.socket(fileno=os.dup(h.aio_get_fd())) as s:
                s.shutdown(socket.SHUT_WR)
        time.sleep(1)
        zone_is_right(server, "many half closed")

    # They are gone.  This alone may end nbdkit before 1.34, whatever the
    # plugin, by an assertion of its own; then that is like a crash.
    server = serve("reorder-timeout=300ms")
    server.start()
    try:
        for _ in range(10):
            h = server.connect()
            writes = some_writes(h, rng)
            h.poll(rng.randrange(20))
            server.forget(h)
            del writes, h
        time.sleep(2)
        server.connect()
    except nbd.Error:
        # It has ended or is about to.
        try:
            server.process.wait(30)
        except subprocess.TimeoutExpired:
            pass
    if server.process.poll() is not None and \
            "raw_send_socket: Assertion" in server.log():
        server.handles = []
        server.kill()
        tap.diag("nbdkit has ended itself")
        if store == "memory":
            tap.skip("many dropped", "nbdkit before 1.34 ends itself")
            return
        server = Served(*server.params).start()
    zone_is_right(server, "many dropped")
    server.stop()


def reversed_order():
    with serve("reorder-timeout=10s") as server:
        h = server.connect()
        for zone in range(8):
            writes = [Write(h, at(zone, block))
                      for block in reversed(range(64))]
            tap.equal([w.answer() for w in writes], ["ok"] * 64,
                      "64 writes in reverse, zone %d" % zone)
        tap.equal(bytes(h.pread(8 * ZONE, 0)), pattern(0, 512),
                  "in reverse: the data is right")
        tap.equal(server.table().conds(*range(8)), [FULL] * 8,
                  "in reverse: all zones are full")

    # No thread of znbd-server's waits.
    if served_by == "znbd-server":
        return

    # Too few threads: the one that all wait for is not even read.  They are
    # refused, and that is all that happens.
    with serve("reorder-timeout=500ms", threads=8) as server:
        h = server.connect()
        writes = [Write(h, at(0, block)) for block in reversed(range(64))]
        answers = [w.answer() for w in writes]
        tap.ok(set(answers) <= {"ok", "EINVAL"} and "EINVAL" in answers,
               "8 threads: some of 64 writes in reverse are refused",
               answers)
        end = server.table().written(0)
        tap.equal(bytes(h.pread(ZONE, 0)),
                  pattern(0, end // B) + bytes(ZONE - end),
                  "8 threads: what is below the pointer is right")
        h.trim(ZONE, 0)
        writes = [Write(h, at(0, block)) for block in range(64)]
        tap.ok(len([w for w in writes if w.answer()]) == 64,
               "8 threads: the server goes on")


def shuffled():
    """Two connections, each with its half of the blocks, in any order."""
    rng = random.Random(20)
    with serve("reorder-timeout=10s") as server:
        hs = server.connect(), server.connect()
        for zone in range(8):
            blocks = list(range(64))
            rng.shuffle(blocks)
            writes = [Write(hs[block % 2], at(zone, block))
                      for block in blocks]
            rng.shuffle(writes)
            tap.equal([w.answer() for w in writes], ["ok"] * 64,
                      "two connections, shuffled, zone %d" % zone)
        tap.equal(bytes(hs[0].pread(8 * ZONE, 0)), pattern(0, 512),
                  "shuffled: the data is right")


def budget():
    """32 MiB of writes wait for one connection; what is too much fails
    farthest ahead."""
    mib = (1 << 20) // B
    with serve("reorder-timeout=10s", size="128M",
               zone_size="64M") as server:
        h = server.connect()
        writes = [Write(h, (i + 2) * mib * B, mib) for i in range(31)]
        far = Write(h, 40 * mib * B, mib)
        tap.ok(far.waits() and writes[0].waits(), "budget: 32 MiB wait")
        farther = Write(h, 50 * mib * B, mib)
        tap.equal(farther.answer(), "EINVAL", "budget: more is refused")
        tap.ok(farther.age() < 5, "budget: at once", farther.age())
        writes.append(Write(h, mib * B, mib))
        tap.equal(far.answer(), "EINVAL",
                  "budget: the farthest makes room for a nearer one")
        tap.ok(writes[-1].waits(), "budget: which waits")
        h.pwrite(pattern(0, mib), 0)
        tap.equal([w.answer() for w in writes], ["ok"] * 32,
                  "budget: what fills the gap gets through")
        tap.equal(bytes(h.pread(mib * B, 0) + h.pread(32 * mib * B, mib * B)),
                  pattern(0, 33 * mib),
                  "budget: the data is right")


def ended():
    """nbdkit is told to end while a write waits; harness judges how."""
    with serve("reorder-timeout=1s") as server:
        h = server.connect()
        w = Write(h, at(1, 2))
        tap.ok(w.waits(), "ended: a write waits")
        begin = time.monotonic()
        server.stop()
        tap.ok(time.monotonic() - begin < 5, "ended: nbdkit ends soon")


for store in "memory", "image":
    tap.diag(store)
    gap_never_filled()
    gap_filled()
    gap_zeroed()
    overlap()
    reset_while_parked()
    finish_while_parked()
    dropped()
    many_dropped()
    reversed_order()
    shuffled()
    budget()
    ended()
tap.done_testing()
