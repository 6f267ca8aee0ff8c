"""The energy balance of a network's training: recorded in one pass, it closes and disturbs nothing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deep_cases import make_config, random_images, tiny_options, write_class_folders
from torch.nn import functional as F

from deep import reproduce
from deep.checkpoint import CURRENT, load_checkpoint
from deep.config import Config
from deep.data.partition import draw_batches, partition
from deep.energy_record import BALANCE, MODELS, read_balance
from deep.engines.energy import EnergyTerms
from deep.engines.make import make_engine
from deep.local_sgd import run
from deep.resnet import Architecture, ResNet18, initial_parameters, load_flat, read_flat
from theory.support.energy import TOLERANCE, Windows, from_rows, next_edge

ENGINES = ("loop", "simd", "grouped", "im2col", "vmap")
DATA, ARCHITECTURE = random_images(40), Architecture(1, 8)


def trained(folder: Path, energy: bool = True, **changes: Any) -> tuple[Config, np.ndarray]:
    """The configuration and the last model of a run on random images."""
    config = make_config(**{"rounds": 25, "step_size": 0.2, **changes})
    engine = make_engine(
        config.engine,
        ARCHITECTURE,
        DATA,
        n_nodes=config.n_nodes,
        step_size=config.step_size,
        precision=config.precision,
    )
    shards = partition(DATA.labels, config.n_nodes, "iid", 0.5, config.seed)
    run(config, engine, shards, initial_parameters(ARCHITECTURE, 0), folder, energy=energy)
    model = engine.model()
    engine.close()
    return config, model


def balance_of(folder: Path, config: Config) -> Windows:
    """What the run left."""
    found = read_balance(folder)
    assert found is not None
    return from_rows(config.step_size, found["windows"])


def by_hand(config: Config, z: np.ndarray) -> dict[str, np.ndarray]:
    """Every round's terms of T9 from the definitions, in float64, with autograd's own gradients.

    ``loss``, ``inner``, ``square`` (means over nodes, sums over steps), ``averaging``, [R]; and
    ``distance``, [R + 1].
    """
    module = ResNet18(ARCHITECTURE).double()
    shards = partition(DATA.labels, config.n_nodes, "iid", 0.5, config.seed)
    nodes, k, eta = list(range(config.n_nodes)), config.local_steps, config.step_size
    mean = initial_parameters(ARCHITECTURE, 0).astype(np.float64)
    terms = np.zeros((4, config.rounds))
    distance = [((mean - z) ** 2).sum()]
    for r in range(config.rounds):
        batches = draw_batches(shards, nodes, r * k, k, config.batch_size, config.seed)
        ends = []
        for row in batches:
            load_flat(module, torch.from_numpy(mean))
            for chosen in row:
                x = read_flat(module).numpy().copy()
                pixels = torch.from_numpy(DATA.images[chosen] / 127.5 - 1.0)
                loss = F.cross_entropy(module(pixels), torch.from_numpy(DATA.labels[chosen]))
                gradients = torch.autograd.grad(loss, list(module.parameters()))
                g = torch.cat([part.flatten() for part in gradients]).numpy()
                terms[:3, r] += np.array([loss.item(), g @ (x - z), g @ g]) / len(nodes)
                load_flat(module, torch.from_numpy(x - eta * g))
            ends.append(read_flat(module).numpy().copy())
        mean = np.mean(ends, axis=0)
        terms[3, r] = np.mean([((end - mean) ** 2).sum() for end in ends])
        distance.append(((mean - z) ** 2).sum())
    names = ("loss", "inner", "square", "averaging")
    return dict(zip(names, terms, strict=True)) | {"distance": np.array(distance)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, np.ndarray]]:
    """A run of the loop engine in float64 and its terms, computed anew with z known."""
    config, z = trained(tmp_path_factory.mktemp("reference"))
    return config, by_hand(config, z)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_pass_finds_the_terms_with_the_last_model_as_reference(
    tmp_path: Path, engine: str, reference: tuple[Config, dict[str, np.ndarray]]
) -> None:
    config, _ = trained(tmp_path, engine=engine)
    windows, truth = balance_of(tmp_path, config), reference[1]
    assert windows.closing_error < 1e-11
    edges = windows.iteration // config.local_steps
    assert edges[0] == 0 and edges[-1] == config.rounds and len(windows) < config.rounds
    np.testing.assert_allclose(windows.distance, truth["distance"][edges], rtol=1e-8, atol=1e-12)
    for name in ("loss", "inner", "square", "averaging"):
        expected = np.add.reduceat(truth[name], edges[:-1])
        np.testing.assert_allclose(getattr(windows, name), expected, rtol=1e-7, err_msg=name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"participants": 2, "local_steps": 1},
        {"outer_step": 0.5},
        {"outer_step": "extrapolated", "participants": 2},
        {"outer_step": "polyak", "step_size": 0.05},
    ],
    ids=str,
)
def test_it_closes_in_single_precision_and_changes_no_bit(
    tmp_path: Path, engine: str, changes: dict[str, Any]
) -> None:
    changes = {"engine": engine, "precision": "float32", **changes}
    config, model = trained(tmp_path / "with", **changes)
    _, plain = trained(tmp_path / "without", energy=False, **changes)
    assert model.tobytes() == plain.tobytes()
    assert not (tmp_path / "without" / BALANCE).exists()
    windows = balance_of(tmp_path / "with", config)
    assert windows.closing_error < 1e-10
    assert windows.distance[0] > 0.1 and windows.distance[-1] == 0.0


def test_a_wrong_term_does_not_close(tmp_path: Path) -> None:
    config, _ = trained(tmp_path, precision="float32")
    windows = balance_of(tmp_path, config)
    for name in ("distance", "inner", "square", "averaging"):
        values = getattr(windows, name).copy()
        values[3] *= 1.001
        wrong = Windows(**{**vars(windows), name: values})
        assert wrong.closing_error > TOLERANCE, name


def test_windows_are_known_before_the_end_and_grow_by_a_twentieth() -> None:
    edges = [0]
    while edges[-1] < 200_000:
        edges.append(next_edge(edges[-1]))
    assert edges[:23] == [*range(22), 23] and len(edges) < 220
    widths = np.diff(edges)
    assert (widths[30:] <= 0.05 * np.array(edges[30:-1]) + 1).all()


def test_a_run_made_longer_has_the_balance_of_one_that_always_was(tmp_path: Path) -> None:
    longer: dict[str, Any] = {"engine": "simd", "precision": "float32", "rounds": 47}
    trained(tmp_path / "extended", **{**longer, "rounds": 30})
    first = read_balance(tmp_path / "extended")
    trained(tmp_path / "extended", **longer)
    trained(tmp_path / "whole", **longer)
    for name in (BALANCE, MODELS):
        assert (tmp_path / "extended" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()
    assert read_balance(tmp_path / "extended") != first


def test_a_record_that_cannot_be_whole_is_given_up_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "late", energy=False, rounds=10)
    _, model = trained(tmp_path / "late", rounds=20)
    assert "goes on without" in capsys.readouterr().err
    trained(tmp_path / "cut", rounds=10)
    with (tmp_path / "cut" / MODELS).open("r+b") as file:
        file.truncate(1000)
    _, other = trained(tmp_path / "cut", rounds=20)
    assert "missing or cut short" in capsys.readouterr().err
    assert (model == other).all()
    for name in ("late", "cut"):
        assert read_balance(tmp_path / name) is None


def test_terms_of_rounds_are_weighted_with_their_outer_step() -> None:
    """Against the definition, for any z: numbers alone, no network."""
    rng = np.random.default_rng(0)
    mean, z = rng.standard_normal((2, 7))
    for beta in (1.0, 0.5, 3.0):
        moves = rng.standard_normal((4, 3, 7))
        terms, inner, square = EnergyTerms(), 0.0, 0.0
        for node in moves:
            x = mean.copy()
            for u in node:
                inner += u @ x / 4
                square += u @ u / 4
                x = x - u
        deltas = -moves.sum(1)
        average = deltas.mean(0)
        terms.add(1.0, inner, square, (deltas**2).sum(1).mean(), average @ average, beta)
        after = mean + beta * average
        fallen = ((mean - z) ** 2).sum() - ((after - z) ** 2).sum()
        right = terms.averaging + 2 * (terms.inner - (mean - after) @ z) - terms.square
        assert fallen == pytest.approx(right, rel=1e-12)
        assert terms.loss == beta


OPTIONS = [
    *tiny_options(3, 3),
    *("--experiment", "fixed-rounds", "--regime", "iid", "--rounds", "60", "--local-steps", "2"),
    *("--device", "cpu", "--checkpoint-minutes", "0", "--energy"),
]


def folder_of(out: Path) -> Path:
    """The one run folder in ``out``."""
    (folder,) = out.iterdir()
    return folder


def test_killed_and_resumed_it_is_the_same_balance(tmp_path: Path) -> None:
    data = write_class_folders(tmp_path / "data", random_images(40))
    options = [*OPTIONS, "--data", str(data)]
    results = ["--results", str(tmp_path / "results")]
    assert reproduce.main([*options, *results, "--out", str(tmp_path / "whole")]) == 0
    killed, chance = tmp_path / "killed", random.Random(0)
    for kill in range(1, 4):
        process = subprocess.Popen(
            [sys.executable, "-m", "deep.reproduce", *options, "--out", str(killed)]
        )
        while process.poll() is None and reached(killed) < 15 * kill:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"kill {kill} came after the end"
    assert reproduce.main([*options, "--out", str(killed)]) == 0
    for name in (BALANCE, MODELS):
        expected = (folder_of(tmp_path / "whole") / name).read_bytes()
        assert (folder_of(killed) / name).read_bytes() == expected
    # The small result file tells it too.
    (result,) = (tmp_path / "results").iterdir()
    content = json.loads(result.read_text())
    assert content["energy"] == read_balance(folder_of(tmp_path / "whole"))
    assert content["energy"]["closing_error"] < TOLERANCE
    state = load_checkpoint(folder_of(killed), content["config"])
    assert state is not None and state.energy is not None and state.energy.edges[-1] <= 60


def reached(out: Path) -> int:
    """Round of the newest checkpoint, -1 when there is none yet."""
    try:
        (folder,) = out.iterdir()
        return int(json.loads((folder / CURRENT).read_bytes().split(b"\n", 2)[1])["round"])
    except (ValueError, FileNotFoundError, IndexError):
        return -1
