"""A metric on a small problem, with its exact gradient in the data: reverse mode, written out.

f_i(x) = (1/m) sum_j loss(a_ij'x), x* = 0. :func:`paths` follows Local SGD with full gradients, or the mean over
given sequences of drawn samples; :func:`moments` the exact second moments with one sample a step (squared
loss). Both go forward once, keeping what the way back needs, and back once; a gradient costs about two
evaluations, however many data there are. The derivative of the least of several losses is that of the one
that is least.

References:
    A. Griewank, A. Walther, "Evaluating derivatives" (SIAM, 2nd ed. 2008), chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """A loss of margins with minimum 0 at 0 and |second derivative| at most 1.

    Attributes:
        name: in words.
        value, slope, bend: of an array of margins, and its first two derivatives.
        quadratic: whether expectations are exact by second moments.
        convex: A1.
    """

    name: str
    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    bend: Callable[[Array], Array]
    quadratic: bool = False
    convex: bool = True


@dataclass(frozen=True)
class Slope:
    """A number with its gradient: in the rows (n, m, d), the start (d,) and the step size.

    Where the start is a batch of points, (B, d), the number is a mean over them.
    """

    value: float
    rows: Array
    start: Array
    step: float = 0.0


@dataclass
class _Weights:
    """A metric as a weighted sum over the iterations, of what ends the run, and of nothing else.

    Attributes:
        local, overall, gradient: (T,), of (1/n) sum f_i(x_i^t), f(xbar^t), ||grad f(xbar^t)||^2.
        last, distance: of f(xbar_R), ||xbar_R - x*||^2.
    """

    local: Array
    overall: Array
    gradient: Array
    last: float = 0.0
    distance: float = 0.0


def _weights(metric: str, local_steps: int, sync: Sequence[float], last: float) -> _Weights:
    rounds = len(sync)
    total = local_steps * rounds
    found = _Weights(np.zeros(total), np.zeros(total), np.zeros(total))
    starts = np.arange(0, total, local_steps)
    if metric == "average_sync":
        found.overall[starts] = 1 / rounds
    elif metric == "average_local":
        found.local[:] = 1 / total
    elif metric == "average_global":
        found.overall[:] = 1 / total
    elif metric == "gradient":
        found.gradient[starts] = 1 / rounds
    elif metric == "distance":
        found.distance = 1.0
    elif metric == "best" and min(sync) < last:
        found.overall[starts[int(np.argmin(sync))]] = 1.0
    else:
        found.last = 1.0
    return found


# ---- along paths ---------------------------------------------------------------------------------


def loss_at(loss: Loss, rows: Array, points: Array) -> Slope:
    """The mean of f over points (B, d) that all nodes share."""
    margins = np.einsum("nmd,bd->bnm", rows, points)
    slopes = loss.slope(margins) / margins.size
    return Slope(
        float(loss.value(margins).mean()),
        np.asarray(np.einsum("bnm,bd->nmd", slopes, points)),
        np.asarray(np.einsum("bnm,nmd->bd", slopes, rows)),
    )


def squared_gradient_at(loss: Loss, rows: Array, points: Array) -> Slope:
    """The mean of ||grad f||^2 over points (B, d) that all nodes share."""
    n, m, _ = rows.shape
    margins = np.einsum("nmd,bd->bnm", rows, points)
    slopes, bends = loss.slope(margins) / (n * m), loss.bend(margins) / (n * m)
    gradients = np.einsum("bnm,nmd->bd", slopes, rows)
    turned = bends * np.einsum("nmd,bd->bnm", rows, gradients)
    share = 2 / len(points)
    by_rows = np.einsum("bnm,bd->nmd", slopes, gradients) + np.einsum("bnm,bd->nmd", turned, points)
    return Slope(
        float((gradients**2).sum(1).mean()),
        share * by_rows,
        share * np.asarray(np.einsum("bnm,nmd->bd", turned, rows)),
    )


def paths(
    loss: Loss,
    metric: str,
    rows: Array,
    start: Array,
    *,
    step: float,
    local_steps: int,
    rounds: int,
    draws: Array | None = None,
) -> Slope:
    """A metric of Local SGD, the mean over sequences of draws; "best" is the least of the means.

    Args:
        loss: of the margins.
        metric: of ``theory.claim.claim.METRICS``.
        rows: a_ij, (n, m, d).
        start: x_0, (d,).
        step: eta.
        local_steps, rounds: K, R.
        draws: (B, K R, n, m), the weight of every sample in each step; full gradients by default.
    """
    n, m, d = rows.shape
    if draws is None:
        draws = np.full((1, local_steps * rounds, n, m), 1 / m)
    count = len(draws)
    kept: list[Array] = []
    sync: list[float] = []
    common = np.repeat(start[None], count, axis=0)
    for r in range(rounds):
        models = np.repeat(common[:, None], n, axis=1)
        if metric == "best":
            sync.append(loss_at(loss, rows, common).value)
        for k in range(local_steps):
            kept.append(models)
            slopes = loss.slope(np.einsum("nmd,bnd->bnm", rows, models))
            drawn = draws[:, r * local_steps + k] * slopes
            models = models - step * np.einsum("bnm,nmd->bnd", drawn, rows)
        common = models.mean(1)
    end = loss_at(loss, rows, common)
    weights = _weights(metric, local_steps, sync or [0.0] * rounds, end.value)
    value = weights.last * end.value + weights.distance * float((common**2).sum(1).mean())
    by_rows, by_step = weights.last * end.rows, 0.0
    by_common = weights.last * end.start + 2 / count * weights.distance * common
    by_models = np.zeros((count, n, d))
    for t in reversed(range(len(kept))):
        models = kept[t]
        if (t + 1) % local_steps == 0:
            by_models = np.repeat(by_common[:, None] / n, n, axis=1)
        margins = np.einsum("nmd,bnd->bnm", rows, models)
        slopes, bends = loss.slope(margins), loss.bend(margins)
        ahead = np.einsum("nmd,bnd->bnm", rows, by_models)
        drawn, turned = draws[:, t] * slopes, draws[:, t] * bends * ahead
        by_step -= float((drawn * ahead).sum())
        by_rows = by_rows - step * (
            np.einsum("bnm,bnd->nmd", drawn, by_models) + np.einsum("bnm,bnd->nmd", turned, models)
        )
        by_models = by_models - step * np.einsum("bnm,nmd->bnd", turned, rows)
        if weights.local[t]:
            share = weights.local[t] / margins.size
            value += weights.local[t] * float(loss.value(margins).mean())
            by_rows = by_rows + share * np.einsum("bnm,bnd->nmd", slopes, models)
            by_models = by_models + share * np.einsum("bnm,nmd->bnd", slopes, rows)
        for weight, at in (
            (weights.overall[t], loss_at),
            (weights.gradient[t], squared_gradient_at),
        ):
            if weight:
                found = at(loss, rows, models.mean(1))
                value += weight * found.value
                by_rows = by_rows + weight * found.rows
                by_models = by_models + weight / n * found.start[:, None]
        if t % local_steps == 0:
            by_common = by_models.sum(1)
    return Slope(value, by_rows, by_common.sum(0), by_step)


# ---- one sample a step ---------------------------------------------------------------------------


def _inner(a: Array, b: Array) -> float:
    return float((a * b).sum())


def _mean_moment(own: Array, powers: Array, common: Array) -> Array:
    """E zbar zbar' from E z_i z_i', P_i^k and the moment at the round's start: nodes are independent."""
    total = powers.sum(0)
    crossed = total @ common @ total.T - (powers @ common @ powers.swapaxes(1, 2)).sum(0)
    return np.asarray((crossed + own.sum(0)) / len(own) ** 2)


def _mean_moment_back(by_mean: Array, powers: Array, common: Array) -> tuple[Array, Array, Array]:
    """The adjoints of :func:`_mean_moment`: of own, powers and common. ``by_mean`` is symmetric."""
    n, total = len(powers), powers.sum(0)
    by_own = np.repeat(by_mean[None], n, axis=0) / n**2
    by_powers = 2 / n**2 * (by_mean @ (total - powers) @ common)
    by_common = total.T @ by_mean @ total - (powers.swapaxes(1, 2) @ by_mean @ powers).sum(0)
    return by_own, by_powers, by_common / n**2


def moments(
    metric: str, rows: Array, start: Array, *, step: float, local_steps: int, rounds: int
) -> Slope:
    """The expectation of a metric with one sample a step and the squared loss; arguments as of :func:`paths`.

    "best" is the least of the expectations.
    """
    n, m, d = rows.shape
    outer = rows[..., :, None] * rows[..., None, :]
    hessians = outer.mean(1)
    overall, eye = hessians.mean(0), np.eye(d)
    single, average = eye - step * outer, eye - step * hessians
    kept, sync, common = [], [], np.outer(start, start)
    for _ in range(rounds):
        own, powers = np.repeat(common[None], n, axis=0), np.repeat(eye[None], n, axis=0)
        sync.append(0.5 * _inner(overall, common))
        for _ in range(local_steps):
            kept.append((own, powers, common))
            own = (single @ own[:, None] @ single).mean(1)
            powers = average @ powers
        common = _mean_moment(own, powers, common)
        kept.append((own, powers, kept[-1][2]))
    last = 0.5 * _inner(overall, common)
    weights = _weights(metric, local_steps, sync, last)
    value = weights.last * last + weights.distance * float(np.trace(common))
    by_common = 0.5 * weights.last * overall + weights.distance * eye
    by_overall, by_outer, by_step = 0.5 * weights.last * common, np.zeros_like(outer), 0.0
    by_hessians = np.zeros_like(hessians)
    for r in reversed(range(rounds)):
        first = r * (local_steps + 1)
        own, powers, begin = kept[first + local_steps]
        by_own, by_powers, by_begin = _mean_moment_back(by_common, powers, begin)
        for k in reversed(range(local_steps)):
            own, powers, _ = kept[first + k]
            # own -> mean_j A_j own A_j, A_j = I - step a_j a_j'; powers -> (I - step H_i) powers.
            by_single = 2 / m * (by_own[:, None] @ single @ own[:, None])
            by_average = by_powers @ powers.swapaxes(1, 2)
            by_step -= _inner(by_single, outer) + _inner(by_average, hessians)
            by_outer -= step * by_single
            by_hessians -= step * by_average
            by_own = (single @ by_own[:, None] @ single).mean(1)
            by_powers = average @ by_powers
            t = r * local_steps + k
            if weights.local[t]:
                share = 0.5 * weights.local[t] / n
                value += share * _inner(hessians, own)
                by_hessians += share * own
                by_own = by_own + share * hessians
            if weights.overall[t]:
                mean, weight = _mean_moment(own, powers, begin), 0.5 * weights.overall[t]
                value += weight * _inner(overall, mean)
                by_overall = by_overall + weight * mean
                more = _mean_moment_back(weight * overall, powers, begin)
                by_own, by_powers = by_own + more[0], by_powers + more[1]
                by_begin = by_begin + more[2]
            if weights.gradient[t]:
                weight, image = weights.gradient[t], overall @ begin
                value += weight * _inner(image, overall)
                by_overall = by_overall + weight * (image + image.T)
                by_begin = by_begin + weight * overall @ overall
        by_common = by_begin + by_own.sum(0)
        by_common = 0.5 * (by_common + by_common.T)
    by_hessians = by_hessians + by_overall / n
    by_outer = by_outer + by_hessians[:, None] / m
    by_rows = np.einsum("nmij,nmj->nmi", by_outer + by_outer.swapaxes(-1, -2), rows)
    return Slope(value, np.asarray(by_rows), 2 * by_common @ start, by_step)
