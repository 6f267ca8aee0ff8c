"""Engines: one trajectory, whatever formulation, batch size and number of threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from deep_cases import random_images

from deep.data.partition import draw_batches, partition
from deep.engines.make import make_engine
from deep.engines.stacked import FORMULATIONS, StackedEngine
from deep.resnet import Architecture, initial_parameters
from theory.support.errors import UserError

N_NODES, STEP_SIZE = 3, 0.1


def trajectory(
    name: str,
    *,
    width: int = 2,
    size: int = 8,
    batch_size: int = 8,
    rounds: int = 5,
    local_steps: int = 4,
    norm_affine: bool = False,
    pixels: str = "centred",
    seed: int = 0,
    nodes: tuple[int, ...] = (0, 1, 2),
    outer_step: float | str = 1.0,
    **options: Any,
) -> np.ndarray:
    """The averaged model after every round and the models of the last, [rounds + m, P]."""
    architecture = Architecture(width, size, norm_affine=norm_affine)
    data = replace(random_images(40, size), pixels=pixels)
    engine = make_engine(name, architecture, data, n_nodes=N_NODES, step_size=STEP_SIZE, **options)
    shards = partition(data.labels, N_NODES, "pathological", 0.5, 0)
    engine.set_model(initial_parameters(architecture, seed))
    averages = []
    for r in range(rounds):
        # Other participants every round, as many: the numbers are shifted.
        mine = sorted((node + r) % N_NODES for node in nodes)
        batches = draw_batches(shards, mine, r * local_steps, local_steps, batch_size, 0)
        engine.round(batches, nodes=mine, outer_step=outer_step)
        averages.append(engine.model())
    models = engine.models.detach().numpy()[: len(nodes)].copy()
    engine.close()
    return np.concatenate([averages, models]).astype(np.float64)


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    """The loop engine over 20 steps in float64."""
    return trajectory("loop", precision="float64")


@pytest.fixture(scope="module")
def affine_reference() -> np.ndarray:
    """The same with scale and shift in every norm, and standardised pixels."""
    return trajectory("loop", precision="float64", norm_affine=True, pixels="standardised")


@pytest.mark.parametrize("name", ["simd", "grouped", "im2col", "vmap"])
def test_engines_follow_the_loop_to_1e_9(name: str, reference: np.ndarray) -> None:
    found = trajectory(name, precision="float64")
    assert np.abs(found - reference).max() < 1e-9
    # Something happened: the rounds moved the model, and the nodes went apart.
    assert np.abs(reference[4] - reference[0]).max() > 1e-2
    assert np.abs(reference[-1] - reference[-2]).max() > 1e-3


@pytest.mark.parametrize("name", ["simd", "grouped", "im2col", "vmap"])
def test_affine_norms_and_standardised_pixels(name: str, affine_reference: np.ndarray) -> None:
    found = trajectory(name, precision="float64", norm_affine=True, pixels="standardised")
    assert np.abs(found - affine_reference).max() < 1e-9


#: Rounds that differ from the plain mean of all nodes: participants, outer step, step size factor.
CHOICES: list[dict[str, Any]] = [
    {"nodes": (0, 1), "outer_step": 1.0},
    {"nodes": (1,), "outer_step": 0.5},
    {"nodes": (0, 2), "outer_step": "extrapolated"},
    {"outer_step": "polyak"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_engines_agree_on_participants_and_outer_steps(
    choice: dict[str, Any], reference: np.ndarray
) -> None:
    expected = trajectory("loop", precision="float64", **choice)
    assert np.abs(expected[4] - reference[4]).max() > 1e-3
    for name in ("simd", "grouped", "im2col", "vmap"):
        found = trajectory(name, precision="float64", **choice)
        assert np.abs(found - expected).max() < 1e-9, name


def test_pixels_change_the_trajectory(reference: np.ndarray) -> None:
    found = trajectory("loop", precision="float64", pixels="standardised")
    assert np.abs(found - reference).max() > 1e-3


@pytest.mark.parametrize("batch_size", [1, 5, 11])
def test_simd_takes_any_batch_size(batch_size: int) -> None:
    """Lanes without an image contribute nothing; more than eight images go in turns."""
    short: dict[str, Any] = {
        "batch_size": batch_size,
        "rounds": 1,
        "local_steps": 3,
        "precision": "float64",
    }
    assert np.abs(trajectory("simd", **short) - trajectory("loop", **short)).max() < 1e-10


@pytest.mark.parametrize(("width", "size"), [(2, 8), (8, 16), (11, 24)])
def test_simd_follows_the_loop_in_float32(width: int, size: int) -> None:
    """Narrow and wide tiles, and what both leave over.

    The median of three starts: where an input of a rectifier is zero to rounding, its gradient is
    switched on or off, and one such place moves the whole model by 1e-3.
    """
    distances = []
    for seed in range(3):
        short: dict[str, Any] = {
            "width": width,
            "size": size,
            "rounds": 1,
            "local_steps": 1,
            "seed": seed,
        }
        exact = trajectory("loop", precision="float64", **short)
        moved = np.abs(exact - initial_parameters(Architecture(width, size), seed)).max()
        distances.append(np.abs(trajectory("simd", **short) - exact).max() / moved)
    assert np.median(distances) < 1e-5


def test_simd_is_independent_of_threads() -> None:
    runs = [trajectory("simd", rounds=2, threads=threads) for threads in (1, 2, 3)]
    assert (runs[0] == runs[1]).all() and (runs[0] == runs[2]).all()


def test_full_loss_is_the_same_in_all_engines_and_threads() -> None:
    architecture, data = Architecture(2, 8), random_images(150)

    def loss(name: str, **options: Any) -> float:
        engine = make_engine(name, architecture, data, n_nodes=2, step_size=0.1, **options)
        engine.set_model(initial_parameters(architecture, 1))
        value = engine.mean_loss()
        engine.close()
        return value

    expected = loss("loop", precision="float64")
    assert loss("im2col", precision="float64") == pytest.approx(expected, rel=1e-12)
    assert 1.5 < expected < 4.0
    assert loss("simd", precision="float64") == pytest.approx(expected, rel=1e-12)
    assert loss("simd", threads=1) == loss("simd", threads=3) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["simd", "loop", "grouped"])
def test_divergence_reaches_the_full_loss(name: str) -> None:
    """A NaN in the model must not be hidden by a rectifier."""
    architecture, data = Architecture(2, 8), random_images(20)
    engine = make_engine(name, architecture, data, n_nodes=2, step_size=0.1)
    start = initial_parameters(architecture, 0)
    start[0] = np.nan
    engine.set_model(start)
    assert np.isnan(engine.mean_loss())
    engine.close()


def test_stacked_picks_a_formulation_and_leaves_no_trace(reference: np.ndarray) -> None:
    found = trajectory("stacked", precision="float64")
    assert np.abs(found - reference).max() < 1e-9
    engine = make_engine("stacked", Architecture(1, 8), random_images(), n_nodes=2, step_size=0.1)
    assert isinstance(engine, StackedEngine) and engine.formulation in FORMULATIONS
    assert engine.step_size == 0.1 and not engine.models.detach().any()


def test_memory_layout_changes_nothing(reference: np.ndarray) -> None:
    found = trajectory("grouped", precision="float64", channels_last=False)
    assert np.abs(found - reference).max() < 1e-9


@pytest.mark.parametrize("name", ["loop", "grouped", "im2col"])
def test_bf16_keeps_float32_weights_and_stays_near(name: str) -> None:
    short: dict[str, Any] = {"rounds": 1, "local_steps": 2}
    exact = trajectory("loop", **short)[0]
    found = trajectory(name, precision="bf16", **short)[0]
    moved = np.linalg.norm(exact - initial_parameters(Architecture(2, 8), 0))
    distance = np.linalg.norm(found - exact) / moved
    # Eight bits of mantissa show, and no more than they should.
    assert 1e-5 < distance < 0.3
    assert (found != found.astype(np.float16).astype(np.float64)).mean() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "fast"}, "unknown engine 'fast': choose one of auto, simd"),
        ({"name": "loop", "precision": "float16"}, "unknown precision 'float16'"),
        ({"name": "simd", "precision": "bf16"}, "simd engine runs on the CPU in float32"),
        ({"name": "loop", "device": "gpu"}, "unknown device 'gpu'"),
        ({"name": "loop", "device": "meta"}, "'meta' is not supported"),
        ({"name": "grouped", "cuda_graphs": True}, "needs a CUDA device"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_engine(
            architecture=Architecture(1, 8),
            data=random_images(),
            n_nodes=2,
            step_size=0.1,
            **options,
        )


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="cuda:3 is not there: 0 CUDA devices"):
        make_engine(
            "loop", Architecture(1, 8), random_images(), n_nodes=2, step_size=0.1, device="cuda:3"
        )
