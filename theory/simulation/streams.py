"""Counter-based sample draws: node i's sample at step t is a pure function of (seed, i, t).

The raw numbers are NumPy's Philox 4x64 with key (seed, node); the step is the position in that
stream, reached by setting the counter. The counter's highest word says what the numbers are for, so
that samples, permutations and participants never share any. So a draw never depends on the engine, on
how steps are cut into chunks, on the number of processes or on a resume.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory.simulation.compilation import compiled

# Philox yields four 64-bit words a counter value; each word gives two 32-bit draws.
DRAWS_PER_COUNTER = 8
WORDS_PER_COUNTER = 4
# What a stream is for: the highest word of its counter.
SAMPLES, PERMUTATIONS, PARTICIPANTS, OWN_DRAWS = 0, 1, 2, 3


def raw_draws(seed: int, node: int, first: int, count: int) -> NDArray[np.uint32]:
    """Draws ``first`` to ``first + count`` of the stream of (seed, node), (count,) uint32."""
    counter, skip = divmod(first, DRAWS_PER_COUNTER)
    words = _words(seed, node, SAMPLES, counter, -(-(skip + count) // 2))
    # Little-endian halves on every machine, low half first.
    return words.astype("<u8").view("<u4")[skip : skip + count]


def _words(seed: int, node: int, purpose: int, counter: int, count: int) -> NDArray[np.uint64]:
    """``count`` raw words from counter ``counter`` of the stream for that purpose, (count,)."""
    philox = np.random.Philox(
        counter=(purpose << 192) + counter, key=np.array([seed, node], dtype=np.uint64)
    )
    return np.asarray(philox.random_raw(count))


def _word_rows(
    seed: int, node: int, purpose: int, first: int, rows: int, width: int
) -> NDArray[np.uint64]:
    """Rows ``first`` to ``first + rows`` of a table of raw words, ``width`` a row, (rows, width)."""
    counters = -(-width // WORDS_PER_COUNTER)
    words = _words(seed, node, purpose, first * counters, rows * counters * WORDS_PER_COUNTER)
    return words.reshape(rows, -1)[:, :width]


@compiled()
def _scale(raw, size, out):  # type: ignore[no-untyped-def]
    """out = floor(raw size / 2^32), in one pass."""
    for k in range(raw.size):
        out[k] = (np.uint64(raw[k]) * size) >> np.uint64(32)


def sample_indices(
    seeds: NDArray[np.uint64],
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
            _scale(raw, np.uint64(size), out[s, i])
    return out.reshape(len(seeds), len(node_sizes), steps, batch_size)


def permutations(seed: int, node: int, size: int, first: int, count: int) -> NDArray[np.int32]:
    """Node's permutations of its samples in passes ``first`` to ``first + count``, (count, size).

    The order of raw 64-bit words: each permutation equally likely, but for ties (size^2 / 2**65).
    """
    words = _word_rows(seed, node, PERMUTATIONS, first, count, size)
    return np.argsort(words, axis=1, kind="stable").astype(np.int32)


def reshuffled_indices(
    seeds: NDArray[np.uint64],
    node_sizes: NDArray[np.int64],
    taken: NDArray[np.int64],
    batch_size: int,
) -> NDArray[np.int32]:
    """Sample numbers without replacement: a node goes through a fresh permutation a pass.

    A batch is the next ``batch_size`` samples; one that the pass has not enough left for goes on with
    the next pass.

    Args:
        seeds: (n_seeds,).
        node_sizes: m_i, (n,).
        taken: steps that each node has taken before each of the steps asked for, (n_seeds, n, steps),
            not falling along the last axis.
        batch_size: samples a node a step.

    Returns:
        (n_seeds, n, steps, batch_size), entry in [0, m_i).
    """
    out = np.empty((*taken.shape, batch_size), dtype=np.int32)
    if taken.shape[2] == 0:
        return out
    within = np.arange(batch_size)
    for s, seed in enumerate(seeds):
        for i, size in enumerate(node_sizes.tolist()):
            position = taken[s, i, :, None] * batch_size + within
            first, last = int(position[0, 0]) // size, int(position[-1, -1]) // size
            table = permutations(int(seed), i, size, first, last - first + 1)
            out[s, i] = table.reshape(-1)[position - first * size]
    return out


def participants(seed: int, first: int, rounds: int, n_nodes: int, count: int) -> NDArray[np.int32]:
    """Who takes part in rounds ``first`` to ``first + rounds``: ``count`` of ``n_nodes``, ascending.

    Each subset equally likely and each round's drawn afresh; (rounds, count).
    """
    words = _word_rows(seed, 0, PARTICIPANTS, first, rounds, n_nodes)
    chosen = np.argsort(words, axis=1, kind="stable")[:, :count]
    return np.sort(chosen, axis=1).astype(np.int32)


def round_generator(seed: int, round_number: int) -> np.random.Generator:
    """A generator of its own for (seed, round), for variants that draw in their own way."""
    counter = (OWN_DRAWS << 192) + (round_number << 64)
    key = np.array([seed, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))
