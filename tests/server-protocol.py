#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd-server's side of the NBD protocol, message by message: options,
commands, the three kinds of replies, errors.
"""

import socket
import struct

import nbd_raw as n
from nbd_raw import Raw
from harness import NbdkitError, TAP, ZnbdServer

K = 1024
B = 4096
ZONE = 64 * K
SIZE = 16 * ZONE
DISK = "memory:1M,zone-size=64k,conventional=2"

tap = TAP()


def greeting(server):
    r = Raw(server.socket)
    tap.equal(r.greeting, (n.MAGIC, n.OPTION_MAGIC, 3),
              "greeting: magics, fixed newstyle, no zeroes")
    r.close()

    for flags, zeroes in (n.C_FIXED, 124), (n.C_FIXED | n.C_NO_ZEROES, 0), \
            (0, 124), (n.C_NO_ZEROES, 0):
        r = Raw(server.socket, flags=flags)
        r.send_option(n.OPT_EXPORT_NAME, b"")
        size, tflags = struct.unpack(">QH", r.recv(10))
        tap.equal((size, r.recv(zeroes)), (SIZE, bytes(zeroes)),
                  "EXPORT_NAME with client flags %d" % flags)
        tap.equal(r.read(0, B).data, bytes(B),
                  "and reads with simple replies follow")
        r.close()

    r = Raw(server.socket)
    r.send_option(n.OPT_EXPORT_NAME, b"nothing")
    tap.ok(r.is_closed(), "EXPORT_NAME of no export: disconnected")
    r = Raw(server.socket, flags=1 << 7)
    tap.ok(r.is_closed(), "unknown handshake flags: disconnected")
    r = Raw(server.socket, flags=0)
    r.send_option(n.OPT_LIST)
    tap.ok(r.is_closed(), "options need fixed newstyle")
    r = Raw(server.socket)
    r.raw(b"x" * 16)
    tap.ok(r.is_closed(), "wrong option magic: disconnected")


def options(server):
    r = Raw(server.socket)
    replies = r.option(n.OPT_LIST)
    tap.equal([x.type for x in replies], [n.REP_SERVER] * 2 + [n.REP_ACK],
              "LIST: two exports")
    names = []
    for x in replies[:-1]:
        length, = struct.unpack(">I", x.data[:4])
        names.append(x.data[4:4 + length].decode())
        tap.ok(len(x.data) > 4 + length, "LIST: a description follows")
    tap.equal(names, ["", "zones"], "LIST: their names")
    tap.equal(r.option(n.OPT_LIST, b"x")[0].type, n.ERR_INVALID,
              "LIST with data")
    tap.equal(r.option(99)[0].type, n.ERR_UNSUP, "unknown option")
    tap.equal(r.last_option, 99, "the reply names the option")
    tap.equal(r.option(99, b"x" * 1000)[0].type, n.ERR_UNSUP,
              "unknown option with data")
    tap.equal(r.option(4)[0].type, n.ERR_UNSUP, "the withdrawn option 4")
    tap.equal(r.option(n.OPT_STARTTLS)[0].type, n.ERR_POLICY, "STARTTLS")
    tap.equal(r.option(n.OPT_STARTTLS, b"x")[0].type, n.ERR_INVALID,
              "STARTTLS with data")
    tap.equal(r.option(n.OPT_STRUCTURED_REPLY, b"x")[0].type, n.ERR_INVALID,
              "STRUCTURED_REPLY with data")
    tap.equal(r.option(n.OPT_SET_META_CONTEXT,
                       r.meta_data("", ["base:allocation"]))[0].type,
              n.ERR_INVALID, "contexts need structured replies")

    for option in n.OPT_INFO, n.OPT_GO:
        for data in (b"", b"\0\0\0", struct.pack(">I", 1 << 31) + b"\0\0",
                     struct.pack(">IH", 0, 1), struct.pack(">IHH", 0, 0, 0),
                     struct.pack(">I", 5000) + b"x" * 5000 + b"\0\0",
                     struct.pack(">I", 3) + b"a\0b\0\0"):
            tap.equal(r.option(option, data)[0].type, n.ERR_INVALID,
                      "option %d: lengths that do not fit, NULs" % option)
        tap.equal(r.option(option, r.info_data("nothing"))[0].type,
                  n.ERR_UNKNOWN, "option %d: unknown export" % option)
    r.go("zones", option=n.OPT_INFO)
    tap.equal(r.size, 4096 + 16 * 64, "INFO of the zone table")
    tap.equal(struct.unpack(">III", r.infos[n.INFO_BLOCK_SIZE]),
              (64, 4096, 32 << 20), "INFO: its block sizes")
    r.go("", infos=(n.INFO_NAME, n.INFO_DESCRIPTION, 77), option=n.OPT_INFO)
    tap.equal(r.infos[n.INFO_NAME], b"", "INFO: name")
    tap.like(r.infos[n.INFO_DESCRIPTION].decode(), "host-managed zoned disk",
             "INFO: description")
    tap.equal(struct.unpack(">III", r.infos[n.INFO_BLOCK_SIZE]),
              (B, B, 32 << 20), "INFO: block sizes")
    tap.equal(r.flags, n.HAS_FLAGS | n.SEND_FLUSH | n.SEND_FUA | n.SEND_TRIM
              | n.SEND_WRITE_ZEROES | n.CAN_MULTI_CONN | n.SEND_CACHE
              | n.SEND_FAST_ZERO, "INFO: transmission flags")
    r.option(n.OPT_STRUCTURED_REPLY)
    tap.equal(r.option(n.OPT_STRUCTURED_REPLY)[0].type, n.ERR_INVALID,
              "STRUCTURED_REPLY again")
    r.go("", option=n.OPT_INFO)
    tap.ok(r.flags & n.SEND_DF and not r.flags & n.BLOCK_STATUS_PAYLOAD,
           "DF with structured replies")
    tap.equal(r.option(n.OPT_EXTENDED_HEADERS, b"x")[0].type, n.ERR_INVALID,
              "EXTENDED_HEADERS with data")
    tap.equal(r.option(n.OPT_EXTENDED_HEADERS)[0].type, n.REP_ACK,
              "EXTENDED_HEADERS after STRUCTURED_REPLY")
    for option in n.OPT_STRUCTURED_REPLY, n.OPT_EXTENDED_HEADERS:
        tap.equal(r.option(option)[0].type, n.ERR_INVALID,
                  "option %d after EXTENDED_HEADERS" % option)
    r.go("", option=n.OPT_INFO)
    tap.ok(not r.flags & n.BLOCK_STATUS_PAYLOAD,
           "no payload filters where no context is selected")
    r.meta(n.OPT_SET_META_CONTEXT, ["base:allocation"])
    r.go("", option=n.OPT_INFO)
    tap.ok(r.flags & n.BLOCK_STATUS_PAYLOAD,
           "payload filters with extended headers")
    tap.equal(r.option(n.OPT_LIST, b"x" * 100000)[0].type, n.ERR_TOO_BIG,
              "an option that is too big")
    tap.equal(r.option(n.OPT_ABORT)[0].type, n.REP_ACK, "ABORT")
    tap.ok(r.is_closed(), "and the server goes")


def meta(server):
    r = Raw(server.socket)
    r.option(n.OPT_STRUCTURED_REPLY)
    listed = r.meta(n.OPT_LIST_META_CONTEXT)
    tap.equal(len(listed), 12, "LIST_META_CONTEXT: all")
    geometry = [x for x in listed if x.startswith("x-zbd:geometry:")][0]
    tap.like(geometry, "version=1,model=host-managed,zones=16,"
             "zone-size=65536,zone-capacity=65536,conventional=2,max-open=0,"
             "max-active=0,max-append=[1-9][0-9]*,granularity=4096,"
             "uuid=[0-9a-f-]{36},epoch=[0-9]+$", "the geometry")
    tap.equal(set(listed.values()), {0}, "LIST: ids are 0")
    for query, count in (("base:", 1), ("x-zbd:", 11), ("x-zbd:zones", 1),
                         ("x-zbd:geometry", 1), (geometry, 1), ("x-zbd", 0),
                         ("x-zbd:zone", 0), ("other:", 0), ("", 0),
                         ("base:allocatio", 0), (":", 0)):
        tap.equal(len(r.meta(n.OPT_LIST_META_CONTEXT, [query])), count,
                  "LIST %s: %d" % (query[:20], count))
    tap.equal(r.meta(n.OPT_LIST_META_CONTEXT, [], "zones"),
              {"base:allocation": 0}, "the zone table has base:allocation")
    tap.equal(r.meta(n.OPT_SET_META_CONTEXT, []), {}, "SET of nothing")
    tap.equal(r.meta(n.OPT_SET_META_CONTEXT, ["x-zbd:", "base:"]), {},
              "SET takes no namespaces")
    ids = r.meta(n.OPT_SET_META_CONTEXT,
                 ["base:allocation", geometry, "x-zbd:zones", "a:b"])
    tap.equal(sorted(ids), sorted(["base:allocation", geometry,
                                   "x-zbd:zones"]), "SET: known ones")
    tap.equal(len(set(ids.values())), 3, "SET: each its id")
    for option in n.OPT_LIST_META_CONTEXT, n.OPT_SET_META_CONTEXT:
        for data in (b"", r.meta_data("", ["x"])[:-1],
                     r.meta_data("", ["x"]) + b"x",
                     struct.pack(">II", 0, 2) + r.meta_data("", ["x"])[8:],
                     struct.pack(">III", 0, 1, 0xffffffff)):
            tap.equal(r.option(option, data)[0].type, n.ERR_INVALID,
                      "option %d: lengths that do not fit" % option)
        tap.equal(r.option(option, struct.pack(">II", 0, 0xffffffff))[0]
                  .type, n.ERR_TOO_BIG, "option %d: many queries" % option)
        tap.equal(r.option(option, r.meta_data("nothing", ["x:y"]))[0].type,
                  n.ERR_UNKNOWN, "option %d: unknown export" % option)
    r.go()
    tap.equal(r.status(0, B).error, n.EINVAL,
              "a SET that failed voids the one before")
    r.close()

    r = Raw(server.socket)
    r.option(n.OPT_STRUCTURED_REPLY)
    r.meta(n.OPT_SET_META_CONTEXT, ["base:allocation"], "zones")
    r.go("")
    tap.equal(r.status(0, B).error, n.EINVAL,
              "contexts are those of the export they were selected for")
    r.close()


def replies(server, kind):
    r = Raw(server.socket).begin(
        contexts=["base:allocation"] if kind != "simple" else [],
        structured=kind != "simple", extended=kind == "extended")
    data = bytes(range(256)) * 16
    a = r.write(0, data)
    tap.equal(a.error, 0, kind + ": write")
    tap.equal(a.simple, kind != "extended", kind + ": its reply's kind")
    a = r.read(0, 2 * B)
    tap.equal(a.data, data + bytes(B), kind + ": read")
    tap.equal(a.simple, kind == "simple", kind + ": its reply's kind")
    a = r.read(0, 0)
    tap.equal((a.error, a.data), (0, b""), kind + ": read of nothing")
    for command in (n.CMD_WRITE, n.CMD_TRIM, n.CMD_CACHE,
                    n.CMD_WRITE_ZEROES):
        tap.equal(r.ask(command, 0, 0).error, 0,
                  "%s: command %d of nothing" % (kind, command))

    # Zone 2 is sequential: data below its pointer, then zeros.
    start = 2 * ZONE
    tap.equal(r.write(start, data * 2, n.FLAG_FUA).error, 0,
              kind + ": write with FUA")
    a = r.read(start - B, 4 * B)
    tap.equal(a.data, bytes(B) + data * 2 + bytes(B),
              kind + ": read over a pointer")
    if kind != "simple":
        tap.equal([c.type for c in a.chunks], [n.TYPE_DATA, n.TYPE_HOLE],
                  kind + ": what is above is a hole")
        tap.equal([c.flags for c in a.chunks], [0, n.DONE],
                  kind + ": the last chunk is the last")
        a = r.read(start - B, 4 * B, n.FLAG_DF)
        tap.equal(([c.type for c in a.chunks], a.data),
                  ([n.TYPE_DATA], bytes(B) + data * 2 + bytes(B)),
                  kind + ": with DF all is one chunk")
        a = r.read(start + 2 * B, B)
        tap.equal(([c.type for c in a.chunks], a.data),
                  ([n.TYPE_HOLE], bytes(B)), kind + ": a hole alone")
        r.write(start + ZONE, data)
        a = r.read(start + ZONE - B, 3 * B)
        tap.equal(([c.type for c in a.chunks], a.data),
                  ([n.TYPE_HOLE, n.TYPE_DATA, n.TYPE_HOLE],
                   bytes(B) + data + bytes(B)),
                  kind + ": hole, data, hole")
        for i in range(4, 14):
            r.write(i * ZONE, data)
        a = r.read(0, SIZE)
        tap.equal(a.data, r.read(0, SIZE, n.FLAG_DF).data,
                  kind + ": many holes, the same data")
        tap.ok(1 < len(a.chunks) <= 8, kind + ": not too many chunks")
    else:
        tap.equal(r.read(0, B, n.FLAG_DF).error, n.EINVAL,
                  "simple: DF was not negotiated")
        tap.equal(r.status(0, B).error, n.EINVAL, "simple: no block status")

    # Errors, and their words.
    for text, command, offset, length, flags, error in (
            ("read past the end", n.CMD_READ, SIZE - B, 2 * B, 0, n.EINVAL),
            ("read far past it", n.CMD_READ, 1 << 63, B, 0, n.EINVAL),
            ("read that wraps", n.CMD_READ, (1 << 64) - B, 2 * B, 0,
             n.EINVAL),
            ("read off the block size", n.CMD_READ, 512, B, 0, n.EINVAL),
            ("read of a part", n.CMD_READ, 0, 512, 0, n.EINVAL),
            ("read that is too long", n.CMD_READ, 0, (32 << 20) + B, 0,
             n.EINVAL),
            ("trim past the end", n.CMD_TRIM, SIZE, B, 0, n.EINVAL),
            ("zeroes past the end", n.CMD_WRITE_ZEROES, SIZE, B, 0,
             n.ENOSPC),
            ("cache past the end", n.CMD_CACHE, SIZE, B, 0, n.EINVAL),
            ("zeroes behind the pointer", n.CMD_WRITE_ZEROES, start, B, 0,
             n.EINVAL),
            ("unknown command", 8, 0, 0, 0, n.EINVAL),
            ("unknown command 65535", 65535, 0, B, 0, n.EINVAL),
            ("unknown flag", n.CMD_READ, 0, B, 1 << 15, n.EINVAL),
            ("REQ_ONE on a read", n.CMD_READ, 0, B, n.FLAG_REQ_ONE,
             n.EINVAL),
            ("NO_HOLE on a trim", n.CMD_TRIM, 0, B, n.FLAG_NO_HOLE,
             n.EINVAL),
            ("FAST_ZERO on a flush", n.CMD_FLUSH, 0, 0, n.FLAG_FAST_ZERO,
             n.EINVAL),
            ("status of nothing", n.CMD_BLOCK_STATUS, 0, 0, 0, n.EINVAL),
            ("status past the end", n.CMD_BLOCK_STATUS, SIZE - B, 2 * B, 0,
             n.EINVAL),
            ("status at the end", n.CMD_BLOCK_STATUS, SIZE, B, 0, n.EINVAL),
            ("status off the block size", n.CMD_BLOCK_STATUS, 1, B, 0,
             n.EINVAL)):
        a = r.ask(command, offset, length, flags)
        tap.ok(a.error == error and (kind == "simple" or a.message),
               "%s: %s" % (kind, text), repr(a))
    a = r.write(start, data)
    tap.ok(a.error == n.EINVAL, kind + ": a write below the pointer")
    if kind != "simple":
        tap.like(a.message, "zone 2.*pointer", kind + ": its words")
        tap.equal(len(a.chunks), 1, kind + ": in one chunk")
    tap.equal(r.write(SIZE - B, data * 2).error, n.ENOSPC,
              kind + ": write past the end")
    big = bytes((32 << 20) + B)
    tap.equal(r.write(0, big).error, n.EINVAL,
              kind + ": a write that is too long")
    tap.equal(r.ask(n.CMD_WRITE, 0, B, 1 << 14, data).error, n.EINVAL,
              kind + ": a write with an unknown flag")
    tap.equal(r.read(0, B).data, data,
              kind + ": and the connection is as before")

    # The other commands.
    tap.equal(r.ask(n.CMD_FLUSH).error, 0, kind + ": flush")
    tap.equal(r.ask(n.CMD_CACHE, 0, SIZE).error, 0, kind + ": cache")
    tap.equal(r.ask(n.CMD_WRITE_ZEROES, 0, B, n.FLAG_NO_HOLE
                    | n.FLAG_FAST_ZERO | n.FLAG_FUA).error, 0,
              kind + ": zeroes, all flags")
    tap.equal(r.read(0, B).data, bytes(B), kind + ": zeroes are there")
    tap.equal(r.ask(n.CMD_TRIM, 0, SIZE, n.FLAG_FUA).error, 0,
              kind + ": trim")
    tap.equal(r.read(start, B).data, bytes(B), kind + ": it is a reset")
    tap.equal(r.write(start, data).error, 0, kind + ": the zone is empty")
    r.ask(n.CMD_TRIM, 0, SIZE)

    # Many at once, and a leave that waits for them.
    cookies = [r.send(n.CMD_WRITE, start + i * B, B, 0,
                      bytes([i]) * B) for i in range(16)]
    tap.equal([r.reply(c).error for c in cookies], [0] * 16,
              kind + ": pipelined writes")
    cookies = [r.send(n.CMD_READ, start + i * B, B) for i in range(16)]
    r.send(n.CMD_DISC)
    tap.equal([r.reply(c).data for c in cookies],
              [bytes([i]) * B for i in range(16)],
              kind + ": pipelined reads before a DISC")
    tap.ok(r.is_closed(), kind + ": then the server closes")
    r.close()

    r = Raw(server.socket).begin(structured=kind != "simple",
                                 extended=kind == "extended")
    r.send(n.CMD_READ, 0, B, magic=0x12345678)
    tap.ok(r.is_closed(), kind + ": wrong magic: disconnected")
    r = Raw(server.socket).begin(structured=kind != "simple",
                                 extended=kind == "extended")
    r.ask(n.CMD_TRIM, 0, SIZE)
    r.close()


def extended(server):
    r = Raw(server.socket).begin(contexts=["base:allocation", "x-zbd:zones"],
                                 extended=True)
    base, zones = r.ids["base:allocation"], r.ids["x-zbd:zones"]
    tap.ok(r.flags & n.BLOCK_STATUS_PAYLOAD, "payload filters are offered")
    a = r.status(0, SIZE)
    tap.equal(a.extents[base], [(2 * ZONE, 0), (14 * ZONE, 3)],
              "extended: base:allocation")
    tap.equal(a.extents[zones], [(2 * ZONE, 0x10), (14 * ZONE, 0x221)],
              "extended: x-zbd:zones")
    tap.equal([c.flags for c in a.chunks], [0, n.DONE],
              "a chunk for each context")
    for only in [base], [zones], [zones, base]:
        a = r.status(0, SIZE, only=only)
        tap.equal(sorted(a.extents), sorted(only), "payload selects %s" % only)
    for text, only in (("nothing", []), ("unknown", [99]), ("0", [0]),
                       ("not selected", [3]), ("twice", [base, base]),
                       ("many", list(range(1000)))):
        tap.equal(r.status(0, SIZE, only=only).error, n.EINVAL,
                  "payload that selects: " + text)
    for size in 0, 4, 7, 11, 13:
        payload = struct.pack(">QII", SIZE, base, zones)[:size]
        tap.equal(r.ask(n.CMD_BLOCK_STATUS, 0, size, n.FLAG_PAYLOAD_LEN,
                        payload).error, n.EINVAL,
                  "payload of %d bytes" % size)
    a = r.status(SIZE - B, 2 * B, only=[base])
    tap.equal(a.error, n.EINVAL, "payload: its length counts")
    a = r.ask(n.CMD_READ, 0, 8, n.FLAG_PAYLOAD_LEN, b"12345678")
    tap.equal(a.error, n.EINVAL, "a payload where there is none")
    r.cookie += 1
    r.reads[r.cookie] = (n.CMD_WRITE, 0, B)
    r.raw(struct.pack(">IHHQQQ", n.REQUEST_EXT_MAGIC, 0, n.CMD_WRITE,
                      r.cookie, 0, B) + bytes(B))
    tap.equal(r.reply(r.cookie).error, 0,
              "a write without NBD_CMD_FLAG_PAYLOAD_LEN, as QEMU sends it")
    tap.equal(r.ask(n.CMD_TRIM, 0, 1 << 62).error, n.EINVAL,
              "64-bit length past the end")
    tap.equal(r.read(0, 1 << 40).error, n.EINVAL, "64-bit length of a read")
    tap.equal(r.ask(n.CMD_TRIM, 0, SIZE).error, 0, "and it goes on")
    r.send(n.CMD_WRITE, 0, 1 << 40)
    tap.ok(r.is_closed(), "a payload of 1 TiB: disconnected")

    large = ZnbdServer("memory:20T,zone-size=256M")
    try:
        large.start()
    except NbdkitError as e:
        # The thread sanitizer leaves less of the address space.
        tap.skip("a 20T disk", e.text.strip())
        return
    with large:
        r = Raw(large.socket).begin(contexts=["x-zbd:zones"], extended=True)
        tap.equal(r.status(0, 20 << 40).extents[r.ids["x-zbd:zones"]],
                  [(20 << 40, 0x221)], "an empty 20T disk: one descriptor")
        r.close()
        r = Raw(large.socket).begin(contexts=["x-zbd:zones"])
        a = r.status(0, 0xfffff000).extents[r.ids["x-zbd:zones"]]
        tap.equal(a, [(0xfffff000, 0x221)], "and compact: up to 4 GiB")
        r.close()


def others(server):
    with ZnbdServer(DISK, "-r", name="backup disk") as ro:
        r = Raw(ro.socket)
        r.option(n.OPT_STRUCTURED_REPLY)
        tap.equal(sorted(x.split(":")[1] for x in
                         r.meta(n.OPT_LIST_META_CONTEXT)),
                  ["allocation", "geometry", "zones"],
                  "read-only: contexts that change nothing")
        r.go("backup disk", infos=(n.INFO_NAME,), option=n.OPT_INFO)
        tap.equal(r.infos[n.INFO_NAME], b"backup disk", "the export's name")
        r.go("", infos=(n.INFO_NAME,))
        tap.equal(r.infos[n.INFO_NAME], b"backup disk",
                  "no name is the default export")
        tap.ok(r.flags & n.READ_ONLY and not r.flags &
               (n.SEND_TRIM | n.SEND_WRITE_ZEROES), "read-only: flags")
        tap.equal(r.write(0, bytes(B)).error, n.EPERM, "read-only: write")
        for command in n.CMD_TRIM, n.CMD_WRITE_ZEROES:
            tap.equal(r.ask(command, 0, ZONE).error, n.EPERM,
                      "read-only: command %d" % command)
        tap.equal((r.ask(n.CMD_FLUSH).error, r.read(0, B).error), (0, 0),
                  "read-only: flush and read")
        r.close()
        r = Raw(ro.socket).begin("backup disk/zones")
        tap.equal(r.write(4096, bytes(64)).error, n.EPERM,
                  "read-only: the zone table")
        r.close()

    # The zone table.
    r = Raw(server.socket).begin("zones", contexts=["base:allocation"])
    tap.equal(r.read(0, 8).error, n.EINVAL, "table: minimum block size")
    raw = r.read(0, r.size).data
    tap.equal(raw[:8], b"ZBDTABLE", "table: read")
    tap.equal(r.status(0, r.size).extents, {1: [(r.size, 0)]},
              "table: base:allocation")
    record = bytearray(64)
    record[28] = 1
    tap.equal(r.write(4096 + 5 * 64, record).error, 0, "table: open a zone")
    record[28] = 4
    tap.equal(r.write(4096 + 5 * 64, record, n.FLAG_FUA).error, 0,
              "table: reset it, with FUA")
    a = r.write(4096, record)
    tap.equal(a.error, n.EINVAL, "table: reset of a conventional zone")
    tap.like(a.message, "conventional", "table: its words")
    record[28] = 9
    tap.equal(r.write(4096 + 5 * 64, record).error, n.EINVAL,
              "table: unknown request")
    tap.equal(r.write(r.size, record).error, n.EINVAL, "table: past the end")
    for command in n.CMD_TRIM, n.CMD_WRITE_ZEROES, n.CMD_CACHE:
        tap.equal(r.ask(command, 0, 4096).error, n.EINVAL,
                  "table: command %d" % command)
    tap.equal(r.ask(n.CMD_FLUSH).error, 0, "table: flush")
    whole = bytearray(r.size)
    for i in range(2, 16):
        whole[4096 + 64 * i + 28] = 3
    tap.equal(r.write(0, whole).error, 0, "table: finish in one write")
    raw = r.read(0, r.size).data
    tap.equal({raw[4096 + 64 * i + 25] for i in range(2, 16)}, {14},
              "table: all are full")
    whole = bytearray(64)
    whole[60] = 4
    tap.equal(r.write(0, whole).error, 0, "table: reset all")
    r.close()


def tcp():
    free = socket.socket()
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    for address, family in ("127.0.0.1", socket.AF_INET), \
            ("::1", socket.AF_INET6):
        server = ZnbdServer(DISK, "-i", address, "-p", port)
        at = server.argv.index("-U")
        del server.argv[at:at + 2]
        try:
            server.start()
        except NbdkitError as e:
            tap.skip(address, e.text.strip().replace("\n", " "))
            continue
        s = socket.socket(family)
        s.connect((address, port))
        r = Raw(sock=s).begin()
        tap.equal(r.read(0, B).data, bytes(B), "TCP on " + address)
        r.close()
        server.stop()


with ZnbdServer(DISK) as server:
    greeting(server)
    options(server)
    meta(server)
    for kind in "simple", "structured", "extended":
        replies(server, kind)
    extended(server)
    others(server)
tcp()
tap.done_testing()
