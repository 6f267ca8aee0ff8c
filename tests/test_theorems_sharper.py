"""S1-S9: each sharper bound holds by a second route, is never above the plain one, and is attained."""

from __future__ import annotations

from itertools import product

import loops
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from theory.problems.generators import (
    least_squares,
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.problems.losses import SIGMOID_REGRESSION
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.support.verdicts import HOLDS
from theory.theorems import (
    SHARPER,
    THEOREMS,
    Setting,
    Theorem,
    find_theorems,
    instance_0,
    instance_3,
    t1_local_losses,
    t2_synchronised,
    t4_linear,
    t6_nonconvex,
)
from theory.theorems.base import BestAtRounds, Metric
from theory.verification.check import verify

SEEDS = st.integers(0, 10_000)
ROUNDING = 1 + 1e-9


# ---- S1 ------------------------------------------------------------------------------------------


@given(
    seed=SEEDS,
    n=st.integers(1, 3),
    d=st.integers(1, 3),
    local_steps=st.integers(1, 4),
    rounds=st.integers(1, 4),
    step=st.floats(0.02, 1.98),
)
def test_s1_holds_on_every_path_for_any_choice_of_samples(
    seed: int, n: int, d: int, local_steps: int, rounds: int, step: float
) -> None:
    random = np.random.default_rng(seed)
    nodes = loops.random_nodes(random, n, d, most=3)
    start = random.standard_normal(d)
    path = loops.run(
        nodes,
        start,
        step=step,
        local_steps=local_steps,
        rounds=rounds,
        choose=lambda i, t: random.integers(0, len(nodes[i]), random.integers(1, 3)).tolist(),
    )
    square, total = float(start @ start), local_steps * rounds
    bound = t1_local_losses.sharp_bound(L=1.0, D=square, eta=step, T=total)
    assert np.mean(path.batch_losses) <= bound * ROUNDING
    assert bound <= t1_local_losses.bound(L=1.0, D=square, eta=step, T=total) * ROUNDING


@given(count=st.integers(1, 8), decrease=st.floats(0.02, 1.0))
def test_lemma_3_is_the_value_of_its_linear_programme(count: int, decrease: float) -> None:
    # Variables F_0..F_{m-1}, D_1..D_m; D_0 = 1.
    rows, right = [], []
    for t in range(count):
        row = np.zeros(2 * count)
        row[t] = 1.0
        if t:
            row[count + t - 1] = -0.5
        rows.append(row)
        right.append(0.0 if t else 0.5)
        row = np.zeros(2 * count)
        row[t], row[count + t] = 2 * decrease, 1.0
        if t:
            row[count + t - 1] = -1.0
        rows.append(row)
        right.append(0.0 if t else 1.0)
    cost = np.concatenate([-np.ones(count), np.zeros(count)])
    solved = linprog(cost, A_ub=np.array(rows), b_ub=right)
    assert -solved.fun == pytest.approx(t1_local_losses.limited_sum(decrease, count), rel=1e-9)


@given(step=st.floats(0.02, 1.0), local_steps=st.integers(1, 6))
def test_the_decrease_of_a_round_is_the_least_of_its_control_problem(
    step: float, local_steps: int
) -> None:
    def cost(a: np.ndarray) -> float:
        v = 1 - step * np.concatenate([[0.0], np.cumsum(a)[:-1]])
        return float(v @ v + (1 - step) * a @ a)

    start = np.full(local_steps, 0.1)
    least = minimize(cost, start, bounds=[(0, None)] * local_steps, options={"ftol": 1e-14}).fun
    found = t2_synchronised.round_decrease(step, local_steps)
    # What the last step does to v is not seen by the sum, so the cost alone decides a.
    assert step * least == pytest.approx(found, rel=1e-5)


@given(
    seed=SEEDS,
    n=st.integers(1, 3),
    local_steps=st.integers(1, 5),
    rounds=st.integers(1, 4),
    step=st.floats(0.02, 1.98),
)
def test_the_sharper_t2_holds(
    seed: int, n: int, local_steps: int, rounds: int, step: float
) -> None:
    random = np.random.default_rng(seed)
    nodes, start = loops.random_nodes(random, n, 2, most=2), random.standard_normal(2)
    path = loops.run(nodes, start, step=step, local_steps=local_steps, rounds=rounds)
    bound = t2_synchronised.sharp_bound(
        L=1.0, D=float(start @ start), eta=step, K=local_steps, R=rounds
    )
    assert path.global_losses()[:-1].mean() <= bound * ROUNDING
    plain = t2_synchronised.bound(L=1.0, D=float(start @ start), eta=step, R=rounds)
    assert bound <= plain * ROUNDING


# ---- S2, S3, S4, S5: full gradients --------------------------------------------------------------


@given(
    seed=SEEDS,
    n=st.integers(2, 4),
    d=st.integers(1, 3),
    local_steps=st.integers(2, 9),
    rounds=st.integers(1, 5),
)
def test_s2_and_s3_hold_for_two_and_more_local_steps(
    seed: int, n: int, d: int, local_steps: int, rounds: int
) -> None:
    random = np.random.default_rng(seed)
    nodes, start = loops.random_nodes(random, n, d), random.standard_normal(d)
    path = loops.run(nodes, start, step=1.0, local_steps=local_steps, rounds=rounds)
    losses, square = path.global_losses(), float(start @ start)
    last = float(path.synchronised[-1] @ path.synchronised[-1])
    trapezoid = losses.sum() - 0.5 * (losses[0] + losses[-1])
    assert losses[-1] <= t2_synchronised.last_bound(L=1.0, D=square) * ROUNDING
    assert trapezoid <= (square - last) / 4 + 1e-12 * square
    halved = t2_synchronised.halved_bound(L=1.0, D=square, R=rounds, f0=losses[0])
    assert losses[:-1].mean() <= halved * ROUNDING <= square / (2 * rounds) * ROUNDING**2
    assert losses.min() <= t2_synchronised.halved_bound(L=1.0, D=square, R=rounds) * ROUNDING


def test_s2_and_s3_need_two_local_steps() -> None:
    """K = 1: the worst last model after one round is L D/6, a Huber function, above L D/8 ..."""
    corner = 1 / 3
    nodes = [[(np.ones(1), np.ones((1, 1)), np.array([corner]))]]
    path = loops.run(nodes, np.ones(1), step=1.0, local_steps=1, rounds=1)
    losses = path.global_losses()
    assert losses[-1] == pytest.approx(1 / 6) and losses[-1] > 1 / 8
    # ... and so is the trapezoid, above (D - D_1)/4.
    assert 0.5 * (losses[0] + losses[1]) > 0.25 * (1 - float(path.synchronised[-1][0]) ** 2)


@given(seed=SEEDS, n=st.integers(2, 4), d=st.integers(2, 3), local_steps=st.integers(2, 7))
def test_s4_contracts_every_round(seed: int, n: int, d: int, local_steps: int) -> None:
    random = np.random.default_rng(seed)
    ranks = random.integers(1, d + 1, n)
    bases = [np.linalg.qr(random.standard_normal((d, d)))[0][:, :r] for r in ranks]
    hessians = np.array([b @ np.diag(random.uniform(0.01, 1, b.shape[1])) @ b.T for b in bases])
    mu = float(np.linalg.eigvalsh(hessians.mean(axis=0))[0])
    x = random.standard_normal(d)
    square = float(x @ x)
    for _ in range(3):
        powers = [np.linalg.matrix_power(np.eye(d) - h, local_steps) for h in hessians]
        x = np.mean(powers, axis=0) @ x
    claimed = t4_linear.sharp_bound_global(L=1.0, D=square, mu=max(mu, 0.0), R=3)
    assert x @ x <= claimed * ROUNDING + 1e-15
    assert claimed <= t4_linear.bound(D=square, mu=max(mu, 0.0), eta=1.0, T=3) * ROUNDING


@given(seed=SEEDS, step=st.floats(0.05, 1.0), growth=st.floats(0.01, 0.9))
def test_s5_contracts_every_step_of_a_growing_function(
    seed: int, step: float, growth: float
) -> None:
    # Along a ray: the envelope of a convex piecewise quadratic above the one that growth asks for.
    random = np.random.default_rng(seed)
    c = growth / (1 - growth)
    slopes = random.uniform(0, 2, 4) * c
    knots = np.linspace(0, 4, 4001)
    phi = np.maximum.reduce(
        [0.5 * c * knots**2, *(s * np.maximum(knots - random.uniform(0, 1), 0) for s in slopes)]
    )
    x = random.uniform(0.1, 2.0)
    z = knots[np.argmin(phi + 0.5 * (x - knots) ** 2)]
    moved = x - step * (x - z)
    factor = 1 - step * growth / (2 - growth)
    assert abs(moved) <= factor * x + 2e-3
    assert t4_linear.sharp_bound(L=1, D=1, mu=growth, eta=step, T=1) == pytest.approx(factor**2)


def test_the_worst_case_of_t4_at_k_1_and_r_1_is_that_of_the_notes() -> None:
    # mu = 0.1: ((1 - mu)/(1 - mu/2))^2 = 0.8975, not 0.9.
    value = t4_linear.sharp_bound(L=1.0, D=1.0, mu=0.1, eta=1.0, T=1)
    assert value == pytest.approx((0.9 / 0.95) ** 2) and round(value, 4) == 0.8975


def test_s5_asks_for_growth_beyond_the_iterates() -> None:
    """Growth within sqrt(D) only, as is known for soft labels, is not enough: then it says so."""
    (s5,) = find_theorems(["T4/S5"])
    setting = Setting(step_size=1.0, local_steps=1, rounds=1, gradient="full")
    problem = instance_3(1).problem
    assert s5.applies(problem, setting)[0]
    soft = realizable_logistic(n_nodes=1, samples_per_node=4, dimension=12, rank=3)
    assert soft.local_growth > 0
    ok, why = s5.applies(
        soft, Setting(step_size=1 / soft.smoothness, local_steps=1, rounds=1, gradient="full")
    )
    assert not ok and "growth radius" in why
    # And S5 would be false: a Huber function that grows with mu on |x| <= 1 = sqrt(D), not beyond.
    mu = 0.5
    corner = 1 - np.sqrt(1 - mu)
    huber = (np.ones(1), np.ones((1, 1)), np.array([corner]))
    for x in np.linspace(0, 1, 101):
        assert loops.loss(huber, np.array([x])) >= mu * x * x / 2 - 1e-15
    path = loops.run([[huber]], np.ones(1), step=1.0, local_steps=1, rounds=1)
    square = float(path.synchronised[-1] @ path.synchronised[-1])
    assert square == pytest.approx(1 - mu)
    assert square > t4_linear.sharp_bound(L=1.0, D=1.0, mu=mu, eta=1.0, T=1)


# ---- S7, S8 --------------------------------------------------------------------------------------


def test_s8_is_the_largest_curvature_over_all_targets() -> None:
    assert SIGMOID_REGRESSION.curvature == pytest.approx(0.0770, abs=5e-5)
    z, t = np.linspace(-12, 12, 4801), np.linspace(-40, 40, 161)[:, None]
    step = 1e-4
    above = SIGMOID_REGRESSION.derivative(z + step, t + 0 * z)
    below = SIGMOID_REGRESSION.derivative(z - step, t + 0 * z)
    largest = np.abs(above - below).max() / (2 * step)
    # Differences of the slope: at most the bound, and within a thousandth of it at targets near 0 or 1.
    bound = SIGMOID_REGRESSION.curvature
    assert 0.999 * bound <= largest <= bound * (1 + 1e-6)
    # Half of what |s'| <= 1/4, |s''| <= 1/(6 sqrt 3) and a residual of at most 1 give.
    assert bound < 0.5 * (1 / 16 + 1 / (6 * np.sqrt(3)))


def test_s7_has_the_constants_of_the_notes() -> None:
    assert t6_nonconvex.sharp_bound(f0=1, eta=1, T=1, x=0.1) == pytest.approx(2.66, abs=0.005)
    # x = 1/7: f0/(eta T) times it, eta = x/(rho K L), is 23 rho K L f0/T, and no x does much better.
    x = np.linspace(0.01, 0.25, 1000)
    constants = 1 / (x * (0.5 - x - 2 * x**2 - 4 * x**3))
    at_a_seventh = 7 * t6_nonconvex.sharp_bound(f0=1, eta=1, T=1, x=1 / 7)
    assert at_a_seventh <= 23 and constants.min() >= 0.99 * at_a_seventh


@pytest.mark.parametrize("local_steps", [1, 4])
def test_s7_holds_at_its_larger_step(local_steps: int) -> None:
    problem = sigmoid_regression(n_nodes=2, samples_per_node=2, dimension=32, rank=32)
    plain, sharp = find_theorems(["T6", "T6/S7"])
    eta = sharp.default_step(problem, local_steps)
    setting = Setting(step_size=eta, local_steps=local_steps, rounds=60, gradient="full")
    assert sharp.applies(problem, setting)[0] and not plain.applies(problem, setting)[0]
    run = run_local_sgd(
        problem,
        step_size=eta,
        local_steps=local_steps,
        rounds=60,
        gradient="full",
        averages=("sync_gradient",),
    )
    bound = sharp.bound(problem, setting, setting.iterations)
    assert sharp.metric.read(run)[0] <= bound
    old = Setting(step_size=0.7 * eta, local_steps=local_steps, rounds=60)
    assert bound < plain.bound(problem, old, old.iterations)


# ---- S9 ------------------------------------------------------------------------------------------


@given(seed=SEEDS, n=st.integers(1, 4), share=st.floats(0.0, 0.98))
def test_s9_holds_exactly_on_least_squares_with_one_local_step(
    seed: int, n: int, share: float
) -> None:
    problem = least_squares(n_nodes=n, samples_per_node=6, dimension=20, rank=4 + n, seed=seed)
    kappa = t1_local_losses.mean_smoothness(problem, Setting(step_size=1, local_steps=1, rounds=1))
    eta = (1 + share / kappa) / problem.smoothness
    rounds = 15
    moments = exact_moments(problem, step_size=eta, rounds=rounds)
    bound = t1_local_losses.minibatch_bound(
        L=problem.smoothness, D=problem.initial_distance, eta=eta, T=rounds, kappa=kappa
    )
    assert moments.averages["sync_loss"][-1] <= bound * ROUNDING
    # The constant itself: E||mean_i g_i||^2 <= 2 kappa L f at any x, by enumeration of the samples.
    x = np.random.default_rng(seed).standard_normal(20)
    slopes = problem.features @ x - problem.targets
    gradients = slopes[:, None] * problem.features
    mean = np.array([gradients[problem.node_slice(i)].mean(axis=0) for i in range(n)])
    second = [(gradients[problem.node_slice(i)] ** 2).sum(axis=1).mean() for i in range(n)]
    spread = (np.array(second) - (mean**2).sum(axis=1)).sum() / n**2
    square = float((mean.mean(axis=0) ** 2).sum() + spread)
    assert square <= 2 * kappa * problem.smoothness * float(problem.global_loss(x)) * ROUNDING


def test_s9_is_false_for_two_local_steps() -> None:
    problem = MarginProblem(
        [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])], [np.zeros(1)] * 2, start=np.ones(2)
    )
    run = run_local_sgd(problem, step_size=1.9, local_steps=2, rounds=200)
    total = 200 * float(run.averages["sync_loss"][0, 0, -1])
    claimed = t1_local_losses.minibatch_bound(L=1.0, D=2.0, eta=1.9, T=1, kappa=0.5)
    assert total == pytest.approx(2.763, abs=0.001) and claimed == pytest.approx(0.957, abs=0.001)
    (s9,) = find_theorems(["T2/S9"])
    assert not s9.applies(problem, Setting(step_size=1.9, local_steps=2, rounds=9))[0]
    assert s9.applies(problem, Setting(step_size=1.9, local_steps=1, rounds=9, gradient="full"))[0]


# ---- all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", SHARPER, ids=lambda t: t.name)
def test_a_sharper_bound_is_never_above_the_plain_one(variant: Theorem) -> None:
    (plain,) = [t for t in THEOREMS if t.name == variant.name.partition("/")[0]]
    problems = (
        instance_0("T1", 1).problem,
        least_squares(n_nodes=2, samples_per_node=6, dimension=20, rank=4),
        separable_logistic(n_nodes=2, samples_per_node=3, dimension=12),
    )
    compared = 0
    for problem, factor, local_steps in product(problems, (0.01, 0.3, 1.0, 1.4), (1, 2, 6)):
        setting = Setting(
            step_size=factor / problem.smoothness,
            local_steps=local_steps,
            rounds=7,
            gradient="full",
        )
        if variant.applies(problem, setting)[0] and plain.applies(problem, setting)[0]:
            t = setting.iterations
            below, above = variant.bound(problem, setting, t), plain.bound(problem, setting, t)
            # The best and the last of the f(xbar_r) have T2's own bound or none to be below.
            assert below <= above * ROUNDING or variant.name == "T2/S2"
            compared += 1
    assert compared


@pytest.mark.parametrize("name", ["T1/S1", "T2/S2", "T2/S3", "T2/S3'", "T3/S1", "T4'/S4", "T0/S1"])
def test_a_sharper_variant_is_verified_as_a_theorem_is(name: str) -> None:
    (variant,) = [t for t in SHARPER if t.name == name]
    problem = least_squares(
        n_nodes=2, samples_per_node=6, dimension=20, rank=4, heterogeneity="iid"
    )
    check = verify(variant, problem, local_steps=3, rounds=8, gradient="full", engine="numpy")
    assert check.verdict == HOLDS and check.ratio >= 1


def test_the_best_of_the_rounds_counts_the_last_model() -> None:
    best = BestAtRounds()
    problem = instance_0("T1", 1).problem
    run = run_local_sgd(
        problem, step_size=0.5, local_steps=2, rounds=3, gradient="full", averages=best.averages
    )
    assert best.read(run)[0] == run.history["global_loss"][0, 0, -1] < run.best_sync_loss[0, 0, -1]
    assert str(best) == "best sync_loss" and best != Metric("sync_loss", averaged=True)
