"""Engines: ways to run one round of Local SGD on the nodes of this process.

An engine holds the common model xbar and, after a round, the model of every node. It differs from
the others only in `Engine.local_steps`: same batches in, same models out, to rounding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deep.data.cifar10 import Images
from deep.distributed import Communicator
from deep.resnet import Architecture, ResNet18, load_flat, n_parameters, read_flat
from theory.support.errors import UserError

#: Formulations of the stacked engine, see `deep.engines.stacked`.
STACKED = ("stacked", "grouped", "im2col", "vmap")
ENGINES = ("auto", "simd", "loop", *STACKED)
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}


#: Numbers of a model that are averaged over the nodes at a time on the CPU.
_PIECE = 1 << 16


@dataclass(frozen=True)
class RoundStatistics:
    """``consensus_distance``: (1/n) sum_i ||x_i - xbar||^2 at the end of a round, before averaging.

    ``gradient_norm``: ||xbar_before - xbar_after|| / (step_size K), the norm of the mean of the
    gradients that the round applied.
    """

    consensus_distance: float
    gradient_norm: float


class Engine:
    """Base of all engines; subclasses define `local_steps` and `sum_of_losses`."""

    name = "engine"

    def __init__(
        self,
        architecture: Architecture,
        data: Images,
        n_nodes: int,
        n_local: int,
        step_size: float,
        device: torch.device,
        precision: str,
        communicator: Communicator,
    ) -> None:
        self.architecture, self.data = architecture, data
        self.n_nodes, self.n_local, self.step_size = n_nodes, n_local, step_size
        self.device, self.precision, self.communicator = device, precision, communicator
        self.dtype = PRECISIONS[precision]
        size = n_parameters(architecture)
        self.mean = torch.zeros(size, dtype=self.dtype, device=device)
        self.models = torch.zeros(n_local, size, dtype=self.dtype, device=device)

    def set_model(self, flat: np.ndarray) -> None:
        """Let ``flat`` [P] be the model that all nodes hold."""
        self.mean.copy_(torch.from_numpy(flat))

    def model(self) -> np.ndarray:
        """The common model [P], a copy."""
        return self.mean.cpu().numpy().copy()

    def local_steps(self, batches: np.ndarray) -> None:
        """From ``mean``, K steps of every local node into ``models``; int64 [n_local, K, B]."""
        raise NotImplementedError

    def sum_of_losses(self, chosen: np.ndarray) -> float:
        """Sum of the losses of ``mean`` over the images ``chosen``."""
        raise NotImplementedError

    def round(self, batches: np.ndarray, measure: bool = False) -> RoundStatistics | None:
        """K local steps of every node, then the average over all nodes of all processes."""
        self.local_steps(batches)
        if self.device.type == "cuda":
            total = self.models.sum(0)
        else:
            # One node after another: the sum's order never depends on threads or vector width.
            # In pieces that stay in cache while the nodes go by.
            total = torch.zeros_like(self.mean)
            for first in range(0, len(total), _PIECE):
                piece = total[first : first + _PIECE]
                for model in self.models:
                    piece += model[first : first + _PIECE]
        self.communicator.sum_(total)
        average = total.div_(self.n_nodes)
        statistics = None
        if measure:
            spread = torch.zeros((), dtype=torch.float64, device=self.device)
            for model in self.models:
                spread += (model - average).double().square().sum()
            self.communicator.sum_(spread)
            moved = (self.mean - average).double().square().sum().sqrt().item()
            steps = batches.shape[1]
            statistics = RoundStatistics(
                spread.item() / self.n_nodes, moved / (self.step_size * steps)
            )
        self.mean.copy_(average)
        return statistics

    def mean_loss(self) -> float:
        """Training loss of the common model over the whole training set."""
        mine = np.arange(len(self.data))[self.communicator.rank :: self.communicator.size]
        total = torch.tensor(self.sum_of_losses(mine), dtype=torch.float64, device=self.device)
        self.communicator.sum_(total)
        return total.item() / len(self.data)

    def close(self) -> None:
        """Release threads and device memory."""


class TorchEngine(Engine):
    """Common part of the engines that run on PyTorch: the training set and the full loss."""

    evaluation_batch = 500

    def __init__(self, *args, **options) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **options)
        # The whole training set stays on the device as bytes; batches are made there.
        self.images = torch.from_numpy(self.data.images).to(self.device)
        self.labels = torch.from_numpy(self.data.labels).to(self.device)
        self.table = torch.from_numpy(self.data.normalisation()).to(self.device, self.dtype)
        self.module = ResNet18(self.architecture).to(self.device, self.dtype)

    def gather(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images [..., 3, S, S] and labels [...] of the indices ``chosen`` [...]."""
        raw = self.images[chosen].to(torch.int64)
        pixels = torch.stack(
            [self.table[channel][raw.select(-3, channel)] for channel in range(3)], -3
        )
        return pixels, self.labels[chosen]

    def autocast(self) -> torch.autocast:
        """bf16 arithmetic on float32 master weights when asked for, else nothing."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    @torch.no_grad()
    def sum_of_losses(self, chosen: np.ndarray) -> float:
        load_flat(self.module, self.mean)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in torch.from_numpy(chosen).to(self.device).split(self.evaluation_batch):
            images, labels = self.gather(part)
            with self.autocast():
                logits = self.module(images)
            total += F.cross_entropy(logits.to(self.dtype), labels, reduction="sum").double()
        return total.item()


class LoopEngine(TorchEngine):
    """The reference: an ordinary module a node, trained one after another."""

    name = "loop"

    def local_steps(self, batches: np.ndarray) -> None:
        parameters: list[Tensor] = list(self.module.parameters())
        for i in range(self.n_local):
            load_flat(self.module, self.mean)
            for chosen in torch.from_numpy(batches[i]).to(self.device):
                images, labels = self.gather(chosen)
                with self.autocast():
                    logits = self.module(images)
                loss = F.cross_entropy(logits.to(self.dtype), labels)
                gradients = torch.autograd.grad(loss, parameters)
                with torch.no_grad():
                    torch._foreach_add_(parameters, gradients, alpha=-self.step_size)
            self.models[i] = read_flat(self.module)


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_device(name: str) -> torch.device:
    """The device called ``name``: auto, cpu, cuda or cuda:N; `UserError` when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"the device {name} is not there: {count} CUDA devices found; use cpu")
    elif device.type != "cpu":
        raise UserError(f"the device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    return device


def make_engine(
    name: str,
    architecture: Architecture,
    data: Images,
    *,
    n_nodes: int,
    n_local: int | None = None,
    step_size: float,
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
    communicator: Communicator | None = None,
    compile_model: bool = False,
    cuda_graphs: bool = False,
    channels_last: bool = True,
) -> Engine:
    """The engine called ``name``; ``auto`` is ``simd`` on the CPU and ``stacked`` on a GPU.

    ``n_local`` nodes of the ``n_nodes`` run in this process (all by default). ``threads`` is for
    the simd engine; ``compile_model``, ``cuda_graphs`` and ``channels_last`` (memory layout of
    grouped convolution) for the stacked ones. Raises `UserError` for what does not exist or does
    not fit together.
    """
    if name not in ENGINES:
        raise UserError(f"unknown engine {name!r}: choose one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    place = find_device(device)
    if name == "auto":
        name = "simd" if place.type == "cpu" and precision != "bf16" else "stacked"
    common = (
        architecture,
        data,
        n_nodes,
        n_nodes if n_local is None else n_local,
        step_size,
        place,
        precision,
        communicator or Communicator(),
    )
    if name == "loop":
        return LoopEngine(*common)
    if name == "simd":
        if place.type != "cpu" or precision == "bf16":
            raise UserError("the simd engine runs on the CPU in float32 or float64")
        from deep.engines.simd.engine import SimdEngine

        return SimdEngine(*common, threads=threads)
    from deep.engines.stacked import StackedEngine

    return StackedEngine(
        *common,
        formulation=name,
        compile_model=compile_model,
        cuda_graphs=cuda_graphs,
        channels_last=channels_last,
    )
