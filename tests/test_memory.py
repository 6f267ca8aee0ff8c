"""What a problem needs is known before it is taken, and is not more than its samples by much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from theory import MarginProblem, least_squares
from theory.problems.data import squared_norms
from theory.problems.row_space import _triangle
from theory.support import memory
from theory.support.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def test_a_problem_takes_little_more_than_its_samples() -> None:
    # Not ru_maxrss: a new process starts with the peak of the one that it was forked from.
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("no /proc here to read the peak of a process from")
    code = (
        "from theory import least_squares, run_local_sgd\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return 1024 * int(next(l for l in lines if l.startswith('VmHWM')).split()[1])\n"
        "least_squares(rank=10, dimension=1000)\n"
        "before = peak()\n"
        "p = least_squares(rank=10, dimension=200_000)\n"
        "p.similarity, p.strong_growth, p.initial_distance\n"
        "run_local_sgd(p, step_size=1.0, local_steps=2, rounds=3, seeds=2)\n"
        "print((peak() - before) / p.features.nbytes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 1 <= float(done.stdout) < 2.5


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"n_nodes": 3000, "dimension": 48_000}, "3,000 nodes"),
        ({"n_nodes": 10**6, "dimension": 16 * 10**6}, "1,000,000 nodes"),
        ({"dimension": 10**9}, "1,000,000,000 features"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_option_to_lower(
    sizes: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 16 * 10**9)
    with pytest.raises(UserError, match=rf"{named}.* needs about .*; lower .*--dimension"):
        least_squares(**sizes)


def test_hessians_are_not_formed_where_they_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = least_squares(n_nodes=6, samples_per_node=4, dimension=96)
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(UserError, match="a Hessian of rank 24 for each of 6 nodes needs about"):
        _ = problem.hessians
    with pytest.raises(UserError, match="the Gram matrix of 24 samples"):
        _ = problem.gram


def test_blocks_change_no_digit_of_a_norm_and_no_singular_value() -> None:
    a = np.random.default_rng(0).standard_normal((7, 900_000))
    np.testing.assert_array_equal(squared_norms(a), (a**2).sum(axis=1))
    wide = a[:, :900]
    np.testing.assert_allclose(
        np.linalg.svd(_triangle(wide.T), compute_uv=False),
        np.linalg.svd(wide, compute_uv=False),
        rtol=1e-13,
    )


def test_one_array_of_samples_is_kept_as_it_is() -> None:
    features = np.random.default_rng(0).standard_normal((2, 3, 8))
    targets = features @ np.ones(8)
    problem = MarginProblem(features, targets)
    assert np.shares_memory(problem.features, features)
    same = MarginProblem(list(features), list(targets))
    np.testing.assert_array_equal(problem.features, same.features)
    assert problem.similarity == same.similarity and problem.smoothness == same.smoothness
