"""Scalar losses of a margin z = a'x: every problem here is a mean of loss(a_j'x, t_j).

A loss is two vectorised functions, a curvature bound and two facts about its minimum. Each built-in
loss also has a number, under which :mod:`theory.simulation.kernels` keeps its compiled twin; a loss of your own
has ``code = -1`` and runs on the NumPy engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(margin: Array) -> Array:
    """1/(1 + exp(-z)) without overflow, any shape."""
    small = np.exp(-np.abs(margin))
    return np.asarray(np.where(margin >= 0, 1.0, small) / (1.0 + small))


@dataclass(frozen=True)
class MarginLoss:
    """A loss of one margin.

    Attributes:
        name: what tables call it.
        value: loss(z, t), elementwise, at least 0 with infimum 0.
        derivative: d loss / d z, elementwise.
        curvature: the largest |d^2 loss / dz^2|, so that loss(a'x) is ``curvature * ||a||^2``-smooth.
        convex: whether the loss is convex in z (A1).
        attained: whether the minimum 0 is attained, at ``z = t`` (A2 with a finite x*).
        curvature_within: the smallest second derivative for ``|z - t| <= radius``, given (t, radius);
            None where the loss has no useful lower bound.
        code: number of the compiled twin, -1 if there is none.
    """

    name: str
    value: Callable[[Array, Array], Array]
    derivative: Callable[[Array, Array], Array]
    curvature: float
    convex: bool
    attained: bool
    curvature_within: Callable[[Array, Array], Array] | None = None
    code: int = -1


def _squared(z: Array, t: Array) -> Array:
    return 0.5 * (z - t) ** 2


def _squared_derivative(z: Array, t: Array) -> Array:
    return z - t


def _squared_curvature_within(t: Array, radius: Array) -> Array:
    return np.ones(np.broadcast(t, radius).shape)


def _soft_logistic(z: Array, t: Array) -> Array:
    # log(1+e^z) - y z less its minimum at z = t, y = sigmoid(t), written in delta = z - t: the plain
    # difference would lose all digits near the minimum. For delta <= 0 it is
    # log(1 + y (e^delta - 1)) - y delta; for delta > 0 the mirror image, so nothing overflows.
    delta = z - t
    y = sigmoid(np.where(delta > 0, -t, t))
    down = -np.abs(delta)
    return np.asarray(np.maximum(np.log1p(y * np.expm1(down)) - y * down, 0.0))


def _soft_logistic_derivative(z: Array, t: Array) -> Array:
    return sigmoid(z) - sigmoid(t)


def _soft_logistic_curvature_within(t: Array, radius: Array) -> Array:
    # sigmoid' is even and falls with |z|, so its least value lies farthest from 0.
    s = sigmoid(np.abs(t) + radius)
    return s * (1.0 - s)


def _hard_logistic(z: Array, t: Array) -> Array:
    return np.logaddexp(0.0, -t * z)


def _hard_logistic_derivative(z: Array, t: Array) -> Array:
    return -t * sigmoid(-t * z)


def _sigmoid_regression(z: Array, t: Array) -> Array:
    return 0.5 * (sigmoid(z) - sigmoid(t)) ** 2


def _sigmoid_regression_derivative(z: Array, t: Array) -> Array:
    s = sigmoid(z)
    return (s - sigmoid(t)) * s * (1.0 - s)


SQUARED = MarginLoss(
    "squared", _squared, _squared_derivative, 1.0, True, True, _squared_curvature_within, 0
)
SOFT_LOGISTIC = MarginLoss(
    "soft logistic",
    _soft_logistic,
    _soft_logistic_derivative,
    0.25,
    True,
    True,
    _soft_logistic_curvature_within,
    1,
)
HARD_LOGISTIC = MarginLoss(
    "hard logistic", _hard_logistic, _hard_logistic_derivative, 0.25, True, False, None, 2
)
SIGMOID_REGRESSION = MarginLoss(
    "sigmoid regression",
    _sigmoid_regression,
    _sigmoid_regression_derivative,
    # |s'| <= 1/4, |s''| <= 1/(6 sqrt 3), residual <= 1 (theory.md, problems).
    1.0 / 16.0 + 1.0 / (6.0 * np.sqrt(3.0)),
    False,
    True,
    None,
    3,
)
LOSSES = (SQUARED, SOFT_LOGISTIC, HARD_LOGISTIC, SIGMOID_REGRESSION)
