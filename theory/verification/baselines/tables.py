"""The comparison for the terminal; each table fits 80 columns, with ASCII letters only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from theory.verification.baselines.compare import BaselineRow
from theory.verification.baselines.rounds_to import RoundsToEps
from theory.verification.baselines.schedules import BOTH, ONE_SHOT, REFERENCE
from theory.verification.tables import number, ruled, whole

#: How to read the tables.
READING = (
    "step L: step size in units of 1/L; beta: the outer step. sent, gradients:",
    "vectors that a node sends and sample gradients that it takes, on average;",
    "SCAFFOLD sends two a round. bound, by: rounds that a theorem promises at 1/L.",
    "Under interpolation SCAFFOLD has no bias to remove: its control variates vanish",
    "at x*, the fixed point of Local SGD too. It can gain on the way there only, in",
    "directions that a node's own samples do not see, and no theorem here covers it.",
)
_METHOD = {"FedAvg, ": "", " a round": "", "outer step": "beta"}


def rounds_table(rows: Sequence[RoundsToEps], eps: float, heading: str) -> Table:
    """Rounds to eps, a line a method."""
    title = f"{heading}: rounds until f <= {eps:g}, each at its best step"
    columns = ("step L", "rounds", "5%-95%", "sent", "gradients", "bound", "by")
    table = ruled(title, {"method": 24}, columns, verdict=False)
    for r in rows:
        spread = "-" if math.isnan(r.low) else f"{whole(r.low)}-{whole(r.high)}"
        table.add_row(
            short_method(r.method),
            number(r.step_size),
            whole(r.rounds),
            spread,
            whole(r.communications),
            whole(r.gradients),
            whole(r.bound),
            r.theorem or "-",
        )
    return table


def short_method(name: str) -> str:
    """The name of a method in a table that says it is about FedAvg."""
    for long, short in _METHOD.items():
        name = name.replace(long, short)
    return name


def baseline_table(rows: Sequence[BaselineRow]) -> Table:
    """Local SGD beside its rivals at equal budgets."""
    title = "Equal budgets: E f at the end, each at its best step (~: mean over paths)"
    columns = ("batch", "sent", "gradients", *rows[0].loss)
    table = ruled(title, {"method": 23, "shares": 13}, columns, verdict=False)
    for r in rows:
        # One-shot averaging takes all its steps in the one round.
        named = r.local_steps > 1 and r.method != ONE_SHOT
        method = f"{r.method}, K = {r.local_steps}" if named else r.method
        shares = {REFERENCE: "-", BOTH: "both"}
        values = (
            ("" if r.low[level] == r.high[level] else "~") + number(value)
            for level, value in r.loss.items()
        )
        columns = (
            "all" if r.batch_size is None else str(r.batch_size),
            f"{r.communications:,}",
            f"{r.gradients:,.0f}",
            *values,
        )
        table.add_row(method, shares.get(r.budget, r.budget.removeprefix("equal ")), *columns)
    return table
