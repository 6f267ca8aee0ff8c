"""T1: the local losses fall as 1/T; no K in the bound.

Statement
---------
Under A0-A2, for any K and 0 < eta < 2/L, phi = min(1, 2 - eta L),
    (1/T) sum_{t<T} (1/n) sum_i E f_i(x_i^t) <= D / (2 phi eta T).

Proof
-----
Lemma 1 at node i and its sample, in expectation given x_i^t: E||x_i^t -
eta g_i^t - x*||^2 <= ||x_i^t - x*||^2 - 2 eta phi f_i(x_i^t). Take the mean
over nodes. Averaging the models does not raise (1/n) sum_i ||x_i - x*||^2
(Jensen), so D_t = (1/n) sum_i E||x_i^t - x*||^2 satisfies D_{t+1} <= D_t -
2 eta phi (1/n) sum_i E f_i(x_i^t) at every t. Sum over t < T; D_T >= 0. QED
With m of the n nodes drawn uniformly a round the means are over them, and the
bound is the same: given the past, the expectation over the draw of the mean
of ||x_i - x*||^2 telescopes as before. A fixed outer step beta <= 1 divides
the bound by beta, and extrapolation leaves it as it is (Lemma 2).
"""

from __future__ import annotations

import numpy as np

from theory.problems.explicit import rank_one_nodes, scalar_problem
from theory.problems.protocols import KnowsConstants
from theory.theorems.assumptions import (
    cautious_server,
    convex,
    everyone,
    interpolation,
    one_local_step,
    outer_factor,
    phi,
    plain_mean,
    smooth,
    step_below,
)
from theory.theorems.base import (
    Assumption,
    Instance,
    Metric,
    Setting,
    Theorem,
    full_setting,
    one_over_l,
)

LOCAL_LOSS = Metric("local_loss", averaged=True)

# ---- bound ---------------------------------------------------------------------------------------


def bound(*, L: float, D: float, eta: float, T: int, beta: float = 1.0) -> float:
    """D / (2 phi eta T), over beta for a fixed outer step beta <= 1."""
    return D / (2 * phi(eta * L) * eta * T * beta)


def _bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        eta=setting.step_size,
        T=t,
        beta=outer_factor(setting),
    )


# ---- communication complexity --------------------------------------------------------------------
# None from T1 alone: it bounds each node's loss at its own model, which no one node can evaluate for
# the others. T2 and T3 turn it into statements on f.

# ---- tight instances -----------------------------------------------------------------------------


def instance_0(
    theorem: str, rounds: int, local_steps: int = 1, smoothness: float = 1.0
) -> Instance:
    """I0 (T1, T2, T3 with equality): f_i(x) = (L/2) x^2, eta = 1/L, x_0 = 1.

    Proof. The first step lands on x* = 0, so only the first term of a sum is
    not 0, and it is L/2: the averages are L D/(2T), L D/(2R), L D/(2T), which
    are the bounds of T1, T2 and T3 (c = 1) at eta = 1/L. QED
    An uninteresting instance: it says that the averages can't be bounded
    better at this step size, not that the last iterate is slow.
    """
    name, count = {
        "T1": ("local_loss", local_steps * rounds),
        "T2": ("sync_loss", rounds),
        "T3": ("global_loss", local_steps * rounds),
    }[theorem]
    return Instance(
        problem=rank_one_nodes([[float(np.sqrt(smoothness))]], [1.0], smoothness, "I0"),
        setting=full_setting(1.0 / smoothness, local_steps, rounds),
        theorem=theorem,
        metric=Metric(name, averaged=True),
        value=smoothness / (2 * count),
        limit=1.0,
    )


def instance_huber(
    rounds: int, local_steps: int = 1, smoothness: float = 1.0, step_factor: float = 0.5
) -> Instance:
    """IH (T1/S1 with equality, eta <= 1/L): all f_i one Huber function, x_0 = 1.

    f(x) = L x^2/2 for |x| <= delta, L delta (|x| - delta/2) beyond it,
    delta = 1/(1 + eta L (T - 1)). eta = step_factor/L, factor in (0, 1].

    Proof. While x^t >= delta a step subtracts eta L delta, so x^t = 1 -
    t eta L delta, and x^{T-1} = delta exactly. The mean over t < T of
    L delta (x^t - delta/2) is L delta (1 - (delta/2)(1 + eta L (T - 1))) =
    L delta/2, the bound of S1 with D = 1. All nodes are equal, so averaging
    changes nothing, and T3/S1 (c = 1) is met too. QED
    """
    total = local_steps * rounds
    corner = 1.0 / (1.0 + step_factor * (total - 1))

    def value(x: np.ndarray) -> np.ndarray:
        size = np.abs(x)
        far = corner * (size - 0.5 * corner)
        return smoothness * np.where(size <= corner, 0.5 * x * x, far)

    return Instance(
        problem=scalar_problem(
            value,
            lambda x: smoothness * np.clip(x, -corner, corner),
            smoothness=smoothness,
            growth=0.0,
            name="IH",
        ),
        setting=full_setting(step_factor / smoothness, local_steps, rounds),
        theorem="T1/S1",
        metric=LOCAL_LOSS,
        value=0.5 * smoothness * corner,
        limit=1.0,
    )


# ---- sharper -------------------------------------------------------------------------------------


def limited_sum(decrease: float, count: int) -> float:
    """Lemma 3: the largest sum of count numbers F_t that a decreasing distance allows.

    Let D_0 = 1, 0 <= F_t <= D_t/2 and D_{t+1} <= D_t - 2 a F_t, 0 < a <= 1.
    Then sum_{t<m} F_t <= c_m D_0 with c_m = (1 - (1-a)^m)/(2a).

    Proof. By induction on m; c_0 = 0. Given F_0 the other m - 1 terms sum to
    at most c_{m-1} D_1 <= c_{m-1} (D_0 - 2 a F_0), so all of them to at most
    c_{m-1} D_0 + F_0 (1 - 2 a c_{m-1}), and 1 - 2 a c_{m-1} = (1-a)^{m-1} is
    not negative, so F_0 = D_0/2 is the worst: c_m = c_{m-1} + (1-a)^{m-1}/2,
    which the closed form satisfies. QED
    """
    return float(-np.expm1(count * np.log1p(-decrease)) / (2 * decrease)) if decrease < 1 else 0.5


def sharp_bound(*, L: float, D: float, eta: float, T: int) -> float:
    """S1: exact at every step size. On every path, for batches in any order,
        eta <= 1/L:  L D / (2 (1 + eta L (T - 1))),
        eta >= 1/L:  (L D/2T) (1 - (1 - eta L)^{2T}) / (eta L (2 - eta L)).

    Proof for eta <= 1/L (units with L = 1, and x* = 0). Lemma 1 (a) says
    l + ||g||^2/2 <= <g, x> for every batch. Write gbar^t for the mean over
    nodes of g_i^t, S = sum_t gbar^t, S_r for the part of round r, S_ir for
    node i's own sum in round r. As x_i^t = x_0 - eta (sum of gbar over earlier
    rounds) - eta (sum of g_i^s over earlier steps of this round),
        sum_t mean_i <g_i^t, x_i^t> = <x_0, S>
            - (eta/2) (||S||^2 - sum_r ||S_r||^2)
            - (eta/2) sum_r mean_i (||S_ir||^2 - sum_{t in r} ||g_i^t||^2),
    since sum_{s<t} <v_t, v_s> = (||sum v||^2 - sum ||v||^2)/2, once for the
    rounds and once within each. Hence sum_t mean_i l_i^t is at most
        <x_0, S> - (eta/2) (||S||^2 - sum_r ||S_r||^2)
            - (eta/2) sum_r mean_i ||S_ir||^2
            - ((1 - eta)/2) sum_t mean_i ||g_i^t||^2.
    mean_i ||S_ir||^2 >= ||S_r||^2, and sum_t mean_i ||g_i^t||^2 >=
    sum_t ||gbar^t||^2 >= ||S||^2/T, so as eta <= 1 it is at most
    <x_0, S> - (eta + (1 - eta)/T) ||S||^2/2, and at most
    D/(2 (eta + (1 - eta)/T)) for any S. Divide by T. QED
    It is attained by a Huber function (IH).

    Proof for eta >= 1/L. Lemma 1 lowers the mean squared distance by at least
    2 a F_t, F_t the mean of the batch losses and a = eta (2 - eta), and
    smoothness gives F_t <= D_t/2. Lemma 3, with 1 - a = (1 - eta)^2. QED
    It is attained by f_i(x) = (L/2) x^2, whose F_t are (L/2)(1 - eta L)^{2t}.
    """
    if eta * L <= 1:
        return L * D / (2 * (1 + eta * L * (T - 1)))
    return L * D * limited_sum(eta * L * (2 - eta * L), T) / T


def _sharp_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return sharp_bound(L=problem.smoothness, D=problem.initial_distance, eta=setting.step_size, T=t)


def mean_smoothness(problem: KnowsConstants, setting: Setting) -> float:
    """kappa of S9: E||mean_i g_i||^2 <= 2 kappa L f(x) for all x, in (0, 1].

    With L_f the smoothness of f and nodes that draw independently,
    E||mean_i g_i||^2 <= ||grad f||^2 + (1/n) mean_i E||g_i||^2
    <= 2 (L_f + L/n) f; with full gradients the second term is not there.
    """
    share = problem.global_smoothness / problem.smoothness
    return min(1.0, share if setting.gradient == "full" else share + 1.0 / problem.n_nodes)


def minibatch_bound(*, L: float, D: float, eta: float, T: int, kappa: float) -> float:
    """S9: D / (2 eta (1 + kappa - kappa eta L) T) for K = 1 and 1/L <= eta < (1 + 1/kappa)/L.

    kappa: E||(1/n) sum_i g_i||^2 <= 2 kappa L f(x) for all x, as when the mean
    over nodes of the sampled losses is kappa L-smooth. For K = 1, where T1, T2
    and T3 (c = 1) speak of the same average.

    Proof (L = 1, x* = 0). All nodes are at x. Let F = f(x), M the mean over
    nodes of E||g_i||^2 and Q = E||mean_i g_i||^2 <= M. Lemma 1 (a) gives
    <grad f(x), x> >= F + M/2 >= F + Q/2, so E||x - eta mean_i g_i||^2 =
    ||x||^2 - 2 eta <grad f(x), x> + eta^2 Q <= ||x||^2 - 2 eta F +
    eta (eta - 1) Q, and Q <= 2 kappa F: the square falls by at least
    2 eta F (1 - kappa (eta - 1)). Telescope. QED
    What averaging does here is to remove the noise from the step. For K >= 2 it
    is false: two nodes with f_1 = (L/2) x_1^2, f_2 = (L/2) x_2^2 have kappa =
    1/2, and at eta = 1.9/L, K = 2, x_0 = (1, 1) the sum of the f(xbar_r) over
    many rounds is 2.76 L, not at most 0.96 L.
    """
    return D / (2 * eta * (1 + kappa - kappa * eta * L) * T)


def _minibatch_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return minibatch_bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        eta=setting.step_size,
        T=t,
        kappa=mean_smoothness(problem, setting),
    )


def minibatch_step(problem: KnowsConstants, setting: Setting) -> Assumption:
    """step size: 1/L <= eta < (1 + 1/kappa)/L."""
    kappa = mean_smoothness(problem, setting)
    scaled, limit = setting.step_size * problem.smoothness, 1 + 1 / kappa
    reason = f"eta L = {scaled:.3g}, allowed: 1 to below {limit:.3g} = 1 + 1/kappa"
    return Assumption("step size", 1 - 1e-12 <= scaled < limit, reason)


def minibatch_default_step(problem: KnowsConstants, _: int) -> float:
    """eta = (1 + kappa)/(2 kappa L), which makes the bound least; kappa for one sample a step."""
    kappa = mean_smoothness(problem, Setting(step_size=1.0, local_steps=1, rounds=1))
    return (1 + kappa) / (2 * kappa * problem.smoothness)


# ---- the theorem ---------------------------------------------------------------------------------

T1_S1 = Theorem(
    name="T1/S1",
    title="local losses, exact at every step size",
    statement="(1/T) sum_t (1/n) sum_i E f_i(x_i^t) <= L D / (2 (1 + eta L (T - 1))), eta <= 1/L",
    metric=LOCAL_LOSS,
    order=-1.0,
    assumptions=(smooth, convex, interpolation, step_below(2.0), plain_mean),
    formula=sharp_bound,
    bound=_sharp_bound,
    default_step=one_over_l,
    instances=(instance_huber,),
    tightest="1 (IH for eta <= 1/L, a quadratic beyond)",
    module=__name__,
)
T1_S9 = Theorem(
    name="T1/S9",
    title="local losses, K = 1, steps beyond 2/L",
    statement="(1/T) sum_t E f(xbar^t) <= D / (2 eta (1 + kappa - kappa eta L) T), K = 1",
    metric=LOCAL_LOSS,
    order=-1.0,
    assumptions=(
        smooth,
        convex,
        interpolation,
        minibatch_step,
        one_local_step,
        everyone,
        plain_mean,
    ),
    formula=minibatch_bound,
    bound=_minibatch_bound,
    default_step=minibatch_default_step,
    tightest="1 (I0, kappa = 1)",
    module=__name__,
)
T1 = Theorem(
    name="T1",
    title="local losses, O(1/T), any K",
    statement="(1/T) sum_t (1/n) sum_i E f_i(x_i^t) <= D / (2 phi eta T)",
    metric=LOCAL_LOSS,
    order=-1.0,
    assumptions=(smooth, convex, interpolation, step_below(2.0), cautious_server),
    formula=bound,
    bound=_bound,
    default_step=one_over_l,
    sharper=(T1_S1, T1_S9),
    instances=(instance_0,),
    tightest="1 (I0)",
    module=__name__,
)

REFERENCES = """
T. Qin, S. R. Etesami, C. A. Uribe, "Faster convergence of Local SGD for
over-parameterized models" (TMLR 2024) states the rate; constants and proof
here are this project's. Lemma 1's inequality: Y. Nesterov, "Introductory
lectures on convex optimization" (2004), Theorem 2.1.5. Huber functions as the
worst case of gradient descent: Y. Drori, M. Teboulle, "Performance of
first-order methods for smooth convex minimization" (Math. Program. 2014).
"""
