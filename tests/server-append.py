#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Several clients append to one zone at once, over a connection each, with
many in flight: programs with libnbd in C and in Python, and one that writes
raw messages.  Each block is there exactly once, where its writer was told,
and a connection's own are in their order.  The zone's end comes in
between: there everybody is refused, and nothing is lost before it.  And
writers who are cut off while they append: what they were told is true, and
of the rest each block is there once or not at all.
"""

import os
import random
import struct
import threading

import nbd

import nbd_raw as n
from harness import TAP, ZnbdServer, connect, long, run, top_builddir
from zone_table import FULL, Table

B = 4096
ZONE = (64 if long else 16) << 20
PER_WRITER = 4000 if long else 800      # four fit into a zone
DEPTH = 64

tap = TAP()
client = os.path.join(top_builddir, "tests", "append-client")


def block(writer, number):
    return struct.pack("<II", writer, number) * (B // 8)


def with_libnbd(uri, zone, writer):
    """In Python; returns [(place, number)], as it is told."""
    h = nbd.NBD()
    h.add_meta_context("x-zbd:append")
    h.connect_uri(uri)
    free = list(range(DEPTH))
    told = []

    def begin(number):
        tag = free.pop()
        at = zone + tag * B
        buf = nbd.Buffer.from_bytearray(bytearray(block(writer, number)))
        left = [2]

        def extent(name, offset, entries, error):
            told.append((zone + (entries[1] - 1) * 512, number))

        def done(error):
            if error.value:
                raise Exception("append %d: error %d" % (number, error.value))
            left[0] -= 1
            if left[0] == 0:
                free.append(tag)
            return 1

        # buf has to live until then: done keeps it.
        done.buf = buf
        h.aio_pwrite(buf, at, done)
        h.aio_block_status(B, at, extent, done)

    for number in range(PER_WRITER):
        while not free:
            h.poll(-1)
        begin(number)
    while len(free) < DEPTH:
        h.poll(-1)
    h.shutdown()
    return told


def with_messages(socket, zone, writer):
    """Without a library, in batches; returns the same."""
    r = n.Raw(socket).begin(contexts=["x-zbd:append"])
    told = []
    for first in range(0, PER_WRITER, DEPTH):
        cookies = []
        for number in range(first, min(first + DEPTH, PER_WRITER)):
            at = zone + number % DEPTH * B
            cookies.append((
                number, r.send(n.CMD_WRITE, at, B, 0, block(writer, number)),
                r.send(n.CMD_BLOCK_STATUS, at, B)))
        for number, write, status in cookies:
            assert r.reply(write).error == 0
            (length, flags), = list(r.reply(status).extents.values())[0]
            told.append((zone + (flags - 1) * 512, number))
    r.close()
    return told


def with_program(uri, zone, writer):
    """In C; returns the same."""
    status, out, err = run(client, uri, zone, PER_WRITER, DEPTH, writer)
    if status:
        raise Exception("append-client: %d %s" % (status, err))
    return [tuple(map(int, line.split())) for line in out.splitlines()]


def race(server, zone, writers, text):
    """All at once; checks what they were told against the disk.  Returns
    whether they met: one may be done before another has begun."""
    told, failed = {}, []

    def one(writer, how, where):
        try:
            told[writer] = how(where, zone, writer)
        except Exception as e:
            failed.append(repr(e))

    threads = [threading.Thread(target=one, args=(i + 1, how, where))
               for i, (how, where) in enumerate(writers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    tap.equal(failed, [], text + ": everybody is answered")
    total = PER_WRITER * len(writers)
    everything = sorted((place, writer, number)
                        for writer, list_ in told.items()
                        for place, number in list_)
    wrong = [x for i, x in enumerate(everything) if x[0] != zone + i * B]
    tap.equal((len(everything), wrong[:3]), (total, []),
              text + ": each block has a place of its own, without gaps")
    h = connect(server.uri)
    wrong = [x for x in everything
             if bytes(h.pread(B, x[0])) != block(*x[1:])]
    h.shutdown()
    tap.equal(wrong[:3], [], text + ": and is where its writer was told")
    tap.equal([writer for writer, list_ in told.items()
               if [number for _, number in sorted(list_)]
               != list(range(PER_WRITER))], [],
              text + ": a connection's are in the order it sent them")
    # More turns than one after the other would make.
    return sum(a[1] != b[1] for a, b in zip(everything, everything[1:])) \
        >= len(writers)


def full(server, zone):
    """Two fill a zone up to its end; what does not fit is refused to both,
    and what fitted is there."""
    blocks = ZONE // B
    raws = [n.Raw(server.socket).begin(contexts=["x-zbd:append"])
            for _ in range(2)]
    told, refused = [], 0
    for first in range(0, blocks, 128):
        asked = []
        for writer, r in enumerate(raws):
            for number in range(first, first + 128):
                at = zone + number % 128 * B
                asked.append((writer, number,
                              r.send(n.CMD_WRITE, at, B, 0,
                                     block(writer, number)),
                              r.send(n.CMD_BLOCK_STATUS, at, B)))
        for writer, number, write, status in asked:
            w, s = raws[writer].reply(write), raws[writer].reply(status)
            if w.error:
                refused += 1
                assert w.error == s.error, (w, s)
                continue
            (length, flags), = list(s.extents.values())[0]
            told.append(((flags - 1) * 512, writer, number))
    told.sort()
    tap.equal([x[0] for x in told], [i * B for i in range(blocks)],
              "to the zone's end: all of it is told to somebody, once")
    tap.equal(refused, blocks, "to the zone's end: the others are refused")
    h = connect(server.uri)
    tap.ok(all(bytes(h.pread(B, zone + place)) == block(writer, number)
               for place, writer, number in told),
           "to the zone's end: each block is where it was told")
    table = Table(connect(server.zones_uri))
    tap.equal(table.cond(zone // ZONE), FULL, "to the zone's end: it is full")
    table.h.shutdown()
    h.shutdown()
    for r in raws:
        r.close()


def cut_off(server, zone, text):
    """Writers of many short lives, most of which end in the middle of
    something."""
    told, failed = [], []
    seed = random.randrange(1 << 32)
    tap.diag("seed %d" % seed)
    lives = 100 if long else 25

    def live(r, rng, writer, numbers):
        """A few batches, if nothing comes in between."""
        for _ in range(rng.randrange(1, 5)):
            pieces, send, cookies = [], r.raw, []
            r.raw = pieces.append
            for tag in rng.sample(range(ZONE // B), rng.randrange(1, 9)):
                number, at = next(numbers), zone + tag * B
                cookies.append((
                    number,
                    r.send(n.CMD_WRITE, at, B, 0, block(writer, number)),
                    r.send(n.CMD_BLOCK_STATUS, at, B)))
            r.raw = send
            all_of_it = b"".join(pieces)
            if rng.random() < .3:       # in the middle of a message
                r.raw(all_of_it[:rng.randrange(len(all_of_it))])
                return
            r.raw(all_of_it)
            if rng.random() < .3:       # with answers under way
                return
            for number, write, status in cookies:
                assert r.reply(write).error == 0
                (length, flags), = list(r.reply(status).extents.values())[0]
                told.append(((flags - 1) * 512, writer, number))

    def one(writer):
        rng = random.Random(seed + writer)
        numbers = iter(range(1, 1 << 30))
        try:
            for _ in range(lives):
                r = n.Raw(server.socket).begin(contexts=["x-zbd:append"],
                                               extended=rng.random() < .5)
                live(r, rng, writer, numbers)
                r.close()
        except Exception as e:
            failed.append(repr(e))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    tap.equal(failed, [], text + ": who lives is answered")
    # Waits for what those who are gone have under way.
    finish = n.Raw(server.socket).begin(contexts=["x-zbd:finish"])
    tap.equal(finish.status(zone, B, n.FLAG_REQ_ONE).error, 0,
              text + ": the zone is in order")
    finish.close()
    h = connect(server.uri)
    data = b"".join(bytes(h.pread(ZONE // 4, zone + i * ZONE // 4))
                    for i in range(4))
    h.shutdown()
    blocks = [data[at:at + B] for at in range(0, ZONE, B)]
    tap.equal([x for x in told if blocks[x[0] // B] != block(*x[1:])], [],
              text + ": each told block is where it was told")
    there = [b for b in blocks if b != bytes(B)]
    tap.ok(there == blocks[:len(there)] and len(set(there)) == len(there) and
           all(b == b[:8] * (B // 8) for b in there),
           text + ": each other one is there once, whole, or not at all")
    tap.ok(len(told) < len(there), text + ": some were there without a word",
           "%d told, %d there" % (len(told), len(there)))


def serve(disk, text):
    with ZnbdServer(disk, "-t", 4) as server:
        two = (with_program, server.uri), (with_libnbd, server.uri)
        together = race(server, 1 * ZONE, two, text + ": C and Python")
        together += race(server, 2 * ZONE, two + (
            (with_messages, server.socket), (with_program, server.uri)),
            text + ": four")
        tap.ok(together, text + ": writers were at it together")
        full(server, 3 * ZONE)
        cut_off(server, 4 * ZONE, text + ", cut off")


serve("memory:%d,zone-size=%d" % (8 * ZONE, ZONE), "in memory")
image = tap.path("disk.zbd")
run("znbd", "create", "--size", 8 * ZONE, "--zone-size", ZONE, image)
serve(image, "in an image")
status, out, err = run("znbd", "check", image)
tap.equal(status, 0, "the image is in order")
tap.done_testing()
