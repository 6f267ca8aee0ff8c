"""What a run notes down for its energy balance, T9, while it does not yet know where it will end.

Its windows are those of `theory.support.energy.next_edge`. Of every window the sums of
`deep.engines.energy.EnergyTerms` are kept, and of its start the common model: with z the last model,
sum <u, x - z> = sum <u, x> - <xbar_start - xbar_end, z>, because the mean of all u is what the average moved by.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from deep.checkpoint import Checkpoint, EnergyRecord
from deep.engines.energy import EnergyTerms
from theory.support.energy import Windows, as_rows, from_rows, next_edge
from theory.support.errors import UserError
from theory.support.files import write_atomically
from theory.support.reading import read_text

#: In a run folder: the models at the edges of windows, and the balance of a run that has ended.
MODELS, BALANCE = "energy.models", "energy.json"
#: What JSON that is no balance raises, as text and as windows.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, IndexError),
    *(OverflowError, RecursionError),
)


class Recorder:
    """Keeps the record of a run, and the models at the edges in a file of its folder.

    ``folder`` is None on processes that write nothing. Raises `UserError` when the file can't be written.
    """

    def __init__(self, folder: Path | None, record: EnergyRecord | None, model: np.ndarray) -> None:
        self.path = folder / MODELS if folder else None
        no_sums: list[list[float]] = []
        if record is None:
            self.edges, self.closed, self.terms = [0], no_sums, EnergyTerms()
            self._write(model, first=True)
        else:
            self.edges, (*closed, last) = list(record.edges), record.sums
            self.closed, self.terms = [list(sums) for sums in closed], EnergyTerms(*last)

    def after(self, round_: int, model: Callable[[], np.ndarray]) -> None:
        """Close the window that ends with ``round_``, if one does; ``model`` gives the average [P]."""
        if round_ == next_edge(self.edges[-1]):
            self.edges.append(round_)
            self.closed.append(list(astuple(self.terms)))
            self.terms = EnergyTerms()
            self._write(model())

    def record(self) -> EnergyRecord:
        """The state, for a checkpoint."""
        return EnergyRecord(list(self.edges), [*self.closed, list(astuple(self.terms))])

    def _write(self, model: np.ndarray, first: bool = False) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("wb" if first else "r+b") as file:
                file.seek((len(self.edges) - 1) * model.nbytes)
                # What a killed run wrote after its last checkpoint comes again.
                file.truncate()
                file.write(model.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from error


def is_complete(folder: Path, state: Checkpoint) -> bool:
    """Whether the folder holds the model at every edge of the record of ``state``."""
    path = folder / MODELS
    return (
        state.energy is not None
        and path.exists()
        and path.stat().st_size >= len(state.energy.edges) * state.model.nbytes
    )


def windows_of(
    folder: Path, state: Checkpoint, step_size: float, local_steps: int
) -> Windows | None:
    """The balance until ``state``, with z its model; None without a complete record, or after divergence.

    An outer step beta other than 1 is counted in: see `deep.engines.energy.EnergyTerms`.
    """
    if state.energy is None or not is_complete(folder, state) or state.round == 0:
        return None
    edges, sums = list(state.energy.edges), list(state.energy.sums)
    z = state.model.astype(np.float64)
    if edges[-1] < state.round:
        edges.append(state.round)
    else:
        sums.pop()
    distance, inner_with_z = np.zeros(len(edges)), np.zeros(len(edges))
    with (folder / MODELS).open("rb") as file:
        for number in range(len(state.energy.edges)):
            model = np.frombuffer(file.read(state.model.nbytes), state.model.dtype)
            apart = model.astype(np.float64) - z
            distance[number], inner_with_z[number] = apart @ apart, apart @ z
    loss, inner, square, averaging = np.array(sums).T
    # Of the last model apart is zero: it is z.
    inner = (inner + np.diff(inner_with_z)) / step_size
    found = Windows(
        step_size,
        np.array(edges) * local_steps,
        distance,
        loss,
        inner,
        square / step_size**2,
        averaging,
    )
    finite = all(np.isfinite(part).all() for part in (distance, loss, inner, square))
    return found if finite and distance[0] > 0 else None


def write_balance(folder: Path, windows: Windows | None) -> None:
    """Keep the balance of a run that has ended in its folder; None removes an older one."""
    if windows is None:
        (folder / BALANCE).unlink(missing_ok=True)
        return
    content = {
        "reference": "the last model",
        "closing_error": float(f"{windows.closing_error:.3g}"),
        "windows": as_rows(windows),
    }
    write_atomically(folder / BALANCE, json.dumps(content).encode() + b"\n")


def read_balance(folder: Path) -> dict[str, Any] | None:
    """What `write_balance` wrote, or None where there is nothing that can be read."""
    try:
        found: dict[str, Any] = json.loads(read_text(folder / BALANCE))
        # The step size scales them only.
        from_rows(1.0, found["windows"]).at_most(1)
    except _UNREADABLE:
        return None
    return found
