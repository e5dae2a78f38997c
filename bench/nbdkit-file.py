#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Requests per second and server CPU per request of the zoned plugin
against nbdkit's own file plugin, in turn, on tmpfs.

usage: nbdkit-file.py [ROUNDS]

The client is fio with libnbd, which shares the machine's processors with
the server: the ratio is what counts, and the CPU time per request barely
depends on the client.  Both servers run with -t 64.  Each round measures
every case once on each server; medians, and the spread as minimum and
maximum, are printed, and the ratio of the medians.

Needs nbdkit, fio with its nbd engine, and a built tree: run it by
"make bench" in the build folder.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SIZE = 512 << 20
CASES = [
    # name, fio's rw, block size, depth
    ("sequential write 4k, depth 1", "write", "4k", 1),
    ("sequential write 4k, depth 32", "write", "4k", 32),
    ("sequential write 256k, depth 16", "write", "256k", 16),
    ("sequential read 256k, depth 16", "read", "256k", 16),
    ("random read 4k, depth 1", "randread", "4k", 1),
    ("random read 4k, depth 32", "randread", "4k", 32),
]
SECONDS = "2"


class Server:
    def __init__(self, folder, name, args):
        self.socket = os.path.join(folder, name + ".sock")
        pidfile = os.path.join(folder, name + ".pid")
        self.process = subprocess.Popen(
            ["nbdkit", "-f", "-t", "64", "-U", self.socket, "-P", pidfile]
            + args)
        while not os.path.exists(pidfile) or not os.path.getsize(pidfile):
            if self.process.poll() is not None:
                sys.exit("nbdkit did not start")
            time.sleep(0.01)
        self.uri = "nbd+unix:///?socket=" + self.socket

    def cpu(self):
        with open("/proc/%d/stat" % self.process.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def fio(server, rw, bs, depth):
    out = subprocess.run(
        ["fio", "--name=x", "--ioengine=nbd", "--uri=" + server.uri,
         "--rw=" + rw, "--bs=" + bs, "--iodepth=%d" % depth,
         "--size=%d" % SIZE, "--runtime=" + SECONDS,
         "--output-format=json"],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    job = json.loads(out[out.index("{"):])["jobs"][0]
    side = job["write" if rw == "write" else "read"]
    return side["iops"], side["total_ios"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    build = os.environ.get("abs_top_builddir", os.getcwd())
    plugin = os.path.join(build, "plugin/.libs/nbdkit-zoned-plugin.so")
    znbd = os.path.join(build, "client/znbd")
    folder = tempfile.mkdtemp(dir="/dev/shm", prefix="znbd-bench.")
    results = {}
    try:
        disk = os.path.join(folder, "disk.zbd")
        plain = os.path.join(folder, "plain")
        subprocess.check_call([znbd, "create", "--size", str(SIZE),
                               "--zone-size", "64M", disk])
        with open(plain, "w") as f:
            f.truncate(SIZE)
        servers = [("zoned", Server(folder, "zoned", [plugin, disk])),
                   ("file", Server(folder, "file", ["file", plain]))]
        for _ in range(rounds):
            for case in CASES:
                for name, server in servers:
                    # Both write into holes; reads find what the case
                    # before has written.
                    if case[1] == "write" and name == "zoned":
                        subprocess.check_call([znbd, "reset", "--all",
                                               server.uri])
                    elif case[1] == "write":
                        os.truncate(plain, 0)
                        os.truncate(plain, SIZE)
                    before = server.cpu()
                    iops, n = fio(server, *case[1:])
                    cpu = (server.cpu() - before) / n * 1e6
                    results.setdefault((case[0], name), []).append(
                        (iops, cpu))
        for _, server in servers:
            server.stop()
    finally:
        shutil.rmtree(folder)

    print("%-34s %28s %28s %7s %7s" % (
        "", "zoned: requests/s, us CPU", "file: requests/s, us CPU",
        "req/s", "CPU"))
    for case in CASES:
        row = []
        for name in "zoned", "file":
            r = results[case[0], name]
            iops = [x[0] for x in r]
            row.append((statistics.median(iops), min(iops), max(iops),
                        statistics.median(x[1] for x in r)))
        z, f = row
        print("%-34s %8.0f (%6.0f-%6.0f) %5.1f %8.0f (%6.0f-%6.0f) %5.1f "
              "%6.2fx %6.2fx" % ((case[0],) + z + f
                                 + (z[0] / f[0], z[3] / f[3])))


main()
