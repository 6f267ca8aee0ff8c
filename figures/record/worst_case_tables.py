"""Tables of the exact worst cases and of their certificates."""

from __future__ import annotations

from typing import Any

import numpy as np

from figures.analysis.certificates import CERTIFY_COMMAND, certified
from figures.analysis.outer_map import load_outer_steps
from figures.analysis.sources import Sources
from figures.analysis.worst_cases import (
    WORST_CASE_COMMAND,
    WORST_CASE_PATH,
    against_k,
    least_bound,
    solved_rows,
)
from figures.record.table import Table, value_text
from theory.support.verdicts import FAILED, HOLDS, beside_bounds

METRIC_NAMES = {
    "average_local": "T1, average local loss",
    "average_sync": "T2, average f(xbar_r)",
    "best": "best iterate, min f(xbar_r)",
    "last": "last iterate, f(xbar_R)",
}


def worst_cases(sources: Sources) -> Table:
    """Exact worst cases at eta = 1/L against K."""
    record = sources.read(WORST_CASE_PATH, WORST_CASE_COMMAND)
    rows = []
    for metric, name in METRIC_NAMES.items():
        for r in against_k(solved_rows(record, metric)):
            bound, source = least_bound(r) or (None, "-")
            rows.append(
                (
                    name,
                    str(r["local_steps"]),
                    str(r["rounds"]),
                    f"{value_text(r['instance'], '.6f')} ({r['instance_name']})",
                    value_text(r["worst_case"], ".6f"),
                    value_text(bound, ".6f"),
                    source,
                    value_text(None if bound is None else bound / r["worst_case"], ".3f"),
                    verdict_text(r),
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
            "of",
            "bound/worst",
            "verdict",
        ),
        rows,
        "Deterministic Local SGD over all L-smooth convex f_i with a common minimiser, any n >= 2; "
        "values in units of L D. The bound is the least that is proved: of T1 or T2, of a sharper variant "
        "(S1 to S3), or J. Kim's theorem on gradient descent (2024). "
        f"{worst_case_summary(record)}",
    )


def verdict_text(row: dict[str, Any]) -> str:
    """HOLDS only beside a bound."""
    return beside_bounds(str(row["verdict"]), row["bound"], row["sharper"])


def worst_case_summary(record: dict[str, Any]) -> str:
    """How the cells of the whole file came out."""
    rows = record["rows"]
    solved = [r for r in rows if r["worst_case"] is not None]
    gaps = [abs(r["duality_gap"]) for r in solved if r["duality_gap"] is not None]
    gap = max(gaps, default=np.nan)
    exact = [r for r in solved if r["kind"] == "exact"]
    misses = [abs(r["attained"] - r["worst_case"]) for r in exact]
    failed = sum(r["verdict"] == FAILED for r in rows)
    unbounded = [r for r in solved if least_bound(r) is None]
    routes = record["routes"]
    agree = sum(r["verdict"] == HOLDS for r in routes)
    text = (
        f"All cells of the file: {len(rows)}, FAILED: {failed}; largest certified gap {gap:.1e}; the "
        f"simulator attains the worst case on {len(misses)} explicit problems to "
        f"{max(misses, default=np.nan):.1e}; {len(solved) - len(exact)} values (T4') are upper ones"
    )
    if unbounded:
        names = ", ".join(METRIC_NAMES[m] for m in dict.fromkeys(r["metric"] for r in unbounded))
        text += f"; {len(unbounded)} ({names}) have no proved bound, and are only attained"
    return text + (f"; PEPit's route agrees on {agree} of {len(routes)}." if routes else ".")


def certificates(sources: Sources) -> Table:
    """What two rational numbers enclose, metric by metric."""
    found = certified(sources)
    order = [*METRIC_NAMES, "distance"]
    rows = [
        (
            METRIC_NAMES.get(c.metric, "T4, distance ||xbar_R - x*||^2"),
            str(c.cells),
            str(c.most),
            ", ".join(c.step_sizes),
            f"{c.widest:.1e}",
        )
        for c in sorted(found, key=lambda c: order.index(c.metric))
    ]
    growth = next((f" (mu = {c.growth} L)" for c in found if c.growth != "0"), "")
    return Table(
        "Certificates: worst cases between two rational numbers",
        ("metric", "cells", "K R up to", "eta L", "widest enclosure"),
        rows,
        f"{sum(c.cells for c in found)} certificates. Upper side: dual multipliers; lower side: a problem of "
        f"the class; both in fractions, so that no rounding and no solver is trusted. Widths in units of L D, "
        f"of D for the distance{growth}. {CERTIFY_COMMAND} makes them (those that are there are kept); "
        "make certify checks every one with the standard library alone.",
    )


def outer_steps(sources: Sources) -> Table:
    """The best pair of fixed local and outer step that was found, for every K and R."""
    names = {"last": "last iterate", "best": "best iterate"}
    rows = [
        (
            names[p["metric"]],
            str(p["local_steps"]),
            str(p["rounds"]),
            f"{p['step_size']:.3f}, {p['outer_step']:.3f}",
            f"{p['value']:.5f}",
            f"{p['plain_value']:.5f} at {p['plain_step_size']:.3f}",
            f"{p['gain']:.1%}",
            f"{p['value'] / p['lower_bound']:.2f}",
            f"{p['one_step_rounds']:.2f}",
        )
        for p in load_outer_steps(sources)["pairs"]
    ]
    return Table(
        "Fixed outer steps: the best pair found, by exact worst cases",
        (
            "metric",
            "K",
            "R",
            "eta L, beta",
            "worst case",
            "with beta = 1, at eta L",
            "gain",
            "over I6",
            "rounds of K = 1",
        ),
        rows,
        "In units of L D. Over I6: no pair of fixed steps gets below 1 (proved). Rounds of K = 1: as many, "
        "as a real number, as gradient descent at its best fixed step needs for the same value. That no "
        "other pair is better was observed, not proved.",
    )
