"""Tables of a verification for the terminal; each fits 80 columns, with ASCII letters only."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE, OBSERVED, UNDECIDED
from theory.verification.check import Check
from theory.verification.clients_and_servers import RoundsTo
from theory.verification.communication import Communication
from theory.verification.slopes import SlopeFit
from theory.verification.summary import SharperSummary, TheoremSummary
from theory.verification.tightness import Tightness

WIDTH = 80
# A rule of hyphens under the head and nothing else, the same on every terminal.
_RULED = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
COLOURS = {
    HOLDS: "green",
    FAILED: "bold red",
    UNDECIDED: "yellow",
    NOT_APPLICABLE: "dim",
    OBSERVED: "cyan",
}


def number(value: float) -> str:
    """Three significant digits; scientific when far from 1."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    if value == round(value) and abs(value) < 1e5:
        return f"{value:.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"


def whole(value: float, never: str = "inf", below: float = 1e7) -> str:
    """A count of rounds and the like, rounded up; scientific from ``below`` on, ``never`` for infinity."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return never
    return f"{math.ceil(value - 1e-9):,}" if value < below else f"{value:.1e}"


def _short(value: float) -> str:
    """As :func:`number`, in fewer letters up to 99,999."""
    return f"{value:,.0f}" if 1e3 <= value < 99_999.5 else number(value)


def ratio(value: float) -> str:
    """Bound over measured: as a run that ends exactly in x* leaves its rounding, no more than 1e15."""
    if math.isfinite(value) and value > 1e15:
        return ">1e15"
    return _short(value)


def _rate(value: float) -> str:
    """A contraction factor, with the digits that tell it from 1."""
    if math.isnan(value):
        return "-"
    gap = 1 - value
    return f"1-{gap:.1e}" if 0 < gap < 1e-3 else f"{value:.4f}"


def ruled(title: str, text: dict[str, int], numbers: Sequence[str], verdict: bool = True) -> Table:
    """Columns of text with the most letters each may take, columns of numbers, and the verdict."""
    table = Table(title=title, title_justify="left", box=_RULED, padding=(0, 0), show_edge=False)
    for name, most in text.items():
        table.add_column(name, max_width=most, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    if verdict:
        table.add_column("verdict", no_wrap=True)
    return table


def _verdict(verdict: str) -> Text:
    return Text(verdict, style=COLOURS[verdict])


def _counted(count: int, verdict: str) -> Text:
    return Text(str(count), style=COLOURS[verdict] if count else "dim")


def summary_table(rows: Sequence[TheoremSummary]) -> Table:
    """A line a theorem: its verdicts, and how far from its bound it was."""
    title = "Theorems: verdicts, and bound / measured (linear rates: ratio of exponents)"
    values = [(ratio(row.least), ratio(row.median)) for row in rows]
    name = max((len(row.theorem) for row in rows), default=3)
    widest = sum(max(len(v[i]) for v in [*values, ("least", "median")]) for i in (0, 1))
    # Three counts of five letters, and a space between seven columns.
    table = ruled(
        title,
        {"": name, "says": WIDTH - name - 15 - widest - 6},
        ("holds", "fails", "undec", "least", "median"),
        verdict=False,
    )
    for row, (least, middle) in zip(rows, values, strict=True):
        table.add_row(
            row.theorem,
            row.title,
            _counted(row.holds, HOLDS),
            _counted(row.failed, FAILED),
            _counted(row.undecided, UNDECIDED),
            least,
            middle,
        )
    return table


def sharper_table(rows: Iterable[SharperSummary]) -> Table:
    """Median bound / measured of a theorem and of its sharper variants, on the same checks."""
    table = ruled(
        "Sharper: median bound / measured where both hold, and bound over bound",
        {"variant": 8, "says": 32},
        ("eta L", "checks", "before", "after", "bounds"),
        verdict=False,
    )
    for row in rows:
        step = "own" if row.step_factor is None else f"{row.step_factor:g}"
        values = (row.median, row.median_sharper, row.median_bounds)
        table.add_row(row.variant, row.title, step, str(row.checks), *map(ratio, values))
    return table


def undecided_line(checks: Iterable[Check], most: int = 6) -> str:
    """The undecided checks by name, at most ``most`` of them."""
    names = [
        f"{c.theorem} on {_place(c)}, K = {c.local_steps}" for c in checks if c.verdict == UNDECIDED
    ]
    more = f"; and {len(names) - most} more" if len(names) > most else ""
    return f"Undecided: {'; '.join(names[:most])}{more}." if names else ""


def undecided_table(checks: Iterable[Check]) -> Table:
    """Every check that is undecided, with what stands in the way."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for c in checks:
        if c.verdict == UNDECIDED:
            groups[c.theorem, c.why].append(f"{_place(c)}, K = {c.local_steps}")
    table = ruled("Undecided", {"theorem": 8, "where": 34, "why": 34}, (), verdict=False)
    for (theorem, why), places in groups.items():
        table.add_row(theorem, "; ".join(places), why)
    return table


def check_tables(checks: Sequence[Check]) -> list[Table]:
    """Every check that applies, a table a theorem."""
    out = []
    for name in dict.fromkeys(c.theorem for c in checks if c.verdict != NOT_APPLICABLE):
        rows = [c for c in checks if c.theorem == name and c.verdict != NOT_APPLICABLE]
        linear = any(not math.isnan(c.rate) for c in rows)
        numbers = ["K", "measured", "at most", "bound", "ratio"]
        if linear:
            numbers = ["K", "rate an iteration", "its bound", "ratio"]
        table = ruled(
            f"{name}: left side and bound (full: full gradients)", {"problem": 32}, numbers
        )
        for c in rows:
            exact = c.low == c.high
            values = [number(c.measured), "exact" if exact else number(c.high), number(c.bound)]
            if linear:
                values = [_rate(c.rate), _rate(c.rate_bound)]
            cells = (_place(c), str(c.local_steps), *values, ratio(c.ratio))
            table.add_row(*cells, _verdict(c.verdict))
        out.append(table)
    return out


def _place(c: Check) -> str:
    full = ", full" if c.gradient == "full" else ""
    return f"{c.problem}, {c.heterogeneity}{full}"


def not_applicable_table(checks: Iterable[Check]) -> Table:
    """Every check that does not apply, with the reason; schedules and nodes' likeness collapsed."""
    groups: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for c in checks:
        if c.verdict == NOT_APPLICABLE:
            groups[c.theorem, c.why][c.problem].add(c.heterogeneity)
    table = ruled(
        "Not applicable: which assumption fails",
        {"theorem": 8, "where": 34, "why": 34},
        (),
        verdict=False,
    )
    for (theorem, why), problems in sorted(groups.items()):
        where = "; ".join(f"{p} ({', '.join(sorted(levels))})" for p, levels in problems.items())
        table.add_row(theorem, where, why)
    return table


def tightness_table(rows: Sequence[Tightness]) -> Table:
    """The instances."""
    table = ruled(
        "Tightness: bound / measured on the instances",
        {"instance": 8, "theorem": 7, "metric": 18},
        ("K", "R", "ratio", "limit"),
    )
    for r in rows:
        numbers = (str(r.local_steps), f"{r.rounds:,}", f"{r.ratio:.5g}", f"{r.limit:.5g}")
        metric = r.metric.replace("_", " ")
        table.add_row(r.instance, r.theorem, metric, *numbers, _verdict(r.verdict))
    return table


def slope_table(fits: Sequence[SlopeFit], details: bool = False) -> Table:
    """Fitted log-log slopes, without those of which nothing is predicted unless asked for."""
    title = "Order: log-log slope, predicted -1; factor below C/sqrt(nT) at the end"
    table = ruled(title, {"family": 35}, ("slope", "95% interval", "factor"))
    for f in fits:
        if f.predicted is None and not details:
            continue
        interval = f"[{f.low:.3f}, {f.high:.3f}]"
        factor = number(f.undercut)
        family = f.family.partition(", K =")[0]
        table.add_row(family, f"{f.slope:.4f}", interval, factor, _verdict(f.verdict))
    return table


def communication_table(rows: Sequence[Communication]) -> Table:
    """Measured rounds to eps against K."""
    ks = [f"K={k}" for k in rows[0].local_steps]
    title = "Communication: rounds until f(xbar_R) <= eps at step size 1/L"
    table = ruled(title, {"problem": 33}, (*ks, "slope"))
    for r in rows:
        measured = ["-" if math.isnan(m) else f"{m:,.0f}" for m in r.rounds]
        table.add_row(r.family, *measured, f"{r.fit.slope:.3f}", _verdict(r.fit.verdict))
    return table


def needed_table(rows: Sequence[Communication]) -> Table:
    """The rounds to eps that the bounds need."""
    ks = [f"K={k}" for k in rows[0].local_steps]
    title = "Communication: rounds to eps that the theorem's bound needs"
    table = ruled(title, {"problem": 21}, ("eps", "theorem", *ks), verdict=False)
    for r in rows:
        needed = [number(math.ceil(b)) for b in r.bound]
        table.add_row(r.family, number(r.accuracy), r.theorem, *needed)
    return table


def clients_table(rows: Sequence[RoundsTo]) -> Table:
    """Rounds to eps against the clients of a round, beside the one number that T7 needs for all."""
    title = "Clients: rounds to eps at K = 5 with m nodes a round"
    heads = {r.clients: f"m={r.clients}" for r in sorted(rows, key=lambda r: r.clients)}
    table = ruled(title, {"problem": 26}, ("eps", *heads.values(), "T7 needs"))
    for family, mine in _by_family(rows):
        found = {r.clients: whole(r.rounds) for r in mine}
        cells = (number(mine[0].accuracy), *(found.get(m, "-") for m in heads))
        table.add_row(family, *cells, whole(mine[0].bound), _verdict(_worst(mine)))
    return table


def outer_steps_table(rows: Sequence[RoundsTo]) -> Table:
    """Rounds to eps against the outer step, beside what T8a needs at beta = 1."""
    title = "Outer steps: rounds to eps, K = 5; below 1, T8a needs 1/beta times it"
    short = {"extrapolated": "P/Q", "half-extrapolated": "half", "polyak": "Polyak"}
    heads = {
        r.outer_step: short[r.outer_step] if isinstance(r.outer_step, str) else f"{r.outer_step:g}"
        for r in rows
    }
    table = ruled(title, {"problem": 21}, (*heads.values(), "T8a needs"))
    for family, mine in _by_family(rows):
        found = {r.outer_step: r for r in mine}
        cells = (_short(r.rounds) if (r := found.get(b)) else "-" for b in heads)
        plain = whole(found[1.0].bound) if 1.0 in found else "-"
        table.add_row(family, *cells, plain, _verdict(_worst(mine)))
    return table


def _by_family(rows: Sequence[RoundsTo]) -> list[tuple[str, list[RoundsTo]]]:
    names = dict.fromkeys(r.family for r in rows)
    return [(name, [r for r in rows if r.family == name]) for name in names]


def _worst(rows: Sequence[RoundsTo]) -> str:
    """The verdict of a row: the first of these that any of its counts has."""
    found = {r.verdict for r in rows}
    return next(v for v in (FAILED, UNDECIDED, HOLDS, OBSERVED) if v in found)
