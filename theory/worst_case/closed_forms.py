"""Closed forms beside which the exact worst cases are put: bounds, sharper bounds, instances.

All at L = 1 and ||x_0 - x*|| = 1, so ``step_size`` is eta L and values are in units of L D (of D for a
distance). Each instance is an explicit problem of the class, so its value is a lower bound on the
worst case; a bound is an upper one.
"""

from __future__ import annotations

from theory.worst_case.reduction import Schedule

#: What each metric belongs to; "T3" is T1 with all f_i equal, "T4" needs growth.
THEOREMS = {
    "last": "C1",
    "best": "C1",
    "average_sync": "T2",
    "average_local": "T1",
    "distance": "T4",
}


def theorem_of(schedule: Schedule) -> str:
    """T1, T2, T3 (all f_i equal), T4 (A4), T4' (A4') or C1 (last and best iterate)."""
    if schedule.metric == "average_local" and schedule.one_node:
        return "T3"
    if schedule.metric == "distance" and schedule.growth_of == "mean":
        return "T4'"
    return THEOREMS[schedule.metric]


def bound(schedule: Schedule) -> float | None:
    """The bound of T1-T4; T2's for the best iterate (min <= mean); None where there is none."""
    eta, rounds = schedule.step_size, schedule.rounds
    total = schedule.local_steps * rounds
    phi = min(1.0, 2.0 - eta)
    if schedule.metric == "average_local":
        return 1.0 / (2 * phi * eta * total)
    if schedule.metric in ("average_sync", "best"):
        return 1.0 / (2 * phi * eta * rounds)
    if schedule.metric == "distance" and eta <= 1 and schedule.growth:
        steps = total if schedule.growth_of == "nodes" else rounds
        return (1 - eta * schedule.growth) ** steps
    return None


def sharper_bound(schedule: Schedule) -> tuple[float, str] | None:
    """A sharper bound and its standing ("proved" or "conjectured"), where there is one.

    T2 (proved; stochastic gradients too), L = 1: (1/R) sum_{r<R} E f(xbar_r) <= (D/2R) (1 - (1-a)^R) / a,
    a = :func:`round_decrease`: eta (2 - eta) for eta >= 1, (1 - q^(2K)) / (1 + q^(2K-1)) with q = 1 - eta
    for eta <= 1. At most D / (2 a R); as K grows it tends to D / (2R) for every eta <= 1.

    Proof. (a) A round lowers the mean over nodes of E||x_i - x*||^2 by at least 2 a E f(xbar_r). For
    eta >= 1 that is Lemma 1 at the first step, as the others do not raise it. For eta <= 1 fix a round
    and a node, condition on xbar_r, and let u_k^2 = E f_i(x_i^k) and a_k^2 = E||g_k||^2 / 2. Lemma 1
    before its last term is dropped says that a step lowers E||x_i - x*||^2 by at least
    2 eta (u_k^2 + (1 - eta) a_k^2). As ||grad f_i||^2 <= 2 f_i, the root of f_i is
    1/sqrt(2)-Lipschitz, so E sqrt(f_i) falls by at most eta a_k in a step, and by Jensen
    u_{k+1} >= u_0 - eta (a_0 + ... + a_k). Minimising sum_k (v_k^2 + (1 - eta) a_k^2) over a_k >= 0
    subject to v_{k+1} = v_k - eta a_k, v_0 = u_0, is a linear-quadratic problem;
    u_k >= max(v_k, 0) is no weaker than u_k >= v_k >= 0, as an a_k that would take v below 0 can be
    cut to stop at 0, at less cost. Its value is p_K v_0^2, where p_0 = 0 and
    p_{k+1} = 1 + p_k (1 - eta) / (1 - eta + eta^2 p_k); the recursion has the fixed points 1/eta and
    -(1 - eta)/eta, and a = eta p_K is the closed form above.
    (b) Let D_r = E||xbar_r - x*||^2. Averaging does not raise the mean distance, so by (a)
    2 a E f(xbar_r) <= D_r - D_{r+1}, and the sum of E f(xbar_r) is at most (D - D_R) / (2a). Where D_R is
    small the sum is limited by smoothness, 2 E f(xbar_r) <= D_r: among all numbers f_r <= D_r / 2 with
    D_{r+1} = D_r - 2 a f_r the sum (D - D_R) / (2a) is largest where D_R is least, which is
    (1 - a)^R D. QED

    The best iterate counts f(xbar_R) too, which a further round would have used: R + 1 for R.

    T1 and T3, eta >= 1 (proved, exact): (b) for single steps, with the mean over nodes of the local
    losses, a = eta (2 - eta) and T for R: (D/2T) (1 - (1-eta)^(2T)) / (eta (2 - eta)), which x^2/2
    attains. eta < 1 (conjectured, exact): the larger of the two instances of :func:`instance`.
    """
    eta, local_steps, rounds = schedule.step_size, schedule.local_steps, schedule.rounds
    if schedule.metric in ("average_sync", "best"):
        count = rounds + (schedule.metric == "best")
        return _limited_sum(round_decrease(eta, local_steps), count) / count, "proved"
    if schedule.metric == "average_local":
        if eta >= 1:
            total = local_steps * rounds
            return _limited_sum(eta * (2 - eta), total) / total, "proved"
        return instance(schedule)[0], "conjectured"
    return None


def round_decrease(step_size: float, local_steps: int) -> float:
    """a in (0, 1]: a round lowers E||x - x*||^2 by at least 2 a E f(xbar_r), at L = 1.

    Args:
        step_size: eta L in (0, 2).
        local_steps: K.
    """
    if step_size >= 1:
        return step_size * (2 - step_size)
    q = 1 - step_size
    return float((1 - q ** (2 * local_steps)) / (1 + q ** (2 * local_steps - 1)))


def _limited_sum(decrease: float, count: int) -> float:
    """The largest sum of f_0..f_{count-1} with f_r <= D_r / 2, D_{r+1} = D_r - 2 a f_r, D_0 = 1."""
    return float((1 - (1 - decrease) ** count) / (2 * decrease))


def instance(schedule: Schedule) -> tuple[float, str]:
    """The largest value among the known explicit instances, and its name.

    * "huber": all f_i equal to a Huber function of one variable, slope chosen best;
    * "quadratic": all f_i = x^2/2;
    * "I1": f_i(x) = (a_i'x)^2/2 for two crossing directions, s chosen best: a round multiplies by
      1 - q s, q = 1 - (1 - eta)^K;
    * "growth": the quadratic of curvature mu (A4), or I1 with s = mu (A4').
    """
    eta, k, rounds = schedule.step_size, schedule.local_steps, schedule.rounds
    total = k * rounds
    if schedule.metric == "average_local":
        square = (1 - eta) ** 2
        return max(
            (1 / (2 * (1 + eta * (total - 1))), "huber"),
            (0.5 * _geometric(square, total) / total, "quadratic"),
        )
    if schedule.metric == "distance":
        mu = schedule.growth
        if schedule.growth_of == "mean" and not schedule.one_node:
            return (1 - _round_factor(schedule) * mu) ** (2 * rounds), "growth"
        return max((1 - eta * mu) ** (2 * total), (1 - eta) ** (2 * total)), "growth"
    if schedule.metric == "average_sync":
        values = [(1 / (2 * (1 + eta * k * (rounds - 1))), "huber")]
    else:
        values = [(1 / (2 * (1 + 2 * eta * total)), "huber")]
    values.append((_crossing(schedule, 1.0), "quadratic"))
    if not schedule.one_node:
        values.append(best_crossing(schedule))
    return max(values)


def _geometric(ratio: float, terms: int) -> float:
    return float(sum(ratio**t for t in range(terms)))


def _round_factor(schedule: Schedule) -> float:
    """q = 1 - (1 - eta)^K."""
    return 1 - (1 - schedule.step_size) ** schedule.local_steps


def _crossing(schedule: Schedule, s: float) -> float:
    """The metric on I1 with parameter s in (0, 1]; s = 1 is x^2/2 for all nodes."""
    factor = (1 - _round_factor(schedule) * s) ** 2
    if schedule.metric == "average_sync":
        return 0.5 * s * _geometric(factor, schedule.rounds) / schedule.rounds
    return 0.5 * s * float(factor**schedule.rounds)


def best_crossing(schedule: Schedule) -> tuple[float, str]:
    """I1 with the best s: in closed form s = 1/(q (2R+1)) for the last iterate, else on a grid."""
    q, rounds = _round_factor(schedule), schedule.rounds
    if schedule.metric == "average_sync":
        grid = [i / 400 for i in range(1, 401)]
    else:
        grid = [min(1.0, 1 / (q * (2 * rounds + 1)))]
    s = max(grid, key=lambda candidate: _crossing(schedule, candidate))
    return _crossing(schedule, s), "I1"
