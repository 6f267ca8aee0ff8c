"""Confidence limits for a mean of sample paths that hold for every distribution, and Student's.

Verdicts use :func:`mean_interval`. It bets against a claimed mean m: from a capital of 1, sample X wins
a share of it in proportion to X - m (or m - X). If m is the mean, the expected capital never grows, so
that by Ville's inequality it ever reaches 1/a with probability at most a, whatever the distribution,
the number of samples, and however often one looks. The means against which the capital stays below 1/a
are the interval. Bets of many sizes are placed side by side and the capital is their average, so
nothing is tuned to the data.

The lower limit asks for X >= 0 only. The upper one needs to know how large X can be: a path that no
seed has shown yet may carry the whole mean. :class:`Range` says so, from :mod:`theory.verification.ranges`.

References:
    I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting" (JRSS B 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

LEVEL = 0.95
# Bets as shares of the largest that cannot lose more than all, and the capital that each begins with:
# a small bet pays only over many samples, so it begins with less.
_SHARES = 2.0 ** -np.arange(16)
_BEGIN = 1.0 / (np.arange(16) + 2.0)
_LOG_BEGIN = np.log(_BEGIN / _BEGIN.sum())
# An upper tail is cut where at most these shares of the known mean lie beyond: a low cut loses more of
# the mean, and lets bets be larger.
_BEYOND = (1e-5, 1e-3, 2e-2, 0.1, 0.3)
# Larger values would overflow; a run that diverged counts as so large.
_HUGE = 1e300


@dataclass(frozen=True)
class Range:
    """How large a non-negative metric can be on a path, known before any path is seen.

    Attributes:
        most: no path is above it.
        shape, scale: E exp(s X / scale) <= (1 - s)^-shape for all s in (0, 1), as for a Gamma variable
            with the mean shape times scale; 0 and 0 where nothing of the kind is known.
        reason: what makes it so, for tables.
    """

    most: float = math.inf
    shape: float = 0.0
    scale: float = 0.0
    reason: str = "nothing is known of the largest path"

    def cuts(self) -> list[tuple[float, float]]:
        """Pairs (c, e) with E X <= E min(X, c) + e; none where nothing is known."""
        found = []
        if self.scale and self.shape:
            # (x - c)^+ <= exp(s (x - c)) / (e s), so beyond c lie at most (1 - s)^-shape exp(-s c) / (e s).
            s = np.linspace(0.01, 0.99, 99)
            log_rest = -self.shape * np.log1p(-s) - 1.0 - np.log(s)
            for share in _BEYOND:
                cut = float(((log_rest - math.log(share * self.shape)) / s).min())
                found.append((cut * self.scale, share * self.shape * self.scale))
        useful = [(c, e) for c, e in found if 0 < c < self.most]
        if len(useful) == len(found) and found:
            return useful
        return [*useful, (self.most, 0.0)] if math.isfinite(self.most) else useful


def mean_interval(samples: Array, known: Range, level: float = LEVEL) -> tuple[float, float]:
    """(low, high) of the mean of independent non-negative samples; each end errs in (1 - level)/2.

    Args:
        samples: (N,), at least 0; infinite or NaN where a run diverged.
        known: how large they can be.
        level: of the interval, for all looks at more and more samples together.

    Returns:
        ``high`` is infinite where nothing is known of the largest path, or where a sample is larger
        than what is known.
    """
    x = np.nan_to_num(np.asarray(samples, dtype=np.float64), nan=_HUGE, posinf=_HUGE)
    x = np.minimum(x, _HUGE)
    goal = math.log(2.0 / (1.0 - level))
    mean = float(x.mean())
    low = _edge(lambda m: _capital(x / m) >= goal, 0.0, mean)
    if known.most == 0.0:
        return 0.0, 0.0
    cuts = known.cuts()
    if not cuts or (x > known.most * (1 + 1e-9)).any():
        return low, math.inf

    def accepted(m: float) -> bool:
        logs = []
        for cut, excess in cuts:
            left = cut - (m - excess)
            if left <= 0:
                return False
            # A pair that has nothing to say against m keeps its share of the capital.
            logs.append(_capital((cut - np.minimum(x, cut)) / left) if excess < m else 0.0)
        return _log_sum(logs) - math.log(len(cuts)) < goal

    largest = min(c + e for c, e in cuts)
    return low, _edge(accepted, mean, largest)


def _capital(ratios: Array) -> float:
    """Logarithm of the capital after betting that the mean of some non-negative ratios is above 1."""
    with np.errstate(divide="ignore"):
        logs = np.log1p(np.outer(_SHARES, ratios - 1.0)).sum(axis=1) + _LOG_BEGIN
    return _log_sum(logs)


def _log_sum(logs: Array | list[float]) -> float:
    top = float(np.max(logs))
    return top + math.log(float(np.exp(np.asarray(logs) - top).sum())) if top > -math.inf else top


def _edge(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest m in [low, high] of which something holds that holds below it, to 40 halvings."""
    if high <= low or holds(high):
        return high
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


def confidence_interval(samples: Array, level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, low, high) of independent samples, by Student's t; one sample has an infinite interval.

    For the bands of figures. It is known to be safe only for normal samples; for the skewed ones of a
    path's loss it misses rare large paths, and where all samples are equal its width is 0. No verdict
    rests on it.
    """
    mean = float(np.mean(samples))
    if len(samples) < 2:
        return mean, -math.inf, math.inf
    if np.ptp(samples) == 0:
        return mean, mean, mean
    half = float(stats.t.ppf(0.5 + level / 2, len(samples) - 1) * stats.sem(samples))
    return mean, mean - half, mean + half
