#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""NBD servers side by side: requests per second, and the processor time
that a request costs the server.

The servers all run throughout; each round takes the cases in turn, and
each case the servers in turn, so that whatever else the machine does
falls on all of them.  Medians over the rounds are printed, and ratios to a
peer in the same run.  Client and server share the machine's processors:
the ratios count, and the processor time more than the rate, for it hardly
depends on what else there is.

Two clients: nbd-load of this folder, which costs little, and fio with
libnbd, which is what everyday clients are like.

"make bench" runs it in the build folder.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

import servers
from servers import HALF, ZONE


class Case:
    """op: read (anywhere in the written half), write (zones in order) or
    rewrite (anywhere in the half without zones)."""

    def __init__(self, op, bs, depth, connections=1, fua=False):
        self.op, self.bs, self.depth = op, bs, depth
        self.connections, self.fua = connections, fua
        self.name = "%s %dk, depth %d%s%s" % (
            {"read": "random read", "write": "zone write",
             "rewrite": "random write"}[op], bs // 1024, depth,
            ", %d connections" % connections if connections > 1 else "",
            ", FUA" if fua else "")


K = 1024
CASES = [
    Case("read", 4 * K, 1),
    Case("read", 4 * K, 32),
    Case("read", 4 * K, 128),
    Case("write", 4 * K, 1),
    Case("write", 4 * K, 32),
    Case("rewrite", 4 * K, 32),
    Case("read", 256 * K, 1),
    Case("read", 256 * K, 16),
    Case("read", 256 * K, 32),
    Case("write", 256 * K, 1),
    Case("write", 256 * K, 16),
    Case("write", 256 * K, 32),
    Case("read", 4 * K, 4, 16),
    Case("read", 4 * K, 4, 256),
    Case("write", 4 * K, 4, 8),
]
DURABLE = [
    Case("write", 4 * K, 1, 8, fua=True),
    Case("write", 4 * K, 32, fua=True),
]


def load(build, server, case, seconds):
    """One run of nbd-load: (requests a second, requests, its JSON)."""
    argv = [os.path.join(build, "bench/nbd-load"), *server.where(),
            "--block-size", str(case.bs), "--depth", str(case.depth),
            "--connections", str(case.connections),
            "--seconds", str(seconds)]
    argv += ["--length", str(HALF)]
    if case.op != "rewrite":
        argv += ["--offset", str(HALF)]
    if case.op == "write":
        argv += ["--write", "--zone-size", str(ZONE)]
    else:
        argv += ["--random"] + (["--write"] if case.op == "rewrite" else [])
    if case.fua:
        argv += ["--fua"]
    r = json.loads(subprocess.run(argv, check=True, text=True,
                                  stdout=subprocess.PIPE).stdout)
    return r["requests_per_second"], r["requests"], r


def fio(build, server, case, seconds):
    rw = {"read": "randread", "write": "write", "rewrite": "randwrite"}
    argv = ["fio", "--name=x", "--ioengine=nbd", "--uri=" + server.uri,
            "--rw=" + rw[case.op], "--bs=%d" % case.bs,
            "--iodepth=%d" % case.depth, "--size=%d" % HALF,
            "--offset=%d" % (0 if case.op == "rewrite" else HALF),
            "--norandommap", "--numjobs=%d" % case.connections,
            "--group_reporting", "--runtime=%dms" % (seconds * 1000),
            "--output-format=json"]
    if case.op != "write":
        argv += ["--time_based"]
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE,
                         text=True).stdout
    r = json.loads(out[out.index("{"):])["jobs"][0]
    side = r["read" if case.op == "read" else "write"]
    return side["iops"], side["total_ios"], side


def fill(build, server):
    """The second half of the disk, with data."""
    server.renew()
    subprocess.run([os.path.join(build, "bench/nbd-load"), *server.where(),
                    "--write", "--offset", str(HALF), "--length", str(HALF),
                    "--block-size", "1M", "--depth", "4", "--zone-size",
                    str(ZONE), "--count", str(HALF >> 20)],
                   check=True, stdout=subprocess.DEVNULL)
    server.full = True


def measure(build, running, cases, client, args):
    """{(case, server): [(rate, CPU us)]}, and the raw results."""
    results, raw = {}, []
    for n in range(args.rounds):
        for case in cases:
            for server in running:
                if case.op == "write":
                    server.renew()
                    server.full = False
                elif case.op == "read" and not server.full:
                    fill(build, server)
                before = server.cpu()
                rate, requests, r = client(build, server, case, args.seconds)
                cpu = (server.cpu() - before) / requests * 1e6
                results.setdefault((case, server), []).append((rate, cpu))
                raw.append({"round": n, "case": case.name,
                            "server": server.name,
                            "client": client.__name__, "cpu_us": cpu,
                            "result": r})
        print("round %d of %d" % (n + 1, args.rounds), file=sys.stderr)
    return results, raw


def short(x):
    return "%.1f" % x if x < 100 else "%d" % x


def spread(values):
    return "%s (%s-%s)" % (short(statistics.median(values)),
                           short(min(values)), short(max(values)))


def table(results, running, cases, peer):
    """As Markdown: a row for each case and server."""
    print("| case | server | requests/s | CPU, us | requests/s to %s "
          "| CPU to %s |" % (peer.title, peer.title))
    print("|---|---|---|---|---|---|")
    for case in cases:
        rates = {s: [x[0] for x in results[case, s]] for s in running}
        cpus = {s: [x[1] for x in results[case, s]] for s in running}
        for i, s in enumerate(running):
            print("| %s | %s | %s | %s | %.2f | %.2f |" % (
                case.name if i == 0 else "", s.title, spread(rates[s]),
                spread(cpus[s]),
                statistics.median(rates[s]) / statistics.median(rates[peer]),
                statistics.median(cpus[s]) / statistics.median(cpus[peer])))
    print(flush=True)


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [s.name for s in servers.ALL]
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=0.5,
                   help="of a run (default: 0.5)")
    p.add_argument("--servers", default=",".join(names),
                   help="which to compare (default: %(default)s)")
    p.add_argument("--peer", default="nbdkit-file",
                   help="to which ratios are (default: %(default)s)")
    p.add_argument("--cases", default="", metavar="REGEX",
                   help="those whose name matches")
    p.add_argument("--folder", default="/dev/shm",
                   help="where the disks are (default: /dev/shm)")
    p.add_argument("--tcp", action="store_true",
                   help="over TCP (default: Unix sockets)")
    p.add_argument("--client", choices=["nbd-load", "fio"],
                   default="nbd-load")
    p.add_argument("--durable", action="store_true",
                   help="writes with FUA; use a --folder on a disk")
    p.add_argument("--against", metavar="PROGRAM",
                   help="another znbd-server, to be run as a server too")
    p.add_argument("--json", metavar="FILE", help="every single result")
    args = p.parse_args()
    classes = {s.name: s for s in servers.ALL}
    for name in args.servers.split(","):
        if name not in classes:
            p.error("there is no server %s, but %s" % (
                name, ", ".join(names)))
    if args.peer not in args.servers.split(",") + (
            ["znbd-other"] if args.against else []):
        p.error("--peer %s is not among --servers" % args.peer)
    args.classes = [classes[n] for n in args.servers.split(",")]
    if args.against:
        servers.ZnbdOther.program = args.against
        args.classes.append(servers.ZnbdOther)
    args.chosen = [c for c in (DURABLE if args.durable else CASES)
                   if re.search(args.cases, c.name)]
    if not args.chosen:
        p.error("--cases %s matches none of:\n%s" % (
            args.cases, "\n".join(c.name for c in CASES + DURABLE)))
    return args


def main():
    args = parse()
    build = os.environ.get("abs_top_builddir", os.getcwd())
    client = load if args.client == "nbd-load" else fio
    folder = tempfile.mkdtemp(dir=args.folder, prefix="znbd-bench.")
    running = []
    # Servers and gigabytes are not to stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for cls in args.classes:
            why = cls.missing(build)
            if why and cls.name == args.peer:
                sys.exit("speed.py: %s" % why)
            if why:
                print("without %s: %s" % (cls.title, why), file=sys.stderr)
                continue
            running.append(cls(build, folder, args.tcp))
        results, raw = measure(build, running, args.chosen, client, args)
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(folder)
    peer = next(s for s in running if s.name == args.peer)
    table(results, running, args.chosen, peer)
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"processors": os.cpu_count(),
                       "seconds": args.seconds, "results": raw}, f, indent=1)


main()
