"""Searches for a counterexample among known problems and by exact worst cases; what a search reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from theory.claim.claim import ROUNDING, Claim, Measurement, evaluate, measure, unit_constants
from theory.claim.expression import Expression
from theory.problems import generators
from theory.problems.protocols import Problem
from theory.support import memory
from theory.theorems import (
    Setting,
    instance_0,
    instance_1,
    instance_2,
    instance_3,
    instance_4,
    instance_5,
    instance_6,
)
from theory.theorems.base import Instance
from theory.worst_case import cells as cells_of_class
from theory.worst_case import costs
from theory.worst_case.constraints import SolverError
from theory.worst_case.extremal import ExtremalProblem, attained
from theory.worst_case.reduction import WorstCase, worst_case

#: Metrics whose exact worst cases are known how to compute.
SOLVABLE = ("last", "best", "average_sync", "average_local", "distance")
#: Names that a problem of the worst-case class gives a value to.
SOLVED_NAMES = {"L", "D", "mu", "n", "m", "K", "R", "T", "eta", "beta"}
#: How far a simulated worst case may miss the solver's value.
ACCURACY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of the grid: K, R, eta L; or a formula for eta L in the constants of a problem."""

    local_steps: int
    rounds: int
    step_factor: float | Expression

    def __str__(self) -> str:
        step = self.step_factor
        shown = f"({step.text})" if isinstance(step, Expression) else f"{step:g}"
        return f"K = {self.local_steps}, R = {self.rounds}, eta = {shown}/L"

    @property
    def number(self) -> float | None:
        """eta L where it is one number for all problems."""
        return None if isinstance(self.step_factor, Expression) else self.step_factor

    def setting(self, claim: Claim, problem: Problem | ExtremalProblem) -> Setting:
        """The cell on a problem: eta is the factor over its L."""
        setting = Setting(
            step_size=1.0,
            local_steps=self.local_steps,
            rounds=self.rounds,
            gradient=claim.gradient,
        )
        factor = self.step_factor
        if isinstance(factor, Expression):
            assert not isinstance(problem, ExtremalProblem)
            factor = evaluate(factor, problem, setting)
        return replace(setting, step_size=factor / problem.smoothness)


@dataclass(frozen=True)
class Refutation:
    """A problem on which the claim is false.

    Attributes:
        search: which search found it.
        cell: K, R, eta L.
        problem: explicit.
        source: what it is, in words.
        step_size: eta on it.
        claimed: the claim's right-hand side on it.
        measured: the left-hand side, by two routes.
    """

    search: str
    cell: Cell
    problem: Problem | ExtremalProblem
    source: str
    step_size: float
    claimed: float
    measured: Measurement

    @property
    def ratio(self) -> float:
        """measured / claimed, above 1; infinite for a claim of nothing or less."""
        return self.measured.value / self.claimed if self.claimed > 0 else math.inf


@dataclass
class Report:
    """What a search tried.

    Attributes:
        search: its name.
        tried: how many problems, cells or starts.
        closest: the largest measured / claimed, and where.
        where: of ``closest``.
        certified: cells whose certified worst case is below the claim.
        left_out: why the search, or a part of it, was not done.
        refutation: the first found, in the order of the cells.
    """

    search: str
    tried: int = 0
    closest: float = 0.0
    where: str = ""
    certified: list[Cell] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    refutation: Refutation | None = None

    def note(self, ratio: float, where: str) -> None:
        """Remember the largest ratio."""
        if ratio > self.closest:
            self.closest, self.where = ratio, where

    def leave_out(self, reason: str) -> None:
        """Say once why a part of the search was not done."""
        if reason not in self.left_out:
            self.left_out.append(reason)


Tick = Callable[[float], None]


def small_first(cells: Sequence[Cell]) -> list[Cell]:
    """By T, then K, so that the first refutation is the smallest of the grid."""
    return sorted(
        cells, key=lambda c: (c.local_steps * c.rounds, c.local_steps, abs((c.number or 0.0) - 1))
    )


def judged(
    report: Report, claim: Claim, cell: Cell, problem: Problem, source: str
) -> Refutation | None:
    """Measure one problem; a refutation is measured by a second route before it counts."""
    setting = cell.setting(claim, problem)
    # Where rho is infinite or c is 0 a formula for the step size may have no value.
    if not 0 < setting.step_size < math.inf or not claim.speaks_of(problem, setting):
        return None
    claimed = claim.bound(problem, setting)
    if not math.isfinite(claimed):
        return None
    found = measure(claim, problem, setting)
    if found is None:
        return None
    report.tried += 1
    # A claim of 0 or less is refuted by anything positive.
    ratio = found.value / claimed if claimed > 0 else math.inf if found.value > 0 else 0.0
    report.note(ratio, f"{source}, {cell}")
    least = claimed * (1 + ROUNDING) + 1e-300
    if found.low <= least:
        return None
    again = measure(claim, problem, setting, twice=True)
    if again is None or not again.agree or again.low <= least:
        report.left_out.append(f"{source}, {cell}: above the claim, but the two routes disagree")
        return None
    return Refutation(report.search, cell, problem, source, setting.step_size, claimed, again)


# ---- 1. known instances and random problems ------------------------------------------------------


def _instances(cell: Cell) -> Iterator[tuple[str, Instance]]:
    k, rounds = cell.local_steps, cell.rounds
    factor = 1.0 if cell.number is None else cell.number
    yield "I0", instance_0("T2", rounds, k)
    if factor <= 1:
        yield "I1", instance_1(rounds, k, step_factor=factor)
        # Local steps pay from K = 1/c on: the bend is where a wrong dependence on c shows.
        for c in sorted({0.1, 0.5, 1.0 / k}):
            yield f"I5, c = {c:g}", instance_5(rounds, k, similarity=c, step_factor=factor)
    yield "I2", instance_2(rounds, k)
    yield "I3", instance_3(rounds, 4, k)
    if 2 * k * rounds + 1 >= 10 * k:
        yield "I4", instance_4(rounds, k)
    yield "I6", instance_6(rounds, k, step_factor=factor)


def known_problems(cell: Cell, seed: int) -> Iterator[tuple[str, Problem]]:
    """The instances of the theory for this cell, then random problems of all generators."""
    for name, instance in _instances(cell):
        yield name, instance.problem
    makers = (
        generators.least_squares,
        generators.realizable_logistic,
        generators.separable_logistic,
        # Without convexity rho is known for independent samples only: no more of them than dimensions.
        partial(generators.sigmoid_regression, samples_per_node=8),
    )
    for maker in makers:
        for heterogeneity in ("identical", "iid", "sorted"):
            problem = maker(n_nodes=3, dimension=32, heterogeneity=heterogeneity, seed=seed)
            yield f"random {problem.name}, {heterogeneity} nodes", problem


def search_known(
    claim: Claim,
    cells: Sequence[Cell],
    *,
    seed: int = 0,
    deadline: float = math.inf,
    tick: Tick = lambda _: None,
) -> Report:
    """The known instances I0 to I6 and random problems of all generators."""
    report = Report("known problems")
    for cell in small_first(cells):
        # A long run takes a second a problem: the clock is looked at between problems, not cells.
        for source, problem in known_problems(cell, seed):
            if time.monotonic() > deadline:
                report.left_out.append(f"the time ran out at {cell}")
                return report
            report.refutation = judged(report, claim, cell, problem, source)
            if report.refutation is not None:
                return report
        tick(1.0)
    return report


# ---- 2. exact worst cases ------------------------------------------------------------------------


def unsolvable(claim: Claim, cells: Sequence[Cell]) -> str:
    """Why the exact worst cases say nothing about a claim; empty where they do."""
    if claim.formula is None:
        return "the claim is a theorem, not a formula"
    if claim.gradient != "full":
        return "exact worst cases are of full gradients"
    if any(cell.number is None for cell in cells):
        return "the step size is a formula in a problem's constants"
    if claim.family not in ("convex", "growth") or claim.metric not in SOLVABLE:
        return f"no exact worst cases of the metric {claim.metric} over the class {claim.family}"
    # Without growth a problem of the class may have any mu, the solved ones have none.
    known = SOLVED_NAMES if claim.family == "growth" else SOLVED_NAMES - {"mu"}
    missing = [name for name in claim.formula.names if name not in known]
    return f"the class gives no value to {', '.join(missing)}" if missing else ""


def claimed_over_class(claim: Claim, cell: Cell, growth: float, n_nodes: int) -> float:
    """The formula at L = D = 1."""
    assert claim.formula is not None and cell.number is not None
    numbers = {
        **unit_constants(cell.local_steps, cell.rounds, n_nodes),
        "mu": growth,
        "eta": cell.number,
    }
    return float(claim.formula({name: numbers[name] for name in claim.formula.names}))


def search_solved(
    claim: Claim,
    cells: Sequence[Cell],
    *,
    growth: float = 0.1,
    n_nodes: int = 2,
    deadline: float = math.inf,
    tick: Tick = lambda _: None,
) -> Report:
    """The exact worst case of every cell, L = D = 1; a cell below the claim is certified."""
    report = Report("exact worst cases")
    reason = unsolvable(claim, cells)
    if reason:
        report.left_out.append(reason)
        return report
    mu = growth if claim.family == "growth" else 0.0
    for cell in small_first(cells):
        left = deadline - time.monotonic()
        if left <= 0:
            report.left_out.append(f"the time ran out at {cell}")
            break
        assert cell.number is not None
        to_solve = cells_of_class.Cell(
            local_steps=cell.local_steps,
            rounds=cell.rounds,
            step_size=cell.number,
            metric=claim.metric,
            growth=mu,
        )
        needed, there = costs.memory_needed(to_solve), memory.available()
        if there is not None and needed > there:
            report.left_out.append(f"{cell}: it needs about {memory.size(needed)} of memory")
            tick(1.0)
            continue
        try:
            solved = worst_case(to_solve, time_limit=None if math.isinf(left) else left)
        except SolverError as error:
            report.left_out.append(f"{cell}: {error}")
            continue
        finally:
            tick(1.0)
        report.tried += 1
        claimed = claimed_over_class(claim, cell, mu, n_nodes)
        if not math.isfinite(claimed):
            report.left_out.append(f"{cell}: the claim has no value there")
            continue
        report.note(solved.value / claimed if claimed > 0 else math.inf, f"the worst case, {cell}")
        if solved.certified <= claimed * (1 + ROUNDING):
            report.certified.append(cell)
        elif solved.value > claimed * (1 + ROUNDING) + ACCURACY:
            report.refutation = _explicit(cell, solved, claimed, n_nodes)
            break
        else:
            report.left_out.append(f"{cell}: the worst case equals the claim to {ACCURACY:g}")
    return report


def _explicit(cell: Cell, solved: WorstCase, claimed: float, n_nodes: int) -> Refutation | None:
    simulated, problem = attained(solved, n_nodes)
    measured = Measurement(
        simulated, solved.value, "engine numpy; the semidefinite program", simulated
    )
    if not abs(simulated - solved.value) <= ACCURACY or simulated <= claimed:
        return None
    source = f"the worst problem of the class, {problem.dimension} dimensions"
    return Refutation(
        "exact worst cases", cell, problem, source, solved.cell.step_size, claimed, measured
    )
