"""Winograd's F(2x2, 3x3) for the 3x3 convolutions of stride 1, with images in the lanes.

Two by two outputs of one pair of channels take 16 multiplications in place of 36: input tiles and
kernels are transformed, multiplied position by position, and the products, summed over channels,
transformed back: A^T [(G g G^T) . (B^T d B)] A. The gradient with respect to g is the adjoint,
G^T [sum of (A e A^T) . (B^T d B)] G. There the sum runs over pixels and images. With few channels
images stay in the lanes and lanes are added at the end; with many channels there would be too many
sums of lanes, so the input is transposed first: channels in the lanes, one image a vector.

The transforms are bound by their stores, 16 a tile; the package's text draws a tile. Storing only
B^T d and taking the differences along rows while multiplying was tried and was no faster.

Whole rounds of 20 nodes against the direct convolution, in turns in one process, AVX-512, two cores,
ratios of medians: on an idle machine 1.29, 1.31, 1.32 and 1.41 times faster at width 8 (four runs;
1.33 to 1.43 in processor time) and 1.48 at width 16 (two); at a load of 10 to 13, 1.31 to 1.35 and
1.39 to 1.40. Before `_lane_gradient` it was 1.25 and 1.43, idle. ``benchmarks/deep_speed.py``
measures it again.
"""

from __future__ import annotations

from deep.engines.simd.compiled import compiled
from deep.engines.simd.products import products, sums
from deep.engines.simd.vector import LANES
from deep.engines.simd.winograd_transforms import (
    PAD,
    POSITIONS,
    STRIP,
    clear,
    transform_error,
    transform_gradient,
    transform_input,
    transform_output,
    transform_weights,
    transpose_map,
)

V = LANES
#: Tiles whose transforms lie in memory at a time in `_transposed_gradient`, and the number up to
#: which `convolve` takes a map at once, so that transformed weights are used while in cache.
_GROUP = 16
#: The same in `_lane_gradient`, which adds lanes once a group.
_LANE_GROUP = 32
#: Channels up to which `_lane_gradient` was the faster one.
_FEW_CHANNELS = 16


def suits(channels: int, size: int) -> bool:
    """Whether `convolve` and `weight_gradient` take a map of these channels and this side."""
    return channels % V == 0 and (size == 4 or size % 8 == 0)


@compiled
def _images_in_lanes(channels):
    """Whether the weights' gradient keeps them there: transposed, it takes pairs of vectors."""
    return channels <= _FEW_CHANNELS or channels % (2 * V) != 0


def buffer_sizes(channels: int, size: int) -> tuple[int, int, int]:
    """Floats of the buffers for transformed weights, transformed tiles, and products or maps."""
    side, few = size // 2, _images_in_lanes(channels)
    tiles = side**2
    group = min(tiles, max(_LANE_GROUP if few else _GROUP, side))
    blocks = channels // V if few or tiles > _GROUP else 1
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
            u = u0 + o * 2 * u_step
            transform_weights(w, w0 + o * w_out, w_out, w_in, rotate, channels, arena, u)
    for first in range(0, tiles, group):
        for t in range(first, first + group, across):
            corner = s0 + 2 * (t // side) * row + 2 * (t % side) * V
            for i in range(channels):
                s, v = corner + i * (size + 2) * row, v0 + i * v_ch + (t - first) * V
                transform_input(arena, s, row, V, across, arena, v, V, v_step)
        for o in range(0, channels, V):
            u = u0 if group == tiles else u0 + o * 2 * u_step
            if group == tiles:
                transform_weights(w, w0 + o * w_out, w_out, w_in, rotate, channels, arena, u)
            for strip in range(first, first + group, STRIP):
                products(
                    *(arena, v0 + (strip - first) * V, v_ch, v_step, STRIP),
                    *(u, 1, V, u_step, channels, m0, STRIP * V, m_step, False),
                )
                y, x = strip // side, strip % side
                d = d0 + ((o * size + 2 * y) * size + 2 * x) * V
                d_ch, d_row = size * size * V, size * V
                transform_output(arena, m0, m_step, across, arena, d, d_ch, d_row, keep)


@compiled
def weight_gradient(arena, s0, e0, channels, size, grad, g0, u0, v0, m0):
    """grad[o, i] += gradient of `convolve` with respect to w, of bordered maps; ``e0``: errors."""
    if _images_in_lanes(channels):
        _lane_gradient(arena, s0, e0, channels, size, grad, g0, u0, v0)
    else:
        _transposed_gradient(arena, s0, e0, channels, size, grad, g0, u0, v0, m0)


@compiled
def _lane_gradient(arena, s0, e0, channels, size, grad, g0, u0, v0):
    """`weight_gradient` with images in the lanes, which are added for every group of tiles."""
    side = size // 2
    rows = min(side, max(1, _LANE_GROUP // side))
    count = rows * side
    row = (size + 2) * V
    v_ch = count * V
    v_step = channels * v_ch + PAD
    ev0 = v0 + POSITIONS * v_step
    m_step = V * channels + PAD
    clear(arena, u0, channels // V * POSITIONS * m_step)
    for first in range(0, side, rows):
        for c in range(channels):
            for y in range(rows):
                corner = (c * (size + 2) + 2 * (first + y)) * row
                v = c * v_ch + y * side * V
                transform_input(arena, s0 + corner, row, V, side, arena, v0 + v, V, v_step)
                e = e0 + corner + row + V
                transform_error(arena, e, row, side, arena, ev0 + v, v_step)
        for o in range(0, channels, V):
            sums(
                *(arena, v0, v_ch, v_step, channels, ev0 + o * v_ch, v_ch, v_step, count),
                *(u0 + o * 2 * m_step, m_step),
            )
    for o in range(0, channels, V):
        m = u0 + o * 2 * m_step
        transform_gradient(arena, m, m_step, channels, grad, g0 + o * channels * 9)


@compiled
def _transposed_gradient(arena, s0, e0, channels, size, grad, g0, u0, v0, m0):
    """`weight_gradient` with channels in the lanes, one image of one tile a vector."""
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
                    v = v0 + k * channels + c
                    transform_input(arena, s + c, x_row, x_px, side, arena, v, x_px, v_step)
            for c in range(channels):
                e = e0 + ((c * (size + 2) + 2 * (first + y) + 1) * (size + 2) + 1) * V
                q = ev0 + c * e_ch + y * side * V
                transform_error(arena, e, (size + 2) * V, side, arena, q, e_step)
        for o in range(0, channels, V):
            m = u0 if single else u0 + o * 2 * m_step
            products(
                *(arena, v0, channels, v_step, channels // V, ev0 + o * e_ch, e_ch, 1, e_step),
                *(count, m, channels, m_step, first > 0),
            )
            if first + rows == side:
                transform_gradient(arena, m, m_step, channels, grad, g0 + o * channels * 9)
