"""The register tiles of `deep.engines.simd.kernels`: the innermost loops, written out.

Every accumulator is a variable, so that it lives in a register; the package's text says what a
tile is and how its size was chosen.
"""

from __future__ import annotations

from deep.engines.simd.compiled import compiled
from deep.engines.simd.vector import (
    LANES,
    broadcast,
    broadcast_wide,
    fma,
    high_half,
    load,
    load_pair,
    load_twice,
    load_wide,
    low_half,
    store,
    total,
    wide_zeros_like,
    zeros_like,
)

V = LANES


@compiled
def tile_4x3(src, s0, s_ch, s_px, w, w0, w_out, w_in, taps, n_in, dst, d0, d_ch, d_px, keep):
    """4 output channels x 3 pixels: 12 accumulators, the whole register file of AVX2."""
    z = zeros_like(src)
    a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = e0 = e1 = e2 = z
    if keep:
        a0, a1, a2 = load(dst, d0), load(dst, d0 + d_px), load(dst, d0 + 2 * d_px)
        d = d0 + d_ch
        b0, b1, b2 = load(dst, d), load(dst, d + d_px), load(dst, d + 2 * d_px)
        d += d_ch
        c0, c1, c2 = load(dst, d), load(dst, d + d_px), load(dst, d + 2 * d_px)
        d += d_ch
        e0, e1, e2 = load(dst, d), load(dst, d + d_px), load(dst, d + 2 * d_px)
    for i in range(n_in):
        s = s0 + i * s_ch
        q = w0 + i * w_in
        for t in range(taps.shape[0]):
            p = s + taps[t, 0]
            k = q + taps[t, 1]
            x0 = load(src, p)
            x1 = load(src, p + s_px)
            x2 = load(src, p + 2 * s_px)
            g = broadcast(w, k)
            a0, a1, a2 = fma(g, x0, a0), fma(g, x1, a1), fma(g, x2, a2)
            g = broadcast(w, k + w_out)
            b0, b1, b2 = fma(g, x0, b0), fma(g, x1, b1), fma(g, x2, b2)
            g = broadcast(w, k + 2 * w_out)
            c0, c1, c2 = fma(g, x0, c0), fma(g, x1, c1), fma(g, x2, c2)
            g = broadcast(w, k + 3 * w_out)
            e0, e1, e2 = fma(g, x0, e0), fma(g, x1, e1), fma(g, x2, e2)
    d = d0
    store(dst, d, a0)
    store(dst, d + d_px, a1)
    store(dst, d + 2 * d_px, a2)
    d += d_ch
    store(dst, d, b0)
    store(dst, d + d_px, b1)
    store(dst, d + 2 * d_px, b2)
    d += d_ch
    store(dst, d, c0)
    store(dst, d + d_px, c1)
    store(dst, d + 2 * d_px, c2)
    d += d_ch
    store(dst, d, e0)
    store(dst, d + d_px, e1)
    store(dst, d + 2 * d_px, e2)


@compiled
def tile_4x2(src, s0, s_ch, s_px, w, w0, w_out, w_in, taps, n_in, dst, d0, d_ch, d_px, keep):
    """4 output channels x 2 pixels, for rows that three does not divide."""
    z = zeros_like(src)
    a0 = a1 = b0 = b1 = c0 = c1 = e0 = e1 = z
    if keep:
        a0, a1 = load(dst, d0), load(dst, d0 + d_px)
        b0, b1 = load(dst, d0 + d_ch), load(dst, d0 + d_ch + d_px)
        c0, c1 = load(dst, d0 + 2 * d_ch), load(dst, d0 + 2 * d_ch + d_px)
        e0, e1 = load(dst, d0 + 3 * d_ch), load(dst, d0 + 3 * d_ch + d_px)
    for i in range(n_in):
        s = s0 + i * s_ch
        q = w0 + i * w_in
        for t in range(taps.shape[0]):
            p = s + taps[t, 0]
            k = q + taps[t, 1]
            x0 = load(src, p)
            x1 = load(src, p + s_px)
            g = broadcast(w, k)
            a0, a1 = fma(g, x0, a0), fma(g, x1, a1)
            g = broadcast(w, k + w_out)
            b0, b1 = fma(g, x0, b0), fma(g, x1, b1)
            g = broadcast(w, k + 2 * w_out)
            c0, c1 = fma(g, x0, c0), fma(g, x1, c1)
            g = broadcast(w, k + 3 * w_out)
            e0, e1 = fma(g, x0, e0), fma(g, x1, e1)
    store(dst, d0, a0)
    store(dst, d0 + d_px, a1)
    store(dst, d0 + d_ch, b0)
    store(dst, d0 + d_ch + d_px, b1)
    store(dst, d0 + 2 * d_ch, c0)
    store(dst, d0 + 2 * d_ch + d_px, c1)
    store(dst, d0 + 3 * d_ch, e0)
    store(dst, d0 + 3 * d_ch + d_px, e1)


@compiled
def tile_1x1(src, s0, s_ch, w, w0, w_in, taps, n_in, dst, d0, keep):
    """One output channel, one pixel: what the larger tiles leave over."""
    a = load(dst, d0) if keep else zeros_like(src)
    for i in range(n_in):
        s = s0 + i * s_ch
        q = w0 + i * w_in
        for t in range(taps.shape[0]):
            a = fma(broadcast(w, q + taps[t, 1]), load(src, s + taps[t, 0]), a)
    store(dst, d0, a)


@compiled
def _store_4(dst, d, d_px, first, second):
    """Four pixels of one channel."""
    store(dst, d, low_half(first))
    store(dst, d + d_px, high_half(first))
    store(dst, d + 2 * d_px, low_half(second))
    store(dst, d + 3 * d_px, high_half(second))


@compiled
def _load_4(src, p, s_px):
    """Four pixels of one channel, ``s_px`` apart, as two wide vectors."""
    return load_pair(src, p, p + s_px), load_pair(src, p + 2 * s_px, p + 3 * s_px)


@compiled
def wide_8x4(src, s0, s_ch, s_px, packed, taps, n_in, dst, d0, d_ch, d_px, keep):
    """8 output channels x 4 pixels in 16 wide accumulators, two pixels side by side in each."""
    z = wide_zeros_like(src)
    a0 = a1 = b0 = b1 = c0 = c1 = e0 = e1 = z
    f0 = f1 = g0 = g1 = h0 = h1 = i0 = i1 = z
    if keep:
        a0, a1 = _load_4(dst, d0, d_px)
        b0, b1 = _load_4(dst, d0 + d_ch, d_px)
        c0, c1 = _load_4(dst, d0 + 2 * d_ch, d_px)
        e0, e1 = _load_4(dst, d0 + 3 * d_ch, d_px)
        f0, f1 = _load_4(dst, d0 + 4 * d_ch, d_px)
        g0, g1 = _load_4(dst, d0 + 5 * d_ch, d_px)
        h0, h1 = _load_4(dst, d0 + 6 * d_ch, d_px)
        i0, i1 = _load_4(dst, d0 + 7 * d_ch, d_px)
    adjacent = s_px == V
    k = 0
    for j in range(n_in):
        s = s0 + j * s_ch
        for t in range(taps.shape[0]):
            p = s + taps[t, 0]
            # Always the same way along a tile; one load of neighbours is cheaper than two.
            if adjacent:
                x0 = load_wide(src, p)
                x1 = load_wide(src, p + 2 * V)
            else:
                x0 = load_pair(src, p, p + s_px)
                x1 = load_pair(src, p + 2 * s_px, p + 3 * s_px)
            y = broadcast_wide(packed, k)
            a0, a1 = fma(y, x0, a0), fma(y, x1, a1)
            y = broadcast_wide(packed, k + 1)
            b0, b1 = fma(y, x0, b0), fma(y, x1, b1)
            y = broadcast_wide(packed, k + 2)
            c0, c1 = fma(y, x0, c0), fma(y, x1, c1)
            y = broadcast_wide(packed, k + 3)
            e0, e1 = fma(y, x0, e0), fma(y, x1, e1)
            y = broadcast_wide(packed, k + 4)
            f0, f1 = fma(y, x0, f0), fma(y, x1, f1)
            y = broadcast_wide(packed, k + 5)
            g0, g1 = fma(y, x0, g0), fma(y, x1, g1)
            y = broadcast_wide(packed, k + 6)
            h0, h1 = fma(y, x0, h0), fma(y, x1, h1)
            y = broadcast_wide(packed, k + 7)
            i0, i1 = fma(y, x0, i0), fma(y, x1, i1)
            k += 8
    _store_4(dst, d0, d_px, a0, a1)
    _store_4(dst, d0 + d_ch, d_px, b0, b1)
    _store_4(dst, d0 + 2 * d_ch, d_px, c0, c1)
    _store_4(dst, d0 + 3 * d_ch, d_px, e0, e1)
    _store_4(dst, d0 + 4 * d_ch, d_px, f0, f1)
    _store_4(dst, d0 + 5 * d_ch, d_px, g0, g1)
    _store_4(dst, d0 + 6 * d_ch, d_px, h0, h1)
    _store_4(dst, d0 + 7 * d_ch, d_px, i0, i1)


@compiled
def pack(w, w0, w_out, w_in, taps, n_in, packed):
    """Weights of 8 output channels in the order in which wide tiles read them, [n_in, taps, 8]."""
    k = 0
    for j in range(n_in):
        for t in range(taps.shape[0]):
            q = w0 + j * w_in + taps[t, 1]
            for c in range(8):
                packed[k + c] = w[q + c * w_out]
            k += 8


@compiled
def weights_4x3(src, s0, s_row, s_px, err, e0, e_ch, e_row, rows, cols, grad, g0, g_out):
    """Gradient of one kernel row (3 taps) of 4 output channels for one input channel."""
    z = zeros_like(src)
    a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = d0 = d1 = d2 = z
    for y in range(rows):
        p = s0 + y * s_row
        q = e0 + y * e_row
        for _ in range(cols):
            x0 = load(src, p)
            x1 = load(src, p + V)
            x2 = load(src, p + 2 * V)
            e = load(err, q)
            a0, a1, a2 = fma(e, x0, a0), fma(e, x1, a1), fma(e, x2, a2)
            e = load(err, q + e_ch)
            b0, b1, b2 = fma(e, x0, b0), fma(e, x1, b1), fma(e, x2, b2)
            e = load(err, q + 2 * e_ch)
            c0, c1, c2 = fma(e, x0, c0), fma(e, x1, c1), fma(e, x2, c2)
            e = load(err, q + 3 * e_ch)
            d0, d1, d2 = fma(e, x0, d0), fma(e, x1, d1), fma(e, x2, d2)
            p += s_px
            q += V
    grad[g0] += total(a0)
    grad[g0 + 1] += total(a1)
    grad[g0 + 2] += total(a2)
    g0 += g_out
    grad[g0] += total(b0)
    grad[g0 + 1] += total(b1)
    grad[g0 + 2] += total(b2)
    g0 += g_out
    grad[g0] += total(c0)
    grad[g0 + 1] += total(c1)
    grad[g0 + 2] += total(c2)
    g0 += g_out
    grad[g0] += total(d0)
    grad[g0 + 1] += total(d1)
    grad[g0 + 2] += total(d2)


@compiled
def weights_1x1(src, s0, s_row, s_px, err, e0, e_row, rows, cols):
    """Gradient of a single tap."""
    a = zeros_like(src)
    for y in range(rows):
        for x in range(cols):
            a = fma(load(err, e0 + y * e_row + x * V), load(src, s0 + y * s_row + x * s_px), a)
    return total(a)


@compiled
def _add_totals(grad, g0, g_out, wide):
    """Totals of the halves, into the gradients of two neighbouring output channels."""
    grad[g0] += total(low_half(wide))
    grad[g0 + g_out] += total(high_half(wide))


@compiled
def weights_8x3(src, s0, s_row, s_px, s_tap, err, e0, e_ch, e_row, rows, cols, grad, g0, g_out):
    """Gradient of 8 output channels for three taps ``s_tap`` apart: two channels a wide vector."""
    z = wide_zeros_like(src)
    a0 = a1 = a2 = b0 = b1 = b2 = c0 = c1 = c2 = d0 = d1 = d2 = z
    for y in range(rows):
        p = s0 + y * s_row
        q = e0 + y * e_row
        for _ in range(cols):
            x0 = load_twice(src, p)
            x1 = load_twice(src, p + s_tap)
            x2 = load_twice(src, p + 2 * s_tap)
            e = load_pair(err, q, q + e_ch)
            a0, a1, a2 = fma(e, x0, a0), fma(e, x1, a1), fma(e, x2, a2)
            e = load_pair(err, q + 2 * e_ch, q + 3 * e_ch)
            b0, b1, b2 = fma(e, x0, b0), fma(e, x1, b1), fma(e, x2, b2)
            e = load_pair(err, q + 4 * e_ch, q + 5 * e_ch)
            c0, c1, c2 = fma(e, x0, c0), fma(e, x1, c1), fma(e, x2, c2)
            e = load_pair(err, q + 6 * e_ch, q + 7 * e_ch)
            d0, d1, d2 = fma(e, x0, d0), fma(e, x1, d1), fma(e, x2, d2)
            p += s_px
            q += V
    _add_totals(grad, g0, g_out, a0)
    _add_totals(grad, g0 + 1, g_out, a1)
    _add_totals(grad, g0 + 2, g_out, a2)
    g0 += 2 * g_out
    _add_totals(grad, g0, g_out, b0)
    _add_totals(grad, g0 + 1, g_out, b1)
    _add_totals(grad, g0 + 2, g_out, b2)
    g0 += 2 * g_out
    _add_totals(grad, g0, g_out, c0)
    _add_totals(grad, g0 + 1, g_out, c1)
    _add_totals(grad, g0 + 2, g_out, c2)
    g0 += 2 * g_out
    _add_totals(grad, g0, g_out, d0)
    _add_totals(grad, g0 + 1, g_out, d1)
    _add_totals(grad, g0 + 2, g_out, d2)
