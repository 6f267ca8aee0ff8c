"""What double precision leaves of a quantity that should be 0: below it no verdict means anything."""

from __future__ import annotations

import numpy as np

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
