"""The theorems hold where they should, say why where they do not apply, and fail when broken."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import verify
from theory.problems.generators import (
    least_squares,
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.simulation.local_sgd import run_local_sgd
from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE
from theory.theorems import (
    T1,
    T2,
    T3,
    T4,
    T4_GLOBAL,
    T5,
    T5_SYNC,
    T6,
    Setting,
    find_theorems,
    instance_0,
    instance_1,
    instance_2,
    instance_3,
    instance_4,
)
from theory.theorems.t5_separable import closed_form, comparator_bound
from theory.verification.check import verify_all
from theory.verification.communication import communication, typical_communication
from theory.verification.slopes import (
    fit_slope,
    instance_slopes,
    power_law_order,
    power_law_problem,
)
from theory.verification.tightness import simulate_instance, tightness

SMALL: dict[str, Any] = {"n_nodes": 3, "samples_per_node": 12, "dimension": 60, "rank": 6}


# ---- the bounds hold -----------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000),
    heterogeneity=st.sampled_from(["iid", "similar", "sorted", "identical"]),
    local_steps=st.integers(1, 12),
    factor=st.floats(0.05, 1.95),
)
def test_t1_to_t4_hold_exactly_on_any_least_squares(
    seed: int, heterogeneity: Any, local_steps: int, factor: float
) -> None:
    problem = least_squares(seed=seed, heterogeneity=heterogeneity, **SMALL)
    checks = verify_all(
        [T1, T2, T3, T4, T4_GLOBAL],
        problem,
        local_steps=local_steps,
        rounds=12,
        step_size=factor / problem.smoothness,
    )
    assert all(check.verdict != FAILED for check in checks), checks
    assert checks[0].verdict == checks[1].verdict == HOLDS


@pytest.mark.parametrize("local_steps", [1, 5])
@pytest.mark.parametrize("heterogeneity", ["iid", "sorted"])
def test_t5_and_t6_hold_on_sampled_problems(heterogeneity: Any, local_steps: int) -> None:
    hard = separable_logistic(n_nodes=3, samples_per_node=6, heterogeneity=heterogeneity)
    curved = sigmoid_regression(n_nodes=3, samples_per_node=6, heterogeneity=heterogeneity)
    for theorem, problem in ((T5, hard), (T5_SYNC, hard), (T6, hard), (T6, curved)):
        check = verify(theorem, problem, local_steps=local_steps, rounds=40, seeds=8)
        assert check.verdict == HOLDS and check.how in ("mean of 8 seeds", "mean of 32 seeds")


def test_the_engine_does_not_change_a_verdict_or_a_mean() -> None:
    problem = realizable_logistic(**SMALL)
    checks = [
        verify(T1, problem, local_steps=3, rounds=20, seeds=6, engine=engine)
        for engine in ("numpy", "numba", "margin")
    ]
    assert {c.verdict for c in checks} == {HOLDS}
    np.testing.assert_allclose([c.measured for c in checks], checks[0].measured, rtol=1e-10)


# ---- the bounds are tight ------------------------------------------------------------------------


@pytest.mark.parametrize("local_steps", [1, 5, 20])
def test_i0_meets_t1_t2_t3_with_equality(local_steps: int) -> None:
    problem = instance_0("T1", 1).problem
    for check in verify_all([T1, T2, T3], problem, local_steps=local_steps, rounds=7):
        assert check.ratio == pytest.approx(1.0, rel=1e-12) and check.verdict == HOLDS


@pytest.mark.parametrize("local_steps", [1, 5, 20])
@pytest.mark.parametrize(
    ("maker", "limit", "tolerance"),
    [
        (instance_1, 2 * math.e, 0.01),
        (instance_2, 2 * math.e, 0.01),
        (instance_4, 4 * math.e, 0.01),
    ],
)
def test_the_ratios_reach_their_limits_at_ten_thousand_rounds(
    maker: Any, limit: float, tolerance: float, local_steps: int
) -> None:
    row = tightness(maker(10_000, local_steps))
    assert row.ratio == pytest.approx(limit, rel=tolerance)
    assert row.measured == pytest.approx(row.closed_form, rel=1e-9)
    assert row.verdict == HOLDS


def test_i3_contracts_exactly_as_t4_says() -> None:
    row = tightness(instance_3(200, dimension=7, local_steps=2))
    assert row.ratio == pytest.approx(1.0, rel=1e-10)


@given(
    rounds=st.integers(1, 60),
    local_steps=st.integers(1, 8),
    factor=st.floats(0.05, 1.0),
    smoothness=st.floats(0.1, 10.0),
)
def test_i1_has_its_closed_form_for_any_schedule(
    rounds: int, local_steps: int, factor: float, smoothness: float
) -> None:
    instance = instance_1(rounds, local_steps, smoothness, factor)
    assert simulate_instance(instance) == pytest.approx(instance.value, rel=1e-9)
    # The claim that makes it an instance for T2: never below L D / (2e (2R + 1)).
    assert instance.value >= smoothness / (2 * math.e * (2 * rounds + 1)) * (1 - 1e-9)


# ---- a theorem that does not apply says why ------------------------------------------------------


@pytest.mark.parametrize(
    ("theorem", "problem", "reason"),
    [
        (T1, sigmoid_regression(n_nodes=2, samples_per_node=3, dimension=20), "not convex"),
        (T2, separable_logistic(n_nodes=2, samples_per_node=3, dimension=20), "not attained"),
        (T3, least_squares(heterogeneity="sorted", **SMALL), "c = 0"),
        (T4, least_squares(heterogeneity="sorted", **SMALL), "mu = 0"),
        (T5, least_squares(**SMALL), "no separating direction"),
        (T6, realizable_logistic(**SMALL), "rho unknown"),
    ],
)
def test_a_failed_assumption_is_named(theorem: Any, problem: Any, reason: str) -> None:
    check = verify(theorem, problem)
    assert check.verdict == NOT_APPLICABLE and reason in check.why


@pytest.mark.parametrize(
    ("theorem", "factor", "applies"),
    [(T1, 1.99, True), (T1, 2.0, False), (T4, 1.0, True), (T4, 1.01, False), (T6, 1.0, False)],
)
def test_the_admissible_step_is_checked(theorem: Any, factor: float, applies: bool) -> None:
    problem = least_squares(heterogeneity="identical", **SMALL)
    ok, why = theorem.applies(
        problem, Setting(step_size=factor / problem.smoothness, local_steps=2, rounds=10)
    )
    assert ok is applies and (ok or "step size" in why)


# ---- constants in the bounds ---------------------------------------------------------------------


def test_the_comparator_of_t5_is_the_best_multiple_of_w() -> None:
    problem = separable_logistic(n_nodes=2, samples_per_node=4, dimension=30)
    setting = Setting(step_size=0.5 / problem.smoothness, local_steps=2, rounds=50)
    found = comparator_bound(problem, setting, 100)
    s = np.linspace(0, 200, 200_001)
    brute = s**2 + 200 * setting.step_size * np.logaddexp(0, -problem.margin * s)
    assert found == pytest.approx(brute.min(), rel=1e-6)
    # And below the closed form of the notes, s = ln(T) / gamma.
    loose = closed_form(L=problem.smoothness, gamma=problem.margin, T=100)
    assert T5.bound(problem, setting, 100) <= loose


@given(t=st.integers(1, 500), local_steps=st.integers(1, 20))
def test_bounds_fall_with_t(t: int, local_steps: int) -> None:
    problem = least_squares(heterogeneity="identical", **SMALL)
    for theorem in (T1, T2, T3, T4, T4_GLOBAL, T6):
        eta = theorem.default_step(problem, local_steps)
        setting = Setting(step_size=eta, local_steps=local_steps, rounds=1000)
        assert theorem.bound(problem, setting, t + local_steps) < theorem.bound(problem, setting, t)


# ---- orders --------------------------------------------------------------------------------------


def test_the_families_decay_as_one_over_their_index() -> None:
    for fit in instance_slopes(largest=3000, points=5):
        assert fit.verdict == HOLDS and abs(fit.slope + 1) < 0.05
        # From 30 to 3000 rounds 1/T falls by 100, and 1/sqrt(nT) by 10.
        assert fit.undercut == pytest.approx(10.0, rel=0.15)
        curve = fit.y[0] * np.sqrt(fit.x[0] / fit.x)
        assert fit.undercut == pytest.approx(curve[-1] / fit.y[-1])
    x = np.geomspace(1, 100, 5)
    assert fit_slope(x, x**-0.5, "as the older order", -1.0).undercut == pytest.approx(1.0)
    assert math.isnan(fit_slope(x, x**-1.0, "nothing predicted", None).undercut)


def test_a_power_law_with_equal_nodes_decays_as_one_over_t() -> None:
    fit = power_law_order(100, 2.0)
    assert fit.verdict == HOLDS and abs(fit.slope + 1) < 0.05
    # The regime ends where the smallest curvature is felt: later times fall faster.
    problem = power_law_problem(10, 2.0)
    run = run_local_sgd(problem, step_size=1.0, rounds=2000, gradient="full", record=[1000, 2000])
    early, late = run.history["global_loss"][0, 0, -2:]
    assert late / early < 0.1


def test_local_steps_save_nothing_on_i1_and_everything_with_equal_nodes() -> None:
    hard, equal = communication(local_steps=(1, 2, 5, 10), rounds=400)
    assert abs(hard.fit.slope) < 0.02 and abs(equal.fit.slope + 1) < 0.05
    assert (hard.rounds <= hard.bound).all() and (equal.rounds <= equal.bound).all()


def test_iid_nodes_gain_more_from_local_steps_than_sorted_ones() -> None:
    iid = typical_communication("iid", (1, 4, 8))
    apart = typical_communication("sorted", (1, 4, 8))
    assert iid.fit.slope < apart.fit.slope < 0


def test_fit_slope_recovers_an_exponent_and_covers_it() -> None:
    x = np.geomspace(1, 100, 20)
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(20))
    fit = fit_slope(x, 3 * x**-1.5 * noise, "test", -1.5)
    assert fit.low < -1.5 < fit.high and fit.verdict == HOLDS
    assert fit_slope(x, x**-1.0, "test", -1.5).verdict == FAILED
    with pytest.raises(ValueError, match="at least 3 points"):
        fit_slope(x[:2], x[:2], "test", None)


def test_find_theorems_knows_families_and_refuses_others() -> None:
    assert [t.name for t in find_theorems(["t4"])] == ["T4", "T4'"]
    assert [t.name for t in find_theorems(["T5'"])] == ["T5'"]
    assert [t.name for t in find_theorems(["t2/s1", "T2/S3"])] == ["T2/S1", "T2/S3", "T2/S3'"]
    with pytest.raises(ValueError, match="theorem 'T9', allowed: T0"):
        find_theorems(["T9"])


def test_convex_baselines_are_schedules_of_the_same_function() -> None:
    # Minibatch SGD at equal communication: one step a round on K samples a node.
    problem = least_squares(**SMALL)
    minibatch = run_local_sgd(problem, step_size=1.0, rounds=20, batch_size=5)
    assert minibatch.history["consensus"].max() < 1e-25
