"""The sweep behind python -m theory.worst_case: kept cells, time limits, order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worst_case_cells import make_cell

from theory.support.verdicts import UNDECIDED
from theory.worst_case import rows as pep_rows
from theory.worst_case.cells import Cell, make_cells, standard_grid
from theory.worst_case.constraints import SolverError
from theory.worst_case.rows import FAILED, HOLDS, TIME_LIMIT, Row, run_cells


def same_numbers(a: list[Row], b: list[Row]) -> bool:
    return [replace(r, seconds=0.0) for r in a] == [replace(r, seconds=0.0) for r in b]


def test_kept_cells_are_the_same_to_the_last_digit(tmp_path: Path) -> None:
    """Half a sweep, then all of it; kill -9 is in ``test_kills.py``."""
    cells = make_cells(("last", "best"), (1, 2), (1, 2), (1.0,), 0.1)
    run_cells(cells[:3], [2], tmp_path)
    started: list[Cell] = []
    resumed = run_cells(
        cells, [2], tmp_path, report=lambda cell, done: None if done else started.append(cell)
    )
    assert started == cells and len(list(tmp_path.glob("*.json"))) == len(cells)
    assert same_numbers(resumed, run_cells(cells, [2], None))
    # From the cache alone they come at once and are the same to the last digit.
    assert run_cells(cells, [2], tmp_path) == resumed


def test_a_broken_cache_file_is_solved_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [make_cell(2, 1)]
    first = run_cells(cells, [2], tmp_path)
    (file,) = tmp_path.glob("*.json")
    whole = file.read_text()
    assert capsys.readouterr().err == ""
    for text in (
        "",
        "[]",
        '{"rows": []}',
        '{"rows": [{"n": 2}]}',
        whole.replace('"worst_case": 0.', '"worst_case": "0."+'),
        whole.replace('"attained": 0.', '"attained": [0], "more": 0.'),
        whole.replace('"n": 2', '"n": 5'),
    ):
        assert text != whole
        file.write_text(text)
        assert same_numbers(run_cells(cells, [2], tmp_path), first)
        assert capsys.readouterr().err == f"{file} is damaged: its cell is solved again\n"
    assert json.loads(file.read_text())["rows"][0]["worst_case"] == first[0].worst_case


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, text=True
    )
    from theory.support import files

    dead, alive = (
        tmp_path / f".cell.json.{files._host()}-{pid}-0123abcd.part"
        for pid in (gone.stdout.strip(), os.getpid())
    )
    dead.write_text("half")
    alive.write_text("half")
    run_cells([make_cell(1, 1)], [2], tmp_path)
    assert not dead.exists() and alive.exists()


def test_verdicts_of_kept_cells_are_judged_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [make_cell(2, 1, 1.0, "average_sync")]
    assert run_cells(cells, [2], tmp_path)[0].verdict == HOLDS
    monkeypatch.setattr(pep_rows, "bound", lambda cell: 0.1)
    assert run_cells(cells, [2], tmp_path)[0].verdict == FAILED


def test_a_cell_out_of_time_has_no_number_and_is_tried_again_with_more(tmp_path: Path) -> None:
    cells = [make_cell(4, 3, 1.0, "last")]
    (row,) = run_cells(cells, [2], tmp_path, time_limit=1e-9)
    assert (row.verdict, row.worst_case, row.certified) == (TIME_LIMIT, None, None)
    assert run_cells(cells, [2], tmp_path, time_limit=1e-9) == [row]
    (solved,) = run_cells(cells, [2], tmp_path, time_limit=60)
    assert solved.verdict == HOLDS
    # And once solved it stays so, whatever the limit.
    assert run_cells(cells, [2], tmp_path, time_limit=1e-9) == [solved]


def test_a_cell_that_does_not_converge_is_undecided_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise SolverError("not converged: a test")

    monkeypatch.setattr(pep_rows, "worst_case", fail)
    (row,) = run_cells([make_cell(2, 1, 1.0, "last")], [2], tmp_path)
    assert (row.verdict, row.worst_case, row.why) == (UNDECIDED, None, "not converged: a test")
    assert not list(tmp_path.glob("*.json"))


def test_the_standard_grid_has_each_cell_once_cheapest_first() -> None:
    cells = standard_grid(0.1)
    assert len(cells) == len(set(cells)) == 1120
    assert [c.points for c in cells] == sorted(c.points for c in cells)
    assert max(c.local_steps for c in cells if c.rounds == 6) == 12


def test_the_order_of_the_rows_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "from theory.worst_case.cells import standard_grid\n"
        "for cell in standard_grid(0.1): print(cell)\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2")
    ]
    assert len(outputs[0].splitlines()) == 1120
    assert outputs[0] == outputs[1] == outputs[2]
