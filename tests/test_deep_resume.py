"""kill -9 at random moments of a real process, then resume: the same bits as without."""

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
from deep_cases import random_images, write_class_folders

from deep.checkpoint import CURRENT, load_checkpoint
from deep.reproduce import main

ROUNDS, KILLS = 90, 3
OPTIONS = [
    "--preset",
    "smoke",
    "--experiment",
    "fixed-rounds",
    "--regime",
    "shards",
    "--shards-per-node",
    "1",
    "--subset",
    "39",
    "--participants",
    "2",
    "--outer-step",
    "extrapolated",
    "--rounds",
    str(ROUNDS),
    "--nodes",
    "3",
    "--batch-size",
    "3",
    "--local-steps",
    "2",
    "--engine",
    "loop",
    "--width",
    "1",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--checkpoint-minutes",
    "0",
    "--quiet",
]
LABEL = (
    "smoke_fixed-rounds_shards1_K02_nodes-3_batch-size-3_width-1_subset-39_participants-2"
    "_outer-step-extrapolated_engine-loop"
)


def read_folder(out: Path) -> tuple[bytes, list[dict[str, Any]], dict[str, Any]]:
    """Parameters, metric rows less clocks, and the summary less clocks."""
    folder = out / LABEL
    state = load_checkpoint(folder, json.loads((folder / "config.json").read_text())["config"])
    assert state is not None and state.round == ROUNDS
    clocks = {"wall_seconds", "images_per_second", "evaluation_share"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    return (
        state.model.tobytes(),
        [{k: v for k, v in row.items() if k not in clocks} for row in rows],
        {k: v for k, v in summary.items() if k not in clocks},
    )


def round_of(folder: Path) -> int:
    """Round of the newest checkpoint, -1 when there is none yet."""
    try:
        return int(json.loads((folder / CURRENT).read_bytes().split(b"\n", 2)[1])["round"])
    except (FileNotFoundError, IndexError):
        return -1


def test_killed_and_resumed_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    data = write_class_folders(tmp_path / "data", random_images(40))
    options = [*OPTIONS, "--data", str(data)]
    assert main([*options, "--out", str(tmp_path / "whole")]) == 0
    chance = random.Random(0)
    folder, reached = tmp_path / "killed" / LABEL, []
    for kill in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "deep.reproduce", *options, "--out", str(tmp_path / "killed")]
        )
        goal = round_of(folder) + 2 + chance.randrange(ROUNDS // (2 * KILLS))
        while round_of(folder) < goal and process.poll() is None:
            time.sleep(0.001)
        # Anywhere within a round, or within the writing of a checkpoint.
        time.sleep(chance.random() * 0.03)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"kill {kill} came after the end"
        reached.append(round_of(folder))
    assert 0 < reached[0] < reached[1] < reached[2] < ROUNDS
    assert main([*options, "--out", str(tmp_path / "killed")]) == 0
    assert read_folder(tmp_path / "killed") == read_folder(tmp_path / "whole")
    assert not list(folder.glob(".*.part")), "half-written files are left"


def test_a_torn_checkpoint_costs_rounds_but_no_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_class_folders(tmp_path / "data", random_images(40))
    options = [*OPTIONS, "--data", str(data), "--out", str(tmp_path / "runs")]
    assert main(options) == 0
    expected = read_folder(tmp_path / "runs")
    folder = tmp_path / "runs" / LABEL
    torn = (folder / CURRENT).read_bytes()
    (folder / CURRENT).write_bytes(torn[: len(torn) // 2])
    (folder / "metrics.jsonl").write_text("torn")
    assert main(options) == 0
    assert read_folder(tmp_path / "runs") == expected
    # Of another configuration nothing is touched, and one line says why.
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    capsys.readouterr()
    write_class_folders(data, random_images(40, seed=5))
    assert main(options) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "data_fingerprint was" in error
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    parameters = np.frombuffer(expected[0], np.float32)
    assert np.isfinite(parameters).all() and parameters.std() > 0
