"""The grid of checks behind ``python -m theory.verify_rates``: problems, schedules, instances.

A sweep is a list of independent cells, run through joblib: the result does not depend on the number of
workers, nor on joblib's backend (threads, processes, Dask, Ray).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib

from theory.problems import generators
from theory.problems.files import load_problem
from theory.problems.generators import Heterogeneity
from theory.problems.margin import MarginProblem
from theory.support.errors import UserError
from theory.theorems import (
    THEOREMS,
    Instance,
    Theorem,
    find_theorems,
    instance_0,
    instance_1,
    instance_2,
    instance_3,
    instance_4,
)
from theory.verification.check import FAILED, HOLDS, Check, verify_all
from theory.verification.orders import simulate_instance
from theory.verification.violations import Violation, find_violation

PROBLEMS = ("least-squares", "power-law", "logistic", "separable", "sigmoid", "I0", "I3")
LEVELS: tuple[Heterogeneity, ...] = ("iid", "similar", "sorted")


@dataclass(frozen=True)
class Sweep:
    """What to check. Fields as the command's options; None means the theorem's own choice."""

    theorems: tuple[str, ...] = tuple(t.name for t in THEOREMS)
    problems: tuple[str, ...] = PROBLEMS
    heterogeneity: tuple[Heterogeneity, ...] = LEVELS
    local_steps: tuple[int, ...] = (1, 5, 20)
    rounds: int = 200
    n_nodes: int = 5
    dimension: int = 256
    step_factor: float | None = None
    seeds: int = 32
    engine: str = "auto"
    data: tuple[str, ...] = ()
    loss: str = "squared"
    violation: str | None = None
    problem_seed: int = 0

    def check(self) -> None:
        """Refuse values outside their range.

        Raises:
            UserError: names the option, the value and what is allowed.
        """
        find_theorems(list(self.theorems))
        if self.violation is not None:
            find_violation(self.violation)
        for name, values, allowed in (
            ("problem", self.problems, PROBLEMS),
            ("heterogeneity", self.heterogeneity, generators.HETEROGENEITIES),
        ):
            for value in values:
                if value not in allowed:
                    raise UserError(f"{name} is {value!r}, allowed: {', '.join(allowed)}")
        for name, number, least in (
            *(("K (local steps)", k, 1) for k in self.local_steps),
            ("rounds", self.rounds, 1),
            ("n (nodes)", self.n_nodes, 1),
            ("dimension", self.dimension, 16 * self.n_nodes),
            ("seeds", self.seeds, 2),
            ("problem seed", self.problem_seed, 0),
        ):
            if number < least:
                raise UserError(f"{name} is {number}, allowed: at least {least}")
        factor = self.step_factor
        if factor is not None and not (math.isfinite(factor) and factor > 0):
            raise UserError(f"step size is {factor:g}/L, allowed: above 0")


@dataclass(frozen=True)
class Cell:
    """One problem under one schedule."""

    sweep: Sweep
    problem: str
    heterogeneity: Heterogeneity | None
    local_steps: int


# One problem serves all its K: building it, with its constants, can cost more than running it.
@lru_cache(maxsize=64)
def make_problem(sweep: Sweep, name: str, heterogeneity: Heterogeneity | None) -> MarginProblem:
    """The problem of that name: a generated one, an instance, or a file."""
    if Path(name).suffix in (".npz", ".csv"):
        return load_problem(name, sweep.loss)
    if name in ("I0", "I3"):
        problem = (instance_0("T1", 1) if name == "I0" else instance_3(1)).problem
        assert isinstance(problem, MarginProblem)
        return problem
    common: dict[str, Any] = {
        "n_nodes": sweep.n_nodes,
        "dimension": sweep.dimension,
        "heterogeneity": heterogeneity,
        "seed": sweep.problem_seed,
    }
    # Few directions a node sees often enough: so c > 0 when samples are iid (A3), and mu > 0 (A4).
    few = 2 * sweep.n_nodes
    if name == "least-squares":
        return generators.least_squares(rank=few, **common)
    if name == "power-law":
        return generators.least_squares(rank=4 * few, decay=1.0, **common)
    if name == "logistic":
        return generators.realizable_logistic(rank=few, **common)
    if name == "separable":
        return generators.separable_logistic(**common)
    # Independent, well-conditioned samples: rho of T6 is then finite and small.
    return generators.sigmoid_regression(samples_per_node=8, **common)


def cells(sweep: Sweep) -> list[Cell]:
    """All cells; instances and files have no heterogeneity to vary."""
    out = []
    for problem in (*sweep.problems, *sweep.data):
        fixed = problem in ("I0", "I3") or problem in sweep.data
        levels: Sequence[Heterogeneity | None] = (None,) if fixed else sweep.heterogeneity
        out += [Cell(sweep, problem, level, k) for level in levels for k in sweep.local_steps]
    return out


def run_cell(cell: Cell) -> list[Check]:
    """All theorems on one cell."""
    sweep = cell.sweep
    problem = make_problem(sweep, cell.problem, cell.heterogeneity)
    factor = sweep.step_factor
    violation = find_violation(sweep.violation) if sweep.violation else None
    return verify_all(
        find_theorems(list(sweep.theorems)),
        problem,
        step_size=None if factor is None else factor / problem.smoothness,
        local_steps=cell.local_steps,
        rounds=sweep.rounds,
        seeds=sweep.seeds,
        engine=_engine(sweep, problem, violation),
        violation=violation,
    )


def _engine(sweep: Sweep, problem: MarginProblem, violation: Violation | None) -> str:
    exact_possible = problem.loss.name == "squared" and not (violation and violation.run_changes)
    return "auto" if sweep.engine == "exact" and not exact_possible else sweep.engine


def run_sweep(
    sweep: Sweep, *, workers: int = 1, report: Callable[[int, int], None] | None = None
) -> list[Check]:
    """Run all cells.

    Args:
        workers: processes, through joblib; an enclosing ``joblib.parallel_config`` chooses the backend.
        report: called with (cells done, cells).

    Raises:
        UserError: an option outside its range.
    """
    sweep.check()
    todo = cells(sweep)
    results: list[list[Check]] = []
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    for result in parallel(joblib.delayed(run_cell)(cell) for cell in todo):
        results.append(result)
        if report is not None:
            report(len(results), len(todo))
    return [check for result in results for check in result]


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
    theorem: Theorem = find_theorems([instance.theorem])[0]
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
    """I0-I4 for each K; I3 over 50 rounds, as (3/4)^T leaves the range of floating point."""
    out = []
    for k in local_steps:
        instances = [instance_0(name, 10, k) for name in ("T1", "T2", "T3")]
        instances += [instance_1(rounds, k), instance_2(rounds, k), instance_3(50, local_steps=k)]
        instances += [instance_4(rounds, k)]
        out += [tightness(instance) for instance in instances]
    return out
