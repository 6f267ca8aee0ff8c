"""The figures as files and by command: what is missing, unknown, cached or unchanged."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_data import (
    deep_result,
    write_deep,
)
from made_figures import Made
from matplotlib.backends.backend_agg import FigureCanvasAgg

from figures.__main__ import main
from figures.analysis import theory_data, worst_cases
from figures.analysis.sources import Sources, array, imported_modules
from figures.analysis.verification import VERIFY_COMMAND, VERIFY_PATH
from figures.drawing import rendering, style
from figures.drawing.catalogue import FIGURES, find
from figures.record import page as report

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
    # A title too long for the line goes on below it, indented.
    lines = [text for text in capsys.readouterr().out.splitlines() if not text.startswith(" ")]
    assert [text.split()[0] for text in lines] == [entry.name for entry in FIGURES]


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
