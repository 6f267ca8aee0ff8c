"""Scalar losses of a margin z = a'x: every problem here is a mean of loss(a_j'x, t_j).

A loss is two vectorised functions, a curvature bound and two facts about its minimum. Each built-in
loss also has a number, under which :mod:`theory.simulation.compiled_losses` keeps its compiled twin; a
loss of your own has ``code = -1`` and runs on the NumPy engine, and on the compiled ones if its two
functions are compiled by Numba. What it says of itself is tested on a grid by :func:`check_loss` before
a problem believes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

from theory.support.errors import UserError

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
        derivative: d loss / d z, elementwise. Where both are functions of two numbers compiled by
            ``numba.njit``, the compiled engines run the loss, too; they then work elementwise as well.
        curvature: the largest |d^2 loss / dz^2|, so that loss(a'x) is ``curvature * ||a||^2``-smooth.
        convex: whether the loss is convex in z (A1).
        attained: whether the minimum 0 is attained, at ``z = t`` (A2 with a finite x*).
        curvature_within: the smallest second derivative for ``|z - t| <= radius``, given (t, radius);
            None where the loss has no useful lower bound.
        code: number of the compiled twin, -1 if there is none.
        steepest: the largest |d loss / dz|; infinite where there is none. It bounds what a rare path
            can add to a mean of squared gradients where the loss is not convex.
    """

    name: str
    value: Callable[[Any, Any], Any]
    derivative: Callable[[Any, Any], Any]
    curvature: float
    convex: bool
    attained: bool
    curvature_within: Callable[[Array, Array], Array] | None = None
    code: int = -1
    steepest: float = float("inf")
    #: value and derivative as given, if they are compiled.
    scalar: tuple[Any, Any] | None = field(default=None, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        given = (self.value, self.derivative)
        if all(isinstance(function, Dispatcher) for function in given):
            object.__setattr__(self, "scalar", given)
            for name, function in zip(("value", "derivative"), given, strict=True):
                object.__setattr__(self, name, numba.vectorize(function.py_func))  # type: ignore[attr-defined]


def _squared(z: Array, t: Array) -> Array:
    return 0.5 * (z - t) ** 2


def _squared_derivative(z: Array, t: Array) -> Array:
    return z - t


def _squared_curvature_within(t: Array, radius: Array) -> Array:
    return np.ones(np.broadcast(t, radius).shape)


# Above it e^u is written by its logarithm.
_FAR = 300.0


def _excess(u: Array) -> Array:
    """e^u - 1 - u with all its digits, elementwise; at least 0."""
    # Below 0.3 the plain difference cancels; ten terms of the series are then exact to rounding.
    series = np.ones_like(u)
    for k in range(12, 2, -1):
        series = 1.0 + u / k * series
    small = np.abs(u) < 0.3
    return np.asarray(np.where(small, 0.5 * u * u * series, np.expm1(u) - u))


def sigmoid_difference(z: Array, t: Array) -> Array:
    """sigmoid(z) - sigmoid(t) with all its digits, where both are near each other, near 0 or near 1."""
    low, high = np.minimum(z, t), np.maximum(z, t)
    size = -sigmoid(high) * sigmoid(-low) * np.expm1(low - high)
    return np.asarray(np.where(z >= t, size, -size))


def _soft_logistic(z: Array, t: Array) -> Array:
    # log(1+e^z) - y z less its minimum at z = t, y = sigmoid(t): the difference would lose all digits
    # near the minimum and for large targets. With delta = z - t <= 0 (else the mirror image), p = y,
    # q = 1 - y it is log(p e^(q delta) + q e^(-p delta)), and as p (q delta) = q (p delta) the linear
    # terms cancel exactly: log(1 + p E(q delta) + q E(-p delta)), E(u) = e^u - 1 - u >= 0.
    delta = z - t
    mirrored = np.where(delta > 0, -t, t)
    small = np.exp(-np.abs(t))
    major, minor = 1.0 / (1.0 + small), small / (1.0 + small)
    p, q = np.where(mirrored >= 0, major, minor), np.where(mirrored >= 0, minor, major)
    size = np.abs(delta)
    up = p * size
    near = np.log1p(p * _excess(-q * size) + q * _excess(np.minimum(up, _FAR)))
    if not np.any(up > _FAR):
        return np.asarray(near)
    # Far away e^(p |delta|) would overflow; there the logarithm is of a sum of unequal terms.
    log_p, log_q = -np.logaddexp(0.0, -mirrored), -np.logaddexp(0.0, mirrored)
    return np.asarray(np.where(up > _FAR, np.logaddexp(log_q + up, log_p - q * size), near))


def _soft_logistic_derivative(z: Array, t: Array) -> Array:
    return sigmoid_difference(z, t)


def _soft_logistic_curvature_within(t: Array, radius: Array) -> Array:
    # sigmoid' is even and falls with |z|, so its least value lies farthest from 0.
    far = np.abs(t) + radius
    return sigmoid(far) * sigmoid(-far)


def _hard_logistic(z: Array, t: Array) -> Array:
    return np.logaddexp(0.0, -t * z)


def _hard_logistic_derivative(z: Array, t: Array) -> Array:
    return -t * sigmoid(-t * z)


def _sigmoid_regression(z: Array, t: Array) -> Array:
    return 0.5 * sigmoid_difference(z, t) ** 2


def _sigmoid_regression_derivative(z: Array, t: Array) -> Array:
    return sigmoid_difference(z, t) * sigmoid(z) * sigmoid(-z)


# The curvature in z is s'^2 + (s - y) s'', s = sigmoid(z), y in (0, 1) the target's: linear in y, so
# largest in size at an end, and by symmetry at y = 0, where it is s^2 (1 - s)(2 - 3s).
_S = (15.0 - np.sqrt(33.0)) / 24.0
_SIGMOID_CURVATURE = float(_S**2 * (1.0 - _S) * (2.0 - 3.0 * _S))

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
    1.0,
)
HARD_LOGISTIC = MarginLoss(
    "hard logistic", _hard_logistic, _hard_logistic_derivative, 0.25, True, False, None, 2, 1.0
)
SIGMOID_REGRESSION = MarginLoss(
    "sigmoid regression",
    _sigmoid_regression,
    _sigmoid_regression_derivative,
    _SIGMOID_CURVATURE,
    False,
    True,
    None,
    3,
    # |s - y| s (1 - s) with y in (0, 1) is below s^2 (1 - s), s = 2/3.
    4.0 / 27.0,
)
LOSSES = (SQUARED, SOFT_LOGISTIC, HARD_LOGISTIC, SIGMOID_REGRESSION)

# Least and, at least, largest distance from a target at which a loss is tested, and the share of them that
# a difference spans.
_NEAR, _REACH, _SPAN = 1e-3, 30.0, 1e-3
_MOST_TARGETS = 32


def check_loss(loss: MarginLoss, targets: Array, reach: float = 0.0) -> None:
    """Test a loss of one's own against what it says of itself, around some of its targets.

    Every test is an inequality that a true loss cannot miss by more than rounding: with slopes that
    change by at most ``curvature`` a unit, value(b) - value(a) is within curvature (b - a)^2 / 4 of
    (b - a) times the slope halfway.

    Args:
        loss: what to test.
        targets: its targets, (N,); at most 32 of them, spread over their range, are used.
        reach: largest distance of a margin from its target that matters; 30 is tested in any case.

    Raises:
        UserError: names the loss, what is wrong and where: a shape, a value that is not finite or below
            0, a minimum that is not at the target, a derivative that is not the slope or above the
            steepest, a curvature above the bound, a slope that falls though the loss is said to be convex, or a
            ``curvature_within`` above the curvature.
    """
    chosen = np.unique(targets)
    if len(chosen) > _MOST_TARGETS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _MOST_TARGETS).round().astype(int)]
    t = chosen[:, None]
    out = np.geomspace(_NEAR, max(_REACH, reach), 40)
    away = np.concatenate([-out[::-1], [0.0], out])
    low = t + away
    high = low + _SPAN * np.maximum(np.abs(away), 1.0)
    values = [_at(loss, "value", z, t) for z in (low, high)]
    slopes = [_at(loss, "derivative", z, t) for z in (low, 0.5 * (low + high), high)]
    span, scale = high - low, 1.0 + np.abs(low) + np.abs(t)
    # Rounding of z and of the value itself, with room for a careless formula.
    slack = 1e-11 * (np.abs(values[0]) + np.abs(slopes[1]) * scale + loss.curvature * scale**2)
    change = (slopes[2] - slopes[0]) / span
    bend = 1e-9 * (loss.curvature + (np.abs(slopes[0]) + np.abs(slopes[2])) / span)
    tests = [
        (values[0] >= -slack, "value", "below 0", values[0]),
        (
            np.abs(values[1] - values[0] - span * slopes[1])
            <= 0.25 * loss.curvature * span**2 + slack,
            "derivative",
            "not the slope of the value, which is about {:.6g} there",
            slopes[1],
        ),
        (
            np.abs(change) <= loss.curvature + bend,
            "second derivative",
            f"above the curvature bound {loss.curvature:.6g}",
            change,
        ),
    ]
    steep = np.abs(slopes[0])
    tests.append((steep <= loss.steepest * (1 + 1e-9), "slope", "above the steepest", slopes[0]))
    # From each point of the grid to the next too: a slope may jump in between.
    gaps = np.diff(low)
    steps = np.diff(slopes[0]) / gaps
    rough = 1e-9 * (loss.curvature + (np.abs(slopes[0][:, 1:]) + steep[:, :-1]) / gaps)
    tests.append(
        (
            np.abs(steps) <= loss.curvature + rough,
            "mean second derivative up to the next point",
            f"above the curvature bound {loss.curvature:.6g}",
            steps,
        )
    )
    if loss.convex:
        tests.append((change >= -bend, "second derivative", "below 0, so it is not convex", change))
        convex = steps >= -rough
        tests.append((convex, "second derivative", "below 0, so it is not convex", steps))
    if loss.attained:
        least = np.broadcast_to(_at(loss, "value", t, t), low.shape)
        tests.append((np.abs(least) <= slack, "value at z = t", "not the minimum 0", least))
    if loss.curvature_within is not None:
        radius = np.maximum(np.abs(low - t), np.abs(high - t))
        floor = np.asarray(loss.curvature_within(t + 0.0 * radius, radius), dtype=np.float64)
        tests.append((floor <= change + bend, "curvature_within", "above the curvature", floor))
    for passed, what, wrong, found in tests:
        if not passed.all():
            k, r = np.argwhere(~passed)[0]
            slope = (values[1][k, r] - values[0][k, r]) / span[k, r]
            raise UserError(
                f"loss {loss.name!r}: its {what} is {found[k, r]:.6g} at z = {low[k, r]:.6g}, "
                f"t = {chosen[k]:.6g}, {wrong.format(slope)}"
            )


def _at(loss: MarginLoss, name: str, z: Array, t: Array) -> Array:
    found = np.asarray(getattr(loss, name)(z, np.broadcast_to(t, z.shape)), dtype=np.float64)
    if found.shape != z.shape:
        raise UserError(
            f"loss {loss.name!r}: its {name} of arrays of shape {z.shape} has shape {found.shape}; "
            "allowed: the same shape, elementwise"
        )
    if not np.isfinite(found).all():
        k, r = np.argwhere(~np.isfinite(found))[0]
        raise UserError(
            f"loss {loss.name!r}: its {name} is {found[k, r]} at z = {z[k, r]:.6g}; "
            "allowed: finite numbers"
        )
    return found
