"""The reduced performance-estimation problem: known values, PEPit's values, certificates, errors."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worst_case_cells import make_cell, needs_clarabel, needs_pepit

from theory.worst_case import clarabel_route, conditions
from theory.worst_case import reduction as pep_reduced
from theory.worst_case.cells import Cell
from theory.worst_case.conditions import STAR
from theory.worst_case.constraints import SolverError, TimeLimitError
from theory.worst_case.extremal import attained
from theory.worst_case.reduction import WorstCase, worst_case


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("step_size", [0.5, 1.0])
def test_gradient_descent_has_its_known_worst_case(steps: int, step_size: float) -> None:
    # L D / (4 eta L T + 2): Drori and Teboulle, 2014.
    found = worst_case(make_cell(steps, 1, step_size, "last", one_node=True))
    assert found.value == pytest.approx(1 / (4 * step_size * steps + 2), abs=1e-8)


def test_one_local_step_is_gradient_descent_whatever_the_nodes() -> None:
    several = worst_case(make_cell(1, 3, 1.0, "last"))
    one = worst_case(make_cell(3, 1, 1.0, "last", one_node=True))
    assert several.value == pytest.approx(one.value, abs=1e-8)
    # With two local steps the nodes can disagree: less bad than T steps of one node at K = 3.
    apart = worst_case(make_cell(3, 1, 1.0, "last"))
    assert apart.value > one.value + 1e-3


@pytest.mark.parametrize(("local_steps", "rounds"), [(1, 2), (3, 1), (3, 2)])
def test_the_averages_meet_t1_and_t2_at_one_over_l(local_steps: int, rounds: int) -> None:
    # I0 reaches both, so nothing can be worse.
    local = worst_case(make_cell(local_steps, rounds, 1.0, "average_local"))
    assert local.value == pytest.approx(1 / (2 * local_steps * rounds), abs=1e-8)
    sync = worst_case(make_cell(local_steps, rounds, 1.0, "average_sync"))
    assert sync.value == pytest.approx(1 / (2 * rounds), abs=1e-8)


@needs_pepit
@pytest.mark.parametrize(
    ("n", "local_steps", "rounds", "step_size", "metric", "outer_step"),
    [
        (2, 3, 1, 1.0, "last", 1.0),
        (3, 3, 1, 1.0, "last", 1.0),
        (4, 3, 1, 1.0, "last", 1.0),
        (2, 2, 2, 1.5, "average_local", 1.0),
        (3, 2, 2, 0.5, "average_sync", 1.0),
        (2, 3, 2, 1.25, "best", 1.0),
        (2, 2, 2, 0.9, "last", 1.4),
        (3, 2, 2, 0.7, "best", 1.6),
        (2, 2, 2, 0.8, "average_local", 1.5),
    ],
)
def test_pepit_over_all_nodes_agrees(
    n: int, local_steps: int, rounds: int, step_size: float, metric: str, outer_step: float
) -> None:
    from theory.worst_case.pepit_example import wc_local_sgd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pepit, theoretical = wc_local_sgd(
            1.0,
            step_size,
            n,
            local_steps,
            rounds,
            metric,
            outer_step,
            solver="CLARABEL",
            verbose=-1,
        )
    found = worst_case(make_cell(local_steps, rounds, step_size, metric, outer_step=outer_step))
    assert found.value == pytest.approx(pepit, abs=1e-6)
    if outer_step != 1:
        return
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
    make_cell(3, 2, 1.0, "last"),
    make_cell(2, 2, 1.5, "best"),
    make_cell(2, 3, 0.5, "average_sync"),
    make_cell(2, 2, 0.5, "distance", growth=0.2),
    make_cell(2, 2, 0.5, "distance", growth=0.2, growth_of="mean"),
    make_cell(2, 2, 0.9, "last", outer_step=1.4),
    make_cell(2, 2, 1.5, "best", outer_step=1.8),
]


@pytest.mark.parametrize(
    "schedule", GRID, ids=lambda s: f"{s.metric}-{s.growth_of}-{s.outer_step:g}"
)
def test_certificates_bound_the_value_and_grams_are_feasible(schedule: Cell) -> None:
    found = worst_case(schedule)
    assert -1e-9 < found.gap < 1e-7
    assert np.linalg.eigvalsh(found.mean_gram)[0] > -1e-9
    assert np.linalg.eigvalsh(found.deviation_gram)[0] > -1e-9
    assert found.mean_gram[0, 0] == pytest.approx(1.0, abs=1e-6)
    assert min(found.multipliers.values()) > -1e-9


def test_multipliers_balance_the_objective_point_by_point() -> None:
    # The values f_a are free, so a proof's weights on them must add to the metric: f at the last point.
    found = worst_case(make_cell(3, 2, 1.0, "last"))
    points = found.cell.points
    balance = np.zeros(points)
    for (a, b), weight in found.multipliers.items():
        if a != STAR:
            balance[a] -= weight
        if b != STAR:
            balance[b] += weight
    np.testing.assert_allclose(balance, np.eye(points)[-1], atol=1e-7)


def test_the_dual_is_a_proof_that_can_be_read() -> None:
    # Weighted by its multipliers, the inequalities add up to the metric: over the scalars exactly, over
    # the Gram matrices up to a psd slack.
    found = worst_case(make_cell(2, 2, 1.0, "best"))
    dual = found.dual
    assert [label.kind for label in dual.labels[:4]] == ["start", "best", "best", "best"]
    np.testing.assert_allclose(dual.constraints.scalars.T @ dual.multipliers, dual.goal, atol=1e-7)
    for combined, block in zip(
        dual.constraints.combine(dual.multipliers), dual.blocks, strict=True
    ):
        assert np.linalg.eigvalsh(combined - block)[0] > -1e-7
    assert dual.constraints.limits @ dual.multipliers == pytest.approx(found.value, abs=1e-7)
    assert dual.certified() == found.certified and len(found.multipliers) == found.conditions
    # Half of one multiplier, and the proof no longer gives the value.
    largest = int(np.argmax(dual.multipliers))
    dual.multipliers[largest] /= 2
    assert abs(dual.certified() - found.value) > 1e-3


@pytest.mark.parametrize(
    "cell",
    [
        make_cell(4, 3),
        make_cell(3, 3, 0.5, "distance", growth=0.2),
        make_cell(3, 3, 0.5, "distance", growth=0.2, growth_of="mean"),
        make_cell(3, 3, 0.8, "last", outer_step=1.3),
    ],
    ids=lambda c: f"{c.metric}-{c.growth_of}-{c.outer_step:g}",
)
def test_collecting_conditions_gives_what_all_of_them_give(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = worst_case(cell)
    monkeypatch.setattr(pep_reduced, "ALL_PAIRS_POINTS", 4)
    collected = worst_case(cell)
    assert collected.conditions < everything.conditions
    assert collected.value == pytest.approx(everything.value, abs=1e-7)
    assert most_violated(cell, collected) < 1e-8


def most_violated(cell: Cell, found: WorstCase) -> float:
    """The condition that fails most, of all points and x*, by its definition."""
    trajectory = conditions.Trajectory.of(cell)
    grams = [found.mean_gram, found.deviation_gram]
    rows = list(zip((trajectory.mean, trajectory.deviation), grams, strict=True))
    n, losses = cell.points, np.append(found.losses, 0.0)
    mu = cell.growth / (1 - cell.growth) if cell.growth_of == "nodes" else 0.0

    def product(u: list[np.ndarray], v: list[np.ndarray]) -> float:
        return sum(float(a @ g @ b) for a, b, (_, g) in zip(u, v, rows, strict=True))

    x = [[part[a] for part, _ in rows] for a in range(n + 1)]
    g = [[part[n + 1 + a] for part, _ in rows] for a in range(n + 1)]

    def minus(u: list[np.ndarray], v: list[np.ndarray]) -> list[np.ndarray]:
        return [a - b for a, b in zip(u, v, strict=True)]

    worst = -np.inf
    for a in range(n + 1):
        for b in range(n + 1):
            step = minus(g[a], g[b])
            excess = losses[b] - losses[a] + product(g[b], minus(x[a], x[b]))
            excess += 0.5 * product(step, step)
            if b == n:
                shifted = minus(x[a], g[a])
                excess += 0.5 * mu * product(shifted, shifted)
            worst = max(worst, excess if a != b else -np.inf)
    return worst


def test_conditions_at_the_minimiser_that_were_dropped_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Above ALL_PAIRS_POINTS points the coarse phase drops what does not bind, x* among it. Here it drops
    # every condition (a, x*) at first.
    cell = make_cell(3, 3, 0.5, "distance", growth=0.2)
    everything = worst_case(cell).value
    monkeypatch.setattr(pep_reduced, "ALL_PAIRS_POINTS", 4)
    likely = pep_reduced.likely_pairs
    without = lambda c: {(a, b) for a, b in likely(c) if b != STAR or a == 0}  # noqa: E731
    monkeypatch.setattr(pep_reduced, "likely_pairs", without)
    assert worst_case(cell).value == pytest.approx(everything, abs=1e-7)


# ---- the second solver ---------------------------------------------------------------------------

ROUTES = [
    *GRID,
    make_cell(3, 4, 1.0, "average_local", one_node=True),
    make_cell(6, 3, 1.0),
    make_cell(5, 4, 0.5, "distance", growth=0.1),
]


@needs_clarabel
@pytest.mark.parametrize("cell", ROUTES, ids=lambda c: f"{c.metric}-{c.local_steps}-{c.growth_of}")
def test_clarabel_finds_the_same_value(cell: Cell) -> None:
    ours, theirs = worst_case(cell), worst_case(cell, solver="CLARABEL")
    assert (ours.solver, theirs.solver) == ("interior point", "CLARABEL")
    assert theirs.value == pytest.approx(ours.value, abs=1e-7)
    assert abs(theirs.gap) < 1e-7


@needs_clarabel
def test_clarabel_takes_over_where_ours_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make_cell(2, 2)
    ours = worst_case(cell)

    def fail(*_: object, **__: object) -> None:
        raise SolverError("not converged: a test")

    monkeypatch.setattr(pep_reduced, "maximise", fail)
    rescued = worst_case(cell)
    assert (ours.solver, rescued.solver) == ("interior point", "CLARABEL")
    assert rescued.value == pytest.approx(ours.value, abs=1e-7)


@needs_clarabel
def test_clarabel_reports_time_and_failure() -> None:
    program = worst_case(make_cell(4, 3)).dual
    arguments = program.constraints, program.goal, program.blocks
    with pytest.raises(TimeLimitError):
        clarabel_route.maximise(*arguments, deadline=time.perf_counter() - 1)
    with pytest.raises(SolverError, match="CLARABEL"):
        clarabel_route.maximise(*arguments, max_iterations=2)


# ---- an outer step -------------------------------------------------------------------------------


@pytest.mark.parametrize(("eta", "beta"), [(0.5, 1.6), (0.9, 0.7), (0.6, 2.4)])
def test_for_one_local_step_only_the_product_with_the_outer_step_counts(
    eta: float, beta: float
) -> None:
    split = worst_case(make_cell(1, 3, eta, outer_step=beta))
    whole = worst_case(make_cell(1, 3, eta * beta))
    assert split.value == pytest.approx(whole.value, abs=1e-8)


@pytest.mark.parametrize(
    ("cell", "n_nodes"),
    [
        (make_cell(2, 2, 1.1, outer_step=1.3), 2),
        (make_cell(3, 1, 0.8, outer_step=1.5), 3),
        (make_cell(3, 2, 0.5, "best", outer_step=2.5), 2),
        (make_cell(2, 2, 0.7, "average_sync", outer_step=0.5), 4),
        (make_cell(2, 2, 0.7, "average_local", outer_step=1.9), 2),
        (make_cell(2, 2, 0.9, "distance", growth=0.1, outer_step=1.6), 2),
    ],
    ids=str,
)
def test_an_explicit_problem_attains_the_value_with_an_outer_step(cell: Cell, n_nodes: int) -> None:
    found = worst_case(cell)
    value, _ = attained(found, n_nodes)
    assert value == pytest.approx(found.value, abs=1e-6)
    assert abs(found.gap) < 1e-7


@given(seed=st.integers(0, 10_000), eta=st.floats(0.05, 1.95), beta=st.floats(0.1, 3.0))
def test_no_round_lengthens_the_distance_by_more_than_its_factor(
    seed: int, eta: float, beta: float
) -> None:
    # Quadratics of curvature up to 1 on several nodes, the factor of a round against its bound.
    random = np.random.default_rng(seed)
    local_steps, nodes = int(random.integers(1, 5)), int(random.integers(1, 4))
    cell = make_cell(local_steps, 1, eta, outer_step=beta)
    mean = np.zeros((3, 3))
    for _ in range(nodes):
        basis = np.linalg.qr(random.standard_normal((3, 3)))[0]
        curvatures = random.choice([0.0, 1.0, random.random()], size=3)
        step = (1 - eta * curvatures) ** local_steps
        mean += basis * step @ basis.T / nodes
    moved = np.eye(3) + beta * (mean - np.eye(3))
    assert np.linalg.norm(moved, 2) <= cell.round_growth() + 1e-12


# ---- growth of the mean --------------------------------------------------------------------------


@pytest.mark.parametrize("growth", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("rounds", [1, 3])
def test_for_one_local_step_growth_of_the_mean_is_growth_of_one_function(
    growth: float, rounds: int
) -> None:
    of_mean = worst_case(make_cell(1, rounds, 0.7, "distance", growth=growth, growth_of="mean"))
    alone = worst_case(make_cell(rounds, 1, 0.7, "distance", growth=growth, one_node=True))
    assert of_mean.value == pytest.approx(alone.value, abs=1e-8)


def test_one_step_contracts_as_its_closed_form_says() -> None:
    # Growth at the xbar_r alone would allow 1 - mu = 0.9.
    found = worst_case(make_cell(1, 1, 1.0, "distance", growth=0.1, growth_of="mean"))
    assert found.value == pytest.approx(((1 - 0.1) / (1 - 0.05)) ** 2, abs=1e-8)


# ---- no number without convergence ---------------------------------------------------------------


def solve_with(monkeypatch: pytest.MonkeyPatch, **options: float) -> WorstCase:
    solver = pep_reduced.maximise
    monkeypatch.setattr(pep_reduced, "maximise", lambda *a, **k: solver(*a, **{**k, **options}))
    monkeypatch.setattr(clarabel_route, "available", lambda: False)
    return worst_case(make_cell(2, 2, 1.0, "last"))


def test_a_solver_that_does_not_converge_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SolverError, match="3 iterations were not enough"):
        solve_with(monkeypatch, max_iterations=3)


def test_an_unreachable_tolerance_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SolverError, match="not converged"):
        solve_with(monkeypatch, tolerance=1e-40, acceptable=1e-40)


def test_the_time_limit_holds_within_a_solve() -> None:
    with pytest.raises(TimeLimitError):
        worst_case(make_cell(4, 3, 1.0, "last"), time_limit=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_steps": 0}, "at least 1"),
        ({"step_size": 2.0}, "step_size is 2.0 / L"),
        ({"metric": "median"}, "metric is 'median'"),
        ({"growth": 1.0}, "growth is 1.0 L"),
        ({"growth_of": "all"}, "growth_of is 'all'"),
        ({"outer_step": 0.0}, "outer_step is 0.0"),
        ({"outer_step": float("nan")}, "outer_step is nan"),
    ],
)
def test_a_cell_outside_its_range_is_refused(change: dict[str, object], message: str) -> None:
    options: dict[str, object] = {"local_steps": 2, "rounds": 2, "step_size": 1.0} | change
    with pytest.raises(ValueError, match=message):
        make_cell(**options)  # type: ignore[arg-type]
