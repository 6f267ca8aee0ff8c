"""Tables of ``python -m theory.worst_case``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from theory.pep_sweep import HOLDS, Row

TITLES = {
    "T1": "T1: mean of the local losses, (1/T) sum_t (1/n) sum_i f_i(x_i^t)",
    "T2": "T2: mean of f(xbar_r) over the rounds",
    "T3": "T3 with c = 1 (all f_i equal): mean of f(x^t); K is T",
    "T4": "T4 under A4: ||xbar_R - x*||^2, every f_i grows quadratically",
    "T4'": "T4 under A4': ||xbar_R - x*||^2, f grows (imposed at the xbar_r: an upper value)",
    "C1 last": "C1: last iterate f(xbar_R)",
    "C1 best": "C1: best iterate, min over r <= R of f(xbar_r); the bound is T2's",
}


def all_tables(rows: Sequence[Row]) -> list[Table]:
    """One table a theorem and metric, then the seconds against K and R."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = f"C1 {row.metric}" if row.theorem == "C1" else row.theorem
        groups.setdefault(name, []).append(row)
    tables = [_values(TITLES[name], groups[name]) for name in TITLES if name in groups]
    solved = [row for row in rows if row.worst_case is not None]
    return [*tables, _seconds(solved)] if solved else tables


def _values(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left")
    heads = ("n", "K", "R", "eta L", "instance", "worst case", "gap", "simulated", "sharper", "bound",
             "bound/worst")  # fmt: skip
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict")
    for r in sorted(rows, key=lambda r: (r.n, r.step_size, r.rounds, r.local_steps)):
        sharper = f"{number(r.sharper)}{'?' if r.standing == 'conjectured' else ''}"
        table.add_row(
            str(r.n), str(r.local_steps), str(r.rounds), f"{r.step_size:g}",
            f"{number(r.instance)} {r.instance_name}", number(r.worst_case),
            "-" if r.duality_gap is None else f"{r.duality_gap:.0e}", number(r.attained), sharper,
            number(r.bound), "-" if r.ratio is None else f"{r.ratio:.3f}", _verdict(r),
        )  # fmt: skip
    return table


def _seconds(rows: Sequence[Row]) -> Table:
    """The largest time among the cells of each K and R; a worst case costs the same for every n."""
    local_steps = sorted({r.local_steps for r in rows if r.theorem != "T3"})
    table = Table(title="Seconds to solve (most expensive cell; the same for every n >= 2)",
                  title_justify="left")  # fmt: skip
    table.add_column("R", justify="right")
    for k in local_steps:
        table.add_column(f"K = {k}", justify="right")
    for rounds in sorted({r.rounds for r in rows if r.theorem != "T3"}):
        cells = []
        for k in local_steps:
            times = [
                r.seconds for r in rows
                if (r.local_steps, r.rounds) == (k, rounds) and r.theorem != "T3"
            ]  # fmt: skip
            cells.append(f"{max(times):.2f}" if times else "-")
        table.add_row(str(rounds), *cells)
    return table


def route_table(routes: Sequence[Any]) -> Table:
    """PEPit over all nodes against the reduced problem."""
    table = Table(title="Two routes: PEPit with all n nodes, and the reduced problem",
                  title_justify="left")  # fmt: skip
    table.add_column("metric")
    for head in ("n", "K", "R", "eta L", "PEPit", "reduced", "seconds", "seconds"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict")
    for r in routes:
        table.add_row(
            r.metric, str(r.n), str(r.local_steps), str(r.rounds), f"{r.step_size:g}",
            number(r.pepit, 9), number(r.reduced, 9), f"{r.pepit_seconds:.2f}",
            f"{r.reduced_seconds:.2f}", _verdict(r),
        )  # fmt: skip
    return table


def number(value: float | None, digits: int = 6) -> str:
    """Fixed decimals; "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def _verdict(row: Any) -> Text:
    if row.verdict == HOLDS:
        return Text(HOLDS, style="green")
    return Text(f"{row.verdict}: {row.why}", style="bold red")
