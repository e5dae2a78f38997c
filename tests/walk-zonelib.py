#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A random walk of a million operations over disks of many shapes, in
memory and in an image, each answer compared with an independent model's.

ZNBD_SEED=N walks another way, ZNBD_OPS=N another distance, ZNBD_LONG=1
twenty times as far.  A difference is shortened to the few operations that
show it, which can be fed to zones-driver by hand.
"""

import os
import sys
import tempfile
import time

sys.dont_write_bytecode = True

from zone_driver import BATCH, Died, Driver, split              # noqa: E402
from zone_model import Geometry, Model, same                    # noqa: E402
from zone_walk import DISKS, Chooser, shorten, show             # noqa: E402

WALK = 16000            # operations on one disk before a fresh one


def whole_disk(geometry, most=64):
    """Operations that read and report all of it."""
    ops = []
    step = 256 * geometry.granularity
    for zone in range(geometry.zones):
        start = zone * geometry.zone_size
        end = min(start + geometry.zone_size, geometry.size)
        for offset in range(start, end, step):
            ops.append(("read", offset, min(step, end - offset)))
    for first in range(0, geometry.zones, most):
        count = min(most, geometry.zones - first)
        for name in ("report", "shape", "table-read", "table-shape"):
            ops.append((name, first, count))
    ops.append(("table-header",))
    return ops


class Difference(Exception):
    pass


class Walk:
    def __init__(self, disk, image, seed):
        self.geometry = Geometry(**DISKS[disk])
        self.image = image
        self.seed = seed
        self.ops, self.waiting = [], []

    def start(self):
        driver = Driver(self.geometry, self.image)
        self.geometry.max_append = int(driver.info["max-append"])
        return driver

    def run(self, ops):
        """Answers of a fresh disk."""
        driver = self.start()
        answers = driver.run(ops)
        driver.close()
        return answers

    def check(self):
        """Compares the answers of the batch that was sent first."""
        expected = self.waiting.pop(0)
        answers = self.driver.receive(len(expected))
        if answers == expected:
            return
        for i, want in enumerate(expected):
            if i >= len(answers) or not same(want, answers[i]):
                at = len(self.ops) - sum(map(len, self.waiting))
                self.fail(self.ops[:at - len(expected) + i + 1])

    def fail(self, ops):
        self.driver.close()
        short = shorten(ops, self.geometry, self.run)
        if short is None:
            raise Difference("operation %d differs, but not when it is done "
                             "again" % len(ops))
        raise Difference("\n".join(
            ["operation %d differs; shortened to %d:"
             % (len(ops), len(short))]
            + show(short, self.geometry, self.run(short))))

    def send(self, ops, expected):
        self.ops += ops
        self.waiting.append(expected)
        self.driver.send(ops)
        if len(self.waiting) == 2:
            self.check()

    def walk(self, count):
        """Walks; raises Difference."""
        self.driver = self.start()
        self.model = Model(self.geometry)
        chooser = Chooser(self.model, self.seed,
                          {} if self.image else {"reopen": 0})
        while count > 0:
            # The next operation depends on the state before it, so the
            # model runs while operations are chosen.
            ops, expected = [], []
            for _ in range(min(BATCH, count)):
                op = chooser.next()
                ops.append(op)
                expected.append(self.model.apply(op))
            self.send(ops, expected)
            count -= len(ops)
        end = whole_disk(self.geometry)
        if self.image:
            end = end + [("reopen",)] + end
        for ops in split(end):
            self.send(ops, [self.model.apply(op) for op in ops])
        while self.waiting:
            self.check()
        status = self.driver.close()
        if status != 0:
            raise Difference("zones-driver ended with status %d" % status)


def main():
    seed = int(os.environ.get("ZNBD_SEED", "20261123"))
    total = int(os.environ.get("ZNBD_OPS", "1000000"))
    if os.environ.get("ZNBD_LONG"):
        total *= 20
    elif os.environ.get("ZNBD_SANITIZER"):
        total //= 3             # of the same code, several times as slowly
    print("# ZNBD_SEED=%d" % seed)
    print("1..%d" % (2 * len(DISKS)), flush=True)
    number = 0
    with tempfile.TemporaryDirectory(prefix="znbd-walk-") as tmp:
        for disk in DISKS:
            # Images wait for the medium: three in four operations are
            # done in memory.
            for store, image, share in (
                    ("memory", None, 3),
                    ("image", os.path.join(tmp, "image"), 1)):
                number += 1
                name = "%s, %s" % (disk, store)
                each = -(-total * share // (4 * len(DISKS)))
                began = time.monotonic()
                try:
                    for done in range(0, each, WALK):
                        Walk(disk, image, "%d %s %d" % (seed, name, done)
                             ).walk(min(WALK, each - done))
                    print("ok %d - %s: %d operations"
                          % (number, name, each))
                except (Difference, Died) as e:
                    print("not ok %d - %s" % (number, name))
                    print("\n".join("# " + line
                                    for line in str(e).splitlines()))
                print("# %.1f s" % (time.monotonic() - began), flush=True)


# The results say what failed: a failing status would count again.
main()
