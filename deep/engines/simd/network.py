"""Forward and backward of ResNet18 on eight images, as one compiled call a round.

`local_steps` runs all K steps of one node without returning to Python: gather, normalise,
forward, backward, update. One core works on one node, so nodes run side by side in threads and the
result does not depend on how many there are. All maps lie in one array, the arena.
"""

from __future__ import annotations

from math import exp, log

import numpy as np

from deep.engines.simd.compiled import compiled
from deep.engines.simd.energy import recorded_update, squared_distance
from deep.engines.simd.kernels import conv, conv_weight_gradient
from deep.engines.simd.norms import mask_by_output, norm_backward, norm_forward
from deep.engines.simd.plan import BACK_1, BACK_2, BACK_S, FORWARD_1, FORWARD_2, FORWARD_S
from deep.engines.simd.vector import LANES, add, load, plain, store, zeros_like
from deep.engines.simd.winograd import convolve, weight_gradient

V = LANES


@compiled
def _gather(images, table, chosen, start, stop, arena, ends):
    """Normalise images chosen[start:stop] into the bordered input; unused lanes become zero."""
    size = ends.size
    row = (size + 2) * V
    for lane in range(V):
        used = start + lane < stop
        index = chosen[start + lane] if used else 0
        for c in range(3):
            for y in range(size):
                d = ends.input_b + (c * (size + 2) + y + 1) * row + V + lane
                for x in range(size):
                    arena[d + x * V] = table[c, images[index, c, y, x]] if used else 0.0


@compiled
def _taps(layout, block, which):
    return layout.taps[block, which, : layout.counts[block, which]]


@compiled
def _convolution(arena, x, s_in, stride, w, w0, kernel, taps, n_in, n_out, s_out, y):
    """A convolution from the bordered map ``x`` to the unbordered map ``y``."""
    row, area = (s_in + 2) * V, kernel * kernel
    conv(
        *(arena, x, (s_in + 2) * row, row * stride, V * stride),
        *(w, w0, n_in * area, area, taps, n_in, n_out, s_out, s_out),
        *(arena, y, s_out * s_out * V, s_out * V, plain(V), plain(False)),
    )


@compiled
def _input_gradient(arena, g_y, s_out, w, w0, area, taps, n_out, n_in, g_x, s_in, stride, keep):
    """The gradient at every stride-th input pixel, from the bordered ``g_y`` to ``g_x``."""
    row = (s_out + 2) * V
    conv(
        *(arena, g_y, (s_out + 2) * row, row, plain(V)),
        *(w, w0, area, n_in * area, taps, n_out, n_in, s_out, s_out),
        *(arena, g_x, s_in * s_in * V, s_in * stride * V, stride * V, keep),
    )


@compiled
def _weights_gradient(arena, x, s_in, stride, g_y, s_out, n_in, n_out, kernel, grad, g0):
    """Of `_convolution` with respect to w; ``g_y`` is bordered too."""
    row_in, row_out = (s_in + 2) * V, (s_out + 2) * V
    # A 3x3 kernel starts on the border, a 1x1 kernel at the pixel itself.
    first = x if kernel == 3 else x + row_in + V
    conv_weight_gradient(
        *(arena, first, (s_in + 2) * row_in, row_in, stride),
        *(arena, g_y + row_out + V, (s_out + 2) * row_out, row_out),
        *(s_out, n_in, n_out, kernel, grad, g0),
    )


@compiled
def _same_convolution(arena, x, w, w0, backward, b, taps, ends, y, keep):
    """A block's 3x3 convolution that changes neither channels nor side, or its input gradient."""
    n, size = b.n_out, b.s_out
    w_out, w_in = (9, 9 * n) if backward else (9 * n, 9)
    if b.winograd:
        buffers = ends.kernels, ends.tiles, ends.products
        convolve(arena, x, w, w0, w_out, w_in, backward, n, size, y, keep, *buffers)
        return
    row, px = (size + 2) * V, plain(V)
    conv(
        *(arena, x, (size + 2) * row, row, px, w, w0, w_out, w_in, taps, n, n, size, size),
        *(arena, y, size * size * V, size * V, px, keep),
    )


@compiled
def _same_weights_gradient(arena, x, g_y, b, ends, grad, g0):
    """Of `_same_convolution` with respect to w."""
    n, size = b.n_out, b.s_out
    if b.winograd:
        buffers = ends.kernels, ends.tiles, ends.products
        weight_gradient(arena, x, g_y, n, size, grad, g0, *buffers)
        return
    _weights_gradient(arena, x, size, plain(1), g_y, size, n, n, plain(3), grad, g0)


@compiled
def _forward(w, arena, layout):
    """Input buffer to logits."""
    one, three, none = plain(1), plain(3), plain(-1)
    no, yes = plain(False), plain(True)
    ends = layout.ends
    width, size = ends.width, ends.size
    taps = _taps(layout, 0, FORWARD_1)
    _convolution(
        *(arena, ends.input_b, size, one, w, ends.stem_w, three, taps, three, width, size),
        ends.stem_y,
    )
    norm_forward(
        *(arena, ends.stem_y, width, size, ends.stem_stats, w, ends.stem_scale, ends.stem_shift),
        *(none, yes, ends.stem_b),
    )
    for i in range(layout.blocks.shape[0]):
        b = layout.blocks[i]
        n_in, n_out, s_in, s_out = b.n_in, b.n_out, b.s_in, b.s_out
        taps = _taps(layout, i, FORWARD_1)
        if b.has_shortcut:
            _convolution(
                *(arena, b.input_b, s_in, b.stride, w, b.w_1, three, taps, n_in, n_out, s_out),
                b.y_1,
            )
        else:
            _same_convolution(arena, b.input_b, w, b.w_1, no, b, taps, ends, b.y_1, no)
        norm_forward(
            *(arena, b.y_1, n_out, s_out, b.stats_1, w, b.scale_1, b.shift_1, none, yes, b.hidden_b)
        )
        taps = _taps(layout, i, FORWARD_2)
        _same_convolution(arena, b.hidden_b, w, b.w_2, no, b, taps, ends, b.y_2, no)
        residual = b.input_b
        if b.has_shortcut:
            residual = b.shortcut_b
            taps = _taps(layout, i, FORWARD_S)
            _convolution(
                *(arena, b.input_b, s_in, b.stride, w, b.w_s, one, taps, n_in, n_out, s_out),
                b.y_s,
            )
            norm_forward(
                *(arena, b.y_s, n_out, s_out, b.stats_s, w, b.scale_s, b.shift_s),
                *(none, no, residual),
            )
        norm_forward(
            *(arena, b.y_2, n_out, s_out, b.stats_2, w, b.scale_2, b.shift_2),
            *(residual, yes, b.output_b),
        )
    _head_forward(w, arena, layout.blocks[-1], ends)


@compiled
def _head_forward(w, arena, last, ends):
    """Mean over pixels and the linear layer."""
    features, size = ends.features, last.s_out
    row = (size + 2) * V
    for c in range(features):
        pooled = zeros_like(arena)
        for y in range(size):
            p = last.output_b + (c * (size + 2) + y + 1) * row + V
            for x in range(size):
                pooled = add(pooled, load(arena, p + x * V))
        store(arena, ends.pooled + c * V, pooled)
    for k in range(ends.classes):
        for lane in range(V):
            value = 0.0
            for c in range(features):
                value += arena[ends.pooled + c * V + lane] * w[ends.head_w + k * features + c]
            arena[ends.logits + k * V + lane] = value / (size * size) + w[ends.head_b + k]


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
    classes, logits = ends.classes, ends.logits
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
def _head_backward(w, grad, arena, last, ends):
    """From the logits' errors to the last block's output."""
    features, pixels = ends.features, last.s_out * last.s_out
    for c in range(features):
        for lane in range(V):
            value = 0.0
            mean = arena[ends.pooled + c * V + lane] / pixels
            for k in range(ends.classes):
                error = arena[ends.logits + k * V + lane]
                value += error * w[ends.head_w + k * features + c]
                grad[ends.head_w + k * features + c] += error * mean
            arena[ends.pooled + c * V + lane] = value / pixels
        pooled = load(arena, ends.pooled + c * V)
        for j in range(pixels):
            store(arena, last.g_output + (c * pixels + j) * V, pooled)
    for k in range(ends.classes):
        for lane in range(V):
            grad[ends.head_b + k] += arena[ends.logits + k * V + lane]


@compiled
def _block_backward(w, grad, arena, layout, i):
    """From the gradient with respect to a block's output to that of its input."""
    one, three, nine = plain(1), plain(3), plain(9)
    no, yes = plain(False), plain(True)
    b, ends = layout.blocks[i], layout.ends
    n_in, n_out, s_in, s_out, stride = b.n_in, b.n_out, b.s_in, b.s_out, b.stride
    mask_by_output(arena, b.g_output, b.output_b, n_out, s_out)
    norm_backward(
        *(arena, b.g_output, b.y_2, n_out, s_out, b.stats_2, w, b.scale_2, b.shift_2, grad, b.g_y_b)
    )
    _same_weights_gradient(arena, b.hidden_b, b.g_y_b, b, ends, grad, b.w_2)
    taps = _taps(layout, i, BACK_2)
    _same_convolution(arena, b.g_y_b, w, b.w_2, yes, b, taps, ends, b.g_hidden, no)
    mask_by_output(arena, b.g_hidden, b.hidden_b, n_out, s_out)
    norm_backward(
        *(arena, b.g_hidden, b.y_1, n_out, s_out, b.stats_1, w, b.scale_1, b.shift_1, grad, b.g_y_b)
    )
    if not b.has_shortcut:
        # The identity's gradient already lies in g_output, which is g_input within a stage.
        _same_weights_gradient(arena, b.input_b, b.g_y_b, b, ends, grad, b.w_1)
        taps = _taps(layout, i, BACK_1)
        _same_convolution(arena, b.g_y_b, w, b.w_1, yes, b, taps, ends, b.g_input, yes)
        return
    _weights_gradient(
        arena, b.input_b, s_in, stride, b.g_y_b, s_out, n_in, n_out, three, grad, b.w_1
    )
    for parity in range(stride * stride):
        g_x = b.g_input + (parity // 2 * s_in + parity % 2) * V
        _input_gradient(
            *(arena, b.g_y_b, s_out, w, b.w_1, nine, _taps(layout, i, BACK_1 + parity)),
            *(n_out, n_in, g_x, s_in, stride, no),
        )
    norm_backward(
        *(arena, b.g_output, b.y_s, n_out, s_out, b.stats_s, w, b.scale_s, b.shift_s),
        *(grad, b.g_y_b),
    )
    _weights_gradient(arena, b.input_b, s_in, stride, b.g_y_b, s_out, n_in, n_out, one, grad, b.w_s)
    _input_gradient(
        *(arena, b.g_y_b, s_out, w, b.w_s, one, _taps(layout, i, BACK_S)),
        *(n_out, n_in, b.g_input, s_in, stride, yes),
    )


@compiled
def _backward(w, grad, arena, layout):
    """Add the gradient to ``grad``; the logits hold their errors."""
    ends, first = layout.ends, layout.blocks[0]
    width, size = ends.width, ends.size
    _head_backward(w, grad, arena, layout.blocks[-1], ends)
    for i in range(layout.blocks.shape[0] - 1, -1, -1):
        _block_backward(w, grad, arena, layout, i)
    mask_by_output(arena, first.g_input, ends.stem_b, width, size)
    norm_backward(
        *(arena, first.g_input, ends.stem_y, width, size, ends.stem_stats),
        *(w, ends.stem_scale, ends.stem_shift, grad, first.g_y_b),
    )
    three = plain(3)
    _weights_gradient(
        *(arena, ends.input_b, size, plain(1), first.g_y_b, size, three, width, three),
        *(grad, ends.stem_w),
    )


@compiled
def local_steps(
    mean, w, grad, images, labels, table, batches, step_size, arena, layout, energy, found
):
    """K steps of SGD from ``mean`` [P] into ``w``; ``batches`` int64 [K, B].

    ``found`` float64 [4] is what `deep.engines.base.Engine.local_steps` tells of a node.
    """
    n_steps, size = batches.shape
    loss = 0.0
    found[:] = 0.0
    w[:] = mean
    grad[:] = 0.0
    for k in range(n_steps):
        chosen = batches[k]
        for start in range(0, size, V):
            _gather(images, table, chosen, start, size, arena, layout.ends)
            _forward(w, arena, layout)
            loss += _cross_entropy(labels, chosen, start, size, 1.0 / size, arena, layout.ends)
            _backward(w, grad, arena, layout)
        if energy:
            inner, square = recorded_update(w, grad, step_size)
            found[1] += inner
            found[2] += square
            continue
        for j in range(w.shape[0]):
            w[j] -= step_size * grad[j]
            # Cleared for the next step while it is in cache.
            grad[j] = 0.0
    found[0] = loss / size
    if energy:
        found[3] = squared_distance(mean, w)


@compiled
def scores(w, images, labels, table, chosen, out, arena, layout):
    """Loss of the model ``w`` on the images ``chosen``, and whether it is right: out [count, 2]."""
    ends, count = layout.ends, chosen.shape[0]
    for start in range(0, count, V):
        _gather(images, table, chosen, start, count, arena, ends)
        _forward(w, arena, layout)
        for lane in range(min(V, count - start)):
            p = ends.logits + lane
            top, best, mass = _softmax(arena, p, ends.classes)
            label = labels[chosen[start + lane]]
            out[start + lane, 0] = log(mass) + top - arena[p + label * V]
            out[start + lane, 1] = 1.0 if best == label else 0.0
