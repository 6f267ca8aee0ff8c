"""What every sample path satisfies before any is seen, so that a mean over paths can be trusted.

Convex losses under interpolation, eta <= 2/L (Lemma 1). No step and no averaging raises the nodes' mean
squared distance to x*, so that it stays at most D, and a loss at most B = L D/2. That alone would let
the mean of T losses be B; but the losses l^t of the batches that a path uses (their mean over nodes)
sum to at most s B, s = 1/(phi eta L), on every path (T0), and the mean f^t of the nodes' losses is the
expectation of l^t given the past. As l^t lies in [0, B], E exp(-a l^t/B) <= exp(-(1 - exp(-a)) f^t/B)
for every a > 0, so that exp(sum_t [(1 - exp(-a)) f^t - a l^t]/B) has expectation at most 1, and with
b = 1 - exp(-a),

    E exp(b sum_t f^t / B) <= exp(a s) = (1 - b)^-s        for 0 < b < 1:

the sum of the losses has the tails of a Gamma variable of shape s and scale B at most. The sums over
synchronisations are parts of it, and f(xbar^t) <= f^t/c (A3).

Separable logistic: the same, with T5's bracket G for D: the distance to the comparator u = s w stays
below sqrt(G), a loss below l(u) + max ||a|| sqrt(G), and the batch losses sum to at most
G/(2 eta (1 - eta L)) on every path.

Without convexity: the gradient of f is at most the largest slope of the loss times max ||a||; and as
the square root of an L-smooth non-negative loss changes by at most sqrt(L/2) a unit, one step raises
the largest loss of any sample by a factor (1 + eta L)^2 at most, so that ||grad f||^2 <= 2 L f <=
2 L (1 + eta L)^(2T) max_j f_j(x_0).
"""

from __future__ import annotations

import math

import numpy as np

from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.simulation.local_sgd import LocalSGDResult
from theory.theorems import Metric, Setting
from theory.theorems.assumptions import cautious_server, outer_factor, phi
from theory.theorems.t5_separable import comparator_bound
from theory.verification.intervals import Range

NOTHING = Range()


def path_range(metric: Metric, problem: Problem, setting: Setting) -> Range:
    """The range of a metric at the end of a run.

    Args:
        metric: what is measured.
        problem: with all of A0-A2, or separable, or neither.
        setting: how it is run; samples are drawn uniformly, and nothing is left out.

    Returns:
        :data:`NOTHING` where no range is known.
    """
    found = NOTHING
    if _contracts(problem, setting):
        found = _convex(metric, problem, setting)
    elif (
        problem.convex
        and problem.margin > 0
        and isinstance(problem, MarginProblem)
        and setting.outer_step == 1.0
    ):
        found = _separable(metric, problem, setting)
    if "gradient" in metric.name and isinstance(problem, MarginProblem):
        found = _least(found, _gradient(problem, setting))
    return found


def paths_agree(problem: Problem, setting: Setting, result: LocalSGDResult) -> bool:
    """Whether the sampled paths of a convex run are what their ranges rest on: T0 and Lemma 1 hold.

    They must, and are free to check; a range that its own paths contradict is worth nothing.
    """
    if not _contracts(problem, setting):
        return True
    d, slack = problem.initial_distance, 1 + 1e-9
    if "batch_loss" not in result.averages:
        return True
    sums = result.averages["batch_loss"][..., -1] * setting.iterations
    far = result.history["local_distance"]
    allowed = _sum_of_losses(problem, setting)
    return bool((sums <= allowed * slack).all() and (far <= d * slack).all())


def _contracts(problem: Problem, setting: Setting) -> bool:
    """A0-A2, a local step below 2/L, and an outer step that Lemma 2 lets no distance grow under."""
    return (
        cautious_server(problem, setting).holds
        and problem.convex
        and problem.solution is not None
        and 0 < setting.step_size * problem.smoothness < 2
    )


def _sum_of_losses(problem: Problem, setting: Setting) -> float:
    """What the batch losses of a path sum to at most, T0."""
    eta = setting.step_size
    factor = 2 * phi(eta * problem.smoothness) * eta * outer_factor(setting)
    return problem.initial_distance / factor


def _convex(metric: Metric, problem: Problem, setting: Setting) -> Range:
    smoothness, d = problem.smoothness, problem.initial_distance
    if "distance" in metric.name or metric.name == "consensus":
        return Range(most=d, reason="no path leaves the ball of radius sqrt(D)")
    loss = 0.5 * smoothness * d
    return _summed(metric, problem, setting, loss, _sum_of_losses(problem, setting), 2 * smoothness)


def _separable(metric: Metric, problem: MarginProblem, setting: Setting) -> Range:
    eta = setting.step_size
    if eta * problem.smoothness >= 1:
        return NOTHING
    bracket = comparator_bound(problem, setting, setting.iterations)
    if "distance" in metric.name or metric.name == "consensus":
        spread = Range(most=bracket, reason="no path is far from the comparator")
        return spread if metric.name == "consensus" else NOTHING
    loss = math.log(2) + float(_norms(problem).max()) * math.sqrt(bracket)
    total = bracket / (2 * eta * (1 - eta * problem.smoothness))
    return _summed(metric, problem, setting, loss, total, 2 * problem.smoothness)


def _summed(
    metric: Metric, problem: Problem, setting: Setting, loss: float, total: float, steepness: float
) -> Range:
    """Range of a metric made of losses in [0, loss], the batches' summing to ``total`` at most.

    ``steepness`` is the most of ||grad f||^2 / f.
    """
    unit = steepness if "gradient" in metric.name else 1.0
    if not metric.averaged or loss == 0:
        return Range(most=unit * loss, reason="no loss is above L D/2")
    count = setting.rounds if metric.at_rounds else setting.iterations
    if metric.name == "batch_loss":
        return Range(most=total / count, reason="T0 on every path")
    if metric.name == "global_loss":
        if not problem.similarity > 0:
            return Range(most=loss, reason="no loss is above L D/2")
        unit /= problem.similarity
    return Range(
        most=unit * loss if metric.name != "global_loss" else loss,
        shape=total / loss,
        scale=unit * loss / count,
        reason="T0 on every path",
    )


def _gradient(problem: MarginProblem, setting: Setting) -> Range:
    """||grad f||^2 without convexity."""
    norms = _norms(problem)
    steepest = problem.loss.steepest * float(norms.max())
    losses = problem.loss.value(problem.margins(problem.start), problem.targets)
    growth = 2 * setting.iterations * math.log1p(setting.step_size * problem.smoothness)
    most = math.inf
    # An outer step may take the mean beyond all the models.
    if growth < 700 and setting.outer_step == 1.0:
        most = 2 * problem.smoothness * math.exp(growth) * float(np.max(losses))
    return Range(most=min(most, steepest**2), reason="slopes are bounded")


def _least(one: Range, other: Range) -> Range:
    """Both at once."""
    if other.most >= one.most:
        return one
    return Range(other.most, one.shape, one.scale, other.reason)


def _norms(problem: MarginProblem) -> np.ndarray:
    return np.asarray(np.linalg.norm(problem.features, axis=1))
