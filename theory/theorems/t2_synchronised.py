"""T2: the global loss at synchronisation falls as 1/R = K/T.

Statement
---------
Under A0-A2, for any K and 0 < eta < 2/L, phi = min(1, 2 - eta L),
    (1/R) sum_{r<R} E f(xbar_r) <= D / (2 phi eta R) = K D / (2 phi eta T).
The same holds for f at the mean of the xbar_r and for the least E f(xbar_r).

Proof
-----
In the proof of T1, sum over t < T of (1/n) sum_i E f_i(x_i^t) is at most
D/(2 phi eta). Every term is at least 0; keep those with t = rK. There all
nodes hold xbar_r, so (1/n) sum_i f_i(x_i^t) = f(xbar_r). QED
Clients and outer steps as in T1: every client's first step is at xbar_r.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from theory.problems.explicit import quadratic_nodes, rank_one_nodes
from theory.problems.protocols import KnowsConstants
from theory.theorems.assumptions import (
    cautious_server,
    convex,
    deterministic,
    everyone,
    interpolation,
    local_steps_from,
    outer_factor,
    phi,
    plain_mean,
    smooth,
    step_below,
    step_one_over_l,
)
from theory.theorems.base import (
    BestAtRounds,
    Instance,
    Metric,
    Setting,
    Theorem,
    full_setting,
    one_over_l,
    rounds_begun,
)
from theory.theorems.t1_local_losses import T1_S9, instance_0, limited_sum
from theory.theorems.t1_local_losses import sharp_bound as sharp_bound_t1

SYNC_LOSS = Metric("sync_loss", averaged=True)
LAST_LOSS = Metric("global_loss")

# ---- bound ---------------------------------------------------------------------------------------


def bound(*, L: float, D: float, eta: float, R: int, beta: float = 1.0) -> float:
    """D / (2 phi eta R), over beta for a fixed outer step beta <= 1."""
    return D / (2 * phi(eta * L) * eta * R * beta)


def _bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        eta=setting.step_size,
        R=rounds_begun(setting, t),
        beta=outer_factor(setting),
    )


# ---- communication complexity --------------------------------------------------------------------


def rounds_to(*, L: float, D: float, eps: float) -> float:
    """L D / (2 eps) rounds at eta = 1/L: local steps gain nothing in this bound."""
    return L * D / (2 * eps)


def _rounds_to(problem: KnowsConstants, eps: float, _: int) -> float:
    return rounds_to(L=problem.smoothness, D=problem.initial_distance, eps=eps)


# ---- tight instances -----------------------------------------------------------------------------


def crossing_rows(s: float, smoothness: float) -> list[list[float]]:
    """sqrt(L) a_1 and sqrt(L) a_2, a_1, a_2 = (sqrt(1 - s), +-sqrt(s))."""
    along, across = float(np.sqrt(smoothness * (1 - s))), float(np.sqrt(smoothness * s))
    return [[along, across], [along, -across]]


def instance_1(
    rounds: int,
    local_steps: int = 1,
    smoothness: float = 1.0,
    step_factor: float = 1.0,
    spread: float | None = None,
) -> Instance:
    """I1 (T2, any K, any eta <= 1/L): two directions that nearly coincide.

    n = 2, d = 2, f_i(x) = (L/2)(a_i'x)^2, a_1, a_2 = (sqrt(1-s), +-sqrt(s)),
    x_0 = (0, 1), s = 1/(2R + 1) unless given, full gradients, eta =
    step_factor/L. Averaging undoes most of what the nodes have done.
        f(xbar_R) = (L/2) s (1 - q s)^{2R},  q = 1 - (1 - eta L)^K,
    at least L D/(2e (2R + 1)) at s = 1/(2R + 1): T2 over it tends to 2e at
    eta = 1/L. The second coordinate only falls, so the best and the averaged
    model are no better than the last.

    Proof. K steps multiply the part of x along a_i by (1 - eta L)^K and keep
    the rest: x - q a_i a_i'x. The mean of the a_i a_i' is diag(1 - s, s), so a
    round maps (0, y) to (0, (1 - q s) y), and f(0, y) = (L/2) s y^2. As q <= 1
    and 1 - s >= exp(-s/(1 - s)), (1 - q s)^{2R} >= (1 - s)^{2R} >=
    exp(-2R s/(1 - s)) = 1/e, since s/(1 - s) = 1/(2R). QED
    """
    s = 1.0 / (2 * rounds + 1) if spread is None else spread
    q = 1.0 - (1.0 - step_factor) ** local_steps
    return Instance(
        problem=rank_one_nodes(
            crossing_rows(s, smoothness), [0.0, 1.0], smoothness * (1 + 1e-12), "I1"
        ),
        setting=full_setting(step_factor / smoothness, local_steps, rounds),
        theorem="T2",
        metric=LAST_LOSS,
        value=0.5 * smoothness * s * float(np.exp(2 * rounds * np.log1p(-q * s))),
        limit=2 * np.e,
    )


def instance_6(
    rounds: int,
    local_steps: int = 1,
    smoothness: float = 1.0,
    step_factor: float = 1.0,
    outer_step: float = 1.0,
    n_nodes: int = 2,
) -> Instance:
    """I6: no fixed local and outer step helps by more than a constant.

    Even n; half of the nodes hold (L/2)(a_1'x)^2, half (L/2)(a_2'x)^2, a_1,
    a_2 = (sqrt(1-l), +-sqrt(l)), l in (0, 1/2]. For every K, R, every fixed
    local step 0 < eta < 2/L and every fixed outer step beta > 0 some l and
    some start with ||x_0||^2 = D give f(xbar_R) >= L D/(4e (2R + 1)); this is
    that l and start. eta = step_factor/L, factor in (0, 2).

    Proof. As in I1 a round maps xbar to (I - s diag(1 - l, l)) xbar, s =
    beta q, q = 1 - (1 - eta L)^K in (0, 2), and f(x) = (L/2)((1 - l) x_1^2 +
    l x_2^2). Let D = 1.
    s >= 2: l = 1/(4(2R + 1)), start (1, 0). |1 - s(1 - l)| >= 1 - 2l, so f >=
    (L/2)(1 - l)(1 - 2l)^{2R} >= (L/2)(1 - l)(1 - 4 R l) >= (L/2)(11/12)(1/2).
    2/(2R + 1) <= s < 2: l = 1/(s(2R + 1)) <= 1/2, start (0, 1): f = (L/2) l
    (1 - 1/(2R + 1))^{2R} >= L/(2e s(2R + 1)) > L/(4e(2R + 1)).
    s < 2/(2R + 1): l = 1/2: f = (L/4)(1 - s/2)^{2R} >= (L/4)(1 - 1/(2R +
    1))^{2R} >= L/(4e). QED
    """
    q = 1.0 - (1.0 - step_factor) ** local_steps
    s, odd = outer_step * q, 2 * rounds + 1
    if s >= 2:
        spread, first = 1.0 / (4 * odd), True
    else:
        spread, first = (1.0 / (s * odd), False) if s * odd >= 2 else (0.5, False)
    start, curvature = ([1.0, 0.0], 1 - spread) if first else ([0.0, 1.0], spread)
    rows = np.array(crossing_rows(spread, smoothness)).repeat(n_nodes // 2, axis=0)
    value = 0.5 * smoothness * curvature * abs(1 - s * curvature) ** (2 * rounds)
    return Instance(
        problem=quadratic_nodes(
            rows[:, :, None] * rows[:, None, :], np.array(start), smoothness, "I6"
        ),
        setting=Setting(
            step_size=step_factor / smoothness,
            local_steps=local_steps,
            rounds=rounds,
            gradient="full",
            outer_step=outer_step,
        ),
        theorem="T2",
        metric=LAST_LOSS,
        value=value,
        limit=np.nan,
    )


def least_last_loss(*, L: float, D: float, R: int) -> float:
    """L D / (4e (2R + 1)): I6's lower bound on f(xbar_R), whatever the fixed steps."""
    return float(L * D / (4 * np.e * (2 * R + 1)))


# ---- sharper -------------------------------------------------------------------------------------


def round_decrease(step: float, local_steps: int) -> float:
    """a in (0, 1]: a round lowers mean_i E||x_i - x*||^2 by 2 a E f(xbar_r) at least (L = 1).

    For eta >= 1 a = eta (2 - eta); for eta <= 1, with q = 1 - eta,
        a = (1 - q^{2K}) / (1 + q^{2K-1}).
    Args: step, eta L in (0, 2); local_steps, K.
    """
    if step >= 1:
        return step * (2 - step)
    q = 1 - step
    return float((1 - q ** (2 * local_steps)) / (1 + q ** (2 * local_steps - 1)))


def sharp_bound(*, L: float, D: float, eta: float, K: int, R: int) -> float:
    """S1 for T2: (L D/2R)(1 - (1-a)^R)/a, a = round_decrease; L D/(2(1 + eta L (R-1))) for K = 1.

    eta >= 1/L: a = eta L (2 - eta L). eta <= 1/L: a = (1 - q^{2K})/(1 +
    q^{2K-1}), q = 1 - eta L, which tends to 1 as K grows: a small step costs
    nothing once K eta L is a few. Stochastic gradients too, in expectation.

    Proof (L = 1, x* = 0). (i) A round lowers mean_i E||x_i||^2 by at least
    2 a E f(xbar_r). For eta >= 1 that is Lemma 1 at the first step, as the
    others do not raise it. For eta <= 1 fix a round and a node, condition on
    xbar_r, and put u_k^2 = E f_i(x_i^k), a_k^2 = E||g_k||^2/2. Lemma 1 before
    its last term is dropped: step k lowers E||x_i||^2 by at least 2 eta
    (u_k^2 + (1 - eta) a_k^2). As ||grad f_i||^2 <= 2 f_i, the root of f_i is
    1/sqrt(2)-Lipschitz, so E sqrt(f_i) falls by at most eta a_k in step k,
    and by Jensen u_{k+1} >= u_0 - eta (a_0 + ... + a_k). So the decrease is at
    least 2 eta times the least of sum_{k<K} (v_k^2 + (1 - eta) a_k^2) over
    a_k >= 0 with v_0 = u_0, v_{k+1} = v_k - eta a_k, v_k >= 0: an a_k that
    would take v below 0 can be cut to stop at 0, at less cost, and there
    u_k >= v_k. This linear-quadratic problem has the value p_K v_0^2, p_0 = 0,
    p_{k+1} = 1 + p_k (1 - eta)/(1 - eta + eta^2 p_k); the recursion has the
    fixed points 1/eta and -(1 - eta)/eta, and eta p_K is the a above.
    (ii) With D_r = E||xbar_r||^2, Jensen and (i): D_{r+1} <= D_r -
    2 a E f(xbar_r), and E f(xbar_r) <= D_r/2 by smoothness. Lemma 3. QED
    For K = 1 T2 and T1 are one statement, and T1/S1 is the smaller bound.
    """
    if K == 1:
        return sharp_bound_t1(L=L, D=D, eta=eta, T=R)
    return L * D * limited_sum(round_decrease(eta * L, K), R) / R


def _sharp_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return sharp_bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        eta=setting.step_size,
        K=setting.local_steps,
        R=rounds_begun(setting, t),
    )


def last_bound(*, L: float, D: float) -> float:
    """S2: f(xbar_R) <= L D/8 for every R >= 1; full gradients, eta = 1/L, K >= 2.

    Proof (L = 1, x* = 0). f_i is the Moreau envelope of a convex phi_i >= 0
    with phi_i(0) = 0, f_i(x) = min_y phi_i(y) + ||x - y||^2/2 (f_i* - ||.||^2/2
    is convex as f_i is 1-smooth), and a step at eta = 1 is its proximal step:
    x' = x - grad f_i(x) is the minimiser y. Testing it against 0 with the
    strong convexity of the sum, ||x'||^2 <= ||x||^2 - 2 phi_i(x') -
    ||x - x'||^2, so a step lowers ||x||^2
      (a) by at least 2 phi_i(x'),   (b) by at least 2 f_i(x),
    and phi_i falls along the steps. Let y_i = x_i at the end of a round that
    began at xbar_{r-1}, m = mean_i ||y_i||^2, Phi = mean_i phi_i(y_i), D_r =
    ||xbar_r||^2. From (a) for all K steps, and from (b) for the first and (a)
    for the others,
      (c) m <= D_{r-1} - 2 K Phi,
      (d) m <= D_{r-1} - 2 f(xbar_{r-1}) - 2 (K-1) Phi.
    Testing the envelope of f_i at xbar_r with s y_i, s in [0, 1], and taking
    the mean over i, as mean_i <xbar_r, y_i> = D_r and phi_i(s y_i) <= s
    phi_i(y_i),
      (e) f(xbar_r) <= s Phi + (D_r - 2 s D_r + s^2 m)/2.
    s = 1/2 and (c): f(xbar_r) <= Phi/2 + m/8 <= D_{r-1}/8 + Phi (1/2 - K/4),
    and the last term is not positive for K >= 2; D_{r-1} <= D. QED
    For K to infinity and R = 1 it is attained in the limit
    (theory/worst_case/many_local_steps.py).
    """
    return L * D / 8


def halved_bound(*, L: float, D: float, R: int, f0: float = 0.0) -> float:
    """S3: L D/(4R) + f(x_0)/(2R) for the mean over r < R, L D/(4R) for the best of r <= R.

    Full gradients, eta = 1/L, K >= 2:
        f(xbar_0)/2 + sum_{0<r<R} f(xbar_r) + f(xbar_R)/2 <= L (D - D_R)/4,
    D_r = ||xbar_r - x*||^2. The left side is R times a weighted mean of the
    f(xbar_r), so the best of r = 0..R is at most L D/(4R), half of T2; adding
    f(x_0)/2 and dropping f(xbar_R) gives the mean over r < R. As f(x_0) <=
    L D/2 this is never above T2, and I0 attains it.

    Proof. In the proof of S2, (e) with s = 1 is D_r <= m - 2 f(xbar_r) +
    2 Phi, and with (d) D_r <= D_{r-1} - 2 f(xbar_{r-1}) - 2 f(xbar_r) -
    2 (K-2) Phi. Drop the last term, sum over r = 1..R and divide by 4. QED
    """
    return L * D / (4 * R) + f0 / (2 * R)


def _halved_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return halved_bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        R=rounds_begun(setting, t),
        f0=float(problem.global_loss(problem.start)),
    )


def _best_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return halved_bound(
        L=problem.smoothness, D=problem.initial_distance, R=rounds_begun(setting, t)
    )


# ---- the theorem ---------------------------------------------------------------------------------

_CLASS = (smooth, convex, interpolation)
_PROXIMAL = (*_CLASS, step_one_over_l, deterministic, local_steps_from(2), everyone, plain_mean)

T2_S1 = Theorem(
    name="T2/S1",
    title="global loss at synchronisation, small and large steps",
    statement="(1/R) sum_r E f(xbar_r) <= (L D/2R) (1 - (1-a)^R)/a",
    metric=SYNC_LOSS,
    order=-1.0,
    assumptions=(*_CLASS, step_below(2.0), everyone, plain_mean),
    formula=sharp_bound,
    bound=_sharp_bound,
    default_step=one_over_l,
    tightest="1 (K = 1: IH for eta <= 1/L, a quadratic beyond)",
    module=__name__,
)
T2_S2 = Theorem(
    name="T2/S2",
    title="last model, K >= 2",
    statement="f(xbar_R) <= L D/8",
    metric=LAST_LOSS,
    order=None,
    assumptions=_PROXIMAL,
    formula=last_bound,
    bound=lambda problem, _, t: last_bound(L=problem.smoothness, D=problem.initial_distance),
    default_step=one_over_l,
    tightest="1 (R = 1, K to infinity)",
    module=__name__,
)
T2_S3 = Theorem(
    name="T2/S3",
    title="global loss at synchronisation, K >= 2",
    statement="(1/R) sum_r f(xbar_r) <= L D/(4R) + f(x_0)/(2R)",
    metric=SYNC_LOSS,
    order=-1.0,
    assumptions=_PROXIMAL,
    formula=halved_bound,
    bound=_halved_bound,
    default_step=one_over_l,
    tightest="1 (I0)",
    module=__name__,
)
T2_S3_BEST = Theorem(
    name="T2/S3'",
    title="best model, K >= 2",
    statement="min_{r<=R} f(xbar_r) <= L D/(4R)",
    metric=BestAtRounds(),
    order=-1.0,
    assumptions=_PROXIMAL,
    formula=halved_bound,
    bound=_best_bound,
    default_step=one_over_l,
    rounds_to=lambda problem, eps, k: _rounds_to(problem, eps, k) / 2,
    tightest="e (I1)",
    module=__name__,
)
# At K = 1 the two averages are one: R is T.
T2_S9 = replace(
    T1_S9,
    name="T2/S9",
    title="global loss at synchronisation, K = 1, steps beyond 2/L",
    statement="(1/R) sum_r E f(xbar_r) <= D / (2 eta (1 + kappa - kappa eta L) R), K = 1",
    metric=SYNC_LOSS,
)
T2 = Theorem(
    name="T2",
    title="global loss at synchronisation, O(K/T)",
    statement="(1/R) sum_r E f(xbar_r) <= D / (2 phi eta R)",
    metric=SYNC_LOSS,
    order=-1.0,
    assumptions=(*_CLASS, step_below(2.0), cautious_server),
    formula=bound,
    bound=_bound,
    default_step=one_over_l,
    rounds_to=_rounds_to,
    sharper=(T2_S1, T2_S2, T2_S3, T2_S3_BEST, T2_S9),
    instances=(instance_0, instance_1, instance_6),
    tightest="1 (I0); last model 2e (I1)",
    module=__name__,
)

REFERENCES = """
T. Qin, S. R. Etesami, C. A. Uribe, "Faster convergence of Local SGD for
over-parameterized models" (TMLR 2024) states the rate; constants and proofs
here are this project's.
I6 beside K. K. Patel et al., "The limits and potentials of Local SGD for
distributed heterogeneous learning with intermittent communication" (COLT
2024), Proposition 7, prior art: for K >= 2, no noise and a shared optimum there are
problems on which local GD with any inner and outer step is not better than
order H B^2/R. Its family is I6's; its Lemma 8 as proved gives H B^2
exp(-12 R/kappa)/(4 kappa), about 6 times less than I6 at the best kappa.
Proximal steps as gradient steps on the Moreau envelope: J.-J. Moreau,
"Proximite et dualite dans un espace hilbertien" (1965).
"""
