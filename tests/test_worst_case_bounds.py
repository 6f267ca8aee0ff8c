"""Bounds beside the exact worst cases: none is exceeded, and a wrong one is caught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import verify
from theory.problems.generators import least_squares
from theory.theorems import T2, instance_0, instance_1
from theory.worst_case.cells import FAILED, HOLDS, judge, schedules, solve_cell
from theory.worst_case.closed_forms import (
    bound,
    instance,
    round_decrease,
    sharper_bound,
    theorem_of,
)
from theory.worst_case.reduction import Schedule, worst_case

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


def test_the_sharper_t2_is_exact_at_one_over_l_and_for_one_round() -> None:
    for k in (1, 3):
        known = sharper_bound(Schedule(k, 2, 1.0, "average_sync"))
        assert known == (pytest.approx(0.25), "proved")
    for step_size in (0.3, 1.7):
        known = sharper_bound(Schedule(3, 1, step_size, "average_sync"))
        assert known == (pytest.approx(0.5), "proved")
    many = sharper_bound(Schedule(20, 2, 0.5, "average_sync"))
    assert many is not None and many[0] == pytest.approx(0.25, rel=1e-5)
    cell = Schedule(3, 2, 0.5, "average_sync")
    sharper = sharper_bound(cell)
    assert sharper is not None and sharper[0] / worst_case(cell).value < 1.05


@pytest.mark.parametrize("step_size", [1.0, 1.25, 1.9])
@pytest.mark.parametrize("total", [1, 3, 8])
def test_t1_above_one_over_l_is_exact_and_proved(step_size: float, total: int) -> None:
    cell = Schedule(total, 1, step_size, "average_local")
    proved = sharper_bound(cell)
    assert proved is not None
    assert proved == (pytest.approx(instance(cell)[0], rel=1e-12), "proved")
    assert worst_case(cell).value == pytest.approx(proved[0], abs=1e-7)


@pytest.mark.parametrize("step_size", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("local_steps", [1, 2, 7])
def test_the_decrease_of_a_round_is_what_dynamic_programming_finds(
    step_size: float, local_steps: int
) -> None:
    p = 0.0
    for _ in range(local_steps):
        p = 1 + p * (1 - step_size) / (1 - step_size + step_size**2 * p)
    assert round_decrease(step_size, local_steps) == pytest.approx(step_size * p)


@given(seed=st.integers(0, 10_000), step_size=st.floats(0.05, 1.0), local_steps=st.integers(1, 6))
def test_no_way_of_spending_gradients_lowers_a_round_less(
    seed: int, step_size: float, local_steps: int
) -> None:
    # The minimisation in the proof, at random feasible points: v may stop at zero.
    random = np.random.default_rng(seed)
    v, cost = 1.0, 0.0
    for _ in range(local_steps):
        spent = random.exponential() * v
        cost += v**2 + (1 - step_size) * spent**2
        v = max(0.0, v - step_size * spent)
    assert step_size * cost >= round_decrease(step_size, local_steps) - 1e-12


@given(seed=st.integers(0, 10_000), decrease=st.floats(0.05, 1.0), rounds=st.integers(1, 8))
def test_no_sequence_of_losses_has_a_larger_sum(seed: int, decrease: float, rounds: int) -> None:
    random = np.random.default_rng(seed)
    distance, total = 1.0, 0.0
    for _ in range(rounds):
        loss = random.choice([1.0, random.random()]) * distance / 2
        total += loss
        distance -= 2 * decrease * loss
    assert total <= (1 - (1 - decrease) ** rounds) / (2 * decrease) + 1e-12


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
    factor=st.floats(0.05, 1.95),
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
    for problem in (
        instance_0("T1", 1).problem,
        instance_1(rounds, local_steps, 1.0, factor).problem,
    ):
        check = verify(
            T2,
            problem,
            local_steps=local_steps,
            rounds=rounds,
            step_size=factor / problem.smoothness,
        )
        assert (
            check.measured <= check.bound * sharper_over_bound(local_steps, rounds, factor) + 1e-12
        )


def test_half_of_the_sharper_t2_fails_in_the_simulator() -> None:
    check = verify(T2, instance_0("T1", 1).problem, local_steps=4, rounds=5, step_size=1.0)
    assert check.measured > 0.5 * check.bound * sharper_over_bound(4, 5, 1.0)
    # For one round no smaller constant would do at any step size: f(x_0) = L D / 2.
    for factor in (0.5, 1.5):
        one = verify(T2, instance_0("T1", 1).problem, local_steps=4, rounds=1, step_size=factor)
        assert one.measured == pytest.approx(one.bound * sharper_over_bound(4, 1, factor), rel=1e-9)


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
    assert sharper_bound(Schedule(2, 2, 1.0, "last")) is None
