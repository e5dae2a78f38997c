#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The server is killed (SIGKILL) again and again, under writes that are
pipelined over several connections, flushes, resets and finishes.  After each
kill: what was answered is below its zone's pointer, the pointer is nowhere
above what was asked for, every byte below it is right, and no reset or
finish that was answered is undone.  The epoch stays.
"""

import errno
import os
import random
import struct
import threading
import time

import nbd

from harness import TAP, connect, long, run, served_by
from zone_table import EMPTY, FINISH, FULL, Served, Table

B = 4096
ZONE = 1 << 20
BLOCKS = ZONE // B
WORKERS = 3
EACH = 3                        # zones of a worker
ROUNDS = 200 if long else 20
DEAD = errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN
SEED = random.randrange(1 << 32)

tap = TAP()
tap.diag("seed %d" % SEED)
rng = random.Random(SEED)


class Zone:
    """What was asked of a zone, and what was answered."""

    def __init__(self, number):
        self.number = number
        self.generation = 0
        self.asked = self.answered = 0  # blocks
        self.flying = 0
        self.full = False
        self.pending = None     # a reset or finish

    def block(self, i):
        return struct.pack("<III", self.number, self.generation, i) \
            .ljust(16, b"z") * (B // 16)

    def judge(self, record, read):
        """None, or what is wrong; and takes over what is there."""
        n = (record.wp - record.start) // B
        if record.cond == FULL:
            n = BLOCKS
        data = read(n * B, record.start) if n else b""
        if self.pending == "reset" and n == 0 and record.cond == EMPTY:
            self.asked = self.answered = 0
            self.full = False
        elif self.full or (self.pending == "finish" and n == BLOCKS):
            if record.cond != FULL:
                return "zone %d: was finished, has condition %d" % (
                    self.number, record.cond)
            self.full = True
            self.asked = self.answered
        elif self.answered <= n <= self.asked:
            self.answered = self.asked = n
        else:
            return "zone %d: %d blocks answered, %d asked for, the pointer " \
                "is at %d" % (self.number, self.answered, self.asked, n)
        wanted = b"".join(map(self.block, range(self.answered)))
        if bytes(data) != wanted.ljust(n * B, b"\0"):
            return "zone %d: %d blocks are not what was written" % (
                self.number, n)
        self.pending = None
        self.flying = 0
        return None


class Worker(threading.Thread):
    """Writes its zones over two connections of its own; resets and finishes
    one of them while writes to the others are in flight."""

    def __init__(self, server, zones):
        super().__init__()
        self.zones = zones
        self.data = [connect(server.uri) for _ in range(2)]
        self.table = Table(connect(server.zones_uri))
        self.rng = random.Random(rng.random())
        self.failed = None
        self.over = False

    def wait(self, most):
        """Until no more than that is in flight."""
        while sum(h.aio_in_flight() for h in self.data) > most:
            for h in self.data:
                h.poll(1 if h.aio_in_flight() else 0)

    def write(self, zone):
        n = min(self.rng.choice((1, 1, 2, 4, 16)), BLOCKS - zone.asked)
        first, end = zone.asked, zone.asked + n
        generation = zone.generation
        buf = nbd.Buffer.from_bytearray(
            bytearray(b"".join(map(zone.block, range(first, end)))))
        zone.asked = end
        zone.flying += 1

        def answered(error):
            zone.flying -= 1
            if error.value in DEAD:
                self.over = True
            elif error.value:
                self.failed = "zone %d: a write at %d: errno %d" % (
                    zone.number, first, error.value)
            elif generation == zone.generation:
                zone.answered = max(zone.answered, end)
            return 1

        self.rng.choice(self.data).aio_pwrite(
            buf, zone.number * ZONE + first * B, answered,
            nbd.CMD_FLAG_FUA if self.rng.random() < .03 else 0)

    def manage(self, zone):
        while zone.flying:
            for h in self.data:
                h.poll(1)
        if self.over:
            return
        if self.rng.random() < .3 and not zone.full:
            zone.pending = "finish"
            self.table.request(FINISH, zone.number)
            zone.full = True
        else:
            zone.pending = "reset"
            self.rng.choice(self.data).trim(ZONE, zone.number * ZONE)
            zone.generation += 1
            zone.asked = zone.answered = 0
            zone.full = False
        zone.pending = None

    def run(self):
        try:
            while not self.failed and not self.over:
                zone = self.rng.choice(self.zones)
                if zone.full or zone.asked == BLOCKS or \
                        (zone.asked and self.rng.random() < .02):
                    self.manage(zone)
                else:
                    self.write(zone)
                if self.rng.random() < .03:
                    self.rng.choice(self.data).aio_flush()
                self.wait(self.rng.choice((4, 16, 40)))
        except nbd.Error as e:
            # Or the connection is closed, or dead.
            if "command failed" in str(e) and e.errnum not in DEAD:
                self.failed = str(e)


def look(server, zones):
    h = connect(server.uri)
    table = Table(connect(server.zones_uri))
    records = table.report()
    wrong = [text for text in (zone.judge(records[zone.number], h.pread)
                               for zone in zones) if text]
    epoch = table.header().epoch
    h.shutdown()
    table.h.shutdown()
    return wrong, epoch


def kills(where, folder, rounds):
    image = os.path.join(folder, "disk.zbd")
    status, out, err = run("znbd", "create", "--size",
                           ZONE * WORKERS * EACH, "--zone-size", ZONE, image)
    tap.equal(status, 0, "%s: an image" % where)
    zones = [Zone(i) for i in range(WORKERS * EACH)]
    wrong, failed, epochs, done = [], [], set(), []
    for i in range(rounds + 1):
        server = Served(image)
        server.start()
        found, epoch = look(server, zones)
        wrong += ["round %d: %s" % (i, text) for text in found]
        epochs.add(epoch)
        if i == rounds or wrong or failed:
            server.stop()
            break
        workers = [Worker(server, zones[n::WORKERS]) for n in range(WORKERS)]
        for w in workers:
            w.start()
        # Some live long enough to write to what they have reset.
        time.sleep(.02 + rng.random() * (.12 if i % 4 else .6))
        server.kill()
        for w in workers:
            w.join()
        done.append(sum(zone.answered for zone in zones))
        failed += [w.failed for w in workers if w.failed]
    tap.equal(failed, [], "%s: no request met an error before its server "
              "died" % where)
    tap.equal(wrong, [], "%s: %d kills of %s: what was answered is there, no "
              "more than was asked for, and all of it right"
              % (where, i, served_by))
    tap.equal(epochs, {1}, "%s: the epoch stays" % where)
    tap.ok(sum(n > 0 for n in done) >= rounds // 2,
           "%s: there was something to lose" % where,
           "blocks below pointers at each kill: %r" % done)
    status, out, err = run("znbd", "check", image)
    tap.equal((status, out, err), (0, "", ""),
              "%s: the image is in order" % where)


kills("on a disk", tap.tmp, ROUNDS // 2)
if tap.memory():
    kills("in memory", tap.memory(), ROUNDS // 2)
else:
    tap.skip("in memory", "there is no /dev/shm")
tap.done_testing()
