# SPDX-License-Identifier: BSD-3-Clause
"""What znbd wants to reach, and whether it does: the rows of make bench.

A row's checks compare one case of ours with the best peer's, that is the
one with most requests a second, or with the ceiling's, or with another case.
Medians are compared, in the same run.
"""

from compare import median, short, spread


class Check:
    """value(row) against a limit, as "requests/s >= 3.0"."""

    def __init__(self, what, value, limit, at_least=True, unit="x"):
        self.what, self.value = what, value
        self.limit, self.at_least, self.unit = limit, at_least, unit

    def wanted(self):
        return "%s %s %s%s" % (self.what, "≥" if self.at_least else "≤",
                               "%g" % self.limit,
                               "" if self.unit == "x" else " " + self.unit)

    def judge(self, row):
        """(figure, met); (None, None) where it could not be measured."""
        x = self.value(row)
        if x is None:
            return None, None
        return x, x >= self.limit if self.at_least else x <= self.limit


class Row:
    """A case of ours in its results, with those to compare it with."""

    def __init__(self, title, results, case, checks, ours="znbd",
                 peers=None, other=None):
        self.title, self.case, self.checks = title, case, checks
        self.results = results
        self.ours = results.get((case, ours))
        self.ceiling = results.get((case, "echo"))
        self.base = None        # (its name, results)
        if other:
            self.base = (other[1], results.get((other[0], other[1])))
        else:
            found = [(n, r) for (c, n), r in results.items()
                     if c is case and n in (peers or PEERS)]
            if found:
                self.base = max(found, key=lambda x: median(x[1], "rate"))


PEERS = ("nbdkit-file", "nbdkit-memory", "qemu-nbd", "qemu-storage-daemon",
         "nbd-server", "znbd-other")


def to_base(key):
    def value(row):
        if not row.ours or not row.base or not row.base[1]:
            return None
        return median(row.ours, key) / median(row.base[1], key)
    return value


def of_ceiling(row):
    return median(row.ours, "rate") / median(row.ceiling, "rate") \
        if row.ours and row.ceiling else None


def slowest(row):
    return median(row.ours, "slowest") if row.ours else None


def rate(limit):
    return Check("requests/s", to_base("rate"), limit)


def cpu(limit):
    return Check("CPU", to_base("cpu"), limit, at_least=False)


def latency(limit):
    return Check("latency", to_base("p50"), limit, at_least=False)


def ceiling(limit):
    return Check("of the ceiling", of_ceiling, limit)


def fair(limit):
    return Check("slowest connection", slowest, limit)


def verdict(met):
    return {True: "yes", False: "**no**", None: "not measured"}[met]


class Figure:
    """A row that is one number: figure against limit."""

    def __init__(self, title, figure, limit, unit, detail=""):
        self.title, self.figure, self.limit = title, figure, limit
        self.unit, self.detail = unit, detail

    @property
    def met(self):
        return None if self.figure is None else self.figure <= self.limit


def print_rows(rows, out):
    """As Markdown; returns how many figures are met, not, and not
    measured."""
    counts = {True: 0, False: 0, None: 0}
    out("| case | requests/s | CPU, us | compared with | its requests/s "
        "| its CPU, us | figure | wanted | met |")
    out("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [row.title, "", "", "", "", ""]
        if row.ours:
            cells[1:3] = [spread(row.ours, "rate"), spread(row.ours, "cpu")]
        if row.base and row.base[1]:
            cells[3:] = [row.base[0], spread(row.base[1], "rate"),
                         spread(row.base[1], "cpu")]
        for check in row.checks:
            figure, met = check.judge(row)
            counts[met] += 1
            out("| %s | %s | %s | %s |" % (
                " | ".join(cells), "" if figure is None else "%.2f" % figure,
                check.wanted(), verdict(met)))
            cells = [""] * len(cells)
    out("")
    return counts


def print_figures(figures, out):
    counts = {True: 0, False: 0, None: 0}
    out("| what | figure | wanted | met | |")
    out("|---|---|---|---|---|")
    for f in figures:
        counts[f.met] += 1
        out("| %s | %s | %s | %s | %s |" % (
            f.title, "" if f.figure is None
            else "%s %s" % (short(f.figure), f.unit),
            "≤ %g %s" % (f.limit, f.unit), verdict(f.met), f.detail))
    out("")
    return counts
