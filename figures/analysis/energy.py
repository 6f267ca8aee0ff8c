"""Energy balances, T9: of deep runs that have one, and of the theory's control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from figures.analysis.deep_runs import column
from figures.analysis.ladder import LADDER, LADDER_COMMAND, Run, Rung
from figures.analysis.sources import Sources
from theory.support.energy import TOLERANCE, Array, Windows, from_rows, medians

#: Runs of the ladder and of the presets.
PLACES = (LADDER, "deep/results/*_to-loss_*.json")
CONTROL_PATH = "theory/results/energy.json"
CONTROL_COMMAND = "python -m theory.energy --json theory/results/energy.json"


@dataclass(frozen=True)
class Balance:
    """A deep run and the balance towards its last model."""

    run: Run
    windows: Windows

    @property
    def local_steps(self) -> int:
        """K."""
        return self.run.local_steps

    @property
    def late(self) -> Windows:
        """The second half of the iterations, as one window."""
        half = int(np.searchsorted(self.windows.iteration, 0.5 * self.windows.iteration[-1]))
        half = min(half, len(self.windows) - 1)
        return self.windows.joined([half, len(self.windows)])

    def measured(self, name: str) -> Array:
        """The median of a column of the metrics in every window; NaN where nothing was measured."""
        return medians(
            self.windows,
            column(self.run.result, "iteration").tolist(),
            column(self.run.result, name).tolist(),
        )


def runs_with_results(sources: Sources) -> list[Run]:
    """Every committed run of the first author's set-up, ladder and presets, in order."""
    found: dict[str, dict[str, Any]] = {}
    for place in PLACES:
        if sources.match(place):
            found |= sources.read_all(place, LADDER_COMMAND)
    runs = [Run(PurePath(path).stem, result) for path, result in found.items() if _new(result)]
    return sorted(runs, key=lambda run: run.place)


def _new(result: dict[str, Any]) -> bool:
    """Results of before the first author's set-up lack its options."""
    return {"norm_affine", "pixels", "batches", "shards_per_node"} <= result["config"].keys()


def balances(runs: Sequence[Run]) -> list[Balance]:
    """Of the runs that ended and whose balance closes: the others say nothing."""
    found = []
    for run in runs:
        energy = run.result.get("energy")
        if energy is None or run.summary["status"] not in ("reached", "round_limit"):
            continue
        windows = from_rows(run.config["step_size"], energy["windows"])
        if windows.closing_error <= TOLERANCE:
            found.append(Balance(run, windows))
    return found


def shown(found: Sequence[Balance]) -> list[Balance]:
    """Plain runs of seed 0 on the rung with the most balances; the larger rung of two as many."""
    plain = [b for b in found if b.run.is_plain and not b.run.seed]
    rungs = [b.run.rung for b in plain]
    chosen: Rung | None = max(sorted(set(rungs), reverse=True), key=rungs.count, default=None)
    return [b for b in plain if b.run.rung == chosen]


@dataclass(frozen=True)
class Control:
    """A cell of the theory's control: problem and nodes, K, phi, balance."""

    label: str
    local_steps: int
    phi: float
    windows: Windows


def control(sources: Sources) -> list[Control]:
    """The theory's control, in the file's order.

    Raises:
        MissingResult: it is not there.
    """
    cells = sources.read(CONTROL_PATH, CONTROL_COMMAND)["cells"]
    return [
        Control(
            f"{cell['problem']}, {cell['heterogeneity']}",
            cell["local_steps"],
            cell["phi"],
            from_rows(cell["step_size"], cell["windows"]),
        )
        for cell in cells
    ]
