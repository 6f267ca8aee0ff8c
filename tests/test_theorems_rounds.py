"""Lemma 2, T7 and T8: they hold on paths and in expectation, are attained, and fail when broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.problems.generators import least_squares, realizable_logistic, sigmoid_regression
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import LocalSGDResult, run_local_sgd
from theory.simulation.moments import exact_moments
from theory.theorems.base import Instance, Setting, Theorem
from theory.theorems.l2_every_round import LEMMA_2, instance_equality
from theory.theorems.t7_client_sampling import T7, T7_FAMILY, instance_axes
from theory.theorems.t8_outer_step import (
    T8A,
    T8B,
    T8B_BEST,
    T8C,
    instance_damped,
    instance_extrapolated,
    instance_polyak,
)
from theory.verification.violations import GreedyServer, SameClients

SMALL: dict[str, Any] = {"n_nodes": 4, "samples_per_node": 4, "dimension": 30}
ON_PATHS = (LEMMA_2, T8B, T8B_BEST, T8C)


def run(problem: Any, setting: Setting, seeds: int = 6, **changes: Any) -> LocalSGDResult:
    """The setting on sampled paths, all that a theorem can ask for recorded."""
    arguments: dict[str, Any] = {
        "step_size": setting.step_size,
        "local_steps": setting.local_steps,
        "rounds": setting.rounds,
        "gradient": setting.gradient,
        "participants": setting.participants,
        "outer_step": setting.outer_step,
        "averages": ["sync_loss", "batch_loss"],
        "record": [setting.iterations],
        "record_rounds": True,
    }
    return run_local_sgd(problem, seeds=seeds, **{**arguments, **changes})


def setting_of(theorem: Theorem, problem: Any, **changes: Any) -> Setting:
    """The setting in which a theorem is checked."""
    plain = Setting(step_size=theorem.default_step(problem, 3), local_steps=3, rounds=40, **changes)
    setting = theorem.setting(problem, plain)
    assert theorem.applies(problem, setting)[0], theorem.applies(problem, setting)
    return setting


def margins(theorem: Theorem, problem: Any, result: LocalSGDResult, setting: Setting) -> np.ndarray:
    """bound / measured on every path."""
    bound = np.asarray(theorem.bound(problem, setting, setting.iterations))
    if theorem.path_bound is not None:
        bound = theorem.path_bound(problem, setting, result)
    return np.asarray(bound / theorem.metric.read(result))


@pytest.mark.parametrize("theorem", ON_PATHS, ids=lambda t: t.name)
@pytest.mark.parametrize("maker", [least_squares, realizable_logistic])
@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
def test_they_hold_on_every_path(theorem: Theorem, maker: Any, factor: float) -> None:
    problem = maker(heterogeneity="sorted", **SMALL)
    gradient = "full" if theorem is T8B_BEST else "stochastic"
    setting = setting_of(theorem, problem, gradient=gradient)
    setting = replace(setting, step_size=factor / problem.smoothness)
    result = run(problem, setting)
    assert (margins(theorem, problem, result, setting) >= 1 - 1e-9).all()


@given(
    seed=st.integers(0, 10_000),
    factor=st.floats(0.05, 1.95),
    beta=st.floats(0.05, 3.0),
    clients=st.integers(1, 4),
    local_steps=st.integers(1, 6),
)
def test_lemma_2_holds_for_any_clients_and_any_fixed_outer_step(
    seed: int, factor: float, beta: float, clients: int, local_steps: int
) -> None:
    problem = least_squares(heterogeneity="sorted", seed=seed, **SMALL)
    setting = Setting(
        step_size=factor / problem.smoothness,
        local_steps=local_steps,
        rounds=6,
        participants=clients,
        outer_step=beta,
    )
    assert LEMMA_2.applies(problem, setting)[0]
    result = run(problem, setting, seeds=2)
    assert (margins(LEMMA_2, problem, result, setting) >= 1 - 1e-9).all()


@pytest.mark.parametrize("theorem", [*T7_FAMILY, T7, T8A], ids=lambda t: t.name)
@pytest.mark.parametrize("heterogeneity", ["iid", "sorted"])
def test_they_hold_in_exact_expectation(theorem: Theorem, heterogeneity: Any) -> None:
    problem = least_squares(
        n_nodes=4, samples_per_node=20, dimension=40, rank=5, heterogeneity=heterogeneity
    )
    plain = Setting(step_size=theorem.default_step(problem, 3), local_steps=3, rounds=40)
    setting = theorem.setting(problem, plain)
    if not theorem.applies(problem, setting)[0]:
        assert heterogeneity == "sorted" and problem.similarity == problem.local_growth == 0
        return
    clients = [1, 2, 3] if setting.participants else [None]
    for m in clients:
        moments = exact_moments(
            problem,
            step_size=setting.step_size,
            local_steps=3,
            rounds=40,
            participants=m,
            outer_step=float(setting.outer_step),
            record=[],
        )
        bound = theorem.bound(problem, replace(setting, participants=m), 120)
        assert theorem.metric.read(moments) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("clients", [1, 2, 5])
@pytest.mark.parametrize("local_steps", [1, 4])
def test_i7_meets_t7_with_equality_for_one_client(clients: int, local_steps: int) -> None:
    instance = instance_axes(30, local_steps, 2.0, n_nodes=5, clients=clients)
    s = instance.setting
    assert isinstance(instance.problem, MarginProblem)
    moments = exact_moments(
        instance.problem,
        step_size=s.step_size,
        local_steps=local_steps,
        rounds=30,
        participants=clients,
        record=[],
    )
    measured = float(instance.metric.read(moments))
    assert measured == pytest.approx(instance.value, rel=1e-12)
    (theorem,) = (t for t in T7_FAMILY if t.name == instance.theorem)
    ratio = theorem.bound(instance.problem, s, s.iterations) / measured
    assert ratio == pytest.approx(instance.limit, rel=1e-9)
    assert (abs(ratio - 1) < 1e-9) == (clients == 1)


@pytest.mark.parametrize(
    ("theorem", "instance"),
    [
        (LEMMA_2, instance_equality(7, 3, 2.0)),
        (T8A, instance_damped(400, 3, 2.0, beta=0.3)),
        (T8B, instance_extrapolated(9, 4, 2.0)),
        (T8B, instance_extrapolated(9, 1, 1.0, spread=0.4)),
        (T8C, instance_polyak(9, 4, 2.0)),
    ],
)
@pytest.mark.parametrize("engine", ["numpy", "numba", "margin"])
def test_instances_have_their_closed_forms(
    theorem: Theorem, instance: Instance, engine: str
) -> None:
    assert instance.theorem == theorem.name
    s = instance.setting
    result = run(instance.problem, s, seeds=1, engine=engine)
    measured = float(instance.metric.read(result)[0])
    # I1 states its L with a slack of 1e-12.
    assert measured == pytest.approx(instance.value, rel=1e-9)
    ratio = theorem.bound(instance.problem, s, s.iterations) / measured
    assert ratio == pytest.approx(instance.limit, rel=1e-2)


# ---- and they fail when broken -------------------------------------------------------------------


def test_t7_fails_when_clients_are_not_drawn_uniformly() -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    setting = replace(setting_of(T7, problem), rounds=400)
    bound = T7.bound(problem, setting, setting.iterations)
    fair = run(problem, setting)
    biased = run(problem, setting, variant=SameClients(), participants=None)
    assert (T7.metric.read(fair) < bound).all()
    assert (T7.metric.read(biased) > bound).all()


@pytest.mark.parametrize("theorem", [T8B, T8B_BEST], ids=lambda t: t.name)
def test_t8b_fails_beyond_p_over_q(theorem: Theorem) -> None:
    problem = least_squares(heterogeneity="sorted", **SMALL)
    setting = setting_of(theorem, problem, gradient="full")
    result = run(
        problem, setting, variant=GreedyServer(), outer_step=1.0, participants=None, seeds=1
    )
    assert (margins(theorem, problem, result, setting) < 0.5).all()


@pytest.mark.parametrize("theorem", [LEMMA_2, T8B, T8C], ids=lambda t: t.name)
def test_they_fail_beyond_the_admissible_local_step(theorem: Theorem) -> None:
    problem = MarginProblem([np.eye(1)], [np.zeros(1)], start=np.ones(1))
    setting = setting_of(theorem, problem)
    result = run(problem, setting, step_size=2.5)
    assert (margins(theorem, problem, result, setting) < 1).all()


def test_what_is_not_allowed_is_named() -> None:
    problem = least_squares(**SMALL)
    plain = Setting(step_size=1.0, local_steps=2, rounds=5)
    for theorem, setting, reason in [
        (T8A, replace(plain, outer_step=1.2), "beta = 1.2, allowed: 0 < beta <= 1"),
        (T8B, replace(plain, outer_step="polyak"), "allowed: extrapolated, half-extrapolated"),
        (T8C, plain, "beta = 1.0, allowed: polyak"),
        (T7, replace(plain, participants=5), "m = 5, allowed: 1 to 4"),
        (T7, replace(plain, outer_step=0.5), "beta = 0.5, allowed: 1"),
        (T8B_BEST, replace(plain, outer_step="extrapolated"), "stochastic, allowed: full"),
    ]:
        ok, why = theorem.applies(problem, setting)
        assert not ok and reason in why, (theorem.name, why)
    curved = sigmoid_regression(**SMALL)
    assert not LEMMA_2.applies(curved, plain)[0]


def test_a_round_metric_needs_the_rounds() -> None:
    result = run_local_sgd(least_squares(**SMALL), step_size=1.0, rounds=3)
    with pytest.raises(TypeError, match="record_rounds=True"):
        T8B.metric.read(result)
