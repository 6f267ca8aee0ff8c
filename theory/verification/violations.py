"""Hypotheses to break on purpose: a check that cannot fail is worth nothing.

Each violation changes the run, the claimed solution or the claimed constant, while the theorem is
still judged as if its hypotheses held. ``python -m theory.verify_rates --break NAME`` must then report
FAILED wherever a table under test says so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.simulation.variants import Reports, Round, Variant
from theory.support.errors import UserError


def _halfway(problem: Problem) -> Problem:
    """The problem with a wrong x*, halfway from x_0 to the true one, and so a quarter of D."""
    if not isinstance(problem, MarginProblem) or problem.solution is None:
        return problem
    # The constants are claimed of the same losses; only x* is another.
    _ = problem.similarity, problem.curvature_floor
    claimed = copy.copy(problem)
    claimed.__dict__["solution"] = np.asarray(0.5 * (problem.start + problem.solution))
    claimed.__dict__["solution_coefficients"] = 0.5 * problem.solution_coefficients
    claimed.__dict__["initial_distance"] = 0.25 * problem.initial_distance
    return claimed


def _as_it_is(problem: Problem) -> Problem:
    return problem


class SameClients(Variant):
    """Clients that are not drawn uniformly."""

    name = "always the first half of the nodes"

    def select(self, round: Round) -> Sequence[int]:
        """See :class:`theory.simulation.variants.Variant`."""
        return range(-(-round.n_nodes // 2))


class GreedyServer(Variant):
    """An outer step beyond what Lemma 2 lets pay."""

    name = "three times P/Q"

    def outer_step(self, reports: Reports) -> float:
        """See :class:`theory.simulation.variants.Variant`."""
        return 3 * reports.mean_square / reports.square_mean if reports.square_mean > 0 else 1.0


@dataclass(frozen=True)
class Violation:
    """One broken hypothesis.

    Attributes:
        name, description: for the command line.
        step_factor: the run's eta times L, whatever the theorem was told.
        run_changes: arguments of ``run_local_sgd`` that the theorem is not told of.
        claim: the problem as it is claimed to be: its x* and D enter the bounds, and distances are
            measured to its x*.
        bound_factor: what the claimed bound is, relative to the theorem's.
    """

    name: str
    description: str
    step_factor: float | None = None
    run_changes: dict[str, Any] = field(default_factory=dict)
    claim: Callable[[Problem], Problem] = _as_it_is
    bound_factor: float = 1.0


VIOLATIONS: dict[str, Violation] = {
    v.name: v
    for v in (
        Violation("step-size", "run at eta = 2.5/L, above 2/L", step_factor=2.5),
        Violation("no-averaging", "never average the models", run_changes={"averaging": False}),
        Violation(
            "wrong-solution", "claim an x* halfway between x_0 and the true one", claim=_halfway
        ),
        Violation("halved-constant", "claim half of every bound", bound_factor=0.5),
        Violation(
            "biased-sampling",
            "draw only from the first half of each node's samples",
            run_changes={"biased_sampling": True},
        ),
        Violation(
            "same-clients",
            "let always the first half of the nodes take part",
            run_changes={"variant": SameClients()},
        ),
        Violation(
            "greedy-server",
            "take three times P/Q as the outer step",
            run_changes={"variant": GreedyServer()},
        ),
    )
}


def find_violation(name: str) -> Violation:
    """The violation of that name.

    Raises:
        UserError: there is none.
    """
    if name not in VIOLATIONS:
        raise UserError(f"--break {name!r}, allowed: {', '.join(VIOLATIONS)}")
    return VIOLATIONS[name]
