"""The three searches one after the other, and what their reports decide.

No verdict says "proved" of a size that was not solved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from theory.claim import adversary_search, search
from theory.claim.claim import Claim
from theory.claim.expression import Expression, parse
from theory.claim.search import Cell, Refutation, Report
from theory.support import numbers
from theory.support.errors import UserError
from theory.support.progress import Progress

REFUTED, HOLDS_HERE, NOT_REFUTED = "REFUTED", "HOLDS AT THESE SIZES", "NOT REFUTED"
#: What a text for a step size has only where it is a formula.
FORMULA_SIGNS = "()*/^cmurhoKRTLD"
#: Shares of the time that is left which the searches may take, in order.
SHARES = (0.3, 0.6, 1.0)


@dataclass(frozen=True)
class Outcome:
    """The verdict on a claim, and how it came about."""

    claim: Claim
    verdict: str
    reports: list[Report]
    cells: list[Cell]
    seconds: float
    growth: float = 0.1
    n_nodes: int = 2

    @property
    def scope(self) -> str:
        """What the certified worst cases decide the claim for, beside the cells."""
        names = () if self.claim.formula is None else self.claim.formula.names
        parts = ["for all L and D" if self.claim.homogeneous else "at L = D = 1"]
        if self.claim.family == "growth":
            parts.append(f"mu = {self.growth:g} L")
        if {"n", "m"} & set(names):
            parts.append(f"n = {self.n_nodes}")
        return ", ".join(parts)

    @property
    def refutation(self) -> Refutation | None:
        """The smallest one found, by T and then K."""
        found = {r.refutation.cell: r.refutation for r in self.reports if r.refutation is not None}
        return found[search.small_first(list(found))[0]] if found else None


def try_to_break(
    claim: Claim,
    cells: Sequence[Cell],
    *,
    seconds: float = 120.0,
    growth: float = 0.1,
    n_nodes: int = 2,
    seed: int = 0,
    quiet: bool = True,
) -> Outcome:
    """All three searches; each later one looks only at cells smaller than the refuted one.

    Args:
        claim: what to break.
        cells: the grid.
        seconds: for everything; a search that runs out of its share says so.
        growth: mu/L of the exact worst cases over the class "growth".
        n_nodes: of the explicit worst problems.
        seed: of random problems and starts.
        quiet: no progress on standard error.
    """
    began = time.monotonic()
    left = search.small_first(cells)
    reports: list[Report] = []
    with Progress("searching", quiet=quiet) as progress:
        done, total = 0.0, 3.0 * len(left)

        def tick(work: float) -> None:
            nonlocal done
            done += work
            progress.update(min(done, total), total, f"{len(reports) + 1} of 3")

        for share, run in zip(SHARES, _searches(growth, n_nodes, seed), strict=True):
            now = time.monotonic()
            deadline = now + share * max(0.0, began + seconds - now)
            report = run(claim, left, deadline=deadline, tick=tick)
            reports.append(report)
            if report.refutation is not None:
                left = left[: left.index(report.refutation.cell)]
            # Nothing can refute the claim where the worst case of the whole class is certified.
            left = [cell for cell in left if cell not in report.certified]
    took = time.monotonic() - began
    return Outcome(claim, _verdict(reports, cells), reports, list(cells), took, growth, n_nodes)


def _searches(growth: float, n_nodes: int, seed: int) -> list[Callable[..., Report]]:
    return [
        partial(search.search_known, seed=seed),
        partial(search.search_solved, growth=growth, n_nodes=n_nodes),
        partial(adversary_search.search_adversary, seed=seed),
    ]


def _verdict(reports: Sequence[Report], cells: Sequence[Cell]) -> str:
    if any(report.refutation is not None for report in reports):
        return REFUTED
    certified = {cell for report in reports for cell in report.certified}
    return HOLDS_HERE if certified >= set(cells) else NOT_REFUTED


def step_factors(texts: Sequence[str]) -> list[float | Expression]:
    """Numbers in (0, 2), several in a text; or a formula, which takes the whole text.

    Raises:
        UserError: neither, or a formula that names eta.
    """
    found: list[float | Expression] = []
    for text in texts:
        if not set(text) & set(FORMULA_SIGNS):
            found += numbers.real_numbers("--step-size", text, above=0, below=2)
            continue
        formula = parse(text)
        if "eta" in formula.names:
            raise UserError(f"--step-size {text!r} names eta, allowed: other constants")
        found.append(formula)
    return found


def grid(
    local_steps: Sequence[int], rounds: Sequence[int], factors: Sequence[float | Expression]
) -> list[Cell]:
    """Every combination."""
    return [
        Cell(local_steps=k, rounds=r, step_factor=f)
        for k in local_steps
        for r in rounds
        for f in factors
    ]
