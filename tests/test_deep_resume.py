"""A run goes on to the same bits after damage; kill -9 is in ``test_kills.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_cases import random_images, tiny_options, write_class_folders

from deep.checkpoint import CURRENT, load_checkpoint
from deep.reproduce import main

ROUNDS = 12
OPTIONS = [
    *tiny_options(3, 3, 39),
    *("--experiment", "fixed-rounds", "--regime", "shards", "--shards-per-node", "1"),
    *("--participants", "2", "--outer-step", "extrapolated", "--local-steps", "2"),
    *("--rounds", str(ROUNDS), "--device", "cpu", "--checkpoint-minutes", "0"),
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
