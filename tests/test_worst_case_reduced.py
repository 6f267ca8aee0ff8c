"""The reduced performance-estimation problem: known values, PEPit's values, certificates, errors."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest

from theory.worst_case import reduction as pep_reduced
from theory.worst_case.reduction import STAR, Schedule, WorstCase, worst_case
from theory.worst_case.sdp import SolverError, TimeLimitError

needs_pepit = pytest.mark.skipif(
    importlib.util.find_spec("PEPit") is None or importlib.util.find_spec("clarabel") is None,
    reason="PEPit or CLARABEL is not installed: pip install '.[pep]'",
)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("step_size", [0.5, 1.0])
def test_gradient_descent_has_its_known_worst_case(steps: int, step_size: float) -> None:
    # L D / (4 eta L T + 2): Drori and Teboulle, 2014.
    found = worst_case(Schedule(steps, 1, step_size, "last", one_node=True))
    assert found.value == pytest.approx(1 / (4 * step_size * steps + 2), abs=1e-8)


def test_one_local_step_is_gradient_descent_whatever_the_nodes() -> None:
    several = worst_case(Schedule(1, 3, 1.0, "last"))
    one = worst_case(Schedule(3, 1, 1.0, "last", one_node=True))
    assert several.value == pytest.approx(one.value, abs=1e-8)
    # With two local steps the nodes can disagree: less bad than T steps of one node at K = 3.
    apart = worst_case(Schedule(3, 1, 1.0, "last"))
    assert apart.value > one.value + 1e-3


@pytest.mark.parametrize(("local_steps", "rounds"), [(1, 2), (3, 1), (3, 2)])
def test_the_averages_meet_t1_and_t2_at_one_over_l(local_steps: int, rounds: int) -> None:
    # I0 reaches both, so nothing can be worse.
    local = worst_case(Schedule(local_steps, rounds, 1.0, "average_local"))
    assert local.value == pytest.approx(1 / (2 * local_steps * rounds), abs=1e-8)
    sync = worst_case(Schedule(local_steps, rounds, 1.0, "average_sync"))
    assert sync.value == pytest.approx(1 / (2 * rounds), abs=1e-8)


@needs_pepit
@pytest.mark.parametrize(
    ("n", "local_steps", "rounds", "step_size", "metric"),
    [
        (2, 3, 1, 1.0, "last"),
        (3, 3, 1, 1.0, "last"),
        (4, 3, 1, 1.0, "last"),
        (2, 2, 2, 1.5, "average_local"),
        (3, 2, 2, 0.5, "average_sync"),
        (2, 3, 2, 1.25, "best"),
    ],
)
def test_pepit_over_all_nodes_agrees(
    n: int, local_steps: int, rounds: int, step_size: float, metric: str
) -> None:
    from theory.worst_case.pepit_example import wc_local_sgd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pepit, theoretical = wc_local_sgd(
            1.0, step_size, n, local_steps, rounds, metric, solver="CLARABEL", verbose=-1
        )
    found = worst_case(Schedule(local_steps, rounds, step_size, metric))
    assert found.value == pytest.approx(pepit, abs=1e-6)
    if metric == "last":
        assert theoretical <= pepit + 1e-6
    else:
        assert theoretical >= pepit - 1e-6


@needs_pepit
def test_pepit_scales_as_l_and_refuses_an_unknown_metric() -> None:
    from theory.worst_case.pepit_example import wc_local_sgd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value, _ = wc_local_sgd(4.0, 0.25, 2, 2, 1, "last", solver="CLARABEL", verbose=-1)
    assert value == pytest.approx(4 * 0.1, abs=1e-5)
    with pytest.raises(ValueError, match="metric is 'median'"):
        wc_local_sgd(1.0, 1.0, 2, 2, 1, "median")


# ---- certificates --------------------------------------------------------------------------------

GRID = [
    Schedule(3, 2, 1.0, "last"),
    Schedule(2, 2, 1.5, "best"),
    Schedule(2, 3, 0.5, "average_sync"),
    Schedule(2, 2, 0.5, "distance", growth=0.2),
    Schedule(2, 2, 0.5, "distance", growth=0.2, growth_of="mean"),
]


@pytest.mark.parametrize("schedule", GRID, ids=lambda s: f"{s.metric}-{s.growth_of}")
def test_certificates_bound_the_value_and_grams_are_feasible(schedule: Schedule) -> None:
    found = worst_case(schedule)
    assert -1e-9 < found.gap < 1e-7
    assert np.linalg.eigvalsh(found.mean_gram)[0] > -1e-9
    assert np.linalg.eigvalsh(found.deviation_gram)[0] > -1e-9
    assert found.mean_gram[0, 0] == pytest.approx(1.0, abs=1e-6)
    assert min(found.multipliers.values()) > -1e-9


def test_multipliers_balance_the_objective_point_by_point() -> None:
    # The values f_a are free, so a proof's weights on them must add to the metric: f at the last point.
    found = worst_case(Schedule(3, 2, 1.0, "last"))
    points = found.schedule.points
    balance = np.zeros(points)
    for (a, b), weight in found.multipliers.items():
        if a != STAR:
            balance[a] -= weight
        if b != STAR:
            balance[b] += weight
    np.testing.assert_allclose(balance, np.eye(points)[-1], atol=1e-7)


def test_collecting_conditions_gives_what_all_of_them_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schedule = Schedule(4, 3, 1.0, "last")
    everything = worst_case(schedule)
    monkeypatch.setattr(pep_reduced, "ALL_PAIRS_POINTS", 4)
    collected = worst_case(schedule)
    assert collected.conditions < everything.conditions
    assert collected.value == pytest.approx(everything.value, abs=1e-7)


# ---- no number without convergence ---------------------------------------------------------------


def solve_with(monkeypatch: pytest.MonkeyPatch, **options: float) -> WorstCase:
    solver = pep_reduced.maximise
    monkeypatch.setattr(pep_reduced, "maximise", lambda *a, **k: solver(*a, **{**k, **options}))
    return worst_case(Schedule(2, 2, 1.0, "last"))


def test_a_solver_that_does_not_converge_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SolverError, match="3 iterations were not enough"):
        solve_with(monkeypatch, max_iterations=3)


def test_an_unreachable_tolerance_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SolverError, match="not converged"):
        solve_with(monkeypatch, tolerance=1e-40, acceptable=1e-40)


def test_the_time_limit_holds_within_a_solve() -> None:
    with pytest.raises(TimeLimitError):
        worst_case(Schedule(4, 3, 1.0, "last"), time_limit=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_steps": 0}, "at least 1"),
        ({"step_size": 2.0}, "step_size is 2.0 / L"),
        ({"metric": "median"}, "metric is 'median'"),
        ({"growth": 1.0}, "growth is 1.0 L"),
        ({"growth_of": "all"}, "growth_of is 'all'"),
    ],
)
def test_a_schedule_outside_its_range_is_refused(change: dict[str, object], message: str) -> None:
    options: dict[str, object] = {"local_steps": 2, "rounds": 2, "step_size": 1.0} | change
    with pytest.raises(ValueError, match=message):
        Schedule(**options)  # type: ignore[arg-type]
