"""Problems from files: layouts, losses, and what is refused."""

from __future__ import annotations

import io
import re
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from theory import THEOREMS, load_problem, run_local_sgd
from theory.problems.losses import HARD_LOGISTIC, SIGMOID_REGRESSION, SOFT_LOGISTIC, SQUARED
from theory.support import memory
from theory.support.errors import UserError
from theory.support.verdicts import HOLDS, NOT_APPLICABLE
from theory.verification.check import verify_all
from theory.verification.sweep import Sweep, run_sweep

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
    assert problem.solution is not None
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


def test_samples_that_no_x_interpolates_are_refused_and_inseparable_labels_are_read(
    tmp_path: Path,
) -> None:
    a = np.array([[1.0, 0.0], [1.0, 0.0]])
    path = tmp_path / "both.npz"
    np.savez(path, A=a, b=np.array([1.0, -1.0]), node=np.array([0, 1]))
    with pytest.raises(ValueError, match="no x interpolates the samples"):
        load_problem(path)
    problem = load_problem(path, "logistic")
    assert problem.margin == 0.0 and problem.least_loss == pytest.approx(np.log(2))
    run = run_local_sgd(problem, step_size=1.0, rounds=20, gradient="full")
    assert run.history["global_loss"][0, 0, -1] == pytest.approx(np.log(2))
    checks = verify_all(THEOREMS, problem)
    assert {c.verdict for c in checks} == {NOT_APPLICABLE}
    reasons = {c.theorem: c.why for c in checks}
    assert "no separating direction" in reasons["T5"] and "loss is 0.693" in reasons["T5"]
    assert "inf f is above 0: the best attainable loss is 0.693" in reasons["T6"]


def test_an_empty_node_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gap.npz"
    np.savez(path, **(flat(TARGETS) | {"node": np.repeat([0, 1, 3], SIZES)}))
    with pytest.raises(ValueError, match="node 2 has no samples"):
        load_problem(path)


def npz(save: Any = np.savez, **arrays: Any) -> bytes:
    """The bytes of an archive."""
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zip_bomb() -> bytes:
    """A small file whose one array says that it has 10^15 numbers."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A0.npy", head.getvalue() + bytes(1000))
    return file.getvalue()


GOOD = npz(A0=np.eye(3), b0=np.ones(3))
FLIPPED = bytearray(npz(np.savez_compressed, A0=np.eye(3), b0=np.ones(3)))
FLIPPED[len(FLIPPED) // 3] ^= 16
NODES = np.array([0.0, 10.0**12])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "ends in '.txt', allowed: .npz, .csv"),
        ("a.npz", b"not a zip", "not a readable .npz"),
        ("a.npz", b"", "not a readable .npz"),
        ("a.npz", GOOD[: len(GOOD) // 2], "not a readable .npz"),
        ("a.npz", bytes(FLIPPED), "not a readable .npz"),
        ("a.npz", npy(np.eye(3)), "not a readable .npz"),
        ("a.npz", npz(A0=np.eye(3)), "allowed: A0, b0, A1, b1"),
        ("a.npz", npz(A0=np.empty((0, 3)), b0=np.empty(0)), "node 0 has no samples"),
        ("a.npz", npz(A0=np.ones((2, 0)), b0=np.ones(2)), "shapes (2, 0) and (2,), allowed"),
        ("a.npz", npz(A0=np.float64(1), b0=np.float64(1)), "shapes () and (), allowed"),
        ("a.npz", npz(A=np.empty((0, 3)), b=np.empty(0), node=np.empty(0)), "no samples"),
        ("a.npz", npz(A=1.0, b=1.0, node=0), "A, b and node have (), (), ()"),
        ("a.npz", npz(A=np.eye(2), b=np.ones(2), node=NODES), "node number is 1e+12, allowed"),
        ("a.npz", npz(A0=1j * np.eye(2), b0=np.ones(2)), "A0 holds complex numbers"),
        ("a.npz", npz(A0=np.array([["a"]]), b0=np.ones(1)), "A0 holds text"),
        ("a.npz", npz(A0=np.array([object()]), b0=np.ones(1)), "A0 holds Python objects"),
        ("a.npz", npz(X=np.eye(2), y=np.ones(2)), "has arrays ['X', 'y'], allowed: A0, b0"),
        ("a.npz", zip_bomb(), "is damaged: A0 has 1000 bytes"),
        ("a.csv", b"", "is empty, allowed: a header"),
        ("a.csv", b"node,target,x\n", "no line below"),
        ("a.csv", b"0,1,2\n0,2,4\n", "begins with numbers, allowed: a header"),
        ("a.csv", b"a,b,c\n0,2,4\n", "no column 'node' among a, b, c"),
        ("a.csv", b"node;target;x\n0;2;4\n", "no column 'node' among node;target;x"),
        ("a.csv", b"node,target,target\n0,2,4\n", "two columns 'target'"),
        ("a.csv", b"node,target,x\n0,one,2\n", "not a readable .csv"),
        ("a.csv", b"node,target,x\n0,1,2,3\n", "3 names in the header, 4 columns"),
        ("a.csv", b"node,target,x\n0,1,2\n0,1\n", "not a readable .csv"),
        ("a.csv", b"node,target,x\n0,1+2j,2\n", "not a readable .csv"),
        ("a.csv", b"node,target\n0,1\n", "no column of features"),
        ("a.csv", b"node,target,x\n0.5,1,2\n", "node number is 0.5, allowed: integers"),
        ("a.csv", b"node,target,x,\n0,1,2,7\n0,1,2,7\n", "column 4 has no name"),
        ("a.csv", b"node,target,x\n0,1,\xff\n", "not a readable .csv"),
        ("a.csv", b"node,target,x\n0,1,inf\n", "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_every_defect_of_a_file_is_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        load_problem(tmp_path / name)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.npz"):
        with pytest.raises(UserError, match="no file"):
            load_problem(path)


def test_an_honest_giant_is_refused_before_it_takes_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    path = tmp_path / "zeros.npz"
    path.write_bytes(npz(np.savez_compressed, A0=np.zeros((1000, 1000)), b0=np.zeros(1000)))
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    with pytest.raises(UserError, match="needs about 32 MB of memory, 10 MB are available"):
        load_problem(path)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    path = tmp_path / "long.csv"
    path.write_text("node,target,x\n" + "0,1,2\n" * 1_000_000)
    with pytest.raises(UserError, match="of memory, 10 MB are available"):
        load_problem(path)


def test_columns_are_found_by_name_and_a_counter_of_lines_is_left_out(tmp_path: Path) -> None:
    """As pandas writes a frame: a nameless index first; here with quotes and a suffix in capitals."""
    f = flat(TARGETS)
    head = ["", *(f"x{k}" for k in range(15)), "Target", "Node"]
    lines = [",".join(f'"{name}"' for name in head)]
    for j in range(sum(SIZES)):
        numbers = [j, *f["A"][j].tolist(), float(f["b"][j])]
        lines.append(",".join(map(repr, numbers)) + f',"{f["node"][j]}"')
    path = tmp_path / "FRAME.CSV"
    path.write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    problem = load_problem(path)
    assert problem.node_sizes.tolist() == list(SIZES)
    np.testing.assert_array_equal(problem.features, np.concatenate(FEATURES))
    np.testing.assert_array_equal(problem.targets, np.concatenate(TARGETS))


def test_clients_a_round_are_counted_against_the_nodes_of_the_data(tmp_path: Path) -> None:
    """Not against the five of a generated problem."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((16, 30))
    path = tmp_path / "eight.npz"
    np.savez(path, A=features, b=features.sum(axis=1), node=np.repeat(np.arange(8), 2))
    own = Sweep(("T7",), (), local_steps=(2,), rounds=4, participants=7, data=(str(path),), seeds=4)
    assert [check.verdict for check in run_sweep(own)] == [HOLDS, HOLDS]
    with pytest.raises(
        UserError, match=r"participants of .*npz is 9, allowed: integers from 1 to 8"
    ):
        run_sweep(replace(own, participants=9))
    with pytest.raises(UserError, match="participants is 7, allowed: integers from 1 to 5"):
        run_sweep(replace(own, problems=("least-squares",)))
