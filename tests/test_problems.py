"""Every constant that a problem states, against brute force."""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.problems import generators
from theory.problems.generators import HETEROGENEITIES, least_squares
from theory.problems.losses import HARD_LOGISTIC, LOSSES, MarginLoss, check_loss
from theory.problems.margin import MarginProblem
from theory.simulation.compiled_losses import built_in_derivative, built_in_value
from theory.support.verdicts import HOLDS, NOT_APPLICABLE
from theory.theorems import THEOREMS
from theory.verification.check import verify_all

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
    assert np.abs(second).max() >= 0.97 * loss.curvature


@pytest.mark.parametrize("target", [-400.0, -38.0, -30.0, 0.5, 30.0, 38.0, 400.0])
@pytest.mark.parametrize("margin", [-500.0, -20.0, 0.0, 25.0, 39.0])
def test_soft_logistic_keeps_its_digits_at_large_targets(target: float, margin: float) -> None:
    with localcontext(prec=700):
        z, t = Decimal(margin), Decimal(target)
        y = 1 / (1 + (-t).exp())
        value = (1 + z.exp()).ln() - y * z - ((1 + t.exp()).ln() - y * t)
        slope = 1 / (1 + (-z).exp()) - y
    loss = LOSSES[1]
    assert loss.value(np.array(margin), np.array(target)) == pytest.approx(float(value), rel=1e-12)
    found = loss.derivative(np.array(margin), np.array(target))
    assert found == pytest.approx(float(slope), rel=1e-12)
    for of, twin in ((loss.value, built_in_value), (loss.derivative, built_in_derivative)):
        assert twin(1, margin, target) == pytest.approx(
            float(of(np.array(margin), np.array(target))), rel=1e-13
        )


@given(delta=st.floats(-1e-3, 1e-3), t=st.floats(-4, 4))
def test_soft_logistic_keeps_its_digits_near_the_minimum(delta: float, t: float) -> None:
    loss = LOSSES[1]
    y = 1 / (1 + np.exp(-t))
    delta = (t + delta) - t
    series = y * (1 - y) * delta**2 / 2 + y * (1 - y) * (1 - 2 * y) * delta**3 / 6
    assert loss.value(np.array(t + delta), np.array(t)) == pytest.approx(series, rel=1e-6)


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


# ---- what double precision can and can't decide --------------------------------------------------


def two_nodes(*rows: list[list[float]]) -> MarginProblem:
    """Least squares with those samples, x* = 0 and x_0 = (1, ..., 1)."""
    features = [np.array(block) for block in rows]
    targets = [np.zeros(len(block)) for block in features]
    return MarginProblem(features, targets, start=np.ones(features[0].shape[1]))


@pytest.mark.parametrize("angle", [1e-2, 1e-5, 1e-7])
def test_nearly_parallel_samples_keep_their_constants(angle: float) -> None:
    problem = two_nodes([[1, 0]], [[1, angle]])
    # H = [[1, a/2], [a/2, a^2/2]]: its determinant over its trace is a^2/4 and a little more.
    half = 0.5 * (1 + 0.5 * angle**2)
    exact = 0.25 * angle**2 / (half + np.sqrt(half**2 - 0.25 * angle**2))
    assert problem.rank == 2
    assert problem.similarity == problem.local_growth == 0.0
    assert problem.global_growth == pytest.approx(exact, rel=1e-9)
    verdicts = {c.theorem: c.verdict for c in verify_all(THEOREMS, problem, rounds=20)}
    assert verdicts["T3"] == verdicts["T4"] == NOT_APPLICABLE
    assert verdicts["T1"] == verdicts["T2"] == verdicts["T4'"] == HOLDS


def test_the_similarity_of_nearly_parallel_samples_is_found() -> None:
    # Both nodes see both directions, node 1 the weak one half as strongly: c = 2/3.
    for angle in (1e-2, 1e-6):
        problem = two_nodes([[1, 0], [0, angle]], [[1, angle], [1, -angle]])
        assert problem.similarity == pytest.approx(2 / 3, rel=1e-6)


@pytest.mark.parametrize(
    ("angle", "constant"),
    [(1e-9, "global_growth"), (1e-13, "similarity"), (1e-13, "strong_growth")],
)
def test_what_double_precision_cannot_decide_is_said(angle: float, constant: str) -> None:
    problem = two_nodes([[1, 0]], [[1, angle]])
    assert "in double precision" in problem.doubts[constant]
    assert getattr(problem, constant) in (0.0, np.inf)
    assert not two_nodes([[1, 0]], [[1, 0.1]]).doubts


@pytest.mark.parametrize("dimension", [2, 5000, 20_000])
def test_features_of_zeros_decide_nothing(dimension: int) -> None:
    rows = np.zeros((2, 1, dimension))
    rows[0, 0, 0] = 1.0
    rows[1, 0, :2] = 1.0, 1.9e-12
    problem = MarginProblem(rows, np.zeros((2, 1)), start=np.ones(dimension))
    assert "in double precision" in problem.doubts["similarity"]
    assert problem.similarity == 0.0


def test_rounding_of_low_rank_samples_is_no_doubt() -> None:
    random = np.random.default_rng(3)
    for dimension in (30, 3000):
        low = random.standard_normal((40, 5)) @ random.standard_normal((5, dimension))
        problem = MarginProblem(low.reshape(2, 20, dimension), np.zeros((2, 20)))
        assert problem.rank == 5 and not problem.doubts


@given(size=st.floats(-9, 9).map(lambda e: 10.0**e), far=st.floats(-9, 7).map(lambda e: 10.0**e))
def test_interpolation_does_not_depend_on_units_or_start(size: float, far: float) -> None:
    random = np.random.default_rng(4)
    a = random.standard_normal((6, 9))
    fitting = a @ random.standard_normal(9) * size
    start = far * random.standard_normal(9)
    problem = MarginProblem([a], [fitting], start=start)
    assert problem.solution is not None
    assert np.abs(a @ problem.solution - fitting).max() <= 1e-9 * (size + far)
    double = np.vstack([a, a[:1]])
    with pytest.raises(ValueError, match="no x interpolates"):
        MarginProblem([double], [np.append(fitting, fitting[0] + size)], start=start * size / far)


def test_a_start_far_away_is_no_reason_to_refuse() -> None:
    a = np.random.default_rng(5).standard_normal((8, 12))
    MarginProblem([a], [a @ np.ones(12)], start=np.full(12, 1e7))


# ---- losses of one's own -------------------------------------------------------------------------


def pseudo_huber(**changes: Any) -> MarginLoss:
    fields: dict[str, Any] = {
        "name": "mine",
        "value": lambda z, t: np.sqrt(1 + (z - t) ** 2) - 1,
        "derivative": lambda z, t: (z - t) / np.sqrt(1 + (z - t) ** 2),
        "curvature": 1.0,
        "convex": True,
        "attained": True,
    }
    return MarginLoss(**(fields | changes))


def test_true_losses_pass_their_test() -> None:
    check_loss(pseudo_huber(), np.linspace(-5, 5, 200))
    huber = pseudo_huber(
        value=lambda z, t: np.where(np.abs(z - t) < 1, 0.5 * (z - t) ** 2, np.abs(z - t) - 0.5),
        derivative=lambda z, t: np.clip(z - t, -1, 1),
        curvature_within=lambda t, radius: np.where(radius < 1, 1.0, 0.0),
    )
    check_loss(huber, np.array([0.0, 1e3]))
    for loss in LOSSES:
        targets = np.array([-1.0, 1.0]) if loss.name == "hard logistic" else np.linspace(-9, 9, 50)
        check_loss(loss, targets)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"derivative": lambda z, t: 2 * (z - t) / np.sqrt(1 + (z - t) ** 2)}, "not the slope"),
        ({"derivative": lambda z, t: z - t}, "not the slope"),
        ({"curvature": 0.5}, "above the curvature bound 0.5"),
        ({"value": lambda z, t: np.sqrt(1 + (z - t) ** 2) - 2}, "below 0"),
        ({"value": lambda z, t: np.sqrt(1 + (z - t) ** 2)}, "value at z = t is 1"),
        ({"value": lambda z, t: np.sum(z)}, "elementwise"),
        ({"value": lambda z, t: np.log(z - t)}, "allowed: finite numbers"),
        (
            {
                "value": lambda z, t: 1 - np.cos(z - t),
                "derivative": lambda z, t: np.sin(z - t),
            },
            "not convex",
        ),
        ({"curvature_within": lambda t, radius: np.full(radius.shape, 0.9)}, "curvature_within"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_what_it_says_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^loss 'mine': .*{message}"):
        MarginProblem([np.eye(3)], [np.arange(3.0)], pseudo_huber(**changes))


# ---- labels that nothing separates ---------------------------------------------------------------


def test_the_least_loss_of_noisy_labels_is_the_minimum() -> None:
    random = np.random.default_rng(0)
    a = random.standard_normal((40, 3))
    y = np.where(random.random(40) < 0.5, 1.0, -1.0)
    problem = MarginProblem([a[:20], a[20:]], [y[:20], y[20:]], HARD_LOGISTIC)
    assert problem.margin == 0.0 and 0 < problem.least_loss < np.log(2)
    x = np.zeros(3)
    for _ in range(30):  # Newton's method, the plainest other route
        s = 1 / (1 + np.exp(y * (a @ x)))
        hessian = (a * (s * (1 - s))[:, None]).T @ a
        x = x + np.linalg.solve(hessian, (y * s) @ a)
    assert problem.least_loss == pytest.approx(float(problem.global_loss(x)), rel=1e-9)


def test_bad_data_is_refused_with_what_is_allowed() -> None:
    a, b = np.eye(3), np.ones(3)
    with pytest.raises(ValueError, match="NaN"):
        MarginProblem([a * np.nan], [b])
    with pytest.raises(ValueError, match="node 1 has no samples"):
        MarginProblem([a, a[:0]], [b, b[:0]])
    with pytest.raises(ValueError, match="no x interpolates"):
        MarginProblem([np.array([[1.0], [1.0]])], [np.array([0.0, 1.0])])
    with pytest.raises(ValueError, match="all 0, allowed: at least one sample"):
        MarginProblem([0 * a], [0 * b])
    with pytest.raises(ValueError, match="a hard label is 2, allowed: -1 and 1"):
        MarginProblem([a], [np.array([1.0, -1.0, 2.0])], HARD_LOGISTIC)
    with pytest.raises(ValueError, match="below the data's own"):
        MarginProblem([a], [b], smoothness=0.5)
    for nodes, dimension in ((10**6, 10**8), (2, 10**9)):
        with pytest.raises(ValueError, match=r"of memory, .* are available; lower"):
            least_squares(n_nodes=nodes, dimension=dimension)
    with pytest.raises(ValueError, match="rank is 2, allowed"):
        least_squares(rank=2, **SMALL)
