"""Convolution and normalisation for eight images at once, on one core.

Layout. A feature map of C channels and S x S pixels is stored as [C, S, S, LANES]: the innermost
axis is the image, so every operation acts on whole vectors and never across lanes. Maps that feed
a convolution carry a border of one zero pixel, [C, S+2, S+2, LANES]; the border is written once,
when the buffer is made, and no kernel here touches it again. Offsets and strides below count
floats, not pixels, and all arrays are flat.

A convolution is a list of taps: (offset into the source, offset into the weights). Forward,
transposed (the gradient with respect to the input) and strided convolutions differ only in their
taps and strides, so one register-tiled loop serves them all.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numba import njit

from deep.engines.simd.vector import (
    LANES,
    add,
    broadcast,
    broadcast_wide,
    fma,
    high_half,
    inverse_root,
    load,
    load_pair,
    load_twice,
    load_wide,
    low_half,
    multiply,
    relu,
    splat_like,
    store,
    subtract,
    total,
    where_positive,
    wide_fits,
    wide_zeros_like,
    zeros_like,
)

V = LANES
#: Hash of all compiled code: a function holds its callees' machine code, but Numba's cache knows
#: only the file that the function itself is in.
_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


def compiled(function):
    """Compile for this processor, cached until any file of compiled code changes."""
    dispatcher = njit(nogil=True, cache=True, error_model="numpy")(function)
    cache_file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        cache_file._source_stamp = _SOURCES
    return dispatcher


#: Pixels of an output-gradient block kept in the first-level cache by `conv_weight_gradient`.
BLOCK_PIXELS = 128
#: Below this many weights a layer's weights stay in cache while its rows go by.
SMALL_LAYER = 1 << 15


@compiled
def _tile_4x3(src, s0, s_ch, s_px, w, w0, w_out, w_in, taps, n_in, dst, d0, d_ch, d_px, keep):
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
def _tile_4x2(src, s0, s_ch, s_px, w, w0, w_out, w_in, taps, n_in, dst, d0, d_ch, d_px, keep):
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
def _tile_1x1(src, s0, s_ch, w, w0, w_in, taps, n_in, dst, d0, keep):
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
def _wide_8x4(src, s0, s_ch, s_px, packed, taps, n_in, dst, d0, d_ch, d_px, keep):
    """8 output channels x 4 pixels in 16 wide accumulators, the pixels of the source side by side."""
    z = wide_zeros_like(src)
    a0 = a1 = b0 = b1 = c0 = c1 = e0 = e1 = z
    f0 = f1 = g0 = g1 = h0 = h1 = i0 = i1 = z
    if keep:
        d = d0
        a0 = load_pair(dst, d, d + d_px)
        a1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        b0 = load_pair(dst, d, d + d_px)
        b1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        c0 = load_pair(dst, d, d + d_px)
        c1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        e0 = load_pair(dst, d, d + d_px)
        e1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        f0 = load_pair(dst, d, d + d_px)
        f1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        g0 = load_pair(dst, d, d + d_px)
        g1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        h0 = load_pair(dst, d, d + d_px)
        h1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        i0 = load_pair(dst, d, d + d_px)
        i1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
    k = 0
    for j in range(n_in):
        s = s0 + j * s_ch
        for t in range(taps.shape[0]):
            p = s + taps[t, 0]
            x0 = load_wide(src, p)
            x1 = load_wide(src, p + 2 * V)
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
    d = d0
    _store_4(dst, d, d_px, a0, a1)
    d += d_ch
    _store_4(dst, d, d_px, b0, b1)
    d += d_ch
    _store_4(dst, d, d_px, c0, c1)
    d += d_ch
    _store_4(dst, d, d_px, e0, e1)
    d += d_ch
    _store_4(dst, d, d_px, f0, f1)
    d += d_ch
    _store_4(dst, d, d_px, g0, g1)
    d += d_ch
    _store_4(dst, d, d_px, h0, h1)
    d += d_ch
    _store_4(dst, d, d_px, i0, i1)


@compiled
def _wide_8x4_strided(src, s0, s_ch, s_px, packed, taps, n_in, dst, d0, d_ch, d_px, keep):
    """8 output channels x 4 pixels in 16 wide accumulators, any distance between pixels."""
    z = wide_zeros_like(src)
    a0 = a1 = b0 = b1 = c0 = c1 = e0 = e1 = z
    f0 = f1 = g0 = g1 = h0 = h1 = i0 = i1 = z
    if keep:
        d = d0
        a0 = load_pair(dst, d, d + d_px)
        a1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        b0 = load_pair(dst, d, d + d_px)
        b1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        c0 = load_pair(dst, d, d + d_px)
        c1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        e0 = load_pair(dst, d, d + d_px)
        e1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        f0 = load_pair(dst, d, d + d_px)
        f1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        g0 = load_pair(dst, d, d + d_px)
        g1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        h0 = load_pair(dst, d, d + d_px)
        h1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
        d += d_ch
        i0 = load_pair(dst, d, d + d_px)
        i1 = load_pair(dst, d + 2 * d_px, d + 3 * d_px)
    k = 0
    for j in range(n_in):
        s = s0 + j * s_ch
        for t in range(taps.shape[0]):
            p = s + taps[t, 0]
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
    d = d0
    _store_4(dst, d, d_px, a0, a1)
    d += d_ch
    _store_4(dst, d, d_px, b0, b1)
    d += d_ch
    _store_4(dst, d, d_px, c0, c1)
    d += d_ch
    _store_4(dst, d, d_px, e0, e1)
    d += d_ch
    _store_4(dst, d, d_px, f0, f1)
    d += d_ch
    _store_4(dst, d, d_px, g0, g1)
    d += d_ch
    _store_4(dst, d, d_px, h0, h1)
    d += d_ch
    _store_4(dst, d, d_px, i0, i1)


@compiled
def _pack(w, w0, w_out, w_in, taps, n_in, packed):
    """Weights of 8 output channels in the order in which wide tiles read them, [n_in, taps, 8]."""
    k = 0
    for j in range(n_in):
        for t in range(taps.shape[0]):
            q = w0 + j * w_in + taps[t, 1]
            for c in range(8):
                packed[k + c] = w[q + c * w_out]
            k += 8


@compiled
def conv(
    src,
    s0,
    s_ch,
    s_row,
    s_px,
    w,
    w0,
    w_out,
    w_in,
    taps,
    n_in,
    n_out,
    rows,
    cols,
    dst,
    d0,
    d_ch,
    d_row,
    d_px,
    keep,
):
    """dst[o, y, x] (+)= sum over i and taps (a, b) of w[o, i, b] src[i, y, x, a].

    ``keep`` adds to what ``dst`` holds. Wide tiles take the output channels eight by eight, from
    packed weights. What is left loops over rows, output channels, pixels while the weights are
    small, else over output channels first, so that large weights are read once.
    """
    step = 1 if n_in * n_out * taps.shape[0] <= SMALL_LAYER else rows
    wide_out = n_out - n_out % 8 if wide_fits(src) and cols % 4 == 0 else 0
    if wide_out:
        packed = np.empty(8 * n_in * taps.shape[0], w.dtype)
        for o in range(0, wide_out, 8):
            _pack(w, w0 + o * w_out, w_out, w_in, taps, n_in, packed)
            for y in range(rows):
                for x in range(0, cols, 4):
                    s = s0 + y * s_row + x * s_px
                    d = d0 + o * d_ch + y * d_row + x * d_px
                    if s_px == V:
                        _wide_8x4(src, s, s_ch, s_px, packed, taps, n_in, dst, d, d_ch, d_px, keep)
                    else:
                        _wide_8x4_strided(
                            src, s, s_ch, s_px, packed, taps, n_in, dst, d, d_ch, d_px, keep
                        )
    if wide_out == n_out:
        return
    for first in range(0, rows, step):
        for o in range(wide_out, n_out - n_out % 4, 4):
            for y in range(first, first + step):
                x = 0
                while x < cols:
                    s = s0 + y * s_row + x * s_px
                    d = d0 + o * d_ch + y * d_row + x * d_px
                    left = cols - x
                    if left == 1:
                        for j in range(4):
                            _tile_1x1(
                                src,
                                s,
                                s_ch,
                                w,
                                w0 + (o + j) * w_out,
                                w_in,
                                taps,
                                n_in,
                                dst,
                                d + j * d_ch,
                                keep,
                            )
                        x += 1
                    elif left == 2 or left == 4:
                        _tile_4x2(
                            src,
                            s,
                            s_ch,
                            s_px,
                            w,
                            w0 + o * w_out,
                            w_out,
                            w_in,
                            taps,
                            n_in,
                            dst,
                            d,
                            d_ch,
                            d_px,
                            keep,
                        )
                        x += 2
                    else:
                        _tile_4x3(
                            src,
                            s,
                            s_ch,
                            s_px,
                            w,
                            w0 + o * w_out,
                            w_out,
                            w_in,
                            taps,
                            n_in,
                            dst,
                            d,
                            d_ch,
                            d_px,
                            keep,
                        )
                        x += 3
        for o in range(n_out - n_out % 4, n_out):
            for y in range(first, first + step):
                for x in range(cols):
                    _tile_1x1(
                        src,
                        s0 + y * s_row + x * s_px,
                        s_ch,
                        w,
                        w0 + o * w_out,
                        w_in,
                        taps,
                        n_in,
                        dst,
                        d0 + o * d_ch + y * d_row + x * d_px,
                        keep,
                    )


@compiled
def _weights_4x3(src, s0, s_row, s_px, err, e0, e_ch, e_row, rows, cols, grad, g0, g_out):
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
def _weights_1x1(src, s0, s_row, s_px, err, e0, e_row, rows, cols):
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
def _weights_8x3(src, s0, s_row, s_px, s_tap, err, e0, e_ch, e_row, rows, cols, grad, g0, g_out):
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


@compiled
def conv_weight_gradient(
    src, s0, s_ch, s_row, stride, err, e0, e_ch, e_row, size, n_in, n_out, kernel, grad, g0
):
    """grad[o, i, a, b] += sum over pixels and images of err[o, y, x] src[i, y*stride+a, ...].

    ``s0`` and ``e0`` point at the pixel that the first tap of output pixel (0, 0) reads, and at
    that pixel's error; ``size`` is the side of the output map.
    """
    per_out = n_in * kernel * kernel
    step = max(1, min(size, BLOCK_PIXELS // size))
    for first in range(0, size, step):
        rows = min(step, size - first)
        s1 = s0 + first * stride * s_row
        e1 = e0 + first * e_row
        o = 0
        while o < n_out:
            octet = wide_fits(src) and n_out - o >= 8
            quad = kernel == 3 and n_out - o >= 4
            # A 1x1 kernel has one tap; three input channels take the place of three taps.
            done = n_in - n_in % 3 if octet and kernel == 1 else 0
            for i in range(0, done, 3):
                _weights_8x3(
                    src,
                    s1 + i * s_ch,
                    stride * s_row,
                    stride * V,
                    s_ch,
                    err,
                    e1 + o * e_ch,
                    e_ch,
                    e_row,
                    rows,
                    size,
                    grad,
                    g0 + o * per_out + i,
                    per_out,
                )
            for i in range(done, n_in):
                s = s1 + i * s_ch
                g = g0 + o * per_out + i * kernel * kernel
                for a in range(kernel):
                    if octet and kernel == 3:
                        _weights_8x3(
                            src,
                            s + a * s_row,
                            stride * s_row,
                            stride * V,
                            V,
                            err,
                            e1 + o * e_ch,
                            e_ch,
                            e_row,
                            rows,
                            size,
                            grad,
                            g + a * 3,
                            per_out,
                        )
                    elif octet:
                        for j in range(8):
                            grad[g + j * per_out] += _weights_1x1(
                                src,
                                s,
                                stride * s_row,
                                stride * V,
                                err,
                                e1 + (o + j) * e_ch,
                                e_row,
                                rows,
                                size,
                            )
                    elif quad:
                        _weights_4x3(
                            src,
                            s + a * s_row,
                            stride * s_row,
                            stride * V,
                            err,
                            e1 + o * e_ch,
                            e_ch,
                            e_row,
                            rows,
                            size,
                            grad,
                            g + a * 3,
                            per_out,
                        )
                    else:
                        for b in range(kernel):
                            grad[g + a * kernel + b] += _weights_1x1(
                                src,
                                s + a * s_row + b * V,
                                stride * s_row,
                                stride * V,
                                err,
                                e1 + o * e_ch,
                                e_row,
                                rows,
                                size,
                            )
            o += 8 if octet else 4 if quad else 1


@compiled
def norm_statistics(src, s0, count, epsilon, stats, t0):
    """Mean and 1/sqrt(variance + epsilon) of every image over ``count`` values, into stats[t0:]."""
    m0 = m1 = m2 = m3 = zeros_like(src)
    whole = count - count % 4
    for j in range(0, whole, 4):
        p = s0 + j * V
        m0, m1 = add(m0, load(src, p)), add(m1, load(src, p + V))
        m2, m3 = add(m2, load(src, p + 2 * V)), add(m3, load(src, p + 3 * V))
    for j in range(whole, count):
        m0 = add(m0, load(src, s0 + j * V))
    share = splat_like(m0, 1.0 / count)
    mean = multiply(add(add(m0, m1), add(m2, m3)), share)
    m0 = m1 = m2 = m3 = zeros_like(src)
    for j in range(0, whole, 4):
        p = s0 + j * V
        x0, x1 = subtract(load(src, p), mean), subtract(load(src, p + V), mean)
        x2, x3 = subtract(load(src, p + 2 * V), mean), subtract(load(src, p + 3 * V), mean)
        m0, m1, m2, m3 = fma(x0, x0, m0), fma(x1, x1, m1), fma(x2, x2, m2), fma(x3, x3, m3)
    for j in range(whole, count):
        x0 = subtract(load(src, s0 + j * V), mean)
        m0 = fma(x0, x0, m0)
    variance = fma(add(add(m0, m1), add(m2, m3)), share, splat_like(m0, epsilon))
    store(stats, t0, mean)
    store(stats, t0 + V, inverse_root(variance))


@compiled
def norm_forward(
    src,
    s0,
    channels,
    size,
    epsilon,
    stats,
    t0,
    w,
    gamma,
    beta,
    add_residual,
    res,
    r0,
    rectify,
    dst,
    d0,
):
    """dst = [relu](gamma (src - mean)/std + beta [+ residual]), src unbordered, the rest bordered.

    One group over (C, H, W) and one affine pair a channel, or none where ``gamma`` is negative.
    """
    norm_statistics(src, s0, channels * size * size, epsilon, stats, t0)
    mean = load(stats, t0)
    scale = load(stats, t0 + V)
    row = (size + 2) * V
    plane = (size + 2) * row
    for c in range(channels):
        slope, shift = scale, zeros_like(src)
        if gamma >= 0:
            slope = multiply(scale, broadcast(w, gamma + c))
            shift = broadcast(w, beta + c)
        for y in range(size):
            p = s0 + (c * size + y) * size * V
            q = c * plane + (y + 1) * row + V
            for x in range(0, size * V, V):
                value = fma(subtract(load(src, p + x), mean), slope, shift)
                if add_residual:
                    value = add(value, load(res, r0 + q + x))
                if rectify:
                    value = relu(value)
                store(dst, d0 + q + x, value)


@compiled
def norm_backward(err, e0, src, s0, channels, size, stats, t0, w, gamma, beta, grad, dst, d0):
    """Gradient of `norm_forward` before residual and relu; err unbordered, dst bordered."""
    mean = load(stats, t0)
    scale = load(stats, t0 + V)
    pixels = size * size
    sum_1 = sum_x = zeros_like(src)
    for c in range(channels):
        a0 = a1 = b0 = b1 = zeros_like(src)
        p = s0 + c * pixels * V
        q = e0 + c * pixels * V
        for j in range(0, (pixels - pixels % 2) * V, 2 * V):
            u, v = load(err, q + j), load(err, q + j + V)
            a0, a1 = add(a0, u), add(a1, v)
            b0 = fma(u, subtract(load(src, p + j), mean), b0)
            b1 = fma(v, subtract(load(src, p + j + V), mean), b1)
        if pixels % 2:
            j = (pixels - 1) * V
            u = load(err, q + j)
            a0 = add(a0, u)
            b0 = fma(u, subtract(load(src, p + j), mean), b0)
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
                value = fma(subtract(load(src, s0 + p + x), mean), slope, shift)
                store(dst, d + x, fma(load(err, e0 + p + x), factor, value))


@compiled
def mask_by_output(err, e0, out, o0, channels, size):
    """err *= (out > 0), in place: the gradient of relu. err unbordered, out bordered."""
    row = (size + 2) * V
    for c in range(channels):
        for y in range(size):
            p = e0 + (c * size + y) * size * V
            q = o0 + c * (size + 2) * row + (y + 1) * row + V
            for x in range(0, size * V, V):
                store(err, p + x, where_positive(load(out, q + x), load(err, p + x)))


def forward_taps(size_in: int, kernel: int) -> np.ndarray:
    """Taps [kernel^2, 2] of a convolution that reads a bordered map of side ``size_in``.

    A 3x3 kernel starts on the border; a 1x1 kernel reads the pixel itself.
    """
    row = (size_in + 2) * V
    if kernel == 1:
        return np.array([[row + V, 0]])
    return np.array([[a * row + b * V, 3 * a + b] for a in range(3) for b in range(3)])


def backward_taps(size_out: int, stride: int, kernel: int, odd_y: int, odd_x: int) -> np.ndarray:
    """Taps of the gradient with respect to the input pixels (y, x) of one parity.

    With stride 2, input pixel y = 2 m + odd_y receives from the outputs h with 2 h + a = y + 1:
    a = 1 for even y; a = 0 and a = 2 for odd y. The offsets are relative to the bordered error
    map's pixel (m, m), border included.
    """
    row = (size_out + 2) * V
    if kernel == 1:
        return np.array([[row + V, 0]])
    strided = [[(1, 1)], [(2, 0), (1, 2)]]
    steps = [[(2 - a, a) for a in range(3)]] * 2 if stride == 1 else strided
    return np.array(
        [[h * row + g * V, 3 * a + b] for h, a in steps[odd_y] for g, b in steps[odd_x]]
    )
