#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Memory is bounded over all connections together: clients that ask for
much and take nothing, or announce much and send nothing, get no more than
--request-memory, do not hold up clients with small requests or the write
that fills a gap, and are dropped when others need the memory.  Nothing fails
for want of it."""

import os
import select
import socket
import struct
import threading
import time

from harness import TAP, Nbdkit, ZnbdServer, connect, run
from nbd_raw import (Closed, Raw, CMD_BLOCK_STATUS, CMD_READ, CMD_WRITE,
                     FLAG_REQ_ONE, OPTION_MAGIC, OPT_LIST_META_CONTEXT,
                     OPT_STRUCTURED_REPLY, REP_ACK, REP_META_CONTEXT,
                     REQUEST_MAGIC)

tap = TAP()
M = 1 << 20
HOARDERS = 24
LIMIT = 256
DISK = "memory:512M,zone-size=64M,conventional=2"


def resident(server, what="VmRSS"):
    with open("/proc/%d/status" % server.process.pid) as f:
        for line in f:
            if line.startswith(what):
                return int(line.split()[1]) // 1024
    return 0


def request(command, offset, length, cookie=1):
    return struct.pack(">IHHQQI", REQUEST_MAGIC, 0, command, cookie, offset,
                       length)


def hoard(server, length, count):
    """Asks for count reads and takes none of the replies."""
    r = Raw(server.socket)
    r.go("")
    r.s.settimeout(5)
    try:
        r.raw(request(CMD_READ, 0, length) * count)
    except socket.timeout:
        pass
    return r


def was_dropped(r):
    """Whether the server shut the connection down."""
    poll = select.poll()
    poll.register(r.s, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def timed(call):
    before = time.monotonic()
    call()
    return time.monotonic() - before


for size in ("255M", "1k", "x", "99999999T"):
    status, _, err = run("znbd-server", "--request-memory", size, DISK)
    tap.ok(status == 1 and "--request-memory " + size in err,
           "--request-memory %s is refused" % size, err)

# ---- payloads that do not come: it takes a while until that is seen ----

half = ZnbdServer(DISK, "-t", "2", "-v", "--request-memory",
                  "%dM" % LIMIT).start()
# All that there is: first the largest, then what still fits.
silent = []
for size in [32 * M] * 8 + [4 * M] * 8 + [M] * 8:
    r = Raw(half.socket)
    r.go("")
    r.raw(request(CMD_WRITE, 0, size) + b"x")
    silent.append(r)
# Some send a byte now and then; each of two threads has some of both kinds.
dripping = [r for i, r in enumerate(silent) if i % 4 < 2]
end = threading.Event()


def drip():
    while not end.wait(0.5):
        for r in dripping:
            try:
                r.raw(b"x")
            except Closed:
                pass


dripper = threading.Thread(target=drip)
dripper.start()
h = connect(half.uri)
slowest = max(timed(lambda: h.pread(4096, 0)) for _ in range(50))
tap.ok(slowest < 2, "payloads that do not come: small reads go on",
       "%.2f s" % slowest)
# Who holds no more than everybody may is not taken for one of these.
slow = Raw(half.socket, timeout=60)
slow.go("")
slow.raw(request(CMD_WRITE, 0, 100 << 10))

# ---- replies that are not taken ----

with ZnbdServer(DISK, "-t", "2", "--request-memory",
                "%dM" % LIMIT) as server:
    pass_before = resident(server)
    # 24 x 64 MiB, six times the limit.
    hoarders = [hoard(server, 2 * M, 32) for _ in range(HOARDERS)]
    began = time.monotonic()
    time.sleep(0.5)
    good = connect(server.uri)
    slowest = max(timed(lambda: good.pread(4096, 0)) for _ in range(50))
    tap.ok(slowest < 2, "small reads go on", "%.2f s" % slowest)
    good.pwrite(b"a" * 65536, 0)
    tap.equal(good.pread(65536, 0), b"a" * 65536, "so do small writes")

    # A write ahead of the pointer from one, the gap's from another.
    ahead, gap = Raw(server.socket), Raw(server.socket)
    for r in ahead, gap:
        r.go("")
    ahead.raw(request(CMD_WRITE, 128 * M + 65536, 65536) + b"2" * 65536)
    time.sleep(0.1)
    gap.raw(request(CMD_WRITE, 128 * M, 65536) + b"1" * 65536)
    for r, name in ((gap, "fills a gap"), (ahead, "waited for it")):
        magic, error, _ = struct.unpack(">IIQ", r.recv(16))
        tap.equal(error, 0, "the write that %s is done" % name)
    tap.equal(good.pread(131072, 128 * M), b"1" * 65536 + b"2" * 65536,
              "both are there")

    # The largest read: waits for the hoarders' end, and succeeds.
    took = timed(lambda: good.pread(32 * M, 0))
    tap.diag("the largest read took %.1f s" % took)
    tap.ok(time.monotonic() - began < 25, "a large one comes in its turn")
    good.pwrite(bytes(8 * M), 0)
    peak = resident(server, "VmHWM")
    tap.diag("resident at most: %d MiB, %d at the beginning" % (
        peak, pass_before))
    if os.environ.get("ZNBD_SANITIZER"):
        tap.skip("memory is bounded", "sanitizers take much themselves")
    else:
        # The disk, 64 MiB that each thread keeps, and small things.
        tap.ok(peak < LIMIT + 2 * 64 + 100, "memory is bounded",
               "%d MiB" % peak)
    tap.ok(any(was_dropped(r) for r in hoarders),
           "some who took nothing were dropped")
    tap.ok(not was_dropped(gap), "but not who held little")
    for r in hoarders + [ahead, gap]:
        r.close()
    good.shutdown()

# ---- payloads that did not come ----

tap.equal(len(h.pread(8 * M, 0)), 8 * M, "a large read comes in its turn")
end.set()
dripper.join()
tap.ok(any(was_dropped(r) for r in dripping) and
       any(was_dropped(r) for r in silent if r not in dripping),
       "those who sent nothing, or a byte now and then, were dropped")
tap.like(half.log(), "is too slow while memory is short", "and why")
slow.raw(b"y" * (100 << 10))
tap.equal(struct.unpack(">IIQ", slow.recv(16))[1], 0,
          "who holds little may take his time")
h.shutdown()
for r in silent + [slow]:
    r.close()
half.stop()

# ---- options without end ----

with ZnbdServer("memory:64M,zone-size=1M", "-t", "2") as server:
    def options(n):
        """One who asks for the contexts 990 times before taking an answer."""
        peers = [Raw(server.socket) for _ in range(n)]
        for r in peers:
            r.option(OPT_STRUCTURED_REPLY)
            r.raw((struct.pack(">QII", OPTION_MAGIC, OPT_LIST_META_CONTEXT,
                               8) + bytes(8)) * 990)
        return peers

    for r in options(20):               # the allocator's own
        r.close()
    before = resident(server, "VmRSS")
    peers = options(100)
    time.sleep(0.5)
    grown = (resident(server, "VmRSS") - before) * 1024 // 100
    if os.environ.get("ZNBD_SANITIZER"):
        tap.skip("answers to options: memory", "sanitizers take more")
    else:
        tap.ok(grown < 200, "answers to options are not piled up",
               "%d KiB a connection" % grown)
    for r in peers[1:]:
        r.close()
    r, acks, contexts = peers[0], 0, 0
    while acks < 990:
        kind = r.option_reply().type
        acks += kind == REP_ACK
        contexts += kind == REP_META_CONTEXT
    r.go("")
    tap.ok(contexts > 990 and contexts % 990 == 0,
           "but all are there in the end", "%d contexts" % contexts)
    r.close()

# ---- no memory to wait for ----

with ZnbdServer(DISK, "-t", "2", "--request-memory",
                "%dM" % LIMIT) as server:
    results = []

    def copy(i):
        c = connect(server.uri)
        data = bytes([i]) * (8 * M)
        for _ in range(4):
            c.pwrite(data, i * 8 * M)
            results.append(c.pread(8 * M, i * 8 * M) == data)
        c.shutdown()

    threads = [threading.Thread(target=copy, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    tap.equal(results, [True] * 48, "clients that take their replies share "
              "what there is")

# ---- in front of another server: what waits for its report ----

with Nbdkit("size=4G", "zone-size=64K", "conventional=1") as upstream, \
        ZnbdServer(upstream.uri, "-t", "2", "--request-memory",
                   "%dM" % LIMIT) as server:
    table = Raw(server.socket)
    table.go("zones")
    table.s.settimeout(2)
    status = Raw(server.socket)
    status.begin("", ["x-zbd:zones"])
    status.s.settimeout(2)
    for r, ask, n in (
            (table, request(CMD_READ, 0, 4 * M), 400),
            (status, struct.pack(">IHHQQI", REQUEST_MAGIC, FLAG_REQ_ONE,
                                 CMD_BLOCK_STATUS, 1, 0, 0xffff0000), 4000)):
        try:
            r.raw(ask * n)
        except socket.timeout:
            pass
    time.sleep(2)
    peak = resident(server, "VmHWM")
    tap.diag("resident at most: %d MiB" % peak)
    if os.environ.get("ZNBD_SANITIZER"):
        tap.skip("and bounded here too", "sanitizers take much themselves")
    else:
        tap.ok(peak < LIMIT + 2 * 64 + 100, "and bounded here too",
               "%d MiB" % peak)
    table.close()
    status.close()
tap.done_testing()
