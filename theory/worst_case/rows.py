"""The rows behind ``python -m theory.worst_case``: each cell solved once, simulated, judged and kept.

A finished cell is a small file, written through a rename, named by what was solved; a killed sweep
resumes from them to the same numbers. Closed forms and verdicts are put in anew when a cell is read.
A cell that ran out of time is kept with its limit and tried again only with more time; one that did
not converge is not kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from theory.support.files import remove_stale_parts, write_json
from theory.support.reading import read_text
from theory.support.verdicts import FAILED, HOLDS, UNDECIDED
from theory.theorems.t4_linear import instance_simplex
from theory.worst_case.cells import Cell
from theory.worst_case.closed_forms import bound, instance, sharper_bound, theorem_of
from theory.worst_case.constraints import SolverError, TimeLimitError
from theory.worst_case.extremal import attained, simulated_value
from theory.worst_case.reduction import WorstCase, worst_case

#: Part of a kept cell's name; to be raised when the solver's results change.
FORMAT = 2
#: Not solved: no number, and no statement about the mathematics either.
TIME_LIMIT = "TIME LIMIT"
#: The simulated instance must attain the worst case to this accuracy, in units of L D.
ACCURACY = 1e-6
EXACT, UPPER = "exact", "upper"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell of the table; values in units of L D (of D for the distance), step sizes of 1 / L.

    Attributes:
        theorem: T1, T2, T3, T4, T4' or C1.
        metric, local_steps, rounds, step_size, growth, outer_step: what was solved.
        n: nodes that the instance was simulated with; the worst case is one for all n >= 2.
        kind: EXACT, an explicit problem attains the value; or UPPER, none that does is known, as
            the class can be imposed only at the points that the method visits (T4').
        bound: our theorem's, or None.
        sharper, source: a proved sharper bound, and where its proof is, see
            :func:`theory.worst_case.closed_forms.sharper_bound`.
        instance, instance_name: the best of the known closed-form instances.
        worst_case: the worst case, None if the solver failed; exact or upper as ``kind`` says.
        certified: an upper bound on it from the dual multipliers.
        duality_gap: certified - worst_case.
        attained: the value that the simulator measures on an explicit problem of the class.
        dimension: of that problem.
        ratio: bound / worst_case.
        conditions: interpolation conditions that entered.
        solver: which one converged.
        seconds: to solve; without the simulation.
        verdict: HOLDS; FAILED, with ``why``; TIME_LIMIT where the time ran out first, or UNDECIDED where
            no solver converged.
    """

    theorem: str
    metric: str
    n: int
    local_steps: int
    rounds: int
    step_size: float
    growth: float
    bound: float | None
    sharper: float | None
    source: str | None
    instance: float
    instance_name: str
    kind: str = UPPER
    worst_case: float | None = None
    certified: float | None = None
    duality_gap: float | None = None
    attained: float | None = None
    dimension: int | None = None
    outer_step: float = 1.0
    ratio: float | None = None
    conditions: int | None = None
    solver: str = ""
    seconds: float = 0.0
    verdict: str = HOLDS
    why: str = ""


def solve_cell(cell: Cell, nodes: Sequence[int], time_limit: float | None = None) -> list[Row]:
    """Solve one cell and simulate its instance with every number of nodes.

    Args:
        cell: what to solve.
        nodes: numbers of nodes, each at least 2; replaced by 1 where all f_i are equal.
        time_limit: seconds before giving up.

    Returns:
        One row a number of nodes; a solver that did not converge gives UNDECIDED rows, and one that ran
        out of time TIME_LIMIT rows, both without numbers.
    """
    counts = _counts(cell, nodes)
    begin = time.perf_counter()
    verdict, why = UNDECIDED, ""
    try:
        found = worst_case(cell, time_limit=time_limit)
        return [_row(found, n) for n in counts]
    except TimeLimitError:
        verdict, why = TIME_LIMIT, f"not solved within {time_limit:g} s"
    except SolverError as error:
        why = str(error)
    seconds = time.perf_counter() - begin
    return [Row(**_known(cell, n), seconds=seconds, verdict=verdict, why=why) for n in counts]


def _counts(cell: Cell, nodes: Sequence[int]) -> list[int]:
    return [1] if cell.one_node else list(nodes)


def _known(cell: Cell, n: int) -> dict[str, Any]:
    """The fields that need no solver."""
    sharper = sharper_bound(cell)
    value, name = instance(cell, n)
    return {
        "theorem": theorem_of(cell),
        "metric": cell.metric,
        "n": n,
        "local_steps": cell.local_steps,
        "rounds": cell.rounds,
        "step_size": cell.step_size,
        "growth": cell.growth,
        "outer_step": cell.outer_step,
        "bound": bound(cell),
        "sharper": sharper.value if sharper else None,
        "source": sharper.source if sharper else None,
        "instance": value,
        "instance_name": name,
    }


def _row(found: WorstCase, n: int) -> Row:
    simulated, dimension = _attained(found, n)
    row = Row(
        **_known(found.cell, n),
        worst_case=found.value,
        certified=found.certified,
        duality_gap=found.gap,
        attained=simulated,
        dimension=dimension,
        conditions=found.conditions,
        solver=found.solver,
        seconds=found.seconds,
    )
    return judge(row)


def _attained(found: WorstCase, n: int) -> tuple[float | None, int | None]:
    """What the simulator measures on the worst explicit problem that is known, and its dimension.

    Under A4' the Gram matrices don't make a problem of the class. Two others are: the simplex
    quadratics, and the worst problem under A4, whose f_i all grow.
    """
    cell = found.cell
    if theorem_of(cell) != "T4'":
        return _simulated(found, n)
    best: tuple[float | None, int | None] = (None, None)
    if cell.growth <= (n - 1) / n:
        problem = instance_simplex(cell.rounds, cell.local_steps, n, cell.growth).problem
        best = simulated_value(problem, cell), len(problem.start)
    stricter = replace(cell, growth_of="nodes")
    reach = sharper_bound(stricter)
    if (best[0] or 0) < found.value - ACCURACY and reach and reach.value > found.value - ACCURACY:
        other = _simulated(worst_case(stricter), n)
        best = max(best, other, key=lambda pair: pair[0] or 0.0)
    return best


def _simulated(found: WorstCase, n: int) -> tuple[float | None, int | None]:
    try:
        value, problem = attained(found, n, ACCURACY)
    except RuntimeError:
        return None, None  # judged as not attained
    return value, problem.dimension


def judge(row: Row) -> Row:
    """The row with its kind, ratio, verdict and reasons; without a worst case it is returned as is."""
    if row.worst_case is None or row.certified is None:
        return row
    why = []
    reached = row.attained is not None and abs(row.attained - row.worst_case) <= ACCURACY
    if row.bound is not None and row.worst_case > row.bound + ACCURACY:
        why.append("the worst case exceeds the bound")
    if row.sharper is not None and row.worst_case > row.sharper + ACCURACY:
        why.append(f"the worst case exceeds the sharper bound {row.source}")
    if row.instance > row.certified + ACCURACY:
        why.append("an instance exceeds the worst case")
    if row.attained is not None and row.attained > row.certified + ACCURACY:
        why.append("the simulated instance exceeds the worst case")
    if not reached and row.theorem != "T4'":
        why.append("the simulated instance does not attain the worst case")
    if abs(row.certified - row.worst_case) > ACCURACY:
        why.append(f"the certified gap is {row.certified - row.worst_case:.1e}")
    return replace(
        row,
        kind=EXACT if reached else UPPER,
        ratio=None if row.bound is None else row.bound / row.worst_case,
        verdict=FAILED if why else HOLDS,
        why="; ".join(why),
    )


def run_cells(
    cells: Sequence[Cell],
    nodes: Sequence[int],
    cache: Path | None,
    time_limit: float | None = None,
    report: Callable[[Cell, bool], None] | None = None,
) -> list[Row]:
    """All rows, from the cache where a cell is finished.

    A kept cell that can't be read is solved again, with a line on stderr; what a killed process left
    half-written in the cache is removed.

    Args:
        cells: what to solve.
        nodes: numbers of nodes for the simulated instances.
        cache: folder of finished cells; None keeps nothing.
        time_limit: seconds a cell.
        report: called before each cell (False) and after it (True).
    """
    if cache is not None:
        remove_stale_parts(cache)
    rows: list[Row] = []
    for cell in cells:
        if report is not None:
            report(cell, False)
        path = None if cache is None else cache / f"{_name(cell, nodes)}.json"
        kept = _read(path, cell, nodes, time_limit)
        if kept is None:
            kept = solve_cell(cell, nodes, time_limit)
            if path is not None and all(
                row.worst_case is not None or row.verdict == TIME_LIMIT for row in kept
            ):
                content = {"rows": [asdict(row) for row in kept], "time_limit": time_limit}
                write_json(path, content, special=False)
        rows += kept
        if report is not None:
            report(cell, True)
    return rows


def is_kept(cell: Cell, nodes: Sequence[int], cache: Path | None) -> bool:
    """Whether the cache has a file for the cell."""
    return cache is not None and (cache / f"{_name(cell, nodes)}.json").exists()


def _name(cell: Cell, nodes: Sequence[int]) -> str:
    what = [
        cell.local_steps,
        cell.rounds,
        cell.step_size,
        cell.outer_step,
        cell.metric,
        cell.one_node,
        cell.growth,
        cell.growth_of,
    ]
    key = json.dumps([FORMAT, what, list(nodes)])
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def _read(
    path: Path | None, cell: Cell, nodes: Sequence[int], time_limit: float | None
) -> list[Row] | None:
    """A finished cell; None where there is none that can be read, or where more time is given now."""
    if path is None or not path.exists():
        return None
    try:
        content = json.loads(read_text(path))
        rows = [Row(**row) for row in content["rows"]]
        if [row.n for row in rows] != _counts(cell, nodes):
            raise ValueError("rows are missing")
        given = content.get("time_limit")
        if any(row.worst_case is None for row in rows) and (time_limit or math.inf) > (given or 0):
            return None
        return [judge(replace(row, **_known(cell, row.n))) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        print(f"{path} is damaged: its cell is solved again", file=sys.stderr)
        return None
