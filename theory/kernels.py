"""Compiled kernels of Local SGD: the same algorithm in R^d and in margin space.

Both advance every run by a number of iterations and keep exact running sums. ``fastmath`` only lets
sums be reordered, so engines agree to rounding.

Columns of ``sums``: 0 sum over t of (1/n) sum_i f_i(x_i^t); 1 sum over rounds of f(xbar_r);
2 sum over t of f(xbar^t); 3 sum over rounds of ||grad f(xbar_r)||^2. ``track`` says which are wanted.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

FAST = {"reassoc", "contract", "nsz"}
LOCAL, SYNC, GLOBAL, GRADIENT = 0, 1, 2, 3
# A long round is cut into segments, so that the trace of its means needs bounded memory.
SEGMENT = 64


@njit(cache=True, inline="always")
def _sigmoid(z):
    small = math.exp(-abs(z))
    return (1.0 if z >= 0 else small) / (1.0 + small)


@njit(cache=True)
def loss_value(code, z, t):
    """Compiled twins of theory.losses, by loss code."""
    if code == 0:
        return 0.5 * (z - t) ** 2
    if code == 1:
        delta = z - t
        y = _sigmoid(-t) if delta > 0 else _sigmoid(t)
        down = -abs(delta)
        return max(math.log1p(y * math.expm1(down)) - y * down, 0.0)
    if code == 2:
        a = -t * z
        return max(a, 0.0) + math.log1p(math.exp(-abs(a)))
    return 0.5 * (_sigmoid(z) - _sigmoid(t)) ** 2


@njit(cache=True)
def loss_derivative(code, z, t):
    """Compiled twins of the derivatives in theory.losses."""
    if code == 0:
        return z - t
    if code == 1:
        return _sigmoid(z) - _sigmoid(t)
    if code == 2:
        return -t * _sigmoid(-t * z)
    s = _sigmoid(z)
    return (s - _sigmoid(t)) * s * (1.0 - s)


@njit(cache=True, fastmath=FAST)
def _dot(a, b):
    total = 0.0
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@njit(cache=True, fastmath=FAST)
def _add(out, scale, row):
    for k in range(out.size):
        out[k] += scale * row[k]


@njit(cache=True, fastmath=FAST)
def _add_then_dot(out, base, scale, row, following):
    """out = base + scale * row, and its product with the next sample: one pass, not two."""
    total = 0.0
    for k in range(out.size):
        value = base[k] + scale * row[k]
        out[k] = value
        total += value * following[k]
    return total


@njit(cache=True, fastmath=FAST)
def _accumulate(total, x, scale, row):
    """total += x + scale * row: the last local step goes straight into the average."""
    for k in range(total.size):
        total[k] += x[k] + scale * row[k]


@njit(cache=True, fastmath=FAST)
def _mean_loss(features, targets, first, last, code, x):
    total = 0.0
    for j in range(first, last):
        total += loss_value(code, _dot(features[j], x), targets[j])
    return total / (last - first)


@njit(cache=True, fastmath=FAST)
def _objective(features, targets, offsets, code, x):
    total = 0.0
    for i in range(offsets.size - 1):
        total += _mean_loss(features, targets, offsets[i], offsets[i + 1], code, x)
    return total / (offsets.size - 1)


@njit(cache=True, fastmath=FAST)
def _step(features, targets, first, last, code, eta, rows, x, work):
    """One local step in place: on the sampled rows, or on all of the node's where rows is empty."""
    count = rows.size if rows.size > 0 else last - first
    for b in range(count):
        j = first + (rows[b] if rows.size > 0 else b)
        work[b] = -eta / count * loss_derivative(code, _dot(features[j], x), targets[j])
    for b in range(count):
        _add(x, work[b], features[first + (rows[b] if rows.size > 0 else b)])


@njit(cache=True, fastmath=FAST)
def _plain_round(features, targets, first, code, eta, rows, base, x, total):
    """A node's whole round with one sample a step, from ``base``, added to ``total``.

    Each pass over x applies one step and takes the product with the next sample.
    """
    steps = rows.shape[0]
    j = first + rows[0, 0]
    margin = _dot(features[j], base)
    for k in range(steps):
        scale = -eta * loss_derivative(code, margin, targets[j])
        source = base if k == 0 else x
        if k == steps - 1:
            _accumulate(total, source, scale, features[j])
        else:
            following = first + rows[k + 1, 0]
            margin = _add_then_dot(x, source, scale, features[j], features[following])
            j = following


@njit(cache=True, fastmath=FAST)
def _mean_model(models, out):
    out[:] = 0.0
    for i in range(models.shape[0]):
        _add(out, 1.0 / models.shape[0], models[i])


@njit(cache=True, fastmath=FAST)
def _record_round(features, targets, offsets, code, models, track, sums, best, x, gradient):
    """Sums that belong to the start of a round."""
    if not (track[SYNC] or track[GRADIENT]):
        return
    _mean_model(models, x)
    if track[SYNC]:
        value = _objective(features, targets, offsets, code, x)
        sums[SYNC] += value
        best[0] = min(best[0], value)
    if track[GRADIENT]:
        gradient[:] = 0.0
        n = offsets.size - 1
        for i in range(n):
            for j in range(offsets[i], offsets[i + 1]):
                slope = loss_derivative(code, _dot(features[j], x), targets[j])
                _add(gradient, slope / (n * (offsets[i + 1] - offsets[i])), features[j])
        sums[GRADIENT] += _dot(gradient, gradient)


@njit(cache=True, fastmath=FAST)
def _node_segment(
    features,
    targets,
    offsets,
    code,
    eta,
    idx,
    i,
    t,
    length,
    done,
    K,
    node_steps,
    track,
    x,
    trace,
    work,
):
    """Node i's iterations t .. t + length; returns its sum of f_i, adds its path to ``trace``."""
    total = 0.0
    for k in range(length):
        if track[LOCAL]:
            total += _mean_loss(features, targets, offsets[i], offsets[i + 1], code, x)
        if track[GLOBAL]:
            _add(trace[k], 1.0, x)
        if (t + k) % K < node_steps[i]:
            rows = idx[i, done + k]
            _step(features, targets, offsets[i], offsets[i + 1], code, eta, rows, x, work)
    return total


@njit(cache=True, fastmath=FAST)
def _advance_run(
    features,
    targets,
    offsets,
    code,
    eta,
    models,
    idx,
    first,
    steps,
    K,
    node_steps,
    averaging,
    track,
    sums,
    best,
):
    n, d = models.shape
    x = np.empty(d)
    mean = np.empty(d)
    work = np.empty(max(idx.shape[2], np.max(np.diff(offsets))))
    trace = np.zeros((SEGMENT if track[GLOBAL] else 1, d))
    fused = averaging and idx.shape[2] == 1 and not (track[LOCAL] or track[GLOBAL])
    t, done = first, 0
    while done < steps:
        if t % K == 0:
            _record_round(features, targets, offsets, code, models, track, sums, best, x, mean)
        length = min(K - t % K, steps - done)
        if fused and length == K:
            mean[:] = 0.0
            for i in range(n):
                rows = idx[i, done : done + node_steps[i]]
                _plain_round(features, targets, offsets[i], code, eta, rows, models[0], x, mean)
            for i in range(n):
                models[i, :] = mean / n
        else:
            length = min(length, SEGMENT)
            trace[:] = 0.0
            for i in range(n):
                sums[LOCAL] += (
                    _node_segment(
                        features,
                        targets,
                        offsets,
                        code,
                        eta,
                        idx,
                        i,
                        t,
                        length,
                        done,
                        K,
                        node_steps,
                        track,
                        models[i],
                        trace,
                        work,
                    )
                    / n
                )
            if track[GLOBAL]:
                for k in range(length):
                    sums[GLOBAL] += _objective(features, targets, offsets, code, trace[k] / n)
            if averaging and (t + length) % K == 0:
                _mean_model(models, mean)
                for i in range(n):
                    models[i, :] = mean
        t += length
        done += length


@njit(cache=True, parallel=True)
def advance_models(
    features,
    targets,
    offsets,
    code,
    etas,
    models,
    idx,
    first,
    steps,
    K,
    node_steps,
    averaging,
    track,
    sums,
    best,
):
    """Advance all runs by ``steps`` iterations in R^d, one run a thread.

    Shapes: features (N, d), models (P, n, d), etas (P,), idx (seeds, n, steps, batch) with batch 0
    for full gradients, sums (P, 4), best (P,). Run p uses the draws of seed p % seeds.
    """
    for p in prange(models.shape[0]):
        _advance_run(
            features,
            targets,
            offsets,
            code,
            etas[p],
            models[p],
            idx[p % idx.shape[0]],
            first,
            steps,
            K,
            node_steps,
            averaging,
            track,
            sums[p],
            best[p : p + 1],
        )


@njit(cache=True, parallel=True, fastmath=FAST)
def advance_nodes(
    features, targets, offsets, code, etas, models, idx, first, steps, K, node_steps, averaging
):
    """As :func:`advance_models` without sums, one node of one run a thread: for few runs, large d."""
    runs, n, d = models.shape
    track = np.zeros(4, np.bool_)
    width = max(idx.shape[3], np.max(np.diff(offsets)))
    t, done = first, 0
    while done < steps:
        length = min(K - t % K, steps - done)
        for task in prange(runs * n):
            p, i = task // n, task % n
            work = np.empty(width)
            trace = np.zeros((1, 1))
            _node_segment(
                features,
                targets,
                offsets,
                code,
                etas[p],
                idx[p % idx.shape[0]],
                i,
                t,
                length,
                done,
                K,
                node_steps,
                track,
                models[p, i],
                trace,
                work,
            )
        t += length
        done += length
        if averaging and t % K == 0:
            blocks = (d + 4095) // 4096
            for task in prange(runs * blocks):
                p, b = task // blocks, task % blocks
                low, high = b * 4096, min(d, (b + 1) * 4096)
                for k in range(low, high):
                    total = 0.0
                    for i in range(n):
                        total += models[p, i, k]
                    for i in range(n):
                        models[p, i, k] = total / n


@njit(cache=True, fastmath=FAST)
def _add_rows(out, gram, weights, scale):
    """out += scale * G weights over the non-zero weights, four rows a pass."""
    n = weights.size
    j = np.zeros(4, np.int64)
    found = 0
    for k in range(n):
        if weights[k] != 0.0:
            j[found] = k
            found += 1
        if found == 4:
            a, b, c, d = (
                scale * weights[j[0]],
                scale * weights[j[1]],
                scale * weights[j[2]],
                scale * weights[j[3]],
            )
            r0, r1, r2, r3 = gram[j[0]], gram[j[1]], gram[j[2]], gram[j[3]]
            for m in range(out.size):
                out[m] += (a * r0[m] + b * r1[m]) + (c * r2[m] + d * r3[m])
            found = 0
    for q in range(found):
        _add(out, scale * weights[j[q]], gram[j[q]])


@njit(cache=True, fastmath=FAST)
def _margin_loss(offsets, targets, code, z):
    n = offsets.size - 1
    total = 0.0
    for i in range(n):
        part = 0.0
        for j in range(offsets[i], offsets[i + 1]):
            part += loss_value(code, z[j], targets[j])
        total += part / (offsets[i + 1] - offsets[i])
    return total / n


@njit(cache=True, fastmath=FAST)
def _record_margin_round(gram, offsets, targets, code, z, track, sums, best, weights, image):
    if track[SYNC]:
        value = _margin_loss(offsets, targets, code, z)
        sums[SYNC] += value
        best[0] = min(best[0], value)
    if track[GRADIENT]:
        n = offsets.size - 1
        for i in range(n):
            for j in range(offsets[i], offsets[i + 1]):
                size = n * (offsets[i + 1] - offsets[i])
                weights[j] = loss_derivative(code, z[j], targets[j]) / size
        image[:] = 0.0
        _add_rows(image, gram, weights, 1.0)
        sums[GRADIENT] += max(_dot(weights, image), 0.0)


@njit(cache=True, fastmath=FAST)
def _margin_step(gram, targets, first, last, code, eta, rows, z, delta, work):
    """One local step of one node: its own margins move by its own block of the Gram matrix."""
    count = rows.size if rows.size > 0 else last - first
    for b in range(count):
        j = first + (rows[b] if rows.size > 0 else b)
        work[b] = -eta / count * loss_derivative(code, z[j], targets[j])
    for b in range(count):
        j = first + (rows[b] if rows.size > 0 else b)
        delta[j] += work[b]
        scale = work[b]
        for m in range(first, last):
            z[m] += scale * gram[j, m]


@njit(cache=True, fastmath=FAST)
def _advance_margin_run(
    gram,
    targets,
    offsets,
    code,
    eta,
    base,
    z,
    delta,
    alpha,
    idx,
    first,
    steps,
    K,
    node_steps,
    averaging,
    track,
    sums,
    best,
):
    """base: margins at the last synchronised mean; z: each node's own margins; delta: each node's
    coefficients since then; alpha: coefficients of the synchronised mean."""
    n = offsets.size - 1
    work = np.empty(max(idx.shape[2], np.max(np.diff(offsets))))
    mean = np.empty_like(base)
    change = np.empty_like(base)
    image = np.empty_like(base)
    t = first
    at_round = not averaging and (track[SYNC] or track[GRADIENT])
    for done in range(steps):
        if track[GLOBAL] or (at_round and t % K == 0):
            mean[:] = base
            _add_rows(mean, gram, delta, 1.0 / n)
        if t % K == 0 and (track[SYNC] or track[GRADIENT]):
            z_round = base if averaging else mean
            _record_margin_round(
                gram, offsets, targets, code, z_round, track, sums, best, change, image
            )
        if track[LOCAL]:
            sums[LOCAL] += _margin_loss(offsets, targets, code, z)
        if track[GLOBAL]:
            sums[GLOBAL] += _margin_loss(offsets, targets, code, mean)
        for i in range(n):
            if t % K < node_steps[i]:
                _margin_step(
                    gram,
                    targets,
                    offsets[i],
                    offsets[i + 1],
                    code,
                    eta,
                    idx[i, done],
                    z,
                    delta,
                    work,
                )
        t += 1
        if averaging and t % K == 0:
            _add_rows(base, gram, delta, 1.0 / n)
            for j in range(delta.size):
                alpha[j] += delta[j] / n
                delta[j] = 0.0
                z[j] = base[j]


@njit(cache=True, parallel=True)
def advance_margins(
    gram,
    targets,
    offsets,
    code,
    etas,
    base,
    z,
    delta,
    alpha,
    idx,
    first,
    steps,
    K,
    node_steps,
    averaging,
    track,
    sums,
    best,
):
    """Advance all runs in margin space, one run a thread. base, z, delta, alpha: (P, N)."""
    for p in prange(base.shape[0]):
        _advance_margin_run(
            gram,
            targets,
            offsets,
            code,
            etas[p],
            base[p],
            z[p],
            delta[p],
            alpha[p],
            idx[p % idx.shape[0]],
            first,
            steps,
            K,
            node_steps,
            averaging,
            track,
            sums[p],
            best[p : p + 1],
        )
