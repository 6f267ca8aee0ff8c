"""Every constant that a problem states, against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.problems import generators
from theory.problems.generators import HETEROGENEITIES, least_squares
from theory.problems.losses import LOSSES
from theory.problems.margin import MarginProblem

MAKERS = {
    "least squares": generators.least_squares,
    "realizable logistic": generators.realizable_logistic,
    "separable logistic": generators.separable_logistic,
    "sigmoid regression": generators.sigmoid_regression,
}
SMALL: dict[str, Any] = {"n_nodes": 3, "samples_per_node": 8, "dimension": 30}


def points_near(problem: MarginProblem, count: int, seed: int = 0) -> np.ndarray:
    """Random points of the span within sqrt(D) of x*, (count, d)."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((count, problem.n_samples)) @ problem.features
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = np.sqrt(problem.initial_distance) * random.random((count, 1))
    return problem.solution + radii * directions


def each_node(problem: MarginProblem, x: np.ndarray) -> np.ndarray:
    """f_i(x) of every node at the same x, (count, n)."""
    return problem.node_losses(np.repeat(x[:, None, :], problem.n_nodes, axis=1))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@given(z=st.floats(-30, 30), t=st.floats(-5, 5))
def test_derivative_is_the_slope_of_the_value(loss: Any, z: float, t: float) -> None:
    t = np.sign(t) or 1.0 if loss.name == "hard logistic" else t
    h = 1e-5
    slope = (loss.value(z + h, t) - loss.value(z - h, t)) / (2 * h)
    assert loss.derivative(np.float64(z), t) == pytest.approx(float(slope), abs=2e-6, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_curvature_is_the_largest_second_derivative(loss: Any) -> None:
    z = np.linspace(-8, 8, 1601)
    targets = np.array([-1.0, 1.0]) if loss.name == "hard logistic" else np.linspace(-4, 4, 33)
    second = np.gradient(loss.derivative(z[:, None], targets[None, :]), z, axis=0)
    assert np.abs(second).max() <= loss.curvature * (1 + 1e-6)
    # Tight to within what the sigmoid regression's triangle inequality gives away.
    assert np.abs(second).max() >= 0.4 * loss.curvature


@given(delta=st.floats(-1e-3, 1e-3), t=st.floats(-4, 4))
def test_soft_logistic_keeps_its_digits_near_the_minimum(delta: float, t: float) -> None:
    loss = LOSSES[1]
    y = 1 / (1 + np.exp(-t))
    series = y * (1 - y) * delta**2 / 2 + y * (1 - y) * (1 - 2 * y) * delta**3 / 6
    assert loss.value(np.float64(t + delta), np.float64(t)) == pytest.approx(
        series, rel=1e-5, abs=3e-16 * abs(delta) + 1e-18
    )


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("heterogeneity", HETEROGENEITIES)
def test_solution_has_zero_loss_at_every_sample(name: str, heterogeneity: Any) -> None:
    problem = MAKERS[name](heterogeneity=heterogeneity, **SMALL)
    if problem.solution is None:
        assert name == "separable logistic"
        return
    margins = problem.margins(problem.solution)
    assert problem.loss.value(margins, problem.targets).max() < 1e-15


@pytest.mark.parametrize("name", MAKERS)
def test_solution_is_the_minimiser_nearest_to_the_start(name: str) -> None:
    problem = MAKERS[name](**SMALL)
    if problem.solution is None:
        return
    # x* - x_0 has no part orthogonal to the samples.
    shift = problem.solution - problem.start
    rows = np.linalg.svd(problem.features, full_matrices=False)[2][: problem.rank]
    assert np.linalg.norm(shift - rows.T @ (rows @ shift)) < 1e-10 * np.linalg.norm(shift)


@pytest.mark.parametrize("name", MAKERS)
def test_smoothness_bounds_every_sample_gradient(name: str) -> None:
    problem = MAKERS[name](**SMALL)
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 200, problem.dimension)) * 3
    difference = problem.loss.derivative(problem.margins(x), problem.targets) - (
        problem.loss.derivative(problem.margins(y), problem.targets)
    )
    change = np.abs(difference) * np.linalg.norm(problem.features, axis=1)
    assert (change <= problem.smoothness * np.linalg.norm(x - y, axis=1)[:, None] + 1e-12).all()


@pytest.mark.parametrize("name", ["least squares", "realizable logistic"])
@pytest.mark.parametrize("heterogeneity", HETEROGENEITIES)
def test_growth_and_similarity_hold_at_random_points(name: str, heterogeneity: Any) -> None:
    problem = MAKERS[name](rank=3, heterogeneity=heterogeneity, **SMALL)
    x = points_near(problem, 3000)
    local = each_node(problem, x)
    distance = ((x - problem.solution) ** 2).sum(axis=1)
    assert (local.min(axis=1) >= 0.5 * problem.local_growth * distance - 1e-14).all()
    assert (local.mean(axis=1) >= 0.5 * problem.global_growth * distance - 1e-14).all()
    assert (local.min(axis=1) >= problem.similarity * local.mean(axis=1) - 1e-14).all()


@pytest.mark.parametrize("heterogeneity", ["iid", "identical"])
def test_least_squares_constants_are_attained(heterogeneity: Any) -> None:
    # Brute force: minimise the ratios over the sphere of the three-dimensional span, on a fine grid.
    problem = least_squares(rank=3, heterogeneity=heterogeneity, **SMALL)
    angles = np.linspace(0, np.pi, 120), np.linspace(0, 2 * np.pi, 240)
    theta, phi = (a.ravel() for a in np.meshgrid(*angles))
    sphere = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1
    )
    rows = np.linalg.svd(problem.features, full_matrices=False)[2][: problem.rank]
    x = problem.solution + sphere[:, : problem.rank] @ rows
    local = each_node(problem, x)
    distance = ((x - problem.solution) ** 2).sum(axis=1)
    inside = distance > 1e-3
    ratio = (local.min(axis=1) / local.mean(axis=1))[inside]
    assert ratio.min() == pytest.approx(problem.similarity, rel=2e-3, abs=2e-4)
    growth = (2 * local.min(axis=1) / distance)[inside]
    assert growth.min() == pytest.approx(problem.local_growth, rel=2e-3, abs=2e-4)
    overall = (2 * local.mean(axis=1) / distance)[inside]
    assert overall.min() == pytest.approx(problem.global_growth, rel=2e-3, abs=2e-4)


def test_sorted_nodes_share_no_direction_and_equal_nodes_are_fully_similar() -> None:
    assert least_squares(heterogeneity="sorted", rank=6, **SMALL).similarity == 0.0
    assert least_squares(heterogeneity="identical", **SMALL).similarity == 1.0


@pytest.mark.parametrize("name", ["least squares", "sigmoid regression", "separable logistic"])
@pytest.mark.parametrize("heterogeneity", HETEROGENEITIES[:3])
def test_strong_growth_holds_at_random_points(name: str, heterogeneity: Any) -> None:
    problem = MAKERS[name](heterogeneity=heterogeneity, n_nodes=3, samples_per_node=3, dimension=40)
    x = np.random.default_rng(1).standard_normal((2000, problem.dimension)) @ np.diag(
        np.linspace(0.1, 2, problem.dimension)
    )
    slopes = problem.loss.derivative(problem.margins(x), problem.targets)
    norms = (problem.features**2).sum(axis=1)
    left = (slopes**2 * norms) @ problem.sample_weights
    right = (problem.global_gradient(x) ** 2).sum(axis=1)
    assert (left <= problem.strong_growth * right * (1 + 1e-9)).all()


def test_strong_growth_of_least_squares_is_attained() -> None:
    problem = least_squares(rank=3, **SMALL)
    c = problem.coordinates
    weights = problem.sample_weights
    u = np.random.default_rng(2).standard_normal((200_000, 3))
    slopes = u @ c.T
    left = (slopes**2 * (c**2).sum(axis=1)) @ weights
    right = (((slopes * weights) @ c) ** 2).sum(axis=1)
    assert (left / right).max() == pytest.approx(problem.strong_growth, rel=2e-2)


@pytest.mark.parametrize("heterogeneity", HETEROGENEITIES)
def test_margin_is_the_largest_of_any_direction(heterogeneity: Any) -> None:
    problem = MAKERS["separable logistic"](heterogeneity=heterogeneity, **SMALL)
    signed = problem.targets[:, None] * problem.features
    w = problem.separating_direction
    assert w is not None and np.linalg.norm(w) == pytest.approx(1)
    assert (signed @ w).min() == pytest.approx(problem.margin) and problem.margin > 0
    random = np.random.default_rng(0)
    for scale in (1e-3, 1e-2, 1e-1, 1.0):
        other = w + scale * random.standard_normal((500, problem.dimension))
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        assert (other @ signed.T).min(axis=1).max() <= problem.margin * (1 + 1e-6)


@given(seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_ragged_nodes_weigh_equally_in_f(seed: int, sizes: list[int]) -> None:
    random = np.random.default_rng(seed)
    features = [random.standard_normal((m, 30)) for m in sizes]
    problem = MarginProblem(features, [random.standard_normal(m) for m in sizes])
    x = random.standard_normal((1, 30))
    by_hand = np.mean(
        [
            np.mean((a @ x[0] - problem.targets[problem.node_slice(i)]) ** 2) / 2
            for i, a in enumerate(features)
        ]
    )
    assert problem.global_loss(x)[0] == pytest.approx(by_hand)
    assert each_node(problem, x).mean() == pytest.approx(by_hand)


def test_bad_data_is_refused_with_what_is_allowed() -> None:
    a, b = np.eye(3), np.ones(3)
    with pytest.raises(ValueError, match="NaN"):
        MarginProblem([a * np.nan], [b])
    with pytest.raises(ValueError, match="node 1 has no samples"):
        MarginProblem([a, a[:0]], [b, b[:0]])
    with pytest.raises(ValueError, match="no x interpolates"):
        MarginProblem([np.array([[1.0], [1.0]])], [np.array([0.0, 1.0])])
    with pytest.raises(ValueError, match="below the data's own"):
        MarginProblem([a], [b], smoothness=0.5)
    with pytest.raises(ValueError, match="rank is 2, allowed"):
        least_squares(rank=2, **SMALL)
