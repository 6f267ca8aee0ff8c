"""benchmarks/worst_case_solvers.py: the sample, the whole grid from it, and the rule."""

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
        solvers.whole_grid([late], standard_grid(0.1))


def test_the_sample_is_spread_over_every_part_of_the_grid(solvers: ModuleType) -> None:
    grid = standard_grid(0.1)
    chosen = solvers.sample(grid, 3)
    assert len(chosen) == len(set(chosen)) == 15
    assert [solvers.part_of(c) for c in chosen] == sorted([0, 1, 2, 3, 4] * 3)
    assert solvers.sample(grid, 10_000) == grid


def test_the_whole_grid_weighs_each_part_by_its_cells_and_decides_by_the_rule(
    solvers: ModuleType,
) -> None:
    grid = standard_grid(0.1)
    counts = [sum(solvers.part_of(c) == part for c in grid) for part in range(5)]
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
    large = replace(one, part=4, ours=10.0, clarabel=50.0)
    outcome = solvers.whole_grid([one, replace(one, ours=3.0), large], grid)
    assert outcome.ours == pytest.approx(2 * counts[0] + 10 * counts[4])
    assert outcome.clarabel == pytest.approx(0.5 * counts[0] + 50 * counts[4])
    assert outcome.stays == (outcome.ratio >= 3)
    assert not solvers.whole_grid([one], grid).stays
    assert solvers.whole_grid([replace(one, clarabel=3.0)], grid).stays
    # A cell that ours did not finish says nothing; one that CLARABEL did not is counted and said.
    lost = replace(large, ours_finished=False)
    assert solvers.whole_grid([one, lost], grid).ratio == pytest.approx(0.5)
    assert solvers.whole_grid([replace(large, clarabel_finished=False)], grid).unfinished == 1
