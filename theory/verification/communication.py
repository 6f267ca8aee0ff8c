"""Communication: rounds to accuracy against K, measured and as the bounds need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.problems.generators import Heterogeneity, least_squares
from theory.problems.protocols import Problem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.theorems import T2, T3, Theorem, instance_1
from theory.verification.slopes import SlopeFit, fit_slope

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Communication:
    """Rounds to accuracy against K.

    Attributes:
        family: the problem.
        local_steps: K, (k,).
        rounds: measured rounds, (k,).
        bound: rounds that the theorem's bound needs, (k,).
        theorem: whose bound.
        accuracy: eps, on f(xbar_R).
        fit: slope of the measured rounds in K.
    """

    family: str
    local_steps: NDArray[np.int64]
    rounds: Array
    bound: Array
    theorem: str
    accuracy: float
    fit: SlopeFit


def rounds_to(problem: Problem, eps: float, local_steps: int, most: int) -> int:
    """First R with f(xbar_R) <= eps at eta = 1/L and full gradients; -1 if not within ``most``."""
    result = run_local_sgd(
        problem,
        step_size=1.0 / problem.smoothness,
        local_steps=local_steps,
        rounds=most,
        gradient="full",
        averages=[],
        record=np.arange(0, local_steps * most + 1, local_steps),
    )
    below = np.flatnonzero(result.history["global_loss"][0, 0] <= eps)
    return int(below[0]) if len(below) else -1


def communication(
    local_steps: Sequence[int] = (1, 2, 5, 10, 20), rounds: int = 1000
) -> list[Communication]:
    """Rounds to eps against K: no gain on I1, a K-fold gain with equal nodes (c = 1).

    Both families are tuned so that K = 1 needs about ``rounds`` rounds.
    """
    ks = np.array(local_steps)
    hard = instance_1(rounds)
    # A hair above the value at R, here and below, so that rounding cannot cost a round.
    hard_eps = hard.value * (1 + 1e-9)
    hard_rounds = np.array([rounds_to(hard.problem, hard_eps, k, rounds + 10) for k in ks], float)
    equal = least_squares(heterogeneity="identical", decay=1.0, rank=60)
    path = run_local_sgd(
        equal, step_size=1.0 / equal.smoothness, rounds=rounds, gradient="full", averages=[]
    )
    easy_eps = float(path.history["global_loss"][0, 0, -1]) * (1 + 1e-9)
    easy_rounds = np.array([rounds_to(equal, easy_eps, k, rounds // k + 10) for k in ks], float)
    families: list[tuple[str, Problem, float, Array, Theorem, float, float]] = [
        ("I1, the heterogeneous worst case", hard.problem, hard_eps, hard_rounds, T2, 0.0, 0.02),
        ("least squares, equal nodes, c = 1", equal, easy_eps, easy_rounds, T3, -1.0, 0.05),
    ]
    out = []
    for family, problem, eps, measured, theorem, predicted, tolerance in families:
        assert theorem.rounds_to is not None
        bound = np.array([theorem.rounds_to(problem, eps, int(k)) for k in ks])
        fit = fit_slope(
            ks.astype(float), measured, f"{family}: rounds to eps in K", predicted, tolerance
        )
        out.append(Communication(family, ks, measured, bound, theorem.name, eps, fit))
    return out


def typical_communication(
    heterogeneity: Heterogeneity,
    local_steps: Sequence[int] = (1, 2, 5, 10, 20),
    eps: float = 1e-3,
    most: int = 4000,
) -> Communication:
    """Rounds until the exact E f(xbar_R) <= eps on random least squares, one sample a step."""
    problem = least_squares(heterogeneity=heterogeneity, rank=10)
    ks = np.array(local_steps)
    found = []
    for k in ks:
        rounds = 64
        while True:
            moments = exact_moments(
                problem,
                step_size=1.0 / problem.smoothness,
                local_steps=int(k),
                rounds=rounds,
                record=np.arange(0, k * rounds + 1, k),
            )
            below = np.flatnonzero(moments.history["global_loss"] <= eps)
            if len(below) or rounds >= most:
                found.append(float(below[0]) if len(below) else np.nan)
                break
            rounds *= 4
    measured = np.array(found)
    theorem = T3 if problem.similarity > 0 else T2
    assert theorem.rounds_to is not None
    bound = np.array([theorem.rounds_to(problem, eps, int(k)) for k in ks])
    family = f"least squares, {problem.heterogeneity}"
    fit = fit_slope(ks.astype(float), measured, f"{family}: rounds to eps in K", None)
    return Communication(family, ks, measured, bound, theorem.name, eps, fit)
