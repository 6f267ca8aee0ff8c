"""Instances simulated beside their closed forms: how near a bound comes to what it bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.support.verdicts import FAILED, HOLDS
from theory.theorems import Instance, all_instances, find_theorems


def simulate_instance(instance: Instance) -> float:
    """The instance's metric at the end of its run (mean over 1 seed unless deterministic)."""
    problem, setting = instance.problem, instance.setting
    if setting.gradient == "stochastic":
        assert isinstance(problem, MarginProblem)
        moments = exact_moments(
            problem,
            step_size=setting.step_size,
            local_steps=setting.local_steps,
            rounds=setting.rounds,
            participants=setting.participants,
            outer_step=float(setting.outer_step),
            record=[setting.iterations],
        )
        return float(instance.metric.read(moments))
    result = run_local_sgd(
        problem,
        step_size=setting.step_size,
        local_steps=setting.local_steps,
        rounds=setting.rounds,
        gradient=setting.gradient,
        participants=setting.participants,
        outer_step=setting.outer_step,
        record=[setting.iterations],
        averages=instance.metric.averages,
        record_rounds=instance.metric.reads_rounds,
    )
    return float(instance.metric.read(result)[0])


@dataclass(frozen=True)
class Tightness:
    """An instance's measured value beside its closed form and the bound.

    Attributes:
        instance, theorem, metric: which.
        measured, closed_form, bound: the metric simulated, in closed form, and the theorem's bound.
        ratio, limit: bound / measured, and its limit for long runs.
        verdict: HOLDS if simulation and closed form agree to 1e-9 and the ratio is within 1% of the
            limit from the right side.
    """

    instance: str
    theorem: str
    metric: str
    local_steps: int
    rounds: int
    measured: float
    closed_form: float
    bound: float
    ratio: float
    limit: float
    verdict: str


def tightness(instance: Instance) -> Tightness:
    """Simulate an instance and compare."""
    theorem = find_theorems([instance.theorem])[0]
    setting = instance.setting
    measured = simulate_instance(instance)
    bound = theorem.bound(instance.problem, setting, setting.iterations)
    ratio = bound / measured
    agrees = abs(measured / instance.value - 1) <= 1e-9
    tight = abs(ratio / instance.limit - 1) <= 0.01
    return Tightness(
        instance.problem.name,
        instance.theorem,
        str(instance.metric),
        setting.local_steps,
        setting.rounds,
        measured,
        instance.value,
        bound,
        ratio,
        instance.limit,
        HOLDS if agrees and tight else FAILED,
    )


def tightness_table(
    local_steps: Sequence[int] = (1, 5, 20), rounds: int = 10_000
) -> list[Tightness]:
    """Every instance for each K, once where it does not depend on K."""
    rows = [tightness(i) for k in local_steps for i in all_instances(k, rounds)]
    return list(dict.fromkeys(rows))
