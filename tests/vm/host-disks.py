#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Which block devices are served as what: ordinary ones and host-aware ones
(as kernels from 6.10 on show them) as ordinary disks, partitions, what may
not be written, what is in use, and a device of 75,000 zones.
"""

import os
import re
import subprocess
import time

import nbd

from harness import TAP, Nbdkit, NbdkitError, ZnbdServer, connect, run
from host_device import made
from nbd_raw import OPT_LIST_META_CONTEXT, Raw

M = 1 << 20
tap = TAP()


def served(path, *options):
    """By each server: (name, server)."""
    yield "znbd-server", ZnbdServer(path, *options)
    yield "nbdkit", Nbdkit("file=" + str(path), options=options)


def refusal(server):
    """What it says when it does not start."""
    try:
        server.start()
    except NbdkitError as e:
        return e.text
    server.stop()
    return "it started"


def ordinary(what, path, size, which=("znbd-server", "nbdkit")):
    """It is an ordinary disk behind each server."""
    for name, server in served(path):
        if name not in which:
            continue
        with server:
            h = connect(server.uri)
            text = "%s behind %s" % (what, name)
            tap.equal(h.get_size(), size, text + ": the size")
            data = os.urandom(64 << 10)
            h.pwrite(data, size - M)
            h.pwrite(data, M)
            h.zero(4096, M + 4096)
            h.trim(M, 2 * M)
            h.flush()
            wanted = data[:4096] + bytes(4096) + data[8192:]
            tap.equal(bytes(h.pread(len(data), M)), wanted,
                      text + ": written anywhere, and read")
            tap.ok(not h.can_fast_zero() or h.can_zero(),
                   text + ": zeroes")
            extents = []
            h.block_status(size, 0, lambda context, offset, entries, error:
                           extents.append((context, entries)))
            tap.equal([(c, sum(e[::2]), set(e[1::2])) for c, e in extents],
                      [("base:allocation", size, {0})],
                      text + ": all of it is data")
            h.shutdown()
            with open(path, "rb") as f:
                f.seek(M)
                subprocess.run(["blockdev", "--flushbufs", path])
                tap.equal(f.read(len(wanted)), wanted,
                          text + ": it is on the device")
            raw = Raw(server.socket)
            raw.option(8)
            contexts = raw.option(OPT_LIST_META_CONTEXT, raw.meta_data())
            raw.close()
            tap.equal([c.data[4:] for c in contexts[:-1]],
                      [b"base:allocation"], text + ": no other context")
            try:
                connect(server.zones_uri)
                tap.fail(text + ": there is no zone table")
            except nbd.Error:
                tap.passed(text + ": there is no zone table")


with made("null_blk size=32 zoned=0") as device:
    ordinary("a null_blk without zones", device.path, 32 * M)
with made("load_module sd_mod; load_module scsi_debug zbc=aware "
          "dev_size_mb=32 zone_size_mb=4; "
          "cleanup_fn no_smr_disk; "
          "smr_host=/sys/bus/pseudo/drivers/scsi_debug/adapter0; "
          "wait_for smr_name; dev=/dev/$(smr_name); wait_for [ -b $dev ]") \
        as device:
    ordinary("a host-aware disk", device.path, 32 * M, ["nbdkit"])

# ---- loop devices, partitions, what is in use ------------------------------

subprocess.run(["modprobe", "loop"])
backing = tap.path("backing")
with open(backing, "wb") as f:
    f.truncate(64 * M)
    # One partition of 32 MiB at 16 MiB, in a table of the oldest kind.
    f.seek(446)
    f.write(bytes([0, 0, 0, 0, 0x83, 0, 0, 0])
            + (16 * M // 512).to_bytes(4, "little")
            + (32 * M // 512).to_bytes(4, "little"))
    f.seek(510)
    f.write(b"\x55\xaa")
loop = subprocess.check_output(["losetup", "-P", "-f", "--show", backing],
                               text=True).strip()
part = loop + "p1"
try:
    for _ in range(100):
        if os.path.exists(part):
            break
        time.sleep(.1)
    ordinary("a partition", part, 32 * M, ["znbd-server"])
    with open(backing, "rb") as f:
        f.seek(17 * M)
        tap.ok(any(f.read(4096)), "it is the partition that was written")
    with ZnbdServer(part):
        tap.like(refusal(ZnbdServer(part)),
                 re.escape(part) + ": is in use: mounted, part of another "
                 "device, or served already", "one that is served is in use")
        tap.like(refusal(ZnbdServer(loop)), re.escape(loop) + ": is in use",
                 "and so is the disk that it is part of")
    subprocess.run(["mkfs.ext4", "-q", "-F", part], check=True)
    mounted = tap.path("mounted")
    os.mkdir(mounted)
    subprocess.run(["mount", part, mounted], check=True)
    for name, server in served(part):
        tap.like(refusal(server), re.escape(part) + ": is in use",
                 "%s: so is one that is mounted" % name)
    subprocess.run(["umount", mounted], check=True)
    with ZnbdServer(part):
        tap.passed("when it is not, it is served")
finally:
    subprocess.run(["losetup", "-d", loop])

tap.like(refusal(ZnbdServer("/dev/null")), "/dev/null: is neither a file nor a block device",
         "a character device")
tap.like(refusal(ZnbdServer("/dev/nothing")),
         "/dev/nothing: No such file or directory", "no device")

# ---- read-only ---------------------------------------------------------------

with made("null_blk size=16 zone_size=2 blocksize=4096") as device:
    with ZnbdServer(device.path) as server:
        h = connect(server.uri)
        h.pwrite(b"a" * 8192, 0)
        h.shutdown()
    for how in "option", "device":
        if how == "device":
            subprocess.run(["blockdev", "--setro", device.path], check=True)
        for name, server in served(device.path,
                                   *(["-r"] if how == "option" else [])):
            text = "read-only by the %s, %s" % (how, name)
            with server:
                h = connect(server.uri, strict=False)
                tap.ok(h.is_read_only(), text + ": says so")
                tap.raises(nbd.Error, lambda: h.pwrite(b"b" * 4096, 8192),
                           text + ": not written", errno="EPERM")
                tap.equal(bytes(h.pread(12288, 0)), b"a" * 8192 +
                          bytes(4096), text + ": read")
                h.shutdown()
                status, out, err = run("znbd", "report", server.uri,
                                       "--count", "1")
                tap.like(out, r"closed .* wp +8192|implicit-open .* wp +8192",
                         text + ": reported")
                status, out, err = run("znbd", "reset", server.uri,
                                       "--zone", "0")
                tap.equal((status, device.report()[0].wp), (1, 8192),
                          text + ": not reset")
    subprocess.run(["blockdev", "--setrw", device.path], check=True)
    os.chmod(device.path, 0o600)
    if os.path.exists("/usr/bin/setpriv"):
        server = ZnbdServer(device.path)
        os.chmod(tap.tmp, 0o777)
        server.argv = ["setpriv", "--reuid=65534", "--regid=65534",
                       "--clear-groups"] + server.argv
        tap.like(refusal(server), re.escape(device.path) +
                 ": Permission denied", "without the right to open it")

# ---- many zones ------------------------------------------------------------

with made("null_blk size=75000 zone_size=1 memory_backed=0") as device:
    begin = time.monotonic()
    with ZnbdServer(device.path) as server:
        started = time.monotonic()
        h = connect(server.uri)
        for zone in 0, 40000, 74999:
            h.pwrite(bytes(4096), zone * M)
        h.shutdown()
        raw = Raw(server.socket, timeout=60).begin(
            contexts=["x-zbd:zones"], extended=True)
        asked = time.monotonic()
        answer = raw.status(0, 75000 * M)
        told = time.monotonic()
        raw.close()
        extents = answer.extents[raw.ids["x-zbd:zones"]]
        tap.equal(sum(length for length, flags in extents), 75000 * M,
                  "75,000 zones are reported in one pass")
        open_zones, at = [], 0
        for length, flags in extents:
            if flags & 15 == 2 and flags & 1 << 8:
                open_zones.append(at // M)
            at += length
        tap.equal(open_zones, [0, 40000, 74999], "with those that are open")
    with Nbdkit("file=" + device.path) as server:
        h = connect(server.zones_uri)
        table = h.pread(64 * 75000, 4096)
        h.shutdown()
        conds = table[25::64]
        tap.equal((len(conds), [i for i, c in enumerate(conds) if c != 1]),
                  (75000, open_zones), "nbdkit: one read tells the same")
    tap.diag("75,000 zones: opened in %.2f s, reported in %.2f s"
             % (started - begin, told - asked))
    tap.ok(told - asked < 30, "and soon")
tap.done_testing()
