#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""NBD servers side by side: requests per second, and the processor time
that a request costs the server.

For one question at a time: chosen cases, servers and clients, and the
ratios to one server.  "make bench" (bench.py) is the comparison as a whole.

Medians over the rounds are printed, and ratios to a peer in the same run.
Client and server share the machine's processors: the ratios count, and the
processor time more than the rate, for it hardly depends on what else there
is.

"make speed" runs it in the build folder.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile

import servers
from compare import (CLIENTS, Case, K, add_options, check_positive, choose,
                     choose_cases, measure, median, raw, spread, write_json)

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
    Case("write", 4 * K, 32, trimmed=False),
    Case("write", 256 * K, 16, trimmed=False),
    Case("read", 4 * K, 4, 16),
    Case("read", 4 * K, 4, 256),
    Case("write", 4 * K, 4, 8),
]
DURABLE = [
    Case("write", 4 * K, 1, 8, sync="fua"),
    Case("write", 4 * K, 1, 16, sync="fua"),
    Case("write", 4 * K, 1, 16, sync="flush"),
    Case("write", 4 * K, 32, sync="fua"),
]


def table(results, running, cases, peer):
    """As Markdown: a row for each case and server."""
    print("| case | server | requests/s | CPU, us | requests/s to %s "
          "| CPU to %s |" % (peer.title, peer.title))
    print("|---|---|---|---|---|---|")
    for case in cases:
        base = results[case, peer.name]
        for i, s in enumerate(running):
            r = results[case, s.name]
            print("| %s | %s | %s | %s | %.2f | %.2f |" % (
                case.name if i == 0 else "", s.title, spread(r, "rate"),
                spread(r, "cpu"), median(r, "rate") / median(base, "rate"),
                median(r, "cpu") / median(base, "cpu")))
    print(flush=True)


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [s.name for s in servers.ALL]
    add_options(p, 5, 0.5)
    p.add_argument("--servers", default=",".join(names),
                   help="which to compare (default: %(default)s)")
    p.add_argument("--peer", default="nbdkit-file",
                   help="to which ratios are (default: %(default)s)")
    p.add_argument("--folder", default="/dev/shm",
                   help="where the disks are (default: /dev/shm)")
    p.add_argument("--tcp", action="store_true",
                   help="over TCP (default: Unix sockets)")
    p.add_argument("--tls", action="store_true", help="over TCP with TLS")
    p.add_argument("--client", choices=list(CLIENTS), default="nbd-load")
    p.add_argument("--durable", action="store_true",
                   help="durable writes; use a --folder on a disk")
    p.add_argument("--zones", type=int, default=0, metavar="N",
                   help="so many, of 1 MiB each (default: 16 of 32 MiB)")
    p.add_argument("--against", metavar="PROGRAM",
                   help="another znbd-server, to be run as a server too")
    p.add_argument("--json", metavar="FILE",
                   help="write each single result there")
    args = p.parse_args()
    classes = {s.name: s for s in servers.ALL}
    chosen = choose(p, args.servers, names, "server")
    check_positive(p, args)
    if args.peer not in chosen + (["znbd-other"] if args.against else []):
        p.error("--peer %s is not among --servers" % args.peer)
    if args.tls and args.client == "fio":
        p.error("--tls is nbd-load's alone")
    args.classes = [classes[n] for n in chosen]
    if args.against:
        servers.ZnbdOther.program = args.against
        args.classes.append(servers.ZnbdOther)
    args.chosen = choose_cases(p, args.cases,
                               DURABLE if args.durable else CASES)
    return args


def main():
    args = parse()
    build = os.environ.get("abs_top_builddir", os.getcwd())
    folder = tempfile.mkdtemp(dir=args.folder, prefix="znbd-bench.")
    running = []
    # Servers and gigabytes are not to stay behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        place = servers.Place(build, folder, "tls" if args.tls
                              else "tcp" if args.tcp else "unix",
                              zones=args.zones)
        running = servers.start(args.classes, place, needed=[args.peer])
        results = measure(running, args.chosen, CLIENTS[args.client],
                          args.rounds, args.seconds)
    finally:
        servers.stop(running)
        shutil.rmtree(folder)
    peer = next(s for s in running if s.name == args.peer)
    table(results, running, args.chosen, peer)
    if args.json:
        write_json(args.json, {"processors": os.cpu_count(),
                               "seconds": args.seconds,
                               "results": raw(results)})


main()
