"""Confidence limits that hold for every distribution: their errors are measured, and their premises."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
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
from theory.problems.losses import SOFT_LOGISTIC
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import AVERAGES, LocalSGDResult, run_local_sgd
from theory.support.verdicts import FAILED, HOLDS
from theory.theorems import Metric, Setting, Theorem
from theory.verification import judge as judging
from theory.verification.check import verify
from theory.verification.intervals import Range, confidence_interval, mean_interval
from theory.verification.ranges import NOTHING, path_range, paths_agree

SMALL: dict[str, Any] = {"n_nodes": 2, "samples_per_node": 6, "dimension": 30}
SCHEDULE: dict[str, Any] = {"local_steps": 2, "rounds": 3}


def few_paths() -> MarginProblem:
    """Two nodes of two samples, logistic: so few paths that their mean can be taken over all."""
    random = np.random.default_rng(0)
    features = random.standard_normal((2, 2, 4))
    features[:, 1] *= 3
    fit = 2 * random.standard_normal(4)
    return MarginProblem(list(features), list(features @ fit), SOFT_LOGISTIC)


def mean_over_all_paths(problem: MarginProblem, step: float) -> float:
    """E (1/R) sum_r f(xbar_r) of ``SCHEDULE`` by every sequence of draws, each as likely as any other."""
    total = SCHEDULE["local_steps"] * SCHEDULE["rounds"]
    draws = np.array(list(itertools.product(range(2), repeat=2 * total))).reshape(-1, total, 2)
    models = np.tile(problem.start, (len(draws), 2, 1))
    losses = np.zeros(len(draws))
    for t in range(total):
        if t % SCHEDULE["local_steps"] == 0:
            models[:] = models.mean(axis=1, keepdims=True)
            losses += problem.global_loss(models[:, 0]) / SCHEDULE["rounds"]
        models = models - step * problem.sample_gradients(models, draws[:, t, :, None])
    return float(losses.mean())


def verdicts(monkeypatch: pytest.MonkeyPatch, share: float, repetitions: int) -> Counter[str]:
    """What ``verify`` says of a user's theorem whose bound is ``share`` times the truth.

    A repetition has seeds of its own; all else, the looks at more and more of them too, is as for a user.
    """
    problem = few_paths()
    step = 1 / problem.smoothness
    truth = mean_over_all_paths(problem, step)
    theorem = Theorem(
        name="a share of the truth",
        title="",
        statement="",
        metric=Metric("sync_loss", averaged=True),
        order=None,
        assumptions=(),
        formula=lambda: 0.0,
        bound=lambda *_: share * truth,
        default_step=lambda *_: step,
    )
    found: Counter[str] = Counter()
    for repetition in range(repetitions):

        def elsewhere(*args: Any, seeds: Sequence[int], **options: Any) -> LocalSGDResult:
            fresh = [10_000 * repetition + seed for seed in seeds]  # noqa: B023
            return run_local_sgd(*args, seeds=fresh, **options)

        monkeypatch.setattr(judging, "run_local_sgd", elsewhere)
        found[verify(theorem, problem, seeds=8, engine="numpy", **SCHEDULE).verdict] += 1
    return found


def test_a_bound_just_below_the_truth_rarely_holds_and_one_just_above_rarely_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    below = verdicts(monkeypatch, 0.999, 100)
    above = verdicts(monkeypatch, 1.001, 100)
    assert below[HOLDS] < 0.05 * 100 and above[FAILED] < 0.05 * 100
    # Nor are verdicts bought by never deciding: a bound at a third or five times the truth is decided.
    assert verdicts(monkeypatch, 1 / 3, 20)[FAILED] == 20
    assert verdicts(monkeypatch, 5.0, 20)[HOLDS] == 20


def test_looks_at_students_interval_would_err_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    # The rule of before: more seeds until Student's interval no longer holds the bound.
    monkeypatch.setattr(judging, "mean_interval", lambda x, _: confidence_interval(x)[1:])
    assert verdicts(monkeypatch, 0.999, 100)[HOLDS] > 0.05 * 100


def test_the_mean_over_all_paths_is_that_of_many_runs() -> None:
    problem = few_paths()
    step = 1 / problem.smoothness
    run = run_local_sgd(
        problem, step_size=step, seeds=4000, averages=["sync_loss"], record=[6], **SCHEDULE
    )
    x = Metric("sync_loss", averaged=True).read(run)
    error = 4 * x.std() / math.sqrt(len(x))
    assert error < 0.01 * x.mean()
    assert abs(x.mean() - mean_over_all_paths(problem, step)) < error


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
