"""T7: sampling m of the n clients costs nothing in any of these bounds.

Statement
---------
Every round a set M of m of the n nodes is drawn uniformly without
replacement, afresh and independently of the past; they start from xbar_r,
take their local steps, and xbar_{r+1} is the mean of their models (beta = 1).
For every m >= 1 the bounds of T1, T2, T3, T4, T4' and T6 hold unchanged, under
the assumptions of each, where the means over nodes at an iteration are over
the clients of its round. T7 itself, for T2: under A0-A2 and 0 < eta < 2/L,
    (1/R) sum_{r<R} E f(xbar_r) <= D / (2 phi eta R).

Proof
-----
Let E_r be the expectation given xbar_r, over M and the samples of the round.
Each node's local path, if it is a client, has a law that does not depend on
M, so by symmetry of the draw, for any function h_i of node i's path,
    (a)  E_r (1/m) sum_{i in M} h_i = (1/n) sum_i E_r h_i.
T1, T2, T3. Lemma 2 with beta = 1 and Q <= P: ||xbar_{r+1} - x*||^2 <=
||xbar_r - x*||^2 - 2 eta phi S. Sum over r, expectation: 2 eta phi
sum_r E S_r <= D, S_r = (1/m) sum_{i in M} sum_k l_i^k. This is T1, the means
over clients, as E l_i^k = E f_i(x_i^k). By (a) the terms with k = 0 have the
mean (1/n) sum_i f_i(xbar_r) = f(xbar_r), and the others are at least 0: T2.
With A3, f at the mean of the clients' models is at most the mean over clients
of f, and f <= f_i/c: T3.
T4, T4'. The square is convex: ||xbar_{r+1} - x*||^2 is at most the mean over M
of ||x_i - x*||^2, whose expectation by (a) is the mean over all nodes of what
K local steps make of ||xbar_r - x*||^2. That mean is what the proofs of T4 and
T4' bound: by (1 - eta mu)^K or by 1 - eta mu times ||xbar_r - x*||^2.
T6. Its proof uses of the round E_r of the mean over nodes of g_i^k and of
||g_i^k||^2, and that the square of a mean is at most the mean of the squares;
by (a) the first two are the same over clients. QED
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from theory.problems.margin import MarginProblem
from theory.problems.protocols import KnowsConstants
from theory.theorems.assumptions import cautious_server, everyone, plain_mean
from theory.theorems.base import Assumption, Hypothesis, Instance, Metric, Setting, Theorem
from theory.theorems.t1_local_losses import T1
from theory.theorems.t2_synchronised import T2, bound, rounds_to
from theory.theorems.t3_similar import T3
from theory.theorems.t4_linear import T4, T4_GLOBAL
from theory.theorems.t6_nonconvex import T6

__all__ = ["T7", "T7_FAMILY", "bound", "instance_axes", "rounds_to"]

# ---- assumption ----------------------------------------------------------------------------------


def uniform_clients(problem: KnowsConstants, setting: Setting) -> Assumption:
    """clients: m of the n nodes, 1 <= m <= n, drawn uniformly without replacement, afresh each round."""
    m, n = setting.participants, problem.n_nodes
    ok = m is None or 1 <= m <= n
    return Assumption("clients", ok, f"m = {n if m is None else m}, allowed: 1 to {n}")


# ---- how it is checked ---------------------------------------------------------------------------


def half_of_the_nodes(problem: KnowsConstants, setting: Setting) -> Setting:
    """Half of the nodes a round, rounded up."""
    return replace(setting, participants=-(-problem.n_nodes // 2))


def half_if_stochastic(problem: KnowsConstants, setting: Setting) -> Setting:
    """Half of the nodes a round, rounded up; all of them where full gradients leave nothing to chance."""
    return setting if setting.gradient == "full" else half_of_the_nodes(problem, setting)


# ---- tight instances -----------------------------------------------------------------------------


def instance_axes(
    rounds: int,
    local_steps: int = 1,
    smoothness: float = 1.0,
    n_nodes: int = 4,
    clients: int = 1,
) -> Instance:
    """I7 (T7 for T4'): each node holds one axis, f_i(x) = (L/2) x_i^2, d = n, eta = 1/L.

    E||xbar_R - x*||^2 = (1 - (2 - 1/m)/n)^R D, and T4' says (1 - 1/n)^R D: with
    one client a round (m = 1) it holds with equality, for every K.

    Proof. f has the growth mu = L/n. The first local step takes x_i to 0 and
    the others keep it there. With probability m/n node i is a client, and then
    the mean of the m models has x_i (1 - 1/m) in coordinate i; else x_i. So
    E x_i^2 is multiplied by 1 - (m/n)(1 - (1 - 1/m)^2) = 1 - (2 - 1/m)/n. QED
    """
    rows = np.sqrt(smoothness) * np.eye(n_nodes)
    problem = MarginProblem(
        [row[None] for row in rows],
        [np.zeros(1)] * n_nodes,
        start=np.full(n_nodes, n_nodes**-0.5),
        name="I7",
        heterogeneity="instance",
    )
    kept = np.log1p(-(2 - 1 / clients) / n_nodes)
    return Instance(
        problem=problem,
        setting=Setting(
            step_size=1.0 / smoothness,
            local_steps=local_steps,
            rounds=rounds,
            participants=clients,
        ),
        theorem="T7/T4'",
        metric=Metric("distance"),
        value=float(np.exp(rounds * kept)),
        limit=float(np.exp(rounds * (np.log1p(-1 / n_nodes) - kept))),
    )


# ---- the theorems --------------------------------------------------------------------------------


def _with_clients(theorem: Theorem) -> Theorem:
    """The theorem for m of the n nodes and the plain mean."""
    others: tuple[Hypothesis, ...] = tuple(
        h for h in theorem.assumptions if h not in (cautious_server, plain_mean, everyone)
    )
    return replace(
        theorem,
        name=f"T7/{theorem.name}",
        title=f"sampled clients: {theorem.title}",
        assumptions=(*others, uniform_clients, plain_mean),
        setting=half_of_the_nodes,
        sharper=(),
        instances=(instance_axes,) if theorem is T4_GLOBAL else (),
        tightest="1 (I7, m = 1)" if theorem is T4_GLOBAL else "1 (I0)",
        module=__name__,
    )


T7_FAMILY: tuple[Theorem, ...] = tuple(_with_clients(t) for t in (T1, T2, T3, T4, T4_GLOBAL, T6))
T7 = replace(
    T7_FAMILY[1], name="T7", title="sampled clients: T2 for every m", instances=(instance_axes,)
)

REFERENCES = """
Client sampling: H. B. McMahan et al., "Communication-efficient learning of
deep networks from decentralized data" (AISTATS 2017). That it costs nothing
under interpolation is (a) and Jensen's inequality; no source claimed.
"""
