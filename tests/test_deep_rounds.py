"""What an engine measures, averages and extrapolates, against the definitions; and processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
import torch
from deep_cases import random_images
from torch import Tensor
from torch.nn import functional as F

from deep.data.partition import draw_batches, partition
from deep.distributed import Communicator
from deep.engines.base import Engine, Losses, RoundStatistics
from deep.engines.energy import EnergyTerms
from deep.engines.make import make_engine
from deep.resnet import Architecture, ResNet18, initial_parameters, load_flat, read_flat
from theory.support.errors import UserError

ARCHITECTURE, DATA = Architecture(1, 8), random_images(40)
STEP_SIZE, START = 0.2, initial_parameters(ARCHITECTURE, 0)
ENGINES = ("loop", "simd", "grouped", "im2col", "vmap")


def started(name: str, n_nodes: int = 4, **options: Any) -> Engine:
    """An engine at the initial model, in float64 unless told otherwise."""
    options = {"precision": "float64", **options}
    engine = make_engine(name, ARCHITECTURE, DATA, n_nodes=n_nodes, step_size=STEP_SIZE, **options)
    engine.set_model(START)
    return engine


def logits_of(model: np.ndarray, images: Any, chosen: np.ndarray) -> Tensor:
    """The network's answer, computed from the pixels by hand."""
    module = ResNet18(ARCHITECTURE).double()
    load_flat(module, torch.from_numpy(model))
    pixels = torch.from_numpy(images.images[chosen] / 127.5 - 1.0)
    answer: Tensor = module(pixels)
    return answer


def trained(batches: np.ndarray) -> tuple[np.ndarray, float]:
    """Plain SGD of one node from the initial model, and the sum of its batches' losses."""
    module = ResNet18(ARCHITECTURE).double()
    load_flat(module, torch.from_numpy(START))
    optimiser = torch.optim.SGD(module.parameters(), STEP_SIZE)
    path = 0.0
    for chosen in batches:
        pixels = torch.from_numpy(DATA.images[chosen] / 127.5 - 1.0)
        loss = F.cross_entropy(module(pixels), torch.from_numpy(DATA.labels[chosen]))
        path += loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return read_flat(module).numpy(), path


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("nodes", [None, [1, 3]])
def test_statistics_follow_their_definitions(name: str, nodes: list[int] | None) -> None:
    engine = started(name)
    batches = np.random.default_rng(0).integers(0, 40, (len(nodes or range(4)), 3, 5))
    found = engine.round(batches, measure=True, nodes=nodes)
    engine.close()
    assert found is not None
    models, paths = zip(*(trained(each) for each in batches), strict=True)
    updates = np.array(models) - START
    mean = updates.mean(0)
    assert engine.model() == pytest.approx(START + mean, abs=1e-12)
    expected = {
        "consensus_distance": ((updates - mean) ** 2).sum(1).mean(),
        "gradient_norm": np.linalg.norm(mean) / (STEP_SIZE * 3),
        "mean_square": (updates**2).sum(1).mean(),
        "square_mean": (mean**2).sum(),
        "local_loss": np.mean(paths),
        "outer_step": 1.0,
    }
    for field, value in expected.items():
        assert getattr(found, field) == pytest.approx(value, rel=1e-9), field


@pytest.mark.parametrize(
    ("outer_step", "rule"),
    [
        (0.5, lambda s: 0.5),
        (1.5, lambda s: 1.5),
        ("extrapolated", lambda s: s.mean_square / s.square_mean),
        ("polyak", lambda s: (s.mean_square + 2 * STEP_SIZE * s.local_loss) / (2 * s.square_mean)),
    ],
)
def test_outer_steps_go_that_many_times_as_far(
    outer_step: float | str, rule: Callable[[RoundStatistics], float]
) -> None:
    batches = np.random.default_rng(0).integers(0, 40, (4, 3, 5))
    plain, other = started("loop"), started("loop")
    statistics = plain.round(batches, measure=True)
    assert statistics is not None
    beta = rule(statistics)
    assert beta != 1.0
    found = other.round(batches, measure=True, outer_step=outer_step)
    assert found is not None and found.outer_step == pytest.approx(beta, rel=1e-12)
    assert other.model() - START == pytest.approx(beta * (plain.model() - START), abs=1e-13)
    # Statistics describe the local steps; the outer step changes only itself.
    assert replace(found, outer_step=1.0) == statistics


@pytest.mark.parametrize("outer_step", ["extrapolated", "polyak"])
def test_a_round_that_does_not_move_keeps_the_model(outer_step: str) -> None:
    """Steps too small for the arithmetic: P = Q = 0, and their ratio says nothing."""
    engine = started("loop")
    engine.step_size = 1e-300
    found = engine.round(np.zeros((4, 2, 1), np.int64), measure=True, outer_step=outer_step)
    assert found is not None and (engine.model() == START).all()
    assert (found.mean_square, found.square_mean, found.outer_step) == (0.0, 0.0, 1.0)


def test_extrapolation_of_one_participant_is_the_plain_step() -> None:
    """P = Q for one node, exactly: no rounding may make a longer step of it."""
    batches = np.random.default_rng(0).integers(0, 40, (1, 3, 5))
    plain, other = (started("simd", precision="float32") for _ in range(2))
    plain.round(batches, nodes=[2])
    other.round(batches, nodes=[2], outer_step="extrapolated")
    assert (plain.model() == other.model()).all()


@pytest.mark.parametrize("name", ENGINES)
def test_losses_of_the_nodes_and_of_other_images(name: str) -> None:
    engine = started(name)
    shards = partition(DATA.labels, 4, "pathological", 0.5, 0)
    engine.set_shards(shards)
    found = engine.losses()
    everything = np.arange(40)
    truth = F.cross_entropy(
        logits_of(START, DATA, everything), torch.from_numpy(DATA.labels), reduction="none"
    )
    each = truth.detach().numpy()
    assert found.mean == pytest.approx(each.mean(), rel=1e-12) == engine.mean_loss()
    assert found.nodes == pytest.approx([each[shard].mean() for shard in shards], rel=1e-12)
    assert np.ptp(found.nodes) > 1e-3
    # Labels as the network gives them, but for every third: the accuracy is known.
    test = random_images(60, seed=1)
    answer = logits_of(START, test, np.arange(60)).argmax(1).numpy()
    test = replace(test, labels=np.where(np.arange(60) % 3, answer, (answer + 1) % 10))
    loss, accuracy = engine.evaluate(test)
    expected = F.cross_entropy(logits_of(START, test, np.arange(60)), torch.from_numpy(test.labels))
    assert accuracy == pytest.approx(40 / 60) and loss == pytest.approx(expected.item(), rel=1e-12)
    assert engine.weight_norm() == pytest.approx(np.linalg.norm(START), rel=1e-12)
    engine.close()


def test_other_images_are_normalised_as_the_training_set() -> None:
    """Standardised: by the training set's mean and deviation, not by their own."""
    data = replace(DATA, pixels="standardised")
    dark = replace(data, images=data.images // 2)
    engine = make_engine("loop", ARCHITECTURE, data, n_nodes=1, step_size=0.1)
    engine.set_model(START)
    merged = replace(data, images=np.concatenate([data.images, dark.images]))
    assert np.abs(merged.normalisation() - data.normalisation()).max() > 0.1
    assert engine.evaluate(data)[0] == pytest.approx(engine.mean_loss(), rel=1e-6)
    table = torch.from_numpy(data.normalisation()).float()
    pixels = torch.stack([table[c][dark.images[:, c].astype(int)] for c in range(3)], 1)
    load_flat(engine.module, torch.from_numpy(START))  # type: ignore[attr-defined]
    expected = F.cross_entropy(engine.module(pixels), torch.from_numpy(dark.labels))  # type: ignore[attr-defined]
    assert engine.evaluate(dark)[0] == pytest.approx(expected.item(), rel=1e-5)


class Together(Communicator):
    """One of several processes, played by threads that meet at every sum."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, box: list[Any]) -> None:
        self.rank, self.size, self.barrier, self.box = rank, size, barrier, box

    def sum_(self, tensor: Tensor) -> None:
        self.box[self.rank] = tensor.clone()
        self.barrier.wait(60)
        # Another order than that of the nodes: what all_reduce does is not known.
        total = sum(self.box[::-1])
        self.barrier.wait(60)
        tensor.copy_(total)


@pytest.mark.parametrize("choice", [{}, {"outer_step": "extrapolated"}, {"outer_step": "polyak"}])
def test_the_number_of_processes_changes_no_bit(choice: dict[str, Any]) -> None:
    """Five nodes in float32, three of them participating in some rounds, in 1, 2 and 4 processes."""
    shards = partition(DATA.labels, 5, "pathological", 0.5, 0)
    rounds: list[list[int]] = [[0, 1, 2, 3, 4], [0, 2, 4], [1, 2, 3], [0, 1, 2, 3, 4]]

    def process(rank: int, size: int, barrier: threading.Barrier, box: list[Any]) -> Any:
        communicator = Together(rank, size, barrier, box)
        local = communicator.nodes(5)
        engine = started(
            "loop", 5, precision="float32", n_local=len(local), communicator=communicator
        )
        engine.set_shards(shards)
        seen: list[RoundStatistics | None] = []
        terms = EnergyTerms()
        for r, nodes in enumerate(rounds):
            mine = [node for node in local if node in nodes]
            batches = draw_batches(shards, mine, 2 * r, 2, 4, 0)
            if not mine:
                batches = np.zeros((0, 2, 4), np.int64)
            seen.append(engine.round(batches, measure=True, nodes=nodes, energy=terms, **choice))
        test = engine.evaluate(random_images(23, seed=2))
        return engine.model(), seen, engine.losses(), test, astuple(terms)

    def together(size: int) -> Any:
        barrier, box = threading.Barrier(size), [None] * size
        with ThreadPoolExecutor(size) as pool:
            jobs = [pool.submit(process, rank, size, barrier, box) for rank in range(size)]
            return [job.result() for job in jobs]

    model, seen, losses, test, terms = together(1)[0]
    assert isinstance(losses, Losses) and np.abs(model - START).max() > 1e-2
    for size in (2, 4):
        for other in together(size):
            assert (other[0] == model).all()
            assert other[1] == seen
            assert (other[2].nodes == losses.nodes).all() and other[2].mean == losses.mean
            assert other[3] == test
            # Of these the float64 average's own order shows, in the last digits.
            assert other[4] == pytest.approx(terms, rel=1e-12)


def test_nodes_and_outer_steps_that_do_not_exist_are_refused() -> None:
    engine = started("loop")
    row = np.zeros((1, 1, 2), np.int64)
    for bad in (0.0, -1.0, float("nan"), float("inf"), "newton"):
        with pytest.raises(UserError, match=f"--outer-step is {bad}, allowed: a positive number, "):
            engine.round(row, nodes=[0], outer_step=bad)
    for nodes in ([], [4], [-1], [2, 1], [1, 1]):
        with pytest.raises(ValueError, match=r"not ascending numbers in 0\.\.3"):
            engine.round(row, nodes=nodes)
    with pytest.raises(ValueError, match="1 rows of batches for 2 participants"):
        engine.round(row, nodes=[0, 1])


def test_test_sets_that_do_not_fit_are_refused() -> None:
    engine = started("loop")
    with pytest.raises(UserError, match="16 pixels a side, the training set of 8"):
        engine.evaluate(random_images(4, size=16))
    with pytest.raises(UserError, match="labels below 10"):
        engine.evaluate(replace(random_images(4), labels=np.array([0, 1, 2, 10])))
    with pytest.raises(UserError, match="needs images"):
        engine.evaluate(random_images(4).take(np.arange(0)))
