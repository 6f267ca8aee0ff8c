"""``python -m theory.worst_case``: the exact worst case of Local SGD beside its bounds.

Exit status: 0 when nothing FAILED, 1 when something did, 2 on bad input or where PEPit is missing, 3 when
no cell was solved in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.table import Table

from theory.support import command as cli
from theory.support import numbers
from theory.support.errors import UserError
from theory.support.files import check_folder, check_outputs, write_text
from theory.support.progress import Progress
from theory.support.verdicts import UNDECIDED
from theory.worst_case import outer_steps, record, routes, tables
from theory.worst_case.cells import CHOICES, Cell, make_cells, standard_grid
from theory.worst_case.constraints import SolverError
from theory.worst_case.costs import check_memory, seconds, seconds_left
from theory.worst_case.document import document
from theory.worst_case.enclosures import read_enclosures
from theory.worst_case.findings import findings
from theory.worst_case.many_local_steps import LimitRow, SpiralRow, limit_rows, spiral_row
from theory.worst_case.outer_findings import outer_findings
from theory.worst_case.record import Record
from theory.worst_case.routes import Route, compare_routes
from theory.worst_case.rows import FAILED, TIME_LIMIT, Row, is_kept, run_cells
from theory.worst_case.step_sizes import tuned_steps

app = cli.make_app()
#: The worst cases are of any n; many nodes only make the explicit problems large.
MOST_NODES = 100
GROWTH = 0.1
Numbers = list[str] | None
QUICK = {"local_steps": ["1,2,3"], "rounds": ["1,2"], "step_size": ["0.5,1,1.5"]}
FULL = {
    "local_steps": ["1,2,3,4"],
    "rounds": ["1,2,3,4"],
    "step_size": ["0.25,0.5,0.75,1,1.25,1.5,1.75"],
}


@app.command()
def main(
    context: typer.Context,
    local_steps: Annotated[
        Numbers, typer.Option("--local-steps", "-K", help="K, as -K 1,2,4; default: standard grid")
    ] = None,
    rounds: Annotated[
        Numbers, typer.Option("--rounds", "-R", help="R, as -R 1,2,4; default: standard grid")
    ] = None,
    step_size: Annotated[
        Numbers,
        typer.Option(help="eta in multiples of 1/L, in (0, 2), as 0.5,1; default: standard grid"),
    ] = None,
    nodes: Annotated[
        Numbers,
        typer.Option(
            "--nodes",
            "-n",
            help="n of the simulated worst problems, as 2,3; default 2. The worst case itself is the "
            "same for every n >= 2",
        ),
    ] = None,
    metric: Annotated[
        Numbers, typer.Option(help=f"of {', '.join(CHOICES)}; default: all of them")
    ] = None,
    growth: Annotated[float, typer.Option(help="mu / L of T4, in (0, 1)")] = GROWTH,
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
            help="print a line a cell; the standard grid, with its thousand, does so only when asked",
        ),
    ] = None,
    outer: Annotated[
        bool,
        typer.Option(
            "--outer-steps",
            help="instead of the grid: the best fixed step size and outer step for K = 1..8, R = 1..4 "
            "(-K and -R choose others), and maps over both",
        ),
    ] = False,
    findings_file: Annotated[
        Path | None,
        typer.Option(
            "--write-findings",
            help="instead of solving: write the page of findings from theory/results to this file",
        ),
    ] = None,
    version: cli.Version = False,
) -> int:
    """Exact worst cases of deterministic Local SGD over all smooth convex problems with a common
    minimiser, beside the bounds of T1-T4 and the known tight instances.

    Without -K, -R and --step-size: the standard grid, K and R up to 4 at seven step sizes, K up to 12
    and R up to 6 at three, and K up to 128 for few rounds. Values are in L D, D = ||x_0 - x*||^2."""
    if findings_file is not None:
        cli.refuse_unused(context, "--write-findings", {"findings_file"})
    if outer:
        kept = {"outer", "local_steps", "rounds", "cache", "no_cache", "json_file"}
        cli.refuse_unused(context, "--outer-steps", kept)
    if no_cache:
        cli.refuse_unused(context, "--no-cache", unused={"cache"})
    folder = None if no_cache or findings_file is not None else cache
    if folder is not None:
        # First, as it may be made where another output is asked for.
        check_folder("--cache", folder)
    check_outputs({"--json": json_file, "--write-findings": findings_file})
    if findings_file is not None:
        return write_findings(findings_file)
    if outer:
        return _outer_steps(local_steps, rounds, folder, json_file)
    counts = numbers.whole_numbers("--nodes", nodes or "2", 2, MOST_NODES)
    metrics = numbers.words("--metric", metric, CHOICES) if metric else list(CHOICES)
    numbers.real("--growth", growth, least=1e-9, most=1 - 1e-6)
    if growth != GROWTH and "distance" not in metrics:
        raise UserError(f"--growth is {growth:g}, allowed with the metric distance only")
    numbers.real("--time-limit", time_limit, above=0)
    asked = {"local_steps": local_steps, "rounds": rounds, "step_size": step_size}
    cells = chosen_cells(asked, metrics, growth, quick)
    check_memory(cells)
    if pepit and not routes.installed():
        raise UserError(routes.MISSING)
    problems = (routes.QUICK_ROUTES if quick else routes.ROUTES) if pepit else ()
    standard = not quick and not any(asked.values())
    begin = time.perf_counter()
    found = _solve(cells, metrics, counts, folder, time_limit, problems, standard)
    console = cli.console()
    for each in _tables(found, not standard if every_cell is None else every_cell):
        console.print(each)
        console.print()
    if json_file is not None:
        record.write_record(json_file, found)
        console.print(f"Wrote {json_file}")
    for line in tables.reasons([*found.rows, *found.routes]):
        console.print(line, style="bold red" if line.startswith(FAILED) else "yellow")
    verdicts = [r.verdict for r in found.rows] + [r.verdict for r in found.routes]
    failed = verdicts.count(FAILED)
    late = verdicts.count(TIME_LIMIT) + verdicts.count(UNDECIDED)
    console.print(
        f"{len(found.rows)} worst cases, {len(found.routes)} solved twice, {failed} FAILED, {late} not "
        f"solved.  {time.perf_counter() - begin:.0f} s.",
        style="bold red" if failed else "bold green",
    )
    if failed:
        return cli.FAILED
    return cli.DONE if record.solved(found.rows) else cli.UNDECIDED


def chosen_cells(
    asked: dict[str, Numbers], metrics: Sequence[str], growth: float, quick: bool
) -> list[Cell]:
    """The grid that was asked for; what is not said is taken from the quick or the standard grid.

    Raises:
        UserError: an option that is malformed or outside its range.
    """
    if not quick and not any(asked.values()):
        return [c for c in standard_grid(growth) if c.name in metrics]
    texts = {name: asked[name] or (QUICK if quick else FULL)[name] for name in asked}
    ks = numbers.whole_numbers("--local-steps", texts["local_steps"], 1)
    rs = numbers.whole_numbers("--rounds", texts["rounds"], 1)
    # Closer to the ends double precision does not solve them.
    etas = numbers.real_numbers("--step-size", texts["step_size"], least=1e-6, most=1.999999)
    cells = make_cells(metrics, ks, rs, etas, growth)
    if not cells:
        raise UserError("--step-size has nothing up to 1 / L, which is where T4 (distance) holds")
    return cells


def _solve(
    cells: Sequence[Cell],
    metrics: Sequence[str],
    nodes: Sequence[int],
    cache: Path | None,
    time_limit: float,
    problems: Sequence[routes.Problem],
    standard: bool,
) -> Record:
    """The sweep, then the comparison, under one progress bar; the findings of both."""
    rows, compared = _sweep(cells, nodes, cache, time_limit, problems)
    limits, spirals = _limits(standard) if {"last", "best"} & set(metrics) else ([], [])

    def solve(cell: Cell) -> float:
        value = run_cells([cell], nodes, cache)[0].worst_case
        if value is None:
            raise SolverError(f"the best step size needs {cell}, which did not converge")
        return value

    tuned = tuned_steps(rows, solve) if standard and "last" in metrics else []
    return Record(
        rows=rows,
        routes=compared,
        limits=limits,
        spirals=spirals,
        tuned=tuned,
        findings=findings(rows, compared, limits, spirals, tuned),
        time_limit=time_limit,
    )


def _sweep(
    cells: Sequence[Cell],
    nodes: Sequence[int],
    cache: Path | None,
    time_limit: float,
    problems: Sequence[routes.Problem],
) -> tuple[list[Row], list[Route]]:
    kept = {cell for cell in cells if is_kept(cell, nodes, cache)}
    extra = 1.0
    total = sum(seconds(c) for c in cells if c not in kept) + extra * len(problems)
    begin, done = time.perf_counter(), 0.0
    with Progress("worst cases") as progress:

        def say(state: str) -> None:
            left = seconds_left(done, total - done, time.perf_counter() - begin)
            progress.update(done, total, state, seconds_left=left)

        def report(cell: Cell, finished: bool) -> None:
            nonlocal done
            if not finished:
                name = f"{cell.name} K={cell.local_steps} R={cell.rounds} eta={cell.step_size:g}/L"
                say(f"{cells.index(cell) + 1} of {len(cells)}, {name}")
            elif cell not in kept:
                done += seconds(cell)

        rows = run_cells(cells, nodes, cache, time_limit, report)
        compared = []
        for problem in problems:
            say(f"PEPit n={problem[0]} K={problem[1]} R={problem[2]}")
            compared.append(compare_routes(problem))
            done += extra
    return rows, compared


def _limits(standard: bool) -> tuple[list[LimitRow], list[SpiralRow]]:
    """K to infinity: upper values, and the explicit problem, with more steps beside the standard grid."""
    if not standard:
        return limit_rows((1, 2, 4)), [spiral_row(4, 0.1, 0.003, 300)]
    spirals = [spiral_row(4, 0.1, 0.003, 1000), spiral_row(6, 0.1, 0.003, 4000)]
    return limit_rows(), spirals


def _tables(found: Record, cells: bool) -> list[Table]:
    optional: list[tuple[Sequence[object], Callable[[], Table]]] = [
        (found.routes, lambda: tables.route_table(found.routes)),
        (found.limits, lambda: tables.limit_table(found.limits)),
        (found.tuned, lambda: tables.step_table(found.tuned)),
        (found.findings, lambda: tables.finding_table(found.findings)),
    ]
    return [*tables.all_tables(found.rows, cells), *(make() for rows, make in optional if rows)]


def _outer_steps(
    local_steps: Numbers, rounds: Numbers, cache: Path | None, json_file: Path | None
) -> int:
    """The sweep over outer steps; the maps belong to its own grid."""
    ks = numbers.whole_numbers("--local-steps", local_steps, 1) if local_steps else None
    rs = numbers.whole_numbers("--rounds", rounds, 1) if rounds else None
    own = ks is None and rs is None
    ks, rs = ks or list(outer_steps.LOCAL_STEPS), sorted(rs or outer_steps.ROUNDS)
    check_memory([Cell(local_steps=max(ks), rounds=max(rs), step_size=1.0)])
    found = outer_steps.sweep(cache, ks, rs, maps=outer_steps.MAPS if own else ())
    console = cli.console()
    console.print(tables.pair_table(found.pairs))
    console.print()
    console.print(tables.finding_table(outer_findings(found)))
    if json_file is not None:
        record.write_outer_steps(json_file, found)
        console.print(f"Wrote {json_file}")
    return cli.FAILED if any(f.agrees is False for f in outer_findings(found)) else cli.DONE


def write_findings(path: Path) -> int:
    """The page of findings from the committed results.

    Raises:
        UserError: a result is missing or can't be read.
    """
    outer = record.read_outer_steps() if record.OUTER_RECORD.exists() else None
    page = document(record.read_record(), outer, read_enclosures(), record.read_solvers())
    write_text(path, page)
    print(f"Wrote {path}")
    return cli.DONE


def script() -> NoReturn:
    """The command, as a console script."""
    cli.one_blas_thread()
    cli.run(app, "python -m theory.worst_case")


if __name__ == "__main__":
    script()
