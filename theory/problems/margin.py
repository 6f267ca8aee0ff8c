"""Over-parameterized problems that know their own constants.

A problem is n nodes, each with its own samples, and f_i(x; j) = loss(a_j'x, t_j). Node i's objective
f_i is the mean over its samples, f the mean of the f_i. Constants are closed forms or come from one
dense factorisation of the samples, in the span in which the iterates move (:mod:`row space
<theory.problems.row_space>` of the data).
:mod:`theory.problems.generators` makes such problems from a seed, :mod:`theory.problems.files` from your files.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from theory.problems.data import check_values, checked_sizes, equal_nodes, squared_norms, stacked
from theory.problems.losses import HARD_LOGISTIC, LOSSES, SQUARED, MarginLoss, check_loss
from theory.problems.protocols import Indices
from theory.problems.row_space import EPS, Constant, RowSpace
from theory.problems.separation import hull_weights, least_value
from theory.support import memory
from theory.support.errors import UserError

Array = NDArray[np.float64]

# How far the best fit may miss a target, relative to the largest residual at x_0, and still
# interpolate: what it leaves of the loss, its square, is rounding beside the loss at x_0.
INTERPOLATION_TOLERANCE = 1e-8


class MarginProblem:
    """n nodes with losses of linear margins, f_i(x) = (1/m_i) sum_j loss(a_j'x, t_j).

    Args:
        features: one (m_i, d) array a node; the m_i may differ, none may be 0. One array (n, m, d) is
            kept as it is, not copied.
        targets: one (m_i,) array a node; meaning as in ``loss`` (for the attained losses, the margin
            at which the sample's loss is 0).
        loss: a :class:`theory.problems.losses.MarginLoss`.
        start: x_0, (d,); zeros if not given.
        smoothness: a declared L, for classes wider than this member of it; at least the computed L.
        name: what tables call the problem.
        heterogeneity: what tables say about the nodes' similarity.

    Raises:
        UserError: NaN or infinite data, features that are all 0, an empty node, shapes that disagree,
            hard labels other than -1 and 1, targets that no x fits (A2 would fail), a declared
            smoothness below the computed one, or a loss that is not what it says (see
            :func:`theory.problems.losses.check_loss`).
    """

    def __init__(
        self,
        features: Sequence[Array] | Array,
        targets: Sequence[Array] | Array,
        loss: MarginLoss = SQUARED,
        *,
        start: Array | None = None,
        smoothness: float | None = None,
        name: str = "custom",
        heterogeneity: str = "given",
    ) -> None:
        self.loss, self.name, self.heterogeneity = loss, name, heterogeneity
        sizes = checked_sizes(features, targets)
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes)])
        self.features: Array = np.ascontiguousarray(stacked(features), dtype=np.float64)
        self.targets: Array = np.concatenate([np.ravel(t) for t in targets]).astype(np.float64)
        check_values(self.features, self.targets, hard=loss is HARD_LOGISTIC)
        self.start: Array = np.zeros(self.dimension) if start is None else np.asarray(start, float)
        if self.start.shape != (self.dimension,) or not np.isfinite(self.start).all():
            raise UserError(
                f"start has shape {self.start.shape}, allowed: ({self.dimension},), finite numbers"
            )
        if loss not in LOSSES:
            # By Lemma 1 no margin gets farther from its target than twice the first ones, about.
            check_loss(loss, self.targets, 2.0 * float(np.abs(self._start_residual).max()))
        self._declare(smoothness)
        if loss.attained and self._miss > self._allowed_miss:
            raise UserError(
                f"no x interpolates the samples: the best fit misses a target by {self._miss:.2g}, "
                f"allowed: {self._allowed_miss:.2g}, {INTERPOLATION_TOLERANCE:g} of the largest "
                "residual at x_0 and rounding (A2 fails; add dimensions or remove samples)"
            )

    def declared(self, smoothness: float) -> MarginProblem:
        """The same problem, with this L declared for it; at least its own."""
        wider = copy.copy(self)
        wider.__dict__.pop("_constants", None)
        wider._declare(smoothness)
        return wider

    def _declare(self, smoothness: float | None) -> None:
        self._declared_smoothness = smoothness
        if smoothness is not None and not smoothness >= self.data_smoothness * (1 - 1e-12):
            raise UserError(
                f"smoothness {smoothness:g} is below the data's own {self.data_smoothness:g}"
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

    def sample_losses(self, models: Array, indices: Indices) -> Array:
        """Mean loss over the sampled rows of each node, (runs, n); arguments as below."""
        rows = self.offsets[:-1, None] + indices
        margins = np.einsum("pnbd,pnd->pnb", self.features[rows], models)
        return np.asarray(self.loss.value(margins, self.targets[rows]).mean(axis=-1))

    def sample_gradients(self, models: Array, indices: Indices) -> Array:
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
    def squared_norms(self) -> Array:
        """||a_j||^2 of every sample, (N,)."""
        return squared_norms(self.features)

    @cached_property
    def gram(self) -> Array:
        """G = A A', (N, N)."""
        memory.require(
            8.0 * self.n_samples**2, f"the Gram matrix of {self.n_samples:,} samples", "the samples"
        )
        return self.features @ self.features.T

    @cached_property
    def row_space(self) -> RowSpace:
        """The factored samples."""
        return RowSpace.of(self.features)

    @cached_property
    def coordinates(self) -> Array:
        """The samples in an orthonormal basis of their span: C, (N, r), with C C' = G."""
        return self.row_space.coordinates

    @property
    def rank(self) -> int:
        """Dimension r of the span of the samples, in which x - x_0 moves."""
        return self.row_space.rank

    @cached_property
    def _start_residual(self) -> Array:
        return self.targets - self.features @ self.start

    @cached_property
    def solution_coefficients(self) -> Array:
        """alpha with x* = x_0 + A' alpha, (N,)."""
        found = self.row_space.coefficients(self._start_residual)
        # One refinement takes back what the square of the condition has cost.
        rest = self._start_residual - self.features @ (self.features.T @ found)
        return np.asarray(found + self.row_space.coefficients(rest))

    @cached_property
    def _miss(self) -> float:
        """Largest miss of the best fit."""
        residual = self._start_residual
        return float(np.abs(residual - self.row_space.project(residual)).max())

    @cached_property
    def _allowed_miss(self) -> float:
        """What counts as interpolation: a share of the residual at x_0, and its rounding."""
        share = INTERPOLATION_TOLERANCE * float(np.abs(self._start_residual).max())
        return share + self._residual_rounding

    @cached_property
    def _residual_rounding(self) -> float:
        """What rounding may leave of a residual at x_0."""
        sizes = np.abs(self.targets)
        if self.start.any():
            sizes = sizes + np.abs(self.features) @ np.abs(self.start)
        return float((4 + np.sqrt(self.dimension)) * EPS * sizes.max())

    @cached_property
    def interpolation_error(self) -> float:
        """How far the best fit misses a target, where that is more than rounding; else 0.

        The fit itself is rounded like a residual, N terms a sample.
        """
        largest = float(np.abs(self._start_residual).max())
        rounding = self._residual_rounding + (4 + np.sqrt(len(self.targets))) * EPS * largest
        return self._miss if self._miss > 4 * rounding else 0.0

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
        return float(self.loss.curvature * self.squared_norms.max())

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
        radius = np.sqrt(self.squared_norms) * np.sqrt(self.initial_distance)
        return self.loss.curvature_within(self.targets, radius)

    @property
    def growth_radius(self) -> float:
        """Distance from x* within which the growth constants hold: everywhere for least squares."""
        return float("inf") if self.loss is SQUARED else float(np.sqrt(self.initial_distance))

    @cached_property
    def hessians(self) -> Array:
        """H_i for unit curvature, in row-space coordinates, (n, r, r): the Hessians of least squares."""
        memory.require(
            8.0 * self.n_nodes * self.rank**2,
            f"a Hessian of rank {self.rank:,} for each of {self.n_nodes:,} nodes",
            "the nodes or the rank (--nodes)",
        )
        out = np.empty((self.n_nodes, self.rank, self.rank))
        for i, s in enumerate(self._nodes):
            out[i] = self.coordinates[s].T @ self.coordinates[s] / self.node_sizes[i]
        return out

    @property
    def _nodes(self) -> list[slice]:
        return [self.node_slice(i) for i in range(self.n_nodes)]

    @cached_property
    def _constants(self) -> dict[str, Constant]:
        """c, mu and rho with the doubts about them."""
        space, weights = self.row_space, self.sample_weights
        norms = self.squared_norms
        found = {"strong_growth": space.strong_growth(weights, norms, self.loss is not SQUARED)}
        floors = self.curvature_floor
        if floors is None:
            found |= dict.fromkeys(("similarity", "local_growth", "global_growth"), Constant(0.0))
        else:
            rows = np.sqrt(weights * floors)[:, None] * self.coordinates
            found["global_growth"] = space.growth(rows, self.smoothness)
            own = [
                space.growth(np.sqrt(self.n_nodes) * rows[s], self.smoothness) for s in self._nodes
            ]
            found["local_growth"] = min(own, key=lambda found: (found.value, found.doubt))
            shares = floors / self.loss.curvature
            found["similarity"] = space.similarity(weights, shares, self._nodes)
        if equal_nodes(self.features, self.targets, self._nodes):
            found["similarity"] = Constant(1.0)
        return found

    @property
    def doubts(self) -> dict[str, str]:
        """Constants that double precision can't decide, by name, with the reason."""
        return {name: found.doubt for name, found in self._constants.items() if found.doubt}

    @property
    def local_growth(self) -> float:
        """mu of A4: f_i(x) >= (mu/2)||x - x*||^2 for every i, on the span (and ball) of the iterates."""
        return self._constants["local_growth"].value

    @property
    def global_growth(self) -> float:
        """mu of A4': the same for f only."""
        return self._constants["global_growth"].value

    @property
    def similarity(self) -> float:
        """c of A3: f_i >= c f. Exact for least squares, a certified lower bound for soft logistic.

        1 exactly when all nodes hold the same samples; 0 when A3 fails or no constant is known.
        """
        return self._constants["similarity"].value

    @property
    def strong_growth(self) -> float:
        """rho of A5: (1/n) sum_i E||grad f_i(x; xi)||^2 <= rho ||grad f(x)||^2; inf where unknown.

        Exact for least squares; for other losses finite when the samples are independent.
        """
        return self._constants["strong_growth"].value

    @cached_property
    def separating_direction(self) -> Array | None:
        """Unit w of the largest margin (hard-margin SVM), (d,); None where labels aren't separable."""
        if self.loss is not HARD_LOGISTIC:
            return None
        weights = hull_weights(self.targets[:, None] * self.coordinates)
        direction = self.features.T @ (self.targets * weights)
        norm = np.linalg.norm(direction)
        return direction / norm if norm > 0 else None

    @cached_property
    def margin(self) -> float:
        """gamma: min_j y_j <w, a_j> for the separating direction found; 0 if not separable."""
        if self.separating_direction is None:
            return 0.0
        return max(0.0, float((self.targets * (self.features @ self.separating_direction)).min()))

    @cached_property
    def least_loss(self) -> float:
        """inf f: 0 under interpolation and for separable labels, else found numerically.

        The theorems need 0. With labels that nothing separates it says by how much they fail.
        """
        if self.loss.attained or self.margin > 0:
            return 0.0
        c, w = self.coordinates, self.sample_weights

        def value_and_slope(z: Array) -> tuple[float, Array]:
            margins = c @ z
            slopes = self.loss.derivative(margins, self.targets) * w
            return float(self.loss.value(margins, self.targets) @ w), slopes @ c

        return least_value(value_and_slope, self.rank)
