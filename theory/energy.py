"""``python -m theory.energy``: the energy balance T9 on problems where phi_hat >= phi is a theorem.

Exit status: 0 when nothing FAILED, 1 when something did, 2 on bad input, 3 when nothing could be decided.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich import box
from rich.table import Table

from theory.problems.generators import HETEROGENEITIES
from theory.simulation.energy import energy_balance
from theory.support import command as cli
from theory.support import numbers
from theory.support.energy import TOLERANCE, Array, Windows, as_rows, edges_until
from theory.support.energy_tables import LEGEND, WIDTH, window_tables
from theory.support.files import check_outputs, write_json
from theory.support.progress import Progress
from theory.support.provenance import provenance
from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE
from theory.verification.sweep import INSTANCES, PROBLEMS, Sweep, make_problem

#: Problems that have a solution x*, and those of them in the class of T1, where phi_hat >= phi.
SOLVED = tuple(name for name in PROBLEMS if name not in ("separable", *INSTANCES))
CONVEX = ("least-squares", "power-law", "logistic")
#: What rounding may take of <g, x - x*>, in units of ||g|| ||x_0 - x*||; and that, over the loss, beyond
#: which a window shows rounding.
_ROUNDING, _SEEN = 1e-13, 1e-3

Words = list[str] | None
app = cli.make_app()


@dataclass(frozen=True)
class Cell:
    """The balance of one path; ``phi`` is min(1, 2 - eta L), and ``eta_l`` the step size times L."""

    problem: str
    heterogeneity: str
    local_steps: int
    eta_l: float
    windows: Windows
    convex: bool

    @property
    def phi(self) -> float:
        """What T1 says of the class."""
        return min(1.0, 2.0 - self.eta_l)

    @property
    def verdict(self) -> str:
        """FAILED where it does not close, or phi_hat < phi in some window of a problem of the class."""
        if not self.windows.closing_error <= TOLERANCE:
            return FAILED
        if not self.convex:
            return NOT_APPLICABLE
        w = self.windows
        slack = _rounding(w)
        own = w.inner - 0.5 * w.step_size * w.square
        return HOLDS if (own >= self.phi * w.loss - slack).all() else FAILED

    @property
    def label(self) -> str:
        """Problem, nodes and K."""
        return f"{self.problem}, {self.heterogeneity} nodes, K = {self.local_steps}"


@app.command()
def main(
    problem: Annotated[Words, typer.Option(help=f"Of {', '.join(SOLVED)}; default: three.")] = None,
    heterogeneity: Annotated[
        Words, typer.Option(help=f"Of {', '.join(HETEROGENEITIES)}; default: iid,sorted.")
    ] = None,
    local_steps: Annotated[
        Words, typer.Option("--local-steps", "-K", help="K, local steps a round; default: 1,5,20.")
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", "-R", help="R; 200, quick: 50.")] = None,
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="n.")] = 5,
    step_size: Annotated[float, typer.Option(help="eta as a multiple of 1/L.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the problems and of the paths.")] = 0,
    reference: Annotated[
        str, typer.Option(help="z: solution (x*), or end, the last model, as for a network.")
    ] = "solution",
    rows: Annotated[int, typer.Option(help="Windows in a table, at most.")] = 8,
    details: Annotated[bool, typer.Option("--details", help="Print the windows too.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="50 rounds.")] = False,
    version: cli.Version = False,
) -> int:
    """Where the distance to the solution goes: progress, averaging, and noise against both.

    D_0 - D_T = sum C_r + sum [2 eta <g, x - z> - eta^2 ||g||^2] holds on every path. In T1's class
    phi_hat = sum [<g, x - z> - (eta/2) ||g||^2] / sum l is at least min(1, 2 - eta L): the control of what
    python -m deep.energy measures on networks.
    """
    names = numbers.words("problem", problem, SOLVED) if problem else list(DEFAULT)
    levels = numbers.words("heterogeneity", heterogeneity or ["iid,sorted"], HETEROGENEITIES)
    ks = numbers.whole_numbers("K (local steps)", local_steps or ["1,5,20"], 1)
    numbers.choice("reference", reference, ("solution", "end"))
    numbers.whole("rows", rows, 1)
    factor = numbers.real("step size in units of 1/L", step_size, above=0, below=2)
    rounds = (50 if quick else 200) if rounds is None else rounds
    sweep = Sweep(
        problems=tuple(names),
        heterogeneity=tuple(levels),  # type: ignore[arg-type]
        local_steps=tuple(ks),
        rounds=rounds,
        n_nodes=nodes,
        dimension=max(256, 16 * nodes),
        problem_seed=seed,
    )
    sweep.check()
    check_outputs({"--json": json})
    cells: list[Cell] = []
    todo = list(itertools.product(names, levels, ks))
    try:
        with Progress("balances") as progress:
            for done, (name, level, k) in enumerate(todo, 1):
                cells.append(_cell(sweep, name, level, k, factor, reference))
                progress.update(done, len(todo))
    finally:
        # Ctrl-C and SIGTERM too: what is done is kept.
        if json is not None and cells:
            whole = {} if len(cells) == len(todo) else {"interrupted": True}
            written = [_as_json(cell) for cell in cells]
            write_json(json, {**provenance(), **whole, "reference": reference, "cells": written})
    console = cli.console()
    console.print(_summary(cells))
    if details:
        for cell in cells:
            for table in window_tables(cell.label, cell.windows, rows):
                console.print(table)
    console.print(
        "least: the smallest phi_hat of a window; total: phi_total. " + LEGEND,
        width=WIDTH,
        highlight=False,
        markup=False,
    )
    verdicts = [cell.verdict for cell in cells]
    if FAILED in verdicts:
        return cli.FAILED
    return cli.DONE if HOLDS in verdicts else cli.UNDECIDED


#: Two problems of the class and one outside it.
DEFAULT = ("least-squares", "logistic", "sigmoid")


def _cell(
    sweep: Sweep, name: str, level: str, local_steps: int, factor: float, reference: str
) -> Cell:
    problem = make_problem(sweep, name, level)  # type: ignore[arg-type]
    found = energy_balance(
        problem,
        step_size=factor / problem.smoothness,
        local_steps=local_steps,
        rounds=sweep.rounds,
        seeds=[sweep.problem_seed],
        reference=reference,
    )
    windows = found.windows(0, edges_until(sweep.rounds))
    # As far as rounding lets one see: these runs converge to the last digit.
    unseen = np.flatnonzero(_rounding(windows) > _SEEN * windows.loss)
    if len(unseen):
        windows = windows.joined(list(range(max(1, int(unseen[0])) + 1)))
    # T1 compares with a common minimiser; the last model is none.
    convex = name in CONVEX and reference == "solution"
    return Cell(name, level, local_steps, factor, windows, convex)


def _rounding(windows: Windows) -> Array:
    """What x*, which is rounded itself, may take of sum <g, x - x*>, (W,)."""
    lengths = np.sqrt(np.diff(windows.iteration) * windows.square * windows.distance[0])
    return _ROUNDING * lengths


def _summary(cells: list[Cell]) -> Table:
    table = Table(
        title=f"The energy balance of whole runs, eta = {cells[0].eta_l:g}/L, phi = {cells[0].phi:g}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0),
        width=WIDTH,
    )
    table.add_column("problem", overflow="fold", min_width=21)
    for name in ("K", "least", "phi_hat", "total", "averaging", "noise"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", min_width=10)
    for cell in cells:
        whole = cell.windows.whole()
        table.add_row(
            f"{cell.problem}, {cell.heterogeneity}",
            str(cell.local_steps),
            f"{np.nanmin(cell.windows.phi_hat):.3g}",
            f"{whole.phi_hat[0]:.3g}",
            f"{whole.phi_total[0]:.3g}",
            f"{whole.shares['averaging'][0]:.1%}",
            f"{whole.shares['noise'][0]:.1%}",
            cell.verdict,
        )
    return table


def _as_json(cell: Cell) -> dict[str, Any]:
    return {
        "problem": cell.problem,
        "heterogeneity": cell.heterogeneity,
        "local_steps": cell.local_steps,
        "step_size": cell.windows.step_size,
        "eta_L": cell.eta_l,
        "phi": cell.phi,
        "verdict": cell.verdict,
        "closing_error": cell.windows.closing_error,
        "windows": as_rows(cell.windows),
    }


def script() -> NoReturn:
    """The command, as a console script."""
    cli.run(app, "python -m theory.energy")


if __name__ == "__main__":
    script()
