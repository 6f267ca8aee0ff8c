"""The grid of checks behind ``python -m theory.verify_rates``: problems, schedules, own data.

A sweep is a list of independent cells, run through joblib: the result does not depend on the number of
workers, nor on joblib's backend (threads, processes, Dask, Ray).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib

from theory.problems import generators
from theory.problems.files import load_problem
from theory.problems.generators import Heterogeneity
from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.simulation.arguments import MOST_SEEDS
from theory.simulation.compiled_engines import ENGINES
from theory.simulation.variants import FedAvg, Variant, load_variant
from theory.support import numbers
from theory.support.errors import UserError
from theory.theorems import SHARPER, T7_FAMILY, THEOREMS, find_theorems, instance_0, instance_3
from theory.verification.check import Check, check_names, verify_all
from theory.verification.violations import VIOLATIONS, find_violation

PROBLEMS = ("least-squares", "power-law", "logistic", "separable", "sigmoid", "I0", "I3")
QUADRATIC = ("least-squares", "power-law", "I0", "I3")
INSTANCES = ("I0", "I3")
#: A run of more would take hours, and is more likely a slip of the pen.
MOST_ITERATIONS = 100_000_000
LEVELS: tuple[Heterogeneity, ...] = ("iid", "similar", "sorted")
GRADIENTS = ("stochastic", "full")


@dataclass(frozen=True)
class Sweep:
    """What to check. Fields as the command's options; step sizes are multiples of 1/L.

    Attributes:
        theorems: names; the plain statements and their sharper variants.
        step_factors: eta in units of 1/L, each for all theorems; empty for each theorem's own step.
        participants, outer_step, order: clients a round, outer step (a number or the name of a rule) and
            order of the samples for all theorems; None for each theorem's own.
        variant: one's own, as ``file.py:NAME``, in place of these.
        gradients: "stochastic" (one sample a step) and "full" (deterministic).
        data: files with one's own nodes, in place of or beside ``problems``.
        loss: of the data.
    """

    theorems: tuple[str, ...] = tuple(t.name for t in (*THEOREMS, *SHARPER))
    problems: tuple[str, ...] = PROBLEMS
    heterogeneity: tuple[Heterogeneity, ...] = LEVELS
    local_steps: tuple[int, ...] = (1, 5, 20)
    rounds: int = 200
    n_nodes: int = 5
    dimension: int = 256
    step_factors: tuple[float, ...] = ()
    participants: int | None = None
    outer_step: str | None = None
    order: str | None = None
    variant: str | None = None
    gradients: tuple[str, ...] = GRADIENTS
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
        chosen = find_theorems(self.theorems)
        check_names(chosen)
        ours = {theorem.name: theorem for theorem in (*THEOREMS, *SHARPER, *T7_FAMILY)}
        for theorem in chosen:
            if ours.get(theorem.name, theorem) is not theorem:
                raise UserError(
                    f"a theorem of your own is called {theorem.name!r} as one of ours is, allowed: a name of "
                    "its own, as dataclasses.replace(theorem, name=...) gives"
                )
        for name, values, allowed in (
            ("problem", self.problems, PROBLEMS),
            ("heterogeneity", self.heterogeneity, generators.HETEROGENEITIES),
            ("gradient", self.gradients, GRADIENTS),
            ("engine", (self.engine,), ("auto", "exact", *ENGINES)),
        ):
            for value in values:
                numbers.choice(name, value, allowed)
        if self.participants is not None:
            # One's own data have their own number of nodes, and instances one or two.
            generated = set(self.problems) - set(INSTANCES)
            most = self.n_nodes if generated or not self.data else None
            numbers.whole("participants", self.participants, 1, most)
        self.chosen_variant(self.n_nodes)
        if self.violation is not None:
            numbers.choice("--break", self.violation, VIOLATIONS)
            if self.engine == "exact" and find_violation(self.violation).run_changes:
                raise UserError(
                    f"engine is exact, allowed without --break {self.violation}: its runs are sampled"
                )
        for k in self.local_steps:
            numbers.whole("K (local steps)", k, 1)
        numbers.whole("seeds", self.seeds, 2, MOST_SEEDS)
        for name, number, least in (
            ("rounds", self.rounds, 1),
            ("n (nodes)", self.n_nodes, 1),
            ("dimension", self.dimension, 16 * self.n_nodes),
        ):
            numbers.whole(name, number, least)
        longest = max(self.local_steps, default=1) * self.rounds
        numbers.whole("K R (all iterations)", longest, 1, MOST_ITERATIONS)
        numbers.seed("problem seed", self.problem_seed)
        for factor in self.step_factors:
            numbers.real("step size in units of 1/L", factor, above=0)
        other = [name for name in self.problems if name not in QUADRATIC]
        if self.engine == "exact" and (other or (self.data and self.loss != "squared")):
            raise UserError(
                f"engine is exact, allowed for --problem {', '.join(QUADRATIC)} and --loss squared only"
            )

    def chosen_variant(self, n_nodes: int) -> Variant | None:
        """What runs on a problem of ``n_nodes``; None where each theorem has its own clients and server.

        Raises:
            UserError: a variant that can't be loaded, or given beside clients, outer step or order.
        """
        own = (self.participants, self.outer_step, self.order)
        if self.variant is not None:
            if own != (None, None, None):
                raise UserError(
                    "--variant is given beside --participants, --outer-step or --order; allowed: one of "
                    "the two"
                )
            return load_variant(self.variant)
        if own == (None, None, None):
            return None
        # Instances of one node have no more clients.
        clients = None if self.participants is None else min(self.participants, n_nodes)
        return FedAvg(clients, _outer_step(self.outer_step), None, self.order or "uniform")


def _outer_step(typed: str | None) -> float | str:
    if typed is None:
        return 1.0
    try:
        return float(typed)
    except ValueError:
        return typed


@dataclass(frozen=True)
class Cell:
    """One problem under one schedule; ``step_factor`` None is each theorem's own step."""

    sweep: Sweep
    problem: str
    heterogeneity: Heterogeneity | None
    gradient: str
    local_steps: int
    step_factor: float | None


# One problem serves all its K: building it, with its constants, can cost more than running it.
@lru_cache(maxsize=64)
def make_problem(sweep: Sweep, name: str, heterogeneity: Heterogeneity | None) -> MarginProblem:
    """The problem of that name: a generated one, an instance, or a file."""
    if name in sweep.data:
        loaded = load_problem(name, sweep.loss)
        if sweep.participants is not None:
            numbers.whole(f"participants of {name}", sweep.participants, 1, loaded.n_nodes)
        if [Path(other).name for other in sweep.data].count(loaded.name) > 1:
            loaded.name = name  # two files of one name in two folders
        return loaded
    if name in INSTANCES:
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
        fixed = problem in INSTANCES or problem in sweep.data
        levels: Sequence[Heterogeneity | None] = (None,) if fixed else sweep.heterogeneity
        out += [
            Cell(sweep, problem, level, gradient, k, factor)
            for level in levels
            for gradient in sweep.gradients
            for k in sweep.local_steps
            for factor in sweep.step_factors or (None,)
        ]
    return out


def run_cell(cell: Cell) -> list[Check]:
    """All theorems on one cell."""
    sweep = cell.sweep
    problem = make_problem(sweep, cell.problem, cell.heterogeneity)
    violation = find_violation(sweep.violation) if sweep.violation else None
    # Under a violation the exact recursion may not describe the run; paths then do.
    changed = violation is not None and bool(violation.run_changes)
    quadratic = problem.loss is SQUARED and not changed
    variant = sweep.chosen_variant(problem.n_nodes)
    factor = cell.step_factor
    return verify_all(
        find_theorems(sweep.theorems),
        problem,
        step_size=None if factor is None else factor / problem.smoothness,
        local_steps=cell.local_steps,
        rounds=sweep.rounds,
        seeds=sweep.seeds,
        gradient=cell.gradient,
        variant=variant,
        engine="auto" if sweep.engine == "exact" and not quadratic else sweep.engine,
        violation=violation,
    )


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
    for result in _each(min(workers, len(todo)))(joblib.delayed(run_cell)(cell) for cell in todo):
        results.append(result)
        if report is not None:
            report(len(results), len(todo))
    return [check for result in results for check in result]


def _each(workers: int) -> joblib.Parallel:
    """Results one by one where the backend can, else all at the end (Ray, multiprocessing)."""
    backend, _ = joblib.parallel.get_active_backend()
    streams = getattr(backend, "supports_return_generator", False)
    if type(backend).__name__ == "MultiprocessingBackend":
        # It forks, and compiled threads of the parent do not survive that: it would wait for ever.
        raise UserError("joblib's backend is multiprocessing, allowed: threading, loky, dask, ray")
    return joblib.Parallel(n_jobs=workers, return_as="generator" if streams else "list")
