"""The stacked engine: all nodes of this process take each local step in the same calls.

``grouped``, ``im2col`` and ``vmap`` name a formulation of `deep.engines.formulations`; ``stacked`` times
the three on the device in use, on scratch models, and takes the fastest. On a GPU a round can be
recorded as one CUDA graph, and the forward and backward pass can be compiled.
"""

from __future__ import annotations

import time
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deep.engines.base import TorchEngine
from deep.engines.energy import lost
from deep.engines.formulations import Forward, make_forward
from deep.resnet import parameter_shapes
from theory.support.errors import UserError

FORMULATIONS = ("grouped", "im2col", "vmap")
_TRIAL_STEPS = 5


class StackedEngine(TorchEngine):
    """Models [n_local, P] trained together; see the module's text for the options."""

    def __init__(
        self,
        *args: Any,
        formulation: str = "stacked",
        compile_model: bool = False,
        cuda_graphs: bool = False,
        channels_last: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        if cuda_graphs and self.device.type != "cuda":
            raise UserError("--cuda-graphs needs a CUDA device")
        self.name = formulation
        self.compile_model, self.cuda_graphs = compile_model, cuda_graphs
        self.channels_last = channels_last
        # Views of the models by number of participants, see `_views`.
        self.views: dict[int, dict[str, Tensor]] = {}
        self.graphs: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        chosen = self._fastest() if formulation == "stacked" else formulation
        self.formulation = chosen
        self.forward = self._prepared(chosen)

    def _views(self, rows: int) -> dict[str, Tensor]:
        """Every parameter of the first nodes [rows, ...], sharing memory with ``models``."""
        if rows in self.views:
            return self.views[rows]
        views, start = {}, 0
        for name, shape in parameter_shapes(self.architecture):
            size = prod(shape)
            view = self.models.detach()[:rows, start : start + size].view(rows, *shape)
            views[name] = view.requires_grad_()
            start += size
        self.views[rows] = views
        return views

    def _prepared(self, formulation: str) -> Forward:
        forward = make_forward(formulation, self.architecture, self.channels_last)
        return torch.compile(forward) if self.compile_model else forward

    def _fastest(self) -> str:
        """The formulation with the shortest median step on this device."""
        if self.n_local == 0:
            return FORMULATIONS[0]
        chosen = torch.zeros(self.n_local, 8, dtype=torch.int64, device=self.device)
        # Gradients at zero models are finite, and a zero step leaves the models as they are.
        step_size, self.step_size = self.step_size, 0.0
        times = {}
        for formulation in FORMULATIONS:
            self.forward = self._prepared(formulation)
            samples = []
            for _ in range(1 + _TRIAL_STEPS):
                self._synchronize()
                start = time.perf_counter()
                self._step(chosen)
                self._synchronize()
                samples.append(time.perf_counter() - start)
            times[formulation] = float(np.median(samples[1:]))
        self.step_size = step_size
        return min(times, key=times.__getitem__)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _step(self, chosen: Tensor) -> Tensor:
        """One local step on the images ``chosen`` [rows, B], in place; the batches' losses [rows]."""
        parameters = self._views(len(chosen))
        images, labels = self.gather(chosen)
        with self.autocast():
            logits = self.forward(parameters, images)
        losses = F.cross_entropy(
            logits.to(self.dtype).flatten(0, 1), labels.flatten(), reduction="none"
        )
        # The mean over each node's batch, summed over nodes: their gradients do not mix.
        losses = losses.view(chosen.shape).mean(1)
        values = list(parameters.values())
        gradients = torch.autograd.grad(losses.sum(), values)
        with torch.no_grad():
            torch._foreach_add_(values, list(gradients), alpha=-self.step_size)
        return losses.detach()

    def _round(self, batches: Tensor, energy: bool) -> Tensor:
        """All local steps, as `local_steps` on the device."""
        rows, steps = batches.shape[:2]
        paths = torch.zeros(4, rows, dtype=torch.float64, device=self.device)
        models = self.models.detach()[:rows]
        models[:] = self.mean
        for k in range(steps):
            before = models.clone() if energy else None
            paths[0] += self._step(batches[:, k])
            if before is not None:
                paths[1:3] += lost(before, models)
        if energy:
            paths[3] = lost(self.mean.expand_as(models), models)[1]
        return paths

    def local_steps(self, batches: np.ndarray, energy: bool) -> Tensor:
        chosen = torch.from_numpy(batches)
        if len(batches) == 0:
            return torch.zeros(4, 0, dtype=torch.float64, device=self.device)
        if not self.cuda_graphs:
            return self._round(chosen.to(self.device), energy)
        key = (*chosen.shape, energy)
        if key not in self.graphs:
            self.graphs[key] = self._record(chosen.to(self.device), energy)
        graph, static, paths = self.graphs[key]
        static.copy_(chosen)
        graph.replay()
        return paths.clone()

    def _record(self, static: Tensor, energy: bool) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        """Record a whole round on the batches in ``static``; warm up on a side stream first."""
        with torch.cuda.device(self.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._step(static[:, 0])
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                paths = self._round(static, energy)
        return graph, static, paths

    def close(self) -> None:
        self.graphs.clear()
