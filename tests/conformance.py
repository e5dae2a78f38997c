#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""docs/nbd-conformance.md: that every MUST of the specification is there
once, that every test that it names is run and passes, and that it and
removals.py name the same removals.
"""

import os
import re
import subprocess
from collections import Counter

from harness import TAP, top_builddir, top_srcdir
from removals import ALL, REMOVALS

MUSTS = 273

tap = TAP()
with open(os.path.join(top_srcdir, "docs", "nbd-conformance.md"),
          encoding="utf-8") as f:
    text = f.read()
rows = [[cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines() if line.startswith("|")]
files = {letter: path for letter, path in
         (row for row in rows if len(row) == 2)
         if re.fullmatch("[A-Z]", letter)}


def numbers(cell):
    """Of "3, 14", or none."""
    return [int(x) for x in cell.split(", ")] \
        if re.fullmatch(r"[0-9]+(, [0-9]+)*", cell) else []


demands = [row for row in rows if len(row) == 5 and numbers(row[0])]
others = [row for row in rows if len(row) == 2 and numbers(row[1])]
applying = [x for row in demands for x in numbers(row[0])]
count = Counter(applying + [x for row in others for x in numbers(row[1])])
tap.equal([x for x in range(1, MUSTS + 1) if count[x] != 1], [],
          "each of the %d MUSTs is in one row" % MUSTS)
tap.equal(max(count), MUSTS, "and no other")
tap.ok("%d are about" % len(applying) in text and
       "%d are not" % (MUSTS - len(applying)) in text.replace("\n", " "),
       "the sums are right", len(applying))
for row in demands:
    for path in row[2].split(", "):
        if "/" not in path and not path.startswith("zonelib"):
            path = "server/" + path
        if not os.path.exists(os.path.join(top_srcdir, path)):
            tap.fail("%s is there" % path, row)

named = {}
for row in demands:
    for test in row[3].split("<br>"):
        letter, name = test.split(": ", 1)
        named.setdefault(files[letter], set()).add(name)
for path, names in sorted(named.items()):
    out = subprocess.run(
        [os.path.join(top_builddir, "tests", "run"),
         os.path.join(top_srcdir, path)], stdout=subprocess.PIPE,
        cwd=os.path.join(top_builddir, "tests"),
        universal_newlines=True).stdout
    text_of = "what is named of %s is run, and passes" % path
    if out.startswith("1..0"):
        tap.skip(text_of, out.split("SKIP ")[-1].strip())
        continue
    passed = set(re.findall(r"^ok [0-9]+ - (.*?)(?: # SKIP.*)?$", out, re.M))
    tap.equal(sorted(names - passed), [], text_of)

stale = []
for name, (path, old, new, test, title) in ALL.items():
    with open(os.path.join(top_srcdir, path)) as f:
        if f.read().count(old) != 1:
            stale.append((name, path))
tap.equal(stale, [], "each removal finds its text, once")
in_rows = {name: row for row in demands for name in row[4].split()
           if name != "\u2013"}
tap.equal(sorted(set(in_rows) - set(REMOVALS)), [],
          "the removals named are there")
tap.equal([x for x in REMOVALS if "`%s`" % x not in text and
           x not in in_rows], [], "those that are there are named")
tap.equal([(name, row[0]) for row in demands for name in row[4].split()
           if name in REMOVALS and not any(
               t.split(": ", 1)[1] == REMOVALS[name][4]
               for t in row[3].split("<br>"))], [],
          "each is in the row of its test")
tap.ok("all %d" % len(REMOVALS) in text, "their number is right",
       len(REMOVALS))
tap.done_testing()
