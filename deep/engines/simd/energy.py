"""The update of a local step together with the two numbers that the energy balance wants of it."""

from __future__ import annotations

import numpy as np

from deep.engines.simd.compiled import compiled
from deep.engines.simd.vector import (
    LANES,
    double,
    fma,
    load,
    multiply,
    splat_like,
    store,
    subtract,
    total,
    zeros_like,
)

V = LANES


@compiled
def recorded_update(w, grad, step_size):
    """``w -= step_size * grad``, bit for bit as without recording, and ``grad`` cleared.

    Returns <u, w> and ||u||^2 in float64, u being what ``w`` lost.
    """
    inner, square = double(zeros_like(w)), double(zeros_like(w))
    whole = w.shape[0] // V * V
    none = zeros_like(w)
    step = splat_like(none, step_size)
    for j in range(0, whole, V):
        before = load(w, j)
        after = subtract(before, multiply(step, load(grad, j)))
        store(w, j, after)
        store(grad, j, none)
        wide = double(before)
        moved = subtract(wide, double(after))
        inner = fma(moved, wide, inner)
        square = fma(moved, moved, square)
    sum_inner, sum_square = total(inner), total(square)
    for j in range(whole, w.shape[0]):
        old = w[j]
        w[j] -= step_size * grad[j]
        grad[j] = 0.0
        lost = np.float64(old) - np.float64(w[j])
        sum_inner += lost * old
        sum_square += lost * lost
    return sum_inner, sum_square


@compiled
def squared_distance(a, b):
    """||a - b||^2 in float64."""
    found = double(zeros_like(a))
    whole = a.shape[0] // V * V
    for j in range(0, whole, V):
        apart = subtract(double(load(a, j)), double(load(b, j)))
        found = fma(apart, apart, found)
    result = total(found)
    for j in range(whole, a.shape[0]):
        lost = np.float64(a[j]) - np.float64(b[j])
        result += lost * lost
    return result
