"""Tables of ``python -m theory.worst_case``; each fits 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from theory.support.verdicts import OBSERVED, beside_bounds
from theory.worst_case.many_local_steps import LimitRow
from theory.worst_case.outer_steps import BestPair
from theory.worst_case.routes import Route
from theory.worst_case.rows import EXACT, FAILED, HOLDS, Row
from theory.worst_case.sentences import agreement, sentence
from theory.worst_case.statements import Finding
from theory.worst_case.step_sizes import TunedStep

TITLES = {
    "T1": "T1: mean of the local losses, (1/T) sum_t (1/n) sum_i f_i(x_i^t)",
    "T2": "T2: mean of f(xbar_r) over the rounds",
    "T3": "T3 with c = 1 (all f_i equal): mean of f(x^t); K is T",
    "T4": "T4 under A4: ||xbar_R - x*||^2, every f_i grows quadratically",
    "T4'": "T4 under A4': ||xbar_R - x*||^2, f grows",
    "C1 last": "C1: last iterate f(xbar_R)",
    "C1 best": "C1: best iterate, min over r <= R of f(xbar_r); the bound is T2's",
}
COLOURS = {HOLDS: "green", FAILED: "bold red", OBSERVED: "cyan"}


def all_tables(rows: Sequence[Row], cells: bool = True) -> list[Table]:
    """One table a theorem and metric (if ``cells``), then the seconds against K and R."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = f"C1 {row.metric}" if row.theorem == "C1" else row.theorem
        groups.setdefault(name, []).append(row)
    tables = [_values(TITLES[name], groups[name]) for name in TITLES if cells and name in groups]
    solved = [row for row in rows if row.worst_case is not None and row.theorem != "T3"]
    return [*tables, _seconds(solved)] if solved else tables


def _table(title: str, caption: str = "", space: int = 1) -> Table:
    """Without vertical lines, so that ten columns fit 80 characters; ``space`` more between them."""
    return Table(
        title=title,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, space, 0, 0),
        show_edge=False,
        title_style="bold",
    )


def _columns(table: Table, *heads: str) -> None:
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)


def _values(title: str, rows: Sequence[Row]) -> Table:
    """One line a cell; columns that would be empty are left out."""
    several = len({r.n for r in rows}) > 1
    sharper = any(r.sharper is not None for r in rows)
    bounded = any(r.bound is not None for r in rows)
    kinds = any(r.kind != EXACT for r in rows if r.worst_case is not None)
    table = _table(title, _caption(rows), space=0)
    _columns(table, *["n"] * several, "K", "R", "eta L", "worst")
    if kinds:
        table.add_column("", no_wrap=True)
    _columns(table, "known")
    table.add_column("", no_wrap=True)
    if sharper:
        _columns(table, "sharper")
        table.add_column("", no_wrap=True)
    _columns(table, *["bound", "ratio"] * bounded)
    table.add_column("verdict", no_wrap=True)
    ordered = sorted(rows, key=lambda r: (r.n, r.step_size, r.rounds, r.local_steps))
    for i, r in enumerate(ordered):
        cells = [str(r.n)] * several
        cells += [str(r.local_steps), str(r.rounds), f"{r.step_size:g}"]
        cells.append(number(r.worst_case))
        cells += [r.kind if r.worst_case is not None else ""] * kinds
        cells += [number(r.instance, 5), r.instance_name]
        if sharper:
            cells += [number(r.sharper, 5), r.source or ""]
        if bounded:
            cells += [number(r.bound, 5), "-" if r.ratio is None else f"{r.ratio:#.4g}"]
        last = i + 1 == len(ordered) or ordered[i + 1].step_size != r.step_size
        table.add_row(*cells, _verdict(_shown(r)), end_section=last)
    return table


def _shown(row: Row) -> str:
    return beside_bounds(row.verdict, row.bound, row.sharper)


def _caption(rows: Sequence[Row]) -> str:
    """How exact the numbers are, and what the columns mean."""
    lines = []
    gaps = [abs(r.duality_gap) for r in rows if r.duality_gap is not None]
    if gaps:
        lines.append(f"duality gap at most {max(gaps):.0e}")
    misses = [
        abs(r.attained - r.worst_case)
        for r in rows
        if r.attained is not None and r.worst_case is not None and r.kind == EXACT
    ]
    if misses:
        lines.append(f"exact where the simulator attains it, here to {max(misses):.0e}")
    if any(r.kind != EXACT for r in rows if r.worst_case is not None):
        lines.append("upper: no problem that attains it is known")
    elif misses:
        lines.append("all are exact")
    lines.append("known: the best known instance")
    if any(r.bound is not None for r in rows):
        lines.append("ratio: bound / worst")
    if any(_shown(r) == OBSERVED for r in rows):
        lines.append("observed: no bound is proved")
    return "; ".join(lines)


def _seconds(rows: Sequence[Row]) -> Table:
    """The largest time among the cells of each K and R; a worst case costs the same for every n."""
    title = "Seconds, the most"
    table = _table(title)
    # One R alone is narrower than the title, which would be broken.
    table.min_width = len(title)
    counts = sorted({r.rounds for r in rows})
    _columns(table, "K", *(f"R={rounds}" for rounds in counts))
    for k in sorted({r.local_steps for r in rows}):
        cells = []
        for rounds in counts:
            times = [r.seconds for r in rows if (r.local_steps, r.rounds) == (k, rounds)]
            cells.append(f"{max(times):.1f}" if times else "-")
        table.add_row(str(k), *cells)
    return table


def route_table(routes: Sequence[Route]) -> Table:
    """PEPit over all nodes against the reduced problem."""
    title = "Two routes: PEPit with all n nodes, and the reduced problem; with seconds"
    table = _table(title, space=0)
    table.add_column("metric", no_wrap=True)
    _columns(table, "n", "K", "R", "eta L", "beta", "PEPit", "s", "reduced", "s")
    table.add_column("verdict", no_wrap=True)
    for r in routes:
        table.add_row(
            r.metric,
            str(r.n),
            str(r.local_steps),
            str(r.rounds),
            f"{r.step_size:g}",
            f"{r.outer_step:g}",
            number(r.pepit, 8),
            f"{r.pepit_seconds:.1f}",
            number(r.reduced, 8),
            f"{r.reduced_seconds:.1f}",
            _verdict(r.verdict),
        )
    return table


def limit_table(rows: Sequence[LimitRow]) -> Table:
    """K to infinity."""
    table = _table(
        "K to infinity: every node minimises its own f_i exactly (upper values)",
        "K=1 is L D/(4R+2), at eta = 1/L; I1 is at its best s",
    )
    _columns(table, "R", "last", "best", "K=1", "I1", "last/I1", "best/I1", "last/K=1")
    for r in rows:
        table.add_row(
            str(r.rounds),
            number(r.last),
            number(r.best),
            number(r.one_step),
            number(r.crossing),
            f"{r.last / r.crossing:.3f}",
            f"{r.best / r.crossing:.3f}",
            f"{r.last / r.one_step:.3f}",
        )
    return table


def step_table(steps: Sequence[TunedStep]) -> Table:
    """Best step sizes."""
    table = _table(
        "Step size with the least worst last iterate, for each K and R",
        "rounds, as real numbers: what K = 1 needs for the same worst case at its own best step",
    )
    _columns(table, "K", "R", "eta L", "worst", "K=1 rounds", "over R")
    for t in steps:
        table.add_row(
            str(t.local_steps),
            str(t.rounds),
            f"{t.step_size:.3f}",
            number(t.value),
            f"{t.one_step_rounds:.2f}",
            f"{t.one_step_rounds / t.rounds:.3f}",
        )
    return table


def pair_table(pairs: Sequence[BestPair]) -> Table:
    """Best fixed step size and outer step."""
    table = _table(
        "Step size and outer step with the least worst case, for each K and R",
        "at beta=1: the same with the plain mean at its own best eta; gain: how much lower the best "
        "pair is; I6: no fixed eta, K and beta can go below",
        space=0,
    )
    table.add_column("metric", no_wrap=True)
    _columns(table, "K", "R", "eta L", "beta", "worst", "eta L", "at beta=1", "gain", "I6")
    for p in pairs:
        table.add_row(
            p.metric,
            str(p.local_steps),
            str(p.rounds),
            f"{p.step_size:.3f}",
            f"{p.outer_step:.3f}",
            number(p.value),
            f"{p.plain_step_size:.3f}",
            number(p.plain_value),
            f"{p.gain:.1%}",
            number(p.lower_bound, 5),
        )
    return table


def finding_table(findings: Sequence[Finding]) -> Table:
    """Statements derived from the rows."""
    table = _table("Findings, each computed from the cells above")
    table.add_column("about", no_wrap=True)
    table.add_column("statement")
    _columns(table, "cells")
    table.add_column("standing", no_wrap=True)
    table.add_column("cells say", no_wrap=True)
    for f in findings:
        style = "yellow" if f.agrees is False else "green" if f.agrees else ""
        table.add_row(
            f.about, sentence(f), str(f.cells), f.standing, Text(agreement(f), style=style)
        )
    return table


def reasons(rows: Sequence[Row | Route]) -> list[str]:
    """One line for each row that does not hold."""
    return [
        f"{r.verdict}: {r.metric} n={r.n} K={r.local_steps} R={r.rounds} eta={r.step_size:g}/L: {r.why}"
        for r in rows
        if r.verdict != HOLDS
    ]


def number(value: float | None, digits: int = 6) -> str:
    """Fixed decimals; "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def _verdict(verdict: str) -> Text:
    """TIME LIMIT without its second word, which would not fit; the reasons below have it."""
    return Text(verdict.split()[0], style=COLOURS.get(verdict, "yellow"))
