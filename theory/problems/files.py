"""Problems from files: one .npz or .csv with each node's samples and targets.

npz: arrays ``A0, b0, A1, b1, ...`` (node i: (m_i, d) and (m_i,)), or ``A`` (N, d), ``b`` (N,) and
``node`` (N,); and ``start`` (d,), x_0, where it is not 0. csv: a header line with the columns ``node``
and ``target``; every other column is a feature, in the order of the file. A nameless column that counts
the lines, as pandas writes it, is left out. Nodes may differ in size; they are numbered from 0.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO

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
from theory.support import memory
from theory.support.errors import UserError
from theory.support.reading import require_regular

Array = NDArray[np.float64]
USER_LOSSES = ("squared", "logistic", "sigmoid")
SUFFIXES = (".npz", ".csv")
LAYOUT = "A0, b0, A1, b1, ... or A, b, node; start"
# Copies of the samples that reading, checking and factoring them takes.
_COPIES = 4
# A number in a .csv takes at least two characters, with its comma.
_LEAST_CHARACTERS = 2


def load_problem(path: Path | str, loss: str = "squared") -> MarginProblem:
    """Read a problem.

    Labels that no direction separates are read, too: the problem's ``least_loss`` then says how far the
    assumption fails, and the theorems that need it say NOT APPLICABLE.

    Args:
        path: a .npz or .csv file, laid out as above.
        loss: "squared"; "logistic" with labels -1/1 or 0/1 (hard) or strictly between 0 and 1
            (realizable); "sigmoid" with targets strictly between 0 and 1.

    Raises:
        UserError: a file that is missing, unreadable, damaged, laid out otherwise or larger than memory,
            numbers that are complex, NaN or infinite, an empty node, labels outside the range, targets
            that no x interpolates; each with one line that says what is allowed.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        raise UserError(f"no file {path}; allowed: an existing .npz or .csv file")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} ends in {path.suffix!r}, allowed: {', '.join(SUFFIXES)}")
    if loss not in USER_LOSSES:
        raise UserError(f"loss is {loss!r}, allowed: {', '.join(USER_LOSSES)}")
    try:
        require_regular(path)
        npz = path.suffix.lower() == ".npz"
        features, labels, start = _read_npz(path) if npz else (*_read_csv(path), None)
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror or error}") from None
    blocks = [*features, *labels, *([] if start is None else [start])]
    if not all(np.isfinite(block).all() for block in blocks):
        raise UserError(f"{path} holds NaN or infinite values; every number must be finite")
    kind, targets = _targets(labels, loss)
    return MarginProblem(features, targets, kind, start=start, name=path.name)


def _targets(labels: list[Array], loss: str) -> tuple[MarginLoss, list[Array]]:
    """The loss and the targets it wants: margins for soft labels, signs for hard ones."""
    if loss == "squared":
        return SQUARED, labels
    everything = np.concatenate(labels)
    values = set(np.unique(everything).tolist())
    if loss == "logistic" and (values <= {-1.0, 1.0} or values <= {0.0, 1.0}):
        return HARD_LOGISTIC, [np.where(y > 0, 1.0, -1.0) for y in labels]
    if (everything <= 0).any() or (everything >= 1).any():
        hard = "labels -1/1, labels 0/1, or " if loss == "logistic" else ""
        raise UserError(f"targets for {loss} loss, allowed: {hard}numbers strictly between 0 and 1")
    kind = SOFT_LOGISTIC if loss == "logistic" else SIGMOID_REGRESSION
    return kind, [np.log(y) - np.log1p(-y) for y in labels]


# ---- npz -----------------------------------------------------------------------------------------


def _read_npz(path: Path) -> tuple[list[Array], list[Array], Array | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _arrays(archive, path)
    # What the zip and npy readers raise on truncated, altered or foreign bytes.
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a readable .npz of numbers ({error})") from None
    start = arrays.pop("start", None)
    if set(arrays) == {"A", "b", "node"}:
        return *_split(arrays["A"], arrays["b"], arrays["node"], path), start
    n = sum(name.startswith("A") for name in arrays)
    names = [f"{letter}{i}" for i in range(n) for letter in "Ab"]
    if n == 0 or set(names) != set(arrays):
        raise UserError(f"{path} has arrays {sorted(arrays)}, allowed: {LAYOUT}")
    for i in range(n):
        a, b = arrays[f"A{i}"], arrays[f"b{i}"]
        if a.ndim != 2 or b.size != len(a) or not a.shape[1]:
            raise UserError(
                f"{path}: A{i} and b{i} have the shapes {a.shape} and {b.shape}, allowed: (m, d) and "
                "(m,)"
            )
    return (
        [arrays[f"A{i}"] for i in range(n)],
        [arrays[f"b{i}"].ravel() for i in range(n)],
        start,
    )


def _arrays(archive: zipfile.ZipFile, path: Path) -> dict[str, Array]:
    """The arrays of an archive as float64; their sizes are known from the headers before any is read."""
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    needed = 0
    for name in names:
        with archive.open(name) as member:
            shape, dtype, start = _header(member)
        if dtype.kind not in "biuf":
            what = {"c": "complex numbers", "O": "Python objects", "U": "text"}.get(
                dtype.kind, str(dtype)
            )
            raise UserError(f"{path}: {name[:-4]} holds {what}, allowed: real numbers")
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        stored = archive.getinfo(name).file_size
        if size + start != stored:
            raise UserError(
                f"{path} is damaged: {name[:-4]} has {stored - start} bytes, its header says {size}"
            )
        needed += int(np.prod(shape, dtype=object)) * 8
    memory.require(_COPIES * needed, str(path), "the number of samples or features")
    arrays = {}
    for name in names:
        with archive.open(name) as member:
            read = np.lib.format.read_array(member, allow_pickle=False)
        arrays[name[:-4]] = np.asarray(read, dtype=np.float64)
    return arrays


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
    version = np.lib.format.read_magic(member)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(member)
    return shape, dtype, member.tell()


# ---- csv -----------------------------------------------------------------------------------------


def _read_csv(path: Path) -> tuple[list[Array], list[Array]]:
    memory.require(
        _COPIES * 8 * path.stat().st_size / _LEAST_CHARACTERS,
        str(path),
        "the number of samples or features",
    )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = next((line for line in csv.reader(file) if line), [])
            # NumPy's savetxt writes its header as a comment.
            head = [name.strip(" #") for name in head]
            columns = _columns(head, path)
            rest = file.readlines()
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable .csv of numbers ({error})") from None
    lines = [line for line in rest if line.strip()]
    if not lines:
        raise UserError(f"{path} has a header and no line below it; allowed: a line a sample")
    try:
        table = np.loadtxt(lines, delimiter=",", quotechar='"', comments=None, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is not a readable .csv of numbers ({error})") from None
    if table.shape[1] != len(head):
        raise UserError(
            f"{path}: {len(head)} names in the header, {table.shape[1]} columns below it"
        )
    features = []
    for k, name in enumerate(head):
        if k in (columns["node"], columns["target"]):
            continue
        if name:
            features.append(k)
        elif not (np.diff(table[:, k]) == 1).all():
            raise UserError(f"{path}: column {k + 1} has no name; allowed without: a line counter")
    if not features:
        raise UserError(f"{path} has no column of features, allowed: node, target, and features")
    return _split(table[:, features], table[:, columns["target"]], table[:, columns["node"]], path)


def _columns(head: list[str], path: Path) -> dict[str, int]:
    """Where the columns "node" and "target" are."""
    wanted = "allowed: a header line that names node, target and the features"
    if not head:
        raise UserError(f"{path} is empty, {wanted}")
    if all(_is_number(name) for name in head):
        raise UserError(f"{path} begins with numbers, {wanted}")
    lowered = [name.lower() for name in head]
    twice = [name for name, count in Counter(filter(None, lowered)).items() if count > 1]
    if twice:
        raise UserError(f"{path} has two columns {twice[0]!r}, allowed: distinct names")
    for name in ("node", "target"):
        if name not in lowered:
            shown = ", ".join(head[:8]) + (", ..." if len(head) > 8 else "")
            raise UserError(f"{path} has no column {name!r} among {shown}; {wanted}")
    return {name: lowered.index(name) for name in ("node", "target")}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split(a: Array, b: Array, node: Array, path: Path) -> tuple[list[Array], list[Array]]:
    if a.ndim != 2 or not len(a) == b.size == node.size:
        raise UserError(f"{path}: A, b and node have {a.shape}, {b.shape}, {node.shape} entries")
    if not len(a):
        raise UserError(f"{path} has no samples, allowed: at least 1 a node")
    # Every node needs a sample, so there are no more nodes than samples.
    if not ((node >= 0) & (node < len(a)) & (node == np.round(node))).all():
        wrong = node[~((node >= 0) & (node < len(a)) & (node == np.round(node)))][0]
        raise UserError(
            f"{path}: a node number is {wrong:g}, allowed: integers from 0, each with a sample"
        )
    owners = node.ravel().astype(np.int64)
    order = np.argsort(owners, kind="stable")
    # An owner that never appears is an empty node, which the problem refuses by name.
    cuts = np.cumsum(np.bincount(owners))[:-1]
    groups = np.split(order, cuts)
    return [a[g] for g in groups], [b.ravel()[g] for g in groups]
