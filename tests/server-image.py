#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd-server over an image: several connections write, append, flush and
reset at once, so that answers come from other loops and from the image's
own thread; and what was answered is there after the server was killed, and
after it was ended.
"""

import struct
import threading
import time

import nbd_raw as n
from nbd_raw import Raw
from harness import TAP, ZnbdServer, connect, run
from zone_table import Table

B = 4096
ZONE = 4 << 20
ZONES = 16
WRITERS = 4

tap = TAP()
image = tap.path("disk.zbd")
status, out, err = run("znbd", "create", "--size", ZONE * ZONES,
                       "--zone-size", ZONE, "--conventional", 1, image)
tap.equal(status, 0, "an image")


def block(writer, i):
    return struct.pack("<II", writer, i) * (B // 8)


class Writer(threading.Thread):
    """Even ones write zones of their own in order, across two connections,
    odd ones append to one zone.  All with FUA now and then, and flushes."""

    def __init__(self, server, number):
        super().__init__()
        self.server = server
        self.number = number
        self.failed = None
        self.told = []          # (zone, place, i) that was answered
        self.stop = False

    def run(self):
        try:
            if self.number % 2:
                self.append()
            else:
                self.write()
        except n.Closed:
            pass
        except Exception as e:  # for the main thread to tell
            self.failed = e

    def write(self):
        a = Raw(self.server.socket).begin()
        b = Raw(self.server.socket).begin(extended=True)
        i = 0
        while not self.stop and i < 6000:
            sent = []
            for k in range(24):
                zone = 2 + self.number * 3 + (i + k) // 1024 % 3
                place = (i + k) % 1024
                if place == 0 and i + k >= 3072:
                    return
                r = (a, b)[k % 2]
                flags = n.FLAG_FUA if k % 11 == 5 else 0
                sent.append((r, r.send(n.CMD_WRITE, zone * ZONE + place * B,
                                       B, flags, block(self.number, i + k)),
                             zone, place, i + k))
            flush = a.send(n.CMD_FLUSH) if i % 5 == 0 else None
            for r, cookie, zone, place, j in sent:
                answer = r.reply(cookie)
                assert answer.error == 0, answer
                self.told.append((zone, place, j))
            if flush:
                assert a.reply(flush).error == 0
            i += 24

    def append(self):
        r = Raw(self.server.socket).begin(contexts=["x-zbd:append"])
        zone = 1
        i = 0
        while not self.stop and i < 400:
            sent = [(j, r.send(n.CMD_WRITE, zone * ZONE + j % 64 * B, B,
                               n.FLAG_FUA if j % 7 == 0 else 0,
                               block(self.number, j)),
                     r.send(n.CMD_BLOCK_STATUS, zone * ZONE + j % 64 * B, B))
                    for j in range(i, i + 20)]
            for j, w, s in sent:
                assert r.reply(w).error == 0
                (((length, flags),),) = r.reply(s).extents.values()
                self.told.append((zone, (flags - 1) * 512 // B, j))
            i += 20


def written(server):
    table = Table(connect(server.zones_uri))
    zones = [z.wp - z.start for z in table.report()]
    table.h.shutdown()
    return zones


def check(server, writers, text):
    tap.equal([w.failed for w in writers if w.failed], [],
              text + ": the writers met no error")
    pointers = written(server)
    h = connect(server.uri)
    above = wrong = 0
    for w in writers:
        for zone, place, i in w.told:
            if place * B >= pointers[zone]:
                above += 1
            elif bytes(h.pread(B, zone * ZONE + place * B)) != \
                    block(w.number, i):
                wrong += 1
    h.shutdown()
    count = sum(len(w.told) for w in writers)
    tap.ok(count > 0 and (above, wrong) == (0, 0),
           "%s: %d answered blocks are below their pointers, and right"
           % (text, count), "above: %d, wrong: %d" % (above, wrong))


for text in "killed", "ended":
    server = ZnbdServer(image, "-t", 3)
    server.start()
    r = Raw(server.socket).begin()
    tap.equal(r.ask(n.CMD_TRIM, 0, ZONE * ZONES, n.FLAG_FUA).error, 0,
              text + ": all zones reset")
    r.close()
    writers = [Writer(server, i) for i in range(WRITERS)]
    for w in writers:
        w.start()
    time.sleep(0.15 if text == "killed" else 1)
    if text == "killed":
        server.kill()
    for w in writers:
        w.stop = True
    for w in writers:
        w.join()
    if text == "ended":
        check(server, writers, "before it ends")
        server.stop()
    status, out, err = run("znbd", "check", image)
    tap.equal(status, 0, text + ": the image is in order")
    with ZnbdServer(image) as server:
        check(server, writers, text)
tap.done_testing()
