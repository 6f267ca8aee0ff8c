"""Compiled Local SGD in margin space: :func:`advance_margins`, whose cost does not grow with d.

A node's model is x_0 + A'(alpha + its own delta), its own margins are all that its steps need, and the
norms of Lemma 2 are quadratic forms in coefficients that a round computes anyway. Names of arguments
as in :mod:`theory.simulation.model_kernels`, and per run, each (N,):

* ``base``: all margins of xbar_r; ``z``: each node's margins on its own samples;
* ``delta``: each node's coefficients since the last averaging; ``alpha``: those of xbar_r.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from theory.simulation.compilation import FAST, compiled
from theory.simulation.compiled_losses import loss_derivative, loss_value
from theory.simulation.model_kernels import (
    BATCH,
    DISTANCE,
    GLOBAL,
    GRADIENT,
    LOCAL,
    LOSS,
    MEAN_SQUARE,
    OUTER_STEP,
    SQUARE_MEAN,
    SYNC,
    add_row,
    dot,
    shares,
)
from theory.simulation.outer_steps import outer_step


class MarginData(NamedTuple):
    """The problem: Gram matrix (N, N), targets (N,), node i's samples offsets[i] to offsets[i + 1].

    ``coordinates`` are the samples in an orthonormal basis of their span, (N, r), and ``solution`` the
    coefficients of x*, (N,); both empty where there is no x*.
    """

    gram: np.ndarray
    targets: np.ndarray
    offsets: np.ndarray
    coordinates: np.ndarray
    solution: np.ndarray
    code: int
    value: object
    derivative: object


@compiled(fastmath=FAST)
def _add_rows(out, gram, weights, rows):
    """out += G weights over the non-zero weights, eight rows a pass.

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
            out[m] += (
                (wa * gram[a, m] + wb * gram[b, m]) + (wc * gram[c, m] + wd * gram[d, m])
            ) + ((we * gram[e, m] + wf * gram[f, m]) + (wg * gram[g, m] + wh * gram[h, m]))
        q += 8
    for r in range(q, found):
        add_row(out, weights[rows[r]], gram, rows[r])


@compiled(fastmath=FAST)
def _node_loss(data, i, z):
    """f_i from margins."""
    first, last = data.offsets[i], data.offsets[i + 1]
    total = 0.0
    for j in range(first, last):
        total += loss_value(data, z[j], data.targets[j])
    return total / (last - first)


@compiled(fastmath=FAST)
def _objective(data, z):
    """f from margins."""
    n = data.offsets.size - 1
    total = 0.0
    for i in range(n):
        total += _node_loss(data, i, z)
    return total / n


@compiled(fastmath=FAST)
def _record_round(data, track, z, sums, best, weights, image, rows):
    if track[SYNC]:
        value = _objective(data, z)
        sums[SYNC] += value
        best[0] = min(best[0], value)
    if track[GRADIENT]:
        n = data.offsets.size - 1
        for i in range(n):
            first, last = data.offsets[i], data.offsets[i + 1]
            for j in range(first, last):
                slope = loss_derivative(data, z[j], data.targets[j])
                weights[j] = slope / (n * (last - first))
        image[:] = 0.0
        _add_rows(image, data.gram, weights, rows)
        sums[GRADIENT] += max(dot(weights, image), 0.0)


@compiled(fastmath=FAST)
def _step(data, eta, idx, q, i, done, z, delta, work, wanted):
    """One local step of one node: its own margins move by its own block of the Gram matrix.

    Returns the batch's mean loss before the step if ``wanted``, else 0.
    """
    first, last, drawn = data.offsets[i], data.offsets[i + 1], idx.shape[3]
    count = drawn if drawn > 0 else last - first
    loss = 0.0
    for b in range(count):
        j = first + (idx[q, i, done, b] if drawn > 0 else b)
        if wanted:
            loss += loss_value(data, z[j], data.targets[j])
        work[b] = -eta / count * loss_derivative(data, z[j], data.targets[j])
    for b in range(count):
        j = first + (idx[q, i, done, b] if drawn > 0 else b)
        delta[j] += work[b]
        for k in range(first, last):
            z[k] += work[b] * data.gram[j, k]
    return loss / count


@compiled(fastmath=FAST)
def _plain_round(data, course, eta, idx, who, q, r, done, share, z, delta):
    """The local steps of a whole round with one sample a step; a node's margins stay in cache.

    Returns the weighted sum of the samples' losses if wanted, else 0.
    """
    gram, targets = data.gram, data.targets
    wanted = course.track[BATCH] or course.reports
    losses = 0.0
    for slot in range(share.size):
        i = who[q, r, slot] if who.shape[1] else slot
        first, last = data.offsets[i], data.offsets[i + 1]
        own = 0.0
        for k in range(course.node_steps[i]):
            j = first + idx[q, i, done + k, 0]
            if wanted:
                own += loss_value(data, z[j], targets[j])
            scale = -eta * loss_derivative(data, z[j], targets[j])
            delta[j] += scale
            for c in range(first, last):
                z[c] += scale * gram[j, c]
        losses += share[slot] * own
    return losses


@compiled(fastmath=FAST)
def _mean_change(data, who, q, r, share, delta, change):
    """The coefficients of the mean change, into ``change``; ``delta`` is 0 at all other nodes."""
    if who.shape[1]:
        change[:] = 0.0
    for slot in range(share.size):
        i = who[q, r, slot] if who.shape[1] else slot
        for j in range(data.offsets[i], data.offsets[i + 1]):
            change[j] = share[slot] * delta[j]


@compiled(fastmath=FAST)
def _distance(data, alpha, work):
    """||xbar_r - x*||^2; in coordinates, as coefficients may be far apart where the samples depend."""
    if not data.solution.size:
        return np.nan
    r = data.coordinates.shape[1]
    work[:r] = 0.0
    for j in range(alpha.size):
        weight = alpha[j] - data.solution[j]
        for k in range(r):
            work[k] += weight * data.coordinates[j, k]
    square = 0.0
    for k in range(r):
        square += work[k] ** 2
    return square


@compiled(fastmath=FAST)
def _combine(
    data,
    course,
    eta,
    phi,
    who,
    q,
    r,
    share,
    base,
    z,
    delta,
    alpha,
    change,
    image,
    rows,
    loss,
    record,
    row,
):
    """The server's step; every node's own margins and coefficients are the new mean's."""
    if record.shape[0]:
        record[row, DISTANCE] = _distance(data, alpha, image)
    _mean_change(data, who, q, r, share, delta, change)
    image[:] = 0.0
    _add_rows(image, data.gram, change, rows)
    beta = course.number
    if course.reports:
        mean_square = 0.0
        for slot in range(share.size):
            i = who[q, r, slot] if who.shape[1] else slot
            square = 0.0
            for j in range(data.offsets[i], data.offsets[i + 1]):
                # delta_i' G_ii delta_i: a node's margins moved by G_ii delta_i.
                square += delta[j] * (z[j] - base[j])
            mean_square += share[slot] * max(square, 0.0)
        square_mean = max(dot(change, image), 0.0)
        beta = outer_step(course.rule, course.number, mean_square, square_mean, loss, eta, phi)
        if record.shape[0]:
            record[row, MEAN_SQUARE] = mean_square
            record[row, SQUARE_MEAN] = square_mean
            record[row, LOSS] = loss
            record[row, OUTER_STEP] = beta
    for j in range(base.size):
        base[j] += beta * image[j]
        alpha[j] += beta * change[j]
        delta[j] = 0.0
        z[j] = base[j]


@compiled(fastmath=FAST)
def _advance_run(
    data,
    course,
    eta,
    phi,
    base,
    z,
    delta,
    alpha,
    idx,
    who,
    q,
    first,
    steps,
    sums,
    best,
    carried,
    record,
    m,
):
    K, track = course.local_steps, course.track
    work = np.empty(max(idx.shape[3], np.max(np.diff(data.offsets))))
    mean, change, image = np.empty_like(base), np.empty_like(base), np.empty_like(base)
    rows, share = np.empty(base.size + 1, np.int64), np.empty(m)
    fused = course.averaging and idx.shape[3] == 1 and not (track[LOCAL] or track[GLOBAL])
    at_round = track[SYNC] or track[GRADIENT]
    wanted = track[BATCH] or course.reports
    t, done = first, 0
    while done < steps:
        r = t // K - first // K
        starts = t % K == 0
        if starts or done == 0:
            shares(course, who, q, r, share)
        if track[GLOBAL] or (at_round and starts and not course.averaging):
            mean[:] = base
            _mean_change(data, who, q, r, share, delta, change)
            _add_rows(mean, data.gram, change, rows)
        if starts and at_round:
            at = base if course.averaging else mean
            _record_round(data, track, at, sums, best, change, image, rows)
        row = t // K
        if fused and starts and steps - done >= K:
            loss = _plain_round(data, course, eta, idx, who, q, r, done, share, z, delta)
            sums[BATCH] += loss
            _combine(
                data,
                course,
                eta,
                phi,
                who,
                q,
                r,
                share,
                base,
                z,
                delta,
                alpha,
                change,
                image,
                rows,
                loss,
                record,
                row,
            )
            t += K
            done += K
            continue
        if track[GLOBAL]:
            sums[GLOBAL] += _objective(data, mean)
        for slot in range(m):
            i = who[q, r, slot] if who.shape[1] else slot
            if track[LOCAL]:
                sums[LOCAL] += share[slot] * _node_loss(data, i, z)
            if t % K < course.node_steps[i]:
                loss = share[slot] * _step(data, eta, idx, q, i, done, z, delta, work, wanted)
                sums[BATCH] += loss
                carried[0] += loss
        t += 1
        done += 1
        if course.averaging and t % K == 0:
            _combine(
                data,
                course,
                eta,
                phi,
                who,
                q,
                r,
                share,
                base,
                z,
                delta,
                alpha,
                change,
                image,
                rows,
                carried[0],
                record,
                row,
            )
            carried[0] = 0.0


@compiled(parallel=True)
def advance_margins(
    data,
    course,
    etas,
    phis,
    base,
    z,
    delta,
    alpha,
    idx,
    who,
    first,
    steps,
    sums,
    best,
    carried,
    record,
    participants,
):
    """Advance all runs in margin space, one run a thread. base, z, delta, alpha: (P, N).

    ``participants`` is m; the rest as in :func:`theory.simulation.model_kernels.advance_models`.
    """
    for p in prange(base.shape[0]):
        _advance_run(
            data,
            course,
            etas[p],
            phis[p],
            base[p],
            z[p],
            delta[p],
            alpha[p],
            idx,
            who,
            p % idx.shape[0],
            first,
            steps,
            sums[p],
            best[p : p + 1],
            carried[p],
            record[p],
            participants,
        )
