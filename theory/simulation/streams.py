"""Counter-based sample draws: node i's sample at step t is a pure function of (seed, i, t).

The raw numbers are NumPy's Philox 4x64 with key (seed, node); the step is the position in that
stream, reached by setting the counter. So a draw never depends on the engine, on how steps are cut
into chunks, on the number of processes or on a resume.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Philox yields four 64-bit words a counter value; each word gives two 32-bit draws.
DRAWS_PER_COUNTER = 8


def raw_draws(seed: int, node: int, first: int, count: int) -> NDArray[np.uint32]:
    """Draws ``first`` to ``first + count`` of the stream of (seed, node), (count,) uint32."""
    counter, skip = divmod(first, DRAWS_PER_COUNTER)
    philox = np.random.Philox(counter=counter, key=np.array([seed, node], dtype=np.uint64))
    words = philox.random_raw(-(-(skip + count) // 2))
    # Little-endian halves on every machine, low half first.
    return np.asarray(words).astype("<u8").view("<u4")[skip : skip + count]


def sample_indices(
    seeds: NDArray[np.int64],
    node_sizes: NDArray[np.int64],
    first_step: int,
    steps: int,
    batch_size: int,
) -> NDArray[np.int32]:
    """Uniform sample numbers, drawn with replacement.

    Args:
        seeds: (n_seeds,).
        node_sizes: m_i, (n,).
        first_step, steps: iterations t in [first_step, first_step + steps).
        batch_size: samples a node a step.

    Returns:
        (n_seeds, n, steps, batch_size), entry in [0, m_i). The multiply-shift map from 32 bits is
        uniform to within m_i / 2**32.
    """
    out = np.empty((len(seeds), len(node_sizes), steps * batch_size), dtype=np.int32)
    for s, seed in enumerate(seeds):
        for i, size in enumerate(node_sizes):
            raw = raw_draws(int(seed), i, first_step * batch_size, steps * batch_size)
            scaled = np.multiply(raw, np.uint64(size), dtype=np.uint64)
            np.right_shift(scaled, np.uint64(32), out=out[s, i], casting="unsafe")
    return out.reshape(len(seeds), len(node_sizes), steps, batch_size)
