"""Tables of a verification, for the terminal."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from theory.theorems import THEOREMS
from theory.verification.baselines import BaselineRow
from theory.verification.check import FAILED, HOLDS, NOT_APPLICABLE, Check
from theory.verification.orders import Communication, SlopeFit
from theory.verification.sweep import Tightness

COLOURS = {HOLDS: "green", FAILED: "bold red", NOT_APPLICABLE: "dim", "observed": "cyan"}


def number(value: float) -> str:
    """Three significant digits; scientific when far from 1."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    if value == round(value) and abs(value) < 1e5:
        return f"{value:.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.2e}"


def _verdict(verdict: str) -> Text:
    return Text(verdict, style=COLOURS[verdict])


def _measured(check: Check) -> str:
    if check.how == "exact":
        return f"{number(check.measured)} exact"
    return f"{number(check.measured)} ± {number(check.high - check.measured)}"


def check_table(checks: Iterable[Check]) -> Table:
    """Every check that applies, ordered by theorem."""
    table = Table(title="Checks: measured left-hand side against its bound", title_justify="left")
    for name in ("theorem", "problem", "heterogeneity"):
        table.add_column(name)
    for name in ("K", "measured (95%)", "bound", "bound/measured"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    rows = sorted((c for c in checks if c.verdict != NOT_APPLICABLE), key=lambda c: c.theorem)
    for i, c in enumerate(rows):
        last = i + 1 == len(rows) or rows[i + 1].theorem != c.theorem
        table.add_row(
            c.theorem,
            c.problem,
            c.heterogeneity,
            str(c.local_steps),
            _measured(c),
            number(c.bound),
            number(c.ratio),
            _verdict(c.verdict),
            end_section=last,
        )
    return table


def not_applicable_table(checks: Iterable[Check]) -> Table:
    """Every check that does not apply, with the reason; schedules and nodes' likeness collapsed."""
    groups: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for c in checks:
        if c.verdict == NOT_APPLICABLE:
            groups[c.theorem, c.why][c.problem].add(c.heterogeneity)
    table = Table(title="Not applicable: which assumption fails", title_justify="left")
    for name in ("theorem", "problem (heterogeneity)", "why"):
        table.add_column(name)
    for (theorem, why), problems in sorted(groups.items()):
        where = "; ".join(f"{p} ({', '.join(sorted(levels))})" for p, levels in problems.items())
        table.add_row(theorem, where, why)
    return table


def tightness_table(rows: Sequence[Tightness]) -> Table:
    """The instances."""
    table = Table(title="Tightness: bound / measured on the instances", title_justify="left")
    for name in ("instance", "theorem", "metric"):
        table.add_column(name)
    for name in ("K", "R", "measured", "closed form", "bound", "ratio", "limit"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for r in rows:
        table.add_row(
            r.instance,
            r.theorem,
            r.metric.replace("_", " "),
            str(r.local_steps),
            str(r.rounds),
            number(r.measured),
            number(r.closed_form),
            number(r.bound),
            f"{r.ratio:.5g}",
            f"{r.limit:.5g}",
            _verdict(r.verdict),
        )
    return table


def slope_table(fits: Sequence[SlopeFit]) -> Table:
    """Fitted log-log slopes."""
    table = Table(title="Order: fitted log-log slopes", title_justify="left")
    table.add_column("family")
    for name in ("slope", "95% interval", "predicted"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for f in fits:
        predicted = "-" if f.predicted is None else f"{f.predicted:g} ± {f.tolerance:g}"
        table.add_row(
            f.family,
            f"{f.slope:.4f}",
            f"[{f.low:.4f}, {f.high:.4f}]",
            predicted,
            _verdict(f.verdict),
        )
    return table


def communication_table(rows: Sequence[Communication]) -> Table:
    """Rounds to eps against K, measured and as the bound needs."""
    title = "Communication: rounds until f(xbar_R) <= eps at eta = 1/L"
    table = Table(title=title, title_justify="left")
    table.add_column("problem", no_wrap=True)
    for name in ("eps", "rounds", *(f"K = {k}" for k in rows[0].local_steps), "slope in K"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for r in rows:
        measured = ["-" if math.isnan(m) else f"{m:,.0f}" for m in r.rounds]
        table.add_row(
            r.family,
            number(r.accuracy),
            "measured",
            *measured,
            f"{r.fit.slope:.3f}",
            _verdict(r.fit.verdict),
        )
        bound = [f"{math.ceil(b):,}" for b in r.bound]
        table.add_row("", "", f"{r.theorem} needs", *bound, "", "", end_section=True)
    return table


def baseline_table(rows: Sequence[BaselineRow]) -> Table:
    """Local SGD beside its convex baselines."""
    title = (
        "Baselines: exact E f(xbar) at the end, least squares with a power-law spectrum, best step"
    )
    table = Table(title=title, title_justify="left")
    for name in ("method", "shares with Local SGD"):
        table.add_column(name, no_wrap=True)
    for name in ("batch", "rounds", "gradients a node", *rows[0].loss):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        method = f"{r.method}, K = {r.local_steps}" if r.local_steps > 1 else r.method
        table.add_row(
            method,
            "-" if r.budget == "reference" else r.budget.removeprefix("equal "),
            "all" if r.batch_size is None else str(r.batch_size),
            f"{r.communications:,}",
            f"{r.gradients:,.0f}",
            *(number(value) for value in r.loss.values()),
        )
    return table


def summary_table(
    checks: Sequence[Check], tight: Sequence[Tightness], families: Sequence[Communication]
) -> Table:
    """One line a theorem: how often it held, how loose it was, and what K does to the rounds."""
    table = Table(title="In short", title_justify="left")
    table.add_column("theorem", no_wrap=True)
    table.add_column("says", no_wrap=True)
    for name in (
        "holds",
        "failed",
        "least bound/ measured",
        "median bound/ measured",
        "on its instance",
    ):
        table.add_column(name, justify="right")
    table.add_column("rounds to eps: slope in K")
    for theorem in THEOREMS:
        mine = [c for c in checks if c.theorem == theorem.name and c.verdict != NOT_APPLICABLE]
        if not mine:
            continue
        ratios = sorted(c.ratio for c in mine if not math.isnan(c.ratio)) or [math.nan]
        instances = [t for t in tight if t.theorem == theorem.name]
        # The interesting instance is the last one: I0 is tight by a single step.
        ratio = f"{instances[-1].ratio:.4g} ({instances[-1].instance})" if instances else "-"
        slopes = [f"{f.fit.slope:.2f}" for f in families if f.theorem == theorem.name]
        table.add_row(
            theorem.name,
            theorem.title,
            str(sum(c.verdict == HOLDS for c in mine)),
            str(sum(c.verdict == FAILED for c in mine)),
            number(ratios[0]),
            number(ratios[len(ratios) // 2]),
            ratio,
            ", ".join(slopes) or "-",
        )
    return table
