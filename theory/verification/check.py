"""One check: a theorem against runs. :func:`verify` measures, bounds and judges.

Three routes, by what the theorem says and the problem allows:

* exact: expectations of least squares in closed recursions, and deterministic runs; no sampling error;
* every path: a theorem that holds with probability one is compared with every sampled path;
* a mean of paths: its confidence interval holds for every distribution and for all looks together
  (:mod:`theory.verification.intervals`), and rests on what no path can exceed
  (:mod:`theory.verification.ranges`). It may end UNDECIDED. The nodes' mean losses are estimated by the
  losses of the batches that the path uses, which have the same mean under uniform sampling, cost
  nothing, and are bounded on every path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from theory.problems.consistency import check_problem
from theory.problems.protocols import Problem
from theory.simulation import arguments
from theory.simulation.moments import ExactMoments
from theory.simulation.variants import FedAvg, Variant
from theory.support.errors import UserError
from theory.theorems import Setting, Theorem
from theory.verification.judge import Judge
from theory.verification.outcome import Check as Check
from theory.verification.outcome import blank
from theory.verification.violations import Violation


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
    variant: Variant | None = None,
    violation: Violation | None = None,
) -> Check:
    """Check one theorem on one problem.

    Args:
        theorem, problem: what to check, on what.
        step_size: eta; the theorem's own admissible step if not given.
        local_steps, rounds, batch_size, gradient: as in :func:`theory.simulation.local_sgd.run_local_sgd`.
        seeds: sample paths; not used where the expectation is exact (least squares). A count is
            multiplied by 4, up to 64 times itself, while the interval holds the bound; a list is used as
            it is.
        engine: as in ``run_local_sgd``, or "exact" to insist on exact expectations.
        variant: what runs, :class:`theory.simulation.variants.FedAvg` or one of one's own; if not given,
            the clients and the outer step that the theorem is about. Of a variant of one's own the
            theorem knows nothing: its bound is compared as if it did, without relying on it.
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
        variant=variant,
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
    variant: Variant | None = None,
    violation: Violation | None = None,
    moments: Mapping[Setting, ExactMoments] | None = None,
) -> list[Check]:
    """As :func:`verify` for several theorems; those with the same setting share one run.

    Args:
        moments: exact expectations by setting, with all running means, where they are at hand.
    """
    check_problem(problem)
    arguments.schedule(local_steps, rounds, batch_size, gradient)
    arguments.seed_list(seeds)
    if step_size is not None:
        arguments.step_sizes(step_size)
    check_names(theorems)
    checks: dict[str, Check] = {}
    groups: dict[Setting, list[Theorem]] = {}
    label = "" if variant is None else variant.name
    for theorem in theorems:
        eta = theorem.default_step(problem, local_steps) if step_size is None else step_size
        plain = Setting(step_size=eta, local_steps=local_steps, rounds=rounds, gradient=gradient)
        setting = theorem.setting(problem, plain) if variant is None else _setting(plain, variant)
        # Without a finite default step (rho unknown) the step itself is 0; the assumptions say why.
        ok, why = theorem.applies(problem, setting)
        if ok:
            groups.setdefault(setting, []).append(theorem)
        else:
            checks[theorem.name] = replace(blank(theorem, problem, setting, label), why=why)
    for setting, group in groups.items():
        known = moments.get(setting) if moments else None
        judge = Judge(problem, setting, batch_size, engine, violation, variant, known)
        checks |= judge.decide(group, seeds)
    return [checks[theorem.name] for theorem in theorems]


def check_names(theorems: Sequence[Theorem]) -> None:
    """Refuse two theorems of one name, which verdicts and tables could not tell apart."""
    for name, count in Counter(theorem.name for theorem in theorems).items():
        if count > 1:
            raise UserError(
                f"{count} theorems are called {name!r}, allowed: a name each, as "
                "dataclasses.replace(theorem, name=...) gives"
            )


def _setting(plain: Setting, variant: Variant) -> Setting:
    """What theorems are told of a variant."""
    told = replace(plain, order=variant.order)
    if not isinstance(variant, FedAvg) or callable(variant.outer_step_size):
        return told
    return replace(told, participants=variant.participants, outer_step=variant.outer_step_size)
