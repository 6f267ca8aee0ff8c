"""The small JSON file that keeps a run: where it comes from, its configuration, summary, fits, rows."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deep.energy_record import read_balance
from deep.results.fits import fit_curve
from theory.support import provenance as origin
from theory.support.errors import UserError
from theory.support.files import check_folder, check_made, write_atomically

#: Rows of metrics that a result keeps, and those among them with the loss of every node.
MOST_ROWS, NODE_ROWS = 200, 25
#: Distributions and files that decide the numbers.
_PACKAGES = ("numpy", "scipy", "numba", "torch")
_CODE = (":(glob)deep/**/*.py", "benchmarks/deep_*.py")


def make_folder(path: Path) -> None:
    """Make a folder for results; `UserError` when it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror or error}") from error


def check_results(folder: Path, labels: Iterable[str]) -> None:
    """Make the folder for the result files of runs; `UserError` where they can't be written."""
    check_folder("--results", folder)
    for label in labels:
        check_made("--results", result_path(folder, label))


def result_path(folder: Path, label: str) -> Path:
    """The result file of the run with a name."""
    return folder / f"{label}.json"


def log_spaced_rows(metrics: Sequence[dict[str, Any]], most: int = MOST_ROWS) -> list[int]:
    """At most ``most`` row numbers, first and last among them, evenly spread in log iteration."""
    if len(metrics) <= most:
        return list(range(len(metrics)))
    iterations = np.array([row["iteration"] for row in metrics], float)
    grid = np.geomspace(max(iterations[1], 1.0), iterations[-1], most - 1)
    nearest = np.abs(iterations[None, :] - grid[:, None]).argmin(axis=1)
    return sorted({0, *nearest.tolist(), len(metrics) - 1})


def provenance(data_name: str) -> dict[str, Any]:
    """Head of every result file: hardware, versions, command, commit of the code, name of the data."""
    import torch

    head = origin.provenance(_PACKAGES, changed_paths=_CODE)
    if torch.cuda.is_available():
        head["hardware"]["gpu"] = torch.cuda.get_device_name()
    return {**head, "data_name": data_name}


def _finite(value: Any) -> Any:
    """The value in strict JSON's terms: None for what is not finite."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def portable(command: str) -> str:
    """The command less the folders of absolute paths, which mean nothing on another machine."""
    words = (Path(w).name if Path(w).is_absolute() else w for w in shlex.split(command))
    return shlex.join(words)


def write_result(
    path: Path, head: dict[str, Any], run_folder: Path, *, special: bool = False
) -> None:
    """The small result file of a finished run, from its run folder.

    A FIFO or a device is written to only when it may be ``special``, as where the user typed ``path``.
    The folder knows which commit and command began the run; ``head`` fills in what it lacks, so
    that repeating a command on a finished run never names a commit that did not compute it.
    """
    stored = json.loads((run_folder / "config.json").read_text())
    config, head = stored["config"], {key: stored.get(key, head[key]) for key in head}
    head["command"] = portable(head["command"])
    metrics = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run_folder / "summary.json").read_text())
    with_nodes = set(log_spaced_rows(metrics, NODE_ROWS))
    kept = [
        {k: _finite(v) for k, v in metrics[i].items() if k != "node_losses" or i in with_nodes}
        for i in sorted({*log_spaced_rows(metrics), *with_nodes})
    ]
    content = {
        **head,
        "config": config,
        "summary": {k: _finite(v) for k, v in summary.items()},
        "fits": fit_curve(metrics),
    }
    lists = {"metrics": kept}
    energy = read_balance(run_folder)
    if energy is not None and summary["status"] != "unfinished":
        content |= {"energy": {**energy, "windows": []}}
        lists["windows"] = energy["windows"]
    # One row a line keeps the file readable and its diffs small.
    text = json.dumps({**content, "metrics": []}, indent=1)
    for name, rows in lists.items():
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        text = text.replace(f'"{name}": []', f'"{name}": [\n  {lines}\n ]')
    make_folder(path.parent)
    write_atomically(path, text.encode() + b"\n", special=special)
