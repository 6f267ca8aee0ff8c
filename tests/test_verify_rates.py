"""``python -m theory.verify_rates``: verdicts, exit statuses, files, and one line for every mistake."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from theory import verify_rates
from theory.support import command as cli
from theory.support import files
from theory.verification.check import FAILED, HOLDS, NOT_APPLICABLE
from theory.verification.sweep import Sweep, cells, run_sweep
from theory.verification.tables import number
from theory.verification.violations import VIOLATIONS

# A sweep of a second: one K, few rounds.
SMALL = ["--rounds", "10", "--seeds", "4", "-n", "2", "-d", "64", "-K", "3"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command's exit status."""
    monkeypatch.setattr(sys, "argv", ["verify_rates", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.run(verify_rates.app, "python -m theory.verify_rates")
    return int(stop.value.code or 0)


def test_an_honest_run_exits_0_and_writes_what_it_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"--json": tmp_path / "new" / "all.json", "--csv": tmp_path / "checks.csv"}
    options = [str(word) for pair in files.items() for word in pair]
    assert run(monkeypatch, "--quick", *SMALL, *options) == 0
    printed = capsys.readouterr().out
    found = json.loads(files["--json"].read_text())
    assert found["failed"] == 0 and "0 FAILED" in printed
    held = {c["theorem"] for c in found["checks"] if c["verdict"] == HOLDS}
    assert held == {"T0", "T0'", "T1", "T2", "T3", "T4", "T4'", "T5", "T5'", "T6"}
    assert all(c["why"] for c in found["checks"] if c["verdict"] == NOT_APPLICABLE)
    for title in (
        "Checks:",
        "Not applicable:",
        "Tightness:",
        "Order:",
        "Communication:",
        "In short",
    ):
        assert title in printed
    assert {"hardware", "versions", "command", "commit"} <= found.keys()
    assert found["command"].endswith(f"--csv {files['--csv']}")
    with files["--csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [r["verdict"] for r in rows] == [c["verdict"] for c in found["checks"]]
    applied = [k for k, c in enumerate(found["checks"]) if c["verdict"] != NOT_APPLICABLE]
    bounds = [found["checks"][k]["bound"] for k in applied]
    assert [float(rows[k]["bound"]) for k in applied] == bounds


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_broken_hypothesis_exits_1(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # One-shot averaging over many steps, so that each violation has time to show.
    options = ["--quick", "--rounds", "40", "--seeds", "4", "-n", "2", "-d", "64", "-K", "20"]
    names = ["least-squares", "I0", "I3"]
    problems = [word for p in names for word in ("--problem", p)]
    assert run(monkeypatch, *options, *problems, "--break", name) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-K", "0"], "K (local steps) is 0, allowed: at least 1"),
        (["--step-size", "0"], "step size is 0/L, allowed: above 0"),
        (["--step-size", "nan"], "step size is nan/L"),
        (["--rounds", "-3"], "rounds is -3, allowed: at least 1"),
        (["--seeds", "1"], "seeds is 1, allowed: at least 2"),
        (["-d", "10"], "dimension is 10, allowed: at least 80"),
        (["--theorem", "T9"], "theorem 'T9', allowed: T0"),
        (["--problem", "lasso"], "problem is 'lasso', allowed: least-squares"),
        (["--heterogeneity", "none"], "heterogeneity is 'none', allowed: iid"),
        (["--engine", "cuda"], "engine is 'cuda', allowed: auto, exact"),
        (["--workers", "0"], "workers is 0, allowed"),
        (["--break", "nothing"], "--break 'nothing', allowed: step-size"),
        (["--data", "missing.npz"], "no file missing.npz"),
        (["--rounds", "many"], "--help"),
        (["--no-such-option"], "No such option"),
        (["--json", "/dev/null/x.json", "--quick", *SMALL], "cannot write /dev/null/x.json"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]


def test_the_same_schedule_unbroken_exits_0(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--quick", "--rounds", "40", "--seeds", "4", "-n", "2", "-d", "64", "-K", "20"]
    names = ["least-squares", "I0", "I3"]
    assert run(monkeypatch, *options, *(w for p in names for w in ("--problem", p))) == 0


def test_the_sweep_covers_all_problems_levels_and_k() -> None:
    sweep = Sweep()
    todo = cells(sweep)
    assert {(c.problem, c.heterogeneity, c.local_steps) for c in todo} >= {
        (p, level, k)
        for p in ("least-squares", "power-law", "logistic", "separable", "sigmoid")
        for level in ("iid", "similar", "sorted")
        for k in (1, 5, 20)
    }


def test_workers_and_joblib_backends_change_nothing() -> None:
    sweep = Sweep(
        problems=("logistic", "I3"),
        heterogeneity=("iid",),
        local_steps=(2,),
        rounds=10,
        seeds=3,
        n_nodes=2,
        dimension=64,
    )
    seen: list[tuple[int, int]] = []
    alone = run_sweep(sweep, report=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    with joblib.parallel_config(backend="threading"):
        threads = run_sweep(sweep, workers=2)
    for a, b in zip(alone, threads, strict=True):
        assert (a.theorem, a.verdict) == (b.theorem, b.verdict)
        np.testing.assert_array_equal([a.measured, a.bound], [b.measured, b.bound])


def test_a_file_of_ones_own_is_checked_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal(12)
    arrays: dict[str, Any] = {}
    for node, m in enumerate((3, 1, 4)):
        arrays[f"A{node}"] = random.standard_normal((m, 12))
        arrays[f"b{node}"] = arrays[f"A{node}"] @ x
    np.savez(tmp_path / "mine.npz", **arrays)
    out = tmp_path / "out.json"
    arguments = ["--data", str(tmp_path / "mine.npz"), "-K", "2", "--rounds", "10", "--quick"]
    assert run(monkeypatch, *arguments, "--json", str(out)) == 0
    checks = json.loads(out.read_text())["checks"]
    assert {c["problem"] for c in checks} == {"mine.npz"}
    assert {c["theorem"] for c in checks if c["verdict"] == HOLDS} >= {"T1", "T2", "T4'", "T6"}
    assert not [c for c in checks if c["verdict"] == FAILED]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"a": 1})

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(ValueError, match=r"cannot write .*No space left"):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_json_keeps_arrays_and_names_what_is_not_a_number() -> None:
    value = {"x": np.array([1.0, np.nan]), 2: (np.inf, -np.inf, np.int64(3), True)}
    assert files.plain(value) == {"x": [1.0, None], "2": ["inf", "-inf", 3, True]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"),
        (0.25, "0.25"),
        (1234.5, "1.23e+03"),
        (1e-5, "1.00e-05"),
        (np.nan, "-"),
        (np.inf, "inf"),
    ],
)
def test_numbers_in_tables_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
