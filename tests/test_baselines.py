"""Local SGD's rivals spend what they say they spend, and are the algorithms they say they are."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from theory.problems.generators import HETEROGENEITIES, least_squares, realizable_logistic
from theory.problems.margin import MarginProblem
from theory.simulation.compilation import one_thread
from theory.simulation.local_sgd import run_local_sgd
from theory.verification.baselines.accelerated import accelerated_descent
from theory.verification.baselines.compare import (
    Baseline,
    baseline_rows,
    compare_baselines,
    in_row_space,
)
from theory.verification.baselines.rounds_to import RoundsToEps, promised, rounds_to_eps
from theory.verification.baselines.schedules import (
    BOTH,
    COMMUNICATION,
    COMPUTATION,
    methods,
    schedules,
)

SMALL: dict[str, Any] = {"n_nodes": 3, "samples_per_node": 12, "dimension": 60, "rank": 8}


def by_name(found: list[Baseline]) -> dict[tuple[str, str], Baseline]:
    return {(b.schedule.method, b.schedule.budget): b for b in found}


@pytest.mark.parametrize(("local_steps", "rounds", "batch"), [(5, 12, 1), (1, 30, 2), (8, 4, 3)])
def test_budgets_are_equal_where_they_are_said_to_be(
    local_steps: int, rounds: int, batch: int
) -> None:
    problem = least_squares(**SMALL)
    found = compare_baselines(
        problem, local_steps=local_steps, rounds=rounds, batch_size=batch, seeds=2
    )
    spent = local_steps * rounds * batch
    assert found[0].communications[-1] == rounds and found[0].gradients[-1] == spent
    for b in found[1:]:
        s = b.schedule
        if s.budget in (BOTH, COMMUNICATION):
            assert b.communications[-1] == rounds, s.method
        if s.budget == BOTH:
            assert b.gradients[-1] == spent, s.method
        if s.budget == COMPUTATION:
            # Whole rounds only: less than one of them is left over.
            assert 0 <= spent - b.gradients[-1] < s.gradients_per_round or s.rounds == 1
    # SCAFFOLD sends a model and a variate; its option I goes through all samples once more a round.
    named = by_name(found)
    second = named["SCAFFOLD II", COMPUTATION]
    assert second.communications[-1] == 2 * rounds and second.gradients[-1] == spent
    first = named["SCAFFOLD I", COMMUNICATION]
    assert first.gradients[-1] == rounds // 2 * (local_steps * batch + 12)
    assert named["one-shot averaging", COMPUTATION].communications[-1] == 1
    assert named["mini-batch SGD", COMPUTATION].communications[-1] == local_steps * rounds


def test_exact_paths_lie_within_sampled_bands() -> None:
    problem = least_squares(**SMALL)
    named = by_name(compare_baselines(problem, local_steps=4, rounds=6, seeds=2))
    for key in (
        ("Local SGD", "reference"),
        ("mini-batch SGD", BOTH),
        ("one-shot averaging", COMPUTATION),
    ):
        s = named[key].schedule
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
        assert abs(sample.mean() - named[key].loss[-1]) < 4.5 * error


def test_one_shot_averaging_is_the_mean_of_runs_that_never_meet() -> None:
    problem = realizable_logistic(heterogeneity="sorted", **SMALL)
    found = by_name(compare_baselines(problem, local_steps=3, rounds=4, seeds=[5, 6]))
    one = found["one-shot averaging", COMPUTATION]
    alone = run_local_sgd(
        problem,
        step_size=one.schedule.step_size,
        local_steps=12,
        rounds=1,
        seeds=[5, 6],
        averaging=False,
    )
    expected = problem.global_loss(alone.final_model[0]).mean()
    assert one.loss[-1] == pytest.approx(float(expected), rel=1e-9)


def test_gd_is_gradient_descent_on_f_at_its_own_smoothness() -> None:
    problem = realizable_logistic(heterogeneity="sorted", **SMALL)
    gd = by_name(compare_baselines(problem, local_steps=2, rounds=9, seeds=3))["GD", COMMUNICATION]
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
    steps = [methods(problem, k)["mini-batch SGD"].step_size for k in (1, 4, 16, 10**6)]
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
    settings: dict[str, Any] = {"local_steps": 4, "rounds": 8, "seeds": 4}
    fixed = compare_baselines(problem, **settings)
    tuned = compare_baselines(problem, **settings, step_factors=(0.5, 1.0, 1.5, 50.0))
    for a, b in zip(fixed, tuned, strict=True):
        assert b.loss[-1] <= a.loss[-1] * (1 + 1e-12) and b.step_factor < 50
    with pytest.raises(ValueError, match="allowed: numbers above 0"):
        compare_baselines(problem, step_factors=(1.0, -1.0))


@pytest.mark.parametrize("make", [least_squares, realizable_logistic])
@pytest.mark.parametrize("heterogeneity", HETEROGENEITIES)
def test_accelerated_descent_stays_below_its_bound_and_is_nesterovs_method(
    make: Any, heterogeneity: Any
) -> None:
    problem = make(heterogeneity=heterogeneity, decay=1.0, **SMALL)
    grid = np.arange(201)
    loss = accelerated_descent(problem, 1 / problem.global_smoothness, grid)
    limits = 2 * problem.global_smoothness * problem.initial_distance / (grid + 1.0) ** 2
    assert (loss[1:] <= limits[1:] * (1 + 1e-12)).all()
    # In R^d, with the momentum written as Nesterov does, by an auxiliary point.
    x = z = problem.start
    a = 0.0
    for r in range(40):
        step = (1 + np.sqrt(1 + 4 * a)) / 2
        a += step
        y = x + step / a * (z - x)
        z = z - step / problem.global_smoothness * problem.global_gradient(y)
        x = y - problem.global_gradient(y) / problem.global_smoothness
        assert loss[r + 1] == pytest.approx(float(problem.global_loss(x)), rel=1e-8, abs=1e-25)


def test_the_bound_of_accelerated_gd_is_reported_at_its_step() -> None:
    problem = least_squares(**SMALL)
    named = by_name(compare_baselines(problem, rounds=50, points=50, seeds=2))
    found = named["accelerated GD", COMMUNICATION]
    limit = 2 * problem.global_smoothness * problem.initial_distance / 51**2
    assert found.bound[-1] == pytest.approx(limit)
    assert (found.loss[1:] <= found.bound[1:] * (1 + 1e-12)).all()
    assert np.isnan(named["GD", COMMUNICATION].bound).all()


def test_acceleration_needs_its_step_size() -> None:
    # The bound can fail: the same rounds at three times the step diverge.
    problem = least_squares(**SMALL)
    grid = np.array([0, 100])
    loss = accelerated_descent(problem, 3.0 / problem.global_smoothness, grid)[-1]
    assert loss > 2 * problem.global_smoothness * problem.initial_distance / 101**2


def test_rows_collect_every_level() -> None:
    problems = [least_squares(heterogeneity=level, **SMALL) for level in ("iid", "sorted")]
    rows = baseline_rows(problems, local_steps=3, rounds=4, seeds=3, step_factors=(1.0,))
    expected = [s.method for s in schedules(problems[0], 3, 4)]
    assert [r.method for r in rows] == expected and len(expected) == 13
    for row in rows:
        assert set(row.loss) == {"iid", "sorted"}
        assert all(row.low[k] <= row.loss[k] <= row.high[k] for k in row.loss)


@pytest.mark.parametrize("make", [least_squares, realizable_logistic])
def test_a_problem_in_its_row_space_is_the_same_problem(make: Any) -> None:
    whole = make(**SMALL)
    moved = MarginProblem(
        [whole.features[whole.node_slice(i)] for i in range(3)],
        [whole.targets[whole.node_slice(i)] for i in range(3)],
        whole.loss,
        start=np.random.default_rng(1).standard_normal(60),
    )
    small = in_row_space(moved)
    assert small.dimension == moved.rank == 8
    assert small.initial_distance == pytest.approx(moved.initial_distance)
    assert small.global_smoothness == pytest.approx(moved.global_smoothness)
    settings: dict[str, Any] = {"step_size": 1.0, "local_steps": 3, "rounds": 6, "seeds": 2}
    a, b = (run_local_sgd(p, engine="numpy", **settings) for p in (moved, small))
    np.testing.assert_allclose(
        a.history["global_loss"], b.history["global_loss"], rtol=1e-9, atol=1e-14
    )


@pytest.fixture(scope="module")
def needed() -> tuple[MarginProblem, dict[str, RoundsToEps]]:
    problem = least_squares(n_nodes=4, samples_per_node=3, dimension=40, heterogeneity="sorted")
    rows = rounds_to_eps(problem, 1e-4, local_steps=3, seeds=3, step_factors=(0.5, 1.0))
    return problem, {row.method: row for row in rows}


def test_rounds_to_eps_are_the_first_at_which_the_mean_path_is_below(
    needed: tuple[MarginProblem, dict[str, RoundsToEps]],
) -> None:
    problem, rows = needed
    plain, half = rows["Local SGD"], rows["FedAvg, 2 nodes a round"]
    run = run_local_sgd(
        problem,
        step_size=plain.step_size / problem.smoothness,
        local_steps=3,
        rounds=int(plain.rounds),
        seeds=3,
        record=np.arange(0, 3 * int(plain.rounds) + 1, 3),
    )
    mean = run.history["global_loss"][0].mean(axis=0)
    assert mean[-1] <= 1e-4 < mean[-2]
    assert plain.low <= plain.rounds <= plain.high + 1
    # Half of the nodes send and compute half as much a round.
    assert half.communications == half.rounds / 2 and half.gradients == 3 * half.rounds / 2
    assert rows["SCAFFOLD I"].communications == 2 * rows["SCAFFOLD I"].rounds
    assert rows["SCAFFOLD I"].gradients == (3 + 3) * rows["SCAFFOLD I"].rounds


def test_what_theory_promises_is_never_less_than_what_was_measured_at_its_step() -> None:
    problem = least_squares(n_nodes=4, samples_per_node=3, dimension=40, heterogeneity="similar")
    rows = rounds_to_eps(problem, 1e-3, local_steps=3, seeds=4, step_factors=(1.0,))
    covered = {r.method: r for r in rows if r.theorem}
    assert {"Local SGD", "FedAvg, 2 nodes a round", "FedAvg, outer step polyak"} <= set(covered)
    assert {"GD", "accelerated GD", "mini-batch SGD"} <= set(covered)
    assert not {"SCAFFOLD I", "FedProx", "server momentum 0.9"} & set(covered)
    assert "FedAvg, fixed outer step" not in covered
    for row in covered.values():
        assert row.rounds <= np.ceil(row.bound), row.method


def test_promises_use_the_least_of_the_theorems() -> None:
    equal = least_squares(heterogeneity="identical", **SMALL)
    basic = methods(equal, 5)
    # Large eps: T3, a factor K below T2; small eps: the linear T4, a factor K below T4'.
    assert promised(equal, basic["Local SGD"], 0.3)[1] == "T3"
    bound, theorem = promised(equal, basic["Local SGD"], 1e-9)
    single, _ = promised(equal, methods(equal, 1)["Local SGD"], 1e-9)
    assert theorem == "T4" and bound == pytest.approx(single / 5)
    assert promised(equal, basic["GD"], 1e-9)[1] == "T4'"


def test_an_accuracy_that_no_step_reaches_is_not_reached() -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    rows = rounds_to_eps(problem, 1e-12, most=3, seeds=2, step_factors=(1.0,))
    assert all(np.isnan(row.rounds) and np.isnan(row.gradients) for row in rows)
    with pytest.raises(ValueError, match="eps is 0"):
        rounds_to_eps(problem, 0.0)


def test_runs_that_report_every_round_use_one_thread_and_give_the_others_back() -> None:
    before = numba.get_num_threads()
    with one_thread():
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    with pytest.raises(ValueError, match="eps is -1"):
        rounds_to_eps(least_squares(**SMALL), -1.0)
    assert numba.get_num_threads() == before
