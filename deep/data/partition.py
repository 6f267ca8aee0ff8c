"""Which node owns which training images: the regimes of data similarity.

The paper's heterogeneous regime sorts by label, cuts 20 shards and gives one to each node, and it
states that "ten nodes will have image examples of one label, and ten nodes will have image
examples of two labels". CIFAR-10 has 5,000 images a label, so 20 equal contiguous shards of 2,500
give one label to every node. Both readings are here: ``sorted`` is the literal procedure,
``pathological`` has the stated label counts, by rotating the sorted order by half a shard.
The mixture of the paper's intermediate regime is not known to us: ``mixed`` is our choice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.support.errors import UserError

REGIMES = ("iid", "mixed", "pathological", "sorted")
#: Streams of the random choices made before training; see also `deep.resnet`.
_SUBSET_STREAM, _PARTITION_STREAM = 2**63 + 1, 2**63 + 2


def _stream(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, stream]))


def balanced_subset(labels: np.ndarray, size: int | None, seed: int) -> np.ndarray:
    """Indices of ``size`` images with labels as equally frequent as can be (all when None).

    ``labels`` [M]; returns int64 [size] in ascending order. Raises `UserError` when ``size`` is
    not in 1..M.
    """
    if size is None:
        return np.arange(len(labels))
    if not 1 <= size <= len(labels):
        raise UserError(f"--subset must lie in 1..{len(labels)}, got {size}")
    rng = _stream(seed, _SUBSET_STREAM)
    # The position of an image within its own shuffled class decides: round-robin over classes.
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[rng.permutation(members)] = np.arange(len(members))
    order = np.lexsort((labels, rank))
    return np.sort(order[:size])


def partition(
    labels: np.ndarray, n_nodes: int, regime: str, similarity: float, seed: int
) -> list[np.ndarray]:
    """Split the images 0..M-1 over the nodes; sizes differ by at most one.

    ``labels`` [M]. Regimes: ``iid``: a random split. ``sorted``: sorted by label, contiguous
    shards. ``pathological``: the same after a rotation by half a shard. ``mixed``: the share
    ``similarity`` in [0, 1] of every node's images is drawn iid, the rest as in ``pathological``.
    Returns ``n_nodes`` int64 arrays, each ascending, that cover every image once. Raises
    `UserError` for an unknown regime, for n_nodes not in 1..M, or a similarity outside [0, 1].
    """
    count = len(labels)
    if regime not in REGIMES:
        raise UserError(f"unknown regime {regime!r}: choose one of {', '.join(REGIMES)}")
    if not 1 <= n_nodes <= count:
        raise UserError(
            f"the number of nodes must lie in 1..{count}, the number of images, got {n_nodes}"
        )
    if not 0.0 <= similarity <= 1.0:
        raise UserError(f"--similarity must lie in [0, 1], got {similarity}")
    rng = _stream(seed, _PARTITION_STREAM)
    shuffled = rng.permutation(count)
    if regime == "iid":
        shards = np.array_split(shuffled, n_nodes)
    else:
        order = shuffled[np.argsort(labels[shuffled], kind="stable")]
        if regime != "sorted":
            order = np.roll(order, count // (2 * n_nodes))
        shards = np.array_split(order, n_nodes)
        if regime == "mixed":
            shards = _mix(shards, similarity, rng)
    return [np.sort(shard) for shard in shards]


def _mix(shards: list[np.ndarray], similarity: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Pool the share ``similarity`` of every shard, shuffle the pool and deal it out again."""
    taken, kept = [], []
    for shard in shards:
        shard = rng.permutation(shard)
        cut = round(similarity * len(shard))
        taken.append(shard[:cut])
        kept.append(shard[cut:])
    pool = rng.permutation(np.concatenate(taken))
    stops = np.cumsum([len(part) for part in taken])[:-1]
    return [
        np.concatenate([mine, dealt])
        for mine, dealt in zip(kept, np.split(pool, stops), strict=True)
    ]


def draw_batches(
    shards: list[np.ndarray],
    nodes: list[int],
    first_step: int,
    n_steps: int,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Minibatches of some nodes for consecutive steps, int64 [len(nodes), n_steps, batch_size].

    A batch is drawn uniformly with replacement from the node's images by a counter-based stream
    keyed by (seed, node) at counter ``step``: any process can draw any batch at any time.
    """
    out = np.empty((len(nodes), n_steps, batch_size), np.int64)
    # One generator set to every stream in turn: making one a batch takes longer than the draws.
    bits = np.random.Philox(key=[seed, 0])
    rng, state = np.random.Generator(bits), bits.state
    words: Any = state["state"]
    words["counter"][:] = 0
    for i, node in enumerate(nodes):
        words["key"][1] = node
        for k in range(n_steps):
            words["counter"][3] = first_step + k
            bits.state = state
            out[i, k] = rng.integers(0, len(shards[node]), batch_size)
        out[i] = shards[node][out[i]]
    return out
