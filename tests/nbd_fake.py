# SPDX-License-Identifier: BSD-3-Clause
"""NBD servers of the tests' own, for what no honest server does.

Fake is a server that answers what it is told to, true or not:

    with Fake(size=1 << 20, contexts=["x-zbd:zones", ...]) as fake:
        fake.status = lambda names, offset, length, flags: [(length, 0x21)]

Proxy stands before another server and hides some of what it has: the zone
table, or the contexts.
"""

import os
import socket
import struct
import threading

import nbd_raw as n


def receive(s, size):
    data = b""
    while len(data) < size:
        more = s.recv(size - len(data))
        if not more:
            raise n.Closed()
        data += more
    return data


class Listener:
    """Accepts on a Unix socket; self.serve (socket) in a thread each."""

    def __init__(self, path):
        self.path = path
        self.uri = "nbd+unix:///?socket=" + path
        self.zones_uri = "nbd+unix:///zones?socket=" + path
        self.threads = []

    def __enter__(self):
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(self.path)
        self.listening.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        os.unlink(self.path)

    def _accept(self):
        while True:
            try:
                s, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(s,),
                             daemon=True).start()

    def _one(self, s):
        try:
            self.serve(s)
        except (n.Closed, OSError):
            pass
        s.close()


def option_reply(s, option, kind, data=b""):
    s.sendall(struct.pack(">QIII", n.OPTION_REPLY_MAGIC, option, kind,
                          len(data)) + data)


def split_meta(data):
    """(export name, queries) of a LIST or SET_META_CONTEXT."""
    def string(at):
        size, = struct.unpack_from(">I", data, at)
        return data[at + 4:at + 4 + size].decode(), at + 4 + size

    name, at = string(0)
    count, = struct.unpack_from(">I", data, at)
    at += 4
    queries = []
    for _ in range(count):
        query, at = string(at)
        queries.append(query)
    return name, queries


class Fake(Listener):
    """contexts: what is listed; unselectable: those that SET does not take.
    table: the bytes of the zone table export, if there is one.
    listing: names to list instead (an iterable, perhaps without end)."""

    def __init__(self, path, size, contexts=(), unselectable=(), table=None,
                 listing=None, flags=None):
        super().__init__(path)
        self.size = size
        self.contexts = list(contexts)
        self.unselectable = unselectable
        self.table = table
        self.listing = listing
        self.flags = n.HAS_FLAGS | n.SEND_FLUSH | n.SEND_FUA \
            if flags is None else flags
        self.requests = 0       # of block status

    def status(self, names, offset, length, flags):
        """[(length, flags)...], an errno, or None for no chunk at all."""
        return 22

    def write(self, offset, data):
        """An errno."""
        return 0

    def handshake(self, s):
        s.sendall(struct.pack(">QQH", n.MAGIC, n.OPTION_MAGIC,
                              n.C_FIXED | n.C_NO_ZEROES))
        receive(s, 4)
        ids = {}
        while True:
            _, option, size = struct.unpack(">QII", receive(s, 16))
            data = receive(s, size)
            if option == n.OPT_STRUCTURED_REPLY:
                option_reply(s, option, n.REP_ACK)
            elif option == n.OPT_LIST_META_CONTEXT:
                for name in self.listing or self.contexts:
                    option_reply(s, option, n.REP_META_CONTEXT,
                                 struct.pack(">I", 0) + name.encode())
                option_reply(s, option, n.REP_ACK)
            elif option == n.OPT_SET_META_CONTEXT:
                ids = {}
                for query in split_meta(data)[1]:
                    if query in self.contexts and \
                            query not in self.unselectable:
                        ids[len(ids) + 1] = query
                        option_reply(s, option, n.REP_META_CONTEXT,
                                     struct.pack(">I", len(ids))
                                     + query.encode())
                option_reply(s, option, n.REP_ACK)
            elif option in (n.OPT_GO, n.OPT_INFO):
                size, = struct.unpack_from(">I", data)
                name = data[4:4 + size].decode()
                bytes_ = self.size
                if name == "zones":
                    bytes_ = len(self.table) if self.table else None
                if bytes_ is None:
                    option_reply(s, option, n.ERR_UNKNOWN)
                    continue
                option_reply(s, option, n.REP_INFO, struct.pack(
                    ">HQH", n.INFO_EXPORT, bytes_, self.flags))
                option_reply(s, option, n.REP_ACK)
                if option == n.OPT_GO:
                    return name, ids
            elif option == n.OPT_ABORT:
                option_reply(s, option, n.REP_ACK)
                raise n.Closed()
            else:
                option_reply(s, option, n.ERR_UNSUP)

    def serve(self, s):
        name, ids = self.handshake(s)
        while True:
            _, flags, command, cookie, offset, length = struct.unpack(
                ">IHHQQI", receive(s, 28))

            def chunk(kind, data=b"", done=n.DONE):
                s.sendall(struct.pack(">IHHQI", n.CHUNK_MAGIC, done, kind,
                                      cookie, len(data)) + data)

            def error(number):
                chunk(n.TYPE_ERROR, struct.pack(">IH", number, 0))

            if command == n.CMD_DISC:
                return
            if command == n.CMD_WRITE:
                got = self.write(offset, receive(s, length))
                error(got) if got else chunk(n.TYPE_NONE)
            elif command == n.CMD_READ:
                data = self.table if name == "zones" else bytes(length)
                chunk(n.TYPE_DATA, struct.pack(">Q", offset)
                      + data[offset:offset + length]
                      if name == "zones" else
                      struct.pack(">Q", offset) + data)
            elif command == n.CMD_BLOCK_STATUS:
                self.requests += 1
                got = self.status(list(ids.values()), offset, length, flags)
                if isinstance(got, int):
                    error(got)
                elif got is None:
                    chunk(n.TYPE_NONE)
                else:
                    chunk(n.TYPE_STATUS, struct.pack(">I", 1) + b"".join(
                        struct.pack(">II", *e) for e in got))
            else:
                chunk(n.TYPE_NONE)


class Proxy(Listener):
    """hide: "table" or "contexts"."""

    def __init__(self, path, behind, hide):
        super().__init__(path)
        self.behind = behind
        self.hide = hide

    def options(self, s, up):
        """Hands options on until the transmission begins."""
        s.sendall(receive(up, 18))
        up.sendall(receive(s, 4))
        while True:
            head = receive(s, 16)
            _, option, size = struct.unpack(">QII", head)
            data = receive(s, size)
            if self.hide == "contexts" and option in (
                    n.OPT_LIST_META_CONTEXT, n.OPT_SET_META_CONTEXT):
                option_reply(s, option, n.REP_ACK)
                continue
            if self.hide == "table" and option in (n.OPT_GO, n.OPT_INFO):
                size, = struct.unpack_from(">I", data)
                if data[4:4 + size].endswith(b"zones"):
                    option_reply(s, option, n.ERR_UNKNOWN)
                    continue
            up.sendall(head + data)
            while True:
                head = receive(up, 20)
                kind, size = struct.unpack_from(">II", head, 12)
                s.sendall(head + receive(up, size))
                if kind == n.REP_ACK or kind & n.ERR:
                    break
            if option == n.OPT_GO and kind == n.REP_ACK:
                return
            if option == n.OPT_ABORT:
                raise n.Closed()

    def serve(self, s):
        up = socket.socket(socket.AF_UNIX)
        up.connect(self.behind)
        try:
            self.options(s, up)
            other = threading.Thread(target=self._copy, args=(up, s),
                                     daemon=True)
            other.start()
            self._copy(s, up)
            other.join()
        finally:
            up.close()

    @staticmethod
    def _copy(a, b):
        try:
            while True:
                data = a.recv(1 << 16)
                if not data:
                    break
                b.sendall(data)
        except OSError:
            pass
        try:
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass
