#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd attach where connections break, at every message of an exchange, and
where servers go and come back: as they were, after a loss of power, as
another disk.  What was in flight is done once, or fails where that cannot be
told.
"""

import errno
import os
import random
import struct
import subprocess
import time
import traceback

import nbd_raw as n
from attached import Attached, Call, wait_for
from cutter import Cutter
from harness import TAP, Nbdkit, ZnbdServer, connect, long, run
from zone_model import CLOSED, CONVENTIONAL, EMPTY, FULL

tap = TAP()
KiB, MiB = 1 << 10, 1 << 20
ZONE = 4 * MiB
MEMORY = "memory:64M,zone-size=4M,zone-capacity=3M,conventional=2"
CREATE = ["--size=64M", "--zone-size=4M", "--zone-capacity=3M",
          "--conventional=2"]
rand = random.Random(5)


def image(name):
    path = tap.path(name)
    status, out, err = run("znbd", "create", *CREATE, path)
    assert status == 0, err
    return path


def of_server(uri, offset, length):
    h = connect(uri)
    data = bytes(h.pread(length, offset))
    h.shutdown()
    return data


def pointers(zones):
    return [(z.cond, z.wp) for z in zones]


# ---- at every message ----------------------------------------------------------

def workload(dev):
    """One of each; zones 2 to 6 are empty, and again when it has ended.
    Every byte is another one each time.  Returns what is wrong."""
    a, b, c, d = (rand.randbytes(8 * KiB) for _ in range(4))
    dev.write(2 * ZONE, a)
    dev.write(2 * ZONE + 8 * KiB, b, fua=True)
    dev.write(MiB, c)                           # conventional
    dev.write(3 * ZONE, d)
    dev.zone("finish", 3)
    dev.zone("open", 4)
    dev.zone("close", 4)
    dev.write(5 * ZONE, c)
    dev.zone("close", 5)
    dev.flush()
    zones = dev.report()
    wrong = []
    if pointers(zones[4:6]) != [(EMPTY, 0), (CLOSED, 8 * KiB)] or \
       zones[2].wp != 16 * KiB or zones[3].cond != FULL:
        wrong.append("zones: %s" % zones[2:6])
    for offset, wanted in ((2 * ZONE, a + b), (MiB, c), (3 * ZONE, d),
                           (5 * ZONE, c), (2 * ZONE + 16 * KiB, bytes(4096))):
        if dev.read(offset, len(wanted)) != wanted:
            wrong.append("data at %d" % offset)
    for number in 2, 3, 5:
        dev.zone("reset", number)
    if [z.cond for z in dev.report()[2:6]] != [EMPTY] * 4:
        wrong.append("zones are not empty")
    return wrong


def look(dev):
    """The same, where it may fail."""
    try:
        return workload(dev)
    except OSError:
        for number in range(2, 7):
            dev.zone("reset", number)
        return [traceback.format_exc()]


def round_(dev, cutter, message, bytes_):
    """With one cut.  Whether there was one."""
    cuts = cutter.cuts
    cutter.cut_at(message, bytes_)
    wrong = look(dev)
    if wrong:
        tap.fail("cut at message %d, byte %s" % (message, bytes_), *wrong,
                 dev.log()[-500:])
    return cutter.cuts > cuts, not wrong


with ZnbdServer(MEMORY) as server, \
        Cutter(tap.path("cutter"), server.socket) as cutter, \
        Attached(cutter.uri, "--connections", "1") as dev:
    tap.equal(workload(dev), [], "the workload, with nothing in its way")
    cutter.cut_at(0)
    tap.equal(workload(dev), [], "and again")
    total = cutter.messages
    tap.ok(total > 30, "it is some messages", total)

    rounds = good = 0
    for message in range(1, total + 1):
        # Before it, behind it, or inside of it: bytes of a header, or of
        # what follows.
        places = [0, None, 13, 27, 200] if long else \
            [(0, None, 13, 200)[message % 4]]
        for bytes_ in places:
            was_cut, right = round_(dev, cutter, message, bytes_)
            rounds += was_cut
            good += right and was_cut
    tap.ok(good == rounds >= total // 2, "every message was cut once",
           "%d of %d rounds, %d messages" % (good, rounds, total))
    # And often, also while it connects again.
    cuts = cutter.cuts
    good = 0
    tries = 100 if long else 3
    for _ in range(tries):
        stop = []

        def cut_often():
            while not stop:
                time.sleep(rand.uniform(.05, .6))
                cutter.cut()

        cutting = Call(cut_often)
        wrong = look(dev)
        stop.append(True)
        cutting.result()
        tap.diag(*wrong)
        good += not wrong
    tap.equal(good, tries, "%d cuts in no order" % (cutter.cuts - cuts))
    tap.ok(dev.listed()["reconnects"] > 10, "znbd list counts them")

    # ---- others ------------------------------------------------------------

    # A write that never came there, and another's in its place.
    cutter.refuse = cutter.hold = True
    write = Call(dev.write, 6 * ZONE, b"mine" * KiB)
    time.sleep(.3)
    cutter.cut()
    h = connect(server.uri)
    h.pwrite(b"them" * KiB, 6 * ZONE)
    h.shutdown()
    cutter.refuse = False
    cutter.release()
    tap.raises(OSError, write.result, "a write that another one has taken "
               "the place of fails", errno.EIO)
    tap.equal(of_server(server.uri, 6 * ZONE, 8 * KiB),
              b"them" * KiB + bytes(4 * KiB), "and has left no trace")
    # After a write that failed the kernel believes a report.
    tap.equal(dev.report()[6].wp, 4 * KiB, "the pointer is the other's")
    dev.write(6 * ZONE + 4 * KiB, b"mine" * KiB)
    tap.equal(of_server(server.uri, 6 * ZONE, 8 * KiB),
              b"them" * KiB + b"mine" * KiB, "the next one goes behind it")
    dev.zone("reset", 6)

    # Replies that are none: it is not believed, and connects again.
    for forge, said in (
            (lambda m: b"HTTP" + m[4:], "something that is no reply"),
            (lambda m: m + b"more" * 4, "something that is no reply"),
            (lambda m: m[:15] + bytes([m[15] ^ 2]) + m[16:],
             "a command that is not in flight"),
            (lambda m: struct.pack(">IHH8sI", n.CHUNK_MAGIC, 1, 0, m[8:16],
                                   0), "which was not agreed on")):
        at = dev.report()[6].wp
        before = len(dev.log())
        cutter.forge = forge
        dev.write(6 * ZONE + at, b"data" * KiB)
        tap.ok(wait_for(lambda: "the server sent " in dev.log()[before:] and
                        said in dev.log()[before:] and
                        "connected again" in dev.log()[before:]),
               "a server that sends " + said, dev.log()[before:])
        tap.equal(of_server(server.uri, 6 * ZONE + at, 8 * KiB),
                  b"data" * KiB + bytes(4 * KiB), "what was written is there")
    dev.zone("reset", 6)

# ---- servers come and go ---------------------------------------------------------

path, other = image("disk"), image("other")
server = ZnbdServer(path).start()


def serve(disk):
    """At the same socket."""
    server.argv[-1] = disk
    server.start()


with Attached(server.uri) as dev:
    dev.write(2 * ZONE, b"1234" * KiB)
    server.kill()
    write = Call(dev.write, 2 * ZONE + 4 * KiB, b"5678" * KiB)
    report = Call(dev.report)
    serve(path)
    write.result()
    report.result()
    dev.flush()
    tap.equal(dev.read(2 * ZONE, 8 * KiB), b"1234" * KiB + b"5678" * KiB,
              "a server that is killed and started again")
    server.stop()
    tap.ok(dev.says("the connection broke"), "it says that it lost it")
    tap.equal(dev.listed()["state"], "reconnecting", "znbd list, too")

    # Another disk.
    write = Call(dev.write, 2 * ZONE + 8 * KiB, b"90ab" * KiB)
    serve(other)
    tap.ok(dev.says("it is another disk now (its uuid differs)"),
           "another disk is refused")
    write.join(1)
    tap.ok(write.is_alive(), "requests wait")
    server.stop()
    tap.equal(of_server(ZnbdServer(other, "-r").start().uri, 2 * ZONE, 4096),
              bytes(4096), "it was not written")
    Nbdkit.running[-1].stop()
    serve(path)
    write.result()
    tap.equal(dev.read(2 * ZONE + 8 * KiB, 4096), b"90ab" * KiB,
              "the right one is taken again")
    tap.ok(dev.says("connected again"), "and that is said")

    # The host of the server loses its power: it has another boot id.
    boot_id = "/proc/sys/kernel/random/boot_id"
    fake = tap.path("boot_id")

    def power_loss(seed):
        server.kill()
        with open(fake, "w") as f:
            f.write("%08x-0000-4000-8000-000000000000\n" % seed)
        subprocess.run(["mount", "--bind", fake, boot_id], check=True)
        serve(path)
        subprocess.run(["umount", boot_id], check=True)

    dev.flush()
    power_loss(1)
    dev.flush()
    tap.passed("all that was flushed outlives a loss of power")
    dev.write(2 * ZONE + 12 * KiB, b"lost" * KiB)
    power_loss(2)
    tap.raises(OSError, dev.flush, "what was not flushed does not: the next "
               "flush fails", errno.EIO)
    tap.ok(dev.says("what was written and not flushed may be lost"),
           "with a message")
    dev.flush()
    tap.passed("the one after it does not")
    wp = dev.report()[2].wp
    tap.equal(wp, 12 * KiB, "the zone is what the server has")
    # The kernel remembers another pointer until a write fails.
    tap.raises(OSError, lambda: dev.write(2 * ZONE + 16 * KiB, bytes(4096)),
               "a write behind what is lost fails", errno.EIO)
    dev.report()
    dev.write(2 * ZONE + wp, b"next" * KiB)
    dev.flush()
    tap.equal(dev.read(2 * ZONE + wp, 4096), b"next" * KiB, "and is written")

    # FUA is a promise of its own.
    dev.write(3 * ZONE, b"safe" * KiB, fua=True)
    power_loss(3)
    tap.equal(dev.read(3 * ZONE, 4096), b"safe" * KiB,
              "what was written with FUA outlives it as well")
    try:
        dev.flush()
    except OSError:
        pass
server.stop()

# A write with FUA whose answer is lost, and the power behind it.
server = ZnbdServer(path, "-D", "server.requests=1").start()
with Cutter(tap.path("cutter2"), server.socket) as cutter, \
        Attached(cutter.uri, "--connections", "1") as dev:
    dev.zone("reset", 2)
    cutter.cut_at(2)            # the answer
    dev.write(2 * ZONE, b"fuaf" * KiB, fua=True)
    tap.ok(cutter.cuts == 1, "an answer of a write with FUA is lost")
    log = server.log()
    tap.ok(" FLUSH " in log[log.rindex(" WRITE "):],
           "it is flushed before it is said to be done", log[-1500:])
server.stop()

# ---- limits of patience -------------------------------------------------------------

server = ZnbdServer(path).start()
with Attached(server.uri, "--timeout", "1") as dev:
    dev.zone("reset", 2)
    dev.write(2 * ZONE, b"1234" * KiB)
    server.kill()
    tap.raises(OSError, lambda: dev.read(2 * ZONE, 4096),
               "--timeout: a read fails", errno.EIO)
    tap.raises(OSError, lambda: dev.write(2 * ZONE + 4096, bytes(4096)),
               "--timeout: a write fails", errno.EIO)
    serve(path)
    tap.ok(dev.says("connected again"), "--timeout: it connects all the same")
    tap.equal(dev.read(2 * ZONE, 4096), b"1234" * KiB, "and reads")
    wp = dev.report()[2].wp
    dev.write(2 * ZONE + wp, b"next" * KiB)
    tap.passed("and writes")
    dev.flush()
server.stop()

# Detached while the server is gone.
server = ZnbdServer(path).start()
dev = Attached(server.uri).attach()
server.kill()
dev.says("the connection broke")
status, out, err = run("znbd", "detach", dev.path)
tap.ok(status == 1 and "could not be made durable" in err,
       "detached without a server: what may be lost is told", err)
tap.equal(dev.process.wait(30), 0, "its process has ended")
tap.ok(not os.path.exists(dev.path), "and the device")

# ---- ordinary disks ---------------------------------------------------------------

ordinary = Nbdkit("64M", plugin="memory").start()
with Attached(ordinary.uri) as dev:
    dev.write(MiB, b"data" * KiB)
    dev.flush()
    ordinary.kill()
    ordinary.argv[-1] = "32M"
    ordinary.start()
    read = Call(dev.read, MiB, 4096)
    tap.ok(dev.says("the disk is smaller now: 33554432 bytes, not 67108864"),
           "a disk that is smaller is refused")
    ordinary.kill()
    ordinary.argv[-1] = "64M"
    ordinary.start()
    tap.equal(read.result(), bytes(4096), "requests have waited")
    dev.write(MiB, b"data" * KiB)
    ordinary.kill()
    ordinary.start()
    tap.raises(OSError, dev.flush, "an ordinary disk: it is assumed that "
               "what was not flushed is lost", errno.EIO)
ordinary.stop()
tap.done_testing()
