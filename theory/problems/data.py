"""What samples and targets may be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from theory.support.errors import UserError

Array = NDArray[np.float64]


#: Bytes of samples that are squared at a time.
_BLOCK = 1 << 26


def squared_norms(samples: Array) -> Array:
    """||a_j||^2 of every sample, (N,), without a copy of them."""
    rows = max(1, _BLOCK // (8 * max(1, samples.shape[1])))
    blocks = range(0, len(samples), rows)
    return np.concatenate([(samples[i : i + rows] ** 2).sum(axis=1) for i in blocks])


def checked_sizes(features: Sequence[Array] | Array, targets: Sequence[Array] | Array) -> list[int]:
    """m_i of every node.

    Raises:
        UserError: no node, a node without samples, or shapes that disagree.
    """
    if not len(features) or len(features) != len(targets):
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


def check_values(features: Array, targets: Array, hard: bool) -> None:
    """Refuse numbers that no problem can be made of.

    Args:
        features: all samples, (N, d).
        targets: (N,).
        hard: whether targets are hard labels.

    Raises:
        UserError: NaN or infinity, features that are all 0, or hard labels other than -1 and 1.
    """
    if not (np.isfinite(features).all() and np.isfinite(targets).all()):
        raise UserError("the data hold NaN or infinite values; every number must be finite")
    if not features.any():
        raise UserError("the features are all 0, allowed: at least one sample that sees x")
    if hard and not np.isin(targets, (-1.0, 1.0)).all():
        wrong = targets[~np.isin(targets, (-1.0, 1.0))][0]
        raise UserError(f"a hard label is {wrong:g}, allowed: -1 and 1")


def stacked(features: Sequence[Array] | Array) -> Array:
    """All samples, (N, d)."""
    if isinstance(features, np.ndarray) and features.ndim == 3:
        return features.reshape(-1, features.shape[2])
    return np.concatenate(features)


def equal_nodes(features: Array, targets: Array, nodes: Sequence[slice]) -> bool:
    """Whether all nodes, given as slices of the samples, hold the same samples in the same order."""
    first = nodes[0]
    return all(
        node.stop - node.start == first.stop - first.start
        and np.array_equal(features[first], features[node])
        and np.array_equal(targets[first], targets[node])
        for node in nodes[1:]
    )
