"""The folder of one run: configuration, metrics, checkpoints, summary, and who may write there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deep.checkpoint import (
    CHECKPOINTS,
    Checkpoint,
    check_same_config,
    load_checkpoint,
    set_aside_damaged,
    write_atomically,
)
from deep.config import OPEN_ENDED
from deep.energy_record import BALANCE, MODELS
from deep.schedule import Row
from theory.support.errors import UserError
from theory.support.locks import is_held, lock
from theory.support.reading import read_text, require_regular

LOCK = "lock"
#: What no folder may stand in place of.
_FILES = {"config.json", "metrics.jsonl", "summary.json", LOCK, MODELS, BALANCE, *CHECKPOINTS}
#: What is read of every row and summary; one without it is damaged.
_ROW = {"round", "iteration", "train_loss", "wall_seconds", "images_per_second"}
_SUMMARY = {"status", "rounds", "iterations", "final_train_loss", "wall_seconds"}
_SUMMARY |= {"images_per_second", "evaluation_share"}


@contextmanager
def hold(folder: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Make the folder and be the one process that writes there; `UserError` when that cannot be.

    A folder of another configuration is left as it is.
    """
    check_files(folder)
    check_same_config(folder, identity)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the run folder {folder}: {error.strerror}") from error
    with lock(folder / LOCK, f"another process is at work in {folder}"):
        yield


def check_files(folder: Path) -> None:
    """Refuse a folder with something in place of a file: a FIFO could make its reader wait for ever.

    Other folders in it, as of an earlier damage or of TensorBoard, are nobody's concern.
    """
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            # A link that leads nowhere is as good as no file.
            if path.exists() and (path.name in _FILES or not path.is_dir()):
                require_regular(path)
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or folder}: {error.strerror or error}"
        ) from error


def in_use(folder: Path) -> bool:
    """Whether a process is at work there."""
    return is_held(folder / LOCK)


def checkpoint_of(
    folder: Path, identity: dict[str, Any], warn: Callable[[str], None]
) -> Checkpoint | None:
    """The checkpoint to continue from, if there is one, of a folder that is held.

    Damaged checkpoints and their metrics are moved aside, which ``warn`` is told.
    """
    state = load_checkpoint(folder, identity)
    aside = set_aside_damaged(folder)
    if aside is not None:
        warn(
            f"no checkpoint in {folder} can be read: the run starts again, its old files are in {aside}"
        )
    return state


def begin(
    folder: Path, identity: dict[str, Any], provenance: dict[str, Any] | None, metrics: list[Row]
) -> None:
    """Let config.json and metrics.jsonl of a held folder agree with a run that goes on from ``metrics``."""
    # First of all: an old summary beside the new configuration would pass for the end of this run.
    (folder / "summary.json").unlink(missing_ok=True)
    path = folder / "config.json"
    if path.exists():
        stored: dict[str, Any] = json.loads(path.read_text())
        # Of a run that goes on the end may change; its data keep the name they had.
        wanted = {k: identity[k] for k in OPEN_ENDED if k != "data_name"}
        content = {**stored, "config": stored["config"] | wanted}
    else:
        stored, content = {}, {**(provenance or {}), "config": identity}
    if content != stored:
        write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")
    # Rows that a killed run wrote after its last checkpoint come again, to the same digits.
    rewrite_metrics(folder, metrics)


def rewrite_metrics(folder: Path, metrics: list[Row]) -> None:
    """Let metrics.jsonl hold these rows."""
    text = "".join(json.dumps(row) + "\n" for row in metrics)
    write_atomically(folder / "metrics.jsonl", text.encode())


def read_config(folder: Path) -> dict[str, Any]:
    """The stored configuration; raises OSError, ValueError, KeyError or TypeError where there is none."""
    found: dict[str, Any] = json.loads(read_text(folder / "config.json"))["config"]
    return found


def read_metrics(folder: Path) -> list[Row]:
    """The rows of metrics.jsonl, as far as they can be read; none where there is no such file."""
    rows: list[Row] = []
    try:
        for line in read_text(folder / "metrics.jsonl").splitlines():
            row = json.loads(line)
            if not isinstance(row, dict) or not row.keys() >= _ROW:
                break
            rows.append(row)
    except (OSError, ValueError, RecursionError):
        pass
    return rows


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary that the folder's last call left, if it did."""
    try:
        found = json.loads(read_text(folder / "summary.json"))
        return found if isinstance(found, dict) and found.keys() >= _SUMMARY else None
    except (OSError, ValueError, RecursionError):
        return None


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write summary.json."""
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode() + b"\n")


def finished_summary(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a run that ended as this configuration wants it, or None when there is work left.

    Raises `UserError` when the folder belongs to another configuration.
    """
    if identity["engine"] == "auto":
        identity = {k: v for k, v in identity.items() if k != "engine"}
    summary = read_summary(folder)
    if summary is None or summary["status"] == "unfinished":
        return None
    try:
        stored = read_config(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if any(stored.get(k) != v for k, v in identity.items() if k != "data_name"):
        return None
    # What ended may have been damaged since.
    state = load_checkpoint(folder, stored)
    if state is None or state.round != summary["rounds"]:
        return None
    # As text, in which NaN equals NaN.
    return summary if json.dumps(state.metrics) == json.dumps(read_metrics(folder)) else None


def seconds_spent(folder: Path) -> float:
    """Seconds that all processes of the run have spent on it, as far as the folder knows."""
    summary = read_summary(folder)
    rows = read_metrics(folder)
    return max(
        summary["wall_seconds"] if summary else 0.0, rows[-1]["wall_seconds"] if rows else 0.0
    )
