#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd-server beside other NBD servers: everything that it wants to reach.

All figures of one run: tables with medians, their spread, what is wanted and
whether it is reached; each single result as JSON; and a plot.  "make bench"
runs it in the build folder and takes about ten minutes.  For one question,
see speed.py.
"""

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import figures
import plot
import servers
from compare import (Case, K, add_options, check_positive, choose, fio, load,
                     measure, pin, raw, spread, write_json)
from wanted import (Row, ceiling, cpu, fair, latency, print_figures,
                    print_rows, rate)

MAIN = ("znbd", "nbdkit-file", "nbdkit-memory", "qemu-nbd",
        "qemu-storage-daemon", "nbd-server", "echo")


class Part:
    """Cases that share how clients reach the servers, and where the disks
    are; checks are by case."""

    def __init__(self, name, title, transport, client, names, checks,
                 disk=False, zones=0):
        self.name, self.title, self.transport = name, title, transport
        self.client, self.names, self.disk = client, names, disk
        self.zones = zones
        self.checks = checks    # [(Case, [Check], {Row's arguments})]

    @property
    def cases(self):
        return [case for case, _, _ in self.checks]

    def serves(self, case, server):
        """The ceiling answers small requests; appends are ours."""
        if server.role == "ceiling":
            return case.bs <= 4 * K and case.op != "append"
        return case.op != "append" or server.role == "ours"


def unix_part():
    fast = [rate(3), cpu(0.33), ceiling(0.5)]
    checks = [
        (Case("read", 4 * K, 1), [latency(0.8), ceiling(0.7)], {}),
        (Case("read", 4 * K, 32), fast, {}),
        (Case("read", 4 * K, 128), fast, {}),
        (Case("read", 4 * K, 128, what=", 1 MiB of the disk", part=1 << 20),
         [ceiling(0.5)], {}),
        (Case("write", 4 * K, 1), [latency(0.8), ceiling(0.7)], {}),
        (Case("write", 4 * K, 32), fast, {}),
        (Case("read", 256 * K, 16), [rate(1.5), cpu(0.6)], {}),
        (Case("write", 256 * K, 16), [rate(1.5), cpu(0.6)], {}),
        (Case("write", 4 * K, 32, trimmed=False), fast, {}),
        (Case("write", 256 * K, 16, trimmed=False), [rate(1.5), cpu(0.6)],
         {}),
        (Case("read", 4 * K, 4, 16), [rate(3), fair(0.5)], {}),
        (Case("read", 4 * K, 4, 256), [rate(3), fair(0.5)], {}),
    ]
    return Part("unix", "Unix socket", "unix", load, MAIN, checks)


def append_part():
    checks = []
    for size, limit in ((4, 0.5), (64, 0.9)):
        plain = Case("write", size * K, 32)
        checks += [(plain, [], {}),
                   (Case("append", size * K, 4, 8), [rate(limit)],
                    {"other": (plain, "znbd")})]
    return Part("append", "Appends of 8 writers to one zone, against one "
                "writer's plain writes", "unix", load, ("znbd",), checks)


def tcp_part():
    fast = [rate(3), cpu(0.33), ceiling(0.5)]
    return Part("tcp", "TCP", "tcp", load, MAIN, [
        (Case("read", 4 * K, 32, what=", TCP"), fast, {}),
        (Case("read", 4 * K, 128, what=", TCP"), fast, {})])


def tls_part():
    return Part("tls", "TLS over TCP", "tls", load, MAIN, [
        (Case("read", 4 * K, 32, what=", TLS"), [rate(1.5)], {}),
        (Case("write", 4 * K, 32, what=", TLS"), [rate(1.5)], {}),
        (Case("read", 256 * K, 16, what=", TLS"), [rate(1.5)], {}),
        (Case("write", 256 * K, 16, what=", TLS"), [rate(1.5)], {})])


def fio_part():
    return Part("fio", "fio with libnbd", "unix", fio, MAIN[:-1], [
        (Case("read", 4 * K, 32, what=", fio"), [rate(1.1)], {}),
        (Case("write", 4 * K, 32, what=", fio"), [rate(1.1)], {})])


def plugin_part(zones=0):
    ours = {"ours": "nbdkit-zoned", "peers": ("nbdkit-file",)}
    what = ", %d zones" % zones if zones else ""
    cases = [Case(op, size * K, depth, what=what)
             for op in ("read", "write") for size in (4, 256)
             for depth in (1, 32, 128)]
    cases += [Case(op, 4 * K, 4, 16, what=what) for op in ("read", "write")]
    return Part("plugin-zones" if zones else "plugin",
                "nbdkit with the plugin" + what, "unix", load,
                ("nbdkit-zoned", "nbdkit-file"),
                [(c, [rate(0.95), cpu(1.05)], ours) for c in cases],
                zones=zones)


def plugin_zones_part():
    return plugin_part(100000)


def durable_part():
    fua = Case("write", 4 * K, 1, 16, sync="fua")
    flush = Case("write", 4 * K, 1, 16, sync="flush")
    other = {"other": (fua, "nbdkit-file")}
    return Part("durable", "Durable writes of 16 writers", "unix", load,
                ("znbd", "nbdkit-file"),
                [(fua, [rate(2)], other), (flush, [rate(2)], other)],
                disk=True)


def plugin_durable_part():
    fua = Case("write", 4 * K, 1, 16, sync="fua")
    return Part("plugin-durable", "Durable writes of 16 writers, nbdkit with "
                "the plugin", "unix", load, ("nbdkit-zoned", "nbdkit-file"),
                [(fua, [rate(2)], {"ours": "nbdkit-zoned",
                                   "peers": ("nbdkit-file",)})], disk=True)


PARTS = [f() for f in (unix_part, append_part, tcp_part, tls_part, fio_part,
                       plugin_part, plugin_zones_part, durable_part,
                       plugin_durable_part)]
FIGURES = ("report", "memory", "scale")


def out(line=""):
    print(line, flush=True)


def first_line(*argv):
    """Of what a program says of its version."""
    try:
        p = subprocess.run(argv, stdout=subprocess.PIPE, text=True,
                           stderr=subprocess.STDOUT)
        return p.stdout.splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def machine(cpus):
    model = "unknown"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"processor": model, "processors": os.cpu_count(),
            "pinned_to": sorted(cpus), "kernel": platform.release(),
            "load_before": os.getloadavg()[0],
            "versions": {p: first_line(p, "--version") for p in (
                "nbdkit", "qemu-nbd", "qemu-storage-daemon", "fio")}}


def file_system(folder):
    p = subprocess.run(["df", "--output=fstype", folder], text=True,
                       stdout=subprocess.PIPE)
    return p.stdout.split()[-1]


def run_part(part, args):
    """Its results, by case and server."""
    cases = [c for c in part.cases if re.search(args.cases, c.name)]
    names = [n for n in part.names if n in args.servers]
    if not cases or not names:
        return {}
    folder = tempfile.mkdtemp(dir=args.disk if part.disk else args.folder,
                              prefix="znbd-bench.")
    running = []
    try:
        place = servers.Place(args.build, folder, part.transport, args.mib,
                              part.zones)
        running = servers.start(
            [s for s in servers.ALL if s.name in names], place)
        return measure(running, cases, part.client, args.rounds,
                       args.seconds, part.serves)
    finally:
        servers.stop(running)
        shutil.rmtree(folder)


def print_part(results):
    """Every server of its cases."""
    out("| case | server | requests/s | CPU, us | median latency, us "
        "| slowest connection |")
    out("|---|---|---|---|---|---|")
    last = None
    for (case, name), r in results.items():
        out("| %s | %s | %s | %s | %s | %s |" % (
            case.name if case is not last else "", name, spread(r, "rate"),
            spread(r, "cpu"), spread(r, "p50"), spread(r, "slowest")
            if case.connections > 1 and r[0].slowest is not None else ""))
        last = case
    out()


def run_figures(args, raw_figures):
    """Those of znbd-server alone."""
    folder = tempfile.mkdtemp(dir=args.folder, prefix="znbd-bench.")
    found, lines = [], []
    place = servers.Place(args.build, folder, mib=args.mib)
    try:
        if "report" in args.parts:
            found += figures.reports(place, raw_figures, args.zones, 11)
        if "memory" in args.parts:
            found += figures.memory(place, raw_figures, args.zones * 10,
                                    max(20, min(200, args.zones // 500)))
        if "scale" in args.parts:
            lines = figures.scale(
                place, raw_figures,
                [1, 1000, args.zones, 10 * args.zones],
                args.seconds, max(args.rounds // 2, 1))
    finally:
        shutil.rmtree(folder)
    return found, lines


def parse():
    parts = [p.name for p in PARTS] + list(FIGURES)
    names = [s.name for s in servers.ALL]
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--parts", default=",".join(parts),
                   help="(default: %(default)s)")
    p.add_argument("--servers", default=",".join(names),
                   help="(default: %(default)s)")
    add_options(p, 5, 0.4)
    p.add_argument("--mib", type=int, default=1024,
                   help="of each server's disk (default: 1024)")
    p.add_argument("--zones", type=int, default=100000,
                   help="of the reports; memory and scale go to ten times "
                   "as many (default: %(default)s)")
    p.add_argument("--cpus", default="0,1",
                   help="processors that clients and servers share "
                   "(default: 0,1)")
    p.add_argument("--folder", default="/dev/shm",
                   help="where the disks are (default: /dev/shm)")
    p.add_argument("--disk", default="/var/tmp", metavar="FOLDER",
                   help="a folder on a disk, for durable writes "
                   "(default: /var/tmp)")
    p.add_argument("--json", metavar="FILE", default="bench.json",
                   help="each single result (default: %(default)s)")
    p.add_argument("--svg", metavar="FILE", default="bench.svg",
                   help="the plot (default: %(default)s)")
    args = p.parse_args()
    args.parts = choose(p, args.parts, parts, "part")
    args.servers = choose(p, args.servers, names, "server")
    check_positive(p, args)
    try:
        args.pinned = {int(c) for c in args.cpus.split(",")}
        pin(args.pinned)
    except (ValueError, OSError) as e:
        p.error("--cpus %s: %s" % (args.cpus, e))
    if args.zones < 100 or args.mib < 64 or args.mib % 32:
        p.error("--zones is to be at least 100, --mib at least 64 and a "
                "multiple of 32")
    args.build = os.environ.get("abs_top_builddir", os.getcwd())
    return args


def main():
    args = parse()
    # Servers and gigabytes are not to stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    about = machine(args.pinned)
    out("%s, %d processors, Linux %s; client and server share processors %s; "
        "load before: %.2f.  %d rounds of %g s." % (
            about["processor"], about["processors"], about["kernel"],
            ", ".join(map(str, about["pinned_to"])), about["load_before"],
            args.rounds, args.seconds))
    out()
    since, rows, results_of, all_raw, raw_figures = time.time(), [], {}, [], []
    for part in PARTS:
        if part.name not in args.parts:
            continue
        if part.disk:
            out("Durable writes go to a file on %s." %
                file_system(args.disk))
            out()
        results = run_part(part, args)
        results_of[part.name] = results
        all_raw += [dict(r, part=part.name) for r in raw(results)]
        for case, checks, more in part.checks:
            if checks and any(c is case for c, _ in results):
                rows.append(Row(case.name if "ours" not in more else
                                "plugin: " + case.name, results, case,
                                checks, **more))
    found, lines = [], []
    if set(args.parts) & set(FIGURES):
        found, lines = run_figures(args, raw_figures)

    out("## What is wanted")
    out()
    counts = print_rows(rows, out) if rows else dict.fromkeys(
        (True, False, None), 0)
    if found:
        for met, n in print_figures(found, out).items():
            counts[met] += n
    if lines:
        out("## Many zones")
        out()
        for line in lines:
            out(line)
        out()
    for part in PARTS:
        if results_of.get(part.name):
            out("## %s" % part.title)
            out()
            print_part(results_of[part.name])
    out("%d figures are met, %d are not, %d were not measured; %d s." % (
        counts[True], counts[False], counts[None], time.time() - since))

    about["load_after"] = os.getloadavg()[0]
    write_json(args.json, {
        "machine": about, "rounds": args.rounds, "seconds": args.seconds,
        "results": all_raw, "figures": raw_figures,
        "met": {str(k): v for k, v in counts.items()}})
    with open(args.svg, "w") as f:
        f.write(plot.svg(results_of, about))
    print("each single result: %s; plot: %s" % (args.json, args.svg))


main()
