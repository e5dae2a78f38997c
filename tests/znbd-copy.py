# SPDX-License-Identifier: BSD-3-Clause
"""znbd copy: between images, our server and nbdkit's in every combination,
killed and gone on with, with servers that die, with limits, and with disks
that do not fit.

What was copied is judged by reading both disks with libnbd and by comparing
their reports.
"""

import hashlib
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import time

from harness import TAP, Nbdkit, ZnbdServer, connect, long, run

tap = TAP()
KiB, MiB = 1 << 10, 1 << 20
rand = random.Random(6)

GEOMETRY = ["size=24M", "zone-size=1M", "zone-capacity=768k",
            "conventional=2", "max-open=4", "max-active=8"]
MEMORY = "memory:" + ",".join(GEOMETRY).replace("size=", "", 1)


def create(name, geometry=GEOMETRY):
    """Makes an image: its path."""
    path = tap.path(name)
    options = [x for p in geometry for x in ("--" + p).split("=")]
    status, _, err = run("znbd", "create", "--force", *options, path)
    if status != 0:
        tap.fail("znbd create %s" % geometry, err)
    return path


def znbd(*args):
    """What has to work."""
    status, out, err = run("znbd", *args)
    if status != 0:
        tap.fail("znbd %s" % " ".join(map(str, args)), err)
    return out


def report(disk):
    return json.loads(znbd("report", "--json", disk))["zones"]


def settled(zones, open_=False):
    """What a report is to be of a copy: nothing is open, and nothing
    read-only."""
    for z in zones:
        if z["cond"].endswith("-open") and not open_:
            z["cond"] = "closed" if z["wp"] > z["start"] else "empty"
        if z["cond"] == "read-only":
            z["cond"] = "full"
    return zones


def digest(uri):
    """Of all a disk's bytes but offline zones'."""
    h = connect(uri)
    sha = hashlib.sha256()
    for z in report(uri):
        if z["cond"] != "offline":
            for at in range(z["start"], z["start"] + z["length"], 4 * MiB):
                end = z["start"] + z["length"]
                sha.update(h.pread(min(4 * MiB, end - at), at))
    h.shutdown()
    return sha.hexdigest()


def image_digest(path):
    """The same of an image."""
    with ZnbdServer(path, "-r") as server:
        return digest(server.uri)


def write(h, zone, length, zone_size=MiB, at=0):
    """Random data, in pieces."""
    data = rand.randbytes(length)
    for i in range(0, length, 256 * KiB):
        h.pwrite(data[i:i + 256 * KiB], zone * zone_size + at + i)


def fill(uri):
    """Zones in every condition."""
    h = connect(uri)
    write(h, 0, 64 * KiB, at=300 * KiB)
    write(h, 1, 256 * KiB, at=768 * KiB)
    write(h, 2, 768 * KiB)                      # full
    write(h, 3, 300 * KiB)                      # closed
    write(h, 4, 768 * KiB)
    write(h, 5, 100 * KiB)                      # finished
    write(h, 7, 4 * KiB)                        # implicitly open
    write(h, 8, 260 * KiB)                      # zeros in the middle,
    h.zero(256 * KiB, 8 * MiB + 260 * KiB)
    write(h, 8, 4 * KiB, at=516 * KiB)          # and at its end
    h.zero(128 * KiB, 8 * MiB + 520 * KiB)
    write(h, 9, 512 * KiB)                      # explicitly open
    write(h, 23, 768 * KiB)
    h.shutdown()
    znbd("close", "--zone", "3", uri)
    znbd("finish", "--zone", "5,11", uri)
    znbd("open", "--zone", "9,12", uri)         # 12: nothing written


def same(src, dst, desc, digests):
    """dst is a copy of src; both are served or images."""
    tap.equal([(z["cond"], z["wp"]) for z in report(dst)],
              [(z["cond"], z["wp"]) for z in settled(report(src))],
              desc + ": the same report")
    tap.equal(digests[1], digests[0], desc + ": the same data")


def copied(desc, *args, err=""):
    """A copy that works: its messages."""
    status, out, got = run("znbd", "copy", *args)
    tap.ok(status == 0 and out == "", desc, "status %d" % status, out, got)
    if err is not None:
        tap.equal(got, err, desc + ": says nothing")
    return got


def refused(regex, desc, *args, lines=1):
    """A copy that is refused with a line."""
    status, out, err = run("znbd", "copy", *args)
    tap.ok(status == 1 and out == "" and re.search(regex, err)
           and err.count("\n") == lines and err.startswith("znbd copy: "),
           "refused: " + desc, "status %d" % status, out, err,
           "wanted: " + regex)


# ---- every combination ----------------------------------------------------

source = create("source")
with ZnbdServer(source) as server:
    fill(server.uri)
    wanted = digest(server.uri)


def combinations(name, src):
    dst = tap.path("new")
    copied("%s to a new image" % name, src, dst)
    same(src, dst, "%s to a new image" % name, (wanted, image_digest(dst)))
    tap.equal(run("znbd", "check", dst)[0], 0, "the new image is sound")
    geometry = json.loads(znbd("info", "--json", dst))
    was = json.loads(znbd("info", "--json", src))
    # Over the table nobody tells the capacity of all.
    for key in ("size", "zone_size", "zone_count", "conventional",
                "max_open", "max_active", "model", "block_size"):
        tap.equal(geometry[key], was[key], "the new image's %s" % key)
    os.unlink(dst)

    dst = create("dst")
    copied("%s to an image" % name, src, dst, "--verify")
    same(src, dst, "%s to an image" % name, (wanted, image_digest(dst)))
    for kind, other in (("znbd-server", ZnbdServer(MEMORY)),
                        ("nbdkit", Nbdkit(*GEOMETRY, threads=16))):
        with other:
            desc = "%s to %s" % (name, kind)
            copied(desc, src, other.uri)
            same(src, other.uri, desc, (wanted, digest(other.uri)))
            refused("not empty, zone 2 is full", desc + " again", src,
                    other.uri)


combinations("image", source)
with ZnbdServer(source) as server:
    combinations("znbd-server", server.uri)
with Nbdkit(source) as server:
    combinations("nbdkit", server.uri)
with ZnbdServer(source) as server, ZnbdServer(MEMORY) as other:
    copied("small requests, one connection", "--request-size=4k",
           "--requests=1", "--connections=1", server.uri, other.uri)
    tap.equal(digest(other.uri), wanted, "small requests: the same data")
with ZnbdServer(source) as server, ZnbdServer(MEMORY) as other:
    # Of buffers for all of these the machine would have no memory.
    copied("large requests, many connections", "--request-size=32M",
           "--requests=1024", "--connections=64", "--verify", server.uri,
           other.uri)
    tap.equal(digest(other.uri), wanted, "large requests: the same data")
with ZnbdServer(source) as server, ZnbdServer(MEMORY) as other:
    copied("zeros written", "--no-sparse", server.zones_uri, other.uri)
    tap.equal(digest(other.uri), wanted, "zeros written: the same data")

# Open zones stay open where that is asked for.
with ZnbdServer(MEMORY) as server, ZnbdServer(MEMORY) as other:
    fill(server.uri)
    before = report(server.uri)
    copied("--open", "--open", server.uri, other.uri)
    tap.equal(report(server.uri), before, "the source is as it was")
    after = report(other.uri)
    tap.equal([z["cond"] for z in after if "explicit" in z["cond"]],
              ["explicit-open"] * 2, "--open: zones are open")
    tap.equal([z["wp"] for z in after],
              [z["wp"] for z in before], "--open: pointers")

# ---- zeros ----------------------------------------------------------------

sparse = ["size=64M", "zone-size=8M", "conventional=1"]
SMALL = 8 * MiB


def fill_sparse(uri):
    h = connect(uri)
    write(h, 0, 64 * KiB, SMALL, at=5 * MiB)
    write(h, 2, MiB // 2, SMALL)
    h.zero(5 * MiB, 2 * SMALL + MiB // 2)
    write(h, 2, MiB, SMALL, at=11 * MiB // 2)
    h.zero(4 * MiB, 3 * SMALL)
    write(h, 4, MiB, SMALL)
    h.shutdown()
    znbd("finish", "--zone", "4", uri)


with Nbdkit(*sparse) as server:
    fill_sparse(server.uri)
    path = tap.path("new")
    copied("a sparse disk", server.uri, path)
    used = os.stat(path).st_blocks * 512
    tap.ok(used < 5 * MiB, "zeros take no space", used)
    tap.equal(image_digest(path), digest(server.uri), "sparse: the same data")
    os.unlink(path)
    copied("a sparse disk, zeros written", "--no-sparse", server.uri, path)
    used = os.stat(path).st_blocks * 512
    tap.ok(used > 25 * MiB, "zeros take space with --no-sparse", used)
    os.unlink(path)

# The source tells of zeros, and they are not read.
with open(tap.path("extents"), "w") as f:
    ends = [5 * MiB, 5 * MiB + 64 * KiB, 16 * MiB, 33 * MiB // 2,
            43 * MiB // 2, 45 * MiB // 2, 32 * MiB, 33 * MiB, 64 * MiB]
    start, kind = 0, 3
    for end in ends:
        f.write("%d %d %d\n" % (start, end - start, kind))
        start, kind = end, 3 - kind
log = tap.path("log")
with Nbdkit(*sparse, "extentlist=" + tap.path("extents"), "logfile=" + log,
            options=["--filter=log", "--filter=extentlist"]) as server:
    fill_sparse(server.uri)
    os.truncate(log, 0)
    with ZnbdServer("memory:64M,zone-size=8M,conventional=1") as other:
        copied("the source tells of zeros", server.uri, other.uri)
        read = sum(int(x, 16) for x in re.findall(
            r" Read id=\d+ offset=0x\w+ count=0x(\w+) \.\.\.",
            open(log).read()))
        tap.ok(2 * MiB < read < 5 * MiB, "what is told is not read", read)
        tap.equal(digest(other.uri), digest(server.uri),
                  "the source tells: the same data")
        tap.equal([z["wp"] for z in report(other.uri)],
                  [z["wp"] for z in report(server.uri)],
                  "the source tells: the same pointers")

# A large disk with little in it: to read all of it would take hours.  (The
# thread sanitizer leaves room for less.)
zones = 800 if os.environ.get("ZNBD_SANITIZER") == "tsan" else 81920
large = "memory:%dM,zone-size=256M,max-active=32" % (zones * 256)
written = (0, 777, zones - 8, zones - 1)
with ZnbdServer(large) as server, ZnbdServer(large) as other:
    h = connect(server.uri)
    for zone in written:
        write(h, zone, 3 * MiB, 256 * MiB)
    h.shutdown()
    copied("%d zones, four with data" % zones, server.uri, other.uri)
    tap.equal([(z["index"], z["cond"]) for z in report(other.uri)
               if z["wp"] > z["start"]],
              [(i, "closed") for i in written], "... the four of them")

# ---- interrupted ----------------------------------------------------------

ZONES = ["size=64M", "zone-size=4M", "zone-capacity=3M", "conventional=1"]
big = create("big", ZONES)
with ZnbdServer(big) as server:
    h = connect(server.uri)
    write(h, 0, 4 * MiB, 4 * MiB)
    for zone in range(1, 14):
        write(h, zone, 3 * MiB, 4 * MiB)
    write(h, 15, MiB, 4 * MiB)
    h.shutdown()
    znbd("finish", "--zone", "14", server.uri)
    big_digest = digest(server.uri)


def kill_copy(delay, *args):
    """Kills a copy after so many seconds.  Whether that was in time."""
    p = subprocess.Popen(["znbd", "copy", *args], stderr=subprocess.DEVNULL)
    time.sleep(delay)
    p.send_signal(signal.SIGKILL)
    return p.wait() != 0


def resumed(desc, src, dst):
    """Goes on.  Returns how much there was to do."""
    err = copied(desc, "--resume", "--verify", "--verbose", src, dst,
                 err=None)
    return err


# Slowly: about a second.  (nbdkit's filters rate and delay would do, but
# nbdkit 1.32 may abort when a client goes away that they let wait.)
SLOWLY = "--request-size=4k", "--requests=1", "--connections=1"

in_time = 0
for i in range(20 if long else 4):
    delay = rand.uniform(0.05, 0.4)
    if i % 2 == 0:
        other = (Nbdkit, ZnbdServer)[i // 2 % 2]
        image = create("dst", ZONES)
        with other(image) as other:
            in_time += kill_copy(delay, *SLOWLY, big, other.uri)
            desc = "killed, and on to %s" % other.argv[0]
            resumed(desc, big, other.uri)
            same(big, other.uri, desc, (big_digest, digest(other.uri)))
    else:
        path = tap.path("new")
        with (Nbdkit, ZnbdServer)[i // 2 % 2](big) as server:
            in_time += kill_copy(delay, *SLOWLY, server.uri, path)
            desc = "killed, and on from %s" % server.argv[0]
            resumed(desc, server.uri, path)
            same(server.uri, path, desc, (big_digest, image_digest(path)))
        os.unlink(path)
tap.ok(in_time > 0, "some were killed while they copied", in_time)

# What is complete is not copied again.
path = tap.path("new")
copied("--resume where there is nothing", "--resume", big, path)
tap.like(resumed("--resume of a complete copy", big, path),
         " 1 of 16 zones are to be copied, 4M ",
         "only the conventional zone is copied again")

# Something else is no part of the copy.
with ZnbdServer(path) as server:
    h = connect(server.uri)
    znbd("reset", "--zone", "3", server.uri)
    write(h, 3, MiB, 4 * MiB)
    h.shutdown()
refused(r"differ at offset \d+ \(zone 3\)\n.*no part of a copy",
        "to go on behind something else", "--resume", big, path, lines=2)
with ZnbdServer(path) as server:
    h = connect(server.uri)
    znbd("reset", "--zone", "3", server.uri)
    write(h, 15, 2 * MiB, 4 * MiB, at=MiB)
    h.shutdown()
refused("zone 15 of .* is written beyond", "a zone written further",
        "--resume", big, path)
copied("--force", "--force", "--verify", big, path)
same(big, path, "--force", (big_digest, image_digest(path)))

# --verify finds what differs.
with ZnbdServer(path) as server:
    znbd("reset", "--zone", "5", server.uri)
    h = connect(server.uri)
    with ZnbdServer(big) as original:
        h2 = connect(original.uri)
        data = bytearray(h2.pread(3 * MiB, 20 * MiB))
        h2.shutdown()
    data[100000] ^= 1
    h.pwrite(data, 20 * MiB)
    h.shutdown()
refused(r"the disks differ at offset 21071520 \(zone 5\)", "--verify finds",
        "--resume", "--verify", big, path)
os.unlink(path)

# A server that dies.


def wait_for_data(server):
    """Until its first sequential zone is written."""
    for _ in range(1000):
        if report(server.uri)[1]["cond"] != "empty":
            return
        time.sleep(0.01)


for which in ("destination", "source"):
    with Nbdkit(big) as server:
        with Nbdkit(create("dst", ZONES)) as other:
            p = subprocess.Popen(["znbd", "copy", *SLOWLY, server.uri,
                                  other.uri], stderr=subprocess.PIPE)
            wait_for_data(other)
            dying = other if which == "destination" else server
            dying.kill()
            err = p.communicate(timeout=60)[1].decode()
            tap.equal(p.returncode, 1, "the %s dies: it ends" % which)
            tap.ok(err.count("\n") == 2 and "--resume goes on" in err
                   and dying.uri in err, "it says so in two lines", err)
            dying.start()
            resumed("the %s came back" % which, server.uri, other.uri)
            tap.equal(digest(other.uri), big_digest, "the same data")

# A source that changes: what is appended is no harm, what is reset is.
with ZnbdServer(big) as server, ZnbdServer(create("dst", ZONES)) as other:
    p = subprocess.Popen(["znbd", "copy", *SLOWLY, server.uri, other.uri],
                         stderr=subprocess.PIPE, text=True)
    wait_for_data(other)
    h = connect(server.uri)
    write(h, 15, MiB, 4 * MiB, at=MiB)
    h.shutdown()
    tap.equal((p.communicate()[1], p.returncode), ("", 0),
              "the source is written meanwhile")
    tap.equal(report(other.uri)[15]["wp"], 61 * MiB,
              "what it had at first is copied")
with ZnbdServer(shutil.copy(big, tap.path("changing"))) as server:
    with ZnbdServer(create("dst", ZONES)) as other:
        p = subprocess.Popen(["znbd", "copy", *SLOWLY, server.uri,
                              other.uri], stderr=subprocess.PIPE, text=True)
        wait_for_data(other)
        znbd("reset", "--zone", "13", server.uri)
        err = p.communicate()[1]
        tap.ok(p.returncode == 1 and re.match(
            "znbd copy: 1 zone of .*, the first is 13, was reset while it was"
            " copied: .*--force\n$", err), "a zone of the source is reset "
            "meanwhile", p.returncode, err)

# ---- limits ---------------------------------------------------------------

many = create("many", ["size=32M", "zone-size=1M", "conventional=0"])
with ZnbdServer(many) as server:
    h = connect(server.uri)
    for zone in range(32):
        write(h, zone, 64 * KiB if zone % 11 == 1 else MiB)
    h.shutdown()
    many_digest = digest(server.uri)
    for active, opens in ((3, 1), (3, 3), (4, 2)):
        other = ZnbdServer("memory:32M,zone-size=1M,max-active=%d,max-open=%d"
                           % (active, opens))
        with other:
            desc = "%d active and %d open zones" % (active, opens)
            copied(desc, server.uri, other.uri)
            same(server.uri, other.uri, desc,
                 (many_digest, digest(other.uri)))
    with Nbdkit("size=32M", "zone-size=1M", "max-active=3") as other:
        kill_copy(0.2, *SLOWLY, server.uri, other.uri)
        resumed("three active zones, resumed", server.uri, other.uri)
        tap.equal(digest(other.uri), many_digest, "the same data")
    with ZnbdServer("memory:32M,zone-size=1M,max-active=2") as other:
        refused("^znbd copy: 3 zones of .* would be active .* at most 2",
                "too many active zones", server.uri, other.uri)
    with ZnbdServer("memory:32M,zone-size=1M,max-active=3") as other:
        znbd("open", "--zone", "8", other.uri)
        copied("a zone that is open and empty", server.uri, other.uri)
        same(server.uri, other.uri, "a zone that was open",
             (many_digest, digest(other.uri)))

with ZnbdServer("memory:8M,zone-size=1M") as server:
    h = connect(server.uri)
    write(h, 1, 64 * KiB)
    h.shutdown()
    with ZnbdServer("memory:8M,zone-size=1M,max-active=1") as other:
        znbd("open", "--zone", "5", other.uri)
        copied("the only active zone is open and empty", server.uri,
               other.uri)
        tap.equal([z["cond"] for z in report(other.uri)],
                  ["empty", "closed"] + ["empty"] * 6,
                  "it is closed, and makes room")

    # Limits that do not suffice are no reason to lose what is there.
    write(connect(server.uri), 2, 64 * KiB)
    with ZnbdServer("memory:8M,zone-size=1M,max-active=1") as other:
        write(connect(other.uri), 4, MiB)
        before = digest(other.uri)
        refused("2 zones of .* would be active", "--force beyond limits",
                "--force", server.uri, other.uri)
        tap.equal((digest(other.uri), report(other.uri)[4]["cond"]),
                  (before, "full"), "nothing was reset")

# ---- the other model ------------------------------------------------------

AWARE = MEMORY + ",model=host-aware"
with ZnbdServer(AWARE) as server:
    fill(server.uri)
    h = connect(server.uri)
    write(h, 3, 4 * KiB, at=8 * KiB)            # below the pointer
    write(h, 13, 4 * KiB, at=64 * KiB)          # above it
    h.shutdown()
    for kind, model in ("host-managed", MEMORY), ("host-aware", AWARE):
        with ZnbdServer(model) as other:
            desc = "host-aware to %s" % kind
            copied(desc, "--verify", server.uri, other.uri)
            same(server.uri, other.uri, desc,
                 (digest(server.uri), digest(other.uri)))

# ---- what does not fit ----------------------------------------------------


def misfit(regex, desc, *params, src=source, args=(), lines=1):
    with ZnbdServer("memory:" + ",".join(params)) as other:
        refused(regex, desc, *args, src, other.uri, lines=lines)
        tap.equal([z["cond"] for z in report(other.uri)
                   if z["cond"] not in ("empty", "not-wp", "read-only",
                                        "offline")], [],
                  "nothing was written: " + desc)


misfit("smaller than .*: 23M, not 24M", "smaller", "23M", "zone-size=1M",
       "conventional=2")
misfit("zones of 1M, .* of 2M", "another zone size", "24M", "zone-size=2M",
       "conventional=2")
misfit("zone 0 is conventional in .*, seq-write-required in",
       "a conventional zone's data", "24M", "zone-size=1M")
misfit("zone 2 is seq-write-required in .*, conventional in",
       "a sequential zone's data", "24M", "zone-size=1M", "conventional=3")
misfit("zone 2 of .* holds 768k, the capacity of .* is 512k", "a capacity",
       "24M", "zone-size=1M", "conventional=2", "zone-capacity=512k")
misfit("zone 3 of .* is read-only, and .* has data",
       "a read-only zone", "24M", "zone-size=1M", "conventional=2",
       "read-only-zones=3+6")
misfit("zone 3 of .* is offline, and .* has data", "an offline zone",
       "24M", "zone-size=1M", "conventional=2", "offline-zones=3+6")
with ZnbdServer("memory:40M,zone-size=1M,conventional=2,"
                "read-only-zones=6,offline-zones=10") as other:
    copied("to a larger disk", source, other.uri)
    tap.equal([z["cond"] for z in report(other.uri)][2:12],
              ["full", "closed", "full", "full", "read-only", "closed",
               "closed", "closed", "offline", "full"],
              "to a larger disk with larger capacities")
    h = connect(other.uri)
    h.pwrite(b"x" * 4096, 30 * MiB)
    h.shutdown()

small = create("small", ["size=8M", "zone-size=1M", "block-size=512"])
with ZnbdServer(small) as server:
    h = connect(server.uri)
    h.pwrite(b"x" * 4096, 2 * MiB)
    h.shutdown()
with ZnbdServer("memory:8M,zone-size=1M,block-size=4096") as other:
    copied("blocks of 512 to such of 4096", "--verify", small, other.uri)
with ZnbdServer(small) as server:
    h = connect(server.uri)
    h.pwrite(b"x" * 512, 2 * MiB + 4096)
    h.shutdown()
misfit("zone 2 of .* holds 4608 bytes, no multiple of .* 4096 bytes",
       "half a block", "8M", "zone-size=1M", src=small)
wide = create("wide", ["size=8M", "zone-size=1M"])
with ZnbdServer(wide) as server:
    h = connect(server.uri)
    write(h, 2, 256 * KiB)
    h.shutdown()
    with ZnbdServer("memory:8M,zone-size=1M,block-size=512") as other:
        # As a server may leave it that died within a block of the source.
        h = connect(server.uri)
        data = h.pread(4096, 2 * MiB)[:512]
        h.shutdown()
        h = connect(other.uri)
        h.pwrite(data, 2 * MiB)
        h.shutdown()
        copied("blocks of 4096 to such of 512", "--verify", "--resume",
               server.uri, other.uri)
    with ZnbdServer("memory:8M,zone-size=1M,block-size=512") as other:
        h = connect(other.uri)
        h.pwrite(data[::-1], 2 * MiB)
        refused(r"differ at offset 2097152 .zone 2.\n.*no part of a copy",
                "something else in a part of a block", "--resume",
                server.uri, other.uri, lines=2)
        tap.ok(h.pread(512, 2 * MiB) == data[::-1], "it was not reset")
        h.shutdown()

broken = create("broken", ["size=8M", "zone-size=1M", "read-only-zones=3",
                           "offline-zones=5"])
misfit("zone 5 of .* is offline, .*--skip-offline", "an offline zone to read",
       "8M", "zone-size=1M", src=broken)
with ZnbdServer("memory:8M,zone-size=1M") as other:
    copied("without the offline zone", "--skip-offline", broken, other.uri,
           err="znbd copy: %s has 1 read-only zone, the first is 3: in %s "
               "it is full\n" % (broken, other.uri))
    tap.equal([z["cond"] for z in report(other.uri)][3:6],
              ["full", "empty", "empty"], "what becomes of such zones")
with ZnbdServer("memory:8M,zone-size=1M") as other:
    copied("--quiet", "--skip-offline", "--quiet", broken, other.uri)

refused("same disk, or a file of one was copied", "a disk to itself",
        source, shutil.copy(source, tap.path("twin")))
refused("in use", "an image to itself", source, source)
with ZnbdServer(source) as server:
    refused("same disk", "a served disk to itself", "--force", server.uri,
            server.uri)
with ZnbdServer(MEMORY, "-r") as other:
    refused("is read-only: nothing can be copied", "a read-only server",
            source, other.uri)
with ZnbdServer(MEMORY) as other:
    h = connect(other.uri)
    h.pwrite(b"x" * 4096, 64 * KiB)
    h.shutdown()
    refused("not empty: its first zone, a conventional one",
            "data in a conventional zone", source, other.uri)
    copied("--force overwrites it", "--force", source, other.uri)
    tap.equal(digest(other.uri), wanted, "--force: the same data")
refused("No such file", "no source", tap.path("none"), tap.path("new"))
tap.ok(not os.path.exists(tap.path("new")), "no image is left of that")
refused("is offline", "an offline zone, to a new image", broken,
        tap.path("new"))
tap.ok(not os.path.exists(tap.path("new")), "no image is left of that")
with open(tap.path("text"), "w") as f:
    f.write("hello\n" * 1000)
refused("text", "to a file that is no image", source, tap.path("text"))
refused("text", "not by force either", "--force", source, tap.path("text"))
tap.equal(open(tap.path("text")).read(), "hello\n" * 1000, "it is as it was")

# ---- wrong use ------------------------------------------------------------

refused("SRC is missing", "no operand")
refused("DST is missing", "one operand", "a")
refused("extra operand 'c' behind 'b'", "three operands", "a", "b", "c")
refused("SRC is empty", "an empty operand", "", "b")
refused("DST is empty", "an empty operand", "a", "")
refused("--resume and --force exclude", "both", "--resume", "--force", "a",
        "b")
refused("--progress and --quiet exclude", "both", "--progress", "--quiet",
        "a", "b")
for option, top in (("--connections", 64), ("--requests", 1024)):
    for value in ("0", str(top + 1)):
        refused("%s %s is not between 1 and %d" % (option, value, top),
                "%s %s" % (option, value), option, value, "a", "b")
    refused("whole number", option, option, "x", "a", "b")
refused("not between 512 and 32M", "--request-size", "--request-size", "64M",
        "a", "b")
refused("not between 512 and 32M", "--request-size", "--request-size", "0",
        "a", "b")
refused("no multiple of the disks' blocks of 4096", "--request-size",
        "--request-size", "6k", source, tap.path("new"))

# ---- the bar --------------------------------------------------------------


def on_terminal(*args):
    master, slave = pty.openpty()
    p = subprocess.Popen(["znbd", "copy", *args], stdin=slave,
                         stdout=slave, stderr=slave)
    os.close(slave)
    data = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        data += piece
    os.close(master)
    return p.wait(), data.decode()


BAR = r"copying 100%  .*M of .*/s  \[#+\]\033\[K\r?\n"
status, text = on_terminal(source, tap.path("new"))
tap.ok(status == 0 and re.search(BAR, text), "a bar on a terminal", text)
tap.ok(all(len(x.replace("\033[K", "")) < 80 for x in re.split("[\r\n]+",
                                                               text)),
       "no wider than that", text)
status, text = on_terminal("--force", "--quiet", source, tap.path("new"))
tap.equal((status, text), (0, ""), "none with --quiet")
tap.like(copied("--progress", "--force", "--progress", source,
                tap.path("new"), err=None), BAR, "one with --progress")
status, text = on_terminal(source, tap.path("new"))
tap.like(text, "^znbd copy: .*not empty", "no bar before a refusal")

tap.done_testing()
