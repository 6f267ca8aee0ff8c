"""One finding of the worst cases: a key, a number, where it was found and its standing.

The sentence for a key is in :mod:`theory.worst_case.sentences`. The rule for reading a claim does not
depend on the numbers: a claim of equality agrees if the largest difference is below ACCURACY.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from theory.worst_case.rows import ACCURACY, Row
from theory.worst_case.step_sizes import TunedStep

#: What a statement rests on: a proof; agreement of the cells with a claim; or nothing but the cells.
PROVED, CONJECTURED, OBSERVED = "proved", "conjectured", "observed"


@dataclass(frozen=True, kw_only=True)
class Where:
    """The cell that a number belongs to; None for what it does not depend on.

    Attributes:
        local_steps, rounds, step_size, outer_step: K, R, eta L, beta.
    """

    local_steps: int | None = None
    rounds: int | None = None
    step_size: float | None = None
    outer_step: float | None = None

    def __str__(self) -> str:
        parts = [
            "" if self.local_steps is None else f"K={self.local_steps}",
            "" if self.rounds is None else f"R={self.rounds}",
            "" if self.step_size is None else f"eta={self.step_size:.4g}/L",
            "" if self.outer_step is None else f"beta={self.outer_step:.4g}",
        ]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement.

    Attributes:
        key: which statement; its sentence is ``SENTENCES[key]``.
        about: the theorem or conjecture.
        value: the number; values in L D.
        where: at which cell, if at one.
        cells: how many cells entered.
        standing: PROVED, CONJECTURED or OBSERVED.
        agrees: for a claim, whether the cells agree with it; None for a number without one.
    """

    key: str
    about: str
    value: float
    where: Where | None = None
    cells: int
    standing: str
    agrees: bool | None = None


def place(row: Row | TunedStep) -> Where:
    """Its K, R and step size."""
    return Where(local_steps=row.local_steps, rounds=row.rounds, step_size=row.step_size)


def worst_value(row: Row) -> float:
    assert row.worst_case is not None
    return row.worst_case


def extreme(
    key: str, about: str, rows: Sequence[Row], size: Callable[[Row], float], standing: str
) -> Iterator[Finding]:
    """The least and the largest of a quantity, as key.least and key.most."""
    if rows:
        for end, pick in (("least", min), ("most", max)):
            row = pick(rows, key=size)
            yield Finding(
                key=f"{key}.{end}",
                about=about,
                value=size(row),
                where=place(row),
                cells=len(rows),
                standing=standing,
            )


def equality(
    key: str, about: str, rows: Sequence[Row], claim: Callable[[Row], float], standing: str
) -> Iterator[Finding]:
    """worst case = claim: the largest difference."""
    if rows:
        worst = max(rows, key=lambda r: abs(worst_value(r) - claim(r)))
        miss = abs(worst_value(worst) - claim(worst))
        yield Finding(
            key=key,
            about=about,
            value=miss,
            where=place(worst),
            cells=len(rows),
            standing=standing,
            agrees=miss < ACCURACY,
        )


def at_most(
    key: str, about: str, rows: Sequence[Row], limit: Callable[[Row], float]
) -> Iterator[Finding]:
    """worst case <= limit, proved: the largest ratio."""
    if rows:
        worst = max(rows, key=lambda r: worst_value(r) / limit(r))
        ratio = worst_value(worst) / limit(worst)
        yield Finding(
            key=key,
            about=about,
            value=ratio,
            where=place(worst),
            cells=len(rows),
            standing=PROVED,
            agrees=ratio <= 1 + ACCURACY,
        )
