#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes the fuzzer's seeds into a folder: sessions of the tests' own
client, recorded without a server.  A dictionary for the fuzzer goes into
FOLDER.dict.

usage: seeds.py FOLDER
"""

import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                ".."))

import nbd_raw as n                                     # noqa: E402

# As in target.c and target.h.
MARK = b"\xf0\x5a\xf0"
SETTLE, HALF_CLOSE, CLOSE, DEAF = 4, 8, 16, 32
MANAGED, READONLY, AWARE, LARGE, MANY = range(5)
ZONE, B = 64 << 10, 4096

CONTEXTS = ["base:allocation", "x-zbd:zones", "x-zbd:geometry",
            "x-zbd:append"] + ["x-zbd:" + x + y for y in ("", "-all")
                               for x in ("open", "close", "finish", "reset")]
IDS = {name: i + 1 for i, name in enumerate(CONTEXTS)}


class Session(n.Raw):
    """A client that hears nothing and believes that all went well."""

    def __init__(self, flags=n.C_FIXED | n.C_NO_ZEROES):
        self.sent = b""
        self.extended = self.structured = False
        self.cookie = 0
        self.reads = {}
        if flags is not None:
            self.raw(struct.pack(">I", flags))

    def raw(self, data):
        self.sent += data

    def option_reply(self):
        return n.Reply(n.REP_ACK, b"")

    def meta(self, option, queries=(), name=""):
        self.option(option, self.meta_data(name, queries))
        return {q: IDS.get(q, 99) for q in queries}

    def go(self, name="", infos=(), option=n.OPT_GO):
        self.option(option, self.info_data(name, infos))

    def reply(self, cookie):
        return n.Answer()


def handshakes():
    yield "flags-only", MANAGED, Session()
    for flags in 0, 1, 2, 3:
        s = Session(flags)
        s.send_option(n.OPT_EXPORT_NAME, b"")
        s.read(0, B)
        yield "export-name-%d" % flags, MANAGED, s
    for option in list(range(13)) + [99]:
        s = Session()
        s.option(option)
        s.option(option, b"\0" * 9)
        s.option(n.OPT_ABORT)
        yield "option-%d" % option, MANAGED, s
    s = Session()
    s.go("disk/zones", (0, 1, 2, 3, 9), n.OPT_INFO)
    s.go("nothing", (3,))
    s.go("disk", (3,))
    s.read(0, B)
    yield "info-go", READONLY, s
    s = Session()
    s.option(n.OPT_STRUCTURED_REPLY)
    s.meta(n.OPT_LIST_META_CONTEXT)
    s.meta(n.OPT_LIST_META_CONTEXT, ["base:", "x-zbd:", "x-zbd:geometry",
                                     "a:b"])
    s.meta(n.OPT_SET_META_CONTEXT, ["base:allocation"], "zones")
    s.meta(n.OPT_SET_META_CONTEXT, CONTEXTS)
    s.go("zones", (1, 2), n.OPT_INFO)
    s.go()
    s.status(0, 16 * ZONE)
    yield "contexts", MANAGED, s


def commands(s):
    """Each command, well and ill."""
    data = bytes(range(256)) * 2
    at = 2 * ZONE
    s.write(0, data * 8, n.FLAG_FUA)
    s.write(at, data * 8)
    s.write(at + B, data * 8)
    s.read(at - B, 4 * B)
    s.read(at, 2 * B, n.FLAG_DF)
    s.ask(n.CMD_WRITE_ZEROES, at + 2 * B, B, n.FLAG_NO_HOLE
          | n.FLAG_FAST_ZERO)
    s.ask(n.CMD_CACHE, at, B)
    s.ask(n.CMD_TRIM, at, ZONE, n.FLAG_FUA)
    s.ask(n.CMD_FLUSH)
    s.status(0, 4 * ZONE)
    s.ask(9)
    s.send(n.CMD_DISC)


def sessions():
    for kind in "simple", "structured", "extended":
        for setup in MANAGED, READONLY, AWARE, LARGE:
            name = "disk" if setup in (READONLY, AWARE) else ""
            contexts = ["base:allocation", "x-zbd:zones"]
            s = Session().begin(
                name, contexts=contexts if kind != "simple" else [],
                structured=kind != "simple", extended=kind == "extended")
            commands(s)
            yield "%s-%d" % (kind, setup), setup, s
        s = Session().begin("zones", structured=kind != "simple",
                            extended=kind == "extended")
        s.read(0, B)
        record = bytearray(128)
        record[28], record[92] = 1, 4
        s.write(4096 + 2 * 64, record)
        s.write(0, bytes(60) + b"\4" + bytes(67), n.FLAG_FUA)
        s.ask(n.CMD_FLUSH)
        yield kind + "-table", MANAGED, s
    for name in CONTEXTS[4:]:
        s = Session().begin(contexts=[name])
        at = 0 if name.endswith("-all") else 2 * ZONE
        s.write(2 * ZONE, bytes(B))
        s.status(at, B, n.FLAG_REQ_ONE)
        s.status(at, 3 * ZONE, n.FLAG_REQ_ONE)
        s.status(at, B)
        yield name.split(":")[1], MANAGED, s
    s = Session().begin(contexts=CONTEXTS, extended=True)
    s.status(0, 16 * ZONE)
    s.status(2 * ZONE, B, n.FLAG_REQ_ONE, only=[IDS["x-zbd:open"]])
    s.status(0, 16 * ZONE, only=[1, 2])
    s.status(0, 1 << 40, only=[2])
    s.status(0, B, only=[1, 1])
    s.status(0, B, only=[99])
    yield "filters", MANAGED, s
    for extended in False, True:
        s = Session().begin(contexts=["x-zbd:append"], extended=extended)
        for tag in 3, 0, 1:
            s.write(2 * ZONE + tag * B, bytes(B))
            s.status(2 * ZONE + tag * B, B)
        s.status(2 * ZONE, B)
        s.write(2 * ZONE, bytes(B))
        s.write(2 * ZONE, bytes(B))
        s.write(15 * ZONE, bytes(B))
        s.status(15 * ZONE, B)
        yield "append-%d" % extended, MANAGED, s


def crowds():
    """Several clients: what one's writes wait for, another does or not."""
    def client(contexts=()):
        return Session().begin(contexts=contexts)

    def parked(s):
        for i in 3, 1, 2:
            s.write(2 * ZONE + i * B, bytes(B))
        return s.sent

    late = client()
    late.write(2 * ZONE, bytes(B))
    for how in 0, SETTLE, SETTLE | HALF_CLOSE, SETTLE | CLOSE, CLOSE:
        yield "parked-%d" % how, MANAGED, \
            parked(client()) + MARK + bytes([1 | how]) + late.sent
    manager = client(["x-zbd:finish"])
    manager.status(2 * ZONE, B, n.FLAG_REQ_ONE)
    yield "parked-finish", MANAGED, \
        parked(client()) + MARK + bytes([1 | SETTLE]) + manager.sent \
        + MARK + bytes([2 | SETTLE]) + late.sent
    table = Session().begin("zones")
    record = bytearray(64)
    record[28] = 4
    table.write(4096 + 2 * 64, record)
    yield "parked-table", MANAGED, \
        parked(client()) + MARK + bytes([1 | CLOSE]) + table.sent
    reader = client()
    for _ in range(40):
        reader.read(0, 8 * ZONE)
    yield "deaf", MANAGED, MARK + bytes([1 | DEAF]) + reader.sent + MARK \
        + bytes([2 | SETTLE]) + late.sent
    appender = client(["x-zbd:append"])
    for tag in 0, 1:
        appender.write(2 * ZONE + tag * B, bytes(B))
        appender.status(2 * ZONE + tag * B, B)
    yield "appenders", MANAGED, \
        appender.sent + MARK + b"\1" + appender.sent + MARK + b"\2" \
        + manager.sent


def many_zones():
    """What takes long: reports, management and trims of all zones, several
    at once, and who leaves meanwhile."""
    size = 2 << 20
    for extended in False, True:
        report = Session().begin(contexts=["base:allocation", "x-zbd:zones"],
                                 extended=extended)
        for flags in 0, n.FLAG_REQ_ONE, 0:
            report.status(0, size, flags)
        table = Session().begin("zones", extended=extended)
        table.read(0, 4096 + 64 * 512)
        table.read(4096, 64 * 512)
        manager = Session().begin(contexts=["x-zbd:finish"],
                                  extended=extended)
        for _ in range(4):
            manager.status(B, size - B, n.FLAG_REQ_ONE)
            manager.ask(n.CMD_TRIM, 0, size)
        for how in 0, SETTLE, CLOSE:
            yield "many-%d-%d" % (extended, how), MANY, \
                report.sent + MARK + bytes([1 | how]) + manager.sent \
                + MARK + bytes([2 | how]) + table.sent


def dictionary():
    for magic in n.OPTION_MAGIC, n.REQUEST_MAGIC << 32, \
            n.REQUEST_EXT_MAGIC << 32:
        yield struct.pack(">Q", magic).rstrip(b"\0")
    yield MARK
    for name in CONTEXTS + ["base:", "x-zbd:", "disk", "zones"]:
        yield name.encode()
        yield struct.pack(">I", len(name)) + name.encode()
    for number in range(13):
        yield struct.pack(">I", number)
        yield struct.pack(">H", number)
    for shift in 9, 12, 15, 16, 20, 25, 31, 32, 40, 63:
        yield struct.pack(">Q", 1 << shift)


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for make in handshakes, sessions, crowds, many_zones:
        for name, setup, session in make():
            sent = session if isinstance(session, bytes) else session.sent
            with open(os.path.join(folder, name), "wb") as f:
                f.write(bytes([setup]) + sent)
    with open(folder + ".dict", "w") as f:
        for word in dictionary():
            f.write('"%s"\n' % "".join("\\x%02x" % b for b in word))


main()
