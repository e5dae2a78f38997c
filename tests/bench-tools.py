#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The load generator and the comparison of bench/: that they do what they
are told, and that what goes wrong is an error and never a figure."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.dom.minidom

from harness import TAP, ZnbdServer, connect, run, top_builddir, top_srcdir

sys.path.insert(0, os.path.join(top_srcdir, "bench"))
from servers import make_certificates

tap = TAP()
M = 1 << 20
nbd_load = os.path.join(top_builddir, "bench/nbd-load")
if not os.path.exists(nbd_load):
    tap.skip_all("nbd-load is not built: make -C bench check")

MEMORY = "memory:64M,zone-size=8M,conventional=4"


def load(server, *args):
    status, out, err = run(nbd_load, "--unix", server.socket, *args)
    return status, json.loads(out) if status == 0 else None, err


with ZnbdServer(MEMORY) as server:
    status, r, err = load(server, "--write", "--zone-size", "8M",
                          "--offset", "32M", "--length", "24M",
                          "--connections", "2", "--depth", "8")
    tap.equal((status, err), (0, ""), "zones are written in order")
    h = connect(server.uri)
    wanted = 24 * M // 4096
    tap.equal(r["requests"], wanted, "each block of three zones, once")
    tap.ok(h.pread(24 * M, 32 * M) == b"z" * (24 * M), "and all is there")
    tap.ok(h.pread(8 * M, 56 * M) == bytes(8 * M), "but nothing behind it")
    h.shutdown()

    for options in ([], ["--structured"], ["--random", "--structured"],
                    ["--random", "--connections", "4", "--depth", "3"],
                    ["--block-size", "256k", "--depth", "16"],
                    ["--block-size", "256k", "--structured"]):
        # Half of it lies above pointers: holes, where they may be sent.
        status, r, err = load(server, "--count", "500", *options)
        tap.equal((status, err, r and r["requests"]), (0, "", 500),
                  "reads: " + (" ".join(options) or "no options"))
    latency = r["latency_us"]
    tap.ok(0 < latency["p50"] <= latency["p99"] <= latency["max"] * 1.02,
           "latencies are in order", latency)
    tap.ok(r["requests_per_second"] * r["seconds"] > 499, "so is the rate", r)

    status, r, err = load(server, "--seconds", "0.3", "--random")
    tap.ok(status == 0 and 0.3 <= r["seconds"] < 5, "it keeps to its time", r)

    status, r, err = load(server, "--write", "--offset", "32M", "--random",
                          "--length", "8M")
    tap.equal(status, 1, "a write that is refused ends it")
    tap.like(err, r"write of 4096 bytes at \d+: the server says error 28",
             "with a message")

with ZnbdServer(MEMORY) as server:
    status, r, err = load(server, "--write", "--zone-size", "8M",
                          "--zone-part", "16k", "--offset", "32M",
                          "--length", "16M")
    tap.equal((status, err, r and r["requests"]), (0, "", 8),
              "a part of each zone is written")
    h = connect(server.uri)
    tap.ok(h.pread(8192, 40 * M + 8192) + h.pread(8192, 40 * M + 16384)
           == b"z" * 8192 + bytes(8192), "and not more of it")
    status, r, err = load(server, "--zone-size", "8M", "--zone-part", "16k",
                          "--offset", "32M", "--length", "16M", "--random",
                          "--count", "200")
    tap.equal((status, err, r and r["requests"]), (0, "", 200),
              "and read at random")

    status, r, err = load(server, "--write", "--flush", "--zone-size", "8M",
                          "--offset", "56M", "--depth", "2", "--count", "100")
    tap.equal((status, err, r and r["requests"]), (0, "", 100),
              "writes are followed by flushes")
    tap.ok(h.pread(400 << 10, 56 * M) == b"z" * (400 << 10), "in order")
    h.trim(32 * M, 32 * M)

    status, r, err = load(server, "--append", "--connections", "8",
                          "--depth", "3", "--zone-size", "8M",
                          "--offset", "32M", "--length", "16M")
    tap.equal((status, err, r and r["requests"]), (0, "", 4096),
              "two zones are filled with appends")
    tap.ok(h.pread(16 * M, 32 * M) + h.pread(M, 48 * M)
           == b"z" * 16 * M + bytes(M), "and no more than these")
    tap.equal((len(r["connections"]), sum(r["connections"])), (8, 4096),
              "what each connection did is told")
    tap.equal(r["slowest_connection"],
              round(min(r["connections"]) * 8 / 4096, 3),
              "and the slowest one's part of the mean")
    status, r, err = load(server, "--append", "--offset", "32M",
                          "--length", "8M", "--zone-size", "8M")
    tap.equal(status, 1, "an append to a full zone ends it")
    tap.like(err, "the server says error", "with a message")
    status, r, err = load(server, "--tls")
    tap.equal(status, 1, "so does a server without TLS")
    tap.like(err, "NBD_OPT_STARTTLS: the server refuses", "with a message")
    h.shutdown()

if shutil.which("certtool"):
    make_certificates(tap.path("pki"))
    with ZnbdServer(MEMORY, "--tls=require",
                    "--tls-certificates=" + tap.path("pki")) as server:
        for options in (["--random", "--count", "500"],
                        ["--block-size", "256k", "--depth", "16",
                         "--connections", "3", "--count", "500"],
                        ["--write", "--zone-size", "8M", "--offset", "32M",
                         "--length", "8M", "--depth", "40"]):
            status, r, err = load(server, "--tls", *options)
            tap.equal((status, err, r and r["requests"] >= 500),
                      (0, "", True), "by TLS: " + " ".join(options))
        tap.like(r["tls"], "TLS1", "it says what was agreed upon")
        status, r, err = load(server, "--count", "1")
        tap.equal(status, 1, "it is told that TLS is wanted")
else:
    tap.skip("by TLS", "certtool is not installed")

with ZnbdServer("-r", MEMORY) as server:
    status, r, err = load(server, "--append", "--zone-size", "8M")
    tap.like(err, "does not offer x-zbd:append",
             "a read-only export has no appends")
    status, r, err = load(server, "--write", "--count", "1")
    tap.equal(status, 1, "so does a read-only export")
    status, r, err = load(server, "--export", "nothing")
    tap.equal(status, 1, "and one that is not there")
    tap.like(err, "NBD_OPT_GO: the server refuses", "with a message")
    for wrong, why in ((["--depth", "0"], "--depth 0 is not a number"),
                       (["--block-size", "1"], "--block-size is not from"),
                       (["--offset", "65M"], "past the disk's end"),
                       (["--zone-size", "64M", "--connections", "2"],
                        "fewer zones than connections"),
                       (["--zone-part", "4k"], "--zone-part is not from"),
                       (["--append"], "--append needs a --zone-size"),
                       (["--append", "--flush"], "neither --flush nor"),
                       (["--seconds", "x"], "--seconds x is not a time")):
        status, r, err = load(server, *wrong)
        tap.ok(status == 1 and why in err, "refused: " + " ".join(wrong), err)

# ---- the ceiling ----

e = subprocess.Popen([os.path.join(top_builddir, "bench/nbd-echo"), "--unix",
                      tap.path("echo")])
while not os.path.exists(tap.path("echo")):
    time.sleep(0.01)
for options in (["--random"], ["--write", "--block-size", "300k"],
                ["--random", "--connections", "20", "--depth", "3"]):
    status, out, err = run(nbd_load, "--unix", tap.path("echo"), "--count",
                           "500", *options)
    tap.equal((status, err), (0, ""), "nbd-echo answers: " +
              " ".join(options))
e.terminate()
e.wait()

# ---- reports ----

with ZnbdServer("memory:4G,zone-size=1M,conventional=3") as server:
    load(server, "--write", "--offset", "3M", "--zone-size", "1M",
         "--zone-part", "8k", "--length", "2G")

    def report(*args):
        status, out, err = run(os.path.join(top_builddir, "bench/nbd-report"),
                               *args)
        return json.loads(out) if status == 0 else err

    r = report(server.socket, "2")
    tap.equal((r["zones"], len(r["ms"])), (4096, 2), "a report is timed")
    x = report("--extended", server.socket, "2")
    tap.like(x["way"], "extended headers over", "by extended headers too")
    tap.equal(x["sum"], r["sum"], "and they are the same zones")
    load(server, "--write", "--offset", "3G", "--zone-size", "1M",
         "--count", "1")
    tap.ok(report(server.socket, "1")["sum"] != r["sum"],
           "other zones are told apart")

# ---- the comparisons ----

python = os.environ.get("PYTHON", "/usr/bin/python3")
some = "znbd,nbdkit-file"
speed = [python, os.path.join(top_srcdir, "bench/speed.py"), "--rounds", "2",
         "--seconds", "0.05", "--servers", some, "--folder", tap.tmp,
         "--json", tap.path("out.json")]
status, text, err = run(*speed, "--cases", "4k, depth (1|32)$")
tap.equal(status, 0, "servers are compared")
tap.like(text, r"\| random read 4k, depth 1 \| znbd-server \| [\d.]+ \(",
         "with a table")
with open(tap.path("out.json")) as f:
    results = json.load(f)["results"]
tap.equal(len(results), 2 * 2 * 5, "and every single result")
tap.ok(all(x["cpu_us"] > 0 for x in results), "and the servers' time")
status, text, err = run(*speed, "--servers", "znbd,apache")
tap.ok(status == 2 and "there is no server apache" in err,
       "an unknown server is an error", err)

bench = [python, os.path.join(top_srcdir, "bench/bench.py"), "--rounds", "1",
         "--seconds", "0.02", "--mib", "64", "--zones", "200", "--folder",
         tap.tmp, "--disk", tap.tmp, "--json", tap.path("bench.json"),
         "--svg", tap.path("bench.svg"), "--cpus",
         ",".join(str(n) for n in sorted(os.sched_getaffinity(0))[:2])]
servers = "znbd,nbdkit-file,nbdkit-zoned,echo"
if not shutil.which("certtool") or not shutil.which("fio"):
    bench += ["--parts", "unix,append,tcp,plugin,plugin-zones,durable,"
              "plugin-durable,report,memory,scale"]
status, text, err = run(*bench, "--servers", servers)
tap.equal(status, 0, "make bench's whole comparison, short")
tap.diag(err if status else "")
rows = [line for line in text.splitlines() if re.match(r"\|.*\| (≥|≤|[a-zA-Z/ ]"
        r"*[≥≤]) ?[\d.]+.*\| (yes|\*\*no\*\*)", line)]
tap.ok(len(rows) >= 35, "each row of what is wanted is judged", text)
tap.ok("not measured" not in text.split("were not measured")[0] and
       " 0 were not measured" in text, "none is left out", text)
with open(tap.path("bench.json")) as f:
    raw = json.load(f)
tap.equal({r["part"] for r in raw["results"]} - {"tls", "fio"},
          {"unix", "append", "tcp", "plugin", "plugin-zones", "durable",
           "plugin-durable"},
          "single results are of all parts")
tap.equal({f["figure"] for f in raw["figures"]},
          {"report", "memory", "scale"}, "and all figures")
tap.equal({c for f in raw["figures"] if f["figure"] == "report"
           for c in [f["result"]["zones"]]}, {200}, "of as many zones")
svg = xml.dom.minidom.parse(tap.path("bench.svg"))
tap.ok(len(svg.getElementsByTagName("title")) > 60,
       "the plot is SVG with bars that say what they are")
status, text, err = run(*bench, "--parts", "unix,nothing")
tap.ok(status == 2 and "there is no part nothing" in err,
       "an unknown part is an error", err)
status, text, err = run(*bench, "--cpus", "5000")
tap.ok(status == 2 and "--cpus 5000" in err, "so is a processor", err)
tap.equal([n for n in os.listdir(tap.tmp) if n.startswith("znbd-bench")],
          [], "nothing stays behind")
tap.done_testing()
