"""What double precision leaves of a quantity that should be 0: below it no verdict means anything."""

from __future__ import annotations

import math

import numpy as np

from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.theorems import Metric, Setting

EPS = float(np.finfo(float).eps)
# Engines hold ||x - x*||^2, a quadratic form in margin space, to this share of D.
_DISTANCE_SHARE = 1e-12
# Rounding errors of a model's coordinates add up over a run to this many units in the last place.
_UNITS = 1e3
#: A step of the exact moments is a difference of terms as large as what it starts from, so that of a fall
#: by a smaller factor only rounding is left.
LOG_STEP = math.log(_UNITS * EPS)


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
    if _is_distance(metric):
        return max(_DISTANCE_SHARE * problem.initial_distance, rounding) if rounding else 0.0
    return _factor(metric, problem) * rounding


def step_resolution(metric: Metric, problem: Problem, setting: Setting) -> float:
    """What rounding may leave of exact moments in a few steps that should end at 0."""
    if metric.averaged:
        return 0.0  # the start counts too, and is not small
    scale = _factor(metric, problem) * problem.initial_distance
    return scale * math.exp(max(setting.iterations * LOG_STEP, -700.0))


def _is_distance(metric: Metric) -> bool:
    return "distance" in metric.name or metric.name == "consensus"


def _factor(metric: Metric, problem: Problem) -> float:
    """The most that a metric is at squared distance 1."""
    if _is_distance(metric):
        return 1.0
    return problem.smoothness**2 if "gradient" in metric.name else 0.5 * problem.smoothness


def inconsistency(metric: Metric, problem: MarginProblem) -> float:
    """What samples that interpolate almost may leave of a metric, which the exact moments take for 0.

    With a miss of m a sample's loss at x* is up to curvature m^2/2, and the iterates stay within about
    N m^2/sigma^2 of x*, sigma the least singular value of the samples.
    """
    left = problem.interpolation_error**2 * len(problem.targets)
    if _is_distance(metric):
        return left / float(problem.row_space.singular_values[-1]) ** 2
    curvature = problem.loss.curvature
    return curvature * left * (problem.smoothness if "gradient" in metric.name else 0.5)
