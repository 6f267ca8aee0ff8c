"""TX: the distance to the solution never grows. Copy this file to add a theorem.

Statement
---------
Say it in full: what is assumed, for which K and step sizes, the inequality.
Under A0-A2, for any K and 0 < eta <= 2/L,
    E||xbar^T - x*||^2 <= D.

Proof
-----
Complete, in your own words; quote a lemma by its name (assumptions.py holds
Lemma 1 and 2). Lemma 1 at every node: the square does not grow for eta < 2/L,
and for eta = 2/L by its second form with phi = 0. Averaging does not raise
(1/n) sum_i ||x_i - x*||^2, of which ||xbar - x*||^2 is at most a part
(Jensen). QED

Then add the theorem to THEOREMS in ``theory/theorems/__init__.py``, its row
appears in README.md by ``overview()``, and in tests/test_theorems_*.py say
how its bound and its instances are checked by a second route.
"""

from __future__ import annotations

import numpy as np

from theory.problems.explicit import rank_one_nodes
from theory.problems.protocols import KnowsConstants
from theory.theorems.assumptions import convex, interpolation, plain_mean, smooth, step_below
from theory.theorems.base import Instance, Metric, Setting, Theorem, full_setting

# What is measured: a value at t, or Metric(..., averaged=True) for a running mean.
DISTANCE = Metric("distance")

# ---- bound: a plain function of numbers, and the same on a problem -------------------------------


def bound(*, D: float) -> float:
    """D."""
    return D


def _bound(problem: KnowsConstants, setting: Setting, t: int) -> float:
    return bound(D=problem.initial_distance)


# ---- admissible step -----------------------------------------------------------------------------


def _step(problem: KnowsConstants, local_steps: int) -> float:
    """eta = 2/L."""
    return 2.0 / problem.smoothness


# ---- communication complexity: rounds_to, where the bound gives one ------------------------------

# ---- tight instances: an explicit problem, its value in closed form, why -------------------------


def instance_flip(rounds: int, local_steps: int = 1, smoothness: float = 1.0) -> Instance:
    """IX (TX with equality): f_i(x) = (L/2) x^2, eta = 2/L, x_0 = 1.

    Proof. A step maps x to -x. QED
    """
    return Instance(
        problem=rank_one_nodes([[float(np.sqrt(smoothness))]], [1.0], smoothness, "IX"),
        setting=full_setting(2.0 / smoothness, local_steps, rounds),
        theorem="TX",
        metric=DISTANCE,
        value=1.0,
        limit=1.0,
    )


# ---- sharper: variants with a smaller constant, each a Theorem of its own ------------------------

# ---- the theorem ---------------------------------------------------------------------------------

TX = Theorem(
    name="TX",
    title="the distance never grows",
    statement="E||xbar^T - x*||^2 <= D",
    metric=DISTANCE,
    order=None,
    assumptions=(smooth, convex, interpolation, step_below(2.0, strict=False), plain_mean),
    formula=bound,
    bound=_bound,
    default_step=_step,
    instances=(instance_flip,),
    tightest="1 (IX)",
    module=__name__,
)

REFERENCES = """
Where the statement, and where the proof is from.
"""
