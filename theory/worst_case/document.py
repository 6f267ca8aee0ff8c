"""theory/worst_case/findings.md, generated: a template around the numbers of the result files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theory.worst_case.closed_forms import crossing_limit
from theory.worst_case.enclosures import Enclosure
from theory.worst_case.evidence_document import enclosure_section, solver_section
from theory.worst_case.many_local_steps import KINK_POLYNOMIAL, kink
from theory.worst_case.markdown import said, table
from theory.worst_case.outer_document import outer_section
from theory.worst_case.outer_steps import OuterSteps
from theory.worst_case.record import Record, solved
from theory.worst_case.rows import EXACT, FAILED, TIME_LIMIT
from theory.worst_case.statements import PROVED, Finding

COMMAND = "python -m theory.worst_case --write-findings theory/worst_case/findings.md"


def document(
    record: Record,
    outer: OuterSteps | None,
    enclosures: Sequence[Enclosure] = (),
    solvers: dict[str, Any] | None = None,
) -> str:
    """The page, Markdown.

    Args:
        record: the standard grid's.
        outer: the sweep over outer steps; without it the page has no section on them.
        enclosures: what the certificates say; none, no section.
        solvers: what benchmarks/worst_case_solvers.py wrote; None, no section.
    """
    sections = [
        _head(record),
        _last_iterate(record),
        _many_local_steps(record),
        _users(record),
        [] if outer is None else outer_section(outer),
        _theorems(record),
        _all_findings(record.findings),
        enclosure_section(enclosures),
        _cost(record),
        [] if solvers is None else solver_section(solvers),
    ]
    return "\n".join(line for section in sections for line in section).rstrip() + "\n"


def pick(
    findings: Sequence[Finding], key: str, about: str | None = None, rounds: int | None = None
) -> Finding | None:
    """The finding of a key (of a theorem, or of an R), or None."""
    for finding in findings:
        at = finding.where.rounds if finding.where else None
        if finding.key == key and about in (None, finding.about) and rounds in (None, at):
            return finding
    return None


def _items(findings: Sequence[Finding], *wanted: tuple[str, str | None]) -> list[str]:
    """A bullet for each finding that there is: its standing, its sentence, what the cells say."""
    found = [f for f in (pick(findings, key, about) for key, about in wanted) if f is not None]
    return [*(f"- {said(finding)}" for finding in found), ""]


def _head(record: Record) -> list[str]:
    rows = solved(record.rows)
    gap = max(abs(r.duality_gap or 0.0) for r in rows)
    exact = [r for r in rows if r.kind == EXACT]
    miss = max(abs((r.attained or 0.0) - (r.worst_case or 0.0)) for r in exact)
    upper = [r for r in rows if r.kind != EXACT]
    late = [r for r in record.rows if r.verdict == TIME_LIMIT]
    failed = sum(r.verdict == FAILED for r in record.rows)
    text = [
        "# Exact worst cases of Local SGD under interpolation",
        "",
        f"<!-- Generated from theory/results by `{COMMAND}`; edit theory/worst_case/document.py. -->",
        "",
        "`python -m theory.worst_case` computes, for deterministic Local SGD, the exact worst value of a",
        "metric over *all* problems with convex L-smooth f_i and a common minimiser. Values are in units of",
        "L D, D = ||x_0 - x*||^2, step sizes in 1/L. The statements are this project's own, not those of the",
        "paper that it examines. *Proved* has a proof in the repository or a reference; *conjectured* is",
        "agreement in the cells named, no more; *observed* is a number without a claim.",
        "",
        "## How",
        "",
        "The problem is a performance-estimation problem. Averaging over permutations of the nodes reduces it",
        "to two Gram matrices over K R + 1 points, whatever n >= 2 is, for any fixed outer step (proof in",
        "`theory/worst_case/reduction.py`): the worst case is the same for all n >= 2, and is that of *one*",
        "function whose gradient descent is projected on a subspace every K steps. What backs a number:",
        "",
        f"- a dual certificate; the largest duality gap over {len(rows)} cells is {gap:.0e};",
        "- the Gram matrices are turned into an explicit problem, which the simulator runs: it attains the",
        f"  value to {miss:.0e} in {len(exact)} cells, called exact;",
    ]
    if upper:
        open_ = pick(record.findings, "growth_of_mean.open")
        most = f", at most {open_.value:.1e} above a known problem" if open_ else ""
        text.append(
            f"- {len(upper)} cells of T4' are called upper: growth of the mean can be imposed only as far as"
            f" the\n  iterates show it, and no known problem attains the value{most};"
        )
    pairs = [r for r in record.routes if r.difference is not None]
    if pairs:
        apart = max(r.difference or 0.0 for r in pairs)
        nodes = ", ".join(str(n) for n in sorted({r.n for r in pairs}))
        text.append(
            f"- PEPit over all n nodes, with another solver, agrees to {apart:.0e} ({len(pairs)} problems, "
            f"n = {nodes})."
        )
    text += ["", f"{failed} cells FAILED."]
    if late:
        names = sorted({f"K={r.local_steps} R={r.rounds}" for r in late})
        text.append(
            f"{len(late)} were not solved within {record.time_limit:g} s and have no number: "
            f"{', '.join(names)}, some metrics."
        )
    return [*text, ""]


def _last_iterate(record: Record) -> list[str]:
    last = {
        (r.local_steps, r.rounds): r.worst_case
        for r in solved(record.rows)
        if r.metric == "last" and r.step_size == 1
    }
    ks, rounds = sorted({k for k, _ in last}), sorted({r for _, r in last})
    limits = {row.rounds: row.last for row in record.limits}
    rows = []
    for r in rounds:
        values = [last.get((k, r)) for k in ks]
        cells = ["" if value is None else f"{value:.5f}" for value in values]
        limit = f"{limits[r]:.5f}" if r in limits else ""
        rows.append([str(r), *cells, f"{crossing_limit(r):.5f}", limit])
    heads = ["R", *(f"K={k}" for k in ks), "I1", "K=∞ (at most)"]
    powers = len(KINK_POLYNOMIAL) - 1
    terms = [
        f"{'-' if c < 0 else '+'} {abs(c)}" + (f" v^{powers - i}" if i < powers - 1 else " v")
        for i, c in enumerate(KINK_POLYNOMIAL[:-1])
    ]
    constant = KINK_POLYNOMIAL[-1]
    polynomial = " ".join([*terms, f"{'-' if constant < 0 else '+'} {abs(constant)}"]).lstrip("+ ")
    text = ["## C1, the last iterate at eta = 1/L", "", *table(heads, rows)]
    text += [
        "I1 is the two-dimensional quadratic instance at its best s, at most L D/(2e(2R+1)) (1 + O(1/R)).",
        "K=∞ is an upper value, see below.",
        "",
    ]
    text += _items(
        record.findings,
        ("last.one_step", None),
        ("last.two_steps", None),
        ("routes", None),
        ("last.three_steps", None),
        ("last.one_round", None),
        ("last.few_percent", None),
        ("last.over_i1.least", None),
        ("last.eighth", None),
        ("best.quarter", None),
        ("best.is_last", None),
    )
    text += [
        f"The value of the kink is {kink()[0]:.7f}, reached by one explicit problem for every K >= 2",
        f"(`kink_problem`), a root of {polynomial}",
        "(an integer relation found at 240 digits).",
        "",
        "Does it ever rise with K? The conjecture was that it never does from K = 3 on.",
        "",
    ]
    rising = []
    for r in rounds:
        best, rise = (
            pick(record.findings, key, rounds=r) for key in ("last.best_k", "last.never_rises")
        )
        if best and rise and rise.where:
            rising.append(
                [
                    str(r),
                    f"{best.value:.0f}",
                    str(rise.where.local_steps),
                    f"{rise.value:.2%}",
                    "agrees" if rise.agrees else "refuted",
                ]
            )
    heads = ["R", "least at K", "largest K solved", "above the least there", "conjecture"]
    return [*text, *table(heads, rising)]


def _many_local_steps(record: Record) -> list[str]:
    rows = [
        [
            str(r.rounds),
            f"{r.last:.5f}",
            f"{r.best:.5f}",
            f"{r.one_step:.5f}",
            f"{r.last / r.one_step:.3f}",
            f"{r.best / r.one_step:.3f}",
        ]
        for r in record.limits
    ]
    heads = ["R", "last", "best", "K=1", "last / K=1", "best / K=1"]
    spirals = [
        f"- a spiral of {s.hops} hops, simulated with K = {s.local_steps}: {s.value:.5f}; its limit is "
        f"{s.limit:.5f}"
        for s in record.spirals
    ]
    one_round = pick(record.findings, "limit.one_round")
    return [
        "### K to infinity",
        "",
        "In the limit every node minimises its f_i exactly. Upper values over all problems (for any",
        "eta <= 1/L):",
        "",
        *table(heads, rows),
        "For one round L D/8 is the exact limit: from above by S2, from below by a spiral of ever slower",
        "valleys, whose gap closes as 1/log K (`theory/worst_case/many_local_steps.py`).",
        *(
            [f"The solver's value differs from it by {abs(one_round.value):.0e}."]
            if one_round
            else []
        ),
        "For R >= 2, whether a problem attains the value is open.",
        "",
        *spirals,
        "",
        *_items(record.findings, ("limit.last", None), ("limit.best", None)),
    ]


def _users(record: Record) -> list[str]:
    steps = [
        [
            str(t.local_steps),
            str(t.rounds),
            f"{t.step_size:.3f}",
            f"{t.value:.5f}",
            f"{t.one_step_rounds / t.rounds:.3f}",
        ]
        for t in record.tuned
    ]
    heads = ["K", "R", "eta L", "worst last", "K=1 rounds / R"]
    return [
        "## What it means for users",
        "",
        "Rounds are counted as real numbers here: that of K = 1 whose closed form gives the same value.",
        "",
        *_items(
            record.findings,
            ("saved.limit", None),
            ("saved.most", None),
            ("saved.least", None),
            ("saved.tuned", None),
        ),
        "Each K at its own best step size, between neighbours on the grid:",
        "",
        *table(heads, steps),
    ]


def _theorems(record: Record) -> list[str]:
    rows = []
    for name in ("T1", "T2", "T3", "T4", "T4'"):
        least, most = (pick(record.findings, f"slack.{end}", name) for end in ("least", "most"))
        if least and most:
            rows.append([name, f"{least.value:.4f}", f"{most.value:.3f}", str(most.cells)])
    return [
        "## The other theorems: how much slack",
        "",
        *table(["theorem", "bound / worst, least", "most", "cells"], rows),
        "T3 is meant with c = 1 (all f_i equal). Sharper bounds, with their proofs in the theorem's file in",
        "`theory/theorems/`:",
        "",
        *_items(
            record.findings,
            ("mean_of_losses", "T1"),
            ("mean_of_losses", "T3"),
            ("sync.one_step", None),
            ("sharper.least", "T2"),
            ("sharper.most", "T2"),
            ("sharper.least", "S5"),
            ("sharper.most", "S5"),
            ("growth_of_mean.exact", None),
            ("growth_of_mean.open", None),
        ),
    ]


def _all_findings(findings: Sequence[Finding]) -> list[str]:
    proved = sum(f.standing == PROVED for f in findings)
    refuted = [f for f in findings if f.agrees is False]
    return [
        f"{len(findings)} findings, {proved} of them proved, {len(refuted)} refuted; all are in",
        "`theory/results/worst_case.json`.",
        "",
    ]


def _cost(record: Record) -> list[str]:
    routes = [
        [
            str(r.n),
            str(r.local_steps),
            str(r.rounds),
            f"{r.step_size:g}",
            f"{r.outer_step:g}",
            r.metric,
            f"{r.pepit_seconds:.1f}",
            f"{r.reduced_seconds:.1f}",
            "-" if r.difference is None else f"{r.difference:.0e}",
        ]
        for r in record.routes
    ]
    heads = ["n", "K", "R", "eta L", "beta", "metric", "PEPit, s", "reduced, s", "difference"]
    return [
        "## Cost",
        "",
        "The reduced problem costs the same for every n >= 2; PEPit with CLARABEL over all nodes grows with n:",
        "",
        *table(heads, routes),
    ]
