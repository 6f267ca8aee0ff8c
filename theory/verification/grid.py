"""Theorems over a grid of step sizes and local steps, as a table: :func:`verify_grid`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import joblib

from theory.problems.protocols import Problem
from theory.support.errors import UserError
from theory.theorems import Theorem
from theory.verification.check import Check, verify_all


def verify_grid(
    theorem: Theorem | Sequence[Theorem],
    problem: Problem,
    step_sizes: Sequence[float],
    local_steps: Sequence[int],
    *,
    rounds: int = 100,
    workers: int = 1,
    **options: Any,
) -> list[dict[str, Any]]:
    """Check one theorem, or several, for every step size and K.

    The problem's constants are computed once for the whole grid, and all theorems share the runs of a
    step size and K.

    Args:
        theorem: what to check.
        problem: on what.
        step_sizes: eta, absolute; multiples of ``1 / problem.smoothness`` are usual.
        local_steps: K.
        rounds: R.
        workers: threads of joblib; the result does not depend on them.
        options: as for :func:`theory.verification.check.verify`.

    Returns:
        A row a check, with the fields of :class:`theory.verification.check.Check` and "eta_L", the step
        size in units of 1/L; ``pandas.DataFrame`` takes it as it is. A combination that a theorem does
        not admit is NOT APPLICABLE.

    Raises:
        UserError: an empty grid, or an argument outside its range.
    """
    theorems = [theorem] if isinstance(theorem, Theorem) else list(theorem)
    if not theorems or not len(step_sizes) or not len(local_steps):
        raise UserError("the grid is empty, allowed: at least one theorem, step size and K")

    def cell(eta: float, k: int) -> list[Check]:
        return verify_all(theorems, problem, step_size=eta, local_steps=k, rounds=rounds, **options)

    cells = [(eta, k) for eta in step_sizes for k in local_steps]
    first = cell(*cells[0])  # computes the constants that the others share
    parallel = joblib.Parallel(n_jobs=workers, prefer="threads")
    rest = parallel(joblib.delayed(cell)(*c) for c in cells[1:])
    checks = [check for found in (first, *rest) for check in found]
    return [{**asdict(c), "eta_L": c.step_size * problem.smoothness} for c in checks]
