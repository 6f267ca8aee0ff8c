"""Engines: ways to run one round of Local SGD on the nodes of this process.

An engine holds the common model xbar and, after a round, the model of every node. It differs from
the others only in `Engine.local_steps` and `Engine.scores`: same batches in, same models out, to
rounding. Averaging, the outer step and everything measured are defined once, here.

Numbers that nodes or images contribute are brought together as vectors, one entry each, and added
in one fixed order; models are added in float64 and rounded once. So with the simd engine neither
the number of processes nor that of threads changes a float32 model. The others take their local
steps with PyTorch's kernels, whose sums depend on the number of threads: the same number, same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deep.data.cifar10 import Images
from deep.distributed import Communicator
from deep.engines.energy import PIECE, EnergyTerms
from deep.resnet import Architecture, ResNet18, load_flat, n_parameters
from theory.support.errors import UserError

#: Arithmetic of an engine, and the kind of number its models are.
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}


#: Outer steps that a round chooses itself, see `Engine.round`.
OUTER_STEPS = ("extrapolated", "polyak")


@dataclass(frozen=True)
class RoundStatistics:
    """What a round did; Delta_i = x_i - xbar_r is the update of node i, mean over participants.

    ``consensus_distance``: mean ||x_i - mean x||^2 at the end of the local steps, before averaging.
    ``gradient_norm``: ||mean Delta|| / (step_size K), the norm of the mean of the gradients that
    the round applied. ``mean_square``: P = mean ||Delta_i||^2; ``square_mean``: Q = ||mean
    Delta||^2; P = Q + consensus distance. ``local_loss``: S, the mean over nodes of the sum over
    local steps of the batch's loss at the point where its gradient was taken. ``outer_step``: the
    beta that was used.
    """

    consensus_distance: float
    gradient_norm: float
    mean_square: float
    square_mean: float
    local_loss: float
    outer_step: float


@dataclass(frozen=True)
class Losses:
    """Losses of xbar: ``mean`` over the training set, ``nodes`` [n] over every node's own images."""

    mean: float
    nodes: np.ndarray


def check_outer_step(outer_step: float | str) -> None:
    """Raise `UserError` unless it is a positive number or a name in `OUTER_STEPS`."""
    if isinstance(outer_step, str):
        allowed = outer_step in OUTER_STEPS
    else:
        allowed = math.isfinite(outer_step) and outer_step > 0
    if not allowed:
        raise UserError(
            f"--outer-step is {outer_step}, allowed: a positive number, {', '.join(OUTER_STEPS)}"
        )


class Engine:
    """Base of all engines; subclasses define `local_steps` and `scores`."""

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
        self.shards: list[np.ndarray] = []

    def set_model(self, flat: np.ndarray) -> None:
        """Let ``flat`` [P] be the model that all nodes hold."""
        self.mean.copy_(torch.from_numpy(flat))

    def model(self) -> np.ndarray:
        """The common model [P], a copy."""
        return self.mean.cpu().numpy().copy()

    def set_shards(self, shards: list[np.ndarray]) -> None:
        """Tell the images of each of the n nodes, for `losses`."""
        self.shards = shards

    def local_steps(self, batches: np.ndarray, energy: bool) -> Tensor:
        """From ``mean``, K steps of some nodes into the first ``rows`` rows of ``models``.

        ``batches`` int64 [rows, K, B]; returns float64 [4, rows]. Of every node: the sum over steps of
        its batch's mean loss; with u = x - x' for what a step from x to x' took away, the sums of <u, x>
        and of ||u||^2; and the squared distance of its last model from ``mean``. The last three are
        computed when ``energy`` asks for them, and else zero.
        """
        raise NotImplementedError

    def scores(self, images: Images, chosen: np.ndarray) -> np.ndarray:
        """Of ``mean`` on images[chosen]: losses, and 1 where the largest logit is the label's.

        float64 [2, len(chosen)].
        """
        raise NotImplementedError

    def round(
        self,
        batches: np.ndarray,
        measure: bool = False,
        nodes: Sequence[int] | None = None,
        outer_step: float | str = 1.0,
        energy: EnergyTerms | None = None,
    ) -> RoundStatistics | None:
        """K local steps of the participating nodes, then the average over them and an outer step.

        ``nodes``: the m >= 1 participants among 0..n-1, ascending, the same on every process; all
        by default. ``batches`` int64 [rows, K, B]: a row for each of them that this process runs.
        xbar_{r+1} = xbar_r + beta mean Delta, with Delta_i = x_i - xbar_r; ``outer_step`` is beta:
        a positive number (1: the plain mean), ``extrapolated``, max(1, P/Q), or ``polyak``,
        (P + 2 eta S)/(2 Q), which takes phi of the theory as 1 (proved for eta <= 1/L); see
        `RoundStatistics` for P, Q and S. Where the mean does not move (Q = 0), beta is 1. The
        round's terms of the balance are added to ``energy``. Returns the statistics when
        ``measure``. Raises `UserError` for an outer step that does not exist,
        ValueError for nodes or rows that do not fit.
        """
        check_outer_step(outer_step)
        participants = list(range(self.n_nodes)) if nodes is None else list(nodes)
        if participants != sorted(set(participants) & set(range(self.n_nodes))) or not participants:
            raise ValueError(
                f"nodes {participants} are not ascending numbers in 0..{self.n_nodes - 1}"
            )
        here = set(self.communicator.nodes(self.n_nodes))
        mine = [place for place, node in enumerate(participants) if node in here]
        if len(mine) != len(batches):
            raise ValueError(f"{len(batches)} rows of batches for {len(mine)} participants here")
        paths = self.local_steps(batches, energy is not None)
        average = self._average(len(mine), len(participants))
        found = None
        beta = outer_step
        if measure or isinstance(beta, str):
            found = self._measure(
                paths[0], average, mine, len(participants), batches.shape[1], beta
            )
            beta = found.outer_step
        if energy is not None:
            table = torch.zeros(4, len(participants), dtype=torch.float64)
            table[:, mine] = paths.cpu()
            square_mean = found.square_mean if found else _squared_distance(self.mean, average)
            loss, inner, square, mean_square = self._complete(table).mean(1).tolist()
            energy.add(loss, inner, square, mean_square, square_mean, float(beta))
        if beta != 1.0:
            before = self.mean.double()
            average = average.sub_(before).mul_(beta).add_(before)
        self.mean.copy_(average)
        if energy is not None:
            energy.add_rounding(average, self.mean)
        return found if measure else None

    def _average(self, rows: int, count: int) -> Tensor:
        """The mean, float64 [P], over ``count`` nodes, of which this process has ``rows``."""
        models = self.models.detach()[:rows]
        if self.device.type == "cuda":
            total = models.sum(0, dtype=torch.float64)
        else:
            # One node after another, in pieces that stay in cache while the nodes go by.
            total = torch.zeros(len(self.mean), dtype=torch.float64)
            for first in range(0, len(total), PIECE):
                piece = total[first : first + PIECE]
                for model in models:
                    piece += model[first : first + PIECE]
        self.communicator.sum_(total)
        return total.div_(count)

    def _measure(
        self,
        paths: Tensor,
        average: Tensor,
        mine: list[int],
        count: int,
        steps: int,
        outer_step: float | str,
    ) -> RoundStatistics:
        """Statistics of a round of ``count`` participants, the places ``mine`` of them here."""
        table = torch.zeros(2, count, dtype=torch.float64)
        for row, place in enumerate(mine):
            table[0, place] = _squared_distance(self.models[row].detach(), average)
        table[1, mine] = paths.cpu()
        consensus, local_loss = self._complete(table).mean(1).tolist()
        square_mean = _squared_distance(self.mean, average)
        mean_square = square_mean + consensus
        if outer_step == "extrapolated":
            beta = max(1.0, mean_square / square_mean) if square_mean else 1.0
        elif outer_step == "polyak":
            gained = mean_square + 2 * self.step_size * local_loss
            beta = gained / (2 * square_mean) if square_mean else 1.0
        else:
            beta = float(outer_step)
        norm = math.sqrt(square_mean) / (self.step_size * steps)
        return RoundStatistics(consensus, norm, mean_square, square_mean, local_loss, beta)

    def _complete(self, table: Tensor) -> np.ndarray:
        """Entries of all processes: each fills its own and leaves the others zero, so none round."""
        whole = table.to(self.device)
        self.communicator.sum_(whole)
        return whole.cpu().numpy()

    def _scores(self, images: Images) -> np.ndarray:
        """`scores` of all images, shared among the processes."""
        mine = np.arange(len(images))[self.communicator.rank :: self.communicator.size]
        table = np.zeros((2, len(images)))
        table[:, mine] = self.scores(images, mine)
        return self._complete(torch.from_numpy(table))

    def losses(self) -> Losses:
        """Losses of xbar over the training set and over every node's images, in one pass.

        ``nodes`` is empty unless `set_shards` was called. All processes must call it.
        """
        found = self._scores(self.data)[0]
        nodes = np.array([found[shard].mean() for shard in self.shards])
        return Losses(float(found.mean()), nodes)

    def mean_loss(self) -> float:
        """Training loss of xbar over the whole training set."""
        return self.losses().mean

    def evaluate(self, images: Images) -> tuple[float, float]:
        """Mean loss and accuracy, in [0, 1], of xbar on other images, such as a test set.

        Their pixels become numbers as those of the training set do. All processes must call it.
        Raises `UserError` for images of another size or with labels that the network lacks.
        """
        if images.images.shape[1:] != self.data.images.shape[1:]:
            raise UserError(
                f"{images.name} has images of {images.images.shape[2]} pixels a side, "
                f"the training set of {self.data.images.shape[2]}"
            )
        if len(images) == 0 or images.labels.max() >= self.architecture.classes:
            raise UserError(
                f"{images.name} needs images with labels below {self.architecture.classes}"
            )
        loss, accuracy = self._scores(images).mean(1).tolist()
        return loss, accuracy

    def weight_norm(self) -> float:
        """||xbar||."""
        return math.sqrt(_squared_distance(self.mean, torch.zeros_like(self.mean)))

    def close(self) -> None:
        """Release threads and device memory."""


def _squared_distance(a: Tensor, b: Tensor) -> float:
    """||a - b||^2 in float64; on the CPU in one order, whatever the number of threads."""
    if a.device.type == "cuda":
        return float((a.double() - b).square().sum().item())
    left, right = a.numpy(), b.numpy()
    total = 0.0
    for first in range(0, len(left), PIECE):
        part = slice(first, first + PIECE)
        difference = np.subtract(left[part], right[part], dtype=np.float64)
        total += float(np.square(difference, out=difference).sum())
    return total


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

    def gather(self, chosen: Tensor, images: Images | None = None) -> tuple[Tensor, Tensor]:
        """Normalised images [..., 3, S, S] and labels [...] of the indices ``chosen`` [...].

        Of the training set, which lies on the device, unless other ``images`` are given.
        """
        if images is None:
            raw, labels = self.images[chosen], self.labels[chosen]
        else:
            numbers = chosen.cpu().numpy()
            raw = torch.from_numpy(images.images[numbers]).to(self.device)
            labels = torch.from_numpy(images.labels[numbers]).to(self.device)
        raw = raw.to(torch.int64)
        pixels = torch.stack(
            [self.table[channel][raw.select(-3, channel)] for channel in range(3)], -3
        )
        return pixels, labels

    def autocast(self) -> torch.autocast:
        """bf16 arithmetic on float32 master weights when asked for, else nothing."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    @torch.no_grad()
    def scores(self, images: Images, chosen: np.ndarray) -> np.ndarray:
        load_flat(self.module, self.mean)
        other = None if images is self.data else images
        found = []
        for part in torch.from_numpy(chosen).to(self.device).split(self.evaluation_batch):
            pixels, labels = self.gather(part, other)
            with self.autocast():
                logits = self.module(pixels).to(self.dtype)
            losses = F.cross_entropy(logits, labels, reduction="none")
            found.append(torch.stack([losses.double(), (logits.argmax(1) == labels).double()]))
        return torch.cat(found, 1).cpu().numpy() if found else np.zeros((2, 0))
