"""The engine called so and so, on the device called so and so."""

from __future__ import annotations

import os

import torch

from deep.data.cifar10 import Images
from deep.distributed import Communicator
from deep.engines.base import PRECISIONS, Engine
from deep.engines.loop import LoopEngine
from deep.engines.stacked import FORMULATIONS, StackedEngine
from deep.resnet import Architecture
from theory.support.errors import UserError

ENGINES = ("auto", "simd", "loop", "stacked", *FORMULATIONS)


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
    elif device.type != "cpu" or device.index is not None:
        raise UserError(f"the device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    return device


def engine_for(name: str, place: torch.device, precision: str) -> str:
    """``name``, or what ``auto`` stands for on a device."""
    if name != "auto":
        return name
    return "simd" if place.type == "cpu" and precision != "bf16" else "stacked"


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
    the simd engine (all cores by default); ``compile_model``, ``cuda_graphs`` and
    ``channels_last`` (memory layout of grouped convolution) for the stacked ones. Raises
    `UserError` for what does not exist or does not fit together.
    """
    if name not in ENGINES:
        raise UserError(f"unknown engine {name!r}: choose one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    place = find_device(device)
    name = engine_for(name, place, precision)
    for option, chosen in (("compile", compile_model), ("cuda-graphs", cuda_graphs)):
        if chosen and name in ("simd", "loop"):
            raise UserError(f"--{option} is set, allowed: with a stacked engine, not {name}")
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
        # Here, because only this engine needs the compiler that the import loads.
        from deep.engines.simd.engine import SimdEngine

        return SimdEngine(*common, threads=threads or available_cores())
    return StackedEngine(
        *common,
        formulation=name,
        compile_model=compile_model,
        cuda_graphs=cuda_graphs,
        channels_last=channels_last,
    )
