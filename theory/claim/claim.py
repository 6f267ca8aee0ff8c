"""A claim: a formula (or a user's theorem), the metric that it bounds, and the class it speaks of."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sympy as sp

from theory.claim.expression import Expression
from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem, Simulated
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.support.errors import UserError
from theory.theorems.assumptions import (
    convex,
    grows_locally,
    interpolation,
    similar,
    smooth,
    strong_growth,
)
from theory.theorems.base import BestAtRounds, Hypothesis, Metric, Setting, Theorem
from theory.verification.intervals import Range, mean_interval

METRICS: dict[str, Metric] = {
    "last": Metric("global_loss"),
    "best": BestAtRounds(),
    "average_sync": Metric("sync_loss", averaged=True),
    "average_local": Metric("local_loss", averaged=True),
    "average_global": Metric("global_loss", averaged=True),
    "distance": Metric("distance"),
    "gradient": Metric("sync_gradient", averaged=True),
}
#: What must hold of a problem for a claim about the class to speak of it.
CLASSES: dict[str, tuple[Hypothesis, ...]] = {
    "convex": (smooth, convex, interpolation),
    "similar": (smooth, convex, interpolation, similar),
    "growth": (smooth, convex, interpolation, grows_locally),
    "non-convex": (smooth, strong_growth),
}
#: Sample paths of one mean, and the confidence of its lower limit: many problems are tried.
SEEDS, CONFIDENCE = 4000, 1 - 1e-6
#: A measured value above the claim by less than this share may be rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Claim:
    """``metric <= bound`` for every problem of a class.

    Attributes:
        text: as it was given.
        metric: of METRICS.
        family: of CLASSES.
        gradient: "full" or "stochastic".
        bound: (problem, setting) -> the right-hand side.
        formula: where the claim is one; None for a user's theorem.
    """

    text: str
    metric: str
    family: str
    gradient: str
    bound: Callable[[Problem, Setting], float]
    formula: Expression | None = None

    @property
    def name_of_metric(self) -> str:
        """For tables: what the metric is in the theory's notation."""
        names = {
            "last": "f(xbar_R)",
            "best": "min_r f(xbar_r)",
            "average_sync": "(1/R) sum_r f(xbar_r)",
            "average_local": "(1/T) sum_t (1/n) sum_i f_i(x_i^t)",
            "average_global": "(1/T) sum_t f(xbar^t)",
            "distance": "||xbar_R - x*||^2",
            "gradient": "(1/R) sum_r ||grad f(xbar_r)||^2",
        }
        return names[self.metric]

    def speaks_of(self, problem: Problem, setting: Setting) -> bool:
        """Whether the problem belongs to the class."""
        return all(hypothesis(problem, setting).holds for hypothesis in CLASSES[self.family])

    @property
    def homogeneous(self) -> bool:
        """Whether the formula scales as the metric does, so that L = D = 1 stands for all L and D."""
        if self.formula is None:
            return False
        a, b = sp.symbols("a b", positive=True)
        symbol = {name: sp.Symbol(name, positive=True) for name in ("L", "D", "eta", "mu", "f0")}
        scaled = self.formula.symbolic.subs(
            {
                symbol["L"]: a * symbol["L"],
                symbol["D"]: b * symbol["D"],
                symbol["eta"]: symbol["eta"] / a,
                symbol["mu"]: a * symbol["mu"],
                symbol["f0"]: a * b * symbol["f0"],
            },
            simultaneous=True,
        )
        factor = {"distance": b, "gradient": a**2 * b}.get(self.metric, a * b)
        return bool(sp.simplify(scaled / self.formula.symbolic - factor) == 0)


def from_formula(formula: Expression, *, metric: str, family: str, gradient: str) -> Claim:
    """The claim ``metric <= formula``."""
    return Claim(
        text=formula.text,
        metric=metric,
        family=family,
        gradient=gradient,
        bound=lambda problem, setting: evaluate(formula, problem, setting),
        formula=formula,
    )


def from_theorem(theorem: Theorem, gradient: str) -> Claim:
    """A user's theorem as a claim; its assumptions beyond the class are asked of every problem too.

    Where they fail the bound is infinite: the theorem says nothing of that problem.
    """

    def bound(problem: Problem, setting: Setting) -> float:
        applies, _ = theorem.applies(problem, setting)
        if not applies:
            return math.inf
        found = theorem.bound(problem, setting, setting.iterations)
        if not isinstance(found, numbers.Real) or math.isnan(found):
            raise UserError(
                f"theorem {theorem.name!r}: its bound on {problem.name} is {found!r}, allowed: a number"
            )
        return float(found)

    known = {str(metric): name for name, metric in METRICS.items()}
    if str(theorem.metric) not in known:
        raise UserError(
            f"theorem {theorem.name!r} is about {theorem.metric}, allowed: {', '.join(known)}"
        )
    return Claim(
        text=theorem.statement or theorem.name,
        metric=known[str(theorem.metric)],
        family="convex" if convex in theorem.assumptions else "non-convex",
        gradient=gradient,
        bound=bound,
    )


def evaluate(formula: Expression, problem: Problem, setting: Setting) -> float:
    """The formula on a problem; NaN where a constant that it names does not exist.

    A formula for the step size names no eta, so the setting's own does not enter it.
    """
    constants: dict[str, Callable[[], float]] = {
        "L": lambda: problem.smoothness,
        "D": lambda: problem.initial_distance,
        "mu": lambda: problem.local_growth,
        "c": lambda: problem.similarity,
        "rho": lambda: problem.strong_growth,
        "gamma": lambda: problem.margin,
        "n": lambda: problem.n_nodes,
        "m": lambda: setting.participants or problem.n_nodes,
        "K": lambda: setting.local_steps,
        "R": lambda: setting.rounds,
        "T": lambda: setting.iterations,
        "eta": lambda: setting.step_size,
        "beta": lambda: float(setting.outer_step),
        "f0": lambda: float(np.mean(problem.node_losses(_at_every_node(problem)))),
    }
    return float(formula({name: float(constants[name]()) for name in formula.names}))


def unit_constants(local_steps: int, rounds: int, n_nodes: int) -> dict[str, float]:
    """What a formula may name of plain Local SGD with all nodes where L = D = 1, but for eta."""
    return {
        "L": 1.0,
        "D": 1.0,
        "n": n_nodes,
        "m": n_nodes,
        "K": local_steps,
        "R": rounds,
        "T": local_steps * rounds,
        "beta": 1.0,
    }


def _at_every_node(problem: Simulated) -> np.ndarray:
    return np.broadcast_to(problem.start, (problem.n_nodes, len(problem.start)))


@dataclass(frozen=True)
class Measurement:
    """A left-hand side, measured twice.

    Attributes:
        value: of the first route.
        second: of the second; both routes are named in ``how``.
        low: what the true value is not below: the value itself where it is exact, else a confidence limit.
        sampled: whether the values are means over sample paths.
    """

    value: float
    second: float
    how: str
    low: float
    sampled: bool = False

    @property
    def agree(self) -> bool:
        """Whether the routes agree: to rounding, or, sampled, that neither is below the other's limit."""
        if self.sampled:
            return min(self.value, self.second) >= self.low
        return math.isclose(self.value, self.second, rel_tol=1e-6, abs_tol=1e-14)


def measure(
    claim: Claim, problem: Simulated, setting: Setting, *, twice: bool = False
) -> Measurement | None:
    """The claim's metric on a problem; None where nothing measures it.

    Exact for full gradients and least squares. Else a mean over SEEDS sample paths with a lower limit that
    holds for every distribution; the least of expectations ("best") is not sampled.

    Args:
        twice: measure by a second route too; otherwise the first value stands for both.
    """
    first = None
    if isinstance(problem, MarginProblem) and problem.loss is SQUARED:
        if claim.metric != "best":
            first = _exact(claim, problem, setting)
    elif setting.gradient == "stochastic":
        return None if claim.metric == "best" else _sampled(claim, problem, setting, twice)
    if first is not None and not twice:
        return Measurement(first, first, "exact moments", first)
    if first is not None and setting.gradient == "stochastic":
        samples = _simulated(claim, problem, setting, "numpy", seeds=range(SEEDS))
        return Measurement(
            first,
            first if _near(first, samples) else float(samples.mean()),
            f"exact moments; mean of {SEEDS} seeds within its interval",
            first,
        )
    value = float(_simulated(claim, problem, setting, "numpy", seeds=range(1))[0])
    if not twice:
        return Measurement(value, value, "engine numpy", value)
    if first is not None:
        return Measurement(first, value, "exact moments; engine numpy", first)
    if isinstance(problem, MarginProblem) and problem.loss.code >= 0:
        again = float(_simulated(claim, problem, setting, "margin", seeds=range(1))[0])
        return Measurement(value, again, "engine numpy; engine margin", value)
    again = _by_hand(claim, problem, setting)
    return Measurement(value, again, "engine numpy; plain loop", value)


def _sampled(claim: Claim, problem: Simulated, setting: Setting, twice: bool) -> Measurement:
    """The mean over sample paths; the second route has other seeds, and the lower limit is of all."""
    samples = _simulated(claim, problem, setting, "numpy", seeds=range(SEEDS))
    value = second = float(samples.mean())
    how = f"mean of {SEEDS} seeds"
    if twice:
        more = _simulated(claim, problem, setting, "numpy", seeds=range(SEEDS, 4 * SEEDS))
        second, how = float(more.mean()), f"{how}; of {3 * SEEDS} others"
        samples = np.concatenate([samples, more])
    low, _ = mean_interval(samples, Range(), CONFIDENCE)
    return Measurement(value, second, how, low, sampled=True)


def _by_hand(claim: Claim, problem: Simulated, setting: Setting) -> float:
    """Full gradients in a plain loop, for losses that no second engine knows."""

    def overall(x: np.ndarray) -> float:
        models = np.broadcast_to(x, (problem.n_nodes, len(x)))
        return float(np.mean(problem.node_losses(models)))

    models = np.array(_at_every_node(problem))
    sync, local, means, slopes = [], [], [], []
    for t in range(setting.iterations):
        if t % setting.local_steps == 0:
            models[:] = models.mean(axis=0)
            sync.append(overall(models[0]))
            slopes.append(float((problem.node_gradients(models).mean(axis=0) ** 2).sum()))
        local.append(float(np.mean(problem.node_losses(models))))
        means.append(overall(models.mean(axis=0)))
        models = models - setting.step_size * problem.node_gradients(models)
    last = models.mean(axis=0)
    solution = problem.solution
    values = {
        "last": overall(last),
        "best": min([*sync, overall(last)]),
        "average_sync": float(np.mean(sync)),
        "average_local": float(np.mean(local)),
        "average_global": float(np.mean(means)),
        "distance": math.nan if solution is None else float(((last - solution) ** 2).sum()),
        "gradient": float(np.mean(slopes)),
    }
    return values[claim.metric]


def _near(exact: float, samples: np.ndarray) -> bool:
    """Whether an exact mean lies within five standard errors of the samples' mean."""
    error = float(samples.std(ddof=1)) / math.sqrt(len(samples))
    return abs(exact - float(samples.mean())) <= 5 * error + 1e-12 * abs(exact)


def _exact(claim: Claim, problem: MarginProblem, setting: Setting) -> float:
    found = exact_moments(
        problem,
        step_size=setting.step_size,
        local_steps=setting.local_steps,
        rounds=setting.rounds,
        gradient=setting.gradient,
        record=[setting.iterations],
    )
    return float(METRICS[claim.metric].read(found))


def _simulated(
    claim: Claim, problem: Simulated, setting: Setting, engine: str, seeds: range
) -> np.ndarray:
    metric = METRICS[claim.metric]
    result = run_local_sgd(
        problem,
        step_size=setting.step_size,
        local_steps=setting.local_steps,
        rounds=setting.rounds,
        gradient=setting.gradient,
        engine=engine,
        record=[setting.iterations],
        averages=metric.averages,
        seeds=list(seeds),
    )
    return np.asarray(metric.read(result), float)
