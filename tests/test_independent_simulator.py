"""All engines against a simulator that shares no code with them, on draws that are not ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from independent_simulator import Path, Simulator

from theory.problems.losses import (
    HARD_LOGISTIC,
    SIGMOID_REGRESSION,
    SOFT_LOGISTIC,
    SQUARED,
    MarginLoss,
)
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import AVERAGES, LocalSGDResult, run_local_sgd

SHAPES: dict[str, tuple[list[int], int]] = {
    "ragged nodes": ([3, 1, 5, 2], 14),
    "one node": ([4], 9),
    "one dimension": ([2, 1, 3], 1),
    "equal nodes": ([3, 3, 3], 12),
}
# K, K_i (None: K), batch (None: full gradients), m, weights, outer step.
SCHEDULES: dict[str, dict[str, Any]] = {
    "plain": {"K": 3, "batch": 1},
    "K = 1, mini-batches": {"K": 1, "batch": 2},
    "full gradients, uneven K": {"K": 4, "batch": None, "uneven": True},
    "clients, extrapolated, uneven K": {
        "K": 3,
        "batch": 2,
        "uneven": True,
        "clients": True,
        "outer": "extrapolated",
    },
    "weights, polyak": {"K": 2, "batch": 1, "weighted": True, "outer": "polyak"},
    "clients, weights, beta = 1.3": {
        "K": 2,
        "batch": 1,
        "clients": True,
        "weighted": True,
        "outer": 1.3,
    },
    "half-extrapolated": {"K": 5, "batch": 3, "outer": "half-extrapolated"},
}
ROUNDS = 6


def make(loss: MarginLoss, sizes: list[int], dimension: int) -> MarginProblem:
    random = np.random.default_rng(len(sizes) * 100 + dimension)
    features = [random.standard_normal((m, dimension)) / np.sqrt(dimension) for m in sizes]
    x = random.standard_normal(dimension)
    start = 0.3 * random.standard_normal(dimension)
    targets = [a @ x for a in features]
    if loss is HARD_LOGISTIC:
        targets = [np.where(t >= 0, 1.0, -1.0) for t in targets]
    return MarginProblem(features, targets, loss, start=start)


def simulate(
    problem: MarginProblem, eta: float, how: dict[str, Any], draws: np.ndarray, clients: np.ndarray
) -> Path:
    rows = []
    for i in range(problem.n_nodes):
        s = problem.node_slice(i)
        rows.append(
            list(zip(problem.features[s].tolist(), problem.targets[s].tolist(), strict=True))
        )
    solution = None if problem.solution is None else problem.solution.tolist()
    simulator = Simulator(
        rows, problem.loss.name, problem.start.tolist(), solution, problem.smoothness
    )
    full = how["batch"] is None
    return simulator.run(
        eta,
        ROUNDS,
        steps_of(problem, how),
        how["K"],
        None if full else lambda i, t: draws[0, i, t].tolist(),
        (lambda r: clients[r].tolist()) if how.get("clients") else None,
        weights_of(problem, how),
        how.get("outer", 1.0),
    )


def steps_of(problem: MarginProblem, how: dict[str, Any]) -> list[int]:
    return [1 + i % how["K"] if how.get("uneven") else how["K"] for i in range(problem.n_nodes)]


def weights_of(problem: MarginProblem, how: dict[str, Any]) -> list[float] | None:
    raw = [1.0 + i for i in range(problem.n_nodes)]
    return [w / sum(raw) for w in raw] if how.get("weighted") else None


def close(found: np.ndarray, wanted: list[float], floor: float = 1e-14) -> bool:
    expected = np.array(wanted)
    return bool(np.abs(found - expected).max() <= 1e-10 * np.abs(expected).max() + floor)


def compare(run: LocalSGDResult, path: Path, local_steps: int) -> None:
    assert close(run.final_model[0, 0], path.model)
    for name in path.history[0]:
        assert close(run.history[name][0, 0], [row[name] for row in path.history]), name
    last = run.iterations[-1]
    at_rounds = [row for t, row in enumerate(path.history[:-1]) if t % local_steps == 0]
    sums = {
        "local_loss": sum(path.local_losses) / last,
        "batch_loss": sum(path.batch_losses) / last,
        "global_loss": sum(row["global_loss"] for row in mid_path(path)) / last,
        "sync_loss": sum(row["global_loss"] for row in at_rounds) / ROUNDS,
        "sync_gradient": sum(row["gradient"] for row in at_rounds) / ROUNDS,
    }
    for name, value in sums.items():
        assert close(run.averages[name][0, 0, -1:], [value]), name
    best = min(row["global_loss"] for row in at_rounds)
    assert close(run.best_sync_loss[0, 0, -1:], [best])
    record = run.round_record
    assert record is not None
    for name in path.rounds[0]:
        wanted = [row[name] for row in path.rounds]
        if np.isnan(wanted).all():
            assert np.isnan(getattr(record, name)).all()
        else:
            assert close(getattr(record, name)[0, 0], wanted), name


def mid_path(path: Path) -> list[dict[str, float]]:
    return path.history[:-1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "loss", [SQUARED, SOFT_LOGISTIC, HARD_LOGISTIC, SIGMOID_REGRESSION], ids=lambda x: x.name
)
def test_every_engine_agrees_with_plain_loops(
    loss: MarginLoss, schedule: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, dimension = SHAPES[shape]
    problem, how = make(loss, sizes, dimension), SCHEDULES[schedule]
    n, last = problem.n_nodes, how["K"] * ROUNDS
    random = np.random.default_rng(7)
    batch = how["batch"] or 1
    draws = np.stack(
        [random.integers(0, m, (last, batch)) for m in problem.node_sizes.tolist()]
    ).astype(np.int32)[None]
    m = max(1, n - 1)
    clients = np.sort(
        np.stack([random.choice(n, m, replace=False) for _ in range(ROUNDS)]), axis=1
    ).astype(np.int32)

    def our_draws(seeds: Any, node_sizes: Any, first: int, steps: int, size: int) -> np.ndarray:
        assert size == batch
        return draws[:, :, first : first + steps]

    def our_clients(seed: int, first: int, rounds: int, nodes: int, count: int) -> np.ndarray:
        assert (nodes, count) == (n, m)
        return clients[first : first + rounds]

    monkeypatch.setattr("theory.simulation.draws.sample_indices", our_draws)
    monkeypatch.setattr("theory.simulation.draws.participants", our_clients)
    monkeypatch.setattr("theory.simulation.variants.participants", our_clients)
    # Extrapolation on separable data lets models grow without bound.
    eta = 0.8 / problem.smoothness
    path = simulate(problem, eta, how, draws, clients)
    for engine in ("numpy", "numba", "margin"):
        run = run_local_sgd(
            problem,
            step_size=eta,
            local_steps=how["K"],
            rounds=ROUNDS,
            batch_size=batch,
            gradient="full" if how["batch"] is None else "stochastic",
            node_steps=steps_of(problem, how),
            participants=m if how.get("clients") else None,
            weights=weights_of(problem, how),
            outer_step=how.get("outer", 1.0),
            engine=engine,
            averages=AVERAGES,
            record=np.arange(last + 1),
            record_rounds=True,
        )
        compare(run, path, how["K"])
