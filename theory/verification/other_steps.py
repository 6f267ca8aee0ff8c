"""What else the sharper variants are checked for: S1 at other step sizes, S8 beside the L that it halves.

At eta = 1/L, the step of T1 to T3, S1 is the theorem that it sharpens. It is about every step size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from theory.problems.losses import SIGMOID_REGRESSION
from theory.support.verdicts import NOT_APPLICABLE
from theory.theorems import T6, THEOREMS
from theory.verification.check import Check, verify_all
from theory.verification.sweep import QUADRATIC, Sweep, cells, make_problem, run_sweep

#: eta in units of 1/L: small for the number of iterations, middling, and large.
STEP_FACTORS = (0.01, 0.5, 1.5)
#: What |sigmoid'| <= 1/4, |sigmoid''| <= 1/(6 sqrt 3) and a residual of at most 1 give for the curvature.
WITHOUT_S8 = float(1 / 16 + 1 / (6 * np.sqrt(3)))


def s1_at_other_steps(
    sweep: Sweep,
    step_factors: Sequence[float] = STEP_FACTORS,
    *,
    workers: int = 1,
) -> Mapping[float, list[Check]]:
    """S1 and what it sharpens of T1 to T3, by eta in units of 1/L, where they apply.

    On the problems whose expectations are exact: a bound's distance is then no matter of seeds.

    Args:
        sweep: what to check; its step sizes don't count.
        step_factors: eta in units of 1/L.
        workers: as for :func:`theory.verification.sweep.run_sweep`.
    """
    chosen = set(sweep.theorems)
    names = [
        name
        for theorem in THEOREMS
        for variant in theorem.sharper
        for name in (theorem.name, variant.name)
        # T0 takes off what each path has left to go: its bound is no function of the step.
        if variant.name.endswith("/S1") and not variant.every_path
        if {theorem.name, variant.name} <= chosen
    ]
    if not names:
        return {}
    found = {}
    for factor in step_factors:
        again = replace(
            sweep, theorems=tuple(names), problems=QUADRATIC, step_factors=(factor,), engine="auto"
        )
        checks = run_sweep(again, workers=workers)
        found[factor] = [c for c in checks if c.theorem in names and c.verdict != NOT_APPLICABLE]
    return found


def t6_without_s8(sweep: Sweep) -> list[Check]:
    """T6 on sigmoid regression at the L, and so at the step size, that the plain curvature bound gives."""
    if T6.name not in sweep.theorems:
        return []
    found = []
    for cell in cells(replace(sweep, problems=("sigmoid",), step_factors=())):
        problem = make_problem(sweep, cell.problem, cell.heterogeneity)
        wider = WITHOUT_S8 / SIGMOID_REGRESSION.curvature * problem.data_smoothness
        found += verify_all(
            [T6],
            problem.declared(wider),
            local_steps=cell.local_steps,
            rounds=sweep.rounds,
            seeds=sweep.seeds,
            gradient=cell.gradient,
            variant=sweep.chosen_variant(problem.n_nodes),
            engine=sweep.engine,
        )
    return [c for c in found if c.verdict != NOT_APPLICABLE]
