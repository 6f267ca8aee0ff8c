"""The worst cases on file: which cells make a curve, how the file came out, and ordinary problems."""

from __future__ import annotations

from typing import Any

import numpy as np

from figures.analysis import theory_data
from figures.analysis.sources import Sources, array

WORST_CASE_PATH = "theory/results/worst_case.json"
WORST_CASE_COMMAND = f"python -m theory.worst_case --json {WORST_CASE_PATH}"
#: Nodes of the ordinary problems.
HETEROGENEITY = "sorted"
#: K values that make a curve worth a panel.
ENOUGH = 6
Row = dict[str, Any]


def solved_rows(record: dict[str, Any], metric: str) -> list[Row]:
    """The solved cells of a metric over the whole class, one a schedule (n does not matter)."""
    cells: dict[tuple[int, int, float], Row] = {}
    for row in record["rows"]:
        if row["metric"] == metric and row["theorem"] != "T3" and row["worst_case"] is not None:
            cells[row["local_steps"], row["rounds"], row["step_size"]] = row
    return [cells[key] for key in sorted(cells)]


def least_bound(row: Row) -> tuple[float, str] | None:
    """The least proved bound of a cell and its name; None where none is known.

    T2 serves the best iterate, which is below the mean. A sharper bound that says no more than its
    theorem does not take its name.
    """
    plain, sharper = row["bound"], row["sharper"]
    if sharper is not None and (plain is None or sharper < plain * (1 - 1e-9)):
        return sharper, row["source"]
    if plain is None:
        return None
    return plain, "T2" if row["metric"] == "best" else row["theorem"]


def against_k(rows: list[Row]) -> list[Row]:
    """The cells at eta = 1/L of one R: the largest with enough K for a curve, else with the most."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        if row["step_size"] == 1.0:
            groups.setdefault(row["rounds"], []).append(row)
    if not groups:
        return []
    best = max(groups, key=lambda r: (min(len(groups[r]), ENOUGH), r))
    return sorted(groups[best], key=lambda row: row["local_steps"])


def against_step_size(rows: list[Row]) -> list[Row]:
    """The cells of the (K, R) with the most step sizes; of the largest K, then R, with K > 1."""
    groups: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["local_steps"], row["rounds"]), []).append(row)
    if not groups:
        return []
    # The most step sizes first; a middling K, as from K = 3 on little changes.
    best = max(groups, key=lambda g: (len(groups[g]), g[1], -abs(g[0] - 4)))
    return sorted(groups[best], key=lambda row: row["step_size"])


def typical_values(sources: Sources, cells: list[Row], metric: str, seeds: int) -> np.ndarray:
    """Values (cells, seeds) of ordinary problems at the cells' schedules."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, row in enumerate(cells):
        groups.setdefault((row["local_steps"], row["rounds"]), []).append(i)
    values = np.empty((len(cells), seeds))
    for (k, rounds), members in groups.items():
        data = sources.compute(
            theory_data.typical_losses,
            local_steps=k,
            rounds=rounds,
            step_factors=[cells[i]["step_size"] for i in members],
            heterogeneity=HETEROGENEITY,
            seeds=seeds,
        )
        values[members] = [array(row) for row in data[metric]]
    return values
