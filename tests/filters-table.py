# SPDX-License-Identifier: BSD-3-Clause
"""docs/nbdkit-filters.md: each row is run, and every filter that this nbdkit
has is in the table.

What a filter does is found out by what clients see; the row's third column is
to say the same.
"""

import glob
import os
import re

from harness import (NbdkitError, Nbdkit, TAP, connect, nbd, run, top_srcdir)

tap = TAP()
MiB = 1 << 20
CRASHING = {"cache", "cow", "luks"}     # nbdkit itself, in 1.32
DATA = os.urandom(3 * MiB)
DISK = ["size=16M", "zone-size=1M", "conventional=1", "reorder-timeout=300ms"]
DISKS = {                               # what some filters want of FILE
    "ddrescue": "0x0 ?\n0x0 0x1000000 +\n",
    "extentlist": "0 1048576 3\n",
}


def rows():
    """(filter, parameters, zones) of the table."""
    with open(os.path.join(top_srcdir, "docs", "nbdkit-filters.md"),
              encoding="utf-8") as doc:
        for line in doc:
            m = re.match(r"\| ([a-z0-9-]+) \| (?:`(.*?)`)? ?\| ([a-z -]+) \|"
                         r" ?.*\|$", line)
            if m and m.group(1) != "filter":
                yield m.group(1), (m.group(2) or "").split(), m.group(3)


class Server(Nbdkit):
    """May crash where that is what the filter makes of it."""

    crashing = False

    def stop(self):
        if self.crashing and self in Nbdkit.running:
            self.kill()
        else:
            super().stop()


def write(h):
    """Three zones, all requests in flight.  The errors."""
    errors = []
    cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(
        bytearray(DATA[i:i + 65536])), MiB + i)
        for i in range(0, len(DATA), 65536)]
    for cookie in cookies:
        try:
            while not h.aio_command_completed(cookie):
                h.poll(-1)
        except nbd.Error as e:
            errors.append(e.errno)
    return errors


def conditions(uri):
    """Of zones 1 to 5, by znbd; None: it cannot."""
    status, out, _ = run("znbd", "report", uri)
    if status != 0:
        return None
    return re.findall(r"^zone +[1-5] +\S+ +(\S+)", out, re.M)


def errno_of(call):
    try:
        call()
    except nbd.Error as e:
        return e.errno
    return None


def judge(server):
    """The table's word for what a client sees."""
    try:
        h = connect(server.uri, strict=False)
    except nbd.Error:
        return "no disk"
    if h.get_size() < 8 * MiB:
        h.shutdown()
        return "no disk"
    try:
        return judge_disk(server, h)
    finally:
        if h.aio_is_ready():
            h.shutdown()


def judge_disk(server, h):
    errors = write(h)
    got = None if errors else b"".join(
        h.pread(MiB, MiB + i) for i in range(0, len(DATA), MiB))
    zones = conditions(server.uri)
    if errors == ["EPERM"] * len(errors) and errors:
        return "read-only" if zones == ["empty"] * 5 else "EPERM"
    if set(errors) == {"EIO"} and zones == ["empty"] * 5:
        return "compared"
    if errors and set(errors) == {"EINVAL"}:
        return "unordered"
    if errors:
        return "errors: %s" % errors
    if got != DATA:
        return "other data"
    if server.filter == "cow" or \
            (server.filter == "cache" and not server.writethrough):
        # nbdkit may have aborted by now.
        return "swallowed" if zones in (None, ["empty"] * 5) else str(zones)
    if zones is None and server.process.poll() is not None:
        return "no table"
    # The disk itself is asked, for there may be no table.
    if errno_of(lambda: h.pwrite(b"x" * 4096, MiB)) != "ENOSPC":
        return "a full zone takes a write"
    h.trim(MiB, 2 * MiB)
    if h.pread(MiB, 2 * MiB) != bytes(MiB):
        return "a trim is no reset"
    h.flush()
    if zones is None:
        return "no table"
    if zones != ["full"] * 3 + ["empty"] * 2:
        return "conditions: %s" % zones
    if conditions(server.uri) != ["full", "empty", "full"] + ["empty"] * 2:
        return "a trim is no reset: %s" % conditions(server.uri)
    if run("znbd", "finish", "--zone", "2,4", server.uri)[0] != 0:
        return "unmanaged"
    if conditions(server.uri) != ["full"] * 4 + ["empty"]:
        return "conditions at the end: %s" % conditions(server.uri)
    return "intact"


def failing_writes(server):
    """With writes that fail: what is below pointers is right."""
    h = connect(server.uri)
    errors = write(h)
    table = connect(server.zones_uri)
    ends = []
    for zone in (1, 2, 3):
        record = table.pread(64, 4096 + 64 * zone)
        wp = int.from_bytes(record[16:24], "little") * 512
        start = zone * MiB
        if h.pread(MiB, start)[:wp - start] != DATA[start - MiB:wp - MiB]:
            return "other data below a pointer"
        ends.append(wp - start)
    table.shutdown()
    h.shutdown()
    # Of 48 writes, one in twenty fails: now and then none does.
    if errors and (set(errors) - {"EIO", "EINVAL"} or
                   all(end == MiB for end in ends)):
        return "errors %s, pointers %s" % (errors, ends)
    return "intact"


def run_row(name, parameters, wanted):
    desc = " ".join([name] + parameters)
    path = tap.path("file")
    if os.path.exists(path):
        os.unlink(path)
    if name in DISKS:
        with open(path, "w") as f:
            f.write(DISKS[name])
    got = None
    for _ in range(5 if wanted == "unordered" else 1):
        if got != wanted:       # by chance they may be in order
            got = one_server(name, parameters, path)
    tap.equal(got, wanted, desc)


def one_server(name, parameters, path):
    server = Server(*DISK, *[p.replace("FILE", path) for p in parameters],
                    options=["--filter=" + name])
    server.filter = name
    server.writethrough = "cache=writethrough" in parameters
    server.crashing = name in CRASHING
    try:
        with server:
            return failing_writes(server) if "error=EIO" in parameters \
                else judge(server)
    except NbdkitError as e:
        return "does not start: " + e.text


table = list(rows())
installed = {os.path.basename(p)[len("nbdkit-"):-len("-filter.so")]
             for p in glob.glob(run("nbdkit", "--dump-config")[1].split(
                 "filterdir=")[1].split("\n")[0] + "/*.so")}
if os.path.exists("/etc/debian_version") and \
        "version=1.32." in run("nbdkit", "--dump-config")[1]:
    tap.equal(sorted({row[0] for row in table} ^ installed), [],
              "the table has every filter that is there, and no other")
for name, parameters, wanted in table:
    if name in installed:
        run_row(name, parameters, wanted)
    else:
        tap.skip(name, "nbdkit has no filter %s" % name)

# A writer that waits for another connection holds it up.
with Nbdkit(*DISK, "serialize=all-requests",
            options=["--filter=noparallel"]) as server:
    a, b = connect(server.uri), connect(server.uri)
    buf = nbd.Buffer.from_bytearray(bytearray(4096))
    ahead = a.aio_pwrite(buf, MiB + 4096)
    a.poll(100)
    b.pwrite(bytes(4096), MiB)
    tap.equal(errno_of(lambda: [a.poll(-1) for _ in iter(
        lambda: a.aio_command_completed(ahead), True)]), "EINVAL",
        "noparallel, two connections: the write ahead is refused")
    a.shutdown()
    b.shutdown()

tap.done_testing()
