"""What the rest of the toolkit asks of a problem: to be simulated, and to know its constants.

A problem of your own needs no base class. With the members of :class:`Simulated` it runs on the NumPy
engine, with those of :class:`Sampled` also under stochastic gradients, and with those of
:class:`KnowsConstants` the theorems can be checked on it.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.integer[Any]]


class Simulated(Protocol):
    """n nodes with losses and gradients: enough for full gradients."""

    @property
    def n_nodes(self) -> int:
        """n."""

    @property
    def start(self) -> Array:
        """x_0, (d,)."""

    @property
    def solution(self) -> Array | None:
        """x*, the minimiser nearest to x_0, (d,); None where the minimum is not attained."""

    def node_losses(self, models: Array) -> Array:
        """f_i at node i's model: (..., n, d) -> (..., n)."""

    def node_gradients(self, models: Array) -> Array:
        """Gradient of f_i at node i's model: (..., n, d) -> (..., n, d)."""


class Sampled(Simulated, Protocol):
    """A problem whose nodes hold samples: enough for stochastic gradients."""

    @property
    def node_sizes(self) -> NDArray[np.int64]:
        """m_i, (n,)."""

    def sample_losses(self, models: Array, indices: Indices) -> Array:
        """Mean loss over sampled rows: (runs, n, d), (runs, n, batch_size) -> (runs, n)."""

    def sample_gradients(self, models: Array, indices: Indices) -> Array:
        """Mean gradient over sampled rows: (runs, n, d), (runs, n, batch_size) -> (runs, n, d)."""


def has_samples(problem: Simulated) -> TypeGuard[Sampled]:
    """Whether stochastic gradients can be drawn; ``sample_losses`` may still be missing."""
    return hasattr(problem, "sample_gradients") and hasattr(problem, "node_sizes")


class KnowsConstants(Protocol):
    """A problem that knows what the theorems' assumptions and bounds ask for.

    A constant that does not exist has the value that makes its assumption fail: 0 for ``similarity``,
    the growths and the ``margin``, infinity for ``strong_growth`` and ``initial_distance``.
    """

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def heterogeneity(self) -> str:
        """How its nodes differ, in a word."""

    @property
    def n_nodes(self) -> int:
        """n."""

    @property
    def start(self) -> Array:
        """x_0, (d,)."""

    @property
    def solution(self) -> Array | None:
        """x*, (d,); None where the minimum is not attained."""

    def global_loss(self, models: Array) -> Array:
        """f: (..., d) -> (...)."""

    @property
    def convex(self) -> bool:
        """A1: whether every sample's loss is convex."""

    @property
    def smoothness(self) -> float:
        """L of A0: of every sample's loss, not of f."""

    @property
    def global_smoothness(self) -> float:
        """L of f, at most ``smoothness``."""

    @property
    def initial_distance(self) -> float:
        """D = ||x_0 - x*||^2."""

    @property
    def similarity(self) -> float:
        """c of A3, in [0, 1]."""

    @property
    def local_growth(self) -> float:
        """mu of A4."""

    @property
    def global_growth(self) -> float:
        """mu of A4'."""

    @property
    def growth_radius(self) -> float:
        """Distance from x* within which A4 and A4' hold with these mu; at least sqrt(D)."""

    @property
    def strong_growth(self) -> float:
        """rho of A5, at least 1."""

    @property
    def separating_direction(self) -> Array | None:
        """Unit w of T5, (d,); None where labels are not separable."""

    @property
    def margin(self) -> float:
        """gamma of T5; 0 where labels are not separable."""


class Problem(Simulated, KnowsConstants, Protocol):
    """A problem that can be run and on which the theorems can be checked."""
