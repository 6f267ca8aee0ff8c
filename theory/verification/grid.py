"""Theorems over a grid of step sizes and local steps, as a table: :func:`verify_grid`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import joblib

from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.simulation.moments import ExactMoments, exact_grid
from theory.support.errors import UserError
from theory.theorems import Setting, Theorem
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

    The problem's constants are computed once for the whole grid, all theorems share the runs of a step
    size and K, and exact expectations (least squares) are advanced for the whole grid together.

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
    first = Setting(
        step_size=step_sizes[0],
        local_steps=local_steps[0],
        rounds=rounds,
        gradient=options.get("gradient", "stochastic"),
    )
    plain = [
        [replace(first, step_size=eta, local_steps=k) for k in local_steps] for eta in step_sizes
    ]
    moments = _shared_moments(theorems, problem, plain, options)

    def cell(setting: Setting) -> list[Check]:
        return verify_all(
            theorems,
            problem,
            step_size=setting.step_size,
            local_steps=setting.local_steps,
            rounds=rounds,
            moments=moments,
            **options,
        )

    cells = [setting for row in plain for setting in row]
    begun = cell(cells[0])  # computes the constants that the others share
    parallel = joblib.Parallel(n_jobs=workers, prefer="threads")
    rest = parallel(joblib.delayed(cell)(setting) for setting in cells[1:])
    checks = [check for found in (begun, *rest) for check in found]
    return [{**asdict(c), "eta_L": c.step_size * problem.smoothness} for c in checks]


def _shared_moments(
    theorems: Sequence[Theorem],
    problem: Problem,
    plain: Sequence[Sequence[Setting]],
    options: dict[str, Any],
) -> dict[Setting, ExactMoments]:
    """Exact expectations of the whole grid, with the clients and outer steps that the theorems ask for."""
    as_told = set(options) <= {"seeds", "batch_size", "gradient", "engine"}
    exact = options.get("engine", "auto") in ("auto", "exact")
    if not (as_told and exact and isinstance(problem, MarginProblem) and problem.loss is SQUARED):
        return {}
    run = {name: options[name] for name in ("batch_size", "gradient") if name in options}
    asked = [t.setting(problem, plain[0][0]) for t in theorems if not t.every_path]
    servers = {(s.participants, s.outer_step) for s in asked if not isinstance(s.outer_step, str)}
    found: dict[Setting, ExactMoments] = {}
    for clients, beta in servers:
        grid = exact_grid(
            problem,
            step_sizes=[row[0].step_size for row in plain],
            local_steps=[setting.local_steps for setting in plain[0]],
            rounds=plain[0][0].rounds,
            participants=clients,
            outer_step=float(beta),
            record=[],
            **run,
        )
        for settings, row in zip(plain, grid, strict=True):
            for setting, moments in zip(settings, row, strict=True):
                found[replace(setting, participants=clients, outer_step=beta)] = moments
    return found
