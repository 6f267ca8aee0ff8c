"""T8: outer steps of the server, fixed, extrapolated and Polyak's.

Statement
---------
xbar_{r+1} = xbar_r + beta_r Delta, Delta the mean of the clients' changes;
P, Q, S as in Lemma 2, m >= 1 clients a round as in T7. Under A0-A2 and
0 < eta < 2/L, phi = min(1, 2 - eta L):
T8a (fixed beta in (0, 1]). T1 and T2 with their bounds times 1/beta:
    (1/R) sum_{r<R} E f(xbar_r) <= D / (2 phi eta beta R).
T8b (extrapolation, max(1, P/(2Q)) <= beta_r <= max(1, P/Q)). On every path
    sum_{r<R} beta_r S_r <= D / (2 phi eta);
as beta_r >= 1, T0, T1 and T2 hold as they are, and with full gradients at all
nodes (T8b')
    min_{r<R} f(xbar_r) <= D / (2 phi eta sum_{r<R} beta_r).
T8c (Polyak's, beta_r = (P + 2 eta phi S)/(2Q)). On every path
    sum_{r<R} (P + 2 eta phi S)^2 / (4Q) <= D,
and each term is at least 2 eta phi S_r P/Q: T0, T1 and T2 hold as they are.
It needs the losses, whose minimum must be 0.

Proof
-----
T8a. Q <= P and beta <= 1, so beta (P - beta Q) >= 0 and Lemma 2 is
||xbar_{r+1} - x*||^2 <= ||xbar_r - x*||^2 - 2 beta eta phi S. Sum over r, and
take the expectation as in T7.
T8b. For beta <= P/Q again beta (P - beta Q) >= 0, and P/Q >= 1. Where Q = 0
nothing moves, and Lemma 2 for every beta says beta P + 2 beta eta phi S <= 0:
P = S = 0, and any beta will do; we take 1. Sum over r. With full gradients at
all nodes S_r is at least its first terms' mean, f(xbar_r), and the least of the
f(xbar_r) times sum beta_r is at most sum beta_r f(xbar_r).
T8c. The right side of Lemma 2 is a quadratic in beta, least at this beta_r,
where it falls by (P + 2 eta phi S)^2/(4Q). Sum over r. By (a + b)^2 >= 4ab the
term is at least 2 eta phi S P/Q. QED
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from theory.problems.explicit import rank_one_nodes
from theory.problems.protocols import KnowsConstants
from theory.theorems import t2_synchronised
from theory.theorems.assumptions import (
    EXTRAPOLATIONS,
    convex,
    deterministic,
    everyone,
    interpolation,
    outer_factor,
    phi,
    smooth,
    step_below,
)
from theory.theorems.base import (
    Adapted,
    Assumption,
    BestAtRounds,
    Hypothesis,
    Instance,
    Measured,
    RoundMetric,
    Rounds,
    Setting,
    Theorem,
    one_over_l,
    rounds_begun,
)
from theory.theorems.t0_every_path import knows_batch_losses
from theory.theorems.t2_synchronised import instance_1
from theory.theorems.t7_client_sampling import half_if_stochastic, uniform_clients

Array = NDArray[np.float64]

# ---- what is measured ----------------------------------------------------------------------------


def _extrapolated_losses(rounds: Rounds, distances: Array) -> Array:
    return np.asarray((rounds.outer_step * rounds.loss).mean(axis=-1))


def _polyak_decreases(rounds: Rounds, distances: Array) -> Array:
    # (P + 2 eta phi S)^2/(4Q) = beta^2 Q.
    return np.asarray((rounds.outer_step**2 * rounds.square_mean).mean(axis=-1))


# Means over the rounds of a path, (1/R) sum_r.
EXTRAPOLATED_LOSS = RoundMetric("mean of beta_r S_r", of=_extrapolated_losses)
POLYAK_DECREASE = RoundMetric("mean of (P + 2 eta phi S)^2/(4Q)", of=_polyak_decreases)

# ---- assumptions ---------------------------------------------------------------------------------


def fixed_below_one(_: KnowsConstants, setting: Setting) -> Assumption:
    """outer step: a fixed beta in (0, 1]."""
    beta = setting.outer_step
    ok = not isinstance(beta, str) and 0 < beta <= 1
    return Assumption("outer step", ok, f"beta = {beta}, allowed: 0 < beta <= 1")


def rules(*allowed: str) -> Hypothesis:
    """outer step: one of the rules named."""

    def check(_: KnowsConstants, setting: Setting) -> Assumption:
        ok = setting.outer_step in allowed
        reason = f"beta = {setting.outer_step}, allowed: {', '.join(allowed)}"
        return Assumption("outer step", ok, reason)

    check.__doc__ = f"outer step: by the rule {' or '.join(allowed)}."
    return check


# ---- bounds --------------------------------------------------------------------------------------


def bound_fixed(*, L: float, D: float, eta: float, R: int, beta: float) -> float:
    """T8a: D / (2 phi eta beta R)."""
    return t2_synchronised.bound(L=L, D=D, eta=eta, R=R, beta=beta)


def bound_extrapolated(*, L: float, D: float, eta: float, R: int) -> float:
    """T8b: D / (2 phi eta R), for the mean over rounds of beta_r S_r."""
    return D / (2 * phi(eta * L) * eta * R)


def bound_polyak(*, D: float, R: int) -> float:
    """T8c: D / R, for the mean over rounds of (P + 2 eta phi S)^2/(4Q)."""
    return D / R


def _bound_fixed(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound_fixed(
        L=problem.smoothness,
        D=problem.initial_distance,
        eta=setting.step_size,
        R=rounds_begun(setting, t),
        beta=outer_factor(setting),
    )


def _bound_extrapolated(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound_extrapolated(
        L=problem.smoothness,
        D=problem.initial_distance,
        eta=setting.step_size,
        R=rounds_begun(setting, t),
    )


def _bound_polyak(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound_polyak(D=problem.initial_distance, R=rounds_begun(setting, t))


def path_bound_best(problem: KnowsConstants, setting: Setting, result: Measured) -> Array:
    """T8b': D / (2 phi eta sum_r beta_r), with the beta_r of the path."""
    rounds: Rounds = getattr(result, "round_record")  # noqa: B009
    whole = _bound_extrapolated(problem, setting, setting.iterations)
    return np.asarray(whole / rounds.outer_step[0].mean(axis=-1))


# ---- communication complexity --------------------------------------------------------------------


def rounds_to(*, L: float, D: float, eps: float, beta: float) -> float:
    """T8a: L D / (2 beta eps) rounds at eta = 1/L for a fixed beta <= 1; no closed form otherwise."""
    return L * D / (2 * beta * eps)


# ---- how they are checked ------------------------------------------------------------------------


def _server(outer_step: float | str) -> Adapted:
    def adapted(problem: KnowsConstants, setting: Setting) -> Setting:
        chosen = replace(setting, outer_step=outer_step)
        return half_if_stochastic(problem, chosen)

    return adapted


# ---- tight instances -----------------------------------------------------------------------------


def instance_damped(
    rounds: int, local_steps: int = 1, smoothness: float = 1.0, beta: float = 0.5
) -> Instance:
    """I8 (T8a within a factor 2 - beta): f(x) = (L/2) x^2, eta = 1/L, x_0 = 1, a fixed beta.

    Proof. A round multiplies x by 1 - beta, so (1/R) sum_r f(xbar_r) =
    (L/2R)(1 - (1-beta)^{2R})/(beta (2 - beta)), and T8a is L/(2 beta R). QED
    """
    remaining = (1 - beta) ** (2 * rounds)
    return Instance(
        problem=rank_one_nodes([[float(np.sqrt(smoothness))]], [1.0], smoothness, "I8"),
        setting=Setting(
            step_size=1.0 / smoothness,
            local_steps=local_steps,
            rounds=rounds,
            gradient="full",
            outer_step=beta,
        ),
        theorem="T8a",
        metric=t2_synchronised.SYNC_LOSS,
        value=0.5 * smoothness / rounds * (1 - remaining) / (beta * (2 - beta)),
        limit=2 - beta,
    )


def _crossing(
    theorem: str, metric: RoundMetric, rule: str, value: Callable[[float], float]
) -> Callable[..., Instance]:
    def maker(
        rounds: int, local_steps: int = 1, smoothness: float = 1.0, spread: float = 0.01
    ) -> Instance:
        first = instance_1(rounds, local_steps, smoothness, spread=spread)
        setting = replace(first.setting, outer_step=rule)
        return replace(
            first,
            setting=setting,
            theorem=theorem,
            metric=metric,
            value=value(smoothness) / rounds,
            limit=1.0,
        )

    maker.__doc__ = f"""I1 ({theorem} with equality), outer step {rule}: it ends in one round.

    Proof. At eta = 1/L node i's first step takes x_0 = (0, 1) to x_0 -
    (a_i'x_0) a_i, where its loss is 0, and it stays. (a_i'x_0)^2 = s, so P = s,
    S = L s/2; the mean change is (0, -s), Q = s^2. P/Q = 1/s, and
    (P + 2 eta S)/(2Q) = 2s/(2 s^2) = 1/s: both rules end at (0, 1) - (1/s)(0, s)
    = x*. There P = Q = S = 0. So sum beta_r S_r = L/2 = L D/2, and
    (P + 2 eta S)^2/(4Q) = 4 s^2/(4 s^2) = 1 = D. QED
    """
    maker.__name__ = f"instance_crossing_{theorem}"
    return maker


instance_extrapolated = _crossing(
    "T8b", EXTRAPOLATED_LOSS, "extrapolated", lambda smoothness: smoothness / 2
)
instance_polyak = _crossing("T8c", POLYAK_DECREASE, "polyak", lambda _: 1.0)

# ---- the theorems --------------------------------------------------------------------------------

_CLASS = (smooth, convex, interpolation, step_below(2.0))

T8A = Theorem(
    name="T8a",
    title="fixed outer step, global loss at synchronisation",
    statement="(1/R) sum_r E f(xbar_r) <= D / (2 phi eta beta R), 0 < beta <= 1",
    metric=t2_synchronised.SYNC_LOSS,
    order=-1.0,
    assumptions=(*_CLASS, uniform_clients, fixed_below_one),
    formula=bound_fixed,
    bound=_bound_fixed,
    default_step=one_over_l,
    setting=_server(0.5),
    instances=(instance_damped,),
    tightest="2 - beta (I8)",
    module=__name__,
)
T8B = Theorem(
    name="T8b",
    title="extrapolated outer step, every sample path",
    statement="(1/R) sum_r beta_r S_r <= D / (2 phi eta R), with probability one",
    metric=EXTRAPOLATED_LOSS,
    order=-1.0,
    assumptions=(
        *_CLASS,
        uniform_clients,
        rules(*EXTRAPOLATIONS[:2]),
        knows_batch_losses,
    ),
    formula=bound_extrapolated,
    bound=_bound_extrapolated,
    default_step=one_over_l,
    setting=_server("extrapolated"),
    every_path=True,
    reads_rounds=True,
    instances=(instance_extrapolated,),
    tightest="1 (I1, every s)",
    module=__name__,
)
T8B_BEST = Theorem(
    name="T8b'",
    title="extrapolated outer step, best model, full gradients",
    statement="min_{r<=R} f(xbar_r) <= D / (2 phi eta sum_r beta_r)",
    metric=BestAtRounds(),
    order=-1.0,
    assumptions=(*_CLASS, everyone, rules(*EXTRAPOLATIONS[:2]), deterministic),
    formula=bound_extrapolated,
    bound=_bound_extrapolated,
    default_step=one_over_l,
    setting=_server("extrapolated"),
    every_path=True,
    reads_rounds=True,
    path_bound=path_bound_best,
    tightest="none known",
    module=__name__,
)
T8C = Theorem(
    name="T8c",
    title="Polyak's outer step, every sample path",
    statement="(1/R) sum_r (P + 2 eta phi S)^2/(4Q) <= D / R, with probability one",
    metric=POLYAK_DECREASE,
    order=-1.0,
    assumptions=(*_CLASS, uniform_clients, rules("polyak"), knows_batch_losses),
    formula=bound_polyak,
    bound=_bound_polyak,
    default_step=one_over_l,
    setting=_server("polyak"),
    every_path=True,
    reads_rounds=True,
    instances=(instance_polyak,),
    tightest="1 (I1, every s)",
    module=__name__,
)

REFERENCES = """
Extrapolation by P/Q: G. Pierra, "Decomposition through formalization in a
product space", Mathematical Programming 28 (1984), for projections onto convex
sets. Half of it as a server's step: D. Jhunjhunwala, S. Wang, G. Joshi,
"FedExP: speeding up federated averaging via extrapolation" (ICLR 2023).
Polyak's step length: B. T. Polyak, "Introduction to Optimization" (1987).
"""
