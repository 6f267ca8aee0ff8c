"""Convolution and its weight gradient for eight images at once, on one core: loops over tiles.

A convolution is a list of taps: (offset into the source, offset into the weights). Forward,
transposed (the gradient with respect to the input) and strided convolutions differ only in their
taps and strides, so one loop serves them all; the package's text derives this. Offsets and strides
count floats, not pixels, and all arrays are flat.
"""

from __future__ import annotations

import numpy as np

from deep.engines.simd.compiled import compiled
from deep.engines.simd.tiles import (
    pack,
    tile_1x1,
    tile_4x2,
    tile_4x3,
    weights_1x1,
    weights_4x3,
    weights_8x3,
    wide_8x4,
)
from deep.engines.simd.vector import LANES, wide_fits

V = LANES
#: Pixels of an output-gradient block kept in the first-level cache by `conv_weight_gradient`.
BLOCK_PIXELS = 128
#: Below this many weights a layer's weights stay in cache while its rows go by.
SMALL_LAYER = 1 << 15


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
            pack(w, w0 + o * w_out, w_out, w_in, taps, n_in, packed)
            for y in range(rows):
                for x in range(0, cols, 4):
                    s = s0 + y * s_row + x * s_px
                    d = d0 + o * d_ch + y * d_row + x * d_px
                    wide_8x4(src, s, s_ch, s_px, packed, taps, n_in, dst, d, d_ch, d_px, keep)
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
                            tile_1x1(
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
                        tile_4x2(
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
                        tile_4x3(
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
                    tile_1x1(
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
                weights_8x3(
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
                        weights_8x3(
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
                            grad[g + j * per_out] += weights_1x1(
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
                        weights_4x3(
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
                            grad[g + a * kernel + b] += weights_1x1(
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
