# SPDX-License-Identifier: BSD-3-Clause
"""What Python tests begin with:

    from harness import TAP, Nbdkit, connect

    tap = TAP()
    with Nbdkit("size=1G", "zone-size=64M") as server:
        h = connect(server.uri)
        tap.equal(h.get_size(), 1 << 30, "the size is served")
        h.shutdown()
    tap.done_testing()

Results are TAP.  Every check counts itself and goes on after a failure; an
exception that nobody caught is one failed check more.  tap.tmp is a folder
of the test's own, which goes when it ends.  An nbdkit that does not end
cleanly is a failure.  tests/run sets the environment.
"""

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import nbd

if "abs_top_builddir" not in os.environ:
    print("Bail out! run it with tests/run in the build folder")
    sys.exit(99)

top_srcdir = os.environ["abs_top_srcdir"]
top_builddir = os.environ["abs_top_builddir"]
plugin = os.environ["PLUGIN"]

# make check-long: take the time that a thorough look needs
long = bool(os.environ.get("ZNBD_LONG"))


class TAP:
    """Counts and prints checks.  There is one in a test."""

    current = None

    def __init__(self, plan=None):
        TAP.current = self
        self.count = 0
        self.failed = 0
        self.planned = plan
        self.finished = False
        self.tmp = tempfile.mkdtemp(prefix="znbd-test.")
        self._memory = None
        atexit.register(self._end)
        sys.excepthook = self._exception
        if plan is not None:
            self._print("1..%d" % plan)

    @staticmethod
    def _print(line):
        print(line, flush=True)

    def diag(self, *texts):
        """Lines for people who look at a failure."""
        for text in texts:
            for line in str(text).splitlines() or [""]:
                self._print("# " + line)

    def ok(self, good, description, *diagnostics):
        self.count += 1
        if good:
            self._print("ok %d - %s" % (self.count, description))
        else:
            self.failed += 1
            self._print("not ok %d - %s" % (self.count, description))
            self.diag(*diagnostics)
        return bool(good)

    def passed(self, description):
        return self.ok(True, description)

    def fail(self, description, *diagnostics):
        return self.ok(False, description, *diagnostics)

    def equal(self, got, wanted, description):
        """got == wanted (the shell functions call it is)."""
        return self.ok(got == wanted, description,
                       "got:    %r" % (got,), "wanted: %r" % (wanted,))

    is_ = equal

    def like(self, got, regex, description):
        return self.ok(re.search(regex, got), description,
                       "got:      %r" % (got,), "not like: %r" % (regex,))

    def raises(self, exception, call, description, errno=None):
        """call() raises the exception; with an nbd.Error, errno too is
        looked at where it is given (its name or its number)."""
        try:
            call()
        except exception as e:
            if errno is None:
                return self.passed(description)
            got = getattr(e, "errno", None)
            if isinstance(errno, int):
                got = getattr(e, "errnum", got)
            return self.ok(got == errno, description,
                           "got: %s" % (e,), "wanted errno: %s" % (errno,))
        return self.fail(description, "nothing was raised")

    def skip(self, description, reason):
        """One check that cannot be made here."""
        self.count += 1
        self._print("ok %d - %s # SKIP %s" % (self.count, description, reason))

    def skip_all(self, reason):
        """The whole test, before any check."""
        self._print("1..0 # SKIP %s" % reason)
        self.finished = True
        sys.exit(0)

    def requires(self, *commands):
        for command in commands:
            if shutil.which(command) is None:
                self.skip_all("%s is not installed" % command)

    def long_only(self):
        if not long:
            self.skip_all("takes long: run by make check-long")

    def done_testing(self):
        """Prints the plan.  The test that does not come here has failed."""
        self.finished = True
        if self.planned is None:
            self._print("1..%d" % self.count)

    def path(self, name):
        """A file's name in the test's own folder."""
        return os.path.join(self.tmp, name)

    def memory(self):
        """A folder on tmpfs, or None: there images are written to otherwise
        than on a disk."""
        if self._memory is None and os.path.isdir("/dev/shm") and \
           os.access("/dev/shm", os.W_OK):
            self._memory = tempfile.mkdtemp(prefix="znbd-test.",
                                            dir="/dev/shm")
        return self._memory

    def _exception(self, kind, value, trace):
        self.fail("no exception ends the test",
                  *traceback.format_exception(kind, value, trace))
        self.done_testing()

    def _end(self):
        for server in list(Nbdkit.running):
            server.stop()
        shutil.rmtree(self.tmp, ignore_errors=True)
        if self._memory:
            shutil.rmtree(self._memory, ignore_errors=True)
        if not self.finished:
            self.fail("the test calls done_testing")
            self.done_testing()
        # What failed has been said; a failing status would count again.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


# Which server Nbdkit stands for.  Tests whose server-*.py sets this look at
# znbd-server: the parameters are the same.
served_by = os.environ.get("ZNBD_SERVED_BY", "nbdkit")


def znbd_server_arguments(params):
    """nbdkit's parameters as znbd-server takes them."""
    options, disk = [], []
    for param in map(str, params):
        key, equals, value = param.partition("=")
        if key in ("reorder-timeout", "gap"):
            options += ["--" + key, value]
        elif key == "size":
            disk.insert(0, "memory:" + value)
        elif key == "file" or not equals:
            disk.append(value or key)
        elif key.endswith("-zones"):
            disk.append(param.replace(",", "+"))
        else:
            disk.append(param)
    return options + [",".join(disk)]


class NbdkitError(Exception):
    """The server did not start: .status and .text (what it said)."""

    def __init__(self, status, text):
        super().__init__("it ended with status %s: %s" % (status, text))
        self.status = status
        self.text = text


class Nbdkit:
    """Stock nbdkit with the plugin on a Unix socket, as a context.

    Arguments are the plugin's; options (a list) are nbdkit's, such as
    ["--filter=log"].  uri is the disk's, zones_uri the zone table's.
    """

    count = 0
    running = []

    def __init__(self, *params, options=(), threads=64, plugin=plugin,
                 env=None):
        Nbdkit.count += 1
        base = TAP.current.path("nbdkit%d" % Nbdkit.count)
        self.params = params
        self.socket = base + ".sock"
        self.pidfile = base + ".pid"
        self.logfile = base + ".log"
        self.uri = "nbd+unix:///?socket=" + self.socket
        self.zones_uri = "nbd+unix:///zones?socket=" + self.socket
        self.argv = ["nbdkit", "-f", "-t", str(threads), "-U", self.socket,
                     "-P", self.pidfile, *options, plugin,
                     *[str(p) for p in params]]
        if served_by == "znbd-server":
            # Its reasons go to the client; here they are said as well.
            self.argv = ["znbd-server", "-f", "-U", self.socket,
                         "-P", self.pidfile, "-v", "-D", "server.replies=1",
                         *options,
                         *znbd_server_arguments(params)]
        self.env = dict(os.environ, **(env or {}))
        self.process = None

    def start(self):
        with open(self.logfile, "ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.env)
        Nbdkit.running.append(self)
        end = time.monotonic() + 30
        while True:
            try:
                if os.path.getsize(self.pidfile) > 0:
                    return self
            except FileNotFoundError:
                pass
            if self.process.poll() is not None:
                Nbdkit.running.remove(self)
                raise NbdkitError(self.process.returncode, self.log())
            if time.monotonic() > end:
                self.kill()
                raise NbdkitError("none", "not ready after 30 s\n"
                                  + self.log())
            time.sleep(0.02)

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        """What nbdkit said so far."""
        with open(self.logfile, errors="replace") as log:
            return log.read()

    def stop(self):
        """Ends it; a failed check if it does not end cleanly.  Shut
        connections down first: nbdkit 1.32 may wait for them for ever."""
        if self not in Nbdkit.running:
            return
        status = self._terminate(15)
        if status is None:
            self.process.kill()
            self.process.wait()
            status = "none within 15 s (connections left?)"
        self._forget()
        if status != 0:
            TAP.current.fail("%s ends cleanly" % self.argv[0],
                             "status: %s" % status, self.log())

    def _terminate(self, seconds):
        """Its status, or None if it does not end.  The thread sanitizer
        loses a signal that goes to a thread which is about to end, so with
        it it is sent again."""
        each = 1 if os.environ.get("ZNBD_SANITIZER") == "tsan" else seconds
        for _ in range(seconds // each):
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.process.wait(each)
            except subprocess.TimeoutExpired:
                pass
        return None

    def kill(self):
        """Ends it as a crash does."""
        self.process.kill()
        self.process.wait()
        self._forget()

    def _forget(self):
        Nbdkit.running.remove(self)
        for name in (self.pidfile, self.socket):
            try:
                os.unlink(name)
            except FileNotFoundError:
                pass

    def __enter__(self):
        return self if self in Nbdkit.running else self.start()

    def __exit__(self, *exception):
        self.stop()


class ZnbdServer(Nbdkit):
    """znbd-server on a Unix socket, as a context.

    disk is what it serves, an image or "memory:..."; options are its own.
    The export's name is to be given as name, not among the options.
    """

    def __init__(self, disk, *options, name="", env=None):
        super().__init__(env=env)
        base = self.socket[:-len(".sock")]
        self.argv = ["znbd-server", "-f", "-U", self.socket,
                     "-P", self.pidfile, *[str(o) for o in options]]
        if name:
            self.argv += ["-e", name]
            self.uri = "nbd+unix:///%s?socket=%s" % (name, self.socket)
            self.zones_uri = "nbd+unix:///%s/zones?socket=%s" % (
                name, self.socket)
        self.argv.append(str(disk))
        self.logfile = base + ".log"


def connect(uri, strict=True):
    """An nbd.NBD connected to uri.  strict=False sends what libnbd would
    refuse to send, for the server to refuse."""
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    if not strict:
        h.set_strict_mode(0)
    h.connect_uri(uri)
    return h


def run(*argv, input=None, timeout=120, env=None):
    """Runs a command: (status, output, errors), both as text."""
    p = subprocess.run([str(a) for a in argv], input=input, timeout=timeout,
                       stdin=subprocess.DEVNULL if input is None else None,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       universal_newlines=True, errors="replace",
                       env=dict(os.environ, **(env or {})))
    return p.returncode, p.stdout, p.stderr
