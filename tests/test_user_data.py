"""Problems from files: layouts, losses, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from theory import load_problem
from theory.problems.losses import HARD_LOGISTIC, SIGMOID_REGRESSION, SOFT_LOGISTIC, SQUARED

RANDOM = np.random.default_rng(3)
SIZES = (4, 2, 5)
FEATURES = [RANDOM.standard_normal((m, 15)) for m in SIZES]
PLANTED = RANDOM.standard_normal(15)
TARGETS = [a @ PLANTED for a in FEATURES]


def flat(labels: list[np.ndarray]) -> dict[str, Any]:
    """The layout A, b, node."""
    return {
        "A": np.concatenate(FEATURES),
        "b": np.concatenate(labels),
        "node": np.repeat(np.arange(3), SIZES),
    }


def per_node(labels: list[np.ndarray]) -> dict[str, Any]:
    """The layout A0, b0, A1, b1, ..."""
    arrays = {f"A{i}": a for i, a in enumerate(FEATURES)}
    return arrays | {f"b{i}": b for i, b in enumerate(labels)}


def write(path: Path, labels: list[np.ndarray], layout: str) -> Path:
    if layout == "csv":
        path = path / "mine.csv"
        f = flat(labels)
        table = np.column_stack([f["node"], f["b"], f["A"]])
        header = ",".join(["node", "target", *(f"x{k}" for k in range(15))])
        np.savetxt(path, table, delimiter=",", header=header, fmt="%.17g")
    else:
        path = path / "mine.npz"
        np.savez(path, **(flat(labels) if layout == "flat" else per_node(labels)))
    return path


@pytest.mark.parametrize("layout", ["flat", "per node", "csv"])
def test_every_layout_gives_the_same_ragged_problem(tmp_path: Path, layout: str) -> None:
    problem = load_problem(write(tmp_path, TARGETS, layout))
    assert problem.node_sizes.tolist() == list(SIZES) and problem.loss is SQUARED
    np.testing.assert_array_equal(problem.features, np.concatenate(FEATURES))
    np.testing.assert_array_equal(problem.targets, np.concatenate(TARGETS))
    assert problem.global_loss(problem.solution) < 1e-25


def test_labels_choose_the_logistic_loss(tmp_path: Path) -> None:
    signs = [np.sign(t) for t in TARGETS]
    hard = load_problem(write(tmp_path, signs, "flat"), "logistic")
    assert hard.loss is HARD_LOGISTIC and hard.margin > 0
    bits = [(s > 0).astype(float) for s in signs]
    zero_one = load_problem(write(tmp_path, bits, "flat"), "logistic")
    np.testing.assert_array_equal(zero_one.targets, hard.targets)
    soft = [1 / (1 + np.exp(-t)) for t in TARGETS]
    realizable = load_problem(write(tmp_path, soft, "csv"), "logistic")
    assert realizable.loss is SOFT_LOGISTIC
    np.testing.assert_allclose(realizable.targets, np.concatenate(TARGETS), rtol=1e-9)
    assert load_problem(write(tmp_path, soft, "flat"), "sigmoid").loss is SIGMOID_REGRESSION


@pytest.mark.parametrize(
    ("labels", "loss", "message"),
    [
        ([t * np.nan for t in TARGETS], "squared", "NaN or infinite"),
        ([t + 2 for t in TARGETS], "logistic", "labels -1/1, labels 0/1, or numbers strictly"),
        ([np.sign(t) for t in TARGETS], "sigmoid", "strictly between 0 and 1"),
        (TARGETS, "hinge", "loss is 'hinge', allowed: squared, logistic, sigmoid"),
    ],
)
def test_bad_targets_are_refused(
    tmp_path: Path, labels: list[np.ndarray], loss: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_problem(write(tmp_path, labels, "flat"), loss)


def test_samples_that_no_x_interpolates_and_labels_that_nothing_separates(tmp_path: Path) -> None:
    a = np.array([[1.0, 0.0], [1.0, 0.0]])
    path = tmp_path / "both.npz"
    np.savez(path, A=a, b=np.array([1.0, -1.0]), node=np.array([0, 1]))
    with pytest.raises(ValueError, match="no x interpolates the samples"):
        load_problem(path)
    with pytest.raises(ValueError, match="no direction separates the labels"):
        load_problem(path, "logistic")


def test_an_empty_node_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gap.npz"
    np.savez(path, **(flat(TARGETS) | {"node": np.repeat([0, 1, 3], SIZES)}))
    with pytest.raises(ValueError, match="node 2 has no samples"):
        load_problem(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "suffix '.txt', allowed: .npz, .csv"),
        ("a.npz", b"not a zip", "not a readable .npz"),
        ("a.csv", b"node,target,x\n0,one,2\n", "not a readable .csv"),
        ("a.csv", b"node,target\n0,1\n", "allowed: node, target, features"),
        ("a.csv", b"node,target,x\n0.5,1,2\n", "node numbers, allowed: integers"),
    ],
)
def test_unreadable_files_are_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_problem(tmp_path / name)


def test_arrays_of_other_names_and_pickles_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X=np.eye(2), y=np.ones(2))
    with pytest.raises(ValueError, match=r"has arrays \['X', 'y'\], allowed: A0, b0"):
        load_problem(tmp_path / "x.npz")
    np.savez(tmp_path / "p.npz", A0=np.array([object()]), b0=np.ones(1))
    with pytest.raises(ValueError, match="not a readable"):
        load_problem(tmp_path / "p.npz")
