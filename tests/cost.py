#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a request costs in instructions, counted by valgrind's callgrind and
compared with what it cost when tests/cost.txt was recorded.

Wall clock says nothing on a machine that does other things; instructions are
the same each time.  Counted are those of the server's loop from what the
socket has to what the socket gets (cost-server.c), and those of the plugin's
callbacks under nbdkit; the kernel's are not, and neither are those of memcpy,
of which each processor has another one.

Where a change is meant to cost more, or costs less, record anew and commit
the file:

    cd BUILD/tests && ZNBD_RECORD_COST=1 ./run ../../znbd/tests/cost.py

Our own code may cost MARGIN more.  With another compiler, version or
optimisation than recorded it is another program, and OTHER is allowed; in
libraries, other versions of which do things otherwise, too.
"""

import os
import platform
import re
import subprocess

from harness import TAP, Nbdkit, run, top_builddir, top_srcdir

MARGIN, OTHER = 1.1, 1.6
RECORDS = os.path.join(top_srcdir, "tests/cost.txt")

tap = TAP()
tap.requires("valgrind", "nbdkit")


def variable(name):
    """Of the build's Makefile."""
    with open(os.path.join(top_builddir, "tests/Makefile")) as f:
        return re.search("^%s = *(.*)$" % name, f.read(), re.M).group(1)


if variable("SANITIZER_CFLAGS"):
    tap.skip_all("a sanitizer's instructions are not the program's")
if not re.search("-O[123s]", variable("CFLAGS")):
    tap.skip_all("built without optimisation")
if platform.machine() != "x86_64":
    tap.skip_all("recorded are the instructions of x86_64")


def built_with():
    status, out, err = run(*os.environ["CC"].split(), "--version")
    return "%s; %s" % (out.splitlines()[0], variable("CFLAGS"))


def count(path):
    """(our own instructions, those of libraries) of a callgrind file."""
    objects, functions, ours, others = {}, {}, 0, 0
    own = inclusive = copies = False
    with open(path) as f:
        for line in f:
            if line.startswith("ob="):
                number, _, name = line[3:].strip().partition(" ")
                if name:
                    objects[number] = name
                own = objects[number].startswith(top_builddir)
            elif line.startswith("cob="):
                number, _, name = line[4:].strip().partition(" ")
                if name:
                    objects[number] = name
            elif line.startswith(("fn=", "cfn=")):
                number, _, name = line[line.index("=") + 1:].strip() \
                    .partition(" ")
                if name:
                    functions[number] = name
                if line[0] == "f":
                    copies = re.search("mem(p?cpy|move)", functions[number])
            elif line.startswith("calls="):
                inclusive = True
            elif line[0] in "0123456789+-*":
                if not inclusive and not copies:
                    cost = int((line.split() + ["0"])[1])
                    ours += cost * own
                    others += cost * (not own)
                inclusive = False
    return ours, others


def callgrind(out, options, *argv, **more):
    return ["valgrind", "--tool=callgrind", "--callgrind-out-file=" + out,
            *options, *argv]


def make_image(name, folder=tap.tmp):
    path = os.path.join(folder, name)
    run("znbd", "create", "--size", "32M", "--zone-size", "4M", path)
    return path


def server_costs(folder, *args):
    out = tap.path("server.callgrind")
    status, text, err = run(*callgrind(
        out, ["--toggle-collect=measured_turn",
              "--dump-before=measured_end"],
        os.path.join(top_builddir, "tests/cost-server"),
        make_image("server.zbd", folder), *args))
    if "debuginfo reader" in err:
        tap.skip_all("this valgrind does not understand what debugging "
                     "information %s writes" % os.environ["CC"])
    if not tap.equal(status, 0, "%s: the server's cases run under valgrind"
                     % " ".join(("first", *args)[-1:])):
        tap.diag(err)
    # The dumps are numbered from 1 on, a line of output for each.
    costs = {}
    for i, line in enumerate(text.splitlines()):
        name, n = line.split()
        if int(n):
            costs["server " + name] = [
                x / int(n) for x in count("%s.%d" % (out, i + 1))]
    return costs


def plugin_costs():
    costs, image, n = {}, make_image("plugin.zbd"), 300
    for name, options in (("pwrite", ["--write"]), ("pread", [])):
        for size in ("4k", "64k"):
            out = tap.path("plugin.callgrind")
            nbdkit = Nbdkit(image, threads=1)
            nbdkit.argv = callgrind(
                out, ["--toggle-collect=zoned_" + name], variable("NBDKIT"),
                *nbdkit.argv[1:])
            offset = "0" if size == "4k" else "4M"
            requests = n if size == "4k" else 60
            with nbdkit as server:
                subprocess.run(
                    [os.path.join(top_builddir, "bench/nbd-load"), "--unix",
                     server.socket, "--depth", "1", "--block-size", size,
                     "--offset", offset, "--count", str(requests), *options],
                    check=True, stdout=subprocess.DEVNULL)
            costs["plugin %s-%s" % (name, size)] = [
                x / requests for x in count(out)]
    return costs


def read_records():
    """(what it was built with, {name: [ours, others]})"""
    with open(RECORDS) as f:
        lines = [l for l in f.read().splitlines()
                 if l and not l.startswith("#")]
    return lines[0], {name: [float(x) for x in numbers.split()]
                      for name, numbers in
                      (l.rsplit(":", 1) for l in lines[1:])}


def record(costs):
    with open(RECORDS, "w") as f:
        f.write("# SPDX-License-Identifier: BSD-3-Clause\n"
                "# Instructions a request, our own and those of libraries; "
                "see cost.py, which\n# writes this file.  Built with:\n"
                "%s\n" % built_with())
        for name, (ours, others) in costs.items():
            f.write("%s: %.0f %.0f\n" % (name, ours, others))


costs = {**server_costs(tap.tmp), **plugin_costs()}
if tap.memory():
    costs.update(server_costs(tap.memory(), "again"))
else:
    tap.skip("zones that were written to before", "there is no /dev/shm")
if os.environ.get("ZNBD_RECORD_COST"):
    record(costs)
    tap.diag("recorded in " + RECORDS)
recorded_with, recorded = read_records()
same = recorded_with == built_with()
margin = MARGIN if same else OTHER
tap.diag("recorded: " + recorded_with, "here:     " + built_with(),
         "allowed:  %g times as many" % margin)
tap.equal(sorted(costs), sorted(name for name in recorded
                                if tap.memory() or "again" not in name),
          "each case was recorded")
for name, (ours, others) in costs.items():
    was, others_were = recorded.get(name, (0, 0))
    tap.diag("%s: %.0f (%.0f), in libraries %.0f (%.0f)" % (
        name, ours, was, others, others_were))
    tap.ok(ours <= was * margin and others <= others_were * OTHER,
           "%s takes no more instructions than it did" % name,
           "record anew if that is meant: see cost.py")
    tap.ok(ours > 0 and ours >= was / 2, "%s was counted, and not far fewer" % name,
           "record anew, so that this is kept: see cost.py")
tap.done_testing()
