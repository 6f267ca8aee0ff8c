"""SCAFFOLD, FedProx and momentum: against plain loops, their limits, and what SCAFFOLD can gain."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from theory.problems.generators import least_squares, realizable_logistic
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.streams import sample_indices
from theory.simulation.variants import Reports, Variant
from theory.support.errors import UserError
from theory.theorems import instance_1
from theory.verification.baselines.fedprox import FedProx
from theory.verification.baselines.momentum import ServerMomentum
from theory.verification.baselines.scaffold import Scaffold

SMALL: dict[str, Any] = {"n_nodes": 4, "samples_per_node": 5, "dimension": 30}
RUN: dict[str, Any] = {"step_size": 0.7, "local_steps": 3, "rounds": 7}


def plain_scaffold(problem: Any, option: str, seed: int, full: bool = False) -> np.ndarray:
    """Algorithm 1 of Karimireddy et al. 2020 in plain loops, all nodes, server step 1."""
    eta, steps, rounds = RUN["step_size"], RUN["local_steps"], RUN["rounds"]
    n, d = problem.n_nodes, problem.dimension
    drawn = sample_indices(np.array([seed], np.uint64), problem.node_sizes, 0, steps * rounds, 1)[
        0, :, :, 0
    ]

    def gradient(i: int, x: np.ndarray, t: int) -> np.ndarray:
        rows = range(problem.offsets[i], problem.offsets[i + 1])
        chosen = list(rows) if full else [rows[drawn[i, t]]]
        total = np.zeros(d)
        for j in chosen:
            a, target = problem.features[j], problem.targets[j]
            total += problem.loss.derivative(np.array(a @ x), np.array(target)) * a
        return total / len(chosen)

    def whole(i: int, x: np.ndarray) -> np.ndarray:
        return problem.node_gradients(np.tile(x, (n, 1)))[i]

    x, server = problem.start.copy(), np.zeros(d)
    own = [np.zeros(d) for _ in range(n)]
    for r in range(rounds):
        ends, fresh = [], []
        for i in range(n):
            y = x.copy()
            for k in range(steps):
                y = y - eta * (gradient(i, y, r * steps + k) - own[i] + server)
            ends.append(y)
            used = own[i] - server + (x - y) / (steps * eta)
            fresh.append(whole(i, x) if option == "I" else used)
        x = x + sum(y - x for y in ends) / n
        server = server + sum(b - a for a, b in zip(own, fresh, strict=True)) / n
        own = fresh
    return x


def scaffold(problem: Any, option: str) -> Scaffold:
    return Scaffold(problem.node_gradients if option == "I" else None)


@pytest.mark.parametrize("option", ["I", "II"])
@pytest.mark.parametrize("make", [least_squares, realizable_logistic])
def test_scaffold_is_its_algorithm_in_plain_loops(make: Any, option: str) -> None:
    problem = make(heterogeneity="similar", **SMALL)
    variant = scaffold(problem, option)
    run = run_local_sgd(problem, seeds=[0, 3], variant=variant, **RUN)
    assert run.variant == variant.name == f"SCAFFOLD {option}"
    for s, seed in enumerate([0, 3]):
        expected = plain_scaffold(problem, option, seed)
        np.testing.assert_allclose(run.final_model[0, s], expected, rtol=1e-10, atol=1e-12)
    plain = run_local_sgd(problem, seeds=[0], **RUN)
    assert np.abs(plain.final_model[0, 0] - run.final_model[0, 0]).max() > 1e-3


@pytest.mark.parametrize("option", ["I", "II"])
def test_full_gradients_on_identical_nodes_make_scaffold_local_gd(option: str) -> None:
    # c_i = c: the corrections cancel.
    problem = least_squares(heterogeneity="identical", **SMALL)
    settings: dict[str, Any] = {**RUN, "gradient": "full"}
    run = run_local_sgd(problem, variant=scaffold(problem, option), **settings)
    plain = run_local_sgd(problem, **settings)
    np.testing.assert_allclose(run.final_model, plain.final_model, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("option", ["I", "II"])
def test_one_local_step_of_scaffold_with_full_gradients_is_gd(option: str) -> None:
    # K = 1: the mean of the corrections c - c_i is 0 when all nodes take part.
    problem = least_squares(heterogeneity="sorted", **SMALL)
    settings: dict[str, Any] = {**RUN, "local_steps": 1, "gradient": "full"}
    run = run_local_sgd(problem, variant=scaffold(problem, option), **settings)
    plain = run_local_sgd(problem, **settings)
    np.testing.assert_allclose(run.final_model, plain.final_model, rtol=1e-10, atol=1e-12)


class Watched(Scaffold):
    """SCAFFOLD that remembers its variates after every round."""

    seen: list[tuple[np.ndarray, np.ndarray]] = []  # noqa: RUF012

    def combine(self, model: np.ndarray, reports: Reports) -> np.ndarray:
        moved = super().combine(model, reports)
        state = reports.state
        self.seen.append((state["server"].copy(), state["nodes"].copy()))
        return moved


def test_the_servers_variate_is_the_mean_of_all_nodes_under_sampling() -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    Watched.seen.clear()
    run_local_sgd(problem, variant=Watched(participants=2), seeds=1, **RUN)
    assert len(Watched.seen) == 7
    for server, nodes in Watched.seen:
        np.testing.assert_allclose(server, nodes.mean(axis=0), rtol=1e-10, atol=1e-14)
    # Two of four nodes wrote in the first round, the others' variates were still 0.
    assert sorted(np.abs(Watched.seen[0][1]).max(axis=1) > 0) == [False, False, True, True]


@pytest.mark.parametrize("option", ["I", "II"])
def test_variates_vanish_at_the_common_minimiser_which_is_a_fixed_point(option: str) -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    assert problem.solution is not None
    still = MarginProblem(
        [problem.features[problem.node_slice(i)] for i in range(4)],
        [problem.targets[problem.node_slice(i)] for i in range(4)],
        start=problem.solution,
    )
    run = run_local_sgd(still, variant=scaffold(still, option), seeds=1, **RUN)
    np.testing.assert_allclose(run.final_model[0, 0], problem.solution, atol=1e-12)
    # On the way to x* they tend to 0 with the distance.
    Watched.seen.clear()
    variant = Watched(problem.node_gradients if option == "I" else None)
    long = run_local_sgd(problem, variant=variant, seeds=1, **{**RUN, "rounds": 400})
    sizes = np.array([np.abs(nodes).max() for _, nodes in Watched.seen])
    assert sizes[-1] < 1e-3 * sizes[0]
    assert long.history["distance"][0, 0, -1] < 1e-3 * problem.initial_distance


def rounds_on_i1(variant: Variant, local_steps: int, eps: float) -> int:
    made = instance_1(40)
    run = run_local_sgd(
        made.problem,
        step_size=made.setting.step_size,
        local_steps=local_steps,
        rounds=90,
        gradient="full",
        variant=variant,
        engine="numpy",
        record=np.arange(0, 90 * local_steps + 1, local_steps),
    )
    below = np.flatnonzero(run.history["global_loss"][0, 0] <= eps)
    return int(below[0])


def test_on_i1_local_steps_are_worth_one_without_and_nearly_k_with_variates() -> None:
    problem = instance_1(40).problem
    eps = instance_1(40).value * (1 + 1e-9)
    plain = [rounds_on_i1(Variant(), k, eps) for k in (1, 5)]
    first = [rounds_on_i1(Scaffold(problem.node_gradients), k, eps) for k in (1, 5)]
    second = [rounds_on_i1(Scaffold(), k, eps) for k in (1, 5)]
    # T2's rate has no K in it, and I1 shows it tight for Local SGD, which SCAFFOLD is not.
    assert plain == [40, 40]
    assert first[0] == second[0] == 40
    # The first round, with variates 0, is one of Local SGD; those of option II lag behind further.
    assert first[1] <= 40 / 5 + 1 and second[1] <= 40 / 5 + 3


def test_scaffold_loses_the_step_sizes_of_local_sgd() -> None:
    # Lemma 1 covers no corrected step: where nodes see other directions, K steps of 1/L diverge.
    problem = least_squares(n_nodes=2, samples_per_node=1, dimension=4, heterogeneity="sorted")
    settings: dict[str, Any] = {
        "step_size": 1 / problem.smoothness,
        "rounds": 12,
        "gradient": "full",
    }
    ends = {
        k: run_local_sgd(
            problem, variant=Scaffold(problem.node_gradients), local_steps=k, **settings
        ).history["global_loss"][0, 0, -1]
        for k in (2, 10)
    }
    start = float(problem.global_loss(problem.start))
    assert ends[2] < start < ends[10]
    plain = run_local_sgd(problem, local_steps=10, **settings)
    assert plain.history["global_loss"][0, 0, -1] < start


def test_fedprox_with_weight_zero_is_local_sgd_and_its_fixed_point_is_the_solution() -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    free = run_local_sgd(problem, variant=FedProx(0.0), seeds=2, **RUN)
    plain = run_local_sgd(problem, seeds=2, **RUN)
    np.testing.assert_allclose(free.final_model, plain.final_model, rtol=1e-12)
    run = run_local_sgd(problem, variant=FedProx(0.2), seeds=1, **{**RUN, "rounds": 600})
    assert run.history["distance"][0, 0, -1] < 1e-3 * problem.initial_distance
    assert run.variant == "FedProx 0.2"


def test_fedprox_descends_the_local_objective_with_its_proximal_term() -> None:
    problem = realizable_logistic(heterogeneity="sorted", **SMALL)
    run = run_local_sgd(
        problem, variant=FedProx(0.3), step_size=0.9, local_steps=4, rounds=3, gradient="full"
    )
    x = problem.start
    for _ in range(3):
        y = np.tile(x, (4, 1))
        for _ in range(4):
            y = y - 0.9 * (problem.node_gradients(y) + 0.3 * (y - x))
        x = y.mean(axis=0)
    np.testing.assert_allclose(run.final_model[0, 0], x, rtol=1e-10, atol=1e-13)


def test_momentum_zero_is_local_sgd_and_a_long_round_of_it_is_heavy_ball() -> None:
    problem = least_squares(**SMALL)
    none = run_local_sgd(problem, variant=ServerMomentum(0.0), seeds=1, **RUN)
    plain = run_local_sgd(problem, seeds=1, **RUN)
    np.testing.assert_allclose(none.final_model, plain.final_model, rtol=1e-12)
    settings: dict[str, Any] = {"step_size": 0.5, "local_steps": 1, "rounds": 9, "gradient": "full"}
    run = run_local_sgd(problem, variant=ServerMomentum(0.6), **settings)
    before = x = problem.start
    for _ in range(9):
        before, x = x, x - 0.5 * problem.global_gradient(x) + 0.6 * (x - before)
    np.testing.assert_allclose(run.final_model[0, 0], x, rtol=1e-10, atol=1e-13)


def test_they_travel_to_workers_and_refuse_numbers_outside_their_range() -> None:
    for variant in (Scaffold(participants=2), FedProx(0.5), ServerMomentum(0.3)):
        assert pickle.loads(pickle.dumps(variant)) == variant
    with pytest.raises(UserError, match="strength is -1, allowed"):
        FedProx(-1)
    with pytest.raises(UserError, match=r"factor is 1.0, allowed: .*below 1"):
        ServerMomentum(1.0)
    with pytest.raises(UserError, match="participants is 9, allowed: integers from 1 to 4"):
        run_local_sgd(least_squares(**SMALL), variant=Scaffold(participants=9), **RUN)
