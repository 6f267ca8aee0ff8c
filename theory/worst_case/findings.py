"""What the cells say: statements with numbers, each derived from the rows and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.optimize import brentq, minimize_scalar

from theory.worst_case.cells import ACCURACY, Row
from theory.worst_case.closed_forms import best_crossing
from theory.worst_case.many_local_steps import LimitRow, SpiralRow, exact_local_bound, kink
from theory.worst_case.reduction import Schedule

#: What a finding is: agreement in every cell, disagreement in some, or a number without a claim.
CONFIRMED, REFUTED, OBSERVED = "confirmed", "refuted", "observed"
#: "A few percent" of C1.
FEW_PERCENT = 0.05


@dataclass(frozen=True)
class Finding:
    """One statement.

    Attributes:
        about: the theorem or conjecture.
        statement: in words, with where the value was found.
        value: the number; values in L D.
        cells: how many cells entered.
        standing: CONFIRMED and REFUTED for claims, in the cells that entered; OBSERVED for numbers.
    """

    about: str
    statement: str
    value: float | None
    cells: int
    standing: str

    @property
    def supported(self) -> bool:
        return self.standing != REFUTED


def findings(
    rows: Sequence[Row],
    routes: Sequence[Any] = (),
    limits: Sequence[LimitRow] = (),
    spirals: Sequence[SpiralRow] = (),
    tuned: Sequence[TunedStep] = (),
) -> list[Finding]:
    """All statements that the cells suffice for; fewer cells give fewer statements.

    Args:
        rows: solved cells; others are left out.
        routes: problems solved by PEPit too (``theory.worst_case.__main__.Route``).
        limits, spirals: of :mod:`theory.worst_case.many_local_steps`.
        tuned: of :func:`tuned_steps`; the grid's best step sizes where there are none.
    """
    solved = [row for row in rows if row.worst_case is not None]
    last = [r for r in solved if r.metric == "last"]
    found = [
        *_one_and_two(last),
        *_many_local_steps(last),
        *_best_iterate(solved),
        *_saved_rounds(last),
        *(_tuned(tuned) if tuned else _tuned_on_grid(last)),
        *([] if tuned else _steps(last)),
        *_limits(limits, spirals),
        *_sharper(solved),
        *_routes(routes),
    ]
    return found


def _where(row: Row) -> str:
    return f"K={row.local_steps} R={row.rounds} eta={row.step_size:g}/L"


def _value(row: Row) -> float:
    assert row.worst_case is not None
    return row.worst_case


def _unit(rows: Iterable[Row]) -> list[Row]:
    return [r for r in rows if r.step_size == 1]


def _extreme(rows: Sequence[Row], key: Callable[[Row], float]) -> tuple[Row, Row]:
    return min(rows, key=key), max(rows, key=key)


def _one_and_two(last: Sequence[Row]) -> list[Finding]:
    """C1, first part."""
    rows = [r for r in _unit(last) if r.local_steps <= 2]
    if not rows:
        return []

    def miss(row: Row) -> float:
        return abs(_value(row) - 1 / (4 * row.local_steps * row.rounds + 2))

    worst = max(rows, key=miss)
    return [
        Finding(
            "C1",
            f"K=1, 2: last = L D/(4T+2); largest difference, at {_where(worst)}",
            miss(worst),
            len(rows),
            CONFIRMED if miss(worst) < ACCURACY else REFUTED,
        )
    ]


def _many_local_steps(last: Sequence[Row]) -> list[Finding]:
    """C1, second part: K >= 3 against K, and against I1."""
    rows = [r for r in _unit(last) if r.local_steps >= 3]
    if not rows:
        return []
    crossing = {r.rounds: best_crossing(Schedule(1, r.rounds, 1.0, "last"))[0] for r in rows}
    low, high = _extreme(rows, lambda r: _value(r) / crossing[r.rounds])
    ratios = _value(low) / crossing[low.rounds], _value(high) / crossing[high.rounds]
    close = CONFIRMED if ratios[1] < 1 + FEW_PERCENT else REFUTED
    found = [
        Finding(
            "C1", f"K>=3: last over I1, smallest, at {_where(low)}", ratios[0], len(rows), OBSERVED
        ),
        Finding(
            "C1",
            f"K>=3: last within 5% of I1; largest ratio, at {_where(high)}",
            ratios[1],
            len(rows),
            close,
        ),
    ]
    one_round = [r for r in rows if r.rounds == 1]
    three = [r for r in one_round if r.local_steps == 3]
    closed = kink()[0]
    if three:
        miss = abs(_value(three[0]) - closed)
        found.append(
            Finding(
                "C1",
                f"K=3, R=1: last = {closed:.10f}, a root of a polynomial of degree 6; difference",
                miss,
                len(three),
                CONFIRMED if miss < ACCURACY else REFUTED,
            )
        )
    if len(one_round) > 1:
        below = closed - min(map(_value, one_round))
        found.append(
            Finding(
                "C1",
                "R=1: no K>=3 is better than K=3 (proved by an instance); most below",
                below,
                len(one_round),
                CONFIRMED if below < ACCURACY else REFUTED,
            )
        )
    for rounds in sorted({r.rounds for r in rows}):
        same = sorted((r for r in rows if r.rounds == rounds), key=lambda r: r.local_steps)
        if len(same) < 3:
            continue
        least = min(same, key=_value)
        change = _value(same[-1]) / _value(least) - 1
        rises = change > 1e-5
        largest = same[-1].local_steps
        detail = (
            f"least at K={least.local_steps}, and above it at K={largest} by the share"
            if rises
            else f"true up to K={largest}, where it is"
        )
        found.append(
            Finding(
                "C1",
                f"R={rounds}: last never rises with K from 3 on; {detail}",
                change if rises else _value(same[-1]),
                len(same),
                REFUTED if rises else CONFIRMED,
            )
        )
    return found


def one_step_rounds(value: float) -> float:
    """R, a real number, at which the last iterate of K = 1, eta = 1/L, has the worst case ``value``."""
    return (1 / value - 2) / 4


def tuned_one_step(total: float) -> tuple[float, float]:
    """Best step size eta L and worst last iterate of K = 1 after ``total`` steps.

    The worst case is the larger of 1/(4 eta T + 2) and (1 - eta)^(2T) / 2 (conjectured by Drori and
    Teboulle, Math. Program. 2014; the cells of K = 1 agree with it), least where they meet.
    """
    eta = float(
        brentq(lambda e: 2 * total * math.log(e - 1) + math.log1p(2 * e * total), 1 + 1e-12, 2.0)
    )
    return eta, 1 / (4 * eta * total + 2)


def tuned_one_step_rounds(value: float) -> float:
    """R, a real number, at which K = 1 at its best step size has the worst last iterate ``value``."""
    return float(brentq(lambda total: tuned_one_step(total)[1] - value, 1e-3, 1e6))


def _saved_rounds(last: Sequence[Row]) -> list[Finding]:
    """The rounds that K = 1 needs for the same worst case, over R."""
    rows = [r for r in _unit(last) if r.local_steps >= 2]
    if not rows:
        return []

    def saved(row: Row) -> float:
        return one_step_rounds(_value(row)) / row.rounds

    low, high = _extreme(rows, saved)
    proved = {
        r.rounds: one_step_rounds(best_crossing(Schedule(1, r.rounds, 1.0, "last"))[0]) / r.rounds
        for r in rows
    }
    widest = max(proved, key=lambda rounds: proved[rounds])
    return [
        Finding(
            "use",
            f"eta=1/L, proved by I1 for every K: K=1 needs at most so many times the "
            f"rounds, at R={widest}; it tends to e with R",
            proved[widest],
            len(proved),
            OBSERVED,
        ),
        Finding(
            "use",
            f"eta=1/L: K=1 needs at most so many times the rounds, at {_where(high)}",
            saved(high),
            len(rows),
            OBSERVED,
        ),
        Finding(
            "use",
            f"eta=1/L: and at least, over K>=2, at {_where(low)}",
            saved(low),
            len(rows),
            OBSERVED,
        ),
    ]


def _tuned(tuned: Sequence[TunedStep]) -> list[Finding]:
    """Best step sizes, and what local steps save when every K has its own."""
    found = []
    for k in sorted({t.local_steps for t in tuned}):
        same = [t for t in tuned if t.local_steps == k]
        etas = [t.step_size for t in same]
        found.append(
            Finding(
                "step",
                f"K={k}: best step size, eta L from {min(etas):.3f} to the value",
                max(etas),
                len(same),
                OBSERVED,
            )
        )
    several = [t for t in tuned if t.local_steps > 1]
    if several:
        most = max(several, key=lambda t: t.one_step_rounds / t.rounds)
        found.append(
            Finding(
                "use",
                "best eta for each K: K=1 needs at most so many times the rounds, at "
                f"K={most.local_steps} R={most.rounds} eta={most.step_size:.3f}/L",
                most.one_step_rounds / most.rounds,
                len(several),
                OBSERVED,
            )
        )
    return found


def _tuned_on_grid(last: Sequence[Row]) -> list[Finding]:
    """The same where each K has its best step size on the grid, K = 1 its best of all."""
    best: dict[tuple[int, int], Row] = {}
    for r in last:
        key = r.local_steps, r.rounds
        if key not in best or _value(r) < _value(best[key]):
            best[key] = r
    rows = [r for r in best.values() if r.local_steps >= 2]
    if not rows:
        return []

    def saved(row: Row) -> float:
        return tuned_one_step_rounds(_value(row)) / row.rounds

    high = max(rows, key=saved)
    return [
        Finding(
            "use",
            f"best eta for each K: K=1 needs at most so many times the rounds, at {_where(high)}",
            saved(high),
            len(rows),
            OBSERVED,
        )
    ]


def _best_iterate(solved: Sequence[Row]) -> list[Finding]:
    cells = {
        (r.metric, r.local_steps, r.rounds, r.step_size, r.n): _value(r)
        for r in solved
        if r.theorem == "C1"
    }
    gains = {
        key: value - cells["best", *key[1:]]
        for key, value in cells.items()
        if key[0] == "last" and ("best", *key[1:]) in cells
    }
    if not gains:
        return []
    where = max(gains, key=lambda key: gains[key])
    return [
        Finding(
            "C1",
            f"best iterate = last iterate in the worst case; largest difference, at K={where[1]} "
            f"R={where[2]} eta={where[3]:g}/L",
            gains[where],
            len(gains),
            CONFIRMED if gains[where] < ACCURACY else REFUTED,
        )
    ]


def best_step_sizes(rows: Sequence[Row]) -> list[dict[str, float]]:
    """For each K and R, the step size of the grid with the least worst last iterate.

    Returns:
        ``local_steps``, ``rounds``, ``step_size``, ``value``, and ``tried``, how many step sizes.
    """
    groups: dict[tuple[int, int], list[Row]] = {}
    for r in rows:
        if r.metric == "last" and r.worst_case is not None:
            groups.setdefault((r.local_steps, r.rounds), []).append(r)
    table = []
    for (k, rounds), group in sorted(groups.items()):
        tried = {r.step_size for r in group}
        if len(tried) > 2:
            best = min(group, key=_value)
            table.append(
                {
                    "local_steps": k,
                    "rounds": rounds,
                    "step_size": best.step_size,
                    "value": _value(best),
                    "tried": len(tried),
                }
            )
    return table


@dataclass(frozen=True)
class TunedStep:
    """The step size with the least worst last iterate, between its neighbours on the grid.

    Attributes:
        local_steps, rounds: K, R.
        step_size: eta L, to about 1e-3.
        value: the worst last iterate there, in L D.
        one_step_rounds: rounds that K = 1 needs for it at its own best step size.
    """

    local_steps: int
    rounds: int
    step_size: float
    value: float
    one_step_rounds: float


def tuned_steps(
    rows: Sequence[Row], solve: Callable[[Schedule], float], most_points: int = 17
) -> list[TunedStep]:
    """Best step sizes for each K and R whose grid has the best one inside.

    Args:
        rows: the grid.
        solve: the worst case of a schedule.
        most_points: larger cells are left out, as each needs some ten solves.
    """
    steps: dict[tuple[int, int], list[float]] = {}
    for r in rows:
        if r.metric == "last" and r.worst_case is not None:
            steps.setdefault((r.local_steps, r.rounds), []).append(r.step_size)
    found = []
    for entry in best_step_sizes(rows):
        k, rounds = int(entry["local_steps"]), int(entry["rounds"])
        grid = sorted(set(steps[k, rounds]))
        at = grid.index(entry["step_size"])
        if k * rounds >= most_points or at in (0, len(grid) - 1):
            continue
        best = minimize_scalar(
            lambda eta, k=k, rounds=rounds: solve(Schedule(k, rounds, float(eta), "last")),
            bounds=(grid[at - 1], grid[at + 1]),
            method="bounded",
            options={"xatol": 1e-3},
        )
        value = min(float(best.fun), entry["value"])
        eta = float(best.x) if value < entry["value"] else entry["step_size"]
        found.append(TunedStep(k, rounds, eta, value, tuned_one_step_rounds(value)))
    return found


def _steps(last: Sequence[Row]) -> list[Finding]:
    found = []
    table = best_step_sizes(last)
    for k in sorted({int(entry["local_steps"]) for entry in table}):
        steps = [entry["step_size"] for entry in table if entry["local_steps"] == k]
        spread = (
            f"{min(steps):g}" if min(steps) == max(steps) else f"{min(steps):g} to {max(steps):g}"
        )
        found.append(
            Finding(
                "step",
                f"K={k}: least worst last iterate on the grid at eta L = {spread}",
                max(steps),
                len(steps),
                OBSERVED,
            )
        )
    return found


def _limits(limits: Sequence[LimitRow], spirals: Sequence[SpiralRow]) -> list[Finding]:
    """K to infinity."""
    found = []
    for r in limits:
        if r.rounds == 1:
            found.append(
                Finding(
                    "K=inf",
                    "R=1: last iterate tends to at most L D/8 (proved); solver minus 1/8",
                    r.last - 0.125,
                    1,
                    CONFIRMED if abs(r.last - 0.125) < ACCURACY else REFUTED,
                )
            )
    if limits:
        longest = limits[-1]
        found.append(
            Finding(
                "K=inf",
                f"best iterate at R={longest.rounds}: K=1 needs at least so many times the rounds",
                one_step_rounds(longest.best) / longest.rounds,
                1,
                OBSERVED,
            )
        )
        found.append(
            Finding(
                "K=inf",
                f"last iterate at R={longest.rounds}: the upper value over that of K=1",
                longest.last / longest.one_step,
                1,
                OBSERVED,
            )
        )
    for s in spirals:
        bound = exact_local_bound(s.local_steps)
        found.append(
            Finding(
                "K=inf",
                f"spiral of {s.hops} hops, K={s.local_steps}, simulated; its limit is "
                f"{s.limit:.5f}, the bound at this K is {bound:.5f}",
                s.value,
                1,
                CONFIRMED if s.value <= bound else REFUTED,
            )
        )
    return found


def _sharper(solved: Sequence[Row]) -> list[Finding]:
    """Proved and conjectured sharper constants against the cells."""
    found = []
    for name, select, claim in (
        (
            "T1",
            lambda r: r.theorem == "T1" and r.step_size >= 1,
            "eta>=1/L: worst = the quadratic's value (proved)",
        ),
        (
            "T3",
            lambda r: r.theorem == "T3" and r.step_size >= 1,
            "eta>=1/L: worst = the quadratic's value (proved)",
        ),
        (
            "T1",
            lambda r: r.theorem == "T1" and r.step_size < 1,
            "eta<1/L: worst = larger of Huber and quadratic (conjecture)",
        ),
        (
            "T3",
            lambda r: r.theorem == "T3" and r.step_size < 1,
            "eta<1/L: worst = larger of Huber and quadratic (conjecture)",
        ),
        (
            "T2",
            lambda r: r.theorem == "T2" and r.local_steps == 1,
            "K=1: worst = larger of Huber and quadratic (proved for eta>=1/L)",
        ),
        (
            "C1",
            lambda r: r.metric == "last" and r.local_steps == 1,
            "K=1, any eta: worst = larger of Huber and quadratic",
        ),
        (
            "T4'",
            lambda r: r.theorem == "T4'" and r.local_steps >= 3 and r.step_size == 1,
            "K>=3, eta=1/L: worst = (1 - mu/L)^(2R) D (conjecture)",
        ),
    ):
        rows = [r for r in solved if select(r)]
        if rows:
            worst = max(rows, key=lambda r: abs(_value(r) - r.instance))
            miss = abs(_value(worst) - worst.instance)
            found.append(
                Finding(
                    name,
                    f"{claim}; largest difference, at {_where(worst)}",
                    miss,
                    len(rows),
                    CONFIRMED if miss < ACCURACY else REFUTED,
                )
            )
    proved = [r for r in solved if r.theorem == "T2" and r.sharper is not None]
    if proved:
        low, high = _extreme(proved, lambda r: (r.sharper or 0.0) / _value(r))
        holds = (low.sharper or 0.0) / _value(low) > 1 - ACCURACY
        found += [
            Finding(
                "T2",
                f"sharper bound (proved) over worst, least, at {_where(low)}",
                (low.sharper or 0.0) / _value(low),
                len(proved),
                CONFIRMED if holds else REFUTED,
            ),
            Finding(
                "T2",
                f"sharper bound over worst, most, at {_where(high)}",
                (high.sharper or 0.0) / _value(high),
                len(proved),
                OBSERVED,
            ),
        ]
    for name in ("T1", "T2", "T3", "T4", "T4'"):
        rows = [r for r in solved if r.theorem == name and r.ratio is not None]
        if rows:
            low, high = _extreme(rows, lambda r: r.ratio or 0.0)
            found.append(
                Finding(
                    name,
                    f"bound over worst: from {low.ratio:.4f} at {_where(low)} to the value "
                    f"at {_where(high)}",
                    high.ratio,
                    len(rows),
                    OBSERVED,
                )
            )
    return found


def _routes(routes: Sequence[Any]) -> list[Finding]:
    """Does the worst case depend on n, and do the two routes agree."""
    pairs = [r for r in routes if r.pepit is not None and r.reduced is not None]
    if not pairs:
        return []
    worst = max(pairs, key=lambda r: abs(r.pepit - r.reduced))
    miss = abs(worst.pepit - worst.reduced)
    nodes = sorted({r.n for r in pairs})
    return [
        Finding(
            "C1",
            f"no dependence on n = {', '.join(map(str, nodes))}: PEPit over all nodes minus "
            "the reduced problem",
            miss,
            len(pairs),
            CONFIRMED if miss < ACCURACY else REFUTED,
        )
    ]
