"""Loss against rounds for outer steps, on the same draws: FedAvg as it is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from theory.problems import generators
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd

#: Few samples a node and many directions: the nodes' reports are far from one another.
SIZES = {"n_nodes": 8, "samples_per_node": 6, "dimension": 100}
_MAKERS = {
    "least squares": generators.least_squares,
    "logistic": generators.realizable_logistic,
}


def make_problem(name: str, heterogeneity: generators.Heterogeneity) -> MarginProblem:
    """Least squares or realizable logistic, n = 8, 6 samples a node, d = 100, seed 0."""
    problem: MarginProblem = _MAKERS[name](**SIZES, heterogeneity=heterogeneity)
    return problem


def outer_step_curves(
    problem: str,
    heterogeneity: generators.Heterogeneity,
    outer_steps: Sequence[float | str],
    local_steps: int,
    rounds: int,
    seeds: int,
) -> dict[str, Any]:
    """f(xbar_r) after every round at eta = 1/L, one sample a step, all rules on the same draws.

    Args:
        problem: "least squares" or "logistic".
        heterogeneity: of its nodes.
        outer_steps: numbers, or names that :func:`theory.simulation.local_sgd.run_local_sgd` knows.
        local_steps, rounds, seeds: K, R and how many paths.

    Returns:
        "rounds" (R + 1,); "curves", for each outer step in order "mean", "low", "high" over the seeds,
        the latter 5% and 95% of them, each (R + 1,); "similarity", c.
    """
    made = make_problem(problem, heterogeneity)
    curves = []
    for rule in outer_steps:
        run = run_local_sgd(
            made,
            step_size=1.0 / made.smoothness,
            local_steps=local_steps,
            rounds=rounds,
            seeds=seeds,
            outer_step=rule,
            averages=[],
            record=np.arange(0, local_steps * rounds + 1, local_steps),
        )
        paths = run.history["global_loss"][0]
        low, high = np.percentile(paths, [5, 95], axis=0)
        curves.append({"mean": paths.mean(axis=0), "low": low, "high": high})
    return {
        "rounds": np.arange(rounds + 1),
        "curves": curves,
        "similarity": made.similarity,
    }
