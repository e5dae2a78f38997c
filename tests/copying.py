# SPDX-License-Identifier: BSD-3-Clause
"""docs/copying.md: each command is run as it stands there, with both servers,
and its outcome is what the table says.
"""

import json
import os
import random
import re
import subprocess

from harness import Nbdkit, TAP, ZnbdServer, connect, run, top_srcdir

tap = TAP()
tap.requires("nbdcopy", "qemu-img")
KiB, MiB = 1 << 10, 1 << 20
SIZE = 8 * MiB
rand = random.Random(8)
DATA = rand.randbytes(SIZE)
DISK = ["size=8M", "zone-size=1M"]
SECTIONS = {                    # what the disks of a section are
    "A file into a zoned disk": (DISK, "disk.img"),
    "A sparse file into a zoned disk": (DISK, "sparse.img"),
    "A zoned disk into a file": (DISK, None),
    "A zoned disk into another": (DISK, None),
    "Zones with a capacity below their size":
        (DISK + ["zone-capacity=768k"], None),
}


def rows():
    """(section, command, gap, outcome) of the tables."""
    section = None
    with open(os.path.join(top_srcdir, "docs", "copying.md"),
              encoding="utf-8") as doc:
        for line in doc:
            if line.startswith("## "):
                section = line[3:].strip()
            m = re.match(r"\| `(.+?)` \|(?: `(error|zero)` \|)? (\w+) \|",
                         line)
            if m:
                yield section, m.group(1), m.group(2) or "error", m.group(3)


def make_files():
    with open("disk.img", "wb") as f:
        f.write(DATA[:SIZE - 512 * KiB])
    with open("sparse.img", "wb") as f:
        f.truncate(SIZE)
        for at, n in ((0, 300 * KiB), (2 * MiB + 512 * KiB, 100 * KiB),
                      (5 * MiB, MiB)):
            f.seek(at)
            f.write(DATA[at:at + n])
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.img",
        "disk.qcow2")


def fill(uri):
    h = connect(uri)
    for zone, n in ((0, 768), (1, 4), (3, 500), (6, 768)):
        h.pwrite(DATA[zone * MiB:zone * MiB + n * KiB], zone * MiB)
    h.shutdown()


def pointers(uri):
    zones = json.loads(run("znbd", "report", "--json", uri)[1])["zones"]
    return [min(z["wp"] - z["start"], z["capacity"]) for z in zones]


def read(uri):
    h = connect(uri)
    data = h.pread(SIZE, 0)
    h.shutdown()
    return data


def ends(data):
    """Where each zone's data ends."""
    return [len(data[i:i + MiB].rstrip(b"\0")) for i in range(0, SIZE, MiB)]


def judge(status, wanted, server, command):
    """The table's word for what came of it."""
    if status != 0:
        return "fails"
    wanted = wanted.ljust(SIZE, b"\0")
    if "out.img" in command:
        with open("out.img", "rb") as f:
            if f.read() != wanted:
                return "another file"
        if "$zoned" not in command:
            return "exact"
    if read(server.uri) != wanted:
        return "other bytes"
    got = pointers(server.uri)
    # The data's end, rounded up to blocks; random data may end in zeros.
    exact = [-(-end // 4096) * 4096 for end in ends(wanted)]
    if got == exact:
        return "exact"
    if got == [MiB] * 8:
        return "full"
    if all(a <= b < a + 256 * KiB for a, b in zip(exact, got)):
        return "longer"
    return "pointers: %s" % got


def run_row(kind, section, command, gap, outcome):
    geometry, file = SECTIONS[section]
    # What has to fail waits for the timeout; what has to work waits long,
    # for the machine may be slow.
    timeout = "300ms" if outcome == "fails" or gap == "zero" else "10s"
    if os.path.exists("out.img"):
        os.unlink("out.img")
    parameters = [*geometry, "reorder-timeout=" + timeout, "gap=" + gap]
    disk = ",".join(geometry).replace("size=", "memory:", 1)
    # nbdkit 1.32 may abort when a client goes away in the middle, so the
    # source is our own server's.
    server = Nbdkit(*parameters) if kind == "nbdkit" else \
        ZnbdServer(disk, "--reorder-timeout", timeout, "--gap", gap)
    with ZnbdServer(disk) as source, server:
        fill(source.uri)
        if file and file in command:
            with open(file, "rb") as f:
                wanted = f.read()
        elif "disk." in command:
            wanted = DATA[:SIZE - 512 * KiB]
        else:
            wanted = read(source.uri)
        p = subprocess.run(
            ["bash", "-c", command], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(os.environ, zoned=server.uri, source=source.uri))
        got = judge(p.returncode, wanted, server, command)
        if outcome == "fails":
            server.kill()       # or it has aborted, see above
    tap.ok(got == outcome, "%s: %s: %s" % (kind, command, outcome),
           "got: " + got, p.stdout.decode(errors="replace"))


os.chdir(tap.tmp)
make_files()
table = list(rows())
tap.ok(len(table) > 25, "the tables were found", len(table))
tap.equal({row[0] for row in table}, set(SECTIONS), "all sections are known")
for kind in "nbdkit", "znbd-server":
    for row in table:
        if kind == "nbdkit" or "$zoned" in row[1]:
            run_row(kind, *row)
tap.done_testing()
