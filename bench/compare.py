# SPDX-License-Identifier: BSD-3-Clause
"""Cases, the clients that run them, and rounds over servers; the options
that all comparisons have.

The servers all run throughout; each round takes the cases in turn, and
each case the servers in turn, so that whatever else the machine does
falls on all of them.

Two clients: nbd-load of this folder, which costs little, and fio with
libnbd, which is what everyday clients are like.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time

K = 1024


class Case:
    """op: read (anywhere in the written half), write (zones in order),
    rewrite (anywhere in the half without zones) or append (all connections
    to the same zone).  sync: each write is durable, by "fua" or "flush".
    part: so many bytes of the disk only, which the processor's caches hold.
    trimmed: whether plain disks are trimmed before a zone write, as zones are
    reset, or are written over as they are.
    """
    OPS = {"read": "random read", "write": "zone write",
           "rewrite": "random write", "append": "append"}
    SYNCS = {"fua": ", FUA", "flush": ", flush behind each"}

    def __init__(self, op, bs, depth, connections=1, sync=None, what="",
                 part=None, trimmed=True):
        self.op, self.bs, self.depth, self.part = op, bs, depth, part
        self.connections, self.sync = connections, sync
        self.trimmed = trimmed
        self.name = "%s %dk, depth %d%s%s%s%s" % (
            self.OPS[op], bs // K, depth,
            ", %d connections" % connections if connections > 1 else "",
            self.SYNCS.get(sync, ""), what,
            "" if trimmed else ", plain disks not trimmed")


class Result:
    """One run: requests a second, the server's us a request, the median
    latency, the slowest connection against the mean, and all the client
    said."""

    def __init__(self, client, raw, rate, requests, p50, slowest=None):
        self.client, self.raw, self.rate = client, raw, rate
        self.requests, self.p50, self.slowest = requests, p50, slowest
        self.cpu = None


def load(server, case, seconds):
    place = server.place
    argv = [place.program("bench/nbd-load"), *server.where(),
            "--block-size", str(case.bs), "--depth", str(case.depth),
            "--connections", str(case.connections),
            "--seconds", str(seconds), "--length",
            str(case.part or place.half)]
    if case.op != "rewrite":
        argv += ["--offset", str(place.half)]
    if case.op in ("write", "append"):
        argv += ["--" + case.op, "--zone-size", str(place.zone)]
    else:
        argv += ["--random"] + (["--write"] if case.op == "rewrite" else [])
    if case.sync:
        argv += ["--" + case.sync]
    r = json.loads(subprocess.run(argv, check=True, text=True,
                                  stdout=subprocess.PIPE).stdout)
    return Result("nbd-load", r, r["requests_per_second"], r["requests"],
                  r["latency_us"]["p50"], r["slowest_connection"])


def fio(server, case, seconds):
    half = server.place.half
    rw = {"read": "randread", "write": "write", "rewrite": "randwrite"}
    argv = ["fio", "--name=x", "--ioengine=nbd", "--uri=" + server.uri,
            "--rw=" + rw[case.op], "--bs=%d" % case.bs,
            "--iodepth=%d" % case.depth, "--size=%d" % half,
            "--offset=%d" % (0 if case.op == "rewrite" else half),
            "--norandommap", "--numjobs=%d" % case.connections,
            "--group_reporting", "--runtime=%dms" % (seconds * 1000),
            "--output-format=json"]
    if case.op != "write":
        argv += ["--time_based"]
    out = subprocess.run(argv, check=True, stdout=subprocess.PIPE,
                         text=True).stdout
    r = json.loads(out[out.index("{"):])["jobs"][0]
    side = r["read" if case.op == "read" else "write"]
    return Result("fio", side, side["iops"], side["total_ios"],
                  side["clat_ns"]["mean"] / 1000)


CLIENTS = {"nbd-load": load, "fio": fio}


def fill(server):
    """The second half of the disk, with data."""
    if server.zoned:
        server.renew()
    p = server.place
    subprocess.run([p.program("bench/nbd-load"), *server.where(),
                    "--write", "--offset", str(p.half), "--length",
                    str(p.half), "--block-size", "1M", "--depth", "4",
                    "--zone-size", str(p.zone), "--count",
                    str(p.half >> 20)],
                   check=True, stdout=subprocess.DEVNULL)
    server.full = True


def settle(server):
    """Waits until it is done with what came of renew() behind its back."""
    before = None
    while before != (before := server.cpu()):
        time.sleep(0.01)


def run_case(server, case, client, seconds):
    """Each finds the second half full, and leaves it so; but where writes are
    durable it is on a disk, which that would keep busy."""
    zones = case.op in ("write", "append")
    fills = not case.sync and server.role != "ceiling"
    if fills and not server.full:
        fill(server)
    if zones and (case.trimmed or server.zoned):
        server.renew()
    server.full = server.full and not zones
    settle(server)
    before = server.cpu()
    result = client(server, case, seconds)
    result.cpu = (server.cpu() - before) / result.requests * 1e6
    if fills and not server.full:
        fill(server)            # before anybody tidies up behind it
    return result


def each_round(rounds):
    """The number of each round, which is said when it is over."""
    for n in range(rounds):
        yield n
        print("round %d of %d" % (n + 1, rounds), file=sys.stderr,
              flush=True)


def measure(running, cases, client, rounds, seconds, serves=None):
    """{(case, server's name): [Result]}.  serves(case, server) says whether
    a case is for a server."""
    results = {}
    for _ in each_round(rounds):
        for case in cases:
            for server in running:
                if serves and not serves(case, server):
                    continue
                results.setdefault((case, server.name), []).append(
                    run_case(server, case, client, seconds))
    return results


def raw(results):
    """For JSON: each run."""
    return [{"round": n, "case": case.name, "server": name,
             "client": r.client, "cpu_us": r.cpu, "result": r.raw}
            for (case, name), list_ in results.items()
            for n, r in enumerate(list_)]


def median(results, key):
    return statistics.median(getattr(r, key) for r in results)


def short(x):
    return "%.3g" % x if x < 100 else "%d" % x


def spread_of(values, show=short):
    """Median, least and most."""
    return "%s (%s-%s)" % (show(statistics.median(values)),
                           show(min(values)), show(max(values)))


def spread(results, key):
    return spread_of([getattr(r, key) for r in results])


def add_options(p, rounds, seconds, what="of a run"):
    """Those of an argument parser that all comparisons have."""
    p.add_argument("--rounds", type=int, default=rounds,
                   help="(default: %(default)s)")
    p.add_argument("--seconds", type=float, default=seconds,
                   help=what + " (default: %(default)s)")
    p.add_argument("--cases", default="", metavar="REGEX",
                   help="those whose name matches")


def choose(p, given, known, what):
    """What is named, with commas between, of known: a list of names."""
    names = given.split(",")
    for name in names:
        if name not in known:
            p.error("there is no %s %s; there are %s" % (
                what, name, ", ".join(known)))
    return names


def choose_cases(p, regex, cases):
    chosen = [c for c in cases if re.search(regex, c.name)]
    if not chosen:
        p.error("--cases %s matches none of:\n%s" % (
            regex, "\n".join(c.name for c in cases)))
    return chosen


def check_positive(p, args, *names):
    """That these options are, and those of add_options."""
    for name in ("rounds", "seconds") + names:
        if getattr(args, name) <= 0:
            p.error("--%s is to be positive" % name.replace("_", "-"))


def write_json(path, results):
    with open(path, "w") as f:
        json.dump(results, f, indent=1)


def pin(cpus):
    """This process and all that it starts."""
    os.sched_setaffinity(0, cpus)
