"""What the energy balance, T9, wants to know of the steps of a round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Numbers of a model that are worked on at a time on the CPU, so that they stay in cache.
PIECE = 1 << 16


@dataclass
class EnergyTerms:
    """Sums over rounds of the terms of the energy balance, T9; beta is each round's outer step.

    A step from x to x' is taken as it was rounded: u = x - x' is eta g up to the arithmetic's
    rounding, so that the balance closes in any precision. Means are over the participants of a
    round, sums over its local steps. ``loss``: beta times the batches' losses; ``inner``: beta <u,
    x>; ``square``: beta ||u||^2; ``averaging``: beta (P - beta Q), which for beta = 1 is C_r, the
    consensus distance. For any point z, with xbar+ = xbar + beta mean Delta,

        ||xbar - z||^2 - ||xbar+ - z||^2
            = beta (P - beta Q) + beta mean_i sum_k [2 <u, x - z> - ||u||^2].

    Proof. Expand ||xbar - z + beta mean Delta||^2; along node i, 2 <Delta_i, xbar - z> is
    ||x_i - z||^2 - ||xbar - z||^2 - ||Delta_i||^2, and each step takes 2 <u, x - z> - ||u||^2 of
    the squared distance. QED The rounding of xbar+ counts as one more step.
    """

    loss: float = 0.0
    inner: float = 0.0
    square: float = 0.0
    averaging: float = 0.0

    def add(
        self,
        loss: float,
        inner: float,
        square: float,
        mean_square: float,
        square_mean: float,
        beta: float,
    ) -> None:
        """Add a round's sums, with P = ``mean_square`` and Q = ``square_mean``."""
        self.loss += beta * loss
        self.inner += beta * inner
        self.square += beta * square
        self.averaging += beta * (mean_square - beta * square_mean)

    def add_rounding(self, exact: Tensor, rounded: Tensor) -> None:
        """Add the step from an average, float64 [P], to the model that it is rounded to."""
        inner = square = 0.0
        size = PIECE if exact.device.type == "cpu" else len(exact)
        for first in range(0, len(exact), size):
            part = slice(first, first + size)
            found = lost(exact[part], rounded[part])
            inner += float(found[0])
            square += float(found[1])
        self.inner += inner
        self.square += square


def lost(before: Tensor, after: Tensor) -> Tensor:
    """<u, x> and ||u||^2, float64 [2, ...], for u = x - x', ``before`` [..., P] and ``after`` it."""
    start = before.double()
    moved = start - after
    return torch.stack([(moved * start).sum(-1), moved.square_().sum(-1)])
