"""Compiled Local SGD in R^d: :func:`advance_models`, one run a thread, and :func:`advance_nodes`.

Names of arguments as in :mod:`theory.simulation.course`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from theory.simulation.compilation import FAST, compiled
from theory.simulation.compiled_losses import loss_derivative, loss_value
from theory.simulation.course import (
    BATCH,
    COLUMNS,
    DISTANCE,
    GLOBAL,
    GRADIENT,
    LOCAL,
    SYNC,
    add_row,
    dot,
    server_step,
    shares,
)

# A long round is cut into segments, so that the trace of its means needs bounded memory.
SEGMENT = 64


class ModelData(NamedTuple):
    """The problem: features (N, d), targets (N,), node i's rows offsets[i] to offsets[i + 1]."""

    features: np.ndarray
    targets: np.ndarray
    offsets: np.ndarray
    solution: np.ndarray
    code: int
    value: object
    derivative: object


@compiled(fastmath=FAST)
def _row_dot(rows, j, x):
    total = 0.0
    for k in range(x.size):
        total += rows[j, k] * x[k]
    return total


@compiled(fastmath=FAST)
def _square_distance(a, b):
    total = 0.0
    for k in range(a.size):
        total += (a[k] - b[k]) ** 2
    return total


@compiled(fastmath=FAST)
def _mean_loss(data, i, x):
    """f_i(x)."""
    first, last = data.offsets[i], data.offsets[i + 1]
    total = 0.0
    for j in range(first, last):
        total += loss_value(data, _row_dot(data.features, j, x), data.targets[j])
    return total / (last - first)


@compiled(fastmath=FAST)
def _objective(data, x):
    """f(x)."""
    n = data.offsets.size - 1
    total = 0.0
    for i in range(n):
        total += _mean_loss(data, i, x)
    return total / n


@compiled(fastmath=FAST)
def _record_round(data, track, x, sums, best, gradient):
    """Sums that belong to the start of a round, at the mean model ``x``."""
    if track[SYNC]:
        value = _objective(data, x)
        sums[SYNC] += value
        best[0] = min(best[0], value)
    if track[GRADIENT]:
        gradient[:] = 0.0
        n = data.offsets.size - 1
        for i in range(n):
            first, last = data.offsets[i], data.offsets[i + 1]
            for j in range(first, last):
                margin = _row_dot(data.features, j, x)
                slope = loss_derivative(data, margin, data.targets[j])
                add_row(gradient, slope / (n * (last - first)), data.features, j)
        sums[GRADIENT] += dot(gradient, gradient)


@compiled(fastmath=FAST)
def _step(data, eta, idx, q, i, done, x, work, wanted):
    """One local step in place: on the sampled rows, or on all of the node's where none are drawn.

    Returns the batch's mean loss before the step if ``wanted``, else 0.
    """
    features, targets = data.features, data.targets
    first, last, drawn = data.offsets[i], data.offsets[i + 1], idx.shape[3]
    count = drawn if drawn > 0 else last - first
    loss = 0.0
    for b in range(count):
        j = first + (idx[q, i, done, b] if drawn > 0 else b)
        margin = _row_dot(features, j, x)
        if wanted:
            loss += loss_value(data, margin, targets[j])
        work[b] = -eta / count * loss_derivative(data, margin, targets[j])
    for b in range(count):
        add_row(x, work[b], features, first + (idx[q, i, done, b] if drawn > 0 else b))
    return loss / count


@compiled(fastmath=FAST)
def _segment(data, course, eta, idx, q, i, t, length, done, weight, sums, x, trace, work):
    """Node i's iterations t to t + length on ``x``; ``weight`` is its own in all means.

    Adds to ``sums`` and to the trace of the mean model; returns its weighted sum of batch losses.
    """
    track = course.track
    local, batch = 0.0, 0.0
    for k in range(length):
        if track[LOCAL]:
            local += _mean_loss(data, i, x)
        if track[GLOBAL]:
            for c in range(x.size):
                trace[k, c] += weight * x[c]
        if (t + k) % course.local_steps < course.node_steps[i]:
            wanted = track[BATCH] or course.reports
            batch += _step(data, eta, idx, q, i, done + k, x, work, wanted)
    sums[LOCAL] += weight * local
    sums[BATCH] += weight * batch
    return weight * batch


@compiled(fastmath=FAST)
def _plain_round(data, course, eta, idx, who, q, r, done, share, center, x, total):
    """A whole round with one sample a step: from ``center`` by way of ``x`` to the mean in ``total``.

    Each pass over x applies one step and takes the product with the next sample; the last step goes
    straight into the mean. Returns P (if wanted, else 0) and the weighted sum of the samples' losses.
    """
    features, targets = data.features, data.targets
    d = center.size
    wanted = course.track[BATCH] or course.reports
    mean_square, losses = 0.0, 0.0
    total[:] = 0.0
    for slot in range(share.size):
        i = who[q, r, slot] if who.shape[1] else slot
        first, last, weight = data.offsets[i], course.node_steps[i], share[slot]
        following = first + idx[q, i, done, 0]
        margin = _row_dot(features, following, center)
        own = 0.0
        for t in range(last):
            j = following
            if wanted:
                own += loss_value(data, margin, targets[j])
            scale = -eta * loss_derivative(data, margin, targets[j])
            if t == last - 1:
                if t == 0:
                    for k in range(d):
                        x[k] = center[k]
                if course.reports:
                    square = 0.0
                    for k in range(d):
                        value = x[k] + scale * features[j, k]
                        total[k] += weight * value
                        square += (value - center[k]) ** 2
                    mean_square += weight * square
                else:
                    for k in range(d):
                        total[k] += weight * (x[k] + scale * features[j, k])
                break
            following = first + idx[q, i, done + t + 1, 0]
            margin = 0.0
            if t == 0:
                for k in range(d):
                    value = center[k] + scale * features[j, k]
                    x[k] = value
                    margin += value * features[following, k]
            else:
                for k in range(d):
                    value = x[k] + scale * features[j, k]
                    x[k] = value
                    margin += value * features[following, k]
        losses += weight * own
    return mean_square, losses


@compiled()
def _move(center, total, beta):
    # Exactly the mean for beta = 1, however far it is from the center.
    for k in range(center.size):
        center[k] = total[k] + (beta - 1.0) * (total[k] - center[k])


@compiled(fastmath=FAST)
def _combine(data, course, eta, phi, center, total, mean_square, loss, record, row):
    """The server's step, from the participants' mean model ``total``, into ``center``."""
    if not course.reports:
        _move(center, total, course.number)
        return
    square_mean = _square_distance(total, center)
    beta = server_step(course, eta, phi, mean_square, square_mean, loss, record, row)
    if record.shape[0]:
        record[row, DISTANCE] = (
            _square_distance(center, data.solution) if data.solution.size else np.nan
        )
    _move(center, total, beta)


@compiled(fastmath=FAST)
def _mean_model(models, share, out):
    out[:] = 0.0
    for slot in range(models.shape[0]):
        add_row(out, share[slot], models, slot)


@compiled(fastmath=FAST)
def _advance_run(
    data, course, eta, phi, center, models, idx, who, q, first, steps, sums, best, carried, record
):
    m, d = models.shape
    K, track = course.local_steps, course.track
    x, mean, share = np.empty(d), np.empty(d), np.empty(m)
    work = np.empty(max(idx.shape[3], np.max(np.diff(data.offsets))))
    trace = np.zeros((SEGMENT if track[GLOBAL] else 1, d))
    fused = course.averaging and idx.shape[3] == 1 and not (track[LOCAL] or track[GLOBAL])
    at_round = track[SYNC] or track[GRADIENT]
    t, done = first, 0
    while done < steps:
        r = t // K - first // K
        starts = t % K == 0
        if starts or done == 0:
            shares(course, who, q, r, share)
        if starts and at_round:
            if not course.averaging:
                _mean_model(models, share, mean)
            _record_round(data, track, center if course.averaging else mean, sums, best, x)
        row = t // K
        if fused and starts and steps - done >= K:
            mean_square, loss = _plain_round(
                data, course, eta, idx, who, q, r, done, share, center, x, mean
            )
            sums[BATCH] += loss
            _combine(data, course, eta, phi, center, mean, mean_square, loss, record, row)
            t += K
            done += K
            continue
        length = min(K - t % K, steps - done, SEGMENT)
        trace[:] = 0.0
        for slot in range(m):
            i = who[q, r, slot] if who.shape[1] else slot
            x[:] = center if starts and course.averaging else models[slot]
            carried[0] += _segment(
                data, course, eta, idx, q, i, t, length, done, share[slot], sums, x, trace, work
            )
            models[slot, :] = x
        if track[GLOBAL]:
            for k in range(length):
                mean[:] = trace[k]
                sums[GLOBAL] += _objective(data, mean)
        t += length
        done += length
        if course.averaging and t % K == 0:
            mean_square = 0.0
            if course.reports:
                for slot in range(m):
                    mean_square += share[slot] * _square_distance(models[slot], center)
            _mean_model(models, share, mean)
            _combine(data, course, eta, phi, center, mean, mean_square, carried[0], record, row)
            carried[0] = 0.0


@compiled(parallel=True)
def advance_models(
    data, course, etas, phis, centers, models, idx, who, first, steps, sums, best, carried, record
):
    """Advance all runs by ``steps`` iterations in R^d, one run a thread.

    Shapes: centers (P, d), models (P, m, d), etas, phis, best (P,), sums (P, COLUMNS), carried (P, 1):
    S of a round that an earlier call began; record (P, R, 5), or (P, 0, 5) for none. Run p uses the
    draws of seed p % seeds. Between rounds only ``centers`` is meaningful.
    """
    for p in prange(models.shape[0]):
        _advance_run(
            data,
            course,
            etas[p],
            phis[p],
            centers[p],
            models[p],
            idx,
            who,
            p % idx.shape[0],
            first,
            steps,
            sums[p],
            best[p : p + 1],
            carried[p],
            record[p],
        )


@compiled(parallel=True, fastmath=FAST)
def advance_nodes(data, course, etas, centers, models, idx, who, first, steps):
    """As :func:`advance_models` with a fixed outer step and nothing recorded, one node of one run a
    thread: for few runs and large d."""
    runs, m, d = models.shape
    K = course.local_steps
    width = max(idx.shape[3], np.max(np.diff(data.offsets)))
    share = np.empty((runs, m))
    t, done = first, 0
    while done < steps:
        r = t // K - first // K
        length = min(K - t % K, steps - done)
        starts = t % K == 0 and course.averaging
        for p in range(runs):
            shares(course, who, p % idx.shape[0], r, share[p])
        for task in prange(runs * m):
            p, slot = task // m, task % m
            q = p % idx.shape[0]
            i = who[q, r, slot] if who.shape[1] else slot
            if starts:
                models[p, slot, :] = centers[p]
            _segment(
                data,
                course,
                etas[p],
                idx,
                q,
                i,
                t,
                length,
                done,
                share[p, slot],
                np.zeros(COLUMNS),
                models[p, slot],
                np.zeros((1, 1)),
                np.empty(width),
            )
        t += length
        done += length
        if course.averaging and t % K == 0:
            blocks = (d + 4095) // 4096
            for task in prange(runs * blocks):
                p, b = task // blocks, task % blocks
                for k in range(b * 4096, min(d, (b + 1) * 4096)):
                    total = 0.0
                    for slot in range(m):
                        total += share[p, slot] * models[p, slot, k]
                    centers[p, k] = total + (course.number - 1.0) * (total - centers[p, k])
