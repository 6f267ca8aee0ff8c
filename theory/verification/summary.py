"""Checks by theorem: counts, least and median distance from the bound. The one place that computes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE, UNDECIDED
from theory.theorems import SHARPER, T6, THEOREMS, Theorem
from theory.theorems.base import BestAtRounds
from theory.verification.check import Check

_Place = tuple[str, str, str, int, int]


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
        step_factor: eta in units of 1/L for both; None where each has its own.
        checks: how many; schedules are the same.
        median, median_sharper: of the ratios; NaN if there are none. A variant about the best model is
            compared with the theorem's bound on the mean, which the best is below; one about the last
            model has nothing before it.
        median_bounds: of the variant's bound over the theorem's, whatever was measured (for linear
            rates the theorem's exponent over the variant's); NaN as above.
    """

    theorem: str
    variant: str
    title: str
    step_factor: float | None
    checks: int
    median: float
    median_sharper: float
    median_bounds: float


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


def compare_sharper(
    checks: Sequence[Check],
    at_steps: Mapping[float, Sequence[Check]] | None = None,
    without_s8: Sequence[Check] = (),
) -> list[SharperSummary]:
    """A row for every sharper variant that was checked beside its theorem, and for every step size.

    Args:
        checks: each theorem at its own step size.
        at_steps: by eta in units of 1/L, all theorems at this step size.
        without_s8: T6 with the smoothness that S8 halves.
    """
    rows = []
    steps: list[tuple[float | None, Sequence[Check]]] = [(None, checks), *(at_steps or {}).items()]
    for theorem in THEOREMS:
        for variant in theorem.sharper:
            for factor, found in steps:
                plain = {_place(c): c for c in found if c.theorem == theorem.name}
                mine = [c for c in found if c.theorem == variant.name]
                if mine and plain:
                    rows.append(_compared(theorem, variant, factor, plain, mine))
    if without_s8:
        plain = {_place(c): c for c in without_s8}
        mine = [c for c in checks if c.theorem == T6.name and _place(c) in plain]
        rows.append(_compared(T6, S8, None, plain, mine))
    return rows


# S8 makes L smaller and leaves T6 as it is.
S8 = replace(T6, name="T6/S8", title="sigmoid regression, half the smoothness")


def _compared(
    theorem: Theorem,
    variant: Theorem,
    factor: float | None,
    plain: Mapping[_Place, Check],
    mine: Sequence[Check],
) -> SharperSummary:
    """The medians over the checks on which both hold."""
    pairs = [
        (plain[_place(check)], check)
        for check in mine
        if _place(check) in plain and len(ratios([plain[_place(check)], check])) == 2
    ]
    return SharperSummary(
        theorem.name,
        variant.name,
        variant.title,
        factor,
        len(pairs),
        median([_before(theorem, variant, *pair) for pair in pairs]),
        median([check.ratio for _, check in pairs]),
        median([_over(theorem, variant, *pair) for pair in pairs]),
    )


def _before(theorem: Theorem, variant: Theorem, plain: Check, check: Check) -> float:
    """How far the plain bound is from what the variant speaks of."""
    if variant.metric == theorem.metric:
        return plain.ratio
    return plain.bound / check.measured if isinstance(variant.metric, BestAtRounds) else math.nan


def _over(theorem: Theorem, variant: Theorem, plain: Check, check: Check) -> float:
    """The variant's bound over the plain one; for linear rates, below 1 where the variant's falls faster."""
    if variant.metric != theorem.metric and not isinstance(variant.metric, BestAtRounds):
        return math.nan
    if 0 < plain.rate_bound < 1 and 0 < check.rate_bound < 1:
        return math.log(plain.rate_bound) / math.log(check.rate_bound)
    return check.bound / plain.bound if plain.bound > 0 else math.nan


def _place(check: Check) -> _Place:
    """What two theorems must share to be compared."""
    return (
        check.problem,
        check.heterogeneity,
        check.gradient,
        check.local_steps,
        check.rounds,
    )
