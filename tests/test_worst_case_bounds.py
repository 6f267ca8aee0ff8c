"""Bounds beside the exact worst cases: none is exceeded, and a wrong one is caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worst_case_cells import make_cell

from theory.theorems.t2_synchronised import least_last_loss
from theory.worst_case.cells import CHOICES, make_cells
from theory.worst_case.closed_forms import (
    bound,
    crossing_floor,
    instance,
    sharper_bound,
    theorem_of,
)
from theory.worst_case.reduction import worst_case
from theory.worst_case.rows import EXACT, FAILED, HOLDS, UPPER, judge, solve_cell


def test_nothing_exceeds_its_bound_on_a_grid() -> None:
    cells = make_cells(CHOICES, (1, 2, 3), (1, 2), (0.25, 0.75, 1.0, 1.5), 0.2)
    assert {theorem_of(c) for c in cells} == {"T1", "T2", "T3", "T4", "T4'", "C1"}
    exact = set()
    for cell in cells:
        value = worst_case(cell).value
        ours, sharper = bound(cell), sharper_bound(cell)
        if ours is not None:
            assert value <= ours + 1e-8, cell
        if sharper is not None:
            assert value <= sharper.value + 1e-8, cell
            assert ours is None or sharper.value <= ours + 1e-12, cell
            if sharper.exact:
                assert value == pytest.approx(sharper.value, abs=1e-7), cell
                exact.add(sharper.source)
        assert instance(cell)[0] <= value + 1e-7, cell
    assert exact == {"S1", "S4", "S5", "Kim 2024"}


def test_the_sharper_t2_is_exact_at_one_over_l_and_for_one_round() -> None:
    for k in (1, 3):
        known = sharper_bound(make_cell(k, 2, 1.0, "average_sync"))
        assert known is not None and known.value == pytest.approx(0.25)
    for step_size in (0.3, 1.7):
        known = sharper_bound(make_cell(3, 1, step_size, "average_sync"))
        assert known is not None and known.value == pytest.approx(0.5) and known.source == "S1"
    many = sharper_bound(make_cell(20, 2, 0.5, "average_sync"))
    assert many is not None and many.value == pytest.approx(0.25, rel=1e-5)
    cell = make_cell(3, 2, 0.5, "average_sync")
    sharper = sharper_bound(cell)
    assert sharper is not None and sharper.value / worst_case(cell).value < 1.05


@pytest.mark.parametrize("step_size", [0.1, 0.6, 1.0, 1.25, 1.9])
@pytest.mark.parametrize(("local_steps", "rounds"), [(1, 1), (3, 1), (2, 4)])
def test_t1_is_exact_at_every_step_size(step_size: float, local_steps: int, rounds: int) -> None:
    cell = make_cell(local_steps, rounds, step_size, "average_local")
    proved = sharper_bound(cell)
    assert proved is not None and proved.source == "S1" and proved.exact
    assert proved.value == pytest.approx(instance(cell)[0], rel=1e-12)
    assert worst_case(cell).value == pytest.approx(proved.value, abs=1e-7)


@given(steps=st.integers(1, 60), step_size=st.floats(0.01, 1.99))
def test_s1_never_exceeds_t1_and_is_what_an_instance_attains(steps: int, step_size: float) -> None:
    cell = make_cell(steps, 1, step_size, "average_local")
    proved, plain = sharper_bound(cell), bound(cell)
    assert proved is not None and plain is not None and proved.value <= plain * (1 + 1e-12)
    assert instance(cell)[0] == pytest.approx(proved.value, rel=1e-9)


@pytest.mark.parametrize("local_steps", [2, 3, 5])
def test_s2_and_s3_hold_and_are_for_two_local_steps_or_more(local_steps: int) -> None:
    last, best = (sharper_bound(make_cell(local_steps, 3, 1.0, m)) for m in ("last", "best"))
    assert last is not None and (last.value, last.source) == (1 / 8, "S2")
    assert best is not None and (best.value, best.source) == (pytest.approx(1 / 12), "S3")
    assert worst_case(make_cell(local_steps, 3)).value <= 1 / 8
    assert worst_case(make_cell(local_steps, 3, 1.0, "best")).value <= 1 / 12
    # One local step has a worst last iterate above 1/8.
    assert worst_case(make_cell(1, 1)).value > 1 / 8


@pytest.mark.parametrize("local_steps", [2, 3, 6])
def test_s4_is_exact_from_two_local_steps_on(local_steps: int) -> None:
    for growth in (0.1, 0.3, 0.8):
        cell = make_cell(local_steps, 2, 1.0, "distance", growth=growth, growth_of="mean")
        proved = sharper_bound(cell)
        assert proved is not None and proved.source == "S4"
        # Attained by two nodes up to half of L, by more nodes beyond.
        assert proved.exact == (growth <= 0.5)
        assert proved.value == pytest.approx((1 - growth) ** 4)
        assert worst_case(cell).value == pytest.approx(proved.value, abs=1e-7)


def test_kim_s_theorem_is_the_worst_last_iterate_of_one_local_step() -> None:
    for eta in (0.3, 1.0, 1.4, 1.8):
        proved = sharper_bound(make_cell(1, 2, eta))
        assert proved is not None and (proved.source, proved.exact) == ("Kim 2024", True)
        assert worst_case(make_cell(1, 2, eta)).value == pytest.approx(proved.value, abs=1e-7)


def test_no_steps_go_below_i6() -> None:
    for rounds in (1, 2, 5, 40):
        floor = crossing_floor(rounds)
        assert least_last_loss(L=1.0, D=1.0, R=rounds) < floor
        # By brute force over s, and over both of the family's eigenvectors.
        parts = np.linspace(1e-3, 1, 2000)
        worst = [
            np.max(parts / 2 * (1 - s * parts) ** (2 * rounds)) for s in np.linspace(0.5, 2, 1500)
        ]
        assert min(worst) == pytest.approx(floor, rel=2e-3)
    for eta, beta in ((0.7, 1.3), (1.2, 1.1), (0.4, 2.0)):
        cell = make_cell(3, 1, eta, outer_step=beta)
        assert worst_case(cell).value >= crossing_floor(1)


# ---- a wrong bound is FAILED ---------------------------------------------------------------------


def test_a_row_fails_for_each_of_its_reasons() -> None:
    (row,) = solve_cell(make_cell(3, 1, 1.0, "average_sync"), [2])
    assert row.verdict == HOLDS and row.bound is not None and row.sharper is not None
    assert row.worst_case is not None and row.attained is not None
    for change, reason in (
        ({"bound": row.bound / 2}, "exceeds the bound"),
        ({"sharper": row.sharper / 2}, "exceeds the sharper bound S1"),
        ({"instance": 2 * row.instance}, "an instance exceeds the worst case"),
        ({"attained": row.attained + 1e-5}, "does not attain"),
        ({"attained": None}, "does not attain"),
        ({"certified": row.worst_case + 1e-5}, "certified gap"),
    ):
        broken = judge(replace(row, **change))  # type: ignore[arg-type]
        assert broken.verdict == FAILED and reason in broken.why


def test_a_bound_is_missing_where_none_is_known() -> None:
    assert bound(make_cell(2, 2, 1.0, "last")) is None
    assert bound(make_cell(2, 2, 1.5, "distance", growth=0.1)) is None
    assert sharper_bound(make_cell(2, 2, 0.9)) is None
    # With an outer step the closed forms of the plain mean say nothing.
    assert bound(make_cell(2, 2, 1.0, "average_sync", outer_step=1.5)) is None
    assert sharper_bound(make_cell(2, 2, 1.0, "average_local", outer_step=0.5)) is None


def test_rows_say_where_a_value_is_exact_and_where_it_is_an_upper_one() -> None:
    growth = {"growth": 0.1, "growth_of": "mean"}
    for cell, kind in (
        (make_cell(1, 2, 1.0, "distance", **growth), EXACT),
        (make_cell(2, 1, 0.5, "distance", **growth), EXACT),
        (make_cell(3, 2, 1.0, "distance", **growth), EXACT),
        (make_cell(3, 2, 0.5, "distance", **growth), UPPER),
        (make_cell(3, 1, 1.0), EXACT),
    ):
        (row,) = solve_cell(cell, [2])
        assert (row.kind, row.verdict) == (kind, HOLDS), cell
        assert row.attained is not None and row.worst_case is not None
        assert (row.worst_case - row.attained < 1e-6) == (kind == EXACT)
    # A problem above an upper value would refute it.
    assert row.worst_case is not None
    assert judge(replace(row, theorem="T4'", attained=row.worst_case + 1e-4)).verdict == FAILED
