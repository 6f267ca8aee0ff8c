"""Tables of the comparison: rounds to accuracy, and ends of equal budgets."""

from __future__ import annotations

import math
from typing import Any

from figures.analysis.sources import Sources
from figures.record.table import Table, is_finite, number_text
from theory.verification.tables import whole

BASELINES_PATH = "theory/results/baselines.json"
BASELINES_COMMAND = f"python -m theory.baselines --json {BASELINES_PATH}"


def _about(record: dict[str, Any]) -> str:
    """What was compared on, for the note of a table."""
    first = record["problems"][0]
    return (
        f"{first['name']}, n = {first['n_nodes']}, {first['n_samples'] // first['n_nodes']} samples a node, "
        f"d = {first['dimension']}; K = {record['local_steps']}, one sample a step, {record['seeds']} paths; "
        f"steps: {', '.join(f'{f:g}' for f in record['step_factors'])} times each method's own."
    )


def rounds_to_eps(sources: Sources) -> Table:
    """A row a method: rounds to accuracy for every likeness of the nodes, and what theory promises."""
    record = sources.read(BASELINES_PATH, BASELINES_COMMAND)
    levels = [p["heterogeneity"] for p in record["problems"]]
    rows = []
    for same in zip(*(record["rounds_to_eps"][level] for level in levels), strict=True):
        bounds = [_whole(row["bound"]) for row in same]
        named = {row["theorem"] for row in same if row["theorem"]}
        rows.append(
            (
                same[0]["method"],
                *(_rounds(row) for row in same),
                *(_whole(row["communications"]) for row in same),
                " / ".join(bounds) + f" ({', '.join(sorted(named))})" if named else "-",
            )
        )
    return Table(
        f"FedAvg as it is run, and its rivals: rounds until f(xbar_r) <= {record['eps']:g}, each at its best step",
        (
            "method",
            *(f"rounds, {level}" for level in levels),
            *(f"vectors a node sends, {level}" for level in levels),
            f"bound, {' / '.join(levels)}",
        ),
        rows,
        f"{_about(record)} Fixed outer step: the best of "
        f"{', '.join(f'{b:g}' for b in record['fixed_outer_steps'])}. In brackets 5% to 95% of the "
        "paths. SCAFFOLD sends two vectors a round. Bound: the "
        "fewest rounds that a theorem promises at step 1/L. Under interpolation there is no bias for "
        "SCAFFOLD to remove: its variates vanish at x*. Accelerated gradient descent is min-max optimal where "
        "the nodes share their optima (Patel et al., COLT 2024, Theorem 11, as our notes have it). "
        f"Made by {BASELINES_COMMAND}.",
    )


def equal_budgets(sources: Sources) -> Table:
    """A row a method and budget: where it ends."""
    record = sources.read(BASELINES_PATH, BASELINES_COMMAND)
    levels = [p["heterogeneity"] for p in record["problems"]]
    rows = [
        (
            f"{r['method']}, K = {r['local_steps']}" if r["local_steps"] > 1 else r["method"],
            r["budget"],
            "all" if r["batch_size"] is None else str(r["batch_size"]),
            f"{r['communications']:,}",
            f"{r['gradients']:,.0f}",
            *(_loss(r, level) for level in levels),
        )
        for r in record["equal_budgets"]
    ]
    return Table(
        f"Local SGD and its rivals at equal budgets, R = {record['rounds']}: E f(xbar) at the end",
        ("method", "shares", "batch", "vectors a node sends", "gradients a node", *levels),
        rows,
        f"{_about(record)} Exact, or the mean over paths with its 95% interval. FedProx: the best of the "
        f"strengths {', '.join(f'{s:g}' for s in record['prox_strengths'])} L.",
    )


def _whole(value: Any) -> str:
    return whole(value, below=math.inf) if is_finite(value) else "-"


def _rounds(row: dict[str, Any]) -> str:
    if not is_finite(row["rounds"]):
        return "not reached"
    return f"{_whole(row['rounds'])} [{_whole(row['low'])}, {_whole(row['high'])}]"


def _loss(row: dict[str, Any], level: str) -> str:
    low, value, high = (row[name].get(level) for name in ("low", "loss", "high"))
    if low == high:
        return number_text(value)
    return f"{number_text(value)} [{number_text(low)}, {number_text(high)}]"
