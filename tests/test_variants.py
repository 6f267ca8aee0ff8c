"""Variants of Local SGD: a few lines each, run on any problem, with workers, and recorded by name."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from theory.problems.generators import least_squares
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.variants import (
    FedAvg,
    LocalStep,
    Reports,
    Round,
    Variant,
    load_variant,
)
from theory.support.errors import UserError

SMALL: dict[str, Any] = {"n_nodes": 5, "samples_per_node": 4, "dimension": 30}
RUN: dict[str, Any] = {"step_size": 0.8, "local_steps": 3, "rounds": 12, "seeds": 2}

OWN_FILE = """
import numpy as np
from theory.simulation.variants import Variant

class Momentum(Variant):
    name = "server momentum"

    def __init__(self, factor=0.5):
        self.factor = factor

    def begin(self, start, n_nodes):
        return {"velocity": np.zeros_like(start)}

    def combine(self, model, reports):
        reports.state["velocity"] = self.factor * reports.state["velocity"] + reports.mean
        return model + reports.state["velocity"]

HEAVY = Momentum(0.9)
NUMBER = 3
"""


class ServerMomentum(Variant):
    """Momentum at the server (FedAvgM)."""

    name = "server momentum 0.5"

    def begin(self, start: np.ndarray, n_nodes: int) -> Any:
        return {"velocity": np.zeros_like(start)}

    def combine(self, model: np.ndarray, reports: Reports) -> np.ndarray:
        reports.state["velocity"] = 0.5 * reports.state["velocity"] + reports.mean
        return model + reports.state["velocity"]


class RoundRobin(Variant):
    """One node after the other."""

    name = "round robin"

    def select(self, round: Round) -> list[int]:
        return [round.number % round.n_nodes]


class OneAndAHalf(Variant):
    """A fixed outer step."""

    name = "outer step 1.5"

    def outer_step(self, reports: Reports) -> float:
        return 1.5


@dataclass(frozen=True)
class Proximal(Variant):
    """FedProx: each step is pulled back to where the round began."""

    strength: float = 0.3
    name: str = "FedProx"

    def local_step(self, models: np.ndarray, gradients: np.ndarray, step: LocalStep) -> np.ndarray:
        pull = self.strength * (models - step.start)
        return models - step.step_size * (gradients + pull)


def test_plain_variant_is_local_sgd() -> None:
    problem = least_squares(**SMALL)
    plain = run_local_sgd(problem, **RUN)
    own = run_local_sgd(problem, variant=Variant(), **RUN)
    assert (own.engine, own.variant) == ("numpy", "Local SGD")
    np.testing.assert_allclose(own.final_model, plain.final_model, rtol=1e-12)


def test_momentum_keeps_a_state_per_run() -> None:
    problem = least_squares(**SMALL)
    together = run_local_sgd(problem, variant=ServerMomentum(), **RUN)
    alone = run_local_sgd(problem, variant=ServerMomentum(), **{**RUN, "seeds": [1]})
    np.testing.assert_allclose(together.final_model[0, 1], alone.final_model[0, 0], rtol=1e-12)
    assert together.variant == "server momentum 0.5"
    # By hand: velocity <- velocity/2 + the plain step from here.
    settings = {**RUN, "rounds": 2, "seeds": 1, "record_rounds": True, "gradient": "full"}
    run = run_local_sgd(problem, variant=ServerMomentum(), **settings)
    first = run_local_sgd(problem, **{**settings, "rounds": 1}).final_model[0, 0]
    moved = problem.__class__(
        [problem.features[problem.node_slice(i)] for i in range(5)],
        [problem.targets[problem.node_slice(i)] for i in range(5)],
        start=first,
    )
    second = run_local_sgd(moved, **{**settings, "rounds": 1}).final_model[0, 0]
    wanted = second + 0.5 * (first - problem.start)
    np.testing.assert_allclose(run.final_model[0, 0], wanted, rtol=1e-11)
    assert run.round_record is not None and run.round_record.outer_step[0, 0, 0] == pytest.approx(1)


def test_own_sampling_takes_the_nodes_it_names() -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    run = run_local_sgd(problem, variant=RoundRobin(), **{**RUN, "rounds": 1, "seeds": 1})
    # Only node 0 took part: the model moved in the span of its samples.
    moved = run.final_model[0, 0] - problem.start
    rows = problem.features[problem.node_slice(0)]
    rest = moved - rows.T @ np.linalg.lstsq(rows.T, moved, rcond=None)[0]
    assert np.linalg.norm(moved) > 0.1 and np.linalg.norm(rest) < 1e-12


def test_own_outer_step_equals_the_built_in_number() -> None:
    problem = least_squares(**SMALL)
    own = run_local_sgd(problem, variant=OneAndAHalf(), record_rounds=True, **RUN)
    built_in = run_local_sgd(problem, outer_step=1.5, **RUN)
    np.testing.assert_allclose(own.final_model, built_in.final_model, rtol=1e-10)
    assert own.round_record is not None and (own.round_record.outer_step == 1.5).all()


def test_own_local_steps_see_start_and_nodes() -> None:
    problem = least_squares(**SMALL)
    weak = run_local_sgd(problem, variant=Proximal(0.0), **RUN)
    plain = run_local_sgd(problem, **RUN)
    np.testing.assert_allclose(weak.final_model, plain.final_model, rtol=1e-12)
    strong = run_local_sgd(problem, variant=Proximal(0.9), record=np.arange(37), **RUN)
    free = run_local_sgd(problem, record=np.arange(37), **RUN)
    assert (
        strong.history["consensus"][..., 2::3].mean() < free.history["consensus"][..., 2::3].mean()
    )


def test_a_round_has_random_numbers_of_its_own() -> None:
    a, b = Round(7, 3, 10), Round(7, 4, 10)
    np.testing.assert_array_equal(a.random.random(5), a.random.random(5))
    assert (a.random.random(5) != b.random.random(5)).all()


def test_a_variant_from_a_file_is_loaded_pickled_and_edited(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN_FILE, encoding="utf-8")
    problem = least_squares(**SMALL)
    plain = run_local_sgd(problem, variant=load_variant(f"{path}:Momentum"), **RUN)
    same = run_local_sgd(problem, variant=ServerMomentum(), **RUN)
    np.testing.assert_array_equal(plain.final_model, same.final_model)
    heavy = load_variant(f"{path}:HEAVY")
    copy = pickle.loads(pickle.dumps(heavy))
    assert copy.factor == 0.9 and copy.name == "server momentum"
    path.write_text(OWN_FILE.replace("server momentum", "edited"), encoding="utf-8")
    assert load_variant(f"{path}:Momentum").name == "edited"


def _final_model(variant: Variant) -> np.ndarray:
    return run_local_sgd(least_squares(**SMALL), variant=variant, **RUN).final_model


def test_variants_travel_to_worker_processes(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN_FILE, encoding="utf-8")
    variants = [load_variant(f"{path}:HEAVY"), FedAvg(participants=2, outer_step_size="polyak")]
    here = [_final_model(v) for v in variants]
    there = joblib.Parallel(n_jobs=2)(joblib.delayed(_final_model)(v) for v in variants)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own.py", "allowed: file.py:NAME"),
        ("own.py:", "allowed: file.py:NAME"),
        ("own.txt:Momentum", "allowed: file.py:NAME"),
        ("missing.py:Momentum", "missing.py.*No such file"),
        ("own.py:Nesterov", "own.py has nothing called Nesterov"),
        ("own.py:NUMBER", "variant 'own.py:NUMBER' is a int, allowed: a Variant"),
        ("broken.py:X", "broken.py.*: ZeroDivisionError: division by zero"),
    ],
)
def test_bad_variant_texts_are_refused_in_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN_FILE, encoding="utf-8")
    Path("broken.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_variant(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"variant": "momentum"},
            "variant is 'momentum', allowed: an object of a class of Variant",
        ),
        ({"variant": ServerMomentum(), "participants": 2}, "variant is given beside"),
        ({"variant": ServerMomentum(), "engine": "margin"}, "allowed here: auto, numpy"),
        ({"variant": ServerMomentum(), "averaging": False}, "averaging is False"),
        ({"variant": FedAvg(participants=9)}, "participants is 9, allowed: integers from 1 to 5"),
    ],
)
def test_bad_variants_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_local_sgd(least_squares(**SMALL), **RUN, **change)
