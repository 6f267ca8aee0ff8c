"""The section of theory/worst_case/findings.md on fixed outer steps."""

from __future__ import annotations

from theory.worst_case.markdown import said, table
from theory.worst_case.outer_findings import outer_findings
from theory.worst_case.outer_steps import OuterSteps


def outer_section(found: OuterSteps) -> list[str]:
    """Markdown: the best pairs and the findings."""
    rows = [
        [
            str(p.local_steps),
            str(p.rounds),
            f"{p.step_size:.3f}",
            f"{p.outer_step:.3f}",
            f"{p.value:.5f}",
            f"{p.plain_step_size:.3f}",
            f"{p.plain_value:.5f}",
            f"{p.gain:.1%}",
            f"{p.floor:.5f}",
            f"{p.lower_bound:.5f}",
            f"{p.one_step_rounds / p.rounds:.3f}",
        ]
        for p in found.pairs
        if p.metric == "last"
    ]
    heads = ["K", "R", "eta L", "beta", "worst last", "eta L at beta=1", "worst last at beta=1"]
    heads += ["lower by", "I6's family", "I6", "K=1 rounds / R"]
    gaps = [p.certified - p.value for p in found.pairs]
    text = [
        "## A fixed outer step",
        "",
        "xbar_{r+1} = xbar_r + beta (mean of the nodes' models - xbar_r), beta fixed. For each K and R the pair",
        "(eta, beta) with the least worst last iterate, beside the best eta for the plain mean (beta = 1), and",
        "what no pair can go below: I6's family at its best member, and I6's closed form. A pair is the best one",
        f"that a search found; its value is certified to {max(gaps, default=0.0):.0e}.",
        "",
        "**No fixed local and outer step helps by more than a constant** (I6, proved in",
        "`theory/theorems/t2_synchronised.py`): for every eta, beta and K some problem has f(xbar_r) at least",
        "1/(4e(2R+1)) for all r <= R, while eta = 1/L and the plain mean have a best iterate of at most 1/(4R)",
        "from K = 2 on (S3): e(2 + 1/R) times that. Prior art: K. K. Patel et al. (COLT 2024), Proposition 7,",
        "the same order on the same family. How much of the constant the best pair gains is observed below;",
        "it was open as far as is known to us.",
        "",
        *table(heads, rows),
    ]
    return [*text, *(f"- {said(finding)}" for finding in outer_findings(found)), ""]
