# SPDX-License-Identifier: BSD-3-Clause
"""What the plugin's tests share: a served disk with its connections, and
the zone table export as a stock client sees it, written from the
protocol's description, not from the plugin.
"""

import struct
from collections import namedtuple

import nbd

from harness import Nbdkit, connect

OPEN, CLOSE, FINISH, RESET = 1, 2, 3, 4

NOT_WP, EMPTY, IMPLICIT, EXPLICIT, CLOSED = 0, 1, 2, 3, 4
READ_ONLY, FULL, OFFLINE = 13, 14, 15

HEADER = 4096
RECORD = 64

Header = namedtuple("Header", "magic version header_bytes model zones "
                    "zone_size size max_open max_active max_append "
                    "granularity conventional request uuid epoch")
Zone = namedtuple("Zone", "start length wp type cond non_seq reset capacity")


def decode_header(raw):
    fields = struct.unpack_from("<8sIIIIQQIIIIIB3x16sQ", raw)
    return Header(*fields)


def decode_record(raw):
    """One zone, in bytes."""
    start, length, wp, kind, cond, non_seq, reset, _, capacity = \
        struct.unpack_from("<QQQBBBB4sQ", raw)
    return Zone(start * 512, length * 512, wp * 512, kind, cond, non_seq,
                reset, capacity * 512)


class Served(Nbdkit):
    """An nbdkit that knows its connections: it waits for them when it is
    told to end, so they have to go first."""

    def __init__(self, *params, **more):
        super().__init__(*params, **more)
        self.handles = []

    def connect(self, strict=True):
        self.handles.append(connect(self.uri, strict))
        return self.handles[-1]

    def table(self, strict=True):
        self.handles.append(connect(self.zones_uri, strict))
        return Table(self.handles[-1])

    def forget(self, h):
        """For a connection that is to go without a word: with its last
        reference."""
        self.handles = [other for other in self.handles if other is not h]

    def stop(self):
        for h in self.handles:
            try:
                h.shutdown(nbd.SHUTDOWN_ABANDON_PENDING)
            except nbd.Error:
                pass            # it is gone already
        self.handles = []
        super().stop()


class Table:
    """A connection to the zone table."""

    def __init__(self, h):
        self.h = h

    def raw(self):
        """The whole export."""
        size = self.h.get_size()
        step = 1 << 20
        return b"".join(bytes(self.h.pread(min(step, size - at), at))
                        for at in range(0, size, step))

    def header(self):
        return decode_header(self.h.pread(HEADER, 0))

    def report(self):
        raw = self.raw()
        return [decode_record(raw[at:at + RECORD])
                for at in range(HEADER, len(raw), RECORD)]

    def zone(self, number):
        return decode_record(self.h.pread(RECORD, HEADER + RECORD * number))

    def cond(self, number):
        return self.zone(number).cond

    def conds(self, *numbers):
        return [self.cond(number) for number in numbers]

    def written(self, number):
        """The pointer's place inside the zone."""
        zone = self.zone(number)
        return zone.wp - zone.start

    def request(self, code, zone=None, flags=0):
        """Asks for zone management: of one zone, or of all."""
        if zone is None:
            record = bytearray(RECORD)
            record[60] = code
            self.h.pwrite(record, 0, flags)
        else:
            record = bytearray(RECORD)
            record[28] = code
            self.h.pwrite(record, HEADER + RECORD * zone, flags)
