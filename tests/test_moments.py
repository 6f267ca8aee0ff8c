"""The exact engine against enumeration of every sample path, and against Monte Carlo."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from theory.problems.generators import HETEROGENEITIES, least_squares, realizable_logistic
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import AVERAGES, run_local_sgd
from theory.simulation.moments import exact_grid, exact_moments
from theory.support.errors import UserError
from theory.theorems import instance_3


def tiny_problem() -> MarginProblem:
    """Two ragged nodes with 2 and 1 samples in R^3, unequal norms."""
    features = [np.array([[1.0, 0.2, 0.0], [0.3, -0.7, 0.4]]), np.array([[0.1, 0.5, -0.6]])]
    x = np.array([0.5, -1.0, 0.7])
    return MarginProblem(features, [a @ x for a in features])


def enumerate_paths(
    problem: MarginProblem, eta: float, local_steps: int, rounds: int, batch: int
) -> dict[str, np.ndarray]:
    """Expectations over all equally likely sample paths, by brute force; (T + 1,) each."""
    choices = [list(product(range(m), repeat=batch)) for m in problem.node_sizes]
    last = local_steps * rounds
    models = np.tile(problem.start, (1, problem.n_nodes, 1))
    rows: dict[str, list[float]] = {
        "global_loss": [],
        "local_loss": [],
        "distance": [],
        "local_distance": [],
        "gradient": [],
        "consensus": [],
    }
    assert problem.solution is not None
    for t in range(last + 1):
        mean = models.mean(axis=1)
        rows["global_loss"].append(problem.global_loss(mean).mean())
        rows["local_loss"].append(problem.node_losses(models).mean())
        rows["distance"].append(((mean - problem.solution) ** 2).sum(axis=1).mean())
        own = ((models - problem.solution) ** 2).sum(axis=2)
        rows["local_distance"].append(own.mean())
        rows["gradient"].append((problem.global_gradient(mean) ** 2).sum(axis=1).mean())
        rows["consensus"].append(((models - mean[:, None]) ** 2).sum(axis=2).mean())
        children = []
        for drawn in product(*choices):
            index = np.array(drawn)[None].repeat(len(models), axis=0)
            children.append(models - eta * problem.sample_gradients(models, index))
        models = np.concatenate(children)
        if (t + 1) % local_steps == 0:
            models = models.mean(axis=1, keepdims=True).repeat(problem.n_nodes, axis=1)
    return {name: np.array(values) for name, values in rows.items()}


@pytest.mark.parametrize(("local_steps", "rounds"), [(1, 6), (2, 3), (3, 2), (6, 1)])
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7])
def test_moments_equal_the_enumeration_of_all_paths(
    local_steps: int, rounds: int, factor: float
) -> None:
    problem = tiny_problem()
    eta = factor / problem.smoothness
    expected = enumerate_paths(problem, eta, local_steps, rounds, batch=1)
    exact = exact_moments(
        problem, step_size=eta, local_steps=local_steps, rounds=rounds, record=np.arange(7)
    )
    for name, values in expected.items():
        np.testing.assert_allclose(
            exact.history[name], values, rtol=1e-12, atol=1e-12, err_msg=name
        )


def test_moments_of_minibatches_equal_the_enumeration() -> None:
    problem = tiny_problem()
    expected = enumerate_paths(problem, 0.9, 2, 2, batch=2)
    exact = exact_moments(
        problem, step_size=0.9, local_steps=2, rounds=2, batch_size=2, record=np.arange(5)
    )
    for name, values in expected.items():
        np.testing.assert_allclose(exact.history[name], values, rtol=1e-12, atol=1e-12)


def test_moments_of_full_gradients_equal_the_one_path() -> None:
    problem = least_squares(n_nodes=3, samples_per_node=5, dimension=30, heterogeneity="similar")
    settings: dict[str, Any] = {"step_size": 1.3, "local_steps": 4, "rounds": 8, "gradient": "full"}
    exact = exact_moments(problem, **settings)
    path = run_local_sgd(problem, **settings, averages=AVERAGES)
    for name, values in exact.history.items():
        np.testing.assert_allclose(values, path.history[name][0, 0], rtol=1e-9, atol=1e-12)
    assert set(exact.averages) == set(AVERAGES)
    for name, values in exact.averages.items():
        np.testing.assert_allclose(values, path.averages[name][0, 0], rtol=1e-9)
    np.testing.assert_allclose(exact.best_sync_loss, path.best_sync_loss[0, 0], rtol=1e-9)


@pytest.mark.parametrize("heterogeneity", HETEROGENEITIES)
def test_monte_carlo_agrees_within_its_interval(heterogeneity: Any) -> None:
    # The left sides of T1-T4 and T6. 4.5 standard errors: about 1 false alarm in 10^5 comparisons.
    problem = least_squares(
        n_nodes=3, samples_per_node=8, dimension=40, rank=6, heterogeneity=heterogeneity
    )
    settings: dict[str, Any] = {"step_size": 1.0, "local_steps": 4, "rounds": 5}
    exact = exact_moments(problem, **settings, record=[20])
    sampled = run_local_sgd(problem, **settings, seeds=3000, averages=AVERAGES, record=[20])
    pairs = [(exact.averages[name][-1], sampled.averages[name][0, :, -1]) for name in AVERAGES]
    pairs += [
        (exact.history[name][-1], sampled.history[name][0, :, -1])
        for name in ("distance", "local_distance", "global_loss")
    ]
    for value, samples in pairs:
        error = samples.std(ddof=1) / np.sqrt(len(samples))
        assert abs(samples.mean() - value) < 4.5 * error


def test_moments_refuse_a_loss_that_is_not_quadratic() -> None:
    with pytest.raises(ValueError, match="exact moments need least squares"):
        exact_moments(realizable_logistic(), step_size=1.0)
    with pytest.raises(ValueError, match="rounds is 0"):
        exact_moments(tiny_problem(), step_size=1.0, rounds=0)


def test_rounding_never_stops_the_contraction() -> None:
    # By T4 every round of 20 steps contracts by (1 - eta mu)^20; an antisymmetric part in E zz', which
    # only rounding can make, would not contract, and so would show within a few hundred steps.
    problem = least_squares(n_nodes=2, samples_per_node=40, dimension=64, rank=4)
    rate = (1 - problem.local_growth / problem.smoothness) ** 20
    moments = exact_moments(
        problem,
        step_size=1 / problem.smoothness,
        local_steps=20,
        rounds=40,
        record=np.arange(0, 801, 20),
    )
    distance = moments.history["distance"]
    assert distance[-1] < 1e-90
    assert (distance[1:] <= rate * distance[:-1]).all()


@pytest.mark.parametrize("local_steps", [1, 7])
def test_a_linear_rate_keeps_its_digits_below_the_end_of_double_precision(local_steps: int) -> None:
    # E||x^T||^2 = (3/4)^T exactly, below 1e-300 from T = 2,401 on.
    rounds = 6300 // local_steps
    instance = instance_3(rounds, local_steps=local_steps)
    assert isinstance(instance.problem, MarginProblem)
    moments = exact_moments(
        instance.problem, step_size=1.0, local_steps=local_steps, rounds=rounds, record=[2100, 6300]
    )
    expected = moments.iterations * np.log(0.75)
    np.testing.assert_allclose(moments.log_distance, expected, rtol=1e-13)
    assert moments.history["distance"][-1] == 0.0
    np.testing.assert_allclose(np.log(moments.history["distance"][:2]), expected[:2], rtol=1e-12)


@pytest.mark.parametrize("gradient", ["stochastic", "full"])
def test_a_linear_rate_keeps_its_digits_below_it_within_one_round(gradient: str) -> None:
    # A round of 4,500 steps is as many rounds of one step where there is one node.
    problem = least_squares(n_nodes=1, samples_per_node=40, dimension=64, rank=4)
    eta = 1 / problem.smoothness
    once = exact_moments(
        problem, step_size=eta, local_steps=4500, rounds=1, gradient=gradient, record=[4499, 4500]
    )
    often = exact_moments(
        problem, step_size=eta, local_steps=1, rounds=4500, gradient=gradient, record=[4499, 4500]
    )
    assert often.log_distance[-1] < -1000
    np.testing.assert_allclose(once.log_distance, often.log_distance, rtol=1e-11)


def test_pairs_of_nodes_keep_their_digits_below_it_within_one_round() -> None:
    # Full gradients on two nodes: the mean of two powers, each by logarithms.
    problem = least_squares(n_nodes=2, samples_per_node=40, dimension=64, rank=4)
    eta, k = 1 / problem.smoothness, 4000
    moments = exact_moments(problem, step_size=eta, local_steps=k, rounds=1, gradient="full")
    z = -(problem.coordinates.T @ problem.solution_coefficients)
    total = np.zeros(problem.rank)
    values, vectors = np.linalg.eigh(problem.hessians)
    scale = k * np.log(np.abs(1 - eta * values).max())
    for w, v in zip(values, vectors, strict=True):
        factors = np.exp(k * np.log(np.abs(1 - eta * w)) - scale)
        total += v @ (factors * (v.T @ z)) / 2
    assert 2 * scale < -800
    expected = np.log(total @ total) + 2 * scale
    np.testing.assert_allclose(moments.log_distance[-1], expected, rtol=1e-11)


def enumerate_sampled_rounds(
    problem: MarginProblem, eta: float, local_steps: int, rounds: int, clients: int, beta: float
) -> dict[str, np.ndarray]:
    """E f(xbar_r) and E||xbar_r - x*||^2 over all subsets and sample paths, (rounds + 1,) each.

    Plain loops over one path at a time, one sample a step.
    """
    models = [np.array(problem.start)]
    assert problem.solution is not None
    values: dict[str, list[float]] = {"global_loss": [], "distance": []}
    subsets = list(combinations(range(problem.n_nodes), clients))
    for r in range(rounds + 1):
        values["global_loss"].append(float(np.mean([problem.global_loss(x) for x in models])))
        distances = [float(((x - problem.solution) ** 2).sum()) for x in models]
        values["distance"].append(float(np.mean(distances)))
        if r == rounds:
            break
        following = []
        for x in models:
            for subset in subsets:
                # The ends of each client's local paths; all equally likely, as clients are independent.
                ends = []
                for i in subset:
                    rows = problem.features[problem.node_slice(i)]
                    targets = problem.targets[problem.node_slice(i)]
                    paths = []
                    for draws in product(range(len(rows)), repeat=local_steps):
                        y = x.copy()
                        for j in draws:
                            y = y - eta * (rows[j] @ y - targets[j]) * rows[j]
                        paths.append(y)
                    ends.append(paths)
                # Nodes of two samples only: every client has the same number of paths.
                for chosen in product(*ends):
                    following.append(x + beta * (np.mean(chosen, axis=0) - x))
        models = following
    return {name: np.array(found) for name, found in values.items()}


def three_nodes() -> MarginProblem:
    """Three nodes of two samples in R^4, unlike one another."""
    random = np.random.default_rng(4)
    features = [random.standard_normal((2, 4)) / 2 for _ in range(3)]
    x = np.array([0.5, -1.0, 0.7, 0.2])
    return MarginProblem(features, [a @ x for a in features], start=np.array([0.1, 0, 0, 0.3]))


@pytest.mark.parametrize("clients", [1, 2, 3])
@pytest.mark.parametrize("beta", [1.0, 0.4, 1.6])
def test_moments_of_sampled_rounds_equal_the_enumeration_of_subsets_and_paths(
    clients: int, beta: float
) -> None:
    problem = three_nodes()
    eta = 0.9 / problem.smoothness
    wanted = enumerate_sampled_rounds(problem, eta, 2, 2, clients, beta)
    exact = exact_moments(
        problem,
        step_size=eta,
        local_steps=2,
        rounds=2,
        participants=clients,
        outer_step=beta,
        record=[0, 2, 4],
    )
    for name, values in wanted.items():
        np.testing.assert_allclose(exact.history[name], values, rtol=1e-12, atol=1e-14)


def test_moments_of_sampled_rounds_agree_with_simulation() -> None:
    # 4.5 standard errors: about 1 false alarm in 10^5 comparisons; mid-round metrics included.
    problem = least_squares(
        n_nodes=5, samples_per_node=6, dimension=40, rank=8, heterogeneity="sorted"
    )
    settings: dict[str, Any] = {"local_steps": 3, "rounds": 4, "participants": 2}
    settings |= {"step_size": 0.9, "outer_step": 1.4, "record": [5, 12]}
    exact = exact_moments(problem, **settings)
    sampled = run_local_sgd(problem, seeds=4000, averages=AVERAGES, **settings)
    pairs = [(exact.averages[name][-1], sampled.averages[name][0, :, -1]) for name in AVERAGES]
    pairs += [
        (exact.history[name][1], sampled.history[name][0, :, 1])
        for name in ("distance", "local_distance", "global_loss", "local_loss", "consensus")
    ]
    for value, samples in pairs:
        error = samples.std(ddof=1) / np.sqrt(len(samples))
        assert abs(samples.mean() - value) < 4.5 * error


def test_settings_advanced_together_equal_those_advanced_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = least_squares(n_nodes=3, samples_per_node=5, dimension=30, rank=6)
    common: dict[str, Any] = {"rounds": 5, "participants": 2, "outer_step": 0.8}
    etas, steps = [0.3, 1.0, 2.5], [4, 1, 7]
    together = exact_grid(problem, step_sizes=etas, local_steps=steps, **common)
    for i, eta in enumerate(etas):
        for j, k in enumerate(steps):
            alone = exact_moments(problem, step_size=eta, local_steps=k, **common)
            np.testing.assert_array_equal(together[i][j].iterations, alone.iterations)
            for name, values in alone.history.items():
                np.testing.assert_allclose(together[i][j].history[name], values, rtol=1e-12)
            for name, values in alone.averages.items():
                np.testing.assert_allclose(together[i][j].averages[name], values, rtol=1e-12)
            np.testing.assert_allclose(together[i][j].best_sync_loss, alone.best_sync_loss)
    # Memory is bounded by cutting the settings into chunks, which changes nothing.
    monkeypatch.setattr("theory.simulation.moments.CHUNK_NUMBERS", 2 * 3 * 36)
    cut = exact_grid(problem, step_sizes=etas, local_steps=steps, **common)
    for i, j in product(range(3), range(3)):
        a, b = cut[i][j].history["distance"], together[i][j].history["distance"]
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_running_means_can_be_left_out() -> None:
    problem = tiny_problem()
    settings: dict[str, Any] = {"step_size": 0.8, "local_steps": 3, "rounds": 4}
    every = exact_moments(problem, **settings)
    few = exact_moments(problem, averages=["local_loss", "sync_loss"], **settings)
    assert set(few.averages) == {"local_loss", "sync_loss"}
    for name, values in few.averages.items():
        np.testing.assert_allclose(values, every.averages[name], rtol=1e-13)
    np.testing.assert_allclose(few.best_sync_loss, every.best_sync_loss, rtol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"participants": 0}, "participants is 0, allowed: integers from 1 to 2"),
        ({"outer_step": "polyak"}, "outer_step is 'polyak', allowed for exact moments: a number"),
        ({"outer_step": float("nan")}, "outer_step is nan"),
        ({"averages": ["median"]}, "averages has 'median'"),
        ({"record": [99]}, "record is 99, allowed: integers from 0 to 5"),
        ({"local_steps": 0}, "local_steps is 0"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        exact_moments(tiny_problem(), **{"step_size": 1.0, "rounds": 5, **change})
