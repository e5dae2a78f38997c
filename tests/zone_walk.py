# SPDX-License-Identifier: BSD-3-Clause
"""Random walks over a zoned disk: what the walks of zonelib and of the
plugin share.  Here are the disks that are walked, the choice of the next
operation (by the model's state, so that most land on or next to an edge)
and the shortening of a walk that found a difference to the few operations
that are needed to show it.
"""

import random
import time
from itertools import accumulate

from zone_model import (CONVENTIONAL, FULL, OFFLINE, READ_ONLY, Model,
                        same)

K = 1024

# Operations that a client that may only read has like any other.
HARMLESS = ("read", "cache", "flush", "report", "shape", "reopen",
            "table-read", "table-shape", "table-header")

# name: the arguments of a Geometry.
DISKS = {
    "host-managed with limits": dict(
        zone_size=64 * K, zones=12, conventional=2, max_open=3,
        max_active=5),
    "host-managed, capacity below size, smaller last zone": dict(
        zone_size=64 * K, size=9 * 64 * K + 20 * K, capacity=48 * K,
        conventional=1, max_open=2, max_active=4),
    "host-managed, no limits, no conventional zones": dict(
        zone_size=32 * K, zones=10),
    "host-managed, 512-byte blocks, no powers of two": dict(
        zone_size=11 * 512, size=13 * 11 * 512 + 3 * 512, capacity=7 * 512,
        conventional=3, max_open=2, max_active=3, granularity=512),
    "host-managed, one zone open and active": dict(
        zone_size=16 * K, zones=5, max_open=1, max_active=1),
    "host-managed, active limit alone": dict(
        zone_size=24 * K, zones=9, conventional=1, max_active=3,
        capacity=20 * K),
    "host-managed, open limit alone": dict(
        zone_size=32 * K, zones=8, max_open=2, granularity=512,
        capacity=17 * 512),
    "host-managed with read-only and offline zones": dict(
        zone_size=32 * K, size=14 * 32 * K + 8 * K, conventional=4,
        max_open=2, max_active=3, capacity=24 * K, readonly=(1, 5, 9),
        offline=(2, 6, 7, 14)),
    "host-managed, zones of one block": dict(
        zone_size=4 * K, zones=40, conventional=3, max_open=2),
    "host-managed, many zones": dict(
        zone_size=16 * K, zones=3000, conventional=10, capacity=12 * K,
        max_open=14, max_active=28),
    "host-managed, zones above the largest append": dict(
        zone_size=3072 * K, zones=5, conventional=1, capacity=2500 * K,
        max_open=2),
    "host-aware with limits": dict(
        zone_size=64 * K, zones=12, conventional=2, max_open=3,
        max_active=5, model="host-aware"),
    "host-aware, capacity below size, smaller last zone": dict(
        zone_size=11 * 512, size=9 * 11 * 512 + 2 * 512, capacity=8 * 512,
        granularity=512, max_open=2, max_active=2, model="host-aware"),
    "host-aware, no limits": dict(
        zone_size=32 * K, zones=8, conventional=1, model="host-aware"),
    "host-aware with read-only and offline zones": dict(
        zone_size=32 * K, zones=12, conventional=3, capacity=28 * K,
        max_open=2, max_active=4, readonly=(1, 5), offline=(2, 8),
        model="host-aware"),
    "conventional zones and one sequential": dict(
        zone_size=16 * K, size=4 * 16 * K + 12 * K, conventional=4),
}


class Chooser:
    """Chooses operations for the disk of a model, which the caller keeps
    up to date.  weights overrides how often operations come, 0 for never;
    refused is how many go through a client that may only read."""

    def __init__(self, model, seed, weights={}, refused=.01):
        self.model = model
        self.g = model.g
        self.random = random.Random(seed)
        self.number = 1         # the next data to write
        self.favourites = []
        choices = [
            (self.write, "write", 30), (self.write, "zero", 6),
            (self.append, "append", 8), (self.read, "read", 20),
            (self.read, "cache", 1), (self.trim, "trim", 4),
            (self.manage, "open", 5), (self.manage, "close", 4),
            (self.manage, "finish", 3), (self.manage, "reset", 7),
            (self.plain, "open-all", .5), (self.plain, "close-all", .5),
            (self.plain, "finish-all", .2), (self.plain, "reset-all", .1),
            (self.plain, "flush", .3),
            (self.report, "report", 12), (self.report, "shape", .2),
            (self.report, "table-read", 2), (self.report, "table-shape", .1),
            (self.plain, "table-header", .1),
            (self.table_write, "table-write", 4),
            (self.table_all, "table-all", .3),
            (self.plain, "reopen", .05),
        ]
        choices = [(f, name, weights.get(name, w)) for f, name, w in choices]
        choices = [choice for choice in choices if choice[2]]
        self.choices = [choice[:2] for choice in choices]
        self.weights = list(accumulate(choice[2] for choice in choices))
        self.refused = refused

    def next(self):
        r = self.random
        f, name = r.choices(self.choices, cum_weights=self.weights)[0]
        op = f(name)
        if r.random() < self.refused and name not in HARMLESS:
            op = ("-" + name,) + op[1:]
        return op

    def zone(self):
        """Some zones are used more than others, so that they fill; those
        that refuse writes are used less."""
        r = self.random
        if not self.favourites or r.random() < .02:
            self.favourites = [r.choice(self.model.zones) for _ in range(4)]
        zone = r.choice(self.favourites)
        if zone.cond in (FULL, READ_ONLY, OFFLINE) or r.random() < .4:
            zone = r.choice(self.model.zones)
        if zone.cond in (FULL, READ_ONLY, OFFLINE) and r.random() < .6:
            zone = r.choice(self.model.zones)
        return zone

    def blocks(self):
        """A length: short as a rule."""
        r = self.random
        x = r.random()
        g = self.g.granularity
        if x < .5:
            return g
        if x < .9:
            return r.randint(1, 4) * g
        return r.randint(1, max(1, self.g.zone_size // g)) * g

    def numbered(self, name, offset, length):
        r = self.random
        flags = 1 if r.random() < .05 else 0            # FUA
        if name == "zero":
            if r.random() < .5:
                flags |= 2                              # MAY_TRIM
            return (name, offset, length, flags)
        number = self.number
        self.number += length // self.g.granularity + 1
        return (name, offset, length, number, flags)

    def write(self, name):
        r = self.random
        g = self.g.granularity
        zone = self.zone()
        at = zone.start + zone.wp
        if zone.type == CONVENTIONAL:
            at = zone.start + r.randrange(zone.length // g) * g
        end = zone.start + zone.capacity
        length = self.blocks()
        x = r.random()
        if x < .5:                                      # at the pointer
            if at + length > end and r.random() < .8:
                length = end - at
        elif x < .6:                                    # up to capacity
            length = end - at
        elif x < .66:                                   # past capacity
            length += end - at
        elif x < .72:                                   # into other zones
            length += zone.start + zone.length - at
        elif x < .8:                                    # behind the pointer
            at = zone.start + r.randrange(zone.length // g) * g
            at = min(at, zone.start + max(0, zone.wp - g))
        elif x < .88:                                   # ahead of it
            at += r.randint(1, 3) * g
        elif x < .96:                                   # anywhere
            at = zone.start + r.randrange(zone.length // g) * g
        else:
            return self.numbered(name, *self.wrong(at, length))
        if length <= 0:
            length = g
        return self.numbered(name, at, length)

    def wrong(self, offset, length):
        """Ranges that are unaligned or past the end."""
        r = self.random
        x = r.random()
        if x < .3:
            return (offset + r.choice((1, 256, self.g.granularity // 2)),
                    length)
        if x < .6:
            return (offset, length + r.choice((1, 255)))
        if x < .8:
            return (self.g.size - self.g.granularity,
                    2 * self.g.granularity + r.choice((0, 0, 1)))
        return (self.g.size + r.randrange(3) * self.g.granularity, length)

    def append(self, name):
        r = self.random
        g = self.g.granularity
        zone = self.zone()
        length = self.blocks()
        left = zone.capacity - zone.wp
        x = r.random()
        if x < .5:
            if length > left > 0:
                length = left
        elif x < .7:
            length = left or g
        elif x < .8:
            length += left
        elif x < .85:
            length = self.g.max_append + r.choice((0, 1, 2)) * g or g
        elif x < .9:
            return self.numbered(name, *self.wrong(zone.start, length))
        if zone.start + length > self.g.size:
            return self.numbered(name, zone.start, g)
        # Any place in the zone names it.
        room = zone.length - length
        offset = zone.start
        if room > 0:
            offset += r.randrange(room // g + 1) * g
        elif length > 8 << 20:
            length = g
        if r.random() < .03:
            offset = zone.start + zone.length - g       # across its end
        return self.numbered(name, offset, length)

    def read(self, name):
        r = self.random
        g = self.g.granularity
        zone = self.zone()
        x = r.random()
        if x < .4:                                      # about the pointer
            offset = zone.start + max(0, zone.wp - r.randrange(3) * g)
            length = self.blocks()
        elif x < .7:
            offset = zone.start + r.randrange(zone.length // g) * g
            length = self.blocks()
        elif x < .85:                                   # a zone
            offset, length = zone.start, zone.length
            if length > 64 * g:
                length = 64 * g
        elif x < .97:                                   # and its neighbour
            length = self.blocks() + g
            offset = zone.start + zone.length - g
        else:
            offset, length = self.wrong(zone.start, self.blocks())
            return (name, offset, length)
        if offset + length > self.g.size and r.random() < .9:
            length = self.g.size - offset
            if length == 0:
                offset, length = offset - g, g
        return (name, offset, length)

    def trim(self, name):
        r = self.random
        g = self.g.granularity
        zone = self.zone()
        x = r.random()
        if x < .4:
            offset, length = zone.start, zone.length
        elif x < .6:                                    # several zones
            offset = zone.start
            length = r.randint(1, 3) * self.g.zone_size + self.blocks()
        elif x < .8:                                    # nearly
            offset = zone.start + g
            length = self.g.zone_size * r.randint(1, 2)
        elif x < .97:
            offset = zone.start + r.randrange(zone.length // g) * g
            length = self.blocks()
        else:
            return (name, *self.wrong(zone.start, self.blocks()))
        if offset + length > self.g.size and r.random() < .9:
            length = self.g.size - offset
            if length == 0:
                offset, length = zone.start, zone.length
        return (name, offset, length, 1 if r.random() < .05 else 0)

    def manage(self, name):
        r = self.random
        zone = self.zone()
        if name == "reset" and r.random() < .5:
            zone = r.choice(self.model.zones)
        x = r.random()
        if x < .85:
            return (name, zone.start, zone.length)
        if x < .95:
            last = min(len(self.model.zones) - 1,
                       zone.number + r.randrange(1, 4))
            last = self.model.zones[last]
            return (name, zone.start, last.start + last.length - zone.start)
        offset, length = zone.start, zone.length
        x = r.randrange(5)
        if x == 0:
            offset += self.g.granularity
        elif x == 1:
            length += self.g.granularity
        elif x == 2:
            length += self.g.zone_size * len(self.model.zones)
        elif x == 3:
            offset = self.g.zone_size * (len(self.model.zones) + 1)
        elif zone.length > self.g.granularity:
            length -= self.g.granularity
        return (name, offset, length)

    def plain(self, name):
        return (name,)

    def report(self, name):
        r = self.random
        n = len(self.model.zones)
        if n <= 16 and r.random() < .1:
            return (name, 0, n)
        first = self.zone().number
        return (name, first, min(r.randint(1, 3), n - first))

    def table_write(self, name):
        r = self.random
        first = self.zone().number
        count = min(r.choice((1, 1, 1, 2, 3, 5)),
                    len(self.model.zones) - first)
        return (name, first) + tuple(
            r.choices((0, 1, 2, 3, 4, 5, 255), (3, 6, 5, 3, 5, .2, .2),
                      k=count))

    def table_all(self, name):
        return (name, self.random.choices(
            (0, 1, 2, 3, 4, 7), (.2, 5, 5, 2, 1, .2))[0])


def shorten(ops, geometry, run, model=Model, seconds=120):
    """A short part of ops (that end in a difference) that still shows one,
    or None where they show none when done again.  run (ops) gives the
    answers of a fresh disk, fewer if it died."""
    deadline = time.monotonic() + seconds

    def differs(ops):
        """How many operations until answers differ, or None."""
        expected = model(geometry)
        answers = run(ops)
        for i, op in enumerate(ops):
            if i >= len(answers) or \
               not same(expected.apply(op), answers[i]):
                return i + 1
        return None

    n = differs(ops)
    if n is None:
        return None
    ops = ops[:n]
    size = len(ops) // 2
    while size:
        at = 0
        while at < len(ops) and time.monotonic() < deadline:
            part = ops[:at] + ops[at + size:]
            n = differs(part)
            if n:
                ops = part[:n]
            else:
                at += size
        size //= 2
    return ops


def show(ops, geometry, answers, model=Model):
    """Lines that show the last of ops going wrong."""
    model = model(geometry)
    lines = ["disk: " + " ".join(geometry.driver_args())]
    for i, op in enumerate(ops):
        expected = model.apply(op)
        got = answers[i] if i < len(answers) else "(no answer: it died)"
        lines.append("%s -> %s" % (" ".join(map(str, op)), got))
        if not same(expected, got):
            lines.append("expected: %s" % expected)
            break
    return lines
