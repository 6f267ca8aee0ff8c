"""Checks by theorem: counts, least and median distance from the bound. The one place that computes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE, UNDECIDED
from theory.theorems import SHARPER, THEOREMS, Theorem
from theory.theorems.base import BestAtRounds
from theory.verification.check import Check


@dataclass(frozen=True)
class TheoremSummary:
    """All checks of one theorem.

    Attributes:
        theorem, title: which.
        holds, failed, undecided, not_applicable: how many checks.
        least, median: of the ratios of the checks that hold (see :class:`Check`); NaN if there are none.
        problems: on which it holds.
    """

    theorem: str
    title: str
    holds: int
    failed: int
    undecided: int
    not_applicable: int
    least: float
    median: float
    problems: tuple[str, ...]


@dataclass(frozen=True)
class SharperSummary:
    """A theorem beside a sharper variant of it, on the checks on which both hold.

    Attributes:
        theorem, variant, title: which.
        checks: how many; schedules are the same, step sizes each one's own.
        median, median_sharper: of the ratios; NaN if there are none. A variant about the best model is
            compared with the theorem's bound on the mean, which the best is below; one about the last
            model has nothing before it.
    """

    theorem: str
    variant: str
    title: str
    checks: int
    median: float
    median_sharper: float


def ratios(checks: Iterable[Check]) -> list[float]:
    """The ratios of the checks that hold, where they are numbers."""
    return [c.ratio for c in checks if c.verdict == HOLDS and math.isfinite(c.ratio)]


def median(values: Sequence[float]) -> float:
    """The median, the mean of the middle two of an even number; NaN of none."""
    return float(np.median(values)) if values else math.nan


def summarise(checks: Sequence[Check]) -> list[TheoremSummary]:
    """A row for every theorem that was checked, in the order of the theorems; then a user's own."""
    rows = []
    titles = {theorem.name: theorem.title for theorem in (*THEOREMS, *SHARPER)}
    for name in dict.fromkeys([*titles, *(c.theorem for c in checks)]):
        mine = [c for c in checks if c.theorem == name]
        if not mine:
            continue
        found = ratios(mine)
        count = {
            verdict: sum(c.verdict == verdict for c in mine)
            for verdict in (HOLDS, FAILED, UNDECIDED, NOT_APPLICABLE)
        }
        rows.append(
            TheoremSummary(
                name,
                titles.get(name, "a theorem of your own"),
                count[HOLDS],
                count[FAILED],
                count[UNDECIDED],
                count[NOT_APPLICABLE],
                min(found, default=math.nan),
                median(found),
                tuple(dict.fromkeys(c.problem for c in mine if c.verdict == HOLDS)),
            )
        )
    return rows


def compare_sharper(checks: Sequence[Check]) -> list[SharperSummary]:
    """A row for every sharper variant that was checked beside its theorem."""
    rows = []
    for theorem in THEOREMS:
        plain = {_place(c): c for c in checks if c.theorem == theorem.name}
        for variant in theorem.sharper:
            mine = {_place(c): c for c in checks if c.theorem == variant.name}
            pairs = [
                (plain[place], check)
                for place, check in mine.items()
                if place in plain and len(ratios([plain[place], check])) == 2
            ]
            if mine and plain:
                before = [_before(theorem, variant, *pair) for pair in pairs]
                after = [check.ratio for _, check in pairs]
                rows.append(
                    SharperSummary(
                        theorem.name,
                        variant.name,
                        variant.title,
                        len(pairs),
                        median(before),
                        median(after),
                    )
                )
    return rows


def _before(theorem: Theorem, variant: Theorem, plain: Check, check: Check) -> float:
    """How far the plain bound is from what the variant speaks of."""
    if variant.metric == theorem.metric:
        return plain.ratio
    return plain.bound / check.measured if isinstance(variant.metric, BestAtRounds) else math.nan


def _place(check: Check) -> tuple[str, str, str, int, int]:
    """What two theorems must share to be compared."""
    return (
        check.problem,
        check.heterogeneity,
        check.gradient,
        check.local_steps,
        check.rounds,
    )
