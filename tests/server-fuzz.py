#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The fuzzer's seeds, and what it once found, without a fuzzer: every input
ends with nothing left under way, also under the sanitizers, and half of an
input as well as the whole of it.
"""

import os
import subprocess

from harness import TAP, run, top_builddir, top_srcdir

tap = TAP()
fuzz = os.path.join(top_srcdir, "tests", "fuzz")
replay = os.path.join(top_builddir, "tests", "fuzz-replay")

seeds = tap.path("seeds")
status, out, err = run("python3", os.path.join(fuzz, "seeds.py"), seeds)
tap.equal((status, err), (0, ""), "the seeds are made")
names = [os.path.join(seeds, x) for x in sorted(os.listdir(seeds))]

status, out, err = run(replay, *names)
tap.equal((status, out, err), (0, "%d inputs\n" % len(names), ""),
          "all seeds")

cut = tap.path("cut")
os.mkdir(cut)
count = 0
for name in names:
    with open(name, "rb") as f:
        data = f.read()
    for part in 1, 2, 3:
        count += 1
        with open(os.path.join(cut, str(count)), "wb") as f:
            f.write(data[:len(data) * part // 4])
names = [os.path.join(cut, x) for x in sorted(os.listdir(cut))]
status, out, err = run(replay, *names)
tap.equal((status, out, err), (0, "%d inputs\n" % count, ""),
          "seeds cut off")

found = os.path.join(fuzz, "found")
for name in sorted(os.listdir(found)) if os.path.isdir(found) else []:
    status, out, err = run(replay, os.path.join(found, name))
    tap.equal((status, out, err), (0, "1 inputs\n", ""), "found: " + name)

with open(os.path.join(seeds, "deaf"), "rb") as f:
    data = f.read()
p = subprocess.run([replay], input=data, capture_output=True)
tap.equal((p.returncode, p.stderr), (0, b""), "from standard input")
tap.done_testing()
