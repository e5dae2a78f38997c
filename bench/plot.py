# SPDX-License-Identifier: BSD-3-Clause
"""The results of make bench as bars, in SVG.

A group of bars for each case, a bar for each server: requests a second, and
beneath them the server's processor time a request, both relative to the best
other server, which is 1.  The ceiling, where a case has one, is a line.  What
does not fit below the top has its figure beside an arrow.  A bar's own shows
where a pointer rests on it; our rates are written out.
"""

from html import escape

from compare import median
from wanted import PEERS

STYLE = {
    "znbd": ("znbd-server", "#d55e00"),
    "nbdkit-zoned": ("nbdkit with the plugin", "#e69f00"),
    "nbdkit-file": ("nbdkit file", "#0072b2"),
    "nbdkit-memory": ("nbdkit memory", "#56b4e9"),
    "qemu-nbd": ("qemu-nbd", "#009e73"),
    "qemu-storage-daemon": ("qemu-storage-daemon", "#84c9ae"),
    "nbd-server": ("nbd-server", "#cc79a7"),
    "znbd-other": ("the other znbd-server", "#999999"),
}
OURS = ("znbd", "nbdkit-zoned")

# One row of groups each: its title, and parts of the benchmark.
ROWS = (("Unix socket", ("unix",)),
        ("TCP, TLS, and fio with libnbd over a Unix socket",
         ("tcp", "tls", "fio")),
        ("Durable writes to a disk, and the plugin under nbdkit",
         ("durable", "plugin")))

WIDTH, LEFT, RIGHT = 1240, 64, 16
TITLE, RATES, CPUS, LABELS, GAP = 22, 200, 100, 56, 24
HEAD = 84

# Legible on a bar too.
HALO = ' stroke="#fff" stroke-width="3" paint-order="stroke"'


class Svg:
    def __init__(self):
        self.parts = []

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, what, size=12, anchor="middle", extra=""):
        self.add('<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s"%s>'
                 "%s</text>" % (x, y, size, anchor, extra, escape(what)))

    def line(self, x1, y1, x2, y2, colour, width=1, dash=""):
        self.add('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" '
                 'stroke-width="%g"%s/>' % (
                     x1, y1, x2, y2, colour, width,
                     ' stroke-dasharray="%s"' % dash if dash else ""))

    def bar(self, x, y, width, height, colour, title):
        self.add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" '
                 'fill="%s"><title>%s</title></rect>' % (
                     x, y, width, max(height, 0), colour, escape(title)))


def human(rate):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return "%.3g%s" % (rate / size, unit)
    return "%.3g" % rate


class Group:
    """A case's medians, relative to the best other server's."""

    def __init__(self, case, by_server):
        self.case = case
        self.rate = {n: median(r, "rate") for n, r in by_server.items()}
        self.cpu = {n: median(r, "cpu") for n, r in by_server.items()}
        others = [n for n in self.rate if n in PEERS]
        self.base = max(others, key=self.rate.get) if others else None
        self.servers = [n for n in STYLE if n in self.rate]

    def relative(self, key, name):
        figures = getattr(self, key)
        return figures[name] / figures[self.base]


def groups_of(results):
    by_case = {}
    for (case, name), r in results.items():
        by_case.setdefault(case, {})[name] = r
    return [g for g in (Group(c, s) for c, s in by_case.items()) if g.base]


def steps(top):
    """Lines of a scale up to top, at most six of them."""
    step = next(s for s in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100)
                if top / s <= 6 or s == 100)
    return [i * step for i in range(int(top / step) + 1)]


def axis(svg, y, height, top, label):
    for value in steps(top):
        at = y + height - value / top * height
        svg.line(LEFT, at, WIDTH - RIGHT, at,
                 "#333" if value in (0, 1) else "#ddd")
        svg.text(LEFT - 6, at + 4, "%g" % value, 11, "end")
    svg.text(0, 0, label, 11, extra=' transform="translate(%d %.1f) '
             'rotate(-90)"' % (LEFT - 44, y + height / 2))


def panel(svg, groups, y, height, key, top, unit):
    """The bars of one measure."""
    width = (WIDTH - LEFT - RIGHT) / len(groups)
    texts = []
    for i, g in enumerate(groups):
        bar = min(width * 0.84 / len(g.servers), 26)
        x = LEFT + i * width + (width - bar * len(g.servers)) / 2
        begin = x
        for name in g.servers:
            value = g.relative(key, name)
            tall = min(value / top, 1) * height
            svg.bar(x + 0.5, y + height - tall, bar - 1, tall,
                    STYLE[name][1], "%s, %s: %s %s, %.2f times %s" % (
                        STYLE[name][0], g.case.name,
                        human(getattr(g, key)[name]), unit, value,
                        STYLE[g.base][0]))
            if value > top:
                texts.append((x + bar / 2, y + 10, "↑%.0f" % value, 9))
            if name in OURS and key == "rate":
                texts.append((x + bar / 2, y + height - tall - 4,
                              human(g.rate[name]), 12))
            x += bar
        if key == "rate" and "echo" in g.rate:
            value = g.relative(key, "echo")
            at = y + height - min(value / top, 1) * height
            svg.line(begin, at, x, at, "#000", 1.5, "4 2")
            if value > top:
                texts.append((x - 14, at + 12, "↑ %.1f" % value, 11))
    for x, at, what, size in texts:
        svg.text(x, at, what, size, extra=HALO)


def labels(svg, groups, y):
    width = (WIDTH - LEFT - RIGHT) / len(groups)
    for i, g in enumerate(groups):
        words = g.case.name.split(", ")
        for n, word in enumerate(words):
            svg.text(LEFT + (i + 0.5) * width, y + 14 + 13 * n, word, 11)


def row(svg, title, groups, y):
    svg.text(LEFT, y - 12, title, 14, "start", ' font-weight="bold"')
    ours = [g.relative("rate", n) for g in groups for n in g.servers]
    top = max(max(ours) * 1.1, 1.25)
    axis(svg, y, RATES, top, "requests/s")
    panel(svg, groups, y, RATES, "rate", top, "requests/s")
    y += RATES + 14
    costs = [g.relative("cpu", n) for g in groups for n in g.servers]
    top = min(max(max(costs), 1.25), 4)
    axis(svg, y, CPUS, top, "CPU/request")
    panel(svg, groups, y, CPUS, "cpu", top, "us")
    labels(svg, groups, y + CPUS)


def legend(svg, names, y):
    x = LEFT
    for name in names:
        title, colour = STYLE[name]
        svg.bar(x, y - 10, 12, 12, colour, title)
        svg.text(x + 17, y, title, 12, "start")
        x += 40 + 7 * len(title)
    svg.line(x, y - 4, x + 20, y - 4, "#000", 1.5, "4 2")
    svg.text(x + 25, y, "the ceiling: no disk", 12, "start")


def svg(results_of, about):
    rows = []
    for title, parts in ROWS:
        groups = [g for p in parts for g in groups_of(results_of.get(p, {}))]
        if groups:
            rows.append((title, groups))
    one = TITLE + RATES + 14 + CPUS + LABELS + GAP
    height = HEAD + one * len(rows)
    out = Svg()
    out.add('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
            'viewBox="0 0 %d %d" font-family="sans-serif">' % (
                WIDTH, height, WIDTH, height))
    out.add('<rect width="100%" height="100%" fill="#fff"/>')
    out.text(LEFT, 24, "NBD servers: requests a second (more is better) and "
             "processor time a request (less is better)", 17, "start")
    out.text(LEFT, 44, "Each relative to the best other server = 1.  %s, "
             "client and server on processors %s, Linux %s." % (
                 about["processor"], ", ".join(
                     map(str, about["pinned_to"])), about["kernel"]),
             12, "start")
    names = {n for _, groups in rows for g in groups for n in g.servers}
    legend(out, [n for n in STYLE if n in names], 66)
    for i, (title, groups) in enumerate(rows):
        row(out, title, groups, HEAD + TITLE + 14 + i * one)
    out.add("</svg>")
    return "\n".join(out.parts) + "\n"
