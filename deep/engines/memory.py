"""What a run's network will take of memory, so that one too large is refused before it is begun."""

from __future__ import annotations

from deep.resnet import Architecture, block_shapes, n_parameters
from theory.support.memory import require

#: Bytes of a number by precision; bf16 keeps its weights in float32.
_ITEM = {"float32": 4, "float64": 8, "bf16": 4}
#: float64 vectors of the length of a model: the start, the mean over nodes, its difference.
_DOUBLES = 3


def check_round(n_local: int, local_steps: int, batch_size: int) -> None:
    """Raise `UserError` when the batches of one round, which are drawn together, will not fit.

    Counted are their numbers in 64 bits, and the loss, ||g||^2 and <g, x> of every step.
    """
    found = 8 * n_local * local_steps * (batch_size + 3)
    require(found, f"a round of {local_steps:,} local steps", "-K, --batch-size or --nodes")


def check_memory(
    architecture: Architecture,
    *,
    n_local: int,
    batch_size: int,
    engine: str,
    precision: str,
    threads: int,
) -> None:
    """Raise `UserError` when a process with ``n_local`` nodes will not fit into this machine.

    Counted are, as a lower bound beyond the images, models and gradients of its nodes, and the maps that
    a backward pass keeps of the images that are trained on at a time: a batch (loop), a batch of every
    node (stacked), eight a thread (simd).
    """
    size, item = n_parameters(architecture), _ITEM[precision]
    # A convolution's output and what its norm makes of it; the first is the stem's.
    maps = 2 * architecture.width * architecture.image_size**2
    for block in block_shapes(architecture):
        maps += 2 * (2 + block.has_shortcut) * block.n_out * block.size_out**2
    models, at_a_time = n_local + 2, batch_size
    if engine == "simd":
        models, at_a_time = n_local + 1 + threads, 8 * threads
    elif engine != "loop":
        models, at_a_time = 2 * n_local + 2, batch_size * n_local
    found = item * (models * size + at_a_time * maps) + 8 * _DOUBLES * size
    what = f"training {n_local} models of {size:,} numbers"
    require(found, what, "--width, --nodes or --batch-size")
