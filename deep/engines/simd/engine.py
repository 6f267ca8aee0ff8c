"""The default engine on CPUs: one thread a core, one node a thread, all K steps in one call.

Measured against the plain loop, grouped convolution and torch.func.vmap by
``benchmarks/deep_speed.py``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np

from deep.engines.base import Engine, available_cores
from deep.engines.simd.network import local_steps, make_arena, make_plan, sum_of_losses

#: Images a task of the full-loss evaluation takes; fixed, so that the sum's order is too.
_CHUNK = 64


class SimdEngine(Engine):
    """Hand-written forward and backward over eight images a vector, see `deep.engines.simd.network`."""

    name = "simd"

    def __init__(self, *args: Any, threads: int | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.plan = make_plan(self.architecture)
        self.layout = (self.plan.blocks, self.plan.taps, self.plan.tap_counts, self.plan.ends)
        kind = np.dtype(str(self.dtype).removeprefix("torch."))
        self.table = self.data.normalisation().astype(kind)
        count = threads or available_cores()
        self.pool = ThreadPoolExecutor(count, thread_name_prefix="simd")
        self.arenas: SimpleQueue[tuple[np.ndarray, np.ndarray]] = SimpleQueue()
        for _ in range(count):
            self.arenas.put((make_arena(self.plan, kind), np.zeros(self.plan.n_parameters, kind)))
        # Compile now, so that no clock of a run counts it.
        self.local_steps(np.zeros((self.n_local, 0, 1), np.int64))
        self.sum_of_losses(np.zeros(1, np.int64))

    def local_steps(self, batches: np.ndarray) -> None:
        mean, models = self.mean.numpy(), self.models.numpy()

        def work(node: int) -> None:
            arena, gradient = self.arenas.get()
            try:
                models[node] = mean
                local_steps(
                    models[node],
                    gradient,
                    self.data.images,
                    self.data.labels,
                    self.table,
                    batches[node],
                    self.table.dtype.type(self.step_size),
                    arena,
                    *self.layout,
                )
            finally:
                self.arenas.put((arena, gradient))

        list(self.pool.map(work, range(self.n_local)))

    def sum_of_losses(self, chosen: np.ndarray) -> float:
        mean = self.mean.numpy()

        def work(start: int) -> float:
            arena, gradient = self.arenas.get()
            try:
                return sum_of_losses(
                    mean,
                    self.data.images,
                    self.data.labels,
                    self.table,
                    chosen[start : start + _CHUNK],
                    arena,
                    *self.layout,
                )
            finally:
                self.arenas.put((arena, gradient))

        return float(sum(self.pool.map(work, range(0, len(chosen), _CHUNK))))

    def close(self) -> None:
        self.pool.shutdown()
