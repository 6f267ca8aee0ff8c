"""Orders: fitted log-log slopes of families against the exponent that the theory predicts.

Families of instances show the order of a bound; one fixed problem in finite dimension cannot, as it
ends linearly. Everything here is deterministic and simulated, none of it is read off a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from theory.problems.generators import least_squares
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.support.errors import UserError
from theory.support.verdicts import FAILED, HOLDS, OBSERVED
from theory.theorems import Instance, instance_1, instance_2, instance_4
from theory.verification.tightness import simulate_instance

Array = NDArray[np.float64]

UNDERCUT_READING = (
    "The curve C/sqrt(nT) is drawn through a family's first point; the factor is how far below it the "
    "last point lies. It shows that these families, for which O(1/T) and O(K/T) are tight, fall below "
    "every curve of order 1/sqrt(nT) as T grows at fixed n. It says nothing of the constants of the "
    "bound that the paper improves on, nor of n: 1/sqrt(nT) falls with n and 1/T does not, so that with "
    "more nodes than about T the older order is the smaller one."
)


@dataclass(frozen=True)
class SlopeFit:
    """A least-squares slope in log-log coordinates.

    Attributes:
        family: what was varied.
        theorem: whose order it shows, "" for none.
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
    theorem: str = ""

    @property
    def undercut(self) -> float:
        """How far below C/sqrt(nT), drawn through the first point, the last one lies, as a factor.

        x is proportional to T with n fixed, so the curve is y[0] sqrt(x[0]/x). Above 1 where the family
        falls faster; :data:`UNDERCUT_READING` says what that shows. NaN where no order is predicted.
        """
        if self.predicted is None:
            return math.nan
        return float(self.y[0] * math.sqrt(self.x[0] / self.x[-1]) / self.y[-1])

    @property
    def verdict(self) -> str:
        """HOLDS, FAILED, or "observed" where nothing is predicted."""
        if self.predicted is None:
            return OBSERVED
        return HOLDS if abs(self.slope - self.predicted) <= self.tolerance else FAILED


def fit_slope(
    x: Array,
    y: Array,
    family: str,
    predicted: float | None,
    tolerance: float = 0.05,
    theorem: str = "",
) -> SlopeFit:
    """Fit log y on log x; the other arguments as in :class:`SlopeFit`.

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
        theorem,
    )


def instance_slopes(
    largest: int = 10_000, points: int = 13, local_steps: int = 5
) -> list[SlopeFit]:
    """The measured metric of I1, I2, I4 against R (K fixed), each R its own instance."""
    rounds = np.unique(np.round(np.geomspace(largest / 100, largest, points)).astype(int))
    makers: list[tuple[str, str, Callable[..., Instance]]] = [
        ("I1: f(xbar_R) against R", "T2", instance_1),
        ("I2: f(xbar_R) against R", "T3", instance_2),
        ("I4: ||grad f(xbar_R)||^2 against R", "T6", instance_4),
    ]
    fits = []
    for family, theorem, maker in makers:
        values = np.array([simulate_instance(maker(int(r), local_steps)) for r in rounds])
        name = f"{family}, K = {local_steps}"
        fits.append(fit_slope(rounds, values, name, -1.0, theorem=theorem))
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
        run.iterations[keep].astype(float),
        run.history["global_loss"][0, 0][keep],
        family,
        -1.0,
        theorem="T3",
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
        theorem="T3",
    )
