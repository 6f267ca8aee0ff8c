"""Rounds to an accuracy: FedAvg as it is run and its rivals, each at its best step, beside the bounds.

What the theorems promise
-------------------------
At eta = 1/L, for m of n nodes (T7) and the plain mean: the least of T2, T3, T4 and T4', the linear ones
by f(x) <= (L_f/2) ||x - x*||^2. GD is Local SGD with one node, whose L is L_f. For extrapolated outer
steps and Polyak's T2 and T4' hold as they are: T2 by T8; for T4', Lemma 2 and beta >= 1 give
E||xbar_{r+1} - x*||^2 <= E||xbar_r - x*||^2 - 2 eta E S (Polyak's: (P + 2 eta S)^2/(4Q) >= 2 eta S P/Q),
and E S >= E f(xbar_r) >= (mu/2) E||xbar_r - x*||^2, as every first step is taken at xbar_r. QED
Accelerated GD has its own, 2 L_f D/(R+1)^2. For fixed outer steps above 1 (I6), momentum, FedProx and
SCAFFOLD we have none.
T2 and T3 bound the mean over rounds, the others and what is measured are about the last model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from theory.problems.margin import MarginProblem
from theory.simulation.compilation import one_thread
from theory.simulation.outer_steps import RULES
from theory.simulation.variants import FedAvg, Variant
from theory.support import numbers
from theory.theorems import T2, T3, T4, T4_GLOBAL, Setting, t2_synchronised, t4_linear
from theory.verification.baselines.compare import in_row_space, loss_curves
from theory.verification.baselines.momentum import ServerMomentum
from theory.verification.baselines.schedules import (
    ACCELERATED,
    FEDPROX,
    GD,
    LOCAL,
    MINIBATCH,
    SCAFFOLD_I,
    SCAFFOLD_II,
    STEP_FACTORS,
    Schedule,
    methods,
)
from theory.verification.first_passage import Array, band, looks

#: Fixed outer steps of which the best is kept.
FIXED_OUTER_STEPS = (2.0, 4.0, 8.0)
RIVALS = (FEDPROX, SCAFFOLD_II, SCAFFOLD_I, MINIBATCH, GD, ACCELERATED)
#: Rounds tried at first; four times as many after each look at which no step has reached eps.
FIRST_LOOK = 64


@dataclass(frozen=True)
class RoundsToEps:
    """What a method takes until f(xbar_r) <= eps, at the best of its steps.

    Attributes:
        method: its name.
        local_steps: K; 1 for methods without local steps.
        step_size: the best one, in units of 1/L.
        rounds: the first r at which the mean over paths of f(xbar_r) is at most eps; NaN if not within
            the rounds tried.
        low, high: 5% and 95% of the first r of each path; infinite where so many paths have none.
        communications: vectors that a node sends until then, on average over nodes.
        gradients: sample gradients that a node takes until then, on average over nodes.
        bound: the rounds that theory promises at step 1/L, NaN where it promises nothing.
        theorem: which one.
    """

    method: str
    local_steps: int
    step_size: float
    rounds: float
    low: float
    high: float
    communications: float
    gradients: float
    bound: float
    theorem: str


def fedavg_variants(n_nodes: int) -> dict[str, tuple[Variant, ...]]:
    """FedAvg as it is run, by name: half of the clients, outer steps, momentum at the server."""
    single: list[Variant] = [FedAvg()]
    single += [FedAvg(participants=-(-n_nodes // 2))] if n_nodes > 1 else []
    single += [FedAvg(outer_step_size=rule) for rule in RULES]
    found: dict[str, tuple[Variant, ...]] = {variant.name: (variant,) for variant in single}
    found["FedAvg, fixed outer step"] = tuple(
        FedAvg(outer_step_size=beta) for beta in FIXED_OUTER_STEPS
    )
    momentum = ServerMomentum(0.9)
    return {**found, momentum.name: (momentum,)}


@one_thread()
def rounds_to_eps(
    problem: MarginProblem,
    eps: float,
    *,
    local_steps: int = 5,
    most: int = 4096,
    seeds: int | Sequence[int] = 16,
    step_factors: Sequence[float] = STEP_FACTORS,
) -> list[RoundsToEps]:
    """FedAvg's variants and the rivals that communicate more than once, Local SGD first.

    Args:
        problem: what to minimise.
        eps: accuracy of f, above 0.
        local_steps: K.
        most: rounds tried, at most.
        seeds: paths, one sample a node a step, the same draws for all methods that draw alike.
        step_factors: multiples of each method's default step.

    Raises:
        UserError: an argument outside its range.
    """
    eps = numbers.real("eps", eps, above=0)
    most = numbers.whole("most", most, 1)
    local_steps = numbers.whole("local_steps", local_steps, 1)
    small = in_row_space(problem)
    basic = methods(small, local_steps)
    todo = [
        replace(
            basic[LOCAL],
            method=name,
            variants=variants,
            step_size=basic[LOCAL].step_size * _caution(variants[0]),
        )
        for name, variants in fedavg_variants(problem.n_nodes).items()
    ]
    todo += [basic[name] for name in RIVALS]
    found = []
    for schedule in todo:
        bound, theorem = promised(problem, schedule, eps)
        found.append(
            replace(
                _search(small, schedule, eps, most, seeds, list(step_factors)),
                bound=bound,
                theorem=theorem,
            )
        )
    return found


def _search(
    problem: MarginProblem,
    schedule: Schedule,
    eps: float,
    most: int,
    seeds: int | Sequence[int],
    factors: list[float],
) -> RoundsToEps:
    hits: list[tuple[int, float, Array]] = []
    for tried in looks(FIRST_LOOK, most):
        grid = np.arange(tried + 1)
        look = replace(schedule, rounds=tried)
        for variant in schedule.variants or (None,):
            curves = loss_curves(problem, look, variant, factors, grid, seeds, exact=False)
            for factor, paths in zip(factors, curves, strict=True):
                with np.errstate(over="ignore", invalid="ignore"):  # some diverge
                    reached = np.flatnonzero(paths.mean(axis=0) <= eps)
                if len(reached):
                    hits.append((int(reached[0]), factor, paths))
        if hits:
            break
    rounds, factor, low, high = math.nan, math.nan, math.nan, math.nan
    if hits:
        rounds, factor, paths = min(hits, key=lambda hit: hit[0])
        low, high = band(paths, eps)
    share = _share(schedule, problem.n_nodes)
    return RoundsToEps(
        method=schedule.method,
        local_steps=schedule.local_steps,
        step_size=factor * schedule.step_size * problem.smoothness,
        rounds=float(rounds),
        low=low,
        high=high,
        communications=rounds * schedule.vectors_per_round * share,
        gradients=rounds * schedule.gradients_per_round * share,
        bound=math.nan,
        theorem="",
    )


def _caution(variant: Variant) -> float:
    """The share of 1/L that is a variant's default: momentum adds up to 1/(1 - beta) steps."""
    return 0.5 if isinstance(variant, ServerMomentum) else 1.0


def _share(schedule: Schedule, n_nodes: int) -> float:
    """Of the nodes that take part in a round."""
    first = schedule.variants[0] if schedule.variants else None
    clients = first.participants if isinstance(first, FedAvg) else None
    return 1.0 if clients is None else clients / n_nodes


def promised(problem: MarginProblem, schedule: Schedule, eps: float) -> tuple[float, str]:
    """Rounds within which a theorem promises eps at step 1/L, and its name; (NaN, "") for none."""
    distance, whole, k = problem.initial_distance, problem.global_smoothness, schedule.local_steps
    if schedule.method == ACCELERATED and math.isfinite(distance) and problem.convex:
        return max(1.0, math.sqrt(2 * whole * distance / eps) - 1), "Nesterov"
    variant = schedule.variants[0] if schedule.variants else FedAvg()
    if not isinstance(variant, FedAvg) or schedule.method == ACCELERATED:
        return math.nan, ""
    plain = variant.outer_step_size == 1.0
    if not plain and variant.outer_step_size not in RULES:
        return math.nan, ""
    # What accuracy in distance gives eps in the loss.
    near = 2 * eps / whole
    if schedule.method == GD:
        if not (problem.convex and math.isfinite(distance)):
            return math.nan, ""
        found = [(t2_synchronised.rounds_to(L=whole, D=distance, eps=eps), "T2")]
        if problem.global_growth > 0:
            mu = problem.global_growth
            linear = t4_linear.rounds_to(L=whole, D=distance, mu=mu, eps=near)
            found.append((linear, "T4'"))
        return min(found)
    setting = Setting(step_size=1 / problem.smoothness, local_steps=k, rounds=1)
    candidates = [(T2, eps), (T4_GLOBAL, near)] + ([(T3, eps), (T4, near)] if plain else [])
    found = [
        (max(1.0, theorem.rounds_to(problem, accuracy, k)), theorem.name)
        for theorem, accuracy in candidates
        if theorem.rounds_to is not None and theorem.applies(problem, setting)[0]
    ]
    return min(found, default=(math.nan, ""))
