#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every cell of the zones' transition table, the limits and the eviction:
state_tables.py, run against a disk in memory, a disk in an image, and the
Python model that the random walks believe in.
"""

import os
import sys
import tempfile

sys.dont_write_bytecode = True

import state_tables as tables                                   # noqa: E402
from state_tables import B, CAPACITY, SIZE, ZONE, NEXT          # noqa: E402
from zone_driver import Driver                                  # noqa: E402
from zone_model import Geometry, Model, same                    # noqa: E402

MANAGEMENT = ("open", "close", "finish", "reset")


class ModelDisk:
    """The model, used as a Driver is."""

    def __init__(self, geometry):
        # What zonelib's disks take; the model has no opinion.
        geometry.max_append = min(1 << 20, geometry.capacity)
        self.info = {"max-append": geometry.max_append}
        self.model = Model(geometry)

    def run(self, ops):
        return [self.model.apply(op) for op in ops]

    def close(self):
        return 0


class Sequence:
    """Operations, and what each has to answer."""

    def __init__(self):
        self.ops, self.answers = [], []

    def add(self, answer, *op):
        self.ops.append(op)
        self.answers.append(answer)

    def run(self, disk):
        """Returns a line that tells the first difference, or None."""
        answers = disk.run(self.ops)
        for i, (op, want) in enumerate(zip(self.ops, self.answers)):
            got = answers[i] if i < len(answers) else "(it died)"
            if op[0].lstrip("-") in ("read", "append") and want == "0":
                got = got.split()[0]            # the rest is not looked at
            if not same(want, got):
                return "\n".join(
                    [" ".join(map(str, o)) for o in self.ops[:i]]
                    + ["%s -> %s" % (" ".join(map(str, op)), got),
                       "expected: " + want])
        return None


def geometry(**args):
    return Geometry(zone_size=SIZE * B, capacity=CAPACITY * B, **args) \
        if "capacity" not in args else Geometry(zone_size=SIZE * B, **args)


def report_word(zone, cell, size=SIZE):
    """A zone's word in a report, from a cell like "X@2*".  A pointer that
    clients need not care about stands at the zone's end."""
    cond = tables.CONDITIONS[cell[0].upper()]
    wp = int(cell[2]) if cond in (1, 2, 3, 4) else size
    return "%d:%d:%d" % (cond, (zone * SIZE + wp) * B, cell[-1] == "*")


def numbers(data):
    return "0 " + " ".join(map(str, data))


def place(text, p):
    """A place or length of a table's row, in bytes."""
    if text.startswith("p"):
        blocks = p + int(text[1:] or 0)
    elif text.endswith("-p"):
        blocks = int(text[:-2]) - p
    else:
        blocks = float(text)
    return int(blocks * B)


def operation(words, zone, p, number):
    """The operation of a table's row on a zone whose pointer is at p."""
    name, start = words[0], zone * SIZE * B
    if name == "flush" or name.endswith("-all"):
        return (name,)
    if len(words) == 1:
        return (name, start, SIZE * B)
    op = (name, start + place(words[1], p), place(words[2], p))
    return op + (number,) if name in ("write", "append") else op


def answer_of(op, cell):
    """What an operation on one zone answers, where it answers no data."""
    if not cell.startswith("E") or cell.startswith("E@"):
        return "0 %d" % (SIZE * B) if op[0] in MANAGEMENT else "0"
    return cell + " 0" if op[0] in MANAGEMENT else cell


def refused(cell):
    return cell[0] == "E" and not cell.startswith("E@")


def put(op, data, where):
    """The granules after op wrote at where."""
    count = op[2] // B
    new = [0] * count if op[0] == "zero" else range(op[3], op[3] + count)
    data[where:where + count] = new


def sequential_cell(words, column, cell):
    s = Sequence()
    start = ZONE * SIZE * B
    p = int(column[2])
    data = [0] * SIZE

    s.add("0", "reset-all")
    s.add("0", "write", start + SIZE * B, B, 77)        # its neighbour
    for step in tables.PREPARE[column]:
        op = operation(step.split(), ZONE, 0, 100)
        s.add(answer_of(op, "="), *op)
        if op[0] == "write":
            put(op, data, (op[1] - start) // B)
    s.add("0 " + report_word(ZONE, column), "report", ZONE, 1)

    op = operation(words, ZONE, p, 500)
    after = column if cell == "=" or refused(cell) else cell
    answer = answer_of(op, cell)
    neighbour, neighbour_data = {
        "close-all": ("C@1", 77), "finish-all": ("F", 77),
        "reset-all": ("E@0", 0)}.get(op[0], ("I@1", 77))
    if cell == "=" and op[0] == "read":
        first = (op[1] - start) // B + SIZE
        answer = numbers(([0] * SIZE + data + [77] + [0] * SIZE)[
            first:first + op[2] // B])
    elif not refused(cell):
        if op[0] == "append":
            answer = "0 %d" % (start + p * B)
            put(op, data, p)
        elif op[0] in ("write", "zero"):
            put(op, data, (op[1] - start) // B)
        elif cell == "E@0" and op[0] in ("reset", "reset-all", "trim"):
            data = [0] * SIZE
    s.add(answer, *op)
    s.add("0 %s %s" % (report_word(ZONE, after),
                       report_word(NEXT, neighbour)), "report", ZONE, 2)
    s.add("0 %s" % report_word(ZONE, after), "table-read", ZONE, 1)
    s.add(numbers(data + [neighbour_data]), "read", start, (SIZE + 1) * B)
    return s


def fixed_cell(words, column, cell):
    s = Sequence()
    zone, cond = tables.FIXED_ZONES[column]
    start = zone * SIZE * B
    data = [0] * SIZE
    s.add("0", "reset-all")
    if column == "conv":
        data = list(range(100, 100 + SIZE))
        s.add("0", "write", start, SIZE * B, 100)

    op = operation(words, zone, 0, 500)
    answer = answer_of(op, cell)
    if cell == "=":
        first = (op[1] - start) // B if len(op) > 1 else 0
        if op[0] == "read":
            answer = numbers(data[first:first + op[2] // B])
        elif op[0] in ("write", "zero"):
            put(op, data, first)
        elif op[0] == "trim":           # discarded: kept, or zeros
            data = [-n if i < op[2] // B else n for i, n in enumerate(data)]
    s.add(answer, *op)
    s.add("0 " + report_word(zone, cond), "report", zone, 1)
    s.add("0 " + report_word(zone, cond), "table-read", zone, 1)
    s.add("EIO" if cond == "O" else numbers(data), "read", start, SIZE * B)
    return s


def rows(text):
    """Yields a table's rows: words of the operation, (column, cell)s."""
    lines = text.strip("\n").splitlines()
    columns = lines[0].split()
    for line in lines[1:]:
        words = line.split()
        n = len(words) - len(columns)
        cells = [(column, cell) for column, cell in zip(columns, words[n:])
                 if cell != "."]
        yield words[:n], cells
        if words[0] == "write":
            yield ["zero"] + words[1:n], cells


def script_operation(words, number):
    name = words[0]
    if len(words) == 1:
        return (name,)
    if name.lstrip("-") in MANAGEMENT:
        first, _, last = words[1].partition("-")
        blocks = (int(words[2]) if len(words) > 2 else
                  (int(last or first) - int(first) + 1) * SIZE)
        return (name, int(first) * SIZE * B, blocks * B)
    op = (name, int((int(words[1]) * SIZE + float(words[2])) * B),
          int(words[3]) * B)
    return op + (number,) if name.lstrip("-") in ("write", "append") else op


def script(text, args):
    """The sequence of a script, with a report after each operation."""
    g = geometry(**args)
    s = Sequence()
    state = ["R" if i in g.readonly else "O" if i in g.offline else
             "N" if i < g.conventional else "E@0" for i in range(g.zones)]
    blocks = [SIZE] * (g.zones - 1) + [g.size // B - (g.zones - 1) * SIZE]
    for i, line in enumerate(text.strip().splitlines()):
        what, answer, changes = (part.strip() for part in line.split("|"))
        op = script_operation(what.split(), 1000 * (i + 1))
        if op[0].lstrip("-") in MANAGEMENT:
            error, _, done = answer.partition(" ")
            answer = "%s %d" % (error, int(done) * B if done else
                                op[2] if error == "0" else 0)
        s.add(answer, *op)
        for change in changes.split(",") if changes else []:
            zone, cell = change.split()
            state[int(zone)] = cell
        s.add("0 " + " ".join([report_word(i, cell, blocks[i])
                               for i, cell in enumerate(state)]),
              "report", 0, g.zones)
    return s


def largest_append(max_append):
    """Appends as large as they may be, and larger."""
    s = Sequence()
    s.add("0 0", "append", 0, max_append, 1)
    s.add("EINVAL", "append", 0, max_append + B, 100000)
    s.add("0 %d" % max_append, "append", 0, max_append, 200000)
    s.add("0 2:%d:0" % (2 * max_append), "report", 0, 1)
    s.add(numbers(range(200000, 200000 + max_append // B)),
          "read", max_append, max_append)
    s.add("0 %d" % (64 << 20), "finish", 0, 64 << 20)
    # Its shape is looked at before whether the zone is full.
    s.add("EINVAL", "append", 0, max_append + B, 100000)
    s.add("ENOSPC", "append", 0, max_append, 100000)
    return s


class Test:
    def __init__(self):
        self.count = 0

    def result(self, name, bad):
        self.count += 1
        print("%sok %d - %s" % ("not " if bad else "", self.count, name))
        for text in bad:
            print("".join("# %s\n" % line for line in text.splitlines()),
                  end="")
        sys.stdout.flush()

    def table(self, make, name, text, cell_sequence, args):
        disk = make(geometry(**args))
        for words, cells in rows(text):
            bad = []
            for column, cell in cells:
                differs = cell_sequence(words, column, cell).run(disk)
                if differs:
                    bad.append("in column %s:\n%s" % (column, differs))
            self.result("%s: %s (%d cells)"
                        % (name, " ".join(words), len(cells)), bad)
        disk.close()

    def sequence(self, make, name, sequence, g):
        disk = make(g)
        differs = sequence.run(disk)
        if disk.close() != 0 and not differs:
            differs = "zones-driver failed at its end"
        self.result(name, [differs] if differs else [])

    def everything(self, kind, make):
        managed = dict(tables.TABLE_DISK, model="host-managed")
        aware = dict(tables.TABLE_DISK, model="host-aware")
        for name, text, cell, args in (
                ("required", tables.SEQUENTIAL, sequential_cell, managed),
                ("required", tables.REQUIRED, sequential_cell, managed),
                ("preferred", tables.SEQUENTIAL, sequential_cell, aware),
                ("preferred", tables.PREFERRED, sequential_cell, aware),
                ("preferred", tables.PREFERRED_NON_SEQ, sequential_cell,
                 aware),
                ("host-managed", tables.FIXED, fixed_cell, managed),
                ("host-aware", tables.FIXED, fixed_cell, aware)):
            self.table(make, "%s, %s" % (kind, name), text, cell, args)

        for name, args, text in tables.SCRIPTS:
            if kind == "memory" and "reopen" in text:
                continue
            self.sequence(make, "%s: %s" % (kind, name), script(text, args),
                          geometry(**args))

        probe = make(Geometry(zone_size=64 << 20, zones=1))
        largest = int(probe.info["max-append"])
        probe.close()
        self.sequence(make, kind + ": the largest append",
                      largest_append(largest),
                      Geometry(zone_size=64 << 20, zones=2))


def main():
    test = Test()
    test.everything("model", ModelDisk)
    test.everything("memory", Driver)
    with tempfile.TemporaryDirectory(prefix="znbd-state-") as tmp:
        image = os.path.join(tmp, "image")
        test.everything("image", lambda g: Driver(g, image))
    print("1..%d" % test.count)


# The results say what failed: a failing status would count again.
main()
