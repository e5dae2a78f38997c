#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Zone appends through a device of znbd attach (sent by way of the kernel's
nvmet, which takes them from programs): many at a time, beside appends of
other machines, where connections break and where attach is killed.  Each is
done once, where its sender was told.
"""

import errno
import os
import random
import subprocess
import threading
import time

from attached import Attached, Call, NVMe
from cutter import Cutter
from harness import TAP, Nbdkit, ZnbdServer, connect, long
from zone_model import FULL

tap = TAP()
K4 = 4096
MiB = 1 << 20
ZONE = 4 * MiB
MEMORY = "memory:64M,zone-size=4M"
rand = random.Random(7)
numbers = iter(range(1, 1 << 30))


def block(number):
    """A block that is like no other one."""
    return number.to_bytes(8, "little") * (K4 // 8)


def several(nvme, zone, count, blocks=1):
    """Appends one after the other; [(place, data)]."""
    done = []
    for _ in range(count):
        data = b"".join(block(next(numbers)) for _ in range(blocks))
        done.append((nvme.append(zone * ZONE, data), data))
    return done


def is_right(zone, done, uri, desc, dev=None, others=0):
    """Each was done once, where it was told, and nothing else was."""
    h = connect(uri)
    data = bytes(h.pread(ZONE, zone * ZONE))
    h.shutdown()
    wrong = ["%d bytes at %d" % (len(d), at) for at, d in done
             if data[at - zone * ZONE:at - zone * ZONE + len(d)] != d]
    size = sum(len(d) for _, d in done) + others
    blocks = [data[i:i + K4] for i in range(0, size, K4)]
    if len(set(blocks)) != len(blocks):
        wrong.append("something is there twice")
    if data[size:] != bytes(ZONE - size):
        wrong.append("there is more than was appended")
    tap.ok(not wrong, desc, *wrong[:9], dev.log()[-1500:] if dev else "")


with ZnbdServer(MEMORY) as server, \
        Cutter(tap.path("cutter"), server.socket) as cutter:
    # ---- at once -----------------------------------------------------------
    with Attached(cutter.uri) as dev, NVMe(dev.path) as nvme:
        writers = [Call(several, nvme, 1, 10, 1 + i) for i in range(6)]
        other = subprocess.Popen(
            ["znbd", "append", "--zone", "1", "--block-size", "4k",
             server.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        theirs = b"".join(block(next(numbers)) for _ in range(40))
        other.communicate(theirs)
        done = sum((w.result() for w in writers), [])
        tap.equal(other.returncode, 0, "another machine appends beside")
        is_right(1, done, server.uri, "six writers append to one zone",
                 others=len(theirs))
        tap.equal(dev.report()[1].wp, 210 * K4 + len(theirs),
                  "the kernel sees the pointer")
        writers = [Call(several, nvme, z, 8) for z in range(2, 6)]
        for z, w in enumerate(writers, 2):
            is_right(z, w.result(), server.uri, "zone %d, beside others" % z)

        # Up to the zone's end, and past it.
        done = several(nvme, 6, ZONE // (128 * K4), 128)
        tap.equal(dev.report()[6].cond, FULL, "appends fill a zone")
        is_right(6, done, server.uri, "with what they should")
        tap.raises(OSError, lambda: nvme.append(6 * ZONE, block(1)),
                   "it takes no more")

        # ---- connections break ----------------------------------------------
        # Where two were in flight, an append and its question, with each
        # byte of either lost.
        done = several(nvme, 7, 1)
        cutter.cut_at(0)
        done += several(nvme, 7, 1)
        total = cutter.messages
        tap.equal(total, 4, "an append is two messages each way")
        wanted = 0
        for message in range(1, total + 1):
            for bytes_ in (0, 5, 16, 20, 27, 28, 500, None) if long else \
                    (0, 20, None):
                cuts = cutter.cuts
                cutter.cut_at(message, bytes_)
                done += several(nvme, 7, 1)
                wanted += cutter.cuts == cuts
        tap.equal(wanted, 0, "every message was cut")
        is_right(7, done, server.uri, "appends whose connections broke", dev)

        # In no order, with many in flight.
        stop = threading.Event()

        def cut_often():
            while not stop.wait(rand.uniform(.2, .7)):
                cutter.cut()

        cutting = Call(cut_often)
        writers = [Call(several, nvme, 8 + i // 3, 40 if long else 12)
                   for i in range(6)]
        found = [w.result(200) for w in writers]
        stop.set()
        cutting.result()
        for z in 0, 1:
            is_right(8 + z, sum(found[3 * z:3 * z + 3], []), server.uri,
                     "many in flight, zone %d" % (8 + z), dev)

        # Another machine was there meanwhile: it cannot be told.
        cutter.hold = cutter.refuse = True
        lost = Call(nvme.append, 10 * ZONE, block(next(numbers)))
        time.sleep(.3)
        cutter.cut()
        subprocess.run(["znbd", "append", "--zone", "10", server.uri],
                       input=block(99), stdout=subprocess.DEVNULL,
                       check=True)
        cutter.refuse = False
        cutter.release()
        try:
            place = lost.result()
            h = connect(server.uri)
            tap.equal(bytes(h.pread(K4, place))[:8], bytes(
                lost.args[1][:8]), "an append that never came there, and "
                "another's in its place, goes behind it")
            h.shutdown()
        except OSError:
            tap.passed("an append that never came there, and another's in "
                       "its place, fails")
        h = connect(server.uri)
        tap.equal(bytes(h.pread(K4, 10 * ZONE)), block(99),
                  "the other's is there")
        h.shutdown()

    # ---- attach is killed ---------------------------------------------------
    # Its users wait, and another process goes on.
    dev = Attached(cutter.uri).attach()
    with NVMe(dev.path) as nvme:
        killed = 0
        for zone in range(11, 14):
            stop = threading.Event()
            writers = [Call(several, nvme, zone, 8 if long else 4)
                       for _ in range(4)]
            for _ in range(10 if long else 2):
                time.sleep(rand.uniform(.02, .15))
                dev.kill()
                killed += 1
                tap.equal(dev.listed()["state"], "dead", "it was killed")
                dev.attach()
            done = sum((w.result(200) for w in writers), [])
            is_right(zone, done, server.uri, "killed: each append was done "
                     "once, zone %d" % zone, dev)
    dev.detach()

# ---- a server without appends: they are writes at the pointer --------------------

with Nbdkit("size=64M", "zone-size=4M") as server, \
        Attached(server.uri) as dev, NVMe(dev.path) as nvme:
    writers = [Call(several, nvme, 1, 8, 1 + i) for i in range(4)]
    is_right(1, sum((w.result() for w in writers), []), server.uri,
             "under nbdkit, appends are writes")
tap.done_testing()
