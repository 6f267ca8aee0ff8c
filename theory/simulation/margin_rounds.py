"""Whole rounds in margin space, with one sample a step: the fast path of margin_kernels.

A round changes the coefficients of those samples only that its steps draw. They are collected as lists,
``rows`` and ``weights`` (their part in the mean change), ``found`` long, so that a round costs nothing
for the others but their rows of the Gram matrix.

Within a round a step needs one margin, that of its own sample: the mean's, moved by the k steps that the
node has taken since. Few steps take these k products of samples; many move all the node's margins along.
Both are the same sums in another order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from theory.simulation.compilation import FAST, compiled
from theory.simulation.compiled_losses import loss_derivative, loss_value
from theory.simulation.course import BATCH, DISTANCE, add_row, server_step

# Sums keep their order, so that products with earlier steps are ready before the last one is.
_ORDERED = {"contract", "nsz"}
# A node of m samples takes products for up to m + this many steps a round. Measured: they take as long as
# all margins at 25 steps for m = 4, at 36 for m = 10, and half as long at 40 for m = 40.
_FEW = 20


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


class Touched(NamedTuple):
    """Work space for the samples that a round touches; see :func:`touched`.

    ``mark[j]`` is the number of the last round that drew sample j; ``rows`` is one longer than N, and
    ``drawn`` and ``scales`` are the steps that a node has taken, as many as it takes by products.
    """

    rows: np.ndarray
    weights: np.ndarray
    mark: np.ndarray
    drawn: np.ndarray
    scales: np.ndarray


@compiled()
def touched(samples, local_steps):
    """Empty lists for a problem of so many samples."""
    few = min(local_steps, samples + _FEW)
    return Touched(
        np.empty(samples + 1, np.uint64),
        np.empty(samples),
        np.zeros(samples, np.int64),
        np.empty(few, np.uint64),
        np.empty(few),
    )


@compiled(fastmath=FAST)
def add_rows(out, gram, rows, weights, found):
    """out += the sum of weights[q] times row rows[q] of the Gram matrix, eight rows a pass."""
    q = 0
    while q + 8 <= found:
        a, b, c, d = rows[q], rows[q + 1], rows[q + 2], rows[q + 3]
        e, f, g, h = rows[q + 4], rows[q + 5], rows[q + 6], rows[q + 7]
        wa, wb, wc, wd = weights[q], weights[q + 1], weights[q + 2], weights[q + 3]
        we, wf, wg, wh = weights[q + 4], weights[q + 5], weights[q + 6], weights[q + 7]
        for m in range(out.size):
            out[m] += (
                (wa * gram[a, m] + wb * gram[b, m]) + (wc * gram[c, m] + wd * gram[d, m])
            ) + ((we * gram[e, m] + wf * gram[f, m]) + (wg * gram[g, m] + wh * gram[h, m]))
        q += 8
    for r in range(q, found):
        add_row(out, weights[r], gram, rows[r])


@compiled(fastmath=_ORDERED, inline="always")
def whole_round(data, course, eta, idx, who, q, r, done, share, base, z, delta, number, lists):
    """All local steps of round ``number`` (from 1 on): (found, P, weighted sum of the losses).

    P is kept up where it costs nothing; the losses are 0 unless wanted.
    """
    # One function for all nodes, and unsigned sample numbers, which need no test for being negative:
    # a call a node, with all its arrays, costs more than the node's steps.
    gram, targets, offsets, node_steps = data.gram, data.targets, data.offsets, course.node_steps
    rows, weights, mark = lists.rows, lists.weights, lists.mark
    drawn, scales = lists.drawn, lists.scales
    wanted = course.track[BATCH] or course.reports
    found, mean_square, losses = 0, 0.0, 0.0
    for slot in range(share.size):
        i = who[q, r, slot] if who.shape[1] else slot
        first, last, steps, begun = offsets[i], offsets[i + 1], node_steps[i], found
        square, loss = 0.0, 0.0
        few = steps <= last - first + _FEW
        if not few:
            for c in range(first, last):
                z[c] = base[c]
        for k in range(steps):
            j = np.uint64(first + idx[q, i, done + k, 0])
            moved = 0.0
            if few:
                for s in range(k):
                    moved += scales[s] * gram[j, drawn[s]]
                margin = base[j] + moved
            else:
                margin = z[j]
                moved = margin - base[j]
            if wanted:
                loss += loss_value(data, margin, targets[j])
            scale = -eta * loss_derivative(data, margin, targets[j])
            square += scale * (2.0 * moved + scale * gram[j, j])
            if few:
                drawn[k] = j
                scales[k] = scale
            else:
                for c in range(first, last):
                    z[c] += scale * gram[j, c]
            delta[j] += scale
            # No branch: whether a sample comes again is random.
            rows[found] = j
            found += mark[j] != number
            mark[j] = number
        for s in range(begun, found):
            weights[s] = share[slot] * delta[rows[s]]
        mean_square += share[slot] * max(square, 0.0)
        losses += share[slot] * loss
    return found, mean_square, losses


@compiled(fastmath=FAST)
def collect(data, who, q, r, share, base, z, delta, lists):
    """(found, P) of a round that was walked iteration by iteration, from ``z`` and ``delta``."""
    found, mean_square = 0, 0.0
    for slot in range(share.size):
        i = who[q, r, slot] if who.shape[1] else slot
        square = 0.0
        for j in range(data.offsets[i], data.offsets[i + 1]):
            # delta_i' G_ii delta_i: a node's margins moved by G_ii delta_i.
            square += delta[j] * (z[j] - base[j])
            lists.rows[found] = j
            lists.weights[found] = share[slot] * delta[j]
            found += delta[j] != 0.0
        mean_square += share[slot] * max(square, 0.0)
    return found, mean_square


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
def reported(
    data, course, eta, phi, base, alpha, image, lists, found, mean_square, loss, record, row
):
    """beta of the round, recorded where it is asked for; for a plain mean no round needs its Q."""
    if record.shape[0]:
        record[row, DISTANCE] = _distance(data, alpha, image)
    rows, weights = lists.rows, lists.weights
    image[:] = 0.0
    add_rows(image, data.gram, rows, weights, found)
    square_mean = 0.0
    for s in range(found):
        square_mean += weights[s] * image[rows[s]]
    square_mean = max(square_mean, 0.0)
    return server_step(course, eta, phi, mean_square, square_mean, loss, record, row)


@compiled(fastmath=FAST)
def move(gram, rows, weights, found, beta, base, delta, alpha):
    """The server's step along the mean change in the lists; afterwards every ``delta`` is 0."""
    for s in range(found):
        weights[s] *= beta
        alpha[rows[s]] += weights[s]
        delta[rows[s]] = 0.0
    add_rows(base, gram, rows, weights, found)
