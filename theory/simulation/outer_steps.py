"""The server's step: from the reports of a round to beta, the factor on their mean.

With Delta_i = x_i - xbar_r the reports of the participants, P = mean ||Delta_i||^2,
Q = ||mean Delta_i||^2 and S the mean of the sums of the losses along the local steps, Lemma 2 bounds the
next squared distance by ||xbar_r - x*||^2 - beta (P - beta Q) - 2 beta eta phi S.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from theory.simulation.compilation import compiled
from theory.support.errors import UserError

Array = NDArray[np.float64]
# beta from the reports Delta, (m, d), and S.
OuterRule = Callable[[Array, float], float]

NUMBER, EXTRAPOLATED, HALF_EXTRAPOLATED, POLYAK = 0, 1, 2, 3
RULES = {"extrapolated": EXTRAPOLATED, "half-extrapolated": HALF_EXTRAPOLATED, "polyak": POLYAK}


@compiled()
def outer_step(  # type: ignore[no-untyped-def]
    rule, number, mean_square, square_mean, loss, eta, phi
):
    """beta for the rule: T8.

    Args:
        rule: NUMBER for the fixed ``number``, else a value of RULES.
        mean_square, square_mean, loss: P, Q, S.
        eta, phi: the local step size and phi(eta) = min(1, 2 - eta L), 0 where that is negative.

    Returns:
        The fixed number; max(1, P/Q) (Pierra 1984); max(1, P/(2Q)) (FedExP, Jhunjhunwala et al. 2023);
        (P + 2 eta phi S)/(2Q), which minimises the right side of Lemma 2. Where the reports cancel
        (Q = 0) nothing moves, and 1 is returned.
    """
    if rule == NUMBER:
        return number
    if square_mean == 0.0:
        return 1.0
    if rule == EXTRAPOLATED:
        return max(1.0, mean_square / square_mean)
    if rule == HALF_EXTRAPOLATED:
        return max(1.0, 0.5 * mean_square / square_mean)
    return (mean_square + 2.0 * eta * phi * loss) / (2.0 * square_mean)


def checked_rule(value: float | str | OuterRule) -> tuple[int, float]:
    """(rule, number) of an outer step, for :func:`outer_step`; (-1, NaN) for a function.

    Raises:
        UserError: not a finite number above 0, a name of RULES, or a function.
    """
    if callable(value):
        return -1, math.nan
    if isinstance(value, str) and value in RULES:
        return RULES[value], math.nan
    plain = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    number = float(value) if plain else math.nan
    if not (math.isfinite(number) and number > 0):
        raise UserError(
            f"outer_step is {value!r}, allowed: a finite number above 0, {', '.join(RULES)}, "
            "or a function of (Delta, S)"
        )
    return NUMBER, number
