"""Local SGD: three engines, one trajectory; streams, schedules and recording."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.problems.generators import (
    least_squares,
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.problems.losses import MarginLoss
from theory.problems.margin import MarginProblem
from theory.simulation import draws
from theory.simulation.engines import METRICS
from theory.simulation.local_sgd import AVERAGES, run_local_sgd
from theory.simulation.streams import (
    permutations,
    raw_draws,
    reshuffled_indices,
    sample_indices,
)
from theory.support.errors import UserError

MAKERS = (least_squares, realizable_logistic, separable_logistic, sigmoid_regression)
SMALL: dict[str, Any] = {"n_nodes": 3, "samples_per_node": 6, "dimension": 25}
SCHEDULES: dict[str, dict[str, Any]] = {
    "plain": {"local_steps": 4, "rounds": 30},
    "K = 1": {"local_steps": 1, "rounds": 60},
    "one-shot averaging": {"local_steps": 150, "rounds": 1},
    "minibatch": {"local_steps": 3, "rounds": 20, "batch_size": 5},
    "full gradient": {"local_steps": 4, "rounds": 20, "gradient": "full"},
    "uneven K": {"local_steps": 4, "rounds": 20, "node_steps": [1, 4, 2]},
    "no averaging": {"local_steps": 4, "rounds": 20, "averaging": False},
    "reshuffled": {"local_steps": 4, "rounds": 20, "batch_size": 4, "order": "reshuffled"},
}


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest entry, NaN in both places being equal."""
    assert (np.isnan(a) == np.isnan(b)).all()
    scale = np.nanmax(np.abs(b), initial=0.0)
    return float(np.nanmax(np.abs(a - b), initial=0.0) / scale) if scale else 0.0


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("engine", ["numba", "margin"])
def test_engines_agree_to_1e_10(maker: Any, schedule: str, engine: str) -> None:
    problem = maker(**SMALL)
    settings: dict[str, Any] = {
        "step_size": [1 / problem.smoothness, 0.3 / problem.smoothness],
        "seeds": 3,
        "averages": AVERAGES,
        **SCHEDULES[schedule],
    }
    reference = run_local_sgd(problem, engine="numpy", **settings)
    fast = run_local_sgd(problem, engine=engine, **settings)
    assert relative(fast.final_model, reference.final_model) < 1e-10
    for name in METRICS:
        assert relative(fast.history[name], reference.history[name]) < 1e-10, name
    for name in AVERAGES:
        assert relative(fast.averages[name], reference.averages[name]) < 1e-10, name
    assert relative(fast.best_sync_loss, reference.best_sync_loss) < 1e-10


def test_a_stream_is_numpys_philox_keyed_by_seed_and_node() -> None:
    words = np.random.Philox(key=np.array([7, 3], dtype=np.uint64)).random_raw(50)
    halves = np.stack([words & 0xFFFFFFFF, words >> np.uint64(32)], axis=1).ravel()
    np.testing.assert_array_equal(raw_draws(7, 3, 0, 100), halves)


@given(first=st.integers(0, 200), count=st.integers(1, 100))
def test_a_draw_depends_on_its_position_only(first: int, count: int) -> None:
    whole = raw_draws(1, 2, 0, 400)
    np.testing.assert_array_equal(raw_draws(1, 2, first, count), whole[first : first + count])


def test_draws_are_uniform_and_independent_over_nodes_and_seeds() -> None:
    drawn = sample_indices(np.arange(3, dtype=np.uint64), np.array([7, 7]), 0, 20_000, 1)[
        ..., 0
    ].reshape(6, -1)
    counts = np.stack([np.bincount(row, minlength=7) for row in drawn])
    # 5 sigma of a binomial count.
    assert np.abs(counts - 20_000 / 7).max() < 5 * np.sqrt(20_000 * 6 / 49)
    for a, b in product(range(6), repeat=2):
        if a < b:
            assert abs((drawn[a] == drawn[b]).mean() - 1 / 7) < 0.015


@given(chunk=st.integers(1, 60))
def test_chunks_of_draws_do_not_change_a_run(chunk: int) -> None:
    problem = least_squares(**SMALL)
    whole = run_local_sgd(problem, step_size=0.5, local_steps=3, rounds=15, seeds=2)
    kept = draws.CHUNK_DRAWS
    try:
        draws.CHUNK_DRAWS = chunk * 2 * problem.n_nodes
        cut = run_local_sgd(problem, step_size=0.5, local_steps=3, rounds=15, seeds=2)
    finally:
        draws.CHUNK_DRAWS = kept
    np.testing.assert_array_equal(whole.final_model, cut.final_model)


def test_a_seed_gives_the_same_path_whatever_runs_beside_it() -> None:
    problem = realizable_logistic(**SMALL)
    settings: dict[str, Any] = {"local_steps": 5, "rounds": 10}
    together = run_local_sgd(problem, step_size=[0.5, 2.0], seeds=[4, 9, 2], **settings)
    alone = run_local_sgd(problem, step_size=2.0, seeds=[9], **settings)
    # Not bitwise: BLAS forms x from coefficients in an order that depends on how many there are.
    assert relative(together.final_model[1, 1], alone.final_model[0, 0]) < 1e-12


def test_running_means_are_exact_between_grid_points() -> None:
    problem = least_squares(**SMALL)
    everything = run_local_sgd(
        problem,
        step_size=0.6,
        local_steps=4,
        rounds=10,
        seeds=2,
        record=np.arange(41),
        averages=AVERAGES,
    )
    sparse = run_local_sgd(
        problem,
        step_size=0.6,
        local_steps=4,
        rounds=10,
        seeds=2,
        record=[17, 40],
        averages=AVERAGES,
    )
    for g, t in enumerate(sparse.iterations):
        if t == 0:
            continue
        rounds = np.arange(0, t, 4)
        expected = {
            "local_loss": everything.history["local_loss"][..., :t].mean(axis=-1),
            "global_loss": everything.history["global_loss"][..., :t].mean(axis=-1),
            "sync_loss": everything.history["global_loss"][..., rounds].mean(axis=-1),
            "sync_gradient": everything.history["gradient"][..., rounds].mean(axis=-1),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(sparse.averages[name][..., g], value, rtol=1e-12)
        best = everything.history["global_loss"][..., rounds].min(axis=-1)
        np.testing.assert_allclose(sparse.best_sync_loss[..., g], best, rtol=1e-12)


def test_one_node_with_full_gradients_is_gradient_descent() -> None:
    problem = least_squares(n_nodes=1, samples_per_node=8, dimension=20, rank=8)
    x = problem.start
    for _ in range(30):
        x = x - 0.8 * problem.global_gradient(x)
    result = run_local_sgd(problem, step_size=0.8, local_steps=5, rounds=6, gradient="full")
    np.testing.assert_allclose(result.final_model[0, 0], x, rtol=1e-11, atol=1e-13)


def test_consensus_is_zero_after_averaging_and_not_before() -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    result = run_local_sgd(problem, step_size=1.0, local_steps=5, rounds=3, record=np.arange(16))
    consensus = result.history["consensus"][0, 0]
    assert (consensus[::5] < 1e-25).all() and (consensus[4::5] > 1e-4).all()


def test_a_loss_of_your_own_runs_on_the_reference_engine() -> None:
    def huber(z: Any, t: Any) -> Any:
        r = np.abs(z - t)
        return np.where(r < 1, r**2 / 2, r - 0.5)

    loss = MarginLoss("huber", huber, lambda z, t: np.clip(z - t, -1, 1), 1.0, True, True)
    data = least_squares(**SMALL)
    problem = MarginProblem([data.features], [data.targets], loss)
    result = run_local_sgd(problem, step_size=1.0, local_steps=2, rounds=50)
    assert result.engine == "numpy"
    assert result.history["global_loss"][0, 0, -1] < 0.1 * result.history["global_loss"][0, 0, 0]
    with pytest.raises(ValueError, match="needs a compiled loss"):
        run_local_sgd(problem, step_size=1.0, engine="numba")


def test_margin_space_is_chosen_where_it_is_cheaper() -> None:
    wide = least_squares(n_nodes=2, samples_per_node=4, dimension=2000, rank=8)
    tall = least_squares(n_nodes=2, samples_per_node=400, dimension=8, rank=8)
    run: dict[str, Any] = {"step_size": 0.5, "local_steps": 2, "rounds": 2, "averages": []}
    assert run_local_sgd(wide, **run).engine == "margin"
    assert run_local_sgd(tall, **run).engine == "numba"


def test_divergence_is_reported() -> None:
    problem = least_squares(**SMALL)
    result = run_local_sgd(problem, step_size=[50.0, 0.5], local_steps=20, rounds=200, seeds=2)
    assert result.diverged.tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_size": 0.0}, "step_size is .* above 0"),
        ({"step_size": float("nan")}, "step_size is .* above 0"),
        ({"step_size": []}, "step_size is .* above 0"),
        ({"step_size": "small"}, "step_size is 'small'"),
        ({"local_steps": 0}, "local_steps is 0, allowed: integers of at least 1"),
        ({"local_steps": float("nan")}, "local_steps is nan"),
        ({"local_steps": True}, "local_steps is True"),
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": 2.5}, "rounds is 2.5, allowed: integers of at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5, allowed: integers from 1 to 1000000"),
        ({"batch_size": 10**7}, "batch_size is 10000000, allowed: integers from 1 to 1000000"),
        ({"order": "sorted"}, "order is 'sorted', allowed: uniform, reshuffled"),
        ({"gradient": "noisy"}, "allowed: stochastic, full"),
        ({"engine": "fast"}, "allowed: auto, numpy, numba, margin"),
        ({"averages": ["median"]}, "averages has 'median'"),
        ({"node_steps": [1, 2]}, "node_steps is"),
        ({"node_steps": [1, 2, 1.5]}, "node_steps is"),
        ({"seeds": []}, "seeds is .* allowed: a count of at least 1, or a list"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": 1.5}, "seeds is 1.5, allowed: integers from 1 to 1000000"),
        ({"seeds": [1.5]}, "seed is 1.5, allowed: integers from 0 to 18446744073709551615"),
        ({"seeds": [-1]}, "seed is -1"),
        ({"seeds": [2**64]}, "seed is 18446744073709551616"),
        ({"record": [11]}, "record is 11, allowed: integers from 0 to 10"),
        ({"record": [-1]}, "record is -1"),
        ({"record": [9.5]}, "record is 9.5"),
        ({"record": [float("nan")]}, "record is nan"),
    ],
)
def test_bad_arguments_are_refused_with_what_is_allowed(
    change: dict[str, Any], message: str
) -> None:
    arguments: dict[str, Any] = {"step_size": 0.5, "local_steps": 2, "rounds": 5, **change}
    with pytest.raises(UserError, match=message):
        run_local_sgd(least_squares(**SMALL), **arguments)


def test_counts_and_seeds_may_be_numpy_integers() -> None:
    problem = least_squares(**SMALL)
    plain = run_local_sgd(problem, step_size=0.5, local_steps=2, rounds=3, seeds=3)
    counts: dict[str, Any] = {
        "local_steps": np.int64(2),
        "rounds": np.int32(3),
        "seeds": np.int64(3),
    }
    arrays = run_local_sgd(
        problem,
        step_size=np.float64(0.5),
        **counts,
        record=np.array([2.0, 6.0]),
    )
    np.testing.assert_array_equal(plain.final_model, arrays.final_model)
    largest = run_local_sgd(problem, step_size=0.5, rounds=3, seeds=[0, 2**64 - 1, 2**63 + 1])
    assert [int(s) for s in largest.seeds] == [0, 2**64 - 1, 2**63 + 1]
    assert len(np.unique(largest.final_model[0], axis=0)) == 3


@pytest.mark.parametrize("maker", MAKERS[:2])
@pytest.mark.parametrize("order", ["uniform", "reshuffled"])
@pytest.mark.parametrize("engine", ["numpy", "numba", "margin"])
def test_t0_holds_on_every_path(maker: Any, order: str, engine: str) -> None:
    """(1/T) sum_t (1/n) sum_i l_i^t <= (D - (1/n) sum_i ||x_i^T - x*||^2) / (2 phi eta T)."""
    problem = maker(heterogeneity="sorted", **SMALL)
    factors = np.array([0.3, 1.0, 1.7])
    run = run_local_sgd(
        problem,
        step_size=factors / problem.smoothness,
        local_steps=4,
        rounds=25,
        seeds=10,
        batch_size=2,
        order=order,
        engine=engine,
        averages=["batch_loss"],
        record=np.arange(101),
    )
    fallen = problem.initial_distance - run.history["local_distance"][..., 1:]
    scale = 2 * np.minimum(1, 2 - factors) * run.step_sizes
    bound = fallen / (scale[:, None, None] * run.iterations[1:])
    measured = run.averages["batch_loss"][..., 1:]
    rounding = 1e-12 * problem.initial_distance
    assert (measured <= bound * (1 + 1e-12) + rounding).all()
    # And it is not vacuous: with least squares at eta = 1/L the first step is within a factor 2.
    assert (bound[1, :, 0] < 2.1 * measured[1, :, 0]).all() or problem.loss.name != "squared"


def test_a_batch_loss_is_the_loss_of_the_samples_used() -> None:
    # By hand from the draws: one step of one node, whatever the others do.
    problem = realizable_logistic(**SMALL)
    run = run_local_sgd(
        problem,
        step_size=1.0,
        local_steps=2,
        rounds=1,
        seeds=[5],
        batch_size=3,
        node_steps=[2, 1, 1],
        averages=["batch_loss"],
        engine="margin",
    )
    drawn = sample_indices(np.array([5], dtype=np.uint64), problem.node_sizes, 0, 2, 3)
    total, x = 0.0, np.tile(problem.start, (1, 3, 1))
    for t in range(2):
        losses = [
            np.mean(
                [
                    problem.loss.value(problem.features[row] @ x[0, i], problem.targets[row])
                    for row in problem.offsets[i] + drawn[0, i, t]
                ]
            )
            for i in range(3)
        ]
        total += float(sum(losses) / 3 if t == 0 else losses[0] / 3)
        x = x - problem.sample_gradients(x, drawn[:, :, t].astype(np.int64))
    np.testing.assert_allclose(run.averages["batch_loss"][0, 0, -1], total / 2, rtol=1e-12)


@given(
    batch=st.integers(1, 7),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    first=st.integers(0, 20),
)
def test_reshuffled_passes_are_permutations(batch: int, sizes: list[int], first: int) -> None:
    m = np.array(sizes)
    steps = -(-3 * max(sizes) // batch) + 5
    seeds = np.array([1, 2], dtype=np.uint64)
    taken = np.broadcast_to(np.arange(steps), (2, len(sizes), steps))
    drawn = reshuffled_indices(seeds, m, taken, batch).reshape(2, len(sizes), -1)
    for i, size in enumerate(sizes):
        whole = drawn[:, i, : 3 * size].reshape(2, 3, size)
        np.testing.assert_array_equal(
            np.sort(whole, axis=2), np.broadcast_to(np.arange(size), whole.shape)
        )
    # A window is a piece of the whole, wherever it begins.
    cut = min(first, steps - 1)
    window = reshuffled_indices(seeds, m, taken[:, :, cut:], batch)
    np.testing.assert_array_equal(window.reshape(2, len(sizes), -1), drawn[:, :, cut * batch :])


def test_permutations_are_uniform_and_fresh_every_pass() -> None:
    table = permutations(3, 1, 4, 0, 24_000)
    codes = table @ np.array([64, 16, 4, 1])
    _, counts = np.unique(codes, return_counts=True)
    # 5 sigma of a binomial count.
    assert len(counts) == 24 and np.abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert abs((codes[1:] == codes[:-1]).mean() - 1 / 24) < 0.01


def test_a_waiting_node_keeps_its_place_in_the_pass() -> None:
    # Node 0 takes one of four steps a round: six rounds are one pass over its six samples, so with
    # unit steps on orthogonal samples of least squares all of them are fitted after it, none before.
    rows = np.eye(12)
    problem = MarginProblem([rows[:6], rows[6:]], [np.ones(6), np.ones(6)])
    run = run_local_sgd(
        problem,
        step_size=1.0,
        local_steps=4,
        rounds=6,
        seeds=3,
        order="reshuffled",
        node_steps=[1, 4],
    )
    # Each sample of node 0 is visited once, and averaging keeps half of its step.
    np.testing.assert_allclose(run.final_model[0, :, :6], 0.5, rtol=1e-14)


def test_chunks_of_draws_do_not_change_a_reshuffled_run(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = least_squares(**SMALL)
    settings: dict[str, Any] = {"local_steps": 3, "rounds": 15, "order": "reshuffled", "seeds": 2}
    whole = run_local_sgd(problem, step_size=0.5, batch_size=4, **settings)
    monkeypatch.setattr(draws, "CHUNK_DRAWS", 7 * 2 * 3 * 4)
    cut = run_local_sgd(problem, step_size=0.5, batch_size=4, **settings)
    np.testing.assert_array_equal(whole.final_model, cut.final_model)
