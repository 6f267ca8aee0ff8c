"""What double precision leaves of a quantity that should be 0: below it no verdict means anything."""

from __future__ import annotations

import numpy as np

from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.theorems import Metric

EPS = float(np.finfo(float).eps)
# Engines hold ||x - x*||^2, a quadratic form in margin space, to this share of D.
_DISTANCE_SHARE = 1e-12
# Rounding errors of a model's coordinates add up over a run to this many units in the last place.
_UNITS = 1e3


def start_resolution(problem: Problem) -> float:
    """The least D that is more than the rounding of x_0 and x*; 0 without an x*."""
    if problem.solution is None:
        return 0.0
    sizes = float(problem.solution @ problem.solution + problem.start @ problem.start)
    return (_UNITS * EPS) ** 2 * sizes


def resolution(metric: Metric, problem: Problem) -> float:
    """What rounding may leave of a sampled metric; 0 without an x*, where nothing is known.

    Args:
        metric: what is measured.
        problem: for L, D, and the sizes of x_0 and x*.
    """
    rounding = start_resolution(problem)
    if "distance" in metric.name or metric.name == "consensus":
        return max(_DISTANCE_SHARE * problem.initial_distance, rounding) if rounding else 0.0
    factor = problem.smoothness**2 if "gradient" in metric.name else 0.5 * problem.smoothness
    return factor * rounding


def inconsistency(metric: Metric, problem: MarginProblem) -> float:
    """What samples that interpolate almost may leave of a metric, which the exact moments take for 0.

    With a miss of m a sample's loss at x* is up to curvature m^2/2, and the iterates stay within about
    N m^2/sigma^2 of x*, sigma the least singular value of the samples.
    """
    left = problem.interpolation_error**2 * len(problem.targets)
    if "distance" in metric.name or metric.name == "consensus":
        return left / float(problem.row_space.singular_values[-1]) ** 2
    curvature = problem.loss.curvature
    return curvature * left * (problem.smoothness if "gradient" in metric.name else 0.5)
