"""Every figure is made at small scale, and what it plots is what its data say."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_data import (
    DELAY,
    KS,
    RATE,
    REGIMES,
    deep_result,
    write_deep,
    write_outer_steps,
    write_speed,
    write_theory,
)
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.__main__ import main
from figures.analysis import places, theory_data, worst_cases
from figures.analysis.deep_runs import late_line, load_runs
from figures.analysis.sources import MissingResult, Sources, array, imported_modules
from figures.analysis.verification import VERIFY_COMMAND, VERIFY_PATH
from figures.drawing import rendering, style
from figures.drawing.catalogue import FIGURES, Entry, find
from figures.record import page as report


@dataclass
class Made:
    """Every figure, made once for all tests below."""

    root: Path
    cache: Path
    out: Path
    figures: dict[str, Figure]
    outcomes: list[rendering.Outcome]

    def axes(self, name: str) -> list[Axes]:
        return self.figures[name].axes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("results")
    write_deep(root)
    write_theory(root)
    write_speed(root)
    write_outer_steps(root)
    found = Made(root, root / "cache", root / "out", {}, [])

    def keep(entry: Entry) -> Entry:
        def draw(inputs: Sources) -> Figure:
            found.figures[entry.name] = entry.draw(inputs)
            return found.figures[entry.name]

        return replace(entry, draw=draw)

    found.outcomes = rendering.make_figures(
        [keep(e) for e in FIGURES], found.out, root=root, cache=found.cache, quick=True
    )
    return found


def line(axes: Axes, label: str) -> Line2D:
    """The one line of that label."""
    (found,) = [drawn for drawn in axes.lines if drawn.get_label() == label]
    return found


def xy(drawn: Line2D) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(drawn.get_xdata(), float), np.asarray(drawn.get_ydata(), float)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [entry.name for entry in FIGURES])
def test_every_figure_is_written_with_what_it_was_made_from(made: Made, name: str) -> None:
    outcome = next(o for o in made.outcomes if o.entry.name == name)
    assert outcome.missing == "" and outcome.png == made.out / f"{name}.png"
    assert (made.out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    png = (made.out / f"{name}.png").read_bytes()
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    inches = made.figures[name].get_size_inches()
    assert (width, height) == pytest.approx(tuple(inches * style.PNG_DPI), abs=1)
    assert inches[0] in (style.ONE_COLUMN, style.TWO_COLUMNS)
    sidecar = json.loads((made.out / f"{name}.json").read_text())
    assert sidecar["data_files"] or sidecar["computed"]
    for path, digest in sidecar["data_files"].items():
        assert hashlib.sha256((made.root / path).read_bytes()).hexdigest() == digest
    assert {"command", "commit", "code"} <= sidecar.keys()
    assert {"numpy", "matplotlib", "seaborn"} <= sidecar["versions"].keys()


@pytest.mark.parametrize("name", [entry.name for entry in FIGURES])
def test_no_title_or_legend_lies_over_another_or_leaves_the_figure(made: Made, name: str) -> None:
    figure = made.figures[name]
    with style.house_style():
        canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    texts = [ax.title for ax in figure.axes if ax.get_title()] + list(figure.legends)
    boxes = [text.get_window_extent(renderer) for text in texts]
    for box in boxes:
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, name
        assert box.y1 <= figure.bbox.y1 + 1, name
    for first, second in combinations(boxes, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), name


def test_every_axis_has_a_label_and_every_panel_has_data(made: Made) -> None:
    for name, figure in made.figures.items():
        for ax in figure.axes:
            if ax.get_label() == "<colorbar>":
                continue
            assert ax.get_xlabel(), name
            assert ax.lines or ax.collections, name
        assert any(ax.get_ylabel() for ax in figure.axes), name
        assert figure.get_supxlabel().startswith("Data: "), name


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
    assert ends["Local SGD"] == ends["mini-batch SGD, equal both"] == 8
    assert ends["GD, equal communication"] == 8
    assert ends["mini-batch SGD, equal computation"] == 40
    spent = {d.get_label(): xy(d)[0][-1] for d in gradients.lines if str(d.get_label())[0] != "_"}
    assert spent["Local SGD"] == spent["mini-batch SGD, equal computation"] == 40
    assert spent["GD, equal communication"] == 8 * 40


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


# ---- missing, unknown, cached --------------------------------------------------------------------


def test_a_missing_result_names_its_command_and_costs_only_its_figure(
    made: Made, tmp_path: Path
) -> None:
    (tmp_path / "loss-vs-rounds.png").write_bytes(b"stale")
    outcomes = rendering.make_figures(
        find(["loss-vs-rounds", "rounds-to-eps", "worst-case", "tightness"]),
        tmp_path,
        root=tmp_path,
        cache=made.cache,
        quick=True,
    )
    messages = {o.entry.name: o.missing for o in outcomes}
    assert "python -m deep.reproduce --preset laptop" in messages["loss-vs-rounds"]
    assert VERIFY_COMMAND in messages["rounds-to-eps"]
    assert worst_cases.WORST_CASE_COMMAND in messages["worst-case"]
    assert messages["tightness"] == "" and (tmp_path / "tightness.pdf").is_file()
    # A picture of older data would pass for the present one.
    assert not (tmp_path / "loss-vs-rounds.png").exists()


def test_a_result_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / VERIFY_PATH
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"verify_rates\.json is not JSON"):
        Sources(tmp_path).read(VERIFY_PATH, VERIFY_COMMAND)
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no JSON object"):
        Sources(tmp_path).read(VERIFY_PATH, VERIFY_COMMAND)


def test_an_unknown_figure_is_one_line_and_status_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "figures", "tightnes"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "unknown figure 'tightnes', did you mean tightness?" in done.stderr


def test_unknown_names_are_refused_beside_known_ones() -> None:
    for names in (["report", "nosuch"], ["tightness", "nosuch"], ["record", "nosuch"]):
        with pytest.raises(ValueError, match="unknown figure 'nosuch'; Known: loss-vs-rounds"):
            main(names)


def test_an_output_folder_that_is_a_file_is_named(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write|can't write"):
        rendering.make_figures(
            find(["tightness"]), tmp_path / "file", root=made.root, cache=made.cache, quick=True
        )


def test_list_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list_names=True) == 0
    names = [text.split()[0] for text in capsys.readouterr().out.splitlines()]
    assert names == [entry.name for entry in FIGURES]


def test_the_command_makes_what_it_is_asked_for(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = rendering.make_figures
    monkeypatch.setattr(
        rendering, "make_figures", lambda *a, **k: plain(*a, root=made.root, cache=made.cache, **k)
    )
    assert main(["rounds-to-loss"], quick=True, out=tmp_path) == 0
    # Small-scale figures have a folder of their own.
    assert sorted(p.name for p in (tmp_path / "quick").iterdir()) == [
        "rounds-to-loss.json",
        "rounds-to-loss.pdf",
        "rounds-to-loss.png",
    ]
    assert "[1/1] rounds-to-loss" in capsys.readouterr().out
    assert main(["rounds-to-loss"], quick=True, out=tmp_path) == 0
    assert "unchanged" in capsys.readouterr().out


def test_the_gallery_has_the_readme_pictures_and_only_those(made: Made, tmp_path: Path) -> None:
    written = report.write_gallery(tmp_path / "gallery", made.outcomes)
    assert sorted(p.stem for p in written) == sorted(report.GALLERY)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    assert sum(path.stat().st_size for path in written) < 600_000


def test_unchanged_means_data_code_and_scale(made: Made, tmp_path: Path) -> None:
    write_deep(tmp_path)
    entry = find(["rounds-to-loss"])[0]
    out = tmp_path / "out"

    def again(quick: bool = False) -> bool:
        return rendering.make_figures([entry], out, root=tmp_path, quick=quick)[0].unchanged

    assert not again() and again()
    assert not again(quick=True)
    assert again(quick=True)
    path = next((tmp_path / "deep/results").glob("*to-loss_iid_K05.json"))
    path.write_text(path.read_text() + "\n")
    assert not again(quick=True) and again(quick=True)
    # One more run is new data too.
    extra = path.with_name(path.name.replace("K05", "K10"))
    extra.write_text(json.dumps(deep_result("iid", 10)))
    assert not again(quick=True)
    (out / "rounds-to-loss.pdf").unlink()
    assert not again(quick=True)
    code = json.loads((out / "rounds-to-loss.json").read_text())["code"]
    assert rendering.drawn_before(entry, out, tmp_path, True, code)
    assert rendering.drawn_before(entry, out, tmp_path, True, "other code") is None


def test_theory_data_are_computed_once(tmp_path: Path) -> None:
    inputs = Sources(cache=tmp_path)
    arguments: dict[str, Any] = {"instance": "I1", "local_steps": 2, "rounds": [5]}
    first = inputs.compute(theory_data.tightness_curve, **arguments)
    assert inputs.compute(theory_data.tightness_curve, **arguments) == first
    assert [c["from_cache"] for c in inputs.computed] == [False, True]
    inputs.compute(theory_data.tightness_curve, **{**arguments, "rounds": [6]})
    assert not inputs.computed[-1]["from_cache"]


def test_the_cache_depends_on_what_the_data_depend_on() -> None:
    names = {path.stem for path in imported_modules(Path(theory_data.__file__))}
    assert {"moments", "local_sgd", "model_kernels", "margin", "generators", "base"} <= names
    assert not names & {"command", "tables", "verify_rates", "__main__", "sdp", "files"}


def test_imports_are_followed_through_one_another(tmp_path: Path) -> None:
    package = tmp_path / "theory"
    package.mkdir()
    for name, text in {
        "__init__": "from theory.public import x",
        "public": "",
        "direct": "from theory.deep_down import y",
        "deep_down": "",
        "unused": "",
        "inside": "",
    }.items():
        (package / f"{name}.py").write_text(text)
    source = tmp_path / "figure.py"
    source.write_text("from theory import direct\ndef f():\n    import theory.inside\n")

    def found() -> list[str]:
        imported_modules.cache_clear()
        return [path.stem for path in imported_modules(source, package)]

    assert found() == ["deep_down", "direct", "inside"]
    # A name of the package itself comes from its __init__, and so from all that it imports.
    source.write_text("from theory import x")
    assert found() == ["__init__", "public"]
    # Folders: a change deep inside must reach the key, else a stale figure would count as fresh.
    (package / "folder").mkdir()
    (package / "folder" / "__init__.py").write_text("")
    (package / "folder" / "deep.py").write_text("from theory.folder import deeper\n")
    (package / "folder" / "deeper.py").write_text("")
    source.write_text("from theory.folder.deep import y")
    assert found() == ["__init__", "deep", "deeper"]


def test_missing_numbers_and_infinities_survive_json() -> None:
    assert np.isnan(array([None, 1.0])[0])
    assert array(["inf", "-inf", 2]).tolist() == [math.inf, -math.inf, 2.0]


# ---- style ---------------------------------------------------------------------------------------


def test_k_has_an_ordered_scale_and_the_same_colour_everywhere(made: Made) -> None:
    brightness = [np.dot(style.k_color(k)[:3], (0.3, 0.6, 0.1)) for k in (1, 2, 5, 10, 20)]
    assert brightness == sorted(brightness) and len(set(brightness)) == 5
    for name in ("loss-vs-rounds", "inverse-loss", "consensus-distance", "bound-vs-measured"):
        for ax in made.axes(name):
            assert line(ax, "K=20").get_color() == style.k_color(20)


@pytest.fixture
def axes() -> Iterator[Axes]:
    with style.house_style():
        yield style.subplots(1, 1, width=style.ONE_COLUMN, height=2.0)[1][0, 0]


@pytest.mark.parametrize(("low", "high"), [(550, 950), (0.012, 0.3), (90, 40_000)])
def test_decimal_axis_has_enough_labels_in_range(axes: Axes, low: float, high: float) -> None:
    axes.set(yscale="log", ylim=(low, high))
    style.decimal_axis(axes)
    ticks = axes.get_yticks()
    assert len(ticks) >= 3 and low <= min(ticks) and max(ticks) <= high
    shown = [float(text.get_text().replace(",", "")) for text in axes.get_yticklabels()]
    assert shown == pytest.approx(ticks)


def test_decimal_axis_leaves_many_decades_alone(axes: Axes) -> None:
    axes.set(yscale="log", ylim=(1e-5, 1))
    before = axes.get_yticks().tolist()
    style.decimal_axis(axes)
    assert axes.get_yticks().tolist() == before


def test_k_axis_drops_ticks_that_have_no_room(axes: Axes) -> None:
    style.k_axis(axes, [1, 2, 5, 10, 20])
    assert axes.get_xticks().tolist() == [1, 2, 5, 10, 20]
    style.k_axis(axes, list(range(1, 193)))
    ticks = axes.get_xticks()
    assert ticks[0] == 1 and 5 < len(ticks) <= 11
    assert np.diff(np.log(ticks)).min() >= np.log(192) / 10


# ---- the page ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would fetch, and what it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "img":
            self.images.append(found)
        self.fetched += [found[a] or "" for a in ("src", "srcset", "data") if a in found]
        if "id" in found:
            self.ids.append(found["id"] or "")
        if "href" in found:
            self.links.append(found["href"] or "")


def test_the_page_is_self_contained_and_has_everything(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert report.write_report(path, made.outcomes, made.root)
    text = path.read_text()
    page = Page(text)
    # Links go to places on the page only; nothing is fetched, no style sheet or font is imported.
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in text and "url(" not in text
    assert len(set(page.ids)) == len(page.ids)
    assert len(page.images) == len(FIGURES)
    for image, entry in zip(
        page.images, sorted(FIGURES, key=lambda e: page.ids.index(e.name)), strict=True
    ):
        data = base64.b64decode((image["src"] or "").split(",", 1)[1])
        assert data.startswith(b"\x89PNG") and image["alt"] == entry.text
    assert "viewport" in text and "class=missing" not in text
    for heading in (
        "The paper&#x27;s claims",
        "Verification:",
        "Exact worst cases at",
        "every run",
    ):
        assert heading in text


def test_the_page_says_what_is_missing(tmp_path: Path) -> None:
    outcomes = [rendering.Outcome(find(["worst-case"])[0], None, "it is <missing>", False, 0.0)]
    report.write_report(tmp_path / "report.html", outcomes, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "it is &lt;missing&gt;" in text
    assert text.count("No result yet") >= 5 and VERIFY_COMMAND in text


def test_small_pngs_keep_their_size_and_look(made: Made) -> None:
    from PIL import Image, ImageChops

    path = made.out / "ratio-heatmap.png"
    data, size = report.small_png(path)
    assert len(data) < path.stat().st_size
    small = made.out / "small.png"
    small.write_bytes(data)
    with Image.open(path) as before, Image.open(small) as after:
        assert after.size == before.size == size
        difference = ImageChops.difference(before.convert("RGB"), after.convert("RGB"))
        assert np.asarray(difference).max() < 90
        assert np.asarray(difference).mean() < 2


def test_missing_results_are_value_errors_with_a_command() -> None:
    with pytest.raises(MissingResult, match="make it with: python -m theory"):
        Sources(Path("/nonexistent")).read(VERIFY_PATH, VERIFY_COMMAND)
    assert places.is_checkout() and places.ROOT.joinpath("figures").is_dir()
