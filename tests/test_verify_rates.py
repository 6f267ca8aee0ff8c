"""``python -m theory.verify_rates``: verdicts, exit statuses, files, and one line for every mistake."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from theory import verify_rates
from theory.support import command as cli
from theory.support import files
from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE, OBSERVED, UNDECIDED
from theory.theorems import THEOREMS
from theory.verification.report import Report
from theory.verification.sweep import Sweep, cells, run_sweep
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
    assert run(monkeypatch, "--quick", *SMALL, "--details", *options) == 0
    printed = capsys.readouterr().out
    found = json.loads(files["--json"].read_text())
    assert found["failed"] == 0 and "0 FAILED" in printed
    held = {c["theorem"] for c in found["checks"] if c["verdict"] == HOLDS}
    assert held >= {t.name for t in THEOREMS}
    assert all(c["why"] for c in found["checks"] if c["verdict"] == UNDECIDED)
    assert all(c["why"] for c in found["not_applicable"])
    for title in (
        "T4: left side and bound",
        "Not applicable:",
        "Tightness:",
        "Sharper:",
        "Theorems:",
        "Order:",
        "Communication: rounds until",
        "Communication: rounds to eps that the theorem's bound needs",
    ):
        assert title in printed
    assert {"hardware", "versions", "command", "commit"} <= found.keys()
    assert found["command"].endswith(f"--csv {files['--csv']}")
    with files["--csv"].open() as file:
        rows = list(csv.DictReader(file))
    applicable = [r for r in rows if r["verdict"] != NOT_APPLICABLE]
    assert len(rows) - len(applicable) == len(found["not_applicable"])
    assert [r["verdict"] for r in applicable] == [c["verdict"] for c in found["checks"]]
    assert [float(r["bound"]) for r in applicable] == [c["bound"] for c in found["checks"]]
    # T0 on every path of every convex problem.
    t0 = [c for c in found["checks"] if c["theorem"] == "T0"]
    convex = {"least squares", "least squares, power law 1", "realizable logistic", "I0", "I3"}
    assert {c["problem"] for c in t0} == convex and {c["verdict"] for c in t0} == {HOLDS}
    assert all(c["how"].startswith("worst of") for c in t0)
    # The claim beside O(1/sqrt(nT)): a factor a family, and what it shows and does not.
    assert all(s["undercut"] > 1 for s in found["slopes"] if s["predicted"] == -1)
    assert "nor of n" in found["undercut_reading"]


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_broken_hypothesis_exits_1(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # One-shot averaging over many steps, so that each violation has time to show.
    options = ["--rounds", "40", "--seeds", "4", "-n", "2", "-d", "64", "-K", "20"]
    names = "least-squares,I0,I3"
    assert run(monkeypatch, *options, "--problem", names, "--break", name) == 1
    closing = capsys.readouterr().out.split("checks hold, ")[1]
    assert int(closing.split()[0]) > 0 and "FAILED" in closing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-K", "0"], "K (local steps) is 0, allowed: integers of at least 1"),
        (["-K", ""], "K (local steps) is '', allowed: integers"),
        (["-K", "1,2.5"], "K (local steps) is '2.5', allowed: integers"),
        (["--step-size", "0"], "step size in units of 1/L is 0.0, allowed: finite numbers above 0"),
        (["--step-size", "nan"], "step size in units of 1/L is nan"),
        (["--rounds", "-3"], "rounds is -3, allowed: integers of at least 1"),
        (["--seeds", "1"], "seeds is 1, allowed: integers from 2 to 1000000"),
        (["--seed", str(2**64)], f"problem seed is {2**64}, allowed"),
        (["-n", "0"], "n (nodes) is 0, allowed: integers of at least 1"),
        (["-d", "10"], "dimension is 10, allowed: integers of at least 80"),
        (["--theorem", "T9"], "theorem 'T9', allowed: T0"),
        (["--problem", "lasso"], "problem is 'lasso', allowed: least-squares"),
        (["--heterogeneity", "none"], "heterogeneity is 'none', allowed: iid"),
        (["--engine", "cuda"], "engine is 'cuda', allowed: auto, exact"),
        (["--workers", "0"], "workers is 0, allowed"),
        (["--break", "nothing"], "--break is 'nothing', allowed: step-size"),
        (["--loss", "logistic"], "--loss is logistic, allowed with --data only"),
        (["--engine", "exact"], "engine is exact, allowed for --problem least-squares"),
        (["--explain", "T9"], "theorem 'T9', allowed: T0"),
        (["--json", "both", "--csv", "./both"], "--json and --csv are both"),
        (["--data", "missing.npz"], "no file missing.npz"),
        (["--rounds", "many"], "--help"),
        (["--no-such-option"], "No such option"),
        (["--json", "/dev/null/x.json"], "--json is /dev/null/x.json: Not a directory"),
        (["-m", "0"], "participants is 0, allowed: integers from 1 to 5"),
        (["-m", "6"], "participants is 6, allowed: integers from 1 to 5"),
        (["--outer-step", "0"], "outer_step is 0.0, allowed: a finite number above 0"),
        (["--outer-step", "nan"], "outer_step is nan"),
        (["--outer-step", "fast"], "outer_step is 'fast'"),
        (["--order", "sorted"], "order is 'sorted', allowed: uniform, reshuffled"),
        (["--variant", "missing.py:X"], "variant file 'missing.py': No such file"),
        (["--variant", "x"], "variant is 'x', allowed: file.py:NAME"),
        (["--variant", "x.py:X", "-m", "2"], "--variant is given beside --participants"),
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


def test_lists_are_typed_with_commas_or_repeated_and_no_explicit_number_is_capped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Sweep] = []

    def remember(sweep: Sweep, **_: Any) -> Report:
        asked.append(sweep)
        return Report(sweep, [])

    monkeypatch.setattr(verify_rates, "make_report", remember)
    assert run(monkeypatch, "-K", "1,5", "--step-size", "0.5,1.9", "--theorem", "T2,T4") == 3
    assert run(monkeypatch, "-K", "1", "-K", "5", "--local-steps", "1") == 3
    assert run(monkeypatch, "--quick") == 3
    assert run(monkeypatch, "--quick", "-R", "700", "--seeds", "99") == 3
    commas, repeated, quick, explicit = asked
    assert commas.local_steps == repeated.local_steps == (1, 5)
    assert commas.step_factors == (0.5, 1.9) and commas.theorems == ("T2", "T4", "T4'")
    assert (quick.rounds, quick.seeds) == (50, 12)
    assert (explicit.rounds, explicit.seeds) == (700, 99)


def test_a_theorem_alone_prints_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "t2.json"
    arguments = ["--theorem", "T2", "--quick", *SMALL, "--details", "--json", str(out)]
    assert run(monkeypatch, *arguments) == 0
    content = json.loads(out.read_text())
    for kind in ("checks", "tightness", "slopes", "communication", "summary"):
        assert {row["theorem"] for row in content[kind]} == {"T2"}, kind
    assert content["clients"] == content["outer_steps"] == []
    assert "baselines" not in content
    assert not re.search(r"\bT[013456]\b", capsys.readouterr().out.split("--details")[0])


def test_clients_and_outer_steps_come_with_their_theorems(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "t7.json"
    arguments = ["--theorem", "T7,T8a", "--quick", *SMALL, "--json", str(out)]
    assert run(monkeypatch, *arguments) == 0
    content = json.loads(out.read_text())
    # I1: the mean of both nodes needs the 200 rounds it was made for, a rule one; bounds by hand.
    counts = {r["clients"]: r["rounds"] for r in content["clients"]}
    assert counts[2] == 200 < counts[1]
    needed = 1 / (2 * content["clients"][0]["accuracy"])
    assert [r["bound"] for r in content["clients"]] == [pytest.approx(needed)] * 2
    steps = {r["outer_step"]: r for r in content["outer_steps"]}
    assert steps["extrapolated"]["rounds"] == 1 and steps["extrapolated"]["verdict"] == OBSERVED
    assert steps[0.5]["bound"] == pytest.approx(2 * needed) and steps[0.5]["verdict"] == HOLDS
    assert steps[2.0]["bound"] is None and steps[2.0]["verdict"] == OBSERVED
    printed = capsys.readouterr().out
    assert "Clients: rounds to eps" in printed and "Outer steps: rounds to eps" in printed


def test_nothing_applicable_is_said_and_exits_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--theorem", "T5", "--problem", "least-squares", *SMALL) == 3
    assert "Nothing could be decided" in capsys.readouterr().out


def test_help_version_and_explanations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert re.fullmatch(r"local-sgd-rates \d[\w.]*\n", capsys.readouterr().out)
    assert run(monkeypatch, "-h") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for piece in ("columns node, target", "multiple of 1/L", "--details", "--explain"):
        assert piece in shown
    assert run(monkeypatch, "--explain", "T2") == 0
    text = capsys.readouterr().out
    assert text.startswith("T2:") and "Proof" in text and max(map(len, text.splitlines())) <= 80


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
    # Two problems, with stochastic and with full gradients.
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with joblib.parallel_config(backend="threading"):
        threads = run_sweep(sweep, workers=2)
    for a, b in zip(alone, threads, strict=True):
        assert (a.theorem, a.verdict) == (b.theorem, b.verdict)
        np.testing.assert_array_equal([a.measured, a.bound], [b.measured, b.bound])


def own_file(folder: Path, labels: str = "margins") -> Path:
    """Three ragged nodes; labels that x* fits, or coin flips."""
    random = np.random.default_rng(0)
    x = random.standard_normal(12)
    arrays: dict[str, Any] = {}
    for node, m in enumerate((3, 1, 4)):
        arrays[f"A{node}"] = random.standard_normal((m, 12))
        arrays[f"b{node}"] = arrays[f"A{node}"] @ x
    if labels == "noise":
        arrays["A0"] = np.vstack([arrays["A0"], arrays["A0"]])
        arrays |= {f"b{i}": np.sign(b) for i, b in enumerate((0, arrays["b1"], arrays["b2"])) if i}
        arrays["b0"] = np.array([1.0, 1.0, -1.0, -1.0, 1.0, 1.0])
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


def test_a_file_of_ones_own_is_checked_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    arguments = ["--data", str(own_file(tmp_path)), "-K", "2", "--rounds", "10"]
    assert run(monkeypatch, *arguments, "--json", str(out)) == 0
    content = json.loads(out.read_text())
    checks = content["checks"]
    assert {c["problem"] for c in checks} == {"mine.npz"} and content["data_name"] == "mine.npz"
    assert {c["theorem"] for c in checks if c["verdict"] == HOLDS} >= {"T1", "T2", "T4'", "T6"}
    assert not [c for c in checks if c["verdict"] == FAILED]
    assert content["tightness"] == content["slopes"] == content["communication"] == []
    printed = capsys.readouterr().out
    head = " ".join(printed.split("Theorems:")[0].split())
    assert "mine.npz: n = 3 nodes, N = 8 samples (1 to 4 a node), d = 12" in head
    assert re.search(r"L = [\d.]+, c = 0, mu = 0 \(every node\), [\d.]+ \(their mean\)", head)
    assert "Order" not in printed and "Communication" not in printed


def test_labels_that_nothing_separates_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(own_file(tmp_path, "noise"))
    arguments = ["--data", path, "--loss", "logistic", "-K", "2", "--rounds", "10", "--details"]
    assert run(monkeypatch, *arguments) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"the best attainable loss is 0\.\d+, and the theorems need 0", printed)
    assert "Nothing could be decided" in printed


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


def test_a_theorem_of_a_file_is_checked_as_ours_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\nfrom theory.theorems import T2\nX = 3\n"
        "BOLD = replace(T2, name='T2/3', bound=lambda p, s, t: T2.bound(p, s, t) / 3)\n"
    )
    arguments = ["--problem", "I0", "-K", "1", "-R", "10"]
    assert run(monkeypatch, "--theorem", f"{file}:BOLD", *arguments) == 1
    assert "T2/3" in capsys.readouterr().out
    assert run(monkeypatch, "--theorem", f"{file}:X", *arguments) == 2
    assert "allowed: a Theorem" in capsys.readouterr().err


OWN_VARIANT = """
from theory.simulation.variants import Variant

class Damped(Variant):
    name = "half steps"

    def outer_step(self, reports):
        return 0.5
"""


def test_a_variant_from_a_file_is_checked_with_workers_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, table = tmp_path / "own.py", tmp_path / "own.csv"
    own.write_text(OWN_VARIANT)
    options = ["--problem", "least-squares", "--theorem", "T2", "-K", "2", "--rounds", "10"]
    options += ["--gradient", "full", "--variant", f"{own}:Damped", "--workers", "2"]
    assert run(monkeypatch, *options, "--csv", str(table)) == 0
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == 3 and {r["variant"] for r in rows} == {"half steps"}
    assert {r["verdict"] for r in rows} == {HOLDS}


def test_clients_and_outer_step_are_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.csv"
    options = ["--problem", "least-squares,I0", "--theorem", "T1,T2,L2", "-K", "2"]
    options += ["--rounds", "10", "--seeds", "4", "-m", "2", "--outer-step", "extrapolated"]
    assert run(monkeypatch, *options, "--csv", str(path)) == 0
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    # I0 has one node, and so no more clients.
    assert {r["variant"] for r in rows if r["problem"] == "I0"} == {
        "FedAvg, 1 nodes a round, outer step extrapolated"
    }
    assert {r["verdict"] for r in rows} == {HOLDS}
