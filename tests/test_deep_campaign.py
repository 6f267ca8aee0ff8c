"""Campaigns: what time does to runs, and bad files on one line; kill -9 is in ``test_kills.py``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deep_cases import TWO_RUNS, random_images, tiny_preset, write_class_folders

from deep import campaign, campaign_file
from deep.campaign import main
from deep.campaign_file import read_campaign
from deep.checkpoint import load_checkpoint
from deep.run_folder import read_metrics, read_summary
from theory.support.errors import UserError
from theory.support.locks import lock

CLOCKS = {"wall_seconds", "images_per_second", "evaluation_share", "command"}
SMALL = tiny_preset(24)
THREE = f"""{SMALL}{TWO_RUNS}
[[run]]
preset = "tiny"
experiment = "fixed-rounds"
regime = "iid"
local-steps = 1
outer-step = "polyak"
participants = 2
seed = 1
"""
LABELS = [
    "tiny_fixed-rounds_iid_K02",
    "tiny_fixed-rounds_shards1_K02",
    "tiny_fixed-rounds_iid_K01_seed-1_participants-2_outer-step-polyak",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training and test folders with forty images of 8 x 8 pixels each."""
    folder = tmp_path_factory.mktemp("data")
    write_class_folders(folder / "train", random_images(40))
    write_class_folders(folder / "test", random_images(40, seed=1))
    return folder


def arguments(file: Path, text: str, data: Path, *more: str) -> list[str]:
    """Those of a campaign with folders beside its file."""
    file.write_text(text)
    places = ["--runs-folder", str(file.parent / "runs"), "--results", str(file.parent / "results")]
    numbers = ["--checkpoint-minutes", "60", "--threads", "1", "--device", "cpu", "--quiet"]
    return [str(file), "--data", str(data), *places, *numbers, *more]


def without_clocks(value: Any) -> Any:
    """A result less what a clock or the command line decides."""
    if isinstance(value, dict):
        return {k: without_clocks(v) for k, v in value.items() if k not in CLOCKS}
    return [without_clocks(v) for v in value] if isinstance(value, list) else value


def results_of(folder: Path) -> dict[str, Any]:
    """All result files of a folder."""
    return {p.stem: without_clocks(json.loads(p.read_text())) for p in folder.glob("*.json")}


def out_of_time(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign whose time is up after half a second of its first run, on a machine of any speed."""
    # It reads the clock at its start, before the queue, and before every run.
    readings = iter([0.0, 0.0, 0.0, 0.0])
    with monkeypatch.context() as patch:
        clock = SimpleNamespace(perf_counter=lambda: next(readings, 1e9))
        patch.setattr(campaign, "time", clock)
        assert main([*options, "--minutes", str(0.5 / 60)]) == 0


def test_a_finished_campaign_trains_nothing(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = arguments(tmp_path / "three.toml", THREE, data)
    assert main(options) == 0
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("deep.experiment.run", refuse)
    assert main(options) == 0
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before
    # A result file that was lost comes back from the run folder.
    lost = tmp_path / "results" / f"{LABELS[0]}.json"
    content = lost.read_bytes()
    lost.unlink()
    assert main(options) == 0 and lost.read_bytes() == content


def test_out_of_time_a_run_is_marked_unfinished_and_replaced_later(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = arguments(
        tmp_path / "three.toml", THREE.replace("rounds = 24", "rounds = 9999"), data
    )
    out_of_time(options, monkeypatch)
    (result,) = results_of(tmp_path / "results").values()
    assert result["summary"]["status"] == "unfinished"
    assert result["summary"]["final_train_loss"] == result["metrics"][-1]["train_loss"]
    state = load_checkpoint(tmp_path / "runs" / LABELS[0], result["config"])
    assert state is not None and 0 < state.round < 9999
    # With fewer rounds than that wanted in all, the campaign ends, this run included.
    shorter = THREE.replace("rounds = 24", f"rounds = {state.round + 9}")
    (tmp_path / "three.toml").write_text(shorter)
    assert main(options) == 0
    found = results_of(tmp_path / "results")
    assert {r["summary"]["status"] for r in found.values()} == {"round_limit"} and len(found) == 3


def test_a_run_with_minutes_of_its_own_ends_with_them(tmp_path: Path, data: Path) -> None:
    text = THREE.replace("rounds = 24", "rounds = 99999").replace(
        "local-steps = 2", "local-steps = 2\nminutes = 0.01"
    )
    text = text.replace("outer-step", "rounds = 5\nouter-step")
    options = arguments(tmp_path / "three.toml", text, data)
    assert main(options) == 0
    statuses = {k: r["summary"]["status"] for k, r in results_of(tmp_path / "results").items()}
    assert statuses == dict(zip(LABELS, ["unfinished", "unfinished", "round_limit"], strict=True))
    before = results_of(tmp_path / "results")
    assert main(options) == 0 and results_of(tmp_path / "results") == before


def test_sigterm_writes_a_checkpoint_and_an_unfinished_result(tmp_path: Path, data: Path) -> None:
    options = arguments(tmp_path / "three.toml", THREE.replace("24", "99999"), data)
    folder = tmp_path / "runs" / LABELS[0]
    process = subprocess.Popen(
        [sys.executable, "-m", "deep.campaign", *options], stderr=subprocess.PIPE, text=True
    )
    while len(read_metrics(folder)) < 5 and process.poll() is None:
        time.sleep(0.01)
    assert not (folder / "checkpoint.bin").exists()
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "interrupted; the same command continues this campaign" in error
    summary = read_summary(folder)
    assert (folder / "checkpoint.bin").exists() and summary is not None
    assert summary["status"] == "unfinished" and summary["rounds"] >= 4
    assert results_of(tmp_path / "results")[LABELS[0]]["summary"]["status"] == "unfinished"


def test_one_process_a_campaign_and_a_run(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = arguments(tmp_path / "three.toml", THREE, data)
    for place, message in (
        (tmp_path / "runs" / "three.lock", "another process works on the campaign"),
        (tmp_path / "runs" / LABELS[0] / "lock", "another process is at work in"),
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        with lock(place, "never"):
            assert main(options) == 2
            error = capsys.readouterr().err
            assert message in error and error.count("\n") == 1
            with pytest.raises(UserError, match="never"), lock(place, "never"):
                pass
    assert not list((tmp_path / "results").iterdir())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width = 1", "widht = 1", "preset.tiny: widht is no option, allowed: regime"),
        (
            "local-steps = 2",
            "local_steps = 2",
            "run 1: local_steps is no option, allowed: the same",
        ),
        ('"shards"]', '"alike"]', "run 1: --regime is 'alike', allowed: iid, shards"),
        ("participants = 2", "participants = 5", "run 2: --participants is 5, allowed: integers"),
        ("shards-per-node = 1", "shards-per-node = 3", "run 1: --shards-per-node is 3, allowed"),
        ("seed = 1", 'seed = "one"', "run 2: --seed is 'one', allowed: integers"),
        ("seed = 1", "seed = []", "run 2: --seed is empty, allowed: at least one"),
        ("seed = 1", "minutes = 0", "run 2: minutes is 0, allowed: a number above 0"),
        ('"polyak"', '"best"', "run 2: --outer-step is 'best', allowed: a positive number"),
        ('preset = "tiny"', 'preset = "huge"', "run 1: --preset is 'huge', allowed: paper"),
        ('"fixed-rounds"', '"third"', "run 1: --experiment is 'third', allowed: fixed-rounds"),
        ("[preset.tiny]", "[preset.paper]", "preset.paper is a preset already"),
        ("width = 1", "", "run 1: --width is missing, and the preset tiny has none"),
        ("[[run]]", "[[runs]]", "runs is no key of the file, allowed: data-name, energy, "),
        ('"noise"', "3", "data-name is 3, allowed: a text"),
        ('"noise"', '"noise"\nenergy = 1', "energy is 1, allowed: true or false"),
        ("seed = 1", 'energy = "no"', "run 2: energy is 'no', allowed: true or false"),
        ("width = 1", "width = ", "is not TOML"),
        ("subset = 40", "subset = 44", "--subset must lie in 1..40"),
        ("batch-size = 3", "batch-size = 11", "--batch-size is 11, allowed: 1 to 10"),
        ("subset = 40", "subset = 0\nshards-per-node = 7", "--shards-per-node"),
    ],
)
def test_a_bad_file_is_one_line_before_any_run(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    text = THREE.replace(old, new)
    if "= 7" in new:
        text = text.replace("shards-per-node = 1\n", "")
    assert main(arguments(tmp_path / "bad.toml", text, data)) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith("error: ") and message in output.err
    runs = tmp_path / "runs"
    assert not runs.exists() or not [p for p in runs.iterdir() if p.is_dir()]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--minutes", "0"], "--minutes is 0.0, allowed: finite numbers above 0"),
        (["--minutes", "nan"], "--minutes is nan"),
        (["--checkpoint-minutes", "nan"], "--checkpoint-minutes is nan"),
        (["--threads", "0"], "--threads is 0"),
        (["--data", "nowhere"], "no training images at nowhere"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(arguments(tmp_path / "three.toml", THREE, data, *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "more",
    [
        ["--data", "nowhere"],
        ["--data-name", "mine"],
        ["--minutes", "inf"],
        ["--results", "results"],
        ["--cache", "cache"],
        ["--device", "auto"],
        ["--threads", "2"],
        ["--checkpoint-minutes", "2"],
        ["--quiet"],
    ],
)
def test_status_refuses_what_it_does_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """Also a value that is the default: it was typed."""
    (tmp_path / "three.toml").write_text(THREE)
    assert main([str(tmp_path / "three.toml"), "--status", *more]) == 2
    output = capsys.readouterr()
    assert f"{more[0]} is given with --status, which does not use it" in output.err
    assert output.err.count("\n") == 1 and not output.out


@pytest.mark.parametrize("status", [True, False])
def test_a_runs_folder_that_is_a_file_is_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], status: bool
) -> None:
    options = arguments(tmp_path / "three.toml", THREE, data)
    (tmp_path / "runs").write_text("mine")
    if status:
        options = [options[0], "--status", "--runs-folder", str(tmp_path / "runs")]
    assert main(options) == 2
    output = capsys.readouterr()
    assert output.err == f"error: --runs-folder is {tmp_path / 'runs'}: is not a folder\n"
    assert not output.out


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.toml")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_file_above_the_limit_is_refused_and_never_read_in_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut at the limit it would be a shorter queue, and valid."""
    limit = campaign_file._MOST_BYTES
    head, _, third = THREE.rpartition("[[run]]")
    longest = head + "#" * (limit - len(THREE) - 1) + "\n[[run]]" + third
    file = tmp_path / "long.toml"
    file.write_text(longest)
    assert file.stat().st_size == limit
    assert [entry.run.label for entry in read_campaign(file).entries] == LABELS
    file.write_text(head + "#" * limit + "\n[[run]]" + third)
    assert main([str(file), "--status"]) == 2
    error = capsys.readouterr().err
    assert error == (f"error: {file} is not TOML of at most 1,000,000 bytes: it is larger\n")


def test_a_diverged_run_does_not_stop_the_others(tmp_path: Path, data: Path) -> None:
    text = THREE.replace("step-size = 0.05", "step-size = 1e30").replace("24", "9")
    assert main(arguments(tmp_path / "three.toml", text, data)) == 1
    statuses = [r["summary"]["status"] for r in results_of(tmp_path / "results").values()]
    assert statuses == ["diverged"] * 3


def test_status_fits_eighty_columns(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = THREE.replace("rounds = 24", "rounds = 9999").replace(
        "outer-step", "rounds = 5\nouter-step"
    )
    options = arguments(tmp_path / "three.toml", text, data)
    status = [str(tmp_path / "three.toml"), "--runs-folder", str(tmp_path / "runs"), "--status"]
    assert main(status) == 0
    table = capsys.readouterr().out
    assert table.count("queued") == 3 and "0 of 3 runs have ended" in table
    out_of_time(options, monkeypatch)
    capsys.readouterr()
    folder = tmp_path / "runs" / LABELS[0]
    with lock(folder / "lock", "busy"):
        assert main(status) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 80
    line = next(line for line in table.splitlines() if f"{LABELS[0]} " in line)
    last = read_metrics(folder)[-1]
    assert (
        "running" in line and f"{last['round']:,}" in line and f"{last['train_loss']:.1e}" in line
    )


def test_the_committed_campaigns_can_be_read() -> None:
    folder = Path(campaign.__file__).parent / "campaigns"
    files = sorted(folder.glob("*.toml"))
    assert [f.stem for f in files] == ["ladder"]
    entries = read_campaign(files[0]).entries
    assert entries[0].run.label == "laptop_to-loss_iid_K05"
    assert entries[-1].run.config.width == 64 and entries[-1].minutes == 60
    assert all(e.run.config.n_nodes == 20 and e.run.config.batch_size == 8 for e in entries)
