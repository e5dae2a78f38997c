# SPDX-License-Identifier: BSD-3-Clause
"""An independent model of a zoned disk, for tests to compare with.

Written from the description of the zone model and of the zone table
export, never from zonelib's sources: where the two disagree, one of them
is wrong.  Slow and plain on purpose.  It does one operation at a time and
gives the answer as zones-driver prints it, so that answers are compared
as strings.

Data: each granule (the logical block) holds a number.  0 is a block of
zeros; a write of n granules with the number I stores I, I+1, ... I+n-1.
A negative number -I is a block that was discarded in a conventional zone:
it reads as I or as zeros.
"""

CONVENTIONAL, SEQ_REQUIRED, SEQ_PREFERRED = 1, 2, 3
NOT_WP, EMPTY, IMPLICIT, EXPLICIT, CLOSED = 0, 1, 2, 3, 4
READ_ONLY, FULL, OFFLINE = 13, 14, 15

OPS = {1: "open", 2: "close", 3: "finish", 4: "reset"}

TABLE_HEADER = 4096
TABLE_RECORD = 64


class Geometry:
    """A disk to make.  Sizes in bytes; readonly and offline are sets of
    zone numbers; max_append is what the disk says that it takes."""

    def __init__(self, zone_size, zones=None, size=None, capacity=0,
                 conventional=0, max_open=0, max_active=0, granularity=4096,
                 model="host-managed", readonly=(), offline=(),
                 max_append=0):
        self.zone_size = zone_size
        self.size = size if size is not None else zones * zone_size
        self.capacity = capacity or zone_size
        self.conventional = conventional
        self.max_open = max_open
        self.max_active = max_active
        self.granularity = granularity
        self.model = model
        self.readonly = frozenset(readonly)
        self.offline = frozenset(offline)
        self.max_append = max_append
        self.zones = -(-self.size // zone_size)

    def driver_args(self):
        """The arguments that make zones-driver build the same disk."""
        args = ["--size", self.size, "--zone-size", self.zone_size,
                "--granularity", self.granularity, "--model", self.model]
        for name, value in (("--zone-capacity", self.capacity
                             if self.capacity != self.zone_size else 0),
                            ("--conventional", self.conventional),
                            ("--max-open", self.max_open),
                            ("--max-active", self.max_active)):
            if value:
                args += [name, value]
        for name, zones in (("--readonly-zones", self.readonly),
                            ("--offline-zones", self.offline)):
            if zones:
                args += [name, ",".join(map(str, sorted(zones)))]
        return [str(a) for a in args]


class Zone:
    __slots__ = ("number", "start", "length", "capacity", "type", "cond",
                 "wp", "non_seq", "written")

    def __init__(self, number, g):
        self.number = number
        self.start = number * g.zone_size
        self.length = min(g.zone_size, g.size - self.start)
        if number < g.conventional:
            self.type = CONVENTIONAL
            self.capacity = self.length
            self.cond = NOT_WP
        else:
            self.type = (SEQ_REQUIRED if g.model == "host-managed"
                         else SEQ_PREFERRED)
            self.capacity = min(g.capacity, self.length)
            self.cond = EMPTY
        if number in g.readonly:
            self.cond = READ_ONLY
        elif number in g.offline:
            self.cond = OFFLINE
        self.wp = 0             # relative; meant in the conditions below
        self.non_seq = 0
        self.written = 0        # when it was last written

    def pointer(self):
        """The pointer as a report gives it."""
        if self.cond in (EMPTY, IMPLICIT, EXPLICIT, CLOSED):
            return self.start + self.wp
        return self.start + self.length


class Model:
    """apply (op) does one operation and returns the expected answer.  An op
    is a tuple, in the order of the words of a zones-driver command."""

    def __init__(self, geometry):
        self.g = geometry
        self.zones = [Zone(i, geometry) for i in range(geometry.zones)]
        self.data = [0] * (geometry.size // geometry.granularity)
        self.open = 0           # zones implicitly or explicitly open
        self.active = 0         # those, and the closed ones
        self.implicit = set()   # numbers of the implicitly open
        self.clock = 0          # counts writes, for the eviction
        self.readonly = False   # of the client that is asking

    def apply(self, op):
        name = op[0]
        self.readonly = name[0] == "-"
        if self.readonly:
            name = name[1:]
        return self.COMMANDS[name](self, *op[1:])

    # Conditions and resources.

    def _set(self, zone, cond):
        old = zone.cond
        self.open += ((cond in (IMPLICIT, EXPLICIT))
                      - (old in (IMPLICIT, EXPLICIT)))
        self.active += ((cond in (IMPLICIT, EXPLICIT, CLOSED))
                        - (old in (IMPLICIT, EXPLICIT, CLOSED)))
        zone.cond = cond
        self.implicit.discard(zone.number)
        if cond == IMPLICIT:
            self.implicit.add(zone.number)

    def _take_resources(self, zone):
        """Before a zone is opened.  Returns an error or None."""
        if zone.cond == EMPTY:
            if self.g.max_active and self.active >= self.g.max_active:
                return "EOVERFLOW"
        if zone.cond in (EMPTY, CLOSED):
            if self.g.max_open and self.open >= self.g.max_open:
                if not self.implicit:
                    return "EOVERFLOW"
                self._shut(min([self.zones[i] for i in self.implicit],
                               key=lambda zone: zone.written))
        return None

    def _shut(self, zone):
        self._set(zone, CLOSED if zone.wp else EMPTY)

    # One zone's management.

    def _manage(self, op, zone):
        if zone.cond == OFFLINE:
            return "EIO"
        if zone.cond == READ_ONLY:
            return "EPERM"
        if zone.type == CONVENTIONAL:
            return "EINVAL"
        return getattr(self, "_" + op)(zone)

    def _open(self, zone):
        if zone.cond == FULL:
            return "EINVAL"
        if zone.cond != EXPLICIT:
            error = self._take_resources(zone)
            if error:
                return error
            self._set(zone, EXPLICIT)
        return None

    def _close(self, zone):
        if zone.cond in (EMPTY, FULL):
            return "EINVAL"
        if zone.cond in (IMPLICIT, EXPLICIT):
            self._shut(zone)
        return None

    def _finish(self, zone):
        self._set(zone, FULL)
        zone.wp = zone.capacity
        return None

    def _reset(self, zone):
        self._set(zone, EMPTY)
        zone.wp = 0
        zone.non_seq = 0
        g = self.g.granularity
        self.data[zone.start // g:(zone.start + zone.length) // g] = \
            [0] * (zone.length // g)
        return None

    ALL_OF = {
        "open": (CLOSED,),
        "close": (IMPLICIT, EXPLICIT),
        "finish": (IMPLICIT, EXPLICIT, CLOSED),
        "reset": (EMPTY, IMPLICIT, EXPLICIT, CLOSED, FULL),
    }

    def _manage_all(self, op):
        for zone in self.zones:
            if zone.type != CONVENTIONAL and zone.cond in self.ALL_OF[op]:
                error = self._manage(op, zone)
                if error:
                    return error
        return None

    def _manage_range(self, op, offset, length):
        if self.readonly:
            return "EPERM 0"
        end = offset + length
        if (length == 0 or end > self.g.size or offset % self.g.zone_size
                or (end % self.g.zone_size and end != self.g.size)):
            return "EINVAL 0"
        done = 0
        while done < length:
            zone = self.zones[(offset + done) // self.g.zone_size]
            error = self._manage(op, zone)
            if error:
                return "%s %d" % (error, done)
            done += zone.length
        return "0 %d" % done

    def _manage_command(op):
        return lambda self, offset, length: \
            self._manage_range(op, offset, length)

    def _manage_all_command(op):
        def run(self):
            if self.readonly:
                return "EPERM"
            return self._manage_all(op) or "0"
        return run

    # Writes.

    def _check_write(self, offset, length):
        if self.readonly:
            return "EPERM"
        if offset + length > self.g.size:
            return "ENOSPC"
        if offset % self.g.granularity or length % self.g.granularity:
            return "EINVAL"
        return None

    def _store(self, offset, length, number):
        g = self.g.granularity
        first, count = offset // g, length // g
        self.data[first:first + count] = \
            range(number, number + count) if number else [0] * count

    def _advance(self, zone, end):
        """After data went to an admitted zone, up to end (relative)."""
        zone.written = self.clock = self.clock + 1
        zone.wp = max(zone.wp, end)
        if zone.wp == zone.capacity:
            self._set(zone, FULL)

    def _write_zone(self, zone, offset, length, number):
        if zone.cond == OFFLINE:
            return "EIO"
        if zone.cond == READ_ONLY:
            return "EPERM"
        if zone.type == CONVENTIONAL:
            self._store(offset, length, number)
            return None
        start = offset - zone.start
        if zone.type == SEQ_REQUIRED and zone.cond == FULL:
            return "ENOSPC"
        if start + length > zone.capacity:
            return "ENOSPC"
        if zone.type == SEQ_REQUIRED and start != zone.wp:
            return "EINVAL"
        error = self._take_resources(zone)
        if error:
            return error
        if start != zone.wp:
            zone.non_seq = 1
        self._store(offset, length, number)
        if zone.cond in (EMPTY, CLOSED):
            self._set(zone, IMPLICIT)
        self._advance(zone, start + length)
        return None

    def _write(self, offset, length, number, flags=0):
        error = self._check_write(offset, length)
        if error:
            return error
        g = self.g.granularity
        while length:
            zone = self.zones[offset // self.g.zone_size]
            part = min(length, zone.start + zone.length - offset)
            error = self._write_zone(zone, offset, part, number)
            if error:
                return error
            if number:
                number += part // g
            offset += part
            length -= part
        return "0"

    def _zero(self, offset, length, flags=0):
        return self._write(offset, length, 0)

    def _append(self, offset, length, number, flags=0):
        error = self._check_write(offset, length)
        if error:
            return error
        zone = self.zones[offset // self.g.zone_size]
        if zone.cond == OFFLINE:
            return "EIO"
        if zone.cond == READ_ONLY:
            return "EPERM"
        if (zone.type != SEQ_REQUIRED or length > self.g.max_append
                or offset + length > zone.start + zone.length):
            return "EINVAL"
        if zone.cond == FULL:
            return "ENOSPC"
        if zone.wp + length > zone.capacity:
            return "EINVAL"
        where = zone.start + zone.wp
        error = self._write_zone(zone, where, length, number)
        return error or "0 %d" % where

    def _trim(self, offset, length, flags=0):
        if self.readonly:
            return "EPERM"
        g = self.g.granularity
        end = offset + length
        if end > self.g.size or offset % g or length % g:
            return "EINVAL"
        for zone in self.zones[offset // self.g.zone_size:]:
            if zone.start >= end:
                break
            if zone.cond in (READ_ONLY, OFFLINE):
                continue
            first = max(offset, zone.start)
            last = min(end, zone.start + zone.length)
            if zone.type == CONVENTIONAL:
                for i in range(first // g, last // g):
                    self.data[i] = -abs(self.data[i])
            elif last - first == zone.length:
                self._reset(zone)
        return "0"

    # What changes nothing.

    def _check_read(self, offset, length):
        g = self.g.granularity
        if (offset + length > self.g.size or offset % g or length % g):
            return "EINVAL"
        zs = self.g.zone_size
        for zone in self.zones[offset // zs:
                               (offset + length - 1) // zs + 1]:
            if zone.cond == OFFLINE:
                return "EIO"
        return None

    def _read(self, offset, length):
        error = self._check_read(offset, length)
        if error:
            return error
        g = self.g.granularity
        return "0 " + " ".join(map(str, self.data[offset // g:
                                                  (offset + length) // g]))

    def _cache(self, offset, length):
        return self._check_read(offset, length) or "0"

    def _flush(self):
        return "0"

    def _report(self, first, count):
        """Condition, pointer and non_seq of some zones."""
        return "0 " + " ".join(["%d:%d:%d" % (z.cond, z.pointer(), z.non_seq)
                                for z in self.zones[first:first + count]])

    def _shape(self, first, count):
        """What never changes of some zones, and their reset flag."""
        return "0 " + " ".join(["%d:%d:%d:%d:0" % (z.type, z.start, z.length,
                                                   z.capacity)
                                for z in self.zones[first:first + count]])

    def _reopen(self):
        """The disk was closed and opened again."""
        for zone in self.zones:
            if zone.cond in (IMPLICIT, EXPLICIT):
                self._shut(zone)
        return "0"

    # The zone table export.

    def _table_write(self, first, *requests):
        """Records of zones from first on, with these request bytes."""
        if self.readonly:
            return "EPERM"
        if first + len(requests) > len(self.zones):
            return "EINVAL"
        for zone, request in zip(self.zones[first:], requests):
            if request:
                if request not in OPS:
                    return "EINVAL"
                error = self._manage(OPS[request], zone)
                if error:
                    return error
        return "0"

    def _table_all(self, request):
        """The header with this request byte."""
        if self.readonly:
            return "EPERM"
        if request == 0:
            return "0"
        if request not in OPS:
            return "EINVAL"
        return self._manage_all(OPS[request]) or "0"

    def _table_header(self):
        """What the header says (uuid and epoch left out)."""
        g = self.g
        return "0 ZBDTABLE 1 4096 %d %d %d %d %d %d %d %d %d 0" % (
            2 if g.model == "host-managed" else 1, g.zones, g.zone_size,
            g.size, g.max_open, g.max_active, g.max_append, g.granularity,
            g.conventional)

    COMMANDS = {
        "read": _read, "write": _write, "zero": _zero, "trim": _trim,
        "cache": _cache, "flush": _flush, "append": _append,
        "report": _report, "shape": _shape, "reopen": _reopen,
        "table-write": _table_write, "table-all": _table_all,
        "table-read": _report, "table-shape": _shape,
        "table-header": _table_header,
    }
    for op in OPS.values():
        COMMANDS[op] = _manage_command(op)
        COMMANDS[op + "-all"] = _manage_all_command(op)
    del op


def same(expected, got):
    """Whether an answer is the expected one."""
    if expected == got:
        return True
    if "-" not in expected:
        return False
    want, have = expected.split(), got.split()
    return (len(want) == len(have)
            and all(h == w or (w[0] == "-" and h in ("0", w[1:]))
                    for w, h in zip(want, have)))
