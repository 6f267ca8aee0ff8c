"""Closed forms beside which the exact worst cases are put: bounds, sharper bounds, instances.

All at L = 1 and ||x_0 - x*|| = 1, so ``step_size`` is eta L and values are in units of L D (of D for a
distance). Bounds and their proofs are those of :mod:`theory.theorems`; here is which of them a cell has.
Each instance is an explicit problem of the class, so its value is a lower bound on the worst case. All
but the instances are for the plain mean, outer step 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.optimize import brentq

from theory.theorems import t1_local_losses as t1
from theory.theorems import t2_synchronised as t2
from theory.theorems import t3_similar as t3
from theory.theorems import t4_linear as t4
from theory.worst_case.cells import Cell

#: What each metric belongs to; "T3" is T1 with all f_i equal, "T4" needs growth.
THEOREMS = {
    "last": "C1",
    "best": "C1",
    "average_sync": "T2",
    "average_local": "T1",
    "distance": "T4",
}


@dataclass(frozen=True)
class Sharper:
    """A proved bound below its theorem's, and where its proof is.

    Attributes:
        value: in L D (D for a distance).
        source: "S1" to "S5", in the file of their theorem in :mod:`theory.theorems`; or "Kim 2024".
        exact: whether the proof says that the value is attained.
    """

    value: float
    source: str
    exact: bool = False


def theorem_of(cell: Cell) -> str:
    """T1, T2, T3 (all f_i equal), T4 (A4), T4' (A4') or C1 (last and best iterate)."""
    if cell.metric == "average_local" and cell.one_node:
        return "T3"
    if cell.metric == "distance" and cell.growth_of == "mean":
        return "T4'"
    return THEOREMS[cell.metric]


def bound(cell: Cell) -> float | None:
    """The bound of T1-T4; T2's for the best iterate (min <= mean); None where there is none."""
    if cell.outer_step != 1:
        return None
    eta, rounds, total = cell.step_size, cell.rounds, cell.iterations
    theorem = theorem_of(cell)
    if theorem == "T1":
        return t1.bound(L=1.0, D=1.0, eta=eta, T=total)
    if theorem == "T3":
        return t3.bound(L=1.0, D=1.0, c=1.0, eta=eta, T=total)
    if theorem == "T2" or cell.metric == "best":
        return t2.bound(L=1.0, D=1.0, eta=eta, R=rounds)
    if cell.metric == "distance" and cell.growth and eta <= 1:
        return t4.bound(D=1.0, mu=cell.growth, eta=eta, T=total if theorem == "T4" else rounds)
    return None


def sharper_bound(cell: Cell) -> Sharper | None:
    """The least of the proved sharper bounds that apply, L = 1; None where there is none.

    S1 to S5 are in :mod:`theory.theorems`. The best iterate counts f(xbar_R) too, which a further round
    would have used: S1 of T2 with R + 1 for R; and the worst last iterate bounds it. S5 serves T4' at
    K = 1 as well, where one function for all nodes is as bad as any. "Kim 2024" is the last iterate of
    K = 1, see :func:`gradient_descent`.
    """
    if cell.outer_step != 1:
        return None
    candidates = _sharper(cell)
    return min(candidates, key=lambda s: s.value) if candidates else None


def _sharper(cell: Cell) -> list[Sharper]:
    eta, local_steps, rounds = cell.step_size, cell.local_steps, cell.rounds
    several = local_steps >= 2 and not cell.one_node
    if cell.metric == "average_local":
        return [Sharper(t1.sharp_bound(L=1.0, D=1.0, eta=eta, T=cell.iterations), "S1", exact=True)]
    if cell.metric == "average_sync":
        value = t2.sharp_bound(L=1.0, D=1.0, eta=eta, K=local_steps, R=rounds)
        return [Sharper(value, "S1", exact=local_steps == 1)]
    if cell.metric == "distance":
        return _sharper_distance(cell, several) if cell.growth and eta <= 1 else []
    found = []
    if not several:
        found.append(Sharper(gradient_descent(eta, cell.iterations), "Kim 2024", exact=True))
    elif eta == 1:
        found.append(Sharper(t2.last_bound(L=1.0, D=1.0), "S2"))
    if cell.metric == "best":
        # Whether it is exact for the best iterate too, the proofs don't say.
        found = [Sharper(s.value, s.source) for s in found]
        if not cell.one_node:
            mean = t2.sharp_bound(L=1.0, D=1.0, eta=eta, K=local_steps, R=rounds + 1)
            found.append(Sharper(mean, "S1"))
        if several and eta == 1:
            found.append(Sharper(t2.halved_bound(L=1.0, D=1.0, R=rounds), "S3"))
    return found


def _sharper_distance(cell: Cell, several: bool) -> list[Sharper]:
    mu, total = cell.growth, cell.iterations
    of_mean = cell.growth_of == "mean" and not cell.one_node
    if not of_mean or cell.local_steps == 1:
        value = t4.sharp_bound(L=1.0, D=1.0, mu=mu, eta=cell.step_size, T=total)
        return [Sharper(value, "S5", exact=total == 1)]
    if several and cell.step_size == 1:
        value = t4.sharp_bound_global(L=1.0, D=1.0, mu=mu, R=cell.rounds)
        return [Sharper(value, "S4", exact=mu <= 0.5)]
    return []


def gradient_descent(step_size: float, steps: float) -> float:
    """The worst last iterate of gradient descent, the larger of 1/(4 eta T + 2) and (1 - eta)^{2T}/2.

    A theorem of J. Kim (arXiv 2412.04427), conjectured by Drori and Teboulle (Math. Program. 2014).
    """
    return max(1 / (4 * step_size * steps + 2), 0.5 * abs(1 - step_size) ** (2 * steps))


def instance(cell: Cell, n_nodes: int = 2) -> tuple[float, str]:
    """The largest value among the known explicit instances, and its name.

    * "huber": all f_i equal to a Huber function of one variable, slope chosen best;
    * "quadratic": all f_i = x^2/2 (of curvature mu too, for a distance);
    * "I1": f_i(x) = (a_i'x)^2/2 for two crossing directions, s chosen best: a round multiplies by
      1 - beta q s, q = 1 - (1 - eta)^K;
    * "simplex": f_i = (||x||^2 - <v_i, x>^2)/2, v_i = sqrt(1-mu) e_0 + sqrt(mu) u_i, u_i the vertices of
      a simplex (I1 for n = 2): A4' with mu <= (n-1)/n, and a round multiplies by 1 - beta q mu.

    Args:
        cell: the cell.
        n_nodes: n, which counts for "simplex" only; even for "I1", else one node less.
    """
    if cell.metric == "distance":
        return _distance_instance(cell, n_nodes)
    values = [(_crossing(cell, 1.0), "quadratic"), (_huber(cell), "huber")]
    if not cell.one_node and cell.metric != "average_local":
        values.append(best_crossing(cell))
    return max(values)


def _huber(cell: Cell) -> float:
    """Slope s whose path stays where the function is linear, chosen best.

    After a way of w times s the loss is s (1 - w s) - s^2/2, whose mean is largest at
    s = 1/(2 mean(w) + 1); a round goes beta K steps, a local iterate k more.
    """
    eta, k, rounds = cell.step_size, cell.local_steps, cell.rounds
    whole = eta * cell.outer_step * k
    if cell.metric == "average_sync":
        way = whole * (rounds - 1) / 2
    elif cell.metric == "average_local":
        way = whole * (rounds - 1) / 2 + eta * (k - 1) / 2
    else:
        way = whole * rounds
    return 1 / (2 * (1 + 2 * way))


def _distance_instance(cell: Cell, n_nodes: int) -> tuple[float, str]:
    mu = cell.growth
    curvatures = (mu, 1.0)
    factors = [
        1 - cell.outer_step * (1 - (1 - cell.step_size * c) ** cell.local_steps) for c in curvatures
    ]
    values = [(max(abs(f) for f in factors) ** (2 * cell.rounds), "quadratic")]
    if cell.growth_of == "mean" and not cell.one_node and mu <= (n_nodes - 1) / n_nodes:
        factor = 1 - cell.outer_step * _round_factor(cell) * mu
        values.append((factor ** (2 * cell.rounds), "simplex"))
    return max(values)


def _geometric(ratio: float, terms: int) -> float:
    return float(sum(ratio**t for t in range(terms)))


def _round_factor(cell: Cell) -> float:
    """q = 1 - (1 - eta)^K."""
    return 1 - (1 - cell.step_size) ** cell.local_steps


def _crossing(cell: Cell, s: float) -> float:
    """The metric on I1 with parameter s in (0, 1]; s = 1 is x^2/2 for all nodes."""
    factor = (1 - cell.outer_step * _round_factor(cell) * s) ** 2
    if cell.metric in ("average_sync", "average_local"):
        mean = 0.5 * s * _geometric(factor, cell.rounds) / cell.rounds
        if cell.metric == "average_sync":
            return mean
        return mean * _geometric((1 - cell.step_size * s) ** 2, cell.local_steps) / cell.local_steps
    if cell.metric == "best":
        return 0.5 * s * min(1.0, float(factor**cell.rounds))
    return 0.5 * s * float(factor**cell.rounds)


def best_crossing(cell: Cell) -> tuple[float, str]:
    """I1 with the best s: in closed form s = 1/(q (2R+1)) for the last iterate, else on a grid."""
    q, rounds = cell.outer_step * _round_factor(cell), cell.rounds
    if cell.metric == "average_sync":
        grid = [i / 400 for i in range(1, 401)]
    else:
        # Where q > 1 the second eigenvector, of 1 - s, may be the worse one: s near 1.
        grid = [min(1.0, 1 / (q * (2 * rounds + 1))), 1.0]
    s = max(grid, key=lambda candidate: _crossing(cell, candidate))
    return _crossing(cell, s), "I1"


def crossing_limit(rounds: int) -> float:
    """I1 at eta = 1/L after R rounds, s chosen best: a value that no K goes below."""
    return best_crossing(Cell(local_steps=1, rounds=rounds, step_size=1.0))[0]


def crossing_floor(rounds: int) -> float:
    """I6's family at its best member: no eta, K and outer step has a worst last iterate below this.

    A round multiplies by 1 - s l, s = beta (1 - (1 - eta)^K), so that only s counts. Of the value
    (l/2) (1 - s l)^(2R) the largest over l in (0, 1] is that of l = 1/(s (2R+1)), falling with s, or
    of l = 1, rising from s = 1 on: the least over s is where they meet. I6 itself is a closed form
    below it, :func:`theory.theorems.t2_synchronised.least_last_loss`.
    """
    inner = (2 * rounds / (2 * rounds + 1)) ** (2 * rounds) / (2 * (2 * rounds + 1))
    s = float(brentq(lambda s: inner / s - 0.5 * (s - 1) ** (2 * rounds), 1.0, 2.0))
    return inner / s
