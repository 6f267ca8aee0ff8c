"""Confidence limits that hold for every distribution: their errors are measured, and their premises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.problems.generators import (
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import AVERAGES, run_local_sgd
from theory.support.verdicts import FAILED, HOLDS, UNDECIDED
from theory.theorems import Metric, Setting
from theory.verification.intervals import Range, confidence_interval, mean_interval
from theory.verification.outcome import judge
from theory.verification.ranges import NOTHING, path_range, paths_agree

SMALL: dict[str, Any] = {"n_nodes": 2, "samples_per_node": 6, "dimension": 30}
LOOKS = (8, 32, 128)


def logistic_run(seeds: int, metric: Metric) -> tuple[np.ndarray, Range]:
    """Sample paths of a small realizable logistic problem, and what is known of them before."""
    problem = realizable_logistic(rank=4, **SMALL)
    setting = Setting(step_size=1 / problem.smoothness, local_steps=3, rounds=10)
    run = run_local_sgd(
        problem,
        step_size=setting.step_size,
        local_steps=3,
        rounds=10,
        seeds=seeds,
        averages=AVERAGES,
        record=[30],
    )
    return metric.read(run), path_range(metric, problem, setting)


@pytest.fixture(scope="module")
def population() -> tuple[np.ndarray, Range]:
    """The distribution to draw from: 4,000 real paths of T2's left side, and their range."""
    return logistic_run(4000, Metric("sync_loss", averaged=True))


def verdicts(
    population: tuple[np.ndarray, Range], share: float, repetitions: int, seed: int
) -> list[str]:
    """What growing numbers of draws say of the bound ``share`` times the truth, at the last look."""
    values, known = population
    bound = share * float(values.mean())
    random = np.random.default_rng(seed)
    found = []
    for _ in range(repetitions):
        draws = random.choice(values, LOOKS[-1])
        verdict = UNDECIDED
        for look in LOOKS:
            verdict, _ = judge(*mean_interval(draws[:look], known), bound, 0.0)
            if verdict != UNDECIDED:
                break
        found.append(verdict)
    return found


def test_a_bound_just_below_the_truth_rarely_holds_and_one_just_above_rarely_fails(
    population: tuple[np.ndarray, Range],
) -> None:
    below = verdicts(population, 0.999, 120, seed=1)
    above = verdicts(population, 1.001, 120, seed=2)
    assert below.count(HOLDS) <= 0.05 * 120 and above.count(FAILED) <= 0.05 * 120
    # Nor are verdicts bought by never deciding: a bound at a third or three times the truth is decided.
    assert verdicts(population, 1 / 3, 20, seed=3).count(FAILED) == 20
    assert verdicts(population, 5.0, 20, seed=4).count(HOLDS) == 20


def test_looks_at_students_interval_would_err_more_often(
    population: tuple[np.ndarray, Range],
) -> None:
    # The rule of before: more seeds until Student's interval no longer holds the bound.
    values, truth = population[0], float(population[0].mean())
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(400):
        draws = random.choice(values, LOOKS[-1])
        highs = [confidence_interval(draws[:look])[2] for look in LOOKS]
        wrong += any(high <= 0.999 * truth for high in highs)
    assert wrong > 0.05 * 400


@pytest.mark.parametrize("chance", [0.01, 1e-3, 1e-5])
def test_a_rare_path_that_no_seed_has_shown_is_not_impossible(chance: float) -> None:
    # 1 with that chance, else 0: 32 seeds mostly see zeros only, and Student's interval is [0, 0].
    random = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        low, high = mean_interval((random.random(32) < chance).astype(np.float64), Range(most=1.0))
        missed += not low <= chance <= high
    assert missed <= 5
    assert confidence_interval(np.zeros(32))[2] == 0.0 < mean_interval(np.zeros(32), Range(1.0))[1]


def test_without_a_range_only_the_lower_limit_is_known() -> None:
    low, high = mean_interval(np.full(50, 2.0), NOTHING)
    assert 1.0 < low < 2.0 and high == math.inf
    # And a sample beyond the range refutes it.
    assert mean_interval(np.array([0.5, 1.5]), Range(most=1.0))[1] == math.inf


def test_diverged_samples_are_large_not_missing() -> None:
    low, high = mean_interval(np.array([1.0, np.nan, np.inf, 1.0]), NOTHING)
    assert low > 1e200 and high == math.inf


@given(
    values=st.lists(st.floats(0, 1), min_size=2, max_size=30),
    scale=st.sampled_from([1e-12, 1.0, 1e9]),
)
def test_limits_hold_the_mean_scale_with_the_unit_and_tighten_with_the_range(
    values: list[float], scale: float
) -> None:
    x = np.array(values)
    low, high = mean_interval(x, Range(most=1.0))
    assert 0 <= low <= x.mean() <= high * (1 + 1e-12) and high <= 1
    scaled = mean_interval(scale * x, Range(most=scale))
    assert scaled == pytest.approx((scale * low, scale * high), rel=1e-6, abs=1e-9 * scale)
    wider = mean_interval(x, Range(most=4.0))
    assert wider[0] == low and wider[1] >= high * (1 - 1e-9)


@given(shape=st.floats(0.05, 20), seed=st.integers(0, 100))
def test_what_lies_beyond_a_cut_is_at_most_what_is_said(shape: float, seed: int) -> None:
    # Gamma variables meet their condition with equality.
    known = Range(most=1e9, shape=shape, scale=2.0)
    x = np.random.default_rng(seed).gamma(shape, 2.0, 20_000)
    for cut, excess in known.cuts():
        beyond = np.maximum(x - cut, 0.0)
        assert beyond.mean() - 5 * beyond.std() / math.sqrt(len(x)) <= excess


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_students_interval_covers_normal_means_and_misses_skewed_ones(draw: str) -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        x = random.exponential(size=12) if draw == "exponential" else 1 + random.normal(size=12)
        _, low, high = confidence_interval(x)
        covered += low <= 1.0 <= high
    assert (0.93 < covered / 1000 < 0.97) if draw == "normal" else covered / 1000 < 0.93


# ---- ranges --------------------------------------------------------------------------------------


RUNS: dict[str, tuple[MarginProblem, float]] = {
    "logistic": (realizable_logistic(rank=4, **SMALL), 1.0),
    "logistic, large steps": (realizable_logistic(rank=4, **SMALL), 1.7),
    "separable": (separable_logistic(**SMALL), 0.5),
    "sigmoid": (sigmoid_regression(**SMALL), 0.01),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_path_lies_in_its_range_and_has_its_tails(name: str) -> None:
    problem, factor = RUNS[name]
    setting = Setting(step_size=factor / problem.smoothness, local_steps=4, rounds=6)
    run = run_local_sgd(
        problem,
        step_size=setting.step_size,
        local_steps=4,
        rounds=6,
        seeds=600,
        averages=AVERAGES,
        record=[24],
    )
    assert paths_agree(problem, setting, run)
    metrics = [Metric(a, averaged=True) for a in AVERAGES]
    metrics += [
        Metric(h) for h in ("global_loss", "local_loss", "distance", "gradient", "consensus")
    ]
    known_of = {metric: path_range(metric, problem, setting) for metric in metrics}
    assert known_of[Metric("sync_gradient", averaged=True)] is not NOTHING
    for metric, known in known_of.items():
        x = metric.read(run)
        if known is NOTHING:
            continue
        assert x.max() <= known.most * (1 + 1e-12), metric
        for s in (0.1, 0.5, 0.9) if known.scale else ():
            tilted = np.exp(s * x / known.scale)
            error = 4 * tilted.std() / math.sqrt(len(x))
            assert tilted.mean() - error <= (1 - s) ** -known.shape, metric


def test_paths_that_break_lemma_1_take_their_range_away() -> None:
    problem = realizable_logistic(rank=4, **SMALL)
    claimed = Setting(step_size=0.5 / problem.smoothness, local_steps=2, rounds=5)
    for factor, agree in ((0.5, True), (2.5, False)):
        run = run_local_sgd(
            problem,
            step_size=factor / problem.smoothness,
            local_steps=2,
            rounds=5,
            seeds=8,
            averages=["batch_loss"],
        )
        assert paths_agree(problem, claimed, run) is agree
