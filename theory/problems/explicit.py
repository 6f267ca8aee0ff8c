"""Problems of a few nodes given by formulas: what instances are made of.

Every node holds one sample, so full and stochastic gradients are the same, L is that of the f_i
themselves, and the constants are those of the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.problems.margin import MarginProblem
from theory.problems.protocols import Indices

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ExplicitProblem:
    """n nodes whose losses and gradients are formulas; x* = 0.

    Attributes:
        name: what tables call it.
        start: x_0, (d,).
        losses: f_i at node i's model, (..., n, d) -> (..., n).
        gradients: its gradients, (..., n, d) -> (..., n, d).
        n_nodes: n.
        smoothness: L of every f_i.
        global_smoothness: L of f.
        similarity: c of A3.
        local_growth, global_growth: mu of A4 and A4', everywhere.
        strong_growth: rho of A5.
    """

    name: str
    start: Array
    losses: Callable[[Array], Array]
    gradients: Callable[[Array], Array]
    n_nodes: int
    smoothness: float
    global_smoothness: float
    similarity: float
    local_growth: float
    global_growth: float
    strong_growth: float
    heterogeneity: str = "instance"
    convex: bool = True
    margin: float = 0.0
    separating_direction: Array | None = None
    growth_radius: float = np.inf

    @property
    def solution(self) -> Array:
        """x* = 0, (d,)."""
        return np.zeros_like(self.start)

    @property
    def initial_distance(self) -> float:
        """D."""
        return float(self.start @ self.start)

    @property
    def node_sizes(self) -> NDArray[np.int64]:
        """One sample a node, (n,)."""
        return np.ones(self.n_nodes, dtype=np.int64)

    def node_losses(self, models: Array) -> Array:
        """f_i at node i's model: (..., n, d) -> (..., n)."""
        return self.losses(models)

    def node_gradients(self, models: Array) -> Array:
        """Gradient of f_i at node i's model: (..., n, d) -> (..., n, d)."""
        return self.gradients(models)

    def sample_losses(self, models: Array, indices: Indices) -> Array:
        """As :meth:`node_losses`; there is one sample to draw."""
        return self.losses(models)

    def sample_gradients(self, models: Array, indices: Indices) -> Array:
        """As :meth:`node_gradients`; there is one sample to draw."""
        return self.gradients(models)

    def global_loss(self, models: Array) -> Array:
        """f: (..., d) -> (...)."""
        models = np.asarray(models)
        shape = (*models.shape[:-1], self.n_nodes, models.shape[-1])
        return np.asarray(self.losses(np.broadcast_to(models[..., None, :], shape)).mean(axis=-1))


def quadratic_nodes(hessians: Array, start: Array, smoothness: float, name: str) -> ExplicitProblem:
    """f_i(x) = x' H_i x / 2, with every constant from the H_i.

    Args:
        hessians: H_i, (n, d, d), symmetric, their mean positive definite.
        start: x_0, (d,).
        smoothness: L, at least the largest eigenvalue of any H_i.
    """
    mean = hessians.mean(axis=0)
    inverse = np.linalg.inv(np.linalg.cholesky(mean))
    whitened = inverse @ hessians @ inverse.T
    squares = np.linalg.inv(mean) @ (hessians @ hessians).mean(axis=0) @ np.linalg.inv(mean)
    # Rounding below this share of L is not growth.
    nothing = 1e-13 * smoothness
    local = float(np.linalg.eigvalsh(hessians)[:, 0].min())
    similarity = float(np.linalg.eigvalsh(whitened)[:, 0].min())
    ends = np.linalg.eigvalsh(mean)

    def losses(models: Array) -> Array:
        return 0.5 * np.einsum("...ni,nij,...nj->...n", models, hessians, models)

    def gradients(models: Array) -> Array:
        return np.einsum("nij,...nj->...ni", hessians, models)

    return ExplicitProblem(
        name=name,
        start=np.asarray(start, dtype=np.float64),
        losses=losses,
        gradients=gradients,
        n_nodes=len(hessians),
        smoothness=smoothness,
        global_smoothness=float(ends[-1]),
        similarity=min(1.0, similarity) if similarity > 1e-13 else 0.0,
        local_growth=local if local > nothing else 0.0,
        global_growth=float(ends[0]),
        strong_growth=max(1.0, float(np.linalg.eigvalsh(0.5 * (squares + squares.T))[-1])),
    )


def scalar_problem(
    value: Callable[[Array], Array],
    derivative: Callable[[Array], Array],
    *,
    smoothness: float,
    growth: float,
    name: str,
) -> ExplicitProblem:
    """All nodes hold one convex function of one variable with its minimum 0 at 0; x_0 = 1.

    Args:
        value, derivative: elementwise.
        smoothness: L.
        growth: mu, 0 if it does not grow quadratically.
    """
    return ExplicitProblem(
        name=name,
        start=np.ones(1),
        losses=lambda models: value(models[..., 0]),
        gradients=derivative,
        n_nodes=1,
        smoothness=smoothness,
        global_smoothness=smoothness,
        similarity=1.0,
        local_growth=growth,
        global_growth=growth,
        strong_growth=1.0,
    )


def rank_one_nodes(
    rows: list[list[float]], start: list[float], smoothness: float, name: str
) -> MarginProblem:
    """f_i(x) = (a_i'x)^2 / 2, one sample a node, which the compiled engines can run."""
    return MarginProblem(
        [np.array([row]) for row in rows],
        [np.zeros(1) for _ in rows],
        start=np.array(start),
        smoothness=smoothness,
        name=name,
        heterogeneity="instance",
    )
