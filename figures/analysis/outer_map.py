"""The worst cases with a fixed outer step that are on file: maps over (eta, beta), and best pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from figures.analysis.sources import Sources
from theory.theorems.t2_synchronised import least_last_loss

OUTER_PATH = "theory/results/outer_step.json"
OUTER_COMMAND = f"python -m theory.worst_case --outer-steps --json {OUTER_PATH}"


@dataclass(frozen=True, kw_only=True)
class OuterMap:
    """The worst last iterate over (eta, beta) for one K and R, in units of L D.

    Attributes:
        local_steps, rounds: K and R.
        step_sizes: eta L, (e,), ascending.
        outer_steps: beta, (b,), ascending.
        values: (b, e); NaN where a pair is not on file.
        lower_bound: I6, which no pair gets below.
        best: the pair of the map with the least value.
    """

    local_steps: int
    rounds: int
    step_sizes: np.ndarray
    outer_steps: np.ndarray
    values: np.ndarray
    lower_bound: float
    best: tuple[float, float]


def load_outer_steps(sources: Sources) -> dict[str, Any]:
    """The record of the sweep over outer steps; raises as :meth:`Sources.read`."""
    return sources.read(OUTER_PATH, OUTER_COMMAND)


def outer_maps(record: dict[str, Any]) -> list[OuterMap]:
    """A map for every K and R of the record, in its order."""
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for point in record["maps"]:
        groups.setdefault((point["local_steps"], point["rounds"]), []).append(point)
    found = []
    for (k, rounds), points in groups.items():
        etas = np.array(sorted({p["step_size"] for p in points}))
        betas = np.array(sorted({p["outer_step"] for p in points}))
        values = np.full((len(betas), len(etas)), np.nan)
        for p in points:
            i, j = np.searchsorted(betas, p["outer_step"]), np.searchsorted(etas, p["step_size"])
            values[i, j] = p["value"]
        i, j = np.unravel_index(np.nanargmin(values), values.shape)
        found.append(
            OuterMap(
                local_steps=k,
                rounds=rounds,
                step_sizes=etas,
                outer_steps=betas,
                values=values,
                lower_bound=least_last_loss(L=1.0, D=1.0, R=rounds),
                best=(float(etas[j]), float(betas[i])),
            )
        )
    return found
