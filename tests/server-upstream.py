#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""znbd-server in front of another server: nbdkit with the plugin and
filters, started by itself or not, another znbd-server, disks without zones;
and an upstream that dies, comes back, comes back as another disk, or never.
"""

import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib

import nbd

from nbd_fake import Listener, Proxy
from harness import (TAP, Nbdkit, ZnbdServer, connect, long, plugin, run)

tap = TAP()
K4 = 4096
MB = 1 << 20
ZONE = 1 * MB
SIZE = 32 * ZONE
CONVENTIONAL = 2
GEOMETRY = ["--size=%d" % SIZE, "--zone-size=%d" % ZONE,
            "--conventional=%d" % CONVENTIONAL]
PARAMS = ["size=%d" % SIZE, "zone-size=%d" % ZONE,
          "conventional=%d" % CONVENTIONAL]


def image(name, *more):
    path = tap.path(name)
    status, out, err = run("znbd", "create", *GEOMETRY, *more, path)
    assert status == 0, err
    return path


def table(uri):
    h = nbd.NBD()
    h.set_uri_allow_local_file(True)
    h.set_strict_mode(0)        # filters advertise larger blocks
    h.connect_uri(uri)
    try:
        return bytes(h.pread(h.get_size() - 4096, 4096))
    finally:
        h.shutdown()


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def block(n):
    return struct.pack("<Q", n + 1) * (K4 // 8)


def zone_map(uri):
    """x-zbd:zones of the whole disk: length and flags."""
    h = nbd.NBD()
    h.add_meta_context("x-zbd:zones")
    h.connect_uri(uri)
    found = []

    def callback(context, offset, entries, error):
        found.extend(zip(entries[::2], entries[1::2]))

    h.block_status(h.get_size(), 0, callback)
    h.shutdown()
    return found


def stop(pid):
    """Stops a process; returns when all its threads have."""
    os.kill(pid, signal.SIGSTOP)
    tasks = "/proc/%d/task" % pid

    def stopped():
        for task in os.listdir(tasks):
            with open("%s/%s/stat" % (tasks, task)) as f:
                if f.read().rsplit(")", 1)[1].split()[0] != "T":
                    return False
        return True

    assert wait_for(stopped)


# A server whose upstream hangs is to end all the same.  That takes a while:
# it is looked at in the end.
hung = Nbdkit(*PARAMS).start()
ending = ZnbdServer(hung.uri).start()
waiting = connect(ending.uri)
stop(hung.pid)
unanswered = nbd.Buffer.from_bytearray(bytearray(block(1)))
waiting.aio_pwrite(unanswered, 2 * ZONE)
waiting.poll(0)
time.sleep(.2)
ending.process.terminate()

# In front of nbdkit and its filters, and of another znbd-server.

def look(uri, upstream_zones_uri, name):
    """What any client may do, and what upstream then says."""
    h = connect(uri)
    at = 4 * ZONE
    h.pwrite(block(1) * 3, at)
    h.pwrite(block(2), at + 3 * K4, nbd.CMD_FLAG_FUA)
    h.zero(K4, at + 4 * K4)
    tap.equal(bytes(h.pread(6 * K4, at)),
              block(1) * 3 + block(2) + bytes(2 * K4), name + ": data")
    tap.raises(nbd.Error, lambda: h.pwrite(block(1), at),
               name + ": a write below the pointer is refused", "EINVAL")
    h.pwrite(block(9), 0)
    h.trim(ZONE, at)
    h.pwrite(block(3), at)
    h.cache(K4, at)
    h.flush()
    appender = nbd.NBD()
    appender.add_meta_context("x-zbd:append")
    appender.connect_uri(uri)
    appender.pwrite(block(4), at + 17 * K4)
    places = []
    appender.block_status(K4, at + 17 * K4, lambda c, o, e, err:
                          places.extend(e))
    tap.equal(places, [K4, K4 // 512 + 1], name + ": an append is told where")
    finisher = nbd.NBD()
    finisher.add_meta_context("x-zbd:finish")
    finisher.connect_uri(uri)
    finisher.block_status(K4, 5 * ZONE, lambda *a: 0, nbd.CMD_FLAG_REQ_ONE)
    tap.equal(bytes(h.pread(K4, at + K4)), block(4), name + ": it is there")
    for each in (h, appender, finisher):
        each.shutdown()
    mine = table(uri.replace("///?", "///zones?"))
    tap.equal(mine, table(upstream_zones_uri),
              name + ": the report is upstream's")
    tap.equal([mine[64 * z + 25] for z in (0, 4, 5)], [0, 2, 14],
              name + ": and says what was done")
    tap.ok((ZONE, 14 | 2 << 4 | 1 << 8) in zone_map(uri),
           name + ": the map too")


for name, upstream in (
        ("nbdkit, memory", Nbdkit(*PARAMS)),
        ("nbdkit, image", Nbdkit("file=" + image("a"))),
        ("nbdkit, filters", Nbdkit(
            *PARAMS, "logfile=/dev/null", "wdelay=2ms", "rdelay=2ms",
            options=["--filter=log", "--filter=delay"])),
        ("znbd-server", ZnbdServer(image("b"), name="disk"))):
    with upstream:
        with ZnbdServer(upstream.uri) as server:
            look(server.uri, upstream.zones_uri, name)

# Two appenders over the same zone.
with Nbdkit(*PARAMS) as upstream, ZnbdServer(upstream.uri) as server:
    handles = []
    for _ in range(3):
        h = nbd.NBD()
        h.add_meta_context("x-zbd:append")
        h.connect_uri(server.uri)
        handles.append(h)
    told = []
    cookies = []
    for i in range(120):
        h = handles[i % 3]
        tag = 6 * ZONE + i * K4
        cookies.append((h, h.aio_pwrite(
            nbd.Buffer.from_bytearray(bytearray(block(i))), tag)))
        cookies.append((h, h.aio_block_status(
            K4, tag, lambda c, o, e, err, i=i: told.append((e[1], i)))))
    for h, cookie in cookies:
        while not h.aio_command_completed(cookie):
            h.poll(-1)
    reader = connect(server.uri)
    data = bytes(reader.pread(120 * K4, 6 * ZONE))
    tap.ok(len(set(told)) == 120 and
           all(data[(p - 1) * 512:][:K4] == block(i) for p, i in told),
           "appends of three clients: each once, and where it was told")
    for h in handles + [reader]:
        h.shutdown()
    # Changes behind the server's back.
    other = connect(upstream.uri)
    other.trim(ZONE, 6 * ZONE)
    h = connect(server.uri)
    tap.raises(nbd.Error, lambda: h.pwrite(block(1), 6 * ZONE + 120 * K4),
               "a zone that was reset behind the back refuses the old pointer",
               "EINVAL")
    h.pwrite(block(1), 6 * ZONE)
    other.pwrite(block(2) * 2, 7 * ZONE)
    tap.equal(table(server.zones_uri), table(upstream.zones_uri),
              "the report says what others changed")
    tap.equal(bytes(h.pread(2 * K4, 7 * ZONE)), block(2) * 2,
              "and then it is read")
    h.shutdown()
    other.shutdown()
    tap.like(server.log(), "zone 6: write failed", "the log tells")

# Errors that a filter makes: the state is right again after each.
trigger = tap.path("fail")
with Nbdkit(*PARAMS, "error-pwrite=EIO", "error-pwrite-rate=100%",
            "error-file=" + trigger,
            options=["--filter=error"]) as upstream, \
        ZnbdServer(upstream.uri) as server:
    h = connect(server.uri)
    at = 3 * ZONE
    h.pwrite(block(0), at)
    open(trigger, "w").close()
    tap.raises(nbd.Error, lambda: h.pwrite(block(1), at + K4),
               "a write that fails upstream fails", "EIO")
    tap.raises(nbd.Error, lambda: h.pwrite(block(1), 0),
               "in a conventional zone too", "EIO")
    os.unlink(trigger)
    tap.equal(table(server.zones_uri), table(upstream.zones_uri),
              "the report is upstream's")
    h.pwrite(block(1), at + K4)
    tap.equal(bytes(h.pread(2 * K4, at)), block(0) + block(1),
              "and the zone goes on where it stood")
    h.shutdown()

# nbdkit as our own child.
path = image("child")
kit = ZnbdServer("unused")
kit.argv = kit.argv[:-1] + ["--nbdkit", "--", "--filter=log", plugin,
                            "file=" + path, "logfile=/dev/null"]


def children(pid):
    found = []
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/children" % (pid, task)) as f:
            found += map(int, f.read().split())
    return found


with kit:
    h = connect(kit.uri)
    h.pwrite(block(1), 2 * ZONE)
    tap.equal(bytes(h.pread(K4, 2 * ZONE)), block(1),
              "--nbdkit: served from nbdkit behind filters")
    status, out, err = run("nbdinfo", "--map=x-zbd:zones", kit.uri)
    tap.ok(status == 0 and out.count("\n") > 3, "nbdinfo maps its zones", err)
    tap.equal(len(children(kit.pid)), 1, "there is one child")
    os.kill(children(kit.pid)[0], signal.SIGKILL)
    h.pwrite(block(2), 2 * ZONE + K4)
    h.flush()
    tap.equal(bytes(h.pread(2 * K4, 2 * ZONE)), block(1) + block(2),
              "a child that was killed is started again")
    h.shutdown()
    child = children(kit.pid)
kit.stop()
tap.ok(wait_for(lambda: not os.path.exists("/proc/%d" % child[0])),
       "the child ends with the server")
tap.equal(run("znbd", "check", path)[0], 0, "and its image is whole")
status, out, err = run("znbd-server", "-U", tap.path("unused"), "--nbdkit", "--",
                       plugin, "file=/nowhere")
tap.ok(status == 1 and "nbdkit" in err, "a child that fails is an error", err)

# Disks without zones.
plain = tap.path("plain")
with open(plain, "wb") as f:
    f.truncate(4 << 20)
with Nbdkit(plain, plugin="file") as upstream, \
        ZnbdServer(upstream.uri) as server:
    status, out, err = run("nbdinfo", "--list", server.uri)
    tap.ok("base:allocation" in out and "x-zbd" not in out
           and out.count("export=") == 1,
           "a disk without zones has neither contexts nor a table", out)
    noise = tap.path("noise")
    with open(noise, "wb") as f:
        f.write(random.Random(1).randbytes(4 << 20))
    copied = tap.path("copied")
    statuses = (run("nbdcopy", noise, server.uri)[0],
                run("nbdcopy", server.uri, copied)[0])
    tap.ok(statuses == (0, 0) and
           open(noise, "rb").read() == open(copied, "rb").read(),
           "nbdcopy there and back")
status, out, err = run("znbd-server", "-U", tap.path("unused"),
                       "nbd+unix:///?socket=" + tap.path("none"))
tap.ok(status == 1 and "none" in err, "no server is an error", err)


# An upstream that dies.

class Load:
    """Writes to zones, appends, management and reads, many in flight; keeps
    what was answered."""

    def __init__(self, uri, zones, seed, conventional=True):
        self.h = connect(uri)
        self.random = random.Random(seed)
        self.next = dict.fromkeys(zones, 0)     # blocks sent
        self.acked = {z: {} for z in zones}     # block: error
        self.fixed = {}                         # conventional: what is there
        self.conventional = conventional
        self.cookies = []
        self.count = 0

    def send(self, n):
        for _ in range(n):
            x = self.random.random()
            if x < .1 and self.conventional:
                self.count += 1
                at = self.count % 100 * K4
                self.track(self.h.aio_pwrite(
                    nbd.Buffer.from_bytearray(bytearray(block(self.count))),
                    at), self.fixed, at)
                self.fixed[at, "value"] = self.count
                continue
            zone = self.random.choice(list(self.next))
            at = self.next[zone]
            many = self.random.choice((1, 1, 2, 5))
            if at + many > ZONE // K4:
                continue
            data = b"".join(block(zone << 20 | (at + i)) for i in range(many))
            self.track(self.h.aio_pwrite(
                nbd.Buffer.from_bytearray(bytearray(data)),
                zone * ZONE + at * K4), self.acked[zone], (at, many))
            self.next[zone] = at + many

    def track(self, cookie, where, key):
        where[key] = "unanswered"
        self.cookies.append((cookie, where, key))

    def wait(self):
        for cookie, where, key in self.cookies:
            try:
                while not self.h.aio_command_completed(cookie):
                    self.h.poll(-1)
                where[key] = None
            except nbd.Error as e:
                where[key] = e.errno or str(e)
        self.cookies = []

    def errors(self):
        return [e for acked in self.acked.values() for e in acked.values()
                if e]

    def missing(self, h):
        """What was answered, and is not there."""
        wrong = []
        for zone, acked in self.acked.items():
            for (at, many), error in acked.items():
                if error:
                    continue
                want = b"".join(block(zone << 20 | (at + i))
                                for i in range(many))
                if bytes(h.pread(many * K4, zone * ZONE + at * K4)) != want:
                    wrong.append((zone, at, many))
        return wrong


def kill_and_restart(make, name, rounds):
    """Kills upstream with requests in flight, starts it again."""
    upstream = make()
    upstream.start()
    with ZnbdServer(upstream.uri) as server:
        load = Load(server.uri, range(2, 12), name)
        for i in range(rounds):
            load.send(60)
            time.sleep(load.random.random() * .02)
            upstream.process.kill()
            upstream.process.wait()
            if i % 2:
                time.sleep(.2)
            Nbdkit.running.remove(upstream)
            try:
                os.unlink(upstream.socket)
                os.unlink(upstream.pidfile)
            except FileNotFoundError:
                pass
            load.send(10)
            upstream.start()
            load.wait()
        h = connect(server.uri)
        tap.equal(load.errors(), [], name + ": every request is answered "
                  "well after it died %d times" % rounds)
        tap.equal(load.missing(h), [], name + ": what was answered is there")
        tap.equal(table(server.zones_uri), table(upstream.zones_uri),
                  name + ": the report is upstream's")
        h.flush()
        tap.passed(name + ": a flush, and nothing is lost")
        h.shutdown()
        load.h.shutdown()
    upstream.stop()


crashing = image("crash1")
kill_and_restart(lambda: Nbdkit("file=" + crashing), "nbdkit killed",
                 60 if long else 6)
crashing2 = image("crash2")
kill_and_restart(lambda: ZnbdServer(crashing2), "znbd-server killed",
                 60 if long else 6)


def die(upstream):
    upstream.process.kill()
    upstream.process.wait()
    upstream._forget()


# It never comes back: errors in time, and at once from then on.
upstream = Nbdkit("file=" + image("gone")).start()
with ZnbdServer(upstream.uri, "--reconnect", "1s") as server:
    load = Load(server.uri, range(2, 6), "never")
    load.send(20)
    load.wait()
    die(upstream)
    began = time.monotonic()
    load.send(20)
    load.wait()
    took = time.monotonic() - began
    tap.ok(.5 < took < 4 and set(load.errors()) == {"EIO"},
           "requests fail when --reconnect's time is up",
           "%.1f s" % took, load.errors())
    began = time.monotonic()
    tap.raises(nbd.Error, lambda: load.h.pread(K4, 2 * ZONE),
               "later ones at once", "EIO")
    tap.ok(time.monotonic() - began < .3, "that is at once")
    # But then it comes, and all is well.
    upstream.start()
    tap.ok(wait_for(lambda: "connected again" in server.log()),
           "it is sought all the same")
    h = connect(server.uri)
    tap.equal(load.missing(h), [], "what was answered is there")
    tap.equal(table(server.zones_uri), table(upstream.zones_uri),
              "and the report is upstream's")
    h.shutdown()
    load.h.shutdown()
upstream.stop()

# The server is ended while it waits.
upstream = Nbdkit("file=" + image("waits")).start()
with ZnbdServer(upstream.uri) as server:
    h = connect(server.uri)
    die(upstream)
    cookie = h.aio_pread(nbd.Buffer(K4), 0)
    time.sleep(.3)
    began = time.monotonic()
    server.process.terminate()
    tap.equal(server.process.wait(20), 0,
              "a server that waits for its upstream can be ended")
    tap.ok(time.monotonic() - began < 5, "at once")
    server._forget()

# TLS upstream.
keys = tap.path("keys.psk")
if run("psktool", "-u", "me", "-p", keys)[0] == 0:
    with ZnbdServer(image("tls"), "--tls=require", "--tls-psk",
                    keys) as upstream:
        uri = "nbds+unix://me@/%%s?socket=%s&tls-psk-file=%s" % (
            upstream.socket, keys)
        with ZnbdServer(uri % "") as server:
            h = connect(server.uri)
            h.pwrite(block(1), 2 * ZONE)
            tap.equal(table(server.zones_uri), table(uri % "zones"),
                      "an upstream with TLS")
            h.shutdown()
else:
    tap.skip("an upstream with TLS", "psktool is not installed")

# Another disk comes in its place.
upstream = Nbdkit("file=" + image("one")).start()
server = ZnbdServer(upstream.uri)
with server:
    h = connect(server.uri)
    h.pwrite(block(1), 2 * ZONE)
    die(upstream)
    upstream.argv[-1] = "file=" + image("two")
    upstream.start()
    tap.raises(nbd.Error, lambda: h.pwrite(block(1), 2 * ZONE + K4),
               "a disk of another uuid is not written to", "EIO")
    tap.raises(nbd.Error, lambda: h.pread(K4, 2 * ZONE), "nor read", "EIO")
    tap.like(server.log(), "another disk now .its uuid differs",
             "the log says why")
    other = connect(upstream.uri)
    tap.equal(bytes(other.pread(K4, 2 * ZONE)), bytes(K4),
              "nothing was written there")
    other.shutdown()
    h.shutdown()
    server.process.terminate()
    tap.equal(server.process.wait(10), 1,
              "the server's status says that something was not flushed")
    server._forget()
upstream.stop()

# A disk that lost power: its epoch is another one.

def lose_power(path):
    """Makes the image one of another boot: what was not flushed is gone."""
    with open(path, "r+b") as f:
        seed = zlib.crc32(f.read(32)[16:32])
        for at in range(8192, 16384, 512):
            f.seek(at)
            commit = bytearray(f.read(512))
            commit[64] ^= 1                     # the boot's id
            commit[8:12] = bytes(4)
            commit[8:12] = struct.pack("<I", zlib.crc32(commit, seed))
            f.seek(at)
            f.write(commit)


def epoch(uri):
    h = connect(uri)
    try:
        return struct.unpack("<Q", h.pread(4096, 0)[80:88])[0]
    finally:
        h.shutdown()


path = image("epoch")
upstream = Nbdkit("file=" + path).start()
with ZnbdServer(upstream.uri) as server, \
        ZnbdServer(server.uri) as behind:
    h, h2 = connect(server.uri), connect(server.uri)
    h4, h5 = connect(behind.uri), connect(behind.uri)
    before = epoch(server.zones_uri)
    h.pwrite(block(1), 2 * ZONE)
    h.flush()
    h4.pwrite(block(1), 3 * ZONE)
    h.pwrite(block(2), 2 * ZONE + K4)
    die(upstream)
    lose_power(path)
    upstream.start()
    tap.ok(wait_for(lambda: "connected again" in server.log()),
           "a disk that lost power comes back")
    tap.like(server.log(), "not flushed may be lost", "the log tells")
    for name, each in (("a client", h), ("another one", h2),
                       ("one of a server behind", h4),
                       ("another one of that", h5)):
        tap.raises(nbd.Error, each.flush, name + " hears of it by its flush",
                   "EIO")
        each.flush()
    h.pwrite(block(3), 2 * ZONE + K4)
    tap.equal(bytes(h.pread(2 * K4, 2 * ZONE)), block(1) + block(3),
              "its pointer is that of the last flush")
    tap.ok(before != epoch(server.zones_uri) == epoch(upstream.zones_uri),
           "the epoch is the new one")
    tap.equal(table(server.zones_uri), table(upstream.zones_uri),
              "and the report upstream's")
    h3 = connect(server.uri)
    h3.flush()
    tap.passed("who comes later has lost nothing")
    for each in (h, h2, h3, h4, h5):
        each.shutdown()
upstream.stop()

# A write that is done in part when upstream dies: slowly, piece by piece.
path = image("part")
upstream = Nbdkit("file=" + path, "blocksize-minimum=4K",
                  "blocksize-maximum=64K", "blocksize-preferred=64K",
                  "wdelay=50ms", threads=1,
                  options=["--filter=blocksize-policy",
                           "--filter=delay"]).start()
with ZnbdServer(upstream.uri) as server:
    h = connect(server.uri)
    data = b"".join(block(i) for i in range(ZONE // K4))
    buf = nbd.Buffer.from_bytearray(bytearray(data))
    cookie = h.aio_pwrite(buf, 2 * ZONE)
    other = h.aio_pwrite(buf, 0)                # conventional
    end = time.monotonic() + .4
    while time.monotonic() < end:
        h.poll(20)
    die(upstream)
    with Nbdkit("file=" + path) as reader:
        pointer = struct.unpack_from("<Q", table(reader.zones_uri),
                                     2 * 64 + 16)[0] * 512 - 2 * ZONE
    tap.ok(0 < pointer < ZONE, "it died in the middle of a write",
           "at %d" % pointer)
    upstream.start()
    for each in cookie, other:
        while not h.aio_command_completed(each):
            h.poll(-1)
    tap.ok(bytes(h.pread(ZONE, 2 * ZONE)) == data and
           bytes(h.pread(ZONE, 0)) == data,
           "the rest is written after it")
    tap.equal(table(server.zones_uri), table(upstream.zones_uri),
              "and no more than that")
    h.shutdown()
upstream.stop()

# A connection breaks, and upstream lives: data that was under way comes there
# after it was asked what had come.

class Relay(Listener):
    def serve(self, s):
        up = socket.socket(socket.AF_UNIX)
        up.connect(self.behind)
        self.clients.append(s)
        threading.Thread(target=Proxy._copy, args=(up, s),
                         daemon=True).start()
        while (data := s.recv(1 << 16)):
            if len(data) >= 2 * K4:
                time.sleep(.4)
            up.sendall(data)
        up.shutdown(socket.SHUT_RDWR)

    def cut(self):
        while self.clients:
            self.clients.pop().shutdown(socket.SHUT_RDWR)


path = image("late")
with Nbdkit("file=" + path) as upstream, Relay(tap.path("relay")) as relay:
    relay.behind, relay.clients = upstream.socket, []
    with ZnbdServer(relay.uri) as server:
        h = connect(server.uri)
        appender = nbd.NBD()
        appender.add_meta_context("x-zbd:append")
        appender.connect_uri(server.uri)
        buf = nbd.Buffer.from_bytearray(bytearray(block(1) + block(2)))
        cookies = [(h, h.aio_pwrite(buf, 2 * ZONE)),
                   (appender, appender.aio_pwrite(buf, 3 * ZONE))]
        for each, _ in cookies:
            each.poll(0)
        time.sleep(.2)
        relay.cut()
        failed = []
        for each, cookie in cookies:
            try:
                while not each.aio_command_completed(cookie):
                    each.poll(-1)
            except nbd.Error as e:
                failed.append(str(e))
        tap.equal(failed, [], "writes that a lost connection did late are "
                  "not failed")
        tap.equal([struct.unpack_from("<Q", table(server.zones_uri),
                                      64 * z + 16)[0] * 512 - z * ZONE
                   for z in (2, 3)], [2 * K4, 2 * K4], "nor done twice")
        tap.equal(table(server.zones_uri), table(upstream.zones_uri),
                  "and known")
        for each, _ in cookies:
            each.shutdown()

# A machine that is gone says nothing: the kernel asks whether it is there.

def timers(port):
    """Of the connections to a port, as /proc/net/tcp has them."""
    with open("/proc/net/tcp") as f:
        fields = [line.split() for line in f][1:]
    return [each[5].split(":")[0] for each in fields
            if each[3] == "01" and each[2].endswith(":%04X" % port)]


with Nbdkit(*PARAMS) as upstream:
    relay = Relay(tap.path("unused"))
    relay.behind, relay.clients = upstream.socket, []
    relay.listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=relay._accept, daemon=True).start()
    port = relay.listening.getsockname()[1]
    with ZnbdServer("nbd://127.0.0.1:%d" % port):
        tap.ok(wait_for(lambda: timers(port) == ["02"] * 2),
               "both connections by TCP are kept alive, or broken",
               repr(timers(port)))
    relay.listening.shutdown(socket.SHUT_RDWR)
    relay.listening.close()

# A zone that somebody else finishes while upstream is down: a full zone does
# not say what was written there.
path = image("finished")
upstream = Nbdkit("file=" + path).start()
with ZnbdServer(upstream.uri) as server:
    h = connect(server.uri)
    buf = nbd.Buffer.from_bytearray(bytearray(block(1)))
    for zone in 2, 3:
        h.pwrite(bytes(ZONE - K4), zone * ZONE)
    stop(upstream.pid)
    cookies = [h.aio_pwrite(buf, 2 * ZONE + ZONE - K4),
               h.aio_pwrite(buf, 4 * ZONE)]
    h.poll(0)
    time.sleep(.2)
    die(upstream)
    status, out, err = run("znbd", "finish", "--zone", "4", path)
    assert status == 0, err
    upstream.start()
    while not h.aio_command_completed(cookies[0]):
        h.poll(-1)
    tap.equal(bytes(h.pread(K4, 3 * ZONE - K4)), block(1),
              "a zone's last write is done again")

    def second():
        while not h.aio_command_completed(cookies[1]):
            h.poll(-1)

    tap.raises(nbd.Error, second,
               "a write that a zone was finished before has failed", "ENOSPC")
    tap.equal(bytes(h.pread(K4, 4 * ZONE)), bytes(K4), "as it has")
    h.shutdown()
upstream.stop()

path = image("under way")
upstream = Nbdkit("file=" + path).start()
with ZnbdServer(upstream.uri) as server:
    h = connect(server.uri)
    for zone in 2, 3, 4, 5:
        h.pwrite(block(zone), zone * ZONE)
    manage = {}
    for op in "open", "close", "finish", "reset", "reset-all":
        manage[op] = nbd.NBD()
        manage[op].add_meta_context("x-zbd:" + op)
        manage[op].connect_uri(server.uri)
    stop(upstream.pid)
    cookies = [(manage[op], manage[op].aio_block_status(
        K4, zone * ZONE, lambda *a: 0, flags=nbd.CMD_FLAG_REQ_ONE))
        for zone, op in ((2, "reset"), (3, "finish"), (4, "open"),
                         (5, "close"))]
    buf = nbd.Buffer(K4)
    cookies += [(h, h.aio_pread(buf, 3 * ZONE)), (h, h.aio_flush())]
    for each, cookie in cookies:
        each.poll(0)
    time.sleep(.2)
    die(upstream)
    upstream.start()
    failed = []
    for each, cookie in cookies:
        try:
            while not each.aio_command_completed(cookie):
                each.poll(-1)
        except nbd.Error as e:
            failed.append(str(e))
    tap.equal(failed, [], "management, reads and flushes end well")
    tap.equal([table(server.zones_uri)[64 * z + 25] for z in range(2, 6)],
              [1, 14, 3, 4], "and are done")
    tap.equal(table(server.zones_uri), table(upstream.zones_uri),
              "as upstream reports")
    manage["reset-all"].block_status(K4, 0, lambda *a: 0,
                                     nbd.CMD_FLAG_REQ_ONE)
    tap.equal(set(table(server.zones_uri)[64 * z + 25]
                  for z in range(2, 32)), {1}, "all zones are reset at once")
    for each in [h, *manage.values()]:
        each.shutdown()
upstream.stop()

# See above.
try:
    status = ending.process.wait(20)
except subprocess.TimeoutExpired:
    status = None
tap.equal(status, 1, "a server whose upstream hangs ends, and says that what "
          "was written may not be durable")
tap.like(ending.log(), "no answer in", "and why")
if status is None:
    ending.kill()
else:
    ending._forget()
os.kill(hung.pid, signal.SIGCONT)
hung.stop()
tap.done_testing()
