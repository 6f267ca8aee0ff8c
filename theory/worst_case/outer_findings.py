"""What the sweep over fixed outer steps says, as typed statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from theory.worst_case.outer_steps import BestPair, OuterSteps
from theory.worst_case.rows import ACCURACY
from theory.worst_case.statements import CONJECTURED, OBSERVED, PROVED, Finding, Where

#: Relative accuracy of a least worst case, from the tolerance of the search.
SEARCH_ACCURACY = 1e-3


def outer_findings(found: OuterSteps) -> list[Finding]:
    """All statements that the sweep suffices for."""
    last = [p for p in found.pairs if p.metric == "last"]
    several = [p for p in last if p.local_steps > 1]
    difference, rounds = found.one_step_check
    findings = [
        Finding(
            key="outer.one_step",
            about="beta",
            value=difference,
            where=Where(local_steps=1, rounds=rounds),
            cells=len({p.rounds for p in last}),
            standing=PROVED,
            agrees=difference < ACCURACY,
        )
    ]
    findings += _extreme("outer.gain", several, lambda p: p.gain)
    findings += _extreme("outer.best_beta", several, lambda p: p.outer_step)
    findings += _extreme("outer.best_product", several, lambda p: p.outer_step * p.step_size)
    findings += _extreme("outer.saved", several, lambda p: p.one_step_rounds / p.rounds)
    findings += _extreme("outer.over_i6", last, lambda p: p.value / p.lower_bound)
    findings += _extreme("outer.over_floor", last, lambda p: p.value / p.floor)
    findings += _above_floor(last)
    findings += _best_is_last(found.pairs)
    return findings


def _place(pair: BestPair) -> Where:
    return Where(
        local_steps=pair.local_steps,
        rounds=pair.rounds,
        step_size=pair.step_size,
        outer_step=pair.outer_step,
    )


def _extreme(
    key: str, pairs: Sequence[BestPair], size: Callable[[BestPair], float]
) -> Iterator[Finding]:
    if pairs:
        for end, pick in (("least", min), ("most", max)):
            pair = pick(pairs, key=size)
            yield Finding(
                key=f"{key}.{end}",
                about="beta",
                value=size(pair),
                where=_place(pair),
                cells=len(pairs),
                standing=OBSERVED,
            )


def _above_floor(last: Sequence[BestPair]) -> Iterator[Finding]:
    """No pair below the floor: proved, so the cells can only agree."""
    if last:
        lowest = min(last, key=lambda p: p.certified / p.floor)
        yield Finding(
            key="outer.floor",
            about="I6",
            value=lowest.certified / lowest.floor,
            where=_place(lowest),
            cells=len(last),
            standing=PROVED,
            agrees=lowest.certified > lowest.floor - ACCURACY,
        )


def _best_is_last(pairs: Sequence[BestPair]) -> Iterator[Finding]:
    """The least worst best iterate against the least worst last one."""
    last = {(p.local_steps, p.rounds): p for p in pairs if p.metric == "last"}
    both = [p for p in pairs if p.metric == "best" and (p.local_steps, p.rounds) in last]

    def lower(pair: BestPair) -> float:
        return last[pair.local_steps, pair.rounds].value - pair.value

    if both:
        pair = max(both, key=lower)
        # Two searches end within their tolerance of each other, and so do the values.
        yield Finding(
            key="outer.best_is_last",
            about="beta",
            value=lower(pair) / pair.value,
            where=_place(pair),
            cells=len(both),
            standing=CONJECTURED,
            agrees=lower(pair) / pair.value < SEARCH_ACCURACY,
        )
