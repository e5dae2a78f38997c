# SPDX-License-Identifier: BSD-3-Clause
"""An NBD client of the tests' own, which sends what it is told to, right or
wrong, and shows every message that comes back.  Written from the protocol's
specification.

    r = Raw(server.socket)              # the greeting is read
    r.option(OPT_STRUCTURED_REPLY)      # [Reply(REP_ACK, b"")]
    r.go("")                            # r.size, r.flags
    cookie = r.send(CMD_READ, 0, 4096)
    r.reply(cookie)                     # Answer: .error, .data, .chunks
"""

import socket
import struct
from collections import namedtuple

MAGIC = 0x4e42444d41474943
OPTION_MAGIC = 0x49484156454f5054
OPTION_REPLY_MAGIC = 0x0003e889045565a9
REQUEST_MAGIC = 0x25609513
SIMPLE_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668e33ef
REQUEST_EXT_MAGIC = 0x21e41c71
REPLY_EXT_MAGIC = 0x6e8a278c

C_FIXED, C_NO_ZEROES = 1, 2

(OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO,
 OPT_STRUCTURED_REPLY, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT,
 OPT_EXTENDED_HEADERS) = 1, 2, 3, 5, 6, 7, 8, 9, 10, 11

REP_ACK, REP_SERVER, REP_INFO, REP_META_CONTEXT = 1, 2, 3, 4
ERR = 1 << 31
(ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_TLS_REQD, ERR_UNKNOWN,
 ERR_TOO_BIG) = ERR + 1, ERR + 2, ERR + 3, ERR + 5, ERR + 6, ERR + 9

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

(CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE,
 CMD_WRITE_ZEROES, CMD_BLOCK_STATUS) = range(8)

(FLAG_FUA, FLAG_NO_HOLE, FLAG_DF, FLAG_REQ_ONE, FLAG_FAST_ZERO,
 FLAG_PAYLOAD_LEN) = 1, 2, 4, 8, 16, 32

(HAS_FLAGS, READ_ONLY, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES,
 SEND_DF, CAN_MULTI_CONN, SEND_CACHE, SEND_FAST_ZERO,
 BLOCK_STATUS_PAYLOAD) = (1 << n for n in (0, 1, 2, 3, 5, 6, 7, 8, 10, 11,
                                           12))

DONE = 1
(TYPE_NONE, TYPE_DATA, TYPE_HOLE, TYPE_STATUS, TYPE_STATUS_EXT,
 TYPE_ERROR) = 0, 1, 2, 5, 6, 0x8001

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP = \
    1, 5, 12, 22, 28, 75, 95

Reply = namedtuple("Reply", "type data")
Chunk = namedtuple("Chunk", "flags type data")


class Closed(Exception):
    """The server ended the connection."""


class Answer:
    """All of a reply.  extents: {context id: [(length, flags)...]}."""

    def __init__(self):
        self.simple = False
        self.error = 0
        self.message = ""
        self.chunks = []
        self.pieces = {}        # offset: bytes, or the length of a hole
        self.extents = {}

    @property
    def data(self):
        return b"".join(p if isinstance(p, bytes) else bytes(p)
                        for _, p in sorted(self.pieces.items()))

    def __repr__(self):
        return "Answer(error=%d, message=%r, chunks=%r)" % (
            self.error, self.message, [c[:2] for c in self.chunks])


class Raw:
    def __init__(self, path=None, sock=None, flags=C_FIXED | C_NO_ZEROES,
                 timeout=20):
        if sock is None:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
        self.s = sock
        self.s.settimeout(timeout)
        self.extended = self.structured = False
        self.cookie = 0x1122334455667700
        self.reads = {}
        self.answers = {}
        self.greeting = struct.unpack(">QQH", self.recv(18))
        if flags is not None:
            self.raw(struct.pack(">I", flags))

    def raw(self, data):
        try:
            self.s.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed() from None

    def recv(self, n):
        data = bytearray()
        while len(data) < n:
            try:
                more = self.s.recv(n - len(data))
            except ConnectionResetError:
                raise Closed() from None
            if not more:
                raise Closed()
            data += more
        return bytes(data)

    def is_closed(self):
        """Nothing more comes."""
        try:
            self.recv(1)
        except Closed:
            return True
        return False

    def close(self):
        self.s.close()

    # ---- handshake

    def send_option(self, option, data=b"", length=None):
        self.raw(struct.pack(">QII", OPTION_MAGIC, option,
                             len(data) if length is None else length) + data)

    def option_reply(self):
        magic, option, kind, length = struct.unpack(">QIII", self.recv(20))
        assert magic == OPTION_REPLY_MAGIC, hex(magic)
        self.last_option = option
        return Reply(kind, self.recv(length))

    def option(self, option, data=b"", length=None):
        """Sends one and returns its replies, up to the final one."""
        self.send_option(option, data, length)
        replies = [self.option_reply()]
        while replies[-1].type not in (REP_ACK,) and \
                not replies[-1].type & ERR:
            replies.append(self.option_reply())
        if replies[-1].type == REP_ACK:
            if option == OPT_STRUCTURED_REPLY:
                self.structured = True
            if option == OPT_EXTENDED_HEADERS:
                self.structured = self.extended = True
        return replies

    def starttls(self, wrap):
        """wrap makes a socket one with TLS; what was negotiated before is
        forgotten, as the protocol has it.  Returns self."""
        assert self.option(OPT_STARTTLS)[-1].type == REP_ACK
        self.s = wrap(self.s)
        self.structured = self.extended = False
        return self

    @staticmethod
    def info_data(name="", infos=()):
        name = name.encode()
        return struct.pack(">I", len(name)) + name + \
            struct.pack(">H%dH" % len(infos), len(infos), *infos)

    @staticmethod
    def meta_data(name="", queries=()):
        name = name.encode()
        data = struct.pack(">I", len(name)) + name
        data += struct.pack(">I", len(queries))
        for q in queries:
            q = q.encode()
            data += struct.pack(">I", len(q)) + q
        return data

    def meta(self, option, queries=(), name=""):
        """{context: id} of LIST or SET."""
        replies = self.option(option, self.meta_data(name, queries))
        assert replies[-1].type == REP_ACK, replies
        return {r.data[4:].decode(): struct.unpack(">I", r.data[:4])[0]
                for r in replies[:-1]}

    def go(self, name="", infos=(), option=OPT_GO):
        replies = self.option(option, self.info_data(name, infos))
        assert replies[-1].type == REP_ACK, replies
        self.infos = {struct.unpack(">H", r.data[:2])[0]: r.data[2:]
                      for r in replies[:-1]}
        self.size, self.flags = struct.unpack(">QH", self.infos[INFO_EXPORT])
        return replies

    def begin(self, name="", contexts=(), structured=True, extended=False):
        """The whole handshake; returns self, with .ids of the contexts."""
        if extended:
            assert self.option(OPT_EXTENDED_HEADERS)[-1].type == REP_ACK
        elif structured:
            assert self.option(OPT_STRUCTURED_REPLY)[-1].type == REP_ACK
        self.ids = {}
        if contexts:
            self.ids = self.meta(OPT_SET_META_CONTEXT, contexts, name)
        self.go(name)
        return self

    # ---- transmission

    def send(self, command, offset=0, length=0, flags=0, payload=b"",
             magic=None):
        """Sends a request; returns its cookie."""
        self.cookie += 1
        if self.extended:
            if command == CMD_WRITE:
                flags ^= FLAG_PAYLOAD_LEN
            head = struct.pack(">IHHQQQ", magic or REQUEST_EXT_MAGIC, flags,
                               command, self.cookie, offset, length)
        else:
            head = struct.pack(">IHHQQI", magic or REQUEST_MAGIC, flags,
                               command, self.cookie, offset, length)
        self.reads[self.cookie] = (command, offset, length)
        self.raw(head + payload)
        return self.cookie

    def _simple(self, head):
        error, cookie = struct.unpack(">IQ", head)
        answer = Answer()
        answer.simple = True
        answer.error = error
        command, offset, length = self.reads.pop(cookie)
        if command == CMD_READ and error == 0:
            answer.pieces[offset] = self.recv(length)
        self.answers[cookie] = answer

    def _chunk(self):
        """Reads one message; files it."""
        magic, = struct.unpack(">I", self.recv(4))
        if magic == SIMPLE_MAGIC:
            assert not self.extended
            self._simple(self.recv(12))
            return
        if self.extended:
            assert magic == REPLY_EXT_MAGIC, hex(magic)
            flags, kind, cookie, offset, length = \
                struct.unpack(">HHQQQ", self.recv(28))
            assert offset == self.reads[cookie][1], "offset of the reply"
        else:
            assert magic == CHUNK_MAGIC, hex(magic)
            flags, kind, cookie, length = \
                struct.unpack(">HHQI", self.recv(16))
        data = self.recv(length)
        answer = self.answers.setdefault(cookie, Answer())
        answer.chunks.append(Chunk(flags, kind, data))
        if kind == TYPE_DATA:
            answer.pieces[struct.unpack(">Q", data[:8])[0]] = data[8:]
        elif kind == TYPE_HOLE:
            at, size = struct.unpack(">QI", data)
            answer.pieces[at] = size
        elif kind == TYPE_ERROR:
            answer.error, n = struct.unpack(">IH", data[:6])
            answer.message = data[6:].decode()
            assert n == len(data) - 6, "length of the message"
        elif kind == TYPE_STATUS:
            answer.extents[struct.unpack(">I", data[:4])[0]] = list(
                struct.iter_unpack(">II", data[4:]))
        elif kind == TYPE_STATUS_EXT:
            context, count = struct.unpack(">II", data[:8])
            answer.extents[context] = list(
                struct.iter_unpack(">QQ", data[8:]))
            assert count == len(answer.extents[context])
        if flags & DONE:
            self.reads.pop(cookie)

    def reply(self, cookie):
        while cookie in self.reads:
            self._chunk()
        return self.answers.pop(cookie)

    def ask(self, command, offset=0, length=0, flags=0, payload=b""):
        return self.reply(self.send(command, offset, length, flags, payload))

    def read(self, offset, length, flags=0):
        return self.ask(CMD_READ, offset, length, flags)

    def write(self, offset, data, flags=0):
        return self.ask(CMD_WRITE, offset, len(data), flags, data)

    def status(self, offset, length, flags=0, only=None):
        """BLOCK_STATUS; only: the context ids of a payload."""
        if only is None:
            return self.ask(CMD_BLOCK_STATUS, offset, length, flags)
        payload = struct.pack(">Q%dI" % len(only), length, *only)
        return self.ask(CMD_BLOCK_STATUS, offset, len(payload),
                        flags | FLAG_PAYLOAD_LEN, payload)
