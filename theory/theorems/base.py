"""T1-T6: each theorem is data plus two functions, its assumptions and its bound.

The statements, with complete proofs and explicit constants, are in the project's theory notes; they
are this project's, for the rates that the paper's abstract gives. A theorem never runs anything: it
says what must hold of a problem and a :class:`Setting`, what is measured, and how large it may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from theory.problems.protocols import KnowsConstants, Problem
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
    """

    name: str
    averaged: bool = False

    def __str__(self) -> str:
        return f"average {self.name}" if self.averaged else self.name

    @property
    def averages(self) -> tuple[str, ...]:
        """The running means that a run must keep for it."""
        return (self.name,) if self.averaged else ()

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
    """

    step_size: float
    local_steps: int
    rounds: int
    gradient: str = "stochastic"
    participants: int | None = None
    outer_step: float | str = 1.0

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


Assumptions = Callable[[KnowsConstants, Setting], list[Assumption]]
# (problem, setting, t) -> bound on the metric at iteration t; averages are over s < t.
Bound = Callable[[KnowsConstants, Setting, int], float]
# (problem, eps, K) -> rounds that the bound needs for accuracy eps at the default step size.
RoundsTo = Callable[[KnowsConstants, float, int], float]


@dataclass(frozen=True, kw_only=True)
class Theorem:
    """A bound on a metric of Local SGD.

    Attributes:
        name: T1, ..., T6; a prime marks the variant at synchronisation or with the global constant.
        title: what it says, in a few words.
        statement: the inequality.
        metric: what is measured.
        order: predicted exponent of T at fixed K; None for linear rates.
        assumptions: checks of a problem and a setting.
        bound: the right-hand side.
        default_step: an admissible step size, (problem, K) -> eta.
        rounds_to: communication complexity from the bound, where it is a closed form.
    """

    name: str
    title: str
    statement: str
    metric: Metric
    order: float | None
    assumptions: Assumptions
    bound: Bound
    default_step: Callable[[KnowsConstants, int], float]
    rounds_to: RoundsTo | None = None

    def applies(self, problem: KnowsConstants, setting: Setting) -> tuple[bool, str]:
        """(whether every assumption holds, the reasons of those that do not)."""
        failed = [a for a in self.assumptions(problem, setting) if not a.holds]
        return not failed, "; ".join(f"{a.name}: {a.reason}" for a in failed)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A problem on which a bound's size is known exactly.

    Attributes:
        problem: the explicit problem.
        setting: how Local SGD is run on it.
        theorem: the theorem that it shows tight.
        metric: what is measured, at the end of the run.
        value: the metric in closed form.
        limit: the limit of bound / value for long runs.
    """

    problem: Problem
    setting: Setting
    theorem: str
    metric: Metric
    value: float
    limit: float


# ---- assumptions ---------------------------------------------------------------------------------


def smooth(problem: KnowsConstants, _: Setting) -> Assumption:
    """A0, with the L that the problem states."""
    ok = math.isfinite(problem.smoothness) and problem.smoothness > 0
    return Assumption("A0 smooth", ok, f"L = {problem.smoothness:.3g}")


def convex(problem: KnowsConstants, _: Setting) -> Assumption:
    """A1."""
    ok = problem.convex
    return Assumption("A1 convex", ok, "convex" if ok else f"{problem.name} is not convex")


def interpolation(problem: KnowsConstants, _: Setting) -> Assumption:
    """A2: one x* minimises every sample's loss."""
    ok = problem.solution is not None
    return Assumption("A2 interpolation", ok, "x* exists" if ok else "the minimum is not attained")


def similar(problem: KnowsConstants, _: Setting) -> Assumption:
    """A3: f_i >= c f with c > 0."""
    c = problem.similarity
    reason = f"c = {c:.3g}" if c > 0 else "c = 0, some node does not see a direction that others do"
    return Assumption("A3 c-similar", c > 0, reason)


def grows_locally(problem: KnowsConstants, _: Setting) -> Assumption:
    """A4: quadratic growth of every f_i."""
    mu = problem.local_growth
    reason = f"mu = {mu:.3g}" if mu > 0 else "mu = 0, some node's loss is flat in a direction"
    return Assumption("A4 local growth", mu > 0, reason)


def grows_globally(problem: KnowsConstants, _: Setting) -> Assumption:
    """A4': quadratic growth of f."""
    mu = problem.global_growth
    return Assumption("A4' global growth", mu > 0, f"mu = {mu:.3g}")


def separable(problem: KnowsConstants, _: Setting) -> Assumption:
    """A positive margin, so that a comparator u = s w exists."""
    gamma = problem.margin
    reason = f"gamma = {gamma:.3g}" if gamma > 0 else "no separating direction (hard labels only)"
    return Assumption("margin", gamma > 0, reason)


def strong_growth(problem: KnowsConstants, _: Setting) -> Assumption:
    """A5 with a finite rho."""
    rho = problem.strong_growth
    ok = math.isfinite(rho)
    return Assumption(
        "A5 strong growth",
        ok,
        f"rho = {rho:.3g}" if ok else "rho unknown, the samples are dependent",
    )


def attained_or_zero_infimum(problem: KnowsConstants, _: Setting) -> Assumption:
    """f >= 0 = inf f: true of every built-in loss under interpolation or separability."""
    ok = problem.solution is not None or problem.margin > 0
    return Assumption("inf f = 0", ok, "inf f = 0" if ok else "inf f is above 0")


def step_below(
    factor: float, strict: bool = True
) -> Callable[[KnowsConstants, Setting], Assumption]:
    """eta < factor / L, or <= when not strict."""

    def check(problem: KnowsConstants, setting: Setting) -> Assumption:
        limit = factor / problem.smoothness
        slack = setting.step_size - limit
        ok = slack < 0 if strict else slack <= 1e-12 * limit
        sign = "<" if strict else "<="
        return Assumption(
            "step size",
            ok,
            f"eta = {setting.step_size:.3g}, allowed: {sign} {limit:.3g} = {factor:g}/L",
        )

    return check


def step_below_t6(problem: KnowsConstants, setting: Setting) -> Assumption:
    """eta <= 1 / (10 rho K L)."""
    limit = 1.0 / (10 * problem.strong_growth * setting.local_steps * problem.smoothness)
    ok = setting.step_size <= limit * (1 + 1e-12)
    reason = f"eta = {setting.step_size:.3g}, allowed: <= {limit:.3g} = 1/(10 rho K L)"
    return Assumption("step size", ok, reason)


def _all(*checks: Callable[[KnowsConstants, Setting], Assumption]) -> Assumptions:
    return lambda problem, setting: [check(problem, setting) for check in checks]


# ---- bounds --------------------------------------------------------------------------------------


def _phi(problem: KnowsConstants, setting: Setting) -> float:
    """phi(eta) = min(1, 2 - eta L)."""
    return min(1.0, 2.0 - setting.step_size * problem.smoothness)


def _started(setting: Setting, t: int) -> int:
    """Rounds begun before iteration t."""
    return max(1, -(-t // setting.local_steps))


def _bound_t1(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return problem.initial_distance / (2 * _phi(problem, setting) * setting.step_size * t)


def _bound_t2(problem: KnowsConstants, setting: Setting, t: int) -> float:
    rounds = _started(setting, t)
    return problem.initial_distance / (2 * _phi(problem, setting) * setting.step_size * rounds)


def _bound_t3(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return _bound_t1(problem, setting, t) / problem.similarity


def _bound_t4(problem: KnowsConstants, setting: Setting, t: int) -> float:
    rate = math.log1p(-min(setting.step_size * problem.local_growth, 1 - 1e-16))
    return problem.initial_distance * math.exp(t * rate)


def _bound_t4_global(problem: KnowsConstants, setting: Setting, t: int) -> float:
    rate = math.log1p(-min(setting.step_size * problem.global_growth, 1 - 1e-16))
    return problem.initial_distance * math.exp((t // setting.local_steps) * rate)


def comparator_bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    """min over s >= 0 of ||x_0 - s w||^2 + 2 eta t log(1 + exp(-gamma s)), the bracket of T5."""
    start, w = problem.start, problem.separating_direction
    assert w is not None, "T5 was applied without its assumptions"
    along, square = float(start @ w), float(start @ start)

    def bracket(s: float) -> float:
        loss = float(np.logaddexp(0.0, -problem.margin * s))
        return square - 2 * s * along + s * s + 2 * setting.step_size * t * loss

    # Unimodal (convex) in s; past this point the square alone exceeds the value at s = 0.
    far = abs(along) + math.sqrt(along**2 + 2 * setting.step_size * t * math.log(2.0)) + 1.0
    found = minimize_scalar(
        bracket, bounds=(0.0, far), method="bounded", options={"xatol": 1e-10 * far}
    )
    return min(float(found.fun), bracket(0.0))


def _bound_t5(problem: KnowsConstants, setting: Setting, t: int) -> float:
    eta = setting.step_size
    scale = 2 * eta * (1 - eta * problem.smoothness) * t
    return comparator_bound(problem, setting, t) / scale


def _bound_t5_sync(problem: KnowsConstants, setting: Setting, t: int) -> float:
    eta = setting.step_size
    rounds = _started(setting, t)
    # Rounds begun before t are complete in the proof, so their iterations count in full.
    bracket = comparator_bound(problem, setting, rounds * setting.local_steps)
    return bracket / (2 * eta * (1 - eta * problem.smoothness) * rounds)


def _bound_t6(problem: KnowsConstants, setting: Setting, t: int) -> float:
    whole = _started(setting, t) * setting.local_steps
    return 4 * float(problem.global_loss(problem.start)) / (setting.step_size * whole)


# ---- admissible steps and communication complexity -----------------------------------------------


def _one_over_l(problem: KnowsConstants, _: int) -> float:
    return 1.0 / problem.smoothness


def _half_over_l(problem: KnowsConstants, _: int) -> float:
    return 0.5 / problem.smoothness


def _step_t6(problem: KnowsConstants, local_steps: int) -> float:
    return 1.0 / (10 * problem.strong_growth * local_steps * problem.smoothness)


def _rounds_t2(problem: KnowsConstants, eps: float, _: int) -> float:
    return problem.smoothness * problem.initial_distance / (2 * eps)


def _rounds_t3(problem: KnowsConstants, eps: float, local_steps: int) -> float:
    return _rounds_t2(problem, eps, 1) / (problem.similarity * local_steps)


def _rounds_t4(problem: KnowsConstants, eps: float, local_steps: int) -> float:
    condition = problem.smoothness / problem.local_growth
    return condition * math.log(problem.initial_distance / eps) / local_steps


def _rounds_t4_global(problem: KnowsConstants, eps: float, _: int) -> float:
    condition = problem.smoothness / problem.global_growth
    return condition * math.log(problem.initial_distance / eps)


def _rounds_t6(problem: KnowsConstants, eps: float, _: int) -> float:
    start = float(problem.global_loss(problem.start))
    return 40 * problem.strong_growth * problem.smoothness * start / eps


# ---- the theorems --------------------------------------------------------------------------------

T1 = Theorem(
    name="T1",
    title="local losses, O(1/T), any K",
    statement="(1/T) sum_t (1/n) sum_i E f_i(x_i^t) <= D / (2 phi eta T)",
    metric=Metric("local_loss", averaged=True),
    order=-1.0,
    assumptions=_all(smooth, convex, interpolation, step_below(2.0)),
    bound=_bound_t1,
    default_step=_one_over_l,
)
T2 = Theorem(
    name="T2",
    title="global loss at synchronisation, O(K/T)",
    statement="(1/R) sum_r E f(xbar_r) <= D / (2 phi eta R)",
    metric=Metric("sync_loss", averaged=True),
    order=-1.0,
    assumptions=_all(smooth, convex, interpolation, step_below(2.0)),
    bound=_bound_t2,
    default_step=_one_over_l,
    rounds_to=_rounds_t2,
)
T3 = Theorem(
    name="T3",
    title="global loss of similar nodes, O(1/T)",
    statement="(1/T) sum_t E f(xbar^t) <= D / (2 c phi eta T)",
    metric=Metric("global_loss", averaged=True),
    order=-1.0,
    assumptions=_all(smooth, convex, interpolation, similar, step_below(2.0)),
    bound=_bound_t3,
    default_step=_one_over_l,
    rounds_to=_rounds_t3,
)
T4 = Theorem(
    name="T4",
    title="linear rate an iteration",
    statement="E||xbar^T - x*||^2 <= (1 - eta mu)^T D, mu of every f_i",
    metric=Metric("distance"),
    order=None,
    assumptions=_all(smooth, convex, interpolation, grows_locally, step_below(1.0, strict=False)),
    bound=_bound_t4,
    default_step=_one_over_l,
    rounds_to=_rounds_t4,
)
T4_GLOBAL = Theorem(
    name="T4'",
    title="linear rate a round",
    statement="E||xbar_R - x*||^2 <= (1 - eta mu)^R D, mu of f",
    metric=Metric("distance"),
    order=None,
    assumptions=_all(smooth, convex, interpolation, grows_globally, step_below(1.0, strict=False)),
    bound=_bound_t4_global,
    default_step=_one_over_l,
    rounds_to=_rounds_t4_global,
)
T5 = Theorem(
    name="T5",
    title="separable logistic, local losses",
    statement="(1/T) sum_t (1/n) sum_i E f_i(x_i^t) <= [||x_0 - u||^2 + 2 eta T f(u)] / (2 eta (1 - eta L) T)",
    metric=Metric("local_loss", averaged=True),
    order=-1.0,
    assumptions=_all(smooth, convex, separable, step_below(1.0)),
    bound=_bound_t5,
    default_step=_half_over_l,
)
T5_SYNC = Theorem(
    name="T5'",
    title="separable logistic, global loss at synchronisation",
    statement="(1/R) sum_r E f(xbar_r) <= [||x_0 - u||^2 + 2 eta T f(u)] / (2 eta (1 - eta L) R)",
    metric=Metric("sync_loss", averaged=True),
    order=-1.0,
    assumptions=_all(smooth, convex, separable, step_below(1.0)),
    bound=_bound_t5_sync,
    default_step=_half_over_l,
)
T6 = Theorem(
    name="T6",
    title="non-convex, squared gradient, O(K/T)",
    statement="(1/R) sum_r E||grad f(xbar_r)||^2 <= 4 f(x_0) / (eta T)",
    metric=Metric("sync_gradient", averaged=True),
    order=-1.0,
    assumptions=_all(smooth, attained_or_zero_infimum, strong_growth, step_below_t6),
    bound=_bound_t6,
    default_step=_step_t6,
    rounds_to=_rounds_t6,
)
THEOREMS: tuple[Theorem, ...] = (T1, T2, T3, T4, T4_GLOBAL, T5, T5_SYNC, T6)


def find_theorems(names: list[str]) -> list[Theorem]:
    """The theorems named, in order; "T4" means T4 and T4' both.

    Raises:
        UserError: an unknown name.
    """
    chosen = []
    for name in names:
        found = [t for t in THEOREMS if name.upper() in (t.name, t.name.rstrip("'"))]
        if not found:
            raise UserError(f"theorem {name!r}, allowed: {', '.join(t.name for t in THEOREMS)}")
        chosen += [t for t in found if t not in chosen]
    return chosen
