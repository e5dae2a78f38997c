#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""After a power loss: what was durable in the log alone is there, for who
reads it by any road and for who writes; and images of version 1, which have
no log, are served as they were, killed, flushed, and after a power loss."""

import hashlib
import json
import os
import subprocess

import nbd
import nbd_raw as n
from harness import TAP, Nbdkit, ZnbdServer, connect, run
from image_file import (log_entries, lose_data, make_version_1, reboot,
                        superblock)

B = 4096
M = 1 << 20
ZONE = 4 * M
SIZE = 8 * ZONE
FUA = nbd.CMD_FLAG_FUA

tap = TAP()


def pointers(disk):
    status, out, err = run("znbd", "report", "--json", disk)
    return [z["wp"] - z["start"] for z in json.loads(out)["zones"]
            if z["type"] != "conventional"] if status == 0 else err


def fingerprint(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest(), os.stat(path).st_blocks


class Expected:
    """A disk's content."""

    def __init__(self):
        self.data = bytearray(SIZE)

    def write(self, h, at, length, flags=0):
        data = os.urandom(length)
        self.data[at:at + length] = data
        h.pwrite(data, at, flags)

    def check(self, h, desc):
        wrong = [at for at in range(0, SIZE, M)
                 if h.pread(M, at) != self.data[at:at + M]]
        tap.equal(wrong, [], desc)


# ---- version 1 ------------------------------------------------------------

image = tap.path("old.zbd")
make_version_1(image, SIZE, ZONE, 1)
head = open(image, "rb").read(2 * B)
size = os.stat(image).st_size
tap.equal(run("znbd", "check", image)[0], 0, "an image of version 1 is sound")
disk = Expected()
with ZnbdServer(image) as server:
    h = connect(server.uri)
    disk.write(h, 5 * B, 3 * B)
    disk.write(h, ZONE, 5 * B, FUA)
    h.flush()
    disk.write(h, ZONE + 5 * B, 2 * B)
    disk.check(h, "version 1: what is written is read")
    tap.equal(pointers(server.uri), [7 * B] + 6 * [0],
              "version 1: and the zones move")
    server.kill()
for kind in Nbdkit, ZnbdServer:
    with kind(image) as server:
        h = connect(server.uri)
        disk.check(h, "version 1: all is there after a kill")
        h.flush()
        server.kill()
with ZnbdServer(image) as server:
    h = connect(server.uri)
    disk.write(h, 3 * ZONE, B, FUA)
    disk.write(h, B, B, FUA)
    before = bytes(disk.data)
    disk.write(h, 3 * ZONE + B, B)
    server.kill()
reboot(image)
disk.data[:] = before
for options in ["-r"], []:
    with ZnbdServer(image, *options) as server:
        h = connect(server.uri)
        disk.check(h, "version 1: what was durable is there after a power "
                   "loss")
        tap.equal(pointers(server.uri), [7 * B, 0, B] + 4 * [0],
                  "version 1: and no more")
        h.shutdown()
tap.equal((open(image, "rb").read(2 * B), os.stat(image).st_size),
          (head, size), "it is of version 1 as it was")
tap.equal(run("znbd", "check", image)[0], 0, "and sound")

# ---- the log --------------------------------------------------------------

image = tap.path("disk.zbd")
status, _, err = run("znbd", "create", "--size", SIZE, "--zone-size", ZONE,
                     "--conventional", 1, image)
tap.equal((status, err), (0, ""), "a new image")
tap.equal(superblock(image)["version"], 2, "has version 2")
kind = subprocess.run(["stat", "-f", "-c", "%T", tap.tmp],
                      stdout=subprocess.PIPE, text=True).stdout.strip()
if kind == "tmpfs":
    tap.skip("what is in the log alone", "no log is used on tmpfs")
    tap.done_testing()
    raise SystemExit


def write_into_log(server_kind):
    """Writes that are durable as entries of the log, and then as many that
    are not at all; and what the machine leaves when its power fails, with
    none of the data in its place."""
    disk = Expected()
    with server_kind(image) as server:
        h = connect(server.uri)
        for zone in range(1, 8):
            h.trim(ZONE, zone * ZONE)
        h.zero(ZONE, 0)
        h.flush()
        disk.write(h, 7 * B, 5 * B, FUA)
        disk.write(h, 0, B)
        disk.write(h, ZONE, 3 * B, FUA)
        h.zero(B, 8 * B)
        disk.data[8 * B:9 * B] = bytes(B)
        for i in range(9):
            disk.write(h, 3 * ZONE + i * B, B, FUA)
        disk.write(h, 9 * B, 2 * B, FUA)
        disk.write(h, 5 * ZONE, 20 * B)
        h.flush()
        before = bytes(disk.data)
        disk.write(h, ZONE + 3 * B, B)
        disk.write(h, 2 * ZONE, B)
        server.kill()
    disk.data[:] = before
    tap.ok(log_entries(image) >= 10, "%s: the log is used" % server.argv[0],
           log_entries(image))
    reboot(image)
    lose_data(image)
    return disk


POINTERS = [3 * B, 0, 9 * B, 0, 20 * B, 0, 0]

for server_kind in ZnbdServer, Nbdkit:
    disk = write_into_log(server_kind)
    before = fingerprint(image)
    status, out, err = run("znbd", "check", image)
    tap.equal((status, err), (0, ""), "znbd check finds no fault")
    tap.like(out, r"its log has \d+ entries", "and tells of the log")
    tap.equal(pointers(image), POINTERS, "znbd report knows the pointers")

    with ZnbdServer(image, "-r") as server:
        h = connect(server.uri)
        tap.equal(pointers(server.uri), POINTERS, "a reader has the pointers")
        disk.check(h, "the data")
        tap.equal([at for at in range(0, 16 * B, B)
                   if h.pread(B, at) != disk.data[at:at + B]], [],
                  "block by block")
        extents = []
        h.block_status(2 * ZONE, ZONE, lambda context, at, entries, error:
                       extents.extend(entries))
        tap.equal((extents[:2], extents[3]), ([3 * B, 0], 3),
                  "and base:allocation")
        h.shutdown()
        for kind, begin in (("simple", {"structured": False}),
                            ("structured", {}),
                            ("extended", {"extended": True})):
            r = n.Raw(server.socket).begin(**begin)
            wrong = [(at, length)
                     for at in (0, 6 * B, ZONE, 3 * ZONE + B, 5 * ZONE)
                     for length in (B, 4 * B, 256 << 10, 2 * M)
                     if r.read(at, length).data != disk.data[at:at + length]]
            tap.equal(wrong, [], "a %s reply has the data" % kind)
            r.close()
    copy = tap.path("copy.zbd")
    status, out, err = run("znbd", "copy", image, copy)
    tap.equal((status, err), (0, ""), "it is copied")
    with ZnbdServer(copy, "-r") as server:
        h = connect(server.uri)
        disk.check(h, "and the copy has the data")
        h.shutdown()
    os.unlink(copy)
    tap.equal(fingerprint(image), before, "who only reads changes nothing")

    # Opened, and its server killed at once; then in use again.
    with ZnbdServer(image) as server:
        server.kill()
    tap.equal(log_entries(image), 0, "who writes takes the log up")
    with server_kind(image) as server:
        h = connect(server.uri)
        disk.check(h, "the data is in its place")
        tap.equal(pointers(server.uri), POINTERS, "and the pointers stay")
        disk.write(h, ZONE + 3 * B, B)
        disk.check(h, "and it is written on")
        h.shutdown()
    tap.equal(run("znbd", "check", image)[0], 0, "the image is sound")
tap.done_testing()
