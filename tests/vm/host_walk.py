# SPDX-License-Identifier: BSD-3-Clause
"""The random walk on a real zoned device, behind znbd-server or behind
nbdkit with the plugin.

    host_walk.py DEVICE SERVER...       (znbd-server, nbdkit)

The model knows what an operation does, but not what the device's limits
refuse, nor which zones it closes to make room.  So the device is the judge:
after each operation its own report is compared with the model's, which may
differ by what is the device's to decide, and is taken over; every few
operations blkzone or zbd on this side, and znbd report, the zone table and
x-zbd:zones on the other, have to agree; data is read from the device past
the server.  Prints nothing and ends with 0 where all is well.
"""

import json
import os
import struct
import sys

import zone_nbd
import zone_nbdkit
import zone_server
from harness import TAP, long, run
from host_device import HAS_POINTER, Device
from zone_model import (CLOSED, CONVENTIONAL, EMPTY, FULL, IMPLICIT, OPS,
                        Geometry, same)

SEED = int(os.environ.get("ZNBD_SEED", "20261123"))
OPERATIONS = 4000 if long else 60
EVERY = 16                      # operations between looks by tools
MANY = 1 << 20                  # bytes: longer requests are rare

MANAGE = tuple(OPS.values())

# As znbd report says them.
CONDS = {0: "not-wp", 1: "empty", 2: "implicit-open", 3: "explicit-open",
         4: "closed", 13: "read-only", 14: "full", 15: "offline"}
TYPES = {1: "conventional", 2: "seq-write-required",
         3: "seq-write-preferred"}


class Wrong(Exception):
    pass


def describe(zone):
    return "%d:%s" % (zone.cond, zone.wp if zone.cond in HAS_POINTER
                      else "-")


class Mirrored:
    """Of a model: limits are the device's."""

    def _take_resources(self, zone):
        return None

    def adopt(self, zones):
        """Takes the device's report over."""
        for mine, its in zip(self.zones, zones):
            mine.start, mine.length = its.start, its.length
            mine.capacity, mine.type = its.capacity, its.type
            mine.cond = its.cond
            wp = its.capacity if its.wp is None else its.wp
            if wp < mine.wp and its.type != CONVENTIONAL:
                # Predicted, and not written.
                g = self.g.granularity
                first = (mine.start + wp) // g
                last = (mine.start + mine.wp) // g
                self.data[first:last] = [0] * (last - first)
            mine.wp = 0 if its.type == CONVENTIONAL else wp


class Short:
    """Of a walker: few long requests, for their content takes time."""

    def blocks(self):
        return min(super().blocks(), 64 * self.g.granularity)

    def numbered(self, name, offset, length):
        if length > MANY and self.random.random() < .9:
            length = self.blocks()
        return super().numbered(name, offset, length)


class Quick:
    """Of what is served: content that is made and looked at by the
    million."""

    def serve(self, image):
        server = super().serve(image)
        self.log = server.log
        return server

    @staticmethod
    def block(number, size):
        return struct.pack("<Q", number) + (b"%08x" % number) * (size // 8
                                                                 - 1)

    def content(self, length, number):
        size = self.g.granularity
        return b"".join([self.block(number + i, size)
                         for i in range(-(-length // size))])[:length]

    def read(self, offset, length):
        size = self.g.granularity
        data = bytes(self.disks[0].pread(length, offset))
        zeros = bytes(size)
        words = []
        for at in range(0, length, size):
            block = data[at:at + size]
            if block == zeros:
                words.append("0")
                continue
            number, = struct.unpack_from("<Q", block)
            good = block == self.block(number, size)
            words.append(str(number) if good else "mixed-up")
        return " ".join(words)


    def everything(self, model):
        """Operations that read all that was written, and a little more."""
        ops = [("table-header",)]
        for zone in model.zones:
            wp = zone.length if zone.type == CONVENTIONAL else zone.wp
            end = min(zone.length, wp + 64 * self.g.granularity)
            ops += [("read", zone.start + at, min(MANY, end - at))
                    for at in range(0, end, MANY)]
        return ops


class ServerModel(Mirrored, zone_server.Model):
    pass


class ServerWalker(Short, zone_server.Walker):
    pass


class ServerServed(Quick, zone_server.Served):
    model = ServerModel
    walker = ServerWalker


class NbdkitModel(Mirrored, zone_nbdkit.Model):
    pass


class NbdkitWalker(Short, zone_nbd.Walker):
    pass


class NbdkitServed(Quick, zone_nbdkit.Served):
    model = NbdkitModel
    walker = NbdkitWalker


class Walk:
    def __init__(self, kind, device):
        self.device = device
        zones = device.report()
        self.g = Geometry(
            zone_size=device.zone_size, size=device.size,
            conventional=sum(z.type == CONVENTIONAL for z in zones),
            max_open=device.max_open, max_active=device.max_active,
            granularity=device.block)
        self.model = kind.model(self.g)
        self.model.adopt(zones)
        self.served = kind(self.g, device.path, keep=True)
        self.g.max_append = int(self.served.table_header().split()[9])
        self.chooser = kind.walker(
            self.model, "%d %s %s" % (SEED, kind.__name__, device.path),
            kind.weights, refused=0)
        self.chooser.number = 1000000 * SEED % 2 ** 31
        self.limits = bool(device.max_open or device.max_active)
        self.limited = 0        # operations that a limit refused
        self.evicted = 0        # zones that the device closed
        self.done = []

    def is_limited(self, op, want, got):
        """Whether a limit may be why the answer is another one than the
        model's, or why less was done than it says."""
        if not self.limits:
            return False
        name, several = op[0], False
        if name == "table-write":
            several = len(op) - 2 > 1
        elif name in MANAGE or name in ("write", "zero"):
            several = op[2] > self.g.zone_size - op[1] % self.g.zone_size
        elif name.endswith("-all"):
            several = True
        if name in MANAGE and got.startswith("0 ") and want != got:
            # Some of them.
            return want.startswith("0 ") and \
                int(got.split()[1]) < int(want.split()[1])
        limit = "EINVAL" if isinstance(self.served, NbdkitServed) \
            else "EOVERFLOW"
        return limit in got.split() and (several or want.startswith("0"))

    def one(self, op):
        before = [(z.cond, z.wp) for z in self.model.zones]
        data = None
        if self.limits and (op[0].endswith("-all") or
                            op[0] in ("table-write",) + MANAGE):
            data = self.model.data[:]
        self.done.append(op)
        want = self.model.apply(op)
        got = self.served.apply(op)
        limited = self.is_limited(op, want, got)
        self.limited += limited
        if not limited and not same(want, got):
            raise Wrong("%s -> %s, expected %s" % (
                " ".join(map(str, op)), got, want))
        if limited:
            if op[0] == "append" and op[-1] == zone_server.LATER:
                self.model.tags[op[-2]][op[1]] = "EOVERFLOW"
        report = self.device.report()
        for mine, its, was in zip(self.model.zones, report, before):
            if its.cond in HAS_POINTER:
                good = its.wp == mine.wp or (limited and its.wp == was[1])
            else:
                good = True
            if mine.cond != its.cond and not limited:
                evicted = mine.cond == IMPLICIT and its.cond == CLOSED
                self.evicted += evicted
                # ZNS says of a zone that was opened and closed that it is
                # closed, other devices that it is empty.
                good = good and (evicted or (
                    mine.cond == EMPTY and its.cond == CLOSED))
            if limited and data and \
               (its.cond, its.wp) in (was, (was[0], None)):
                # Perhaps it was to be reset, and was not.
                g = self.g.granularity
                part = slice(mine.start // g, (mine.start + was[1]) // g)
                self.model.data[part] = data[part]
                mine.wp = was[1]
            if not good:
                raise Wrong("%s -> %s: zone %d is %s, expected %s" % (
                    " ".join(map(str, op)), got, mine.number, describe(its),
                    describe(mine)))
        self.model.adopt(report)

    def compare(self, what, got, wanted):
        if got != wanted:
            raise Wrong("%s: got %s, expected %s" % (what, got, wanted))

    def look(self, turn):
        """Tools on both sides."""
        device = self.device
        report = device.zbd() if turn % 3 == 2 else device.blkzone()
        for number, (a, b) in enumerate(zip(device.report(), report)):
            self.compare("zone %d by the device and by a tool" % number,
                         b, a)
        self.model.adopt(report)
        n = len(report)
        ops = [("table-read", 0, n), ("table-shape", 0, n)]
        if "zones" in self.model.COMMANDS:
            ops.append(("zones", 0, self.g.size))
        for op in ops:
            self.compare(op[0], self.served.apply(op), self.model.apply(op))
        if turn % 2:
            self.client_report(report)

    def client_report(self, report):
        """znbd report, which has it from x-zbd:zones where that is."""
        status, out, err = run("znbd", "report", "--json",
                               self.served.server.uri)
        if status:
            raise Wrong("znbd report: " + err)
        told = json.loads(out)
        device, geometry = self.device, told["geometry"]
        for name, want in (
                ("model", "host-managed"), ("size", device.size),
                ("zone_count", device.count),
                ("zone_size", device.zone_size),
                ("conventional", self.g.conventional),
                ("max_open", device.max_open),
                ("max_active", device.max_active),
                ("block_size", device.block)):
            self.compare("znbd report, " + name, geometry[name], want)
        self.compare("znbd report, zones", len(told["zones"]), len(report))
        for z, its in zip(told["zones"], report):
            wp = None if its.wp is None else its.start + its.wp
            self.compare("znbd report, zone at %d" % its.start,
                         (z["start"], z["length"], z["capacity"], z["type"],
                          z["cond"], None if wp is None else z["wp"]),
                         (its.start, its.length, its.capacity,
                          TYPES[its.type], CONDS[its.cond], wp))

    def data(self, zone):
        """What the device holds of a zone."""
        g = self.g.granularity
        step = 1 << 20
        wp = zone.length if zone.type == CONVENTIONAL else zone.wp
        if zone.cond not in HAS_POINTER + (0, FULL):
            return
        zeros = bytes(g)
        for at in range(zone.start, zone.start + wp, step):
            n = min(step, zone.start + wp - at)
            numbers = self.model.data[at // g:(at + n) // g]
            if not any(numbers):
                wanted = bytes(n)
            else:
                wanted = b"".join([self.served.block(abs(i), g) if i
                                   else zeros for i in numbers])
            got = self.device.read(at, n)
            if got == wanted:
                continue
            for i in range(0, n, g):
                block = got[i:i + g]
                if block != wanted[i:i + g] and not (
                        numbers[i // g] < 0 and block == zeros):
                    raise Wrong("the device's block at %d is %r..., "
                                "expected %d" % (at + i, block[:24],
                                                 numbers[i // g]))

    def run(self):
        try:
            # Whatever was there before is told, and goes.
            self.look(1)
            self.one(("reset-all",) if "reset-all" not in
                     self.served.weights else ("table-all", 4))
            for zone in self.model.zones[:self.g.conventional]:
                self.one(("zero", zone.start, zone.length))
            self.look(0)
            for n in range(OPERATIONS):
                self.one(self.chooser.next())
                if n % EVERY == 0:
                    self.look(n // EVERY)
                    self.served.flush()
                    self.data(self.chooser.zone())
            for op in [("flush",)] + self.served.everything(self.model):
                self.one(op)
            self.look(1)
            for zone in self.model.zones:
                self.data(zone)
        except Wrong as e:
            print("operation %d: %s\nZNBD_SEED=%d; before it:" % (
                len(self.done), e, SEED))
            for op in self.done[-12:]:
                print(" ".join(map(str, op)))
            print(self.served.log()[-3000:])
            return False
        finally:
            self.served.close()
        return True


def main():
    TAP().finished = True
    device = Device(sys.argv[1])
    for name in sys.argv[2:]:
        kind = NbdkitServed if name == "nbdkit" else ServerServed
        w = Walk(kind, device)
        if not w.run():
            return
        print("all agree behind %s: %d operations, %d refused by limits, %d "
              "zones closed by the device" % (name, len(w.done), w.limited,
                                              w.evicted), flush=True)


main()
