"""Verdicts that can't be wrong: exact, on every path, or by an interval that holds for every distribution."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from theory.problems.generators import (
    least_squares,
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.problems.losses import MarginLoss
from theory.problems.margin import MarginProblem
from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE, UNDECIDED
from theory.theorems import (
    SHARPER,
    T0,
    T0_SEPARABLE,
    T1,
    T2,
    T4,
    T4_GLOBAL,
    THEOREMS,
    Theorem,
    instance_0,
    instance_3,
)
from theory.verification.check import verify, verify_all
from theory.verification.violations import VIOLATIONS

SMALL: dict[str, Any] = {"n_nodes": 2, "samples_per_node": 6, "dimension": 30, "rank": 4}
PROBLEMS: dict[str, MarginProblem] = {
    "I0": instance_0("T1", 1).problem,  # type: ignore[dict-item]
    "I3": instance_3(1).problem,  # type: ignore[dict-item]
    "least squares": least_squares(**SMALL),
    "sorted": least_squares(heterogeneity="sorted", **SMALL),
    "logistic": realizable_logistic(**SMALL),
    "separable": separable_logistic(**SMALL),
    "sigmoid": sigmoid_regression(n_nodes=2, samples_per_node=3, dimension=30),
}


def times(theorem: Theorem, share: float) -> Theorem:
    """The theorem with another constant."""
    return replace(theorem, bound=lambda p, setting, t: share * theorem.bound(p, setting, t))


# ---- what no seed has shown ----------------------------------------------------------------------


def test_half_of_a_tight_linear_rate_never_holds_on_sampled_paths() -> None:
    # After 60 steps 32 paths are all at x*, while the mean is (3/4)^60, twice the claimed bound.
    problem = PROBLEMS["I3"]
    sampled = verify(times(T4, 0.5), problem, rounds=60, engine="numba")
    assert sampled.measured == 0.0 and sampled.verdict == UNDECIDED
    assert "too rare for 32 seeds" in sampled.why
    assert verify(times(T4, 0.5), problem, rounds=60).verdict == FAILED
    assert verify(T4, problem, rounds=60).verdict == HOLDS


def test_a_bound_at_one_percent_of_the_truth_never_holds_with_a_huber_loss() -> None:
    # Within its corner a Huber loss is least squares, but no exact engine serves it.
    huber = MarginLoss(
        "Huber",
        lambda z, t: np.where(np.abs(z - t) <= 2, 0.5 * (z - t) ** 2, 2 * np.abs(z - t) - 2),
        lambda z, t: np.clip(z - t, -2, 2),
        1.0,
        True,
        True,
        lambda t, radius: np.where(radius <= 2, 1.0, 0.0) + 0 * t,
    )
    problem = MarginProblem([np.eye(4)], [np.zeros(4)], huber, start=np.full(4, 0.5))
    assert problem.local_growth == pytest.approx(0.25)
    truth = verify(T4, PROBLEMS["I3"], rounds=20).measured
    for first in range(20):
        seeds = range(32 * first, 32 * first + 32)
        check = verify(times(T4, 0.01), problem, rounds=20, seeds=seeds)
        assert check.bound == pytest.approx(0.01 * truth) and check.verdict != HOLDS


def test_one_path_decides_nothing_but_a_deterministic_one_is_exact() -> None:
    problem = PROBLEMS["logistic"]
    one = verify(T2, problem, local_steps=2, rounds=20, seeds=[0])
    assert one.verdict == UNDECIDED and one.why == "a mean of one path decides nothing"
    full = verify(T2, problem, local_steps=2, rounds=20, seeds=[0], gradient="full")
    assert (full.verdict, full.how) == (HOLDS, "deterministic")
    assert full.low == full.measured == full.high
    assert verify(times(T2, 1e-3), problem, rounds=20, seeds=[0], gradient="full").verdict == FAILED
    # One sample a node is a full gradient, too.
    assert verify(T1, PROBLEMS["I0"], seeds=[0], engine="numba").how == "deterministic"


def test_seeds_are_added_only_while_they_may_decide() -> None:
    problem = PROBLEMS["logistic"]
    close = times(T2, 1.3 / verify(T2, problem, local_steps=3, rounds=10, seeds=512).ratio)
    few = verify(close, problem, local_steps=3, rounds=10, seeds=8)
    assert few.verdict == HOLDS and few.how != "mean of 8 seeds"
    told = verify(close, problem, local_steps=3, rounds=10, seeds=range(8))
    assert (told.verdict, told.how) == (UNDECIDED, "mean of 8 seeds")
    hopeless = verify(times(T4, 1e-9), problem, local_steps=3, rounds=10, seeds=8)
    assert hopeless.verdict == FAILED or hopeless.how == "mean of 8 seeds"


def test_more_seeds_continue_the_sample_of_fewer() -> None:
    problem = PROBLEMS["logistic"]
    together = verify(T2, problem, rounds=10, seeds=range(40))
    apart = [verify(T2, problem, rounds=10, seeds=range(a, a + 20)).measured for a in (0, 20)]
    assert together.measured == pytest.approx(np.mean(apart), rel=1e-12)


# ---- every path ----------------------------------------------------------------------------------


@pytest.mark.parametrize("local_steps", [1, 5])
@pytest.mark.parametrize("name", ["I0", "I3", "least squares", "sorted", "logistic", "separable"])
def test_t0_holds_on_every_path_without_an_interval(name: str, local_steps: int) -> None:
    theorem = T0_SEPARABLE if name == "separable" else T0
    check = verify(theorem, PROBLEMS[name], local_steps=local_steps, rounds=30)
    # One sample a node leaves one path.
    paths = 1 if name == "I0" else 32
    assert (check.verdict, check.how) == (HOLDS, f"worst of {paths} paths")
    assert check.low == check.measured == check.high <= check.bound * (1 + 1e-9)
    # A little below the worst path it fails: it is the worst one that is reported.
    tight = replace(theorem, path_bound=None, bound=lambda *_: 0.999 * check.measured)
    if name != "I0":
        assert verify(tight, PROBLEMS[name], local_steps=local_steps, rounds=30).verdict == FAILED


# ---- what double precision resolves --------------------------------------------------------------


def test_below_what_double_precision_resolves_a_sampled_rate_is_undecided() -> None:
    problem = realizable_logistic(heterogeneity="identical", **SMALL)
    check = verify(T4, problem, local_steps=20, rounds=3000, gradient="full")
    # Whether rounding leaves the left side above the bound or takes it to 0, neither says anything.
    assert check.bound < 1e-30 and check.measured < 1e-20
    assert check.verdict == UNDECIDED and "what double precision resolves" in check.why


@pytest.mark.parametrize("gradient", ["stochastic", "full"])
def test_exact_moments_decide_linear_rates_at_any_scale(gradient: str) -> None:
    problem = least_squares(**(SMALL | {"rank": 2}))
    check = verify(T4, problem, local_steps=20, rounds=250, gradient=gradient)
    assert check.bound < 1e-290 and check.verdict == HOLDS and check.measured == 0.0
    assert 0 < check.rate < check.rate_bound < 1
    assert check.rate_bound == pytest.approx(1 - problem.local_growth / problem.smoothness)
    assert check.ratio == pytest.approx(math.log(check.rate) / math.log(check.rate_bound))
    # It can fail there, too: I3 meets its rate exactly, and (1 - mu)^{1.001 T} is below.
    bolder = replace(
        T4, bound=lambda p, s, t: p.initial_distance * (1 - p.local_growth) ** (1.001 * t)
    )
    instance = PROBLEMS["I3"]
    assert verify(T4, instance, local_steps=5, rounds=500).verdict == HOLDS
    assert verify(T4, instance, local_steps=5, rounds=500).ratio == pytest.approx(1.0, abs=1e-9)
    assert verify(bolder, instance, local_steps=5, rounds=500).verdict == FAILED


def test_a_start_at_the_solution_is_no_failure() -> None:
    a = np.random.default_rng(0).standard_normal((4, 9))
    x = np.ones(9)
    problem = MarginProblem([a[:2], a[2:]], [a[:2] @ x, a[2:] @ x], start=x)
    checks = verify_all(THEOREMS, problem, rounds=5)
    assert {c.verdict for c in checks} == {UNDECIDED, NOT_APPLICABLE}
    assert any("starts at x*" in c.why for c in checks)


def times_both(theorem: Theorem, share: float) -> Theorem:
    """The theorem with a share of its bound, and of a path's own."""
    own = theorem.path_bound
    if own is None:
        return times(theorem, share)
    return replace(times(theorem, share), path_bound=lambda p, s, r: share * own(p, s, r))


@pytest.mark.parametrize("name", [t.name for t in SHARPER])
def test_a_sharper_variant_holds_and_a_thousandth_of_it_fails(name: str) -> None:
    (theorem,) = [t for t in SHARPER if t.name == name]
    smaller = times_both(theorem, 1e-3)
    verdicts: dict[str, set[str]] = {"whole": set(), "thousandth": set()}
    for problem in PROBLEMS.values():
        for rounds, k, gradient in product((1, 12), (1, 3), ("stochastic", "full")):
            how: dict[str, Any] = {"rounds": rounds, "local_steps": k, "gradient": gradient}
            verdicts["whole"].add(verify(theorem, problem, seeds=8, **how).verdict)
            verdicts["thousandth"].add(verify(smaller, problem, seeds=8, **how).verdict)
    assert HOLDS in verdicts["whole"] and FAILED not in verdicts["whole"]
    assert FAILED in verdicts["thousandth"]


def test_on_every_path_too_a_bound_below_what_double_precision_resolves_is_undecided() -> None:
    # x_0 is x* up to 1e-12 a coordinate: a thousandth of each bound is below the rounding of a loss.
    features, one = np.eye(4).reshape(2, 2, 4), np.ones(4)
    start = one + 1e-12 * np.array([1.0, -1.0, 1.0, -1.0])
    problem = MarginProblem(features, np.ones((2, 2)), start=start)
    found = [times_both(t, 1e-3) for t in THEOREMS if t.every_path]
    checks = [verify(t, problem, rounds=200, step_size=0.5) for t in found]
    tried = [c for c in checks if c.verdict != NOT_APPLICABLE]
    assert len(tried) > 1 and {c.verdict for c in tried} <= {UNDECIDED, FAILED}
    assert any("what rounding leaves" in c.why for c in tried)


def test_a_tenth_of_a_path_s_bound_fails_at_tiny_steps_too() -> None:
    problem = PROBLEMS["logistic"]
    (whole,) = [t for t in THEOREMS if t.name == "T0"]
    assert whole.path_bound is not None
    tenth = times_both(whole, 0.1)
    for factor in (1e-6, 1e-10, 1e-12):
        step = factor / problem.smoothness
        assert verify(whole, problem, rounds=10, step_size=step).verdict == HOLDS
        assert verify(tenth, problem, rounds=10, step_size=step).verdict == FAILED


def test_samples_that_interpolate_almost_are_undecided_below_their_miss() -> None:
    # The mean of 1 and 1 + 1e-9 is the best fit of either direction: no step ends there.
    features = np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    problem = MarginProblem(features, np.array([[1.0, 1 + 1e-9]] * 2))
    assert problem.interpolation_error == pytest.approx(5e-10, rel=1e-5)
    exact = verify(T4_GLOBAL, problem, rounds=100)
    sampled = verify(T4_GLOBAL, problem, rounds=100, engine="numpy")
    assert sampled.measured > 1e10 * exact.bound
    assert exact.verdict == UNDECIDED and "interpolate almost" in exact.why
    assert verify(T4_GLOBAL, problem, rounds=5).verdict == HOLDS
    assert PROBLEMS["least squares"].interpolation_error == 0.0


@pytest.mark.parametrize("gradient", ["stochastic", "full"])
def test_exact_rates_are_decided_beyond_double_precision_within_one_round(gradient: str) -> None:
    problem = least_squares(n_nodes=2, samples_per_node=30, dimension=64, rank=2)
    run: dict[str, Any] = {"local_steps": 5000, "rounds": 2, "gradient": gradient}
    check = verify(T4, problem, **run)
    assert check.measured == check.bound == 0.0
    assert check.verdict == HOLDS and 0 < check.rate < check.rate_bound < 1
    # And twice the rate of a tight instance fails.
    bold = replace(T4, bound=lambda p, s, t: T4.bound(p, s, 2 * t))
    failed = verify(bold, instance_3(1).problem, local_steps=5000, rounds=2)
    assert failed.measured == failed.bound == 0.0 and failed.verdict == FAILED


# ---- and it can fail -----------------------------------------------------------------------------

# For T0, T0', T1, T2, T3, T4, T4', T5, T5', T6, L2, T7, T8a, T8b, T8b', T8c: H holds, F FAILED, U undecided,
# - not applicable. K = 5, R = 40, 8 seeds and more where they help. T7 to T8 and L2 run with their own
# clients and outer steps.
#   step-size: eta = 2.5/L. Quadratics diverge; logistic losses grow at most linearly.
#   no-averaging: T0 allows it, and one sample or one node leave nothing to average; models of sorted
#     nodes stay apart, so f at their mean does not fall. Elsewhere no path's range is known any more.
#     Without averaging there are no rounds for L2, T7 and T8 to speak of.
#   wrong-solution: D is a quarter, and the iterates do not approach the claimed x*. T6 has none, T3 and
#     separable losses have room.
#   halved-constant: fails where the constant is within two of tight; L2, T8b and T8c are.
#   biased-sampling: T0, L2, T8b and T8c hold for any order of the samples, also this; what is never
#     drawn is not fitted.
#   same-clients: what only the others hold is not fitted, so T7 fails for sorted nodes. L2 holds for any
#     clients. T8c's left side is then that of another outer step.
#   greedy-server: beyond P/Q all sums grow; L2 holds for any outer step.
EXPECTED: dict[str, dict[str, str]] = {
    "step-size": {
        "I0": "F - F F F F F - - F F F F F F F",
        "I3": "F - F F F F F - - F F F F F - F",
        "least squares": "F - F F F F F - - F F F F F - F",
        "sorted": "F - F F - - F - - F F F F F - F",
        "logistic": "F - F F U U U - - - F F U F - F",
        "separable": "- H - - - - - U U - - - - - - -",
        "sigmoid": "- - - - - - - - - U - - - - - -",
    },
    "no-averaging": {
        "I0": "H - H H H H H - - H - - - - - -",
        "I3": "H - U U U U U - - U - - - - - -",
        "least squares": "H - U U U U U - - U - - - - - -",
        "sorted": "H - U F - - F - - U - - - - - -",
        "logistic": "H - U U U U U - - - - - - - - -",
        "separable": "- H - - - - - U U - - - - - - -",
        "sigmoid": "- - - - - - - - - U - - - - - -",
    },
    "wrong-solution": {
        "I0": "F - F F F F F - - H F F F F H F",
        "I3": "F - F F F F F - - H F F H F - F",
        "least squares": "F - F F F F F - - H F F F F - F",
        "sorted": "F - F F - - F - - H F F F F - F",
        "logistic": "F - F F H F F - - - F F U F - F",
        "separable": "- H - - - - - H H - - - - - - -",
        "sigmoid": "- - - - - - - - - H - - - - - -",
    },
    "halved-constant": {
        "I0": "F - F F F H H - - H F F F F H F",
        "I3": "F - F H F F H - - H F H H F - F",
        "least squares": "F - F H H H H - - H F H H F - F",
        "sorted": "F - F H - - H - - H F F H F - F",
        "logistic": "F - F H H H H - - - F H H F - F",
        "separable": "- H - - - - - H H - - - - - - -",
        "sigmoid": "- - - - - - - - - H - - - - - -",
    },
    "biased-sampling": {
        "I0": "H - H H H H H - - H H H H H H H",
        "I3": "H - F F F F F - - U H F F H - H",
        "least squares": "H - F U U U U - - U H U U H - H",
        "sorted": "H - F U - - U - - U H U U H - H",
        "logistic": "H - F U U U U - - - H U U H - H",
        "separable": "- H - - - - - U U - - - - - - -",
        "sigmoid": "- - - - - - - - - U - - - - - -",
    },
    "same-clients": {
        "I0": "H - H H H H H - - H H H H H H H",
        "I3": "H - U U U U U - - U H U U H - H",
        "least squares": "H - U U U U U - - U H U U H - F",
        "sorted": "H - U F - - F - - U H F F H - H",
        "logistic": "H - U U U U U - - - H U U H - F",
        "separable": "- H - - - - - U U - - - - - - -",
        "sigmoid": "- - - - - - - - - U - - - - - -",
    },
    "greedy-server": {
        "I0": "F - F F F F F - - H H F F F F F",
        "I3": "F - F F F F F - - U H F F F - F",
        "least squares": "F - F F F F F - - U H F F F - F",
        "sorted": "F - F F - - F - - U H F F F - F",
        "logistic": "F - F F F F F - - - H F F F - F",
        "separable": "- H - - - - - U U - - - - - - -",
        "sigmoid": "- - - - - - - - - U - - - - - -",
    },
}
LETTERS = {HOLDS: "H", FAILED: "F", UNDECIDED: "U", NOT_APPLICABLE: "-"}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_violation_comes_out_as_the_table_says(name: str, problem: str) -> None:
    violation, instance = VIOLATIONS[name], PROBLEMS[problem]
    options: dict[str, Any] = {"local_steps": 5, "rounds": 40, "seeds": 8}
    honest = verify_all(THEOREMS, instance, **options)
    assert {c.verdict for c in honest} <= {HOLDS, NOT_APPLICABLE}
    broken = verify_all(THEOREMS, instance, violation=violation, **options)
    found = " ".join(LETTERS[c.verdict] for c in broken)
    assert found == EXPECTED[name][problem]


def test_a_wrong_solution_is_measured_against_itself() -> None:
    # T4 at K = 1: the iterates go to the true x*, half of sqrt(D) from the claimed one.
    problem = least_squares(**SMALL)
    wrong = VIOLATIONS["wrong-solution"]
    check = verify(T4, problem, rounds=400, violation=wrong)
    assert check.measured == pytest.approx(0.25 * problem.initial_distance, rel=1e-6)
    assert check.verdict == FAILED
    assert verify(T4_GLOBAL, problem, rounds=400, violation=wrong).measured == check.measured
