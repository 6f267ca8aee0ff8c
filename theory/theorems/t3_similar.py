"""T3: with similar nodes the global loss falls as 1/T, a K-fold gain.

Statement
---------
Under A0-A3 (f_i >= c f), for any K and 0 < eta < 2/L, phi = min(1, 2 - eta L),
    (1/T) sum_{t<T} E f(xbar^t) <= D / (2 c phi eta T).

Proof
-----
f is convex and xbar^t the mean of the x_i^t, so f(xbar^t) <= (1/n) sum_i
f(x_i^t) <= (1/(c n)) sum_i f_i(x_i^t) by Jensen and A3. T1 bounds the mean of
the right side over t. QED
With m of the n nodes drawn a round, xbar^t and the means are over them.
"""

from __future__ import annotations

import numpy as np

from theory.problems.explicit import quadratic_nodes, rank_one_nodes
from theory.problems.protocols import KnowsConstants
from theory.theorems import t1_local_losses as t1
from theory.theorems.assumptions import (
    convex,
    interpolation,
    plain_mean,
    similar,
    smooth,
    step_below,
)
from theory.theorems.base import Instance, Metric, Setting, Theorem, full_setting, one_over_l
from theory.theorems.t1_local_losses import instance_0, instance_huber

GLOBAL_LOSS = Metric("global_loss", averaged=True)
LAST_LOSS = Metric("global_loss")

# ---- bound ---------------------------------------------------------------------------------------


def bound(*, L: float, D: float, c: float, eta: float, T: int) -> float:
    """D / (2 c phi eta T)."""
    return t1.bound(L=L, D=D, eta=eta, T=T) / c


def _bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        c=problem.similarity,
        eta=setting.step_size,
        T=t,
    )


# ---- communication complexity --------------------------------------------------------------------


def rounds_to(*, L: float, D: float, c: float, K: int, eps: float) -> float:
    """L D / (2 c K eps) rounds at eta = 1/L: K-fold fewer."""
    return L * D / (2 * c * K * eps)


def _rounds_to(problem: KnowsConstants, eps: float, local_steps: int) -> float:
    return rounds_to(
        L=problem.smoothness,
        D=problem.initial_distance,
        c=problem.similarity,
        K=local_steps,
        eps=eps,
    )


# ---- tight instances -----------------------------------------------------------------------------


def instance_2(rounds: int, local_steps: int = 1, smoothness: float = 1.0) -> Instance:
    """I2 (T3, c = 1): f_i(x) = (lambda/2) x^2, lambda = L/(2T + 1), eta = 1/L, x_0 = 1.
        f(x^T) = (lambda/2)(1 - lambda/L)^{2T} >= L D/(2e (2T + 1)):
    T3 over it tends to 2e.

    Proof. A step multiplies x by 1 - lambda/L, and all nodes are equal. With
    s = 1/(2T + 1), (1 - s)^{2T} >= exp(-2T s/(1 - s)) = 1/e. QED
    """
    total = local_steps * rounds
    flat = smoothness / (2 * total + 1)
    return Instance(
        problem=rank_one_nodes([[float(np.sqrt(flat))]], [1.0], smoothness, "I2"),
        setting=full_setting(1.0 / smoothness, local_steps, rounds),
        theorem="T3",
        metric=LAST_LOSS,
        value=0.5 * flat * float(np.exp(2 * total * np.log1p(-flat / smoothness))),
        limit=2 * np.e,
    )


def instance_5(
    rounds: int,
    local_steps: int = 1,
    similarity: float = 0.1,
    smoothness: float = 1.0,
    step_factor: float = 1.0,
) -> Instance:
    """I5 (T2 and T3 at once): tight in c and K; local steps pay from K about 1/c on.

    n = 2, d = 2, full gradients, eta = step_factor/L <= 1/L, c in [0, 1]. With
    p = c(2 - c), N = 2((1 - p) R + p T) + 1, s = (1 - p)/N, l = p/N and
    a_1, a_2 = (sqrt(1 - s), +-sqrt(s)),
        H_i = L ((1 - l) a_i a_i' + l I),  f_i = x'H_i x/2,  x_0 = (0, 1).
    A3 holds with this c (c = 0 is I1, c = 1 is I2), and
        f(xbar_R) = (L/2)((1 - l) s + l) (s q_1 + (1 - s) q_2)^{2R},
    q_1 = (1 - eta L)^K, q_2 = (1 - eta L l)^K, is at least
        L D (1 - 1/(4N)) / (2e N).
    With T2 and T3 the rounds to accuracy eps are of the order
    L D/(eps max(1, c K)) in both directions, as N <= 6 R max(1, c K) + 1.
    The smaller of the two bounds over the value tends to
    2e ((1 - p) + p K)/max(1, c K) <= 6e for many rounds at eta = 1/L.

    Proof. Values: H_i has the eigenvalue L along a_i and L l across it, so K
    steps multiply these parts by q_1 and q_2, and x becomes q_2 x + (q_1 - q_2)
    a_i a_i'x. The mean of the a_i a_i' is diag(1 - s, s), so a round maps
    (0, y) to (0, (s q_1 + (1 - s) q_2) y), and f(0, y) = (L/2)((1 - l) s + l)
    y^2: the closed form. As q_1 >= 0 and q_2 >= (1 - l)^K it is at least
    (L/2)(s + l - l s)(1 - s)^{2R} (1 - l)^{2T}. s + l = 1/N and l s <=
    1/(4N^2) give the factor (1/N)(1 - 1/(4N)). 1 - s >= exp(-s/(1 - s)),
    s/(1 - s) = (1 - p)/(N - 1 + p) <= (1 - p)/(N - 1), l/(1 - l) <=
    p/(N - 1), so the two powers are at least exp(-(2R(1 - p) + 2T p)/(N - 1))
    = 1/e.
    Similarity (L = 1): H = diag(h_1, h_2), h_1 = (1 - l)(1 - s) + l, h_2 =
    (1 - l) s + l, and H_i - H has (1 - l) sqrt(s(1 - s)) off its diagonal and
    0 on it. So the eigenvalues of (H_i, H) are 1 +- sqrt(1 - p'), 1 - p' =
    (1 - l)^2 s(1 - s)/(h_1 h_2), and h_1 h_2 = (1 - l)^2 s(1 - s) + l. Then
    p' >= p iff l(1 - p) >= p (1 - l)^2 s(1 - s), which is 1 >= (1 - l)^2
    (1 - s). The least eigenvalue is at least 1 - sqrt(1 - p) = c. QED
    """
    c, total = similarity, local_steps * rounds
    p = c * (2 - c)
    count = 2 * ((1 - p) * rounds + p * total) + 1
    s, low = (1 - p) / count, p / count
    crossed = np.array([[np.sqrt(1 - s), np.sqrt(s)], [np.sqrt(1 - s), -np.sqrt(s)]])
    outer = crossed[:, :, None] * crossed[:, None, :]
    hessians = smoothness * ((1 - low) * outer + low * np.eye(2))
    across = np.log1p(-step_factor * low) * local_steps if step_factor * low < 1 else -np.inf
    factor = s * (1 - step_factor) ** local_steps + (1 - s) * np.exp(across)
    curvature = smoothness * ((1 - low) * s + low)
    gain = max(1.0, c * local_steps)
    return Instance(
        problem=quadratic_nodes(hessians, np.array([0.0, 1.0]), smoothness * (1 + 1e-12), "I5"),
        setting=full_setting(step_factor / smoothness, local_steps, rounds),
        theorem="T3" if c * local_steps > 1 else "T2",
        metric=LAST_LOSS,
        value=float(0.5 * curvature * factor ** (2 * rounds)),
        limit=float(2 * np.e * ((1 - p) + p * local_steps) / gain),
    )


def least_similar_loss(*, L: float, D: float, c: float, K: int, R: int) -> float:
    """L D (1 - 1/(4N))/(2eN), N = 2((1-p)R + pKR) + 1, p = c(2-c): I5's lower bound on f(xbar_R)."""
    p = c * (2 - c)
    count = 2 * ((1 - p) * R + p * K * R) + 1
    return float(L * D * (1 - 1 / (4 * count)) / (2 * np.e * count))


# ---- sharper -------------------------------------------------------------------------------------


def sharp_bound(*, L: float, D: float, c: float, eta: float, T: int) -> float:
    """S1 for T3: the bound of T1/S1 over c, exact at c = 1 for every step size.

    Proof. The proof of T3 with T1/S1 for T1; at c = 1 its instances have equal
    nodes, for which f(xbar^t) is the mean of the f_i(x_i^t). QED
    """
    return t1.sharp_bound(L=L, D=D, eta=eta, T=T) / c


def _sharp_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return sharp_bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        c=problem.similarity,
        eta=setting.step_size,
        T=t,
    )


# ---- the theorem ---------------------------------------------------------------------------------

_HYPOTHESES = (smooth, convex, interpolation, similar, step_below(2.0), plain_mean)

T3_S1 = Theorem(
    name="T3/S1",
    title="global loss of similar nodes, small and large steps",
    statement="(1/T) sum_t E f(xbar^t) <= L D / (2 c (1 + eta L (T - 1))), eta <= 1/L",
    metric=GLOBAL_LOSS,
    order=-1.0,
    assumptions=_HYPOTHESES,
    formula=sharp_bound,
    bound=_sharp_bound,
    default_step=one_over_l,
    instances=(instance_huber,),
    tightest="1 at c = 1 (IH for eta <= 1/L, a quadratic beyond)",
    module=__name__,
)
T3 = Theorem(
    name="T3",
    title="global loss of similar nodes, O(1/T)",
    statement="(1/T) sum_t E f(xbar^t) <= D / (2 c phi eta T)",
    metric=GLOBAL_LOSS,
    order=-1.0,
    assumptions=_HYPOTHESES,
    formula=bound,
    bound=_bound,
    default_step=one_over_l,
    rounds_to=_rounds_to,
    sharper=(T3_S1,),
    instances=(instance_0, instance_2, instance_5),
    tightest="1 (I0, c = 1); last model 2e (I2), 6e for every c (I5)",
    module=__name__,
)

REFERENCES = """
T. Qin, S. R. Etesami, C. A. Uribe, "Faster convergence of Local SGD for
over-parameterized models" (TMLR 2024) states the rate under a mild similarity
assumption; the assumption A3, constants and proof here are this project's.
"""
