"""The page is a story: every figure and table has its place, claims come first, tables are folded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from figures.drawing.catalogue import FIGURES
from figures.record.blocks import TABLES
from figures.record.page import write_report
from figures.record.story import GALLERY, STORY


def test_every_figure_and_table_has_one_place() -> None:
    figures = [name for section in STORY for name in (*section.figures, *section.more)]
    assert sorted(figures) == sorted(entry.name for entry in FIGURES)
    assert sorted(name for section in STORY for name in section.tables) == sorted(TABLES)
    assert set(GALLERY) <= set(figures)


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
