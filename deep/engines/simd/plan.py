"""Where everything lies: parameters, maps, taps. Built once for an architecture.

A block of the network and what lies around the blocks are records of named positions, which
compiled code reads as ``b.hidden``; the package's text draws the maps of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import numpy as np

from deep.engines.simd.vector import LANES
from deep.engines.simd.winograd import buffer_sizes, suits
from deep.resnet import Architecture, BlockShape, block_shapes, parameter_shapes

V = LANES


def _record(*names: str) -> np.dtype:
    return np.dtype([(name, np.int64) for name in names])


#: One basic block.
BLOCK = _record(
    # Channels and sides in and out, stride; 1 where there is a shortcut, and where
    # convolutions that change neither channels nor side go through Winograd's transforms.
    *("n_in", "n_out", "s_in", "s_out", "stride", "has_shortcut", "winograd"),
    # Positions in the parameters: kernels, scales and shifts; -1 for what is not there.
    *("w_1", "scale_1", "shift_1", "w_2", "scale_2", "shift_2", "w_s", "scale_s", "shift_s"),
    # Positions in the arena of maps: b has a border. Convolutions' results y, norms' results.
    *("input_b", "y_1", "hidden_b", "y_2", "y_s", "shortcut_b", "output_b"),
    # Mean and 1/deviation of each image, of the three norms.
    *("stats_1", "stats_2", "stats_s"),
    # Gradients with respect to the input, the output, a convolution's result, the hidden map.
    *("g_input", "g_output", "g_y_b", "g_hidden"),
)
#: What lies before and after the blocks, and the buffers of Winograd's transforms.
ENDS = _record(
    *("width", "size", "classes", "features"),
    *("stem_w", "stem_scale", "stem_shift", "head_w", "head_b"),
    *("input_b", "stem_y", "stem_b", "stem_stats", "pooled", "logits"),
    *("kernels", "tiles", "products"),
)
#: Taps of a block, by convolution: first, second, shortcut; forward and backward. The first one's
#: gradient has a list for each parity of the input's pixels where the stride is 2.
FORWARD_1, FORWARD_2, FORWARD_S, BACK_2, BACK_S, BACK_1 = 0, 1, 2, 3, 4, 5
TAP_LISTS = BACK_1 + 4


class Layout(NamedTuple):
    """What compiled code needs to find its way.

    ``blocks`` BLOCK [8]; ``taps`` [8, TAP_LISTS, 9, 2], of which ``counts`` [8, TAP_LISTS] are in
    use; ``ends`` a record ENDS.
    """

    blocks: np.ndarray
    taps: np.ndarray
    counts: np.ndarray
    ends: np.ndarray


class _Memory:
    """Positions in the arena, handed out one after another."""

    def __init__(self) -> None:
        self.used = 0

    def reserve(self, vectors: int) -> int:
        first = self.used
        # Multiples of 16 floats keep every buffer on a cache line.
        self.used += -(-vectors * V // 16) * 16
        return first

    def plain(self, channels: int, size: int) -> int:
        """A map without a border."""
        return self.reserve(channels * size * size)

    def bordered(self, channels: int, size: int) -> int:
        """A map with a border of one zero pixel."""
        return self.reserve(channels * (size + 2) ** 2)


def make_layout(architecture: Architecture) -> tuple[Layout, int]:
    """The layout for an architecture, and the number of floats of an arena."""
    starts: dict[str, int] = {}
    start = 0
    for name, sides in parameter_shapes(architecture):
        starts[name] = start
        start += prod(sides)

    def position(name: str) -> int:
        # A norm without scale and shift: the kernels take a negative position for that.
        return starts.get(name, -1) if "norm" in name else starts[name]

    memory = _Memory()
    shapes = block_shapes(architecture)
    blocks = np.zeros(len(shapes), BLOCK)
    taps = np.zeros((len(shapes), TAP_LISTS, 9, 2), np.int64)
    counts = np.zeros((len(shapes), TAP_LISTS), np.int64)
    ends = np.zeros(1, ENDS)[0]
    width, size = architecture.width, architecture.image_size
    ends["width"], ends["size"], ends["classes"] = width, size, architecture.classes
    ends["stem_w"] = position("stem.weight")
    ends["stem_scale"] = position("stem_norm.weight")
    ends["stem_shift"] = position("stem_norm.bias")
    ends["head_w"], ends["head_b"] = position("head.weight"), position("head.bias")
    ends["input_b"], ends["stem_y"] = memory.bordered(3, size), memory.plain(width, size)
    ends["stem_b"], ends["stem_stats"] = memory.bordered(width, size), memory.reserve(2)
    # Gradient buffers serve all blocks of one shape.
    gradients: dict[tuple[int, int], tuple[int, int, int]] = {}
    for key in [(width, size)] + [(s.n_out, s.size_out) for s in shapes]:
        if key not in gradients:
            gradients[key] = memory.plain(*key), memory.bordered(*key), memory.plain(*key)
    below, g_below = ends["stem_b"], gradients[(width, size)][0]
    for index, (b, shape) in enumerate(zip(blocks, shapes, strict=True)):
        _fill_block(b, shape, f"blocks.{index}", position, memory)
        b["input_b"], b["g_input"] = below, g_below
        b["g_output"], b["g_y_b"], b["g_hidden"] = gradients[shape.n_out, shape.size_out]
        for which, found in _tap_lists(shape).items():
            taps[index, which, : len(found)], counts[index, which] = found, len(found)
        below, g_below = b["output_b"], b["g_output"]
    ends["features"] = shapes[-1].n_out
    ends["pooled"] = memory.reserve(shapes[-1].n_out)
    ends["logits"] = memory.reserve(architecture.classes)
    # Winograd's buffers serve all blocks.
    sizes = [buffer_sizes(s.n_out, s.size_out) for s in shapes if suits(s.n_out, s.size_out)]
    largest = np.max([(0, 0, 0), *sizes], axis=0)
    for name, floats in zip(("kernels", "tiles", "products"), largest, strict=True):
        ends[name] = memory.reserve(-(-int(floats) // V))
    return Layout(blocks, taps, counts, ends), memory.used


def without_winograd(layout: Layout) -> Layout:
    """The same layout with direct convolutions only, to compare with."""
    blocks = layout.blocks.copy()
    blocks["winograd"] = 0
    return layout._replace(blocks=blocks)


def _fill_block(
    b: np.ndarray, shape: BlockShape, name: str, position: Callable[[str], int], memory: _Memory
) -> None:
    """Sizes, parameters and own maps of the block called ``name``."""
    out = shape.n_out, shape.size_out
    b["n_in"], b["n_out"] = shape.n_in, shape.n_out
    b["s_in"], b["s_out"] = shape.size_in, shape.size_out
    b["stride"], b["has_shortcut"] = shape.stride, shape.has_shortcut
    b["winograd"] = suits(*out)
    branches = [("1", "conv1", "norm1"), ("2", "conv2", "norm2")]
    if shape.has_shortcut:
        branches.append(("s", "shortcut", "shortcut_norm"))
    for end, conv, norm in branches:
        b[f"w_{end}"] = position(f"{name}.{conv}.weight")
        b[f"scale_{end}"] = position(f"{name}.{norm}.weight")
        b[f"shift_{end}"] = position(f"{name}.{norm}.bias")
        b[f"y_{end}"], b[f"stats_{end}"] = memory.plain(*out), memory.reserve(2)
    b["hidden_b"], b["output_b"] = memory.bordered(*out), memory.bordered(*out)
    if shape.has_shortcut:
        b["shortcut_b"] = memory.bordered(*out)


def _tap_lists(shape: BlockShape) -> dict[int, np.ndarray]:
    """Taps of a block's convolutions by their number."""
    found = {
        FORWARD_1: forward_taps(shape.size_in, 3),
        FORWARD_2: forward_taps(shape.size_out, 3),
        BACK_2: backward_taps(shape.size_out, 1, 3, 0, 0),
    }
    for parity in range(shape.stride**2):
        y, x = divmod(parity, 2)
        found[BACK_1 + parity] = backward_taps(shape.size_out, shape.stride, 3, y, x)
    if shape.has_shortcut:
        found[FORWARD_S] = forward_taps(shape.size_in, 1)
        found[BACK_S] = backward_taps(shape.size_out, shape.stride, 1, 0, 0)
    return found


def forward_taps(size_in: int, kernel: int) -> np.ndarray:
    """Taps [kernel^2, 2] of a convolution that reads a bordered map of side ``size_in``.

    A 3x3 kernel starts on the border; a 1x1 kernel reads the pixel itself.
    """
    row = (size_in + 2) * V
    if kernel == 1:
        return np.array([[row + V, 0]])
    return np.array([[a * row + b * V, 3 * a + b] for a in range(3) for b in range(3)])


def backward_taps(size_out: int, stride: int, kernel: int, odd_y: int, odd_x: int) -> np.ndarray:
    """Taps of the gradient with respect to the input pixels (y, x) of one parity.

    With stride 2, input pixel y = 2 m + odd_y receives from the outputs h with 2 h + a = y + 1:
    a = 1 for even y; a = 0 and a = 2 for odd y. The offsets are relative to the bordered error
    map's pixel (m, m), border included.
    """
    row = (size_out + 2) * V
    if kernel == 1:
        return np.array([[row + V, 0]])
    strided = [[(1, 1)], [(2, 0), (1, 2)]]
    steps = [[(2 - a, a) for a in range(3)]] * 2 if stride == 1 else strided
    return np.array(
        [[h * row + g * V, 3 * a + b] for h, a in steps[odd_y] for g, b in steps[odd_x]]
    )


def make_arena(floats: int, dtype: np.dtype) -> np.ndarray:
    """Zeroed working memory of one thread, on a cache line (the borders rely on the zeros)."""
    raw = np.zeros(floats + 16, dtype)
    skip = (-raw.ctypes.data // raw.itemsize) % (64 // raw.itemsize)
    return raw[skip : skip + floats]
