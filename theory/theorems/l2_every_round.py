"""L2: Lemma 2 on every round of every sample path: what a round of FedAvg does, at least.

Statement
---------
Under A0-A2, for any K_i <= K, 0 < eta < 2/L, any set M of clients, any order
of the samples and any outer step beta > 0, which may depend on all that the
clients report, with P = mean ||Delta_i||^2, Q = ||mean Delta_i||^2 and S the
mean of the sums of the losses of the batches used, means over M,
    ||xbar_{r+1} - x*||^2 + beta (P - beta Q) + 2 beta eta phi S
        <= ||xbar_r - x*||^2
with probability one, in every round. No expectation is taken, so a check has
no sampling error. The same with convex weights in all three means.

Proof
-----
Lemma 2, assumptions.py. It fixes neither M nor beta before the reports are
seen: the inequality holds for each outcome on its own. With weights w_i of
the clients, the mean in its proof is the weighted one. QED
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from theory.problems.protocols import KnowsConstants
from theory.theorems.assumptions import convex, interpolation, smooth, step_below
from theory.theorems.base import Instance, RoundMetric, Rounds, Setting, Theorem, one_over_l
from theory.theorems.t0_every_path import knows_batch_losses
from theory.theorems.t1_local_losses import instance_0
from theory.theorems.t7_client_sampling import half_if_stochastic

Array = NDArray[np.float64]

# Below this share of D a squared distance, which rounding moves by up to 1e-17 D, has too few digits
# left to compare rounds to nine of them.
RESOLVED = 1e-7


def worst_round(rounds: Rounds, distances: Array) -> Array:
    """max_r (||xbar_{r+1} - x*||^2 + decrease_r) / ||xbar_r - x*||^2, (step sizes, seeds).

    Rounds that begin with less than RESOLVED of D are left out.
    """
    before, after = distances[..., :-1], distances[..., 1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        quotients = (after + rounds.decrease) / before
    kept = np.where(before > RESOLVED * distances[..., :1], quotients, 0.0)
    # A diverged round is worse than any bound.
    return np.asarray(np.nan_to_num(kept, nan=np.inf).max(axis=-1))


WORST_ROUND = RoundMetric("worst round", of=worst_round)

# ---- bound ---------------------------------------------------------------------------------------


def bound() -> float:
    """1: after a round, distance and certified decrease are at most the distance before."""
    return 1.0


# ---- how it is checked ---------------------------------------------------------------------------


def some_clients_extrapolated(problem: KnowsConstants, setting: Setting) -> Setting:
    """Half of the nodes a round (all, with full gradients) and the extrapolated outer step."""
    return replace(
        half_if_stochastic(problem, setting),
        outer_step="extrapolated",
    )


# ---- tight instances -----------------------------------------------------------------------------


def instance_equality(rounds: int, local_steps: int = 1, smoothness: float = 1.0) -> Instance:
    """I0 (L2 with equality): f(x) = (L/2) x^2, eta = 1/L, x_0 = 1, n = 1.

    Proof. The first step lands on x* = 0: P = Q = D, S = L D/2 and beta = 1,
    so the left side is 0 + 0 + 2 (1/L)(L D/2) = D. QED
    """
    return replace(
        instance_0("T1", rounds, local_steps, smoothness),
        theorem="L2",
        metric=WORST_ROUND,
        value=1.0,
        limit=1.0,
    )


# ---- the theorem ---------------------------------------------------------------------------------

LEMMA_2 = Theorem(
    name="L2",
    title="every round of every path, any clients, any outer step",
    statement=(
        "max_r (||xbar_{r+1} - x*||^2 + beta (P - beta Q) + 2 beta eta phi S) / ||xbar_r - x*||^2 <= 1"
    ),
    metric=WORST_ROUND,
    order=None,
    assumptions=(smooth, convex, interpolation, step_below(2.0), knows_batch_losses),
    formula=bound,
    bound=lambda problem, setting, t: bound(),
    default_step=one_over_l,
    setting=some_clients_extrapolated,
    every_path=True,
    reads_rounds=True,
    instances=(instance_equality,),
    tightest="1 (I0)",
    module=__name__,
)

REFERENCES = """
The inequality for projections onto convex sets, with M all nodes and beta the
extrapolation P/Q: G. Pierra, "Decomposition through formalization in a
product space", Mathematical Programming 28 (1984).
"""
