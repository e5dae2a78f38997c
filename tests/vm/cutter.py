# SPDX-License-Identifier: BSD-3-Clause
"""A relay before an NBD server that breaks connections where it is told to,
to the message and to the byte:

    with Cutter(tap.path("cutter"), server.socket) as cutter:
        cutter.cut_at(7)            # instead of the seventh message from now
        cutter.cut_at(7, 20)        # behind 20 bytes of it
        cutter.cut_at(7, None)      # behind all of it
        ...
        cutter.messages             # so many there were

Messages are what either side sends: greetings, options, their replies,
requests, chunks of replies; all connections are counted together, and all
are broken.  cutter.refuse makes new ones fail, cutter.hold keeps what
clients send, cutter.forge (bytes) makes another one of the next simple reply.
"""

import os
import socket
import struct
import threading

import nbd_raw as n
from nbd_fake import Listener, receive


class Cutter(Listener):
    def __init__(self, path, behind):
        if os.path.exists(path):
            os.unlink(path)
        super().__init__(path)
        self.behind = behind
        self.lock = threading.Lock()
        self.sockets = set()
        self.messages = self.at = self.cuts = 0
        self.bytes = 0
        self.refuse = self.hold = False
        self.forge = None
        self.kept = threading.Condition()

    def cut_at(self, message, bytes_=0):
        with self.lock:
            self.messages = 0
            self.at, self.bytes = message, bytes_

    def cut(self):
        """All connections, now."""
        with self.lock:
            self._cut()

    def _cut(self):
        self.cuts += 1
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.sockets.clear()

    def release(self):
        with self.kept:
            self.hold = False
            self.kept.notify_all()

    def send(self, to, data):
        """One message."""
        with self.lock:
            self.messages += 1
            if self.messages != self.at:
                cut = False
            else:
                cut, self.at = True, 0
                data = data[:self.bytes]
        if data:
            to.sendall(data)
        if cut:
            self.cut()
            raise n.Closed()

    def serve(self, s):
        if self.refuse:
            return
        up = socket.socket(socket.AF_UNIX)
        try:
            up.connect(self.behind)
            with self.lock:
                self.sockets |= {s, up}
            self._options(s, up)
            reads = {}              # cookie: length
            answers = threading.Thread(target=self._answers,
                                       args=(up, s, reads), daemon=True)
            answers.start()
            try:
                self._requests(s, up, reads)
            finally:
                self._end(up)
                answers.join()
        finally:
            with self.lock:
                self.sockets -= {s, up}
            up.close()

    def _options(self, s, up):
        """Until the transmission begins."""
        self.send(s, receive(up, 18))
        self.send(up, receive(s, 4))
        while True:
            head = receive(s, 16)
            _, option, size = struct.unpack(">QII", head)
            self.send(up, head + receive(s, size))
            while True:
                head = receive(up, 20)
                kind, size = struct.unpack_from(">II", head, 12)
                self.send(s, head + receive(up, size))
                if kind == n.REP_ACK or kind & n.ERR:
                    break
            if option == n.OPT_GO and kind == n.REP_ACK:
                return
            if option == n.OPT_ABORT:
                raise n.Closed()

    def _requests(self, s, up, reads):
        while True:
            head = receive(s, 28)
            command, cookie, _, length = struct.unpack_from(">HQQI", head, 6)
            if command == n.CMD_WRITE:
                head += receive(s, length)
            if command == n.CMD_READ:
                reads[cookie] = length
            with self.kept:
                self.kept.wait_for(lambda: not self.hold)
            self.send(up, head)
            if command == n.CMD_DISC:
                return

    def _answers(self, up, s, reads):
        try:
            while True:
                head = receive(up, 16)
                magic, error, cookie = struct.unpack(">IIQ", head)
                if magic == n.CHUNK_MAGIC:
                    head += receive(up, 4)
                    head += receive(up, struct.unpack_from(">I", head, 16)[0])
                else:
                    if error == 0:
                        head += receive(up, reads.pop(cookie, 0))
                    if self.forge:
                        forge, self.forge = self.forge, None
                        head = forge(head)
                self.send(s, head)
        except (n.Closed, OSError):
            self._end(s)

    @staticmethod
    def _end(s):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
