#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The course of QEMU's own test of zoned devices, with znbd io through each
server, on a null_blk of the geometry that it takes.  After each step what
the client reports is what blkzone reports of the device.
"""

from harness import TAP, Nbdkit, ZnbdServer, run
from host_device import made

LEN = 0x80000                   # sectors of a zone
LAST = 999
LAST_BYTES = "0x3e70000000"
EXPLICIT, CLOSED, EMPTY, FULL, IMPLICIT = 3, 4, 1, 14, 2

tap = TAP()


def io(uri, *commands):
    argv = ["znbd", "io"]
    for command in commands:
        argv += ["-c", command]
    status, out, err = run(*argv, uri)
    return out if status == 0 else "status %d: %s%s" % (status, out, err)


def lines(device, first, count):
    """Zones of the device as qemu-io shows them."""
    return "".join(
        "start: 0x%x, len 0x%x, cap 0x%x, wptr 0x%x, zcond:%d, [type: %d]\n"
        % (z.start // 512, z.length // 512, z.capacity // 512,
           (z.start + (z.length if z.wp is None else z.wp)) // 512, z.cond,
           z.type) for z in device.blkzone(first, count))


with made("null_blk size=256000 zone_size=256 memory_backed=0") as device:
    for kind in "znbd-server", "nbdkit":
        server = ZnbdServer(device.path) if kind == "znbd-server" \
            else Nbdkit("file=" + device.path)
        with server:
            def step(first, count, cond, *commands):
                offset = LAST_BYTES if first == LAST else first * LEN * 512
                got = io(server.uri, *commands,
                         "zrp %s %d" % (offset, count))
                tap.equal(got, lines(device, first, count), "%s: %s" % (
                    kind, "; ".join(commands) or "%d zones" % count))
                if cond:
                    tap.equal(device.blkzone(first, 1)[0].cond, cond,
                              "%s: as it should be" % kind)

            step(0, 1, EMPTY)
            step(0, 10, EMPTY)
            step(LAST, 2, EMPTY)
            for first in 0, 1, LAST:
                offset = LAST_BYTES if first == LAST else first * LEN * 512
                step(first, 1, EXPLICIT, "zo %s 268435456" % offset)
                step(first, 1, EMPTY, "zc %s 268435456" % offset)
            step(1, 1, FULL, "zf 268435456 268435456")
            step(1, 1, EMPTY, "zrs 268435456 268435456")
            if kind == "znbd-server":
                got = io(server.uri, "zap -p 0 0x1000 0x2000",
                         "zap -p 0 0x1000 0x2000")
                tap.equal(got, "After zap done, the append sector is 0x0\n"
                          "After zap done, the append sector is 0x18\n",
                          "two appends, and where they went")
                step(0, 1, IMPLICIT)
            else:
                step(0, 1, IMPLICIT, "write -q 0 24k")
            step(0, 1, CLOSED, "zc 0 268435456")
            step(0, 1, EMPTY, "zrs 0 268435456")
tap.done_testing()
