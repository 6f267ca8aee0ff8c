"""The loop engine: the reference, and the shortest statement of what a local step is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deep.engines.base import TorchEngine
from deep.engines.energy import lost
from deep.resnet import load_flat, read_flat


class LoopEngine(TorchEngine):
    """The reference: an ordinary module a node, trained one after another."""

    name = "loop"

    def local_steps(self, batches: np.ndarray, energy: bool) -> Tensor:
        parameters: list[Tensor] = list(self.module.parameters())
        paths = torch.zeros(4, len(batches), dtype=torch.float64, device=self.device)
        for i in range(len(batches)):
            load_flat(self.module, self.mean)
            for chosen in torch.from_numpy(batches[i]).to(self.device):
                images, labels = self.gather(chosen)
                with self.autocast():
                    logits = self.module(images)
                loss = F.cross_entropy(logits.to(self.dtype), labels)
                gradients = torch.autograd.grad(loss, parameters)
                before = read_flat(self.module) if energy else None
                with torch.no_grad():
                    torch._foreach_add_(parameters, gradients, alpha=-self.step_size)
                    paths[0, i] += loss
                if before is not None:
                    paths[1:3, i] += lost(before, read_flat(self.module))
            self.models[i] = read_flat(self.module)
            if energy:
                paths[3, i] = lost(self.mean, self.models[i])[1]
        return paths
