"""Three ways to apply n ResNet18 models to n batches in one call of each operation.

Parameters carry a leading node axis: a convolution's weight is [n, out, in, k, k], a norm's scale
[n, channels] where norms have one. Every formulation maps images [n, B, 3, S, S] to logits
[n, B, classes]; they differ in the layout of feature maps and in which library routine does the
work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F

from deep.resnet import EPSILON, Architecture, ResNet18, block_shapes

#: (stacked parameters by name, images) -> logits.
Forward = Callable[[Mapping[str, Tensor], Tensor], Tensor]


class Grouped:
    """Maps [B, n C, H, W], channels last in memory when asked for: one convolution, n groups."""

    def __init__(self, channels_last: bool = True) -> None:
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def enter(self, images: Tensor) -> Tensor:
        n, batch, channels, height, width = images.shape
        stacked = images.transpose(0, 1).reshape(batch, n * channels, height, width)
        return stacked.contiguous(memory_format=self.layout)

    def conv(self, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        n, n_out, n_in, side, _ = weight.shape
        return F.conv2d(
            x, weight.reshape(n * n_out, n_in, side, side), None, stride, side // 2, groups=n
        )

    def norm(self, x: Tensor, n: int, affine: tuple[Tensor, Tensor] | None) -> Tensor:
        # One group a node over the stacked channels is one group over each node's channels.
        scale, shift = (part.reshape(-1) for part in affine) if affine else (None, None)
        return F.group_norm(x, n, scale, shift, EPSILON)

    def pool(self, x: Tensor, n: int) -> Tensor:
        return x.mean((2, 3)).unflatten(1, (n, -1)).transpose(0, 1)


class Im2col:
    """Maps [n, C, B, H, W]: shifted copies of the map, then one batched matrix product."""

    def enter(self, images: Tensor) -> Tensor:
        return images.transpose(1, 2)

    def conv(self, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        n, n_out, n_in, side, _ = weight.shape
        batch, height, width = x.shape[2:]
        if side == 1:
            columns = x[..., ::stride, ::stride]
        else:
            padded = F.pad(x, (1, 1, 1, 1))
            columns = torch.stack(
                [
                    padded[..., a : a + height : stride, b : b + width : stride]
                    for a in range(side)
                    for b in range(side)
                ],
                2,
            )
        rows, cols = columns.shape[-2:]
        flat = columns.reshape(n, n_in * side * side, batch * rows * cols)
        product = torch.bmm(weight.reshape(n, n_out, -1), flat)
        return product.view(n, n_out, batch, rows, cols)

    def norm(self, x: Tensor, n: int, affine: tuple[Tensor, Tensor] | None) -> Tensor:
        # Statistics in at least float32, also when bf16 comes out of the product.
        exact = x.float() if x.dtype == torch.bfloat16 else x
        variance, mean = torch.var_mean(exact, (1, 3, 4), correction=0, keepdim=True)
        factor = torch.rsqrt(variance + EPSILON)
        if affine is None:
            return ((exact - mean) * factor).to(x.dtype)
        scale, shift = (part.view(*part.shape, 1, 1, 1) for part in affine)
        return ((exact - mean) * (factor * scale) + shift).to(x.dtype)

    def pool(self, x: Tensor, n: int) -> Tensor:
        return x.mean((3, 4)).transpose(1, 2)


def _stacked_forward(architecture: Architecture, layout: Grouped | Im2col) -> Forward:
    shapes = block_shapes(architecture)

    def forward(p: Mapping[str, Tensor], images: Tensor) -> Tensor:
        def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
            return layout.conv(x, p[f"{name}.weight"], stride)

        def norm(x: Tensor, name: str) -> Tensor:
            affine = (p[f"{name}.weight"], p[f"{name}.bias"]) if architecture.norm_affine else None
            return layout.norm(x, images.shape[0], affine)

        x = F.relu(norm(conv(layout.enter(images), "stem"), "stem_norm"))
        for index, shape in enumerate(shapes):
            name = f"blocks.{index}"
            y = F.relu(norm(conv(x, f"{name}.conv1", shape.stride), f"{name}.norm1"))
            y = norm(conv(y, f"{name}.conv2"), f"{name}.norm2")
            if shape.has_shortcut:
                x = norm(conv(x, f"{name}.shortcut", shape.stride), f"{name}.shortcut_norm")
            x = F.relu(y + x)
        features = layout.pool(x, images.shape[0])
        return torch.baddbmm(
            p["head.bias"].unsqueeze(1),
            features.to(p["head.weight"].dtype),
            p["head.weight"].transpose(1, 2),
        )

    return forward


def _vmap_forward(architecture: Architecture) -> Forward:
    module = ResNet18(architecture).to("meta")

    def one(p: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(module, p, (images,))

    mapped = vmap(one)

    def forward(p: Mapping[str, Tensor], images: Tensor) -> Tensor:
        return mapped(dict(p), images)

    return forward


def make_forward(
    formulation: str, architecture: Architecture, channels_last: bool = True
) -> Forward:
    """The forward pass called ``grouped``, ``im2col`` or ``vmap``.

    ``channels_last`` is the layout of grouped convolution's maps; the others have their own.
    """
    if formulation == "vmap":
        return _vmap_forward(architecture)
    return _stacked_forward(
        architecture, Grouped(channels_last) if formulation == "grouped" else Im2col()
    )
