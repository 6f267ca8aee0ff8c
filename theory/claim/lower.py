"""Claims that are lower bounds: for every step size some x* makes the method at least so bad.

The family is that of I1 and I6: half of the nodes hold (L/2)(a_1'x)^2, half (L/2)(a_2'x)^2, a_1, a_2 =
(sqrt(1-l), +-sqrt(l)), mu = l L the least eigenvalue of f, no noise. A round maps z = xbar - x* to
(I - s diag(1-l, l)) z, s = beta (1 - (1 - eta L)^K). For given step sizes the largest f(xbar_R) over all x*
with ||x_0 - x*||^2 = D is (L D/2) max((1-l)(1 - s(1-l))^(2R), l (1 - s l)^(2R)): exact, no search. A step
size at which it is below the claim refutes the claim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from theory.claim.expression import Expression
from theory.support.errors import UserError

#: What a claim may speak of. The family's similarity is 0, and f(x_0) and the rest change with x*.
NAMES = ("L", "D", "mu", "n", "m", "K", "R", "T", "eta", "beta")


@dataclass(frozen=True, kw_only=True)
class LowerOutcome:
    """The most damaging case.

    Attributes:
        refuted: whether some case has no x* that makes the claim true.
        tried: how many cases.
        kappa, local_steps, rounds, step_factor: L/mu, K, R, eta L of the case with the least ratio.
        largest: the largest f(xbar_R) / (L D) over x*.
        claimed: the claim / (L D).
    """

    refuted: bool
    tried: int
    kappa: float
    local_steps: int
    rounds: int
    step_factor: float
    largest: float
    claimed: float

    @property
    def ratio(self) -> float:
        """largest / claimed; below 1 the claim is false."""
        return self.largest / self.claimed


def largest_loss(kappa: float, local_steps: int, rounds: int, step_factor: float) -> float:
    """sup over x* of f(xbar_R) / (L D) on the family with mu = L/kappa, kappa >= 2."""
    small = 1.0 / kappa
    s = 1.0 - (1.0 - step_factor) ** local_steps
    return max(0.5 * value * (1.0 - s * value) ** (2 * rounds) for value in (1.0 - small, small))


def search_lower(
    claim: Expression,
    *,
    kappas: Sequence[float],
    local_steps: Sequence[int],
    rounds: Sequence[int],
    step_factors: Sequence[float],
) -> LowerOutcome:
    """The case with the least (largest f over x*) / claim, over a grid.

    Raises:
        UserError: the claim speaks of what is not in NAMES, or is above 0 nowhere on the grid.
    """
    unknown = [name for name in claim.names if name not in NAMES]
    if unknown:
        raise UserError(
            f"the claim speaks of {', '.join(unknown)}, allowed with --lower: {', '.join(NAMES)}"
        )
    worst: LowerOutcome | None = None
    tried = 0
    for kappa in kappas:
        for k in local_steps:
            for r in rounds:
                for factor in step_factors:
                    tried += 1
                    numbers = {
                        "L": 1.0,
                        "D": 1.0,
                        "mu": 1.0 / kappa,
                        "n": 2,
                        "m": 2,
                        "K": k,
                        "R": r,
                        "T": k * r,
                        "eta": factor,
                        "beta": 1.0,
                    }
                    claimed = float(claim({name: numbers[name] for name in claim.names}))
                    # Too large for a number is a claim too, and a false one.
                    if math.isnan(claimed) or claimed <= 0:
                        continue
                    largest = largest_loss(kappa, k, r, factor)
                    if worst is None or largest / claimed < worst.ratio:
                        worst = LowerOutcome(
                            refuted=largest < claimed * (1 - 1e-9),
                            tried=0,
                            kappa=kappa,
                            local_steps=k,
                            rounds=r,
                            step_factor=factor,
                            largest=largest,
                            claimed=claimed,
                        )
    if worst is None:
        raise UserError(
            "the claim is 0 or less, or no number, on the whole grid, allowed: a bound above 0 somewhere"
        )
    return LowerOutcome(**{**worst.__dict__, "tried": tried})
