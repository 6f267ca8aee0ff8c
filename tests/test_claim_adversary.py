"""The adversary measures exactly, its gradients are right, and it finds the known worst problems."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claim_cases import claim, game

from theory.claim import adjoints, adversary, adversary_search, search
from theory.claim.__main__ import refutation_text
from theory.claim.adjoints import Loss
from theory.claim.adversary import attack
from theory.claim.claim import METRICS, measure
from theory.claim.counterexample import python_lines
from theory.claim.expression import parse
from theory.claim.verdict import NOT_REFUTED, grid, step_factors, try_to_break
from theory.simulation.local_sgd import run_local_sgd
from theory.theorems import Setting

GAMES = [
    (gradient, loss) for gradient in ("full", "stochastic") for loss in adversary.LOSSES.values()
]


@pytest.mark.parametrize(
    ("metric", "gradient", "loss"),
    # The least of expectations is no metric of the engines.
    [(m, *g) for g in GAMES for m in METRICS if (m, g[0]) != ("best", "stochastic")],
    ids=lambda part: getattr(part, "name", part),
)
def test_the_adversary_measures_as_the_engines_do(metric: str, gradient: str, loss: Loss) -> None:
    attacked = game("L*D", metric, gradient=gradient, samples=2, dimension=3, loss=loss)
    rows, start = adversary.unpack(attacked, np.random.default_rng(0).standard_normal(15))
    problem = adversary_search.margin_problem(adversary.Candidate(rows, start, 1.0), loss)
    setting = Setting(step_size=1 / problem.smoothness, local_steps=2, rounds=2, gradient=gradient)
    found = measure(claim("L*D", metric, gradient=gradient), problem, setting, twice=True)
    assert found is not None and found.agree
    # All 2^8 sequences of draws are there, so the adversary's value is exact in any case.
    exact = adversary.measure(attacked, rows, start).value
    assert found.sampled == (gradient == "stochastic" and not loss.quadratic)
    assert exact == pytest.approx(found.value, rel=0.1 if found.sampled else 1e-9)
    assert exact >= found.low * (1 - 1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_the_mean_over_all_draws_is_the_exact_expectation(metric: str) -> None:
    rows, start = np.random.default_rng(3).standard_normal((2, 2, 2)) / 2, np.array([0.6, 0.8])
    schedule: dict[str, Any] = {"step": 0.8, "local_steps": 2, "rounds": 2}
    draws = adversary._draws(2, 2, 4)
    assert draws.shape == (256, 4, 2, 2) and len(np.unique(draws, axis=0)) == 256
    every = adjoints.paths(adversary.SQUARED, metric, rows, start, draws=draws, **schedule)
    exact = adjoints.moments(metric, rows, start, **schedule)
    assert every.value == pytest.approx(exact.value, rel=1e-12)
    assert every.rows == pytest.approx(exact.rows, rel=1e-9, abs=1e-12)
    assert every.start == pytest.approx(exact.start, rel=1e-9, abs=1e-12)
    assert every.step == pytest.approx(exact.step, rel=1e-9)


def test_with_too_many_sequences_all_candidates_share_the_same_random_ones() -> None:
    draws = adversary._draws(3, 2, 6)
    assert draws.shape == (adversary.PATHS, 6, 3, 2) and (draws.sum(-1) == 1).all()
    attacked = game(
        "L*D",
        "last",
        gradient="stochastic",
        samples=2,
        n_nodes=3,
        local_steps=3,
        loss=adversary.HUBER_LOSS,
    )
    at = np.random.default_rng(0).standard_normal(14)
    assert adversary.log_ratio(attacked, at)[0] == adversary.log_ratio(attacked, at.copy())[0]


def test_a_claim_on_stochastic_gradients_of_any_loss_is_refuted_by_a_confidence_limit() -> None:
    cell = search.Cell(local_steps=1, rounds=2, step_factor=1.0)
    stated = claim("L*D/1000", "last", gradient="stochastic")
    attacked = game(
        stated.text,
        "last",
        gradient="stochastic",
        samples=2,
        local_steps=1,
        loss=adversary.HUBER_LOSS,
    )
    problem = adversary_search.margin_problem(attack(attacked, starts=2), adversary.HUBER_LOSS)
    found = search.judged(search.Report(""), stated, cell, problem, "")
    assert found is not None and found.measured.sampled
    assert found.claimed < found.measured.low < found.measured.value
    assert "; at least" in refutation_text(found) and "'stochastic'" in refutation_text(found)
    # Just above the mean nothing is refuted, though half of such means would exceed it.
    close = claim(f"{found.measured.value}*L*D", "last", gradient="stochastic")
    assert search.judged(search.Report(""), close, cell, problem, "") is None


FORMULAS = [
    ("f0*rho", 0.7),
    ("D/(eta*T)", "1/(2*rho)"),
    ("D/(c*T) + mu", 0.9),
    ("max(c, mu)*f0", 1.3),
]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("gradient", "loss", "text", "step"),
    # Only the squared loss has c and mu in closed form.
    [(*g, *f) for g in GAMES for f in FORMULAS if g[1].quadratic or "mu" not in f[0]],
    ids=lambda part: getattr(part, "name", part),
)
def test_its_gradients_are_those_of_central_differences(
    metric: str, gradient: str, loss: Loss, text: str, step: float | str
) -> None:
    # As many samples a node as dimensions, where c is above 0; for the others independent samples.
    d = 2 if loss.quadratic else 3
    attacked = game(
        text,
        metric,
        gradient=gradient,
        samples=2 if loss.quadratic else 1,
        dimension=d,
        local_steps=3,
        step_factor=parse(step) if isinstance(step, str) else step,
        loss=loss,
    )
    assert not adversary.unknown_constants(attacked)
    size = 2 * attacked.samples * d + d
    at, h = np.random.default_rng(1).standard_normal(size), 1e-6
    value, exact = adversary.log_ratio(attacked, at)
    differences = [
        (
            adversary.log_ratio(attacked, at + h * e)[0]
            - adversary.log_ratio(attacked, at - h * e)[0]
        )
        / (2 * h)
        for e in np.eye(size)
    ]
    assert value > adversary.HOPELESS and np.abs(exact).max() > 1e-3
    assert exact == pytest.approx(differences, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("loss", [adversary.SQUARED, adversary.SIGMOID_LOSS], ids=lambda x: x.name)
@pytest.mark.parametrize(("samples", "dimension"), [(1, 2), (1, 3), (2, 4)])
def test_its_constants_are_those_of_the_problem(loss: Loss, samples: int, dimension: int) -> None:
    attacked = game("L*D", "last", samples=samples, dimension=dimension, loss=loss)
    flat = np.random.default_rng(2).standard_normal((2 * samples + 1) * dimension)
    rows, start = adversary.unpack(attacked, flat)
    problem = adversary_search.margin_problem(adversary.Candidate(rows, start, 1.0), loss)
    known = {"rho": problem.strong_growth, "f0": float(problem.global_loss(start))}
    if loss.quadratic:
        known |= {"c": problem.similarity, "mu": problem.local_growth}
    for name, value in known.items():
        found = adversary.MOVING[name](attacked, rows, start).value
        assert found == pytest.approx(value, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("loss", adversary.LOSSES.values(), ids=lambda loss: loss.name)
def test_its_losses_bend_by_one_at_most(loss: Loss) -> None:
    z, h = np.linspace(-2, 2, 1000), 1e-6
    assert loss.slope(z) == pytest.approx(
        (loss.value(z + h) - loss.value(z - h)) / (2 * h), abs=1e-8
    )
    inner = z[np.abs(np.abs(z) - adversary.HUBER) > 1e-3]
    bends = (loss.slope(inner + h) - loss.slope(inner - h)) / (2 * h)
    assert loss.bend(inner) == pytest.approx(bends, abs=1e-7)
    assert np.abs(loss.bend(z)).max() <= 1 + 1e-12 and (loss.bend(z).min() >= 0) == loss.convex


def test_it_finds_the_worst_ratio_of_t2_from_random_starts() -> None:
    assert attack(game("D/(2*eta*R)", "average_sync"), starts=4).ratio > 0.95


def test_it_finds_the_worst_ratio_of_t3_from_random_starts() -> None:
    found = attack(game("D/(2*c*eta*T)", "average_global", samples=2), starts=6)
    assert 0.95 < found.ratio <= 1 + 1e-9


def test_it_finds_the_crossing_nodes_of_i1_for_the_last_iterate() -> None:
    rounds = 3
    found = attack(game("L*D", "last", local_steps=4, rounds=rounds), starts=4)
    s = 1 / (2 * rounds + 1)
    assert found.ratio > 0.95 * 0.5 * s * (1 - s) ** (2 * rounds)


# ---- without convexity ---------------------------------------------------------------------------


def test_t6_at_its_own_step_size_is_attacked_by_i4_sigmoid_problems_and_the_adversary() -> None:
    t6 = claim("4*f0/(eta*T)", "gradient", "non-convex")
    cells = grid([1], [5], step_factors(["1/(10*rho*K)"]))
    assert "I4" in dict(search.known_problems(cells[0], 0))
    outcome = try_to_break(t6, cells, seconds=4)
    assert outcome.verdict == NOT_REFUTED and t6.homogeneous
    assert outcome.reports[0].tried > 5 and outcome.reports[2].tried
    # eta = 1/(10 rho K L) on each problem: at another step T6 says nothing.
    problem = dict(search.known_problems(cells[0], 0))["random sigmoid regression, sorted nodes"]
    step = cells[0].setting(t6, problem).step_size
    assert step * problem.smoothness * problem.strong_growth == pytest.approx(0.1)


def test_the_adversary_finds_the_worst_ratio_of_one_curve_without_convexity() -> None:
    # f = (L/2) x^2: (1/R) sum_r L^2 x_r^2 over 4 f(x_0)/(eta T), in closed form.
    found = attack(
        game("4*f0/(eta*T)", "gradient", n_nodes=1, local_steps=1, rounds=5, step_factor=0.1),
        starts=4,
    )
    assert found.ratio > 0.95 * (1 - 0.9**10) / (1 - 0.9**2) * 2 * 0.1 / 4
    bold = game("f0/(40*eta*T)", "gradient", loss=adversary.SIGMOID_LOSS, step_factor=0.05)
    assert attack(bold, starts=4).ratio > 1


def test_a_sigmoid_counterexample_is_rebuilt_by_its_lines(tmp_path: Path) -> None:
    cell = search.Cell(local_steps=2, rounds=2, step_factor=parse("1/(10*rho*K)"))
    stated = claim("f0/(40*eta*T)", "gradient", "non-convex")
    attacked = game(
        stated.text, "gradient", step_factor=cell.step_factor, loss=adversary.SIGMOID_LOSS
    )
    problem = adversary_search.margin_problem(attack(attacked, starts=2), adversary.SIGMOID_LOSS)
    setting = cell.setting(stated, problem)
    measured = measure(stated, problem, setting, twice=True)
    assert measured is not None and measured.agree
    found = search.Refutation(
        "adversary", cell, problem, "", setting.step_size, stated.bound(problem, setting), measured
    )
    lines = tmp_path / "lines.py"
    lines.write_text(python_lines(found, tmp_path / "data.npz"))
    run = runpy.run_path(str(lines))["run"]
    expected = run_local_sgd(
        problem,
        step_size=setting.step_size,
        local_steps=2,
        rounds=2,
        gradient="full",
        engine="numpy",
    )
    assert np.array_equal(run.history["global_loss"], expected.history["global_loss"])
