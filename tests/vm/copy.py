#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd copy with zoned devices on either side: to and from an image, a
server's URI and another device, onto limits and a capacity of other sizes,
and gone on with after a kill.  Judged by the kernel's report of the device
and by what is read past everything.
"""

import os
import signal
import subprocess
import time

from harness import TAP, ZnbdServer, connect, run
from host_device import made
from zone_model import CLOSED, EMPTY, FULL

tap = TAP()
tap.requires("blkzone")
KiB, MiB = 1 << 10, 1 << 20
ZONE, CAPACITY, ZONES = 4 * MiB, 3 * MiB, 8
SHAPE = "null_blk size=32 zone_size=4 zone_capacity=3 zone_nr_conv=1 "
MEMORY = "memory:32M,zone-size=4M,zone-capacity=3M,conventional=1"
# Bytes of each zone: conventional, full, and what is in between.
LENGTHS = {0: 256 * KiB, 1: CAPACITY, 3: 300 * KiB, 4: CAPACITY, 7: 4 * KiB}
POINTERS = {1: CAPACITY, 3: 300 * KiB, 4: CAPACITY, 7: 4 * KiB}
DATA = os.urandom(CAPACITY)


def fill(uri):
    h = connect(uri)
    for zone, length in LENGTHS.items():
        for at in range(0, length, 256 * KiB):
            piece = DATA[at:min(at + 256 * KiB, length)]
            h.pwrite(piece, zone * ZONE + at)
    h.shutdown()


def copied(desc, *args):
    status, out, err = run("znbd", "copy", *args)
    tap.equal((status, out, err), (0, "", ""), desc)


def judge(device, desc):
    zones = device.report()
    tap.equal([z.cond for z in zones[1:]],
              [FULL if POINTERS.get(i) == CAPACITY else
               CLOSED if i in POINTERS else EMPTY for i in range(1, ZONES)],
              desc + ": conditions")
    tap.equal([z.wp for i, z in enumerate(zones) if z.cond == CLOSED],
              [300 * KiB, 4 * KiB], desc + ": pointers")
    tap.ok(all(device.read(zone * ZONE, length) == DATA[:length]
               for zone, length in LENGTHS.items()), desc + ": data")


image = tap.path("image")
run("znbd", "create", "--size=32M", "--zone-size=4M", "--zone-capacity=3M",
    "--conventional=1", image)
with ZnbdServer(image) as server:
    fill(server.uri)

with made(SHAPE + "zone_max_open=2 zone_max_active=3") as device:
    copied("an image to a device with few active zones", "--verify", image,
           device.path)
    judge(device, "image to device")
    status, _, err = run("znbd", "copy", image, device.path)
    tap.ok(status == 1 and "not empty, zone 1 is full" in err,
           "not a second time", err)
    copied("--resume of a complete one", "--resume", image, device.path)

    new = tap.path("new")
    copied("a device to a new image", "--verify", device.path, new)
    tap.equal(run("znbd", "check", new)[0], 0, "the image is sound")
    with made(SHAPE + "zone_max_active=3") as other:
        copied("a device to a device", device.path, other.path)
        judge(other, "device to device")
    with made(SHAPE) as other:
        copied("the new image to a device", new, other.path)
        judge(other, "device to image to device")
    with ZnbdServer(MEMORY) as server:
        copied("a device to a server", device.path, server.uri)
        with made(SHAPE) as other:
            copied("a server to a device", server.uri, other.path)
            judge(other, "device to server to device")

    with ZnbdServer(device.path) as server:
        status, _, err = run("znbd", "copy", "--force", image, device.path)
        tap.ok(status == 1 and "in use" in err, "not to a device in use", err)
        with made(SHAPE) as other:
            copied("a served device to a device", server.uri, other.path)
            judge(other, "served device to device")

with made("null_blk size=32 zone_size=4 zone_capacity=2 "
          "zone_nr_conv=1") as device:
    status, _, err = run("znbd", "copy", image, device.path)
    tap.ok(status == 1 and "the capacity of" in err, "too small a capacity",
           err)
    tap.ok(all(z.cond == EMPTY for z in device.report()[1:]),
           "nothing is written")
with made(SHAPE + "zone_max_active=1") as device:
    status, _, err = run("znbd", "copy", image, device.path)
    tap.ok(status == 1 and "would be active" in err, "too few active zones",
           err)

# Killed, and gone on with.
with made(SHAPE + "zone_max_active=3") as device:
    p = subprocess.Popen(["znbd", "copy", "--request-size=4k",
                          "--requests=1", "--connections=1", image,
                          device.path], stderr=subprocess.DEVNULL)
    while p.poll() is None and device.report()[1].cond == EMPTY:
        time.sleep(.02)
    p.send_signal(signal.SIGKILL)
    tap.ok(p.wait() == -signal.SIGKILL, "killed while it copied")
    copied("and gone on with", "--resume", "--verify", image, device.path)
    judge(device, "killed and gone on with")
tap.done_testing()
