#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Who does the work in znbd-server: an event loop does what waits for
nothing, without a hidden thread; and what a disk or a file system may take
long for is done by others, so that it does not hold up the loop's other
clients."""

import os
import shutil
import threading
import time

import nbd
import nbd_raw as n

from harness import TAP, ZnbdServer, connect, run

tap = TAP()
M = 1 << 20
ROUNDS = 8


def threads(server):
    names = []
    for task in os.listdir("/proc/%d/task" % server.process.pid):
        with open("/proc/%d/task/%s/comm" % (server.process.pid, task)) as f:
            names.append(f.read().strip())
    return names


def workers(server):
    """io_uring's, which stay for some seconds when they have done."""
    return [n for n in threads(server) if n.startswith("iou-wrk")]


def create(path, size, zone_size, conventional):
    status, _, err = run("znbd", "create", "--size", size, "--zone-size",
                         zone_size, "--conventional", conventional, path)
    if status != 0:
        raise RuntimeError(err)


def wait(h, *cookies):
    for cookie in cookies:
        while not h.aio_command_completed(cookie):
            h.poll(1000)


def small(h, zone, length, at_once=True):
    """Writes a zone in order and the conventional one anywhere, and reads
    it back, many at once, or the writes one after the other."""
    data = nbd.Buffer.from_bytearray(bytearray(os.urandom(length)))
    back = nbd.Buffer(length)
    places = [zone * 64 * M + i * length for i in range(16)]
    for ats in places, [i * length for i in range(16)]:
        if at_once:
            wait(h, *[h.aio_pwrite(data, at) for at in ats])
        else:
            for at in ats:
                wait(h, h.aio_pwrite(data, at))
    for _ in range(ROUNDS):
        wait(h, *[h.aio_pread(nbd.Buffer(length), at) for at in places])
    wait(h, h.aio_pread(back, places[-1]))
    return back.to_bytearray() == data.to_bytearray()


# ---- no hidden threads ----

shm = tap.memory()
folders = [tap.tmp] + ([shm] if shm else [])
for folder in folders:
    image = os.path.join(folder, "disk.zbd")
    create(image, "256M", "64M", "1")
    with ZnbdServer(image, "-t", "2") as server:
        h = connect(server.uri)
        # No zone is reset: who waits for that to be durable waits for a
        # sync, which a ring always gives to a worker.
        good = all([small(h, 1, 256 << 10, False),
                    small(h, 2, 64 << 10), small(h, 3, 4096)])
        tap.ok(good, "what was written is read, in %s" % folder[:8])
        tap.equal(workers(server), [],
                  "the loops did all of it themselves")
        h.shutdown()
    with ZnbdServer(image, "-t", "2") as server:
        h = connect(server.uri)
        h.trim(M, 0)
        tap.ok(workers(server), "a discard is for a worker thread, and "
               "this test sees such threads", threads(server))
        h.shutdown()
    with ZnbdServer(image, "-t", "2") as server:
        h = connect(server.uri)
        h.trim(64 * M, 64 * M)
        h.flush()
        h.shutdown()
    with ZnbdServer(image, "-t", "2") as server:
        h = connect(server.uri)
        tap.ok(small(h, 1, 256 << 10) and workers(server),
               "large writes are for one where more comes behind them",
               threads(server))
        h.shutdown()
    os.unlink(image)

# ---- looking out for requests ----

with ZnbdServer("memory:64M,zone-size=1M,conventional=1") as server:
    def used():
        """Processor time of all threads, in seconds."""
        ns = 0
        for task in os.listdir("/proc/%d/task" % server.process.pid):
            with open("/proc/%d/task/%s/schedstat" % (
                    server.process.pid, task)) as f:
                ns += int(f.read().split()[0])
        return ns / 1e9

    h = connect(server.uri)
    for _ in range(2000):
        h.pread(4096, 0)
    time.sleep(0.05)
    before = used()
    time.sleep(0.5)
    tap.ok(used() - before < 0.05, "a server sleeps when a client that "
           "sent one request after the other is silent",
           used() - before)
    h.shutdown()

# ---- what takes long ----

# tmpfs fills each page: the slowest that does not need a slow disk.
length = 1 << 30
if shm is None or shutil.disk_usage(shm).free < 3 * length:
    tap.skip("zeroing stalls nobody", "/dev/shm lacks 3 GiB of room")
else:
    image = os.path.join(shm, "disk.zbd")
    create(image, "2G", "1G", "2")
    with ZnbdServer(image, "-t", "1") as server:
        slow, quick = connect(server.uri), connect(server.uri)
        quick.pwrite(bytes(4096), length)

        def beside(cookie):
            """(how long it took, the longest read meanwhile)"""
            start, longest = time.monotonic(), 0
            while not slow.aio_command_completed(cookie):
                before = time.monotonic()
                quick.pread(4096, length)
                longest = max(longest, time.monotonic() - before)
                slow.poll(0)
            return time.monotonic() - start, longest

        for name, begin in (
                ("zeroing", lambda: slow.aio_zero(
                    length, 0, flags=nbd.CMD_FLAG_NO_HOLE)),
                ("discarding", lambda: slow.aio_trim(length, 0))):
            took, longest = beside(begin())
            text = "%s takes %.0f ms, a read beside it at most %.0f" % (
                name, took * 1e3, longest * 1e3)
            tap.diag(text)
            if took < 0.05:
                tap.skip("%s stalls nobody" % name, "it is too quick")
            else:
                tap.ok(longest < took * 0.7, "%s stalls nobody" % name,
                       text)
        tap.equal(slow.pread(4096, 0), bytes(4096), "all was zeroed")
        slow.shutdown()
        quick.shutdown()

# ---- what looks at many zones ----

def longest_beside(server, call):
    """(how long it took, the longest of another client's reads)"""
    quick = connect(server.uri)
    done = threading.Event()
    waits = [0]

    def read():
        while not done.is_set():
            before = time.monotonic()
            quick.pread(4096, 0)
            waits.append(time.monotonic() - before)

    reader = threading.Thread(target=read)
    reader.start()
    start = time.monotonic()
    try:
        call()
    finally:
        took = time.monotonic() - start
        done.set()
        reader.join()
        quick.shutdown()
    return took, max(waits)


# Sanitizers make all of it ten times slower, or more.
REPORTS = 20 if os.environ.get("ZNBD_SANITIZER") else 400
ZONES = 300000
ZONE = 64 << 10
SIZE = ZONES * ZONE
with ZnbdServer("memory:%d,zone-size=%d,conventional=1" % (SIZE, ZONE),
                "-t", "1") as server:
    def burst(r, count):
        """Requests about all but the first zone, sent at once"""
        pieces, send = [], r.raw
        r.raw = pieces.append
        cookies = [r.send(n.CMD_BLOCK_STATUS, ZONE, SIZE - ZONE,
                          n.FLAG_REQ_ONE) for _ in range(count)]
        r.raw = send
        r.raw(b"".join(pieces))
        return cookies

    def ask(context, count):
        """So often at once; the last answer"""
        r = n.Raw(server.socket, timeout=60)
        cookies = burst(r.begin(contexts=[context], extended=True), count)
        answers = [r.reply(cookie) for cookie in cookies]
        tap.equal({a.error for a in answers}, {0}, context + " is answered")
        r.close()
        return answers[-1].extents.popitem()[1]

    for name, call in (
            ("reports of many zones", lambda: ask("x-zbd:zones", REPORTS)),
            ("finishing many zones", lambda: ask("x-zbd:finish", 1))):
        took, longest = longest_beside(server, call)
        text = "%s take %.0f ms, a read beside them at most %.0f" % (
            name, took * 1e3, longest * 1e3)
        tap.diag(text)
        tap.ok(longest < took / 2, "%s stall nobody" % name, text)
    # Who floods waits himself: others' reports have their turn.
    flood = n.Raw(server.socket, timeout=60)
    flood.begin(contexts=["x-zbd:zones"], extended=True)
    burst(flood, 2 * REPORTS)
    extents = ask("x-zbd:zones", 1)
    flood.s.setblocking(False)
    answered = 0
    try:
        while True:
            answered += len(flood.s.recv(1 << 20)) // (32 + 8 + 16)
    except BlockingIOError:
        pass
    tap.ok(answered < REPORTS, "a report comes before those of a flood",
           "%d of the flood were answered" % answered)
    tap.equal(extents, [(131072 * ZONE, 14 | 2 << 4 | 1 << 8)],
              "a reply tells of 131072 zones at most")
    flood.close()
    before = connect(server.uri)
    tap.equal(before.pread(4096, 0), bytes(4096), "and it serves")
    before.shutdown()

# ---- where there are no holes ----

# ramfs can neither zero a range nor punch: zeros are written, 1 MiB at a
# time.  Anybody may mount one who may make a namespace.
script = r'''
mount -t ramfs none "$1" || exit 77
cd "$1"
znbd create --size 64M --zone-size 16M --conventional 2 disk.zbd || exit 1
znbd-server -t 1 disk.zbd -U - --run '"$PYTHON" -c "
import nbd, os, sys
h = nbd.NBD()
h.connect_uri(os.environ[\"uri\"])
M = 1 << 20
h.pwrite(b\"x\" * (8 * M), 0)
h.zero(5 * M + 4096, M + 4096)
h.cache(8 * M, 0)
h.trim(4096, 0)
assert h.pread(M + 4096, 0)[4096:] == b\"x\" * M
assert h.pread(5 * M + 4096, M + 4096) == bytes(5 * M + 4096)
assert h.pread(4096, 6 * M + 8192) == b\"x\" * 4096
h.pwrite(b\"y\" * M, 32 * M)
h.zero(3 * M, 33 * M)
h.pwrite(b\"y\" * M, 36 * M)
assert h.pread(5 * M, 32 * M) == b\"y\" * M + bytes(3 * M) + b\"y\" * M
h.shutdown()
"'
'''
folder = os.path.join(tap.tmp, "ramfs")
os.mkdir(folder)
try:
    status, out, err = run("unshare", "-rm", "sh", "-c", script, "sh", folder)
except FileNotFoundError:
    status = 77
if status == 77 or (status != 0 and "unshare:" in err):
    tap.skip("zeroing without holes", "no ramfs may be mounted here")
else:
    tap.equal((status, err), (0, ""), "zeroing without holes")
tap.done_testing()
