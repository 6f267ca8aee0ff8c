"""Exact paths of Local SGD and the baselines on one problem, each at its best step size."""

from __future__ import annotations

from typing import Any

from theory.problems import generators
from theory.verification.baselines import compare_baselines


def baseline_paths(
    heterogeneity: generators.Heterogeneity, local_steps: int, rounds: int
) -> dict[str, Any]:
    """Every method's exact path on least squares with a power-law spectrum, step sizes tuned.

    Returns:
        "methods": a list of "method", "budget", "step_factor" (best multiple of the method's own
        default step), "communications", "gradients" (a node), "loss".
    """
    problem = generators.least_squares(
        n_nodes=5,
        samples_per_node=40,
        dimension=256,
        rank=40,
        decay=1.0,
        heterogeneity=heterogeneity,
    )
    found = compare_baselines(
        problem, local_steps=local_steps, rounds=rounds, step_factors=(0.25, 0.5, 1.0, 1.5)
    )
    return {
        "methods": [
            {
                "method": b.schedule.method,
                "budget": b.schedule.budget,
                "step_factor": b.step_factor,
                "communications": b.communications,
                "gradients": b.gradients,
                "loss": b.loss,
            }
            for b in found
        ]
    }
