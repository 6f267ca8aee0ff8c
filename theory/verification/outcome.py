"""What a check comes to: its fields, its verdict from an interval and a bound, and linear rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.problems.protocols import Problem
from theory.simulation.local_sgd import LocalSGDResult
from theory.simulation.moments import ExactMoments
from theory.simulation.variants import FedAvg
from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE, UNDECIDED
from theory.theorems import Metric, Setting, Theorem

# A tight bound equals what is measured; rounding may put it on either side.
ROUNDING = 1e-9
# Exact values below this have lost digits to underflow.
UNDERFLOW = 1e-290


@dataclass(frozen=True, kw_only=True)
class Check:
    """Outcome of one check.

    Attributes:
        theorem, problem, heterogeneity, n_nodes, local_steps, rounds, step_size, gradient: what was
            checked, and how it was run.
        variant: clients, outer step and order of the samples in a few words, or the name of one's own.
        measured, low, high: the left-hand side and its 95% interval (equal when exact); the worst path
            for a theorem about every path.
        how: "exact", "deterministic", "mean of N seeds", "worst of N paths", or "diverged".
        bound: the right-hand side.
        ratio: how far measured is from the bound, at least 1 where it holds: bound / measured, and for a
            linear rate the quotient of the exponents, log(measured/D) / log(bound/D).
        rate, rate_bound: for a linear rate, what one iteration multiplies the squared distance by,
            measured and as the bound says; NaN otherwise.
        best, last: for a metric that is an average of values at synchronisation, the best and the
            last of these values; NaN otherwise.
        verdict: HOLDS (the whole interval is at most the bound), FAILED (it is wholly above), UNDECIDED
            (neither) or NOT APPLICABLE.
        why: for UNDECIDED what stands in the way, for NOT APPLICABLE which assumption fails.
    """

    theorem: str
    problem: str
    heterogeneity: str
    n_nodes: int
    local_steps: int
    rounds: int
    step_size: float
    gradient: str = "stochastic"
    variant: str = "Local SGD"
    measured: float = math.nan
    low: float = math.nan
    high: float = math.nan
    how: str = ""
    bound: float = math.nan
    ratio: float = math.nan
    rate: float = math.nan
    rate_bound: float = math.nan
    best: float = math.nan
    last: float = math.nan
    verdict: str = NOT_APPLICABLE
    why: str = ""


def blank(theorem: Theorem, problem: Problem, setting: Setting, variant: str = "") -> Check:
    """A check without its outcome."""
    return Check(
        theorem=theorem.name,
        problem=problem.name,
        heterogeneity=problem.heterogeneity,
        n_nodes=problem.n_nodes,
        local_steps=setting.local_steps,
        rounds=setting.rounds,
        step_size=setting.step_size,
        gradient=setting.gradient,
        variant=variant or variant_of(setting).name,
    )


def variant_of(setting: Setting) -> FedAvg:
    """What runs in a setting."""
    return FedAvg(setting.participants, setting.outer_step, None, setting.order)


def judge(low: float, high: float, bound: float, floor: float) -> tuple[str, str]:
    """(verdict, why) of an interval for the left side against its bound.

    Args:
        low, high: the interval.
        bound: the right side.
        floor: what rounding alone may leave of the left side.
    """
    allowed = bound * (1 + ROUNDING)
    if not low <= max(allowed, floor):
        return FAILED, ""
    if high <= allowed and (bound >= floor or high == bound == 0):
        return HOLDS, ""
    if bound < floor:
        return UNDECIDED, f"the bound is below {floor:.1e}, what double precision resolves here"
    if high == math.inf:
        return (
            UNDECIDED,
            "nothing bounds a path that no seed has shown, and it could carry the mean",
        )
    return UNDECIDED, "the 95% interval holds the bound"


def judge_path(value: float, bound: float, slack: float) -> tuple[str, str]:
    """(verdict, why) of what was measured on a path against the path's own bound.

    Args:
        value: the left side.
        bound: the right side.
        slack: what rounding may have added to either.
    """
    allowed = bound + ROUNDING * abs(bound)
    if not value <= allowed + slack:
        return FAILED, ""
    if value <= allowed and (bound >= slack or value == bound == 0):
        return HOLDS, ""
    return UNDECIDED, f"value and bound differ by less than {slack:.1e}, what rounding leaves here"


# ---- linear rates --------------------------------------------------------------------------------


def is_linear(theorem: Theorem) -> bool:
    """Whether it bounds the squared distance by a power of a number below 1."""
    return theorem.order is None and theorem.metric == Metric("distance")


def log_rate_bound(theorem: Theorem, problem: Problem, setting: Setting) -> float:
    """Logarithm of a linear rate's bound after R rounds, which may underflow, as may a round's."""
    start, last = theorem.bound(problem, setting, 0), setting.iterations
    direct = theorem.bound(problem, setting, last)
    if start <= 0:
        return -math.inf
    if direct > UNDERFLOW:
        return math.log(direct)
    for t in (setting.local_steps, 1):
        after = theorem.bound(problem, setting, t)
        if UNDERFLOW < after < start:
            slope = math.log(after / start) / t
            # Of one's own it may be no power: then what underflows is 0, as it says.
            times = [t * 2**j for j in range(1, (last // t).bit_length())]
            logs = [
                _log(theorem.bound(problem, setting, s)) - math.log(start) for s in (*times, last)
            ]
            lines = [slope * s for s in (*times, last)]
            if all(map(_alike, logs, lines)):
                return math.log(start) + slope * last
            return -math.inf
    return -math.inf


def _log(value: float) -> float:
    return math.log(value) if value > UNDERFLOW else -math.inf


def _alike(log: float, line: float) -> bool:
    """Whether a bound lies on its line, or both are too small for a number."""
    if log > -math.inf:
        return math.isclose(log, line, rel_tol=1e-6, abs_tol=1e-6)
    return line < math.log(UNDERFLOW) + 20


def rates(log_measured: float, log_bound: float, setting: Setting) -> dict[str, Any]:
    """Rates an iteration and their ratio, from the logarithms of what is left of D."""
    t = setting.iterations
    found = {"rate": math.exp(log_measured / t), "rate_bound": math.exp(log_bound / t)}
    # A bound that does not fall has no exponent to compare.
    if log_bound < -ROUNDING:
        found["ratio"] = log_measured / log_bound
    return found


def ratio(bound: float, measured: float) -> float:
    """bound / measured; NaN where both have underflowed."""
    if max(bound, measured) < UNDERFLOW:
        return math.nan
    return bound / measured if measured > 0 else math.inf


def best_and_last(metric: Metric, *results: LocalSGDResult | ExactMoments) -> dict[str, Any]:
    """The best and the last value at synchronisation, where the metric is their mean."""
    if metric != Metric("sync_loss", averaged=True):
        return {}
    best = [np.ravel(r.best_sync_loss[..., -1]) for r in results]
    last = [np.ravel(r.history["global_loss"][..., -1]) for r in results]
    return {
        "best": float(np.concatenate(best).mean()),
        "last": float(np.concatenate(last).mean()),
    }
