"""Step sizes with the least worst last iterate, and what local steps save when every K has its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.optimize import brentq, minimize_scalar

from theory.worst_case.cells import Cell
from theory.worst_case.closed_forms import gradient_descent
from theory.worst_case.rows import Row


@dataclass(frozen=True, kw_only=True)
class TunedStep:
    """The step size with the least worst last iterate of one K and R.

    Attributes:
        local_steps, rounds: K, R.
        step_size: eta L; between its neighbours on the grid, to about 1e-3.
        value: the worst last iterate there, in L D.
        one_step_rounds: rounds, as a real number, that K = 1 needs for it at its own best step size.
        tried: how many step sizes of the grid were solved.
    """

    local_steps: int
    rounds: int
    step_size: float
    value: float
    one_step_rounds: float
    tried: int


def one_step_rounds(value: float) -> float:
    """R, a real number, at which the last iterate of K = 1, eta = 1/L, has the worst case ``value``."""
    return (1 / value - 2) / 4


def tuned_one_step(total: float) -> tuple[float, float]:
    """Best step size eta L and worst last iterate of K = 1 after ``total`` steps.

    The worst case is the larger of 1/(4 eta T + 2) and (1 - eta)^(2T) / 2 (J. Kim, arXiv 2412.04427),
    least where they meet.
    """
    eta = float(
        brentq(lambda e: 2 * total * math.log(e - 1) + math.log1p(2 * e * total), 1 + 1e-12, 2.0)
    )
    return eta, gradient_descent(eta, total)


def tuned_one_step_rounds(value: float) -> float:
    """R, a real number, at which K = 1 at its best step size has the worst last iterate ``value``."""
    return float(brentq(lambda total: tuned_one_step(total)[1] - value, 1e-3, 1e6))


def best_step_sizes(rows: Sequence[Row]) -> list[TunedStep]:
    """For each K and R with three step sizes or more, the one with the least worst last iterate."""
    groups: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for r in rows:
        if r.metric == "last" and r.worst_case is not None:
            groups.setdefault((r.local_steps, r.rounds), []).append((r.worst_case, r.step_size))
    found = []
    for (k, rounds), group in sorted(groups.items()):
        tried = len({step for _, step in group})
        if tried > 2:
            value, step = min(group)
            found.append(
                TunedStep(
                    local_steps=k,
                    rounds=rounds,
                    step_size=step,
                    value=value,
                    one_step_rounds=tuned_one_step_rounds(value),
                    tried=tried,
                )
            )
    return found


def tuned_steps(
    rows: Sequence[Row], solve: Callable[[Cell], float], most_points: int = 17
) -> list[TunedStep]:
    """Best step sizes for each K and R whose grid has the best one inside.

    Args:
        rows: the grid.
        solve: the worst case of a cell.
        most_points: larger cells are left out, as each needs some ten solves.
    """
    steps: dict[tuple[int, int], set[float]] = {}
    for r in rows:
        if r.metric == "last" and r.worst_case is not None:
            steps.setdefault((r.local_steps, r.rounds), set()).add(r.step_size)
    found = []
    for entry in best_step_sizes(rows):
        k, rounds = entry.local_steps, entry.rounds
        grid = sorted(steps[k, rounds])
        at = grid.index(entry.step_size)
        if k * rounds >= most_points or at in (0, len(grid) - 1):
            continue
        best = minimize_scalar(
            lambda eta, k=k, rounds=rounds: solve(
                Cell(local_steps=k, rounds=rounds, step_size=float(eta))
            ),
            bounds=(grid[at - 1], grid[at + 1]),
            method="bounded",
            options={"xatol": 1e-3},
        )
        value = min(float(best.fun), entry.value)
        found.append(
            TunedStep(
                local_steps=k,
                rounds=rounds,
                step_size=float(best.x) if value < entry.value else entry.step_size,
                value=value,
                one_step_rounds=tuned_one_step_rounds(value),
                tried=entry.tried,
            )
        )
    return found
