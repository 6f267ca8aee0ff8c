"""What a theorem is made of: a metric, assumptions, a bound, and the instances that show it tight.

A theorem never runs anything: it says what must hold of a problem and a :class:`Setting`, what is
measured, and how large it may be. Each theorem has a file of its own, with its proof; the statements
and their constants are this project's, for the rates that the paper's abstract gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from theory.problems.protocols import KnowsConstants, Problem
from theory.simulation.engines import METRICS
from theory.simulation.local_sgd import AVERAGES
from theory.support.errors import UserError

Array = NDArray[np.float64]


class Measured(Protocol):
    """A run's outcome, sampled (arrays end in the grid) or exact (arrays are the grid)."""

    @property
    def history(self) -> dict[str, Array]:
        """Metrics at the grid's iterations."""

    @property
    def averages(self) -> dict[str, Array]:
        """Running means up to the grid's iterations."""

    @property
    def best_sync_loss(self) -> Array:
        """Least f(xbar_r) over the rounds begun before each of the grid's iterations."""


@dataclass(frozen=True)
class Metric:
    """What a theorem speaks of.

    Attributes:
        name: "global_loss", "local_loss", "distance", "gradient" of the history; "local_loss",
            "sync_loss", "global_loss", "sync_gradient" of the averages; see
            :class:`theory.simulation.local_sgd.LocalSGDResult`.
        averaged: a running mean over the iterations (rounds, for the sync ones) before t, in place of
            the value at t.

    Raises:
        UserError: no metric of that name; subclasses may have names of their own.
    """

    name: str
    averaged: bool = False

    def __post_init__(self) -> None:
        allowed = AVERAGES if self.averaged else METRICS
        if type(self) is Metric and self.name not in allowed:
            kind = "an averaged metric" if self.averaged else "a metric"
            raise UserError(f"{kind} is {self.name!r}, allowed: {', '.join(allowed)}")

    def __str__(self) -> str:
        return f"average {self.name}" if self.averaged else self.name

    @property
    def averages(self) -> tuple[str, ...]:
        """The running means that a run must keep for it."""
        return (self.name,) if self.averaged else ()

    @property
    def reads_rounds(self) -> bool:
        """Whether it is read off the record of every round, which a run must then keep."""
        return False

    @property
    def at_rounds(self) -> bool:
        """Whether it changes at synchronisation only."""
        return self.name.startswith("sync")

    def curve(self, result: Measured) -> Array:
        """Over the grid: (step sizes, seeds, grid) of a sampled run, (grid,) of an exact one."""
        return (result.averages if self.averaged else result.history)[self.name]

    def read(self, result: Measured) -> Array:
        """At the end of a run: the samples (seeds,) of its first step size, or the exact value ()."""
        last = self.curve(result)[..., -1]
        return last[0] if last.ndim == 2 else np.asarray(last)


@dataclass(frozen=True)
class BestAtRounds(Metric):
    """min over r = 0, ..., R of f(xbar_r); between rounds it counts the mean model of the moment."""

    name: str = "sync_loss"

    def __str__(self) -> str:
        return "best sync_loss"

    @property
    def averages(self) -> tuple[str, ...]:
        """See :class:`Metric`; the minimum is kept where the mean over rounds is."""
        return ("sync_loss",)

    def curve(self, result: Measured) -> Array:
        """See :class:`Metric`."""
        return np.fmin(result.best_sync_loss, result.history["global_loss"])


class Rounds(Protocol):
    """P, Q, S, beta and ||xbar_r - x*||^2 of every round, (step sizes, seeds, R); see Lemma 2."""

    @property
    def mean_square(self) -> Array:
        """P."""

    @property
    def square_mean(self) -> Array:
        """Q."""

    @property
    def loss(self) -> Array:
        """S."""

    @property
    def outer_step(self) -> Array:
        """beta."""

    @property
    def distance(self) -> Array:
        """||xbar_r - x*||^2 at the start of the round."""

    @property
    def decrease(self) -> Array:
        """What Lemma 2 says the distance falls by, at least."""


@dataclass(frozen=True)
class RoundMetric(Metric):
    """A number that the rounds of a path come to, such as a sum over them.

    Attributes:
        of: from the rounds and the squared distances at the start of each and after the last,
            (step sizes, seeds, R + 1), to (step sizes, seeds).
    """

    of: Callable[[Rounds, Array], Array] = field(kw_only=True)

    @property
    def reads_rounds(self) -> bool:
        """See :class:`Metric`."""
        return True

    def curve(self, result: Measured) -> Array:
        """Of the whole run only, (step sizes, seeds, 1)."""
        rounds: Rounds | None = getattr(result, "round_record", None)
        if rounds is None:
            raise TypeError(f"{self.name} is read off a run with record_rounds=True")
        last = result.history["distance"][..., -1:]
        return self.of(rounds, np.concatenate([rounds.distance, last], axis=-1))[..., None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How Local SGD is run.

    Attributes:
        step_size: eta, absolute (not in units of 1/L).
        local_steps: K.
        rounds: R; T = K R.
        gradient: "stochastic", or "full" for the node's whole gradient (deterministic).
        participants: m of the n nodes, drawn afresh each round; None for all of them.
        outer_step: beta of the server's step, or the name of a rule that chooses it every round.
        order: of the samples, "uniform" (drawn with replacement) or "reshuffled".
    """

    step_size: float
    local_steps: int
    rounds: int
    gradient: str = "stochastic"
    participants: int | None = None
    outer_step: float | str = 1.0
    order: str = "uniform"

    @property
    def iterations(self) -> int:
        """T."""
        return self.local_steps * self.rounds


@dataclass(frozen=True)
class Assumption:
    """One hypothesis, checked: its name, whether it holds, and why (not)."""

    name: str
    holds: bool
    reason: str


# A hypothesis; the docstring of the function states it, for readers.
Hypothesis = Callable[[KnowsConstants, Setting], Assumption]
# (problem, setting, t) -> bound on the metric at iteration t; averages are over s < t.
Bound = Callable[[KnowsConstants, Setting, int], float]
# (problem, setting, outcome) -> bound on each path of the outcome, (seeds,).
PathBound = Callable[[KnowsConstants, Setting, Measured], Array]
# (problem, plain setting) -> the setting, clients and outer step included, that a theorem is about.
Adapted = Callable[[KnowsConstants, Setting], Setting]
# (problem, K) -> an admissible eta.
Step = Callable[[KnowsConstants, int], float]
# (problem, eps, K) -> rounds that the bound needs for accuracy eps at the default step size.
RoundsTo = Callable[[KnowsConstants, float, int], float]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A problem on which a bound's size is known exactly.

    Attributes:
        problem: the explicit problem.
        setting: how Local SGD is run on it.
        theorem: the theorem that it shows tight.
        metric: what is measured, at the end of the run.
        value: the metric in closed form.
        limit: the limit of bound / value for long runs; the ratio itself where it is always the same.
    """

    problem: Problem
    setting: Setting
    theorem: str
    metric: Metric
    value: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class Theorem:
    """A bound on a metric of Local SGD.

    Attributes:
        name: T0, ..., T6; a prime marks the variant at synchronisation, with the global constant or for
            separable data; "T1/S1" is a sharper variant of T1 in its place.
        title: what it says, in a few words.
        statement: the inequality.
        metric: what is measured.
        order: predicted exponent of T at fixed K; None where the bound is no power of T.
        assumptions: what must hold of a problem and a setting.
        formula: the right-hand side as a plain function of numbers; its docstring proves a sharper
            variant.
        bound: the right-hand side on a problem.
        default_step: an admissible step size, (problem, K) -> eta.
        setting: clients and outer step with which it is checked where the caller names none.
        rounds_to: communication complexity from the bound, where it is a closed form.
        every_path: whether the bound holds on every sample path, not only in expectation.
        path_bound: the bound that a path has for itself, where there is a smaller one.
        reads_rounds: whether metric or path bound is read off the record of every round.
        sharper: variants with a smaller right-hand side, under assumptions of their own.
        instances: makers of the instances that show it tight; their docstrings state and prove them.
        tightest: the least bound / measured known, and where, for tables.
        module: name of the module that holds it, the proof in its docstring.
    """

    name: str
    title: str
    statement: str
    metric: Metric
    order: float | None
    assumptions: tuple[Hypothesis, ...]
    formula: Callable[..., float]
    bound: Bound
    default_step: Step
    setting: Adapted = lambda problem, setting: setting
    rounds_to: RoundsTo | None = None
    every_path: bool = False
    path_bound: PathBound | None = None
    reads_rounds: bool = False
    sharper: tuple[Theorem, ...] = ()
    instances: tuple[Callable[..., Instance], ...] = ()
    tightest: str = ""
    module: str = ""

    def check(self, problem: KnowsConstants, setting: Setting) -> list[Assumption]:
        """Every assumption, checked; an expectation is over samples that are drawn uniformly."""
        found = [hypothesis(problem, setting) for hypothesis in self.assumptions]
        if not self.every_path and setting.order != "uniform" and setting.gradient != "full":
            found.append(Assumption("samples", False, f"{setting.order}, allowed: uniform"))
        return found

    def applies(self, problem: KnowsConstants, setting: Setting) -> tuple[bool, str]:
        """(whether every assumption holds, the reasons of those that do not)."""
        failed = [a for a in self.check(problem, setting) if not a.holds]
        return not failed, "; ".join(f"{a.name}: {a.reason}" for a in failed)


def full_setting(step_size: float, local_steps: int, rounds: int) -> Setting:
    """Deterministic Local SGD: full gradients, all nodes, the plain mean."""
    return Setting(step_size=step_size, local_steps=local_steps, rounds=rounds, gradient="full")


def rounds_begun(setting: Setting, t: int) -> int:
    """Rounds begun before iteration t, at least 1."""
    return max(1, -(-t // setting.local_steps))


def one_over_l(problem: KnowsConstants, _: int) -> float:
    """eta = 1/L."""
    return 1.0 / problem.smoothness


def half_over_l(problem: KnowsConstants, _: int) -> float:
    """eta = 1/(2L)."""
    return 0.5 / problem.smoothness
