"""The inequalities of one cell over the two Gram matrices of :mod:`theory.worst_case.reduction`.

Every inequality has a label, under which its dual multiplier is found in a solved cell, of the kind

* "start": ||x_0 - x*||^2 <= 1;
* "best": the minimum over the rounds is at most f(x_a), a one of ``Cell.starts``;
* "growth": growth of the mean f, as far as it shows at point a (A4');
* "pair": f_a >= f_b + <g_b, x_a - x_b> + ||g_a - g_b||^2 / 2, STAR for x*; under A4 the pairs (a, STAR)
  carry the growth of the nodes instead, see :func:`interpolation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from theory.worst_case.cells import Cell
from theory.worst_case.constraints import Array, Constraints, Factor, Solution

STAR = -1
Pair = tuple[int, int]


class Label(NamedTuple):
    """What an inequality is: its kind, and the points that it speaks of (STAR where none)."""

    kind: str
    a: int = STAR
    b: int = STAR


@dataclass(frozen=True)
class Trajectory:
    """Coordinates of one node's points x_0..x_{N-1}, x* and of the gradients there.

    Attributes:
        points: N; x_a is row a, its gradient row N + 1 + a; a = N is x*, all zero.
        mean: (2N + 2, 1 + N), the part shared by the nodes, on the basis x_0, m_0, m_1, ...
        deviation: (2N + 2, N), the node's own part, on the basis v_0, v_1, ...
    """

    points: int
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, cell: Cell) -> Trajectory:
        n = cell.points
        mean, deviation = np.zeros((2 * n + 2, n + 1)), np.zeros((2 * n + 2, n))
        point, spread = np.zeros(n + 1), np.zeros(n)
        point[0] = 1.0
        start = point.copy()
        for t in range(n):
            if t % cell.local_steps == 0:
                point = start + cell.outer_step * (point - start)
                start, spread[:] = point.copy(), 0.0
            mean[t], deviation[t] = point, spread
            mean[n + 1 + t, 1 + t] = deviation[n + 1 + t, t] = 1.0
            point[1 + t] -= cell.step_size
            spread[t] -= cell.step_size
        return cls(n, mean, deviation)

    def blocks(self, cell: Cell) -> tuple[Array, ...]:
        """The vectors block by block; one node has no deviation.

        Growth of the mean appends, for every point a, p_a and q_a with
        <p_a, q_a> = (m/2) ||mean of z_a||^2 - (1/2) ||deviation of z_a||^2, z_a = x_a - g_a and
        m = mu / (1 - mu); see :func:`growth_of_the_mean`.
        """
        parts = (self.mean,) if cell.one_node else (self.mean, self.deviation)
        if not (cell.growth and cell.growth_of == "mean"):
            return parts
        n = self.points
        extended = []
        for part, weight, sign in zip(
            parts, (cell.growth / (1 - cell.growth), 1.0), (1.0, -1.0), strict=False
        ):
            shifted = np.sqrt(weight / 2) * (part[:n] - part[n + 1 : 2 * n + 1])
            extended.append(np.vstack([part, shifted, sign * shifted]))
        return tuple(extended)


def objective(cell: Cell, trajectory: Trajectory) -> tuple[Array, list[Array]]:
    """Weights of the scalars (f at the points; then the minimum for "best") and of the Grams."""
    n = cell.points
    goal = np.zeros(n + (cell.metric == "best"))
    sizes = [n + 1] if cell.one_node else [n + 1, n]
    blocks = [np.zeros((size, size)) for size in sizes]
    if cell.metric in ("last", "best"):
        goal[-1] = 1.0
    elif cell.metric == "average_sync":
        goal[cell.starts] = 1.0 / cell.rounds
    elif cell.metric == "average_local":
        goal[:] = 1.0 / n
    else:
        blocks[0] = np.outer(trajectory.mean[n - 1], trajectory.mean[n - 1])
    return goal, blocks


def fixed_conditions(cell: Cell, trajectory: Trajectory) -> tuple[Constraints, list[Label]]:
    """||x_0||^2 <= 1, the definition of the best iterate, growth of the mean; and their labels."""
    n, starts = cell.points, np.array(cell.starts)
    scalars = n + (cell.metric == "best")
    zero, none = np.array([n]), np.zeros(1)
    blocks = trajectory.blocks(cell)
    nothing = Factor(zero, zero, none)
    at_start = Factor(np.zeros(1, dtype=np.int64), zero, np.full(1, np.sqrt(2)))
    parts = [Constraints(blocks, nothing, nothing, at_start, np.zeros((1, scalars)), np.ones(1))]
    labels = [Label("start")]
    if cell.metric == "best":
        count = len(starts)
        zeros = np.full(count, n)
        nothing = Factor(zeros, zeros, np.zeros(count))
        below = np.zeros((count, scalars))
        below[np.arange(count), starts] = -1.0
        below[:, n] = 1.0
        parts.append(Constraints(blocks, nothing, nothing, nothing, below, np.zeros(count)))
        labels += [Label("best", int(a)) for a in starts]
    if cell.growth and cell.growth_of == "mean":
        parts.append(growth_of_the_mean(cell, trajectory))
        labels += [Label("growth", a) for a in range(n)]
    return Constraints.stack(parts), labels


def growth_of_the_mean(cell: Cell, trajectory: Trajectory) -> Constraints:
    """A4' as far as one local iterate shows it: h_a + V_a / 2 >= (m/2) ||mean of z_a||^2 for every a.

    z_i = x_i - g_i, h_a the mean of the f_i - ||g_i||^2/2, V_a the mean of ||z_i - mean of z||^2,
    m = mu / (1 - mu). Necessary: f_i lies under the parabola h_i + ||y - z_i||^2/2, so f lies under the
    mean of these, h_a + V_a/2 + ||y - mean of z||^2/2, which must stay above (mu/2) ||y||^2 everywhere.
    Not sufficient for K >= 2, as f may fall below in between: the value is then an upper one. At K = 1
    it is: V is 0 at the optimum, and one function for all nodes has the growth of A4.
    """
    n = cell.points
    a, star = np.arange(n), np.full(n, n)
    ones = np.ones(n)
    scalars = np.zeros((n, n + (cell.metric == "best")))
    scalars[a, a] = -1.0
    return Constraints(
        trajectory.blocks(cell),
        Factor(2 * n + 2 + a, star, ones),
        Factor(3 * n + 2 + a, star, ones),
        Factor(n + 1 + a, star, ones),
        scalars,
        np.zeros(n),
    )


def interpolation(cell: Cell, trajectory: Trajectory, pairs: NDArray[np.int64]) -> Constraints:
    """The conditions f_b - f_a + <g_b, x_a - x_b> + ||g_a - g_b||^2 / 2 <= 0, (a, b) = pairs.

    With growth of the nodes the condition of (a, x*) is h_a >= (m/2) ||z_a||^2 instead, where
    z_a = x_a - g_a, h_a = f_a - ||g_a||^2/2, m = mu / (1 - mu). It is necessary, as f lies under
    the parabola h_a + ||y - z_a||^2/2, which must stay above (mu/2) ||y||^2. It is sufficient: the
    largest interpolant is the Moreau envelope of the hull of the points (z_a, h_a), which then lies
    above (m/2) ||.||^2, and the envelope of (m/2) ||.||^2 is (mu/2) ||.||^2.
    """
    n = cell.points
    a, b = (np.where(column == STAR, n, column) for column in pairs.T)
    ones = np.ones(len(pairs))
    gradient_a, gradient_b = n + 1 + a, n + 1 + b
    left = Factor(gradient_b, np.full(len(pairs), n), ones)
    right = Factor(a, b, ones)
    square = Factor(gradient_a, gradient_b, ones)
    if cell.growth and cell.growth_of == "nodes":
        to_star = b == n
        weight = np.sqrt(cell.growth / (1 - cell.growth) / 2)
        shifted = Factor(a, gradient_a, np.full(len(pairs), weight))
        left, right = (
            Factor(
                np.where(to_star, shifted.plus, f.plus),
                np.where(to_star, shifted.minus, f.minus),
                np.where(to_star, shifted.scale, f.scale),
            )
            for f in (left, right)
        )
    scalars = np.zeros((len(pairs), n + 1))
    scalars[np.arange(len(pairs)), a] -= 1.0
    scalars[np.arange(len(pairs)), b] += 1.0
    scalars = scalars if cell.metric == "best" else scalars[:, :n]
    if cell.metric == "best":
        scalars[:, n] = 0.0
    return Constraints(trajectory.blocks(cell), left, right, square, scalars, np.zeros(len(pairs)))


def all_pairs(cell: Cell) -> set[Pair]:
    """Every ordered pair of points and x*."""
    everything = [*range(cell.points), STAR]
    return {(a, b) for a in everything for b in everything if a != b}


def likely_pairs(cell: Cell) -> set[Pair]:
    """The kinds of pairs that were active in small problems."""
    n, k = cell.points, cell.local_steps
    pairs = {(a, STAR) for a in range(n)} | {(STAR, a) for a in range(n)}
    for a in range(n):
        for b in (a + 1, a - 1, a + k, a - k, a - a % k, a - a % k + k, n - 1):
            if 0 <= b < n and a != b:
                pairs.add((a, b))
    return pairs | {(a, b) for a in cell.starts for b in cell.starts if a != b}


def violations(cell: Cell, trajectory: Trajectory, solution: Solution) -> Array:
    """By how much each condition (a, b) fails, (N+1, N+1), row and column N for x*."""
    n = cell.points
    losses = np.append(solution.scalars[:n], 0.0)
    shape = (n + 1, n + 1)
    cross, gram, square = np.zeros(shape), np.zeros(shape), np.zeros(n + 1)
    parts = (trajectory.mean,) if cell.one_node else (trajectory.mean, trajectory.deviation)
    for rows, block in zip(parts, solution.blocks, strict=True):
        x, g = rows[: n + 1], rows[n + 1 :]
        cross += x @ block @ g.T
        gram += g @ block @ g.T
        square += np.einsum("ij,jk,ik->i", x - g, block, x - g)
    norms = np.diag(gram)
    gaps: Array = losses[None, :] - losses[:, None] + cross - np.diag(cross)[None, :]
    gaps = gaps + 0.5 * (norms[:, None] + norms[None, :] - 2 * gram)
    if cell.growth and cell.growth_of == "nodes":
        gaps[:, n] = 0.5 * (norms + cell.growth / (1 - cell.growth) * square) - losses
    np.fill_diagonal(gaps, -np.inf)
    return gaps


def worst_pairs(gaps: Array, threshold: float, limit: int) -> set[Pair]:
    """The pairs whose conditions fail by more than the threshold, at most ``limit`` of them."""
    n = len(gaps) - 1
    candidates = np.argwhere(gaps > threshold)
    order = np.argsort(-gaps[candidates[:, 0], candidates[:, 1]])[:limit]
    return {(int(a) if a < n else STAR, int(b) if b < n else STAR) for a, b in candidates[order]}
