"""The data behind the theory figures: plain functions of plain arguments, so that they can be cached.

Expectations are exact wherever a closed recursion gives them (least squares); elsewhere means over
seeds with 95% intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from theory.problems import generators
from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import log_grid, run_local_sgd
from theory.simulation.moments import exact_moments
from theory.theorems import (
    Setting,
    Theorem,
    find_theorems,
    instance_0,
    instance_1,
    instance_2,
    instance_3,
    instance_4,
)
from theory.theorems.t5_separable import closed_form, comparator_bound
from theory.verification.intervals import confidence_interval
from theory.verification.tightness import simulate_instance

NODES, SAMPLES, DIMENSION = 5, 40, 256

# Problem of each theorem, each the one on which its assumptions hold with the least else: name ->
# (maker, keywords).
_PROBLEMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "power-law": (generators.least_squares, {"rank": 8 * NODES, "decay": 1.0}),
    "least-squares": (generators.least_squares, {"rank": 2 * NODES}),
    "separable": (generators.separable_logistic, {}),
    # Few and nearly orthogonal samples: rho is small enough for T6's step to get somewhere.
    "sigmoid": (generators.sigmoid_regression, {"samples_per_node": 2, "rank": DIMENSION}),
}


def make_problem(name: str, heterogeneity: str) -> MarginProblem:
    """The problem of that name, n = 5, d = 256, 40 samples a node (2 for "sigmoid"), seed 0."""
    maker, keywords = _PROBLEMS[name]
    sizes = {"n_nodes": NODES, "samples_per_node": SAMPLES, "dimension": DIMENSION}
    problem: MarginProblem = maker(**{**sizes, **keywords}, heterogeneity=heterogeneity)
    return problem


def _theorem(name: str) -> Theorem:
    """Exactly that theorem; ``find_theorems`` also returns primed variants."""
    return next(t for t in find_theorems([name]) if t.name == name)


def _grid(theorem: Theorem, local_steps: int, rounds: int, points: int) -> np.ndarray:
    """Iterations at which the theorem's metric is read, log-spaced and above 0."""
    per_round = theorem.metric.at_rounds or theorem.name == "T4'"
    scale = local_steps if per_round else 1
    return log_grid(rounds if per_round else local_steps * rounds, points)[1:] * scale


def bound_curve(
    theorem: str,
    problem: str,
    heterogeneity: str,
    local_steps: int,
    iterations: int,
    seeds: int,
    points: int = 40,
) -> dict[str, Any]:
    """A theorem's left side and its bound over t.

    Returns:
        "t", "bound" and, where known, "exact"; "mean", "low", "high" over ``seeds`` sample paths, each
        (points,); the constants; "applies" and "why".
    """
    made, which = make_problem(problem, heterogeneity), _theorem(theorem)
    rounds = max(1, iterations // local_steps)
    eta = which.default_step(made, local_steps)
    setting = Setting(step_size=eta, local_steps=local_steps, rounds=rounds)
    applies, why = which.applies(made, setting)
    grid = _grid(which, local_steps, rounds, points)
    run = run_local_sgd(
        made,
        step_size=eta,
        local_steps=local_steps,
        rounds=rounds,
        seeds=seeds,
        record=grid,
        averages=which.metric.averages,
    )
    mean, low, high = mean_and_interval(which.metric.curve(run)[0])
    keep = np.isin(run.iterations, grid)
    data: dict[str, Any] = {
        "t": grid,
        "mean": mean[keep],
        "low": low[keep],
        "high": high[keep],
        "bound": np.array([which.bound(made, setting, int(t)) for t in grid]),
        "applies": applies,
        "why": why,
        "step_size": eta,
        "smoothness": made.smoothness,
        "similarity": made.similarity,
        "problem": made.name,
        "heterogeneity": made.heterogeneity,
    }
    if made.loss is SQUARED:
        moments = exact_moments(
            made, step_size=eta, local_steps=local_steps, rounds=rounds, record=grid
        )
        data["exact"] = which.metric.curve(moments)[np.isin(moments.iterations, grid)]
    if theorem == "T5":
        # The closed form after T5, from the choice s = ln(T)/gamma, is looser than the best comparator.
        data["closed_form"] = [
            closed_form(L=made.smoothness, gamma=made.margin, T=max(2, int(t))) for t in grid
        ]
        data["comparator"] = [comparator_bound(made, setting, int(t)) for t in grid]
        data["margin"] = made.margin
    return data


def mean_and_interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, low, high), 95% by Student's t, of samples (seeds, grid) over seeds."""
    mean, low, high = np.array([confidence_interval(column) for column in samples.T]).T
    return mean, low, high


_INSTANCES: dict[str, Any] = {
    "I0": lambda rounds, k: instance_0("T2", rounds, k),
    "I1": instance_1,
    "I2": instance_2,
    "I3": lambda rounds, k: instance_3(rounds, local_steps=k),
    "I4": instance_4,
}


def tightness_curve(instance: str, local_steps: int, rounds: Sequence[int]) -> dict[str, Any]:
    """Bound over simulated value of an instance against R, with the closed form beside it.

    Returns:
        "rounds", "ratio", "closed_form" (bound over the closed form), "limit", "theorem".
    """
    ratios, closed, limit, theorem = [], [], np.nan, ""
    for count in rounds:
        made = _INSTANCES[instance](int(count), local_steps)
        which = find_theorems([made.theorem])[0]
        bound = which.bound(made.problem, made.setting, made.setting.iterations)
        ratios.append(bound / simulate_instance(made))
        closed.append(bound / made.value)
        limit, theorem = made.limit, made.theorem
    return {
        "rounds": list(rounds),
        "ratio": ratios,
        "closed_form": closed,
        "limit": limit,
        "theorem": theorem,
    }


def ratio_grid(
    theorem: str, local_steps: Sequence[int], shares: Sequence[float], rounds: int
) -> dict[str, Any]:
    """Bound over exact left side on least squares after R rounds, over K and the nodes' likeness.

    Returns:
        "ratio" (K, share), NaN where an assumption fails; "similarity" c (share,).
    """
    which = _theorem(theorem)
    ratios = np.full((len(local_steps), len(shares)), np.nan)
    constants = []
    for j, share in enumerate(shares):
        problem = generators.least_squares(
            n_nodes=NODES,
            samples_per_node=SAMPLES,
            dimension=DIMENSION,
            rank=2 * NODES,
            heterogeneity="similar",
            similarity=share,
        )
        constants.append(problem.similarity)
        for i, k in enumerate(local_steps):
            setting = Setting(
                step_size=which.default_step(problem, k), local_steps=k, rounds=rounds
            )
            if not which.applies(problem, setting)[0]:
                continue
            moments = exact_moments(
                problem,
                step_size=setting.step_size,
                local_steps=k,
                rounds=rounds,
                record=[setting.iterations],
            )
            left = float(which.metric.read(moments))
            ratios[i, j] = which.bound(problem, setting, setting.iterations) / left
    return {"ratio": ratios, "similarity": constants}


def step_size_curve(
    theorem: str, heterogeneity: str, local_steps: int, rounds: int, factors: Sequence[float]
) -> dict[str, Any]:
    """Exact left side against eta L on least squares, and the bound where eta < 2/L.

    Returns:
        "measured" and "bound", each (factors,); the bound is NaN where the theorem is silent.
    """
    which = _theorem(theorem)
    problem = make_problem("least-squares", heterogeneity)
    measured, bounds = [], []
    for factor in factors:
        setting = Setting(
            step_size=factor / problem.smoothness, local_steps=local_steps, rounds=rounds
        )
        moments = exact_moments(
            problem,
            step_size=setting.step_size,
            local_steps=local_steps,
            rounds=rounds,
            record=[setting.iterations],
        )
        measured.append(float(which.metric.read(moments)))
        applies = which.applies(problem, setting)[0]
        bounds.append(which.bound(problem, setting, setting.iterations) if applies else np.nan)
    return {"measured": measured, "bound": bounds, "heterogeneity": problem.heterogeneity}


def typical_losses(
    local_steps: int,
    rounds: int,
    step_factors: Sequence[float],
    heterogeneity: generators.Heterogeneity,
    seeds: int,
) -> dict[str, Any]:
    """Deterministic Local SGD on random least squares of two nodes, in the units of the worst cases.

    L is the largest eigenvalue of a node's Hessian, as full gradients ask for no more.

    Returns:
        "last", "best", "average_sync", "average_local", each (factors, seeds), over L D.
    """
    names = ("last", "best", "average_sync", "average_local")
    found = {name: np.empty((len(step_factors), seeds)) for name in names}
    for seed in range(seeds):
        problem = generators.least_squares(
            n_nodes=2,
            samples_per_node=SAMPLES,
            dimension=64,
            rank=20,
            decay=1.0,
            heterogeneity=heterogeneity,
            seed=seed,
        )
        smoothness = float(np.linalg.eigvalsh(problem.hessians)[:, -1].max())
        unit = smoothness * problem.initial_distance
        for i, factor in enumerate(step_factors):
            moments = exact_moments(
                problem,
                step_size=factor / smoothness,
                local_steps=local_steps,
                rounds=rounds,
                gradient="full",
                record=[local_steps * rounds],
            )
            last = moments.history["global_loss"][-1]
            found["last"][i, seed] = last / unit
            found["best"][i, seed] = min(last, moments.best_sync_loss[-1]) / unit
            found["average_sync"][i, seed] = moments.averages["sync_loss"][-1] / unit
            found["average_local"][i, seed] = moments.averages["local_loss"][-1] / unit
    return dict(found)
