"""Rounds to accuracy against the number of clients m and against the outer step beta, beside the bounds.

T7: the bound needs L D/(2 eps) rounds for every m. T8a: L D/(2 beta eps) for a fixed beta <= 1. For
beta > 1 there is no bound; for the rules of extrapolation T8b's serves, L D/(2 eps).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theory.problems.generators import least_squares
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.simulation.outer_steps import RULES
from theory.support import numbers
from theory.support.verdicts import FAILED, HOLDS, OBSERVED, UNDECIDED
from theory.theorems import instance_1
from theory.theorems.t7_client_sampling import rounds_to as rounds_to_t7
from theory.theorems.t8_outer_step import rounds_to as rounds_to_t8
from theory.verification.first_passage import Array, looks

CLIENTS = (1, 2, 5, 10)
OUTER_STEPS: tuple[float | str, ...] = (0.5, 1.0, 1.5, 2.0, *RULES)


@dataclass(frozen=True)
class RoundsTo:
    """Rounds until f(xbar_R) is at most eps.

    Attributes:
        family: the problem.
        local_steps: K.
        clients, outer_step: m, and beta or the name of its rule.
        accuracy: eps.
        rounds: the first R at which E f(xbar_R) <= eps, exact for a fixed beta; for a rule the median
            over seeds of the first R at which f(xbar_R) <= eps. NaN if not within the rounds tried.
        bound: what T7, T8a or T8b needs; NaN where no bound covers it.
        downloads: models sent to clients until then, m a round.
        verdict: an exact count HOLDS at or below its bound and FAILED above it, and is UNDECIDED if the
            rounds tried end before either; a count without a bound, or of a rule, is observed.
    """

    family: str
    local_steps: int
    clients: int
    outer_step: float | str
    accuracy: float
    rounds: float
    bound: float
    downloads: float
    verdict: str


def rounds_to(
    problem: MarginProblem,
    eps: float,
    *,
    local_steps: int = 5,
    clients: int | None = None,
    outer_step: float | str = 1.0,
    most: int = 4096,
    seeds: int = 16,
) -> RoundsTo:
    """Rounds to accuracy on least squares at eta = 1/L, one sample a step.

    Args:
        problem: least squares.
        eps: accuracy, above 0.
        clients: m; all nodes if not given.
        most: rounds tried, at most.
        seeds: paths, for the rules.

    Raises:
        UserError: an argument outside its range.
    """
    eps = numbers.real("eps", eps, above=0)
    most = numbers.whole("most", most, 1)
    m = problem.n_nodes if clients is None else clients
    found = math.nan
    for tried in looks(64, most):
        curves = _losses(problem, local_steps, tried, m, outer_step, seeds)
        first = [np.flatnonzero(curve <= eps) for curve in curves]
        if all(len(f) for f in first):
            found = float(np.median([f[0] for f in first]))
            break
    size, distance = problem.smoothness, problem.initial_distance
    if isinstance(outer_step, str):
        bound = rounds_to_t7(L=size, D=distance, eps=eps)
    elif outer_step <= 1:
        bound = rounds_to_t8(L=size, D=distance, eps=eps, beta=outer_step)
    else:
        bound = math.nan
    return RoundsTo(
        family=f"{problem.name}, {problem.heterogeneity}",
        local_steps=local_steps,
        clients=m,
        outer_step=outer_step,
        accuracy=eps,
        rounds=found,
        bound=bound,
        downloads=found * m,
        verdict=_verdict(outer_step, found, bound, most),
    )


def _verdict(outer_step: float | str, found: float, bound: float, most: int) -> str:
    # A median of paths is no expectation, of which the bound speaks.
    if isinstance(outer_step, str) or math.isnan(bound):
        return OBSERVED
    if math.isnan(found):
        return FAILED if most >= bound else UNDECIDED
    return HOLDS if found <= bound else FAILED


def _losses(
    problem: MarginProblem,
    local_steps: int,
    rounds: int,
    clients: int,
    outer_step: float | str,
    seeds: int,
) -> list[Array]:
    """f(xbar_r) for r = 0 to R: one exact curve, or one a seed."""
    record = np.arange(0, local_steps * rounds + 1, local_steps)
    eta = 1.0 / problem.smoothness
    if not isinstance(outer_step, str):
        moments = exact_moments(
            problem,
            step_size=eta,
            local_steps=local_steps,
            rounds=rounds,
            participants=clients,
            outer_step=outer_step,
            record=record,
            averages=(),
        )
        return [moments.history["global_loss"]]
    run = run_local_sgd(
        problem,
        step_size=eta,
        local_steps=local_steps,
        rounds=rounds,
        participants=clients,
        outer_step=outer_step,
        seeds=seeds,
        averages=(),
        record=record,
    )
    return list(run.history["global_loss"][0])


def against_clients(
    problem: MarginProblem,
    eps: float = 1e-3,
    clients: Sequence[int] = CLIENTS,
    *,
    local_steps: int = 5,
) -> list[RoundsTo]:
    """Rounds to eps against m, for those m that the problem has nodes for; T7's bound is the same for all."""
    return [
        rounds_to(problem, eps, local_steps=local_steps, clients=m)
        for m in clients
        if m <= problem.n_nodes
    ]


def against_outer_step(
    problem: MarginProblem,
    eps: float = 1e-3,
    outer_steps: Sequence[float | str] = OUTER_STEPS,
    *,
    local_steps: int = 5,
) -> list[RoundsTo]:
    """Rounds to eps against beta and its rules, with all nodes."""
    return [rounds_to(problem, eps, local_steps=local_steps, outer_step=b) for b in outer_steps]


def families(rounds: int, typical: bool = True) -> list[tuple[MarginProblem, float]]:
    """The problems of the report, each with its eps.

    Args:
        rounds: I1 needs this many with the plain mean of its two nodes.
        typical: also random least squares, ten nodes, iid and sorted.
    """
    hard = instance_1(rounds)
    assert isinstance(hard.problem, MarginProblem)
    # A hair above the value at R, so that rounding cannot cost a round.
    found = [(hard.problem, hard.value * (1 + 1e-9))]
    if typical:
        for level in ("iid", "sorted"):
            found.append((least_squares(n_nodes=10, heterogeneity=level, rank=20), 1e-3))
    return found
