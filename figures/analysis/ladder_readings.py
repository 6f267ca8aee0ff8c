"""What the ladder's runs say, by rules.

The rules were written before any of the ladder's results was looked at; ``paper_repro.md`` states them too.

Heterogeneity: at every K the ratio rounds(one shard)/rounds(iid), seed by seed, with Student's 95%
    interval of its logarithm over seeds. With fewer than three seeds there is no verdict. Else "more
    rounds" or "fewer rounds" if the interval lies on one side of 1, "within 25%" if it lies in [0.8, 1.25],
    which is looked at first, and "undecided" otherwise.
Exponent: the slope of log rounds in log K, per rung and regime, from at least three K that reached the
    target. With at least three seeds that have the same K: Student's interval over the seeds' slopes; with
    fewer: the interval of the line through all points, which says nothing about seeds.
Growth with scale: the saving grows from one rung to the next larger if the exponent's interval there lies
    wholly below; it does not if wholly above; else undecided.
Variants (outer steps, participants): the ratio to the plain run of the same rung, regime, K and seed, read
    as heterogeneity is.
A run that is not finished or missed its target has no rounds to the target and enters no ratio and no fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from figures.analysis.deep_runs import slope_in_k
from figures.analysis.ladder import Run, Rung
from theory.verification.intervals import confidence_interval

#: Seeds that a verdict needs, and the ratio below which rounds count as alike.
LEAST_SEEDS, ALIKE = 3, 1.25
_COUNTS = {1: "one seed", 2: "two seeds"}


def seeds_in_words(count: int) -> str:
    """ "one seed", "two seeds", "3 seeds"."""
    return _COUNTS.get(count, f"{count} seeds")


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Rounds over rounds, seed by seed.

    Attributes:
        rung: of both runs.
        regime: of both, or what is compared.
        variant: what the numerator does otherwise; empty for a comparison of regimes.
        local_steps: K.
        ratios: one a seed that has both.
        missing: runs that are there but have not reached the target, by name.
    """

    rung: Rung
    regime: str
    variant: str
    local_steps: int
    ratios: tuple[float, ...]
    missing: tuple[str, ...]

    @property
    def mean(self) -> float | None:
        """Geometric mean over seeds."""
        return math.exp(float(np.mean(np.log(self.ratios)))) if self.ratios else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95% interval of the mean log ratio; None below two seeds."""
        if len(self.ratios) < 2:
            return None
        _, low, high = confidence_interval(np.log(self.ratios))
        return math.exp(low), math.exp(high)

    @property
    def reading(self) -> str:
        """By the rule above."""
        if len(self.ratios) < LEAST_SEEDS or self.interval is None:
            return f"{seeds_in_words(len(self.ratios))}: no verdict" if self.ratios else "-"
        low, high = self.interval
        if low >= 1 / ALIKE and high <= ALIKE:
            return "within 25%"
        if low > 1:
            return "more rounds"
        return "fewer rounds" if high < 1 else "undecided"


def heterogeneity(runs: Sequence[Run]) -> list[Ratio]:
    """rounds(one shard)/rounds(iid) at every K of every rung to a target loss."""
    plain = [r for r in runs if r.is_plain and r.rung.experiment == "to-loss"]
    return _ratios(
        [r for r in plain if r.regime == "one shard"],
        [r for r in plain if r.regime == "iid"],
        same=lambda r: (r.rung, r.local_steps),
        regime="one shard / iid",
    )


def variants(runs: Sequence[Run]) -> list[Ratio]:
    """rounds(variant)/rounds(plain) at the same rung, regime and K."""
    chosen = [r for r in runs if r.rung.experiment == "to-loss"]
    return _ratios(
        [r for r in chosen if not r.is_plain],
        [r for r in chosen if r.is_plain],
        same=lambda r: (r.rung, r.regime, r.local_steps),
    )


def _ratios(
    over: Sequence[Run],
    under: Sequence[Run],
    *,
    same: Callable[[Run], tuple[Any, ...]],
    regime: str = "",
) -> list[Ratio]:
    """Ratios of the runs that agree in ``same`` and seed, in the order of ``over``, where there are any."""
    below = {(same(r), r.seed): r for r in under}
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in over:
        groups.setdefault((same(run), run.variant), []).append(run)
    found = []
    for group in groups.values():
        pairs = [(r, below[same(r), r.seed]) for r in group if (same(r), r.seed) in below]
        if not pairs:
            continue
        found.append(
            Ratio(
                rung=group[0].rung,
                regime=regime or group[0].regime,
                variant=group[0].variant,
                local_steps=group[0].local_steps,
                ratios=tuple(a.rounds / b.rounds for a, b in pairs if a.rounds and b.rounds),
                missing=tuple(r.name for pair in pairs for r in pair if not r.rounds),
            )
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """The slope of log rounds to the target in log K.

    Attributes:
        rung, regime: of its runs.
        local_steps: the K that enter.
        seeds: how many.
        slope, interval: the fit, and 95%.
        over_seeds: whether the interval is one over seeds; else it is that of a line.
    """

    rung: Rung
    regime: str
    local_steps: tuple[int, ...]
    seeds: int
    slope: float
    interval: tuple[float, float]
    over_seeds: bool


def exponents(runs: Sequence[Run]) -> list[Exponent]:
    """Of every rung and regime with at least three K that reached the target."""
    groups: dict[tuple[Rung, str], list[Run]] = {}
    for run in runs:
        if run.rounds and run.is_plain:
            groups.setdefault((run.rung, run.regime), []).append(run)
    found = []
    for (rung, regime), group in groups.items():
        by_seed: dict[int, dict[int, int]] = {}
        for run in group:
            by_seed.setdefault(run.seed, {})[run.local_steps] = run.rounds or 0
        common = sorted(set.intersection(*(set(points) for points in by_seed.values())))
        if len(by_seed) >= LEAST_SEEDS and len(common) >= 3:
            slopes = np.array(
                [slope_in_k([(k, p[k]) for k in common])[0] for p in by_seed.values()]
            )
            slope, low, high = confidence_interval(slopes)
            ks, over_seeds = tuple(common), True
        else:
            points = [(run.local_steps, run.rounds or 0) for run in group]
            ks, over_seeds = tuple(sorted({k for k, _ in points})), False
            if len(ks) < 3:
                continue
            slope, low, high = slope_in_k(points)
        found.append(
            Exponent(
                rung=rung,
                regime=regime,
                local_steps=ks,
                seeds=len(by_seed),
                slope=slope,
                interval=(low, high),
                over_seeds=over_seeds,
            )
        )
    return found


def growth(small: Exponent, large: Exponent) -> str:
    """Whether the saving from local steps grows from one rung to a larger one, by the rule above."""
    if large.interval[1] < small.interval[0]:
        return "the saving grows"
    return "the saving shrinks" if large.interval[0] > small.interval[1] else "undecided"
