"""The page is a story: every figure and table has its place, claims come first, tables are folded."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest

from figures import drawing, record
from figures.drawing.catalogue import FIGURES
from figures.record.blocks import TABLES
from figures.record.page import write_report
from figures.record.story import GALLERY, STORY


def test_every_figure_and_table_has_one_place() -> None:
    figures = [name for section in STORY for name in (*section.figures, *section.more)]
    assert sorted(figures) == sorted(entry.name for entry in FIGURES)
    assert sorted(name for section in STORY for name in section.tables) == sorted(TABLES)
    assert set(GALLERY) <= set(figures)


def made_of_results(package: ModuleType, kind: str) -> set[str]:
    """Public functions of the package that make a Figure or a Table from the results alone."""
    found = set()
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, made in vars(module).items():
            if inspect.isfunction(made) and made.__module__ == info.name and name[0] != "_":
                signature = inspect.signature(made)
                if signature.return_annotation == kind and len(signature.parameters) == 1:
                    found.add(f"{info.name}.{name}")
    return found


def test_no_figure_and_no_table_is_written_and_never_shown() -> None:
    shown = {f"{e.draw.__module__}.{e.draw.__name__}" for e in FIGURES}
    assert made_of_results(drawing, "Figure") <= shown
    tables = {f"{make.__module__}.{make.__name__}" for make in TABLES.values()}
    # Every single check stands on the page, below the table of verdicts, and not in the record.
    assert made_of_results(record, "Table") - tables == {"figures.record.theory_tables.all_checks"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, [])
    return path.read_text()


def test_claims_come_first_then_when_local_steps_pay(page: str) -> None:
    headings = re.findall(r"<h2 id=[^>]*>([^<]*)</h2>", page)
    assert headings[:2] == ["What was found", "When do local steps pay?"]
    assert [s.heading for s in STORY] == headings
    links = re.findall(r"<a href=#([^>]*)>", page)
    assert links == re.findall(r"<h2 id=([^>]*)>", page)


def test_tables_are_folded_but_for_the_verdicts(page: str) -> None:
    folded = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert folded.count("<table") == 1 and page.count("<table") > 10
    (verdicts,) = re.findall(r"<table.*?</table>", folded, flags=re.DOTALL)
    assert "verdict" in verdicts and "command" not in verdicts
    # What the short table says, the folded one says too.
    for claim in re.findall(r'data-head="claim">(.*?)</td>', verdicts):
        assert page.count(f'data-head="claim">{claim}</td>') == 2


def test_no_number_of_a_result_is_typed_into_the_story() -> None:
    """Paragraphs state theorems; a decimal number would be a result that no file backs."""
    for section in STORY:
        assert not re.search(r"\d\.\d", " ".join(section.text))
