"""The cells behind ``python -m theory.worst_case``, each solved once and kept.

A finished cell is a small file, written through a rename, named by what was solved; a killed sweep
resumes from them to the same numbers. Closed forms and verdicts are put in anew when a cell is read.
A cell that ran out of time is kept with its limit and tried again only with more time; one that did
not converge is not kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from theory.support.files import write_json
from theory.support.verdicts import FAILED, HOLDS
from theory.worst_case.closed_forms import bound, instance, sharper_bound, theorem_of
from theory.worst_case.extremal import attained
from theory.worst_case.reduction import Schedule, WorstCase, worst_case
from theory.worst_case.sdp import SolverError, TimeLimitError

#: Part of a kept cell's name; to be raised when the solver's results change.
FORMAT = 1
#: Not solved: no number, and no statement about the mathematics either.
TIME_LIMIT = "TIME LIMIT"
#: The simulated instance must attain the worst case to this accuracy, in units of L D.
ACCURACY = 1e-6


@dataclass(frozen=True)
class Row:
    """One cell of the table; values in units of L D (of D for the distance), step sizes of 1 / L.

    Attributes:
        theorem: T1, T2, T3, T4, T4' or C1.
        metric, local_steps, rounds, step_size, growth: what was solved.
        n: nodes that the instance was simulated with; the worst case is one for all n >= 2.
        kind: "tight", exact over the class; or "upper", where the class can be imposed only at the
            points that the method visits (T4').
        bound: our theorem's, or None.
        sharper, standing: a sharper bound, "proved" or "conjectured".
        instance, instance_name: the best of the known closed-form instances.
        worst_case: the exact worst case, None if the solver failed.
        certified: an upper bound on it from the dual multipliers.
        duality_gap: certified - worst_case.
        attained: the value that the simulator measures on the explicit worst-case problem.
        dimension: of that problem.
        ratio: bound / worst_case.
        conditions: interpolation conditions that entered.
        seconds: to solve; without the simulation.
        verdict: HOLDS; FAILED, with ``why``; or TIME_LIMIT where the time ran out first.
    """

    theorem: str
    metric: str
    n: int
    local_steps: int
    rounds: int
    step_size: float
    growth: float
    kind: str
    bound: float | None
    sharper: float | None
    standing: str | None
    instance: float
    instance_name: str
    worst_case: float | None = None
    certified: float | None = None
    duality_gap: float | None = None
    attained: float | None = None
    dimension: int | None = None
    ratio: float | None = None
    conditions: int | None = None
    seconds: float = 0.0
    verdict: str = HOLDS
    why: str = ""


def solve_cell(
    schedule: Schedule, nodes: Sequence[int], time_limit: float | None = None
) -> list[Row]:
    """Solve one schedule and simulate its instance with every number of nodes.

    Args:
        schedule: what to solve.
        nodes: numbers of nodes, each at least 2; replaced by 1 where all f_i are equal.
        time_limit: seconds before giving up.

    Returns:
        One row a number of nodes; a solver that did not converge gives FAILED rows, and one that ran
        out of time TIME_LIMIT rows, both without numbers.
    """
    counts = [1] if schedule.one_node else list(nodes)
    begin = time.perf_counter()
    verdict, why = FAILED, ""
    try:
        found = worst_case(schedule, time_limit=time_limit)
    except TimeLimitError:
        verdict, why = TIME_LIMIT, f"not solved within {time_limit:g} s"
    except SolverError as error:
        why = str(error)
    else:
        return [_row(found, n) for n in counts]
    seconds = time.perf_counter() - begin
    return [Row(**_known(schedule, n), seconds=seconds, verdict=verdict, why=why) for n in counts]


def _known(schedule: Schedule, n: int) -> dict[str, Any]:
    """The fields that need no solver."""
    sharper = sharper_bound(schedule)
    value, name = instance(schedule)
    return {
        "theorem": theorem_of(schedule),
        "metric": schedule.metric,
        "n": n,
        "local_steps": schedule.local_steps,
        "rounds": schedule.rounds,
        "step_size": schedule.step_size,
        "growth": schedule.growth,
        "kind": "upper" if schedule.growth and schedule.growth_of == "mean" else "tight",
        "bound": bound(schedule),
        "sharper": sharper[0] if sharper else None,
        "standing": sharper[1] if sharper else None,
        "instance": value,
        "instance_name": name,
    }


def _row(found: WorstCase, n: int) -> Row:
    known = _known(found.schedule, n)
    simulated, dimension = None, None
    if known["kind"] == "tight":
        try:
            simulated, problem = attained(found, n, ACCURACY)
            dimension = problem.dimension
        except RuntimeError:
            pass  # judged as not attained
    row = Row(
        **known,
        worst_case=found.value,
        certified=found.certified,
        duality_gap=found.gap,
        attained=simulated,
        dimension=dimension,
        conditions=found.conditions,
        seconds=found.seconds,
    )
    return judge(row)


def judge(row: Row) -> Row:
    """The row with its ratio, verdict and reasons; one without a worst case is returned as it is."""
    if row.worst_case is None or row.certified is None:
        return row
    why = []
    if row.bound is not None and row.worst_case > row.bound + ACCURACY:
        why.append("the worst case exceeds the bound")
    if row.sharper is not None and row.worst_case > row.sharper + ACCURACY:
        why.append(f"the worst case exceeds the {row.standing} sharper bound")
    if row.instance > row.certified + ACCURACY:
        why.append("an instance exceeds the worst case")
    if row.kind == "tight" and (
        row.attained is None or abs(row.attained - row.worst_case) > ACCURACY
    ):
        why.append("the simulated instance does not attain the worst case")
    if abs(row.certified - row.worst_case) > ACCURACY:
        why.append(f"the certified gap is {row.certified - row.worst_case:.1e}")
    return replace(
        row,
        ratio=None if row.bound is None else row.bound / row.worst_case,
        verdict=FAILED if why else HOLDS,
        why="; ".join(why),
    )


def schedules(
    metrics: Iterable[str],
    local_steps: Iterable[int],
    rounds: Iterable[int],
    step_sizes: Iterable[float],
    growth: float,
) -> list[Schedule]:
    """The cells of a grid, cheapest first.

    Args:
        metrics: names of METRICS, or "average_global" for T3 with all f_i equal (one cell for
            every T = K R); "distance" gives T4 (A4) and T4' (A4') and needs eta L <= 1.
        local_steps, rounds, step_sizes: K, R, eta L.
        growth: mu / L of T4.
    """
    cells = set()
    grid = [(k, r, eta) for k in local_steps for r in rounds for eta in step_sizes]
    for metric in metrics:
        for k, r, eta in grid:
            if metric == "average_global":
                cells.add(Schedule(k * r, 1, eta, "average_local", one_node=True))
            elif metric == "distance":
                if eta <= 1:
                    for of in ("nodes", "mean"):
                        cells.add(Schedule(k, r, eta, "distance", growth=growth, growth_of=of))
            else:
                cells.add(Schedule(k, r, eta, metric))
    return cheapest_first(cells)


#: The standard grid of C1 beyond K = 12: (K, R) at eta = 1 / L, last and best iterate.
LONG_ROUNDS = (
    *((k, 1) for k in (16, 24, 32, 48, 64, 96, 128)),
    *((k, 2) for k in (16, 24, 32)),
    *((k, 3) for k in (16, 24)),
    (16, 4),
)


def standard_grid(growth: float) -> list[Schedule]:
    """What the command solves when no grid is given, cheapest first.

    K and R up to 4 at seven step sizes; K up to 12 and R up to 6 at three; and LONG_ROUNDS.

    Args:
        growth: mu / L of T4.
    """
    fine = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    metrics = ("last", "best", "average_sync", "average_local", "average_global", "distance")
    cells = schedules(metrics, (1, 2, 3, 4), (1, 2, 3, 4), fine, growth)
    cells += schedules(metrics, (1, 2, 3, 4, 6, 8, 12), range(1, 7), (0.5, 1.0, 1.5), growth)
    cells += [Schedule(k, r, 1.0, m) for k, r in LONG_ROUNDS for m in ("last", "best")]
    return cheapest_first(cells)


def cheapest_first(cells: Iterable[Schedule]) -> list[Schedule]:
    """Each cell once."""
    return sorted(
        set(cells), key=lambda c: (c.points, c.metric, c.local_steps, c.step_size, c.growth_of)
    )


def run_cells(
    cells: Sequence[Schedule],
    nodes: Sequence[int],
    cache: Path | None,
    time_limit: float | None = None,
    report: Callable[[Schedule], None] | None = None,
) -> list[Row]:
    """All rows, from the cache where a cell is finished.

    Args:
        cells: what to solve.
        nodes: numbers of nodes for the simulated instances.
        cache: folder of finished cells; None keeps nothing.
        time_limit: seconds a cell.
        report: called before each cell.
    """
    rows: list[Row] = []
    for cell in cells:
        if report is not None:
            report(cell)
        path = None if cache is None else cache / f"{_name(cell, nodes)}.json"
        kept = _read(path, cell, time_limit)
        if kept is None:
            kept = solve_cell(cell, nodes, time_limit)
            if path is not None and all(
                row.worst_case is not None or row.verdict == TIME_LIMIT for row in kept
            ):
                content = {"rows": [asdict(row) for row in kept], "time_limit": time_limit}
                write_json(path, content)
        rows += kept
    return rows


def _name(cell: Schedule, nodes: Sequence[int]) -> str:
    key = json.dumps([FORMAT, asdict(cell), list(nodes)], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def _read(path: Path | None, cell: Schedule, time_limit: float | None) -> list[Row] | None:
    """A finished cell; None where there is none that can be read, or where more time is given now."""
    if path is None or not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        rows = [Row(**row) for row in content["rows"]]
        given = content.get("time_limit")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if any(row.worst_case is None for row in rows) and (time_limit or math.inf) > (given or 0):
        return None
    return [judge(replace(row, **_known(cell, row.n))) for row in rows]
