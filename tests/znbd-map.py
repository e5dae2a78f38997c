# SPDX-License-Identifier: BSD-3-Clause
"""znbd map: what its users see in terminals of every size, in files, with
and without colours, and the SVG picture.

Cells are looked at through the text: every zone's letter where zones have
cells of their own, and sums where a cell stands for several.
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
import xml.etree.ElementTree as ET

from harness import TAP, ZnbdServer, connect, run, top_srcdir

tap = TAP()
SVG = "{http://www.w3.org/2000/svg}"
ESCAPE = re.compile(r"\033\[[0-9;]*m")
BLOCKS = " ▁▂▃▄▅▆▇█"


def draw(*args, env=None):
    """A map that is drawn without an error: its lines."""
    status, out, err = run("znbd", "map", *args, env=env)
    if status != 0 or err:
        tap.fail("znbd map %s" % (args,), "status %d: %s" % (status, err))
    return out.splitlines()


def on_terminal(*args, columns=80, rows=24, env=None):
    """The same on a terminal: its lines as they were sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ,
                struct.pack("HHHH", rows, columns, 0, 0))
    environ = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environ["TERM"] = "xterm"
    environ.update(env or {})
    p = subprocess.Popen(["znbd", "map", *args], stdin=slave, stdout=slave,
                         stderr=slave, env=environ)
    os.close(slave)
    data = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:         # the other side is closed
            break
        if not piece:
            break
        data += piece
    os.close(master)
    tap.equal(p.wait(), 0, "znbd map on a terminal of %d by %d ends well"
              % (columns, rows))
    return data.decode().replace("\r\n", "\n").splitlines()


def cells(lines, width=None):
    """The rows of cells, without labels; all are of this many columns."""
    blank = [i for i, line in enumerate(lines) if line == ""]
    rows = lines[blank[0] + 1:blank[1]]
    rows = [re.sub(r"^ *[0-9]+  ", "", row) for row in rows]
    if width:
        rows = [row.ljust(width * ((len(row) + width - 1) // width))
                for row in rows]
        return [row[i:i + width] for row in rows
                for i in range(0, len(row), width)]
    return rows


def letters(lines):
    """The first characters of cells that have gaps between them."""
    return "".join(cell[0] for row in cells(lines) for cell in row.split())


# ---- a disk with all conditions -------------------------------------------

ZONE = 1 << 20
with ZnbdServer("memory:20M,zone-size=1M,conventional=2,max-open=6,"
                "max-active=8,read-only-zones=14,offline-zones=15") as server:
    h = connect(server.uri)
    for zone, quarters in ((4, 1), (5, 2), (6, 3), (7, 4)):
        h.pwrite(bytes(quarters * ZONE // 4), zone * ZONE)
    h.pwrite(bytes(4096), 8 * ZONE)
    h.pwrite(bytes(ZONE - 4096), 9 * ZONE)
    h.shutdown()
    run("znbd", "close", "--zone", "5", server.uri)
    run("znbd", "open", "--zone", "6,12", server.uri)
    run("znbd", "finish", "--zone", "13", server.uri)
    status, report, _ = run("znbd", "report", server.uri)

    wanted = "NN··ICOFII··OFRX····"
    ascii_wanted = wanted.replace("·", ".")

    lines = draw(server.uri)
    tap.equal(lines[0], "host-managed, 20M in 20 zones of 1M",
              "the first line is the geometry")
    tap.equal(letters(lines), wanted, "every zone has its condition's letter")
    text = " ".join(lines)
    for count in ("· empty 8", "I implicit-open 3", "O explicit-open 2",
                  "C closed 1", "F full 2", "R read-only 1", "X offline 1",
                  "N conventional 2"):
        tap.ok(count in re.sub(" +", " ", text), "the legend has " + count,
               text)
    tap.ok("5 open of 6" in text and "6 active of 8" in text,
           "it tells what is open and active", text)
    # 2.5 zones of the first, 4 KiB and all but 4 KiB, the finished one and
    # the read-only one, which is as good as full.
    tap.like(text, r"written 5\.5 MiB of 17\.0 MiB \(32%\)",
             "it tells what is written")
    tap.ok(all(len(line) <= 80 for line in lines), "nothing exceeds 80")
    tap.ok("\033" not in text, "no escape codes into a pipe")
    tap.ok(not any(line.endswith(" ") for line in lines),
           "no blanks at the ends of lines")

    # The fill: at a known width a cell of 10 columns is a letter, 8 and a gap.
    row = draw("--width", "204", server.uri)
    bars = cells(row)[0].split()
    tap.equal(len(bars), 20, "a wide screen has them in one row")
    bar_width = len(bars[0]) - 1
    for zone, quarters in ((4, 1), (5, 2), (6, 3), (7, 4), (12, 0), (13, 4)):
        tap.equal(bars[zone].count("█"), bar_width * quarters // 4,
                  "zone %d is filled to %d quarters" % (zone, quarters))
    tap.ok(bars[8][1] == "▏", "a little in a zone is seen", bars[8])
    tap.ok("█" * bar_width not in bars[9], "nearly full is not full", bars[9])

    # ASCII
    lines = draw(server.uri, env={"LC_ALL": "C"})
    tap.ok(all(line.isascii() for line in lines), "ASCII in the C locale")
    bars = " ".join(cells(lines)).split()
    tap.equal("".join(b[0] for b in bars), ascii_wanted, "the same letters")
    n = len(bars[0]) - 1
    tap.equal([bars[7], bars[0], bars[15], bars[2]],
              ["F" + "#" * n, "N" + ":" * n, "X" + "x" * n, "." * (n + 1)],
              "full, conventional, offline and empty zones in ASCII")
    tap.equal(bars[5].count("#"), n // 2, "a half in ASCII")

    # ---- colours ----------------------------------------------------------

    lines = on_terminal(server.uri)
    plain = [ESCAPE.sub("", line) for line in lines]
    tap.ok(any(ESCAPE.search(line) for line in lines), "colours on terminals")
    tap.equal(letters(plain), wanted, "the same letters in colours")
    tap.ok(all(line.endswith("\033[0m") or not ESCAPE.search(line) or
               ESCAPE.findall(line)[-1] == "\033[0m" for line in lines),
           "every line gives the terminal's own colours back")
    shades = {}
    for row in cells(lines):
        for code, letter in re.findall(r"(\033\[38[0-9;]*m)(.)", row):
            shades.setdefault(letter, set()).add(code)
    tap.equal([len(shades.get(l, ())) for l in "N·ICOFRX"], [1] * 8,
              "each condition has a colour")
    tap.equal(len(set.union(*shades.values())), 8, "of its own")

    for args, env, wanted_color in (
            ((), {"NO_COLOR": "1"}, False), ((), {"NO_COLOR": ""}, True),
            ((), {"TERM": "dumb"}, False), (("--color=never",), {}, False),
            (("--color=always",), {"NO_COLOR": "1"}, True)):
        lines = on_terminal(*args, server.uri, env=env)
        tap.equal(any("\033" in line for line in lines), wanted_color,
                  "a terminal, %s %s: %s" % (args, env, wanted_color))
    tap.ok("\033[38;5;" in "".join(draw("--color", "always", server.uri)),
           "colours into a pipe where they are asked for")

    # ---- every size -------------------------------------------------------

    bad = []
    for columns in (1, 2, 3, 7, 19, 20, 21, 39, 40, 41, 60, 79, 80, 81, 132,
                    200, 500):
        lines = [ESCAPE.sub("", line) for line in
                 on_terminal(server.uri, columns=columns)]
        if columns >= 20 and max(map(len, lines)) > columns:
            bad.append((columns, lines))
        if columns >= 10 and letters(lines) != wanted and \
           "".join(c[0] for c in cells(lines, 2)) != wanted:
            bad.append((columns, lines))
        if max(map(len, cells(lines))) > max(columns, 2):
            bad.append((columns, lines))
    tap.equal(bad, [], "terminals of 1 to 500 columns: no line is longer, "
              "no zone is missing")
    tap.equal([w for w in range(20, 140)
               if max(map(len, draw("--width", w, server.uri))) > w], [],
              "--width 20 to 139: no line is longer")
    lines = draw("--width", "20", server.uri)
    tap.equal(letters(lines), wanted, "--width 20: no zone is missing")

    # ---- the picture ------------------------------------------------------

    svg = tap.path("a.svg")
    tap.equal(run("znbd", "map", "--svg", svg, server.uri), (0, "", ""),
              "--svg FILE is silent")
    root = ET.parse(svg).getroot()
    tap.equal(root.tag, SVG + "svg", "it is SVG")
    tap.equal(root.find(SVG + "title").text,
              "host-managed, 20M in 20 zones of 1M", "its title")
    groups = [g for g in root.iter(SVG + "g") if g.find(SVG + "title")
              is not None]
    tap.equal("".join(g.get("class") for g in groups),
              wanted.replace("·", "e").lower(), "each zone is of its class")
    drawn = "".join(t.text if t is not None else "·" for t in
                    (g.find(SVG + "text") for g in groups))
    tap.equal(drawn, wanted, "each zone has its letter")
    titles = [g.find(SVG + "title").text for g in groups]
    tap.equal(titles[5], "zone 5: closed; 512.0 KiB of 1.0 MiB written",
              "a zone's tooltip")
    tap.equal(titles[0], "zone 0: conventional", "a conventional zone's")
    fills = [g.find(SVG + "rect[@class='w']") for g in groups]
    size = float(groups[0].find(SVG + "rect").get("height"))
    for zone, quarters in ((4, 1), (5, 2), (6, 3), (7, 4)):
        height = float(fills[zone].get("height"))
        tap.ok(abs(height / size - quarters / 4) < 0.01 and
               abs(float(fills[zone].get("y")) + height - size -
                   float(groups[zone].find(SVG + "rect").get("y"))) < 0.01,
               "zone %d's tile is filled to %d quarters from below"
               % (zone, quarters))
    tap.equal([fills[z] for z in (0, 2, 12, 15)], [None] * 4,
              "nothing is filled where there is nothing")
    everything = open(svg).read()
    tap.ok("prefers-color-scheme:dark" in everything, "it has a dark theme")
    tap.ok(not re.search(r"href|<script|<image|url\([^#]|@import",
                         everything), "it stands alone")
    tap.equal(run("znbd", "map", "--svg", "-", server.uri)[1], everything,
              "--svg -: the same bytes on standard output")
    tap.ok(server.socket not in everything,
           "it does not tell where the disk is")
    width, height = (int(root.get(k)) for k in ("width", "height"))
    tap.ok(all(0 <= float(r.get("x", 0)) and
               float(r.get("x", 0)) + float(r.get("width")) <= width and
               float(r.get("y", 0)) + float(r.get("height")) <= height
               for r in root.iter(SVG + "rect")), "nothing lies outside")
    if shutil.which("xmllint"):
        status, _, err = run("xmllint", "--noout", "--nonet", svg)
        tap.equal((status, err), (0, ""), "xmllint accepts it")
    else:
        tap.skip("xmllint accepts it", "xmllint is not installed "
                 "(libxml2-utils)")

    # ---- files ------------------------------------------------------------

    def save(path):
        return run("znbd", "map", "--svg", path, server.uri)

    folder = tap.path("files")
    os.mkdir(folder)
    os.chdir(folder)
    os.umask(0o027)
    save("new.svg")
    tap.equal(os.stat("new.svg").st_mode & 0o7777, 0o640,
              "a new file has the mode that the umask gives")
    with open("old.svg", "w") as f:
        f.write("<?xml version='1.0'?>\n<!-- old --><svg/>\n")
    os.chmod("old.svg", 0o604)
    os.symlink("old.svg", "link.svg")
    save("link.svg")
    tap.ok(os.path.islink("link.svg"), "a symbolic link stays one")
    tap.equal(open("old.svg").read(), everything, "its file is replaced")
    tap.equal(os.stat("old.svg").st_mode & 0o7777, 0o604, "and keeps its mode")
    os.symlink("missing.svg", "dangling.svg")
    os.mkdir("folder")
    os.mkfifo("fifo")
    os.symlink("fifo", "to-fifo")
    with open("disk.zbd", "wb") as f:
        f.write(bytes(8192))
    for path, words in (("folder", "Is a directory"),
                        ("missing/a.svg", "No such file or directory"),
                        ("fifo", "not a regular file"),
                        ("to-fifo", "to-fifo is not a regular file"),
                        ("dangling.svg", "No such file or directory"),
                        ("disk.zbd", "is no SVG picture"),
                        ("x" * 256, "File name too long")):
        status, out, err = save(path)
        tap.ok(status == 1 and words in err and err.count("\n") == 1 and
               not out, "refused: --svg %s" % path[:20], status, err)
    tap.ok(not os.path.isfile("fifo"), "what is no file is still there")
    tap.equal(open("disk.zbd", "rb").read(), bytes(8192),
              "and what is no picture")
    os.unlink("disk.zbd")

    # A disk that is full, as far as a limit of file sizes can play it.
    p = subprocess.run(["bash", "-c", "ulimit -f 1; exec znbd map --svg "
                        "old.svg '%s'" % server.uri],
                       stderr=subprocess.PIPE, universal_newlines=True)
    tap.ok(p.returncode == 1 and "File too large" in p.stderr,
           "a file that cannot be written is an error", p.stderr)
    tap.equal(open("old.svg").read(), everything, "the old one is still there")
    status, _, err = run("znbd", "map", "--svg", "old.svg",
                         "nbd+unix:///?socket=missing")
    tap.ok(status == 1 and open("old.svg").read() == everything,
           "and after a disk that is not there", err)
    tap.equal(sorted(os.listdir(".")), sorted(
        ["new.svg", "old.svg", "link.svg", "dangling.svg", "folder", "fifo",
         "to-fifo"]),
        "nothing else is left")
    status, _, err = run("bash", "-c", "znbd map '%s' >/dev/full" % server.uri)
    tap.ok(status == 1 and "No space left" in err,
           "output that is lost is an error", err)

    tap.equal(run("znbd", "report", server.uri)[1], report,
              "none of this changed a zone")

# ---- an image, without a server -------------------------------------------

run("znbd", "create", "--size", "8M", "--zone-size", "1M", "disk.zbd")
lines = draw("disk.zbd")
tap.equal(letters(lines), "·" * 8, "an image of 8 zones")
tap.equal(len(cells(lines)), 1, "in one row")
run("znbd", "create", "--size", "4M", "--zone-size", "4M", "one.zbd")
run("znbd", "finish", "--all", "one.zbd")
run("znbd", "finish", "--zone", "0", "one.zbd")
lines = draw("one.zbd")
tap.equal((lines[0], letters(lines)),
          ("host-managed, 4M in 1 zone of 4M", "F"), "a disk of one zone")
tap.equal(len(list(ET.fromstring(run("znbd", "map", "--svg", "-", "one.zbd")
                                 [1]).iter(SVG + "title"))), 2,
          "and its picture")
run("znbd", "create", "--size", "8M", "--zone-size", "1M", "--conventional",
    "8", "conv.zbd")
lines = draw("conv.zbd")
tap.equal(letters(lines), "N" * 8, "a disk without a write pointer")
tap.ok("written" not in " ".join(lines), "which has no fill")

# ---- 75,000 zones ----------------------------------------------------------

with ZnbdServer("memory:18750G,zone-size=256M,conventional=150,"
                "read-only-zones=40000+50001,offline-zones=50000") as server:
    zone = 256 << 20
    run("znbd", "finish", "--zone", "1500-29999,30000-30074", server.uri)
    run("znbd", "open", "--zone", "40001,60000", server.uri)
    h = connect(server.uri)
    for z in (60001, 70000):
        h.pwrite(bytes(4096), z * zone)
    h.shutdown()

    lines = draw(server.uri)
    found = re.match(r"host-managed, 18750G in 75000 zones of 256M; "
                     r"([0-9]+) zones a cell", lines[0])
    tap.ok(found, "it says how many zones a cell stands for", lines[0])
    per = int(found.group(1))
    drawn = cells(lines, 2)
    tap.equal(len(drawn), -(-75000 // per), "all zones have a cell")
    tap.ok(len(drawn) > 300 and len(cells(lines)) <= 16,
           "16 rows are used and not exceeded")
    for first, what in ((0, "N▒"), (1500, "F█"), (29900 // per * per, "F█"),
                        (40000, "r"), (50000, "x"), (60000, "o"),
                        (70000, "i▁"), (74999, "· ")):
        tap.ok(drawn[first // per].startswith(what),
               "zone %d's cell is %s" % (first, what), drawn[first // per])
    half = drawn[30000 // per]
    tap.ok(half[0] in "fe" and abs(BLOCKS.index(half[1]) - 75 / per * 8) <= 1,
           "a cell of two conditions: a small letter, the average fill", half)
    labels = [int(line.split()[0]) for line in lines
              if re.match(" *[0-9]+  ", line)]
    per_row = labels[1]
    tap.equal(labels, [i * per_row for i in range(len(labels))],
              "rows tell their first zone")
    text = " ".join(lines)
    for count in ("full 28575", "read-only 2", "offline 1", "conventional 150",
                  "explicit-open 2", "implicit-open 2"):
        tap.ok(count in text, "nothing is lost in the counts: " + count)
    tap.ok("small letters: not all zones of the cell" in text,
           "small letters are explained")
    small = cells(draw(server.uri, env={"LC_ALL": "C"}), 2)
    tap.ok(small[1500 // per] == "F#" and small[70000 // per] == "i1",
           "the same in ASCII")

    for columns, rows in ((80, 24), (20, 24), (20, 10), (200, 60), (80, 5),
                          (1, 1)):
        lines = [ESCAPE.sub("", line) for line in
                 on_terminal(server.uri, columns=columns, rows=rows)]
        if columns > 1:
            tap.ok(max(map(len, lines)) <= columns,
                   "%d columns: no line is longer" % columns)
        if columns >= 80 and rows > 12:
            tap.ok(len(lines) < rows, "%d by %d: it fits the screen"
                   % (columns, rows), len(lines))
        found = re.search("([0-9]+) zones a cell", " ".join(lines))
        tap.equal(len(cells(lines, 2)), -(-75000 // int(found.group(1))),
                  "%d by %d: all zones have a cell" % (columns, rows))

    picture = run("znbd", "map", "--svg", "-", server.uri)[1]
    tap.ok(50000 < len(picture) < 400000, "the picture stays small",
           len(picture))
    root = ET.fromstring(picture)
    titles = [t.text for t in root.iter(SVG + "title")][1:]
    covered = [list(map(int, re.match(r"zones ([0-9]+) to ([0-9]+):",
                                      t).groups())) for t in titles]
    tap.ok(covered[0][0] == 0 and covered[-1][1] == 74999 and
           all(a[1] + 1 == b[0] for a, b in zip(covered, covered[1:])),
           "its cells cover all zones")
    step = covered[0][1] + 1
    tap.like(" ".join(t.text or "" for t in root.iter(SVG + "text")),
             "%d zones a cell" % step, "it says how many a cell stands for")
    total = {}
    for title in titles:
        for count, name in re.findall(r"([0-9]+) ([a-z-]+)[,;]?",
                                      title.split(":")[1].split(";")[0]):
            total[name] = total.get(name, 0) + int(count)
    tap.equal(total, {"conventional": 150, "full": 28575, "read-only": 2,
                      "offline": 1, "explicit-open": 2, "implicit-open": 2,
                      "empty": 75000 - 28732}, "its tooltips add up")

# ---- wrong use --------------------------------------------------------------

for args, words in (
        (["--color", "blue", "a"], "--color blue is neither"),
        (["--color=", "a"], "--color '' is neither"),
        (["--width", "19", "a"], "--width 19 is not between 20 and 1000"),
        (["--width", "1001", "a"], "--width 1001 is not between"),
        (["--width", "-1", "a"], "--width -1 is negative"),
        (["--width", "4k", "a"], "--width 4k is not a whole number"),
        (["--width", "99999999999999999999", "a"], "is past"),
        (["--svg", "", "a"], "--svg '' is no file"),
        (["--svg", "b", "--width", "80", "a"], "--width says nothing"),
        (["--color", "never", "--svg", "b", "a"], "--color says nothing"),
        (["--svg"], "option --svg needs an argument"),
        ([], "IMAGE or URI is missing"), ([""], "IMAGE or URI is empty"),
        (["a", "b"], "extra operand 'b'"), (["a"], "No such file"),
        (["nbd+unix:///?socket=missing"], "No such file")):
    status, out, err = run("znbd", "map", *args)
    tap.ok(status == 1 and words in err and err.count("\n") == 1 and not out,
           "refused: znbd map %s" % " ".join(args), status, out, err)

# ---- the README's picture ----------------------------------------------------

if shutil.which("nbdsh"):
    status, out, err = run(os.path.join(top_srcdir, "docs", "make-map"),
                           "map.svg")
    tap.ok(status == 0 and not out, "docs/make-map ends well", err)
    with open(os.path.join(top_srcdir, "docs", "map.svg")) as f:
        tap.ok(open("map.svg").read() == f.read(),
               "docs/map.svg is what the tool makes (docs/make-map "
               "docs/map.svg makes it anew)")
else:
    tap.skip("docs/map.svg is what the tool makes",
             "nbdsh is not installed (libnbd-bin)")

os.chdir("/")
tap.done_testing()
