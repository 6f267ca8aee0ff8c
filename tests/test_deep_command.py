"""python -m deep.reproduce: what it writes, and bad input on one line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from deep_cases import random_images, tiny_options, write_class_folders

from deep import checkpoint, display, reproduce
from deep.reproduce import main

SMALL = [*tiny_options(4, 4), "--local-steps", "2"]
IID = [*SMALL, "--regime", "iid"]
LABEL = "smoke_to-loss_iid_K02_nodes-4_batch-size-4_width-1_subset-40_engine-loop"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with forty images of 8 x 8 pixels."""
    return write_class_folders(tmp_path_factory.mktemp("data") / "own", random_images(40))


def test_a_sweep_writes_run_folders_and_results(tmp_path: Path, data: Path) -> None:
    arguments = [
        *SMALL,
        "-K",
        "1",
        "--regime",
        "mixed",
        "--similarity",
        "0.25",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "runs"),
        "--results",
        str(tmp_path / "results"),
        "--data-name",
        "noise",
    ]
    assert main(arguments) == 0
    for k in (1, 2):
        label = f"smoke_to-loss_mixed_K{k:02d}_nodes-4_batch-size-4_similarity-0.25_width-1_subset-40_engine-loop"
        assert {p.name for p in (tmp_path / "runs" / label).iterdir()} >= {
            "config.json",
            "metrics.jsonl",
            "summary.json",
        }
        content = json.loads((tmp_path / "results" / f"{label}.json").read_text())
        assert content["config"]["local_steps"] == k and content["data_name"] == "noise"
        assert set(content) == {
            "hardware",
            "versions",
            "command",
            "commit",
            "data_name",
            "config",
            "summary",
            "fits",
            "metrics",
        }
        assert content["summary"]["rounds"] == 5 == content["metrics"][-1]["round"]
        assert content["metrics"][-1]["iteration"] == 5 * k
        assert content["metrics"][-1]["gradient_norm"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--local-steps", "0"], "--local-steps is 0, allowed: integers of at least 1"),
        (["-K", "1,x"], "--local-steps is 'x', allowed: integers of at least 1"),
        (["--seed", "0.5"], "--seed is '0.5', allowed: integers from 0"),
        (["--seed", "-1"], "--seed is -1, allowed: integers from 0 to"),
        (["--nodes", "41"], "number of nodes must lie in 1..40"),
        (["--nodes", "0"], "--nodes is 0, allowed: integers of at least 1"),
        (["--subset", "41"], "--subset must lie in 1..40"),
        (["--subset", "-3"], "--subset is -3, allowed: integers of at least 1"),
        (["--regime", "alike"], "--regime is 'alike', allowed: iid, shards"),
        (["--regime", "iid,alike"], "--regime is 'alike', allowed: iid, shards"),
        (["--regime", "shards", "--shards-per-node", "3"], "--shards-per-node is 3, allowed"),
        (["--engine", "fast"], "--engine is 'fast', allowed: auto, simd"),
        (["--precision", "half"], "--precision is 'half', allowed: float32"),
        (["--preset", "desktop"], "--preset is 'desktop', allowed: paper, laptop, smoke"),
        (["--experiment", "third"], "--experiment is 'third', allowed: fixed-rounds, to-loss"),
        (["--pixels", "raw"], "--pixels is 'raw', allowed: centred, standardised"),
        (["--batches", "sorted"], "--batches is 'sorted', allowed: without-replacement"),
        (["--participants", "5"], "--participants is 5, allowed: integers from 1 to 4"),
        (["--fixed-participants"], "--fixed-participants is set, allowed: only with"),
        (["--outer-step", "best"], "--outer-step is 'best', allowed: a positive number"),
        (["--outer-step", "0"], "--outer-step is 0.0, allowed: finite numbers above 0"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--device", "cuda:9"], "is not there"),
        (["--engine", "simd", "--precision", "bf16"], "simd engine runs on the CPU"),
        (["--engine", "grouped", "--cuda-graphs"], "needs a CUDA device"),
        (
            ["--engine", "loop", "--compile"],
            "--compile is set, allowed: with a stacked engine, not",
        ),
        (["--engine", "loop", "--cuda-graphs"], "--cuda-graphs is set, allowed: with a stacked"),
        (["--step-size", "nan"], "--step-size is nan, allowed: finite numbers above 0"),
        (["--target-loss", "-1"], "--target-loss is -1.0, allowed: finite numbers of at least 0"),
        (["--batch-size", "0"], "--batch-size is 0, allowed: integers of at least 1"),
        (["--batch-size", "11"], "--batch-size is 11, allowed: 1 to 10, the images of a node"),
        (
            ["--similarity", "2", "--regime", "mixed"],
            "--similarity is 2.0, allowed: finite numbers of at least 0 and of at most 1",
        ),
        (["--threads", "0"], "--threads is 0, allowed: integers from 1 to 1024"),
        (
            ["--checkpoint-minutes", "-1"],
            "--checkpoint-minutes is -1.0, allowed: finite numbers of at least 0",
        ),
        (
            ["--checkpoint-minutes", "nan"],
            "--checkpoint-minutes is nan, allowed: finite numbers of at least 0",
        ),
        (
            ["--shards-per-node", "2"],
            "--shards-per-node is given, allowed: only with --regime shards",
        ),
        (["--similarity", "0.5"], "--similarity is given, allowed: only with --regime mixed"),
        (
            ["--experiment", "fixed-rounds", "--target-loss", "1e-4"],
            "--target-loss is given, allowed: only with --experiment to-loss",
        ),
        (["--rounds", "many"], "Invalid value for '--rounds'"),
        (["--round", "3"], "No such option"),
        (["--local_steps", "3"], "No such option"),
        (["extra"], "unexpected extra argument"),
        (["--rounds"], "requires an argument"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    if torch.cuda.is_available() and "--cuda-graphs" in arguments:
        arguments = [*arguments, "--device", "cpu"]
    place = ["--regime", "iid", "--data", str(data), "--out", str(tmp_path / "runs")]
    found = main([*SMALL, *place, *arguments])
    output = capsys.readouterr()
    assert found == 2 and output.out == ""
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
    assert message in output.err
    assert not (tmp_path / "runs").exists()


def test_options_that_one_of_several_regimes_uses(tmp_path: Path, data: Path) -> None:
    """The others' runs come once, whatever they say."""
    more = ["--regime", "iid,shards,mixed", "--shards-per-node", "2,1", "--similarity", "0.25"]
    more += ["--target-loss", "1e-3", "--rounds", "1"]
    assert main([*SMALL, *more, "--data", str(data), "--out", str(tmp_path)]) == 0
    regimes = {folder.name.split("_")[2] for folder in tmp_path.iterdir()}
    assert regimes == {"iid", "shards1", "shards2", "mixed"} and len(list(tmp_path.iterdir())) == 4


def test_errors_of_the_data_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "runs")]
    assert main([*IID, "--data", str(tmp_path / "none"), *out]) == 2
    assert "no training images at" in capsys.readouterr().err
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"not an archive")
    assert main([*IID, "--data", str(tmp_path), *out]) == 2
    assert "has MD5" in capsys.readouterr().err
    odd = write_class_folders(tmp_path / "odd", random_images(40, 20))
    assert main([*IID, "--data", str(odd), *out]) == 2
    error = capsys.readouterr().err
    assert error == "error: images must have sides of a multiple of 8 pixels, got 20\n"
    (odd / "class1" / "x.png").write_bytes(b"broken")
    assert main([*IID, "--data", str(odd), *out]) == 2
    error = capsys.readouterr().err
    assert "cannot read the image" in error and "x.png" in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["--out", "--results"])
def test_places_that_cannot_hold_folders(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (tmp_path / "file").write_text("mine")
    places = {"--out": str(tmp_path / "runs"), option: str(tmp_path / "file")}
    arguments = [word for pair in places.items() for word in pair]
    assert main([*IID, "--data", str(data), *arguments]) == 2
    error = capsys.readouterr().err
    said = {"--out": "error: cannot make", "--results": "error: --results is"}[option]
    assert error.startswith(said) and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "runs").exists()


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up after some rounds; with room again the run ends as if nothing was."""
    genuine, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        genuine(descriptor)

    arguments = [*IID, "--data", str(data), "--checkpoint-minutes", "0", "--rounds", "9"]
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    assert main([*arguments, "--out", str(tmp_path / "full")]) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and error.count("\n") == 1
    folder = tmp_path / "full" / LABEL
    assert not (folder / "summary.json").exists() and not list(folder.glob(".*.part"))
    monkeypatch.undo()
    state = checkpoint.load_checkpoint(
        folder, json.loads((folder / "config.json").read_text())["config"]
    )
    assert state is not None and 0 < state.round < 9
    assert main([*arguments, "--out", str(tmp_path / "full")]) == 0

    def parameters(place: str) -> np.ndarray:
        path = tmp_path / place / folder.name
        config = json.loads((path / "config.json").read_text())["config"]
        ended = checkpoint.load_checkpoint(path, config)
        assert ended is not None and ended.round == 9
        return ended.model

    assert (parameters("full") == parameters("whole")).all()


def test_without_a_terminal_progress_is_a_line_now_and_then(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "LINE_EVERY", 0.0)
    loud = [word for word in IID if word != "--quiet"]
    place = ["--data", str(data), "--out", str(tmp_path / "runs")]
    assert main([*loud, *place]) == 0
    lines = capsys.readouterr().err.splitlines()
    # Between two of them another may say that the work goes on.
    said = [line for line in lines if line.startswith(f"{LABEL}: round ") and "at work" not in line]
    assert len(said) == 5
    assert lines[-1].startswith(f"{LABEL}: round_limit after 5 rounds = 10 iterations, loss")


def test_a_diverged_run_exits_with_1(tmp_path: Path, data: Path) -> None:
    place = ["--data", str(data), "--out", str(tmp_path / "runs")]
    assert main([*IID, *place, "--step-size", "1e30"]) == 1


@pytest.mark.parametrize("damaged", ["config.json", "checkpoint.bin", "all"])
def test_damaged_folders_cost_no_metrics_without_a_word(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    place = ["--data", str(data), "--out", str(tmp_path / "runs")]
    options = [*IID, *place, "--results", str(tmp_path / "results"), "--checkpoint-minutes", "0"]
    assert main(options) == 0
    folder = tmp_path / "runs" / LABEL
    metrics = (folder / "metrics.jsonl").read_bytes()
    names = ["checkpoint.bin", "checkpoint.previous.bin"] if damaged == "all" else [damaged]
    for name in names:
        (folder / name).write_bytes(b"torn")
    status = main([*options, "--rounds", "7"])
    error = capsys.readouterr().err
    if damaged == "config.json":
        assert status == 2 and "config.json is damaged: restore it" in error
        assert (folder / "metrics.jsonl").read_bytes() == metrics
    elif damaged == "all":
        assert status == 0 and error.count("\n") == 1
        assert "no checkpoint in" in error and f"its old files are in {folder}/damaged-1" in error
        assert (folder / "damaged-1" / "metrics.jsonl").read_bytes() == metrics
    else:
        assert status == 0 and error == ""


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (MemoryError(), 2, "error: out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), 2, "error: out of memory"),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues"),
        (typer.Abort(), 130, "interrupted; the same command continues"),
    ],
)
def test_what_stops_a_run_is_one_line(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    status: int,
    line: str,
) -> None:
    def stop(*arguments: Any, **options: Any) -> None:
        raise raised

    monkeypatch.setattr(reproduce, "run_experiment", stop)
    assert main([*IID, "--data", str(data), "--out", str(tmp_path / "runs")]) == status
    error = capsys.readouterr().err
    assert error.startswith(line) and error.count("\n") == 1


def test_refused_folder_stays_free_of_tensorboard(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            Path(folder).mkdir(parents=True)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append(name)

        def flush(self) -> None:
            pass

    module = type(sys)("tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    arguments = [*IID, "--data", str(data), "--out", str(tmp_path), "--tensorboard"]
    folder = tmp_path / LABEL
    folder.mkdir()
    (folder / "config.json").write_text('{"config": {"regime": "other"}}')
    assert main(arguments) == 2
    assert [p.name for p in folder.iterdir()] == ["config.json"] and not written
    (folder / "config.json").unlink()
    assert main(arguments) == 0
    assert (folder / "tensorboard").is_dir() and "train_loss" in written


def test_as_a_module_it_exits_with_2_and_names_itself(tmp_path: Path, data: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "deep.reproduce",
                *IID,
                "--data",
                str(data),
                "--out",
                str(tmp_path),
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )

    answer = run("-K", "0")
    assert answer.returncode == 2 and answer.stderr.startswith("error: --local-steps is 0")
    assert run().returncode == 0
    stored = json.loads((tmp_path / LABEL / "config.json").read_text())
    assert stored["command"].startswith("python -m deep.reproduce --preset smoke --engine loop")
