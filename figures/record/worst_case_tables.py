"""The table of the exact worst cases."""

from __future__ import annotations

from typing import Any

import numpy as np

from figures.analysis.sources import Sources
from figures.analysis.worst_cases import WORST_CASE_COMMAND, WORST_CASE_PATH, against_k, solved_rows
from figures.record.table import Table, value_text
from theory.verification.check import FAILED, HOLDS


def worst_cases(sources: Sources) -> Table:
    """Exact worst cases at eta = 1/L against K."""
    record = sources.read(WORST_CASE_PATH, WORST_CASE_COMMAND)
    names = {
        "average_local": "T1, average local loss",
        "average_sync": "T2, average f(xbar_r)",
        "best": "best iterate, min f(xbar_r)",
        "last": "last iterate, f(xbar_R)",
    }
    rows = []
    for metric, name in names.items():
        for r in against_k(solved_rows(record, metric)):
            rows.append(
                (
                    name,
                    str(r["local_steps"]),
                    str(r["rounds"]),
                    f"{value_text(r['instance'], '.6f')} ({r['instance_name']})",
                    value_text(r["worst_case"], ".6f"),
                    value_text(r["bound"], ".6f"),
                    value_text(r["ratio"], ".3f"),
                    r["verdict"],
                )
            )
    return Table(
        "Exact worst cases at step size 1/L",
        (
            "metric",
            "K",
            "R",
            "best known instance",
            "worst case",
            "bound",
            "bound/worst",
            "verdict",
        ),
        rows,
        "Deterministic Local SGD over all L-smooth convex f_i with a common minimiser, any n >= 2; "
        f"values in units of L D. {worst_case_summary(record)}",
    )


def worst_case_summary(record: dict[str, Any]) -> str:
    """How the cells of the whole file came out."""
    rows = record["rows"]
    solved = [r for r in rows if r["worst_case"] is not None]
    gaps = [abs(r["duality_gap"]) for r in solved if r["duality_gap"] is not None]
    gap = max(gaps, default=np.nan)
    misses = [abs(r["attained"] - r["worst_case"]) for r in solved if r["attained"] is not None]
    failed = sum(r["verdict"] == FAILED for r in rows)
    routes = record["routes"]
    agree = sum(r["verdict"] == HOLDS for r in routes)
    text = (
        f"All cells of the file: {len(rows)}, FAILED: {failed}; largest certified gap {gap:.1e}; the "
        f"simulator attains the worst case on {len(misses)} explicit problems to "
        f"{max(misses, default=np.nan):.1e}"
    )
    return text + (f"; PEPit's route agrees on {agree} of {len(routes)}." if routes else ".")
