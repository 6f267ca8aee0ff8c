"""Fixed outer steps: for each K and R the step size and outer step with the least worst case.

``python -m theory.worst_case --outer-steps`` writes the numbers; the reduction holds for any outer step
beta (:mod:`theory.worst_case.reduction`). What the search does, fixed before its results were seen:

* last and best iterate, K = 1..8, R = 1..4; at K = 1 only beta eta counts, and the best is a closed form;
* up to GRID_POINTS points the grid ETAS x BETAS gives the start, else the best pair of the same K at R - 1;
  for the best iterate the best pair for the last one;
* from there Nelder and Mead's simplex method, to TOLERANCE in eta and beta; so a best pair is the best one
  found, its value certified, and that no other pair is better is observed;
* beta = 1 has its own best eta, by a search between its neighbours on ETAS;
* maps over MAP_ETAS x MAP_BETAS for MAPS, last iterate.

Every value is kept as it is found, so a killed run goes on to the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from theory.support.files import write_json
from theory.support.progress import Progress
from theory.support.reading import read_text
from theory.theorems.t2_synchronised import least_last_loss
from theory.worst_case.cells import Cell
from theory.worst_case.closed_forms import crossing_floor
from theory.worst_case.costs import seconds, seconds_left
from theory.worst_case.reduction import worst_case
from theory.worst_case.step_sizes import tuned_one_step, tuned_one_step_rounds

METRICS = ("last", "best")
LOCAL_STEPS, ROUNDS = tuple(range(1, 9)), (1, 2, 3, 4)
ETAS = (0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.2, 1.4)
BETAS = (0.8, 1.0, 1.2, 1.35, 1.5, 1.75)
GRID_POINTS = 13
TOLERANCE = 1e-3
MAPS = ((2, 1), (4, 2), (8, 2))
MAP_ETAS = tuple(round(0.1 * i, 10) for i in range(1, 20))
MAP_BETAS = tuple(round(0.5 + 0.1 * i, 10) for i in range(21))
#: Solves that a search is expected to take, for the forecast.
SEARCH, PLAIN_SEARCH = 45, 14
#: Part of a kept value's name; to be raised when the solver's results change.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class BestPair:
    """The pair (eta, beta) with the least worst case that was found, in units of L D.

    Attributes:
        metric, local_steps, rounds: "last" or "best", K, R.
        step_size, outer_step: eta L, beta.
        value, certified: the worst case there, and the dual's bound on it.
        plain_step_size, plain_value: the same with beta = 1 at its own best eta.
        lower_bound: I6, for every eta, K and beta.
        floor: the same family at its best member, see ``crossing_floor``; last iterate only.
        one_step_rounds: rounds, as a real number, that K = 1 needs for ``value`` at its best step.
        solves: how many worst cases the two searches took.
    """

    metric: str
    local_steps: int
    rounds: int
    step_size: float
    outer_step: float
    value: float
    certified: float
    plain_step_size: float
    plain_value: float
    lower_bound: float
    floor: float
    one_step_rounds: float
    solves: int

    @property
    def gain(self) -> float:
        """How much lower the best pair is than the best eta at beta = 1, as a share."""
        return 1 - self.value / self.plain_value


@dataclass(frozen=True, kw_only=True)
class MapPoint:
    """One pair of a map: K, R, eta L, beta, the worst last iterate in L D and the dual's bound."""

    local_steps: int
    rounds: int
    step_size: float
    outer_step: float
    value: float
    certified: float


@dataclass(frozen=True, kw_only=True)
class OuterSteps:
    """All that the sweep found.

    Attributes:
        pairs: a best pair for each metric, K and R.
        maps: the points of MAPS.
        one_step_check: the largest difference between a worst case of K = 1 at beta != 1 and the
            closed form of gradient descent with the step beta eta, and where (R).
    """

    pairs: list[BestPair]
    maps: list[MapPoint]
    one_step_check: tuple[float, int]


class Solver:
    """Worst cases of cells, each solved once and kept in a folder."""

    def __init__(self, cache: Path | None, report: Callable[[float], None] | None = None) -> None:
        """
        Args:
            cache: where values are kept; None keeps them in this process alone.
            report: called after each cell that was solved, with its cost by the model.
        """
        self.cache, self.report = cache, report
        self.known: dict[Cell, tuple[float, float]] = {}

    def __call__(self, cell: Cell) -> tuple[float, float]:
        """Value and certified bound.

        Raises:
            SolverError: not converged.
        """
        if cell not in self.known:
            path = self._path(cell)
            kept = _read(path)
            if kept is None:
                found = worst_case(cell)
                kept = found.value, found.certified
                if path is not None:
                    write_json(path, {"value": kept[0], "certified": kept[1]}, special=False)
                if self.report is not None:
                    self.report(seconds(cell))
            self.known[cell] = kept
        return self.known[cell]

    def _path(self, cell: Cell) -> Path | None:
        if self.cache is None:
            return None
        key = [cell.local_steps, cell.rounds, cell.step_size, cell.outer_step, cell.metric]
        name = hashlib.sha256(json.dumps([FORMAT, "outer", key]).encode()).hexdigest()[:24]
        return self.cache / f"outer-{name}.json"


def _read(path: Path | None) -> tuple[float, float] | None:
    if path is None or not path.exists():
        return None
    try:
        content = json.loads(read_text(path))
        value, certified = float(content["value"]), float(content["certified"])
        if not (math.isfinite(value) and math.isfinite(certified)):
            raise ValueError("no number")
        return value, certified
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        print(f"{path} is damaged: its cell is solved again", file=sys.stderr)
        return None


def sweep(
    cache: Path | None,
    local_steps: Sequence[int] = LOCAL_STEPS,
    rounds: Sequence[int] = ROUNDS,
    metrics: Sequence[str] = METRICS,
    maps: Sequence[tuple[int, int]] = MAPS,
    quiet: bool = False,
) -> OuterSteps:
    """The whole sweep, resumed from the cache.

    Args:
        cache: folder of solved values.
        local_steps, rounds, metrics: the K, R and metrics to tune for.
        maps: the (K, R) to draw over MAP_ETAS x MAP_BETAS.
        quiet: no progress on standard error.
    """
    tuned = [(m, k, r) for m in metrics for k in local_steps for r in rounds if k > 1]
    expected = {job: _expected(*job) for job in tuned} | {job: _expected_map(*job) for job in maps}
    begin = time.perf_counter()
    done = finished = 0.0
    with Progress("outer steps", quiet=quiet) as progress:

        def report(work: float) -> None:
            nonlocal done
            done += work
            left = sum(expected.values()) - finished
            progress.update(
                finished,
                sum(expected.values()),
                f"{len(found)} of {len(expected)} searches and maps",
                seconds_left=seconds_left(done, left, time.perf_counter() - begin),
            )

        found: list[Any] = []
        solver = Solver(cache, report)
        pairs = [_one_step(m, r, solver) for m in metrics for r in rounds if 1 in local_steps]
        best: dict[tuple[str, int, int], BestPair] = {}
        for job in tuned:
            metric, k, r = job
            near = ("last", k, r) if metric == "best" else (metric, k, r - 1)
            best[job] = tune(metric, k, r, solver, best.get(near))
            found.append(job)
            finished += expected[job]
        points = []
        for k, r in maps:
            points += _map(k, r, solver)
            found.append((k, r))
            finished += expected[k, r]
        checked = _check_one_step(rounds, solver)
    return OuterSteps(pairs=[*pairs, *best.values()], maps=points, one_step_check=checked)


def _cell(metric: str, k: int, rounds: int, eta: float, beta: float) -> Cell:
    return Cell(
        metric=metric,
        local_steps=k,
        rounds=rounds,
        step_size=float(eta),
        outer_step=float(beta),
    )


def _expected(metric: str, k: int, rounds: int) -> float:
    cell = _cell(metric, k, rounds, 1.0, 1.0)
    grid = len(ETAS) * len(BETAS) if cell.points <= GRID_POINTS else 0
    return (grid + SEARCH + PLAIN_SEARCH) * seconds(cell)


def _expected_map(k: int, rounds: int) -> float:
    return len(MAP_ETAS) * len(MAP_BETAS) * seconds(_cell("last", k, rounds, 1.0, 1.0))


def tune(
    metric: str, k: int, rounds: int, solver: Solver, before: BestPair | None = None
) -> BestPair:
    """The best pair for K >= 2 and R, and the best eta at beta = 1.

    Args:
        metric, k, rounds: what is tuned for.
        solver: of worst cases.
        before: the best pair at R - 1, where the search starts beyond GRID_POINTS points; or that of
            the last iterate for the same R, where the one for the best iterate always starts.
    """
    tried = 0

    def value(eta: float, beta: float) -> float:
        nonlocal tried
        if not (0.02 < eta < 1.98 and 0.1 < beta < 4):
            return math.inf
        tried += 1
        return solver(_cell(metric, k, rounds, eta, beta))[0]

    points = _cell(metric, k, rounds, 1.0, 1.0).points
    same = before is not None and before.rounds == rounds
    if before is None or (points <= GRID_POINTS and not same):
        start = min(((e, b) for e in ETAS for b in BETAS), key=lambda pair: value(*pair))
        spread = 0.08
    else:
        start, spread = (before.step_size, before.outer_step), 0.04
    plain_start = (
        min(ETAS, key=lambda e: value(e, 1.0)) if before is None else before.plain_step_size
    )
    simplex = np.array([start, (start[0] + spread, start[1]), (start[0], start[1] + spread)])
    found = minimize(
        lambda pair: value(float(pair[0]), float(pair[1])),
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": TOLERANCE, "fatol": math.inf},
    )
    plain = minimize_scalar(
        lambda eta: value(float(eta), 1.0),
        bounds=(max(0.05, plain_start - 0.2), min(1.95, plain_start + 0.2)),
        method="bounded",
        options={"xatol": TOLERANCE},
    )
    eta, beta = float(found.x[0]), float(found.x[1])
    best, certified = solver(_cell(metric, k, rounds, eta, beta))
    return BestPair(
        metric=metric,
        local_steps=k,
        rounds=rounds,
        step_size=eta,
        outer_step=beta,
        value=best,
        certified=certified,
        plain_step_size=float(plain.x),
        plain_value=float(plain.fun),
        lower_bound=least_last_loss(L=1.0, D=1.0, R=rounds),
        floor=crossing_floor(rounds),
        one_step_rounds=tuned_one_step_rounds(best),
        solves=tried,
    )


def _one_step(metric: str, rounds: int, solver: Solver) -> BestPair:
    """K = 1 in closed form, solved at its best step for a certificate."""
    eta, _ = tuned_one_step(rounds)
    value, certified = solver(_cell(metric, 1, rounds, eta, 1.0))
    return BestPair(
        metric=metric,
        local_steps=1,
        rounds=rounds,
        step_size=eta,
        outer_step=1.0,
        value=value,
        certified=certified,
        plain_step_size=eta,
        plain_value=value,
        lower_bound=least_last_loss(L=1.0, D=1.0, R=rounds),
        floor=crossing_floor(rounds),
        one_step_rounds=tuned_one_step_rounds(value),
        solves=1,
    )


def _check_one_step(rounds: Sequence[int], solver: Solver) -> tuple[float, int]:
    """K = 1 with the best step split as (eta / beta, beta) against its closed form."""
    worst = (0.0, rounds[0])
    for r in rounds:
        eta, value = tuned_one_step(r)
        for beta in (0.9, 1.25, 1.6):
            found = solver(_cell("last", 1, r, eta / beta, beta))[0]
            worst = max(worst, (abs(found - value), r))
    return worst


def _map(k: int, rounds: int, solver: Solver) -> list[MapPoint]:
    points = []
    for eta in MAP_ETAS:
        for beta in MAP_BETAS:
            value, certified = solver(_cell("last", k, rounds, eta, beta))
            points.append(
                MapPoint(
                    local_steps=k,
                    rounds=rounds,
                    step_size=eta,
                    outer_step=beta,
                    value=value,
                    certified=certified,
                )
            )
    return points


def as_json(found: OuterSteps) -> dict[str, Any]:
    """For the result file: "pairs" with their gain, "maps", "one_step_check"."""
    return {
        "pairs": [{**asdict(pair), "gain": pair.gain} for pair in found.pairs],
        "maps": [asdict(point) for point in found.maps],
        "one_step_check": {
            "difference": found.one_step_check[0],
            "rounds": found.one_step_check[1],
        },
    }


def from_json(content: dict[str, Any]) -> OuterSteps:
    """What :func:`as_json` wrote."""
    pairs = [{k: v for k, v in pair.items() if k != "gain"} for pair in content["pairs"]]
    check = content["one_step_check"]
    return OuterSteps(
        pairs=[BestPair(**pair) for pair in pairs],
        maps=[MapPoint(**point) for point in content["maps"]],
        one_step_check=(check["difference"], check["rounds"]),
    )
