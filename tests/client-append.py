#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd append: where it says that things went is where they are, with one
and with many pieces in flight, from several processes to one zone, up to a
zone's end; and what it says of wrong input, output and zones.
"""

import json
import os
import struct
import subprocess

from harness import TAP, ZnbdServer, connect, long, run

K = 1024
B = 4096
ZONE = 4 << 20

tap = TAP()


def znbd(*argv, data=b"", **more):
    """(status, output, errors)"""
    p = subprocess.run(["znbd", *[str(a) for a in argv]], input=data,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=60, **more)
    return p.returncode, p.stdout.decode(), p.stderr.decode()


def places(out):
    return [tuple(map(int, line.split())) for line in out.splitlines()]


def blocks(writer, count):
    return b"".join(struct.pack("<II", writer, i) * (B // 8)
                    for i in range(count))


def pointer(uri, zone):
    out = run("znbd", "report", "--json", uri)[1]
    return json.loads(out)["zones"][zone]["wp"]


def pieces(uri):
    """One process, each depth: the data is where the lines say."""
    h = connect(uri)
    for zone, depth in (2, 1), (3, 4), (4, 32), (5, 1024):
        data = blocks(depth, 150)
        status, out, err = znbd("append", "--zone", zone, "--block-size",
                                "8k", "--depth", depth, uri, data=data)
        got = places(out)
        tap.ok((status, err, len(got)) == (0, "", 75),
               "depth %d: 75 pieces" % depth, status, err, out)
        tap.equal(sorted(got), [(zone * ZONE + i * 8 * K, 8 * K)
                                for i in range(75)],
                  "depth %d: without gaps" % depth)
        wrong = [i for i, (offset, length) in enumerate(got)
                 if h.pread(length, offset) != data[i * 8 * K:][:length]]
        tap.equal(wrong, [], "depth %d: each where its line says" % depth)
    data = blocks(9, 33)
    status, out, err = znbd("append", "--zone", 2, "--json", uri, data=data)
    got = [json.loads(line) for line in out.splitlines()]
    tap.equal(got, [{"offset": 2 * ZONE + 150 * B, "length": 128 * K},
                    {"offset": 2 * ZONE + 182 * B, "length": B}],
              "--json; pieces of 128k, and the last one shorter")
    h.shutdown()


def processes(uri):
    """Several of them to one zone, which they nearly fill."""
    count, each = 4, 190
    zone = 6
    run("znbd", "reset", "--zone", zone, uri)
    running = [subprocess.Popen(
        ["znbd", "append", "--zone", str(zone), "--block-size", "4k",
         "--depth", str(depth), uri], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE) for depth in (1, 2, 16, 32)]
    told = []
    for number, p in enumerate(running):
        p.stdin.write(blocks(number, each))
        p.stdin.close()
    for number, p in enumerate(running):
        told += [(offset, number, i) for i, (offset, length) in
                 enumerate(places(p.stdout.read().decode()))]
        tap.equal(p.wait(), 0, "process %d of four" % number)
    told.sort()
    tap.equal([x[0] for x in told], [zone * ZONE + i * B
                                     for i in range(count * each)],
              "each block has its place once")
    h = connect(uri)
    wrong = [x for x in told if h.pread(B, x[0]) !=
             struct.pack("<II", x[1], x[2]) * (B // 8)]
    tap.equal(wrong, [], "and is where its writer was told")
    h.shutdown()


def refusals(uri):
    for depth in 1, 32:
        def refused(what, regex, *argv, data=bytes(B), out="", **more):
            status, got, err = znbd("append", "--depth", depth, *argv, uri,
                                    data=data, **more)
            lines = err.splitlines()
            tap.ok(status == 1 and got == out and
                   all(x.startswith("znbd append: ") for x in lines),
                   "depth %d: %s" % (depth, what), status, got, err)
            tap.like(err, regex, "it says why")

        zone = 7 + (depth > 1)
        start = zone * ZONE
        refused("a conventional zone", "zone 0 is conventional",
                "--zone", 0)
        refused("a read-only zone", "zone 14 is read-only", "--zone", 14)
        refused("an offline zone", "zone 15 is offline", "--zone", 15)
        refused("no zone", "no zone 16", "--zone", 16)
        refused("a part of a block", "904 bytes .* no whole block.*\n.*"
                "4096 bytes in 1 piece were appended",
                "--zone", zone, data=bytes(5000), out="%d 4096\n" % start)
        refused("less than a block", "1 byte that is no whole block.*\n.*"
                " 0 bytes in 0 pieces", "--zone", zone, data=b"x")
        refused("pieces that are too large", "larger than the largest",
                "--zone", zone, "--block-size", "33M")
        refused("pieces that are no blocks", "no multiple of",
                "--zone", zone, "--block-size", "5000")
        run("znbd", "reset", "--zone", zone, uri)

        # 3 MiB of capacity: 24 pieces of 128k, and one that is refused.
        full = "".join("%d 131072\n" % (start + i * 131072)
                       for i in range(24))
        refused("more than the zone takes",
                "zone %d is full.*\n.*3145728 bytes in 24 pieces were"
                % zone, "--zone", zone, data=bytes(ZONE), out=full)
        refused("a full zone", "zone %d is full" % zone, "--zone", zone)
        run("znbd", "reset", "--zone", zone, uri)
        znbd("append", "--zone", zone, uri, data=bytes(3 * 1024 * K - B))
        refused("too little left", "4096 bytes left, which is less than the "
                "8192 to append.*\n.* 0 bytes", "--zone", zone,
                "--block-size", "8k", data=bytes(8 * K))

    tap.equal(znbd("append", "--zone", 9, uri), (0, "", ""),
              "nothing to append")
    tap.equal(pointer(uri, 9), 9 * ZONE, "nothing appended")
    status, out, err = run("sh", "-c", "znbd append --zone 9 '%s' <&-" % uri)
    tap.ok(status == 1 and "standard input: " in err, "no standard input",
           err)
    status, out, err = run("sh", "-c", "znbd append --zone 9 '%s' </"
                           % uri)
    tap.ok(status == 1 and "standard input: " in err, "a folder for input",
           err)
    for depth in 1, 8:
        for where in ">/dev/full", ">&-", "| true":
            status, out, err = run(
                "bash", "-o", "pipefail", "-c", "head -c 256k /dev/zero | "
                "(sleep 0.2; znbd append --zone 10 --block-size 4k --depth "
                "%d '%s') %s" % (depth, uri, where))
            tap.ok(status == 1 and "standard output: " in err,
                   "output that cannot be written, %s, depth %d"
                   % (where, depth), status, err)
    tap.ok(pointer(uri, 10) - 10 * ZONE < 6 * 60 * B,
           "it ends the work early", pointer(uri, 10))


def soon(uri):
    """A line comes when its piece is there, not with the next one."""
    for depth in 1, 8:
        p = subprocess.Popen(["znbd", "append", "--zone", "11",
                              "--block-size", "4k", "--depth", str(depth),
                              uri], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
        p.stdin.write(bytes(B))
        p.stdin.flush()
        line = p.stdout.readline()
        tap.like(line.decode(), r"^\d+ 4096\n$",
                 "depth %d: a line comes before more input" % depth)
        p.stdin.close()
        tap.equal(p.wait(), 0, "and then it ends")


def lost_server():
    server = ZnbdServer("memory:64M,zone-size=4M").start()
    p = subprocess.Popen(["znbd", "append", "--zone", "3", "--block-size",
                          "4k", "--depth", "8", server.uri],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    p.stdin.write(bytes(4 * B))
    p.stdin.flush()
    for _ in range(4):
        p.stdout.readline()
    server.kill()
    try:
        p.stdin.write(bytes(4 * B))
        p.stdin.flush()
        p.stdin.close()
    except BrokenPipeError:
        pass
    out, err = p.stdout.read().decode(), p.stderr.read().decode()
    tap.ok(p.wait(30) == 1 and out == "" and
           "16384 bytes in 4 pieces were appended" in err,
           "a server that goes away: what was appended is told", err)
    tap.like(err.splitlines()[0], "not connected|server gone|invalid state",
             "and what happened")


def image():
    path = tap.path("image")
    run("znbd", "create", "--size", "64M", "--zone-size", "4M", path)
    data = os.urandom(300 * K)
    status, out, err = znbd("append", "--zone", 3, "--depth", 5, path,
                            data=data)
    tap.equal((status, out, err), (0, "12582912 131072\n12713984 131072\n"
                                   "12845056 45056\n", ""),
              "an image takes appends too")
    with ZnbdServer(path) as server:
        h = connect(server.uri)
        tap.equal(bytes(h.pread(len(data), 3 * ZONE)), data,
                  "its data is there")
        h.shutdown()


with ZnbdServer("memory:64M,zone-size=4M,zone-capacity=3M,conventional=2,"
                "read-only-zones=14,offline-zones=15", "-t", 4) as server:
    pieces(server.uri)
    for _ in range(20 if long else 2):
        processes(server.uri)
    refusals(server.uri)
    soon(server.uri)
lost_server()
image()
tap.done_testing()
