#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""How data gets to a zoned device: writes that continue each other in few
commands, no larger than the device takes; one in flight in each zone, those
of several zones together; from memory that the ring has fixed, or where that
may not be from any.  The device is slow, so that commands are there to be
seen.
"""

import os
import re
import shutil
import subprocess
import time

from harness import TAP, ZnbdServer, connect
from host_device import made
from nbd_raw import CMD_WRITE, Raw

BLOCK = 4096
ZONE = 4 << 20
LIMIT = 64 << 10                # bytes of a command

tap = TAP()


class Watch:
    """What the device does meanwhile: .commands, .bytes, and of what the
    server gave to the kernel, which has an order of its own for it, the most
    writes that were under way in a zone and in all."""

    tracing = "/sys/kernel/tracing/"
    events = "block_bio_queue", "block_rq_complete"
    line = re.compile(r"(block_\w+): (\d+,\d+) \S*W\S* (?:\(\S*\) )?"
                      r"(\d+) \+ (\d+)")

    def __init__(self, device):
        self.stat = "/sys/block/%s/stat" % os.path.basename(device.path)
        number = os.fstat(device.fd).st_rdev
        self.device = "%d,%d" % (os.major(number), os.minor(number))

    def set(self, name, value):
        with open(self.tracing + name, "w") as f:
            f.write(value)

    def read(self):
        with open(self.stat) as f:
            return [int(i) for i in f.read().split()]

    def __enter__(self):
        if not os.path.exists(self.tracing + "trace"):
            subprocess.run(["mount", "-t", "tracefs", "tracefs",
                            self.tracing], check=True)
        self.before = self.read()
        self.set("trace", "")
        for event in self.events:
            self.set("events/block/%s/enable" % event, "1")

    def __exit__(self, *exception):
        for event in self.events:
            self.set("events/block/%s/enable" % event, "0")
        after = self.read()
        self.commands = after[4] - self.before[4]
        self.bytes = (after[6] - self.before[6]) * 512
        self.in_zone = self.in_all = 0
        left = [0] * 64         # sectors under way, for each zone
        with open(self.tracing + "trace") as f:
            for m in self.line.finditer(f.read()):
                zone = int(m[3]) * 512 // ZONE
                if m[2] != self.device or m[4] == "0":
                    continue
                if m[1] == "block_rq_complete":
                    left[zone] -= int(m[4])
                    continue
                self.in_zone = max(self.in_zone, 1 + (left[zone] > 0))
                left[zone] += int(m[4])
                self.in_all = max(self.in_all, sum(n > 0 for n in left))


def write(server, places, length):
    """All at once, on one connection; how many were not done."""
    raw = Raw(server.socket).begin()
    cookies = [raw.send(CMD_WRITE, at, length, payload=b"x" * length)
               for at in places]
    failed = sum(raw.reply(cookie).error != 0 for cookie in cookies)
    raw.close()
    return failed


def pinned(server):
    with open("/proc/%d/status" % server.pid) as f:
        for line in f:
            if line.startswith("VmPin:"):
                return int(line.split()[1]) << 10


with made("null_blk size=64 zone_size=4 blocksize=4096 irqmode=2 "
          "completion_nsec=20000000") as device:
    with open("/sys/block/%s/queue/max_sectors_kb"
              % os.path.basename(device.path), "w") as f:
        f.write(str(LIMIT >> 10))
    watch = Watch(device)
    with ZnbdServer(device.path) as server, watch:
        failed = write(server, range(0, 64 * BLOCK, BLOCK), BLOCK)
    tap.equal(failed, 0, "64 writes that continue each other")
    tap.equal(watch.bytes, 64 * BLOCK, "are written")
    tap.ok(64 * BLOCK // LIMIT <= watch.commands <= 24,
           "in few commands, but not too large ones (%d)" % watch.commands)
    tap.equal(watch.in_zone, 1, "with one under way at a time")

    with ZnbdServer(device.path) as server, watch:
        failed = write(server, [ZONE], 8 * LIMIT)
    tap.equal(failed, 0, "one large write")
    tap.equal((watch.commands, watch.in_zone), (8, 1),
              "goes by commands of the device's size, one by one")

    with ZnbdServer(device.path) as server, watch:
        failed = write(server, [zone * ZONE + at * BLOCK
                                for at in range(16) for zone in range(2, 8)],
                       BLOCK)
    tap.equal(failed, 0, "writes of six zones")
    tap.ok(2 <= watch.in_all <= 6 and watch.in_zone == 1,
           "are under way together, one of each (%d)" % watch.in_all)
    tap.equal([z.wp for z in device.report()[:9]],
              [64 * BLOCK, 8 * LIMIT] + [16 * BLOCK] * 6 + [0],
              "all pointers are where they should be")

with made("null_blk size=64 zone_size=4 zone_nr_conv=1 blocksize=4096") \
        as device:
    def check(server, where):
        data = os.urandom(20 * BLOCK)
        h = connect(server.uri)
        for at in range(0, len(data), 5 * BLOCK):
            h.pwrite(data[at:at + 5 * BLOCK], where + at)
            h.pwrite(data[at:at + 5 * BLOCK], 1 << 20)
        tap.equal(bytes(h.pread(len(data), where)), data,
                  "what is written is read")
        tap.equal(device.read(where, len(data)), data, "and on the device")
        h.shutdown()

    with ZnbdServer(device.path, "--threads", "2") as server:
        check(server, ZONE)
        # The loops may still be at it.
        end = time.monotonic() + 10
        while pinned(server) < 32 << 20 and time.monotonic() < end:
            time.sleep(.1)
        tap.equal(pinned(server), 32 << 20,
                  "each thread's ring has fixed memory")
    if shutil.which("setpriv") is None:
        tap.skip("without fixed memory", "setpriv is not installed")
    else:
        server = ZnbdServer(device.path)
        server.argv = ["setpriv", "--bounding-set", "-ipc_lock", "prlimit",
                       "--memlock=0"] + server.argv
        with server:
            check(server, 2 * ZONE)
            tap.equal(pinned(server), 0, "it goes without, where it must")
tap.done_testing()
