"""Claims: false ones are refuted by an explicit problem, true ones are not, and no verdict says too much."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from theory.claim import adversary, search
from theory.claim.__main__ import (
    HOLDS_HERE,
    NOT_REFUTED,
    REFUTED,
    app,
    grid,
    run_entry,
    step_factors,
    try_to_break,
)
from theory.claim.adjoints import Loss
from theory.claim.adversary import Game, attack
from theory.claim.book import Entry, read_book
from theory.claim.claim import METRICS, from_formula, measure
from theory.claim.counterexample import python_lines
from theory.claim.expression import parse
from theory.claim.lower import largest_loss
from theory.problems.explicit import rank_one_nodes
from theory.problems.files import load_problem
from theory.simulation.local_sgd import run_local_sgd
from theory.support.command import run_command
from theory.support.errors import UserError
from theory.theorems import Setting


def claim(text: str, metric: str = "last", family: str = "convex", gradient: str = "full"):  # type: ignore[no-untyped-def]
    return from_formula(parse(text), metric=metric, family=family, gradient=gradient)


def game(text: str, metric: str, **changes):  # type: ignore[no-untyped-def]
    numbers: dict[str, Any] = {
        "gradient": "full",
        "local_steps": 2,
        "rounds": 2,
        "step_factor": 1.0,
    } | changes
    return Game(claim=parse(text), metric=metric, **numbers)


# ---- verdicts ------------------------------------------------------------------------------------


def test_a_third_of_t2_is_refuted_by_i0_at_the_smallest_size() -> None:
    outcome = try_to_break(claim("D/(6*eta*R)", "average_sync"), grid([1, 2], [1, 2], [1.0]))
    found = outcome.refutation
    assert outcome.verdict == REFUTED and found is not None
    assert found.source == "I0" and (found.cell.local_steps, found.cell.rounds) == (1, 1)
    assert found.measured.agree and found.ratio == pytest.approx(3.0)


def test_where_no_known_problem_refutes_the_exact_worst_case_does() -> None:
    outcome = try_to_break(claim("0.0425*L*D"), grid([3], [2], [1.0]))
    found = outcome.refutation
    assert found is not None and found.search == "exact worst cases"
    # The interface of the simulator: the explicit problem is run anew, here.
    run = run_local_sgd(
        found.problem, step_size=1.0, local_steps=3, rounds=2, gradient="full", engine="numpy"
    )
    assert run.history["global_loss"][0, 0, -1] > 0.0425


def test_a_true_claim_holds_at_the_sizes_that_were_solved_and_no_adversary_is_asked() -> None:
    outcome = try_to_break(claim("L*D/(4*R)", "best"), grid([2], [1, 2], [1.0]))
    assert outcome.verdict == HOLDS_HERE and outcome.claim.homogeneous
    assert outcome.reports[2].tried == 0


def test_outside_the_solved_classes_a_true_claim_is_only_not_refuted() -> None:
    t3 = claim("D/(2*c*eta*T)", "average_global", "similar")
    outcome = try_to_break(t3, grid([2], [1], [1.0]), seconds=4)
    assert outcome.verdict == NOT_REFUTED
    assert outcome.reports[1].left_out and outcome.reports[2].tried


def test_a_search_out_of_time_says_so() -> None:
    outcome = try_to_break(
        claim("D/(2*eta*R)", "average_sync"), grid([2, 3], [3, 4], [0.7]), seconds=0.01
    )
    assert outcome.verdict == NOT_REFUTED
    assert any("time" in reason for report in outcome.reports for reason in report.left_out)


@pytest.mark.parametrize(
    ("text", "metric", "homogeneous"),
    [("L*D/R", "last", True), ("D/(eta*R)", "last", True), ("(1-eta*mu)^T*D", "distance", True),
     ("f0*L", "gradient", True), ("0.1", "last", False), ("L*D^2", "last", False), ("L*D", "distance", False)],
)  # fmt: skip
def test_only_a_homogeneous_claim_is_decided_for_all_l_and_d(
    text: str, metric: str, homogeneous: bool
) -> None:
    assert claim(text, metric).homogeneous is homogeneous


# ---- the adversary -------------------------------------------------------------------------------


GAMES = [
    (gradient, loss)
    for gradient in ("full", "stochastic")
    for loss in adversary.LOSSES.values()
    if gradient == "full" or loss.quadratic
]


@pytest.mark.parametrize(("gradient", "loss"), GAMES, ids=lambda part: getattr(part, "name", part))
@pytest.mark.parametrize("metric", METRICS)
def test_the_adversary_measures_as_the_engines_do(metric: str, gradient: str, loss: Loss) -> None:
    if metric == "best" and gradient == "stochastic":
        pytest.skip("the least of expectations is no metric of the engines")
    attacked = game(
        "L*D", metric, gradient=gradient, samples=2, dimension=3, local_steps=3, loss=loss
    )
    rows, start = adversary.unpack(attacked, np.random.default_rng(0).standard_normal(15))
    problem = search.margin_problem(adversary.Candidate(rows, start, 1.0), loss)
    setting = Setting(step_size=1 / problem.smoothness, local_steps=3, rounds=2, gradient=gradient)
    found = measure(claim("L*D", metric, gradient=gradient), problem, setting, twice=True)
    assert found is not None
    assert adversary.measure(attacked, rows, start).value == pytest.approx(found.value, rel=1e-9)
    assert found.agree


@pytest.mark.parametrize(("gradient", "loss"), GAMES, ids=lambda part: getattr(part, "name", part))
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("text", "step"),
    [("f0*rho", 0.7), ("D/(eta*T)", "1/(2*rho)"), ("D/(c*T) + mu", 0.9), ("max(c, mu)*f0", 1.3)],
)
def test_its_gradients_are_those_of_central_differences(
    metric: str, gradient: str, loss: Loss, text: str, step: float | str
) -> None:
    # As many samples a node as dimensions, where c is above 0; for the others independent samples.
    d = 2 if loss.quadratic else 3
    attacked = game(
        text, metric, gradient=gradient, samples=2 if loss.quadratic else 1, dimension=d,
        local_steps=3, step_factor=parse(step) if isinstance(step, str) else step, loss=loss,
    )  # fmt: skip
    if adversary.unknown_constants(attacked):
        pytest.skip("only the squared loss has c and mu in closed form")
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
    problem = search.margin_problem(adversary.Candidate(rows, start, 1.0), loss)
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
    problem = search.margin_problem(attack(attacked, starts=2), adversary.SIGMOID_LOSS)
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
        problem, step_size=setting.step_size, local_steps=2, rounds=2, gradient="full",
        engine="numpy",
    )  # fmt: skip
    assert np.array_equal(run.history["global_loss"], expected.history["global_loss"])


# ---- lower bounds, the book ----------------------------------------------------------------------


def test_the_largest_loss_over_all_starts_is_the_simulators() -> None:
    kappa, k, rounds, factor = 5.0, 3, 4, 0.7
    small = 1 / kappa
    measured = []
    for start in ([1.0, 0.0], [0.0, 1.0]):
        rows = [[math.sqrt(1 - small), sign * math.sqrt(small)] for sign in (1, -1)]
        problem = rank_one_nodes(rows, start, 1.0, "crossing")
        run = run_local_sgd(
            problem, step_size=factor, local_steps=k, rounds=rounds, gradient="full",
            engine="numpy",
        )  # fmt: skip
        measured.append(run.history["global_loss"][0, 0, -1])
    assert largest_loss(kappa, k, rounds, factor) == pytest.approx(max(measured))


@pytest.mark.parametrize("entry", read_book(), ids=lambda entry: entry.name)
def test_every_claim_of_the_book_comes_out_as_it_says(entry: Entry) -> None:
    verdict, _ = run_entry(entry, seconds=3 if entry.came_out == NOT_REFUTED else 3600)
    assert verdict == entry.came_out
    assert entry.source and entry.read


def test_a_book_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    book = tmp_path / "book.toml"
    book.write_text('[[claim]]\nname = "x"\nclam = "L"\n')
    with pytest.raises(UserError, match="key 'clam'"):
        read_book(book)


# ---- the command ---------------------------------------------------------------------------------


def command(*arguments: str) -> int:
    return run_command(app, "python -m theory.claim", list(arguments))


def test_a_counterexample_is_kept_as_data_lines_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out", tmp_path / "found.json"
    status = command("L*D/(4*K*R)", "-K", "4", "-R", "1", "--out", str(out), "--json", str(report))
    assert status == 1 and "REFUTED" in capsys.readouterr().out
    kept = runpy.run_path(str(out / "counterexample.py"))
    assert kept["run"].history["global_loss"][0, 0, -1] > 1 / 16
    assert load_problem(out / "counterexample.npz").n_nodes == 2
    assert (out / "counterexample.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(report.read_text())["verdict"] == REFUTED


def test_a_users_theorem_is_a_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\nfrom theory.theorems import T2\n"
        "BOLD = replace(T2, name='bold', bound=lambda p, s, t: T2.bound(p, s, t) / 3)\nX = 3\n"
    )
    assert command("--theorem", f"{file}:BOLD", "-K", "1", "-R", "1") == 1
    # Without convexity too, at the step size that it asks for.
    file.write_text(
        file.read_text() + "from theory.theorems import T6\n"
        "T6_5 = replace(T6, name='T6/5', bound=lambda p, s, t: T6.bound(p, s, t) / 5)\n"
    )
    own = ("--theorem", f"{file}:T6_5", "--step-size", "1/(10*rho*K)", "-K", "2", "-R")
    assert command(*own, "20") == 1 and command(*own, "1", "--time-limit", "5") == 0
    assert command("--theorem", f"{file}:X") == 2
    assert command("--theorem", f"{file}:NONE") == 2
    assert "nothing called NONE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["L", "--book"], ["__import__('os')"], ["L.real"], ["10^1000000"], ["L", "--metric", "x"],
     ["L", "--class", "x"], ["L", "-K", "0"], ["L", "-K", ""], ["L", "--step-size", "2"],
     ["L", "--time-limit", "nan"], ["L", "--json", "/"], ["L", "--nodes", "1"], ["L", "--step-size", "1/eta"],
     ["L", "--step-size", "1/gammas"], ["L", "--lower", "--kappa", "1"],
     ["--theorem", "none.py:X"]],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
