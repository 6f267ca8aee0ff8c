"""Verdicts that rounding, underflow, chance or a name could turn round: never HOLDS of a false bound."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claim_cases import claim

from theory.claim.claim import from_theorem
from theory.claim.expression import parse
from theory.claim.lower import search_lower
from theory.claim.verdict import NOT_REFUTED, grid, try_to_break
from theory.problems.generators import least_squares
from theory.problems.losses import MarginLoss, check_loss
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.variants import FedAvg, Round, Variant
from theory.support.errors import UserError
from theory.support.verdicts import FAILED, HOLDS, UNDECIDED
from theory.theorems import SHARPER, T0, T1, T2, T4, THEOREMS, Setting, instance_3
from theory.theorems.base import BestAtRounds
from theory.verification.check import verify, verify_all
from theory.verification.report import make_report
from theory.verification.sweep import Sweep, run_sweep

L2 = next(t for t in THEOREMS if t.name == "L2")
T4_S5 = next(t for t in SHARPER if t.name == "T4/S5")


def scalar(a: float) -> MarginProblem:
    """f = (a x - a)^2/2, which one step of 1/L solves."""
    return MarginProblem([np.array([[a]])], [np.array([a])])


# ---- rounding and underflow ----------------------------------------------------------------------


@pytest.mark.parametrize("theorem", [T4, T4_S5], ids=lambda t: t.name)
def test_one_step_that_solves_it_never_fails_a_true_rate(theorem: Any) -> None:
    """A step is a difference of terms of the size of what it starts from: 1e-16 of it may be left."""
    found = [
        verify(theorem, scalar(k / 10), rounds=r, gradient="full")
        for k in range(1, 101)
        for r in (1, 3)
    ]
    assert {check.verdict for check in found} <= {HOLDS, UNDECIDED}
    # A bound above what is left is decided as before.
    loose = replace(theorem, bound=lambda p, s, t: p.initial_distance * 1e-9**t)
    tight = replace(theorem, bound=lambda p, s, t: p.initial_distance * 0.9**t)
    assert all(verify(t, scalar(0.7), gradient="full").verdict == HOLDS for t in (loose, tight))


def test_a_negative_distance_is_rounding_and_proves_nothing() -> None:
    nearly = math.sqrt(1 - 1e-10)
    pair = MarginProblem(
        [np.array([[1.0]]), np.array([[nearly]])], [np.array([1.0]), np.array([nearly])]
    )
    false = replace(T4, bound=lambda p, s, t: p.initial_distance * 1e-30**t)
    check = verify(false, pair, rounds=1, gradient="full")
    assert check.verdict == UNDECIDED and "rounding leaves" in check.why
    # Not so where the truth is far above: that FAILS.
    slow = least_squares(n_nodes=2, samples_per_node=8, dimension=32, rank=4)
    assert verify(false, slow, rounds=3, gradient="full").verdict == FAILED


def test_what_is_no_power_is_not_carried_on_below_underflow() -> None:
    problem = instance_3(1, 4).problem
    stops = replace(T4, name="a", bound=lambda p, s, t: p.initial_distance * 0.9**t * (t < 5))
    assert verify(stops, problem, rounds=50).verdict == FAILED

    def gauss(p: Any, s: Any, t: int) -> float:
        return float(p.initial_distance * np.exp(-0.02 * t**2))

    bends = replace(T4, name="b", bound=gauss)
    for rounds in (100, 250, 400):
        assert verify(bends, problem, rounds=rounds).verdict != HOLDS
    # A power is: T4's own, where it has long underflowed.
    assert verify(T4, problem, rounds=20_000).verdict == HOLDS
    faster = replace(T4, name="c", bound=lambda p, s, t: T4.bound(p, s, t) * 0.999**t)
    assert verify(faster, problem, rounds=20_000).verdict == FAILED


@pytest.mark.parametrize("size", [1e-100, 1e100])
def test_squares_that_leave_double_precision_fail_no_theorem(size: float) -> None:
    random = np.random.default_rng(0)
    nodes = [size * random.standard_normal((m, 8)) for m in (1, 3, 2)]
    problem = MarginProblem(nodes, [a @ np.ones(8) for a in nodes])
    found = [verify(t, problem, rounds=5) for t in (T1, T2)]
    assert {check.verdict for check in found} == {UNDECIDED}
    assert all("double precision" in check.why for check in found)


# ---- chance --------------------------------------------------------------------------------------


def test_the_least_of_expectations_is_not_the_expectation_of_the_least() -> None:
    rows = np.array([[1.0, 0.0], [0.6, 0.8]])
    problem = MarginProblem([rows], [np.zeros(2)], start=np.array([0.0, 1.0]))
    # Between E min = 0.13 and min E = 0.16.
    theorem = replace(T2, name="best", metric=BestAtRounds(), bound=lambda *_: 0.145)
    check = verify(theorem, problem, rounds=3, step_size=1.9 / problem.smoothness)
    assert check.how.startswith("mean of") and check.verdict != FAILED
    assert check.low < 0.145


def test_ones_own_clients_are_chance_whatever_the_class_is_called() -> None:
    class Own(FedAvg):
        def select(self, round: Round) -> Any:
            return [int(round.random.integers(round.n_nodes))]

    class Same(Variant):
        select = Own.select

    problem = MarginProblem(
        [np.array([[1.0, 0.0]]), np.array([[0.0, 0.1]])],
        [np.zeros(1)] * 2,
        start=np.array([1.0, 1.0]),
    )
    run: dict[str, Any] = {"step_size": 1 / problem.smoothness, "rounds": 3, "gradient": "full"}
    ends = [
        run_local_sgd(problem, local_steps=1, seeds=50, variant=v, **run).history["global_loss"][
            0, :, -1
        ]
        for v in (Own(), Same())
    ]
    np.testing.assert_array_equal(ends[0], ends[1])
    assert len(np.unique(ends[0])) > 1
    own, same = (
        verify(replace(T2, name="mine"), problem, variant=v, seeds=100, **run)
        for v in (Own(), Same())
    )
    assert own.how == same.how and own.how.startswith("mean of")
    assert own.measured == pytest.approx(same.measured)


# ---- names ---------------------------------------------------------------------------------------


def test_two_theorems_of_one_name_are_refused(tmp_path: Path) -> None:
    problem = least_squares(n_nodes=2, samples_per_node=4, dimension=32)
    false = replace(T2, bound=lambda p, s, t: 1e-12)
    with pytest.raises(UserError, match="2 theorems are called 'T2', allowed: a name each"):
        verify_all([false, T2], problem)
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom theory.theorems import T2, T4\n"
        "FALSE = replace(T2, bound=lambda p, s, t: 1e-12)\n"
    )
    path = tmp_path / "mine.py"
    for theorems in ((f"{path}:FALSE",), (f"{path}:FALSE", "T4")):
        with pytest.raises(UserError, match="called 'T2' as one of ours is"):
            Sweep(theorems, ("I0",)).check()
    # Ours by another way is ours.
    Sweep((f"{path}:T4",), ("I0",)).check()


def test_each_step_size_has_its_own_row_beside_the_sharper_variant() -> None:
    def rows(*factors: float) -> list[tuple[Any, ...]]:
        sweep = Sweep(
            ("T1", "T1/S1"),
            ("least-squares",),
            ("iid",),
            (5,),
            20,
            2,
            64,
            factors,
            gradients=("full",),
        )
        return [
            (r.step_factor, r.checks, r.median, r.median_sharper, r.median_bounds)
            for r in make_report(sweep).sharper
        ]

    assert rows(0.01, 1.5) == rows(0.01) + rows(1.5)
    assert len(rows(0.01)) == 1 and rows(0.01)[0][:2] == (0.01, 1)


def test_files_of_one_name_in_two_folders_are_two_problems(tmp_path: Path) -> None:
    paths = []
    for i, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        rows = np.random.default_rng(i).standard_normal((6, 20))
        paths.append(str(tmp_path / folder / "x.npz"))
        np.savez(paths[-1], A=rows, b=rows.sum(axis=1), node=np.repeat([0, 1], 3))
    own = Sweep(("T2",), (), local_steps=(2,), rounds=4, gradients=("full",), data=tuple(paths))
    assert [check.problem for check in run_sweep(own)] == paths


# ---- claims and losses ---------------------------------------------------------------------------


def test_no_worst_case_certifies_a_claim_that_names_mu_without_growth() -> None:
    # False: f = (L/4) x^2 has mu = L/2 and ends at 0.226 L D.
    text = "L*D/2*min(1, 100*(mu/L-1/2)^2+1/1000)"
    outcome = try_to_break(claim(text), grid([1], [1], [0.1]), seconds=20)
    solved = outcome.reports[1]
    assert not solved.certified and solved.left_out == ["the class gives no value to mu"]
    assert outcome.verdict in (NOT_REFUTED, "REFUTED")


def test_a_lower_bound_too_large_for_a_number_is_false() -> None:
    where: dict[str, Any] = {"kappas": [6.0], "rounds": [1, 2], "step_factors": [1.0]}
    huge = parse("L*D/(100000*R)*exp(1000*(K-1))")
    assert search_lower(huge, local_steps=[1, 2], **where).refuted
    assert not search_lower(huge, local_steps=[1], **where).refuted


@pytest.mark.parametrize("theorem", [T0, L2], ids=lambda t: t.name)
def test_a_theorem_about_what_no_search_measures_is_refused(theorem: Any) -> None:
    with pytest.raises(UserError, match=r"is about .*, allowed: "):
        from_theorem(theorem, "full")


@pytest.mark.parametrize("wrong", [None, "x", 1j, math.nan, -1.0])
def test_a_bound_that_is_no_number_is_refused(wrong: Any) -> None:
    problem = least_squares(n_nodes=2, samples_per_node=4, dimension=32)
    theorem = replace(T2, name="mine", bound=lambda *_: wrong)
    with pytest.raises(UserError, match="its bound on least squares is"):
        verify(theorem, problem, rounds=3)
    if wrong != -1.0:  # a claim of less than 0 is refuted, not refused
        with pytest.raises(UserError, match="its bound on least squares is"):
            from_theorem(theorem, "full").bound(problem, _setting(problem))


def _setting(problem: MarginProblem) -> Setting:
    return Setting(step_size=1 / problem.smoothness, local_steps=1, rounds=3, gradient="full")


@pytest.mark.parametrize("shape", [(), (1,), (1, 4)])
def test_a_bound_of_the_path_has_a_number_a_seed(shape: tuple[int, ...]) -> None:
    problem = least_squares(n_nodes=2, samples_per_node=4, dimension=32)
    theorem = replace(T0, name="mine", path_bound=lambda *_: np.ones(shape))
    with pytest.raises(UserError, match=r"its path_bound has shape .*, allowed: \(4,\)"):
        verify(theorem, problem, rounds=3, seeds=4)


@pytest.mark.parametrize("place", [0.5, 0.71, 0.9, 1.3, 2.1])
def test_a_slope_that_jumps_between_two_points_of_the_grid_is_seen(place: float) -> None:
    def slope(z: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.clip(z - t, -1, 1) + 5 * np.sign(z - t) * (np.abs(z - t) > place)

    def value(z: np.ndarray, t: np.ndarray) -> np.ndarray:
        away = np.abs(z - t)
        return np.where(away <= 1, away**2 / 2, away - 0.5) + 5 * np.maximum(away - place, 0)

    with pytest.raises(UserError, match="second derivative"):
        check_loss(MarginLoss("jumps", value, slope, 1.0, True, True), np.zeros(3))
