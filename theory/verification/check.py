"""One check: a theorem against a run. :func:`verify` measures, bounds and judges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.simulation.local_sgd import LocalSGDResult, run_local_sgd
from theory.simulation.moments import ExactMoments, exact_moments
from theory.support.errors import UserError
from theory.support.verdicts import FAILED as FAILED
from theory.support.verdicts import HOLDS as HOLDS
from theory.support.verdicts import NOT_APPLICABLE as NOT_APPLICABLE
from theory.theorems import Metric, Setting, Theorem
from theory.verification.violations import Violation

# A tight bound equals what is measured; rounding may put it on either side.
ROUNDING = 1e-9
# Sampled runs hold ||x - x*||^2 to this share of D; below it, both sides of T4 are rounding noise.
DISTANCE_RESOLUTION = 1e-12
# Exact values below this have lost digits to underflow.
UNDERFLOW = 1e-300
# An interval that straddles the bound decides nothing: seeds are multiplied by MORE, up to MOST in all.
MORE, MOST = 4, 64


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes:
        measured, low, high: the left-hand side and its 95% interval (equal when exact).
        how: "exact", or "mean of N seeds".
        bound: the right-hand side.
        ratio: bound / measured; NaN where both have lost their digits to underflow.
        best, last: for a metric that is an average of values at synchronisation, the best and the
            last of these values; NaN otherwise.
        verdict: HOLDS (the whole interval is at most the bound), FAILED, or NOT APPLICABLE.
        why: which assumption fails, for NOT APPLICABLE.
    """

    theorem: str
    problem: str
    heterogeneity: str
    n_nodes: int
    local_steps: int
    rounds: int
    step_size: float
    measured: float
    low: float
    high: float
    how: str
    bound: float
    ratio: float
    best: float
    last: float
    verdict: str
    why: str = ""


def verify(
    theorem: Theorem,
    problem: Problem,
    *,
    step_size: float | None = None,
    local_steps: int = 1,
    rounds: int = 100,
    seeds: int | Sequence[int] = 32,
    batch_size: int = 1,
    gradient: str = "stochastic",
    engine: str = "auto",
    violation: Violation | None = None,
) -> Check:
    """Check one theorem on one problem.

    Args:
        theorem, problem: what to check, on what.
        step_size: eta; the theorem's own admissible step if not given.
        local_steps, rounds, batch_size, gradient: as in :func:`theory.simulation.local_sgd.run_local_sgd`.
        seeds: sample paths for the mean; not used where the expectation is exact (least squares). A
            count is multiplied by 4, up to 64 times itself, while the interval straddles the bound.
        engine: as in ``run_local_sgd``, or "exact" to insist on exact expectations.
        violation: a hypothesis to break on purpose; the theorem is then judged as if it held.

    Returns:
        A :class:`Check`.

    Raises:
        UserError: an argument outside its range.
    """
    return verify_all(
        [theorem],
        problem,
        step_size=step_size,
        local_steps=local_steps,
        rounds=rounds,
        seeds=seeds,
        batch_size=batch_size,
        gradient=gradient,
        engine=engine,
        violation=violation,
    )[0]


def verify_all(
    theorems: Sequence[Theorem],
    problem: Problem,
    *,
    step_size: float | None = None,
    local_steps: int = 1,
    rounds: int = 100,
    seeds: int | Sequence[int] = 32,
    batch_size: int = 1,
    gradient: str = "stochastic",
    engine: str = "auto",
    violation: Violation | None = None,
) -> list[Check]:
    """As :func:`verify` for several theorems; those with the same step size share one run."""
    checks: dict[str, Check] = {}
    runs: dict[float, list[tuple[Theorem, Setting]]] = {}
    for theorem in theorems:
        eta = theorem.default_step(problem, local_steps) if step_size is None else step_size
        setting = Setting(step_size=eta, local_steps=local_steps, rounds=rounds, gradient=gradient)
        # Without a finite default step (rho unknown) the step itself is 0; the assumptions say why.
        ok, why = theorem.applies(problem, setting)
        if ok:
            runs.setdefault(eta, []).append((theorem, setting))
        else:
            checks[theorem.name] = _not_applicable(theorem, problem, setting, why)
    for eta, group in runs.items():
        averages = sorted({name for t, _ in group for name in t.metric.averages})
        undecided, count = group, seeds
        while undecided:
            result = _measure(
                problem,
                eta,
                local_steps,
                rounds,
                count,
                batch_size,
                gradient,
                engine,
                averages,
                violation,
            )
            for theorem, setting in undecided:
                checks[theorem.name] = _judge(theorem, problem, setting, result, violation)
            if not isinstance(count, int) or not isinstance(seeds, int) or count >= MOST * seeds:
                break
            count *= MORE
            undecided = [(t, s) for t, s in undecided if _straddles(checks[t.name])]
    return [checks[theorem.name] for theorem in theorems]


def _straddles(check: Check) -> bool:
    # A diverged run, measured as infinite, is decided.
    return check.verdict == FAILED and check.low <= check.bound and math.isfinite(check.measured)


def _measure(
    problem: Problem,
    eta: float,
    local_steps: int,
    rounds: int,
    seeds: int | Sequence[int],
    batch_size: int,
    gradient: str,
    engine: str,
    averages: Sequence[str],
    violation: Violation | None,
) -> LocalSGDResult | ExactMoments:
    changes = violation.run_changes if violation else {}
    grid = [local_steps * rounds]
    quadratic = isinstance(problem, MarginProblem) and problem.loss is SQUARED
    if engine == "exact" and (changes or not quadratic):
        raise UserError("engine 'exact' needs least squares, allowed: auto, numpy, numba, margin")
    factor = violation.step_factor if violation else None
    eta = eta if factor is None else factor / problem.smoothness
    if (
        isinstance(problem, MarginProblem)
        and quadratic
        and not changes
        and engine in ("auto", "exact")
    ):
        return exact_moments(
            problem,
            step_size=eta,
            local_steps=local_steps,
            rounds=rounds,
            batch_size=batch_size,
            gradient=gradient,
            record=grid,
        )
    return run_local_sgd(
        problem,
        step_size=eta,
        local_steps=local_steps,
        rounds=rounds,
        seeds=seeds,
        batch_size=batch_size,
        gradient=gradient,
        engine=engine,
        averages=averages,
        record=grid,
        **changes,
    )


def confidence_interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of independent samples, by Student's t; one sample has an infinite interval."""
    mean = float(np.mean(samples))
    if len(samples) < 2:
        return mean, -math.inf, math.inf
    if np.ptp(samples) == 0:
        return mean, mean, mean
    half = float(stats.t.ppf(0.5 + level / 2, len(samples) - 1) * stats.sem(samples))
    return mean, mean - half, mean + half


def _judge(
    theorem: Theorem,
    problem: Problem,
    setting: Setting,
    result: LocalSGDResult | ExactMoments,
    violation: Violation | None,
) -> Check:
    measured, low, high, how = measured_value(theorem.metric, result, violation, problem)
    bound = theorem.bound(problem, setting, setting.iterations)
    if violation:
        bound *= violation.bound_factor(theorem.name)
    # NaN and infinities (a diverged run) fail: they are not at most the bound.
    floor = UNDERFLOW
    if theorem.metric == Metric("distance") and isinstance(result, LocalSGDResult):
        floor = DISTANCE_RESOLUTION * problem.initial_distance
    holds = high <= max(bound * (1 + ROUNDING), floor)
    best = last = math.nan
    if theorem.metric == Metric("sync_loss", averaged=True):
        best = float(np.mean(result.best_sync_loss[..., -1]))
        last = float(np.mean(result.history["global_loss"][..., -1]))
    return Check(
        theorem.name,
        problem.name,
        problem.heterogeneity,
        problem.n_nodes,
        setting.local_steps,
        setting.rounds,
        setting.step_size,
        measured,
        low,
        high,
        how,
        bound,
        _ratio(bound, measured),
        best,
        last,
        HOLDS if holds else FAILED,
    )


def _ratio(bound: float, measured: float) -> float:
    if max(bound, measured) < UNDERFLOW:
        return math.nan
    return bound / measured if measured > 0 else math.inf


def measured_value(
    metric: Metric,
    result: LocalSGDResult | ExactMoments,
    violation: Violation | None = None,
    problem: Problem | None = None,
) -> tuple[float, float, float, str]:
    """(value, low, high, how) of a metric at the end of a run."""
    samples = metric.read(result)
    if isinstance(result, ExactMoments):
        value = float(samples)
        return value, value, value, "exact"
    if violation and violation.claimed_solution and metric == Metric("distance"):
        wrong = violation.claimed_solution(problem)
        samples = ((result.final_model[0] - wrong) ** 2).sum(axis=-1)
    if np.isnan(samples).any():
        return math.inf, math.inf, math.inf, "diverged"
    mean, low, high = confidence_interval(samples)
    return mean, low, high, f"mean of {len(samples)} seeds"


def _not_applicable(theorem: Theorem, problem: Problem, setting: Setting, why: str) -> Check:
    nan = math.nan
    return Check(
        theorem.name,
        problem.name,
        problem.heterogeneity,
        problem.n_nodes,
        setting.local_steps,
        setting.rounds,
        setting.step_size,
        nan,
        nan,
        nan,
        "",
        nan,
        nan,
        nan,
        nan,
        NOT_APPLICABLE,
        why,
    )
