"""ResNet18 for 32 x 32 images with LayerNorm in place of BatchNorm.

The CIFAR variant: a 3 x 3 stem, no max-pool, four stages of two basic blocks, 11.17 M parameters
at width 64. "LayerNorm" on a feature map is ``GroupNorm`` with one group over (C, H, W), without
scale and shift, as in the repository of the paper's first author; ``norm_affine`` gives every
channel one of each. It treats images one by one, so a model's loss does not depend on how images
are batched, which averaging over nodes needs.

All engines exchange models as one flat vector in the order of `parameter_shapes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from theory.support.errors import UserError

#: Added to the variance by every norm, PyTorch's default.
EPSILON = 1e-5
#: (channels as a multiple of the width, stride of the first block) of the four stages.
STAGES = ((1, 1), (2, 2), (4, 2), (8, 2))
BLOCKS_PER_STAGE = 2
#: Stream number of the initial model; nodes are numbered from 0, so it never collides.
_INITIAL_STREAM = 2**63


@dataclass(frozen=True)
class Architecture:
    """What fixes the network: ``width`` >= 1 channels after the stem, square images, classes.

    ``norm_affine``: whether norms have a scale and a shift for every channel.
    Raises `UserError` for a width below 1 or an image side that 8 does not divide.
    """

    width: int = 64
    image_size: int = 32
    classes: int = 10
    norm_affine: bool = False

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UserError(f"--width must be at least 1, got {self.width}")
        if self.image_size < 8 or self.image_size % 8:
            raise UserError(
                f"images must have sides of a multiple of 8 pixels, got {self.image_size}"
            )


@dataclass(frozen=True)
class BlockShape:
    """One basic block: channels and map sides in and out; a shortcut exists where they differ."""

    n_in: int
    n_out: int
    size_in: int
    size_out: int
    stride: int

    @property
    def has_shortcut(self) -> bool:
        return self.stride != 1 or self.n_in != self.n_out


def block_shapes(architecture: Architecture) -> list[BlockShape]:
    """The eight basic blocks in order."""
    shapes = []
    n_in, size = architecture.width, architecture.image_size
    for multiple, first_stride in STAGES:
        n_out = architecture.width * multiple
        for index in range(BLOCKS_PER_STAGE):
            stride = first_stride if index == 0 else 1
            shapes.append(BlockShape(n_in, n_out, size, size // stride, stride))
            n_in, size = n_out, size // stride
    return shapes


def parameter_shapes(architecture: Architecture) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of every parameter, in the order of the flat vector."""
    width = architecture.width

    def norm(name: str, channels: int) -> list[tuple[str, tuple[int, ...]]]:
        if not architecture.norm_affine:
            return []
        return [(f"{name}.weight", (channels,)), (f"{name}.bias", (channels,))]

    shapes: list[tuple[str, tuple[int, ...]]] = [("stem.weight", (width, 3, 3, 3))]
    shapes += norm("stem_norm", width)
    for index, block in enumerate(block_shapes(architecture)):
        name = f"blocks.{index}"
        shapes.append((f"{name}.conv1.weight", (block.n_out, block.n_in, 3, 3)))
        shapes += norm(f"{name}.norm1", block.n_out)
        shapes.append((f"{name}.conv2.weight", (block.n_out, block.n_out, 3, 3)))
        shapes += norm(f"{name}.norm2", block.n_out)
        if block.has_shortcut:
            shapes.append((f"{name}.shortcut.weight", (block.n_out, block.n_in, 1, 1)))
            shapes += norm(f"{name}.shortcut_norm", block.n_out)
    features = width * STAGES[-1][0]
    shapes.append(("head.weight", (architecture.classes, features)))
    shapes.append(("head.bias", (architecture.classes,)))
    return shapes


def n_parameters(architecture: Architecture) -> int:
    """Length of the flat vector."""
    return sum(prod(shape) for _, shape in parameter_shapes(architecture))


def training_operations(architecture: Architecture) -> int:
    """Floating-point operations of one training step on one image.

    Multiplications and additions of convolutions and the linear layer: forward, gradient with
    respect to the weights, and gradient with respect to the input except for the stem's.
    """
    pixels, width = architecture.image_size**2, architecture.width
    stem = 2 * 9 * 3 * width * pixels
    others = 2 * width * STAGES[-1][0] * architecture.classes
    for block in block_shapes(architecture):
        area = block.size_out**2
        others += 2 * 9 * (block.n_in + block.n_out) * block.n_out * area
        if block.has_shortcut:
            others += 2 * block.n_in * block.n_out * area
    return 2 * stem + 3 * others


def initial_parameters(architecture: Architecture, seed: int) -> np.ndarray:
    """The common starting model, float64 [P].

    PyTorch's default: weights and biases of convolutions and of the linear layer uniform in
    +-1/sqrt(fan-in), norms the identity; drawn from a counter-based stream of ``seed``.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, _INITIAL_STREAM]))
    fan_in = 1
    pieces = []
    for name, shape in parameter_shapes(architecture):
        if "norm" in name:
            pieces.append(np.full(prod(shape), 1.0 if name.endswith("weight") else 0.0))
            continue
        if name.endswith("weight"):
            fan_in = prod(shape[1:])
        pieces.append(rng.uniform(-1.0, 1.0, prod(shape)) / sqrt(fan_in))
    return np.concatenate(pieces)


class _Block(nn.Module):
    def __init__(self, shape: BlockShape, affine: bool) -> None:
        super().__init__()
        n_in, n_out = shape.n_in, shape.n_out
        self.conv1 = nn.Conv2d(n_in, n_out, 3, shape.stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(1, n_out, EPSILON, affine)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(1, n_out, EPSILON, affine)
        self.shortcut: nn.Conv2d | None = None
        if shape.has_shortcut:
            self.shortcut = nn.Conv2d(n_in, n_out, 1, shape.stride, bias=False)
            self.shortcut_norm = nn.GroupNorm(1, n_out, EPSILON, affine)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.shortcut is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return F.relu(y + x)


class ResNet18(nn.Module):
    """The reference network: an ordinary module, [B, 3, S, S] -> logits [B, classes]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width, affine = architecture.width, architecture.norm_affine
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.stem_norm = nn.GroupNorm(1, width, EPSILON, affine)
        self.blocks = nn.Sequential(
            *(_Block(shape, affine) for shape in block_shapes(architecture))
        )
        self.head = nn.Linear(width * STAGES[-1][0], architecture.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem_norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


def load_flat(module: nn.Module, flat: Tensor) -> None:
    """Copy a flat vector [P] into the module's parameters."""
    start = 0
    with torch.no_grad():
        for parameter in module.parameters():
            stop = start + parameter.numel()
            parameter.copy_(flat[start:stop].view_as(parameter))
            start = stop


def read_flat(module: nn.Module) -> Tensor:
    """The module's parameters as one new vector [P]."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])
