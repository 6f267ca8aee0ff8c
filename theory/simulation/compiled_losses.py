"""Compiled twins of :mod:`theory.problems.losses`, and compiled losses of one's own.

A kernel's data hold ``code``, the number of a built-in loss, or pointers to ``value`` and ``derivative``,
so that one compiled kernel serves all losses of one's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from numba import cfunc, types
from numba.core.errors import NumbaError
from numba.extending import overload

from theory.problems.losses import MarginLoss
from theory.simulation.compilation import compiled
from theory.support.errors import UserError


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
def built_in_value(code, z, t):
    """loss(z, t) of the built-in loss with that number."""
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
def built_in_derivative(code, z, t):
    """d loss / d z of the built-in loss with that number."""
    if code == 0:
        return z - t
    if code == 1:
        return _sigmoid_difference(z, t)
    if code == 2:
        return -t * _sigmoid(-t * z)
    return _sigmoid_difference(z, t) * _sigmoid(z) * _sigmoid(-z)


def loss_value(data, z, t):
    """loss(z, t) of the problem ``data`` of a kernel; for compiled code, by the overload below."""
    raise NotImplementedError


def loss_derivative(data, z, t):
    """d loss / d z of the problem ``data`` of a kernel; for compiled code, by the overload below."""
    raise NotImplementedError


def compiled_loss(loss: MarginLoss) -> tuple[int, Any, Any] | None:
    """The fields ``code``, ``value`` and ``derivative`` of a kernel's data, or None.

    Raises:
        UserError: a function that does not compile for two floats.
    """
    if loss.code >= 0:
        return loss.code, 0, 0
    if loss.scalar is None:
        return None
    value, derivative = (_pointer(f.py_func, loss.name) for f in loss.scalar)
    return loss.code, value, derivative


@lru_cache(maxsize=64)
def _pointer(function: Callable[[float, float], float], name: str) -> Any:
    try:
        return cfunc(types.float64(types.float64, types.float64))(function)
    except NumbaError as error:
        first = str(error).strip().splitlines()
        raise UserError(f"loss {name!r} does not compile for two floats: {first[0]}") from error


def _is_own(data: Any) -> bool:
    return isinstance(dict(zip(data.fields, data.types, strict=True))["value"], types.FunctionType)


@overload(loss_value)
def _value(data, z, t):
    if _is_own(data):
        return lambda data, z, t: data.value(z, t)
    return lambda data, z, t: built_in_value(data.code, z, t)


@overload(loss_derivative)
def _derivative(data, z, t):
    if _is_own(data):
        return lambda data, z, t: data.derivative(z, t)
    return lambda data, z, t: built_in_derivative(data.code, z, t)
