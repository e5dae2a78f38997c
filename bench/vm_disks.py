# SPDX-License-Identifier: BSD-3-Clause
"""The zoned disk that vm.py measures on, and the ways to it.  In the virtual
machine only.

Whoever else wrote to the disk, reset () of a way makes all zones empty
through it, so that neither its server nor the kernel's block device before
it remembers other pointers; look () makes it see what is there now.

To add a way: a class with _start (), reset (), look (), run () and stop ().
"""

import fcntl
import glob
import json
import mmap
import os
import struct
import subprocess
import sys
import time

here = os.path.dirname(os.path.realpath(__file__))
sys.path += [os.path.join(here, "../tests/vm"),
             os.path.join(here, "../tests")]

from host_device import BLKRESETZONE, Device  # noqa: E402
from zone_model import FULL  # noqa: E402

MIB = 1 << 20
CONFIG = "/sys/kernel/config/"
CONTENT = 0x5a                  # what a full disk is full of


def put(path, value):
    try:
        with open(path, "w") as f:
            f.write(str(value))
    except OSError as e:
        sys.exit("vm.py: %s: %s: %s" % (path, value, e.strerror))


def wait_for(what, happened):
    for _ in range(300):
        if happened():
            return
        time.sleep(.1)
    sys.exit("vm.py: %s" % what)


def run(*argv):
    """What it prints."""
    try:
        r = subprocess.run(argv, text=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        sys.exit("vm.py: %s is not installed" % argv[0])
    if r.returncode:
        sys.exit("vm.py: %s: status %d: %s" % (" ".join(argv), r.returncode,
                                               r.stdout + r.stderr))
    return r.stdout


def modprobe(*argv):
    run("modprobe", *argv)


class Disk:
    """The null_blk.  It takes 1 MiB in a command, as NVMe drives do, if it is
    not told otherwise."""
    folder = CONFIG + "nullb/bench"

    def __init__(self, zones, zone_size, more):
        modprobe("null_blk", "nr_devices=0")
        os.mkdir(self.folder)
        settings = {"zoned": 1, "memory_backed": 1, "blocksize": 4096,
                    "size": zones * zone_size, "zone_size": zone_size,
                    "max_sectors": 2048}
        for setting in filter(None, more.split(",")):
            name, _, value = setting.partition("=")
            settings[name] = value
        for name, value in settings.items():
            put(os.path.join(self.folder, name), value)
        put(self.folder + "/power", 1)
        self.path = "/dev/bench"        # its folder's name, from 6.12 on
        if not os.path.exists("/sys/block/bench"):
            with open(self.folder + "/index") as f:
                self.path = "/dev/nullb" + f.read().strip()
        wait_for("there is no " + self.path,
                 lambda: os.path.exists(self.path))
        self.device = Device(self.path)
        self.size = self.device.size
        self.zone_size = self.device.zone_size
        self.full = False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.device.close()
        put(self.folder + "/power", 0)
        os.rmdir(self.folder)

    def fill(self):
        """With data, past all servers."""
        reset(self.path, self.size)
        fd = os.open(self.path, os.O_WRONLY | os.O_DIRECT)
        with mmap.mmap(-1, MIB) as buf:
            buf.write(bytes([CONTENT]) * MIB)
            for at in range(0, self.size, MIB):
                if os.pwrite(fd, buf, at) != MIB:
                    sys.exit("vm.py: %s is not filled" % self.path)
        os.close(fd)
        self.full = True

    def check_written(self, way, case, requests):
        zones = self.device.report()
        if requests * case.bs != self.size or \
           any(z.cond != FULL for z in zones):
            sys.exit("vm.py: %s, %s: %d requests, and not all zones of the "
                     "device are full" % (way.title, case.name, requests))


def reset(path, size):
    """All zones.  Not by blkzone, which wants the device for itself."""
    fd = os.open(path, os.O_RDWR)
    fcntl.ioctl(fd, BLKRESETZONE, struct.pack("<QQ", 0, size // 512))
    os.close(fd)


def fio(case, seconds, *options):
    """(requests a second, requests, its JSON).  Writes go through the disk
    once."""
    argv = ["fio", "--name=x", "--bs=%d" % case.bs, "--gtod_reduce=1",
            "--iodepth=%d" % case.depth, "--output-format=json", *options]
    if case.op == "write":
        argv += ["--rw=write"]
    else:
        argv += ["--rw=randread", "--norandommap", "--time_based",
                 "--runtime=%dms" % (seconds * 1000)]
    out = run(*argv)
    side = json.loads(out[out.index("{"):])["jobs"][0][case.op]
    return side["iops"], side["total_ios"], side


class Way:
    """A way to the disk: its server, what is before it, and a client."""
    name = None
    title = None

    def __init__(self, disk, build, fio_options):
        self.disk, self.build = disk, build
        self.fio_options = fio_options.split()
        self._start()

    def _start(self):
        pass

    def stop(self):
        pass

    def wrong(self, what):
        sys.exit("vm.py: %s: %s" % (self.title, what))


# ---- block devices ------------------------------------------------------


class BlockDevice(Way):
    """Whose client is fio by io_uring, as deep as it may submit and reap at
    once, for nbd-load does so too."""
    path = None

    def reset(self):
        reset(self.path, self.disk.size)

    def look(self):
        """A block in the middle is what it should be."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        with mmap.mmap(-1, 4096) as buf:
            os.preadv(fd, [buf], self.disk.size // 2)
            if buf[:] != bytes([CONTENT]) * 4096:
                self.wrong("it does not read what is there")
        os.close(fd)

    def run(self, case, seconds):
        return fio(case, seconds, "--filename=" + self.path, "--direct=1",
                   "--ioengine=io_uring", "--zonemode=zbd",
                   "--iodepth_batch_submit=%d" % case.depth,
                   "--iodepth_batch_complete_min=1",
                   "--iodepth_batch_complete_max=%d" % case.depth,
                   *self.fio_options)


class Itself(BlockDevice):
    name = "device"
    title = "none: the device itself, fio"

    def _start(self):
        self.path = self.disk.path


class Nvmet(BlockDevice):
    """The kernel's NVMe target and its initiator, without multipath, which
    would only be one more layer."""
    name = "nvmet"
    title = "nvmet-tcp, fio"
    nqn = "nqn.2026-01.org.example:bench"
    host = "24ce1ff1-56ac-4d2e-9d7b-1c7a6e2f5b10"
    subsystem = CONFIG + "nvmet/subsystems/" + nqn
    port = CONFIG + "nvmet/ports/1"

    def _start(self):
        # Parameters count only if nobody has loaded it yet.
        modprobe("nvme-core", "multipath=N")
        for module in "nvmet", "nvmet-tcp", "nvme-tcp":
            modprobe(module)
        space = self.subsystem + "/namespaces/1"
        os.mkdir(self.subsystem)
        put(self.subsystem + "/attr_allow_any_host", 1)
        os.mkdir(space)
        put(space + "/device_path", self.disk.path)
        put(space + "/enable", 1)
        os.mkdir(self.port)
        for name, value in {"trtype": "tcp", "adrfam": "ipv4",
                            "traddr": "127.0.0.1", "trsvcid": 4420}.items():
            put(self.port + "/addr_" + name, value)
        os.symlink(self.subsystem, "%s/subsystems/%s" % (self.port,
                                                         self.nqn))
        put("/dev/nvme-fabrics",
            "transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=%s,"
            "hostnqn=nqn.2014-08.org.nvmexpress:uuid:%s,hostid=%s"
            % (self.nqn, self.host, self.host))
        wait_for("the NVMe namespace does not appear", self._find)

    def _find(self):
        for path in glob.glob("/sys/class/nvme/nvme*/subsysnqn"):
            with open(path) as f:
                if f.read().strip() != self.nqn:
                    continue
            self.controller = os.path.dirname(path)
            name = os.path.basename(self.controller) + "n1"
            self.path = "/dev/" + name
            try:
                with open("/sys/block/%s/queue/zoned" % name) as f:
                    return f.read().strip() == "host-managed" and \
                        os.path.exists(self.path)
            except FileNotFoundError:
                pass
        return False

    def stop(self):
        put(self.controller + "/delete_controller", 1)
        os.unlink("%s/subsystems/%s" % (self.port, self.nqn))
        os.rmdir(self.port)
        os.rmdir(self.subsystem + "/namespaces/1")
        os.rmdir(self.subsystem)


# ---- znbd-server --------------------------------------------------------


class Server:
    """A znbd-server on the disk, which several ways may share: it claims the
    disk, so there is one at a time."""
    running = None

    def __init__(self, disk, program):
        self.program, self.users = program, 0
        self.log = open("/tmp/bench-server.log", "w+")
        self.process = subprocess.Popen(
            [program, "-f", "-i", "127.0.0.1", "-p", "10809",
             "-P", "/tmp/bench-server.pid", disk.path], stderr=self.log)
        wait_for("%s does not start: " % program, self._is_up)

    def _is_up(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            sys.exit("vm.py: %s: %s" % (self.program, self.log.read()))
        return os.path.exists("/tmp/bench-server.pid")

    def end(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        if os.path.exists("/tmp/bench-server.pid"):
            os.unlink("/tmp/bench-server.pid")
        Server.running = None

    @classmethod
    def of(cls, disk, program):
        """The one of this program."""
        if cls.running and cls.running.program != program:
            cls.running.end()
        if cls.running is None:
            cls.running = cls(disk, program)
        return cls.running


class Znbd(Way):
    name = "znbd"
    title = "znbd-server, nbd-load"
    uri = "nbd://127.0.0.1/"

    def path_of(self):
        return os.path.join(self.build, "server/znbd-server")

    def serve(self):
        Server.of(self.disk, self.path_of())

    def znbd(self, *args):
        return run(os.path.join(self.build, "client/znbd"), *args)

    def _start(self):
        self.serve()

    def reset(self):
        self.serve()
        self.znbd("reset", "--all", self.uri)

    def look(self):
        self.serve()
        # To report, the server asks the device.
        report = self.znbd("report", self.uri)
        if report.count(" full ") * self.disk.zone_size != self.disk.size:
            self.wrong("not all zones are full:\n" + report)
        out = self.znbd("io", "-r", "-c", "read -q -P %d %d 4096" % (
            CONTENT, self.disk.size // 2), self.uri)
        if out.strip():
            self.wrong("it does not read what is there: " + out)

    def run(self, case, seconds):
        argv = [os.path.join(self.build, "bench/nbd-load"),
                "--tcp", "127.0.0.1:10809", "--block-size", str(case.bs),
                "--depth", str(case.depth)]
        if case.op == "write":
            argv += ["--write", "--zone-size", str(self.disk.zone_size),
                     "--count", str(self.disk.size // case.bs)]
        else:
            argv += ["--random", "--seconds", str(seconds)]
        r = json.loads(run(*argv))
        return r["requests_per_second"], r["requests"], r

    def stop(self):
        if Server.running:
            Server.running.end()


class ZnbdFio(Znbd):
    name = "znbd-fio"
    title = "znbd-server, fio with libnbd"

    def run(self, case, seconds):
        return fio(case, seconds, "--ioengine=nbd", "--uri=" + self.uri,
                   "--size=%d" % self.disk.size)


class ZnbdOther(Znbd):
    """Another build, to see what a change does."""
    name = "znbd-other"
    title = "the other znbd-server, nbd-load"
    program = None

    def path_of(self):
        return self.program


class Attach(BlockDevice):
    """znbd attach before znbd-server."""
    name = "attach"
    title = "znbd-server, znbd attach, fio"

    def _start(self):
        modprobe("ublk_drv")
        self.znbd = Znbd(self.disk, self.build, "")
        self.path = self.znbd.znbd("attach", self.znbd.uri).strip()
        wait_for("there is no " + self.path,
                 lambda: os.path.exists(self.path))

    def reset(self):
        self.znbd.serve()
        super().reset()

    def look(self):
        self.znbd.look()
        super().look()

    def stop(self):
        self.znbd.serve()
        self.znbd.znbd("detach", self.path)


ALL = [Znbd, ZnbdFio, ZnbdOther, Attach, Nvmet, Itself]
