# SPDX-License-Identifier: BSD-3-Clause
"""The random walk's way through znbd-server (see zone_nbd.py).  Besides the zone
table its contexts are used: x-zbd:zones is compared with the model's
zones, part of the management goes by x-zbd:open and so on, armed and not,
and appends with x-zbd:append.  Contexts are asked over compact and over
extended headers in turn.  Errors are the model's own.
"""

import nbd

import zone_nbd
from harness import ZnbdServer
from nbd_raw import FLAG_REQ_ONE, Raw
from zone_model import CONVENTIONAL, FULL, OFFLINE, OPS, READ_ONLY

MANAGE = tuple(OPS.values())
MANAGE_ALL = tuple(op + "-all" for op in MANAGE)
APPENDERS = 2                           # connections that append
WITH, AFTER, LATER = "with", "after", "later"   # when it is asked where
UNARMED = ("no-flag", "beside", "payload-of-two", "payload-no-flag")


class Model(zone_nbd.NBDModel):
    """The zone model's answers as the contexts give them."""

    def __init__(self, geometry):
        super().__init__(geometry)
        self.tags = [{} for _ in range(APPENDERS)]

    def _check_status(self, offset, length):
        g = self.g.granularity
        return (length > 0 and offset + length <= self.g.size
                and offset % g == 0 and length % g == 0)

    def _zones(self, offset, length):
        """x-zbd:zones: length and flags of each descriptor."""
        if not self._check_status(offset, length):
            return "EINVAL"
        found = []

        def add(start, end, flags):
            n = min(end, offset + length) - max(start, offset)
            if n > 0 and found and found[-1][1] == flags:
                found[-1][0] += n
            elif n > 0:
                found.append([n, flags])

        for zone in self.zones[offset // self.g.zone_size:]:
            if zone.start >= offset + length:
                break
            flags = zone.cond | zone.type << 4 | bool(zone.non_seq) << 11
            end = zone.start + zone.length
            if zone.type == CONVENTIONAL or zone.cond == OFFLINE:
                add(zone.start, end, flags)
                continue
            full = zone.start + zone.capacity
            pointer = zone.start + zone.wp
            if zone.cond in (FULL, READ_ONLY):
                pointer = full
            add(zone.start, pointer, flags | 1 << 8)
            add(pointer, full, flags | 2 << 8)
            add(full, end, flags | 3 << 8)
        return "0 " + " ".join("%d:%d" % tuple(d) for d in found)

    def _unarmed(self, how, op, offset, length):
        if not self._check_status(offset, length):
            return "EINVAL"
        return "0 %d:0" % length

    def _manage_range(self, op, offset, length):
        """A zone's first block stands for the zone.  What was done before
        a zone refused is the answer, if it was anything."""
        g = self.g.granularity
        single = (length == g and offset % self.g.zone_size == 0
                  and offset < self.g.size)
        if single:
            length = self.zones[offset // self.g.zone_size].length
        error, done = super()._manage_range(op, offset, length).split()
        if done == "0":
            return error
        return "0 %d" % (g if single else int(done))

    def _append(self, offset, length, number, flags, which, when):
        if offset < self.g.size and \
           self.zones[offset // self.g.zone_size].type != CONVENTIONAL:
            write = super()._append(offset, length, number)
            # Where it went, or the same error.
            self.tags[which][offset] = write.split()[-1]
        else:
            write = self._write(offset, length, number)
        return "0 %s %s" % (write.split()[0],
                            when if when == LATER
                            else self._tell(which, offset))

    def _tell(self, which, offset):
        if not self._check_status(offset, self.g.granularity):
            return "EINVAL"
        return self.tags[which].pop(offset, "unknown")

    def _where(self, which, offset):
        return "0 " + self._tell(which, offset)

    COMMANDS = dict(zone_nbd.NBDModel.COMMANDS, zones=_zones,
                    unarmed=_unarmed, append=_append, where=_where)


class Walker(zone_nbd.Walker):
    def __init__(self, model, seed, weights, **rest):
        if model.g.model != "host-managed":
            weights = dict(weights, append=0)
        super().__init__(model, seed, weights, **rest)
        self.later = []         # appends to be asked about

    def some_range(self):
        """Of blocks, mostly a few zones."""
        r = self.random
        g, zone = self.g.granularity, self.zone()
        x = r.random()
        if x < .05:
            return self.wrong(zone.start, self.blocks())
        offset, length = zone.start, zone.length
        if x < .4:
            offset += r.randrange(zone.length // g) * g
            length = self.blocks()
        if x < .7:
            length += r.randrange(4) * self.g.zone_size
        elif x < .75:
            length = self.g.size
        return offset, min(length, self.g.size - offset)

    def next(self):
        r = self.random
        x = r.random()
        if x < .08:
            return ("zones", *self.some_range())
        if x < .1:
            return ("unarmed", r.choice(UNARMED), r.choice(MANAGE),
                    *self.some_range())
        if x < .11 and self.g.model == "host-managed":
            if self.later and r.random() < .8:
                return ("where", *self.later.pop(
                    r.randrange(len(self.later))))
            return ("where", r.randrange(APPENDERS), self.some_range()[0])
        op = super().next()
        if op[0] in MANAGE and r.random() < .4:
            op = op[:2] + (self.g.granularity,)
        if op[0] == "append":
            which = r.randrange(APPENDERS)
            when = r.choices((WITH, AFTER, LATER), (6, 3, 2))[0]
            if when == LATER:
                self.later.append((which, op[1]))
            op += (which, when)
        return op


class Served(zone_nbd.Served):
    model = Model
    walker = Walker
    weights = {"report": 0, "shape": 0, "reopen": 0, "table-write": 8,
               "table-all": .4, "table-read": 6, "table-shape": .2}

    def __init__(self, geometry, image=None, keep=False):
        super().__init__(geometry, image, keep)
        appenders = APPENDERS if geometry.model == "host-managed" else 0
        self.appenders = [self.context("append") for _ in range(appenders)]
        self.contexts = {name: self.context(name)
                         for name in ("zones",) + MANAGE + MANAGE_ALL}
        self.all = self.context(*self.contexts)
        self.raw = Raw(self.server.socket).begin(
            contexts=["x-zbd:" + name for name in self.contexts],
            extended=True)
        self.turn = 0

    def serve(self, image):
        return ZnbdServer(image or ",".join(["memory:%d" % self.g.size]
                                            + self.parameters("+")),
                          "--reorder-timeout", "0")

    def context(self, *names):
        h = nbd.NBD()
        for name in names:
            h.add_meta_context("x-zbd:" + name)
        h.set_strict_mode(0)
        h.connect_uri(self.server.uri)
        for name in names:
            assert h.can_meta_context("x-zbd:" + name), name
        return h

    def close(self):
        self.raw.close()
        self.disks += [*self.appenders, *self.contexts.values(), self.all]
        super().close()

    @staticmethod
    def compact(h, name, offset, length, flags=0):
        """Descriptors, over compact headers."""
        got = []

        def callback(context, offset, entries, error):
            if context == "x-zbd:" + name:
                got.extend(zip(entries[::2], entries[1::2]))

        h.block_status(length, offset, callback, flags)
        return got

    def extended(self, names, offset, length, flags=0):
        """Descriptors of the first, over extended headers; or the error."""
        ids = [self.raw.ids["x-zbd:" + name] for name in names]
        answer = self.raw.status(offset, length, flags, only=ids)
        if answer.error:
            raise nbd.Error(answer.message, answer.error)
        return answer.extents[ids[0]]

    def ask(self, names, offset, length, flags=0):
        """Of a context alone, or first among several; over each kind of
        headers in turn."""
        self.turn += 1
        if self.turn % 2:
            return self.extended(names, offset, length, flags)
        h = self.contexts[names[0]] if len(names) == 1 else self.all
        return self.compact(h, names[0], offset, length, flags)

    def call(self, name, *args):
        if name in MANAGE:
            return self.manage(name, *args)
        if name in MANAGE_ALL:
            self.manage(name, 0, self.g.granularity)
            return None
        return super().call(name, *args)

    def manage(self, name, offset, length):
        (done, flags), = self.ask([name], offset, length, FLAG_REQ_ONE)
        return str(done) if flags == 1 else "%d:%d" % (done, flags)

    def unarmed(self, how, name, offset, length):
        if how == "no-flag":
            got = self.compact(self.contexts[name], name, offset, length)
        elif how == "beside":
            got = self.compact(self.all, name, offset, length, FLAG_REQ_ONE)
        elif how == "payload-of-two":
            got = self.extended([name, "zones"], offset, length, FLAG_REQ_ONE)
        else:
            got = self.extended([name], offset, length)
        return " ".join("%d:%d" % d for d in got)

    def zones(self, offset, length):
        names = ["zones"] if self.turn % 4 < 2 else ["zones", "reset"]
        return " ".join("%d:%d" % d
                        for d in self.ask(names, offset, length))

    @staticmethod
    def error(h, cookie):
        """Waits for a command: its error, or None."""
        try:
            while not h.aio_command_completed(cookie):
                h.poll(-1)
        except nbd.Error as e:
            return e.errno or str(e)
        return None

    def told(self, h, offset):
        """A question where an append went, under way: call it to wait for
        the answer."""
        got = []

        def callback(context, offset, entries, error):
            got.extend(entries)

        cookie = h.aio_block_status(self.g.granularity, offset, callback)

        def wait():
            error = self.error(h, cookie)
            if error:
                return error
            length, place = got
            if length != self.g.granularity:
                return "a length of %d" % length
            if place == 0:
                return "unknown"
            zone = offset // self.g.zone_size
            return str(zone * self.g.zone_size + (place - 1) * 512)

        return wait

    def append(self, offset, length, number, flags, which, when):
        h = self.appenders[which]
        data = self.content(length, number)
        cookie = h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)),
                              offset, flags=self._flags(flags))
        answer = self.told(h, offset) if when == WITH else None
        error = self.error(h, cookie)
        if when == AFTER:
            answer = self.told(h, offset)
        return "%s %s" % (error or "0", answer() if answer else when)

    def where(self, which, offset):
        return self.told(self.appenders[which], offset)()

    def everything(self):
        step = 100 * self.g.zone_size
        return super().everything() + [
            ("zones", offset, min(step, self.g.size - offset))
            for offset in range(0, self.g.size, step)]
