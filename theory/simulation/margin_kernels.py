"""Compiled Local SGD in margin space: :func:`advance_margins`, whose cost does not grow with d.

A node's model is x_0 + A'(alpha + its own delta), its own margins are all that its steps need, and the
norms of Lemma 2 are quadratic forms in coefficients that a round computes anyway. Names of arguments
as in :mod:`theory.simulation.course`, and per run, each (N,):

* ``base``: all margins of xbar_r; ``z``: each node's margins on its own samples, ``base`` again between
  calls that end with a round;
* ``delta``: each node's coefficients since the last averaging; ``alpha``: those of xbar_r.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from theory.simulation.compilation import FAST, compiled
from theory.simulation.compiled_losses import loss_derivative, loss_value
from theory.simulation.course import BATCH, GLOBAL, GRADIENT, LOCAL, SYNC, dot, shares
from theory.simulation.margin_rounds import add_rows, collect, move, reported, touched, whole_round


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
def _record_round(data, track, z, sums, best, image, lists):
    if track[SYNC]:
        value = _objective(data, z)
        sums[SYNC] += value
        best[0] = min(best[0], value)
    if track[GRADIENT]:
        n, rows, weights = data.offsets.size - 1, lists.rows, lists.weights
        for i in range(n):
            first, last = data.offsets[i], data.offsets[i + 1]
            for j in range(first, last):
                slope = loss_derivative(data, z[j], data.targets[j])
                weights[j] = slope / (n * (last - first))
                rows[j] = j
        image[:] = 0.0
        add_rows(image, data.gram, rows, weights, z.size)
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
    mean, image, share = np.empty_like(base), np.empty_like(base), np.empty(m)
    lists = touched(base.size, K)
    fused = course.averaging and idx.shape[3] == 1 and not (track[LOCAL] or track[GLOBAL])
    at_round = track[SYNC] or track[GRADIENT]
    wanted = track[BATCH] or course.reports
    t, done, number = first, 0, 0
    while done < steps:
        r = t // K - first // K
        starts = t % K == 0
        if starts or done == 0:
            shares(course, who, q, r, share)
        if track[GLOBAL] or (at_round and starts and not course.averaging):
            mean[:] = base
            found, _ = collect(data, who, q, r, share, base, z, delta, lists)
            add_rows(mean, data.gram, lists.rows, lists.weights, found)
        if starts and at_round:
            at = base if course.averaging else mean
            _record_round(data, track, at, sums, best, image, lists)
        row = t // K
        if fused and starts and steps - done >= K:
            number += 1
            found, mean_square, carried[0] = whole_round(
                data, course, eta, idx, who, q, r, done, share, base, z, delta, number, lists
            )
            sums[BATCH] += carried[0]
            t += K
            done += K
        else:
            if starts and course.averaging:
                z[:] = base
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
            if not course.averaging or t % K:
                continue
            found, mean_square = collect(data, who, q, r, share, base, z, delta, lists)
        beta, loss = course.number, carried[0]
        if course.reports:
            beta = reported(
                data,
                course,
                eta,
                phi,
                base,
                alpha,
                image,
                lists,
                found,
                mean_square,
                loss,
                record,
                row,
            )
        move(data.gram, lists.rows, lists.weights, found, beta, base, delta, alpha)
        carried[0] = 0.0
    if course.averaging and t % K == 0:
        z[:] = base


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
