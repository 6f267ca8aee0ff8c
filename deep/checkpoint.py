"""Run folders that survive kill -9, a full disk and torn writes.

A checkpoint is one file: a line of JSON (version, configuration, round, metrics so far, SHA-256 of
the rest) and the averaged model's bytes. At the end of a round all nodes hold that model and every
batch is a function of (seed, node, step), so nothing else is needed to continue bit for bit.
It is written beside the old one, flushed to the disk and renamed; the one before is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep.config import OPEN_ENDED
from theory.support.errors import UserError
from theory.support.files import write_atomically
from theory.support.reading import read_bytes, read_text

VERSION = 2
CURRENT, PREVIOUS = "checkpoint.bin", "checkpoint.previous.bin"
#: All that a run's checkpoint may be called.
CHECKPOINTS = (f"{CURRENT}.next", CURRENT, PREVIOUS)


@dataclass(frozen=True)
class EnergyRecord:
    """Of an energy balance: ``edges``, the rounds after which windows start, 0 first; and the ``sums``
    of each window, those of the open one last, see `deep.engines.energy.EnergyTerms`."""

    edges: list[int]
    sums: list[list[float]]


@dataclass(frozen=True)
class Checkpoint:
    """State after ``round`` rounds: ``model`` [P], the metric rows and seconds spent so far.

    ``energy`` is None where no balance is recorded.
    """

    round: int
    model: np.ndarray
    metrics: list[dict[str, Any]]
    seconds: float
    evaluation_seconds: float
    energy: EnergyRecord | None = None


def save_checkpoint(folder: Path, config: dict[str, Any], state: Checkpoint) -> None:
    """Write ``folder``/`CURRENT`, keeping the former one as `PREVIOUS`."""
    model = np.ascontiguousarray(state.model)
    payload = model.tobytes()
    header = {
        "version": VERSION,
        "config": config,
        "round": state.round,
        "metrics": state.metrics,
        "seconds": state.seconds,
        "evaluation_seconds": state.evaluation_seconds,
        "energy": asdict(state.energy) if state.energy else None,
        "dtype": str(model.dtype),
        "length": model.size,
    }
    text = json.dumps(header).encode()
    digest = hashlib.sha256(text + payload).hexdigest().encode()
    current = folder / CURRENT
    fresh = folder / f"{CURRENT}.next"
    write_atomically(fresh, digest + b"\n" + text + b"\n" + payload)
    # Killed between the two renames, the folder holds PREVIOUS and the fresh one: loading copes.
    try:
        if current.exists():
            os.replace(current, folder / PREVIOUS)
        os.replace(fresh, current)
    except OSError as error:
        raise UserError(
            f"cannot rename the checkpoint in {folder}: {error.strerror or error}"
        ) from error


def _read(path: Path) -> tuple[dict[str, Any], Checkpoint] | None:
    """Configuration and state in a file, or None when it is absent, torn or of another version."""
    try:
        digest, text, payload = read_bytes(path).split(b"\n", 2)
        if hashlib.sha256(text + payload).hexdigest().encode() != digest:
            return None
        header = json.loads(text)
    except (OSError, ValueError):
        return None
    if header["version"] != VERSION:
        return None
    state = Checkpoint(
        header["round"],
        np.frombuffer(payload, header["dtype"]).copy(),
        header["metrics"],
        header["seconds"],
        header["evaluation_seconds"],
        EnergyRecord(**header["energy"]) if header.get("energy") else None,
    )
    return header["config"], state


def load_checkpoint(folder: Path, config: dict[str, Any]) -> Checkpoint | None:
    """The newest usable checkpoint of this configuration, or None for a fresh start.

    Raises `UserError` that names the difference when the folder belongs to another configuration.
    """
    check_same_config(folder, config)
    for name in CHECKPOINTS:
        found = _read(folder / name)
        if found is not None:
            _refuse_difference(folder, found[0], config)
            return found[1]
    return None


def set_aside_damaged(folder: Path) -> Path | None:
    """Where checkpoints exist and none is readable, move them and the metrics away; where to."""
    present = [folder / name for name in CHECKPOINTS if (folder / name).exists()]
    if not present or any(_read(path) is not None for path in present):
        return None
    number = 1
    while (aside := folder / f"damaged-{number}").exists():
        number += 1
    try:
        aside.mkdir()
        for path in (*present, folder / "metrics.jsonl", folder / "summary.json"):
            if path.exists():
                os.replace(path, aside / path.name)
    except OSError as error:
        raise UserError(
            f"cannot move the damaged files in {folder}: {error.strerror or error}"
        ) from error
    return aside


def check_same_config(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a folder whose config.json is damaged or differs from ``config``, naming what differs."""
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        stored = json.loads(read_text(path))["config"]
        keys = stored.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged: restore it, or remove that folder, or choose another --out"
        ) from error
    if keys:
        _refuse_difference(folder, stored, config)


def _refuse_difference(folder: Path, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    keys = [
        k for k in {**stored, **wanted} if k not in OPEN_ENDED and stored.get(k) != wanted.get(k)
    ]
    if keys:
        named = ", ".join(f"{k} was {stored.get(k)!r}, now {wanted.get(k)!r}" for k in keys)
        raise UserError(
            f"{folder} holds a run of another configuration ({named}): "
            "choose another --out, or remove that folder"
        )


def append_line(path: Path, line: str) -> None:
    """Append one line or, when the disk is full, nothing."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as out:
            out.write(line.encode() + b"\n")
            out.flush()
    except OSError as error:
        with suppress(OSError):
            os.truncate(path, size)
        raise UserError(f"cannot write {path}: {error.strerror}") from error
