"""T5, T5': separable data, whose minimum 0 is not attained.

Statement
---------
Hard-label logistic regression with labels y_j = +-1 and a margin: a unit w
with y_j <w, a_j> >= gamma > 0 for all samples j. A0, A1, f >= 0, eta < 1/L.
For every comparator u,
T5:   (1/T) sum_{t<T} (1/n) sum_i E f_i(x_i^t)
          <= [||x_0 - u||^2 + 2 eta T f(u)] / (2 eta (1 - eta L) T),
T5':  (1/R) sum_{r<R} E f(xbar_r)
          <= [||x_0 - u||^2 + 2 eta T f(u)] / (2 eta (1 - eta L) R).
u = s w gives f(u) <= log(1 + exp(-gamma s)), and the right side is minimised
over s >= 0 in one dimension. With x_0 = 0, eta = 1/(2L), s = ln(T)/gamma, T5
is at most 2 L ln(T)^2/(gamma^2 T) + 2/T.

Proof
-----
Put l = f_i(x; xi), g its gradient. ||x - eta g - u||^2 = ||x - u||^2 -
2 eta <g, x - u> + eta^2 ||g||^2. Convexity: <g, x - u> >= l - f_i(u; xi).
l >= 0 and smooth, so ||g||^2 <= 2 L l. Together the square falls by at least
2 eta (1 - eta L) l - 2 eta f_i(u; xi). Take expectations and the mean over
nodes; averaging the models does not raise the mean of ||x_i - u||^2. Telescope
over t < T: 2 eta (1 - eta L) sum_t (1/n) sum_i E f_i(x_i^t) <= ||x_0 - u||^2 +
2 eta T f(u). T5' keeps only the terms t = rK. QED
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from theory.problems.protocols import KnowsConstants
from theory.theorems.assumptions import convex, plain_mean, separable, smooth, step_below
from theory.theorems.base import Metric, Setting, Theorem, half_over_l, rounds_begun

LOCAL_LOSS = Metric("local_loss", averaged=True)
SYNC_LOSS = Metric("sync_loss", averaged=True)

# ---- bound ---------------------------------------------------------------------------------------


def bound(
    *, L: float, distance: float, comparator_loss: float, eta: float, T: int, count: int
) -> float:
    """[||x_0 - u||^2 + 2 eta T f(u)] / (2 eta (1 - eta L) count); count is T for T5, R for T5'.

    distance = ||x_0 - u||^2, comparator_loss = f(u).
    """
    return (distance + 2 * eta * T * comparator_loss) / (2 * eta * (1 - eta * L) * count)


def _best_comparator(problem: KnowsConstants, value: Callable[[float, float], float]) -> float:
    """min over s >= 0 of value(||x_0 - s w||^2, log(1 + exp(-gamma s))), convex in s."""
    start, w = problem.start, problem.separating_direction
    assert w is not None, "T5 was applied without its assumptions"
    along, square, gamma = float(start @ w), float(start @ start), problem.margin

    def at(s: float) -> float:
        return value(square - 2 * s * along + s * s, float(np.logaddexp(0.0, -gamma * s)))

    # Convex in s, and it grows with the square from some s on: double until it does.
    far = abs(along) + 1.0
    while at(2 * far) < at(far):
        far *= 2
    found = minimize_scalar(
        at, bounds=(0.0, 2 * far), method="bounded", options={"xatol": 1e-10 * far}
    )
    return min(float(found.fun), at(0.0))


def comparator_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    """min over s >= 0 of ||x_0 - s w||^2 + 2 eta t log(1 + exp(-gamma s)), the bracket of T5."""
    return _best_comparator(
        problem, lambda distance, loss: distance + 2 * setting.step_size * t * loss
    )


def _best_bound(problem: KnowsConstants, setting: Setting, total: int, count: int) -> float:
    return _best_comparator(
        problem,
        lambda distance, loss: bound(
            L=problem.smoothness,
            distance=distance,
            comparator_loss=loss,
            eta=setting.step_size,
            T=total,
            count=count,
        ),
    )


def _bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return _best_bound(problem, setting, t, t)


def _bound_sync(problem: KnowsConstants, setting: Setting, t: int) -> float:
    # Rounds begun before t are complete in the proof, so their iterations count in full.
    rounds = rounds_begun(setting, t)
    return _best_bound(problem, setting, rounds * setting.local_steps, rounds)


# ---- communication complexity --------------------------------------------------------------------
# No closed form: the best comparator depends on T. To leading order T5' needs the rounds R with
# 2 K L f(u) + L ||u||^2/R = eps: no gain from K.

# ---- tight instances -----------------------------------------------------------------------------
# None is known; the least bound / measured seen is printed by python -m theory.verify_rates.

# ---- sharper -------------------------------------------------------------------------------------


def sharp_bound(
    *,
    L: float,
    distance: float,
    comparator_loss: float,
    eta: float,
    distance_count: int,
    loss_count: int = 1,
) -> float:
    """S6: ||x_0 - u||^2/(2 eta T) + f(u)/(1 - eta L) for T5,
        ||x_0 - u||^2/(2 eta R) + K f(u)/(1 - eta L) for T5'.

    At eta = 1/(2L) the distance term is half of T5's.
    distance = ||x_0 - u||^2, comparator_loss = f(u); distance_count T or R,
    loss_count 1 or K.

    Proof (L = 1). With h the gradient at u of the same sample and v = g - h,
    smooth convex functions have <g, x - u> >= l - f_i(u; xi) + ||v||^2/2. So
    the square falls by at least 2 eta (l - f_i(u; xi)) + eta ||v||^2 - eta^2
    ||v + h||^2. The last two terms are least at v = eta h/(1 - eta), where they
    are -eta^2 ||h||^2/(1 - eta) >= -2 eta^2 f_i(u; xi)/(1 - eta), as ||h||^2
    <= 2 f_i(u; xi). In all at least 2 eta l - 2 eta f_i(u; xi)/(1 - eta).
    Telescope as in T5; for T5' drop the terms that are not at rK. QED
    """
    return distance / (2 * eta * distance_count) + loss_count * comparator_loss / (1 - eta * L)


def best_sharp_bound(
    problem: KnowsConstants, setting: Setting, *, distance_count: int, loss_count: int
) -> float:
    """S6 at the best multiple u = s w, s >= 0."""
    return _best_comparator(
        problem,
        lambda distance, loss: sharp_bound(
            L=problem.smoothness,
            distance=distance,
            comparator_loss=loss,
            eta=setting.step_size,
            distance_count=distance_count,
            loss_count=loss_count,
        ),
    )


def _sharp_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return best_sharp_bound(problem, setting, distance_count=t, loss_count=1)


def _sharp_bound_sync(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return best_sharp_bound(
        problem,
        setting,
        distance_count=rounds_begun(setting, t),
        loss_count=setting.local_steps,
    )


def closed_form(*, L: float, gamma: float, T: int) -> float:
    """2 L ln(T)^2/(gamma^2 T) + 2/T: T5 at x_0 = 0, eta = 1/(2L), s = ln(T)/gamma; T >= 2.

    Proof. ||u||^2 = ln(T)^2/gamma^2 and log(1 + exp(-ln T)) <= 1/T: the
    bracket is at most ln(T)^2/gamma^2 + 1/L, over eta T = T/(2L). QED
    """
    return 2 * L * math.log(T) ** 2 / (gamma**2 * T) + 2 / T


# ---- the theorems --------------------------------------------------------------------------------

_HYPOTHESES = (smooth, convex, separable, step_below(1.0), plain_mean)

T5_S6 = Theorem(
    name="T5/S6",
    title="separable logistic, local losses",
    statement=(
        "(1/T) sum_t (1/n) sum_i E f_i(x_i^t) <= ||x_0 - u||^2/(2 eta T) + f(u)/(1 - eta L)"
    ),
    metric=LOCAL_LOSS,
    order=-1.0,
    assumptions=_HYPOTHESES,
    formula=sharp_bound,
    bound=_sharp_bound,
    default_step=half_over_l,
    tightest="none known",
    module=__name__,
)
T5_SYNC_S6 = Theorem(
    name="T5'/S6",
    title="separable logistic, global loss at synchronisation",
    statement="(1/R) sum_r E f(xbar_r) <= ||x_0 - u||^2/(2 eta R) + K f(u)/(1 - eta L)",
    metric=SYNC_LOSS,
    order=-1.0,
    assumptions=_HYPOTHESES,
    formula=sharp_bound,
    bound=_sharp_bound_sync,
    default_step=half_over_l,
    tightest="none known",
    module=__name__,
)
T5 = Theorem(
    name="T5",
    title="separable logistic, local losses",
    statement=(
        "(1/T) sum_t (1/n) sum_i E f_i(x_i^t) "
        "<= [||x_0 - u||^2 + 2 eta T f(u)] / (2 eta (1 - eta L) T)"
    ),
    metric=LOCAL_LOSS,
    order=-1.0,
    assumptions=_HYPOTHESES,
    formula=bound,
    bound=_bound,
    default_step=half_over_l,
    sharper=(T5_S6,),
    tightest="none known",
    module=__name__,
)
T5_SYNC = Theorem(
    name="T5'",
    title="separable logistic, global loss at synchronisation",
    statement=("(1/R) sum_r E f(xbar_r) <= [||x_0 - u||^2 + 2 eta T f(u)] / (2 eta (1 - eta L) R)"),
    metric=SYNC_LOSS,
    order=-1.0,
    assumptions=_HYPOTHESES,
    formula=bound,
    bound=_bound_sync,
    default_step=half_over_l,
    sharper=(T5_SYNC_S6,),
    tightest="none known",
    module=__name__,
)

REFERENCES = """
Comparators in place of a minimiser for logistic regression on separable data:
Z. Ji, M. Telgarsky, "The implicit bias of gradient descent on nonseparable
data" (COLT 2019). Constants and proofs here are this project's.
"""
