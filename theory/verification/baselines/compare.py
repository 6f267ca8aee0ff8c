"""Every method to the end of its budget: exact expectations on least squares, sample paths elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from theory.problems.generators import Heterogeneity, least_squares
from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import log_grid, run_local_sgd
from theory.simulation.moments import exact_grid
from theory.simulation.variants import Variant
from theory.support import numbers
from theory.support.errors import UserError
from theory.verification.baselines.accelerated import accelerated_bound, accelerated_descent
from theory.verification.baselines.schedules import (
    ACCELERATED,
    STEP_FACTORS,
    Schedule,
    schedules,
)
from theory.verification.intervals import confidence_interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """One method's path: f at the synchronised model, after each of some of its rounds.

    Attributes:
        schedule: what was run; ``step_size`` is the best of those tried, ``variants`` the best one.
        step_factor: that step size over the method's own default.
        rounds: so far, (g,), first 0.
        communications: vectors that a node has sent so far, (g,).
        gradients: sample gradients a node so far, (g,).
        loss, low, high: E f(xbar) with its 95% interval by Student's t (equal where exact), (g,).
        bound: what accelerated GD's theorem says at its step, (g,), from round 1 on; NaN for the other
            methods, whose bounds are T1-T6, and for those without one.
    """

    schedule: Schedule
    step_factor: float
    rounds: NDArray[np.int64]
    communications: NDArray[np.int64]
    gradients: Array
    loss: Array
    low: Array
    high: Array
    bound: Array


def compare_baselines(
    problem: MarginProblem,
    *,
    local_steps: int = 5,
    rounds: int = 100,
    batch_size: int = 1,
    seeds: int | Sequence[int] = 32,
    step_factors: Sequence[float] = (1.0,),
    points: int = 30,
) -> list[Baseline]:
    """Run Local SGD and its rivals.

    Args:
        problem: what to minimise.
        local_steps, rounds, batch_size: K, R and b of Local SGD.
        seeds: sample paths, where the expectation is not exact (on least squares it is, but for FedProx
            and SCAFFOLD).
        step_factors: multiples of each method's default step to try; the one with the least final loss
            is kept, for every method by itself.
        points: recorded rounds, log-spaced.

    Returns:
        One :class:`Baseline` a method, Local SGD first.

    Raises:
        UserError: an argument outside its range.
    """
    if not len(step_factors) or not all(np.isfinite(f) and f > 0 for f in step_factors):
        raise UserError(f"step_factors is {list(step_factors)}, allowed: numbers above 0")
    local_steps = numbers.whole("local_steps", local_steps, 1)
    rounds = numbers.whole("rounds", rounds, 1)
    small = in_row_space(problem)
    return [
        _best(small, s, list(step_factors), seeds, points)
        for s in schedules(small, local_steps, rounds, batch_size)
    ]


def in_row_space(problem: MarginProblem) -> MarginProblem:
    """The same problem in the coordinates of its row space, where a step costs less.

    Every loss, distance and step size is the same: x - x_0 moves in the span of the samples only.
    """
    if problem.rank in (0, problem.dimension):
        return problem
    margins = problem.features @ problem.start
    start: Array = np.linalg.lstsq(problem.coordinates, margins, rcond=None)[0].astype(np.float64)
    nodes = [problem.node_slice(i) for i in range(problem.n_nodes)]
    return MarginProblem(
        [problem.coordinates[s] for s in nodes],
        [problem.targets[s] for s in nodes],
        problem.loss,
        start=start,
        # Rounding may leave the rows a little longer.
        smoothness=problem.smoothness * (1 + 1e-12),
        name=problem.name,
        heterogeneity=problem.heterogeneity,
    )


def _best(
    problem: MarginProblem,
    schedule: Schedule,
    factors: list[float],
    seeds: int | Sequence[int],
    points: int,
) -> Baseline:
    grid = log_grid(schedule.rounds, points)
    tried: list[tuple[float, float, Variant | None, Array]] = []
    for variant in schedule.variants or (None,):
        curves = loss_curves(problem, schedule, variant, factors, grid, seeds)
        for factor, curve in zip(factors, curves, strict=True):
            # A diverged run is never the best.
            last = float(np.nan_to_num(curve[:, -1].mean(), nan=np.inf))
            tried.append((last, factor, variant, curve))
    _, factor, variant, curve = min(tried, key=lambda entry: entry[0])
    if len(curve) == 1:
        loss = low = high = curve[0]
    else:
        loss, low, high = np.array([confidence_interval(column) for column in curve.T]).T
    eta = factor * schedule.step_size
    bound = np.full(len(grid), np.nan)
    if schedule.method == ACCELERATED and factor <= 1:
        bound[1:] = accelerated_bound(eta, problem.initial_distance, grid[1:].astype(np.float64))
    return Baseline(
        schedule=replace(schedule, step_size=eta, variants=() if variant is None else (variant,)),
        step_factor=factor,
        rounds=grid,
        communications=grid * schedule.vectors_per_round,
        gradients=grid.astype(np.float64) * schedule.gradients_per_round,
        loss=loss,
        low=low,
        high=high,
        bound=bound,
    )


def loss_curves(
    problem: MarginProblem,
    schedule: Schedule,
    variant: Variant | None,
    factors: Sequence[float],
    grid: NDArray[np.int64],
    seeds: int | Sequence[int],
    exact: bool = True,
) -> Array:
    """f(xbar_r) for each multiple of the default step, (factors, paths, grid).

    Args:
        grid: the rounds r to report, rising from 0.
        seeds: sample paths.
        exact: one path, the expectation, on least squares where the method is a plain schedule.
    """
    etas, s = schedule.step_size * np.asarray(factors, float), schedule
    if s.method == ACCELERATED:
        return np.array([[accelerated_descent(problem, float(eta), grid)] for eta in etas])
    if exact and problem.loss is SQUARED and variant is None:
        row = exact_grid(
            problem,
            step_sizes=etas,
            local_steps=[s.local_steps],
            rounds=s.rounds,
            batch_size=s.batch_size,
            gradient=s.gradient,
            record=grid * s.local_steps,
            averages=(),
        )
        return np.array([[found[0].history["global_loss"]] for found in row])
    run = run_local_sgd(
        problem,
        step_size=etas,
        local_steps=s.local_steps,
        rounds=s.rounds,
        seeds=1 if s.gradient == "full" else seeds,
        batch_size=s.batch_size,
        gradient=s.gradient,
        variant=variant,
        averages=[],
        record=grid * s.local_steps,
    )
    return run.history["global_loss"]


@dataclass(frozen=True)
class BaselineRow:
    """A method's budget, and its final loss by the nodes' likeness.

    Attributes:
        method, budget, local_steps, batch_size: as in :class:`Schedule`.
        communications: vectors that a node sends in all.
        gradients: sample gradients a node in all.
        loss: heterogeneity -> E f(xbar) at the end, exact or the mean over paths.
        low, high: heterogeneity -> the ends of its 95% interval.
        step_factor: heterogeneity -> the best multiple of the method's default step.
        bound: heterogeneity -> 2 L_f D/(R+1)^2 for accelerated GD at the step used; NaN otherwise.
    """

    method: str
    budget: str
    local_steps: int
    batch_size: int | None
    communications: int
    gradients: float
    loss: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    step_factor: dict[str, float]
    bound: dict[str, float]


def baseline_rows(
    problems: Sequence[MarginProblem],
    *,
    local_steps: int = 10,
    rounds: int = 50,
    seeds: int | Sequence[int] = 32,
    step_factors: Sequence[float] = STEP_FACTORS,
) -> list[BaselineRow]:
    """The comparison at equal budgets, a row a method, a column a problem (by its heterogeneity)."""
    found = {
        problem.heterogeneity: compare_baselines(
            problem, local_steps=local_steps, rounds=rounds, seeds=seeds, step_factors=step_factors
        )
        for problem in problems
    }
    rows = []
    for methods in zip(*found.values(), strict=True):
        first, named = methods[0], list(zip(found, methods, strict=True))
        s = first.schedule
        rows.append(
            BaselineRow(
                method=s.method,
                budget=s.budget,
                local_steps=s.local_steps,
                batch_size=None if s.gradient == "full" else s.batch_size,
                communications=int(first.communications[-1]),
                gradients=float(first.gradients[-1]),
                loss={level: float(m.loss[-1]) for level, m in named},
                low={level: float(m.low[-1]) for level, m in named},
                high={level: float(m.high[-1]) for level, m in named},
                step_factor={level: m.step_factor for level, m in named},
                bound={level: float(m.bound[-1]) for level, m in named},
            )
        )
    return rows


def power_law_problem(heterogeneity: Heterogeneity) -> MarginProblem:
    """Least squares on which the rates are seen: power-law spectrum, n = 5, d = 256, rank 40."""
    return least_squares(rank=40, decay=1.0, heterogeneity=heterogeneity)
