"""verify_grid is a table of the checks that verify makes; variants are checked and recorded."""

from __future__ import annotations

from typing import Any

import pytest

from theory.problems.generators import (
    least_squares,
    realizable_logistic,
)
from theory.simulation.variants import FedAvg, Reports, Variant
from theory.support.verdicts import HOLDS, NOT_APPLICABLE, UNDECIDED
from theory.theorems import (
    T0,
    T1,
    T2,
    T4,
    T6,
    T7,
    T8A,
    THEOREMS,
)
from theory.verification.check import verify, verify_all
from theory.verification.grid import verify_grid
from theory.verification.violations import VIOLATIONS

SMALL: dict[str, Any] = {"n_nodes": 2, "samples_per_node": 6, "dimension": 30, "rank": 4}


# ---- grids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["stochastic", "full"])
def test_a_grid_is_a_table_of_the_same_checks(gradient: str) -> None:
    problem = least_squares(**SMALL)
    etas = [0.5 / problem.smoothness, 3.0 / problem.smoothness]
    theorems = [T0, T1, T4, T6, T7, T8A]
    rows = verify_grid(theorems, problem, etas, [1, 4], rounds=6, gradient=gradient, workers=2)
    assert [(r["theorem"], r["local_steps"]) for r in rows] == 2 * [
        (t.name, k) for k in (1, 4) for t in theorems
    ]
    assert [r["eta_L"] for r in rows] == pytest.approx([0.5] * 12 + [3.0] * 12)
    for row in rows:
        theorem = next(t for t in theorems if t.name == row["theorem"])
        alone = verify(
            theorem,
            problem,
            step_size=row["step_size"],
            local_steps=row["local_steps"],
            rounds=6,
            gradient=gradient,
        )
        assert (row["verdict"], row["how"], row["why"]) == (alone.verdict, alone.how, alone.why)
        assert row["measured"] == pytest.approx(alone.measured, rel=1e-12, nan_ok=True)
    assert {r["verdict"] for r in rows[:3]} == {HOLDS}
    assert {r["verdict"] for r in rows[12:]} == {NOT_APPLICABLE}
    with pytest.raises(ValueError, match="the grid is empty"):
        verify_grid(T1, problem, [], [1])


def test_pandas_takes_the_table_as_it_is() -> None:
    pandas = pytest.importorskip("pandas")
    problem = least_squares(**SMALL)
    rows = verify_grid([T1, T4], problem, [0.5 / problem.smoothness], [1, 4], rounds=6)
    frame = pandas.DataFrame(rows)
    assert list(frame.columns) == list(rows[0]) and len(frame) == 4
    # Numbers are columns of numbers, with which one goes on: bound over measured, against K.
    ratio = (frame["bound"] / frame["measured"]).groupby(frame["local_steps"]).min()
    assert list(ratio.index) == [1, 4] and (ratio >= 1).all()
    assert frame.pivot(index="local_steps", columns="theorem", values="verdict").shape == (2, 2)


def test_a_grid_advances_its_expectations_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(*_: Any, **__: Any) -> Any:
        raise AssertionError("a cell computed its own expectations")

    monkeypatch.setattr("theory.verification.judge.exact_moments", alone)
    problem = least_squares(**SMALL)
    rows = verify_grid([T1, T2, T7, T8A], problem, [0.5, 1.0], [1, 3], rounds=5)
    assert {r["how"] for r in rows} == {"exact"} and {r["verdict"] for r in rows} == {HOLDS}


def test_a_grid_of_sampled_paths_and_of_a_violation_is_no_other() -> None:
    problem = realizable_logistic(**SMALL)
    eta = 1 / problem.smoothness
    (row,) = verify_grid(T1, problem, [eta], [3], rounds=5)
    assert row["measured"] == verify(T1, problem, local_steps=3, rounds=5).measured
    exact = least_squares(**SMALL)
    broken = VIOLATIONS["step-size"]
    (row,) = verify_grid(T1, exact, [1 / exact.smoothness], [3], rounds=5, violation=broken)
    assert row["measured"] == verify(T1, exact, local_steps=3, rounds=5, violation=broken).measured


# ---- variants ------------------------------------------------------------------------------------


class Damped(Variant):
    """An own outer step, in three lines."""

    name = "half steps"

    def outer_step(self, reports: Reports) -> float:
        return 0.5


def test_a_variant_of_ones_own_is_compared_and_recorded() -> None:
    problem = least_squares(**SMALL)
    # Full gradients and no draws of its own: the run is what it is, and the verdict exact.
    own = verify(T2, problem, local_steps=3, rounds=20, gradient="full", variant=Damped())
    assert (own.variant, own.how, own.verdict) == ("half steps", "deterministic", HOLDS)
    told = FedAvg(outer_step_size=0.5)
    known = verify(T2, problem, local_steps=3, rounds=20, gradient="full", variant=told)
    assert known.variant == "FedAvg, outer step 0.5" and known.how == "exact"
    assert known.measured == pytest.approx(own.measured, rel=1e-9)
    # The theorem's own bound knows a fixed beta; of a variant it knows nothing.
    assert known.bound == pytest.approx(2 * own.bound)
    # Where samples are drawn nothing is known of the paths that no seed has shown.
    sampled = verify(T2, problem, local_steps=3, rounds=20, variant=Damped())
    assert sampled.verdict == UNDECIDED and sampled.measured < sampled.bound


def test_theorems_are_checked_with_their_own_clients_and_servers_unless_told() -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    checks = {c.theorem: c for c in verify_all(THEOREMS, problem, local_steps=2, rounds=10)}
    assert checks["T2"].variant == "Local SGD"
    assert checks["T7"].variant == "FedAvg, 1 nodes a round" and checks["T7"].how == "exact"
    assert checks["T8b"].variant == "FedAvg, 1 nodes a round, outer step extrapolated"
    polyak = FedAvg(outer_step_size="polyak")
    told = {c.theorem: c for c in verify_all(THEOREMS, problem, rounds=10, seeds=8, variant=polyak)}
    assert {c.variant for c in told.values()} == {"FedAvg, outer step polyak"}
    assert told["T8c"].verdict == told["L2"].verdict == told["T2"].verdict == HOLDS
    assert "outer step: beta = polyak" in told["T8b"].why


def test_reshuffled_samples_leave_what_holds_on_every_path() -> None:
    problem = realizable_logistic(**SMALL)
    shuffled = FedAvg(order="reshuffled")
    checks = verify_all([T0, T1, T2], problem, local_steps=3, rounds=20, variant=shuffled)
    assert [c.verdict for c in checks] == [HOLDS, NOT_APPLICABLE, NOT_APPLICABLE]
    assert checks[1].why == "samples: reshuffled, allowed: uniform"
    full = verify(T1, problem, rounds=20, gradient="full", variant=shuffled)
    assert full.verdict == HOLDS


@pytest.mark.parametrize("beta", [0.25, "extrapolated", "polyak"])
def test_t0_counts_the_distance_left_under_an_outer_step(beta: Any) -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    told = FedAvg(participants=1, outer_step_size=beta)
    check = verify(T0, problem, local_steps=3, rounds=5, variant=told)
    assert check.verdict == HOLDS and check.how == "worst of 32 paths"
