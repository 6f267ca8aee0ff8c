"""``python -m theory.worst_case``: the exact worst case of Local SGD beside its bounds.

Exit status: 0 when nothing FAILED, 1 when something did, 2 on bad input or where PEPit is missing.
"""

from __future__ import annotations

import importlib.util
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from theory.support import command as cli
from theory.support.errors import UserError
from theory.support.files import write_json
from theory.support.provenance import provenance
from theory.worst_case import tables as pep_tables
from theory.worst_case.cells import (
    FAILED,
    HOLDS,
    TIME_LIMIT,
    Row,
    run_cells,
    schedules,
    standard_grid,
)
from theory.worst_case.findings import Finding, TunedStep, best_step_sizes, findings, tuned_steps
from theory.worst_case.many_local_steps import LimitRow, SpiralRow, limit_rows, spiral_row
from theory.worst_case.reduction import METRICS, Schedule, worst_case
from theory.worst_case.sdp import SolverError

app = typer.Typer(add_completion=False, rich_markup_mode=None)
CHOICES = (*METRICS, "average_global")
#: Full, unreduced problems that PEPit solves beside the reduced ones: n, K, R, eta L, metric.
ROUTES = (
    (2, 3, 1, 1.0, "last"),
    (3, 3, 1, 1.0, "last"),
    (4, 3, 1, 1.0, "last"),
    (2, 3, 2, 1.0, "last"),
    (3, 3, 2, 1.0, "best"),
    (3, 2, 2, 0.5, "average_sync"),
    (2, 2, 2, 1.5, "average_local"),
    (4, 3, 2, 1.0, "last"),
    (2, 4, 3, 1.0, "last"),
)
QUICK_ROUTES = ROUTES[:4]
MISSING = "PEPit is not installed: pip install '.[pep]', or pass --no-pepit for the built-in solver"


@dataclass(frozen=True)
class Route:
    """One problem solved twice: PEPit over all nodes, and the reduced problem."""

    n: int
    local_steps: int
    rounds: int
    step_size: float
    metric: str
    pepit: float | None
    reduced: float | None
    theoretical: float | None
    pepit_seconds: float
    reduced_seconds: float
    verdict: str
    why: str = ""


def compare_routes(problem: tuple[int, int, int, float, str]) -> Route:
    """Solve by PEPit with CLARABEL and by the reduced problem; they must agree to 1e-6."""
    from theory.worst_case.pepit_example import wc_local_sgd

    n, k, rounds, eta, metric = problem
    begin = time.perf_counter()
    pepit, theoretical, why = None, None, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pepit, theoretical = wc_local_sgd(
                1.0, eta, n, k, rounds, metric, solver="CLARABEL", verbose=-1
            )
    except RuntimeError as error:
        why = f"PEPit: {error}"
    middle = time.perf_counter()
    reduced = None
    try:
        reduced = worst_case(Schedule(k, rounds, eta, metric, one_node=n == 1)).value
    except SolverError as error:
        why = f"{why}; reduced: {error}".lstrip("; ")
    if pepit is not None and reduced is not None and abs(pepit - reduced) > 1e-6:
        why = "the two routes differ"
    return Route(
        n,
        k,
        rounds,
        eta,
        metric,
        pepit,
        reduced,
        theoretical,
        middle - begin,
        time.perf_counter() - middle,
        FAILED if why else HOLDS,
        why,
    )


@app.command()
def main(
    local_steps: Annotated[
        str | None, typer.Option("--local-steps", "-K", help="K, as 1,2,4; default: standard grid")
    ] = None,
    rounds: Annotated[
        str | None, typer.Option("--rounds", "-R", help="R, as 1,2,4; default: standard grid")
    ] = None,
    step_size: Annotated[
        str | None,
        typer.Option(help="eta in units of 1/L, in (0, 2), as 0.5,1; default: standard grid"),
    ] = None,
    nodes: Annotated[
        str,
        typer.Option(
            "--nodes",
            "-n",
            help="n of the simulated worst problems, as 2,3. The worst "
            "case itself is the same for every n >= 2",
        ),
    ] = "2",
    metric: Annotated[str, typer.Option(help=f"of {', '.join(CHOICES)}; or all")] = "all",
    growth: Annotated[float, typer.Option(help="mu / L of T4, in (0, 1)")] = 0.1,
    quick: Annotated[bool, typer.Option("--quick", help="a small grid, under 30 s")] = False,
    pepit: Annotated[bool, typer.Option(help="check small cells by PEPit (extra pep)")] = True,
    time_limit: Annotated[float, typer.Option(help="seconds a cell, then TIME LIMIT")] = 60.0,
    cache: Annotated[
        Path, typer.Option(help="folder of finished cells; a killed run goes on from them")
    ] = Path("runs/worst_case"),
    no_cache: Annotated[bool, typer.Option("--no-cache", help="solve everything again")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all numbers here")] = None,
    every_cell: Annotated[
        bool | None,
        typer.Option(
            "--cells/--no-cells",
            help="print a line a cell; the standard grid, with its "
            "thousand, does so only when asked",
        ),
    ] = None,
) -> int:
    """Exact worst cases of deterministic Local SGD over all smooth convex problems with a common
    minimiser, beside the bounds of T1-T4 and the known tight instances.

    Without -K, -R and --step-size: the standard grid, K and R up to 4 at seven step sizes, K up to 12
    and R up to 6 at three, and K up to 128 for few rounds. Values are in L D, D = ||x_0 - x*||^2."""
    counts = integers("nodes", nodes, 2)
    metrics = metric_names(metric)
    if not 0 < growth < 1:
        raise UserError(f"growth is {growth:g} L, allowed: above 0 and below L")
    if not time_limit > 0:
        raise UserError(f"time-limit is {time_limit:g}, allowed: above 0")
    if json_file is not None and json_file.is_dir():
        raise UserError(f"can't write {json_file}: it is a folder")
    cells = chosen_cells(local_steps, rounds, step_size, metrics, growth, quick)
    if pepit and not (importlib.util.find_spec("PEPit") and importlib.util.find_spec("clarabel")):
        raise UserError(MISSING)
    console = cli.console()
    problems = (QUICK_ROUTES if quick else ROUTES) if pepit else ()
    begin = time.perf_counter()
    rows, routes = _solve(cells, counts, None if no_cache else cache, time_limit, problems)
    standard = not quick and local_steps is None and rounds is None and step_size is None
    limits, spirals = _limits(standard) if {"last", "best"} & set(metrics) else ([], [])
    folder = None if no_cache else cache

    def solve(cell: Schedule) -> float:
        value = run_cells([cell], counts, folder)[0].worst_case
        if value is None:
            raise SolverError(f"the best step size needs {cell}, which did not converge")
        return value

    tuned = tuned_steps(rows, solve) if standard and "last" in metrics else []
    found = findings(rows, routes, limits, spirals, tuned)
    shown = not standard if every_cell is None else every_cell
    tables = pep_tables.all_tables(rows, cells=shown)
    tables += [pep_tables.route_table(routes)] if routes else []
    tables += [pep_tables.limit_table(limits)] if limits else []
    tables += [pep_tables.step_table(tuned)] if tuned else []
    tables += [pep_tables.finding_table(found)] if found else []
    for table in tables:
        console.print(table)
        console.print()
    if json_file is not None:
        write_results(json_file, rows, routes, limits, spirals, tuned, found)
        console.print(f"Wrote {json_file}")
    for line in pep_tables.reasons([*rows, *routes]):
        console.print(line, style="bold red" if line.startswith(FAILED) else "yellow")
    verdicts = [r.verdict for r in rows] + [r.verdict for r in routes]
    failed, unsolved = verdicts.count(FAILED), verdicts.count(TIME_LIMIT)
    console.print(
        f"{len(rows)} worst cases, {len(routes)} solved twice, {failed} FAILED, {unsolved} not solved in "
        f"time.  {time.perf_counter() - begin:.0f} s.",
        style="bold red" if failed else "bold green",
    )
    return 1 if failed else 0


def chosen_cells(
    local_steps: str | None,
    rounds: str | None,
    step_size: str | None,
    metrics: Sequence[str],
    growth: float,
    quick: bool,
) -> list[Schedule]:
    """The grid that was asked for; what is not said is taken from the quick or the standard grid.

    Raises:
        UserError: an option that is malformed or outside its range.
    """
    if not quick and local_steps is None and rounds is None and step_size is None:
        return [c for c in standard_grid(growth) if metric_of(c) in metrics]
    ks = integers("local-steps", local_steps or ("1,2,3" if quick else "1,2,3,4"), 1)
    rs = integers("rounds", rounds or ("1,2" if quick else "1,2,3,4"), 1)
    etas = step_sizes(step_size or ("0.5,1,1.5" if quick else "0.25,0.5,0.75,1,1.25,1.5,1.75"))
    cells = schedules(metrics, ks, rs, etas, growth)
    if not cells:
        raise UserError("step-size has nothing up to 1 / L, which is where T4 (distance) holds")
    return cells


def metric_of(cell: Schedule) -> str:
    """The cell's name in CHOICES."""
    return "average_global" if cell.one_node else cell.metric


def _limits(standard: bool) -> tuple[list[LimitRow], list[SpiralRow]]:
    """K to infinity: upper values, and the explicit problem, with more steps beside the standard grid."""
    if not standard:
        return limit_rows((1, 2, 4)), [spiral_row(4, 0.1, 0.003, 300)]
    spirals = [spiral_row(4, 0.1, 0.003, 1000), spiral_row(6, 0.1, 0.003, 4000)]
    return limit_rows(), spirals


def _solve(
    cells: Sequence[Schedule],
    nodes: Sequence[int],
    cache: Path | None,
    time_limit: float,
    problems: Sequence[tuple[int, int, int, float, str]],
) -> tuple[list[Row], list[Route]]:
    """The sweep, then the comparison, under one progress bar weighted by the cost of the cells."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        costs = [c.points**3 for c in cells]
        extra = max(costs)
        task = progress.add_task("", total=sum(costs) + extra * len(problems))
        done = 0

        def report(cell: Schedule) -> None:
            nonlocal done
            progress.update(
                task,
                completed=sum(costs[:done]),
                description=f"{done + 1}/{len(cells)} {metric_of(cell)} K={cell.local_steps} "
                f"R={cell.rounds} eta={cell.step_size:g}/L",
            )
            done += 1

        rows = run_cells(cells, nodes, cache, time_limit, report)
        progress.update(task, completed=sum(costs))
        routes = []
        for problem in problems:
            progress.update(task, description=f"PEPit n={problem[0]} K={problem[1]} R={problem[2]}")
            routes.append(compare_routes(problem))
            progress.advance(task, extra)
    return rows, routes


def write_results(
    path: Path,
    rows: Sequence[Row],
    routes: Sequence[Route],
    limits: Sequence[LimitRow] = (),
    spirals: Sequence[SpiralRow] = (),
    tuned: Sequence[TunedStep] = (),
    found: Sequence[Finding] = (),
) -> None:
    """The JSON file: where it came from, then "rows" (pep_sweep.Row), "routes" (Route), "limits" and
    "spirals" (pep_limit), "tuned_steps", "findings" and "best_step_sizes" (pep_findings)."""
    header = provenance()
    for package in ("PEPit", "cvxpy", "clarabel"):
        if importlib.util.find_spec(package):
            header["versions"][package] = metadata.version(package)
    content = {
        **header,
        "data": "worst cases of deterministic Local SGD, all smooth convex f_i with a common x*",
        "units": "values in L D (D for the distance), step sizes in 1 / L; see theory/worst_case/cells.py",
        "rows": [asdict(row) for row in rows],
        "routes": [asdict(route) for route in routes],
        "limits": [asdict(row) for row in limits],
        "spirals": [asdict(row) for row in spirals],
        "tuned_steps": [asdict(step) for step in tuned],
        "findings": [asdict(finding) for finding in found],
        "best_step_sizes": best_step_sizes(rows),
    }
    write_json(path, content)


def integers(name: str, text: str, least: int) -> list[int]:
    """Comma-separated integers.

    Raises:
        UserError: not integers, or below ``least``.
    """
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UserError(f"{name} is {text!r}, allowed: integers separated by commas") from None
    if values[0] < least:
        raise UserError(f"{name} has {values[0]}, allowed: at least {least}")
    return values


def step_sizes(text: str) -> list[float]:
    """Comma-separated multiples of 1 / L in (0, 2).

    Raises:
        UserError: not numbers, or outside the range.
    """
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise UserError(f"step-size is {text!r}, allowed: numbers separated by commas") from None
    for value in values:
        if not (math.isfinite(value) and 0 < value < 2):
            raise UserError(f"step-size has {value:g} / L, allowed: above 0 and below 2 / L")
    return values


def metric_names(text: str) -> list[str]:
    """ "all", or comma-separated names of CHOICES.

    Raises:
        UserError: an unknown name.
    """
    names = list(CHOICES) if text == "all" else text.split(",")
    for name in names:
        if name not in CHOICES:
            raise UserError(f"metric is {name!r}, allowed: all, {', '.join(CHOICES)}")
    return names


def script() -> NoReturn:
    """The command, as a console script."""
    cli.one_blas_thread()
    cli.run(app, "python -m theory.worst_case")


if __name__ == "__main__":
    script()
