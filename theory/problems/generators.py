"""Synthetic over-parameterized problems from a seed.

One recipe for the samples, four losses on top. A sample lives in an r-dimensional span of R^d; the r
directions are dealt to the nodes, and "sorted" data give each node only its own. So the nodes'
similarity, the rank and the spectrum are parameters, and every constant stays computable.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from theory.problems.losses import (
    HARD_LOGISTIC,
    SIGMOID_REGRESSION,
    SOFT_LOGISTIC,
    SQUARED,
    MarginLoss,
)
from theory.problems.margin import MarginProblem
from theory.support import memory, numbers
from theory.support.errors import UserError

Array = NDArray[np.float64]
Heterogeneity = Literal["iid", "similar", "sorted", "identical"]
HETEROGENEITIES: tuple[Heterogeneity, ...] = ("iid", "similar", "sorted", "identical")


def sample_features(
    *,
    n_nodes: int,
    samples_per_node: int,
    dimension: int,
    rank: int | None = None,
    heterogeneity: Heterogeneity = "iid",
    similarity: float = 0.5,
    decay: float = 0.0,
    seed: int = 0,
) -> Array:
    """Unit-norm samples, node by node.

    Args:
        n_nodes, samples_per_node, dimension: n, m, d.
        rank: number r of directions that the samples combine, n <= r <= d; default min(2 n m, d), which
            leaves the samples well conditioned. Fewer than n m makes them dependent (and c > 0 possible).
        heterogeneity: "sorted" (node i sees only its own directions, c = 0), "iid" (the same samples,
            shuffled over all nodes), "similar" (a share ``similarity`` of each node's samples is
            shuffled, the rest sorted), "identical" (all nodes hold the first node's share of an iid
            draw: c = 1).
        similarity: share in [0, 1], for "similar".
        decay: the k-th direction has variance k**-decay before the samples are normalised;
            0 is a flat spectrum.
        seed: an integer from 0 to 2^64 - 1.

    Returns:
        (n, m, d).

    Raises:
        UserError: a size, rank, similarity or heterogeneity outside the ranges above, or more memory
            than there is.
    """
    n_nodes = numbers.whole("n_nodes", n_nodes, 1)
    samples_per_node = numbers.whole("samples_per_node", samples_per_node, 1)
    dimension = numbers.whole("dimension", dimension, 1)
    total = n_nodes * samples_per_node
    rank = min(2 * total, dimension) if rank is None else rank
    if not n_nodes <= numbers.whole("rank", rank, 1) <= dimension:
        raise UserError(f"rank is {rank}, allowed: {n_nodes} (n_nodes) to {dimension} (dimension)")
    numbers.real("similarity", similarity, least=0, most=1)
    numbers.real("decay", decay, least=0)
    numbers.choice("heterogeneity", heterogeneity, HETEROGENEITIES)
    seed = numbers.seed("seed", seed)
    memory.require(
        # The samples, their basis with a copy while it is made orthonormal, and their weights.
        8 * (total * (dimension + 3 * rank) + 3 * dimension * rank),
        f"a problem of {n_nodes:,} nodes with {samples_per_node:,} samples of {dimension:,} features",
        "n_nodes, samples_per_node or dimension (--nodes, --dimension)",
    )
    random = np.random.Generator(np.random.Philox(key=seed))
    scale = np.arange(1, rank + 1) ** (-0.5 * decay)
    weights = random.standard_normal((n_nodes, samples_per_node, rank)) * scale
    owner = np.arange(rank) % n_nodes
    weights *= owner == np.arange(n_nodes)[:, None, None]
    weights /= np.linalg.norm(weights, axis=2, keepdims=True)
    weights = _deal(weights, heterogeneity, similarity, random)
    # A random rotation: no engine may profit from axis-aligned samples.
    basis, _ = np.linalg.qr(random.standard_normal((dimension, rank)))
    return weights @ basis.T


def _deal(
    weights: Array, heterogeneity: Heterogeneity, similarity: float, random: np.random.Generator
) -> Array:
    """Shuffle samples between nodes as far as the heterogeneity says."""
    n_nodes, per_node, rank = weights.shape
    share = {"iid": 1.0, "similar": similarity, "sorted": 0.0, "identical": 1.0}[heterogeneity]
    shuffled = round(share * per_node)
    pool = weights[:, :shuffled].reshape(-1, rank)
    dealt = weights.copy()
    dealt[:, :shuffled] = pool[random.permutation(len(pool))].reshape(n_nodes, shuffled, rank)
    if heterogeneity == "identical":
        dealt[:] = dealt[0]
    return dealt


def _planted_margins(features: Array, scale: float, seed: int) -> Array:
    """Margins A x of a planted x in the span of the samples, of root mean square ``scale``, (n, m)."""
    random = np.random.Generator(np.random.Philox(key=np.array([seed, 1], np.uint64)))
    planted = random.standard_normal(features.shape[0] * features.shape[1])
    flat = features.reshape(-1, features.shape[2])
    margins = flat @ (flat.T @ planted)
    margins *= scale / np.sqrt(np.mean(margins**2))
    return margins.reshape(features.shape[:2])


def _problem(
    loss: MarginLoss, name: str, features: Array, targets: Array, label: str
) -> MarginProblem:
    return MarginProblem(features, targets, loss, name=name, heterogeneity=label)


def _label(heterogeneity: str, similarity: float) -> str:
    return f"{similarity:.0%} similar" if heterogeneity == "similar" else heterogeneity


def least_squares(
    *,
    n_nodes: int = 5,
    samples_per_node: int = 40,
    dimension: int = 256,
    rank: int | None = None,
    heterogeneity: Heterogeneity = "iid",
    similarity: float = 0.5,
    decay: float = 0.0,
    seed: int = 0,
) -> MarginProblem:
    """f_i(x; j) = (a_j'x - b_j)^2 / 2 with an x that fits all samples. Arguments: sample_features."""
    features = sample_features(
        n_nodes=n_nodes,
        samples_per_node=samples_per_node,
        dimension=dimension,
        rank=rank,
        heterogeneity=heterogeneity,
        similarity=similarity,
        decay=decay,
        seed=seed,
    )
    name = "least squares" if decay == 0 else f"least squares, power law {decay:g}"
    targets = _planted_margins(features, 1.0, seed)
    return _problem(SQUARED, name, features, targets, _label(heterogeneity, similarity))


def realizable_logistic(
    *,
    n_nodes: int = 5,
    samples_per_node: int = 40,
    dimension: int = 256,
    rank: int | None = None,
    heterogeneity: Heterogeneity = "iid",
    similarity: float = 0.5,
    decay: float = 0.0,
    seed: int = 0,
) -> MarginProblem:
    """Soft labels y = sigmoid(a'x*): every sample's cross entropy is least at x*."""
    features = sample_features(
        n_nodes=n_nodes,
        samples_per_node=samples_per_node,
        dimension=dimension,
        rank=rank,
        heterogeneity=heterogeneity,
        similarity=similarity,
        decay=decay,
        seed=seed,
    )
    targets = _planted_margins(features, 1.0, seed)
    return _problem(
        SOFT_LOGISTIC, "realizable logistic", features, targets, _label(heterogeneity, similarity)
    )


def separable_logistic(
    *,
    n_nodes: int = 5,
    samples_per_node: int = 40,
    dimension: int = 256,
    rank: int | None = None,
    heterogeneity: Heterogeneity = "iid",
    similarity: float = 0.5,
    decay: float = 0.0,
    seed: int = 0,
) -> MarginProblem:
    """Hard labels y = sign(a'w): separable, the minimum 0 is not attained (T5)."""
    features = sample_features(
        n_nodes=n_nodes,
        samples_per_node=samples_per_node,
        dimension=dimension,
        rank=rank,
        heterogeneity=heterogeneity,
        similarity=similarity,
        decay=decay,
        seed=seed,
    )
    labels = np.where(_planted_margins(features, 1.0, seed) >= 0, 1.0, -1.0)
    return _problem(
        HARD_LOGISTIC, "separable logistic", features, labels, _label(heterogeneity, similarity)
    )


def sigmoid_regression(
    *,
    n_nodes: int = 5,
    samples_per_node: int = 40,
    dimension: int = 256,
    rank: int | None = None,
    heterogeneity: Heterogeneity = "iid",
    similarity: float = 0.5,
    decay: float = 0.0,
    seed: int = 0,
) -> MarginProblem:
    """f_i(x; j) = (sigmoid(a_j'x) - sigmoid(a_j'x*))^2 / 2: smooth, not convex (T6)."""
    features = sample_features(
        n_nodes=n_nodes,
        samples_per_node=samples_per_node,
        dimension=dimension,
        rank=rank,
        heterogeneity=heterogeneity,
        similarity=similarity,
        decay=decay,
        seed=seed,
    )
    targets = _planted_margins(features, 1.0, seed)
    return _problem(
        SIGMOID_REGRESSION,
        "sigmoid regression",
        features,
        targets,
        _label(heterogeneity, similarity),
    )
