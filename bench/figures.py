# SPDX-License-Identifier: BSD-3-Clause
"""Figures of znbd-server alone: what reports, memory and many zones cost.

Disks here are sparse images in a folder; a client looks from outside, so
connecting, decoding and all are in the times.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import time

from compare import short
from wanted import Figure

M = 1 << 20


class Served:
    """znbd-server on an image of its own, for one figure."""

    count = 0

    def __init__(self, place, zones, zone_size, conventional=0):
        Served.count += 1
        base = os.path.join(place.folder, "figure%d" % Served.count)
        self.place, self.zones, self.zone_size = place, zones, zone_size
        self.image, self.socket = base + ".zbd", base + ".sock"
        self.uri = "nbd+unix:///?socket=" + self.socket
        subprocess.run([place.program("client/znbd"), "create", "--size",
                        str(zones * zone_size), "--zone-size",
                        str(zone_size), "--conventional", str(conventional),
                        self.image], check=True, stdout=subprocess.DEVNULL)
        self.start()

    def start(self):
        since = time.monotonic()
        self.process = subprocess.Popen(
            [self.place.program("server/znbd-server"), "-f", "-U",
             self.socket, self.image], stderr=subprocess.DEVNULL)
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(self.socket)
                    s.recv(18)
                break
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError("znbd-server does not serve " +
                                       self.image)
                time.sleep(0.0005)
        self.open_ms = (time.monotonic() - since) * 1000

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        os.unlink(self.image)

    def resident(self):
        """KiB of memory, its own and what it has mapped of its image."""
        with open("/proc/%d/status" % self.process.pid) as f:
            fields = dict(line.split(":", 1) for line in f)
        return int(fields["VmRSS"].split()[0])

    def cpu(self):
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def load(self, *args):
        return json.loads(subprocess.run(
            [self.place.program("bench/nbd-load"), "--unix", self.socket,
             *map(str, args)], check=True, text=True,
            stdout=subprocess.PIPE).stdout)

    def report(self, repeat, *args):
        return json.loads(subprocess.run(
            [self.place.program("bench/nbd-report"), *args, self.socket,
             str(repeat)], check=True, text=True,
            stdout=subprocess.PIPE).stdout)

    def write_each(self):
        """A block in each zone."""
        self.load("--write", "--zone-size", self.zone_size, "--zone-part",
                  "4k", "--depth", 64, "--count", self.zones)


def reports(place, raw, zones, repeat):
    """The report of many zones.  They are so large that compact headers
    would take thousands of status requests, and so the zone table is taken,
    as on real disks."""
    figures = []
    with Served(place, zones, 256 * M) as served:
        for state, limit in (("empty", 2), ("part-written", 50)):
            if state == "part-written":
                served.write_each()
            for args, bound in ((["--extended"], limit), ([], 50)):
                r = served.report(repeat, *args)
                raw.append({"figure": "report", "zones": zones,
                            "state": state, "result": r})
                figures.append(Figure(
                    "report, %d zones, all %s" % (zones, state),
                    statistics.median(r["ms"]), bound, "ms",
                    "%s-%s ms; %s" % (short(min(r["ms"])),
                                      short(max(r["ms"])), r["way"])))
    return figures


def memory(place, raw, zones, connections):
    figures = []
    with Served(place, 16, M, conventional=8) as small:
        nothing = small.resident()
        few = hold_connections(small, connections, False)
        busy = hold_connections(small, connections, True)
        after = small.resident()
    with Served(place, zones, M) as large:
        opened = large.resident()
        subprocess.run([place.program("client/znbd"), "finish", "--zone",
                        "0-%d" % (zones - 1), large.uri], check=True,
                       stdout=subprocess.DEVNULL)
        changed = large.resident()
        large.report(1)
        reported = large.resident()
    zone = (changed - nothing) * 1024 / (zones - 16)
    for name, value in (("idle", nothing), ("idle, %d zones" % zones, opened),
                        ("each zone finished", changed),
                        ("after a report", reported),
                        ("connections", few), ("used connections", busy),
                        ("when they are gone", after)):
        raw.append({"figure": "memory", "what": name, "KiB": value})
    figures.append(Figure("memory, idle", nothing / 1024, 16, "MiB"))
    figures.append(Figure("memory of a zone, of %d" % zones, zone, 64, "B",
                          "all of which were finished; with a report's "
                          "buffers %s MiB more" % short(
                              (reported - changed) / 1024)))
    for what, value in (("", few), (" that has done work", busy)):
        figures.append(Figure("memory of an idle connection" + what,
                              (value - nothing) / connections, 256, "KiB",
                              "of %d" % connections))
    return figures


def hold_connections(served, n, use):
    """The server's memory while n connections are idle, after each has read
    and written where it is to be used."""
    import nbd
    handles = []
    for _ in range(n):
        h = nbd.NBD()
        h.connect_uri(served.uri)
        handles.append(h)
    if use:
        for h in handles:
            h.pwrite(bytes(M), 0)
            h.pread(M, 0)
    time.sleep(0.2)
    kib = served.resident()
    for h in handles:
        h.shutdown()
    return kib


# Name, and arguments of nbd-load; work is the part of each disk that is
# written, and the last one reads mostly what is empty.
SCALE_CASES = (
    ("zone write 4k, depth 32", lambda s, seconds: [
        "--write", "--zone-size", s.zone_size, "--length", s.place.half]),
    ("random read 4k, depth 32, written", lambda s, seconds: [
        "--random", "--length", s.place.half, "--seconds", seconds]),
    ("anywhere", lambda s, seconds: ["--random", "--seconds", seconds]),
)


def empty(served):
    """Resets the zones that are worked on, and waits until the server has
    freed what they had."""
    import nbd
    h = nbd.NBD()
    h.connect_uri(served.uri)
    h.trim(served.place.half, 0)
    h.flush()
    h.shutdown()
    before = None
    while before != (before := served.cpu()):
        time.sleep(0.01)


def scale_round(served, seconds, results):
    served.stop()
    served.start()
    served.opens.append(served.open_ms)
    empty(served)
    for name, args in SCALE_CASES:
        before = served.cpu()
        r = served.load(*args(served, seconds))
        results.setdefault(name, []).append(
            (r["requests_per_second"],
             (served.cpu() - before) / r["requests"] * 1e6))
    served.reports += served.report(3)["ms"]


def scale(place, raw, numbers, seconds, rounds):
    """The same work on disks of more and more zones: a table's lines."""
    lines = ["| zones | open, ms | report, ms | " +
             " | ".join(name for name, _ in SCALE_CASES) + " |",
             "|---" * (3 + len(SCALE_CASES)) + "|"]
    servers = [Served(place, n, max(place.half // n, M)) for n in numbers]
    results = {s: {} for s in servers}
    try:
        for s in servers:
            s.opens, s.reports = [], []
        for _ in range(rounds):
            for s in servers:
                scale_round(s, seconds, results[s])
        for s in servers:
            raw.append({"figure": "scale", "zones": s.zones,
                        "open_ms": s.opens, "report_ms": s.reports,
                        "cases": results[s]})
            cells = ["%d" % s.zones, short(statistics.median(s.opens)),
                     short(statistics.median(s.reports))]
            for name, _ in SCALE_CASES:
                rates, cpus = zip(*results[s][name])
                cells.append("%d/s, %s us" % (statistics.median(rates),
                                              short(statistics.median(cpus))))
            lines.append("| " + " | ".join(cells) + " |")
    finally:
        for s in servers:
            s.__exit__()
    return lines
