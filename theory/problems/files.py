"""Problems from files: one .npz or .csv with each node's samples and targets.

npz: arrays ``A0, b0, A1, b1, ...`` (node i: (m_i, d) and (m_i,)), or ``A`` (N, d), ``b`` (N,) and
``node`` (N,). csv: a header line, then ``node, target, feature, feature, ...``. Nodes may differ in size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from theory.problems.losses import (
    HARD_LOGISTIC,
    SIGMOID_REGRESSION,
    SOFT_LOGISTIC,
    SQUARED,
    MarginLoss,
)
from theory.problems.margin import MarginProblem
from theory.support.errors import UserError

Array = NDArray[np.float64]
USER_LOSSES = ("squared", "logistic", "sigmoid")


def load_problem(path: Path | str, loss: str = "squared") -> MarginProblem:
    """Read a problem.

    Args:
        path: a .npz or .csv file, laid out as above.
        loss: "squared"; "logistic" with labels -1/1 or 0/1 (separable) or strictly between 0 and 1
            (realizable); "sigmoid" with targets strictly between 0 and 1.

    Raises:
        UserError: a file that is missing or unreadable, NaN, an empty node, labels outside the range,
            targets that no x interpolates; each with one line that says what is allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}; allowed: an existing .npz or .csv file")
    if path.suffix not in (".npz", ".csv"):
        raise UserError(f"{path} has suffix {path.suffix!r}, allowed: .npz, .csv")
    if loss not in USER_LOSSES:
        raise UserError(f"loss is {loss!r}, allowed: {', '.join(USER_LOSSES)}")
    features, labels = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
    if not all(np.isfinite(block).all() for block in (*features, *labels)):
        raise UserError(f"{path} holds NaN or infinite values; every number must be finite")
    kind, targets = _targets(labels, loss)
    problem = MarginProblem(features, targets, kind, name=path.name)
    if kind is HARD_LOGISTIC and problem.margin <= 0:
        raise UserError(f"{path}: no direction separates the labels; allowed: separable data")
    return problem


def _targets(labels: list[Array], loss: str) -> tuple[MarginLoss, list[Array]]:
    """The loss and the targets it wants: margins for soft labels, signs for hard ones."""
    if loss == "squared":
        return SQUARED, labels
    everything = np.concatenate(labels)
    values = set(np.unique(everything).tolist())
    if loss == "logistic" and values <= {-1.0, 0.0, 1.0} and not {-1.0, 0.0} <= values:
        return HARD_LOGISTIC, [np.where(y > 0, 1.0, -1.0) for y in labels]
    if (everything <= 0).any() or (everything >= 1).any():
        hard = "labels -1/1, labels 0/1, or " if loss == "logistic" else ""
        raise UserError(f"targets for {loss} loss, allowed: {hard}numbers strictly between 0 and 1")
    kind = SOFT_LOGISTIC if loss == "logistic" else SIGMOID_REGRESSION
    return kind, [np.log(y) - np.log1p(-y) for y in labels]


def _read_npz(path: Path) -> tuple[list[Array], list[Array]]:
    try:
        # Plain arrays only: a pickle inside could run code.
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name], dtype=np.float64) for name in archive.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable .npz of numbers ({error})") from None
    if {"A", "b", "node"} <= set(arrays):
        return _split(arrays["A"], arrays["b"], arrays["node"], path)
    n = sum(name.startswith("A") for name in arrays)
    names = [f"{letter}{i}" for i in range(n) for letter in "Ab"]
    if n == 0 or not set(names) <= set(arrays):
        raise UserError(
            f"{path} has arrays {sorted(arrays)}, allowed: A0, b0, A1, b1, ... or A, b, node"
        )
    return [arrays[f"A{i}"] for i in range(n)], [arrays[f"b{i}"].ravel() for i in range(n)]


def _read_csv(path: Path) -> tuple[list[Array], list[Array]]:
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable .csv of numbers ({error})") from None
    if table.shape[0] < 1 or table.shape[1] < 3:
        raise UserError(f"{path} has shape {table.shape}, allowed: node, target, features a line")
    return _split(table[:, 2:], table[:, 1], table[:, 0], path)


def _split(a: Array, b: Array, node: Array, path: Path) -> tuple[list[Array], list[Array]]:
    if a.ndim != 2 or not len(a) == b.size == node.size:
        raise UserError(f"{path}: A, b and node have {a.shape}, {b.shape}, {node.shape} entries")
    if not np.isfinite(node).all() or (node < 0).any() or (node != np.round(node)).any():
        raise UserError(f"{path}: node numbers, allowed: integers from 0")
    owners = node.astype(int)
    # An owner that never appears is an empty node, which the problem refuses by name.
    groups = [np.flatnonzero(owners == i) for i in range(int(owners.max()) + 1)]
    return [a[g] for g in groups], [b.ravel()[g] for g in groups]
