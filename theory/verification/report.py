"""Everything that one call of the command finds, and its JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from theory.problems.margin import MarginProblem
from theory.support.provenance import provenance
from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE, UNDECIDED
from theory.verification.check import Check
from theory.verification.clients_and_servers import (
    RoundsTo,
    against_clients,
    against_outer_step,
    families,
)
from theory.verification.communication import (
    Communication,
    communication,
    typical_communication,
)
from theory.verification.other_steps import s1_at_other_steps, t6_without_s8
from theory.verification.slopes import (
    UNDERCUT_READING,
    SlopeFit,
    instance_slopes,
    power_law_order,
    power_law_slope,
)
from theory.verification.summary import (
    SharperSummary,
    TheoremSummary,
    compare_sharper,
    summarise,
)
from theory.verification.sweep import LEVELS, PROBLEMS, Sweep, cells, run_sweep
from theory.verification.tightness import Tightness, tightness_table

# What says where a theorem does not apply, and why.
_PLACE = ("theorem", "problem", "heterogeneity", "gradient", "local_steps", "why")


@dataclass
class Report:
    """What was found; what a call does not ask for is empty.

    ``at_steps`` (by eta in units of 1/L) and ``without_s8`` are beside ``checks`` for the sharper variants.
    """

    sweep: Sweep
    checks: list[Check]
    tightness: list[Tightness] = field(default_factory=list)
    slopes: list[SlopeFit] = field(default_factory=list)
    communication: list[Communication] = field(default_factory=list)
    clients: list[RoundsTo] = field(default_factory=list)
    outer_steps: list[RoundsTo] = field(default_factory=list)
    at_steps: Mapping[float, list[Check]] = field(default_factory=dict)
    without_s8: list[Check] = field(default_factory=list)

    @property
    def summary(self) -> list[TheoremSummary]:
        """The checks by theorem."""
        return summarise(self.checks)

    @property
    def sharper(self) -> list[SharperSummary]:
        """Theorems beside their sharper variants."""
        if self.sweep.step_factors:
            # All at one step size are compared with one another, whatever else was asked for.
            at: dict[float, list[Check]] = {}
            todo = cells(self.sweep)
            each = len(self.checks) // max(1, len(todo))
            for i, cell in enumerate(todo):
                assert cell.step_factor is not None
                at.setdefault(cell.step_factor, []).extend(self.checks[i * each : (i + 1) * each])
            return compare_sharper([], at)
        return compare_sharper(self.checks, self.at_steps, self.without_s8)

    def count(self, verdict: str) -> int:
        """How many verdicts of all kinds are this one."""
        found = [c.verdict for c in self.checks] + [t.verdict for t in self.tightness]
        found += [s.verdict for s in self.slopes] + [c.fit.verdict for c in self.communication]
        found += [r.verdict for r in (*self.clients, *self.outer_steps)]
        found += [c.verdict for mine in (*self.at_steps.values(), self.without_s8) for c in mine]
        return found.count(verdict)

    @property
    def decided(self) -> bool:
        """Whether any check came to HOLDS or FAILED."""
        return any(c.verdict in (HOLDS, FAILED) for c in self.checks)


def make_report(
    sweep: Sweep,
    *,
    workers: int = 1,
    quick: bool = False,
    report: Callable[[int, int], None] | None = None,
) -> Report:
    """The sweep; and, if it is about all problems and breaks nothing, what else its theorems have.

    That is instances, orders, and communication of the theorems chosen: rounds to accuracy against local
    steps, clients (T7) and outer steps (T8a); and S1 and S8 beside what they sharpen.

    Args:
        sweep: what to check.
        workers: joblib workers for the sweep.
        quick: smaller and fewer families.
        report: called with (cells done, cells).

    Raises:
        UserError: an option outside its range.
    """
    found = Report(sweep, run_sweep(sweep, workers=workers, report=report))
    if sweep.violation is not None or sweep.data or sweep.problems != PROBLEMS:
        return found
    chosen = set(sweep.theorems)
    largest = 2_000 if quick else 10_000
    found.tightness = [
        t for t in tightness_table(sweep.local_steps, largest) if t.theorem in chosen
    ]
    found.slopes = instance_slopes(largest, points=7 if quick else 13)
    found.slopes.append(power_law_order(100, 2.0))
    found.communication = communication(rounds=200 if quick else 1000)
    if not quick:
        if not sweep.step_factors:
            found.at_steps = s1_at_other_steps(sweep, workers=workers)
            found.without_s8 = t6_without_s8(sweep)
        found.slopes.append(power_law_order(60, 3.0))
        found.slopes += [power_law_slope(decay) for decay in (0.5, 1.0, 2.0)]
        found.communication += [typical_communication(level) for level in LEVELS]
    found.slopes = [s for s in found.slopes if s.theorem in chosen]
    found.communication = [c for c in found.communication if c.theorem in chosen]
    shared = families(200, typical=not quick) if chosen & {"T7", "T8a"} else []
    for problem, eps in shared:
        if "T7" in chosen:
            found.clients += against_clients(problem, eps)
        if "T8a" in chosen:
            found.outer_steps += against_outer_step(problem, eps)
    return found


def digest(problem: MarginProblem) -> str:
    """The sizes and constants of a problem, for its owner to recognise it by.

    Also what it lacks: constants that double precision can't decide, and the best attainable loss where
    it is not 0.
    """
    sizes = problem.node_sizes
    each = str(sizes[0]) if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
    lines = [
        f"{problem.name}: n = {problem.n_nodes} nodes, N = {problem.n_samples:,} samples ({each} a "
        f"node), d = {problem.dimension:,}, rank {problem.rank}, {problem.loss.name} loss",
        f"L = {problem.smoothness:.4g}, c = {problem.similarity:.4g}, mu = {problem.local_growth:.4g} "
        f"(every node), {problem.global_growth:.4g} (their mean), rho = {problem.strong_growth:.4g}, "
        f"D = {problem.initial_distance:.4g}",
    ]
    if not problem.loss.attained:
        lines[1] = f"L = {problem.smoothness:.4g}, margin = {problem.margin:.4g}"
        if problem.least_loss > 0:
            lines.append(
                f"no direction separates the labels: the best attainable loss is "
                f"{problem.least_loss:.4g}, and the theorems need 0"
            )
    lines += [f"{name} {doubt}" for name, doubt in problem.doubts.items()]
    return "\n".join(lines)


def as_json(found: Report) -> dict[str, Any]:
    """Everything, with hardware, versions, command and commit first."""
    names = ", ".join(Path(path).name for path in found.sweep.data)
    return {
        **provenance(),
        "data_name": names or "synthetic problems, seeds in sweep",
        "failed": found.count(FAILED),
        "undecided": found.count(UNDECIDED),
        "sweep": asdict(found.sweep),
        "summary": [asdict(s) for s in found.summary],
        "sharper": [asdict(s) for s in found.sharper],
        "checks": [asdict(c) for c in found.checks if c.verdict != NOT_APPLICABLE],
        "not_applicable": [
            {name: getattr(c, name) for name in _PLACE}
            for c in found.checks
            if c.verdict == NOT_APPLICABLE
        ],
        "at_steps": [
            {"step_factor": factor, **asdict(c)}
            for factor, mine in found.at_steps.items()
            for c in mine
        ],
        "without_s8": [asdict(c) for c in found.without_s8],
        "tightness": [asdict(t) for t in found.tightness],
        "slopes": [
            {**asdict(s), "verdict": s.verdict, "undercut": s.undercut} for s in found.slopes
        ],
        "undercut_reading": UNDERCUT_READING,
        "communication": [{**asdict(c), "verdict": c.fit.verdict} for c in found.communication],
        "clients": [asdict(r) for r in found.clients],
        "outer_steps": [asdict(r) for r in found.outer_steps],
    }


def as_csv(checks: list[Check]) -> str:
    """The checks, a line each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Check)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(c) for c in checks)
    return text.getvalue()
