"""Which node owns which training images: the regimes of data similarity.

What is known. The paper's heterogeneous regime sorts by label, cuts 20 shards and gives one to
each node, and it states that "ten nodes will have image examples of one label, and ten nodes will
have image examples of two labels". The repository of its first author cuts the sorted order into
n s equal shards and deals s to each node at random; its plots, of an earlier experiment on MNIST,
are titled "1/2 digits per node", "2/3 digits per node" and "10 digits per node". ``shards`` is
that procedure. The paper's intermediate regime is probably s = 2; that is our inference.

CIFAR-10 has 5,000 images a label. With 20 nodes, s = 1 gives one label to every node, and s = 2 at
most two, dealt at random: the ten/ten statement fits neither. ``sorted`` is s = 1 dealt in order;
``pathological`` has the stated label counts, by rotating the sorted order by half a shard;
``mixed`` is an intermediate regime of our own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory.support.errors import UserError

REGIMES = ("iid", "shards", "mixed", "pathological", "sorted")
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
    labels: np.ndarray,
    n_nodes: int,
    regime: str,
    similarity: float,
    seed: int,
    shards_per_node: int = 1,
) -> list[np.ndarray]:
    """Split the images 0..M-1 over the nodes; sizes differ by at most one.

    ``labels`` [M]. Regimes: ``iid``: a random split. ``shards``: the order sorted by label, equal
    labels shuffled, is cut into n_nodes x ``shards_per_node`` equal shards, which are dealt to the
    nodes at random. ``sorted``: sorted by label, contiguous shards. ``pathological``: the same
    after a rotation by half a shard. ``mixed``: the share ``similarity`` in [0, 1] of every node's
    images is drawn iid, the rest as in ``pathological``.
    Returns ``n_nodes`` int64 arrays, each ascending, that cover every image once. Raises
    `UserError` for an unknown regime, for n_nodes not in 1..M, a similarity outside [0, 1],
    shards_per_node below 1, or a number of shards that does not divide M.
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
    if shards_per_node < 1:
        raise UserError(f"--shards-per-node is {shards_per_node}, allowed: at least 1")
    if regime == "shards" and count % (n_nodes * shards_per_node):
        raise UserError(
            f"--shards-per-node is {shards_per_node}, allowed: numbers for which "
            f"{n_nodes} nodes x shards a node divides the number of images, {count}"
        )
    rng = _stream(seed, _PARTITION_STREAM)
    shuffled = rng.permutation(count)
    if regime == "iid":
        shards = np.array_split(shuffled, n_nodes)
    else:
        order = shuffled[np.argsort(labels[shuffled], kind="stable")]
        if regime == "shards":
            pieces = order.reshape(n_nodes * shards_per_node, -1)
            dealt = rng.permutation(len(pieces)).reshape(n_nodes, shards_per_node)
            return [np.sort(pieces[mine].reshape(-1)) for mine in dealt]
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
    replacement: bool = False,
) -> np.ndarray:
    """Minibatches of some nodes for consecutive steps, int64 [len(nodes), n_steps, batch_size].

    A batch is a uniformly random subset of the node's images, a fresh one each step (the first
    batch of a freshly shuffled pass, as in the repository of the paper's first author); with
    ``replacement`` its images are drawn one by one. The stream is counter-based, keyed by (seed,
    node) at counter ``step``: any process can draw any batch at any time. Raises `UserError` when
    a subset is asked for that is larger than a node's share.
    """
    if not replacement:
        for node in nodes:
            if batch_size > len(shards[node]):
                raise UserError(
                    f"--batch-size is {batch_size}, allowed: 1..{len(shards[node])}, the images "
                    f"of node {node}; more only with replacement"
                )
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
            if replacement:
                out[i, k] = rng.integers(0, len(shards[node]), batch_size)
            else:
                # Floyd's algorithm or a partial shuffle, by NumPy: every subset equally likely.
                out[i, k] = rng.choice(len(shards[node]), batch_size, False, shuffle=False)
        out[i] = shards[node][out[i]]
    return out
