#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A zoned disk over the network, served by znbd-server and by the kernel's
nvmet-tcp, side by side in a virtual machine.

One null_blk with zones, in memory, is exported by all at once over TCP on
127.0.0.1.  Each round takes the cases in turn, and each case the ways to the
disk, beginning with another one each time, so that whatever else the machine
does falls on all.  Writes begin with empty zones and go through all of them,
in order; reads are anywhere in a full disk.  That everything went to the
disk, and that what is read is what is there, is looked at.

Medians over the rounds are printed, and ratios to a peer of the same round.
Where the processor is emulated, only these count.  --instructions has the
machine's clocks count instructions: that is the same each time, and says what
a request costs client, network and server together, but knows nothing of
caches, and nothing of what runs at the same time.

"make bench-vm" runs it in the build folder: here it starts the virtual
machine, and in it itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import vm_disks
from compare import (Case, K, add_options, check_positive, choose,
                     choose_cases, each_round, spread_of, write_json)

RESULTS = "#results "           # begins the guest's line for --json

CASES = [Case(op, bs, depth) for op in ("write", "read")
         for bs in (4 * K, 128 * K) for depth in (1, 32)]


def measure(disk, ways, cases, args):
    """{(case, way): [requests a second...]} and the clients' words."""
    results, raw = {}, []
    for n in each_round(args.rounds):
        for case in cases:
            for i in range(len(ways)):
                way = ways[(i + n) % len(ways)]
                if case.op == "write":
                    way.reset()
                    disk.full = False
                else:
                    if not disk.full:
                        disk.fill()
                    way.look()
                rate, requests, said = way.run(case, args.seconds)
                if case.op == "write":
                    disk.check_written(way, case, requests)
                results.setdefault((case, way), []).append(rate)
                raw.append({"round": n, "case": case.name, "way": way.name,
                            "requests_per_second": rate,
                            "requests": requests, "result": said})
    return results, raw


def table(results, ways, cases, peer):
    """As Markdown: a row for each case and way."""
    print("| case | server, client | requests/s | to %s | each round |"
          % peer.title)
    print("|---|---|---|---|---|")
    for case in cases:
        of_peer = results[case, peer]
        for i, way in enumerate(ways):
            rates = results[case, way]
            ratios = [a / b for a, b in zip(rates, of_peer)]
            print("| %s | %s | %s | %.2f | %s |" % (
                case.name if i == 0 else "", way.title, spread_of(rates),
                statistics.median(rates) / statistics.median(of_peer),
                spread_of(ratios, lambda x: "%.2f" % x)))
    print(flush=True)


def parse():
    p = argparse.ArgumentParser(
        prog="vm.py", description=__doc__.splitlines()[0],
        epilog="Ways: %s." % "; ".join(
            "%s (%s)" % (w.name, w.title) for w in vm_disks.ALL))
    add_options(p, 9, 1, "of a case that reads; writes take what all zones "
                "take")
    p.add_argument("--zones", type=int, default=32,
                   help="of the disk (default: 32)")
    p.add_argument("--zone-size", type=int, default=1, metavar="MIB",
                   help="(default: 1)")
    p.add_argument("--ways", default="znbd,znbd-fio,attach,nvmet",
                   help="which to compare (default: %(default)s)")
    p.add_argument("--peer", default="nvmet",
                   help="to which ratios are (default: %(default)s)")
    p.add_argument("--against", metavar="PROGRAM",
                   help="another znbd-server, as one more way (znbd-other)")
    p.add_argument("--null-blk", default="", metavar="KEY=VALUE,...",
                   help="more of the null_blk's parameters: "
                   "irqmode=2,completion_nsec=10000")
    p.add_argument("--fio", default="", metavar="OPTIONS",
                   help="more options for fio on block devices")
    p.add_argument("--cpus", type=int, default=1,
                   help="of the virtual machine (default: 1)")
    p.add_argument("--instructions", action="store_true",
                   help="time is instructions, 2 ns each, of one processor")
    p.add_argument("--limit", type=int, default=7200,
                   help="seconds, then it is killed (default: 7200)")
    p.add_argument("--json", metavar="FILE", help="every single result")
    args = p.parse_args()
    classes = {w.name: w for w in vm_disks.ALL}
    names = choose(p, args.ways, classes, "way")
    if args.against:
        vm_disks.ZnbdOther.program = os.path.realpath(args.against)
        if not os.access(args.against, os.X_OK):
            p.error("--against %s: no program" % args.against)
        if "znbd-other" not in names:
            names.append("znbd-other")
    elif "znbd-other" in names:
        p.error("znbd-other wants --against")
    if args.peer not in names:
        p.error("--peer %s is not among --ways" % args.peer)
    check_positive(p, args, "zone_size", "cpus", "limit")
    if args.zones < 2:
        p.error("--zones is to be at least 2")
    if args.instructions and args.cpus != 1:
        p.error("--instructions are those of one processor")
    args.classes = [classes[name] for name in names]
    args.chosen = choose_cases(p, args.cases, CASES)
    return args


def start_machine(args, build):
    """This program in a virtual machine; returns its status."""
    here = os.path.dirname(os.path.realpath(__file__))
    argv = [os.path.join(here, "../tests/vm/run"), "-c", str(args.cpus),
            *["-i"][:args.instructions], "-t", str(args.limit), "env",
            "abs_top_builddir=" + build,
            "PYTHONDONTWRITEBYTECODE=1", sys.executable,
            os.path.join(here, "vm.py"), *sys.argv[1:]]
    guest = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    for line in guest.stdout:
        if line.startswith(RESULTS):
            if args.json:
                write_json(args.json, json.loads(line[len(RESULTS):]))
        else:
            sys.stdout.write(line)
            sys.stdout.flush()
    return guest.wait()


def main():
    args = parse()
    build = os.environ.get("abs_top_builddir", os.getcwd())
    if not os.environ.get("ZNBD_VM_GUEST"):
        sys.exit(start_machine(args, build))
    with vm_disks.Disk(args.zones, args.zone_size, args.null_blk) as disk:
        ways = []
        try:
            for cls in args.classes:
                ways.append(cls(disk, build, args.fio))
            results, raw = measure(disk, ways, args.chosen, args)
        finally:
            for way in reversed(ways):
                way.stop()
    peer = next(w for w in ways if w.name == args.peer)
    table(results, ways, args.chosen, peer)
    print(RESULTS + json.dumps({
        "processors": os.cpu_count(), "kernel": os.uname().release,
        "zones": args.zones, "zone_size": args.zone_size << 20,
        "seconds": args.seconds, "peer": args.peer, "results": raw}))


if __name__ == "__main__":
    main()
