"""LayerNorm over (C, H, W), forward and backward, and the gradient of relu, in one working memory.

Inputs of a norm and errors are maps without a border, outputs and their gradients have one.
"""

from __future__ import annotations

from deep.engines.simd.compiled import compiled
from deep.engines.simd.vector import (
    LANES,
    add,
    broadcast,
    fma,
    inverse_root,
    load,
    multiply,
    relu,
    splat_like,
    store,
    subtract,
    total,
    where_positive,
    zeros_like,
)
from deep.resnet import EPSILON

V = LANES


@compiled
def _statistics(arena, s0, count, t0):
    """Mean and 1/sqrt(variance + EPSILON) of every image over ``count`` values, to ``t0``."""
    m0 = m1 = m2 = m3 = zeros_like(arena)
    whole = count - count % 4
    for j in range(0, whole, 4):
        p = s0 + j * V
        m0, m1 = add(m0, load(arena, p)), add(m1, load(arena, p + V))
        m2, m3 = add(m2, load(arena, p + 2 * V)), add(m3, load(arena, p + 3 * V))
    for j in range(whole, count):
        m0 = add(m0, load(arena, s0 + j * V))
    share = splat_like(m0, 1.0 / count)
    mean = multiply(add(add(m0, m1), add(m2, m3)), share)
    m0 = m1 = m2 = m3 = zeros_like(arena)
    for j in range(0, whole, 4):
        p = s0 + j * V
        x0, x1 = subtract(load(arena, p), mean), subtract(load(arena, p + V), mean)
        x2, x3 = subtract(load(arena, p + 2 * V), mean), subtract(load(arena, p + 3 * V), mean)
        m0, m1, m2, m3 = fma(x0, x0, m0), fma(x1, x1, m1), fma(x2, x2, m2), fma(x3, x3, m3)
    for j in range(whole, count):
        x0 = subtract(load(arena, s0 + j * V), mean)
        m0 = fma(x0, x0, m0)
    variance = fma(add(add(m0, m1), add(m2, m3)), share, splat_like(m0, EPSILON))
    store(arena, t0, mean)
    store(arena, t0 + V, inverse_root(variance))


@compiled
def norm_forward(arena, s0, channels, size, t0, w, gamma, beta, residual, rectify, d0):
    """[relu](gamma (source - mean)/std + beta [+ residual]), from ``s0`` to the bordered ``d0``.

    One group over (C, H, W) and one affine pair a channel, ``gamma`` and ``beta`` their positions
    in the parameters ``w``; no pair where they are negative, and no residual where that is. The
    statistics go to ``t0``.
    """
    _statistics(arena, s0, channels * size * size, t0)
    mean = load(arena, t0)
    scale = load(arena, t0 + V)
    row = (size + 2) * V
    plane = (size + 2) * row
    for c in range(channels):
        slope, shift = scale, zeros_like(arena)
        if gamma >= 0:
            slope = multiply(scale, broadcast(w, gamma + c))
            shift = broadcast(w, beta + c)
        for y in range(size):
            p = s0 + (c * size + y) * size * V
            q = c * plane + (y + 1) * row + V
            for x in range(0, size * V, V):
                value = fma(subtract(load(arena, p + x), mean), slope, shift)
                if residual >= 0:
                    value = add(value, load(arena, residual + q + x))
                if rectify:
                    value = relu(value)
                store(arena, d0 + q + x, value)


@compiled
def norm_backward(arena, e0, s0, channels, size, t0, w, gamma, beta, grad, d0):
    """Gradient of `norm_forward` before residual and relu, from the error at ``e0`` to ``d0``."""
    mean = load(arena, t0)
    scale = load(arena, t0 + V)
    pixels = size * size
    sum_1 = sum_x = zeros_like(arena)
    for c in range(channels):
        a0 = a1 = b0 = b1 = zeros_like(arena)
        p = s0 + c * pixels * V
        q = e0 + c * pixels * V
        for j in range(0, (pixels - pixels % 2) * V, 2 * V):
            u, v = load(arena, q + j), load(arena, q + j + V)
            a0, a1 = add(a0, u), add(a1, v)
            b0 = fma(u, subtract(load(arena, p + j), mean), b0)
            b1 = fma(v, subtract(load(arena, p + j + V), mean), b1)
        if pixels % 2:
            j = (pixels - 1) * V
            u = load(arena, q + j)
            a0 = add(a0, u)
            b0 = fma(u, subtract(load(arena, p + j), mean), b0)
        a0 = add(a0, a1)
        b0 = multiply(add(b0, b1), scale)
        if gamma >= 0:
            grad[beta + c] += total(a0)
            grad[gamma + c] += total(b0)
            sum_1 = fma(broadcast(w, gamma + c), a0, sum_1)
            sum_x = fma(broadcast(w, gamma + c), b0, sum_x)
        else:
            sum_1, sum_x = add(sum_1, a0), add(sum_x, b0)
    share = splat_like(mean, -1.0 / (channels * pixels))
    # d src = scale (gamma err - mean(gamma err) - xhat mean(gamma err xhat)) = k err + l src' + m
    slope = multiply(multiply(multiply(scale, scale), sum_x), share)
    shift = multiply(multiply(scale, sum_1), share)
    row = (size + 2) * V
    for c in range(channels):
        factor = multiply(scale, broadcast(w, gamma + c)) if gamma >= 0 else scale
        for y in range(size):
            p = (c * size + y) * size * V
            d = d0 + c * (size + 2) * row + (y + 1) * row + V
            for x in range(0, size * V, V):
                value = fma(subtract(load(arena, s0 + p + x), mean), slope, shift)
                store(arena, d + x, fma(load(arena, e0 + p + x), factor, value))


@compiled
def mask_by_output(arena, e0, o0, channels, size):
    """err *= (out > 0), in place: the gradient of relu. err unbordered, out bordered."""
    row = (size + 2) * V
    for c in range(channels):
        for y in range(size):
            p = e0 + (c * size + y) * size * V
            q = o0 + c * (size + 2) * row + (y + 1) * row + V
            for x in range(0, size * V, V):
                store(arena, p + x, where_positive(load(arena, q + x), load(arena, p + x)))
