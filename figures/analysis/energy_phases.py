"""A run's balance by phases: the plateau of its loss, the fall, and the tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from figures.analysis.deep_runs import column
from figures.analysis.energy import Balance
from figures.analysis.ladder import Rung
from theory.support.energy import Array, Windows

#: Shares of the loss at the start: below PLATEAU the fall begins, below TAIL the tail.
PLATEAU, TAIL = 0.5, 0.1
#: Fewer windows than LEAST_WINDOWS are no phase; the turning step is the least over COARSE of them.
LEAST_WINDOWS, COARSE = 4, 20
PHASES = ("plateau", "fall", "tail")


@dataclass(frozen=True)
class Phased:
    """A balance and its windows, sorted into phases.

    Attributes:
        balance: of a run.
        slices: name of a phase -> its windows.
    """

    balance: Balance
    slices: dict[str, slice]

    def of(self, values: Array, phase: str) -> Array:
        """The values of a phase's windows, of (W,); none where the phase is too short to be read."""
        found = values[self.slices[phase]]
        return found if len(found) >= LEAST_WINDOWS else found[:0]

    def whole(self, phase: str) -> Windows | None:
        """The phase as one window; None where it is too short to be read."""
        windows, part = self.balance.windows, self.slices[phase]
        if part.stop - part.start < LEAST_WINDOWS:
            return None
        return windows.joined([part.start, part.stop])

    @property
    def turning_step_size(self) -> float:
        """The least over 20 windows; negative where a window's gradients point away from z."""
        return float(self.balance.windows.at_most(COARSE).turning_step_size.min())


def phased(balance: Balance) -> Phased:
    """The phases of a run; the loss between two evaluations is that of a line."""
    result, count = balance.run.result, len(balance.windows)
    iterations, losses = column(result, "iteration"), column(result, "train_loss")
    at_end = np.interp(balance.windows.iteration[1:], iterations, losses)
    below = [np.flatnonzero(at_end < share * losses[0]) for share in (PLATEAU, TAIL)]
    fall, tail = (int(found[0]) if len(found) else count for found in below)
    parts = (slice(0, fall), slice(fall, tail), slice(tail, count))
    return Phased(balance, dict(zip(PHASES, parts, strict=True)))


def largest_rung(found: Sequence[Balance]) -> list[Phased]:
    """The balances of plain runs on the largest rung that has one, by phases."""
    plain = [b for b in found if b.run.is_plain]
    rung: Rung | None = max((b.run.rung for b in plain), default=None)
    return [phased(b) for b in plain if b.run.rung == rung]


def apart(one: Array, two: Array) -> bool:
    """Whether the middle halves of two samples do not overlap."""
    (low, high), (other_low, other_high) = (
        np.quantile(one, (0.25, 0.75)),
        np.quantile(two, (0.25, 0.75)),
    )
    return bool(high < other_low or other_high < low)


def spread(values: Array) -> float:
    """90% over 10% quantile; infinite where not all is positive."""
    low, high = np.quantile(values, (0.1, 0.9))
    return float(high / low) if low > 0 else np.inf
