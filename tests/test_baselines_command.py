"""``python -m theory.baselines``: one screen wide, its JSON, its refusals, and the record's tables of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from figures.analysis.sources import Sources
from figures.record.baseline_tables import equal_budgets, rounds_to_eps
from theory import baselines
from theory.problems.generators import least_squares
from theory.support import command as cli
from theory.support.files import write_json

SMALL = [
    *("--quick", "-K", "2", "-R", "4", "-n", "2", "-d", "16"),
    *("--eps", "0.1", "--seeds", "2", "--most", "64"),
]


def run(*arguments: str) -> int:
    return cli.run_command(baselines.app, "python -m theory.baselines", list(arguments))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("made") / "baselines.json"
    assert run(*SMALL, "--json", str(path)) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_tables_fit_80_columns_and_say_how_to_read_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(*SMALL, "--heterogeneity", "iid") == 0
    shown = capsys.readouterr().out
    assert all(len(line.rstrip()) <= 80 for line in shown.splitlines())
    tables = shown.split("step L:")[0]
    for name in ("SCAFFOLD I", "SCAFFOLD II", "FedProx", "one-shot averaging", "mini-batch SGD"):
        assert name in tables
    assert "no bias to remove" in shown and tables.isascii()


def test_the_json_holds_every_method_with_its_budgets(made: dict[str, Any]) -> None:
    assert list(made)[:4] == ["hardware", "versions", "command", "commit"]
    assert set(made["rounds_to_eps"]) == {"iid", "sorted"}
    methods = [row["method"] for row in made["rounds_to_eps"]["iid"]]
    assert methods[0] == "Local SGD" and len(methods) == len(set(methods)) == 13
    budgets = {(r["method"], r["budget"]) for r in made["equal_budgets"]}
    assert len(budgets) == 13 and ("one-shot averaging", "equal computation") in budgets


def test_the_same_seed_gives_the_same_result(made: dict[str, Any], tmp_path: Path) -> None:
    for seed in ("0", "1"):
        path = tmp_path / "again.json"
        assert run(*SMALL, "--heterogeneity", "iid", "--seed", seed, "--json", str(path)) == 0
        again = json.loads(path.read_text())
        same = again["rounds_to_eps"]["iid"] == made["rounds_to_eps"]["iid"]
        assert same == (seed == "0")


def test_ones_own_nodes_are_compared_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = least_squares(n_nodes=2, samples_per_node=3, dimension=12)
    arrays: dict[str, Any] = {}
    for i in range(2):
        arrays[f"A{i}"] = problem.features[problem.node_slice(i)]
        arrays[f"b{i}"] = problem.targets[problem.node_slice(i)]
    np.savez(tmp_path / "mine.npz", **arrays)
    assert run("--data", str(tmp_path / "mine.npz"), *SMALL[:5], *SMALL[-6:]) == 0
    assert capsys.readouterr().out.count("mine.npz, given") == 1


def test_an_accuracy_out_of_reach_is_undecided() -> None:
    assert run(*SMALL[:-6], "--eps", "1e-300", "--most", "3", "--seeds", "2") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-K", "0"], "K (local steps) is 0, allowed: integers of at least 1"),
        (["--eps", "nan"], "eps is nan, allowed: finite numbers above 0"),
        (["--eps", "0"], "eps is 0.0, allowed"),
        (["-R", "0"], "rounds is 0, allowed"),
        (["--seeds", "1"], "seeds is 1, allowed"),
        (["--seed", "-1"], "seed is -1, allowed"),
        (["-K", "100000"], "K R (all iterations) is 51200000, allowed"),
        (["--problem", "nothing"], "problem is 'nothing', allowed: few-samples"),
        (["--problem", "separable"], "separable logistic has no minimiser, allowed"),
        (["--heterogeneity", "mixed"], "heterogeneity is 'mixed', allowed: iid"),
        (["--loss", "squared"], "--loss is squared, allowed with --data only"),
        (["--data", "nowhere.npz"], "no file nowhere.npz"),
        (["-n", "0"], "n_nodes is 0, allowed"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--quick", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_records_tables_say_what_the_file_says(made: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "theory/results/baselines.json", made)
    rounds, budgets = rounds_to_eps(Sources(tmp_path)), equal_budgets(Sources(tmp_path))
    assert len(rounds.rows) == len(budgets.rows) == 13
    plain = made["rounds_to_eps"]["iid"][0]
    assert rounds.rows[0][1].startswith(f"{plain['rounds']:,.0f} [")
    named = {row[0]: row for row in rounds.rows}
    assert named["SCAFFOLD II"][-1] == named["FedProx"][-1] == "-"
    assert re.fullmatch(r"[\d,]+ / [\d,]+ \(T\d.*\)", named["Local SGD"][-1])
    assert named["accelerated GD"][-1].endswith("(Nesterov)")
    sampled = {row[0] for row in budgets.rows if "[" in row[-1]}
    assert {name.split(",")[0] for name in sampled} == {"FedProx", "SCAFFOLD I", "SCAFFOLD II"}


def test_a_method_that_does_not_arrive_is_said_not_to(made: dict[str, Any], tmp_path: Path) -> None:
    made = json.loads(json.dumps(made))
    made["rounds_to_eps"]["iid"][0]["rounds"] = None
    write_json(tmp_path / "theory/results/baselines.json", made)
    assert rounds_to_eps(Sources(tmp_path)).rows[0][1] == "not reached"
