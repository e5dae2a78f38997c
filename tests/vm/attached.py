# SPDX-License-Identifier: BSD-3-Clause
"""A device of znbd attach, as programs use it:

    with Attached(server.uri, "--connections", "1") as dev:
        dev.write(offset, data, fua=True)
        dev.zone("reset", 3)
        dev.report()

and the kernel's nvmet on top of it, by which programs send zone appends: a
block device takes them from file systems only.

    with NVMe(dev.path) as nvme:
        nvme.append(zone, data)         # where it went
"""

import ctypes
import fcntl
import json
import mmap
import os
import signal
import struct
import subprocess
import threading
import time

from harness import TAP, run
from host_device import BLKREPORTZONE, zones_of

ZONE_OPS = {"reset": 0x40101283, "open": 0x40101286, "close": 0x40101287,
            "finish": 0x40101288}
RWF_DSYNC = 2


def load_module(*argv):
    status, out, err = run("modprobe", *argv)
    assert status == 0, err


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(.02)
    return True


def aligned(length, data=None):
    """Memory as O_DIRECT wants it."""
    buf = mmap.mmap(-1, max(length, 4096))
    if data is not None:
        buf[:length] = data
    return memoryview(buf)[:length]


class Call(threading.Thread):
    """A call that may take long, under way; result () waits for it."""

    def __init__(self, call, *args, **named):
        super().__init__(daemon=True)
        self.call, self.args, self.named = call, args, named
        self.value = self.error = None
        self.start()

    def run(self):
        try:
            self.value = self.call(*self.args, **self.named)
        except OSError as e:
            self.error = e

    def result(self, seconds=60):
        self.join(seconds)
        if self.is_alive():
            raise OSError("it hangs")
        if self.error:
            raise self.error
        return self.value


class Attached:
    """As a context: attached, opened, and detached in the end."""

    count = 0

    def __init__(self, uri, *options):
        load_module("ublk_drv")
        self.uri, self.options = uri, options
        self.fd = None
        Attached.count += 1
        self.logfile = TAP.current.path("attach%d.log" % Attached.count)

    def attach(self):
        """In the foreground, so that its messages are in self.log ()."""
        with open(self.logfile, "ab") as log:
            self.process = subprocess.Popen(
                ["znbd", "attach", "--foreground", *self.options, self.uri],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                text=True)
        self.path = self.process.stdout.readline().strip()
        assert self.path.startswith("/dev/ublkb"), self.log()
        return self

    def __enter__(self):
        self.attach()
        self.fd = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        with open("/sys/block/%s/queue/chunk_sectors"
                  % os.path.basename(self.path)) as f:
            self.zone_size = int(f.read()) * 512
        return self

    def __exit__(self, *exception):
        os.close(self.fd)
        self.detach()

    def detach(self):
        status, out, err = run("znbd", "detach", self.path)
        if status != 0:
            TAP.current.fail("znbd detach", out, err, self.log())
        self.process.wait(30)
        return status

    def kill(self):
        """As the kernel's out-of-memory killer does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def log(self):
        with open(self.logfile, errors="replace") as f:
            return f.read()

    def says(self, text, seconds=30):
        return wait_for(lambda: text in self.log(), seconds)

    def listed(self):
        """Its object of znbd list."""
        return [d for d in json.loads(run("znbd", "list", "--json")[1])
                if d["device"] == self.path][0]

    # ---- what programs do

    def write(self, offset, data, fua=False):
        done = os.pwritev(self.fd, [aligned(len(data), data)], offset,
                          RWF_DSYNC if fua else 0)
        assert done == len(data)

    def read(self, offset, length):
        buf = aligned(length)
        done = os.preadv(self.fd, [buf], offset)
        assert done == length
        return bytes(buf)

    def flush(self):
        os.fsync(self.fd)

    def zone(self, op, number):
        fcntl.ioctl(self.fd, ZONE_OPS[op], struct.pack(
            "<QQ", number * self.zone_size // 512, self.zone_size // 512))

    def report(self):
        zones = []
        while len(zones) < self.size // self.zone_size:
            # Python keeps all its threads waiting for an ioctl with more
            # than 1024 bytes; one may be the server's way here.
            buf = bytearray(16 + 64 * 15)
            struct.pack_into("<QI", buf, 0,
                             len(zones) * self.zone_size // 512, 15)
            fcntl.ioctl(self.fd, BLKREPORTZONE, buf)
            zones += zones_of(buf)
        return zones


# ---- appends ---------------------------------------------------------------

NVMET = "/sys/kernel/config/nvmet"
NVME_IOCTL_IO64_CMD = 0xc0504e48
ZONE_APPEND = 0x7d


def put(path, value):
    with open(path, "w") as f:
        f.write(value)


class NVMe:
    """A zoned block device as an NVMe namespace of this machine.  nvmet wants
    all zones sequential, and written up to their ends."""

    NAME = "znbd-test"

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        load_module("nvme-loop")
        sub = NVMET + "/subsystems/" + self.NAME
        os.mkdir(sub)
        put(sub + "/attr_allow_any_host", "1")
        os.mkdir(sub + "/namespaces/1")
        put(sub + "/namespaces/1/device_path", self.path)
        put(sub + "/namespaces/1/enable", "1")
        os.mkdir(NVMET + "/ports/1")
        put(NVMET + "/ports/1/addr_trtype", "loop")
        os.symlink(sub, NVMET + "/ports/1/subsystems/" + self.NAME)
        with open("/dev/nvme-fabrics", "r+b", buffering=0) as f:
            f.write(b"transport=loop,nqn=%s" % self.NAME.encode())
            told = f.read(200).decode()
        self.instance = dict(x.split("=") for x in told.split(","))[
            "instance"]
        self.controller = "/sys/class/nvme/nvme" + self.instance
        path = "/dev/nvme%sn1" % self.instance
        assert wait_for(lambda: os.path.exists(path)), "nvmet: " + path
        self.fd = os.open(path, os.O_RDWR)
        self.block = 4096
        return self

    def __exit__(self, *exception):
        os.close(self.fd)
        put(self.controller + "/delete_controller", "1")
        sub = NVMET + "/subsystems/" + self.NAME
        os.unlink(NVMET + "/ports/1/subsystems/" + self.NAME)
        os.rmdir(NVMET + "/ports/1")
        put(sub + "/namespaces/1/enable", "0")
        os.rmdir(sub + "/namespaces/1")
        os.rmdir(sub)

    def append(self, start, data):
        """To the zone that starts there; returns where it went."""
        buf = aligned(len(data), data)
        address = ctypes.addressof(ctypes.c_char.from_buffer(buf))
        lba = start // self.block
        # struct nvme_passthru_cmd64
        cmd = bytearray(struct.pack(
            "<BBHIIIQQ10IQ", ZONE_APPEND, 0, 0, 1, 0, 0, 0, address,
            0, len(data), lba & 0xffffffff, lba >> 32,
            len(data) // self.block - 1, 0, 0, 0, 0, 0, 0))
        status = fcntl.ioctl(self.fd, NVME_IOCTL_IO64_CMD, cmd)
        if status != 0:
            raise OSError(status, "NVMe status 0x%x" % status)
        return struct.unpack_from("<Q", cmd, 72)[0] * self.block
