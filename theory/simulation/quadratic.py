"""Least squares in row-space coordinates, and powers of its step, for exact expectations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory.problems.margin import MarginProblem
from theory.support import memory

Array = NDArray[np.float64]
# Powers below e^-100 are scaled: their squares would soon leave the range of double precision.
_SCALED_BELOW = -100.0


class Quadratic:
    """The problem in row-space coordinates; r is its rank, ragged nodes are padded with zero rows."""

    def __init__(self, problem: MarginProblem) -> None:
        self.n, self.r = problem.n_nodes, problem.rank
        # Hessians, their eigenvectors and rows; moments, powers and what a step computes in between.
        memory.require(
            8.0 * self.n * self.r**2 * 9,
            f"exact moments of rank {self.r:,} at {self.n:,} nodes",
            "the nodes or the rank (--nodes), or choose another engine",
        )
        self.hessians = problem.hessians
        self.mean_hessian = self.hessians.mean(axis=0)
        self.curvatures, self.directions = np.linalg.eigh(self.hessians)
        self.rows = np.zeros((self.n, int(problem.node_sizes.max()), self.r))
        for i in range(self.n):
            self.rows[i, : problem.node_sizes[i]] = problem.coordinates[problem.node_slice(i)]
        self.sizes = problem.node_sizes[:, None, None].astype(float)
        # z_0 in row-space coordinates: C' alpha for x_0 - x* = -A' alpha.
        self.start = -(problem.coordinates.T @ problem.solution_coefficients)

    def powers(self, etas: Array, k: NDArray[np.int64]) -> tuple[Array, Array]:
        """(P_i^k, log of its scale) for each setting's eta and k, (C,) each: (C, n, r, r) and (C,).

        The scale is 1 where the largest factor is not tiny.
        """
        factors = 1.0 - etas[:, None, None] * self.curvatures
        with np.errstate(divide="ignore"):
            largest = k * np.log(np.abs(factors).max(axis=(1, 2)))
        logs = np.where(np.isfinite(largest) & (largest < _SCALED_BELOW), largest, 0.0)
        shrunk = np.exp(-logs / np.maximum(k, 1))
        factors = (factors * shrunk[:, None, None]) ** k[:, None, None]
        turned = self.directions * factors[:, :, None, :]
        return np.asarray(turned @ np.swapaxes(self.directions, 1, 2)), logs
