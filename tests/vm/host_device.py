# SPDX-License-Identifier: BSD-3-Clause
"""A zoned block device as its host sees it, while a server has claimed it:
what tests of the host store judge by.  made () makes one.  Reports come from
the kernel's ioctl, which is quick, and from blkzone and zbd, which are the
field's; data is read past the server.  Nothing here knows znbd.
"""

import fcntl
import mmap
import os
import re
import struct
import subprocess
from collections import namedtuple
from contextlib import contextmanager

from zone_model import CLOSED, CONVENTIONAL, EMPTY, EXPLICIT, IMPLICIT

# All in bytes, wp relative to start; None where it has no meaning.
Zone = namedtuple("Zone", "start length capacity wp cond type")

BLKREPORTZONE = 0xc0101282
BLKRESETZONE = 0x40101283
HAS_POINTER = (EMPTY, IMPLICIT, EXPLICIT, CLOSED)

# start: 0x000000000, len 0x020000, cap 0x018000, wptr 0x000000 reset:0
# non-seq:0, zcond: 1(em) [type: 2(SEQ_WRITE_REQUIRED)]
BLKZONE = re.compile(
    r"start: (0x\w+), len (0x\w+), cap (0x\w+), wptr (0x\w+) "
    r"reset:\d non-seq:\d, zcond: *(\d+)\(..\) \[type: (\d)")

# Zone 00000: swr, ofst 00000000000000, len 00000016777216,
# cap 00000016777216, wp 00000000000000, em, non_seq 0, reset 0
ZBD = re.compile(
    r"Zone (\d+): *(\w+), ofst (\w+), len (\w+), cap (\w+)"
    r"(?:, wp (\w+))?(?:, (\w\w))?")
ZBD_CONDS = {"nw": 0, "em": 1, "oi": 2, "oe": 3, "cl": 4, "ro": 13,
             "fu": 14, "ol": 15}
ZBD_TYPES = {"cnv": 1, "swr": 2, "swp": 3}


def zone(start, length, capacity, wp, cond, kind):
    return Zone(start, length, length if kind == CONVENTIONAL else capacity,
                wp - start if cond in HAS_POINTER else None, cond, kind)


def zones_of(report):
    """Of a BLKREPORTZONE ioctl's struct."""
    n, = struct.unpack_from("<I", report, 8)
    return [zone(start * 512, length * 512, capacity * 512, wp * 512, cond,
                 kind)
            for start, length, wp, kind, cond, non_seq, reset, capacity
            in struct.iter_unpack("<QQQBBBB4xQ24x", report[16:16 + 64 * n])]


makers = 0


@contextmanager
def made(command):
    """A device by a command of functions.sh, which keeps it until the end:
    with made ("null_blk size=32") as device: ...  device.folder is what
    configfs or sysfs has of it."""
    global makers
    makers += 1
    told, tell = os.pipe()
    maker = subprocess.Popen(
        ["bash", "-c",
         '. "$srcdir/vm/functions.sh"; null_blk_count=%d; %s\n'
         'echo "$dev" "${null_blk:-${smr_host:-}}" >&%d; read -r _'
         % (100 * makers, command, tell)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        pass_fds=[tell])
    os.close(tell)
    try:
        with open(told) as f:
            words = f.readline().split()
        assert words, command + ": " + maker.communicate()[0]
        device = Device(words[0])
        device.folder = words[-1]
        try:
            yield device
        finally:
            device.close()
    finally:
        maker.communicate("")


class Device:
    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        self.block = self.queue("logical_block_size")
        self.zone_size = self.queue("chunk_sectors") * 512 or self.size
        self.max_open = self.queue("max_open_zones")
        self.max_active = self.queue("max_active_zones")
        self.count = -(-self.size // self.zone_size)

    def close(self):
        os.close(self.fd)

    def set(self, name, value):
        """A file of its folder."""
        with open(self.folder + "/" + name, "w") as f:
            f.write(str(value))

    def queue(self, name):
        """An attribute, 0 where there is none."""
        try:
            with open("/sys/block/%s/queue/%s" % (
                    os.path.basename(self.path), name)) as f:
                return int(f.read())
        except FileNotFoundError:
            return 0

    def report(self):
        """All zones, by the ioctl."""
        buf = bytearray(16 + 64 * self.count)
        struct.pack_into("<QI", buf, 0, 0, self.count)
        fcntl.ioctl(self.fd, BLKREPORTZONE, buf)
        zones = zones_of(buf)
        assert len(zones) == self.count, "%d zones of %d" % (len(zones),
                                                              self.count)
        return zones

    def blkzone(self, first=0, count=None):
        """The same by blkzone; or some zones."""
        if count is None or count > self.count - first:
            count = self.count - first
        text = subprocess.run(
            ["blkzone", "report", "-o", str(first * self.zone_size // 512),
             "-c", str(count), self.path], check=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
        zones = []
        for m in BLKZONE.finditer(text):
            start, length, capacity, wp = [int(x, 16) * 512
                                           for x in m.groups()[:4]]
            # blkzone prints the pointer relative to the start.
            zones.append(zone(start, length, capacity, start + wp,
                              int(m[5]), int(m[6])))
        assert len(zones) == count, text
        return zones

    def zbd(self):
        """The same by zbd."""
        text = subprocess.run(["zbd", "report", self.path], check=True,
                              stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE).stdout
        zones = []
        for m in ZBD.finditer(text):
            start, length, capacity = [int(x) for x in m.groups()[2:5]]
            zones.append(zone(start, length, capacity, int(m[6] or 0),
                              ZBD_CONDS[m[7] or "nw"], ZBD_TYPES[m[2]]))
        assert len(zones) == self.count, text
        return zones

    def read(self, offset, length):
        """Past the server and past the page cache."""
        with mmap.mmap(-1, length) as buf:
            done = os.preadv(self.fd, [buf], offset)
            assert done == length, "%d of %d bytes at %d" % (done, length,
                                                              offset)
            return buf[:]

    def reset(self, number):
        """Behind the back of who has claimed it."""
        fd = os.open(self.path, os.O_RDWR)
        try:
            fcntl.ioctl(fd, BLKRESETZONE, struct.pack(
                "<QQ", number * self.zone_size // 512, self.zone_size // 512))
        finally:
            os.close(fd)
