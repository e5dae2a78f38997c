#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the NBD specification demands of a server's replies, one check for
each demand; docs/nbd-conformance.md says which belong together.  Messages
are taken apart here, and not by the tests' client, which believes some of
what is to be shown.
"""

import random
import struct
from collections import namedtuple

import nbd_raw as n
from nbd_raw import Raw
from harness import TAP, ZnbdServer

B = 4096
ZONE = 64 << 10
ZONES = 16
SIZE = ZONES * ZONE
OFFLINE = 15 * ZONE
DISK = "memory:1M,zone-size=64k,zone-capacity=48k,conventional=2," \
       "read-only-zones=14,offline-zones=15"
CONTEXTS = ["base:allocation", "x-zbd:zones", "x-zbd:append", "x-zbd:open"]
MAX_STRING = 4096

tap = TAP()

# magic: of the message; offset: extended only; data: the payload.
Message = namedtuple("Message", "magic flags type cookie offset data error")


class Wire(Raw):
    """Sends requests with cookies that were chosen, and takes messages as
    they come."""

    def request(self, command, offset=0, length=0, flags=0, payload=b"",
                cookie=1):
        if self.extended:
            if command == n.CMD_WRITE:
                flags |= n.FLAG_PAYLOAD_LEN
            head = struct.pack(">IHHQQQ", n.REQUEST_EXT_MAGIC, flags,
                               command, cookie, offset, length)
        else:
            head = struct.pack(">IHHQQI", n.REQUEST_MAGIC, flags, command,
                               cookie, offset, length)
        self.raw(head + payload)

    def message(self, length=0):
        """The next one; length: of the data of a simple reply."""
        magic, = struct.unpack(">I", self.recv(4))
        if magic == n.SIMPLE_MAGIC:
            error, cookie = struct.unpack(">IQ", self.recv(12))
            return Message(magic, None, None, cookie, None,
                           b"" if error else self.recv(length), error)
        if magic == n.CHUNK_MAGIC:
            flags, kind, cookie, size = struct.unpack(">HHQI", self.recv(16))
            offset = None
        else:
            assert magic == n.REPLY_EXT_MAGIC, hex(magic)
            flags, kind, cookie, offset, size = \
                struct.unpack(">HHQQQ", self.recv(28))
        return Message(magic, flags, kind, cookie, offset, self.recv(size),
                       0)

    def reply(self, command, offset=0, length=0, flags=0, payload=b"",
              cookie=1):
        """Asks; all messages of the reply."""
        self.request(command, offset, length, flags, payload, cookie)
        got = [self.message(length if command == n.CMD_READ else 0)]
        while got[-1].flags is not None and not got[-1].flags & n.DONE:
            got.append(self.message())
        return got

    def data(self, *what, **more):
        """Of a successful read."""
        pieces = {}
        for m in self.reply(n.CMD_READ, *what, **more):
            if m.magic == n.SIMPLE_MAGIC:
                return m.data
            if m.type == n.TYPE_DATA:
                pieces[struct.unpack(">Q", m.data[:8])[0]] = m.data[8:]
            elif m.type == n.TYPE_HOLE:
                at, size = struct.unpack(">QI", m.data)
                pieces[at] = bytes(size)
        return b"".join(p for _, p in sorted(pieces.items()))


def error_of(reply):
    """0, or what it fails with."""
    for m in reply:
        if m.error:
            return m.error
        if m.type is not None and m.type & 1 << 15:
            return struct.unpack(">I", m.data[:4])[0]
    return 0


def client(server, kind, contexts=CONTEXTS[:2], name=""):
    w = Wire(server.socket)
    w.begin(name, contexts if kind != "simple" else (),
            structured=kind != "simple", extended=kind == "extended")
    return w


# Some of everything, well and ill: command, offset, length, flags, payload.
REQUESTS = [
    (n.CMD_READ, 0, B), (n.CMD_READ, 2 * ZONE - B, 4 * B),
    (n.CMD_READ, 0, SIZE - ZONE), (n.CMD_READ, 0, B, n.FLAG_DF),
    (n.CMD_READ, 0, 0), (n.CMD_READ, SIZE, B), (n.CMD_READ, 1, 1),
    (n.CMD_READ, OFFLINE, B), (n.CMD_READ, 0, B, 1 << 9),
    (n.CMD_READ, OFFLINE - B, 2 * B), (n.CMD_READ, 0, B, n.FLAG_REQ_ONE),
    (n.CMD_WRITE, 0, B, 0, bytes(B)), (n.CMD_WRITE, 0, B, 2, bytes(B)),
    (n.CMD_WRITE, SIZE, B, 0, bytes(B)), (n.CMD_WRITE, 0, 1, 0, b"x"),
    (n.CMD_WRITE, OFFLINE, B, 0, bytes(B)),
    (n.CMD_WRITE, 14 * ZONE, B, 0, bytes(B)),
    (n.CMD_FLUSH, 0, 0), (n.CMD_FLUSH, 0, 0, n.FLAG_DF),
    (n.CMD_TRIM, 0, B), (n.CMD_TRIM, SIZE, B), (n.CMD_TRIM, 0, B, 8),
    (n.CMD_CACHE, 0, B), (n.CMD_CACHE, SIZE, B), (n.CMD_CACHE, 0, B, 2),
    (n.CMD_CACHE, 0, B, 1 << 15),
    (n.CMD_WRITE_ZEROES, 0, B), (n.CMD_WRITE_ZEROES, SIZE, B),
    (n.CMD_WRITE_ZEROES, 0, B, n.FLAG_DF),
    (n.CMD_BLOCK_STATUS, 0, SIZE), (n.CMD_BLOCK_STATUS, SIZE, B),
    (n.CMD_BLOCK_STATUS, 0, SIZE, n.FLAG_REQ_ONE),
    (n.CMD_BLOCK_STATUS, 0, 0), (n.CMD_BLOCK_STATUS, 0, B, n.FLAG_DF),
    (8, 0, B), (1000, 0, 0),
]

# Those of them that fail, by what is wrong.
FAILING = {
    "past the end": [r for r in REQUESTS if r[1] == SIZE],
    "with flags that do not belong to the command":
        [r for r in REQUESTS if len(r) > 3 and r[3]
         and r[:4] not in ((n.CMD_READ, 0, B, n.FLAG_DF),
                           (n.CMD_BLOCK_STATUS, 0, SIZE, n.FLAG_REQ_ONE))],
    "of zones that cannot": [r for r in REQUESTS
                             if r[0] < 2 and 14 * ZONE <= r[1] < SIZE],
    "off the block size": [r for r in REQUESTS if r[2] == 1],
    "that there are not": [(8, 0, B), (1000, 0, 0)],
}


def every_reply(server, kind):
    """Demands on each message of each reply."""
    w = client(server, kind)
    replies = [(r, w.reply(*r, cookie=i + (1 << 40)), i + (1 << 40))
               for i, r in enumerate(REQUESTS)]
    messages = [(r, m) for r, reply, _ in replies for m in reply]
    what = kind + ": "
    tap.equal([r for r, reply, cookie in replies
               for m in reply if m.cookie != cookie], [],
              what + "each message has its request's cookie")
    for cookie in 0, (1 << 64) - 1, 0x6744669825609513:
        if w.reply(n.CMD_FLUSH, cookie=cookie)[0].cookie != cookie:
            break
    else:
        cookie = None
    tap.equal(cookie, None, what + "a cookie may be anything")
    magics = {m.magic for _, m in messages}
    reads = {m.magic for r, m in messages if r[0] == n.CMD_READ}
    with_data = {m.magic for _, m in messages if m.data}
    if kind == "simple":
        tap.equal(magics, {n.SIMPLE_MAGIC}, what + "nothing but simple ones")
    elif kind == "structured":
        tap.equal(reads, {n.CHUNK_MAGIC},
                  what + "no read has a simple reply, whatever is wrong")
        tap.equal((with_data, magics <= {n.CHUNK_MAGIC, n.SIMPLE_MAGIC}),
                  ({n.CHUNK_MAGIC}, True), what + "payload is in chunks")
    else:
        tap.equal(magics, {n.REPLY_EXT_MAGIC},
                  what + "nothing but extended ones")
        tap.equal([r for r, m in messages if m.offset != r[1]], [],
                  what + "each has its request's offset")
    # A reply's end is DONE, so messages too many are seen by the next.
    tap.equal([m for _, m in messages if m.flags not in (None, 0, n.DONE)],
              [], what + "no flag but DONE")
    tap.equal([r for r, reply, _ in replies if error_of(reply) and
               any(m.type in (n.TYPE_DATA, n.TYPE_HOLE) or
                   m.magic == n.SIMPLE_MAGIC and m.data for m in reply)],
              [], what + "an error comes without content")
    for text, requests in FAILING.items():
        tap.equal([r for r in requests if not error_of(w.reply(*r))], [],
                  what + "requests " + text + " fail")
    tap.equal(error_of(w.reply(n.CMD_READ, 0, B)), 0,
              what + "and the connection lives on")
    chunks = [(r, m) for r, m in messages if m.flags is not None]
    tap.equal([m for _, m in chunks if m.type == n.TYPE_NONE and
               (m.data or m.flags != n.DONE)], [],
              what + "chunks of type NONE are empty and the last")
    bad = []
    for r, m in chunks:
        if m.type & 1 << 15:
            error, length = struct.unpack(">IH", m.data[:6])
            if m.type != n.TYPE_ERROR or not error or \
                    length != len(m.data) - 6 or length > MAX_STRING or \
                    b"\0" in m.data[6:]:
                bad.append((r, m))
            m.data[6:].decode()
    tap.equal(bad, [], what + "error chunks have an error, and words of at "
              "most 4096 bytes")
    w.close()


def content(server, kind):
    """Chunks of reads, over data and holes everywhere."""
    w = client(server, kind)
    w.reply(n.CMD_TRIM, 0, SIZE)
    want = bytearray(SIZE)
    rng = random.Random(1)
    for zone in range(0, 14):
        size = rng.randrange(12) * B
        data = bytes([zone + 1]) * size
        want[zone * ZONE:zone * ZONE + size] = data
        if size:
            assert not error_of(w.reply(n.CMD_WRITE, zone * ZONE, size, 0,
                                        data))
    outside, overlaps, empty, uncovered, lengths, wrong = \
        [], [], [], [], [], []
    for i in range(300):
        offset = rng.randrange(14 * ZONE // B) * B
        length = rng.randrange(1, (14 * ZONE - offset) // B + 1) * B
        reply = w.reply(n.CMD_READ, offset, length)
        if kind == "simple":
            if reply[0].data != want[offset:offset + length]:
                wrong.append((offset, length))
            continue
        spans = []
        got = bytearray(length)
        for m in reply:
            if m.type == n.TYPE_DATA:
                at, size = struct.unpack(">Q", m.data[:8])[0], \
                    len(m.data) - 8
                got[at - offset:at - offset + size] = m.data[8:]
            elif m.type == n.TYPE_HOLE:
                if len(m.data) != 12:
                    lengths.append(m)
                at, size = struct.unpack(">QI", m.data[:12])
            else:
                continue
            if size < 1:
                empty.append((offset, length))
            if at < offset or at + size > offset + length:
                outside.append((offset, length, at, size))
            spans.append((at, at + size))
        spans.sort()
        if any(a[1] > b[0] for a, b in zip(spans, spans[1:])):
            overlaps.append((offset, length))
        if sum(b - a for a, b in spans) < length:
            uncovered.append((offset, length))
        if got != want[offset:offset + length]:
            wrong.append((offset, length))
    tap.equal(wrong, [], kind + ": reads give what was written")
    if kind == "simple":
        w.close()
        return
    tap.equal(outside, [], kind + ": content lies within the request")
    tap.equal(overlaps, [], kind + ": content does not overlap")
    tap.equal(uncovered, [], kind + ": content covers the request")
    tap.equal((empty, lengths), ([], []), kind + ": no content is empty")
    reply = w.reply(n.CMD_READ, 0, 0)
    tap.equal([m.type for m in reply], [n.TYPE_NONE],
              kind + ": a read of nothing has no content")
    frag = []
    for offset, length in ((0, SIZE - ZONE), (2 * ZONE, 65536),
                           (2 * ZONE - B, 65536), (5 * ZONE + B, ZONE)):
        reply = w.reply(n.CMD_READ, offset, length, n.FLAG_DF)
        parts = [m for m in reply if m.type in (n.TYPE_DATA, n.TYPE_HOLE)]
        if len(parts) != 1 or parts[0].data[8:] != \
                want[offset:offset + length]:
            frag.append((offset, length, [m.type for m in reply]))
    tap.equal(frag, [], kind + ": DF brings one chunk, zeros in it")
    w.close()
    # More than the maximum: all data, for a hole would be short.
    with ZnbdServer("memory:128M,zone-size=64M,conventional=2") as large:
        w = client(large, kind)
        reply = w.reply(n.CMD_READ, 0, 32 << 20)
        fits = max(len(m.data) for m in reply)
        over = w.reply(n.CMD_READ, 0, (32 << 20) + B)
        tap.ok((32 << 20) <= fits <= (32 << 20) + 8 and
               max(len(m.data) for m in over) <= (32 << 20) + 8,
               kind + ": no chunk is larger than the maximum payload",
               fits, [len(m.data) for m in over])
        w.close()


def statuses(server, kind):
    w = client(server, kind, CONTEXTS)
    ids = sorted(w.ids.values())
    w.reply(n.CMD_TRIM, 0, SIZE)
    for zone in range(2, 12, 3):
        w.reply(n.CMD_WRITE, zone * ZONE, B, 0, bytes(B))
    head = 8 if kind == "extended" else 4
    each = 16 if kind == "extended" else 8
    wanted = n.TYPE_STATUS_EXT if kind == "extended" else n.TYPE_STATUS
    kinds, contexts, counts, empty, off, long, one, high = \
        ([] for _ in range(8))
    rng = random.Random(2)
    for i in range(200):
        offset = rng.randrange(SIZE // B) * B
        length = rng.randrange(1, (SIZE - offset) // B + 1) * B
        flags = n.FLAG_REQ_ONE if i % 3 == 0 else 0
        what = (offset, length, flags)
        reply = w.reply(n.CMD_BLOCK_STATUS, *what)
        if any(m.type not in (wanted, n.TYPE_NONE) for m in reply):
            kinds.append((what, [m.type for m in reply]))
        found = []
        for m in reply:
            if m.type == n.TYPE_NONE:
                continue
            found.append(struct.unpack(">I", m.data[:4])[0])
            count = (len(m.data) - head) // each
            if count < 1 or len(m.data) != head + count * each or \
                    head == 8 and \
                    struct.unpack(">I", m.data[4:8])[0] != count:
                counts.append(what)
            extents = list(struct.iter_unpack(
                ">QQ" if head == 8 else ">II", m.data[head:]))
            if any(size == 0 for size, _ in extents):
                empty.append(what)
            if any(size % B for size, _ in extents):
                off.append(what)
            if sum(size for size, _ in extents[:-1]) >= length:
                long.append(what)
            if flags and (len(extents) > 1 or extents[0][0] > length):
                one.append(what)
            if any(f >> 32 for _, f in extents):
                high.append(what)
        if sorted(found) != ids:
            contexts.append((what, found))
    tap.equal(kinds, [], kind + ": status chunks are of its type")
    tap.equal(contexts, [], kind + ": one status chunk for each context")
    tap.equal(counts, [], kind + ": counts and lengths of descriptors agree")
    tap.equal(empty, [], kind + ": no descriptor is empty")
    tap.equal(off, [], kind + ": descriptors are multiples of the block size")
    tap.equal(long, [], kind + ": only the last descriptor may pass the end")
    tap.equal(one, [], kind + ": REQ_ONE, one descriptor inside the request")
    tap.equal(high, [], kind + ": status flags have 32 bits")
    w.close()


def payloads(server):
    w = client(server, "extended", CONTEXTS[:2])
    good, other = sorted(w.ids.values())
    at_end = []
    for text, payload in (
            ("an unknown id", struct.pack(">QI", B, 99)),
            ("an id twice", struct.pack(">QII", B, good, good)),
            ("no id", struct.pack(">Q", B)),
            ("half an id", struct.pack(">QIH", B, good, 0)),
            ("nothing of sense", b"xyz"),
            ("too many ids", struct.pack(">Q", B) + bytes(4000))):
        error = error_of(w.reply(n.CMD_BLOCK_STATUS, 0, len(payload),
                                 n.FLAG_PAYLOAD_LEN, payload))
        tap.equal(error, n.EINVAL, "a payload with %s is refused" % text)
        if w.reply(n.CMD_FLUSH, cookie=77)[0].cookie != 77:
            at_end.append(text)
    for command in n.CMD_READ, n.CMD_TRIM, n.CMD_FLUSH, n.CMD_CACHE, 9:
        error = error_of(w.reply(command, 0, B, n.FLAG_PAYLOAD_LEN,
                                 bytes(B)))
        if error != n.EINVAL or \
                w.reply(n.CMD_FLUSH, cookie=77)[0].cookie != 77:
            at_end.append((command, error))
    w.close()
    w = client(server, "extended", ())
    payload = struct.pack(">QI", B, 1)
    error = error_of(w.reply(n.CMD_BLOCK_STATUS, 0, len(payload),
                             n.FLAG_PAYLOAD_LEN, payload))
    if error != n.EINVAL or w.reply(n.CMD_FLUSH, cookie=77)[0].cookie != 77:
        at_end.append("without contexts")
    tap.equal(at_end, [], "payloads that are refused are consumed")
    w.close()


with ZnbdServer(DISK) as server:
    for kind in "simple", "structured", "extended":
        every_reply(server, kind)
        content(server, kind)
        if kind != "simple":
            statuses(server, kind)
    payloads(server)
tap.done_testing()
