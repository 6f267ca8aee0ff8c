"""torchrun with Gloo: nodes over processes, the numbers of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_cases import random_images, write_class_folders

from deep.checkpoint import load_checkpoint
from deep.distributed import Communicator, check_ranks
from deep.energy_record import read_balance
from deep.reproduce import main
from theory.support.energy import Windows, from_rows
from theory.support.errors import UserError


def options(data: Path, out: Path, nodes: int) -> list[str]:
    """Arguments of a short run in single precision, with everything that processes share."""
    return [
        "--preset",
        "smoke",
        "--regime",
        "pathological",
        "--local-steps",
        "2",
        "--engine",
        "loop",
        "--subset",
        "40",
        "--batch-size",
        "4",
        "--participants",
        "2",
        "--outer-step",
        "extrapolated",
        "--width",
        "1",
        "--nodes",
        str(nodes),
        "--rounds",
        "30",
        "--step-size",
        "0.1",
        "--device",
        "cpu",
        "--quiet",
        "--energy",
        "--data",
        str(data),
        "--out",
        str(out),
    ]


def result(out: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """Final parameters, and all rows less clocks."""
    (folder,) = out.iterdir()
    config = json.loads((folder / "config.json").read_text())["config"]
    state = load_checkpoint(folder, config)
    assert state is not None and state.round == 30 and state.model.dtype == np.float32
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert written == state.metrics
    clocks = ("wall_seconds", "images_per_second")
    rows = [{k: v for k, v in row.items() if k not in clocks} for row in state.metrics]
    return state.model.tobytes(), rows


def balance(out: Path) -> Windows:
    """The energy balance of a run."""
    (folder,) = out.iterdir()
    found = read_balance(folder)
    assert found is not None
    return from_rows(0.1, found["windows"])


def torchrun(processes: int, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the command under torchrun on this machine."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
            "-m",
            "deep.reproduce",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    """They share five nodes, of which two take part: in some rounds one process has none."""
    nodes = 5
    for seed, part in enumerate(("train", "test")):
        write_class_folders(tmp_path / "data" / part, random_images(40, seed=seed))
    assert main(options(tmp_path / "data", tmp_path / "one", nodes)) == 0
    answer = torchrun(2, options(tmp_path / "data", tmp_path / "many", nodes))
    assert answer.returncode == 0, answer.stderr
    one, many = result(tmp_path / "one"), result(tmp_path / "many")
    assert many == one
    assert len(one[1]) > 2 and one[1][-1]["mean_square"] > 0
    assert one[1][-1]["test_loss"] > 0 and one[1][-1]["outer_step"] >= 1
    first, second = (balance(tmp_path / name) for name in ("one", "many"))
    assert first.closing_error < 1e-9 and (first.iteration == second.iteration).all()
    for name in ("distance", "loss", "inner", "square", "averaging"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-9)


def test_every_node_has_one_process() -> None:
    class Rank(Communicator):
        def __init__(self, rank: int, size: int) -> None:
            self.rank, self.size = rank, size

    for size in (1, 2, 4, 7):
        owned = [Rank(rank, size).nodes(7) for rank in range(size)]
        assert sorted(node for nodes in owned for node in nodes) == list(range(7))
        assert max(map(len, owned)) - min(map(len, owned)) <= 1
    with pytest.raises(UserError, match="8 processes for 7 nodes"):
        check_ranks(Rank(0, 8), 7)
