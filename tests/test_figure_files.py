"""Pictures and page change only with what they show; result files are checked before they are drawn."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_data import deep_result, write_deep, write_theory
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from figures.__main__ import app
from figures.analysis import places, shapes
from figures.analysis.deep_runs import load_runs
from figures.analysis.sources import Sources
from figures.analysis.verification import VERIFY_PATH
from figures.analysis.worst_cases import WORST_CASE_PATH
from figures.drawing import orders, rendering
from figures.drawing.catalogue import Entry, find
from figures.drawing.fingerprint import fingerprint
from figures.record import deep_tables, page, theory_tables, worst_case_tables
from figures.record.blocks import make_tables, update_record
from figures.record.claims import claims
from figures.record.table import Table
from theory.support import command as cli
from theory.support.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


# ---- what is drawn -------------------------------------------------------------------------------


def draw(
    values: np.ndarray, *, colour: str = "C0", label: str = "a", title: str = "", scale: str = "log"
) -> Figure:
    figure, axes = pyplot.subplots(1, 2)
    axes[0].plot(np.arange(len(values)), values, color=colour, label=label)
    axes[0].fill_between(np.arange(len(values)), values / 2, values, alpha=0.2)
    axes[0].set(yscale=scale, xlabel="x", title=title)
    axes[1].pcolormesh(np.outer(values, values))
    axes[1].text(0.5, 0.5, "here")
    pyplot.close(figure)
    return figure


VALUES = 10.0 ** np.linspace(-9, 0, 30)


def shown(**changes: Any) -> str:
    return fingerprint(draw(**{"values": VALUES, **changes}), draw)


def test_the_last_digits_of_the_data_and_the_fonts_are_not_what_is_drawn() -> None:
    noise = 1 + 1e-13 * np.random.default_rng(0).standard_normal(len(VALUES))
    assert shown(values=VALUES * noise) == shown()
    with pyplot.rc_context({"font.size": 17, "font.family": "monospace", "figure.dpi": 33}):
        assert shown() == shown()


@pytest.mark.parametrize(
    "change",
    [
        {"values": VALUES * np.linspace(1, 1.1, 30)},
        {"values": VALUES[:-1]},
        {"colour": "C1"},
        {"label": "b"},
        {"title": "t"},
        {"scale": "linear"},
    ],
)
def test_data_colours_and_texts_are_what_is_drawn(change: dict[str, Any]) -> None:
    assert shown(**change) != shown()


def test_the_code_that_draws_counts(tmp_path: Path) -> None:
    assert fingerprint(draw(VALUES), draw) != fingerprint(draw(VALUES), orders.tightness)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_deep(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_a_picture_that_could_not_be_replaced_is_found_before_the_drawing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    place = tmp_path / "quick" / "tightness.png"
    place.parent.mkdir()
    place.mkdir() if kind == "folder" else os.mkfifo(place)
    arguments = ["tightness", "--quick", "--out", str(tmp_path)]
    assert cli.run_command(app, "figures", arguments) == 2
    error = capsys.readouterr().err
    assert f"--out would write {place}: is " in error and error.count("\n") == 1
    assert sorted(place.parent.iterdir()) == [place]


def test_picture_and_page_of_the_same_data_stay_as_they_are(root: Path) -> None:
    entries = find(["rounds-to-loss"])

    def make(out: str) -> list[rendering.Outcome]:
        return rendering.make_figures(entries, root / out, root=root)

    gallery, html = root / "gallery", root / "report.html"
    assert {p.stem for p in page.write_gallery(gallery, make("one"))} == {e.name for e in entries}
    assert page.write_report(html, make("one"), root)
    # Another machine draws other pixels of the same figure.
    outcomes = make("two")
    for outcome in outcomes:
        assert outcome.png is not None
        with Image.open(outcome.png) as image:
            ImageDraw.Draw(image).point((5, 5), fill=1)
            image.save(outcome.png)
    before = {p: p.read_bytes() for p in [html, *gallery.iterdir()]}
    assert page.write_gallery(gallery, outcomes) == []
    assert not page.write_report(html, outcomes, root)
    assert {p: p.read_bytes() for p in before} == before
    # New data change the picture, and its place on the page.
    path = root / "deep/results/laptop_to-loss_iid_K05.json"
    content = json.loads(path.read_text())
    content["summary"]["rounds_to_target"] += 40
    path.write_text(json.dumps(content))
    again = make("two")
    assert [p.stem for p in page.write_gallery(gallery, again)] == ["rounds-to-loss"]
    assert page.write_report(html, again, root)


def test_the_commit_alone_changes_no_page(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    html = root / "report.html"
    assert page.write_report(html, [], root)
    monkeypatch.setattr(page, "commit", lambda: "another")
    assert not page.write_report(html, [], root)


def test_a_record_that_says_the_same_is_not_written(root: Path) -> None:
    path = root / "record.md"
    path.write_text("<!-- begin deep-orders -->\n<!-- end deep-orders -->\n")
    assert update_record(path, root)[0]
    path.chmod(0o444)
    assert not update_record(path, root)[0]


# ---- result files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "lacks 'command'"),
        ("[]", "holds no JSON object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\xff\xfe", "is not JSON"),
        (None, "Is a directory"),
        ({"metrics": []}, r"metrics is \[\], allowed: at least one entry"),
        ({"metrics": 5}, "metrics is 5, allowed: a list"),
        ({"summary": None}, "summary is None, allowed: an object"),
        ({"config": {}}, "lacks 'config.regime'"),
        ({"command": True}, "command is True, allowed: a text"),
    ],
)
def test_a_damaged_result_is_one_line(
    root: Path, content: str | dict[str, Any] | None, said: str
) -> None:
    path = root / "deep/results/laptop_to-loss_iid_K05.json"
    path.unlink()
    if content is None:
        path.mkdir()
    elif isinstance(content, dict):
        path.write_text(json.dumps({**deep_result("iid", 5), **content}))
    else:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=rf"K05\.json.*{said}") as error:
        load_runs(Sources(root))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    write_deep(root)
    write_theory(root)
    return root


@pytest.fixture(scope="module")
def small(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with few rows, which say as much as all."""
    root = tmp_path_factory.mktemp("small")
    for path in results.rglob("*.json"):
        if "deep" not in path.parts or "iid" in path.name:
            content = json.loads(path.read_text())
            kept = {k: v[:4] if isinstance(v, list) else v for k, v in content.items()}
            target = root / path.relative_to(results)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(kept))
    return root


def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value inside a JSON value."""
    found = [path] if path else []
    inner: Any = enumerate(value) if isinstance(value, list) else ()
    inner = value.items() if isinstance(value, dict) else inner
    for key, entry in inner:
        found += places_of(entry, (*path, key))
    return found


RUN = "deep/results/laptop_to-loss_iid_K05.json"
#: Result file -> the tables that read it.
READERS: dict[str, tuple[Callable[[Sources], Table], ...]] = {
    VERIFY_PATH: (
        theory_tables.verification,
        theory_tables.tightness,
        theory_tables.orders,
        theory_tables.communication,
        theory_tables.clients,
        theory_tables.server_steps,
        theory_tables.all_checks,
        claims,
    ),
    WORST_CASE_PATH: (worst_case_tables.worst_cases,),
    RUN: (deep_tables.deep_runs, deep_tables.deep_orders, deep_tables.deviations),
}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_no_damage_to_a_result_is_a_traceback(small: Path, name: str, data: Any) -> None:
    original = (small / name).read_text()
    content = json.loads(original)
    place = data.draw(st.sampled_from(places_of(content)))
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    damage = data.draw(
        st.sampled_from(
            ["delete", None, "x", "inf", -1, 0, 10**400, True, float("nan"), [], {}, [0]]
        )
    )
    if damage == "delete":
        del parent[place[-1]]
    else:
        parent[place[-1]] = copy.deepcopy(damage)
    (small / name).write_text(json.dumps(content))
    try:
        for make in READERS[name]:
            with contextlib.suppress(UserError):
                make(Sources(small)).markdown()
    finally:
        (small / name).write_text(original)


def test_the_committed_results_have_the_shapes_that_are_read() -> None:
    found = 0
    for pattern in shapes.SHAPES:
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT).as_posix()
            shapes.checked(name, json.loads(path.read_text()))
            found += 1
    assert found > 20


def test_a_damaged_cache_is_computed_again(tmp_path: Path) -> None:
    for damage in (b"{", b"[]", b"\xff"):
        inputs = Sources(cache=tmp_path)
        inputs.compute(deep_counter, number=3)
        (path,) = tmp_path.glob("*.json")
        path.write_bytes(damage)
        assert inputs.compute(deep_counter, number=3) == {"number": 3}
        assert json.loads(path.read_text()) == {"number": 3}


def deep_counter(number: int) -> dict[str, Any]:
    return {"number": number}


# ---- the command ---------------------------------------------------------------------------------


def run_figures(*arguments: str) -> int:
    return cli.run_command(app, "python -m figures", list(arguments))


@pytest.fixture
def elsewhere(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bool], Path]:
    """A folder that stands for a checkout or for site-packages, with results and a record."""

    def make(checkout: bool) -> Path:
        top = tmp_path / "top"
        (top / "figures").mkdir(parents=True)
        if checkout:
            (top / "pyproject.toml").touch()
        for name in ("paper_repro.md", "README.md"):
            (top / name).write_text("<!-- begin deep-orders -->\n<!-- end deep-orders -->\n")
        plain = rendering.make_figures
        entries: tuple[Entry, ...] = tuple(find(["rounds-to-loss"]))
        for module in ("figures.__main__", "figures.record.page", "figures.analysis.places"):
            monkeypatch.setattr(f"{module}.ROOT", top)
        monkeypatch.setattr("figures.__main__.FIGURES", entries)
        monkeypatch.setattr("figures.record.blocks.make_tables", lambda root: make_tables(results))
        monkeypatch.setattr(page, "make_tables", lambda root: make_tables(results))
        monkeypatch.setattr(rendering, "make_figures", lambda *a, **k: plain(*a, root=results, **k))
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return top

    return make


def files_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_without_names_everything_is_made_and_a_second_time_nothing(
    elsewhere: Callable[[bool], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    top = elsewhere(True)
    # The results here have no speed, so the command says so; the rest is made.
    assert run_figures() == cli.BAD_INPUT
    assert "missing: theory/results/speed.json is missing" in capsys.readouterr().err
    made = files_in(top)
    assert {"figures/report.html", "figures/gallery/rounds-to-loss.png"} <= made
    assert "Experiment 2" in (top / "paper_repro.md").read_text()
    before = {name: (top / name).stat().st_mtime_ns for name in made}
    run_figures()
    out = capsys.readouterr().out
    assert out.count("unchanged") == 5
    assert {name: (top / name).stat().st_mtime_ns for name in made} == before


def test_installed_nothing_is_written_beside_the_package(
    elsewhere: Callable[[bool], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = elsewhere(False)
    before = {name: (top / name).read_bytes() for name in files_in(top)}
    run_figures()
    assert {name: (top / name).read_bytes() for name in files_in(top)} == before
    assert "figures/report.html" in files_in(tmp_path / "work")
    assert places.cache_folder() == tmp_path / "cache" / "local-sgd-rates" / "figures"
    capsys.readouterr()
    assert run_figures("record") == cli.BAD_INPUT
    assert capsys.readouterr().err.startswith("error: record is written in a checkout only")


def test_with_out_nothing_else_is_written(
    elsewhere: Callable[[bool], Path], tmp_path: Path
) -> None:
    top = elsewhere(True)
    before = files_in(top)
    run_figures("--out", str(tmp_path / "mine"))
    assert files_in(top) == before
    assert "report.html" in files_in(tmp_path / "mine")


def test_an_output_that_cant_be_is_refused_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out" / "report.html").mkdir(parents=True)
    for out, said in (
        ("file", "is not a folder"),
        ("file/below", "directory"),
        ("out", "directory"),
    ):
        assert run_figures("report", "--out", str(tmp_path / out)) == cli.BAD_INPUT
        captured = capsys.readouterr()
        assert captured.out == "" and said in captured.err and captured.err.count("\n") == 1


def test_drawing_uses_no_wrong_escapes() -> None:
    code = (
        "import compileall, sys\n"
        "sys.exit(not all(compileall.compile_dir(d, quiet=1, force=True, legacy=False)"
        " for d in sys.argv[1:]))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            code,
            "theory",
            "deep",
            "figures",
            "benchmarks",
            "tests",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
