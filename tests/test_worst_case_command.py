"""python -m theory.worst_case as a user meets it, and the sweep behind it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from worst_case_cells import make_cell

from theory.support import command as cli
from theory.worst_case import __main__ as worst_case
from theory.worst_case import rows as pep_rows
from theory.worst_case import tables as pep_tables
from theory.worst_case.cells import CHOICES, Cell, make_cells, standard_grid
from theory.worst_case.costs import memory_needed, seconds, seconds_left
from theory.worst_case.findings import findings
from theory.worst_case.many_local_steps import limit_rows
from theory.worst_case.outer_steps import BestPair
from theory.worst_case.routes import Route
from theory.worst_case.rows import HOLDS, TIME_LIMIT, Row, run_cells
from theory.worst_case.sentences import SENTENCES, sentence
from theory.worst_case.step_sizes import (
    best_step_sizes,
    one_step_rounds,
    tuned_one_step,
    tuned_one_step_rounds,
    tuned_steps,
)

PIPED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    cells = make_cells(CHOICES, (1, 2, 3, 4), (1, 2), (0.5, 1.0, 1.5), 0.1)
    return run_cells(cells, [2], None)


def run(*options: str, folder: Path) -> tuple[int, str, str]:
    """The command in another process, where its exit status and both streams are a user's."""
    process = subprocess.run(
        [sys.executable, "-m", "theory.worst_case", *options, "--cache", str(folder)],
        **PIPED,
    )
    return process.returncode, process.stdout, process.stderr


# ---- the command ---------------------------------------------------------------------------------


def test_a_small_run_prints_tables_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    status, out, err = run(
        "-K",
        "1,3",
        "-R",
        "1",
        "--step-size",
        "1",
        "--no-pepit",
        "--metric",
        "last,average_sync",
        "--nodes",
        "2,3",
        "--json",
        str(file),
        folder=tmp_path,
    )
    assert status == 0
    # On a busy machine a line of progress may come; nothing else does.
    assert all(line.startswith("worst cases: ") for line in err.splitlines())
    assert "0.076511" in out and "…" not in out and "0 FAILED" in out
    found = json.loads(file.read_text())
    assert {"hardware", "versions", "command", "commit", "units"} <= set(found)
    assert found["command"].startswith("python -m theory.worst_case -K 1,3")
    last = {
        (r["n"], r["local_steps"]): r["worst_case"] for r in found["rows"] if r["metric"] == "last"
    }
    assert last == pytest.approx(
        {(2, 1): 1 / 6, (3, 1): 1 / 6, (2, 3): 0.0765113, (3, 3): 0.0765113}, abs=1e-6
    )
    assert found["findings"] and found["limits"][0]["last"] == pytest.approx(0.125, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-K", "0"], "--local-steps is 0, allowed: integers of at least 1"),
        (["-K", ""], "--local-steps is '', allowed: integers"),
        (["-R", "two"], "--rounds is 'two', allowed: integers"),
        (["--step-size", "2"], "--step-size is 2.0, allowed: finite numbers of at least 1e-06"),
        (["--step-size", "nan"], "--step-size is nan"),
        (["--nodes", "1"], "--nodes is 1, allowed: integers from 2 to 100"),
        (["--metric", "median"], "--metric is 'median', allowed: last"),
        (["--growth", "1"], "--growth is 1"),
        (["--time-limit", "0"], "--time-limit is 0"),
        (["--metric", "distance", "--step-size", "1.5"], "nothing up to 1 / L"),
        (["-K", "100000"], "lower -K or -R"),
        (["-R", "1000000000"], "lower -K or -R"),
        (["--outer-steps", "-K", "0"], "--local-steps is 0"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With outer steps PEPit is not asked anyway.
    more = [] if "--outer-steps" in options else ["--no-pepit"]
    monkeypatch.setattr(sys, "argv", ["worst_case", *options, *more])
    with pytest.raises(SystemExit) as stopped:
        cli.run(worst_case.app, "python -m theory.worst_case")
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_json_into_a_folder_is_refused_before_anything_is_solved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["worst_case", "--json", str(tmp_path), "--no-pepit"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(worst_case.app, "python -m theory.worst_case")
    assert stopped.value.code == 2 and "is a directory" in capsys.readouterr().err


def test_a_missing_pepit_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worst_case.routes, "installed", lambda: False)
    monkeypatch.setattr(sys, "argv", ["worst_case", "--no-cache"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(worst_case.app, "python -m theory.worst_case")
    assert stopped.value.code == 2 and "pip install '.[pep]'" in capsys.readouterr().err


def test_a_failed_cell_is_status_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A bound of half the size, as an error in a proof would give.
    monkeypatch.setattr(pep_rows, "bound", lambda cell: 0.1)
    options = ["-K", "1", "-R", "1", "--step-size", "1", "--metric", "average_sync", "--no-pepit"]
    monkeypatch.setattr(sys, "argv", ["worst_case", *options, "--cache", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        cli.run(worst_case.app, "python -m theory.worst_case")
    out = capsys.readouterr().out
    assert stopped.value.code == 1
    assert "FAILED: average_sync n=2 K=1 R=1 eta=1/L: the worst case exceeds the bound" in out


# ---- limits of time and memory -------------------------------------------------------------------


def test_a_large_cell_respects_its_time_limit_and_nothing_solved_is_status_three(
    tmp_path: Path,
) -> None:
    options = ("-K", "900", "-R", "1", "--step-size", "1", "--metric", "last", "--no-pepit")
    begin = time.perf_counter()
    status, out, _ = run(*options, "--time-limit", "2", folder=tmp_path)
    # Imports and the limits of K to infinity take some of it; an iteration would take ten times as much.
    assert time.perf_counter() - begin < 60
    assert status == 3 and "TIME LIMIT: last n=2 K=900" in out


def test_memory_is_estimated_from_the_number_of_points() -> None:
    assert memory_needed(make_cell(12, 6)) < 200e6
    assert memory_needed(make_cell(3000, 1)) > 50e9
    sizes = [memory_needed(make_cell(k, 1)) for k in (10, 100, 1000)]
    assert sizes == sorted(sizes)


def test_the_forecast_comes_from_the_work_and_not_from_the_first_cell() -> None:
    work = [seconds(c) for c in standard_grid(0.1)]
    total = sum(work)
    # A first cell that compiles for ten seconds must not make it a forecast of days.
    assert seconds_left(work[0], total - work[0], 10.0) < 2 * total
    # Once half is done at half the speed of the model, the rest is forecast at about that speed.
    assert seconds_left(total / 2, total / 2, total) == pytest.approx(total, rel=0.1)
    assert 300 < total < 7200


# ---- findings and tables -------------------------------------------------------------------------


def test_findings_agree_with_what_holds_and_refute_what_is_changed(rows: list[Row]) -> None:
    found = findings(rows, limits=limit_rows((1, 2)))
    assert {f.about for f in found} >= {"C1", "S2", "S3", "use", "step", "K=inf", "T1", "T4'"}
    assert {f.key for f in found} <= set(SENTENCES)
    assert {f.standing for f in found} == {"proved", "conjectured", "observed"}
    # On this grid nothing but "never rises with K" at R = 1 can be wrong.
    assert {(f.key, f.standing) for f in found if f.agrees is False} <= {
        ("last.never_rises", "conjectured"),
        ("last.few_percent", "conjectured"),
    }
    changed = [
        replace(r, worst_case=r.worst_case * 1.01) if r.worst_case is not None else r for r in rows
    ]
    again = findings(changed)
    broken = {f.key for f in again if f.agrees is False}
    assert {"last.one_step", "last.two_steps", "mean_of_losses", "growth_of_mean.exact"} <= broken
    assert findings([]) == []


def test_a_sentence_has_its_finding_s_numbers(rows: list[Row]) -> None:
    for finding in findings(rows):
        text = sentence(finding)
        assert "None" not in text and "{" not in text
    (saved,) = (f for f in findings(rows) if f.key == "saved.most")
    assert f"{saved.value:.3f}" in sentence(saved) and str(saved.where) in sentence(saved)
    moved = replace(saved, value=saved.value + 1)
    assert f"{saved.value + 1:.3f}" in sentence(moved)


def test_one_step_rounds_invert_the_known_worst_cases() -> None:
    assert one_step_rounds(1 / 18) == pytest.approx(4.0)
    eta, value = tuned_one_step(4.0)
    assert value == pytest.approx(1 / (16 * eta + 2))
    assert value == pytest.approx((1 - eta) ** 8 / 2, rel=1e-9)
    assert tuned_one_step_rounds(value) == pytest.approx(4.0)


def test_the_best_step_size_falls_with_local_steps(rows: list[Row]) -> None:
    best = {(b.local_steps, b.rounds): b.step_size for b in best_step_sizes(rows)}
    assert best[1, 1] == 1.5 and best[3, 2] == 1.0
    assert len(best) == 8


def test_tuned_steps_improve_on_the_grid_and_match_the_closed_form(rows: list[Row]) -> None:
    def solve(cell: Cell) -> float:
        value = run_cells([cell], [2], None)[0].worst_case
        assert value is not None
        return value

    tuned = tuned_steps([r for r in rows if r.local_steps <= 2], solve, most_points=3)
    grid = {(b.local_steps, b.rounds): b.value for b in best_step_sizes(rows)}
    assert {(t.local_steps, t.rounds) for t in tuned} == {(2, 1)}
    (step,) = tuned
    assert step.value < grid[2, 1] - 1e-3 and 1 < step.step_size < 1.5
    assert step.one_step_rounds > 1.5
    # K = 1 has its best step at the edge of this grid; the closed form knows it.
    assert tuned_one_step(1.0) == pytest.approx((1.5, 0.125), abs=1e-9)


ROUTE = Route(
    n=2,
    local_steps=3,
    rounds=2,
    step_size=0.25,
    metric="average_local",
    outer_step=1.25,
    pepit=0.25,
    reduced=0.25,
    theoretical=0.25,
    pepit_seconds=100.0,
    reduced_seconds=0.1,
    verdict=HOLDS,
)
PAIR = BestPair(
    metric="last",
    local_steps=8,
    rounds=4,
    step_size=0.123,
    outer_step=1.456,
    value=0.0123456,
    certified=0.0123456,
    plain_step_size=0.345,
    plain_value=0.0234567,
    lower_bound=0.01,
    floor=0.011,
    one_step_rounds=7.0,
    solves=100,
)


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_a_terminal(rows: list[Row], width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    late = replace(rows[0], verdict=TIME_LIMIT, worst_case=None)
    for table in pep_tables.all_tables([*rows, late, replace(rows[-1], local_steps=12)]):
        console.print(table)
    several = [replace(r, n=n) for r in rows for n in (2, 30)]
    for table in pep_tables.all_tables(several):
        console.print(table)
    console.print(pep_tables.limit_table(limit_rows((1, 2))))
    console.print(pep_tables.step_table(best_step_sizes(rows)))
    console.print(pep_tables.finding_table(findings(rows)))
    console.print(pep_tables.route_table([ROUTE]))
    console.print(pep_tables.pair_table([PAIR]))
    text = console.export_text()
    assert "…" not in text and max(map(len, text.splitlines())) <= width


def test_a_table_says_holds_only_beside_a_bound_and_whose_it_is(rows: list[Row]) -> None:
    last = [r for r in rows if r.metric == "last"]
    console = Console(width=100, file=io.StringIO(), record=True)
    for table in pep_tables.all_tables(last):
        console.print(table)
    lines = [x for x in console.export_text().splitlines() if re.match(r" *\d+ +\d+ +[\d.]+ ", x)]
    cells = [r for r in last if r.theorem == "C1"]
    assert any("S2" in x for x in lines) and any("Kim 2024" in x for x in lines)
    shown = [x for x in lines if x.rstrip().endswith(("HOLDS", "observed"))]
    assert len(shown) >= len(cells)
    for line in shown:
        assert line.rstrip().endswith("HOLDS") == ("S2" in line or "Kim 2024" in line), line
    assert sum("observed" in x for x in shown) == sum(r.sharper is None for r in cells) > 0


def test_a_pipe_gets_a_wide_console(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert cli.console().width == cli.PIPE_WIDTH
