"""Over-parameterized problems that know their own constants.

A problem is n nodes, each with its own samples, and f_i(x; j) = loss(a_j'x, t_j). Node i's objective
f_i is the mean over its samples, f the mean of the f_i. Constants are closed forms or come from one
dense factorisation of the Gram matrix, in the span in which the iterates move (row space of the data).
:mod:`theory.problems.generators` makes such problems from a seed, :mod:`theory.problems.files` from your files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from theory.problems.losses import HARD_LOGISTIC, SQUARED, MarginLoss
from theory.support.errors import UserError

Array = NDArray[np.float64]

# Singular values below this share of the largest count as zero in every rank decision.
RANK_TOLERANCE = 1e-10
# How far the best fit may miss a target, relative to the largest one, and still interpolate.
INTERPOLATION_TOLERANCE = 1e-8


class MarginProblem:
    """n nodes with losses of linear margins, f_i(x) = (1/m_i) sum_j loss(a_j'x, t_j).

    Args:
        features: one (m_i, d) array a node; the m_i may differ, none may be 0.
        targets: one (m_i,) array a node; meaning as in ``loss`` (for the attained losses, the margin
            at which the sample's loss is 0).
        loss: a :class:`theory.problems.losses.MarginLoss`.
        start: x_0, (d,); zeros if not given.
        smoothness: a declared L, for classes wider than this member of it; at least the computed L.
        name: what tables call the problem.
        heterogeneity: what tables say about the nodes' similarity.

    Raises:
        UserError: NaN or infinite data, an empty node, shapes that disagree, targets that no x fits
            (A2 would fail), or a declared smoothness below the computed one.
    """

    def __init__(
        self,
        features: Sequence[Array],
        targets: Sequence[Array],
        loss: MarginLoss = SQUARED,
        *,
        start: Array | None = None,
        smoothness: float | None = None,
        name: str = "custom",
        heterogeneity: str = "given",
    ) -> None:
        self.loss, self.name, self.heterogeneity = loss, name, heterogeneity
        sizes = _checked_sizes(features, targets)
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)])
        self.features: Array = np.ascontiguousarray(np.concatenate(features), dtype=np.float64)
        self.targets: Array = np.concatenate([np.ravel(t) for t in targets]).astype(np.float64)
        if not (np.isfinite(self.features).all() and np.isfinite(self.targets).all()):
            raise UserError("the data hold NaN or infinite values; every number must be finite")
        self.start: Array = np.zeros(self.dimension) if start is None else np.asarray(start, float)
        if self.start.shape != (self.dimension,):
            raise UserError(f"start has shape {self.start.shape}, allowed: ({self.dimension},)")
        self._declared_smoothness = smoothness
        if smoothness is not None and smoothness < self.data_smoothness * (1 - 1e-12):
            raise UserError(
                f"smoothness {smoothness:g} is below the data's own {self.data_smoothness:g}"
            )
        if loss.attained and self.interpolation_error > INTERPOLATION_TOLERANCE:
            raise UserError(
                "no x interpolates the samples: the best fit misses a target by "
                f"{self.interpolation_error:.2g} of the largest one, allowed: "
                f"{INTERPOLATION_TOLERANCE:g} (A2 fails; add dimensions or remove samples)"
            )

    # ---- shape -----------------------------------------------------------------------------------

    @property
    def n_nodes(self) -> int:
        """n."""
        return len(self.offsets) - 1

    @property
    def n_samples(self) -> int:
        """N, over all nodes."""
        return int(self.features.shape[0])

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.features.shape[1])

    @cached_property
    def node_sizes(self) -> NDArray[np.int64]:
        """m_i, (n,)."""
        return np.diff(self.offsets)

    @cached_property
    def node_of_sample(self) -> NDArray[np.int64]:
        """Node that owns each sample, (N,)."""
        return np.repeat(np.arange(self.n_nodes), self.node_sizes)

    @cached_property
    def sample_weights(self) -> Array:
        """Weight of each sample in f, 1/(n m_i), (N,)."""
        return 1.0 / (self.n_nodes * self.node_sizes[self.node_of_sample])

    def node_slice(self, node: int) -> slice:
        """Rows of ``features`` that node ``node`` owns."""
        return slice(int(self.offsets[node]), int(self.offsets[node + 1]))

    # ---- values and gradients --------------------------------------------------------------------

    def margins(self, models: Array) -> Array:
        """All N margins of each model: (..., d) -> (..., N)."""
        return models @ self.features.T

    def loss_of_margins(self, margins: Array) -> Array:
        """f from margins: (..., N) -> (...)."""
        return self.loss.value(margins, self.targets) @ self.sample_weights

    def global_loss(self, models: Array) -> Array:
        """f: (..., d) -> (...)."""
        return self.loss_of_margins(self.margins(models))

    def global_gradient(self, models: Array) -> Array:
        """Gradient of f: (..., d) -> (..., d)."""
        slopes = self.loss.derivative(self.margins(models), self.targets)
        return (slopes * self.sample_weights) @ self.features

    def node_losses(self, models: Array) -> Array:
        """f_i at node i's model: (..., n, d) -> (..., n)."""
        values = [
            self.loss.value(models[..., i, :] @ self.features[s].T, self.targets[s]).mean(axis=-1)
            for i, s in enumerate(map(self.node_slice, range(self.n_nodes)))
        ]
        return np.stack(values, axis=-1)

    def node_gradients(self, models: Array) -> Array:
        """Gradient of f_i at node i's model: (..., n, d) -> (..., n, d)."""
        gradients = np.empty_like(models)
        for i, s in enumerate(map(self.node_slice, range(self.n_nodes))):
            margins = models[..., i, :] @ self.features[s].T
            slopes = self.loss.derivative(margins, self.targets[s]) / self.node_sizes[i]
            gradients[..., i, :] = slopes @ self.features[s]
        return gradients

    def sample_losses(self, models: Array, indices: NDArray[np.int64]) -> Array:
        """Mean loss over the sampled rows of each node, (runs, n); arguments as below."""
        rows = self.offsets[:-1, None] + indices
        margins = np.einsum("pnbd,pnd->pnb", self.features[rows], models)
        return np.asarray(self.loss.value(margins, self.targets[rows]).mean(axis=-1))

    def sample_gradients(self, models: Array, indices: NDArray[np.int64]) -> Array:
        """Mean gradient over the sampled rows of each node.

        Args:
            models: (runs, n, d).
            indices: sample numbers within each node, (runs, n, batch_size).
        """
        rows = self.offsets[:-1, None] + indices
        chosen = self.features[rows]
        margins = np.einsum("pnbd,pnd->pnb", chosen, models)
        slopes = self.loss.derivative(margins, self.targets[rows]) / indices.shape[-1]
        return np.einsum("pnb,pnbd->pnd", slopes, chosen)

    # ---- row space -------------------------------------------------------------------------------

    @cached_property
    def gram(self) -> Array:
        """G = A A', (N, N)."""
        return self.features @ self.features.T

    @cached_property
    def coordinates(self) -> Array:
        """The samples in an orthonormal basis of their span: C, (N, r), with C C' = G."""
        eigenvalues, vectors = np.linalg.eigh(self.gram)
        keep = eigenvalues > RANK_TOLERANCE * max(eigenvalues[-1], np.finfo(float).tiny)
        return np.ascontiguousarray(vectors[:, keep] * np.sqrt(eigenvalues[keep]))

    @property
    def rank(self) -> int:
        """Dimension r of the span of the samples, in which x - x_0 moves."""
        return int(self.coordinates.shape[1])

    @cached_property
    def solution_coefficients(self) -> Array:
        """alpha with x* = x_0 + A' alpha, (N,)."""
        residual = self.targets - self.features @ self.start
        c = self.coordinates
        norms = (c**2).sum(axis=0)  # the kept eigenvalues of G: C = V sqrt(lambda)
        return (c / norms**2) @ (c.T @ residual) if self.rank else np.zeros(self.n_samples)

    @cached_property
    def interpolation_error(self) -> float:
        """Largest miss of the best fit, relative to the largest target (or to 1)."""
        residual = self.targets - self.features @ self.start
        miss = residual - self.gram @ self.solution_coefficients
        return float(np.abs(miss).max() / max(1.0, np.abs(self.targets).max()))

    @cached_property
    def solution(self) -> Array | None:
        """x*, the minimiser nearest to x_0, (d,); None where the minimum is not attained."""
        if not self.loss.attained:
            return None
        return self.start + self.features.T @ self.solution_coefficients

    @cached_property
    def initial_distance(self) -> float:
        """D = ||x_0 - x*||^2; infinite where no minimiser exists."""
        if self.solution is None:
            return float("inf")
        return float(np.sum((self.start - self.solution) ** 2))

    # ---- constants -------------------------------------------------------------------------------

    @cached_property
    def data_smoothness(self) -> float:
        """Smallest L that makes every sample's loss L-smooth (by the loss's curvature bound)."""
        return float(self.loss.curvature * (self.features**2).sum(axis=1).max())

    @property
    def smoothness(self) -> float:
        """L of A0: declared, or the data's own."""
        return (
            self.data_smoothness if self._declared_smoothness is None else self._declared_smoothness
        )

    @property
    def convex(self) -> bool:
        """A1: whether every sample's loss is convex."""
        return self.loss.convex

    @cached_property
    def node_smoothness(self) -> float:
        """L of every f_i, at most ``smoothness``: what full gradients see."""
        largest = float(np.linalg.eigvalsh(self.hessians)[:, -1].max()) if self.rank else 0.0
        return self.loss.curvature * largest

    @cached_property
    def global_smoothness(self) -> float:
        """L of f itself, at most ``smoothness``: for methods that take its full gradient."""
        largest = float(np.linalg.eigvalsh(self.hessians.mean(axis=0))[-1]) if self.rank else 0.0
        return self.loss.curvature * largest

    @cached_property
    def curvature_floor(self) -> Array | None:
        """Least second derivative of each sample's loss where the iterates can be, (N,).

        By Lemma 1 no node leaves the ball of radius sqrt(D) about x*, so margins stay within
        ||a_j|| sqrt(D) of their targets, and growth need only hold there. None without such a floor.
        """
        if self.loss.curvature_within is None:
            return None
        radius = np.linalg.norm(self.features, axis=1) * np.sqrt(self.initial_distance)
        return self.loss.curvature_within(self.targets, radius)

    def _node_hessians(self, weights: Array) -> Array:
        """(1/m_i) sum_j weight_j c_j c_j' in row-space coordinates, (n, r, r)."""
        out = np.empty((self.n_nodes, self.rank, self.rank))
        for i in range(self.n_nodes):
            s = self.node_slice(i)
            block = self.coordinates[s]
            out[i] = (block * weights[s, None]).T @ block / self.node_sizes[i]
        return out

    @cached_property
    def hessians(self) -> Array:
        """H_i for unit curvature, in row-space coordinates, (n, r, r): the Hessians of least squares."""
        return self._node_hessians(np.ones(self.n_samples))

    @cached_property
    def local_growth(self) -> float:
        """mu of A4: f_i(x) >= (mu/2)||x - x*||^2 for every i, on the span (and ball) of the iterates."""
        if self.curvature_floor is None:
            return 0.0
        smallest = np.linalg.eigvalsh(self._node_hessians(self.curvature_floor))[:, 0].min()
        return _positive_or_zero(float(smallest), self.smoothness)

    @cached_property
    def global_growth(self) -> float:
        """mu of A4': the same for f only."""
        if self.curvature_floor is None:
            return 0.0
        mean = self._node_hessians(self.curvature_floor).mean(axis=0)
        return _positive_or_zero(float(np.linalg.eigvalsh(mean)[0]), self.smoothness)

    @cached_property
    def similarity(self) -> float:
        """c of A3: f_i >= c f. Exact for least squares, a certified lower bound for soft logistic.

        The smallest generalised eigenvalue of (floor of H_i, ceiling of H); 1 exactly when all nodes
        hold the same samples; 0 when A3 fails or no constant is known.
        """
        if self._nodes_equal:
            return 1.0
        if self.curvature_floor is None:
            return 0.0
        floors = self._node_hessians(self.curvature_floor)
        ceiling = self.hessians.mean(axis=0) * self.loss.curvature
        half = np.linalg.cholesky(ceiling)
        whitened = np.linalg.solve(half, floors)
        whitened = np.linalg.solve(half, np.swapaxes(whitened, 1, 2))
        return min(1.0, _positive_or_zero(float(np.linalg.eigvalsh(whitened)[:, 0].min()), 1.0))

    @cached_property
    def _nodes_equal(self) -> bool:
        if np.unique(self.node_sizes).size > 1:
            return False
        first = self.node_slice(0)
        return all(
            np.array_equal(self.features[first], self.features[self.node_slice(i)])
            and np.array_equal(self.targets[first], self.targets[self.node_slice(i)])
            for i in range(1, self.n_nodes)
        )

    @cached_property
    def strong_growth(self) -> float:
        """rho of A5: (1/n) sum_i E||grad f_i(x; xi)||^2 <= rho ||grad f(x)||^2; inf where unknown.

        With u_j = sqrt(w_j) loss'_j the two sides are u' diag(||a||^2) u and u' M u,
        M = sqrt(W) G sqrt(W). Least squares: u runs over a range, exact. Other losses: u is free, so
        rho is the largest generalised eigenvalue, finite when the samples are independent.
        """
        norms = (self.features**2).sum(axis=1)
        root = np.sqrt(self.sample_weights)
        if self.loss is SQUARED:
            c = self.coordinates
            second = (c * (self.sample_weights * norms)[:, None]).T @ c
            hessian = (c * self.sample_weights[:, None]).T @ c
            inverse = np.linalg.inv(hessian)
            return max(1.0, float(np.linalg.eigvalsh(_symmetric(inverse @ second @ inverse))[-1]))
        if self.rank < self.n_samples:
            return float("inf")
        scaled = root / np.sqrt(norms)
        smallest = np.linalg.eigvalsh(self.gram * scaled[:, None] * scaled[None, :])[0]
        return max(1.0, 1.0 / float(smallest))

    @cached_property
    def separating_direction(self) -> Array | None:
        """Unit w of the largest margin (hard-margin SVM), (d,); None where labels aren't separable."""
        if self.loss is not HARD_LOGISTIC:
            return None
        signed = self.targets[:, None] * self.coordinates
        # The min-norm point of the convex hull of the signed samples: with a row of ones appended,
        # non-negative least squares onto (0, 1) returns a multiple of its weights.
        weights, _ = nnls(np.vstack([signed.T, np.ones(self.n_samples)]), _last_unit(self.rank + 1))
        direction = self.features.T @ (self.targets * weights)
        norm = np.linalg.norm(direction)
        return direction / norm if norm > 0 else None

    @cached_property
    def margin(self) -> float:
        """gamma: min_j y_j <w, a_j> for the separating direction found; 0 if not separable."""
        if self.separating_direction is None:
            return 0.0
        return max(0.0, float((self.targets * (self.features @ self.separating_direction)).min()))


def _checked_sizes(features: Sequence[Array], targets: Sequence[Array]) -> list[int]:
    if not features or len(features) != len(targets):
        raise UserError(
            f"{len(features)} nodes of features and {len(targets)} of targets; "
            "allowed: the same number, at least 1"
        )
    sizes = [len(block) for block in features]
    for node, (block, target) in enumerate(zip(features, targets, strict=True)):
        if len(block) == 0:
            raise UserError(f"node {node} has no samples; every node needs at least 1")
        if np.ndim(block) != 2 or np.shape(block)[1] != np.shape(features[0])[1]:
            raise UserError(
                f"node {node} has features of shape {np.shape(block)}, "
                f"allowed: (m, {np.shape(features[0])[-1]})"
            )
        if np.size(target) != len(block):
            raise UserError(f"node {node} has {len(block)} samples but {np.size(target)} targets")
    return sizes


def _positive_or_zero(value: float, scale: float) -> float:
    return value if value > RANK_TOLERANCE * scale else 0.0


def _symmetric(matrix: Array) -> Array:
    return 0.5 * (matrix + matrix.T)


def _last_unit(size: int) -> Array:
    unit = np.zeros(size)
    unit[-1] = 1.0
    return unit
