#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the NBD specification demands of a server in the handshake, one
check for each demand; docs/nbd-conformance.md says which belong together.
A check goes by the bytes that come back and by nothing else.
"""

import struct

import nbd_raw as n
from nbd_raw import Raw
from harness import TAP, ZnbdServer

B = 4096
ZONE = 64 << 10
DISK = "memory:1M,zone-size=64k,conventional=2,read-only-zones=14," \
       "offline-zones=15"
ERR_TLS_REQD, ERR_EXT_HEADER_REQD = n.ERR + 5, n.ERR + 10

tap = TAP()


def refuses(r, option, data, error):
    """The option is answered with just this error."""
    return [x.type for x in r.option(option, data)] == [error]


def greeting(server):
    r = Raw(server.socket)
    tap.equal(r.greeting[2], 3,
              "the greeting has FIXED_NEWSTYLE, NO_ZEROES, and no other flag")
    r.close()
    for flag in 4, 1 << 16, 1 << 31:
        r = Raw(server.socket, flags=3 | flag)
        closed = r.is_closed()
        r.close()
        if not closed:
            break
    tap.ok(closed, "unknown client flags end the connection")
    r = Raw(server.socket)
    r.send_option(n.OPT_EXPORT_NAME, b"no such")
    tap.ok(r.is_closed(), "EXPORT_NAME of no export ends the connection")

    # What comes behind must be the reply to the read.
    for flags, zeroes, text in (
            (3, 0, "EXPORT_NAME with NO_ZEROES sends no zeroes"),
            (1, 124, "EXPORT_NAME without NO_ZEROES sends 124")):
        r = Raw(server.socket, flags=flags)
        r.send_option(n.OPT_EXPORT_NAME, b"")
        r.recv(10)
        r.send(n.CMD_READ, 0, B)
        more = r.recv(zeroes + 4)
        tap.equal(more, bytes(zeroes) + struct.pack(">I", n.SIMPLE_MAGIC),
                  text)
        r.close()
    r = Raw(server.socket, flags=1)
    r.go()
    r.send(n.CMD_READ, 0, B)
    tap.equal(r.recv(4), struct.pack(">I", n.SIMPLE_MAGIC),
              "GO sends no zeroes, NO_ZEROES or not")
    r.close()


def refusals(server):
    r = Raw(server.socket)
    got = set()
    for i in range(500):
        got.add(r.option(100 + i, b"x" * (i % 50))[-1].type)
    tap.equal(got, {n.ERR_UNSUP}, "unknown options are refused as such")
    tap.equal(r.option(n.OPT_LIST)[-1].type, n.REP_ACK,
              "500 refused options do not end the connection")
    tap.equal(r.option(77, b"y" * 200000)[-1].type, n.ERR_TOO_BIG,
              "an option that is too large is refused")
    tap.equal(r.option(n.OPT_LIST)[-1].type, n.REP_ACK,
              "and the next one is parsed")
    go = r.option(n.OPT_GO, r.info_data("no such"))
    tap.equal([x.type for x in go], [n.ERR_UNKNOWN], "GO of no export fails")
    tap.equal(r.option(n.OPT_LIST)[-1].type, n.REP_ACK,
              "after a GO that failed options go on")

    # Strings.
    r.option(n.OPT_STRUCTURED_REPLY)
    for option in n.OPT_INFO, n.OPT_LIST_META_CONTEXT:
        make = r.info_data if option == n.OPT_INFO else r.meta_data
        kind = "names" if option == n.OPT_INFO else "contexts' exports"
        tap.ok(refuses(r, option, make("a\0b"), n.ERR_INVALID),
               kind + " with NUL are refused")
        tap.ok(refuses(r, option, make("a" * 4096), n.ERR_UNKNOWN) and
               refuses(r, option, make("a" * 4097), n.ERR_INVALID),
               kind + " of 4096 bytes are taken, of 4097 refused")
    for option in n.OPT_LIST_META_CONTEXT, n.OPT_SET_META_CONTEXT:
        tap.ok(refuses(r, option, r.meta_data("", ["a:\0"]), n.ERR_INVALID)
               and refuses(r, option, r.meta_data("", ["a:" + "b" * 4095]),
                           n.ERR_INVALID)
               and refuses(r, option, r.meta_data("", ["a:" + "b" * 4094]),
                           n.REP_ACK),
               "queries of option %d: no NUL, 4096 bytes at most" % option)
    for option in n.OPT_INFO, n.OPT_GO:
        good = r.info_data("", (3,))
        for data in good[:-1], good[:5], b"", good + b"x", \
                struct.pack(">I", 7) + b"zones\0\0", \
                struct.pack(">I", (1 << 32) - 1) + b"\0\0":
            if not refuses(r, option, data, n.ERR_INVALID):
                break
        else:
            data = None
        tap.equal(data, None, "option %d: lengths that lie are refused"
                  % option)
    for option in n.OPT_LIST_META_CONTEXT, n.OPT_SET_META_CONTEXT:
        good = r.meta_data("", ["base:allocation"])
        for data in good[:-1], good[:9], b"", good + b"x", \
                struct.pack(">II", 0, 1), \
                good[:8] + struct.pack(">I", 1 << 31) + good[12:]:
            if not refuses(r, option, data, n.ERR_INVALID):
                break
        else:
            data = None
        tap.equal(data, None, "option %d: lengths that lie are refused"
                  % option)
    r.close()


def tls(server):
    """A server without TLS."""
    r = Raw(server.socket)
    got = r.option(n.OPT_STARTTLS)[-1].type
    tap.ok(got in (n.ERR_POLICY, n.ERR_UNSUP), "STARTTLS is refused")
    got = {r.option(o, data)[-1].type
           for o in (0, 3, 4, 5, 6, 8, 9, 10, 11, 12, 99)
           for data in (b"", b"x", r.info_data("none"), r.info_data(""))}
    tap.ok(ERR_TLS_REQD not in got, "no option is answered with TLS_REQD")
    tap.equal(r.option(n.OPT_STARTTLS, b"x")[-1].type, n.ERR_INVALID,
              "STARTTLS with data is refused as invalid")
    r.close()
    r = Raw(server.socket, flags=0)
    r.send_option(n.OPT_STARTTLS)
    tap.ok(r.is_closed(), "no STARTTLS without fixed newstyle")


def information(server, other):
    for name, s in ("", server), ("zones", server), ("", other):
        r = Raw(s.socket)
        replies = r.option(n.OPT_INFO, r.info_data(name, (1, 2, 3)))
        lengths = {struct.unpack(">H", x.data[:2])[0]: len(x.data)
                   for x in replies[:-1]}
        tap.ok(lengths.get(0) == 12 and lengths.get(3) == 14 and
               lengths.get(1) >= 2 and lengths.get(2) >= 2,
               "\"%s\" of %s: lengths of information"
               % (name, s.argv[-1][:9]), lengths)
        infos = {struct.unpack(">H", x.data[:2])[0]: x.data[2:]
                 for x in replies[:-1]}
        low, good, high = struct.unpack(">III", infos[3])
        size, _ = struct.unpack(">QH", infos[0])
        tap.ok(low & low - 1 == 0 and low <= 65536 and
               good & good - 1 == 0 and good >= max(low, 512) and
               high >= good and size % low == 0,
               "\"%s\" of %s: block sizes fit together"
               % (name, s.argv[-1][:9]), (low, good, high))
        r.close()
    r = Raw(server.socket)
    kinds = [struct.unpack(">H", x.data[:2])[0] for x in
             r.option(n.OPT_INFO, r.info_data("", ()))[:-1]]
    tap.ok(n.INFO_EXPORT in kinds, "INFO_EXPORT comes before the ACK")
    tap.ok(n.INFO_BLOCK_SIZE in kinds,
           "block sizes are told, asked for or not")
    replies = r.option(n.OPT_INFO, r.info_data("", (4, 99, 65535, 3)))
    tap.equal(replies[-1].type, n.REP_ACK,
              "unknown kinds of information are ignored")
    r.close()

    # INFO and then GO, in every state.
    same = []
    for state in range(8):
        for name in "", "zones":
            r = Raw(server.socket)
            if state & 1:
                r.option(n.OPT_STRUCTURED_REPLY)
            if state & 2:
                r.option(n.OPT_EXTENDED_HEADERS)
            if state & 4:
                r.option(n.OPT_SET_META_CONTEXT,
                         r.meta_data("", ["base:allocation"]))
            data = r.info_data(name, (1, 2, 3))
            info = r.option(n.OPT_INFO, data)
            go = r.option(n.OPT_GO, data)
            if sorted(info) != sorted(go):
                same.append((state, name, info, go))
            r.close()
    tap.equal(same, [], "INFO and then GO say the same")

    r = Raw(server.socket).begin(extended=True)
    tap.equal(r.read(0, B).error, 0, "GO with extended headers succeeds")
    r.close()

    # A client that was told no block sizes.
    r = Raw(server.socket)
    r.send_option(n.OPT_EXPORT_NAME, b"")
    r.recv(10)
    r.write(0, b"a" * B)
    errors = [r.write(at, b"b" * size).error
              for at, size in ((0, 512), (512, B), (1, 1), (0, B + 512),
                               (0, (32 << 20) + B))]
    errors += [r.ask(n.CMD_WRITE_ZEROES, 512, 512).error,
               r.ask(n.CMD_TRIM, 1, 1).error, r.read(1, 1).error]
    tap.ok(0 not in errors, "off the block sizes: refused", errors)
    tap.equal(r.read(0, 2 * B).data, b"a" * B + bytes(B),
              "off the block sizes: nothing is corrupted")
    r.close()


def flags(server, readonly):
    for s in server, readonly:
        for name in "", "zones":
            for kind in "simple", "structured", "extended":
                r = Raw(s.socket)
                if kind != "simple":
                    r.option(n.OPT_STRUCTURED_REPLY)
                if kind == "extended":
                    r.option(n.OPT_EXTENDED_HEADERS)
                if kind != "simple":
                    r.meta(n.OPT_SET_META_CONTEXT, ["base:allocation"], name)
                r.go(name)
                f = r.flags
                what = "%s%s %s: " % (
                    "read-only " if s is readonly else "",
                    name or "disk", kind)
                tap.ok(f & n.HAS_FLAGS, what + "HAS_FLAGS")
                tap.equal((bool(f & n.SEND_DF), r.read(
                    0, B, n.FLAG_DF).error == 0), (kind != "simple",) * 2,
                    what + "DF with chunks, and only then")
                tap.equal((bool(f & n.BLOCK_STATUS_PAYLOAD),
                           kind == "extended" and
                           r.status(0, B, only=[1]).error == 0),
                          (kind == "extended",) * 2,
                          what + "payloads with extended headers only")
                good = {
                    n.SEND_FLUSH: r.ask(n.CMD_FLUSH).error == 0,
                    n.SEND_FUA: r.read(0, B, n.FLAG_FUA).error == 0,
                    n.SEND_TRIM: r.ask(n.CMD_TRIM, 0, B).error == 0,
                    n.SEND_WRITE_ZEROES:
                        r.ask(n.CMD_WRITE_ZEROES, 0, B).error == 0,
                    n.SEND_CACHE: r.ask(n.CMD_CACHE, 0, B).error == 0,
                    n.SEND_FAST_ZERO:
                        r.ask(n.CMD_WRITE_ZEROES, 0, B,
                              n.FLAG_FAST_ZERO).error == 0,
                    n.READ_ONLY: r.write(0, bytes(B)).error == n.EPERM,
                }
                tap.equal({k for k in good if f & k},
                          {k for k in good if good[k]},
                          what + "flags say what works")
                r.close()


def contexts(server):
    r = Raw(server.socket)
    r.option(n.OPT_STRUCTURED_REPLY)
    everything = r.meta(n.OPT_LIST_META_CONTEXT)
    tap.ok(all(0 < x.find(":") < len(x) - 1 and len(x) <= 4096 and
               "\0" not in x and x.split(":")[0] in ("base", "x-zbd")
               for x in everything), "contexts are called namespace:leaf",
           everything)
    chosen = r.meta(n.OPT_SET_META_CONTEXT, everything)
    tap.equal(set(chosen), set(everything),
              "no query lists all that can be selected, nothing else")
    tap.equal(len(set(chosen.values())), len(everything),
              "SET: each context comes once, with an id of its own")
    tap.equal(r.meta(n.OPT_LIST_META_CONTEXT, ["base:"]),
              {"base:allocation": 0}, "LIST takes base: as a wildcard")
    for name in everything:
        if name not in r.meta(n.OPT_LIST_META_CONTEXT, ["x:y", name]):
            break
    else:
        name = None
    tap.equal(name, None, "LIST finds each by its name")
    for query, text in (("base:", "SET ignores base:"),
                        ("base:other", "an unknown leaf of base: is ignored"),
                        ("foreign:thing", "a foreign namespace is ignored")):
        tap.equal(sorted(r.meta(n.OPT_SET_META_CONTEXT,
                                [query, "x-zbd:zones"])),
                  ["x-zbd:zones"], text)
    for option in n.OPT_LIST_META_CONTEXT, n.OPT_SET_META_CONTEXT:
        tap.equal(r.option(option, r.meta_data(
            "", ["foreign:", "base:other", "a:b"])),
            [n.Reply(n.REP_ACK, b"")],
            "option %d that finds nothing: one ACK" % option)
    got = {x.type for o in (n.OPT_LIST_META_CONTEXT, n.OPT_SET_META_CONTEXT)
           for q in ([], ["base:"], ["base:allocation"], list(everything))
           for x in r.option(o, r.meta_data("", q))}
    tap.equal(got, {n.REP_META_CONTEXT, n.REP_ACK},
              "contexts never fail for want of extended headers")
    r.meta(n.OPT_SET_META_CONTEXT, ["base:allocation"])
    r.meta(n.OPT_SET_META_CONTEXT, [])
    r.go()
    tap.equal(r.status(0, B).error, n.EINVAL, "SET of no query selects none")
    r.close()


def names():
    """What the server calls things."""
    name = "é" * 2045           # 4090 bytes
    with ZnbdServer(DISK, name=name) as server:
        r = Raw(server.socket)
        replies = r.option(n.OPT_LIST)
        texts, good = [], True
        for x in replies[:-1]:
            length, = struct.unpack(">I", x.data[:4])
            good = good and length <= len(x.data) - 4
            texts += [x.data[4:4 + length], x.data[4 + length:]]
        tap.ok(good, "LIST: names fit into their replies")
        replies = r.option(n.OPT_INFO, r.info_data(name, (1, 2)))
        texts += [x.data[2:] for x in replies
                  if x.data[:2] in (b"\0\1", b"\0\2")]
        tap.ok(name.encode() in texts and
               (name + "/zones").encode() in texts,
               "names of 4096 bytes are served")
        r.option(n.OPT_STRUCTURED_REPLY)
        replies = r.option(n.OPT_LIST_META_CONTEXT, r.meta_data(name))
        texts += [x.data[4:] for x in replies[:-1]]
        for option, data in ((99, b""), (n.OPT_GO, r.info_data("é" * 2048)),
                             (n.OPT_GO, b"")):
            texts.append(r.option(option, data)[-1].data)
        tap.equal([t for t in texts if len(t) > 4096 or b"\0" in t or
                   t.decode(errors="replace").encode() != t], [],
                  "the server's strings: UTF-8, no NUL, 4096 bytes at most")
        r.close()


def baseline(server):
    r = Raw(server.socket)
    tap.equal(r.option(n.OPT_ABORT), [n.Reply(n.REP_ACK, b"")],
              "ABORT is acknowledged")
    r.close()
    r = Raw(server.socket)
    tap.equal(r.option(n.OPT_ABORT, b"data")[-1].type, n.REP_ACK,
              "ABORT with data is acknowledged")
    r.close()
    r = Raw(server.socket)
    listed = r.option(n.OPT_LIST)
    r.go("", option=n.OPT_INFO)
    r.go("")
    r.write(0, b"base" * 1024)
    data = r.read(0, B).data
    r.send(n.CMD_DISC)
    tap.ok(listed[-1].type == n.REP_ACK and data == b"base" * 1024 and
           r.is_closed(), "the baseline: LIST, INFO, GO, read, write, DISC")


with ZnbdServer(DISK) as server, ZnbdServer(DISK, "-r") as readonly, \
     ZnbdServer("memory:1M,zone-size=64k,block-size=512,"
                "model=host-aware") as other:
    greeting(server)
    refusals(server)
    tls(server)
    information(server, other)
    flags(server, readonly)
    contexts(server)
    baseline(server)
names()
tap.done_testing()
