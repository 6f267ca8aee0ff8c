"""torchrun with Gloo: nodes over processes, the numbers of one process, and one line for an error."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deep_cases import (
    TWO_RUNS,
    random_images,
    tiny_options,
    tiny_preset,
    write_class_folders,
)

from deep import campaign, distributed
from deep.checkpoint import CURRENT, load_checkpoint
from deep.distributed import Communicator, Torchrun, check_ranks, say_once
from deep.energy_record import read_balance
from deep.reproduce import main
from theory.support.energy import Windows, from_rows
from theory.support.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
#: What torchrun and its libraries write themselves begins with a level and a date.
LOG = re.compile(r"\[?(rank\d+\]:)?\[?[EWI]\d{4} ")
#: A process that differs in one thing from the others: what is done before its command.
ODD = """
import os, sys
from deep import checkpoint
from deep.reproduce import main

arguments, odd = sys.argv[2:], os.environ["RANK"] == sys.argv[1][-1]
if odd and "data" in sys.argv[1]:
    arguments[arguments.index("--data") + 1] = "nowhere"
if odd and "option" in sys.argv[1]:
    arguments.append("--no-such-option")
if odd and "disk" in sys.argv[1]:
    genuine, calls = os.fsync, []
    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 9:
            raise OSError(28, "No space left on device")
        genuine(descriptor)
    checkpoint.os.fsync = full
sys.exit(main(arguments))
"""


def options(data: Path, out: Path, nodes: int, taking_part: int) -> list[str]:
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
        str(taking_part),
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


def torchrun(
    processes: int, *command: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module (``-m NAME``) or a script under torchrun on this machine."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, *launcher, *command],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("processes", "nodes", "taking_part"),
    [
        # In some rounds a process has no node.
        pytest.param(2, 5, 2, id="2 of 5 nodes on 2"),
        pytest.param(4, 6, 4, id="4 of 6 nodes on 4"),
    ],
)
def test_processes_give_the_bits_of_one(
    tmp_path: Path, processes: int, nodes: int, taking_part: int
) -> None:
    for seed, part in enumerate(("train", "test")):
        write_class_folders(tmp_path / "data" / part, random_images(40, seed=seed))
    assert main(options(tmp_path / "data", tmp_path / "one", nodes, taking_part)) == 0
    same = options(tmp_path / "data", tmp_path / "many", nodes, taking_part)
    answer = torchrun(processes, "-m", "deep.reproduce", *same)
    assert answer.returncode == 0, answer.stderr
    one, many = result(tmp_path / "one"), result(tmp_path / "many")
    assert many == one
    assert len(one[1]) > 2 and one[1][-1]["mean_square"] > 0
    assert one[1][-1]["test_loss"] > 0 and one[1][-1]["outer_step"] >= 1
    first, second = (balance(tmp_path / name) for name in ("one", "many"))
    assert first.closing_error < 1e-9 and (first.iteration == second.iteration).all()
    for name in ("distance", "loss", "inner", "square", "averaging"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-9)


def test_a_campaign_on_two_processes_is_that_of_one(tmp_path: Path) -> None:
    images = write_class_folders(tmp_path / "images", random_images(40))
    (tmp_path / "two.toml").write_text(tiny_preset(9) + TWO_RUNS)

    def command(name: str) -> list[str]:
        folders = ["--runs-folder", str(tmp_path / name), "--results", str(tmp_path / name / "r")]
        where = ["--data", str(images), "--device", "cpu", "--threads", "1", "--quiet"]
        return [str(tmp_path / "two.toml"), *folders, *where]

    def left(name: str) -> dict[str, Any]:
        """Models and result files, less clocks and command lines."""
        found: dict[str, Any] = {}
        for path in (tmp_path / name).rglob(CURRENT):
            found[path.parent.name] = path.read_bytes().split(b"\n", 2)[2]
        for path in (tmp_path / name / "r").iterdir():
            content = json.loads(path.read_text())
            for row in (content["summary"], *content["metrics"]):
                for clock in ("wall_seconds", "images_per_second", "evaluation_share"):
                    row.pop(clock, None)
            found[path.name] = {k: content[k] for k in ("config", "summary", "metrics", "fits")}
        return found

    assert campaign.main(command("one")) == 0
    answer = torchrun(2, "-m", "deep.campaign", *command("many"))
    assert answer.returncode == 0, answer.stderr
    assert len(left("one")) == 4 and left("many") == left("one")
    # What has ended is passed over, by all of them.
    again = torchrun(2, "-m", "deep.campaign", *command("many"))
    assert again.returncode == 0 and left("many") == left("one")


def lines_of_ours(answer: subprocess.CompletedProcess[str], processes: int) -> list[str]:
    """What the processes of a failed torchrun said, all of which must have ended with 2.

    torchrun, whose status is 1 then, adds some 45 lines of its own below: when each process ended, and how.
    """
    assert answer.returncode == 1 and not answer.stdout
    assert re.findall(r"exitcode\s*: (-?\d+) \(pid", answer.stderr) == ["2"] * processes
    # Ours come first: they end before it notices.
    ours, _, its = answer.stderr.partition("Traceback (most recent call last):")
    assert "ChildFailedError" in its and "error: " not in its.replace("ChildFailedError: ", "")
    return [line for line in ours.splitlines() if not LOG.match(line)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--local-steps", "0"], "error: --local-steps is 0, allowed: integers of at least 1"),
        (["--nodes", "1"], "error: 2 processes for 1 nodes: use --nproc-per-node so that "),
    ],
)
def test_what_every_process_finds_is_said_once(tmp_path: Path, more: list[str], said: str) -> None:
    """With three of them this was 52 lines and more, each process's line among them."""
    command = [*tiny_options(4, 4), "--device", "cpu", "-K", "2", *more]
    answer = torchrun(2, "-m", "deep.reproduce", *command, folder=tmp_path)
    (line,) = lines_of_ours(answer, 2)
    assert line.startswith(said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        # The other process waits for its images, to form the group, and in a round.
        ("data of 1", "error: no training images at nowhere: expected "),
        ("option of 1", "error: No such option: --no-such-option "),
        ("disk of 0", "error: cannot write "),
    ],
)
def test_what_one_process_finds_is_said_and_ends_the_others(
    tmp_path: Path, odd: str, said: str
) -> None:
    write_class_folders(tmp_path / "images", random_images(40))
    (tmp_path / "odd.py").write_text(ODD)
    command = [*tiny_options(4, 4), "--device", "cpu", "-K", "2", "--regime", "iid"]
    command += ["--data", "images", "--rounds", "99999", "--checkpoint-minutes", "0"]
    answer = torchrun(2, "odd.py", odd, *command, folder=tmp_path)
    (line,) = lines_of_ours(answer, 2)
    assert line.startswith(said)


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


def test_more_processes_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="4 processes for the 2 GPUs of this machine"):
        Torchrun(torch.device("cuda"))


def test_without_torchruns_store_every_process_says_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No torchrun, another starter, and a torchrun that is gone."""
    monkeypatch.setattr(distributed, "PATIENCE", 0.2)
    say_once("alone")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    say_once("started by another")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    # Nobody listens where the system only just gave the port to us.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(free.getsockname()[1]))
        say_once("orphaned")
    assert capsys.readouterr().err == "alone\nstarted by another\norphaned\n"


def test_of_all_lines_the_first_that_says_more_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one with bytes that are no text; and a process that never ends is not waited for long."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "3"}
    found |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "none", "RANK": "0"}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "PATIENCE", 0.2)
    lines: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    try:
        store.set(f"{distributed._key('said')}/2", json.dumps("error: no images at \udcff.png"))
        monkeypatch.setattr(distributed, "to_stderr", lines.append)
        say_once("error: lost touch with another process")
        assert lines == ["error: no images at \udcff.png"]
        monkeypatch.setenv("RANK", "2")
        say_once("error: no images at all")
        assert len(lines) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
