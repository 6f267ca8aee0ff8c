"""Our interior-point method against CLARABEL on the worst cases of the standard grid.

    python benchmarks/worst_case_solvers.py --every 8 --time-limit 120 --json theory/results/solvers.json

Both solve the same cells by the same route, with the same conditions collected in the same way and the
same tolerance; CLARABEL is given the form of the program that it solves faster (the dual). The two take
turns, cell by cell, each beginning half of the time. Times are CPU seconds of the one thread that both
use, so that other work on the machine counts little.

What is solved and how it is read, written before anything was measured: the grid's cells sorted by their
number of points, and of these every N-th, so that every size is there as often as in the grid; N = 1 is the
whole grid. The ratio is CLARABEL's total over ours. A solver that does not finish a cell in time counts with
the time that it spent (the ratio is then at least, or at most, what is shown); a cell that neither finishes is
left out. Ours stays only if the ratio is REQUIRED or more, else CLARABEL replaces it. Exit status: 0 if it
stays, 1 if not, 2 without CLARABEL.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from theory.support import command as cli
from theory.support import numbers
from theory.support.errors import UserError
from theory.support.files import check_outputs, write_json
from theory.support.progress import Progress
from theory.support.provenance import provenance
from theory.worst_case import clarabel_route
from theory.worst_case.cells import Cell, standard_grid
from theory.worst_case.constraints import SolverError
from theory.worst_case.costs import seconds
from theory.worst_case.reduction import CLARABEL, INTERIOR_POINT, worst_case

app = cli.make_app()
REQUIRED = 3.0
#: Parts of the grid for the table, by the largest number of points in each.
PARTS = (16, 25, 41, 61, 1000)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One cell solved by both.

    Attributes:
        metric, local_steps, rounds, step_size, points: the cell.
        part: the index of its part in PARTS.
        ours, clarabel: CPU seconds, spent in vain where not finished.
        ours_finished, clarabel_finished: whether a value came out in time.
        difference: of the two values; None if there are not two.
        ours_gap, clarabel_gap: certified bound less value.
    """

    metric: str
    local_steps: int
    rounds: int
    step_size: float
    points: int
    part: int
    ours: float
    clarabel: float
    ours_finished: bool
    clarabel_finished: bool
    difference: float | None
    ours_gap: float | None
    clarabel_gap: float | None

    @property
    def ratio(self) -> float:
        """How many times longer CLARABEL takes."""
        return self.clarabel / self.ours


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The total over cells that at least one finished.

    Attributes:
        ours, clarabel: CPU seconds, at least that where a cell was not finished.
        cells: that count.
        ours_unfinished, clarabel_unfinished: of these, not solved in time.
        ratio: clarabel / ours.
        stays: whether ours is REQUIRED times faster.
    """

    ours: float
    clarabel: float
    cells: int
    ours_unfinished: int
    clarabel_unfinished: int
    ratio: float
    stays: bool


def part_of(cell: Cell) -> int:
    """Its index in PARTS."""
    return next(i for i, most in enumerate(PARTS) if cell.points <= most)


def sample(grid: Sequence[Cell], every: int) -> list[Cell]:
    """Every N-th cell by number of points, beginning in the middle of the first N."""
    order = sorted(grid, key=lambda cell: cell.points)
    return order[every // 2 :: every]


def compare(cell: Cell, time_limit: float, ours_first: bool) -> Comparison:
    """Solve by both, in the order asked for."""
    order = [INTERIOR_POINT, CLARABEL] if ours_first else [CLARABEL, INTERIOR_POINT]
    spent: dict[str, float] = {}
    values: dict[str, float] = {}
    gaps: dict[str, float] = {}
    for solver in order:
        begin = time.process_time()
        try:
            found = worst_case(cell, time_limit=time_limit, solver=solver)
            if found.solver == solver:
                values[solver], gaps[solver] = found.value, found.gap
        except SolverError:
            pass  # also out of time: counts with what was spent
        spent[solver] = time.process_time() - begin
    both = len(values) == 2
    return Comparison(
        metric=cell.name,
        local_steps=cell.local_steps,
        rounds=cell.rounds,
        step_size=cell.step_size,
        points=cell.points,
        part=part_of(cell),
        ours=spent[INTERIOR_POINT],
        clarabel=spent[CLARABEL],
        ours_finished=INTERIOR_POINT in values,
        clarabel_finished=CLARABEL in values,
        difference=abs(values[INTERIOR_POINT] - values[CLARABEL]) if both else None,
        ours_gap=gaps.get(INTERIOR_POINT),
        clarabel_gap=gaps.get(CLARABEL),
    )


def total(compared: Sequence[Comparison]) -> Outcome:
    """The sums and the verdict of the rule."""
    counted = [c for c in compared if c.ours_finished or c.clarabel_finished]
    ours, clarabel = sum(c.ours for c in counted), sum(c.clarabel for c in counted)
    if not counted:
        raise UserError("no cell was solved in time, allowed: a longer --time-limit")
    return Outcome(
        ours=ours,
        clarabel=clarabel,
        cells=len(counted),
        ours_unfinished=sum(not c.ours_finished for c in counted),
        clarabel_unfinished=sum(not c.clarabel_finished for c in counted),
        ratio=clarabel / ours,
        stays=clarabel / ours >= REQUIRED,
    )


@app.command()
def main(
    every: Annotated[int, typer.Option("--every", help="solve every N-th cell by size")] = 8,
    time_limit: Annotated[float, typer.Option(help="seconds a cell and solver")] = 60.0,
    most: Annotated[int, typer.Option(help="largest number of points")] = 1000,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all numbers here")] = None,
    version: cli.Version = False,
) -> int:
    """Our interior-point method against CLARABEL over the standard grid of worst cases."""
    numbers.whole("--every", every, 1)
    numbers.real("--time-limit", time_limit, above=0)
    numbers.whole("--most", most, 1)
    check_outputs({"--json": json_file})
    if not clarabel_route.available():
        raise UserError("CLARABEL is not installed: pip install '.[pep]'")
    grid = [c for c in standard_grid(0.1) if c.points <= most]
    chosen = sample(grid, every)
    # Compiling is not solving.
    compare(Cell(local_steps=2, rounds=1, step_size=1.0), time_limit, True)
    compared = []
    with Progress("solving twice") as progress:
        work = sum(map(seconds, chosen))
        for i, cell in enumerate(chosen):
            progress.update(sum(map(seconds, chosen[:i])), work, f"{i + 1} of {len(chosen)}")
            compared.append(compare(cell, time_limit, i % 2 == 0))
    outcome = total(compared)
    console = cli.console()
    for table in (comparison_table(compared), part_table(compared)):
        console.print(table)
        console.print()
    verdict = "stays" if outcome.stays else "is to be replaced"
    console.print(
        f"Every {every} of {len(grid):,} cells, {outcome.cells} solved: ours {outcome.ours:,.0f} s "
        f"({outcome.ours_unfinished} unfinished), CLARABEL {outcome.clarabel:,.0f} s "
        f"({outcome.clarabel_unfinished} unfinished), {outcome.ratio:.2f} times as long ({REQUIRED:g} "
        f"required): ours {verdict}."
    )
    if json_file is not None:
        content = {
            **provenance(),
            "units": "CPU seconds",
            "every": every,
            "time_limit": time_limit,
            "required": REQUIRED,
            "cells": [{**asdict(c), "ratio": c.ratio} for c in compared],
            "total": asdict(outcome),
        }
        write_json(json_file, content)
        console.print(f"Wrote {json_file}")
    return cli.DONE if outcome.stays else cli.FAILED


def part_table(compared: Sequence[Comparison]) -> Table:
    """A line for each part of PARTS that has a solved cell."""
    table = Table(title="By size, CPU seconds in all", title_justify="left", box=None)
    for head in ("points up to", "cells", "ours", "CLARABEL", "ratio"):
        table.add_column(head, justify="right", no_wrap=True)
    for part, most in enumerate(PARTS):
        same = [c for c in compared if c.part == part and (c.ours_finished or c.clarabel_finished)]
        if same:
            found = total(same)
            cells = (f"{found.ours:,.1f}", f"{found.clarabel:,.1f}", f"{found.ratio:.2f}")
            table.add_row(str(most), str(len(same)), *cells)
    return table


def comparison_table(compared: Sequence[Comparison]) -> Table:
    """A line a cell."""
    table = Table(
        title="CPU seconds; '>' where not finished in time", title_justify="left", box=None
    )
    table.add_column("metric", no_wrap=True)
    for head in ("K", "R", "eta L", "points", "ours", "CLARABEL", "ratio", "differ by"):
        table.add_column(head, justify="right", no_wrap=True)
    for c in compared:
        table.add_row(
            c.metric,
            str(c.local_steps),
            str(c.rounds),
            f"{c.step_size:g}",
            str(c.points),
            ("" if c.ours_finished else ">") + f"{c.ours:.3f}",
            ("" if c.clarabel_finished else ">") + f"{c.clarabel:.3f}",
            f"{c.ratio:.2f}",
            "-" if c.difference is None else f"{c.difference:.0e}",
        )
    return table


if __name__ == "__main__":
    cli.one_blas_thread()
    cli.run(app, "python benchmarks/worst_case_solvers.py")
