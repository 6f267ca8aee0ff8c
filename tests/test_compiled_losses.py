"""Losses of one's own, compiled by Numba, run on every engine."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from test_local_sgd import SMALL, relative

from theory.problems.generators import least_squares
from theory.problems.losses import MarginLoss
from theory.problems.margin import MarginProblem
from theory.simulation.compiled_losses import compiled_loss
from theory.simulation.local_sgd import AVERAGES, run_local_sgd
from theory.support.errors import UserError


@numba.njit
def _huber_tail(r: float) -> float:
    return r - 0.5


@numba.njit
def _huber(z: float, t: float) -> float:
    r = abs(z - t)
    return 0.5 * r * r if r < 1 else _huber_tail(r)


@numba.njit
def _huber_slope(z: float, t: float) -> float:
    return max(-1.0, min(1.0, z - t))


def test_a_compiled_loss_of_your_own_runs_on_every_engine() -> None:
    loss = MarginLoss("compiled Huber", _huber, _huber_slope, 1.0, True, True)
    data = least_squares(**SMALL)
    nodes = [data.node_slice(i) for i in range(3)]
    problem = MarginProblem(
        [3 * data.features[s] for s in nodes], [3 * data.targets[s] for s in nodes], loss
    )
    assert problem.smoothness == pytest.approx(9.0)
    settings: dict[str, Any] = {"step_size": 0.1, "local_steps": 3, "rounds": 40, "seeds": 2}
    settings |= {"averages": AVERAGES, "outer_step": "extrapolated", "record_rounds": True}
    reference = run_local_sgd(problem, engine="numpy", **settings)
    # The corner is met on both sides of it.
    margins = np.abs(problem.margins(problem.start) - problem.targets)
    assert margins.max() > 1 > margins.min()
    for engine in ("numba", "margin"):
        fast = run_local_sgd(problem, engine=engine, **settings)
        assert relative(fast.final_model, reference.final_model) < 1e-10
        for name in AVERAGES:
            assert relative(fast.averages[name], reference.averages[name]) < 1e-10, name
    assert run_local_sgd(problem, **settings).engine in ("numba", "margin")


def test_a_loss_that_does_not_compile_is_refused_in_one_line() -> None:
    bad = numba.njit(lambda z, t: z.nothing)
    loss = MarginLoss("bad", bad, _huber_slope, 1.0, True, True)
    with pytest.raises(UserError, match="loss 'bad' does not compile for two floats") as raised:
        compiled_loss(loss)
    assert "\n" not in str(raised.value)
