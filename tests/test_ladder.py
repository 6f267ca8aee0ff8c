"""The ladder of deep runs is read by its rules: what has no result says nothing, and verdicts go both ways."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_data import deep_result, ladder_result
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from scipy import stats

from figures.analysis.deep_runs import command_of, load_runs
from figures.analysis.full_scale import full_scale_runs, hours_of_experiment_1, hours_of_run
from figures.analysis.ladder import LADDER_COMMAND, Run, complete_rung, ladder_runs
from figures.analysis.ladder_readings import (
    Exponent,
    Ratio,
    exponents,
    growth,
    heterogeneity,
    variants,
)
from figures.analysis.sources import MissingResult, Sources
from figures.drawing import ladder as drawing
from figures.drawing import style
from figures.record import claims, ladder_tables
from theory.support.errors import UserError

IID, ONE = "iid", "one shard"


def run(regime: str, k: int, rounds: int, status: str = "reached", **config: Any) -> Run:
    name = f"{regime} K{k} {config}"
    return Run(name, ladder_result(regime, k, rounds, status, **config))


def write(root: Path, runs: list[Run]) -> Sources:
    folder = root / "deep/results/ladder"
    folder.mkdir(parents=True)
    for i, one in enumerate(runs):
        (folder / f"run{i}.json").write_text(json.dumps(one.result))
    return Sources(root)


def core(rounds: int = 100, **config: Any) -> list[Run]:
    return [run(r, k, rounds // k, **config) for r in (IID, ONE) for k in (1, 5, 20)]


# ---- heterogeneity -------------------------------------------------------------------------------


def pairs(*ratios: float, k: int = 5) -> list[Run]:
    """Runs whose ratios of one shard to iid are these, a seed each."""
    return [
        one
        for seed, ratio in enumerate(ratios)
        for one in (run(IID, k, 1000, seed=seed), run(ONE, k, round(1000 * ratio), seed=seed))
    ]


@pytest.mark.parametrize(
    ("ratios", "reading"),
    [
        ((2.0, 2.1, 1.9), "more rounds"),
        ((0.5, 0.48, 0.52), "fewer rounds"),
        ((1.05, 1.1, 1.08), "within 25%"),
        ((0.6, 1.0, 1.6), "undecided"),
        ((2.0, 2.1), "two seeds: no verdict"),
        ((3.0,), "one seed: no verdict"),
    ],
)
def test_heterogeneity_is_read_by_its_rule(ratios: tuple[float, ...], reading: str) -> None:
    (found,) = heterogeneity(pairs(*ratios))
    assert found.reading == reading
    assert found.ratios == pytest.approx(ratios)
    assert found.mean == pytest.approx(float(stats.gmean(ratios)))
    if len(ratios) == 1:
        assert found.interval is None
    else:
        logs = np.log(ratios)
        low, high = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
        assert found.interval == pytest.approx((math.exp(low), math.exp(high)))


def test_each_k_and_rung_has_a_ratio_of_its_own() -> None:
    runs = [
        *pairs(2.0, k=1),
        *pairs(3.0, k=20),
        run(IID, 1, 10, width=16),
        run(ONE, 1, 40, width=16),
    ]
    found = [(r.rung.width, r.local_steps, r.ratios) for r in heterogeneity(runs)]
    assert found == [(8, 1, (2.0,)), (8, 20, (3.0,)), (16, 1, (4.0,))]


@pytest.mark.parametrize("status", ["unfinished", "round_limit", "diverged"])
def test_a_run_without_its_target_enters_no_ratio_and_is_named(status: str) -> None:
    runs = [*pairs(2.0, 2.1), run(IID, 5, 9, seed=2), run(ONE, 5, 10**6, status, seed=2)]
    (found,) = heterogeneity(runs)
    assert len(found.ratios) == 2 and found.missing == (runs[-1].name,)
    # A seed that only one regime has is no pair.
    (again,) = heterogeneity([*pairs(2.0, 2.1), run(ONE, 5, 10, seed=2)])
    assert len(again.ratios) == 2 and not again.missing


def test_variants_are_compared_with_the_plain_run_beside_them() -> None:
    runs = [
        run(ONE, 20, 100),
        run(IID, 20, 50),
        run(ONE, 20, 25, outer_step="extrapolated"),
        run(IID, 20, 100, participants=10),
        run(IID, 5, 7, outer_step=1.5),
    ]
    found = {(r.regime, r.variant): r.mean for r in variants(runs)}
    assert found == {
        (ONE, "extrapolated outer step"): 0.25,
        (IID, "10 of 20 nodes"): 2.0,
    }
    # K = 5 has no plain run, so nothing is said of it; heterogeneity compares plain runs only.
    assert [r.mean for r in heterogeneity(runs)] == [2.0]


# ---- exponents -----------------------------------------------------------------------------------


def power(exponent: float, seeds: int, **config: Any) -> list[Run]:
    return [
        run(IID, k, round(1e6 * (1 + 0.1 * seed) * k**exponent), seed=seed, **config)
        for seed in range(seeds)
        for k in (1, 5, 20)
    ]


def test_the_exponent_is_over_seeds_where_there_are_three() -> None:
    (one,), (three,) = exponents(power(-0.7, 1)), exponents(power(-0.7, 3))
    assert one.slope == pytest.approx(-0.7, abs=1e-4) and not one.over_seeds and one.seeds == 1
    assert three.slope == pytest.approx(-0.7, abs=1e-4) and three.over_seeds and three.seeds == 3
    assert three.interval[1] - three.interval[0] < 1e-3


def test_unfinished_runs_and_two_k_give_no_exponent() -> None:
    runs = power(-1.0, 1)
    assert not exponents(runs[:2])
    assert not exponents([*runs[:2], run(IID, 20, 10**6, "unfinished")])
    # A seed that lacks a K leaves the K that all have; with two of them the line takes over.
    (found,) = exponents(
        [*power(-1.0, 2), run(IID, 1, 10**6, seed=2), run(IID, 5, 200_000, seed=2)]
    )
    assert not found.over_seeds and found.local_steps == (1, 5, 20)


@pytest.mark.parametrize(
    ("small", "large", "reading"),
    [
        ((-0.7, -0.5), (-1.0, -0.8), "the saving grows"),
        ((-1.0, -0.8), (-0.7, -0.5), "the saving shrinks"),
        ((-1.0, -0.6), (-0.7, -0.5), "undecided"),
    ],
)
def test_growth_needs_disjoint_intervals(
    small: tuple[float, float], large: tuple[float, float], reading: str
) -> None:
    rung = run(IID, 1, 1).rung
    one, two = (
        Exponent(
            rung=rung,
            regime=IID,
            local_steps=(1, 5, 20),
            seeds=3,
            slope=sum(ends) / 2,
            interval=ends,
            over_seeds=True,
        )
        for ends in (small, large)
    )
    assert growth(one, two) == reading


# ---- which runs stand for the experiment ---------------------------------------------------------


def test_a_rung_is_complete_with_k_1_5_20_of_both_regimes_at_the_target() -> None:
    runs = core()
    assert complete_rung(runs, "to-loss") == runs[0].rung
    assert complete_rung(runs, "fixed-rounds") is None
    for lacking in range(len(runs)):
        some = [r for i, r in enumerate(runs) if i != lacking]
        gone = runs[lacking]
        assert complete_rung(some, "to-loss") is None
        waiting = run(gone.regime, gone.local_steps, 10, "unfinished")
        assert complete_rung([*some, waiting], "to-loss") is None
        other = run(gone.regime, gone.local_steps, 10, seed=1)
        assert complete_rung([*some, other], "to-loss") is None
    wide = core(width=16)
    assert complete_rung([*runs, *wide], "to-loss") == wide[0].rung


def test_fixed_rounds_are_complete_when_all_rounds_are_done() -> None:
    runs = [run(r, k, 100, "round_limit", target_loss=0.0) for r in (IID, ONE) for k in (1, 5, 20)]
    assert complete_rung(runs, "fixed-rounds") == runs[0].rung
    assert complete_rung(runs, "to-loss") is None


def test_the_complete_rung_takes_the_place_of_the_old_preset(tmp_path: Path) -> None:
    folder = tmp_path / "deep/results"
    folder.mkdir(parents=True)
    (folder / "laptop_to-loss_mixed_K05.json").write_text(json.dumps(deep_result("mixed", 5)))
    extra = [run("two shards", 5, 30, "unfinished"), run(IID, 5, 9, outer_step="polyak")]
    sources = write(tmp_path, [*core()[1:], *extra])
    assert list(load_runs(sources)) == ["mixed"]
    (folder / "ladder/run99.json").write_text(json.dumps(core()[0].result))
    runs = load_runs(sources)
    assert {regime: list(by_k) for regime, by_k in runs.items()} == {
        IID: [1, 5, 20],
        "two shards": [5],
        ONE: [1, 5, 20],
    }
    # The variant did not take the plain run's place.
    assert runs[IID][5]["config"]["outer_step"] == 1.0
    assert command_of(runs, "to-loss") == LADDER_COMMAND


def test_unfinished_runs_decide_no_verdict() -> None:
    done = ladder_result(IID, 5, 100)
    done["fits"]["loglog_slope"]["interval"] = [-1.1, -0.9]
    waiting = ladder_result(ONE, 5, 10, "unfinished")
    text, verdict = claims.rate_verdict({IID: {5: done}, ONE: {5: waiting}})
    assert (
        verdict == "reproduced" and "1 of 1 runs" in text and "1 more runs are unfinished" in text
    )


# ---- tables --------------------------------------------------------------------------------------


def test_tables_say_what_is_there_and_nothing_more(tmp_path: Path) -> None:
    assert "nothing yet" in ladder_tables.ladder(Sources(tmp_path)).markdown()
    runs = [*pairs(2.0, 2.1, 1.9), run(ONE, 1, 70, "unfinished")]
    sources = write(tmp_path, runs)
    table = ladder_tables.ladder(sources)
    assert len(table.rows) == len(runs)
    (waiting,) = [row for row in table.rows if row[5] == "unfinished"]
    assert waiting[1:4] == (ONE, "1", "0") and waiting[6] == "70" and waiting[8] == "25.0%"
    (row,) = ladder_tables.ladder_heterogeneity(sources).rows
    assert row[1:3] == ("5", "2.00") and row[-2:] == ("3", "more rounds")
    assert ladder_tables.ladder_exponents(sources).rows == []


def test_a_longer_step_stands_beside_the_length_of_the_weights(tmp_path: Path) -> None:
    runs = [run(IID, 5, 100), run(IID, 5, 90, step_size=0.8), run(IID, 20, 70)]
    runs += [run(IID, 5, 80, "unfinished", step_size=0.4), run(ONE, 5, 60, step_size=0.8)]
    for one, length in zip(runs, (10.0, 20.0, 1.0, 1.0, 1.0), strict=True):
        one.result["metrics"][-1]["weight_norm"] = length
    rows = ladder_tables.ladder_steps(write(tmp_path, runs)).rows
    # Four times the step, twice the length: the quotient is the same.
    assert [row[3:] for row in rows] == [
        ("0.2", "100", "10.0", "0.002"),
        ("0.8", "90", "20.0", "0.002"),
    ]


def test_a_run_of_the_paper_s_scale_says_what_the_rest_would_take(tmp_path: Path) -> None:
    paper = {"width": 64, "subset": None, "step_size": 0.1, "target_loss": 0.0}
    begun = run(IID, 20, 12, "unfinished", **paper)
    begun.config["rounds"] = 20_000
    sources = write(tmp_path, [begun, run(IID, 20, 12, width=64)])
    # 1,000 images a second, 160 images a step: 6.25 steps a second.
    (found,) = full_scale_runs(sources)
    assert hours_of_run(found) == pytest.approx(20 * 20_000 / 6.25 / 3600)
    assert hours_of_experiment_1(1000.0) == pytest.approx(3 * 38 * 20_000 / 6.25 / 3600)
    row = claims.claims(sources).rows[-1]
    assert row[1] == "not run: begun only"
    assert "12 of 20,000 rounds" in row[2] and "18 hours for this run, 101 for Exp" in row[2]
    # A start so short by intent, which ends with a loss, is one all the same.
    start = run(IID, 20, 12, "round_limit", **paper)
    start.config["rounds"] = 12
    again = claims.claims(write(tmp_path / "start", [start])).rows[-1]
    assert again == row and hours_of_run(start) == hours_of_run(found)
    ended = run(IID, 20, 20_000, "round_limit", **paper)
    ended.config["rounds"] = 20_000
    row = claims.claims(write(tmp_path / "more", [ended, begun])).rows[-1]
    assert row[1] == "partly: 1 ended" and row[2].count("hours") == 1


def test_a_run_of_the_paper_s_scale_counts_outside_the_ladder_too(tmp_path: Path) -> None:
    assert claims.claims(Sources(tmp_path)).rows[-1][1:3] == ("not run", "not measured on a GPU")
    ended = run(IID, 5, 20_000, "round_limit", width=64, subset=None, target_loss=0.0)
    ended.config["rounds"] = 20_000
    (tmp_path / "deep/results").mkdir(parents=True)
    path = tmp_path / "deep/results/paper_fixed-rounds_iid_K05.json"
    path.write_text(json.dumps(ended.result))
    assert claims.claims(Sources(tmp_path)).rows[-1][1] == "partly: 1 ended"


def test_the_order_is_rung_plain_first_regime_k_seed(tmp_path: Path) -> None:
    runs = [
        run(ONE, 5, 1, width=16),
        run(IID, 5, 1, participants=10),
        run(ONE, 1, 1),
        run(IID, 5, 1, seed=1),
        run(IID, 5, 1),
    ]
    found = [
        (r.rung.width, r.variant, r.regime, r.seed) for r in ladder_runs(write(tmp_path, runs))
    ]
    assert found == [
        (8, "", IID, 0),
        (8, "", IID, 1),
        (8, "", ONE, 0),
        (8, "10 of 20 nodes", IID, 0),
        (16, "", ONE, 0),
    ]


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (("config", "outer_step"), [], "outer_step"),
        (("config", "participants"), "ten", "participants"),
        (("summary", "final_test_accuracy"), "high", "final_test_accuracy"),
    ],
)
def test_a_file_of_another_shape_is_refused(
    tmp_path: Path, place: tuple[str, str], value: object, complaint: str
) -> None:
    bad = run(IID, 5, 1)
    bad.result[place[0]][place[1]] = value
    with pytest.raises(UserError, match=complaint):
        ladder_runs(write(tmp_path, [bad]))


# ---- figures -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    runs = [
        *(one for seed in range(3) for one in core(10_000, seed=seed)),
        run("two shards", 5, 77, "unfinished"),
        # A smaller rung with more runs is not the one to be shown.
        *(one for seed in range(5) for one in core(20_000, seed=seed, width=4)),
        run(IID, 20, 250, outer_step="extrapolated"),
        run(ONE, 20, 125, participants=10),
    ]
    return write(tmp_path_factory.mktemp("climbed"), runs)


def test_the_ladder_shows_seeds_ratios_and_exponents(climbed: Sources) -> None:
    with style.house_style():
        rounds, ratios, slopes = drawing.ladder(climbed).axes
    shown = {
        str(bars.get_label()): np.asarray(bars[0].get_ydata(), float)
        for bars in rounds.containers
        if isinstance(bars, ErrorbarContainer)
    }
    assert shown[IID] == pytest.approx([10_000, 2_000, 500])
    (waiting,) = [
        line for line in rounds.lines if line.get_label() == "two shards: not reached by then"
    ]
    assert (
        np.asarray(waiting.get_xydata()).tolist() == [[5, 77]]
        and waiting.get_markerfacecolor() == "none"
    )
    assert len(ratios.containers) == 2 and len(slopes.containers) == 4
    assert "width 8" in rounds.get_title()


def test_an_exponent_of_one_seed_is_drawn_open(tmp_path: Path) -> None:
    runs = [*(one for seed in range(3) for one in core(10_000, seed=seed)), *core(9_000, width=16)]
    with style.house_style():
        *_, slopes = drawing.ladder(write(tmp_path, runs)).axes
    # Filled over seeds, open for a line through one seed's points.
    faces = [
        bars[0].get_markerfacecolor()
        for bars in slopes.containers
        if isinstance(bars, ErrorbarContainer)
    ]
    assert [face == "none" for face in faces] == [False, False, True, True]


def labels(ax: Axes) -> set[str]:
    return {name for line in ax.lines if not (name := str(line.get_label())).startswith("_")}


def test_variants_and_assumptions_are_drawn_where_there_are_runs(climbed: Sources) -> None:
    with style.house_style():
        iid, one = drawing.ladder_variants(climbed).axes
        assumptions = drawing.ladder_assumptions(climbed)
    assert labels(iid) == {
        "plain",
        "extrapolated outer step",
    }
    assert labels(one) == {
        "plain",
        "10 of 20 nodes",
    }
    columns = len(assumptions.axes) // 2
    for ax in assumptions.axes[:columns]:
        assert all((np.asarray(line.get_ydata()) == 0.5).all() for line in ax.lines)
    with pytest.raises(MissingResult, match="no run to a loss"):
        drawing.ladder(Sources(Path("/nonexistent")))


def test_slopes_and_accuracies_are_those_of_the_runs_that_reached_the_target(
    tmp_path: Path,
) -> None:
    """Each regime beside the other, each seed a mark; a run under way has neither."""
    runs = [*core(10_000), run(IID, 5, 1990, seed=1), run(IID, 5, 50, "unfinished", seed=2)]
    for one, accuracy in zip(runs, (0.3, 0.2, None, 0.4, 0.5, 0.6, 0.25, 0.1), strict=True):
        one.summary["final_test_accuracy"] = accuracy
    expected = [one.result["fits"]["loglog_slope"]["slope"] for one in runs[:-1]]
    with style.house_style():
        slopes, accuracies = drawing.ladder_ends(write(tmp_path, runs)).axes
    drawn = [bars[0].get_xydata()[0] for bars in slopes.containers]  # type: ignore[attr-defined]
    assert sorted(y for _, y in drawn) == pytest.approx(sorted(expected))
    assert sorted({round(float(x), 1) for x, _ in drawn}) == [1.0, 4.9, 5.1, 19.4, 20.6]
    marks = [np.asarray(line.get_xydata()) for line in accuracies.lines]
    assert [m[:, 1].tolist() for m in marks] == [[30, 20, 25], [40, 50, 60]]


def test_a_ratio_without_any_pair_is_a_dash() -> None:
    empty = Ratio(
        rung=run(IID, 1, 1).rung, regime="", variant="", local_steps=1, ratios=(), missing=()
    )
    assert empty.mean is None and empty.interval is None and empty.reading == "-"
