#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Clients that mean no good, or break: nothing of what they do ends
znbd-server, makes it grow without bound, or keeps it from serving others.
"""

import os
import random
import resource
import socket
import struct
import time

import nbd_raw as n
from nbd_raw import Raw
from harness import TAP, ZnbdServer, connect, long

B = 4096
ZONE = 1 << 20
SIZE = 64 * ZONE
DISK = "memory:64M,zone-size=1M,conventional=4"

tap = TAP()
server = ZnbdServer(DISK, "-t", 2)


def serves(what):
    """Others are served, and soon."""
    begin = time.monotonic()
    h = connect(server.uri)
    good = bytes(h.pread(B, 0)) is not None
    h.shutdown()
    took = time.monotonic() - begin
    tap.ok(good and took < 5 and server.process.poll() is None,
           "others are served: " + what, "took %.1f s" % took, server.log())


def memory():
    """KiB in use."""
    with open("/proc/%d/status" % server.pid) as f:
        return int([x for x in f if x.startswith("VmRSS")][0].split()[1])


def descriptors():
    return len(os.listdir("/proc/%d/fd" % server.pid))


def settled(before):
    """All that came is gone again."""
    for _ in range(100):
        if descriptors() <= before:
            return True
        time.sleep(0.1)
    return False


def cut_off():
    """A session cut off after each of its bytes."""
    contexts = Raw.meta_data("", ["base:allocation", "x-zbd:zones"])
    go = Raw.info_data("", (1, 2, 3))
    session = struct.pack(">I", 3)
    session += struct.pack(">QII", n.OPTION_MAGIC, n.OPT_EXTENDED_HEADERS, 0)
    session += struct.pack(">QII", n.OPTION_MAGIC, n.OPT_SET_META_CONTEXT,
                           len(contexts)) + contexts
    session += struct.pack(">QII", n.OPTION_MAGIC, n.OPT_GO, len(go)) + go
    session += struct.pack(">IHHQQQ", n.REQUEST_EXT_MAGIC,
                           n.FLAG_PAYLOAD_LEN, n.CMD_WRITE, 1, 0, 64)
    session += bytes(64)
    session += struct.pack(">IHHQQQ", n.REQUEST_EXT_MAGIC, 0, n.CMD_READ, 2,
                           0, B)
    before = descriptors()
    for length in range(len(session) + 1):
        s = socket.socket(socket.AF_UNIX)
        s.connect(server.socket)
        s.sendall(session[:length])
        s.close()
    tap.ok(settled(before), "cut off after each byte: all closed")
    serves("cut off after each byte")

    # One byte at a time.
    s = socket.socket(socket.AF_UNIX)
    s.connect(server.socket)
    for i in range(len(session)):
        s.send(session[i:i + 1])
    s.shutdown(socket.SHUT_WR)
    got = b""
    while True:
        more = s.recv(1 << 16)
        if not more:
            break
        got += more
    tap.ok(struct.pack(">I", n.REPLY_EXT_MAGIC) in got,
           "a byte at a time: served, and answered after a half-close")
    s.close()


def lengths():
    extremes = (0, 1, 2, 15, 16, 4095, 4096, 65535, 65536, 65537, 1 << 24,
                (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
    for length in extremes:
        for option in list(range(0, 13)) + [1 << 31, (1 << 32) - 1]:
            r = Raw(server.socket, timeout=5)
            r.option(n.OPT_STRUCTURED_REPLY)
            try:
                r.send_option(option, b"\xff" * min(length, 1 << 16), length)
                r.s.shutdown(socket.SHUT_WR)
                while True:
                    r.recv(1)
            except (n.Closed, OSError):
                pass
            r.close()
    serves("options of every length")

    edges = (0, 1, 511, B - 1, B, B + 1, SIZE - B, SIZE - 1, SIZE, SIZE + 1,
             (1 << 32) - B, (1 << 32) - 1, 1 << 32, 1 << 63,
             (1 << 63) - 1, (1 << 64) - B, (1 << 64) - 1)
    for extended in False, True:
        r = Raw(server.socket).begin(
            contexts=["base:allocation", "x-zbd:zones", "x-zbd:reset"],
            extended=extended)
        wrong = []
        for command in range(9):
            if command in (n.CMD_WRITE, n.CMD_DISC):
                continue
            for offset in edges:
                for length in edges:
                    if length >= 1 << 32 and not extended:
                        continue
                    for flags in 0, n.FLAG_REQ_ONE, n.FLAG_DF:
                        a = r.ask(command, offset, length, flags)
                        past = offset + length > SIZE
                        if past and not a.error and command != n.CMD_FLUSH:
                            wrong.append((command, offset, length, flags))
                        for e in a.extents.values():
                            if sum(x[0] for x in e) > length:
                                wrong.append(("status", offset, length))
        tap.equal(wrong, [], "every offset and length, extended %s"
                  % extended)
        r.close()
    serves("requests of every offset and length")


def noise():
    """Random bytes, in each phase."""
    rng = random.Random(int(time.time()))
    seed = rng.randrange(1 << 32)
    rng.seed(seed)
    tap.diag("seed %d" % seed)
    before = descriptors()
    for i in range(2000 if long else 200):
        r = Raw(server.socket, flags=None)
        try:
            if i % 4 > 0:
                r.raw(struct.pack(">I", 3))
            if i % 4 > 1:
                r.begin(extended=i % 8 > 3,
                        contexts=["x-zbd:zones", "x-zbd:append"])
            for _ in range(rng.randrange(1, 5)):
                junk = rng.randbytes(rng.randrange(200))
                if i % 4 == 1:
                    junk = struct.pack(">QII", n.OPTION_MAGIC,
                                       rng.randrange(13), len(junk)) + junk
                elif i % 4 == 3:
                    head = struct.pack(
                        ">IHHQQ", n.REQUEST_EXT_MAGIC if r.extended
                        else n.REQUEST_MAGIC, rng.randrange(64),
                        rng.randrange(9), i, rng.randrange(SIZE) & -512)
                    length = rng.randrange(3 * B) & -512
                    junk = head + struct.pack(
                        ">Q" if r.extended else ">I", length) + bytes(length)
                r.raw(junk)
        except (n.Closed, OSError):
            pass
        r.close()
    tap.ok(settled(before), "noise: all closed")
    serves("noise")


def never_reads():
    """A peer that asks and asks and reads nothing."""
    before = memory()
    peers = []
    for _ in range(4):
        r = Raw(server.socket).begin()
        r.s.setblocking(False)
        request = struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_READ, 1,
                              0, 1 << 20)
        sent = 0
        try:
            for _ in range(5000):
                sent += r.s.send(request * 100)
        except BlockingIOError:
            pass
        peers.append(r)
    serves("peers that never read")
    grown = memory() - before
    if "ZNBD_SANITIZER" in os.environ:
        tap.skip("peers that never read: memory", "sanitizers take more")
    else:
        tap.ok(grown < 4 * 160 << 10,
               "peers that never read: memory is bounded",
               "grown by %d KiB" % grown)
    for r in peers:
        r.close()

    # Options without reading.
    r = Raw(server.socket)
    r.s.setblocking(False)
    listing = struct.pack(">QII", n.OPTION_MAGIC, n.OPT_LIST, 0)
    try:
        while True:
            r.s.send(listing * 100)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass
    serves("options without reading")
    r.close()
    r = Raw(server.socket, timeout=20)
    try:
        for _ in range(2000):
            r.option(n.OPT_LIST)
        tap.fail("options without end end")
    except (n.Closed, OSError):
        tap.passed("options without end end")


def floods():
    """Writes that wait, as many as can be; they stay within their budget.
    What is refused the client is told; who does not listen is not read from
    for ever."""
    a = Raw(server.socket).begin()
    zone = 5 * ZONE
    count = 9000            # more than 32 MiB of 4096
    a.s.settimeout(60)
    request = b"".join(
        struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_WRITE, i,
                    zone + B + i % 200 * B + i // 200 * ZONE, B) + bytes(B)
        for i in range(count))
    a.s.setblocking(False)
    sent = 0
    end = time.monotonic() + 60
    while sent < len(request) and time.monotonic() < end:
        try:
            sent += a.s.send(request[sent:sent + (1 << 20)])
        except BlockingIOError:
            time.sleep(0.01)
        try:
            a.s.recv(1 << 20)
        except BlockingIOError:
            pass
    tap.equal(sent, len(request), "writes ahead of pointers are read on and on")
    serves("a flood of writes that wait")
    a.close()


def crowd():
    """A thousand connections at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1000
    if hard != resource.RLIM_INFINITY and hard < wanted + 100:
        tap.skip("a crowd", "no more than %d descriptors" % hard)
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 100),
                                                hard))
    before = descriptors()
    crowd = [Raw(server.socket, timeout=60) for _ in range(wanted)]
    for r in crowd:
        r.begin()
    cookies = [r.send(n.CMD_READ, i % 4 * B, B)
               for i, r in enumerate(crowd)]
    tap.equal({r.reply(c).error for r, c in zip(crowd, cookies)}, {0},
              "%d connections are served" % wanted)
    serves("%d connections" % wanted)
    for r in crowd:
        r.close()
    tap.ok(settled(before), "and closed")


def leaves():
    """Disconnects with everything in flight."""
    before = descriptors()
    for i in range(60):
        r = Raw(server.socket).begin(
            contexts=["x-zbd:append"] if i % 3 == 0 else ["x-zbd:reset"],
            extended=i % 2 == 1)
        zone = (8 + i % 8) * ZONE
        for j in range(20):
            r.send(n.CMD_WRITE, zone + (j + i % 2) * B, B, 0, bytes(B))
            r.send(n.CMD_BLOCK_STATUS, zone + j * B, B, n.FLAG_REQ_ONE)
            r.send(n.CMD_READ, zone, 64 * B)
            r.send(n.CMD_FLUSH)
            r.send(n.CMD_BLOCK_STATUS, zone, B, n.FLAG_REQ_ONE)
        if i % 4 == 0:
            r.send(n.CMD_DISC)
        r.close()
    tap.ok(settled(before), "disconnects with requests in flight: all closed")
    serves("disconnects")


with server:
    cut_off()
    lengths()
    noise()
    never_reads()
    floods()
    crowd()
    leaves()

    # It ends while clients are there.
    idle = Raw(server.socket).begin()
    waiting = Raw(server.socket).begin()
    greeted = Raw(server.socket)
    cookie = waiting.send(n.CMD_WRITE, 40 * ZONE + B, B, 0, bytes(B))
    time.sleep(0.1)
    begin = time.monotonic()
    server.stop()
    tap.ok(time.monotonic() - begin < 4, "SIGTERM ends it, clients or not")
    tap.ok(waiting.reply(cookie).error != 0, "who waited is told")
    tap.ok(idle.is_closed() and greeted.is_closed(), "all are disconnected")
tap.done_testing()
