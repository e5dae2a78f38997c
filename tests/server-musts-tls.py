#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the NBD specification demands of a server with TLS, one check for
each demand, see docs/nbd-conformance.md.  FORCEDTLS is --tls=require,
SELECTIVETLS --tls=on, where no export is for TLS alone.
"""

import os
import ssl
import struct

import nbd_raw as n
from nbd_raw import Raw
from harness import TAP, ZnbdServer, run

B = 4096
DISK = "memory:1M,zone-size=64k,conventional=2"
ERR_TLS_REQD = n.ERR + 5

tap = TAP()
tap.requires("certtool")


def certificates():
    """A folder with an authority and the server's certificate."""
    folder = tap.path("pki")
    os.mkdir(folder, 0o700)
    with open(folder + "/ca.info", "w") as f:
        f.write("cn = authority\nca\ncert_signing_key\n")
    with open(folder + "/server.info", "w") as f:
        f.write("cn = server\ndns_name = localhost\nsigning_key\n"
                "tls_www_server\n")
    for argv in (
            ["--generate-privkey", "--key-type", "ecdsa",
             "--outfile", "ca-key.pem"],
            ["--generate-self-signed", "--load-privkey", "ca-key.pem",
             "--template", "ca.info", "--outfile", "ca-cert.pem"],
            ["--generate-privkey", "--key-type", "ecdsa",
             "--outfile", "server-key.pem"],
            ["--generate-certificate", "--load-privkey", "server-key.pem",
             "--load-ca-certificate", "ca-cert.pem",
             "--load-ca-privkey", "ca-key.pem",
             "--template", "server.info", "--outfile", "server-cert.pem"]):
        status, out, err = run("certtool", *[
            folder + "/" + a if a.endswith((".pem", ".info")) else a
            for a in argv])
        assert status == 0, err
    return folder


pki = certificates()


def upgrade(r, version=None):
    """STARTTLS, and the session."""
    reply = r.option(n.OPT_STARTTLS)
    assert reply == [n.Reply(n.REP_ACK, b"")], reply
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki + "/ca-cert.pem")
    if version:
        context.minimum_version = context.maximum_version = version
    r.s = context.wrap_socket(r.s, server_hostname="localhost")
    r.structured = r.extended = False
    return r


def ends(r):
    """What comes before the server ends the connection."""
    got = b""
    try:
        while True:
            more = r.s.recv(1 << 16)
            if not more:
                return got
            got += more
    except (ConnectionResetError, ssl.SSLError):
        return got


def forced(server):
    r = Raw(server.socket)
    got = {o: [x.type for x in r.option(o, data)] for o, data in (
        (n.OPT_LIST, b""), (n.OPT_STRUCTURED_REPLY, b""), (99, b"x" * 9),
        (n.OPT_EXTENDED_HEADERS, b""),
        (n.OPT_LIST_META_CONTEXT, r.meta_data()))}
    tap.equal(set(map(tuple, got.values())), {(ERR_TLS_REQD,)},
              "before TLS every option is answered TLS_REQD")
    for option, text in ((n.OPT_INFO, "INFO before TLS: TLS_REQD alone"),
                         (n.OPT_GO, "GO before TLS: TLS_REQD alone")):
        tap.equal([x.type for x in r.option(option, r.info_data())],
                  [ERR_TLS_REQD], text)
    r.close()
    r = Raw(server.socket)
    r.send_option(n.OPT_EXPORT_NAME, b"")
    tap.equal(ends(r), b"", "EXPORT_NAME before TLS ends the connection")
    for version, text in ((ssl.TLSVersion.TLSv1_2, "TLS 1.2 is spoken"),
                          (ssl.TLSVersion.TLSv1_3, "TLS 1.3 is spoken")):
        r = upgrade(Raw(server.socket), version).begin()
        tap.equal(r.read(0, B).error, 0, text)
        r.close()
    r = Raw(server.socket)
    r.option(n.OPT_STARTTLS)
    r.raw(struct.pack(">QII", n.OPTION_MAGIC, n.OPT_LIST, 0) * 4)
    got = ends(r)
    tap.ok(struct.pack(">Q", n.OPTION_REPLY_MAGIC) not in got,
           "a handshake that fails ends the connection", got)
    # Plain text in the same piece as STARTTLS is no TLS's.
    r = Raw(server.socket)
    r.raw(struct.pack(">QII", n.OPTION_MAGIC, n.OPT_STARTTLS, 0)
          + struct.pack(">QII", n.OPTION_MAGIC, n.OPT_LIST, 0))
    tap.ok(struct.pack(">QI", n.OPTION_REPLY_MAGIC, n.OPT_LIST)
           not in ends(r), "plain text behind STARTTLS is not answered")


def both(server, mode):
    r = upgrade(Raw(server.socket))
    tap.equal(r.option(n.OPT_STARTTLS)[-1].type, n.ERR_INVALID,
              mode + ": a second STARTTLS is invalid")
    got = {r.option(o, d)[-1].type for o in (3, 4, 6, 8, 9, 10, 11, 99)
           for d in (b"", b"x", r.info_data("none"))}
    tap.ok(ERR_TLS_REQD not in got, mode + ": with TLS no TLS_REQD", got)
    r.close()


def selective(server):
    r = Raw(server.socket)
    got = {r.option(o, d)[-1].type for o in (3, 4, 6, 8, 9, 10, 11, 99)
           for d in (b"", b"x", r.info_data("none"), r.info_data(""))}
    tap.ok(ERR_TLS_REQD not in got,
           "SELECTIVETLS: nothing is answered TLS_REQD", got)
    r.close()
    for extended in False, True:
        what = "extended headers" if extended else "structured replies"
        r = Raw(server.socket)
        r.option(n.OPT_EXTENDED_HEADERS if extended
                 else n.OPT_STRUCTURED_REPLY)
        r.meta(n.OPT_SET_META_CONTEXT, ["base:allocation"])
        upgrade(r).go()
        tap.ok(r.read(0, B).simple, "STARTTLS forgets " + what)
        r.close()
    r = Raw(server.socket)
    r.option(n.OPT_STRUCTURED_REPLY)
    r.meta(n.OPT_SET_META_CONTEXT, ["base:allocation"])
    upgrade(r).begin()
    tap.equal(r.status(0, B).error, n.EINVAL,
              "STARTTLS forgets contexts")
    r.close()


with ZnbdServer(DISK, "--tls=require", "--tls-certificates", pki) as server:
    forced(server)
    both(server, "FORCEDTLS")
with ZnbdServer(DISK, "--tls=on", "--tls-certificates", pki) as server:
    both(server, "SELECTIVETLS")
    selective(server)
tap.done_testing()
