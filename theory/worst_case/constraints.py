"""Semidefinite programs of performance estimation: factored inequalities, and what certifies a value.

The programs have many inequalities whose matrices are of rank 2 to 5, and few, small blocks. They are
kept factored over a small dictionary of vectors (points and gradients). Two solvers take them:
:mod:`theory.worst_case.sdp`, which uses the factors, and :mod:`theory.worst_case.clarabel_route`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class SolverError(RuntimeError):
    """The solver did not reach its tolerance: there is no number to report."""


class TimeLimitError(SolverError):
    """The time ran out first: nothing is known about the problem, not even that it is hard."""


@dataclass(frozen=True)
class Factor:
    """m vectors, each scale * (dictionary[plus] - dictionary[minus]), in every block alike.

    Attributes:
        plus, minus: (m,) rows of the dictionary.
        scale: (m,).
    """

    plus: NDArray[np.int64]
    minus: NDArray[np.int64]
    scale: Array

    def rows(self, dictionary: Array) -> Array:
        """The vectors, (m, d)."""
        rows: Array = self.scale[:, None] * (dictionary[self.plus] - dictionary[self.minus])
        return rows

    @staticmethod
    def join(parts: list[Factor]) -> Factor:
        """The vectors of all parts."""
        return Factor(
            np.concatenate([f.plus for f in parts]),
            np.concatenate([f.minus for f in parts]),
            np.concatenate([f.scale for f in parts]),
        )


@dataclass(frozen=True)
class Constraints:
    """m inequalities sum_b <A_k^b, X_b> + scalars_k . F <= limits_k with factored matrices.

    A_k^b = (p q' + q p')/2 + r r'/2, with p, q, r from ``left``, ``right``, ``square``.

    Attributes:
        dictionary: one (D, d_b) array a block; factors refer to its rows.
        left, right, square: the factors, m vectors each.
        scalars: (m, s), the coefficients of the free scalars F.
        limits: (m,).
    """

    dictionary: tuple[Array, ...]
    left: Factor
    right: Factor
    square: Factor
    scalars: Array
    limits: Array

    def __len__(self) -> int:
        return len(self.limits)

    @staticmethod
    def stack(parts: list[Constraints]) -> Constraints:
        """All inequalities of the parts, which share one dictionary, as one."""
        return Constraints(
            dictionary=parts[0].dictionary,
            left=Factor.join([c.left for c in parts]),
            right=Factor.join([c.right for c in parts]),
            square=Factor.join([c.square for c in parts]),
            scalars=np.vstack([c.scalars for c in parts]),
            limits=np.concatenate([c.limits for c in parts]),
        )

    @property
    def dimensions(self) -> tuple[int, ...]:
        return tuple(vectors.shape[1] for vectors in self.dictionary)

    @cached_property
    def rows(self) -> list[tuple[Array, Array, Array]]:
        """p, q, r as (m, d_b) arrays, block by block."""
        return [
            (self.left.rows(v), self.right.rows(v), self.square.rows(v)) for v in self.dictionary
        ]

    def values(self, blocks: list[Array]) -> Array:
        """sum_b <A_k^b, X_b> for every k, shape (m,)."""
        total = np.zeros(len(self))
        for (p, q, r), x in zip(self.rows, blocks, strict=True):
            total += np.einsum("ij,ij->i", p @ x, q) + 0.5 * np.einsum("ij,ij->i", r @ x, r)
        return total

    def combine(self, weights: Array) -> list[Array]:
        """sum_k weights_k A_k^b for every block."""
        blocks = []
        for p, q, r in self.rows:
            cross = (p * weights[:, None]).T @ q
            blocks.append(0.5 * (cross + cross.T + (r * weights[:, None]).T @ r))
        return blocks


@dataclass(frozen=True)
class Solution:
    """An optimal pair; ``primal`` <= optimum <= ``dual`` up to ``infeasibility``.

    Attributes:
        blocks, scalars: X_b and F.
        multipliers: (m,), one an inequality, in their order.
        iterations: of the solver.
    """

    primal: float
    dual: float
    blocks: list[Array]
    scalars: Array
    multipliers: Array
    infeasibility: float
    iterations: int


def certified_bound(
    constraints: Constraints,
    goal: Array,
    blocks: list[Array],
    multipliers: Array,
    largest_scalar: float,
    largest_trace: float,
) -> float:
    """An upper bound on the maximum from multipliers alone, in exact arithmetic up to rounding.

    For y >= 0 and any feasible (X, F): objective <= limits.y + sum_b <C_b - A_b'y, X_b> +
    <goal - B'y, F>.

    Args:
        constraints, goal, blocks: the problem, as in :func:`maximise`.
        multipliers: y; negative ones count as zero.
        largest_scalar: a bound on every |F_i| of every feasible point.
        largest_trace: a bound on the sum of the traces of the X_b.
    """
    weights = np.maximum(multipliers, 0.0)
    bound = float(constraints.limits @ weights)
    bound += largest_scalar * float(np.abs(goal - constraints.scalars.T @ weights).sum())
    worst = 0.0
    for combined, block in zip(constraints.combine(weights), blocks, strict=True):
        worst = max(worst, float(np.linalg.eigvalsh(block - combined)[-1]))
    return bound + worst * largest_trace
