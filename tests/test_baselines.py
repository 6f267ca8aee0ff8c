"""Local SGD's baselines spend what they say they spend, and are the algorithms they say they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from theory.problems.generators import HETEROGENEITIES, least_squares, realizable_logistic
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.verification.baselines import (
    accelerated_descent,
    baseline_rows,
    compare_baselines,
    schedules,
)

SMALL: dict[str, Any] = {"n_nodes": 3, "samples_per_node": 12, "dimension": 60, "rank": 8}


@pytest.mark.parametrize(("local_steps", "rounds", "batch"), [(5, 12, 1), (1, 30, 2), (8, 3, 3)])
def test_budgets_are_equal_where_they_are_said_to_be(
    local_steps: int, rounds: int, batch: int
) -> None:
    problem = least_squares(**SMALL)
    local, both, computation, gd_rounds, gd_gradients, nesterov, _ = compare_baselines(
        problem, local_steps=local_steps, rounds=rounds, batch_size=batch
    )
    spent = local_steps * rounds * batch
    assert (
        local.communications[-1]
        == both.communications[-1]
        == gd_rounds.communications[-1]
        == nesterov.communications[-1]
        == rounds
    )
    assert local.gradients[-1] == both.gradients[-1] == computation.gradients[-1] == spent
    assert computation.communications[-1] == local_steps * rounds
    assert gd_rounds.gradients[-1] == 12 * rounds
    # Whole full gradients only: less than one of them is left over.
    assert 0 <= spent - gd_gradients.gradients[-1] < 12 or gd_gradients.communications[-1] == 1


def test_exact_paths_lie_within_sampled_bands() -> None:
    problem = least_squares(**SMALL)
    local, both, *_ = compare_baselines(problem, local_steps=4, rounds=6)
    for baseline in (local, both):
        s = baseline.schedule
        run = run_local_sgd(
            problem,
            step_size=s.step_size,
            local_steps=s.local_steps,
            rounds=s.rounds,
            seeds=800,
            batch_size=s.batch_size,
            averages=[],
        )
        sample = run.history["global_loss"][0, :, -1]
        error = sample.std(ddof=1) / np.sqrt(len(sample))
        assert abs(sample.mean() - baseline.loss[-1]) < 4.5 * error


def test_gd_is_gradient_descent_on_f_at_its_own_smoothness() -> None:
    problem = realizable_logistic(heterogeneity="sorted", **SMALL)
    gd = compare_baselines(problem, local_steps=2, rounds=9, seeds=3)[3]
    x = problem.start
    for _ in range(9):
        x = x - problem.global_gradient(x) / problem.global_smoothness
    assert gd.loss[-1] == pytest.approx(float(problem.global_loss(x)), rel=1e-9)
    assert gd.low[-1] == gd.loss[-1] == gd.high[-1]
    assert (np.diff(gd.loss) < 0).all()


@pytest.mark.parametrize("heterogeneity", HETEROGENEITIES)
def test_the_smoothness_of_f_is_attained_and_never_above_a_samples(heterogeneity: Any) -> None:
    problem = least_squares(heterogeneity=heterogeneity, **SMALL)
    hessian = problem.features.T @ (problem.features * problem.sample_weights[:, None])
    assert problem.global_smoothness == pytest.approx(np.linalg.eigvalsh(hessian)[-1])
    assert problem.global_smoothness <= problem.smoothness


def test_minibatch_steps_grow_with_the_batch_up_to_one_over_the_smoothness_of_f() -> None:
    problem = least_squares(**SMALL)
    steps = [schedules(problem, k, 5)[1].step_size for k in (1, 4, 16, 10**6)]
    assert steps == sorted(steps) and steps[0] >= 1 / problem.smoothness
    assert steps[-1] == pytest.approx(1 / problem.global_smoothness, rel=1e-4)
    # E||g||^2 <= 2 (L_f + L/(n b)) f, the inequality behind the default, at random points.
    random = np.random.default_rng(0)
    x = random.standard_normal((200, problem.dimension))
    slopes = problem.loss.derivative(problem.margins(x), problem.targets)
    norms = (problem.features**2).sum(axis=1)
    for b in (1, 4):
        # Independent nodes: the variance of the mean gradient is the sum of the nodes' over n^2 b.
        second = (problem.global_gradient(x) ** 2).sum(axis=1)
        for i in range(problem.n_nodes):
            s = problem.node_slice(i)
            mean = slopes[:, s] @ problem.features[s] / problem.node_sizes[i]
            spread = (slopes[:, s] ** 2 @ norms[s]) / problem.node_sizes[i] - (mean**2).sum(axis=1)
            second += spread / (problem.n_nodes**2 * b)
        limit = 2 * (problem.global_smoothness + problem.smoothness / (problem.n_nodes * b))
        assert (second <= limit * problem.global_loss(x) * (1 + 1e-12)).all()


def test_the_best_step_is_chosen_for_each_method_by_itself() -> None:
    problem = least_squares(**SMALL)
    fixed = compare_baselines(problem, local_steps=4, rounds=8)
    tuned = compare_baselines(problem, local_steps=4, rounds=8, step_factors=(0.5, 1.0, 1.5, 50.0))
    for a, b in zip(fixed, tuned, strict=True):
        assert b.loss[-1] <= a.loss[-1] and b.step_factor < 50
    with pytest.raises(ValueError, match="allowed: numbers above 0"):
        compare_baselines(problem, step_factors=(1.0, -1.0))


@pytest.mark.parametrize("make", [least_squares, realizable_logistic])
@pytest.mark.parametrize("heterogeneity", HETEROGENEITIES)
def test_accelerated_descent_stays_below_its_bound_and_is_nesterovs_method(
    make: Any, heterogeneity: Any
) -> None:
    problem = make(heterogeneity=heterogeneity, decay=1.0, **SMALL)
    found = compare_baselines(problem, rounds=200, points=200, seeds=2)[5]
    assert found.schedule.method == "accelerated GD"
    assert (found.loss[1:] <= found.bound[1:] * (1 + 1e-12)).all()
    limit = 2 * problem.global_smoothness * problem.initial_distance / 201**2
    assert found.bound[-1] == pytest.approx(limit)
    # In R^d, with the momentum written as Nesterov does, by an auxiliary point.
    x = z = problem.start
    a = 0.0
    for r in range(40):
        step = (1 + np.sqrt(1 + 4 * a)) / 2
        a += step
        y = x + step / a * (z - x)
        z = z - step / problem.global_smoothness * problem.global_gradient(y)
        x = y - problem.global_gradient(y) / problem.global_smoothness
        where = np.flatnonzero(found.communications == r + 1)
        if len(where):
            expected = float(problem.global_loss(x))
            assert found.loss[where[0]] == pytest.approx(expected, rel=1e-8)


def test_acceleration_needs_its_step_size() -> None:
    # The bound can fail: the same rounds at three times the step diverge.
    problem = least_squares(**SMALL)
    grid = np.array([0, 100])
    loss = accelerated_descent(problem, 3.0 / problem.global_smoothness, grid)[-1]
    assert loss > 2 * problem.global_smoothness * problem.initial_distance / 101**2


def test_rows_collect_every_level() -> None:
    rows = baseline_rows(("iid", "sorted"), local_steps=3, rounds=4)
    baselines = ("mini-batch SGD", "GD", "accelerated GD")
    assert [r.method for r in rows] == ["Local SGD", *(m for m in baselines for _ in range(2))]
    assert all(set(r.loss) == {"iid", "sorted"} for r in rows)
    assert isinstance(least_squares(rank=40, decay=1.0), MarginProblem)
