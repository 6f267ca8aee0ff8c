"""Forward and backward of ResNet18 on eight images, as one compiled call a round.

`local_steps` runs all K steps of one node without returning to Python: gather, normalise,
forward, backward, update. One core works on one node, so nodes run side by side in threads and the
result does not depend on how many there are.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import exp, log, prod

import numpy as np

from deep.engines.simd.kernels import (
    backward_taps,
    compiled,
    conv,
    conv_weight_gradient,
    forward_taps,
    mask_by_output,
    norm_backward,
    norm_forward,
)
from deep.engines.simd.vector import LANES, add, load, plain, store, zeros_like
from deep.engines.simd.winograd import (
    buffer_sizes,
    convolve,
    suits,
    suits_gradient,
    weight_gradient,
)
from deep.resnet import EPSILON, Architecture, block_shapes, n_parameters, parameter_shapes

V = LANES
# Columns of the block table: channels, sides, stride; positions of parameters, maps, statistics.
C_IN, C_OUT, S_IN, S_OUT, STRIDE, SHORTCUT = range(6)
W1, G1, B1, W2, G2, B2, WS, GS, BS = range(6, 15)
X, A1, H1, A2, AS, RS, OUT = range(15, 22)
T1, T2, TS = range(22, 25)
GX, G, D, E = range(25, 29)
FAST, FAST_GRADIENT, COLUMNS = 29, 30, 31
# Rows of the tap table for block b: TAP_ROWS * b + one of these; BACK_1 has four, one a parity.
FORWARD_1, FORWARD_2, FORWARD_S, BACK_2, BACK_S, BACK_1 = 0, 1, 2, 3, 4, 5
TAP_ROWS = 9


@dataclass(frozen=True)
class Plan:
    """Where everything lies: built once for an architecture, shared by all threads.

    ``blocks`` [8, COLUMNS], ``taps`` [8 * TAP_ROWS, 9, 2], ``tap_counts`` [8 * TAP_ROWS],
    ``ends`` positions of stem and head, ``arena_size`` floats of working memory a thread.
    """

    blocks: np.ndarray
    taps: np.ndarray
    tap_counts: np.ndarray
    ends: np.ndarray
    arena_size: int
    n_parameters: int


# Entries of Plan.ends.
WIDTH, SIZE, CLASSES, STEM_W, STEM_G, STEM_B, HEAD_W, HEAD_B = range(8)
INPUT, STEM_A, STEM_OUT, STEM_T, POOLED, LOGITS = range(8, 14)
KERNELS, TILES, PRODUCTS, ENDS = range(14, 18)


def make_plan(architecture: Architecture) -> Plan:
    """Lay out parameters, feature maps and taps for `local_steps`."""
    # A norm without scale and shift: the kernels take a negative position for that.
    position: defaultdict[str, int] = defaultdict(lambda: -1)
    start = 0
    for name, shape in parameter_shapes(architecture):
        position[name] = start
        start += prod(shape)
    shapes = block_shapes(architecture)
    used = 0

    def reserve(pixels: int) -> int:
        nonlocal used
        first = used
        # Multiples of 16 floats keep every buffer on a cache line.
        used += -(-pixels * V // 16) * 16
        return first

    def bordered(channels: int, size: int) -> int:
        return reserve(channels * (size + 2) ** 2)

    def plain(channels: int, size: int) -> int:
        return reserve(channels * size * size)

    width, size = architecture.width, architecture.image_size
    ends = np.zeros(ENDS, np.int64)
    ends[[WIDTH, SIZE, CLASSES]] = width, size, architecture.classes
    ends[[STEM_W, STEM_G, STEM_B]] = (
        position["stem.weight"],
        position["stem_norm.weight"],
        position["stem_norm.bias"],
    )
    ends[[HEAD_W, HEAD_B]] = position["head.weight"], position["head.bias"]
    ends[INPUT], ends[STEM_A] = bordered(3, size), plain(width, size)
    ends[STEM_OUT], ends[STEM_T] = bordered(width, size), reserve(2)

    blocks = np.zeros((len(shapes), COLUMNS), np.int64)
    taps = np.zeros((len(shapes) * TAP_ROWS, 9, 2), np.int64)
    counts = np.zeros(len(shapes) * TAP_ROWS, np.int64)
    # Gradient buffers (G unbordered, D bordered, E unbordered) serve all blocks of one shape.
    work: dict[tuple[int, int], tuple[int, int, int]] = {}
    for key in [(width, size)] + [(s.n_out, s.size_out) for s in shapes]:
        if key not in work:
            work[key] = plain(*key), bordered(*key), plain(*key)
    # Buffers of the Winograd transforms serve all blocks.
    transforms = np.zeros(3, np.int64)
    below, gradient_below = int(ends[STEM_OUT]), work[(width, size)][0]
    for index, (row, s) in enumerate(zip(blocks, shapes, strict=True)):
        row[[C_IN, C_OUT, S_IN, S_OUT]] = s.n_in, s.n_out, s.size_in, s.size_out
        row[[STRIDE, SHORTCUT, X]] = s.stride, s.has_shortcut, below
        for column, part in zip(
            (W1, G1, B1, W2, G2, B2),
            (
                "conv1.weight",
                "norm1.weight",
                "norm1.bias",
                "conv2.weight",
                "norm2.weight",
                "norm2.bias",
            ),
            strict=True,
        ):
            row[column] = position[f"blocks.{index}.{part}"]
        out = s.n_out, s.size_out
        row[A1], row[H1] = plain(*out), bordered(*out)
        row[A2], row[OUT] = plain(*out), bordered(*out)
        row[T1], row[T2], row[TS] = reserve(2), reserve(2), reserve(2)
        row[GX], row[[G, D, E]] = gradient_below, work[out]
        row[FAST] = suits(*out)
        row[FAST_GRADIENT] = suits_gradient(*out)
        if row[FAST]:
            transforms = np.maximum(transforms, buffer_sizes(*out))
        tables = {
            FORWARD_1: forward_taps(s.size_in, 3),
            FORWARD_2: forward_taps(s.size_out, 3),
            BACK_2: backward_taps(s.size_out, 1, 3, 0, 0),
        }
        for parity in range(4 if s.stride == 2 else 1):
            tables[BACK_1 + parity] = backward_taps(
                s.size_out, s.stride, 3, parity // 2, parity % 2
            )
        if s.has_shortcut:
            for column, part in zip(
                (WS, GS, BS),
                ("shortcut.weight", "shortcut_norm.weight", "shortcut_norm.bias"),
                strict=True,
            ):
                row[column] = position[f"blocks.{index}.{part}"]
            row[AS], row[RS] = plain(*out), bordered(*out)
            tables[FORWARD_S] = forward_taps(s.size_in, 1)
            tables[BACK_S] = backward_taps(s.size_out, s.stride, 1, 0, 0)
        for which, table in tables.items():
            taps[index * TAP_ROWS + which, : len(table)] = table
            counts[index * TAP_ROWS + which] = len(table)
        below, gradient_below = int(row[OUT]), int(row[G])
    ends[POOLED], ends[LOGITS] = reserve(shapes[-1].n_out), reserve(architecture.classes)
    ends[[KERNELS, TILES, PRODUCTS]] = [reserve(-(-int(floats) // V)) for floats in transforms]
    return Plan(blocks, taps, counts, ends, used, n_parameters(architecture))


def make_arena(plan: Plan, dtype: np.dtype) -> np.ndarray:
    """Zeroed working memory of one thread, on a cache line (the borders rely on the zeros)."""
    raw = np.zeros(plan.arena_size + 16, dtype)
    skip = (-raw.ctypes.data // raw.itemsize) % (64 // raw.itemsize)
    return raw[skip : skip + plan.arena_size]


@compiled
def _gather(images, table, chosen, start, stop, arena, ends):
    """Normalise images chosen[start:stop] into the bordered input; unused lanes become zero."""
    size = ends[SIZE]
    row = (size + 2) * V
    for lane in range(V):
        used = start + lane < stop
        index = chosen[start + lane] if used else 0
        for c in range(3):
            for y in range(size):
                d = ends[INPUT] + (c * (size + 2) + y + 1) * row + V + lane
                for x in range(size):
                    arena[d + x * V] = table[c, images[index, c, y, x]] if used else 0.0


@compiled
def _taps(taps, counts, block, which):
    r = block * TAP_ROWS + which
    return taps[r, : counts[r]]


@compiled
def _same_convolution(arena, x, w, w0, backward, b, taps, ends, d, keep):
    """A block's 3x3 convolution that changes neither channels nor side, or its input gradient."""
    n, size = b[C_OUT], b[S_OUT]
    w_out, w_in = (9, 9 * n) if backward else (9 * n, 9)
    if b[FAST]:
        convolve(
            arena,
            x,
            w,
            w0,
            w_out,
            w_in,
            backward,
            n,
            size,
            d,
            keep,
            ends[KERNELS],
            ends[TILES],
            ends[PRODUCTS],
        )
        return
    row, px = (size + 2) * V, plain(V)
    conv(
        arena,
        x,
        (size + 2) * row,
        row,
        px,
        w,
        w0,
        w_out,
        w_in,
        taps,
        n,
        n,
        size,
        size,
        arena,
        d,
        size * size * V,
        size * V,
        px,
        keep,
    )


@compiled
def _same_weight_gradient(arena, x, error, b, ends, grad, g0):
    """The weight gradient of `_same_convolution`."""
    n, size = b[C_OUT], b[S_OUT]
    if b[FAST_GRADIENT]:
        weight_gradient(
            arena, x, error, n, size, grad, g0, ends[KERNELS], ends[TILES], ends[PRODUCTS]
        )
        return
    row = (size + 2) * V
    conv_weight_gradient(
        arena,
        x,
        (size + 2) * row,
        row,
        plain(1),
        arena,
        error + row + V,
        (size + 2) * row,
        row,
        size,
        n,
        n,
        plain(3),
        grad,
        g0,
    )


@compiled
def _forward(w, arena, blocks, taps, counts, ends):
    """Input buffer to logits."""
    px, one, three, nine, no = plain(V), plain(1), plain(3), plain(9), plain(False)
    size = ends[SIZE]
    row = (size + 2) * V
    conv(
        arena,
        ends[INPUT],
        (size + 2) * row,
        row,
        px,
        w,
        ends[STEM_W],
        three * nine,
        nine,
        _taps(taps, counts, 0, FORWARD_1),
        three,
        ends[WIDTH],
        size,
        size,
        arena,
        ends[STEM_A],
        size * size * V,
        size * V,
        px,
        no,
    )
    norm_forward(
        arena,
        ends[STEM_A],
        ends[WIDTH],
        size,
        EPSILON,
        arena,
        ends[STEM_T],
        w,
        ends[STEM_G],
        ends[STEM_B],
        False,
        arena,
        0,
        True,
        arena,
        ends[STEM_OUT],
    )
    for i in range(blocks.shape[0]):
        b = blocks[i]
        n_in, n_out, s_in, s_out, stride = b[C_IN], b[C_OUT], b[S_IN], b[S_OUT], b[STRIDE]
        row_in = (s_in + 2) * V
        plane = s_out * s_out * V
        if b[SHORTCUT]:
            conv(
                arena,
                b[X],
                (s_in + 2) * row_in,
                row_in * stride,
                V * stride,
                w,
                b[W1],
                n_in * 9,
                nine,
                _taps(taps, counts, i, FORWARD_1),
                n_in,
                n_out,
                s_out,
                s_out,
                arena,
                b[A1],
                plane,
                s_out * V,
                px,
                no,
            )
        else:
            _same_convolution(
                arena, b[X], w, b[W1], no, b, _taps(taps, counts, i, FORWARD_1), ends, b[A1], no
            )
        norm_forward(
            arena,
            b[A1],
            n_out,
            s_out,
            EPSILON,
            arena,
            b[T1],
            w,
            b[G1],
            b[B1],
            False,
            arena,
            0,
            True,
            arena,
            b[H1],
        )
        _same_convolution(
            arena, b[H1], w, b[W2], no, b, _taps(taps, counts, i, FORWARD_2), ends, b[A2], no
        )
        residual = b[X]
        if b[SHORTCUT]:
            conv(
                arena,
                b[X],
                (s_in + 2) * row_in,
                row_in * stride,
                V * stride,
                w,
                b[WS],
                n_in,
                one,
                _taps(taps, counts, i, FORWARD_S),
                n_in,
                n_out,
                s_out,
                s_out,
                arena,
                b[AS],
                plane,
                s_out * V,
                px,
                no,
            )
            norm_forward(
                arena,
                b[AS],
                n_out,
                s_out,
                EPSILON,
                arena,
                b[TS],
                w,
                b[GS],
                b[BS],
                False,
                arena,
                0,
                False,
                arena,
                b[RS],
            )
            residual = b[RS]
        norm_forward(
            arena,
            b[A2],
            n_out,
            s_out,
            EPSILON,
            arena,
            b[T2],
            w,
            b[G2],
            b[B2],
            True,
            arena,
            residual,
            True,
            arena,
            b[OUT],
        )
    last = blocks[blocks.shape[0] - 1]
    features, size = last[C_OUT], last[S_OUT]
    row = (size + 2) * V
    for c in range(features):
        pooled = zeros_like(arena)
        for y in range(size):
            for x in range(size):
                pooled = add(
                    pooled, load(arena, last[OUT] + (c * (size + 2) + y + 1) * row + (x + 1) * V)
                )
        store(arena, ends[POOLED] + c * V, pooled)
    for k in range(ends[CLASSES]):
        for lane in range(V):
            value = 0.0
            for c in range(features):
                value += arena[ends[POOLED] + c * V + lane] * w[ends[HEAD_W] + k * features + c]
            arena[ends[LOGITS] + k * V + lane] = value / (size * size) + w[ends[HEAD_B] + k]


@compiled
def _softmax(arena, p, classes):
    """Largest of the logits at ``p``, its class, and the sum of exp(logit - largest)."""
    top, best = arena[p], 0
    for k in range(classes):
        # A NaN must reach the loss, so it wins every comparison.
        if not arena[p + k * V] <= top:
            top, best = arena[p + k * V], k
    mass = 0.0
    for k in range(classes):
        mass += exp(np.float64(arena[p + k * V]) - top)
    return top, best, mass


@compiled
def _cross_entropy(labels, chosen, start, stop, scale, arena, ends):
    """Sum of the losses; the logits become scale * d loss / d logits, zero in unused lanes."""
    classes, logits = ends[CLASSES], ends[LOGITS]
    loss = 0.0
    for lane in range(V):
        p = logits + lane
        if start + lane >= stop:
            for k in range(classes):
                arena[p + k * V] = 0.0
            continue
        top, _, mass = _softmax(arena, p, classes)
        label = labels[chosen[start + lane]]
        loss += log(mass) + top - arena[p + label * V]
        for k in range(classes):
            share = exp(np.float64(arena[p + k * V]) - top) / mass
            arena[p + k * V] = scale * (share - (1.0 if k == label else 0.0))
    return loss


@compiled
def _backward(w, grad, arena, blocks, taps, counts, ends):
    """Add the gradient to ``grad``; the logits hold their errors."""
    px, one, three, nine = plain(V), plain(1), plain(3), plain(9)
    no, yes = plain(False), plain(True)
    last = blocks[blocks.shape[0] - 1]
    features, size = last[C_OUT], last[S_OUT]
    pixels = size * size
    for c in range(features):
        pooled = load(arena, ends[POOLED] + c * V)
        for lane in range(V):
            value = 0.0
            mean = arena[ends[POOLED] + c * V + lane] / pixels
            for k in range(ends[CLASSES]):
                error = arena[ends[LOGITS] + k * V + lane]
                value += error * w[ends[HEAD_W] + k * features + c]
                grad[ends[HEAD_W] + k * features + c] += error * mean
            arena[ends[POOLED] + c * V + lane] = value / pixels
        pooled = load(arena, ends[POOLED] + c * V)
        for j in range(pixels):
            store(arena, last[G] + (c * pixels + j) * V, pooled)
    for k in range(ends[CLASSES]):
        for lane in range(V):
            grad[ends[HEAD_B] + k] += arena[ends[LOGITS] + k * V + lane]
    for j in range(blocks.shape[0]):
        i = blocks.shape[0] - 1 - j
        b = blocks[i]
        n_in, n_out, s_in, s_out, stride = b[C_IN], b[C_OUT], b[S_IN], b[S_OUT], b[STRIDE]
        row_in, row_out = (s_in + 2) * V, (s_out + 2) * V
        halo = (s_out + 2) * row_out
        mask_by_output(arena, b[G], arena, b[OUT], n_out, s_out)
        norm_backward(
            arena,
            b[G],
            arena,
            b[A2],
            n_out,
            s_out,
            arena,
            b[T2],
            w,
            b[G2],
            b[B2],
            grad,
            arena,
            b[D],
        )
        _same_weight_gradient(arena, b[H1], b[D], b, ends, grad, b[W2])
        _same_convolution(
            arena, b[D], w, b[W2], yes, b, _taps(taps, counts, i, BACK_2), ends, b[E], no
        )
        mask_by_output(arena, b[E], arena, b[H1], n_out, s_out)
        norm_backward(
            arena,
            b[E],
            arena,
            b[A1],
            n_out,
            s_out,
            arena,
            b[T1],
            w,
            b[G1],
            b[B1],
            grad,
            arena,
            b[D],
        )
        if b[SHORTCUT]:
            conv_weight_gradient(
                arena,
                b[X],
                (s_in + 2) * row_in,
                row_in,
                stride,
                arena,
                b[D] + row_out + V,
                halo,
                row_out,
                s_out,
                n_in,
                n_out,
                three,
                grad,
                b[W1],
            )
            for parity in range(stride * stride):
                conv(
                    arena,
                    b[D],
                    halo,
                    row_out,
                    px,
                    w,
                    b[W1],
                    nine,
                    n_in * 9,
                    _taps(taps, counts, i, BACK_1 + parity),
                    n_out,
                    n_in,
                    s_out,
                    s_out,
                    arena,
                    b[GX] + (parity // 2 * s_in + parity % 2) * V,
                    s_in * s_in * V,
                    s_in * stride * V,
                    stride * V,
                    no,
                )
        else:
            # An identity shortcut's gradient already lies in G, which is GX within a stage.
            _same_weight_gradient(arena, b[X], b[D], b, ends, grad, b[W1])
            _same_convolution(
                arena, b[D], w, b[W1], yes, b, _taps(taps, counts, i, BACK_1), ends, b[GX], yes
            )
        if b[SHORTCUT]:
            norm_backward(
                arena,
                b[G],
                arena,
                b[AS],
                n_out,
                s_out,
                arena,
                b[TS],
                w,
                b[GS],
                b[BS],
                grad,
                arena,
                b[D],
            )
            conv_weight_gradient(
                arena,
                b[X] + row_in + V,
                (s_in + 2) * row_in,
                row_in,
                stride,
                arena,
                b[D] + row_out + V,
                halo,
                row_out,
                s_out,
                n_in,
                n_out,
                one,
                grad,
                b[WS],
            )
            conv(
                arena,
                b[D],
                halo,
                row_out,
                px,
                w,
                b[WS],
                one,
                n_in,
                _taps(taps, counts, i, BACK_S),
                n_out,
                n_in,
                s_out,
                s_out,
                arena,
                b[GX],
                s_in * s_in * V,
                s_in * stride * V,
                stride * V,
                yes,
            )
    width, size = ends[WIDTH], ends[SIZE]
    row = (size + 2) * V
    b = blocks[0]
    mask_by_output(arena, b[GX], arena, ends[STEM_OUT], width, size)
    norm_backward(
        arena,
        b[GX],
        arena,
        ends[STEM_A],
        width,
        size,
        arena,
        ends[STEM_T],
        w,
        ends[STEM_G],
        ends[STEM_B],
        grad,
        arena,
        b[D],
    )
    conv_weight_gradient(
        arena,
        ends[INPUT],
        (size + 2) * row,
        row,
        one,
        arena,
        b[D] + row + V,
        (size + 2) * row,
        row,
        size,
        three,
        width,
        three,
        grad,
        ends[STEM_W],
    )


@compiled
def local_steps(
    w, grad, images, labels, table, batches, step_size, arena, blocks, taps, counts, ends
):
    """K steps of SGD from ``w`` [P], in place; ``batches`` int64 [K, B].

    Returns the sum over steps of the batch's mean loss.
    """
    n_steps, size = batches.shape
    loss = 0.0
    grad[:] = 0.0
    for k in range(n_steps):
        chosen = batches[k]
        for start in range(0, size, V):
            _gather(images, table, chosen, start, size, arena, ends)
            _forward(w, arena, blocks, taps, counts, ends)
            loss += _cross_entropy(labels, chosen, start, size, 1.0 / size, arena, ends)
            _backward(w, grad, arena, blocks, taps, counts, ends)
        for j in range(w.shape[0]):
            w[j] -= step_size * grad[j]
            # Cleared for the next step while it is in cache.
            grad[j] = 0.0
    return loss / size


@compiled
def scores(w, images, labels, table, chosen, out, arena, blocks, taps, counts, ends):
    """Loss of the model ``w`` on the images ``chosen``, and whether it is right: out [count, 2]."""
    count = chosen.shape[0]
    for start in range(0, count, V):
        _gather(images, table, chosen, start, count, arena, ends)
        _forward(w, arena, blocks, taps, counts, ends)
        for lane in range(min(V, count - start)):
            p = ends[LOGITS] + lane
            top, best, mass = _softmax(arena, p, ends[CLASSES])
            label = labels[chosen[start + lane]]
            out[start + lane, 0] = log(mass) + top - arena[p + label * V]
            out[start + lane, 1] = 1.0 if best == label else 0.0
