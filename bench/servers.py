# SPDX-License-Identifier: BSD-3-Clause
"""The servers that are compared.  Each has a file or image of its own, of
which the first half takes writes anywhere (conventional zones) and the
second half is sixteen sequential zones where there are zones, or as many small
ones as fit into it and more behind it.  It listens on a Unix socket, on a TCP
port of this machine, or there with TLS.

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

TRANSPORTS = ("unix", "tcp", "tls")

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
libc = ctypes.CDLL(None, use_errno=True)


class Place:
    """Where servers run: the build folder, the folder where the disks live
    and how large they are, how clients reach them, and with TLS the folder
    of its certificates.  zones: so many in all, of 1 MiB each, of which those
    behind the second half stay empty."""

    def __init__(self, build, folder, transport="unix", mib=1024, zones=0):
        self.build, self.folder = build, folder
        self.transport = transport
        self.half = (mib << 20) // 2
        self.zone = 1 << 20 if zones else self.half // 16
        self.size = max(mib << 20, zones * self.zone)
        self.certificates = os.path.join(folder, "pki")
        if transport == "tls" and not os.path.exists(self.certificates):
            make_certificates(self.certificates)

    def program(self, name):
        """One of the build's own."""
        return os.path.join(self.build, name)


class Server:
    """A running server: cpu() in seconds, renew() before sequential writes.

    role is what it is in a comparison: ours, a peer, or the ceiling.
    """
    name = None
    title = None
    program = None
    role = "peer"
    export = ""
    transports = TRANSPORTS
    patience = 20               # seconds until it listens
    zoned = False               # the second half

    def __init__(self, place):
        self.place = place
        self.disk = os.path.join(place.folder, self.name + ".disk")
        self.socket = os.path.join(place.folder, self.name + ".sock")
        self.port = free_port() if place.transport != "unix" else None
        self.full = False       # the second half holds data
        self.errors = open(os.path.join(place.folder, self.name + ".log"),
                           "w+")
        self.make()
        self.process = subprocess.Popen(self.argv(), stdout=self.errors,
                                        stderr=self.errors)
        try:
            self._wait()
            self.pid = self.find_pid()
        except BaseException:
            self.process.kill()
            self.process.wait()
            self.errors.close()
            raise

    @classmethod
    def missing(cls, place):
        """Why it cannot be had, or None."""
        if shutil.which(cls.program) is None:
            return "%s is not installed" % cls.program
        if place.transport not in cls.transports:
            return "it does not do %s" % place.transport
        return None

    def make(self):
        with open(self.disk, "w") as f:
            f.truncate(self.place.size)

    def renew(self):
        """Trims the second half."""
        fd = os.open(self.disk, os.O_RDWR)
        half = ctypes.c_int64(self.place.half)
        if libc.fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                          half, half) != 0:
            raise OSError(ctypes.get_errno(), "fallocate", self.disk)
        os.close(fd)

    def _wait(self):
        deadline = time.time() + self.patience
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
            return "nbd%s://127.0.0.1:%d/%s" % (
                "s" if self.place.transport == "tls" else "", self.port,
                self.export)
        return "nbd+unix:///%s?socket=%s" % (self.export, self.socket)

    def where(self):
        """For nbd-load."""
        return (["--tcp", "127.0.0.1:%d" % self.port] if self.port
                else ["--unix", self.socket]) + ["--export", self.export] + (
            ["--tls-certificates", self.place.certificates]
            if self.place.transport == "tls" else [])

    def letters(self):
        """nbdkit's options for how it listens, which znbd-server has too."""
        argv = ["-i", "127.0.0.1", "-p", str(self.port)] if self.port \
            else ["-U", self.socket]
        if self.place.transport == "tls":
            argv += ["--tls=require",
                     "--tls-certificates=" + self.place.certificates]
        return argv

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
    role = "ours"
    zoned = True

    def _znbd(self, *args):
        subprocess.run([self.place.program("client/znbd"), *args],
                       check=True, stdout=subprocess.DEVNULL)

    def make(self):
        p = self.place
        self._znbd("create", "--size", str(p.size), "--zone-size",
                   str(p.zone), "--conventional", str(p.half // p.zone),
                   self.disk)

    def renew(self):
        import nbd              # zones by the plain command that resets them
        h = nbd.NBD()
        if self.place.transport == "tls":
            h.set_tls(nbd.TLS_REQUIRE)
            h.set_tls_verify_peer(False)
        h.connect_uri(self.uri)
        h.trim(self.place.half, self.place.half)
        h.flush()
        h.shutdown()


class ZnbdServer(Zoned):
    name = "znbd"
    title = "znbd-server"

    @classmethod
    def missing(cls, place):
        path = place.program("server/znbd-server")
        return None if os.path.exists(path) else "%s is not built" % path

    def path(self):
        return self.place.program("server/znbd-server")

    def argv(self):
        return [self.path(), "-f", *self.letters(), self.disk]


class ZnbdOther(ZnbdServer):
    """Another build, to see what a change does."""
    name = "znbd-other"
    title = "the other znbd-server"
    role = "peer"

    @classmethod
    def missing(cls, place):
        return Server.missing.__func__(cls, place)

    def path(self):
        return self.program


class Nbdkit(Server):
    program = "nbdkit"

    def nbdkit(self, *plugin):
        return ["nbdkit", "-f", "-t", "64", *self.letters(), *plugin]


class NbdkitFile(Nbdkit):
    name = "nbdkit-file"
    title = "nbdkit file"

    def argv(self):
        return self.nbdkit("file", self.disk)


class NbdkitMemory(Nbdkit):
    name = "nbdkit-memory"
    title = "nbdkit memory"

    def make(self):
        pass

    def argv(self):
        return self.nbdkit("memory", str(self.place.size))

    renew = Zoned.renew         # a trim gives its pages back


class NbdkitZoned(Zoned, Nbdkit):
    name = "nbdkit-zoned"
    title = "nbdkit zoned"
    role = "plugin"

    def argv(self):
        return self.nbdkit(
            self.place.program("plugin/.libs/nbdkit-zoned-plugin.so"),
            self.disk)


class Qemu(Server):
    patience = 60               # with TLS it makes numbers first

    def credentials(self):
        return ["--object", "tls-creds-x509,id=tls,endpoint=server,"
                "verify-peer=off,dir=" + self.place.certificates] \
            if self.place.transport == "tls" else []


class QemuNbd(Qemu):
    name = "qemu-nbd"
    title = "qemu-nbd"
    program = "qemu-nbd"

    def argv(self):
        argv = ["qemu-nbd", "-f", "raw", "-t", "-e", "512"] + (
            ["-b", "127.0.0.1", "-p", str(self.port)] if self.port
            else ["-k", self.socket]) + self.credentials()
        if self.place.transport == "tls":
            argv += ["--tls-creds", "tls"]
        return argv + [self.disk]


class QemuStorageDaemon(Qemu):
    name = "qemu-storage-daemon"
    title = "qemu-storage-daemon"
    program = "qemu-storage-daemon"
    export = "disk"

    def argv(self):
        server = "addr.type=inet,addr.host=127.0.0.1,addr.port=%d" % \
            self.port if self.port else "addr.type=unix,addr.path=" + \
            self.socket
        if self.place.transport == "tls":
            server += ",tls-creds=tls"
        return ["qemu-storage-daemon", *self.credentials(),
                "--blockdev", "driver=file,node-name=disk,filename=" +
                self.disk, "--nbd-server", server + ",max-connections=0",
                "--export", "type=nbd,id=export,node-name=disk,"
                "writable=on,name=disk"]


class NbdServer(Server):
    name = "nbd-server"
    title = "nbd-server"
    program = "nbd-server"
    export = "disk"

    def argv(self):
        generic = "listenaddr = 127.0.0.1\nport = %d" % self.port \
            if self.port else "unixsock = %s\nport = %d" % (
                self.socket, free_port())
        if self.place.transport == "tls":
            generic += "\nforce_tls = true" + "".join(
                "\n%sfile = %s" % (what, os.path.join(
                    self.place.certificates, name)) for what, name in (
                        ("cert", "server-cert.pem"),
                        ("key", "server-key.pem"),
                        ("cacert", "ca-cert.pem")))
        config = os.path.join(self.place.folder, "nbd-server.conf")
        with open(config, "w") as f:
            f.write("[generic]\n%s\n[disk]\nexportname = %s\n" % (
                generic, self.disk))
        self.pidfile = os.path.join(self.place.folder, "nbd-server.pid")
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


class Echo(Server):
    """No server: it has no disk and answers at once."""
    name = "echo"
    title = "the ceiling"
    role = "ceiling"
    transports = ("unix", "tcp")

    @classmethod
    def missing(cls, place):
        if place.transport not in cls.transports:
            return "it does not do %s" % place.transport
        return None

    def make(self):
        pass

    def renew(self):
        pass

    def argv(self):
        return [self.place.program("bench/nbd-echo")] + (
            ["--tcp", str(self.port)] if self.port
            else ["--unix", self.socket])


ALL = [ZnbdServer, NbdkitFile, NbdkitMemory, NbdkitZoned, QemuNbd,
       QemuStorageDaemon, NbdServer, Echo]


def start(classes, place, needed=()):
    """Starts those that can be had, and says which cannot.  Ends with an
    error where that is a needed one."""
    running = []
    try:
        for cls in classes:
            why = cls.missing(place)
            if why and cls.name in needed:
                raise SystemExit("%s: %s" % (cls.title, why))
            if why:
                print("without %s: %s" % (cls.title, why), flush=True)
                continue
            running.append(cls(place))
    except BaseException:
        stop(running)
        raise
    return running


def stop(running):
    for server in running:
        server.stop()


def make_certificates(folder):
    """Certificates of a server and a client, and their authority's, by
    certtool."""
    def certtool(*args):
        subprocess.run(["certtool", *args], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def path(name):
        return os.path.join(folder, name)

    by_ca = ["--generate-certificate", "--load-ca-certificate",
             path("ca-cert.pem"), "--load-ca-privkey", path("ca-key.pem")]
    os.mkdir(folder)
    for name, lines, by in (
            ("ca", "cn = znbd bench\nca\ncert_signing_key\n",
             ["--generate-self-signed"]),
            ("server", "cn = localhost\ndns_name = localhost\n"
             "ip_address = 127.0.0.1\ntls_www_server\n", by_ca),
            ("client", "cn = client\ntls_www_client\n", by_ca)):
        with open(path(name + ".template"), "w") as f:
            f.write(lines + "signing_key\nencryption_key\n"
                    "expiration_days = 7\n")
        certtool("--generate-privkey", "--key-type", "rsa", "--outfile",
                 path(name + "-key.pem"))
        certtool(*by, "--load-privkey", path(name + "-key.pem"),
                 "--template", path(name + ".template"),
                 "--outfile", path(name + "-cert.pem"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
