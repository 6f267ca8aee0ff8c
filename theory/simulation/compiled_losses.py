"""Compiled twins of :mod:`theory.problems.losses`, and compiled losses of one's own.

Kernels take ``loss``: the number of a built-in loss, or a pair of pointers to (value, derivative), so
that one compiled kernel serves all losses of one's own.
"""

from __future__ import annotations

import math

from numba import types
from numba.extending import overload

from theory.simulation.compilation import compiled


@compiled(inline="always")
def _sigmoid(z):
    small = math.exp(-abs(z))
    return (1.0 if z >= 0 else small) / (1.0 + small)


@compiled(inline="always")
def _excess(u):
    """e^u - 1 - u with all its digits."""
    if abs(u) >= 0.3:
        return math.expm1(u) - u
    series = 1.0
    for k in range(12, 2, -1):
        series = 1.0 + u / k * series
    return 0.5 * u * u * series


@compiled(inline="always")
def _sigmoid_difference(z, t):
    """sigmoid(z) - sigmoid(t) with all its digits."""
    low, high = min(z, t), max(z, t)
    size = -_sigmoid(high) * _sigmoid(-low) * math.expm1(low - high)
    return size if z >= t else -size


@compiled()
def _built_in_value(code, z, t):
    if code == 0:
        return 0.5 * (z - t) ** 2
    if code == 1:
        size = abs(z - t)
        mirrored = -t if z > t else t
        p, q = _sigmoid(mirrored), _sigmoid(-mirrored)
        if p * size <= 300.0:
            return math.log1p(p * _excess(-q * size) + q * _excess(p * size))
        one = p * size - max(mirrored, 0.0) - math.log1p(math.exp(-abs(mirrored)))
        two = -q * size - max(-mirrored, 0.0) - math.log1p(math.exp(-abs(mirrored)))
        return max(one, two) + math.log1p(math.exp(-abs(one - two)))
    if code == 2:
        a = -t * z
        return max(a, 0.0) + math.log1p(math.exp(-abs(a)))
    return 0.5 * _sigmoid_difference(z, t) ** 2


@compiled()
def _built_in_derivative(code, z, t):
    if code == 0:
        return z - t
    if code == 1:
        return _sigmoid_difference(z, t)
    if code == 2:
        return -t * _sigmoid(-t * z)
    return _sigmoid_difference(z, t) * _sigmoid(z) * _sigmoid(-z)


def loss_value(loss, z, t):
    """loss(z, t); in compiled code by the overload below."""
    return _built_in_value(loss, z, t)


def loss_derivative(loss, z, t):
    """d loss / d z; in compiled code by the overload below."""
    return _built_in_derivative(loss, z, t)


@overload(loss_value)
def _value(loss, z, t):
    if isinstance(loss, types.BaseTuple):
        return lambda loss, z, t: loss[0](z, t)
    return lambda loss, z, t: _built_in_value(loss, z, t)


@overload(loss_derivative)
def _derivative(loss, z, t):
    if isinstance(loss, types.BaseTuple):
        return lambda loss, z, t: loss[1](z, t)
    return lambda loss, z, t: _built_in_derivative(loss, z, t)
