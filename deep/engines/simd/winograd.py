"""Winograd's F(2x2, 3x3) for the 3x3 convolutions of stride 1, with images in the lanes.

Two by two outputs of one pair of channels take 16 multiplications in place of 36: input tiles and
kernels are transformed, multiplied position by position, and the products, summed over channels,
transformed back: A^T [(G g G^T) . (B^T d B)] A. The gradient with respect to g is the adjoint,
G^T [sum of (A e A^T) . (B^T d B)] G. There the sum runs over pixels and images, so the input is
transposed first: channels in the lanes, one image a vector.

Measured against the direct convolution of `deep.engines.simd.kernels`: whole rounds of 20 nodes, both in
turns in one process on an idle processor with AVX-512, two cores, float32, medians of the ratios of
pairs: 1.25 and 1.26 times faster at width 8 (two runs), 1.43 and 1.44 at width 16. The rule set before
was 1.3 at both widths: at width 8 it is not met.
"""

from __future__ import annotations

from deep.engines.simd.compiled import compiled
from deep.engines.simd.products import products
from deep.engines.simd.vector import LANES
from deep.engines.simd.winograd_transforms import (
    PAD,
    POSITIONS,
    STRIP,
    transform_error,
    transform_gradient,
    transform_input,
    transform_output,
    transform_weights,
    transpose_map,
)

V = LANES
#: Tiles whose transforms lie in memory at a time in `weight_gradient`, and the number up to which
#: `convolve` takes a map at once, so that transformed weights are used while they are in cache.
_GROUP = 16


def suits(channels: int, size: int) -> bool:
    """Whether `convolve` takes a map of these channels and this side."""
    return channels % V == 0 and (size == 4 or size % 8 == 0)


def suits_gradient(channels: int, size: int) -> bool:
    """Whether `weight_gradient` does; with eight channels it was no faster than without."""
    return suits(channels, size) and channels % (2 * V) == 0


def buffer_sizes(channels: int, size: int) -> tuple[int, int, int]:
    """Floats of the buffers for transformed weights, transformed tiles, and products or maps."""
    tiles = (size // 2) ** 2
    group = min(tiles, max(_GROUP, size // 2))
    blocks = 1 if tiles <= _GROUP else channels // V
    return (
        POSITIONS * blocks * (V * channels + PAD),
        POSITIONS * (2 * group * V * channels + (channels + 2) * PAD),
        max(POSITIONS * (V * STRIP * V + PAD), channels * (size + 2) ** 2 * V),
    )


@compiled
def convolve(arena, s0, w, w0, w_out, w_in, rotate, channels, size, d0, keep, u0, v0, m0):
    """The convolution of a bordered map at ``s0`` with w[o, i], to an unbordered one at ``d0``.

    ``rotate`` turns the kernels by half a turn, which with ``w_out`` and ``w_in`` exchanged gives
    the gradient with respect to the input. ``keep`` adds to what is there. ``u0``, ``v0``, ``m0``:
    buffers as `buffer_sizes` has them.
    """
    row = (size + 2) * V
    side = size // 2
    tiles = side * side
    group = tiles if tiles <= _GROUP else STRIP
    across = min(side, STRIP)
    v_ch = group * V
    v_step = channels * v_ch + PAD
    u_step = channels * V + PAD
    m_step = V * STRIP * V + PAD
    if group < tiles:
        for o in range(0, channels, V):
            transform_weights(
                w, w0 + o * w_out, w_out, w_in, rotate, channels, arena, u0 + o * 2 * u_step
            )
    for first in range(0, tiles, group):
        for t in range(first, first + group, across):
            corner = s0 + 2 * (t // side) * row + 2 * (t % side) * V
            for i in range(channels):
                transform_input(
                    arena,
                    corner + i * (size + 2) * row,
                    row,
                    V,
                    across,
                    arena,
                    v0 + i * v_ch + (t - first) * V,
                    V,
                    v_step,
                )
        for o in range(0, channels, V):
            u = u0 if group == tiles else u0 + o * 2 * u_step
            if group == tiles:
                transform_weights(w, w0 + o * w_out, w_out, w_in, rotate, channels, arena, u)
            for strip in range(first, first + group, STRIP):
                products(
                    arena,
                    v0 + (strip - first) * V,
                    v_ch,
                    v_step,
                    STRIP,
                    u,
                    1,
                    V,
                    u_step,
                    channels,
                    m0,
                    STRIP * V,
                    m_step,
                    False,
                )
                y, x = strip // side, strip % side
                transform_output(
                    arena,
                    m0,
                    m_step,
                    across,
                    arena,
                    d0 + ((o * size + 2 * y) * size + 2 * x) * V,
                    size * size * V,
                    size * V,
                    keep,
                )


@compiled
def weight_gradient(arena, s0, e0, channels, size, grad, g0, u0, v0, m0):
    """grad[o, i] += gradient of `convolve` with respect to w, from bordered maps, the error's at ``e0``."""
    side = size // 2
    rows = min(side, max(1, _GROUP // side))
    x0 = m0
    transpose_map(arena, s0, channels, size, arena, x0)
    x_px = V * channels
    x_row = (size + 2) * x_px
    count = rows * side * V
    v_step = count * channels + PAD
    e_ch = count + PAD
    e_step = channels * e_ch + PAD
    m_step = V * channels + PAD
    ev0 = v0 + POSITIONS * v_step
    single = rows == side
    for first in range(0, side, rows):
        for y in range(rows):
            for image in range(V):
                k = y * side * V + image
                s = x0 + 2 * (first + y) * x_row + image * channels
                for c in range(0, channels, V):
                    transform_input(
                        arena,
                        s + c,
                        x_row,
                        x_px,
                        side,
                        arena,
                        v0 + k * channels + c,
                        V * channels,
                        v_step,
                    )
            for c in range(channels):
                e = e0 + ((c * (size + 2) + 2 * (first + y) + 1) * (size + 2) + 1) * V
                q = ev0 + c * e_ch + y * side * V
                transform_error(arena, e, (size + 2) * V, side, arena, q, e_step)
        for o in range(0, channels, V):
            m = u0 if single else u0 + o * 2 * m_step
            products(
                arena,
                v0,
                channels,
                v_step,
                channels // V,
                ev0 + o * e_ch,
                e_ch,
                1,
                e_step,
                count,
                m,
                channels,
                m_step,
                first > 0,
            )
            if first + rows == side:
                transform_gradient(arena, m, m_step, channels, grad, g0 + o * channels * 9)
