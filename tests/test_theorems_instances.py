"""Every instance has its closed form, its constants, and the ratio that its docstring proves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.problems.explicit import ExplicitProblem, quadratic_nodes
from theory.simulation.local_sgd import run_local_sgd
from theory.theorems import (
    THEOREMS,
    Instance,
    all_instances,
    find_theorems,
    instance_1,
    instance_2,
    instance_5,
    instance_6,
    instance_bend,
    instance_huber,
    instance_simplex,
)
from theory.theorems.t2_synchronised import bound as bound_t2
from theory.theorems.t2_synchronised import least_last_loss
from theory.theorems.t3_similar import bound as bound_t3
from theory.theorems.t3_similar import least_similar_loss
from theory.verification.tightness import simulate_instance


def ratio(instance: Instance) -> float:
    """Bound of the instance's theorem over its simulated value."""
    theorem = find_theorems([instance.theorem])[0]
    ok, why = theorem.applies(instance.problem, instance.setting)
    assert ok, why
    bound = theorem.bound(instance.problem, instance.setting, instance.setting.iterations)
    return bound / simulate_instance(instance)


@pytest.mark.parametrize("local_steps", [1, 4])
def test_every_instance_has_its_closed_form_and_its_limit(local_steps: int) -> None:
    for instance in all_instances(local_steps, rounds=2_000):
        assert simulate_instance(instance) == pytest.approx(instance.value, rel=1e-9)
        assert ratio(instance) == pytest.approx(instance.limit, rel=0.01), instance.theorem


# ---- the functions are what their docstrings say -------------------------------------------------


def on_a_line(problem: ExplicitProblem, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    models = x[:, None, None]
    return problem.node_losses(models)[:, 0], problem.node_gradients(models)[:, 0, 0]


@pytest.mark.parametrize(
    "instance",
    [
        instance_huber(4, 3, 2.0, 0.4),
        instance_huber(1),
        instance_bend(0.3),
        instance_bend(1.4, 2.0, 0.6),
    ],
    ids=lambda i: f"{i.problem.name}-{i.problem.smoothness:g}",
)
def test_functions_of_one_variable_are_convex_smooth_and_grow(instance: Instance) -> None:
    problem = instance.problem
    assert isinstance(problem, ExplicitProblem)
    x = np.linspace(-3, 3, 60_001)
    value, slope = on_a_line(problem, x)
    step = x[1] - x[0]
    assert (value >= 0.5 * problem.local_growth * x**2 - 1e-12).all() and value[30_000] == 0
    change = np.diff(slope) / step
    assert change.min() >= -1e-9 and change.max() <= problem.smoothness * (1 + 1e-9)
    # The slope is that of the value: trapezoids, whose error is a step's curvature at most.
    trapezoid = 0.5 * step * (slope[1:] + slope[:-1])
    np.testing.assert_allclose(np.diff(value), trapezoid, atol=problem.smoothness * step**2)
    if problem.local_growth:
        assert np.min(value[x > 2] / x[x > 2] ** 2) == pytest.approx(problem.local_growth / 2)


@given(seed=st.integers(0, 1000), n=st.integers(1, 4), d=st.integers(1, 4))
def test_the_constants_of_quadratics_are_those_of_many_directions(
    seed: int, n: int, d: int
) -> None:
    random = np.random.default_rng(seed)
    roots = random.standard_normal((n, d, d + 1))
    hessians = roots @ np.swapaxes(roots, 1, 2)
    largest = float(np.linalg.eigvalsh(hessians)[:, -1].max())
    problem = quadratic_nodes(hessians, np.ones(d), largest, "random")
    x = random.standard_normal((20_000, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    own = problem.node_losses(np.broadcast_to(x[:, None], (len(x), n, d)))
    gradients = problem.node_gradients(np.broadcast_to(x[:, None], (len(x), n, d)))
    f = problem.global_loss(x)
    second = (gradients**2).sum(axis=2).mean(axis=1) / (gradients.mean(axis=1) ** 2).sum(axis=1)
    slack = 1 + 1e-9
    for constant, found in (
        (problem.similarity, (own / f[:, None]).min()),
        (problem.local_growth, 2 * own.min()),
        (problem.global_growth, 2 * f.min()),
    ):
        assert constant <= found * slack
    assert problem.strong_growth * slack >= second.max()
    assert problem.global_smoothness * slack >= 2 * f.max()
    if d == 1:
        np.testing.assert_allclose(
            [problem.similarity, problem.local_growth, problem.strong_growth],
            [(own / f[:, None]).min(), 2 * own.min(), second.max()],
        )


# ---- IH and IS -----------------------------------------------------------------------------------


@given(
    rounds=st.integers(1, 12),
    local_steps=st.integers(1, 5),
    smoothness=st.floats(0.1, 10),
    factor=st.floats(0.01, 1.0),
)
def test_the_huber_function_meets_s1_for_every_schedule(
    rounds: int, local_steps: int, smoothness: float, factor: float
) -> None:
    instance = instance_huber(rounds, local_steps, smoothness, factor)
    assert ratio(instance) == pytest.approx(1.0, rel=1e-9)


@given(
    n=st.integers(2, 5),
    share=st.floats(0.02, 0.98),
    rounds=st.integers(1, 6),
    extra=st.integers(0, 3),
)
def test_the_simplex_meets_s4_for_every_number_of_nodes(
    n: int, share: float, rounds: int, extra: int
) -> None:
    growth = share * (n - 1) / n
    instance = instance_simplex(rounds, 2 + extra, n, growth)
    assert instance.problem.global_growth == pytest.approx(growth)
    assert instance.problem.local_growth == 0
    assert ratio(instance) == pytest.approx(1.0, rel=1e-9)


# ---- I5 ------------------------------------------------------------------------------------------

CELLS = [
    (c, k, r, factor)
    for c in (0.0, 0.01, 0.1, 0.3, 0.7, 1.0)
    for k in (1, 2, 5, 20)
    for r in (1, 3, 12)
    for factor in (0.1, 0.5, 0.9, 1.0)
]


def loop_value(instance: Instance, outer: float = 1.0) -> float:
    """f(xbar_R) by matrix products written out."""
    problem, setting = instance.problem, instance.setting
    basis = np.eye(2)
    models = np.stack([np.tile(b, (problem.n_nodes, 1)) for b in basis])
    hessians = np.swapaxes(problem.node_gradients(models), 0, 1)  # (n, d, d), columns H e_j
    x = np.array(problem.start)
    for _ in range(setting.rounds):
        ends = []
        for h in hessians:
            y = x.copy()
            for _ in range(setting.local_steps):
                y = y - setting.step_size * h @ y
            ends.append(y)
        x = x + outer * (np.mean(ends, axis=0) - x)
    return float(0.5 * x @ hessians.mean(axis=0) @ x)


def test_i5_has_its_similarity_its_closed_form_and_its_lower_bound_on_a_grid() -> None:
    smallest = math.inf
    for c, k, rounds, factor in CELLS:
        instance = instance_5(rounds, k, c, 1.0, factor)
        problem = instance.problem
        p = c * (2 - c)
        count = 2 * ((1 - p) * rounds + p * k * rounds) + 1
        s, low = (1 - p) / count, p / count
        crossed = (1 - low) ** 2 * s * (1 - s)
        formula = 1 - math.sqrt(crossed / (crossed + low)) if crossed + low else 0.0
        assert problem.similarity == pytest.approx(formula, abs=1e-9)
        assert problem.similarity >= c - 1e-9
        assert loop_value(instance) == pytest.approx(instance.value, rel=1e-10)
        least = least_similar_loss(L=1.0, D=1.0, c=c, K=k, R=rounds)
        smallest = min(smallest, instance.value / least)
        # And it is a problem of the class: below both upper bounds.
        eta = factor
        assert instance.value <= bound_t2(L=1.0, D=1.0, eta=eta, R=rounds)
    assert 1.0 <= smallest < 1.01


@pytest.mark.parametrize("c", [0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("local_steps", [1, 3, 10, 100])
def test_upper_and_lower_bounds_are_within_6e_of_one_another_for_every_c_and_k(
    c: float, local_steps: int
) -> None:
    for rounds in (1, 5, 50, 5000):
        upper = min(
            bound_t2(L=1.0, D=1.0, eta=1.0, R=rounds),
            bound_t3(L=1.0, D=1.0, c=c, eta=1.0, T=local_steps * rounds),
        )
        lower = least_similar_loss(L=1.0, D=1.0, c=c, K=local_steps, R=rounds)
        # The +1 of N and the factor 1 - 1/(4N) count in short runs only.
        assert lower <= upper <= 6 * math.e * lower * (1 + 0.6 / rounds)
    p = c * (2 - c)
    limit = 2 * math.e * ((1 - p) + p * local_steps) / max(1.0, c * local_steps)
    assert upper / lower == pytest.approx(limit, rel=1e-3)


def test_i5_ends_in_i1_without_similarity_and_in_i2_with_equal_nodes() -> None:
    for rounds, k in ((3, 1), (5, 4)):
        assert instance_5(rounds, k, 0.0).value == pytest.approx(instance_1(rounds, k).value)
        assert instance_5(rounds, k, 1.0).value == pytest.approx(instance_2(rounds, k).value)


# ---- I6 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local_steps", [1, 2, 3, 7])
@pytest.mark.parametrize("rounds", [1, 2, 5, 20])
def test_i6_defeats_every_pair_of_fixed_steps(local_steps: int, rounds: int) -> None:
    least = least_last_loss(L=1.0, D=1.0, R=rounds)
    for factor in (0.01, 0.3, 0.9, 1.0, 1.1, 1.5, 1.9, 1.99):
        for outer in (0.01, 0.2, 0.7, 1.0, 1.4, 1.99, 2.0, 3.0, 10.0, 100.0):
            instance = instance_6(rounds, local_steps, 1.0, factor, outer)
            assert instance.value >= least
            assert np.linalg.norm(instance.problem.start) == pytest.approx(1.0)
            found = loop_value(instance, outer)
            assert found == pytest.approx(instance.value, rel=1e-9)


def test_i6_is_run_by_the_simulator_and_may_have_any_even_number_of_nodes() -> None:
    for n in (2, 6):
        instance = instance_6(4, 3, 2.0, 0.7, 1.0, n)
        assert instance.problem.n_nodes == n
        assert simulate_instance(instance) == pytest.approx(instance.value, rel=1e-12)


# ---- the makers and the simulator ----------------------------------------------------------------

MAKERS: list[Callable[..., Instance]] = [instance_huber, instance_simplex, instance_5]


@pytest.mark.parametrize("maker", MAKERS)
def test_an_explicit_problem_runs_with_stochastic_gradients_too(
    maker: Callable[..., Instance],
) -> None:
    """One sample a node: every draw is the full gradient."""
    instance = maker(3, 3)
    runs = [
        run_local_sgd(
            instance.problem,
            step_size=instance.setting.step_size,
            local_steps=3,
            rounds=3,
            gradient=gradient,
            averages=("batch_loss",),
        )
        for gradient in ("full", "stochastic")
    ]
    for name in ("global_loss", "distance"):
        np.testing.assert_array_equal(runs[0].history[name], runs[1].history[name])
    np.testing.assert_array_equal(runs[0].averages["batch_loss"], runs[1].averages["batch_loss"])


def test_every_theorem_but_t5_has_an_instance_and_a_way_to_be_found() -> None:
    for theorem in THEOREMS:
        assert find_theorems([theorem.name])[0] is theorem
        assert theorem.instances or theorem.tightest == "none known"
