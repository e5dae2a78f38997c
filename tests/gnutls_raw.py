# SPDX-License-Identifier: BSD-3-Clause
"""GnuTLS as a client, for what Python's ssl cannot do: pre-shared keys, key
updates, negotiating again, records of a chosen size.  A Session has as much
of a socket as nbd_raw.py needs:

    raw.starttls(lambda s: Session(s, psk=("alice", "00ff...")))
    raw.s.update_key()
"""

import ctypes
import socket
import time

try:
    _lib = ctypes.CDLL("libgnutls.so.30")
except OSError:
    _lib = None

CLIENT = 2
CRD_CERTIFICATE, CRD_PSK = 1, 4
KEY_HEX = 1
KU_PEER = 1
SHUT_WR = 1
WARNING_ALERT, AGAIN, INTERRUPTED = -16, -28, -52


def available():
    return _lib is not None


class Error(Exception):
    """What GnuTLS says; .code is its number."""

    def __init__(self, code):
        _lib.gnutls_strerror.restype = ctypes.c_char_p
        super().__init__(_lib.gnutls_strerror(code).decode())
        self.code = code


class _Datum(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_uint)]


def _check(r):
    if r < 0:
        raise Error(r)
    return r


class Session:
    """TLS on a connected socket, with psk=(user, hexadecimal key) or without
    looking at the server's certificate."""

    def __init__(self, sock, psk=None, priority="NORMAL", record_size=None):
        self.sock = sock
        self.timeout = None
        self.buf = ctypes.create_string_buffer(1 << 16)
        self.h = ctypes.c_void_p()
        self.cred = ctypes.c_void_p()
        _check(_lib.gnutls_init(ctypes.byref(self.h), CLIENT))
        if psk:
            user, key = (x.encode() for x in psk)
            priority += ":+ECDHE-PSK:+DHE-PSK:+PSK"
            _check(_lib.gnutls_psk_allocate_client_credentials(
                ctypes.byref(self.cred)))
            datum = _Datum(key, len(key))
            _check(_lib.gnutls_psk_set_client_credentials(
                self.cred, user, ctypes.byref(datum), KEY_HEX))
            kind = CRD_PSK
        else:
            _check(_lib.gnutls_certificate_allocate_credentials(
                ctypes.byref(self.cred)))
            kind = CRD_CERTIFICATE
        _check(_lib.gnutls_credentials_set(self.h, kind, self.cred))
        _check(_lib.gnutls_priority_set_direct(self.h, priority.encode(),
                                               None))
        if record_size:
            _check(_lib.gnutls_record_set_max_size(
                self.h, ctypes.c_size_t(record_size)))
        # A timeout of the socket's makes it one that does not block.
        sock.settimeout(None)
        _lib.gnutls_transport_set_int2(self.h, sock.fileno(), sock.fileno())
        self.handshake()

    def _repeat(self, call, *args):
        # GnuTLS says so for a key update as well.
        end = time.monotonic() + self.timeout if self.timeout else None
        while True:
            r = call(self.h, *args)
            if r not in (AGAIN, INTERRUPTED) or \
                    (end and time.monotonic() >= end):
                return _check(r)

    def settimeout(self, seconds):
        """By the system: what does not come in time is an error."""
        self.timeout = seconds
        if seconds:
            value = int(seconds).to_bytes(8, "little") + bytes(8)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)

    def handshake(self):
        """Also again, with TLS 1.2."""
        self._repeat(_lib.gnutls_handshake)

    def update_key(self, peer=True):
        self._repeat(_lib.gnutls_session_key_update, KU_PEER if peer else 0)

    def sendall(self, data):
        buf = ctypes.create_string_buffer(data, len(data))
        sent = 0
        while sent < len(data):
            sent += self._repeat(_lib.gnutls_record_send,
                                 ctypes.byref(buf, sent),
                                 ctypes.c_size_t(len(data) - sent))

    def recv(self, size):
        n = self._repeat(_lib.gnutls_record_recv, self.buf,
                         ctypes.c_size_t(min(size, len(self.buf))))
        return ctypes.string_at(self.buf, n)

    def goodbye(self):
        self._repeat(_lib.gnutls_bye, SHUT_WR)

    def close(self):
        if self.h:
            _lib.gnutls_deinit(self.h)
            self.h = None
        self.sock.close()
