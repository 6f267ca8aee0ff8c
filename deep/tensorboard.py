"""Optional TensorBoard log of a run; imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from theory.support.errors import UserError


def open_log(folder: Path, local_steps: int) -> Callable[[dict[str, Any]], None]:
    """A function that logs one row of metrics under ``folder``/tensorboard, against iterations.

    Raises `UserError` when TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--tensorboard needs the package tensorboard (pip install tensorboard); "
            "metrics.jsonl holds the same numbers"
        ) from error
    opened: list[Any] = []

    def log(row: dict[str, Any]) -> None:
        # Opened with the first row: a folder that the run refuses must stay as it is.
        if not opened:
            opened.append(SummaryWriter(str(folder / "tensorboard")))
        writer = opened[0]
        for key in ("train_loss", "consensus_distance", "gradient_norm", "images_per_second"):
            if row[key] is not None:
                writer.add_scalar(key, row[key], row["iteration"])
        writer.flush()

    return log
