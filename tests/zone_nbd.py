# SPDX-License-Identifier: BSD-3-Clause
"""What random walks over NBD share, whatever server they go through: each
answer is compared with the independent model's.  Zones are managed and
reported through the zone table export, whose records are decoded here.
Requests go out one at a time, but over several connections in turn.

A walk's script says in a subclass of Served how its server is started and
what else it can be asked, and calls main.  ZNBD_SEED=N walks another way,
ZNBD_LONG=1 thirty times as far.  Needs zones-driver, which makes the
images.
"""

import functools
import os
import struct
import subprocess

import nbd

from harness import TAP, connect, long
from zone_driver import DRIVER
from zone_model import CONVENTIONAL, OFFLINE, READ_ONLY, Geometry, Model, same
from zone_walk import DISKS, Chooser, shorten, show

SEED = int(os.environ.get("ZNBD_SEED", "20261123"))
# On each disk.  Sanitizers look at the same code, several times as slowly.
OPS = 40000 if long else 400 if os.environ.get("ZNBD_SANITIZER") else 1200

HEADER, RECORD = 4096, 64
FUA, MAY_TRIM = 1, 2            # as in zones-driver's commands


@functools.lru_cache(maxsize=4096)
def granule(number, size):
    """What a granule with a number looks like."""
    if number == 0:
        return bytes(size)
    return struct.pack("<%dQ" % (size // 8),
                       *[number << 16 | i for i in range(size // 8)])


class NBDModel(Model):
    """A model that is asked about allocation, too."""

    def _extents(self, first):
        zone = self.zones[first]
        data = min(zone.wp, zone.capacity)
        return "0 " + " ".join(
            "%d:%d" % extent for extent in
            ((0, data), (3, zone.length - data)) if extent[1])

    COMMANDS = dict(Model.COMMANDS, extents=_extents)


class Walker(Chooser):
    """Chooses questions about allocation, too."""

    def next(self):
        if self.random.random() < .03:
            zone = self.zone()
            if zone.type != CONVENTIONAL and \
               zone.cond not in (READ_ONLY, OFFLINE):
                return ("extents", zone.number)
        return super().next()


class Served:
    """A disk of a geometry, served; does the walk's operations.  A subclass
    has serve (), which starts the server of an image, or of a disk in
    memory where that is None."""

    model = NBDModel            # of its answers
    walker = Walker             # chooses what it is asked
    weights = {}                # for the walker

    def __init__(self, geometry, image=None, keep=False):
        self.g = geometry
        if image and not keep:
            subprocess.run([DRIVER] + geometry.driver_args()
                           + ["--image", image], check=True,
                           stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL)
        self.server = self.serve(image)
        self.server.start()
        self.disks = [connect(self.server.uri, strict=False)
                      for _ in range(3)]
        self.tables = [connect(self.server.zones_uri, strict=False)
                       for _ in range(2)]

    def parameters(self, separator):
        """The geometry as servers have it for a disk in memory: but the
        size, key=value; the separator is that of lists of zones."""
        g = self.g
        params = ["zone-size=%d" % g.zone_size,
                  "zone-capacity=%d" % g.capacity,
                  "conventional=%d" % g.conventional,
                  "max-open=%d" % g.max_open,
                  "max-active=%d" % g.max_active,
                  "model=" + g.model,
                  "block-size=%d" % g.granularity]
        for name, zones in (("read-only-zones", g.readonly),
                            ("offline-zones", g.offline)):
            if zones:
                params.append("%s=%s" % (name, separator.join(
                    map(str, sorted(zones)))))
        return params

    def close(self):
        for h in self.disks + self.tables:
            try:
                h.shutdown()
            except nbd.Error:
                pass            # it is gone; the server's end tells
        self.server.stop()

    def apply(self, op):
        """Does an operation; answers as zones-driver would."""
        self.disks.append(self.disks.pop(0))
        self.tables.append(self.tables.pop(0))
        try:
            answer = self.call(*op)
        except nbd.Error as e:
            return e.errno or str(e)
        return "0" if answer is None else "0 " + answer

    def call(self, name, *args):
        return getattr(self, name.replace("-", "_"))(*args)

    def run(self, ops):
        return [self.apply(op) for op in ops]

    @staticmethod
    def _flags(flags):
        return nbd.CMD_FLAG_FUA if flags & FUA else 0

    def read(self, offset, length):
        size = self.g.granularity
        data = bytes(self.disks[0].pread(length, offset))
        words = []
        for at in range(0, length, size):
            block = data[at:at + size]
            number = struct.unpack_from("<Q", block)[0] >> 16
            good = block == granule(number, size)
            words.append(str(number) if good else "mixed-up")
        return " ".join(words)

    def content(self, length, number):
        """Of a write."""
        size = self.g.granularity
        data = b"".join([granule(number + i, size)
                         for i in range(-(-length // size))])
        return data[:length]

    def write(self, offset, length, number, flags=0):
        self.disks[0].pwrite(self.content(length, number), offset,
                             self._flags(flags))

    def zero(self, offset, length, flags=0):
        self.disks[0].zero(length, offset, self._flags(flags)
                           | (0 if flags & MAY_TRIM
                              else nbd.CMD_FLAG_NO_HOLE))

    def trim(self, offset, length, flags=0):
        self.disks[0].trim(length, offset, self._flags(flags))

    def cache(self, offset, length):
        self.disks[0].cache(length, offset)

    def flush(self):
        self.disks[0].flush()

    def extents(self, first):
        """base:allocation of a zone: flags, and where they change."""
        start = first * self.g.zone_size
        end = min(start + self.g.zone_size, self.g.size)
        extents = []
        while start < end:
            got = []

            def callback(context, offset, entries, error):
                got.extend(entries)

            self.disks[0].block_status(end - start, start, callback)
            for length, flags in zip(got[::2], got[1::2]):
                length = min(length, end - start)
                if extents and extents[-1][0] == flags:
                    extents[-1][1] += length
                else:
                    extents.append([flags, length])
                start += length
        return " ".join("%d:%d" % (flags, length)
                        for flags, length in extents)

    def _records(self, first, count):
        raw = bytes(self.tables[0].pread(count * RECORD,
                                         HEADER + first * RECORD))
        return struct.iter_unpack("<QQQBBBB4xQ24x", raw)

    def table_read(self, first, count):
        return " ".join(["%d:%d:%d" % (cond, wp * 512, non_seq)
                         for start, length, wp, kind, cond, non_seq, reset,
                         capacity in self._records(first, count)])

    def table_shape(self, first, count):
        return " ".join(["%d:%d:%d:%d:%d" % (kind, start * 512, length * 512,
                                             capacity * 512, reset)
                         for start, length, wp, kind, cond, non_seq, reset,
                         capacity in self._records(first, count)])

    def table_header(self):
        raw = bytes(self.tables[0].pread(HEADER, 0))
        words = struct.unpack_from("<8s4I2Q6I", raw)
        return words[0].decode() + " " + " ".join(map(str, words[1:]))

    def table_write(self, first, *requests):
        # All but the request bytes is to be ignored.
        raw = bytearray(b"\x5a" * (RECORD * len(requests)))
        raw[28::RECORD] = bytes(requests)
        self.tables[0].pwrite(raw, HEADER + first * RECORD)

    def table_all(self, request):
        raw = bytearray(b"\x5a" * RECORD)
        raw[60] = request
        self.tables[0].pwrite(raw, 0)

    def everything(self):
        """Operations: the reports and the data of up to some hundred
        zones."""
        g = self.g
        ops = [("table-header",)]
        step = 64 * g.granularity
        for zone in range(min(g.zones, 300)):
            start = zone * g.zone_size
            end = min(start + g.zone_size, g.size)
            ops += [("table-read", zone, 1), ("table-shape", zone, 1)]
            ops += [("read", offset, min(step, end - offset))
                    for offset in range(start, end, step)]
        return ops


def walk(kind, name, g, image):
    """Returns what went wrong, or None."""
    ops = []

    def fresh(ops):
        served = kind(g, image)
        try:
            return served.run(ops)
        finally:
            served.close()

    def one(op):
        ops.append(op)
        want = model.apply(op)
        got = served.apply(op)
        if same(want, got):
            return None
        return "operation %d: %s -> %s, expected %s" % (
            len(ops), " ".join(map(str, op)), got, want)

    model = kind.model(g)
    served = kind(g, image)
    # The table's header tells the largest append.
    g.max_append = int(served.table_header().split()[9])
    chooser = kind.walker(model, "%d %s" % (SEED, name), kind.weights,
                          refused=0)
    try:
        for _ in range(OPS):
            wrong = one(chooser.next())
            if wrong:
                break
        else:
            for op in served.everything():
                wrong = wrong or one(op)
        if wrong is None and image:
            # The same after the server was ended and started again.
            served.close()
            served = kind(g, image, keep=True)
            model.apply(("reopen",))
            for op in served.everything():
                wrong = wrong or one(op)
            if wrong:
                return "after a restart, " + wrong
    finally:
        served.close()
    if wrong:
        short = shorten(ops, g, fresh, model=kind.model, seconds=60)
        if short:
            wrong += "\nshortened to:\n" + "\n".join(
                show(short, g, fresh(short), model=kind.model))
        else:
            wrong += "\nbut not when it is done again"
    return wrong


def main(kind):
    """The whole test, with a subclass of Served."""
    tap = TAP()
    tap.diag("ZNBD_SEED=%d" % SEED)
    # Every other image is in memory, where there is a place for it.
    folders = [tap.tmp, tap.memory() or tap.tmp]
    for disk, args in DISKS.items():
        folders.reverse()
        for image in (None, os.path.join(folders[0], "image")):
            name = "%s, %s" % (disk, "image" if image else "memory")
            wrong = walk(kind, name, Geometry(**args), image)
            tap.ok(wrong is None, "%s: %d operations" % (name, OPS),
                   wrong or "")
    tap.done_testing()
