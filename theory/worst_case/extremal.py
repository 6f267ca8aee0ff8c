"""The worst case as an explicit problem: from the Gram matrices to functions that can be evaluated.

The interpolant of the triples (x_k, g_k, f_k) is the largest L-smooth convex function through them,
W(y) = min over weights alpha of (L/2) ||y - sum_k alpha_k z_k||^2 + sum_k alpha_k h_k with
z_k = x_k - g_k / L and h_k = f_k - ||g_k||^2 / (2L): the Moreau envelope of the convex hull of the
points (z_k, h_k). It is a true L-smooth convex function whatever the triples are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from theory.problems.protocols import Simulated
from theory.simulation.local_sgd import run_local_sgd
from theory.support.errors import UserError
from theory.worst_case.cells import Cell
from theory.worst_case.conditions import Trajectory
from theory.worst_case.constraints import Array
from theory.worst_case.reduction import WorstCase

#: Up to this many points every rank cut is tried; a simulation takes seconds beyond it.
FEW_POINTS = 30
#: Optimality gap that is accepted where rounding stops the active set.
STALLED = 1e-9
#: Ratio of singular values below which corners count as affinely dependent.
DEPENDENT = 1e-10


@dataclass(frozen=True)
class SmoothConvexInterpolant:
    """The largest 1-smooth convex function through given points, gradients and values.

    Attributes:
        corners: z_k, (m, d).
        heights: h_k, (m,).
    """

    corners: Array
    heights: Array

    @classmethod
    def through(cls, points: Array, gradients: Array, values: Array) -> SmoothConvexInterpolant:
        """From x_k (m, d), g_k (m, d) and f_k (m,)."""
        return cls(points - gradients, values - 0.5 * np.sum(gradients**2, axis=1))

    @cached_property
    def _products(self) -> Array:
        products: Array = self.corners @ self.corners.T
        return products

    def __call__(self, y: Array) -> float:
        """W(y), y (d,)."""
        return self.evaluate(y)[0]

    def evaluate(self, y: Array, tolerance: float = 1e-13) -> tuple[float, Array]:
        """W(y) and its gradient y - sum_k alpha_k z_k, by an active-set method.

        Where rounding lets the active set cycle among nearly dependent corners, the point reached
        is taken if its optimality gap, which bounds the error of W, is below STALLED.

        Raises:
            RuntimeError: the active set did not settle so far.
        """
        # minimise alpha'Q alpha / 2 + linear'alpha on the simplex, Q = ZZ', up to ||y||^2 / 2
        linear = self.heights - self.corners @ y
        alone = linear + 0.5 * np.diag(self._products)
        support = [int(np.argmin(alone))]
        weights = np.array([1.0])
        lowest, smallest_gap, stalled = math.inf, math.inf, 0
        best = 0.0, y
        for _ in range(50 * len(linear)):
            slope = self._products[:, support] @ weights + linear
            level = float(weights @ slope[support])
            entering = int(np.argmin(slope))
            rest = y - weights @ self.corners[support]
            value = 0.5 * float(rest @ rest) + float(weights @ self.heights[support])
            gap = level - float(slope[entering])
            if gap < smallest_gap:
                smallest_gap, best = gap, (value, rest)
            stalled = stalled + 1 if value >= lowest else 0
            lowest = min(value, lowest)
            if gap <= tolerance or entering in support or stalled > 20:
                break
            support = [*support, entering]
            weights = np.append(weights, 0.0)
            support, weights = self._settle(support, weights, linear)
        if smallest_gap > STALLED:
            raise RuntimeError(f"the interpolant did not settle: optimality gap {smallest_gap:.1e}")
        return best

    def _settle(self, support: list[int], weights: Array, linear: Array) -> tuple[list[int], Array]:
        """Minimise on the affine hull of the support, dropping corners that would go negative.

        Affinely dependent corners leave a direction along which only the heights count: it is
        followed downhill until a corner drops out.
        """
        while True:
            size = len(support)
            affine = np.vstack([self.corners[support].T, np.ones(size)])
            _, singular, directions = np.linalg.svd(affine)
            if len(singular) < size or singular[-1] < DEPENDENT * singular[0]:
                direction = directions[-1]
                if self.heights[support] @ direction > 0:
                    direction = -direction
                falling = np.flatnonzero(direction < 0)
                ratios = weights[falling] / -direction[falling]
                first = int(np.argmin(ratios))
                weights = weights + ratios[first] * direction
                weights[falling[first]] = 0.0
                support, weights = _positive(support, weights)
                continue
            system = np.zeros((size + 1, size + 1))
            system[:size, :size] = self._products[np.ix_(support, support)]
            system[:size, size] = system[size, :size] = 1.0
            right = np.append(-linear[support], 1.0)
            target = np.linalg.lstsq(system, right, rcond=1e-14)[0][:size]
            if (target > 0).all():
                return support, target
            falling = target <= 0
            ratios = weights[falling] / np.maximum(weights[falling] - target[falling], 1e-300)
            share = float(ratios.min(initial=1.0))
            weights = weights + share * (target - weights)
            # the corner that reached zero leaves, and so does any other at zero
            weights[np.flatnonzero(falling)[int(np.argmin(ratios))]] = 0.0
            support, weights = _positive(support, weights)


def _positive(support: list[int], weights: Array) -> tuple[list[int], Array]:
    """The corners of positive weight, weights scaled to sum to one."""
    keep = weights > 0
    kept = [corner for corner, positive in zip(support, keep, strict=True) if positive]
    return kept, weights[keep] / weights[keep].sum()


@dataclass(frozen=True)
class ExtremalProblem:
    """n nodes, each a rotated copy of one function: the worst case made explicit.

    Coordinates are (shared, own): f_i(y, w) = W(y, w'u_i), u_1..u_n the vertices of a regular simplex
    of n - 1 dimensions (for two nodes: a function and its mirror image). It has the interface that
    :func:`theory.simulation.local_sgd.run_local_sgd` asks of a problem.

    Attributes:
        function: W on R^(p + q).
        shared: p.
        vertices: (n, n - 1), rows of norm 1 that sum to 0.
        start, solution: (p + q (n - 1),).
        smoothness: 1.
    """

    function: SmoothConvexInterpolant
    shared: int
    vertices: Array
    start: Array
    solution: Array
    smoothness: float = 1.0
    #: Its values are minima, found to 1e-9 at worst: no difference of them shows a slope.
    true_by_construction: ClassVar[bool] = True

    @property
    def n_nodes(self) -> int:
        return len(self.vertices)

    @property
    def dimension(self) -> int:
        return len(self.start)

    def _evaluate(self, models: Array) -> tuple[Array, Array]:
        """Losses (..., n) and gradients (..., n, d) of the nodes at their models (..., n, d)."""
        own = self.function.corners.shape[1] - self.shared
        flat = models.reshape(-1, self.n_nodes, self.dimension)
        losses = np.empty(flat.shape[:2])
        gradients = np.empty(flat.shape)
        for run, node in np.ndindex(losses.shape):
            direction = self.vertices[node]
            spread = flat[run, node, self.shared :].reshape(own, len(direction))
            local = np.concatenate([flat[run, node, : self.shared], spread @ direction])
            losses[run, node], gradient = self.function.evaluate(local)
            outer = np.outer(gradient[self.shared :], direction).ravel()
            gradients[run, node] = np.concatenate([gradient[: self.shared], outer])
        return losses.reshape(models.shape[:-1]), gradients.reshape(models.shape)

    def node_losses(self, models: Array) -> Array:
        """f_i at the model of node i: (..., n, d) to (..., n)."""
        return self._evaluate(models)[0]

    def node_gradients(self, models: Array) -> Array:
        """grad f_i at the model of node i: (..., n, d) to the same shape."""
        return self._evaluate(models)[1]


def simplex_vertices(n_nodes: int) -> Array:
    """n unit vectors of R^(n-1) that sum to zero, (n, n - 1)."""
    centred = np.eye(n_nodes) - 1.0 / n_nodes
    values, vectors = np.linalg.eigh(centred)
    coordinates: Array = centred @ vectors[:, values > 0.5]
    return coordinates / np.linalg.norm(coordinates, axis=1, keepdims=True)


def extremal_problem(found: WorstCase, n_nodes: int = 2, rank_cut: float = 0.0) -> ExtremalProblem:
    """The problem whose Gram matrices are ``found``'s, for any number of nodes.

    Args:
        found: a solved worst case.
        n_nodes: at least 2, or 1 where the worst case is of one node.
        rank_cut: eigenvalues at or below it are left out, which lowers the dimension.

    Returns:
        An :class:`ExtremalProblem` with L = 1, ||x_0|| <= 1 and x* = 0.

    Raises:
        UserError: a number of nodes that the worst case does not allow.
    """
    if found.cell.one_node != (n_nodes == 1):
        raise UserError(f"n_nodes is {n_nodes}, allowed: 1 for one node, else at least 2")
    trajectory = Trajectory.of(found.cell)
    shared = trajectory.mean @ _root(found.mean_gram, rank_cut)
    own = trajectory.deviation @ _root(found.deviation_gram, rank_cut)
    if n_nodes == 1:
        own = own[:, :0]
    vectors = np.hstack([shared, own])
    count = trajectory.points + 1
    function = SmoothConvexInterpolant.through(
        vectors[:count], vectors[count:], np.append(found.losses, 0.0)
    )
    dimension = shared.shape[1] + own.shape[1] * (n_nodes - 1)
    start = np.zeros(dimension)
    start[: shared.shape[1]] = shared[0]
    vertices = simplex_vertices(n_nodes) if n_nodes > 1 else np.zeros((1, 0))
    return ExtremalProblem(function, shared.shape[1], vertices, start, np.zeros(dimension))


def _root(gram: Array, cut: float) -> Array:
    """Rows c_k with <c_j, c_k> = gram_jk, (m, rank), eigenvalues at or below the cut left out."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(cut, 0.0)
    root: Array = vectors[:, kept] * np.sqrt(values[kept])
    return root


def simulated_value(problem: Simulated, cell: Cell) -> float:
    """The metric that the simulator measures on the problem."""
    if cell.outer_step != 1:
        return _prolonged_value(problem, cell)
    result = run_local_sgd(
        problem,
        step_size=cell.step_size,
        local_steps=cell.local_steps,
        rounds=cell.rounds,
        gradient="full",
        engine="numpy",
        record=range(cell.iterations + 1),
        averages=("sync_loss", "local_loss"),
    )
    losses = result.history["global_loss"][0, 0]
    if cell.metric == "last":
        return float(losses[-1])
    if cell.metric == "best":
        return float(losses[:: cell.local_steps].min())
    if cell.metric == "average_sync":
        return float(result.averages["sync_loss"][0, 0, -1])
    if cell.metric == "average_local":
        return float(result.averages["local_loss"][0, 0, -1])
    return float(result.history["distance"][0, 0, -1])


def _prolonged_value(problem: Simulated, cell: Cell) -> float:
    """The same with an outer step, by plain loops."""
    mean, n = problem.start, problem.n_nodes
    rounds, local = [], []
    for _ in range(cell.rounds):
        models = np.tile(mean, (n, 1))
        rounds.append(float(problem.node_losses(models).mean()))
        for _ in range(cell.local_steps):
            local.append(float(problem.node_losses(models).mean()))
            models = models - cell.step_size * problem.node_gradients(models)
        mean = mean + cell.outer_step * (models.mean(axis=0) - mean)
    if cell.metric == "average_sync":
        return float(np.mean(rounds))
    if cell.metric == "average_local":
        return float(np.mean(local))
    if cell.metric == "distance":
        assert problem.solution is not None
        return float(np.sum((mean - problem.solution) ** 2))
    last = float(problem.node_losses(np.tile(mean, (n, 1))).mean())
    return min(last, *rounds) if cell.metric == "best" else last


def attained(
    found: WorstCase, n_nodes: int = 2, accuracy: float = 1e-6
) -> tuple[float, ExtremalProblem]:
    """The value simulated on the instance of lowest dimension that attains the worst case.

    Tries coarse rank cuts first; the last one keeps every eigenvalue.

    Returns:
        The simulated value and the problem; it is the caller's to compare with ``found.value``.

    Raises:
        RuntimeError: the interpolant could not be evaluated at any cut.
    """
    cuts = (1e-4, 1e-5, 1e-6, 1e-8, 0.0) if found.cell.points <= FEW_POINTS else (1e-5, 0.0)
    closest: tuple[float, ExtremalProblem] | None = None
    failure: RuntimeError | None = None
    for cut in cuts:
        problem = extremal_problem(found, n_nodes, cut)
        try:
            value = simulated_value(problem, found.cell)
        except RuntimeError as error:
            failure = error
            continue
        if closest is None or abs(value - found.value) < abs(closest[0] - found.value):
            closest = value, problem
        if abs(value - found.value) <= accuracy:
            break
    if closest is None:
        assert failure is not None
        raise failure
    return closest
