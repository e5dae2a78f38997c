#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Reads of an image that are sent from where the page cache has them: they
say the same as any other read, also of what is not in the cache, is reset
before it is sent, or was cut off; they allocate nothing; and what the kernel
keeps for it is bounded."""

import os
import random
import re
import time

import gnutls_raw
import nbd

from harness import TAP, ZnbdServer, run
from nbd_raw import Raw, CMD_READ, CMD_DISC, CMD_TRIM, EIO
import nbd_raw

tap = TAP()
K = 1 << 10
M = 1 << 20
ZONE = 4 * M
shm = tap.memory()


def create(path, *args):
    status, _, err = run("znbd", "create", "--zone-size", ZONE, *args, path)
    assert status == 0, err
    return path


def mapped(server):
    """KiB that the server's mappings of the image's data have in memory."""
    with open("/proc/%d/smaps" % server.pid) as f:
        text = f.read()
    # Its others are small: rings, pointers.
    return sum(int(rss) for start, end, rss in re.findall(
        r"(\w+)-(\w+) r[-w]-s [^\n]*\n(?:\w+:[^\n]*\n)*?Rss: +(\d+)", text)
        if int(end, 16) - int(start, 16) >= ZONE)


def drop_cache(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def same(what, path, data):
    """All kinds of replies, of data that is or is not in the cache."""
    for kind, begin in (("simple", {"structured": False}),
                        ("structured", {}), ("extended", {"extended": True})):
        with ZnbdServer(path) as server:
            drop_cache(path)
            r = Raw(server.socket).begin(**begin)
            wrong = []
            for _ in range(60):
                length = random.choice([512, 4 * K, 12 * K, 256 * K, 2 * M])
                at = random.randrange(0, len(data) - length, 512)
                if r.read(at, length).data != data[at:at + length]:
                    wrong.append((at, length))
            tap.equal(wrong, [], "%s: %s replies have the data" % (what, kind))
            tap.ok(mapped(server) > 0, "%s: %s replies are sent from the "
                   "cache" % (what, kind), mapped(server))
            r.close()


def contents(what, folder):
    path = create(os.path.join(folder, "a.zbd"), "--size", 4 * ZONE,
                  "--block-size", 512)
    data = random.randbytes(ZONE + 100 * 512)
    with ZnbdServer(path) as server:
        r = Raw(server.socket).begin()
        for at in range(0, len(data), ZONE):
            r.write(at, data[at:at + ZONE])
        r.close()
    same(what, path, data)
    readonly(what, path, data)
    return path, data


def readonly(what, path, data):
    with ZnbdServer(path, "-r") as server:
        r = Raw(server.socket).begin()
        tap.ok(r.read(0, M).data == data[:M],
               "%s: so they have, read-only" % what)
        r.close()


def conventional():
    """Also sent from the cache, which never makes up for what was trimmed."""
    path = create(os.path.join(shm, "c.zbd"), "--size", 4 * ZONE,
                  "--conventional", 2)
    data = random.randbytes(M)
    with ZnbdServer(path) as server:
        r = Raw(server.socket).begin()
        r.write(0, data)
        tap.ok(r.read(0, M).data == data and mapped(server) > 0,
               "a conventional zone's data is sent from the cache",
               mapped(server))
        tap.equal(r.ask(CMD_TRIM, 0, M).error, 0, "it is trimmed")
        blocks = os.stat(path).st_blocks
        tap.ok(r.read(0, M).data == bytes(M), "and reads as zeros")
        tap.ok(os.stat(path).st_blocks <= blocks,
               "which takes no space again",
               (blocks, os.stat(path).st_blocks))
        r.write(0, data)
        tap.ok(r.read(0, M).data == data, "what is written anew is read")
        r.close()


def goodbye(path, data, tls=False):
    """Reads right before the end of a connection are answered, also from
    what goes out of the cache before their turn, and where some of an answer
    is sent."""
    with open(path, "rb") as f:
        f.read()
    keys = psk()
    with ZnbdServer(path, *(["--tls=require", "--tls-psk", keys]
                            if tls else [])) as server:
        r = Raw(server.socket)
        if tls:
            with open(keys) as f:
                name, key = f.read().strip().split(":")
            r.starttls(lambda s: gnutls_raw.Session(s, psk=(name, key)))
        r.begin()
        cookies = [r.send(CMD_READ, i * 64 * K, 64 * K) for i in range(40)]
        if tls:
            time.sleep(0.1)     # the first ones fill the socket
        r.send(CMD_DISC)
        del r.reads[r.cookie]
        time.sleep(0.1)
        drop_cache(path)
        good = [r.reply(c).data == data[i * 64 * K:(i + 1) * 64 * K]
                for i, c in enumerate(cookies)]
        tap.ok(all(good), "reads before a disconnect are all answered" +
               (", with TLS" if tls else ""), good)
        tap.ok(r.is_closed(), "and then it ends")


def reset_before_sent(path, data):
    """A client takes its answers late: the zone is another one by then."""
    with ZnbdServer(path) as server:
        r = Raw(server.socket).begin()
        w = Raw(server.socket).begin()
        cookies = [r.send(CMD_READ, i * 256 * K % ZONE, 256 * K)
                   for i in range(48)]
        time.sleep(0.2)
        w.ask(nbd_raw.CMD_TRIM, 0, ZONE)
        new = random.randbytes(256 * K)
        w.write(0, new)
        w.ask(nbd_raw.CMD_FLUSH)
        bad = []
        for i, c in enumerate(cookies):
            at = i * 256 * K % ZONE
            a = r.reply(c)
            wanted = {data[at:at + 4 * K], bytes(4 * K),
                      new[:4 * K] if at == 0 else b""}
            if a.error or a.data[:4 * K] not in wanted:
                bad.append(i)
        tap.equal(bad, [], "late answers have what was, or is, in the zone")
        tap.ok(r.read(0, 256 * K).data == new and
               r.read(256 * K, 256 * K).data == bytes(256 * K),
               "and later ones what is")
        r.close()
        w.close()


def holes():
    """Zeros below a pointer that have no space get none."""
    path = create(os.path.join(shm, "h.zbd"), "--size", 2 * ZONE)
    with ZnbdServer(path) as server:
        r = Raw(server.socket).begin()
        r.write(0, b"x" * 4 * K)
        status, _, err = run("znbd", "finish", "--zone", "0", server.uri)
        before = os.stat(path).st_blocks
        good = all(r.read(at, 256 * K).data[4 * K:] == bytes(252 * K)
                   for at in range(0, ZONE, 256 * K))
        tap.ok(good and status == 0, "a finished zone reads as zeros", err)
        tap.equal(os.stat(path).st_blocks, before,
                  "and takes no space for being read")
        r.close()


def cut_off():
    path = create(tap.path("t.zbd"), "--size", 2 * ZONE)
    with ZnbdServer(path) as server:
        r = Raw(server.socket).begin()
        r.write(0, b"x" * M)
        r.read(0, M)
        os.truncate(path, os.stat(path).st_size - 2 * ZONE + 512 * K)
        tap.ok(r.read(0, 4 * K).data == b"x" * 4 * K,
               "of a file that was cut off, what is left is read")
        tap.equal(r.read(768 * K, 4 * K).error, EIO, "and no more")
        tap.ok(r.read(0, 4 * K).error == 0, "the server goes on")
        r.close()
        server.kill()


def psk():
    path = tap.path("keys.psk")
    with open(path, "w") as f:
        os.fchmod(f.fileno(), 0o600)
        f.write("alice:" + random.randbytes(32).hex() + "\n")
    return path


def by_tls(server, keys):
    h = nbd.NBD()
    h.set_tls(nbd.TLS_REQUIRE)
    h.set_tls_username("alice")
    h.set_tls_psk_file(keys)
    h.connect_unix(server.socket)
    return h


def enciphered(path, data):
    """With TLS the server reads it itself, from a mapping of its own."""
    keys = psk()
    with ZnbdServer(path, "--tls=require", "--tls-psk=" + keys) as server:
        h = by_tls(server, keys)
        wrong = []
        jobs = []
        for i in range(200):
            length = random.choice([512, 4 * K, 12 * K, 20 * K, 256 * K, M])
            at = random.randrange(0, len(data) - length, 512)
            buf = nbd.Buffer(length)
            jobs.append((at, length, buf, h.aio_pread(buf, at)))
            if i % 20 == 0:
                drop_cache(path)
            while h.aio_in_flight() > 16:
                h.poll(-1)
        for at, length, buf, cookie in jobs:
            while not h.aio_command_completed(cookie):
                h.poll(-1)
            if buf.to_bytearray() != data[at:at + length]:
                wrong.append((at, length))
        tap.equal(wrong, [], "with TLS replies have the data")
        tap.ok(mapped(server) > 0, "with TLS they come from the cache",
               mapped(server))
        h.shutdown()


def cut_off_by_tls():
    """What is gone is never taken for zeros; the others are served."""
    path = create(tap.path("u.zbd"), "--size", 4 * ZONE)
    keys = psk()
    with ZnbdServer(path, "--tls=require", "--tls-psk=" + keys) as server:
        h = by_tls(server, keys)
        for zone in 0, 3:
            h.pwrite(b"x" * M, zone * ZONE)
        tap.ok(h.pread(M, 3 * ZONE) == b"x" * M, "a zone is read with TLS")
        os.truncate(path, os.stat(path).st_size - 2 * ZONE)
        said = None
        try:
            said = "%d bytes that are %s" % (M, h.pread(M, 3 * ZONE)[:4])
        except nbd.Error:
            pass
        tap.equal(said, None, "where its file was cut off it is no more")
        h = by_tls(server, keys)
        tap.ok(h.pread(M, 0) == b"x" * M, "what is left is read")
        try:
            h.pread(4 * K, 3 * ZONE)
            said = 0
        except nbd.Error as e:
            said = e.errno
        tap.equal(said, "EIO", "and what is not is an error")
        tap.ok(h.pread(4 * K, 0) == b"x" * 4 * K, "the server goes on")
        h.shutdown()
        server.kill()


def bounded():
    """More of the image is read than may be in use at a time."""
    zones, zone = 48, 1 << 30
    path = os.path.join(shm, "b.zbd")
    status, _, err = run("znbd", "create", "--zone-size", zone, "--size",
                         zones * zone, path)
    assert status == 0, err
    with ZnbdServer(path) as server:
        r = Raw(server.socket).begin()
        for i in range(zones):
            r.write(i * zone, bytes([i]) * 4 * K)
        good, most = True, 0
        for _ in range(4):
            for i in range(zones):
                good &= r.read(i * zone, 4 * K).data == bytes([i]) * 4 * K
            most = max(most, mapped(server))
            time.sleep(0.12)
        tap.ok(good, "a disk larger than what is mapped is read")
        tap.equal(most, 32 * 4, "of which only so much is in use")
        r.close()


random.seed(os.environ.get("ZNBD_SEED", "7"))
path, data = contents("on a disk", tap.tmp)
enciphered(path, data)
goodbye(path, data)
if gnutls_raw.available():
    goodbye(path, data, True)
else:
    tap.skip("reads before a disconnect, with TLS",
             "libgnutls.so.30 is not here")
reset_before_sent(path, data)
cut_off()
cut_off_by_tls()
if shm:
    contents("on tmpfs", shm)
    holes()
    conventional()
    bounded()
else:
    tap.skip("on tmpfs", "there is no /dev/shm")
tap.done_testing()
