"""Winograd's convolution: the ordinary one, forward and backward, at a lower cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_deep_engines import trajectory
from torch.nn import functional as F

from deep.engines.simd.plan import make_layout
from deep.engines.simd.vector import LANES
from deep.engines.simd.winograd import (
    buffer_sizes,
    convolve,
    suits,
    weight_gradient,
)
from deep.resnet import Architecture

#: Maps of one group of tiles, of one row of tiles a group, of strips; tiles of 1, 2 and 4 vectors;
#: gradients with images and with channels in the lanes.
SHAPES = [(8, 4), (8, 8), (8, 32), (16, 4), (16, 8), (16, 16), (24, 16), (32, 24), (40, 4)]


def aligned(count: int, dtype: str) -> np.ndarray:
    """``count`` zeros on a cache line."""
    raw = np.zeros(count + 16, dtype)
    skip = (-raw.ctypes.data // raw.itemsize) % (64 // raw.itemsize)
    return raw[skip : skip + count]


def winograd(
    channels: int, size: int, x: np.ndarray, w: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twice the output, twice the gradients with respect to input and kernels.

    ``x`` and ``error`` [8, C, S, S], ``w`` [C, C, 3, 3]. Twice, as what is there is added to.
    """
    bordered, plain = channels * (size + 2) ** 2 * LANES, channels * size**2 * LANES
    starts = np.cumsum(
        [0, bordered, bordered, plain, plain, *buffer_sizes(channels, size)]
    ) + LANES * np.arange(8)
    arena = aligned(starts[-1] + LANES, x.dtype.name)
    guards = [int(end) + lane for end in starts[1:] - LANES for lane in range(LANES)]
    for start, image in zip(starts, (x, error), strict=False):
        place = arena[start : start + bordered].reshape(channels, size + 2, size + 2, LANES)
        place[:, 1:-1, 1:-1] = image.transpose(1, 2, 3, 0)
    arena[guards] = 7.0
    buffers, flat, grad = starts[4:7], w.reshape(-1), np.zeros(w.size, w.dtype)
    row = 9 * channels
    for again in (False, True):
        convolve(
            arena, starts[0], flat, 0, row, 9, False, channels, size, starts[2], again, *buffers
        )
        convolve(
            arena, starts[1], flat, 0, 9, row, True, channels, size, starts[3], again, *buffers
        )
        weight_gradient(arena, starts[0], starts[1], channels, size, grad, 0, *buffers)
    assert (arena[guards] == 7.0).all(), "a buffer was overrun"
    maps = [
        arena[start : start + plain].reshape(channels, size, size, LANES).transpose(3, 0, 1, 2)
        for start in starts[2:4]
    ]
    return maps[0], maps[1], grad.reshape(w.shape)


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-13), ("float32", 2e-5)])
@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_winograd_is_the_convolution_and_its_gradients(
    channels: int, size: int, precision: str, tolerance: float
) -> None:
    assert suits(channels, size)
    rng = np.random.default_rng(channels + size)
    x, error = rng.standard_normal((2, LANES, channels, size, size)).astype(precision)
    w = (rng.standard_normal((channels, channels, 3, 3)) / channels).astype(precision)
    inputs = [torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (x, w)]
    output = F.conv2d(inputs[0], inputs[1], padding=1)
    gradients = torch.autograd.grad(output, inputs, torch.from_numpy(error.astype(np.float64)))
    expected = [output.detach().numpy(), *(g.numpy() for g in gradients)]
    found = winograd(channels, size, x, w, error)
    for what, two in zip(expected, found, strict=True):
        assert np.abs(two / 2 - what).max() < tolerance * np.abs(what).max()


@pytest.mark.parametrize(("width", "size", "rounds"), [(8, 16, 5), (16, 16, 1)])
def test_winograd_follows_the_loop_to_1e_9(width: int, size: int, rounds: int) -> None:
    """20 steps in float64 where Winograd's kernels do the larger part of the work."""
    layout, _ = make_layout(Architecture(width, size))
    assert layout.blocks["winograd"].sum() >= 6
    short: dict[str, Any] = {"width": width, "size": size, "rounds": rounds, "precision": "float64"}
    exact = trajectory("loop", **short)
    assert np.abs(trajectory("simd", **short) - exact).max() < 1e-9


def test_winograd_is_independent_of_threads_and_of_what_its_buffers_hold() -> None:
    runs = [trajectory("simd", width=8, rounds=2, threads=threads) for threads in (1, 2)]
    assert (runs[0] == runs[1]).all()


def test_other_channels_and_sides_are_left_to_the_direct_convolution() -> None:
    assert not suits(4, 32) and not suits(12, 16)
    assert not suits(8, 2) and not suits(8, 12) and not suits(16, 6)
    layout, _ = make_layout(Architecture(11, 24))
    assert not layout.blocks["winograd"].any()
