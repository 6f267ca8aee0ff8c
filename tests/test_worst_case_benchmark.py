"""benchmarks/worst_case_solvers.py: the sample of the grid, the total, and the rule."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from worst_case_cells import make_cell, needs_clarabel

from theory.worst_case.cells import standard_grid

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "worst_case_solvers.py"


@pytest.fixture(scope="module")
def solvers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worst_case_solvers", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@needs_clarabel
def test_both_solve_the_same_cell_to_the_same_value(solvers: ModuleType) -> None:
    found = solvers.compare(make_cell(3, 2), 60.0, True)
    assert found.ours_finished and found.clarabel_finished
    assert found.difference < 1e-8 and found.ours > 0 and found.clarabel > 0
    assert max(found.ours_gap, found.clarabel_gap) < 1e-7


@needs_clarabel
def test_what_is_not_finished_in_time_is_said(solvers: ModuleType) -> None:
    late = solvers.compare(make_cell(4, 4), 1e-6, False)
    assert not late.ours_finished and not late.clarabel_finished and late.difference is None
    with pytest.raises(ValueError, match="a longer --time-limit"):
        solvers.total([late])


def test_the_sample_has_every_size_as_often_as_the_grid(solvers: ModuleType) -> None:
    grid = standard_grid(0.1)
    assert sorted(solvers.sample(grid, 1), key=repr) == sorted(grid, key=repr)
    chosen = solvers.sample(grid, 8)
    assert len(chosen) == len(set(chosen)) == len(grid) // 8
    for part in range(len(solvers.PARTS)):
        share = sum(solvers.part_of(c) == part for c in grid) / 8
        assert abs(sum(solvers.part_of(c) == part for c in chosen) - share) <= 1


def test_the_rule_decides_by_the_ratio_of_the_totals(solvers: ModuleType) -> None:
    one = solvers.Comparison(
        metric="last",
        local_steps=1,
        rounds=1,
        step_size=1.0,
        points=2,
        part=0,
        ours=1.0,
        clarabel=0.5,
        ours_finished=True,
        clarabel_finished=True,
        difference=0.0,
        ours_gap=0.0,
        clarabel_gap=0.0,
    )
    large = replace(one, part=4, ours=9.0, clarabel=29.5)
    outcome = solvers.total([one, large])
    assert outcome.ratio == pytest.approx(3.0) and outcome.stays
    assert not solvers.total([one, replace(large, clarabel=29.0)]).stays
    # Who does not finish counts with the time spent; what neither finishes says nothing.
    late = solvers.total([one, replace(large, ours_finished=False)])
    assert (late.ours, late.ours_unfinished) == (10.0, 1)
    assert solvers.total([one, replace(large, clarabel_finished=False)]).clarabel_unfinished == 1
    neither = replace(large, ours_finished=False, clarabel_finished=False)
    assert solvers.total([one, neither]) == solvers.total([one])
