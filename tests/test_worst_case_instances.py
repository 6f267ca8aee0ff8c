"""The worst case made explicit: interpolants, the simulator on them, and the limit of many steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worst_case_cells import make_cell

from theory.theorems.t4_linear import instance_simplex
from theory.worst_case.cells import Cell
from theory.worst_case.closed_forms import best_crossing, instance
from theory.worst_case.extremal import (
    SmoothConvexInterpolant,
    attained,
    extremal_problem,
    simplex_vertices,
    simulated_value,
)
from theory.worst_case.many_local_steps import (
    KINK_POLYNOMIAL,
    exact_local_worst_case,
    kink,
    kink_problem,
    spiral_limit,
    spiral_problem,
    spiral_row,
)
from theory.worst_case.reduction import worst_case


def random_interpolant(seed: int, corners: int, dimension: int) -> SmoothConvexInterpolant:
    random = np.random.default_rng(seed)
    return SmoothConvexInterpolant(
        random.standard_normal((corners, dimension)), random.standard_normal(corners)
    )


@given(seed=st.integers(0, 10_000), corners=st.integers(1, 9), dimension=st.integers(1, 4))
def test_the_interpolant_is_convex_and_smooth(seed: int, corners: int, dimension: int) -> None:
    function = random_interpolant(seed, corners, dimension)
    random = np.random.default_rng(seed + 1)
    x, y = 3 * random.standard_normal((2, dimension))
    (at_x, slope_x), (at_y, slope_y) = function.evaluate(x), function.evaluate(y)
    # The interpolation inequality holds for all pairs of points iff it is 1-smooth and convex.
    low = at_x + slope_x @ (y - x) + 0.5 * np.sum((slope_x - slope_y) ** 2)
    assert at_y >= low - 1e-9
    # A control on the check itself: with half the smoothness it would say too much somewhere.
    step = 1e-5 * random.standard_normal(dimension)
    change = function(x + step) - function(x - step)
    assert change == pytest.approx(2 * float(slope_x @ step), abs=1e-9)


def test_half_the_smoothness_would_be_noticed() -> None:
    function = SmoothConvexInterpolant(np.zeros((1, 2)), np.zeros(1))
    (at_x, slope_x), (at_y, slope_y) = (
        function.evaluate(np.array(p)) for p in ([1.0, 0.0], [0.0, 1.0])
    )
    low = at_x + slope_x @ (np.array([-1.0, 1.0])) + np.sum((slope_x - slope_y) ** 2)
    assert at_y < low - 0.5


@given(seed=st.integers(0, 1000))
def test_the_interpolant_passes_through_consistent_triples(seed: int) -> None:
    smooth = random_interpolant(seed, 6, 3)
    points = np.random.default_rng(seed + 2).standard_normal((5, 3))
    values, slopes = zip(*(smooth.evaluate(p) for p in points), strict=True)
    again = SmoothConvexInterpolant.through(points, np.array(slopes), np.array(values))
    for p, value, slope in zip(points, values, slopes, strict=True):
        found, gradient = again.evaluate(p)
        assert found == pytest.approx(value, abs=1e-8)
        np.testing.assert_allclose(gradient, slope, atol=1e-4)


def test_affinely_dependent_corners_are_no_obstacle() -> None:
    # Four corners in a plane, heights that no affine function has.
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    function = SmoothConvexInterpolant(corners, np.array([0.0, 0.3, 0.2, 1.0]))
    y = np.array([0.4, 0.35])
    shares = np.linspace(0, 1, 201)
    u, v = (grid.ravel() for grid in np.meshgrid(shares, shares))
    # The hull of the heights over the unit square is below the planes of its lower triangles.
    height = np.maximum(0.3 * u + 0.2 * v, 0.8 * u + 0.7 * v - 0.5)
    brute = np.min(height + 0.5 * ((u - y[0]) ** 2 + (v - y[1]) ** 2))
    assert function(y) == pytest.approx(brute, abs=1e-4)


# ---- the simulator attains the worst case --------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "n_nodes"),
    [
        (make_cell(3, 1, 1.0, "last"), 2),
        (make_cell(3, 1, 1.0, "last"), 3),
        (make_cell(4, 1, 1.0, "last"), 4),
        (make_cell(2, 2, 1.5, "best"), 2),
        (make_cell(2, 2, 0.5, "average_sync"), 2),
        (make_cell(2, 2, 1.5, "average_local"), 3),
        (make_cell(2, 2, 1.0, "distance", growth=0.2), 2),
        (make_cell(4, 1, 0.5, "average_local", one_node=True), 1),
    ],
)
def test_the_explicit_worst_problem_attains_the_value(cell: Cell, n_nodes: int) -> None:
    found = worst_case(cell)
    value, problem = attained(found, n_nodes)
    assert value == pytest.approx(found.value, abs=1e-6)
    assert np.linalg.norm(problem.start) <= 1 + 1e-6 and problem.n_nodes == n_nodes
    # At x* every node has value and gradient zero: the problem is of the class.
    at_solution = np.tile(problem.solution, (1, 1, n_nodes, 1))
    assert np.abs(problem.node_losses(at_solution)).max() < 1e-6
    # Gradients are known to the root of what the values are.
    assert np.abs(problem.node_gradients(at_solution)).max() < 2e-3


def test_another_schedule_does_not_attain_it() -> None:
    found = worst_case(make_cell(3, 1, 1.0, "last"))
    problem = extremal_problem(found)
    longer = simulated_value(problem, make_cell(3, 2, 1.0, "last"))
    shorter = simulated_value(problem, make_cell(1, 1, 1.0, "last"))
    assert longer < found.value - 1e-2 and abs(shorter - found.value) > 1e-3


def test_the_number_of_nodes_must_fit() -> None:
    with pytest.raises(ValueError, match="n_nodes is 1"):
        extremal_problem(worst_case(make_cell(2, 1, 1.0, "last")), 1)


@pytest.mark.parametrize("n_nodes", [2, 3, 5])
def test_simplex_vertices_are_unit_and_centred(n_nodes: int) -> None:
    vertices = simplex_vertices(n_nodes)
    products = vertices @ vertices.T
    np.testing.assert_allclose(
        products, (n_nodes * np.eye(n_nodes) - 1) / (n_nodes - 1), atol=1e-12
    )
    np.testing.assert_allclose(vertices.sum(axis=0), 0, atol=1e-12)


# ---- three local steps, one round, in closed form ------------------------------------------------


def test_the_kink_is_the_worst_case_of_three_local_steps() -> None:
    value, _, _ = kink()
    assert worst_case(make_cell(3, 1, 1.0, "last")).value == pytest.approx(value, abs=1e-9)
    # Degree six over the integers; a neighbour in the ninth digit is no root.
    assert abs(np.polyval(KINK_POLYNOMIAL, value)) < 1e-9
    assert abs(np.polyval(KINK_POLYNOMIAL, value + 1e-8)) > 1e-6


@pytest.mark.parametrize(("local_steps", "n_nodes"), [(2, 2), (3, 2), (3, 4), (50, 3)])
def test_the_kink_is_reached_for_every_k_from_two(local_steps: int, n_nodes: int) -> None:
    value = simulated_value(kink_problem(n_nodes), make_cell(local_steps, 1, 1.0, "last"))
    assert value == pytest.approx(kink()[0], abs=1e-9)


# ---- many local steps ----------------------------------------------------------------------------


def test_exact_local_minimisation_reaches_one_eighth_after_one_round() -> None:
    value, certified = exact_local_worst_case(1, "last")
    assert value == pytest.approx(1 / 8, abs=1e-7) and value <= certified + 1e-8


@pytest.mark.parametrize("metric", ["last", "best"])
def test_exact_local_minimisation_is_above_i1_and_falls_with_rounds(metric: str) -> None:
    values = []
    for rounds in (1, 2, 3, 4):
        value, certified = exact_local_worst_case(rounds, metric)
        assert certified == pytest.approx(value, abs=1e-7)
        # I1 at eta = 1/L: one step minimises each quadratic, so it is an instance of the limit.
        assert value >= best_crossing(make_cell(1, rounds, 1.0, "last"))[0]
        values.append(value)
    assert values == sorted(values, reverse=True)


def test_exact_local_minimisation_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match="rounds is 0"):
        exact_local_worst_case(0)
    with pytest.raises(ValueError, match="metric is 'distance'"):
        exact_local_worst_case(1, "distance")


@pytest.mark.parametrize("hops", [3, 4])
def test_the_spiral_tends_to_its_limit(hops: int) -> None:
    far, near = (spiral_row(hops, decay, 1e-2, 400) for decay in (0.3, 0.1))
    assert far.value < near.value < near.limit
    assert near.limit == pytest.approx(math.cos(math.pi / (2 * hops)) ** (2 * hops) / 8)
    assert near.value > 0.8 * near.limit
    # 1/8 is approached from below, and no last iterate exceeds it (S2).
    assert near.value < near.limit < spiral_limit(2 * hops) < 1 / 8


def test_the_spiral_is_of_the_class() -> None:
    problem = spiral_problem(4, n_nodes=3)
    at_solution = np.zeros((1, 1, 3, problem.dimension))
    assert np.abs(problem.node_losses(at_solution)).max() < 1e-12
    assert np.linalg.norm(problem.start) == 1
    with pytest.raises(ValueError, match="at least 2"):
        spiral_problem(1)
    with pytest.raises(ValueError, match="decay"):
        spiral_problem(3, decay=1.0)


# ---- growth of the mean --------------------------------------------------------------------------


@pytest.mark.parametrize(("n_nodes", "growth"), [(2, 0.5), (2, 0.1), (3, 0.6), (5, 0.8)])
def test_the_simplex_problem_attains_its_closed_form_at_any_step_size(
    n_nodes: int, growth: float
) -> None:
    for eta, k, rounds in ((1.0, 3, 2), (0.5, 4, 1)):
        cell = make_cell(k, rounds, eta, "distance", growth=growth, growth_of="mean")
        value, name = instance(cell, n_nodes)
        problem = instance_simplex(rounds, k, n_nodes, growth).problem
        assert name == "simplex"
        assert simulated_value(problem, cell) == pytest.approx(value, abs=1e-12)
    # Beyond (n-1)/n it does not grow with mu.
    cell = make_cell(3, 1, 1.0, "distance", growth=0.85, growth_of="mean")
    assert instance(cell, n_nodes)[1] == "quadratic"
