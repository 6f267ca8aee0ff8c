"""Bounds beside the exact worst cases: none is exceeded, and a wrong one is caught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import verify
from theory.generators import least_squares
from theory.instances import instance_0, instance_1
from theory.pep_bounds import bound, instance, sharper_bound, theorem_of
from theory.pep_reduced import Schedule, worst_case
from theory.pep_sweep import FAILED, HOLDS, judge, schedules, solve_cell
from theory.theorems import T2

SMALL: dict[str, Any] = {"n_nodes": 3, "samples_per_node": 6, "dimension": 30, "rank": 5}
METRICS = ("last", "best", "average_sync", "average_local", "average_global", "distance")


def test_nothing_exceeds_its_bound_on_a_grid() -> None:
    cells = schedules(METRICS, (1, 2, 3), (1, 2), (0.25, 0.75, 1.0, 1.5), 0.2)
    assert {theorem_of(c) for c in cells} == {"T1", "T2", "T3", "T4", "T4'", "C1"}
    for cell in cells:
        value = worst_case(cell).value
        ours, sharper = bound(cell), sharper_bound(cell)
        if ours is not None:
            assert value <= ours + 1e-8, cell
        if sharper is not None:
            assert value <= sharper[0] + 1e-8, cell
            assert ours is None or sharper[0] <= ours + 1e-12, cell
        assert instance(cell)[0] <= value + 1e-7, cell


def test_the_sharper_t2_is_exact_at_one_over_l_and_tends_to_the_exact_value() -> None:
    for k in (1, 3):
        known = sharper_bound(Schedule(k, 2, 1.0, "average_sync"))
        assert known == (pytest.approx(0.25), "proved")
    few, many = (
        sharper_bound(Schedule(k, 2, 0.5, "average_sync")) for k in (1, 20)
    )
    assert few is not None and many is not None
    assert few[0] == pytest.approx(0.5) and many[0] == pytest.approx(0.25, rel=1e-5)
    # One slack factor only: the worst case at K = 3 is close below.
    cell = Schedule(3, 2, 0.5, "average_sync")
    sharper = sharper_bound(cell)
    assert sharper is not None and sharper[0] / worst_case(cell).value < 1.05


@pytest.mark.parametrize("step_size", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("local_steps", [1, 2, 7])
def test_the_closed_form_of_the_recursion(step_size: float, local_steps: int) -> None:
    p = 0.0
    for _ in range(local_steps):
        p = 1 + p * (1 - step_size) / (1 - step_size + step_size**2 * p) if p else 1.0
    known = sharper_bound(Schedule(local_steps, 3, step_size, "average_sync"))
    assert known is not None and known[0] == pytest.approx(1 / (6 * step_size * p))


# ---- in the simulator, with stochastic gradients -------------------------------------------------


def sharper_over_bound(local_steps: int, rounds: int, factor: float) -> float:
    """What the proved sharper constant makes of T2's bound."""
    schedule = Schedule(local_steps, rounds, factor, "average_sync")
    sharper, ours = sharper_bound(schedule), bound(schedule)
    assert sharper is not None and ours is not None
    return sharper[0] / ours


@given(
    seed=st.integers(0, 10_000),
    heterogeneity=st.sampled_from(["iid", "sorted", "identical"]),
    local_steps=st.integers(1, 8),
    rounds=st.integers(1, 10),
    factor=st.floats(0.05, 1.0),
)
def test_the_sharper_t2_holds_exactly_on_least_squares(
    seed: int, heterogeneity: Any, local_steps: int, rounds: int, factor: float
) -> None:
    problem = least_squares(seed=seed, heterogeneity=heterogeneity, **SMALL)
    check = verify(
        T2, problem, local_steps=local_steps, rounds=rounds, step_size=factor / problem.smoothness
    )
    assert check.how == "exact"
    assert check.measured <= check.bound * sharper_over_bound(local_steps, rounds, factor) + 1e-12


@given(rounds=st.integers(1, 30), local_steps=st.integers(1, 6), factor=st.floats(0.05, 1.0))
def test_the_sharper_t2_holds_on_the_tight_instances(
    rounds: int, local_steps: int, factor: float
) -> None:
    for problem in (instance_0("T1", 1).problem, instance_1(rounds, local_steps, 1.0, factor).problem):
        check = verify(
            T2, problem, local_steps=local_steps, rounds=rounds,
            step_size=factor / problem.smoothness,
        )  # fmt: skip
        assert (
            check.measured <= check.bound * sharper_over_bound(local_steps, rounds, factor) + 1e-12
        )


def test_half_of_the_sharper_t2_fails_in_the_simulator() -> None:
    check = verify(T2, instance_0("T1", 1).problem, local_steps=4, rounds=5, step_size=1.0)
    assert check.measured > 0.5 * check.bound * sharper_over_bound(4, 5, 1.0)
    # And for eta < 1/L no smaller constant would do as K grows: R = 1 has f(x_0) = L D / 2.
    one = verify(T2, instance_0("T1", 1).problem, local_steps=40, rounds=1, step_size=0.5)
    assert one.measured == pytest.approx(one.bound * sharper_over_bound(40, 1, 0.5), rel=1e-9)


# ---- a wrong bound is FAILED ---------------------------------------------------------------------


def test_a_row_fails_for_each_of_its_reasons() -> None:
    (row,) = solve_cell(Schedule(3, 1, 1.0, "average_sync"), [2])
    assert row.verdict == HOLDS and row.bound is not None and row.sharper is not None
    assert row.worst_case is not None and row.attained is not None
    for change, reason in (
        ({"bound": row.bound / 2}, "exceeds the bound"),
        ({"sharper": row.sharper / 2}, "exceeds the proved sharper bound"),
        ({"instance": 2 * row.instance}, "an instance exceeds the worst case"),
        ({"attained": row.attained + 1e-5}, "does not attain"),
        ({"attained": None}, "does not attain"),
        ({"certified": row.worst_case + 1e-5}, "certified gap"),
    ):
        broken = judge(replace(row, **change))  # type: ignore[arg-type]
        assert broken.verdict == FAILED and reason in broken.why


def test_a_bound_is_missing_where_none_is_known() -> None:
    assert bound(Schedule(2, 2, 1.0, "last")) is None
    assert bound(Schedule(2, 2, 1.5, "distance", growth=0.1)) is None
    assert sharper_bound(Schedule(2, 2, 1.5, "average_sync")) is None
