"""Which nodes take part in a round."""

from __future__ import annotations

import numpy as np

#: The key's second word; nodes have small numbers, other streams are in `deep.data.partition`.
_STREAM = 2**63 + 3


def draw_participants(
    n_nodes: int, count: int | None, round_: int, seed: int, fixed: bool = False
) -> np.ndarray | None:
    """The nodes of round ``round_`` (from 0), int64 [count], ascending; None when all take part.

    ``count`` of the ``n_nodes`` nodes, uniformly without replacement, from a counter-based stream keyed
    by ``seed`` at counter ``round_``: whoever asks, in whatever order, gets the same nodes. ``fixed``: the
    nodes of round 0 in every round.
    """
    if count is None or count == n_nodes:
        return None
    stream = np.random.Philox(key=[seed, _STREAM], counter=[0, 0, 0, 0 if fixed else round_])
    chosen = np.random.Generator(stream).permutation(n_nodes)[:count]
    return np.sort(chosen)
