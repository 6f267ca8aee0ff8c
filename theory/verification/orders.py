"""Orders: fitted slopes against the predicted exponent, and rounds to accuracy against K.

Families of instances show the order of a bound; one fixed problem in finite dimension cannot, as it
ends linearly. Everything here is deterministic and simulated, none of it is read off a closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from theory.problems.generators import Heterogeneity, least_squares
from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.support.errors import UserError
from theory.theorems import T2, T3, Instance, Theorem, instance_1, instance_2, instance_4
from theory.verification.check import FAILED, HOLDS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SlopeFit:
    """A least-squares slope in log-log coordinates.

    Attributes:
        family: what was varied.
        predicted: the exponent that the theory gives; None where it gives only an upper bound.
        tolerance: how far the slope may lie from it.
        slope, low, high: the fit and its 95% interval.
        x, y: the points.
    """

    family: str
    predicted: float | None
    tolerance: float
    slope: float
    low: float
    high: float
    x: Array
    y: Array

    @property
    def verdict(self) -> str:
        """HOLDS, FAILED, or "observed" where nothing is predicted."""
        if self.predicted is None:
            return "observed"
        return HOLDS if abs(self.slope - self.predicted) <= self.tolerance else FAILED


def fit_slope(
    x: Array, y: Array, family: str, predicted: float | None, tolerance: float = 0.05
) -> SlopeFit:
    """Fit log y on log x.

    Raises:
        UserError: fewer than 3 points, or a value that is not positive.
    """
    if len(x) < 3 or (np.asarray(x) <= 0).any() or (np.asarray(y) <= 0).any():
        raise UserError("a log-log slope needs at least 3 points, all above 0")
    fit = stats.linregress(np.log(x), np.log(y))
    half = float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr)
    slope = float(fit.slope)
    return SlopeFit(
        family,
        predicted,
        tolerance,
        slope,
        slope - half,
        slope + half,
        np.asarray(x, float),
        np.asarray(y, float),
    )


def simulate_instance(instance: Instance) -> float:
    """The instance's metric at the end of its run (mean over 1 seed unless deterministic)."""
    problem, setting = instance.problem, instance.setting
    if setting.gradient == "stochastic":
        assert isinstance(problem, MarginProblem)
        moments = exact_moments(
            problem,
            step_size=setting.step_size,
            local_steps=setting.local_steps,
            rounds=setting.rounds,
            record=[setting.iterations],
        )
        return float(instance.metric.read(moments))
    result = run_local_sgd(
        problem,
        step_size=setting.step_size,
        local_steps=setting.local_steps,
        rounds=setting.rounds,
        gradient=setting.gradient,
        record=[setting.iterations],
        averages=instance.metric.averages,
    )
    return float(instance.metric.read(result)[0])


def instance_slopes(
    largest: int = 10_000, points: int = 13, local_steps: int = 5
) -> list[SlopeFit]:
    """The measured metric of I1, I2, I4 against R (K fixed), each R its own instance."""
    rounds = np.unique(np.round(np.geomspace(largest / 100, largest, points)).astype(int))
    makers: list[tuple[str, Callable[..., Instance]]] = [
        ("I1: f(xbar_R) against R", instance_1),
        ("I2: f(xbar_R) against R", instance_2),
        ("I4: ||grad f(xbar_R)||^2 against R", instance_4),
    ]
    fits = []
    for family, maker in makers:
        values = [simulate_instance(maker(int(r), local_steps)) for r in rounds]
        fits.append(fit_slope(rounds, np.array(values), f"{family}, K = {local_steps}", -1.0))
    return fits


def power_law_problem(rank: int, decay: float, n_nodes: int = 2) -> MarginProblem:
    """Equal nodes (c = 1) whose f has curvatures k^-decay, k = 1..rank, and x_0 - x* = (k^-1/2)_k.

    Full gradients see f only, so its own smoothness 1 is the L of A0. The sum over k of
    k^-(decay+1) (1 - k^-decay)^(2t) is of order 1/t for 1 << t << rank^decay: the O(1/T) regime, on one
    problem.
    """
    k = np.arange(1, rank + 1, dtype=float)
    rows = np.diag(np.sqrt(rank * k**-decay))
    return MarginProblem(
        [rows] * n_nodes,
        [np.zeros(rank)] * n_nodes,
        start=k**-0.5,
        name="power law",
        heterogeneity="identical",
    )


def power_law_order(rank: int, decay: float, local_steps: int = 5, points: int = 20) -> SlopeFit:
    """f(xbar^t) against t on :func:`power_law_problem` at eta = 1/L, inside its O(1/T) regime."""
    problem = power_law_problem(rank, decay)
    rounds = int(rank**decay / 10) // local_steps
    grid = local_steps * np.unique(np.round(np.geomspace(2, rounds, points)).astype(int))
    run = run_local_sgd(
        problem,
        step_size=1.0 / problem.global_smoothness,
        local_steps=local_steps,
        rounds=rounds,
        gradient="full",
        averages=[],
        record=grid,
    )
    keep = np.isin(run.iterations, grid)
    family = f"power law k^-{decay:g}, equal nodes: f(xbar^t) against t, K = {local_steps}"
    return fit_slope(
        run.iterations[keep].astype(float), run.history["global_loss"][0, 0][keep], family, -1.0
    )


def power_law_slope(decay: float, iterations: int = 2000, local_steps: int = 5) -> SlopeFit:
    """f(xbar^t) on a power-law spectrum, iid nodes, exact; the theory bounds its decay only."""
    problem = least_squares(decay=decay, rank=60, heterogeneity="iid")
    grid = np.unique(np.round(np.geomspace(iterations / 50, iterations, 20)).astype(int))
    moments = exact_moments(
        problem,
        step_size=1.0 / problem.smoothness,
        local_steps=local_steps,
        rounds=iterations // local_steps,
        record=grid,
    )
    keep = moments.iterations > 0
    return fit_slope(
        moments.iterations[keep].astype(float),
        moments.history["global_loss"][keep],
        f"power law k^-{decay:g}, random x*: E f(xbar^t), K = {local_steps}",
        None,
    )


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
