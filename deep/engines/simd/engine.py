"""The default engine on CPUs: one thread a core, one node a thread, all K steps in one call.

Measured against the plain loop, grouped convolution and torch.func.vmap by
``benchmarks/deep_speed.py``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deep.data.cifar10 import Images
from deep.engines.base import Engine
from deep.engines.simd.network import local_steps, scores
from deep.engines.simd.plan import make_arena, make_layout

#: Images a task of an evaluation takes.
_CHUNK = 64


class SimdEngine(Engine):
    """Hand-written forward and backward over eight images a vector: see the package's text."""

    name = "simd"

    def __init__(self, *args: Any, threads: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.layout, floats = make_layout(self.architecture)
        kind = np.dtype(str(self.dtype).removeprefix("torch."))
        self.table = self.data.normalisation().astype(kind)
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="simd")
        self.arenas: SimpleQueue[tuple[np.ndarray, np.ndarray]] = SimpleQueue()
        for _ in range(threads):
            self.arenas.put((make_arena(floats, kind), np.zeros(len(self.mean), kind)))
        # Compile now, so that no clock of a run counts it.
        self.local_steps(np.zeros((self.n_local, 0, 1), np.int64), False)
        self.scores(self.data, np.zeros(1, np.int64))

    def local_steps(self, batches: np.ndarray, energy: bool) -> Tensor:
        mean, models = self.mean.numpy(), self.models.numpy()
        found = np.empty((len(batches), 4))

        def work(row: int) -> None:
            arena, gradient = self.arenas.get()
            try:
                local_steps(
                    mean,
                    models[row],
                    gradient,
                    self.data.images,
                    self.data.labels,
                    self.table,
                    batches[row],
                    self.table.dtype.type(self.step_size),
                    arena,
                    self.layout,
                    energy,
                    found[row],
                )
            finally:
                self.arenas.put((arena, gradient))

        list(self.pool.map(work, range(len(batches))))
        return torch.from_numpy(found.T.copy())

    def scores(self, images: Images, chosen: np.ndarray) -> np.ndarray:
        mean, found = self.mean.numpy(), np.empty((len(chosen), 2))

        def work(start: int) -> None:
            arena, gradient = self.arenas.get()
            part = slice(start, start + _CHUNK)
            try:
                scores(
                    mean,
                    images.images,
                    images.labels,
                    self.table,
                    chosen[part],
                    found[part],
                    arena,
                    self.layout,
                )
            finally:
                self.arenas.put((arena, gradient))

        list(self.pool.map(work, range(0, len(chosen), _CHUNK)))
        return found.T

    def close(self) -> None:
        self.pool.shutdown()
