"""The energy balance as commands: of a deep run, recorded or repeated, and of the theory's problems."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_cases import random_images, tiny_options, write_class_folders

from deep import energy, reproduce
from deep.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from deep.energy_record import BALANCE, read_balance
from theory import energy as theory_energy
from theory.energy import SOLVED, app
from theory.support.command import run_command
from theory.support.energy import Windows, from_rows, medians

OPTIONS = [
    *tiny_options(3, 3),
    *("--experiment", "fixed-rounds", "--regime", "iid", "--rounds", "40", "--local-steps", "2"),
    *("--device", "cpu"),
]


class Runs:
    """The same run with a record and without, and its images."""

    def __init__(self, root: Path) -> None:
        self.data = write_class_folders(root / "data", random_images(40))
        self.other = write_class_folders(root / "other", random_images(40, seed=3))
        for name, more in (("with", ["--energy"]), ("without", [])):
            places = ["--out", str(root / name), "--results", str(root / f"{name}-results")]
            assert reproduce.main([*OPTIONS, *more, *places, "--data", str(self.data)]) == 0
        (self.recorded,) = (root / "with").iterdir()
        (self.plain,) = (root / "without").iterdir()
        (self.result,) = (root / "with-results").iterdir()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def ended(folder: Path) -> tuple[dict[str, Any], Checkpoint]:
    """Configuration and last state of a run."""
    config = json.loads((folder / "config.json").read_text())["config"]
    state = load_checkpoint(folder, config)
    assert state is not None
    return config, state


def test_a_recorded_run_and_its_result_file_show_the_same(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for place in (runs.recorded, runs.result):
        assert energy.main([str(place), "--rows", "3"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    for word in ("phi_hat", "phi_total", "averaging", "Lambda", "P/Q", "closes to"):
        assert word in shown[0]
    assert max(map(len, shown[0].splitlines())) <= 80


def test_a_run_without_a_record_is_repeated_to_the_same_balance(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(runs.plain, tmp_path / "run")
    assert energy.main([str(folder)]) == 2
    assert "--data repeats the run" in capsys.readouterr().err
    result = tmp_path / "result.json"
    given = ["--data", str(runs.data), "--quiet", "--result", str(result), "--device", "cpu"]
    assert energy.main([str(folder), *given]) == 0
    assert (folder / BALANCE).read_bytes() == (runs.recorded / BALANCE).read_bytes()
    assert json.loads(result.read_text())["energy"] == read_balance(folder)
    assert not (folder / energy.REPETITION).exists()
    # Known now: no images needed.
    assert energy.main([str(folder)]) == 0


def test_a_repetition_that_ends_elsewhere_fails(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(runs.plain, tmp_path / "run")
    config, state = ended(folder)
    state.model[7] = np.nextafter(state.model[7], np.float32(9))
    save_checkpoint(folder, config, state)
    arguments = [str(folder), "--data", str(runs.data), "--quiet", "--device", "cpu"]
    assert energy.main(arguments) == 1
    error = capsys.readouterr().err
    assert "ended with another model" in error and "number of threads (engines but simd)" in error
    assert read_balance(folder) is None


def test_a_repetition_that_ended_elsewhere_is_made_again(runs: Runs, tmp_path: Path) -> None:
    """As after another number of threads: the next call, with the right one, finds the run's model."""
    folder = copied(runs.plain, tmp_path / "run")
    place = copied(runs.recorded, folder / energy.REPETITION)
    config = json.loads((place / "config.json").read_text())["config"]
    state = load_checkpoint(place, config)
    assert state is not None
    state.model[7] = np.nextafter(state.model[7], np.float32(9))
    save_checkpoint(place, config, state)
    given = ["--data", str(runs.data), "--quiet", "--device", "cpu", "--threads", "1"]
    assert energy.main([str(folder), *given]) == 0
    assert (folder / BALANCE).read_bytes() == (runs.recorded / BALANCE).read_bytes()
    assert not place.exists()


@pytest.mark.parametrize(
    "content",
    [
        *("{}", "[]", "5", '{"windows": []}', '{"windows": 3}', '{"windows": [{"iteration": 0}]}'),
        *('{"windows": [{"iteration": 1e999, "distance": 1}]}', "[" * 100_000, "no JSON"),
    ],
)
def test_a_balance_that_cannot_be_read_is_computed_again(
    runs: Runs, tmp_path: Path, content: str
) -> None:
    folder = copied(runs.recorded, tmp_path / "run")
    (folder / BALANCE).write_text(content)
    assert read_balance(folder) is None
    assert energy.main([str(folder)]) == 0
    assert (folder / BALANCE).read_bytes() == (runs.recorded / BALANCE).read_bytes()


@pytest.mark.parametrize("keep", [0, 100, -9])
def test_metrics_that_were_lost_come_back_from_the_checkpoint(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: int
) -> None:
    folder = copied(runs.recorded, tmp_path / "run")
    whole = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.jsonl").write_bytes(whole[:keep])
    result = tmp_path / "result.json"
    assert energy.main([str(folder), "--result", str(result)]) == 0
    assert (folder / "metrics.jsonl").read_bytes() == whole
    assert (
        json.loads(result.read_text())["metrics"] == json.loads(runs.result.read_text())["metrics"]
    )
    # Without a checkpoint nobody knows them.
    for path in folder.glob("checkpoint*"):
        path.unlink()
    result.unlink()
    assert energy.main([str(folder), "--result", str(result)]) == 0
    result.unlink()
    (folder / "metrics.jsonl").write_bytes(whole[:keep])
    capsys.readouterr()
    assert energy.main([str(folder), "--result", str(result)]) == 2
    error = capsys.readouterr().err
    assert "doesn't reach round 40" in error and error.count("\n") == 1 and not result.exists()


def test_a_checkpoint_before_the_end_is_not_the_end(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(runs.recorded, tmp_path / "run")
    config, state = ended(folder)
    save_checkpoint(folder, config, replace(state, round=39))
    (folder / BALANCE).unlink()
    assert energy.main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert "no checkpoint of its last round, 40" in error and error.count("\n") == 1


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_repetition_goes_into_a_folder_of_its_own(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    folder = copied(runs.plain, tmp_path / "run")
    place = folder / energy.REPETITION
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.write_text("mine")
    # Said before the images are looked for.
    assert energy.main([str(folder), "--data", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert f"{place} is no folder of this command" in error and error.count("\n") == 1
    assert kind == "file" or not list((tmp_path / "elsewhere").iterdir())


def test_a_balance_that_does_not_close_fails(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(runs.result.read_text())
    content["energy"]["windows"][3]["inner"] *= 1.01
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    assert energy.main([str(wrong)]) == 1
    assert "does not close" in capsys.readouterr().err


def test_bad_input_is_one_line(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished, diverged = (copied(runs.plain, tmp_path / n) for n in ("unfinished", "diverged"))
    for folder in (unfinished, diverged):
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "status": folder.name}))
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.json").write_text("[]")
    content = json.loads(runs.result.read_text())
    del content["energy"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    good = json.loads(runs.result.read_text())
    for name, change in (
        ("none", {"config": {}}),
        ("windows", {"energy": {**good["energy"], "windows": []}}),
        ("summary", {"summary": {}}),
        ("metrics", {"metrics": 5}),
    ):
        (tmp_path / f"bad-{name}.json").write_text(json.dumps({**good, **change}))
    (tmp_path / "bad-nested.json").write_text("[" * 100_000)
    cases: list[tuple[list[object], str]] = [
        ([path], "is no result file") for path in sorted(tmp_path.glob("bad-*.json"))
    ]
    cases += [
        ([runs.recorded, "--result", runs.recorded / "checkpoint.bin"], "outside the run folder"),
        ([unfinished], "has not ended"),
        ([diverged], "diverged: there is no solution"),
        ([tmp_path / "empty"], "is no run folder"),
        ([tmp_path / "none"], "cannot read"),
        ([tmp_path / "no.json"], "is no result file"),
        ([tmp_path / "old.json"], "holds no energy balance"),
        ([runs.result, "--result", tmp_path / "again.json"], "allowed with --data and --result"),
        ([runs.recorded, "--rows", 0], "--rows is 0"),
        ([runs.recorded, "--threads", 0], "--threads is 0, allowed: integers from 1 to 1024"),
        ([runs.recorded, "--device", "tpu"], "unknown device 'tpu'"),
        ([runs.result, "--device", "tpu"], "unknown device 'tpu'"),
        ([runs.recorded, "--checkpoint-minutes", "nan"], "--checkpoint-minutes is nan"),
        ([runs.plain, "--checkpoint-minutes", "-1"], "--checkpoint-minutes is -1.0"),
        ([runs.plain, "--data", runs.other, "--quiet"], "allowed: the images of the run"),
        ([runs.plain, "--data", tmp_path / "none", "--quiet"], "none"),
        ([runs.recorded, "--data", runs.data], "has recorded its balance, allowed: no --data"),
    ]
    for arguments, message in cases:
        assert energy.main([str(word) for word in arguments]) == 2, message
        output = capsys.readouterr()
        assert output.err.count("\n") == 1 and message in output.err


def test_processes_of_torchrun_do_not_all_write_one_balance(
    runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert energy.main([str(runs.recorded)]) == 2
    assert "allowed: one process" in capsys.readouterr().err


def test_medians_are_of_what_lies_in_a_window() -> None:
    three = np.ones(2)
    windows = Windows(1.0, np.array([0, 10, 30]), np.ones(3), three, three, three, three)
    found = medians(windows, [0, 5, 10, 11, 20, 30, 40], [9.0, 1.0, 3.0, None, 4.0, 6.0, 0.0])
    assert found.tolist() == [2.0, 5.0]
    assert np.isnan(medians(windows, [5], [1.0])[1])


def test_joined_windows_are_the_sums_of_their_parts(runs: Runs) -> None:
    found = read_balance(runs.recorded)
    assert found is not None
    windows = from_rows(0.1, found["windows"])
    few = windows.at_most(5)
    assert len(few) == 5 and few.iteration[-1] == windows.iteration[-1]
    for name in ("loss", "inner", "square", "averaging"):
        assert getattr(few, name).sum() == pytest.approx(getattr(windows, name).sum())
    whole = windows.whole()
    took = sum(float(share[0]) for share in whole.shares.values())
    # The last model is z, so that nothing is left of D_0.
    assert took == pytest.approx(1.0, abs=1e-9) and whole.distance[-1] == 0.0
    weights = windows.loss / windows.loss.sum()
    assert whole.phi_hat[0] == pytest.approx(float((weights * windows.phi_hat).sum()))
    assert (few.noise == few.step_size * few.smoothness).all()
    # Below the turning step size, on the same gradients, phi_hat is positive.
    turned = few.inner - 0.5 * few.turning_step_size * few.square
    assert turned == pytest.approx(np.zeros(5), abs=1e-12)


# ---- the theory's side ---------------------------------------------------------------------------


def theory(*arguments: str) -> int:
    return run_command(app, "python -m theory.energy", list(arguments))


def test_phi_hat_is_at_least_phi_in_every_window(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "energy.json"
    status = theory(
        "-K", "1,4", "--rounds", "30", "--quick", "--step-size", "1.4", "--json", str(path)
    )
    output = capsys.readouterr().out
    assert status == 0 and max(map(len, output.splitlines())) <= 80
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    assert len(cells) == 3 * 2 * 2
    for cell in cells:
        windows = from_rows(cell["step_size"], cell["windows"])
        assert windows.closing_error < 1e-9
        if cell["problem"] == "sigmoid":
            assert cell["verdict"] == "NOT APPLICABLE"
        else:
            assert cell["verdict"] == "HOLDS" and cell["phi"] == pytest.approx(0.6)
            assert (windows.phi_hat >= 0.6 - 1e-3).all()


def test_what_is_done_before_an_interruption_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine, done = theory_energy._cell, list[object]()

    def interrupted(*arguments: Any) -> theory_energy.Cell:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return genuine(*arguments)

    monkeypatch.setattr(theory_energy, "_cell", interrupted)
    out = tmp_path / "e.json"
    small = "--problem least-squares --heterogeneity iid -K 1,2,3 -R 5 -n 2 --json"
    assert run_command(app, "energy", [*small.split(), str(out)]) == 130
    content = json.loads(out.read_text())
    assert content["interrupted"] and [c["local_steps"] for c in content["cells"]] == [1, 2]


def test_a_wrong_phi_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Least squares at eta = 1.4/L take less than phi = 1."""
    monkeypatch.setattr("theory.energy.Cell.phi", property(lambda cell: 1.0))
    few = ["--problem", "least-squares", "-K", "1", "--rounds", "10", "--step-size", "1.4"]
    assert theory(*few) == 1


def test_towards_the_last_model_nothing_is_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--problem", "logistic", "-K", "2", "--rounds", "10", "--heterogeneity", "iid"]
    assert theory(*few, "--reference", "end", "--details", "--rows", "2") == 3
    output = capsys.readouterr().out
    assert "NOT" in output and "logistic, iid nodes, K = 2" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--problem", "separable"], f"allowed: {', '.join(SOLVED)}"),
        (["--step-size", "2"], "step size in units of 1/L is 2"),
        (["--reference", "mean"], "reference is 'mean', allowed: solution, end"),
        (["--rounds", "0"], "rounds is 0"),
        (["-K", "0"], "K (local steps)"),
    ],
)
def test_bad_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert theory(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
