"""T6: without convexity, squared gradients at synchronisation fall as 1/(eta T).

Statement
---------
Under A0, A5 (strong growth with rho >= 1), f >= 0 = inf f and
eta <= 1/(10 rho K L),
    (1/R) sum_{r<R} E||grad f(xbar_r)||^2 <= 4 f(x_0)/(eta K R)
                                           = 4 f(x_0)/(eta T).
With eta = 1/(10 rho K L) it is 40 rho K L f(x_0)/T: order K/T.

Proof
-----
Fix a round, condition on xbar_r, G = ||grad f(xbar_r)||^2, V_k = (1/n) sum_i
E||x_i^{rK+k} - xbar_r||^2, V the largest of them, x = eta K L rho.
Gradients: g_i^k = grad f_i(x_i; xi) differs from the gradient of the same
sample at xbar_r by at most L ||x_i - xbar_r||, so (1/n) sum_i E||g_i^k||^2 <=
2 rho G + 2 L^2 V_k, by A5 at xbar_r.
Drift: x_i^{rK+k} - xbar_r is -eta times a sum of k gradients, so V_k <=
eta^2 k sum_{j<k} (2 rho G + 2 L^2 V_j) <= eta^2 K^2 (2 rho G + 2 L^2 V), and
as 2 eta^2 K^2 L^2 = 2 x^2/rho^2 <= 1/2, V <= 4 eta^2 K^2 rho G.
Descent: f is L-smooth and xbar_{r+1} - xbar_r = -eta sum_k (1/n) sum_i g_i^k.
In expectation the linear term is -eta sum_k <grad f(xbar_r), E h_k>, h_k =
(1/n) sum_i grad f_i(x_i^{rK+k}), and -<a, b> <= -||a||^2/2 + ||a - b||^2/2
with ||grad f(xbar_r) - h_k||^2 <= L^2 (1/n) sum_i ||x_i - xbar_r||^2 makes it
at most -eta K G/2 + eta K (L^2/2) V. The quadratic term is at most (L/2)
eta^2 K^2 (2 rho G + 2 L^2 V). With the bound on V,
    E f(xbar_{r+1}) <= f(xbar_r)
        - eta K G (1/2 - 2 x^2/rho - x - 4 x^3/rho^2),              (*)
and the bracket is at least 1/2 - x - 2x^2 - 4x^3, at least 1/4 for x <= 1/10.
Telescope; f(xbar_R) >= 0. QED
With m of the n nodes drawn a round the same holds, the means being over them.
"""

from __future__ import annotations

import numpy as np

from theory.problems.explicit import rank_one_nodes
from theory.problems.protocols import KnowsConstants
from theory.support.errors import UserError
from theory.theorems.assumptions import (
    attained_or_zero_infimum,
    plain_mean,
    smooth,
    strong_growth,
)
from theory.theorems.base import (
    Assumption,
    Hypothesis,
    Instance,
    Metric,
    Setting,
    Theorem,
    full_setting,
    rounds_begun,
)

SYNC_GRADIENT = Metric("sync_gradient", averaged=True)

# ---- bound ---------------------------------------------------------------------------------------


def bound(*, f0: float, eta: float, T: int) -> float:
    """4 f(x_0) / (eta T)."""
    return 4 * f0 / (eta * T)


def _whole_rounds(setting: Setting, t: int) -> int:
    """Iterations of the rounds begun before t."""
    return rounds_begun(setting, t) * setting.local_steps


def _bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    f0 = float(problem.global_loss(problem.start))
    return bound(f0=f0, eta=setting.step_size, T=_whole_rounds(setting, t))


# ---- admissible step -----------------------------------------------------------------------------


def scaled_step(problem: KnowsConstants, setting: Setting) -> float:
    """x = eta K L rho."""
    return setting.step_size * setting.local_steps * problem.smoothness * problem.strong_growth


def step_at_most(part: int) -> Hypothesis:
    """eta <= 1 / (part rho K L)."""

    def check(problem: KnowsConstants, setting: Setting) -> Assumption:
        limit = 1.0 / (part * problem.strong_growth * setting.local_steps * problem.smoothness)
        ok = setting.step_size <= limit * (1 + 1e-12)
        reason = f"eta = {setting.step_size:.3g}, allowed: <= {limit:.3g} = 1/({part} rho K L)"
        return Assumption("step size", ok, reason)

    check.__doc__ = f"step size: 0 < eta <= 1/({part} rho K L)."
    return check


def _step(problem: KnowsConstants, local_steps: int) -> float:
    """eta = 1/(10 rho K L)."""
    return 1.0 / (10 * problem.strong_growth * local_steps * problem.smoothness)


# ---- communication complexity --------------------------------------------------------------------


def rounds_to(*, L: float, rho: float, f0: float, eps: float) -> float:
    """40 rho L f(x_0)/eps rounds to a mean squared gradient of eps: no gain from K."""
    return 40 * rho * L * f0 / eps


def _rounds_to(problem: KnowsConstants, eps: float, _: int) -> float:
    return rounds_to(
        L=problem.smoothness,
        rho=problem.strong_growth,
        f0=float(problem.global_loss(problem.start)),
        eps=eps,
    )


# ---- tight instances -----------------------------------------------------------------------------


def instance_4(rounds: int, local_steps: int = 1, smoothness: float = 1.0) -> Instance:
    """I4 (T6 at its own step size): n = 1, rho = 1, f(x) = (lambda/2) x^2, f(x_0) = 1.

    eta = 1/(10 K L), lambda = 1/(eta (2T + 1)), at most L once 2T + 1 >= 10 K.
        ||grad f(x^T)||^2 = 2 lambda f(x_0)(1 - eta lambda)^{2T}
                         >= 2 f(x_0)/(e eta (2T + 1)):
    T6 over it tends to 4e, for the last and so for the mean.

    Proof. A step multiplies x by 1 - eta lambda, ||grad f||^2 = 2 lambda f,
    and with s = 1/(2T + 1), (1 - s)^{2T} >= 1/e as in I2. QED
    It shows T6 tight at this step size only: a larger eta is not covered.

    Raises:
        UserError: 2T + 1 < 10 K.
    """
    total = local_steps * rounds
    eta = 1.0 / (10 * local_steps * smoothness)
    flat = 1.0 / (eta * (2 * total + 1))
    if flat > smoothness:
        raise UserError(f"rounds is {rounds}, allowed: 2 K R + 1 >= 10 K")
    return Instance(
        # Scaled so that f(x_0) = 1 whatever lambda is: the bound is in f(x_0), not in D.
        problem=rank_one_nodes(
            [[float(np.sqrt(flat))]], [float(np.sqrt(2.0 / flat))], smoothness, "I4"
        ),
        setting=full_setting(eta, local_steps, rounds),
        theorem="T6",
        metric=Metric("gradient"),
        value=2 * flat * float(np.exp(2 * total * np.log1p(-eta * flat))),
        limit=4 * np.e,
    )


# ---- sharper -------------------------------------------------------------------------------------


def sharp_bound(*, f0: float, eta: float, T: int, x: float) -> float:
    """S7: f(x_0)/(eta T) over 1/2 - x - 2x^2 - 4x^3, x = eta K L rho <= 1/4.

    The constant is 2.66 at x = 1/10 in place of 4. x = 1/7 is near the best:
    23 rho K L f(x_0)/T in place of 40.

    Proof. (*) in the proof of T6, which needs 2 x^2 <= 1/2 only, with its own
    bracket in place of 1/4, and rho >= 1. At x = 1/4 the bracket is 1/16. QED
    """
    return f0 / (eta * T * (0.5 - x - 2 * x**2 - 4 * x**3))


def _sharp_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return sharp_bound(
        f0=float(problem.global_loss(problem.start)),
        eta=setting.step_size,
        T=_whole_rounds(setting, t),
        x=scaled_step(problem, setting),
    )


def _sharp_step(problem: KnowsConstants, local_steps: int) -> float:
    """eta = 1/(7 rho K L)."""
    return 1.0 / (7 * problem.strong_growth * local_steps * problem.smoothness)


# ---- the theorem ---------------------------------------------------------------------------------

_CLASS = (smooth, attained_or_zero_infimum, strong_growth)

T6_S7 = Theorem(
    name="T6/S7",
    title="non-convex, squared gradient, larger steps",
    statement="(1/R) sum_r E||grad f(xbar_r)||^2 <= 23 rho K L f(x_0) / T at eta = 1/(7 rho K L)",
    metric=SYNC_GRADIENT,
    order=-1.0,
    assumptions=(*_CLASS, step_at_most(4), plain_mean),
    formula=sharp_bound,
    bound=_sharp_bound,
    default_step=_sharp_step,
    rounds_to=lambda problem, eps, k: _rounds_to(problem, eps, k) * 23 / 40,
    instances=(instance_4,),
    tightest="7.2 at x = 1/10 (I4)",
    module=__name__,
)
T6 = Theorem(
    name="T6",
    title="non-convex, squared gradient, O(K/T)",
    statement="(1/R) sum_r E||grad f(xbar_r)||^2 <= 4 f(x_0) / (eta T)",
    metric=SYNC_GRADIENT,
    order=-1.0,
    assumptions=(*_CLASS, step_at_most(10), plain_mean),
    formula=bound,
    bound=_bound,
    default_step=_step,
    rounds_to=_rounds_to,
    sharper=(T6_S7,),
    instances=(instance_4,),
    tightest="4e (I4)",
    module=__name__,
)

REFERENCES = """
T. Qin, S. R. Etesami, C. A. Uribe, "Faster convergence of Local SGD for
over-parameterized models" (TMLR 2024) states the rate; constants and proof
here are this project's. Strong growth: M. Schmidt, N. Le Roux, "Fast
convergence of stochastic gradient descent under a strong growth condition"
(arXiv:1308.6370, 2013). The smoothness of sigmoid regression (S8) is derived
in theory/problems/losses.py.
"""
