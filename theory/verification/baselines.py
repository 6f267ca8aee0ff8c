"""Local SGD beside mini-batch SGD and centralised GD, at equal communication and at equal computation.

Local SGD with K local steps and batch b spends one communication a round and K b sample gradients a
node. Every baseline is a schedule of the same simulator, so the comparison shares streams and code:

* mini-batch SGD, equal both: one step a round, on K b samples a node;
* mini-batch SGD, equal computation: one step on b samples, and a communication, where Local SGD takes a
  local step: K times the communication;
* GD, equal communication: one full gradient a round, however many samples a node holds;
* GD, equal computation: as many full gradients as the same number of sample gradients pays for;
* accelerated GD, in the same two ways: Nesterov's method on f, the only one here that is no schedule of
  the simulator. With full gradients it is min-max optimal for shared optima up to a constant (Patel et
  al. 2024, Theorem 11): f(x_R) <= 2 L_f D/(R+1)^2.

References:
    Yu. Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)"
    (1983); A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm" (SIAM J. Imaging
    Sciences 2009), Theorem 4.4; K. K. Patel et al., "The limits and potentials of Local SGD for
    distributed heterogeneous learning with intermittent communication" (COLT 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.problems.generators import Heterogeneity, least_squares
from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import log_grid, run_local_sgd
from theory.simulation.moments import exact_moments
from theory.support.errors import UserError
from theory.verification.intervals import confidence_interval

Array = NDArray[np.float64]


ACCELERATED = "accelerated GD"


@dataclass(frozen=True)
class Schedule:
    """How a method spends its budget.

    Attributes:
        method: "Local SGD", "mini-batch SGD", "GD" or "accelerated GD".
        budget: what it shares with Local SGD: "equal communication", "equal computation" or both.
        local_steps, rounds, batch_size, gradient: as in :func:`theory.simulation.local_sgd.run_local_sgd`.
        step_size: eta.
        gradients_per_round: sample gradients a node (the mean over nodes) a round.
    """

    method: str
    budget: str
    local_steps: int
    rounds: int
    batch_size: int
    gradient: str
    step_size: float
    gradients_per_round: float


@dataclass(frozen=True)
class Baseline:
    """One method's path: f at the synchronised model, after each of some of its rounds.

    Attributes:
        schedule: what was run; ``step_size`` is the best of those tried.
        step_factor: that step size over the method's own default.
        communications: rounds so far, (g,), first 0.
        gradients: sample gradients a node so far, (g,).
        loss, low, high: E f(xbar) with its 95% interval by Student's t (equal where exact), (g,).
        bound: what accelerated GD's theorem says at its default step, (g,), from round 1 on; NaN for
            the other methods, whose bounds are T1-T6.
    """

    schedule: Schedule
    step_factor: float
    communications: NDArray[np.int64]
    gradients: Array
    loss: Array
    low: Array
    high: Array
    bound: Array


def schedules(
    problem: MarginProblem, local_steps: int, rounds: int, batch_size: int = 1
) -> list[Schedule]:
    """Local SGD and its six baselines, each with its default step.

    The default is the largest 1/L that fits the method. Local SGD: the per-sample L (T1-T3). GD, also
    accelerated: L_f, the smoothness of f. Mini-batch SGD on b samples at each of n nodes: L_f +
    L/(n b), as interpolation gives E||g||^2 <= ||grad f||^2 + (1/(n b)) mean_i E||g_i||^2 <=
    2 (L_f + L/(n b)) f; so the baseline may profit from its larger batch. An equal computation that
    pays for no full gradient at all leaves GD one round.
    """
    sample, whole = problem.smoothness, problem.global_smoothness

    def batched(size: int) -> float:
        return 1.0 / min(sample, whole + sample / (problem.n_nodes * size))

    per_round = float(local_steps * batch_size)
    full = float(problem.node_sizes.mean())
    paid = max(1, int(rounds * per_round // full))
    return [
        Schedule(
            "Local SGD",
            "reference",
            local_steps,
            rounds,
            batch_size,
            "stochastic",
            1.0 / sample,
            per_round,
        ),
        Schedule(
            "mini-batch SGD",
            "equal communication and computation",
            1,
            rounds,
            local_steps * batch_size,
            "stochastic",
            batched(local_steps * batch_size),
            per_round,
        ),
        Schedule(
            "mini-batch SGD",
            "equal computation",
            1,
            rounds * local_steps,
            batch_size,
            "stochastic",
            batched(batch_size),
            float(batch_size),
        ),
        *(
            Schedule(method, budget, 1, count, 1, "full", 1.0 / whole, full)
            for method in ("GD", ACCELERATED)
            for budget, count in (("equal communication", rounds), ("equal computation", paid))
        ),
    ]


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
    """Run Local SGD and its baselines.

    Args:
        problem: what to minimise.
        local_steps, rounds, batch_size: K, R and b of Local SGD.
        seeds: sample paths, where the expectation is not exact (it is on least squares).
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
    return [
        min(
            (_run(problem, s, factor, seeds, points) for factor in step_factors),
            # A diverged run is never the best.
            key=lambda b: float(np.nan_to_num(b.loss[-1], nan=np.inf)),
        )
        for s in schedules(problem, local_steps, rounds, batch_size)
    ]


def _run(
    problem: MarginProblem, s: Schedule, factor: float, seeds: int | Sequence[int], points: int
) -> Baseline:
    grid = log_grid(s.rounds, points)
    eta, record = factor * s.step_size, grid * s.local_steps
    bound = np.full(len(grid), np.nan)
    if s.method == ACCELERATED:
        loss = low = high = accelerated_descent(problem, eta, grid)
        if factor <= 1:
            # A smaller step is 1/L for a larger L.
            bound[1:] = 2 * problem.initial_distance / (eta * (grid[1:] + 1.0) ** 2)
    elif problem.loss is SQUARED:
        moments = exact_moments(
            problem,
            step_size=eta,
            local_steps=s.local_steps,
            rounds=s.rounds,
            batch_size=s.batch_size,
            gradient=s.gradient,
            record=record,
        )
        loss = low = high = moments.history["global_loss"]
    else:
        result = run_local_sgd(
            problem,
            step_size=eta,
            local_steps=s.local_steps,
            rounds=s.rounds,
            seeds=seeds,
            batch_size=s.batch_size,
            gradient=s.gradient,
            averages=[],
            record=record,
        )
        bands = [confidence_interval(column) for column in result.history["global_loss"][0].T]
        loss, low, high = np.array(bands).T
    chosen = Schedule(**{**s.__dict__, "step_size": eta})
    gradients = grid.astype(np.float64) * s.gradients_per_round
    return Baseline(chosen, factor, grid, gradients, loss, low, high, bound)


def accelerated_descent(problem: MarginProblem, step_size: float, grid: NDArray[np.int64]) -> Array:
    """f(x_r) of Nesterov's accelerated gradient descent on f, (grid,).

    x_{r+1} = y_r - eta grad f(y_r), y_{r+1} = x_{r+1} + ((t_r - 1)/t_{r+1}) (x_{r+1} - x_r), t_0 = 1,
    t_{r+1} = (1 + sqrt(1 + 4 t_r^2))/2, in the coordinates of the row space.

    Args:
        step_size: eta, at most 1/L_f for the bound to hold.
        grid: the rounds r to report, rising from 0.
    """
    c, weights = problem.coordinates, problem.sample_weights
    offset = problem.features @ problem.start
    x = y = np.zeros(problem.rank)
    t, values = 1.0, {}
    for r in range(int(grid[-1]) + 1):
        values[r] = float(problem.loss_of_margins(offset + c @ x))
        slopes = problem.loss.derivative(offset + c @ y, problem.targets) * weights
        following = y - step_size * (slopes @ c)
        t, before = 0.5 * (1 + np.sqrt(1 + 4 * t * t)), t
        y = following + (before - 1) / t * (following - x)
        x = following
    return np.array([values[int(r)] for r in grid])


@dataclass(frozen=True)
class BaselineRow:
    """A method's budget, and its final loss by the nodes' likeness.

    Attributes:
        method, budget, local_steps, batch_size: as in :class:`Schedule`.
        communications: rounds in all.
        gradients: sample gradients a node in all.
        loss: heterogeneity -> exact E f(xbar) at the end.
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
    step_factor: dict[str, float]
    bound: dict[str, float]


def baseline_rows(
    levels: Sequence[Heterogeneity], local_steps: int = 10, rounds: int = 50
) -> list[BaselineRow]:
    """The comparison on least squares with a power-law spectrum (n = 5, d = 256, rank 40), exact."""
    found: dict[str, list[Baseline]] = {}
    for level in levels:
        problem = least_squares(rank=40, decay=1.0, heterogeneity=level)
        found[problem.heterogeneity] = compare_baselines(
            problem, local_steps=local_steps, rounds=rounds, step_factors=(0.5, 1.0, 1.5)
        )
    rows = []
    for methods in zip(*found.values(), strict=True):
        first = methods[0]
        s = first.schedule
        rows.append(
            BaselineRow(
                s.method,
                s.budget,
                s.local_steps,
                None if s.gradient == "full" else s.batch_size,
                int(first.communications[-1]),
                float(first.gradients[-1]),
                {level: float(m.loss[-1]) for level, m in zip(found, methods, strict=True)},
                {level: m.step_factor for level, m in zip(found, methods, strict=True)},
                {level: float(m.bound[-1]) for level, m in zip(found, methods, strict=True)},
            )
        )
    return rows
