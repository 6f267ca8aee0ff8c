"""What is measured on a problem, and the setting that is recommended from it.

The rule, for accuracy eps and a communication that costs as much time as ``cost`` local steps:

1. with all nodes, for every outer step (the plain mean, the rules of extrapolation) and every K, the
   rounds until the mean over paths of f(xbar_r) is at most eps, at the best local step of STEPS;
2. of these the setting with the least time, rounds (cost + K); within CLOSE of it the least K, and of
   those the plainest outer step;
3. at that setting the fewest clients m of n, n/2, n/4 and 1 that take at most CLOSE times the rounds.

Where no setting comes to eps nothing is recommended. Theory decides nothing here but what it promises:
its bounds are far above what typical problems take, and know no outer step above 1 to be better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.simulation.compilation import one_thread
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.simulation.variants import FedAvg
from theory.verification.baselines.rounds_to import promised
from theory.verification.baselines.schedules import LOCAL, methods
from theory.verification.first_passage import Array, band, looks
from theory.verification.options import path_seeds

#: Local steps that are tried, in units of 1/L; T1 to T3 cover those below 2.
STEPS = (0.5, 1.0, 1.5)
#: Outer steps that are tried, the plainest first.
OUTER_STEPS: tuple[float | str, ...] = (1.0, "half-extrapolated", "extrapolated", "polyak")
#: A setting within this factor of the best counts as good as the best.
CLOSE = 1.1
#: Rounds tried at first; four times as many after each look at which no step has reached eps.
FIRST_LOOK = 32
#: P/Q is said at x_0 and after so many rounds.
LATER = 5
#: Multiplications up to which exact expectations replace sample paths.
MOST_EXACT = 2e10


@dataclass(frozen=True)
class Tried:
    """A setting and what it takes.

    Attributes:
        step: eta in units of 1/L.
        local_steps, clients, outer_step: K, m and the outer step.
        rounds: the first r at which the mean over paths of f(xbar_r) is at most eps; NaN if not within
            the rounds tried.
        low, high: 5% and 95% of the first r of each path, infinite where so many have none; equal to
            ``rounds`` where exact.
        exact: whether ``rounds`` is of the exact expectation.
        promised: the rounds that a theorem promises at step 1/L, NaN for none.
        theorem: its name.
        least_loss: the least mean loss over the rounds tried.
    """

    step: float
    local_steps: int
    clients: int
    outer_step: float | str
    rounds: float
    low: float
    high: float
    exact: bool
    promised: float
    theorem: str
    least_loss: float


@dataclass(frozen=True)
class Curve:
    """f(xbar_r) against rounds: the mean over paths, and 5% and 95% of them, (R + 1,) each."""

    label: str
    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Advice:
    """What was found on a problem.

    Attributes:
        eps: accuracy of f.
        start_loss: f(x_0).
        cost: of a communication, in local steps.
        most: rounds tried, at most.
        tried: every outer step and K with all nodes, at the best step, in that order.
        clients: the setting chosen with fewer and fewer clients, from all nodes to one.
        recommended: None where nothing comes to eps.
        plain: Local SGD with K = 1 at step 1/L, for comparison.
        spread_at: local steps K at which P/Q was measured.
        spread: P/Q at x_0 and after LATER rounds of plain Local SGD at 1/L, medians over paths.
        curves: of the loss, for the figure.
    """

    eps: float
    start_loss: float
    cost: float
    most: int
    tried: list[Tried]
    clients: list[Tried]
    recommended: Tried | None
    plain: Tried
    spread_at: int
    spread: tuple[float, float]
    curves: list[Curve]

    @property
    def local_steps(self) -> list[int]:
        """The K tried."""
        return list(dict.fromkeys(t.local_steps for t in self.tried))

    def row(self, outer_step: float | str) -> list[Tried]:
        """What was tried with an outer step, by K."""
        return [t for t in self.tried if t.outer_step == outer_step]


@one_thread()
def advise(
    problem: MarginProblem,
    eps: float,
    *,
    local_steps: Sequence[int] = (1, 2, 5, 10, 20, 50),
    most: int = 1000,
    cost: float = 100.0,
    seeds: Sequence[int] = tuple(range(8)),
    gradient: str = "stochastic",
    report: Callable[[int, int], None] | None = None,
) -> Advice:
    """Measure and recommend, by the rule above.

    Args:
        problem: the nodes.
        eps: accuracy of f, above 0 and below f(x_0).
        local_steps: K to try.
        most: rounds after which eps counts as not reached.
        cost: of a communication, in local steps.
        seeds: of the paths, the same for every setting; the final numbers are from four times as many.
        gradient: "stochastic", one sample a step, or "full".
        report: called with (settings done, settings).
    """
    search = _Search(problem, eps, most, list(seeds), gradient)
    todo = len(OUTER_STEPS) * len(local_steps) + 2
    tried: list[Tried] = []
    for outer in OUTER_STEPS:
        for k in local_steps:
            if report is not None:
                report(len(tried), todo)
            tried.append(search.best_step(k, problem.n_nodes, outer))
    if report is not None:
        report(todo - 2, todo)
    final = _Search(problem, eps, most, _more(list(seeds)), gradient)
    plain = final.settle(1.0, 1, problem.n_nodes, 1.0)
    chosen = choose(tried, cost)
    clients: list[Tried] = []
    if chosen is not None:
        for m in fewer_clients(problem.n_nodes):
            clients.append(final.settle(chosen.step, chosen.local_steps, m, chosen.outer_step))
        chosen = fewest_clients(clients)
    if report is not None:
        report(todo - 1, todo)
    at = local_steps[-1] if chosen is None else chosen.local_steps
    return Advice(
        eps=eps,
        start_loss=float(problem.global_loss(problem.start)),
        cost=cost,
        most=most,
        tried=tried,
        clients=clients,
        recommended=chosen,
        plain=plain,
        spread_at=at,
        spread=_spread(problem, at, list(seeds), gradient),
        curves=_curves(search, chosen, plain, at),
    )


def choose(tried: Sequence[Tried], cost: float) -> Tried | None:
    """The setting of least time, as far as that tells them apart; None where none came to eps."""
    arrived = [t for t in tried if math.isfinite(t.rounds)]
    if not arrived:
        return None
    # Half a round: what arrives at once is not free.
    times = {id(t): max(t.rounds, 0.5) * (cost + t.local_steps) for t in arrived}
    good = [t for t in arrived if times[id(t)] <= CLOSE * min(times.values())]
    order = {outer: i for i, outer in enumerate(OUTER_STEPS)}
    return min(good, key=lambda t: (t.local_steps, order[t.outer_step], abs(t.step - 1)))


def fewer_clients(n_nodes: int) -> list[int]:
    """n, n/2, n/4 and 1, rounded up, each once."""
    return list(dict.fromkeys((n_nodes, -(-n_nodes // 2), -(-n_nodes // 4), 1)))


def fewest_clients(tried: Sequence[Tried]) -> Tried:
    """The fewest clients that take at most CLOSE times the rounds of all nodes, the first entry."""
    limit = CLOSE * tried[0].rounds
    good = [t for t in tried if t.rounds <= limit]
    return min(good, key=lambda t: t.clients, default=tried[0])


def _more(seeds: list[int]) -> list[int]:
    return path_seeds(seeds[0], 4 * len(seeds))


@dataclass
class _Search:
    """Runs on one problem, to one accuracy, on one set of paths."""

    problem: MarginProblem
    eps: float
    most: int
    seeds: list[int]
    gradient: str

    def paths(
        self, steps: Sequence[float], k: int, m: int, outer: float | str, rounds: int
    ) -> Array:
        """f(xbar_r), (steps, paths, R + 1)."""
        run = run_local_sgd(
            self.problem,
            step_size=np.asarray(steps) / self.problem.smoothness,
            local_steps=k,
            rounds=rounds,
            seeds=self.seeds,
            gradient=self.gradient,
            participants=m,
            outer_step=outer,
            averages=(),
            record=np.arange(0, k * rounds + 1, k),
        )
        return run.history["global_loss"]

    def best_step(
        self, k: int, m: int, outer: float | str, steps: Sequence[float] = STEPS
    ) -> Tried:
        """The setting at the best of ``steps``; the one nearest to 1 where they are alike."""
        variant = FedAvg(participants=m, outer_step_size=outer)
        schedule = replace(methods(self.problem, k)[LOCAL], variants=(variant,))
        promise = promised(self.problem, schedule, self.eps)
        found: list[Tried] = []
        for rounds in looks(FIRST_LOOK, self.most):
            every = self.paths(steps, k, m, outer, rounds)
            found = [
                self._tried(step, k, m, outer, promise, paths)
                for step, paths in zip(steps, every, strict=True)
            ]
            arrived = [t for t in found if math.isfinite(t.rounds)]
            if arrived:
                return min(arrived, key=lambda t: (t.rounds, abs(t.step - 1)))
        return min(found, key=lambda t: t.least_loss)

    def settle(self, step: float, k: int, m: int, outer: float | str) -> Tried:
        """The setting at one step, by the exact expectation where there is one at a reasonable cost."""
        sampled = self.best_step(k, m, outer, [step])
        p, rounds = self.problem, sampled.rounds
        if p.loss is not SQUARED or isinstance(outer, str) or not math.isfinite(rounds):
            return sampled
        # A little further, as the expectation may come later than the mean over paths.
        most = min(self.most, int(2 * rounds) + 8)
        if float(p.n_nodes) * p.rank**3 * k * most > MOST_EXACT:
            return sampled
        moments = exact_moments(
            p,
            step_size=step / p.smoothness,
            local_steps=k,
            rounds=most,
            gradient=self.gradient,
            participants=m,
            outer_step=outer,
            record=np.arange(0, k * most + 1, k),
            averages=(),
        )
        reached = np.flatnonzero(moments.history["global_loss"] <= self.eps)
        if not len(reached):
            return sampled
        exact = float(reached[0])
        return replace(sampled, rounds=exact, low=exact, high=exact, exact=True)

    def _tried(
        self,
        step: float,
        k: int,
        m: int,
        outer: float | str,
        promise: tuple[float, str],
        paths: Array,
    ) -> Tried:
        mean = paths.mean(axis=0)
        reached = np.flatnonzero(mean <= self.eps)
        low, high = band(paths, self.eps)
        finite = mean[np.isfinite(mean)]
        bound, theorem = promise
        return Tried(
            step=step,
            local_steps=k,
            clients=m,
            outer_step=outer,
            rounds=float(reached[0]) if len(reached) else math.nan,
            low=low,
            high=high,
            exact=False,
            promised=bound,
            theorem=theorem,
            least_loss=float(finite.min()) if len(finite) else math.inf,
        )


def _spread(problem: MarginProblem, k: int, seeds: list[int], gradient: str) -> tuple[float, float]:
    """P/Q in the first round and in the one after LATER rounds; NaN where nothing moves."""
    run = run_local_sgd(
        problem,
        step_size=1.0 / problem.smoothness,
        local_steps=k,
        rounds=LATER + 1,
        seeds=seeds,
        gradient=gradient,
        record_rounds=True,
        averages=(),
    )
    assert run.round_record is not None
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = run.round_record.mean_square[0] / run.round_record.square_mean[0]
    return float(np.median(ratios[:, 0])), float(np.median(ratios[:, LATER]))


def _curves(search: _Search, chosen: Tried | None, plain: Tried, k: int) -> list[Curve]:
    """Plain Local SGD with K = 1 and with the K of the advice, and the advice."""
    n, longest = search.problem.n_nodes, search.most
    ends = [t.rounds for t in (plain, chosen) if t is not None and math.isfinite(t.rounds)]
    rounds = min(longest, max(8, int(1.3 * max(ends)))) if ends else longest
    shown: list[tuple[str, float, int, int, float | str]] = [
        ("plain, K = 1", 1.0, 1, n, 1.0),
        (f"plain, K = {k}", 1.0, k, n, 1.0),
    ]
    if chosen is not None:
        c = chosen
        shown.append(("recommended", c.step, c.local_steps, c.clients, c.outer_step))
    curves = []
    for label, step, steps, m, outer in dict.fromkeys(shown):
        paths = search.paths([step], steps, m, outer, rounds)[0]
        low, high = np.percentile(paths, [5, 95], axis=0)
        curves.append(Curve(label, paths.mean(axis=0), low, high))
    return curves
