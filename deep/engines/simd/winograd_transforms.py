"""Transforms of Winograd's F(2x2, 3x3): additions of whole vectors.

With the matrices of Lavin and Gray ("Fast algorithms for convolutional neural networks", 2016,
arXiv:1509.09308): kernels g become G g G^T, tiles d of 4x4 input pixels B^T d B, and their
products m turn into 2x2 outputs A^T m A. For the gradient with respect to g, errors e of 2x2
outputs become A e A^T, and sums of products m turn into G^T m G.
"""

from __future__ import annotations

import numpy as np

from deep.engines.simd.compiled import compiled
from deep.engines.simd.vector import (
    LANES,
    add,
    load,
    multiply,
    splat_like,
    store,
    subtract,
    transpose,
    zeros_like,
)

V = LANES
#: Positions of a transformed tile, numbered 4 y + x.
POSITIONS = 16
#: Floats left between the planes of positions, lest all of a tile fall into one cache set.
PAD = 16
#: Tiles of one `transform_output`.
STRIP = 4


@compiled
def clear(dst, d, count):
    """Zeros to ``count`` floats, a multiple of a vector."""
    for j in range(d, d + count, V):
        store(dst, j, zeros_like(dst))


@compiled
def _gather_rows(src, p, stride):
    """Eight vectors of ``src``, ``stride`` apart, transposed."""
    return transpose(
        load(src, p),
        load(src, p + stride),
        load(src, p + 2 * stride),
        load(src, p + 3 * stride),
        load(src, p + 4 * stride),
        load(src, p + 5 * stride),
        load(src, p + 6 * stride),
        load(src, p + 7 * stride),
    )


@compiled
def _store_four(dst, q, stride, four):
    store(dst, q, four[0])
    store(dst, q + stride, four[1])
    store(dst, q + 2 * stride, four[2])
    store(dst, q + 3 * stride, four[3])


@compiled
def _times_g(a, b, c, half):
    """G (a, b, c)."""
    s = multiply(add(a, c), half)
    h = multiply(b, half)
    return a, add(s, h), subtract(s, h), c


@compiled
def transform_weights(w, w0, w_out, w_in, rotate, n_in, u, k):
    """G g G^T of eight output channels, into u[k:] as [POSITIONS, n_in, 8]; padded positions."""
    half = splat_like(zeros_like(w), 0.5)
    ninth = np.empty(V, w.dtype)
    step = n_in * V + PAD
    for i in range(n_in):
        q = w0 + i * w_in
        g0, g1, g2, g3, g4, g5, g6, g7 = _gather_rows(w, q, w_out)
        for c in range(V):
            ninth[c] = w[q + c * w_out + 8]
        g8 = load(ninth, 0)
        if rotate:
            g0, g1, g2, g3, g5, g6, g7, g8 = g8, g7, g6, g5, g3, g2, g1, g0
        a0, a1, a2, a3 = _times_g(g0, g3, g6, half)
        b0, b1, b2, b3 = _times_g(g1, g4, g7, half)
        c0, c1, c2, c3 = _times_g(g2, g5, g8, half)
        p = k + i * V
        _store_four(u, p, step, _times_g(a0, b0, c0, half))
        _store_four(u, p + 4 * step, step, _times_g(a1, b1, c1, half))
        _store_four(u, p + 8 * step, step, _times_g(a2, b2, c2, half))
        _store_four(u, p + 12 * step, step, _times_g(a3, b3, c3, half))


@compiled
def _times_b(r0, r1, r2, r3):
    """B^T (r0, r1, r2, r3)."""
    return subtract(r0, r2), add(r1, r2), subtract(r2, r1), subtract(r1, r3)


@compiled
def _column(src, p, row):
    """B^T of four pixels below each other."""
    return _times_b(
        load(src, p), load(src, p + row), load(src, p + 2 * row), load(src, p + 3 * row)
    )


@compiled
def transform_input(src, s, s_row, s_px, count, v, v0, v_tile, v_step):
    """B^T d B of ``count`` tiles side by side, position p of tile t at v0 + t v_tile + p v_step."""
    a0, a1, a2, a3 = _column(src, s, s_row)
    b0, b1, b2, b3 = _column(src, s + s_px, s_row)
    for t in range(count):
        s += 2 * s_px
        c0, c1, c2, c3 = _column(src, s, s_row)
        d0, d1, d2, d3 = _column(src, s + s_px, s_row)
        q = v0 + t * v_tile
        _store_four(v, q, v_step, _times_b(a0, b0, c0, d0))
        _store_four(v, q + 4 * v_step, v_step, _times_b(a1, b1, c1, d1))
        _store_four(v, q + 8 * v_step, v_step, _times_b(a2, b2, c2, d2))
        _store_four(v, q + 12 * v_step, v_step, _times_b(a3, b3, c3, d3))
        a0, a1, a2, a3, b0, b1, b2, b3 = c0, c1, c2, c3, d0, d1, d2, d3


@compiled
def _transposed_a(m0, m1, m2, m3):
    """A^T (m0, m1, m2, m3)."""
    return add(m0, add(m1, m2)), subtract(subtract(m1, m2), m3)


@compiled
def _row_of_tile(m, q, step):
    return _transposed_a(
        load(m, q), load(m, q + step), load(m, q + 2 * step), load(m, q + 3 * step)
    )


@compiled
def transform_output(m, m0, step, across, dst, d0, d_ch, d_row, keep):
    """A^T m A of a strip of tiles of eight channels, ``across`` of them side by side."""
    for c in range(V):
        for t in range(STRIP):
            q = m0 + (c * STRIP + t) * V
            a0, b0 = _row_of_tile(m, q, step)
            a1, b1 = _row_of_tile(m, q + 4 * step, step)
            a2, b2 = _row_of_tile(m, q + 8 * step, step)
            a3, b3 = _row_of_tile(m, q + 12 * step, step)
            y0, y2 = _transposed_a(a0, a1, a2, a3)
            y1, y3 = _transposed_a(b0, b1, b2, b3)
            d = d0 + c * d_ch
            if t < across:
                d += 2 * t * V
            else:
                d += 2 * d_row + 2 * (t - across) * V
            if keep:
                y0, y1 = add(y0, load(dst, d)), add(y1, load(dst, d + V))
                y2, y3 = add(y2, load(dst, d + d_row)), add(y3, load(dst, d + d_row + V))
            store(dst, d, y0)
            store(dst, d + V, y1)
            store(dst, d + d_row, y2)
            store(dst, d + d_row + V, y3)


@compiled
def transpose_map(src, s0, channels, size, dst, d0):
    """Bordered [C, S+2, S+2, 8] to [S+2, S+2, 8, C]."""
    pixels = (size + 2) ** 2
    for j in range(pixels):
        for c in range(0, channels, V):
            r0, r1, r2, r3, r4, r5, r6, r7 = _gather_rows(
                src, s0 + (c * pixels + j) * V, pixels * V
            )
            q = d0 + j * V * channels + c
            _store_four(dst, q, channels, (r0, r1, r2, r3))
            _store_four(dst, q + 4 * channels, channels, (r4, r5, r6, r7))


@compiled
def _times_a(a, b):
    """A (a, b), but for the sign of the last."""
    return a, add(a, b), subtract(a, b), b


@compiled
def transform_error(err, e, e_row, count, v, q, step):
    """A e A^T of tiles side by side, the signs of the last row and column left to `_transposed_g`."""
    for _ in range(count):
        a, b = load(err, e), load(err, e + V)
        c, d = load(err, e + e_row), load(err, e + e_row + V)
        _store_four(v, q, step, _times_a(a, b))
        _store_four(v, q + 4 * step, step, _times_a(add(a, c), add(b, d)))
        _store_four(v, q + 8 * step, step, _times_a(subtract(a, c), subtract(b, d)))
        _store_four(v, q + 12 * step, step, _times_a(c, d))
        e += 2 * V
        q += V


@compiled
def _transposed_g(m0, m1, m2, m3, half):
    """G^T (m0, m1, m2, -m3): the sign that `_times_a` left out."""
    s = multiply(add(m1, m2), half)
    return add(m0, s), multiply(subtract(m1, m2), half), subtract(s, m3)


@compiled
def _gradient_row(m, q, step, half):
    return _transposed_g(
        load(m, q), load(m, q + step), load(m, q + 2 * step), load(m, q + 3 * step), half
    )


@compiled
def _add_to(grad, g, x):
    store(grad, g, add(load(grad, g), x))


@compiled
def transform_gradient(m, q0, step, n_in, grad, g0):
    """grad[c, i] += G^T m G for eight output channels; m [POSITIONS, 8, n_in], padded."""
    half = splat_like(zeros_like(m), 0.5)
    ninth = np.empty(V, m.dtype)
    for j in range(0, V * n_in, V):
        q = q0 + j
        a0, a1, a2 = _gradient_row(m, q, step, half)
        b0, b1, b2 = _gradient_row(m, q + 4 * step, step, half)
        c0, c1, c2 = _gradient_row(m, q + 8 * step, step, half)
        d0, d1, d2 = _gradient_row(m, q + 12 * step, step, half)
        x0, x3, x6 = _transposed_g(a0, b0, c0, d0, half)
        x1, x4, x7 = _transposed_g(a1, b1, c1, d1, half)
        x2, x5, x8 = _transposed_g(a2, b2, c2, d2, half)
        r0, r1, r2, r3, r4, r5, r6, r7 = transpose(x0, x1, x2, x3, x4, x5, x6, x7)
        store(ninth, 0, x8)
        g = g0 + j * 9
        _add_to(grad, g, r0)
        _add_to(grad, g + 9, r1)
        _add_to(grad, g + 18, r2)
        _add_to(grad, g + 27, r3)
        _add_to(grad, g + 36, r4)
        _add_to(grad, g + 45, r5)
        _add_to(grad, g + 54, r6)
        _add_to(grad, g + 63, r7)
        for c in range(V):
            grad[g + c * 9 + 8] += ninth[c]
