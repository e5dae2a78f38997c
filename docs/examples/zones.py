#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The zones of a disk behind an NBD URI, with nothing but libnbd's module:

    zones.py URI report
    zones.py URI reset ZONE
    zones.py URI append ZONE < FILE

The server must offer the x-zbd contexts, as znbd-server does; x-zbd.md says
what they mean.
"""

import os
import sys

import nbd

CONDITIONS = {0: "not-wp", 1: "empty", 2: "implicit-open",
              3: "explicit-open", 4: "closed", 13: "read-only", 14: "full",
              15: "offline"}


def connect(uri, context):
    """A connection with this context alone: those that act want that."""
    h = nbd.NBD()
    h.add_meta_context(context)
    h.connect_uri(uri)
    if not h.can_meta_context(context):
        sys.exit("%s: the server does not offer %s" % (uri, context))
    return h


def geometry(uri):
    """The listed name of x-zbd:geometry, taken apart."""
    prefix = "x-zbd:geometry:"
    names = []
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_uri(uri)
    h.opt_list_meta_context(names.append)
    h.opt_abort()
    for name in names:
        if name.startswith(prefix):
            return dict(pair.split("=", 1)
                        for pair in name[len(prefix):].split(","))
    sys.exit("%s: the server offers no x-zbd contexts" % uri)


def status(h, length, offset, flags=0):
    """[(length, flags)...] of the connection's context."""
    found = []

    def extent(context, at, entries, error):
        found.extend(zip(entries[0::2], entries[1::2]))

    h.block_status(length, offset, extent, flags)
    return found


def report(uri):
    zone_size = int(geometry(uri)["zone-size"])
    h = connect(uri, "x-zbd:zones")
    size = h.get_size()

    # Whole zones, in requests of less than 4 GiB.
    step = max(zone_size, 0xffffffff // zone_size * zone_size)
    for start in range(0, size, step):
        at, end = start, min(start + step, size)
        while at < end:
            rest = min(end - at, 0xffffffff // 4096 * 4096)
            for length, flags in status(h, rest, at):
                # One descriptor may be of many zones.
                while length > 0 and at < end:
                    zone = at // zone_size
                    piece = min(length, (zone + 1) * zone_size - at, end - at)
                    region = flags >> 8 & 3
                    if at % zone_size == 0:
                        kind = flags >> 4 & 3
                        cond = flags & 15
                        pointer = at if region else None
                    if region == 1:
                        pointer = at + piece
                    at += piece
                    length -= piece
                    if at % zone_size == 0 or at == size:
                        print(zone, "conventional" if kind == 1
                              else "sequential", CONDITIONS[cond],
                              "-" if pointer is None else pointer)
    h.shutdown()


def reset(uri, zone):
    g = geometry(uri)
    h = connect(uri, "x-zbd:reset")

    # REQ_ONE says that it is meant; one block stands for the zone.
    (length, done), = status(h, int(g["granularity"]),
                             zone * int(g["zone-size"]),
                             nbd.CMD_FLAG_REQ_ONE)
    if done != 1:
        sys.exit("zone %d: the server did not reset it" % zone)
    h.flush()
    h.shutdown()


def append(uri, zone, file, depth=8):
    g = geometry(uri)
    block = int(g["granularity"])
    start = zone * int(g["zone-size"])

    # To a conventional zone it would be an ordinary write.
    h = connect(uri, "x-zbd:zones")
    if status(h, block, start)[0][1] >> 4 & 3 == 1:
        sys.exit("zone %d is conventional" % zone)
    h.shutdown()

    h = connect(uri, "x-zbd:append")
    places = {}
    running = {}                # tag: the write's and the status's cookies

    def finish(tag):
        for cookie in running[tag]:
            while not h.aio_command_completed(cookie):
                h.poll(-1)
        print("%d: at %d" % (places[tag][0], start + places[tag][1]))
        del running[tag]

    number = 0
    while True:
        data = file.read(block)
        if not data:
            break
        tag = number % depth
        if tag in running:
            finish(tag)

        def told(context, at, entries, error, tag=tag, number=number):
            places[tag] = number, (entries[1] - 1) * 512

        offset = start + tag * block
        buf = nbd.Buffer.from_bytearray(bytearray(data.ljust(block, b"\0")))
        running[tag] = (h.aio_pwrite(buf, offset),
                        h.aio_block_status(block, offset, told,
                                           flags=nbd.CMD_FLAG_REQ_ONE))
        number += 1
    for tag in sorted(running, key=lambda tag: running[tag]):
        finish(tag)
    h.flush()
    h.shutdown()


def main(argv):
    if len(argv) == 3 and argv[2] == "report":
        report(argv[1])
    elif len(argv) == 4 and argv[2] == "reset":
        reset(argv[1], int(argv[3]))
    elif len(argv) == 4 and argv[2] == "append":
        append(argv[1], int(argv[3]), sys.stdin.buffer)
    else:
        sys.exit(__doc__.strip())


try:
    main(sys.argv)
except nbd.Error as e:
    sys.exit("%s: %s" % (os.path.basename(sys.argv[0]), e.string))
