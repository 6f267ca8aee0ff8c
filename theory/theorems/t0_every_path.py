"""T0: the batch losses that training itself sees fall as 1/T on every sample path.

Statement
---------
Let l_i^t be the loss, at x_i^t, of the very batch that node i uses at
iteration t (0 at iterations at which it waits). Then with probability one,
for any order of the samples (with or without replacement, reshuffled,
adversarial), any K_i <= K, and the plain mean or any doubly stochastic mixing
in its place,
    (1/T) sum_{t<T} (1/n) sum_i l_i^t
        <= (D - (1/n) sum_i ||x_i^T - x*||^2) / (2 phi eta T),
phi = min(1, 2 - eta L). No expectation is taken, so a check on a path has no
sampling error; T1 is its expectation, as l_i^t is an unbiased estimate of
f_i(x_i^t) under uniform sampling.
T0' is the same for separable data, whose minimum 0 is not attained: for every
s >= 0 and the unit w of margin gamma, u = s w,
    (1/T) sum_{t<T} (1/n) sum_i l_i^t
        <= ||x_0 - u||^2/(2 eta T) + log(1 + exp(-gamma s))/(1 - eta L).

Proof
-----
T0. Lemma 1 holds for the batch's mean loss, which is convex, L-smooth and 0
at x*: node i's step lowers ||x_i - x*||^2 by at least 2 eta phi l_i^t. The
mean over nodes of ||x_i - x*||^2 falls by at least the mean of that, and
averaging does not raise it (Jensen; for x_i <- sum_j W_ij x_j the columns of W
must sum to 1, too). Sum over t: the sum of the means of
2 eta phi l_i^t is at most D minus the mean squared distance at T. QED
T0'. T5/S6's one-step inequality (t5_separable.py) holds for the batch's mean
loss, with the comparator's loss on that batch, which is at most log(1 +
exp(-gamma s)) for every batch: each of its margins at u is at least gamma s.
Telescope as before. QED
Unequal weights w_i in the average need the same weights in the means over
nodes, and give the same bound with them. Without them it is false: n = 2,
f_1 = 0 and w = (1, 0) put node 2 back to x_0 after every round.
With an outer step (Lemma 2) a round lowers ||xbar - x*||^2 by at least
2 beta eta phi S for every beta <= P/Q, so the sum of the batch losses is at
most D/(2 eta phi beta) for a fixed beta <= 1, and D/(2 eta phi) for the
extrapolating rules, whose beta is at least 1. The means are then over the
clients of the round.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from theory.problems.protocols import KnowsConstants
from theory.theorems import t5_separable
from theory.theorems.assumptions import (
    cautious_server,
    convex,
    interpolation,
    outer_factor,
    phi,
    plain_mean,
    separable,
    smooth,
    step_below,
)
from theory.theorems.base import (
    Assumption,
    Measured,
    Metric,
    Setting,
    Theorem,
    half_over_l,
    one_over_l,
)
from theory.theorems.t1_local_losses import T1_S1, bound, instance_0

BATCH_LOSS = Metric("batch_loss", averaged=True)


def knows_batch_losses(problem: KnowsConstants, setting: Setting) -> Assumption:
    """record: the problem can tell the loss of the batch that a step uses."""
    ok = setting.gradient == "full" or hasattr(problem, "sample_losses")
    return Assumption("record", ok, "known" if ok else "the problem has no sample_losses")


# ---- bound ---------------------------------------------------------------------------------------


def _bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound(
        L=problem.smoothness,
        D=problem.initial_distance,
        eta=setting.step_size,
        T=t,
        beta=outer_factor(setting),
    )


def path_bound(problem: KnowsConstants, setting: Setting, result: Measured) -> NDArray[np.float64]:
    """The right side with the distance that is left at T, for each path, (seeds,).

    With an outer step the distance left is that of xbar_R (Lemma 2).
    """
    left = Metric("local_distance").read(result)
    travelled = problem.initial_distance - left
    share = phi(setting.step_size * problem.smoothness)
    scale = 2 * share * setting.step_size * setting.iterations * outer_factor(setting)
    return np.asarray(travelled / scale)


def _bound_separable(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return t5_separable.best_sharp_bound(problem, setting, distance_count=t, loss_count=1)


# ---- the theorems --------------------------------------------------------------------------------

T0_S1 = replace(
    T1_S1,
    name="T0/S1",
    title="batch losses, exact at every step size, every sample path",
    statement="(1/T) sum_t (1/n) sum_i l_i^t <= L D / (2 (1 + eta L (T - 1))), eta <= 1/L",
    metric=BATCH_LOSS,
    assumptions=(*T1_S1.assumptions, knows_batch_losses),
    every_path=True,
    module=__name__,
)
T0 = Theorem(
    name="T0",
    title="batch losses, O(1/T), every sample path",
    statement="(1/T) sum_t (1/n) sum_i l_i^t <= D / (2 phi eta T), with probability one",
    metric=BATCH_LOSS,
    order=-1.0,
    assumptions=(
        smooth,
        convex,
        interpolation,
        step_below(2.0),
        cautious_server,
        knows_batch_losses,
    ),
    formula=bound,
    bound=_bound,
    default_step=one_over_l,
    every_path=True,
    path_bound=path_bound,
    sharper=(T0_S1,),
    instances=(instance_0,),
    tightest="1 (I0)",
    module=__name__,
)
T0_SEPARABLE = Theorem(
    name="T0'",
    title="separable data, batch losses, every sample path",
    statement=(
        "(1/T) sum_t (1/n) sum_i l_i^t <= ||x_0 - u||^2/(2 eta T) "
        "+ log(1 + exp(-gamma s))/(1 - eta L), u = s w"
    ),
    metric=BATCH_LOSS,
    order=-1.0,
    assumptions=(smooth, convex, separable, step_below(1.0), plain_mean, knows_batch_losses),
    formula=t5_separable.sharp_bound,
    bound=_bound_separable,
    default_step=half_over_l,
    every_path=True,
    tightest="none known",
    module=__name__,
)

REFERENCES = """
The every-path form is this project's reading of its own T1. For one node it is
a regret bound of gradient descent on smooth non-negative losses that share a
minimiser; such bounds are due to N. Srebro, K. Sridharan, A. Tewari,
"Smoothness, low noise and fast rates" (NeurIPS 2010).
"""
