"""What broke the Python interface: one row a case, each refused on one line that names what is allowed.

Arguments of the simulators are in ``test_local_sgd.py`` and ``test_moments.py``, files in
``test_user_data.py``, losses of one's own in ``test_problems.py``, memory in ``test_memory.py``.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_cases import add_member, md5_of

from deep.data.cifar10 import load_images
from theory import (
    Check,
    MarginLoss,
    MarginProblem,
    exact_moments,
    least_squares,
    run_local_sgd,
    verify,
)
from theory.problems.consistency import check_problem
from theory.problems.explicit import scalar_problem
from theory.problems.losses import HARD_LOGISTIC
from theory.support import command as cli
from theory.support.errors import UserError
from theory.support.loading import load_object
from theory.support.verdicts import HOLDS
from theory.theorems import T1, T2, Metric, all_instances
from theory.verification.grid import verify_grid

PROBLEM = least_squares(n_nodes=2, samples_per_node=2, dimension=8)
A, B = np.eye(3), np.ones(3)


def run(**changes: Any) -> object:
    return run_local_sgd(PROBLEM, **{"step_size": 0.5, "local_steps": 2, "rounds": 5, **changes})


def moments(**changes: Any) -> object:
    return exact_moments(PROBLEM, **{"step_size": 0.5, "local_steps": 2, "rounds": 5, **changes})


def check(**changes: Any) -> object:
    return verify(**{"theorem": T1, "problem": PROBLEM, "rounds": 5, **changes})


#: The call, and what the refusal must say.
REFUSED: list[tuple[Callable[[], object], str]] = [
    # Numbers of the simulators.
    (lambda: run(record=[10.5]), "record is 10.5, allowed: integers from 0 to 10"),
    (lambda: moments(record=[11]), "record is 11, allowed: integers from 0 to 10"),
    (lambda: run(rounds=2.5), "rounds is 2.5, allowed: integers of at least 1"),
    (lambda: moments(rounds=2.5), "rounds is 2.5, allowed: integers of at least 1"),
    (lambda: run(batch_size=1.5), "batch_size is 1.5, allowed: integers from 1"),
    (lambda: run(local_steps=np.nan), "local_steps is nan, allowed: integers of at least 1"),
    (lambda: run(seeds=1.5), "seeds is 1.5, allowed: integers from 1"),
    (lambda: run(seeds=[1.5]), "seed is 1.5, allowed: integers from 0"),
    (lambda: run(seeds=2**64), "seeds is 18446744073709551616, allowed: integers from 1"),
    (lambda: run(seeds=[2**64]), "seed is 18446744073709551616, allowed: integers from 0"),
    (lambda: run(step_size=[]), "step_size is [], allowed: finite numbers above 0"),
    (lambda: run(step_size="half"), "step_size is 'half', allowed: finite numbers above 0"),
    (lambda: least_squares(seed=2**64), "seed is 18446744073709551616, allowed"),
    (lambda: least_squares(seed=1.5), "seed is 1.5, allowed"),  # type: ignore[arg-type]
    # Problems.
    (lambda: MarginProblem([A], [2 * B], HARD_LOGISTIC), "a hard label is 2, allowed: -1 and 1"),
    (lambda: MarginProblem([A, A[:0]], [B, B[:0]]), "node 1 has no samples"),
    (lambda: MarginProblem([A], [B], start=np.ones(2)), "start has shape (2,), allowed: (3,)"),
    # Theorems.
    (lambda: Metric("speed"), "a metric is 'speed', allowed: global_loss, local_loss"),
    (lambda: Metric("distance", averaged=True), "allowed: local_loss, sync_loss, global_loss"),
    (lambda: check(rounds=0), "rounds is 0, allowed"),
    (lambda: check(step_size=np.nan), "step_size is nan, allowed"),
    (lambda: check(engine="cuda"), "engine is 'cuda', allowed"),
    (lambda: check(seeds=[]), "seeds is [], allowed"),
    (
        lambda: check(theorem=replace(T1, bound=lambda p, s, t: float("nan"))),
        "theorem 'T1': its bound on least squares is nan, allowed: a number of at least 0",
    ),
    (lambda: check(theorem=replace(T1, bound=lambda p, s, t: -1.0)), "is -1.0, allowed"),
    (lambda: check(theorem=replace(T1, bound=lambda *_: np.ones(3))), "allowed: a number"),  # type: ignore
    (lambda: verify_grid(T1, PROBLEM, [], [1]), "the grid is empty"),
]


@pytest.fixture(scope="module")
def warm() -> None:
    """What is imported and compiled once is no part of a refusal."""
    run()
    check()


@pytest.mark.parametrize(("call", "said"), REFUSED, ids=[said[:50] for _, said in REFUSED])
@pytest.mark.usefixtures("warm")
def test_bad_arguments_are_one_line_at_once(call: Callable[[], object], said: str) -> None:
    began = time.process_time()
    with pytest.raises(UserError) as refused:
        call()
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert time.process_time() - began < 2


def test_numpy_integers_are_integers() -> None:
    a, b = run(seeds=np.int64(3)), run(seeds=3)
    np.testing.assert_array_equal(a.seeds, b.seeds)  # type: ignore[attr-defined]


# ---- problems of one's own -----------------------------------------------------------------------


@dataclass
class Own:
    """f_i(x) = ||x - t||^4 / 4 on the unit ball about t = (1, 0): L = 3 there, convex, not quadratic."""

    changes: dict[str, Any] = field(default_factory=dict)
    name: str = "quartic"
    heterogeneity: str = "none"
    n_nodes: int = 2
    smoothness: float = 12.0
    global_smoothness: float = 12.0
    convex: bool = True
    similarity: float = 1.0
    local_growth: float = 0.0
    global_growth: float = 0.0
    growth_radius: float = 1.0
    strong_growth: float = 1.0
    initial_distance: float = 1.0
    margin: float = 0.0
    separating_direction: None = None

    def __getattribute__(self, name: str) -> Any:
        changes = object.__getattribute__(self, "changes")
        return changes[name] if name in changes else object.__getattribute__(self, name)

    start = np.zeros(2)
    solution = np.array([1.0, 0.0])
    node_sizes = np.ones(2, int)

    def node_losses(self, models: np.ndarray) -> np.ndarray:
        return ((models - [1.0, 0.0]) ** 2).sum(-1) ** 2 / 4

    def node_gradients(self, models: np.ndarray) -> np.ndarray:
        away = models - [1.0, 0.0]
        return (away**2).sum(-1, keepdims=True) * away

    def global_loss(self, models: np.ndarray) -> np.ndarray:
        return ((models - [1.0, 0.0]) ** 2).sum(-1) ** 2 / 4

    def sample_losses(self, models: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return self.node_losses(models)

    def sample_gradients(self, models: np.ndarray, indices: np.ndarray) -> np.ndarray:
        away = models - [1.0, 0.0]
        return (away**2).sum(-1, keepdims=True) * away


def test_a_true_problem_of_ones_own_is_checked_as_ours_are() -> None:
    checks: list[Check] = [
        verify(theorem, Own(), local_steps=2, rounds=20)  # type: ignore[arg-type]
        for theorem in (T1, T2)
    ]
    assert [c.verdict for c in checks] == [HOLDS, HOLDS]
    for instance in all_instances():
        check_problem(instance.problem)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"node_gradients": lambda x: 2 * Own().node_gradients(x)}, "not the change of its loss"),
    ({"node_gradients": lambda x: -Own().node_gradients(x)}, "not the change of its loss"),
    ({"node_gradients": lambda x: x[..., :1]}, "node_gradients has shape (2, 1), allowed: (2, 2)"),
    ({"node_gradients": lambda x: x * np.nan}, "node_gradients is not finite"),
    ({"node_losses": lambda x: Own().node_losses(x) - 1}, "below 0"),
    ({"node_losses": lambda x: Own().node_losses(x) + 1}, "loss at the solution"),
    ({"node_losses": lambda x: Own().node_losses(x).sum()}, "node_losses has shape ()"),
    ({"smoothness": 2.0}, "above its smoothness 2"),
    ({"initial_distance": 2.0}, "initial_distance is 2, but ||start - solution||^2 is 1"),
    ({"solution": np.array([1.0, 0.1])}, "its loss at the solution"),
    ({"solution": np.ones(3)}, "solution has shape (3,), allowed: (2,)"),
    ({"start": np.ones((2, 1))}, "start has shape (2, 1)"),
    ({"global_loss": lambda x: Own().global_loss(x) / 2}, "the mean of its node_losses"),
    ({"sample_gradients": lambda x, i: 3 * Own().sample_gradients(x, i)}, "mean sample gradient"),
    (
        {
            "node_losses": lambda x: 1 - np.cos(3 * (x[..., 0] - 1)),
            "node_gradients": lambda x: np.stack(
                [3 * np.sin(3 * (x[..., 0] - 1)), 0 * x[..., 1]], -1
            ),
            "global_loss": lambda x: 1 - np.cos(3 * (x[..., 0] - 1)),
        },
        "not convex",
    ),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_with_a_problem_is_named_and_no_theorem_is_blamed(
    changes: dict[str, Any], said: str
) -> None:
    for call in (
        lambda: verify(T2, Own(changes), rounds=5),  # type: ignore[arg-type]
        lambda: run_local_sgd(Own(changes), step_size=0.01, rounds=5),
    ):
        with pytest.raises(UserError, match=r"^problem 'quartic': its ") as refused:
            call()
        assert said in str(refused.value)


def test_a_wrong_formula_of_an_explicit_problem_is_named() -> None:
    problem = scalar_problem(
        lambda x: x**2 / 2, lambda x: x * 1.01, smoothness=2.0, growth=1.0, name="parabola"
    )
    with pytest.raises(UserError, match="problem 'parabola': its gradient times a short step"):
        verify(T2, problem, rounds=5)


def test_a_loss_is_tested_as_far_out_as_the_data_are() -> None:
    """Its slope is wrong beyond 100 only, where margins of large targets are."""
    loss = MarginLoss(
        "mine",
        lambda z, t: 0.5 * (z - t) ** 2,
        lambda z, t: np.where(np.abs(z - t) < 100, z - t, 2 * (z - t)),
        2.0,
        convex=True,
        attained=True,
    )
    MarginProblem([A], [B], loss)
    with pytest.raises(UserError, match="loss 'mine': its derivative"):
        MarginProblem([A], [1000 * B], loss)


def test_what_a_users_file_raises_names_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def bound(p, s, t):\n    return p.no_such_constant\n")
    app = cli.make_app()

    @app.command()
    def main() -> None:
        load_object("bound", f"{file}:bound")(PROBLEM, None, 1)

    assert cli.run_command(app, "x", []) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}, line 2: AttributeError: ") and error.count("\n") == 1


# ---- the archive of CIFAR-10, with a checksum of the caller's ------------------------------------


def _link(archive: tarfile.TarFile, target: str) -> None:
    entry = tarfile.TarInfo("x/data_batch_1.bin")
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _giant(archive: tarfile.TarFile) -> None:
    entry = tarfile.TarInfo("x/data_batch_1.bin")
    entry.size = 3073 * 10**6
    # The header alone: who reads on finds the end of the file.
    assert archive.fileobj is not None
    archive.fileobj.write(entry.tobuf(archive.format))


ARCHIVES: list[tuple[Callable[[tarfile.TarFile], None], str]] = [
    (lambda a: _link(a, "nowhere"), "x/data_batch_1.bin is not a file"),
    (lambda a: _link(a, "data_batch_1.bin"), "x/data_batch_1.bin is not a file"),
    (lambda a: add_member(a, "x/data_batch_1.bin", b"\x0a" * 3073), "a label 10, allowed: 0 to 9"),
    (lambda a: add_member(a, "x/data_batch_1.bin", b""), "no data_batch_*.bin in it"),
    (_giant, "has 3073000000 bytes, allowed: records of 3073 bytes, 60000 in all"),
]


@pytest.mark.parametrize(("fill", "said"), ARCHIVES, ids=[said for _, said in ARCHIVES])
def test_an_archive_is_believed_in_nothing(
    tmp_path: Path, fill: Callable[[tarfile.TarFile], None], said: str
) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        fill(archive)
    path = tmp_path / "cifar.tar"
    path.write_bytes(content.getvalue())
    with pytest.raises(UserError, match="is not the CIFAR-10 binary archive") as refused:
        load_images(path, md5=md5_of(path))
    assert said in str(refused.value)
