"""Compiled kernels of Local SGD: the same algorithm in R^d and in margin space.

Both advance every run by a number of iterations and keep exact running sums. ``fastmath`` only lets
sums be reordered, so engines agree to rounding.

Hot loops index whole arrays and take no slices of them: a slice of an array that threads share updates
one reference count from all of them, which costs more than a step in a hundred dimensions.

Columns of ``sums``: 0 sum over t of (1/n) sum_i f_i(x_i^t); 1 sum over rounds of f(xbar_r);
2 sum over t of f(xbar^t); 3 sum over rounds of ||grad f(xbar_r)||^2; 4 sum over t of (1/n) sum_i of the
loss of the batch that node i uses at t, at x_i^t (0 while it waits). ``track`` says which are wanted.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

FAST = {"reassoc", "contract", "nsz"}
LOCAL, SYNC, GLOBAL, GRADIENT, BATCH = 0, 1, 2, 3, 4
# A long round is cut into segments, so that the trace of its means needs bounded memory.
SEGMENT = 64


@njit(cache=True, inline="always")
def _sigmoid(z):
    small = math.exp(-abs(z))
    return (1.0 if z >= 0 else small) / (1.0 + small)


@njit(cache=True, inline="always")
def _excess(u):
    """e^u - 1 - u with all its digits."""
    if abs(u) >= 0.3:
        return math.expm1(u) - u
    series = 1.0
    for k in range(12, 2, -1):
        series = 1.0 + u / k * series
    return 0.5 * u * u * series


@njit(cache=True, inline="always")
def _sigmoid_difference(z, t):
    """sigmoid(z) - sigmoid(t) with all its digits."""
    low, high = min(z, t), max(z, t)
    size = -_sigmoid(high) * _sigmoid(-low) * math.expm1(low - high)
    return size if z >= t else -size


@njit(cache=True)
def loss_value(code, z, t):
    """Compiled twins of theory.problems.losses, by loss code."""
    if code == 0:
        return 0.5 * (z - t) ** 2
    if code == 1:
        size = abs(z - t)
        mirrored = -t if z > t else t
        p, q = _sigmoid(mirrored), _sigmoid(-mirrored)
        if p * size <= 300.0:
            return math.log1p(p * _excess(-q * size) + q * _excess(p * size))
        one = p * size - max(mirrored, 0.0) - math.log1p(math.exp(-abs(mirrored)))
        two = -q * size - max(-mirrored, 0.0) - math.log1p(math.exp(-abs(mirrored)))
        return max(one, two) + math.log1p(math.exp(-abs(one - two)))
    if code == 2:
        a = -t * z
        return max(a, 0.0) + math.log1p(math.exp(-abs(a)))
    return 0.5 * _sigmoid_difference(z, t) ** 2


@njit(cache=True)
def loss_derivative(code, z, t):
    """Compiled twins of the derivatives in theory.problems.losses."""
    if code == 0:
        return z - t
    if code == 1:
        return _sigmoid_difference(z, t)
    if code == 2:
        return -t * _sigmoid(-t * z)
    return _sigmoid_difference(z, t) * _sigmoid(z) * _sigmoid(-z)


@njit(cache=True, fastmath=FAST)
def _dot(a, b):
    total = 0.0
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@njit(cache=True, fastmath=FAST)
def _row_dot(rows, j, x):
    total = 0.0
    for k in range(x.size):
        total += rows[j, k] * x[k]
    return total


@njit(cache=True, fastmath=FAST)
def _add_row(out, scale, rows, j):
    for k in range(out.size):
        out[k] += scale * rows[j, k]


@njit(cache=True, fastmath=FAST)
def _mean_loss(features, targets, first, last, code, x):
    total = 0.0
    for j in range(first, last):
        total += loss_value(code, _row_dot(features, j, x), targets[j])
    return total / (last - first)


@njit(cache=True, fastmath=FAST)
def _objective(features, targets, offsets, code, x):
    total = 0.0
    for i in range(offsets.size - 1):
        total += _mean_loss(features, targets, offsets[i], offsets[i + 1], code, x)
    return total / (offsets.size - 1)


@njit(cache=True, fastmath=FAST)
def _step(features, targets, first, last, code, eta, idx, q, i, done, x, work, wanted):
    """One local step in place: on the sampled rows, or on all of the node's where none are drawn.

    Returns the batch's mean loss before the step if ``wanted``, else 0.
    """
    drawn = idx.shape[3]
    count = drawn if drawn > 0 else last - first
    loss = 0.0
    for b in range(count):
        j = first + (idx[q, i, done, b] if drawn > 0 else b)
        margin = _row_dot(features, j, x)
        if wanted:
            loss += loss_value(code, margin, targets[j])
        work[b] = -eta / count * loss_derivative(code, margin, targets[j])
    for b in range(count):
        _add_row(x, work[b], features, first + (idx[q, i, done, b] if drawn > 0 else b))
    return loss / count


@njit(cache=True, fastmath=FAST)
def _plain_round(
    features, targets, offsets, code, eta, idx, q, done, node_steps, mean, x, total, wanted
):
    """A whole round with one sample a step, from ``mean`` and into it, by way of ``x`` and ``total``.

    Each pass over x applies one step and takes the product with the next sample; the last step goes
    straight into the average. Returns the sum of the samples' losses if ``wanted``, else 0.
    """
    n, d = offsets.size - 1, mean.size
    total[:] = 0.0
    loss = 0.0
    for i in range(n):
        first, last = offsets[i], node_steps[i] - 1
        j = first + idx[q, i, done, 0]
        margin = _row_dot(features, j, mean)
        if wanted:
            loss += loss_value(code, margin, targets[j])
        scale = -eta * loss_derivative(code, margin, targets[j])
        if last == 0:
            for k in range(d):
                total[k] += mean[k] + scale * features[j, k]
            continue
        following = first + idx[q, i, done + 1, 0]
        margin = 0.0
        for k in range(d):
            value = mean[k] + scale * features[j, k]
            x[k] = value
            margin += value * features[following, k]
        for t in range(1, last):
            j = following
            if wanted:
                loss += loss_value(code, margin, targets[j])
            scale = -eta * loss_derivative(code, margin, targets[j])
            following = first + idx[q, i, done + t + 1, 0]
            margin = 0.0
            for k in range(d):
                value = x[k] + scale * features[j, k]
                x[k] = value
                margin += value * features[following, k]
        if wanted:
            loss += loss_value(code, margin, targets[following])
        scale = -eta * loss_derivative(code, margin, targets[following])
        for k in range(d):
            total[k] += x[k] + scale * features[following, k]
    for k in range(d):
        mean[k] = total[k] / n
    return loss


@njit(cache=True, fastmath=FAST)
def _mean_model(models, out):
    out[:] = 0.0
    for i in range(models.shape[0]):
        _add_row(out, 1.0 / models.shape[0], models, i)


@njit(cache=True, fastmath=FAST)
def _record_round(features, targets, offsets, code, x, track, sums, best, gradient):
    """Sums that belong to the start of a round, at the mean model ``x``."""
    if track[SYNC]:
        value = _objective(features, targets, offsets, code, x)
        sums[SYNC] += value
        best[0] = min(best[0], value)
    if track[GRADIENT]:
        gradient[:] = 0.0
        n = offsets.size - 1
        for i in range(n):
            for j in range(offsets[i], offsets[i + 1]):
                slope = loss_derivative(code, _row_dot(features, j, x), targets[j])
                _add_row(gradient, slope / (n * (offsets[i + 1] - offsets[i])), features, j)
        sums[GRADIENT] += _dot(gradient, gradient)


@njit(cache=True, fastmath=FAST)
def _node_segment(
    features,
    targets,
    offsets,
    code,
    eta,
    idx,
    q,
    i,
    t,
    length,
    done,
    K,
    node_steps,
    track,
    sums,
    x,
    trace,
    work,
):
    """Node i's iterations t .. t + length; adds its share to ``sums`` and its path to ``trace``."""
    local, batch, n = 0.0, 0.0, offsets.size - 1
    first, last = offsets[i], offsets[i + 1]
    for k in range(length):
        if track[LOCAL]:
            local += _mean_loss(features, targets, first, last, code, x)
        if track[GLOBAL]:
            for c in range(x.size):
                trace[k, c] += x[c]
        if (t + k) % K < node_steps[i]:
            batch += _step(
                features,
                targets,
                first,
                last,
                code,
                eta,
                idx,
                q,
                i,
                done + k,
                x,
                work,
                track[BATCH],
            )
    sums[LOCAL] += local / n
    sums[BATCH] += batch / n


@njit(cache=True, fastmath=FAST)
def _advance_run(
    features,
    targets,
    offsets,
    code,
    eta,
    models,
    idx,
    q,
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
    total = np.empty(d)
    work = np.empty(max(idx.shape[3], np.max(np.diff(offsets))))
    trace = np.zeros((SEGMENT if track[GLOBAL] else 1, d))
    fused = averaging and idx.shape[3] == 1 and not (track[LOCAL] or track[GLOBAL])
    at_round = track[SYNC] or track[GRADIENT]
    t, done = first, 0
    while done < steps:
        if fused and t % K == 0 and steps - done >= K:
            # All nodes hold the mean, which stays in one vector while whole rounds follow.
            mean[:] = models[0]
            while steps - done >= K:
                if at_round:
                    _record_round(features, targets, offsets, code, mean, track, sums, best, x)
                loss = _plain_round(
                    features,
                    targets,
                    offsets,
                    code,
                    eta,
                    idx,
                    q,
                    done,
                    node_steps,
                    mean,
                    x,
                    total,
                    track[BATCH],
                )
                sums[BATCH] += loss / n
                t += K
                done += K
            for i in range(n):
                models[i, :] = mean
            continue
        if t % K == 0 and at_round:
            _mean_model(models, mean)
            _record_round(features, targets, offsets, code, mean, track, sums, best, x)
        length = min(K - t % K, steps - done, SEGMENT)
        trace[:] = 0.0
        for i in range(n):
            x[:] = models[i]
            _node_segment(
                features,
                targets,
                offsets,
                code,
                eta,
                idx,
                q,
                i,
                t,
                length,
                done,
                K,
                node_steps,
                track,
                sums,
                x,
                trace,
                work,
            )
            models[i, :] = x
        if track[GLOBAL]:
            for k in range(length):
                for c in range(d):
                    mean[c] = trace[k, c] / n
                sums[GLOBAL] += _objective(features, targets, offsets, code, mean)
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
    for full gradients, sums (P, 5), best (P,). Run p uses the draws of seed p % seeds.
    """
    for p in prange(models.shape[0]):
        _advance_run(
            features,
            targets,
            offsets,
            code,
            etas[p],
            models[p],
            idx,
            p % idx.shape[0],
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
    track = np.zeros(5, np.bool_)
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
                idx,
                p % idx.shape[0],
                i,
                t,
                length,
                done,
                K,
                node_steps,
                track,
                np.zeros(5),
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
def _add_rows(out, gram, weights, scale, rows):
    """out += scale * G weights over the non-zero weights, eight rows a pass.

    ``rows`` is work space, one longer than ``weights``.
    """
    found = 0
    for k in range(weights.size):
        # No branch: which weights are zero is random.
        rows[found] = k
        found += weights[k] != 0.0
    q = 0
    while q + 8 <= found:
        a, b, c, d = rows[q], rows[q + 1], rows[q + 2], rows[q + 3]
        e, f, g, h = rows[q + 4], rows[q + 5], rows[q + 6], rows[q + 7]
        wa, wb, wc, wd = weights[a], weights[b], weights[c], weights[d]
        we, wf, wg, wh = weights[e], weights[f], weights[g], weights[h]
        for m in range(out.size):
            out[m] += scale * (
                ((wa * gram[a, m] + wb * gram[b, m]) + (wc * gram[c, m] + wd * gram[d, m]))
                + ((we * gram[e, m] + wf * gram[f, m]) + (wg * gram[g, m] + wh * gram[h, m]))
            )
        q += 8
    for r in range(q, found):
        _add_row(out, scale * weights[rows[r]], gram, rows[r])


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
def _record_margin_round(gram, offsets, targets, code, z, track, sums, best, weights, image, rows):
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
        _add_rows(image, gram, weights, 1.0, rows)
        sums[GRADIENT] += max(_dot(weights, image), 0.0)


@njit(cache=True, fastmath=FAST)
def _margin_step(gram, targets, first, last, code, eta, idx, q, i, done, z, delta, work, wanted):
    """One local step of one node: its own margins move by its own block of the Gram matrix.

    Returns the batch's mean loss before the step if ``wanted``, else 0.
    """
    drawn = idx.shape[3]
    count = drawn if drawn > 0 else last - first
    loss = 0.0
    for b in range(count):
        j = first + (idx[q, i, done, b] if drawn > 0 else b)
        if wanted:
            loss += loss_value(code, z[j], targets[j])
        work[b] = -eta / count * loss_derivative(code, z[j], targets[j])
    for b in range(count):
        j = first + (idx[q, i, done, b] if drawn > 0 else b)
        delta[j] += work[b]
        for m in range(first, last):
            z[m] += work[b] * gram[j, m]
    return loss / count


@njit(cache=True, fastmath=FAST)
def _plain_margin_round(
    gram, targets, offsets, code, eta, idx, q, done, node_steps, base, z, delta, wanted
):
    """A whole round with one sample a step; a node's margins stay in the first-level cache.

    Returns the sum of the samples' losses if ``wanted``, else 0.
    """
    loss = 0.0
    for i in range(offsets.size - 1):
        first, last = offsets[i], offsets[i + 1]
        for m in range(first, last):
            z[m] = base[m]
            delta[m] = 0.0
        for k in range(node_steps[i]):
            j = first + idx[q, i, done + k, 0]
            if wanted:
                loss += loss_value(code, z[j], targets[j])
            scale = -eta * loss_derivative(code, z[j], targets[j])
            delta[j] += scale
            for m in range(first, last):
                z[m] += scale * gram[j, m]
    return loss


@njit(cache=True, fastmath=FAST)
def _synchronise(gram, offsets, base, z, delta, alpha, rows):
    """The mean's margins and coefficients after a round; every node's own are the mean's again."""
    n = offsets.size - 1
    _add_rows(base, gram, delta, 1.0 / n, rows)
    for j in range(delta.size):
        alpha[j] += delta[j] / n
        delta[j] = 0.0
        z[j] = base[j]


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
    q,
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
    work = np.empty(max(idx.shape[3], np.max(np.diff(offsets))))
    mean = np.empty_like(base)
    change = np.empty_like(base)
    image = np.empty_like(base)
    rows = np.empty(base.size + 1, np.int64)
    fused = averaging and idx.shape[3] == 1 and not (track[LOCAL] or track[GLOBAL])
    at_round = track[SYNC] or track[GRADIENT]
    t, done = first, 0
    while done < steps:
        starts = t % K == 0
        if track[GLOBAL] or (at_round and starts and not averaging):
            mean[:] = base
            _add_rows(mean, gram, delta, 1.0 / n, rows)
        if starts and at_round:
            z_round = base if averaging else mean
            _record_margin_round(
                gram, offsets, targets, code, z_round, track, sums, best, change, image, rows
            )
        if fused and starts and steps - done >= K:
            loss = _plain_margin_round(
                gram,
                targets,
                offsets,
                code,
                eta,
                idx,
                q,
                done,
                node_steps,
                base,
                z,
                delta,
                track[BATCH],
            )
            sums[BATCH] += loss / n
            _synchronise(gram, offsets, base, z, delta, alpha, rows)
            t += K
            done += K
            continue
        if track[LOCAL]:
            sums[LOCAL] += _margin_loss(offsets, targets, code, z)
        if track[GLOBAL]:
            sums[GLOBAL] += _margin_loss(offsets, targets, code, mean)
        for i in range(n):
            if t % K < node_steps[i]:
                loss = _margin_step(
                    gram,
                    targets,
                    offsets[i],
                    offsets[i + 1],
                    code,
                    eta,
                    idx,
                    q,
                    i,
                    done,
                    z,
                    delta,
                    work,
                    track[BATCH],
                )
                sums[BATCH] += loss / n
        t += 1
        done += 1
        if averaging and t % K == 0:
            _synchronise(gram, offsets, base, z, delta, alpha, rows)


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
            idx,
            p % idx.shape[0],
            first,
            steps,
            K,
            node_steps,
            averaging,
            track,
            sums[p],
            best[p : p + 1],
        )
