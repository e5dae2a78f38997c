#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""TLS: what is negotiated before and behind STARTTLS, who gets in and who
does not, data of all sizes, and clients that mean no good.  After each of
them others are served.  One client is Python's ssl (OpenSSL), the other
GnuTLS.
"""

import os
import random
import socket
import ssl
import struct
import threading
import time
import warnings

import gnutls_raw
import nbd_raw as n
from nbd_raw import Raw
from harness import TAP, ZnbdServer, long, run

B = 512
ZONE = 1 << 20
SIZE = 64 * ZONE
DISK = "memory:64M,zone-size=1M,conventional=8,block-size=512"
KEY = "00112233445566778899aabbccddeeff"

tap = TAP()
tap.requires("certtool")
pki = tap.path("pki")
other = tap.path("other")


# ---- certificates ------------------------------------------------------

def certtool(*argv):
    status, out, err = run("certtool", *argv)
    assert status == 0, (argv, err)


def template(name, *lines):
    path = tap.path(name + ".info")
    with open(path, "w") as f:
        f.write("\n".join(lines) + "\n")
    return path


def authority(folder):
    os.mkdir(folder, 0o700)
    certtool("--generate-privkey", "--key-type", "ecdsa",
             "--outfile", folder + "/ca-key.pem")
    certtool("--generate-self-signed",
             "--load-privkey", folder + "/ca-key.pem",
             "--template", template("ca", "cn = authority", "ca",
                                    "cert_signing_key", "crl_signing_key"),
             "--outfile", folder + "/ca-cert.pem")


def certificate(folder, name, *lines):
    certtool("--generate-privkey", "--key-type", "ecdsa",
             "--outfile", "%s/%s-key.pem" % (folder, name))
    certtool("--generate-certificate",
             "--load-ca-certificate", folder + "/ca-cert.pem",
             "--load-ca-privkey", folder + "/ca-key.pem",
             "--load-privkey", "%s/%s-key.pem" % (folder, name),
             "--template", template(name, "cn = " + name, "signing_key",
                                    *lines),
             "--outfile", "%s/%s-cert.pem" % (folder, name))


def make_certificates():
    for folder in pki, other:
        authority(folder)
        certificate(folder, "server", "dns_name = localhost",
                    "tls_www_server")
        certificate(folder, "client", "tls_www_client")
    certificate(pki, "revoked", "tls_www_client")
    certificate(pki, "old", "tls_www_client",
                'activation_date = "2001-01-01 00:00:00"',
                'expiration_date = "2002-01-01 00:00:00"')
    certtool("--generate-crl",
             "--load-ca-certificate", pki + "/ca-cert.pem",
             "--load-ca-privkey", pki + "/ca-key.pem",
             "--load-certificate", pki + "/revoked-cert.pem",
             "--template", template("crl", "crl_next_update = 30"),
             "--outfile", pki + "/ca-crl.pem")


def context(folder=pki, client=None, version=None):
    """An ssl.SSLContext that knows an authority, and a certificate."""
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.minimum_version = ssl.TLSVersion.TLSv1_2
    # A connection that ends without goodbye is an error.
    c.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    c.load_verify_locations(folder + "/ca-cert.pem")
    if client:
        where, name = client
        c.load_cert_chain("%s/%s-cert.pem" % (where, name),
                          "%s/%s-key.pem" % (where, name))
    if version:
        warnings.simplefilter("ignore", DeprecationWarning)     # TLS 1.1
        c.minimum_version = c.maximum_version = version
    return c


def openssl(*args, **kwargs):
    """For Raw.starttls."""
    c = context(*args, **kwargs)
    return lambda s: c.wrap_socket(s, server_hostname="localhost",
                                   suppress_ragged_eofs=False)


def gnutls(**kwargs):
    return lambda s: gnutls_raw.Session(s, **kwargs)


# ---- what is looked at again and again ---------------------------------

def serves(server, what):
    """Others are served, by TLS, and soon."""
    begin = time.monotonic()
    r = Raw(server.socket).starttls(openssl()).begin()
    good = r.read(0, B).error == 0
    r.close()
    took = time.monotonic() - begin
    tap.ok(good and took < 5 and server.process.poll() is None,
           "others are served: " + what, "took %.1f s" % took, server.log())


def descriptors(server):
    return len(os.listdir("/proc/%d/fd" % server.pid))


def settled(server, before):
    """All that came is gone again."""
    for _ in range(100):
        if descriptors(server) <= before:
            return True
        time.sleep(0.1)
    return False


def ends(r):
    """The server ends the connection; what it sent before that."""
    got = b""
    try:
        while True:
            more = r.s.recv(1 << 16)
            if not more:
                return got
            got += more
    except (ConnectionResetError, ssl.SSLError):
        return got


def refused(server, wrap, description):
    """No session comes of it."""
    r = Raw(server.socket)
    try:
        r.starttls(wrap).begin()
    except (ssl.SSLError, OSError, n.Closed, gnutls_raw.Error) as e:
        tap.passed("%s: refused" % description)
        tap.diag(e)
    else:
        tap.fail("%s: refused" % description, server.log())
    r.close()


# ---- the handshake -----------------------------------------------------

def required(server):
    r = Raw(server.socket)
    for option, data in [(n.OPT_LIST, b""), (n.OPT_INFO, r.info_data()),
                         (n.OPT_GO, r.info_data()), (n.OPT_GO, b"x"),
                         (n.OPT_STRUCTURED_REPLY, b""),
                         (n.OPT_EXTENDED_HEADERS, b""),
                         (n.OPT_LIST_META_CONTEXT, r.meta_data()),
                         (n.OPT_SET_META_CONTEXT, r.meta_data()),
                         (4, b""), (99, b"x"), (99, bytes(100000))]:
        tap.equal(r.option(option, data)[-1].type, n.ERR_TLS_REQD,
                  "option %d, %d bytes, before TLS" % (option, len(data)))
    tap.equal(r.option(n.OPT_STARTTLS, b"x")[0].type, n.ERR_INVALID,
              "STARTTLS with data")
    tap.equal(r.option(n.OPT_ABORT)[0].type, n.REP_ACK, "ABORT before TLS")
    tap.ok(r.is_closed(), "... ends it")
    r = Raw(server.socket)
    r.send_option(n.OPT_EXPORT_NAME)
    tap.equal(ends(r), b"", "EXPORT_NAME before TLS ends it")
    r = Raw(server.socket, flags=0)
    r.send_option(n.OPT_STARTTLS)
    tap.equal(ends(r), b"", "STARTTLS of a client without options ends it")
    serves(server, "clients without TLS")


def upgraded(server):
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        r = Raw(server.socket)
        r.starttls(openssl(version=version))
        tap.equal(r.s.version(), version.name.replace("_", "."),
                  "%s" % version.name)
        tap.equal(r.option(n.OPT_STARTTLS)[0].type, n.ERR_INVALID,
                  "a second STARTTLS")
        tap.equal(r.option(n.OPT_STARTTLS, b"x")[0].type, n.ERR_INVALID,
                  "and one with data")
        names = [x.data for x in r.option(n.OPT_LIST)[:-1]]
        tap.equal(len(names), 2, "LIST by TLS")
        tap.equal(r.option(99)[0].type, n.ERR_UNSUP, "an unknown option")
        r.begin(contexts=["base:allocation", "x-zbd:zones"])
        a = r.status(8 * ZONE, ZONE)
        tap.equal(a.extents[r.ids["x-zbd:zones"]], [(ZONE, 0x221)],
                  "x-zbd:zones by TLS")
        r.send(n.CMD_DISC)
        tap.equal(ends(r), b"", "DISC")
        r.close()
    refused(server, openssl(version=ssl.TLSVersion.TLSv1_1), "TLS 1.1")
    r = Raw(server.socket).starttls(openssl())
    r.s.settimeout(10)
    r.send_option(n.OPT_ABORT)
    tap.equal(r.option_reply().type, n.REP_ACK, "ABORT by TLS")
    try:
        tap.equal(r.s.recv(1), b"", "the server says goodbye")
    except ssl.SSLError as e:
        tap.fail("the server says goodbye", e)
    r.close()


def forgotten(server):
    for extended in False, True:
        r = Raw(server.socket)
        r.option(n.OPT_EXTENDED_HEADERS if extended
                 else n.OPT_STRUCTURED_REPLY)
        r.meta(n.OPT_SET_META_CONTEXT, ["x-zbd:zones"])
        r.starttls(openssl())
        tap.equal(r.option(n.OPT_SET_META_CONTEXT,
                           r.meta_data("", ["x-zbd:zones"]))[-1].type,
                  n.ERR_INVALID, "structured replies are gone")
        r.go("")
        a = r.ask(n.CMD_BLOCK_STATUS, 0, B)
        tap.equal((a.simple, a.error), (True, n.EINVAL),
                  "selected contexts are gone, and so are "
                  + ("extended headers" if extended
                     else "structured replies"))
        r.close()

        # Negotiated again, but not the contexts.
        r = Raw(server.socket)
        r.option(n.OPT_STRUCTURED_REPLY)
        r.meta(n.OPT_SET_META_CONTEXT, ["x-zbd:zones"])
        r.starttls(openssl()).begin(extended=extended)
        a = r.status(0, B)
        tap.equal((a.error, a.extents), (n.EINVAL, {}),
                  "contexts stay gone with new replies")
        r.close()


def smuggled(server):
    """Plain text behind STARTTLS."""
    starttls = struct.pack(">QII", n.OPTION_MAGIC, n.OPT_STARTTLS, 0)
    listing = struct.pack(">QII", n.OPTION_MAGIC, n.OPT_LIST, 0)
    hello, _ = client_hello()
    for name, data in [("an option", listing), ("a byte", b"\0"),
                       ("ABORT", struct.pack(">QII", n.OPTION_MAGIC,
                                             n.OPT_ABORT, 0)),
                       ("half an option", listing[:5]),
                       ("a command", struct.pack(
                           ">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_DISC, 1, 0,
                           0)),
                       ("another STARTTLS", starttls),
                       ("a ClientHello", hello)]:
        r = Raw(server.socket)
        r.raw(starttls + data)
        tap.equal(ends(r), b"", "%s behind STARTTLS ends it" % name)
        r.close()
    # After the answer it is no TLS.
    for data in listing, listing * 10, starttls:
        r = Raw(server.socket)
        r.option(n.OPT_STARTTLS)
        r.raw(data)
        got = ends(r)
        tap.ok(struct.pack(">Q", n.OPTION_REPLY_MAGIC) not in got,
               "plain options in place of TLS are not answered", got)
        r.close()
    # The same with what the flags come with.
    r = Raw(server.socket, flags=None)
    r.raw(struct.pack(">I", 3) + starttls + listing)
    tap.equal(ends(r), b"", "all of it at once ends it")
    r.close()
    # Plain text once TLS is there.
    r = Raw(server.socket)
    plain = socket.socket(fileno=os.dup(r.s.fileno()))
    r.starttls(openssl()).begin()
    plain.sendall(struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_READ, 1,
                              0, B))
    tap.equal(ends(r), b"", "a plain command inside of TLS ends it")
    plain.close()
    r.close()
    serves(server, "plain text behind STARTTLS")


# ---- who gets in -------------------------------------------------------

def trusted(verifying, server):
    good = Raw(verifying.socket).starttls(openssl(client=(pki, "client")))
    good.begin()
    tap.equal(good.read(0, B).error, 0, "a client with a certificate")
    good.close()
    refused(verifying, openssl(), "no certificate")
    refused(verifying, openssl(version=ssl.TLSVersion.TLSv1_2),
            "no certificate, TLS 1.2")
    for where, name in [(other, "client"), (pki, "revoked"), (pki, "old"),
                        (pki, "server")]:
        refused(verifying, openssl(client=(where, name)),
                "%s's certificate of %s" % (name, os.path.basename(where)))
    tap.like(verifying.log(), "revoked", "the log says why")
    refused(server, openssl(folder=other), "the wrong authority")
    serves(server, "clients without a certificate that fits")


def keys(server):
    for priority in "NORMAL", "NORMAL:-VERS-TLS1.3":
        r = Raw(server.socket).starttls(gnutls(psk=("alice", KEY),
                                               priority=priority)).begin()
        tap.equal(r.read(0, B).error, 0, "a user with the key, " + priority)
        r.close()
        for user, key in [("alice", KEY[:-2] + "00"), ("alice", "00"),
                          ("bob", KEY), ("", KEY), ("alice ", KEY),
                          ("ALICE", KEY), ("a" * 1000, KEY),
                          ("carol", KEY)]:
            refused(server, gnutls(psk=(user, key), priority=priority),
                    "user %s, key %s" % (user[:8], key[-4:]))
    r = Raw(server.socket).starttls(gnutls(psk=("carol", "FF" * 64))).begin()
    tap.equal(r.read(0, B).error, 0, "another user")
    r.close()
    refused(server, openssl(), "a client that wants a certificate")
    refused(server, gnutls(), "a client without a key")
    refused(server, gnutls(psk=("alice", KEY),
                           priority="NORMAL:-VERS-TLS1.3:-VERS-TLS1.2"),
            "TLS 1.1 with a key")


# ---- data --------------------------------------------------------------

def sizes(server, wrap, name):
    rng = random.Random(name)
    r = Raw(server.socket).starttls(wrap).begin()
    wrong = []
    for length in [B, 2 * B, 5 * B, 16384 - B, 16384, 16384 + B,
                   2 * 16384 + 3 * B, 131072 - B, 131072 + B, 262144 + 3 * B,
                   ZONE + B, 3 * ZONE - B, 7 * ZONE]:
        data = rng.randbytes(length)
        if r.write(B, data).error or r.read(B, length).data != data:
            wrong.append(length)
        elif r.read(3 * B, length).data[:max(0, length - 2 * B)] != \
                data[2 * B:]:
            wrong.append(length)
    tap.equal(wrong, [], "%s: data of every size" % name)

    # Pipelined writes, and reads, whose answers are taken at the end.
    pieces = [rng.randbytes(rng.randrange(1, 130) * B) for _ in range(100)]
    cookies, offset = [], 8 * ZONE
    places = []
    for p in pieces:
        cookies.append(r.send(n.CMD_WRITE, offset, len(p), 0, p))
        places.append(offset)
        offset += len(p)
    tap.equal({r.reply(c).error for c in cookies}, {0},
              "%s: pipelined writes to zones" % name)
    cookies = [r.send(n.CMD_READ, o, len(p)) for o, p in zip(places, pieces)]
    tap.ok(all(r.reply(c).data == p for c, p in zip(cookies, pieces)),
           "%s: pipelined reads" % name)
    a = r.ask(n.CMD_TRIM, 8 * ZONE, 8 * ZONE)
    tap.equal(a.error, 0, "%s: a trim" % name)
    r.close()


def contexts(server):
    r = Raw(server.socket).starttls(openssl()).begin(
        contexts=["x-zbd:append"], extended=True)
    zone = 20 * ZONE
    cookies = [r.send(n.CMD_WRITE, zone + i * B, B, 0, bytes([i]) * B)
               for i in range(32)]
    tap.equal({r.reply(c).error for c in cookies}, {0}, "appends by TLS")
    told = set()
    for i in range(32):
        (_, flags), = r.status(zone + i * B, B,
                               n.FLAG_REQ_ONE).extents[r.ids["x-zbd:append"]]
        told.add(flags - 1)
    tap.equal(told, set(range(32)), "... are told where they went")
    r.close()
    r = Raw(server.socket).starttls(openssl()).begin(
        contexts=["x-zbd:reset", "x-zbd:zones"], extended=True)
    a = r.status(zone, B, n.FLAG_REQ_ONE, only=[r.ids["x-zbd:reset"]])
    tap.equal(a.error, 0, "a reset by TLS")
    a = r.status(0, SIZE, only=[r.ids["x-zbd:zones"]])
    tap.equal(sum(x[0] for x in a.extents[r.ids["x-zbd:zones"]]), SIZE,
              "a report by TLS")
    r.close()


def records(server):
    """Records as small as can be, both ways."""
    r = Raw(server.socket).starttls(openssl())
    session = struct.pack(">QII", n.OPTION_MAGIC, n.OPT_STRUCTURED_REPLY, 0)
    go = r.info_data("", (3,))
    session += struct.pack(">QII", n.OPTION_MAGIC, n.OPT_GO, len(go)) + go
    session += struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_WRITE, 1, 0,
                           B) + b"\x5a" * B
    session += struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_READ, 2, 0,
                           B)
    session += struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_DISC, 3, 0,
                           0)
    for i in range(len(session)):
        r.s.sendall(session[i:i + 1])
    tap.ok(b"\x5a" * B in ends(r), "a record for each byte")
    r.close()
    if not gnutls_raw.available():
        tap.skip("GnuTLS", "libgnutls.so.30 is not here")
        return
    for priority in "NORMAL", "NORMAL:-VERS-TLS1.3":
        sizes(server, gnutls(priority=priority, record_size=512),
              "records of 512 bytes, " + priority)
    serves(server, "small records")


# ---- what TLS has besides data -----------------------------------------

class Relay:
    """Carries bytes between two sockets; with slow set, what goes to the
    second within half a second goes in one piece."""

    def __init__(self, a, b):
        self.sockets = a, b
        self.slow = False
        for pair, wait in (((a, b), True), ((b, a), False)):
            threading.Thread(target=self.carry, args=(*pair, wait),
                             daemon=True).start()

    def carry(self, a, b, wait):
        try:
            a.settimeout(None)
            while True:
                data = a.recv(1 << 16)
                if not data:
                    break
                if wait and self.slow:
                    time.sleep(0.5)
                    try:
                        data += a.recv(1 << 16, socket.MSG_DONTWAIT)
                    except BlockingIOError:
                        pass            # all of it had come
                b.sendall(data)
        except OSError:
            pass

    def close(self):
        for s in self.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()


def key_updates(server):
    r = Raw(server.socket).starttls(gnutls()).begin()
    wrong = 0
    for i in range(6):
        r.s.update_key(peer=i % 2 == 0)
        data = os.urandom(40 * B)
        wrong += r.write(i * ZONE, data).error or \
            r.read(i * ZONE, len(data)).data != data
    tap.equal(wrong, 0, "key updates among data")
    r.close()

    # Key update and request come in one piece.
    r = Raw(server.socket)
    near, far = socket.socketpair()
    relay = Relay(far, r.s)
    r.s = near
    r.starttls(gnutls()).begin()
    relay.slow = True
    r.s.update_key()
    r.s.settimeout(10)
    cookie = r.send(n.CMD_READ, 0, B)
    try:
        tap.equal(len(r.reply(cookie).data), B,
                  "a key update, and a request right behind it")
    except gnutls_raw.Error as e:
        tap.fail("a key update, and a request right behind it", e)
    r.close()
    relay.close()

    r = Raw(server.socket).starttls(gnutls()).begin()
    try:
        for _ in range(20000):
            r.s.update_key()
        ended = not r.read(0, B).data
    except (gnutls_raw.Error, OSError, n.Closed):
        ended = True
    tap.ok(ended, "key updates without end end")
    r.close()
    serves(server, "key updates without end")


def renegotiation(server):
    """TLS 1.2: it goes on as if nothing had been asked; a client of GnuTLS's
    does not, so that only who answers last is looked at."""
    for patience in 1, 1000:
        r = Raw(server.socket).starttls(
            gnutls(priority="NORMAL:-VERS-TLS1.3")).begin()
        tries, error = 0, None
        while error is None and tries < patience:
            tries += 1
            try:
                r.s.handshake()
                error = "it did"
            except gnutls_raw.Error as e:
                if e.code != gnutls_raw.WARNING_ALERT:
                    error = e
        if patience == 1:
            tap.equal(error, None, "TLS 1.2: no negotiating again")
        else:
            tap.ok(isinstance(error, gnutls_raw.Error),
                   "TLS 1.2: negotiating again without end ends", error)
        r.close()
    serves(server, "negotiating again")


# ---- clients that break ------------------------------------------------

def client_hello():
    """What a client sends first, and the rest of it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read(), (tls, incoming, outgoing)


def cut_off(server):
    before = descriptors(server)
    hello, _ = client_hello()
    step = 1 if long else 7
    for length in range(0, len(hello) + 1, step):
        r = Raw(server.socket)
        r.option(n.OPT_STARTTLS)
        r.raw(hello[:length])
        r.close()
    tap.ok(settled(server, before),
           "cut off inside of the ClientHello: all closed")
    serves(server, "cut off inside of the ClientHello")

    # Inside of the client's second flight.
    for cut in range(0, 80, 3 if long else 13):
        r = Raw(server.socket)
        r.option(n.OPT_STARTTLS)
        hello, (tls, incoming, outgoing) = client_hello()
        r.raw(hello)
        while True:
            incoming.write(r.s.recv(1 << 16))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        r.raw(outgoing.read()[:cut])
        r.close()
    tap.ok(settled(server, before),
           "cut off inside of the last flight: all closed")

    # A byte at a time.
    r = Raw(server.socket)
    r.option(n.OPT_STARTTLS)
    hello, (tls, incoming, outgoing) = client_hello()
    for i in range(len(hello)):
        r.raw(hello[i:i + 1])
    incoming.write(r.s.recv(1 << 16))
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    tap.equal(tls.version(), "TLSv1.3", "a ClientHello, a byte at a time")
    r.close()

    silent = []
    for length in 0, 1, 5, 6, 100, len(hello) - 1:
        r = Raw(server.socket)
        r.option(n.OPT_STARTTLS)
        r.raw(hello[:length])
        silent.append(r)
    serves(server, "clients that fall silent in the handshake")
    if long:
        begin = time.monotonic()
        for r in silent:
            r.s.settimeout(40)
            ends(r)
        tap.ok(time.monotonic() - begin < 35, "... which has an end")
    for r in silent:
        r.close()
    tap.ok(settled(server, before), "... all closed")


def noise(server):
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    tap.diag("seed %d" % seed)
    before = descriptors(server)
    hello, _ = client_hello()
    for i in range(1000 if long else 100):
        r = Raw(server.socket)
        r.option(n.OPT_STARTTLS)
        if i % 3 == 0:
            junk = rng.randbytes(rng.randrange(1, 3000))
        elif i % 3 == 1:
            junk = struct.pack(">BHH", rng.choice((20, 21, 22, 23, 24, 128)),
                               rng.choice((0x300, 0x301, 0x303, 0x304)),
                               rng.randrange(1 << 16)) + \
                rng.randbytes(rng.randrange(1000))
        else:
            junk = bytearray(hello)
            for _ in range(rng.randrange(1, 5)):
                junk[rng.randrange(len(junk))] = rng.randrange(256)
        try:
            r.raw(bytes(junk))
            if i % 2:
                r.s.settimeout(0.05)
                r.s.recv(1 << 16)
        except (n.Closed, OSError):
            pass
        r.close()
    tap.ok(settled(server, before), "noise for a ClientHello: all closed")
    serves(server, "noise for a ClientHello")

    for i in range(100 if long else 20):
        r = Raw(server.socket)
        plain = socket.socket(fileno=os.dup(r.s.fileno()))
        r.starttls(openssl(version=ssl.TLSVersion.TLSv1_2 if i % 2
                           else None)).begin()
        r.send(n.CMD_READ, 0, ZONE)
        try:
            plain.sendall(b"\x17\x03\x03" if i % 3 else b"" +
                          rng.randbytes(rng.randrange(1, 100)))
        except OSError:
            pass
        plain.close()
        r.close()
    tap.ok(settled(server, before), "noise inside of TLS: all closed")
    serves(server, "noise inside of TLS")


def leaves(server):
    """Disconnects with everything in flight, with and without goodbye."""
    before = descriptors(server)
    for i in range(30):
        r = Raw(server.socket).starttls(openssl()).begin()
        zone = (30 + i % 8) * ZONE
        for j in range(20):
            r.send(n.CMD_WRITE, zone + (j + i % 2) * 40 * B, 40 * B, 0,
                   bytes(40 * B))
            r.send(n.CMD_READ, zone, ZONE)
            r.send(n.CMD_FLUSH)
        if i % 3 == 0:
            r.send(n.CMD_DISC)
        if i % 3 == 1:
            plain = socket.socket(fileno=os.dup(r.s.fileno()))
            plain.shutdown(socket.SHUT_WR)
            plain.close()
        r.close()
    tap.ok(settled(server, before), "disconnects in flight: all closed")
    # A write of which half has come.
    r = Raw(server.socket).starttls(openssl()).begin()
    r.send(n.CMD_WRITE, 0, ZONE, 0, bytes(ZONE // 3))
    r.close()
    tap.ok(settled(server, before), "inside of a write: closed")
    # Nothing is said any more, but answers are still taken.
    r = Raw(server.socket)
    plain = socket.socket(fileno=os.dup(r.s.fileno()))
    r.starttls(openssl()).begin()
    cookie = r.send(n.CMD_READ, 0, 2 * ZONE)
    plain.shutdown(socket.SHUT_WR)
    tap.equal(len(r.reply(cookie).data), 2 * ZONE,
              "a half-close: what was asked is answered")
    plain.close()
    r.close()
    serves(server, "disconnects")


def stalls(server):
    """Large payloads that stop in the middle, in more connections than a
    loop has large buffers for."""
    before = descriptors(server)
    wrap = openssl()
    length, rng = 192 * B, random.Random(1)
    peers = [(Raw(server.socket).starttls(wrap).begin(), i * length,
              rng.randbytes(length), rng.randbytes(length))
             for i in range(80)]
    for r, at, first, second in peers:
        r.raw(struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_WRITE, 1, at,
                          length) + first[:length - 7 * B - 1])
    serves(server, "80 payloads that stop in the middle")
    for r, *_ in peers[::8]:
        r.close()
    peers = [p for i, p in enumerate(peers) if i % 8]
    for r, at, first, second in peers:
        r.raw(first[length - 7 * B - 1:] +
              struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_WRITE, 2, at,
                          length) + second[:60000])
    wrong = []
    for r, at, first, second in peers:
        r.cookie = 2
        r.reads.update((i, (n.CMD_WRITE, at, length)) for i in (1, 2))
        error = r.reply(1).error
        r.raw(second[60000:])
        if error or r.reply(2).error or r.read(at, length).data != second:
            wrong.append(at)
        r.close()
    tap.equal(wrong, [], "... are there when they went on")
    tap.ok(settled(server, before), "... all closed")


def never_reads(server):
    before = descriptors(server)
    memory = rss(server)
    peers = []
    for _ in range(3):
        r = Raw(server.socket)
        r.starttls(openssl()).begin()
        r.s.settimeout(0.3)
        request = struct.pack(">IHHQQI", n.REQUEST_MAGIC, 0, n.CMD_READ, 1,
                              0, ZONE)
        try:
            for _ in range(5000):
                r.s.sendall(request * 100)
        except (OSError, ssl.SSLError):
            pass
        peers.append(r)
    grown = rss(server) - memory
    if "ZNBD_SANITIZER" in os.environ:
        tap.skip("peers that never read: memory", "sanitizers take more")
    else:
        tap.ok(grown < 3 * 160 << 10,
               "peers that never read: memory is bounded",
               "grown by %d KiB" % grown)
    serves(server, "peers that never read")
    for r in peers:
        r.close()
    tap.ok(settled(server, before), "peers that never read: all closed")


def rss(server):
    """KiB in use."""
    with open("/proc/%d/status" % server.pid) as f:
        return int([x for x in f if x.startswith("VmRSS")][0].split()[1])


def crowd(server):
    before = descriptors(server)
    wrap = openssl()
    crowd = [Raw(server.socket) for _ in range(100)]
    for r in crowd:
        r.starttls(wrap)
    for r in crowd:
        r.begin()
    # To one zone: its pointer orders reads behind writes for the thread
    # sanitizer too, which takes minutes over what it finds unordered.
    zone = 60 * ZONE
    data = os.urandom(100 * 16 * B)
    cookies = [r.send(n.CMD_WRITE, zone + i * 16 * B, 16 * B, 0,
                      data[i * 16 * B:(i + 1) * 16 * B])
               for i, r in enumerate(crowd)]
    tap.equal({r.reply(c).error for r, c in zip(crowd, cookies)}, {0},
              "100 connections write")
    cookies = [r.send(n.CMD_READ, zone, len(data)) for r in crowd]
    tap.ok(all(r.reply(c).data == data for r, c in zip(crowd, cookies)),
           "... and read what all wrote")
    serves(server, "100 connections")
    for r in crowd:
        r.close()
    tap.ok(settled(server, before), "... all closed")


# ------------------------------------------------------------------------

make_certificates()
with open(tap.path("keys"), "w") as f:
    os.fchmod(f.fileno(), 0o600)
    f.write("alice:%s\n\ncarol:%s\n" % (KEY, "fF" * 64))

server = ZnbdServer(DISK, "-v", "-t", 4, "--tls=require",
                    "--tls-certificates", pki)
with server:
    required(server)
    upgraded(server)
    smuggled(server)
    sizes(server, openssl(), "TLS 1.3")
    sizes(server, openssl(version=ssl.TLSVersion.TLSv1_2), "TLS 1.2")
    contexts(server)
    records(server)
    cut_off(server)
    noise(server)
    leaves(server)
    stalls(server)
    never_reads(server)
    crowd(server)
    if gnutls_raw.available():
        key_updates(server)
        renegotiation(server)

    # It ends while clients are there, in every state of TLS.
    idle = Raw(server.socket).starttls(openssl()).begin()
    greeted = Raw(server.socket)
    greeted.option(n.OPT_STARTTLS)
    half = Raw(server.socket)
    half.option(n.OPT_STARTTLS)
    half.raw(client_hello()[0])
    begin = time.monotonic()
    server.stop()
    tap.ok(time.monotonic() - begin < 4, "SIGTERM ends it, clients or not")
    try:
        tap.equal(idle.s.recv(1), b"", "a client is told goodbye")
    except ssl.SSLError as e:
        tap.fail("a client is told goodbye", e)

with ZnbdServer(DISK, "-v", "--tls=on", "--tls-certificates", pki) as server:
    r = Raw(server.socket).begin()
    tap.equal(r.read(0, B).error, 0, "--tls=on: a client without TLS")
    r.close()
    tap.equal(Raw(server.socket).option(n.OPT_LIST)[-1].type, n.REP_ACK,
              "--tls=on: options before TLS")
    forgotten(server)
    smuggled(server)
    r = Raw(server.socket)
    r.send_option(n.OPT_EXPORT_NAME)
    tap.equal(len(r.recv(10)), 10, "--tls=on: EXPORT_NAME")
    r.close()

with ZnbdServer(DISK, "-v", "--tls=require", "--tls-certificates", pki,
                "--tls-verify-peer") as verifying, \
     ZnbdServer(DISK, "--tls=require", "--tls-certificates", pki) as server:
    trusted(verifying, server)

if gnutls_raw.available():
    with ZnbdServer(DISK, "-v", "--tls=require",
                    "--tls-psk", tap.path("keys")) as server:
        keys(server)
        sizes(server, gnutls(psk=("alice", KEY)), "a pre-shared key")
else:
    tap.skip("pre-shared keys", "libgnutls.so.30 is not here")

with ZnbdServer(DISK, "--tls=off", "--tls-certificates", pki) as server:
    r = Raw(server.socket)
    tap.equal(r.option(n.OPT_STARTTLS)[0].type, n.ERR_POLICY,
              "--tls=off: STARTTLS")
    r.begin()
    tap.equal(r.read(0, B).error, 0, "--tls=off: goes on without")
    r.close()

tap.done_testing()
