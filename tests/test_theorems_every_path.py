"""T0 and S6 hold on every path: the bound of a path of its own, mixing, unequal weights."""

from __future__ import annotations

import loops
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.problems.generators import (
    realizable_logistic,
    separable_logistic,
)
from theory.simulation.local_sgd import run_local_sgd
from theory.theorems import (
    SHARPER,
    THEOREMS,
    Setting,
    t1_local_losses,
    t5_separable,
)

SEEDS = st.integers(0, 10_000)
ROUNDING = 1 + 1e-9


@given(seed=st.integers(0, 500), local_steps=st.integers(1, 4), factor=st.floats(0.05, 0.95))
def test_s6_holds_on_every_path_and_is_below_t5(seed: int, local_steps: int, factor: float) -> None:
    problem = separable_logistic(
        n_nodes=2, samples_per_node=3, dimension=8, heterogeneity="sorted", seed=seed
    )
    rounds, eta = 8, factor / problem.smoothness
    setting = Setting(step_size=eta, local_steps=local_steps, rounds=rounds)
    run = run_local_sgd(
        problem,
        step_size=eta,
        local_steps=local_steps,
        rounds=rounds,
        seeds=[seed],
        averages=("batch_loss", "sync_loss", "local_loss"),
    )
    t = setting.iterations
    (every_path,) = [x for x in THEOREMS if x.name == "T0'"]
    assert every_path.metric.read(run)[0] <= every_path.bound(problem, setting, t) * ROUNDING
    for plain, sharp in (("T5", "T5/S6"), ("T5'", "T5'/S6")):
        (below,) = [x for x in SHARPER if x.name == sharp]
        (above,) = [x for x in THEOREMS if x.name == plain]
        assert below.bound(problem, setting, t) <= above.bound(problem, setting, t) * ROUNDING


def test_s6_at_a_comparator_is_its_formula_minimised_by_brute_force() -> None:
    problem = separable_logistic(n_nodes=2, samples_per_node=4, dimension=30)
    setting = Setting(step_size=0.5 / problem.smoothness, local_steps=3, rounds=20)
    s = np.linspace(0, 200, 200_001)
    brute = s**2 / (2 * setting.step_size * 20) + 2 * 3 * np.logaddexp(0, -problem.margin * s)
    found = t5_separable.best_sharp_bound(problem, setting, distance_count=20, loss_count=3)
    assert found == pytest.approx(brute.min(), rel=1e-6)


def test_t0_knows_the_bound_of_a_path_of_its_own() -> None:
    (t0,) = [t for t in THEOREMS if t.name == "T0"]
    problem = realizable_logistic(n_nodes=3, samples_per_node=5, dimension=24, rank=8)
    setting = Setting(step_size=1.7 / problem.smoothness, local_steps=4, rounds=6)
    for order in ("uniform", "reshuffled"):
        run = run_local_sgd(
            problem,
            step_size=setting.step_size,
            local_steps=4,
            rounds=6,
            seeds=20,
            order=order,
            averages=t0.metric.averages,
        )
        assert t0.path_bound is not None
        own, common = t0.path_bound(problem, setting, run), t0.bound(problem, setting, 24)
        assert own.shape == (20,) and (own < common).all()
        assert (t0.metric.read(run) <= own * ROUNDING).all()


@given(seed=SEEDS, mixing=st.sampled_from(["doubly stochastic", "weights"]))
def test_t0_holds_for_mixing_and_for_unequal_weights_that_the_means_share(
    seed: int, mixing: str
) -> None:
    random = np.random.default_rng(seed)
    n, step = 3, float(random.uniform(0.1, 1.9))
    nodes = loops.random_nodes(random, n, 2)
    weights = np.full(n, 1 / n) if mixing == "doubly stochastic" else random.dirichlet(np.ones(n))
    matrix = np.tile(weights, (n, 1))
    if mixing == "doubly stochastic":
        matrix = np.mean([np.eye(n)[random.permutation(n)] for _ in range(3)], axis=0)
    models = np.tile(random.standard_normal(2), (n, 1))
    square, total = float(models[0] @ models[0]), 0.0
    for t in range(12):
        for i in range(n):
            total += weights[i] * loops.loss(nodes[i][0], models[i])
            models[i] -= step * loops.gradient(nodes[i][0], models[i])
        if t % 3 == 2:
            models = matrix @ models
    left = float(weights @ (models**2).sum(axis=1))
    assert total <= (square - left) / (2 * min(1, 2 - step) * step) * ROUNDING


def test_t0_is_false_for_unequal_weights_with_plain_means() -> None:
    flat = (np.zeros(1), np.ones((1, 1)), np.array([np.inf]))
    round_one = (np.ones(1), np.ones((1, 1)), np.array([np.inf]))
    x, total = np.ones(1), 0.0
    for _ in range(10):
        total += 0.5 * (loops.loss(flat, x) + loops.loss(round_one, x))
        # K = 1, weights (1, 0): the average is node 1's model, which has not moved.
    assert total == 2.5 > t1_local_losses.bound(L=1.0, D=1.0, eta=1.0, T=1)
