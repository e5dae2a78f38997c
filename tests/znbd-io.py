# SPDX-License-Identifier: BSD-3-Clause
"""znbd io: qemu-io's commands on a remote disk.

The course of QEMU's own test of zoned devices, typed here, and the lines
that qemu-io prints for a null_blk device of the same geometry; then data
commands beside the qemu-io of this machine, line by line; then what qemu-io
cannot tell: refusals, terminals, hostile input.
"""

import os
import pty
import re
import shutil
import subprocess
import time

from harness import TAP, Nbdkit, ZnbdServer, run

tap = TAP()


def io(uri, *commands, options=(), input=None):
    """Runs commands: (status, output, errors)."""
    argv = ["znbd", "io", *options]
    for command in commands:
        argv += ["-c", command]
    return run(*argv, uri, input=input)


def zone_line(start, length, wp, cond, type=2, capacity=None):
    """A zone as qemu-io shows it; sectors."""
    return ("start: 0x%x, len 0x%x, cap 0x%x, wptr 0x%x, zcond:%d, "
            "[type: %d]\n" % (start, length,
                              length if capacity is None else capacity, wp,
                              cond, type))


# ---- QEMU's course of zoned devices ----------------------------------------

EMPTY, IMPLICIT, EXPLICIT, CLOSED, FULL = 1, 2, 3, 4, 14

# null_blk without parameters: 250 GiB in zones of 256 MiB.
LEN = 0x80000
LAST = 0x1f380000
LAST_BYTES = "0x3e70000000"

with ZnbdServer("memory:250G,zone-size=256M") as server:
    def course(command, wanted, description):
        """One command, as there, in a process of its own."""
        tap.equal(io(server.uri, command), (0, wanted, ""),
                  "%s: %s" % (command, description))

    course("zrp 0 1", zone_line(0, LEN, 0, EMPTY), "the first zone")
    course("zrp 0 10", "".join(zone_line(i * LEN, LEN, i * LEN, EMPTY)
                               for i in range(10)), "the first ten")
    course("zrp %s 2" % LAST_BYTES, zone_line(LAST, LEN, LAST, EMPTY),
           "the last, and nothing behind it")
    for offset, start in (("0", 0), ("268435456", LEN), (LAST_BYTES, LAST)):
        course("zo %s 268435456" % offset, "", "opening is silent")
        course("zrp %s 1" % offset, zone_line(start, LEN, start, EXPLICIT),
               "explicitly open")
    for offset, start in (("0", 0), (LAST_BYTES, LAST)):
        course("zc %s 268435456" % offset, "", "closing is silent")
        course("zrp %s 1" % offset, zone_line(start, LEN, start, EMPTY),
               "empty, for nothing was written")
    course("zf 268435456 268435456", "", "finishing is silent")
    course("zrp 268435456 1", zone_line(LEN, LEN, 2 * LEN, FULL), "full")
    course("zrs 268435456 268435456", "", "resetting is silent")
    course("zrp 268435456 1", zone_line(LEN, LEN, LEN, EMPTY), "empty")
    course("zrp 0 1", zone_line(0, LEN, 0, EMPTY), "before appends")
    for offset, start in (("0", 0), ("268435456", LEN)):
        for turn in (0, 1):
            course("zap -p %s 0x1000 0x2000" % offset,
                   "After zap done, the append sector is 0x%x\n"
                   % (start + turn * 0x18), "told where it went")
            course("zrp %s 1" % offset,
                   zone_line(start, LEN, start + (turn + 1) * 0x18, IMPLICIT),
                   "the pointer is 0x18 sectors further")
    tap.equal(io(server.uri, "read -P 0xcd -q 0 0x6000",
                 "read -P 0xcd -q 256M 0x6000", "read -P 0 -q 0x6000 4k"),
              (0, "", ""), "what was appended is there")

    # The same from standard input, in one connection, by the long names.
    status, out, err = run("znbd", "io", server.uri, input=(
        "zone_report 0 1\nzone_open 512M 256M\nzone_append -p 512M 4k\n"
        "zone_close 512M 256M\nzone_report 512M 1\nzone_finish 512M 256M\n"
        "zone_report 512M 1\nzone_reset 512M 256M\nzone_report 512M 1\n"))
    tap.equal((status, out, err), (
        0, zone_line(0, LEN, 0x30, IMPLICIT) +
        "After zap done, the append sector is 0x100000\n" +
        zone_line(2 * LEN, LEN, 2 * LEN + 8, CLOSED) +
        zone_line(2 * LEN, LEN, 3 * LEN, FULL) +
        zone_line(2 * LEN, LEN, 2 * LEN, EMPTY), ""),
        "long names from standard input, and no prompt in a pipe")

    course("zap 0 4k", "", "without -p nothing is told")
    course("zo 768M 512M", "", "two zones at once")
    tap.equal(io(server.uri, "zrp 768M 2")[1].count("zcond:3"), 2,
              "both are open")
    course("zrp 257M 1", zone_line(LEN, LEN, LEN + 0x30, IMPLICIT),
           "the zone that an offset lies in")
    course("zrp 250G 1", "", "behind the end there is no zone")
    course("zrs 0 250G", "", "the whole disk")
    tap.equal(io(server.uri, "zrp 0 2000")[1].count("zcond:1"), 1000,
              "all zones are empty, and all are told")

# ---- conditions, capacity, types -------------------------------------------

with ZnbdServer("memory:64M,zone-size=4M,zone-capacity=3M,conventional=2,"
                "max-open=3,max-active=4,read-only-zones=14,"
                "offline-zones=15") as server:
    L, C = 0x2000, 0x1800
    out = io(server.uri, "zrp 0 3", "zrp 56M 9")[1]
    tap.equal(out, zone_line(0, L, L, 0, 1) + zone_line(L, L, 2 * L, 0, 1) +
              zone_line(2 * L, L, 2 * L, EMPTY, capacity=C) +
              "".join(line + "\n" for line in out.splitlines()[3:]),
              "conventional zones, capacity")
    tap.equal([re.sub(".*zcond:", "", line) for line in out.splitlines()[3:]],
              ["13, [type: 2]", "15, [type: 2]"], "read-only, offline")

    def refused(command, what, why, stdout=None):
        status, out, err = io(server.uri, command)
        tap.ok(status == 1 and out == what + "\n" and
               re.search("^znbd io: .*" + why, err) and err.count("\n") == 1,
               "refused: " + command, status, out, err)

    refused("zo 4k 4M", "zone open failed: Invalid argument",
            "offset 4096 is no zone's start")
    refused("zo 64M 4M", "zone open failed: Invalid argument",
            "not below the disk's size")
    refused("zc 8M 4k", "zone close failed: Invalid argument",
            "not made of whole zones of 4M")
    refused("zc 8M 0", "zone close failed: Invalid argument", "whole zones")
    refused("zf 60M 8M", "zone finish failed: Invalid argument",
            "whole zones")
    refused("zrs 8M 7E", "zone reset failed: Invalid argument", "whole zones")
    refused("zrs 0 4M", "zone reset failed: Invalid argument",
            "conventional")
    refused("zc 8M 4M", "zone close failed: Invalid argument", "empty")
    refused("zrs 56M 4M", "zone reset failed: Operation not permitted",
            "read-only")
    refused("zrs 60M 4M", "zone reset failed: Input/output error", "offline")
    refused("zap 0 4k", "zone append failed: Invalid argument",
            "conventional")
    refused("zap 8388609 4k", "zone append failed: Invalid argument",
            "no zone's start")
    refused("zap 8M 100", "zone append failed: Invalid argument", "multiple")
    refused("zap 8M 0", "zone append failed: Invalid argument", "")
    refused("zrp 0 0", "zone report failed: Invalid argument", "no zones")
    tap.equal(io(server.uri, "zo 8M 12M"), (0, "", ""), "three open zones")
    refused("zo 20M 4M", "zone open failed: Value too large for defined data "
            "type", "open")
    refused("write 8196k 4k", "write failed: Invalid argument", "pointer")
    refused("write -P 1 11M 4k", "write failed: No space left on device",
            "capacity")
    tap.equal(io(server.uri, "zrs 0 64M"), (0, "", ""),
              "a reset of everything leaves out what cannot be reset")
    tap.equal(io(server.uri, "w -q 8M 3M", "zrp 8M 1"),
              (0, zone_line(2 * L, L, 3 * L, FULL, capacity=C), ""),
              "a zone that was written to its capacity")

    # ---- read-only ---------------------------------------------------------

    for options in (("-r",), ("--read-only",)):
        for command in ("w 0 4k", "w -z 0 4k", "zo 12M 4M", "zrs 8M 4M",
                        "zap 12M 4k"):
            status, out, err = io(server.uri, command, options=options)
            tap.ok(status == 1 and not out and "opened with -r" in err,
                   "%s refuses %s" % (options[0], command), out, err)
    tap.equal(io(server.uri, "r -q 0 4k", "f", "l", options=("-r",))[:2],
              (0, "64 MiB\n"), "-r reads")
    tap.ok("zcond:14" in io(server.uri, "zrp 8M 1")[1], "nothing has changed")

    # ---- several commands --------------------------------------------------

    status, out, err = io(server.uri, "read -P 7 -q 0 4k", "length")
    tap.equal((status, out),
              (1, "Pattern verification failed at offset 0, 4096 bytes\n"
               "64 MiB\n"), "after a failure it goes on, and the status is 1")
    tap.equal(io(server.uri, "q", "length"), (0, "", ""), "quit ends it")
    tap.equal(io(server.uri, "frob", "quit", "length"),
              (1, "", 'command "frob" not found\n'), "with the status so far")
    tap.equal(run("znbd", "io", server.uri, input="length\n\nquit\nlength\n"),
              (0, "64 MiB\n", ""), "quit on standard input")
    tap.equal(run("znbd", "io", server.uri, input="length"),
              (0, "64 MiB\n", ""), "a last line without an end")
    tap.equal(run("znbd", "io", "--cmd=length", "--cmd", "l", server.uri),
              (0, "64 MiB\n64 MiB\n", ""), "--cmd is -c")
    status, out, err = run("znbd", "io", server.uri, input="l\nl\0l\nl\n")
    tap.ok(status == 1 and out == "64 MiB\n" and "zero byte" in err,
           "a zero byte ends it", out, err)
    status, out, err = run("znbd", "io", server.uri,
                           input="r " * 100000 + "\n" + "x" * 100000 + "\nl\n")
    tap.ok(status == 1 and out.endswith("64 MiB\n"), "very long lines",
           out[-200:])
    status, _, err = run("bash", "-c", "znbd io -c length '%s' >/dev/full"
                         % server.uri)
    tap.ok(status == 1 and "No space left" in err, "output that is lost", err)

    # ---- help --------------------------------------------------------------

    status, out, err = io(server.uri, "help")
    names = re.findall("^([a-z_]+)", out, re.M)
    tap.equal((status, names, err), (0, [
        "flush", "help", "length", "quit", "read", "write", "zone_append",
        "zone_close", "zone_finish", "zone_open", "zone_report",
        "zone_reset"], ""), "help lists the commands")
    for name in names:
        tap.like(io(server.uri, "help " + name)[1], "^%s .*-- " % name,
                 "help " + name)
    tap.equal(io(server.uri, "help frob"),
              (1, "command frob not found\n", ""), "help for nothing")

    # ---- a terminal --------------------------------------------------------

    master, slave = pty.openpty()
    p = subprocess.Popen(["znbd", "io", server.uri], stdin=slave,
                         stdout=slave, stderr=slave)
    os.close(slave)
    said = b""

    def expect(what):
        global said
        end = time.monotonic() + 20
        while what not in said and time.monotonic() < end:
            said += os.read(master, 4096)
        tap.ok(what in said, "the terminal says %r" % what, said)

    expect(b"znbd> ")
    os.write(master, b"length\n")
    expect(b"64 MiB\r\nznbd> ")
    os.write(master, b"\x04")
    tap.equal(p.wait(20), 0, "end of input ends it")
    os.close(master)

# ---- beside qemu-io --------------------------------------------------------

# Conventional zones take data in any order, as an ordinary disk does.
if shutil.which("qemu-io"):
    DISK = "memory:64M,zone-size=4M,conventional=16"

    def mask(text):
        """Without times and what comes of them."""
        text = re.sub(r"; [0-9:.]+( sec)? \([0-9.]+ [A-Za-z]+/sec and "
                      r"[0-9.]+ ops/sec\)", "; TIME", text)
        return re.sub(r"^([0-9]+,1),[0-9:]+\.[0-9]{2},[0-9.]+,[0-9.]+$",
                      r"\1,TIME", text, flags=re.M)

    with ZnbdServer(DISK) as ours, ZnbdServer(DISK) as theirs:
        for command in (
                "length", "l", "flush", "f", "flush 1", "length 1", "",
                "   ", "read 0 4k", "r 0 4k", "  r  0   4k  ",
                "read -P 0 0 64k", "read -P 1 0 4k", "write 0 4k",
                "read -P 0xcd 0 4k", "write -P 0x11 4k 4k",
                "read -P 17 4k 4097",
                "w -P 017 8k 4096", "read -v 4080 32", "read -v 0 20",
                "read -P 17 4k 8k", "read -P 17 -s 10 4k 8k",
                "read -P 17 -l 4k 4k 8k", "read -P 17 -s 1k -l 3k 4k 8k",
                "read -P 15 -s 4k -l 4k 4k 8k",
                "read -P 5 -s 2k 0 1k", "read -P 5 -l 2k 0 1k",
                "read -P 5 -s 512 -l 1k 0 1k", "read -P 17 -s 4k 4k 4k",
                "read -qP 17 4k 4k", "read -q 0 5", "read -qv 0 5",
                "read -vP 17 4k 16", "read -C 0 4k", "write -C 0 4k",
                "read -qC 0 4k", "write -q 0 64k", "r 1.5M 1.25M",
                "w 1M 33M", "r 3M 40M", "read -P 0xcd 1M 33M", "read 0 0",
                "write 0 0", "write -f 0 4k", "w -z 0 8k", "r -P 0 0 8k",
                "w -zu 1M 1M", "w -zfq 1M 4k", "r -P 0 1M 1M", "w -n 0 4k",
                "w -u 0 4k", "w -zP 3 0 4k", "read -l 5 0 10", "read",
                "read 0", "read 0 4k 4k", "write 0 4k 4k", "write",
                "read 64M 1", "read 0x3fff000 8k", "write 64M 4k",
                "write 63M 2M", "read 0 128M", "read 0 3G", "write 0 2G",
                "w -z 0 3G", "read 9E 1", "read 99E 1", "read 1P 1",
                "read 7.9E 1", "read 0x7fffffffffffffff 1",
                "read 9223372036854775807 1", "read 9223372036854775808 1",
                "read 99999999999999999999999 1", "read 0xz 1", "read 0x 1",
                "read 1kk 1", "read 1kb 1", "read k 1", "read 0.1 1",
                "read 1.5 1", "read 1. 1", "read 1.0 1",
                "read 1e3 1", "read 1,5 1", "read +5 1",
                "read -- 0 1", "read 1K 1b", "read 1K 1B", "read 010 1",
                "read 0X10 1", "read x 1", "read 0 x", "read 0 -q 4k",
                "write -P 256 0 4k", "write -P -1 0 4k", "write -P 0x 0 4k",
                "write -P x 0 4k", "write -Pq 0 4k", "write -P 1 -P 2 0 4k",
                "quit", "q", "quit 5", "help 1 2", "help frob", "frob",
                "#", "read\t0 4k", "zz"):
            status, out, err = run("qemu-io", "-f", "raw", "-c", command,
                                   theirs.uri)
            wanted = (status, mask(out), err)
            status, out, err = io(ours.uri, command)
            # How a command is used is said in words of our own.
            got = [(s, re.sub("^(read|write|help) \\[.*", r"\1 USAGE", o), e)
                   for s, o, e in ((status, mask(out), err), wanted)]
            tap.equal(got[0], got[1], "as qemu-io: %r" % command)
        for option in ("-x", "-5"):
            for command in ("read", "r", "write", "w"):
                status, out, err = io(ours.uri, "%s %s 0 4k"
                                      % (command, option))
                wanted = run("qemu-io", "-f", "raw", "-c", "%s %s 0 4k"
                             % (command, option), theirs.uri)
                tap.equal((status, err), (wanted[0], wanted[2]),
                          "as qemu-io: %s %s" % (command, option))
        lines = "length\nfrob\nread -P 9 0 512\nread 0 512\nq\nlength\n"
        wanted = run("qemu-io", "-f", "raw", theirs.uri, input=lines)
        got = run("znbd", "io", ours.uri, input=lines)
        tap.equal((got[0], mask(got[1]), got[2]),
                  (wanted[0], mask(wanted[1]).replace("qemu-io> ", ""),
                   wanted[2]), "as qemu-io from standard input")
        for h, server in (("qemu-io", theirs), ("znbd", ours)):
            run("nbdcopy", server.uri, tap.path(h + ".raw"))
        with open(tap.path("qemu-io.raw"), "rb") as a, \
                open(tap.path("znbd.raw"), "rb") as b:
            tap.ok(a.read() == b.read(), "and both disks hold the same")
else:
    tap.skip("as qemu-io", "qemu-io is not installed (qemu-utils)")

# What of qemu-io's is not there is refused.
with ZnbdServer("memory:8M,zone-size=4M,conventional=1") as server:
    for command in ("read -b 0 4k", "read -a 0 4k", "write -b 0 4k",
                    "write -c 0 4k", "write -s file 0 4k"):
        status, out, err = io(server.uri, command)
        tap.ok(status == 1 and "is not there" in out and
               out.count("\n") == 1, "refused: " + command, out, err)
    for command in ("writev 0 4k", "discard 0 4k", "aio_read 0 4k", "open x"):
        tap.equal(io(server.uri, command), (
            1, "", 'command "%s" not found\n' % command.split()[0]),
            "refused: " + command)
    tap.equal(io(server.uri, "zrp 0"),
              (1, "", "bad argument count 1 to zrp, expected 2 arguments\n"),
              "too few arguments")
    tap.equal(io(server.uri, "zap 0"),
              (1, "", "bad argument count 1 to zap, expected at least 2 "
               "arguments\n"), "too few arguments to append")
    for command in ("zap -p 4M", "zap -x 4M 4k"):
        status, out, err = io(server.uri, command)
        tap.ok(status == 1 and out.startswith("zone_append [-p] off len"),
               "refused: " + command, out, err)
    for command, words in (
            ("zrp x 1", "non-numeric argument"), ("zrp 0 x", "-- x"),
            ("zrp 0 9E", "too large -- 9E"), ("zo x 4M", "-- x"),
            ("zo 4M x", "-- x"), ("zap x 4k", "-- x"), ("zap 4M x", "-- x"),
            ("zap 4M 3G", "Argument '3G' exceeds maximum size 2147483136"),
            ("zap 4M 2047M 2047M", "The total number of bytes exceed")):
        status, out, err = io(server.uri, command)
        tap.ok(status == 1 and words in out and out.count("\n") == 1 and
               not err, "refused: " + command, out, err)
    tap.equal(io(server.uri, "zrp 4M 9223372036854775807")[1].count("\n"), 1,
              "any number of zones may be asked for")
    tap.equal(io(server.uri, "zrp 4M 1")[1],
              zone_line(0x2000, 0x2000, 0x2000, EMPTY), "nothing was changed")

# ---- the disk that qemu-io cannot tell from a plain one ----------------------

with Nbdkit("size=64M", "zone-size=4M") as server:
    tap.equal(io(server.uri, "zo 0 4M", "zrp 0 1", "w -q 4M 4k", "f",
                 "zrp 4M 1", "zrs 0 64M", "zrp 4M 1"),
              (0, zone_line(0, 0x2000, 0, EXPLICIT) +
               zone_line(0x2000, 0x2000, 0x2008, IMPLICIT) +
               zone_line(0x2000, 0x2000, 0x2000, EMPTY), ""),
              "under nbdkit, through its zone table")
    status, out, err = io(server.uri, "zap -p 0 4k")
    tap.ok(status == 1 and
           out == "zone append failed: Operation not supported\n",
           "nbdkit has no appends", out, err)

with ZnbdServer("memory:18750G,zone-size=256M") as server:
    status, out, err = io(server.uri, "zrp 0 75000")
    tap.ok(status == 0 and out.count("\n") == 75000 and out.endswith(
        zone_line(74999 * LEN, LEN, 74999 * LEN, EMPTY)), "75,000 zones")

with ZnbdServer("memory:8M,zone-size=4M", "-r") as server:
    status, out, err = io(server.uri, "zo 0 4M", "w 0 4k", "zrp 0 1")
    tap.ok(status == 1 and err.count("the disk is read-only\n") == 2 and
           out == zone_line(0, 0x2000, 0, EMPTY), "a read-only export",
           out, err)
    server.kill()

# ---- wrong use ---------------------------------------------------------------

for args, words in (
        ([], "URI is missing"), ([""], "URI is empty"),
        (["a", "b"], "extra operand 'b'"),
        (["-c"], "option -c needs an argument"),
        (["--cmd"], "option --cmd needs an argument"),
        (["-x", "a"], "unknown option -x"),
        (["nbd+unix:///?socket=missing"], "No such file")):
    status, out, err = run("znbd", "io", *args)
    tap.ok(status == 1 and words in err and err.count("\n") == 1 and not out,
           "refused: znbd io %s" % " ".join(args), status, out, err)
status, out, err = run("znbd", "io", "disk.zbd", "-c", "length")
tap.ok(status == 1 and err.count("\n") == 1, "a file is no URI", err)

tap.done_testing()
