# SPDX-License-Identifier: BSD-3-Clause
"""The servers that speed.py compares.  Each has a file or image of SIZE of
its own, of which the first half takes writes anywhere (conventional zones)
and the second half is sequential zones where there are zones, and listens
on a Unix socket, or on a TCP port of this machine.

To add one: a class with argv() and, where a sequential zone does not take
a second write by itself, renew().
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time

SIZE = 1 << 30
ZONE = 64 << 20
HALF = SIZE // 2

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
libc = ctypes.CDLL(None, use_errno=True)


class Server:
    """A running server: cpu() in seconds, renew() before sequential writes.

    build is the build folder, folder where the disk lives, tcp whether to
    listen on a port.
    """
    name = None
    title = None
    program = None

    def __init__(self, build, folder, tcp):
        self.build, self.folder = build, folder
        self.disk = os.path.join(folder, self.name + ".disk")
        self.socket = os.path.join(folder, self.name + ".sock")
        self.port = free_port() if tcp else None
        self.full = False       # the second half holds data
        self.errors = open(os.path.join(folder, self.name + ".log"), "w+")
        self.make()
        self.process = subprocess.Popen(self.argv(), stdout=self.errors,
                                        stderr=self.errors)
        self._wait()
        self.pid = self.find_pid()

    @classmethod
    def missing(cls, build):
        """What the machine lacks for it, or None."""
        if shutil.which(cls.program) is None:
            return "%s is not installed" % cls.program
        return None

    def make(self):
        with open(self.disk, "w") as f:
            f.truncate(SIZE)

    def renew(self):
        """Makes the second half as if it had never been written."""
        fd = os.open(self.disk, os.O_RDWR)
        if libc.fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                          ctypes.c_int64(HALF), ctypes.c_int64(HALF)) != 0:
            raise OSError(ctypes.get_errno(), "fallocate", self.disk)
        os.close(fd)

    def _wait(self):
        deadline = time.time() + 20
        while time.time() < deadline:
            family, where = (socket.AF_INET, ("127.0.0.1", self.port)) \
                if self.port else (socket.AF_UNIX, self.socket)
            try:
                with socket.socket(family, socket.SOCK_STREAM) as s:
                    s.connect(where)
                    return
            except OSError:
                if self.process.poll():
                    break
                time.sleep(0.02)
        self.errors.seek(0)
        raise RuntimeError("%s did not start: %s" % (
            self.name, self.errors.read()))

    def find_pid(self):
        return self.process.pid

    @property
    def uri(self):
        if self.port:
            return "nbd://127.0.0.1:%d/%s" % (self.port, self.export)
        return "nbd+unix:///%s?socket=%s" % (self.export, self.socket)

    export = ""

    def where(self):
        """For nbd-load."""
        return (["--tcp", "127.0.0.1:%d" % self.port] if self.port
                else ["--unix", self.socket]) + ["--export", self.export]

    def cpu(self):
        """Processor time so far, user and system, all threads, and of
        child processes that have ended."""
        with open("/proc/%d/stat" % self.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        ended = (int(fields[13]) + int(fields[14])) / os.sysconf(
            "SC_CLK_TCK")
        # The process' own clock, as clock_getcpuclockid (3) has it.
        return time.clock_gettime((~self.pid << 3) | 2) + ended

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


class Zoned(Server):
    def _znbd(self, *args):
        subprocess.run([os.path.join(self.build, "client/znbd"), *args],
                       check=True, stdout=subprocess.DEVNULL)

    def make(self):
        self._znbd("create", "--size", str(SIZE), "--zone-size", str(ZONE),
                   "--conventional", str(HALF // ZONE), self.disk)

    def renew(self):
        self._znbd("reset", "--all", self.uri)


class ZnbdServer(Zoned):
    name = "znbd"
    title = "znbd-server"

    @classmethod
    def missing(cls, build):
        path = os.path.join(build, "server/znbd-server")
        return None if os.path.exists(path) else "%s is not built" % path

    def path(self):
        return os.path.join(self.build, "server/znbd-server")

    def argv(self):
        return [self.path(), "-f"] + (
            ["-i", "127.0.0.1", "-p", str(self.port)] if self.port
            else ["-U", self.socket]) + [self.disk]


class ZnbdOther(ZnbdServer):
    """Another build, to see what a change does."""
    name = "znbd-other"
    title = "the other znbd-server"

    @classmethod
    def missing(cls, build):
        return Server.missing.__func__(cls, build)

    def path(self):
        return self.program


class Nbdkit(Server):
    program = "nbdkit"

    def nbdkit(self, *plugin):
        return ["nbdkit", "-f", "-t", "64"] + (
            ["-i", "127.0.0.1", "-p", str(self.port)] if self.port
            else ["-U", self.socket]) + list(plugin)


class NbdkitFile(Nbdkit):
    name = "nbdkit-file"
    title = "nbdkit file"

    def argv(self):
        return self.nbdkit("file", self.disk)


class NbdkitZoned(Zoned, Nbdkit):
    name = "nbdkit-zoned"
    title = "nbdkit zoned"

    def argv(self):
        return self.nbdkit(
            os.path.join(self.build, "plugin/.libs/nbdkit-zoned-plugin.so"),
            self.disk)


class QemuNbd(Server):
    name = "qemu-nbd"
    title = "qemu-nbd"
    program = "qemu-nbd"

    def argv(self):
        return ["qemu-nbd", "-f", "raw", "-t", "-e", "512"] + (
            ["-b", "127.0.0.1", "-p", str(self.port)] if self.port
            else ["-k", self.socket]) + [self.disk]


class NbdServer(Server):
    name = "nbd-server"
    title = "nbd-server"
    program = "nbd-server"
    export = "disk"

    def argv(self):
        config = os.path.join(self.folder, "nbd-server.conf")
        with open(config, "w") as f:
            f.write("[generic]\n%s\n[disk]\nexportname = %s\n"
                    "fixed = true\n" % (
                        "listenaddr = 127.0.0.1\nport = %d" % self.port
                        if self.port else "unixsock = %s\nport = %d" % (
                            self.socket, free_port()), self.disk))
        self.pidfile = os.path.join(self.folder, "nbd-server.pid")
        return ["nbd-server", "-C", config, "-p", self.pidfile]

    def find_pid(self):
        """It goes into the background whatever it is told."""
        self.process.wait()
        with open(self.pidfile) as f:
            return int(f.read())

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        self.errors.close()

    def cpu(self):
        # A process of its own for each connection, which ends with it; its
        # parent may hear of it a moment later.
        time.sleep(0.05)
        return super().cpu()


ALL = [ZnbdServer, NbdkitFile, NbdkitZoned, QemuNbd, NbdServer]


def make_certificates(folder):
    """A certificate of a server, and its authority's, by certtool."""
    def certtool(*args):
        subprocess.run(["certtool", *args], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def path(name):
        return os.path.join(folder, name)

    os.mkdir(folder)
    for name, lines, by in (
            ("ca", "cn = znbd bench\nca\ncert_signing_key\n",
             ["--generate-self-signed"]),
            ("server", "cn = localhost\ndns_name = localhost\n"
             "tls_www_server\nsigning_key\nencryption_key\n",
             ["--generate-certificate", "--load-ca-certificate",
              path("ca-cert.pem"), "--load-ca-privkey",
              path("ca-key.pem")])):
        with open(path(name + ".template"), "w") as f:
            f.write(lines + "expiration_days = 7\n")
        certtool("--generate-privkey", "--key-type", "rsa", "--outfile",
                 path(name + "-key.pem"))
        certtool(*by, "--load-privkey", path(name + "-key.pem"),
                 "--template", path(name + ".template"),
                 "--outfile", path(name + "-cert.pem"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
