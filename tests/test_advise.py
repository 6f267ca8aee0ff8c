"""``python -m theory.advise``: its rule, its numbers by other routes, what it doesn't know, its refusals."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from theory.advise import __main__ as command
from theory.advise.advice import (
    STEPS,
    Advice,
    Tried,
    advise,
    choose,
    fewer_clients,
    fewest_clients,
)
from theory.advise.picture import make
from theory.advise.text import bend, bend_at, constants, recommendation
from theory.problems.generators import (
    least_squares,
    realizable_logistic,
    separable_logistic,
    sigmoid_regression,
)
from theory.problems.losses import HARD_LOGISTIC
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.moments import exact_moments
from theory.support import command as cli

SMALL: dict[str, Any] = {"n_nodes": 3, "samples_per_node": 16, "dimension": 40, "rank": 6}
QUICK = ["--quick", "-n", "2", "-d", "32", "-K", "1,4", "-R", "64", "--seeds", "2"]


def run(*arguments: str) -> int:
    return cli.run_command(command.app, "python -m theory.advise", list(arguments))


@pytest.fixture(scope="module")
def found() -> tuple[MarginProblem, Advice]:
    problem = least_squares(heterogeneity="iid", **SMALL)
    advice = advise(problem, 1e-4, local_steps=(1, 4), most=200, seeds=(3, 4), cost=20.0)
    return problem, advice


def tried(rounds: float, k: int, outer: float | str = 1.0, m: int = 4, step: float = 1.0) -> Tried:
    return Tried(step, k, m, outer, rounds, rounds, rounds, False, math.nan, "", 0.0)


# ---- the rule ------------------------------------------------------------------------------------


def test_the_least_time_wins_then_the_least_k_then_the_plainest_outer_step() -> None:
    slow, fast = tried(100, 1), tried(10, 10)
    # A communication that costs nothing makes local steps worth nothing here.
    assert choose([slow, fast], cost=1.0) is fast
    assert choose([slow, tried(10, 50)], cost=0.0) is slow
    # 10 x 110 and 10 x 120 are within a tenth of one another.
    plain = tried(10, 10)
    assert choose([tried(10, 20, "polyak"), plain, tried(10, 20)], 100.0) is plain
    alike = [tried(10, 10, "polyak"), tried(10, 10, "extrapolated"), tried(10, 10)]
    assert choose(alike, 100.0) is alike[2]
    assert choose([tried(math.nan, 5)], 1.0) is None


def test_the_fewest_clients_within_a_tenth_of_the_rounds_of_all() -> None:
    assert fewer_clients(10) == [10, 5, 3, 1] and fewer_clients(1) == [1]
    some = [tried(20, 5, m=m) for m in (8, 4, 2, 1)]
    assert fewest_clients(some).clients == 1
    some[3] = replace(some[3], rounds=23.0)
    some[2] = replace(some[2], rounds=math.nan)
    assert fewest_clients(some).clients == 4


# ---- its numbers ---------------------------------------------------------------------------------


def test_rounds_are_those_of_the_simulator_at_the_best_of_the_steps(
    found: tuple[MarginProblem, Advice],
) -> None:
    problem, advice = found
    assert [(t.outer_step, t.local_steps) for t in advice.tried][:4] == [
        *((1.0, 1), (1.0, 4)),
        *(("half-extrapolated", 1), ("half-extrapolated", 4)),
    ]
    for t in advice.tried:
        first = []
        for step in STEPS:
            result = run_local_sgd(
                problem,
                step_size=step / problem.smoothness,
                local_steps=t.local_steps,
                rounds=200,
                seeds=[3, 4],
                outer_step=t.outer_step,
                engine="numba",
                record=np.arange(0, 200 * t.local_steps + 1, t.local_steps),
            )
            below = np.flatnonzero(result.history["global_loss"][0].mean(axis=0) <= 1e-4)
            first.append(float(below[0]) if len(below) else math.inf)
        assert (t.rounds == min(first) and t.step == STEPS[int(np.argmin(first))]) or (
            first.count(min(first)) > 1 and t.rounds == min(first)
        )


def test_plain_local_sgd_is_said_in_exact_expectation_and_stays_below_its_promise(
    found: tuple[MarginProblem, Advice],
) -> None:
    problem, advice = found
    plain = advice.plain
    rounds = int(plain.rounds)
    exact = exact_moments(
        problem, step_size=1 / problem.smoothness, rounds=rounds, record=np.arange(rounds + 1)
    ).history["global_loss"]
    assert plain.exact and exact[-1] <= 1e-4 < exact[-2]
    assert plain.low == plain.rounds == plain.high <= plain.promised
    for t in advice.tried:
        if t.step == 1.0 and t.theorem:
            assert t.rounds <= math.ceil(t.promised)


def test_the_movements_ratio_is_that_of_the_first_round(
    found: tuple[MarginProblem, Advice],
) -> None:
    problem, advice = found
    result = run_local_sgd(
        problem,
        step_size=1 / problem.smoothness,
        local_steps=advice.spread_at,
        rounds=6,
        seeds=[3, 4],
        record_rounds=True,
        engine="numpy",
    )
    record = result.round_record
    assert record is not None
    ratios = np.median(record.mean_square[0] / record.square_mean[0], axis=0)
    assert advice.spread == pytest.approx((ratios[0], ratios[5]), rel=1e-9)
    assert advice.spread[0] >= 1


def crossing(tmp_path: Path) -> Path:
    """I1 as a user's file: two nodes whose directions nearly coincide."""
    s = 0.01
    rows = [[math.sqrt(1 - s), math.sqrt(s)], [math.sqrt(1 - s), -math.sqrt(s)]]
    arrays: dict[str, Any] = {"start": np.array([0.0, 1.0])}
    for i, row in enumerate(rows):
        arrays[f"A{i}"], arrays[f"b{i}"] = np.array([row]), np.zeros(1)
    np.savez(tmp_path / "mine.npz", **arrays)
    return tmp_path / "mine.npz"


def test_on_i1_the_advice_is_extrapolation_which_ends_in_one_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    data = str(crossing(tmp_path))
    assert (
        run("--data", data, "--quick", "-K", "1,5", "--gradient", "full", "--json", str(out)) == 0
    )
    advice = json.loads(out.read_text())["advice"]["recommended"]
    assert advice["outer_step"] in ("extrapolated", "polyak") and advice["rounds"] == 1
    # Both nodes are needed, and one local step: they gain nothing on their own.
    assert (advice["clients"], advice["local_steps"], advice["step"]) == (2, 1, 1.0)
    printed = capsys.readouterr().out
    assert "Bend: none. c = 0" in printed and "100 at x_0" in printed


# ---- what it says and does not know --------------------------------------------------------------


def test_the_bend_is_one_over_c_and_unknown_where_c_is() -> None:
    known = least_squares(**SMALL)
    assert bend_at(known) == 1 / known.similarity
    assert "level up to it and fall like 1/K" in " ".join(bend(known).split())
    assert bend_at(least_squares(heterogeneity="identical", **SMALL)) == 1
    assert math.isinf(bend_at(least_squares(heterogeneity="sorted", **SMALL)))
    assert "at most" in bend(realizable_logistic(**SMALL))
    for problem in (sigmoid_regression(**SMALL), separable_logistic(**SMALL)):
        assert math.isnan(bend_at(problem)) and "not known" in bend(problem)


def test_constants_that_double_precision_cannot_decide_are_not_known() -> None:
    problem = least_squares(**SMALL)
    problem.__dict__["_constants"] = {
        name: type(value)(0.0, "is lost in rounding") for name, value in problem._constants.items()
    }
    assert math.isnan(bend_at(problem)) and "is lost in rounding" in bend(problem)
    assert "not known for the mean of the nodes" in " ".join(constants(problem).split())


def test_where_nothing_arrives_there_is_no_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*QUICK, "--eps", "1e-300", "-R", "2", "--heterogeneity", "sorted") == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "No advice: nothing that was tried came to f <= 1e-300 within 2 rounds" in printed
    assert "the least was" in printed


def test_labels_that_nothing_separates_get_no_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays: dict[str, Any] = {
        "A": np.array([[1.0], [1.0], [2.0], [-1.0]]),
        "b": np.array([1.0, -1.0, 1.0, 1.0]),
        "node": np.array([0, 0, 1, 1]),
    }
    np.savez(tmp_path / "mixed.npz", **arrays)
    out = tmp_path / "out.json"
    asked = ["--data", str(tmp_path / "mixed.npz"), "--loss", "logistic", "--json", str(out)]
    assert run(*asked) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "A2 fails" in printed and "No advice" in printed
    assert json.loads(out.read_text())["advice"] is None


def test_separable_and_non_convex_nodes_are_measured_and_said_not_to_be_covered() -> None:
    for problem in (separable_logistic(**SMALL), sigmoid_regression(**SMALL)):
        start = float(problem.global_loss(problem.start))
        advice = advise(problem, start / 5, local_steps=(4,), most=128, seeds=(0, 1))
        assert advice.recommended is not None and advice.recommended.theorem == ""
        said = " ".join([constants(problem), *recommendation(problem, advice)])
        assert "No theorem here promises it a number of rounds" in said
    assert "T5 is the theorem" in " ".join(constants(separable_logistic(**SMALL)).split())
    assert HARD_LOGISTIC.name in bend(separable_logistic(**SMALL))


# ---- the command ---------------------------------------------------------------------------------


def test_one_screen_of_80_columns_a_json_and_a_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out, png = tmp_path / "out.json", tmp_path / "out.png"
    assert run(*QUICK, "--json", str(out), "--figure", str(png)) == 0
    lines = capsys.readouterr().out.replace(str(png), "PNG").splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines) and len(lines) <= 32
    assert "".join(lines).isascii()
    content = json.loads(out.read_text())
    assert list(content)[:4] == ["hardware", "versions", "command", "commit"]
    assert content["problem"]["bend"] == pytest.approx(1 / content["problem"]["similarity"])
    assert len(content["advice"]["tried"]) == 8
    with Image.open(png) as image:
        assert image.width > 1000


def test_the_figure_draws_what_was_tried(found: tuple[MarginProblem, Advice]) -> None:
    problem, advice = found
    left, right = make(problem, advice).axes
    drawn = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in left.lines}
    assert drawn["plain mean"].tolist() == [t.rounds for t in advice.row(1.0)]
    assert advice.recommended is not None
    assert drawn["advice"].tolist() == [advice.recommended.rounds]
    (bend_line,) = [line for line in left.lines if line.get_label() == "bend, K = 1/c"]
    assert set(np.asarray(bend_line.get_xdata()).tolist()) == {bend_at(problem)}
    labels = [line.get_label() for line in right.lines]
    assert labels[0] == "plain, K = 1" and labels[-2:] == ["recommended", "eps"]


def test_the_same_seed_says_the_same(found: tuple[MarginProblem, Advice]) -> None:
    problem, advice = found
    settings: dict[str, Any] = {"local_steps": (1, 4), "most": 200, "cost": 20.0}
    again = advise(problem, 1e-4, seeds=(3, 4), **settings)
    assert again.tried == advice.tried and again.recommended == advice.recommended
    other = advise(problem, 1e-4, seeds=(7, 8), **settings)
    assert [t.least_loss for t in other.tried] != [t.least_loss for t in advice.tried]
    # The largest seed wraps around.
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert run(*QUICK, "--seed", str(2**64 - 1)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-K", "0"], "K (local steps) is 0, allowed"),
        (["-K", "1,x"], "K (local steps) is 'x', allowed"),
        (["-R", "0"], "rounds is 0, allowed"),
        (["-K", "100000"], "K R (all iterations) is 6400000, allowed"),
        (["--eps", "nan"], "eps is nan, allowed"),
        (["--eps", "0"], "eps is 0.0, allowed: finite numbers above 0 and below 0.5"),
        (["--eps", "9"], "eps is 9.0, allowed: finite numbers above 0 and below 0.5"),
        (["--communication-cost", "-1"], "communication cost is -1.0, allowed"),
        (["--gradient", "half"], "gradient is 'half', allowed: stochastic, full"),
        (["--heterogeneity", "mixed"], "heterogeneity is 'mixed', allowed: iid"),
        (["--problem", "nothing"], "problem is 'nothing', allowed: few-samples"),
        (["--seeds", "0"], "seeds is 0, allowed"),
        (["--seed", "-1"], "seed is -1, allowed"),
        (["--data", "nowhere.npz"], "no file nowhere.npz"),
        (["--loss", "squared"], "--loss is squared, allowed with --data only"),
        (["--figure", "/proc/nowhere/x.png"], "--figure is /proc/nowhere/x.png"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--quick"] if "--data" in arguments else QUICK
    assert run(*few, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_nodes_that_no_x_fits_are_refused_with_the_assumption_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays: dict[str, Any] = {"A0": np.ones((2, 1)), "b0": np.array([0.0, 1.0])}
    np.savez(tmp_path / "noisy.npz", **arrays)
    assert run("--data", str(tmp_path / "noisy.npz")) == 2
    assert "A2 fails" in capsys.readouterr().err


def test_a_start_that_is_a_minimiser_needs_no_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays: dict[str, Any] = {"A0": np.eye(2), "b0": np.zeros(2)}
    np.savez(tmp_path / "done.npz", **arrays)
    assert run("--data", str(tmp_path / "done.npz")) == 2
    assert "x_0 is a minimiser already" in capsys.readouterr().err
