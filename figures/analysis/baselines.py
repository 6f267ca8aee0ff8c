"""Paths of Local SGD and its rivals on one problem, each at its best step size."""

from __future__ import annotations

from typing import Any

from theory.problems import generators
from theory.verification.baselines.compare import compare_baselines, power_law_problem


def baseline_paths(
    heterogeneity: generators.Heterogeneity,
    local_steps: int,
    rounds: int,
    seeds: int,
    step_factors: list[float],
) -> dict[str, Any]:
    """Every method's path on least squares with a power-law spectrum, exact where it can be.

    Args:
        heterogeneity: of the nodes.
        local_steps, rounds: K and R of Local SGD.
        seeds: paths of FedProx and SCAFFOLD, whose expectation is not computed.
        step_factors: multiples of each method's own default step, of which the best is kept.

    Returns:
        "methods": a list of "method", "budget", "step_factor", "communications" (vectors a node has
        sent), "gradients" (a node), "loss".
    """
    found = compare_baselines(
        power_law_problem(heterogeneity),
        local_steps=local_steps,
        rounds=rounds,
        seeds=seeds,
        step_factors=step_factors,
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
