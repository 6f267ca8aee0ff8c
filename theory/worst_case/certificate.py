"""Certificates: rational numbers that enclose a worst case, from what the solver found in floats.

:func:`certify` rounds the solver's multipliers and Gram matrices to whole multiples of 2^-DIGITS and
repairs them until :mod:`theory.worst_case.verify`, which knows no floats, accepts both sides.

Upper side: the multipliers as they are; the verifier charges what the rounding leaves over, and a shift
makes the dual matrix positive semidefinite. Lower side: the solver's Gram matrices violate conditions by
its tolerance, so a little of a strictly feasible point is mixed in (the feasible set is convex): the
least weight with which every condition holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.support.errors import UserError
from theory.worst_case import cells, verify
from theory.worst_case.conditions import Trajectory, all_pairs, fixed_conditions, interpolation
from theory.worst_case.constraints import Constraints
from theory.worst_case.reduction import WorstCase, worst_case
from theory.worst_case.sdp import maximise
from theory.worst_case.verify import Cell, Rejected

Array = NDArray[np.float64]
#: Numbers of a certificate are whole multiples of 2^-DIGITS.
DIGITS = 44
SCALE = Fraction(1, 2**DIGITS)


def certify(schedule: cells.Cell, solved: WorstCase | None = None) -> dict[str, Any]:
    """The certificate of one cell, accepted by the exact verifier.

    Args:
        schedule: the cell; growth of the mean (A4') is refused, as it can be imposed at the points only.
        solved: its worst case, solved now if not given.

    Returns:
        What :func:`theory.worst_case.verify.verify` reads, as plain JSON values.

    Raises:
        UserError: growth of the mean.
        SolverError: the cell could not be solved.
    """
    if schedule.growth and schedule.growth_of == "mean":
        raise UserError("growth of the mean has no certificate, allowed: growth of the nodes")
    solved = worst_case(schedule) if solved is None else solved
    head = head_of(schedule)
    cell = Cell(head)
    found = {"cell": head, "lower": _lower(cell, schedule, solved), "upper": _upper(cell, solved)}
    verify.verify(found)
    return found


def head_of(schedule: cells.Cell) -> dict[str, Any]:
    """How a certificate names its cell; numbers are exact rationals."""
    return {
        "metric": schedule.metric,
        "local_steps": schedule.local_steps,
        "rounds": schedule.rounds,
        "step_size": str(_decimal(schedule.step_size)),
        "outer_step": str(_decimal(schedule.outer_step)),
        "growth": str(_decimal(schedule.growth)),
        "one_node": schedule.one_node,
    }


def width(found: dict[str, Any]) -> float:
    """upper - lower of a certificate."""
    return float(Fraction(found["upper"]["bound"]) - Fraction(found["lower"]["value"]))


def _decimal(value: float) -> Fraction:
    """The number that was typed: 0.1 is 1/10, not the float next to it."""
    return Fraction(repr(float(value)))


def _rounded(value: float) -> Fraction:
    return round(value * 2**DIGITS) * SCALE


def _upper(cell: Cell, solved: WorstCase) -> dict[str, Any]:
    weights = {pair: _rounded(y) for pair, y in sorted(solved.multipliers.items())}
    pairs = [[a, b, str(y)] for (a, b), y in weights.items() if y > 0]
    found: dict[str, Any] = {"start": str(_rounded(solved.certified)), "pairs": pairs}
    if cell.metric == "best":
        # Stationarity in F_t gives the weight of xbar_r; rounding is put right on the largest.
        rest = {t: Fraction(0) for t in cell.starts}
        for (a, b), y in weights.items():
            for t, c in ((a, -1), (b, 1)):
                if t in rest:
                    rest[t] += max(y, Fraction(0)) * c
        convex = {t: max(w, Fraction(0)) for t, w in rest.items()}
        largest = max(convex, key=lambda t: convex[t])
        convex[largest] += 1 - sum(convex.values())
        found["best"] = [str(convex[t]) for t in cell.starts]
    shift = Fraction(0)
    while True:
        found["shift"] = str(shift)
        try:
            found["bound"] = str(verify.check_upper(cell, found))
            return found
        except Rejected:
            shift = max(4 * shift, SCALE)


@dataclass(frozen=True)
class _Point:
    """Gram matrices by block and the losses, in whole multiples of ``scale``."""

    grams: list[list[list[int]]]
    losses: list[int]
    scale: Fraction = SCALE

    @classmethod
    def rounded(cls, blocks: list[Array], losses: Array) -> _Point:
        """Rounded to multiples of SCALE, with the diagonals raised until the matrices are psd."""
        grams = []
        for block in blocks:
            whole = [[round(float(x)) for x in row] for row in (block + block.T) / 2 * 2.0**DIGITS]
            ridge = 1
            while not verify.is_psd([[Fraction(x) for x in row] for row in whole]):
                for i, row in enumerate(whole):
                    row[i] += ridge
                ridge *= 4
            grams.append(whole)
        return cls(grams, [round(float(x)) for x in losses * 2.0**DIGITS])

    def mixed(self, other: _Point, weight: int) -> _Point:
        """(1 - w) self + w other, w = ``weight`` SCALE."""
        keep = 2**DIGITS - weight
        grams = [
            [
                [keep * x + weight * y for x, y in zip(u, w, strict=True)]
                for u, w in zip(a, b, strict=True)
            ]
            for a, b in zip(self.grams, other.grams, strict=True)
        ]
        losses = [keep * x + weight * y for x, y in zip(self.losses, other.losses, strict=True)]
        return _Point(grams, losses, self.scale * SCALE)

    def excess(self, cell: Cell) -> list[Fraction]:
        """By how much each condition fails, and ||x_0|| <= 1; at most 0 where it holds."""
        grams = [[[self.scale * x for x in row] for row in gram] for gram in self.grams]
        losses = [self.scale * x for x in self.losses]
        pairs = [(a, b) for a in cell.x for b in cell.x if a != b]
        found = [verify.value(*cell.condition(a, b), grams, losses) for a, b in pairs]
        return [*found, grams[0][0][0] - 1]


def _lower(cell: Cell, schedule: cells.Cell, solved: WorstCase) -> dict[str, Any]:
    blocks = [solved.mean_gram, solved.deviation_gram][: len(cell.sizes)]
    point = _Point.rounded(blocks, solved.losses)
    excess = point.excess(cell)
    if max(excess) > 0:
        inside = _interior(schedule)
        slack = [-value for value in inside.excess(cell)]
        if min(slack) <= 0:
            raise Rejected("no strictly feasible point was found")
        least = max(v / (v + s) for v, s in zip(excess, slack, strict=True) if v > 0)
        # Rounded up to a multiple of SCALE.
        point = point.mixed(inside, -(-least.numerator * 2**DIGITS // least.denominator))
    names = ("mean", "deviation")
    found: dict[str, Any] = {"scale": str(point.scale), "losses": point.losses}
    found |= dict(zip(names, point.grams, strict=False))
    found["value"] = str(verify.check_lower(cell, found))
    return found


def _interior(schedule: cells.Cell) -> _Point:
    """A point with slack in every condition: maximise the least slack t, coarsely, to stay inside."""
    trajectory = Trajectory.of(schedule)
    fixed, _ = fixed_conditions(schedule, trajectory)
    pairs = np.array(sorted(all_pairs(schedule)), dtype=np.int64)
    constraints = Constraints.stack([fixed, interpolation(schedule, trajectory, pairs)])
    with_slack = replace(
        constraints, scalars=np.hstack([constraints.scalars, np.ones((len(constraints), 1))])
    )
    goal = np.zeros(with_slack.scalars.shape[1])
    goal[-1] = 1.0
    sizes = [rows.shape[1] for rows in trajectory.blocks(schedule)]
    nothing = [np.zeros((d, d)) for d in sizes]
    solution = maximise(with_slack, goal, nothing, tolerance=1e-6, acceptable=1e-4)
    return _Point.rounded(solution.blocks, solution.scalars[: schedule.points])
