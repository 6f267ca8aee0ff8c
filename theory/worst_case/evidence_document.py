"""The sections of theory/worst_case/findings.md on certificates and on the choice of the solver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theory.worst_case.enclosures import Enclosure
from theory.worst_case.markdown import table

#: Parts of the grid by the largest number of points in each, as of benchmarks/worst_case_solvers.py.
PARTS = (16, 25, 41, 61, 1000)


def enclosure_section(found: Sequence[Enclosure]) -> list[str]:
    """Markdown: between which rational numbers the worst cases lie; nothing without certificates."""
    if not found:
        return []
    rows = [
        [
            e.metric,
            str(e.cells),
            str(e.most),
            ", ".join(e.step_sizes),
            "" if e.growth == "0" else e.growth,
            f"{e.median:.1e}",
            f"{e.widest:.1e}",
        ]
        for e in found
    ]
    heads = ["metric", "cells", "K R up to", "eta L", "mu / L", "median width", "widest"]
    return [
        "## Certificates",
        "",
        f"{sum(e.cells for e in found)} worst cases lie between two rational numbers: multipliers above, a",
        "problem of the class below. `theory/worst_case/verify.py` checks both with the standard library",
        "alone (`make certify`). Widths are in units of L D, of D for the distance:",
        "",
        *table(heads, rows),
    ]


def solver_section(content: dict[str, Any]) -> list[str]:
    """Markdown: our interior-point method beside CLARABEL, and the rule that keeps or drops it."""
    cells = [c for c in content["cells"] if c["ours_finished"] or c["clarabel_finished"]]
    rows, least = [], 0
    for most in PARTS:
        same = [c for c in cells if least < c["points"] <= most]
        least = most
        if same:
            ours, theirs = (sum(c[name] for c in same) for name in ("ours", "clarabel"))
            more = "" if all(c["clarabel_finished"] for c in same) else "> "
            points = f"{min(c['points'] for c in same)} to {max(c['points'] for c in same)}"
            rows.append(
                [
                    points,
                    str(len(same)),
                    f"{ours:.1f}",
                    f"{more}{theirs:.1f}",
                    f"{theirs / ours:.2f}",
                ]
            )
    total = content["total"]
    kept = "stays, with CLARABEL as second route and fallback" if total["stays"] else "is to go"
    small = sum(c["ours"] for c in cells if c["points"] <= PARTS[0]) / total["ours"]
    apart = max(c["difference"] for c in cells if c["difference"] is not None)
    command, _, _ = content["command"].partition(" --json")
    times, every, limit = (f"{content[name]:g}" for name in ("required", "every", "time_limit"))
    late = f"{total['clarabel_unfinished']} cells of CLARABEL, {total['ours_unfinished']} of ours"
    sums = f"{total['ours']:.0f} s and {total['clarabel']:.0f} s, a ratio of {total['ratio']:.2f}"
    return [
        "### Which solver",
        "",
        "The rule, set before anything was measured: our interior-point method stays only if it is",
        f"{times} times faster than CLARABEL over the whole grid. Every {every}th cell by size, CPU seconds of",
        f"one thread, at most {limit} s a cell and solver (what is not finished counts with the time spent:",
        f"{late}), `{command}`:",
        "",
        *table(["points", "cells", "ours", "CLARABEL", "ratio"], rows),
        f"In all {sums}: ours {kept}.",
        f"The smallest cells, the first row, are {small:.0%} of our time. Where both finish, their values",
        f"differ by at most {apart:.0e}.",
        "",
    ]
