"""Fixed outer steps: the search finds the best pair, resumes, and its findings follow from the pairs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worst_case_cells import make_cell

from theory.support import command as cli
from theory.worst_case import __main__ as worst_case_command
from theory.worst_case import outer_steps, record
from theory.worst_case.closed_forms import crossing_floor, gradient_descent
from theory.worst_case.outer_document import outer_section
from theory.worst_case.outer_findings import outer_findings
from theory.worst_case.outer_steps import OuterSteps, Solver, sweep, tune
from theory.worst_case.reduction import worst_case
from theory.worst_case.sentences import SENTENCES, sentence
from theory.worst_case.step_sizes import tuned_one_step


@pytest.fixture(scope="module")
def small_grid() -> Iterator[pytest.MonkeyPatch]:
    patch = pytest.MonkeyPatch()
    patch.setattr(outer_steps, "ETAS", (0.7, 1.0, 1.2))
    patch.setattr(outer_steps, "BETAS", (1.0, 1.2, 1.35))
    patch.setattr(outer_steps, "MAP_ETAS", (0.5, 1.0))
    patch.setattr(outer_steps, "MAP_BETAS", (1.0, 1.5))
    yield patch
    patch.undo()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outer")


@pytest.fixture(scope="module")
def found(small_grid: pytest.MonkeyPatch, cache: Path) -> OuterSteps:
    return sweep(cache, (1, 2), (1,), maps=((2, 1),), quiet=True)


def test_no_pair_around_the_best_one_is_better(found: OuterSteps) -> None:
    (pair,) = (p for p in found.pairs if p.metric == "last" and p.local_steps == 2)
    assert pair.outer_step > 1.1 and pair.gain > 0.1
    assert pair.certified == pytest.approx(pair.value, abs=1e-7)
    for eta in np.linspace(pair.step_size - 0.15, pair.step_size + 0.15, 4):
        for beta in np.linspace(pair.outer_step - 0.15, pair.outer_step + 0.15, 4):
            around = worst_case(make_cell(2, 1, float(eta), outer_step=float(beta))).value
            assert around > pair.value - 1e-6
    plain = worst_case(make_cell(2, 1, pair.plain_step_size)).value
    assert plain == pytest.approx(pair.plain_value, abs=1e-8)
    assert pair.lower_bound < crossing_floor(1) == pair.floor < pair.value


def test_one_local_step_is_gradient_descent_at_its_best_step(found: OuterSteps) -> None:
    (pair,) = (p for p in found.pairs if p.metric == "last" and p.local_steps == 1)
    eta, value = tuned_one_step(1)
    assert pair.step_size == pytest.approx(eta) and pair.value == pytest.approx(value, abs=1e-8)
    assert value == pytest.approx(gradient_descent(eta, 1)) and pair.gain == 0
    assert found.one_step_check[0] < 1e-7


def test_the_best_iterate_is_no_better_than_the_last_one(found: OuterSteps) -> None:
    last, best = (
        next(p for p in found.pairs if (p.metric, p.local_steps) == (m, 2))
        for m in ("last", "best")
    )
    assert best.value == pytest.approx(last.value, rel=1e-3)


def test_a_sweep_resumes_to_the_same_numbers_without_solving(
    found: OuterSteps, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("solved again")

    monkeypatch.setattr(outer_steps, "worst_case", fail)
    assert sweep(cache, (1, 2), (1,), maps=((2, 1),), quiet=True) == found
    # A damaged value alone is solved again.
    path = next(iter(sorted(cache.glob("outer-*.json"))))
    whole = path.read_text()
    path.write_text("{")
    with pytest.raises(AssertionError, match="solved again"):
        sweep(cache, (1, 2), (1,), maps=((2, 1),), quiet=True)
    path.write_text(whole)


def test_from_a_neighbour_the_search_ends_at_the_same_pair(found: OuterSteps, cache: Path) -> None:
    (pair,) = (p for p in found.pairs if p.metric == "last" and p.local_steps == 2)
    near = replace(pair, step_size=pair.step_size + 0.05, outer_step=pair.outer_step - 0.05)
    again = tune("last", 2, 1, Solver(cache), near)
    assert again.value == pytest.approx(pair.value, rel=1e-3)


def test_findings_and_their_page_follow_from_the_pairs(found: OuterSteps) -> None:
    findings = outer_findings(found)
    assert {f.key for f in findings} <= set(SENTENCES) and len(findings) > 10
    assert not [f for f in findings if f.agrees is False]
    for finding in findings:
        assert "None" not in sentence(finding)
    pair = next(p for p in found.pairs if (p.metric, p.local_steps) == ("last", 2))
    page = "\n".join(outer_section(found))
    assert f"{pair.value:.5f}" in page and f"{pair.outer_step:.3f}" in page
    # What would be wrong is refuted: a pair below what is proved, a best iterate below the last.
    below = [replace(p, certified=p.floor / 2) for p in found.pairs]
    wrong = {f.key for f in outer_findings(replace(found, pairs=below)) if f.agrees is False}
    assert wrong == {"outer.floor"}
    better = [replace(p, value=p.value * (0.9 if p.metric == "best" else 1)) for p in found.pairs]
    wrong = {f.key for f in outer_findings(replace(found, pairs=better)) if f.agrees is False}
    assert wrong == {"outer.best_is_last"}
    check = replace(found, one_step_check=(1e-3, 1))
    assert {f.key for f in outer_findings(check) if f.agrees is False} == {"outer.one_step"}


def test_the_command_writes_what_was_found(
    found: OuterSteps,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "outer.json"
    options = ["--outer-steps", "-K", "1", "-K", "2", "-R", "1", "--cache", str(cache)]
    monkeypatch.setattr(sys, "argv", ["worst_case", *options, "--json", str(file)])
    with pytest.raises(SystemExit) as stopped:
        cli.run(worst_case_command.app, "python -m theory.worst_case")
    out = capsys.readouterr().out
    assert stopped.value.code == 0 and "Step size and outer step" in out
    again = record.read_outer_steps(file)
    assert again.pairs == found.pairs and again.maps == []
    content = json.loads(file.read_text())
    assert content["pairs"][-1]["gain"] == pytest.approx(again.pairs[-1].gain)
    assert {"hardware", "commit", "units", "findings"} <= set(content)


def test_a_kept_cell_without_a_number_is_solved_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [outer_steps.sweep(tmp_path, (1,), (1,), maps=()).pairs[0].value]
    damaged = sorted(tmp_path.glob("outer-*.json"))
    for path, content in zip(
        damaged, ['{"value": NaN, "certified": NaN}', "{}", "[1]"], strict=False
    ):
        path.write_text(content)
    values.append(outer_steps.sweep(tmp_path, (1,), (1,), maps=()).pairs[0].value)
    assert values[1] == pytest.approx(values[0], abs=1e-9)
    assert capsys.readouterr().err.count("is damaged: its cell is solved again") == 3
