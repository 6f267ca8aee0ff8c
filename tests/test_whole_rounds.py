"""The compiled engines' short cuts, whole rounds at a time and nodes over threads, change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_local_sgd import SCHEDULES, SMALL, relative

from theory.problems.generators import least_squares
from theory.problems.margin import MarginProblem
from theory.simulation.engines import METRICS
from theory.simulation.local_sgd import run_local_sgd


@pytest.mark.parametrize("schedule", ["plain", "uneven K", "no averaging", "full gradient"])
def test_fused_rounds_and_parallel_nodes_change_nothing(schedule: str) -> None:
    # Without running sums the compiled engine takes other paths: fused rounds, nodes over threads.
    problem = least_squares(**SMALL)
    settings: dict[str, Any] = {"step_size": 0.7, "averages": [], **SCHEDULES[schedule]}
    for seeds in (1, 4):
        reference = run_local_sgd(problem, engine="numpy", seeds=seeds, **settings)
        fast = run_local_sgd(problem, engine="numba", seeds=seeds, **settings)
        assert relative(fast.final_model, reference.final_model) < 1e-10
        for name in METRICS:
            assert relative(fast.history[name], reference.history[name]) < 1e-10


def test_long_rounds_move_margins_by_products_or_all_at_once() -> None:
    # 60 steps: node 0 moves all of its two margins along, node 1 takes the products of its draws.
    random = np.random.default_rng(3)
    features = [random.standard_normal((m, 50)) / 7 for m in (2, 41)]
    problem = MarginProblem(features, [a @ np.ones(50) for a in features])
    settings: dict[str, Any] = {"local_steps": 60, "rounds": 4, "record": [240], "seeds": 2}
    settings |= {"step_size": 0.6 / problem.smoothness, "outer_step": "polyak"}
    settings |= {"averages": ["batch_loss", "sync_loss"], "record_rounds": True}
    reference = run_local_sgd(problem, engine="numpy", **settings)
    fast = run_local_sgd(problem, engine="margin", **settings)
    assert relative(fast.final_model, reference.final_model) < 1e-10
    for name in ("batch_loss", "sync_loss"):
        assert relative(fast.averages[name], reference.averages[name]) < 1e-10
    for name in ("mean_square", "square_mean", "loss", "outer_step"):
        found, wanted = getattr(fast.round_record, name), getattr(reference.round_record, name)
        assert relative(found, wanted) < 1e-10, name
