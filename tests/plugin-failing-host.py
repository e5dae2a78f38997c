#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""An image on a host that fails it: a limit of the file's size, a read-only
mount, a file that is cut off below its server.  Each is an error of the
request that met it; the zone's pointer is right, what could be read can be
read, and the server lives.  (A full file system: full-filesystem.sh.  A disk
that fails: failing_disks of unit-powerloss.)

And what a host gets back: the space of a zone that is reset.
"""

import errno
import os
import signal
import subprocess
import time

import nbd

from harness import TAP, run, served_by
from zone_table import RESET, Served

B = 4096
ZONE = 1 << 20
ZONES = 8
DATA = 1 << 20                  # where an image this small has its data

tap = TAP()


def make(name, conventional=0):
    image = tap.path(name)
    status, out, err = run("znbd", "create", "--size", ZONE * ZONES,
                           "--zone-size", ZONE, "--conventional",
                           conventional, image)
    tap.equal((status, err), (0, ""), name + ": an image")
    return image


def pattern(zone, length):
    return bytes([zone + 1]) * length


def refused(call, wanted, description):
    try:
        call()
        tap.fail(description, "no error")
    except nbd.Error as e:
        tap.ok(e.errnum in wanted, description, e)


def lives(server, description):
    tap.ok(server.process.poll() is None, description + ": the server lives",
           server.log())


def check_zones(server, written, description):
    """Each zone's pointer, and its bytes; over connections of its own."""
    h, table = server.connect(), server.table()
    tap.equal([table.written(zone) for zone in written],
              list(written.values()), description + ": pointers are right")
    tap.ok(all(not length or bytes(h.pread(length, zone * ZONE)) ==
               pattern(zone, length) for zone, length in written.items()),
           description + ": what was written is read")


# A file may be no larger than half of zone 3 needs.
image = make("limited")
limit = DATA + 3 * ZONE + ZONE // 2
server = Served(image)
server.argv = ["prlimit", "--fsize=%d" % limit] + server.argv
with server:
    h = server.connect()
    h.pwrite(pattern(1, 256 << 10), ZONE)
    h.pwrite(pattern(3, 512 << 10), 3 * ZONE)
    h.flush()
    for length in B, 512 << 10:
        refused(lambda: h.pwrite(pattern(3, length), 3 * ZONE + (512 << 10)),
                (errno.ENOSPC,), "limit of size: a write of %d bytes above it "
                "fails" % length)
        refused(lambda: h.pwrite(pattern(5, length), 5 * ZONE),
                (errno.ENOSPC,), "limit of size: to another zone, too")
    lives(server, "limit of size")
    h.pwrite(pattern(1, B), ZONE + (256 << 10))
    h.flush()
    wanted = {1: (256 << 10) + B, 3: 512 << 10, 5: 0}
    check_zones(server, wanted, "limit of size")
with Served(image) as server:
    check_zones(server, wanted, "limit of size, without it")
    server.connect().pwrite(pattern(3, B), 3 * ZONE + (512 << 10))
tap.equal(run("znbd", "check", image)[0], 0, "limit of size: in order")

# A mount that is read-only: of an image whose server was killed.
image = make("killed")
server = Served(image).start()
server.connect().pwrite(pattern(2, 3 * B), 2 * ZONE)
server.kill()
folder = tap.path("read-only")
os.mkdir(folder)
with open(image, "rb") as f:
    before = f.read(DATA)
mounted = os.geteuid() == 0 and \
    run("mount", "--bind", tap.tmp, folder)[0] == 0
if mounted and run("mount", "-o", "remount,ro,bind", folder)[0] == 0:
    try:
        with Served(os.path.join(folder, "killed")) as server:
            h = server.connect(strict=False)
            tap.ok(h.is_read_only(), "read-only mount: the export is so, too")
            refused(lambda: h.pwrite(pattern(2, B), 2 * ZONE + 3 * B),
                    (errno.EPERM, errno.EROFS, errno.EINVAL),
                    "read-only mount: a write fails")
            check_zones(server, {2: 3 * B, 3: 0}, "read-only mount")
            lives(server, "read-only mount")
    finally:
        run("umount", folder)
    with open(image, "rb") as f:
        tap.ok(f.read(DATA) == before, "read-only mount: nothing is changed")
else:
    if mounted:
        run("umount", folder)
    tap.skip("read-only mount", "mounting is not allowed here")

# The file is cut off below the server: behind zone 2, and before everything.
for size in DATA + 3 * ZONE, 4096:
    name = "cut to %d" % size
    image = make(name.replace(" ", "-"), 1)
    server = Served(image).start()
    h, table = server.connect(), server.table()
    h.pwrite(pattern(0, B), 0)
    for zone in 1, 2, 5:
        h.pwrite(pattern(zone, 64 << 10), zone * ZONE)
    h.flush()
    os.truncate(image, size)
    refused(lambda: h.pread(B, 5 * ZONE), (errno.EIO,),
            name + ": what is gone is an error to read")
    if size > DATA:
        tap.ok(all(bytes(h.pread(64 << 10, zone * ZONE)) ==
                   pattern(zone, 64 << 10) for zone in (1, 2)),
               name + ": what is left is read")
    for zone in 1, 2:           # a store to the mapping is a SIGBUS
        try:
            h.pwrite(pattern(zone, B), zone * ZONE + (64 << 10))
        except nbd.Error as e:
            tap.equal(e.errnum, errno.EIO, name + ": a write fails")
    refused(h.flush, (errno.EIO,), name + ": a flush fails")
    refused(lambda: h.pwrite(pattern(4, B), 4 * ZONE), (errno.EIO,),
            name + ": and every change after that")
    refused(lambda: table.request(RESET, 2), (errno.EIO,),
            name + ": a reset")
    tap.equal(table.written(5), 64 << 10, name + ": zones are reported")
    lives(server, name)
    for handle in server.handles:
        handle.shutdown()
    server.handles = []
    # That it cannot close the disk it may say with its status.
    server.process.send_signal(signal.SIGTERM)
    status = server.process.wait(15)
    tap.ok(status >= 0, name + ": it ends in order", "status: %d" % status)
    server._forget()
    left = os.path.getsize(image)       # the writes may have enlarged it
    status, out, err = run("znbd", "check", image)
    tap.ok(status == 1 and "truncated" in out + err,
           name + ": the image is refused", out + err)
    tap.equal(os.path.getsize(image), left, name + ": and left so")

# What a reset gives back.
image = make("freed")
with Served(image) as server:
    h, table = server.connect(), server.table()
    for zone in 2, 3, 4:
        h.pwrite(pattern(zone, ZONE), zone * ZONE)
    h.flush()
    used = os.stat(image).st_blocks * 512
    tap.ok(used >= 3 * ZONE, "written zones take space", used)
    table.request(RESET, 2)
    h.trim(ZONE, 3 * ZONE)
    table.request(RESET, 4)
    h.flush()
    left = os.stat(image).st_blocks * 512
    tap.ok(left > used - ZONE, "reset ones keep it for writes that follow",
           "%d, then %d" % (used, left))
    wanted = used - 3 * ZONE + 64 * 1024
    deadline = time.monotonic() + 15
    while os.stat(image).st_blocks * 512 > wanted and \
            time.monotonic() < deadline:
        time.sleep(.1)
    left = os.stat(image).st_blocks * 512
    tap.ok(left <= wanted, "and give it back when there are none",
           "%d, then %d" % (used, left))

# Writers that each want their writes durable share the syncs: one pwritev2 a
# round, of the log or of a commit.  What goes by a ring no strace can hold up;
# of that group_commit of unit-powerloss has a look.
if served_by == "nbdkit" and run("strace", "-V")[0] == 0:
    image = make("shared")
    server = Served(image).start()
    trace = tap.path("trace")
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", trace, "-e", "trace=pwritev2",
         "-e", "inject=pwritev2:delay_enter=10000", "-p", str(server.pid)],
        stderr=subprocess.DEVNULL)
    attached = False
    while strace.poll() is None and not attached:
        with open("/proc/%d/status" % server.pid) as f:
            attached = "TracerPid:\t0\n" not in f.read()
        time.sleep(.05)
else:
    attached = False
if attached:
    handles = [server.connect() for _ in range(16)]
    n = 0
    for i in range(10):
        for k, h in enumerate(handles):
            place = i * 2 + k // 8      # two writers a zone
            h.aio_pwrite(
                nbd.Buffer.from_bytearray(pattern(k % 8, B)),
                k % 8 * ZONE + place * B, lambda error: 1,
                nbd.CMD_FLAG_FUA)
            n += 1
        while any(h.aio_in_flight() for h in handles):
            for h in handles:
                if h.aio_in_flight():
                    h.poll(5)
    strace.terminate()
    strace.wait()
    with open(trace) as f:
        syncs = f.read().count("pwritev2(")
    tap.ok(0 < syncs * 2 <= n, "%d durable writes of 16 writers share their "
           "syncs" % n, "syncs: %d" % syncs)
    check_zones(server, {zone: 20 * B for zone in range(8)}, "shared syncs")
    server.stop()
elif served_by == "nbdkit":
    tap.skip("many durable writes share their syncs",
             "strace is not installed, may not trace, or is of no use")
tap.done_testing()
