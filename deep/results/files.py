"""Fits of a training curve against O(1/T), and the small JSON file that keeps a run.

``inverse_loss_vs_iterations``: 1/loss = a + b T by least squares over all rows. Were the loss
C/(T + T0) exactly, r2 would be 1. ``loglog_slope``: log loss = a + s log T over the late phase, the
last three quarters of the iterations; O(1/T) is s = -1. Neighbouring rows of a curve are
correlated, so the 95% intervals come from a jackknife over contiguous blocks, not from the
residuals.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from theory.support.errors import UserError
from theory.support.files import write_atomically

#: The late phase starts at this share of the run's iterations.
LATE = 0.25
BLOCKS = 10
MOST_ROWS = 200


def make_folder(path: Path) -> None:
    """Make a folder for results; `UserError` when it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror or error}") from error


def log_spaced_rows(metrics: Sequence[dict[str, Any]], most: int = MOST_ROWS) -> list[int]:
    """At most ``most`` row numbers, first and last among them, evenly spread in log iteration."""
    if len(metrics) <= most:
        return list(range(len(metrics)))
    iterations = np.array([row["iteration"] for row in metrics], float)
    grid = np.geomspace(max(iterations[1], 1.0), iterations[-1], most - 1)
    nearest = np.abs(iterations[None, :] - grid[:, None]).argmin(axis=1)
    return sorted({0, *nearest.tolist(), len(metrics) - 1})


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and r2 of the least-squares line."""
    dx, dy = x - x.mean(), y - y.mean()
    spread, total = float(dx @ dx), float(dy @ dy)
    slope = float(dx @ dy) / spread
    return slope, slope * float(dx @ dy) / total if total > 0 else 1.0


def slope_with_interval(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Slope, its 95% interval by a delete-one-block jackknife, and r2; None with too few rows."""
    if len(x) < 2 * BLOCKS or np.ptp(x) == 0:
        return {"slope": None, "interval": None, "r2": None}
    slope, r2 = _line(x, y)
    blocks = np.array_split(np.arange(len(x)), BLOCKS)
    left_out = np.array([_line(np.delete(x, b), np.delete(y, b))[0] for b in blocks])
    error = math.sqrt((BLOCKS - 1) / BLOCKS * float(((left_out - left_out.mean()) ** 2).sum()))
    reach = float(stats.t.ppf(0.975, BLOCKS - 1)) * error
    return {"slope": slope, "interval": [slope - reach, slope + reach], "r2": r2}


def fit_curve(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Both fits of a run's rows; rows with a loss that is not finite and positive are left out."""
    usable = [
        row
        for row in metrics
        if row["iteration"] > 0
        and row["train_loss"] is not None
        and math.isfinite(row["train_loss"])
        and row["train_loss"] > 0
    ]
    iterations = np.array([row["iteration"] for row in usable], float)
    loss = np.array([row["train_loss"] for row in usable], float)
    late = iterations >= LATE * (iterations[-1] if len(usable) else 0.0)
    log_fit = slope_with_interval(np.log(iterations[late]), np.log(loss[late]))
    return {
        "inverse_loss_vs_iterations": slope_with_interval(iterations, 1.0 / loss),
        "loglog_slope": {
            "slope": log_fit["slope"],
            "interval": log_fit["interval"],
            "r2": log_fit["r2"],
            "from_iteration": int(iterations[late][0]) if late.any() else None,
        },
    }


def git_commit() -> str:
    """Commit of the checkout this package lies in, or "unknown".

    "+changes" follows when the code of deep/ or its benchmarks is not what was committed.
    """
    top = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(top), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", ":(glob)deep/**/*.py", "benchmarks/deep_*.py")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance(command: str, data_name: str) -> dict[str, Any]:
    """Head of every result file: hardware, versions, command, commit, data."""
    import numba
    import torch

    hardware: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count()}
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
    return {
        "hardware": hardware,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
            "torch": torch.__version__,
        },
        "command": command,
        "commit": git_commit(),
        "data_name": data_name,
    }


def command_line() -> str:
    """The command as it was typed, less the interpreter's path."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    head = ["python", "-m", spec.name] if spec else ["python", sys.argv[0]]
    return shlex.join([*head, *sys.argv[1:]])


def write_result(path: Path, head: dict[str, Any], run_folder: Path) -> None:
    """The small result file of a finished run, from its run folder.

    The folder knows which commit and command began the run; ``head`` fills in what it lacks, so
    that repeating a command on a finished run never names a commit that did not compute it.
    """
    stored = json.loads((run_folder / "config.json").read_text())
    config, head = stored["config"], {key: stored.get(key, head[key]) for key in head}
    metrics = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run_folder / "summary.json").read_text())
    kept = [
        {
            k: (None if isinstance(v, float) and not math.isfinite(v) else v)
            for k, v in metrics[i].items()
        }
        for i in log_spaced_rows(metrics)
    ]
    content = {
        **head,
        "config": config,
        "summary": summary,
        "fits": fit_curve(metrics),
        "metrics": kept,
    }
    # One row of metrics a line keeps the file readable and its diffs small.
    rows = ",\n  ".join(json.dumps(row) for row in kept)
    text = json.dumps({**content, "metrics": []}, indent=1)
    make_folder(path.parent)
    write_atomically(
        path, text.replace('"metrics": []', f'"metrics": [\n  {rows}\n ]').encode() + b"\n"
    )
