"""T9: the energy balance closes to rounding for any losses, any reference point, any clients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.problems.generators import (
    least_squares,
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.simulation.energy import energy_balance
from theory.simulation.local_sgd import run_local_sgd
from theory.support.errors import UserError

SMALL: dict[str, Any] = {"n_nodes": 4, "samples_per_node": 5, "dimension": 30}
MAKERS = (least_squares, realizable_logistic, separable_logistic, sigmoid_regression)


@given(
    maker=st.sampled_from(MAKERS),
    factor=st.floats(0.05, 3.0),
    local_steps=st.integers(1, 5),
    clients=st.integers(1, 4),
    order=st.sampled_from(["uniform", "reshuffled"]),
    gradient=st.sampled_from(["stochastic", "full"]),
)
def test_the_balance_closes_for_any_losses_steps_and_reference(
    maker: Any, factor: float, local_steps: int, clients: int, order: str, gradient: str
) -> None:
    problem = maker(**SMALL)
    z = np.random.default_rng(1).standard_normal(30)
    balance = energy_balance(
        problem,
        step_size=factor / problem.smoothness,
        local_steps=local_steps,
        rounds=6,
        seeds=2,
        participants=clients,
        order=order,
        gradient=gradient,
        reference=z,
    )
    size = np.abs(balance.inner).sum(axis=1) + np.abs(balance.gradient).sum(axis=1)
    scale = 1 + (size * factor / problem.smoothness + balance.end) / balance.start
    assert (np.abs(balance.defect) < 1e-13 * scale).all()


@pytest.mark.parametrize("maker", [least_squares, realizable_logistic])
@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
def test_the_measured_phi_is_at_least_that_of_t1(maker: Any, factor: float) -> None:
    problem = maker(heterogeneity="sorted", **SMALL)
    balance = energy_balance(
        problem, step_size=factor / problem.smoothness, local_steps=3, rounds=20, seeds=5
    )
    phi = min(1.0, 2.0 - factor)
    assert (balance.phi_hat >= phi * (1 - 1e-12)).all()
    assert (balance.phi_total >= balance.phi_hat).all()
    # In this class every single step does, not only their sum.
    own = balance.inner - 0.5 * balance.step_size * balance.gradient
    assert (own >= phi * balance.loss * (1 - 1e-9)).all()


def test_its_paths_are_those_of_the_engines() -> None:
    problem = realizable_logistic(**SMALL)
    settings: dict[str, Any] = {"step_size": 2.0, "local_steps": 3, "rounds": 8, "seeds": [4, 9]}
    settings |= {"participants": 2, "order": "reshuffled", "batch_size": 2}
    balance = energy_balance(problem, **settings)
    run = run_local_sgd(problem, averages=["batch_loss"], record_rounds=True, **settings)
    np.testing.assert_allclose(
        balance.loss.mean(axis=1), run.averages["batch_loss"][0, :, -1], rtol=1e-10
    )
    np.testing.assert_allclose(balance.end, run.history["distance"][0, :, -1], rtol=1e-9)
    record = run.round_record
    assert record is not None
    # C_r = P - Q: the reports' spread about their mean.
    spread = (record.mean_square - record.square_mean)[0]
    np.testing.assert_allclose(balance.spread, spread, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(
        balance.loss.reshape(2, 8, 3).sum(axis=2), record.loss[0], rtol=1e-10
    )


def test_the_last_model_can_be_the_reference() -> None:
    problem = sigmoid_regression(**SMALL)
    settings: dict[str, Any] = {"step_size": 3.0, "local_steps": 4, "rounds": 30, "seeds": 3}
    balance = energy_balance(problem, reference="end", **settings)
    assert (balance.end < 1e-25).all() and (balance.start > 0.1).all()
    assert (np.abs(balance.defect) < 1e-12).all()
    mean = balance.loss.mean(axis=1)
    fallen = balance.start - balance.end - balance.spread.sum(axis=1)
    np.testing.assert_allclose(mean, fallen / (2 * 3.0 * balance.phi_hat * 120), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "mean"}, "reference is 'mean', allowed: solution"),
        ({"reference": np.zeros(3)}, r"reference has shape \(3,\), allowed: \(30,\)"),
        ({"participants": 9}, "participants is 9"),
        ({"rounds": 0}, "rounds is 0"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        energy_balance(least_squares(**SMALL), step_size=1.0, **change)
    with pytest.raises(UserError, match="reference is 'solution', allowed: solution"):
        energy_balance(separable_logistic(**SMALL), step_size=1.0)


def test_stochastic_gradients_need_a_problem_with_samples() -> None:
    class Bowl:
        n_nodes, start, solution = 2, np.ones(3), np.zeros(3)

        def node_losses(self, models: np.ndarray) -> np.ndarray:
            return np.asarray(0.5 * (models**2).sum(axis=-1))

        def node_gradients(self, models: np.ndarray) -> np.ndarray:
            return models

    full = energy_balance(Bowl(), step_size=0.5, local_steps=2, rounds=3, gradient="full")
    assert full.end == pytest.approx(3 * 0.25**6)
    for run in (energy_balance, run_local_sgd):
        with pytest.raises(UserError, match="gradient is 'stochastic', which needs"):
            run(Bowl(), step_size=0.5)  # type: ignore[operator]
