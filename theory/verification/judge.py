"""All theorems of one problem under one setting: :class:`Judge` runs what they need and judges.

See :mod:`theory.verification.check` for the three routes.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.simulation.local_sgd import LocalSGDResult, run_local_sgd
from theory.simulation.moments import ExactMoments, exact_moments
from theory.simulation.variants import FedAvg, Variant, selects_everyone
from theory.support.errors import UserError
from theory.support.verdicts import FAILED, HOLDS, UNDECIDED
from theory.theorems import Metric, Setting, Theorem
from theory.theorems.base import BestAtRounds
from theory.verification.intervals import Range, mean_interval
from theory.verification.outcome import (
    ROUNDING,
    UNDERFLOW,
    Check,
    best_and_last,
    blank,
    is_linear,
    judge,
    judge_path,
    log_rate_bound,
    rates,
    ratio,
    variant_of,
)
from theory.verification.ranges import NOTHING, path_range, paths_agree
from theory.verification.resolution import (
    EPS,
    LOG_STEP,
    inconsistency,
    resolution,
    start_resolution,
    step_resolution,
)
from theory.verification.violations import Violation

Array = NDArray[np.float64]

LOCAL_LOSS, BATCH_LOSS = Metric("local_loss", averaged=True), Metric("batch_loss", averaged=True)
# While an interval holds the bound the seeds are multiplied by MORE, up to MOST times as many.
MORE, MOST = 4, 64
# Squares of a smoothness and of a step size 1/L must be numbers.
_SMALLEST = 1e-150


class Judge:
    """All theorems of one problem under one setting."""

    def __init__(
        self,
        problem: Problem,
        setting: Setting,
        batch_size: int,
        engine: str,
        violation: Violation | None,
        variant: Variant | None = None,
        moments: ExactMoments | None = None,
    ) -> None:
        self.problem, self.setting, self.at_hand = problem, setting, moments
        self.batch_size, self.engine = batch_size, engine
        self.variant = variant or variant_of(setting)
        self.known = variant_of(setting) == self.variant
        self.violation = violation or Violation("none", "")
        self.claimed = self.violation.claim(problem)
        factor = self.violation.step_factor
        self.run_step = setting.step_size if factor is None else factor / problem.smoothness
        self.exact = self._exact_possible()
        quadratic = isinstance(problem, MarginProblem) and problem.loss is SQUARED
        if engine == "exact" and (not quadratic or self.violation.run_changes):
            raise UserError(
                "engine 'exact' needs least squares, allowed: auto, numpy, numba, margin"
            )
        self.has_batches = setting.gradient == "full" or hasattr(problem, "sample_losses")
        sizes = np.asarray(getattr(problem, "node_sizes", [2]))
        # One's own variant draws nothing but clients.
        everyone = selects_everyone(self.variant, problem.n_nodes)
        self.deterministic = everyone and (setting.gradient == "full" or int(sizes.max()) == 1)
        # The batches' losses have the nodes' as their mean only under uniform sampling.
        self.unbiased = self.known and setting.order == "uniform"

    def _exact_possible(self) -> bool:
        problem = self.problem
        return (
            isinstance(problem, MarginProblem)
            and problem.loss is SQUARED
            and self.engine in ("auto", "exact")
            and not self.violation.run_changes
            and self.known
            and self.setting.order == "uniform"
            and not isinstance(self.setting.outer_step, str)
        )

    def decide(self, theorems: Sequence[Theorem], seeds: int | Sequence[int]) -> dict[str, Check]:
        """A check of each theorem, by name."""
        if self.engine == "exact" and not self.exact and not all(t.every_path for t in theorems):
            raise UserError(
                "engine 'exact' needs uniform samples and a fixed outer step, "
                "allowed: auto, numpy, numba, margin"
            )
        checks: dict[str, Check] = {}
        if self.problem.initial_distance <= start_resolution(self.problem):
            why = "the run starts at x*, to rounding: both sides are 0"
            return {t.name: self._undecided(t, why) for t in theorems}
        if not _SMALLEST < self.problem.smoothness < 1 / _SMALLEST:
            why = f"L is {self.problem.smoothness:.1e}: its square or eta's leaves double precision"
            return {t.name: self._undecided(t, why) for t in theorems}
        if self.violation.run_changes.get("averaging") is False:
            rounds = [t for t in theorems if t.reads_rounds or self.variant != FedAvg()]
            why = "without averaging there is no round"
            checks = {t.name: replace(self._blank(t), why=why) for t in rounds}
            theorems = [t for t in theorems if t not in rounds]
        sampled = [t for t in theorems if not self._is_exact(t)]
        exact = [t for t in theorems if self._is_exact(t)]
        if exact:
            moments = self._moments({name for t in exact for name in t.metric.averages})
            checks |= {t.name: self._judge_exact(t, moments) for t in exact}
        paths = _Paths(self.problem, self.setting)
        for fresh, most in _looks(seeds, self.deterministic):
            if not sampled:
                break
            paths.add(self._run(fresh, sampled))
            for theorem in sampled:
                checks[theorem.name] = self._judge_paths(theorem, paths)
            sampled = [
                t for t in sampled if not t.every_path and self._goes_on(t, checks[t.name], most)
            ]
        return checks

    # ---- runs ------------------------------------------------------------------------------------

    def _is_exact(self, theorem: Theorem) -> bool:
        # The distance to a wrong x* is no quadratic form of the error alone.
        moved = self.claimed is not self.problem and "distance" in theorem.metric.name
        # The least of the expectations is not the expectation of the least.
        best = isinstance(theorem.metric, BestAtRounds) and not self.deterministic
        return self.exact and not theorem.every_path and not moved and not best

    def _moments(self, averages: set[str]) -> ExactMoments:
        assert isinstance(self.problem, MarginProblem)
        s = self.setting
        if self.at_hand is not None and self.run_step == s.step_size:
            return self.at_hand
        return exact_moments(
            self.problem,
            step_size=self.run_step,
            local_steps=s.local_steps,
            rounds=s.rounds,
            batch_size=self.batch_size,
            gradient=s.gradient,
            participants=s.participants,
            outer_step=float(s.outer_step),
            record=[s.iterations],
            averages=sorted(averages),
        )

    def _metric(self, theorem: Theorem) -> Metric:
        """What is read off the paths."""
        estimable = not (self.deterministic or self.violation.run_changes)
        estimable = estimable and self.has_batches and self.unbiased
        return BATCH_LOSS if estimable and theorem.metric == LOCAL_LOSS else theorem.metric

    def _run(self, seeds: Sequence[int], theorems: Sequence[Theorem]) -> LocalSGDResult:
        wanted = {name for t in theorems for name in self._metric(t).averages}
        if self.has_batches:
            wanted.add("batch_loss")
        s = self.setting
        how = {"variant": self.variant, **self.violation.run_changes}
        return run_local_sgd(
            self.claimed,
            step_size=self.run_step,
            local_steps=s.local_steps,
            rounds=s.rounds,
            seeds=seeds,
            batch_size=self.batch_size,
            gradient=s.gradient,
            engine="auto" if self.engine == "exact" else self.engine,
            averages=sorted(wanted),
            record=[s.iterations],
            record_rounds=any(t.reads_rounds for t in theorems),
            **how,
        )

    # ---- verdicts --------------------------------------------------------------------------------

    def _bound(self, theorem: Theorem) -> float:
        bound = theorem.bound(self.claimed, self.setting, self.setting.iterations)
        real = isinstance(bound, numbers.Real) or (
            isinstance(bound, np.ndarray) and not bound.shape
        )
        if not real or not bound >= 0:
            raise UserError(
                f"theorem {theorem.name!r}: its bound on {self.problem.name} is {bound!r}, allowed: a "
                "number of at least 0"
            )
        return float(bound) * self.violation.bound_factor

    def _judge_exact(self, theorem: Theorem, moments: ExactMoments) -> Check:
        value, bound = float(theorem.metric.read(moments)), self._bound(theorem)
        assert isinstance(self.problem, MarginProblem)
        left = inconsistency(theorem.metric, self.problem)
        floor = max(UNDERFLOW, left, step_resolution(theorem.metric, self.problem, self.setting))
        check = replace(
            self._check(theorem, value, value, value, bound, "exact", floor),
            **best_and_last(theorem.metric, moments),
        )
        if not is_linear(theorem):
            return check
        if bound < left:
            why = f"the samples interpolate almost: below {left:.1e} the moments don't see it"
            return replace(check, verdict=UNDECIDED, why=why)
        log_bound = math.log(self.violation.bound_factor) + log_rate_bound(
            theorem, self.claimed, self.setting
        )
        return self._with_rates(theorem, check, float(moments.log_distance[-1]), log_bound)

    def _with_rates(
        self, theorem: Theorem, check: Check, log_measured: float, log_bound: float
    ) -> Check:
        """A linear rate is compared by logarithms, which do not underflow."""
        start = math.log(theorem.bound(self.claimed, self.setting, 0))
        t = self.setting.iterations
        seen = math.log(self.problem.initial_distance) + t * LOG_STEP
        if log_bound < seen and log_measured < seen and not check.measured == check.bound == 0:
            why = f"an iteration falls by less than {math.exp(LOG_STEP):.0e}, which rounding leaves"
            check = replace(check, verdict=UNDECIDED, why=why)
        elif log_bound > -math.inf or log_measured == -math.inf:
            # Every iteration is rounded, and so is its logarithm.
            holds = log_measured <= log_bound + ROUNDING + 100 * EPS * t
            check = replace(check, verdict=HOLDS if holds else FAILED, why="")
        elif check.measured < UNDERFLOW:
            why = "the bound is 0 to rounding, and what is measured is rounding"
            check = replace(check, verdict=UNDECIDED, why=why)
        return replace(check, **rates(log_measured - start, log_bound - start, self.setting))

    def _judge_paths(self, theorem: Theorem, paths: _Paths) -> Check:
        metric = self._metric(theorem)
        samples, bound = paths.samples(metric), self._bound(theorem)
        floor = resolution(metric, self.problem)
        if theorem.every_path:
            return self._judge_every_path(theorem, paths, bound, floor)
        found = best_and_last(theorem.metric, *paths.results)
        if self.deterministic:
            value = float(np.nan_to_num(samples[0], nan=math.inf))
            check = self._check(theorem, value, value, value, bound, "deterministic", floor)
        else:
            low, high = mean_interval(samples, self._range(metric, paths))
            value = float(np.nan_to_num(samples, nan=math.inf).mean())
            how = f"mean of {len(samples)} seeds" if math.isfinite(value) else "diverged"
            check = self._check(theorem, value, low, max(high, value), bound, how, floor)
            if len(samples) < 2 and check.verdict != FAILED:
                check = replace(check, verdict=UNDECIDED, why="a mean of one path decides nothing")
            elif (
                check.verdict == UNDECIDED and floor <= bound and value <= bound and high < math.inf
            ):
                why = f"a path too rare for {len(samples):,} seeds could carry the mean"
                check = replace(check, why=why)
        if is_linear(theorem) and value > 0 and bound > 0:
            start = theorem.bound(self.claimed, self.setting, 0)
            logs = math.log(value / start), math.log(bound / start)
            check = replace(check, **rates(*logs, self.setting))
        return replace(check, **found)

    def _judge_every_path(
        self, theorem: Theorem, paths: _Paths, bound: float, floor: float
    ) -> Check:
        values = np.nan_to_num(paths.samples(theorem.metric), nan=math.inf)
        bounds = np.full(len(values), bound)
        if theorem.path_bound is not None:
            own = [theorem.path_bound(self.claimed, self.setting, r) for r in paths.results]
            counts = [len(np.atleast_1d(theorem.metric.read(r))) for r in paths.results]
            if [np.shape(bound) for bound in own] != [(count,) for count in counts]:
                raise UserError(
                    f"theorem {theorem.name!r}: its path_bound has shape {np.shape(own[0])}, allowed: "
                    f"({counts[0]},), a number a seed"
                )
            bounds = np.nan_to_num(np.concatenate(own) * self.violation.bound_factor, nan=-math.inf)
        worst = int(np.argmax(values - bounds))
        value, limit = float(values[worst]), float(bounds[worst])
        # A path's own bound may be a difference of nearly equal terms of the size of the expected one's,
        # rounded at every iteration.
        differences = (8 + math.sqrt(self.setting.iterations)) * EPS
        verdict, why = judge_path(value, limit, floor + differences * max(bound, 0.0))
        check = self._blank(theorem)
        return replace(
            check,
            measured=value,
            low=value,
            high=value,
            bound=limit,
            ratio=ratio(limit, value),
            how=f"worst of {len(values)} paths" if math.isfinite(value) else "diverged",
            verdict=verdict,
            why=why,
        )

    def _undecided(self, theorem: Theorem, why: str) -> Check:
        check = self._blank(theorem)
        return replace(check, bound=self._bound(theorem), verdict=UNDECIDED, why=why)

    def _blank(self, theorem: Theorem) -> Check:
        return blank(theorem, self.problem, self.setting, self.variant.name)

    def _check(
        self,
        theorem: Theorem,
        measured: float,
        low: float,
        high: float,
        bound: float,
        how: str,
        floor: float,
    ) -> Check:
        verdict, why = judge(low, high, bound, floor)
        check = self._blank(theorem)
        return replace(
            check,
            measured=measured,
            low=low,
            high=high,
            bound=bound,
            ratio=ratio(bound, measured),
            how=how,
            verdict=verdict,
            why=why,
        )

    def _range(self, metric: Metric, paths: _Paths) -> Range:
        """What no path exceeds; nothing where a hypothesis of the run is broken, or its own paths do."""
        broken = bool(self.violation.run_changes) or self.violation.step_factor is not None
        moved = self.claimed is not self.problem and "distance" in metric.name
        if broken or moved or not paths.agree or not self.unbiased:
            return NOTHING
        return path_range(metric, self.problem, self.setting)

    def _goes_on(self, theorem: Theorem, check: Check, most: int) -> bool:
        """Whether more seeds may decide: a mean above the bound may FAIL, one below it HOLD."""
        if check.verdict != UNDECIDED or check.bound < resolution(theorem.metric, self.problem):
            return False
        if check.measured > check.bound:
            return True
        if not self.unbiased:
            return False
        known = path_range(self._metric(theorem), self.problem, self.setting)
        return mean_interval(np.zeros(most), known)[1] <= check.bound and check.high < math.inf


class _Paths:
    """The sampled runs so far, in order of their seeds."""

    def __init__(self, problem: Problem, setting: Setting) -> None:
        self.problem, self.setting = problem, setting
        self.results: list[LocalSGDResult] = []
        self.agree = True

    def add(self, result: LocalSGDResult) -> None:
        """More paths."""
        self.results.append(result)
        self.agree = self.agree and paths_agree(self.problem, self.setting, result)

    def samples(self, metric: Metric) -> Array:
        """A metric on every path, (seeds,)."""
        return np.concatenate([np.atleast_1d(metric.read(r)) for r in self.results])


def _looks(seeds: int | Sequence[int], deterministic: bool) -> Iterator[tuple[Sequence[int], int]]:
    """(seeds to run now, the most there can be): those given, or 0, 1, ... a growing number at a time."""
    if isinstance(seeds, Sequence | np.ndarray):
        yield seeds, len(seeds)
        return
    first = int(seeds)
    if deterministic or first < 1:
        yield range(min(first, 1)), 1
        return
    done, count = 0, first
    while count <= MOST * first:
        yield range(done, count), MOST * first
        done, count = count, count * MORE
