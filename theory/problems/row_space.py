"""The span of the samples, and the constants c, mu and rho in it, decided on singular values.

Everything comes from the singular value decomposition A = U S V' of the samples and from triangular
factors of rescaled rows of U. No Gram matrix is factored: its eigenvalues are the squares of the
singular values, and what lies below 1e-8 of the largest would be lost in them.

What double precision can't decide is said so: a :class:`Constant` with a ``doubt``, and the value that
makes its assumption fail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from theory.support import memory

Array = NDArray[np.float64]
EPS = float(np.finfo(float).eps)
# Singular values below this share of the largest count as zero: data with that many digits, and the
# rounding of the factorisation, can't tell.
RANK_TOLERANCE = 1e-12
# eta mu below this share is lost in 1 - eta mu.
GROWTH_TOLERANCE = EPS
#: Bytes of samples that are factored at a time; less than this is factored in one piece.
_BLOCK = 1 << 26


@dataclass(frozen=True)
class Constant:
    """A constant, and why it can't be decided in double precision ("" where it can)."""

    value: float
    doubt: str = ""


@dataclass(frozen=True)
class RowSpace:
    """A = U S V' without V.

    Attributes:
        left: U, (N, r), orthonormal columns.
        singular_values: (r,), falling, above RANK_TOLERANCE of the largest.
        doubtful: the largest singular value left out that is above what rounding alone makes, over the
            largest; 0 if there is none.
    """

    left: Array
    singular_values: Array
    doubtful: float

    @classmethod
    def of(cls, samples: Array) -> RowSpace:
        """Factor the samples, (N, d), not all 0. Cost: O(N d min(N, d)) flops; if N is
        much less than d, memory for a few N x N only."""
        wide = samples.shape[0] <= samples.shape[1]
        memory.require(
            # The small factor with its singular vectors and their workspace.
            8.0 * min(samples.shape) * (4 * samples.shape[0] + 2 * min(samples.shape)),
            f"factoring {samples.shape[0]:,} samples of {samples.shape[1]:,} features",
            "the samples or the features (--nodes, --dimension)",
        )
        # A' = Q R, so A = R' Q' has the singular values and the U of the small R'.
        small = _triangle(samples.T).T if wide else samples
        left, values, _ = np.linalg.svd(small, full_matrices=False)
        shares = values / values[0]
        # Errors of a factorisation add up like their squares; the worst case, in the place of the root,
        # would count what a wide matrix of data has below 1e-12 as rounding, and no one would hear of it.
        rounding = 4 * np.sqrt(max(samples.shape)) * EPS
        keep = shares > max(RANK_TOLERANCE, 2 * rounding)
        unsure = shares[(shares > rounding) & ~keep]
        return cls(
            np.ascontiguousarray(left[:, keep]),
            values[keep],
            float(unsure[0]) if len(unsure) else 0.0,
        )

    @property
    def rank(self) -> int:
        """r."""
        return len(self.singular_values)

    @property
    def coordinates(self) -> Array:
        """The samples in an orthonormal basis of their span: C = U S, (N, r)."""
        return np.ascontiguousarray(self.left * self.singular_values)

    def project(self, values: Array) -> Array:
        """The part of (N,) that some x attains as A x."""
        return np.asarray(self.left @ (self.left.T @ values))

    def coefficients(self, values: Array) -> Array:
        """alpha of least norm with A A' alpha = the attainable part of ``values``, (N,)."""
        return np.asarray(self.left @ ((self.left.T @ values) / self.singular_values**2))

    # ---- constants -------------------------------------------------------------------------------

    def _rank_doubt(self) -> str:
        if not self.doubtful:
            return ""
        return (
            f"can't be decided in double precision: a singular value of the samples is "
            f"{self.doubtful:.1e} of the largest"
        )

    def growth(self, rows: Array, smoothness: float) -> Constant:
        """mu = the smallest eigenvalue of F'F.

        Args:
            rows: F, (m, r), rows of the coordinates, rescaled.
            smoothness: L, against which mu must count.
        """
        if self._rank_doubt():
            return Constant(0.0, self._rank_doubt())
        if len(rows) < self.rank:
            return Constant(0.0)
        values = np.linalg.svd(rows, compute_uv=False)
        if values[-1] <= 10 * max(rows.shape) * EPS * values[0]:
            return Constant(0.0)
        mu = float(values[-1] ** 2)
        if mu <= GROWTH_TOLERANCE * smoothness:
            return Constant(0.0, f"mu is about {mu:.0e}: 1 - eta mu is 1 in double precision")
        return Constant(mu)

    def similarity(self, weights: Array, floors: Array, nodes: list[slice]) -> Constant:
        """Smallest generalised eigenvalue of (node Hessian with floors, Hessian), over all nodes.

        With sqrt(W) A = Q R, H = R'R and H_i = n R' Q_i' diag(floors) Q_i R, so it is n times the least
        squared singular value of diag(sqrt(floors)) Q_i.

        Args:
            weights: of the samples in f, 1/(n m_i), (N,).
            floors: least over largest curvature of each sample's loss, in (0, 1], (N,).
            nodes: the rows of each node.
        """
        if self._rank_doubt():
            return Constant(0.0, self._rank_doubt())
        if any(s.stop - s.start < self.rank for s in nodes):
            return Constant(0.0)
        q, _ = np.linalg.qr(np.sqrt(weights)[:, None] * self.left)
        q *= np.sqrt(floors)[:, None]
        least = min(float(np.linalg.svd(q[s], compute_uv=False)[-1]) for s in nodes)
        # What rounding of the samples turns the smallest directions by.
        error = len(q) * EPS * float(self.singular_values[0] / self.singular_values[-1])
        if least <= 10 * error and error <= 1e-8:
            return Constant(0.0)
        if least <= 1e3 * error:
            c = len(nodes) * least**2
            return Constant(0.0, f"c is about {c:.0e}: can't be told from 0 in double precision")
        return Constant(min(1.0, len(nodes) * least**2))

    def strong_growth(self, weights: Array, norms: Array, any_slopes: bool) -> Constant:
        """rho: the largest (1/n) sum_i E||g||^2 / ||grad f||^2, infinite where there is none.

        With u_j = sqrt(w_j) loss'_j the two sides are u' diag(norms) u and ||(sqrt(W) A)' u||^2,
        sqrt(W) A = Q R.

        Args:
            weights: of the samples in f, (N,).
            norms: ||a_j||^2, (N,).
            any_slopes: whether the slopes are free (rho is finite only for independent samples), or
                those of least squares under interpolation, u = Q v.
        """
        if self._rank_doubt():
            return Constant(float("inf"), self._rank_doubt())
        if not any_slopes:
            q, triangle = np.linalg.qr(np.sqrt(weights)[:, None] * self.left)
            image = solve_triangular(triangle, (np.sqrt(norms)[:, None] * q).T).T
            image /= self.singular_values
            return Constant(max(1.0, float(np.linalg.norm(image, 2) ** 2)))
        moving = norms > 0  # a sample that is 0 has no gradient
        if self.rank < moving.sum():
            return Constant(float("inf"))
        scaled = (np.sqrt(weights / np.where(moving, norms, 1.0))[:, None] * self.coordinates)[
            moving
        ]
        least = float(np.linalg.svd(scaled, compute_uv=False)[-1])
        return Constant(max(1.0, 1.0 / least**2))


def _triangle(tall: Array) -> Array:
    """R of A = Q R for A (d, N), d >= N: block after block of rows, where a copy of A would count."""
    n = tall.shape[1]
    block = max(16 * n, _BLOCK // (8 * n))
    found = np.asarray(np.linalg.qr(tall[:block], mode="r"))
    for i in range(block, len(tall), block):
        found = np.asarray(np.linalg.qr(np.vstack([found, tall[i : i + block]]), mode="r"))
    return found
