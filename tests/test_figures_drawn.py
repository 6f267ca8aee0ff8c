"""What every figure plots is what its data say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from figure_data import (
    DELAY,
    KS,
    RATE,
    REGIMES,
    deep_result,
)
from made_figures import Made, line, xy

from figures.analysis import worst_cases
from figures.analysis.deep_runs import late_line, load_runs
from figures.analysis.sources import Sources
from figures.analysis.verification import VERIFY_PATH
from figures.drawing import style

# ---- the deep figures ----------------------------------------------------------------------------


def test_loss_curves_are_the_runs_metrics(made: Made) -> None:
    axes = made.axes("loss-vs-rounds")
    assert [ax.get_title() for ax in axes] == list(REGIMES)
    for ax, regime in zip(axes, REGIMES, strict=True):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        for k in KS:
            rounds, loss = xy(line(ax, f"K={k}"))
            rows = deep_result(regime, k)["metrics"][1:]
            assert rounds.tolist() == [row["round"] for row in rows]
            assert loss.tolist() == [row["train_loss"] for row in rows]
            assert line(ax, f"K={k}").get_color() == style.k_color(k)
        dotted = [drawn for drawn in ax.lines if drawn.get_linestyle() == ":"]
        assert xy(dotted[0])[1].tolist() == [1e-3, 1e-3]
    assert "rounds" in axes[0].get_xlabel() and "training loss" in axes[0].get_ylabel()
    assert "toy images, ResNet18 width 4" in made.figures["loss-vs-rounds"].get_supxlabel()


def test_fixed_rounds_reads_its_own_experiment(made: Made) -> None:
    (ax,) = made.axes("loss-fixed-rounds")
    assert {f"K={k}" for k in KS} <= {drawn.get_label() for drawn in ax.lines}
    # It has no target, and so no line for one.
    assert not any(drawn.get_linestyle() == ":" for drawn in ax.lines)


def test_inverse_loss_shows_curve_file_fit_and_late_fit(made: Made) -> None:
    ax = made.axes("inverse-loss")[0]
    t, inverse = xy(line(ax, "K=5"))
    assert inverse == pytest.approx(1 + RATE * np.maximum(t - DELAY, 0))
    ends, fitted = xy(line(ax, "fit K=5"))
    assert (fitted[1] - fitted[0]) / (ends[1] - ends[0]) == pytest.approx(RATE)
    assert ax.get_xlim()[0] == ax.get_ylim()[0] == 0


def test_late_line_finds_rate_and_delay() -> None:
    found = late_line(deep_result("iid", 5))
    assert found is not None
    intercept, slope, r2 = found
    assert slope == pytest.approx(RATE) and r2 == pytest.approx(1.0)
    assert intercept == pytest.approx(1 - RATE * DELAY)
    short = deep_result("iid", 5)
    short["metrics"] = short["metrics"][:4]
    assert late_line(short) is None


def test_rounds_to_loss_marks_what_was_not_reached(made: Made) -> None:
    (ax,) = made.axes("rounds-to-loss")
    for regime in ("iid", "mixed"):
        ks, rounds = xy(line(ax, regime))
        assert ks.tolist() == list(KS)
        assert rounds.tolist() == [800 / k for k in KS]
    assert np.isnan(xy(line(ax, "pathological"))[1]).tolist() == [True, False, False]
    missed = line(ax, "pathological: not reached by then")
    assert xy(missed)[0].tolist() == [1.0] and missed.get_markerfacecolor() == "none"
    ks, guide = xy(line(ax, "$\\propto 1/K$"))
    assert guide[0] / guide[1] == pytest.approx(ks[1] / ks[0])
    assert len(ax.get_yticks()) >= 3


def test_consensus_distance_leaves_out_round_zero(made: Made) -> None:
    rounds, spread = xy(line(made.axes("consensus-distance")[1], "K=20"))
    assert rounds[0] == 1 and (spread > 0).all() and len(spread) == 40


def test_the_preset_with_most_runs_is_shown_but_never_the_smoke_test(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "results"
    folder.mkdir(parents=True)
    for name in ("smoke_to-loss_iid_K01", "smoke_to-loss_iid_K02", "laptop_to-loss_iid_K05"):
        content = deep_result("iid", int(name[-2:]))
        (folder / f"{name}.json").write_text(json.dumps(content))
    runs = load_runs(Sources(tmp_path))
    assert list(runs["iid"]) == [5]


# ---- the theory figures --------------------------------------------------------------------------


def test_no_left_side_crosses_its_bound(made: Made) -> None:
    axes = made.axes("bound-vs-measured")
    assert [ax.get_title()[:2] for ax in axes] == ["T1", "T2", "T3", "T4", "T5", "T6"]
    for ax in axes:
        for k in (1, 5, 20):
            t, left = xy(line(ax, f"K={k}"))
            again, bound = xy(line(ax, f"bound K={k}"))
            assert t.tolist() == again.tolist() and len(t) >= 2
            assert (left <= bound * (1 + 1e-9)).all()
            assert line(ax, f"bound K={k}").get_linestyle() == "--"
    # T2's bound grows with K, T1's does not.
    t1, t2 = (xy(line(ax, "bound K=20"))[1][0] for ax in axes[:2])
    t2_one = xy(line(axes[1], "bound K=1"))[1][0]
    assert t2 == pytest.approx(t2_one) and t1 == pytest.approx(t2_one)
    assert xy(line(axes[1], "bound K=20"))[0][0] == 20


def test_tightness_markers_lie_on_the_closed_forms_and_near_the_limits(made: Made) -> None:
    (ax,) = made.axes("tightness")
    closed = [
        drawn
        for drawn in ax.lines
        if str(drawn.get_label()).startswith("_") and drawn.get_linestyle() == "-"
    ]
    for name, curve in zip(("I0", "I1", "I2", "I3", "I4"), closed, strict=True):
        (markers,) = [drawn for drawn in ax.lines if str(drawn.get_label()).startswith(name)]
        assert xy(markers)[1] == pytest.approx(xy(curve)[1], rel=1e-6)
    dashed = [xy(drawn)[1][0] for drawn in ax.lines if drawn.get_linestyle() == "--"]
    assert dashed == pytest.approx([1, 2 * math.e, 4 * math.e])
    (one,) = [drawn for drawn in ax.lines if str(drawn.get_label()).startswith("I1")]
    assert abs(xy(one)[1][-1] - 2 * math.e) < abs(xy(one)[1][0] - 2 * math.e) < 2


def test_rounds_to_eps_shows_the_record(made: Made) -> None:
    record = json.loads((made.root / VERIFY_PATH).read_text())
    left, right = made.axes("rounds-to-eps")
    drawn = [d for ax in (left, right) for d in ax.lines if not str(d.get_label()).startswith("_")]
    assert len(drawn) == len(record["communication"]) == 3
    for shown, family in zip(drawn, record["communication"], strict=True):
        assert xy(shown)[1].tolist() == family["rounds"]
        assert f"slope {family['fit']['slope']:.2f}" in str(shown.get_label())


def test_heat_map_writes_its_ratios_and_where_a3_fails(made: Made) -> None:
    t2, t3, bar = made.axes("ratio-heatmap")
    for ax in (t2, t3):
        cells = ax.collections[0].get_array()
        assert cells is not None
        shades = np.ma.filled(cells.astype(float), np.nan).ravel()
        written = [text.get_text() for text in ax.texts if text.get_text() != "A3 fails"]
        assert [float(text) for text in written] == pytest.approx(
            10 ** shades[np.isfinite(shades)], rel=0.01
        )
    assert sum(text.get_text() == "A3 fails" for text in t3.texts) == 2
    assert not any(text.get_text() == "A3 fails" for text in t2.texts)
    assert bar.get_ylabel() == "bound / measured"


def test_separable_logistic_bounds_lie_in_order(made: Made) -> None:
    ax, sync = made.axes("separable-logistic")
    t, bound = xy(line(ax, "bound"))
    for k in (1, 5, 20):
        times, mean = xy(line(ax, f"K={k}"))
        assert (mean <= np.interp(times, t, bound)).all()
        assert (xy(line(sync, f"K={k}"))[1] <= xy(line(sync, f"bound K={k}"))[1]).all()
    late, closed = xy(line(ax, "closed form"))
    assert (closed >= np.interp(late, t, bound)).all() and late[0] >= 10


def test_step_size_bounds_stop_at_two_over_l(made: Made) -> None:
    for ax in made.axes("step-size"):
        for drawn in ax.lines:
            if drawn.get_label() == "bound":
                factors, bound = xy(drawn)
                assert np.isnan(bound[factors >= 2]).all() and np.isfinite(bound[factors < 2]).all()
        factors, measured = xy(line(ax, "K=5"))
        assert np.isfinite(measured).all() and factors.max() > 2


def test_baselines_end_at_their_budgets(made: Made) -> None:
    communications, gradients = made.axes("baselines")[:2]
    ends = {
        d.get_label(): xy(d)[0][-1] for d in communications.lines if str(d.get_label())[0] != "_"
    }
    # K = 5 and R = 8 at small scale.
    assert len(ends) == 7 and set(ends.values()) == {8}
    assert "one-shot averaging" not in ends
    spent = {d.get_label(): xy(d)[0][-1] for d in gradients.lines if str(d.get_label())[0] != "_"}
    assert len(spent) == 8 and spent.pop("SCAFFOLD I") <= 45
    # A full gradient costs the 40 samples of a node, all that the budget pays for.
    assert set(spent.values()) == {40}


def test_worst_case_lies_between_instance_and_bound_and_above_typical_problems(made: Made) -> None:
    axes = made.axes("worst-case")
    assert len(axes) == 6
    for i, ax in enumerate(axes):
        x, exact = xy(line(ax, "worst case"))
        assert x.tolist() == ([1, 2] if i < 3 else [0.5, 1.0])
        assert (xy(line(ax, "instance"))[1] <= exact + 1e-6).all()
        assert (xy(line(ax, "typical"))[1] < exact).all()
        if i % 3 < 2:
            assert (exact <= xy(line(ax, "bound"))[1] + 1e-6).all()
    # The last iterate has no bound in the file.
    assert not any(d.get_label() == "bound" for d in [*axes[2].lines, *axes[5].lines])


def test_worst_case_picks_the_rows_it_says(made: Made) -> None:
    record = json.loads((made.root / worst_cases.WORST_CASE_PATH).read_text())
    rows = worst_cases.solved_rows(record, "last")
    assert len(rows) == 8 and all(row["theorem"] != "T3" for row in rows)
    by_k = worst_cases.against_k(rows)
    assert [(r["local_steps"], r["rounds"], r["step_size"]) for r in by_k] == [
        (1, 2, 1.0),
        (2, 2, 1.0),
    ]
    # A cell that the solver did not finish is left out.
    unfinished = next(row for row in record["rows"] if row["metric"] == "last")
    unfinished["worst_case"] = None
    assert len(worst_cases.solved_rows(record, "last")) == 7
