"""The round loop: schedule of evaluations, stop rule, divergence, what the run folder holds."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from deep_cases import make_config, random_images
from hypothesis import given
from hypothesis import strategies as st

from deep import local_sgd
from deep.checkpoint import load_checkpoint
from deep.data.partition import partition
from deep.distributed import Communicator
from deep.engines.base import Engine, Losses, RoundStatistics
from deep.engines.make import make_engine
from deep.local_sgd import Snapshot, run
from deep.resnet import Architecture, initial_parameters
from deep.schedule import EVALUATION_SHARE, FORWARD_COST, evaluation_is_due, rounds_to_go
from deep.stopping import Stopped, stop_requests
from theory.support.errors import UserError


class ScriptedEngine(Engine):
    """No training: the loss after round r is ``script(r)``."""

    def __init__(self, script: Callable[[int], float], n_nodes: int = 3) -> None:
        super().__init__(
            Architecture(1, 8),
            random_images(40),
            n_nodes,
            n_nodes,
            0.05,
            torch.device("cpu"),
            "float64",
            Communicator(),
        )
        self.script, self.rounds, self.evaluated = script, 0, []  # type: ignore[var-annotated]

    def round(
        self, batches: np.ndarray, measure: bool = False, *choices: Any, **named: Any
    ) -> RoundStatistics | None:
        self.rounds += 1
        return RoundStatistics(1.0, 2.0, 4.0, 3.0, 5.0, 1.0) if measure else None

    def losses(self) -> Losses:
        self.evaluated.append(self.rounds)
        mean = self.script(self.rounds)
        return Losses(mean, mean * np.array([0.5, 1.0, 1.5]))


def scripted_run(folder: Path, script: Callable[[int], float], **changes: Any) -> dict[str, Any]:
    """The summary of a run whose losses are scripted; every round is evaluated."""
    config = make_config(**{"local_steps": 20, "batch_size": 4, **changes})
    engine = ScriptedEngine(script)
    shards = partition(engine.data.labels, 3, "iid", 0.5, 0)
    return run(config, engine, shards, np.zeros(engine.mean.numel()), folder)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run folder."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@given(
    images=st.integers(1, 50_000),
    local_steps=st.integers(1, 20),
    nodes=st.integers(1, 20),
    batch_size=st.integers(1, 16),
    rounds=st.integers(1, 400),
)
def test_evaluation_takes_at_most_a_tenth_of_the_arithmetic(
    images: int, local_steps: int, nodes: int, batch_size: int, rounds: int
) -> None:
    config = make_config(
        local_steps=local_steps, n_nodes=nodes, batch_size=batch_size, rounds=rounds
    )
    done = last = 0
    for round_ in range(1, rounds):
        if evaluation_is_due(config, images, done, last, round_):
            done, last = done + 1, round_
            trained = round_ * local_steps * nodes * batch_size
            assert done * images * FORWARD_COST <= EVALUATION_SHARE * trained
    # The last round always has a row.
    assert evaluation_is_due(config, images, done, last, rounds)


def test_evaluations_use_the_budget() -> None:
    """A schedule that never evaluated would satisfy the bound as well."""
    config = make_config(local_steps=10, n_nodes=20, batch_size=8, rounds=200)
    done = last = 0
    for round_ in range(1, 200):
        if evaluation_is_due(config, 1000, done, last, round_):
            done, last = done + 1, round_
    assert done * 1000 * FORWARD_COST > 0.9 * EVALUATION_SHARE * 199 * 1600


def test_stops_at_the_first_full_set_loss_below_the_target(tmp_path: Path) -> None:
    losses = [2.0, 1.0, 0.5, 0.3, 0.1, 0.29, 0.05]
    summary = scripted_run(tmp_path / "r", lambda r: losses[r], target_loss=0.2, rounds=6)
    assert (summary["status"], summary["reached_target"]) == ("reached", True)
    assert (summary["rounds_to_target"], summary["iterations_to_target"]) == (4, 80)
    rows = rows_of(tmp_path / "r")
    assert [row["train_loss"] for row in rows] == losses[:5]
    assert rows[0]["consensus_distance"] is None and rows[1]["gradient_norm"] == 2.0
    assert [row["iteration"] for row in rows] == [0, 20, 40, 60, 80]


def test_a_loss_of_exactly_zero_reaches_the_target(tmp_path: Path) -> None:
    summary = scripted_run(
        tmp_path / "r", lambda r: 0.0 if r >= 12 else 1.0 / (r + 1), target_loss=1e-4, rounds=30
    )
    assert (summary["status"], summary["rounds"]) == ("reached", 12)


def test_without_a_target_all_rounds_are_run(tmp_path: Path) -> None:
    summary = scripted_run(tmp_path / "r", lambda r: 0.0, rounds=7)
    assert (summary["status"], summary["rounds"]) == ("round_limit", 7)
    assert summary["rounds_to_target"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e4])
def test_divergence_ends_the_run_and_is_reported(tmp_path: Path, bad: float) -> None:
    summary = scripted_run(tmp_path / "r", lambda r: bad if r >= 15 else 2.0, target_loss=1e-4)
    assert summary["status"] == "diverged" and not summary["reached_target"]
    assert (summary["rounds"], summary["lowest_train_loss"]) == (15, 2.0)
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "diverged"


def test_a_real_run_diverges_at_a_huge_step_size(tmp_path: Path) -> None:
    data, architecture = random_images(40), Architecture(1, 8)
    engine = make_engine("loop", architecture, data, n_nodes=3, step_size=1e30, precision="float64")
    shards = partition(data.labels, 3, "iid", 0.5, 0)
    config = make_config(step_size=1e30, rounds=10, batch_size=13)
    summary = run(config, engine, shards, initial_parameters(architecture, 0), tmp_path / "r")
    assert summary["status"] == "diverged"


@given(power=st.floats(0.5, 2), start=st.floats(0.5, 3), reached=st.integers(20, 2000))
def test_rounds_left_are_exact_on_a_power_law(power: float, start: float, reached: int) -> None:
    config = make_config(rounds=10**9, target_loss=1e-4)
    metrics = [
        {"round": r, "train_loss": start * (r + 0.0) ** -power if r else 10.0}
        for r in range(reached + 1)
    ]
    expected = (start / 1e-4) ** (1 / power) - reached
    if expected <= 0:
        assert rounds_to_go(config, metrics) == 0.0
    else:
        assert rounds_to_go(config, metrics) == pytest.approx(
            min(expected, 1e9 - reached), rel=1e-6
        )


def test_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = scripted_run(tmp_path / "r", lambda r: 1.0, rounds=5)
    rows = rows_of(tmp_path / "r")

    def fail(r: int) -> float:
        raise AssertionError("trained again")

    again = scripted_run(tmp_path / "r", fail, rounds=5)
    assert rows_of(tmp_path / "r") == rows and len(rows) == 6
    assert again["final_train_loss"] == first["final_train_loss"]


def test_progress_hears_of_every_round(tmp_path: Path) -> None:
    heard: list[Snapshot] = []
    observed: list[int] = []
    engine = ScriptedEngine(lambda r: 2.0 / (r + 1))
    config = make_config(rounds=12, local_steps=20, batch_size=4)
    shards = partition(engine.data.labels, 3, "iid", 0.5, 0)
    run(
        config,
        engine,
        shards,
        np.zeros(engine.mean.numel()),
        tmp_path / "r",
        report=heard.append,
        observe=lambda row: observed.append(row["round"]),
    )
    assert [snapshot.round for snapshot in heard] == list(range(1, 13))
    assert observed == engine.evaluated[1:]
    assert heard[-1].rounds_left == 0 and heard[-1].images_per_second > 0


def test_a_row_says_how_alike_the_nodes_and_how_far_they_moved(tmp_path: Path) -> None:
    scripted_run(tmp_path / "r", lambda r: 2.0 / (r + 1), rounds=3)
    first, second = rows_of(tmp_path / "r")[:2]
    assert second["node_losses"] == [0.5, 1.0, 1.5] and second["least_loss_ratio"] == 0.5
    assert (second["mean_square"], second["square_mean"]) == (4.0, 3.0)
    assert second["movement_ratio"] == 1.33333 and second["outer_step"] == 1.0
    assert first["weight_norm"] == 0.0 and first["movement_ratio"] is None


def test_the_test_set_is_looked_at_sparsely_and_at_the_end(tmp_path: Path) -> None:
    data, architecture = random_images(40), Architecture(1, 8)
    engine = make_engine("loop", architecture, data, n_nodes=3, step_size=0.05, precision="float64")
    shards = partition(data.labels, 3, "iid", 0.5, 0)
    config, start = make_config(rounds=60, local_steps=1), initial_parameters(architecture, 0)
    folder = tmp_path / "r"
    summary = run(config, engine, shards, start, folder, test=random_images(60, seed=1))
    rows = rows_of(folder)
    tested = [row for row in rows if row["test_loss"] is not None]
    assert 0 < len(tested) < len(rows) / 4 and tested[-1] == rows[-1]
    assert summary["final_test_accuracy"] == rows[-1]["test_accuracy"]
    assert len(tested) * 60 * FORWARD_COST <= 0.02 * 60 * 3 * 4 + 60 * FORWARD_COST


def test_a_run_made_longer_is_as_if_always_so_long(tmp_path: Path) -> None:
    """By more rounds, and by a smaller loss to reach: the same rows and the same model."""
    data, architecture = random_images(40), Architecture(1, 8)
    test, start = random_images(20, seed=1), initial_parameters(architecture, 0)
    shards = partition(data.labels, 3, "iid", 0.5, 0)

    def train(name: str, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
        engine = make_engine("loop", architecture, data, n_nodes=3, step_size=0.05)
        config = make_config(precision="float32", local_steps=1, **changes)
        summary = run(config, engine, shards, start, tmp_path / name, test=test)
        rows = [
            {k: v for k, v in row.items() if k not in ("wall_seconds", "images_per_second")}
            for row in rows_of(tmp_path / name)
        ]
        return summary, rows, engine.model().tobytes()

    _, rows, model = train("long", rounds=47)
    for pieces in ([{"rounds": 11}], [{"rounds": 9}, {"rounds": 21}]):
        name = f"pieces{len(pieces)}"
        for piece in pieces:
            assert train(name, **piece)[0]["rounds"] == piece["rounds"]
        assert train(name, rounds=47)[1:] == (rows, model)
    middle = rows[len(rows) // 2]["train_loss"]
    assert train("target", rounds=47, target_loss=middle * 1.0001)[0]["status"] == "reached"
    assert train("target", rounds=47)[1:] == (rows, model)
    assert json.loads((tmp_path / "target" / "config.json").read_text())["config"]["rounds"] == 47


def test_in_pieces_of_one_round_it_ends_with_the_same_model(tmp_path: Path) -> None:
    data, architecture = random_images(40), Architecture(1, 8)
    shards = partition(data.labels, 3, "sorted", 0.0, 0)
    start = initial_parameters(architecture, 0)

    def train(name: str, seconds: float) -> tuple[str, bytes]:
        engine = make_engine("im2col", architecture, data, n_nodes=3, step_size=0.05)
        config = make_config(regime="sorted", precision="float32", rounds=6, engine="im2col")
        summary = run(config, engine, shards, start, tmp_path / name, seconds=seconds)
        return summary["status"], engine.model().tobytes()

    whole = train("whole", math.inf)
    pieces = [train("pieces", 0.0) for _ in range(6)]
    assert [status for status, _ in pieces] == ["unfinished"] * 5 + ["round_limit"]
    assert pieces[-1] == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_first_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    data, architecture = random_images(40), Architecture(1, 8)
    shards, start = partition(data.labels, 3, "iid", 0.0, 0), initial_parameters(architecture, 0)
    config = make_config(precision="float32", rounds=12)
    engine = make_engine("loop", architecture, data, n_nodes=3, step_size=0.05)

    def signalled(now: Snapshot) -> None:
        if now.round == 7:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Stopped):
        run(config, engine, shards, start, tmp_path / "r", report=signalled)
    assert signal.getsignal(number) is before
    assert "stopping after this round; again to stop at once" in capsys.readouterr().err
    state = load_checkpoint(tmp_path / "r", asdict(config))
    assert state is not None and state.round == 7
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["status"] == "unfinished"
    assert run(config, engine, shards, start, tmp_path / "r")["status"] == "round_limit"
    stopped = engine.model().tobytes()
    run(config, engine, shards, start, tmp_path / "whole")
    assert engine.model().tobytes() == stopped


def test_a_second_signal_does_not_wait_for_the_round() -> None:
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_first_checkpoint_comes_after_a_minute_at_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that each round moves by 25 seconds, and five minutes between checkpoints."""
    clock, saved = [0.0], []
    monkeypatch.setattr(local_sgd, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(
        local_sgd, "save_checkpoint", lambda folder, identity, state: saved.append(state.round)
    )

    def advance(now: Snapshot) -> None:
        clock[0] += 25.0

    engine = ScriptedEngine(lambda r: 1.0)
    shards = partition(engine.data.labels, 3, "iid", 0.5, 0)
    start = np.zeros(engine.mean.numel())
    run(make_config(rounds=40), engine, shards, start, tmp_path / "r", report=advance)
    assert saved == [3, 15, 27, 39, 40]


def test_a_run_is_not_made_shorter(tmp_path: Path) -> None:
    scripted_run(tmp_path / "r", lambda r: 1.0 / (r + 1), rounds=6)
    before = {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()}
    with pytest.raises(UserError, match="--rounds is 5, allowed: 6 or more"):
        scripted_run(tmp_path / "r", lambda r: 1.0, rounds=5)
    with pytest.raises(UserError, match=r"--target-loss is 0\.5, allowed: less"):
        scripted_run(tmp_path / "r", lambda r: 1.0, rounds=6, target_loss=0.5)
    assert {p.name: p.read_bytes() for p in (tmp_path / "r").iterdir()} == before


def test_other_data_with_another_name_but_the_same_images_go_on(tmp_path: Path) -> None:
    scripted_run(tmp_path / "r", lambda r: 1.0, rounds=2, data_name="images")
    scripted_run(tmp_path / "r", lambda r: 1.0, rounds=4, data_name="renamed")
    stored = json.loads((tmp_path / "r" / "config.json").read_text())["config"]
    assert (stored["data_name"], stored["rounds"]) == ("images", 4)
    with pytest.raises(UserError, match="data_fingerprint was '0', now '1'"):
        scripted_run(tmp_path / "r", lambda r: 1.0, rounds=4, data_fingerprint="1")
