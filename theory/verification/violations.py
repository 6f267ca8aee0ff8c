"""Hypotheses to break on purpose: a check that cannot fail is worth nothing.

Each violation changes the run, the claimed solution or the claimed constant, while the theorem is
still judged as if its hypotheses held. ``python -m theory.verify_rates --break NAME`` must then report
FAILED.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from theory.support.errors import UserError


def _halfway(problem: Any) -> np.ndarray:
    """A wrong x*: halfway from x_0 to the true one, so that D is claimed four times too small."""
    return np.asarray(0.5 * (problem.start + problem.solution))


@dataclass(frozen=True)
class Violation:
    """One broken hypothesis.

    Attributes:
        name, description: for the command line.
        step_factor: the run's eta times L, whatever the theorem was told.
        run_changes: arguments of ``run_local_sgd`` that the theorem is not told of.
        claimed_solution: a wrong x*, (problem) -> (d,).
        bound_scale: theorem name -> factor on its bound; "" is the rest.
    """

    name: str
    description: str
    step_factor: float | None = None
    run_changes: dict[str, Any] = field(default_factory=dict)
    claimed_solution: Callable[[Any], np.ndarray] | None = None
    bound_scale: dict[str, float] = field(default_factory=dict)

    def bound_factor(self, theorem: str) -> float:
        """What the claimed bound is, relative to the theorem's."""
        return self.bound_scale.get(theorem, self.bound_scale.get("", 1.0))


# A wrong x* scales D, and with it the bounds of T1-T4, by 1/4; T5 and T6 have no x*.
_QUARTER_D = dict.fromkeys(("T1", "T2", "T3", "T4", "T4'"), 0.25)

VIOLATIONS: dict[str, Violation] = {
    v.name: v
    for v in (
        Violation("step-size", "run at eta = 2.5/L, above 2/L", step_factor=2.5),
        Violation("no-averaging", "never average the models", run_changes={"averaging": False}),
        Violation(
            "wrong-solution",
            "claim an x* halfway between x_0 and the true one",
            claimed_solution=_halfway,
            bound_scale=_QUARTER_D,
        ),
        Violation("halved-constant", "claim half of every bound", bound_scale={"": 0.5}),
        Violation(
            "biased-sampling",
            "draw only from the first half of each node's samples",
            run_changes={"biased_sampling": True},
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
