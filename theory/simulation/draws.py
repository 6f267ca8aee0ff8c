"""What the runs of a simulation draw: samples of all nodes and participants, window by window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.simulation.streams import participants, reshuffled_indices, sample_indices
from theory.simulation.variants import FedAvg, Round, Variant

# Draws held at a time; bounds memory whatever T is.
CHUNK_DRAWS = 2_000_000


@dataclass(frozen=True)
class Window:
    """Draws of iterations [first, first + steps).

    Attributes:
        indices: sample numbers, (seeds, n, steps, batch); batch 0 stands for full gradients.
        nodes: participants of the rounds that these iterations belong to, (seeds, rounds, m); with
            no rounds at all (seeds, 0, n) every node takes part in each.
    """

    indices: NDArray[np.int32]
    nodes: NDArray[np.int32]


class Draws:
    """Pure functions of (seed, node, step) and (seed, round), computed a window at a time.

    Args:
        n_nodes, node_sizes: n and m_i; the sizes only matter with a batch.
        seeds: (n_seeds,).
        variant: who takes part, and in which order samples come.
        local_steps, node_steps: K and K_i, (n,).
        batch_size: samples a node a step, 0 for full gradients.
    """

    def __init__(
        self,
        n_nodes: int,
        node_sizes: NDArray[np.int64],
        seeds: NDArray[np.uint64],
        variant: Variant,
        local_steps: int,
        node_steps: NDArray[np.int64],
        batch_size: int,
    ) -> None:
        self.n_nodes, self.sizes, self.seeds, self.variant = n_nodes, node_sizes, seeds, variant
        self.local_steps, self.node_steps, self.batch = local_steps, node_steps, batch_size
        self.longest = max(1, CHUNK_DRAWS // max(1, len(seeds) * n_nodes * max(1, batch_size)))
        self._held, self._first = np.empty((len(seeds), n_nodes, 0, batch_size), np.int32), 0
        # Rounds that each node took part in before the next window's first round.
        self._taken = np.zeros((len(seeds), n_nodes), dtype=np.int64)

    def take(self, first: int, most: int, left: int) -> Window:
        """The next iterations from ``first`` on, at least one and at most ``most`` of the ``left`` ones.

        Must be called with rising ``first``, without gaps.
        """
        if first >= self._first + self._held.shape[2]:
            self._first = first
            self._held = self._draw(first, min(left, self.longest))
        begin = first - self._first
        steps = min(most, self._held.shape[2] - begin)
        window = np.ascontiguousarray(self._held[:, :, begin : begin + steps])
        return Window(window, self._nodes(first, steps))

    def _nodes(self, first: int, steps: int) -> NDArray[np.int32]:
        """Participants of the rounds of [first, first + steps), for engines that know FedAvg only."""
        variant = self.variant
        if not isinstance(variant, FedAvg) or variant.participants in (None, self.n_nodes):
            return np.empty((len(self.seeds), 0, self.n_nodes), dtype=np.int32)
        begin, end = first // self.local_steps, (first + steps - 1) // self.local_steps + 1
        count = variant.participants
        assert count is not None
        tables = [participants(int(s), begin, end - begin, self.n_nodes, count) for s in self.seeds]
        return np.stack(tables)

    def _draw(self, first: int, steps: int) -> NDArray[np.int32]:
        if self.batch == 0:
            return np.empty((len(self.seeds), self.n_nodes, steps, 0), dtype=np.int32)
        if self.variant.order == "uniform":
            return sample_indices(self.seeds, self.sizes, first, steps, self.batch)
        taken = self._steps_taken(first, steps)
        return reshuffled_indices(self.seeds, self.sizes, taken, self.batch)

    def _steps_taken(self, first: int, steps: int) -> NDArray[np.int64]:
        """Steps that each node took before each iteration, (seeds, n, steps): a pass goes on where the
        node's last step left it, however long it waits."""
        rounds, k = np.divmod(np.arange(first, first + steps + 1), self.local_steps)
        begin, end = int(rounds[0]), int(rounds[-1])
        member = np.stack(
            [[self._members(int(s), r) for r in range(begin, end + 1)] for s in self.seeds]
        )
        # Rounds before each round of the window, (seeds, rounds, n).
        before = self._taken[:, None] + np.cumsum(member, axis=1) - member
        self._taken = before[:, -1].copy()
        at = rounds[:-1] - begin
        whole = np.swapaxes(before[:, at], 1, 2) * self.node_steps[:, None]
        within = np.minimum(k[:-1], self.node_steps[:, None] - 1)
        return np.asarray(whole + within * np.swapaxes(member[:, at], 1, 2))

    def _members(self, seed: int, number: int) -> NDArray[np.bool_]:
        chosen = np.zeros(self.n_nodes, dtype=bool)
        chosen[np.asarray(self.variant.select(Round(seed, number, self.n_nodes)))] = True
        return chosen
