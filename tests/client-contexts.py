#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd over the ways that servers offer: contexts and zone table, one of
them alone; each must show and do the same.  Then servers that lie about
everything that a context can say.
"""

import itertools
import json
import time

import nbd

from harness import TAP, Nbdkit, ZnbdServer, run
from nbd_fake import Fake, Proxy

K = 1024
M = 1024 * K
DISK = dict(size="70M", zone_size="4M", zone_capacity="3M", conventional=2,
            max_open=3, max_active=4, read_only_zones=14, offline_zones=15)

tap = TAP()


def znbd(*argv, input=None, timeout=60):
    return run("znbd", *argv, input=input, timeout=timeout)


def plain(status, out, err, uri):
    """Without what differs: the operand, the names of server and disk."""
    lines = [line for line in out.splitlines()
             if not line.startswith(("disk:", "uuid:", "epoch:"))]
    return status, lines, err


# What is done to each kind of server.  Every command is followed by a
# report.
COURSE = [
    ("info",), ("report",), ("report", "--json"),
    ("report", "--offset", "12M", "--count", "3"),
    ("open", "--zone", "2-4"), ("open", "--zone", "5"),
    ("open", "--zone", "3-9"), ("close", "--zone", "3"),
    ("close", "--zone", "3"), ("finish", "--zone", "5-7"),
    ("open", "--zone", "6"), ("close", "--zone", "6"),
    ("reset", "--zone", "6"), ("reset", "--zone", "13-16"),
    ("reset", "--zone", "0-3"), ("finish", "--zone", "14"),
    ("finish", "--zone", "15"), ("open", "--offset", "68M", "--length", "2M"),
    ("close", "--all"), ("open", "--all"), ("finish", "--all"),
    ("reset", "--all"), ("finish", "--zone", "2-13"), ("info", "--json"),
    ("reset", "--offset", "8M", "--length", "48M"),
]


def course(uri):
    result = []
    for argv in COURSE:
        status, lines, err = plain(*znbd(*argv, uri), uri)
        if "--json" in argv:
            data = json.loads("\n".join(lines))
            for g in data, data.get("geometry", {}):
                for key in "disk", "uuid", "epoch", "max_append":
                    g.pop(key, None)
            lines = data
        else:
            lines = [x for x in lines if not x.startswith("max append")]
        report = znbd("report", uri)[1].splitlines()
        result.append((argv, status, lines, err, report))
    return result


# libnbd 1.18 and later speaks extended headers, and looks at descriptors
# itself: some do not come to libznbd then.
EXTENDED = hasattr(nbd.NBD, "block_status_64")


def ways():
    """Each subcommand by contexts, by the table, and on nbdkit."""
    params = ["%s=%s" % (k.replace("_", "-"), v) for k, v in DISK.items()]
    disk = "memory:" + ",".join([str(DISK["size"])] + params[1:])

    with Nbdkit(*params) as kit:
        wanted = course(kit.uri)
        status, out, err = znbd("report", "--verbose", kit.uri)
        tap.like(err, "zone table: the server offers no x-zbd contexts",
                 "--verbose: nbdkit has the table alone")
        status, out, err = znbd("append", "--zone", 3, kit.uri,
                                input="x" * 4096)
        tap.ok(status == 1 and "takes no appends" in err,
               "no appends with nbdkit", err)

    for what, hide, name in (("both", None, ""), ("contexts", "table", ""),
                             ("the table", "contexts", ""),
                             ("the table by its name", None, "zones")):
        with ZnbdServer(disk) as server:
            uri = server.zones_uri if name else server.uri
            proxy = None
            if hide:
                proxy = Proxy(tap.path("proxy"), server.socket, hide)
                proxy.__enter__()
                uri = proxy.uri
            got = course(uri)
            wrong = [(a, b) for a, b in zip(got, wanted) if a != b]
            tap.equal(wrong[:1], [], "a server with %s: all is as with "
                      "nbdkit" % what)
            by = "the context x-zbd:zones" if hide != "contexts" \
                and not name else "the zone table"
            tap.like(znbd("report", "--verbose", uri)[2], by,
                     "%s: --verbose tells the report's way" % what)
            for op in "open", "close", "finish", "reset":
                by = "a context (of the operation's own|that each request " \
                    "names)" if hide != "contexts" and not name else "the zone table"
                tap.like(znbd(op, "--all", "--verbose", uri)[2], by,
                         "%s: and that of %s" % (what, op))
            tap.like(znbd("info", "--verbose", uri)[2], "report by way of",
                     "%s: info has it too" % what)
            if proxy:
                proxy.__exit__()

    with ZnbdServer(disk, "-r") as server:
        status, out, err = znbd("reset", "--zone", 3, server.uri)
        tap.ok(status == 1 and "read-only" in err, "a read-only export", err)
        status, out, err = znbd("append", "--zone", 3, server.uri, input="")
        tap.equal((status, out), (0, ""), "nothing appended to it")
        status, out, err = znbd("append", "--zone", 3, server.uri,
                                input="x" * 4096)
        tap.ok(status == 1 and "read-only" in err, "it takes no appends", err)
        tap.equal(znbd("info", server.uri)[0], 0, "but has a report")


def large():
    """Many zones: the table is the shorter way, where there is one."""
    with ZnbdServer("memory:20T,zone-size=256M") as server:
        begin = time.monotonic()
        status, out, err = znbd("report", "--verbose", server.uri)
        tap.equal((status, len(out.splitlines())), (0, 81921),
                  "a report of 20 TB")
        tap.diag("%.2f s" % (time.monotonic() - begin))
        tap.like(err, "extended headers" if EXTENDED else
                 "zone table.*round trips", "is by the quickest way")
        status, few, err = znbd("report", "--count", 20, "--verbose",
                                server.uri)
        tap.like(err, "x-zbd:zones", "a few zones are not")
        tap.equal(few.splitlines(), out.splitlines()[:21],
                  "and are the same")
        status, _, err = znbd("finish", "--zone", "0-999", "--verbose",
                              server.uri)
        tap.ok(status == 0 and EXTENDED != ("zone table" in err),
               "many zones are finished by it too", err)
        with Proxy(tap.path("proxy"), server.socket, "table") as proxy:
            status, got, err = znbd("report", "--verbose", proxy.uri)
            want = znbd("report", server.uri)[1]
            tap.ok(got == want and "x-zbd:zones" in err,
                   "without a table it is by the context", err)
            status, _, err = znbd("reset", "--zone", "0-1999", proxy.uri)
            tap.equal((status, err), (0, ""), "and so are 2000 resets")
            tap.like(znbd("info", proxy.uri)[1], "81920 empty",
                     "they are done")

    # Zones that no 32-bit length holds.
    with ZnbdServer("memory:40T,zone-size=8G,zone-capacity=7G,"
                    "conventional=1") as server:
        with Proxy(tap.path("proxy"), server.socket, "table") as proxy:
            znbd("finish", "--zone", "3-5", proxy.uri)
            got = znbd("report", proxy.uri)[1]
            tap.equal(got, znbd("report", server.zones_uri)[1],
                      "zones of 8 GiB by compact headers")
            tap.like(got, "zone +4 .*full", "three of them finished")


# ---- hostile servers -------------------------------------------------

ZONE, SIZE = M, 8 * M
GEOMETRY = "x-zbd:geometry:version=1,model=host-managed,zones=8," \
    "zone-size=1048576,zone-capacity=786432,conventional=0,max-open=4," \
    "max-active=6,max-append=65536,granularity=4096," \
    "uuid=00010203-0405-0607-0809-0a0b0c0d0e0f,epoch=7"
CONTEXTS = ["x-zbd:zones", "x-zbd:append"] + [
    "x-zbd:" + op + all_ for op in ("open", "close", "finish", "reset")
    for all_ in ("", "-all")]
EMPTY = 0x21
DATA, FREE, GAP = 0x100, 0x200, 0x300
CAP = 768 * K


def honest(offset, length):
    """The report of empty zones."""
    end, got = offset + length, []
    while offset < end:
        inside = offset % ZONE
        stop, flags = (CAP, FREE) if inside < CAP else (ZONE, GAP)
        size = min(stop - inside, end - offset)
        got.append((size, EMPTY | flags))
        offset += size
    return got


def fake(geometry=GEOMETRY, size=SIZE, **more):
    names = more.pop("contexts", CONTEXTS) + ([geometry] if geometry else [])
    return Fake(tap.path("fake"), size, contexts=names, **more)


def refused(what, status, out, err):
    lines = err.splitlines()
    tap.ok(status == 1 and len(lines) == 1 and lines[0].startswith("znbd "),
           what, "status %s" % status, err)
    return err


def geometries():
    with fake() as f:
        f.status = lambda names, offset, length, flags: honest(offset, length)
        status, out, err = znbd("info", f.uri)
        tap.ok(status == 0 and "8 empty" in out, "an honest fake", err)
        tap.like(out, "zone capacity: +786432", "its capacity")
    with fake(GEOMETRY + ",new-key=7,another,=,x=y=z") as f:
        f.status = lambda names, offset, length, flags: honest(offset, length)
        status, out, err = znbd("info", f.uri)
        tap.ok(status == 0 and "8 empty" in out, "unknown keys are skipped",
               err)
    for old, new in (
            ("version=1,", ""), ("version=1", "version=2"),
            ("version=1", "version=11"), ("zones=8", "zones=9"),
            ("zones=8", "zones=0"), ("zones=8", "zones=-1"),
            ("zones=8", "zones=4294967304"), ("zones=8,", ""),
            ("zones=8", "zones=8x"), ("zones=8", "zones="),
            ("zones=8", "zones=8,zones=8"), ("zones=8", "zones=0x8"),
            ("zones=8", "zones= 8"), ("zones=8", "zones=" + "9" * 60),
            ("zone-size=1048576", "zone-size=0"),
            ("zone-size=1048576", "zone-size=18446744073709551615"),
            ("zone-size=1048576", "zone-size=9223372036854775808"),
            ("zone-size=1048576", "zone-size=1048577"),
            ("zone-capacity=786432", "zone-capacity=2097152"),
            ("zone-capacity=786432", "zone-capacity=1"),
            ("granularity=4096", "granularity=0"),
            ("granularity=4096", "granularity=3"),
            ("granularity=4096", "granularity=2147483648"),
            ("granularity=4096,", ""), ("conventional=0", "conventional=9"),
            ("max-append=65536", "max-append=1"),
            ("max-open=4", "max-open=7"), ("model=host-managed",
                                           "model=none"),
            ("model=host-managed", "model=x"), ("model=host-managed,", ""),
            ("uuid=00", "uuid="), ("uuid=00", "uuid=zz"),
            ("epoch=7", "epoch=18446744073709551616")):
        with fake(GEOMETRY.replace(old, new)) as f:
            err = refused("geometry: %s for %s" % (new[:40], old),
                          *znbd("info", f.uri))
            if "geometry" not in err:
                tap.fail("it names the geometry", err)
    for size in 0, 1, 4096, SIZE - 4096, SIZE + ZONE, (1 << 63) - 4096:
        with fake(size=size) as f:
            refused("an export of %d bytes" % size, *znbd("info", f.uri))
    with fake(listing=[GEOMETRY, "x-zbd:zones", GEOMETRY]) as f:
        refused("two geometries", *znbd("info", f.uri))
    with fake(listing=itertools.repeat("x-zbd:zones")) as f:
        refused("a list without end", *znbd("info", f.uri))
    with fake(unselectable=["x-zbd:zones"]) as f:
        refused("a context that is listed but not given",
                *znbd("info", f.uri))
    with fake(unselectable=["x-zbd:reset", "x-zbd:append"]) as f:
        f.status = lambda names, offset, length, flags: honest(offset, length)
        refused("the same of reset", *znbd("reset", "--zone", 1, f.uri))
        status, out, err = znbd("append", "--zone", 1, f.uri,
                                input="x" * 4096)
        tap.ok(status == 1 and "x-zbd:append" in err, "and of append", err)
    with fake(geometry=None) as f:
        refused("zones without a geometry, and no table",
                *znbd("info", f.uri))


def replies():
    """Wrong answers for zone 2, right ones for the others."""
    def lie(answer):
        def status(names, offset, length, flags):
            got, at = [], offset
            for size, value in honest(offset, length):
                if at == 2 * ZONE:
                    return got + answer
                got.append((size, value))
                at += size
            return got
        return status

    for what, answer in (
            ("of no bytes", [(0, EMPTY | FREE)]),
            ("that ends inside a block", [(100, EMPTY | FREE)]),
            ("of flags 0", [(CAP, 0)]),
            ("without type", [(CAP, 1 | FREE)]),
            ("of an unknown condition", [(CAP, 0x25 | FREE)]),
            ("of an empty conventional zone", [(ZONE, 0x11)]),
            ("of a sequential zone without pointer", [(ZONE, 0x20)]),
            ("without region", [(ZONE, EMPTY)]),
            ("of a conventional zone with a region", [(ZONE, 0x10 | FREE)]),
            ("of an offline zone with a region", [(ZONE, 0x2f | DATA)]),
            ("of an empty zone with data", [(4096, EMPTY | DATA),
                                            (ZONE - 4096, EMPTY | FREE)]),
            ("of a full zone with something left",
             [(4096, 0x2e | DATA), (ZONE - 4096, 0x2e | FREE)]),
            ("of regions out of order", [(4096, 0x22 | FREE),
                                         (ZONE - 4096, 0x22 | DATA)]),
            ("of a gap alone", [(ZONE, EMPTY | GAP)]),
            ("of two conditions", [(CAP, EMPTY | FREE),
                                   (ZONE - CAP, 0x22 | GAP)]),
            ("of two types", [(CAP, EMPTY | FREE),
                              (ZONE - CAP, 0x31 | GAP)]),
            ("of all ones", [(0xffffffff, 0xffffffff)]),
            ("of 4 GiB less a block", [(0xfffff000, EMPTY | GAP)])):
        with fake() as f:
            f.status = lie(answer)
            err = refused("a descriptor " + what, *znbd("report", f.uri))
            if "zone 2 " not in err and not (EXTENDED and
                                             "Protocol error" in err):
                tap.fail("it names zone 2", err)
            status, out, err = znbd("report", "--count", 2, f.uri)
            tap.equal((status, err), (0, ""), "other zones can be had")

    # Bits that this version does not know, and lengths past the end.
    with fake() as f:
        f.status = lambda names, offset, length, flags: [
            (size, value | 0xffff0000)
            for size, value in honest(offset, length + 5 * M)]
        status, out, err = znbd("info", f.uri)
        tap.ok((status == 0 and "8 empty" in out) or
               (EXTENDED and "Protocol error" in err),
               "unknown flags and what lies behind are skipped", err)
    # Answers that stop short, at each descriptor.
    with fake() as f:
        f.status = lambda names, offset, length, flags: \
            honest(offset, length)[:1]
        status, out, err = znbd("info", f.uri)
        tap.ok(status == 0 and "8 empty" in out, "one descriptor at a time",
               err)
    # A block at a time: a zone has 256 of them.
    with fake() as f:
        f.status = lambda names, offset, length, flags: \
            honest(offset, 4096)
        err = refused("a block at a time", *znbd("info", f.uri))
        tap.ok("without end" in err and f.requests < 400,
               "is given up soon", err, f.requests)
    # A zone that changes between the answers of which it is put together.
    with fake() as f:
        turn = itertools.count()

        def changing(names, offset, length, flags):
            if offset // ZONE == 2 and next(turn) < 5:
                value = (0x22, 0x23)[next(turn) // 2 % 2]
                return [(4096, value | (FREE if offset % ZONE else DATA))]
            return honest(offset, min(length, ZONE - offset % ZONE))[:1]

        f.status = changing
        status, out, err = znbd("report", f.uri)
        tap.equal((status, err), (0, ""), "a zone that changes meanwhile")
    with fake() as f:
        f.status = lambda names, offset, length, flags: None
        refused("no descriptor at all", *znbd("report", f.uri))
    with fake() as f:
        f.status = lambda names, offset, length, flags: 5
        err = refused("an error", *znbd("report", f.uri))
        tap.like(err, "Input/output error", "is told")

    # Management.
    for what, answer in (("of 0", [(4096, 0)]), ("of 2", [(4096, 2)]),
                         ("too long", [(8192, 1)]), ("empty", [(0, 1)]),
                         ("of two", [(4096, 1), (4096, 1)]),
                         ("of none", None)):
        with fake() as f:
            f.status = lambda names, offset, length, flags: \
                honest(offset, length) if names == ["x-zbd:zones"] else answer
            for argv in ("--zone", 3), ("--all",):
                refused("reset %s: an answer %s" % (argv[0], what),
                        *znbd("reset", *argv, f.uri))
    with fake() as f:
        f.status = lambda names, offset, length, flags: \
            honest(offset, length) if names == ["x-zbd:zones"] \
            else [(length // 2, 1)]
        refused("reset of 3 zones: one and a half were done",
                *znbd("reset", "--zone", "1-3", f.uri))

    # Appends.
    for what, answer in (("of 0", [(4096, 0)]),
                         ("behind the capacity", [(4096, CAP // 512 + 1)]),
                         ("inside a block", [(4096, 2)]),
                         ("too far", [(4096, 0xffffffff)]),
                         ("of two", [(4096, 1), (4096, 1)]),
                         ("of none", None), ("of an error", 5)):
        for depth in 1, 4:
            with fake() as f:
                f.status = lambda names, offset, length, flags: \
                    honest(offset, length) if names == ["x-zbd:zones"] \
                    else answer
                status, out, err = znbd("append", "--zone", 1, "--depth",
                                        depth, f.uri, input="x" * 4096)
                tap.ok(status == 1 and out == "" and len(err.splitlines())
                       == 2, "append, depth %d: an answer %s" % (depth,
                                                                 what), err)


def conventional_append():
    """A connection for appends writes to conventional zones as ever, at the
    tag: it must not come to that."""
    with fake() as f:
        wrote = []
        f.status = lambda names, offset, length, flags: [(length, 0x10)]
        f.write = lambda offset, data: wrote.append(offset) or 0
        status, out, err = znbd("append", "--zone", 1, f.uri,
                                input="x" * 4096)
        tap.ok(status == 1 and "conventional" in err and wrote == [],
               "nothing is sent to a conventional zone", err, wrote)


ways()
large()
geometries()
replies()
conventional_append()
tap.done_testing()
